"""What a structure is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Full", "Structure", "as_structure"]


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
