"""Executors carry out the operations of one call: here by the core, in `structures` by sums over features."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array

#: The most patterns that the core's search for the nearest finds of a query: SH_NEAREST in its header.
MOST_NEAREST = 32
Steps = tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]  # steps, converged, support sizes; (N,) each
#: CSR lists of N rows: starts (N + 1,), and positions, scores and weights of all entries.
Weights = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
#: Starts, positions and scores of such lists, and of which rows there is none, as it would be too long, (N,).
Listed = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]


class Executor(Protocol):
    """The operations that every structure has."""

    def update(self, rows: Array, out: Array) -> None:
        """Write one update of rows (N, d) to out (N, v): a mixture of the values, or of the patterns without any."""

    def retrieve(self, rows: Array, max_steps: int, tol: float, states: Array, before: Array | None) -> Steps:
        """Update rows (N, d) until none moves, into states (N, d); `before` gets each query before its last update."""

    def refuse(self, operation: str) -> None:
        """Raise ValueError if only the core has an operation: "energy", "associate" or "candidates"."""


@dataclass(slots=True)
class CoreExecutor:
    """The core, under one model."""

    core: Any  # the capsule of the patterns in the call's dtype
    beta: NDArray[np.float64]  # (1,) or (N,)
    code: tuple[int, float]  # of the separation map: its number in the core's table, and its parameter
    pairs: Any = None  # which pairs of queries and patterns are scored, as the core reads it; None for all
    exclude: NDArray[np.int64] | None = None  # (N,) the position of one pattern that each query does not see, or -1

    def update(self, rows: Array, out: Array) -> None:
        """Write one update of rows (N, d) to out (N, v)."""
        _core.update(self.core, rows, self.beta, *self.code, self.pairs, out, self.exclude)

    def retrieve(self, rows: Array, max_steps: int, tol: float, states: Array, before: Array | None) -> Steps:
        """Update rows (N, d) until none moves, into states; `before` gets each query before its last update."""
        options = max_steps, tol, states, before, self.exclude
        return _core.retrieve(self.core, rows, self.beta, *self.code, self.pairs, *options)

    def energy(self, rows: Array) -> NDArray[np.float64]:
        """Return E_beta of rows (N, d), (N,)."""
        return _core.energy(self.core, rows, self.beta, *self.code, self.pairs, self.exclude)

    def associate(self, rows: Array, top: int = 0, min_weight: float = 0.0) -> Weights:
        """Return CSR lists of rows (N, d): weights of at least min_weight, of each row the `top` largest; 0: all."""
        return _core.associate(self.core, rows, self.beta, *self.code, self.pairs, top, min_weight, self.exclude)

    def nearest(self, rows: Array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return positions and canonical scores (N, k) of the best of all patterns, k at most `MOST_NEAREST`."""
        return _core.nearest(self.core, rows, self.beta, *self.code, k, self.exclude)

    def candidates(self, rows: Array, floor: NDArray[np.float64] | None = None, most: int = 0) -> Listed:
        """Return CSR lists of rows (N, d): patterns with weight among these, of canonical scores from `floor` (N,) on.

        Those of softmax are within reach of the best, and rows with more than `most` of them are told, not listed.
        """
        if floor is not None and np.isnan(floor).any():
            raise ValueError("floor: contains NaN")
        return _core.candidates(self.core, rows, self.beta, *self.code, self.pairs, floor, most, self.exclude)

    def accumulate(self, rows: Array, mixture: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and sum, (N,) each, of the partial result of all patterns; write its mixture (N, v)."""
        return _core.accumulate(self.core, rows, self.beta, *self.code, mixture, self.exclude)

    def refuse(self, operation: str) -> None:
        """Accept every operation."""
