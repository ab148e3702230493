"""Locks: none outlives a fork, none is waited for by the thread that has it, and objects do not wait for each other."""

import copy
import os
import threading

import numpy as np
import pytest
from helpers import run_python

import sparsehopfield as sh
from sparsehopfield._engine.concurrency import cached

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

# A child is forked while another thread stands in the middle of something; it must end, and is killed if it does not.
FORKED = """
import json, os, signal, sys, threading, time
import numpy as np
import sparsehopfield as sh
from sparsehopfield import certificates, files, memory as memories, stored

middle, go_on = threading.Event(), threading.Event()

def stopping(owner, name, when=lambda *arguments: True):
    \"\"\"The first call of the other thread stops in the middle until it may go on.\"\"\"
    real, other = getattr(owner, name), []
    def stopped(*arguments, **options):
        result = real(*arguments, **options)
        if threading.current_thread() is not threading.main_thread() and when(*arguments):
            middle.set()
            go_on.wait()
        return result
    setattr(owner, name, stopped)

def forked(child):
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        signal.alarm(20)  # what hangs is killed
        try:
            os.write(writer, json.dumps(child()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(repr(error)).encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 65536)
    os.waitpid(process, 0)
    return json.loads(said) if said else "hangs"

rng = np.random.default_rng(0)
large = sh.HopfieldMemory(rng.standard_normal((64, 8)), 2.0)
small = sh.HopfieldMemory(np.eye(4), 2.0)
"""


CERTIFICATES = {
    "margin": (), "critical_beta": (), "is_certified": (), "exact_radius": (), "capacity": (), "report": (),
    "duplicates": (0.1,),
}  # fmt: skip


@forks
def test_certificates_in_a_child_forked_while_another_memory_makes_its_own():
    """Each of memories of its own, so that nothing is known before."""
    code = FORKED + (
        "stopping(certificates._core, 'margins')\n"
        "rows, found = rng.standard_normal((64, 8)), {}\n"
        f"for name, arguments in {CERTIFICATES}.items():\n"
        "    middle.clear(), go_on.clear()\n"
        "    both = [sh.HopfieldMemory(np.eye(4), 2.0), sh.HopfieldMemory(rows, 2.0)]\n"
        "    certificates_of = [getattr(memory, name) for memory in both]\n"
        "    thread = threading.Thread(target=certificates_of[1], args=arguments)\n"
        "    thread.start()\n"
        "    assert middle.wait(60)\n"
        "    said = forked(lambda: [str(certificate(*arguments)) for certificate in certificates_of])\n"
        "    go_on.set()\n"
        "    thread.join()\n"
        "    found[name] = [said, [str(certificate(*arguments)) for certificate in certificates_of]]\n"
        "print(json.dumps(found))\n"
    )
    found = run_python(code)
    assert found.keys() == CERTIFICATES.keys()
    for name, (said, here) in found.items():
        assert said == here, name


@pytest.mark.covering(1)
@forks
@pytest.mark.parametrize("begun", ["add", "remove"])
@pytest.mark.parametrize("then", ["add", "remove", "save", "deepcopy", "retrieve", "structure"])
def test_a_child_forked_in_the_middle_of_a_change_has_the_old_patterns(begun, then, tmp_path):
    change = {"add": "large.add(np.ones((3, 8)))", "remove": "large.remove(slice(0, 20))"}[begun]
    what = {
        "add": "large.add(np.zeros((5, 8))).tolist()",
        "remove": "large.remove(slice(0, 4))",
        "save": "(large.save(sys.argv[1]), len(sh.HopfieldMemory.load(sys.argv[1])))[1]",
        "deepcopy": "__import__('copy').deepcopy(large).add(np.ones((2, 8))).tolist()",
        "retrieve": "bool(np.isfinite(large.retrieve(np.ones(8))).all())",
        "structure": "setattr(large, 'structure', sh.structures.TopK(3))",
    }[then]
    code = FORKED + (
        "import sparsehopfield.structures\n"
        "stopping(stored.PatternSet, '_begin_another')\n"
        f"thread = threading.Thread(target=lambda: {change})\n"
        "thread.start()\n"
        "assert middle.wait(60)\n"
        f"said = forked(lambda: [len(large), {what}, len(large), float(large.patterns.sum())])\n"
        "go_on.set()\n"
        "thread.join()\n"
        "print(json.dumps([said, float(large.patterns[:64].sum()), len(large)]))\n"
    )
    said, _, length = run_python(code, tmp_path / "memory")
    assert said != "hangs"
    before, result, after, _ = said
    wanted = {"add": (list(range(64, 69)), 69), "remove": (None, 60), "save": (64, 64), "deepcopy": ([64, 65], 64)}
    assert before == 64  # the change of the thread that runs in the parent only never came to an end
    assert (result, after) == wanted.get(then, (True if then == "retrieve" else None, 64))
    assert length == {"add": 67, "remove": 44}[begun]  # and did, there


