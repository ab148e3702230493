"""Patterns much larger than nearly all others: the same results, and no more patterns scored because of them.

The slack of scores goes by the size of patterns. Outliers have one of their own (`csrc/retrieval/outliers.c`), so that
they do not make the scores of all others too inaccurate to tell these apart.
"""

import numpy as np
import pytest
from helpers import (
    FLOATS,
    ROUNDOFF,
    SIMILARITIES,
    TABLE_MAPS,
    digest,
    hook,
    name_of,
    path,
    quiet,
    same_bits,
    threads,
    weight_bounds,
)

import sparsehopfield as sh
from sparsehopfield import _core, reference

M = 1100
WHERE = 600  # where a pattern is put among others
OFFSETS = {"at the origin": 0.0, "far from the origin": 300.0}
#: Outliers: how many times as far out as the others, and where they are stored.
FAMILIES = {
    "one": [(1e4, slice(500, 501))],
    "one, the first": [(1e4, slice(0, 1))],
    "the first three": [(1e2, slice(0, 3))],
    "ten": [(1e2, slice(700, 710))],
    "one in forty": [(1e3, slice(0, M, 40))],
    "the last tile": [(1e6, slice(1090, M))],
    "two scales": [(1e2, slice(3, 400, 40)), (1e6, slice(20, 900, 200))],
    "more than a few": [(1e3, slice(0, M, 10))],  # these have no slack of their own
}


