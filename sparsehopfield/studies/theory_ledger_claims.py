"""The claims of the papers, and what is true instead, as inequalities that are evaluated on trials.

A claim says of every trial (patterns, a query, the pattern it is to find, beta) that one number is at most another,
wherever its condition is met. What is a yes or no is written with the numbers 0 and 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield.errors import RetrievalWarning
from sparsehopfield.functional import energy, retrieve, softmax, sparsemax, sparsemax_conjugate, update

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SLACK = 1e-9  # of an excess, which is relative to the claim's scale: rounding is no violation
RISK = 0.1  # the probability p of failure that lemma 3.1 is asked with
STEPS = 1000  # updates at most; queries that still move then have no limit
HOLDS, FAILS, VACUOUS, INFEASIBLE, UNDEFINED = "HOLDS", "FAILS", "VACUOUS", "INFEASIBLE", "UNDEFINED"


# --- trials, and what a claim comes to on them ------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trials:
    """Queries to one set of patterns, each with the pattern that it is to find, at one beta.

    Attributes
    ----------
    patterns : ndarray of shape (M, d)
    queries : ndarray of shape (n, d)
    index : ndarray of int, shape (n,)
    beta : float
    """

    patterns: Floats
    queries: Floats
    index: NDArray[np.int64]
    beta: float

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def m(self) -> float:
        """The largest length of a pattern."""
        return float(np.linalg.norm(self.patterns, axis=1).max())

    @cached_property
    def radius(self) -> float:
        """R of the papers' spheres, with mu != nu."""
        return theory.min_half_distance(self.patterns)

    @cached_property
    def own(self) -> Floats:
        """The patterns meant, (n, d)."""
        return self.patterns[self.index]

    @cached_property
    def distance(self) -> Floats:
        """From the pattern meant."""
        return np.linalg.norm(self.queries - self.own, axis=1)

    @cached_property
    def near(self) -> Bools:
        """Whether queries are in the sphere of their pattern."""
        return self.distance <= self.radius

    @cached_property
    def farthest(self) -> Floats:
        """The largest distance of a pattern from the one meant."""
        return cdist(self.own, self.patterns).max(axis=1)

    @cached_property
    def everywhere(self) -> Bools:
        """True for every query."""
        return np.ones(len(self), np.bool_)

    @cached_property
    def scores(self) -> Floats:
        """Times beta, (n, M)."""
        return self.beta * self.queries @ self.patterns.T

    @cached_property
    def sparse(self) -> Floats:
        """Error of one step with sparsemax."""
        return theory.retrieval_error(self.queries, self.patterns, self.index, self.beta)

    @cached_property
    def dense(self) -> Floats:
        """Error of one step with softmax."""
        return theory.retrieval_error(self.queries, self.patterns, self.index, self.beta, separation="softmax")

    @cached_property
    def limits(self) -> tuple[Floats, Bools]:
        """Where queries come to rest, and whether they do."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RetrievalWarning)
            states, info = retrieve(self.queries, self.patterns, self.beta, max_steps=STEPS, return_info=True)
        return states, info.converged

    def bound(self, rule: str) -> Floats:
        """A bound on the error of one step."""
        return theory.retrieval_bound(self.queries, self.patterns, self.index, self.beta, rule=rule)

    def separated(self, rule: str) -> Bools:
        """Where a condition of separation is met."""
        return theory.well_separated(self.queries, self.patterns, self.index, self.beta, rule=rule)

    def energy(self, x: Floats) -> Floats:
        """With the 1/beta."""
        return energy(x, self.patterns, self.beta)

    @property
    def energies(self) -> float:
        """A scale of energies."""
        return self.m**2 + 1 / self.beta


@dataclass(frozen=True)
class Evidence:
    """What a claim comes to: that left <= right, where it applies.

    Attributes
    ----------
    left, right : ndarray of shape (n,)
    applies : ndarray of bool, shape (n,)
        Where the claim's condition is met.
    scale : float
        What an excess is measured in.
    trivial : ndarray of shape (n,), optional
        For bounds, what holds in any case: as T(x) is in the hull of the patterns, the distance of the farthest from
        the pattern meant, at most 2m. A bound below that is informative.
    """

    left: Floats
    right: Floats
    applies: Bools
    scale: float
    trivial: Floats | float = np.inf

    @property
    def excess(self) -> Floats:
        """How far left exceeds right, in units of the scale; NaN where the claim is undefined."""
        with np.errstate(invalid="ignore", over="ignore"):
            return (self.left - self.right) / self.scale

    def counted(self, slack: float) -> dict[str, float]:
        """The numbers that the table holds: see `METRICS`."""
        excess = self.excess[self.applies]
        defined = excess[~np.isnan(excess)]
        return {
            "trials": self.applies.size,
            "met": excess.size,
            "undefined": excess.size - defined.size,
            "violations": np.count_nonzero(defined > slack),
            "worst": defined.max(initial=-np.inf),
            "informative": np.count_nonzero(self.applies & (self.right < self.trivial * (1 - 1e-12))),
        }


#: Of the trials of a setting: how many there are, in how many the claim's condition is met, how many of these are
#: undefined, how many violate the claim, the largest excess (-inf if there is none), and, of claims that are bounds,
#: how many are informative.
METRICS = ("trials", "met", "undefined", "violations", "worst", "informative")


@dataclass(frozen=True)
class Example:
    """Patterns and a query that show what a claim comes to.

    Attributes
    ----------
    patterns : sequence of sequence of float
    query : sequence of float
    beta : float
    index : int
        The pattern that the query is to find.
    """

    patterns: tuple[tuple[float, ...], ...]
    query: tuple[float, ...]
    beta: float
    index: int = 0

    def trials(self) -> Trials:
        """The one trial."""
        patterns, query = (np.array(rows, np.float64) for rows in (self.patterns, [self.query]))
        return Trials(patterns, query, np.array([self.index]), self.beta)

    def __str__(self) -> str:
        patterns = ", ".join(map(_point, self.patterns))
        which = "" if self.index == 0 else f", pattern {self.index + 1}"
        return f"patterns {patterns}; x = {_point(self.query)}{which}, beta = {self.beta:g}"


def _point(numbers: tuple[float, ...]) -> str:
    text = ", ".join(f"{x:g}" for x in numbers)
    return text if len(numbers) == 1 else f"({text})"


@dataclass(frozen=True)
class Claim:
    """A claim, and what is expected of it.

    Attributes
    ----------
    name : str
        Its number in the paper, or what it is called here.
    says : str
        What it says, in words.
    check : callable
        Its evidence on trials.
    expected : str
        The verdict of the docstrings of `sparsehopfield.theory`.
    instead : tuple of str
        Names of what is true instead; the exact capacity is the business of another study, `capacity_bound`.
    examples : tuple of Example
        Where it fails, or where its condition is met.
    slack : float
        Of an excess, for rounding.
    bound : bool
        Whether it is a bound on the error, which can be informative or not.
    printed : bool
        Whether the paper has it.
    """

    name: str
    says: str
    check: Callable[[Trials], Evidence]
    expected: str = HOLDS
    instead: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    slack: float = SLACK
    bound: bool = False
    printed: bool = True

    def counted(self, trials: Trials) -> dict[str, float]:
        """The table's numbers of some trials."""
        return self.check(trials).counted(self.slack)


