"""Euclidean scores far from the origin: a common shift of patterns and queries changes no answer.

The grid's numbers are multiples of 1/8 below 4, so that adding an offset of up to 2^17 is exact in float32: what is
asked far from the origin is then the same question, and any difference in the answer is the library's.
"""

import numpy as np
import pytest
from helpers import CUTOFF_MAPS, FLOATS, alpha_of, name_of, path
from hypothesis import given
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield import reference
from sparsehopfield.structures import BlockSparse, RandomMask, TopK, Window

MAPS = [*CUTOFF_MAPS, "softmax", sh.Entmax(1.05)]
OFFSETS = [-(2.0**17), 1000.0, 2.0**14]
EUCLIDEAN = {"similarity": "euclidean"}
STRUCTURES = [
    None,
    TopK(5),
    TopK(90),
    Window(3, causal=True, positions=np.arange(0, 400, 4)),
    Window(40, positions=np.arange(0, 400, 4)),
    RandomMask(7),
    BlockSparse(np.eye(4, dtype=bool), (25, 100)),
]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def grid(rng, *shape):
    return rng.integers(-31, 32, shape) / 8


def question(rng, m=400, d=9, n=100):
    """Give patterns and queries near some of them."""
    patterns = grid(rng, m, d)
    return patterns, patterns[rng.integers(m, size=n)] + rng.integers(-2, 3, (n, d)) / 8


def assert_same_weights(far, near, separation):
    """Bit for bit where weights come from canonical scores, which here are the same numbers; else closely."""
    if separation == "softmax":
        np.testing.assert_allclose(far, near, rtol=0, atol=3e-5)
    else:
        np.testing.assert_array_equal(far, near)


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("separation", MAPS, ids=name_of)
@pytest.mark.parametrize(
    ("patterns", "query"),
    [
        ([[500000, 4649776], [500002, 4649776], [500000, 4649779]], [500000, 4649779.5]),  # metres of a map
        ([[0, 0, 8e6], [1, 0, 8e6], [0, 2, 8e6]], [0.5, 1, 8e6]),
        ([[-3e6, 3e6], [-3e6 + 1, 3e6], [0, 0], [-3e6, 3e6 + 2]], [-3e6 + 0.75, 3e6 + 0.5]),  # one is not far
        ([[0, 0], [1e6, 1e6], [1e6 + 2, 1e6], [-1e6, 5]], [1e6 + 1, 1e6 + 0.5]),  # the first is not
    ],
)
def test_few_patterns(patterns, query, separation, dtype):
    patterns, query = np.array(patterns, dtype), np.array(query, dtype)
    options = {**EUCLIDEAN, "separation": separation}
    for beta in (0.05, 1.0, 20.0):
        got = sh.associate(query, patterns, beta, top=4, **options).toarray()
        want = reference.associate(query, patterns, beta, **options)  # by differences, in float64
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
        state = sh.update(query, patterns, beta, **options)
        np.testing.assert_allclose(state, (want @ patterns.astype(float))[0], rtol=2 * np.finfo(dtype).eps, atol=1e-6)
        energy = reference.energy(query, patterns, beta, **options)
        np.testing.assert_allclose(sh.energy(query, patterns, beta, **options), energy, rtol=1e-6, atol=1e-6)


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("separation", MAPS, ids=name_of)
@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
def test_a_shift_changes_no_answer(structure, separation, dtype, rng):
    patterns, queries = question(rng)
    options = {**EUCLIDEAN, "separation": separation, "structure": structure}
    for offset, beta in zip(OFFSETS, (0.01, 0.5, 8.0), strict=True):
        near, far = ([(x + c).astype(dtype) for x in (queries, patterns)] for c in (0.0, offset))
        p, q = (sh.associate(*rows, beta, top=400, **options).toarray() for rows in (near, far))
        assert_same_weights(q, p, separation)
        states = [sh.update(*rows, beta, **options) for rows in (near, far)]
        rounded = (
            (8 if structure else 1) * abs(offset) * np.finfo(dtype).eps
        )  # a structure's rows are mixed as they are
        np.testing.assert_allclose(states[1] - offset, states[0], rtol=0, atol=rounded + 1e-4)
        energies = [sh.energy(*rows, beta, **options) for rows in (near, far)]
        np.testing.assert_allclose(*energies, rtol=1e-6, atol=3e-5 / beta)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("offset", OFFSETS)
