"""No memory, no leak, no endless call: failed allocations, reference counts, resident memory, Ctrl-C."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from itertools import pairwise

import numpy as np
import pytest
from helpers import digest, hook, name_of, threads

import sparsehopfield as sh
from sparsehopfield.structures import BlockSparse, RandomMask, TopK, Window

rng = np.random.default_rng(1)
PATTERNS = rng.normal(size=(2600, 10)).astype(np.float32)
QUERIES = rng.normal(size=(300, 10)).astype(np.float32)
VALUES = rng.normal(size=(2600, 3)).astype(np.float32)
BYTES = rng.integers(0, 4, size=(1500, 10)).astype(np.uint8)
HALVES = rng.normal(size=(1500, 10)).astype(np.float16)
ROWS = rng.normal(size=(400, 1000)).astype(np.float32)


def _parts(**options):
    return [sh.candidates(QUERIES[:40], PATTERNS[a:b], offset=a, **options) for a, b in ((0, 900), (900, 2600))]


def _grown(patterns, pieces, **options):
    memory = sh.HopfieldMemory(patterns[: pieces[0]], 3.0, **options)
    for a, b in pairwise(pieces):
        memory.add(patterns[a:b])
    return memory


# Every way through the core: few candidates, lists that grow, rows of scores, tiles of full support.
CALLS = {
    "update": lambda: sh.update(QUERIES, PATTERNS, 3.0),
    "update, one query": lambda: sh.update(QUERIES[0], PATTERNS, 3.0),
    "update, hundreds of candidates": lambda: sh.update(QUERIES[:40], PATTERNS, 0.2),
    "update, small beta": lambda: sh.update(QUERIES[:40], PATTERNS, 1e-4),
    "update, values": lambda: sh.update(QUERIES, PATTERNS, 3.0, values=VALUES),
    "update, values, small beta": lambda: sh.update(QUERIES[:40], PATTERNS, 1e-4, values=VALUES),
    "update, bytes": lambda: sh.update(QUERIES, BYTES, 0.1, similarity="euclidean"),
    "update, bytes, small beta": lambda: sh.update(QUERIES[:40], BYTES, 1e-4, similarity="euclidean"),
    "update, bytes, softmax": lambda: sh.update(QUERIES[:40], BYTES, 0.1, separation="softmax"),
    "update, cosine": lambda: sh.update(QUERIES, PATTERNS, 3.0, similarity="cosine"),
    "update, cosine, small beta": lambda: sh.update(QUERIES[:40], PATTERNS, 1e-3, similarity="cosine"),
    "update, softmax": lambda: sh.update(QUERIES, PATTERNS, 3.0, separation="softmax"),
    "update, softmax, one query": lambda: sh.update(QUERIES[0], PATTERNS, 3.0, separation="softmax"),
    "update, softmax, cosine": lambda: sh.update(QUERIES, PATTERNS, 3.0, separation="softmax", similarity="cosine"),
    "update, polynomial": lambda: sh.update(QUERIES[:40], PATTERNS, separation=sh.Polynomial(3)),
    "update, entmax": lambda: sh.update(QUERIES[:40], PATTERNS, 3.0, separation=sh.Entmax(1.3)),
    "update, float64": lambda: sh.update(QUERIES[:40].astype(float), PATTERNS.astype(float), 3.0),
    "update, strided": lambda: sh.update(QUERIES[::2, ::-1], PATTERNS[::-3, ::-1], 3.0),
    "energy": lambda: sh.energy(QUERIES, PATTERNS, 3.0),
    "energy, small beta": lambda: sh.energy(QUERIES[:40], PATTERNS, 1e-4, similarity="euclidean"),
    "energy, softmax": lambda: sh.energy(QUERIES[:40], PATTERNS, 3.0, separation="softmax"),
    "associate": lambda: sh.associate(QUERIES, PATTERNS, 3.0),
    "associate, small beta": lambda: sh.associate(QUERIES[:20], PATTERNS, 1e-4),
    "associate, top": lambda: sh.associate(QUERIES[:40], PATTERNS, 0.2, top=7),
    "associate, softmax": lambda: sh.associate(QUERIES[:40], PATTERNS, 0.5, separation="softmax", top=7),
    "associate, softmax, min_weight": lambda: sh.associate(
        QUERIES[:40], PATTERNS, separation="softmax", min_weight=1e-3
    ),
    "retrieve": lambda: sh.retrieve(QUERIES, PATTERNS, 9.0),
    "retrieve, values": lambda: sh.retrieve(QUERIES, PATTERNS, 9.0, values=VALUES),
    "retrieve, softmax": lambda: sh.retrieve(QUERIES[:40], PATTERNS, 3.0, separation="softmax", tol=1e-2),
    "retrieve, information": lambda: (
        sh.retrieve(QUERIES[:40], PATTERNS, 9.0, return_info=("weights", "energy"))[1].weights
    ),
    "update, the 5 best": lambda: sh.update(QUERIES[:40], PATTERNS, separation="softmax", structure=TopK(5)),
    "update, window": lambda: sh.update(QUERIES[:40], PATTERNS[:40], 3.0, structure=Window(9)),
    "update, window, small beta": lambda: sh.update(
        QUERIES[:9], PATTERNS, 1e-6, structure=Window(600, positions=range(9))
    ),
    "update, blocks, softmax": lambda: sh.update(
        QUERIES[:40], PATTERNS[:40], separation="softmax", structure=BlockSparse([[True, False], [True, True]], 20)
    ),
    "associate, random pairs": lambda: sh.associate(QUERIES[:9], PATTERNS, 3.0, structure=RandomMask(200)),
    "retrieve, random pairs": lambda: sh.retrieve(QUERIES[:40], PATTERNS, 9.0, structure=RandomMask(30)),
    "candidates": lambda: sh.merge(_parts(beta=3.0)).weights(),
    "candidates, states": lambda: sh.merge(_parts(beta=3.0)).states(PATTERNS),
    "candidates, softmax": lambda: sh.merge(_parts(separation="softmax")).states(),
    "candidates, polynomial": lambda: sh.merge(_parts(separation=sh.Polynomial(4))).states(),
    "memory": lambda: sh.HopfieldMemory(PATTERNS, 3.0, values=VALUES, similarity="cosine").update(QUERIES),
    "memory, float16": lambda: sh.HopfieldMemory(HALVES, 3.0, scale=0.3, similarity="cosine").update(QUERIES),
    "memory, float16, softmax": lambda: sh.HopfieldMemory(HALVES, 3.0, separation="softmax").update(QUERIES),
    "memory, float16 values": lambda: sh.HopfieldMemory(HALVES, 3.0, values=HALVES[:, :3]).update(QUERIES[:40]),
    "memory, added to": lambda: _grown(PATTERNS, (900, 901, 902, 1900, 2600), similarity="euclidean").update(QUERIES),
    "memory, float16, added to": lambda: _grown(HALVES, (700, 701, 1500), similarity="cosine").update(QUERIES[:40]),
    "memory, added to, dot": lambda: _grown(PATTERNS, (900, 2600)).update(QUERIES[:40]),
    "margins": lambda: sh.HopfieldMemory(PATTERNS[:300], 3.0).margin(),
    "radii": lambda: sh.HopfieldMemory(PATTERNS[:300], 3.0).exact_radius(),
    "radii, bytes": lambda: sh.HopfieldMemory(BYTES[:300], 3.0).exact_radius(),
    "sparsemax": lambda: sh.sparsemax(ROWS),
    "entmax": lambda: sh.entmax(ROWS, 1.3),
    "softmax, columns": lambda: sh.softmax(ROWS, axis=0),
    "topk_softmax": lambda: sh.topk_softmax(ROWS, 5),
    "threshold": lambda: sh.sparsemax_threshold(ROWS)[0],
    "vjp": lambda: sh.entmax_vjp(ROWS, ROWS, 1.5),
    "conjugate": lambda: sh.entmax_conjugate(ROWS),
}


@pytest.fixture
def failing():
    """The hook that makes an allocation fail, set back afterwards."""
    fail = hook("_fail_allocation")
    yield fail
    fail(-1)


# Of these others make nearly the same allocations, some thousands.
LONG = ("retrieve, values", "associate", "memory", "memory, added to", "update, cosine", "update, values")


@pytest.mark.parametrize("most", [40, pytest.param(200, marks=[pytest.mark.depth, pytest.mark.slow])])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in CALLS])
def test_every_allocation_failed_in_turn(name, most, failing):
    """Every one, or of more than `most` the first half and some of the others: queries repeat theirs by the hundred."""
    call, fail = CALLS[name], failing
    with threads(1):
        want = digest(call())
        fail(-1)
        call()
        made = fail(-1)
        assert made > 0
        raised = 0
        half = most // 2
        for n in range(made) if made <= most else [*range(half), *range(half, made, max(1, (made - half) // half))]:
            fail(n)
            try:
                assert digest(call()) == want  # an index that cannot be made is done without
            except MemoryError:
                raised += 1
            fail(-1)
        assert raised > 0
        assert digest(call()) == want
    with threads(3):  # who makes which is left to chance, but no failure gives a wrong result
        for n in range(0, made, max(1, made // min(20, most // 4))):
            fail(n)
            with contextlib.suppress(MemoryError):
                assert digest(call()) == want
            fail(-1)
        assert digest(call()) == want


def test_out_of_memory_for_the_result():
    """Arrays that NumPy itself cannot allocate."""
    with pytest.raises(MemoryError):
        sh.softmax(np.broadcast_to(np.float32(0), (2**20, 2**30)))
    with pytest.raises(MemoryError):
        sh.update(np.broadcast_to(np.float32(0), (2**46, 10)), PATTERNS)


# --- leaks ------------------------------------------------------------------------------------------


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def errors():
    """A round of calls that fail, early and late."""
    spoiled = QUERIES.copy()
    spoiled[299, 9] = np.nan
    for call in (
        lambda: sh.update(spoiled, PATTERNS),
        lambda: sh.update(QUERIES, PATTERNS, -1.0),
        lambda: sh.update(QUERIES, PATTERNS, separation="none"),
        lambda: sh.update(QUERIES, np.zeros_like(PATTERNS), similarity="cosine"),
        lambda: sh.update(QUERIES * np.float32(1e25), PATTERNS * np.float32(1e25)),
        lambda: sh.HopfieldMemory(spoiled),
        lambda: sh.HopfieldMemory(PATTERNS, similarity="euclidean").add(spoiled),
        lambda: sh.HopfieldMemory(PATTERNS).add(QUERIES, VALUES),
        lambda: sh.associate(QUERIES, PATTERNS, separation="softmax"),
        lambda: sh.retrieve(QUERIES, PATTERNS, out=QUERIES),
        lambda: sh.candidates(spoiled, PATTERNS),
        lambda: sh.entmax(ROWS, 0.5),
        lambda: sh.softmax(ROWS.astype(complex)),
        lambda: sh.softmax_vjp(ROWS, ROWS[:, :5]),
    ):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            call()


@pytest.mark.resources
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.parametrize("what", ["calls", "errors", "row maps"])
def test_no_memory_is_kept(what):
    rounds = {"calls": 10, "errors": 100, "row maps": 2000}[what]
    small = ROWS[:3, :50]

    def once():
        if what == "calls":  # some 35 calls of the core a round
            for name, call in CALLS.items():
                if "threshold" not in name:
                    call()
        elif what == "errors":
            errors()
        else:
            sh.sparsemax(small)
            sh.entmax(small, 1.3, axis=0)
            sh.sparsemax_threshold(small)
            sh.softmax_vjp(small, small)
            sh.sparsemax(small.astype(np.float16))

    sizes = []
    for _ in range(12):  # the first until the allocator has what it needs
        for _ in range(rounds):
            once()
        gc.collect()
        sizes.append(resident())
        # 400 to 10,000 calls: a kibibyte lost in each would be 0.4 MB at least, every time.
        if len(sizes) > 1 and sizes[-1] - sizes[-2] < 2e5:
            return
    pytest.fail(f"grows: {sizes}")


def test_reference_counts():
    arrays = [QUERIES.copy(), PATTERNS.copy(), VALUES.copy(), np.empty((300, 3), np.float32), np.ones(300)]
    queries, patterns, values, out, beta = arrays
    options = ["sparsemax", sh.Entmax(1.5)]

    def once():
        sh.update(queries, patterns, beta, values=values, out=out)
        sh.retrieve(queries, patterns, beta, values=values, out=out, tol=1.0)
        sh.associate(queries, patterns, beta, separation=options[1])
        sh.energy(queries, patterns, beta, separation=options[0])
        parts = [sh.candidates(queries, patterns, beta, values=values)]
        sh.merge(parts).states(values)
        memory = sh.HopfieldMemory(patterns, values=values)
        memory.update(queries, out=out)
        memory.retrieve(queries, tol=1.0)
        memory.add(patterns, values)
        memory.remove(0)
        memory.update(queries, out=out)
        for wrong in ({"beta": -1.0}, {"separation": 3}, {"out": queries}, {"out": np.empty(3)}):
            with pytest.raises((ValueError, TypeError)):
                sh.update(queries, patterns, **wrong)
        with pytest.raises(ValueError, match=r"^alpha:"):
            sh.entmax(queries, 0.5, out=queries)

    once()
    before = [sys.getrefcount(a) for a in arrays]
    for _ in range(20):
        once()
    gc.collect()
    assert [sys.getrefcount(a) for a in arrays] == before


def test_memories_die():
    patterns = PATTERNS.copy()
    memory = sh.HopfieldMemory(patterns)
    gone, owned = weakref.ref(memory), sys.getrefcount(patterns)
    part = memory.candidates(QUERIES)
    memory.update(QUERIES)
    del memory
    gc.collect()
    assert part.states(patterns).shape == (300, 10)  # a partial result keeps what it needs
    del part
    gc.collect()
    assert gone() is None
    assert sys.getrefcount(patterns) < owned


def test_results_own_their_memory():
    states = sh.update(QUERIES, PATTERNS.copy(), 3.0)
    weights = sh.associate(QUERIES, PATTERNS.copy(), 3.0)
    before = digest(states, weights)
    junk = [np.full((2600, 10), i, np.float32) for i in range(20)]
    assert digest(states, weights) == before
    del junk


# --- Ctrl-C -----------------------------------------------------------------------------------------

LONG_CALLS = {
    "many queries": """
        patterns = rng.random((100_000, 64), dtype=np.float32)
        queries = rng.random((200_000, 64), dtype=np.float32)
        work = lambda: sh.update(queries, patterns, 50.0)""",
    "a million patterns": """
        patterns = rng.random((1_000_000, 64), dtype=np.float32)
        queries = rng.random((20_000, 64), dtype=np.float32)
        work = lambda: sh.update(queries, patterns, 50.0)""",
    "many patterns, small beta": """
        patterns = rng.random((300_000, 64), dtype=np.float32)
        queries = rng.random((2_000, 64), dtype=np.float32)
        work = lambda: sh.update(queries, patterns, 1e-6)""",
    "a million patterns, moderate supports": """
        patterns = rng.random((1_000_000, 64), dtype=np.float32)
        queries = rng.random((5_000, 64), dtype=np.float32)
        work = lambda: sh.associate(queries, patterns, 0.3, separation="entmax15")""",
    "many patterns, softmax": """
        patterns = rng.random((300_000, 64), dtype=np.float32)
        queries = rng.random((20_000, 64), dtype=np.float32)
        work = lambda: sh.update(queries, patterns, 5.0, separation="softmax")""",
    "retrieve": """
        patterns = rng.random((300_000, 64), dtype=np.float32)
        queries = rng.random((2_000, 64), dtype=np.float32)
        work = lambda: sh.retrieve(queries, patterns, 0.5, tol=0.0)""",
    "retrieve, one query": """
        patterns = np.array([[1.0], [-1.0]])
        queries = np.ones((1, 1))
        work = lambda: sh.retrieve(queries, patterns, 0.499999999999, max_steps=10**12, tol=0.0)""",
    "12,288 features in bytes": """
        patterns = np.tile(rng.integers(0, 256, (1000, 12288), dtype=np.uint8), (140, 1))
        queries = rng.random((4_000, 12288), dtype=np.float32)
        work = lambda: sh.update(queries, patterns, 1e-3, check_finite=False)""",
    "the check of a large memory": """
        patterns = np.zeros((1_000_000, 12288), dtype=np.uint8)
        work = lambda: sh.HopfieldMemory(patterns, similarity="euclidean")""",
    "row maps": """
        z = np.tile(rng.normal(size=(1, 100_000)).astype(np.float32), (1_000, 1))
        work = lambda: [sh.entmax(z, 1.05, out=z) for _ in range(100)]""",
    "one row map": """
        z = np.tile(rng.normal(size=(1, 100_000)).astype(np.float32), (500, 1))
        work = lambda: sh.entmax(z, 1.001, out=z)""",
}
MEMORY = {
    "12,288 features in bytes": 3e9,
    "the check of a large memory": 1e9,
    "row maps": 5e8,
    "one row map": 3e8,
}

# The loops of others, over more.
MORE = ("a million patterns", "a million patterns, moderate supports", "12,288 features in bytes", "row maps")

SCRIPT = """
import signal, sys, time
import numpy as np
import sparsehopfield as sh
rng = np.random.default_rng(0)
{setup}
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
print("ready", flush=True)
start = time.perf_counter()
try:
    while True:
        work()
