"""Regression by association: what the memory mixes are the targets of its rows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from sparsehopfield._engine.checks import Array, as_numbers
from sparsehopfield.estimators._base import SupervisedEstimator, checked_weights, restores
from sparsehopfield.memory import HopfieldMemory


class HopfieldRegressor(RegressorMixin, SupervisedEstimator):
    """Regression by association: the mean of the stored rows' targets, weighted as the memory weights the rows.

    Parameters
    ----------
    beta : float, positive, or "auto"
        Inverse temperature, as in HopfieldClassifier: softmax at beta is the Nadaraya-Watson estimate.
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
        regression on k neighbours, weighted by their kernels.

    Attributes
    ----------
    memory_ : HopfieldMemory
        A copy of the rows, without those of sample weight 0, with their targets as values.
    beta_ : float
        The inverse temperature that is used.
    n_outputs_ : int
        The number of targets of a row.
    certified_ : ndarray of bool, shape (M,)
        As in HopfieldRetriever: such a row, asked for again, gets its own targets, to the bit.
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
    HopfieldClassifier : Predict classes in place of numbers.
    HopfieldForecaster : Predict a series from its own past.
    sparsehopfield.suggestion.best_beta : Choose beta, as "auto" does.

    Notes
    -----
    Targets of float32 and float16 are kept as float32, all others as float64; beside these, rows are computed with in
    float64, too.

    References
    ----------
    Nadaraya 1964, "On estimating regression"; Watson 1964, "Smooth regression analysis".

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(0, 6, 61)[:, None]
    >>> model = HopfieldRegressor(beta=50.0).fit(X, np.sin(X[:, 0]))
    >>> model.predict([[1.5]]).round(3)
    array([0.995])
    >>> error = model.predict_leave_one_out() - np.sin(X[:, 0])
    >>> bool(np.abs(error[1:-1]).max() < 0.02)
    True
    """

    n_outputs_: int
    _y_axes: int

    @restores
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Store the rows with their targets.

        Parameters
        ----------
        X : array_like of shape (M, d)
            One row a sample.
        y : array_like of shape (M,) or (M, n_outputs)
            The targets of each row.
        sample_weight : array_like of shape (M,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is as if it were not there.

        Returns
        -------
        HopfieldRegressor
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault. The estimator is then as it was.

        See Also
        --------
        partial_fit : Store more rows later.
        predict_leave_one_out : Predict the stored rows, each by all others.

        Examples
        --------
        A row of weight 3 counts as three copies.

        >>> model = HopfieldRegressor(separation="softmax").fit([[-1.0], [1.0]], [0.0, 4.0], sample_weight=[1, 3])
        >>> model.predict([[0.0]])
        array([3.])
        """
        self._check_weights_of_map()
        rows, targets, axes = self._rows_and_targets(X, y, reset=True)
        weight = checked_weights(sample_weight, len(rows))

        def choose_beta(memory: HopfieldMemory, weight: NDArray[np.float64] | None) -> float:
            return self._best_beta(memory, memory.values, "regression", weight)

        self._store(rows, targets, weight, choose_beta)
        self.n_outputs_, self._y_axes = targets.shape[1], axes
        return self

    @restores
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Store more rows behind those that are there; on the first call as `fit`.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The rows to add. They become numbers of the dtype that is stored.
        y : array_like of shape (n,) or (n, n_outputs), as in `fit`
            The targets of each row, in the dtype that is stored.
        sample_weight : array_like of shape (n,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is as if it were not there.

        Returns
        -------
        HopfieldRegressor
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
        >>> model = HopfieldRegressor(beta=4.0).fit([[0.0], [1.0]], [0.0, 1.0])
        >>> model.partial_fit([[2.0]], [4.0]).predict([[1.5]])
        array([2.5])
        """
        if not self._is_fitted():
            return self.fit(X, y, sample_weight)
        rows, targets, axes = self._rows_and_targets(X, y, reset=False)
        if targets.shape[1] != self.n_outputs_ or axes != self._y_axes:
            shape = "(M,)" if self._y_axes == 1 else f"(M, {self.n_outputs_})"
            raise ValueError(f"y: must have shape {shape} as in the first call, got {np.shape(y)}")
        self._store_more(rows, targets, checked_weights(sample_weight, len(rows)))
        return self

    def _rows_and_targets(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array, int]:
        """Return rows (M, d) and targets (M, n_outputs), checked, and how many axes the targets had."""
        rows, y = self._validated(X, y, reset=reset, multi_output=True, y_numeric=True)
        y = as_numbers("y", y)
        if y.ndim > 2 or (y.ndim == 2 and y.shape[1] == 0):
            raise ValueError(f"y: must have shape (M,) or (M, n_outputs), at least one output, got {y.shape}")
        targets = y.astype(np.float32 if y.dtype.newbyteorder("=") in (np.float16, np.float32) else np.float64)
        return rows, targets.reshape(len(targets), -1), y.ndim

    def predict(self, X: Any) -> Array:
        """Return the mean of the targets by the weights of their rows.

        Parameters
        ----------
        X : array_like of shape (N, d)
            One row a sample.

        Returns
        -------
        ndarray of shape (N,) or (N, n_outputs), as `y` in `fit`
            The predicted targets.

        See Also
        --------
        predict_leave_one_out : Predict the stored rows, each by all others.

        Examples
        --------
        >>> model = HopfieldRegressor(beta=4.0).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 4.0])
        >>> model.predict([[1.5], [0.1]])  # half way between two rows their mean, near one its target
        array([2.5, 0. ])
        """
        return self._shaped(self._retrieve(self._queries(X)))

    def predict_leave_one_out(self) -> Array:
        """Return the prediction of each stored row by all other rows: it does not see itself, nor its targets.

        Returns
        -------
        ndarray of shape (M,) or (M, n_outputs), as `y` in `fit`
            What M estimators would answer that are fitted with all rows but one, each asked for the row it lacks, at
            `beta_`: to the bit wherever results are the same bits (docs/reference/promises.md, P1). A row of sample
            weight w is left out with all its copies.

        Raises
        ------
        ValueError
            If one row is stored, or the structure is another than `TopK`.

        See Also
        --------
        predict : Predict new rows.
        sparsehopfield.HopfieldMemory.leave_one_out : The same of any values.

        Notes
        -----
        Costs what predicting M rows does.

        Examples
        --------
        >>> model = HopfieldRegressor(beta=4.0).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 4.0])
        >>> model.predict_leave_one_out()
        array([1., 2., 1.])
        """
        return self._shaped(self._retrieve_leaving_one_out())

    def _shaped(self, predictions: Array) -> Array:
        """Return predictions (N, n_outputs) with as many axes as the targets had."""
        return predictions[:, 0] if self._y_axes == 1 else predictions

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
