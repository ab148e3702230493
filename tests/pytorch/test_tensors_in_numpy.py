"""Tensors as arguments of the functions of arrays, which do not know PyTorch."""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from public_calls import calls, flattened

torch = pytest.importorskip("torch", reason="needs the extra torch")

import sparsehopfield as sh  # noqa: E402
from sparsehopfield import layers  # noqa: E402

ALIASES = {
    "input": "stored pattern|state pattern",
    "more": "patterns",
    "more_values": "values",
    "more_ids": "ids",
    "X": "X, y",
    "y": "X, y",
}
TABLE = calls()
ARRAYS = [
    (name, argument)
    for name, (_, arguments) in TABLE.items()
    for argument, given in arguments.items()
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiub"
]
REFUSED = {
    "gradient": lambda tensor: tensor.requires_grad_(),
    "bfloat16": lambda tensor: tensor.bfloat16(),
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
}


def result_of(function, arguments):
    """Give the parts of a result, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flattened(function(**arguments))


def test_a_tensor_is_an_array():
    """A tensor gives what the array gives that shares its memory, and arrays come out."""
    for name, argument in ARRAYS:
        function, arguments = TABLE[name]
        found = result_of(function, arguments | {argument: torch.from_numpy(arguments[argument].copy())})
        for a, b in zip(found, result_of(function, arguments), strict=True):
            assert type(a) is type(b), f"{name}({argument})"
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b, err_msg=f"{name}({argument})")
                assert a.dtype == b.dtype
    assert len(ARRAYS) > 400


@pytest.mark.parametrize("kind", REFUSED)
def test_other_tensors_are_refused_by_name(kind):
    """The message names the argument, and says which tensors are taken and who takes others."""
    count = 0
    for name, argument in ARRAYS:
        function, arguments = TABLE[name]
        tensor = torch.from_numpy(arguments[argument].copy())
        if kind in ("gradient", "bfloat16") and not tensor.is_floating_point():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(TypeError) as error:
                function(**arguments | {argument: REFUSED[kind](tensor)})
        pattern = rf"^({argument}|{ALIASES.get(argument, argument)}): .*; a tensor must be dense.*sparsehopfield\.torch"
        assert re.search(pattern, str(error.value), re.DOTALL), f"{name}({argument}): {error.value}"
        count += 1
    assert count > 400


@pytest.mark.parametrize("kind", REFUSED)
def test_lists_of_tensors(kind):
    rows = [torch.arange(3.0), torch.ones(3)]
    np.testing.assert_array_equal(sh.update(rows, np.eye(3)), sh.update(np.stack(rows), np.eye(3)))
    with pytest.raises(TypeError, match=r"^queries: .*sparsehopfield\.torch"):
        sh.update([REFUSED[kind](row) for row in rows], np.eye(3))
    bags = [torch.eye(3), torch.eye(3)[:2]]
    assert layers.HopfieldPooling(3).forward(bags).shape == (2, 3)
    with pytest.raises(TypeError, match=r"^stored pattern\[0\]: .*sparsehopfield\.torch"):
        layers.HopfieldPooling(3).forward([REFUSED[kind](bag) for bag in bags])


def test_numbers_that_are_tensors():
    three = torch.tensor(3)
    assert sh.Entmax(torch.tensor(1.5)) == sh.Entmax(1.5)
    assert sh.softmax(np.eye(3), axis=torch.tensor(0)).shape == (3, 3)
    assert sh.update(np.eye(3), np.eye(3), torch.tensor(2.0)).shape == (3, 3)
    assert layers.Linear(three, three)(np.eye(3)).shape == (3, 3)
    for given, error in {
        lambda: sh.Entmax(torch.tensor(1.5, requires_grad=True)): r"^alpha: requires a gradient.*sparsehopfield\.torch",
        lambda: sh.update(np.eye(3), np.eye(3), torch.tensor(2.0, requires_grad=True)): r"^beta: .*sparsehopfield",
        lambda: sh.Entmax(torch.tensor(1.5, device="meta")): "^alpha: must be a number",
        lambda: layers.Linear(three.to("meta"), 3): "^input_size: must be a whole number",
        lambda: sh.softmax(np.eye(3), axis=three.to("meta")): "^axis: must be a whole number",
        lambda: sh.set_num_threads(three.to("meta")): "^n: must be a whole number of threads",
        lambda: sh.update(np.eye(3), np.eye(3), out=torch.eye(3)): "^out: must be a NumPy array, got Tensor",
    }.items():
        with pytest.raises(TypeError, match=error):
            given()


def test_a_memory_borrows_a_tensor():
    X = torch.eye(3)
    memory = sh.HopfieldMemory(X, copy=False)
    assert np.shares_memory(memory.patterns, X.numpy())
    X[0, 0] = 2
    with pytest.raises(ValueError, match=r"^patterns: the array was changed"):
        memory.verify()


def in_python(code):
    """Run code in a new process, and give its output."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_arrays_import_no_torch():
    """No function imports it, nor is it needed for what names it: errors, and the search for tensors."""
    code = """if True:
        import sys
        import numpy as np
        import sparsehopfield as sh
        from sparsehopfield import estimators, inspect, layers, optim, structures, theory
        sh.HopfieldMemory(np.eye(3)).retrieve(np.eye(3))
        layers.Hopfield(3)(np.eye(3)[None])
        estimators.HopfieldRetriever().fit(np.eye(3)).transform(np.eye(3))
        try:
            sh.update([object()], np.eye(3))
        except TypeError as error:
            print(error)
        print("torch" in sys.modules)
    """
    error, imported = in_python(code).splitlines()
    assert error.startswith("queries: must be real numbers")
    assert imported == "False"


def test_without_torch_the_error_names_the_extra():
    code = """if True:
        import sys
        sys.modules["torch"] = None
        try:
            import sparsehopfield.torch
        except ImportError as error:
            print(error)
    """
    assert in_python(code) == (
        "sparsehopfield.torch needs torch, which is not installed; "
        'install it with: python -m pip install "sparsehopfield[torch]"\n'
    )
