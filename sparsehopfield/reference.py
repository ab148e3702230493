"""Every operation of the package in plain float64 NumPy, written as the formulas read.

This is the file to read to understand the model, and what the tests compare the C core with. Names, argument
order and rules are those of the public functions; speed and memory are of no concern. Each row map below is
written for one row and then lifted to arrays by `_by_rows`.

Equation numbers are those of "On Sparse Modern Hopfield Model" (Hu et al., 2023). Further sources:
Martins & Astudillo (2016) for sparsemax; Peters, Niculae & Martins (2019) and Correia, Niculae & Martins
(2019) for entmax and its gradients.

Letters: z scores of a row, p weights, g an incoming gradient, a = alpha - 1, kappa the size of the support.
"""

import math
from dataclasses import replace
from inspect import cleandoc
from types import SimpleNamespace

import numpy as np

from sparsehopfield._engine.checks import as_array, as_filled, as_numbers, ignoring_float_errors
from sparsehopfield._engine.separations import MAPS, row_of, separation_code

#: Counterparts of public functions; those of the layers' association, at the end, have arguments of the core alone.
__all__ = [
    "associate",
    "canonical_scores",
    "energy",
    "entmax",
    "entmax_conjugate",
    "entmax_loss",
    "entmax_threshold",
    "entmax_vjp",
    "entmax_vjp_alpha",
    "normmax",
    "normmax_conjugate",
    "normmax_threshold",
    "normmax_vjp",
    "normmax_vjp_alpha",
    "polynomial",
    "polynomial_vjp",
    "retrieve",
    "softmax",
    "softmax_conjugate",
    "softmax_loss",
    "softmax_vjp",
    "sparsemax",
    "sparsemax_conjugate",
    "sparsemax_loss",
    "sparsemax_threshold",
    "sparsemax_vjp",
    "topk_softmax",
    "topk_sparsemax",
    "update",
    "update_linear",
    "update_random",
]


def _numbers(name, array):
    """Return an array of float64; raise for what NumPy cannot read as real numbers, and for masked entries."""
    return as_numbers(name, array).astype(np.float64)


def _by_rows(function, vectors, options=(), axis=-1, numbers=None):
    """Apply ``function(*rows, *options)`` along an axis, broadcasting as a NumPy gufunc does.

    Parameters
    ----------
    function : callable
        Takes one row of each of `vectors` and one number of each of `options`.
    vectors, options : dicts of array_like
        Rows along `axis`, where masked scores z are -inf and masked weights and gradients 0; and numbers of at least 1
        that broadcast to the other axes.
    axis : int
        Where the rows lie; the result has its rows there too.
    numbers : int or None
        The function returns a row (None), or this many numbers.
    """
    is_gradient = "g" in vectors  # where a NaN among scores, weights or gradients makes the result NaN
    filled = [as_filled(name, v, -np.inf if name == "z" else 0.0) for name, v in vectors.items()]
    vectors = [np.moveaxis(v.astype(np.float64), axis, -1) for v in filled]
    options = {name: _numbers(name, option) for name, option in dict(options).items()}
    for name, option in options.items():
        if not np.all(option >= 1):
            raise ValueError(f"{name}: must be at least 1, got {option}")
    options = list(options.values())
    leading = np.broadcast_shapes(*(v.shape[:-1] for v in vectors), *(o.shape for o in options))
    size = vectors[0].shape[-1]
    vectors = [np.broadcast_to(v, (*leading, size)) for v in vectors]
    options = [np.broadcast_to(o, leading) for o in options]
    result = np.empty((*leading, size if numbers is None else numbers))
    with ignoring_float_errors():
        for i in np.ndindex(*leading):
            rows = [v[i] for v in vectors]
            undefined = is_gradient and any(np.isnan(row).any() for row in rows)
            result[i] = np.nan if undefined else function(*rows, *(o[i] for o in options))
    if numbers is None:
        return np.moveaxis(result, -1, axis)
    return result[..., 0][()] if numbers == 1 else tuple(result[..., j][()] for j in range(numbers))


def _weights_by_rule(z):
    """Return the weights of a row with NaN or +inf, or without a finite score; None for all other rows."""
    if np.isnan(z).any():
        return np.full(z.shape, np.nan)
    if np.isposinf(z).any():  # +inf shares the weight equally
        return np.isposinf(z) / np.isposinf(z).sum()
    if not np.isfinite(z).any():  # no score at all, or every score masked
        return np.zeros(z.shape)
    return None


def _threshold_by_rule(z):
    """Return (tau, kappa) of a row with NaN or +inf, or without a finite score; None for all other rows."""
    weights = _weights_by_rule(z)
    if weights is None:
        return None
    return (np.nan, 0) if np.isnan(weights).any() else (np.inf, np.count_nonzero(weights))


def _conjugate_by_rule(z):
    """Return the conjugate of a row with NaN or +inf, or without a finite score; None for all other rows."""
    if _weights_by_rule(z) is None:
        return None
    return z.max(initial=-np.inf)  # NaN, +inf, or -inf for no score or only masks


def _unless(rule):
    """Return a decorator of functions of a row: the result is that of `rule`, unless it is None."""
    return lambda function: lambda z, *options: function(z, *options) if (fixed := rule(z)) is None else fixed


# --- softmax --------------------------------------------------------------------------------------


@_unless(_weights_by_rule)
def _softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def _softmax_vjp(p, g):
    # J = diag(p) - p p^T
    g = np.where(p > 0, g, 0.0)
    return p * (g - p @ g)


@_unless(_conjugate_by_rule)
def _softmax_conjugate(z):
    return z.max() + np.log(np.exp(z - z.max()).sum())


# --- sparsemax (Definition 2.1) -------------------------------------------------------------------


def _sparsemax_theta_kappa(z):
    """Return theta = tau - max(z) and kappa of the closed form (2.3), for finite scores and masks."""
    u = np.sort(z - z.max())[::-1]
    u = u[u > -1]  # p <= 1 forces tau >= max(z) - 1: nothing further below the best can have weight
    k = np.arange(1, u.size + 1)
    kappa = np.count_nonzero(1 + k * u > np.cumsum(u))  # kappa = max {k : 1 + k z_(k) > sum_{j<=k} z_(j)}
    return (math.fsum(u[:kappa]) - 1) / kappa, kappa  # tau = (sum_{k<=kappa} z_(k) - 1) / kappa


@_unless(_threshold_by_rule)
def _sparsemax_threshold(z):
    theta, kappa = _sparsemax_theta_kappa(z)
    return z.max() + theta, kappa


@_unless(_weights_by_rule)
def _sparsemax(z):
    theta, _ = _sparsemax_theta_kappa(z)
    return np.maximum(z - z.max() - theta, 0)  # p = [z - tau]_+


def _sparsemax_vjp(p, g):
    # J = diag(s) - s s^T / kappa, s the indicator of the support: centre g over the support
    return _entmax_vjp(p, g, 2.0)


def _sparsemax_conjugate(z):
    # Theorem 2.1 (2.4) in its stable form: Psi*(z) = max z + <p, z - max z> - |p|^2 / 2 + 1 / 2
    return _entmax_conjugate(z, 2.0)


# --- alpha-entmax ---------------------------------------------------------------------------------


def _entmax_power(y, a):
    """Compute [1 + a y]_+^(1/a), through log1p so that a may be close to 0."""
    inside = a * y > -1
    return np.where(inside, np.exp(np.log1p(np.where(inside, a * y, 0)) / a), 0)


