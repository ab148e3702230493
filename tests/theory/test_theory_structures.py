"""The theory of structures: identities, bounds that hold and are attained, and the counterexamples to the others."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

import sparsehopfield as sh
from sparsehopfield import reference, theory
from sparsehopfield.structures import LinearFeatures, RandomFeatures
from sparsehopfield.studies._core import families
from sparsehopfield.theory import structures as ts

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture
def rng():
    return np.random.default_rng(2024)


def draw(seed):
    """Patterns of equal or unequal length, queries beside some of them, these patterns' index, and a beta."""
    rng = np.random.default_rng(seed)
    m, d = int(rng.integers(2, 12)), int(rng.integers(1, 8))
    patterns = rng.normal(size=(m, d)) + rng.choice([0.0, 2.0])
    if rng.random() < 0.5:
        patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    index = rng.integers(m, size=20)
    queries = patterns[index] + rng.choice([0.0, 0.1, 0.5, 2.0]) * rng.normal(size=(20, d))
    return rng, patterns, queries, index, float(10 ** rng.uniform(-2, 2))


def softmax_mean(x, rows, beta):
    """Softmax retrieval over these rows alone."""
    return reference.update(x, rows, beta, separation="softmax")


# --- top-K ------------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_truncation(seed):
    rng, patterns, queries, _, beta = draw(seed)
    m = len(patterns)
    k = int(rng.integers(1, m + 1))
    t = ts.truncation(queries, patterns, k, beta)
    diameter = max(np.linalg.norm(a - b) for a, b in itertools.product(patterns, patterns))
    assert ts.diameter(patterns) == pytest.approx(diameter, rel=1e-12)
    for i, x in enumerate(queries):
        order = np.argsort(-(patterns @ x), kind="stable")
        weights = reference.associate(x, patterns, beta, separation="softmax")[0]
        np.testing.assert_allclose(t.kept[i], softmax_mean(x, patterns[order[:k]], beta), rtol=0, atol=1e-11)
        assert t.tail[i] == pytest.approx(weights[order[k:]].sum(), abs=1e-12)
        left = softmax_mean(x, patterns[order[k:]], beta) if k < m else np.zeros_like(x)
        np.testing.assert_allclose(t.left[i], left, rtol=0, atol=1e-11)
    np.testing.assert_allclose(t.dense, softmax_mean(queries, patterns, beta), rtol=0, atol=1e-11)
    # the identity: with this sign, as the dense step lies between the two means
    np.testing.assert_allclose(t.kept - t.dense, t.tail[:, None] * (t.kept - t.left), rtol=0, atol=1e-11)
    np.testing.assert_allclose(t.error, np.linalg.norm(t.kept - t.dense, axis=1), rtol=0, atol=1e-12)
    assert (t.tail <= t.tail_bound * (1 + 1e-12) + 1e-15).all()
    assert (t.error <= t.error_bound + 1e-12 * diameter).all()
    np.testing.assert_array_equal(t.tail_bound, ts.truncation_bound(queries @ patterns.T, k, beta))


def test_tail_identity_has_the_sign_of_kept_less_left():
    # The sum of a convex combination: T_dense = (1 - tail) T_K + tail T_left. The other sign fails at once.
    t = ts.truncation([0.9, 0.2], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], 1, 2.0)
    assert np.abs((t.kept - t.dense) - t.tail * (t.left - t.kept)).max() > 0.1


def test_truncation_bound_is_attained_and_survives_extremes():
    for m, k, drop in ((5, 2, 0.7), (100, 99, 3.0), (3, 1, 0.0)):
        scores = np.r_[np.full(k, drop), np.zeros(m - k)]
        tail = reference.softmax(2.0 * scores)[k:].sum()
        assert ts.truncation_bound(scores, k, 2.0) == pytest.approx(tail, rel=1e-12)
    assert ts.truncation_bound([[1e6, 0.0, 0.0]], 1, 1e6)[0] == 0
    assert ts.truncation_bound([1.0, 2.0], 2) == 0
    np.testing.assert_allclose(ts.truncation_bound([[3.0, 1.0], [3.0, 1.0]], 1, [1.0, 2.0]), 1 / (1 + np.exp([2, 4])))


