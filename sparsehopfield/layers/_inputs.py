"""Inputs of a Hopfield layer as arrays, and the bags among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine.checks import Array, as_numbers, axes_of
from sparsehopfield._engine.text import short

__all__ = ["INPUTS", "Inputs", "as_arrays", "concatenate_bags"]

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
