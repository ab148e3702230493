"""MInD: a bag is its dissimilarities to the training bags."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sparsehopfield.studies.mil.baselines._base import BagClassifier, Floats, Ints, check_positive, nearest_squared


class MInD(BagClassifier):
    """Linear separation of dissimilarities to the training bags.

    The dissimilarity of bag B to a training bag T is the mean, over the instances of B, of the squared distance to the
    nearest of T ("meanmin"). A linear support vector machine takes them as features.

    Parameters
    ----------
    C : float above 0
        How much errors count against the width of the margin.

    Notes
    -----
    One of the dissimilarities of the paper, the one that it recommends.

    References
    ----------
    Cheplygina, Tax and Loog 2015, "Multiple instance learning with bag dissimilarities".
    """

    def __init__(self, C: float = 0.1) -> None:
        self.C = C

    def _check(self) -> None:
        check_positive("C", self.C)

    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        self._rows, self._offsets = rows, offsets
        self._machine = make_pipeline(StandardScaler(), SVC(kernel="linear", C=self.C))
        self._machine.fit(self._dissimilarities(rows, offsets), positive)

    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        return self._machine.decision_function(self._dissimilarities(rows, offsets))

    def _dissimilarities(self, rows: Floats, offsets: Ints) -> Floats:
        """Return those of bags to the training bags, (B, T)."""
        nearest = nearest_squared(rows, self._rows, self._offsets)
        return np.add.reduceat(nearest, offsets[:-1]) / np.diff(offsets)[:, None]
