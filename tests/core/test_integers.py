"""Integers are exact wherever numbers come in: float64 where float32 would round them, refused where float64 would."""

import copy
from decimal import Decimal

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers, reference
from sparsehopfield._engine.association import associate_forward
from sparsehopfield._engine.checks import compute_dtype
from sparsehopfield.estimators import HopfieldMILClassifier, HopfieldRetriever
from sparsehopfield.structures import LinearFeatures, TopK

EYE, ONE = np.eye(2, dtype=np.float32), np.eye(3, dtype=np.float32)
WIDE = [np.int32, np.uint32, np.int64, np.uint64]
NARROW = [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.float16]
BIG = [[123456789], [987654321]]  # float32 has 123456792 and 987654336


@pytest.mark.parametrize("dtype", WIDE)
def test_integers_of_more_than_16_bits_count_as_float64(dtype):
    a = np.zeros(3, dtype)
    assert compute_dtype(a) == compute_dtype(a, np.float32(1)) == np.float64


@pytest.mark.parametrize("dtype", [*NARROW, np.float32])
def test_what_float32_holds_counts_as_float32(dtype):
    assert compute_dtype(np.zeros(3, dtype), None) == np.float32


@pytest.mark.parametrize("dtype", [*NARROW, *WIDE, np.float32, np.float64])
def test_every_way_in_chooses_the_same_dtype(dtype):
    wanted = compute_dtype(np.zeros(1, dtype))
    a = np.eye(3).astype(dtype)
    memory = sh.HopfieldMemory(EYE, 9.0)
    results = {
        "patterns": sh.HopfieldMemory(a, 2.0).update(ONE),
        "values": sh.HopfieldMemory(ONE, 2.0, values=a).update(ONE),
        "queries": memory.update(a[:, :2]),
        "retrieve": memory.retrieve(a[:, :2]),
        "energy": memory.energy(a[:, :2]),
        "weights": memory.associate(a[:, :2]),
        "function": sh.update(a, ONE),
        "row map": sh.sparsemax(a),
        "threshold": sh.entmax_threshold(a)[0],
        "features": sh.update(a, ONE, separation="softmax", structure=LinearFeatures("relu")),
        "state": LinearFeatures("relu").state(a).update(ONE),
        "parts": sh.candidates(a, ONE, 1.0).states(ONE),
        "association": associate_forward(a.reshape(1, 3, 1, 3), *2 * (ONE.reshape(1, 3, 1, 3),), 1.0)[0],
        "layer without parameters": layers.GELU()(a),
        "loss": layers.binary_cross_entropy_with_logits(a, a)[1],
    }
    assert {name: r.dtype for name, r in results.items()} == dict.fromkeys(results, wanted)


@pytest.mark.parametrize("dtype", WIDE)
def test_values_come_back_exactly(dtype):
    values = np.array(BIG, dtype)
    memory = sh.HopfieldMemory(EYE, 9.0, values=values)
    for result in (
        memory.update([1, 0]),
        memory.update(EYE[0]),
        memory.retrieve(EYE[0]),
        copy.deepcopy(memory).update(EYE[0]),
        sh.update([1, 0], EYE, 9.0, values=values),
        sh.retrieve(EYE[0], EYE, 9.0, values=values),
        sh.update([1, 0], EYE, 9.0, values=values, structure=TopK(1)),
        sh.candidates([1, 0], EYE, 9.0, values=values).states(values),
    ):
        assert result.tolist() == [123456789.0]
    memory.add(EYE[:1] * 3, values=np.array([[16777217]], dtype))
    assert memory.update([3, 0]).tolist() == [16777217.0]


@pytest.mark.parametrize("dtype", WIDE)
def test_patterns_and_queries_are_exact(dtype):
    x = np.array([[16777217, 3], [5, 33554435], [2**30 + 1, 1]], dtype)
    assert sh.HopfieldMemory(x, 1.0, similarity="euclidean").update(x).tolist() == x.tolist()
    expected = reference.update(x, x.astype(np.float64), 1e-15)
    np.testing.assert_allclose(sh.update(x, x, 1e-15), expected, rtol=1e-12)
    assert sh.sparsemax(np.array([16777217, 16777216], dtype)).tolist() == [1.0, 0.0]
    np.testing.assert_array_equal(sh.HopfieldMemory(x, 1.0).margin(), sh.HopfieldMemory(x.astype(float), 1.0).margin())


