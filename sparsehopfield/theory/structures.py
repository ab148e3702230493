"""The effect of structures on retrieval, as functions: claims for masked, top-K, linear and random-feature memories.

"Nonparametric Modern Hopfield Models" (Hu et al. 2024) says that sub-quadratic members of one family keep the fixed
points and the exponential capacity of the dense model. The statements here are those that can be tested of each member
with softmax weights and dot similarity; every docstring says whether its statement *holds*, *fails* or is *infeasible*,
and proves it or gives a counterexample. Every function computes in float64, whatever comes in.

| statement | verdict | here |
|---|---|---|
| top-K is off by its tail times a difference of means | holds, exactly | `truncation` |
| the tail of top-K is small where the scores drop behind the K-th | holds | `truncation_bound` |
| top-K lowers an energy | holds, with an energy of its own | `topk_energy` |
| a mask that keeps the target retrieves exponentially well | holds | `masked_bound` |
| a mask that keeps the target errs no more than no mask | fails | `masked_error` |
| a mask that drops the target retrieves it | infeasible | `hull_distance` |
| random masks have exponential capacity | only where they keep the target | `mask_hit_probability` |
| positive random features are unbiased, with small variance | only at small beta m^2 | `feature_relative_variance` |
| random features retrieve exactly | infeasible | `features_needed` |
| the linear kernel keeps memories | fails | `kernel_displacement`, `linear_weight_bound` |

Letters are those of `sparsehopfield.theory`: x a query, xi_mu pattern mu of M, m = max |xi|, s_nu = <x, xi_nu>. A is a
set of k patterns, T_A the update with softmax over A alone; D the number of random features.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special
from scipy.spatial.distance import cdist

from sparsehopfield._engine.checks import (
    Array,
    as_array,
    as_beta,
    as_integers,
    as_number,
    as_numbers,
    as_whole,
    ignoring_float_errors,
)
from sparsehopfield._engine.text import short
from sparsehopfield.functional import update
from sparsehopfield.structures import LinearFeatures, RandomFeatures
from sparsehopfield.structures._features import log_features
from sparsehopfield.theory._patterns import (
    Floats,
    as_single_beta,
    finite_rows,
    prepare_patterns,
    prepare_queries,
    row_blocks,
)

__all__ = [
    "Truncation",
    "diameter",
    "feature_relative_variance",
    "features_needed",
    "hull_distance",
    "kernel_displacement",
    "linear_weight_bound",
    "mask_hit_probability",
    "masked_bound",
    "masked_error",
    "topk_energy",
    "truncation",
    "truncation_bound",
]

# --- top-K ------------------------------------------------------------------------------------------------------------


def _as_k(k: Any, n: int) -> int:
    """Check and return k, from 1 to n."""
    k = as_whole("k", k, 1)
    if k > n:
        raise ValueError(f"k: at most {n}, the number of patterns, got {k}")
    return k


def diameter(patterns: ArrayLike) -> float:
    """Compute the largest distance between two patterns.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.

    Returns
    -------
    float
        At most 2m, and the largest distance between two points of the patterns' hull.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    truncation : Compute the error that it bounds.
    sparsehopfield.theory.min_half_distance : Compute half the smallest distance.

    Examples
    --------
    >>> diameter([[0.0], [1.0], [4.0]])
    4.0
    """
    rows = prepare_patterns(patterns).rows
    with ignoring_float_errors():
        return max(float(cdist(rows[at], rows).max()) for at in row_blocks(len(rows), len(rows)))


def truncation_bound(scores: ArrayLike, k: int, beta: ArrayLike = 1.0) -> Any:
    """Bound the weight that softmax gives to all but the K largest scores.

    Parameters
    ----------
    scores : array_like, shape (..., M)
        Scores of M patterns, before beta; finite.
    k : int, from 1 to M
        How many of the scores, the largest, keep their weight.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the scores' leading axes.

    Returns
    -------
    ndarray, shape (...)
        (M - K)/(M - K + K exp(beta (s_(K) - s_(K+1)))), s_(K) the K-th largest; 0 for K = M.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    truncation : Compute the tail itself, and what it does to a step.
    sparsehopfield.topk_softmax : Compute the weights of the largest scores.

    Notes
    -----
    **Holds**. Proof: the tail is b/(a + b) with a >= K exp(beta s_(K)) of the K largest and
    b <= (M - K) exp(beta s_(K+1)) of the others, and it grows with b/a. Attained where scores have two values.

    Examples
    --------
    >>> scores = [2.0, 0.0, 0.0]
    >>> round(float(truncation_bound(scores, k=1)), 6), round(float(special.softmax(scores)[1:].sum()), 6)
    (0.213014, 0.213014)
    """
    s = as_numbers("scores", scores).astype(np.float64)
    if s.ndim == 0 or s.shape[-1] == 0:
        raise ValueError(f"scores: must have at least one number along its last axis, got shape {s.shape}")
    if not np.isfinite(s).all():
        raise ValueError("scores: contains NaN or infinity; every entry must be finite")
    m = s.shape[-1]
    k = _as_k(k, m)
    b = np.broadcast_to(as_beta(beta, s.shape[:-1]), (s[..., 0].size,)).reshape(s.shape[:-1])
    if k == m:
        return np.zeros(s.shape[:-1])[()]
    ordered = np.partition(s, (m - k - 1, m - k), axis=-1)
    with ignoring_float_errors():
        drop = ordered[..., m - k] - ordered[..., m - k - 1]
        return special.expit(math.log((m - k) / k) - b * drop)[()]


@dataclass(frozen=True)
class Truncation:
    """One step of top-K beside the dense step; arrays have the queries' leading shape, and states d more columns.

    Attributes
    ----------
    tail : ndarray, shape (...)
        Softmax weight of all but the K patterns with the largest scores.
    tail_bound : ndarray, shape (...)
        `truncation_bound` of the scores.
    kept : ndarray, shape (..., d)
        T_K, the step that uses the K largest scores.
    left : ndarray, shape (..., d)
        The softmax mean of the other patterns; zeros for K = M.
    dense : ndarray, shape (..., d)
        The step that uses all.
    error : ndarray, shape (...)
        |T_K - T_dense|.
    error_bound : ndarray, shape (...)
        `tail` times the patterns' diameter.

    See Also
    --------
    truncation : Compute it.
    truncation_bound : Bound the tail by the drop of the scores alone.

    Examples
    --------
    >>> t = truncation([0.9, 0.2], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], k=1, beta=2.0)
    >>> t.kept, t.dense.round(3)
    (array([1., 0.]), array([0.764, 0.194]))
    >>> float(t.error.round(3)), float(t.error_bound.round(3))
    (0.306, 0.43)
    """

    tail: Array
    tail_bound: Array
    kept: Array
    left: Array
    dense: Array
    error: Array
    error_bound: Array


@ignoring_float_errors()
def _softmax_means(s: Floats, b: Floats, rows: Floats, order: Array) -> Floats:
    """Compute, for each query, the softmax mean of the rows that `order` lists."""
    weights = special.softmax(b[:, None] * np.take_along_axis(s, order, axis=1), axis=1)
    return np.einsum("nk,nkd->nd", weights, rows[order])


def truncation(queries: ArrayLike, patterns: ArrayLike, k: int, beta: ArrayLike = 1.0) -> Truncation:
    """Compute the error of one step that uses only the K largest scores.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    k : int, from 1 to M
        How many of the scores, the largest, are used; of equal ones the first.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.

    Returns
    -------
    Truncation
        The error, its bound, and what was left out.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    truncation_bound : Bound the tail by the drop of the scores alone.
    sparsehopfield.structures.TopK : Retrieve so.

    Notes
    -----
    **Holds**, exactly: T_K - T_dense = tail (T_K - T_left), as T_dense = (1 - tail) T_K + tail T_left. Both means lie
    in the hull of the patterns, so the error is at most tail times `diameter`, and at most `tail_bound` times it.

    Examples
    --------
    >>> t = truncation([0.9, 0.2], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], k=1, beta=2.0)
    >>> bool(t.tail <= t.tail_bound), bool(t.error <= t.error_bound)
    (True, True)
    >>> bool(np.allclose(t.kept - t.dense, t.tail * (t.kept - t.left)))
    True
    """
    scored = prepare_patterns(patterns)
    x, _, b, leading = prepare_queries(queries, scored, 0, beta)
    m, d = scored.rows.shape
    k = _as_k(k, m)
    tail, bound = np.zeros(len(x)), np.zeros(len(x))
    kept, left, dense = np.empty(x.shape), np.zeros(x.shape), np.empty(x.shape)
    with ignoring_float_errors():
        for at in row_blocks(len(x), m * d):
            s = x[at] @ scored.rows.T
            order = np.argsort(-s, axis=1, kind="stable")
            kept[at] = _softmax_means(s, b[at], scored.rows, order[:, :k])
            weights = special.softmax(b[at, None] * s, axis=1)
            dense[at] = weights @ scored.rows
            if k < m:
                left[at] = _softmax_means(s, b[at], scored.rows, order[:, k:])
                tail[at] = np.take_along_axis(weights, order[:, k:], axis=1).sum(axis=1)
                bound[at] = truncation_bound(s, k, b[at])
        error = np.linalg.norm(kept - dense, axis=1)
        flat = {"tail": tail, "tail_bound": bound, "error": error, "error_bound": tail * diameter(scored.rows)}
    states = {"kept": kept, "left": left, "dense": dense}
    return Truncation(
        **{name: a.reshape(leading)[()] for name, a in flat.items()},
        **{name: a.reshape(*leading, d) for name, a in states.items()},
    )


def topk_energy(queries: ArrayLike, patterns: ArrayLike, k: int, beta: ArrayLike = 1.0) -> Any:
    """Compute the energy that top-K retrieval lowers: |x|^2/2 - (1/beta) log of the sum of exp(beta s) over the K
    largest s.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    k : int, from 1 to M
        How many patterns have weight.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.

    Returns
    -------
    ndarray, shape (...)
        The energy of each query.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.energy : Compute the energy that retrieval with all patterns lowers.
    sparsehopfield.structures.TopK : Retrieve by the K largest scores.

    Notes
    -----
    **Holds**: one step lowers it by at least |x - T_K(x)|^2/2. Proof: G(x) = max over sets A of K patterns of
    (1/beta) log sum over A of exp(beta s) is a maximum of convex functions, so convex; the K largest scores attain it,
    so T_K(x) is a subgradient of G at x, and G(T_K) >= G(x) + <T_K, T_K - x>. With E = |x|^2/2 - G this is
    E(x) - E(T_K) >= |x|^2/2 - |T_K|^2/2 + <T_K, T_K - x> = |x - T_K|^2/2. Where the K-th score ties with the next, G
    has a kink and E is not differentiable, but the descent holds for either choice.

    Examples
    --------
    >>> topk_energy([[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], k=1)
    array([ 0. , -0.5])
    """
    scored = prepare_patterns(patterns)
    x, _, b, leading = prepare_queries(queries, scored, 0, beta)
    m = len(scored.rows)
    k = _as_k(k, m)
    e = np.empty(len(x))
    with ignoring_float_errors():
        for at in row_blocks(len(x), m):
            s = np.partition(x[at] @ scored.rows.T, m - k, axis=1)[:, m - k :]
            best = s.max(axis=1)
            rest = special.logsumexp(b[at, None] * (s - best[:, None]), axis=1)
            e[at] = (x[at] ** 2).sum(axis=1) / 2 - best - rest / b[at]
    return e.reshape(leading)[()]


# --- masks ------------------------------------------------------------------------------------------------------------


def _as_mask(mask: ArrayLike, leading: tuple[int, ...], m: int) -> NDArray[np.bool_]:
    """Check a mask and return it as (N, M), one row a query."""
    a = as_array("mask", mask)
    if a.dtype != np.bool_:
        raise TypeError(f"mask: must be of booleans, got dtype {a.dtype}")
    try:
        a = np.broadcast_to(a, (*leading, m)).reshape(-1, m)
    except ValueError:
        raise ValueError(f"mask: shape {a.shape} does not broadcast to {(*leading, m)}") from None
    if not (has_any := a.any(axis=1)).all():
        raise ValueError(f"mask: row {has_any.argmin()} keeps no pattern; every query needs one")
    return a


def masked_error(
    queries: ArrayLike, patterns: ArrayLike, index: ArrayLike, mask: ArrayLike, beta: ArrayLike = 1.0
) -> Any:
    """Compute how far one step over some of the patterns lands from the target pattern: |T_A(x) - xi_mu|.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    mask : array_like of bool, shape (M,) or (..., M)
        The patterns that take part; at least one for every query.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.

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
    masked_bound : Bound it where the mask keeps the target.
    hull_distance : Bound it from below where the mask drops the target.
    sparsehopfield.theory.retrieval_error : Compute the error without a mask.

    Notes
    -----
    Claim: a mask that keeps the target errs no more than no mask. **Fails**: of -1, 0, 1 the pattern 0, targets for at
    x = 0, has error 0 over all three by symmetry, and 1/2 without -1. True is only that its weight does not fall, as
    the denominator loses terms; the mean of the others may move away.

    Examples
    --------
    >>> X = [[-1.0], [0.0], [1.0]]
    >>> [float(masked_error([0.0], X, 1, mask)) for mask in ([True, True, True], [False, True, True])]
    [0.0, 0.5]
    """
    scored = prepare_patterns(patterns)
    x, mu, b, leading = prepare_queries(queries, scored, index, beta)
    m = len(scored.rows)
    keep = _as_mask(mask, leading, m)
    error = np.empty(len(x))
    with ignoring_float_errors():
        for at in row_blocks(len(x), m):
            s = np.where(keep[at], b[at, None] * (x[at] @ scored.rows.T), -np.inf)
            error[at] = np.linalg.norm(special.softmax(s, axis=1) @ scored.rows - scored.rows[mu[at]], axis=1)
    return error.reshape(leading)[()]


def masked_bound(
    queries: ArrayLike, patterns: ArrayLike, index: ArrayLike, mask: ArrayLike, beta: ArrayLike = 1.0
) -> Any:
    """Bound `masked_error` by 2 m (k - 1) exp(-beta gap_A(x)), for a target among the k patterns of the mask.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    mask : array_like of bool, shape (M,) or (..., M)
        The patterns that take part; at least one for every query.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.

    Returns
    -------
    ndarray, shape (...)
        m is the largest norm of a pattern that is kept; gap_A the target's score less the largest of the others kept,
        at least `margin_at`. inf where the mask drops the target (see `hull_distance`); 0 where it keeps nothing else.

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    masked_error : Compute what is bounded.
    hull_distance : Bound the error from below where the mask drops the target.

    Notes
    -----
    **Holds**: the error is |sum of p_nu (xi_nu - xi_mu)| <= 2m (1 - p_mu), and each other weight is at most
    exp(-beta gap_A) p_mu. For masks, windows (k = 2w + 1) and random masks alike.

    Examples
    --------
    >>> X = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    >>> mask = [True, True, False]
    >>> bool(masked_error([1.0, 0.1], X, 0, mask, 4.0) <= masked_bound([1.0, 0.1], X, 0, mask, 4.0))
    True
    >>> float(masked_bound([1.0, 0.1], X, 2, mask, 4.0))
    inf
    """
    scored = prepare_patterns(patterns)
    x, mu, b, leading = prepare_queries(queries, scored, index, beta)
    m = len(scored.rows)
    keep = _as_mask(mask, leading, m)
    norms = np.sqrt(scored.squares)
    bound = np.empty(len(x))
    with ignoring_float_errors():
        for at in row_blocks(len(x), m):
            target = mu[at, None]
            others = keep[at].copy()
            np.put_along_axis(others, target, False, axis=1)
            s = x[at] @ scored.rows.T
            gap = np.take_along_axis(s, target, axis=1)[:, 0] - np.where(others, s, -np.inf).max(axis=1)
            longest = np.where(keep[at], norms, 0).max(axis=1)
            n = others.sum(axis=1)
            limit = np.where(n > 0, 2 * longest * n * np.exp(-b[at] * gap), 0.0)
            bound[at] = np.where(np.take_along_axis(keep[at], target, axis=1)[:, 0], limit, np.inf)
    return bound.reshape(leading)[()]


def hull_distance(points: ArrayLike, patterns: ArrayLike) -> Any:
    """Compute the distance of points to the convex hull of patterns: the least error of retrieval without the target.

    Parameters
    ----------
    points : array_like, shape (..., d)
        Points whose distance is wanted.
    patterns : array_like, shape (M, d)
        One row a pattern.

    Returns
    -------
    ndarray, shape (...)
        Never more than the distance, and less by rounding only, of the order of 1e-14 of the largest distance to a
        pattern. 0 inside the hull.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.
    RuntimeError
        If the least-squares solver does not come to an end.

    See Also
    --------
    masked_error : Compute the error of a step over some of the patterns.
    mask_hit_probability : Compute how often a random mask keeps the target.

    Notes
    -----
    Any update is a mean of patterns with weights that are not negative, whatever the separation and beta: over a mask
    that drops xi_mu its error is at least the distance of xi_mu to the hull of those kept. So retrieval is then
    **infeasible** unless the patterns kept surround xi_mu.

    With rows y_j = xi_j - point, min over p of |Y^T p| is found by scipy.optimize.nnls: u >= 0 that minimises
    |Y^T u|^2 + (sum u - 1)^2 is a multiple t p, and the best t leaves |y|^2/(1 + |y|^2), growing with |y| = |Y^T p|.
    What is returned is not that length but min_j <y_j, w>/|w| for its direction w, less the rounding error of the
    products. That is a lower bound for every w, whatever the solver did: the hull lies beyond that plane.

    Examples
    --------
    >>> hull_distance([[2.0, 0.0], [0.25, 0.25]], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]).round(9)
    array([1., 0.])
    """
    rows = prepare_patterns(patterns).rows
    m, d = rows.shape
    array = as_numbers("points", points)
    if array.ndim == 0 or array.shape[-1] != d:
        raise ValueError(f"points: the last axis must have the patterns' {d} features, got shape {array.shape}")
    x, _ = finite_rows("points", array.reshape(-1, d))
    distance = np.zeros(len(x))
    with ignoring_float_errors():
        for i, point in enumerate(x):
            y = rows - point
            size = np.linalg.norm(y, axis=1).max()
            if size == 0:
                continue
            y /= size
            u, _ = optimize.nnls(np.vstack([y.T, np.ones(m)]), np.append(np.zeros(d), 1.0), maxiter=10 * (m + d))
            w = y.T @ u
            length = np.linalg.norm(w)
            if length > 0:
                w /= length
                distance[i] = size * max((y @ w).min() - (d + 4) * np.finfo(np.float64).eps, 0.0)
    return distance.reshape(array.shape[:-1])[()]


def mask_hit_probability(n_patterns: int, k: int, steps: int = 1) -> float:
    """Compute the probability that random masks of k patterns include the target, in every one of some steps.

    Parameters
    ----------
    n_patterns : int, at least 1
        How many patterns there are, M.
    k : int, from 1 to n_patterns
        How many patterns a query sees.
    steps : int, at least 1
        In how many steps a new mask is drawn; with one mask for all steps it is 1.

    Returns
    -------
    float
        (k/M)^steps.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    hull_distance : Bound the error where the target is missing.
    sparsehopfield.structures.RandomMask : Retrieve with such masks.

    Notes
    -----
    Claim: random masks inherit the exponential capacity. **Holds only where the mask keeps the target**, which has
    probability k/M for a uniform set of k; otherwise the error is at least `hull_distance`. A mask drawn anew in every
    step leaves no fixed point at all.

    Examples
    --------
    >>> mask_hit_probability(1000, 100), mask_hit_probability(4, 2, steps=3)
    (0.1, 0.125)
    """
    n = as_whole("n_patterns", n_patterns, 1)
    return float((_as_k(k, n) / n) ** as_whole("steps", steps, 1))


# --- features ---------------------------------------------------------------------------------------------------------


@ignoring_float_errors()
def _relative_variance(x: ArrayLike, y: ArrayLike, beta: ArrayLike) -> Any:
    """Return the relative variance of one random feature, exp(beta |x + y|^2) - 1."""
    a = as_numbers("x", x).astype(np.float64)
    if a.ndim == 0:
        raise ValueError("x: must have at least one axis, got a number")
    b = as_numbers("y", y).astype(np.float64)
    try:
        total = a + b
    except ValueError:
        raise ValueError(f"y: shape {b.shape} does not broadcast to that of x, {a.shape}") from None
    if not np.isfinite(total).all():
        raise ValueError("x: contains NaN or infinity, or y does; every entry must be finite")
    return np.expm1(as_single_beta(beta) * (total**2).sum(axis=-1))


def feature_relative_variance(x: ArrayLike, y: ArrayLike, n_features: int, beta: ArrayLike = 1.0) -> Any:
    """Compute the variance of <phi(x), phi(y)> of positive random features, in units of its squared mean exp(beta <x,
    y>)^2.

    Parameters
    ----------
    x, y : array_like, shape (..., d)
        The rows whose kernel is estimated.
    n_features : int, at least 1
        D; independent, as with `RandomFeatures(orthogonal=False)`.
    beta : float, positive
        Inverse temperature.

    Returns
    -------
    ndarray, shape (...)
        (exp(beta |x + y|^2) - 1)/D; inf where that exceeds float64.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    features_needed : Compute how many features make it small.
    sparsehopfield.structures.RandomFeatures : Retrieve by such features.

    Notes
    -----
    The kernel is unbiased: **holds**. Proof: one term is exp(<w, v> - beta (|x|^2 + |y|^2)/2) with
    v = sqrt(beta) (x + y); a normal w has E exp(<w, v>) = exp(|v|^2/2), so the mean is exp(beta <x, y>), and
    E exp(2 <w, v>) = exp(2 |v|^2) makes the second moment exp(|v|^2) times the squared mean. The terms are lognormal:
    where beta |x + y|^2 exceeds about 4, samples nearly always show less variance than there is.

    References
    ----------
    Choromanski et al. 2021, lemma 2.

    Examples
    --------
    >>> round(float(feature_relative_variance([1.0, 0.0], [1.0, 0.0], n_features=64, beta=0.25)), 6)
    0.026848
    """
    d = as_whole("n_features", n_features, 1)
    with ignoring_float_errors():
        return _relative_variance(x, y, beta) / d


def features_needed(x: ArrayLike, y: ArrayLike, relative_error: float, beta: ArrayLike = 1.0) -> Any:
    """Compute how many positive random features give the kernel of x and y to a relative standard deviation.

    Parameters
    ----------
    x, y : array_like, shape (..., d)
        The rows whose kernel is estimated.
    relative_error : float, positive
        The error to reach, relative to the kernel.
    beta : float, positive
        Inverse temperature.

    Returns
    -------
    ndarray of float64, shape (...)
        The least whole D >= 1 with sqrt(`feature_relative_variance`) <= relative_error; inf beyond float64.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    feature_relative_variance : Compute the variance for a number of features.
    sparsehopfield.structures.RandomFeatures : Retrieve by such features.

    Notes
    -----
    Claim: random features retrieve as the dense model does. **Infeasible** where that retrieves: for a query at a
    pattern of norm m, |x + y|^2 = 4 m^2 and D grows as exp(4 beta m^2). Patterns on a sphere are retrieved from about
    beta m^2 = 10 on, which takes more than 1e17 features.

    Examples
    --------
    >>> [float(features_needed([1.0, 0.0], [1.0, 0.0], 0.1, beta)) for beta in (0.25, 1.0)]
    [172.0, 5360.0]
    """
    error = as_number("relative_error", relative_error, least=0.0)
    if error == 0:
        raise ValueError("relative_error: must be positive, got 0")
    with ignoring_float_errors():
        return np.maximum(np.ceil(_relative_variance(x, y, beta) / error / error), 1.0)[()]


def kernel_displacement(
    patterns: ArrayLike, beta: ArrayLike = 1.0, structure: LinearFeatures | RandomFeatures | None = None
) -> Floats:
    """Compute how far one step moves each pattern itself, in units of m: |T(xi_mu) - xi_mu|/m.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    structure : LinearFeatures or RandomFeatures, optional
        Softmax over all pairs by default.

    Returns
    -------
    ndarray, shape (M,)
        0 where all patterns are 0.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    linear_weight_bound : Prove for the linear kernel that it stays large.
    sparsehopfield.theory.is_fixed_point : Check that sparsemax moves a pattern not at all.

    Notes
    -----
    Claim: the linear kernel inherits fixed points and capacity. **Fails**: for unit patterns without structure it stays
    near 1 at every beta, while softmax goes from near 1 to 0. Of the weights, `linear_weight_bound` proves it.

    Examples
    --------
    >>> X = np.eye(16)
    >>> for structure in (None, LinearFeatures()):
    ...     print(*(f"{kernel_displacement(X, beta, structure).max():.2f}" for beta in (1.0, 10.0, 100.0)))
    0.87 0.00 0.00
    0.96 0.94 0.83
    """
    if structure is not None and not isinstance(structure, (LinearFeatures, RandomFeatures)):
        raise TypeError(f"structure: must be LinearFeatures, RandomFeatures or None, got {short(structure)}")
    scored, b = prepare_patterns(patterns), as_single_beta(beta)
    moved = update(scored.rows, scored.rows, b, separation="softmax", structure=structure) - scored.rows
    with ignoring_float_errors():
        longest = math.sqrt(scored.squares.max())
        return np.linalg.norm(moved, axis=1) / (longest if longest else 1.0)


def linear_weight_bound(patterns: ArrayLike, beta: ArrayLike = 1.0, index: ArrayLike | None = None) -> Floats:
    """Bound the weight that any query can give each pattern under `LinearFeatures("elu+1")`.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    index : array_like of int, optional
        Which patterns; all by default. Each takes O(M d).

    Returns
    -------
    ndarray, shape (M,), or one number for each of `index`
        1/(1 + sum over the other nu of min over features f of phi_f(xi_nu)/phi_f(xi_mu)).

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    kernel_displacement : Compute how far a step moves the patterns.
    sparsehopfield.structures.LinearFeatures : Retrieve by these features.
    hull_distance : Turn the bound on the weight into one on the error.

    Notes
    -----
    **Holds**: with features of x that are not negative, <phi(x), phi(xi_nu)>/<phi(x), phi(xi_mu)> is a mean of the
    ratios phi_f(xi_nu)/phi_f(xi_mu), so at least the least of them. With entries within b of 0 the bound is at most
    r/(r + M - 1), r = exp(sqrt(beta) b) (1 + sqrt(beta) b): half of the weight needs M - 1 <= r, while softmax gives
    it among exp(beta gap) patterns. As T(x) - xi_mu = (1 - p_mu) (mean of the others - xi_mu), every query errs by at
    least (1 - bound) times the `hull_distance` of xi_mu to the others. For "relu" a ratio may be 0, and
    nothing follows.

    Examples
    --------
    >>> linear_weight_bound(np.eye(4)).round(3)
    array([0.4, 0.4, 0.4, 0.4])
    """
    b = as_single_beta(beta)
    log_phi = log_features(LinearFeatures("elu+1"), prepare_patterns(patterns).rows, b, "dot")
    m = len(log_phi)
    targets = np.arange(m) if index is None else np.atleast_1d(as_integers("index", index))
    if targets.ndim != 1:
        raise ValueError(f"index: must be one-dimensional, got shape {targets.shape}")
    if (outside := (targets < -m) | (targets >= m)).any():
        raise IndexError(f"index: {targets[outside][0]} is out of range for {m} patterns")
    bound = np.empty(len(targets))
    with ignoring_float_errors():
        for i, mu in enumerate(targets):
            bound[i] = np.exp(-special.logsumexp((log_phi - log_phi[mu]).min(axis=1)))  # the ratio of mu to itself is 1
    return bound
