"""What a structure is. Those that look at some of the pairs are in `structures`, which is only loaded when used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .stored import Asked, Stored
    from .structures._features import Steps

__all__ = ["Cost", "Full", "Structure", "as_structure"]


@dataclass(frozen=True)
class Cost:
    """What one update takes.

    Attributes
    ----------
    multiplications : int
        Of the matrix products: of scores or features, and of mixing.
    bytes : int
        Memory at a time beside the arrays that come in and go out, for float32.
    """

    multiplications: int
    bytes: int


class Structure:
    """Which pairs of queries and patterns are looked at; the base of all structures."""

    def descriptor(self, n: int, m: int) -> Any:
        """What the core is told: of n queries and m patterns."""
        raise NotImplementedError(f"structure: not here, got {self!r}")  # never all pairs instead

    def steps(self, stored: Stored, asked: Asked) -> Steps | None:
        """What takes the steps of a call; None: the core."""
        return None

    def refuse(self, what: str) -> None:
        """Raise if there is none of this under the structure: "energy", "associate" or "candidates"."""


@dataclass(frozen=True)
class Full(Structure):
    """All pairs; the same as None.

    Examples
    --------
    >>> import sparsehopfield as sh
    >>> from sparsehopfield.structures import Full
    >>> sh.update([1.0, 0.2], [[1.0, 0.0], [0.0, 1.0]], 10.0, structure=Full())
    array([1., 0.])
    """


def as_structure(structure: Any) -> Structure | None:
    """A structure as it was given, None for all pairs.

    Raises
    ------
    TypeError
        For anything else.
    """
    if structure is None or isinstance(structure, Full):
        return None
    if isinstance(structure, Structure):
        return structure
    raise TypeError(
        f"structure: must be None (all pairs) or one of sparsehopfield.structures, got {structure!r}"
        + (f"; did you mean {structure.__name__}()?" if isinstance(structure, type) else "")
    )
