"""scikit-learn's own checks on every estimator: as they are, with data frames as output, and in several processes."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

import sparsehopfield as sh
from sparsehopfield.estimators import (
    HopfieldClassifier,
    HopfieldMILClassifier,
    HopfieldOutlierDetector,
    HopfieldPrototypeClassifier,
    HopfieldRegressor,
    HopfieldRetriever,
)
from sparsehopfield.structures import TopK

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),  # some checks need what is not installed
    pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning"),
    pytest.mark.filterwarnings("ignore:X (has|does not have)"),  # the checks mix arrays and data frames on purpose
]
MIL = {"epochs": 10, "learning_rate": 0.05, "num_heads": 2, "normalize": False, "random_state": 0}
PROTOTYPES = {"n_prototypes": 10, "epochs": 20, "learning_rate": 0.05, "random_state": 0}
EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"
SMALL_BATCHES = {
    EQUIVALENCE: "batches are drawn at random, so that w copies of a bag are drawn in other steps than one"
}
DRAWN = {EQUIVALENCE: "batches and what prototypes begin with are drawn at random, where copies are rows of their own"}
COPIES = {EQUIVALENCE: "beta is chosen by rows that do not see themselves; copies of a row see each other"}
WEIGHTS = {
    name: "sample weights count copies of rows that are all seen, and are refused under a structure"
    for name in (EQUIVALENCE, "check_sample_weights_not_overwritten", "check_sample_weights_list")
}


def failures(estimator, expected=None):
    """Return the names of the checks that fail, and raise unless many pass."""
    results = check_estimator(estimator, on_fail=None, expected_failed_checks=expected or {})
    assert sum(r["status"] == "passed" for r in results) > 40
    return {r["check_name"] for r in results if r["status"] == "failed"}


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (HopfieldRetriever(), {}),
        (HopfieldRetriever(beta="auto"), {}),
        (HopfieldRetriever(separation="softmax", max_steps=1), {}),
        (HopfieldClassifier(), {}),
        (HopfieldClassifier(separation="softmax"), {}),
        (HopfieldClassifier(separation="entmax15", max_steps=10), {}),
        (HopfieldClassifier(beta="auto"), COPIES),
        (HopfieldClassifier(structure=TopK(3)), WEIGHTS),
        (HopfieldRegressor(), {}),
        (HopfieldRegressor(separation=sh.Normmax(3.0), max_steps=10), {}),
        (HopfieldRegressor(beta="auto", separation="softmax"), COPIES),
        (HopfieldOutlierDetector(), {}),
        (HopfieldOutlierDetector(novelty=True), {}),
        (HopfieldOutlierDetector(separation="softmax", novelty=True), {}),
        (HopfieldPrototypeClassifier(**PROTOTYPES), DRAWN),
        (HopfieldPrototypeClassifier(**PROTOTYPES, separation="softmax", init="rows", dtype="float64"), DRAWN),
        (HopfieldMILClassifier(**MIL), SMALL_BATCHES),
        (HopfieldMILClassifier(**MIL, batch_size=1000, dtype="float64"), {}),
    ],
    ids=lambda value: repr(value).replace("\n", "") if hasattr(value, "fit") else "",
)
def test_every_estimator_passes(estimator, expected):
    assert failures(estimator, expected) == set()


def output_checks():
    """Return scikit-learn's checks of data frames as output, which check_estimator does not run."""
    names = (
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
        "check_set_output_transform",
        "check_set_output_transform_pandas",
        "check_set_output_transform_polars",
        "check_global_output_transform_pandas",
        "check_global_set_output_transform_polars",
    )
    return [getattr(estimator_checks, name) for name in names]


@pytest.mark.parametrize("check", output_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "estimator", [HopfieldRetriever(), HopfieldMILClassifier(**MIL)], ids=lambda estimator: type(estimator).__name__
)
def test_data_frames_as_output(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        HopfieldRetriever(),
        HopfieldClassifier(),
        HopfieldRegressor(),
        HopfieldOutlierDetector(novelty=True),
        HopfieldPrototypeClassifier(**PROTOTYPES),
        HopfieldMILClassifier(**MIL),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_names_of_columns(estimator):
    estimator_checks.check_dataframe_column_names_consistency(type(estimator).__name__, estimator)


@pytest.mark.parametrize("output", ["pandas", "polars"])
@pytest.mark.parametrize(
    ("estimator", "peer"),
    [
        (HopfieldRetriever(), StandardScaler()),
        (HopfieldClassifier(), KNeighborsClassifier()),
        (HopfieldRegressor(), KNeighborsRegressor()),
        (HopfieldOutlierDetector(novelty=True), LocalOutlierFactor(5, novelty=True)),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_where_all_output_is_data_frames_no_check_fails_that_scikit_learns_own_estimators_pass(estimator, peer, output):
    """Some checks use transformers of scikit-learn themselves, and stumble over the frames that these then return."""
    with sklearn.config_context(transform_output=output):
        assert failures(estimator) <= failures(peer)


IRIS, DIABETES = load_iris(return_X_y=True), load_diabetes(return_X_y=True)


@pytest.mark.parametrize(
    ("estimator", "data", "least"),
    [
        (make_pipeline(HopfieldRetriever(3.0), KNeighborsClassifier()), IRIS, 0.9),
        (HopfieldClassifier("auto"), IRIS, 0.93),
        (HopfieldRegressor("auto", separation="softmax"), DIABETES, 0.35),
        (HopfieldMILClassifier(**MIL), (IRIS[0][50:, None], IRIS[1][50:]), 0.85),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_in_other_processes_the_answers_are_the_same(estimator, data, least):
    one, two = (cross_val_score(estimator, *data, cv=3, n_jobs=n_jobs) for n_jobs in (None, 2))
    assert np.array_equal(one, two)
    assert one.mean() > least


def test_detectors_in_grid_searches():
    X = np.random.default_rng(0).standard_normal((60, 2))
    search = GridSearchCV(
        HopfieldOutlierDetector(novelty=True),
        {"beta": [0.1, 1.0], "contamination": ["auto", 0.1]},
        scoring=lambda model, X: model.score_samples(X).mean(),
        n_jobs=2,
    ).fit(X)
    assert search.best_estimator_.predict(X).shape == (60,)


def test_frames_of_the_retriever_keep_names_and_index():
    pd = pytest.importorskip("pandas", reason="a data frame of pandas is asked for")
    frame = pd.DataFrame(np.eye(3), columns=["a", "b", "c"], index=[7, 8, 9])
    model = HopfieldRetriever(beta=8.0).set_output(transform="pandas").fit(frame)
    out = model.transform(frame * 0.9)
    assert out.columns.tolist() == ["a", "b", "c"] == model.get_feature_names_out().tolist()
    assert out.index.tolist() == [7, 8, 9]
    clean, certified = model.transform(frame * 0.9, return_certificate=True)
    assert clean.equals(frame.astype(float))
    assert certified.tolist() == [True, True, True]


def test_frames_of_the_vectors_of_bags():
    pl = pytest.importorskip("polars", reason="a data frame of polars is asked for")
    bags = np.random.default_rng(0).standard_normal((12, 3, 2))
    model = HopfieldMILClassifier(**MIL, quantity=2).set_output(transform="polars")
    out = model.fit_transform(bags, np.arange(12) % 2)
    assert isinstance(out, pl.DataFrame)
    assert out.columns == [f"hopfieldmilclassifier{i}" for i in range(4)]
    plain = clone(model).set_output(transform="default").fit(bags, np.arange(12) % 2).transform(bags)
    assert np.array_equal(out.to_numpy(), plain)
