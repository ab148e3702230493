"""PyTorch's threads do the core's work while they are awake: same bits, no more threads than PyTorch has, no hangs."""

import ctypes
import json
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from helpers import digest, run_python, threads  # noqa: E402

import sparsehopfield as sh  # noqa: E402
import sparsehopfield.torch  # noqa: E402
from sparsehopfield import _core  # noqa: E402
from sparsehopfield.torch import _threads  # noqa: E402
from sparsehopfield.torch._threads import share_threads  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and torch.backends.openmp.is_available()),
    reason="only on Linux, and where it has OpenMP, the core shares PyTorch's threads",
)

rng = np.random.default_rng(5)
PATTERNS = rng.random((2500, 40), dtype=np.float32)
QUERIES = rng.random((300, 40), dtype=np.float32)
SCORES = QUERIES @ PATTERNS.T
TENSOR = torch.from_numpy(rng.random((64, 4096), dtype=np.float32))


@pytest.fixture(autouse=True)
def two_threads():
    """Give PyTorch and the core two threads each."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threads(2):
        yield
    torch.set_num_threads(before)


def core():
    """Return the bits of two calls that share their work out."""
    return digest(sh.update(QUERIES, PATTERNS, 5.0), sh.sparsemax(SCORES))


def both():
    """Return the bits of calls that find PyTorch's threads awake, most likely, and of calls that find them asleep."""
    results = []
    for pause in (0, 0.05):
        TENSOR.exp()  # after which they spin for some milliseconds
        time.sleep(pause)
        results.append(core())
    return results


@pytest.fixture(scope="module")
def expected():
    """Return the bits that one thread gives."""
    with threads(1):
        return core()


def threads_started(call):
    """Return how many threads more the process has after a call."""
    before = len(os.listdir("/proc/self/task"))
    call()
    return len(os.listdir("/proc/self/task")) - before


def test_config_tells_what_is_shared(capsys):
    assert sh.show_config(mode="dict")["shares_openmp"]
    sh.show_config()
    assert "2, shared with OpenMP\n" in capsys.readouterr().out


def test_same_bits(expected):
    for n in (1, 2, 3, 8):
        with threads(n):
            assert both() == [expected] * 2
    for n in (1, 3):
        torch.set_num_threads(n)
        assert both() == [expected] * 2


WHO_WORKS = """
import json, os, time
import numpy as np
import torch
import sparsehopfield as sh
import sparsehopfield.torch

SCORES = np.random.default_rng(0).random((300, 2500), dtype=np.float32)
TENSOR = torch.rand(64, 4096)

def threads():
    return {int(name) for name in os.listdir("/proc/self/task")}

def times(threads):
    return {tid: time.clock_gettime_ns(~tid << 3 | 6) for tid in threads}  # the clock of a thread's processor time

def pool_works(pause):
    TENSOR.exp()  # after which PyTorch's threads spin for some milliseconds
    time.sleep(pause)
    before = times(threads() - others)
    sh.sparsemax(SCORES)
    return times(threads() - others) != before

torch.set_num_threads(2)
sh.set_num_threads(2)
TENSOR.exp()
others = threads()
first = pool_works(0)
awake = any(not pool_works(0) for _ in range(300))
asleep = any(pool_works(0.05) for _ in range(100))
print(json.dumps([first, awake, asleep]))
"""


def test_who_works():
    """PyTorch's threads do the first job, and one that finds them awake, and the core's own those that do not."""
    assert run_python(WHO_WORKS) == [False, True, True]


def test_python_threads_at_once(expected):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: both(), range(8))) == [[expected] * 2] * 8


def test_within_a_parallel_region_a_call_has_one_thread(expected):
    found = []
    part = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: found.append((threading.get_ident(), core())))
    TENSOR.exp()
    # Threads of tests before this one may come to their end meanwhile.
    assert threads_started(lambda: ctypes.CDLL(None).GOMP_parallel(part, None, 2, 0)) <= 0
    assert [bits for _, bits in found] == [expected] * 2
    assert len(dict(found)) == 2


