"""What an installation promises: one version, one private BLAS, types, a light import."""

import importlib.metadata
import importlib.resources
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import run_python

import sparsehopfield as sh
from sparsehopfield import _core

PUBLIC = """
softmax sparsemax entmax polynomial topk_softmax topk_sparsemax sparsemax_threshold entmax_threshold
softmax_vjp sparsemax_vjp entmax_vjp entmax_vjp_alpha polynomial_vjp
softmax_conjugate sparsemax_conjugate entmax_conjugate
energy update associate retrieve candidates merge Candidates HopfieldMemory Entmax Polynomial
FileFormatError FileFormatWarning RetrievalWarning RetrievalInfo set_num_threads get_num_threads show_config
""".split()


def test_one_version():
    version = importlib.metadata.version("sparsehopfield")
    assert sh.__version__ == version
    assert sh.show_config(mode="dict")["version"] == version
    if (ROOT / "pyproject.toml").exists():
        assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version


def test_public_names():
    assert set(sh.__all__) >= set(PUBLIC)
    assert len(sh.__all__) == len(set(sh.__all__))
    for name in sh.__all__:
        assert hasattr(sh, name), name
    unlisted = {n for n, v in vars(sh).items() if not n.startswith("_") and n not in sh.__all__}
    assert {n for n in unlisted if not isinstance(getattr(sh, n), type(sys))} == set()


def test_is_typed():
    files = importlib.resources.files("sparsehopfield")
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_core.pyi").is_file()


def test_everything_public_is_documented():
    undocumented = [n for n in sh.__all__ if callable(getattr(sh, n)) and not getattr(sh, n).__doc__]
    assert undocumented == []


def test_show_config(capsys):
    config = sh.show_config(mode="dict")
    assert set(config) >= {"version", "numpy", "blas", "simd", "threads", "python", "platform"}
    assert set(config["blas"]) >= {"library", "version", "core", "threads"}
    assert config["blas"]["threads"] == 1  # tiles are products of one thread; the pool is our own
    assert config["simd"]["chosen"] in config["simd"]["available"]
    assert config["threads"] == sh.get_num_threads()
    assert capsys.readouterr().out == ""

    assert sh.show_config() is None
    printed = capsys.readouterr().out
    for value in (config["version"], config["blas"]["core"], config["simd"]["chosen"]):
        assert value in printed
    with pytest.raises(ValueError, match=r"^mode: "):
        sh.show_config(mode="yaml")


@pytest.mark.parametrize("level", sh.show_config(mode="dict")["simd"]["available"])
def test_simd_level_is_chosen_by_the_environment(level):
    code = """if True:
        import json, sparsehopfield
        print(json.dumps(sparsehopfield.show_config(mode="dict")["simd"]["chosen"]))"""
    assert run_python(code, SPARSEHOPFIELD_SIMD=level) == level


def test_import_loads_nothing_heavy():
    code = """if True:
        import json, sys, numpy
        before = set(sys.modules)
        import sparsehopfield
        print(json.dumps(sorted({m.partition(".")[0] for m in set(sys.modules) - before})))"""
    loaded = set(run_python(code))
    assert loaded.isdisjoint({"scipy", "sklearn", "matplotlib", "tqdm", "torch"})


