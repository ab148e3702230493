"""The study of landscapes: basins and descent in the plane, rates beside what predicts them, and the report of both."""

import numpy as np
import pytest

from sparsehopfield import reference, theory
from sparsehopfield._engine.separations import Polynomial
from sparsehopfield.inspect import plotting
from sparsehopfield.studies import landscape as study
from sparsehopfield.studies.landscape import protocol

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

SMALL = {
    "betas": (1.0, 8.0),
    "grid": 12,
    "families": ("sphere", "correlated-sphere"),
    "rate_betas": (1.5, 4.0),
    "patterns": 24,
    "d": 12,
    "draws": 6,
    "progress": False,
}
PAIR = np.array([[1.0], [-1.0]])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("landscape"), **SMALL)


def values(rows, **fixed):
    """Values by metric of the only setting with these columns."""
    chosen = [row for row in rows if all(row[name] == value for name, value in fixed.items())]
    assert len(chosen) == len({row["metric"] for row in chosen})
    return {row["metric"]: row["value"] for row in chosen}


# The plane


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
@pytest.mark.parametrize(("name", "separation"), [("sparse", "sparsemax"), ("dense", "softmax")])
def test_landscape(name, separation, similarity):
    """Limits and basins by plain NumPy, point by point."""
    patterns = protocol.plane_patterns(0, 0)
    seen = protocol.landscape(protocol.memory_of(patterns, 8.0, name, similarity), 8)
    bias = 0 if similarity == "dot" else (patterns**2).sum(axis=1) / 2
    row_map = getattr(reference, separation)
    for i, j in ((0, 0), (2, 6), (5, 1), (7, 7)):
        x = np.array([seen.x[j], seen.y[i]])
        for _ in range(500):
            x = row_map(8.0 * (patterns @ x - bias)) @ patterns
        np.testing.assert_allclose(seen.ends[i, j], x, atol=1e-9)
        assert seen.basins[i, j] == np.linalg.norm(patterns - x, axis=1).argmin()
        assert seen.exact[i, j] == (name == "sparse")
    assert seen.settled.all()
    assert len(seen.limits) == len(set(seen.labels)) == 5
    assert seen.pure.all() == (name == "sparse")


def test_mixtures_are_no_patterns():
    """Below the contraction's beta all goes to one limit, which is nobody's."""
    patterns = protocol.plane_patterns(0, 0)
    assert theory.contraction(patterns, 0.3) < 1
    seen = protocol.landscape(protocol.memory_of(patterns, 0.3), 6)
    assert len(seen.limits) == 1
    assert (seen.basins == 5).all()
    assert not seen.exact.any()
    assert not seen.pure.any()


def test_what_does_not_settle_is_no_limit():
    """With these patterns the polynomial's states change sides for ever: the cycle's two states are no limits."""
    patterns = protocol.plane_patterns(7, 3)
    memory = protocol.memory_of(patterns, 1.0, "polynomial")
    seen = protocol.landscape(memory, 8)
    assert not seen.settled.all()
    np.testing.assert_array_equal(seen.basins < 0, ~seen.settled)
    ends = seen.ends[~seen.settled]
    twice = memory.update(memory.update(ends))
    np.testing.assert_allclose(twice, ends, atol=1e-6)
    drawn = study.plane_panel(patterns, 1.0, "polynomial", size=8).paths
    assert max(map(len, drawn)) == study.SHOWN + 1
    assert (np.linalg.norm(memory.update(ends) - ends, axis=1) > 0.1).all()
    for limit in seen.limits:
        np.testing.assert_allclose(memory.update(limit), limit, atol=1e-9)
    nothing = protocol.distinct(np.zeros((0, 2)), 1e-6)
    assert [len(part) for part in nothing] == [0, 0]


def test_distinct():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1e-9], [0.0, 1e-9], [2e-9, 0.0], [1.0, 1.0]])
    limits, which = protocol.distinct(points, 3e-9)
    np.testing.assert_array_equal(limits[which], points[[2, 1, 2, 2, 2, 5]])
    assert len(limits) == 3
    assert len(protocol.distinct(points, 1e-10)[0]) == 5


@pytest.mark.parametrize("name", ["sparse", "entmax15", "dense"])
def test_descent(name):
    memory = protocol.memory_of(protocol.plane_patterns(0, 0), 3.0, name)
    queries = np.random.default_rng(0).uniform(-1.5, 1.5, (30, 2))
    steps = memory.retrieve(queries, max_steps=protocol.MAX_STEPS, return_info=True)[1].steps
    fell = protocol.descent(memory, queries, steps)
    assert fell.updates == steps.sum()
    assert fell.rises == 0
    falls = []
    for query in queries[:5]:
        states = protocol.path(memory, query)
        energy, half = memory.energy(states), (np.diff(states, axis=0) ** 2).sum(axis=1) / 2
        long = half > 1e-6
        falls += list(-np.diff(energy)[long] / half[long])
    assert 1 - 1e-6 < fell.least <= min(falls) + 1e-6


