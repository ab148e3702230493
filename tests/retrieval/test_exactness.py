"""What "exact" promises: the same bits on every path (P1), one step against exact arithmetic (P2), many (P3).

The families are made to break a filter or a sum: ties and near-ties, duplicates, huge norms beside tiny ones,
subnormal numbers, negative scores, data far from the origin, rank-deficient data, few patterns, a zero query.
"""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from helpers import (
    CUTOFF_MAPS,
    ENERGY_MAPS,
    FLOATS,
    ROUNDOFF,
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
    name_of,
    patterns_for,
    quiet,
    same_bits,
    score_error,
    sparse_weights,
    state_bounds,
    threads,
    weight_bounds,
    weight_error,
)

import sparsehopfield as sh
from sparsehopfield import reference

# --- P2: one step against exact arithmetic ----------------------------------------------------------


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("family", families())
def test_one_step_of_sparsemax_against_exact_arithmetic(family, similarity, dtype):
    queries, patterns = families(dtype)[family]
    patterns = patterns_for(similarity, patterns)
    scores = exact_scores(queries, patterns, similarity)
    for beta in betas_for(queries, patterns, similarity):
        p = sparse_weights(queries, patterns, beta, similarity, "sparsemax")
        for query, s, weights in zip(queries, scores, p, strict=True):
            z = [Fraction(beta) * v for v in s]
            exact, tau, kappa = exact_sparsemax(z)
            spread = beta * score_error(query, patterns, similarity)
            assert distance(weights, exact) <= weight_error(z, tau, kappa, 2.0, spread, dtype)
            # the supports: who is safely in is in, who is safely out is out
            for mine, v in zip(weights, z, strict=True):
                if abs(v - tau) > 2 * Fraction(spread + 2.0**-50):
                    assert (mine > 0) == (v > tau)


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("separation", ["entmax15", sh.Entmax(1.25)], ids=name_of)
@pytest.mark.parametrize(
    "family",
    [
        "gaussian",
        "near ties",
        "ties",
        "duplicates",
        "norms from 1e-12 to 1e12",
        "0.5 +- 0.01",
        "1000 +- 0.01",
        "negative scores",
    ],
)
def test_one_step_of_entmax_against_exact_arithmetic(family, separation, dtype):
    queries, patterns = families(dtype, m=12, d=9, n=2)[family]
    alpha, scores = alpha_of(separation), exact_scores(queries, patterns)
    for beta in betas_for(queries, patterns, "dot"):
        p = sparse_weights(queries, patterns, beta, "dot", separation)
        for query, s, weights in zip(queries, scores, p, strict=True):
            z = [Fraction(beta) * v for v in s]
            exact, tau, kappa = exact_entmax(z, alpha)
            spread = beta * score_error(query, patterns, "dot")
            assert distance(weights, exact) <= weight_error(z, tau, kappa, alpha, spread, dtype)


@pytest.mark.covering(2)
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("beta", [1e-300, 1e-30, 1e-3, 1.0, 1e3, 1e30, 1e300])
def test_the_canonical_dot_product_decides(family, similarity, beta):
    """Given the canonical scores, weights are sparsemax to rounding: at any beta, where P2 says nothing."""
    queries, patterns = families()[family]
    patterns = patterns_for(similarity, patterns)
    scores = reference.canonical_scores(queries, patterns, similarity)
    p = sparse_weights(queries, patterns, beta, similarity, "sparsemax")
    for s, weights in zip(scores, p, strict=True):
        z = [Fraction(beta) * (Fraction(v) - Fraction(s.max())) for v in s]
        exact, _, kappa = exact_sparsemax(z)
        # s - max s and beta times it are rounded, 2^-52 in a window of width 1; then the solution; then p
        assert distance(weights, exact) <= 2.0**-24 + (2 * kappa + 4) * kappa * 2.0**-53
        assert (weights[s == s.max()] > 0).all()  # the best and its equals are never dropped
        assert np.unique(weights[s == s.max()]).size == 1