def _entmax15_theta(z):
    """Return theta by sorting: Algorithm 2 of Peters et al. (2019), for alpha = 1.5."""
    u = np.sort((z - z.max()) / 2)[::-1]
    u = u[u > -1]
    k = np.arange(1, u.size + 1)
    mean = np.cumsum(u) / k
    spread = np.cumsum(u**2) - k * mean**2
    tau = mean - np.sqrt(np.maximum(1 - spread, 0) / k)  # solves sum_{j<=k} (u_(j) - tau)^2 = 1
    kappa = np.count_nonzero(tau < u)
    return 2 * (tau[kappa - 1] + 1)


def _entmax_theta_bisected(z, a):
    """Return theta with sum_i [1 + a (z_i - max z - theta)]_+^(1/a) = 1, by bisection, any a > 0.

    The sum falls from at least 1 at theta = 0 (the best score alone gives 1) to at most 1 where the best
    score's weight is 1/n.
    """
    u = z - z.max()
    low, high = 0.0, -math.expm1(-a * math.log(z.size)) / a
    for _ in range(64):
        theta = (low + high) / 2
        low, high = (theta, high) if _entmax_power(u - theta, a).sum() > 1 else (low, theta)
    return high


def _power_sum_root(c, q, a):
    """Compute (c^a + q^a)^(1/a), where powers may overflow or underflow."""
    most, least = np.maximum(c, q), np.minimum(c, q)
    return most * np.exp(np.log1p(np.where(most > 0, least / most, 0) ** a) / a)


def _entmax_lowest_of_support(z, a):
    """Return the lowest score of the support, less max z, and its weight q, for a > 1.

    There the root is steep, and digits that tau loses count: weights are (a (z - lowest) + q^a)^(1/a) instead. A score
    is in the support if the weights of those above it sum to less than 1 at the threshold that gives it weight 0.
    """
    u = np.sort(z - z.max())[::-1]
    u = u[a * u > -1]
    kappa = 1
    while kappa < u.size and ((a * (u[:kappa] - u[kappa])) ** (1 / a)).sum() < 1:
        kappa += 1
    lowest, (low, high) = u[kappa - 1], (0.0, 1 / kappa)
    c = (a * (u[:kappa] - lowest)) ** (1 / a)
    for _ in range(64):
        q = (low + high) / 2
        low, high = (low, q) if _power_sum_root(c, q, a).sum() > 1 else (q, high)
    return lowest, high


def _entmax_theta(z, alpha):
    """Return theta of p_i = [1 + a (z_i - max z - theta)]_+^(1/a), for 1 < alpha <= 2.

    theta is the tau of p_i = [a z_i - tau]_+^(1/a) in a form that has a limit at alpha = 1, where it is the
    log-sum-exp of z - max z: tau = a (max z + theta) - 1.
    """
    if alpha == 2:
        return _sparsemax_theta_kappa(z)[0] + 1
    if alpha == 1.5:
        return _entmax15_theta(z)
    return _entmax_theta_bisected(z, alpha - 1)


@_unless(_threshold_by_rule)
def _entmax_threshold(z, alpha):
    if alpha == 1:
        return -np.inf, np.count_nonzero(z > -np.inf)
    a = alpha - 1
    if alpha > 2:
        lowest, q = _entmax_lowest_of_support(z, a)
        return a * (z.max() + lowest) - q**a, np.count_nonzero(z - z.max() >= lowest)
    theta = _entmax_theta(z, alpha)
    return a * (z.max() + theta) - 1, np.count_nonzero(a * (z - z.max() - theta) > -1)


@_unless(_weights_by_rule)
def _entmax(z, alpha):
    if alpha == 1:
        return _softmax(z)
    if alpha == 2:
        return _sparsemax(z)
    if alpha > 2:
        u, (lowest, q) = z - z.max(), _entmax_lowest_of_support(z, alpha - 1)
        c = (alpha - 1) * np.maximum(u - lowest, 0)
        return np.where(u < lowest, 0, _power_sum_root(c ** (1 / (alpha - 1)), q, alpha - 1))
    return _entmax_power(z - z.max() - _entmax_theta(z, alpha), alpha - 1)


def _entmax_vjp(p, g, alpha):
    # J = diag(s) - s s^T / sum s, s_i = p_i^(2 - alpha) on the support
    support = p > 0
    if not support.any():  # a row of masks
        return np.zeros(p.shape)
    p_of_largest_s = p[support].min() if alpha > 2 else 1  # s is divided by its largest, which may overflow
    s = np.where(support, (np.where(support, p, 1) / p_of_largest_s) ** (2 - alpha), 0)
    g = np.where(support, g - g[np.argmax(np.where(support, s, 0))], 0)
    centred = s * (g - s @ g / s.sum())
    return np.where(centred == 0, 0, centred * p_of_largest_s ** (2 - alpha))


def _phi(x, m):
    """Compute (e^x - 1 - x) / x^2 times e^-m for 0 <= x <= m, by its series where the difference would cancel."""
    series = sum(np.minimum(x, 1) ** k / math.factorial(k + 2) for k in range(20)) * np.exp(-m)
    return np.where(x < 1, series, (np.exp(x - m) - (1 + x) * np.exp(-m)) / np.where(x < 1, 1, x) ** 2)


def _entmax_vjp_alpha(p, g, alpha):
    # d<g, p>/d alpha. Differentiating p = [1 + a (z - theta)]^(1/a) and sum p = 1 gives, with u = log p,
    # q = u^2 phi(-a u), Q = <p, q>, H = -<p, u>, D = sum p^(1-a) = 1 + a H + a^2 Q:
    #     dp/d alpha = p / D * ((Q - q) - a (Q u + H q))
    # which, unlike the printed form of Correia et al. (2019), is not 0/0 as alpha -> 1. q, Q and D are in units of
    # e^m = max p^(1-a), which may overflow.
    support, a = p > 0, alpha - 1
    p, g = p[support], g[support]
    u = np.log(p)
    m = -a * u.min(initial=0)
    q = u**2 * _phi(-a * u, m)
    Q, H, D = p @ q, -(p @ u), p @ np.exp(-a * u - m)
    return g @ (p / D * ((Q - q) - a * (Q * u + H * q)))


@_unless(_conjugate_by_rule)
def _entmax_conjugate(z, alpha):
    # Psi*(z) = <p, z> - Omega(p),
    # Omega(p) = (sum p^alpha - sum p) / (alpha a) = sum p expm1(a log p) / (alpha a)
    if alpha == 1:
        return _softmax_conjugate(z)
    p, a = _entmax(z, alpha), alpha - 1
    support = p > 0
    p, u = p[support], z[support] - z.max()
    return z.max() + p @ (u - np.expm1(a * np.log(p)) / (alpha * a))


# --- alpha-normmax --------------------------------------------------------------------------------


def _normmax_theta_u(z, alpha):
    """Return tau - max z, by bisection, and u = [z - tau]_+^(1 / a), whose alpha-norm is 1.

    The sum [z - tau]_+^(alpha / a) is at least 1 at tau = max z - 1 and 0 at max z.
    """
    s, a = z - z.max(), alpha - 1
    low, high = 0.0, 1.0  # of tau + 1, which keeps its digits where alpha is near 1
    for _ in range(64):
        above = (low + high) / 2
        x = np.maximum(1 + (s - above), 0)
        low, high = (above, high) if (x ** (alpha / a)).sum() > 1 else (low, above)
    return low - 1, np.maximum(1 + (s - low), 0) ** (1 / a)


@_unless(_weights_by_rule)
def _normmax(z, alpha):
    _, u = _normmax_theta_u(z, alpha)
    return u / u.sum()


