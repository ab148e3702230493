"""HopfieldPrototypeClassifier: its network is the layer, what it learns is better than its start, and usage adds up."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.neighbors import NearestCentroid

import sparsehopfield as sh
from sparsehopfield.estimators import HopfieldPrototypeClassifier
from sparsehopfield.estimators._prototypes import PrototypeNetwork, _shares
from sparsehopfield.losses import softmax_loss
from sparsehopfield.structures import LinearFeatures, RandomFeatures, RandomMask, TopK, Window

X, y = load_iris(return_X_y=True)
FAST = {"n_prototypes": 6, "epochs": 5, "random_state": 0}


def network_of(rng, separation, **options):
    made = PrototypeNetwork(
        3,
        4,
        n_prototypes=5,
        beta=4.0,
        separation=separation,
        dtype="float64",
        **{"learn_beta": True, "structure": None} | options,
    )
    made.begin(rng.normal(size=(5, 3)), rng.normal(size=(5, 4)))
    return made


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", sh.Entmax(1.3)], ids=str)
@pytest.mark.parametrize("structure", [None, TopK(2)], ids=str)
def test_network_is_a_memory_of_its_prototypes(separation, structure):
    rng = np.random.default_rng(1)
    network, rows = network_of(rng, separation, structure=structure), rng.normal(size=(20, 3))
    expected = sh.update(
        rows,
        network.prototypes,
        4.0 / 3,
        values=network.logits,
        similarity="euclidean",
        separation=separation,
        structure=structure,
    )
    assert np.allclose(network.forward(rows), expected, rtol=0, atol=1e-12)
    assert np.allclose(network.weights(rows) @ network.logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_gradients_are_those_of_distances(separation):
    """By differences of the loss, where prototypes are moved and the feature of their lengths with them."""
    rng = np.random.default_rng(2)
    network, rows, true = network_of(rng, separation), rng.normal(size=(7, 3)), rng.integers(4, size=7)

    def loss(prototypes, logits, beta):
        out = sh.update(rows, prototypes, beta, values=logits, similarity="euclidean", separation=separation)
        return softmax_loss(out, true, reduction="sum")

    _, grad = softmax_loss(network.forward(rows), true, return_gradient=True)
    network.backward(grad)
    at = [network.prototypes.copy(), network.logits.copy(), np.array([4.0 / 3])]
    layer = network.layer
    found = [
        layer.lookup_weights.grad[0, :, :-1],
        layer.target_weights.grad[0],
        network.parameters()["layer.hopfield.log_scaling"].grad / at[2],
    ]
    assert not layer.lookup_weights.grad[0, :, -1].any()
    for i, values in enumerate(at):
        for place in np.ndindex(values.shape):
            both = []
            for step in (1e-6, -1e-6):
                moved = [a.copy() for a in at]
                moved[i][place] += step
                both.append(loss(moved[0], moved[1], float(moved[2][0])))
            assert abs((both[0] - both[1]) / 2e-6 - found[i][place]) < 1e-6


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")  # of the peer: some pixels are never dark
def test_learns_more_than_the_means_it_begins_with():
    digits, labels = load_digits(return_X_y=True)
    training, test = (digits[:900], labels[:900]), (digits[900:], labels[900:])
    start = NearestCentroid().fit(*training).score(*test)
    for separation in ("sparsemax", "softmax"):
        model = HopfieldPrototypeClassifier(10, separation=separation, epochs=15, random_state=0).fit(*training)
        assert model.score(*test) > start + 0.01
        assert model.history_["loss"][-1] < model.history_["loss"][0] / 2
        assert sorted(model.prototype_classes_) == list(range(10))
        assert model.usage_.n_used == 10
        assert (model.usage_.mean_support > 9) == (separation == "softmax")


def test_what_a_model_is_made_of():
    model = HopfieldPrototypeClassifier(**FAST).fit(X, y)
    weights = model.prototype_weights(X)
    assert np.allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-6)
    assert np.allclose(weights @ model.prototype_logits_, model.decision_function(X), rtol=0, atol=1e-5)
    assert np.allclose(model.predict_proba(X), sh.softmax(model.decision_function(X)), rtol=0, atol=1e-6)
    assert np.allclose(model.usage_.weight, weights.mean(axis=0), rtol=0, atol=1e-6)
    assert np.allclose(model.usage_.rows, (weights > 0).mean(axis=0), rtol=0, atol=1e-12)
    nearest = np.bincount(weights.argmax(axis=1), minlength=6) / 150
    assert np.allclose(model.usage_.nearest, nearest, rtol=0, atol=1e-12)
    assert str(model.usage_).startswith("PrototypeUsage(")
    assert model.prototype_classes_.tolist() == [0, 0, 1, 1, 2, 2]
    # In the rows' own units: a memory of the prototypes gives the same weights.
    memory = sh.HopfieldMemory(model.prototypes_, model.beta_ / 4 / model.scale_**2, similarity="euclidean")
    assert np.allclose(memory.update(X), weights @ model.prototypes_, rtol=0, atol=1e-4)


def test_same_seed_same_bits_and_pickles():
    one, two = (HopfieldPrototypeClassifier(**FAST).fit(X, y) for _ in range(2))
    other = pickle.loads(pickle.dumps(one))
    for model in (two, other):
        assert model.predict_proba(X).tobytes() == one.predict_proba(X).tobytes()
    one.partial_fit(X, y), other.partial_fit(X, y)
    assert one.prototypes_.tobytes() == other.prototypes_.tobytes() != two.prototypes_.tobytes()


def test_rows_of_weight_zero_are_not_there():
    weight = np.where(np.arange(150) % 3, 2.0, 0.0)
    kept = weight > 0
    for init in ("k-means", "rows"):
        weighted = HopfieldPrototypeClassifier(**FAST, init=init, dtype="float64").fit(X, y, sample_weight=weight)
        plain = HopfieldPrototypeClassifier(**FAST, init=init, dtype="float64").fit(X[kept], y[kept])
        assert np.allclose(weighted.predict_proba(X), plain.predict_proba(X), rtol=0, atol=1e-9)
        assert np.allclose(weighted.usage_.weight, plain.usage_.weight, rtol=0, atol=1e-9)


def test_usage_counts_rows_by_their_weights():
    weight = np.random.default_rng(0).uniform(size=150)
    model = HopfieldPrototypeClassifier(**FAST).fit(X, y, sample_weight=weight)
    made = model.prototype_weights(X)
    for found, of_rows in (
        (model.usage_.weight, made),
        (model.usage_.rows, made > 0),
        (model.usage_.nearest, made == made.max(axis=1, keepdims=True)),
    ):
        assert np.allclose(found, np.average(of_rows, axis=0, weights=weight), rtol=0, atol=1e-6)


def test_weights_draw_towards_their_rows():
    """Two classes at the same place: the heavier one is answered, with its share."""
    rows, labels = np.zeros((40, 1)), np.arange(40) % 2
    rows[::4] = 1.0
    model = HopfieldPrototypeClassifier(2, epochs=200, learning_rate=0.05, batch_size=40, random_state=0)
    model.fit(rows[1::2], labels[1::2] * 0 + np.arange(20) % 2, sample_weight=np.where(np.arange(20) % 2, 3.0, 1.0))
    assert np.allclose(model.predict_proba(rows[1:2])[0], [0.25, 0.75], rtol=0, atol=0.01)


def test_parts_that_are_all_rows_are_epochs():
    whole = HopfieldPrototypeClassifier(**FAST, learning_rate_decay=1.0).fit(X, y)
    parts = HopfieldPrototypeClassifier(**FAST)
    for _ in range(FAST["epochs"]):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    assert parts.prototypes_.tobytes() == whole.prototypes_.tobytes()
    assert parts.predict_proba(X).tobytes() == whole.predict_proba(X).tobytes()
    assert np.array_equal(parts.history_["loss"], whole.history_["loss"])


def test_partial_fit_learns_from_parts():
    model = HopfieldPrototypeClassifier(9, learning_rate=0.05, random_state=0)
    order = np.random.default_rng(0).permutation(150)
    for _ in range(5):
        for part in np.array_split(order, 3):
            model.partial_fit(X[part], y[part], classes=[0, 1, 2])
    assert len(model.history_["loss"]) == 15
    assert model.score(X, y) > 0.93
    assert model.partial_fit(X[:1], y[:1]).usage_.n_used == 1
    first = HopfieldPrototypeClassifier(4, random_state=0).partial_fit([[0.0], [1.0]], ["b", "b"], classes=["a", "b"])
    assert first.predict([[0.5]]).tolist() == ["b"]


@pytest.mark.parametrize("init", ["k-means", "rows"])
def test_more_prototypes_than_rows_and_fewer_than_classes(init):
    many = HopfieldPrototypeClassifier(20, init=init, epochs=3, random_state=0).fit([[0.0], [0.0], [1.0]], [0, 0, 1])
    assert len(np.unique(many.prototypes_, axis=0)) == 20
    assert many.predict([[0.0], [1.0]]).tolist() == [0, 1]
    few = HopfieldPrototypeClassifier(2, init=init, epochs=3, random_state=0).fit(X, y)
    assert few.prototypes_.shape == (2, 4)
    assert few.prototype_logits_.shape == (2, 3)


def test_shares_of_classes():
    assert _shares(np.array([50.0, 30.0, 20.0]), 10).tolist() == [5, 3, 2]
    assert _shares(np.array([1000.0, 1.0, 0.0]), 3).tolist() == [2, 1, 0]
    assert _shares(np.array([5.0, 9.0, 7.0]), 2).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_prototypes": 0}, "n_prototypes: "),
        ({"beta": 0.0}, "beta: must be positive"),
        ({"beta": 1e300}, "beta: must be positive and finite in float32"),
        ({"separation": "max"}, "separation: "),
        ({"separation": "normmax2", "structure": RandomMask(2)}, "structure: must be None or TopK"),
        ({"structure": Window(1)}, "structure: must be None or TopK"),
        ({"structure": Window(1), "batch_size": 6}, "structure: must be None or TopK"),
        ({"structure": RandomFeatures(4)}, "structure: must be None or TopK"),
        ({"structure": LinearFeatures(), "separation": "softmax"}, "structure: must be None or TopK"),
        ({"init": "zeros"}, "init: "),
        ({"epochs": 0}, "epochs: "),
        ({"batch_size": 0}, "batch_size: "),
        ({"learning_rate": -1.0}, "learning_rate: "),
        ({"learning_rate_decay": 0.0}, "learning_rate_decay: "),
        ({"max_norm": -1.0}, "max_norm: "),
        ({"dtype": "float16"}, "dtype: "),
        ({"random_state": "x"}, "random_state: "),
        ({"learning_rate": 1e30}, "learning_rate, beta: with 1e\\+30 and 10.0 training failed in epoch 1"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_and_nothing_is_changed(options, message):
    model = HopfieldPrototypeClassifier(**FAST).fit(X, y)
    kept = model.predict_proba(X)
    model.set_params(**options)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(X, y)
    assert np.array_equal(model.predict_proba(X), kept)


def test_a_beta_at_which_scores_overflow_is_named():
    rows = np.random.default_rng(0).standard_cauchy((300, 5))
    with pytest.raises(ValueError, match=r"beta: with 1e\+38 training cannot begin"):
        HopfieldPrototypeClassifier(20, beta=1e38, epochs=1, random_state=0).fit(rows, np.arange(300) % 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_too_far_from_those_of_fit_are_named(dtype):
    model = HopfieldPrototypeClassifier(**FAST, dtype=dtype).fit(X, y)
    kept, far = model.predict_proba(X), X.copy()
    far[3] = 1e30 if dtype == "float32" else 1e200
    for ask in (model.predict, model.prototype_weights, lambda rows: model.partial_fit(rows, y)):
        with pytest.raises(ValueError, match="X: row 3 is too far from the centre of the rows of fit"):
            ask(far)
    assert np.array_equal(model.predict_proba(X), kept)


def test_weight_decay_leaves_beta_alone():
    """Labels that no row tells: prototypes and logits decay, and beta gets no gradient to speak of."""
    betas = {}
    for decay in (0.0, 1.0):
        model = HopfieldPrototypeClassifier(
            3, beta=50.0, weight_decay=decay, learning_rate=1e-4, epochs=20, batch_size=150, random_state=0
        ).fit(X, y)
        betas[decay] = model.beta_
        if decay:
            # The logarithm of beta / 4 would shrink by the factor (1 - 1e-4)^20 and so beta by 0.5 %.
            assert abs(model.prototype_logits_).max() < 3
    assert betas[1.0] == pytest.approx(betas[0.0], rel=5e-4)


def test_parameters_of_the_network_are_those_of_fit():
    model = HopfieldPrototypeClassifier(**FAST).fit(X, y)
    other = pickle.loads(pickle.dumps(model))
    model.set_params(separation="softmax", n_prototypes=9, structure=TopK(1), beta=3.0, dtype="float64")
    for ask in ("predict_proba", "decision_function", "prototype_weights"):
        assert getattr(model, ask)(X).tobytes() == getattr(other, ask)(X).tobytes()
    assert model.partial_fit(X, y).prototypes_.tobytes() == other.partial_fit(X, y).prototypes_.tobytes()


def test_partial_fit_trains_at_the_learning_rate_that_is_set():
    made = [HopfieldPrototypeClassifier(**FAST, learning_rate_decay=decay).fit(X, y) for decay in (1e-9, 1.0)]
    before = [model.prototypes_.copy() for model in made]
    moved = [abs(model.partial_fit(X, y).prototypes_ - old).max() for model, old in zip(made, before, strict=True)]
    assert moved[0] > moved[1] / 10 > 0  # not at what the decay has left of it
    kept = made[0].set_params(learning_rate=0.0).prototypes_
    assert np.array_equal(made[0].partial_fit(X, y).prototypes_, kept)


def test_a_class_that_comes_late_is_learned_by_the_others_prototypes():
    model = HopfieldPrototypeClassifier(6, learning_rate=0.05, random_state=0)
    model.partial_fit(X[:100], y[:100], classes=[0, 1, 2])
    assert set(model.prototype_classes_) == {0, 1}
    for _ in range(30):
        model.partial_fit(X, y)
    assert model.score(X[100:], y[100:]) > 0.8


@pytest.mark.parametrize("w", [1e306, 1e300, 1e-300, 5e-324])
@pytest.mark.parametrize("init", ["k-means", "rows"])
def test_scale_of_weights_does_not_count(init, w):
    model = HopfieldPrototypeClassifier(**FAST, init=init)
    plain, scaled = model.fit(X, y).predict_proba(X), model.fit(X, y, np.full(150, w)).predict_proba(X)
    assert np.array_equal(plain, scaled)
    lopsided = np.where(y == 0, w, 1.0)
    assert np.isfinite(model.fit(X, y, lopsided).predict_proba(X)).all()
    lopsided[:] = np.where(np.arange(150) % 2, 1e-300, 1e300)
    assert np.isfinite(model.fit(X, y, lopsided).predict_proba(X)).all()


def test_rows_to_begin_with_are_drawn_by_their_weights():
    """One row of 40 has half of all weight: as one of two prototypes it begins with more than half of the time."""
    rows, weight = np.arange(40.0)[:, None], np.ones(40)
    weight[7] = 39.0
    found = 0
    for seed in range(100):
        model = HopfieldPrototypeClassifier(2, init="rows", epochs=1, learning_rate=0.0, random_state=seed)
        model.fit(rows, np.zeros(40), weight)
        found += np.isclose(model.prototypes_, 7.0, rtol=0, atol=1e-4).any()
    first, second = 39 / 78, 39 / 77  # to be the first; to be the second where it was not
    expected = 100 * (first + (1 - first) * second)
    assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected / 100))


def test_rows_that_do_not_fit_are_named():
    model = HopfieldPrototypeClassifier(**FAST)
    with pytest.raises(ValueError, match="classes: the first call of partial_fit"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="sample_weight: at least one must be positive"):
        model.fit(X, y, sample_weight=np.zeros(150))
    with pytest.raises(ValueError, match="X: "):
        model.fit(X * 1e200, y)
    model.fit(X, y)
    with pytest.raises(ValueError, match="classes: must be those of the first call"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="y: label 7 is not among the classes"):
        model.partial_fit(X[:1], [7])
