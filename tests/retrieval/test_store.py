"""HopfieldMemory as a store: whatever was added, removed, saved and loaded, it answers as a fresh one, bit for bit."""

import copy
import pickle
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    ALL_MAPS,
    CUTOFF_MAPS,
    SIMILARITIES,
    digest,
    hook,
    name_of,
    quiet,
    run_python,
    same_bits,
    state_bounds,
    threads,
    weight_bounds,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import sparsehopfield as sh
from sparsehopfield._engine import snapshot as snapshots
from sparsehopfield._engine.call import Call
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.separations import separation_code

NARROW = [np.uint8, np.float16]
STORED = [np.float32, np.float64, *NARROW]


def draw(rng, n, d, dtype):
    """Rows of a dtype, none of them zero."""
    if np.dtype(dtype).kind == "u":
        return rng.integers(1, 20, size=(n, d)).astype(dtype)
    return rng.normal(size=(n, d)).astype(dtype)


def widened(rows, scale=None):
    """What stored numbers stand for."""
    if rows.dtype.type not in NARROW:
        return rows
    return rows.astype(np.float32) * np.float32(1 if scale is None else scale)


def answers(memory, queries, *, top=None):
    """The bits of all that a memory can be asked."""
    results = [memory.update(queries), memory.associate(queries, top=top), memory.ids]
    with quiet():
        results.append(memory.retrieve(queries, max_steps=5))
        if not hasattr(memory.separation, "order"):
            results.append(memory.energy(queries))
    part = memory.candidates(queries)
    mixed = () if part.mixture is not None else (memory.values,)
    return digest(*results, part.states(*mixed), memory.patterns, memory.values)


def fresh(memory):
    """A memory of the same patterns that was never anything else."""
    stored = memory._snapshot.pattern_set
    return sh.HopfieldMemory(
        memory.patterns.copy(),
        memory.beta,
        values=None if stored.values is None else memory.values.copy(),
        similarity=memory.similarity,
        separation=memory.separation,
        ids=memory.ids.copy(),
        scale=None if memory.patterns.dtype.type not in NARROW else memory.scale,
    )


# --- any sequence -----------------------------------------------------------------------------------


class Store(RuleBasedStateMachine):
    """A memory, and beside it plain arrays of what it must hold."""

    @initialize(
        dtype=st.sampled_from(STORED),
        of_values=st.sampled_from([None, np.float32, np.float16]),
        similarity=st.sampled_from(SIMILARITIES),
        separation=st.sampled_from(["sparsemax", "entmax15", "softmax", sh.Polynomial(2)]),
        scale=st.sampled_from([None, 0.3, 7.0]),
        named=st.booleans(),
        n=st.integers(1, 5),
        share=st.sampled_from([0, 2, 8]),
        seed=st.integers(0, 2**32 - 1),
    )
    def begin(self, dtype, of_values, similarity, separation, scale, named, n, share, seed):
        self.folder = Path(tempfile.mkdtemp())
        self.share_before, snapshots.SHARE = snapshots.SHARE, share  # how many removed rows stay where they are
        self.rng = np.random.default_rng(seed)
        self.d, self.dtype, self.of_values = 6, dtype, of_values
        self.patterns = draw(self.rng, n, self.d, dtype)
        self.values = None if of_values is None else draw(self.rng, n, 3, of_values)
        self.ids = self.rng.choice(1000, size=n, replace=False) if named else np.arange(n)
        self.memory = sh.HopfieldMemory(
            self.patterns.copy(),
            0.5,
            values=None if self.values is None else self.values.copy(),
            similarity=similarity,
            separation=separation,
            ids=self.ids.copy() if named else None,
            scale=scale if dtype in NARROW else None,
        )

    @rule(n=st.integers(1, 9), named=st.booleans())
    def add(self, n, named):
        patterns = draw(self.rng, n, self.d, self.dtype)
        values = None if self.of_values is None else draw(self.rng, n, 3, self.of_values)
        ids = self.ids.max() + 1 + np.arange(n)
        if named:
            ids = np.setdiff1d(self.rng.choice(10**6, size=2 * n + len(self.ids), replace=False), self.ids)[:n]
        added = self.memory.add(patterns, values, ids if named else None)
        np.testing.assert_array_equal(added, ids)
        self.patterns = np.concatenate([self.patterns, patterns])
        self.ids = np.concatenate([self.ids, ids])
        if values is not None:
            self.values = np.concatenate([self.values, values])

    @rule(kind=st.sampled_from(["one", "slice", "list", "mask"]), share=st.floats(0, 0.8))
    def remove(self, kind, share):
        m = len(self.patterns)
        positions = {
            "one": int(self.rng.integers(-m, m)),
            "slice": slice(int(share * m), None, 2),
            "list": self.rng.integers(-m, m, size=int(share * m)).tolist(),
            "mask": self.rng.random(m) < share,
        }[kind]
        left = np.delete(np.arange(m), positions)
        if len(left) == 0:
            with pytest.raises(ValueError, match=r"^positions:.*all"):
                self.memory.remove(positions)
            return
        self.memory.remove(positions)
        self.patterns, self.ids = self.patterns[left], self.ids[left]
        if self.values is not None:
            self.values = self.values[left]

    @rule(mmap=st.booleans(), verify=st.booleans(), how=st.sampled_from(["file", "pickle", "deepcopy"]))
    def save_and_load(self, mmap, verify, how):
        if how == "pickle":
            self.memory = pickle.loads(pickle.dumps(self.memory))
        elif how == "deepcopy":
            self.memory = copy.deepcopy(self.memory)
        else:
            path = self.folder / "memory"  # over itself, if it is mapped from there
            self.memory.save(path)
            self.memory = sh.HopfieldMemory.load(path, mmap=mmap, verify=verify)

    @rule()
    def add_in_vain(self):
        """A failure leaves the memory as it is, also the room behind it."""
        if self.dtype == np.uint8:
            return
        patterns = draw(self.rng, 3, self.d, self.dtype)
        patterns[1, 2] = np.inf
        values = None if self.of_values is None else draw(self.rng, 3, 3, self.of_values)
        with pytest.raises(ValueError, match=r"^patterns:.*row 1\b"):
            self.memory.add(patterns, values)

    @rule(beta=st.sampled_from([1e-3, 0.5, 30.0]))
    def change_beta(self, beta):
        self.memory.beta = beta

    @invariant()
    def answers_as_a_fresh_one(self):
        memory = self.memory
        assert len(memory) == len(self.patterns)
        assert memory.patterns.dtype == self.dtype or self.values is not None
        np.testing.assert_array_equal(memory.patterns, self.patterns)
        np.testing.assert_array_equal(memory.ids, self.ids)
        np.testing.assert_array_equal(memory.values, self.patterns if self.values is None else self.values)
        memory.verify()
        for of_queries in (np.float32, np.float64):
            queries = self.rng.normal(size=(3, self.d)).astype(of_queries)
            assert answers(memory, queries, top=4) == answers(fresh(memory), queries, top=4)

    def teardown(self):
        snapshots.SHARE = getattr(self, "share_before", snapshots.SHARE)
        shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)


TestStore = Store.TestCase
TestStore.settings = settings(stateful_step_count=12)


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", STORED, ids=lambda t: t.__name__)
def test_growth_across_tiles(dtype, similarity):
    """Chunks of norms have 256 rows, tiles 1,024."""
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(40, 20)).astype(np.float32)
    memory = sh.HopfieldMemory(draw(rng, 250, 20, dtype), 2.0, similarity=similarity)
    for n in (1, 4, 1, 1, 255, 511, 1, 1, 1024, 1, 300):
        memory.add(draw(rng, n, 20, dtype))
        for n_threads in (1, 3):
            with threads(n_threads):
                assert answers(memory, queries) == answers(fresh(memory), queries)
    memory.remove(slice(None, None, 3))
    assert answers(memory, queries) == answers(fresh(memory), queries)
    memory.separation = "softmax"
    assert answers(memory, queries, top=9) == answers(fresh(memory), queries, top=9)


def test_removing_is_what_numpy_does():
    patterns = draw(np.random.default_rng(0), 9, 3, np.float32)
    for positions in (
        0,
        -1,
        np.int64(3),
        np.uint64(3),
        [],
        (),
        [1, 1, -8],
        np.array([2, 5], np.uint8),
        np.array([8], np.uint64),
        slice(2, 5),
        slice(None, None, -2),
        slice(20, 30),
        np.arange(9) % 2 == 0,
        [False] * 9,
        range(3),
    ):
        memory = sh.HopfieldMemory(patterns)
        memory.remove(positions)
        left = np.delete(np.arange(9), positions, axis=0)
        np.testing.assert_array_equal(memory.patterns, patterns[left])
        np.testing.assert_array_equal(memory.ids, left)


# --- growth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_growing_row_by_row_copies_seldom(similarity):
    """2,000 rows one by one: a dozen buffers, and never more than a few allocations of the core."""
    rng = np.random.default_rng(2)
    memory = sh.HopfieldMemory(draw(rng, 1, 4, np.float32), similarity=similarity, ids=[7])
    buffers, most, fail = [], 0, hook("_fail_allocation")
    with threads(1):
        for _ in range(2000):
            fail(-1)
            memory.add(draw(rng, 1, 4, np.float32))
            most = max(most, fail(-1))
            buffer = memory._snapshot.patterns.buffer
            if not buffers or buffers[-1] is not buffer:
                buffers.append(buffer)
    assert len(buffers) <= 12
    assert most <= 8
    queries = draw(rng, 5, 4, np.float32)
    assert answers(memory, queries) == answers(fresh(memory), queries)


def test_what_was_seen_stays():
    """Arrays and results from before a change are not changed by it."""
    rng = np.random.default_rng(3)
    memory = sh.HopfieldMemory(draw(rng, 3, 4, np.float32), similarity="euclidean")
    memory.add(draw(rng, 1, 4, np.float32))
    queries = draw(rng, 5, 4, np.float32)
    seen = []
    for n in (1, 2, 1, 5, 30):
        snapshot, ids = memory._snapshot, memory.ids
        seen.append((snapshot, memory.patterns, ids, digest(memory.patterns, ids), memory.update(queries)))
        memory.add(draw(rng, n, 4, np.float32))
        if n == 2:
            memory.remove(0)
    for snapshot, patterns, ids, before, states in seen:
        assert digest(patterns, ids) == before
        call = Call.prepare(snapshot.pattern_set, queries, memory.beta, separation_code(memory.separation))
        assert same_bits(call.update(), states)
    for array in (memory.patterns, memory.values, memory.ids):
        assert not array.flags.writeable


def test_a_borrowed_array_is_left_alone():
    rng = np.random.default_rng(4)
    patterns, values = draw(rng, 5, 4, np.float32), draw(rng, 5, 2, np.float32)
    before = digest(patterns, values)
    memory = sh.HopfieldMemory(patterns, values=values)
    assert np.shares_memory(memory.patterns, patterns)
    memory.add(patterns[:2], values[:2])
    assert not np.shares_memory(memory.patterns, patterns)
    assert not np.shares_memory(memory.values, values)
    want = memory.update(patterns)
    patterns[:], values[:] = 0, 0  # they are their owner's again
    memory.verify()
    assert same_bits(memory.update(memory.patterns[:5]), want)
    patterns[:] = memory.patterns[:5]
    values[:] = memory.values[:5]
    assert digest(patterns, values) == before


def test_ids():
    memory = sh.HopfieldMemory(np.eye(3), ids=[5, -2, 9])
    np.testing.assert_array_equal(memory.add(np.eye(3)[:2]), [10, 11])
    np.testing.assert_array_equal(memory.add(np.eye(3)[:1], ids=[6]), [6])
    memory.remove([0, 3])
    np.testing.assert_array_equal(memory.ids, [-2, 9, 11, 6])
    memory.remove(np.isin(memory.ids, [11]))
    np.testing.assert_array_equal(memory.add(np.eye(3)), [10, 11, 12])  # those that follow the largest
    assert memory.ids.dtype == np.int64
    plain = sh.HopfieldMemory(np.eye(3))
    np.testing.assert_array_equal(plain.add(np.eye(3)), [3, 4, 5])
    np.testing.assert_array_equal(plain.add(np.eye(3)[:1], ids=np.array([2**63 - 1], np.uint64)), [2**63 - 1])
    with pytest.raises(OverflowError, match=r"^ids:.*give them"):
        plain.add(np.eye(3))
    assert len(plain) == 7


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("with_values", [False, True])
def test_adding_in_vain(with_values):
    patterns = draw(np.random.default_rng(5), 6, 4, np.float32)
    values = patterns[:, :2].copy() if with_values else None
    memory = sh.HopfieldMemory(patterns, values=values, similarity="cosine")
    memory.add(patterns, values)
    before, state = answers(memory, patterns), memory._snapshot
    nan, zero = patterns.copy(), patterns.copy()
    nan[4, 1] = np.nan
    zero[3] = 0
    for error, wrong, match in (
        (TypeError, patterns.astype(complex), r"^patterns:"),
        (TypeError, None, r"^patterns:"),
        (ValueError, patterns[0], r"^patterns:"),
        (ValueError, patterns[:0], r"^patterns:"),
        (ValueError, patterns[:, 1:], r"^patterns:.*4"),
        (ValueError, nan, r"^patterns:.*row 4\b"),
        (ValueError, zero, r"^patterns:.*row 3\b"),
        (ValueError, np.full((6, 4), 1e60), r"^patterns:.*row 0\b"),  # infinite in float32
    ):
        with pytest.raises(error, match=match):
            memory.add(wrong, values)
    with pytest.raises(ValueError, match=r"^values:"):
        memory.add(patterns, None if with_values else patterns)
    if with_values:
        nan[:, :2][4, 1] = np.nan
        for error, wrong, match in (
            (ValueError, values[:-1], r"^values:.*6"),
            (ValueError, patterns, r"^values:"),
            (ValueError, nan[:, :2], r"^values:.*row 4\b"),
            (TypeError, values.astype(str), r"^values:"),
        ):
            with pytest.raises(error, match=match):
                memory.add(patterns, wrong)
    for error, wrong in (
        (TypeError, [0.5] * 6),
        (TypeError, "abcdef"),
        (ValueError, [1, 2]),
        (ValueError, np.arange(6) + 100 * (np.arange(6) == 9)),  # taken already
        (ValueError, [20, 21, 22, 20, 24, 25]),
        (OverflowError, np.array([2**63] * 6, np.uint64) + np.arange(6, dtype=np.uint64)),
    ):
        with pytest.raises(error, match=r"^ids:"):
            memory.add(patterns, values, ids=wrong)
    assert memory._snapshot is state
    assert answers(memory, patterns) == before


def test_numbers_that_the_stored_dtype_cannot_hold():
    ones = np.ones((2, 3))
    single = sh.HopfieldMemory(ones.astype(np.float32))
    single.add(ones / 3)
    assert same_bits(single.patterns[2:], (ones / 3).astype(np.float32))
    single.add([[1, 2, 3]])
    single.add(ones.astype(np.float16))
    small = sh.HopfieldMemory(ones.astype(np.uint8), scale=0.5)
    small.add([[0, 255, 3]])
    small.add(ones.astype(bool))
    half = sh.HopfieldMemory(ones.astype(np.float16))
    half.add([[0, 2048, -3]])
    half.add(ones.astype(">f2"))
    for memory, wrong, error in (
        (small, ones.astype(np.float32), TypeError),
        (small, ones.astype(np.float16), TypeError),
        (small, [[0, 256, 0]], ValueError),
        (small, [[0, -1, 0]], ValueError),
        (half, ones, TypeError),
        (half, ones.astype(np.float32), TypeError),
        (half, [[0, 2049, 0]], ValueError),
        (half, [[0, 10**6, 0]], ValueError),
    ):
        before = answers(memory, ones)
        with pytest.raises(error, match=r"^patterns:"):
            memory.add(wrong)
        assert answers(memory, ones) == before
    assert len(small) == 5
    assert len(half) == 5


def test_removing_in_vain():
    memory = sh.HopfieldMemory(np.eye(4))
    state = memory._snapshot
    for error, wrong in (
        (IndexError, 4),
        (IndexError, -5),
        (IndexError, [0, 7]),
        (IndexError, np.array([200], np.uint8)),
        (IndexError, 2**63),
        (ValueError, slice(None)),
        (ValueError, [0, 1, 2, 3]),
        (ValueError, [True] * 4),
        (ValueError, [True] * 3),
        (ValueError, True),
        (ValueError, [[0], [1]]),
        (TypeError, 1.0),
        (TypeError, "0"),
        (TypeError, None),
    ):
        with pytest.raises(error, match=r"^positions:"):
            memory.remove(wrong)
    memory.remove([])
    assert memory._snapshot is state


def test_scales():
    ones = np.ones((2, 3), np.uint8)
    for wrong in (0, -1, np.nan, np.inf, 1e39, 1e-39, "x", [1.0, 2.0]):
        with pytest.raises((ValueError, TypeError), match=r"^scale:"):
            sh.HopfieldMemory(ones, scale=wrong)
    with pytest.raises(ValueError, match=r"^scale:.*float32"):
        sh.HopfieldMemory(ones.astype(np.float32), scale=2.0)
    with pytest.raises(ValueError, match=r"^patterns:.*row 0"):
        sh.HopfieldMemory(ones * 255, scale=3e38)
    memory = sh.HopfieldMemory(ones, scale=0.1)
    assert memory.scale == float(np.float32(0.1))
    assert memory.patterns.dtype == np.uint8
    assert sh.HopfieldMemory(ones.astype(float)).scale == 1
    with pytest.raises(AttributeError):
        memory.scale = 2.0
    parts = [memory.candidates(ones), sh.HopfieldMemory(ones, scale=0.2).candidates(ones, offset=2)]
    with pytest.raises(ValueError, match=r"^parts: differ in scale"):
        sh.merge(parts)


def test_values_are_looked_at_unless_told():
    patterns = draw(np.random.default_rng(6), 8, 3, np.float32)
    values = patterns.copy()
    values[5, 1] = np.nan
    with pytest.raises(ValueError, match=r"^values:.*row 5\b"):
        sh.HopfieldMemory(patterns, values=values)
    memory = sh.HopfieldMemory(patterns, 1e-6, values=values, check_finite=False)
    assert np.isnan(memory.update(patterns)[:, 1]).all()  # a tiny beta: all have weight
    assert np.isnan(sh.update(patterns, patterns, 1e-6, values=values, check_finite=False)[:, 1]).all()
    with pytest.raises(ValueError, match=r"^values:.*row 5\b"):
        memory.add(patterns, values)  # what comes later is looked at


