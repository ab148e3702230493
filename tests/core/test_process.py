"""Processes that end or fork while calls run: nothing crashes, hangs, or comes back with other numbers."""

import os
import subprocess
import sys

import pytest
from helpers import run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

# Each makes `call`, which takes a while, with numbers of its own kind of work.
SETUP = """
import faulthandler, json, os, signal, sys, threading, time, warnings
import numpy as np
import sparsehopfield as sh
from sparsehopfield import layers, optim, structures
from sparsehopfield.layers import Parameter

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.random((20_000, 64), dtype=np.float32)
Q = rng.random((3_000, 64), dtype=np.float32)
Z = rng.standard_normal((400, 5_000))
"""
CALLS = {
    "entmax": "call = lambda: sh.entmax(Z, 1.3)",
    "softmax": "call = lambda: sh.softmax(Z)",
    "sparsemax_vjp": "p = sh.sparsemax(Z); call = lambda: sh.sparsemax_vjp(p, Z)",
    "memory": "call = lambda: sh.HopfieldMemory(X, similarity='euclidean').update(Q[:9])",
    "update": "m = sh.HopfieldMemory(X, 9.0); call = lambda: m.update(Q)",
    "update, softmax": "m = sh.HopfieldMemory(X, 1.0, separation='softmax'); call = lambda: m.update(Q[:900])",
    "update, small beta": "m = sh.HopfieldMemory(X, 1e-6); call = lambda: m.update(Q[:200])",
    "update, window": (
        "m = sh.HopfieldMemory(X, structure=structures.Window(300, positions=np.arange(3000)))\n"
        "call = lambda: m.update(Q)"
    ),
    "index": "call = lambda: sh.HopfieldMemory(X).margin()",
    "retrieve": "call = lambda: sh.retrieve(Q, X, 9.0)",
    "energy": "call = lambda: sh.energy(Q, X, 1.0, separation='entmax15')",
    "associate": "call = lambda: sh.associate(Q, X, 1.0, separation='softmax', top=5).data",
    "features": (
        "m = sh.HopfieldMemory(X, 0.1, separation='softmax', structure=structures.RandomFeatures(500))\n"
        "call = lambda: m.update(Q)"
    ),
    "layer": "n = layers.Hopfield(64); x = Q.reshape(10, 300, 64); call = lambda: [n.backward(y := n(x)), y][1]",
    "pooling": (
        "n = layers.HopfieldPooling(64); x = X.reshape(100, 200, 64); call = lambda: [n.backward(y := n(x)), y][1]"
    ),
    "adamw": (
        "p = Parameter(np.zeros((2000, 2000), np.float32)); p.grad = np.ones_like(p.value)\n"
        "o = optim.AdamW([p]); call = lambda: [o.step() for _ in range(9)]"
    ),
}

ENDS = """
{setup}
calls = []
for text in {calls!r}:
    names = dict(globals())
    exec(text, names)
    calls.append(names["call"])
sh.set_num_threads(2)
begun = threading.Semaphore(0)

def loop(call):
    while True:
        begun.release()
        call()

for call in dict.fromkeys(calls):
    call()
for call in calls:
    threading.Thread(target=loop, args=(call,), daemon=True).start()
    begun.acquire()
time.sleep({pause})
{end}
"""


def ends(*kinds, end="", pause=0.1):
    """Run a program that ends while daemon threads are in calls, one of each kind; return status and output."""
    code = ENDS.format(setup=SETUP, calls=[CALLS[kind] for kind in kinds], pause=pause, end=end)
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=300, capture_output=True, text=True, check=False, env=os.environ
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("kinds", [*zip(*[iter(CALLS)] * 4, strict=True)], ids=" and ".join)
def test_a_program_ends_while_daemon_threads_call(kinds):
    """A daemon thread is not ended within a call, and no product begins when the BLAS takes itself apart."""
    assert ends(*kinds) == (0, "")


@pytest.mark.covering(1)
@pytest.mark.parametrize("pause", [0.0, 0.06, 0.13])
@pytest.mark.parametrize("kind", ["entmax", "update, softmax", "layer"])
def test_a_program_ends_at_any_moment(kind, pause):
    assert ends(kind, kind, kind, pause=pause) == (0, "")


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("sys.exit(3)", 3),
        ("os._exit(4)", 4),
        pytest.param("raise SystemExit", 0, marks=pytest.mark.depth),
        ("import atexit; atexit.register(call)", 0),
    ],
)
def test_a_program_ends_in_any_way(end, status):
    assert ends("entmax", "entmax", end=end) == (status, "")


FORKS = """
{setup}
{call}
sh.set_num_threads({threads})
def numbers():
    return np.asarray(call()).tobytes()

once = numbers()
children, child, (listener, speaker) = [], False, os.pipe()

def handler(number, frame):
    global child
    children.append(os.fork())
    child = not children[-1]

signal.signal(signal.SIGALRM, handler)
outcomes = []
for _ in range({rounds}):
    signal.setitimer(signal.ITIMER_REAL, 0.07)
    while len(children) == len(outcomes):  # until the signal has come, most likely within a call
        try:
            found = "same" if numbers() == once else "other"
        except RuntimeError as error:
            found = "refused" if "forked" in str(error) else repr(error)
    if child:
        later = "same" if numbers() == once else "other"  # with threads of its own
        os.write(speaker, json.dumps([found, later]).encode())
        os._exit(0)
    assert found == "same", found
    assert os.waitpid(children[-1], 0)[1] == 0
    outcomes.append(json.loads(os.read(listener, 1000)))
    if "refused" in outcomes[-1]:
        break
print(json.dumps(outcomes))
"""
STEADY = [k for k in CALLS if k not in ("adamw", "memory")]  # the same numbers whenever they are called


# The loop over rows is that of entmax, and those over queries are those of others.
MORE = (
    "softmax",
    "sparsemax_vjp",
    "index",
    "associate",
    "retrieve",
    "energy",
    "update, small beta",
    "features",
    "pooling",
)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.depth if k in MORE else ()) for k in STEADY])
def test_fork_in_a_signal_handler_during_a_call(kind):
    """The child's call has the right numbers, or fails; the child works on, and the parent does not notice."""
    outcomes = run_python(FORKS.format(setup=SETUP, call=CALLS[kind], threads=3, rounds=1), timeout=300)
    assert {found for found, _ in outcomes} <= {"same", "refused"}
    assert {later for _, later in outcomes} == {"same"}


@pytest.mark.parametrize("kind", ["entmax", pytest.param("update, softmax", marks=pytest.mark.depth)])
def test_fork_during_a_call_of_one_thread(kind):
    """Nobody else has a share: the child finishes the call."""
    outcomes = run_python(FORKS.format(setup=SETUP, call=CALLS[kind], threads=1, rounds=2))
    assert outcomes == [["same", "same"]] * 2


def test_fork_during_a_call_is_seen():
    """The signal does come within calls: some child's call is refused."""
    outcomes = run_python(FORKS.format(setup=SETUP, call="call = lambda: sh.entmax(Z, 1.05)", threads=3, rounds=20))
    assert outcomes[-1] == ["refused", "same"]
