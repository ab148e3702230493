"""Copies of what is stored are made in chunks, so that Ctrl-C is heard between them and leaves what was there."""

import copy
import signal
import threading
import time

import numpy as np
import pytest
from helpers import threads

import sparsehopfield as sh
from sparsehopfield._engine import chunked
from sparsehopfield.structures import RandomFeatures

rng = np.random.default_rng(0)
X = rng.standard_normal((300, 16)).astype(np.float32)
V = rng.standard_normal((300, 8)).astype(np.float32)


class Chunks:
    """Count the bytes that are copied in chunks, and interrupt at one of them."""

    def __init__(self, monkeypatch, stop=None):
        self.bytes = self.count = 0
        self.stop = stop
        monkeypatch.setattr(chunked, "CHUNK", 1024)
        real = chunked.chunks

        def chunks(n, size):
            for chunk in real(n, size):
                assert (chunk.stop - chunk.start) * size <= max(size, 1024)
                if self.count == self.stop:
                    raise KeyboardInterrupt
                self.count += 1
                self.bytes += (chunk.stop - chunk.start) * size
                yield chunk

        monkeypatch.setattr(chunked, "chunks", chunks)


def stored(**options):
    memory = sh.HopfieldMemory(X, 2.0, values=V, ids=np.arange(300) * 3, **options)
    memory.remove(299)  # whose row stays where it is
    return memory


