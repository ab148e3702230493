"""The multiple instance studies on tiny settings: protocol, tables, reports, figures, the command line."""

import csv

import numpy as np
import pytest
from helpers import command
from scipy import stats

from sparsehopfield import layers
from sparsehopfield.data import bags, datasets
from sparsehopfield.errors import FileFormatError
from sparsehopfield.inspect import plotting
from sparsehopfield.studies import bits, mil, mnist_bags
from sparsehopfield.studies._core import arrivals, means, tables
from sparsehopfield.studies.bits import protocol as bits_protocol
from sparsehopfield.studies.mil import protocol as mil_protocol
from sparsehopfield.studies.mil import report as mil_report
from sparsehopfield.studies.mnist_bags import protocol as mnist_protocol

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')


@pytest.fixture(autouse=True)
def save(monkeypatch):
    """Figures take longer than tables, so they are only drawn where they are what is tested."""
    original = plotting.save
    monkeypatch.setattr(plotting, "save", lambda figure, path: [])
    return original


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer bags than a study has."""
    for name, count in (("TRAIN", 60), ("INNER", 20), ("EVALUATION", 40), ("FRESH", 50)):
        monkeypatch.setattr(bits_protocol, name, count)
    monkeypatch.setattr(mnist_protocol, "TESTED", 20)


def by_metric(rows):
    """The values of each setting, by metric."""
    values = {}
    for row in rows:
        *setting, metric, value = row.values()
        values.setdefault(tuple(setting), {})[metric] = value
    return values


# What they share


def test_means():
    rows = [
        {"model": model, "run": run, "metric": metric, "value": value + 0.1 * run}
        for model, value in (("sparse", 0.5), ("dense", 0.25))
        for run in range(3)
        for metric in ("a", "b")
    ]
    summary = means.Means(rows, ["model"])
    assert summary.keys == [("sparse",), ("dense",)]
    assert summary.levels("model") == ["sparse", "dense"]
    assert summary.mean(("sparse",), "a") == pytest.approx(0.6)
    assert summary.std(("sparse",), "a") == pytest.approx(0.1)
    assert summary.text(("dense",), "b", 1, 3) == "0.350 ± 0.100"
    lead, error = summary.lead(("sparse",), ("dense",), "a")
    assert (lead, error) == (pytest.approx(0.25), pytest.approx(0, abs=1e-12))
    single = means.Means(rows[:2], ["model"])
    assert single.std(("sparse",), "a") == 0


def _third(setting):
    return {"m": setting["x"] / 3, "more": 1.0, "seconds": 0.5}


def test_side_by_side_gives_the_same_table(tmp_path):
    settings = [{"x": x} for x in range(5)]

    def metrics(setting):
        return ["m", "more"] if setting["x"] % 2 else ["m"]

    rows = [
        tables.run_table(tmp_path / str(jobs), "any", {}, settings, metrics, _third, jobs=jobs, progress=False)
        for jobs in (1, 2)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 7
    written = [(tmp_path / str(jobs) / "table.csv").read_bytes() for jobs in (1, 2)]
    assert written[0] == written[1]
    assert tables.times(tmp_path / "2", settings) == [0.5] * 5


def test_a_setting_that_was_not_asked_for(tmp_path):
    settings = [{"x": 1}, {"x": 2}]
    tables.run_table(tmp_path, "any", {}, settings, ["m"], _third, progress=False)
    with pytest.raises(ValueError, match=r"line 3: damaged \(not one of the settings"):
        tables.run_table(tmp_path, "any", {}, settings[:1], ["m"], _third, progress=False)


# Bit patterns

BITS = {"sizes": [4, 6], "shares": [0.5, 1], "share_size": 4, "runs": 2, "epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A whole run, once for all tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("TRAIN", 60), ("INNER", 20), ("EVALUATION", 40), ("FRESH", 50)):
            patch.setattr(bits_protocol, name, count)
        patch.setattr(plotting, "save", lambda figure, path: [])
        return bits.run(tmp_path_factory.mktemp("bits"), recipe=["paper", "tuned", "released-cosine"], **BITS)


def test_bits_rows(found):
    with open(found.table, encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert table == [{name: str(value) for name, value in row.items()} for row in found.rows]
    settings = by_metric(found.rows)
    assert len(settings) == 3 * 4 * 2 * 2  # recipes, conditions, models, runs
    for (recipe, _, part, *_), values in settings.items():
        tests = {"size": ["fresh 4/1", "fresh 6/1"], "share": ["fresh 4/2", "fresh 4/4"]}[part]
        choice = ["starts", "first last", "first chosen", "all last"] if recipe == "tuned" else []
        assert list(values) == [*bits_protocol.MEASURED, *choice, *tests, *bits_protocol.curve_metrics(3)]
        epoch = int(values["epoch"])
        assert values["best"] >= values["last"] == values["validation accuracy 3"]
        assert values["best"] >= values["chosen"] == values[f"validation accuracy {epoch}"]
        assert all(0 <= values[test] <= 1 for test in tests)
        losses, accuracies = ([values[f"validation {name} {i}"] for i in (1, 2, 3)] for name in ("loss", "accuracy"))
        assert values["lowest loss"] == min(losses)
        at = values["epoch of lowest loss"]
        assert np.isinf(at) if min(losses[:2]) > losses[2] else losses[int(at) - 1] == min(losses)
        assert np.isfinite(values["epoch of 95 %"]) == (max(accuracies) >= 0.95)
        if choice:
            assert 1 <= values["starts"] <= 12
            assert all(0 <= values[name] <= 1 for name in choice[1:])


def test_bits_models_meet_the_same_bags(found):
    seeds = {}
    for row in found.rows:
        seeds.setdefault((row["size"], row["signals"], row["run"]), set()).add(row["seed"])
    assert all(len(group) == 1 for group in seeds.values())
    assert len({seed for group in seeds.values() for seed in group}) == len(seeds)


def test_bits_row_can_be_measured_again(found):
    row = next(r for r in found.rows if r["model"] == "sparse" and r["run"] == 1 and r["metric"] == "fresh 6/1")
    options = {**bits_protocol.PAPER, "epochs": 3}
    machine, strings, _ = bits_protocol.trained("sparse", "pooling", options, row["size"], row["signals"], row["seed"])
    assert bits_protocol.fresh_accuracy(machine, strings, 6, 1, row["seed"]) == row["value"]
    kept = machine.history_["inner_accuracy"]
    assert kept[machine.best_epoch_ - 1] == kept.max()  # chosen by bags that are not trained on


def test_bits_draw():
    train, evaluation, strings = bits_protocol.draw(7, 2, seed=5)
    assert (len(train), len(evaluation)) == (80, 40)
    assert np.bincount(train.ids, train.keys).tolist() == (2 * train.labels).tolist()
    assert {tuple(row) for row in evaluation.instances[evaluation.keys].astype(int)} <= {tuple(row) for row in strings}
    np.testing.assert_array_equal(bits_protocol.stacked(train)[3], train[3])


def test_bits_fixed():
    """Runs of fixed signals differ in initial weights alone: bags, and which of them choose, are the same."""
    (train, evaluation, strings), again = (bits_protocol.draw(7, 2, seed, "fixed") for seed in (5, 6))
    np.testing.assert_array_equal(strings, bags.bit_signals(seed=1111))
    for one, other in ((train, again.train), (evaluation, again.evaluation)):
        np.testing.assert_array_equal(one.instances, other.instances)
    assert (bits_protocol.draw(7, 2, 5).train.instances != bits_protocol.draw(7, 2, 6).train.instances).any()
    rows, starts = bits_protocol.stacked(train), []
    for model, seed in (("sparse", 5), ("dense", 5), ("sparse", 6)):
        options = {**bits_protocol.COSINE, "epochs": 1, "learning_rate": 0.0}  # its weights stay the initial ones
        machine = bits_protocol.classifier(model, "pooling", options, seed, "fixed").fit(rows, train.labels)
        assert machine.history_["inner_accuracy"] == machine.score(rows[60:], train.labels[60:])
        starts.append(np.concatenate([weights.ravel() for weights in machine.weights_.values()]))
    np.testing.assert_array_equal(starts[0], starts[1])
    assert (starts[0] != starts[2]).any()


def test_bits_measured_of_a_history():
    accuracy = np.array([0.5, 0.95, 0.9, 1.0, 0.975])
    assert bits_protocol.first_reached(accuracy, 0.95) == 2
    assert bits_protocol.first_reached(accuracy, 0.99) == 4
    assert bits_protocol.first_reached(accuracy[:3], 0.99) == np.inf
    batched = bits_protocol.batch_means(np.repeat([1.0, 0.5, 0.0], [5, 4000, 5]), 400, 128, seed=0)
    assert (batched[:5] == 1).all()
    assert (batched[-5:] == 0).all()
    half = batched[5:-5]
    # Of 200 wrong bags of 400, the batch of 16 has h, which is hypergeometric, and those of 128 together the others.
    h = stats.hypergeom(400, 200, 16)
    assert half.mean() == pytest.approx(0.5, abs=4 * half.std() / 4000**0.5)
    assert half.std() == pytest.approx(h.std() * (1 / 16 - 1 / 128) / 4, rel=0.06)


def test_arrivals():
    inf = np.inf
    some = arrivals.Arrivals(np.array([3.0, 5, inf, inf, 8]), np.array([10.0, 10, 4, 10, 10]))
    # One that ended at 4 is among those at risk before: 1, 4/5 from 3 on, 8/15 from 5 on, 4/15 from 8 on.
    assert (some.count, some.median()) == (3, 8.0)
    assert some.mean(10) == pytest.approx(3 + 2 * 4 / 5 + 3 * 8 / 15 + 2 * 4 / 15)
    assert some.mean(6) == pytest.approx(3 + 2 * 4 / 5 + 8 / 15)
    ends = np.full(6, 20.0)
    none = arrivals.Arrivals(np.full(6, inf), ends)
    assert (none.count, none.median(), none.mean(20)) == (0, inf, 20)
    late = arrivals.Arrivals(np.array([9.0, 10, 11, inf, inf, 20]), ends)
    assert late.mean(20) == pytest.approx(np.mean(np.minimum(late.times, 20)))
    share, (below, above) = late.shares([0, 10, 20])
    np.testing.assert_allclose(share, [0, 1 / 3, 2 / 3])
    assert [*below] == [0, *below[1:]]
    assert (above > 0).all()
    difference, p = arrivals.compare(arrivals.Arrivals(late.times - 5, ends), late, 20)
    assert difference == pytest.approx(np.mean([-5, -5, -5, 0, 0, -5]))
    assert p == 2 / 2**4  # of the four that differ all have one sign
    assert arrivals.compare(none, none, 20) == (0, 1)
    assert (
        arrivals.compare(arrivals.Arrivals(np.array([1.0]), ends[:1]), arrivals.Arrivals(ends[:1], ends[:1]), 20)[1]
        == 1
    )
    with pytest.raises(ValueError, match="end: must be at most 4"):
        some.restricted(5)


def test_candidates_are_the_whole_grid():
    options = dict(bits_protocol.candidates())
    assert len(options) == 2**4 * 4
    assert len({str(sorted(map(str, values.items()))) for values in options.values()}) == len(options)
    for tuned in bits_protocol.TUNED.values():  # what is called tuned was among what was searched
        searched = {name: value for name, value in tuned.items() if name not in ("restarts", "epochs")}
        assert any({**values, **searched} == values for values in options.values())


def test_bits_report(found):
    text = found.report
    for title in (
        "Table 1, pooling, recipe paper: by bag size, one signal",
        "Table 1, pooling, recipe tuned: by share of signals, bags of 4",
        "Table 3, pooling, recipe tuned, dense: trained at one share of signals, tested at another",
        "Selection, pooling, recipe tuned: accuracy on the",
        "Convergence, pooling, recipe released-cosine: epochs to 99 % accuracy",
        "What came out",
    ):
        assert title in text
    assert text.count("Selection, ") == 2  # the other recipes choose no start
    summary = bits.report.Summary(found.rows)
    value = summary.text(("paper", "pooling", "size", 6, 1, "dense"), "fresh 6/1")
    assert value in text


def test_bits_report_of_convergence():
    """Four runs: sparse comes to 95 % in all of them, dense in two and later; an epoch takes it half the time."""
    rows, seconds = [], []
    for model, at, took in (("sparse", [2, 3, 4, 5], 10.0), ("dense", [9, 10, np.inf, np.inf], 5.0)):
        setting = {"recipe": "r", "layer": "pooling", "part": "size", "size": 7, "signals": 1, "model": model}
        for run, epoch in enumerate(at):
            rows += [
                {**setting, "run": run, "metric": metric, "value": value}
                for metric, value in (("epoch of 95 %", epoch), ("training loss 1", 0.0), ("training loss 10", 0.0))
            ]
            seconds.append({**setting, "run": run, "metric": "seconds", "value": took})
    panel = ("r", "pooling", "size")
    line = bits.report._convergence(bits.report.Summary(rows, seconds), panel, "95 %").splitlines()[-1].split()
    epochs = ["7", "4", "of", "4", "3", "4", "2", "of", "4", "10", "10", "-6", "0.1250"]
    assert line == [*epochs, "3.50", "4.88", "-1.38", "0.2500"]  # seconds up to 5, where dense ended
    untimed = bits.report._convergence(bits.report.Summary(rows), panel, "95 %").splitlines()[-1].split()
    assert untimed == epochs


def test_bits_paper_numbers_stand_beside(tmp_path):
    outcome = bits.run(
        tmp_path, part="size", sizes=[150], models="dense", runs=1, epochs=1, recipe="paper", progress=False
    )
    assert [line.split() for line in outcome.report.splitlines() if line.split()[1:2] == ["paper"]] == [
        ["dense", "paper", "76.44"]
    ]


def test_bits_figures(found, save, tmp_path):
    drawn = bits.report.figures(bits.report.Summary([row for row in found.rows if row["recipe"] == "paper"]))
    assert set(drawn) == {
        f"bits-paper-pooling-{part}{end}" for part in ("size", "share") for end in ("", "-curves", "-arrivals")
    }
    files = save(drawn["bits-paper-pooling-size-curves"], tmp_path / "curves")
    assert all(file.stat().st_size > 5000 for file in files)
    curves = drawn["bits-paper-pooling-size-curves"].axes
    assert len(curves) == 4 * 2
    assert curves[0].lines[0].get_xdata().tolist() == [1, 2, 3]
    arrived = drawn["bits-paper-pooling-size-arrivals"].axes
    assert len(arrived) == 2 * 2
    assert arrived[0].lines[0].get_xdata().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("layer", ["hopfield", "attention"])
def test_bits_other_layers(tmp_path, layer):
    outcome = bits.run(
        tmp_path, layer=layer, part="size", sizes=5, runs=1, epochs=1, recipe="tuned", models="sparse", progress=False
    )
    assert f"Table 1, {layer}, recipe tuned" in outcome.report


def test_bits_search(tmp_path, monkeypatch):
    grid = {name: bits_protocol.GRID[name][-1:] for name in bits_protocol.GRID}
    grid["beta"] = bits_protocol.GRID["beta"][:3]
    monkeypatch.setattr(bits_protocol, "GRID", grid)
    for name, value in (("FIRST_RUNS", 2), ("KEPT", 2), ("SECOND_RUNS", 3)):
        monkeypatch.setattr(bits, name, value)
    outcome = bits.run(tmp_path, search=True, share_size=5, epochs=2, progress=False)
    first = by_metric(bits.run(tmp_path, search=True, share_size=5, epochs=2, progress=False).rows)
    assert first == by_metric(outcome.rows)
    assert len(first) == 2 * 2 * 3  # models, kept, runs
    lines = (tmp_path / "all" / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 * 2 * 2  # models, candidates, runs, metrics
    for model in ("sparse", "dense"):
        assert f"pooling, {model}: 3 candidates in 2 runs, the best 2 of them in 3 other runs" in outcome.report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": "sizes"}, "part: unknown name 'sizes'; valid: size, share"),
        ({"recipe": "best"}, "recipe"),
        ({"signals": "old"}, "signals: unknown name 'old'; valid: fresh, fixed"),
        ({"layer": "mean"}, "layer"),
        ({"models": "polynomial"}, "models"),
        ({"sizes": [0]}, "sizes"),
        ({"shares": [0]}, "shares"),
        ({"shares": [1.1]}, "shares"),
        ({"share_size": 0}, "share_size"),
        ({"runs": 0}, "runs"),
        ({"jobs": 0}, "jobs"),
        ({"epochs": 0}, "epochs"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bits_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        bits.run(tmp_path, **{**BITS, **change})
    assert not any(tmp_path.iterdir())


# Real bags

MIL = {
    "repeats": 2,
    "folds": 3,
    "inner_folds": 2,
    "limit_settings": 2,
    "epochs": 3,
    "members": 2,
    "models": ("MInD", "sparse", "dense"),
    "recipe": ("tuned", "released"),
    "progress": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set in UCSB's layout: positive bags have one instance whose first feature is large."""
    rng = np.random.default_rng(0)
    rows = []
    for bag in range(24):
        for instance in range(rng.integers(2, 6)):
            features = rng.standard_normal(5)
            features[0] += 5 * (bag % 2 and instance == 0)
            rows.append([bag % 2, bag, *features, 0.0])  # the last feature never varies
    path = tmp_path_factory.mktemp("mil")
    np.savetxt(path / "ucsb.csv", np.array(rows), delimiter=",")
    return path


