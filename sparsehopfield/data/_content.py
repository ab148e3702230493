"""Files of data from elsewhere: their bytes, packed or not, and one error for all that may be wrong with them."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sparsehopfield._engine import atomic_files
from sparsehopfield._engine.text import short
from sparsehopfield.errors import FileFormatError

__all__ = ["MAX_UNPACKED", "as_path", "first_line", "open_unpacked", "reading", "text_lines", "unpacked_content"]

#: Bytes that a packed file may have unpacked: a few kilobytes can stand for more than any memory holds.
MAX_UNPACKED = 2**31

CHUNK = 2**20  # bytes unpacked at a time: asking for all would allocate as much as a file may have

#: How files begin that are packed, and the modules that unpack them; names of files are not believed.
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "lzma"}


def as_path(name: str, path: Any) -> Path:
    """Return a path, with ~ in it resolved, or raise an error that begins with the name of the argument."""
    try:
        return Path(atomic_files.as_path(path, name)).expanduser()
    except RuntimeError as error:  # of no user's home
        raise ValueError(f"{name}: {error}") from None


def first_line(error: Any) -> str:
    """Return the first line of an error's text, of bounded length: damaged files are quoted in some of them."""
    return short((str(error).strip() or type(error).__name__).splitlines()[0], quote=False)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever is raised while a file of this kind is interpreted into a FileFormatError that names it.

    Parsers have no list of what they raise on damaged input: among it are AttributeError, MemoryError and SyntaxError.
    """
    try:
        yield
    except FileFormatError:
        raise
    except Exception as error:
        raise FileFormatError(
            f"{path}: damaged or unreadable {kind} ({first_line(error)}); download it again, or make it anew"
        ) from error


def open_unpacked(path: Path) -> BinaryIO:
    """Open a regular file, unpacked if it is packed, as its first bytes tell.

    Parameters
    ----------
    path : Path

    Returns
    -------
    file object
        At its beginning.

    Raises
    ------
    FileFormatError
        If it is no regular file, is damaged, or holds more than `MAX_UNPACKED` bytes.
    OSError
        If it cannot be read.
    """
    file = atomic_files.open_regular(path)
    start = file.read(8)
    file.seek(0)
    module = next((module for magic, module in PACKED.items() if start.startswith(magic)), None)
    if module is None:
        return file
    unpacked = io.BytesIO()
    with file, reading(path, f"{module} file"), importlib.import_module(module).open(file) as packed:
        while part := packed.read(CHUNK):
            if unpacked.tell() + len(part) > MAX_UNPACKED:
                raise FileFormatError(
                    f"{path}: unpacks to more than {MAX_UNPACKED} bytes; unpack it yourself if that is meant"
                )
            unpacked.write(part)
    unpacked.seek(0)
    return unpacked


def unpacked_content(path: Path) -> bytes:
    """Return all bytes of a file, unpacked; raises as `open_unpacked` does."""
    with open_unpacked(path) as file:
        return file.read()


def text_lines(path: Path) -> list[str]:
    """Return the lines of a file of UTF-8 text, packed or not, without their ends.

    Line feeds, carriage returns, or both together end a line, and nothing else: form feeds are white space.
    """
    content = unpacked_content(path)
    with reading(path, "text file"):
        text = content.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
