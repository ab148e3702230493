"""What a structure is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
