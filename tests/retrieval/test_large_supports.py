"""Supports of one to several thousand patterns: canonical up to max(1,024, M / 16), whatever the way of a query is.

Up to there every bit is promised: for any batch, number of threads and path, and for patterns in parts. Beyond, where
weights come from scores of the compute type, bits depend on neither threads nor what else the scan leaves.
"""

import numpy as np
import pytest
from helpers import name_of, path, same_bits, threads

import sparsehopfield as sh
from sparsehopfield import reference
from sparsehopfield.structures import TopK

PATHS = ["scan", "lines", "columns", "auto"]
M, D = 20_000, 6
MOST = M // 16  # more than 1,024


def draw(family, dtype):
    """Draw patterns of a family, and queries whose supports differ much."""
    rng = np.random.default_rng(3)
    if family == "skewed":  # crowded at the origin, as image patches are
        patterns = rng.normal(size=(M, D)) * rng.lognormal(-2, 1.5, size=(M, 1))
    elif family == "duplicates":  # 16 patterns 1,250 times, in each tile all of them; one once more
        patterns = np.tile(rng.normal(size=(M // MOST, D)), (MOST, 1))
        patterns[-1] = patterns[0]
    else:  # one cluster, and far outliers that hold it at a fraction of a code's step
        patterns = rng.normal(size=(M, D)) * 1e-2
        patterns[:: M // 7] *= 1e5
    near = patterns[rng.choice(M, 8, replace=False)]
    queries = np.concatenate([near, rng.normal(size=(4, D)) * patterns.std()])
    return queries.astype(dtype), patterns.astype(dtype)


def answers(memory, queries):
    """Give the states and energies of queries, and the lists of their weights."""
    weights = memory.associate(queries)
    return memory.update(queries), np.asarray(memory.energy(queries)), weights, np.diff(weights.indptr)


# Supports from a few patterns to more than MOST.
CASES = [
    ("skewed", "euclidean", "sparsemax", np.float32, (1.0, 0.5)),
    ("skewed", "dot", sh.Entmax(1.5), np.float32, (0.2,)),
    ("skewed", "cosine", "sparsemax", np.float64, (2.0, 0.1)),
    ("duplicates", "euclidean", "sparsemax", np.float32, (10.0,)),
    ("duplicates", "dot", sh.Entmax(1.25), np.float64, (5.0,)),
    ("outliers", "euclidean", "sparsemax", np.float32, (25.0,)),
    ("outliers", "euclidean", "entmax15", np.float64, (1000.0,)),
    ("outliers", "dot", "sparsemax", np.float32, (0.01,)),
]


@pytest.mark.covering(1)
@pytest.mark.parametrize(("family", "similarity", "separation", "dtype", "betas"), CASES, ids=name_of)
def test_bits_of_large_supports(family, similarity, separation, dtype, betas):
    queries, patterns = draw(family, dtype)
    options = {"similarity": similarity, "separation": separation}
    sizes = []
    for beta in betas:
        memory = sh.HopfieldMemory(patterns, beta, **options)
        with path("scan"), threads(1):
            states, energies, weights, support = answers(memory, queries)
        sizes += support.tolist()
        promised = support <= MOST
        # patterns in parts, whose candidates are always canonical
        parts = [sh.candidates(queries, patterns[a:b], beta, offset=a, **options) for a, b in ((0, 7001), (7001, M))]
        merged = sh.merge(parts)
        assert same_bits(merged.weights(), weights)
        assert same_bits(merged.states(patterns)[promised], states[promised])
        for name in PATHS:
            with path(name), threads(3 if name != "scan" else 2):
                got, energy, lists, _ = answers(memory, queries)
                assert same_bits(lists, weights), name
                assert same_bits(got[promised], states[promised]), name
                assert same_bits(energy[promised], energies[promised]), name
                if name == "scan":  # of the rest, for any number of threads
                    assert same_bits(got, states)
                    assert same_bits(energy, energies)
        with path("scan"), threads(1):
            for part in (slice(0, 1), slice(1, None), slice(None, None, -1)):
                got, kept = memory.update(queries[part]), promised[part]
                assert same_bits(got[kept], states[part][kept])
    assert max(sizes) > 1024, sizes


def copies(k, other=0.0):
    """Return M patterns, of which k, spread evenly, are one and the same, and all others are far from it."""
    patterns = np.full((M, 3), other, np.float32)
    patterns[np.linspace(0, M - 1, k).astype(int)] = 1, 2, 3.1
    return patterns


@pytest.mark.parametrize("k", [1025, MOST, MOST + 1])
@pytest.mark.parametrize("separation", ["sparsemax", sh.Entmax(1.5)], ids=name_of)
def test_the_largest_canonical_support(k, separation):
    """Equal weights of k patterns that are one and the same, spread evenly: up to MOST, a sum in double of each."""
    query = np.float32([[1, 2, 3.1]])
    patterns = np.full((M, 3), 6, np.float32)
    patterns[np.linspace(0, M - 1, k).astype(int)] = query
    options = {"similarity": "euclidean", "separation": separation}
    part = sh.candidates(query, patterns, 10.0, **options)
    assert part.weights().nnz == k
    memory = sh.HopfieldMemory(patterns, 10.0, **options)
    for name in PATHS:
        with path(name):
            one, batch = memory.update(query), memory.update(np.repeat(query, 5, axis=0))
        if k <= MOST:
            assert same_bits(one, part.states(patterns))
            assert same_bits(batch, np.repeat(one, 5, axis=0))
        else:  # a sum in float32
            np.testing.assert_allclose(one, query, rtol=(k + 2) * 2.0**-24)


def test_what_the_scan_leaves():
    """Half of the patterns are alike, which no list holds, and 1,200 at the end are better for one of the queries.

    Its support is canonical, although it has overflowed; and what the others get does not depend on it.
    """
    rng, patterns = np.random.default_rng(1), np.full((M, 4), 8.0, np.float32)
    patterns[: M // 2] = rng.normal(size=(M // 2, 4)) * [1e-3, 1e-3, 0, 0]
    patterns[-1200:] = [0, 0, 1.1, 1.3] + rng.normal(size=(1200, 4)) * 1e-5
    many = rng.normal(size=(9, 4)).astype(np.float32) * np.float32(1e-3)
    one = np.float32([[0, 0, 2, 2]])
    memory = sh.HopfieldMemory(patterns, 5.0, similarity="euclidean")
    part = sh.candidates(one, patterns, 5.0, similarity="euclidean")
    assert part.weights().nnz == 1200
    assert (np.diff(memory.associate(many).indptr) > MOST).all()
    with path("scan"):
        want = memory.update(many)
        for place in (0, 4, 9):
            with threads(1 + place % 3):
                got = memory.update(np.insert(many, place, one, axis=0))
            assert same_bits(np.delete(got, place, axis=0), want)
            assert same_bits(got[place : place + 1], part.states(patterns))


@pytest.mark.parametrize("k", [65, 500, 1500])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_the_k_best(k, separation):
    """More than an index finds, with ties by the hundred at the end: by long lists, and by whole rows of scores."""
    rng = np.random.default_rng(4)
    patterns = rng.integers(-2, 3, size=(M, 4)).astype(np.float32)
    queries = rng.integers(-2, 3, size=(3, 4)).astype(np.float32)
    options = {"beta": 1e-4, "separation": separation}
    got = sh.update(queries, patterns, structure=TopK(k), **options)
    for name in PATHS:
        with path(name), threads(3):
            assert same_bits(sh.update(queries[::-1], patterns, structure=TopK(k), **options)[::-1], got)
    for query, state in zip(queries, got, strict=True):  # integers, whose scores are exact
        best = np.argsort(-(patterns @ query), kind="stable")[:k]
        want = reference.update(query, patterns[np.sort(best)], **options)
        np.testing.assert_allclose(state, want, rtol=0, atol=1e-6)
