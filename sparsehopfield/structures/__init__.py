"""Which pairs of queries and patterns are looked at: the third choice beside `similarity` and `separation`."""

from ._base import Cost, Full, Structure
from ._pairs import BlockSparse, Pairs, RandomMask, TopK, Window

__all__ = ["BlockSparse", "Cost", "Full", "Pairs", "RandomMask", "Structure", "TopK", "Window"]
