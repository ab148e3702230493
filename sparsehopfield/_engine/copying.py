"""Copies of large arrays, some rows at a time: a copy in one piece would leave Ctrl-C unheard for seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["added", "contiguous", "copied", "fill", "pieces", "taken"]

PIECE = 16 * 1024 * 1024  # bytes: some 50 ms where memory is touched for the first time


def pieces(n: int, size: int) -> Iterator[slice]:
    """Yield slices of n rows of so many bytes each; between two of them Python looks for signals."""
    step = max(1, PIECE // max(1, size))
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


def fill(out: NDArray[Any], rows: NDArray[Any], at: NDArray[np.int64] | None = None) -> None:
    """Copy rows into an array, all of them in order, or those at some positions.

    Parameters
    ----------
    out : ndarray, shape (n, ...)
        Takes the numbers, cast as NumPy's assignment does it.
    rows : ndarray, shape (m, ...)
    at : ndarray of int, shape (n,), optional
        Positions in `rows`; by default all, and n is m.
    """
    of_one = out.nbytes // max(1, len(out))
    if of_one > PIECE and out.ndim > 1:
        for i in range(len(out)):
            fill(out[i], rows[i if at is None else at[i]])
        return
    for piece in pieces(len(out), of_one):
        out[piece] = rows[piece if at is None else at[piece]]


def copied(rows: NDArray[Any], dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Return a contiguous copy of an array, in this dtype or its own."""
    out = np.empty(rows.shape, rows.dtype if dtype is None else dtype)
    fill(out, rows)
    return out


def taken(rows: NDArray[Any], at: NDArray[np.int64]) -> NDArray[Any]:
    """Return a contiguous copy of the rows at some positions."""
    out = np.empty((len(at), *rows.shape[1:]), rows.dtype)
    fill(out, rows, at)
    return out


def added(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of two arrays of one shape and dtype."""
    if a.nbytes <= PIECE:
        return np.asarray(a + b)
    out = np.empty(a.shape, a.dtype)
    flat = out.reshape(-1), a.reshape(-1), b.reshape(-1)
    for piece in pieces(a.size, a.itemsize):
        np.add(flat[1][piece], flat[2][piece], out=flat[0][piece])
    return out


def contiguous(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the array itself if it is in C order, aligned and of this dtype, else such a copy."""
    if rows.dtype == dtype and rows.flags.c_contiguous and rows.flags.aligned:
        return rows
    return copied(rows, dtype) if rows.ndim and rows.size * dtype.itemsize > PIECE else np.array(rows, dtype, order="C")