def test_a_shift_changes_no_certificate(offset, dtype, rng):
    patterns, queries = question(rng)
    near, far = (sh.HopfieldMemory((patterns + c).astype(dtype), 2.0, **EUCLIDEAN) for c in (0.0, offset))
    for ask in (
        lambda m, c: m.margin(),
        lambda m, c: m.critical_beta(),
        lambda m, c: m.is_certified(),
        lambda m, c: m.exact_radius(),
        lambda m, c: m.suggest_beta(stored=0.5),
        lambda m, c: m.duplicates(1.0).pairs,
        lambda m, c: m.certify((queries + c).astype(dtype)).index,
        lambda m, c: m.explain((queries[0] + c).astype(dtype)).weights,
    ):
        np.testing.assert_array_equal(ask(far, offset), ask(near, 0.0))
    states = [m.retrieve((queries + c).astype(dtype)) - c for m, c in ((far, offset), (near, 0.0))]
    np.testing.assert_allclose(*states, rtol=0, atol=abs(offset) * np.finfo(dtype).eps)


@pytest.mark.parametrize("separation", MAPS, ids=name_of)
def test_parts_far_from_the_origin_merge(separation, rng):
    """Each part has a centre of its own, or none: the first one's patterns do not lie together."""
    patterns, queries = (x.astype(np.float32) for x in question(rng))
    patterns, queries = patterns + 2**16, queries + 2**16
    patterns[0] = 0
    options = {**EUCLIDEAN, "separation": separation}
    for beta in (0.02, 3.0):
        parts = [sh.candidates(queries, patterns[i : i + 150], beta, offset=i, **options) for i in (0, 150, 300)]
        values = None if separation == "softmax" else patterns
        np.testing.assert_allclose(
            sh.merge(parts).states(values), sh.update(queries, patterns, beta, **options), rtol=2e-7
        )


@pytest.mark.parametrize("separation", ["softmax", "entmax15", sh.Polynomial(3)], ids=name_of)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
def test_a_memory_that_grows_answers_as_a_fresh_one(separation, dtype, rng):
    """Whether it keeps its centre, loses it by a pattern that lies elsewhere, or loses its first pattern."""
    patterns, queries = question(rng, m=60)
    patterns, queries = (patterns + 1e4).astype(dtype), (queries + 1e4).astype(dtype)
    elsewhere = np.zeros((1, 9), dtype)
    options = {**EUCLIDEAN, "separation": separation}
    memory, rows = sh.HopfieldMemory(patterns[:1], 0.3, **options), patterns[:1]
    for more in (patterns[1:2], patterns[2:50], elsewhere, patterns[50:]):
        memory.add(more)
        rows = np.concatenate([rows, more])
        np.testing.assert_array_equal(memory.update(queries), sh.update(queries, rows, 0.3, **options))
    for gone in (0, 49):  # the centre, then what lies elsewhere
        memory.remove([gone])
        rows = np.delete(rows, gone, axis=0)
        np.testing.assert_array_equal(memory.update(queries), sh.update(queries, rows, 0.3, **options))


@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
@pytest.mark.parametrize("kind", [np.uint8, np.float16])
def test_narrow_types(kind, separation, rng):
    """Bytes from 240 on, half precision from 1,000 on: widened, and taken from the centre."""
    low = 240 if kind == np.uint8 else 1000
    patterns = rng.integers(low, low + 16, (1500, 40)).astype(kind)
    queries = patterns[:20].astype(np.float32) + 0.25
    options = {**EUCLIDEAN, "separation": separation}
    for beta in (0.01, 0.2):
        want = reference.update(queries, patterns, beta, **options)
        np.testing.assert_allclose(sh.update(queries, patterns, beta, **options), want, rtol=3e-6)


@pytest.mark.parametrize("structure", [None, Window(5), RandomMask(9)], ids=repr)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
def test_the_polynomial_keeps_its_scores(structure, dtype, rng):
    """A shift of the scores changes it: they are <x, xi> - |xi|^2/2 wherever the patterns lie."""
    patterns, queries = question(rng, m=100, d=4)
    patterns, queries = (patterns + 100).astype(dtype), (queries + 100).astype(dtype)
    options = {**EUCLIDEAN, "separation": sh.Polynomial(2), "structure": structure}
    want = reference.update(queries, patterns, **options)
    np.testing.assert_allclose(sh.update(queries, patterns, **options), want, rtol=1e-5)
    p = sh.associate(queries, patterns, top=100, **options).toarray()
    np.testing.assert_allclose(p, reference.associate(queries, patterns, **options), rtol=1e-3)


