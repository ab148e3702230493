"""Submodules without an import: found when asked for, listed before, imported only then."""

import importlib
import importlib.util
import os
import pickle
import pydoc
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import run_python

import sparsehopfield as sh

NEEDS = {"estimators": "sklearn", "torch": "torch"}
INSTALLED = [name for name in sh._LAZY if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]


# Each in a child of its own, in which nothing was asked for before: what a child costs is not a start of NumPy.
ASKED = """
import json, os, sys
import sparsehopfield as sh

found = {}
for name in sys.argv[1:]:
    listener, speaker = os.pipe()
    if not os.fork():
        try:
            listed, module = name in dir(sh), getattr(sh, name)
            same, kept = module is sys.modules.get(module.__name__), name in vars(sh)
            os.write(speaker, json.dumps([listed, module.__name__, same, kept]).encode())
        finally:
            os._exit(0)
    os.close(speaker)
    os.wait()
    found[name] = json.loads(os.read(listener, 1000))
print(json.dumps(found))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_each_is_found_without_an_import():
    found = run_python(ASKED, *INSTALLED, timeout=600)
    assert list(found) == INSTALLED
    for name, (listed, module, same, kept) in found.items():
        assert listed, name
        assert kept, name  # found without a detour from now on
        if sh._LAZY[name] == name:
            assert (module, same) == (f"sparsehopfield.{name}", True)


def test_all_of_them_are_the_modules_themselves():
    assert {"data", "distributed", "estimators", "inspect", "layers", "optim", "reference"} <= sh._LAZY.keys()
    assert {"structures", "studies", "theory", "torch"} <= sh._LAZY.keys()
    for name in INSTALLED:
        module = importlib.import_module(f"sparsehopfield.{sh._LAZY[name]}")
        assert getattr(sh, name) is (module if sh._LAZY[name] == name else getattr(module, name))
    assert sh.data.datasets.load_digits.__module__ == "sparsehopfield.data.datasets"
    assert sh.inspect.report.Report.__module__ == "sparsehopfield.inspect.report"


def test_dir_imports_nothing():
    code = """if True:
        import json, sys, sparsehopfield as sh
        before = set(sys.modules)
        names = dir(sh), dir(sh.data), dir(sh.inspect)
        print(json.dumps([sorted(set(sys.modules) - before), *names]))"""
    loaded, names, in_data, in_inspect = run_python(code)
    assert [m for m in loaded if m.startswith("sparsehopfield.") and m != "sparsehopfield.data"] == []
    assert {"layers", "theory", "HopfieldMemory", "retrieve", "__version__"} <= {*names}
    assert {"bags", "datasets"} <= {*in_data}
    assert {"certificates", "explain", "plotting", "report"} <= {*in_inspect}


@pytest.mark.parametrize("package", [sh, sh.data, sh.inspect], ids=lambda package: package.__name__)
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=rf"^module '{package.__name__}' has no attribute 'nonsense'$") as raised:
        _ = package.nonsense
    assert (raised.value.name, raised.value.obj) == ("nonsense", package)
    assert not hasattr(package, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec(f"from {package.__name__} import nonsense")


@pytest.mark.parametrize(("name", "extra"), [("estimators", "sklearn"), ("torch", "torch")])
def test_a_missing_extra_is_named(name, extra):
    code = f"""if True:
        import json, sys
        sys.modules[{NEEDS[name]!r}] = None
        import sparsehopfield as sh
        try:
            sh.{name}
        except ImportError as error:
            print(json.dumps([str(error), {name!r} in dir(sh), "layers" in dir(sh)]))"""
    message, listed, others_listed = run_python(code)
    assert f'"sparsehopfield[{extra}]"' in message
    assert not listed
    assert others_listed


def test_threads_that_ask_at_the_same_time_find_the_same():
    code = """if True:
        import json, threading, sparsehopfield as sh
        from concurrent.futures import ThreadPoolExecutor
        start = threading.Barrier(8)
        def ask(i):
            start.wait()
            return id(sh.theory), id(sh.layers), id(sh.structures)
        with ThreadPoolExecutor(8) as pool:
            print(json.dumps(list(pool.map(ask, range(8)))))"""
    found = run_python(code)
    assert len({*map(tuple, found)}) == 1


def test_help_reads_all_that_is_listed():
    assert "layers" in pydoc.render_doc(sh, renderer=pydoc.plaintext)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(dir, sh).result() == dir(sh)


def test_pickles_and_star_imports():
    assert pickle.loads(pickle.dumps(sh.structures.TopK(3))) == sh.structures.TopK(3)
    assert pickle.loads(pickle.dumps(sh.theory.margin)) is sh.theory.margin
    space = {}
    exec("from sparsehopfield import *", space)
    assert {name for name in space if not name.startswith("__")} == {*sh.__all__}
