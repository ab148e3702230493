"""The path of a retrieval: the states of each query step by step, with their energies and supports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine.call import still_moving
from sparsehopfield._engine.checks import Array, as_numbers, as_whole
from sparsehopfield._engine.separations import row_of, separation_code
from sparsehopfield._engine.text import short

__all__ = ["RetrievalPath", "retrieval_path"]


@dataclass(frozen=True, eq=False)
class RetrievalPath:
    """The states that a retrieval goes through, N queries in a row.

    Attributes
    ----------
    states : ndarray, shape (k + 1, N, d)
        The queries, and the states after each of the k steps that the slowest query took. A query that came to rest
        before stays about where it is.
    energies : ndarray, shape (k + 1, N), or None
        Their energies; None if the separation has none.
    support_sizes : ndarray of int64, shape (k, N)
        Patterns with weight in each step's association, whose mixture is the next state.
    steps : ndarray of int64, shape (N,)
        Steps until each query came to rest, k at most.
    converged : ndarray of bool, shape (N,)
        Whether it did.

    See Also
    --------
    retrieval_path : Return this of a memory and its queries.
    sparsehopfield.inspect.plots.energy_path : Draw the energies.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> path = retrieval_path(sh.HopfieldMemory(np.eye(3), beta=4.0), [[0.5, 0.4, 0.0], [0.0, 0.3, 0.6]])
    >>> path.steps.tolist(), path.converged.tolist()
    ([3, 2], [True, True])
    >>> path.energies[:, 0].round(3).tolist()
    [-0.317, -0.41, -0.5, -0.5]
    """

    states: Array
    energies: Array | None
    support_sizes: NDArray[np.int64]
    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]


def retrieval_path(memory: Any, queries: ArrayLike, *, max_steps: int = 20, tol: float | None = None) -> RetrievalPath:
    """Make a retrieval step by step, and keep every state.

    Parameters
    ----------
    memory : HopfieldMemory
        Any memory with `retrieve` and `energy`. With `values` the states are those in pattern space.
    queries : array_like, shape (..., d)
        One row a query.
    max_steps : int, at least 1
        Updates at most.
    tol : float, at least 0, optional
        A query rests after a step that moves it by at most `tol * max |xi|`; by default 4 eps of the dtype.

    Returns
    -------
    RetrievalPath
        All states, with their energies and supports.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.inspect.plots.energy_path : Draw the energies of these states.
    sparsehopfield.HopfieldMemory.retrieve : Return the last states alone.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> path = retrieval_path(sh.HopfieldMemory(np.eye(3), beta=4.0), [0.5, 0.4, 0.0])
    >>> path.states[:, 0].round(3).tolist()
    [[0.5, 0.4, 0.0], [0.7, 0.3, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    >>> path.support_sizes[:, 0].tolist(), path.steps.tolist()
    ([2, 1, 1], [3])
    """
    check_memory(memory, "retrieve", "energy", "separation")
    most = as_whole("max_steps", max_steps, 1)
    has_energy = row_of(separation_code(memory.separation)).has_energy
    given = as_numbers("queries", queries)
    info = one_step(memory, given, tol)
    count = info.steps.size
    if count == 0:
        raise ValueError("queries: there are none")
    steps, moving = np.ones(count, np.int64), ~info.converged.ravel()
    states, supports = [given.astype(info.states.dtype), info.states], [info.support_size]
    while moving.any() and len(supports) < most:
        info = one_step(memory, states[-1], tol)
        states.append(info.states)
        supports.append(info.support_size)
        steps[moving] = len(supports)
        moving &= ~info.converged.ravel()
    energies = [np.ravel(memory.energy(state)) for state in states] if has_energy else None
    return RetrievalPath(
        np.stack([state.reshape(count, -1) for state in states]),
        None if energies is None else np.stack(energies),
        np.stack(supports).reshape(len(supports), count),
        steps,
        ~moving,
    )


def one_step(memory: Any, queries: Array, tol: float | None = None) -> Any:
    """Return the RetrievalInfo of one step of queries (..., d), without a warning of those that do not rest after it.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> one_step(sh.HopfieldMemory(np.eye(3)), np.array([0.5, 0.4, 0.0])).support_size.tolist()
    3
    """
    with still_moving():
        return memory.retrieve(queries, max_steps=1, tol=tol, return_info=True)[1]


def check_memory(memory: Any, *needed: str) -> None:
    """Raise TypeError unless an argument has these attributes of a memory.

    Examples
    --------
    >>> check_memory(3, "retrieve")
    Traceback (most recent call last):
        ...
    TypeError: memory: must be a HopfieldMemory, got 3
    """
    if isinstance(memory, type) or not all(hasattr(memory, name) for name in needed):
        raise TypeError(f"memory: must be a HopfieldMemory, got {short(memory)}")
