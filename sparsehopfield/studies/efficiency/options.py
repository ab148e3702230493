"""Options of the study of efficiency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names
from sparsehopfield.studies.efficiency import protocol


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    members : str or sequence of str
        Of `protocol.MEMBERS`; PyTorch's are left out where it is not installed.
    first, last : int
        Lengths are the powers of two from 2^first to 2^last, 2^6 at least.
    fit_from : int
        Exponents are fitted from 2^fit_from on.
    d, k, window, block, features : int
        As in `protocol.Sizes`; a block is a power of two.
    repeats : int
        Calls of which the median time is taken, at least; short calls are repeated for 20 ms.
    most_multiplications : float
        Lengths at which one update takes more are left out.
    """

    members: Sequence[str] = tuple(protocol.MEMBERS)
    first: int = 8
    last: int = 13
    fit_from: int = 12
    d: int = 64
    k: int = 32
    window: int = 64
    block: int = 64
    features: int = 256
    repeats: int = 2
    most_multiplications: float = 1e10

    _sequences: ClassVar[Mapping[str, type]] = {"members": str}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("members", self.members, protocol.MEMBERS)
        at_least("first", self.first, 6)
        at_least("last", self.last, self.first)
        at_least("fit_from", self.fit_from, 6)
        for name in ("d", "k", "window", "block", "features", "repeats"):
            at_least(name, getattr(self, name), 1)
        if self.block & (self.block - 1):
            raise ValueError(f"block: must be a power of two, as lengths are, got {self.block}")
        if not self.most_multiplications > 0:
            raise ValueError(f"most_multiplications: must be above 0, got {self.most_multiplications}")

    @property
    def lengths(self) -> list[int]:
        """Return the numbers of queries, and of patterns."""
        return [2**power for power in range(self.first, self.last + 1)]

    @property
    def sizes(self) -> protocol.Sizes:
        """Return the sizes of the members."""
        return protocol.Sizes(self.d, self.k, self.window, self.block, self.features)

    def affords(self, member: str, length: int) -> bool:
        """Check whether an update takes at most `most_multiplications`."""
        return protocol.cost(member, length, self.sizes).multiplications <= self.most_multiplications
