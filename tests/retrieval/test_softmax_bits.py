"""What is promised of softmax: where few patterns are within reach, canonical weights, the same bits on every path.

Within reach are the patterns whose canonical scores lie at most ln(M/u)/beta below the best, u the unit roundoff of the
compute type. Few are at most max(16, M/128).
"""

import numpy as np
import pytest
from helpers import FLOATS, ROUNDOFF, SIMILARITIES, bits_at_level, digest, path, quiet, same_bits, threads

import sparsehopfield as sh
from sparsehopfield.structures import TopK

WAYS = ["scan", "lines", "columns", "auto"]
#: A power, a sum of few and a quotient are rounded.
ROUNDINGS = 64 * 2.0**-53


def few(m):
    return max(16, m // 128)


def data(m=2600, d=40, n=280, dtype=np.float32):
    """Draw patterns of few directions, with duplicates, and queries near them, half of them with zeros."""
    rng = np.random.default_rng(5)
    common = np.einsum("ij,jk", rng.standard_normal((m, 8)), rng.standard_normal((8, d)))  # the same bits by any BLAS
    patterns = (common + 0.3 * rng.standard_normal((m, d))) / 2
    patterns[m // 2 : m // 2 + 3] = patterns[0]
    queries = patterns[rng.integers(m, size=n)] + 0.3 * rng.standard_normal((n, d))
    queries[::2, d // 2 :] = 0
    return queries.astype(dtype), patterns.astype(dtype)


def scores_of(queries, patterns, similarity):
    """Return scores in double (N, M): near the canonical ones."""
    x, xi = queries.astype(np.float64), patterns.astype(np.float64)
    if similarity == "euclidean":
        return np.concatenate([-((one - xi) ** 2).sum(axis=1)[None] / 2 for one in x])
    return x @ xi.T / (np.linalg.norm(xi, axis=1) if similarity == "cosine" else 1)


def within_reach(queries, patterns, beta, similarity):
    """Return which patterns are within reach of which queries (N, M), and z in double."""
    scores = scores_of(queries, patterns, similarity)
    z = beta * (scores - scores.max(axis=1, keepdims=True))
    reach = np.log(len(patterns) / ROUNDOFF[patterns.dtype])
    assert (np.abs(z + reach) > 1e-10 * (1 + beta)).all()  # none so near that roundings decide
    return z >= -reach, z


def results(queries, patterns, beta, similarity):
    """Give states, weights above 1e-9, energies, and sizes of supports."""
    options = {"similarity": similarity, "separation": "softmax"}
    weights = sh.associate(queries, patterns, beta, min_weight=1e-9, **options)
    with quiet():
        _, info = sh.retrieve(queries, patterns, beta, max_steps=1, return_info=True, **options)
    return [
        sh.update(queries, patterns, beta, **options),
        weights.toarray(),
        sh.energy(queries, patterns, beta, **options),
        info.support_size,
    ]


def bits():
    """Hash the results of the queries that have few patterns within reach."""
    found = {}
    for dtype in FLOATS:
        queries, patterns = data(n=60, dtype=dtype)
        for similarity in SIMILARITIES:
            for beta in (30.0, 1000.0) if similarity == "cosine" else (1.0, 30.0):
                one = within_reach(queries, patterns, beta, similarity)[0].sum(axis=1) <= few(len(patterns))
                found[f"{similarity} {np.dtype(dtype)} {beta}"] = digest(
                    one, *results(queries[one], patterns, beta, similarity)
                )
            for k in (7, 50):  # whatever is within reach
                options = {"similarity": similarity, "separation": "softmax", "structure": TopK(k)}
                found[f"{similarity} {np.dtype(dtype)} {k}"] = digest(sh.update(queries, patterns, 0.5, **options))
    return found


@pytest.fixture(scope="module")
def own_bits():
    return bits()


@pytest.mark.parametrize(
    ("level", "core"),
    [
        ("base", "Nehalem"),
        pytest.param("avx2", "Haswell", marks=pytest.mark.depth),
        pytest.param("avx512", "", marks=pytest.mark.depth),
    ],
)
def test_bits_do_not_depend_on_instruction_sets_and_kernels_of_blas(level, core, own_bits):
    assert bits_at_level("test_softmax_bits", level, core, threads=3) == own_bits


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
def test_bits_do_not_depend_on_path_threads_and_batch(dtype, similarity):
    queries, patterns = data(dtype=dtype)
    beta = {"dot": 2.0, "euclidean": 3.0, "cosine": 60.0}[similarity]
    is_few = within_reach(queries, patterns, beta, similarity)[0].sum(axis=1) <= few(len(patterns))
    assert 0.1 < is_few.mean()  # and others in the same batches
    with path("scan"), threads(1):
        want = results(queries, patterns, beta, similarity)
    for way in WAYS:
        with path(way), threads(1 + WAYS.index(way) % 3):
            for part in (slice(None), slice(3, 20), slice(7, 8)):
                for one, all_of_them in zip(results(queries[part], patterns, beta, similarity), want, strict=True):
                    assert same_bits(one[is_few[part]], all_of_them[part][is_few[part]])


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
def test_weights_are_those_of_the_patterns_within_reach(dtype, similarity):
    queries, patterns = data(n=40, dtype=dtype)
    unit, options = ROUNDOFF[np.dtype(dtype)], {"similarity": similarity, "separation": "softmax"}
    for beta in (0.3, 2.0, 30.0, 1e6):
        reached, z = within_reach(queries, patterns, beta, similarity)
        is_few = reached.sum(axis=1) <= few(len(patterns))
        p = np.exp(z.astype(np.longdouble))
        total = p.sum(axis=1, keepdims=True)
        p /= total
        found = sh.associate(queries, patterns, beta, min_weight=1e-300, **options).toarray()
        assert ((found > 0) == reached)[is_few].all()
        left_out = np.where(reached, 0, p).sum(axis=1)
        assert (left_out < unit).all()
        off = np.abs(found - p).sum(axis=1)
        assert (off <= 2 * left_out + unit + ROUNDINGS + np.abs(z.min() * 2.0**-51 * (z > -99)).max())[is_few].all()
        # the energy: ln(1 - what is left out) / beta more, and roundings
        best = scores_of(queries, patterns, similarity).max(axis=1)
        want = -best - np.log(total[:, 0]) / beta
        if similarity != "euclidean":
            want += (queries.astype(np.float64) ** 2).sum(axis=1) / 2
        energy = sh.energy(queries, patterns, beta, **options)
        allowed = 1.01 * left_out / beta + 2.0**-48 * (np.abs(want) + np.abs(best) + 1 / beta + 1)
        allowed += unit * np.abs(want)  # energies are of the compute type
        assert (np.abs(energy - want) <= allowed)[is_few].all()


def ladder(m, within, beta, dtype):
    """Return patterns (m, 2) of which `within` are within reach of [1, 0], the last by very little, in no order."""
    reach = np.log(m / ROUNDOFF[np.dtype(dtype)]) / beta
    scores = np.full(m, -2 * reach)
    scores[:within] = -reach * (1 - 1e-6) * np.linspace(0, 1, within)
    scores[within : within + 5] = -reach * (1 + 1e-6)
    patterns = np.column_stack([scores, np.linspace(-1, 1, m)])
    return np.random.default_rng(3).permutation(patterns).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("m", [16, 17, 127, 1100, 2560])
def test_the_largest_set_and_one_more(m, dtype):
    for beta in (1e-30, 1.0, 1e6):
        for within in {1, min(few(m), m - 1), few(m), few(m) + 1} - {17 if m == 16 else 0}:
            patterns, query = ladder(m, within, beta, dtype), np.array([1, 0], dtype)
            for way in WAYS:
                with path(way), quiet():
                    _, info = sh.retrieve(query, patterns, beta, separation="softmax", max_steps=1, return_info=True)
                assert info.support_size == m


def test_duplicates_and_a_best_pattern_that_comes_last():
    """Thousands of equal scores: within reach until the best pattern comes, or for good."""
    m = 6000
    patterns = np.zeros((m, 3), np.float32)
    patterns[:, 0] = 1
    query = np.array([1, 0.5, 0], np.float32)
    for at in (0, 3000, m - 1):
        one = patterns.copy()
        one[at] = [40, 1, 0]
        one[(at + 7) % m] = [39, -1, 0]
        for way in WAYS:
            with path(way):
                mean = (one[at] + one[(at + 7) % m] * np.exp(-2)) / (1 + np.exp(-2))
                np.testing.assert_allclose(sh.update(query, one, 1.0, separation="softmax"), mean, rtol=1e-6)
                assert same_bits(sh.update(query, one, 100.0, separation="softmax"), one[at])
                np.testing.assert_allclose(
                    sh.update(query, patterns, 9.0, separation="softmax"), patterns[0], rtol=1e-6
                )


def test_many_queries_learn_that_an_index_pays():
    """So many queries that an index is built, and that some of them are left to the stream."""
    queries, patterns = data(m=9000, d=64, n=700)
    memory = sh.HopfieldMemory(patterns, 0.8, separation="softmax")
    first, second = memory.update(queries), memory.update(queries)
    is_few = within_reach(queries, patterns, 0.8, "dot")[0].sum(axis=1) <= few(len(patterns))
    assert 0.4 < is_few.mean() < 1
    assert same_bits(first[is_few], second[is_few])
    with path("scan"):
        assert same_bits(memory.update(queries)[is_few], second[is_few])
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
