"""Retrieval as soft-margin regression: where it is the memory's update in closed form, and where it is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from sklearn.svm import SVR, LinearSVR

import sparsehopfield as sh
from sparsehopfield.structures import (
    BlockSparse,
    DilatedBlocks,
    LinearFeatures,
    RandomFeatures,
    RandomMask,
    TopK,
    Window,
)
from sparsehopfield.structures._features import log_kernel
from sparsehopfield.theory.nonparametric import NonparametricHopfield

SEEDS = st.integers(0, 2**32 - 1)
KERNELS = ["exponential", "linear", LinearFeatures("relu"), RandomFeatures(32), RandomFeatures(16, 3), "dot"]
SOME = [TopK(1), TopK(3), Window(1), Window(2, causal=True), RandomMask(3), BlockSparse(np.eye(3) > 0, (4, 4))]


def draw(seed, m=12, shift=None):
    """Memories, noisy queries of them, and as many other queries."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 6))
    memories = rng.normal(size=(m, d)) + (rng.choice([0.0, 2.0]) if shift is None else shift)
    return memories, memories + rng.choice([0.0, 0.3]) * rng.normal(size=(m, d)), rng.normal(size=(m, d))


@pytest.fixture
def pairs():
    return draw(7, shift=0.0)


def exponential(x, y, beta):
    return np.exp(beta * x @ y.T)


