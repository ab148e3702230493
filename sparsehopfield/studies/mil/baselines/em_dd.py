"""EM-DD: a point that every positive bag comes near to, and no negative one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from sparsehopfield._engine.checks import Array, as_generator, as_whole
from sparsehopfield.studies.mil.baselines._base import BagClassifier, Floats, Ints

TINY = 1e-9  # distances are at least this, so that no logarithm is of 0


class EMDD(BagClassifier):
    """Diverse density by expectation and maximisation: a target point and a scale for each feature.

    An instance x is positive with probability exp(-D), D = sum of s² (x - t)². In turn, the likeliest instance of each
    bag is chosen, and the likelihood of the bags' labels through these is maximised in t and s by L-BFGS, until it no
    longer grows. The best of several starts is kept. A bag's score is log 2 - min D, above 0 where the probability is
    above 1/2.

    Parameters
    ----------
    starts : int, at least 1
        Starting points: instances of positive bags.
    steps : int, at least 1
        At most so many steps of L-BFGS in a turn; few keep t and s near the start.
    random_state : int
        Of the starting points.

    Notes
    -----
    Simpler than the paper: starting points are drawn from all positive bags, not all those of three of them. At first
    all scales are the same, so that the median distance is 1.

    References
    ----------
    Zhang and Goldman 2001, "EM-DD: an improved multiple-instance learning technique"; Maron and Lozano-Pérez 1998, "A
    framework for multiple-instance learning".
    """

    def __init__(self, starts: int = 10, steps: int = 20, random_state: int = 0) -> None:
        self.starts = starts
        self.steps = steps
        self.random_state = random_state

    def _check(self) -> None:
        as_whole("starts", self.starts, 1)
        as_whole("steps", self.steps, 1)
        as_generator("random_state", self.random_state)

    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        candidates = np.flatnonzero(np.repeat(positive, np.diff(offsets)))
        rng = np.random.default_rng(self.random_state)
        drawn = rng.choice(candidates, min(self.starts, len(candidates)), replace=False)
        found = [self._climb(rows[start], rows, offsets, positive) for start in drawn]
        _, self.target_, self.scales_ = min(found, key=lambda one: one[0])

    def _climb(
        self, start: Floats, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]
    ) -> tuple[float, Floats, Floats]:
        """Return the negative logarithm of the likelihood that is reached from a start, the target and the scales."""
        spread = np.median(((rows - start) ** 2).sum(axis=1))
        at = np.concatenate([start, np.full(len(start), (spread or 1.0) ** -0.5)])
        best = np.inf
        while True:
            chosen = _nearest(_distances(at, rows), offsets)
            step = minimize(_loss, at, (rows[chosen], positive), "L-BFGS-B", jac=True, options={"maxiter": self.steps})
            if not step.fun < best * (1 - 1e-4):
                target, scales = np.split(at, 2)
                return best, target, scales
            at, best = step.x, float(step.fun)

    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        distances = _distances(np.concatenate([self.target_, self.scales_]), rows)
        return np.log(2) - np.minimum.reduceat(distances, offsets[:-1])


def _distances(at: Floats, rows: Floats) -> Floats:
    """Return the scaled squared distance of instances (R, d) to the target, (R,), for `at` = target and scales."""
    target, scales = np.split(at, 2)
    return ((rows - target) ** 2) @ scales**2


def _nearest(distances: Floats, offsets: Ints) -> Ints:
    """Return the position of the least distance of each bag."""
    return np.array([a + distances[a:b].argmin() for a, b in pairwise(offsets)])


def _loss(at: Floats, chosen: Floats, positive: NDArray[np.bool_]) -> tuple[float, Array]:
    """Return -log likelihood of the labels by one instance (B, d) a bag, and its gradient in target and scales."""
    target, scales = np.split(at, 2)
    apart = chosen - target
    distances = np.maximum(apart**2 @ scales**2, TINY)
    loss = np.where(positive, distances, -np.log(-np.expm1(-distances)))
    slopes = np.where(positive, 1.0, -1.0 / np.expm1(np.minimum(distances, 700.0)))
    return float(loss.sum()), np.concatenate([-2 * scales**2 * (slopes @ apart), 2 * scales * (slopes @ apart**2)])