def _child(connection):
    started = threads_started(lambda: connection.send((core(), sh.show_config(mode="dict")["shares_openmp"])))
    connection.send(started == torch.get_num_threads() - 1)
    connection.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_after_a_shared_call(expected):
    """OpenMP's threads are not in a child, which has the core's own pool."""
    context = multiprocessing.get_context("fork")
    assert both() == [expected] * 2
    for torch_threads in (2, 1):
        torch.set_num_threads(torch_threads)
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(send,))
        child.start()
        send.close()
        try:
            assert receive.poll(60), "the forked child hangs"
            assert receive.recv() == (expected, False)
            assert receive.recv() is True
            child.join(60)
            assert child.exitcode == 0
        finally:
            child.kill()
            child.join()
    torch.set_num_threads(2)
    assert both() == [expected] * 2


class Calls(torch.utils.data.Dataset):
    """Results of the core, and how many threads each made a worker start."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        bits = []
        return threads_started(lambda: bits.append(core())), *bits


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_of_a_data_loader_have_one_thread(expected):
    """PyTorch gives its workers one thread each; so the core uses one."""
    loader = torch.utils.data.DataLoader(
        Calls(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert list(loader) == [[0, expected]] * 4


def long_call():
    """Call for some tenths of a second."""
    return sh.update(LONG[:4000], LONG, 1.0, separation="softmax")


def long_calls():
    """Make calls until one is interrupted, each on PyTorch's threads from its first job on."""
    for _ in range(200):
        share_threads()
        long_call()


LONG = rng.random((20_000, 64), dtype=np.float32)


def test_ctrl_c():
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.06)
        with pytest.raises(KeyboardInterrupt):
            long_calls()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert both()[0] == both()[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_within_a_shared_call():
    """A handler that forks within a region: the child's call is refused, its next one is right, and nobody waits."""
    expected, child, outcomes = digest(long_call()), None, []

    def handler(number, frame):
        nonlocal child
        child = os.fork()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(10):
            child = None
            listener, speaker = os.pipe()
            signal.setitimer(signal.ITIMER_REAL, 0.06)
            while child is None:
                share_threads()
                try:
                    found = digest(long_call()) == expected
                except RuntimeError as error:
                    found = str(error)
            if child == 0:
                try:
                    os.write(speaker, json.dumps([found, digest(long_call()) == expected]).encode())
                finally:
                    os._exit(0)
            os.close(speaker)
            assert found is True
            assert select.select([listener], [], [], 60)[0], "the forked child hangs"
            outcomes.append(json.loads(os.read(listener, 1000)))
            os.close(listener)
            os.waitpid(child, 0)
            assert outcomes[-1][1] is True
            if outcomes[-1][0] is not True:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "a signal handler forked" in outcomes[-1][0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_begins_to_share_gets_no_team(monkeypatch):
    """Whether its parent used OpenMP before, it cannot know."""
    listener, speaker = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(speaker, b"yes" if _threads._is_forked() else b"no")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(listener, 3) == b"yes"
    os.close(listener)
    os.close(speaker)
    assert not _threads._is_forked()

    monkeypatch.setattr(_threads, "_is_forked", lambda: True)
    share_threads()
    assert not sh.show_config(mode="dict")["shares_openmp"]
    monkeypatch.undo()
    share_threads()
    assert sh.show_config(mode="dict")["shares_openmp"]


def test_without_proc_a_process_gets_no_team(monkeypatch):
    def missing(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(_threads.Path, "read_text", missing)
    assert _threads._is_forked()


def test_nothing_is_shared_where_pytorch_has_no_openmp(monkeypatch):
    shared = []
    monkeypatch.setattr(_core, "share_openmp", lambda *addresses: shared.append(addresses))
    monkeypatch.setattr(torch.backends.openmp, "is_available", lambda: False)
    share_threads()
    assert not shared
    monkeypatch.undo()
    monkeypatch.setattr(_core, "share_openmp", lambda *addresses: shared.append(addresses))
    share_threads()
    assert len(shared) == 1
    assert all(shared[0])
