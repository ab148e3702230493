"""Conditions under which one step sends a query to a pattern, or near it."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine.checks import Array, as_number, ignoring_float_errors
from sparsehopfield._engine.separations import as_choice
from sparsehopfield.theory._errors import retrieval_error
from sparsehopfield.theory._margins import exact_radii, min_half_distance
from sparsehopfield.theory._patterns import (
    Bools,
    Floats,
    ScoredPatterns,
    gaps,
    margins_at,
    prepare_patterns,
    prepare_queries,
    reaches_threshold,
    supports,
)


def _holds_exactly(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Bools:
    """Check that the gap is at least 1/beta."""
    return reaches_threshold(gaps(scored, x, mu), beta)


def _within(scored: ScoredPatterns, x: Floats, mu: Array, radius: float) -> Bools:
    """Check that queries are within a radius of their pattern."""
    return np.linalg.norm(x - scored.rows[mu], axis=1) <= radius


def _lies_in_ball(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Bools:
    """Check that queries are within a radius that is at most the pattern's exact one."""
    return _within(scored, x, mu, radius) & (exact_radii(scored, mu, beta) >= radius)


def _meets_theorem_31(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Bools:
    """Check the condition of theorem 3.1."""
    support, n, root = supports(scored, x, beta), np.linalg.norm(x, axis=1), math.sqrt(x.shape[1])
    required_margin = m * n + 2 * m * radius - support.last - (radius - m - m * root) / (support.size * m * beta * root)
    return _within(scored, x, mu, radius) & (margins_at(scored, mu) >= required_margin)


def _meets_corollary_311(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Bools:
    """Check the condition of corollary 3.1.1."""
    dense, sparse = (retrieval_error(x, scored.rows, mu, beta, separation=s) for s in ("softmax", "sparsemax"))
    error = np.maximum(radius + dense - sparse, 0)
    required_margin = (np.log(2 * (len(scored.rows) - 1) * m) - np.log(error)) / beta + 2 * m * radius
    return _within(scored, x, mu, radius) & (margins_at(scored, mu) >= required_margin)


def _meets_equation_33(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Bools:
    """Check the condition (3.3), with alpha = 0."""
    return np.full(len(x), radius >= m * math.sqrt(x.shape[1]) + m)


CONDITIONS = {
    "exact": _holds_exactly,
    "ball": _lies_in_ball,
    "theorem 3.1": _meets_theorem_31,
    "corollary 3.1.1": _meets_corollary_311,
    "equation 3.3": _meets_equation_33,
}


def well_separated(
    queries: ArrayLike,
    patterns: ArrayLike,
    index: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    rule: str = "exact",
    radius: float | None = None,
) -> Any:
    """Check a condition under which T sends a query to a pattern, or to within R of it.

    Parameters
    ----------
    queries : array_like, shape (..., d)
    patterns : array_like, shape (M, d)
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    rule : {"exact", "ball", "theorem 3.1", "corollary 3.1.1", "equation 3.3"}
        See Notes.
    radius : float, at least 0, optional
        R of all rules but "exact"; `min_half_distance` by default, as in the paper.

    Returns
    -------
    ndarray of bool, shape (...)
        True for M = 1 and for patterns that are all zero: T(x) is that pattern for every x.

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    1. "exact": the gap at x is at least 1/beta. Then T(x) = xi_mu; for extreme points without copies, only then.
    2. "ball": |x - xi_mu| <= R <= `exact_radius`. Then T(x) = xi_mu.
    3. "theorem 3.1": |x - xi_mu| <= R and
       Delta_mu >= m n + 2mR - s_(kappa) - (R - m - m sqrt(d))/(kappa m beta sqrt(d)).
       **Holds** for R <= m, and then even T(x) = xi_mu. Proof: the condition gives a gap of at least
       m n - s_(kappa) + 1/(kappa beta), so mu has the top score; for kappa >= 2 the gap is at most
       s_(1) - s_(kappa) <= m n - s_(kappa), a contradiction; so kappa = 1. The simpler Delta_mu >= 1/beta + 2mR, which
       follows, suffices. **Infeasible** for both patterns of the closest pair: there Delta_mu <= 2mR. The text calls
       the condition necessary; it is not.
    4. "corollary 3.1.1": |x - xi_mu| <= R and Delta_mu >= ln(2 (M - 1) m/(R + delta))/beta + 2mR, delta the dense less
       the sparse error at x; False where R + delta <= 0. **Holds**, by the corrected (2.7): then |T(x) - xi_mu| <= R.
       Infeasible for the closest pair unless R + delta >= 2 (M - 1) m.
    5. "equation 3.3": R >= m sqrt(d) (1 + alpha beta n m kappa) + m, with alpha = 0, which is most in its favour.
       **Infeasible**: the right side is at least 2m, and R at most m.

    References
    ----------
    Hu et al. 2023, theorem 3.1, corollary 3.1.1, eq. (3.3).

    Examples
    --------
    >>> X = [[1.0, 0.0], [0.0, 1.0]]
    >>> [bool(well_separated([0.9, 0.1], X, 0, 5.0, rule=rule)) for rule in ("exact", "theorem 3.1")]
    [True, False]
    """
    condition = CONDITIONS[as_choice("rule", rule, CONDITIONS)]
    scored = prepare_patterns(patterns)
    x, mu, b, leading = prepare_queries(queries, scored, index, beta)
    m = math.sqrt(scored.squares.max())
    r = min_half_distance(scored.rows) if radius is None else as_number("radius", radius, least=0)
    if len(scored.rows) == 1 or m == 0:
        return np.ones(leading, np.bool_)[()]
    with ignoring_float_errors():  # an infinite requirement is met always or never
        return condition(scored, x, mu, b, m, r).reshape(leading)[()]
