"""Docstrings of public names: numpydoc's checks of their sections, and what these refer to."""

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).parents[2] / "docs" / "extensions"
PARAMETERS = {f"PR{number:02}" for number in range(1, 11)} - {"PR07"}  # which leaves out types in braces
CHECKS = PARAMETERS | {"RT03", "SA01", "SA02", "SA03", "SA04", "EX01"}
DESCRIBED = ("Parameters", "Attributes", "Yields", "Raises", "Warns")  # sections whose entries all have descriptions

RECORD = '''
from typing import NamedTuple


class Record(NamedTuple):
    """Hold two numbers.

    Attributes
    ----------
    a, b : {0, 1, 2}
        The numbers.

    Raises
    ------
    TypeError
        If there are not two.

    See Also
    --------
    Record : The class itself.

    Examples
    --------
    >>> Record(1, 2).b
    2
    """

    a: int
    b: int
'''


def documented(path, pages):
    """Return a name's path, and those of the methods on its page: its own, and those of bases without a page."""
    value = pkgutil.resolve_name(path)
    if not inspect.isclass(value):
        return [path] if callable(value) else []
    kinds = [kind for kind in value.__mro__ if kind.__module__.startswith("sparsehopfield") and kind not in pages]
    functions = (staticmethod, classmethod)
    methods = {n: m for kind in (*reversed(kinds), value) for n, m in vars(kind).items() if not n.startswith("_")}
    return [path, *(f"{path}.{n}" for n, m in methods.items() if inspect.isfunction(m) or isinstance(m, functions))]


def fields(value):
    """Return the fields of a record, a dataclass or a named tuple; of nothing else."""
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return list(getattr(value, "_fields", []))


def leads_somewhere(name, near):
    """Tell whether what a docstring refers to is there, by its full path or in the class or module of its own name."""
    parts = near.split(".")
    for start in [*(".".join(parts[:i]) + "." for i in range(len(parts) - 1, 0, -1)), ""]:
        try:
            pkgutil.resolve_name(start + name)
        except (ImportError, AttributeError, ValueError):
            continue
        return True
    return False


def faults(path, validate, parse):
    """Return what is wrong with the sections of a docstring; one that is inherited is looked at where it stands."""
    value = pkgutil.resolve_name(path)
    if not value.__doc__:
        return [] if inspect.getdoc(value) else ["has no docstring"]
    found = [(code, text) for code, text in validate(path)["errors"] if code in CHECKS]
    if getattr(value, "_is_protocol", False):  # which nobody makes: its arguments are typing's
        found = [(code, text) for code, text in found if code != "PR01"]
    sections = parse(inspect.getdoc(value))
    if sections["Attributes"] and not sections["Parameters"] and (names := fields(value)):
        found = [(code, text) for code, text in found if code != "PR01"]  # users read records, and do not make them
        listed = [name for attribute in sections["Attributes"] for name in attribute.name.split(", ")]
        if listed != names:
            found.append(("PR01", f"Attributes must name the fields {', '.join(names)}; names {', '.join(listed)}"))
    found += [
        ("PR07", f"{section}: {entry.name or entry.type} has no description")
        for section in DESCRIBED
        for entry in sections[section]
        if not any(line.strip() for line in entry.desc)
    ]
    referred = [name for names, _ in sections["See Also"] for name, _ in names]
    lost = [f"See Also: there is no {name}" for name in referred if not leads_somewhere(name, path)]
    return [f"{code} {text}" for code, text in found] + lost


def test_docstrings_pass_the_checks(monkeypatch):
    validate = pytest.importorskip("numpydoc.validate", reason="numpydoc comes with the extra docs").validate
    parse = pytest.importorskip("numpydoc.docscrape").NumpyDocString
    for module in ("sklearn", "torch", "distributed"):
        pytest.importorskip(module, reason="the names of all modules are looked at")
    monkeypatch.syspath_prepend(EXTENSIONS)
    paths = {path for where in importlib.import_module("api_pages").places().values() for path in where.values()}
    pages = {value for value in map(pkgutil.resolve_name, paths) if inspect.isclass(value)}
    chosen = [one for path in sorted(paths) for one in documented(path, pages)]
    assert len(chosen) > 400
    wrong = [f"{one}: {fault}" for one in chosen for fault in faults(one, validate, parse)]
    assert wrong == []


def test_faults_are_found(tmp_path, monkeypatch):
    """Records whose attributes are not their fields, in order; entries without a description; lost references."""
    validate = pytest.importorskip("numpydoc.validate", reason="numpydoc comes with the extra docs").validate
    parse = pytest.importorskip("numpydoc.docscrape").NumpyDocString
    monkeypatch.syspath_prepend(tmp_path)
    wrong = RECORD.replace("a, b :", "b, a :").replace("Record :", "Nothing :")
    silent = RECORD.replace("        The numbers.\n", "").replace("        If there are not two.\n", "")
    for module, text in (("right_record", RECORD), ("wrong_record", wrong), ("silent_record", silent)):
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
    assert faults("right_record.Record", validate, parse) == []
    assert faults("wrong_record.Record", validate, parse) == [
        "PR01 Attributes must name the fields a, b; names b, a",
        "See Also: there is no Nothing",
    ]
    assert faults("silent_record.Record", validate, parse) == [
        "PR07 Attributes: a, b has no description",
        "PR07 Raises: TypeError has no description",
    ]
