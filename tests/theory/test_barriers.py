"""Stationary states and barriers: against retrieval, finite differences, Morse's count and a flooded grid."""

import numpy as np
import pytest
from helpers import SIMILARITIES
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

import sparsehopfield as sh
from sparsehopfield import theory


def draw(seed):
    """Patterns of length at most 1, and a beta at which some of them are minima."""
    rng = np.random.default_rng(seed)
    m, d = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    patterns = rng.standard_normal((m, d))
    return patterns / np.linalg.norm(patterns, axis=1).max(), float(10 ** rng.uniform(-0.5, 1.5))


@given(st.integers(0, 2**32 - 1), st.sampled_from(SIMILARITIES))
def test_stationary_states(seed, similarity):
    patterns, beta = draw(seed)
    found = theory.stationary_states(patterns, beta, similarity=similarity)
    rows = patterns / np.linalg.norm(patterns, axis=1, keepdims=True) if similarity == "cosine" else patterns
    score = "euclidean" if similarity == "euclidean" else "dot"

    def gradient(x):
        return x - sh.update(x, rows, beta, similarity=score)

    np.testing.assert_allclose(gradient(found.states), 0, atol=1e-12)
    np.testing.assert_allclose(found.weights @ rows, found.states, atol=1e-14)
    np.testing.assert_allclose(
        sh.associate(found.states, rows, beta, similarity=score).toarray(), found.weights, atol=1e-9
    )
    assert found.energies == pytest.approx(sh.energy(found.states, rows, beta, similarity=score), abs=1e-14)
    # Morse: of a function that grows in all directions, the numbers of states by index alternate to 1
    assert ((-1) ** found.indices).sum() == 1
    for x, weights, index in zip(found.states, found.weights, found.indices, strict=True):
        part = rows[weights > 0]
        hessian = np.eye(len(x)) - beta * (part - part.mean(0)).T @ (part - part.mean(0))
        assert (np.linalg.eigvalsh(hessian) < 0).sum() == index
    # none is missed: whatever is retrieved is one of the minima, or on the way to it
    queries = np.random.default_rng(seed).standard_normal((30, patterns.shape[1]))
    ends = sh.retrieve(queries, rows, beta, similarity=score, max_steps=20_000)
    minima = found.of_index(0)
    assert np.linalg.norm(ends[:, None] - minima.states, axis=2).min(axis=1) == pytest.approx(0, abs=1e-6)
    for most in (0, 1):
        some = theory.stationary_states(patterns, beta, similarity=similarity, max_index=most)
        np.testing.assert_array_equal(some.states, found.states[found.indices <= most])


def flooded(memory, lattice, ends):
    """Return the height at which water on a lattice of the plane joins the points nearest to two states."""
    heights = memory.energy(lattice)
    n = heights.shape[0]
    number = np.arange(n * n).reshape(n, n)
    pairs = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1]), (number[1:, 1:], number[:-1, :-1])]
    one, other = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in range(2))
    flat = heights.ravel()
    lowest = flat.min() - 1
    cost = np.maximum(flat[one], flat[other]) - lowest
    tree = minimum_spanning_tree(coo_array((cost, (one, other)), shape=(n * n, n * n))).tocoo()
    order = np.argsort(tree.data)
    group = {}

    def root(i):
        while group.get(i, i) != i:
            group[i] = i = group.get(group[i], group[i])
        return i

    start, end = (int(((lattice - x) ** 2).sum(-1).argmin()) for x in ends)
    for i, j, height in zip(tree.row[order], tree.col[order], tree.data[order], strict=True):
        group[root(int(i))] = root(int(j))
        if root(start) == root(end):
            return height + lowest
    raise AssertionError("the lattice is not connected")


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_barriers_are_those_of_a_flooded_plane(similarity):
    patterns = np.array([[1.0, 0.1], [0.6, 0.8], [-0.7, 0.75], [-1.0, -0.2], [0.12, -0.97]])
    found = theory.energy_barriers(patterns, 5.0, similarity=similarity)
    assert len(found.minima) >= 4
    memory = sh.HopfieldMemory(patterns, 5.0, similarity=similarity)
    axis = np.linspace(-1.2, 1.2, 121)
    lattice = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    for one in range(len(found.minima)):
        for other in range(one):
            level = flooded(memory, lattice, found.minima.states[[one, other]])
            # the lattice misses the saddle itself, and what rises between two of its points
            assert -1e-3 < level - found.levels[one, other] < 4e-3


def test_barriers_in_closed_form():
    for beta in (1.5, 4.0, 100.0):
        found = theory.energy_barriers(np.eye(3), beta, similarity="dot")
        assert found.minima.energies == pytest.approx([-0.5] * 3)
        assert found.saddles.energies == pytest.approx([-0.25 - 1 / (4 * beta)] * 3)
        assert found.escapes == pytest.approx([0.25 - 1 / (4 * beta)] * 3)
        assert {tuple(sorted(pair)) for pair in found.sides.tolist()} == {(0, 1), (0, 2), (1, 2)}
    alone = theory.energy_barriers([[1.0, 2.0]], 3.0)
    assert alone.escapes.tolist() == [np.inf]
    assert alone.sides.shape == (0, 2)
    # patterns 0 and 1 alone would be flat at this beta, but pattern 2 has all weight wherever they could share it
    far = theory.stationary_states([[1.0, 0.0], [-1.0, 0.0], [0.0, 100.0]], 0.5)
    assert (far.states.tolist(), far.indices.tolist()) == ([[0.0, 100.0]], [0])
    copies = theory.energy_barriers([[1.0], [1.0], [-1.0]], 3.0)  # a pattern stored twice is one minimum
    assert sorted(copies.minima.states.ravel()) == pytest.approx([-1, 1])


#: At beta 1/2 states between the first two patterns are at rest wherever the other two have no weight.
FLAT = [[1.0], [-1.0], [2.5], [-2.5]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: theory.energy_barriers(FLAT, 0.5, similarity="euclidean"),
            ValueError,
            "beta: at 0.5 the energy is flat",
        ),
        (lambda: theory.stationary_states([[1.0], [0.0]], 1.0, max_index=0), ValueError, "beta: at 1 a stationary"),
        (lambda: theory.stationary_states(np.eye(12), 4.0, max_supports=99), ValueError, "max_supports: more than 99"),
        (lambda: theory.stationary_states(np.eye(3), 4.0, max_index=-1), ValueError, "max_index: must be at least 0"),
        (lambda: theory.energy_barriers(np.eye(2), 0.0), ValueError, "beta: must be positive"),
        (lambda: theory.energy_barriers(1e150 * np.eye(2), 1e100), OverflowError, "beta: scores times beta"),
        (lambda: theory.energy_barriers(np.eye(2), 5e-324), OverflowError, "beta: 4.94066e-324 is so small"),
        (lambda: theory.energy_barriers(np.eye(2), similarity="x"), ValueError, "similarity"),
    ],
)
def test_errors_of_barriers_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
