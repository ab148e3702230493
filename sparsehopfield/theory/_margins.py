"""Margins of patterns, and the certificates and radii that follow from them."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, ignoring_float_errors
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield.functional import update
from sparsehopfield.theory._patterns import (
    SLACK,
    Bools,
    Floats,
    ScoredPatterns,
    as_single_beta,
    gaps,
    prepare_patterns,
    prepare_queries,
    reaches_threshold,
)


def margin(patterns: ArrayLike, *, similarity: str = "dot") -> Floats:
    """Compute each pattern's margin: its score with itself less the largest with another.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    similarity : {"dot", "euclidean", "cosine"}
        Dot: min over nu of <xi_mu, xi_mu - xi_nu>. Euclidean: min |xi_mu - xi_nu|^2/2. Cosine: of the unit rows.

    Returns
    -------
    ndarray, shape (M,)
        The papers' Delta. inf for M = 1; 0 where a pattern has a copy; negative where a longer pattern outranks it, as
        patterns of different length do with dot similarity.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    margin_at : Compute the gap at other points than the pattern itself.
    critical_beta : Turn it into an inverse temperature.
    sparsehopfield.HopfieldMemory.margin : Compute the same in C, for many patterns.

    Notes
    -----
    A definition. `HopfieldMemory.margin` computes the same in C, for many patterns much faster.

    References
    ----------
    Hu et al. 2023, eq. (3.1).

    Examples
    --------
    >>> margin([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]])
    array([-2., -1.,  3.])
    """
    scored = prepare_patterns(patterns, similarity)
    return gaps(scored, scored.rows, np.arange(len(scored.rows)))


def margin_at(queries: ArrayLike, patterns: ArrayLike, index: ArrayLike, *, similarity: str = "dot") -> Any:
    """Compute the gap of a pattern at a query: its score less the largest with another.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is: <x, xi>; -|x - xi|^2/2; <x, xi/|xi|>, where the unit rows take the patterns' place.

    Returns
    -------
    ndarray, shape (...)
        inf for M = 1, negative where another pattern has the top score.

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    margin : Compute the gap at the pattern itself.
    well_separated : Compare it with 1/beta.
    sparsehopfield.HopfieldMemory.certify : Find the pattern with the best score and its gap, for many patterns.

    Notes
    -----
    The definition (3.2). T(x) = xi_mu if the gap is at least 1/beta, as sparsemax is then a unit vector; for extreme
    points of the patterns' hull without copies, only if.

    References
    ----------
    Hu et al. 2023, eq. (3.2).

    Examples
    --------
    >>> margin_at([[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]], index=0)
    array([1., 0.])
    """
    scored = prepare_patterns(patterns, similarity)
    x, mu, _, leading = prepare_queries(queries, scored, index)
    return gaps(scored, x, mu).reshape(leading)[()]


def min_half_distance(patterns: ArrayLike) -> float:
    """Compute R = min |xi_mu - xi_nu|/2 over mu != nu, the radius of the papers' spheres S_mu.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.

    Returns
    -------
    float
        inf for M = 1, 0 if there are copies; at most m otherwise.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    exact_radius : Compute the radius from which retrieval is exact.
    margin : Compute the margins; the euclidean ones are half the squared distances.

    Notes
    -----
    As printed the minimum includes mu = nu and R = 0. The spheres must be open: closed ones of the closest pair touch.
    The footnote's bound on the error, max(|x - xi_mu|, |xi_mu - x*|) with x* the limit, **fails**: patterns (-.8, -.2),
    (1.6, .2), (-.8, 1), beta = 1/4, x = (-.3, .1) have R = .6 and error .765 > .688.

    References
    ----------
    Hu et al. 2023, definition 2.2.

    Examples
    --------
    >>> min_half_distance([[0.0], [1.0], [4.0]])
    0.5
    """
    return math.sqrt(margin(patterns, similarity="euclidean").min() / 2)  # that margin is half the squared distance


def critical_beta(patterns: ArrayLike, *, similarity: str = "dot") -> Floats:
    """Compute the inverse temperature from which on each pattern is certified: 1/margin.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is: <x, xi>; -|x - xi|^2/2; <x, xi/|xi|>, where the unit rows take the patterns' place.

    Returns
    -------
    ndarray, shape (M,)
        inf where the margin is not positive, 0 for M = 1.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    is_certified : Compare it with a beta.
    margin : Compute what it is one over.
    sparsehopfield.HopfieldMemory.suggest_beta : Find the beta that certifies a share of the patterns.

    Notes
    -----
    See `is_certified`. A pattern with k copies in all is stored from 1/k of its copies' common margin on, which this
    does not count.

    Examples
    --------
    >>> critical_beta([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]])
    array([1.        ,        inf, 0.08333333])
    """
    delta = margin(patterns, similarity=similarity)
    with ignoring_float_errors():
        return np.where(delta > 0, 1 / delta, np.inf)


def is_certified(patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot") -> Bools:
    """Check whether each pattern's margin is at least 1/beta, so that T(xi_mu) is exactly xi_mu.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        Cosine: of the unit rows.

    Returns
    -------
    ndarray of bool, shape (M,)
        With a relative slack of 1e-12, as equality counts.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    is_fixed_point : Apply T, which finds copies and interior points besides.
    critical_beta : Compute from which beta on it is true.
    sparsehopfield.HopfieldMemory.is_certified : Check it in C, rounding included.

    Notes
    -----
    Not in the paper, whose conditions (`well_separated`) are stronger. Sufficient: with every other score 1/beta below
    its own, sparsemax gives xi_mu all the weight. Necessary for an extreme point of the patterns' hull without copies
    (all distinct patterns of equal length are), as it is only one convex combination of patterns. Not otherwise: of
    -1, 0, 1 the pattern 0 has margin 0 and is a fixed point for every beta; (1, 0), (1, 0), (.6, .8) are fixed points
    from beta = 1.25 on. `is_fixed_point` applies T itself.

    Examples
    --------
    >>> is_certified([[1.0, 0.0], [0.6, 0.8]], beta=2.5)
    array([ True,  True])
    """
    return reaches_threshold(margin(patterns, similarity=similarity), as_single_beta(beta))


def is_fixed_point(patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot") -> Bools:
    """Check whether T leaves each pattern where it is, by applying T.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        Cosine: of the unit rows, which are what T mixes.

    Returns
    -------
    ndarray of bool, shape (M,)
        |T(xi_mu) - xi_mu| <= 1e-12 m. True wherever `is_certified` is, and for some copies and interior points
        besides.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    is_certified : Check the margin, which suffices.
    stationary_states : Find all fixed points, mixtures of patterns among them.

    Examples
    --------
    >>> is_fixed_point([[-1.0], [0.0], [1.0]], beta=0.5)
    array([False,  True, False])
    """
    scored, b = prepare_patterns(patterns, similarity), as_single_beta(beta)
    moved = (
        update(scored.rows, scored.rows, b, similarity="euclidean" if similarity == "euclidean" else "dot")
        - scored.rows
    )
    with ignoring_float_errors():
        return (moved**2).sum(axis=1) <= SLACK**2 * scored.squares.max()


@ignoring_float_errors()
def exact_radii(scored: ScoredPatterns, mu: Array, beta: Floats | float) -> Floats:
    """Compute the exact radii of the patterns mu, each at its beta."""
    groups: dict[bytes, int] = {}
    group = np.array([groups.setdefault(row.tobytes(), len(groups)) for row in scored.rows + 0.0])  # + 0.0: no -0.0
    first, count = np.unique(group, return_index=True, return_counts=True)[1:]
    required_gap = 1 / beta / count[group[mu]]  # over all others, so that xi_mu and its copies have all weight
    finite = required_gap < np.inf
    distinct = PatternSet(
        scored.rows[first], None, "euclidean" if scored.offset_weight else "dot", copy=False, check_finite=False
    )
    at = np.flatnonzero(finite)
    _, rival = _core.radii(distinct.core(np.dtype(np.float64)), group[mu[at]], required_gap[at], 0.0)
    radii = np.where(finite | (len(first) == 1), np.inf, -np.inf)
    at, rival = at[rival >= 0], rival[rival >= 0]
    target, nu = mu[at], first[rival]
    distance = np.linalg.norm(scored.rows[target] - scored.rows[nu], axis=1)
    radii[at] = (scored.score_difference(scored.rows[target], target, nu) - required_gap[at]) / distance
    return radii


def exact_radius(patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot") -> Floats:
    """Compute the radius of the largest ball around each pattern that one step sends to exactly this pattern.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        Cosine: around the unit rows.

    Returns
    -------
    ndarray, shape (M,)
        r_mu = min over nu of (s_mu - s_nu - 1/(k beta)) / |xi_mu - xi_nu| at xi_mu: k is the number of copies
        of xi_mu, itself included, and nu is over the patterns that are no copies. Dot: the difference of scores is
        <xi_mu, xi_mu - xi_nu>. Euclidean and cosine: it is D^2/2 at distance D, so r_mu = D/2 - 1/(k beta D) with D the
        distance to the nearest pattern (unit row).
        inf where all patterns are copies; negative where no ball is. Copies are rows (cosine: unit rows) equal in every
        entry, to the last bit.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    well_separated : Check whether a query is within it.
    exact_capacity : Count the random patterns that have at least some radius.
    sparsehopfield.HopfieldMemory.exact_radius : Compute the same in C, rounding included.

    Notes
    -----
    Not in the paper; it takes the place of theorem 3.1. Proof: k equal scores on top have all weight iff they lead the
    others by 1/(k beta). At x = xi_mu + e the lead over nu is that at xi_mu plus <e, xi_mu - xi_nu>, at least the lead
    less |e| |xi_mu - xi_nu|, with equality towards nu: so all of the ball goes to xi_mu, and past it in the worst
    direction others have weight, all of them with <e, xi_nu - xi_mu> > 0, as their lead has shrunk from at least
    1/(k beta). So <e, T(x) - xi_mu> > 0 there, and the radius is exact for every pattern, extreme or not. If r_mu < 0
    there is no ball: on a region where T is affine and constant, with Jacobian beta Xi J Xi^T = 0, all patterns of
    the support are equal. The single point may still be fixed (`is_fixed_point`).

    Examples
    --------
    >>> exact_radius([[2.0, 0.0], [0.0, 2.0]], beta=4.0).round(6)
    array([1.325825, 1.325825])
    """
    scored = prepare_patterns(patterns, similarity)
    return exact_radii(scored, np.arange(len(scored.rows)), as_single_beta(beta))