@pytest.mark.parametrize("dtype", [np.float32, np.uint8], ids=lambda t: t.__name__)
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
def test_scores_are_those_of_the_reference_to_the_bit(similarity, dtype):
    """The order of a sum decides its last bits: whole rounds of the partial sums, and what is left over."""
    rng = np.random.default_rng(12)
    for d in (1, 31, 32, 33, 100, 784):
        queries, patterns = rng.random((4, d), dtype=np.float32), (1 + 200 * rng.random((40, d))).astype(dtype)
        part = sh.candidates(queries, patterns, 1e-12, similarity=similarity)  # at which all have weight
        want = reference.canonical_scores(queries, patterns, similarity)
        assert part.position.tolist() == 4 * list(range(40))
        assert same_bits(part.score.reshape(4, 40), want)


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("family", families())
def test_states_follow_their_weights(family, dtype):
    queries, patterns = families(dtype)[family]
    for separation in ("sparsemax", "entmax15"):
        for beta in betas_for(queries, patterns, "dot"):
            weights = sparse_weights(queries, patterns, beta, "dot", separation)
            states = sh.update(queries, patterns, beta, separation=separation)
            for w, state in zip(weights, states, strict=True):
                kept = np.flatnonzero(w)
                terms = [[Fraction(float(w[i])) * Fraction(float(v)) for v in patterns[i]] for i in kept]
                for j, mine in enumerate(state):
                    column = [row[j] for row in terms]
                    # a sum of kappa terms in double, rounded once to the type (and to its subnormal numbers)
                    size = sum(abs(c) for c in column)
                    limit = (
                        size * Fraction(len(kept) * 2.0**-52)
                        + abs(sum(column)) * Fraction(ROUNDOFF[np.dtype(dtype)])
                        + Fraction(float(np.finfo(dtype).smallest_subnormal))
                    )
                    assert abs(Fraction(float(mine)) - sum(column)) <= limit


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("separation", ["softmax", sh.Polynomial(4)], ids=name_of)
@pytest.mark.parametrize("family", families())
def test_full_support_on_the_families(family, separation, dtype):
    queries, patterns = families(dtype)[family]
    for beta in betas_for(queries, patterns, "dot"):
        bounds = weight_bounds(queries, patterns, beta, "dot", separation, dtype)
        want = reference.update(queries, patterns, beta, separation=separation)
        got = sh.update(queries, patterns, beta, separation=separation)
        assert np.isfinite(got).all()
        off = np.abs(got - want).max(axis=1)
        tiny = float(np.finfo(dtype).tiny)  # products of subnormal numbers may be flushed
        if separation == "softmax" or "subnormal" not in family:
            assert (off <= state_bounds(bounds, queries, patterns, dtype) + tiny).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("separation", ENERGY_MAPS, ids=name_of)
def test_any_beta(separation, dtype):
    """At extreme temperatures: the best and its equals, or all alike; and an energy to match."""
    patterns = np.array([[1, 2], [3, 1], [0, 1], [2, 1.5]], dtype)
    query = np.array([1, 2], dtype)  # scores 5, 5, 2, 5
    for beta in (1e38, 1e39, 1e100, 1e300):
        weights = sh.associate(query, patterns, beta, separation=separation, top=4).toarray()
        np.testing.assert_allclose(weights, [[1 / 3, 1 / 3, 0, 1 / 3]], rtol=1e-6)
        assert sh.energy(query, patterns, beta, separation=separation) == pytest.approx(-2.5, rel=1e-6)
        np.testing.assert_allclose(sh.update(query, patterns, beta, separation=separation), [2, 1.5], rtol=1e-6)
    for beta in (1e-30, 1e-38):
        weights = sh.associate(query, patterns, beta, separation=separation, top=4).toarray()
        np.testing.assert_allclose(weights, 1 / 4, rtol=1e-6)
        want = reference.energy(query, patterns, beta, separation=separation)
        assert sh.energy(query, patterns, beta, separation=separation) == pytest.approx(want, rel=1e-6)
    for beta in (1e-45, 1e-100, 1e-300):
        np.testing.assert_allclose(sh.update(query, patterns, beta, separation=separation), [1.5, 1.375], rtol=1e-6)


# --- P1: the same bits on every path ----------------------------------------------------------------


def workload(m=2500, n=300, d=40):
    """Draw data that use several tiles and blocks, with ties, duplicates and supports from 1 to hundreds."""
    rng = np.random.default_rng(17)
    patterns = rng.random((m, d), dtype=np.float32)
    patterns[1000:1100] = patterns[:100]
    queries = (patterns[rng.integers(m, size=n)] * (rng.random((n, d)) < 0.6)).astype(np.float32)
    return queries, patterns


