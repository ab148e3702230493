"""Files are written as a whole: private from the start, wherever files can be, and errors name what was asked for.

Every writer of the package is tried: memories, layers, figures and the texts of studies.
"""

import errno
import os
import pathlib
import stat
import subprocess
import sys

import helpers
import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers
from sparsehopfield._engine.replacing import replacing
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables

HELPERS = os.pathsep.join(helpers.FOLDERS)


def draw(path):
    from matplotlib.figure import Figure

    plotting.save(Figure((1, 1)), path)


def write(path):
    with replacing(path) as file:
        file.write(b"new")


WRITERS = {
    "memory": lambda path: sh.HopfieldMemory(np.eye(3)).save(path),
    "layer": lambda path: layers.Linear(2, 3).save(path),
    "text": lambda path: tables.write(pathlib.Path(path), "new"),
    "figure": draw,
    "bytes": write,
}
every_writer = pytest.mark.parametrize("writer", WRITERS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.png"  # so that a figure is written there, too


def asked(writer, path):
    """What a writer is asked for where it is to write this file."""
    return str(path).removesuffix(".png") if writer == "figure" else path


def whole(path, left=()):
    """Whether the old file is there and nothing besides."""
    return path.read_bytes() == b"old" and {p.name for p in path.parent.iterdir()} == {path.name, *left}


@every_writer
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o644])
def test_nobody_reads_it_who_might_not_read_the_old_one(path, monkeypatch, writer, mode):
    if writer == "figure":
        pytest.importorskip("matplotlib")
    path.write_bytes(b"old")
    path.chmod(mode)
    seen, real = [], os.open

    def opened(name, flags, given=0o777, **options):
        descriptor = real(name, flags, given, **options)
        if ".sparsehopfield-" in os.fsdecode(name) and not seen:
            seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    before = os.umask(0)
    try:
        WRITERS[writer](asked(writer, path))
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() != b"old"


@pytest.mark.parametrize("number", ["EPERM", "ENOTSUP", "ENOSYS", "EINVAL"])
@every_writer
def test_file_systems_without_modes(path, monkeypatch, writer, number):
    if writer == "figure":
        pytest.importorskip("matplotlib")
    path.write_bytes(b"old")

    def refused(*_):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(os, "fchmod", refused)
    WRITERS[writer](asked(writer, path))
    assert path.read_bytes() != b"old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("open", "EACCES"),
        ("open", "EROFS"),
        ("fchmod", "EIO"),
        ("fsync", "ENOSPC"),
        ("fsync", "EIO"),
        ("replace", "EBUSY"),
        ("replace", "EXDEV"),
        ("replace", "EACCES"),
    ],
)
@every_writer
def test_errors_name_the_path_that_was_asked_for(path, monkeypatch, writer, step, number):
    if writer == "figure":
        pytest.importorskip("matplotlib")
    path.write_bytes(b"old")
    real, code = getattr(os, step), getattr(errno, number)

    def failing(name, *arguments, **options):
        if step == "open" and ".sparsehopfield-" not in os.fsdecode(name):
            return real(name, *arguments, **options)
        raise OSError(code, os.strerror(code), *([name] if step in ("open", "replace") else []))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, failing)
        with pytest.raises(OSError, match=r"file\.png") as caught:
            WRITERS[writer](asked(writer, path))
    assert caught.value.errno == code
    assert caught.value.filename == str(path)
    assert type(caught.value) is type(OSError(code, ""))
    assert ".tmp" not in str(caught.value)
    assert whole(path)
    if number == "EBUSY":
        assert "mount its folder instead" in str(caught.value)


@pytest.mark.parametrize("writer", ["memory", "text"])
def test_a_file_that_is_a_mount_of_its_own(tmp_path, writer):
    """As containers mount single files; in a namespace of mounts of its own, where that is allowed."""
    source, path = tmp_path / "source", tmp_path / "folder" / "file.png"
    path.parent.mkdir()
    source.write_bytes(b"old")
    path.write_bytes(b"")
    namespace = ["unshare", "--mount"]
    try:
        subprocess.run([*namespace, "mount", "--bind", source, path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"files cannot be mounted here: {error}")
    code = (
        "import os, sys, pathlib; sys.path[:0] = sys.argv[3].split(os.pathsep)\n"
        "from test_replacing import WRITERS, asked\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try:\n"
        "    WRITERS[sys.argv[2]](asked(sys.argv[2], path))\n"
        "except OSError as error:\n"
        "    print(error, error.filename == str(path), path.read_bytes(), len(list(path.parent.iterdir())))\n"
    )
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "$2" "$5" "$6"'
    done = subprocess.run(
        [
            *namespace,
            "sh",
            "-c",
            script,
            "sh",
            source,
            path,
            sys.executable,
            code,
            writer,
            HELPERS,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "mount its folder instead" in done.stdout
    assert done.stdout.endswith("True b'old' 1\n")


READERS = {
    "memory": sh.HopfieldMemory.load,
    "mapped": lambda path: sh.HopfieldMemory.load(path, mmap=True),
    "layer": layers.load,
}


@pytest.mark.parametrize("path", ["a\0b", "\0", b"a\0b", pathlib.Path("folder", "a\0"), "a\ud800b"])
@pytest.mark.parametrize("use", [*WRITERS, *READERS])
def test_paths_that_no_system_takes(tmp_path, monkeypatch, use, path):
    if use == "figure":
        pytest.importorskip("matplotlib")
    if use == "text" and isinstance(path, bytes):
        pytest.skip("texts are written to pathlib's paths")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^path: (cannot hold a NUL character|has characters that no name)"):
        (WRITERS | READERS)[use](path)
    assert not list(tmp_path.iterdir())


@every_writer
def test_an_interrupted_writer_leaves_the_old_file(path, monkeypatch, writer):
    if writer == "figure":
        pytest.importorskip("matplotlib")
    path.write_bytes(b"old")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            WRITERS[writer](asked(writer, path))
    assert whole(path)


def test_no_other_way_of_writing_is_left():
    """A new writer is to use this one."""
    for source in pathlib.Path(sh.__file__).parent.rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        own = source.name == "replacing.py"
        assert own or "os.replace(" not in text, source
        assert own or ".savefig(" not in text or "replacing(" in text, source
        for line in text.splitlines():
            if ".write_text(" in line and ">>>" not in line and "... " not in line:
                assert "/proc/" in line, source
