"""The base of the baselines: scikit-learn's interface on bags, and distances from instances to bags."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_is_fitted

from sparsehopfield._engine.checks import Array, as_number
from sparsehopfield.estimators._bags import as_bags
from sparsehopfield.estimators._classes import checked_classes

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class BagClassifier(ClassifierMixin, BaseEstimator):
    """Classifier of bags in two classes: what the baselines have in common.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The second is the positive one.
    n_features_in_ : int
    """

    def fit(self, bags: Any, y: Any) -> Self:
        """Learn from labelled bags.

        Parameters
        ----------
        bags : list of array_like of shape (M_i, d), or array_like of shape (B, M, d)
            At least one instance each, of finite numbers.
        y : array_like of shape (B,)
            One label a bag, of two classes.

        Returns
        -------
        BagClassifier
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.
        """
        self._check()
        rows, offsets = _end_to_end(bags)
        y = checked_classes("y", y)
        if len(y) != len(offsets) - 1:
            raise ValueError(f"y: needs one label for each of {len(offsets) - 1} bags, got {len(y)}")
        classes = np.unique(y)
        if len(classes) != 2:
            raise ValueError(f"y: needs two classes, got {len(classes)}")
        self.classes_, self.n_features_in_ = classes, rows.shape[1]
        self._fit(rows, offsets, y == classes[1])
        return self

    def decision_function(self, bags: Any) -> Floats:
        """Compute the scores of bags, the more positive the higher.

        Parameters
        ----------
        bags
            As in `fit`.

        Returns
        -------
        ndarray of shape (B,)
        """
        check_is_fitted(self)
        rows, offsets = _end_to_end(bags)
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(f"bags: must have the {self.n_features_in_} features of those fitted, got {rows.shape[1]}")
        return np.asarray(self._scores(rows, offsets), np.float64)

    def predict(self, bags: Any) -> Array:
        """Return the class of each bag, the positive one for scores above 0.

        Parameters
        ----------
        bags
            As in `fit`.

        Returns
        -------
        ndarray of shape (B,)
        """
        positive = self.decision_function(bags) > 0
        return self.classes_[positive.astype(int)]

    @abstractmethod
    def _check(self) -> None:
        """Raise unless the parameters are such as the class takes, naming the one at fault."""

    @abstractmethod
    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        """Learn from bags whose instances (R, d) lie end to end; bag b has rows offsets[b] to offsets[b + 1]."""

    @abstractmethod
    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        """Compute the scores of bags, (B,)."""


def _end_to_end(bags: Any) -> tuple[Floats, Ints]:
    """Return the instances of all bags (R, d), and the offsets of the bags (B + 1,)."""
    checked = as_bags(bags, None, np.float64)
    if checked.is_sparse:
        raise TypeError("bags: sparse arrays are not taken by this classifier")
    return checked.rows.reshape(-1, checked.width), np.concatenate([[0], np.cumsum(checked.sizes)])


def check_positive(name: str, number: Any) -> None:
    """Raise unless the parameter is one finite number above 0."""
    if as_number(name, number, least=0.0) == 0:
        raise ValueError(f"{name}: must be above 0, got {number}")


def bag_of(offsets: Ints) -> Ints:
    """Return the number of the bag of each instance, (R,)."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def nearest_squared(rows: Floats, others: Floats, offsets: Ints) -> Floats:
    """Compute the squared distance from each instance (R, d) to the nearest of each bag: (R, B)."""
    return np.minimum.reduceat(euclidean_distances(rows, others, squared=True), offsets[:-1], axis=1)
