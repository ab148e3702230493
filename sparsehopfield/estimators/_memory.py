"""Estimators around one HopfieldMemory: fitting stores the rows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import Array, as_whole, ignoring_float_errors, refusal, refuse_masks
from sparsehopfield._engine.labels import as_labels
from sparsehopfield._engine.separations import row_of, separation_code, valid_separations
from sparsehopfield._engine.structure import Structure
from sparsehopfield._engine.text import short
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.suggestion import storing_beta

DTYPES = (np.float64, np.float32, np.float16, np.uint8, np.int64, np.uint64)  # kept; all others become float64


class _Memory(BaseEstimator):
    """Base of the estimators that store patterns, in `memory_`, and retrieve."""

    memory_: HopfieldMemory
    similarity: str
    separation: Separation
    max_steps: int
    tol: float | None

    @ignoring_float_errors()  # scikit-learn sums the numbers that it checks
    def _validated(self, X: Any, *y: Any, **options: Any) -> Any:
        """Return the arguments as scikit-learn's checks return them; put the arguments' names into its errors."""
        named = dict(zip(("X", "y"), (X, *y), strict=False))
        for name, array in named.items():
            refuse_masks(name, array)
        if isinstance(X, np.ndarray) and not X.dtype.isnative:
            X = X.astype(X.dtype.newbyteorder("="))
        try:
            return validate_data(self, X, *y, dtype=DTYPES, **options)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            kind = TypeError if isinstance(error, (TypeError, RuntimeError)) else ValueError
            raise kind(f"{', '.join(named)}: {refusal(short(error, quote=False), [X, *y])}") from error

    def _retrieve(self, X: Any) -> Array:
        """Retrieve from the memory: by one update if `max_steps` is 1, else by updates until queries converge."""
        check_is_fitted(self)
        queries = self._validated(X, reset=False)
        if as_whole("max_steps", self.max_steps, 1) == 1:
            return self.memory_.update(queries)
        return self.memory_.retrieve(queries, max_steps=self.max_steps, tol=self.tol)


class HopfieldRetriever(OneToOneFeatureMixin, TransformerMixin, _Memory):
    """Denoiser: moves every row to a mixture of stored rows.

    Parameters
    ----------
    beta : float, positive, or "auto"
        Inverse temperature. "auto" is the least beta that stores 99 % of the rows exactly, `beta_` after fitting: a row
        is a fixed point where its margin is at least 1 / (beta (alpha - 1)), with alpha = 2 for sparsemax. Rows that
        occur twice have no margin and are left out. It needs a map with a cutoff (as sparsemax, entmax), and costs what
        retrieving every stored row does. It is as sharp as the closest pairs of rows demand: where similar rows should
        be averaged, give a smaller number.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        The separation map.
    similarity : {"euclidean", "dot", "cosine"}
        The similarity of scores. With "euclidean" every distinct row can be stored, whatever its length.
    max_steps : int, at least 1
        Updates at most; 1 is a single update, after which no row needs to have converged.
    tol : float, at least 0, optional
        A row has converged when an update moves it by at most `tol` times the longest stored row; by default 4 eps.
    structure : Structure, optional
        The stored rows that a row attends to (`sparsehopfield.structures`), as `TopK(k)`; all by default. A row that is
        stored among all rows is stored among some, if it is one of them.

    Attributes
    ----------
    memory_ : HopfieldMemory
        A copy of the rows.
    beta_ : float
        The inverse temperature that is used.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Warns
    -----
    RetrievalWarning
        If rows still move after `max_steps` updates.

    References
    ----------
    Hu et al. 2023, "On sparse modern Hopfield model", definition 2.1 and theorem 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((100, 16))
    >>> noisy = X[:5] + 0.2
    >>> np.array_equal(HopfieldRetriever(beta="auto").fit(X).transform(noisy), X[:5])
    True
    """

    def __init__(
        self,
        beta: float | str = 1.0,
        separation: Separation = "sparsemax",
        similarity: str = "euclidean",
        max_steps: int = 1000,
        tol: float | None = None,
        structure: Structure | None = None,
    ) -> None:
        self.beta = beta
        self.separation = separation
        self.similarity = similarity
        self.max_steps = max_steps
        self.tol = tol
        self.structure = structure

    def fit(self, X: Any, y: Any = None) -> Self:
        """Store the rows.

        Parameters
        ----------
        X : array_like of shape (M, d)
        y : ignored

        Returns
        -------
        HopfieldRetriever
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.
        """
        auto = isinstance(self.beta, str)
        if auto and self.beta != "auto":
            raise ValueError(f"beta: must be a positive number or 'auto', got {short(self.beta)}")
        rows = self._validated(X)
        self.memory_ = HopfieldMemory(
            rows,
            1.0 if auto else self.beta,
            similarity=self.similarity,
            separation=self.separation,
            structure=self.structure,
            copy=True,
        )
        if auto:
            self.memory_.beta = storing_beta(self.memory_)
        self.beta_ = self.memory_.beta
        return self

    def transform(self, X: Any) -> Array:
        """Retrieve stored rows.

        Parameters
        ----------
        X : array_like of shape (N, d)

        Returns
        -------
        ndarray of shape (N, d)
        """
        return self._retrieve(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class HopfieldClassifier(ClassifierMixin, _Memory):
    """Classifier by association: the classes of the stored rows, weighted as the memory weights the rows.

    Parameters
    ----------
    beta : float, positive
        Inverse temperature. With "euclidean" similarity, softmax at beta is the Nadaraya-Watson estimate with the
        kernel exp(-beta |x - xi|^2 / 2), and sparsemax gives weight to no row whose score is 1 / beta below the
        best. It has the unit of 1 / X^2: standardise the features, and search it on a logarithmic grid.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        The separation map. Polynomial is refused: its weights may be negative or all zero.
    similarity : {"euclidean", "dot", "cosine"}
        The similarity of scores.
    max_steps : int, at least 1
        1 takes the association of the row itself; with more, the row is first updated until it converges.
    tol : float, at least 0, optional
        As in HopfieldRetriever.
    structure : Structure, optional
        As in HopfieldRetriever: softmax with `TopK(k)` is a classifier of k neighbours, weighted by their kernels.

    Attributes
    ----------
    memory_ : HopfieldMemory
        A copy of the rows, with their classes as values, one column each.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Warns
    -----
    RetrievalWarning
        If `max_steps` is above 1 and rows still move after so many updates.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_iris(return_X_y=True)
    >>> float(cross_val_score(HopfieldClassifier(beta=2.0), X, y).mean().round(2))
    0.97
    """

    def __init__(
        self,
        beta: float = 1.0,
        separation: Separation = "sparsemax",
        similarity: str = "euclidean",
        max_steps: int = 1,
        tol: float | None = None,
        structure: Structure | None = None,
    ) -> None:
        self.beta = beta
        self.separation = separation
        self.similarity = similarity
        self.max_steps = max_steps
        self.tol = tol
        self.structure = structure

    def fit(self, X: Any, y: Any) -> Self:
        """Store the rows with their classes.

        Parameters
        ----------
        X : array_like of shape (M, d)
        y : array_like of shape (M,)

        Returns
        -------
        HopfieldClassifier
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.
        """
        if row_of(separation_code(self.separation)).signed_weights:
            raise ValueError(
                f"separation: the weights of {short(self.separation)} are no probabilities; "
                f"must be {valid_separations(signed_weights=False)}"
            )
        rows, _ = self._validated(X, y)
        y = column_or_1d(as_labels("y", y))
        check_classification_targets(y)
        self.classes_, classes = np.unique(y, return_inverse=True)
        values = np.eye(len(self.classes_), dtype=np.float32)[classes]
        self.memory_ = HopfieldMemory(
            rows,
            self.beta,
            values=values,
            similarity=self.similarity,
            separation=self.separation,
            structure=self.structure,
            copy=True,
        )
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return the weight of each class.

        Parameters
        ----------
        X : array_like of shape (N, d)

        Returns
        -------
        ndarray of shape (N, n_classes)
            Each row sums to 1. With sparse maps most entries are exactly 0: a class that no row near the query has.
        """
        weights = self._retrieve(X)
        with ignoring_float_errors():
            return weights / weights.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> Array:
        """Return the class with the largest weight, the first of several.

        Parameters
        ----------
        X : array_like of shape (N, d)

        Returns
        -------
        ndarray of shape (N,)
        """
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]
