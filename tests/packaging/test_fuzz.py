"""The attacks of tests/fuzz in few cases, the same each time; and that they look at anything at all."""

import importlib
import re
import shutil
from random import Random

import numpy as np
import pytest
from fuzz import calls, corpus, engine, files

import sparsehopfield as sh
from sparsehopfield import estimators, layers, optim, structures
from sparsehopfield.data import bags, datasets

# The long runs are one command: tests/fuzz/README.md.
CASES = {"files": 250, "calls": 300, "interleavings": 4}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.depth)])
@pytest.mark.parametrize("attack", CASES)
def test_attack(attack, seed):
    found = engine.run(attack, cases=CASES[attack], seed=seed)
    assert not found.failures, found
    assert found.cases == CASES[attack]


def test_whatever_a_case_does_is_told(monkeypatch):
    """Crashes, hangs, greed and flaws are failures of their case alone, and the cases after it are run."""
    monkeypatch.setattr(engine, "HANG", 4.0)
    ways = importlib.import_module("fuzz.faults").WAYS
    wanted = [engine.randoms("faults", 114, n).choice(list(ways)) for n in range(8)]
    assert set(wanted) == set(ways)
    found = engine.run("faults", cases=8, seed=114)
    told = {failure.number: failure.what for failure in found.failures}
    signs = {
        "segfault": r"died of SIG(SEGV|ABRT)|ended with status",
        "hang": "hangs for more than 4 s.*faults.py",
        "flaw": "a flaw",
        "error": "in the fuzzer itself.*an error of the fuzzer",
        "memory": "too much memory",
    }
    if engine.SANITIZED:  # no limit of memory there
        del signs["memory"]
    assert found.cases == 8
    assert told.keys() == {n for n, way in enumerate(wanted) if way in signs}
    for number, what in told.items():
        assert re.search(signs[wanted[number]], what), what


@pytest.mark.depth
def test_one_case_alone_is_the_same_case():
    every, alone = engine.run("files", cases=20), engine.run("files", only=17)
    assert alone.cases == 1
    assert alone.outcomes <= every.outcomes


@pytest.mark.parametrize("kind", files.TARGETS)
def test_the_corpus_is_sound_and_small(kind, tmp_path):
    for source in sorted((corpus.ROOM / kind).iterdir()):
        folder = tmp_path / source.name
        folder.mkdir()
        shutil.copy(source, folder)
        files.TARGETS[kind][0](folder / source.name, Random(0))()
    assert sum(path.stat().st_size for path in corpus.ROOM.rglob("*")) < 100_000


def test_every_public_function_is_called():
    assert calls.not_called() == []


@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")  # sound arguments may ask for few steps
@pytest.mark.parametrize("target", calls.TARGETS)
def test_sound_arguments_are_taken(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        function, arguments = calls.TARGETS[target](calls.Sound(Random(number)))
        function(**arguments)


X = np.eye(3)
# Found by hostile calls: what begins the message, and the call.
FOUND = {
    "name of a data set, a list": ("name:", lambda: datasets.load([0])),
    "name of labels, an array": ("name:", lambda: datasets.load_labels(np.zeros(2), ".")),
    "name of bags, an array": ("name:", lambda: bags.load_mil(np.zeros((1, 2)), ".")),
    "split, a dict": ("split:", lambda: datasets.load_mnist(".", {"a": 1})),
    "a bag, by a class": ("index:", lambda: bags.bit_patterns(4, 3, bags.bit_signals()).keys_of(int)),
    "a bag, by 1.0": ("index:", lambda: bags.bit_patterns(4, 3, bags.bit_signals()).keys_of(1.0)),
    "no signals": ("signals:", lambda: bags.bit_patterns(4, 3, np.zeros((0, 4), int))),
    "parameters, a sparse array": ("parameters:", lambda: optim.AdamW(calls.scipy.sparse.eye_array(3).tobsr())),
    "parameters, a number": ("parameters:", lambda: optim.clip_gradients(np.array(2.0), 1.0)),
    "parts, a number": ("parts:", lambda: sh.merge(np.array(True))),
    "positions, ragged": ("positions:", lambda: sh.HopfieldMemory(X).remove([[1, 2], [3]])),
    "positions everywhere, a number": ("global_positions:", lambda: structures.Window(1, global_positions=np.array(1))),
    "seed, a time": ("seed:", lambda: structures.RandomMask(1, np.timedelta64(1, "s"))),
    "steps, a list": ("update_steps_max:", lambda: layers.Hopfield(3).retrieve(X[None], update_steps_max=[1])),
    "labels, no array": ("y:", lambda: estimators.HopfieldMILClassifier().fit([X, X], calls.NoArray())),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_by_hostile_calls(name):
    argument, call = FOUND[name]
    with pytest.raises((TypeError, ValueError), match=f"^{argument}"):
        call()


def test_a_deviation_of_minus_zero_is_zero():
    assert not layers.HopfieldPooling(2, initial_std=-0.0).parameters()["pooling_weights"].value.any()


def test_a_matrix_is_a_seed_as_its_numbers_are():
    """NumPy looks for the numbers of a matrix without end."""
    numbers = np.array([[1, 2], [3, 4]])
    made = [layers.Linear(2, 1, random_state=seed).weight.value for seed in (numbers, numbers.view(np.matrix))]
    assert made[0].tobytes() == made[1].tobytes()