# --- where the update is the closed form ----------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@given(seed=SEEDS, similarity=st.sampled_from(["dot", "cosine", "euclidean"]))
def test_all_margins_exceeded_is_the_memory(kernel, seed, similarity):
    if (similarity == "euclidean" and ("inear" in str(kernel))) or (kernel == "dot" and similarity != "dot"):
        return  # there is no such kernel
    memories, queries, others = draw(seed)
    beta = float(10 ** np.random.default_rng(seed).uniform(-1, 0.5))
    model = NonparametricHopfield(kernel, beta=beta, similarity=similarity).fit(memories, queries)
    assert model.fit_.is_closed_form
    assert model.fit_.violation <= 1e-14 * abs(memories).max()
    scale = abs(model.closed_form(others)).max()
    assert np.allclose(model.update(others), model.closed_form(others), rtol=0, atol=1e-10 * scale)
    assert np.allclose(model.predict(others), model.fit_.C * model.closed_form(others), rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("structure", SOME, ids=str)
@given(seed=SEEDS)
def test_structures_are_regressions_to_the_pairs_seen(structure, seed):
    memories, queries, others = draw(seed)
    model = NonparametricHopfield(structure=structure, beta=1.5).fit(memories, queries)
    assert model.fit_ is None
    expected = sh.update(others, queries, 1.5, values=memories, separation="softmax", structure=structure)
    assert np.allclose(model.update(others), expected, rtol=0, atol=1e-10 * abs(memories).max())


def test_scores_too_large_for_exp():
    memories, queries, others = (30 * a for a in draw(1))
    model = NonparametricHopfield(beta=3.0).fit(memories, queries)
    assert np.allclose(model.update(others), model.closed_form(others), rtol=0, atol=1e-9)
    assert model.fit_.is_closed_form


def test_linear_features_too_small_for_float64():
    memories = np.array([[-800.0, -900.0], [-810.0, -905.0]])
    for others in (memories, np.array([[-790.0, -950.0], [1.0, -1000.0], [0.0, 0.0]])):
        model = NonparametricHopfield("linear").fit(memories)
        expected = sh.reference.update_linear(others, memories)
        assert model.fit_.is_closed_form
        assert np.allclose(model.update(others), expected, rtol=1e-11, atol=0)
        assert np.allclose(model.closed_form(others), expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean"])
@pytest.mark.parametrize("features", [LinearFeatures(), LinearFeatures("relu"), RandomFeatures(9)], ids=str)
def test_kernel_of_features(features, similarity):
    if isinstance(features, LinearFeatures) and similarity == "euclidean":
        return  # there is no such kernel
    x, rows = np.random.default_rng(0).normal(size=(2, 5, 3))
    a, b = (0.7**0.5 * t for t in (x, rows))
    if isinstance(features, RandomFeatures):
        of_length = 1.0 if similarity == "euclidean" else 0.5
        phi = [np.exp(t @ features.projection(3).T - of_length * (t**2).sum(axis=1)[:, None]) / 3 for t in (a, b)]
    elif features.kind == "relu":
        phi = [np.maximum(t, 0) for t in (a, b)]
    else:
        phi = [np.where(t > 0, 1 + t, np.exp(t)) for t in (a, b)]
    found = log_kernel(features, x, rows, 0.7, similarity)
    assert np.allclose(np.exp(found), phi[0] @ phi[1].T, rtol=1e-12, atol=0)


def test_queries_that_share_no_feature_get_zeros():
    model = NonparametricHopfield(LinearFeatures("relu")).fit([[1.0, 0.0], [2.0, 0.0]])
    assert model.update([[-1.0, 3.0], [4.0, -1.0]]).tolist() == [[0.0, 0.0], [5 / 3, 0.0]]


# --- against libraries ----------------------------------------------------------------------------------------------


def kernel_of_pairs(queries, beta):
    """The kernel of Phi / h, and h."""
    k = exponential(queries, queries, beta)
    h = k.sum(axis=1)
    return k / np.outer(h, h), h


@pytest.mark.parametrize("C", [0.01, 0.7, 20.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_libsvm_finds_the_same(pairs, C, epsilon):
    # Without an intercept: every pair is there twice, with both signs, so that the best intercept is 0.
    memories, queries, others = pairs
    K, h = kernel_of_pairs(queries, 0.5)
    scale = K.max()
    model = NonparametricHopfield(beta=0.5, C=C, epsilon=epsilon).fit(memories, queries)
    weights = exponential(others, queries, 0.5)
    weights /= weights.sum(axis=1, keepdims=True)
    both = np.block([[K, -K], [-K, K]]) / scale
    for i, y in enumerate(memories.T):
        cost = np.tile(h * abs(y), 2)
        svr = SVR(kernel="precomputed", C=C / 2 * scale, epsilon=epsilon, tol=1e-9, max_iter=10**6)
        svr.fit(both, np.concatenate([y, -y]), sample_weight=cost)
        dual = np.zeros(2 * len(y))
        dual[svr.support_] = svr.dual_coef_[0]
        a = (dual[: len(y)] - dual[len(y) :]) / scale  # of K's own scale
        found, expected = weights @ (a / h), model.predict(others)[:, i]
        assert np.allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())  # its kernel is float32


def test_liblinear_finds_the_same(pairs):
    memories, queries, _ = pairs
    features = linalg.sqrtm(queries @ queries.T + 1e-3 * np.eye(len(queries))).real  # any: rows are points
    model = NonparametricHopfield("dot", C=0.05, epsilon=0.1, cost="uniform", tol=1e-12).fit(memories, features)
    for i, y in enumerate(memories.T):
        svr = LinearSVR(C=0.05, epsilon=0.1, fit_intercept=False, dual=True, tol=1e-10, max_iter=10**6)
        svr.fit(features, y)
        assert np.allclose(svr.predict(features), model.predict(features)[:, i], rtol=0, atol=1e-7)


# --- costs of errors from little to much ----------------------------------------------------------------------------


def test_critical_cost_is_where_the_equality_ends(pairs):
    memories, queries, others = pairs
    critical = NonparametricHopfield().fit(memories, queries).fit_.critical_C
    below = NonparametricHopfield(C=0.999 * critical).fit(memories, queries)
    above = NonparametricHopfield(C=1.01 * critical).fit(memories, queries)
    assert below.fit_.is_closed_form
    assert not above.fit_.is_closed_form
    assert np.allclose(below.update(others), below.closed_form(others), rtol=0, atol=1e-12)
    assert abs(above.update(others) - above.closed_form(others)).max() > 1e-5


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_at_a_high_cost_every_pair_is_answered_within_the_margin(pairs, epsilon):
    memories, queries, _ = pairs
    options = {"similarity": "euclidean", "C": 1e6, "epsilon": epsilon}
    model = NonparametricHopfield(beta=3.0, **options).fit(memories, queries)
    assert abs(model.update(queries) - memories).max() <= epsilon + 1e-7
    assert abs(model.closed_form(queries) - memories).max() > 0.1


def test_classical_network_from_outer_products_to_projections():
    rng = np.random.default_rng(3)
    X = np.where(rng.random((4, 20)) < 0.5, 1.0, -1.0)
    few = NonparametricHopfield("dot").fit(X)
    assert np.allclose(few.update(np.eye(20)), X.T @ X, rtol=0, atol=1e-12)
    many = NonparametricHopfield("dot", C=1e3, tol=1e-12).fit(X)
    assert np.allclose(many.predict(np.eye(20)), np.linalg.pinv(X) @ X, rtol=0, atol=1e-9)


# --- where it is not ------------------------------------------------------------------------------------------------


def proportional(a, b):
    factor = (a * b).sum() / (b * b).sum()
    return np.allclose(a, factor * b, rtol=0, atol=1e-10 * abs(a).max())


def test_equal_costs_give_the_memory_only_for_signs_of_equal_mass():
    signs = linalg.hadamard(8)[1:6].astype(float)  # equal distances, so that all h are equal
    others = np.random.default_rng(0).normal(size=(9, 8))
    model = NonparametricHopfield(beta=0.2, cost="uniform").fit(signs)
    assert proportional(model.predict(others), model.closed_form(others))
    for memories in (signs * [1, 1, 1, 1, 1, 1, 1, 2], signs[[0, 0, 1, 2, 3]] * 1.0):  # no signs; unequal masses
        model = NonparametricHopfield(beta=0.2, cost="uniform").fit(memories)
        assert model.fit_.is_closed_form  # all margins are exceeded, and yet
        assert not proportional(model.predict(others), model.closed_form(others))


def test_an_intercept_makes_it_another_model(pairs):
    memories, queries, _ = pairs
    K, h = kernel_of_pairs(queries, 0.5)
    y = memories[:, 0]
    svr = SVR(kernel="precomputed", C=1e-3 / K.max(), epsilon=0.0, tol=1e-9)
    svr.fit(K / K.max(), y, sample_weight=h * abs(y))
    assert abs(svr.dual_coef_.sum()) < 1e-6 * abs(svr.dual_coef_).max()  # the memories' sum is not 0
    assert abs((h * y).sum()) > 0.1 * (h * abs(y)).max()


def test_sparsemax_is_no_quotient_of_kernels():
    # The weights of two patterns have the ratio of their kernels, whatever else is stored; under sparsemax not.
    x, X = np.array([1.0, 0.2]), np.array([[1.0, 0.0], [0.5, 0.5], [0.8, 0.4]])
    for separation, same in (("softmax", True), ("sparsemax", False)):
        weights = [sh.reference.associate(x, rows, 0.5, separation=separation)[0] for rows in (X, X[:2])]
        assert np.isclose(weights[0][0] / weights[0][1], weights[1][0] / weights[1][1]) == same


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "rbf"}, "kernel: "),
        ({"kernel": RandomFeatures(4, causal=True)}, "kernel: causal"),
        ({"kernel": "linear", "similarity": "euclidean"}, "similarity: "),
        ({"kernel": "dot", "similarity": "cosine"}, "similarity: "),
        ({"structure": LinearFeatures()}, "structure: "),
        ({"C": 0.0}, "C: "),
        ({"epsilon": -1.0}, "epsilon: "),
        ({"cost": "mean"}, "cost: "),
        ({"beta": [1.0, 2.0]}, "beta: "),
        ({"max_iter": 0}, "max_iter: "),
    ],
    ids=str,
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        NonparametricHopfield(**options)


