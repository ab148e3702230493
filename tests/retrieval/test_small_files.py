"""Small files that ask for much: a FileFormatError before anything is allocated, with a short message."""

import json
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers
from sparsehopfield._engine import files
from sparsehopfield._engine.structure import described, restored
from sparsehopfield.structures import RandomFeatures, TopK

MOST = 4 * 2**20  # bytes that reading a small file may take at a time


@contextmanager
def little():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


def written(path, description, arrays=None):
    """A layer file that says what it likes, with all its checksums."""
    text = description if isinstance(description, str) else json.dumps(description)
    fields = {"format": "sparsehopfield.layer", "version": "1", "layer": text}
    files.write_tensors(path, fields, {"weight": np.ones((1, 1), np.float32)} if arrays is None else arrays)


def refused(path, match, load=layers.load):
    with little(), pytest.raises(sh.FileFormatError, match=match) as error:
        load(path)
    assert len(str(error.value)) <= 1100
    assert str(error.value).startswith(str(path))


BIG = 200_000_000
POOLING = {"input_size": 4, "hidden_size": None, "output_size": None, "pattern_size": None, "num_heads": 1}
LARGE = {
    "quantity of pooling": {"HopfieldPooling": {**POOLING, "quantity": BIG, "trainable": True}},
    "quantity of lookup": {"HopfieldLayer": {**POOLING, "quantity": BIG, "lookup_weights_as_separated": True}},
    "input_size": {"Linear": {"input_size": BIG, "output_size": 1}},
    "output_size": {"Linear": {"input_size": 1, "output_size": 10**12}},
    "both": {"Linear": {"input_size": 2**62, "output_size": 2**62}},
    "beyond": {"Linear": {"input_size": 2**70, "output_size": 1}},
    "norm": {"LayerNorm": {"size": 10**11}},
    "hidden_size": {"Hopfield": {"input_size": 4, "hidden_size": 10**10}},
    "num_heads": {"SparseHopfield": {"input_size": 4, "num_heads": BIG, "hidden_size": 1}},
    "learned beta": {
        "Hopfield": {"input_size": 4, "num_heads": BIG, "hidden_size": 1, "learnable_scaling": True, "scaling": 1.0}
    },
    "pattern_size": {"Hopfield": {"input_size": 4, "pattern_size": BIG, "concat_bias_pattern": True}},
    "output": {"Hopfield": {"input_size": 4, "output_size": 10**15}},
    "space": {
        "Hopfield": {
            "input_size": 4, "hidden_size": BIG, "normalize_hopfield_space": True,
            "normalize_hopfield_space_affine": True,
        }
    },
    "inside": {"Sequential": {"layers": [{"ReLU": {}}, {"Linear": {"input_size": BIG, "output_size": BIG}}]}},
    "structure": {"Hopfield": {"input_size": BIG, "structure": {"RandomFeatures": described(RandomFeatures(8))[
        "RandomFeatures"] | {"n_features": 10**12}}}},
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_sizes_that_no_tensor_has(name, tmp_path):
    path = tmp_path / "layer"
    written(path, LARGE[name])
    refused(path, "state|describes no layer")


def nested(depth, inside='{"ReLU": {}}'):
    return '{"Sequential": {"layers": [' * depth + inside + "]}}" * depth


DEEP = {
    "900 lists": "[" * 900 + "]" * 900,
    "100,000 lists": "[" * 100_000 + "]" * 100_000,
    "5,000 objects": '{"a": ' * 5000 + "1" + "}" * 5000,
    "300 sequentials": nested(300),
    "3,000 sequentials": nested(3000),
    "40 sequentials": nested(40),
    "in an argument": '{"Linear": {"input_size": %s, "output_size": 1}}' % ("[" * 400 + "]" * 400),
    "in a structure": '{"Hopfield": {"input_size": 3, "structure": %s}}' % ('{"TopK":' * 200 + "1" + "}" * 200),
}


@pytest.mark.parametrize("name", DEEP)
def test_descriptions_that_are_nested(name, tmp_path):
    path = tmp_path / "layer"
    written(path, DEEP[name])
    refused(path, "describes no layer")


WRONG = {
    "no JSON": "{",
    "long name": {"x" * 500_000: {}},
    "long argument": {"Linear": {"y" * 500_000: 1}},
    "long text": {"Linear": {"input_size": "z" * 500_000, "output_size": 1}},
    "long dtype": {"Linear": {"input_size": 1, "output_size": 1, "dtype": "z" * 100_000}},
    "long separation": {"Hopfield": {"input_size": 1, "separation": "z" * 500_000}},
    "long list": {"Linear": {"input_size": list(range(50_000)), "output_size": 1}},
    "huge number": '{"Linear": {"input_size": %s, "output_size": 1}}' % ("9" * 4000),
    "too huge number": '{"Linear": {"input_size": %s, "output_size": 1}}' % ("9" * 400_000),
    "not a number": '{"LayerNorm": {"size": 1, "eps": NaN}}',
    "infinite": '{"Dropout": {"rate": Infinity}}',
    "two kinds": {"ReLU": {}, "GELU": {}},
    "arguments as list": {"Linear": [1, 1]},
    "positional": {"Sequential": {"layers": {"ReLU": {}}}},
    "no layers": {"Sequential": {"layers": []}},
    "self": {"Linear": {"self": 1, "input_size": 1, "output_size": 1}},
    "class": {"Linear": {"__class__": 1, "input_size": 1, "output_size": 1}},
    "base": {"Module": {"config": {}, "dtype": "float32", "random_state": 0}},
    "alpha": {"Hopfield": {"input_size": 1, "separation": {"Entmax": "x" * 10_000}}},
    "order": {"Hopfield": {"input_size": 1, "separation": {"Polynomial": 1e400}}},
}


@pytest.mark.parametrize("name", WRONG)
def test_descriptions_of_nothing(name, tmp_path):
    path = tmp_path / "layer"
    written(path, WRONG[name])
    refused(path, "describes no layer|state")


def test_many_tensors_and_long_names(tmp_path):
    path = tmp_path / "layer"
    arrays = {f"{i:0>40}": np.ones(1, np.float32) for i in range(4000)}
    written(path, {"Linear": {"input_size": 1, "output_size": 1}}, arrays)
    refused(path, "does not fit Linear: missing weight, bias; unknown")
    written(path, {"Linear": {"input_size": 1, "output_size": 1}}, {"n" * 300_000: np.ones(1, np.float32)})
    refused(path, "does not fit Linear")
    with pytest.raises(ValueError, match="does not fit Linear") as error:
        layers.Linear(1, 1).load_state_dict(arrays)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "text",
    ["[" * 900 + "]" * 900, '{"TopK": ' * 5000 + "1" + "}" * 5000, '{"%s": {}}' % ("x" * 100_000), "{", "9" * 5000],
    ids=["lists", "objects", "long", "cut", "number"],
)
def test_structures_of_memory_files(tmp_path, monkeypatch, text):
    path = tmp_path / "memory"
    made = files._fields_of
    monkeypatch.setattr(files, "_fields_of", lambda model: made(model) | {"structure": text})
    sh.HopfieldMemory(np.eye(3), structure=TopK(2)).save(path)
    refused(path, "structure: ", sh.HopfieldMemory.load)


