"""Copies and near-copies: exactly the pairs that all distances in float64 give, and no quadratic answer."""

import helpers
import numpy as np
import pytest
from helpers import FLOATS, SIMILARITIES, families, patterns_for

import sparsehopfield as sh


@pytest.fixture
def rng():
    return np.random.default_rng(23)


def rows_of(memory):
    """The rows between which distances are: as a step returns them."""
    return memory._snapshot.certificates.rows().astype(np.float64)


def every_pair(rows):
    """Positions i < j, and distances, without a matrix product."""
    i, j = np.triu_indices(len(rows), 1)
    with np.errstate(over="ignore"):
        return np.column_stack([i, j]), np.sqrt(((rows[i] - rows[j]) ** 2).sum(axis=1))


def check(memory, within):
    """The pairs are those of all distances; groups are what they link."""
    found = memory.duplicates(within)
    pairs, distance = every_pair(rows_of(memory))
    np.testing.assert_array_equal(found.pairs, pairs[distance <= within])
    np.testing.assert_allclose(found.distance, distance[distance <= within], rtol=1e-14)
    first = np.arange(len(memory))  # of the patterns that each is linked to
    before = None
    while not np.array_equal(first, before):
        before = first.copy()
        for one, two in (found.pairs.T, found.pairs.T[::-1]):
            np.minimum.at(first, one, first[two])
    want = [np.flatnonzero(first == k).tolist() for k in np.flatnonzero(np.bincount(first) > 1)]
    assert [group.tolist() for group in found.groups] == want
    assert (found.stored, found.within) == (len(memory), within)
    return found


def crowded(rng, m, d=6):
    """Clusters of different widths, copies in them, and some far away."""
    centres = rng.standard_normal((5, d))
    rows = centres[rng.integers(5, size=m)] + rng.choice([1e-7, 1e-3, 0.1, 1.0], (m, 1)) * rng.standard_normal((m, d))
    rows[rng.integers(m, size=m // 5)] = rows[rng.integers(m, size=m // 5)]
    return rows


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [*FLOATS, np.float16])
@pytest.mark.parametrize("m", [2, 3, 63, 64, 65, 257, 500])
def test_pairs_are_those_of_all_distances(m, dtype, similarity, rng):
    memory = sh.HopfieldMemory(crowded(rng, m).astype(dtype), similarity=similarity)
    _, distance = every_pair(rows_of(memory))
    for within in (0.0, 1e-6, *np.quantile(distance, [0.02, 0.3], method="lower")):  # exact ties among them
        found = check(memory, float(within))
    assert len(found.pairs) >= 1


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("scale", [None, 0.1])
def test_bytes(scale, similarity, rng):
    patterns = rng.integers(0, 4, size=(300, 5)).astype(np.uint8) + np.uint8(1)
    memory = sh.HopfieldMemory(patterns, similarity=similarity, scale=scale)
    assert len(check(memory, 0.0).pairs) > 20
    if similarity != "cosine" and scale is None:  # all distances are roots of whole numbers: many ties, none missed
        assert len(check(memory, 1.0).pairs) > 300
    else:
        check(memory, 0.07)


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("family", families())
def test_hostile_numbers(family, dtype, similarity):
    memory = sh.HopfieldMemory(patterns_for(similarity, families(dtype)[family][1]), similarity=similarity)
    rows = rows_of(memory)
    same = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows)) if (rows[i] == rows[j]).all()]
    assert memory.duplicates().pairs.tolist() == [list(pair) for pair in same]
    assert not memory.duplicates().distance.any()
    _, distance = every_pair(rows)
    for within in np.quantile(distance, [0.1, 0.5], method="lower") if len(distance) else []:
        if within > 1e-150:  # below, the squares of this test underflow
            check(memory, float(within))
    assert len(memory.duplicates(1e300).pairs) == len(distance)


@pytest.mark.parametrize("path", ["scan", "lines", "columns"])
def test_every_path_finds_the_same(path, rng):
    memory = sh.HopfieldMemory(crowded(rng, 700, 24).astype(np.float32), similarity="euclidean")
    with helpers.path(path):
        assert len(check(memory, 0.5).pairs) > 100


@pytest.mark.slow
def test_more_neighbours_than_are_listed(rng):
    cluster = 100 + 1e-3 * rng.standard_normal((1300, 4))  # and scores that float32 cannot tell apart
    memory = sh.HopfieldMemory(np.concatenate([rng.standard_normal((50, 4)), cluster]).astype(np.float32))
    _, distance = every_pair(rows_of(memory))
    assert len(check(memory, float(np.quantile(distance, 0.85))).groups) == 1