@forks
def test_a_change_that_forks_goes_on_in_both():
    """A finaliser or a signal handler may fork in the middle of a change of its own thread."""
    code = FORKED + (
        "real, said = stored.PatternSet.with_rows, []\n"
        "def with_rows(self, *arguments, **options):\n"
        "    if not said:\n"
        "        said.append(forked(lambda: attempt()))\n"
        "    return real(self, *arguments, **options)\n"
        "def attempt():\n"
        "    try:\n"
        "        large.add(np.ones((1, 8)))\n"
        "    except RuntimeError as error:\n"
        "        return str(error)\n"
        "stored.PatternSet.with_rows = with_rows\n"
        "large.add(np.ones((3, 8)))\n"
        "large.add(np.ones((3, 8)))\n"
        "print(json.dumps([said, len(large)]))\n"
    )
    (said,), length = run_python(code)
    assert "being changed by this thread" in said
    assert length == 70


def memory_of(rows=20, **options):
    return sh.HopfieldMemory(np.random.default_rng(0).standard_normal((rows, 4)), 2.0, **options)


INNER = {
    "add": lambda memory: memory.add(np.ones((1, 4))),
    "remove": lambda memory: memory.remove(0),
}
OUTER = {
    "add": lambda memory: memory.add(np.full((2, 4), 2.0)),
    "remove": lambda memory: memory.remove([1, 2, 3]),
}


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
def test_a_change_in_the_middle_of_a_change_of_the_same_thread_is_refused(monkeypatch, outer, inner):
    from sparsehopfield._engine.pattern_set import PatternSet

    memory, real, refused = memory_of(), PatternSet._begin_another, []

    def begin_another(self, *arguments, **options):  # where a signal handler or a finaliser may run
        with pytest.raises(RuntimeError, match="being changed by this thread"):
            INNER[inner](memory)
        refused.append(True)
        return real(self, *arguments, **options)

    monkeypatch.setattr(PatternSet, "_begin_another", begin_another)
    before = memory.patterns.copy()
    OUTER[outer](memory)
    assert refused
    expected = np.vstack([before, np.full((2, 4), 2.0)]) if outer == "add" else np.delete(before, [1, 2, 3], axis=0)
    np.testing.assert_array_equal(memory.patterns, expected)
    monkeypatch.undo()
    OUTER["add"](memory)  # and it is free again


@pytest.mark.parametrize("use", ["retrieve", "margin", "save", "deepcopy", "beta", "structure", "separation", "build"])
def test_all_else_may_be_done_in_the_middle_of_a_change(monkeypatch, tmp_path, use):
    from sparsehopfield._engine.pattern_set import PatternSet
    from sparsehopfield.structures import TopK

    memory, real, done = memory_of(), PatternSet._begin_another, []
    uses = {
        "retrieve": lambda: memory.retrieve(np.ones(4)),
        "margin": memory.margin,
        "save": lambda: memory.save(tmp_path / "memory"),
        "deepcopy": lambda: copy.deepcopy(memory),
        "beta": lambda: setattr(memory, "beta", 3.0),
        "structure": lambda: setattr(memory, "structure", TopK(2)),
        "separation": lambda: setattr(memory, "separation", "softmax"),
        "build": memory.build_index,
    }

    def begin_another(self, *arguments, **options):
        if not done:
            done.append(len(memory))
            uses[use]()
        return real(self, *arguments, **options)

    monkeypatch.setattr(PatternSet, "_begin_another", begin_another)
    memory.add(np.ones((1, 4)))
    assert done == [20]
    assert len(memory) == 21


