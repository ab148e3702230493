"""The protocol of the study of bounds: its options, the queries that are drawn, their errors and what bounds these."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield.data import datasets
from sparsehopfield.functional import associate
from sparsehopfield.studies._core import families
from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names
from sparsehopfield.studies._core.sources import load_dataset

Floats = NDArray[np.float64]
QUERIES = ("pattern", "random", "nearest", "mixture")
BEYOND = "mixture"  # lies outside the papers' spheres
#: What bounds the error of each model, and whether that is claimed within the papers' spheres only.
RULES: dict[str, tuple[str, ...]] = {
    "sparse": ("sharp", "exponential", "separation", "printed", "printed exponential", "dense error"),
    "dense": ("exponential", "separation", "printed exponential"),
}
WITHIN_ONLY = ("printed", "printed exponential", "dense error")
MAPS = {"sparse": "sparsemax", "dense": "softmax"}
#: Sizes of the sparse support, by name: the least and the most.
SIZES: dict[str, tuple[float, float]] = {
    "any": (1, math.inf),
    "1": (1, 1),
    "2": (2, 2),
    "3-4": (3, 4),
    "5-8": (5, 8),
    "9-16": (9, 16),
    "17 or more": (17, math.inf),
}
#: What depends on the size of the support.
BY_SIZE = ("sharp", "printed")
OF_ERROR = ("queries", "moved", "error mean", "error median", "error largest")
OF_BOUND = ("mean", "median", "informative", "useful", "violated", "tightness", "worst")
#: In units of m: smaller errors count as 0, and bounds exceeded by less as met, as both are rounded.
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    families : str or sequence of str
        Of "sphere", "gaussian", "images", "correlated", "correlated-sphere".
    queries : str or sequence of str
        Of `QUERIES`.
    betas : float or sequence of float
        The inverse temperatures as beta m^2.
    patterns, d : int
        Patterns, at least 2, and features, at least 2 (of all families but images).
    asks : int
        Queries of each kind for each pattern.
    share : float
        How far queries are from their pattern, as a share of R; above 0 and at most 1.
    dataset : {"digits", "mnist", "cifar10", "imagenet64"}
        The images of the family "images".
    data : path, optional
        The folder that holds it; the digits need none.
    jobs : int
        Number of settings to measure at the same time.
    """

    families: Sequence[str] = tuple(families.FAMILIES)
    queries: Sequence[str] = QUERIES
    betas: Sequence[float] = tuple(float(f"{10 ** (k / 2):.4g}") for k in range(-2, 9))
    patterns: int = 64
    d: int = 32
    asks: int = 4
    share: float = 0.9
    dataset: str = "digits"
    data: str | os.PathLike[str] | None = None
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"families": str, "queries": str, "betas": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("families", self.families, families.FAMILIES)
        check_names("queries", self.queries, QUERIES)
        check_names("dataset", [self.dataset], datasets.DATASETS)
        for name, least in (("patterns", 2), ("d", 2), ("asks", 1), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        for beta in self.betas:
            if not 0 < beta < math.inf:
                raise ValueError(f"betas: must be positive and finite, got {beta:g}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share: must be above 0 and at most 1, got {self.share:g}")


def metrics_of(setting: Mapping[str, Any]) -> list[str]:
    """Return the metrics of a setting, which depend on its model, and are fewer for one size of the support."""
    rules: Sequence[str] = RULES[setting["model"]]
    metrics: Sequence[str] = OF_BOUND
    if setting["support"] != "any":
        rules, metrics = BY_SIZE, ("mean", "violated", "tightness")
    return [*OF_ERROR, *(f"{rule}, {metric}" for rule in rules for metric in metrics)]


def load_images(chosen: Options) -> datasets.ImageSet:
    """Load the images of the options."""
    return _load(chosen.dataset, None if chosen.data is None else os.fspath(chosen.data))


_load = lru_cache(maxsize=1)(load_dataset)  # once in each process


@dataclass(frozen=True, eq=False)
class Step:
    """One step from several queries, all (N,): sizes of the sparse support; and in units of m how far the farthest
    pattern is from the one meant, the errors by their models, and what bounds them."""

    support: NDArray[np.int64]
    farthest: Floats
    error: dict[str, Floats]
    bounds: dict[str, Floats]


def draw_queries(
    rng: np.random.Generator, patterns: Floats, kind: str, asks: int, share: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Draw queries of a kind, and return the pattern that each is to find.

    Parameters
    ----------
    rng : numpy.random.Generator
    patterns : ndarray of shape (M, d)
    kind : str
        One of `QUERIES`.
    asks : int
        Queries for each pattern; of "pattern" and "nearest", which are not random, one.
    share : float
        How far they are from it, as a share of R.

    Returns
    -------
    queries : ndarray of shape (N, d)
    index : ndarray of int64, shape (N,)
    """
    m, d = patterns.shape
    index = np.repeat(np.arange(m), asks if kind in ("random", "mixture") else 1)
    target = patterns[index]
    if kind == "pattern":
        return target, index
    if kind == "mixture":
        other = (index + rng.integers(1, m, len(index))) % m
        return (target + patterns[other]) / 2, index
    if kind == "random":
        away = rng.standard_normal((len(index), d))
    else:
        distances = cdist(patterns, patterns)
        np.fill_diagonal(distances, np.inf)
        away = patterns[distances.argmin(axis=1)] - patterns
    length = np.linalg.norm(away, axis=1, keepdims=True)
    towards = np.divide(away, length, out=np.zeros_like(away), where=length > 0)  # a copy is where it is going
    return target + share * theory.min_half_distance(patterns) * towards, index


@lru_cache(maxsize=2)
def step(chosen: Options, family: str, kind: str, scaled: float, seed: int) -> Step:
    """Take one step from all queries of a kind; `scaled` is beta m^2."""
    rng = np.random.default_rng(seed)
    images = load_images(chosen) if family == families.IMAGES else None
    patterns = families.draw(family, rng, chosen.patterns, chosen.d, images)
    x, mu = draw_queries(rng, patterns, kind, chosen.asks, chosen.share)
    m = float(np.linalg.norm(patterns, axis=1).max())
    beta = scaled / m**2
    error = {name: theory.retrieval_error(x, patterns, mu, beta, separation=MAPS[name]) / m for name in MAPS}
    bounds = {rule: theory.retrieval_bound(x, patterns, mu, beta, rule=rule) / m for rule in theory.BOUNDS}
    farthest = cdist(patterns, patterns).max(axis=1)[mu] / m
    support = np.diff(associate(x, patterns, beta).indptr).astype(np.int64)
    return Step(support, farthest, error, bounds | {"dense error": error["dense"]})


def compare_bounds(found: Step, model: str, least: float, most: float) -> dict[str, float]:
    """Compare errors and bounds of a model, over the queries whose sparse support has a size.

    Parameters
    ----------
    found : Step
    model : str
        One of `RULES`.
    least, most : float
        The size.

    Returns
    -------
    dict of str to float
        `queries`, how many there are, and of the errors `moved`, the share that is not 0, mean, median and largest. Of
        each bound mean and median; the shares of queries where it is below 2m (`informative`), below the distance of
        the farthest pattern (`useful`), and below the error (`violated`); error/bound where the error is not 0: the
        median (`tightness`) and the largest (`worst`). All are 0 where there is no such query.
    """
    chosen = (found.support >= least) & (found.support <= most)
    error, farthest = found.error[model][chosen], found.farthest[chosen]
    moved = error > ROUNDING
    values = {
        "queries": float(len(error)),
        "moved": _or_zero(np.mean, moved),
        "error mean": _or_zero(np.mean, error),
        "error median": _or_zero(np.median, error),
        "error largest": _or_zero(np.max, error),
    }
    for rule in RULES[model]:
        bound = found.bounds[rule][chosen]
        with np.errstate(divide="ignore", over="ignore"):
            ratio = error[moved] / bound[moved]
        for metric, value in (
            ("mean", _or_zero(np.mean, bound)),
            ("median", _or_zero(np.median, bound)),
            ("informative", _or_zero(np.mean, bound < 2 * (1 - ROUNDING))),
            ("useful", _or_zero(np.mean, bound < farthest * (1 - ROUNDING))),
            ("violated", _or_zero(np.mean, error > bound * (1 + 1e-9) + ROUNDING)),
            ("tightness", _or_zero(np.median, ratio)),
            ("worst", _or_zero(np.max, ratio)),
        ):
            values[f"{rule}, {metric}"] = value
    return values


def _or_zero(of: Any, values: NDArray[Any]) -> float:
    """Return a statistic of values; 0 where there are none."""
    return float(of(values)) if len(values) else 0.0