def test_values_and_regression_weights(rng):
    """What is mixed need not be the patterns: labels of places on a map, by the nearest."""
    places = (np.array([500_000, 4_650_000]) + 400 * grid(rng, 300, 2)).astype(np.float32)
    labels = grid(rng, 300, 1).astype(np.float32)
    queries = places[:50] + np.float32(0.5)
    memory = sh.HopfieldMemory(places, 0.01, values=labels, separation="softmax", **EUCLIDEAN)
    want = reference.associate(queries, places, 0.01, separation="softmax", **EUCLIDEAN) @ labels.astype(float)
    np.testing.assert_allclose(memory.update(queries), want, atol=1e-5)


def test_the_classifier(rng):
    pytest.importorskip("sklearn", reason="the estimators are an extra")
    from sparsehopfield.estimators import HopfieldClassifier

    x = np.concatenate([grid(rng, 60, 3), grid(rng, 60, 3) + 2]).astype(np.float32)
    y = np.repeat([0, 1], 60)
    for separation in ("softmax", "sparsemax"):
        proba = []
        for offset in (0.0, 2.0**16):
            model = HopfieldClassifier(beta=1.0, separation=separation).fit(x + np.float32(offset), y)
            proba.append(model.predict_proba(x + np.float32(offset) + np.float32(0.125)))
        np.testing.assert_allclose(*proba, atol=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(0, 22),
    d=st.integers(1, 40),
    m=st.integers(1, 300),
    beta=st.floats(0.001, 100),
    separation=st.sampled_from(MAPS),
    dtype=st.sampled_from(FLOATS),
    first=st.booleans(),
)
def test_any_offset(seed, exponent, d, m, beta, separation, dtype, first):
    """Rounded numbers at any distance, the first pattern at the origin or not: as by differences in float64."""
    rng = np.random.default_rng(seed)
    patterns = (rng.standard_normal((m, d)) + 2.0**exponent).astype(dtype)
    queries = (patterns[rng.integers(m, size=5)] + rng.standard_normal((5, d))).astype(dtype)
    if first:
        patterns[0] = 0
    options = {**EUCLIDEAN, "separation": separation}
    got = sh.associate(queries, patterns, beta, top=m, **options).toarray()
    want = reference.associate(queries, patterns, beta, **options)
    scores = beta * reference.canonical_scores(queries, patterns, "euclidean")
    spread = 2.0**-5 if alpha_of(separation) == 1 else 1e-12 * np.abs(scores).max()  # of coarse scores, relative
    spread = min(spread, float(np.finfo(dtype).eps) * (d + 16) * 300 * max(beta, 1.0) + 1e-12 * np.abs(scores).max())
    assert np.abs(got - want).sum(axis=1).max() <= 4 * spread + (m + 16) * float(np.finfo(dtype).eps)


@pytest.mark.parametrize("way", ["lines", "columns"])
def test_an_index_grows_whether_or_not_the_centre_stays(way, rng):
    """Its codes are taken from a centre of its own, so they are kept where the memory's centre is given up."""
    patterns = (rng.standard_normal((3000, 24)) + 1.0).astype(np.float32)
    spread = np.linalg.norm(patterns - patterns[0], axis=1).max()
    patterns += np.float32(8.2 * spread / np.sqrt(24))  # just far enough
    step = (patterns[:1] - patterns[0] + 0.25 * spread).astype(np.float32) + patterns[0]  # and no longer
    queries = patterns[:40] + np.float32(0.125)
    memory = sh.HopfieldMemory(patterns, 2.0, index=True, **EUCLIDEAN)
    with path(way):
        memory.update(queries)
        memory.add(step)
        got = memory.update(queries)
    rows = np.concatenate([patterns, step])
    np.testing.assert_array_equal(got, sh.update(queries, rows, 2.0, index=False, **EUCLIDEAN))
    assert memory.index_nbytes > 0
