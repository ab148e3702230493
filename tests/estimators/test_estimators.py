"""The scikit-learn estimators: their conventions, what they answer, and what they refuse."""

import pickle

import numpy as np
import pytest
from helpers import digest, run_python, same_bits, threads
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import sparsehopfield as sh
from sparsehopfield.estimators import HopfieldClassifier, HopfieldMILClassifier, HopfieldRetriever, _bags, _mil
from sparsehopfield.structures import RandomFeatures, TopK

# --- HopfieldRetriever, HopfieldClassifier ---------------------------------------------------------


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


@pytest.mark.parametrize("weight", [None, 0.3])
@pytest.mark.parametrize("separation", ["sparsemax", "entmax15"])
def test_beta_auto_certifies_what_it_stores(separation, weight):
    X = [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]  # the margins of two are 1/2 exactly
    model = HopfieldRetriever("auto", separation).fit(X, sample_weight=weight)
    assert model.certified_.tolist() == [True, True, True]
    assert same_bits(model.transform(X), np.array(X))
    model.set_params(beta=model.beta_ * (1 - 1e-8)).fit(X, sample_weight=weight)
    assert model.certified_.tolist() == [False, False, True]


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


def test_of_classes_of_equal_weight_the_first_is_taken():
    model = HopfieldClassifier(beta=2.0).fit([[0.0], [1.0], [9.0]], ["b", "a", "c"])
    assert model.predict_proba([[0.5]]).tolist() == [[0.5, 0.5, 0.0]]
    assert model.predict([[0.5]]).tolist() == ["a"]


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


# --- HopfieldMILClassifier -------------------------------------------------------------------------


def key_bags(n=40, sizes=(3, 8), seed=0):
    """Bags of uniform instances of two features; every second one has a key far out, at a known place."""
    rng = np.random.default_rng(seed)
    bags = [rng.uniform(-1, 1, (rng.integers(*sizes, endpoint=True), 2)) for _ in range(n)]
    places = [int(rng.integers(len(bag))) for bag in bags]
    for bag, place in zip(bags[1::2], places[1::2], strict=True):
        bag[place] += 3
    return bags, np.arange(n) % 2, places


QUICK = {"num_heads": 2, "epochs": 15, "normalize": False, "learning_rate": 0.03, "random_state": 0}
LAYERS = [{"layer": "pooling"}, {"layer": "hopfield"}, {"layer": "attention", "separation": "softmax"}]


def quick(**options):
    """A classifier that learns the bags above in a moment."""
    return HopfieldMILClassifier(**{**QUICK, **options})


@pytest.fixture(scope="module")
def fitted():
    return quick(quantity=2).fit(*key_bags()[:2])


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_it_learns_and_its_weights_point_at_the_keys(options):
    model = quick(**options, epochs=12, learning_rate=0.05).fit(*key_bags(n=20, sizes=(3, 6))[:2])
    bags, y, places = key_bags(n=20, sizes=(3, 6), seed=1)
    assert model.score(bags, y) == 1.0
    weights = model.bag_weights(bags)
    assert [len(w) for w in weights] == [len(bag) for bag in bags]
    found = [w.argmax() == place for w, place in zip(weights[1::2], places[1::2], strict=True)]
    assert np.mean(found) > 0.9


