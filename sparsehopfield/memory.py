"""HopfieldMemory: patterns stored once, made ready once, asked many times."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from .candidates import Candidates
from .checks import Array, as_beta
from .separations import check_structure, separation_code
from .stored import Separation, Stored

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from .explain import Explanation

__all__ = ["HopfieldMemory"]


def _not_yet(name: str, until_then: str) -> Callable[..., NoReturn]:
    """A method that is reserved for a later version."""

    def method(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{name}: not yet in this version; until then: {until_then}")

    method.__name__, method.__doc__ = name, f"Not yet in this version; until then: {until_then}."
    return method


class HopfieldMemory:
    """Stored patterns, and a model that retrieves them.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern: float32, float64, float16, integers. uint8 stays uint8 and is widened tile by tile.
    beta : float, positive
        Inverse temperature. May be changed later.
    values : array_like, shape (M, v), optional
        What a retrieval returns a mixture of; the patterns themselves by default.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is: `<x, xi>`; `<x, xi> - |xi|^2/2`, the largest for the nearest pattern; `<x, xi/|xi|>`, where
        the unit rows are mixed, too.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Polynomial
        How scores become weights. May be changed later.
    structure : None
        Which pairs are looked at: all.
    ids : array_like of int, shape (M,), optional
        Names of the patterns for the caller's use; 0 to M - 1 by default. Must be distinct.
    copy : bool, optional
        True copies, False refuses to, None copies only what the core cannot read in place. A borrowed array must
        not be changed while the memory lives; `verify` finds out.
    check_finite : bool
        False skips the pass over `values`. Patterns and queries are checked by their norms, which are needed anyway.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1000, 64))
    >>> memory = HopfieldMemory(X, beta=1.0)
    >>> x = X[7] + 0.5 * rng.standard_normal(64)
    >>> np.array_equal(memory.retrieve(x), X[7])
    True
    """

    def __init__(
        self,
        patterns: ArrayLike,
        beta: ArrayLike = 1.0,
        *,
        values: ArrayLike | None = None,
        similarity: str = "dot",
        separation: Separation = "sparsemax",
        structure: None = None,
        ids: ArrayLike | None = None,
        copy: bool | None = None,
        check_finite: bool = True,
    ) -> None:
        self.beta = beta
        self.separation = separation
        check_structure(structure)
        self._stored = Stored(patterns, values, similarity, copy=copy, check_finite=check_finite)
        if copy is False and self._copied():
            raise ValueError(
                f"copy: cannot be avoided: {self._stored.dtype} or uint8 rows, each contiguous in memory, are needed"
            )
        self._stored.core(self._stored.dtype)  # checks the patterns now
        self._ids = None if ids is None else self._checked_ids(ids)
        self._seen = self._fingerprint()

    def _copied(self) -> bool:
        s = self._stored
        return s.patterns is not s.given or s.values is not s.given_values

    def _checked_ids(self, ids: ArrayLike) -> Array:
        a = np.asarray(ids)
        if a.dtype.kind not in "iu":
            raise TypeError(f"ids: must be whole numbers, got dtype {a.dtype}")
        if a.shape != (len(self),):
            raise ValueError(f"ids: needs one per pattern, shape ({len(self)},), got {a.shape}")
        if len(np.unique(a)) != len(a):
            raise ValueError("ids: must be distinct")
        return a.astype(np.int64)

    def _fingerprint(self) -> int | None:
        """Of borrowed arrays; what was copied, nobody else can change."""
        s = self._stored
        borrowed = s.patterns is s.given or (s.values is not None and s.values is s.given_values)
        return _core.fingerprint(s.core(s.dtype)) if borrowed else None

    # --- what is stored ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._stored.patterns)

    def __repr__(self) -> str:
        m, d = self.shape
        return (
            f"HopfieldMemory({m} patterns of {d} features, {self.dtype}, beta={self.beta}, "
            f"similarity={self.similarity!r}, separation={self.separation!r})"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(M, d)."""
        m, d = self._stored.patterns.shape
        return int(m), int(d)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of results for queries of the same or a smaller one."""
        return self._stored.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of patterns and values."""
        return self._stored.patterns.nbytes + (0 if self._stored.values is None else self._stored.values.nbytes)

    @property
    def patterns(self) -> Array:
        """The stored patterns, read-only."""
        return _read_only(self._stored.patterns)

    @property
    def values(self) -> Array:
        """What is mixed, read-only: the patterns if no values were given."""
        return self.patterns if self._stored.values is None else _read_only(self._stored.values)

    @property
    def ids(self) -> Array:
        """The patterns' names."""
        return np.arange(len(self)) if self._ids is None else _read_only(self._ids)

    @property
    def beta(self) -> ArrayLike:
        """Inverse temperature."""
        return self._beta

    @beta.setter
    def beta(self, beta: ArrayLike) -> None:
        b = np.asarray(beta)
        as_beta(beta, b.shape)
        self._beta = float(b) if b.ndim == 0 else beta

    @property
    def separation(self) -> Separation:
        """How scores become weights."""
        return self._separation

    @separation.setter
    def separation(self, separation: Separation) -> None:
        separation_code(separation)
        self._separation = separation

    @property
    def similarity(self) -> str:
        """What a score is."""
        return self._stored.similarity

    def verify(self) -> None:
        """Find out whether a borrowed array was changed since the memory was made.

        Raises
        ------
        ValueError
            If it was: results would mix old norms with new patterns.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.eye(3)
        >>> memory = HopfieldMemory(X)
        >>> X[0, 0] = 2
        >>> memory.verify()
        Traceback (most recent call last):
            ...
        ValueError: patterns: the array was changed after it was stored; make a new memory, or use copy=True
        """
        if self._fingerprint() != self._seen:
            raise ValueError("patterns: the array was changed after it was stored; make a new memory, or use copy=True")

    def __reduce__(self) -> tuple[Any, ...]:
        state = {
            "values": self._stored.values,
            "similarity": self.similarity,
            "separation": self.separation,
            "ids": self._ids,
            "check_finite": self._stored.check_finite,
        }
        return _rebuild, (self._stored.patterns, self.beta, state)

    # --- operations -------------------------------------------------------------------------------

    def update(self, queries: ArrayLike, *, out: Array | None = None) -> Array:
        """One retrieval step; see `sparsehopfield.update`.

        Parameters
        ----------
        queries : array_like, shape (..., d)
        out : ndarray, shape (..., v), optional

        Returns
        -------
        ndarray, shape (..., v)

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.eye(3), beta=4.0).update([0.9, 0.2, 0.0])
        array([1., 0., 0.])
        """
        return self._stored.update(self._ask(queries), out)

    def retrieve(
        self,
        queries: ArrayLike,
        *,
        max_steps: int = 1000,
        tol: float | None = None,
        return_info: bool | Collection[str] = False,
        out: Array | None = None,
    ) -> Any:
        """Steps until nothing moves; see `sparsehopfield.retrieve`.

        Parameters
        ----------
        queries : array_like, shape (..., d)
        max_steps, tol, return_info, out
            As in `sparsehopfield.retrieve`.

        Returns
        -------
        ndarray, shape (..., v), or (ndarray, RetrievalInfo)

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.eye(3), beta=4.0).retrieve([0.5, 0.4, 0.0])
        array([1., 0., 0.])
        """
        return self._stored.retrieve(self._ask(queries), max_steps, tol, return_info, out)

    def associate(self, queries: ArrayLike, *, top: int | None = None, min_weight: float | None = None) -> "csr_array":
        """The weights; see `sparsehopfield.associate`. Columns are positions.

        Parameters
        ----------
        queries : array_like, shape (..., d)
        top, min_weight
            As in `sparsehopfield.associate`.

        Returns
        -------
        scipy.sparse.csr_array, shape (N, M)

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.eye(3)).associate([0.5, 0.4, 0.0]).toarray().round(3)
        array([[0.533, 0.433, 0.033]])
        """
        return self._stored.associate(self._ask(queries), top, min_weight)

    def energy(self, queries: ArrayLike) -> Any:
        """E_beta; see `sparsehopfield.energy`.

        Parameters
        ----------
        queries : array_like, shape (..., d)

        Returns
        -------
        ndarray, shape (...)

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.eye(3), beta=4.0).energy(np.eye(3))
        array([-0.5, -0.5, -0.5])
        """
        return self._stored.energy(self._ask(queries))

    def candidates(self, queries: ArrayLike, *, offset: int = 0) -> Candidates:
        """The partial result of these patterns; see `sparsehopfield.candidates`.

        Parameters
        ----------
        queries : array_like, shape (..., d)
        offset : int
            Position of the first pattern in the whole.

        Returns
        -------
        Candidates

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.eye(3), beta=4.0).candidates(np.eye(3)).position
        array([0, 1, 2])
        """
        return self._stored.candidates(self._ask(queries), offset)

    def _ask(self, queries: ArrayLike) -> Any:
        return self._stored.ask(queries, self.beta, self.separation, None)

    # --- to come: reserved names, with what serves until then ---------------------------------------

    add = _not_yet("add", "make a new memory of the joined patterns")
    remove = _not_yet("remove", "make a new memory of numpy.delete(patterns, positions, axis=0)")
    save = _not_yet("save", "save `patterns` and `values` with numpy.save")
    load = staticmethod(_not_yet("load", "numpy.load has the arrays; memory maps work"))
    build_index = _not_yet("build_index", "every call scans all patterns")
    margin = _not_yet("margin", "nothing serves until then")
    critical_beta = _not_yet("critical_beta", "nothing serves until then")
    exact_radius = _not_yet("exact_radius", "nothing serves until then")
    is_certified = _not_yet("is_certified", "compare `update(patterns)` with `patterns`")
    is_fixed_point = _not_yet("is_fixed_point", "compare `update(patterns)` with `patterns`")
    stored_fraction = _not_yet("stored_fraction", "compare `update(patterns)` with `patterns` at each beta")
    suggest_beta = _not_yet("suggest_beta", "compare `update(patterns)` with `patterns` at each beta")
    certify = _not_yet("certify", "retrieve, and look at `info.support_size`")
    capacity = _not_yet("capacity", "nothing serves until then")
    report = _not_yet("report", "nothing serves until then")

    # --- for people -------------------------------------------------------------------------------

    def explain(self, query: ArrayLike, *, top: int = 10) -> "Explanation":
        """Why the memory answers a query as it does: which patterns carry the weight, and what the others lacked.

        Parameters
        ----------
        query : array_like, shape (d,)
            One query.
        top : int
            How many patterns to list.

        Returns
        -------
        Explanation
            Prints as a small table; `plot()` draws it.

        Raises
        ------
        ValueError
            If there is more than one query, or `top` is below 1.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.array([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0]])
        >>> why = HopfieldMemory(X, beta=1.0, ids=[10, 11, 12]).explain([1.0, 0.0])
        >>> print(why)
        sparsemax, beta 1: 2 of 3 patterns have weight
        <BLANKLINE>
        position  id  score  gap  weight
               0  10      2    0    0.75
               1  11    1.5  0.5    0.25
        <BLANKLINE>
        no weight at scores up to 1.25
        best without weight: position 2, id 12, score 0, gap 2; it lacked 1.25
        energy -1.5625
        <BLANKLINE>
          stage  left  excluded
         stored     3...
        support     2...
        >>> why.miss.margin
        1.25
        """
        from .explain import explain  # of people's time, not of every import

        return explain(self._stored, self.ids, query, self.beta, self.separation, top)


def _read_only(a: Array) -> Array:
    view = a.view()
    view.flags.writeable = False
    return view


def _rebuild(patterns: Array, beta: ArrayLike, state: dict[str, Any]) -> HopfieldMemory:
    return HopfieldMemory(patterns, beta, **state)
