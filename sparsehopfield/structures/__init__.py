"""Which patterns each query sees: the third choice beside `similarity` and `separation`."""

from ..structure import Cost, Full, Structure
from ._features import FeatureState, LinearFeatures, RandomFeatures
from ._pairs import BlockSparse, DilatedBlocks, Pairs, RandomMask, TopK, Window

__all__ = [
    "BlockSparse",
    "Cost",
    "DilatedBlocks",
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
