"""The bounds of the index against exact rationals: no score, exact or canonical, passes any of them.

`_core._bounds` gives what the screen compares with its thresholds, in units of scores. A bound that is met shows up
in `test_screening.py` as a lost pattern only if it happens to decide; here every single one is checked.
"""

from fractions import Fraction

import numpy as np
import pytest
from helpers import FLOATS, SIMILARITIES, exact_scores, families, path
from hypothesis import given
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield import _core

KINDS = ["lines", "columns"]


def bounds(queries, patterns, similarity, kind):
    """Give (N, M, 3), and the canonical scores as a list of {position: score}."""
    memory = sh.HopfieldMemory(patterns, similarity=similarity)
    call = memory._call(queries)
    with path(kind):
        found = _core._bounds(call.executor.core, call.rows, call.beta, 0, 2.0)
    part = memory.candidates(queries)
    return found, [
        dict(zip(part.position[a:b].tolist(), part.score[a:b].tolist(), strict=True))
        for a, b in zip(part.start[:-1], part.start[1:], strict=True)
    ]


def check(queries, patterns, similarity, kind):
    """Compare every bound with the exact score, and with the canonical one where that is known; give the bounds."""
    found, canonical = bounds(queries, patterns, similarity, kind)
    different, which = np.unique(patterns, axis=0, return_inverse=True)
    for row, scores, known in zip(found, exact_scores(queries, different, similarity), canonical, strict=True):
        for i, (*two, below) in enumerate(row):
            score = scores[which.flat[i]]
            for bound in two:
                assert bound == np.inf or Fraction(float(bound)) >= score, (i, bound, float(score))
                assert bound >= known.get(i, -np.inf)
            assert below == -np.inf or Fraction(float(below)) <= score, (i, below, float(score))
            assert below <= known.get(i, np.inf)
    return found


def count_checked(made, similarity, kind, refused):
    """Check the bounds of each family of `made`, and count those that have some; the others raise what is `refused`."""
    finite = 0
    for queries, patterns in made.values():
        if similarity == "cosine":
            patterns = patterns[np.linalg.norm(patterns.astype(float), axis=1) > 1e-35]
            if len(patterns) == 0:  # no cosine: 1 / |xi| overflows
                continue
        try:
            found = check(queries, patterns, similarity, kind)
        except refused:
            continue
        finite += np.isfinite(found).any()
    return finite


@pytest.mark.covering(1)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("d", [17, pytest.param(130, marks=pytest.mark.slow)])
def test_no_score_passes_its_bound(kind, similarity, dtype, d):
    """Ties, duplicates, extreme norms, rank-deficient, far from the origin: few features and a rotated basis."""
    made = families(dtype, m=70 if d == 130 else 20, d=d, n=2)
    # norms for which there is no index, or scores beyond the type
    assert count_checked(made, similarity, kind, (ValueError, OverflowError)) >= 5


def crowds(dtype, d):
    """Give name -> (queries, patterns): panels full of copies, whose boxes are as small as their rounding allows."""
    rng = np.random.default_rng(d)
    few = rng.normal(size=(5, d))  # of so low a rank that the columns of a box have all of it
    some = rng.normal(size=(3, d)) + 3 * rng.normal(size=d)
    queries = np.concatenate([few[:1], -few[1:2], 1000 * few[2:3], few[3:4] + 0.1 * rng.normal(size=(1, d))])
    sizes = 10.0 ** np.array([[0], [-3], [-6], [3], [6]])
    made = {
        "few": (queries, np.repeat(few, 64, axis=0)),
        "few and one": (queries, np.concatenate([np.repeat(few, 64, axis=0), few[:1]])),
        "few of many sizes": (queries * sizes[[1, 3, 0, 2]], np.repeat(few * sizes, 64, axis=0)),
        "few and zero": (queries, np.concatenate([np.repeat(few[:2], 64, axis=0), np.zeros((100, d))])),
        "few far away": (queries + 1000, np.repeat(few + 1000, 64, axis=0)),
        "one far away": (queries, np.concatenate([np.repeat(few[:2], 80, axis=0), 1e6 * few[2:3]])),
        "subnormal": (few[:1], np.repeat(few * float(np.finfo(dtype).smallest_subnormal) * 100, 64, axis=0)),
        "in a line": (some[:1] * [[0.5], [2], [-1]], np.linspace(0, 1, 70)[:, None] * some[:1]),
        "around two": (some[:2], np.repeat(some[:2], 33, axis=0) + 1e-3 * rng.normal(size=(66, d))),
    }
    return {name: (q.astype(dtype), x.astype(dtype)) for name, (q, x) in made.items()}


@pytest.mark.covering(1)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("dtype", "d"), [("float32", 17), ("float64", 5), ("float32", 130)])
def test_bounds_of_boxes(kind, similarity, dtype, d):
    """Panels whose boxes are nearly points, so that their bounds are nearly the scores."""
    assert count_checked(crowds(dtype, d), similarity, kind, ValueError) >= 7  # norms for which there is no index


@pytest.mark.covering(1)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [300, pytest.param(1100, marks=pytest.mark.slow)])
def test_bounds_of_a_long_second_line(kind, d):
    """A second line of 248 columns; and a basis from the Gram matrix of the sample, beyond 1,024 features."""
    rng = np.random.default_rng(d)
    few = rng.normal(size=(280, 70)) @ rng.normal(size=(70, d))
    patterns = (few + 0.02 * rng.normal(size=few.shape) + 3).astype(np.float32)
    queries = (patterns[:1] + rng.normal(size=(1, d))).astype(np.float32)
    found = check(queries, patterns, "euclidean", kind)
    if kind == "lines":  # and it is worth its bytes
        scores = np.array([[float(s) for s in row] for row in exact_scores(queries, patterns, "euclidean")])
        loss = abs(found - scores[..., None]).mean(axis=(0, 1))
        assert loss[1] < 0.5 * loss[0]
        assert loss[2] < loss[0]


@pytest.mark.covering(1)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("d", [17, pytest.param(300, marks=pytest.mark.slow)])
def test_bounds_of_a_query_at_the_centre(kind, similarity, dtype, d):
    """A query that is the patterns' mean: nearly all of a score is the bias, whose rounding no product covers."""
    patterns = (np.random.default_rng(d).normal(size=(60, d)) + 1).astype(dtype)
    rows = patterns.astype(float)
    if similarity == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    check(rows.mean(axis=0)[None].astype(dtype), patterns, similarity, kind)


@given(
    seed=st.integers(0, 2**32 - 1),
    exponents=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    spread=st.integers(0, 20),
    similarity=st.sampled_from(SIMILARITIES),
    kind=st.sampled_from(KINDS),
    whole=st.booleans(),
    kept=st.integers(1, 130),
)
def test_no_scale_breaks_a_bound(seed, exponents, spread, similarity, kind, whole, kept):
    """Rows and columns of all sizes, whole numbers, and queries that are zero in most features."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(60, 130)) * np.exp2(rng.integers(-spread, spread + 1, size=(60, 1)))
    patterns *= np.exp2(rng.integers(-spread, spread + 1, size=130) / 2)
    queries = rng.normal(size=(1, 130)) + rng.integers(0, 2) * patterns[:1]
    queries[:, kept:] = 0
    if whole:
        patterns, queries = np.rint(patterns) + 1, np.rint(queries)
    scale = np.exp2(exponents)
    check((queries * scale[0]).astype(np.float32), (patterns * scale[1]).astype(np.float32), similarity, kind)