def draw(family, offset=0.0, dtype=np.float32, d=24, n=30, seed=0):
    """Draw one cluster with outliers, and queries from it, from near outliers and from afar."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(M, d))
    queries = rng.normal(size=(n, d))
    for scale, rows in FAMILIES[family]:
        patterns[rows] *= scale
        few = patterns[rows][:2]
        queries[-len(few) :] = few + rng.normal(size=few.shape)
        queries[-4:-2] *= scale / 3
    return (queries + offset).astype(dtype), (patterns + offset).astype(dtype)


def scored(memory, queries):
    """Count the patterns that the scan scores canonically, and those in the support: two of shape (N,)."""
    call = memory._call(queries)
    with path("scan"):
        counts = _core.survey(call.core_executor("associate").core, call.rows, call.beta, *call.code)
    return counts[:, 2], counts[:, 3]


def answers(memory, queries):
    """Give name -> bits of what a memory answers."""
    with quiet():
        states, info = memory.retrieve(queries, max_steps=3, tol=0.0, return_info=True)
    weights = memory.associate(queries, top=M if memory.separation == "softmax" else None)
    return {
        "associate": digest(weights),
        "update": digest(memory.update(queries)),
        "retrieve": digest(states, info.steps, info.support_size),
        "energy": digest(np.asarray(memory.energy(queries))),
        "top": digest(memory.associate(queries, top=3)),
    }


def all_answers(memory, queries, name):
    """Give the answers by a path, with one thread and with two."""
    with path(name):
        found = answers(memory, queries)
        with threads(2):
            assert answers(memory, queries[:5]) == answers(memory, queries[:5])
    return found


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_paths_give_the_same_bits_and_the_reference_agrees(family, offset, dtype, similarity):
    queries, patterns = draw(family, OFFSETS[offset], dtype)
    number = list(FAMILIES).index(family)
    for separation in ("sparsemax", TABLE_MAPS[number % len(TABLE_MAPS)], sh.Entmax(1.25)):
        for beta in (0.05, 3.0):
            memory = sh.HopfieldMemory(patterns, beta, similarity=similarity, separation=separation)
            want = all_answers(memory, queries, "scan")
            assert all_answers(memory, queries, "lines") == want
            if separation != "sparsemax":
                continue
            with path("scan"):
                weights = memory.associate(queries).toarray()
            p = reference.associate(queries, patterns, beta, similarity=similarity)
            bounds = weight_bounds(queries, patterns, beta, similarity, "sparsemax", patterns.dtype)
            assert (np.abs(weights - p).sum(axis=1) <= bounds + 2.0**-50).all()


@pytest.mark.covering(2)
@pytest.mark.parametrize(  # far from the origin other scores cancel, outliers or not
    ("offset", "similarity"),
    [*(("at the origin", s) for s in SIMILARITIES), ("far from the origin", "euclidean")],
)
@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "more than a few"])
def test_few_patterns_are_scored(family, offset, similarity):
    """Queries of the cluster: outliers make no others candidates, wherever they are stored."""
    queries, patterns = draw(family, OFFSETS[offset])
    queries = queries[:26]
    usual = np.random.default_rng(5).normal(size=patterns.shape).astype(np.float32) + np.float32(OFFSETS[offset])
    beta = 3.0
    outliers = np.abs(patterns - OFFSETS[offset]).max(axis=1) > 30
    for separation in ("sparsemax", "entmax15"):
        options = {"similarity": similarity, "separation": separation}
        count, support = scored(sh.HopfieldMemory(patterns, beta, **options), queries)
        most = scored(sh.HopfieldMemory(usual, beta, **options), queries)[0].max() + outliers.sum()
        assert (count >= support).all()
        assert (count <= 2 * support + most).all(), (count, support, most)
        assert np.median(count) < M / 20


def near_ties(similarity, dtype, seed):
    """Draw a query, and an outlier that scores best by a little, where rounded products say that it does not."""
    rng = np.random.default_rng(seed)
    d, size, drawn = 40, 1e4, 2000
    patterns, queries = rng.normal(size=(M, d)).astype(dtype), rng.normal(size=(1, d)).astype(dtype)
    if similarity == "euclidean":
        queries *= dtype(size)
    scores = reference.canonical_scores(queries, patterns, similarity)[0]
    x, best = queries[0].astype(float), patterns[np.argmax(scores)].astype(float)
    others = rng.normal(size=(drawn, d)) * size
    if similarity == "euclidean":  # as far from the query as the best one, in other directions
        others *= np.linalg.norm(x - best) / np.linalg.norm(others, axis=1, keepdims=True)
        others += x
    else:
        others += np.outer((best - others) @ x / (x @ x), x)
    others = others.astype(dtype)
    above = reference.canonical_scores(queries, others, similarity)[0] - scores.max()
    rounded = others @ queries[0]
    if similarity == "euclidean":
        rounded -= (others.astype(float) ** 2).sum(axis=1).astype(dtype) / 2
        rounded -= (x**2).sum().astype(dtype) / 2
    is_best = np.flatnonzero(above > 0)
    patterns[WHERE] = others[is_best[np.argmin(rounded[is_best])]]
    return queries, patterns


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_outliers_with_scores_like_the_best(dtype, similarity):
    """Products say that another is better; only the outlier's own slack keeps it."""
    for seed in range(30):
        queries, patterns = near_ties(similarity, dtype, seed)
        for beta in (1e-3, 1e3, 1e9):
            memory = sh.HopfieldMemory(patterns, beta, similarity=similarity)
            with path("scan"):
                found = memory.associate(queries)
            with path("lines"):
                assert same_bits(memory.associate(queries), found)
            assert found[0, WHERE] > 0


