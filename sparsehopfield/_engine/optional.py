"""Packages that only the studies and the data loaders need, imported when they are used."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType


def is_installed(module: str) -> bool:
    """Return whether there is a module to import, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def require(module: str, *, purpose: str, extra: str = "studies") -> ModuleType:
    """Import `module`, or raise an ImportError that says what it is for and how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.partition(".")[0], module.partition(".")[0])
        raise ImportError(
            f"{purpose} needs {package}, which is not installed; "
            f'install it with: python -m pip install "sparsehopfield[{extra}]"'
        ) from error
