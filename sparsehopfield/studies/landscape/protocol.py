"""The protocol of the study of landscapes: basins in the plane, descent along retrieval, and rates of convergence.

The rate. Where sparsemax has support S, its weights there are p = P (beta s) + 1/|S|, with P the projection that takes
the mean off vectors over S, and s = Xi_S x + const: T is piecewise affine. Its linear part A = beta Xi_S^T P Xi_S
(rows are patterns) is symmetric and has no negative eigenvalue, as P = P P. Near a limit inside such a region
successive steps are related by dx' = A dx, so their lengths shrink by a ratio that grows towards the largest
eigenvalue that the steps have a part in: generically the spectral norm of A. It is 0 where a single pattern has all
weight, and the limit is then reached exactly, after finitely many steps; else steps shrink geometrically, and never end
but by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from sparsehopfield import theory
from sparsehopfield._engine.call import still_moving
from sparsehopfield.data import datasets
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.studies._core.families import FAMILIES, draw
from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names
from sparsehopfield.studies.retrieval.protocol import MODELS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
#: The five patterns in the plane of the default.
PATTERNS = ((1.0, 0.1), (0.6, 0.8), (-0.7, 0.75), (-1.0, -0.2), (0.12, -0.97))
#: Maps by the names of `MODELS`; the polynomial has no energy, beta cancels, and it needs scores of one scale.
MAPS = ("sparse", "entmax15", "dense", "polynomial")
#: Updates at most.
MAX_STEPS = 10_000
#: Limits nearer than this, times the longest pattern, are the same; a chain of such limits is one.
SAME = 1e-6
#: Steps shorter than this, times the longest pattern, tell no ratio: rounding has a part in them.
FLOOR = 1e-11


def memory_of(patterns: Floats, beta: float, name: str = "sparse", similarity: str = "dot") -> HopfieldMemory:
    """Make a memory with the map of this name, in float64."""
    return HopfieldMemory(np.asarray(patterns, np.float64), beta, similarity=similarity, separation=MODELS[name])


def plane_patterns(count: int, seed: int) -> Floats:
    """Return the five patterns, or this many random ones if `count` is not 0: normal features of variance 1/2."""
    if not count:
        return np.array(PATTERNS)
    return draw("gaussian", np.random.default_rng(seed), count, 2)


# The plane


@dataclass(frozen=True)
class Landscape:
    """The limits of retrieval from every point of a square grid.

    Attributes
    ----------
    x, y : ndarray of shape (n,)
        The grid's coordinates.
    energy : ndarray of shape (n, n) or None
        Of the grid's points, rows along y; None for the polynomial, which has none.
    ends : ndarray of shape (n, n, 2)
        The limit of retrieval from each point.
    steps : ndarray of shape (n, n)
        Updates until it did.
    settled : ndarray of bool, shape (n, n)
        Whether it did within `MAX_STEPS`.
    exact : ndarray of bool, shape (n, n)
        Whether it did on a stored pattern, to the last bit.
    basins : ndarray of shape (n, n)
        Numbers of the limits: for one in the sphere of a pattern the number of that pattern; all others are mixtures,
        and count from the number of patterns on; -1 where nothing settled. The papers' spheres have as radius half of
        the smallest distance between two patterns.
    limits : ndarray of shape (k, 2)
        The limits, distinct within `SAME`.
    labels : ndarray of shape (k,)
        Their numbers in `basins`; two limits within the sphere of one pattern share its number.
    pure : ndarray of bool, shape (k,)
        Which of them are stored patterns, to the last bit.
    """

    x: Floats
    y: Floats
    energy: Floats | None
    ends: Floats
    steps: Integers
    settled: NDArray[np.bool_]
    exact: NDArray[np.bool_]
    basins: Integers
    limits: Floats
    labels: Integers
    pure: NDArray[np.bool_]


def window(patterns: Floats, size: int) -> tuple[Floats, Floats]:
    """Return the coordinates of a square grid around patterns in the plane, with a border."""
    lowest, highest = patterns.min(axis=0), patterns.max(axis=0)
    centre, reach = (lowest + highest) / 2, 0.7 * (float((highest - lowest).max()) or 1.0)
    x, y = (np.linspace(c - reach, c + reach, size) for c in centre)
    return x, y


def landscape(memory: HopfieldMemory, size: int) -> Landscape:
    """Retrieve from every point of a grid of `size` points along each axis; patterns have two features."""
    patterns = memory.patterns
    x, y = window(patterns, size)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    with still_moving():
        ends, info = memory.retrieve(grid, max_steps=MAX_STEPS, return_info=True)
    exact = (ends[:, :, None] == patterns).all(axis=-1).any(axis=-1)
    limits, which = distinct(ends[info.converged], SAME * longest(patterns))
    far = np.linalg.norm(limits[:, None] - patterns, axis=-1)
    near = (far < theory.min_half_distance(patterns)).any(axis=1)
    labels = np.where(near, far.argmin(axis=1), len(patterns) + np.cumsum(~near) - 1)
    basins = np.full((size, size), -1)
    basins[info.converged] = labels[which]
    return Landscape(
        x,
        y,
        memory.energy(grid) if has_energy(memory) else None,
        ends,
        info.steps,
        info.converged,
        exact,
        basins,
        limits,
        labels,
        (limits[:, None] == patterns).all(axis=-1).any(axis=-1),
    )


def has_energy(memory: HopfieldMemory) -> bool:
    """Check whether retrieval descends an energy: of the maps here all do but the polynomial."""
    return memory.separation != MODELS["polynomial"]


def longest(patterns: Floats) -> float:
    """Return the length of the longest pattern; 1 if all are 0."""
    return float(np.linalg.norm(patterns, axis=1).max()) or 1.0


def distinct(points: Floats, tolerance: float) -> tuple[Floats, Integers]:
    """Cluster points: return of each cluster the point that occurs most, and the cluster of every point.

    Parameters
    ----------
    points : ndarray of shape (n, d)
        Any number of them, or none.
    tolerance : float
        Points at most so far from each other are in one cluster, and so are chains of such points.

    Returns
    -------
    limits : ndarray of shape (k, d)
        In the order of their coordinates.
    which : ndarray of shape (n,)
    """
    if not len(points):
        return points, np.zeros(0, np.int64)
    unique, inverse, counts = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    pairs = KDTree(unique).query_pairs(tolerance, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(unique), len(unique)))
    number, cluster = connected_components(graph, directed=False)
    chosen = [np.flatnonzero(cluster == k)[counts[cluster == k].argmax()] for k in range(number)]
    return unique[chosen], cluster[inverse.reshape(-1)].astype(np.int64)


class Descent(NamedTuple):
    """The changes of the energy along retrieval."""

    updates: int
    rises: int  # after how many the energy was higher, by more than rounding explains
    least: float  # the smallest fall of energy, over half the squared step; inf if no step was long enough to tell


def descent(memory: HopfieldMemory, queries: Floats, steps: Integers) -> Descent:
    """Follow retrieval update by update, and check that each lowers the energy by half its squared length.

    Parameters
    ----------
    memory : HopfieldMemory
        With a map that has an energy.
    queries : ndarray of shape (n, d)
    steps : ndarray of shape (n,)
        How far to follow each.

    Returns
    -------
    Descent
        `least` is of steps whose squared length is a million times above what rounding does to energies.
    """
    x, left = queries, steps
    before = memory.energy(x)
    terms = np.abs(before).max(initial=0) + (x**2).sum(axis=-1).max(initial=0) + longest(memory.patterns) ** 2
    rounding = 16 * np.finfo(np.float64).eps * terms
    updates, rises, least, done = int(steps.sum()), 0, np.inf, 0
    while (moving := left > done).any():
        x, before, left = x[moving], before[moving], left[moving]
        new = memory.update(x)
        after = memory.energy(new)
        half, fall = ((new - x) ** 2).sum(axis=-1) / 2, before - after
        rises += int((fall < -rounding).sum())
        long_enough = half > 1e6 * rounding
        least = min(least, float((fall[long_enough] / half[long_enough]).min(initial=np.inf)))
        x, before, done = new, after, done + 1
    return Descent(updates, rises, least)


def path(memory: HopfieldMemory, query: Floats, most: int = MAX_STEPS) -> Floats:
    """Return a query and its states after each update until it is at rest, or after `most` updates: (steps + 1, d)."""
    with still_moving():
        _, info = memory.retrieve(query, max_steps=most, return_info=True)
    states = [np.asarray(query, np.float64)]
    for _ in range(int(info.steps)):
        states.append(memory.update(states[-1]))
    return np.stack(states)


# Rates


class Retrieval(NamedTuple):
    """The sparse retrieval of one query, in numbers."""

    steps: int
    settled: bool
    margin: float  # of the target pattern
    barrier: float
    support: int  # patterns with weight at the limit
    exact: bool  # whether the limit is a stored pattern, to the last bit
    found: bool  # whether it is the target pattern
    predicted: float  # spectral norm of the linear part of the update at the limit
    observed: float  # length of the last step that is long enough to tell, over that of the step before it
    explained: float  # the same ratio by the linear part, applied to the step before it


def retrieval(patterns: Floats, query: Floats, index: int, beta: float, similarity: str = "dot") -> Retrieval:
    """Retrieve one query (d,) of the pattern `index` sparsely, and measure how fast."""
    memory = memory_of(patterns, beta, similarity=similarity)
    with still_moving():
        limit, info = memory.retrieve(query, max_steps=MAX_STEPS, return_info=True)
    same = (memory.patterns == limit).all(axis=1)
    support = memory.associate(limit[None]).indices
    before, after = last_steps(memory, query)
    length = float(np.linalg.norm(before)) or 1.0
    return Retrieval(
        int(info.steps),
        bool(info.converged),
        float(memory.margin()[index]),
        barrier(memory, index),
        len(support),
        bool(same.any()),
        bool(same[index]),
        predicted_rate(memory.patterns[support], beta),
        float(np.linalg.norm(after)) / length,
        float(np.linalg.norm(linear_part(memory.patterns[support], beta) @ before)) / length,
    )


def linear_part(support: Floats, beta: float) -> Floats:
    """Compute the matrix A = beta Xi_S^T P Xi_S, (d, d), of the sparse update where these patterns, (k, d), have
    weight.
    """
    centred = support - support.mean(axis=0)
    return beta * centred.T @ centred


def predicted_rate(support: Floats, beta: float) -> float:
    """Compute the spectral norm of the linear part of the sparse update where these patterns have weight.

    Parameters
    ----------
    support : ndarray of shape (k, d)
        The patterns with weight.
    beta : float

    Returns
    -------
    float
        Near a limit that these patterns carry, steps shrink by this ratio; the module says why.

    Examples
    --------
    >>> predicted_rate(np.array([[1.0], [-1.0]]), beta=0.25)
    0.5
    """
    return float(np.linalg.norm(linear_part(support, beta), 2))


def last_steps(memory: HopfieldMemory, query: Floats) -> tuple[Floats, Floats]:
    """Return the last two steps of retrieval, (d,) each, whose lengths are above rounding; 0 where there is none. Where
    retrieval ends exactly, the last one is 0.
    """
    floor = FLOOR * longest(memory.patterns)
    x = memory.update(query)
    before, after = np.zeros_like(x), x - query
    for _ in range(MAX_STEPS):
        new = memory.update(x)
        if (new == x).all():
            return after, new - x
        if before.any() and np.linalg.norm(new - x) < floor:
            break
        x, before, after = new, after, new - x
    return before, after


def barrier(memory: HopfieldMemory, index: int, points: int = 33) -> float:
    """Compute the least rise of the energy on the straight line from a pattern to another; 0 if it only falls.

    Parameters
    ----------
    memory : HopfieldMemory
    index : int
        The pattern.
    points : int
        Number of points on each line.

    Returns
    -------
    float
        An upper bound of the barrier between the pattern and any other, as ways around may be lower.
    """
    patterns = memory.patterns
    here, others = patterns[index], np.delete(patterns, index, axis=0)
    way = here + np.linspace(0, 1, points)[:, None, None] * (others - here)
    energy = memory.energy(way)
    return max(float((energy.max(axis=0) - energy[0]).min()), 0.0)


def draw_query(
    family: str, seed: int, count: int, d: int, noise: float, images: datasets.ImageSet | None = None
) -> tuple[Floats, Floats, int]:
    """Draw patterns of a family, scaled so that the longest has length 1, and a query near one of them.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    seed : int
    count, d : int
        Patterns and features.
    noise : float
        Distance of the query from its pattern, as a share of that pattern's length; its direction is random.
    images : ImageSet, optional
        The images of the family of images.

    Returns
    -------
    patterns : ndarray of shape (count, d)
    query : ndarray of shape (d,)
    index : int
    """
    rng = np.random.default_rng(seed)
    patterns = draw(family, rng, count, d, images)
    patterns = patterns / longest(patterns)
    index = int(rng.integers(count))
    direction = rng.standard_normal(patterns.shape[1])
    reach = noise * np.linalg.norm(patterns[index]) / np.linalg.norm(direction)
    return patterns, patterns[index] + reach * direction, index


SIMILARITIES = ("dot", "euclidean")  # cosine is dot of unit rows
#: The family column of what is measured in the plane.
PLANE = "plane"
#: Of the grid: distinct limits, those that are patterns to the last bit, and those within the papers' spheres; the
#: shares of the grid that go to these two; updates, and the share of the grid that came to rest.
BASINS = ("limits", "exact limits", "near limits", "to exact", "to near", "mean steps", "most steps", "settled")
#: Of all updates from the grid: how many raised the energy, and the least fall over half the squared step.
DESCENT = ("updates", "rises", "least fall")


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    betas : float or sequence of float
        Inverse temperatures in the plane.
    similarity : {"dot", "euclidean"}
        In both parts. With "euclidean" the polynomial is left out.
    plane : int
        So many random patterns in the plane; 0 takes five that are always the same.
    grid : int
        Points along each axis of the plane.
    families : str or sequence of str
        Of `FAMILIES`; the images are scikit-learn's digits.
    rate_betas : float or sequence of float
        Inverse temperatures for the families.
    patterns, d : int
        How many patterns are stored, and their features; images have features of their own.
    noise : float
        Distance of a query from its pattern, as a share of the pattern's length.
    draws : int
        Sets of patterns, with one query each, for each family and beta.
    jobs : int
        Number of settings to measure at the same time.
    """

    betas: Sequence[float] = (0.3, 1.0, 3.0, 8.0)
    similarity: str = "dot"
    plane: int = 0
    grid: int = 64
    families: Sequence[str] = tuple(FAMILIES)
    rate_betas: Sequence[float] = (1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 50.0)
    patterns: int = 64
    d: int = 32
    noise: float = 0.5
    draws: int = 25
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"betas": float, "families": str, "rate_betas": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("similarity", [self.similarity], SIMILARITIES)
        check_names("families", self.families, FAMILIES)
        if self.plane:
            at_least("plane", self.plane, 2)
        for name, least in (("grid", 2), ("patterns", 2), ("d", 2), ("draws", 1), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise: must be a finite number of at least 0, got {self.noise}")
        for name in ("betas", "rate_betas"):
            for beta in getattr(self, name):
                if not 0 < beta < math.inf:
                    raise ValueError(f"{name}: must be positive and finite, got {beta}")

    @property
    def surfaces(self) -> list[tuple[str, float]]:
        """Return the maps and betas in the plane: the polynomial once, as it is the same at every beta."""
        maps = [name for name in MAPS if name != "polynomial" or self.similarity == "dot"]
        return [(name, b) for name in maps for b in (self.betas[:1] if name == "polynomial" else self.betas)]


def metrics_of(setting: Mapping[str, Any]) -> Sequence[str]:
    """Return the metrics of a setting."""
    if setting["family"] != PLANE:
        return Retrieval._fields
    return BASINS if setting["map"] == "polynomial" else (*BASINS, *DESCENT)


def measure_plane(patterns: Floats, beta: float, name: str, similarity: str, size: int) -> dict[str, float]:
    """Measure the values of `BASINS`, and of `DESCENT` where there is an energy."""
    memory = memory_of(patterns, beta, name, similarity)
    found = landscape(memory, size)
    near = found.labels < len(patterns)
    near_basins = (found.basins >= 0) & (found.basins < len(patterns))
    values: list[float] = [len(found.limits), found.pure.sum(), near.sum(), found.exact.mean()]
    values += [near_basins.mean(), found.steps.mean(), found.steps.max(), found.settled.mean()]
    fell: Sequence[float] = ()
    if has_energy(memory):
        grid = np.stack(np.meshgrid(found.x, found.y), axis=-1).reshape(-1, 2)
        fell = descent(memory, grid, found.steps.reshape(-1))
    return dict(zip((*BASINS, *DESCENT), (*values, *fell), strict=False))
