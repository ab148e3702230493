"""Operations on large arrays, in chunks: between two Python handles signals, so that Ctrl-C never waits for long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_arrays", "as_contiguous", "chunks", "copy_array", "copy_rows", "take_rows"]

CHUNK = 16 * 1024 * 1024  # bytes: some 50 ms where memory is touched for the first time


def chunks(n: int, size: int) -> Iterator[slice]:
    """Yield slices that cover n rows of `size` bytes each, of at most CHUNK bytes or one row."""
    step = max(1, CHUNK // max(1, size))
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


def copy_rows(out: NDArray[Any], rows: NDArray[Any], positions: NDArray[np.int64] | None = None) -> None:
    """Copy rows (m, ...) to out (n, ...), cast as NumPy's assignment casts them.

    positions: (n,), of the rows to copy; by default all in order, and n is m.
    """
    row_bytes = out.nbytes // max(1, len(out))
    if row_bytes > CHUNK and out.ndim > 1:
        for i in range(len(out)):
            copy_rows(out[i], rows[i if positions is None else positions[i]])
        return
    for chunk in chunks(len(out), row_bytes):
        out[chunk] = rows[chunk if positions is None else positions[chunk]]


def copy_array(rows: NDArray[Any], dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Return a contiguous copy of an array, in this dtype or its own."""
    out = np.empty(rows.shape, rows.dtype if dtype is None else dtype)
    copy_rows(out, rows)
    return out


def take_rows(rows: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """Return a contiguous copy of the rows at some positions."""
    out = np.empty((len(positions), *rows.shape[1:]), rows.dtype)
    copy_rows(out, rows, positions)
    return out


def add_arrays(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of two arrays of one shape and dtype."""
    if a.nbytes <= CHUNK:
        return np.asarray(a + b)
    out = np.empty(a.shape, a.dtype)
    flat = out.reshape(-1), a.reshape(-1), b.reshape(-1)
    for chunk in chunks(a.size, a.itemsize):
        np.add(flat[1][chunk], flat[2][chunk], out=flat[0][chunk])
    return out


def as_contiguous(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the array itself if it is in C order, aligned and of this dtype, else such a copy."""
    if rows.dtype == dtype and rows.flags.c_contiguous and rows.flags.aligned:
        return rows
    if rows.ndim and rows.size * dtype.itemsize > CHUNK:
        return copy_array(rows, dtype)
    return np.array(rows, dtype, order="C")