SIGNALLED = """
import json, signal, sys
import numpy as np
import sparsehopfield as sh

memory = sh.HopfieldMemory(np.ones((1000, 32), np.float32), 1.0)
more = np.ones((200, 32), np.float32)
outcomes = {"added": 0, "refused": 0}

def handler(*_):
    try:
        memory.add(more[:1])
        outcomes["added"] += 1
    except RuntimeError as error:
        assert "being changed by this thread" in str(error), error
        outcomes["refused"] += 1

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
rounds = 0
while min(outcomes.values()) < 20 and rounds < 20000:
    memory.add(more)
    memory.remove(slice(1000, 1200))
    rounds += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps([outcomes, len(memory), rounds]))
"""


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="no interval timers on this system")
def test_a_signal_handler_that_adds_while_its_thread_adds():
    outcomes, length, _ = run_python(SIGNALLED)
    assert outcomes["refused"] >= 20
    assert length >= 1000


def test_a_finaliser_that_adds():
    """What is collected in the middle of a change may change the memory itself: it is told that it cannot."""
    memory, said = memory_of(), []

    class Last:
        def __del__(self):
            try:
                memory.add(np.ones((1, 4)))
                said.append("added")
            except RuntimeError as error:
                said.append(str(error))

    class Ids:  # an argument with a conversion of its own, which may change the memory, too: it comes first
        def __array__(self, dtype=None, copy=None):
            memory.add(np.ones((1, 4)), ids=[100])
            return np.array([7777])

    memory.add(np.ones((1, 4)), ids=Ids())
    assert memory.ids[-2:].tolist() == [100, 7777]
    lock, last = memory._lock, [Last()]
    lock.run(last.clear)
    assert len(said) == 1
    assert "being changed by this thread" in said[0]
    lock.run(lambda: None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_a_change_that_fails_gives_the_turn_back(monkeypatch, error):
    from sparsehopfield._engine.pattern_set import PatternSet

    memory = memory_of()

    def fail(self, *arguments, **options):
        raise error

    monkeypatch.setattr(PatternSet, "with_rows", fail)
    monkeypatch.setattr(PatternSet, "without", fail)
    for change in (*INNER.values(), *OUTER.values()):
        with pytest.raises(error):
            change(memory)
    monkeypatch.undo()
    assert len(memory) == 20
    thread = threading.Thread(target=INNER["add"], args=(memory,))
    thread.start()
    thread.join(60)
    assert len(memory) == 21


def test_values_that_are_kept_are_made_once_and_without_a_lock():
    entered, leave, made = threading.Event(), threading.Event(), []

    class Thing:
        def __init__(self, name):
            self.name = name

        @cached
        def value(self):
            """What it is."""
            made.append(self.name)
            if self.name == "slow":
                entered.set()
                assert leave.wait(60)
            return object()

    assert Thing.value.__doc__ == "What it is."
    slow, fast = Thing("slow"), Thing("fast")
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert entered.wait(60)
    assert fast.value is fast.value  # while another thread makes that of another
    leave.set()
    thread.join(60)
    assert slow.value is slow.value
    assert made == ["slow", "fast"]


def test_threads_that_ask_at_the_same_time_get_the_same_value():
    barrier = threading.Barrier(4)

    class Thing:
        @cached
        def value(self):
            barrier.wait(60)
            return object()

    thing, got = Thing(), []
    threads = [threading.Thread(target=lambda: got.append(thing.value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 4
    assert all(value is thing.value for value in got)


def test_no_lock_of_a_class_is_left():
    """`functools.cached_property` has one before Python 3.12."""
    import pathlib

    for path in pathlib.Path(sh.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import cached_property" not in text, path
