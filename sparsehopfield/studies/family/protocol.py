"""The protocol of the family study: retrieval of each member with its best beta, its cost, and its bound if it has one.

Images are centred by the mean of those stored and scaled to length 1, so that every pattern is as long as every other
and the mean of all retrieves nothing; scores are dot products. A half mask sets half of the centred image to 0: what is
hidden shows the mean. Noise is added to the pixels, before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from sparsehopfield import theory
from sparsehopfield._engine.concurrency import cached
from sparsehopfield._engine.structure import KINDS, Structure
from sparsehopfield.data.datasets import ImageSet
from sparsehopfield.functional import update
from sparsehopfield.structures import BlockSparse, LinearFeatures, RandomFeatures, RandomMask, TopK, Window
from sparsehopfield.structures._features import Features
from sparsehopfield.studies.retrieval.protocol import draw, half_masked, judge, noisy
from sparsehopfield.theory import structures as theory_structures

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: The members by name, and what they are. Those without a budget use all pairs, or have as many features as images.
MEMBERS = {
    "sparsemax": "all pairs",
    "softmax": "all pairs",
    "entmax15": "all pairs",
    "topk": "TopK(k), the k best scores",
    "window": "Window(w), 2 w + 1 neighbours",
    "blocks": "BlockSparse, one of so many blocks",
    "random": "RandomMask(k), k at random",
    "elu+1": 'LinearFeatures("elu+1")',
    "relu": 'LinearFeatures("relu")',
    "features": "RandomFeatures(D)",
}
#: Structures that have no name of their own here, by that of their class.
OTHERS = sorted(KINDS.keys() - {"TopK", "Window", "BlockSparse", "RandomMask", "LinearFeatures", "RandomFeatures"})
MEMBERS |= {name: f"{name} of so many pairs" for name in OTHERS}
FULL = ("sparsemax", "softmax", "entmax15")
LINEAR = ("elu+1", "relu")
#: The option that has each member's budgets.
BUDGETS = {"topk": "pairs", "random": "pairs", "window": "windows", "blocks": "blocks", "features": "features"}
BUDGETS |= dict.fromkeys(OTHERS, "pairs")
#: The place of a query's window or block: around its target, which only an oracle knows, or at random.
PLACES = ("oracle", "blind")
PLACED = ("window", "blocks", *OTHERS)
DAMAGES = ("mask", "noise")

METRICS = ("beta", "retrieved", "cosine", "exact", "error", "seen", "found", "multiplications")
CHECKS = ("checked", "broken", "informative", "measured", "bound")
#: The bounds of the members that have one: upper bounds of errors, and lower bounds.
UPPER = {
    "sparsemax": "error <= sharp bound",
    "softmax": "error <= 2m (M - 1) exp(-beta gap)",
    "topk": "|topk - softmax| <= tail x diameter",
    "window": "error <= 2m (k - 1) exp(-beta gap)",
    "blocks": "error <= 2m (k - 1) exp(-beta gap)",
    "random": "error <= 2m (k - 1) exp(-beta gap)",
    "features": "kernel's error <= 3 deviations",
    **dict.fromkeys(OTHERS, "error <= 2m (k - 1) exp(-beta gap)"),
}
LOWER = {
    "window": "unseen: error >= hull distance",
    "blocks": "unseen: error >= hull distance",
    "random": "unseen: error >= hull distance",
    "elu+1": "error >= (1 - weight) x hull distance",
    **dict.fromkeys(OTHERS, "unseen: error >= hull distance"),
}
#: Rounding of a float32 update at the largest beta, in units of a pattern's length.
SLACK = 1e-4
#: Queries whose error is compared with a distance to a hull, at most: each takes a least-squares problem.
HULLS = 8
REPEATS = 5


def metrics_of(member: str) -> list[str]:
    """Return the names of a member's metrics."""
    names = list(METRICS)
    names += [f"upper {check}" for check in CHECKS] if member in UPPER else []
    names += [f"lower {check}" for check in CHECKS] if member in LOWER else []
    return [*names, "needed"] if member == "features" else names


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    """Scale rows to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


@dataclass(frozen=True)
class QuerySet:
    """Damaged images, one a row, and the positions of their patterns."""

    queries: Floats
    targets: NDArray[np.intp]


@dataclass(frozen=True)
class Task:
    """One draw: the patterns, queries to choose beta by, and queries to report on, of other patterns."""

    patterns: Floats
    choosing: QuerySet
    reported: QuerySet
    betas: tuple[float, ...]
    threshold: float
    seed: int

    @cached
    def exact(self) -> NDArray[np.float64]:
        """Return the patterns in float64, for the theory."""
        return self.patterns.astype(np.float64)

    @cached
    def dense_beta(self) -> float:
        """Return the best beta of softmax over all pairs."""
        return choose(self, "softmax", 0, "-")


def make_task(
    images: ImageSet,
    size: int,
    queries: int,
    damage: str,
    *,
    side: str,
    noise: float,
    betas: tuple[float, ...],
    threshold: float,
    seed: int,
) -> Task:
    """Draw patterns and damaged queries.

    Parameters
    ----------
    images : ImageSet
        The images to draw from.
    size, queries : int
        Patterns, at least 2; queries of each kind at most, never more than half of the patterns.
    damage : {"mask", "noise"}
        What is done to queries.
    side : str
        The half that is masked.
    noise : float
        Standard deviation.
    betas : tuple of float
        To choose from.
    threshold : float
        A pattern is retrieved when the cosine error is below this.
    seed : int
    """
    pixels, positions, rng = draw(images, size, 2 * min(queries, size // 2), seed)
    mean = pixels.mean(axis=0)
    if damage == "mask":
        damaged = half_masked(pixels[positions] - mean, images.shape, side)
    else:
        damaged = noisy(pixels[positions], images.shape, noise, rng) - mean
    rows, half = unit(damaged), len(positions) // 2
    return Task(
        unit(pixels - mean),
        QuerySet(rows[half:], positions[half:]),
        QuerySet(rows[:half], positions[:half]),
        betas,
        threshold,
        seed,
    )


def structure_of(member: str, budget: int, place: str, task: Task, query_set: QuerySet) -> Structure | None:
    """Return the structure of a member for some queries; an oracle places each by its target."""
    size, n = len(task.patterns), len(query_set.targets)
    places = query_set.targets if place == "oracle" else np.random.default_rng(task.seed).integers(size, size=n)
    if member in FULL:
        return None
    if member == "topk":
        return TopK(budget)
    if member == "random":
        return RandomMask(budget, task.seed)
    if member == "window":
        return Window(budget, positions=places)
    if member == "blocks":
        return BlockSparse(places[:, None] // (size // budget) == np.arange(budget), (1, size // budget))
    if member == "features":
        return RandomFeatures(budget, task.seed, orthogonal=False)  # independent, as the variance's formula has it
    return KINDS[member].sized(budget, size, places) if member in OTHERS else LinearFeatures(member)


def pattern_mask(structure: Structure | None, task: Task, query_set: QuerySet) -> Mask:
    """Return which patterns each query attends to, (N, M); all for features, whose sums hold all patterns."""
    shape = len(query_set.queries), len(task.patterns)
    if structure is None or isinstance(structure, Features):
        return np.ones(shape, np.bool_)
    if isinstance(structure, TopK):
        scores = query_set.queries.astype(np.float64) @ task.exact.T
        mask = np.zeros(shape, np.bool_)
        np.put_along_axis(mask, np.argsort(-scores, axis=1, kind="stable")[:, : structure.k], True, axis=1)
        return mask
    return np.asarray(structure.mask(*shape))  # type: ignore[attr-defined]  # Pairs have one


def answers(member: str, structure: Structure | None, task: Task, beta: float) -> Callable[[Floats], Floats]:
    """Return the update of a member, as a function of queries; the sums of features are made beforehand."""
    if isinstance(structure, Features):
        return structure.state(task.patterns, beta=beta).update
    separation = member if member in FULL else "softmax"
    return lambda x: update(x, task.patterns, beta, separation=separation, structure=structure)


def choose(task: Task, member: str, budget: int, place: str) -> float:
    """Choose the beta with which a member retrieves most of the queries to choose by; of equals the one with the best
    cosine.
    """
    query_set = task.choosing
    structure = structure_of(member, budget, place, task, query_set)

    def merit(beta: float) -> tuple[float, float]:
        """Return the share retrieved and the mean cosine at a beta."""
        states = answers(member, structure, task, beta)(query_set.queries)
        verdict = judge(states, task.patterns[query_set.targets], task.threshold)
        return verdict["retrieved"], verdict["cosine"]

    return max(task.betas, key=merit)


def multiplications(structure: Structure | None, n: int, m: int, d: int) -> float:
    """Return the multiplications of one query, once the patterns are stored."""
    if structure is None:
        return 2.0 * m * d
    cost: Callable[[int, int, int], Any] = structure.cost  # type: ignore[attr-defined]
    if isinstance(structure, Features):  # their sums are made once, for any number of queries
        return float(cost(n + 1, m, d).multiplications - cost(n, m, d).multiplications)
    return float(cost(n, m, d).multiplications / n)


def measure(task: Task, member: str, budget: int, place: str) -> dict[str, float]:
    """Measure a member on the queries to report.

    Returns
    -------
    dict
        `metrics_of` the member, and `seconds`, the median time of a query.
    """
    beta, query_set = choose(task, member, budget, place), task.reported
    structure = structure_of(member, budget, place, task, query_set)
    step = answers(member, structure, task, beta)
    states, taken = step(query_set.queries), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        step(query_set.queries)
        taken.append(time.perf_counter() - began)
    targets = task.patterns[query_set.targets]
    mask = pattern_mask(structure, task, query_set)
    seen = mask[np.arange(len(mask)), query_set.targets]
    errors = np.linalg.norm(states.astype(np.float64) - targets, axis=1)
    found = judge(states[seen], targets[seen], task.threshold)["retrieved"] if seen.any() else 0.0
    n, m, d = len(mask), *task.patterns.shape
    return {
        **judge(states, targets, task.threshold),
        "beta": beta,
        "error": float(errors.mean()),
        "seen": float(seen.mean()),
        "found": found * float(seen.mean()),
        "multiplications": multiplications(structure, n, m, d),
        **check_bounds(task, member, structure, beta, states, errors, mask, seen),
        "seconds": statistics.median(taken) / n,
    }


def check_bounds(
    task: Task,
    member: str,
    structure: Structure | None,
    beta: float,
    states: Floats,
    errors: NDArray[np.float64],
    mask: Mask,
    seen: Mask,
) -> dict[str, float]:
    """Compare a member's errors with its bounds; return nothing for members without a bound."""
    query_set, X = task.reported, task.exact
    x, mu = query_set.queries.astype(np.float64), query_set.targets
    values: dict[str, float] = {}
    if member == "sparsemax":
        values |= _upper(errors, theory.retrieval_bound(x, X, mu, beta), 2.0)
    elif member == "topk":
        assert isinstance(structure, TopK)
        dense = update(query_set.queries, task.patterns, beta, separation="softmax")
        bound = theory_structures.truncation_bound(x @ X.T, structure.k, beta) * theory_structures.diameter(X)
        values |= _upper(np.linalg.norm(states.astype(np.float64) - dense, axis=1), bound, 2.0)
    elif member == "features":
        assert isinstance(structure, RandomFeatures)
        deviation = np.sqrt(theory_structures.feature_relative_variance(x, X[mu], structure.n_features, beta))
        values |= _upper(kernel_errors(structure, x, X[mu], beta), 3 * deviation, 1.0)
        values["needed"] = float(np.median(theory_structures.features_needed(x, X[mu], 1 / 3, task.dense_beta)))
    elif member in UPPER:
        bound = theory_structures.masked_bound(x, X, mu, mask, beta)
        values |= _upper(errors[seen], bound[seen], 2.0)
    if member == "elu+1":
        checked = np.arange(len(x))[:HULLS]
        weight = theory_structures.linear_weight_bound(X, beta, mu[checked])
        hull = [float(theory_structures.hull_distance(X[j], np.delete(X, j, axis=0))) for j in mu[checked]]
        values |= _lower(errors[checked], (1 - weight) * np.array(hull))
    elif member in LOWER:
        checked = np.flatnonzero(~seen)[:HULLS]
        hull = [float(theory_structures.hull_distance(X[mu[i]], X[mask[i]])) for i in checked]
        values |= _lower(errors[checked], np.array(hull))
    return values


