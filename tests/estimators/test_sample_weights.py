"""Sample weights: whole ones against copies of rows, all others against the conditions of the maps, solved plainly."""

import numpy as np
import pytest
from helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield.estimators import (
    HopfieldClassifier,
    HopfieldMILClassifier,
    HopfieldOutlierDetector,
    HopfieldRegressor,
    HopfieldRetriever,
)
from sparsehopfield.estimators import _sample_weights as weights
from sparsehopfield.structures import TopK

SEPARATIONS = [
    "sparsemax",
    "softmax",
    "entmax15",
    *map(sh.Entmax, (1.0, 1.001, 1.2, 3.0, 10.0)),
    *map(sh.Normmax, (1.2, 2.0, 5.0)),
]


def rows(n=40, d=3, seed=0):
    """Rows, their targets and classes, whole weights with zeros among them, and queries."""
    rng = np.random.default_rng(seed)
    X, Y, Q = rng.standard_normal((n, d)), rng.standard_normal((n, 2)), rng.standard_normal((9, d))
    return X, Y, rng.integers(0, 3, n), rng.integers(0, 5, n), Q


@pytest.mark.parametrize("separation", SEPARATIONS, ids=str)
@pytest.mark.parametrize("similarity", ["euclidean", "dot", "cosine"])
@pytest.mark.parametrize("max_steps", [1, 50])
@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
def test_a_row_of_weight_w_counts_as_w_copies(separation, similarity, max_steps):
    X, Y, y, w, Q = rows()
    model = {"beta": 0.7, "separation": separation, "similarity": similarity}
    steps = {"max_steps": max_steps}
    for estimator, targets, answer in (
        (HopfieldRegressor(**model, **steps), Y, "predict"),
        (HopfieldClassifier(**model, **steps), y, "predict_proba"),
        (HopfieldRetriever(**model, **steps), y, "transform"),
        (HopfieldOutlierDetector(**model, novelty=True), y, "decision_function"),
    ):
        copies = getattr(estimator.fit(X.repeat(w, 0), targets.repeat(w, 0)), answer)(Q)
        weighted = getattr(estimator.fit(X, targets, sample_weight=w), answer)(Q)
        np.testing.assert_allclose(weighted, copies, rtol=1e-9, atol=1e-10)


def solved(scores, w, separation):
    """The shares w p of rows with these scores times beta, one query, by bisection of the map's condition."""
    z = scores - scores.max()
    alpha = {"softmax": 1.0, "sparsemax": 2.0, "entmax15": 1.5}.get(separation) or separation.value
    if alpha == 1:
        p = np.exp(z)
        return w * p / (w @ p)
    a, is_norm = alpha - 1, isinstance(separation, sh.Normmax)

    def powers(t):
        return np.maximum((1 if is_norm else a) * z + t, 0) ** (1 / a)

    low, high = 0.0, 1.0
    while w @ powers(high) ** (alpha if is_norm else 1) < 1:
        high *= 2
    for _ in range(200):
        t = (low + high) / 2
        low, high = (low, t) if w @ powers(t) ** (alpha if is_norm else 1) > 1 else (t, high)
    p = powers(high)
    return w * p / (w @ p)


@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.floats(0, 6),
    beta=st.floats(0.01, 30),
    separation=st.sampled_from(["softmax", "sparsemax", "entmax15", sh.Entmax(1.2), sh.Entmax(3.0), sh.Normmax(2.0)]),
)
def test_any_weights_solve_the_conditions_of_the_map(seed, exponent, beta, separation):
    X, Y, *_, Q = rows(n=15, seed=seed)
    # At alpha 3 a share is the root of a difference, and what bisection is off by grows with the ratio of weights.
    exponent = min(exponent, 2) if separation == sh.Entmax(3.0) else exponent
    w = 10 ** np.random.default_rng(seed).uniform(-exponent, exponent, 15)
    scores = -beta * ((Q[:, None] - X) ** 2).sum(axis=2) / 2
    expected = np.array([solved(z, w, separation) @ Y for z in scores])
    found = HopfieldRegressor(beta, separation).fit(X, Y, sample_weight=w).predict(Q)
    np.testing.assert_allclose(found, expected, atol=1e-6 if separation == sh.Entmax(3.0) else 1e-9)