def test_bad_pairs_are_named(pairs):
    memories, queries, others = pairs
    model = NonparametricHopfield()
    with pytest.raises(ValueError, match="memories: none are there yet"):
        model.update(others)
    with pytest.raises(ValueError, match="queries: must be one for each of the 12 memories, got 11"):
        model.fit(memories, queries[1:])
    with pytest.raises(ValueError, match=r"epsilon: at 100\.0 no C"):
        NonparametricHopfield(epsilon=100.0).fit(memories)
    with pytest.raises(ValueError, match="queries: row 0 has length 0"):
        NonparametricHopfield(similarity="cosine").fit(memories, queries * 0)
    with pytest.raises(ValueError, match="positions: must be at least one"):
        model.fit(memories).regression([])
    with pytest.raises(ValueError, match="structure: no memory has both"):
        NonparametricHopfield("linear", TopK(2)).fit(memories).closed_form(others)
    kept = model.update(others)
    model.epsilon = 1e9
    with pytest.raises(ValueError, match="epsilon: "):
        model.fit(2 * memories)
    assert np.array_equal(model.update(others), kept)  # as it was


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_whatever_stops_a_fit_leaves_the_last_one(pairs, error, monkeypatch):
    memories, queries, others = pairs
    model = NonparametricHopfield().fit(memories, queries)
    kept = model.update(others)

    def stop(self, positions=None):
        raise error

    monkeypatch.setattr(NonparametricHopfield, "regression", stop)
    with pytest.raises(error):
        model.fit(2 * memories[:5])
    assert np.array_equal(model.update(others), kept)
    fresh = NonparametricHopfield()
    with pytest.raises(error):
        fresh.fit(memories)
    assert not hasattr(fresh, "memories_")


