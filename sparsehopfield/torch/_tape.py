"""Tapes, what a forward pass leaves for its backward pass, that travel as tensors.

The tensor is one byte of 0, and its *storage* owns the tape: whoever keeps the tensor for the backward pass (autograd,
a checkpoint, a compiled graph) keeps the tape, and lets it go with the tensor. A tape is found by where the byte lies.
A copy (hooks that offload, pickles, another device) lies elsewhere: nothing is found for it, and the backward pass
makes the forward pass again. It never finds a wrong tape, as no two living bytes lie at one place. All bytes are 0, so
that two calls have equal results, which torch.library.opcheck asks for.

A tape reads some of the tensors that it was made from in place. A compiler may compute such a tensor anew for the
backward pass, and give the memory of the first to something else; so a tape is found only if these tensors lie where
they lay. What then lies there is what the backward pass was given.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["alive", "empty", "find", "keep"]


class _Keeper(np.ndarray[Any, Any]):
    """The byte, and the tape beside it."""

    tape: Any
    read: tuple[bool, ...]  # which of the tensors the tape reads in place
    places: list[Any]


_keepers: weakref.WeakValueDictionary[int, _Keeper] = weakref.WeakValueDictionary()


def _places(tensors: Iterable[Tensor | None], read: tuple[bool, ...]) -> list[Any]:
    """Return where the tensors that are read in place lie, and how."""
    return [(t.data_ptr(), t.shape, t.stride()) for t in compress(tensors, read) if t is not None]


def _essential(place: Any) -> Any:
    """Return a place without the strides of axes of size 1, which a compiler may set to anything."""
    at, shape, strides = place
    return at, shape, [stride for stride, size in zip(strides, shape, strict=True) if size != 1]


def empty() -> Tensor:
    """Return a tensor for which there is no tape."""
    return torch.zeros(1, dtype=torch.uint8, device="cpu")


def keep(tape: Any, tensors: Iterable[Tensor | None], read: tuple[bool, ...]) -> Tensor:
    """Return the tensor that owns a tape, which reads some of the tensors in place."""
    keeper = np.zeros(1, np.uint8).view(_Keeper)
    keeper.tape, keeper.read, keeper.places = tape, read, _places(tensors, read)
    handle = torch.from_numpy(keeper)
    _keepers[handle.data_ptr()] = keeper
    return handle


def find(handle: Tensor, tensors: Iterable[Tensor | None]) -> Any:
    """Return the tape that a tensor owns, if the tensors that it reads lie where they lay; else None."""
    keeper = _keepers.get(handle.data_ptr())
    if keeper is None:
        return None
    places = _places(tensors, keeper.read)
    are_same = places == keeper.places or [*map(_essential, places)] == [*map(_essential, keeper.places)]
    return keeper.tape if are_same else None


def alive() -> int:
    """Return how many tapes there are."""
    return len(_keepers)
