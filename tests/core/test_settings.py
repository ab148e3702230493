"""Settings that others make: threads of a BLAS, floating-point modes and traps, the environment. A call has its own."""

import ctypes
import os
import threading

import numpy as np
import pytest
from helpers import digest, run_python, threads

import sparsehopfield as sh
from sparsehopfield import layers
from sparsehopfield.structures import RandomFeatures, RandomMask, Window

rng = np.random.default_rng(11)
PATTERNS = rng.random((3000, 96), dtype=np.float32)
QUERIES = rng.random((300, 96), dtype=np.float32)
ROWS = rng.standard_normal((300, 500))


def memory_call(**options):
    memory = sh.HopfieldMemory(PATTERNS, 1.0, **options)
    return lambda: memory.update(QUERIES)


def layer_call():
    net = layers.Hopfield(96, random_state=0)
    x = QUERIES.reshape(3, 100, 96)

    def call():
        y = net(x)
        return np.stack([y, net.backward(y)])

    return call


CALLS = {
    "softmax": lambda: lambda: sh.softmax(ROWS),
    "entmax": lambda: lambda: sh.entmax(ROWS, 1.3),
    "update": memory_call,
    "update, softmax": lambda: memory_call(separation="softmax"),
    "update, window": lambda: memory_call(structure=Window(99, positions=np.arange(300))),
    "update, features": lambda: memory_call(separation="softmax", structure=RandomFeatures(300)),
    "update, random": lambda: memory_call(separation="entmax15", structure=RandomMask(200)),
    "energy": lambda: lambda: sh.energy(QUERIES.astype(float), PATTERNS, 1.0, separation="softmax"),
    "margin": lambda: sh.HopfieldMemory(PATTERNS).margin,
    "layer": layer_call,
}


# --- threads of the BLAS ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["update, softmax", "update, features", "layer", "energy"])
def test_limits_toggled_in_another_thread(kind):
    """Whatever threadpoolctl is told meanwhile, products are of one thread."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    call, done = CALLS[kind](), threading.Event()

    def toggle():
        while not done.wait(0.001):
            with threadpoolctl.threadpool_limits(4):
                done.wait(0.003)

    with threads(2):
        expected = digest(call())
        other = threading.Thread(target=toggle)
        other.start()
        try:
            found = {digest(call()) for _ in range(40)}
        finally:
            done.set()
            other.join()
    assert found == {expected}


def test_the_bundled_blas_is_not_for_others_to_set():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    if "bundled" not in sh.show_config("dict")["blas"]["library"]:
        pytest.skip("the system's BLAS, which others use too")
    paths = [pool["filepath"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    assert not [path for path in paths if os.path.join("sparsehopfield", "_libs") in path]


# --- modes of the processor -------------------------------------------------------------------------

# In x86's MXCSR: flush to zero and denormals are zero; the three other ways to round.
MODES = {"flush": 0x8040, "up": 0x4000, "down": 0x2000, "to zero": 0x6000}


@pytest.fixture(scope="module")
def set_mxcsr(tmp_path_factory):
    """A function that sets this thread's MXCSR and returns what it was, made of machine code."""
    import mmap
    import platform

    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("MXCSR is x86's")
    # stmxcsr [rsp-8]; mov eax, [rsp-8]; mov [rsp-16], edi; ldmxcsr [rsp-16]; ret
    code = bytes.fromhex("0fae5c24f8 8b4424f8 897c24f0 0fae5424f0 c3")
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except (OSError, PermissionError):
        pytest.skip("no memory may hold code here")
    page.write(code)
    view = ctypes.c_char.from_buffer(page)
    function = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_uint)(ctypes.addressof(view))
    yield function
    del function, view


@pytest.fixture
def mode(set_mxcsr, request):
    before = set_mxcsr(0x1F80)

    def enter(bits):
        set_mxcsr(0x1F80 | bits)

    yield enter
    set_mxcsr(before)


CORE = ["softmax", "entmax", "update", "update, softmax", "update, window", "update, random", "energy", "margin"]


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("kind", CORE)
def test_modes_of_the_calling_thread(kind, name, mode, set_mxcsr):
    """The same bits, and the mode is there again afterwards."""
    call = CALLS[kind]()
    for n in (1, 2):
        with threads(n):
            expected = call()
            mode(MODES[name])
            found = call()
            after = set_mxcsr(0x1F80)
        assert after & 0xFFC0 == 0x1F80 | MODES[name]
        assert digest(found) == digest(expected)


