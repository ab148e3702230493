"""Checks of arguments: kinds, shapes, dtypes, ranges. The message of every error begins with the argument's name."""

import sys
from collections.abc import Mapping
from math import prod
from operator import index
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine.arrow import from_arrow, from_interface, has_interface, is_arrow
from sparsehopfield._engine.blocks import is_read_by_blocks, read_rows
from sparsehopfield._engine.chunked import as_contiguous, chunks
from sparsehopfield._engine.text import short

INT_MAX = 2**31 - 1
MOST_NUMBERS = 2**60 - 1  # of 8 bytes of an array
Array = NDArray[Any]
FLOATS = FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
PLAIN = {float, int, bool, np.float64, np.float32, np.int64}  # numbers of lists, which cannot be masked
MOST_AXES = 64  # of an array: lists nested deeper than this are none
NARROW = (np.uint8, np.float16)  # stored as they are, and widened by the core where they are used


def has_masked_entries(given: Any, depth: int = MOST_AXES) -> bool:
    """Return whether an argument is, or lists, a masked array (`numpy.ma`) with an entry that is masked."""
    ma = sys.modules.get("numpy.ma")  # NumPy imports it on demand: without it there is no masked array
    if ma is None or type(given) in PLAIN:
        return False
    if isinstance(given, (list, tuple)):
        nested = depth > 0 and not {*map(type, given)} <= PLAIN
        return nested and any(has_masked_entries(part, depth - 1) for part in given)
    if not isinstance(given, ma.MaskedArray) or given.dtype.names:  # of fields, which are no numbers
        return False
    return bool(ma.is_masked(given))


def refuse_masks(name: str, given: Any) -> None:
    """Raise if an argument has masked entries, which are no numbers to compute with."""
    if type(given) is not np.ndarray and has_masked_entries(given):
        raise ValueError(f"{name}: masks some of its entries, which have no value; fill them or leave them out")


def _as_masked(given: Any) -> Any:
    """Return a masked array, or lists of them, as one masked array."""
    if isinstance(given, (list, tuple)) and len(given):
        return np.ma.stack([_as_masked(part) for part in given])
    return np.ma.asarray(given)


def _frame_numbers(frame: Any) -> Array | None:
    """Return the numbers of a data frame, or of a column, whose dtypes are not NumPy's, with NaN for missing values.

    None if they are no numbers. pandas' own dtypes, nullable and of Arrow, say which dtype of NumPy they extend.
    """
    kinds = [getattr(d, "numpy_dtype", d) for d in (frame.dtypes if frame.ndim == 2 else [frame.dtype])]
    if not kinds or not all(isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in kinds):
        return None
    dtype = np.result_type(*kinds)
    if not np.asarray(frame.isna()).any():
        return np.asarray(frame.to_numpy(dtype=dtype))
    return np.asarray(frame.to_numpy(dtype=dtype if dtype.kind == "f" else np.float64, na_value=np.nan))


def refusal(words: str, given: Any) -> str:
    """Return the words by which an argument was refused as an array.

    For a tensor of PyTorch, or a list of them, they say besides which tensors are taken.
    """
    torch = sys.modules.get("torch")  # without the module there is no tensor
    parts = given if isinstance(given, (list, tuple)) else [given]
    if torch is None or not any(isinstance(part, torch.Tensor) for part in parts):
        return words
    return (
        f"{words.rstrip('.')}; a tensor must be dense, of real numbers, on the CPU and without gradient: see detach(), "
        "float(), cpu() and to_dense(), or use sparsehopfield.torch"
    )


def refuse_gradient(name: str, number: Any) -> None:
    """Raise if a number is a tensor that requires a gradient, which would be lost."""
    if getattr(number, "requires_grad", False) is True:
        raise TypeError(f"{name}: {refusal('requires a gradient, which would be lost', number)}")


