"""The evidence on each claim, computed on trials with the functions of `theory` wherever it has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import special
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield.functional import softmax, sparsemax, sparsemax_conjugate, update
from sparsehopfield.studies.theory_ledger.trials import Bools, Evidence, Floats, Trials

RISK = 0.1  # the probability p of failure for lemma 3.1


# --- sparsemax, its conjugate, attention ------------------------------------------------------------


def _printed_sparsemax(z: Floats) -> Floats:
    """Compute sparsemax by (2.3)."""
    best = -np.sort(-z, axis=1)
    sums, k = best.cumsum(axis=1), np.arange(1, z.shape[1] + 1)
    kappa = np.where(1 + k * best > sums, k, 0).max(axis=1, keepdims=True)
    tau = (np.take_along_axis(sums, kappa - 1, axis=1) - 1) / kappa
    return np.maximum(z - tau, 0)


def closed_form(t: Trials) -> Evidence:
    """Check that (2.3) gives the projection on the simplex."""
    # The projection is the point p of the simplex from which z lies in no direction of the simplex: no vertex e_i has
    # <z - p, e_i - p> > 0.
    z, p = t.scores, _printed_sparsemax(t.scores)
    apart = (z - p).max(axis=1) - ((z - p) * p).sum(axis=1)
    left = np.maximum.reduce([apart, np.abs(p.sum(axis=1) - 1), -p.min(axis=1)])
    return Evidence(left, np.zeros(len(t)), t.everywhere, max(1.0, np.abs(z).max()))


def _gini(p: Floats) -> Floats:
    return ((p**2).sum(axis=-1) - 1) / 2


def conjugate(t: Trials) -> Evidence:
    """Check that (2.4) is the largest <z, p> - Psi(p), and is reached."""
    z, p = t.scores, sparsemax(t.scores)
    printed = (z**2).sum(axis=1) / 2 - ((p - z) ** 2).sum(axis=1) / 2 + 0.5
    reached = (z * p).sum(axis=1) - _gini(p)
    even = np.full_like(p, 1 / p.shape[1])
    others = [
        (z * q).sum(axis=1) - _gini(q) for q in (softmax(z), even, (p + even) / 2, np.eye(len(even[0]))[z.argmax(1)])
    ]
    left = np.maximum(np.abs(printed - reached), np.max(others, axis=0) - printed)
    return Evidence(left, np.zeros(len(t)), t.everywhere, max(1.0, float((z**2).sum(axis=1).max())))


def gradient(t: Trials) -> Evidence:
    """Check that sparsemax is the gradient of the conjugate."""
    # A function with 0 <= f(z + u) - f(z) - <p, u> <= |u|^2/2 for all u has the gradient p at z.
    z, p = t.scores, sparsemax(t.scores)
    u = np.random.default_rng(0).standard_normal(z.shape)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    left = np.zeros(len(t))
    for h in (1.0, 0.1, 0.01):
        rest = sparsemax_conjugate(z + h * u) - sparsemax_conjugate(z) - h * (p * u).sum(axis=1)
        left = np.maximum.reduce([left, -rest, rest - h**2 / 2])
    return Evidence(left, np.zeros(len(t)), t.everywhere, max(1.0, np.abs(z).max()))


def attention(t: Trials) -> Evidence:
    """Check that one step is attention with sparsemax."""
    q, k = t.queries, t.patterns
    left = np.linalg.norm(update(q, k, t.beta) - sparsemax(t.beta * (q @ k.T)) @ k, axis=1)
    return Evidence(left, np.zeros(len(t)), t.everywhere, t.m)


# --- energy and limits ------------------------------------------------------------------------------


def printed_energy(t: Trials) -> Evidence:
    """Check that a step does not raise the energy as printed."""
    x, moved = t.queries, update(t.queries, t.patterns, t.beta)
    before, after = (theory.energy_as_printed(y, t.patterns, t.beta) for y in (x, moved))
    return Evidence(after, before, t.everywhere, t.beta * t.energies)


def printed_energy_at_one(t: Trials) -> Evidence:
    """Check the same at beta = 1."""
    return printed_energy(replace(t, beta=1.0))


def energy_falls(t: Trials) -> Evidence:
    """Check that a step lowers the energy by at least half its squared length."""
    moved = update(t.queries, t.patterns, t.beta)
    fall = t.energy(t.queries) - t.energy(moved)
    return Evidence(((moved - t.queries) ** 2).sum(axis=1) / 2, fall, t.everywhere, t.energies)


def energy_bounded(t: Trials) -> Evidence:
    """Check that the energy is at least minus its offset."""
    offset = np.full(len(t), theory.energy_offset(t.patterns, t.beta))
    return Evidence(-t.energy(t.queries), offset, t.everywhere, t.energies)


def printed_stationary(t: Trials) -> Evidence:
    """Check that the printed energy has the gradient 0 at limits."""
    states, rested = t.limits
    slope = np.linalg.norm(states - t.beta * update(states, t.patterns, t.beta), axis=1)
    return Evidence(slope, np.zeros(len(t)), rested, t.m)


def stationary(t: Trials) -> Evidence:
    """Check that the energy has the gradient 0 at limits."""
    states, rested = t.limits
    slope = np.linalg.norm(states - update(states, t.patterns, t.beta), axis=1)
    return Evidence(slope, np.zeros(len(t)), rested, t.m)


def local_optimum(t: Trials) -> Evidence:
    """Check that near a limit the energy is not below that at the limit."""
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


def contraction(t: Trials) -> Evidence:
    """Check that T stretches distances no more than the bound."""
    other = np.roll(t.queries, 1, axis=0)
    moved = (update(x, t.patterns, t.beta) for x in (t.queries, other))
    stretched = theory.contraction(t.patterns, t.beta) * np.linalg.norm(t.queries - other, axis=1)
    return Evidence(np.linalg.norm(np.subtract(*moved), axis=1), stretched, t.everywhere, t.m)


# --- errors and bounds ------------------------------------------------------------------------------


def footnote(t: Trials) -> Evidence:
    """Check that the error is at most the larger distance of query and limit."""
    states, rested = t.limits
    right = np.maximum(t.distance, np.linalg.norm(states - t.target, axis=1))
    return Evidence(t.sparse, right, t.near & rested, t.m)


def sparse_below_dense(t: Trials) -> Evidence:
    """Check that near a pattern the sparse error is at most the dense error."""
    return Evidence(t.sparse, t.dense, t.near, t.m)


def bounded(rule: str, *, near: bool = False, dense: bool = False, sparse: bool = True) -> Callable[[Trials], Evidence]:
    """Check that the errors are at most a bound of `theory.retrieval_bound`."""

    def check(t: Trials) -> Evidence:
        left = np.maximum.reduce([np.zeros(len(t)), *([t.sparse] * sparse), *([t.dense] * dense)])
        return Evidence(left, t.bound(rule), t.near if near else t.everywhere, t.m, t.farthest)

    return check


def _decay(t: Trials, gap: Floats) -> Floats:
    with np.errstate(over="ignore", divide="ignore"):
        return 2 * t.m * np.exp(np.log(len(t.patterns) - 1) - t.beta * gap)


def exponential_without_itself(t: Trials) -> Evidence:
    """Check the second bound of (2.7), with nu != mu."""
    gap = ((t.queries - t.target) * t.target).sum(axis=1) + theory.margin(t.patterns)[t.index]
    return Evidence(t.dense, _decay(t, gap), t.near, t.m, t.farthest)


def corollary_312(t: Trials) -> Evidence:
    """Check the bound of corollary 3.1.2, with the limit in it."""
    states, rested = t.limits
    away = np.maximum(t.distance, np.linalg.norm(t.queries - states, axis=1))
    right = _decay(t, theory.margin(t.patterns)[t.index] - 2 * t.m * away)
    return Evidence(t.sparse, right, rested, t.m, t.farthest)


def majorised(t: Trials) -> Evidence:
    """Check that sparsemax majorises softmax."""
    broken = ~theory.majorises(sparsemax(t.scores), softmax(t.scores))
    return Evidence(broken.astype(np.float64), np.zeros(len(t)), t.everywhere, 1.0)


def aligned(t: Trials) -> Evidence:
    """Check that the sparse step agrees with the query at least as much as the dense one."""
    sparse, dense = (
        (t.queries * update(t.queries, t.patterns, t.beta, separation=name)).sum(axis=1)
        for name in ("sparsemax", "softmax")
    )
    return Evidence(dense, sparse, t.everywhere, t.m**2)


def mean_distance(t: Trials) -> Evidence:
    """Check that sparse weights lie nearer to the pattern on average, where all are equally long."""
    lengths = np.linalg.norm(t.patterns, axis=1)
    level = bool(np.ptp(lengths) <= 1e-12 * t.m)
    away = cdist(t.target, t.patterns)
    sparse, dense = ((p(t.scores) * away).sum(axis=1) for p in (sparsemax, softmax))
    return Evidence(sparse, dense, (t.distance == 0) & level, t.m)


# --- noise ------------------------------------------------------------------------------------------

NOISE = 0.01  # its length, in units of m


def _noise(t: Trials) -> Floats:
    """Draw noise of a given length for every trial."""
    u = np.random.default_rng(0).standard_normal(t.queries.shape)
    return NOISE * t.m * u / np.linalg.norm(u, axis=1, keepdims=True)


def _with_noisy_queries(t: Trials) -> Trials:
    """Return the trials with noise in their queries."""
    return replace(t, queries=t.queries + _noise(t))


def _change(t: Trials, other: Trials) -> tuple[Floats, Floats]:
    """Return by how much the sparse and the dense error differ in two series of trials."""
    return np.abs(other.sparse - t.sparse), np.abs(other.dense - t.dense)


def noise_weighs_less(t: Trials) -> Evidence:
    """Check that noise in a query changes the sparse error no more than the dense error."""
    sparse, dense = _change(t, _with_noisy_queries(t))
    return Evidence(sparse, dense, t.near, t.m)


def printed_bound_is_linear(t: Trials) -> Evidence:
    """Check that noise in a query changes the bound (2.6) by no more than its steepest slope allows."""
    # its slopes are sqrt(d) m beta kappa (xi_(1) - xi_(kappa)), and kappa is at most M
    steepest = 2 * t.patterns.shape[1] ** 0.5 * t.m**2 * t.beta * len(t.patterns)
    change = np.abs(_with_noisy_queries(t).bound("printed") - t.bound("printed"))
    return Evidence(change, np.full(len(t), steepest * NOISE * t.m), t.near, t.m * t.patterns.shape[1] ** 0.5)


def _excess_over(changes: tuple[Floats, Floats], bounds: list[Floats]) -> Floats:
    """Return by how much the sparse or the dense change exceeds its bound."""
    return np.maximum(*(change - bound for change, bound in zip(changes, bounds, strict=True)))


def query_noise(t: Trials) -> Evidence:
    """Check that noise in a query changes both errors at most linearly, the dense one half as much."""
    slopes = [theory.contraction(t.patterns, t.beta, separation=name) for name in ("sparsemax", "softmax")]
    bounds = [np.full(len(t), slope * NOISE * t.m) for slope in slopes]
    excess = _excess_over(_change(t, _with_noisy_queries(t)), bounds)
    return Evidence(excess, np.zeros(len(t)), t.everywhere, t.m)


def pattern_noise(t: Trials) -> Evidence:
    """Check the same of noise in the pattern that is to be found."""
    x, noise = t.queries, _noise(t)
    n = np.linalg.norm(x, axis=1)
    scores = t.scores.copy()
    rows = np.arange(len(t))
    scores[rows, t.index] += t.beta * (noise * x).sum(axis=1)
    changes, bounds = [], []
    for name, p in (("sparsemax", sparsemax(scores)), ("softmax", softmax(scores))):
        states = p @ t.patterns + p[rows, t.index, None] * noise
        before = t.sparse if name == "sparsemax" else t.dense
        changes.append(np.abs(np.linalg.norm(states - t.target, axis=1) - before))
        # contraction is c beta lambda with softmax's or sparsemax's c
        slope = theory.contraction(t.patterns, t.beta, separation=name)
        spread = theory.contraction(t.patterns) ** 0.5
        bounds.append((1 + n * (slope / spread if spread > 0 else 0.0)) * NOISE * t.m)
    excess = _excess_over((changes[0], changes[1]), bounds)
    return Evidence(excess, np.zeros(len(t)), t.everywhere, t.m)


def dense_floor(t: Trials) -> Evidence:
    """Check that the dense error is at least its floor."""
    return Evidence(theory.dense_error_floor(t.queries, t.patterns, t.index, t.beta), t.dense, t.everywhere, t.m)


# --- separation and capacity ------------------------------------------------------------------------


def _closest(t: Trials) -> Bools:
    squares = theory.margin(t.patterns, similarity="euclidean")
    return (squares <= squares.min() * (1 + 1e-12))[t.index]


def stays(rule: str, *, closest: bool = False) -> Callable[[Trials], Evidence]:
    """Check that under a condition queries are sent into the sphere of their pattern; of the closest pair, or of
    all.
    """

    def check(t: Trials) -> Evidence:
        met = t.separated(rule) & (_closest(t) if closest else t.everywhere)
        return Evidence(t.sparse, np.full(len(t), t.radius), met, t.m)

    return check


def necessary(t: Trials) -> Evidence:
    """Check that all queries that are sent into the sphere meet the condition of theorem 3.1."""
    missed = ~t.separated("theorem 3.1")
    return Evidence(missed.astype(np.float64), np.zeros(len(t)), t.near & (t.sparse <= t.radius), 1.0)


def saturates(t: Trials) -> Evidence:
    """Check that theorem 3.1 asks for no more than a margin without M, and corollary 3.1.1 for at least one with it."""
    d, n = t.patterns.shape[1], np.linalg.norm(t.queries, axis=1)
    over = t.asked("theorem 3.1") - (2 * t.m * (n + t.radius) + (1 + d**-0.5) / t.beta)
    below = np.log(2 * (len(t.patterns) - 1) / 3) / t.beta + 2 * t.m * t.radius - t.asked("corollary 3.1.1")
    return Evidence(np.maximum(over, below), np.zeros(len(t)), t.near, t.m**2 + 1 / t.beta)


def last_term_goes(t: Trials) -> Evidence:
    """Check that where theorem 3.1's condition is met its last term is below 1/beta."""
    root, kappa = t.patterns.shape[1] ** 0.5, np.count_nonzero(sparsemax(t.scores), axis=1)
    last = (t.m + t.m * root - t.radius) / (kappa * t.m * t.beta * root)
    below = np.full(len(t), (1 - 1e-6) / t.beta)
    return Evidence(last, below, t.separated("theorem 3.1"), 1 / t.beta)


