"""The association in the C core, on CPU tensors."""

from __future__ import annotations

from math import inf

import numpy as np
import torch
from torch import Tensor

from sparsehopfield._engine.association import Saved, forward_of, gradients_of
from sparsehopfield._engine.checks import Array, as_offsets
from sparsehopfield.torch import _tape
from sparsehopfield.torch._arguments import Options, Tensors, samples_of, structure_from
from sparsehopfield.torch._arrays import array_of, compute_dtype, tensor_like, whole_array

__all__ = ["backward", "counts", "forward"]

counts = {"forward": 0, "backward": 0, "forward again": 0}  # passes through the core, for tests


def _rows_of(t: Tensor, dtype: torch.dtype) -> Array:
    """Return rows as the core reads them, features contiguous."""
    return array_of(t if t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous(), dtype)


def _beta_of(beta: Tensor, heads: int, dtype: torch.dtype) -> Array:
    """Return beta for every head, checked: it is multiplied into queries of this dtype."""
    largest = torch.finfo(dtype).max
    numbers = beta.detach().reshape(-1).tolist()
    for x in numbers:
        if not 0 < x <= largest:  # so is NaN
            raise ValueError(f"beta: must be positive and finite in {dtype}, got {x}")
    return np.array(numbers if len(numbers) == heads else numbers * heads, np.float64)


def _mask_of(mask: Tensor, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> Array:
    """Return a mask broadcast to `shape`, (B, H, N, M), checked."""
    a = _rows_of(mask, torch.bool if mask.dtype == torch.bool else dtype)
    if a.shape[-1] != shape[-1]:
        raise ValueError(f"mask: must have a column for each of {shape[-1]} rows, got {tuple(mask.shape)}")
    if a.dtype.kind == "f" and not a.max(initial=-inf) < inf:  # so is NaN
        raise ValueError("mask: must be finite numbers or -inf")
    return np.broadcast_to(a[:, None] if a.ndim == 3 else a, shape)


def _forward(tensors: Tensors, options: Options, keep: bool) -> tuple[Array, Saved | None]:
    """Return the output (B, N, H, v) and what is saved for the gradient."""
    counts["forward"] += 1
    queries, stored, values, beta, *projections, padding, mask, offsets, seed = tensors
    dtype = compute_dtype(queries, stored, values)
    q, k = _rows_of(queries, dtype), _rows_of(stored, dtype)
    v = k if values is stored else _rows_of(values, dtype)
    o = None if offsets is None else as_offsets(array_of(offsets), len(k))
    samples = samples_of(queries, stored, offsets)
    rows = k.shape[-3] if o is None else int((o[1:] - o[:-1]).max(initial=0))
    heads = q.shape[-2]
    shape = samples, heads, q.shape[-3], rows
    rate = options.dropout
    text = options.structure
    settings = options.steps, options.eps, rate, int(seed) % 2**64 if seed is not None and rate else 0, options.implicit
    return forward_of(
        q,
        k,
        v,
        _beta_of(beta, heads, dtype),
        options[:2],
        shape,
        settings,
        tuple([None if t is None else whole_array(t, dtype) for t in projections]),  # type: ignore[arg-type]
        o,
        None if padding is None else whole_array(padding, torch.bool),
        None if mask is None else _mask_of(mask, dtype, shape),
        structure_from(text) if text else None,
        options.appended if samples else 0,
        keep,
    )


def _read_in_place(tensors: Tensors) -> tuple[bool, ...]:
    """Return which tensors a tape may read where they lie; of others it has copies."""
    dtype = compute_dtype(*tensors[:3])
    q, k, v, _, *others, _ = tensors
    return (q.dtype == dtype, k.dtype == dtype, v.dtype == dtype, False, *(t is not None for t in others), False)


def forward(tensors: Tensors, options: Options, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Return the output (B, N, H, v) in the queries' dtype, and the tensor that owns its tape, if that is kept."""
    result, saved = _forward(tensors, options, keep)
    out = torch.from_numpy(result)
    handle = None if saved is None else _tape.keep(saved, tensors, _read_in_place(tensors))
    return (out if out.dtype == tensors.queries.dtype else out.to(tensors.queries.dtype)), handle


def backward(
    grad: Tensor, handle: Tensor, tensors: Tensors, options: Options, need_rows: bool, need_beta: bool
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the first eight tensors; None where there is none.

    need_rows, need_beta: False leaves out those of stored rows and values, or of beta.
    """
    counts["backward"] += 1
    saved = _tape.find(handle, tensors)
    if saved is None or (saved.shape[0], saved.shape[2], saved.shape[1]) != grad.shape[:3]:
        counts["forward again"] += 1
        _, saved = _forward(tensors, options, True)
    dtype = compute_dtype(*tensors[:3])
    gradients = gradients_of(saved, whole_array(grad, dtype), need_rows, need_beta)
    keys, values = gradients[4:] or (None, None)
    found = (*gradients[:4], *(keys or (None, None)), *(values or (None, None)))
    return tuple(None if a is None or t is None else tensor_like(a, t) for a, t in zip(found, tensors, strict=False))
