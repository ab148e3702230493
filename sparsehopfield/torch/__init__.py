"""Hopfield layers, associations and memories on PyTorch tensors.

On the CPU the C core computes; on other devices, and where a gradient is asked for that the core does not have, plain
torch does, with the same results to rounding. Needs PyTorch: `pip install sparsehopfield[torch]`. Nothing else in the
package imports it.
"""

from sparsehopfield.torch import _installed as _installed
from sparsehopfield.torch._threads import share_threads
from sparsehopfield.torch.functional import associate, hopfield_attention
from sparsehopfield.torch.losses import (
    EntmaxLoss,
    SoftmaxLoss,
    SparsemaxLoss,
    entmax_loss,
    softmax_loss,
    sparsemax_loss,
)
from sparsehopfield.torch.memory import HopfieldMemory, energy, retrieve, update
from sparsehopfield.torch.modules import (
    Hopfield,
    HopfieldLayer,
    HopfieldPooling,
    SparseHopfield,
    SparseHopfieldLayer,
    SparseHopfieldPooling,
)
from sparsehopfield.torch.row_maps import entmax, normmax, softmax, sparsemax
from sparsehopfield.torch.transformer import HopfieldDecoderLayer, HopfieldEncoderLayer

__all__ = [
    "EntmaxLoss",
    "Hopfield",
    "HopfieldDecoderLayer",
    "HopfieldEncoderLayer",
    "HopfieldLayer",
    "HopfieldMemory",
    "HopfieldPooling",
    "SoftmaxLoss",
    "SparseHopfield",
    "SparseHopfieldLayer",
    "SparseHopfieldPooling",
    "SparsemaxLoss",
    "associate",
    "energy",
    "entmax",
    "entmax_loss",
    "hopfield_attention",
    "normmax",
    "retrieve",
    "softmax",
    "softmax_loss",
    "sparsemax",
    "sparsemax_loss",
    "update",
]

share_threads()
