"""The study of barriers: a set whose heights are known, what is left out, and what is said of ranks."""

import numpy as np
import pytest

from sparsehopfield.functional import retrieve
from sparsehopfield.studies import barriers as study
from sparsehopfield.studies.barriers import protocol, report

for module in ("matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

pytestmark = pytest.mark.usefixtures("undrawn")  # the run has its figure

SMALL = {"families": "sphere", "betas": (0.2, 8.0), "patterns": 8, "d": 4, "queries": 2, "draws": 2, "progress": False}


def test_of_orthonormal_patterns_the_line_is_the_lowest_way(monkeypatch):
    monkeypatch.setattr(protocol, "draw", lambda *_: 3 * np.eye(3))  # scaled to length 1
    found = protocol.measure(study.Options(patterns=3, d=3, noise=0.1), "sphere", 4.0, 0)
    assert (found["known"], found["minima"], found["pure"], found["saddles"]) == (1, 3, 3, 3)
    assert found["escape"] == pytest.approx(0.25 - 1 / 16)
    assert found["line"] == pytest.approx(1)
    assert found["loose"] == 0
    assert found["steps"] == 2  # one update reaches the pattern, the next one finds it at rest
    monkeypatch.setattr(protocol, "draw", lambda *_: np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
    bent = protocol.measure(study.Options(patterns=3, d=2, noise=0.1), "sphere", 8.0, 0)
    assert bent["line"] == pytest.approx(1)  # two of three pairs are neighbours
    assert bent["loose"] == pytest.approx(1 / 3)  # the way from the first to the last leads by the one between them


def test_a_small_run(tmp_path):
    outcome = study.run(tmp_path, **SMALL)
    summary = report.Summary(outcome.rows, study.Options(**SMALL))
    assert summary.values(("sphere", 0.2), "minima").tolist() == [1, 1]  # there is nothing to leave
    assert np.isnan(summary.values(("sphere", 0.2), "escape")).all()
    assert (summary.values(("sphere", 8.0), "line") >= 1 - 1e-9).all()
    said = " ".join(outcome.report.split())
    assert "Minima and saddles are known in 4 of 4 settings, of 2 sets of patterns." in said
    correlations = summary.by_draw("steps and distance")
    error = np.ptp(correlations) / 2  # of two: their deviation over the root of 2
    assert f"Ranks of updates and distance: mean correlation {correlations.mean():+.2f} ± {error:.2f}" in said


def test_queries_are_at_many_distances(monkeypatch):
    asked = []
    monkeypatch.setattr(protocol, "draw", lambda *_: np.eye(3))
    monkeypatch.setattr(protocol, "retrieve", lambda x, *a, **k: asked.append(x) or retrieve(x, *a, **k))
    protocol.measure(study.Options(patterns=3, d=3, noise=0.4, queries=50), "sphere", 4.0, 0)
    far = np.linalg.norm(asked[0] - np.repeat(np.eye(3), 50, axis=0), axis=1)
    assert 0 < far.min() < 0.05 < 0.35 < far.max() < 0.4  # else ranks of distances would be those of rounding


def test_sets_at_several_betas_count_once():
    rows = [
        {"family": "sphere", "beta": beta, "draw": draw, "metric": metric, "value": value}
        for metric in ("steps and rate",)
        for draw, values in enumerate([(0.1, 0.3), (0.5, float("nan"))])
        for beta, value in zip((1.0, 2.0), values, strict=True)
    ]
    assert report.Summary(rows, study.Options()).by_draw("steps and rate") == pytest.approx([0.2, 0.5])


def test_sets_with_too_many_supports_are_left_out():
    found = protocol.measure(study.Options(patterns=12, max_supports=30), "sphere", 4.0, 1)
    assert found["known"] == 0
    assert all(np.isnan(value) for name, value in found.items() if name != "known")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"betas": 0.0}, "betas: must be"), ({"noise": -1.0}, "noise: must be"), ({"patterns": 1}, "patterns: must be")],
)
def test_bad_options_are_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **options)
