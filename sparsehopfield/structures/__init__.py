"""Which pairs of queries and patterns are looked at: the third choice beside `similarity` and `separation`."""

from ._base import Cost, Full, Structure
from ._features import FeatureState, LinearFeatures, RandomFeatures

__all__ = ["Cost", "FeatureState", "Full", "LinearFeatures", "RandomFeatures", "Structure"]
