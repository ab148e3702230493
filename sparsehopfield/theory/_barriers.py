"""Stationary states of the sparse energy, all of them, and the exact barriers between its minima.

Where sparsemax has support S the update is affine, and a state x = sum p_i xi_i is stationary iff the weights are
p = sparsemax(beta s(x)): on S the numbers (Q p)_i + b_i are equal, Q = G - 1/beta with the Gram matrix G of the
patterns and b the bias of their scores (0 for dot similarity), and elsewhere (G p)_i + b_i is at most as large. These
are the Karush-Kuhn-Tucker conditions of the standard quadratic programme, p'Qp/2 + b'p to be made largest on the
simplex; a support names at most one such state, unless it is degenerate. There the Hessian of the energy is 1 - A,
A = beta sum over S of the centred patterns' outer products, and the index, the number of directions in which the
energy falls, is the number of eigenvalues of A above 1.

A grows with its support: a support has at least the index of every part of it. So the supports of states of bounded
index are found one pattern at a time, and none is missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from sparsehopfield._engine.call import still_moving
from sparsehopfield._engine.checks import as_whole, ignoring_float_errors
from sparsehopfield.functional import associate, energy, retrieve
from sparsehopfield.theory._patterns import Floats, ScoredPatterns, as_single_beta, prepare_patterns, row_blocks

#: Relative, within which equality decides nothing.
DEGENERATE = 1e-10
#: On the way down from a saddle.
MOST_UPDATES = 20_000


@dataclass(frozen=True)
class StationaryStates:
    """Stationary states of the sparse energy, by ascending energy.

    Attributes
    ----------
    states : ndarray, shape (n, d)
        One row a state.
    weights : ndarray, shape (n, M)
        Those of the patterns: `states` is their product with these.
    energies : ndarray, shape (n,)
        The energy of each state, ascending.
    indices : ndarray of int, shape (n,)
        In how many directions the energy falls: 0 for minima, 1 for saddles between two basins.

    See Also
    --------
    stationary_states : Find them.
    energy_barriers : Compute how high the ridges between the minima are.

    Examples
    --------
    >>> found = stationary_states([[1.0], [-1.0]], beta=2.0)
    >>> found.energies, found.indices
    (array([-0.5  , -0.5  , -0.125]), array([0, 0, 1]))
    >>> found.weights[2]  # the saddle mixes both patterns
    array([0.5, 0.5])
    """

    states: Floats
    weights: Floats
    energies: Floats
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.energies)

    def of_index(self, index: int) -> StationaryStates:
        """Return the states of one index.

        Parameters
        ----------
        index : int, at least 0
            In how many directions the energy falls there: 0 for minima, 1 for saddles between two basins.

        Returns
        -------
        StationaryStates
            Those states, by ascending energy; none if there are none.

        See Also
        --------
        stationary_states : Find the states, only those up to an index if `max_index` says so.

        Examples
        --------
        >>> found = stationary_states([[1.0], [-1.0]], beta=2.0)
        >>> found.of_index(0).states.tolist(), found.of_index(1).states.tolist()
        ([[1.0], [-1.0]], [[0.0]])
        """
        chosen = self.indices == index
        return StationaryStates(self.states[chosen], self.weights[chosen], self.energies[chosen], self.indices[chosen])


@dataclass(frozen=True)
class EnergyBarriers:
    """The minima of the sparse energy, and how high one must climb from one to another.

    Attributes
    ----------
    minima : StationaryStates
        Where retrieval rests.
    saddles : StationaryStates
        Of index 1: the lowest points of ridges between basins.
    sides : ndarray of int, shape (saddles, 2)
        The minima that each saddle leads down to; both may be the same.
    levels : ndarray, shape (minima, minima)
        The least height of a path from one minimum to another: of its highest point. On the diagonal their energies.

    See Also
    --------
    energy_barriers : Compute them.
    stationary_states : Find the stationary states of any index.

    Examples
    --------
    >>> found = energy_barriers([[2.0], [-1.0]], beta=2.0)
    >>> found.levels  # from either minimum to the other one climbs to the one saddle
    array([[-2.      , -0.109375],
           [-0.109375, -0.5     ]])
    >>> found.escapes
    array([1.890625, 0.390625])
    """

    minima: StationaryStates
    saddles: StationaryStates
    sides: NDArray[np.int64]
    levels: Floats

    @property
    def escapes(self) -> Floats:
        """Return how far the energy must rise on the way from each minimum to any other, (minima,); inf from the only
        one.
        """
        others = np.where(np.eye(len(self.levels), dtype=bool), np.inf, self.levels)
        return np.asarray(others.min(axis=1, initial=np.inf) - self.minima.energies)


def stationary_states(
    patterns: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    similarity: str = "dot",
    max_index: int | None = None,
    max_supports: int = 1_000_000,
) -> StationaryStates:
    """Find all stationary states of the sparse energy, or all up to an index.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is: <x, xi>; -|x - xi|^2/2; <x, xi/|xi|>, where the unit rows take the patterns' place.
    max_index : int, at least 0, optional
        Only states with at most so many directions of descent: 0 the minima, 1 also the saddles between their basins.
        By default all. The smaller, the less work.
    max_supports : int, at least 1
        How many supports to look at before giving up.

    Returns
    -------
    StationaryStates
        The states that were found.

    Raises
    ------
    ValueError
        Naming `max_supports`, if there are more: without a bound on the index all 2^M are looked at. With the bound 1
        all pairs and triples are, M (M - 1) (M - 2) / 6 (up to 182 patterns by default), and of larger ones those whose
        parts can share a state of that index, which are few where beta is large. Naming `beta`, where a state
        is degenerate (the Hessian has an eigenvalue 0, or a pattern is about to get weight), so that it has no index.
    TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    energy_barriers : Compute how high the ridges between the minima are.
    sparsehopfield.energy : Compute the energy that is stationary at these states.
    sparsehopfield.retrieve : Go down from a query to one of the minima.

    Notes
    -----
    Not in the paper. The module's text has the proof that none is missed.

    References
    ----------
    Bomze, "On standard quadratic optimization problems", Journal of Global Optimization 13, 1998, for the programme
    whose solutions the states are.

    Examples
    --------
    >>> found = stationary_states([[1.0], [-1.0]], beta=2.0)
    >>> found.states.ravel().tolist(), found.indices.tolist()
    ([1.0, -1.0, 0.0], [0, 0, 1])
    """
    scored, b = prepare_patterns(patterns, similarity), as_single_beta(beta)
    most = None if max_index is None else as_whole("max_index", max_index, 0)
    return _found(scored, similarity, b, most, as_whole("max_supports", max_supports, 1))


def energy_barriers(
    patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot", max_supports: int = 1_000_000
) -> EnergyBarriers:
    """Compute the barriers between all minima of the sparse energy, exactly.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is: <x, xi>; -|x - xi|^2/2; <x, xi/|xi|>, where the unit rows take the patterns' place.
    max_supports : int, at least 1
        How many supports to look at before giving up.

    Returns
    -------
    EnergyBarriers
        The barriers that were found.

    Raises
    ------
    ValueError, TypeError, OverflowError
        As `stationary_states`.

    See Also
    --------
    stationary_states : Find the stationary states of any index.
    sparsehopfield.retrieve : Go down from a query to one of the minima.

    Notes
    -----
    Not in the paper. The lowest path between two minima has its highest point at a saddle of index 1, since the energy
    grows without bound in all directions (for euclidean similarity, too). So all paths are known by the saddles and by
    where one comes down from each of them. Retrieval goes down there: on the whole segment from x to T(x) the energy is
    at most that at x, as it lies below a parabola that is least at T(x). Minima are joined in order of the saddles'
    energies, as by Kruskal's minimum spanning tree.

    References
    ----------
    Becker and Karplus, "The topology of multidimensional potential energy surfaces", Journal of Chemical Physics 106,
    1997, for trees of minima and barriers.

    Examples
    --------
    >>> found = energy_barriers([[1.0], [-1.0]], beta=2.0)
    >>> found.escapes.tolist()  # from -1/2 at either pattern to -1/8 at 0
    [0.375, 0.375]
    """
    scored, b = prepare_patterns(patterns, similarity), as_single_beta(beta)
    found = _found(scored, similarity, b, 1, as_whole("max_supports", max_supports, 1))
    minima, saddles = found.of_index(0), found.of_index(1)
    sides = _descended(scored, similarity, b, saddles, found)
    levels = np.full((len(minima), len(minima)), np.inf)
    np.fill_diagonal(levels, minima.energies)
    group = np.arange(len(minima))
    for (one, other), height in zip(sides, saddles.energies, strict=True):
        here, there = group == group[one], group == group[other]
        if group[one] != group[other]:
            levels[np.ix_(here, there)] = levels[np.ix_(there, here)] = height
            group[there] = group[one]
    return EnergyBarriers(minima, saddles, sides, levels)


@ignoring_float_errors()
def _found(scored: ScoredPatterns, similarity: str, beta: float, most: int | None, limit: int) -> StationaryStates:
    """Find the stationary states of at most this index; None: of any."""
    rows = scored.rows
    gram = rows @ rows.T
    if not np.isfinite(beta * gram).all():
        raise OverflowError("beta: scores times beta exceed the largest float64; scale the patterns down")
    if 1 / beta == np.inf:
        raise OverflowError(f"beta: {beta:g} is so small that 1 / beta exceeds the largest float64")
    weights, indices = [np.zeros((0, len(rows)))], [np.zeros(0, np.int64)]
    for supports, index, is_flat in _supports(gram, beta, most, limit):
        for support in supports[is_flat]:
            _refuse_flat(scored, gram, beta, support)
        supports, index = supports[~is_flat], index[~is_flat]
        for block in row_blocks(len(supports), max(len(rows), (supports.shape[1] + 1) ** 2)):
            some, is_state = _weights(scored, gram, beta, supports[block])
            weights.append(some[is_state])
            indices.append(index[block][is_state])
    p, index = np.concatenate(weights), np.concatenate(indices)
    states = p @ rows
    energies = energy(states, rows, beta, similarity=_of_rows(similarity)) if len(states) else np.zeros(0)
    order = np.argsort(energies, kind="stable")
    return StationaryStates(states[order], p[order], energies[order], index[order])


def _of_rows(similarity: str) -> str:
    """Return the similarity of prepared rows: those of cosine have length 1 already."""
    return "dot" if similarity == "cosine" else similarity


def _supports(
    gram: Floats, beta: float, most: int | None, limit: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
    """Yield supports of 1, 2, ... patterns, (n, k), of index at most `most`, their indices, and which are flat."""
    m = len(gram)
    supports, index, is_flat = np.arange(m)[:, None], np.zeros(m, np.int64), np.zeros(m, bool)
    examined = m
    while len(supports):
        following = m - 1 - supports[:, -1]  # patterns after the last one of each
        examined += int(following.sum())
        if examined > limit:  # before anything is computed of these
            raise ValueError(
                f"max_supports: more than {limit} sets of patterns are to be looked at, {examined} with up to "
                f"{supports.shape[1] + 1} patterns; raise it, bound the index, or store fewer patterns"
            )
        yield supports, index, is_flat
        grown = np.repeat(supports, following, axis=0)
        rank = np.arange(len(grown)) - np.repeat(np.cumsum(following) - following, following)
        supports = np.concatenate([grown, (grown[:, -1] + 1 + rank)[:, None]], axis=1)
        index, is_flat = _indices(gram, beta, supports)
        if most is not None:
            kept = index <= most
            supports, index, is_flat = supports[kept], index[kept], is_flat[kept]


def _indices(gram: Floats, beta: float, supports: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the number of eigenvalues of A above 1 for supports (n, k), and whether one is 1, so that it is flat."""
    index, is_flat = np.empty(len(supports), np.int64), np.empty(len(supports), bool)
    for block in row_blocks(len(supports), supports.shape[1] ** 2):
        part = gram[supports[block, :, None], supports[block, None, :]]
        mean = part.mean(axis=1, keepdims=True)
        values = beta * _eigenvalues(part - mean - mean.swapaxes(1, 2) + mean.mean(axis=2, keepdims=True))
        is_one = np.abs(values - 1) <= DEGENERATE
        index[block], is_flat[block] = ((values > 1) & ~is_one).sum(axis=1), is_one.any(axis=1)
    return index, is_flat


