"""The scikit-learn estimators: their conventions, what they answer, and what they refuse."""

import pickle

import numpy as np
import pytest
from helpers import run_python, same_bits
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

import sparsehopfield as sh
from sparsehopfield.estimators import HopfieldClassifier, HopfieldRetriever

# --- HopfieldRetriever, HopfieldClassifier ---------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")  # some checks need what is not installed
@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        HopfieldRetriever(),
        HopfieldRetriever(beta="auto"),
        HopfieldRetriever(separation="softmax", max_steps=1),
        HopfieldClassifier(),
        HopfieldClassifier(separation="softmax"),
        HopfieldClassifier(separation="entmax15", max_steps=10),
    ],
    ids=repr,
)
def test_scikit_learns_own_checks(estimator):
    results = check_estimator(estimator)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) > 40


def test_importing_the_package_leaves_scikit_learn_alone():
    loaded = run_python("import json, sys, sparsehopfield; print(json.dumps('sklearn' in sys.modules))")
    assert loaded is False


def test_without_scikit_learn_the_import_says_what_to_install():
    message = run_python("""
import json, sys
sys.modules["sklearn"] = None
try:
    import sparsehopfield.estimators
except ImportError as error:
    print(json.dumps(str(error)))
""")
    assert message.startswith("sparsehopfield.estimators needs scikit-learn")
    assert "sparsehopfield[sklearn]" in message


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_retriever_does_what_retrieve_does(dtype):
    rng = np.random.default_rng(1)
    X, queries = rng.standard_normal((50, 8)).astype(dtype), rng.standard_normal((20, 8)).astype(dtype)
    many = HopfieldRetriever(beta=0.7, separation="entmax15", similarity="dot").fit(X).transform(queries)
    assert same_bits(many, sh.retrieve(queries, X, 0.7, separation="entmax15", similarity="dot"))
    one = HopfieldRetriever(beta=0.7, max_steps=1).fit(X).transform(queries)
    assert same_bits(one, sh.update(queries, X, 0.7, similarity="euclidean"))


def test_the_retriever_keeps_a_copy_of_what_it_stores():
    X = np.eye(4)
    retriever = HopfieldRetriever(beta=8.0).fit(X)
    X[:] = 0
    assert np.array_equal(retriever.transform([[0.9, 0.1, 0, 0]]), [[1, 0, 0, 0]])


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Entmax(3.0)])
@pytest.mark.parametrize("similarity", ["euclidean", "dot"])
def test_beta_auto_stores_99_percent_of_what_can_be_stored_and_no_smaller_beta_does(separation, similarity):
    X = np.random.default_rng(2).standard_normal((200, 16))
    retriever = HopfieldRetriever("auto", separation, similarity).fit(X)
    storable = np.count_nonzero(retriever.memory_.margin() > 0)

    def stored(beta):
        retriever.memory_.beta = beta
        return np.count_nonzero(np.abs(retriever.memory_.update(X) - X).max(axis=1) < 1e-9)

    assert stored(1.0001 * retriever.beta_) >= 0.99 * storable > stored(0.999 * retriever.beta_)


def test_beta_auto_where_no_row_stands_out():
    assert HopfieldRetriever("auto").fit(np.ones((3, 2))).beta_ == 1.0
    assert HopfieldRetriever("auto").fit(np.ones((1, 2))).beta_ == 1.0


def test_the_classifier_weighs_classes_as_the_memory_weighs_rows():
    X, y = load_iris(return_X_y=True)
    y = np.array(["setosa", "versicolor", "virginica"])[y]
    model = HopfieldClassifier(beta=5.0).fit(X[::2], y[::2])
    weights = sh.associate(X[1::2], X[::2], 5.0, similarity="euclidean").toarray()
    proba = np.stack([weights[:, y[::2] == c].sum(axis=1) for c in model.classes_], axis=1)
    np.testing.assert_allclose(model.predict_proba(X[1::2]), proba, atol=1e-12)
    assert np.array_equal(model.predict(X[1::2]), model.classes_[proba.argmax(axis=1)])
    assert model.score(X[1::2], y[1::2]) > 0.9


def test_the_classifier_classifies_where_the_row_comes_to_rest():
    X, y = np.array([[0.0], [1.0], [1.1], [2.0]]), [0, 1, 1, 0]  # between 1.1 and 2 both have weight, but no rest
    info = sh.retrieve([[1.5]], X, 4.0, similarity="euclidean", return_info=("weights",))[1]
    expected = info.weights.toarray() @ np.eye(2)[y]
    assert not np.allclose(expected, HopfieldClassifier(beta=4.0).fit(X, y).predict_proba([[1.5]]))
    model = HopfieldClassifier(beta=4.0, max_steps=100).fit(X, y)
    np.testing.assert_allclose(model.predict_proba([[1.5]]), expected, atol=1e-12)


def test_bytes_stay_bytes():
    X, y = load_digits(return_X_y=True)
    model = HopfieldClassifier(beta=0.05).fit(X[:1000].astype(np.uint8), y[:1000])
    assert model.memory_.patterns.dtype == np.uint8
    assert model.score(X[1000:].astype(np.uint8), y[1000:]) > 0.95


def test_both_in_pipelines_grid_search_and_other_processes():
    X, y = load_iris(return_X_y=True)
    pipe = make_pipeline(StandardScaler(), HopfieldClassifier())
    grid = {"hopfieldclassifier__beta": [0.1, 3.0], "hopfieldclassifier__separation": ["sparsemax", "softmax"]}
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.93
    cleaned = make_pipeline(StandardScaler(), HopfieldRetriever(beta=3.0), SVC())
    assert cross_val_score(cleaned, X, y, cv=3, n_jobs=2, scoring="accuracy").mean() > 0.9
    assert clone(cleaned).fit(X, y)[:2].get_feature_names_out().tolist() == ["x0", "x1", "x2", "x3"]


@pytest.mark.parametrize("estimator", [HopfieldRetriever("auto"), HopfieldClassifier(beta=3.0)], ids=repr)
def test_pickles_answer_alike(estimator):
    X, y = load_iris(return_X_y=True)
    fitted = estimator.fit(X[::2], y[::2])
    answer = "transform" if hasattr(fitted, "transform") else "predict_proba"
    again = pickle.loads(pickle.dumps(fitted))
    assert same_bits(getattr(fitted, answer)(X), getattr(again, answer)(X))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (HopfieldRetriever(beta="big"), r"beta: must be a positive number or 'auto', got 'big'"),
        (HopfieldRetriever(beta=-1), r"beta: must be positive"),
        (HopfieldRetriever(beta="auto", separation="softmax"), r"beta: 'auto' needs a separation that stores"),
        (HopfieldRetriever(separation="sparsmax"), r"separation: unknown name 'sparsmax'; did you mean 'sparsemax'"),
        (HopfieldRetriever(similarity="l2"), r"similarity: unknown name 'l2'"),
        (HopfieldClassifier(separation=sh.Polynomial(3)), r"separation: the weights of Polynomial\(order=3\) are no"),
    ],
    ids=repr,
)
def test_what_cannot_be_fitted(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(np.eye(4), [0, 1, 0, 1])


def test_max_steps_is_a_count():
    retriever = HopfieldRetriever(max_steps=0).fit(np.eye(3))
    with pytest.raises(ValueError, match=r"max_steps: must be at least 1, got 0"):
        retriever.transform(np.eye(3))
