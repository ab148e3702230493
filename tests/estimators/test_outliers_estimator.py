"""HopfieldOutlierDetector: scores by plain NumPy and by refits, thresholds, and what it refuses."""

import numpy as np
import pytest
from helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity, LocalOutlierFactor

import sparsehopfield as sh
from sparsehopfield.estimators import HopfieldOutlierDetector
from sparsehopfield.estimators._outliers import _weighted_quantile
from sparsehopfield.structures import TopK

SEPARATIONS = ["sparsemax", "softmax", "entmax15", sh.Normmax(2.0)]


def rows(n=60, seed=0):
    """Two clouds of rows, and a few rows far from both at the end."""
    rng = np.random.default_rng(seed)
    X = make_blobs(n, centers=2, random_state=seed)[0]
    return np.concatenate([X, rng.uniform(15, 30, (4, 2)) * rng.choice([-1, 1], (4, 2))])


@pytest.mark.parametrize("separation", SEPARATIONS, ids=str)
@pytest.mark.parametrize("similarity", ["euclidean", "dot", "cosine"])
def test_scores_are_minus_energies(separation, similarity):
    X, Q = rows()[:50], rows()[50:]
    model = HopfieldOutlierDetector(0.6, separation, similarity, novelty=True).fit(X)
    energy = sh.reference.energy(Q, X, 0.6, separation=separation, similarity=similarity)
    np.testing.assert_allclose(model.score_samples(Q), -energy, rtol=1e-12, atol=1e-12)
    assert same_bits(model.decision_function(Q), model.score_samples(Q) - model.offset_)
    assert np.array_equal(model.predict(Q), np.where(model.decision_function(Q) >= 0, 1, -1))


def test_softmax_scores_are_log_densities():
    X, Q = rows()[:50], rows()[50:]
    beta = 0.6
    density = KernelDensity(bandwidth=beta**-0.5, rtol=1e-12).fit(X).score_samples(Q)
    constant = np.log(len(X)) + np.log(2 * np.pi / beta)
    scores = HopfieldOutlierDetector(beta, "softmax", novelty=True).fit(X).score_samples(Q)
    np.testing.assert_allclose(beta * scores, density + constant, rtol=1e-9)


@pytest.mark.parametrize("separation", SEPARATIONS, ids=str)
@pytest.mark.parametrize("structure", [None, TopK(3)], ids=str)
def test_leaving_one_out_is_refitting_without_it(separation, structure):
    X = rows(n=30)
    scores = HopfieldOutlierDetector(0.6, separation, structure=structure).fit(X).leave_one_out_scores_
    model = HopfieldOutlierDetector(0.6, separation, structure=structure, novelty=True)
    refits = [model.fit(np.delete(X, i, 0)).score_samples(X[i : i + 1])[0] for i in range(len(X))]
    if separation == "softmax" and structure is None:
        np.testing.assert_allclose(scores, refits, rtol=1e-13)
    else:
        assert same_bits(scores, np.array(refits))


def test_it_finds_the_rows_far_out_as_the_local_outlier_factor_does():
    X = rows()
    is_far = np.arange(len(X)) >= 60
    model = HopfieldOutlierDetector(0.5, "softmax")
    assert (model.fit_predict(X)[is_far] == -1).all()
    assert roc_auc_score(is_far, -model.leave_one_out_scores_) == 1.0
    peer = LocalOutlierFactor().fit_predict(X)
    assert (peer[is_far] == -1).all()
    assert np.mean(model.fit_predict(X) == peer) > 0.8


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("n", [20, 63])
def test_contamination_is_the_share_of_outliers(share, n):
    X = np.random.default_rng(n).standard_normal((n, 3))
    found = HopfieldOutlierDetector(contamination=share).fit_predict(X)
    assert np.count_nonzero(found == -1) == int(share * n)


def test_the_fence_of_tukey():
    X = rows()
    model = HopfieldOutlierDetector(0.5, "softmax").fit(X)
    lower, upper = np.quantile(model.leave_one_out_scores_, [0.25, 0.75], method="averaged_inverted_cdf")
    assert model.offset_ == pytest.approx(lower - 1.5 * (upper - lower))


