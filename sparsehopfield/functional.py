"""The operations on stored patterns, and the row maps: functions of arrays that keep nothing from call to call.

Every operation prepares one call (`_engine/call.py`) of patterns made ready for it (`_engine/pattern_set.py`).
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from sparsehopfield import row_maps
from sparsehopfield._engine import separations
from sparsehopfield._engine.call import Call, RetrievalInfo, Separation
from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.partial import Candidates, merge
from sparsehopfield._engine.pattern_set import IndexUse, PatternSet
from sparsehopfield._engine.separations import *  # noqa: F403
from sparsehopfield._engine.separations import separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield.row_maps import *  # noqa: F403

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = [
    "Candidates",
    "RetrievalInfo",
    "associate",
    "candidates",
    "energy",
    "merge",
    "retrieve",
    "update",
]
__all__ += separations.__all__
__all__ += row_maps.__all__


def _prepare(
    queries: ArrayLike,
    patterns: ArrayLike,
    beta: ArrayLike,
    values: ArrayLike | None,
    similarity: str,
    separation: Separation,
    structure: Structure | None,
    check_finite: bool,
    index: IndexUse,
) -> Call:
    """Return the call of a function, its arguments checked."""
    pattern_set = PatternSet(patterns, values, similarity, copy=None, check_finite=check_finite, index=index)
    return Call.prepare(pattern_set, queries, beta, separation_code(separation), as_structure(structure))


def energy(
    queries: ArrayLike,
    patterns: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
    structure: Structure | None = None,
    check_finite: bool = True,
    index: IndexUse = "auto",
) -> Any:
    """Return the energy that retrieval lowers: E_beta(x) = -Psi*(beta s(x))/beta + |x|^2/2.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    similarity : {"dot", "euclidean", "cosine"}
        What a score s is: `<x, xi>`; `-|x - xi|^2/2`; `<x, xi/|xi|>`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        How scores become weights: the map whose conjugate is Psi*.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default.
    check_finite : bool
        The check is part of the norms that are needed anyway; False changes nothing here.
    index : {"auto", True, False}
        Whether the call builds an index of the patterns, as for `HopfieldMemory`.

    Returns
    -------
    ndarray, shape (...)
        `grad E = x - T(x)`, and one step lowers E by at least half its squared length.

    Raises
    ------
    ValueError
        For Polynomial, which has no energy, and for bad values, naming the argument.
    TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    update : Make the step that lowers it.
    sparsehopfield.HopfieldMemory.energy : Do so for stored patterns.
    sparsehopfield.theory.energy_as_printed : Compute the paper's form, and read why it fails.

    Notes
    -----
    The paper's (2.1) lacks the 1/beta: the printed form rises along retrieval unless beta = 1.

    References
    ----------
    Hu et al. 2023, eq. (2.1).

    Examples
    --------
    >>> import numpy as np
    >>> float(energy([1.0, 0.0], np.eye(2), beta=2.0))
    -0.5
    """
    call = _prepare(queries, patterns, beta, None, similarity, separation, structure, check_finite, index)
    return call.energy()


def update(
    queries: ArrayLike,
    patterns: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    values: ArrayLike | None = None,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
    structure: Structure | None = None,
    out: Array | None = None,
    check_finite: bool = True,
    index: IndexUse = "auto",
) -> Array:
    """Make one retrieval step, T(x) = sum p_i xi_i with p = separation(beta s(x)): attention with one query a row.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern. uint8 and float16 are widened tile by tile, and so is float32 for float64 queries.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    values : array_like, shape (M, v), optional
        What is mixed; the patterns themselves by default.
    similarity : {"dot", "euclidean", "cosine"}
        Scores `<x, xi>`; `-|x - xi|^2/2`, which a common shift of queries and patterns leaves as they are (for
        Polynomial, which a shift of all scores changes, `<x, xi> - |xi|^2/2`); `<x, xi/|xi|>`, where the unit rows are
        mixed as well.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default.
    out : ndarray, shape (..., v), optional
        Takes the result; must not overlap an input.
    check_finite : bool
        False skips the pass over `values`.
    index : {"auto", True, False}
        Whether the call builds an index of the patterns, as for `HopfieldMemory`.

    Returns
    -------
    ndarray, shape (..., v)
        float64 if any floating input is, else float32.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    retrieve : Make steps until nothing moves.
    associate : Return the weights that it mixes by.
    sparsehopfield.HopfieldMemory : Store patterns that are asked often.

    Notes
    -----
    No N x M array is made. For maps with a cutoff, results have the same bits for any number of threads, any
    instruction set, compiler, libm and architecture, and any batch, while a support has at most max(1,024, M/16)
    patterns.

    References
    ----------
    Hu et al. 2023, eq. (2.5).

    Examples
    --------
    >>> import numpy as np
    >>> update([0.9, 0.2, 0.0], np.eye(3), beta=4.0)
    array([1., 0., 0.])
    """
    call = _prepare(queries, patterns, beta, values, similarity, separation, structure, check_finite, index)
    return call.update(out)


def associate(
    queries: ArrayLike,
    patterns: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
    structure: Structure | None = None,
    top: int | None = None,
    min_weight: float | None = None,
    check_finite: bool = True,
    index: IndexUse = "auto",
) -> "csr_array":
    """Return the weights of patterns for queries, as a sparse array.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query; leading axes are flattened to N.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as in `update`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default.
    top : int, at least 1, optional
        Keep the `top` largest weights of each query; ties go to the lowest position.
    min_weight : float, at least 0, optional
        Keep weights of at least this. Maps with full support need one of the two, unless `structure` leaves out pairs.
    check_finite : bool
        The check is part of the norms that are needed anyway; False changes nothing here.
    index : {"auto", True, False}
        Whether the call builds an index of the patterns, as for `HopfieldMemory`.

    Returns
    -------
    scipy.sparse.csr_array, shape (N, M)
        Columns are positions, ascending in each row.

    Raises
    ------
    ValueError
        For a map with full support without `top` or `min_weight`, with the size it would take.
    TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    update : Mix the patterns by these weights.
    sparsehopfield.HopfieldMemory.associate : Do so for stored patterns.
    sparsehopfield.sparsemax : Turn scores that are there into weights.

    Examples
    --------
    >>> import numpy as np
    >>> associate([0.9, 0.2, 0.0], np.eye(3)).toarray().round(3)
    array([[0.85, 0.15, 0.  ]])
    """
    call = _prepare(queries, patterns, beta, None, similarity, separation, structure, check_finite, index)
    return call.associate(top, min_weight)


def retrieve(
    queries: ArrayLike,
    patterns: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    values: ArrayLike | None = None,
    max_steps: int = 1000,
    tol: float | None = None,
    return_info: bool | Collection[str] = False,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
    structure: Structure | None = None,
    out: Array | None = None,
    check_finite: bool = True,
    index: IndexUse = "auto",
) -> Any:
    """Update queries until nothing moves: return what damaged queries retrieve.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    values : array_like, shape (M, v), optional
        The iteration runs on the patterns; the result is the values mixed by the weights of the
        last update.
    max_steps : int, at least 0
        Updates at most.
    tol : float, at least 0, optional
        A query has converged when a step moves it by at most `tol * max |xi|`, in Euclidean length; by default
        4 eps of the dtype. Exact fixed points are found with `tol=0`, too.
    return_info : bool, or of {"weights", "energy"}
        Also return a RetrievalInfo; names ask for what costs extra.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as in `update`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default.
    out : ndarray, of the result's shape, optional
        Takes the result; must not overlap an input.
    check_finite : bool
        False skips the pass over `values`.
    index : {"auto", True, False}
        Whether the call builds an index of the patterns, as for `HopfieldMemory`.

    Returns
    -------
    states : ndarray, shape (..., d), or (..., v) with values
        Where retrieval ended.
    info : RetrievalInfo
        If asked for.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    Warns
    -----
    RetrievalWarning
        If queries are still moving after `max_steps`.

    See Also
    --------
    update : Make one step.
    RetrievalInfo : What `return_info` adds.
    sparsehopfield.HopfieldMemory : Store patterns that are asked often.

    References
    ----------
    Hu et al. 2023, section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> states, info = retrieve([[0.5, 0.4, 0.0]], np.eye(3), beta=4.0, return_info=True)
    >>> states, info.steps
    (array([[1., 0., 0.]]), array([3]))
    """
    call = _prepare(queries, patterns, beta, values, similarity, separation, structure, check_finite, index)
    return call.retrieve(max_steps, tol, return_info, out)


def candidates(
    queries: ArrayLike,
    patterns: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    values: ArrayLike | None = None,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
    structure: Structure | None = None,
    offset: int = 0,
    check_finite: bool = True,
    index: IndexUse = "auto",
) -> Candidates:
    """Return what a part of the patterns contributes to a step; `merge` joins parts of shards or machines.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        A part of all patterns.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    values : array_like, shape (M, v), optional
        What is mixed; the patterns themselves by default.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as in `update`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        All pairs, the default, is the only one whose parts can be merged.
    offset : int, at least 0
        Position of the part's first pattern in the whole.
    check_finite : bool
        False skips the pass over `values`.
    index : {"auto", True, False}
        Whether the call builds an index of the patterns, as for `HopfieldMemory`.

    Returns
    -------
    Candidates
        For maps with a cutoff the patterns that may have weight; for others sums.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    merge : Join the partial results of several parts.
    Candidates : What is returned.
    sparsehopfield.distributed.Coordinator : Do so over many machines.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.eye(4)
    >>> parts = [candidates(X, X[:2], 4.0), candidates(X, X[2:], 4.0, offset=2)]
    >>> bool((merge(parts).states(X) == update(X, X, 4.0)).all())
    True
    """
    call = _prepare(queries, patterns, beta, values, similarity, separation, structure, check_finite, index)
    return call.candidates(offset)
