"""Hopfield layers, associations and memories on PyTorch tensors.

On the CPU the C core computes; on other devices, and where a gradient is asked for that the core does not have, plain
torch does, with the same results to rounding. Needs PyTorch: `pip install sparsehopfield[torch]`. Nothing else in the
package imports it.
"""

from sparsehopfield.torch.functional import associate, hopfield_attention
from sparsehopfield.torch.losses import (
    EntmaxLoss,
    SoftmaxLoss,
    SparsemaxLoss,
    entmax_loss,
    softmax_loss,
    sparsemax_loss,
)
from sparsehopfield.torch.row_maps import entmax, normmax, softmax, sparsemax

__all__ = [
    "EntmaxLoss",
    "SoftmaxLoss",
    "SparsemaxLoss",
    "associate",
    "entmax",
    "entmax_loss",
    "hopfield_attention",
    "normmax",
    "softmax",
    "softmax_loss",
    "sparsemax",
    "sparsemax_loss",
]
