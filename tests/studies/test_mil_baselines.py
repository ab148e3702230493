"""The baselines of the study of real bags, on made-up bags whose answer is known, and against their formulas."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='the baselines need scikit-learn: pip install "sparsehopfield[sklearn]"')

from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV

from sparsehopfield.studies.mil import baselines
from sparsehopfield.studies.mil.baselines import em_dd, gated_attention
from sparsehopfield.studies.mil.protocol import BASELINES

CONCEPT = np.array([4.0, -4.0, 0, 0, 0])  # in every positive bag one instance, the first, is near it
SMALL = {
    "GatedAttention": {"embedding": 16, "attention": 8, "learning_rate": 0.02, "epochs": 20},
    "PathEncoding": {"trees": 20},
    "EMDD": {"starts": 3},
    "CitationKNN": {"references": 5},
}


def drawn(seed, count=40):
    """Bags of 2 to 5 instances, every second one positive."""
    rng = np.random.default_rng(seed)
    bags = [rng.standard_normal((rng.integers(2, 6), 5)) for _ in range(count)]
    for bag in bags[1::2]:
        bag[0] = CONCEPT + 0.2 * rng.standard_normal(5)
    return bags, np.arange(count) % 2


@pytest.fixture(scope="module")
def fitted():
    """All baselines, trained once."""
    bags, y = drawn(0)
    names = [kind for kind, _ in BASELINES.values()]
    return {name: getattr(baselines, name)(**SMALL.get(name, {})).fit(bags, y) for name in names}


@pytest.mark.parametrize("name", [kind for kind, _ in BASELINES.values()])
def test_bags_with_a_known_answer(fitted, name):
    bags, y = drawn(1, 60)
    machine = fitted[name]
    scores = machine.decision_function(bags)
    assert scores.shape == (60,)
    assert roc_auc_score(y, scores) > 0.95
    np.testing.assert_array_equal(machine.predict(bags), (scores > 0).astype(int))
    assert machine.score(bags, y) > 0.6  # a box that was not moved out enough leaves many out
    turned = machine.decision_function([bag[::-1] for bag in bags])
    np.testing.assert_allclose(turned, scores, atol=1e-5)  # instances have no order
    np.testing.assert_allclose(machine.decision_function(bags[:3]), scores[:3], atol=1e-5)  # nor do bags see others
    bags, y = drawn(0)
    np.testing.assert_array_equal(clone(machine).fit(bags, y).decision_function(bags), machine.decision_function(bags))


def test_interface():
    bags, y = drawn(2)
    names = np.where(y == 1, "with", "without")
    machine = baselines.CitationKNN().fit(bags, names)
    assert machine.classes_.tolist() == ["with", "without"]
    assert set(machine.predict(bags)) <= {"with", "without"}
    found = GridSearchCV(baselines.CitationKNN(), {"references": [1, 3]}, scoring="roc_auc", cv=3).fit(bags, y)
    assert found.best_score_ > 0.9
    same = np.stack([bag[:2] for bag in bags])
    np.testing.assert_array_equal(
        machine.fit(same, y).decision_function(same), machine.fit(list(same), y).decision_function(list(same))
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bags, y: baselines.MILES().fit(bags, y[1:]), "y: needs one label for each of 6 bags, got 5"),
        (lambda bags, y: baselines.MILES().fit(bags, 0 * y), "y: needs two classes, got 1"),
        (lambda bags, y: baselines.MILES().fit([], y), "bags: needs at least one"),
        (lambda bags, y: baselines.MILES().fit([np.full((1, 2), np.nan)] * 6, y), "bags: bag 0 has NaN"),
        (lambda bags, y: baselines.MInD().fit(bags, y).predict([np.ones((2, 3))]), "bags: must have the 5 features"),
        (lambda bags, y: baselines.MInD().predict(bags), "not fitted"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(*drawn(3, 6))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("MILES", "width", -1),
        ("MILES", "width", 0),
        ("MILES", "C", float("nan")),
        ("MInD", "C", 0),
        ("CitationKNN", "references", 0),
        ("CitationKNN", "references", -1),
        ("CitationKNN", "citers", -3),
        ("APR", "outside", 0),
        ("APR", "outside", 2),
        ("APR", "margin", -1),
        ("EMDD", "steps", 0),
        ("EMDD", "starts", 0),
        ("EMDD", "random_state", -1),
        ("MiSVM", "turns", 0),
        ("MiSVM", "gamma", 0),
        ("GatedAttention", "epochs", 0),
        ("GatedAttention", "learning_rate", -1),
        ("PathEncoding", "depth", 0),
        ("PathEncoding", "trees", 0),
    ],
)
def test_bad_parameters(kind, name, value):
    with pytest.raises((ValueError, TypeError), match=rf"^{name}: "):
        getattr(baselines, kind)(**{name: value}).fit(*drawn(3, 6))


def test_miles_embeds_by_the_nearest_instance(fitted):
    bags, y = drawn(0)
    machine = baselines.MILES(width=2.0, C=1.0).fit(bags, y)
    rows = np.concatenate(bags)
    apart = ((rows[:, None] - rows) ** 2).sum(axis=2)
    near = np.exp(-apart / (4 * np.median(apart[~np.eye(len(rows), dtype=bool)])))
    offsets = np.cumsum([0, *map(len, bags)])
    expected = np.maximum.reduceat(near, offsets[:-1])
    np.testing.assert_allclose(machine._embedded(rows, offsets), expected, rtol=1e-6)
    first = fitted["MILES"]
    top = rows[first._machine.coef_[0].argmax()]
    np.testing.assert_allclose(top, CONCEPT, atol=1)  # what makes a bag positive is an instance of the concept


def test_citations_by_hand():
    """Bags on a line at 0, 1, 3 (negative) and 10, 11 (positive); asked for 5 and 10.4."""
    bags = [np.array([[float(x)], [x + 100.0 * (i + 1)]]) for i, x in enumerate((0, 1, 3, 10, 11))]
    machine = baselines.CitationKNN(references=2, citers=2).fit(bags, [0, 0, 0, 1, 1])
    # 5: references 3 and 1; of the others, 10 has 11 and 3 as its nearest two and so would have 5, and 11 would not
    # have it before 3: its two nearest are 10 and 3, and 5 is nearer than 3. Citers: 10 and 11. Two votes each.
    # 3 has 1 and 0 within 3, and 5 at 2: a citer, too; 1 has 0 and 3 at 2, and 5 at 4; 0 has 1 and 3, and 5 at 5.
    assert machine.decision_function([[[5.0]]]) == pytest.approx([(2 - 3) / 5])
    # 10.4: references 10 and 11, which are citers, too; 3 has nearer ones
    assert machine.decision_function([[[10.4]]]) == pytest.approx([1.0])
    assert baselines.CitationKNN(1, 1).fit(bags, [0, 0, 0, 1, 1]).predict([[[6.0]]]) == [0]


def test_box_keeps_the_features_that_matter(fitted):
    machine = fitted["APR"]
    assert set(machine.features_) <= {0, 1}
    inside = CONCEPT[machine.features_]
    assert ((machine.low_ < inside) & (inside < machine.high_)).all()
    bags, y = drawn(0)
    assert machine.predict(bags)[y == 1].all()  # it holds an instance of every positive bag that it was grown from
    wider = baselines.APR(outside=1e-6).fit(bags, y)
    assert (wider.low_ <= machine.low_).all()
    assert (wider.high_ >= machine.high_).all()


def test_diverse_density(fitted):
    machine = fitted["EMDD"]
    np.testing.assert_allclose(machine.target_[:2], CONCEPT[:2], atol=0.5)
    rng = np.random.default_rng(0)
    at, rows, positive = rng.standard_normal(6), rng.standard_normal((7, 3)), np.arange(7) % 2 == 1
    loss, slope = em_dd._loss(at, rows, positive)
    probability = np.exp(-((rows - at[:3]) ** 2) @ at[3:] ** 2)
    assert loss == pytest.approx(-np.log(np.where(positive, probability, 1 - probability)).sum())
    for i, step in enumerate(1e-6 * np.eye(6)):
        ahead, behind = (em_dd._loss(at + sign * step, rows, positive)[0] for sign in (1, -1))
        assert slope[i] == pytest.approx((ahead - behind) / 2e-6, rel=1e-4, abs=1e-6)


def test_instances_are_labelled(fitted):
    bags, y = drawn(1)
    values = [fitted["MiSVM"]._machine.decision_function(bag) for bag in bags]
    positive = [v for v, label in zip(values, y, strict=True) if label]
    assert np.mean([v[0] > 0 for v in positive]) > 0.9
    assert np.mean(np.concatenate([v[1:] for v in positive]) < 0) > 0.9  # though their bags are positive


def test_dissimilarities(fitted):
    bags, _ = drawn(0, 6)
    machine = baselines.MInD().fit(bags, [0, 1] * 3)
    expected = [[np.mean([min(((x - z) ** 2).sum() for z in other) for x in bag]) for other in bags] for bag in bags]
    found = machine._dissimilarities(np.concatenate(bags), np.cumsum([0, *map(len, bags)]))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_paths(fitted):
    bags, _ = drawn(0)
    machine = fitted["PathEncoding"]
    shares = machine._shares(np.concatenate(bags), np.cumsum([0, *map(len, bags)]))
    passed, starts = machine._embedding.decision_path(bags[4])
    np.testing.assert_allclose(shares[4], passed.toarray().mean(axis=0))
    assert (shares[:, starts[:-1]] == 1).all()  # all instances pass the roots


def test_gated_attention(fitted):
    bags, y = drawn(1)
    weights = fitted["GatedAttention"].bag_weights(bags)
    np.testing.assert_allclose([w.sum() for w in weights], 1, rtol=1e-5)
    assert np.mean([w.argmax() == 0 for w, label in zip(weights, y, strict=True) if label]) > 0.9
    rng = np.random.default_rng(0)
    pool = gated_attention._GatedPooling(3, 2, rng)
    hidden, offsets, out = rng.standard_normal((5, 3)), np.array([0, 2, 5]), rng.standard_normal((2, 3))

    def loss(at):
        return (pool.forward(at.astype(np.float32), offsets) * out).sum()

    loss(hidden)
    slope = pool.backward(out.astype(np.float32))
    for i in np.ndindex(5, 3):
        step = np.zeros((5, 3))
        step[i] = 1e-2
        assert slope[i] == pytest.approx((loss(hidden + step) - loss(hidden - step)) / 2e-2, abs=2e-3)
