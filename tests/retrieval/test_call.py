"""A call is prepared once: every argument is converted and checked once, and the structure supplies the executor."""

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield._engine.call import Call
from sparsehopfield._engine.executor import CoreExecutor
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.separations import separation_code
from sparsehopfield.structures import Full, LinearFeatures, RandomFeatures, RandomMask, TopK, Window

X = np.random.default_rng(0).standard_normal((6, 4))


class Once:
    """An array-like that counts how often it is converted."""

    def __init__(self, array):
        self.array, self.count = np.asarray(array), 0

    def __array__(self, dtype=None, copy=None):
        self.count += 1
        return self.array if dtype is None else self.array.astype(dtype)


MEMORY = sh.HopfieldMemory(X, 4.0)
FEATURES = {"separation": "softmax", "structure": LinearFeatures()}
CALLS = {
    "update": (sh.update, {"queries": X, "patterns": X, "beta": 2.0, "values": X[:, :3]}, {}),
    "update, beta of each query": (sh.update, {"queries": X, "patterns": X, "beta": np.arange(1.0, 7)}, {}),
    "update, by features": (sh.update, {"queries": X, "patterns": X, "beta": 2.0, "values": X[:, :3]}, FEATURES),
    "retrieve": (
        sh.retrieve,
        {"queries": X, "patterns": X, "beta": 2.0, "values": X[:, :3], "tol": 1e-9},
        {"return_info": ["weights", "energy"]},
    ),
    "retrieve, by features": (sh.retrieve, {"queries": X, "patterns": X, "tol": 1.0}, FEATURES),
    "energy": (sh.energy, {"queries": X, "patterns": X, "beta": 2.0}, {"structure": TopK(2)}),
    "associate": (sh.associate, {"queries": X, "patterns": X, "beta": 2.0, "min_weight": 0.1}, {"top": 2}),
    "candidates": (sh.candidates, {"queries": X, "patterns": X, "beta": 2.0, "values": X}, {"offset": 3}),
    "memory": (sh.HopfieldMemory, {"patterns": X, "values": X, "ids": range(6)}, {}),
    "memory.retrieve": (MEMORY.retrieve, {"queries": X, "tol": 1e-9}, {"return_info": ["weights"]}),
    "memory.certify": (MEMORY.certify, {"queries": X, "beta": 2.0}, {}),
    "memory.exact_radius": (MEMORY.exact_radius, {"beta": 2.0}, {}),
    "memory.is_fixed_point": (MEMORY.is_fixed_point, {"beta": 2.0}, {}),
    "features.state": (RandomFeatures(8).state, {"patterns": X, "values": X[:, :3], "beta": 0.5}, {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_is_converted_once(name):
    function, arrays, options = CALLS[name]
    counted = {argument: Once(value) for argument, value in arrays.items()}
    function(**counted, **options)
    assert {argument: once.count for argument, once in counted.items()} == dict.fromkeys(arrays, 1)


@pytest.mark.parametrize("structure", [None, Full(), TopK(2), Window(1), RandomMask(2), LinearFeatures()], ids=str)
def test_the_structure_supplies_the_executor(structure):
    stored, code = PatternSet(X, None, "dot", copy=None, check_finite=True), separation_code("softmax")
    given = None if isinstance(structure, Full) else structure
    call = Call.prepare(stored, X, 2.0, code, given)
    np.testing.assert_array_equal(call.update(), sh.update(X, X, 2.0, separation="softmax", structure=structure))
    if isinstance(structure, LinearFeatures):
        assert not isinstance(call.executor, CoreExecutor)
        for operation in (call.energy, call.associate, call.candidates):
            with pytest.raises(ValueError, match=r"^structure: LinearFeatures has no"):
                operation()
    else:
        assert isinstance(call.executor, CoreExecutor)
        assert (call.executor.pairs is None) == (given is None)
        np.testing.assert_array_equal(call.energy(), sh.energy(X, X, 2.0, separation="softmax", structure=structure))
