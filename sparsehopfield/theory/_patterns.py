"""Patterns, queries and their scores, as every part of `sparsehopfield.theory` computes with them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine.checks import Array, as_beta, as_integers, as_patterns, as_queries, ignoring_float_errors
from sparsehopfield._engine.separations import similarity_code
from sparsehopfield.functional import sparsemax

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BLOCK_ROWS, BLOCK_ENTRIES = 1024, 2**22  # at most, of the scores computed at a time
SLACK = 1e-12  # relative, of conditions that hold with equality in exact arithmetic


class ScoredPatterns(NamedTuple):
    """Patterns under a similarity: the score of nu at x is <x, rows_nu> - offset_weight |rows_nu|^2 / 2."""

    rows: Floats  # (M, d); unit rows for cosine
    squares: Floats  # (M,), |rows|^2
    offset_weight: float  # 0 dot; 1 euclidean and cosine, where the bias is constant but for rounding

    @property
    @ignoring_float_errors()
    def distance_terms(self) -> Floats:
        """Return the terms h, (M,), that turn score differences into distances: |xi_mu - xi_nu|^2 / 2 is the score of
        mu less that of nu at xi_mu, plus h_nu - h_mu.
        """
        return (1 - self.offset_weight) / 2 * self.squares

    @ignoring_float_errors()
    def score_difference(self, x: Floats, mu: Array, nu: Array) -> Floats:
        """Return the score of mu less that of nu at x, from the difference of the two patterns: close ones lose no
        digits.
        """
        a, b = self.rows[mu], self.rows[nu]
        return ((x - self.offset_weight / 2 * (a + b)) * (a - b)).sum(axis=-1)


@ignoring_float_errors()
def finite_rows(name: str, rows: Array) -> tuple[Floats, Floats]:
    """Return rows in float64 and their squared lengths; raise unless both are finite."""
    rows = rows.astype(np.float64)
    squares = (rows**2).sum(axis=1)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(f"{name}: row {bad.argmax()} contains NaN or infinity; every entry must be finite")
    if squares.max(initial=0) > np.finfo(np.float64).max / 16:  # so that differences of scores are finite
        raise OverflowError(
            f"{name}: the squared length of row {squares.argmax()} nears the largest float64; scale the arrays down"
        )
    return rows, squares


@ignoring_float_errors()
def unit_rows(name: str, rows: Floats) -> Floats:
    """Return rows scaled to length 1, also where squares underflow; raise for one of length 0."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    if not largest.all():
        raise ValueError(f"{name}: row {largest.argmin()} has length 0, which has no cosine similarity")
    rows = rows / largest[:, None]
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@ignoring_float_errors()
def prepare_patterns(patterns: ArrayLike, similarity: str = "dot") -> ScoredPatterns:
    """Check patterns and return them as the scores of a similarity use them."""
    similarity_code(similarity)
    rows, squares = finite_rows("patterns", as_patterns("patterns", patterns))
    if similarity == "cosine":
        rows = unit_rows("patterns", rows)
        squares = (rows**2).sum(axis=1)
    return ScoredPatterns(rows, squares, 0.0 if similarity == "dot" else 1.0)


def prepare_queries(
    queries: ArrayLike, scored: ScoredPatterns, index: ArrayLike, beta: ArrayLike = 1.0
) -> tuple[Floats, Array, Floats, tuple[int, ...]]:
    """Check and return the queries (N, d), the pattern that each is to find (N,), its beta (N,), and the leading
    axes.
    """
    m, d = scored.rows.shape
    rows = as_queries(queries, d)
    leading = rows.shape[:-1]
    x, _ = finite_rows("queries", rows.reshape(-1, d))
    i = as_integers("index", index)
    if (outside := (i < -m) | (i >= m)).any():
        raise IndexError(f"index: {i[outside].flat[0]} is out of range for {m} patterns")
    try:
        mu = np.broadcast_to(i % m, leading).reshape(-1)
    except ValueError:
        raise ValueError(f"index: shape {i.shape} does not broadcast to the queries' leading axes {leading}") from None
    return x, mu, np.broadcast_to(as_beta(beta, leading), len(x)), leading


def as_single_beta(beta: ArrayLike) -> float:
    """Check and return one beta for all patterns."""
    return float(as_beta(beta, ())[0])


def row_blocks(n: int, m: int) -> Iterator[slice]:
    """Yield slices that divide n rows of m scores each into blocks of limited size."""
    step = max(1, min(BLOCK_ROWS, BLOCK_ENTRIES // m))
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


@ignoring_float_errors()
def best_rivals(scored: ScoredPatterns, x: Floats, mu: Array, cost: Callable[[slice, Floats], Floats]) -> Array:
    """Return for every x the pattern other than mu of least cost, or mu itself where all costs are infinite.

    `cost(block, differences)` takes a slice of the queries, and the score of mu less that of every pattern at each of
    them, (b, M), and returns costs of that shape. Rivals are found by a
    matrix product, which rounds; report their differences from `ScoredPatterns.score_difference`.
    """
    nu = mu.copy()
    for block in row_blocks(len(x), len(scored.rows)):
        scores = x[block] @ scored.rows.T - scored.offset_weight / 2 * scored.squares
        target = mu[block, None]
        costs = cost(block, np.take_along_axis(scores, target, axis=1) - scores)
        np.put_along_axis(costs, target, np.inf, axis=1)
        best = costs.argmin(axis=1)
        least = np.take_along_axis(costs, best[:, None], axis=1)[:, 0]
        nu[block] = np.where(least < np.inf, best, mu[block])
    return nu


@ignoring_float_errors()
def gaps(scored: ScoredPatterns, x: Floats, mu: Array) -> Floats:
    """Return the score of mu less the best other score, at every x."""
    nu = best_rivals(scored, x, mu, lambda block, differences: differences)
    return np.where(nu == mu, np.inf, scored.score_difference(x, mu, nu))


@ignoring_float_errors()
def reaches_threshold(gap: Array, beta: Array | float) -> Bools:
    """Return whether a gap is at least 1/beta, but for rounding."""
    return beta * gap >= 1 - SLACK


class Support(NamedTuple):
    """Supports of N queries, as arrays (N,): size kappa, largest score, and smallest score in the support."""

    size: Floats
    best: Floats
    last: Floats


@ignoring_float_errors()
def supports(scored: ScoredPatterns, x: Floats, beta: Floats) -> Support:
    """Compute the support of sparsemax at every query."""
    size, best, last = np.empty((3, len(x)))
    for block in row_blocks(len(x), len(scored.rows)):
        scores = x[block] @ scored.rows.T
        best[block] = scores.max(axis=1)
        inside = sparsemax(beta[block, None] * (scores - best[block, None])) > 0
        size[block] = np.count_nonzero(inside, axis=1)
        last[block] = np.where(inside, scores, np.inf).min(axis=1)
    return Support(size, best, last)


@ignoring_float_errors()
def farthest_distances(scored: ScoredPatterns, mu: Array) -> Floats:
    """Return the largest distance from pattern mu to another, for every mu."""
    distinct, inverse = np.unique(mu, return_inverse=True)
    rows, terms = scored.rows[distinct], scored.distance_terms
    nu = best_rivals(
        scored, rows, distinct, lambda block, differences: terms[distinct[block], None] - terms - differences
    )
    return np.linalg.norm(rows - scored.rows[nu], axis=1)[inverse]


def margins_at(scored: ScoredPatterns, mu: Array) -> Floats:
    """Return the margins of the patterns mu."""
    distinct, inverse = np.unique(mu, return_inverse=True)
    return gaps(scored, scored.rows[distinct], distinct)[inverse]
