"""Classification by association: what the memory mixes are the classes of its rows."""

from __future__ import annotations

from typing import Any, Self, cast

import numpy as np
from sklearn.base import ClassifierMixin

from sparsehopfield._engine.checks import Array, as_flag, as_whole, ignoring_float_errors
from sparsehopfield.estimators._base import SupervisedEstimator, checked_weights, restores
from sparsehopfield.estimators._classes import checked_classes, class_positions, classes_of_all_parts


class HopfieldClassifier(ClassifierMixin, SupervisedEstimator):
    """Classifier by association: the classes of the stored rows, weighted as the memory weights the rows.

    Parameters
    ----------
    beta : float, positive, or "auto"
        Inverse temperature. With "euclidean" similarity, softmax at beta is the Nadaraya-Watson estimate with the
        kernel exp(-beta |x - xi|^2 / 2), and sparsemax gives weight to no row whose score is 1 / beta below the
        best. It has the unit of 1 / X^2: standardise the features, and search it on a logarithmic grid. "auto" does,
        by predictions of the stored rows that do not see themselves (`sparsehopfield.suggestion.best_beta`).
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        How scores become weights: softmax gives every row some, sparse maps give most none. Polynomial is
        refused: its weights may be negative or all zero.
    similarity : {"euclidean", "dot", "cosine"}
        What a score is: -|x - xi|^2/2; <x, xi>; <x, xi/|xi|>.
    max_steps : int, at least 1
        1 takes the association of the row itself; with more, the row is first updated until it converges.
    tol : float, at least 0, optional
        A row has converged when an update moves it by at most `tol` times the longest stored row; by default 4 eps.
        Of no effect where `max_steps` is 1.
    structure : Structure, optional
        The stored rows that a row attends to (`sparsehopfield.structures`); all by default. Softmax with `TopK(k)` is a
        classifier of k neighbours, weighted by their kernels.

    Attributes
    ----------
    memory_ : HopfieldMemory
        A copy of the rows, without those of sample weight 0, with their classes as values, one column each.
    beta_ : float
        The inverse temperature that is used.
    classes_ : ndarray of shape (n_classes,)
        The classes, sorted.
    certified_ : ndarray of bool, shape (M,)
        As in HopfieldRetriever: such a row, asked for again, gets its own class, with probability 1.
    n_features_in_ : int
        The number of features of the fitted rows.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Their names, where the rows were a data frame that has some.

    Warns
    -----
    RetrievalWarning
        If `max_steps` is above 1 and rows still move after so many updates.

    See Also
    --------
    HopfieldRegressor : Predict numbers in place of classes.
    HopfieldPrototypeClassifier : Learn a few prototypes in place of storing all rows.
    sparsehopfield.suggestion.best_beta : Choose beta, as "auto" does.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_iris(return_X_y=True)
    >>> float(cross_val_score(HopfieldClassifier(beta=2.0), X, y).mean().round(2))
    0.97

    The same without refitting: every row is classified by all others.

    >>> model = HopfieldClassifier(beta=2.0).fit(X, y)
    >>> float((model.predict_leave_one_out() == y).mean().round(2))
    0.96
    """

    classes_: Array

    @restores
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Store the rows with their classes.

        Parameters
        ----------
        X : array_like of shape (M, d)
            One row a sample.
        y : array_like of shape (M,)
            The class of each row.
        sample_weight : array_like of shape (M,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is as if it were not there.

        Returns
        -------
        HopfieldClassifier
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault. The estimator is then as it was.

        See Also
        --------
        partial_fit : Store more rows later.
        predict_leave_one_out : Classify the stored rows, each by all others.

        Examples
        --------
        A row of weight 3 counts as three copies.

        >>> model = HopfieldClassifier(separation="softmax").fit([[-1.0], [1.0]], ["a", "b"], sample_weight=[1, 3])
        >>> model.predict_proba([[0.0]])
        array([[0.25, 0.75]])
        """
        return self._fit(X, y, None, sample_weight)

    @restores
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Store more rows behind those that are there.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The rows to add. They become numbers of the dtype that is stored.
        y : array_like of shape (n,)
            The class of each row, one of `classes`.
        classes : array_like of shape (n_classes,)
            All classes that will ever come. Needed in the first call, unless `fit` came before; later it may be left
            out.
        sample_weight : array_like of shape (n,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is as if it were not there.

        Returns
        -------
        HopfieldClassifier
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault. The estimator is then as it was.

        See Also
        --------
        fit : Store rows in place of those that are there.

        Notes
        -----
        A row costs a pass over it, however many there are: their space doubles now and then. `beta_` stays what the
        first call made it.

        Examples
        --------
        >>> model = HopfieldClassifier(beta=8.0)
        >>> for x, y in [([0.0, 0.0], "a"), ([1.0, 0.0], "b"), ([0.0, 1.0], "b")]:
        ...     model = model.partial_fit([x], [y], classes=["a", "b"])
        >>> model.predict([[0.1, 0.9]]).tolist()
        ['b']
        """
        begun = self._is_fitted()
        known = classes_of_all_parts(classes, self.classes_ if begun else None)
        if not begun:
            return self._fit(X, y, known, sample_weight)
        rows, _ = self._validated(X, y, reset=False)
        rows, y, weight = self._there(rows, checked_classes("y", y), checked_weights(sample_weight, len(rows)))
        if len(rows):
            self._store_more(rows, self._votes(y, self.classes_), weight)
        return self

    def _fit(self, X: Any, y: Any, classes: Array | None, sample_weight: Any) -> Self:
        """Store the rows with their classes; None: those that there are."""
        self._check_weights_of_map()
        rows, _ = self._validated(X, y)
        y = checked_classes("y", y)
        weight = checked_weights(sample_weight, len(rows))
        if weight is not None:
            self._check_weights_fit(weight, self.structure)
        rows, y, weight = self._there(rows, y, weight)
        classes = np.unique(y) if classes is None else classes
        votes = self._votes(y, classes)
        self._store(
            rows,
            votes,
            weight,
            lambda memory, weight: self._best_beta(memory, votes.argmax(axis=1), "classification", weight),
        )
        self.classes_ = classes
        return self

    @staticmethod
    def _there(rows: Array, y: Array, weight: Array | None) -> tuple[Array, Array, Array | None]:
        """Return rows, classes and weights without rows of weight 0, which may be of a class that is not there."""
        if weight is None:
            return rows, y, None
        kept = weight > 0
        return rows[kept], y[kept], weight[kept]

    @staticmethod
    def _votes(y: Array, classes: Array) -> Array:
        """Return 1 for each row's class and 0 for all others, (M, n_classes)."""
        index = class_positions("y", y, classes)
        votes = np.zeros((len(index), len(classes)), np.float32)
        votes[np.arange(len(index)), index] = 1
        return votes

    def predict_proba(self, X: Any) -> Array:
        """Return the weight of each class.

        Parameters
        ----------
        X : array_like of shape (N, d)
            One row a sample.

        Returns
        -------
        ndarray of shape (N, n_classes)
            Each row sums to 1. With sparse maps most entries are exactly 0: a class that no row near the query has.

        See Also
        --------
        predict : Return the class with the largest weight.
        predict_proba_leave_one_out : Compute it for the stored rows, where none sees itself.

        Examples
        --------
        >>> model = HopfieldClassifier(beta=1.0).fit([[0.0], [1.0], [3.0]], ["a", "a", "b"])
        >>> model.predict_proba([[0.2], [2.1]]).round(3)
        array([[1. , 0. ],
               [0.4, 0.6]])
        """
        return _probabilities(self._retrieve(self._queries(X)))

    def predict(self, X: Any, return_certificate: bool = False) -> Any:
        """Return the class with the largest weight, the first of several.

        Parameters
        ----------
        X : array_like of shape (N, d)
            One row a sample.
        return_certificate : bool
            Whether to return besides which answers are certified.

        Returns
        -------
        ndarray of shape (N,), or with return_certificate a tuple of it and an ndarray of bool of shape (N,)
            A certified answer is provably what exact arithmetic gives: all rows that have weight are of this class,
            whatever rounding does, so that its probability is 1. (With `max_steps` above 1: the first update provably
            takes the query to one stored row of this class, where it stays.) It says nothing about whether the class
            is right. Where the mask is False, nothing is said.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault; with return_certificate `separation` if the map gives weight to every row.

        See Also
        --------
        predict_proba : Return the weight of each class.
        sparsehopfield.HopfieldMemory.certify : Certify which stored row a query goes to.

        Examples
        --------
        >>> model = HopfieldClassifier(beta=4.0).fit([[0.0], [1.0], [3.0]], ["a", "a", "b"])
        >>> answers, certified = model.predict([[0.4], [1.9]], return_certificate=True)
        >>> answers.tolist(), certified.tolist()
        (['a', 'a'], [True, False])
        """
        queries = self._queries(X)
        answers = self._answers(_probabilities(self._retrieve(queries)))
        if not as_flag("return_certificate", return_certificate):
            return answers
        self._check_certifiable()
        if as_whole("max_steps", self.max_steps, 1) > 1:
            return answers, self._certified_rows(queries)
        votes = self.memory_.values
        snapshot = self.memory_._certifiable_snapshot()
        group = snapshot.certificates.certify_groups(
            queries, self._certifying_beta(), self.memory_._separation[1], votes.argmax(axis=1)
        )
        return answers, group >= 0

    def predict_proba_leave_one_out(self) -> Array:
        """Return the weight of each class for the stored rows themselves, where none sees itself.

        Returns
        -------
        ndarray of shape (M, n_classes)
            What M estimators would answer that are fitted with all rows but one, each asked for the row it lacks, at
            `beta_`: to the bit wherever results are the same bits (docs/reference/promises.md, P1). A class that only
            this row has gets 0. A row of sample weight w is left out with all its copies.

        Raises
        ------
        ValueError
            If one row is stored, or the structure is another than `TopK`.

        See Also
        --------
        predict_leave_one_out : Return the class with the largest weight.
        sparsehopfield.HopfieldMemory.leave_one_out : The same of any values.

        Notes
        -----
        Costs what predicting M rows does.

        Examples
        --------
        >>> model = HopfieldClassifier(beta=2.0).fit([[0.0], [0.5], [1.0], [3.0]], ["a", "a", "b", "b"])
        >>> model.predict_proba_leave_one_out().tolist()
        [[0.875, 0.125], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]
        """
        return _probabilities(self._retrieve_leaving_one_out())

    def predict_leave_one_out(self) -> Array:
        """Return the class of each stored row as all other rows predict it.

        Returns
        -------
        ndarray of shape (M,)
            The class with the largest weight of `predict_proba_leave_one_out`, the first of several.

        Raises
        ------
        ValueError
            If one row is stored, or the structure is another than `TopK`.

        See Also
        --------
        predict_proba_leave_one_out : Return the weight of each class.

        Examples
        --------
        >>> model = HopfieldClassifier(beta=2.0).fit([[0.0], [0.5], [1.0], [3.0]], ["a", "a", "b", "b"])
        >>> model.predict_leave_one_out().tolist()  # the third row is nearer to those of the other class
        ['a', 'a', 'a', 'b']
        """
        return self._answers(self.predict_proba_leave_one_out())

    def _answers(self, probabilities: Array) -> Array:
        """Return the likeliest class of each row, the first of several."""
        best = probabilities.argmax(axis=1)
        return self.classes_[best]


@ignoring_float_errors()
def _probabilities(weights: Array) -> Array:
    """Return the weights of classes, each row divided by its sum."""
    return cast(Array, weights / weights.sum(axis=1, keepdims=True))
