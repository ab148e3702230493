"""Capacities: how many random patterns on a sphere are stored."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sparsehopfield._engine.checks import as_flag, as_number, as_whole
from sparsehopfield.theory._patterns import SLACK, as_single_beta


def _exp_or_inf(x: float) -> float:
    """Return exp(x), or inf where that exceeds the largest float64."""
    return math.exp(x) if x < 709.78 else math.inf


def _as_positive(name: str, number: Any) -> float:
    """Check and return a number that must be positive and finite."""
    x = as_number(name, number, least=0)
    if x == 0:
        raise ValueError(f"{name}: must be positive and finite, got {number}")
    return x


def _as_sphere(d: Any, m: Any, beta: ArrayLike, p: Any) -> tuple[int, float, float, float]:
    """Check what the capacities share; return dimension, radius of the sphere, beta, probability of failure."""
    dimension = as_whole("d", d, 2)  # d = 1 has no (d - 1)-th root, and a sphere of two points
    risk = as_number("p", p, least=0)
    if not 0 < risk < 1:
        raise ValueError(f"p: must lie between 0 and 1, the probability of failure, got {p}")
    return dimension, _as_positive("m", m), as_single_beta(beta), risk


@dataclass(frozen=True)
class CapacityBound:
    """A number of random patterns that are stored, by the Lambert bound M = sqrt(p) C^((d-1)/4).

    Attributes
    ----------
    a : float
        The parameter of C that depends on the probability of failure and the radius.
    b : float
        The one that grows with beta m^2: C = b/W(exp(a + ln b)), W the principal branch of Lambert's function.
    C : float
        The patterns keep angles of at least C^(-1/2); inf where it exceeds the largest float64.
    M : float
        The number of patterns, not rounded; inf where it exceeds the largest float64.
    log_M : float
        Its natural logarithm, which is finite.

    See Also
    --------
    capacity_bound : Compute lemma 3.1, corrected.
    dense_capacity_bound : Compute the bound of the dense model.
    ExactCapacity : The number that really is stored, which is far larger.

    Examples
    --------
    >>> bound = capacity_bound(d=20, m=1.0, beta=100.0, p=0.1, radius=0.005)
    >>> round(bound.M, 2), round(bound.C, 4)
    (11.32, 2.1237)
    >>> capacity_bound(d=20, m=1.0, beta=1.0, p=0.1, radius=0.005).is_empty  # at so small a beta it says nothing
    True
    """

    a: float
    b: float
    C: float
    M: float
    log_M: float

    @property
    def is_empty(self) -> bool:
        """Return whether M is below 2: a bound that says nothing, as a single pattern is always stored."""
        return self.log_M < math.log(2)


def _lambert_bound(d: int, p: float, a: float, log_b: float) -> CapacityBound:
    """Solve C = b/W(exp(a + ln b)), W the principal branch of Lambert's function, and return the bound."""
    # With w = b/C, w + ln w = a + ln b: w is the Wright omega function there, and exp(a + ln b) need not be formed.
    w = float(special.wrightomega(a + log_b))
    log_c = w - a if w < 1 else log_b - math.log(w)  # equal; each where it does not cancel
    log_m = math.log(p) / 2 + (d - 1) / 4 * log_c
    return CapacityBound(a, _exp_or_inf(log_b), _exp_or_inf(log_c), _exp_or_inf(log_m), log_m)


