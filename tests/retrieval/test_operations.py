"""energy, update, associate, retrieve, candidates and HopfieldMemory against the reference.

Bounds are those of `helpers.weight_bounds`: what rounding of the scores can do to the weights of a query.
"""

import pickle
import warnings
from itertools import pairwise

import hypothesis
import numpy as np
import pytest
import scipy.sparse
from helpers import (
    ALL_MAPS,
    CUTOFF_MAPS,
    ENERGY_MAPS,
    LAYOUTS,
    ROUNDOFF,
    SIMILARITIES,
    name_of,
    quiet,
    same_bits,
    score_error,
    state_bounds,
    threads,
    weight_bounds,
)
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield import reference, structures
from sparsehopfield.structures import Full

FLOATS = [np.float32, np.float64]


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def make(rng, n, m, d, dtype=np.float32):
    """Draw patterns, and damaged ones as queries, so that supports are neither trivial nor everything."""
    if np.dtype(dtype).kind in "iu":
        patterns = rng.integers(0, 4, size=(m, d)).astype(dtype)
        queries = patterns[rng.integers(m, size=n)] * (rng.random((n, d)) < 0.7).astype(dtype)
        return queries.astype(dtype), patterns
    patterns = rng.normal(size=(m, d)) / np.sqrt(d)
    queries = patterns[rng.integers(m, size=n)] + 0.5 * rng.normal(size=(n, d)) / np.sqrt(d)
    return queries.astype(dtype), patterns.astype(dtype)


def computed(*arrays):
    """Give the type that operations compute in."""
    kinds = [a.dtype if a.dtype.itemsize > 2 else np.dtype(np.float32) for a in arrays]
    return np.result_type(*kinds)


def check_update(queries, patterns, beta=1.0, *, values=None, similarity="dot", separation="sparsemax", **keywords):
    """Compare one update with the reference, and return it."""
    options = {"similarity": similarity, "separation": separation}
    state = sh.update(queries, patterns, beta, values=values, **options, **keywords)
    dtype = computed(queries, patterns, *([] if values is None else [values]))
    assert state.dtype == dtype
    want = reference.update(queries, patterns, beta, values=values, **options)
    assert state.shape == want.shape
    rows = patterns if values is None else values
    if similarity == "cosine" and values is None:
        rows = np.asarray(patterns, float) / np.linalg.norm(np.asarray(patterns, float), axis=1, keepdims=True)
    bounds = weight_bounds(queries, patterns, beta, similarity, separation, dtype)
    off = np.abs(state - want).reshape(-1, want.shape[-1]).max(axis=1, initial=0)
    assert (off <= state_bounds(bounds, queries, rows, dtype)).all(), (off, bounds)
    return state


def check_weights(queries, patterns, beta=1.0, *, similarity="dot", separation="sparsemax"):
    """Compare the weights with the reference, and return them."""
    options = {"similarity": similarity, "separation": separation}
    more = {} if separation in CUTOFF_MAPS else {"top": len(patterns)}
    weights = sh.associate(queries, patterns, beta, **options, **more)
    dtype = computed(queries, patterns)
    assert isinstance(weights, scipy.sparse.csr_array)
    assert weights.dtype == dtype
    assert weights.has_sorted_indices
    want = reference.associate(queries, patterns, beta, **options)
    assert weights.shape == want.shape
    bounds = weight_bounds(queries, patterns, beta, similarity, separation, dtype)
    off = np.abs(weights.toarray() - want).sum(axis=1)
    assert (off <= bounds).all(), (off, bounds)
    return weights


# --- types and memory layouts -----------------------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("separation", ALL_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.float16, np.int16], ids=lambda t: t.__name__)
def test_every_model_and_type(separation, similarity, dtype, rng):
    queries, patterns = make(rng, 30, 120, 20, dtype)
    patterns[patterns.sum(axis=1) == 0] += 1
    for beta in (0.3, 3.0):
        check_update(queries, patterns, beta, similarity=similarity, separation=separation)
        check_weights(queries, patterns, beta, similarity=similarity, separation=separation)


