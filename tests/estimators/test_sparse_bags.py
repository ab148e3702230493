"""Sparse bags: the same network as of dense ones, and no work for instances that no gradient reaches."""

import numpy as np
import pytest
import scipy
from scipy import sparse

from sparsehopfield.estimators import HopfieldMILClassifier
from sparsehopfield.estimators._network import _Embedding
from sparsehopfield.layers import Linear

OPTIONS = {"standardize": False, "normalize": False, "embedding": (5,), "hidden_size": 3, "num_heads": 2}
OPTIONS |= {"epochs": 3, "learning_rate": 0.03, "initial_std": 0.3, "random_state": 0}


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    bags = [(rng.random((rng.integers(3, 9), 12)) < 0.3) * rng.integers(1, 3, (1, 12)).astype(float) for _ in range(10)]
    y = np.arange(10) % 2
    for bag in bags[1::2]:
        bag[0, :3] = 2
    return bags, y


@pytest.mark.parametrize("separation", ["softmax", "sparsemax", "entmax15"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_network_is_that_of_dense_bags(made, separation, dtype):
    bags, y = made
    dense = HopfieldMILClassifier(separation, dtype=dtype, **OPTIONS).fit(bags, y)
    kinds = (sparse.csr_array, sparse.csc_matrix, sparse.coo_array)
    thin = [kinds[i % 3](bag) for i, bag in enumerate(bags)]
    ours = HopfieldMILClassifier(separation, dtype=dtype, **OPTIONS).fit(thin, y)
    near = {"rtol": 1e-4 if dtype == "float32" else 1e-10, "atol": 1e-6}
    assert np.allclose(ours.decision_function(thin), dense.decision_function(bags), **near)
    assert np.allclose(ours.decision_function(bags), dense.decision_function(bags), **near)
    for one, other in zip(ours.bag_weights(thin), dense.bag_weights(bags), strict=True):
        assert np.allclose(one, other, **near)
    ids = np.repeat(np.arange(10), [len(bag) for bag in bags])
    rows, order = sparse.csr_array(np.concatenate(bags)), np.random.default_rng(1).permutation(len(ids))
    by_ids = HopfieldMILClassifier(separation, dtype=dtype, **OPTIONS).fit(rows[order], y, bag_ids=ids[order])
    assert np.allclose(by_ids.decision_function(thin), dense.decision_function(bags), rtol=1e-2, atol=1e-2)


def test_bags_of_one_size_validation_and_weights_may_be_sparse(made):
    bags, y = made
    same = [bag[:3] for bag in bags]
    thin = [sparse.csr_array(bag) for bag in same]
    weight = np.arange(10) % 3
    fitted = [
        HopfieldMILClassifier(validation_fraction=0.4, **OPTIONS).fit(x, y, validation=(x, y), sample_weight=weight)
        for x in (same, thin)
    ]
    assert fitted[0].history_.keys() == fitted[1].history_.keys()
    for name, values in fitted[0].history_.items():
        assert np.allclose(fitted[1].history_[name], values, rtol=1e-4), name
    assert np.allclose(fitted[1].transform(thin), fitted[0].transform(same), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reached", [(), (2, 4), range(7)])
def test_the_embedding_has_the_gradients_of_a_linear_layer(reached):
    rng = np.random.default_rng(0)
    x = rng.random((7, 6)) * (rng.random((7, 6)) < 0.4)
    grad = np.zeros((7, 4))
    grad[list(reached)] = rng.standard_normal((len(reached), 4))
    linear, ours = (kind(6, 4, dtype="float64", random_state=0) for kind in (Linear, _Embedding))
    assert np.allclose(ours.forward(sparse.csr_array(x)), linear.forward(x))
    linear.backward(grad)
    assert ours.backward(grad) is None
    for name, p in linear.parameters().items():
        assert np.allclose(ours.parameters()[name].grad, p.grad), name


def test_what_cannot_stay_sparse_is_refused(made):
    bags, y = made
    thin = [sparse.csr_array(bag) for bag in bags]
    for changed, message in (
        ({"standardize": True}, "standardize: must be False"),
        ({"signed": True}, "signed: must be False"),
        ({"embedding": ()}, "embedding: needs at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            HopfieldMILClassifier(**{**OPTIONS, **changed}).fit(thin, y)
    with pytest.raises(TypeError, match=r"bags\[0\]: must be sparse"):
        HopfieldMILClassifier(**OPTIONS).fit([bags[0], *thin[1:]], y)
    with pytest.raises(ValueError, match=r"bags\[1\]: has 3 features"):
        HopfieldMILClassifier(**OPTIONS).fit([thin[0], thin[1][:, :3], *thin[2:]], y)
    with pytest.raises(ValueError, match=r"bags\[2\]: must have shape"):
        HopfieldMILClassifier(**OPTIONS).fit([*thin[:2], thin[2][:0], *thin[3:]], y)
    bad = thin[3].copy()
    bad.data[0] = np.nan
    with pytest.raises(ValueError, match="bags: bag 3 has NaN"):
        HopfieldMILClassifier(**OPTIONS).fit([*thin[:3], bad, *thin[4:]], y)
    with pytest.raises(TypeError, match="bags: "):
        HopfieldMILClassifier(**OPTIONS).fit(sparse.vstack(thin), y)


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
@pytest.mark.parametrize("index", [99, -1])
def test_indices_out_of_range_are_refused(made, make, index):
    bags, y = made
    thin = [make(bag) for bag in bags]
    given = thin[3].coords[1] if thin[3].format == "coo" else thin[3].indices
    given[0] = index
    before = given.copy()
    with pytest.raises(ValueError, match=r"bags\[3\]: is no valid sparse array"):
        HopfieldMILClassifier(**OPTIONS).fit(thin, y)
    assert np.array_equal(given, before)
    one = sparse.csr_array((np.ones(1), np.array([index]), np.array([0, 1, 1])), shape=(2, 3))
    with pytest.raises(ValueError, match="bags: is no valid sparse array"):
        HopfieldMILClassifier(**OPTIONS).fit(one, [0, 1], bag_ids=[0, 1])


def test_sparse_bags_of_other_shapes_are_refused(made):
    flat = sparse.coo_array(np.ones(3))
    cases = [
        ([flat, flat], r"bags\[0\]: must have shape \(instances, features\), got \(3,\)"),
        (flat, r"bags: must be a list .* sparse array of shape \(3,\)"),
    ]
    if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 15):  # which brought arrays of more than two dimensions
        cases.append(([sparse.coo_array(np.ones((2, 3, 4)))], r"bags\[0\]: must have shape"))
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            HopfieldMILClassifier(**OPTIONS).fit(given, [0, 1])