# What copies, and how many bytes at least.
COPIES = {
    "copy=True": (lambda m: sh.HopfieldMemory(X, values=V, copy=True), X.nbytes + V.nbytes),
    "other order": (lambda m: sh.HopfieldMemory(np.asfortranarray(X)), X.nbytes),
    "other bytes": (lambda m: sh.HopfieldMemory(X.astype(">f4")), X.nbytes),
    "whole numbers": (lambda m: sh.HopfieldMemory((X * 100).astype(np.int32)), 2 * X.nbytes),
    "narrow": (lambda m: sh.HopfieldMemory(np.asfortranarray(X.astype(np.float16))), X.nbytes // 2),
    "values": (lambda m: sh.HopfieldMemory(X, values=np.asfortranarray(V)), V.nbytes),
    "many queries": (lambda m: m.update(np.asfortranarray(X)), X.nbytes),
    "a function": (lambda m: sh.update(X[:2], np.asfortranarray(X)), X.nbytes),
    "features": (
        lambda m: RandomFeatures(16).state(np.asfortranarray(X)),
        X.nbytes,
    ),
    "add": (lambda m: m.add(X, V), 2 * (X.nbytes + V.nbytes) - 96),
    "add a row": (lambda m: m.add(X[:1], V[:1]), X.nbytes + V.nbytes),
    "add other numbers": (lambda m: m.add(X.astype(np.float64), V), 3 * X.nbytes + 2 * V.nbytes - 96),
    "remove": (lambda m: m.remove(slice(0, 60)), (X.nbytes + V.nbytes) * 239 // 300),  # so many that others are copied
    "deepcopy": (copy.deepcopy, (X.nbytes + V.nbytes) * 299 // 300),
}


def state_of(memory):
    return [memory.patterns.copy(), memory.values.copy(), memory.ids.copy(), memory.retrieve(X[:5])]


@pytest.mark.parametrize("what", COPIES)
def test_copies_are_made_in_pieces(monkeypatch, what):
    call, least = COPIES[what]
    memory = stored()
    pieces = Chunks(monkeypatch)
    call(memory)
    assert pieces.bytes >= least
    assert pieces.count >= least // 1024


@pytest.mark.parametrize("what", COPIES)
def test_an_interrupted_copy_leaves_what_was_there(monkeypatch, what):
    call, least = COPIES[what]
    memory = stored()
    before = state_of(memory)
    for stop in (0, 1, least // 2048, least // 1024 - 1):
        with monkeypatch.context() as patch:
            Chunks(patch, stop)
            with pytest.raises(KeyboardInterrupt):
                call(memory)
        for a, b in zip(before, state_of(memory), strict=True):
            np.testing.assert_array_equal(a, b)
    call(memory)
    memory.add(X[:1], V[:1])
    assert memory.retrieve(X[0]).shape == (8,)


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 3), (3, 2, 4), (2, 900), (1, 5000), (0, 4), (4, 0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, ">f8"])
def test_a_copy_in_pieces_is_a_copy(monkeypatch, shape, dtype):
    monkeypatch.setattr(chunked, "CHUNK", 1024)
    a = rng.integers(0, 100, shape).astype(dtype)
    for layout in (a, np.asfortranarray(a), a[::-1]):
        np.testing.assert_array_equal(chunked.copy_array(layout), layout)
        np.testing.assert_array_equal(chunked.as_contiguous(layout, np.dtype(np.float64)), layout)
        assert chunked.copy_array(layout, np.dtype(np.float32)).dtype == np.float32
        assert chunked.copy_array(layout).flags.c_contiguous
        at = rng.integers(0, max(1, len(a)), 2 * len(a))
        np.testing.assert_array_equal(chunked.take_rows(layout, at), layout[at])
    assert chunked.as_contiguous(a, a.dtype) is a


def test_deep_copies_go_their_own_ways():
    memory = sh.HopfieldMemory(X.copy(), 2.0, values=V, separation="entmax15")
    memory.add(X[:2] + 1, V[:2])
    memory.build_index()
    other = copy.deepcopy(memory)
    for a, b in zip(state_of(memory), state_of(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.shares_memory(a, b)
    assert (other.separation, other.beta, other.dtype) == ("entmax15", 2.0, np.float32)
    before = state_of(memory)
    other.add(X[:9] + 2, V[:9])
    other.remove(0)
    memory_after = state_of(memory)
    for a, b in zip(before, memory_after, strict=True):
        np.testing.assert_array_equal(a, b)
    memory.add(X[:3], V[:3])
    assert (len(memory), len(other)) == (305, 310)
    fresh = sh.HopfieldMemory(other.patterns, 2.0, values=other.values, separation="entmax15")
    np.testing.assert_array_equal(fresh.update(X), other.update(X))


BIG = 1 << 29  # bytes
MORE = ("report", "verify")  # whose loops are those of margin and of load


def until_interrupted(call, timer):
    call()
    timer.join()  # the call was faster


@pytest.fixture(scope="module")
def big():
    """Return a memory that no call changes: all are interrupted."""
    return sh.HopfieldMemory(np.ones((BIG // 4096, 1024), np.float32), 1.0)


@pytest.fixture
def heeded():
    """Heed Ctrl-C, which a process that was begun in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.resources
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
@pytest.mark.parametrize(
    "what",
    ["copy=True", "add", "deepcopy", "remove", "save", "load", "margin", "duplicates"]
    + [pytest.param(what, marks=pytest.mark.depth) for what in MORE],
)
def test_ctrl_c_is_heard_within_a_second(tmp_path, what, heeded, big):
    memory = big
    path = tmp_path / "memory"
    if what == "load":
        memory.save(path)
    calls = {
        "copy=True": lambda: sh.HopfieldMemory(memory.patterns, copy=True),
        "add": lambda: memory.add(memory.patterns),
        "deepcopy": lambda: copy.deepcopy(memory),
        "remove": lambda: memory.remove(slice(0, len(memory) // 4)),
        "save": lambda: memory.save(path),
        "load": lambda: sh.HopfieldMemory.load(path, verify=True),
        "margin": memory.margin,
        "report": memory.report,
        "duplicates": lambda: memory.duplicates(0.5),
        "verify": sh.HopfieldMemory(memory.patterns).verify,
    }
    sent = []

    def interrupt():
        sent.append(time.process_time())  # others at work on this machine do not count
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    timer = threading.Timer(0.05, interrupt)
    timer.start()
    with threads(1), pytest.raises(KeyboardInterrupt):
        until_interrupted(calls[what], timer)
    heard = time.process_time()
    assert heard - sent[0] < 1
    assert len(memory) == BIG // 4096
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("shape", [(3,), (0, 4), (5, 7, 3), (2, 3_000_000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sum_in_pieces_is_a_sum(shape, dtype):
    rng = np.random.default_rng(3)
    a, b = rng.random(shape).astype(dtype), rng.random(shape).astype(dtype)
    for one, other in ((a, b), (a.T, b.T)):
        got = chunked.add_arrays(one, other)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, one + other)
