"""The object that a future of a shard stands for, and the tasks that make it, of its source or of the one before."""

from __future__ import annotations

import mmap
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine import files
from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.pattern_set import IndexUse
from sparsehopfield._engine.resources import process_memory
from sparsehopfield.distributed._files import ShardFile, write_shard
from sparsehopfield.distributed._shards import Shard, Whole
from sparsehopfield.distributed._sources import mapping_of, read_rows
from sparsehopfield.errors import FileFormatError

__all__ = ["Facts", "Held", "Piece", "facts", "load", "release_pages", "replaced", "used_ids", "verify", "write"]

RESIDENT = 0.5  # of a worker's memory limit: above this, pages of mapped files are given back after a task
CODED = 6  # of the bytes of mapped patterns one in so many is counted as memory: what an index of them has


@dataclass(frozen=True)
class Piece:
    """Which rows of the whole a shard is made of, and under what model; `load` is given the rows besides."""

    number: int  # of the shard
    first: int  # position of its first pattern
    first_row: int  # its row in the whole, removed ones counted
    similarity: str
    scale: float | None
    index: IndexUse
    first_id: int | None = None  # ids follow one another from it; None: they are given, or the numbers of the rows
    argument: str = "source"  # that the rows were given as


@dataclass(frozen=True)
class Facts:
    """The facts of a shard that the coordinator keeps."""

    whole: Whole
    fingerprint: int  # of the rows that were read
    least_id: int
    largest_id: int


