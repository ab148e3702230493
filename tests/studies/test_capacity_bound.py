"""The study of capacity bounds: what is simulated, what is promised, and what is said of both."""

import numpy as np
import pytest

from sparsehopfield import theory
from sparsehopfield.studies import capacity_bound as study
from sparsehopfield.studies._core import families
from sparsehopfield.studies.capacity_bound import protocol

SMALL = {"dims": 4, "betas": 20.0, "risks": (0.5, 0.1), "draws": 60, "progress": False}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("capacity-bound"), **SMALL)


@pytest.mark.parametrize("radius", [0.0, 0.05])
def test_stored_means_an_exact_basin(radius):
    rng = np.random.default_rng(0)
    outcomes = set()
    for count in (2, 5, 12, 40):
        for _ in range(10):
            patterns = families.sphere(rng, count, 4)
            np.testing.assert_allclose((patterns**2).sum(axis=1), 1)
            radii = theory.exact_radius(patterns, 20.0)
            assert protocol.all_stored(patterns, 20.0, radius) == bool((radii >= radius).all())
            outcomes.add(bool((radii >= radius).all()))
    assert outcomes == {True, False}
    assert not protocol.all_stored(np.repeat(patterns[:1], 2, axis=0), 20.0, 0.0)  # copies have no basin of their own


def test_table(found):
    settings = [(row["p"], row["share"]) for row in found.rows if row["metric"] == "patterns"]
    assert settings == [(0.5, share) for share in study.SHARES] + [(0.1, share) for share in study.SHARES[1:]]
    for row in found.rows:
        if row["metric"] == "patterns":
            exact = theory.exact_capacity(4, 1.0, 20.0, row["p"]).M
            assert row["value"] == int(exact * row["share"]) >= 2
        else:
            assert 0 <= row["value"] <= 1
    share = {(row["p"], row["share"]): row["value"] for row in found.rows if row["metric"] == "success"}
    assert share[0.1, 0.5] > 0.85  # promised: more than .9, standard error .04
    assert share[0.5, 4.0] < 0.1


def test_the_same_table_again_and_for_any_number_of_jobs(found, tmp_path):
    assert study.run(tmp_path / "two", **SMALL, jobs=2).rows == found.rows
    assert study.run(found.table.parent, **SMALL).rows == found.rows  # nothing is left to measure


def test_report_and_figure(found):
    assert all(path.exists() for path in found.figures)
    for words in ("Capacity bounds", "60 draws", "lemma 3.1, corrected", "At the exact capacity 2 of 2 settings"):
        assert words in found.report
    assert "says nothing (fewer than 2 patterns) in 2 of 2" in found.report


def test_report_is_honest():
    """Of shares that the bound does not keep, it says so."""
    chosen = study.Options(**SMALL)
    rows = [
        {"d": 4, "beta": 20.0, "p": p, "share": share, "seed": 0, "metric": metric, "value": value}
        for p in chosen.risks
        for share in (1.0, 2.0)
        for metric, value in (("patterns", 6), ("success", 0.2 if share == 1 else 1.0))
    ]
    text = study.report_text(study.Summary(rows, chosen))
    assert "At the exact capacity 0 of 2 settings" in text
    assert "still exceeds 1 - p by up to 0.500" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": 1}, "dims: must be at least 2"),
        ({"risks": 1.0}, "risks: must be above 0 and below 1"),
        ({"betas": 0.0}, "betas: must be above 0"),
        ({"radius": -1.0}, "radius: must be a finite number"),
        ({"draws": 0}, "draws: must be at least 1"),
        ({"shares": 1e-9}, "most: no setting has between 2 and 1000 patterns"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