def test_what_it_answers_fits_together(fitted):
    bags, _, _ = key_bags(seed=2)
    logits, proba = fitted.decision_function(bags), fitted.predict_proba(bags)
    assert logits.shape == (40,)
    np.testing.assert_allclose(np.log(proba[:, 1] / proba[:, 0]), logits, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert np.array_equal(fitted.predict(bags), fitted.classes_[proba.argmax(axis=1)])
    last = {name.rpartition(".")[2]: a for name, a in fitted.weights_.items() if name.startswith("head.")}
    assert fitted.transform(bags).shape == (40, 4)  # two queries with two features each
    np.testing.assert_allclose(fitted.transform(bags) @ last["weight"][0] + last["bias"], logits, rtol=1e-4, atol=1e-5)
    heads = fitted.bag_weights(bags, per_head=True)
    assert [w.shape for w in heads] == [(2, len(bag)) for bag in bags]
    np.testing.assert_allclose([w.sum() for w in heads], 2, rtol=1e-5)
    np.testing.assert_allclose(heads[0].mean(axis=0), fitted.bag_weights(bags)[0], rtol=1e-6)


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_a_bag_is_a_set_and_its_companions_do_not_matter(options):
    bags, y, _ = key_bags()
    model = quick(**options, epochs=2, embedding=(3,), dtype="float64").fit(bags, y)
    logits = model.decision_function(bags)
    assert np.ptp(logits) > 1e-4
    np.testing.assert_allclose([model.decision_function([bag])[0] for bag in bags], logits, atol=1e-10)
    np.testing.assert_allclose(model.decision_function([bag[::-1] for bag in bags]), logits, atol=1e-10)
    equal = [bag for bag in bags if len(bag) == len(bags[0])]
    np.testing.assert_allclose(model.decision_function(np.stack(equal)), model.decision_function(equal), atol=1e-10)


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_ragged_bags_train_as_bags_of_one_size_do(options):
    bags, y, _ = key_bags(sizes=(5, 5))
    model = quick(**options, epochs=2, batch_size=40, weight_decay=0.0, standardize=False, dtype="float64")
    equal = model.fit(np.stack(bags), y).weights_
    assert _bags.as_bags(bags, None, "float64").offsets is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_mil, "as_bags", lambda bags, ids, dtype: ragged(bags))
        other = clone(model).fit(bags, y).weights_
    assert equal.keys() == other.keys()
    for name, weight in equal.items():
        np.testing.assert_allclose(other[name], weight, atol=1e-9, err_msg=name)


def ragged(bags):
    """Bags of one size, as if they were of several."""
    return _bags.Bags(np.concatenate(bags), np.cumsum([0, *map(len, bags)]))


def test_every_form_of_bags_is_the_same():
    bags, y, _ = key_bags(sizes=(4, 4), n=10)
    ids = np.repeat(np.arange(10), 4)
    shuffled = np.concatenate([np.flatnonzero(ids == i) for i in range(9, -1, -1)])  # later bags first
    X = np.concatenate(bags)
    expected = quick(epochs=2).fit(bags, y).decision_function(bags)
    objects = np.empty(10, dtype=object)
    objects[:] = bags
    for form in (np.stack(bags), objects, tuple(bags), [bag.tolist() for bag in bags], (X, ids)):
        assert same_bits(quick(epochs=2).fit(form, y).decision_function(form), expected)
    by_id = quick(epochs=2).fit(X[shuffled], y, bag_ids=ids[shuffled])
    assert same_bits(by_id.decision_function(X[shuffled], bag_ids=ids[shuffled]), expected)
    assert same_bits(np.concatenate(by_id.bag_weights(X, ids)), np.concatenate(by_id.bag_weights(bags)))