@given(
    numbers=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    q=st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.75, 1 / 3]),
    seed=st.integers(0, 99),
)
def test_weighted_quantiles_are_those_of_copies(numbers, q, seed):
    x = np.array(numbers, float)
    weight = np.random.default_rng(seed).integers(1, 5, len(x))
    copies = np.quantile(x.repeat(weight), q, method="averaged_inverted_cdf")
    assert _weighted_quantile(x, weight.astype(float), q) == copies


@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(0.01, 100))
def test_scores_fall_with_the_distance(seed, beta):
    rng = np.random.default_rng(seed)
    model = HopfieldOutlierDetector(beta, novelty=True).fit(rng.standard_normal((10, 2)))
    direction = rng.standard_normal(2)
    scores = model.score_samples(np.array([10, 20, 40, 80])[:, None] * direction / np.linalg.norm(direction))
    assert (np.diff(scores) < 0).all()


def test_as_of_scikit_learn_novelty_chooses_which_methods_there_are():
    of_rows, of_new = HopfieldOutlierDetector(), HopfieldOutlierDetector(novelty=True)
    for name in ("predict", "decision_function", "score_samples"):
        assert hasattr(of_new, name)
        assert not hasattr(of_rows, name)
    assert hasattr(of_rows, "fit_predict")
    assert not hasattr(of_new, "fit_predict")
    with pytest.raises(AttributeError, match=r"has no attribute 'predict'"):
        of_rows.fit(rows()).predict(rows())


def test_a_copy_is_no_outlier():
    X = np.array([[0.0], [0.1], [0.2], [9.0], [9.0]])
    scores = HopfieldOutlierDetector(1.0).fit(X).leave_one_out_scores_
    assert scores[3] == scores[4] == 0
    once = HopfieldOutlierDetector(1.0).fit(X[:4]).leave_one_out_scores_
    assert once[3] < -30
    twice = HopfieldOutlierDetector(1.0).fit(X[:4], sample_weight=[1, 1, 1, 2]).leave_one_out_scores_
    np.testing.assert_allclose(twice, scores[:4], atol=1e-12)


def test_rows_of_weight_0_are_judged_by_the_others():
    X = rows()
    weight = np.ones(len(X))
    weight[-4:] = 0
    found = HopfieldOutlierDetector(0.5).fit_predict(X, sample_weight=weight)
    assert found.shape == (len(X),)
    assert (found[-4:] == -1).all()
    model = HopfieldOutlierDetector(0.5, novelty=True).fit(X[:-4])
    assert np.array_equal(found[-4:], model.predict(X[-4:]))
    assert np.array_equal(found[:-4], HopfieldOutlierDetector(0.5).fit_predict(X[:-4]))


def test_rows_that_come_one_by_one():
    X = rows()
    model = HopfieldOutlierDetector(0.5, novelty=True)
    for row in X:
        model.partial_fit([row])
    whole = HopfieldOutlierDetector(0.5, novelty=True).fit(X)
    assert same_bits(model.leave_one_out_scores_, whole.leave_one_out_scores_)
    assert model.offset_ == whole.offset_
    assert same_bits(model.decision_function(X), whole.decision_function(X))


@pytest.mark.parametrize(
    ("options", "X", "message"),
    [
        ({"contamination": 0.0}, np.eye(3), r"contamination: must be above 0 and at most 0.5, got 0.0"),
        ({"contamination": 0.6}, np.eye(3), r"contamination: must be above 0 and at most 0.5, got 0.6"),
        ({"contamination": "some"}, np.eye(3), r"contamination: must be 'auto' or a number, got 'some'"),
        ({"beta": "auto"}, np.eye(3), r"beta: must be a positive number, got 'auto'"),
        ({"beta": 0}, np.eye(3), r"beta: must be positive"),
        ({"separation": sh.Polynomial(3)}, np.eye(3), r"separation: Polynomial\(order=3\) has no energy"),
        (
            {"structure": sh.structures.Window(1)},
            np.eye(3),
            r"structure: rows can be left out of all pairs and of TopK",
        ),
        ({}, np.eye(3)[:1], r"X: needs at least two rows.* n_samples = 1"),
        ({}, [[np.nan]], r"X: Input X contains NaN"),
    ],
    ids=lambda case: None,
)
def test_what_is_refused_changes_nothing(options, X, message):
    model = HopfieldOutlierDetector().fit(rows())
    before = dict(vars(model))
    with pytest.raises((ValueError, TypeError), match=message):
        model.set_params(**options).fit(X)
    model.set_params(**{name: before[name] for name in options})
    assert vars(model) == before