def test_values_and_separation_do_not_matter(rng):
    patterns = crowded(rng, 100)
    plain = sh.HopfieldMemory(patterns).duplicates(0.1)
    mixed = sh.HopfieldMemory(patterns, values=rng.standard_normal((100, 1)), separation="softmax", beta=np.ones(7))
    np.testing.assert_array_equal(mixed.duplicates(0.1).pairs, plain.pairs)
    assert len(plain.pairs) > 10


def test_without_memory(rng):
    memory = sh.HopfieldMemory(crowded(rng, 100), similarity="euclidean")
    assert len(memory.duplicates(0.1).pairs) > 10
    assert helpers.fails_without_memory(lambda: memory.duplicates(0.1))


def test_copies_of_both_zeros():
    memory = sh.HopfieldMemory(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0 + 1e-15]]))
    np.testing.assert_array_equal(memory.duplicates().pairs, [[0, 1]])
    np.testing.assert_array_equal(memory.duplicates(2e-15).pairs, [[0, 1], [0, 2], [1, 2]])


def test_cosine_looks_at_directions():
    memory = sh.HopfieldMemory(np.array([[1.0, 0.0], [4.0, 0.0], [0.0, 3.0]]), similarity="cosine")
    np.testing.assert_array_equal(memory.duplicates().pairs, [[0, 1]])
    np.testing.assert_allclose(memory.duplicates(1.5).distance, [0, 2**0.5, 2**0.5])
    assert len(sh.HopfieldMemory(memory.patterns).duplicates().pairs) == 0


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_one_pattern_has_no_copy(similarity):
    found = sh.HopfieldMemory(np.ones((1, 3)), similarity=similarity).duplicates(5.0)
    assert (found.pairs.shape, found.distance.shape, found.groups) == ((0, 2), (0,), [])
    assert str(found) == "of 1 patterns none are within 5 of each other"


def test_names_of_pairs(rng):
    patterns = rng.standard_normal((6, 3))
    patterns[4] = patterns[1]
    memory = sh.HopfieldMemory(patterns, ids=[10, 11, 12, 13, 14, 15])
    found = memory.duplicates()
    np.testing.assert_array_equal(found.ids, [[11, 14]])
    assert str(found).splitlines()[-2:] == ["pattern  and  id  and  distance", "      1    4  11   14         0"]
    assert "1 pair of patterns that are exact copies: 2 of 6 patterns, in 1 group of at most 2" in str(found)
    assert sh.HopfieldMemory(patterns).duplicates().ids is None
    memory.add(patterns[:1])
    np.testing.assert_array_equal(memory.duplicates().ids, [[10, 16], [11, 14]])


def test_printed_pairs_are_the_nearest(rng):
    memory = sh.HopfieldMemory(rng.standard_normal((40, 2)))
    found = memory.duplicates(1.0)
    text = str(found).splitlines()
    assert [float(line.split()[-1]) for line in text[3:8]] == pytest.approx(np.sort(found.distance)[:5], rel=1e-3)
    assert text[-1] == f"and {len(found.pairs) - 5} more"


@pytest.mark.parametrize("within", [0.0, 0.5])
def test_no_quadratic_answer(within):
    memory = sh.HopfieldMemory(np.ones((20_000, 4), np.float32))
    with pytest.raises(ValueError, match=r"^within: more than 1000000 pairs .* smaller distance, .* most="):
        memory.duplicates(within)


def test_as_many_as_are_allowed(rng):
    memory = sh.HopfieldMemory(rng.standard_normal((300, 3)))
    count = len(memory.duplicates(0.5).pairs)
    assert count > 100
    assert len(memory.duplicates(0.5, most=count).pairs) == count
    with pytest.raises(ValueError, match=rf"^within: more than {count - 1} pairs of patterns lie within 0\.5"):
        memory.duplicates(0.5, most=count - 1)
    same = sh.HopfieldMemory(np.ones((10, 2)))
    assert len(same.duplicates(most=45).pairs) == 45
    with pytest.raises(ValueError, match=r"^within: more than 44 pairs"):
        same.duplicates(most=44)


def test_wrong_arguments():
    memory = sh.HopfieldMemory(np.eye(3))
    for within in (-1.0, np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"^within: must be a finite number of at least 0"):
            memory.duplicates(within)
    with pytest.raises(TypeError, match=r"^within: must be a number"):
        memory.duplicates([1.0, 2.0])
    with pytest.raises(ValueError, match=r"^most: must be at least 1"):
        memory.duplicates(most=0)
    with pytest.raises(TypeError, match=r"^most: must be a whole number"):
        memory.duplicates(most=1.5)