@pytest.fixture(scope="module")
def crossed(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "save", lambda figure, path: [])
        return mil.run(tmp_path_factory.mktemp("out"), dataset="ucsb", data=folder, **MIL)


def test_mil_rows(crossed):
    settings = by_metric(crossed.rows)
    assert len(settings) == (1 + 2 * 2) * 2 * 3  # a baseline and the recipes of two models, repeats, folds
    folds = {(row["repeat"], row["fold"], row["seed"]) for row in crossed.rows}
    assert len(folds) == 2 * 3  # all methods meet the same
    for values in settings.values():
        assert tuple(values) == mil_protocol.METRICS
        assert values["chosen"] in (0, 1)
        assert all(0 <= values[name] <= 1 for name in ("auc", "single", "accuracy", "inner"))


def test_mil_row_can_be_measured_again(crossed, folder):
    loaded = bags.load_mil("ucsb", folder)
    division = mil_protocol.divisions(loaded.labels, 3, mil.derive_seed(0, 1))
    for name in ("-", "tuned", "released"):
        row = next(r for r in crossed.rows if r["recipe"] == name and r["repeat"] == 1 and r["metric"] == "auc")
        train, test = (loaded.take(part) for part in division[row["fold"]])
        recipe = mil.Options(**{**MIL, "data": folder, "dataset": "ucsb"}).recipe_of(row)
        assert mil_protocol.evaluate(train, test, row["model"], recipe, 2, row["seed"])["auc"] == row["value"]


