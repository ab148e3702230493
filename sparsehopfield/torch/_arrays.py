"""Tensors as the arrays that the package takes, and its results as tensors."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsehopfield._engine.call import RetrievalInfo
from sparsehopfield._engine.checks import as_array
from sparsehopfield.inspect.certificates import Certified, Duplicates

__all__ = ["given_array", "tensors_of"]

NUMPY_FLOATS = {torch.float16, torch.float32, torch.float64}


def given_array(name: str, given: Any) -> Any:
    """Return a tensor as an array, which shares its memory where it can; anything else as it is.

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
    return as_array(name, tensor)


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
