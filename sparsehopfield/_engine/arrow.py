"""Arrays and tables of Apache Arrow as NumPy arrays: in place where Arrow has the numbers of all rows in one piece.

Lists of one length, those of a fixed size among them, are rows. What lies in several chunks is copied into one array, a
chunk at a time. pyarrow is not imported for what is not its own, but for objects of other libraries that have Arrow's
interface (PyCapsule) and that NumPy cannot read as numbers.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.chunked import copy_rows
from sparsehopfield._engine.optional import require

__all__ = ["from_arrow", "from_interface", "has_interface", "is_arrow"]


def is_arrow(given: Any) -> bool:
    """Return whether an argument is an array or table of pyarrow."""
    pyarrow = sys.modules.get("pyarrow")  # without the module there is no array of its own
    kinds = ("Array", "ChunkedArray", "Table", "RecordBatch")
    return pyarrow is not None and isinstance(given, tuple(getattr(pyarrow, kind, ()) for kind in kinds))


def from_arrow(name: str, given: Any) -> NDArray[Any] | None:
    """Return an array or table of pyarrow as an array; None for all else.

    A table of one column of lists has their rows, else a column for each of its own.
    """
    if not is_arrow(given):
        return None
    import pyarrow

    if isinstance(given, pyarrow.Array):
        return _numbers(name, given)
    return _joined(name, given) if isinstance(given, pyarrow.ChunkedArray) else _from_columns(name, given)


def has_interface(given: Any) -> bool:
    """Return whether an object of any library gives its numbers as Arrow's."""
    return hasattr(given, "__arrow_c_stream__") or hasattr(given, "__arrow_c_array__")


def from_interface(name: str, given: Any) -> NDArray[Any] | None:
    """Return what an object gives by Arrow's interface as an array."""
    kind = type(given).__name__
    pyarrow = require("pyarrow", purpose=f"{name}: reading a {kind} by Arrow's interface", extra="arrow")
    try:
        array = (pyarrow.chunked_array if hasattr(given, "__arrow_c_stream__") else pyarrow.array)(given)
    except (TypeError, ValueError, NotImplementedError) as error:  # of these are Arrow's own errors
        raise TypeError(f"{name}: a {kind} cannot be read by Arrow's interface: {error}") from None
    if pyarrow.types.is_struct(array.type):  # a table, row by row
        chunks = array.chunks if isinstance(array, pyarrow.ChunkedArray) else [array]
        schema = pyarrow.schema(list(array.type))
        array = pyarrow.Table.from_batches(map(pyarrow.RecordBatch.from_struct_array, chunks), schema)
    return from_arrow(name, array)


def _numbers(name: str, array: Any) -> NDArray[Any]:
    """Return the numbers of a pyarrow.Array, or of its lists as rows, (n, ...); in place if they are no booleans."""
    import pyarrow

    if array.null_count:
        raise ValueError(f"{name}: has {array.null_count} missing values (nulls); fill them or leave their rows out")
    kind = array.type
    if isinstance(kind, pyarrow.FixedShapeTensorType):
        _numbers(name, array.storage.flatten())  # refuses missing numbers
        return np.asarray(array.to_numpy_ndarray())
    if isinstance(array, pyarrow.ExtensionArray):
        return _numbers(name, array.storage)
    if not _is_of_lists(kind):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    if pyarrow.types.is_fixed_size_list(kind):
        size = kind.list_size
    else:
        sizes = array.value_lengths().to_numpy()
        size = int(sizes[0]) if len(sizes) else 0
        if (others := np.flatnonzero(sizes != size)).size:
            at = others[0]
            raise ValueError(f"{name}: row {at} has {sizes[at]} numbers, and row 0 has {size}; rows must be as long")
    numbers = _numbers(name, array.flatten())  # which goes by where a slice begins
    return numbers.reshape(len(array), size, *numbers.shape[1:])


def _is_of_lists(kind: Any) -> bool:
    """Return whether a type of Arrow is that of lists."""
    import pyarrow

    is_of = pyarrow.types
    return is_of.is_fixed_size_list(kind) or is_of.is_list(kind) or is_of.is_large_list(kind)


def _joined(name: str, array: Any) -> NDArray[Any]:
    """Return the numbers of a pyarrow.ChunkedArray: of one chunk in place, of several copied, one at a time."""
    import pyarrow

    parts = [chunk for chunk in array.chunks if len(chunk)]
    if len(parts) < 2:
        return _numbers(name, parts[0] if parts else pyarrow.array([], array.type))
    first = _numbers(name, parts[0])
    out = np.empty((len(array), *first.shape[1:]), first.dtype)
    _fill(name, out, parts)
    return out


def _fill(name: str, out: NDArray[Any], parts: Sequence[Any]) -> None:
    """Copy the numbers of some pyarrow.Array into an array, one behind the other."""
    start = 0
    for part in parts:
        numbers = _numbers(name, part)
        if numbers.shape[1:] != out.shape[1:]:
            raise ValueError(
                f"{name}: row {start} has shape {numbers.shape[1:]}, and row 0 {out.shape[1:]}; rows must be as long"
            )
        copy_rows(out[start : start + len(numbers)], numbers)
        start += len(numbers)


def _from_columns(name: str, table: Any) -> NDArray[Any]:
    """Return the rows of a table, (n, ...): those of its one column of lists, or a number from every column."""
    import pyarrow

    columns, kinds = table.columns, [field.type for field in table.schema]
    if len(columns) == 1 and (_is_of_lists(kinds[0]) or isinstance(kinds[0], pyarrow.BaseExtensionType)):
        rows = from_arrow(name, columns[0])
        assert rows is not None
        return rows
    is_of = pyarrow.types
    for field in table.schema:
        if not (is_of.is_floating(field.type) or is_of.is_integer(field.type) or is_of.is_boolean(field.type)):
            raise TypeError(
                f"{name}: column {field.name!r} is of {field.type}; a table must have columns of numbers, or one of "
                "lists alone"
            )
    dtypes = [np.dtype(kind.to_pandas_dtype()) for kind in kinds]
    out = np.empty((table.num_rows, len(columns)), np.result_type(*dtypes) if dtypes else np.float64)
    for i, (field, column) in enumerate(zip(table.schema, columns, strict=True)):
        parts = column.chunks if isinstance(column, pyarrow.ChunkedArray) else [column]
        _fill(f"{name}: column {field.name!r}", out[:, i], parts)
    return out
