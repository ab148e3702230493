"""Outliers by energy: rows that the stored ones do not hold down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import Array, as_number, ignoring_float_errors
from sparsehopfield._engine.separations import row_of, separation_code, valid_separations
from sparsehopfield._engine.structure import Structure, check_can_leave_out
from sparsehopfield._engine.text import short
from sparsehopfield.estimators._base import MemoryEstimator, Method, checked_weights, restores

Floats = NDArray[np.float64]


def _for_new_rows(estimator: Any) -> bool:
    """Return whether the methods for new rows are there; raise what says why not."""
    if not estimator.novelty:
        raise AttributeError("novelty: must be True for this method; with False fit_predict judges the rows themselves")
    return True


def _for_the_rows_themselves(estimator: Any) -> bool:
    """Return whether `fit_predict` is there; raise what says why not."""
    if estimator.novelty:
        raise AttributeError("novelty: must be False for fit_predict; with True predict judges new rows")
    return True


def _available(check: Callable[[Any], bool]) -> Callable[[Method], Method]:
    """Return a decorator of methods that are there where a check says so."""
    return cast(Callable[[Method], Method], available_if(check))


class HopfieldOutlierDetector(OutlierMixin, MemoryEstimator):
    """Outlier detector by energy: a row is an outlier where the stored rows leave its energy high.

    The score of a row is minus its energy (`HopfieldMemory.energy`). With "euclidean" similarity the energy is a soft
    minimum of half the squared distances to the stored rows. For softmax the score is log sum exp(-beta |x - xi|^2 / 2)
    divided by beta, and so the log density of `sklearn.neighbors.KernelDensity` up to a factor and a constant. Sparse
    maps see only the nearest rows, as `LocalOutlierFactor` does.

    Parameters
    ----------
    beta : float, positive
        Inverse temperature, of the unit of 1 / X^2: the larger, the fewer neighbours count.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        How scores become weights: softmax gives every row some, sparse maps give most none. Polynomial is
        refused: it has no energy.
    similarity : {"euclidean", "dot", "cosine"}
        What a score is: -|x - xi|^2/2; <x, xi>; <x, xi/|xi|>.
    structure : Structure, optional
        The stored rows that count (`sparsehopfield.structures`), as `TopK(k)`; all by default.
    contamination : "auto" or float, above 0, at most 0.5
        The share of the fitted rows that are outliers. "auto" takes Tukey's rule for outliers: those whose scores lie
        more than 1.5 interquartile ranges below the lower quartile.
    novelty : bool
        As in `LocalOutlierFactor`. False: `fit_predict` judges the fitted rows themselves, each by all others. True:
        `predict`, `decision_function` and `score_samples` judge new rows. Give only new rows to these: a fitted one
        would see itself.

    Attributes
    ----------
    memory_ : HopfieldMemory
        A copy of the rows, without those of sample weight 0.
    beta_ : float
        The inverse temperature that is used.
    leave_one_out_scores_ : ndarray of shape (M,)
        The score of each stored row where it does not see itself (of a row of sample weight w one of w copies is left
        out): to the bit what an estimator without it gives, wherever results are the same bits
        (docs/reference/promises.md, P1).
    offset_ : float
        Scores below it are those of outliers. Where `contamination` is a number, so large a share of the rows lies
        below it: it is half way between the scores of the last outlier and of the first other row where that share is
        a whole number of rows, else the score of the first other row.
    certified_ : ndarray of bool, shape (M,)
        Which stored rows an update leaves exactly as they are, see HopfieldRetriever.
    n_features_in_ : int
        The number of features of the fitted rows.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Their names, where the rows were a data frame that has some.

    See Also
    --------
    HopfieldOutlierDetector.fit_predict : Judge the rows themselves.
    HopfieldOutlierDetector.predict : Judge new rows.
    sparsehopfield.HopfieldMemory.energy : Compute the energies that scores are minus of.

    References
    ----------
    Ramsauer et al. 2021, "Hopfield networks is all you need", eq. (2), for the energy; Tukey 1977, "Exploratory data
    analysis", for the fences.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((200, 2))
    >>> X[7] = [6.0, -5.0]
    >>> bool(HopfieldOutlierDetector().fit_predict(X)[7] == -1)
    True
    >>> model = HopfieldOutlierDetector(novelty=True, contamination=0.05).fit(X)
    >>> model.predict([[0.1, 0.2], [5.0, 5.0]]).tolist()
    [1, -1]
    """

    def __init__(
        self,
        beta: float = 1.0,
        separation: Separation = "sparsemax",
        similarity: str = "euclidean",
        structure: Structure | None = None,
        contamination: float | str = "auto",
        novelty: bool = False,
    ) -> None:
        self.beta = beta
        self.separation = separation
        self.similarity = similarity
        self.structure = structure
        self.contamination = contamination
        self.novelty = novelty

    _scores: Floats | None  # of the rows, leaving one out; None: rows came since

    @restores
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Store the rows, and score each by all others.

        Parameters
        ----------
        X : array_like of shape (M, d), of at least two rows
            One row a sample.
        y : ignored
            Not used.
        sample_weight : array_like of shape (M,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is as if it were not there.

        Returns
        -------
        HopfieldOutlierDetector
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault. The estimator is then as it was.

        See Also
        --------
        fit_predict : Store the rows and judge them.
        partial_fit : Store more rows later.

        Examples
        --------
        >>> model = HopfieldOutlierDetector().fit([[0.0], [0.1], [0.2], [0.1], [5.0]])
        >>> (model.leave_one_out_scores_ < model.offset_).tolist()
        [False, False, False, False, True]
        """
        self._begin(X, sample_weight)
        self._scores = self._leave_one_out_scores()
        return self

    @restores
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Store more rows behind those that are there.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The rows to add; one is enough, also in the first call. They become numbers of the dtype that is stored.
        y : ignored
            Not used.
        sample_weight : array_like of shape (n,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is as if it were not there.

        Returns
        -------
        HopfieldOutlierDetector
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
        A row costs a pass over it, however many there are: their space doubles now and then. `score_samples` judges by
        the rows that are there. `leave_one_out_scores_` and `offset_` are computed when they are next asked for, by
        `predict` and `decision_function`, too, at the cost of scoring all stored rows.

        Examples
        --------
        >>> model = HopfieldOutlierDetector(novelty=True).fit([[0.0], [0.1], [0.2], [0.1]])
        >>> before = model.predict([[5.0]])
        >>> after = model.partial_fit([[5.0], [5.1], [4.9]]).predict([[5.0]])
        >>> before.tolist(), after.tolist()
        ([-1], [1])
        """
        if not self._is_fitted():
            self._begin(X, sample_weight)
        else:
            rows = self._validated(X, reset=False)
            self._store_more(rows, None, checked_weights(sample_weight, len(rows)))
        self._scores = None
        return self

    def _begin(self, X: Any, sample_weight: Any) -> None:
        """Store the first rows."""
        row = row_of(separation_code(self.separation))
        if not row.has_energy:
            raise ValueError(
                f"separation: {short(self.separation)} has no energy; must be {valid_separations(has_energy=True)}"
            )
        if isinstance(self.beta, str):
            raise TypeError(f"beta: must be a positive number, got {short(self.beta)}")
        self._checked_contamination()
        rows = self._validated(X)
        self._store(rows, None, checked_weights(sample_weight, len(rows)), lambda memory, weight: 1.0)

    def _checked_contamination(self) -> float | None:
        """Return the share of outliers, or None for "auto"."""
        if isinstance(self.contamination, str):
            if self.contamination != "auto":
                raise ValueError(f"contamination: must be 'auto' or a number, got {short(self.contamination)}")
            return None
        share = as_number("contamination", self.contamination, least=0.0)
        if not 0 < share <= 0.5:
            raise ValueError(f"contamination: must be above 0 and at most 0.5, got {short(self.contamination)}")
        return share

    # --- scores -------------------------------------------------------------------------------------

    @property
    def leave_one_out_scores_(self) -> Floats:
        """Return the score of each stored row where it does not see itself, (M,)."""
        check_is_fitted(self)
        if self._scores is None:
            self._scores = self._leave_one_out_scores()
        return self._scores

    @property
    def offset_(self) -> float:
        """Return the score below which rows are outliers."""
        scores, share = self.leave_one_out_scores_, self._checked_contamination()
        weight = np.ones(len(scores)) if self._sample_weight is None else self._sample_weight.rows
        if share is not None:
            return _weighted_quantile(scores, weight, share)
        lower, upper = (_weighted_quantile(scores, weight, q) for q in (0.25, 0.75))
        with ignoring_float_errors():
            return float(lower - 1.5 * (upper - lower))

    def _leave_one_out_scores(self) -> Floats:
        """Compute the score of each stored row where it does not see itself, (M,)."""
        check_can_leave_out(self.structure)
        m, rows = len(self.memory_), self.memory_.patterns
        weighted = self._weighted()
        if weighted is None and m < 2:
            raise ValueError("X: needs at least two rows, so that one can be judged by others; got n_samples = 1")
        if weighted is not None:
            if m < 2 and weighted.weight[0] <= 1:
                raise ValueError(
                    "sample_weight: at least two rows must have weight, so that one can be judged by others"
                )
            return -weighted.energy(rows, lacks_a_copy=True)
        return -np.asarray(self.memory_.energy(rows, exclude=np.arange(m)), np.float64)

    def _score(self, X: Any) -> Floats:
        """Return minus the energies of new rows, (N,)."""
        queries, weighted = self._queries(X), self._weighted()
        if weighted is not None:
            return -weighted.energy(queries)
        return -np.asarray(self.memory_.energy(queries), np.float64)

    @_available(_for_new_rows)
    def score_samples(self, X: Any) -> Floats:
        """Return minus the energies of new rows: the higher, the more normal. Only with novelty=True.

        Parameters
        ----------
        X : array_like of shape (N, d)
            New rows: a fitted one would see itself.

        Returns
        -------
        ndarray of float64, shape (N,)
            The score of each row.

        Raises
        ------
        AttributeError
            If `novelty` is False.

        See Also
        --------
        decision_function : Compute the scores relative to `offset_`.
        sparsehopfield.HopfieldMemory.energy : Compute the energies.

        Examples
        --------
        >>> model = HopfieldOutlierDetector(novelty=True).fit([[0.0], [0.2], [0.4]])
        >>> model.score_samples([[0.2], [2.4]]).round(3)
        array([ 0.32 , -1.916])
        """
        return self._score(X)

    @_available(_for_new_rows)
    def decision_function(self, X: Any) -> Floats:
        """Return the scores of new rows less `offset_`: negative for outliers. Only with novelty=True.

        Parameters
        ----------
        X : array_like of shape (N, d)
            New rows: a fitted one would see itself.

        Returns
        -------
        ndarray of float64, shape (N,)
            `score_samples(X) - offset_`.

        Raises
        ------
        AttributeError
            If `novelty` is False.

        See Also
        --------
        predict : Return the sign.
        score_samples : Compute the scores themselves.

        Examples
        --------
        >>> model = HopfieldOutlierDetector(novelty=True, contamination=0.25).fit([[0.0], [0.1], [0.2], [5.0]])
        >>> (model.decision_function([[0.15], [9.0]]) < 0).tolist()
        [False, True]
        """
        return self._score(X) - self.offset_

    @_available(_for_new_rows)
    def predict(self, X: Any) -> Array:
        """Return 1 for new rows that are normal, -1 for outliers. Only with novelty=True.

        Parameters
        ----------
        X : array_like of shape (N, d)
            New rows: a fitted one would see itself.

        Returns
        -------
        ndarray of int, shape (N,)
            1 where `decision_function` is at least 0, else -1.

        Raises
        ------
        AttributeError
            If `novelty` is False.

        See Also
        --------
        fit_predict : Judge the fitted rows themselves.
        decision_function : Say how far from the border a row is.

        Examples
        --------
        >>> model = HopfieldOutlierDetector(novelty=True, contamination=0.25).fit([[0.0], [0.1], [0.2], [5.0]])
        >>> model.predict([[0.15], [9.0]]).tolist()
        [1, -1]
        """
        return _marks(self._score(X) - self.offset_)

    @_available(_for_the_rows_themselves)
    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Array:
        """Store the rows and judge each by all others: 1 for those that are normal, -1 for outliers.

        Only with novelty=False.

        Parameters
        ----------
        X : array_like of shape (M, d), of at least two rows
            The rows to store and to judge.
        y : ignored
            Not used.
        sample_weight : array_like of shape (M,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is not stored.

        Returns
        -------
        ndarray of int, shape (M,)
            Of all rows: one of sample weight 0 is judged by those that are stored.

        Raises
        ------
        ValueError, TypeError
            As `fit`.
        AttributeError
            If `novelty` is True.

        See Also
        --------
        predict : Judge new rows.
        fit : Store the rows without judging them.

        Examples
        --------
        >>> HopfieldOutlierDetector().fit_predict([[0.0], [0.1], [0.2], [0.1], [5.0]]).tolist()
        [1, 1, 1, 1, -1]
        """
        self.fit(X, y, sample_weight)
        weight = None if sample_weight is None else checked_weights(sample_weight, np.shape(X)[0])
        if weight is None or (weight > 0).all():
            return _marks(self.leave_one_out_scores_ - self.offset_)
        stored = weight > 0
        scores = np.empty(len(stored))
        scores[stored] = self.leave_one_out_scores_
        scores[~stored] = self._score(self._queries(X)[~stored])
        return _marks(scores - self.offset_)


def _marks(decisions: Floats) -> Array:
    """Return 1 where a decision is at least 0, else -1."""
    return np.where(decisions >= 0, 1, -1)


def _weighted_quantile(x: Floats, weight: Floats, q: float) -> float:
    """Return the quantile of numbers that count as many times as their weights say.

    Where exactly a share q of the numbers lies at or below one of them, it is the mean of this and the next larger: no
    more and no fewer lie below it.
    """
    order = np.argsort(x, kind="stable")
    below = np.cumsum(weight[order])
    wanted = q * below[-1]
    tolerance = 8 * np.finfo(np.float64).eps * below[-1]
    i = np.searchsorted(below, wanted - tolerance)
    j = min(np.searchsorted(below, wanted + tolerance, side="right"), len(x) - 1)
    with ignoring_float_errors():
        return float(cast(float, x[order[i]] / 2 + x[order[j]] / 2))