# --- sparsemax, its conjugate, attention ------------------------------------------------------------


def _as_printed(z: Floats) -> Floats:
    """Sparsemax by (2.3)."""
    best = -np.sort(-z, axis=1)
    sums, k = best.cumsum(axis=1), np.arange(1, z.shape[1] + 1)
    kappa = np.where(1 + k * best > sums, k, 0).max(axis=1, keepdims=True)
    tau = (np.take_along_axis(sums, kappa - 1, axis=1) - 1) / kappa
    return np.maximum(z - tau, 0)


def _closed_form(t: Trials) -> Evidence:
    # The projection is the point p of the simplex from which z lies in no direction of the simplex: no vertex e_i has
    # <z - p, e_i - p> > 0.
    z, p = t.scores, _as_printed(t.scores)
    apart = (z - p).max(axis=1) - ((z - p) * p).sum(axis=1)
    left = np.maximum.reduce([apart, np.abs(p.sum(axis=1) - 1), -p.min(axis=1)])
    return Evidence(left, np.zeros(len(t)), t.everywhere, max(1.0, np.abs(z).max()))


def _gini(p: Floats) -> Floats:
    return ((p**2).sum(axis=-1) - 1) / 2


def _conjugate(t: Trials) -> Evidence:
    z, p = t.scores, sparsemax(t.scores)
    printed = (z**2).sum(axis=1) / 2 - ((p - z) ** 2).sum(axis=1) / 2 + 0.5
    reached = (z * p).sum(axis=1) - _gini(p)
    even = np.full_like(p, 1 / p.shape[1])
    others = [
        (z * q).sum(axis=1) - _gini(q) for q in (softmax(z), even, (p + even) / 2, np.eye(len(even[0]))[z.argmax(1)])
    ]
    left = np.maximum(np.abs(printed - reached), np.max(others, axis=0) - printed)
    return Evidence(left, np.zeros(len(t)), t.everywhere, max(1.0, float((z**2).sum(axis=1).max())))


