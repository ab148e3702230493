"""Structures in words and in memories: a memory answers as the functions do, whatever was added, removed and saved."""

import copy
import json
import pickle

import numpy as np
import pytest
from helpers import name_of
from scipy import sparse

from sparsehopfield.structure import described, restored
from sparsehopfield.structures import BlockSparse, Full, LinearFeatures, RandomFeatures, RandomMask, TopK, Window

# --- in words ---------------------------------------------------------------------------------------------------------

ALL = [
    TopK(3),
    Window(2),
    Window(2, causal=np.True_, dilation=2, global_positions=[3, 1, 3], positions=[[1], [4]]),
    RandomMask(3, 2**64 - 1, block=2),
    BlockSparse(np.array([[True, False], [True, True]]), (2, 3)),
    BlockSparse(sparse.bsr_array(np.eye(6), blocksize=(2, 2))),
    BlockSparse(np.zeros((2, 3), bool), 1),
    LinearFeatures("relu", causal=np.True_),
    RandomFeatures(np.int64(4), 3, orthogonal=np.False_),
]


@pytest.mark.parametrize("structure", ALL, ids=name_of)
def test_there_and_back(structure):
    again = restored(json.loads(json.dumps(described(structure), allow_nan=False)))
    for same in (again, copy.copy(structure), copy.deepcopy(structure), pickle.loads(pickle.dumps(structure))):
        assert type(same) is type(structure)
        assert same == structure
        assert hash(same) == hash(structure)
        assert repr(same) == repr(structure)
        if isinstance(structure, (Window, BlockSparse)):
            n, m = (2, 6) if isinstance(structure, Window) else (same.given.shape * np.array(same.block))
            n = n if getattr(structure, "positions", 0) is not None else m
            np.testing.assert_array_equal(same.mask(n, m), structure.mask(n, m))
    assert [structure == other for other in ALL].count(True) == 1
    assert described(Full()) is described(None) is restored(None) is None


def test_copies_of_positions_are_read_only_too():
    for same in (copy.deepcopy(ALL[2]), pickle.loads(pickle.dumps(ALL[2])), restored(described(ALL[2]))):
        with pytest.raises(ValueError, match="read-only"):
            same.positions[0] = 1


def _window(**fields):
    return {"Window": {"w": 1, "causal": False, "dilation": 1, "global_positions": [], "positions": None} | fields}


def _blocks(**fields):
    return {"BlockSparse": {"shape": [2, 3], "block": [1, 2], "start": [0, 1, 3], "columns": [2, 0, 1]} | fields}


DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]

HOSTILE = {
    "a list": ([], "one name"),
    "a text": ("TopK", "one name"),
    "nothing": ({}, "one name"),
    "two": ({"TopK": {"k": 1}, "Window": {}}, "one name"),
    "unknown": ({"Pairs": {}}, "unknown name 'Pairs'"),
    "a base": ({"Structure": {}}, "unknown name"),
    "all pairs": ({"Full": {}}, "unknown name"),
    "a module": ({"np": {}}, "unknown name"),
    "no text": ({1: {}}, "unknown name"),
    "no fields": ({"TopK": {}}, "described by k"),
    "fields that are none": ({"TopK": [3]}, "described by k"),
    "a field too many": ({"TopK": {"k": 1, "seed": 2}}, "described by k"),
    "k of 0": ({"TopK": {"k": 0}}, "TopK: k: must be at least 1"),
    "k too large": ({"TopK": {"k": 10**4000}}, "k: must be"),
    "k of a bool": ({"TopK": {"k": True}}, "k: must be a whole"),
    "k NaN": ({"TopK": {"k": float("nan")}}, "k: must be a whole"),
    "k deep": ({"TopK": {"k": DEEP}}, "TopK"),
    "w": (_window(w=-1), "w: must be at least 0"),
    "causal": (_window(causal=1), "causal: must be True or False"),
    "positions of no array": (_window(positions=[[1], [2, 3]]), "Window: "),
    "positions too large": (_window(positions=[2**70]), "positions: "),
    "positions nested": (_window(positions=[[1, 2]]), "no Window"),
    "positions by name": (_window(positions={"1": 2}), "positions: "),
    "global positions twice": (_window(global_positions=[1, 1]), "no Window"),
    "global positions, a number": (_window(global_positions=3), "Window: "),
    "blocks of other shape": (_blocks(shape=[3, 3]), "start: must rise"),
    "endless blocks": (_blocks(shape=[2**62, 3]), "start: must rise"),
    "blocks of no shape": (_blocks(shape=6), "shape: must be two"),
    "no start": (_blocks(start=[]), "start: must rise"),
    "a start that falls": (_blocks(start=[0, 4, 3]), "start: must rise"),
    "a start beyond": (_blocks(start=[0, 1, 4]), "start: must rise"),
    "columns beyond": (_blocks(columns=[3, 0, 1]), "columns: must be below"),
    "columns below": (_blocks(columns=[-1, 0, 1]), "columns: must be at least 0"),
    "columns out of order": (_blocks(columns=[2, 1, 0]), "columns: must ascend"),
    "columns twice": (_blocks(columns=[2, 1, 1]), "columns: must ascend"),
    "one side": (_blocks(block=2), "no BlockSparse"),
    "block of 0": (_blocks(block=[0, 1]), "block: must be at least 1"),
    "seed": ({"RandomMask": {"k": 1, "seed": -1, "block": 1}}, "seed: must be"),
    "kind": ({"LinearFeatures": {"kind": "gelu", "causal": False}}, "kind: unknown"),
    "kind of a list": ({"LinearFeatures": {"kind": [], "causal": False}}, "kind: must be"),
    "orthogonal": ({"RandomFeatures": {"n_features": 1, "seed": 0, "orthogonal": 1, "causal": False}}, "orthogonal: "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_description(name):
    description, match = HOSTILE[name]
    with pytest.raises(ValueError, match=match) as caught:
        restored(description)
    assert str(caught.value).startswith("structure: ")
    assert len(str(caught.value)) < 500


def test_only_known_structures_are_described():
    class Own(TopK):
        pass

    with pytest.raises(ValueError, match="only those of"):
        described(Own(3))
    with pytest.raises(TypeError, match="did you mean"):
        described(TopK)