TINY32, TINY64 = np.full((40, 3), 1e-42, np.float32), np.full((40, 3), 3e-320)
UNITS = np.eye(40)
SUBNORMAL = {
    "values": (sh.HopfieldMemory(UNITS.astype(np.float32), 9.0, values=TINY32).update, UNITS.astype(np.float32)),
    "values, softmax": (sh.HopfieldMemory(UNITS, 9.0, values=TINY64, separation="softmax").update, UNITS),
    "values, a window": (sh.HopfieldMemory(UNITS, 9.0, values=TINY64, structure=Window(2)).update, UNITS),
    "patterns": (sh.HopfieldMemory(TINY32).update, TINY32),
    "sparsemax": (sh.sparsemax, np.array([1e-310, 0.0])),
    "sparsemax_vjp": (lambda g: sh.sparsemax_vjp(np.array([0.5, 0.5]), g), np.array([4e-320, 0.0])),
    "entmax_vjp": (lambda g: sh.entmax_vjp(np.array([0.5, 0.5]), g, 1.5), np.array([4e-320, 0.0])),
    "linear": (layers.Linear(3, 3, bias=False, random_state=0), TINY32),
}


@pytest.mark.parametrize("kind", SUBNORMAL)
def test_subnormal_numbers_under_flush_to_zero(kind, mode, set_mxcsr):
    call, given = SUBNORMAL[kind]
    expected = call(given)
    mode(MODES["flush"])
    found = call(given)
    set_mxcsr(0x1F80)
    assert digest(found) == digest(expected)
    if "sparsemax" != kind:
        assert ((expected != 0) & (abs(expected) < np.finfo(expected.dtype).tiny)).any()


WORKERS = """
import ctypes, json, mmap
import numpy as np
page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("0fae5c24f8 8b4424f8 897c24f0 0fae5424f0 c3"))
set_mxcsr = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_uint)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
import sparsehopfield as sh
from sparsehopfield import _core
sh.set_num_threads(4)
z = np.tile(np.array([0.0, -103.5, -90.0, -95.0], np.float32), (100_000, 1))
set_mxcsr({first})  # what the pool's threads would inherit
first = sh.softmax(z)
set_mxcsr(0x1F80)
later = [sh.softmax(z).tobytes() for _ in range(5)]
sh.set_num_threads(1)
print(json.dumps([first.tobytes() == sh.softmax(z).tobytes(), len(set(later)), later[0] == first.tobytes()]))
"""


@pytest.mark.parametrize("first", [0x9FC0, 0x5F80, 0x1F80 & ~0x0080, 0x1F80 & ~0x0880], ids=hex)
def test_threads_do_not_inherit_modes_and_traps(set_mxcsr, first):
    """Flush to zero, another rounding, a trap for NaN, one for underflow: set when the pool begins."""
    assert run_python(WORKERS.format(first=first)) == [True, 1, True]


def test_traps_that_are_on_do_not_end_the_process(set_mxcsr):
    code = WORKERS.format(first=0x1F80 & ~0x1F80).replace("-103.5, -90.0", "-np.inf, np.nan")
    assert run_python(code)[1:] == [1, True]


# --- NumPy's error state ----------------------------------------------------------------------------

EXTREMES = [
    np.array([0.0, -745.0, 700.0]),
    np.array([-np.inf, 0.0, 1.0]),
    np.array([5e-324, 1e308, -1e308]),
    np.array([1e-30, -1e-38, 3e38], np.float32),
    np.array([0.0, -104.0, 88.0], np.float32),
]
MAPS = {
    "softmax": sh.softmax,
    "sparsemax": sh.sparsemax,
    "entmax": lambda z: sh.entmax(z, 1.3),
    "entmax, large alpha": lambda z: sh.entmax(z, 40.0),
    "topk_softmax": lambda z: sh.topk_softmax(z, 2),
    "topk_sparsemax": lambda z: sh.topk_sparsemax(z, 2),
    "sparsemax_threshold": lambda z: np.stack(sh.sparsemax_threshold(z)),
    "entmax_threshold": lambda z: np.stack(sh.entmax_threshold(z, 1.7)),
    "softmax_vjp": lambda z: sh.softmax_vjp(sh.softmax(z), z),
    "sparsemax_vjp": lambda z: sh.sparsemax_vjp(sh.sparsemax(z), z),
    "entmax_vjp": lambda z: sh.entmax_vjp(sh.entmax(z, 1.3), z, 1.3),
    "entmax_vjp_alpha": lambda z: sh.entmax_vjp_alpha(sh.entmax(z, 1.3), z, 1.3),
    "softmax_conjugate": sh.softmax_conjugate,
    "sparsemax_conjugate": sh.sparsemax_conjugate,
    "entmax_conjugate": lambda z: sh.entmax_conjugate(z, 1.3),
    "polynomial": lambda z: sh.polynomial(np.abs(z), 2),
}