def test_mil_lines():
    options = {"recipe": "tuned", "layer": mil_protocol.LAYERS, "structure": mil_protocol.STRUCTURES}
    found = mil.Options(models=("APR", "sparse", "dense"), **options).lines()
    assert found[0] == {"recipe": "-", "layer": "-", "structure": "-", "model": "APR"}
    assert len(found) == 1 + (3 * 4 - 1) + (3 * 6 - 1)  # no window for pooling, no features for sparse
    for line in found[1:]:
        chosen = mil.Options(epochs=1, members=1, limit_settings=1, **options).recipe_of(line)
        assert chosen.grid[0]["layer"] == line["layer"]
        assert chosen.grid[0]["structure"] is mil_protocol.STRUCTURES[line["structure"]]


def test_mil_released_as_its_source():
    grid = mil_protocol.RECIPES["released"].grid
    assert len(grid) == len({str(setting) for setting in grid}) == 864
    for setting in grid:
        assert "patience" not in setting  # its early stopping ends no training
        start = layers.Linear(setting["embedding"][-1], 50, random_state=0).weight.value
        assert setting["initial_std"] == pytest.approx(start.std(), rel=0.1)  # as of PyTorch's linear layers


@pytest.mark.parametrize("structure", mil_protocol.STRUCTURES)
def test_mil_structures_train(folder, structure):
    loaded = bags.load_mil("ucsb", folder)
    options = {"limit": None, "epochs": 1, "structure": mil_protocol.STRUCTURES[structure]}
    for layer in mil_protocol.LAYERS[structure == "window" :]:
        scores = mil_protocol.classifiers(loaded, "dense", {**options, "layer": layer}, 1, seed=0).scores(loaded)
        assert ((scores > 0) & (scores < 1)).all()


