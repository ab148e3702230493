"""Import paths, pickles and commands of before the modules moved go on working."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import run_python

import sparsehopfield as sh
from sparsehopfield import structures
from sparsehopfield._moved import MOVED
from sparsehopfield.estimators import HopfieldRetriever


@pytest.mark.parametrize("first", ["before", pytest.param("now", marks=pytest.mark.depth)])
def test_every_path_of_before_is_the_module_itself(first):
    """Import both paths of every module in a new process, in both orders."""
    code = f"""
import importlib, json
from sparsehopfield._moved import MOVED
from sparsehopfield.estimators import HopfieldRetriever
for pair in MOVED.items():
    old, new = [importlib.import_module("sparsehopfield." + path) for path in pair[:: {1 if first == "before" else -1}]]
    assert old is new, pair
    assert new.__spec__.name == new.__name__ == "sparsehopfield." + pair[1], new.__spec__
import sparsehopfield.plotting
assert callable(sparsehopfield.candidates), "an import has hidden the function"
from sparsehopfield import bags
from sparsehopfield.functional import sparsemax
print(json.dumps(bags.__name__))"""
    assert run_python(code) == "sparsehopfield.data.bags"


def test_no_path_is_both_moved_and_there():
    folder = Path(sh.__file__).parent
    for path in MOVED:
        where = folder / path.replace(".", "/")
        assert not where.with_suffix(".py").exists(), path
        assert not (where / "__init__.py").exists(), path


def test_an_unknown_module_is_still_unknown():
    with pytest.raises(ModuleNotFoundError, match=r"sparsehopfield\.nothing"):
        __import__("sparsehopfield.nothing")


def test_pickles_of_before_load():
    """Load objects that were pickled under the old paths (protocol 4), and compare them with new ones."""
    before = pickle.loads((Path(__file__).parent / "objects.pickle").read_bytes())
    x = np.eye(4, 3) + np.arange(12).reshape(4, 3) / 16
    memory = sh.HopfieldMemory(x, separation=sh.Entmax(1.25), structure=structures.Window(2))
    np.testing.assert_array_equal(before["memory"].update(x), memory.update(x))
    plain = sh.HopfieldMemory(x)
    np.testing.assert_array_equal(before["info"].steps, plain.retrieve(x, return_info=True)[1].steps)
    np.testing.assert_array_equal(before["retriever"].transform(x), HopfieldRetriever().fit(x).transform(x))
    assert before["window"] == structures.Window(2, causal=True)
    assert before["linear features"] == structures.LinearFeatures()
    assert str(before["report"]) == str(plain.report())
    assert str(before["duplicates"]) == str(plain.duplicates(0.1))
    merged = sh.merge([before["candidates"]])
    assert type(merged).__module__ == "sparsehopfield._engine.partial"
    assert before["layer"](np.ones((1, 5, 3))).shape == (1, 3)


def test_a_module_of_before_can_be_run():
    """Run one as `python -m` does, under its path of before."""
    code = "import runpy; runpy.run_module('sparsehopfield.plotting', run_name='__main__', alter_sys=True); print(1)"
    assert run_python(code) == 1
