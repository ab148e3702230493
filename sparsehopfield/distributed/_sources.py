"""Where the rows of a sharded memory come from: files, zarr arrays, dask arrays; and how they are cut into shards.

The coordinator reads no rows. It reads the headers of files, checks that everything fits together, and cuts the source
into ranges of rows. What it sends for a range is a small description, by which a worker maps or reads these rows and no
others; of a dask array the range itself, whose graph says how its blocks are made. So a shard can be made again
wherever its worker is lost.
"""

import hashlib
import itertools
import mmap
import os
import pickle
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from tokenize import TokenError
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine import blocks
from sparsehopfield._engine.atomic_files import as_path, open_regular
from sparsehopfield._engine.blocks import is_dask, is_zarr
from sparsehopfield._engine.checks import Array, as_ids
from sparsehopfield._engine.files import DTYPES, read_header, read_model
from sparsehopfield._engine.text import short
from sparsehopfield.errors import FileFormatError

__all__ = [
    "FileRows",
    "Rows",
    "Source",
    "added_source",
    "as_source",
    "boundaries",
    "is_source",
    "mapping_of",
    "read_rows",
]

NPY = b"\x93NUMPY"
#: What safetensors calls the dtypes of patterns and values, those of saved memories and whole numbers.
TENSOR_DTYPES = DTYPES | {
    "BOOL": "?",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
}


