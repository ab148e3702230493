"""The protocol of the study of barriers: its options, and what is measured of a set of patterns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield._engine.call import still_moving
from sparsehopfield.data import datasets
from sparsehopfield.functional import energy, retrieve
from sparsehopfield.studies._core.families import FAMILIES, draw, sphere
from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names
from sparsehopfield.studies.landscape.protocol import predicted_rate

Floats = NDArray[np.float64]
#: What the ranks of the updates are compared with.
CAUSES = ("barrier", "rate", "distance")
#: Of a set: whether it has few enough supports; its minima, those that are patterns, and its saddles; the median
#: barrier around a minimum; of all pairs of minima the median of the bound by a straight line over the true height, and
#: the share for which it is more than 1 % too high; updates; rank correlations of these, and of barriers and radii.
METRICS = (
    *("known", "minima", "pure", "saddles", "escape", "line", "loose", "steps"),
    *(f"steps and {cause}" for cause in CAUSES),
    "radius and barrier",
)
#: Updates at most, and points of a straight line.
MAX_STEPS, POINTS = 10_000, 65


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    families : str or sequence of str
        Of `FAMILIES`; the images are scikit-learn's digits.
    betas : float or sequence of float
        Inverse temperatures; patterns are scaled so that the longest has length 1.
    patterns, d : int
        How many patterns are stored, and their features; images have features of their own.
    noise : float
        The largest distance of a query from its pattern, as a share of the pattern's length; distances are uniform
        from 0 to it, so that there is something to rank.
    queries : int
        Near each pattern.
    draws : int
        Sets of patterns of each family.
    max_supports : int
        How many sets of patterns to look at for minima and saddles: where more may share one, the set is left out.
    jobs : int
        Number of sets to measure at the same time.
    """

    families: Sequence[str] = tuple(FAMILIES)
    betas: Sequence[float] = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
    patterns: int = 16
    d: int = 8
    noise: float = 0.5
    queries: int = 4
    draws: int = 10
    max_supports: int = 10_000
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"betas": float, "families": str}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("families", self.families, FAMILIES)
        for name, least in (("patterns", 2), ("d", 2), ("queries", 1), ("draws", 1), ("max_supports", 1), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise: must be a finite number of at least 0, got {self.noise}")
        for beta in self.betas:
            if not 0 < beta < math.inf:
                raise ValueError(f"betas: must be positive and finite, got {beta}")


def measure(
    chosen: Options, family: str, beta: float, seed: int, images: datasets.ImageSet | None = None
) -> dict[str, float]:
    """Measure the values of `METRICS` for one set of patterns; nan where there is nothing to measure."""
    rng = np.random.default_rng(seed)
    patterns = draw(family, rng, chosen.patterns, chosen.d, images)
    patterns = patterns / np.linalg.norm(patterns, axis=1).max()
    found = dict.fromkeys(METRICS, math.nan) | {"known": 0.0}
    try:
        barriers = theory.energy_barriers(patterns, beta, max_supports=chosen.max_supports)
    except ValueError:  # too many supports, or a degenerate state: there is nothing to measure then
        return found
    states = barriers.minima.states
    distances = cdist(patterns, states)
    found |= {
        "known": 1.0,
        "minima": len(states),
        "pure": float((distances.min(axis=0) == 0).sum()),
        "saddles": len(barriers.saddles),
    }
    if len(states) < 2:
        return found
    others = ~np.eye(len(states), dtype=bool)
    rise, line = (  # from each minimum to each other one, (n (n - 1),)
        (levels - barriers.minima.energies[:, None])[others]
        for levels in (barriers.levels, line_levels(patterns, beta, states))
    )
    ratio = line / rise
    found |= {
        "escape": float(np.median(barriers.escapes)),
        "line": float(np.median(ratio)),
        "loose": float(np.mean(ratio > 1.01)),
    }
    return found | _retrieved(chosen, patterns, beta, barriers, rng) | _radii(patterns, beta, barriers, distances)


def line_levels(patterns: Floats, beta: float, states: Floats) -> Floats:
    """Return the highest energy on the straight line from each state to each other one, (n, n).

    It is that of `POINTS` points of each line, so that it may be a little too low.
    """
    share = np.linspace(0, 1, POINTS)[:, None, None]
    return np.stack([energy(state + share * (states - state), patterns, beta).max(axis=0) for state in states])


def _retrieved(
    chosen: Options, patterns: Floats, beta: float, barriers: theory.EnergyBarriers, rng: np.random.Generator
) -> dict[str, float]:
    """Retrieve queries near the patterns; compare the ranks of their updates with those of `CAUSES`."""
    near = np.repeat(patterns, chosen.queries, axis=0)
    reach = chosen.noise * np.linalg.norm(near, axis=1, keepdims=True) * rng.random((len(near), 1))
    queries = near + reach * sphere(rng, *near.shape)
    with still_moving():  # of queries that still move, which take the most updates
        ends, info = retrieve(queries, patterns, beta, max_steps=MAX_STEPS, return_info=True)
    limit = cdist(ends, barriers.minima.states).argmin(axis=1)
    causes = {
        "barrier": barriers.escapes[limit],
        "rate": np.array([predicted_rate(patterns[some > 0], beta) for some in barriers.minima.weights])[limit],
        "distance": np.linalg.norm(queries - barriers.minima.states[limit], axis=1),
    }
    found = {f"steps and {cause}": _rank_correlation(info.steps, values) for cause, values in causes.items()}
    return {"steps": float(info.steps.mean())} | found


def _radii(patterns: Floats, beta: float, barriers: theory.EnergyBarriers, distances: Floats) -> dict[str, float]:
    """Compare, over the patterns that are minima, the ranks of barriers and of radii."""
    pattern, minimum = np.nonzero(distances == 0)
    radii = theory.exact_radius(patterns, beta)[pattern]
    return {"radius and barrier": _rank_correlation(radii, barriers.escapes[minimum])}


def _rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return Spearman's rank correlation; nan of fewer than five pairs, or of equal numbers."""
    if len(one) < 5 or not np.ptp(one) or not np.ptp(other):
        return math.nan
    return float(stats.spearmanr(one, other).statistic)