def test_ids_of_ragged_bags():
    bags, _, _ = key_bags(n=5)
    ids = np.concatenate([[name] * len(bag) for name, bag in zip("cabed", bags, strict=True)])
    made = _bags.as_bags(np.concatenate(bags), ids, np.float64)
    expected = [bags["cabed".index(name)] for name in "abcde"]
    assert np.array_equal(made.rows, np.concatenate(expected))
    assert np.array_equal(made.sizes, [len(bag) for bag in expected])
    some = made.take(np.array([3, 0]))
    assert np.array_equal(some.rows, np.concatenate([expected[3], expected[0]]))
    assert np.array_equal(some.offsets, np.cumsum([0, len(expected[3]), len(expected[0])]))
    parts = list(made.parts(2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert np.array_equal(parts[1].rows, np.concatenate(expected[2:4]))
    assert np.array_equal(parts[1].sizes, [len(expected[2]), len(expected[3])])


def test_a_seed_gives_the_same_bits_with_any_number_of_threads():
    bags, y, _ = key_bags()
    options = {"dropout": 0.3, "head_dropout": 0.3, "validation_fraction": 0.25, "epochs": 3, "embedding": (3,)}
    results = []
    for n in (1, 2):
        with threads(n):
            model = quick(**options).fit(bags, y)
            results.append(digest(*model.weights_.values(), *model.history_.values()))
    assert results[0] == results[1]
    other = quick(**options, random_state=1).fit(bags, y)
    assert digest(*other.weights_.values(), *other.history_.values()) != results[0]


def test_features_are_measured_on_the_bags_trained_on_only():
    bags, y, _ = key_bags(n=12)
    train, inner = np.arange(8), np.arange(8, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_mil, "train_test_split", lambda which, **options: (train, inner))
        model = quick(epochs=1, validation_fraction=0.3).fit(bags, y)
    rows = np.concatenate(bags[:8])
    np.testing.assert_allclose(model.mean_, rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.scale_, rows.std(axis=0), rtol=1e-5)


def test_signed_bits():
    bags = [np.eye(3), 1 - np.eye(3)]
    model = quick(epochs=1, standardize=False, signed=True).fit(bags, [0, 1])
    assert np.array_equal((bags[0] - model.mean_) / model.scale_, 2 * bags[0] - 1)
    with pytest.raises(ValueError, match=r"signed: needs features from 0 to 1, got -1 to 1"):
        model.fit([2 * bag - 1 for bag in bags], [0, 1])


# --- HopfieldMILClassifier: choices, and what training records --------------------------------------


def test_history_and_the_last_epoch():
    bags, y, _ = key_bags()
    model = quick(epochs=4).fit(bags, y, validation=key_bags(seed=3)[:2])
    assert sorted(model.history_) == [
        "accuracy",
        "auc",
        "loss",
        *(f"validation_{n}" for n in ("accuracy", "auc", "loss")),
    ]
    assert {len(values) for values in model.history_.values()} == {4}
    assert model.best_epoch_ == 4
    seen, labels, _ = key_bags(seed=3)
    logits = model.decision_function(seen)
    assert model.history_["validation_accuracy"][-1] == model.score(seen, labels)
    assert model.history_["validation_auc"][-1] == pytest.approx(roc_auc_score(labels, logits))
    assert model.history_["validation_loss"][-1] == pytest.approx(log_loss(labels, model.predict_proba(seen)), rel=1e-4)


def test_auc_counts_ties_half():
    labels, scores = np.array([0, 1, 1, 0, 1, 0]), np.array([0.0, 0.0, 1.0, 1.0, 1.0, -1.0])
    assert _mil._auc(labels, scores) == roc_auc_score(labels, scores)
    rng = np.random.default_rng(0)
    for weight in (None, rng.random(60)):
        labels, scores = np.arange(60) % 2, rng.integers(0, 20, 60).astype(np.float32)
        assert _mil._auc(labels, scores, weight) == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight))
    assert np.isnan(_mil._auc(labels[:1], scores[:1]))


@pytest.mark.parametrize("criterion", ["auc", "accuracy", "loss"])
def test_early_stopping_keeps_the_best_epoch(criterion):
    bags, y, _ = key_bags(n=60)
    y = np.where(np.random.default_rng(0).random(60) < 0.2, 1 - y, y)  # so that more training makes worse
    model = quick(epochs=12, early_stopping=criterion, validation_fraction=0.3).fit(bags, y)
    values, loss = model.history_[f"inner_{criterion}"], model.history_["inner_loss"]
    best = values.min() if criterion == "loss" else values.max()
    assert model.best_epoch_ == 1 + min(np.flatnonzero(values == best), key=lambda i: loss[i])
    assert len(loss) == 12
    shorter = quick(epochs=12, early_stopping=criterion, validation_fraction=0.3, patience=2).fit(bags, y)
    assert len(shorter.history_["loss"]) == shorter.best_epoch_ + 2 < 12
    again = quick(epochs=shorter.best_epoch_, validation_fraction=0.3).fit(bags, y)
    assert digest(*again.weights_.values()) == digest(*shorter.weights_.values())