@pytest.mark.parametrize(
    ("memories", "options", "needed"),
    [
        ([[0.5, 2.0], [1.0, 3.0]], {"epsilon": 0.5}, r"must be below 0\.5,"),
        ([[0.0, 2.0], [0.5, 1.0]], {"epsilon": 0.5, "cost": "uniform"}, r"must be below 0\.5,"),
        ([[0.0, 2.0], [0.5, 1.0]], {"cost": "uniform"}, "must be positive, as memories have entries that are 0"),
        ([[1e-300], [1e100]], {}, "is below the smallest float64"),
    ],
    ids=str,
)
def test_what_a_closed_form_needs_of_epsilon(memories, options, needed):
    with pytest.raises(ValueError, match=f"epsilon: .*{needed}"):
        NonparametricHopfield(**options).fit(memories)


def test_uniform_costs_and_zeros_with_a_margin():
    model = NonparametricHopfield(cost="uniform", epsilon=0.1).fit([[0.0, 2.0], [0.5, 1.0]])
    assert model.fit_.is_closed_form


@pytest.mark.parametrize("structure", [Window(2), DilatedBlocks(3), BlockSparse(np.eye(3) > 0, (4, 4))], ids=str)
def test_structures_have_places_for_so_many_queries(pairs, structure):
    memories, queries, others = pairs
    model = NonparametricHopfield(structure=structure).fit(memories, queries)
    for ask in (model.update, model.predict, model.closed_form):
        with pytest.raises(ValueError, match="queries: do not fit the structure"):
            ask(others[:3])


def test_places_of_queries_are_those_of_the_structure(pairs):
    memories, queries, others = pairs
    model = NonparametricHopfield(structure=Window(2, positions=[1, 7, 11])).fit(memories, queries)
    assert np.allclose(model.update(others[:3]), model.closed_form(others[:3]), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="queries: do not fit the structure"):
        model.update(others)


def test_too_few_passes_warn(pairs):
    with pytest.warns(sh.RetrievalWarning, match="after 1 passes"):
        NonparametricHopfield(beta=0.1, C=100.0, max_iter=1).fit(pairs[0])


def test_zeros_and_one_pair():
    model = NonparametricHopfield().fit([[0.0, 2.0], [1.0, 0.0]])
    assert np.allclose(model.update([0.0, 0.0]), [0.5, 1.0], rtol=0, atol=1e-15)
    assert NonparametricHopfield().fit([[3.0]]).update([[5.0]]).tolist() == [[3.0]]