@pytest.mark.resources
def test_import_costs_at_most_50_ms_more_than_numpy():
    code = """if True:
        import time, numpy
        start = time.thread_time()  # NumPy's BLAS wakes threads of its own meanwhile, and they spin
        import sparsehopfield
        print(time.thread_time() - start)"""
    run_python(code, PYTHONDONTWRITEBYTECODE="")  # writes the byte code
    cost = float("inf")
    for _ in range(15):  # the least of several, in processor time: a busy machine only ever adds
        cost = min(cost, run_python(code, PYTHONDONTWRITEBYTECODE=""))
        if cost < 0.05:
            return
    pytest.fail(f"importing sparsehopfield costs {1000 * cost:.0f} ms more than importing NumPy")


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not os.path.exists("/proc/cpuinfo"),
    reason="needs the list that Linux has on x86-64",
)
def test_the_instruction_sets_of_this_machine_are_found():
    """The core finds all that the processor has; linked with another compiler's runtime it may find the base alone."""
    flags = {*re.search(r"(?m)^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text())[1].split()}
    sets = {
        "avx2": "avx avx2 bmi1 bmi2 f16c fma abm movbe",
        "avx512": "avx2 avx512f avx512bw avx512cd avx512dq avx512vl",
        "vnni": "avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni",
    }
    has = [name for name, needed in sets.items() if flags.issuperset(needed.split())]
    assert sh.show_config(mode="dict")["simd"]["available"] == ["base", *has]


@pytest.mark.parametrize("order", ["threadpoolctl, sparsehopfield", "sparsehopfield, threadpoolctl"])
def test_threadpoolctl_sees_our_pool(order):
    code = f"""if True:
        import json, {order}
        pools = threadpoolctl.ThreadpoolController().select(user_api="sparsehopfield").info()
        print(json.dumps([pools, sparsehopfield.get_num_threads()]))"""
    (pool,), threads = run_python(code)
    assert pool["num_threads"] == threads
    assert Path(pool["filepath"]).name.startswith("_core")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs the /proc of Linux")
def test_openblas_is_our_own_copy():
    """A bundled OpenBLAS is loaded from sparsehopfield/_libs, and no other copy was taken for it."""
    code = """if True:
        import json, pathlib, sparsehopfield
        lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
        loaded = {line.split(None, 5)[5] for line in lines if "openblas" in line}
        print(json.dumps([sparsehopfield.__file__, sorted(loaded)]))"""
    package, loaded = run_python(code)
    libs = Path(package).resolve().parent / "_libs"
    others = [p for p in map(Path, loaded) if p.parent.name not in ("numpy.libs", "scipy.libs")]
    assert len(others) == 1
    assert (others[0].parent == libs) == libs.is_dir()


EXTENSION = Path(_core.__file__).resolve()
BUNDLED = sorted(EXTENSION.parent.glob("_libs/*"))
libraries = pytest.mark.parametrize("library", [EXTENSION, *BUNDLED], ids=lambda path: path.name)


def readelf(library, *what):
    """Return what readelf says of a library, where there is one to ask."""
    if sys.platform != "linux":
        pytest.skip("libraries are in ELF, which readelf reads, on Linux alone")
    if not shutil.which("readelf"):
        pytest.skip("needs readelf (Debian: apt install binutils)")
    return subprocess.run(["readelf", "-W", *what, library], check=True, capture_output=True, text=True).stdout


@libraries
def test_what_a_library_needs_is_the_system_s_or_ours(library):
    """No library is searched for in a folder that only the building machine has."""
    dynamic = readelf(library, "--dynamic")
    folders = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", dynamic)
    assert folders == (["$ORIGIN/_libs"] if library == EXTENSION and BUNDLED else [])
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    ours = {path.name for path in BUNDLED} if library == EXTENSION else set()
    assert needed >= ours
    system = r"(lib(c|m|pthread|dl|rt|gcc_s)|ld-[\w-]+|libc\.musl-\w+)\.so[.\d]*"
    if not BUNDLED:
        system += r"|lib\w*blas\w*\.so[.\d]*"
    assert [name for name in needed - ours if not re.fullmatch(system, name)] == []


@libraries
def test_a_library_is_hardened(library):
    dynamic, segments = readelf(library, "--dynamic"), readelf(library, "--program-headers")
    symbols = readelf(library, "--dyn-syms")
    flags = re.findall(r"^ +(\w+)(?: +0x[\da-f]+){5} ([RWE ]{3}) ", segments, re.MULTILINE)
    assert flags, segments
    found = {
        "read-only relocations (-z relro)": "GNU_RELRO" in segments,
        "no executable stack (-z noexecstack)": ("GNU_STACK", "RW ") in flags,
        "no segment is both written and executed": not any("W" in f and "E" in f for _, f in flags),
        "no relocations in code": "TEXTREL" not in dynamic,
    }
    if library == EXTENSION:  # the others come as they are
        found["all symbols bound at the start (-z now)"] = re.search(r"\(FLAGS\).*BIND_NOW", dynamic) is not None
        found["stack protector (-fstack-protector-strong)"] = "__stack_chk_fail" in symbols
        if "GLIBC" in symbols:
            found["checked calls of the C library (-D_FORTIFY_SOURCE)"] = re.search(r"__\w+_chk@", symbols) is not None
    assert [name for name, holds in found.items() if not holds] == []


def test_the_extension_exports_nothing_but_its_init_function():
    rows = [line.split() for line in readelf(EXTENSION, "--dyn-syms").splitlines()]
    assert [r[7] for r in rows if len(r) > 7 and r[4] in ("GLOBAL", "WEAK") and r[6] != "UND"] == ["PyInit__core"]


@libraries
def test_a_library_names_no_folder_of_the_building_machine(library):
    assert re.findall(rb"/(?:tmp|root|home|build|Users)/[\x21-\x7e]*", library.read_bytes()) == []