def kernel_errors(
    structure: RandomFeatures, x: NDArray[np.float64], y: NDArray[np.float64], beta: float
) -> NDArray[np.float64]:
    """Compute the relative errors of <phi(x), phi(y)> as an estimate of exp(beta <x, y>)."""
    exponents = beta**0.5 * (x + y) @ structure.projection(x.shape[1]).T
    mean = logsumexp(exponents, axis=1) - np.log(structure.n_features)
    with np.errstate(over="ignore"):
        return np.abs(np.expm1(mean - beta * ((x + y) ** 2).sum(axis=1) / 2))


def _upper(measured: NDArray[np.float64], bound: NDArray[np.float64], trivial: float) -> dict[str, float]:
    """Check an upper bound; one at or above `trivial` is not informative."""
    clipped = np.minimum(bound, trivial)
    broken = measured > bound + SLACK
    return _check("upper", measured, clipped, broken, bound < trivial)


def _lower(measured: NDArray[np.float64], bound: NDArray[np.float64]) -> dict[str, float]:
    """Check a lower bound."""
    return _check("lower", measured, bound, measured < bound - SLACK, bound > 0)


def _check(
    which: str, measured: NDArray[np.float64], bound: NDArray[np.float64], broken: Mask, informative: Mask
) -> dict[str, float]:
    """Return counts, so that settings add up, and means (0 where nothing was checked)."""
    count = len(measured)
    values: Mapping[str, float] = {
        "checked": count,
        "broken": int(broken.sum()),
        "informative": int(informative.sum()),
        "measured": float(measured.mean()) if count else 0.0,
        "bound": float(bound.mean()) if count else 0.0,
    }
    return {f"{which} {name}": float(value) for name, value in values.items()}
