"""Options of the study of the family."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparsehopfield.data import datasets
from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names
from sparsehopfield.studies.family import bags as family_bags
from sparsehopfield.studies.family import protocol
from sparsehopfield.studies.retrieval.protocol import MASKS

PARTS = ("retrieval", "bags")


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    dataset : {"digits", "mnist", "cifar10", "imagenet64"}
        The images to store.
    data : path, optional
        The folder that holds them; the digits need none.
    parts : str or sequence of str
        Of "retrieval" and "bags".
    members : str or sequence of str
        Members to retrieve with.
    sizes : int or sequence of int
        Numbers of stored patterns, at least 2, and multiples of `blocks`.
    pairs, windows, blocks, features : int or sequence of int
        Budgets: k of TopK and RandomMask; w of Window; blocks, of which a query uses one; D of RandomFeatures. Those
        that would use all patterns are left out.
    damages : str or sequence of str
        Of "mask" and "noise".
    mask : {"upper", "lower", "left", "right"}
        The half that is masked.
    noise : float
        The noise's standard deviation.
    betas : float or sequence of float
        Inverse temperatures to choose from.
    threshold : float
        A pattern is retrieved when 1 - cosine is below this.
    queries : int
        Queries to report on, and as many to choose by; at most half of the patterns.
    bag_members : str or sequence of str
        Members to classify bags with.
    bag_sizes : int or sequence of int
        Instances of a bag. Members have their least budget.
    runs : int
        Draws of each setting.
    jobs : int
        Number of settings to measure at the same time.
    """

    dataset: str = "digits"
    data: str | os.PathLike[str] | None = None
    parts: Sequence[str] = PARTS
    members: Sequence[str] = tuple(protocol.MEMBERS)
    sizes: Sequence[int] = (64, 256, 1024)
    pairs: Sequence[int] = (4, 16, 64)
    windows: Sequence[int] = (2, 8, 32)
    blocks: Sequence[int] = (4, 16)
    features: Sequence[int] = (64, 512)
    damages: Sequence[str] = protocol.DAMAGES
    mask: str = "lower"
    noise: float = 0.3
    betas: Sequence[float] = (1.0, 3.0, 10.0, 30.0, 100.0)
    threshold: float = 0.1
    queries: int = 48
    bag_members: Sequence[str] = family_bags.MEMBERS
    bag_sizes: Sequence[int] = (10, 30)
    runs: int = 2
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {
        **dict.fromkeys(("parts", "members", "damages", "bag_members"), str),
        **dict.fromkeys(("sizes", "pairs", "windows", "blocks", "features", "bag_sizes"), int),
        "betas": float,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, valid in (
            ("parts", PARTS),
            ("members", protocol.MEMBERS),
            ("damages", protocol.DAMAGES),
            ("bag_members", family_bags.MEMBERS),
        ):
            check_names(name, getattr(self, name), valid)
        check_names("dataset", [self.dataset], datasets.DATASETS)
        check_names("mask", [self.mask], MASKS)
        for name, least in (("sizes", 2), ("pairs", 1), ("windows", 0), ("blocks", 2), ("features", 1)):
            at_least(name, min(getattr(self, name)), least)
        at_least("bag_sizes", min(self.bag_sizes), 2)
        for name in ("queries", "runs", "jobs"):
            at_least(name, getattr(self, name), 1)
        for size in self.sizes if "blocks" in self.members and "retrieval" in self.parts else ():
            for blocks in self.blocks:
                if size % blocks:
                    raise ValueError(f"sizes: must be multiples of the number of blocks, got {size} and {blocks}")
        for beta in self.betas:
            if not 0 < beta < math.inf:
                raise ValueError(f"betas: must be positive and finite, got {beta:g}")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise: must be finite and at least 0, got {self.noise:g}")
        if not 0 < self.threshold <= 2:
            raise ValueError(f"threshold: bounds 1 - cosine, so it must be above 0 and at most 2, got {self.threshold}")