def test_successive_halving(folder, monkeypatch):
    loaded = bags.load_mil("ucsb", folder)
    recipe = mil_protocol.RECIPES["released"].limited(7, seed=1)
    assert len(recipe.grid) == 7 == len({str(setting) for setting in recipe.grid})
    assert recipe.grid == mil_protocol.RECIPES["released"].limited(7, seed=1).grid
    trained, original = [], mil_protocol.classifiers

    def counted(train, model, options, members, seed):
        trained.append(original(train, model, options, members, seed))
        return trained[-1]

    monkeypatch.setattr(mil_protocol, "classifiers", counted)
    chosen, inner, network = mil_protocol.halve(loaded, "sparse", recipe.grid, (1, 2, 3), seed=0)
    epochs = [one.members[0].epochs for one in trained]
    assert epochs == [1] * 7 + [2] * 3 + [3]
    aucs = [one.members[0].history_["inner_auc"].max() for one in trained]
    kept = {str(one.members[0].get_params()) for one in trained[7:10]}
    best = sorted(range(7), key=lambda i: (aucs[i], -trained[i].members[0].history_["inner_loss"].min()))[-1]
    assert network is trained[-1]
    assert inner == aucs[-1]
    assert any(str({**trained[best].members[0].get_params(), "epochs": 2}) == one for one in kept)
    made = network.members[0].get_params()
    assert all(made[name] == value for name, value in recipe.grid[chosen].items() if name != "limit")