@given(SEEDS)
def test_topk_energy_falls(seed):
    rng, patterns, x, _, beta = draw(seed)
    k = int(rng.integers(1, len(patterns) + 1))
    energy = ts.topk_energy(x, patterns, k, beta)
    scores = np.sort(x @ patterns.T, axis=1)[:, ::-1][:, :k]
    explicit = (x**2).sum(1) / 2 - [reference.softmax_conjugate(beta * s) / beta for s in scores]
    np.testing.assert_allclose(energy, explicit, rtol=1e-10, atol=1e-10)
    for _ in range(10):
        new = ts.truncation(x, patterns, k, beta).kept
        fallen = ts.topk_energy(new, patterns, k, beta)
        slack = 1e-12 * (1 + np.abs(energy))
        assert (energy - fallen >= ((new - x) ** 2).sum(1) / 2 - slack).all()
        x, energy = new, fallen


def test_topk_energy_of_all_is_the_dense_energy(rng):
    patterns, x = rng.normal(size=(9, 4)), rng.normal(size=(6, 4))
    beta = rng.uniform(0.1, 5, 6)
    dense = reference.energy(x, patterns, beta, separation="softmax")
    np.testing.assert_allclose(ts.topk_energy(x, patterns, 9, beta), dense, rtol=1e-13)


# --- masks ------------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_masks(seed):
    rng, patterns, x, index, beta = draw(seed)
    m = len(patterns)
    mask = rng.random((len(x), m)) < 0.5
    mask[~mask.any(1), 0] = True
    error = ts.masked_error(x, patterns, index, mask, beta)
    bound = ts.masked_bound(x, patterns, index, mask, beta)
    size = np.linalg.norm(patterns, axis=1).max()
    for i, mu in enumerate(index):
        kept = patterns[mask[i]]
        explicit = np.linalg.norm(softmax_mean(x[i], kept, beta) - patterns[mu])
        assert error[i] == pytest.approx(explicit, abs=1e-11 * size)
        if not mask[i, mu]:
            assert bound[i] == np.inf
            assert error[i] >= ts.hull_distance(patterns[mu], kept) - 1e-13 * size
            continue
        others = mask[i].copy()
        others[mu] = False
        gap = patterns[mu] @ x[i] - (patterns[others] @ x[i]).max(initial=-np.inf)
        with np.errstate(over="ignore"):
            expected = (
                2 * np.linalg.norm(kept, axis=1).max() * others.sum() * np.exp(-beta * gap) if others.any() else 0
            )
        assert bound[i] == pytest.approx(expected, rel=1e-9)
        assert error[i] <= bound[i] + 1e-12 * size
        assert gap >= theory.margin_at(x[i], patterns, mu) - 1e-12 * size  # fewer rivals, no smaller gap


def test_a_mask_may_raise_the_error():
    patterns, everything, some = [[-1.0], [0.0], [1.0]], [True] * 3, [False, True, True]
    assert ts.masked_error([0.0], patterns, 1, everything) == 0
    assert ts.masked_error([0.0], patterns, 1, some) == 0.5
    # though its weight grows
    dense = reference.associate([0.0], patterns, separation="softmax")[0, 1]
    kept = reference.associate([0.0], patterns[1:], separation="softmax")[0, 0]
    assert kept > dense


def test_masked_error_over_all_is_the_dense_error(rng):
    patterns = rng.normal(size=(8, 5))
    x = patterns + 0.1 * rng.normal(size=(8, 5))
    dense = theory.retrieval_error(x, patterns, range(8), 2.0, separation="softmax")
    np.testing.assert_allclose(ts.masked_error(x, patterns, range(8), np.ones(8, bool), 2.0), dense, atol=1e-14)


