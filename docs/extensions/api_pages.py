"""Pages of the public names: one for each public module, from its `__all__`, and one for each name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import sparsehopfield

#: Public modules whose names have no pages of their own: they are run as commands, which have a page.
COMMANDS = "sparsehopfield.studies"


def modules() -> list[str]:
    """Return the public modules: those without an underscore in their path, but for commands."""
    found = [m.name for m in pkgutil.walk_packages(sparsehopfield.__path__, "sparsehopfield.")]
    public = [name for name in found if not any(part.startswith("_") for part in name.split("."))]
    return ["sparsehopfield"] + [name for name in public if not name.startswith(COMMANDS)]


def names(module: str) -> list[str]:
    """Return the public names of a module: its `__all__`, or the functions and classes that it defines."""
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return sorted(found.__all__)
    return sorted(
        name
        for name, value in vars(found).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module and callable(value)
    )


def places() -> dict[str, dict[str, str]]:
    """Return for each module its public names, and where each is documented: at the first and shortest path to it."""
    first: dict[int, str] = {}
    found: dict[str, dict[str, str]] = {}
    for module in sorted(modules(), key=lambda name: (name.count("."), name)):
        there = importlib.import_module(module)
        found[module] = {}
        for name in names(module):
            value, path = getattr(there, name), f"{module}.{name}"
            shared = inspect.isclass(value) or inspect.isroutine(value)
            found[module][name] = first.setdefault(id(value), path) if shared else path
    return found


def page(module: str, where: dict[str, str]) -> str:
    """Return a module's page: what it is for, a table of its own names, and one of those documented elsewhere."""
    own = [name for name, path in where.items() if path == f"{module}.{name}"]
    others = [path for name, path in where.items() if path != f"{module}.{name}"]
    lines = [module, "=" * len(module), "", f".. automodule:: {module}", "   :no-members:", ""]
    for title, chosen in (("", own), ("Documented elsewhere", others)):
        if not chosen:
            continue
        if title:
            lines += [title, "-" * len(title), ""]
        lines += [".. autosummary::", *(["   :toctree: names"] if chosen is own else []), "   :nosignatures:", ""]
        lines += [f"   {name}" if chosen is own else f"   ~{name}" for name in chosen] + [""]
    return "\n".join(lines)


def index(found: list[str]) -> str:
    """Return the page that lists the modules."""
    lines = ["Python", "======", "", "Every public module and name.", "", ".. toctree::", "   :maxdepth: 1", ""]
    return "\n".join([*lines, *(f"   {module}" for module in sorted(found)), ""])


def write(folder: Path) -> None:
    """Write all pages; those that are right already stay as they are, so that they are not built again."""
    folder.mkdir(parents=True, exist_ok=True)
    found = places()
    pages = {"index.rst": index(list(found))} | {f"{name}.rst": page(name, where) for name, where in found.items()}
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.rst"):
        if path.name not in pages:
            path.unlink()


def only_ours(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a class inherits from other packages."""
    module = getattr(getattr(value, "fget", value), "__module__", None)
    return True if isinstance(module, str) and not module.startswith("sparsehopfield") else None


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("config-inited", lambda app, config: write(Path(app.confdir) / "site" / "api"), priority=100)
    app.connect("autodoc-skip-member", only_ours)
    return {"parallel_read_safe": True}