def as_ndarray(name: str, given: Any, dtype: Any = None) -> Array:
    """Return an argument as NumPy converts it, to this dtype or one that NumPy chooses; masks are dropped."""
    try:
        return np.asarray(given, dtype)
    except ValueError as error:  # ragged nested sequences
        raise ValueError(f"{name}: cannot be made an array: {error}") from None
    except (TypeError, RuntimeError) as error:  # another library's array that refuses
        raise TypeError(f"{name}: cannot be made an array: {refusal(str(error), given)}") from None


def as_array(name: str, given: Any) -> Array:
    """Return an argument as a plain array of any dtype.

    Masked entries are refused. Missing values of data frames become NaN, which is refused wherever NaN is.
    """
    if type(given) is np.ndarray:
        return given
    refuse_masks(name, given)
    return _plain_array(name, given)


def _plain_array(name: str, given: Any) -> Array:
    """Return an argument without masked entries as a plain array: in place where another library's lies in memory."""
    if type(given) in PLAIN or isinstance(given, (list, tuple)):
        return as_ndarray(name, given)
    numbers = read_rows(given) if is_read_by_blocks(given) else from_arrow(name, given)
    if numbers is not None:
        return numbers
    a = as_ndarray(name, _only_column(given))
    if a.dtype == object and hasattr(given, "to_numpy") and hasattr(given, "isna"):
        numbers = _frame_numbers(given)
    elif a.dtype == object and has_interface(given):
        numbers = from_interface(name, given)
    return a if numbers is None else numbers


def _only_column(given: Any) -> Any:
    """Return the only column of a data frame of polars, if that holds rows, which NumPy reads; else the argument."""
    polars = sys.modules.get("polars")
    if polars is None or not isinstance(given, polars.DataFrame) or given.width != 1:
        return given
    return given.to_series() if isinstance(given.dtypes[0], polars.Array) else given


def is_made_of(given: Any, a: Array) -> bool:
    """Return whether an array was read from chunks or files of the argument, so that nobody else has it."""
    return a.flags.owndata and (is_read_by_blocks(given) or is_arrow(given))


def axes_of(given: Any) -> int | None:
    """Return how many axes an argument has as an array, or None if it cannot be converted."""
    try:
        return np.ndim(given)
    except (ValueError, TypeError, RuntimeError):
        return None


def as_numbers(name: str, array: ArrayLike) -> Array:
    """Return an array of real numbers: float16 to float64, integers that float64 holds exactly, or booleans."""
    if type(array) is np.ndarray and array.dtype in FLOATS:
        return array
    if isinstance(array, (str, bytes, PathLike)):
        raise TypeError(
            f"{name}: must be real numbers, got {short(array)}; numpy.load(path, mmap_mode='r') maps a file's"
        )
    return _checked_real(name, as_array(name, array))


def _way_to_numbers(a: Array) -> str:
    """Return how an array of objects, as a data frame with columns of text becomes one, is made one of numbers."""
    first = next(a.flat, None)
    if isinstance(first, (list, tuple, np.ndarray)):
        return "np.stack(column) makes an array of a column of lists"
    if any(isinstance(entry, str) for entry in a.flat[: a.shape[-1] if a.ndim else 1]):
        return "leave out text, as with select_dtypes('number') of a data frame"
    return "convert it, as with astype(float)"


def _checked_real(name: str, a: Array) -> Array:
    """Return the array itself; raise unless it has real numbers that float64 holds."""
    if a.dtype.kind not in "fiub" or a.dtype.itemsize > 8:
        hint = f"; {_way_to_numbers(a)}" if a.dtype == object else ""
        raise TypeError(f"{name}: must be real numbers of at most 64 bits, got dtype {a.dtype}{hint}")
    return a if a.dtype in FLOATS else as_exact(name, a, FLOAT64)


def as_filled(name: str, array: ArrayLike, fill: float) -> Array:
    """Return an array of real numbers as `as_numbers` does, with a number in the place of masked entries."""
    if type(array) is np.ndarray:
        return as_numbers(name, array)
    if not has_masked_entries(array):
        return _checked_real(name, _plain_array(name, array))
    try:
        given = _as_masked(array)
    except ValueError as error:
        raise ValueError(f"{name}: cannot be made an array: {error}") from None
    unmasked = given.filled(0) if given.dtype.kind in "fiu" else given.data  # masked entries are replaced below
    numbers = as_numbers(name, unmasked)
    numbers = numbers.astype(np.result_type(np.float32, numbers.dtype))
    numbers[np.ma.getmaskarray(given)] = fill
    return numbers