@pytest.mark.parametrize(
    ("of_queries", "of_patterns", "of_values"),
    [
        ("f4", "f8", None),
        ("f8", "f4", None),
        ("f4", "u1", None),
        ("f8", "u1", None),
        ("f2", "f4", None),
        ("u1", "f8", "f4"),
        ("f4", "f4", "f8"),
        ("f4", "u1", "u1"),
        ("f4", "f4", "u1"),
        ("i8", "i4", "i2"),
        ("f4", "?", None),
        ("?", "f4", None),
        (">f4", "<f4", ">f8"),
    ],
)
def test_mixed_types(of_queries, of_patterns, of_values, rng):
    queries, patterns = (rng.integers(0, 2, size=shape) for shape in ((9, 16), (40, 16)))
    queries, patterns = queries.astype(of_queries), patterns.astype(of_patterns)
    values = None if of_values is None else rng.integers(0, 3, size=(40, 5)).astype(of_values)
    for separation in ("sparsemax", "softmax"):
        state = check_update(queries, patterns, 0.7, values=values, separation=separation)
        wide = any(t is not None and t[-2:] in ("f8", "i4", "i8") for t in (of_queries, of_patterns, of_values))
        assert state.dtype == (np.float64 if wide else np.float32)


@pytest.mark.covering(2)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8], ids=lambda t: t.__name__)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_layouts_change_no_bit(layout, dtype, separation, rng):
    queries, patterns = make(rng, 11, 70, 33, dtype)
    values = rng.normal(size=(70, 7)).astype(np.float32)
    lay = LAYOUTS[layout]
    options = {"separation": separation, "similarity": "euclidean"}
    plain = sh.update(queries, patterns, 2.0, **options)
    assert same_bits(sh.update(lay(queries), lay(patterns), 2.0, **options), plain)
    plain = sh.update(queries, patterns, 2.0, values=values, **options)
    assert same_bits(sh.update(lay(queries), lay(patterns), 2.0, values=lay(values), **options), plain)
    assert same_bits(
        sh.energy(lay(queries), lay(patterns), 2.0, **options), sh.energy(queries, patterns, 2.0, **options)
    )
    assert same_bits(sh.HopfieldMemory(lay(patterns), 2.0, values=lay(values), **options).update(lay(queries)), plain)


def test_rows_with_gaps(rng):
    """Rows of a wider array: contiguous themselves, but far apart."""
    wide = rng.normal(size=(50, 100)).astype(np.float32)
    queries, patterns = wide[:7, 60:80], wide[:, 3:23]
    assert same_bits(sh.update(queries, patterns, 3.0), sh.update(queries.copy(), patterns.copy(), 3.0))
    skipped = patterns[::-2]
    assert same_bits(sh.update(queries, skipped, 3.0), sh.update(queries.copy(), skipped.copy(), 3.0))
    repeated = np.broadcast_to(queries[0], (5, 20))
    assert same_bits(sh.update(repeated, patterns, 3.0), np.repeat(sh.update(queries[:1], patterns, 3.0), 5, axis=0))
    same = np.broadcast_to(patterns[0], (5, 20))  # one pattern five times
    np.testing.assert_array_equal(sh.associate(queries[0], same).toarray(), np.full((1, 5), np.float32(0.2)))


@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3), (2, 1, 3), (0,), (2, 0)], ids=str)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", sh.Polynomial(4)], ids=name_of)
def test_leading_shapes(leading, separation, rng):
    _, patterns = make(rng, 1, 30, 8)
    queries, values = (
        rng.normal(size=(*leading, 8)).astype(np.float32),
        rng.normal(size=(30, 3)).astype(np.float32),
    )
    flat, options = queries.reshape(-1, 8), {"separation": separation}
    assert same_bits(sh.update(queries, patterns, **options).reshape(-1, 8), sh.update(flat, patterns, **options))
    assert sh.update(queries, patterns, values=values, **options).shape == (*leading, 3)
    weights = sh.associate(queries, patterns, top=30, **options)
    assert weights.shape == (flat.shape[0], 30)
    states, info = sh.retrieve(queries, patterns, max_steps=2, tol=10.0, return_info=True, **options)
    assert states.shape == (*leading, 8)
    for number in (info.steps, info.converged, info.support_size):
        assert np.shape(number) == leading
    if not hasattr(separation, "order"):
        energy = sh.energy(queries, patterns, **options)
        assert np.shape(energy) == leading
        np.testing.assert_array_equal(np.ravel(energy), sh.energy(flat, patterns, **options))
    out = np.empty((*leading, 8), np.float32)
    assert sh.update(queries, patterns, out=out, **options) is out
    assert same_bits(out, sh.update(queries, patterns, **options))


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 3, 16, 17, 255, 256, 257, 1023, 1024, 1025, 2049])
@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", "softmax", sh.Polynomial(3)], ids=name_of)
def test_numbers_of_patterns(m, separation, rng):
    queries, patterns = make(rng, 5, m, 24)
    for similarity in ("dot", "euclidean"):
        if hasattr(separation, "order"):
            queries, patterns = np.abs(queries), np.abs(patterns)
            similarity = "dot"
        check_update(queries, patterns, 8.0, similarity=similarity, separation=separation)
        check_weights(queries, patterns, 8.0, similarity=similarity, separation=separation)


