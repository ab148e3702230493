"""Bags of instances in one form: all rows in one array, and the offset of each bag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sparsehopfield._engine.checks import Array, as_exact, as_list, as_ndarray, as_numbers, axes_of, contiguous
from sparsehopfield._engine.labels import as_labels


@dataclass(frozen=True)
class Bags:
    """Bags of one width.

    Attributes
    ----------
    rows : ndarray of shape (B, M, e) where all bags have M instances, else (R, e)
        Or a csr_array of shape (R, e), whatever the sizes.
    offsets : ndarray of shape (B + 1,), or None
        Where sizes differ, or rows are sparse: bag b has rows offsets[b] to offsets[b + 1].
    """

    rows: Any
    offsets: Array | None = None

    def __len__(self) -> int:
        return len(self.rows) if self.offsets is None else len(self.offsets) - 1

    @property
    def width(self) -> int:
        """Return the number of features of an instance."""
        return int(self.rows.shape[-1])

    @property
    def is_sparse(self) -> bool:
        """Return whether rows are sparse."""
        return sparse.issparse(self.rows)

    @property
    def sizes(self) -> Array:
        """Return the number of instances of each bag."""
        return np.full(len(self), self.rows.shape[1]) if self.offsets is None else np.diff(self.offsets)

    def take(self, positions: Array) -> Bags:
        """Return the bags at some positions, in their order."""
        if self.offsets is None:
            return Bags(self.rows[positions])
        sizes = self.sizes[positions]
        offsets = _offsets(sizes)
        shifts = self.offsets[positions] - offsets[:-1]
        return Bags(self.rows[np.arange(offsets[-1]) + np.repeat(shifts, sizes)], offsets)

    def parts(self, at_once: int) -> Iterator[Bags]:
        """Yield successive bags, up to `at_once` at a time, without copies of dense rows."""
        for first in range(0, len(self), at_once):
            if self.offsets is None:
                yield Bags(self.rows[first : first + at_once])
            else:
                offsets = self.offsets[first : first + at_once + 1]
                yield Bags(self.rows[offsets[0] : offsets[-1]], offsets - offsets[0])

    def with_rows(self, rows: Array) -> Bags:
        """Return bags of the same sizes with other rows."""
        return Bags(rows, self.offsets)


def _offsets(sizes: Any) -> Array:
    """Return the offsets, (B + 1,), of bags of these sizes."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def is_one_table(bags: Any) -> bool:
    """Return whether an argument is one array of rows or numbers, or a list of rows, and no list of bags."""
    if isinstance(bags, (list, tuple)):
        return len(bags) > 0 and axes_of(bags[0]) == 1 and not sparse.issparse(bags[0])
    if not hasattr(bags, "ndim"):
        return hasattr(bags, "__array__") and as_ndarray("bags", bags).ndim == 2
    return bags.ndim == 2 or (bags.ndim == 1 and isinstance(bags, np.ndarray) and bags.dtype != object)


def bags_of_one(rows: Array, dtype: Any) -> Bags:
    """Make a bag of each row (B, e) of numbers.

    Raises
    ------
    ValueError
        If some are infinite, or integers that the dtype would round.
    """
    return _checked_finite(Bags(contiguous(as_exact("bags", rows, np.dtype(dtype)), dtype)[:, None]))


def as_bags(bags: Any, bag_ids: Any, dtype: Any) -> Bags:
    """Make bags from any of their forms.

    Parameters
    ----------
    bags : list of array_like of shape (M_i, e), array_like of shape (B, M, e), or with ids array_like of shape (R, e)
        A tuple (X, bag_ids) is the same as the two arguments. The arrays of a list, or the one with ids, may be sparse
        ones of SciPy.
    bag_ids : array_like of shape (R,), or None
        What `as_labels` takes. Bags are ordered as `numpy.unique(bag_ids)`, their instances as they come.
    dtype : dtype
        Of the rows.

    Raises
    ------
    ValueError, TypeError
        If there are no bags, one is empty, they differ in width, have NaN or infinity, or the ids do not fit or are
        missing.
    """
    if bag_ids is None and isinstance(bags, tuple) and len(bags) == 2 and axes_of(bags[1]) == 1:
        bags, bag_ids = bags
    if bag_ids is not None:
        return _from_ids(bags, bag_ids, dtype)
    if sparse.issparse(bags) and bags.ndim != 3:
        raise ValueError(
            f"bags: must be a list of two-dimensional arrays, got a sparse array of shape {bags.shape}; instances of "
            "all bags in one array need bag_ids"
        )
    if isinstance(bags, np.ndarray) and bags.ndim == 3:
        rows = as_numbers("bags", bags.tolist() if bags.dtype == object else bags)
        if 0 in rows.shape:
            raise ValueError(f"bags: needs at least one bag, instance and feature, got shape {bags.shape}")
        return _checked_finite(Bags(contiguous(as_exact("bags", rows, np.dtype(dtype)), dtype)))
    if isinstance(bags, np.ndarray) and bags.dtype != object:
        raise ValueError(
            f"bags: must be a list of two-dimensional arrays or one array of shape (bags, instances, features), got "
            f"shape {bags.shape}; instances of all bags in one array need bag_ids"
        )
    items = as_list("bags", bags, "a list of two-dimensional arrays")
    named = {f"bags[{i}]": bag for i, bag in enumerate(items)}
    if any(sparse.issparse(bag) for bag in items):
        return _from_sparse(named, dtype)
    arrays = [as_exact(name, as_numbers(name, bag), np.dtype(dtype)) for name, bag in named.items()]
    if not arrays:
        raise ValueError("bags: needs at least one bag, got none")
    _check_shapes(arrays)
    sizes = [len(bag) for bag in arrays]
    if len(set(sizes)) == 1:
        return _checked_finite(Bags(contiguous(np.stack(arrays), dtype)))
    return _checked_finite(Bags(contiguous(np.concatenate(arrays), dtype), _offsets(sizes)))