@_unless(_threshold_by_rule)
def _normmax_threshold(z, alpha):
    theta, u = _normmax_theta_u(z, alpha)
    return z.max() + theta, np.count_nonzero(u)


def _alpha_norm(p, alpha):
    """Return |p|_alpha of weights, whose powers themselves may leave the range."""
    largest = p.max(initial=0)
    return largest * ((p / largest) ** alpha).sum() ** (1 / alpha) if largest > 0 else largest


def _normmax_vjp(p, g, alpha):
    # J = sum_i w_i (e_i - p) (e_i - p)^T, w = u^(2 - alpha) / (a sum u) on the support, where u = p / |p|_alpha
    support = p > 0
    if not support.any():  # a row of masks
        return np.zeros(p.shape)
    norm = _alpha_norm(p, alpha)
    w = np.where(support, (np.where(support, p, 1) / norm) ** (2 - alpha), 0) * norm / (alpha - 1)
    centred = np.where(support, w * (np.where(support, g, 0) - p[support] @ g[support]), 0)
    return centred - p * centred.sum()


def _normmax_vjp_alpha(p, g, alpha):
    # Differentiating p = u / sum u, u = x^(1/a), x = z - tau, and sum u x = 1 gives dtau = -<p, x log u> / alpha and
    # dp = p (q - <p, q>), q = (-log u - dtau / x) / a
    support, a = p > 0, alpha - 1
    p, g = p[support], g[support]
    u = p / _alpha_norm(p, alpha)
    q = (-np.log(u) + p @ (u**a * np.log(u)) / alpha / u**a) / a
    return g @ (p * (q - p @ q))


@_unless(_conjugate_by_rule)
def _normmax_conjugate(z, alpha):
    # Omega*(z) = <p, z> - |p|_alpha + 1
    p = _normmax(z, alpha)
    return z.max() + p[p > 0] @ (z[p > 0] - z.max()) - _alpha_norm(p, alpha) + 1


# --- the comparator, and top-k --------------------------------------------------------------------


def _polynomial_ratio(z):
    """Return z / max|z|, a mask counting as 0."""
    r = np.where(np.isneginf(z), 0, z)
    largest = np.abs(r).max()
    return r / largest if largest > 0 else r


@_unless(_weights_by_rule)
def _polynomial(z, order):
    # p_i = z_i^order / sum_j z_j^order; no cutoff, no conjugate, no energy
    power = np.where(np.isneginf(z), 0, _polynomial_ratio(z) ** order)
    return power / power.sum() if power.sum() != 0 else np.zeros(z.shape)


def _polynomial_vjp(z, p, g, order):
    # dp_i/dz_j = order / S (z_i^(order-1) [i = j] - p_i z_j^(order-1)), S = sum z^order
    if not p.any():
        return np.zeros(p.shape)
    masked = np.isneginf(z)
    r, largest = _polynomial_ratio(z), np.abs(z[~masked]).max()
    total = np.where(masked, 0, r**order).sum()
    g = np.where(masked, 0, g)
    return np.where(masked, 0, order * r ** (order - 1) / (total * largest) * (g - p @ g))


def _topk_map(row_map):
    """Return the map of a row whose entries outside the k largest (ties: lowest index) are masked."""

    def map_of_best(z, k):
        if np.isnan(z).any():
            return np.full(z.shape, np.nan)
        best = np.argsort(-z, kind="stable")[: int(min(k, z.size))]
        masked = np.full(z.shape, -np.inf)
        masked[best] = z[best]
        return row_map(masked)

    return map_of_best


# --- the row maps for arrays ----------------------------------------------------------------------


def softmax(z, *, axis=-1):
    """Return weights e^z / sum e^z.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        Weights that sum to 1; a row all masked gives zeros.

    See Also
    --------
    sparsehopfield.softmax : Compute the same in the core.

    Examples
    --------
    >>> import numpy as np
    >>> softmax([0.0, 0.0, -np.inf])
    array([0.5, 0.5, 0. ])
    """
    return _by_rows(_softmax, {"z": z}, axis=axis)


def sparsemax(z, *, axis=-1):
    """Return the point of the simplex nearest to z (2.2).

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        Weights that sum to 1; a row all masked gives zeros.

    See Also
    --------
    sparsehopfield.sparsemax : Compute the same in the core.
    sparsemax_threshold : Compute the threshold, and how many weights are above 0.

    Examples
    --------
    >>> sparsemax([2.0, 1.5, 0.0])
    array([0.75, 0.25, 0.  ])
    """
    return _by_rows(_sparsemax, {"z": z}, axis=axis)


def polynomial(z, order=10, *, axis=-1):
    """Return weights z^order / sum z^order.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask and counts as 0, as are the masked entries of a `numpy.ma` array.
    order : int or array_like of int, at least 1
        The power that scores are raised to.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        Weights that sum to 1, negative ones among them where `order` is odd; zeros where the powers sum to 0.

    See Also
    --------
    sparsehopfield.polynomial : Compute the same in the core.

    Examples
    --------
    >>> polynomial([2.0, 1.0], order=2)
    array([0.8, 0.2])
    """
    return _by_rows(_polynomial, {"z": z}, {"order": order}, axis)


def topk_softmax(z, k, *, axis=-1):
    """Return softmax of the k largest scores, 0 elsewhere.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    k : int or array_like of int, at least 1
        How many scores may have weight; more than n means n, ties go to the lowest index.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        Weights that sum to 1; a row all masked gives zeros.

    See Also
    --------
    sparsehopfield.topk_softmax : Compute the same in the core.

    Examples
    --------
    >>> topk_softmax([1.0, 1.0, 1.0], 2)
    array([0.5, 0.5, 0. ])
    """
    return _by_rows(_topk_map(_softmax), {"z": z}, {"k": k}, axis)


def topk_sparsemax(z, k, *, axis=-1):
    """Return sparsemax of the k largest scores, 0 elsewhere; sparsemax itself if k >= kappa.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    k : int or array_like of int, at least 1
        How many scores may have weight; more than n means n, ties go to the lowest index.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        Weights that sum to 1; a row all masked gives zeros.

    See Also
    --------
    sparsehopfield.topk_sparsemax : Compute the same in the core.

    Examples
    --------
    >>> topk_sparsemax([1.0, 0.5, 0.5], 2)
    array([0.75, 0.25, 0.  ])
    """
    return _by_rows(_topk_map(_sparsemax), {"z": z}, {"k": k}, axis)


def sparsemax_threshold(z, *, axis=-1):
    """Return threshold tau and support size kappa of sparsemax (2.3).

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    axis : int
        Where the rows lie.

    Returns
    -------
    tau : ndarray of float64, shape (...)
        Weights are [z - tau]_+.
    kappa : ndarray of int64, shape (...)
        How many of them are above 0.

    See Also
    --------
    sparsehopfield.sparsemax_threshold : Compute the same in the core.
    sparsemax : Compute the weights.

    Examples
    --------
    >>> tau, kappa = sparsemax_threshold([2.0, 1.5, 0.0])
    >>> float(tau), int(kappa)
    (1.25, 2)
    """
    tau, kappa = _by_rows(_sparsemax_threshold, {"z": z}, axis=axis, numbers=2)
    return tau, kappa.astype(np.int64)