def test_baselines_draw_by_the_seed(folder):
    loaded = bags.load_mil("ucsb", folder)
    for name, options in (
        ("gated-attention", {"epochs": 1, "embedding": 4, "attention": 2}),
        ("EM-DD", {"starts": 1, "steps": 1}),
        ("path-encoding", {"trees": 3}),
    ):
        first, second, again = (
            mil_protocol.classifiers(loaded, name, {"limit": None, **options}, 1, seed).scores(loaded)
            for seed in (0, 1, 0)
        )
        assert (first != second).any(), name
        np.testing.assert_array_equal(first, again)


def test_mil_learns(folder):
    loaded = bags.load_mil("ucsb", folder)
    options = {"limit": 3.0, "epochs": 60, "learning_rate": 0.01, "normalize": False}
    for model in mil_protocol.MODELS:
        ensemble = mil_protocol.classifiers(loaded, model, options, 2, seed=0)
        probabilities = ensemble.scores(loaded)
        assert probabilities.shape == (2, 24)
        assert (probabilities[0] != probabilities[1]).any()
        assert mil_protocol.auc(loaded.labels, probabilities.mean(axis=0)) > 0.95


def test_divisions():
    labels = np.repeat([0, 1], [20, 10])
    for seed in (0, 1):
        division = mil_protocol.divisions(labels, 5, seed)
        assert sorted(np.concatenate([test for _, test in division])) == list(range(30))
        for train, test in division:
            assert not set(train) & set(test)
            assert labels[test].sum() == 2
    assert (mil_protocol.divisions(labels, 5, 0)[0][1] != mil_protocol.divisions(labels, 5, 1)[0][1]).any()


