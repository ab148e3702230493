"""Which patterns each query sees: the third choice beside `similarity` and `separation`."""

from sparsehopfield import _core
from sparsehopfield._engine.structure import KINDS, Cost, Full, Structure
from sparsehopfield.structures._features import FeatureState, LinearFeatures, RandomFeatures
from sparsehopfield.structures._pairs import BlockSparse, DilatedBlocks, Pairs, RandomMask, TopK, Window

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

_NAMES = sorted({*_core.structures(), "LinearFeatures", "RandomFeatures"} - {"Full"})
KINDS.update({name: globals()[name] for name in _NAMES})
