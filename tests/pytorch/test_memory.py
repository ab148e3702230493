"""The memory of tensors: what the memory of arrays gives, tensors lent and copied, devices, dtypes, processes."""

import copy
import inspect
import os
import pickle
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

import sparsehopfield as sh  # noqa: E402
from sparsehopfield.errors import RetrievalWarning  # noqa: E402
from sparsehopfield.structures import TopK  # noqa: E402
from sparsehopfield.torch import HopfieldMemory  # noqa: E402
from sparsehopfield.torch.memory import _Attribute  # noqa: E402


def drawn(*shape, dtype=torch.float32, seed=0):
    """Return a tensor of normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


X, VALUES, QUERIES = drawn(20, 6), drawn(20, 2, seed=1), drawn(2, 3, 6, seed=2)
CALLS = {
    "associate": {"queries": QUERIES, "top": torch.tensor(2)},
    "capacity": {"beta": 2.0},
    "certify": {"queries": QUERIES, "beta": torch.tensor([2.0, 3.0, 4.0])},
    "critical_beta": {},
    "duplicates": {"within": torch.tensor(3.0)},
    "energy": {"queries": QUERIES, "exclude": torch.tensor([[0, -1, 2], [3, 19, 5]])},
    "exact_radius": {},
    "is_certified": {"beta": torch.tensor(2.0)},
    "is_fixed_point": {},
    "leave_one_out": {"positions": torch.tensor([3, 0, 19])},
    "margin": {},
    "nearest": {"queries": QUERIES, "k": 3, "exclude": torch.tensor([[0, -1, 2], [3, 19, 5]])},
    "retrieve": {
        "queries": QUERIES,
        "max_steps": 20,
        "return_info": {"energy", "weights"},
        "exclude": torch.tensor([[0, -1, 2], [3, 19, 5]]),
    },
    "stored_fraction": {"betas": torch.tensor([0.5, 2.0])},
    "suggest_beta": {"stored": 0.5},
    "update": {"queries": QUERIES, "exclude": torch.tensor([4, -1, 2])},
    "verify": {},
}
#: What returns an object for people, or for `merge`, as the memory of arrays does.
OBJECTS = {
    "candidates": {"queries": QUERIES},
    "explain": {"query": QUERIES[0, 0]},
    "report": {},
}


def compare(found, expected):
    """Check that a result is the same, with tensors for arrays."""
    if isinstance(expected, np.ndarray | np.generic):
        assert isinstance(found, torch.Tensor)
        assert found.device.type == "cpu"
        np.testing.assert_array_equal(found.numpy(), expected)
        assert found.numpy().dtype == expected.dtype
    elif isinstance(expected, tuple | list):
        assert type(found) is type(expected)
        for a, b in zip(found, expected, strict=True):
            compare(a, b)
    elif hasattr(expected, "indptr"):
        assert found.layout is torch.sparse_csr
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.to_dense().numpy(), expected.toarray())
    elif hasattr(expected, "__dataclass_fields__"):
        assert str(found) == str(expected) or "array(" in str(expected)
        compare([getattr(found, f) for f in expected.__dataclass_fields__], [*vars(expected).values()])
    else:
        assert found == expected


@pytest.mark.parametrize("name", CALLS)
def test_methods_give_what_those_of_arrays_give(name):
    for options in ({}, {"ids": torch.arange(20) + 5}):
        memory = HopfieldMemory(X, beta=2.0, values=VALUES, similarity="euclidean", **options)
        ids = {key: given.numpy() for key, given in options.items()}
        expected = sh.HopfieldMemory(X.numpy(), beta=2.0, values=VALUES.numpy(), similarity="euclidean", **ids)
        arrays = {k: given.numpy() if isinstance(given, torch.Tensor) else given for k, given in CALLS[name].items()}
        compare(getattr(memory, name)(**CALLS[name]), getattr(expected, name)(**arrays))


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_those_of_arrays(name):
    expected = getattr(sh.HopfieldMemory(X.numpy()), name)(**{k: q.numpy() for k, q in OBJECTS[name].items()})
    found = getattr(HopfieldMemory(X), name)(**OBJECTS[name])
    assert type(found) is type(expected)
    assert name == "candidates" or str(found) == str(expected)


def test_the_memories_have_the_same_names():
    """Each method and attribute has a docstring, and is compared above or below."""
    names = {name for name in dir(sh.HopfieldMemory) if not name.startswith("_")}
    assert names == {name for name in dir(HopfieldMemory) if not name.startswith("_")}
    for name in names:
        attribute = inspect.getattr_static(HopfieldMemory, name)
        doc = attribute.__func__.__doc__ if isinstance(attribute, classmethod) else attribute.__doc__
        assert doc.partition("\n")[0].endswith((".", "there")), name
    methods = {name for name in names if callable(getattr(HopfieldMemory, name))}
    assert methods == {*CALLS, *OBJECTS, "add", "build_index", "load", "remove", "save"}


def test_attributes():
    memory = HopfieldMemory(X, values=VALUES, structure=TopK(3), ids=range(20))
    assert len(memory) == 20
    assert repr(memory) == repr(sh.HopfieldMemory(X.numpy(), structure=TopK(3)))
    assert memory.shape == (20, 6)
    assert memory.dtype is torch.float32
    assert HopfieldMemory(X.double()).dtype is torch.float64
    assert memory.nbytes == 20 * 8 * 4
    assert memory.scale == 1
    assert memory.similarity == "dot"
    for found, expected in ((memory.patterns, X), (memory.values, VALUES), (memory.ids, torch.arange(20))):
        assert torch.equal(found, expected)
        found.zero_()  # a copy
    assert torch.equal(memory.patterns, X)
    memory.beta = torch.tensor(3.0)
    assert memory.beta == 3
    memory.beta = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(memory.beta, torch.tensor([1.0, 2.0, 3.0]))
    memory.separation, memory.structure = sh.Entmax(1.3), None
    assert (memory.separation, memory.structure) == (sh.Entmax(1.3), None)
    memory.index = True
    assert memory.index is True
    assert memory.index_nbytes > 0
    memory.index = "auto"
    memory.build_index()
    with pytest.raises(ValueError, match=r"^beta: must be positive"):
        memory.beta = torch.tensor(-1.0)
    with pytest.raises(AttributeError):
        memory.similarity = "cosine"
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'most'|'most'"):
        memory.margin(most=3)
    with pytest.raises(TypeError, match=r"too many positional"):
        memory.margin(3)


def test_add_and_remove():
    memory = HopfieldMemory(X[:5], values=VALUES[:5])
    assert torch.equal(memory.add(X[5:8], VALUES[5:8]), torch.tensor([5, 6, 7]))
    assert torch.equal(memory.add(X[8:9], values=VALUES[8:9], ids=torch.tensor([30])), torch.tensor([30]))
    memory.remove(torch.tensor([0, 2]))
    assert torch.equal(memory.ids, torch.tensor([1, 3, 4, 5, 6, 7, 30]))
    memory.remove(torch.arange(7) > 4)
    memory.remove(0)
    assert torch.equal(memory.patterns, X[[3, 4, 5, 6]])
    assert torch.equal(memory.values, VALUES[[3, 4, 5, 6]])


def test_files_are_those_of_arrays(tmp_path):
    memory = HopfieldMemory(X, beta=2.0, ids=torch.arange(20) + 3)
    memory.save(tmp_path / "memory")
    for other in (
        HopfieldMemory.load(tmp_path / "memory"),
        HopfieldMemory.load(tmp_path / "memory", mmap=True, verify=True, index=False),
        sh.HopfieldMemory.load(tmp_path / "memory"),
    ):
        assert np.array_equal(other.ids, memory.ids)
        assert np.array_equal(other.retrieve(QUERIES), memory.retrieve(QUERIES))
    assert type(HopfieldMemory.load(tmp_path / "memory")) is HopfieldMemory


# --- tensors that are lent ------------------------------------------------------------------------


def test_a_tensor_is_read_in_place():
    memory = HopfieldMemory(X, copy=False)
    assert memory._memory.patterns.ctypes.data == X.data_ptr()
    rows = drawn(10, 12)
    assert HopfieldMemory(rows[::2, :6], copy=False)._memory.patterns.ctypes.data == rows.data_ptr()
    assert HopfieldMemory(X.half(), copy=False).nbytes == 20 * 6 * 2


@pytest.mark.parametrize("which", ["patterns", "values"])
def test_changes_in_place_are_noticed(which):
    patterns, values = X.clone(), VALUES.clone()
    lent = {"patterns": patterns, "values": values}[which]
    memory, copied = (HopfieldMemory(patterns, values=values, copy=copy) for copy in (None, True))
    lent[::2].mul_(2)  # by a view
    assert len(memory) == len(X)
    assert repr(memory) == repr(copied)
    calls = lambda: memory.retrieve(QUERIES), memory.margin, lambda: memory.save("nowhere"), memory.verify
    attributes = [name for name, value in vars(HopfieldMemory).items() if isinstance(value, _Attribute)]
    assert "patterns" in attributes
    more = [lambda name=name: getattr(memory, name) for name in attributes]
    for call in (*calls, *more, lambda: setattr(memory, "beta", 2.0), lambda: copy.copy(memory)):
        with pytest.raises(ValueError, match=r"^patterns: the tensor was changed in place after it was stored"):
            call()
    with pytest.raises(ValueError, match=r"^patterns: the tensor was changed in place"):
        pickle.dumps(memory)
    copied.retrieve(QUERIES)


def test_changes_that_torch_does_not_count():
    patterns = X.clone()
    memory = HopfieldMemory(patterns)
    patterns.data.mul_(2)
    with pytest.raises(ValueError, match=r"^patterns: the array was changed"):
        memory.verify()


def test_added_to_nothing_is_lent_and_removed_from_it_stays():
    for change in (lambda memory: memory.add(X[:1]), lambda memory: memory.remove(slice(1, None))):
        patterns = X.clone()
        memory = HopfieldMemory(patterns)
        change(memory)  # which copies: where nearly all rows go, the others are copied together
        assert memory._lent == ()
        expected = memory.patterns
        patterns.zero_()
        assert torch.equal(memory.patterns, expected)
        memory.retrieve(QUERIES)
    patterns = torch.eye(20)
    memory = HopfieldMemory(patterns)
    memory.remove(0)
    assert torch.equal(memory.retrieve(patterns[3]), patterns[3])
    patterns.zero_()
    with pytest.raises(ValueError, match=r"^patterns: the tensor was changed in place"):
        memory.retrieve(patterns[3])


def test_what_is_meant_to_change_is_copied():
    """Parameters, frozen or not, tensors with a gradient, and those made in inference mode, whose changes go unseen."""
    with torch.inference_mode():
        made = X.clone()
    for given in (torch.nn.Parameter(X.clone()), torch.nn.Parameter(X.clone(), False), 2 * X.requires_grad_(), made):
        memory = HopfieldMemory(given)
        assert memory._memory.patterns.ctypes.data != given.data_ptr()
        expected = memory.patterns
        with torch.inference_mode():
            given.zero_()
        assert torch.equal(memory.patterns, expected)
        with pytest.raises(ValueError, match=r"^copy: cannot be avoided: patterns may change, unseen"):
            HopfieldMemory(given, copy=False)
        X.requires_grad_(False)
    for given in (X.bfloat16(), X.T.contiguous().T):
        with pytest.raises(ValueError, match=r"^copy: cannot be avoided"):
            HopfieldMemory(given, copy=False)


# --- gradients, dtypes, devices -------------------------------------------------------------------


def test_gradients_are_refused():
    """Every method, and beta, names what requires a gradient, and `retrieve`, which has one."""
    memory = HopfieldMemory(X)
    for name, arguments in (CALLS | OBJECTS).items():
        for key, given in arguments.items():
            if isinstance(given, torch.Tensor) and given.is_floating_point():
                asked = arguments | {key: given.clone().requires_grad_()}
                with pytest.raises(TypeError, match=rf"^{key}: requires a gradient.*sparsehopfield\.torch\.retrieve"):
                    getattr(memory, name)(**asked)
                with torch.no_grad():
                    getattr(memory, name)(**asked)
    with pytest.raises(TypeError, match=r"^beta: requires a gradient"):
        memory.beta = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(TypeError, match=r"^beta: requires a gradient"):
        HopfieldMemory(X, torch.tensor(1.0, requires_grad=True))
    with pytest.raises(TypeError, match=r"^patterns: requires a gradient"):
        memory.add(X[:1].clone().requires_grad_())


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("asked", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_states_have_the_queries_dtype(stored, asked):
    memory = HopfieldMemory(X.to(stored), beta=50.0, similarity="euclidean")
    queries = (X[:4] + 0.1).to(asked)
    held = torch.float32 if stored is torch.bfloat16 else stored
    assert memory.patterns.dtype is held
    for states in (memory.update(queries), memory.retrieve(queries), memory.retrieve(queries, return_info=True)[0]):
        assert states.dtype == asked
        assert torch.equal(states, X[:4].to(stored).to(asked))
    assert memory.energy(queries).dtype == (torch.float64 if torch.float64 in (stored, asked) else torch.float32)


@pytest.mark.parametrize("kind", [HopfieldMemory, lambda X: sh.HopfieldMemory(X)])
def test_warnings_name_the_line_that_asked(kind):
    with pytest.warns(RetrievalWarning) as warned:
        kind(X).retrieve(QUERIES, max_steps=1)
    assert warned[0].filename == __file__


def test_whole_numbers():
    memory = HopfieldMemory((X * 10 + 50).to(torch.uint8), scale=0.1, beta=9.0)
    assert memory.nbytes == 120
    states = memory.update(torch.ones(6, dtype=torch.int64))
    assert states.dtype is torch.float64  # as of arrays: integers of 64 bits count as float64
    assert memory.update(torch.ones(6, dtype=torch.bool)).dtype is torch.float32


def test_tensors_without_numbers_are_refused():
    memory = HopfieldMemory(X)
    for given, message in (
        (QUERIES.to("meta"), "queries: cannot be brought to the CPU"),
        (QUERIES.to_sparse(), "queries: cannot be made an array"),
        (QUERIES.to(torch.complex64), "queries: must be real numbers"),
        (QUERIES * torch.nan, "queries: "),
        (QUERIES[..., :2], "queries: the last axis must have"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            memory.retrieve(given)
    with pytest.raises(TypeError, match=r"^queries: "):
        torch.func.vmap(memory.retrieve)(QUERIES)
    with pytest.raises(TypeError, match=r"^patterns: cannot be brought to the CPU"):
        HopfieldMemory(X.to("meta"))


def test_default_device_and_dtype_do_not_matter():
    expected = HopfieldMemory(X).retrieve(QUERIES), HopfieldMemory(X).associate(QUERIES).to_dense()
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float16)
        memory = HopfieldMemory(X)
        found = memory.retrieve(QUERIES), memory.associate(QUERIES).to_dense()
        margin, copied = memory.margin(), copy.deepcopy(memory)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))
    assert margin.dtype is torch.float64
    assert torch.equal(copied.patterns, X)


# --- copies, threads, processes ----------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_copies(copied):
    patterns = X.clone()
    memory = HopfieldMemory(patterns, beta=2.0, structure=TopK(3))
    other = copied(memory)
    assert repr(other) == repr(memory)
    assert torch.equal(other.retrieve(QUERIES), memory.retrieve(QUERIES))
    other.add(X[:1])
    assert (len(other), len(memory)) == (21, 20)


def test_shallow_copies_watch_what_they_borrow():
    patterns = X.clone()
    other = copy.copy(HopfieldMemory(patterns))
    patterns.zero_()
    with pytest.raises(ValueError, match=r"^patterns: the tensor was changed"):
        other.retrieve(QUERIES)


def test_threads():
    """Some add while others ask: each answer is one of the memory before or after."""
    memory, failures = HopfieldMemory(X.clone(), beta=50.0, similarity="euclidean"), []

    def ask():
        for _ in range(50):
            if not torch.equal(memory.retrieve(X), X):
                failures.append("other states")

    def change():
        for i in range(20):
            memory.add(100 + drawn(1, 6, seed=i))

    threads = [threading.Thread(target=work) for work in (ask, ask, change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(memory) == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork():
    memory = HopfieldMemory(X, beta=2.0)
    expected = memory.retrieve(QUERIES)
    child = os.fork()
    if child == 0:
        memory.add(X[:1])
        os._exit(0 if torch.equal(memory.retrieve(QUERIES), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