@given(SEEDS)
def test_hull_distance(seed):
    rng = np.random.default_rng(seed)
    m, d = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    patterns = rng.normal(size=(m, d)) * 10 ** rng.uniform(-3, 3)
    size = np.abs(patterns).max()
    point = rng.normal(size=d) * size * rng.uniform(0, 3)
    distance = ts.hull_distance(point, patterns)
    # never above the distance to any point of the hull, and near that of the best one another method finds
    mixes = rng.dirichlet(np.full(m, 0.3), 200)
    assert distance <= np.linalg.norm(mixes @ patterns - point, axis=1).min() + 1e-13 * size
    found = optimize.minimize(
        lambda p: ((p @ patterns - point) ** 2).sum() / size**2,
        np.full(m, 1 / m),
        method="SLSQP",
        bounds=[(0, 1)] * m,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    best = np.clip(found.x, 0, None)
    assert distance == pytest.approx(np.linalg.norm(best / best.sum() @ patterns - point), abs=1e-3 * size)


def test_hull_distance_of_known_shapes():
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    points = [[2.0, 0.5], [2.0, 2.0], [0.5, 0.5], [1.0, 0.3], [-3.0, -4.0]]
    np.testing.assert_allclose(ts.hull_distance(points, square), [1, 2**0.5, 0, 0, 5], rtol=0, atol=1e-13)
    assert ts.hull_distance([1.0, 0.0], [[1.0, 0.0]]) == 0
    # scale and place do not matter
    moved = ts.hull_distance(1e6 * np.array([2.0, 0.5]) + 1e6, 1e6 * square + 1e6)
    assert moved == pytest.approx(1e6, rel=1e-9)


def test_retrieval_without_the_target_is_infeasible_on_the_sphere(rng):
    # 63 other unit vectors of 32 features leave every target far outside of their hull.
    patterns = families.draw("sphere", rng, 64, 32)
    floor = min(ts.hull_distance(patterns[i], np.delete(patterns, i, axis=0)) for i in range(64))
    assert 0.4 < floor < 0.9
    errors = [
        ts.masked_error(patterns, patterns, range(64), ~np.eye(64, dtype=bool), beta).min() for beta in (0.1, 10, 1000)
    ]
    assert min(errors) >= floor - 1e-12


def test_random_masks_keep_the_target_with_probability_k_of_m(rng):
    n, k, trials = 10, 3, 4000
    hits = np.mean([0 in rng.choice(n, k, replace=False) for _ in range(trials)])
    p = ts.mask_hit_probability(n, k)
    assert p == 0.3
    assert abs(hits - p) < 4 * (p * (1 - p) / trials) ** 0.5  # four standard errors
    assert ts.mask_hit_probability(n, k, steps=4) == pytest.approx(0.3**4)
    assert ts.mask_hit_probability(n, n, steps=9) == 1


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 0.25])
def test_feature_variance(rng, beta):
    # Kernels of 64 independent features at beta |x + y|^2 of .3 and .75, where a sample of 20,000 shows the variance.
    x, y = np.array([0.8, 0.6, 0.0]), np.array([0.6, 0.8, 0.3])
    features, trials = 64, 20_000
    w = rng.standard_normal((trials, features, 3))
    v = beta**0.5 * (x + y)
    kernel = np.exp(w @ v - beta * (x @ x + y @ y) / 2).mean(axis=1) / np.exp(beta * x @ y)
    variance = ts.feature_relative_variance(x, y, features, beta)
    assert variance == pytest.approx((np.exp(beta * ((x + y) ** 2).sum()) - 1) / features, rel=1e-12)
    assert abs(kernel.mean() - 1) < 4 * (variance / trials) ** 0.5  # unbiased, to four standard errors
    assert kernel.var() == pytest.approx(variance, rel=0.08)  # the sample variance's own error is 1 to 2 %


def test_features_needed():
    x = np.array([1.0, 0.0])
    for error, beta in itertools.product((0.01, 0.1, 3.0), (0.01, 0.5, 2.0)):
        needed = ts.features_needed(x, x, error, beta)
        assert needed == int(needed) >= 1
        assert ts.feature_relative_variance(x, x, int(needed), beta) <= error**2 * (1 + 1e-12)
        if needed > 1:
            assert ts.feature_relative_variance(x, x, int(needed) - 1, beta) > error**2 * (1 - 1e-12)
    assert ts.features_needed(x, -x, 0.1) == 1  # x + y = 0: no variance at all
    assert ts.features_needed(x, x, 1.0, 10.0) > 1e17  # where retrieval on a sphere begins
    assert ts.features_needed(100 * x, 100 * x, 1.0) == np.inf


def test_the_linear_kernel_keeps_no_memories(rng):
    patterns = families.draw("sphere", rng, 64, 32)
    for beta in (1.0, 10.0, 100.0, 1000.0):
        linear = ts.kernel_displacement(patterns, beta, LinearFeatures())
        assert 0.9 < linear.mean() < 1.0
        assert ts.kernel_displacement(patterns, beta, LinearFeatures("relu")).mean() > 0.85
    dense = [ts.kernel_displacement(patterns, beta).mean() for beta in (1.0, 10.0, 100.0)]
    assert dense[0] > 0.9
    assert dense[1] < 0.05
    assert dense[2] < 1e-6
    assert ts.kernel_displacement(np.zeros((2, 3)), 1.0).tolist() == [0, 0]


