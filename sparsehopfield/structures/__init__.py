"""Which patterns each query sees: the third choice beside `similarity` and `separation`."""

from sparsehopfield._engine.structure import KINDS, Cost, Full, Structure
from sparsehopfield.structures._features import FeatureState, LinearFeatures, RandomFeatures
from sparsehopfield.structures._pairs import BlockSparse, Pairs, RandomMask, TopK, Window

__all__ = [
    "BlockSparse",
    "Cost",
    "FeatureState",
    "Full",
    "LinearFeatures",
    "Pairs",
    "RandomFeatures",
    "RandomMask",
    "Structure",
    "TopK",
    "Window",
]

KINDS.update({kind.__name__: kind for kind in (BlockSparse, LinearFeatures, RandomFeatures, RandomMask, TopK, Window)})
