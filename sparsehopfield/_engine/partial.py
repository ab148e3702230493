"""Partial results of retrieval, each from some of the patterns, and how they are merged."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import (
    Array,
    as_exact,
    as_list,
    as_patterns,
    as_widened_rows,
    contiguous,
    ignoring_float_errors,
)
from sparsehopfield._engine.pattern_set import TYPE_CODES
from sparsehopfield._engine.separations import has_cutoff, similarity_code

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Candidates", "merge", "sparse_rows", "threshold"]


def sparse_rows(start: Array, position: Array, weight: Array, columns: int) -> "csr_array":
    """Return a CSR array (N, columns) of N + 1 starts, positions and weights."""
    from scipy.sparse import csr_array

    return csr_array((weight, position, start), shape=(len(start) - 1, columns))


def threshold(score: NDArray[np.float64], beta: Any, code: tuple[int, float]) -> float:
    """Return the score at or below which no pattern has weight, for a query whose support has these scores."""
    with ignoring_float_errors():
        best = score.max()
        return float(best + _core.cut(*code, beta * (score - best)) / beta)


@dataclass(frozen=True, eq=False)
class Candidates:
    """What some of the patterns contribute to a retrieval step; made by `candidates`, joined by `merge`.

    For maps with a cutoff these are lists of the patterns that have weight among their own:
    adding scores never lowers the threshold, so no other pattern of the part can ever have weight. For maps with
    full support they are a scale, a sum and a weighted sum of values.

    Attributes
    ----------
    leading : tuple of int
        The queries' leading shape; N queries in all.
    beta : ndarray of float64
        One number, or one per query.
    code : tuple of (int, float)
        The number of the separation map in the core's table, and its parameter.
    dtype : dtype
        Of weights and states: float32 or float64.
    n_patterns : int
        One more than the largest position that the part may hold.
    similarity : str
        What a score is: "dot", "euclidean" or "cosine".
    has_values : bool
        Whether values other than the patterns are mixed.
    scale_of_patterns : float
        What uint8 and float16 patterns are multiplied with; 1 for others.
    start : ndarray of int64, shape (N + 1,), or None
        Maps with a cutoff: query i has the entries `start[i]` to `start[i + 1]` of `position` and `score`.
    position : ndarray of int64, or None
        Maps with a cutoff: positions of the patterns that may have weight, ascending for each query.
    score : ndarray of float64, or None
        Maps with a cutoff: their scores.
    scale : ndarray of float64, shape (N,), or None
        Maps with full support: for softmax the largest score of each query.
    sum : ndarray of float64, shape (N,), or None
        Maps with full support: for softmax the sum of exp(beta (s - scale)).
    mixture : ndarray, shape (N, v), or None
        Maps with full support: the sum of the values weighted so.

    See Also
    --------
    sparsehopfield.candidates : Compute them of a part of the patterns.
    merge : Join those of several parts.
    sparsehopfield.HopfieldMemory.candidates : Compute them of stored patterns.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import candidates, merge
    >>> X = np.eye(4)
    >>> parts = [candidates(X[:1], X[:2], 2.0), candidates(X[:1], X[2:], 2.0, offset=2)]
    >>> merge(parts).states(X)
    array([[1., 0., 0., 0.]])
    """

    leading: tuple[int, ...]
    beta: NDArray[np.float64]
    code: tuple[int, float] = field(repr=False)
    dtype: np.dtype[Any]
    n_patterns: int
    similarity: str
    has_values: bool
    scale_of_patterns: float = 1.0  # of uint8 and float16 patterns
    start: NDArray[np.int64] | None = field(default=None, repr=False)
    position: NDArray[np.int64] | None = field(default=None, repr=False)
    score: NDArray[np.float64] | None = field(default=None, repr=False)
    scale: NDArray[np.float64] | None = field(default=None, repr=False)
    sum: NDArray[np.float64] | None = field(default=None, repr=False)
    mixture: Array | None = field(default=None, repr=False)

    @property
    def bound(self) -> NDArray[np.float64]:
        """Return the thresholds of the part (N,): scores at or below can have no weight."""
        self._check_finite()
        start, _, score = self._checked_lists("bound")
        beta = np.broadcast_to(self.beta, len(start) - 1)
        rows = zip(pairwise(start), beta, strict=True)
        return np.array([threshold(score[first:last], b, self.code) for (first, last), b in rows])

    def weights(self) -> "csr_array":
        """Return the weights over the patterns of the part.

        Returns
        -------
        scipy.sparse.csr_array, shape (N, n_patterns)
            Each row sums to 1.

        Raises
        ------
        ValueError
            For maps with full support, whose weights are not kept; if the part holds NaN or infinity.

        See Also
        --------
        states : Mix patterns or values by these weights.
        sparsehopfield.associate : Compute the weights over all patterns in one call.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield import candidates, merge
        >>> X = np.eye(3)
        >>> parts = [candidates([[0.9, 0.4, 0.0]], X[:1]), candidates([[0.9, 0.4, 0.0]], X[1:], offset=1)]
        >>> parts[0].weights().toarray(), merge(parts).weights().toarray().round(3)
        (array([[1.]]), array([[0.75, 0.25, 0.  ]]))
        """
        self._check_finite()
        start, position, _ = self._checked_lists("weights")
        return sparse_rows(start, position, contiguous(self._entry_weights(), self.dtype), self.n_patterns)

    def states(self, values: ArrayLike | None = None) -> Array:
        """Return the states, mixed as by `update`: with the same bits for maps with a cutoff.

        Parameters
        ----------
        values : array_like, shape (n_patterns, v), optional
            What is mixed, for maps with a cutoff: the patterns, or the values if `candidates` was given values.

        Returns
        -------
        ndarray, shape (..., v)
            One row a query.

        Raises
        ------
        ValueError
            If `values` are missing, too few, or given for a map with full support; if the part holds NaN or infinity.

        See Also
        --------
        weights : Return the weights that states are mixed by.
        sparsehopfield.update : Compute the states from all patterns in one call.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield import candidates, merge
        >>> X = np.eye(3)
        >>> parts = [candidates([[0.9, 0.4, 0.0]], X[:1]), candidates([[0.9, 0.4, 0.0]], X[1:], offset=1)]
        >>> merge(parts).states(X).round(3)
        array([[0.75, 0.25, 0.  ]])
        """
        self._check_finite()
        if self.mixture is not None and self.sum is not None:
            if values is not None:
                raise ValueError("values: the part of a map with full support has mixed its values already")
            divisor = np.where(self.sum == 0, 1.0, self.sum)[:, None]
            with ignoring_float_errors():
                states = (self.mixture / divisor).astype(self.dtype)
            return states.reshape(*self.leading, states.shape[1])
        start, position, _ = self._checked_lists("states")
        if values is None:
            raise ValueError("values: needed to mix states: the patterns, or the values if there are any")
        rows = as_widened_rows(as_exact("values", as_patterns("values", values), self.dtype), self.dtype)
        if len(rows) < self.n_patterns:
            raise ValueError(f"values: needs {self.n_patterns} rows, got {len(rows)}")
        code, scale = (0, 1.0) if self.has_values else (similarity_code(self.similarity), self.scale_of_patterns)
        try:
            memory = _core.memory(rows, None, code, TYPE_CODES[self.dtype], scale, True)
        except (ValueError, OverflowError) as error:  # the core takes them for patterns
            raise type(error)(str(error).replace("patterns:", "values:", 1)) from None
        out = np.empty((len(start) - 1, rows.shape[1]), self.dtype)
        _core.mix(memory, start, position, self._entry_weights(), out)
        return out.reshape(*self.leading, rows.shape[1])

    def _check_finite(self, argument: str = "") -> None:
        """Raise unless all numbers that decide weights or are mixed are finite: the arrays may have been changed."""
        for name in ("beta", "score", "scale", "sum", "mixture"):
            numbers = getattr(self, name)
            if numbers is not None and not np.isfinite(numbers).all():
                raise ValueError(f"{argument or name}: {name} contains NaN or infinity; every entry must be finite")

    def _checked_lists(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return copies of start, position and score, checked; `name` begins the error of a map without lists."""
        if self.start is None or self.position is None or self.score is None:
            raise ValueError(f"{name}: a map with full support keeps sums, not lists")
        start, position, score = np.array(self.start), np.array(self.position), np.array(self.score)
        if (
            not start.size
            or start[0] != 0
            or (np.diff(start) < 0).any()
            or not start[-1] == len(position) == len(score)
        ):
            raise ValueError(f"start: must ascend from 0 to the {len(position)} entries of position and score")
        if len(position) and not (position.min() >= 0 and position.max() < self.n_patterns):
            raise ValueError(f"position: must be from 0 to below n_patterns, {self.n_patterns}")
        return start, position, score

    def _entry_queries(self) -> NDArray[np.intp]:
        """Return the number of the query of each entry of the lists."""
        start, _, _ = self._checked_lists("query")
        return np.repeat(np.arange(len(start) - 1), np.diff(start))

    def _entry_weights(self) -> NDArray[np.float64]:
        """Return the weights of the entries of the lists."""
        start, _, score = self._checked_lists("weights")
        return _core.solve(*self.code, TYPE_CODES[self.dtype], self.beta, start, score)


