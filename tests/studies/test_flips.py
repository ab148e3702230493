"""The study of flipped bits: the network of 1982, what is drawn and measured, what is certified, and what is said."""

import math
import re

import helpers
import numpy as np
import pytest

from sparsehopfield import reference, theory
from sparsehopfield.studies import flips as study
from sparsehopfield.studies.flips import protocol

for module in ("matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

pytestmark = pytest.mark.usefixtures("undrawn")  # `drawn` has its figures

SMALL = {
    "dims": 24,
    "sizes": (1, 12, 60),
    "rates": (0.0, 0.1, 0.3),
    "betas": (10.0, 60.0),
    "queries": 50,
    "progress": False,
}


FEW = SMALL | {"sizes": (3,), "rates": (0.1,), "betas": (10.0,)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # `drawn` has few figures, which are drawn
        patch.setattr("sparsehopfield.inspect.plotting.save", helpers.undrawn)
        return study.run(tmp_path_factory.mktemp("flips"), **SMALL)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("drawn"), **FEW)


def value(rows, metric, **setting):
    return next(
        row["value"] for row in rows if row["metric"] == metric and all(row[k] == v for k, v in setting.items())
    )


# The network of 1982


def plain_field(patterns, state, i):
    """The field of a unit, bit by bit."""
    d = len(state)
    return sum(sum(xi[i] * xi[j] for xi in patterns) / d * state[j] for j in range(d) if j != i)


def test_network_against_plain_loops():
    rng = np.random.default_rng(1)
    patterns, x = (rng.choice((-1.0, 1.0), (n, 9)) for n in (3, 6))
    network = study.HebbianNetwork(patterns)
    fields = np.array([[plain_field(patterns, state, i) for i in range(9)] for state in x])
    np.testing.assert_allclose(x @ network.weights, fields, atol=1e-12)
    assert (network.step(x)[np.abs(fields) > 1e-9] == np.sign(fields)[np.abs(fields) > 1e-9]).all()
    # one unit after another, in the order that the generator draws
    states, sweeps = network.rest(x, np.random.default_rng(5))
    order = np.random.default_rng(5)
    expected, changed = x.copy(), np.zeros(6, int)
    moving = set(range(6))
    while moving:
        units = order.permutation(9)
        for k in sorted(moving):
            before = expected[k].copy()
            for i in units:
                field = expected[k] @ network.weights[:, i]
                expected[k, i] = np.sign(field) or expected[k, i]
            if (before == expected[k]).all():
                moving.discard(k)
            else:
                changed[k] += 1
    np.testing.assert_array_equal(states, expected)
    np.testing.assert_array_equal(sweeps, changed)
    energy = [-0.5 * np.einsum("ni,ij,nj->n", s, network.weights, s) for s in (x, states)]
    assert (energy[1] <= energy[0] + 1e-12).all()
    np.testing.assert_array_equal(network.step(states), states)  # at rest


def test_all_units_at_once_may_cycle():
    network = study.HebbianNetwork(np.array([[1.0, 1.0]]))
    state = np.array([[1.0, -1.0]])
    states, sweeps = network.rest(state, np.random.default_rng(0), synchronous=True, most=7)
    np.testing.assert_array_equal(states, -state)
    assert sweeps == 7
    assert (np.abs(network.rest(state, np.random.default_rng(0))[0].sum()) == 2).all()


def test_fields_of_zero_move_nothing():
    network = study.HebbianNetwork(np.array([[1.0, 1.0], [1.0, -1.0]]))  # weights cancel
    np.testing.assert_array_equal(network.step(np.array([[1.0, -1.0]])), [[1.0, -1.0]])


def test_capacity_of_the_network():
    """The bits of 0.1 d patterns are right at rest, those of 0.2 d are not: 0.138 d lies between."""
    for share, right in ((0.1, True), (0.2, False)):
        patterns = np.random.default_rng(2).choice((-1.0, 1.0), (int(300 * share), 300))
        states, _ = study.HebbianNetwork(patterns).rest(patterns, np.random.default_rng(0))
        assert (np.mean(states == patterns) > 0.98) == right
    assert study.CAPACITY == 0.138


def test_one_step_share():
    rng, d, count, flips = np.random.default_rng(4), 60, 9, 6
    right = 0
    for _ in range(400):
        patterns = rng.choice((-1.0, 1.0), (count, d))
        x = patterns[0].copy()
        x[:flips] *= -1
        right += bool((study.HebbianNetwork(patterns).step(x[None])[0] == patterns[0]).all())
    assert right / 400 == pytest.approx(
        study.one_step_share(d, count, flips), abs=0.09
    )  # the units are not independent
    assert (study.one_step_share(10, 1, 4), study.one_step_share(10, 1, 5)) == (1, 0)


# What is drawn and measured


def test_what_is_drawn():
    patterns = protocol.draw_patterns(24, 12, 3)
    assert set(np.unique(patterns)) == {-1, 1}
    drawn = protocol.draw_queries(24, 12, 3, 7, 50)
    np.testing.assert_array_equal(drawn.targets, patterns[drawn.index])
    np.testing.assert_array_equal((drawn.queries != drawn.targets).sum(axis=1), 7)
    assert protocol.flips_of(24, 0.3) == 7
    assert len({tuple(row) for row in drawn.queries != drawn.targets}) > 40


@pytest.mark.parametrize("model", ["sparse", "entmax15", "dense"])
def test_table_against_the_reference(found, model):
    setting = {"model": model, "patterns": 12, "beta_hat": 10.0, "rate": 0.3}
    seed = next(row["seed"] for row in found.rows if row["patterns"] == 12)
    patterns, drawn = protocol.draw_patterns(24, 12, seed), protocol.draw_queries(24, 12, seed, 7, 50)
    states = reference.update(drawn.queries, patterns, 10 / 24, separation=study.MODELS[model])
    right = (np.sign(states) == drawn.targets).all(axis=1)
    assert value(found.rows, "one_step", **setting) == right.mean()
    exact = (np.abs(states - drawn.targets) < 1e-12).all(axis=1)
    assert value(found.rows, "exact", **setting) == exact.mean()
    for _ in range(100):
        states = reference.update(states, patterns, 10 / 24, separation=study.MODELS[model])
    assert value(found.rows, "rest", **setting) == (np.sign(states) == drawn.targets).all(axis=1).mean()
    assert value(found.rows, "right_bits", **setting) == (np.sign(states) == drawn.targets).mean()
    if model != "dense":
        factor = {"sparse": 1, "entmax15": 2}[model]
        ball = theory.exact_radius(patterns, 10 / 24 / factor)[drawn.index] >= 2 * math.sqrt(7)
        assert value(found.rows, "in_ball", **setting) == ball.mean()
        sure = theory.exact_flips(patterns, 10 / 24, separation=study.MODELS[model])[drawn.index]
        assert value(found.rows, "certified", **setting) == (sure >= 7).mean()
        assert value(found.rows, "certified_flips", **setting) == sorted(sure)[24]
        assert value(found.rows, "predicted", **setting) == theory.exact_recall(
            24, 12, 7, 10 / 24, separation=study.MODELS[model]
        )


@pytest.mark.parametrize("model", ["sparse", "entmax15"])
def test_last_flips(found, model):
    """At the number found the share is at least the level, and at the next one below it."""
    for patterns, beta in ((12, 10.0), (60, 60.0)):
        setting = {"model": model, "patterns": patterns, "beta_hat": beta}
        seed = next(row["seed"] for row in found.rows if row["patterns"] == patterns)
        rows = protocol.draw_patterns(24, patterns, seed)
        for metric, level in protocol.LEVELS.items():
            last = int(value(found.rows, metric, **setting))
            for flips in (last, last + 1):
                drawn = protocol.draw_queries(24, patterns, seed, flips, 50)
                states = reference.update(drawn.queries, rows, beta / 24, separation=study.MODELS[model])
                share = (np.abs(states - drawn.targets) < 1e-12).all(axis=1).mean()
                assert (share >= level) == (flips == last)
            predicted = protocol.predicted_flips(model, 24, patterns, beta / 24, level)
            assert abs(last - predicted) <= 2


def test_last_flips_at_the_ends():
    never = protocol._last_flips("sparse", 24, 12, 3, 1e-3, 50)
    assert never == {"flips_99": -1, "flips_half": -1}
    assert protocol._last_flips("sparse", 24, 1, 3, 1.0, 50) == {"flips_99": 24, "flips_half": 24}


def test_certificates_are_kept(found):
    assert sum(row["value"] for row in found.rows if row["metric"] == "broken") == 0
    shares = {metric: [r["value"] for r in found.rows if r["metric"] == metric] for metric in study.METRICS}
    assert 0 < sum(shares["in_ball"]) < sum(shares["certified"]) < sum(shares["exact"])
    assert all(a <= b <= c for a, b, c in zip(shares["in_ball"], shares["certified"], shares["exact"], strict=True))


def test_interrupted_and_continued(found, tmp_path):
    files = {path.name: path.read_bytes() for path in found.table.parent.iterdir()}
    (tmp_path / "settings.json").write_bytes(files["settings.json"])
    (tmp_path / "table.csv").write_bytes(files["table.csv"][: len(files["table.csv"]) // 3])
    continued = study.run(tmp_path, **SMALL)
    assert [str(row) for row in continued.rows] == [str(row) for row in found.rows]  # nan is not equal to itself
    assert (tmp_path / "table.csv").read_bytes() == files["table.csv"]
    assert continued.report == found.report


def test_report(found):
    assert max(map(len, found.report.splitlines())) <= 100
    text = " ".join(found.report.split())
    for words in ("Every query with a certificate is among these.", "1982, d = 24", "0.138 d", "After one step, of 18"):
        assert words in text
    assert "Retrieved at rest, in % (beta d = 60)" in text


def test_figures(drawn):
    assert [path.name for path in drawn.figures] == [
        f"{name}.{kind}" for name in ("flips", "flips-certified") for kind in ("png", "svg")
    ]
    assert all(path.stat().st_size > 1000 for path in drawn.figures)
    summary = study.Summary(drawn.rows, study.Options(**FEW))
    assert [len(axis.lines) for axis in study.figure(summary).axes] == [4]
    assert [len(axis.lines) for axis in study.flips_figure(summary).axes] == [4]


def test_report_is_honest(found):
    """Of certificates that are broken and a closed form that is off, it says so."""
    rows = [dict(row) for row in found.rows]
    for row in rows:
        if row["metric"] == "broken" and row["model"] == "sparse" and row["patterns"] == 12 and row["rate"] == 0.1:
            row["value"] = 0.5
        if row["metric"] == "predicted" and row["model"] == "entmax15":
            row["value"] = 0.0
    text = " ".join(study.report_text(study.Summary(rows, study.Options(**SMALL))).split())
    assert "50 queries with a certificate are NOT among these." in text
    off = re.search(r"standard errors in (\d+) of the (\d+) settings .* and in (\d+) of the (\d+) settings", text)
    between, tested, near, easy = map(int, off.groups())
    assert (between, tested + easy) == (0, 36)
    assert near > 5  # of entmax15


def test_leads_are_told_with_what_is_retrieved(found):
    """Where dense is ahead, the report says what it retrieves; a lead of 1 % is not more than 1 %."""
    for lead, words in ((0.2, "dense is ahead by more than 1 % in 18 (at most by 20.0 %"), (0.01, "1 % in 0.")):
        rows = [dict(row) for row in found.rows]
        for row in rows:
            if row["metric"] == "rest" and row["model"] in ("sparse", "dense"):
                row["value"] = 0.7 + lead * (row["model"] == "dense")
        text = " ".join(study.report_text(study.Summary(rows, study.Options(**SMALL))).split())
        assert words in text
        assert ("it retrieves 90 to 90 %, in the median 90 % there" in text) == (lead == 0.2)


def test_where_the_network_loses_its_patterns(found):
    """Below 95 % of the bits: between the last number of patterns with as many and the next one."""
    rows = [dict(row) for row in found.rows]
    for row in rows:
        if row["model"] == "1982" and row["metric"] in ("right_bits", "rest"):
            row["value"] = {1: 1.0, 12: 0.96, 60: 0.94}[row["patterns"]]
    text = " ".join(study.report_text(study.Summary(rows, study.Options(**SMALL))).split())
    assert "the share of right bits at rest falls below 95 % between 0.5 d and 2.5 d" in text
    assert "half of the patterns keep all bits at every number asked." in text


def test_without_certificates_or_1982(tmp_path):
    text = study.run(tmp_path / "dense", **FEW | {"models": "dense"}).report
    assert "certificate" not in text
    assert "1982" not in text
    text = study.run(tmp_path / "old", **FEW | {"models": "1982", "updates": "synchronous"}).report
    assert "1982: coming to rest" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": "hopfield"}, "models: unknown name 'hopfield'"),
        ({"updates": "parallel"}, "updates: unknown name 'parallel'"),
        ({"dims": 1}, "dims: must be at least 2"),
        ({"sizes": 0}, "sizes: must be at least 1"),
        ({"rates": 1.0}, "rates: must be at least 0 and below 1"),
        ({"betas": 0.0}, "betas: must be positive"),
        ({"queries": 0}, "queries: must be at least 1"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
