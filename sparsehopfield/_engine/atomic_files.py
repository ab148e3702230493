"""Files that are written as a whole or not at all, so that a reader finds the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from sparsehopfield._engine.text import short
from sparsehopfield.errors import FileFormatError

__all__ = ["as_path", "atomic_write", "open_regular"]

# Errors of setting a mode where there are none, as on FAT, CIFS and some network and FUSE file systems.
NO_MODES = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def as_path(path: Any, name: str = "path") -> str:
    """Return a path as text that the system takes; errors begin with the name of the argument."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name}: must be a string or a path, got {type(path).__name__}") from None
    if "\0" in text:
        raise ValueError(f"{name}: cannot hold a NUL character, got {short(text)}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError(f"{name}: has characters that no name of a file has here, got {short(text)}") from None
    return text


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read it; raise FileFormatError if it is there and no regular file."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait; a folder has an error of its own
        raise FileFormatError(f"{path}: is no regular file")
    return open(path, "rb")


def _mode_of(target: str, path: str) -> int | None:
    """Return the mode of the file to be replaced, `target`, or None if there is none; errors name `path`."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise ValueError(f"path: {path} is there, and no regular file")
    return stat.S_IMODE(mode)


def _set_mode(file: BinaryIO, mode: int) -> None:
    """Set the mode of an open file, where the file system has modes."""
    try:
        os.fchmod(file.fileno(), mode)
    except OSError as error:
        if error.errno not in NO_MODES:
            raise


def _rename(temporary: str, target: str) -> None:
    """Put a file in the place of another; say what to do where the other is a mount."""
    try:
        os.replace(temporary, target)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise OSError(
                errno.EBUSY,
                "is a mount of its own, as when a container mounts a single file, so no new file can take its place: "
                "mount its folder instead, or write to another path",
            ) from None
        raise


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` as a whole when the block ends, or is removed when the block raises.

    It lies beside the file that `path` means, through links, under the name `.sparsehopfield-*.tmp`. Nobody else may
    read it until it has the mode of the old file, where the file system has modes, which is before anything is written.
    At the end it is brought to the disk, and renamed.

    Raises
    ------
    OSError
        If it cannot be written; names `path`, never the file beside it.
    TypeError, ValueError
        If `path` is no path, or is there and no regular file.
    """
    path = as_path(path)
    temporary = None
    try:
        target = os.path.realpath(path)  # the file that a link means, not the link
        mode, folder = _mode_of(target, path), os.path.dirname(target)
        temporary = os.path.join(folder, f".sparsehopfield-{os.urandom(8).hex()}.tmp")
        creation_mode = 0o666 if mode is None else 0o600  # 0o666 less the process's umask
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, creation_mode)) as file:
            if mode is not None and hasattr(os, "fchmod"):
                _set_mode(file, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, target)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from None
        raise
    with contextlib.suppress(OSError):  # not all file systems have this for folders
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