def test_descent_sees_what_rises():
    """Of an energy whose sign is wrong every update that moves is a rise: the check can fail."""

    class Upside:
        patterns = PAIR
        memory = protocol.memory_of(PAIR, 0.25)
        update = memory.update

        def energy(self, x):
            return -self.memory.energy(x)

    fell = protocol.descent(Upside(), np.array([[0.7], [0.0]]), np.array([4, 1]))
    assert (fell.updates, fell.rises) == (5, 4)
    assert fell.least == pytest.approx(-1.5)


def test_the_polynomial_has_no_energy_and_beta_cancels():
    patterns = protocol.plane_patterns(0, 0)
    memories = [protocol.memory_of(patterns, beta, "polynomial") for beta in (1.0, 8.0)]
    assert memories[0].separation == Polynomial(10)
    one, other = (protocol.landscape(memory, 10) for memory in memories)
    assert one.energy is None
    np.testing.assert_array_equal(one.basins, other.basins)
    assert ("polynomial", 8.0) not in study.Options(**SMALL).surfaces
    assert study.Options(**SMALL, similarity="euclidean").surfaces[-1] == ("dense", 8.0)


# Rates


def test_golden_rates():
    """xi = +-1: at beta 1/4 the states are 2^-t, at beta 1/2 the update is the identity, at beta 2 it ends exactly."""
    memory = protocol.memory_of(PAIR, 0.25)
    np.testing.assert_array_equal(protocol.path(memory, np.array([1.0]))[:20, 0], 0.5 ** np.arange(20))
    half = protocol.retrieval(PAIR, np.array([1.0]), 0, 0.25)
    assert (half.predicted, half.observed, half.explained, half.support) == (0.5, 0.5, 0.5, 2)
    assert half.settled
    assert not half.exact
    still = protocol.retrieval(PAIR, np.array([0.7]), 0, 0.5)
    assert (still.steps, still.predicted, still.observed) == (1, 1.0, 0.0)
    assert protocol.memory_of(PAIR, 0.5).update([0.7]) == 0.7
    sharp = protocol.retrieval(PAIR, np.array([0.1]), 0, 2.0)
    assert (sharp.exact, sharp.found, sharp.support) == (True, True, 1)
    assert (sharp.predicted, sharp.observed, sharp.steps) == (0.0, 0.0, 3)
    other = protocol.retrieval(PAIR, np.array([-0.1]), 0, 2.0)
    assert (other.exact, other.found) == (True, False)


@pytest.mark.parametrize("family", ["sphere", "gaussian", "correlated", "correlated-sphere"])
def test_rates(family):
    """The linear part is the update's derivative at the limit, and explains the ratio of the last steps."""
    mixtures = 0
    for seed in range(6):
        patterns, query, index = protocol.draw_query(family, seed, 20, 10, 0.5)
        assert np.linalg.norm(patterns, axis=1).max() == pytest.approx(1)
        away = np.linalg.norm(query - patterns[index]) / np.linalg.norm(patterns[index])
        assert away == pytest.approx(0.5)
        found = protocol.retrieval(patterns, query, index, 2.0)
        assert found.margin == pytest.approx(theory.margin(patterns)[index], abs=1e-12)
        limit = protocol.path(protocol.memory_of(patterns, 2.0), query)[-1]
        weights = reference.sparsemax(2.0 * patterns @ limit)
        assert (weights > 0).sum() == found.support
        steps = 1e-7 * np.eye(10)
        derivative = [
            (reference.sparsemax(2.0 * patterns @ (limit + e)) - reference.sparsemax(2.0 * patterns @ (limit - e)))
            @ patterns
            / 2e-7
            for e in steps
        ]
        assert found.predicted == pytest.approx(np.linalg.norm(derivative, 2), abs=1e-6)
        if found.exact:
            assert found.observed == 0
        else:
            mixtures += 1
            assert found.settled
            assert found.observed == pytest.approx(found.explained, abs=1e-3)
            assert found.observed < found.predicted + 1e-3
    assert mixtures


def test_barrier():
    """Between two patterns of length 1 it is on half of the way; where no pattern is stored there is none."""
    memory = protocol.memory_of(PAIR, 2.0)
    assert protocol.barrier(memory, 0) == pytest.approx(float(memory.energy([0.0]) - memory.energy([1.0])))
    assert protocol.barrier(protocol.memory_of(PAIR, 0.25), 0) == 0


# The study