def _refuse_flat(scored: ScoredPatterns, gram: Floats, beta: float, support: NDArray[np.int64]) -> None:
    """Raise if a support on which the energy is flat in some direction holds a stationary state."""
    k, bias = len(support), -scored.offset_weight / 2 * scored.squares
    others = np.setdiff1d(np.arange(len(gram)), support)
    of_support = np.concatenate([gram[np.ix_(support, support)] - np.eye(k) / beta, -np.ones((k, 1))], axis=1)
    beyond = np.concatenate([gram[np.ix_(others, support)], -np.ones((len(others), 1))], axis=1)
    found = linprog(  # in the weights and the threshold
        np.zeros(k + 1),
        A_eq=np.concatenate([of_support, [[1.0] * k + [0.0]]]),
        b_eq=np.append(-bias[support], 1.0),
        A_ub=beyond if len(others) else None,
        b_ub=-bias[others] if len(others) else None,
        bounds=[(0, None)] * k + [(None, None)],
    )
    if found.status == 0:
        raise ValueError(
            f"beta: at {beta:g} the energy is flat along a line in which patterns {_named(support)} share the weight; "
            "take another one"
        )


def _eigenvalues(centred: Floats) -> Floats:
    """Return the eigenvalues of centred Gram matrices (n, k, k), of which up to two patterns have one and three two."""
    if centred.shape[1] > 3:
        return np.asarray(np.linalg.eigvalsh(centred))
    trace, square = np.trace(centred, axis1=1, axis2=2), (centred**2).sum(axis=(1, 2))
    apart = np.sqrt(np.maximum(2 * square - trace**2, 0))  # two numbers by their sum and that of their squares
    return np.stack([trace - apart, trace + apart], axis=1) / 2


