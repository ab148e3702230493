"""Certificates of retriever and classifier: what they claim is so, in exact arithmetic, and not only near it."""

import numpy as np
import pytest
from helpers import exact_scores, exact_sparsemax, same_bits
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_iris

import sparsehopfield as sh
from sparsehopfield.estimators import HopfieldClassifier, HopfieldRegressor, HopfieldRetriever
from sparsehopfield.structures import TopK, Window


def data(seed=0, n=30, d=3):
    """Rows, classes that follow the place, and queries, some of them stored rows."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, (X[:, 0] > 0).astype(int), np.concatenate([rng.standard_normal((10, d)), X[:5]])


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Entmax(3.0), sh.Normmax(2.0)], ids=str)
@pytest.mark.parametrize("similarity", ["euclidean", "dot", "cosine"])
@pytest.mark.parametrize("max_steps", [1, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
def test_certified_rows_are_retrieved_to_the_bit(separation, similarity, max_steps, dtype):
    X, _, Q = (a.astype(dtype) for a in data())
    beta = 60.0 if similarity == "cosine" else 12.0
    model = HopfieldRetriever(beta, separation, similarity, max_steps).fit(X)
    clean, certified = model.transform(Q, return_certificate=True)
    assert same_bits(clean, model.transform(Q))
    assert certified.dtype == bool
    assert 0 < certified.sum() < len(Q)
    unit = model.memory_._snapshot.certificates.rows()
    stored = {row.tobytes() for row in (unit if similarity == "cosine" else X)}
    assert all(row.tobytes() in stored for row in clean[certified])
    assert np.array_equal(model.certified_, model.memory_.is_certified())
    again = model.transform(unit if similarity == "cosine" else X)
    assert same_bits(again[model.certified_], (unit if similarity == "cosine" else X)[model.certified_])


@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(0.1, 100))
def test_certified_classes_have_all_weight_in_exact_arithmetic(seed, beta):
    X, y, Q = data(seed, n=12)
    model = HopfieldClassifier(beta).fit(X, y)
    answers, certified = model.predict(Q, return_certificate=True)
    for query, answer in zip(Q[certified], answers[certified], strict=True):
        scores = exact_scores(query[None], X, "euclidean")[0]
        weights = exact_sparsemax([type(scores[0])(beta) * s for s in scores])[0]
        assert all(c == answer for c, p in zip(y, weights, strict=True) if p > 0)
    proba = model.predict_proba(Q)
    assert (proba[certified].max(axis=1) == 1).all()
    # Nothing but a narrow margin may stand between a pure list and its certificate.
    assert np.count_nonzero((proba.max(axis=1) == 1) & ~certified) <= 1


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Entmax(3.0), sh.Normmax(2.0)], ids=str)
@pytest.mark.parametrize("similarity", ["euclidean", "dot", "cosine"])
def test_many_rows_of_one_class_certify_as_well_as_one(separation, similarity):
    X, y = load_iris(return_X_y=True)
    model = HopfieldClassifier(3.0, separation, similarity).fit(X[::2], y[::2])
    _, certified = model.predict(X[1::2], return_certificate=True)
    one_row = model.memory_.certify(X[1::2]).index >= 0
    assert not (one_row & ~certified).any()
    pure = model.predict_proba(X[1::2]).max(axis=1) == 1
    assert not (certified & ~pure).any()
    if similarity == "euclidean":
        assert certified.sum() > one_row.sum()
        assert certified.sum() >= 0.9 * pure.sum()


def test_a_tie_of_two_classes_is_not_certified():
    model = HopfieldClassifier(100.0).fit([[0.0], [1.0]], [0, 1])
    _, certified = model.predict([[0.5], [0.5 - 1e-12], [0.4]], return_certificate=True)
    assert certified.tolist() == [False, False, True]
    at_the_cutoff = HopfieldClassifier(2.0).fit([[0.0], [1.0]], [0, 1])  # the gap at 0 is 1/2 = 1/beta
    assert at_the_cutoff.predict_proba([[0.0]]).tolist() == [[1.0, 0.0]]
    assert at_the_cutoff.predict([[0.0]], return_certificate=True)[1].tolist() == [False]


def test_where_scores_are_rounded_no_class_is_certain():
    """Far from the origin dot products lose the digits that decide, although the computed lists are of one class."""
    y = np.array([0, 1])
    for shift, certain in ((0.0, True), (1e8, False)):
        X = np.array([[shift], [shift + 1.0]])
        model = HopfieldClassifier(2.0, similarity="dot").fit(X, y)
        query = [[shift + 1.0]]
        assert model.predict_proba(query).max() == 1
        assert model.predict(query, return_certificate=True)[1].tolist() == [certain]


def test_copies_of_a_class_are_certified_as_a_class_but_not_as_rows():
    X, y = np.array([[0.0], [0.0], [3.0]]), [1, 1, 2]
    model = HopfieldClassifier(4.0).fit(X, y)
    assert model.certified_.tolist() == [False, False, True]
    assert model.predict([[0.1]], return_certificate=True)[1].tolist() == [True]


def test_with_more_steps_the_row_reached_must_stay():
    X, y = np.array([[0.0], [1.0], [1.4]]), [0, 1, 0]
    model = HopfieldClassifier(2.5, max_steps=50).fit(X, y)
    _, certified = model.predict([[-5.0], [5.0]], return_certificate=True)
    assert certified.tolist() == [True, False]  # 5 goes to 1.4 in one step, and not from there to itself
    assert HopfieldRetriever(2.5, max_steps=1).fit(X).transform([[5.0]], return_certificate=True)[1].tolist() == [True]


def test_of_the_k_best_rows_the_same_is_certified():
    X, y = load_digits(return_X_y=True)
    plain, best = (HopfieldClassifier(0.02, structure=s).fit(X[:500], y[:500]) for s in (None, TopK(3)))
    _, certified = plain.predict(X[500:600], return_certificate=True)
    _, also = best.predict(X[500:600], return_certificate=True)
    assert np.array_equal(certified, also)
    assert certified.any()
    assert (best.predict_proba(X[500:600])[certified].max(axis=1) == 1).all()


@pytest.mark.parametrize("model", [HopfieldRetriever, HopfieldClassifier, HopfieldRegressor])
def test_maps_without_a_cutoff_certify_nothing(model):
    X, y, Q = data()
    fitted = model(separation="softmax").fit(X, y)
    with pytest.raises(ValueError, match=r"separation: maps that give weight to every pattern, as softmax"):
        _ = fitted.certified_
    assert not hasattr(fitted, "certified_")
    for answer in ("transform", "predict"):
        if model is not HopfieldRegressor and hasattr(fitted, answer):
            with pytest.raises(ValueError, match=r"separation: maps that give weight to every pattern"):
                getattr(fitted, answer)(Q, return_certificate=True)


def test_structures_that_certify_nothing():
    X, y, _ = data()
    fitted = HopfieldClassifier(structure=Window(3)).fit(X, y)
    with pytest.raises(ValueError, match=r"structure: "):
        fitted.predict(X, return_certificate=True)
    with pytest.raises(ValueError, match=r"structure: "):
        _ = fitted.certified_