MANY = 10**6


def sparse_asks_less(t: Trials) -> Evidence:
    """Check that theorem 3.1 asks for no more than corollary 3.1.1 does with a million patterns in the place of M."""
    more = np.log((MANY - 1) / (len(t.patterns) - 1)) / t.beta
    return Evidence(t.asked("theorem 3.1"), t.asked("corollary 3.1.1") + more, t.near, t.m**2 + 1 / t.beta)


def sparsity_pays(t: Trials) -> Evidence:
    """Check that where (3.3) is met the sparse error is at most the dense error."""
    return Evidence(t.sparse, t.dense, t.separated("equation 3.3"), t.m)


def cold(t: Trials) -> Evidence:
    """Check that patterns are retrieved without error at a very large beta."""
    cold = replace(t, beta=1e12 / t.m**2)
    return Evidence(cold.sparse, np.zeros(len(t)), t.distance == 0, t.m)


def printed_capacity(t: Trials) -> Evidence:
    """Check that the printed bound of lemma 3.1 is at most the exact capacity; both as logarithms."""
    d, reach = t.patterns.shape[1], t.radius + t.dense - t.sparse
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        a = 4 / (d - 1) * (np.log(2 * t.m * (RISK**0.5 - 1) / reach) + 1)
        b = 4 * t.m**2 * t.beta / (5 * (d - 1))
        c = b / special.lambertw(np.exp(a + np.log(b))).real
        log_patterns = np.log(RISK) / 2 + (d - 1) / 4 * np.log(c)
    exact = np.full(len(t), theory.exact_capacity(d, t.m, t.beta, RISK, t.radius).log_M)
    return Evidence(log_patterns, exact, t.near & (reach > 0), 1.0)


