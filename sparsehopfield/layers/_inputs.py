"""Inputs of a Hopfield layer: bags and masks, brought into one layout and checked against one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine.checks import Array, as_numbers, as_offsets, axes_of, ignoring_float_errors
from sparsehopfield._engine.text import short

__all__ = ["INPUTS", "Inputs", "Layout", "as_arrays", "check_masks", "concatenate_bags", "layout_of"]

Inputs = tuple[Array, Array, Array]  # stored pattern, state pattern, pattern projection
INPUTS = ("stored_pattern", "state_pattern", "pattern_projection")
NAMES = tuple(name.replace("_", " ") for name in INPUTS)
RAGGED_STATE = "ragged bags of it must be the very list of the stored patterns; else give (samples, patterns, features)"


def concatenate_bags(name: str, bags: list[ArrayLike], offsets: Any = None) -> tuple[Array, Array]:
    """Concatenate the rows of a list of bags (M_i, e); return them and the offset of each bag."""
    if offsets is not None:
        raise ValueError("offsets: a list of bags has its own; give one of the two")
    arrays = [as_numbers(f"{name}[{i}]", bag) for i, bag in enumerate(bags)]
    if not arrays or any(a.ndim != 2 or a.shape[1] != arrays[0].shape[1] for a in arrays):
        raise ValueError(
            f"{name}: a list must hold one array (rows, features) a bag, got {short([a.shape for a in arrays])}"
        )
    return np.concatenate(arrays), np.cumsum([0, *map(len, arrays)])


class Layout(NamedTuple):
    """Numbers of samples, queries and rows, and where the bags begin."""

    samples: int
    queries: int  # of a sample; where state patterns are ragged, of the largest
    rows: int  # of a sample; where bags are ragged, of the largest
    per_bag: float  # rows that a query attends to, on average
    offsets: Array | None  # None: bags are not ragged
    ragged_state: bool  # the state patterns are the bags' rows


def as_arrays(
    input: Any, offsets: Any, cast: Callable[[str, Any], Array], cast_kept: Callable[[str, Any], Array] | None = None
) -> tuple[Inputs, Any, bool]:
    """Return the three inputs as arrays, the offsets, and whether a tuple was given.

    An object in several roles stays one array. `cast_kept` applies to arrays that the backward pass keeps; rows of a
    list of bags are copied anyway.
    """
    cast_kept = cast if cast_kept is None else cast_kept
    from_tuple = isinstance(input, tuple)
    if from_tuple and len(input) != 3:
        raise ValueError(
            f"input: must be one array or a tuple (stored pattern, state pattern, pattern projection), got {len(input)}"
        )
    named = tuple(zip(NAMES, input, strict=True)) if from_tuple else (("input", input),) * 3
    made: dict[int, Array] = {}
    found = None
    for i, (name, x) in enumerate(named):
        if id(x) in made:
            continue
        if isinstance(x, list) and x and axes_of(x[0]) == 2:
            if i == 1:
                raise ValueError(f"{name}: {RAGGED_STATE}")
            x_flat, o = concatenate_bags(name, x, offsets)
            if found is not None and not np.array_equal(found, o):
                raise ValueError(f"{name}: bags must have the sizes of the stored patterns' bags")
            found, made[id(x)] = o, cast(name, x_flat)
        else:
            made[id(x)] = cast_kept(name, x)
    stored, state, projection = (made[id(x)] for _, x in named)
    return (stored, state, projection), offsets if found is None else found, from_tuple


def layout_of(inputs: Inputs, offsets: Any, sizes: tuple[int | None, int | None, int | None], *, first: bool) -> Layout:
    """Check the inputs' shapes against one another.

    Parameters
    ----------
    inputs : tuple of three ndarrays
    offsets : array_like or None
    sizes : tuple of three
        The features that each input must have; None where any will do.
    first : bool
        Whether samples are the first axis, or the second.
    """
    stored, state, projection = inputs
    for name, x, size in zip(NAMES, inputs, sizes, strict=True):
        if x.ndim not in (2, 3):
            raise ValueError(f"{name}: must be (samples, patterns, features), got shape {x.shape}")
        if size is not None and x.shape[-1] != size:
            raise ValueError(f"{name}: must have {size} features, got shape {x.shape}")
    axis = 0 if first else 1
    if offsets is not None:
        if not first:
            raise ValueError("offsets: ragged bags need batch_first")
        offsets = as_offsets(offsets, len(stored))
        if stored.ndim != 2 or projection.shape[:-1] != stored.shape[:-1]:
            raise ValueError(
                "input: stored patterns and pattern projections of ragged bags must be (rows, features), got "
                f"{stored.shape} and {projection.shape}"
            )
        samples, rows = len(offsets) - 1, int((offsets[1:] - offsets[:-1]).max(initial=0))
        per_bag = len(stored) / max(samples, 1)
    else:
        if stored is state and stored.ndim == 2:
            raise ValueError(f"input: must be (samples, patterns, features), got shape {stored.shape}")
        if stored.ndim != projection.ndim or stored.shape[:-1] != projection.shape[:-1]:
            raise ValueError(
                f"pattern projection: needs one row for each stored pattern, {stored.shape[:-1]}, got "
                f"{projection.shape[:-1]}"
            )
        samples = stored.shape[axis] if stored.ndim == 3 else state.shape[axis] if state.ndim == 3 else 1
        per_bag = rows = stored.shape[1 - axis] if stored.ndim == 3 else len(stored)
    if state.ndim == 3 and state.shape[axis] != samples:
        raise ValueError(f"state pattern: needs {samples} samples, got shape {state.shape}")
    ragged_state = offsets is not None and state is stored
    queries = rows if ragged_state else state.shape[1 - axis] if state.ndim == 3 else len(state)
    return Layout(samples, queries, rows, per_bag, offsets, ragged_state)


def check_masks(
    padding: Any, mask: Any, layout: Layout, heads: int, appended: int, dtype: np.dtype[Any]
) -> tuple[Array | None, Array | None]:
    """Return copies of the masks, checked, with a column without effect for each row that will be appended: the padding
    (B, M) of bool, the mask (B, H, N, M) of bool or `dtype`, broadcast.
    """
    samples, queries, rows = layout[:3]
    if padding is not None:
        if layout.offsets is not None:
            raise ValueError("stored_pattern_padding_mask: ragged bags have no padding; leave the rows out")
        padding = as_numbers("stored_pattern_padding_mask", padding)
        if padding.dtype.kind not in "biu" or padding.shape != (samples, rows):
            raise ValueError(
                f"stored_pattern_padding_mask: must be bool of shape {(samples, rows)}, got {padding.dtype} of shape "
                f"{padding.shape}"
            )
        padding = np.array(padding, np.bool_, order="C")
        if appended:
            padding = np.pad(padding, ((0, 0), (0, appended)))
    if mask is not None:
        mask = as_numbers("association_mask", mask)
        pairs = (queries, rows)
        fits = [pairs, (samples, *pairs), (samples, heads, *pairs), (samples * heads, *pairs)]
        if mask.shape not in fits:
            raise ValueError(f"association_mask: must have one of the shapes {fits}, got {mask.shape}")
        with ignoring_float_errors():
            mask = np.array(mask, dtype if mask.dtype.kind == "f" else np.bool_, order="C")
        if mask.dtype.kind == "f" and not (mask < np.inf).all():
            raise ValueError("association_mask: must be numbers below infinity")
        if mask.ndim == 3:
            mask = mask[:, None] if len(mask) == samples else mask.reshape(samples, heads, *pairs)
        if appended:
            mask = np.pad(mask, ((0, 0),) * (mask.ndim - 1) + ((0, appended),))
            if layout.offsets is not None:  # a bag's appended rows are right behind its own
                mask = np.repeat(mask[None, None], samples, axis=0) if mask.ndim == 2 else mask
                for b, size in enumerate(np.diff(layout.offsets)):
                    mask[b, ..., size : size + appended] = 0
        mask = np.broadcast_to(mask, (samples, heads, queries, rows + appended))
    return padding, mask