class Rows(Protocol):
    """Rows of an array, (n, ...), that lie somewhere; `cut` gives some of them, which `read_rows` reads."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def boundaries(self) -> Sequence[int]:
        """Return where files or chunks begin and end, ascending from 0 to n."""

    def cut(self, start: int, stop: int) -> Any:
        """Return the rows from start to stop, as they are sent to a worker."""

    def name_of(self, row: int) -> str:
        """Return what a row is called where it lies, as "row 3 of a.npy"; an empty text where it has no other name."""


def read_rows(rows: Any) -> Array:
    """Return as an array, in the worker, what `cut` has given; a dask array has become an array already."""
    return rows if isinstance(rows, np.ndarray) else rows.read()


def mapping_of(a: Array) -> mmap.mmap | None:
    """Return the map of a file that an array lies in, or None if it lies in memory."""
    base: Any = a
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


# --- files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArrayInFile:
    """An array in a file: where it lies, and what tells the file from another of the same name."""

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int  # of its first number, in bytes
    size: int  # of the file
    digest: bytes  # of what comes before the data: header and, of a saved memory, the checksum of all data
    data: int  # where the data begin
    by_columns: bool = False  # .npy files may be so: Fortran's order

    def open(self) -> BinaryIO:
        """Open the file; raise FileFormatError if it is not the one that was described."""
        file = open_regular(self.path)
        try:
            if os.fstat(file.fileno()).st_size != self.size or _digest(file, self.data) != self.digest:
                raise FileFormatError(f"{self.path}: was changed after the memory was made of it; make a new memory")
        except BaseException:
            file.close()
            raise
        return file


def _digest(file: BinaryIO, length: int) -> bytes:
    """Return the SHA-256 of the first bytes of a file."""
    file.seek(0)
    return hashlib.sha256(file.read(length)).digest()


@dataclass(frozen=True)
class _RowsOf:
    """Some rows of an array that lies elsewhere."""

    array: Any
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stop - self.start, *self.array.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype)

    def cut(self, start: int, stop: int) -> Self:
        return type(self)(self.array, self.start + start, self.start + stop)


class FileRows(_RowsOf):
    """Some rows of an array in a file; they are mapped where they are read."""

    array: ArrayInFile

    @property
    def boundaries(self) -> Sequence[int]:
        return 0, self.stop - self.start

    def name_of(self, row: int) -> str:
        return f"row {self.start + row} of {self.array.path}"

    def read(self) -> Array:
        """Return the rows, mapped from the file; of an array stored by columns all of it is mapped."""
        array = self.array
        with array.open() as file:
            if array.by_columns:
                whole = np.memmap(file, array.dtype, "r", array.offset, array.shape, order="F")
                return whole.view(np.ndarray)[self.start : self.stop]
            row = array.dtype.itemsize * prod(array.shape[1:])
            part = np.memmap(file, array.dtype, "r", array.offset + self.start * row, self.shape)
            return part.view(np.ndarray)


@dataclass(frozen=True)
class JoinedRows:
    """Rows of several arrays in files, one file behind the other."""

    parts: tuple[FileRows, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.parts[0].dtype

    @property
    def boundaries(self) -> Sequence[int]:
        return [0, *itertools.accumulate(part.shape[0] for part in self.parts)]

    def cut(self, start: int, stop: int) -> "FileRows | JoinedRows":
        begins = self.boundaries
        first, last = bisect_right(begins, start) - 1, bisect_left(begins, stop)
        cut = tuple(
            self.parts[i].cut(max(start - begins[i], 0), min(stop, begins[i + 1]) - begins[i])
            for i in range(first, last)
        )
        return cut[0] if len(cut) == 1 else JoinedRows(cut)

    def name_of(self, row: int) -> str:
        begins = self.boundaries
        i = bisect_right(begins, row) - 1
        return self.parts[i].name_of(row - begins[i])

    def read(self) -> Array:
        """Return the rows in one array in memory, as those of several files cannot lie in one map."""
        out = np.empty(self.shape, self.dtype)
        for part, (start, stop) in zip(self.parts, itertools.pairwise(self.boundaries), strict=True):
            out[start:stop] = part.read()
        return out


def _describe_npy(path: str, file: BinaryIO) -> dict[str, ArrayInFile]:
    """Return the array of a .npy file, as its patterns."""
    try:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        if major > 2:
            raise ValueError(f"has version {major} of the format, whose arrays have fields")
        shape, by_columns, dtype = read(file)
        if min(shape, default=0) < 0:
            raise ValueError(f"has shape {shape}")
    except (ValueError, TypeError, EOFError, SyntaxError, TokenError) as error:  # headers are Python, which NumPy reads
        raise FileFormatError(f"{path}: no .npy file that can be read: {error}") from None
    data, size = file.tell(), os.fstat(file.fileno()).st_size
    if dtype.hasobject or size < data + prod(shape) * dtype.itemsize:
        raise FileFormatError(
            f"{path}: " + ("holds objects, not numbers" if dtype.hasobject else f"is cut: has {size} bytes")
        )
    return {"patterns": ArrayInFile(path, dtype, shape, data, size, _digest(file, data), data, by_columns)}


def _describe_safetensors(path: str, file: BinaryIO) -> tuple[dict[str, ArrayInFile], float | None]:
    """Return the tensors "patterns", "values" and "ids" of a safetensors file, and the scale of a saved memory."""
    data, fields, tensors = read_header(path, file)
    size, digest = os.fstat(file.fileno()).st_size, _digest(file, data)
    found: dict[str, ArrayInFile] = {}
    offset = data
    for name, dtype_name, shape in tensors:  # which lie in this order without gaps: the package has checked that
        dtype = np.dtype(TENSOR_DTYPES[dtype_name]) if dtype_name in TENSOR_DTYPES else None
        if name in ("patterns", "values", "ids"):
            if dtype is None:
                raise FileFormatError(f"{path}: {name}: cannot be {dtype_name}; see sparsehopfield.HopfieldMemory")
            found[name] = ArrayInFile(path, dtype, shape, offset, size, digest, data)
        if dtype is None:
            offset = _end_of(path, name, data)
        else:
            offset += prod(shape) * dtype.itemsize
    if "patterns" not in found:
        raise FileFormatError(f"{path}: has no tensor 'patterns'; its tensors: {short([name for name, *_ in tensors])}")
    scale = None
    if fields.get("format") == "sparsehopfield.memory":
        scale = read_model(path).scale  # which checks the header
    return found, None if scale == 1 else scale


def _end_of(path: str, tensor: str, data: int) -> int:
    """Return where a tensor of a dtype that is not read here ends in a safetensors file, in bytes."""
    import json  # only for files that hold other things, too

    with open(path, "rb") as file:
        file.seek(8)
        end: int = json.loads(file.read(data - 8))[tensor]["data_offsets"][1]
    return data + end


def _describe(path: str) -> tuple[dict[str, ArrayInFile], float | None]:
    """Return the arrays of a file by name, and the scale of a saved memory's."""
    if os.path.isdir(path):
        raise ValueError(
            f"source: {path} is a folder: read what ShardedMemory.save wrote with ShardedMemory.load, open a zarr "
            "array with zarr.open, or list the files"
        )
    with open_regular(path) as file:
        magic = file.read(len(NPY))
        file.seek(0)
        return (_describe_npy(path, file), None) if magic == NPY else _describe_safetensors(path, file)


def _join(name: str, arrays: Sequence[ArrayInFile], *, axes: int) -> JoinedRows:
    """Return the rows of some arrays behind one another; raise if they differ, naming both files."""
    first = arrays[0]
    for a in arrays:
        if len(a.shape) != axes:
            what = "one-dimensional" if axes == 1 else "two-dimensional, one row a pattern"
            raise ValueError(f"source: {name} of {a.path} must be {what}, got shape {a.shape}")
        if min(a.shape) == 0:
            raise ValueError(f"source: {a.path} is empty: its {name} have shape {a.shape}")
        if a.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"source: {name} have {first.shape[1]} columns in {first.path}, and {a.shape[1]} in {a.path}"
            )
        if a.dtype != first.dtype:
            raise ValueError(f"source: {name} are {first.dtype} in {first.path}, and {a.dtype} in {a.path}")
    return JoinedRows(tuple(FileRows(a, 0, a.shape[0]) for a in arrays))