def test_a_structure_that_would_be_large_is_loaded_small(tmp_path):
    path = tmp_path / "memory"
    memory = sh.HopfieldMemory(np.eye(3), separation="softmax", structure=RandomFeatures(10**9))
    with little():
        memory.save(path)
        assert sh.HopfieldMemory.load(path).structure == RandomFeatures(10**9)


def test_descriptions_as_they_are():
    deep = json.loads("[" * 500 + "]" * 500)
    for wrong in (deep, {"TopK": {"k": deep}}, {"Window": deep}):
        with pytest.raises(ValueError, match=r"^structure: ") as error:
            restored(wrong)
        assert len(str(error.value)) < 1000


def test_as_deep_as_may_be(tmp_path):
    model = layers.Linear(2, 2, random_state=0)
    for _ in range(30):
        model = layers.Sequential(model)
    model.save(tmp_path / "layer")
    again = layers.load(tmp_path / "layer")
    assert np.array_equal(again.forward(np.ones((1, 2))), model.forward(np.ones((1, 2))))
    for _ in range(10):
        model = layers.Sequential(model)
    with pytest.raises(ValueError, match=r"^save: is nested more than"):
        model.save(tmp_path / "deeper")
    assert not (tmp_path / "deeper").exists()


def test_what_is_loaded_is_held_once(tmp_path):
    """Read, checked and put where it belongs: nothing random before it, and no more than one copy on the way."""
    path = tmp_path / "layer"
    layer = layers.Linear(1000, 1000, random_state=0)
    layer.save(path)
    tracemalloc.start()
    try:
        loaded = layers.load(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * layer.weight.value.nbytes
    finally:
        tracemalloc.stop()
    assert np.array_equal(loaded.weight.value, layer.weight.value)
    loaded.weight.value[...] = 1  # its own, which may be written to
    assert np.array_equal(layers.load(path).weight.value, layer.weight.value)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("beta", "x" * 5000),
        ("beta", "0x1p99999"),
        ("scale", ""),
        ("separation", "entmax"),
        ("separation", "entmax " + "9" * 400),
        ("separation", "polynomial 1e9"),
        ("separation", "polynomial " + "9" * 5000),
    ],
)
def test_numbers_of_memory_files(tmp_path, field, text):
    """Fields of the right checksum that hold no number are named."""
    path = tmp_path / "memory"
    sh.HopfieldMemory(np.eye(2)).save(path)
    with open(path, "rb") as file:
        _, fields, _ = files.read_header(str(path), file)
    kept = {name: value for name, value in fields.items() if name not in ("data", "header")}
    files.write_tensors(path, kept | {field: text}, {"patterns": np.eye(2)})
    refused(path, f": {field}: no number that can be read", sh.HopfieldMemory.load)


def test_features_are_counted():
    for n in (2**31, 2**62, 10**400):
        with pytest.raises(ValueError, match="n_features: must be at most 2147483647"):
            RandomFeatures(n)