@pytest.mark.parametrize("n", [1, 2, 3, 31, 32, 33, 255, 256, 257, 513, 1025])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_numbers_of_queries(n, separation, rng):
    queries, patterns = make(rng, n, 130, 17)
    check_update(queries, patterns, 4.0, separation=separation)


@pytest.mark.covering(1)
@pytest.mark.parametrize("d", [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 784, 12288])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8], ids=lambda t: t.__name__)
def test_numbers_of_features(d, dtype, rng):
    queries, patterns = make(rng, 6, 40, d, dtype)
    beta = 0.01 if dtype == np.uint8 else 5.0
    for separation in ("sparsemax", "softmax"):
        check_update(queries, patterns, beta, similarity="euclidean", separation=separation)


@pytest.mark.parametrize("v", [1, 2, 9, 64, 1000])
@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", "softmax", sh.Polynomial(4)], ids=name_of)
def test_values(v, separation, rng):
    queries, patterns = make(rng, 12, 300, 21)
    values = rng.normal(size=(300, v)).astype(np.float32)
    for similarity in SIMILARITIES:  # cosine scales the patterns' rows, never the values
        check_update(queries, patterns, 5.0, values=values, similarity=similarity, separation=separation)


def test_no_queries(rng):
    _, patterns = make(rng, 1, 10, 4)
    none, values = np.empty((0, 4), np.float32), np.ones((10, 3), np.float32)
    for separation in ALL_MAPS:
        assert sh.update(none, patterns, separation=separation).shape == (0, 4)
        assert sh.update(none, patterns, values=values, separation=separation).shape == (0, 3)
        assert sh.associate(none, patterns, separation=separation, top=2).shape == (0, 10)
        assert sh.retrieve(none, patterns, separation=separation).shape == (0, 4)
    assert sh.energy(none, patterns).shape == (0,)
    parts = [sh.candidates(none, patterns[:5]), sh.candidates(none, patterns[5:], offset=5)]
    assert sh.merge(parts).weights().shape == (0, 10)


def test_one_pattern(rng):
    pattern = rng.normal(size=(1, 6)).astype(np.float32)
    queries = rng.normal(size=(3, 6)).astype(np.float32)
    for separation in ALL_MAPS:
        # softmax and polynomial: the one weight is e^0 / e^0, or r / r
        np.testing.assert_array_equal(
            sh.update(queries, pattern, 2.0, separation=separation), np.repeat(pattern, 3, axis=0)
        )


# --- beta -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
def test_beta_arrays(separation, rng):
    queries, patterns = make(rng, 6, 50, 10)
    queries = queries.reshape(2, 3, 10)
    for beta in (
        np.array([0.5, 2.0, 8.0]),
        np.array([[1.0], [4.0]]),
        np.array(3.0),
        np.full((2, 3), 2.0),
        [1, 2, 3],
        np.array([1, 2, 3], np.float32),
    ):
        got = check_update(queries, patterns, beta, separation=separation)
        each = np.broadcast_to(np.asarray(beta, float), (2, 3))
        for i in np.ndindex(2, 3):
            assert same_bits(got[i], sh.update(queries[i], patterns, each[i], separation=separation))
        energy = sh.energy(queries, patterns, beta, separation=separation)
        np.testing.assert_allclose(
            energy, reference.energy(queries, patterns, beta, separation=separation), rtol=1e-5, atol=1e-5
        )


def test_beta_cancels_for_the_polynomial(rng):
    queries, patterns = make(rng, 5, 20, 8)
    one, two = (sh.update(queries, patterns, beta, separation=sh.Polynomial(4)) for beta in (1.0, 1e-200))
    assert same_bits(one, two)