def _gradient(t: Trials) -> Evidence:
    # A function with 0 <= f(z + u) - f(z) - <p, u> <= |u|^2/2 for all u has the gradient p at z.
    z, p = t.scores, sparsemax(t.scores)
    u = np.random.default_rng(0).standard_normal(z.shape)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    left = np.zeros(len(t))
    for h in (1.0, 0.1, 0.01):
        rest = sparsemax_conjugate(z + h * u) - sparsemax_conjugate(z) - h * (p * u).sum(axis=1)
        left = np.maximum.reduce([left, -rest, rest - h**2 / 2])
    return Evidence(left, np.zeros(len(t)), t.everywhere, max(1.0, np.abs(z).max()))


def _attention(t: Trials) -> Evidence:
    q, k = t.queries, t.patterns
    left = np.linalg.norm(update(q, k, t.beta) - sparsemax(t.beta * (q @ k.T)) @ k, axis=1)
    return Evidence(left, np.zeros(len(t)), t.everywhere, t.m)


# --- energy and limits ------------------------------------------------------------------------------


def _printed_energy(t: Trials) -> Evidence:
    x, moved = t.queries, update(t.queries, t.patterns, t.beta)
    before, after = (theory.energy_as_printed(y, t.patterns, t.beta) for y in (x, moved))
    return Evidence(after, before, t.everywhere, t.beta * t.energies)


def _printed_energy_at_one(t: Trials) -> Evidence:
    return _printed_energy(replace(t, beta=1.0))


def _energy_falls(t: Trials) -> Evidence:
    moved = update(t.queries, t.patterns, t.beta)
    fall = t.energy(t.queries) - t.energy(moved)
    return Evidence(((moved - t.queries) ** 2).sum(axis=1) / 2, fall, t.everywhere, t.energies)


def _energy_bounded(t: Trials) -> Evidence:
    offset = np.full(len(t), theory.energy_offset(t.patterns, t.beta))
    return Evidence(-t.energy(t.queries), offset, t.everywhere, t.energies)


def _printed_stationary(t: Trials) -> Evidence:
    states, rested = t.limits
    slope = np.linalg.norm(states - t.beta * update(states, t.patterns, t.beta), axis=1)
    return Evidence(slope, np.zeros(len(t)), rested, t.m)


def _stationary(t: Trials) -> Evidence:
    states, rested = t.limits
    slope = np.linalg.norm(states - update(states, t.patterns, t.beta), axis=1)
    return Evidence(slope, np.zeros(len(t)), rested, t.m)


def _local_optimum(t: Trials) -> Evidence:
    states, rested = t.limits
    step = 1e-6 * t.m  # short, as valleys may be narrow
    best = np.argsort(-(states @ t.patterns.T), axis=1)[:, :2]  # between the best two the energy may bend down most
    across = t.patterns[best[:, 0]] - t.patterns[best[:, -1]]
    random = np.random.default_rng(0).standard_normal((4, *states.shape))
    steepest = np.full(len(t), -np.inf)
    for u in (across, *random):
        u = u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        for x in (states + step * u, states - step * u):
            downhill = update(x, t.patterns, t.beta) - x  # less the gradient
            steepest = np.maximum(steepest, (downhill * (x - states)).sum(axis=1) / step**2)
    return Evidence(steepest, np.zeros(len(t)), rested, 1.0)


