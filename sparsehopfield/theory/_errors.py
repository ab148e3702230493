"""The error of one step of retrieval, and bounds on it."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import Array, ignoring_float_errors
from sparsehopfield._engine.separations import as_choice
from sparsehopfield.functional import update
from sparsehopfield.theory._patterns import (
    Floats,
    ScoredPatterns,
    best_rivals,
    farthest_distances,
    gaps,
    margins_at,
    prepare_patterns,
    prepare_queries,
    supports,
)


def retrieval_error(
    queries: ArrayLike,
    patterns: ArrayLike,
    index: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    separation: Separation = "sparsemax",
) -> Any:
    """Compute how far one step lands from the target pattern: |T(x) - xi_mu|.

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
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        "softmax" is the papers' dense model. Dense less sparse error is the papers' delta.

    Returns
    -------
    ndarray, shape (...)
        The error of each query.

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    retrieval_bound : Bound it from above.
    dense_error_floor : Bound that of softmax from below.
    sparsehopfield.update : Make the step whose error it is.

    Notes
    -----
    Claim (theorem 2.2): the sparse error is at most the dense error near xi_mu. **Fails**, even at x = xi_mu and on the
    unit sphere: (0, 1), (.6, .8), (-.8, .6), beta = 2, x = xi_1 has errors .1897 and .1494; 1, 3 with beta = 1 and
    x = 1 has 2 and 1.76. Errors of opposite patterns cancel in the dense mixture, and sparsemax leaves one of them out.
    True, as sparsemax majorises softmax (`majorises`): where mu has the top score its sparse weight is at least its
    dense weight; <x, T(x)> is at least <x, T_dense(x)>; the claim for two patterns of equal length, and wherever the
    gap is at least 1/beta, with error 0.

    References
    ----------
    Hu et al. 2023, theorem 2.2.

    Examples
    --------
    >>> X = [[0.0, 1.0], [0.6, 0.8], [-0.8, 0.6]]
    >>> [round(float(retrieval_error(X[0], X, 0, 2.0, separation=s)), 4) for s in ("sparsemax", "softmax")]
    [0.1897, 0.1494]
    """
    scored = prepare_patterns(patterns)
    x, mu, b, leading = prepare_queries(queries, scored, index, beta)
    states = update(x, scored.rows, b, separation=separation)
    with ignoring_float_errors():
        return np.linalg.norm(states - scored.rows[mu], axis=1).reshape(leading)[()]


def _sharp_bound(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    """Bound the error by the gap, the size of the support and the largest distance; see `retrieval_bound`."""
    gap = gaps(scored, x, mu)
    others = (1 - 1 / supports(scored, x, beta).size) * np.maximum(0, 1 - beta * gap)  # at most their weight
    return farthest_distances(scored, mu) * np.where(gap < 0, 1, others)


def _exponential_decay(scored: ScoredPatterns, gap: Floats, beta: Floats, m: float, *, clip: bool = True) -> Floats:
    """Return 2m (M - 1) exp(-beta gap), computed so that exponents of either sign may be large."""
    if len(scored.rows) == 1:
        return np.zeros(len(gap))
    exponent = math.log(len(scored.rows) - 1) - beta * gap
    return 2 * m * np.exp(np.minimum(exponent, 0) if clip else exponent)


def _exponential_bound(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    """Bound the error by (2.7), corrected."""
    return _exponential_decay(scored, gaps(scored, x, mu), beta, m)


def _separation_bound(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    """Bound the error by corollary 3.1.2: with the margin in place of the gap."""
    return _exponential_decay(
        scored, margins_at(scored, mu) - 2 * m * np.linalg.norm(x - scored.rows[mu], axis=1), beta, m
    )


def _printed_bound(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    """Compute the bound (2.6) as printed."""
    support = supports(scored, x, beta)
    return m + math.sqrt(x.shape[1]) * m * (beta * support.size * (support.best - support.last) + 1)


def _printed_exponential_bound(scored: ScoredPatterns, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    """Compute the bound (2.7) as printed."""
    target = scored.rows[mu]
    gap = ((x - target) * target).sum(axis=1) + np.minimum(margins_at(scored, mu), 0)  # the maximum includes mu itself
    return _exponential_decay(scored, gap, beta, m, clip=False)


BOUNDS = {
    "sharp": _sharp_bound,
    "exponential": _exponential_bound,
    "separation": _separation_bound,
    "printed": _printed_bound,
    "printed exponential": _printed_exponential_bound,
}


def retrieval_bound(
    queries: ArrayLike, patterns: ArrayLike, index: ArrayLike, beta: ArrayLike = 1.0, *, rule: str = "sharp"
) -> Any:
    """Bound `retrieval_error`, from the gap of a pattern at the query or from its margin.

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
    rule : {"sharp", "exponential", "separation", "printed", "printed exponential"}
        Which bound is computed; the Notes state each.

    Returns
    -------
    ndarray, shape (...)
        The first three never exceed 2m, which always holds. 0 for M = 1, but for "printed".

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    retrieval_error : Compute what is bounded.
    dense_error_floor : Bound the error of softmax from below.
    margin_at : Compute the gap.

    Notes
    -----
    With g the gap of mu at x:

    1. "sharp": max_nu |xi_nu - xi_mu| (1 - 1/kappa) max(0, 1 - beta g); where mu has not the top score only the first
       factor. **Holds**; not in the paper, and to be used in place of (2.6). Proof: the error is at most the first
       factor times 1 - p_mu, and p_mu = (1 + sum over the support of beta (s_mu - s_nu))/kappa is at least
       (1 + (kappa - 1) beta g)/kappa.
    2. "exponential": 2m (M - 1) exp(-beta g), (2.7) with the query where it must be. **Holds** for the sparse and the
       dense error. Proof: the dense 1 - p_mu is at most (M - 1) exp(-beta g), and the sparse one no larger where
       g >= 0; for g < 0 and M > 1 the bound exceeds 2m.
    3. "separation": 2m (M - 1) exp(-beta (Delta_mu - 2m |x - xi_mu|)), corollary 3.1.2 without the distance to the
       limit, which only loosens it. **Holds**, as g >= Delta_mu - 2m |x - xi_mu|. Informative only where that is
       positive.
    4. "printed": m + sqrt(d) m (beta kappa (max_nu s_nu - s_(kappa)) + 1), (2.6). **Vacuous**: never below 2m.
    5. "printed exponential": 2m (M - 1) exp(-beta (s_mu - max_nu <xi_mu, xi_nu>)), (2.7). **Fails**, for both errors:
       (1, 0), (.96, .28), x = (1.1, 0), beta = 100 has dense error 3.4e-3 and bound 9.1e-5. With nu != mu, too:
       (1, 0), (0, 1), x = (.5, .5), beta = 10 has error .71 and bound .013.

    References
    ----------
    Hu et al. 2023, eq. (2.6), (2.7), corollary 3.1.2.

    Examples
    --------
    >>> X = [[1.0, 0.0], [0.0, 1.0]]
    >>> [round(float(retrieval_bound([0.6, 0.4], X, 0, 2.0, rule=rule)), 4) for rule in ("sharp", "printed")]
    [0.4243, 3.5456]
    >>> float(retrieval_error([0.6, 0.4], X, 0, 2.0).round(4))
    0.4243
    """
    bound = BOUNDS[as_choice("rule", rule, BOUNDS)]
    scored = prepare_patterns(patterns)
    x, mu, b, leading = prepare_queries(queries, scored, index, beta)
    with ignoring_float_errors():  # bounds and gaps may be infinite
        return bound(scored, x, mu, b, math.sqrt(scored.squares.max())).reshape(leading)[()]


def dense_error_floor(queries: ArrayLike, patterns: ArrayLike, index: ArrayLike, beta: ArrayLike = 1.0) -> Any:
    """Bound the dense `retrieval_error` from below, by the gap of a pattern at the query and by the number of patterns.

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

    Returns
    -------
    ndarray, shape (...)
        0 where the gap is not positive, for M = 1, and where it underflows.

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    retrieval_error : Compute what is bounded.
    retrieval_bound : Bound it from above.

    Notes
    -----
    With g the gap of mu at x and w its score less the lowest one: g/n times (M - 1)/(M - 1 + exp(beta w)). **Holds**;
    not in the paper. Proof: the error is at least <xi_mu - T(x), x>/n = (sum over nu of p_nu (s_mu - s_nu))/n >=
    (1 - p_mu) g/n, and 1 - p_mu is at least (M - 1) exp(-beta w)/(1 + (M - 1) exp(-beta w)).

    It is what is true behind observation 2 of section 3: at a given geometry (g and w) the dense error never is 0 and
    comes to at least g/n as M grows, so that beta has to grow as ln M; the sparse error is 0 from beta = 1/g on, for
    any M. Orthonormal patterns attain it up to a factor sqrt(2) or less.

    Examples
    --------
    >>> X = np.eye(100)
    >>> [round(float(dense_error_floor(X[0], X, 0, beta)), 4) for beta in (1.0, 5.0, 10.0)]
    [0.9733, 0.4001, 0.0045]
    >>> [float(retrieval_error(X[0], X, 0, beta)) for beta in (1.0, 5.0, 10.0)]
    [0.0, 0.0, 0.0]
    """
    scored = prepare_patterns(patterns)
    x, mu, b, leading = prepare_queries(queries, scored, index, beta)
    others = len(scored.rows) - 1
    if others == 0:
        return np.zeros(leading)[()]
    with ignoring_float_errors():  # gaps times beta may overflow: their exponentials then vanish
        gap = gaps(scored, x, mu)
        farthest = best_rivals(scored, x, mu, lambda _, differences: -differences)
        width = scored.score_difference(x, mu, farthest)
        share = special.expit(math.log(others) - b * width)
        n = np.linalg.norm(x, axis=1)
        return np.where(gap > 0, np.maximum(gap, 0) / np.where(n > 0, n, 1) * share, 0.0).reshape(leading)[()]
