"""Attributes of packages that are imported when they are first asked for, so that importing the package stays light."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from sparsehopfield._engine.optional import is_installed

__all__ = ["lazy_attributes"]


def lazy_attributes(
    package: str, places: Mapping[str, str], needs: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions `__getattr__` and `__dir__` of a package.

    Parameters
    ----------
    package : str
        Its `__name__`.
    places : mapping of str to str
        Of each name the module below the package that has it; a name that is its own module's stands for the module.
    needs : mapping of str to str, optional
        Of some names the package of others without which they cannot be imported: `dir` leaves them out where it is
        not installed, so that tools which read all that `dir` lists, as `help`, go on working.

    Returns
    -------
    (callable, callable)

    Notes
    -----
    Threads may ask at the same time: imports have locks of their own, and all find the same objects. Once imported, an
    attribute is found without these functions.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        module = import_module(f"{package}.{places[name]}")
        found = module if places[name] == name else getattr(module, name)
        setattr(sys.modules[package], name, found)
        return found

    def listed() -> list[str]:
        there = {name for name in places if needs is None or name not in needs or is_installed(needs[name])}
        return sorted({*vars(sys.modules[package]), *there})

    return get, listed