def _weights(
    scored: ScoredPatterns, gram: Floats, beta: float, supports: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the weights (n, M) that are stationary on supports (n, k), and whether they are so among all patterns."""
    n, k = supports.shape
    bias = -scored.offset_weight / 2 * scored.squares
    weights = np.zeros((n, len(gram)))
    if not n:
        return weights, np.zeros(0, bool)
    system = np.zeros((n, k + 1, k + 1))
    system[:, :k, :k] = gram[supports[:, :, None], supports[:, None, :]] - np.eye(k) / beta
    system[:, :k, k], system[:, k, :k] = -1.0, 1.0
    right = np.concatenate([-bias[supports], np.ones((n, 1))], axis=1)
    p = np.linalg.solve(system, right[:, :, None])[:, :k, 0]
    np.put_along_axis(weights, supports, p, axis=1)
    scores = weights @ gram + bias
    threshold = (np.take_along_axis(scores, supports, axis=1) - p / beta).mean(axis=1)
    slack = beta * (threshold[:, None] - scores)  # of patterns without weight
    np.put_along_axis(slack, supports, p, axis=1)
    least = slack.min(axis=1)
    edge = max(DEGENERATE, 64 * np.finfo(np.float64).eps * beta * float(np.abs(scores).max()))
    bad = np.abs(least) <= edge
    if bad.any():
        raise ValueError(
            f"beta: at {beta:g} a stationary state of patterns {_named(supports[bad.argmax()])} is where another one "
            "gets or loses weight, and has no index; take another one"
        )
    return weights, least > 0


def _named(support: NDArray[np.int64]) -> str:
    """Write which patterns a support holds, the first few of them."""
    some = ", ".join(str(i) for i in support[:6])
    return some + ", ..." * (len(support) > 6)


def _descended(
    scored: ScoredPatterns, similarity: str, beta: float, saddles: StationaryStates, found: StationaryStates
) -> NDArray[np.int64]:
    """Return the minima, (saddles, 2), that one comes to from each saddle along the direction in which it falls."""
    rows, similarity = scored.rows, _of_rows(similarity)
    ways = np.empty_like(saddles.states)
    for way, weights in zip(ways, saddles.weights, strict=True):
        part = rows[weights > 0]
        centred = part - part.mean(axis=0)
        *_, direction = np.linalg.svd(centred, full_matrices=False)
        way[:] = direction[0] * np.linalg.norm(centred, axis=1).max()
    signs = np.array([1.0, -1.0])[:, None]
    is_far = np.ones(len(saddles), bool)
    while is_far.any():  # where the same patterns have weight as at the saddle, the energy falls from there
        ways[is_far] /= 2
        starts = saddles.states[:, None] + signs * ways[:, None]
        there = associate(starts, rows, beta, similarity=similarity).toarray().reshape(len(saddles), 2, -1) > 0
        is_far = (there != (saddles.weights > 0)[:, None]).any(axis=(1, 2))
    x = starts.reshape(-1, rows.shape[1]) if len(saddles) else np.zeros((0, rows.shape[1]))
    with still_moving():  # what still moves is near enough to tell where it goes
        x = retrieve(x, rows, beta, similarity=similarity, max_steps=MOST_UPDATES)
    minima = np.flatnonzero(found.indices == 0)
    nearest = cdist(x, found.states).argmin(axis=1)
    if not np.isin(nearest, minima).all():
        raise ValueError("patterns: a way down from a saddle ends at another one; move a pattern a little")
    return np.searchsorted(minima, nearest).reshape(-1, 2)