def test_restarts_keep_the_best():
    bags, y, _ = key_bags()
    model = quick(epochs=2, restarts=3, validation_fraction=0.3).fit(bags, y)
    with pytest.MonkeyPatch.context() as patch:
        runs, train = [], HopfieldMILClassifier._train
        patch.setattr(HopfieldMILClassifier, "_train", lambda *a: runs.append(train(*a)) or runs[-1])
        again = quick(epochs=2, restarts=3, validation_fraction=0.3).fit(bags, y)
    losses = [run.history["inner_loss"][-1] for run in runs]
    assert len(set(losses)) == 3
    assert [history["inner_loss"][-1] for _, history in again.starts_] == losses
    assert [history is again.history_ for _, history in again.starts_] == [loss == min(losses) for loss in losses]
    assert again.history_["inner_loss"][-1] == model.history_["inner_loss"][-1] == min(losses)


def test_learning_rate_falls_as_a_cosine_over_the_epochs(monkeypatch):
    rates, step = [], _mil.AdamW.step
    monkeypatch.setattr(_mil.AdamW, "step", lambda self: rates.append(self.learning_rate) or step(self))
    quick(epochs=4, batch_size=40, learning_rate_decay="cosine").fit(*key_bags()[:2])
    np.testing.assert_allclose(rates, 0.03 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2)


def test_annealing_ends_at_what_is_used_later():
    bags, y, _ = key_bags()
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        forward = _mil.Network.forward

        def watching(network, batch, train=False):
            if train:
                seen.append((network.layer.scaling, network.layer.separation))
            return forward(network, batch, train=train)

        patch.setattr(_mil.Network, "forward", watching)
        options = {"epochs": 5, "batch_size": 40, "early_stopping": "loss", "validation_fraction": 0.3}
        cold = quick(**options, anneal=("beta", 0.01, 1.0, 0.4)).fit(bags, y)
        hot = quick(**options, anneal=("alpha", 1, 2, 0.4)).fit(bags, y)
    np.testing.assert_allclose([beta for beta, _ in seen[:5]], [0.01, 0.1, 1, 1, 1])
    assert [str(map_) for _, map_ in seen[5:]] == ["softmax", "Entmax(alpha=1.5)", *["sparsemax"] * 3]
    for model in (cold, hot):
        assert model.best_epoch_ >= 3
        kept = model.history_["inner_loss"][model.best_epoch_ - 1]
        assert kept == model.history_["inner_loss"][2:].min()
    assert cold._fitted().layer.scaling == 1.0
    assert hot._fitted().layer.separation == "sparsemax"


def test_progress_shows_loss_and_auc(capfd):
    quick(epochs=2, verbose=1).fit(*key_bags()[:2])
    shown = capfd.readouterr().err
    assert "2/2" in shown
    assert "loss=" in shown
    assert "auc=" in shown


# --- HopfieldMILClassifier: among others -------------------------------------------------------------


def test_in_grid_search_cross_validation_and_other_processes():
    bags, y, _ = key_bags()
    objects = np.empty(40, dtype=object)
    objects[:] = bags
    scores = cross_val_score(quick(), bags, y, cv=2, n_jobs=2, scoring="roc_auc")
    assert scores.min() > 0.9
    assert np.array_equal(scores, cross_val_score(quick(), objects, y, cv=2, scoring="roc_auc"))
    search = GridSearchCV(quick(), {"epochs": [1, 15], "beta": [None, 0.5]}, cv=2, n_jobs=2).fit(bags, y)
    assert search.best_params_["epochs"] == 15
    assert search.predict(bags).shape == (40,)
    names = np.array(["no", "yes"])[y]
    assert set(make_pipeline(quick(epochs=1)).fit(bags, names).predict(bags)) <= {"no", "yes"}


def test_pickles_hold_arrays_and_answer_alike(fitted):
    bags, _, _ = key_bags(seed=4)
    again = pickle.loads(pickle.dumps(fitted))
    assert {type(a) for a in again.weights_.values()} == {np.ndarray}
    assert same_bits(again.decision_function(bags), fitted.decision_function(bags))
    assert clone(fitted).get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        clone(fitted).predict(bags)


