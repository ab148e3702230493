"""The index may only make retrieval faster: every path of the engine gives the bits of the scan.

`_core._path` forces a path for maps with a cutoff: the scan of all patterns, "lines" (codes of a rotation in one
cache line a pattern, then a second, longer line), "columns" (codes of all columns), or the engine's own choice,
"auto". Forced, a path is taken where the engine would never choose it: few patterns, no structure, ties by the
hundred, numbers of all sizes. Where a support has more than 1,024 patterns bits are not promised, but bounds are.
"""

import copy
import functools
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from helpers import (
    FLOATS,
    LAYOUTS,
    SIMILARITIES,
    TABLE_MAPS,
    alpha_of,
    betas_for,
    bits_at_level,
    cutoff,
    digest,
    distance,
    exact_entmax,
    exact_scores,
    exact_sparsemax,
    families,
    hook,
    name_of,
    path,
    patterns_for,
    quiet,
    same_bits,
    score_error,
    state_bounds,
    threads,
    weight_bounds,
    weight_error,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import sparsehopfield as sh
from sparsehopfield import _core, reference

PATHS = ["scan", "lines", "columns", "auto"]
OTHERS = PATHS[1:]
MAPS = ["sparsemax", "entmax15", sh.Entmax(1.25), sh.Entmax(3.0), *TABLE_MAPS]
FEWER = ["dot", "euclidean", pytest.param("cosine", marks=pytest.mark.slow)]


def results(memory, queries, steps=4):
    """Give name -> bits of everything that a memory answers; and the sizes of the supports."""
    weights = memory.associate(queries)
    found = {"associate": digest(weights), "update": digest(memory.update(queries))}
    with quiet():
        states, info = memory.retrieve(queries, max_steps=steps, tol=0.0, return_info=True)
    found["retrieve"] = digest(states, info.states)
    found["info"] = digest(info.steps, info.converged.view(np.uint8), info.support_size)
    try:
        found["energy"] = digest(np.asarray(memory.energy(queries)))
    except OverflowError as error:  # one beyond the type is refused, on every path
        found["energy"] = str(error)
    return found, np.diff(weights.indptr)


def compare(queries, patterns, betas, maps=("sparsemax",), paths=OTHERS, steps=4, **options):
    """Ask one memory on all paths, with all temperatures and maps, and compare with the scan. Give the supports."""
    memory = sh.HopfieldMemory(patterns, **options)
    fresh, sizes = sh.HopfieldMemory(patterns, **options), []  # never has an index
    for beta, separation in itertools.product(betas, maps):
        for m in (memory, fresh):
            m.beta, m.separation = beta, separation
        with path("scan"):
            want, support = results(fresh, queries, steps)
        assert support.max(initial=0) <= 1024, "beyond what is promised"
        sizes.append(support)
        for name in paths:
            with path(name):
                got, _ = results(memory, queries, steps)
            assert got == want, (name, beta, separation, options)
    return np.concatenate(sizes)


def clustered(m, d, n, dtype=np.float32, seed=0):
    """Draw patterns in clusters near a subspace, as an index likes them, and queries near some of them."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.normal(size=(d, min(d, 12))))[0]
    centres = 2 * rng.normal(size=(max(1, m // 12), frame.shape[1]))
    noise = 0.3 * min(1.0, (40 / d) ** 0.5)  # so that supports are alike for all d
    patterns = centres[rng.integers(len(centres), size=m)] @ frame.T + noise * rng.normal(size=(m, d))
    queries = patterns[rng.integers(m, size=n)] + noise * rng.normal(size=(n, d))
    return queries.astype(dtype), patterns.astype(dtype)


def betas(queries, patterns, similarity, factors):
    """Give inverse temperatures in units of one over the spread of the scores."""
    scores = reference.canonical_scores(queries[:20], patterns, similarity)
    spread = float(np.median(scores.max(axis=1) - scores.min(axis=1)))
    return [min(f / (spread or 1.0), 1e300) for f in factors]


def test_the_hook():
    first = _core._path("scan")
    try:
        assert first in PATHS
        for before, after in itertools.pairwise(["scan", *OTHERS]):
            assert _core._path(after) == before
    finally:
        _core._path(first)
    with pytest.raises(ValueError, match="path"):
        _core._path("shortcut")
    assert _core._path(first) == first


# --- P1: shapes -------------------------------------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("m", [1, 2, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 4095, 4096, 4097, 9000])
def test_numbers_of_patterns(m, similarity):
    """Around the edges of tiles and groups, and fewer patterns than columns of a code."""
    k = m + SIMILARITIES.index(similarity)
    queries, patterns = clustered(m, 70, (5, 66, 3)[k % 3], FLOATS[k // 3 % 2], seed=m)
    chosen = betas(queries, patterns, similarity, [5.0, 60.0] if m < 500 else [60.0])
    with threads(1 + k % 2):
        compare(queries, patterns, chosen, MAPS if m < 500 else MAPS[k % 3 :: 3], similarity=similarity, steps=2)


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 31, 55, 56, 57, 64, 100, 247, 248, 249, 300, 784])
def test_numbers_of_features(d, dtype):
    """Around the columns of the codes."""
    similarity = SIMILARITIES[d % 3] if d > 1 else "euclidean"
    queries, patterns = clustered(530, d, 17, dtype, seed=d)
    chosen = betas(queries, patterns, similarity, [8.0, 100.0])
    with threads(1 + d % 2):
        sizes = compare(queries, patterns, chosen, [MAPS[d % 2], MAPS[2 + d % 2]], similarity=similarity, steps=2)
    assert sizes.max() > 1


@pytest.mark.covering(1)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 63, 64, 65, 300, 770])
def test_numbers_of_queries(n, count):
    """Around groups and blocks of queries; few queries take ways of their own."""
    queries, patterns = clustered(2100, 90, max(n, 1), seed=n)
    with threads(count):
        compare(queries[:n], patterns, betas(queries, patterns, "dot", [40.0]), ["sparsemax", "entmax15"], steps=2)


@pytest.mark.parametrize("name", OTHERS)
def test_one_query_as_a_vector(name):
    queries, patterns = clustered(1500, 60, 4)
    memory = sh.HopfieldMemory(patterns, 0.5)
    with path("scan"):
        want = memory.update(queries)
        energies = memory.energy(queries)
    with path(name):
        for x, state, energy in zip(queries, want, energies, strict=True):
            assert same_bits(memory.update(x), state)
            assert memory.energy(x) == energy
            assert same_bits(sh.update(x, patterns, 0.5), state)  # an index for one call
        assert same_bits(memory.update(queries.reshape(2, 2, -1)), want.reshape(2, 2, -1))


@pytest.mark.parametrize("name", OTHERS)
def test_threads_batches_and_orders(name):
    queries, patterns = clustered(5000, 130, 260)
    memory = sh.HopfieldMemory(patterns, 0.4, similarity="euclidean")
    with path("scan"):
        want = memory.update(queries)
        assert 1 < np.diff(memory.associate(queries).indptr).max() <= 1024
    order = np.random.default_rng(1).permutation(len(queries))
    with path(name):
        for count in (1, 2, 3, 8):
            with threads(count):
                assert same_bits(memory.update(queries), want)
        assert same_bits(np.concatenate([memory.update(q) for q in np.array_split(queries, 7)]), want)
        assert same_bits(memory.update(queries[order]), want[order])
        order = np.random.default_rng(2).permutation(len(patterns))
        mixed = sh.HopfieldMemory(patterns[order], 0.4, similarity="euclidean").associate(queries)
        assert same_bits(mixed.toarray()[:, np.argsort(order)], memory.associate(queries).toarray())


def bits():
    """Hash results on all paths, with codes of both kinds: for processes with other instructions."""
    found = {}
    for name in PATHS:
        with path(name):
            for d, dtype in ((40, np.float32), (300, np.float32), (120, np.float64)):
                queries, patterns = clustered(1300, d, 70, dtype)
                memory = sh.HopfieldMemory(patterns, 0.3, similarity="euclidean")
                found[f"{name} {d}"] = results(memory, queries)[0]
            for family, (x, xi) in itertools.islice(hostile(np.float32).items(), 0, None, 3):
                found[f"{name} {family}"] = digest(sh.update(x, xi, betas(x, xi, "dot", [30.0])[0]))
    return found


LEVELS = ["base", "avx2", "avx512", "vnni"]


@pytest.fixture(scope="module")
def own_bits():
    found = bits()
    for key in found:
        assert found[key] == found["scan " + key.split(" ", 1)[1]], key
    return found


# The least level; this process has the best, and test_exactness asks the others.
@pytest.mark.parametrize("level", ["base", *(pytest.param(x, marks=pytest.mark.depth) for x in LEVELS[1:])])
def test_bits_do_not_depend_on_the_instruction_set(level, own_bits):
    assert bits_at_level("test_screening", level) == own_bits


# --- P1: data made to break a filter ----------------------------------------------------------------


@functools.cache
def hostile(dtype, m=300, d=120, n=9):
    """Give name -> (queries, patterns): worse for codes and rotations than for a scan."""
    rng = np.random.default_rng(11)

    def gauss(*shape):
        return rng.normal(size=shape)

    base, low = gauss(m, d), gauss(m, 8) @ gauss(8, d)
    near = base[rng.integers(m, size=n)] + 0.3 * gauss(n, d)
    # All that tells patterns apart lies where none of them varies much, and that is where the queries look.
    basis = np.linalg.qr(gauss(d, d))[0]
    discarded = gauss(m, d) * np.where(np.arange(d) < d - 10, 1.0, 1e-4)
    looking = gauss(n, d) * np.where(np.arange(d) < d - 10, 1e-4, 1.0)
    flat = np.repeat(gauss(5, d), m // 5, axis=0)
    flat[:, -1] = 1e-3 * gauss(len(flat))
    spike = base.copy()
    spike[rng.integers(m, size=d), np.arange(d)] = 1e4  # a step of a column's code for its one large number
    column = base * 10.0 ** rng.integers(-6, 7, size=d)
    lattice = rng.integers(-3, 4, size=(m, d))
    halves = near.copy()
    halves[:, d // 2 :] = 0
    empty = base.copy()
    empty[:, ::2] = 0
    orthogonal = gauss(n, d)
    orthogonal[:, 1::2] = 0
    info = np.finfo(dtype)
    line = np.linspace(-1, 1, m)[:, None] * gauss(d)
    made = {
        "Gaussian, unrelated": (gauss(n, d), base),
        "discarded subspace": (looking @ basis.T, discarded @ basis.T),
        "one small coordinate decides": (np.eye(d)[[-1] * n] * (1 + np.abs(gauss(n, 1))), flat),
        "spikes": (near, spike),
        "columns of all sizes": (near / 10.0 ** rng.integers(-6, 7, size=d), column),
        "norms from 1e-18 to 1e18": (near, base * 10.0 ** rng.integers(-18, 19, size=(m, 1))),
        "norms of queries from 1e-18 to 1e18": (near * 10.0 ** np.linspace(-18, 18, n)[:, None], base),
        "rank 8": (near, low),
        "a line": (gauss(n, d), line),
        "duplicates": (near, base[rng.integers(7, size=m)]),
        "near-duplicates": (
            near,
            base[rng.integers(7, size=m)] * (1 + 2 * float(info.eps) * rng.integers(-2, 3, size=(m, d))),
        ),
        "all the same": (near, np.repeat(base[:1], m, axis=0)),
        "a lattice": (rng.integers(-3, 4, size=(n, d)), lattice),
        "signs": (np.sign(near), np.sign(base)),
        "one-hot": (near, np.eye(d)[rng.integers(d, size=m)]),
        "queries that are patterns": (low[:n], low),
        "zero queries": (near * (np.arange(n) % 2)[:, None], base),
        "zero in half of the columns": (halves, low + 0.1 * base),
        "queries orthogonal to everything": (orthogonal, empty),
        "zero patterns": (near, np.zeros((m, d))),
        "some zero patterns": (near, base * (rng.random((m, 1)) < 0.5)),
        "far from the origin": (1e4 + gauss(n, d), 1e4 + base),
        "far, and hardly apart": (1e4 + 0.01 * gauss(n, d), 1e4 + 0.01 * base),
        "far queries only": (1e5 + gauss(n, d), base),
        "negative scores": (-np.abs(near), np.abs(base)),
        "subnormal": (near, base * float(info.smallest_subnormal) * 50),
        "subnormal and not": (near, base * np.where(np.arange(m) % 2, 1.0, float(info.tiny) / 8)[:, None]),
        "subnormal queries": (near * float(info.smallest_subnormal) * 50, base),
        "only large": (near * 1e15, base * 1e15),
        "opposites": (near, np.concatenate([base[: m // 2], -base[: m // 2]])),
        "fewer patterns than columns": (near, base[:9]),
        "one pattern": (near, base[:1]),
        "grey levels": (np.clip(128 + 60 * near, 0, 255).round() / 255, np.clip(128 + 60 * low, 0, 255).round() / 255),
    }
    return {name: (np.ascontiguousarray(q, dtype), np.ascontiguousarray(x, dtype)) for name, (q, x) in made.items()}


@pytest.mark.covering(1)
@pytest.mark.parametrize(
    ("similarity", "dtype"),
    [
        ("dot", np.float32),
        pytest.param("euclidean", np.float32, marks=pytest.mark.slow),
        pytest.param("cosine", np.float32, marks=pytest.mark.slow),
        (None, np.float64),
    ],
)
@pytest.mark.parametrize("family", hostile(np.float32))
def test_hostile_data(family, similarity, dtype):
    number = list(hostile(dtype)).index(family)
    similarity = similarity or SIMILARITIES[number % 3]
    queries, patterns = hostile(dtype)[family]
    patterns = patterns_for(similarity, patterns)
    if similarity == "cosine" and not len(patterns):
        pytest.skip("cosine: zero patterns have none")
    try:
        sh.HopfieldMemory(patterns, similarity=similarity)
    except OverflowError:  # squares beyond float32
        assert (similarity, dtype) == ("euclidean", np.float32)
        return
    few, many = betas(queries, patterns, similarity, [3.0, 200.0])
    # from all patterns, by some and few, to the best alone
    compare(queries, patterns, [1e-30, few, many, 1e30], similarity=similarity, steps=2)
    separation = MAPS[1 + number % 3]
    with threads(1):
        compare(queries, patterns, [few, many], [separation], similarity=similarity, steps=1)


@pytest.mark.covering(1)
@pytest.mark.parametrize("rank", [9, 55, 56, 57, 247, 248, 249])
@pytest.mark.parametrize("scale", [1.0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1e-4, 1e4))])
def test_bounds_that_are_met(rank, scale):
    """Patterns in a subspace and along one direction beyond it, where queries look: what is left out is parallel.

    Then the bound by the lengths of what is left out is the score itself, and only its slack keeps the pattern.
    """
    rng = np.random.default_rng(rank)
    m, d = 400, 300
    basis = np.linalg.qr(rng.normal(size=(d, rank + 1)))[0]
    within, beyond = rng.normal(size=(m, rank)), 0.1 * np.abs(rng.normal(size=(m, 1)))
    beyond[: m // 2] = 1 + 1e-7 * rng.integers(-3, 4, size=(m // 2, 1))  # near-ties for the best
    dtype = np.float64 if rank in (55, 248) else np.float32
    patterns = (np.concatenate([within, beyond], axis=1) @ basis.T * scale).astype(dtype)
    queries = (np.array([[1e-3], [1.0], [1e3]]) @ basis[:, -1:].T).astype(dtype)
    for similarity in ("dot", "euclidean"):
        chosen = betas(queries, patterns, similarity, [1.2, 1e7])
        compare(queries, patterns, chosen, similarity=similarity, steps=1)


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", FEWER)
@pytest.mark.parametrize("family", families())
def test_families_of_the_scan(family, similarity):
    for dtype in FLOATS:
        queries, patterns = families(dtype, m=70, d=35, n=7)[family]
        patterns = patterns_for(similarity, patterns)
        chosen = betas_for(queries, patterns, similarity)
        compare(queries, patterns, chosen, ["sparsemax", "entmax15"], similarity=similarity, steps=2)


@pytest.mark.slow
def test_a_temperature_for_each_query():
    queries, patterns = clustered(900, 80, 130)
    beta = np.random.default_rng(5).choice([0.05, 0.1, 0.3, 2.0, 50.0, 1e30], size=130)
    beta[[0, 64, 129]] = [1e-30, 1e-3, 1e-30]
    for similarity in SIMILARITIES:
        compare(
            queries, patterns, [beta], ["sparsemax", MAPS[1 + SIMILARITIES.index(similarity)]], similarity=similarity
        )


def test_queries_of_all_kinds_in_one_batch():
    """What is chosen or left out for some queries must be right for the others."""
    queries, patterns = clustered(1000, 100, 200)
    rng = np.random.default_rng(6)
    queries[20:40, 50:] = 0
    queries[40:60, :50] = 0
    queries[60:70] = 0
    queries[70:90] = 100 * rng.normal(size=(20, 100))
    queries[90:100] = patterns[:10]
    queries[100:110] *= 1e-20
    queries[110:120] *= 1e15
    queries[120:130] = -queries[:10]
    queries[130:200] = queries[130:131]
    for similarity in SIMILARITIES:
        compare(queries, patterns, betas(queries, patterns, similarity, [30.0]), MAPS[:2], similarity=similarity)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    queries, patterns = clustered(700, 66, 40)
    want, _ = results(sh.HopfieldMemory(patterns, 0.3), queries)
    memory = sh.HopfieldMemory(LAYOUTS[layout](patterns), 0.3)
    for name in PATHS:
        with path(name):
            assert results(memory, LAYOUTS[layout](queries))[0] == want


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_bytes(similarity):
    rng = np.random.default_rng(9)
    codes = np.clip(128 + 40 * (rng.normal(size=(900, 10)) @ rng.normal(size=(10, 90))), 0, 255).astype(np.uint8)
    codes[0] = 1
    queries = codes[:30] * (rng.random((30, 90)) < 0.7).astype(np.float32)
    chosen = betas(queries, codes, similarity, [8.0, 100.0])
    compare(queries, codes, chosen, ["sparsemax", "entmax15"], similarity=similarity)
    memory = sh.HopfieldMemory(codes, chosen[1], similarity=similarity)
    assert memory.patterns.dtype == np.uint8
    with path("lines"):
        got = memory.update(queries)
    assert same_bits(got, sh.update(queries, codes.astype(np.float32), chosen[1], similarity=similarity))


def test_queries_of_another_type_than_the_patterns():
    queries, patterns = clustered(800, 60, 30)
    for x, xi in ((queries.astype(float), patterns), (queries, patterns.astype(float)), (queries, patterns.round())):
        compare(x, xi, [0.3], ["sparsemax", "entmax15"])
    compare((8 * queries).astype(np.int16), (8 * patterns).astype(np.int16), [0.01])


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.depth)], ids=lambda t: t.__name__
)
def test_many_candidates(dtype):
    """Supports of up to all 3,000 patterns: within bounds, and the same bits while they have at most 1,024."""
    rng = np.random.default_rng(8)
    patterns = rng.normal(size=(3000, 12)).astype(dtype)
    queries = rng.normal(size=(5, 12)).astype(dtype)
    memory, sizes = sh.HopfieldMemory(patterns, similarity="euclidean"), []
    for separation in ("sparsemax", sh.Entmax(1.25)):
        options = {"similarity": "euclidean", "separation": separation}
        memory.separation = separation
        for beta in (3.0, 0.3, 0.1, 0.04, 0.02, 0.01, 1e-3, 1e-6, 1e-30):
            memory.beta = beta
            bounds = weight_bounds(queries, patterns, beta, "euclidean", separation, dtype)
            want = reference.associate(queries, patterns, beta, **options)
            limit = state_bounds(bounds, queries, patterns, dtype)
            with path("scan"):
                weights = memory.associate(queries)
                state = memory.update(queries)
            narrow = np.diff(weights.indptr) <= 1024
            sizes += np.diff(weights.indptr).tolist()
            for name in OTHERS:
                with path(name):
                    got, moved = memory.associate(queries), memory.update(queries)
                assert (np.abs(got.toarray() - want).sum(axis=1) <= bounds).all()
                assert (np.abs(moved - want @ patterns.astype(float)).max(axis=1) <= limit).all()
                assert same_bits(got.toarray()[narrow], weights.toarray()[narrow])
                assert same_bits(moved[narrow], state[narrow])
    assert min(sizes) < 100
    assert max(sizes) == 3000
    assert any(200 < s <= 1024 for s in sizes)


@pytest.mark.parametrize("m", [1000, 1024, 1025, 5000])
def test_many_equal_patterns(m):
    patterns = np.tile(np.linspace(1, 2, 70, dtype=np.float32), (m, 1))
    patterns[m // 2 :] *= np.float32(1 - 2.0**-12)  # a second kind, almost as good
    for beta in (1e-9, 1.0, 1e9):
        memory = sh.HopfieldMemory(patterns, beta)
        with path("scan"):
            want = memory.associate(patterns[:2])
        for name in OTHERS:
            with path(name):
                got = memory.associate(patterns[:2])
            assert same_bits(got.indices, want.indices)
            if want.nnz <= 2 * 1024:
                assert same_bits(got, want)
            np.testing.assert_allclose(got.data, want.data, rtol=1e-5)


# --- lists that grow, and what is left to the scan -----------------------------------------------------


@functools.cache
def crowds(dtype=np.float32):
    """Give name -> (queries, patterns, similarity, factors of beta): bounds tell many not apart, so lists grow long."""
    rng = np.random.default_rng(31)
    m, d, n = 2500, 130, 24
    kinds, noise = rng.normal(size=(3, d)), rng.normal(size=(m, d))
    drawn = rng.integers(3, size=m)
    near = kinds[rng.integers(3, size=n)] + 0.3 * rng.normal(size=(n, d))
    cluster = 5 * kinds[0] + 1e-3 * noise
    cluster[::150] = 1e3 * noise[::150]
    blank = kinds[drawn] + noise
    blank[: m // 3] = 0
    made = {
        "duplicates by the thousand": (near, kinds[drawn], "euclidean", [30.0, 1e3]),
        "copies that are nearly equal": (near, kinds[drawn] + 1e-4 * noise, "dot", [30.0, 1e3]),
        "a cluster and far outliers": (cluster[:n] + 1e-2 * rng.normal(size=(n, d)), cluster, "euclidean", [3e9, 1e12]),
        "all equal": (near, np.repeat(kinds[:1], 1000, axis=0), "cosine", [1.0]),
        "a third is zero": (0.1 * near * (np.arange(n) % 2)[:, None], blank, "euclidean", [30.0, 1e3]),
        "without structure": (rng.normal(size=(n, d)), noise, "cosine", [0.15, 30.0]),
    }
    return {name: (q.astype(dtype), x.astype(dtype), *rest) for name, (q, x, *rest) in made.items()}


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("family", crowds())
def test_crowds(family, dtype):
    queries, patterns, similarity, factors = crowds(dtype)[family]
    chosen = betas(queries, patterns, similarity, factors)
    options = {"paths": OTHERS[:2], "similarity": similarity, "steps": 1}
    top = sh.structures.TopK(9)
    most = 0
    for count, rows in ((1, slice(None)), (2, slice(3))):  # few queries for two threads are searched for by ranges
        with threads(count):
            sizes = compare(queries[rows], patterns, chosen, **options)
            compare(queries[rows], patterns, chosen[:1], ["entmax15"], structure=top, **options)
        most = max(most, sizes.max())
    assert most > 100


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_nearest_patterns_of_crowds(similarity):
    """The k best, whatever their weights: ties at the k-th place are decided by position."""
    for queries, patterns, *_ in crowds().values():
        memory = sh.HopfieldMemory(patterns_for(similarity, patterns), similarity=similarity)
        core = memory._snapshot.pattern_set.core(memory.dtype)
        for name in PATHS:
            with path(name):
                found = [_core.nearest(core, queries[:rows], np.ones(rows), 0, 2.0, 9) for rows in (20, 1)]
            if name == "scan":
                want = found
            for got, wanted in zip(found, want, strict=True):
                assert same_bits(got[0], wanted[0])
                assert same_bits(got[1], wanted[1])


@pytest.mark.parametrize("count", [1, 2])
def test_lists_too_long_are_left_to_the_scan(count):
    """Some queries of a batch are, by what they list; each still has the bits that it has alone."""
    rng = np.random.default_rng(33)
    patterns = rng.normal(size=(6000, 130)).astype(np.float32)
    patterns[:3000] *= 0.05  # which queries near zero cannot tell apart
    queries = patterns[rng.integers(6000, size=90)] + 0.1 * rng.normal(size=(90, 130)).astype(np.float32)
    memory = sh.HopfieldMemory(patterns, 3.0, similarity="euclidean")
    order = rng.permutation(90)
    with path("scan"):
        want = memory.update(queries)
        assert np.diff(memory.associate(queries).indptr).max() <= 1024
    with path("lines"), threads(count):
        assert same_bits(memory.update(queries), want)
        assert same_bits(memory.update(queries[order]), want[order])
        assert same_bits(np.stack([memory.update(x) for x in queries[:9]]), want[:9])
        stages = ["bounded" in memory.explain(x).stages for x in queries[:30]]
    assert 0 < sum(stages) < 30


# --- random search for a break ----------------------------------------------------------------------


def exact_support(queries, patterns, similarity):
    """Give the supports at beta = 1 by exact arithmetic."""
    rows = exact_scores(queries, patterns, similarity)
    return [{i for i, p in enumerate(exact_sparsemax(row)[0]) if p > 0} for row in rows]


def agree(queries, patterns, beta, similarity, separation="sparsemax", values=None):
    """Compare all paths with the scan, and the support with that of the reference."""
    memory = sh.HopfieldMemory(patterns, beta, values=values, similarity=similarity, separation=separation)
    with path("scan"):
        want, _ = results(memory, queries)
        weights = memory.associate(queries)
    for name in OTHERS:
        with path(name):
            assert results(memory, queries)[0] == want, name
            assert same_bits(memory.associate(queries), weights)
    p = reference.associate(queries, patterns, beta, similarity=similarity, separation=separation)
    bounds = weight_bounds(queries, patterns, beta, similarity, separation, patterns.dtype)
    # two sets of weights without a common pattern are 2 apart, and the sum that says so is rounded
    assert (np.abs(weights.toarray() - p).sum(axis=1) <= bounds + 2.0**-50).all()
    return weights


small = st.integers(-4, 4).map(lambda v: v / 2)


@given(st.data(), st.integers(1, 12), st.integers(1, 6), st.sampled_from(["dot", "euclidean"]))
def test_small_lattices(data, m, d, similarity):
    """Half-integers, with ties everywhere: scores are exact, so the supports are known exactly."""
    patterns = data.draw(arrays(np.float32, (m, d), elements=small))
    queries = data.draw(arrays(np.float32, (data.draw(st.integers(1, 4)), d), elements=small))
    weights = agree(queries, patterns, 1.0, similarity)
    rows = np.split(weights.indices, weights.indptr[1:-1])
    assert [set(row.tolist()) for row in rows] == exact_support(queries, patterns, similarity)
    reference_rows = reference.associate(queries, patterns, similarity=similarity) > 2.0**-40
    assert [set(np.flatnonzero(row).tolist()) for row in reference_rows] == [set(row.tolist()) for row in rows]


@pytest.mark.slow
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["lattice", "half-integers", "scales", "near", "blocks", "gaussian"]),
    st.integers(1, 400),
    st.integers(1, 320),
    st.integers(1, 40),
    st.sampled_from(["dot", "euclidean"]),
    st.sampled_from(MAPS),
    st.sampled_from([np.float32, np.float64]),
    st.floats(-2, 3),
)
def test_larger_mixtures(seed, kind, m, d, n, similarity, separation, dtype, exponent):
    rng = np.random.default_rng(seed)
    if kind == "lattice":
        patterns, queries = rng.integers(-2, 3, size=(m, d)), rng.integers(-2, 3, size=(n, d))
    elif kind == "half-integers":
        patterns, queries = rng.integers(-6, 7, size=(m, d)) / 2, rng.integers(-1, 2, size=(n, d)) / 2
    elif kind == "scales":  # of patterns, columns and queries
        patterns = rng.normal(size=(m, d)) * 10.0 ** rng.integers(-4, 5, size=(m, 1))
        queries = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-4, 5, size=(n, 1))
        patterns *= 10.0 ** rng.integers(-3, 4, size=d)
    elif kind == "near":
        patterns = rng.normal(size=d) * (1 + float(np.finfo(dtype).eps) * rng.integers(-4, 5, size=(m, d)))
        queries = rng.normal(size=(n, d))
    elif kind == "blocks":  # zeros in most places, other ones in each
        patterns = rng.normal(size=(m, d)) * (rng.random((m, d)) < 0.2)
        queries = rng.normal(size=(n, d)) * (np.arange(d) < rng.integers(1, d + 1))
    else:
        patterns, queries = rng.normal(size=(m, d)) + rng.normal() * 100, rng.normal(size=(n, d))
    patterns, queries = patterns.astype(dtype), queries.astype(dtype)
    beta = betas(queries, patterns, similarity, [10.0**exponent])[0]
    if separation == "sparsemax" or alpha_of(separation) < 2:
        agree(queries, patterns, beta, similarity, separation)
    else:
        compare(queries, patterns, [beta], [separation], similarity=similarity)


# --- P2 and P3 on each path -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("family", families())
def test_one_step_against_exact_arithmetic(family, dtype):
    queries, patterns = families(dtype, m=14, d=11, n=2)[family]
    scores = exact_scores(queries, patterns)
    for separation in ("sparsemax", "entmax15"):
        memory, alpha = sh.HopfieldMemory(patterns, separation=separation), alpha_of(separation)
        for beta in betas_for(queries, patterns, "dot"):
            memory.beta = beta
            found = {}
            for name in PATHS:
                with path(name):
                    found[name] = memory.associate(queries).toarray()
            for row, (query, s) in enumerate(zip(queries, scores, strict=True)):
                z = [Fraction(beta) * v for v in s]
                exact, tau, kappa = exact_entmax(z, alpha)
                bound = weight_error(z, tau, kappa, alpha, beta * score_error(query, patterns, "dot"), dtype)
                for weights in found.values():
                    assert distance(weights[row], exact) <= bound


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_each_step_obeys_the_bound_at_its_own_state(similarity, name):
    rng = np.random.default_rng(21)
    patterns = rng.normal(size=(25, 9)).astype(np.float32)
    start = rng.normal(size=(3, 9)).astype(np.float32)
    memory = sh.HopfieldMemory(patterns, similarity=similarity)
    for beta in (0.2, 1.5):
        memory.beta = beta
        with path(name), quiet():
            states = [memory.retrieve(start, max_steps=t, tol=0.0) for t in range(5)]
            for before, after in itertools.pairwise(states):
                assert same_bits(memory.update(before), after)
                weights = memory.associate(before).toarray()
                for x, s, w in zip(before, exact_scores(before, patterns, similarity), weights, strict=True):
                    z = [Fraction(beta) * v for v in s]
                    exact, tau, kappa = exact_sparsemax(z)
                    spread = beta * score_error(x, patterns, similarity)
                    assert distance(w, exact) <= weight_error(z, tau, kappa, 2.0, spread, np.float32)


@pytest.mark.covering(1)
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("separation", MAPS, ids=name_of)
def test_inside_an_exact_basin_the_stored_bits_come_back(separation, name):
    rng = np.random.default_rng(4)
    for dtype in FLOATS:
        patterns = rng.normal(size=(1100, 60)).astype(dtype)
        queries = (patterns[:90] + 0.3 * rng.normal(size=(90, 60))).astype(dtype)
        scores = np.sort(reference.canonical_scores(queries, patterns, "euclidean"), axis=1)
        error = max(score_error(x, patterns, "euclidean") for x in queries)
        inside = scores[:, -1] - scores[:, -2] > cutoff(separation) + 2 * error
        assert inside.sum() > 50
        memory = sh.HopfieldMemory(patterns, 1.0, similarity="euclidean", separation=separation)
        with path(name):
            assert same_bits(memory.update(queries)[inside], patterns[:90][inside])
            states, info = memory.retrieve(queries, return_info=True)
        assert same_bits(states[inside], patterns[:90][inside])
        assert (info.support_size[inside] == 1).all()


# --- many steps -------------------------------------------------------------------------------------


def trajectory(memory, queries, **options):
    """Give the bits of a retrieval and of all that it says."""
    with quiet():
        states, info = memory.retrieve(queries, return_info=("weights", "energy"), **options)
    bits = digest(states, info.states, info.support_size, info.weights, info.energy)
    return bits, info.steps.tolist(), info.converged.tolist()


@pytest.mark.covering(1)
@pytest.mark.parametrize("separation", MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", FEWER)
def test_trajectories(similarity, separation):
    dtype = FLOATS[(SIMILARITIES.index(similarity) + MAPS.index(separation)) % 2]
    queries, patterns = clustered(900, 70, 90, dtype)
    queries[40:80] = queries[np.random.default_rng(2).integers(40, size=40)]  # duplicates
    queries[80:85] = patterns[:5]
    queries[85] = 0
    factor = 60.0 * cutoff(separation)
    beta = betas(queries, patterns, similarity, [factor])[0] * np.where(np.arange(90) % 3, 1.0, 7.0)
    values = np.random.default_rng(3).normal(size=(900, 5)).astype(dtype)
    most = 0
    for v, b in ((None, beta), (values, beta), (None, float(beta[0]))):
        memory = sh.HopfieldMemory(patterns, b, values=v, similarity=similarity, separation=separation)
        for options in ({"max_steps": 25}, {"tol": 0.0, "max_steps": 5}, {"max_steps": 1}, {"tol": 0.1}):
            found = []
            for name in PATHS:
                with path(name):
                    found.append(trajectory(memory, queries, **options))
            assert found == [found[0]] * len(PATHS)
            most = max(most, *found[0][1])
    assert most > 2


@pytest.mark.parametrize("name", OTHERS)
def test_a_retrieval_is_its_steps(name):
    """Queries that rest leave the batch and bounds are handed on, but each step is an update."""
    queries, patterns = clustered(2000, 50, 150)
    for separation in ("sparsemax", "entmax15"):
        memory = sh.HopfieldMemory(patterns, 0.05, separation=separation)
        states = queries
        for t in range(1, 6):
            with path("scan"):
                states = memory.update(states)
            with path(name), quiet():
                assert same_bits(memory.retrieve(queries, max_steps=t, tol=0.0), states)


def test_parts_merge_to_the_whole():
    queries, patterns = clustered(1500, 60, 40)
    with path("scan"):
        want = sh.associate(queries, patterns, 0.3)
    for first, second in itertools.product(PATHS, PATHS):
        parts = []
        for name, rows in ((first, slice(0, 700)), (second, slice(700, None))):
            with path(name):
                parts.append(sh.candidates(queries, patterns[rows], 0.3, offset=rows.start))
        assert same_bits(sh.merge(parts).weights(), want)


# --- the index as a part of a memory ----------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_an_index_changes_nothing_but_speed(name):
    queries, patterns = clustered(3000, 600, 60)
    memory = sh.HopfieldMemory(patterns, 0.1)
    with path("scan"):
        want, _ = results(memory, queries)
    memory.build_index()
    assert 0 < memory.index_nbytes < 0.5 * patterns.nbytes  # a part of it does not grow with the patterns
    size = memory.nbytes
    memory.build_index()  # there already
    with path(name):
        assert results(memory, queries)[0] == want
        assert memory.index_nbytes < 0.8 * patterns.nbytes
        assert memory.nbytes == size
        memory.verify()
        for other in (pickle.loads(pickle.dumps(memory)), copy.deepcopy(memory)):
            assert results(other, queries)[0] == want
        memory.beta, memory.separation = 3.0, "entmax15"  # the index does not depend on them
        got, _ = results(memory, queries)
        memory.beta, memory.separation = 0.1, "sparsemax"
        assert results(memory, queries)[0] == want
    with path("scan"):
        assert got == results(sh.HopfieldMemory(patterns, 3.0, separation="entmax15"), queries)[0]


@pytest.mark.parametrize("name", OTHERS)
def test_an_index_asked_for_by_several_threads_at_once(name):
    queries, patterns = clustered(3000, 100, 30)
    with path("scan"):
        want = sh.update(queries, patterns, 0.3)
    with path(name), ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            memory = sh.HopfieldMemory(patterns, 0.3)
            for got in pool.map(memory.update, [queries] * 8):
                assert same_bits(got, want)


@pytest.fixture
def failing():
    """The hook that makes an allocation fail, set back afterwards."""
    fail = hook("_fail_allocation")
    yield fail
    fail(-1)


@pytest.mark.parametrize("name", OTHERS)
def test_an_allocation_that_fails_leaves_a_memory_that_works(name, failing):
    queries, patterns = clustered(600, 70, 20)
    with path("scan"):
        want = sh.update(queries, patterns, 0.3)
    with path(name), threads(1):
        failing(-1)
        sh.HopfieldMemory(patterns, 0.3).update(queries)
        made = failing(-1)
        for n in range(made):
            failing(-1)
            memory = None
            failing(n)
            try:
                memory = sh.HopfieldMemory(patterns, 0.3)
                got = memory.update(queries)
            except MemoryError:
                got = want
            failing(-1)
            assert same_bits(got, want)  # an index that there is no room for may be done without
            if memory is not None:
                assert same_bits(memory.update(queries), want)


@pytest.mark.parametrize("name", OTHERS)
def test_results_where_they_are_wanted(name):
    queries, patterns = clustered(900, 64, 12)
    memory = sh.HopfieldMemory(patterns, 0.3)
    want = sh.update(queries, patterns, 0.3)
    with path(name):
        out = np.full_like(queries, np.nan)
        assert memory.update(queries, out=out) is out
        assert same_bits(out, want)
        wide = np.full((12, 128), np.nan, np.float32)[:, ::2]
        memory.update(queries, out=wide)
        assert same_bits(np.ascontiguousarray(wide), want)
        with pytest.raises(ValueError, match=r"^queries:"):
            memory.update(np.where(np.arange(64) == 3, np.nan, queries))
        with pytest.raises(OverflowError, match=r"^queries:"):
            memory.update(queries * np.float32(1e38))