def merge(parts: Iterable[Candidates]) -> Candidates:
    """Merge the partial results of several parts of the patterns into that of all of them.

    Parameters
    ----------
    parts : iterable of Candidates
        Of the same queries under the same model, over patterns of different positions.

    Returns
    -------
    Candidates
        For maps with a cutoff what one call over all patterns would have given, bit for bit; for maps with full
        support the same up to rounding.

    Raises
    ------
    ValueError
        If there are no parts, they do not belong together, two hold the same position, or one holds NaN or infinity.

    See Also
    --------
    sparsehopfield.candidates : Compute the partial results.
    Candidates.states : Mix the states of the merged result.
    sparsehopfield.distributed.Coordinator : Merge what many machines return.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import candidates, merge
    >>> X = np.eye(4)
    >>> parts = [candidates(X, X[:3], 1.0), candidates(X, X[3:], 1.0, offset=3)]
    >>> bool((merge(parts).weights() != candidates(X, X, 1.0).weights()).nnz)
    False
    """
    parts = as_list("parts", parts, "a sequence of results of `candidates`")
    if not parts:
        raise ValueError("parts: needs at least one part")
    if not all(isinstance(part, Candidates) for part in parts):
        raise TypeError("parts: must be results of `candidates`")
    for i, part in enumerate(parts):
        part._check_finite(f"parts[{i}]")
    first = parts[0]
    shared = ("leading", "code", "dtype", "similarity", "has_values", "scale_of_patterns")
    for part in parts[1:]:
        for name in shared:
            if getattr(part, name) != getattr(first, name):
                raise ValueError(f"parts: differ in {name}: {getattr(first, name)} and {getattr(part, name)}")
        if not np.array_equal(part.beta, first.beta):
            raise ValueError("parts: differ in beta")
    n_patterns = max(part.n_patterns for part in parts)
    if not has_cutoff(first.code):
        return _merge_sums(parts, n_patterns)
    lists = [part._checked_lists("parts") for part in parts]
    query = np.concatenate([part._entry_queries() for part in parts])
    position = np.concatenate([positions for _, positions, _ in lists])
    score = np.concatenate([scores for _, _, scores in lists])
    order = np.lexsort((position, query))
    query, position, score = query[order], position[order], score[order]
    if np.any((query[1:] == query[:-1]) & (position[1:] == position[:-1])):
        raise ValueError("parts: two parts hold the same position; give each its own offset")
    n = len(lists[0][0]) - 1

    def starts(query: Array) -> NDArray[np.int64]:
        """Return where the entries of each query begin, (N + 1,)."""
        return np.concatenate(([0], np.cumsum(np.bincount(query, minlength=n)))).astype(np.int64)

    weight = _core.solve(*first.code, TYPE_CODES[first.dtype], first.beta, starts(query), score)
    kept = weight > 0
    return replace(first, n_patterns=n_patterns, start=starts(query[kept]), position=position[kept], score=score[kept])


def _merge_sums(parts: list[Candidates], n_patterns: int) -> Candidates:
    """Merge the parts of a map with full support."""
    sums = [{name: getattr(part, name) for name in ("scale", "sum", "mixture")} for part in parts]
    merged = {name: a.copy() for name, a in sums[0].items()}
    for more in sums[1:]:
        shapes = merged["mixture"].shape, more["mixture"].shape
        if shapes[0] != shapes[1]:
            raise ValueError(f"parts: differ in the width of their values: {shapes[0]} and {shapes[1]}")
        _core.merge(*parts[0].code, parts[0].beta, *merged.values(), *more.values())
    return replace(parts[0], n_patterns=n_patterns, **merged)