@pytest.mark.covering(1)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("family", FAMILIES)
def test_softmax(family, dtype, offset):
    """Few within reach, many, and all: weights as by the formula in extended precision."""
    queries, patterns = draw(family, OFFSETS[offset], dtype)
    x, xi = queries.astype(np.longdouble), patterns.astype(np.longdouble)
    scores = -((x[:, None] - xi) ** 2).sum(axis=2) / 2
    for beta in (1e-9, 1e-4, 0.05, 3.0, 1e3):
        z = beta * scores
        p = np.exp(z - z.max(axis=1, keepdims=True))
        total = p.sum(axis=1, keepdims=True)
        p /= total
        memory = sh.HopfieldMemory(patterns, beta, similarity="euclidean", separation="softmax")
        for name in ("scan", "lines"):
            with path(name):
                weights = memory.associate(queries, top=M).toarray()
                states = memory.update(queries)
                energy = np.asarray(memory.energy(queries))
            error = 2.0**-6 if dtype == np.float32 else 2.0**-20  # what a weight may be off by; it is mostly much less
            assert (np.abs(weights - p).sum(axis=1) <= error).all()
            weighted = (p[..., None] * np.abs(xi - x[:, None])).sum(axis=1)
            allowed = error * weighted + 64 * ROUNDOFF[np.dtype(dtype)] * np.abs(x).max(axis=1, keepdims=True)
            allowed += 64 * ROUNDOFF[np.dtype(dtype)] * (p @ np.abs(xi))
            assert (np.abs(states - p @ xi) <= allowed).all()
            want = -(z.max(axis=1) + np.log(total[:, 0])) / beta
            assert np.allclose(energy.astype(float), want.astype(float), rtol=1e-4, atol=1e-3 / beta)


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_large_supports(family, similarity):
    """Nearly all patterns have weight: whole rows of scores, in which outliers have none, or some."""
    queries, patterns = draw(family, d=6)
    queries, patterns = queries[:26], np.tile(patterns, (3, 1))
    for beta in (1e-6, 1e-3, 0.02):
        memory = sh.HopfieldMemory(patterns, beta, similarity=similarity, index=False)
        want = reference.associate(queries, patterns, beta, similarity=similarity)
        weights = memory.associate(queries).toarray()
        assert np.abs(weights - want).sum(axis=1).max() < 1e-4
        states = memory.update(queries)
        size = np.abs(want @ np.abs(patterns)).max(axis=1, keepdims=True) + 1
        assert (np.abs(states - want @ patterns.astype(float)) < 1e-3 * size).all()


@pytest.mark.covering(1)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("offset", OFFSETS)
def test_a_memory_that_grows_and_shrinks_answers_as_a_fresh_one(offset, similarity, separation):
    """Outliers come late, first, become ordinary as more like them come, and go."""
    queries, patterns = draw("two scales", OFFSETS[offset])
    rng = np.random.default_rng(3)
    options = {"similarity": similarity, "separation": separation, "index": False}
    memory = sh.HopfieldMemory(patterns[:2], 0.3, **options)
    for start, stop in [(2, 3), (3, 9), (9, 63), (63, 65), (65, 300), (300, 304), (304, 305), (305, M)]:
        memory.add(patterns[start:stop])
        assert answers(memory, queries) == answers(sh.HopfieldMemory(patterns[:stop], 0.3, **options), queries)
    more = (1e3 * rng.normal(size=(60, patterns.shape[1]))).astype(np.float32)
    memory.add(more)
    left = np.concatenate([patterns, more])
    assert answers(memory, queries) == answers(sh.HopfieldMemory(left, 0.3, **options), queries)
    for gone in (np.arange(len(patterns), len(left)), np.array([0, 3, 20]), np.array([0, 40, 700])):
        memory.remove(gone)
        left = np.delete(left, gone, axis=0)
        assert answers(memory, queries) == answers(sh.HopfieldMemory(left, 0.3, **options), queries)


def test_a_float32_memory_asked_in_float64():
    queries, patterns = draw("two scales", 300.0)
    queries = queries.astype(np.float64) + 1e-9
    narrow, wide = (sh.HopfieldMemory(p, 3.0, similarity="euclidean") for p in (patterns, patterns.astype(np.float64)))
    assert answers(narrow, queries) == answers(wide, queries)
    assert scored(narrow, queries)[0].max() < M / 10


def test_narrow_types():
    rng = np.random.default_rng(2)
    patterns = rng.integers(0, 3, size=(M, 24)).astype(np.uint8)
    patterns[::200] = 255
    queries = rng.integers(0, 3, size=(20, 24)).astype(np.float32)
    memories = [sh.HopfieldMemory(p, 1.0, similarity="euclidean") for p in (patterns, patterns.astype(np.float32))]
    assert answers(memories[0], queries) == answers(memories[1], queries)


def test_an_allocation_that_fails():
    """It raises MemoryError, or another path gives the same bits."""
    queries, patterns = draw("two scales", 300.0)
    fail, failures = hook("_fail_allocation"), 0

    def ask():
        return sh.HopfieldMemory(patterns, 3.0, similarity="euclidean", index=False).update(queries)

    fail(-1)
    want = ask()
    made = fail(-1)
    assert made > 3
    for n in range(made):
        fail(n)
        try:
            got = ask()
        except MemoryError:
            failures += 1
        else:
            assert same_bits(got, want)
        finally:
            fail(-1)
    assert failures > 3
