"""Conditions under which one step sends a query to a pattern, or near it."""

import math
from collections.abc import Callable
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


def _asked_by_theorem_31(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Floats:
    """Compute the margin that theorem 3.1 asks for."""
    support, n, root = supports(scored, x, beta), np.linalg.norm(x, axis=1), math.sqrt(x.shape[1])
    return m * n + 2 * m * radius - support.last - (radius - m - m * root) / (support.size * m * beta * root)


def _asked_by_corollary_311(
    scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float
) -> Floats:
    """Compute the margin that corollary 3.1.1 asks for."""
    dense, sparse = (retrieval_error(x, scored.rows, mu, beta, separation=s) for s in ("softmax", "sparsemax"))
    error = np.maximum(radius + dense - sparse, 0)
    return (np.log(2 * (len(scored.rows) - 1) * m) - np.log(error)) / beta + 2 * m * radius


def _asked_for_exactness(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Floats:
    """Compute the margin with which the whole ball is sent to exactly the pattern."""
    return 1 / beta + 2 * m * radius


REQUIREMENTS = {
    "exact": _asked_for_exactness,
    "theorem 3.1": _asked_by_theorem_31,
    "corollary 3.1.1": _asked_by_corollary_311,
}


def _asks(rule: str) -> Callable[..., Bools]:
    """Return the condition that a query is near its pattern and the margin at least what a rule asks for."""

    def condition(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Bools:
        asked = REQUIREMENTS[rule](scored, x, mu, beta, m, radius)
        return _within(scored, x, mu, radius) & (margins_at(scored, mu) >= asked)

    return condition


def _meets_equation_33(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> Bools:
    """Check the condition (3.3), with alpha = 0."""
    return np.full(len(x), radius >= m * math.sqrt(x.shape[1]) + m)


CONDITIONS = {
    "exact": _holds_exactly,
    "ball": _lies_in_ball,
    "theorem 3.1": _asks("theorem 3.1"),
    "corollary 3.1.1": _asks("corollary 3.1.1"),
    "equation 3.3": _meets_equation_33,
}


def _evaluated(
    rule: Callable[..., Array],
    queries: ArrayLike,
    patterns: ArrayLike,
    index: ArrayLike,
    beta: ArrayLike,
    radius: float | None,
    *,
    trivial: bool | float,
) -> Any:
    """Evaluate a rule at checked queries; `trivial` for one pattern, and for patterns that are all zero."""
    scored = prepare_patterns(patterns)
    x, mu, b, leading = prepare_queries(queries, scored, index, beta)
    m = math.sqrt(scored.squares.max())
    r = min_half_distance(scored.rows) if radius is None else as_number("radius", radius, least=0)
    if len(scored.rows) == 1 or m == 0:
        return np.full(leading, trivial)[()]
    with ignoring_float_errors():  # what is asked may be infinite: it is met always or never
        return rule(scored, x, mu, b, m, r).reshape(leading)[()]


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
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    rule : {"exact", "ball", "theorem 3.1", "corollary 3.1.1", "equation 3.3"}
        Which condition is checked; the Notes state each.
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

    See Also
    --------
    required_margin : Compute the margin that a rule asks for.
    exact_radius : Compute the largest radius for which "ball" holds.
    margin_at : Compute the gap that "exact" compares with 1/beta.

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
    return _evaluated(condition, queries, patterns, index, beta, radius, trivial=True)


def required_margin(
    queries: ArrayLike,
    patterns: ArrayLike,
    index: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    rule: str = "exact",
    radius: float | None = None,
) -> Any:
    """Compute the margin that a condition of separation asks of a pattern, so that its queries are sent to it.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    rule : {"exact", "theorem 3.1", "corollary 3.1.1"}
        Which condition asks for the margin; the Notes state each.
    radius : float, at least 0, optional
        R; `min_half_distance` by default, as in the paper.

    Returns
    -------
    ndarray, shape (...)
        -inf for M = 1 and for patterns that are all zero, of which nothing is asked; inf where no margin suffices.

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    well_separated : Check whether the condition is met.
    margin : Compute the margins that patterns have.

    Notes
    -----
    1. "exact": 1/beta + 2mR. Not in the paper. With it T(x) = xi_mu for all x within R, as the gap at x is at least
       Delta_mu - 2m |x - xi_mu|. For R = 0, 1/beta, and for extreme points without copies no less will do.
    2. "theorem 3.1", the sparse one: m n + 2mR - s_(kappa) - (R - m - m sqrt(d))/(kappa m beta sqrt(d)).
    3. "corollary 3.1.1", which with delta = 0 is the dense one: ln(2 (M - 1) m/(R + delta))/beta + 2mR.

    Claim (observation 2 of section 3): for large M the dense condition explodes, and the sparse one saturates, to its
    first three terms. What is said of M **holds**: 2. is at most 2m (n + R) + (1 + 1/sqrt(d))/beta (Cauchy-Schwarz, and
    0 <= R), and 3. at least ln(2 (M - 1)/3)/beta + 2mR, as R <= m and delta <= 2m. The rest **fails**. The last term
    does not go: where the condition is met kappa is 1 (`well_separated`), and the term at least 1/beta. And 2. asks
    for less than 3. only where ln M is about beta (m n - s_(kappa)) or more: for (1, 0), (0, 1), x = (.8, .3) and
    beta = 1000 it is 1.470, and 3. is 1.415, or 1.429 if M in it were a million. 1. has no M, and error 0; that softmax
    does need more margin with more patterns is `dense_error_floor`.

    References
    ----------
    Hu et al. 2023, theorem 3.1, corollary 3.1.1, observation 2.

    Examples
    --------
    >>> X = [[1.0, 0.0], [0.0, 1.0]]
    >>> for rule in ("exact", "theorem 3.1", "corollary 3.1.1"):
    ...     print(f"{required_margin([0.8, 0.3], X, 0, 1000.0, rule=rule):.4f}")
    1.4152
    1.4698
    1.4153
    """
    asked = REQUIREMENTS[as_choice("rule", rule, REQUIREMENTS)]
    return _evaluated(asked, queries, patterns, index, beta, radius, trivial=-np.inf)