def _files(paths: Sequence[Any]) -> "Source":
    """Return the source of some files, whose rows lie behind one another in this order."""
    if not paths:
        raise ValueError("source: needs at least one file")
    described = [_describe(as_path(path, "source")) for path in paths]
    arrays, scales = [found for found, _ in described], [scale for _, scale in described]
    first = arrays[0]
    for found, scale in zip(arrays, scales, strict=True):
        path = found["patterns"].path
        if found.keys() != first.keys():
            names = [", ".join(sorted(a.keys())) for a in (first, found)]
            raise ValueError(f"source: {first['patterns'].path} holds {names[0]}, and {path} {names[1]}")
        if scale != scales[0]:
            raise ValueError(
                f"source: the scale is {scales[0] or 1} in {first['patterns'].path}, and {scale or 1} in {path}"
            )
        for name, a in found.items():
            if a.shape[:1] != found["patterns"].shape[:1]:
                raise ValueError(
                    f"source: {path} has {found['patterns'].shape[0]} patterns, and {name} of shape {a.shape}"
                )
    joined = {name: _join(name, [a[name] for a in arrays], axes=1 if name == "ids" else 2) for name in first}
    return Source(joined["patterns"], joined.get("values"), joined.get("ids"), scales[0])


# --- arrays -------------------------------------------------------------------------------------------------------


class ZarrRows(_RowsOf):
    """Some rows of a zarr array; a worker reads the chunks that they lie in."""

    @property
    def boundaries(self) -> Sequence[int]:
        return [*range(0, self.stop - self.start, self.array.chunks[0]), self.stop - self.start]

    def name_of(self, row: int) -> str:
        return ""

    def read(self) -> Array:
        """Return the rows, (n, ...), in memory."""
        return blocks.read_rows(self.array, self.start, self.stop)


@dataclass(frozen=True, eq=False)
class DaskRows:
    """The rows of a dask array; what is sent of it is a graph."""

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype)

    @property
    def boundaries(self) -> Sequence[int]:
        return [0, *itertools.accumulate(self.array.chunks[0])]

    def cut(self, start: int, stop: int) -> Any:
        return self.array[start:stop]

    def name_of(self, row: int) -> str:
        return ""


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows in memory, which travel in the task that makes a shard of them: ids, and patterns that are added."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def boundaries(self) -> Sequence[int]:
        return 0, len(self.array)

    def cut(self, start: int, stop: int) -> Array:
        return np.ascontiguousarray(self.array[start:stop])

    def name_of(self, row: int) -> str:
        return ""


def _dask_rows(name: str, array: Any) -> DaskRows:
    """Return the rows of a dask array; raise if its chunks are unknown or empty."""
    for axis, sizes in enumerate(array.chunks):
        if any(np.isnan(size) for size in sizes):
            raise ValueError(f"{name}: has chunks of unknown size along axis {axis}; see its compute_chunk_sizes()")
        if 0 in sizes:
            raise ValueError(f"{name}: chunk {sizes.index(0)} along axis {axis} is empty")
    return DaskRows(array)


def _zarr_rows(name: str, array: Any) -> ZarrRows:
    """Return the rows of a zarr array; raise if workers cannot open its store."""
    kind = type(array.store).__name__
    try:
        in_memory = "Memory" in kind or isinstance(array.store, dict)
        sent = None if in_memory else pickle.dumps(array)
    except Exception as error:
        raise ValueError(f"{name}: workers cannot open this zarr array's {kind}: {error}") from None
    if sent is None:
        raise ValueError(
            f"{name}: this zarr array lies in the memory of this process, where workers cannot read it; write it to a "
            "store that they share"
        )
    return ZarrRows(array, 0, array.shape[0]) if array.ndim else ZarrRows(array, 0, 0)


def _rows(name: str, given: Any) -> Rows | None:
    """Return the rows of a dask or zarr array, or None if the argument is neither."""
    if is_dask(given):
        return _dask_rows(name, given)
    if is_zarr(given):
        return _zarr_rows(name, given)
    return None


def is_source(given: Any) -> bool:
    """Return whether an argument is of a kind that `as_source` takes, and no array in memory."""
    is_array = is_dask(given) or is_zarr(given)
    return is_array or _is_path(given) or (isinstance(given, (list, tuple)) and bool(given) and _is_path(given[0]))


def _is_path(given: Any) -> bool:
    """Return whether an argument is a path."""
    return isinstance(given, (str, bytes, os.PathLike))