def bits():
    """Hash results of maps with a cutoff, which must not depend on threads, instructions or BLAS kernels."""
    found = {}
    queries, patterns = workload(n=120)
    for separation in CUTOFF_MAPS:
        for similarity in ("dot", "euclidean", "cosine"):
            options = {"similarity": similarity, "separation": separation}
            for beta in (7.0, 40.0, 300.0):
                found[f"{separation} {similarity} {beta}"] = digest(
                    sh.associate(queries, patterns, beta, **options),
                    sh.update(queries, patterns, beta, **options),
                    sh.energy(queries, patterns, beta, **options),
                )
    for dtype in FLOATS:
        for family, (x, xi) in families(dtype, m=60, d=33, n=20).items():
            for beta in betas_for(x, xi, "dot"):
                found[f"{family} {dtype.__name__} {beta:.3g}"] = digest(
                    sh.update(x, xi, beta), sh.sparsemax(x), sh.entmax(x, 1.4)
                )
    codes = (patterns * 255).astype(np.uint8)
    found["bytes"] = digest(sh.update(queries, codes, 0.01, similarity="euclidean"))
    found["trajectory"] = digest(*_trajectory(queries[:50], patterns, 3.0, 6))
    return found


def _trajectory(queries, patterns, beta, steps, **options):
    """Give the states after 0, 1, ..., steps updates, each by its own call of retrieve."""
    states = []
    for step in range(steps + 1):
        with quiet():
            states.append(sh.retrieve(queries, patterns, beta, max_steps=step, tol=0.0, **options))
    return states


@pytest.fixture(scope="module")
def own_bits():
    return bits()


@pytest.mark.parametrize(
    ("level", "core"),
    [
        ("base", "Nehalem"),
        ("avx2", "Haswell"),
        pytest.param("avx512", "", marks=pytest.mark.depth),  # whose kernels are those of vnni, but for codes
        ("vnni", ""),
    ],
)
def test_bits_do_not_depend_on_instruction_sets_and_kernels_of_blas(level, core, own_bits):
    assert bits_at_level("test_exactness", level, core, threads=3) == own_bits


@pytest.mark.parametrize("n", [1, 3, pytest.param(2, marks=pytest.mark.depth)])
def test_bits_do_not_depend_on_threads(n, own_bits):
    with threads(n):
        assert bits() == own_bits


@pytest.mark.parametrize("separation", CUTOFF_MAPS, ids=name_of)
def test_batches_and_single_queries_agree(separation):
    queries, patterns = workload(n=70)
    options = {"separation": separation, "similarity": "euclidean"}
    for beta in (7.0, 40.0):
        assert np.diff(sh.associate(queries, patterns, beta, **options).indptr).max() <= 1024
        whole = sh.update(queries, patterns, beta, **options)
        assert same_bits(np.stack([sh.update(x, patterns, beta, **options) for x in queries]), whole)
        assert same_bits(
            np.concatenate(
                [
                    sh.update(queries[:33], patterns, beta, **options),
                    sh.update(queries[33:], patterns, beta, **options),
                ]
            ),
            whole,
        )
        order = np.random.default_rng(1).permutation(70)
        assert same_bits(sh.update(queries[order], patterns, beta, **options), whole[order])


@pytest.mark.parametrize("separation", CUTOFF_MAPS, ids=name_of)
def test_weights_do_not_depend_on_the_order_of_patterns(separation):
    """Worst orders for a bound that rises: best last, best first; and any order."""
    queries, patterns = workload(n=1)
    scores = patterns @ queries[0]
    orders = [np.argsort(scores), np.argsort(-scores), np.random.default_rng(2).permutation(len(patterns))]
    for beta in (0.1, 1.0, 30.0):
        weights = sparse_weights(queries, patterns, beta, "dot", separation)[0]
        for order in orders:
            assert same_bits(sparse_weights(queries, patterns[order], beta, "dot", separation)[0], weights[order])


@pytest.mark.parametrize("separation", CUTOFF_MAPS, ids=name_of)
def test_any_split_of_the_patterns_merges_to_the_whole(separation):
    queries, patterns = workload(n=40)
    rng = np.random.default_rng(3)
    for beta in (2.0, 10.0):
        whole = sh.associate(queries, patterns, beta, separation=separation)
        assert np.diff(whole.indptr).max() <= 1024
        state = sh.update(queries, patterns, beta, separation=separation)
        for pieces in (2, 5, 17):
            edges = [
                0,
                *sorted(rng.choice(np.arange(1, 2500), size=pieces - 1, replace=False).tolist()),
                2500,
            ]
            parts = [
                sh.candidates(queries, patterns[a:b], beta, separation=separation, offset=a) for a, b in pairwise(edges)
            ]
            order = rng.permutation(pieces)
            merged = sh.merge([parts[i] for i in order])
            assert same_bits(merged.weights(), whole)
            assert same_bits(merged.states(patterns), state)


