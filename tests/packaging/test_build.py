"""What a build says where something is missing: one sentence, in its last line, that says what to install."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

if not (ROOT / "setup.py").exists():
    pytest.skip("setup.py is not beside the tests: they run on an installed wheel", allow_module_level=True)
pytest.importorskip("setuptools", minversion="80", reason="builds need setuptools 80")


def last_line(tmp_path, **environment):
    """Return the last line of a build of the core that fails, and leaves the tree alone."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path / "lib", "--build-temp", tmp_path],
        cwd=ROOT,
        env={**os.environ, "SPARSEHOPFIELD_BLAS": "system", "PKG_CONFIG": "true", **environment},
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr.splitlines()[-1]


def compiler(tmp_path, script):
    """Return a program to be called as a compiler, which runs these lines of the shell."""
    program = tmp_path / "compiler"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_no_compiler(tmp_path):
    line = last_line(tmp_path, CC="no-such-compiler")
    assert line.startswith("`no-such-compiler` compiles no C program: install a C compiler (Debian: apt install gcc ")
    assert "macOS: xcode-select --install" in line


def test_a_compiler_that_fails(tmp_path):
    """As that of a Mac does before its tools are installed, and that of Debian without libc6-dev."""
    program = compiler(tmp_path, "echo string.h: no such file; exit 1")
    assert last_line(tmp_path, CC=program).startswith(f"`{program}` compiles no C program: install ")


def test_no_headers_of_python(tmp_path):
    program = compiler(tmp_path, 'for f; do case $f in *.c) ! grep -q Python.h "$f" || exit 1; esac; done')
    assert "install Python's headers (Debian: apt install python3-dev)" in last_line(tmp_path, CC=program)


def test_no_openblas(tmp_path):
    line = last_line(tmp_path, PKG_CONFIG="no-such-program")
    assert "`no-such-program --cflags openblas` failed: install pkg-config and OpenBLAS's headers" in line