BAGS, Y, _ = key_bags(n=6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, where training diverges
@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, ([], Y), r"bags: needs at least one bag, got none"),
        ({}, ([*BAGS[:5], np.zeros((0, 2))], Y), r"bags\[5\]: must have shape \(instances, features\)"),
        ({}, ([*BAGS[:5], np.zeros(3)], Y), r"bags\[5\]: must have shape \(instances, features\)"),
        ({}, ([*BAGS[:5], np.zeros((2, 3))], Y), r"bags\[5\]: has 3 features, but bags\[0\] has 2"),
        ({}, ([*BAGS[:5], np.full((2, 2), np.nan)], Y), r"bags: bag 5 has NaN or numbers beyond float32"),
        ({}, (np.full((6, 3, 2), [0, 1e60]), Y), r"bags: bag 0 has NaN or numbers beyond float32"),
        ({}, (np.zeros((6, 0, 2)), Y), r"bags: needs at least one bag, instance and feature"),
        ({}, (np.zeros((6, 2)), Y[:3]), r"y: needs one label for each of 6 bags, got 3; without bag_ids each row is a"),
        ({}, (np.zeros(6), Y), r"bags: Expected 2D array, got 1D array instead"),
        ({}, (np.zeros((6, 2, 1, 1)), Y), r"bags: must be a list .* need bag_ids"),
        (
            {},
            (np.zeros((6, 2)), Y, np.arange(5)),
            r"bag_ids: must have shape \(6,\), .* got \(5,\)",
        ),
        ({}, (BAGS, Y, np.arange(5)), r"bags: cannot be made an array"),
        ({}, (5, Y), r"bags: must be a list of two-dimensional arrays, got 5"),
        ({}, (["a"] * 6, Y), r"bags\[0\]: must be real numbers"),
        ({}, (BAGS, Y[:5]), r"y: needs one label for each of 6 bags, got 5"),
        ({}, (BAGS, np.zeros(6)), r"y: needs two classes, got 1 class: \[0.0\]"),
        ({}, (BAGS, np.arange(6)), r"y: needs two classes, got 6 classes"),
        ({}, (BAGS, Y, None, (BAGS, Y + 1)), r"validation: label 2 is not among those fitted, \[0, 1\]"),
        ({}, (BAGS, Y, None, BAGS), r"validation: must be \(bags, y\), got list"),
        ({}, (BAGS, Y, None, ([np.zeros((1, 3))], [0])), r"bags: must have the 2 features of those fitted, got 3"),
        ({"layer": "pool"}, (BAGS, Y), r"layer: unknown name 'pool'; did you mean 'pooling'"),
        ({"activation": "tanh"}, (BAGS, Y), r"activation: unknown name 'tanh'"),
        ({"dtype": "float16"}, (BAGS, Y), r"dtype: unknown name 'float16'"),
        ({"early_stopping": "f1"}, (BAGS, Y), r"early_stopping: unknown name 'f1'"),
        ({"early_stopping": "auc"}, (BAGS, Y), r"early_stopping: chooses on an inner split"),
        ({"restarts": 2}, (BAGS, Y), r"restarts: chooses on an inner split"),
        ({"signed": True}, (BAGS, Y), r"signed: is undone by standardising"),
        ({"epochs": 0}, (BAGS, Y), r"epochs: must be at least 1"),
        ({"beta": -1.0}, (BAGS, Y), r"beta: must be a finite number of at least 0, got -1"),
        ({"embedding": 5}, (BAGS, Y), r"embedding: must be a sequence of sizes, got 5"),
        ({"embedding": (4, 0)}, (BAGS, Y), r"embedding: must be at least 1, got 0"),
        ({"quantity": 0}, (BAGS, Y), r"quantity: must be at least 1, got 0"),
        ({"head_dropout": 1.0}, (BAGS, Y), r"head_dropout: must be from 0 to below 1, got 1.0"),
        ({"validation_fraction": 0.1}, (BAGS, Y), r"validation_fraction: 0.1 leaves too few of 6 bags"),
        ({"validation_fraction": 1}, (BAGS, Y), r"validation_fraction: must be from 0 to below 1"),
        ({"learning_rate_decay": 0.0}, (BAGS, Y), "learning_rate_decay: must be"),
        (
            {"learning_rate_decay": "cosin"},
            (BAGS, Y),
            "learning_rate_decay: unknown name 'cosin'; did you mean 'cosine'",
        ),
        ({"anneal": ("gamma", 1, 2, 0.5)}, (BAGS, Y), r"anneal: must be \('beta' or 'alpha'"),
        ({"anneal": ("alpha", 0.5, 2, 0.5)}, (BAGS, Y), r"anneal: must be a finite number of at least 1"),
        ({"anneal": ("beta", 0, 2, 0.5)}, (BAGS, Y), r"anneal: beta must be positive"),
        ({"anneal": ("beta", 1, 2, 1.5)}, (BAGS, Y), r"anneal: the share of the epochs"),
        ({"learning_rate": 1e30}, (BAGS, Y), r"learning_rate: with 1e\+30 training failed in epoch"),
        ({"learning_rate": 1e30, "max_norm": None}, (BAGS, Y), r"learning_rate: with 1e\+30 training failed"),
    ],
    ids=lambda case: None,
)
def test_what_bags_cannot_be_fitted(options, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        quick(**options).fit(*arguments)


def test_bags_of_another_width_cannot_be_asked(fitted):
    with pytest.raises(ValueError, match=r"bags: must have the 2 features of those fitted, got 3"):
        fitted.predict([np.zeros((4, 3))])


# --- structures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "later",
    [
        {"separation": "softmax", "beta": 9.0, "structure": TopK(1)},
        {"standardize": False},
        {"embedding": (3, 3), "quantity": 4, "layer": "hopfield"},
        {"dtype": "float64"},
        {"anneal": ("beta", 1.0, 8.0, 0.5)},
    ],
    ids=str,
)
def test_bags_are_answered_with_the_parameters_of_fit(later):
    rng = np.random.default_rng(0)
    bags, labels = [3 + rng.normal(size=(n, 3)) for n in (4, 5, 6, 5)], [0, 1, 0, 1]
    model = HopfieldMILClassifier(epochs=3, random_state=0, standardize=True).fit(bags, labels)
    expected = model.decision_function(bags), model.transform(bags), *model.bag_weights(bags)
    model.set_params(**later)
    found = model.decision_function(bags), model.transform(bags), *model.bag_weights(bags)
    assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]
    assert model.get_params().items() >= later.items()