def softmax_vjp(p, g, *, axis=-1):
    """Return g^T times the Jacobian of softmax, from its weights p.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `softmax`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        The gradient in the scores; NaN in rows that hold NaN.

    See Also
    --------
    sparsehopfield.softmax_vjp : Compute the same in the core.

    Examples
    --------
    >>> softmax_vjp([0.5, 0.5], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    return _by_rows(_softmax_vjp, {"p": p, "g": g}, axis=axis)


def sparsemax_vjp(p, g, *, axis=-1):
    """Return g^T times the Jacobian of sparsemax, from its weights p.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `sparsemax`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        The gradient in the scores; NaN in rows that hold NaN.

    See Also
    --------
    sparsehopfield.sparsemax_vjp : Compute the same in the core.

    Examples
    --------
    >>> sparsemax_vjp([0.75, 0.25, 0.0], [1.0, 0.0, 5.0])
    array([ 0.5, -0.5,  0. ])
    """
    return _by_rows(_sparsemax_vjp, {"p": p, "g": g}, axis=axis)


def polynomial_vjp(z, p, g, order=10, *, axis=-1):
    """Return g^T times the Jacobian of polynomial, which is not symmetric.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`: the weights alone do not determine the gradient.
    p : array_like, shape (..., n)
        Weights, the result of `polynomial`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    order : int or array_like of int, at least 1
        The power that scores are raised to.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        The gradient in the scores; NaN in rows that hold NaN.

    See Also
    --------
    sparsehopfield.polynomial_vjp : Compute the same in the core.

    Examples
    --------
    >>> polynomial_vjp([2.0, 1.0], [0.8, 0.2], [1.0, 0.0], order=2)
    array([ 0.16, -0.32])
    """
    return _by_rows(_polynomial_vjp, {"z": z, "p": p, "g": g}, {"order": order}, axis)


def softmax_conjugate(z, *, axis=-1):
    """Return log sum e^z.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (...)
        One number a row.

    See Also
    --------
    sparsehopfield.softmax_conjugate : Compute the same in the core.
    softmax : Compute its gradient.

    Examples
    --------
    >>> round(float(softmax_conjugate([0.0, 0.0])), 6)
    0.693147
    """
    return _by_rows(_softmax_conjugate, {"z": z}, axis=axis, numbers=1)


def sparsemax_conjugate(z, *, axis=-1):
    """Return Psi* of (2.4); its gradient is sparsemax (Corollary 2.1.1).

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (...)
        One number a row.

    See Also
    --------
    sparsehopfield.sparsemax_conjugate : Compute the same in the core.
    sparsemax : Compute its gradient.

    Examples
    --------
    >>> float(sparsemax_conjugate([2.0, 1.0, 0.0]))
    2.0
    """
    return _by_rows(_sparsemax_conjugate, {"z": z}, axis=axis, numbers=1)


def _alpha_map(name, weights, threshold, vjp, vjp_alpha, conjugate):
    """Return the functions for arrays of a map with a parameter alpha, from those for rows."""
    row = MAPS[name]
    standard, parameter = row.standard, row.parameter
    assert parameter is not None

    def of_scores(z, alpha=standard, *, axis=-1):
        return _by_rows(weights, {"z": z}, {"alpha": alpha}, axis)

    def threshold_of(z, alpha=standard, *, axis=-1):
        tau, kappa = _by_rows(threshold, {"z": z}, {"alpha": alpha}, axis, numbers=2)
        return tau, kappa.astype(np.int64)

    def vjp_of(p, g, alpha=standard, *, axis=-1):
        return _by_rows(vjp, {"p": p, "g": g}, {"alpha": alpha}, axis)

    def vjp_alpha_of(p, g, alpha=standard, *, axis=-1):
        return _by_rows(vjp_alpha, {"p": p, "g": g}, {"alpha": alpha}, axis, numbers=1)

    def conjugate_of(z, alpha=standard, *, axis=-1):
        return _by_rows(conjugate, {"z": z}, {"alpha": alpha}, axis, numbers=1)

    functions = of_scores, threshold_of, vjp_of, vjp_alpha_of, conjugate_of
    for function, (part, documentation) in zip(functions, _DOCUMENTATION.items(), strict=True):
        function.__name__ = function.__qualname__ = name + part
        words = {"formula": row.formula, "regulariser": row.regulariser, "bound": parameter.bound}
        function.__doc__ = cleandoc(documentation).format(name=name, **words)
    return functions


#: Of the functions of a map with a parameter alpha, by what their names have behind that of the map.
_DOCUMENTATION = {
    "": """Return the weights of alpha-{name}: {formula}, with sum 1.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    alpha : float or array_like, {bound}
        An array broadcasts to the leading axes, one number a row.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        Weights that sum to 1; a row all masked gives zeros.

    See Also
    --------
    sparsehopfield.{name} : Compute the same in the core.

    Examples
    --------
    >>> {name}([3.0, 0.0, 0.0])
    array([1., 0., 0.])
    """,
    "_threshold": """Return threshold tau and support size kappa of alpha-{name}.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    alpha : float or array_like, {bound}
        As of `{name}`.
    axis : int
        Where the rows lie.

    Returns
    -------
    tau : ndarray of float64, shape (...)
        Weights are {formula}.
    kappa : ndarray of int64, shape (...)
        How many of them are above 0.

    See Also
    --------
    sparsehopfield.{name}_threshold : Compute the same in the core.

    Examples
    --------
    >>> tau, kappa = {name}_threshold([3.0, 2.9, 0.0])
    >>> int(kappa)
    2
    """,
    "_vjp": """Return g^T times the Jacobian of alpha-{name}, from its weights p.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `{name}`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    alpha : float or array_like, {bound}
        As of `{name}`.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (..., n)
        The gradient in the scores; NaN in rows that hold NaN.

    See Also
    --------
    sparsehopfield.{name}_vjp : Compute the same in the core.

    Examples
    --------
    >>> {name}_vjp([0.5, 0.5, 0.0], [1.0, -1.0, 5.0]).round(6)
    array([ 0.707107, -0.707107,  0.      ])
    """,
    "_vjp_alpha": """Return the derivative of <g, {name}(z, alpha)> in alpha, from the weights p.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `{name}`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    alpha : float or array_like, {bound}
        As of `{name}`.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (...)
        One number a row.

    See Also
    --------
    sparsehopfield.{name}_vjp_alpha : Compute the same in the core.

    Examples
    --------
    >>> float({name}_vjp_alpha([0.5, 0.5, 0.0], [1.0, -1.0, 5.0]))  # equal weights stay equal
    0.0
    """,
    "_conjugate": """Return the conjugate of Omega(p) = {regulariser}; its gradient is alpha-{name}.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array.
    alpha : float or array_like, {bound}
        As of `{name}`.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray of float64, shape (...)
        One number a row.

    See Also
    --------
    sparsehopfield.{name}_conjugate : Compute the same in the core.

    Examples
    --------
    >>> float({name}_conjugate([3.0, 0.0, 0.0]))
    3.0
    """,
}

entmax, entmax_threshold, entmax_vjp, entmax_vjp_alpha, entmax_conjugate = _alpha_map(
    "entmax", _entmax, _entmax_threshold, _entmax_vjp, _entmax_vjp_alpha, _entmax_conjugate
)
normmax, normmax_threshold, normmax_vjp, normmax_vjp_alpha, normmax_conjugate = _alpha_map(
    "normmax", _normmax, _normmax_threshold, _normmax_vjp, _normmax_vjp_alpha, _normmax_conjugate
)


# --- Fenchel-Young losses -------------------------------------------------------------------------


def _entmax_loss(z, q, alpha):
    """Return the loss of one row, Omega*(z) + Omega(q) - <z, q>."""
    true = q > 0
    if np.isneginf(z[true]).any() and not np.isnan(z).any():
        return np.inf  # what is true is masked
    best = z.max()
    u = np.log(q[true])
    share = u if alpha == 1 else np.expm1((alpha - 1) * u) / (alpha * (alpha - 1))
    return max(_entmax_conjugate(z - best, alpha) + q[true] @ (share - (z[true] - best)), 0)


def entmax_loss(
    z, target, alpha=1.5, *, axis=-1, ignore_index=-100, reduction="none", sample_weight=None, return_gradient=False
):
    """Return the loss Omega*(z) - z_y of classes y, or that of distributions; and its gradient p - e_y if asked for.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores of n classes, along `axis`; -inf is a mask.
    target : array_like of int, shape (...), or of float, shape (..., n)
        The true classes y, from 0 to n - 1, or `ignore_index`; or distributions q, with the classes on `axis`.
    alpha : float, at least 1
        1 is softmax, 2 sparsemax.
    axis : int
        Where the classes lie.
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"none", "sum", "mean"}
        "elementwise_mean" is the mean, too.
    sample_weight : array_like, shape (...), optional
        What each row's loss is multiplied with; the mean is divided by their sum.
    return_gradient : bool
        Also return the gradient of what is returned in z; of the sum of the losses if they are not reduced.

    Returns
    -------
    loss : ndarray of float64, shape (...), or float
        One number a row, or their sum or mean; inf where a true class is masked.
    gradient : ndarray of float64, shape (..., n)
        If asked for: p - e_y, or p - q, weighted and divided as the loss is.

    See Also
    --------
    sparsehopfield.entmax_loss : Compute the same in the core.

    Examples
    --------
    >>> loss, gradient = entmax_loss([[1.0, 0.0], [3.0, 0.0]], [1, 0], 2.0, return_gradient=True)
    >>> loss, gradient.tolist()
    (array([1., 0.]), [[1.0, -1.0], [0.0, 0.0]])
    """
    z = np.moveaxis(as_filled("z", z, -np.inf).astype(np.float64), axis, -1)
    target = as_array("target", target)
    if target.dtype.kind == "f":
        q = np.moveaxis(_numbers("target", target), axis, -1)
        weights = np.ones(z.shape[:-1])
    else:
        weights = np.where(target == ignore_index, 0.0, 1.0)
        q = np.eye(z.shape[-1])[np.where(target == ignore_index, 0, target)]
    if sample_weight is not None:
        weights = weights * _numbers("sample_weight", sample_weight)
    losses, gradient = np.zeros(weights.shape), np.zeros(z.shape)
    with ignoring_float_errors():
        for i in zip(*np.nonzero(weights), strict=True):
            losses[i] = weights[i] * _entmax_loss(z[i], q[i], alpha)
            gradient[i] = weights[i] * (_entmax(z[i], alpha) - q[i])
        total = weights.sum() if reduction in ("mean", "elementwise_mean") else 1.0
        loss = losses[()] if reduction == "none" else float(losses.sum() / total)
        gradient = np.moveaxis(gradient / total if total else gradient, -1, axis)
    return (loss, gradient) if return_gradient else loss


def softmax_loss(z, target, **options):
    """Return log sum e^z - z_y: cross entropy.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores of n classes, along `axis`; -inf is a mask.
    target : array_like of int, shape (...), or of float, shape (..., n)
        The true classes y, from 0 to n - 1, or `ignore_index`; or distributions q, with the classes on `axis`.
    **options
        Those of `entmax_loss` but `alpha`: axis, ignore_index, reduction, sample_weight, return_gradient.

    Returns
    -------
    ndarray, float, or tuple
        As of `entmax_loss`.

    See Also
    --------
    sparsehopfield.softmax_loss : Compute the same in the core.
    entmax_loss : Describe the options.

    Examples
    --------
    >>> softmax_loss([[0.0, 0.0]], [0]).round(6)
    array([0.693147])
    """
    return entmax_loss(z, target, 1, **options)


def sparsemax_loss(z, target, **options):
    """Return Psi*(z) - z_y with Psi* of (2.4).

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores of n classes, along `axis`; -inf is a mask.
    target : array_like of int, shape (...), or of float, shape (..., n)
        The true classes y, from 0 to n - 1, or `ignore_index`; or distributions q, with the classes on `axis`.
    **options
        Those of `entmax_loss` but `alpha`: axis, ignore_index, reduction, sample_weight, return_gradient.

    Returns
    -------
    ndarray, float, or tuple
        As of `entmax_loss`.

    See Also
    --------
    sparsehopfield.sparsemax_loss : Compute the same in the core.
    entmax_loss : Describe the options.

    Examples
    --------
    >>> sparsemax_loss([[1.0, 0.0], [0.5, 0.0]], [0, 0])
    array([0.    , 0.0625])
    """
    return entmax_loss(z, target, 2, **options)


# --- operations -----------------------------------------------------------------------------------


def _prepare(queries, patterns, beta, similarity):
    """Return queries (N, d), rows (M, d), bias (M,), beta (N,), and the queries' leading shape."""
    queries, rows = _numbers("queries", queries), _numbers("patterns", patterns)
    leading = queries.shape[:-1]
    beta = np.broadcast_to(_numbers("beta", beta), leading).ravel()
    bias = np.zeros(len(rows))
    if similarity == "euclidean":  # with <x, xi> it is -|x - xi|^2 / 2 but for a constant of the query
        bias = -(rows**2).sum(axis=1) / 2
    elif similarity == "cosine":  # the patterns' rows are scaled to length 1
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    elif similarity != "dot":
        raise ValueError(f"similarity: unknown name {similarity!r}")
    return queries.reshape(-1, rows.shape[1]), rows, bias, beta, leading


def _scores(x, rows, bias, similarity, separation):
    """Compute the scores (N, M). Euclidean ones are -|x - xi|^2/2, for the polynomial less the query's own part."""
    if similarity == "euclidean" and row_of(separation_code(separation)).shift_invariant:
        return -np.array([((row - rows) ** 2).sum(axis=1) for row in x]).reshape(len(x), len(rows)) / 2
    return x @ rows.T + bias


def _is_excluded(exclude, leading, m):
    """Return which of m patterns each query excludes, (N, m): one, or none for -1 and without `exclude`."""
    positions = np.broadcast_to(-1 if exclude is None else as_array("exclude", exclude), leading)
    return positions.reshape(-1, 1) == np.arange(m)


def _functions_of_map(separation):
    """Return the row map of a separation, its vjp from scores, weights and the gradient in them, and its conjugate.

    The last is None for maps without an energy.
    """
    code = separation_code(separation)
    row = row_of(code)
    options = code[1:] if row.parameter else ()
    functions = globals()
    row_map, vjp, conjugate = functions[row.name], functions[f"{row.name}_vjp"], functions.get(f"{row.name}_conjugate")
    return (
        lambda z: row_map(z, *options),
        lambda z, p, g: vjp(*([z] if row.vjp_takes_scores else []), p, g, *options),
        conjugate and (lambda z: conjugate(z, *options)),
    )


def _weights(scores, beta, separation):
    """Return the weights (N, M): the map of beta s, shifted for the maps that a shift does not change."""
    row_map = _functions_of_map(separation)[0]
    if not row_of(separation_code(separation)).shift_invariant:  # the polynomial: beta cancels
        return row_map(scores)
    best = scores.max(axis=1, keepdims=True)
    return row_map(beta[:, None] * (scores - np.where(np.isneginf(best), 0, best)))


def _is_topk(structure):
    """Return whether a structure is TopK, whose rows the scores choose."""
    return hasattr(structure, "k") and not hasattr(structure, "seed")


def _visible_scores(scores, structure):
    """Return scores (N, M), -inf where a query does not see: outside a mask, or the k best (ties: lowest position)."""
    if structure is None:
        return scores
    if _is_topk(structure):
        best = np.argsort(-scores, axis=1, kind="stable")[:, : structure.k]
        mask = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(mask, best, True, axis=1)
    else:
        mask = structure.mask(*scores.shape)
    return np.where(mask, scores, -np.inf)


@ignoring_float_errors()
def energy(queries, patterns, beta=1.0, *, similarity="dot", separation="sparsemax", structure=None, exclude=None):
    """Compute E_beta(x) = -Psi*(beta s) / beta + |x|^2 / 2: (2.1) with the 1 / beta that it lacks as printed.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query; N in all.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `sparsehopfield.HopfieldMemory`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, by its `mask`, or `TopK`; all by default.
    exclude : array_like of int, shape (...), optional
        Of each query the position of one pattern that it does not see, or -1.

    Returns
    -------
    ndarray of float64, shape (...)
        The energy of each query.

    Raises
    ------
    ValueError
        For the polynomial, whose update is the gradient step of no energy.

    See Also
    --------
    sparsehopfield.energy : Compute the same in the core.
    update : Make the step that lowers it.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(energy([0.5, 0.4, 0.0], np.eye(3), 4.0)), 6)
    -0.3175
    """
    x, rows, bias, beta, leading = _prepare(queries, patterns, beta, similarity)
    _, _, conjugate = _functions_of_map(separation)
    if conjugate is None:
        raise ValueError("separation: a polynomial update is the gradient step of no energy")
    scores = _scores(x, rows, bias, similarity, separation)
    scores = _visible_scores(np.where(_is_excluded(exclude, leading, len(rows)), -np.inf, scores), structure)
    best = scores.max(axis=1)
    sees_none = np.isneginf(best)  # sees nothing: its update is 0, the energy's gradient x - 0
    best[sees_none] = 0
    conjugate_term = best + np.where(sees_none, 0, conjugate(beta[:, None] * (scores - best[:, None]))) / beta
    result = -conjugate_term + np.where(sees_none | (similarity != "euclidean"), (x**2).sum(axis=1) / 2, 0)
    return result.reshape(leading)[()]


@ignoring_float_errors()
def associate(queries, patterns, beta=1.0, *, similarity="dot", separation="sparsemax", structure=None, exclude=None):
    """Compute the weights p(beta s(x)) of every query, dense (N, M), leading axes flattened.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query; N in all.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `sparsehopfield.HopfieldMemory`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, by its `mask`, or `TopK`; all by default.
    exclude : array_like of int, shape (...), optional
        Of each query the position of one pattern that it does not see, or -1.

    Returns
    -------
    ndarray of float64, shape (N, M)
        The weights of each query, zeros among them.

    See Also
    --------
    sparsehopfield.associate : Compute the same in the core, as a sparse array.
    update : Mix patterns or values by these weights.

    Examples
    --------
    >>> import numpy as np
    >>> associate([0.5, 0.4, 0.0], np.eye(3)).round(3)
    array([[0.533, 0.433, 0.033]])
    """
    x, rows, bias, beta, leading = _prepare(queries, patterns, beta, similarity)
    scores = _scores(x, rows, bias, similarity, separation)
    scores = np.where(_is_excluded(exclude, leading, len(rows)), -np.inf, scores)
    return _weights(_visible_scores(scores, structure), beta, separation)


@ignoring_float_errors()
def update(
    queries,
    patterns,
    beta=1.0,
    *,
    values=None,
    similarity="dot",
    separation="sparsemax",
    structure=None,
    exclude=None,
):
    """Compute T(x) = Xi p(beta Xi^T x) (2.5): one step of retrieval.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query; N in all.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    values : array_like, shape (M, v), optional
        What is mixed; the patterns by default.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `sparsehopfield.HopfieldMemory`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, by its `mask`, or `TopK`; all by default.
    exclude : array_like of int, shape (...), optional
        Of each query the position of one pattern that it does not see, or -1.

    Returns
    -------
    ndarray of float64, shape (..., d), or (..., v) with values
        The states after one step.

    See Also
    --------
    sparsehopfield.update : Compute the same in the core.
    retrieve : Make steps until nothing moves.

    Examples
    --------
    >>> import numpy as np
    >>> update([0.5, 0.4, 0.0], np.eye(3), 4.0).round(6)
    array([0.7, 0.3, 0. ])
    """
    _, rows, _, _, leading = _prepare(queries, patterns, beta, similarity)
    options = {"similarity": similarity, "separation": separation, "structure": structure, "exclude": exclude}
    weights = associate(queries, patterns, beta, **options)
    values = rows if values is None else _numbers("values", values)
    return (weights @ values).reshape(*leading, values.shape[1])


@ignoring_float_errors()
def retrieve(
    queries,
    patterns,
    beta=1.0,
    *,
    values=None,
    max_steps=1000,
    tol=None,
    return_info=False,
    similarity="dot",
    separation="sparsemax",
    structure=None,
    exclude=None,
):
    """Update x_{t+1} = T(x_t) until a step moves x by at most tol max|xi| (Lemma 2.2) of the patterns that it sees.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query; N in all.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    values : array_like, shape (M, v), optional
        Mixed by the weights of the last step; steps go on the patterns.
    max_steps : int, at least 0
        Steps at most.
    tol : float, at least 0, optional
        A query rests after a step that moves it by at most `tol * max |xi|`, in Euclidean length; by default 4 eps.
    return_info : bool
        Also return how it went.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `sparsehopfield.HopfieldMemory`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, by its `mask`, or `TopK`; all by default.
    exclude : array_like of int, shape (...), optional
        Of each query the position of one pattern that it does not see, or -1.

    Returns
    -------
    states : ndarray of float64, shape (..., d), or (..., v) with values
        Where retrieval ended.
    info : SimpleNamespace
        If asked for: `steps`, `converged`, `support_size` and `states` of each query, and the `weights` (N, M) of the
        last step.

    See Also
    --------
    sparsehopfield.retrieve : Compute the same in the core.
    update : Make one step.

    Examples
    --------
    >>> import numpy as np
    >>> states, info = retrieve([[0.5, 0.4, 0.0]], np.eye(3), 4.0, return_info=True)
    >>> states.tolist(), info.steps.tolist(), info.support_size.tolist()
    ([[1.0, 0.0, 0.0]], [3], [1])
    """
    states, rows, _, beta, leading = _prepare(queries, patterns, beta, similarity)
    tol = 4 * np.finfo(np.float64).eps if tol is None else tol
    is_excluded = _is_excluded(exclude, leading, len(rows))
    tolerance = tol * np.where(is_excluded, 0, np.linalg.norm(rows, axis=1)).max(axis=1)
    states = states.copy()
    exclude = np.where(is_excluded.any(axis=1), is_excluded.argmax(axis=1), -1)  # one each of N
    options = {"similarity": similarity, "separation": separation, "structure": structure, "exclude": exclude}
    steps = np.zeros(len(states), dtype=np.int64)
    converged = np.zeros(len(states), dtype=bool)
    weights = np.zeros((len(states), len(rows)))
    for _ in range(max_steps):
        moving = ~converged
        if not moving.any():
            break
        weights[moving] = associate(states, patterns, beta, **options)[moving]  # all, for their places
        new = weights[moving] @ rows
        converged[moving] = np.linalg.norm(new - states[moving], axis=1) <= tolerance[moving]
        states[moving] = new
        steps[moving] += 1
    result = states if values is None or max_steps == 0 else weights @ _numbers("values", values)
    result = result.reshape(*leading, result.shape[1])
    if not return_info:
        return result
    return result, SimpleNamespace(
        steps=steps.reshape(leading),
        converged=converged.reshape(leading),
        weights=weights,
        support_size=np.count_nonzero(weights, axis=1).reshape(leading),
        states=states.reshape(*leading, -1),
    )


def _kernel_mean(log_kernel, values, causal, leading):
    """Average values by a kernel (N, M), given as its logarithm; zeros for a query whose kernel is zero throughout."""
    if causal:  # query i sees patterns 0 to i
        log_kernel = np.where(np.tri(*log_kernel.shape) > 0, log_kernel, -np.inf)
    return (softmax(log_kernel) @ values).reshape(*leading, values.shape[1])


@ignoring_float_errors()
def update_linear(queries, patterns, beta=1.0, *, kind="elu+1", values=None, similarity="dot", causal=False):
    """Compute T(x) with the kernel <phi(sqrt(beta) x), phi(sqrt(beta) xi)>, phi elu + 1 or relu: Katharopoulos 2020.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query; N in all.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    kind : {"elu+1", "relu"}
        What phi is, of each feature.
    values : array_like, shape (M, v), optional
        What is mixed; the patterns by default.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `sparsehopfield.HopfieldMemory`.
    causal : bool
        Whether query i sees patterns 0 to i alone.

    Returns
    -------
    ndarray of float64, shape (..., d), or (..., v) with values
        The states after one step; zeros for a query whose kernel is zero for all patterns.

    See Also
    --------
    sparsehopfield.structures.LinearFeatures : Compute the same in the core.

    Examples
    --------
    >>> import numpy as np
    >>> update_linear([[1.0, 0.0]], np.eye(2)).round(6)  # phi is (2, 1) of the query, and of the first pattern
    array([[0.555556, 0.444444]])
    """
    x, rows, _, _, leading = _prepare(queries, patterns, beta, similarity)
    log_phi = [
        np.log(np.maximum(a, 0)) if kind == "relu" else np.minimum(a, 0) + np.log1p(np.maximum(a, 0))
        for a in (math.sqrt(beta) * x, math.sqrt(beta) * rows)
    ]
    terms = log_phi[0][:, None] + log_phi[1]  # (N, M, D)
    return _kernel_mean(_log_sum(terms), rows if values is None else _numbers("values", values), causal, leading)


@ignoring_float_errors()
def update_random(queries, patterns, projection, beta=1.0, *, values=None, similarity="dot", causal=False):
    """Compute T(x) with the kernel <phi(x), phi(xi)>, phi(x) = exp(sqrt(beta) W x - beta |x|^2/2).

    See Choromanski et al. 2021. A bias b of a score enters its exponent as beta b.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query; N in all.
    patterns : array_like, shape (M, d)
        One row a pattern.
    projection : ndarray of float, shape (D, d)
        W: one row a random feature.
    beta : float, positive
        Inverse temperature.
    values : array_like, shape (M, v), optional
        What is mixed; the patterns by default.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `sparsehopfield.HopfieldMemory`.
    causal : bool
        Whether query i sees patterns 0 to i alone.

    Returns
    -------
    ndarray of float64, shape (..., d), or (..., v) with values
        The states after one step.

    See Also
    --------
    sparsehopfield.structures.RandomFeatures : Draw W, and compute the same in the core.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.random.default_rng(0).standard_normal((1000, 2))
    >>> update_random([[1.0, 0.0]], np.eye(2), W).round(1), softmax([1.0, 0.0]).round(1)  # which it comes near
    (array([[0.7, 0.3]]), array([0.7, 0.3]))
    """
    x, rows, bias, _, leading = _prepare(queries, patterns, beta, similarity)
    log_phi = [math.sqrt(beta) * (a @ projection.T) - beta * (a**2).sum(axis=1)[:, None] / 2 for a in (x, rows)]
    terms = log_phi[0][:, None] + log_phi[1] + beta * bias[:, None]
    return _kernel_mean(_log_sum(terms), rows if values is None else _numbers("values", values), causal, leading)


def _log_sum(terms):
    """Compute log sum exp over the last axis."""
    best = terms.max(axis=-1, keepdims=True)
    best[np.isneginf(best)] = 0
    return np.log(np.exp(terms - best).sum(axis=-1)) + best[..., 0]


# --- the dot product that decides -----------------------------------------------------------------


def _canonical_dot(a, b):
    """Compute <a, b> along the last axis in the one order that the C core uses for candidates.

    32 interleaved partial sums in double: lane j takes the features j, j + 32, ...; then a pairwise tree over
    the lanes. Products of float32 numbers are exact in double, so the order alone fixes the bits.
    """
    products = a * b
    blocks = -(-products.shape[-1] // 32)
    padded = np.zeros((*products.shape[:-1], blocks * 32))
    padded[..., : products.shape[-1]] = products
    lanes = np.zeros((*products.shape[:-1], 32))
    for block in np.moveaxis(padded.reshape(*products.shape[:-1], blocks, 32), -2, 0):
        lanes = lanes + block
    for width in (16, 8, 4, 2, 1):
        lanes = lanes[..., :width] + lanes[..., width : 2 * width]
    return lanes[..., 0]


@ignoring_float_errors()
def canonical_scores(queries, patterns, similarity="dot"):
    """Compute scores by the canonical dot product: the C core's, bit for bit, for float32 and uint8 input.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query; N in all.
    patterns : array_like, shape (M, d)
        One row a pattern.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `sparsehopfield.HopfieldMemory`.

    Returns
    -------
    ndarray of float64, shape (N, M)
        `<x, xi>`, `-|x - xi|^2/2`, or `<x, xi/|xi|>`.

    See Also
    --------
    sparsehopfield.HopfieldMemory.nearest : Find the best of these scores in the core.

    Examples
    --------
    >>> canonical_scores([[1.0, 2.0]], [[3.0, 4.0], [0.0, 2.0]], "euclidean")
    array([[-4. , -0.5]])
    """
    queries, patterns = _numbers("queries", queries), _numbers("patterns", patterns)
    queries = queries.reshape(-1, patterns.shape[1])
    if similarity == "euclidean":
        return np.stack([0 - _canonical_dot(x - patterns, x - patterns) / 2 for x in queries])
    scores = np.stack([_canonical_dot(x, patterns) for x in queries])
    if similarity == "cosine":
        scores = scores * (1 / np.sqrt(_canonical_dot(patterns, patterns)))
    return scores


# --- the layers' association ----------------------------------------------------------------------
#
# Letters: B samples, N queries and M stored rows of each, H heads, t the update. Stored rows of head h are k_j, or
# W_h k_j + b_h with a key projection; values likewise.


def _hash(x):
    """Hash 32-bit numbers by the function lowbias32."""
    x = x.astype(np.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def dropout_factors(rate, seed, query, n):
    """Return what weights j = 0 .. n-1 of query number `query` are multiplied by: 0 at this rate, else 1/(1 - rate).

    A counter, hashed, decides, so that factors depend neither on threads nor on what else is computed.
    """
    low, high = np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32 & 0xFFFFFFFF)
    key = _hash(np.array([query & 0xFFFFFFFF], np.uint32) ^ low)
    key = _hash(key ^ np.uint32(query >> 32) ^ high)
    drawn = _hash(key ^ (np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9)))
    return np.where(drawn < np.uint32(min(round(rate * 2**32), 2**32 - 1)), 0, 1 / (1 - rate))


def _association_rows(a, b, h, offsets, projection):
    """Return the rows (M, d) of sample b and head h, which may be shared by all, as they are or projected."""
    rows = a[offsets[b] : offsets[b + 1]] if offsets is not None else a if a.ndim == 3 else a[b]
    rows = rows[:, h if rows.shape[1] > 1 else 0]
    return rows if projection is None else rows @ projection[0][h].T + projection[1][h]


def _visible_rows(structure, queries, rows, appended):
    """Return which rows of one sample its queries see, (queries, rows) of bool: appended rows in any case."""
    structured_rows, mask = rows - appended, np.ones((queries, rows), dtype=bool)
    if structured_rows == 0 or structure is None or _is_topk(structure):
        return mask
    if hasattr(structure, "positions"):  # a query at a place that the sample does not have sees none of its rows
        places = np.arange(queries) if structure.positions is None else np.asarray(structure.positions)
        in_sample = replace(structure, positions=np.minimum(places, structured_rows - 1))
        if hasattr(structure, "global_positions"):
            in_sample = replace(
                in_sample, global_positions=[j for j in structure.global_positions if j < structured_rows]
            )
        mask[:, :structured_rows] = in_sample.mask(queries, structured_rows) & (places < structured_rows)[:, None]
    else:
        in_sample = replace(structure, k=min(structure.k, structured_rows)) if hasattr(structure, "k") else structure
        mask[:, :structured_rows] = in_sample.mask(queries, structured_rows)
    return mask


@ignoring_float_errors()
def associate_forward(
    queries,
    stored,
    values,
    beta,
    *,
    separation="sparsemax",
    update_steps_max=0,
    update_steps_eps=1e-4,
    padding_mask=None,
    mask=None,
    offsets=None,
    dropout=0.0,
    seed=0,
    gradient="unrolled",
    key_projection=None,
    value_projection=None,
    structure=None,
    appended=0,
):
    """Mix values (B, N, H, v) by the last association of x <- sum_j p_j k_j, p = separation(beta k x + mask).

    Return them, and what `associate_backward` needs. Every query stops by itself: after `update_steps_max` updates,
    or when its weights move by at most `update_steps_eps` in the Euclidean norm.
    """
    queries, stored, values = _numbers("queries", queries), _numbers("stored", stored), _numbers("values", values)
    if queries.ndim == 3:
        samples = len(offsets) - 1 if offsets is not None else len(stored) if stored.ndim == 4 else 1
        queries = np.broadcast_to(queries, (samples, *queries.shape))
    B, N, H, _ = queries.shape
    beta = np.broadcast_to(_numbers("beta", beta), (H,))
    mask = None if mask is None else as_array("mask", mask)
    row_map = _functions_of_map(separation)[0]
    last = np.inf if update_steps_max is None or update_steps_max < 0 else update_steps_max
    out, tapes = None, {}
    for b, h in np.ndindex(B, H):
        K = _association_rows(stored, b, h, offsets, key_projection)
        V = _association_rows(values, b, h, offsets, value_projection)
        if out is None:
            out = np.zeros((B, N, H, V.shape[1]))
        bias = np.zeros((N, len(K)))
        if mask is not None:
            bias = bias + (np.where(mask, -np.inf, 0) if mask.dtype == bool else mask)[..., : len(K)]
            bias = bias if bias.ndim == 2 else bias[b] if bias.ndim == 3 else bias[b, h if bias.shape[1] > 1 else 0]
        if padding_mask is not None:
            bias = np.where(padding_mask[b], -np.inf, bias)
        bias = np.where(_visible_rows(structure, N, len(K), appended), bias, -np.inf)
        for n in range(N):
            x, before, tape = queries[b, n, h], None, []
            while True:
                z = beta[h] * (K @ x) + bias[n]
                z = _visible_scores(z[None], structure)[0] if _is_topk(structure) else z
                p = row_map(z) if len(K) else z
                tape.append((x, z, p))
                if len(tape) > last or (before is not None and np.linalg.norm(p - before) <= update_steps_eps):
                    break
                x, before = p @ K, p
            factors = dropout_factors(dropout, seed, (b * N + n) * H + h, len(K)) if dropout else np.ones(len(K))
            out[b, n, h] = (factors * p) @ V
            tapes[b, n, h] = tape, factors
    saved = SimpleNamespace(
        queries=queries,
        stored=stored,
        values=values,
        beta=beta,
        separation=separation,
        offsets=offsets,
        gradient=gradient,
        key_projection=key_projection,
        value_projection=value_projection,
        tapes=tapes,
    )
    return out, saved


@ignoring_float_errors()
def associate_backward(saved, grad):
    """Compute the gradients of sum(grad * out) in queries, stored rows, values and beta, and in projections if given.

    With p = separation(beta K x): dp = V g, dz = vjp(dp), dV += p g, dK += beta dz x, dx = beta K^T dz, and the
    gradient of an update x' = p K is the same with V = K. gradient="implicit": at a fixed point x = T(x) the
    gradient of x solves (1 - J) l = dx with J the Jacobian of T, which is symmetric, and l passes through one update;
    LinAlgError where 1 - J, the Hessian of the energy, is not positive definite: the point is no stable one.
    """
    s, vjp, grad = saved, _functions_of_map(saved.separation)[1], _numbers("grad", grad)
    dq, dk, dv = (np.zeros(a.shape) for a in (s.queries, s.stored, s.values))
    dbeta = np.zeros(s.beta.shape)
    dkp, dvp = (None if p is None else tuple(map(np.zeros_like, p)) for p in (s.key_projection, s.value_projection))
    for (b, n, h), (tape, factors) in s.tapes.items():
        K = _association_rows(s.stored, b, h, s.offsets, s.key_projection)
        V = _association_rows(s.values, b, h, s.offsets, s.value_projection)
        if not len(K):
            continue
        dK, dV, g = np.zeros(K.shape), np.zeros(V.shape), grad[b, n, h]

        def through(x, z, p, dp, dK=dK, K=K, h=h):
            dz = vjp(z, p, dp)
            dbeta[h] += dz @ (K @ x)
            dK += s.beta[h] * np.outer(dz, x)
            return s.beta[h] * dz @ K

        for t, (x, z, p) in reversed(list(enumerate(tape))):
            if t == len(tape) - 1:
                dV += np.outer(factors * p, g)
                g = through(x, z, p, factors * (V @ g))
                if s.gradient == "implicit" and len(tape) > 1:
                    J = s.beta[h] * np.stack([vjp(z, p, column) for column in K.T]) @ K
                    np.linalg.cholesky(np.eye(len(x)) - J)
                    g = np.linalg.solve(np.eye(len(x)) - J, g)
                    dK += np.outer(p, g)
                    through(x, z, p, K @ g)
                    g = np.zeros(len(x))
                    break
            else:
                dK += np.outer(p, g)
                g = through(x, z, p, K @ g)
        dq[b, n, h] += g
        for a, d, da, p, dp in ((s.stored, dK, dk, s.key_projection, dkp), (s.values, dV, dv, s.value_projection, dvp)):
            where = (slice(s.offsets[b], s.offsets[b + 1]) if s.offsets is not None else slice(None),)
            where = where if a.ndim == 3 else (b,)
            head = h if a.shape[-2] > 1 else 0
            if p is None or dp is None:
                da[where][:, head] += d
            else:
                da[where][:, head] += d @ p[0][h]
                dp[0][h] += d.T @ _association_rows(a, b, h, s.offsets, None)
                dp[1][h] += d.sum(axis=0)
    return (dq, dk, dv, dbeta) + ((dkp, dvp) if dkp is not None or dvp is not None else ())
