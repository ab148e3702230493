"""The study of correlated patterns: what is drawn, what is predicted of it and what comes out."""

import math

import helpers
import numpy as np
import pytest

from sparsehopfield import reference, theory
from sparsehopfield.studies import correlated as study
from sparsehopfield.studies.correlated import protocol

for module in ("matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

pytestmark = pytest.mark.usefixtures("undrawn")  # `few` has its figures

SMALL = {
    "cases": ("equal", "free", "free-euclidean"),
    "weights": (0.0, 0.9),
    "betas": (0.1, 1.0, 2.0, 4.0, 20.0),
    "patterns": 12,
    "d": 8,
    "progress": False,
}
FEW = {"cases": "equal", "models": ("sparse", "dense")}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # `few` has fewer figures, which are drawn
        patch.setattr("sparsehopfield.inspect.plotting.save", helpers.undrawn)
        return study.run(tmp_path_factory.mktemp("correlated"), **SMALL)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("few"), **SMALL | FEW)


def drawn(case, w, seed=3, count=20, d=16):
    return protocol.draw_memories(case, w, count, d, 0.1, seed)


@pytest.mark.parametrize("case", study.CASES)
def test_what_is_drawn(case):
    zero, some = drawn(case, 0.0), drawn(case, 0.8)
    cosines = some.patterns @ some.patterns.T
    if case in ("equal", "sparse", "positive"):
        np.testing.assert_allclose(np.diag(cosines), 1)
        np.testing.assert_allclose(cosines, 0.64 + 0.36 * zero.patterns @ zero.patterns.T)
    else:
        assert np.ptp(np.diag(cosines)) > 0.1
    np.testing.assert_allclose(some.distances, 0.6 * zero.distances)
    np.testing.assert_allclose(some.leads.min(axis=1), theory.margin(some.patterns, similarity=some.similarity))
    np.testing.assert_allclose(np.linalg.norm(some.queries - some.patterns, axis=1), 0.1 * some.nearest)


@pytest.mark.parametrize(("model", "factor"), [("sparse", 1), ("entmax15", 2)])
@pytest.mark.parametrize("case", study.CASES)
def test_sparse_maps_are_predicted_exactly(case, model, factor):
    some = drawn(case, 0.7)
    stored = protocol.predict(some, model, 0.1).stored
    np.testing.assert_allclose(stored, factor * theory.critical_beta(some.patterns, similarity=some.similarity))
    finite = np.flatnonzero(np.isfinite(stored))
    assert len(finite)
    for mu in finite[:6]:
        for share, exact in ((1 + 1e-6, True), (1 - 1e-3, False)):
            state = reference.update(
                some.patterns[mu],
                some.patterns,
                stored[mu] * share,
                similarity=some.similarity,
                separation=study.MAPS[model],
            )
            assert (np.linalg.norm(state - some.patterns[mu]) < 1e-12) == exact


@pytest.mark.parametrize("case", study.CASES)
def test_dense_maps_the_ball_into_itself(case):
    some, rng = drawn(case, 0.5), np.random.default_rng(0)
    eps = 0.1 * some.nearest
    stored = protocol.predict(some, "dense", 0.1).stored
    assert np.isfinite(stored).any()
    for mu in np.flatnonzero(np.isfinite(stored)):
        terms = [
            some.distances[mu, nu] * math.exp(-stored[mu] * (some.leads[mu, nu] - eps[mu] * some.distances[mu, nu]))
            for nu in range(len(eps))
            if nu != mu
        ]
        assert sum(terms) == pytest.approx(eps[mu])
        away = rng.standard_normal((20, some.patterns.shape[1]))
        x = some.patterns[mu] + eps[mu] * away / np.linalg.norm(away, axis=1, keepdims=True)
        how = {"similarity": some.similarity, "separation": "softmax"}
        for beta in (stored[mu], 3 * stored[mu]):
            states = reference.update(x, some.patterns, beta, **how)
            assert (np.linalg.norm(states - some.patterns[mu], axis=1) <= eps[mu]).all()


def test_one_step_is_the_bound_of_theory():
    some = drawn("equal", 0.5)
    one_step = protocol.predict(some, "dense", 0.1).one_step
    for mu in range(5):
        bound = theory.retrieval_bound(some.patterns[mu], some.patterns, mu, one_step[mu], rule="exponential")
        assert float(bound) == pytest.approx(0.1 * some.nearest[mu])