def test_scale(folder):
    loaded = bags.load_mil("ucsb", folder)
    scale = mil_protocol.Scale.of(loaded, None)
    rows = np.concatenate(scale(loaded))
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), [1, 1, 1, 1, 1, 0], atol=1e-6)
    cut = np.concatenate(mil_protocol.Scale.of(loaded, 1.0)(loaded))
    np.testing.assert_array_equal(cut, np.clip(rows, -1, 1))


def test_the_fold_has_no_say_in_what_is_chosen(folder, monkeypatch):
    loaded = bags.load_mil("ucsb", folder)
    (train, test), *_ = mil_protocol.divisions(loaded.labels, 3, 0)
    held = loaded.take(test)
    spoilt = bags.Bags(held.instances + 100, held.offsets, 1 - held.labels, "spoilt", "")
    for name in ("tuned", "released"):
        recipe = mil.Options(**{**MIL, "data": folder}).recipe_of(
            {"recipe": name, "layer": "pooling", "structure": "all", "model": "sparse"}
        )
        first, second = (
            mil_protocol.evaluate(loaded.take(train), other, "sparse", recipe, 2, seed=0) for other in (held, spoilt)
        )
        assert (first["chosen"], first["inner"]) == (second["chosen"], second["inner"])
        assert first["auc"] != second["auc"]


def test_mil_report(crossed, save, tmp_path):
    for text in (
        "Real bags: 2 times 3-fold cross-validation",
        "sparse Hopfield, the paper  0.877 ± 0.009",
        "MILES, the paper  0.833 ± 0.026",
        "APR, the paper",
        "corrected resampled t-test",
        "Recipe tuned, 2 settings: how often each value was chosen",
        "Recipe released, 2 settings, in rounds of 2, 3, 3, 3 epochs",
        "sparse, tuned, ensemble of 2",
        "Of 6 such tests 0.3 have p < 0.05 where nothing differs.",
        "tiger, fox, elephant, musk1, musk2: files not there; `load_mil` says where to get them.",
        "TREC9: read by load_mil, but not studied",
    ):
        assert " ".join(text.split()) in " ".join(crossed.report.split())
    again = mil_report.report_text(mil.stored(crossed.table.parent))
    elsewhere = mil_report.report_text(mil.stored(crossed.table.parent, tmp_path))
    assert "tiger, fox, elephant, musk1, musk2: files not there" in elsewhere  # but of ucsb there are results
    for part in ("Table 2", "Differences on the same folds", "What came out"):
        assert again.partition(part)[2].splitlines()[:4] == crossed.report.partition(part)[2].splitlines()[:4]
    names = [line.rpartition("  ")[0].strip() for line in crossed.report.splitlines()]
    assert names.index("sparse, tuned, one network") < names.index("sparse, tuned, ensemble of 2")
    recipes = {tuple(line.values()): mil.Options(**MIL).recipe_of(line) for line in mil.Options(**MIL).lines()}
    summary = mil_report.Summary(crossed.rows, {"ucsb": "any"}, recipes)
    counts = np.bincount(summary.values(("ucsb", "tuned", "pooling", "all", "sparse"), "chosen").astype(int))
    (chosen,) = [line.split() for line in crossed.report.splitlines() if line.split()[:2] == ["initial_std", "0.1"]]
    assert chosen[2] == str(counts[1] if len(counts) > 1 else 0)
    files = save(mil_report.figure(summary), tmp_path / "mil")
    assert all(file.stat().st_size > 5000 for file in files)


