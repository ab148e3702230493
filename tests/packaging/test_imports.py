"""Which modules import which: no cycles, not within functions nor for types, and rooms that build on those below."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sparsehopfield as sh

PACKAGE = Path(sh.__file__).parent

#: The rooms of the package. Each imports its own modules and rooms of the lines above, none of its own line.
ROOMS = """
_core errors
_engine
_moved config reference row_maps
functional losses structures
theory
inspect
data layers memory
optim distributed suggestion
estimators
playground
torch
studies
__main__
"""


def imports_of(package):
    """Return for each module of a package those of its modules that it imports, wherever in its code.

    Compiled modules count, too. To import a module is not to import the packages that hold it, whose __init__ Python
    runs as well; to import a name from an __init__ is.
    """
    files = {".".join(p.relative_to(package.parent).with_suffix("").parts): p for p in package.rglob("*.py*")}
    files = {name.removesuffix(".__init__"): p for name, p in files.items() if p.suffix in (".py", ".pyi")}
    found = {}
    for module, file in files.items():
        found[module] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file.suffix == ".py" else ():
            if isinstance(node, ast.Import):
                found[module].update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: imports are absolute"
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                found[module].update(name if name in files else node.module for name in names)
        found[module] &= files.keys()
    return found


def cycle_in(imports):
    """Return the modules of a cycle of imports, or None."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return None


@pytest.fixture(scope="module")
def imports():
    return imports_of(PACKAGE)


def test_no_import_cycle(imports):
    assert imports["sparsehopfield.memory"] >= {"sparsehopfield._core", "sparsehopfield._engine.call"}
    assert cycle_in(imports) is None


def test_rooms_build_on_those_below(imports):
    order = [line.split() for line in ROOMS.split("\n") if line]
    height = {room: level for level, line in enumerate(order) for room in line}

    def room_of(module):
        return (module + ".").split(".")[1]

    wrong = [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if room_of(module)  # the package's own __init__ may import all, and nobody it
        and room_of(module) != room_of(other)
        and not (room_of(other) and height[room_of(other)] < height[room_of(module)])
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "from made import {}\n",
        "import made.{}\n",
        "def f():\n    from made.{} import name\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made.{} import Name\n",
    ],
)
def test_a_cycle_is_found(tmp_path, code):
    package = tmp_path / "made"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text(code.format("two"))
    (package / "two.py").write_text("import os\n")
    assert cycle_in(imports_of(package)) is None
    (package / "two.py").write_text(code.format("one"))
    assert set(cycle_in(imports_of(package))) == {"made.one", "made.two"}
