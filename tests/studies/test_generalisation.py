"""The study of generalisation: what is drawn, the optimal test, paired differences, and what is said of them."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from sparsehopfield.studies import generalisation as study
from sparsehopfield.studies.generalisation import protocol, report

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

SMALL = {
    "decays": 1.0,
    "dropouts": (0.0, 0.3),
    "betas": (0.25, 1.0),
    "heads": 2,
    "bits": 8,
    "signals": 2,
    "size": 6,
    "bags": 40,
    "tested": 40,
    "epochs": 2,
    "runs": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("generalisation"), **SMALL)


def test_what_is_drawn():
    chosen = protocol.Options(bits=20, size=8, bags=300, tested=200, densities=(0.2, 0.5))
    one, other = (protocol.task(chosen, density, 3) for density in (0.2, 0.5))
    assert (one.signals.sum(axis=1) == 4).all()
    assert (other.signals.sum(axis=1) == 10).all()
    assert list(one.sets) == ["train", "test", "smaller", "larger", "more", "noisier", "density 0.5"]
    for name, (size, held, density, flips) in protocol.conditions(chosen, 0.2).items():
        bags, labels, keys, _ = one.sets[name]
        assert bags.shape == (300 if name == "train" else 200, size, 20)
        assert labels.mean() == 0.5
        np.testing.assert_array_equal(keys.sum(axis=1), held * labels)
        assert bags[~keys].mean() == pytest.approx(density, abs=0.02)
        nearest = np.abs(bags[keys][:, None] - one.signals).sum(axis=-1).min(axis=1)
        assert nearest.mean() == pytest.approx(20 * flips, abs=0.4)
    assert (one.sets["train"].bags[:40] != one.sets["test"].bags[:40]).any()
    again = protocol.task(chosen, 0.2, 4)
    assert (again.signals != one.signals).any()


@pytest.mark.parametrize("name", ["test", "more", "noisier"])
def test_the_optimal_test_against_the_likelihoods_of_all_places(name):
    drawn = protocol.task(protocol.Options(bits=4, signals=2, size=5), 0.2, 0)
    some = drawn.sets[name]
    scores = protocol.optimal_scores(some, drawn.signals)
    size, held, density, flips = some.condition
    for bag, score in zip(some.bags[:6].astype(bool), scores, strict=False):
        ratios = [
            np.mean([np.prod(np.where(row == signal, 1 - flips, flips)) for signal in drawn.signals])
            / np.prod(np.where(row, density, 1 - density))
            for row in bag
        ]
        places = itertools.combinations(range(size), held)
        assert score == pytest.approx(np.log(np.mean([np.prod([ratios[i] for i in place]) for place in places])))


def test_table(found):
    settings = {tuple(list(row.values())[:-2]): {} for row in found.rows}
    for row in found.rows:
        settings[tuple(list(row.values())[:-2])][row["metric"]] = row["value"]
    assert len(settings) == 2 * 2 * (1 + 2 * 3)  # densities, runs, the optimal test and regularisations by maps
    for (name, *_), values in settings.items():
        assert all(0 <= value <= 1 for value in values.values())
        assert ("beta" in values) == (name != protocol.OPTIMAL)
    # one network again, from what the table says
    key = ("sparsemax", 0.5, 1.0, 0.3, 8, 1)
    setting = dict(zip(found.rows[0], key, strict=False))
    chosen = protocol.Options(**SMALL)
    drawn = protocol.task(chosen, 0.5, 1)
    machine = protocol.trained(chosen, setting, settings[key]["beta"], drawn.sets["train"])
    larger = drawn.sets["larger"]
    assert machine.score(larger.bags, larger.labels) == settings[key]["larger accuracy"]
    positive = drawn.sets["test"].labels == 1
    on_signals = [
        weights[keys].sum()
        for weights, keys in zip(
            machine.bag_weights(drawn.sets["test"].bags[positive]), drawn.sets["test"].keys[positive], strict=True
        )
    ]
    assert np.mean(on_signals) == pytest.approx(settings[key]["weight"], abs=1e-4)
    assert machine.get_params()["head_dropout"] == machine.get_params()["dropout"] == 0.3
    assert machine.get_params()["weight_decay"] == 1.0


def test_interrupted_and_continued_and_read_again(found, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in found.table.parent.iterdir()}
    assert {f"generalisation{part}.{kind}" for part in ("", "-levels") for kind in ("png", "svg")} < set(files)
    (tmp_path / "settings.json").write_bytes(files["settings.json"])
    (tmp_path / "table.csv").write_bytes(files["table.csv"][:-40])
    monkeypatch.setattr("sparsehopfield.inspect.plotting.save", lambda figure, path: [])
    continued = study.run(tmp_path, **SMALL)
    assert (tmp_path / "table.csv").read_bytes() == files["table.csv"]
    assert continued.report == found.report == report.report_text(study.stored(tmp_path))


def test_differences():
    rng = np.random.default_rng(0)
    found = report.differences({i: rng.standard_normal(8) + 3 * (i < 2) for i in range(40)})
    plain = [report.differences({0: np.random.default_rng(1).standard_normal(8)})[0].p for _ in range(2)]
    assert plain[0] == plain[1]
    assert [name for name, some in found.items() if some.told] == [0, 1]
    for some in found.values():
        assert some.low < some.mean < some.high
    # the largest p of a family is left as it is, the smallest multiplied by their number
    alone = report.differences({0: np.array([0.1, 0.2, 0.4])})[0].p
    both = report.differences({0: np.array([0.1, 0.2, 0.4]), 1: np.array([0.1, -0.1, 0.01])})
    assert both[0].p == pytest.approx(2 * alone)
    same = report.differences({0: np.full(4, 0.3), 1: np.zeros(4), 2: np.array([0.5])})
    assert (same[0].p, same[1].p) == (0.25, 1)  # of the test of signs 1/8, of two
    assert np.isnan(same[2].p)
    assert same[2].text() == "+50.0"


def made_up(lead):
    """Rows of a whole table: sparsemax is ahead by `lead` on larger bags, and by as much more with dropout."""
    chosen = protocol.Options(**SMALL | {"runs": 8})
    rng = np.random.default_rng(3)
    noise = {run: 0.01 * rng.standard_normal() for run in range(8)}
    rows = []
    for setting in study.settings(chosen):
        for metric in protocol.metrics(chosen, setting):
            value = 0.9 if metric == "train" else 0.7 + noise[setting["run"]] + 0.002 * rng.standard_normal()
            if setting["map"] == "sparsemax" and metric == "larger":
                value += lead * (1 + (setting["dropout"] > 0))
            if metric == "choosing":
                value += 0.1 * (setting["dropout"] > 0)
            rows.append({**setting, "metric": metric, "value": value})
    return report.Summary(rows, chosen)


def test_what_is_told_of_made_up_leads():
    summary = made_up(0.1)
    averaged, own = (report.compared(summary, how) for how in (report.AVERAGED, report.OWN))
    told = {key for key, some in averaged.items() if some.told}
    assert {("sparsemax", density, "larger") for density in (0.2, 0.5)} <= told
    assert len(told) <= 3  # of the other 26 one in twenty at most
    assert averaged["sparsemax", 0.2, "larger"].mean == pytest.approx(0.15, abs=0.005)
    assert own["sparsemax", 0.2, "larger"].mean == pytest.approx(0.2, abs=0.005)  # all choose dropout
    change = report.changes(summary)
    assert change["sparsemax", "dropout", report.SHIFTED].mean == pytest.approx(0.1 / 5, abs=0.002)  # one set of five
    assert change["sparsemax", "dropout", report.SHIFTED].told
    assert not change["entmax15", "dropout", report.SHIFTED].told
    assert report.effects(summary)["sparsemax", "dropout", report.SHIFTED].mean == pytest.approx(0.02, abs=0.002)
    key = ("softmax", 0.2, 1.0, 0.0, 8)
    np.testing.assert_allclose(summary.values(key, "gap"), 0.9 - summary.values(key, "test"))
    text = " ".join(report.report_text(summary).split())
    assert re.search(r"sparsemax larger at density 0\.2 \+1[45]\.\d \[", text)
    nothing = " ".join(report.report_text(made_up(0.0)).split())
    assert "0 of 28 differences from softmax are told from 0. The others are at most" in nothing


def test_the_page_has_the_differences_of_the_kept_table():
    root = Path(__file__).resolve().parents[2]
    summary = study.stored(root / "notebooks" / "results" / "generalisation")
    lines = (root / "docs" / "guides" / "studies.md").read_text(encoding="utf-8").splitlines()
    found = report.compared(summary, report.AVERAGED)
    sets = [name for name in protocol.conditions(summary.chosen, 0.2) if name != "train"]
    for one, other in zip([*sets, "gap"], [*sets[:-1], "density 0.2", "gap"], strict=True):
        cells = [
            cell
            for density, metric in ((0.2, one), (0.5, other))
            for cell in (
                f"{100 * summary.by_run('softmax', metric, density=density).mean():.1f}",
                *(found[name, density, metric].text() for name in ("sparsemax", "entmax15")),
            )
        ]
        rows = [[cell.strip() for cell in line.split("|")] for line in lines if cells[1] in line]
        assert cells in [row[3:6] + row[7:10] for row in rows]


def test_a_single_run_and_a_single_map(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sparsehopfield.inspect.plotting.save", lambda figure, path: drawn.append(path.name) or [])
    one = SMALL | {"runs": 1, "dropouts": 0.0, "betas": 1.0, "densities": 0.5, "epochs": 1}
    text = study.run(tmp_path / "run", **one).report
    assert "A single run tells no difference between maps" in text
    assert max(map(len, text.split("What came out")[1].splitlines())) <= 100
    text = study.run(tmp_path / "map", **one | {"maps": "sparsemax"}).report
    assert "softmax" not in text
    assert drawn == ["generalisation"]  # nothing was varied, and a single map has no differences


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": "softplus"}, "maps: unknown name 'softplus'"),
        ({"densities": 1.0}, "densities: must be above 0 and below 1"),
        ({"decays": -1.0}, "decays: must be finite"),
        ({"dropouts": 1.0}, "dropouts: must be at least 0 and below 1"),
        ({"hidden": 0}, "hidden: must be at least 1"),
        ({"betas": 0.0}, "betas: must be positive"),
        ({"flips": 0.3}, "flips: must be above 0 and below 0.25"),
        ({"size": 2}, "size: must be at least 3"),
        ({"runs": 0}, "runs: must be at least 1"),
    ],
    ids=str,
)
def test_bad_options_are_named(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
