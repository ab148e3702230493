"""The study of bounds on the retrieval error: what is asked, what is judged, what is said of it."""

import numpy as np
import pytest

from sparsehopfield import reference, theory
from sparsehopfield.studies import bounds as study
from sparsehopfield.studies._core import families
from sparsehopfield.studies.bounds import protocol

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

pytestmark = pytest.mark.usefixtures("undrawn")  # `found` has its figures

SMALL = {
    "families": ("sphere", "images", "correlated"),
    "betas": (1.0, 30.0, 3000.0),
    "patterns": 20,
    "d": 8,
    "asks": 2,
    "progress": False,
}
COLUMNS = ("family", "query", "scaled", "model", "support")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("bounds"), **SMALL)


def table(rows):
    return {(*(row[name] for name in COLUMNS), row["metric"]): row["value"] for row in rows}


def test_what_is_asked():
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((10, 5))
    radius = 0.9 * theory.min_half_distance(patterns)
    for kind, count in (("pattern", 10), ("random", 30), ("nearest", 10), ("mixture", 30)):
        x, index = protocol.draw_queries(rng, patterns, kind, 3, 0.9)
        assert x.shape == (count, 5)
        away = np.linalg.norm(x - patterns[index], axis=1)
        if kind == "mixture":
            others = 2 * x - patterns[index]
            assert all((np.abs(other - patterns).max(axis=1) < 1e-12).any() for other in others)
            assert (away > radius).all()
        else:
            np.testing.assert_allclose(away, 0 if kind == "pattern" else radius, atol=1e-12)
    x, index = protocol.draw_queries(rng, patterns, "nearest", 3, 0.9)
    gaps = np.linalg.norm(x[:, None] - patterns, axis=2)
    order = np.sort(np.linalg.norm(patterns[:, None] - patterns, axis=2), axis=1)
    np.testing.assert_allclose(np.sort(gaps, axis=1)[:, 1], order[:, 1] - radius)


def test_judged():
    """On numbers that can be judged by hand."""
    made = protocol.Step(
        support=np.array([1, 2, 2, 5]),
        farthest=np.array([1.5, 1.5, 1.5, 1.5]),
        error={"sparse": np.array([0.0, 0.5, 1.0, 1.2]), "dense": np.zeros(4)},
        bounds={rule: np.array([0.0, 1.0, 0.8, 1.8]) for rule in study.RULES["sparse"]},
    )
    values = protocol.compare_bounds(made, "sparse", 1, np.inf)
    assert (values["queries"], values["moved"], values["error largest"]) == (4, 0.75, 1.2)
    assert (values["sharp, informative"], values["sharp, useful"], values["sharp, violated"]) == (1.0, 0.75, 0.25)
    assert (values["sharp, tightness"], values["sharp, worst"]) == pytest.approx((1.2 / 1.8, 1.25))
    pair = protocol.compare_bounds(made, "sparse", 2, 2)
    assert (pair["queries"], pair["error mean"], pair["sharp, mean"]) == pytest.approx((2, 0.75, 0.9))
    assert set(protocol.compare_bounds(made, "sparse", 3, 4).values()) == {0.0}
    assert protocol.compare_bounds(made, "dense", 1, np.inf)["moved"] == 0


def test_against_the_reference(found):
    """Errors and supports of some settings from the formulas."""
    values = table(found.rows)
    seeds = {row["family"]: row["seed"] for row in found.rows}
    for family in ("sphere", "correlated"):
        rng = np.random.default_rng(seeds[family])
        patterns = families.draw(family, rng, 20, 8)
        x, index = protocol.draw_queries(rng, patterns, "random", 2, 0.9)
        m = np.linalg.norm(patterns, axis=1).max()
        for scaled in SMALL["betas"]:
            support = (reference.sparsemax(scaled / m**2 * x @ patterns.T) > 0).sum(axis=1)
            assert values[family, "random", scaled, "sparse", "1", "queries"] == (support == 1).sum()
            assert values[family, "random", scaled, "sparse", "3-4", "queries"] == np.isin(support, (3, 4)).sum()
            for model, separation in study.MAPS.items():
                states = reference.update(x, patterns, scaled / m**2, separation=separation)
                error = np.linalg.norm(states - patterns[index], axis=1) / m
                assert values[family, "random", scaled, model, "any", "error mean"] == pytest.approx(error.mean())
                assert values[family, "random", scaled, model, "any", "error median"] == pytest.approx(np.median(error))


def test_table(found):
    values = table(found.rows)
    for key, value in values.items():
        *_, model, size, metric = key
        if metric in ("sharp, violated", "exponential, violated", "separation, violated", "printed, informative"):
            assert value == 0, key
        if metric == "queries" and size == "any":
            rest = sum(values[(*key[:3], "sparse", other, metric)] for other in study.SIZES if other != "any")
            assert value == rest == (20 if key[1] in ("pattern", "nearest") else 40)
        assert model == "sparse" or not metric.startswith(("sharp", "printed,", "dense error"))
    assert any(value for key, value in values.items() if key[-1] == "dense error, violated")


def test_images_are_drawn_once_and_without_repetition(found):
    values = table(found.rows)
    assert values["images", "pattern", 3000.0, "sparse", "any", "error largest"] > 0  # longer images outrank others


@pytest.mark.depth
@pytest.mark.usefixtures("undrawn")
def test_the_same_table_again_and_for_any_number_of_jobs(found, tmp_path):
    assert study.run(tmp_path / "two", **SMALL, jobs=2).rows == found.rows
    content = found.table.read_bytes()
    found.table.write_bytes(content[: len(content) // 3])
    again = study.run(found.table.parent, **SMALL)
    assert again.rows == found.rows
    assert again.report == found.report
    assert found.table.read_bytes() == content


def test_report_and_figures(found):
    assert len(found.figures) == 4
    assert all(path.exists() for path in found.figures)
    text = " ".join(found.report.split())
    for words in (
        "sparse, 'sharp': is kept by all queries of 36 settings",
        "sparse, 'printed': is kept by all queries of 27 settings; it never says anything",
        "sparse, 'dense error': fails in",
        "dense, 'exponential': is kept by all queries of 36 settings",
    ):
        assert words in text
    assert max(map(len, found.report.splitlines())) <= 100


def test_report_is_honest(found):
    """Of bounds that are broken, or say something, it says so."""
    chosen = study.Options(**SMALL)

    def text(metric, value):
        rows = [{**row, "value": value} if row["metric"] == metric else row for row in found.rows]
        return " ".join(study.report_text(study.Summary(rows, chosen)).split())

    assert "sparse, 'sharp': fails in 36 of 36 settings" in text("sharp, violated", 0.25)
    assert "25.0 % of queries" in text("sharp, violated", 0.25)
    assert "sparse, 'printed': is kept by all queries of 27 settings; it is below 2m for 50.0 %" in text(
        "printed, informative", 0.5
    )
    assert "sparse, 'dense error': is kept by all queries of 27" in text("dense error, violated", 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"families": "odd"}, "families: unknown name 'odd'"),
        ({"queries": "odd"}, "queries: unknown name 'odd'"),
        ({"betas": 0.0}, "betas: must be positive"),
        ({"patterns": 1}, "patterns: must be at least 2"),
        ({"patterns": 9999}, "patterns: 9999 are more than the 1797 images"),
        ({"d": 1}, "d: must be at least 2"),
        ({"asks": 0}, "asks: must be at least 1"),
        ({"share": 1.5}, "share: must be above 0 and at most 1"),
        ({"dataset": "odd"}, "dataset: unknown name 'odd'"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