@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(0, 8), separation=st.sampled_from(SEPARATIONS[:8]))
def test_lists_hold_all_rows_that_have_a_share(seed, exponent, separation):
    """No row that is left out has a share: lists with all rows, of next to no beta, give the same."""
    X, Y, *_, Q = rows(n=15, seed=seed)
    w = 10 ** np.random.default_rng(seed).uniform(-exponent, exponent, 15)
    model = HopfieldRegressor(1.0, separation).fit(X, Y, sample_weight=w)
    found = model.predict(Q)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "WIDER", 1e-12)
        patch.setattr(weights, "NEGLIGIBLE", 0.0)
        np.testing.assert_allclose(found, model.predict(Q), rtol=1e-9, atol=1e-12)


def test_many_queries_are_listed_a_few_at_a_time():
    X, Y, _, w, Q = rows()
    model = HopfieldRegressor().fit(X, Y, sample_weight=w)
    whole = model.predict(Q)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "MOST_LISTED", 2 * np.count_nonzero(w))
        assert same_bits(model.predict(Q), whole)


@pytest.mark.parametrize("separation", SEPARATIONS, ids=str)
def test_equal_weights_are_another_beta(separation):
    X, Y, _, _, Q = rows()
    found = HopfieldRegressor(0.7, separation).fit(X, Y, sample_weight=3.0).predict(Q)
    copies = HopfieldRegressor(0.7, separation).fit(X.repeat(3, 0), Y.repeat(3, 0)).predict(Q)
    np.testing.assert_allclose(found, copies, rtol=1e-9)


@pytest.mark.parametrize("weight", [1 / 40, 100.0])
@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Normmax(2.0), "softmax"], ids=str)
def test_beta_auto_allows_for_the_size_of_weights(separation, weight):
    X, Y, classes, _, Q = rows()
    for model, y in ((HopfieldRegressor("auto", separation), Y), (HopfieldClassifier("auto", separation), classes)):
        answer = [getattr(model, name, None) for name in ("predict_proba", "predict")]
        predict = next(name for name, method in zip(("predict_proba", "predict"), answer, strict=True) if method)
        plain = getattr(model.fit(X, y), predict)(Q)
        weighted = getattr(model.fit(X, y, sample_weight=np.full(len(X), weight)), predict)(Q)
        np.testing.assert_allclose(weighted, plain, rtol=1e-9, atol=1e-9)


def test_weights_of_1_and_0_change_no_bit():
    X, Y, _, w, Q = rows()
    plain = HopfieldRegressor().fit(X[w > 0], Y[w > 0])
    same = HopfieldRegressor(structure=TopK(5)).fit(X, Y, sample_weight=np.minimum(w, 1))
    assert same.memory_.shape == plain.memory_.shape
    assert same_bits(HopfieldRegressor().fit(X, Y, sample_weight=np.minimum(w, 1)).predict(Q), plain.predict(Q))
    assert same_bits(same.predict(Q), HopfieldRegressor(structure=TopK(5)).fit(X[w > 0], Y[w > 0]).predict(Q))


def test_a_row_of_next_to_no_weight_that_is_alone():
    X, y = np.array([[0.0], [50.0]]), np.array([1.0, 2.0])
    model = HopfieldRegressor(1.0, "softmax").fit(X, y, sample_weight=[1.0, 1e-30])
    np.testing.assert_allclose(model.predict([[50.0], [0.0]]), [2, 1], rtol=1e-12)