@pytest.mark.parametrize("z", EXTREMES, ids=str)
@pytest.mark.parametrize("name", MAPS)
def test_row_maps_under_numpys_traps(name, z):
    """What a row map does on the way is not NumPy's to raise."""
    with np.errstate(all="ignore"):
        expected = MAPS[name](z)
    with np.errstate(all="raise"):
        assert digest(MAPS[name](z)) == digest(expected)


@pytest.mark.parametrize("n", [3, 200_000])
def test_row_maps_of_other_layouts_under_numpys_traps(n):
    z = np.linspace(-800.0, 0.0, n)
    with np.errstate(all="raise"):
        for given in (z[::2], z[::-1], np.stack([z, z]).T[:, 0], z.astype(np.float32), z.astype(">f8")):
            assert np.isclose(sh.softmax(given).sum(), 1)
        assert np.isclose(sh.softmax(np.stack([z, z]), axis=0).sum(), n)


@pytest.mark.parametrize("kind", CALLS)
def test_calls_under_numpys_traps(kind):
    call = CALLS[kind]()
    with np.errstate(all="raise"):
        call()


# --- the environment --------------------------------------------------------------------------------

WARNINGS = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import sparsehopfield as sh
    from sparsehopfield import _core
print(json.dumps([[w.category.__name__, str(w.message)] for w in caught if "is ignored" in str(w.message)]))
"""
NAMES = ("SPARSEHOPFIELD_SIMD", "SPARSEHOPFIELD_NUM_THREADS", "OMP_NUM_THREADS")


def ignored(**environment):
    return run_python(WARNINGS, **dict.fromkeys(NAMES, "") | environment)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("SPARSEHOPFIELD_SIMD", "nonsense", "base"),
        pytest.param("SPARSEHOPFIELD_SIMD", "AVX2", "base", marks=pytest.mark.depth),
        pytest.param("SPARSEHOPFIELD_SIMD", " base", "base", marks=pytest.mark.depth),
        ("SPARSEHOPFIELD_SIMD", "0", "base"),
        ("SPARSEHOPFIELD_NUM_THREADS", "abc", "a whole number from 1 to 64"),
        pytest.param("SPARSEHOPFIELD_NUM_THREADS", "4x", "a whole number from 1 to 64", marks=pytest.mark.depth),
        ("SPARSEHOPFIELD_NUM_THREADS", "0", "a whole number from 1 to 64"),
        pytest.param("SPARSEHOPFIELD_NUM_THREADS", "-2", "a whole number from 1 to 64", marks=pytest.mark.depth),
        ("SPARSEHOPFIELD_NUM_THREADS", "2.5", "a whole number from 1 to 64"),
        ("SPARSEHOPFIELD_NUM_THREADS", "65", "a whole number from 1 to 64"),
        ("SPARSEHOPFIELD_NUM_THREADS", "99999999999999999999", "a whole number from 1 to 64"),
        pytest.param("SPARSEHOPFIELD_NUM_THREADS", "2,2", "a whole number from 1 to 64", marks=pytest.mark.depth),
        ("OMP_NUM_THREADS", "many", "whole numbers of at least 1"),
        ("OMP_NUM_THREADS", "-1", "whole numbers of at least 1"),
    ],
)
def test_settings_that_are_ignored_are_told(name, value, allowed):
    ((category, message),) = ignored(**{name: value})
    assert category == "RuntimeWarning"
    assert message.startswith(f"{name}={value[:60]}")
    assert "is ignored: must be " in message
    assert allowed in message


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SPARSEHOPFIELD_SIMD": "base"},
        {"SPARSEHOPFIELD_NUM_THREADS": "3"},
        {"SPARSEHOPFIELD_NUM_THREADS": " 3 ", "OMP_NUM_THREADS": "abc"},  # not asked for
        {"OMP_NUM_THREADS": "128"},
        {"OMP_NUM_THREADS": "4,2,1"},
    ],
    ids=str,
)
def test_settings_that_are_followed_are_not_told(environment):
    assert ignored(**environment) == []


def test_long_and_odd_values_are_told_in_short():
    ((_, message),) = ignored(SPARSEHOPFIELD_SIMD="\xe9" * 5000)
    assert len(message) < 300
