"""partial_fit: rows that come one by one are as rows that come together; what is refused changes nothing."""

import numpy as np
import pytest
from helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st

from sparsehopfield.estimators import HopfieldClassifier, HopfieldOutlierDetector, HopfieldRegressor, HopfieldRetriever
from sparsehopfield.structures import TopK

RNG = np.random.default_rng(0)
X, Y, Q = RNG.standard_normal((30, 3)), RNG.standard_normal((30, 2)), RNG.standard_normal((8, 3))
LABELS = np.array(["no", "yes", "often"])[RNG.integers(0, 3, 30)]
W = RNG.uniform(0, 3, 30)
CASES = [
    (HopfieldRetriever(2.0), None, "transform"),
    (HopfieldClassifier(2.0), LABELS, "predict_proba"),
    (HopfieldRegressor(2.0), Y, "predict"),
    (HopfieldOutlierDetector(2.0, novelty=True), None, "decision_function"),
]
each = pytest.mark.parametrize(("estimator", "y", "answer"), CASES, ids=lambda e: type(e).__name__)


def fed(estimator, y, ends, weight=None):
    """Fit an estimator by parts of the rows."""
    fresh = estimator.__class__(**estimator.get_params())
    for part in np.split(np.arange(len(X)), ends):
        options = {} if weight is None else {"sample_weight": weight[part]}
        if isinstance(fresh, HopfieldClassifier):
            options["classes"] = np.unique(LABELS)
        fresh.partial_fit(X[part], *(() if y is None else (y[part],)), **options)
    return fresh


@each
@given(ends=st.lists(st.integers(1, 29), max_size=4, unique=True).map(sorted))
def test_parts_are_as_the_whole_to_the_bit(estimator, y, answer, ends):
    whole = estimator.__class__(**estimator.get_params()).fit(X, y)
    found = fed(estimator, y, ends)
    assert same_bits(getattr(found, answer)(Q), getattr(whole, answer)(Q))


@each
def test_parts_with_weights(estimator, y, answer):
    whole = estimator.__class__(**estimator.get_params()).fit(X, y, sample_weight=W)
    found = fed(estimator, y, [1, 7, 20], W)
    assert same_bits(getattr(found, answer)(Q), getattr(whole, answer)(Q))


@each
def test_weights_may_come_later_or_not_again(estimator, y, answer):
    weight = W.copy()
    weight[:10] = weight[20:] = 1
    whole = estimator.__class__(**estimator.get_params()).fit(X, y, sample_weight=weight)
    model = estimator.__class__(**estimator.get_params())
    more = {"classes": np.unique(LABELS)} if isinstance(model, HopfieldClassifier) else {}
    for part, w in ((slice(0, 10), None), (slice(10, 20), weight[10:20]), (slice(20, 30), None)):
        model.partial_fit(X[part], *(() if y is None else (y[part],)), sample_weight=w, **more)
    assert same_bits(getattr(model, answer)(Q), getattr(whole, answer)(Q))
    n = len(model.memory_)
    model.partial_fit(X[:2], *(() if y is None else (y[:2],)), sample_weight=0)
    assert len(model.memory_) == n


def test_after_fit_rows_are_added():
    model = HopfieldClassifier(2.0).fit(X[:20], LABELS[:20])
    assert model.partial_fit(X[20:], LABELS[20:]) is model
    assert same_bits(model.predict_proba(Q), HopfieldClassifier(2.0).fit(X, LABELS).predict_proba(Q))
    assert len(model.fit(X[:5], LABELS[:5]).memory_) == 5


def test_classes_of_rows_of_weight_0_may_be_unknown():
    model = HopfieldClassifier().fit([[0.0], [1.0]], ["a", "b"])
    model.partial_fit([[2.0], [3.0]], ["c", "b"], sample_weight=[0, 1])
    assert model.memory_.patterns.tolist() == [[0.0], [1.0], [3.0]]
    assert len(model.partial_fit([[4.0]], ["c"], sample_weight=[0]).memory_) == 3


def test_beta_auto_is_chosen_once():
    model = HopfieldRegressor("auto").partial_fit(X[:20], Y[:20])
    assert model.beta_ == HopfieldRegressor("auto").fit(X[:20], Y[:20]).beta_
    before = model.beta_
    assert model.partial_fit(X[20:], 100 * Y[20:]).beta_ == before


def test_rows_are_not_copied_again_for_each_that_comes():
    """Buffers double: of 1,000 rows that come one by one, few calls take another buffer."""
    model = HopfieldRegressor().partial_fit([[0.0]], [0.0])
    buffers = set()
    for i in range(1000):
        model.partial_fit([[float(i)]], [0.0], sample_weight=2.0)
        buffers.add(id(model._sample_weight.buffer.array))
        buffers.add(id(model.memory_._snapshot.patterns.buffer.array))
    assert len(buffers) <= 2 * 11


def test_certificates_and_left_out_rows_follow():
    model = HopfieldClassifier(50.0).partial_fit(X[:20], LABELS[:20], np.unique(LABELS))
    assert model.certified_.shape == (20,)
    model.partial_fit(X[20:], LABELS[20:])
    whole = HopfieldClassifier(50.0).fit(X, LABELS)
    assert np.array_equal(model.certified_, whole.certified_)
    assert same_bits(model.predict_proba_leave_one_out(), whole.predict_proba_leave_one_out())


@pytest.mark.parametrize(
    ("model", "arguments", "options", "message"),
    [
        (HopfieldClassifier(), (X, LABELS), {}, r"classes: the first call of partial_fit needs all classes"),
        (HopfieldClassifier(), (X, LABELS), {"classes": ["no", "yes"]}, r"y: label '\w+' is not among the classes"),
        (HopfieldClassifier().fit(X, LABELS), (X, LABELS), {"classes": ["no"]}, r"classes: must be those of the first"),
        (HopfieldClassifier().fit(X, LABELS), (X[:1], ["never"]), {}, r"y: label 'never' is not among the classes"),
        (HopfieldClassifier().fit(X, LABELS), (X[:1], [1]), {}, r"y: label 1 is not among the classes"),
        (HopfieldClassifier().fit(X, LABELS), (X[:, :2], LABELS), {}, r"X, y: X has 2 features"),
        (HopfieldRegressor().fit(X, Y), (X, Y[:, 0]), {}, r"y: must have shape \(M, 2\) as in the first call"),
        (HopfieldRegressor().fit(X, Y[:, 0]), (X, Y), {}, r"y: must have shape \(M,\) as in the first call"),
        (
            HopfieldRegressor().fit(X, Y),
            (X[:2], Y[:2]),
            {"sample_weight": [1, np.nan]},
            r"sample_weight: must be finite",
        ),
        (
            HopfieldRegressor(structure=TopK(3)).fit(X, Y),
            (X, Y),
            {"sample_weight": W},
            r"sample_weight: under a structure",
        ),
        (HopfieldRetriever().fit(X), (np.full((1, 3), np.nan),), {}, r"X: Input X contains NaN"),
        (
            HopfieldRetriever().fit(X),
            (X[:1],),
            {"sample_weight": [-1]},
            r"sample_weight: must be finite",
        ),
    ],
    ids=lambda case: None,
)
def test_what_is_refused_changes_nothing(model, arguments, options, message):
    before = dict(vars(model))
    stored = len(model.memory_) if hasattr(model, "memory_") else None
    with pytest.raises((ValueError, TypeError), match=message):
        model.partial_fit(*arguments, **options)
    assert vars(model) == before
    if stored is not None:
        assert len(model.memory_) == stored