def test_mil_stored_checks_what_it_reads(crossed, tmp_path):
    settings, table = ((crossed.table.parent / name).read_text() for name in ("settings.json", "table.csv"))
    lines = table.splitlines(keepends=True)
    whole = "".join(lines[:-5])  # without the last setting
    for name, text, message in (
        ("settings.json", "{}", "settings.json: damaged"),
        ("settings.json", settings.replace('"study": "mil"', '"study": "bits"'), "another study"),
        ("settings.json", settings.replace('"repeats": 2', '"repeats": "two"'), "settings.json: damaged"),
        ("settings.json", settings.replace('"seed": 0', '"seed": 1'), "table.csv, line 2: damaged"),
        ("table.csv", table.replace(",auc,", ",area,", 1), "table.csv, line 2: damaged"),
        ("table.csv", whole, "table.csv: not finished .1 of 30 settings"),
        ("table.csv", "".join(lines[:-1]), "table.csv: not finished"),
        ("table.csv", table + "ucsb,", "table.csv: damaged"),
        ("table.csv", "", "table.csv: not finished"),
    ):
        for file, content in (("settings.json", settings), ("table.csv", table), (name, text)):
            (tmp_path / file).write_text(content)
        with pytest.raises(FileFormatError, match=message):
            mil.stored(tmp_path)
        assert (tmp_path / name).read_text() == text  # nothing was cut off
    (tmp_path / "table.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"table\.csv"):
        mil.stored(tmp_path)
    assert (
        tables.stored_rows(crossed.table.parent, mil.Options(dataset="ucsb", **MIL).settings(), mil_protocol.METRICS)
        == crossed.rows
    )


def test_paired_test_is_the_corrected_one():
    rng = np.random.default_rng(1)
    sparse, dense = rng.random((2, 3, 5))
    any_line = {"dataset": "any", "recipe": "r", "layer": "l", "structure": "s"}
    lines = [("r", "l", "s", model) for model in ("sparse", "dense")]
    recipes = {line: mil_protocol.RECIPES["paper"] for line in lines}
    pair = [(line, "auc") for line in lines]
    rows = [
        {**any_line, "repeat": i, "fold": j, "model": model, "metric": "auc", "value": v[i, j]}
        for i in range(3)
        for j in range(5)
        for model, v in (("sparse", sparse), ("dense", dense))
    ]
    summary = mil_report.Summary(rows, {}, recipes)
    difference, p, wilcoxon = summary.paired("any", *pair)
    ahead = (sparse - dense).ravel()
    naive = stats.ttest_1samp(ahead, 0)
    # 15 folds, of which each has a fourth as many bags as are trained on: the variance is 1/15 + 1/4 instead of 1/15
    t = naive.statistic / (1 + 15 / 4) ** 0.5
    assert difference == pytest.approx(ahead.mean())
    assert p == pytest.approx(2 * stats.t.sf(abs(t), 14))
    assert wilcoxon == pytest.approx(stats.wilcoxon(ahead).pvalue)
    assert summary.of_repeats(("any", *lines[0]), "auc") == (
        pytest.approx(sparse.mean()),
        pytest.approx(sparse.mean(axis=1).std(ddof=1)),
    )
    same = [{**row, "value": 0.5} for row in rows]
    assert mil_report.Summary(same, {}, recipes).paired("any", *pair) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "lion"}, "dataset"),
        ({"data": None}, "--data"),
        ({"recipe": "best"}, "recipe"),
        ({"folds": 1}, "folds"),
        ({"folds": 13}, "folds: must be at most 12"),
        ({"inner_folds": 1}, "inner_folds"),
        ({"repeats": 0}, "repeats"),
        ({"members": 0}, "members"),
        ({"limit_settings": 0}, "limit_settings"),
        ({"models": "DD"}, "models"),
        ({"layer": "mean"}, "layer"),
        ({"structure": "blocks"}, "structure"),
        ({"structure": "window", "models": "sparse"}, "structure: windows are not for pooling"),
    ],
)
def test_mil_bad_options(tmp_path, folder, change, message):
    with pytest.raises(ValueError, match=message):
        mil.run(tmp_path, **{**MIL, "dataset": "ucsb", "data": folder, **change})
    assert not any(tmp_path.iterdir())


# Bags of digits

DIGITS = {"sizes": [5, 8], "bags": [10, 20], "runs": 2, "epochs": 2, "progress": False}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "save", lambda figure, path: [])
        patch.setattr(mnist_protocol, "TESTED", 20)
        return mnist_bags.run(tmp_path_factory.mktemp("digits"), **DIGITS)


def test_digit_rows(digits):
    settings = by_metric(digits.rows)
    assert len(settings) == 2 * 2 * 2 * 2
    for values in settings.values():
        assert tuple(values) == mnist_protocol.METRICS
        assert all(0 <= values[name] <= 1 for name in ("auc", "accuracy", "found", "key weight"))
        assert values["support"] >= 1
    assert "Mean bag size 8" in digits.report


