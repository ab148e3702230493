"""Linear and random features: against the explicit kernel, however long the patterns, in any order of adding."""

import itertools
import tracemalloc

import numpy as np
import pytest
from helpers import LAYOUTS, SIMILARITIES, hook, name_of, quiet
from hypothesis import given
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield import reference
from sparsehopfield._engine.call import Call
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.separations import separation_code
from sparsehopfield.structures import Cost, FeatureState, LinearFeatures, RandomFeatures, _features
from sparsehopfield.studies._core import families

SOFTMAX = {"separation": "softmax"}
SEEDS = st.integers(0, 2**32 - 1)
STRUCTURES = [
    LinearFeatures(),
    LinearFeatures("relu"),
    LinearFeatures(causal=True),
    LinearFeatures("relu", causal=True),
    RandomFeatures(20),
    RandomFeatures(20, 3, orthogonal=False),
    RandomFeatures(20, causal=True),
]
KINDS = [LinearFeatures(), LinearFeatures("relu"), RandomFeatures(16)]


@pytest.fixture
def rng():
    return np.random.default_rng(2025)


def allows(structure, similarity):
    return similarity != "euclidean" or isinstance(structure, RandomFeatures)


def explicit(queries, patterns, beta, structure, **options):
    """The reference for a structure."""
    options["causal"] = structure.causal
    if isinstance(structure, LinearFeatures):
        return reference.update_linear(queries, patterns, beta, kind=structure.kind, **options)
    projection = structure.projection(np.shape(patterns)[1])
    return reference.update_random(queries, patterns, projection, beta, **options)


# --- against the explicit kernel --------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
@pytest.mark.parametrize("own_values", [False, True])
def test_update(rng, structure, similarity, own_values):
    if not allows(structure, similarity):
        pytest.skip("refused, see test_bad_input")
    patterns, x = rng.normal(size=(300, 6)), rng.normal(size=(300, 6))
    values = rng.normal(size=(300, 3)) if own_values else None
    for beta in (0.1, 1.7):
        got = sh.update(x, patterns, beta, values=values, similarity=similarity, structure=structure, **SOFTMAX)
        want = explicit(x, patterns, beta, structure, values=values, similarity=similarity)
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("structure", KINDS, ids=name_of)
def test_many_blocks(rng, structure):
    patterns, x = rng.normal(size=(2 * _features.BLOCK + 7, 4)), rng.normal(size=(_features.BLOCK + 3, 4))
    got = sh.update(x, patterns, 0.5, structure=structure, **SOFTMAX)
    for at in (slice(0, 20), slice(-20, None)):
        np.testing.assert_allclose(got[at], explicit(x[at], patterns, 0.5, structure), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1e-6, 1.0, 30.0, 200.0, 1e4, 1e100])
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_large_norms_do_not_underflow(rng, structure, size):
    # exp(-beta |x|^2/2) of the features as printed is 0 in float64 from |x| = 39 on, and the quotient NaN.
    patterns, x = rng.normal(size=(150, 5)), rng.normal(size=(150, 5))
    patterns *= size / np.linalg.norm(patterns, axis=1, keepdims=True)
    x *= size / np.linalg.norm(x, axis=1, keepdims=True)
    got = sh.update(x, patterns, structure=structure, **SOFTMAX)
    assert np.isfinite(got).all()
    assert np.linalg.norm(got, axis=1).max() <= size * (1 + 1e-12)  # a mean of patterns
    if size < 1e5:  # exponents are of the order of size^2, and their rounding errors relative errors of the weights
        atol = size * (1e-12 + 1e-14 * size**2)
        np.testing.assert_allclose(got, explicit(x, patterns, 1.0, structure), rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_lengths_of_all_sizes_at_once(rng, structure, dtype):
    # Also causal: the first queries see only patterns whose features those of later ones drown.
    patterns = rng.normal(size=(200, 5)) * np.linspace(60, 0, 200)[:, None]
    x, values = rng.normal(size=(200, 5)) * rng.choice([0.1, 40.0], (200, 1)), rng.normal(size=(200, 2))
    patterns, x, values = (a.astype(dtype) for a in (patterns, x, values))
    got = sh.update(x, patterns, 0.9, values=values, structure=structure, **SOFTMAX)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, explicit(x, patterns, 0.9, structure, values=values), rtol=0, atol=1e-4)
    if dtype == np.float64:
        np.testing.assert_allclose(got, explicit(x, patterns, 0.9, structure, values=values), rtol=0, atol=1e-9)


