"""The network of Hopfield (1982): Hebbian weights, updates by the sign of the field."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

#: Patterns a unit that it can hold, with errors in about 1.6 % of the bits (Amit, Gutfreund & Sompolinsky 1985).
CAPACITY = 0.138


class HebbianNetwork:
    """A network of binary units with weights sum over mu of xi_mu xi_mu^T / d, and none of a unit with itself.

    Parameters
    ----------
    patterns : ndarray of shape (M, d)
        Of 1 and -1.
    """

    def __init__(self, patterns: Floats) -> None:
        self.weights = patterns.T @ patterns / patterns.shape[1]
        np.fill_diagonal(self.weights, 0)

    def step(self, states: Floats) -> Floats:
        """Update all units of all states at once; a unit without a field stays."""
        field = states @ self.weights
        return np.where(field == 0, states, np.sign(field))

    def rest(
        self, states: Floats, rng: np.random.Generator, *, synchronous: bool = False, most: int = 100
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Update until nothing moves, at most so many times; return the states and the sweeps of each that changed it.

        One unit after another, in an order drawn anew for each sweep, the energy -x^T W x/2 falls with each change, so
        that all come to rest; all at once they may end in a cycle of two states.
        """
        states, sweeps, moving = states.copy(), np.zeros(len(states), np.int64), np.arange(len(states))
        for _ in range(most):
            before = states[moving]
            now = self.step(before) if synchronous else before.copy()
            for i in () if synchronous else rng.permutation(states.shape[1]):
                field = now @ self.weights[i]  # a row lies closer together than the column, its equal
                now[:, i] = np.where(field == 0, now[:, i], np.sign(field))
            states[moving] = now
            moving = moving[(now != before).any(axis=1)]
            sweeps[moving] += 1
            if not len(moving):
                break
        return states, sweeps


def one_step_share(d: int, count: int, flips: int) -> float:
    """Approximate the probability that one step of all units at once restores a random pattern, f entries flipped.

    The field of a unit is (1 - 2f/d) times its bit plus crosstalk, nearly normal with variance (M - 1)/d, and the d
    units are taken for independent.
    """
    if count == 1:
        return float(2 * flips < d)
    signal = (1 - 2 * flips / d) / math.sqrt((count - 1) / d)
    return math.exp(d * float(special.log_ndtr(signal)))