def _contraction(t: Trials) -> Evidence:
    other = np.roll(t.queries, 1, axis=0)
    moved = (update(x, t.patterns, t.beta) for x in (t.queries, other))
    stretched = theory.contraction(t.patterns, t.beta) * np.linalg.norm(t.queries - other, axis=1)
    return Evidence(np.linalg.norm(np.subtract(*moved), axis=1), stretched, t.everywhere, t.m)


# --- errors and bounds ------------------------------------------------------------------------------


def _footnote(t: Trials) -> Evidence:
    states, rested = t.limits
    right = np.maximum(t.distance, np.linalg.norm(states - t.own, axis=1))
    return Evidence(t.sparse, right, t.near & rested, t.m)


def _sparse_below_dense(t: Trials) -> Evidence:
    return Evidence(t.sparse, t.dense, t.near, t.m)


def _bounded(
    rule: str, *, near: bool = False, dense: bool = False, sparse: bool = True
) -> Callable[[Trials], Evidence]:
    """That the errors are at most a bound of `theory.retrieval_bound`."""

    def check(t: Trials) -> Evidence:
        left = np.maximum.reduce([np.zeros(len(t)), *([t.sparse] * sparse), *([t.dense] * dense)])
        return Evidence(left, t.bound(rule), t.near if near else t.everywhere, t.m, t.farthest)

    return check


def _decay(t: Trials, gap: Floats) -> Floats:
    with np.errstate(over="ignore", divide="ignore"):
        return 2 * t.m * np.exp(np.log(len(t.patterns) - 1) - t.beta * gap)


def _exponential_without_itself(t: Trials) -> Evidence:
    gap = ((t.queries - t.own) * t.own).sum(axis=1) + theory.margin(t.patterns)[t.index]
    return Evidence(t.dense, _decay(t, gap), t.near, t.m, t.farthest)


def _corollary_312(t: Trials) -> Evidence:
    states, rested = t.limits
    away = np.maximum(t.distance, np.linalg.norm(t.queries - states, axis=1))
    right = _decay(t, theory.margin(t.patterns)[t.index] - 2 * t.m * away)
    return Evidence(t.sparse, right, rested, t.m, t.farthest)


def _majorised(t: Trials) -> Evidence:
    broken = ~theory.majorises(sparsemax(t.scores), softmax(t.scores))
    return Evidence(broken.astype(np.float64), np.zeros(len(t)), t.everywhere, 1.0)


def _aligned(t: Trials) -> Evidence:
    sparse, dense = (
        (t.queries * update(t.queries, t.patterns, t.beta, separation=name)).sum(axis=1)
        for name in ("sparsemax", "softmax")
    )
    return Evidence(dense, sparse, t.everywhere, t.m**2)


def _mean_distance(t: Trials) -> Evidence:
    lengths = np.linalg.norm(t.patterns, axis=1)
    level = bool(np.ptp(lengths) <= 1e-12 * t.m)
    away = cdist(t.own, t.patterns)
    sparse, dense = ((p(t.scores) * away).sum(axis=1) for p in (sparsemax, softmax))
    return Evidence(sparse, dense, (t.distance == 0) & level, t.m)


# --- separation and capacity ------------------------------------------------------------------------


def _closest(t: Trials) -> Bools:
    squares = theory.margin(t.patterns, similarity="euclidean")
    return (squares <= squares.min() * (1 + 1e-12))[t.index]


def _stays(rule: str, *, closest: bool = False) -> Callable[[Trials], Evidence]:
    """That under a condition queries are sent into the sphere of their pattern; of the closest pair, or of all."""

    def check(t: Trials) -> Evidence:
        met = t.separated(rule) & (_closest(t) if closest else t.everywhere)
        return Evidence(t.sparse, np.full(len(t), t.radius), met, t.m)

    return check


def _necessary(t: Trials) -> Evidence:
    missed = ~t.separated("theorem 3.1")
    return Evidence(missed.astype(np.float64), np.zeros(len(t)), t.near & (t.sparse <= t.radius), 1.0)


def _sparsity_pays(t: Trials) -> Evidence:
    return Evidence(t.sparse, t.dense, t.separated("equation 3.3"), t.m)


