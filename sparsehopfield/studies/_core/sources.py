"""Files that studies are of: their names as options, when they were written, and the digest of what was read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.optional import require
from sparsehopfield.data import datasets
from sparsehopfield.data._content import as_path

#: Of each file: its path, when it was written (in nanoseconds), and its bytes.
Stamps = tuple[tuple[str, int, int], ...]


def as_paths(name: str, value: Any) -> tuple[str, ...]:
    """Return one path or several, or none, as a tuple, each once; errors begin with the option's name."""
    if value is None or (isinstance(value, str | Sequence) and not value):
        return ()
    if not isinstance(value, str | os.PathLike | Sequence):
        raise TypeError(f"{name}: must be a path or a sequence of paths, got {type(value).__name__}")
    several = [value] if isinstance(value, str | os.PathLike) else value
    return tuple(dict.fromkeys(str(as_path(name, path)) for path in several))


def as_path_or_none(name: str, value: Any) -> str | None:
    """Return a path, with ~ in it resolved, or None; errors begin with the option's name."""
    return None if value is None else str(as_path(name, value))


def given_folder(data: str | None, what: str, source: str, instead: str = "") -> str:
    """Return the folder of data; where none is given, raise ValueError that says what it is for and where to get it."""
    if data is None:
        raise ValueError(
            f"data: {what} is read from a folder; give --data, or set SPARSEHOPFIELD_DATA; get it from {source}"
            + (f", or name {instead} by --file" if instead else "")
        )
    return data


@contextmanager
def naming_options() -> Iterator[None]:
    """Name a study's options `dataset` and `data` in errors of functions whose arguments are `name` and `root`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        argument, _, text = str(error).partition(": ")
        if (option := {"name": "dataset", "root": "data"}.get(argument)) is None:
            raise
        raise type(error)(f"{option}: {text}") from None


def load_dataset(dataset: str, data: str | os.PathLike[str] | None) -> datasets.ImageSet:
    """Load the images that a study's options name; errors begin with these."""
    with naming_options():
        return datasets.load(dataset, data)


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """Return when files were written and how long they are, so that what is kept of one is of that file; those that are
    not there are left out.
    """
    found = []
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            continue
        found.append((str(path), state.st_mtime_ns, state.st_size))
    return tuple(found)


def digest(*parts: Sequence[str] | NDArray[Any]) -> str:
    """Return the SHA-256 of texts and arrays: other texts, in another order or other parts, have another one."""
    whole = sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            whole.update(f"array {part.dtype.str} {part.shape}\n".encode())
            whole.update(np.ascontiguousarray(part).tobytes())
            continue
        whole.update(f"{len(part)} texts\n".encode())
        for text in part:
            content = text.encode()
            whole.update(f"{len(content)}\n".encode() + content)
    return whole.hexdigest()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let linear algebra use one thread, since the bits of its results depend on how many there are."""
    threadpoolctl = require("threadpoolctl", purpose="results that no number of threads changes", extra="studies")
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield
