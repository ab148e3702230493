"""Removing without copying: a memory with removed rows in its storage has the bits of one made anew of the others."""

import copy
import pickle
import sys
import threading

import numpy as np
import pytest
from helpers import digest, hook, path, quiet, same_bits

import sparsehopfield as sh
from sparsehopfield._engine import snapshot as snapshots
from sparsehopfield.structures import TopK, Window

PATHS = ["auto", "scan", "lines", "columns"]


@pytest.fixture
def never_packed(monkeypatch):
    """Let removed rows stay, however many they are."""
    monkeypatch.setattr(snapshots, "SHARE", 0)


def fresh(memory, **options):
    """A memory of the same patterns that was never anything else."""
    given = {"values": memory.values.copy(), "ids": memory.ids.copy(), "similarity": memory.similarity, **options}
    return sh.HopfieldMemory(memory.patterns.copy(), memory.beta, separation=memory.separation, **given)


def clustered(rng, n, d=16):
    """Rows in clusters, of which an index excludes many."""
    return (rng.integers(-3, 4, size=(n, d)) + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


def answers(memory, queries):
    """The bits of all that a memory can be asked, by one path."""
    found = []
    for separation in ("sparsemax", "entmax15", sh.Normmax(2.0)):
        memory.separation = separation
        with quiet():
            states, info = memory.retrieve(queries, max_steps=5, return_info=["weights", "energy"])
        part = memory.candidates(queries)
        found += [memory.update(queries), memory.associate(queries), memory.associate(queries, top=3), part.position]
        found += [states, info.steps, info.converged, info.support_size, info.weights, info.energy, part.score]
        memory.structure = TopK(min(4, len(memory)))
        found += [memory.update(queries), memory.associate(queries), memory.energy(queries)]
        memory.structure = None
    memory.separation = "sparsemax"
    certified = memory.certify(queries)
    found += [certified.index, certified.nearest, certified.gap, certified.lacks, memory.margin(), memory.ids]
    found += [memory.exact_radius(), memory.critical_beta(), memory.is_fixed_point()]
    return digest(*found)


def dense_answers(memory, queries):
    """The bits of what is answered by copies of the patterns that are left."""
    found = []
    for separation, beta in (("softmax", 0.1), (sh.Polynomial(2), 0.1), ("sparsemax", 1e-7)):
        memory.separation, memory.beta = separation, beta
        found += [memory.update(queries), memory.associate(queries, top=7)]
    memory.structure = Window(2, positions=np.arange(len(queries)))
    found.append(memory.update(queries))
    memory.structure, memory.beta, memory.separation = None, 1.0, "sparsemax"
    return digest(*found)


# --- any sequence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
def test_a_thousand_changes(similarity):
    """Ids and positions after every change, bits after some; patterns are copied together a few times only."""
    rng = np.random.default_rng(1)
    rows, mixed = clustered(rng, 1100), rng.normal(size=(1100, 3)).astype(np.float32)
    memory = sh.HopfieldMemory(rows, values=mixed, similarity=similarity)
    memory.build_index()
    ids, packed = np.arange(1100), 0
    for change in range(1000):
        if rng.random() < 0.5:
            n = int(rng.integers(1, 4))
            more, more_mixed = clustered(rng, n), rng.normal(size=(n, 3)).astype(np.float32)
            added = memory.add(more, more_mixed)
            np.testing.assert_array_equal(added, ids.max() + 1 + np.arange(n))
            rows, mixed, ids = np.vstack([rows, more]), np.vstack([mixed, more_mixed]), np.append(ids, added)
        else:
            gone = rng.integers(len(ids), size=rng.integers(1, 4))
            if change % 9 == 0:
                gone = np.array([0, len(ids) - 1])
            memory.remove(gone)
            rows, mixed, ids = (np.delete(a, gone, axis=0) for a in (rows, mixed, ids))
            packed += memory._snapshot.pattern_set.removed == 0
        assert memory.shape == rows.shape
        if change % 250 != 249:
            continue
        assert memory.nbytes == rows.nbytes + mixed.nbytes
        for given, want in ((memory.patterns, rows), (memory.values, mixed), (memory.ids, ids)):
            np.testing.assert_array_equal(given, want)
            assert not given.flags.writeable
        queries = rows[:: len(rows) // 9] + np.float32(0.1)
        with path(PATHS[change // 250]):
            assert answers(memory, queries) == answers(fresh(memory), queries)
    assert 1 <= packed <= 12
    assert dense_answers(memory, queries) == dense_answers(fresh(memory), queries)


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize(
    "gone",
    [0, -1, slice(1024, 2048), slice(500, 2600), slice(None, None, 2), slice(3, None)],
    ids=["first", "last", "tile", "tiles", "half", "almost all"],
)
def test_rows_that_are_gone(gone, dtype, never_packed):
    rng = np.random.default_rng(2)
    rows = (40 + 10 * clustered(rng, 2700)).astype(dtype)
    queries = rows[::211].astype(np.float32) + 1
    memory = sh.HopfieldMemory(rows, similarity="euclidean", separation="entmax15")
    memory.update(queries)
    storage = memory._snapshot.pattern_set.storage
    memory.remove(gone)
    other = fresh(memory, values=None)
    assert memory._snapshot.pattern_set.storage is storage
    for of_queries in (np.float32, np.float64):
        asked = queries.astype(of_queries)
        for chosen in ("scan", "lines"):
            with path(chosen):
                assert same_bits(memory.update(asked), other.update(asked))
                assert digest(memory.associate(asked)) == digest(other.associate(asked))
                assert same_bits(memory.energy(asked), other.energy(asked))
    assert same_bits(memory.margin(), other.margin())


@pytest.mark.parametrize("structure", [None, TopK(3)], ids=str)
def test_files_and_copies(structure, tmp_path):
    rng = np.random.default_rng(3)
    rows = clustered(rng, 300)
    memory = sh.HopfieldMemory(rows, values=rows[:, :2], similarity="euclidean", structure=structure)
    memory.remove([0, 7, 299])
    memory.save(tmp_path / "memory")
    queries = rows[:20]
    want = sh.HopfieldMemory(
        rows[1:7], values=rows[1:7, :2], similarity="euclidean", structure=structure, ids=np.arange(1, 7)
    )
    want.add(rows[8:299], rows[8:299, :2], ids=np.arange(8, 299))
    others = [sh.HopfieldMemory.load(tmp_path / "memory", mmap=mmap) for mmap in (False, True)]
    others += [copy.deepcopy(memory), pickle.loads(pickle.dumps(memory)), copy.copy(memory), memory]
    for other in others:
        np.testing.assert_array_equal(other.ids, want.ids)
        np.testing.assert_array_equal(other.patterns, want.patterns)
        np.testing.assert_array_equal(other.values, want.values)
        assert same_bits(other.update(queries), want.update(queries))
        np.testing.assert_array_equal(other.add(rows[:1], rows[:1, :2]), [299])


def test_a_mapped_memory_stays_mapped(tmp_path):
    rng = np.random.default_rng(4)
    rows = clustered(rng, 500)
    sh.HopfieldMemory(rows, values=rows[:, :3]).save(tmp_path / "memory")
    memory = sh.HopfieldMemory.load(tmp_path / "memory", mmap=True)
    stored = memory._snapshot.pattern_set
    memory.remove([0, 3])
    left = memory._snapshot.pattern_set
    assert left.storage is stored.storage
    assert left.value_storage is stored.value_storage
    other = sh.HopfieldMemory(np.delete(rows, [0, 3], 0), values=np.delete(rows, [0, 3], 0)[:, :3])
    assert same_bits(memory.update(rows), other.update(rows))


def test_a_borrowed_array_stays_borrowed():
    rows = np.eye(20, dtype=np.float32)
    memory = sh.HopfieldMemory(rows)
    memory.remove(1)
    memory.verify()
    rows[5, 0] = 2
    with pytest.raises(ValueError, match=r"^patterns: the array was changed"):
        memory.verify()


# --- ids, certificates, the index --------------------------------------------------------------------


def test_ids_follow_the_largest_that_is_left():
    for ids in (None, [4, 90, 3, 17, 60, 5, 6, 7, 8, 9]):
        memory = sh.HopfieldMemory(np.eye(10), ids=ids)
        want = np.arange(10) if ids is None else np.array(ids)
        for gone in (9, int(np.argmax(np.delete(want, 9)))):
            memory.remove(gone)
            want = np.delete(want, gone)
            added = memory.add(np.ones((2, 10)))
            np.testing.assert_array_equal(added, want.max() + np.arange(1, 3))
            want = np.append(want, added)
            np.testing.assert_array_equal(memory.ids, want)
        with pytest.raises(ValueError, match=r"^ids: \d+ is the id of another pattern"):
            memory.add(np.ones((1, 10)), ids=[want[3]])


def test_results_for_people():
    """What is computed from the patterns' numbers sees those that are left."""
    rng = np.random.default_rng(5)
    rows = np.vstack([clustered(rng, 60), clustered(rng, 1)])
    rows[30] = rows[20]
    memory = sh.HopfieldMemory(rows, values=rows[:, :2])
    memory.remove([2, 60])
    other = fresh(memory)
    found, want = memory.duplicates(), other.duplicates()
    np.testing.assert_array_equal(found.pairs, want.pairs)
    np.testing.assert_array_equal(found.ids, [[20, 30]])
    assert str(memory.explain(rows[5])) == str(other.explain(rows[5]))
    assert str(memory.report()) == str(other.report())
    assert memory.capacity() == other.capacity()


def test_the_longest_pattern_decides_no_more_what_rest_is():
    """`retrieve` stops at moves that are small beside the longest pattern."""
    rows = clustered(np.random.default_rng(6), 40)
    rows[:2] *= 1000
    memory = sh.HopfieldMemory(rows, similarity="euclidean", separation="entmax15", beta=0.05)
    queries = rows[2:] + np.float32(0.5)
    for gone in (1, 0):
        memory.remove(gone)
        with quiet():
            _, found = memory.retrieve(queries, tol=1e-4, return_info=True)
            _, want = fresh(memory).retrieve(queries, tol=1e-4, return_info=True)
        np.testing.assert_array_equal(found.steps, want.steps)


def test_scores_that_only_a_removed_pattern_could_exceed():
    rows = np.eye(10, dtype=np.float32)
    rows[3] *= 1e38
    memory = sh.HopfieldMemory(rows)
    with pytest.raises(OverflowError, match=r"^queries:"):
        memory.update(rows[1] * 10)
    memory.remove(3)
    np.testing.assert_array_equal(memory.update(rows[1] * 10), rows[1])


@pytest.mark.parametrize("index", ["auto", True])
def test_the_index_stays(index):
    rows = clustered(np.random.default_rng(7), 3000)
    memory = sh.HopfieldMemory(rows, similarity="euclidean", index=index)
    memory.build_index()
    size = memory.index_nbytes
    for gone in (5, [7, 100], slice(0, 200)):
        memory.remove(gone)
        assert memory.index_nbytes == size
    memory.add(rows[:50])
    assert same_bits(memory.update(rows[::20]), fresh(memory).update(rows[::20]))
    for left in (2500, 2180):  # they are copied together
        memory.remove(np.random.default_rng(9).permutation(len(memory))[left:])
        assert memory._snapshot.pattern_set.removed == 0
        assert 0 < memory.index_nbytes <= 1.05 * size  # with what was added
        assert same_bits(memory.update(rows[::20]), fresh(memory).update(rows[::20]))
    memory.remove(np.random.default_rng(9).permutation(2180)[1400:])  # its panels are half empty
    assert (memory.index_nbytes > 0) == (index is True)
    assert same_bits(memory.update(rows[::20]), fresh(memory).update(rows[::20]))


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
def test_an_index_is_saved_without_removed_patterns(tmp_path, similarity):
    rows = clustered(np.random.default_rng(7), 3000)

    def answer(memory):
        return memory.update(rows[::20])

    def scanned(memory):
        return answer(sh.HopfieldMemory(memory.patterns.copy(), 2.0, similarity=similarity, index=False))

    memory = sh.HopfieldMemory(rows, 2.0, similarity=similarity)
    memory.build_index()
    memory.add(rows[:200] + 1)
    memory.build_index()
    memory.remove(slice(0, 200))  # the first pattern, and more than panels of these alone
    memory.remove(slice(-150, None))
    memory.save(tmp_path / "memory")
    again = sh.HopfieldMemory.load(tmp_path / "memory", mmap=True, verify=True)
    assert 0 < again.index_nbytes <= memory.index_nbytes
    assert same_bits(again.ids, memory.ids)
    for name in ("auto", "lines", "scan"):
        with path(name):
            assert same_bits(answer(again), scanned(memory))
    again.add(rows[:40])
    again.remove([0, 7, 2000])
    again.save(tmp_path / "memory", index=True)
    for use in (None, False):
        last = sh.HopfieldMemory.load(tmp_path / "memory", index=use)
        assert (last.index_nbytes > 0) == (use is None)
        assert same_bits(answer(last), scanned(again))


# --- what fails, and who looks on ----------------------------------------------------------------------


def test_a_failure_leaves_the_memory_as_it_was():
    rows = clustered(np.random.default_rng(8), 200)
    memory = sh.HopfieldMemory(rows, values=rows, similarity="euclidean")
    memory.remove([3, 4])
    state, want = memory._snapshot, memory.update(rows)
    for error, wrong in ((IndexError, 198), (IndexError, [0, -199]), (ValueError, slice(None)), (TypeError, 0.0)):
        with pytest.raises(error, match=r"^positions:"):
            memory.remove(wrong)
    with pytest.raises(ValueError, match=r"^patterns:.*row 0\b"):
        memory.add([[np.inf] * 16], [[0.0] * 16])
    assert memory._snapshot is state
    assert same_bits(memory.update(rows), want)
    fail = hook("_fail_allocation")

    def without_memory(change, *arguments):
        fails = 0
        while True:
            fail(fails)
            try:
                change(*arguments)
            except MemoryError:
                fails += 1
                assert memory._snapshot is state
            else:
                fail(-1)
                return fails

    assert without_memory(memory.remove, 5) == 2  # bits and the memory itself
    memory.separation, state = "softmax", memory._snapshot
    assert without_memory(memory.update, rows[:3]) > 5  # the first time: a copy of what is left
    assert same_bits(memory.update(rows[:3]), fresh(memory).update(rows[:3]))


def test_readers_while_others_remove():
    """Every answer is that of a moment between two changes."""
    rows = 10 * np.eye(64, dtype=np.float32)
    memory = sh.HopfieldMemory(rows, beta=5.0)
    before, switch = [0], sys.getswitchinterval()
    wrong, done = [], threading.Event()

    def read():
        while not done.is_set():
            first = before[0]  # so many are certainly gone
            support = memory.associate(rows).sum(axis=1)
            certified = memory.certify(rows)
            last = before[0] + 1
            left = int((certified.gap > 50).sum())
            if not np.allclose(support, 1) or not 64 - last <= left <= 64 - first:
                wrong.append((first, left, last))

    readers = [threading.Thread(target=read) for _ in range(3)]
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        for _ in range(60):
            memory.remove(0)
            before[0] += 1
    finally:
        done.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(switch)
    assert not wrong
    np.testing.assert_array_equal(memory.ids, np.arange(60, 64))
