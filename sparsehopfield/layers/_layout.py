"""How the inputs of a Hopfield layer lie, from the shapes of arrays or tensors, and masks that fit them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sparsehopfield._engine.checks import Array, as_numbers, ignoring_float_errors
from sparsehopfield.layers._inputs import NAMES
from sparsehopfield.layers._spec import HopfieldSpec

__all__ = ["Layout", "as_masks", "check_mask", "check_padding", "check_shapes", "layout_of"]

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """Numbers of samples, queries and rows, and where the bags begin."""

    samples: int
    queries: int  # of a sample; where state patterns are ragged, of the largest
    rows: int | None  # of a sample; where bags are ragged, of the largest; None where a compiler does not know it
    offsets: Any  # (B + 1,), an array or a tensor; None: bags are not ragged
    ragged_state: bool  # the state patterns are the bags' rows


def check_shapes(
    spec: HopfieldSpec, shapes: tuple[Shape, Shape, Shape], *, state_is_stored: bool, are_ragged: bool
) -> None:
    """Raise ValueError unless the inputs' shapes fit the layer and one another.

    Parameters
    ----------
    spec : HopfieldSpec
    shapes : tuple of three
        Of stored patterns, state patterns and pattern projections.
    state_is_stored : bool
        Whether one object has both roles.
    are_ragged : bool
        Whether the stored patterns are the rows of ragged bags.
    """
    stored, state, projection = shapes
    for name, shape, role in zip(NAMES, shapes, (spec.key, spec.query, spec.value), strict=True):
        if len(shape) not in (2, 3):
            raise ValueError(f"{name}: must be (samples, patterns, features), got shape {shape}")
        if role.size is not None and shape[-1] != role.size:
            raise ValueError(f"{name}: must have {role.size} features, got shape {shape}")
    if not spec.key.projected and not spec.query.projected and stored[-1] != state[-1]:
        raise ValueError(
            f"state pattern: must have the {stored[-1]} features of the stored patterns, got shape {state}"
        )
    if are_ragged:
        if not spec.batch_first:
            raise ValueError("offsets: ragged bags need batch_first")
        if len(stored) != 2 or projection[:-1] != stored[:-1]:
            raise ValueError(
                "input: stored patterns and pattern projections of ragged bags must be (rows, features), got "
                f"{stored} and {projection}"
            )
    elif state_is_stored and len(stored) == 2:
        raise ValueError(f"input: must be (samples, patterns, features), got shape {stored}")
    elif projection[:-1] != stored[:-1]:
        raise ValueError(
            f"pattern projection: needs one row for each stored pattern, {stored[:-1]}, got {projection[:-1]}"
        )


def layout_of(
    spec: HopfieldSpec,
    shapes: tuple[Shape, Shape, Shape],
    *,
    state_is_stored: bool,
    offsets: Any = None,
    largest: int | None = None,
) -> Layout:
    """Return the layout of inputs whose shapes `check_shapes` has passed.

    Parameters
    ----------
    spec, shapes, state_is_stored
        As of `check_shapes`.
    offsets : ndarray or Tensor of int, shape (B + 1,), optional
        Where ragged bags begin.
    largest : int, optional
        Rows of the largest of them.
    """
    stored, state, _ = shapes
    axis = 0 if spec.batch_first else 1
    if offsets is not None:
        samples, rows = len(offsets) - 1, largest
    else:
        samples = stored[axis] if len(stored) == 3 else state[axis] if len(state) == 3 else 1
        rows = stored[1 - axis] if len(stored) == 3 else stored[0]
    if len(state) == 3 and state[axis] != samples:
        raise ValueError(f"state pattern: needs {samples} samples, got shape {state}")
    if offsets is not None and state_is_stored:
        assert rows is not None
        return Layout(samples, rows, rows, offsets, True)
    return Layout(samples, state[1 - axis] if len(state) == 3 else state[0], rows, offsets, False)


def check_padding(layout: Layout, shape: Shape, dtype: Any, is_whole: bool) -> None:
    """Raise ValueError unless a padding has this layout's shape, (B, M), and is of bool or integers (`is_whole`)."""
    if layout.offsets is not None:
        raise ValueError("stored_pattern_padding_mask: ragged bags have no padding; leave the rows out")
    fits = layout.samples, layout.rows
    if not is_whole or shape != fits:
        raise ValueError(f"stored_pattern_padding_mask: must be bool of shape {fits}, got {dtype} of shape {shape}")


def check_mask(layout: Layout, heads: int, shape: Shape) -> None:
    """Raise ValueError unless a mask has a shape for this layout: (N, M), (B, N, M), (B, H, N, M), (B * H, N, M)."""
    samples = layout.samples
    pairs = (layout.queries, shape[-1] if layout.rows is None and shape else layout.rows)
    fits = [pairs, (samples, *pairs), (samples, heads, *pairs), (samples * heads, *pairs)]
    if shape not in fits:
        raise ValueError(f"association_mask: must have one of the shapes {fits}, got {shape}")


def as_masks(
    padding: Any, mask: Any, layout: Layout, heads: int, appended: int, dtype: np.dtype[Any]
) -> tuple[Array | None, Array | None]:
    """Return copies of the masks as arrays, checked, with a column without effect for each row that will be appended:
    the padding (B, M) of bool, the mask (B, H, N, M) of bool or `dtype`, broadcast.
    """
    samples = layout.samples
    if padding is not None:
        padding = as_numbers("stored_pattern_padding_mask", padding)
        check_padding(layout, padding.shape, padding.dtype, padding.dtype.kind in "biu")
        padding = np.array(padding, np.bool_, order="C")
        if appended:
            padding = np.pad(padding, ((0, 0), (0, appended)))
    if mask is not None:
        mask = as_numbers("association_mask", mask)
        check_mask(layout, heads, mask.shape)
        with ignoring_float_errors():
            mask = np.array(mask, dtype if mask.dtype.kind == "f" else np.bool_, order="C")
        if mask.dtype.kind == "f" and not (mask < np.inf).all():
            raise ValueError("association_mask: must be numbers below infinity")
        if mask.ndim == 3:
            mask = mask[:, None] if len(mask) == samples else mask.reshape(samples, heads, *mask.shape[1:])
        if appended:
            mask = np.pad(mask, ((0, 0),) * (mask.ndim - 1) + ((0, appended),))
            if layout.offsets is not None:  # a bag's appended rows are right behind its own
                mask = np.repeat(mask[None, None], samples, axis=0) if mask.ndim == 2 else mask
                for b, size in enumerate(np.diff(layout.offsets)):
                    mask[b, ..., size : size + appended] = 0
        mask = np.broadcast_to(mask, (samples, heads, *mask.shape[-2:]))
    return padding, mask