@dataclass(frozen=True, eq=False)
class Held:
    """A shard in the memory of a worker, and from where it can be read again."""

    shard: Shard
    piece: Piece
    fingerprint: int  # of the rows that were read, whatever was removed since
    sources: tuple[Any, Any, Any] | None  # descriptions of patterns, values and ids; None: they came as arrays
    maps: tuple[mmap.mmap, ...] = field(default=())

    def __sizeof__(self) -> int:
        """Return the bytes that the worker holds of it, by which Dask decides where tasks run and what is spilled.

        Of mapped rows an index is counted, which is all that need stay in memory.
        """
        stored = self.shard.stored
        arrays = [a for a in (stored.storage, stored.value_storage) if a is not None]
        total = sum(a.nbytes // (CODED if mapping_of(a) is not None else 1) for a in arrays)
        return sys.getsizeof(self.piece) + total + 16 * len(self.shard)  # norms, ids

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle descriptions in place of rows, where there are any: whoever receives it reads them itself."""
        if self.sources is None:
            return Held, (self.shard, self.piece, self.fingerprint, None)
        shard = self.shard
        left = None
        if len(shard) != shard.end_row - shard.first_row:
            left = shard.row_numbers - self.piece.first_row
        place = shard.first, shard.first_row, shard.end_row
        return _read_again, (self.piece, self.sources, self.fingerprint, left, *place)

    def check(self, fingerprint: int) -> None:
        """Raise unless the rows are those that the shard was made of first."""
        if self.fingerprint != fingerprint:
            raise RuntimeError(
                f"{self.piece.argument}: {_description(self.piece, len(self.shard))}, was read again as its worker was "
                "lost, and has changed since the memory was made; make a new memory"
            )


def _description(piece: Piece, n: int) -> str:
    """Return the words for a shard of n rows in messages."""
    return f"shard {piece.number}, rows {piece.first_row} to {piece.first_row + n - 1}"


def _explained(error: Exception, piece: Piece, patterns: Any, values: Any, n: int) -> Exception:
    """Return an error of a shard's rows in words that name the rows of the whole, and of the file they lie in."""
    text = str(error)
    found = re.match(r"(patterns|values): row (\d+) (.*)", text, re.DOTALL)
    if not found:
        return type(error)(f"{piece.argument}: {_description(piece, n)}: {text}")
    row = int(found[2])
    rows = patterns if found[1] == "patterns" else values
    place = rows.name_of(row) if hasattr(rows, "name_of") else ""
    argument = piece.argument if found[1] == "patterns" else "values"
    place = f" ({place})" if place else ""
    return type(error)(f"{argument}: row {piece.first_row + row}{place} {found[3]}; in {_description(piece, n)}")


def load(piece: Piece, patterns: Any, values: Any, ids: Any) -> Held:
    """Read the rows of a shard and make them ready, in a worker; mapped where they lie in one piece of a file."""
    given = patterns, values, ids
    rows, mixed, names = (None if a is None else read_rows(a) for a in given)
    assert rows is not None
    if names is None and piece.first_id is not None:
        names = np.arange(piece.first_id, piece.first_id + len(rows))
    try:
        shard = Shard(
            rows,
            mixed,
            first=piece.first,
            first_row=piece.first_row,
            ids=names,
            similarity=piece.similarity,
            scale=piece.scale,
            index=piece.index,
        )
    except FileFormatError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise _explained(error, piece, patterns, values, len(rows)) from None
    stored = shard.stored
    maps = [mapping_of(a) for a in (stored.storage, stored.value_storage) if a is not None]
    held = Held(
        shard,
        piece,
        _core.fingerprint(stored.core(stored.dtype)),
        None if isinstance(patterns, np.ndarray) else given,
        tuple(m for m in maps if m is not None),
    )
    release_pages(held.maps)
    return held


def _read_again(
    piece: Piece,
    sources: tuple[Any, Any, Any],
    fingerprint: int,
    left: NDArray[np.int64] | None,
    first: int,
    first_row: int,
    end_row: int,
) -> Held:
    """Make a shard that was sent as descriptions; left: which of its rows are left, where some were removed."""
    held = load(piece, *sources)
    held.check(fingerprint)
    removed = None
    if left is not None:
        is_removed = np.ones(len(held.shard), np.bool_)
        is_removed[left] = False
        removed = np.flatnonzero(is_removed)
    return replaced(held, removed, first, first_row, end_row)


def replaced(held: Held, removed: NDArray[np.int64] | None, first: int, first_row: int, end_row: int) -> Held:
    """Return the shard without some patterns, whose positions in it are given, at another place of the whole."""
    shard = held.shard if removed is None else held.shard.without(removed)
    shard = shard.moved(first).spanning(first_row, end_row)
    return Held(shard, held.piece, held.fingerprint, held.sources, held.maps)


def release_pages(maps: Sequence[mmap.mmap]) -> None:
    """Give pages of mapped files back to the system, in a worker that is near its limit of memory.

    Pages that were read count as the worker's memory, and Dask stops workers that exceed their limit; the system has
    them still, and maps them again where they are read.
    """
    if not maps or not hasattr(mmap, "MADV_DONTNEED"):
        return
    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # not in a worker
        return
    if limit and process_memory("VmRSS") > RESIDENT * limit:
        for mapped in maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def facts(held: Held) -> Facts:
    """Return what the coordinator keeps of a shard."""
    ids = held.shard.ids
    return Facts(held.shard.whole, held.fingerprint, int(ids.min()), int(ids.max()))


def ids_of(held: Held) -> NDArray[np.int64]:
    """Return the ids of a shard, (m,)."""
    return held.shard.ids


def used_ids(held: Held, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of some ids that patterns of a shard have."""
    return others[np.isin(others, held.shard.ids)]


def write(held: Held, folder: str, name: str, model: files.Model, with_ids: bool) -> ShardFile:
    """Write a shard to its file."""
    patterns, values = held.shard.stored.arrays()
    tensors: dict[str, Array | None] = {
        "patterns": patterns,
        "values": values,
        "ids": held.shard.ids if with_ids else None,
    }
    return write_shard(folder, name, model, {key: a for key, a in tensors.items() if a is not None})


def verify(path: str) -> None:
    """Raise FileFormatError unless the data of a shard's file have their checksum."""
    files.read(path, mmap=True, verify=True, index=False)