# --- large supports ---------------------------------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Entmax(1.25)], ids=name_of)
def test_supports_of_more_than_1024_patterns(separation, dtype):
    """From a few patterns to all of them, through the borders where the engine changes its way."""
    rng = np.random.default_rng(8)
    patterns = rng.normal(size=(3000, 12)).astype(dtype)
    queries = rng.normal(size=(5, 12)).astype(dtype)
    values = rng.normal(size=(3000, 5)).astype(dtype)
    sizes = []
    for beta in (3.0, 0.3, 0.1, 0.04, 0.02, 0.01, 3e-3, 1e-3, 1e-4, 1e-6, 1e-30):
        for similarity in ("dot", "cosine") if beta in (0.1, 0.01) else ("euclidean",):
            options = {"similarity": similarity, "separation": separation}
            bounds = weight_bounds(queries, patterns, beta, similarity, separation, dtype)
            weights = sh.associate(queries, patterns, beta, **options)
            want = reference.associate(queries, patterns, beta, **options)
            assert (np.abs(weights.toarray() - want).sum(axis=1) <= bounds).all()
            got = sh.update(queries, patterns, beta, values=values, **options)
            limit = state_bounds(bounds, queries, values, dtype)
            assert (np.abs(got - want @ values.astype(float)).max(axis=1) <= limit).all()
            energy = reference.energy(queries, patterns, beta, **options)
            e = np.array([score_error(x, patterns, similarity, ROUNDOFF[np.dtype(dtype)], 8, True) for x in queries])
            # sums of up to 3000 terms of a total size of at most 1 / (a beta)
            terms = 3000 * cutoff(separation) / beta / 4
            slack = e + ROUNDOFF[np.dtype(dtype)] * (16 * np.abs(energy) + terms)
            assert (np.abs(sh.energy(queries, patterns, beta, **options) - energy) <= slack).all()
            sizes += np.diff(weights.indptr).tolist()
    assert min(sizes) < 100
    assert max(sizes) == 3000
    assert any(300 < s <= 1024 for s in sizes)
    assert any(1024 < s < 2900 for s in sizes), sizes


def test_candidates_overflow():
    """Scores that rise from tile to tile, so that all of them are candidates when they are seen."""
    m = 6000
    patterns = np.linspace(0, 1, m, dtype=np.float32)[:, None]
    query = np.ones((2, 1), np.float32)
    for beta in (0.5, 1.9, 50.0, 3000.0, 1e5):
        for order in (slice(None), slice(None, None, -1)):
            xi = patterns[order]
            exact = reference.associate(query, xi, beta)
            bounds = weight_bounds(query, xi, beta, "dot", "sparsemax", np.float32)
            got = sh.associate(query, xi, beta)
            assert (np.abs(got.toarray() - exact).sum(axis=1) <= bounds).all()
            np.testing.assert_allclose(sh.update(query, xi, beta), exact @ xi, rtol=0, atol=bounds[0] + 1e-6)


def test_many_equal_patterns():
    """Ties by the thousand: every pattern has the same weight, at every beta."""
    for m in (1000, 1024, 1025, 5000):
        patterns = np.tile(np.float32([1, 2, 3]), (m, 1))
        for beta in (1e-9, 1.0, 1e9):
            for separation in CUTOFF_MAPS:
                weights = sh.associate(patterns[:2], patterns, beta, separation=separation)
                assert weights.nnz == 2 * m
                assert np.unique(weights.data).size == 1
                assert weights.data[0] == pytest.approx(1 / m, rel=1e-6)
                state = sh.update(patterns[:2], patterns, beta, separation=separation)
                # m equal terms, added in float32 where the support is large
                np.testing.assert_allclose(state, patterns[:2], rtol=(m + 2) * 2.0**-24 if m > 1024 else 2e-7)


def test_overflow_is_found_before_it_happens():
    big = np.float32(1e19)
    patterns, x = np.full((5, 4), big), np.full((2, 4), big)
    for call in (sh.update, sh.energy, sh.retrieve, sh.associate, sh.candidates):
        with pytest.raises(OverflowError, match=r"^(queries|patterns):"):
            call(x, patterns)
    # the same numbers in double are no trouble
    np.testing.assert_allclose(sh.update(x.astype(float), patterns.astype(float)), patterns[:2], rtol=1e-15)
    with pytest.raises(OverflowError, match=r"^patterns:"):
        sh.update(x / big, patterns * np.float32(10), similarity="euclidean")
    # and before anything is written, also of other queries
    many, out = np.ones((1600, 4), np.float32), np.full((1600, 4), np.nan, np.float32)
    many[-1] = 1e38
    with pytest.raises(OverflowError, match=r"^queries:"):
        sh.update(many, np.full((5, 4), np.float32(10)), out=out)
    assert np.isnan(out).all()
    # far below the largest number, although the squares are not
    small = sh.update(x / big, patterns / np.float32(10))
    np.testing.assert_allclose(small, patterns[:2] / 10, rtol=1e-6)