def capacity_bound(
    d: int,
    m: float,
    beta: ArrayLike,
    p: float,
    radius: float,
    delta: float = 0.0,
    *,
    strict: bool = True,
    as_printed: bool = False,
) -> CapacityBound:
    """Compute lemma 3.1, corrected: M random patterns on a sphere that are all retrieved from radius R with probability
    1 - p.

    Parameters
    ----------
    d : int, at least 2
        Features of a pattern.
    m : float, positive
        Radius of the sphere that patterns are drawn from, uniformly. Of data of other kinds the lemma says nothing.
    beta : float, positive
        Inverse temperature.
    p : float, between 0 and 1
        Probability of failure.
    radius : float, at least 0
        R, from which patterns are to be retrieved with error at most R. To be chosen: with half the smallest distance
        the condition that the lemma counts is infeasible (`well_separated`).
    delta : float
        Dense less sparse error. radius + delta must be positive.
    strict : bool
        False puts the paper's 1 in the place of 2 beta m R, which it must be at least.
    as_printed : bool
        True raises, and says why.

    Returns
    -------
    CapacityBound
        a = 4/(d-1) (ln(2m sqrt(p)/(R + delta)) + 2 beta m R), b = 4 m^2 beta/(5 (d-1)).

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Warns
    -----
    UserWarning
        If radius exceeds m: balls that large around points of the sphere cannot be disjoint.

    See Also
    --------
    exact_capacity : Count the patterns that really are stored, which are far more.
    dense_capacity_bound : Compute the bound of the dense model.
    well_separated : Check the condition of corollary 3.1.1 for patterns at hand.

    Notes
    -----
    As printed a has sqrt(p) - 1, negative for every p < 1, in its logarithm: **undefined**. The corrected bound
    **holds**. Proof: for two uniform points P(angle < t) <= sin^(d-1)(t)/2 up to a right angle, so by a union bound all
    M = sqrt(p) C^((d-1)/4) >= 2 patterns keep angles of at least C^(-1/2) with probability at least 1 - p/4. Then
    Delta >= m^2 (1 - cos C^(-1/2)) >= m^2/(5C), and C solves m^2/(5C) = 2mR + ln(2Mm/(R + delta))/beta, which is
    corollary 3.1.1.

    It is very loose (`exact_capacity`), and saturates: C < m/(10R) for every beta, where M >= 2. "M >= M_dense" is true
    iff delta >= 0 (d ln M/d delta = 1/((R + delta)(1 + b/C))); the gain is a factor of at most 1 + delta/R, never
    another exponent, and delta falls to 0 as beta grows. So the claim **fails** wherever theorem 2.2 does, and "for
    sufficiently large beta" it **fails** at every fixed R beside the dense bound of the literature
    (`dense_capacity_bound`), whose C grows without limit.

    References
    ----------
    Hu et al. 2023, lemma 3.1; Corless et al. 1996 for Lambert's and Wright's functions.

    Examples
    --------
    >>> bound = capacity_bound(d=20, m=1.0, beta=100.0, p=0.1, radius=0.005)
    >>> round(bound.M, 2), bound.is_empty
    (11.32, False)
    """
    dimension, length, b, risk = _as_sphere(d, m, beta, p)
    r = as_number("radius", radius, least=0)
    difference = as_number("delta", delta, least=-np.finfo(np.float64).max)
    if as_flag("as_printed", as_printed):
        raise ValueError(
            "as_printed: the lemma's a contains ln(2m(sqrt(p) - 1)/(R + delta)), and sqrt(p) - 1 is negative for every "
            "p < 1: there is no such number"
        )
    if not 0 < r + difference < math.inf:
        raise ValueError(f"delta: radius + delta must be positive and finite, got {r + difference:g}")
    if r > length:
        warnings.warn(f"radius: {r:g} exceeds the sphere's {length:g}; such balls are not disjoint", stacklevel=2)
    spread = 2 * b * length * r
    is_strict = as_flag("strict", strict)
    if not is_strict and spread > 1 + SLACK:
        raise ValueError(f"strict: False takes 2 beta m radius for at most 1, but it is {spread:g}")
    log_ratio = math.log(2) + math.log(length) + math.log(risk) / 2 - math.log(r + difference)
    a = 4 / (dimension - 1) * (log_ratio + (spread if is_strict else 1.0))
    log_b = math.log(0.8) + 2 * math.log(length) + math.log(b) - math.log(dimension - 1)
    return _lambert_bound(dimension, risk, a, log_b)


def dense_capacity_bound(d: int, m: float, beta: ArrayLike, p: float) -> CapacityBound:
    """Compute the dense model's capacity in the literature, which lemma 3.1 follows.

    Parameters
    ----------
    d : int, at least 2
        Features of a pattern.
    m : float, positive
        Radius of the sphere that patterns are drawn from; K sqrt(d - 1) in the source.
    beta : float, positive
        Inverse temperature.
    p : float, between 0 and 1
        Probability of failure.

    Returns
    -------
    CapacityBound
        a = 2/(d-1) (1 + ln(2 beta m^2 p)), b = 2 m^2 beta/(5 (d-1)).

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    capacity_bound : Compute that of the sparse model.
    exact_capacity : Count the patterns that the sparse model stores exactly.

    Notes
    -----
    Claimed where C >= (2/sqrt(p))^(4/(d-1)), which is M >= 2: elsewhere `is_empty`. It asks for a smaller error than
    `capacity_bound`: R = 1/(beta m M) where that one has R fixed, which is why each can be the larger.

    References
    ----------
    Ramsauer et al. 2020, theorem 3.

    Examples
    --------
    >>> round(dense_capacity_bound(d=20, m=3 * 19**0.5, beta=1.0, p=0.001).C, 6)
    3.154611
    """
    dimension, length, b, risk = _as_sphere(d, m, beta, p)
    log_square = 2 * math.log(length) + math.log(b)  # of beta m^2
    a = 2 / (dimension - 1) * (1 + math.log(2) + log_square + math.log(risk))
    return _lambert_bound(dimension, risk, a, math.log(0.4) + log_square - math.log(dimension - 1))


