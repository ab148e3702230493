"""Docstrings that take sections of others, so that what two names share is written once."""

from __future__ import annotations

import inspect
import re
from typing import Any, TypeVar

__all__ = ["sections", "with_base_parameters"]

_HEADING = re.compile(r"^(?=[A-Z][A-Za-z ]*\n-{3,}$)", re.MULTILINE)
Kind = TypeVar("Kind", bound=type[Any])


def sections(documented: Any, *names: str) -> str:
    """Return sections of an object's docstring with their headings; "" where it has none, as under `python -OO`.

    >>> def halve(x):
    ...     '''Return half of a number.
    ...
    ...     Parameters
    ...     ----------
    ...     x : float
    ...         The number.
    ...
    ...     Notes
    ...     -----
    ...     It is exact.
    ...     '''
    >>> print(sections(halve, "Parameters"))
    Parameters
    ----------
    x : float
        The number.
    """
    parts = _HEADING.split(inspect.getdoc(documented) or "")
    return "\n\n".join(part.strip("\n") for part in parts if part.partition("\n")[0] in names)


def with_base_parameters(kind: Kind) -> Kind:
    """Put the Parameters of the class that a class refines behind the summary of its docstring."""
    if kind.__doc__:
        summary, _, rest = inspect.cleandoc(kind.__doc__).partition("\n\n")
        kind.__doc__ = "\n\n".join((summary, sections(kind.__base__, "Parameters"), rest))
    return kind
