"""The protocol of the study of capacity bounds: its options, the sets that are drawn, and the bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sparsehopfield import theory
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.studies._core.options import StudyOptions, at_least

SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)
METRICS = ("patterns", "success")


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    dims : int or sequence of int
        Dimensions d, at least 2.
    betas : float or sequence of float
        Inverse temperatures; the sphere has radius 1.
    risks : float or sequence of float
        Probabilities p of failure, between 0 and 1.
    radius : float
        The basin's radius that each pattern is to have.
    shares : float or sequence of float
        Numbers of patterns to draw, as shares of the exact capacity.
    draws : int
        Sets of patterns that are drawn for each setting.
    most : int
        Settings with more patterns than this are left out.
    jobs : int
        Number of settings to measure at the same time.
    """

    dims: Sequence[int] = (4, 8, 12)
    betas: Sequence[float] = (20.0, 100.0)
    risks: Sequence[float] = (0.5, 0.1, 0.01)
    radius: float = 0.0
    shares: Sequence[float] = SHARES
    draws: int = 1000
    most: int = 1000
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"dims": int, "betas": float, "risks": float, "shares": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("dims", min(self.dims), 2)
        for name in ("draws", "jobs"):
            at_least(name, getattr(self, name), 1)
        at_least("most", self.most, 2)
        if not 0 <= self.radius < math.inf:
            raise ValueError(f"radius: must be a finite number of at least 0, got {self.radius}")
        for name, most in (("betas", math.inf), ("risks", 1.0), ("shares", math.inf)):
            for value in getattr(self, name):
                if not 0 < value < most:
                    raise ValueError(f"{name}: must be above 0 and below {most:g}, got {value:g}")


def count_patterns(d: int, beta: float, p: float, radius: float, share: float) -> int:
    """Return a share of the exact capacity, rounded down."""
    return int(min(theory.exact_capacity(d, 1.0, beta, p, radius).M * share, 2**40))


def all_stored(patterns: Any, beta: float, radius: float) -> bool:
    """Check whether every pattern, of length 1, has an exact basin of at least this radius: D/2 - 1/(beta D) at
    distance D.

    With radius 0: whether each is an exact fixed point.
    """
    nearest = math.sqrt(max(2 * float(HopfieldMemory(patterns, beta, similarity="euclidean").margin().min()), 0))
    return nearest > 0 and nearest / 2 - 1 / (beta * nearest) >= radius


def bounds(d: int, beta: float, p: float, radius: float) -> dict[str, float]:
    """Compute the capacities by each bound for a unit sphere; lemma 3.1 at radius 1/(2 beta) where the radius is 0."""
    exact = theory.exact_capacity(d, 1.0, beta, p, radius)
    return {
        "exact": exact.M,
        "closed form": exact.weak_M,
        "lemma 3.1, corrected": theory.capacity_bound(d, 1.0, beta, p, radius or 1 / (2 * beta)).M,
        "dense": theory.dense_capacity_bound(d, 1.0, beta, p).M,
    }
