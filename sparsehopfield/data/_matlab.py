"""Arrays of numbers from MATLAB's files of versions 4 to 7.

Read here, and not by scipy.io.loadmat, because that believes the sizes which a file states, and a damaged one can end
the process: here nothing is taken that does not lie within the file.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sparsehopfield._engine.checks import Array
from sparsehopfield.data import _content

__all__ = ["read_arrays"]

MATRIX, COMPRESSED = 14, 15
#: The types of stored numbers, in files of version 5 and of version 4.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TYPES_4 = ("f8", "f4", "i4", "i2", "u2", "u1")
SPARSE, OPAQUE = 5, 17  # classes of arrays; 6 to 15 are numbers


def read_arrays(data: bytes, names: Collection[str], keep_sparse: Collection[str] = ()) -> dict[str, Any]:
    """Return those arrays of numbers that have these names, sparse ones with their zeros.

    Parameters
    ----------
    data : bytes
        The content of a file of version 4, 5, 6 or 7.
    names : collection of str
        What to read; all else is passed over.
    keep_sparse : collection of str
        Of these names, sparse arrays are returned as csr_array.

    Returns
    -------
    dict of ndarray or csr_array
        As stored: MATLAB puts whole numbers of any class into the smallest type that holds them.

    Raises
    ------
    ValueError, struct.error, zlib.error
        If it is damaged, of another version, or one of the arrays is of no real numbers.
    """
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[512:520] == b"\x89HDF\r\n\x1a\n":
        raise ValueError("it is of version 7.3, which is not read; save it with -v7")
    if 0 in data[:4]:
        return {name: _made(name, array, keep_sparse) for name, array in _read_version_4(data, names)}
    byte_order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if byte_order is None:
        raise ValueError("it does not begin as one")
    return {name: _made(name, array, keep_sparse) for name, array in _read_version_5(data, byte_order, names)}


class _Sparse(NamedTuple):
    """Numbers at some places of an array, and zeros elsewhere; not checked yet."""

    shape: tuple[int, ...]
    rows: Array
    columns: Array
    values: Array


def _read_version_5(data: bytes, byte_order: str, names: Collection[str]) -> Iterator[tuple[str, Array | _Sparse]]:
    """Yield the arrays with these names, each with its name."""
    offset = 128
    while offset < len(data):
        kind, size = struct.unpack_from(byte_order + "II", data, offset)
        element = data[offset + 8 : offset + 8 + size]
        if len(element) < size:
            raise ValueError("it is cut")
        offset += 8 + size
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            element = unpacker.decompress(element, _content.MAX_UNPACKED)
            if not unpacker.eof:
                raise ValueError("it is cut, or an array of it is larger than what is read")
            kind, size = struct.unpack_from(byte_order + "II", element)
            element = element[8 : 8 + size]
        if kind != MATRIX:
            raise ValueError(f"it has an element of type {kind} where an array should be")
        if (array := _read_array(element, byte_order, names)) is not None:
            yield array


def _read_array(element: bytes, byte_order: str, names: Collection[str]) -> tuple[str, Array | _Sparse] | None:
    """Return the name and the numbers of an array element of version 5, or None for a name that is not in `names`."""
    flags, offset = _read_numbers(element, 0, byte_order)
    class_, is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & 0x800)
    if class_ == OPAQUE:  # an object, laid out in its own way
        return None
    dims, offset = _read_numbers(element, offset, byte_order)
    letters, offset = _read_numbers(element, offset, byte_order)
    name, shape = letters.tobytes().decode("latin-1"), tuple(dims.tolist())
    if name not in names:
        return None
    if is_complex or not (class_ == SPARSE or 6 <= class_ <= 15) or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"its {name} are no real numbers")
    if class_ == SPARSE:
        rows, offset = _read_numbers(element, offset, byte_order)
        starts, offset = _read_numbers(element, offset, byte_order)  # of the columns
        values, offset = _read_numbers(element, offset, byte_order)
        if rows.dtype.kind == "f" or starts.dtype.kind == "f":
            raise ValueError(f"its {name} have places that are no whole numbers")
        sizes: Array = np.diff(starts.astype(np.int64))
        if len(shape) != 2 or len(sizes) != shape[1] or (sizes < 0).any() or starts[0] != 0 or starts[-1] > len(values):
            raise ValueError(f"its {name} have columns that do not fit")
        used = int(starts[-1])  # there may be room for more
        return name, _Sparse(shape, rows[:used], np.repeat(np.arange(shape[1]), sizes), values[:used])
    values, offset = _read_numbers(element, offset, byte_order)
    if len(values) != math.prod(shape):
        raise ValueError(f"its {name} have {len(values)} numbers, not the {math.prod(shape)} of their shape")
    return name, values.reshape(shape, order="F")


def _read_numbers(element: bytes, offset: int, byte_order: str) -> tuple[Array, int]:
    """Return the numbers of the data element at an offset of an array, and the offset of the next."""
    kind, size = struct.unpack_from(byte_order + "II", element, offset)
    begin = offset + 8
    end = begin + size + -size % 8
    if kind >> 16:  # both in one word, the numbers in the next
        kind, size, begin, end = kind & 0xFFFF, kind >> 16, offset + 4, begin
    if kind not in TYPES or begin + size > len(element):
        raise ValueError("an array of it is cut, or of an unknown type")
    dtype = np.dtype(byte_order + TYPES[kind])
    if size % dtype.itemsize:
        raise ValueError("an array of it ends within a number")
    return np.frombuffer(element, dtype, size // dtype.itemsize, begin), end


def _read_version_4(data: bytes, names: Collection[str]) -> Iterator[tuple[str, Array | _Sparse]]:
    """Yield the arrays with these names, each with its name."""
    byte_order = "<" if 0 <= struct.unpack_from("<i", data)[0] <= 5000 else ">"
    offset = 0
    while offset < len(data):
        kind, rows, columns, is_complex, length = struct.unpack_from(byte_order + "5i", data, offset)
        precision, class_ = kind // 10 % 10, kind % 10
        if not 0 <= kind <= 5000 or kind // 100 % 10 or precision >= len(TYPES_4) or min(rows, columns, length) < 0:
            raise ValueError("it does not begin as one, or is damaged")
        dtype, begin = np.dtype(byte_order + TYPES_4[precision]), offset + 20 + length
        offset = begin + rows * columns * dtype.itemsize * (1 + bool(is_complex))
        if offset > len(data):
            raise ValueError("it is cut")
        name = data[begin - length : begin].strip(b"\0").decode("latin-1")
        if name not in names:
            continue
        values = np.frombuffer(data, dtype, rows * columns, begin).reshape((rows, columns), order="F")
        if is_complex or class_ not in (0, 2):
            raise ValueError(f"its {name} are no real numbers")
        yield name, _from_triplets(name, values) if class_ == 2 else values


def _from_triplets(name: str, values: Array) -> _Sparse:
    """Return a sparse array of version 4: rows (row, column, number), counted from 1, the last one with the shape."""
    if values.shape[1] != 3 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"its {name} are no sparse array of real numbers")
    values = values.astype(np.float64)
    rows, columns = (values[:-1, i] - 1 for i in (0, 1))
    return _Sparse(tuple(int(side) for side in values[-1, :2]), rows, columns, values[:-1, 2])


def _made(name: str, array: Array | _Sparse, keep_sparse: Collection[str]) -> Any:
    """Return an array as it is, and of numbers at some places a csr_array or, with its zeros, an ndarray."""
    if not isinstance(array, _Sparse):
        return array
    shape, rows, columns, values = array
    kept = name in keep_sparse
    entries = len(values) + shape[0] if kept else math.prod(shape)
    if not min(shape) >= 0 or entries * values.itemsize > _content.MAX_UNPACKED:
        raise ValueError(f"its {name} have shape {shape}, which is larger than what is read")
    if len(rows) != len(values):
        raise ValueError(f"its {name} have {len(values)} numbers in {len(rows)} places")
    for places, side in ((rows, shape[0]), (columns, shape[1])):
        if not ((places >= 0) & (places < side) & (places == np.floor(places))).all():
            raise ValueError(f"its {name} have places outside of their shape, {shape}")
    rows, columns = rows.astype(np.intp), columns.astype(np.intp)
    if kept:
        return sparse.csr_array((values.astype(np.float64), (rows, columns)), shape=shape)
    dense = np.zeros(shape, values.dtype)
    np.add.at(dense, (rows, columns), values)
    return dense