def _cold(t: Trials) -> Evidence:
    cold = replace(t, beta=1e12 / t.m**2)
    return Evidence(cold.sparse, np.zeros(len(t)), t.distance == 0, t.m)


def _printed_capacity(t: Trials) -> Evidence:
    d, reach = t.patterns.shape[1], t.radius + t.dense - t.sparse
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        a = 4 / (d - 1) * (np.log(2 * t.m * (RISK**0.5 - 1) / reach) + 1)
        b = 4 * t.m**2 * t.beta / (5 * (d - 1))
        c = b / special.lambertw(np.exp(a + np.log(b))).real
        log_patterns = np.log(RISK) / 2 + (d - 1) / 4 * np.log(c)
    exact = np.full(len(t), theory.exact_capacity(d, t.m, t.beta, RISK, t.radius).log_M)
    return Evidence(log_patterns, exact, t.near & (reach > 0), 1.0)


def _exactly(rule: str) -> Callable[[Trials], Evidence]:
    """That under a condition one step arrives."""

    def check(t: Trials) -> Evidence:
        return Evidence(t.sparse, np.zeros(len(t)), t.separated(rule), t.m)

    return check


def _towards_worst(t: Trials) -> tuple[Floats, Floats]:
    """The exact radius of every pattern, and the direction in which it ends there."""
    radii, x = theory.exact_radius(t.patterns, t.beta), t.patterns
    scores = x @ x.T
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = (np.diag(scores)[:, None] - scores - 1 / t.beta) / cdist(x, x)
    np.fill_diagonal(cost, np.inf)
    u = x[cost.argmin(axis=1)] - x
    return radii, u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _inside_radius(t: Trials) -> Evidence:
    radii, worst = _towards_worst(t)
    u = np.where(t.distance[:, None] > 0, (t.queries - t.own) / np.maximum(t.distance, 1e-300)[:, None], worst[t.index])
    r = np.maximum(radii[t.index], 0)
    error = theory.retrieval_error(t.own + 0.999 * r[:, None] * u, t.patterns, t.index, t.beta)
    return Evidence(error, np.zeros(len(t)), r > 0, t.m)


def _radius_is_tight(t: Trials) -> Evidence:
    radii, worst = _towards_worst(t)
    outside = t.patterns + (np.maximum(radii, 0) + 1e-6 * t.m)[:, None] * worst
    arrived = theory.retrieval_error(outside, t.patterns, np.arange(len(radii)), t.beta) == 0
    return Evidence(arrived.astype(np.float64), np.zeros(len(radii)), radii > 0, 1.0)


def _certified_iff_fixed(t: Trials) -> Evidence:
    certified, fixed = theory.is_certified(t.patterns, t.beta), theory.is_fixed_point(t.patterns, t.beta)
    # Sufficient for an extreme point without copies: from the mean it lies further out than all others, its own way.
    extreme = theory.margin(t.patterns - t.patterns.mean(axis=0)) > 0
    broken = (certified & ~fixed) | (extreme & fixed & ~certified)
    return Evidence(broken.astype(np.float64), np.zeros(len(broken)), np.ones(len(broken), np.bool_), 1.0)


# --- the ledger -------------------------------------------------------------------------------------

_PLANE = ((0.0, 1.0), (0.6, 0.8), (-0.8, 0.6))
_LINE = ((1.0,), (3.0,))
_EVEN = ((0.0, 1.0), (0.6, 0.8), (-0.6, 0.8))
_FAN = ((1.0, 0.0), (-1.0, 0.0), (-float(np.cos(0.1)), float(np.sin(0.1))))
_WORSE = (Example(_PLANE, _PLANE[0], 2.0), Example(_LINE, (1.0,), 1.0), Example(_EVEN, (0.27, 0.87), 1.0))
_BOUNDS = ("majorisation", "alignment", "mean distance", "sharp bound")
_BALLS = ("gap of 1/beta", "ball of radius R", "exact radius", "exact radius is tight")