def test_table(found):
    memory = protocol.memory_of(protocol.plane_patterns(0, 0), 8.0)
    seen = protocol.landscape(memory, 12)
    row = values(found.rows, family="plane", map="sparse", beta=8.0)
    assert row["limits"] == row["exact limits"] == row["near limits"] == 5
    assert row["to exact"] == row["to near"] == row["settled"] == 1
    assert row["mean steps"] == pytest.approx(seen.steps.mean())
    assert (row["updates"], row["rises"]) == (seen.steps.sum(), 0)
    dense = values(found.rows, family="plane", map="dense", beta=8.0)
    assert (dense["exact limits"], dense["near limits"], dense["to exact"]) == (0, 5, 0)
    assert values(found.rows, family="plane", map="polynomial").keys() == {*study.BASINS}
    query = values(found.rows, family="sphere", beta=4.0, draw=3)
    assert {*query} == {*protocol.Retrieval._fields}
    seed = next(row["seed"] for row in found.rows if (row["family"], row["draw"]) == ("sphere", 3))
    again = protocol.retrieval(*protocol.draw_query("sphere", seed, 24, 12, 0.5), 4.0)
    assert query == again._asdict()


def test_the_same_table_again_and_for_any_number_of_jobs(found, tmp_path, monkeypatch):
    monkeypatch.setattr(plotting, "save", lambda figure, path: [])
    assert study.run(tmp_path / "two", **SMALL, jobs=2).rows == found.rows
    whole = found.table.read_bytes()
    found.table.write_bytes(whole[: len(whole) // 2])  # an interruption
    assert study.run(found.table.parent, **SMALL).rows == found.rows
    assert found.table.read_bytes() == whole


def test_report_and_figures(found):
    assert [path.name for path in found.figures] == [
        f"landscape{kind}.{ending}" for kind in ("", "-rates") for ending in ("png", "svg")
    ]
    assert all(path.exists() for path in found.figures)
    text = " ".join(found.report.split())
    for words in (
        "5 patterns in the plane, dot similarity; retrieval from 12 x 12 points",
        "The energy rose in 0 of",
        "as theory has it",
        "sparse, beta 8: 5 of 5 patterns have a margin above 1/beta, and 5 are limits exactly.",
        "0, 0 patterns to the last bit.",  # of the dense map
        "The polynomial map has no energy",
    ):
        assert words in text
    assert max(map(len, found.report.splitlines())) <= 100


def test_report_is_honest(found):
    """Of energies that rise, patterns that are not found and rates that are wrong, it says so."""
    changed = {"rises": 2.0, "least fall": 0.5, "exact limits": 1.0, "found": 0.0, "observed": 0.9, "explained": 0.1}
    rows = [{**row, "value": changed.get(row["metric"], row["value"])} for row in found.rows]
    chosen = study.Options(**SMALL)
    text = " ".join(study.report_text(study.Plane(rows, chosen), study.Rates(rows, chosen)).split())
    assert "The energy rose in 12 of" in text  # 2 in each of 6 settings
    assert "the least fall was 0.500000 of half the squared step: theory is contradicted" in text
    assert "5 of 5 patterns have a margin above 1/beta, and 1 are limits exactly: fewer" in text
    assert "whose pattern has a margin above 1/beta, 0 ended on that pattern" in text
    assert "observed 0.9000" in text
    assert "no nearer than the norm does" in text or "8.0e-01 of that step's" in text
    unsettled = [{**row, "value": 0.0 if row["metric"] == "settled" else row["value"]} for row in found.rows]
    text = " ".join(study.report_text(study.Plane(unsettled, chosen), study.Rates(unsettled, chosen)).split())
    assert "24 of 24 queries still moved" in text
    assert "Of the grid still moved after 10,000 updates: 100.0% with sparse at beta 1" in text
    assert "limits are mixtures" not in text


def test_figures_need_no_square_and_no_energy():
    """A plane may lack energy, paths and radii, and a row may be shorter than the others."""
    plane = plotting.Plane(
        "", np.arange(4.0), np.arange(3.0), np.arange(12).reshape(3, 4) % 8 - 1, np.eye(2), np.zeros((1, 2))
    )
    figure = plotting.landscapes([[plane, plane], [plane, None]])
    assert [axis.axison for axis in figure.axes] == [True, True, True, False]
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (3, 4, 3)
    assert (
        len({tuple(colour) for colour in shown.reshape(-1, 3)}) == 7
    )  # white, two tints and, for five others, four greys
    points = plotting.scatter([plotting.Points("", {"one": ([1.0], [2.0]), "two": ([], [])}, "x", "y", "xy")])
    assert points.axes[0].get_xscale() == points.axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"betas": 0.0}, "betas: must be positive and finite"),
        ({"betas": ()}, "betas: at least one is needed"),
        ({"rate_betas": np.inf}, "rate_betas: must be positive and finite"),
        ({"similarity": "cosine"}, "similarity: unknown name 'cosine'; valid: dot, euclidean"),
        ({"families": "words"}, "families: unknown name 'words'"),
        ({"plane": 1}, "plane: must be at least 2"),
        ({"grid": 1}, "grid: must be at least 2"),
        ({"patterns": 1}, "patterns: must be at least 2"),
        ({"patterns": 2000, "families": "images"}, "patterns: 2000 are more than the 1797 digits"),
        ({"d": 1}, "d: must be at least 2"),
        ({"draws": 0}, "draws: must be at least 1"),
        ({"noise": -1.0}, "noise: must be a finite number"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