def _lambert_logs(t: Trials, delta: Floats) -> Floats:
    """Return ln M of the corrected lemma 3.1 for every delta; nan where there is none."""
    d = t.patterns.shape[1]
    found = [
        theory.capacity_bound(d, t.m, t.beta, RISK, t.radius, float(e)).log_M if t.radius + e > 0 else np.nan
        for e in delta
    ]
    return np.array(found, np.float64)


def more_than_dense(t: Trials) -> Evidence:
    """Check that the corrected lemma 3.1 promises no fewer patterns than it does with delta = 0; as logarithms."""
    delta = t.dense - t.sparse
    dense = np.full(len(t), _lambert_logs(t, np.zeros(1))[0])
    return Evidence(dense, _lambert_logs(t, delta), t.near & (t.radius + delta > 0), 1.0)


def gain_over_dense(t: Trials) -> Evidence:
    """Check that delta multiplies the patterns promised by at most 1 + delta/R; as logarithms."""
    delta = np.maximum(t.dense - t.sparse, 0)
    dense = np.full(len(t), _lambert_logs(t, np.zeros(1))[0])
    return Evidence(_lambert_logs(t, delta), dense + np.log1p(delta / t.radius), t.near, 1 + float(np.abs(dense[0])))


def more_than_dense_when_cold(t: Trials) -> Evidence:
    """Check that at a very large beta the corrected lemma 3.1 promises no fewer patterns than the literature's dense
    bound; as logarithms.
    """
    t = replace(t, beta=1e12 / t.m**2)
    delta = t.dense - t.sparse
    dense = theory.dense_capacity_bound(t.patterns.shape[1], t.m, t.beta, RISK).log_M
    return Evidence(np.full(len(t), dense), _lambert_logs(t, delta), t.near & (t.radius + delta > 0), 1.0)