CLAIMS = (
    Claim(
        "definition 2.1", "sparsemax is [z - tau]_+ with the tau of (2.3), the projection on the simplex", _closed_form
    ),
    Claim("theorem 2.1", "the conjugate of Psi is |z|^2/2 - |p - z|^2/2 + 1/2 (2.4)", _conjugate),
    Claim("corollary 2.1.1", "its gradient is sparsemax", _gradient),
    Claim("remark 2.1", "one step is sparsemax attention", _attention),
    Claim(
        "lemma 2.1",
        "a step T never raises the energy (2.1), which has no 1/beta",
        _printed_energy,
        FAILS,
        ("lemma 2.1, beta = 1", "energy falls", "energy is bounded"),
        (Example(((1.0,),), (2.0,), 2.0), Example(((1.0,),), (0.5,), 0.5)),
    ),
    Claim(
        "lemma 2.2",
        "limits of retrieval are stationary points of the energy (2.1): its gradient there is 0",
        _printed_stationary,
        FAILS,
        ("limits are stationary", "contraction"),
        (Example(((1.0,),), (1.0,), 2.0),),
    ),
    Claim(
        "section 2.2",
        "retrieval converges to a local optimum: from no limit does the energy (with the 1/beta) fall away",
        _local_optimum,
        FAILS,
        ("limits are stationary",),
        (Example(((1.0,), (-1.0,)), (0.0,), 1.0),),
        slack=1e-6,
    ),
    Claim(
        "definition 2.2",
        "footnote: in the sphere of a pattern the error is at most max(|x - xi|, |xi - x*|), x* the limit",
        _footnote,
        FAILS,
        ("sharp bound",),
        (Example(((-0.8, -0.2), (1.6, 0.2), (-0.8, 1.0)), (-0.3, 0.1), 0.25),),
    ),
    Claim(
        "theorem 2.2",
        "in the sphere of a pattern the sparse error is at most the dense error",
        _sparse_below_dense,
        FAILS,
        _BOUNDS,
        _WORSE,
    ),
    Claim(
        "(2.6)",
        "the error is at most m + sqrt(d) m (beta kappa (s_(1) - s_(kappa)) + 1)",
        _bounded("printed", near=True),
        VACUOUS,
        ("sharp bound",),
        bound=True,
    ),
    Claim("(2.7), left", "the sparse error is at most the dense error", _sparse_below_dense, FAILS, _BOUNDS, _WORSE),
    Claim(
        "(2.7), right",
        "the dense error is at most 2m (M - 1) exp(-beta (<xi, x> - max_nu <xi, xi_nu>))",
        _bounded("printed exponential", near=True, dense=True, sparse=False),
        FAILS,
        ("exponential bound",),
        (Example(((1.0, 0.0), (0.96, 0.28)), (1.1, 0.0), 100.0),),
        bound=True,
    ),
    Claim(
        "(2.7), nu != mu",
        "the same, with the maximum over the other patterns only",
        _exponential_without_itself,
        FAILS,
        ("exponential bound",),
        (Example(((1.0, 0.0), (0.0, 1.0)), (0.5, 0.5), 10.0),),
        bound=True,
    ),
    Claim(
        "theorem 3.1",
        "where patterns are well separated, queries in the sphere of a pattern are sent into it",
        _stays("theorem 3.1"),
        HOLDS,
        _BALLS,
        (Example(_FAN, _FAN[0], 0.9), Example(_FAN, _FAN[0], 0.5)),
    ),
    Claim(
        "theorem 3.1, closest pair",
        "the same, for the two patterns that are closest to one another",
        _stays("theorem 3.1", closest=True),
        INFEASIBLE,
        _BALLS,
    ),
    Claim(
        "theorem 3.1, necessary",
        "the condition is necessary: it is met wherever a query in a sphere is sent into it",
        _necessary,
        FAILS,
        ("margin of 1/beta",),
        (Example(_FAN, _FAN[0], 0.5),),
    ),
    Claim(
        "corollary 3.1.1",
        "the same as theorem 3.1, where Delta >= ln(2 (M - 1) m/(R + delta))/beta + 2mR",
        _stays("corollary 3.1.1"),
        HOLDS,
        _BALLS,
    ),
    Claim(
        "corollary 3.1.1, closest pair",
        "the same, for the two patterns that are closest to one another",
        _stays("corollary 3.1.1", closest=True),
        INFEASIBLE,
        _BALLS,
    ),
    Claim("(3.3)", "where R >= m sqrt(d) (1 + alpha beta n m kappa) + m, sparsity pays", _sparsity_pays, INFEASIBLE),
    Claim(
        "observation 3",
        "as beta grows without limit every pattern is retrieved without error (here beta m^2 = 1e12)",
        _cold,
        FAILS,
        ("margin of 1/beta",),
        (Example(_LINE, (1.0,), 1.0),),
    ),
    Claim(
        "lemma 3.1",
        f"M >= sqrt(p) C^((d-1)/4) patterns are stored (p = {RISK:g}), at most the nearly tight exact capacity",
        _printed_capacity,
        UNDEFINED,
        ("exact capacity",),
    ),
    Claim(
        "corollary 3.1.2",
        "the error is at most 2m (M - 1) exp(-beta (Delta - 2m max(|x - xi|, |x - x*|)))",
        _corollary_312,
        HOLDS,
        ("separation bound",),
        bound=True,
    ),
    # What is true instead.
    Claim(
        "lemma 2.1, beta = 1", "the printed energy never rises where beta = 1", _printed_energy_at_one, printed=False
    ),
    Claim(
        "energy falls",
        "-Psi*(beta Xi^T x)/beta + |x|^2/2 falls by at least half the squared step",
        _energy_falls,
        printed=False,
    ),
    Claim("energy is bounded", "it is at least -m^2/2 - (M - 1)/(2 M beta)", _energy_bounded, printed=False),
    Claim("limits are stationary", "its gradient x - T(x) is 0 at limits", _stationary, printed=False),
    Claim(
        "contraction",
        "T stretches distances at most by beta times the largest eigenvalue of the scatter matrix",
        _contraction,
        printed=False,
    ),
    Claim("majorisation", "sparsemax majorises softmax", _majorised, printed=False),
    Claim("alignment", "<x, T(x)> is at least that of the dense step", _aligned, printed=False),
    Claim(
        "mean distance",
        "asked with itself, at equal lengths: the mean distance under sparse weights is at most that under dense ones",
        _mean_distance,
        printed=False,
    ),
    Claim(
        "sharp bound",
        "the error is at most max_nu |xi_nu - xi| (1 - 1/kappa) max(0, 1 - beta gap)",
        _bounded("sharp"),
        bound=True,
        printed=False,
    ),
    Claim(
        "exponential bound",
        "both errors are at most 2m (M - 1) exp(-beta gap), the gap that of the pattern at x",
        _bounded("exponential", dense=True),
        bound=True,
        printed=False,
    ),
    Claim(
        "separation bound",
        "the error is at most 2m (M - 1) exp(-beta (Delta - 2m |x - xi|))",
        _bounded("separation"),
        bound=True,
        printed=False,
    ),
    Claim(
        "gap of 1/beta",
        "where the gap at x is at least 1/beta, one step arrives exactly",
        _exactly("exact"),
        printed=False,
    ),
    Claim(
        "ball of radius R",
        "where the exact radius is at least R, all of the sphere arrives exactly",
        _exactly("ball"),
        printed=False,
    ),
    Claim(
        "exact radius",
        "all of its ball is sent to exactly the pattern (tried at 0.999 of it)",
        _inside_radius,
        printed=False,
    ),
    Claim(
        "exact radius is tight",
        "just outside, in the worst direction, queries are not",
        _radius_is_tight,
        printed=False,
    ),
    Claim(
        "margin of 1/beta",
        "patterns are fixed points if their margin is at least 1/beta; extreme ones without copies, only if",
        _certified_iff_fixed,
        printed=False,
    ),
)


def verdict(numbers: dict[str, float], *, bound: bool) -> str:
    """What the numbers of a claim, summed over all trials, say of it.

    Parameters
    ----------
    numbers : dict
        Of `METRICS` at least "met", "undefined", "violations" and "informative".
    bound : bool
        Whether the claim is a bound on the error.

    Returns
    -------
    str
        FAILS on any violation, UNDEFINED if it is not a number on any trial, INFEASIBLE if its condition is never met,
        VACUOUS if it is a bound that is nowhere informative, and HOLDS (on all trials, which is no proof) otherwise.
    """
    if numbers["violations"]:
        return FAILS
    if numbers["undefined"]:
        return UNDEFINED
    if not numbers["met"]:
        return INFEASIBLE
    return VACUOUS if bound and not numbers["informative"] else HOLDS