# --- energy -----------------------------------------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("separation", ENERGY_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
def test_energy(separation, similarity, dtype, rng):
    queries, patterns = make(rng, 20, 1100, 30, dtype)
    for beta in (0.02, 1.0, 50.0):
        options = {"similarity": similarity, "separation": separation}
        got = sh.energy(queries, patterns, beta, **options)
        want = reference.energy(queries, patterns, beta, **options)
        assert got.shape == (20,)
        # Psi*(beta s) / beta moves by at most as much as the scores do; softmax and large supports use scores
        # of the compute type and sum m of them, in units of 1 / beta. The result is rounded once.
        unit = ROUNDOFF[np.dtype(dtype)]
        e = np.array([score_error(x, patterns, similarity, unit, 8, True) for x in queries])
        assert (np.abs(got - want) <= e + 64 * unit * (np.abs(want) + (1 + np.log(1100)) / beta)).all()


# --- associate --------------------------------------------------------------------------------------


def test_associate_top_and_min_weight(rng):
    queries, patterns = make(rng, 40, 300, 12)
    for separation in ("softmax", "sparsemax", "entmax15", sh.Polynomial(4)):
        options = {"separation": separation, "similarity": "dot"}
        full = sh.associate(queries, patterns, 6.0, top=300, **options).toarray()
        for top in (1, 3, 50, 300, 1000):
            got = sh.associate(queries, patterns, 6.0, top=top, **options).toarray()
            rank = np.argsort(np.argsort(-full, axis=1, kind="stable"), axis=1, kind="stable")
            np.testing.assert_array_equal(got, np.where(rank < top, full, 0))
        for least in (1e-6, 0.01, 0.3):
            got = sh.associate(queries, patterns, 6.0, min_weight=least, **options).toarray()
            np.testing.assert_array_equal(got, np.where(full >= least, full, 0))
        got = sh.associate(queries, patterns, 6.0, top=2, min_weight=0.2, **options)
        assert (np.diff(got.indptr) <= 2).all()
        assert (got.data >= np.float32(0.2)).all()


def test_associate_ties_keep_the_lowest_position():
    patterns = np.ones((9, 3), np.float32)
    got = sh.associate(np.ones((2, 3), np.float32), patterns, top=4)
    np.testing.assert_array_equal(got.toarray() > 0, [[True] * 4 + [False] * 5] * 2)


def test_associate_of_full_support_needs_a_limit(rng):
    queries, patterns = make(rng, 4, 30, 5)
    for separation in ("softmax", sh.Polynomial(2), sh.Entmax(1.0)):
        with pytest.raises(ValueError, match=r"top|min_weight"):
            sh.associate(queries, patterns, separation=separation)


def test_weights_are_what_update_mixes(rng):
    queries, patterns = make(rng, 50, 400, 15)
    for separation in CUTOFF_MAPS:
        weights = sh.associate(queries, patterns, 5.0, separation=separation)
        mixed = weights.toarray().astype(float) @ patterns.astype(float)
        # the same weights, so only the rounding of the result and the order of the sum (in double) differ
        np.testing.assert_allclose(
            sh.update(queries, patterns, 5.0, separation=separation), mixed, rtol=2.0**-23, atol=1e-12
        )


