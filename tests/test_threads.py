"""Threads: the same results for any number of them, from many callers at once, and after a fork."""

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import digest, name_of, run_python, threads

import sparsehopfield as sh

# More queries than one block and more patterns than one tile, and neither a multiple of either.
M, N, D = 2500, 600, 40
MAPS = ["sparsemax", "softmax", "entmax15", sh.Entmax(1.25), sh.Polynomial(4)]
rng = np.random.default_rng(3)
PATTERNS = rng.random((M, D), dtype=np.float32)
QUERIES = PATTERNS[rng.integers(M, size=N)] * (rng.random((N, D)) < 0.5).astype(np.float32)


def everything(separation="sparsemax"):
    """The bits of several calls that use the pool."""
    options = {"similarity": "euclidean" if separation != MAPS[-1] else "dot", "separation": separation}
    states = sh.retrieve(QUERIES, PATTERNS, 5.0, max_steps=3, **options)
    weights = sh.associate(QUERIES, PATTERNS, 5.0, top=20, **options)
    return digest(states, weights, sh.sparsemax(QUERIES @ PATTERNS.T), sh.entmax(QUERIES, 1.3))


@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
@pytest.mark.parametrize("separation", MAPS, ids=name_of)
def test_same_bits_for_any_number_of_threads(separation):
    results = set()
    for n in (1, 2, 3, 8):
        with threads(n):
            results.add(everything(separation))
    assert len(results) == 1


@pytest.mark.parametrize("n", [1, 2, 5, 700, 1025])
def test_same_bits_where_few_queries_share_the_patterns_out(n):
    """With fewer blocks of queries than threads, the patterns are shared out instead."""
    results = set()
    for count in (1, 2, 3, 8):
        with threads(count):
            states = sh.update(QUERIES[:1], PATTERNS[:n], 3.0)
            results.add(digest(states, sh.energy(QUERIES[:2], PATTERNS[:n])))
    assert len(results) == 1


def test_set_num_threads():
    before = sh.get_num_threads()
    assert before >= 1
    try:
        for n in (1, 2, np.int64(3)):
            sh.set_num_threads(n)
            assert sh.get_num_threads() == n
            assert sh.show_config(mode="dict")["threads"] == n
    finally:
        sh.set_num_threads(before)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", None])
def test_set_num_threads_refuses(bad):
    before = sh.get_num_threads()
    with pytest.raises(ValueError if isinstance(bad, int) else TypeError, match=r"^\w+: "):
        sh.set_num_threads(bad)
    assert sh.get_num_threads() == before


COUNT = "import sparsehopfield; print(sparsehopfield.get_num_threads())"


def test_environment_sets_the_count():
    assert run_python(COUNT, SPARSEHOPFIELD_NUM_THREADS="3", OMP_NUM_THREADS="2") == 3
    assert run_python(COUNT, SPARSEHOPFIELD_NUM_THREADS="", OMP_NUM_THREADS="2") == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no processor affinity on this system")
def test_count_follows_the_processors_allowed():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + COUNT
    assert run_python(one, SPARSEHOPFIELD_NUM_THREADS="", OMP_NUM_THREADS="") == 1


@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
def test_threadpoolctl_limits_us():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    with threads(2):
        expected = everything()
        with threadpoolctl.threadpool_limits(1):
            assert sh.get_num_threads() == 1
            assert everything() == expected
        assert sh.get_num_threads() == 2
        with threadpoolctl.threadpool_limits(3):  # raises the count of our private BLAS too
            assert everything() == expected
            assert sh.show_config(mode="dict")["blas"]["threads"] == 1
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert sh.get_num_threads() == 2


@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
def test_eight_python_threads_at_once():
    with threads(2):
        expected = everything()
        start = threading.Barrier(8)

        def call(_):
            start.wait()
            return [everything() for _ in range(2)]

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(call, range(8)))
    assert results == [[expected] * 2] * 8


@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
def test_one_memory_serves_eight_python_threads():
    with threads(2):
        memory = sh.HopfieldMemory(PATTERNS, 5.0, similarity="euclidean")
        expected = digest(memory.update(QUERIES))
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: digest(memory.update(QUERIES)), range(16)))
    assert results == [expected] * 16


def _child(connection):
    connection.send((everything(), sh.get_num_threads()))
    connection.close()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::sparsehopfield.RetrievalWarning")
def test_fork_after_a_threaded_call():
    """The child of a process with a running pool forgets it and starts its own; so does its own child."""
    context = multiprocessing.get_context("fork")
    with threads(2):
        expected = everything()
        for _ in range(3):
            receive, send = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(send,))
            child.start()
            send.close()
            try:
                assert receive.poll(60), "the forked child hangs"
                assert receive.recv() == (expected, 2)
                child.join(60)
                assert child.exitcode == 0
            finally:
                child.kill()
                child.join()
        assert everything() == expected  # and the parent's pool still works