def ignoring_float_errors() -> np.errstate:
    """Return a context, and decorator, in which no arithmetic is trapped, whatever the caller's `numpy.seterr` says.

    Underflow is harmless here, and infinities and NaN that matter are found by checks of their own.
    """
    return np.errstate(all="ignore")


def contiguous(a: Array, dtype: Any = None) -> Array:
    """Return the same numbers C-contiguous and aligned, in this dtype or their own; copies only what is not.

    Large copies are made in chunks, so that Ctrl-C is heard.
    """
    if (dtype is None or a.dtype == dtype) and (a.flags.carray or (a.flags.c_contiguous and a.flags.aligned)):
        return a
    to = a.dtype if dtype is None else np.dtype(dtype)
    with ignoring_float_errors():  # numbers too small become 0, and infinities are found where they matter
        return as_contiguous(a, to)


def as_integers(name: str, given: ArrayLike) -> NDArray[np.int64]:
    """Return an array of whole numbers; an empty one of any dtype will do."""
    a = as_array(name, given)
    if a.size and a.dtype.kind not in "iu":
        raise TypeError(f"{name}: must be whole numbers, got dtype {a.dtype}")
    if a.dtype == np.uint64 and (a >= 2**63).any():
        raise OverflowError(f"{name}: at most 2**63 - 1, got {a.max()}")
    return a.astype(np.int64, copy=False)