def exactly(rule: str) -> Callable[[Trials], Evidence]:
    """Check that under a condition one step ends on the pattern."""

    def check(t: Trials) -> Evidence:
        return Evidence(t.sparse, np.zeros(len(t)), t.separated(rule), t.m)

    return check


def _towards_worst(t: Trials) -> tuple[Floats, Floats]:
    """Compute the exact radius of every pattern, and the direction in which it is attained."""
    radii, x = theory.exact_radius(t.patterns, t.beta), t.patterns
    scores = x @ x.T
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = (np.diag(scores)[:, None] - scores - 1 / t.beta) / cdist(x, x)
    np.fill_diagonal(cost, np.inf)
    u = x[cost.argmin(axis=1)] - x
    return radii, u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def inside_radius(t: Trials) -> Evidence:
    """Check that queries within the exact radius are sent to their pattern."""
    radii, worst = _towards_worst(t)
    u = np.where(
        t.distance[:, None] > 0, (t.queries - t.target) / np.maximum(t.distance, 1e-300)[:, None], worst[t.index]
    )
    r = np.maximum(radii[t.index], 0)
    error = theory.retrieval_error(t.target + 0.999 * r[:, None] * u, t.patterns, t.index, t.beta)
    return Evidence(error, np.zeros(len(t)), r > 0, t.m)


def radius_is_tight(t: Trials) -> Evidence:
    """Check that just outside of it, in the worst direction, they are not."""
    radii, worst = _towards_worst(t)
    outside = t.patterns + (np.maximum(radii, 0) + 1e-6 * t.m)[:, None] * worst
    arrived = theory.retrieval_error(outside, t.patterns, np.arange(len(radii)), t.beta) == 0
    return Evidence(arrived.astype(np.float64), np.zeros(len(radii)), radii > 0, 1.0)


def certified_iff_fixed(t: Trials) -> Evidence:
    """Check that a margin of 1/beta makes a fixed point, and is needed for extreme patterns."""
    certified, fixed = theory.is_certified(t.patterns, t.beta), theory.is_fixed_point(t.patterns, t.beta)
    # Sufficient for an extreme point without copies: from the mean it lies further out than all others, its own way.
    extreme = theory.margin(t.patterns - t.patterns.mean(axis=0)) > 0
    broken = (certified & ~fixed) | (extreme & fixed & ~certified)
    return Evidence(broken.astype(np.float64), np.zeros(len(broken)), np.ones(len(broken), np.bool_), 1.0)
