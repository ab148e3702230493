"""HopfieldRegressor: what it predicts, by plain NumPy and by refits without a row; what it refuses."""

import pickle

import numpy as np
import pytest
from helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes

import sparsehopfield as sh
from sparsehopfield.estimators import HopfieldClassifier, HopfieldRegressor
from sparsehopfield.structures import TopK, Window

SEPARATIONS = ["sparsemax", "softmax", "entmax15", sh.Entmax(3.0), sh.Normmax(2.0)]


def rows(n=40, d=3, seed=0, dtype=np.float64):
    """Rows, two targets of each, and a few queries."""
    rng = np.random.default_rng(seed)
    X, Y, Q = rng.standard_normal((n, d)), rng.standard_normal((n, 2)), rng.standard_normal((7, d))
    return X.astype(dtype), Y.astype(dtype), Q.astype(dtype)


@pytest.mark.parametrize("separation", SEPARATIONS, ids=str)
@pytest.mark.parametrize("similarity", ["euclidean", "dot", "cosine"])
def test_predictions_are_means_by_the_weights_of_an_association(separation, similarity):
    X, Y, Q = rows()
    model = HopfieldRegressor(0.9, separation, similarity).fit(X, Y)
    weights = sh.reference.associate(Q, X, 0.9, separation=separation, similarity=similarity)
    np.testing.assert_allclose(model.predict(Q), weights @ Y, atol=1e-12)
    assert model.n_outputs_ == 2


def test_softmax_is_the_estimate_of_nadaraya_and_watson():
    X, Y, Q = rows()
    kernel = np.exp(-0.7 * ((Q[:, None] - X) ** 2).sum(axis=2) / 2)
    expected = kernel @ Y[:, 0] / kernel.sum(axis=1)
    np.testing.assert_allclose(HopfieldRegressor(0.7, "softmax").fit(X, Y[:, 0]).predict(Q), expected, atol=1e-12)


def test_the_shape_of_the_targets_comes_back():
    X, Y, Q = rows()
    assert HopfieldRegressor().fit(X, Y[:, 0]).predict(Q).shape == (7,)
    assert HopfieldRegressor().fit(X, Y[:, :1]).predict(Q).shape == (7, 1)
    assert HopfieldRegressor().fit(X, Y).predict_leave_one_out().shape == (40, 2)
    both = HopfieldRegressor().fit(X, Y).predict(Q)
    assert same_bits(np.ascontiguousarray(both[:, 0]), np.array(HopfieldRegressor().fit(X, Y[:, 0]).predict(Q)))


@pytest.mark.parametrize(
    ("of_rows", "of_targets", "of_predictions"),
    [
        (np.float32, np.float32, np.float32),
        (np.float32, np.float64, np.float64),
        (np.float32, np.int32, np.float64),
        (np.uint8, np.float16, np.float32),
        (np.float64, np.float32, np.float64),
    ],
)
def test_dtypes(of_rows, of_targets, of_predictions):
    X, y = (10 * np.abs(rows()[0])).astype(of_rows), np.arange(40).astype(of_targets)
    assert HopfieldRegressor().fit(X, y).predict(X).dtype == of_predictions


def test_targets_keep_their_digits_beside_float32_rows():
    X, y = np.arange(3, dtype=np.float32)[:, None], np.array([1.6e9 + 1, 1.6e9 + 2, 1.6e9 + 3])
    assert HopfieldRegressor(beta=100.0).fit(X, y).predict(X).tolist() == y.tolist()


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Normmax(2.0)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("structure", [None, TopK(4)], ids=str)
@pytest.mark.parametrize("max_steps", [1, 5])
@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
def test_leaving_one_out_is_refitting_without_it(separation, dtype, structure, max_steps):
    X, Y, _ = rows(dtype=dtype)
    model = HopfieldRegressor(2.0, separation, max_steps=max_steps, structure=structure)
    found = model.fit(X, Y).predict_leave_one_out()
    for i in range(len(X)):
        left = np.arange(len(X)) != i
        assert same_bits(found[i : i + 1], model.fit(X[left], Y[left]).predict(X[i : i + 1]))


def test_softmax_leaving_one_out_is_refitting_up_to_rounding():
    X, Y, _ = rows()
    model = HopfieldRegressor(0.5, "softmax")
    found = model.fit(X, Y).predict_leave_one_out()
    refits = [model.fit(np.delete(X, i, 0), np.delete(Y, i, 0)).predict(X[i : i + 1])[0] for i in range(len(X))]
    np.testing.assert_allclose(found, refits, atol=1e-14)


@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(1e-3, 1e3), n=st.integers(1, 12))
def test_predictions_lie_between_the_targets(seed, beta, n):
    X, Y, Q = rows(n=n, seed=seed)
    found = HopfieldRegressor(beta).fit(X, Y).predict(Q)
    room = 1e-14 * np.abs(Y).max()
    assert (found >= Y.min(axis=0) - room).all()
    assert (found <= Y.max(axis=0) + room).all()


