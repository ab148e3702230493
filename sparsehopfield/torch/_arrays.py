"""Tensors as the arrays that the package takes, and its results as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

from sparsehopfield._engine.call import RetrievalInfo
from sparsehopfield._engine.checks import Array, as_array
from sparsehopfield.inspect.certificates import Certified, Duplicates

__all__ = [
    "array_of",
    "compute_dtype",
    "given_array",
    "lent_array",
    "tensor_like",
    "tensors_of",
    "whole_array",
    "whole_arrays",
]

NUMPY_FLOATS = {torch.float16, torch.float32, torch.float64}


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype that tensors are computed in: float64 if one is, else float32."""
    for t in tensors:
        if t.dtype == torch.float64:
            return torch.float64
    return torch.float32


class _Lent:
    """A tensor on the CPU, as NumPy takes it by DLPack."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, **_: Any) -> Any:
        return to_dlpack(self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def array_of(t: Tensor, dtype: torch.dtype | None = None) -> Array:
    """Return the memory of a tensor on the CPU as an array, where its dtype is this one or any will do; else a copy.

    `Tensor.numpy` would forbid for good that the tensor's storage is resized, as FSDP does with that of parameters. So
    who keeps the array must see to it that the tensor lies where it lay before reading it again.
    """
    if t.requires_grad and torch.is_grad_enabled():
        t = t.detach()
    if dtype is not None and t.dtype != dtype:
        t = t.to(dtype)
    if t.is_neg():
        t = t.resolve_neg()
    if t.dtype == torch.bool:  # which not all releases of torch and NumPy exchange
        return np.from_dlpack(_Lent(t.view(torch.uint8))).view(np.bool_)
    return np.from_dlpack(_Lent(t))


def whole_array(t: Tensor, dtype: torch.dtype | None = None) -> Array:
    """Return a tensor as a contiguous array."""
    return array_of(t if t.is_contiguous() else t.contiguous(), dtype)


def whole_arrays(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[list[Array], list[bool]]:
    """Return what `whole_array` does of each tensor, and whether that lies where the tensor does."""
    read = [t.dtype is dtype and t.is_contiguous() and not t.is_neg() for t in tensors]
    if torch.is_grad_enabled():
        return [whole_array(t, dtype) for t in tensors], read
    return [
        np.from_dlpack(_Lent(t)) if in_place else whole_array(t, dtype)
        for t, in_place in zip(tensors, read, strict=True)
    ], read


def tensor_like(array: Array, t: Tensor) -> Tensor:
    """Return an array as a tensor of another's dtype and shape, summed over axes along which that was broadcast."""
    d = torch.from_numpy(array)
    if d.dtype is not t.dtype:
        d = d.to(t.dtype)
    return d if array.shape == t.shape else d.sum_to_size(t.shape)


def given_array(name: str, given: Any, lent: bool = False) -> Any:
    """Return a tensor as an array, which shares its memory where it can; anything else as it is.

    The array may be kept, as the tensor's storage can never be resized afterwards; unless it is lent, for a call.
    Tensors of other devices are copied to the CPU, and floats that NumPy does not have (bfloat16, float8) become
    float32.

    Raises
    ------
    TypeError
        If the tensor requires a gradient, while gradients are recorded, or is none of numbers: sparse, quantised, meta.
    """
    if not isinstance(given, Tensor):
        return given
    if given.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"{name}: requires a gradient, and this passes none on; sparsehopfield.torch.retrieve has one, or pass "
            f"{name}.detach()"
        )
    tensor = given.detach().resolve_neg()
    if tensor.is_floating_point() and tensor.dtype not in NUMPY_FLOATS:
        tensor = tensor.float()
    try:
        tensor = tensor.cpu()
    except (NotImplementedError, RuntimeError) as error:  # of meta, fake and batched tensors
        raise TypeError(f"{name}: cannot be brought to the CPU: {error}") from None
    is_plain = type(tensor) is Tensor and tensor.layout == torch.strided and not tensor.is_quantized
    if lent and is_plain and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return array_of(tensor)
    return as_array(name, tensor)


lent_array = partial(given_array, lent=True)


def tensors_of(found: Any, device: torch.device | None = None) -> Any:
    """Return a result with a tensor on this device, the CPU by default, in place of each array that it holds."""
    if isinstance(found, np.ndarray | np.generic):
        array = np.asarray(found)
        if not array.flags.writeable:  # no tensor is read-only
            array = array.copy()
        tensor = torch.from_numpy(array)
        if device is not None and device.type == "mps" and tensor.dtype == torch.float64:  # which it does not have
            tensor = tensor.float()
        return tensor.to(device or "cpu")
    if isinstance(found, tuple | list):
        return type(found)(tensors_of(part, device) for part in found)
    if hasattr(found, "indptr"):  # a sparse array (N, M) of weights
        start, position, weight = (tensors_of(part, device) for part in (found.indptr, found.indices, found.data))
        options: dict[str, Any] = {"device": weight.device, "check_invariants": False}
        return torch.sparse_csr_tensor(start, position, weight, found.shape, **options)
    if isinstance(found, RetrievalInfo | Certified | Duplicates):
        return replace(found, **{f.name: tensors_of(getattr(found, f.name), device) for f in fields(found)})
    return found
