"""What the family study measures of a member: retrieval with the best beta, its cost, and its bound, if it has one.

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

from sparsehopfield import theory, theory_structures
from sparsehopfield._sharing import kept
from sparsehopfield.datasets import ImageSet
from sparsehopfield.functional import update
from sparsehopfield.structure import Structure, kinds
from sparsehopfield.structures import BlockSparse, LinearFeatures, RandomFeatures, RandomMask, TopK, Window
from sparsehopfield.structures._features import Features
from sparsehopfield.studies.retrieval_protocol import draw, half_masked, judge, noisy

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: The members by name, and what they are. Those without a budget look at all pairs, or have as many features as images.
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
OTHERS = sorted(kinds().keys() - {"TopK", "Window", "BlockSparse", "RandomMask", "LinearFeatures", "RandomFeatures"})
MEMBERS |= {name: f"{name} of so many pairs" for name in OTHERS}
FULL = ("sparsemax", "softmax", "entmax15")
LINEAR = ("elu+1", "relu")
#: The option that has each member's budgets.
BUDGETS = {"topk": "pairs", "random": "pairs", "window": "windows", "blocks": "blocks", "features": "features"}
BUDGETS |= dict.fromkeys(OTHERS, "pairs")
#: Which of a window's, and of the blocks', patterns a query looks at: those around its target, which only an oracle
#: knows, or those at a random place.
PLACES = ("oracle", "blind")
PLACED = ("window", "blocks", *OTHERS)
DAMAGES = ("mask", "noise")

METRICS = ("beta", "retrieved", "cosine", "exact", "error", "seen", "found", "multiplications")
CHECKS = ("checked", "broken", "informative", "measured", "bound")
#: What is held against what, for the members that have a bound: an error is at most, or at least, so large.
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
#: So many queries at most are held against a distance to a hull, which takes a least-squares problem each.
HULLS = 8
REPEATS = 5


def metrics_of(member: str) -> list[str]:
    """The names of what is measured of a member."""
    names = list(METRICS)
    names += [f"upper {check}" for check in CHECKS] if member in UPPER else []
    names += [f"lower {check}" for check in CHECKS] if member in LOWER else []
    return [*names, "needed"] if member == "features" else names


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows scaled to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


@dataclass(frozen=True)
class Asked:
    """Damaged images and the patterns that they are of."""

    queries: Floats
    targets: NDArray[np.intp]


@dataclass(frozen=True)
class Task:
    """One draw: the patterns, queries to choose beta by, and queries to report on, of other patterns."""

    patterns: Floats
    choosing: Asked
    reported: Asked
    betas: tuple[float, ...]
    threshold: float
    seed: int

    @kept
    def exact(self) -> NDArray[np.float64]:
        """The patterns in float64, for the theory."""
        return self.patterns.astype(np.float64)

    @kept
    def dense_beta(self) -> float:
        """The beta that softmax over all pairs does best with."""
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
        Where they come from.
    size, queries : int
        Patterns, at least 2; queries of each kind at most, never more than half of the patterns.
    damage : {"mask", "noise"}
    side : str
        The half that is masked.
    noise : float
        Standard deviation.
    betas : tuple of float
        To choose from.
    threshold : float
        A pattern is retrieved when the cosine error is below this.
    seed : int

    Returns
    -------
    Task
    """
    pixels, asked, rng = draw(images, size, 2 * min(queries, size // 2), seed)
    mean = pixels.mean(axis=0)
    if damage == "mask":
        damaged = half_masked(pixels[asked] - mean, images.shape, side)
    else:
        damaged = noisy(pixels[asked], images.shape, noise, rng) - mean
    rows, half = unit(damaged), len(asked) // 2
    return Task(
        unit(pixels - mean),
        Asked(rows[half:], asked[half:]),
        Asked(rows[:half], asked[:half]),
        betas,
        threshold,
        seed,
    )


def structure_of(member: str, budget: int, place: str, task: Task, asked: Asked) -> Structure | None:
    """The structure that a member looks by.

    Parameters
    ----------
    member, budget, place
        As in the table.
    task : Task
    asked : Asked
        The queries; an oracle places each by its target.

    Returns
    -------
    Structure or None
    """
    size, n = len(task.patterns), len(asked.targets)
    places = asked.targets if place == "oracle" else np.random.default_rng(task.seed).integers(size, size=n)
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
    return kinds()[member].sized(budget, size, places) if member in OTHERS else LinearFeatures(member)


def looked_at(structure: Structure | None, task: Task, asked: Asked) -> Mask:
    """Which patterns each query looks at; features have all of them in their sums."""
    shape = len(asked.queries), len(task.patterns)
    if structure is None or isinstance(structure, Features):
        return np.ones(shape, np.bool_)
    if isinstance(structure, TopK):
        scores = asked.queries.astype(np.float64) @ task.exact.T
        mask = np.zeros(shape, np.bool_)
        np.put_along_axis(mask, np.argsort(-scores, axis=1, kind="stable")[:, : structure.k], True, axis=1)
        return mask
    return np.asarray(structure.mask(*shape))  # type: ignore[attr-defined]  # Pairs have one


def answers(member: str, structure: Structure | None, task: Task, beta: float) -> Callable[[Floats], Floats]:
    """The update of a member, as a function of queries; the sums of features are there already."""
    if isinstance(structure, Features):
        return structure.state(task.patterns, beta=beta).update
    separation = member if member in FULL else "softmax"
    return lambda x: update(x, task.patterns, beta, separation=separation, structure=structure)


def choose(task: Task, member: str, budget: int, place: str) -> float:
    """The beta with which a member retrieves most of the queries to choose by; of equals the one with the best cosine.

    Parameters
    ----------
    task : Task
    member, budget, place
        As in the table.

    Returns
    -------
    float
    """
    asked = task.choosing
    structure = structure_of(member, budget, place, task, asked)

    def merit(beta: float) -> tuple[float, float]:
        states = answers(member, structure, task, beta)(asked.queries)
        verdict = judge(states, task.patterns[asked.targets], task.threshold)
        return verdict["retrieved"], verdict["cosine"]

    return max(task.betas, key=merit)


def multiplications(structure: Structure | None, n: int, m: int, d: int) -> float:
    """Of one query, once the patterns are stored."""
    if structure is None:
        return 2.0 * m * d
    cost: Callable[[int, int, int], Any] = structure.cost  # type: ignore[attr-defined]
    if isinstance(structure, Features):  # their sums are made once, for any number of queries
        return float(cost(n + 1, m, d).multiplications - cost(n, m, d).multiplications)
    return float(cost(n, m, d).multiplications / n)


def measure(task: Task, member: str, budget: int, place: str) -> dict[str, float]:
    """What is measured of a member on the queries to report.

    Parameters
    ----------
    task : Task
    member, budget, place
        As in the table.

    Returns
    -------
    dict
        `metrics_of` the member, and `seconds`, the median time of a query.
    """
    beta, asked = choose(task, member, budget, place), task.reported
    structure = structure_of(member, budget, place, task, asked)
    ask = answers(member, structure, task, beta)
    states, taken = ask(asked.queries), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        ask(asked.queries)
        taken.append(time.perf_counter() - began)
    targets = task.patterns[asked.targets]
    mask = looked_at(structure, task, asked)
    seen = mask[np.arange(len(mask)), asked.targets]
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
        **held(task, member, structure, beta, states, errors, mask, seen),
        "seconds": statistics.median(taken) / n,
    }


def held(
    task: Task,
    member: str,
    structure: Structure | None,
    beta: float,
    states: Floats,
    errors: NDArray[np.float64],
    mask: Mask,
    seen: Mask,
) -> dict[str, float]:
    """What the theory promises of a member, beside what came out; nothing for members without a bound."""
    asked, X = task.reported, task.exact
    x, mu = asked.queries.astype(np.float64), asked.targets
    values: dict[str, float] = {}
    if member == "sparsemax":
        values |= _upper(errors, theory.retrieval_bound(x, X, mu, beta), 2.0)
    elif member == "topk":
        assert isinstance(structure, TopK)
        dense = update(asked.queries, task.patterns, beta, separation="softmax")
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
        some = np.arange(len(x))[:HULLS]
        weight = theory_structures.linear_weight_bound(X, beta, mu[some])
        hull = [float(theory_structures.hull_distance(X[j], np.delete(X, j, axis=0))) for j in mu[some]]
        values |= _lower(errors[some], (1 - weight) * np.array(hull))
    elif member in LOWER:
        some = np.flatnonzero(~seen)[:HULLS]
        hull = [float(theory_structures.hull_distance(X[mu[i]], X[mask[i]])) for i in some]
        values |= _lower(errors[some], np.array(hull))
    return values


def kernel_errors(
    structure: RandomFeatures, x: NDArray[np.float64], y: NDArray[np.float64], beta: float
) -> NDArray[np.float64]:
    """How far <phi(x), phi(y)> is from exp(beta <x, y>), in units of that."""
    exponents = beta**0.5 * (x + y) @ structure.projection(x.shape[1]).T
    mean = logsumexp(exponents, axis=1) - np.log(structure.n_features)
    with np.errstate(over="ignore"):
        return np.abs(np.expm1(mean - beta * ((x + y) ** 2).sum(axis=1) / 2))


def _upper(measured: NDArray[np.float64], bound: NDArray[np.float64], trivial: float) -> dict[str, float]:
    """What is at most so large; a bound at or above `trivial` says nothing."""
    clipped = np.minimum(bound, trivial)
    broken = measured > bound + SLACK
    return _check("upper", measured, clipped, broken, bound < trivial)


def _lower(measured: NDArray[np.float64], bound: NDArray[np.float64]) -> dict[str, float]:
    """What is at least so large."""
    return _check("lower", measured, bound, measured < bound - SLACK, bound > 0)


def _check(
    which: str, measured: NDArray[np.float64], bound: NDArray[np.float64], broken: Mask, informative: Mask
) -> dict[str, float]:
    """Counts, so that settings add up, and means (0 where nothing was checked)."""
    count = len(measured)
    values: Mapping[str, float] = {
        "checked": count,
        "broken": int(broken.sum()),
        "informative": int(informative.sum()),
        "measured": float(measured.mean()) if count else 0.0,
        "bound": float(bound.mean()) if count else 0.0,
    }
    return {f"{which} {name}": float(value) for name, value in values.items()}