def as_offsets(offsets: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Return the offsets of bags of so many rows in all, (B + 1,), checked and copied."""
    o = as_integers("offsets", offsets).copy()  # which nobody changes after the check
    if o.ndim != 1 or len(o) == 0 or o[0] != 0 or o[-1] != rows or (o[1:] < o[:-1]).any():
        raise ValueError(
            f"offsets: must rise from 0 to the number of rows, {rows}, one more than there are bags; got "
            f"{short(o, quote=False)}"
        )
    return o


def as_float_dtype(dtype: Any) -> np.dtype[Any]:
    """Check that a dtype is float32 or float64, and return it."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        found = None
    if found not in (np.float32, np.float64):
        raise TypeError(f"dtype: must be float32 or float64, got {short(dtype)}")
    return found


def as_image_shape(shape: Any, d: int) -> tuple[int, ...]:
    """Return the shape of images of d numbers as a tuple, checked."""
    sides = as_integers("shape", shape)
    image = image_shape_of(tuple(sides.tolist())) if sides.ndim == 1 and (sides > 0).all() else None
    if image is None or prod(image) != d:
        raise ValueError(
            f"shape: must be (height, width), (3, height, width) or (height, width, 3) of {d} features in all, got "
            f"{short(shape)}"
        )
    return image


def image_shape_of(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of an image that can be drawn: (height, width), or 3 of these first or last; None of others."""
    if len(shape) == 3 and 1 in (shape[0], shape[-1]):  # of one channel
        return shape[1:] if shape[0] == 1 else shape[:-1]
    return shape if len(shape) == 2 or (len(shape) == 3 and 3 in (shape[0], shape[-1])) else None


def as_pattern_shape(shape: Any) -> tuple[int, ...] | None:
    """Return the shape of one pattern as a tuple of at least one side, or None."""
    if shape is None:
        return None
    sides = as_integers("pattern_shape", shape)
    if sides.ndim != 1 or len(sides) == 0 or (sides < 1).any():
        raise ValueError(f"pattern_shape: must list at least one side, all of at least 1, got {short(shape)}")
    return tuple(sides.tolist())


def as_flat(name: str, array: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return an array whose last axes are `shape` with one axis in their place; one that ends in as many numbers stays.

    A view, where the numbers lie so that there can be one.
    """
    a, d = as_numbers(name, array), prod(shape)
    if a.shape[-len(shape) :] == shape:
        leading = a.shape[: a.ndim - len(shape)]
        is_view = a.size == 0 or a[(0,) * len(leading)].flags.c_contiguous
        return (a if is_view else contiguous(a)).reshape(*leading, d)
    if a.ndim == 0 or a.shape[-1] != d:
        raise ValueError(
            f"{name}: the last axes must be those of a pattern, {shape}, or the last one its {d} numbers, got shape "
            f"{a.shape}"
        )
    return a


def compute_dtype(*arrays: Array | None) -> np.dtype[Any]:
    """Choose the dtype that some arrays are computed in, all of whose numbers it holds exactly.

    float64 if any has floats of 64 bits or integers of more than 16; else float32. By dtypes alone, so that numbers
    never decide what comes out; `as_exact` refuses the integers that even float64 would round.
    """
    for a in arrays:
        if a is not None and a.dtype.itemsize > (4 if a.dtype.kind == "f" else 2):
            return FLOAT64
    return FLOAT32


def as_exact(name: str, a: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array itself, unless it has integers that float32 or float64 would round: ValueError then."""
    single = dtype.itemsize == 4
    if a.dtype.kind not in "iu" or a.dtype.itemsize <= (2 if single else 4):
        return a
    most = 2**24 if single else 2**53
    if a.ndim == 0:
        exact = -most <= int(a) <= most
    else:
        parts = (a[part] for part in chunks(len(a), a.nbytes // len(a))) if a.size else ()
        exact = all(
            -most <= int(np.minimum.reduce(part, axis=None)) and int(np.maximum.reduce(part, axis=None)) <= most
            for part in parts
        )
    if not exact:
        raise ValueError(
            f"{name}: has integers beyond 2**{24 if single else 53}, which {dtype} would round; "
            + ("use float64, or " if single else "")
            + "make them floats yourself if rounding is meant"
        )
    return a


def as_rows(a: Array, dtype: np.dtype[Any]) -> Array:
    """Return the rows in a layout that the core reads in place: of the compute dtype or narrow, each row contiguous.

    Copies only what is laid out or typed otherwise.
    """
    stored = np.dtype(a.dtype.type) if a.dtype.type in NARROW else dtype
    size, d = stored.itemsize, a.shape[1]
    step = a.strides[0]
    in_place = (
        a.dtype == stored
        and a.dtype.isnative
        and a.flags.aligned
        and (d == 1 or a.strides[1] == size)
        and (len(a) == 1 or (step % size == 0 and d <= step // size <= INT_MAX))
    )
    return a if in_place else contiguous(a, stored)


def as_widened_rows(a: Array, dtype: np.dtype[Any]) -> Array:
    """Return the rows as `as_rows` does, but float32 ones as they are where the core widens them to float64."""
    return as_rows(a, dtype if dtype == FLOAT32 else compute_dtype(a))


def as_patterns(name: str, array: ArrayLike) -> Array:
    """Return a two-dimensional array of at least one row and one column."""
    a = as_numbers(name, array)
    if a.ndim != 2:
        text = f"{name}: must be two-dimensional, one row a pattern, got shape {a.shape}"
        if name == "patterns" and a.ndim > 2:
            text += f"; flatten them by reshape({len(a)}, -1), or give a HopfieldMemory pattern_shape={a.shape[1:]}"
        raise ValueError(text)
    if a.shape[0] == 0 or a.shape[1] == 0:
        raise ValueError(f"{name}: needs at least one row and one column, got shape {a.shape}")
    if a.shape[1] > INT_MAX:
        raise OverflowError(f"{name}: at most {INT_MAX} columns, got {a.shape[1]}")
    return a


def as_values(array: ArrayLike | None, n_patterns: int) -> Array | None:
    """Return one row of values per pattern, or None."""
    if array is None:
        return None
    a = as_patterns("values", array)
    if len(a) != n_patterns:
        raise ValueError(f"values: needs one row per pattern ({n_patterns}), got {len(a)}")
    return a


def as_more_rows(name: str, array: ArrayLike, stored: Array) -> Array:
    """Return rows to be stored beside others, in their dtype and with as many columns.

    To float32 and float64 floats are cast, as NumPy's assignment does it, and integers that stay what they are. Narrow
    dtypes take only what they hold exactly: wider numbers would lose most of their bits, and may be meant with the
    scale already in them.
    """
    a = as_patterns(name, array)
    if a.shape[1] != stored.shape[1]:
        raise ValueError(f"{name}: must have the {stored.shape[1]} columns of what is stored, got shape {a.shape}")
    kind, narrow = a.dtype.kind, stored.dtype.type in NARROW
    if narrow and kind == "f" and a.dtype.type is not stored.dtype.type:
        raise TypeError(f"{name}: {a.dtype} cannot be added to {stored.dtype} rows without loss; convert them yourself")
    if not narrow:
        as_exact(name, a, stored.dtype)
    rows = contiguous(a, stored.dtype)
    if narrow and kind != "f" and not np.array_equal(rows, a):
        raise ValueError(f"{name}: has numbers that {stored.dtype}, the dtype of what is stored, cannot hold")
    return rows


def as_positions(positions: Any, n: int) -> NDArray[np.int64]:
    """Return the positions of some of n rows, ascending and distinct, chosen as numpy.delete chooses them."""
    return np.unique(as_chosen(positions, n))


def as_chosen(positions: Any, n: int) -> NDArray[np.int64]:
    """Return the positions of some of n rows, in the order given: by a slice, a mask or numbers, as NumPy indexes."""
    if isinstance(positions, slice):
        try:
            chosen = range(*positions.indices(n))
        except (TypeError, ValueError) as error:
            raise type(error)(f"positions: {error}") from None
        return np.arange(chosen.start, chosen.stop, chosen.step)
    p = as_array("positions", positions)
    if p.ndim > 1:
        raise ValueError(f"positions: must be a whole number, a slice or one-dimensional, got shape {p.shape}")
    if p.dtype.kind == "b":
        if p.shape != (n,):
            raise ValueError(f"positions: a mask needs one entry per pattern, shape ({n},), got {p.shape}")
        return np.flatnonzero(p)
    if p.size == 0:
        return np.empty(0, np.int64)
    if p.dtype.kind not in "iu":
        raise TypeError(f"positions: must be whole numbers, a slice or a mask, got dtype {p.dtype}")
    if (outside := (p < -n) | (p >= n)).any():
        raise IndexError(f"positions: {p[outside].flat[0]} is out of range for {n} patterns")
    p = p.astype(np.int64).reshape(-1)
    return np.where(p < 0, p + n, p)


def as_ids(ids: ArrayLike, n: int) -> NDArray[np.int64]:
    """Return n distinct whole numbers, copied."""
    a = np.array(as_integers("ids", ids))
    if a.shape != (n,):
        raise ValueError(f"ids: needs one per pattern, shape ({n},), got {a.shape}")
    order = np.sort(a)
    if (same := order[1:] == order[:-1]).any():
        raise ValueError(f"ids: must be distinct, got {order[1:][same][0]} twice")
    return a


def as_scale(scale: Any, patterns: Array) -> float:
    """Return what stored uint8 and float16 numbers are multiplied with: a float32 number, 1 by default."""
    if scale is None:
        return 1.0
    if patterns.dtype.type not in NARROW:
        raise ValueError(f"scale: only uint8 and float16 patterns have one; multiply {patterns.dtype} patterns instead")
    x, numbers = as_number("scale", scale, least=0.0), np.finfo(np.float32)
    least, most = float(numbers.tiny), float(numbers.max)
    if not least <= x <= most:
        raise ValueError(f"scale: must be from {least:.3g} to {most:.3g}, got {scale}")
    return float(np.float32(x))


def as_queries(array: ArrayLike, d: int, shape: tuple[int, ...] | None = None) -> Array:
    """Return queries of d features along the last axis; `shape`: of a pattern, in which they may come instead."""
    a = as_numbers("queries", array) if shape is None else as_flat("queries", array, shape)
    if a.ndim == 0 or a.shape[-1] != d:
        raise ValueError(f"queries: the last axis must have the patterns' {d} features, got shape {a.shape}")
    return a


def as_positive_numbers(name: str, numbers: ArrayLike) -> NDArray[np.float64]:
    """Return float64 numbers, or one, that are positive and finite; a copy."""
    if type(numbers) is float and 0 < numbers < np.inf:  # the usual case, without a detour
        return np.array(numbers)
    a = as_numbers(name, numbers).astype(np.float64)
    valid = (a > 0) & (a < np.inf)
    if not valid.all():
        raise ValueError(f"{name}: must be positive and finite, got {a[~valid].flat[0]}")
    return a


def as_weights(sample_weight: ArrayLike) -> NDArray[np.float64]:
    """Return weights of rows, of any shape, as float64: finite and at least 0."""
    weight = as_numbers("sample_weight", sample_weight).astype(np.float64)
    wrong = weight[~((weight >= 0) & (weight < np.inf))]
    if wrong.size:
        raise ValueError(f"sample_weight: must be finite and at least 0, got {wrong[0]}")
    return weight


def as_beta(beta: ArrayLike, leading: tuple[int, ...]) -> NDArray[np.float64]:
    """Return beta as float64 of one number, or of one per query."""
    b = as_positive_numbers("beta", beta)
    if b.ndim == 0:
        return b.reshape(1)
    try:
        return np.ascontiguousarray(np.broadcast_to(b, leading)).reshape(-1)
    except ValueError:
        raise ValueError(f"beta: shape {b.shape} does not broadcast to the queries' leading axes {leading}") from None


def as_exclude(
    exclude: ArrayLike, leading: tuple[int, ...], n: int, *, may_leave_none: bool = False
) -> NDArray[np.int64]:
    """Return the position of one of n patterns for each query, or -1 for none, (N,); a copy.

    A query that would see no pattern is refused, unless it may.
    """
    e = as_integers("exclude", exclude)
    if (outside := (e < -1) | (e >= n)).any():
        raise ValueError(f"exclude: must be -1 or a position of {n} patterns, got {e[outside].flat[0]}")
    if n == 1 and not may_leave_none and (e == 0).any():
        raise ValueError("exclude: excludes the only pattern, so that the query would see none")
    try:
        return np.array(np.broadcast_to(e, leading), order="C").reshape(-1)
    except ValueError:
        raise ValueError(
            f"exclude: shape {e.shape} does not broadcast to the queries' leading axes {leading}"
        ) from None


def as_one_beta(beta: ArrayLike) -> float:
    """Return beta, which must be one number, as a float."""
    b = as_positive_numbers("beta", beta)
    if b.ndim:
        raise TypeError(f"beta: must be a number, got an array of shape {b.shape}")
    return float(b)


def as_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: tuple[Array | None, ...]) -> Array:
    """Return `out`, if a result of this shape and dtype can be written to it."""
    out = as_writeable("out", out, shape)
    if out.dtype != dtype:
        raise TypeError(f"out: must have the result's dtype {dtype}, got {out.dtype}")
    refuse_masks("out", out)
    for a in inputs:
        if a is not None and overlap(out, a):
            raise ValueError("out: overlaps an input in memory; give another array")
    return out


def as_writeable(name: str, a: Any, shape: tuple[int, ...] | None = None) -> Array:
    """Return an array that numbers can be written to, of this shape."""
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{name}: must be a NumPy array, got {type(a).__name__}")
    if a.flags.carray and shape is None:
        return a
    if shape is not None and a.shape != shape:
        raise ValueError(f"{name}: must have shape {shape}, got {a.shape}")
    if not a.flags.writeable:
        raise ValueError(f"{name}: is read-only")
    if overlaps_itself(a):
        raise ValueError(f"{name}: its elements overlap one another (strides {a.strides})")
    return a


def overlaps_itself(a: Array) -> bool:
    """Return whether elements of an array may share memory: an axis steps by less than those inside it span."""
    if a.size == 0 or a.flags.c_contiguous:
        return False
    extent = a.itemsize
    for step, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if step < extent:
            return True
        extent = step * n
    return False


def overlap(a: Array, b: Array) -> bool:
    """Return whether two arrays share memory; where that is hard to say, yes."""
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def as_flag(name: str, flag: Any) -> bool:
    """Return True or False, by Python's rules of truth."""
    try:
        return bool(flag)
    except (TypeError, ValueError):  # arrays of many, missing values
        raise TypeError(f"{name}: must be True or False, got {short(flag)}") from None


def as_state(name: str, state: Any) -> Mapping[str, Any]:
    """Return the argument; raise unless it is a mapping by names, as `state_dict` returns."""
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise TypeError(f"{name}: must be a mapping of names to arrays, got {type(state).__name__}")
    return state


def as_generator(name: str, seed: Any) -> np.random.Generator:
    """Return a generator of random numbers, given as such or by its seed."""
    if isinstance(seed, np.ndarray):
        if seed.size > 2**16:  # NumPy would mix all of them in, one by one
            raise TypeError(
                f"{name}: must be None, a whole number of at least 0 or a Generator, got {seed.size} numbers"
            )
        seed = np.asarray(as_array(name, seed))  # on a numpy.matrix NumPy would recurse until the process dies
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: must be None, a whole number of at least 0 or a Generator, got {short(seed)}"
        ) from None


def as_list(name: str, given: Any, what: str) -> list[Any]:
    """Return the items of an iterable; `what` says in errors what it must be."""
    try:
        return list(given)
    except (TypeError, NotImplementedError):  # some arrays that have no axis, or no rows, pass for iterable
        raise TypeError(f"{name}: must be {what}, got {short(given)}") from None


def as_whole(name: str, number: Any, least: int | None, most: int = 2**62) -> int:
    """Return a whole number of at least `least`, if that is not None, and at most `most`."""
    limit = "" if least is None else f" of at least {least}"
    if isinstance(number, bool):
        raise TypeError(f"{name}: must be a whole number{limit}, got {short(number)}")
    try:
        n = index(number)
    except (TypeError, RuntimeError):  # as of tensors without numbers
        raise TypeError(f"{name}: must be a whole number{limit}, got {short(number)}") from None
    if least is not None and n < least:
        raise ValueError(f"{name}: must be at least {least}, got {short(n)}")
    if n > most:
        raise ValueError(f"{name}: must be at most {most}, got {short(n)}")
    return n


def check_parameter(name: str, shape: tuple[int, ...], arguments: Mapping[str, Any]) -> None:
    """Raise if memory has no addresses for a parameter; the largest of the arguments that it is made from is named."""
    if prod(shape) <= MOST_NUMBERS:
        return
    sizes = {key: int(size) for key, size in arguments.items() if isinstance(size, (int, np.integer))}
    argument = max(sizes, key=sizes.__getitem__)
    raise ValueError(
        f"{argument}: {short(sizes[argument])} is too large: {name} would have {short(prod(shape))} numbers, more than "
        "memory has addresses for"
    )


def as_steps(update_steps_max: Any) -> int:
    """Return the most updates, checked; -1 for None and negative numbers, which are until every query has converged."""
    try:
        return -1 if update_steps_max is None else max(as_whole("update_steps_max", update_steps_max, None), -1)
    except TypeError:
        raise TypeError(f"update_steps_max: must be a whole number or None, got {short(update_steps_max)}") from None


def as_number(name: str, number: Any, *, least: float) -> float:
    """Return a finite number of at least `least`."""
    if type(number) is float and least <= number < np.inf:  # the usual case, without a detour
        return number + 0.0  # turns -0.0 into 0.0
    a = as_numbers(name, number)
    if a.ndim != 0:
        raise TypeError(f"{name}: must be a number, got an array of shape {a.shape}")
    x = float(a) + 0.0
    if not least <= x < np.inf:
        raise ValueError(f"{name}: must be a finite number of at least {least:g}, got {number}")
    return x