@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(1e-3, 1e3))
def test_a_row_does_not_see_its_own_targets(seed, beta):
    X, Y, _ = rows(n=12, seed=seed)
    model = HopfieldRegressor(beta)
    before = model.fit(X, Y).predict_leave_one_out()
    Y[5] += 100
    assert same_bits(before[5], model.fit(X, Y).predict_leave_one_out()[5])


def test_beta_auto_predicts_rows_that_do_not_see_themselves():
    X, y = load_diabetes(return_X_y=True)
    model = HopfieldRegressor("auto", "softmax").fit(X, y)

    def error(beta):
        return ((HopfieldRegressor(beta, "softmax").fit(X, y).predict_leave_one_out() - y) ** 2).mean()

    assert error(model.beta_) <= min(error(model.beta_ / 4), error(model.beta_ * 4))
    assert model.memory_.beta == model.beta_
    assert model.score(X, y) > 0.4


def test_a_stored_row_that_is_certified_gets_its_own_targets():
    X, Y, _ = rows()
    model = HopfieldRegressor(50.0).fit(X, Y)
    assert 0 < model.certified_.mean() <= 1
    assert same_bits(model.predict(X)[model.certified_], Y[model.certified_])


def test_pickles_predict_alike():
    X, Y, Q = rows()
    model = HopfieldRegressor().fit(X, Y, sample_weight=np.arange(40.0))
    again = pickle.loads(pickle.dumps(model))
    assert same_bits(again.predict(Q), model.predict(Q))
    again.partial_fit(X[:2], Y[:2])
    assert same_bits(again.predict(Q), model.partial_fit(X[:2], Y[:2]).predict(Q))


GOOD = np.eye(3), np.arange(3.0)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"beta": -1}, GOOD, r"beta: must be positive"),
        ({"beta": "best"}, GOOD, r"beta: must be a positive number or 'auto', got 'best'"),
        ({"separation": sh.Polynomial(3)}, GOOD, r"separation: the weights of Polynomial\(order=3\) are no"),
        ({"similarity": "l2"}, GOOD, r"similarity: unknown name 'l2'"),
        ({}, (np.eye(3), [1, 2]), r"X, y: Found input variables with inconsistent"),
        ({}, (np.eye(3), [1, 2, np.nan]), r"X, y: Input y contains NaN"),
        ({}, (np.eye(3), np.zeros((3, 0))), r"X, y: |y: must have shape \(M,\) or \(M, n_outputs\)"),
        ({}, (np.eye(3), np.zeros((3, 1, 1))), r"X, y: |y: "),
        ({}, (np.full((3, 3), np.inf), [1, 2, 3]), r"X, y: Input X contains infinity"),
        ({}, (np.eye(3), ["a", "b", "c"]), r"y: must be real numbers"),
        ({}, (np.eye(3), [1, 2, 3], [1, -1, 1]), r"sample_weight: must be finite and at least 0, got -1"),
        ({}, (np.eye(3), [1, 2, 3], [1, 1]), r"sample_weight: must have shape \(3,\), got \(2,\)"),
        ({}, (np.eye(3), [1, 2, 3], [0, 0, 0]), r"sample_weight: at least one must be positive; all are zero"),
        ({}, (np.eye(3), [1, 2, 3], ["a"] * 3), r"sample_weight: must be real numbers"),
        ({"structure": TopK(2)}, (*GOOD, [1, 2, 3]), r"sample_weight: under a structure each must be 0 or 1"),
    ],
    ids=lambda case: None,
)
def test_what_is_refused_changes_nothing(options, arguments, message):
    model = HopfieldRegressor().fit(np.arange(8.0).reshape(4, 2), np.arange(4))
    before, answers = dict(vars(model)), model.predict([[1.0, 2.0]])
    with pytest.raises((ValueError, TypeError), match=message):
        model.set_params(**options).fit(*arguments)
    model.set_params(**{name: before[name] for name in options})
    assert vars(model) == before
    assert same_bits(model.predict([[1.0, 2.0]]), answers)


def test_one_row_cannot_be_left_out():
    model = HopfieldRegressor().fit([[1.0]], [1.0])
    with pytest.raises(ValueError, match=r"X: needs at least two rows to leave one out, but one is stored"):
        model.predict_leave_one_out()


def test_structures_that_leave_no_row_out():
    model = HopfieldRegressor(structure=Window(2)).fit(np.eye(4), np.arange(4))
    with pytest.raises(ValueError, match=r"structure: rows can be left out of all pairs and of TopK, got Window"):
        model.predict_leave_one_out()


def test_as_of_one_neighbour_it_agrees_with_the_classifier():
    X, Y, Q = rows()
    y = (Y[:, 0] > 0).astype(int)
    share = HopfieldClassifier(3.0).fit(X, y).predict_proba(Q)[:, 1]
    np.testing.assert_allclose(HopfieldRegressor(3.0).fit(X, y).predict(Q), share, atol=1e-14)