# --- narrow patterns --------------------------------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("separation", ALL_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.uint8, None), pytest.param(np.uint8, 0.013, marks=pytest.mark.slow), (np.float16, 1.7)],
    ids=str,
)
def test_narrow_patterns_answer_as_the_numbers_they_stand_for(dtype, scale, similarity, separation):
    """Bit for bit for maps with a cutoff; the supports of 1,000 patterns are always small enough."""
    rng = np.random.default_rng(7)
    stored = draw(rng, 1000, 300, dtype)
    patterns, values = widened(stored, scale), draw(rng, 1000, 3, np.float16)
    queries = (patterns[:3] + patterns.std() * rng.normal(size=(3, 300))).astype(np.float32)
    options = {"similarity": similarity, "separation": separation}
    for of_queries in (np.float32, np.float64):
        asked = queries.astype(of_queries)
        for beta, mixed in ((0.001, {}), (0.3, {"values": values})):
            narrow = sh.HopfieldMemory(stored, beta, scale=scale, **options, **mixed)
            wide = sh.HopfieldMemory(patterns, beta, **options, **{k: widened(v) for k, v in mixed.items()})
            got, want = narrow.update(asked), wide.update(asked)
            assert got.dtype == want.dtype
            if separation in CUTOFF_MAPS:
                assert same_bits(got, want)
                assert same_bits(narrow.associate(asked), wide.associate(asked))
                assert same_bits(narrow.energy(asked), wide.energy(asked))
                part = narrow.candidates(asked)
                assert same_bits(part.states(narrow.values), got)
                with quiet():
                    assert same_bits(narrow.retrieve(asked, max_steps=4), wide.retrieve(asked, max_steps=4))
            else:  # scores of the compute type, summed in tiles of another shape
                rows = wide.values
                if similarity == "cosine" and not mixed:
                    rows = rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
                bounds = weight_bounds(asked, patterns, beta, similarity, separation, got.dtype)
                off = np.abs(got - want).max(axis=1)
                assert (off <= 2 * state_bounds(bounds, asked, rows, got.dtype)).all()


@pytest.mark.parametrize("dtype", NARROW, ids=lambda t: t.__name__)
def test_narrow_patterns_of_many_tiles(dtype):
    rng = np.random.default_rng(7)
    stored = draw(rng, 5000, 70, dtype)
    patterns = widened(stored, 0.3)
    queries = (patterns[::50] + patterns.std() * rng.normal(size=(100, 70))).astype(np.float32)
    for beta in (0.02, 1.0):
        narrow, wide = sh.HopfieldMemory(stored, beta, scale=0.3), sh.HopfieldMemory(patterns, beta)
        assert wide.associate(queries).nnz < 100 * 1024
        assert same_bits(narrow.update(queries), wide.update(queries))


@pytest.mark.slow
def test_every_half_is_widened_exactly():
    """All finite float16 numbers, and none of the others; with every instruction set."""
    code = """
import json
import numpy as np
import sparsehopfield as sh
numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
patterns = numbers[np.isfinite(numbers)].reshape(-1, 64)
n, equal = len(patterns), True
for scale in (1.0, 0.37, 3e-8, 1e30):
    memory = sh._core.memory(patterns, None, 0, 0, scale, True)
    wide = sh._core.memory(patterns, None, 0, 1, scale, True)
    for core, dtype in ((memory, np.float32), (wide, np.float64)):
        got = np.empty((n, 64), dtype)
        sh._core.mix(core, np.arange(n + 1), np.arange(n), np.ones(n), got)
        want = (patterns.astype(np.float32) * np.float32(scale)).astype(dtype)
        equal &= np.array_equal(got.view(np.uint8), want.view(np.uint8))
refused = 0
for number in numbers[~np.isfinite(numbers)]:
    try:
        sh.HopfieldMemory(np.array([[1, number]]))
    except ValueError:
        refused += 1
print(json.dumps([bool(equal), refused]))
"""
    for level in sh.show_config(mode="dict")["simd"]["available"]:
        assert run_python(code, SPARSEHOPFIELD_SIMD=level) == [True, 2 * 1024]


def test_narrow_values_stay_narrow():
    rng = np.random.default_rng(8)
    patterns, values = draw(rng, 40, 5, np.float16), draw(rng, 40, 2, np.float16)
    memory = sh.HopfieldMemory(patterns, values=values)
    assert memory.patterns.dtype == memory.values.dtype == np.float16
    assert memory.dtype == np.float32
    assert memory.nbytes == patterns.nbytes + values.nbytes
    assert np.shares_memory(memory.patterns, patterns)
    assert sh.HopfieldMemory(patterns.astype(">f2")).patterns.dtype == np.float16


# --- threads ----------------------------------------------------------------------------------------


