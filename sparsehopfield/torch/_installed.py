"""Says what to install where PyTorch is missing; the first module of the room to be imported."""

from sparsehopfield._engine.optional import require

__all__ = ["TORCH"]

TORCH = require("torch", purpose="sparsehopfield.torch", extra="torch")
