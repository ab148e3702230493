"""Certificates of a sharded memory: margins, what they certify, copies.

A margin is a pattern's score with itself less the best with another. Patterns travel as queries: blocks of successive
patterns come to the coordinator, and go out to all shards, which give the best score with another pattern. So each
pattern is sent once from its shard, and once to every shard; the coordinator holds one block of them, and some numbers
of each pattern.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, ignoring_float_errors
from sparsehopfield._engine.chunked import chunks
from sparsehopfield._engine.concurrency import cached
from sparsehopfield._engine.executor import CoreExecutor
from sparsehopfield._engine.pattern_set import TYPE_CODES, PatternSet
from sparsehopfield._engine.separations import SEPARATIONS, SIMILARITIES
from sparsehopfield.distributed._shards import Engine, Request, Shard, Whole
from sparsehopfield.distributed._steps import Rows, finish, gather, merge
from sparsehopfield.inspect.certificates import Certificates, Duplicates, Rounding, critical_betas
from sparsehopfield.structures import Window

__all__ = ["ShardedCertificates"]

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
BLOCK_BYTES = 2**24  # of patterns that are queries at a time,
BLOCK_ROWS = 4096  # and how many they are at most


@dataclass(frozen=True, eq=False)
class Column:
    """One number of some patterns of the whole each, ascending by position.

    Attributes
    ----------
    position : ndarray of int64, shape (m,)
    number : ndarray, shape (m,)
    """

    position: Positions
    number: Array

    def merged(self, other: Column) -> Column:
        """Return the numbers of both."""
        position = np.concatenate([self.position, other.position])
        order = np.argsort(position, kind="stable")
        return Column(position[order], np.concatenate([self.number, other.number])[order])


@dataclass(frozen=True, eq=False)
class Largest:
    """The largest of some numbers for each query, (n,)."""

    number: Floats

    def merged(self, other: Largest) -> Largest:
        """Return the larger ones."""
        return Largest(np.maximum(self.number, other.number))


def column(shard: Shard, request: Request) -> Column:
    """Return one number of each pattern of a shard, as `options["what"]` says.

    "lengths" are those of the numbers that are stored, "hashes" such that equal rows have equal ones, "ids" the names.
    """
    request.check_version()
    what = request.options["what"]
    if what == "ids":
        number: Array = shard.ids
    elif what == "lengths":
        number = shard.certificates.lengths
    else:
        assert what == "hashes"
        number = row_hashes(shard)
    return Column(shard.first + np.arange(len(shard)), number)


def row_hashes(shard: Shard) -> Positions:
    """Return a hash of each pattern as an update returns it, (m,): the same in every process, -0.0 being 0.0."""
    hashes = np.empty(len(shard), np.int64)
    for some in chunks(len(shard), shard.stored.shape[1] * shard.stored.dtype.itemsize):
        rows = shard.certificates.rows(some) + 0.0
        digests = b"".join(blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
        hashes[some] = np.frombuffer(digests, np.int64)
    return hashes


def best_other(shard: Shard, request: Request) -> Largest:
    """Find the best score of each query, the pattern at its position in the whole, with another pattern of a shard.

    The request's `options["similarity"]` says what a score is.
    """
    request.check_version()
    similarity = request.options["similarity"]
    stored = shard.part_of(request.whole)
    if similarity != stored.similarity:
        stored = shard.certificates.under(similarity).pattern_set
    position, score = _core.nearest(stored.core(request.queries.dtype), request.queries, np.ones(1), 0, 2.0, 2)
    is_self = position[:, 0] == request.known_positions - shard.first
    return Largest(np.where(is_self, score[:, 1], score[:, 0]))


def as_queries_of_themselves(rows: Rows, whole: Whole, similarity: str) -> tuple[Array, Floats]:
    """Return patterns as queries (n, d) and their scores with themselves (n,), as the core takes margins.

    Under cosine similarity they are the unit rows.
    """
    scale = None if whole.scale == 1 else whole.scale
    stored = PatternSet(rows.patterns, None, similarity, copy=None, check_finite=False, scale=scale, index=False)
    queries = rows.patterns.astype(np.float32 if whole.scale != 1 else whole.dtype)
    if whole.scale != 1:
        queries = (queries * np.float32(whole.scale)).astype(whole.dtype, copy=False)
    queries = np.ascontiguousarray(queries)
    if similarity == "cosine":
        code, options = SIMILARITIES["dot"], (TYPE_CODES[whole.dtype], 1.0, False)
        norms = [_core.max_norm(_core.memory(row[None], None, code, *options)) for row in queries]
        queries *= (1 / np.array(norms)).astype(whole.dtype)[:, None]  # as csrc/retrieval/margins.c rounds them
    n = len(queries)
    executor = CoreExecutor(stored.core(whole.dtype), np.ones(1), SEPARATIONS["sparsemax"], Window(0).descriptor(n, n))
    _, position, score, _ = executor.associate(queries)
    assert np.array_equal(position, np.arange(n))
    return queries, score


class ShardedCertificates:
    """Certificates of the patterns that an engine reaches; each result is computed once and kept."""

    def __init__(self, engine: Engine, whole: Whole) -> None:
        self.engine, self.whole = engine, whole
        self._margins: dict[str, Floats] = {}

    def column(self, what: str) -> Array:
        """Return a number of each pattern, (M,): its length, hash or id."""
        found: Column = self.engine.reduce(column, Request(self.whole, options={"what": what}), merge)
        return found.number

    @cached
    def ids(self) -> Array:
        """Return the names of the patterns, (M,)."""
        return self.column("ids")

    @cached
    def lengths(self) -> Floats:
        """Return the lengths |xi| of the numbers that are stored, (M,)."""
        return self.column("lengths")

    def rounding(self, similarity: str) -> Rounding:
        """Return what rounding may do to gaps of scores."""
        longest, shortest = float(self.lengths.max()), float(self.lengths.min())
        return Rounding.of_lengths(similarity, self.whole.d, self.whole.dtype, longest, shortest)

    @ignoring_float_errors()
    def margins(self, similarity: str) -> Floats:
        """Return the margins, (M,), under the memory's similarity or another: by blocks of patterns as queries."""
        if similarity in self._margins:
            return self._margins[similarity]
        whole = self.whole
        step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (whole.d * whole.dtype.itemsize)))
        margins = np.empty(whole.count)
        for first in range(0, whole.count, step):
            positions = np.arange(first, min(first + step, whole.count))
            request = Request(whole, positions=positions, values=False, options={"similarity": similarity})
            queries, own = as_queries_of_themselves(self.engine.reduce(gather, request, merge), whole, similarity)
            others: Largest = self.engine.reduce(best_other, replace(request, queries=queries), merge)
            margins[first : first + len(positions)] = own - others.number
        return self._margins.setdefault(similarity, margins)

    def critical_betas(self, cutoff: float) -> Floats:
        """Return the smallest beta, (M,), at which each pattern is certified."""
        similarity = self.whole.similarity
        lower = self.rounding(similarity).lowered(self.margins(similarity), self.lengths)
        return critical_betas(lower, cutoff)

    @ignoring_float_errors()
    def duplicates(self, within: float, most: int) -> Duplicates:
        """Find all pairs of patterns at most `within` apart.

        Rows that have a copy, or another row that near, are brought together, and compared with one another.
        """
        if within > 0:
            similarity = "euclidean" if self.whole.similarity == "dot" else self.whole.similarity
            gaps = self.rounding(similarity).near_gaps(self.lengths, within)
            chosen = np.flatnonzero(self.margins(similarity) <= gaps)
        else:
            _, key, count = np.unique(self.column("hashes"), return_inverse=True, return_counts=True)
            chosen = np.flatnonzero(count[key] > 1)
        if len(chosen) == 0:
            return Duplicates(within, self.whole.count, np.empty((0, 2), np.int64), np.empty(0), [])
        rows: Rows = self.engine.reduce(gather, Request(self.whole, positions=chosen, values=False), merge)
        found = Certificates(finish(rows, self.whole).pattern_set).duplicates(within, most)
        groups = [rows.position[group] for group in found.groups]
        ids = rows.ids[found.pairs] if self.whole.named else None
        return Duplicates(within, self.whole.count, rows.position[found.pairs], found.distance, groups, ids)