def test_typical_beta():
    """The closed form against draws: between the quartiles of the share that it promises to be a half."""
    beta = protocol.typical_beta(30, 12, 0.8)
    assert protocol.typical_beta(30, 12, 0.8, alpha=1.5) == pytest.approx(2 * beta)
    shares = [(theory.critical_beta(drawn("equal", 0.8, k, 30, 12).patterns) <= beta).mean() for k in range(60)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("case", ["equal", "free-euclidean"])
@pytest.mark.parametrize("model", study.ALPHAS)
def test_scaling(case, model):
    """What comes out at w and beta is what comes out at 0 and beta (1 - w^2)."""
    zero, some = drawn(case, 0.0), drawn(case, 0.6)
    for beta in (0.5, 3.0, 12.0):
        left = protocol.compare(zero, protocol.predict(zero, model, 0.1), model, beta, 0.1)
        right = protocol.compare(some, protocol.predict(some, model, 0.1), model, beta / 0.64, 0.1)
        for name in ("stored", "recovered", "one_step", "limits", "promised"):
            assert left[name] == pytest.approx(right[name]), name


def test_distinct():
    states = np.array([[0.0], [0.05], [0.1], [1.0], [3.0], [3.0]])
    assert [protocol.count_groups(states, radius) for radius in (0.0, 0.06, 1.0)] == [5, 3, 2]


def test_table(found):
    value = {
        (row["case"], row["model"], row["w"], round(row["beta"] * (1 - row["w"] ** 2), 6), row["metric"]): row["value"]
        for row in found.rows
    }
    assert len(value) == 3 * 3 * 2 * 5 * len(study.METRICS)
    for (*key, metric), share in value.items():
        if metric in ("broken", "broken_step"):
            assert share == 0, key
    for w in (0.0, 0.9):
        patterns = protocol.draw_memories("equal", w, 12, 8, 0.1, found.rows[0]["seed"]).patterns
        for beta in SMALL["betas"]:
            fixed = theory.is_fixed_point(patterns, beta / (1 - w * w)).mean()
            assert value["equal", "sparse", w, beta, "stored"] == fixed
        assert value["equal", "sparse", w, 0.1, "limits"] == 1
        assert value["equal", "sparse", w, 20.0, "limits"] == 12
        assert value["equal", "dense", w, 20.0, "perturbed"] == 1


@pytest.mark.depth
@pytest.mark.usefixtures("undrawn")
def test_the_same_table_again_and_for_any_number_of_jobs(found, tmp_path):
    assert study.run(tmp_path / "two", **SMALL, jobs=2).rows == found.rows
    content = found.table.read_bytes()
    found.table.write_bytes(content[: len(content) // 2])
    assert study.run(found.table.parent, **SMALL).rows == found.rows
    assert found.table.read_bytes() == content


def test_figures(few):
    assert len(few.figures) == 8
    assert all(path.stat().st_size > 1000 for path in few.figures)
    summary = study.Summary(few.rows, study.Options(**SMALL | FEW))
    assert [len(axis.lines) for axis in study.figure(summary).axes] == [5]  # two models, predicted, and "all one"
    assert [len(axis.lines) for axis in study.shares_figure(summary).axes] == [2, 2]
    assert [len(axis.lines) for axis in study.supports_figure(summary).axes] == [2, 2]  # found and expected
    cells, bar = study.leads_figure(summary).axes
    leads = [[summary.measured_lead("equal", w, beta) for beta in SMALL["betas"]] for w in SMALL["weights"]]
    np.testing.assert_array_equal(cells.collections[0].get_array(), leads)
    assert [text.get_text() for text in bar.get_yticklabels()] == ["dense", "level", "sparse"]
    assert study.report_text(study.stored(few.table.parent)) == few.report


def test_report(found):
    for words in (
        "in 60 of 60 settings exactly",
        "limit: broken in 0 of 30",
        "equal: the measured betas grow as",
        "dense needs",
    ):
        assert words in " ".join(found.report.split())
    assert max(map(len, found.report.splitlines())) < 130


def changed(rows, model, metric, change):
    return [
        {**row, "value": change(row["value"])} if (row["model"], row["metric"]) == (model, metric) else row
        for row in rows
    ]


def test_report_is_honest(found):
    chosen = study.Options(**SMALL)

    def text(rows):
        return " ".join(study.report_text(study.Summary(rows, chosen)).split())

    assert "in 30 one is promised and is not" in text(changed(found.rows, "sparse", "broken", lambda _: 0.25))
    assert "limit: broken in 30 of 30" in text(changed(found.rows, "dense", "broken", lambda _: 0.25))
    lost = text(changed(found.rows, "sparse", "stored", lambda _: 0.25))
    assert "equal: at no beta of the grid half of the patterns are stored: sparse for w = 0, 0.9" in lost
    assert "equal: the measured betas do not all grow" in lost
    early = study.Summary(changed(found.rows, "sparse", "stored", lambda _: 0.75), chosen)
    assert math.isnan(early.half("equal", "sparse", 0.0))
    assert "sparse: the predicted beta" not in " ".join(study.report_text(early).split())
    merged = text(changed(found.rows, "sparse", "limits", lambda _: 2))
    assert "one limit in" in merged
    assert merged != text(found.rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cases": "odd"}, "cases: unknown name 'odd'"),
        ({"models": "mean"}, "models: unknown name 'mean'"),
        ({"weights": 1.0}, "weights: must be at least 0 and below 1"),
        ({"betas": 0.0}, "betas: must be positive"),
        ({"patterns": 1}, "patterns: must be at least 2"),
        ({"d": 2}, "d: must be at least 3"),
        ({"tolerance": 0.5}, "tolerance: must be above 0 and below 0.5"),
        ({"perturbation": 0.0}, "perturbation: must be above 0"),
        ({"runs": 0}, "runs: must be at least 1"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)


# When sparsity pays


def test_sparse_and_positive_features():
    some = protocol.draw_memories("sparse", 0.6, 400, 40, 0.1, 1, density=0.2)
    np.testing.assert_allclose(some.patterns[:, -1], 0.6)
    assert np.mean(some.patterns[:, :-1] != 0) == pytest.approx(0.2, abs=0.01)
    assert (some.patterns[:, :-1] < 0).any()
    positive = protocol.draw_memories("positive", 0.6, 400, 40, 0.1, 1, density=0.2)
    assert (positive.patterns >= 0).all()
    away = np.linalg.norm(some.noisy - some.patterns, axis=1)
    assert away.mean() == pytest.approx(0.8, rel=0.02)  # noise 1, in units of sqrt(1 - w^2)


@pytest.mark.parametrize("case", study.CASES)
def test_expected_scores_are_those_of_the_family(case):
    w, d, count = 0.7, 60, 1500
    some = protocol.draw_memories(case, w, count, d, 0.1, 2, density=0.4, noise=1.5)
    scores = some.noisy @ some.patterns.T
    if some.similarity == "euclidean":
        scores -= (some.patterns**2).sum(axis=1) / 2
    own = np.diag(scores).copy()
    np.fill_diagonal(scores, np.nan)
    scale = 1 - w * w
    found = [np.nanstd(scores, axis=1), own - np.nanmean(scores, axis=1)]
    expected = protocol.expected_scores(case, w, d, 0.4, 1.5)
    assert np.sqrt(np.mean(found[0] ** 2)) / scale == pytest.approx(expected.spread, rel=0.06)
    assert found[1].mean() / scale == pytest.approx(expected.lead, abs=0.03)
    assert found[1].std() / scale == pytest.approx(expected.lead_spread, rel=0.08)


def test_noisy_queries_against_the_reference(found):
    chosen = study.Options(**SMALL)
    row = next(r for r in found.rows if (r["case"], r["model"], r["w"]) == ("equal", "sparse", 0.9))
    some = protocol.draw_memories("equal", 0.9, 12, 8, chosen.perturbation, row["seed"])
    weights = reference.sparsemax(row["beta"] * some.noisy @ some.patterns.T)
    error = np.linalg.norm(weights @ some.patterns - some.patterns, axis=1).mean() / math.sqrt(1 - 0.81)
    values = {
        r["metric"]: r["value"] for r in found.rows if all(r[k] == row[k] for k in ("case", "model", "w", "beta"))
    }
    assert values["noisy_error"] == pytest.approx(error)
    assert values["noisy_support"] == np.count_nonzero(weights > 1e-12, axis=1).mean()
    assert 1 <= values["expected_support"] <= 12


def test_supports_are_as_expected():
    """Of many patterns in many dimensions the mean support is the expected one."""
    for case in ("equal", "sparse"):
        some = protocol.draw_memories(case, 0.0, 300, 100, 0.1, 5, density=0.5)
        scores = protocol.expected_scores(case, 0.0, 100, 0.5, 1.0)
        for model in ("sparse", "entmax15"):
            for beta in (0.5, 3.0, 12.0):
                found = protocol.measure_noisy(some, model, 0.0, beta)["noisy_support"]
                assert found == pytest.approx(protocol.predict_support(model, 300, scores, beta), rel=0.08)
    assert protocol.predict_support("dense", 300, scores, 1.0) == 300


def test_where_both_are_level():
    """The predicted lead of sparse is the mean of draws, and vanishes where they say so, if roughly."""
    chosen = study.Options(patterns=64, d=32, noise=4.0, models=("sparse", "dense"))
    for case, w in (("equal", 0.0), ("free", 0.9)):
        drawn_sets = [
            protocol.draw_memories(case, w, chosen.patterns, chosen.d, 0.1, seed, noise=4.0) for seed in range(12)
        ]
        betas = (0.1, 0.5, 1.0, 2.0)
        found, wanted = (
            np.array([[error(model, beta) for beta in betas] for model in ("sparse", "dense")])
            for error in (
                lambda model, beta, case=case, w=w: protocol.predict_error(model, case, w, chosen, beta),
                lambda model, beta, w=w, sets=drawn_sets: np.mean(
                    [protocol.measure_noisy(one, model, w, beta / (1 - w * w))["noisy_error"] for one in sets]
                ),
            )
        )
        np.testing.assert_allclose(found, wanted, atol=0.07)
        assert found[0, 0] < found[1, 0]
        assert wanted[0, 0] < wanted[1, 0]
        assert found[0, 3] > found[1, 3]
        assert wanted[0, 3] > wanted[1, 3]


def test_crossings():
    rows = [
        {"case": "equal", "model": model, "w": 0.0, "beta": beta, "metric": "noisy_error", "value": value}
        for model, values in (("sparse", (1.0, 1.0, 3.0, 1.0)), ("dense", (2.0, 2.0, 2.0, 2.0)))
        for beta, value in zip((1.0, 4.0, 16.0, 64.0), values, strict=True)
    ]
    chosen = study.Options(cases="equal", models=("sparse", "dense"), weights=0.0, betas=(1.0, 4.0, 16.0, 64.0))
    summary = study.Summary(rows, chosen)
    assert summary.crossings(summary.measured_lead, "equal", 0.0) == pytest.approx([8.0, 32.0])


def test_report_says_where_sparsity_pays(found):
    text = " ".join(found.report.split())
    assert "When sparsity pays: one step from queries with noise 1 times" in text
    assert "equal: the mean support at noisy queries is" in text
    rows = [dict(row) for row in found.rows]
    for row in rows:
        if row["metric"] == "noisy_error" and row["model"] == "sparse":
            row["value"] = 9.0
    text = " ".join(study.report_text(study.Summary(rows, study.Options(**SMALL))).split())
    assert "more accurate with sparse than with dense for beta (1 - w^2): at no beta of the grid (all w)" in text


def test_timed(tmp_path):
    few = SMALL | {"cases": "equal", "weights": 0.0, "betas": (1.0, 1000.0), "timed": 40}
    outcome = study.run(tmp_path, **few)
    assert "One step of up to 1024 such queries with 40 patterns" in " ".join(outcome.report.split())
    assert max(map(len, outcome.report.splitlines())) <= 120
    lines = (tmp_path / "times.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 3 * 2
    assert all(float(line.split(",")[-1]) >= 0 for line in lines[1:])
    assert (tmp_path / "correlated-times.png").exists()


def test_where_times_are_level():
    chosen = study.Options(**SMALL | {"cases": "equal", "weights": 0.0, "betas": (0.1, 1.0, 10.0), "timed": 4096})
    seconds = {("dense", beta): 1.0 for beta in chosen.betas}
    seconds |= {("sparse", 0.1): 4.0, ("sparse", 1.0): 0.25, ("sparse", 10.0): 0.1}
    seconds |= {("entmax15", beta): 2.0 for beta in chosen.betas}
    summary = study.Summary([], chosen, seconds)
    supports = summary.supports("sparse")
    assert (summary.speeds("sparse"), summary.speeds("dense")) == ([0.25, 4.0, 10.0], [1.0] * 3)
    assert supports == sorted(supports, reverse=True)
    assert summary.level_support("sparse") == pytest.approx((supports[0] * supports[1]) ** 0.5)
    assert summary.level_support("entmax15") is None
    text = " ".join(" ".join(study.report._timed_findings(summary)).split())
    assert "sparse: one step of 4096 patterns is faster than with softmax from an expected support of " in text
    assert "entmax15: one step of 4096 patterns is faster than with softmax at no beta; 0.5 to 0.5 times" in text
    faster = study.Summary([], chosen, {key: 1.0 if key[0] == "dense" else 0.5 for key in seconds})
    assert "sparse: one step of 4096 patterns is faster than with softmax at the lowest beta already" in " ".join(
        study.report._timed_findings(faster)
    )
    for missing in ({**seconds, ("sparse", 1.0): float("nan")}, {}):
        assert not study.Summary([], chosen, missing).compares_times


@pytest.mark.parametrize(
    ("change", "message"),
    [({"density": 0.0}, "density: must be above 0"), ({"noise": -1.0}, "noise: must be a finite number")],
    ids=str,
)
def test_bad_noise(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