except KeyboardInterrupt:
    print("stopped", time.time(), flush=True)
# the library still works
assert np.isfinite(sh.update(np.ones((3, 4)), np.eye(4))).all()
print("fine", flush=True)
"""


@pytest.mark.slow
@pytest.mark.resources
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.depth if n in MORE else ()) for n in LONG_CALLS])
def test_ctrl_c_ends_a_call_within_a_second(name):
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    if free < 2 * MEMORY.get(name, 5e8):
        pytest.skip(f"needs {2 * MEMORY.get(name, 5e8) / 1e9:.0f} GB of free memory")
    code = SCRIPT.format(setup=textwrap.dedent(LONG_CALLS[name]))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline().strip() == "ready"
            time.sleep(0.5)
            assert child.poll() is None
            sent = time.time()
            child.send_signal(signal.SIGINT)
            words = child.stdout.readline().split()
            assert words, child.stderr.read()
            assert words[0] == "stopped"
            assert float(words[1]) - sent < 1.0
            assert child.stdout.readline().strip() == "fine"
            assert child.wait(timeout=30) == 0
        finally:
            if child.poll() is None:
                child.kill()


@pytest.mark.parametrize("separation", ["sparsemax", "softmax"], ids=name_of)
def test_a_signal_handler_that_raises_ends_the_call(separation):
    """Any exception of a handler comes through, and the next call works."""
    patterns = rng.random((60_000, 32), dtype=np.float32)
    queries = rng.random((20_000, 32), dtype=np.float32)

    class Enough(Exception):
        pass

    def handler(number, frame):
        raise Enough

    def endless():
        while True:
            sh.update(queries, patterns, 9.0, separation=separation)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Enough):
            endless()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.isfinite(sh.update(queries[:3], patterns, 9.0, separation=separation)).all()