@pytest.mark.parametrize("separation", SEPARATIONS, ids=str)
@pytest.mark.parametrize("most", [1e-300, 1e-30, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("least", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_weights_of_any_size_give_means(separation, most, least):
    X, Y, _, w, Q = rows()
    model = HopfieldRegressor(0.7, separation).fit(X, Y, sample_weight=np.where(w > 2, most, least))
    found = model.predict(Q)
    assert (found >= Y.min(axis=0) - 1e-12).all()
    assert (found <= Y.max(axis=0) + 1e-12).all()
    assert np.isfinite(model.predict_leave_one_out()).all()


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", "softmax", sh.Normmax(2.0)], ids=str)
def test_left_out_rows_take_all_their_copies_with_them(separation):
    X, Y, y, w, _ = rows()
    w = w + 0.5
    found = HopfieldRegressor(2.0, separation).fit(X, Y, sample_weight=w).predict_leave_one_out()
    proba = HopfieldClassifier(2.0, separation).fit(X, y, sample_weight=w).predict_proba_leave_one_out()
    for i in range(len(X)):
        left = np.arange(len(X)) != i
        refit = HopfieldRegressor(2.0, separation).fit(X[left], Y[left], sample_weight=w[left])
        np.testing.assert_allclose(found[i], refit.predict(X[i : i + 1])[0], atol=1e-12)
        other = HopfieldClassifier(2.0, separation).fit(X[left], y[left], sample_weight=w[left])
        np.testing.assert_allclose(proba[i], other.predict_proba(X[i : i + 1])[0], atol=1e-12)


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", "softmax", sh.Normmax(2.0)], ids=str)
def test_detectors_leave_out_one_copy(separation):
    X, _, _, w, _ = rows()
    scores = HopfieldOutlierDetector(0.7, separation).fit(X, sample_weight=w).leave_one_out_scores_
    copies = HopfieldOutlierDetector(0.7, separation).fit(X.repeat(w, 0)).leave_one_out_scores_
    first = np.concatenate([[0], np.cumsum(w[w > 0])[:-1]])
    np.testing.assert_allclose(scores, copies[first], atol=1e-12)


def test_classes_of_rows_of_weight_0_are_not_there():
    model = HopfieldClassifier().fit(np.eye(3), ["a", "b", "c"], sample_weight=[1, 0, 1])
    assert model.classes_.tolist() == ["a", "c"]
    assert set(model.predict(np.eye(3))) <= {"a", "c"}


def test_certificates_under_weights():
    X, _, y, _, Q = rows()
    w = np.random.default_rng(0).uniform(0.05, 3, len(X))
    model = HopfieldClassifier(20.0).fit(X, y, sample_weight=w)
    assert 0 < model.certified_.mean() < 1
    assert (model.predict_proba(X)[model.certified_].max(axis=1) == 1).all()
    assert np.array_equal(model.predict(X)[model.certified_], y[model.certified_])
    answers, certified = model.predict(Q, return_certificate=True)
    assert (model.predict_proba(Q)[certified].max(axis=1) == 1).all()
    assert np.array_equal(answers, model.predict(Q))
    retriever = HopfieldRetriever(20.0).fit(X, sample_weight=w)
    assert same_bits(retriever.transform(X)[retriever.certified_], X[retriever.certified_])


def test_beta_auto_of_the_retriever_under_weights():
    X = rows()[0]
    w = np.random.default_rng(0).uniform(0.01, 1, len(X))
    model = HopfieldRetriever("auto").fit(X, sample_weight=w)

    def stored(beta):
        return (
            np.isclose(HopfieldRetriever(beta, max_steps=1).fit(X, sample_weight=w).transform(X), X).all(axis=1).mean()
        )

    assert stored(1.0001 * model.beta_) >= 0.99 > stored(0.5 * model.beta_)


def test_weights_of_bags_are_copies_where_a_step_takes_all():
    rng = np.random.default_rng(0)
    bags, y, w = rng.standard_normal((12, 3, 2)), np.arange(12) % 2, rng.integers(0, 4, 12)
    bags[1::2, 0] += 2
    options = {"num_heads": 2, "epochs": 5, "learning_rate": 0.03, "normalize": False, "dtype": "float64"}
    model = HopfieldMILClassifier(**options, batch_size=100, random_state=0)
    copies = model.fit(bags.repeat(w, 0), y.repeat(w)).decision_function(bags)
    history = model.history_
    weighted = model.fit(bags, y, sample_weight=w).decision_function(bags)
    np.testing.assert_allclose(weighted, copies, rtol=1e-9)
    for name, values in model.history_.items():
        np.testing.assert_allclose(values, history[name], rtol=1e-9, err_msg=name)
    assert not np.allclose(weighted, model.fit(bags, y).decision_function(bags), rtol=1e-3)


def test_weights_of_bags_that_are_refused():
    bags, y = np.zeros((4, 3, 2)), [0, 1, 0, 1]
    model = HopfieldMILClassifier(epochs=1)
    for wrong, message in (
        ([1, 2], r"must have shape \(4,\), got \(2,\)"),
        (0, "all are zero"),
        (-1, "at least 0, got"),
    ):
        with pytest.raises(ValueError, match=rf"sample_weight: .*{message}"):
            model.fit(bags, y, sample_weight=wrong)
    with pytest.raises(ValueError, match=r"y: needs two classes, got 1 class"):
        model.fit(bags, y, sample_weight=[1, 0, 1, 0])
    assert not hasattr(model, "classes_")