@pytest.fixture
def switching():
    """Let threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_readers_see_the_old_state_or_the_new(similarity, switching):
    rng = np.random.default_rng(9)
    steps = [draw(rng, n, 8, np.float32) for n in (3, 1, 1, 5, 1, 20, 1, 100, 1, 1, 300, 2)]
    queries = draw(rng, 3, 8, np.float32)
    options = {"beta": 1e-3, "similarity": similarity}  # so small that every pattern counts

    start = draw(rng, 4, 8, np.float32)

    def changes(memory):
        """Make the same changes to any memory, one at a time."""
        for i, step in enumerate(steps):
            if i % 5 == 4:
                memory.remove(slice(1, None, 3))
                yield
            memory.add(step)
            yield

    alone = sh.HopfieldMemory(start, **options)
    states = [start, *(alone.patterns for _ in changes(alone))]
    known = {digest(sh.HopfieldMemory(s, **options).update(queries)): i for i, s in enumerate(states)}
    whole = {digest(s) for s in states}
    assert len(known) == len(states)

    def read(memory, done, seen):
        while not done.is_set():
            seen.append(known.get(digest(memory.update(queries))))
            if digest(memory.patterns) not in whole:
                seen.append(None)

    for _ in range(3):
        memory, done, seen = sh.HopfieldMemory(start, **options), threading.Event(), [[] for _ in range(3)]
        readers = [threading.Thread(target=read, args=(memory, done, own)) for own in seen]
        for reader in readers:
            reader.start()
        for _ in changes(memory):
            pass
        done.set()
        for reader in readers:
            reader.join()
        for own in seen:
            assert None not in own
            assert own == sorted(own)  # nobody goes back
        assert same_bits(memory.update(queries), alone.update(queries))


def test_adding_from_many_threads(switching):
    rng = np.random.default_rng(10)
    blocks = [draw(rng, 2, 6, np.float32) for _ in range(120)]
    memory = sh.HopfieldMemory(draw(rng, 2, 6, np.float32), values=np.zeros((2, 1), np.float32), similarity="euclidean")
    given = {}

    def work(mine):
        for i in mine:
            given[i] = memory.add(blocks[i], np.full((2, 1), i, np.float32))

    workers = [threading.Thread(target=work, args=(range(k, 120, 4),)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(memory) == 242
    for i, ids in given.items():
        at = np.flatnonzero(np.isin(memory.ids, ids))
        np.testing.assert_array_equal(memory.patterns[at], blocks[i])
        np.testing.assert_array_equal(memory.values[at], i)
    queries = draw(rng, 9, 6, np.float32)
    assert answers(memory, queries) == answers(fresh(memory), queries)


def test_copies_go_their_own_ways():
    rng = np.random.default_rng(11)
    memory = sh.HopfieldMemory(draw(rng, 3, 4, np.float32))
    memory.add(draw(rng, 2, 4, np.float32))
    others = [copy.copy(memory), copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))]
    want = memory.patterns.copy()
    for other in others:
        other.add(draw(rng, 2, 4, np.float32))
    memory.add(draw(rng, 1, 4, np.float32))
    for other in [memory, *others]:
        np.testing.assert_array_equal(other.patterns[:5], want)
        queries = draw(rng, 5, 4, np.float32)
        assert answers(other, queries) == answers(fresh(other), queries)
    assert len({digest(other.patterns) for other in [memory, *others]}) == 4


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
def test_two_memories_grown_from_one(similarity):
    """They share the norms of what they have in common; only one of them may write behind these."""
    rng = np.random.default_rng(4)
    common, one, other = (center + rng.random((count, 5)) for center, count in ((1, 12), (1, 4), (9, 4)))
    base = PatternSet(common[:10], None, similarity, copy=None, check_finite=True)
    base = base.with_rows(common, None, extends=True)  # with room for 20
    both = (np.vstack([common, more]) for more in (one, other))
    grown = [(base.with_rows(rows, None, extends=True), rows) for rows in both]
    for stored, rows in grown:
        queries = rows[12:] + 0.01
        got = Call.prepare(stored, queries, 50.0, separation_code("sparsemax")).update()
        np.testing.assert_array_equal(got, sh.update(queries, rows, 50.0, similarity=similarity))