def test_trained_and_tested_images_are_others():
    source = mnist_protocol.Source.load("digits", None)
    whole = datasets.load("digits")
    assert len(source.train) + len(source.test) == len(whole)
    np.testing.assert_array_equal(np.concatenate([source.train.images, source.test.images]), whole.images)
    np.testing.assert_array_equal(
        np.concatenate([source.train_digits, source.test_digits]), datasets.load_labels("digits")
    )
    drawn = source.bags("test", 10, 6, 2, seed=0)
    assert np.bincount(drawn.ids, drawn.keys).tolist() == [0, 2] * 5


class Told:
    """A classifier that looks at the brightest instance of a bag."""

    def predict_proba(self, asked):
        top = np.array([bag.sum(axis=1).max() for bag in asked])
        return np.stack([1 - top / 10, top / 10], axis=1)

    def bag_weights(self, asked):
        return [np.eye(len(bag))[bag.sum(axis=1).argmax()] for bag in asked]


def test_what_is_measured_of_weights():
    instances = np.array([[1.0], [9], [2], [8], [3], [4]])  # bag 1 is positive by its 9, bag 2 by its 3, bag 0 is not
    offsets, labels = np.array([0, 1, 3, 6]), np.array([0, 1, 1])
    keys = np.array([False, True, False, False, True, False])
    values = mnist_protocol.evaluate(Told(), bags.Bags(instances, offsets, labels, "any", "", keys))
    assert values == {"auc": 1.0, "accuracy": 1.0, "found": 0.5, "key weight": 0.5, "support": 1.0}


def test_digit_pictures(digits, save, tmp_path):
    summary = mnist_bags.stored(digits.table.parent)
    below = [text.partition("\n")[2] for text in (mnist_bags.report_text(summary), digits.report)]
    assert below[0] == below[1]  # but for the first line, which names the images
    source = mnist_protocol.Source.load("digits", None)
    drawn = source.bags("test", 6, 6, None, seed=0)
    pictures = mnist_bags.pictures({"sparse": (Told(), drawn), "dense": (Told(), drawn)})
    first = int(np.flatnonzero(drawn.labels)[0])
    order = np.argsort(-Told().bag_weights([drawn[first]])[0], kind="stable")
    shown = pictures.axes[0]
    assert shown.get_ylabel() == "bag 1, sparse"
    np.testing.assert_array_equal(shown.images[0].get_array(), drawn[first][order[0]].reshape(8, 8))
    assert shown.get_xlabel() == "1.00" + " *" * bool(drawn.keys_of(first)[order[0]])
    for name, figure in (("curves", mnist_bags.figure(summary)), ("pictures", pictures)):
        assert all(file.stat().st_size > 5000 for file in save(figure, tmp_path / name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "cifar10"}, "dataset"),
        ({"dataset": "mnist"}, "--data"),
        ({"sizes": 0}, "sizes"),
        ({"bags": 1}, "bags"),
        ({"targets": 0}, "targets"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_digits_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        mnist_bags.run(tmp_path, **{**DIGITS, **change})
    assert not any(tmp_path.iterdir())


# Interrupted, continued, side by side, from the command line


def test_bits_interrupted_and_continued(tmp_path, monkeypatch):
    options = {"part": "size", "sizes": [4], "runs": 2, "epochs": 1, "progress": False}
    whole = bits.run(tmp_path / "whole", **options)
    measured = []

    def interrupted(*arguments):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(1)
        return bits_protocol.trained(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(bits, "trained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bits.run(tmp_path / "cut", **options)
    assert len((tmp_path / "cut" / "table.csv").read_text().splitlines()) == 1 + len(whole.rows) // 2
    assert bits.run(tmp_path / "cut", **options).rows == whole.rows
    assert (tmp_path / "cut" / "table.csv").read_bytes() == whole.table.read_bytes()


@pytest.mark.slow
def test_mil_side_by_side(tmp_path, folder, crossed):
    beside = mil.run(tmp_path, dataset="ucsb", data=folder, jobs=2, **MIL | {"repeats": 1})
    assert beside.rows == [row for row in crossed.rows if row["repeat"] == 0]


@pytest.mark.slow
def test_command_line(tmp_path, folder, undrawn):
    for name, arguments, figures in (
        ("mil", ["--dataset", "ucsb", "--data", folder, "--repeats", "1", "--folds", "2", "--inner-folds", "2",
                 "--limit-settings", "1", "--epochs", "1", "--models", "APR", "sparse"], ["mil"]),
        ("mnist-bags", ["--sizes", "5", "--bags", "8", "--runs", "1", "--epochs", "1"],
         ["mnist-bags", "mnist-bags-weights"]),
    ):  # fmt: skip
        done = command(name, *arguments, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert b"What came out" in done.stdout
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files - {"times.csv"} == {"table.csv", "settings.json"} | {
            f"{f}.{e}" for f in figures for e in ("png", "svg")
        }
