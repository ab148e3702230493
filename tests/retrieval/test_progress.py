"""Progress of what takes long: told in order and to the end, without a change of results."""

import functools
import io
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import _core
from sparsehopfield._engine.progress import Passes, telling

M, D = 6000, 20


def patterns(m=M):
    x = np.random.default_rng(0).standard_normal((m, D))
    x[m // 2] = x[1]
    return x


def memory(similarity="dot", **options):
    return sh.HopfieldMemory(patterns(), 1.0, similarity=similarity, **options)


CALLS = {
    "margin": lambda m, **more: m.margin(**more),
    "exact_radius": lambda m, **more: m.exact_radius(**more),
    "copies": lambda m, **more: m.duplicates(**more),
    "duplicates": lambda m, **more: m.duplicates(0.9, **more),
    "report": lambda m, **more: m.report(**more),
    "build_index": lambda m, **more: m.build_index(**more),
}
PASSES = {"margin": 1, "exact_radius": 2, "copies": 1, "duplicates": 3, "build_index": 1}
calls = pytest.mark.parametrize("call", CALLS)
similarities = pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])


def told_by(call, stored):
    """Return what a function is told, and the result."""
    told = []
    return told, CALLS[call](stored, progress=lambda *numbers: told.append(numbers))


def numbers(found):
    """Return what can be compared of a result."""
    return "" if found is None else str(found) if not isinstance(found, np.ndarray) else found.tolist()


@functools.cache
def untold(call, similarity="dot"):
    """Return what can be compared of the result of a call that tells nothing, by a memory of its own."""
    return numbers(CALLS[call](memory(similarity)))


@calls
@similarities
def test_progress_is_told_in_order_and_to_the_end(call, similarity):
    stored = memory(similarity)
    told, found = told_by(call, stored)
    passes = PASSES.get(call, 4 if similarity == "cosine" else 3)
    assert {total for _, total in told} == {passes * M}
    done = [done for done, _ in told]
    assert done[0] == 0
    assert done[-1] == passes * M
    assert all(a < b for a, b in pairwise(done))
    if call in ("margin", "report", "copies"):
        assert len(done) > 5 * passes  # every pass several times
    assert numbers(found) == untold(call, similarity)


@calls
def test_what_is_computed_already_is_told_at_once(call):
    stored = memory()
    told_by(call, stored)
    told, _ = told_by(call, stored)
    assert told[-1] == (told[-1][1], told[-1][1])
    if call in ("margin", "copies", "build_index"):
        assert told == [(0, M), (M, M)]


def test_an_index_in_steps():
    x = np.random.default_rng(0).random((50_000, 8), dtype=np.float32)
    stored, quiet = sh.HopfieldMemory(x), sh.HopfieldMemory(x)
    told = []
    stored.build_index(progress=lambda *numbers: told.append(numbers))
    quiet.build_index()
    assert len(told) > 3
    assert stored.index_nbytes == quiet.index_nbytes > 0
    np.testing.assert_array_equal(stored.retrieve(x[:50] + 0.1), quiet.retrieve(x[:50] + 0.1), strict=True)


def test_an_index_made_on_the_way_is_not_told():
    """An index that margins build by themselves is no progress of margins."""
    x = np.random.default_rng(0).random((40_000, 64), dtype=np.float32)
    stored, told = sh.HopfieldMemory(x, similarity="euclidean"), []
    core = stored._snapshot.certificates._core
    margins = _core.margins(core, lambda *numbers: told.append(numbers))
    assert stored.index_nbytes > 0
    np.testing.assert_array_equal(margins, stored.margin())
    assert {total for _, total in told} == {40_000}
    assert all(a < b for (a, _), (b, _) in pairwise(told))


class Full(Exception):
    pass


@calls
def test_what_the_function_raises_ends_the_call(call):
    last = told_by(call, memory())[0][-1][0]
    for when in (0, 1, last):
        stored = memory()

        def stop(done, total, when=when):
            if done >= when:
                raise Full(f"{done} of {total}")

        with pytest.raises(Full, match=r"^[0-9]+ of [0-9]+$"):
            CALLS[call](stored, progress=stop)
        assert numbers(CALLS[call](stored)) == untold(call)  # nothing is left half done


@calls
def test_the_function_may_use_the_memory(call):
    stored, found = memory(), []
    queries = patterns()[:3]

    def ask(done, total):
        found.append(stored.retrieve(queries))
        stored.index_nbytes  # noqa: B018

    CALLS[call](stored, progress=ask)
    assert all(np.array_equal(f, memory().retrieve(queries)) for f in found)


def test_in_a_thread():
    stored, told = memory(), []
    found = []

    def work():
        stored.margin(progress=lambda *numbers: told.append((*numbers, threading.get_ident())))
        try:
            memory().margin(progress=lambda done, total: 1 / (done < 3000))
        except ZeroDivisionError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert {ident for *_, ident in told} == {thread.ident}
    assert told[-1][:2] == (M, M)
    assert len(found) == 1


@calls
def test_a_bar(call, monkeypatch):
    tqdm = pytest.importorskip("tqdm", reason='the bar needs tqdm: pip install "sparsehopfield[studies]"')
    made, stream = [], io.StringIO()
    monkeypatch.setattr(
        tqdm, "tqdm", lambda _bar=tqdm.tqdm, **options: made.append(_bar(file=stream, **options)) or made[-1]
    )
    CALLS[call](memory(), progress=True)
    (bar,) = made
    assert bar.n == bar.total > 0
    assert bar.desc == {"copies": "duplicates"}.get(call, call)
    assert bar.disable  # closed
    assert "100%" in stream.getvalue()


def test_a_bar_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r'the progress bar of margin needs tqdm.*"sparsehopfield\[studies\]"'):
        memory().margin(progress=True)
    memory().margin(progress=False)


@calls
def test_what_is_no_progress(call):
    stored = memory()
    for wrong in (1, "yes", 0.5, [True], np.ones(2), lambda done: 0):
        with pytest.raises(
            TypeError, match=r"^progress: must be True, False or a function of what is done and the total"
        ):
            CALLS[call](stored, progress=wrong)
    CALLS[call](stored, progress=np.False_)


def test_passes():
    told = []
    passes = Passes(lambda *numbers: told.append(numbers), 3, 10)
    passes.begin()(1, 4)
    second = passes.begin()
    second(4, 4)
    second(4, 4)
    passes.begin()
    passes.end()
    assert told == [(0, 30), (2, 30), (10, 30), (20, 30), (30, 30)]
    with telling(None, "nothing", 2, 10) as passes:
        assert passes.begin() is None


def test_tensors():
    torch = pytest.importorskip("torch", reason="memories of tensors are for those who have PyTorch")
    told = []
    stored = sh.torch.HopfieldMemory(torch.from_numpy(patterns()), 1.0)
    margins = stored.margin(progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (M, M)
    np.testing.assert_array_equal(margins.numpy(), memory().margin())
