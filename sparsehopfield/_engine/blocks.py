"""Arrays that lie elsewhere and are read a part at a time: those of zarr, h5py and dask."""

import sys
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.chunked import CHUNK

__all__ = ["is_dask", "is_read_by_blocks", "is_zarr", "read_rows"]


def _is(given: Any, module: str, name: str) -> bool:
    """Return whether an argument is of a class of a module, which is not imported for that."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(given, getattr(loaded, name, ()))


def is_zarr(given: Any) -> bool:
    """Return whether an argument is an array of zarr."""
    return _is(given, "zarr", "Array")


def is_dask(given: Any) -> bool:
    """Return whether an argument is an array of dask."""
    return _is(given, "dask.array", "Array")


def is_read_by_blocks(given: Any) -> bool:
    """Return whether an argument is an array of numbers, with at least one axis, that `read_rows` reads."""
    if not (is_zarr(given) or is_dask(given) or _is(given, "h5py", "Dataset")):
        return False
    has_rows = bool(given.shape) and all(n == n for n in given.shape)  # chunks of dask may be of unknown size
    return has_rows and np.dtype(given.dtype).kind in "fiub"


def read_rows(array: Any, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Return rows from start to stop of such an array, in memory and the machine's order of bytes.

    Whole chunks are read at a time, at least one and some MiB of them, into the one array that is returned.
    """
    stop = array.shape[0] if stop is None else stop
    out = np.empty((stop - start, *array.shape[1:]), np.dtype(array.dtype).newbyteorder("="))
    per_row = max(1, out.itemsize * prod(out.shape[1:]))
    first = start
    for end in _ends(array, start, stop):
        if (end - first) * per_row >= CHUNK or end == stop:
            out[first - start : end - start] = np.asarray(array[first:end])
            first = end
    return out


def _ends(array: Any, start: int, stop: int) -> list[int]:
    """Return where chunks end between two rows, ascending, and `stop` at last."""
    sizes = None if array.chunks is None else array.chunks[0]  # of dask they are all listed; in h5py there may be none
    if sizes is None:
        row = max(1, np.dtype(array.dtype).itemsize * prod(array.shape[1:]))
        sizes = max(1, CHUNK // row)
    ends = np.cumsum(sizes) if np.ndim(sizes) else np.arange(sizes, array.shape[0], sizes)
    return [*ends[(ends > start) & (ends < stop)].tolist(), stop] if stop > start else []