def _check_shapes(arrays: list[Any]) -> None:
    """Raise unless all bags have two axes, instances, and the same features."""
    for i, bag in enumerate(arrays):
        if bag.ndim != 2 or 0 in bag.shape:
            raise ValueError(f"bags[{i}]: must have shape (instances, features), at least one of each, got {bag.shape}")
        if bag.shape[1] != arrays[0].shape[1]:
            raise ValueError(f"bags[{i}]: has {bag.shape[1]} features, but bags[0] has {arrays[0].shape[1]}")


def _from_sparse(named: dict[str, Any], dtype: Any) -> Bags:
    """Make bags from sparse ones; they stay so."""
    for name, bag in named.items():
        if not sparse.issparse(bag):
            raise TypeError(f"{name}: must be sparse where other bags are, got {type(bag).__name__}")
    arrays = [as_csr(name, bag, dtype) for name, bag in named.items()]
    _check_shapes(arrays)
    return _checked_finite(Bags(sparse.vstack(arrays, format="csr"), _offsets([bag.shape[0] for bag in arrays])))


def as_csr(name: str, rows: Any, dtype: Any) -> Any:
    """Return sparse rows as a csr_array of this dtype; what has it already is shared.

    Raises
    ------
    ValueError
        Naming the argument, if it is not two-dimensional, or an index is out of range.
    """
    if rows.ndim != 2:
        raise ValueError(f"{name}: must have shape (instances, features), got {rows.shape}")
    try:
        # a new array on the same memory: the check may cut off what lies behind the last entry
        shared = type(rows)(rows) if rows.format in ("csr", "csc", "bsr") else sparse.csr_array(rows)
        shared.check_format(full_check=True)  # before any conversion: that would follow the indices wherever they lead
        made = sparse.csr_array(shared)
    except ValueError as error:
        raise ValueError(f"{name}: is no valid sparse array ({error})") from error
    numbers = as_exact(name, as_numbers(name, made.data), np.dtype(dtype))
    if numbers.dtype == np.dtype(dtype):
        return made
    return sparse.csr_array((numbers.astype(dtype), made.indices, made.indptr), shape=made.shape)


def _from_ids(X: Any, bag_ids: Any, dtype: Any) -> Bags:
    """Make bags from all instances in one array and the bag of each."""
    if sparse.issparse(X):
        rows, ids = as_csr("bags", X, dtype), as_labels("bag_ids", bag_ids)
    else:
        rows, ids = as_exact("bags", as_numbers("bags", X), np.dtype(dtype)), as_labels("bag_ids", bag_ids)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"bags: with bag_ids it must have shape (instances, features), got {rows.shape}")
    if ids.shape != rows.shape[:1]:
        raise ValueError(f"bag_ids: must have shape ({rows.shape[0]},), one for each instance, got {ids.shape}")
    _, bag, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.argsort(bag, kind="stable")
    if sparse.issparse(rows):
        return _checked_finite(Bags(rows[order], _offsets(sizes)))
    rows = contiguous(rows, dtype)[order]
    if (sizes == sizes[0]).all():
        return _checked_finite(Bags(rows.reshape(len(sizes), sizes[0], -1)))
    return _checked_finite(Bags(rows, _offsets(sizes)))


def _checked_finite(bags: Bags) -> Bags:
    """Return the bags; raise if an instance has NaN or infinity."""
    if bags.is_sparse:
        finite = np.ones(bags.rows.shape[0], bool)
        wrong = np.flatnonzero(~np.isfinite(bags.rows.data))
        finite[np.searchsorted(bags.rows.indptr, wrong, "right") - 1] = False
    else:
        finite = np.isfinite(bags.rows).all(axis=-1)
    if not finite.all():
        first = np.argmin(finite)
        bag = first // finite.shape[1] if bags.offsets is None else np.searchsorted(bags.offsets, first, "right") - 1
        raise ValueError(f"bags: bag {bag} has NaN or numbers beyond {bags.rows.dtype}")
    return bags
