"""The arguments of an association, in the one order in which functions, operators and both backends pass them on.

Letters: B samples; N queries and M stored rows of each; H heads; d features of a query, e of an unprojected row, v of a
value.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsehopfield import structures  # noqa: F401 (which `restored` knows by their names once they are loaded)
from sparsehopfield._engine.structure import Structure, described, restored
from sparsehopfield.torch._custom_op import constant_result

__all__ = ["Options", "Tensors", "as_dense", "samples_of", "structure_from", "structure_text"]


class Tensors(NamedTuple):
    """The tensors of an association; the first eight may have gradients."""

    queries: Tensor  # (B, N, H, d), or (N, H, d) for all samples
    stored: Tensor  # (B, M, H or 1, d or e), or (M, H or 1, d or e) for all samples; (R, H or 1, d or e) with offsets
    values: Tensor  # as stored, with v features
    beta: Tensor  # (H,), (1,) or (), float64
    key_weight: Tensor | None  # (H, d, e)
    key_bias: Tensor | None  # (H, d)
    value_weight: Tensor | None  # (H, v, e)
    value_bias: Tensor | None  # (H, v)
    padding_mask: Tensor | None  # bool (B, M): True where a stored row is none
    mask: Tensor | None  # bool, True where left out, or numbers added to the scores: (N, M), (B, N, M), (B, H, N, M)
    offsets: Tensor | None  # int64 (B + 1,): sample b has rows offsets[b] to offsets[b + 1]
    seed: Tensor | None  # int64 (1,), of dropout


class Options(NamedTuple):
    """The numbers and texts of an association: what an operator of torch takes beside tensors."""

    separation: int  # the map's number in the core
    parameter: float  # the number that chooses one map of its family
    steps: int  # updates after the first association; -1: until every query rests
    eps: float  # a query rests when it moves by at most this
    dropout: float
    implicit: bool  # the gradient at the fixed point, not through all updates
    structure: str  # as JSON; "" for none
    appended: int  # rows at the end of each sample that all queries see, whatever the structure


def samples_of(queries: Tensor, stored: Tensor, offsets: Tensor | None) -> int:
    """Return the number of samples."""
    if offsets is not None:
        return offsets.shape[0] - 1
    return stored.shape[0] if stored.dim() == 4 else queries.shape[0] if queries.dim() == 4 else 1


GRADED = 8  # of Tensors, from the first on: those that may have gradients


def as_dense(name: str, given: Any) -> Tensor:
    """Return an argument, which must be a dense tensor, as it is."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: must be a tensor, got {type(given).__name__}")
    if given.is_nested:
        raise TypeError(f"{name}: must not be a nested tensor; see to_padded_tensor(), and offsets for ragged bags")
    if given.layout is not torch.strided:
        raise TypeError(f"{name}: must be a dense tensor, got one of {given.layout}; see to_dense()")
    return given


@lru_cache(1000)
def structure_from(text: str) -> Structure | None:
    """Return the structure that `structure_text` described."""
    return restored(json.loads(text)) if text else None


# of the structure that it is compiled with: compilers cannot follow what makes the text
@constant_result
def structure_text(structure: Structure | None) -> str:
    """Return a structure as text, which an operator can take."""
    return "" if structure is None else json.dumps(described(structure))
