"""Citation-kNN: the nearest bags vote, and so do those that count the asked bag among their nearest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import as_whole
from sparsehopfield.studies.mil.baselines._base import BagClassifier, Floats, Ints, nearest_squared


class CitationKNN(BagClassifier):
    """Votes of references and citers, by the least distance between two instances of two bags.

    Parameters
    ----------
    references : int, at least 1
        So many nearest bags are references.
    citers : int, at least 1
        A bag is a citer if the one that is asked for would be among its so many nearest bags.

    Notes
    -----
    The score is the share of positive votes less that of negative ones; as in the paper a draw is negative. The paper
    also has the distance between bags by another rank than the least; here it is the least.

    References
    ----------
    Wang and Zucker 2000, "Solving the multiple-instance problem: a lazy learning approach".
    """

    def __init__(self, references: int = 2, citers: int = 4) -> None:
        self.references = references
        self.citers = citers

    def _check(self) -> None:
        as_whole("references", self.references, 1)
        as_whole("citers", self.citers, 1)

    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        self._rows, self._offsets, self._votes = rows, offsets, np.where(positive, 1.0, -1.0)
        between = self._distances(rows, offsets)
        np.fill_diagonal(between, np.inf)  # no bag is a neighbour of itself
        self._farthest = np.sort(between, axis=1)[:, min(self.citers, len(between)) - 1]

    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        distances = self._distances(rows, offsets)
        asked, votes = np.zeros_like(distances), self._votes
        nearest = np.argsort(distances, axis=1, kind="stable")[:, : self.references]
        np.put_along_axis(asked, nearest, 1.0, axis=1)
        asked += distances <= self._farthest  # a bag may vote twice, as reference and as citer
        return asked @ votes / asked.sum(axis=1)

    def _distances(self, rows: Floats, offsets: Ints) -> Floats:
        """Return the least squared distances of bags to the training bags, (B, T)."""
        return np.minimum.reduceat(nearest_squared(rows, self._rows, self._offsets), offsets[:-1])
