"""Docstrings that take sections of others, so that what two names share is written once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["sections", "with_sections"]

_HEADING = re.compile(r"^(?=[A-Z][A-Za-z ]*\n-{3,}$)", re.MULTILINE)
Documented = TypeVar("Documented")


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


def with_sections(other: Any, *names: str) -> Callable[[Documented], Documented]:
    """Return a decorator that puts sections of another object's docstring behind the summary of one's own."""

    def put(own: Documented) -> Documented:
        if own.__doc__:
            summary, _, rest = inspect.cleandoc(own.__doc__).partition("\n\n")
            own.__doc__ = "\n\n".join(part for part in (summary, sections(other, *names), rest) if part)
        return own

    return put