@dataclass(frozen=True)
class ExactCapacity:
    """A number of random patterns that are exact fixed points, each with an exact basin of radius r.

    Attributes
    ----------
    D : float
        The least distance that two patterns must keep.
    F : float
        Probability that two random patterns are closer; may underflow to 0.
    log_F : float
        Its natural logarithm, which does not.
    M : float
        Number of patterns, not rounded, at least 1; inf where it overflows.
    log_M : float
        Its natural logarithm.
    weak_M : float
        The closed form sqrt(p) (beta m^2/5)^((d-1)/4), for radius 0.
    log_weak_M : float
        Its natural logarithm.

    See Also
    --------
    exact_capacity : Compute it.
    capacity_bound : Compute what lemma 3.1 promises, which is far less.
    sparsehopfield.HopfieldMemory.capacity : Compute it for patterns with the spread of those that a memory stores.

    Examples
    --------
    >>> capacity = exact_capacity(d=64, m=1.0, beta=100.0, p=0.1)
    >>> round(capacity.D, 4), f"{capacity.M:.1e}"
    (0.1414, '1.2e+27')
    """

    D: float
    F: float
    log_F: float
    M: float
    log_M: float
    weak_M: float
    log_weak_M: float


def _log_cap_probability(log_s: float, a: float) -> float:
    """Return ln of I_x(a, 1/2)/2, where x = sin^2 of twice the angle whose sine is s, at most a right angle."""
    s = math.exp(log_s)
    log_x = min(2 * (math.log(2) + log_s) + math.log1p(-s * s), 0.0)
    cap = float(special.betainc(a, 0.5, math.exp(log_x)))
    if cap > 1e-290:
        return math.log(cap / 2)
    # I = x^a/(a B(a, 1/2)) J with J the mean of 1/sqrt(1 - x exp(-t/a)) under exp(-t). Where I is this small, a |ln x|
    # is in the hundreds, so that the nearest singularity, t = a ln x, is far away and 32 nodes give all digits.
    t, weight = np.polynomial.laguerre.laggauss(32)
    j = float(weight @ (-np.expm1(log_x - t / a)) ** -0.5)
    return a * log_x - math.log(2 * a) - float(special.betaln(a, 0.5)) + math.log(j)


def exact_capacity(d: int, m: float, beta: ArrayLike, p: float, radius: float = 0.0) -> ExactCapacity:
    """Compute how many random patterns on a sphere all have an exact radius of at least r, with probability 1 - p.

    Parameters
    ----------
    d : int, at least 2
        Features of a pattern.
    m : float, positive
        Radius of the sphere that patterns are drawn from, uniformly.
    beta : float, positive
        Inverse temperature.
    p : float, between 0 and 1
        Probability of failure.
    radius : float, at least 0
        Every query within this distance of a pattern, r, is sent to exactly this pattern in one step.

    Returns
    -------
    ExactCapacity
        M = 1 where two patterns cannot be as far apart as D.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    exact_radius : Compute the radius for patterns at hand.
    capacity_bound : Compute what lemma 3.1 promises, which is far less.
    sparsehopfield.HopfieldMemory.capacity : Compute it for patterns with the spread of those that a memory stores.

    Notes
    -----
    Not in the paper; it takes the place of lemma 3.1. Proof: patterns of equal length have `exact_radius`
    D/2 - 1/(beta D) >= r iff their distances are at least D = r + sqrt(r^2 + 2/beta), that is angles of at least
    alpha = 2 arcsin(D/2m). Two uniform points are closer with probability F, half the regularised incomplete beta
    function I of sin^2(alpha) at ((d-1)/2, 1/2) up to a right angle, beyond it one minus that; the union bound
    M (M - 1)/2 F <= p is solved for M. Nearly tight: at this M, as many draws in simulations succeed as 1 - p says.
    The closed form is the literature's; F <= (D/m)^(d-1)/2 gives more, 2 sqrt(p) (beta m^2/2)^((d-1)/4).

    Examples
    --------
    >>> capacity = exact_capacity(d=64, m=1.0, beta=100.0, p=0.1, radius=0.005)
    >>> f"{capacity.M:.3e}"
    '4.078e+26'
    """
    dimension, length, b, risk = _as_sphere(d, m, beta, p)
    r = as_number("radius", radius, least=0)
    distance = r + math.hypot(r, math.sqrt(2) / math.sqrt(b))
    log_s, a = math.log(distance) - math.log(length) - math.log(2), (dimension - 1) / 2
    s = distance / length / 2
    if s > 1:
        log_f = 0.0
    elif 2 * s * s > 1:
        log_f = math.log1p(-float(special.betainc(a, 0.5, 4 * s * s * (1 - s * s))) / 2)
    else:
        log_f = _log_cap_probability(log_s, a)
    # M = (1 + sqrt(1 + q))/2 with q = 8p/F, from half the logarithm of q
    h = (math.log(8) + math.log(risk) - log_f) / 2
    log_m = 0.0 if s > 1 else h - math.log(2) + math.asinh(_exp_or_inf(-h))
    log_weak = math.log(risk) / 2 + (dimension - 1) / 4 * (math.log(b) + 2 * math.log(length) - math.log(5))
    return ExactCapacity(distance, math.exp(log_f), log_f, _exp_or_inf(log_m), log_m, _exp_or_inf(log_weak), log_weak)