# --- sources ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Source:
    """Patterns (M, d), values (M, v) and ids (M,), and the scale that their files say they have."""

    patterns: Rows
    values: Rows | None = None
    ids: Rows | None = None
    scale: float | None = None

    def __len__(self) -> int:
        return self.patterns.shape[0]

    @property
    def paths(self) -> frozenset[str]:
        """Return the files that it is read from."""
        joined = [rows for rows in (self.patterns, self.values, self.ids) if isinstance(rows, JoinedRows)]
        return frozenset(os.path.realpath(part.array.path) for rows in joined for part in rows.parts)

    def cut(self, start: int, stop: int) -> tuple[Any, Any, Any]:
        """Return patterns, values and ids of the rows from start to stop, as they are sent to a worker."""
        rows = self.patterns, self.values, self.ids
        patterns, values, ids = (None if a is None else a.cut(start, stop) for a in rows)
        return patterns, values, ids


def _array_or_files(name: str, given: Any) -> Source:
    """Return the source of a dask or zarr array, or of files; raise, with words how, for anything else."""
    rows = _rows(name, given)
    if rows is not None:
        return Source(rows)
    if _is_path(given):
        return _files([given])
    if isinstance(given, (list, tuple)) and all(map(_is_path, given)):
        return _files(given)
    what = "a dask or zarr array, or paths of .npy or safetensors files"
    if isinstance(given, np.ndarray) or hasattr(given, "__array__"):
        raise TypeError(
            f"{name}: must be {what}, got {type(given).__name__}, which lies in the memory of this process: use "
            "sparsehopfield.HopfieldMemory, or dask.array.from_array(X, chunks=(rows, -1)), or write it with "
            "numpy.save(path, X) where workers can read it and give the path"
        )
    raise TypeError(f"{name}: must be {what}, got {short(given)}")


def as_source(source: Any, values: Any = None, ids: ArrayLike | None = None, *, name: str = "source") -> Source:
    """Return a source, checked: patterns, and values and ids, which are given by themselves or with the patterns.

    Raises
    ------
    TypeError, ValueError, FileFormatError, OSError
        Naming the argument or the files at fault.
    """
    found = _array_or_files(name, source)
    patterns = found.patterns
    if len(patterns.shape) != 2:
        raise ValueError(f"{name}: must be two-dimensional, one row a pattern, got shape {patterns.shape}")
    if min(patterns.shape) == 0:
        raise ValueError(f"{name}: needs at least one row and one column, got shape {patterns.shape}")
    mixed = found.values
    if values is not None:
        if mixed is not None:
            raise ValueError("values: the files of the source hold values already")
        mixed = _array_or_files("values", values).patterns
        if len(mixed.shape) != 2 or mixed.shape[0] != patterns.shape[0] or mixed.shape[1] == 0:
            raise ValueError(
                f"values: needs one row of numbers per pattern ({patterns.shape[0]}), got shape {mixed.shape}"
            )
    for argument, rows in ((name, patterns), ("values", mixed)):
        if rows is not None and (rows.dtype.kind not in "fiub" or rows.dtype.itemsize > 8):
            raise TypeError(f"{argument}: must be real numbers of at most 64 bits, got dtype {rows.dtype}")
    names: Rows | None = found.ids
    if ids is not None:
        if names is not None:
            raise ValueError("ids: the files of the source hold ids already")
        names = ArrayRows(as_ids(ids, patterns.shape[0]))
    if names is not None and names.dtype.kind not in "iu":
        raise TypeError(f"ids: must be whole numbers, got dtype {names.dtype}")
    return Source(patterns, mixed, names, found.scale)


def added_source(rows: Array, values: Array | None, ids: NDArray[np.int64] | None) -> Source:
    """Return the source of rows in memory that are added to others, all of them checked."""
    parts = (None if a is None else ArrayRows(a) for a in (rows, values, ids))
    patterns, mixed, names = parts
    assert patterns is not None
    return Source(patterns, mixed, names)


def boundaries(rows: int, shards: int, preferred: Iterable[int], block: int) -> list[int]:
    """Return where shards begin and end: ascending from 0 to `rows`, multiples of `block` between.

    There are as many as wanted, or one for each block if that is fewer. All have about the same size; one that would
    end near the end of a file or chunk, `preferred`, ends there, so that its rows lie in one piece.
    """
    blocks = -(-rows // block)
    n = min(shards, blocks)
    near = sorted({p // block for p in preferred if p % block == 0 and 0 < p < rows})
    inner = []
    for i in range(1, n):
        ideal = i * blocks // n
        at = bisect_left(near, ideal)
        closest = min(near[max(at - 1, 0) : at + 1], key=lambda p: abs(p - ideal), default=ideal)
        inner.append(closest if 4 * abs(closest - ideal) * n < blocks else ideal)
    return [0, *(i * block for i in inner), rows]
