"""The search for the least quotient (lead - need) / distance: by every path the same as over all pairs."""

import numpy as np
import pytest
from helpers import path, threads

import sparsehopfield as sh
from sparsehopfield import _core

PATHS = ("auto", "scan", "lines", "columns")


def families(rng, m, d):
    """Patterns that differ in how their lengths and distances lie."""
    noise = rng.standard_normal((m, d))
    yield "gaussian", noise
    yield "sphere", noise / np.linalg.norm(noise, axis=1, keepdims=True)
    yield "lengths", noise * np.exp(rng.standard_normal((m, 1)))
    yield "crowded", 3 * rng.standard_normal(d) + 0.1 * noise
    yield "positive", np.abs(noise) * rng.random((m, 1))
    yield "whole", rng.integers(0, 4, (m, d)) + 0.5


def leads(memory, which):
    """Return what some patterns lead all others by, and their squared distances, in float64 from differences."""
    x = memory.patterns.astype(np.float64)
    if memory.similarity == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    bias = -(x**2).sum(axis=1) / 2 if memory.similarity == "euclidean" else np.zeros(len(x))
    own = x[which]
    lead = ((own**2).sum(axis=1) + bias[which])[:, None] - (own @ x.T + bias)
    return lead, np.stack([((row - x) ** 2).sum(axis=1) for row in own])


def quotients(lead, square, which, need, slack):
    """Return all of them."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (lead - need[:, None]) / np.sqrt(square + slack)
    found[np.arange(len(which)), which] = np.inf
    return found


def ask(memory, which, need, slack):
    return _core.radii(memory._snapshot.certificates._core, which, need, slack)


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("m", "d"), [(2, 1), (5, 2), (60, 3), (1023, 8), (1025, 40), pytest.param(2100, 130, marks=pytest.mark.slow)]
)
def test_the_same_as_over_all_pairs(m, d, dtype, similarity):
    rng = np.random.default_rng(m)
    for _, rows in families(rng, m, d):
        patterns = rows.astype(dtype)
        memory = sh.HopfieldMemory(patterns, similarity=similarity)
        which = np.sort(rng.choice(m, min(m, 40), replace=False))
        slack = 1e-3 if dtype == "float32" else 1e-9
        rounding = (1e-4 if (similarity, dtype) == ("cosine", "float32") else 1e-6) * max(
            1, np.abs(patterns).max()
        ) ** 2
        known = leads(memory, which)
        for need in (0.01, 1.0, 20.0, -0.5):
            needs = np.full(len(which), need)
            expected = quotients(*known, which, needs, slack)
            least = expected.min(axis=1)
            for name in PATHS:
                with path(name):
                    radius, rival = ask(memory, which, needs, slack)
                assert (np.abs(radius - least) <= rounding * (1 + np.abs(least))).all()
                assert (rival != which).all()
                reached = expected[np.arange(len(which)), rival]
                assert (np.abs(reached - least) <= rounding * (1 + np.abs(least))).all()


def test_far_and_long_patterns_are_rivals_too():
    """A pattern far away that is much longer can be nearer to the ball than the nearest one."""
    patterns = np.array([[1.0, 0.0], [0.9, 0.4], [0.5, 6.0], [-3.0, 0.0]])
    memory = sh.HopfieldMemory(patterns)
    which, need = np.array([0]), np.array([0.05])
    radius, rival = ask(memory, which, need, 0.0)
    expected = quotients(*leads(memory, which), which, need, 0.0)
    assert rival[0] == expected.argmin()
    assert rival[0] != memory.certify(patterns[:1]).nearest[0]
    assert radius[0] == pytest.approx(expected.min(), rel=1e-12)
    assert np.linalg.norm(patterns - patterns[0], axis=1)[rival[0]] > 5


@pytest.mark.parametrize("shorter", [0.5, 0.999])
def test_where_the_root_is_double(shorter):
    """A pattern of the same direction: the floor touches, and rounding must not lose the only rival."""
    for seed in range(200):
        row = np.random.default_rng(seed).standard_normal(7)
        memory = sh.HopfieldMemory(np.stack([row, shorter * row]))
        lead, distance = (1 - shorter) * (row @ row), (1 - shorter) * np.linalg.norm(row)
        for need in (0.0, lead / 2, lead):
            radius, rival = ask(memory, np.array([0]), np.array([need]), 0.0)
            assert rival[0] == 1
            assert radius[0] == pytest.approx((lead - need) / distance, abs=1e-9)


def test_alone_copies_and_none():
    alone = sh.HopfieldMemory(np.ones((1, 3)))
    radius, rival = ask(alone, np.array([0, 0]), np.array([1.0, -1.0]), 0.0)
    assert (radius == np.inf).all()
    assert (rival == -1).all()
    copies = sh.HopfieldMemory(np.ones((3, 3)))
    radius, rival = ask(copies, np.array([1, 1]), np.array([1.0, -1.0]), 0.0)
    assert radius[0] < -1e100
    assert radius[1] > 1e100
    assert (rival != 1).all()
    radius, rival = ask(copies, np.zeros(0, np.int64), np.zeros(0), 0.0)
    assert radius.shape == rival.shape == (0,)


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_narrow_patterns(dtype):
    rng = np.random.default_rng(0)
    narrow = rng.integers(0, 200, (1500, 30)).astype(dtype)
    wide = sh.HopfieldMemory(narrow.astype(np.float32), beta=0.01)
    radii = sh.HopfieldMemory(narrow, beta=0.01).exact_radius()
    assert (radii >= 0).any()
    np.testing.assert_array_equal(radii, wide.exact_radius())


def test_any_number_of_threads():
    memory = sh.HopfieldMemory(np.random.default_rng(1).standard_normal((3000, 20), dtype=np.float32))
    found = []
    for count in (1, 2, 3, 8):
        with threads(count):
            found.append(ask(memory, np.arange(3000), np.full(3000, 0.5), 1e-6))
    for radius, rival in found[1:]:
        assert radius.tobytes() == found[0][0].tobytes()
        assert rival.tobytes() == found[0][1].tobytes()


@pytest.mark.parametrize(
    ("which", "need", "slack", "message"),
    [
        ([3], [1.0], 0.0, "which"),
        ([-1], [1.0], 0.0, "which"),
        ([0], [np.nan], 0.0, "need"),
        ([0], [np.inf], 0.0, "need"),
        ([0, 1], [1.0], 0.0, "need"),
        ([0], [1.0], -1.0, "slack"),
        ([0], [1.0], np.nan, "slack"),
    ],
)
def test_bad_input(which, need, slack, message):
    memory = sh.HopfieldMemory(np.eye(3))
    with pytest.raises(ValueError, match=message):
        ask(memory, np.array(which), np.array(need), slack)