def test_causal_blocks_are_split_where_later_patterns_drown_earlier_ones(rng, monkeypatch):
    patterns = np.r_[60.0 * rng.normal(size=(20, 4)), 0.1 * rng.normal(size=(20, 4))]
    x = rng.normal(size=(40, 4))
    structure = RandomFeatures(8, causal=True)
    want = explicit(x, patterns, 1.0, structure)
    np.testing.assert_allclose(sh.update(x, patterns, structure=structure, **SOFTMAX), want, atol=1e-9)
    monkeypatch.setitem(_features.LEAST_NORMALISER, np.dtype(np.float64), -1.0)  # never split
    broken = sh.update(x, patterns, structure=structure, **SOFTMAX)
    assert not np.allclose(broken, want, atol=1e-3)


@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_float32_is_accurate(rng, structure):
    patterns, x = (rng.normal(size=(2000, 16)).astype(np.float32) for _ in range(2))
    exact = sh.update(*(a.astype(np.float64) for a in (x, patterns)), 0.3, structure=structure, **SOFTMAX)
    got = sh.update(x, patterns, 0.3, structure=structure, **SOFTMAX)
    assert got.dtype == np.float32
    assert np.abs(got - exact).max() < 4e-6  # of values up to 4: some ten roundings
    # one float64 input makes a float64 result
    assert sh.update(x.astype(np.float64), patterns, 0.3, structure=structure, **SOFTMAX).dtype == np.float64


@pytest.mark.parametrize("causal", [False, True])
def test_queries_that_share_no_relu_feature_get_zeros(causal):
    patterns, x = [[1.0, 0.0], [1.0, -2.0]], [[-3.0, 5.0], [2.0, 0.0]]
    got = sh.update(x, patterns, structure=LinearFeatures("relu", causal=causal), **SOFTMAX)
    np.testing.assert_allclose(got, [[0.0, 0.0], [1.0, -1.0]], atol=1e-15)


@pytest.mark.parametrize("causal", [False, True])
def test_the_size_of_beta_alone_harms_nothing(causal):
    # sqrt(beta) exceeds the largest float32, and sqrt(beta) x is of ordinary size.
    x, structure = 1e-30 * X, LinearFeatures(causal=causal)
    got = sh.update(x.astype(np.float32), x.astype(np.float32), 1e60, values=X32, structure=structure, **SOFTMAX)
    np.testing.assert_allclose(got, explicit(X, X, 1.0, structure, values=X32), rtol=1e-5)
    tiny = 1e-42 * X
    got = sh.update(tiny.astype(np.float32), tiny.astype(np.float32), 1e79, values=X32, structure=structure, **SOFTMAX)
    assert np.isfinite(got).all()


def test_beta_is_a_temperature_of_elu_and_cancels_for_relu(rng):
    patterns, x = rng.normal(size=(9, 4)), rng.normal(size=(5, 4))
    for kind, cancels in (("relu", True), ("elu+1", False)):
        a, b = (sh.update(x, patterns, beta, structure=LinearFeatures(kind), **SOFTMAX) for beta in (0.5, 8.0))
        assert np.allclose(a, b, rtol=0, atol=1e-14) == cancels


# --- random features --------------------------------------------------------------------------------------------------


