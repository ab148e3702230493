"""MILES: a bag is how near it comes to every instance of the training bags."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import LinearSVC

from sparsehopfield.studies.mil.baselines._base import BagClassifier, Floats, Ints, check_positive


class MILES(BagClassifier):
    """Linear separation of similarities to instances, few of which get a weight.

    A bag B becomes the numbers max over x in B of exp(-|x - p|² / width²), one for each training instance p. A support
    vector machine with a penalty on the absolute weights chooses among these.

    Parameters
    ----------
    width : float above 0
        In units of the median distance between training instances.
    C : float above 0
        How much errors count against the sum of absolute weights.

    Notes
    -----
    Simpler than the paper: hinge losses are squared, as LIBLINEAR has them, and both classes have the same C.

    References
    ----------
    Chen, Bi and Wang 2006, "MILES: multiple-instance learning via embedded instance selection".
    """

    def __init__(self, width: float = 1.0, C: float = 1.0) -> None:
        self.width = width
        self.C = C

    def _check(self) -> None:
        check_positive("width", self.width)
        check_positive("C", self.C)

    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        self._prototypes = rows
        distances = euclidean_distances(rows, squared=True)
        self._width = self.width**2 * (np.median(distances[distances > 0]) if distances.any() else 1.0)
        self._machine = LinearSVC(penalty="l1", dual=False, C=self.C, random_state=0, tol=1e-3, max_iter=10_000)
        self._machine.fit(self._embedded(rows, offsets), positive)

    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        return self._machine.decision_function(self._embedded(rows, offsets))

    def _embedded(self, rows: Floats, offsets: Ints) -> Floats:
        """Return how near each bag comes to each training instance, (B, P)."""
        near = np.exp(-euclidean_distances(rows, self._prototypes, squared=True) / self._width)
        return np.maximum.reduceat(near, offsets[:-1])
