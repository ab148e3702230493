"""What comes in is checked here, once: kinds, shapes, dtypes, beta, out. Every message begins with the argument."""

from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

INT_MAX = 2**31 - 1
Array = NDArray[Any]
NARROW = (np.uint8, np.float16)  # kept as they are, and widened by the core where they are used


def as_numbers(name: str, array: ArrayLike) -> Array:
    """An array of real numbers: float16 to float64, integers or booleans."""
    try:
        a = np.asarray(array)
    except ValueError as error:  # ragged nested sequences
        raise ValueError(f"{name}: cannot be made an array: {error}") from None
    if a.dtype.kind not in "fiub" or a.dtype.itemsize > 8:
        raise TypeError(f"{name}: must be real numbers of at most 64 bits, got dtype {a.dtype}")
    return a


def compute_dtype(*arrays: Array | None) -> np.dtype[Any]:
    """float64 if any array is, else float32: float16 and integers count as float32."""
    wide = any(a is not None and a.dtype.kind == "f" and a.dtype.itemsize == 8 for a in arrays)
    return np.dtype(np.float64 if wide else np.float32)


def as_rows(a: Array, dtype: np.dtype[Any]) -> Array:
    """The same rows in a layout that the core reads in place: of the compute dtype or narrow, each row contiguous.

    Copies only what is laid out or typed otherwise.
    """
    kept = np.dtype(a.dtype.type) if a.dtype.type in NARROW else dtype
    size, d = kept.itemsize, a.shape[1]
    step = a.strides[0]
    in_place = (
        a.dtype == kept
        and a.dtype.isnative
        and a.flags.aligned
        and (d == 1 or a.strides[1] == size)
        and (len(a) == 1 or (step % size == 0 and d <= step // size <= INT_MAX))
    )
    return a if in_place else np.ascontiguousarray(a, dtype=kept)


def as_patterns(name: str, array: ArrayLike) -> Array:
    """A two-dimensional array of at least one row and one column."""
    a = as_numbers(name, array)
    if a.ndim != 2:
        raise ValueError(f"{name}: must be two-dimensional, one row a pattern, got shape {a.shape}")
    if a.shape[0] == 0 or a.shape[1] == 0:
        raise ValueError(f"{name}: needs at least one row and one column, got shape {a.shape}")
    if a.shape[1] > INT_MAX:
        raise OverflowError(f"{name}: at most {INT_MAX} columns, got {a.shape[1]}")
    return a


def as_values(array: ArrayLike | None, n_patterns: int) -> Array | None:
    """One row of values per pattern, or None."""
    if array is None:
        return None
    a = as_patterns("values", array)
    if len(a) != n_patterns:
        raise ValueError(f"values: needs one row per pattern ({n_patterns}), got {len(a)}")
    return a


def as_more(name: str, array: ArrayLike, stored: Array) -> Array:
    """Rows to be stored beside others, of the same width and dtype.

    To float32 and float64 all numbers are cast, as NumPy's assignment does it. Narrow dtypes take only what they hold
    exactly: wider numbers would lose most of their bits, and may be meant with the scale already in them.
    """
    a = as_patterns(name, array)
    if a.shape[1] != stored.shape[1]:
        raise ValueError(f"{name}: must have the {stored.shape[1]} columns of what is stored, got shape {a.shape}")
    kind, narrow = a.dtype.kind, stored.dtype.type in NARROW
    if narrow and kind == "f" and a.dtype.type is not stored.dtype.type:
        raise TypeError(f"{name}: {a.dtype} cannot be added to {stored.dtype} rows without loss; convert them yourself")
    with np.errstate(over="ignore"):  # infinities are found by the core, with their row
        rows = np.ascontiguousarray(a, dtype=stored.dtype)
    if narrow and kind != "f" and not np.array_equal(rows, a):
        raise ValueError(f"{name}: has numbers that {stored.dtype}, the dtype of what is stored, cannot hold")
    return rows


def as_kept(positions: Any, n: int) -> NDArray[np.bool_]:
    """What is left of n rows without these, chosen as numpy.delete does: True for every row that stays."""
    kept = np.ones(n, np.bool_)
    if isinstance(positions, slice):
        kept[positions] = False
        return kept
    p = np.asarray(positions)
    if p.ndim > 1:
        raise ValueError(f"positions: must be a whole number, a slice or one-dimensional, got shape {p.shape}")
    if p.dtype.kind == "b":
        if p.shape != (n,):
            raise ValueError(f"positions: a mask needs one entry per pattern, shape ({n},), got {p.shape}")
    elif p.size == 0:
        return kept
    elif p.dtype.kind not in "iu":
        raise TypeError(f"positions: must be whole numbers, a slice or a mask, got dtype {p.dtype}")
    elif (outside := (p < -n) | (p >= n)).any():
        raise IndexError(f"positions: {p[outside].flat[0]} is out of range for {n} patterns")
    kept[p] = False
    return kept


def as_ids(ids: ArrayLike, n: int) -> NDArray[np.int64]:
    """n distinct whole numbers, copied."""
    a = np.asarray(ids)
    if a.dtype.kind not in "iu":
        raise TypeError(f"ids: must be whole numbers, got dtype {a.dtype}")
    if a.shape != (n,):
        raise ValueError(f"ids: needs one per pattern, shape ({n},), got {a.shape}")
    if a.dtype == np.uint64 and (a >= 2**63).any():
        raise OverflowError(f"ids: at most 2**63 - 1, got {a.max()}")
    a = a.astype(np.int64)
    order = np.sort(a)
    if (same := order[1:] == order[:-1]).any():
        raise ValueError(f"ids: must be distinct, got {order[1:][same][0]} twice")
    return a


def as_scale(scale: Any, patterns: Array) -> float:
    """What a stored number is to be multiplied with: a float32 number, 1 by default."""
    if scale is None:
        return 1.0
    if patterns.dtype.type not in NARROW:
        raise ValueError(f"scale: only uint8 and float16 patterns have one; multiply {patterns.dtype} patterns instead")
    x, numbers = as_number("scale", scale, least=0.0), np.finfo(np.float32)
    least, most = float(numbers.tiny), float(numbers.max)
    if not least <= x <= most:
        raise ValueError(f"scale: must be from {least:.3g} to {most:.3g}, got {scale}")
    return float(np.float32(x))


def as_queries(array: ArrayLike, d: int) -> Array:
    """Queries of d features along the last axis."""
    a = as_numbers("queries", array)
    if a.ndim == 0 or a.shape[-1] != d:
        raise ValueError(f"queries: the last axis must have the patterns' {d} features, got shape {a.shape}")
    return a


def as_beta(beta: ArrayLike, leading: tuple[int, ...]) -> NDArray[np.float64]:
    """beta as float64 of one number, or of one per query."""
    b = as_numbers("beta", beta).astype(np.float64)
    sound = (b > 0) & (b < np.inf)
    if not sound.all():
        raise ValueError(f"beta: must be positive and finite, got {b[~sound].flat[0]}")
    if b.ndim == 0:
        return b.reshape(1)
    try:
        return np.ascontiguousarray(np.broadcast_to(b, leading)).reshape(-1)
    except ValueError:
        raise ValueError(f"beta: shape {b.shape} does not broadcast to the queries' leading axes {leading}") from None


def as_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: tuple[Array | None, ...]) -> Array | None:
    """`out`, if it can take the result."""
    if out is None:
        return None
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: must be a NumPy array, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"out: must have the result's dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out: must have the result's shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: is read-only")
    if folded(out):
        raise ValueError(f"out: its elements overlap one another (strides {out.strides})")
    for a in inputs:
        if a is not None and overlap(out, a):
            raise ValueError("out: overlaps an input in memory; give another array")
    return out


def folded(a: Array) -> bool:
    """Whether elements of an array may share memory: an axis steps within the extent of those inside it."""
    if a.size == 0:
        return False
    extent = a.itemsize
    for step, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if step < extent:
            return True
        extent = step * n
    return False


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share memory; where that is hard to say, yes."""
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def as_whole(name: str, number: Any, least: int) -> int:
    """A whole number of at least `least`."""
    if isinstance(number, bool):
        raise TypeError(f"{name}: must be a whole number of at least {least}, got {number!r}")
    try:
        n = index(number)
    except TypeError:
        raise TypeError(f"{name}: must be a whole number of at least {least}, got {number!r}") from None
    if n < least or n > 2**62:
        raise ValueError(f"{name}: must be at least {least}, got {number}")
    return n


def as_number(name: str, number: Any, *, least: float) -> float:
    """A finite number of at least `least`."""
    a = as_numbers(name, number)
    if a.ndim != 0:
        raise TypeError(f"{name}: must be a number, got an array of shape {a.shape}")
    x = float(a)
    if not least <= x < np.inf:
        raise ValueError(f"{name}: must be a finite number of at least {least:g}, got {number}")
    return x