# --- P3: many steps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15"])
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_each_step_obeys_the_bound_at_its_own_state(separation, similarity):
    rng = np.random.default_rng(21)
    patterns = rng.normal(size=(25, 9)).astype(np.float32)
    queries = rng.normal(size=(3, 9)).astype(np.float32)
    options = {"similarity": similarity, "separation": separation}
    alpha = alpha_of(separation)
    for beta in (0.2, 1.5):
        states = _trajectory(queries, patterns, beta, 4, **options)
        for before, after in pairwise(states):
            assert same_bits(sh.update(before, patterns, beta, **options), after)
            weights = sparse_weights(before, patterns, beta, similarity, separation)
            for query, s, w in zip(before, exact_scores(before, patterns, similarity), weights, strict=True):
                z = [Fraction(beta) * v for v in s]
                exact, tau, kappa = exact_entmax(z, alpha)
                spread = beta * score_error(query, patterns, similarity)
                assert distance(w, exact) <= weight_error(z, tau, kappa, alpha, spread, np.float32)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: t.__name__)
def test_inside_an_exact_basin_the_stored_bits_come_back(dtype):
    rng = np.random.default_rng(4)
    patterns = rng.normal(size=(1500, 30)).astype(dtype)
    queries = (patterns[:200] + 0.2 * rng.normal(size=(200, 30))).astype(dtype)
    for separation in CUTOFF_MAPS:
        window = cutoff(separation)
        options = {"similarity": "euclidean", "separation": separation}
        scores = np.sort(reference.canonical_scores(queries[:, :], patterns, "euclidean"), axis=1)
        gap = scores[:, -1] - scores[:, -2]
        beta = 4.0
        error = max(score_error(x, patterns, "euclidean") for x in queries)
        inside = gap > window / beta + 2 * error
        assert inside.sum() > 50
        state = sh.update(queries, patterns, beta, **options)
        assert same_bits(state[inside], patterns[:200][inside])
        states, info = sh.retrieve(queries, patterns, beta, return_info=True, **options)
        assert same_bits(states[inside], patterns[:200][inside])
        assert (info.support_size[inside] == 1).all()


@pytest.mark.covering(2)
@pytest.mark.parametrize("separation", ENERGY_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 10.0, 100.0])
def test_energy_falls_by_half_the_squared_step(separation, similarity, beta):
    """E(x) - E(T(x)) >= |x - T(x)|^2 / 2, at every state on the way (theory, section 1)."""
    rng = np.random.default_rng(33)
    options = {"similarity": similarity, "separation": separation}
    for scale in (0.2, 1.0, 3.0):
        patterns = rng.normal(size=(60, 10)) * scale
        x = np.concatenate([rng.normal(size=(15, 10)) * scale * 2, patterns[:5] + 0.01])
        before = sh.energy(x, patterns, beta, **options)
        for _ in range(12):
            new = sh.update(x, patterns, beta, **options)
            after = sh.energy(new, patterns, beta, **options)
            # scores, energies and the squared step are off by some ulps of these
            largest = np.abs(before) + np.abs(after) + (patterns**2).sum(axis=1).max() + (x**2).sum(axis=1) + 1 / beta
            assert (before - after >= ((x - new) ** 2).sum(axis=1) / 2 - 64 * 2.0**-53 * largest).all()
            x, before = new, after


@pytest.mark.parametrize("separation", ENERGY_MAPS, ids=name_of)
def test_energy_of_a_stored_pattern(separation):
    """At a pattern that is a fixed point by itself E = -|xi|^2 / 2 (dot), or 0 (euclidean)."""
    patterns = np.eye(6) * 3.0
    for similarity, want in (("dot", -4.5), ("euclidean", 0.0)):
        # softmax: the other patterns add ln(1 + 5 e^(-9 beta)) / beta < 1e-30
        energy = sh.energy(patterns, patterns, 8.0, similarity=similarity, separation=separation)
        np.testing.assert_allclose(energy, want, rtol=1e-15, atol=1e-14)
