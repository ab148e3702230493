"""The base of the structures of features, which their updates and their association share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.separations import SEPARATIONS
from sparsehopfield._engine.structure import Structure
from sparsehopfield._engine.text import short

Floats = NDArray[np.float64]
# of csrc/features/sums.h: rows of a block, and of a causal one; most parts with sums of their own
BLOCK, CAUSAL_BLOCK, PARTS = _core.FEATURE_BLOCK, _core.CAUSAL_BLOCK, _core.FEATURE_PARTS
# Where the sum of a query's kernels in a causal block is below this, the core takes half of the block at a time: terms
# below the smallest float would be lost (sh_features_causal).
LEAST_NORMALISER = {np.dtype(np.float32): 1e-20, np.dtype(np.float64): 1e-200}


class Map(NamedTuple):
    """A feature map under one beta and similarity (sh_features in csrc/include/sparsehopfield.h)."""

    code: int  # sh_feature_map: RELU, ELU or RANDOM
    size: int  # D
    beta: float
    projection: Floats | None  # of RANDOM, (D, d): sqrt(beta) W
    bias: float  # exponents of patterns have -bias |xi|^2 in them


RELU, ELU, RANDOM = range(3)


@dataclass(frozen=True)
class FeatureStructure(Structure):
    """What a structure of features is: its map, and the operations that it does not have."""

    causal: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.causal, (bool, np.bool_)):
            raise TypeError(f"causal: must be True or False, got {short(self.causal)}")
        object.__setattr__(self, "causal", bool(self.causal))

    @property
    def by_place(self) -> bool:
        """Tell whether the order of the patterns counts."""
        return self.causal

    @property
    def _name(self) -> str:
        return type(self).__name__

    def refuse(self, operation: str) -> None:
        name = self._name
        raise ValueError(
            {
                "energy": f"structure: {name} has no energy: the Jacobian of its update is not symmetric, so the "
                "update is no gradient step of anything",
                "associate": f"structure: {name} has no list of weights: they are never computed one by one, and all "
                "patterns have some; update(values=...) mixes by them",
                "candidates": f"structure: {name} has no candidates, as no pattern is kept; its state() has add and "
                "merge",
                "certificates": f"structure: {name} has no window, beyond which patterns have no weight, so margins "
                "certify nothing",
                "fixed points": f"structure: {name} has no window, so no pattern is known to stay for certain; "
                "compare update(patterns) with the patterns",
            }[operation]
        )

    def _refuse_maps(self, code: tuple[int, float]) -> None:
        """Raise for another separation than softmax."""
        if code != SEPARATIONS["softmax"]:
            raise ValueError(
                f"separation: {self._name} stands in for softmax's kernel, pass separation='softmax'; other maps are "
                "no quotient of sums over patterns"
            )

    def _map(self, d: int, beta: float, similarity: str) -> Map:
        """Return the feature map of patterns of d features."""
        raise NotImplementedError

    def _size(self, d: int) -> int:
        """Return D, for patterns of d features."""
        raise NotImplementedError

    def _projected(self, d: int) -> int:
        """Return the multiplications that the features of one row take."""
        return 0
