"""Threads: the same results for any number of them, from many callers at once, and after a fork."""

import multiprocessing
import os
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import TABLE_MAPS, digest, name_of, run_python, threads

import sparsehopfield as sh
from sparsehopfield.layers import Hopfield
from sparsehopfield.optim import AdamW
from sparsehopfield.structures import RandomFeatures

# More queries than one block and more patterns than one tile, and neither a multiple of either.
M, N, D = 2500, 600, 40
MAPS = ["sparsemax", "softmax", "entmax15", sh.Entmax(1.25), sh.Polynomial(4), *TABLE_MAPS]
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


def together(calls, workers=6):
    """Make the calls from many threads at once, each beginning with another, and return what each call gave them."""
    start, results = threading.Barrier(workers), [[] for _ in calls]

    def work(first):
        start.wait(60)
        for i in range(len(calls)):
            at = (first + i) % len(calls)
            results[at].append(digest(*calls[at]()))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns as often as can be, where they do not run at once anyway
    try:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(workers)))
    finally:
        sys.setswitchinterval(before)
    return results


@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_share_a_memory_that_has_computed_nothing_yet(dtype):
    """What a memory keeps (norms, an index, sums of features, certificates) is made while others ask for it."""
    patterns, queries = PATTERNS[:700, :16].astype(dtype), QUERIES[:20, :16].astype(dtype)

    def calls_of(memory, features):
        part = sh.candidates(queries[:3], patterns, 5.0, similarity="euclidean")
        return [
            lambda: [memory.update(queries)],
            lambda: [memory.update(queries.astype(np.float64))],  # float32 rows in double: a core of its own
            lambda: [memory.retrieve(queries, max_steps=3)],
            lambda: [memory.associate(queries, top=5)],
            lambda: [memory.energy(queries)],
            lambda: [memory.margin(), memory.critical_beta()],
            lambda: [memory.is_certified(), memory.exact_radius()],
            lambda: [memory.candidates(queries).states(memory.patterns)],
            lambda: [part.states(memory.patterns), part.weights()],
            lambda: [memory.build_index() or memory.update(queries[:1])],
            lambda: [features.update(queries)],
            lambda: [features.retrieve(queries, max_steps=2)],
        ]

    def made():
        memory = sh.HopfieldMemory(patterns, 5.0, similarity="euclidean")
        features = sh.HopfieldMemory(patterns, 0.5, separation="softmax", structure=RandomFeatures(12))
        return calls_of(memory, features)

    expected = [digest(*call()) for call in made()]
    with threads(2):
        for _ in range(3):
            assert together(made()) == [[e] * 6 for e in expected]


def test_threads_share_a_layer_and_train_their_own():
    layer, bags = Hopfield(12, 4, num_heads=2, random_state=0), QUERIES[:24, :12].reshape(2, 12, 12)

    def train():
        own = Hopfield(12, 4, num_heads=2, dropout=0.2, random_state=1)
        optimizer = AdamW(own, learning_rate=0.01)
        for _ in range(3):
            own.backward(own.forward(bags, train=True) - 1)
            optimizer.step()
            optimizer.zero_grad()
        return own.state_dict().values()

    calls = [
        lambda: [layer.forward(bags)],
        train,
        lambda: [sh.sparsemax(QUERIES), sh.entmax(QUERIES[:9], 1.3)],
        lambda: sh.sparsemax_threshold(QUERIES[:50]),
    ]
    expected = [digest(*call()) for call in calls]
    for _ in range(3):
        assert together(calls) == [[e] * 6 for e in expected]


def test_the_count_may_change_while_others_compute():
    with threads(2):
        calls = [
            lambda: [sh.update(QUERIES, PATTERNS, 5.0)],
            lambda: [sh.sparsemax(QUERIES)],
            *(lambda n=n: (sh.set_num_threads(n), [])[1] for n in (1, 3, 2)),
        ]
        expected = [digest(*call()) for call in calls]
        assert together(calls)[:2] == [[e] * 6 for e in expected[:2]]
        assert sh.get_num_threads() in (1, 2, 3)


def test_no_lock_of_python_holds_threads_back():
    """A Python without one global lock keeps to that when the core is imported; it would say so in a warning."""
    code = """if True:
        import json, sys, warnings
        warnings.simplefilter("error")
        import sparsehopfield
        print(json.dumps(getattr(sys, "_is_gil_enabled", lambda: True)()))"""
    assert run_python(code) == (not sysconfig.get_config_var("Py_GIL_DISABLED"))


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
