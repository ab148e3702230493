"""mi-SVM: a support vector machine for instances, whose labels are guessed in turn with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from sparsehopfield._engine.checks import as_whole
from sparsehopfield.studies.mil.baselines._base import BagClassifier, Floats, Ints, bag_of, check_positive


class MiSVM(BagClassifier):
    """Support vector machine that labels the instances of positive bags itself, at least one of each positive.

    At first all instances have their bag's label. In turn, a machine is trained, and the instances of positive bags
    get the labels that it predicts; where none of a bag is positive, the highest is. A bag scores as its highest
    instance.

    Parameters
    ----------
    C : float above 0
        How much errors count against the width of the margin.
    gamma : float above 0
        Of the kernel exp(-gamma |x - z|² / (d var)), with the d features' common variance.
    turns : int, at least 1
        At most so many; fewer when labels no longer change.

    Notes
    -----
    As in the paper, but for the end after so many turns.

    References
    ----------
    Andrews, Tsochantaridis and Hofmann 2002, "Support vector machines for multiple-instance learning".
    """

    def __init__(self, C: float = 1.0, gamma: float = 1.0, turns: int = 10) -> None:
        self.C = C
        self.gamma = gamma
        self.turns = turns

    def _check(self) -> None:
        check_positive("C", self.C)
        check_positive("gamma", self.gamma)
        as_whole("turns", self.turns, 1)

    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        bag = bag_of(offsets)
        labels, free = positive[bag], positive[bag]
        gamma = self.gamma / (rows.shape[1] * (rows.var() or 1.0))
        for _ in range(self.turns):
            self._machine = SVC(C=self.C, gamma=gamma).fit(rows, labels)
            values = self._machine.decision_function(rows)
            highest = np.maximum.reduceat(values, offsets[:-1])
            guessed = free & ((values > 0) | (values == highest[bag]))
            if np.array_equal(guessed, labels):
                break
            labels = guessed

    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        return np.maximum.reduceat(self._machine.decision_function(rows), offsets[:-1])