# --- retrieve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ALL_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_retrieve_is_the_update_repeated(separation, similarity, rng):
    queries, patterns = make(rng, 40, 90, 16)
    options = {"similarity": similarity, "separation": separation}
    for steps in (1, 2, 4):
        states = queries
        for _ in range(steps):
            states = sh.update(states, patterns, 4.0, **options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            got, info = sh.retrieve(queries, patterns, 4.0, max_steps=steps, tol=0.0, return_info=True, **options)
        settled = info.converged
        assert [w.category for w in caught] == ([] if settled.all() else [sh.RetrievalWarning])
        assert same_bits(got[~settled], states[~settled])
        np.testing.assert_array_equal(info.steps[~settled], steps)
        assert (info.steps <= steps).all()
        # a query that moved by exactly 0 is a fixed point: more updates change nothing
        assert same_bits(got[settled], sh.update(got, patterns, 4.0, **options)[settled])


def test_retrieve_against_the_reference(rng):
    """In an exact basin both end at the very pattern, after the same number of steps."""
    patterns = rng.normal(size=(200, 30))
    queries = (patterns[:50] + 0.4 * rng.normal(size=(50, 30))).astype(np.float32)
    patterns = patterns.astype(np.float32)
    for separation in ("sparsemax", "entmax15"):
        options = {"similarity": "euclidean", "separation": separation}
        states, info = sh.retrieve(queries, patterns, 20.0, return_info=True, **options)
        wanted, want = reference.retrieve(queries, patterns, 20.0, return_info=True, **options)
        np.testing.assert_array_equal(states, wanted.astype(np.float32))
        np.testing.assert_array_equal(states, patterns[:50])
        np.testing.assert_array_equal(info.steps, want.steps)
        np.testing.assert_array_equal(info.support_size, 1)
        assert info.converged.all()
        assert info.converged.dtype == bool
        assert info.steps.dtype == info.support_size.dtype == np.int64


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
def test_settling(dtype, rng):
    """A query has settled when a step moves it by at most tol max|xi|; the default is 4 eps of the type."""
    patterns = rng.normal(size=(30, 8)).astype(dtype)
    queries = rng.normal(size=(20, 8)).astype(dtype)
    longest = np.linalg.norm(patterns.astype(float), axis=1).max()
    for tol in (None, 1e-3, 0.0):
        reach = (4 * np.finfo(dtype).eps if tol is None else tol) * longest
        states, info = sh.retrieve(queries, patterns, 0.5, max_steps=20_000, tol=tol, return_info=True)
        assert info.converged.all()
        most = int(info.steps.max())
        before, moved = queries, np.full(20, np.inf)
        for step in range(1, most + 1):
            after = sh.update(before, patterns, 0.5)
            moves = np.linalg.norm(after.astype(float) - before.astype(float), axis=1)
            moving = info.steps >= step
            assert (moves[moving & (info.steps > step)] > reach * (1 - 1e-6)).all()
            moved = np.where(info.steps == step, moves, moved)
            before = np.where(moving[:, None], after, before)
        assert (moved <= reach * (1 + 1e-6)).all()
        assert same_bits(states, before)


def test_unsettled_queries_give_one_warning():
    # xi = +-1, beta = 1/4: T(x) = x / 2 for ever
    queries, patterns = np.ones((5, 1)), np.array([[1.0], [-1.0]])
    with pytest.warns(sh.RetrievalWarning) as caught:
        states, info = sh.retrieve(queries, patterns, 0.25, max_steps=7, return_info=True)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(states, 2.0**-7)
    np.testing.assert_array_equal(info.steps, 7)
    assert not info.converged.any()


def test_no_steps(rng):
    queries, patterns = make(rng, 5, 10, 4)
    out = np.empty_like(queries)
    for options in ({}, {"out": out}, {"return_info": True}):
        with quiet():
            got = sh.retrieve(queries, patterns, max_steps=0, **options)
        if options.get("return_info"):
            got, info = got
            np.testing.assert_array_equal(info.steps, 0)
        assert same_bits(got, queries)
        assert got is not queries
    assert same_bits(out, queries)


def test_retrieve_with_values(rng):
    """The iteration runs on the patterns; the result is the values under the last association."""
    queries, patterns = make(rng, 20, 60, 12)
    values = rng.normal(size=(60, 4)).astype(np.float32)
    for separation in ("sparsemax", "softmax", "entmax15"):
        options = {"separation": separation, "similarity": "euclidean"}
        plain, first = sh.retrieve(queries, patterns, 30.0, return_info=True, **options)
        result, info = sh.retrieve(queries, patterns, 30.0, values=values, return_info=True, **options)
        assert result.shape == (20, 4)
        np.testing.assert_array_equal(info.steps, first.steps)
        assert same_bits(info.states, plain)
        # the state before the last update, by its number of steps, gives the association
        for steps in np.unique(info.steps):
            which = info.steps == steps
            with quiet():
                last = sh.retrieve(queries[which], patterns, 30.0, max_steps=int(steps) - 1, tol=0.0, **options)
            np.testing.assert_allclose(
                result[which],
                sh.update(last, patterns, 30.0, values=values, **options),
                rtol=0,
                atol=1e-6 if separation == "softmax" else 0,
            )


def test_information_asked_for(rng):
    queries, patterns = make(rng, 15, 40, 10)
    states, info = sh.retrieve(queries, patterns, 10.0, return_info=True)
    assert info.weights is None
    assert info.energy is None
    again, info = sh.retrieve(queries, patterns, 10.0, return_info=("weights", "energy"))
    assert same_bits(states, again)
    np.testing.assert_allclose(info.energy, sh.energy(states, patterns, 10.0), rtol=1e-6, atol=1e-6)
    assert info.weights.shape == (15, 40)
    np.testing.assert_array_equal(np.diff(info.weights.indptr), info.support_size)
    np.testing.assert_allclose(info.weights.toarray() @ patterns, states, rtol=1e-5, atol=1e-6)
    assert isinstance(info, sh.RetrievalInfo)


# --- out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_out(dtype, separation, rng):
    queries, patterns = make(rng, 9, 50, 14, dtype)
    values = rng.normal(size=(50, 6)).astype(dtype)
    options = {"separation": separation, "similarity": "euclidean"}
    for given, width in ((None, 14), (values, 6)):
        for call in (sh.update, sh.retrieve):
            want = call(queries, patterns, 20.0, values=given, **options)
            outs = [
                np.empty((9, width), dtype),
                np.empty((width, 9), dtype).T,
                np.empty((18, 2 * width), dtype)[::2, ::2],
                np.empty((9, width), dtype)[::-1, ::-1],
            ]
            for out in outs:
                out[...] = 9
                assert call(queries, patterns, 20.0, values=given, out=out, **options) is out
                assert same_bits(out, want)


# --- partial results --------------------------------------------------------------------------------


def split(m, cuts):
    """Give the slices between the cuts."""
    edges = [0, *cuts, m]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]