HUGE = {
    "int64": np.array([[2**53 + 1, 0], [0, 1]]),
    "negative": np.array([[0, 1], [-(2**53) - 1, 0]]),
    "uint64": np.array([[2**64 - 1, 0], [0, 1]], np.uint64),
    "list": [[2**60, 1], [0, 1]],
}
WAYS_IN = {
    "patterns": lambda a: sh.HopfieldMemory(a),
    "values": lambda a: sh.HopfieldMemory(EYE, values=a),
    "queries": lambda a: sh.HopfieldMemory(EYE).update(a),
    "certify": lambda a: sh.HopfieldMemory(EYE).certify(a),
    "add": lambda a: sh.HopfieldMemory(np.eye(2)).add(a),
    "function": lambda a: sh.update(a, EYE),
    "parts": lambda a: sh.candidates(EYE, EYE, 1.0).states(a),
    "row map": lambda a: sh.softmax(a),
    "gradient": lambda a: sh.softmax_vjp(EYE, a),
    "state": lambda a: LinearFeatures("relu").state(a),
    "layer": lambda a: layers.Linear(2, 2, dtype=np.float64)(a),
    "loss": lambda a: layers.binary_cross_entropy_with_logits(EYE, a),
    "bags": lambda a: HopfieldMILClassifier().fit([a, EYE], [0, 1]),
    "retriever": lambda a: HopfieldRetriever().fit(a),
}


@pytest.mark.parametrize("numbers", HUGE)
@pytest.mark.parametrize("way", WAYS_IN)
def test_integers_that_float64_would_round_are_refused(way, numbers):
    if (way, numbers) == ("retriever", "list"):
        pytest.skip("scikit-learn makes floats of lists")
    with pytest.raises(ValueError, match=r"^\w+(\[0\])?: has integers beyond 2\*\*53, .* make them floats yourself"):
        WAYS_IN[way](HUGE[numbers])


@pytest.mark.parametrize("way", [w for w in WAYS_IN if w not in ("bags", "layer", "loss", "retriever", "parts")])
def test_integers_up_to_there_are_not(way):
    WAYS_IN[way](np.array([[2**53, 0], [-(2**53), 1]]) >> 27)


def test_numbers_with_a_dtype_of_their_own_to_go_to():
    """A float32 memory or layer is asked to keep integers that it cannot: told how they can be."""
    memory = sh.HopfieldMemory(EYE, 9.0, values=np.ones((2, 1), np.float32))
    match = r"^\w+(\[.*\])?: has integers beyond 2\*\*24, which float32 would round; use float64, or make"
    with pytest.raises(ValueError, match=match):
        memory.add(EYE, values=BIG)
    with pytest.raises(ValueError, match=match):
        memory.add(np.array([[2**24 + 1, 0]]), values=[[1]])
    assert len(memory) == 2
    memory.add(np.array([[2**24, 0]]), values=np.array([[7]]))
    assert memory.values[2] == 7
    with pytest.raises(ValueError, match=match):
        layers.Linear(1, 2)(BIG)
    with pytest.raises(ValueError, match=match):
        layers.Linear(1, 1).load_state_dict({"weight": [[2**25 + 1]], "bias": [0]})
    with pytest.raises(ValueError, match=match):
        sh.candidates(EYE, EYE, 1.0).states(np.array(BIG, np.uint32))
    mil = HopfieldMILClassifier(epochs=1)
    for bags in ([BIG, BIG], np.stack([BIG, BIG]), [np.array(BIG), np.ones((1, len(BIG[0])))]):
        with pytest.raises(ValueError, match=match):
            mil.fit(bags, [0, 1])
    with pytest.raises(ValueError, match=match):
        mil.fit(BIG, [0, 1], bag_ids=[0, 1])
    state = LinearFeatures("relu").state(EYE)
    with pytest.raises(ValueError, match=match):
        state.add(np.array([[2**24 + 1, 0]]))
    assert state.n_patterns == 2


@pytest.mark.parametrize(
    "array",
    [
        np.eye(2, dtype=np.longdouble),
        np.eye(2, dtype=complex),
        np.array([[Decimal(1), Decimal(0)], [Decimal(0), Decimal(1)]]),
        np.array([[2**64, 0], [0, 1]]),  # objects
        np.array([["1", "0"], ["0", "1"]]),
        np.eye(2).astype("M8[s]"),
    ],
    ids=["long double", "complex", "decimal", "object", "text", "dates"],
)
@pytest.mark.parametrize("way", [w for w in WAYS_IN if w not in ("bags", "retriever")])
def test_other_numbers_are_refused(way, array):
    if way in ("patterns", "certify") and array.dtype == np.longdouble and np.longdouble(0).itemsize == 8:
        pytest.skip("long double is double here")
    with pytest.raises(TypeError, match=r"^\w+(\[0\])?: must be real numbers of at most 64 bits, got dtype"):
        WAYS_IN[way](array)