def test_structures_of_estimators():
    """The k best of a memory: a classifier of k neighbours; of bags: as large a k as the bags changes nothing."""
    from sklearn.base import clone
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    near = HopfieldClassifier(beta=2.0, separation="softmax", structure=TopK(5)).fit(X[::2], y[::2])
    assert clone(near).structure == TopK(5)
    weights = near.memory_.associate(X[1:2]).toarray()
    distance = np.linalg.norm(X[::2] - X[1], axis=1)
    assert (weights[0] > 0).sum() == 5
    assert set(np.flatnonzero(weights[0])) == set(np.argsort(distance, kind="stable")[:5])
    assert near.score(X[1::2], y[1::2]) > 0.9
    retriever = HopfieldRetriever(beta="auto", structure=TopK(1)).fit(X[:40])
    assert retriever.memory_.structure == TopK(1)
    assert (retriever.transform(X[:40]) == X[:40]).all(axis=1).mean() > 0.9
    with pytest.raises(ValueError, match="separation"):
        HopfieldRetriever(structure=RandomFeatures(4)).fit(X[:40]).transform(X)

    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(n, 3)) for n in (4, 5, 6, 5)]
    labels = [0, 1, 0, 1]
    options = {"epochs": 3, "random_state": 0, "num_heads": 2}
    want = HopfieldMILClassifier(**options).fit(bags, labels).decision_function(bags)
    same = HopfieldMILClassifier(**options, structure=TopK(6)).fit(bags, labels)
    np.testing.assert_allclose(same.decision_function(bags), want, rtol=1e-4, atol=1e-6)
    one = HopfieldMILClassifier(**options, structure=TopK(1), separation="softmax").fit(bags, labels)
    assert not np.allclose(one.decision_function(bags), want)