@pytest.mark.parametrize("separation", CUTOFF_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_merging_parts_gives_the_whole(separation, similarity, rng):
    queries, patterns = make(rng, 30, 500, 13)
    values = rng.normal(size=(500, 3)).astype(np.float32)
    options = {"similarity": similarity, "separation": separation}
    whole = sh.candidates(queries, patterns, 4.0, **options)
    weights = sh.associate(queries, patterns, 4.0, **options)
    assert same_bits(whole.weights(), weights)
    states = sh.update(queries, patterns, 4.0, **options)
    mixed = sh.update(queries, patterns, 4.0, values=values, **options)
    assert same_bits(sh.candidates(queries, patterns, 4.0, values=values, **options).states(values), mixed)
    assert same_bits(whole.states(patterns), states)
    with pytest.raises(ValueError, match=r"^values:"):  # a part keeps positions, not rows
        whole.states()
    for cuts in ([250], [1], [499], [100, 101, 400], sorted(rng.integers(1, 500, size=12).tolist())):
        parts = [sh.candidates(queries, patterns[s], 4.0, offset=s.start, **options) for s in split(500, cuts)]
        merged = sh.merge(parts)
        assert isinstance(merged, sh.Candidates)
        assert same_bits(merged.weights(), weights)
        assert same_bits(merged.states(patterns), states)
        # in any order, and by pairs
        assert same_bits(sh.merge(parts[::-1]).weights(), weights)
        by_pairs = parts[0]
        for part in parts[1:]:
            by_pairs = sh.merge([by_pairs, part])
        assert same_bits(by_pairs.weights(), weights)


@pytest.mark.parametrize("separation", ["softmax", sh.Polynomial(4), sh.Entmax(1.0)], ids=name_of)
def test_merging_parts_of_full_support(separation, rng):
    queries, patterns = make(rng, 20, 300, 13)
    values = rng.normal(size=(300, 5)).astype(np.float32)
    for given in (None, values):
        want = sh.update(queries, patterns, 4.0, values=given, separation=separation)
        for cuts in ([150], [1], [7, 8, 200]):
            parts = [
                sh.candidates(
                    queries,
                    patterns[s],
                    4.0,
                    values=None if given is None else given[s],
                    separation=separation,
                    offset=s.start,
                )
                for s in split(300, cuts)
            ]
            # sums of 300 terms in another order
            np.testing.assert_allclose(sh.merge(parts).states(), want, rtol=0, atol=300 * 2.0**-24 * 4)


# --- HopfieldMemory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15", sh.Polynomial(4)], ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("with_values", [False, True])
def test_memory_gives_what_the_functions_give(separation, similarity, with_values, rng):
    queries, patterns = make(rng, 20, 150, 18)
    values = rng.normal(size=(150, 4)).astype(np.float32) if with_values else None
    options = {"similarity": similarity, "separation": separation}
    memory = sh.HopfieldMemory(patterns, 6.0, values=values, **options)
    assert same_bits(memory.update(queries), sh.update(queries, patterns, 6.0, values=values, **options))
    again = pickle.loads(pickle.dumps(memory))
    assert same_bits(again.update(queries), memory.update(queries))
    assert same_bits(memory.associate(queries, top=5), sh.associate(queries, patterns, 6.0, top=5, **options))
    if not hasattr(separation, "order"):
        assert same_bits(memory.energy(queries), sh.energy(queries, patterns, 6.0, **options))
        states, info = memory.retrieve(queries, return_info=True)
        wanted, want = sh.retrieve(queries, patterns, 6.0, values=values, return_info=True, **options)
        assert same_bits(states, wanted)
        np.testing.assert_array_equal(info.steps, want.steps)
    else:
        with pytest.raises(ValueError, match=r"(?i)polynomial|energy"):
            memory.energy(queries)
    part, want = memory.candidates(queries), sh.candidates(queries, patterns, 6.0, values=values, **options)
    mixed = () if part.mixture is not None else (patterns if values is None else values,)
    assert same_bits(part.states(*mixed), want.states(*mixed))
    out = np.empty_like(memory.update(queries))
    assert memory.update(queries, out=out) is out
    assert same_bits(out, memory.update(queries))
    memory.verify()


def test_memory_properties(rng):
    queries, patterns = make(rng, 3, 25, 6)
    memory = sh.HopfieldMemory(patterns, 2.0, similarity="euclidean")
    assert len(memory) == 25
    assert memory.shape == (25, 6)
    assert memory.dtype == np.float32
    assert memory.nbytes >= patterns.nbytes
    np.testing.assert_array_equal(memory.patterns, patterns)
    np.testing.assert_array_equal(memory.values, patterns)
    assert memory.beta == 2.0
    assert memory.similarity == "euclidean"
    assert "sparsemax" in str(memory.separation)
    memory.beta = 9.0
    assert same_bits(memory.update(queries), sh.update(queries, patterns, 9.0, similarity="euclidean"))
    memory.separation = "softmax"
    assert same_bits(
        memory.update(queries),
        sh.update(queries, patterns, 9.0, similarity="euclidean", separation="softmax"),
    )
    with pytest.raises(AttributeError):
        memory.similarity = "dot"
    for bad, value in (("beta", -1.0), ("beta", np.nan), ("separation", "sparsmax")):
        with pytest.raises(ValueError, match=rf"^{bad}:"):
            setattr(memory, bad, value)
    assert memory.beta == 9.0
    assert memory.separation == "softmax"
    assert "25" in repr(memory)


def test_memory_of_bytes_stays_bytes(rng):
    queries, patterns = make(rng, 5, 40, 9, np.uint8)
    memory = sh.HopfieldMemory(patterns, 0.1)
    assert memory.patterns.dtype == np.uint8
    assert memory.nbytes < 40 * 9 * 4 + 40 * 64
    assert same_bits(memory.update(queries), sh.update(queries, patterns, 0.1))


FLIPPED_TYPES = [np.float64, np.float32, np.float16, np.uint8]


@pytest.mark.parametrize("dtype", FLIPPED_TYPES)
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_verify_notices_whatever_is_flipped(dtype, data):
    """Any bits of patterns and values, such as the signs of an even number of them that lie apart by a power of two."""
    m, d, v = data.draw(st.tuples(st.integers(2, 4), st.integers(1, 90), st.integers(1, 9)))
    fill = data.draw(st.integers(0, 1))
    patterns, values = (np.full((m, width), fill, dtype) for width in (d, v))
    memory = sh.HopfieldMemory(patterns, values=values)
    memory.verify()
    step, last = data.draw(st.sampled_from([1, 2, 4, 8, 16])), patterns.itemsize - 1
    places = st.tuples(st.integers(0, m - 1), st.integers(0, (d - 1) // step))
    bits = st.just(8 * last + 7) if data.draw(st.booleans()) else st.integers(0, 8 * last + 7)
    of_patterns = data.draw(st.sets(st.tuples(places, bits), min_size=1, max_size=8))
    of_values = data.draw(st.sets(st.tuples(st.tuples(st.integers(0, m - 1), st.integers(0, v - 1)), bits), max_size=4))
    for array, apart, flips in ((patterns, step, of_patterns), (values, 1, of_values)):
        for (row, place), bit in flips:
            array[row, place * apart : place * apart + 1].view(np.uint8)[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match=r"^patterns: the array was changed"):
        memory.verify()


@pytest.mark.parametrize("dtype", FLIPPED_TYPES)
def test_verify_notices_what_changes_places(dtype, rng):
    patterns, values = (rng.permutation(200)[:180].reshape(6, 30).astype(dtype) for _ in range(2))
    kept = patterns.copy(), values.copy()
    memory = sh.HopfieldMemory(patterns, values=values)
    columns = np.arange(30)
    columns[[3, 17]] = 17, 3
    for changed in (
        (kept[0][[0, 4, 2, 3, 1, 5]], kept[1]),
        (kept[0][:, columns], kept[1]),
        (np.roll(kept[0], 1, axis=0), kept[1]),
        (np.roll(kept[0], 8, axis=1), kept[1]),
        (kept[0], kept[1][::-1]),
        kept[::-1],
    ):
        np.copyto(patterns, changed[0])
        np.copyto(values, changed[1])
        with pytest.raises(ValueError, match=r"^patterns: the array was changed"):
            memory.verify()
        np.copyto(patterns, kept[0])
        np.copyto(values, kept[1])
        memory.verify()


def test_memory_borrows_or_copies(rng):
    queries, patterns = make(rng, 4, 30, 7)
    borrowed = sh.HopfieldMemory(patterns)
    assert np.shares_memory(borrowed.patterns, patterns)
    copied = sh.HopfieldMemory(patterns, copy=True)
    assert not np.shares_memory(copied.patterns, patterns)
    before = copied.update(queries)
    patterns[3] += 1  # by its owner, who should not
    assert same_bits(copied.update(queries), before)
    copied.verify()
    with pytest.raises(ValueError, match=r"patterns"):
        borrowed.verify()
    forced = sh.HopfieldMemory(np.asfortranarray(patterns))
    np.testing.assert_array_equal(forced.patterns, patterns)
    with pytest.raises(ValueError, match=r"^copy:|^patterns:"):
        sh.HopfieldMemory(np.asfortranarray(patterns), copy=False)


def test_memory_keeps_what_it_borrows(rng):
    queries, patterns = make(rng, 4, 30, 7)
    want = sh.update(queries, patterns)
    memory = sh.HopfieldMemory(patterns.copy())
    junk = [np.full((30, 7), i, np.float32) for i in range(50)]
    assert same_bits(memory.update(queries), want)
    del junk


def test_full_structure_is_none(rng):
    queries, patterns = make(rng, 2, 9, 4)
    for call in (sh.update, sh.energy, sh.retrieve):
        assert same_bits(call(queries, patterns, structure=Full()), call(queries, patterns))
    with pytest.raises(TypeError, match=r"structure: .* did you mean Full\(\)"):
        sh.update(queries, patterns, structure=Full)


# --- threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["softmax", sh.Polynomial(4)], ids=name_of)
def test_full_support_is_the_same_for_any_number_of_threads(separation, rng):
    queries, patterns = make(rng, 300, 2100, 20)
    results = []
    for n in (1, 2, 3):
        with threads(n):
            results.append(sh.update(queries, patterns, 3.0, separation=separation))
            results.append(sh.update(queries[:1], patterns, 3.0, separation=separation))
    assert same_bits(results[0], results[2])
    assert same_bits(results[0], results[4])
    assert same_bits(results[1], results[3])
    assert same_bits(results[1], results[5])


@pytest.mark.parametrize("top", [None, 5])
def test_negative_weights_are_listed(top):
    """Compare with the map of the scores: odd polynomials have negative weights, which mix like others."""
    x, q = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 0.5]])
    structure = None if top else structures.Window(1, positions=[1])  # sees the first three
    separation = sh.Polynomial(3)
    p = sh.associate(q, x, separation=separation, top=top, structure=structure)
    np.testing.assert_allclose(p.toarray(), sh.polynomial(q @ x.T, 3), rtol=1e-12)
    np.testing.assert_allclose(p @ x, sh.update(q, x, separation=separation, structure=structure), rtol=1e-12)