def test_random_features_err_as_in_the_table(rng):
    # Mean |T_prf - T_dense| / m at beta m^2 = 1/2 on the sphere: about .025, .009 and .003.
    patterns = families.draw("sphere", rng, 64, 32)
    dense = sh.update(patterns, patterns, 0.5, separation="softmax")
    for features, expected in ((64, 0.025), (512, 0.009), (4096, 0.003)):
        structure = RandomFeatures(features, seed=1, orthogonal=False)
        near = sh.update(patterns, patterns, 0.5, separation="softmax", structure=structure)
        assert expected / 2 < np.linalg.norm(near - dense, axis=1).mean() < 2 * expected


@given(SEEDS)
def test_linear_weight_bound(seed):
    rng, patterns, x, _, _ = draw(seed)
    beta = float(10 ** rng.uniform(-2, 2))
    bound = ts.linear_weight_bound(patterns, beta)
    weights = sh.update(
        x, patterns, beta, values=np.eye(len(patterns)), separation="softmax", structure=LinearFeatures()
    )
    assert (weights <= bound * (1 + 1e-10)).all()
    b = beta**0.5 * np.abs(patterns).max()
    r = np.exp(b) * (1 + b)
    assert (bound <= r / (r + len(patterns) - 1) * (1 + 1e-12)).all()
    if len(patterns) > 1:  # no query comes nearer than the bound on its weight allows
        mu = int(rng.integers(len(patterns)))
        error = np.linalg.norm(weights @ patterns - patterns[mu], axis=1)
        apart = ts.hull_distance(patterns[mu], np.delete(patterns, mu, axis=0))
        assert (error >= (1 - bound[mu]) * apart - 1e-12 * np.abs(patterns).max()).all()


# --- bad input --------------------------------------------------------------------------------------------------------

X = np.eye(3)
BAD = [
    (ValueError, "k", lambda: ts.truncation(X, X, 4)),
    (ValueError, "k", lambda: ts.truncation(X, X, 0)),
    (TypeError, "k", lambda: ts.topk_energy(X, X, 1.5)),
    (ValueError, "k", lambda: ts.truncation_bound([1.0, 2.0], 3)),
    (ValueError, "scores", lambda: ts.truncation_bound(1.0, 1)),
    (ValueError, "scores", lambda: ts.truncation_bound([np.nan, 1.0], 1)),
    (ValueError, "beta", lambda: ts.truncation_bound([1.0, 2.0], 1, -1)),
    (ValueError, "beta", lambda: ts.topk_energy(X, X, 1, [1.0, 2.0])),
    (ValueError, "queries", lambda: ts.topk_energy([[np.nan, 0, 0]], X, 1)),
    (TypeError, "mask", lambda: ts.masked_error(X, X, 0, [1, 0, 1])),
    (ValueError, "mask", lambda: ts.masked_error(X, X, 0, [True, False])),
    (ValueError, "mask", lambda: ts.masked_bound(X, X, 0, [False] * 3)),
    (IndexError, "index", lambda: ts.masked_bound(X, X, 3, [True] * 3)),
    (ValueError, "points", lambda: ts.hull_distance([1.0, 2.0], X)),
    (ValueError, "points", lambda: ts.hull_distance([1.0, np.inf, 0.0], X)),
    (ValueError, "k", lambda: ts.mask_hit_probability(3, 4)),
    (ValueError, "steps", lambda: ts.mask_hit_probability(3, 2, 0)),
    (ValueError, "n_features", lambda: ts.feature_relative_variance([1.0], [1.0], 0)),
    (ValueError, "x", lambda: ts.feature_relative_variance(1.0, [1.0], 5)),
    (ValueError, "y", lambda: ts.feature_relative_variance([1.0, 2.0], [1.0, 2.0, 3.0], 5)),
    (ValueError, "relative_error", lambda: ts.features_needed([1.0], [1.0], 0.0)),
    (TypeError, "structure", lambda: ts.kernel_displacement(X, 1.0, "linear")),
    (ValueError, "beta", lambda: ts.linear_weight_bound(X, 0.0)),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input(case):
    error, name, call = BAD[case]
    with pytest.raises(error, match=rf"^{name}:"):
        call()