def test_projection():
    structure = RandomFeatures(25, seed=4)
    w = structure.projection(10)
    assert w.shape == (25, 10)
    np.testing.assert_array_equal(w, RandomFeatures(25, seed=4).projection(10))
    assert not np.allclose(w, RandomFeatures(25, seed=5).projection(10))
    for rows in (w[:10], w[10:20], w[20:]):
        gram = rows @ rows.T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
    loose = RandomFeatures(25, seed=4, orthogonal=False).projection(10)
    assert np.abs(np.triu(loose[:10] @ loose[:10].T, 1)).max() > 0.1


@pytest.mark.parametrize("orthogonal", [False, True])
def test_projection_is_normal(orthogonal):
    # Entries of 20,000 rows, dependent in groups of 3 only: moments of a normal variable to five standard errors.
    w = RandomFeatures(20_001, orthogonal=orthogonal).projection(3).ravel()
    n = w.size / 3
    assert abs(w.mean()) < 5 / n**0.5
    assert abs((w**2).mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs((w**4).mean() - 3) < 5 * (96 / n) ** 0.5


@pytest.mark.parametrize("orthogonal", [False, True])
def test_kernel_is_unbiased(orthogonal):
    # The kernel is the ratio of the mixing weights of two states: read it from S and z of single patterns.
    x, y, beta = np.array([0.5, 0.2, -0.1]), np.array([0.1, 0.6, 0.3]), 0.7
    kernels = []
    for seed in range(400):
        w = beta**0.5 * RandomFeatures(6, seed, orthogonal=orthogonal).projection(3)
        kernels.append(np.exp(w @ (x + y) - beta * (x @ x + y @ y) / 2).mean())
    error = np.std(kernels) / len(kernels) ** 0.5
    assert abs(np.mean(kernels) - np.exp(beta * x @ y)) < 4 * error


def test_more_features_come_nearer_to_softmax(rng):
    patterns = families.draw("sphere", rng, 40, 8)
    for similarity in SIMILARITIES:
        exact = sh.update(patterns, patterns, 1.0, similarity=similarity, **SOFTMAX)
        errors = []
        for features in (16, 256, 4096):
            options = {"similarity": similarity, "structure": RandomFeatures(features), **SOFTMAX}
            errors.append(np.linalg.norm(sh.update(patterns, patterns, 1.0, **options) - exact, axis=1).mean())
        assert errors[0] > 2 * errors[1] > 4 * errors[2]
        assert errors[2] < 0.02


# --- retrieval --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_retrieve(rng, structure, similarity):
    if not allows(structure, similarity):
        pytest.skip("refused, see test_bad_input")
    patterns, values = np.abs(rng.normal(size=(12, 4))), rng.normal(size=(12, 2))
    x = np.abs(rng.normal(size=(12, 4)))
    options = {"similarity": similarity, "structure": structure, **SOFTMAX}
    with quiet():
        got, info = sh.retrieve(x, patterns, 0.8, max_steps=30, tol=1e-6, return_info=True, **options)
        mixed = sh.retrieve(x, patterns, 0.8, values=values, max_steps=30, tol=1e-6, **options)
    reach = 1e-6 * (1 if similarity == "cosine" else np.linalg.norm(patterns, axis=1).max())
    for i in range(12):
        state = x[i]
        for _ in range(info.steps[i]):
            before, others = state, x.copy()
            others[i] = state
            state = explicit(others, patterns, 0.8, structure, similarity=similarity)[i]
        np.testing.assert_allclose(got[i], state, rtol=0, atol=1e-10)
        assert info.converged[i] == (np.linalg.norm(state - before) <= reach)
        others[i] = before
        want = explicit(others, patterns, 0.8, structure, values=values, similarity=similarity)[i]
        np.testing.assert_allclose(mixed[i], want, rtol=0, atol=1e-10)
        assert info.support_size[i] == (i + 1 if structure.causal else 12)
    np.testing.assert_array_equal(info.states, got)
    assert (info.steps < 30)[info.converged].all() or info.converged.all()


def test_retrieve_says_when_it_is_not_at_rest(rng):
    x = rng.normal(size=(3, 4))
    with pytest.warns(sh.RetrievalWarning, match="3 of 3 queries"):
        sh.retrieve(x, x, 0.5, max_steps=1, structure=RandomFeatures(8), **SOFTMAX)
    state, info = sh.retrieve(x, x, max_steps=0, structure=LinearFeatures(), return_info=True, **SOFTMAX)
    np.testing.assert_array_equal(state, x)
    assert info.steps.tolist() == info.support_size.tolist() == [0, 0, 0]


def test_the_linear_kernel_has_one_limit(rng):
    # beta m^2 = 30: softmax keeps 8 patterns apart, the linear kernel brings all of them to one place.
    patterns = families.draw("sphere", rng, 64, 12)
    start = patterns[:8]
    linear, dense = (
        sh.retrieve(start, patterns, 30.0, structure=s, tol=1e-9, **SOFTMAX) for s in (LinearFeatures(), None)
    )
    assert np.ptp(linear, axis=0).max() < 1e-5
    assert len(np.unique(dense.round(3), axis=0)) == 8


@pytest.mark.parametrize("structure", [None, LinearFeatures(), RandomFeatures(64)], ids=name_of)
def test_only_softmax_is_a_gradient_map(rng, structure):
    # An energy's gradient x - T(x) has a symmetric Jacobian: the reason why there is none for features.
    patterns, x, h = rng.normal(size=(20, 5)), rng.normal(size=5), 1e-5
    steps = np.r_[x + h * np.eye(5), x - h * np.eye(5)]
    moved = sh.update(steps, patterns, 0.5, structure=structure, **SOFTMAX)
    jacobian = (moved[:5] - moved[5:]) / (2 * h)
    asymmetry = np.linalg.norm(jacobian - jacobian.T) / np.linalg.norm(jacobian)
    assert asymmetry < 1e-8 if structure is None else asymmetry > 0.05


# --- the growing state ------------------------------------------------------------------------------------------------


def log_total(state):
    """log z, whatever units it is held in."""
    with np.errstate(divide="ignore"):
        return state._top + np.log(state._total)


@given(SEEDS)
def test_add_in_any_split(seed):
    rng = np.random.default_rng(seed)
    structure = KINDS[seed % 3]
    m, d = int(rng.integers(1, 60)), int(rng.integers(1, 6))
    patterns = rng.normal(size=(m, d)) * 10 ** rng.uniform(-2, 1.5, (m, 1))
    values = rng.normal(size=(m, 3)) if rng.random() < 0.5 else None
    x, beta = rng.normal(size=(7, d)), float(10 ** rng.uniform(-1, 0.5))
    cuts = [0, *sorted(rng.integers(0, m + 1, 4)), m]
    parts = [slice(a, b) for a, b in itertools.pairwise(cuts) if a < b]
    rng.shuffle(parts)

    def of(part):
        return patterns[part], None if values is None else values[part]

    whole = structure.state(patterns, values, beta)
    grown = structure.state(*of(parts[0]), beta)
    merged = structure.state(*of(parts[0]), beta)
    for part in parts[1:]:
        grown.add(*of(part))
        left = merged.update(x)
        merged = merged.merge(structure.state(*of(part), beta))
        assert left.shape == (7, whole.update(x).shape[1])
    assert whole.n_patterns == grown.n_patterns == merged.n_patterns == m
    for state in (grown, merged):
        # A matrix product of other rows may round exponents, of some thousands, otherwise.
        np.testing.assert_allclose(state._top, whole._top, rtol=0, atol=1e-10)
        np.testing.assert_allclose(log_total(state), log_total(whole), rtol=0, atol=1e-10)
    want = explicit(x, patterns, beta, structure, values=values)
    size = np.abs(patterns if values is None else values).max()
    for state in (whole, grown, merged):
        np.testing.assert_allclose(state.update(x), want, rtol=0, atol=1e-9 * size)
    got = sh.update(x, patterns, beta, values=values, structure=structure, **SOFTMAX)
    np.testing.assert_array_equal(whole.update(x), got)


def test_a_longer_pattern_rescales_what_is_there():
    # Added one by one, each with features exp(50) to exp(5000) times those before.
    patterns = np.array([[-300.0], [-100.0], [-30.0], [-9.0], [-1.0], [0.0]])
    for structure in (LinearFeatures(), RandomFeatures(5, 1)):
        state = structure.state(patterns[:1])
        for row in patterns[1:]:
            state.add(row[None])
        assert np.isfinite(state._sum).all()
        assert (state._total >= 1).all()
        x = np.array([[-200.0], [0.0], [150.0]])
        np.testing.assert_allclose(state.update(x), explicit(x, patterns, 1.0, structure), rtol=0, atol=1e-9)


def test_state_is_what_it_says(rng):
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    state = RandomFeatures(16, 2).state(x[0], x[0][:, :2], 0.5, similarity="cosine")
    assert repr(state).startswith("<FeatureState of 3 patterns: RandomFeatures(")
    assert state.dtype == np.float32
    assert state.nbytes == 16 * (2 + 2) * 8
    assert state.update(x).shape == (2, 3, 2)
    assert state.update(x[0, 0]).shape == (2,)
    assert state.update(x[:0]).shape == (0, 3, 2)
    assert state.update(x).dtype == np.float32
    assert state.update(x.astype(np.float64)).dtype == np.float64


def test_a_failed_add_changes_nothing(rng):
    patterns = rng.normal(size=(3 * _features.BLOCK, 3))
    state = RandomFeatures(8).state(patterns[:5])
    before = state._top.copy(), state._total.copy(), state._sum.copy()
    patterns[-1, 0] = np.nan
    with pytest.raises(ValueError, match=f"patterns: row {len(patterns) - 1} contains NaN"):
        state.add(patterns)
    assert state.n_patterns == 5
    for a, b in zip(before, (state._top, state._total, state._sum), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_the_same_bits_for_any_number_of_threads(rng, structure):
    patterns, x = (rng.normal(size=(5000, 20)).astype(np.float32) for _ in range(2))
    before = sh.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        sh.set_num_threads(threads)
        results.append(sh.update(x, patterns, 0.2, structure=structure, **SOFTMAX))
    sh.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_without_memory(rng):
    patterns, fail = rng.normal(size=(600, 3)), hook("_fail_allocation")
    for causal in (False, True):
        structure = RandomFeatures(8, causal=causal)
        fail(-1)
        want = sh.update(patterns, patterns, structure=structure, **SOFTMAX)
        for n in range(fail(-1)):
            fail(n)
            with pytest.raises(MemoryError):
                sh.update(patterns, patterns, structure=structure, **SOFTMAX)
        fail(-1)
        np.testing.assert_array_equal(sh.update(patterns, patterns, structure=structure, **SOFTMAX), want)


def test_a_state_of_nothing_answers_zeros():
    for structure in KINDS:
        state = FeatureState(structure, 4, 2, 1.0, "dot", np.dtype(np.float64))
        np.testing.assert_array_equal(state.update(X), np.zeros((3, 2)))


def test_merge_leaves_both_as_they_were(rng):
    a, b = (LinearFeatures().state(rng.normal(size=(4, 3))) for _ in range(2))
    x = rng.normal(size=(5, 3))
    before = a.update(x), b.update(x)
    both = a.merge(b)
    both.add(x)
    np.testing.assert_array_equal(a.update(x), before[0])
    np.testing.assert_array_equal(b.update(x), before[1])
    assert (a.n_patterns, b.n_patterns, both.n_patterns) == (4, 4, 13)


# --- what comes in and goes out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(rng, structure, layout):
    patterns, x, values = (rng.normal(size=(140, n)) for n in (4, 4, 3))
    plain = sh.update(x, patterns, 0.6, values=values, structure=structure, **SOFTMAX)
    laid = LAYOUTS[layout]
    out = laid(np.zeros((140, 3))) if layout not in ("readonly", "negative") else None
    got = sh.update(laid(x), laid(patterns), 0.6, values=laid(values), structure=structure, out=out, **SOFTMAX)
    np.testing.assert_array_equal(got, plain)
    assert out is None or got is out


@pytest.mark.parametrize("structure", KINDS, ids=name_of)
def test_dtypes_and_shapes(rng, structure):
    whole = rng.integers(0, 5, (9, 4))
    want = explicit(whole, whole, 0.2, structure)
    for dtype in (np.uint8, np.int64, np.float16, np.float32):
        got = sh.update(whole.astype(dtype), whole.astype(dtype), 0.2, structure=structure, **SOFTMAX)
        assert got.dtype == (np.float64 if dtype is np.int64 else np.float32)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    x = rng.normal(size=(2, 3, 4))
    got = sh.update(x, whole, 0.2, structure=structure, **SOFTMAX)
    np.testing.assert_allclose(got, explicit(x, whole, 0.2, structure), rtol=0, atol=1e-12)
    assert sh.update(x[0, 0], whole, 0.2, structure=structure, **SOFTMAX).shape == (4,)
    assert sh.update(x[:0], whole, 0.2, structure=structure, **SOFTMAX).shape == (0, 3, 4)
    with np.errstate(all="raise"):
        sh.update(1e3 * x, whole, 5.0, structure=structure, **SOFTMAX)


def test_scaled_narrow_patterns(rng):
    narrow = rng.integers(0, 255, (9, 4), dtype=np.uint8)
    stored = PatternSet(narrow, None, "dot", copy=None, check_finite=True, scale=1 / 255)
    x = rng.random((5, 4))
    scale = np.float32(stored.scale)
    for structure in KINDS:
        got = Call.prepare(stored, x, 0.7, separation_code("softmax"), structure).update()
        widened = scale * narrow.astype(np.float32)  # as for every other structure
        np.testing.assert_allclose(got, explicit(x, widened, 0.7, structure), rtol=0, atol=1e-12)


X = np.random.default_rng(0).normal(size=(3, 4))
X32 = np.abs(X).astype(np.float32)
LINEAR, RANDOM = LinearFeatures(), RandomFeatures(8)
WITH_NAN = np.where(np.arange(12).reshape(3, 4) == 5, np.nan, X)


def _update(structure=RANDOM, queries=X, patterns=X, beta=1.0, **options):
    return sh.update(queries, patterns, beta, structure=structure, **{**SOFTMAX, **options})


BAD = [
    (ValueError, "kind: unknown name 'elu\\+'; did you mean 'elu\\+1'", lambda: LinearFeatures("elu+")),
    (TypeError, "kind", lambda: LinearFeatures(1)),
    (TypeError, "causal", lambda: LinearFeatures(causal=1)),
    (ValueError, "n_features", lambda: RandomFeatures(0)),
    (TypeError, "n_features", lambda: RandomFeatures(2.5)),
    (ValueError, "seed", lambda: RandomFeatures(2, -1)),
    (TypeError, "seed", lambda: RandomFeatures(2, None)),
    (TypeError, "orthogonal", lambda: RandomFeatures(2, orthogonal="yes")),
    (TypeError, "structure: .*did you mean LinearFeatures", lambda: _update(LinearFeatures)),
    (ValueError, "separation: RandomFeatures stands in", lambda: _update(separation="sparsemax")),
    (ValueError, "separation: LinearFeatures stands in", lambda: _update(LINEAR, separation=sh.Entmax(1.5))),
    (ValueError, "separation: unknown", lambda: _update(LINEAR, separation="linear")),
    (ValueError, "similarity: the kernel of LinearFeatures", lambda: _update(LINEAR, similarity="euclidean")),
    (ValueError, "similarity: unknown", lambda: RANDOM.state(X, similarity="l2")),
    (ValueError, "beta: features", lambda: _update(beta=[1.0, 2.0, 3.0])),
    (ValueError, "beta: features", lambda: _update(LINEAR, beta=[1.0, 2.0, 3.0])),
    (ValueError, "beta: must be one number", lambda: RANDOM.state(X, beta=[1.0, 2.0])),
    (ValueError, "beta: must be positive", lambda: RANDOM.state(X, beta=0)),
    (OverflowError, "beta", lambda: _update(beta=1e305)),
    (OverflowError, "beta", lambda: _update(LINEAR, X32, X32, beta=1e75)),
    (OverflowError, "beta", lambda: _update(RandomFeatures(8, causal=True), X32, X32, beta=1e75)),
    (ValueError, "queries: row 1 contains NaN", lambda: _update(queries=WITH_NAN)),
    (ValueError, "queries: row 1 contains NaN", lambda: _update(RandomFeatures(8, causal=True), queries=WITH_NAN)),
    (ValueError, "patterns: row 1 contains NaN", lambda: _update(LINEAR, patterns=WITH_NAN)),
    (ValueError, "values: row 1 contains NaN", lambda: _update(LINEAR, values=WITH_NAN)),
    (OverflowError, "patterns", lambda: _update(LINEAR, patterns=1e200 * X)),
    (OverflowError, "patterns: their sums", lambda: _update(LINEAR, X32, 1e30 * X32)),
    (OverflowError, "patterns: their sums", lambda: _update(LinearFeatures(causal=True), X32, 1e30 * X32)),
    (OverflowError, "patterns: their kernels", lambda: _update(LinearFeatures(causal=True), 1e30 * X32, 1e30 * X32)),
    (ValueError, "patterns: row 0 has length 0", lambda: _update(LINEAR, patterns=0 * X, similarity="cosine")),
    (ValueError, "queries: causal", lambda: _update(LinearFeatures(causal=True), queries=X[:2])),
    (ValueError, "structure: LinearFeatures has no energy", lambda: sh.energy(X, X, structure=LINEAR)),
    (ValueError, "structure: RandomFeatures has no list", lambda: sh.associate(X, X, top=1, structure=RANDOM)),
    (ValueError, "structure: RandomFeatures has no cand", lambda: sh.candidates(X, X, structure=RANDOM)),
    (ValueError, "return_info", lambda: sh.retrieve(X, X, structure=RANDOM, return_info="energy", **SOFTMAX)),
    (ValueError, "return_info", lambda: sh.retrieve(X, X, structure=RANDOM, return_info=["weights"], **SOFTMAX)),
    (ValueError, "separation", lambda: sh.retrieve(X, X, structure=RANDOM)),
    (ValueError, "patterns", lambda: RANDOM.state(np.empty((0, 4)))),
    (ValueError, "patterns: must have the state's 4", lambda: RANDOM.state(X).add(X[:, :3])),
    (ValueError, "values: needs one row", lambda: RANDOM.state(X, X[:2])),
    (ValueError, "values: needed", lambda: RANDOM.state(X, X).add(X)),
    (ValueError, "values: the state has none", lambda: RANDOM.state(X).add(X, X)),
    (ValueError, "values: must have the state's 4", lambda: RANDOM.state(X, X).add(X, X[:, :2])),
    (ValueError, "queries", lambda: RANDOM.state(X).update(X[:, :3])),
    (TypeError, "other", lambda: RANDOM.state(X).merge(X)),
    (ValueError, "other: differs in structure", lambda: RANDOM.state(X).merge(RandomFeatures(8, 1).state(X))),
    (ValueError, "other: differs in beta", lambda: RANDOM.state(X).merge(RANDOM.state(X, beta=2))),
    (ValueError, "other: differs in columns", lambda: RANDOM.state(X).merge(RANDOM.state(X, X))),
    (ValueError, "other: differs in dtype", lambda: RANDOM.state(X).merge(RANDOM.state(X.astype(np.float32)))),
    (ValueError, "n", lambda: RANDOM.cost(0, 1, 1)),
    (ValueError, "n: causal", lambda: LinearFeatures(causal=True).cost(2, 3, 4)),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=rf"^{message}"):
        call()


def test_check_finite_skips_the_values_only():
    for structure in (LINEAR, LinearFeatures(causal=True)):
        got = _update(structure, values=WITH_NAN, check_finite=False)
        assert np.isnan(got[-1, 1])
        assert np.isfinite(got[:, [0, 2, 3]]).all()


# --- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
@pytest.mark.parametrize(("n", "m"), [(50, 50), (1500, 1500), (10, 1300)])
def test_multiplications_are_counted(rng, monkeypatch, structure, n, m):
    if structure.causal and n != m:
        pytest.skip("as many queries as patterns")
    counted = []  # the core says how many it made

    def counting(operation):
        return lambda *arguments: counted.append(operation(*arguments))

    for name in ("features_add", "features_mix", "features_causal"):
        monkeypatch.setattr(_features._core, name, counting(getattr(_features._core, name)))
    sh.update(rng.normal(size=(n, 6)), rng.normal(size=(m, 6)), structure=structure, **SOFTMAX)
    cost = structure.cost(n, m, 6)
    assert isinstance(cost, Cost)
    assert cost.multiplications == sum(counted)


@pytest.mark.resources
@pytest.mark.parametrize(
    "structure",
    [LinearFeatures(), LinearFeatures(causal=True), RandomFeatures(256), RandomFeatures(256, causal=True)],
    ids=name_of,
)
def test_memory_is_as_said(rng, monkeypatch, structure):
    n, d, core = 8192, 32, _features._core
    most = hook("_allocated")
    allocated = []  # by the core, in each of its calls

    def measured(operation):
        def call(*arguments):
            most()
            operation(*arguments)
            allocated.append(most())

        return call

    for name in ("features_add", "features_mix", "features_causal"):
        monkeypatch.setattr(core, name, measured(getattr(core, name)))
    patterns, x = (rng.normal(size=(n, d)).astype(np.float32) for _ in range(2))
    out = np.empty_like(x)
    threads = sh.set_num_threads(2)
    tracemalloc.start()
    try:
        sh.update(x, patterns, 0.1, structure=structure, out=out, **SOFTMAX)
        peak = tracemalloc.get_traced_memory()[1] + max(allocated)
    finally:
        tracemalloc.stop()
        sh.set_num_threads(threads)
    said = structure.cost(n, n, d).bytes
    assert said / 2 < peak < 1.2 * said
    assert structure.cost(2 * n, 2 * n, d).bytes == said  # whatever the number of patterns
    assert said < n * n / 4  # far from n^2 numbers


def test_cost_is_linear_in_the_length():
    for structure in STRUCTURES:
        a, b = (structure.cost(n, n, 64).multiplications for n in (2**12, 2**17))
        assert b == 32 * a
    # the numbers of the table: dense takes 2 n^2 d
    assert RandomFeatures(256).cost(65_536, 65_536, 64).multiplications == pytest.approx(4.3e9, rel=0.01)


def test_states_are_not_made_by_hand():
    assert isinstance(RANDOM.state(X), FeatureState)
    assert (LinearFeatures(), RandomFeatures(3, 4)) == (LinearFeatures("elu+1"), RandomFeatures(3, seed=4))
    assert len({LinearFeatures(), LinearFeatures(), RandomFeatures(3)}) == 2
