"""Long calls look at signals often: by the processor time of the calling thread between two looks."""

import functools
import signal
import time

import numpy as np
import pytest
from helpers import threads

import sparsehopfield as sh
from sparsehopfield import _core, layers
from sparsehopfield.structures import BlockSparse, RandomFeatures, RandomMask, Window

pytestmark = [
    pytest.mark.slow,
    pytest.mark.resources,
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system"),
]
rng = np.random.default_rng(0)


@functools.cache
def many_rows():
    """Make patterns once for all calls that no memory copies."""
    return rng.random((500_000, 128), dtype=np.float32)


def memory(structure, separation, n=8):
    stored = sh.HopfieldMemory(many_rows(), 1.0, separation=separation, structure=structure, copy=False)
    return stored, many_rows()[:n].copy()


def update(structure, separation="sparsemax"):
    stored, queries = memory(structure, separation)
    return lambda: stored.update(queries)


def energy(structure, separation="softmax"):
    stored, queries = memory(structure, separation)
    return lambda: stored.energy(queries)


def associate(structure):
    stored, queries = memory(structure, "softmax")
    return lambda: stored.associate(queries, top=3)


def linear(n, size):
    x, w, y = (np.ones(shape, np.float32) for shape in ((n, size), (size, size), (n, size)))
    dx, dw = np.empty_like(x), np.empty_like(w)
    return lambda: (_core.linear(x, w, None, y), _core.linear_backward(x, w, y, dx, dw, None))


def row(function):
    return lambda: function(np.zeros(2_000_000))


def pooling():
    net, x = layers.HopfieldPooling(512, dtype="float32"), rng.random((8, 8_000, 512), dtype=np.float32)
    return lambda: net.backward(net(x))


CALLS = {
    "random": lambda: update(RandomMask(300_000)),
    "random, shared": lambda: update(RandomMask(300_000, block=8), "softmax"),
    "random, energy": lambda: energy(RandomMask(300_000)),
    "random, weights": lambda: associate(RandomMask(300_000)),
    "window": lambda: update(Window(200_000, positions=np.arange(8) * 50_000), "entmax15"),
    "window, apart": lambda: update(Window(100_000, dilation=3, positions=np.arange(8)), "softmax"),
    "blocks": lambda: update(BlockSparse(np.ones((8, 500), bool), (1, 1000))),
    "features": lambda: lambda: RandomFeatures(1024).projection(512),
    "features, not orthogonal": lambda: lambda: RandomFeatures(20_000, orthogonal=False).projection(2048),
    "linear": lambda: linear(1_000, 4_096),
    "linear, many rows": lambda: linear(50_000, 512),
    "pooling": pooling,
    "one row, entmax": lambda: row(lambda z: sh.entmax(z, 1.3)),
    "one row, steep entmax": lambda: row(lambda z: sh.entmax(z, 30.0)),
    "one row, sparsemax": lambda: row(sh.sparsemax),
}


def test_a_row_that_is_called_off_has_no_result():
    """Not even half of one: the error that a handler raises comes through, and later calls are right."""

    class CalledOffError(Exception):
        pass

    def handler(*_):
        raise CalledOffError

    z = np.zeros(2_000_000)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for function in (sh.entmax_conjugate, sh.entmax, sh.entmax_threshold):
            for alpha in (1.3, 30.0):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(CalledOffError):
                    function(z, alpha)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.ptp(sh.entmax(z[:1_000_000], 30.0)) == 0


# The same loops as others have.
MORE = ("random, shared", "random, weights", "linear, many rows")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.depth if k in MORE else ()) for k in CALLS])
def test_a_long_call_looks_at_signals_often(kind):
    seen = []
    call = CALLS[kind]()
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(time.thread_time()))
    try:
        with threads(1):
            begun = time.thread_time()
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            call()
            signal.setitimer(signal.ITIMER_REAL, 0)
            ended = time.thread_time()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.diff([begun, *seen, ended]).max() < 0.5
