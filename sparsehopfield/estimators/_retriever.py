"""Denoising by retrieval."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OneToOneFeatureMixin, TransformerMixin

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import as_flag
from sparsehopfield._engine.structure import Structure
from sparsehopfield.estimators._base import MemoryEstimator, checked_weights, restores
from sparsehopfield.estimators._sample_weights import WeightedMemory
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.suggestion import storing_beta


class HopfieldRetriever(OneToOneFeatureMixin, TransformerMixin, MemoryEstimator):
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
        How scores become weights: softmax gives every row some, sparse maps give most none.
    similarity : {"euclidean", "dot", "cosine"}
        What a score is: -|x - xi|^2/2; <x, xi>; <x, xi/|xi|>. With "euclidean" every distinct row can
        be stored, whatever its length.
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
        A copy of the rows, without those of sample weight 0.
    beta_ : float
        The inverse temperature that is used.
    certified_ : ndarray of bool, shape (M,)
        Which stored rows are certified: an update leaves each exactly as it is, to the bit, and rounding cannot change
        that (`HopfieldMemory.is_certified`). Computed when it is asked for, at the cost of retrieving every stored row.
        There is none for maps that give weight to every row, as softmax.
    n_features_in_ : int
        The number of features of the fitted rows.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Their names, where the rows were a data frame that has some.

    Warns
    -----
    RetrievalWarning
        If rows still move after `max_steps` updates.

    See Also
    --------
    sparsehopfield.HopfieldMemory : The memory itself, with energies, certificates and files.
    sparsehopfield.suggestion.storing_beta : Choose beta, as "auto" does.
    HopfieldOutlierDetector : Find the rows that no stored row is near.

    References
    ----------
    Hu et al. 2023, "On sparse modern Hopfield model", definition 2.1 and theorem 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((100, 16))
    >>> noisy = X[:5] + 0.2
    >>> model = HopfieldRetriever(beta="auto").fit(X)
    >>> clean, certified = model.transform(noisy, return_certificate=True)
    >>> np.array_equal(clean, X[:5]), certified.tolist()
    (True, [True, True, True, True, True])
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

    @restores
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Store the rows.

        Parameters
        ----------
        X : array_like of shape (M, d)
            One row a sample.
        y : ignored
            Not used.
        sample_weight : array_like of shape (M,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is not stored.

        Returns
        -------
        HopfieldRetriever
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault. The estimator is then as it was.

        See Also
        --------
        partial_fit : Store more rows later.
        transform : Retrieve stored rows.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> model = HopfieldRetriever(beta="auto").fit(X)
        >>> model.beta_, np.array_equal(model.transform(X), X)  # each row is a fixed point from this beta on
        (2.0, True)
        """
        self._has_auto_beta()
        rows = self._validated(X)
        weight = checked_weights(sample_weight, len(rows))
        if weight is not None:
            self._check_weights_of_map()
        self._store(rows, None, weight, _storing_beta)
        return self

    @restores
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Store more rows behind those that are there; on the first call as `fit`.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The rows to add. They become numbers of the dtype that is stored.
        y : ignored
            Not used.
        sample_weight : array_like of shape (n,), at least 0, optional
            A row of weight w counts as w copies of it; one of weight 0 is not stored.

        Returns
        -------
        HopfieldRetriever
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
        >>> model = HopfieldRetriever(beta=4.0).fit([[0.0, 0.0]])
        >>> model.partial_fit([[1.0, 1.0]]).transform([[0.9, 0.8]])
        array([[1., 1.]])
        """
        if not self._is_fitted():
            return self.fit(X, y, sample_weight)
        rows = self._validated(X, reset=False)
        weight = checked_weights(sample_weight, len(rows))
        if weight is not None:
            self._check_weights_of_map()
        self._store_more(rows, None, weight)
        return self

    def transform(self, X: Any, return_certificate: bool = False) -> Any:
        """Retrieve stored rows.

        Parameters
        ----------
        X : array_like of shape (N, d)
            Rows to clean: noisy, damaged or incomplete ones.
        return_certificate : bool
            Whether to return besides which answers are certified.

        Returns
        -------
        ndarray of shape (N, d), or with return_certificate a tuple of it and an ndarray of bool of shape (N,)
            A certified answer is one stored row (under cosine similarity its unit row) exactly, to the bit: the first
            update provably moves the query there, whatever rounding does, and if there are more, later ones leave it.
            Where the mask is False, nothing is said.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault; with return_certificate `separation` if the map gives weight to every row.

        See Also
        --------
        sparsehopfield.HopfieldMemory.retrieve : The method of the memory that does it.
        sparsehopfield.HopfieldMemory.certify : Certify which stored row a query goes to.

        Examples
        --------
        >>> model = HopfieldRetriever(beta=4.0).fit([[1.0, 0.0], [0.0, 1.0]])
        >>> clean, certified = model.transform([[0.9, 0.2], [0.5, 0.5]], return_certificate=True)
        >>> clean.tolist(), certified.tolist()  # the second row is as near to one as to the other
        ([[1.0, 0.0], [0.5, 0.5]], [True, False])
        """
        queries = self._queries(X)
        if not as_flag("return_certificate", return_certificate):
            return self._retrieve(queries)
        self._check_certifiable()
        return self._retrieve(queries), self._certified_rows(queries)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _storing_beta(memory: HopfieldMemory, weight: NDArray[np.float64] | None) -> float:
    """Return the least beta that stores 99 % of the patterns exactly, of those that any beta stores.

    Of patterns that count as more than one there are copies, so that no beta stores them. Those that count as less have
    all weight only from a wider gap on, as if their margins were smaller.
    """
    if weight is None:
        return storing_beta(memory)
    narrowed = WeightedMemory(memory, weight).uniform_beta(weight) / memory.beta
    return storing_beta(memory, margins=np.where(weight > 1, 0, memory.margin() * narrowed))
