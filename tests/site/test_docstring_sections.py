"""Docstrings of public names by numpydoc's checks: those of which no name fails any.

PR01 (every parameter is documented) fails for records, which have attributes, and for methods of base classes; SA01
(See Also) and EX01 (Examples) for most methods. They are left out here, so that the check says what holds.
"""

import importlib
import inspect
from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).parents[2] / "docs" / "extensions"
CHECKS = {"PR02", "PR03", "PR04", "PR05", "PR06", "PR07", "PR08", "PR09", "PR10", "RT03"}


def documented(module, name):
    """Return a name's path, and those of the methods that it defines if it is a class."""
    value = getattr(importlib.import_module(module), name)
    methods = vars(value).items() if inspect.isclass(value) else ()
    functions = (staticmethod, classmethod)
    public = [n for n, m in methods if not n.startswith("_") and (inspect.isfunction(m) or isinstance(m, functions))]
    return [f"{module}.{name}", *(f"{module}.{name}.{method}" for method in public)] if callable(value) else []


def test_docstrings_pass_the_checks(monkeypatch):
    validate = pytest.importorskip("numpydoc.validate", reason="numpydoc comes with the extra docs").validate
    for module in ("sklearn", "torch", "distributed"):
        pytest.importorskip(module, reason="the names of all modules are looked at")
    monkeypatch.syspath_prepend(EXTENSIONS)
    paths = {path for where in importlib.import_module("api_pages").places().values() for path in where.values()}
    chosen = [one for path in sorted(paths) for one in documented(*path.rsplit(".", 1))]
    assert len(chosen) > 400
    wrong = [f"{one}: {code} {text}" for one in chosen for code, text in validate(one)["errors"] if code in CHECKS]
    assert wrong == []
