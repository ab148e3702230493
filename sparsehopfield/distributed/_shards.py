"""The pieces of a sharded memory: shards, facts of the whole, requests, and engines that bring requests to shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, as_ids, as_list, as_positions, as_whole
from sparsehopfield._engine.chunked import take_rows
from sparsehopfield._engine.concurrency import cached
from sparsehopfield._engine.pattern_set import IndexUse, PatternSet
from sparsehopfield._engine.text import short
from sparsehopfield.inspect.certificates import Certificates

__all__ = ["BLOCK", "Engine", "Outline", "Request", "Serial", "Shard", "Span", "Whole"]

BLOCK = 4096  # rows of a block: shards begin at multiples of it, and sums over all patterns are made block by block
VERSION = _core.__version__

Part = TypeVar("Part")


@dataclass(frozen=True)
class Span:
    """Where a shard lies in the whole.

    Attributes
    ----------
    first, count : int
        Position of its first pattern, and how many patterns it has.
    first_row, end_row : int
        The rows of the source that it was made of, removed ones among them.
    """

    first: int
    count: int
    first_row: int
    end_row: int


@dataclass(frozen=True)
class Whole:
    """Facts of all patterns of all shards, by which limits go; of one shard those of its own.

    Attributes
    ----------
    count : int
        How many patterns there are.
    max_norm : float
        Length of the longest; 1 under cosine similarity.
    d, width : int
        Features of a pattern, and numbers of a row that is mixed: of the values, if there are any.
    dtype : numpy.dtype
        In which results of queries of the same or a smaller dtype are computed.
    types : tuple of numpy.dtype
        Of the rows as they are stored: of the patterns, and of the values if there are any.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is.
    scale : float
        What stored uint8 and float16 patterns are multiplied with.
    spans : tuple of Span
        Where the shards lie, ascending: the position of the first pattern and the number of patterns, `first` and
        `count`, and the rows of the source, `first_row` to `end_row - 1`.
    block : int
        Rows of a block, see `Shard`.
    named : bool
        Whether patterns have names other than their positions.

    See Also
    --------
    Coordinator : Hold this of all shards as `whole`.
    Shard : Hold this of its own patterns as `whole`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
    >>> whole = Coordinator(Serial([Shard(np.eye(4)[:3]), Shard(np.eye(4)[3:], first=3)])).whole
    >>> whole.count, whole.d, [(span.first, span.count) for span in whole.spans]
    (4, 4, [(0, 3), (3, 1)])
    """

    count: int
    max_norm: float
    d: int
    width: int
    dtype: np.dtype[Any]
    types: tuple[np.dtype[Any], ...]
    similarity: str
    scale: float
    spans: tuple[Span, ...]
    block: int = BLOCK
    named: bool = False

    @property
    def has_values(self) -> bool:
        """Return whether values are mixed in place of the patterns."""
        return len(self.types) > 1

    @property
    def rows(self) -> int:
        """Return how many rows the source has, removed ones among them."""
        return self.spans[-1].end_row

    @property
    def blocks(self) -> int:
        """Return how many blocks these rows are."""
        return -(-self.rows // self.block)

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a stored pattern and its values."""
        return sum(n * t.itemsize for n, t in zip((self.d, self.width), self.types, strict=False))

    def without_spans(self) -> Whole:
        """Return the same facts with one span of all patterns: what requests need, of the same size for any shards.

        Returns
        -------
        Whole
            `spans` has one entry.

        See Also
        --------
        Request : Hold such facts.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> whole = Shard(np.eye(4)[:3]).whole.merged(Shard(np.eye(4)[3:], first=3).whole)
        >>> len(whole.spans), whole.without_spans().spans
        (2, (Span(first=0, count=4, first_row=0, end_row=4),))
        """
        return replace(self, spans=(Span(0, self.count, 0, self.rows),))

    def merged(self, other: Whole) -> Whole:
        """Return the facts of the patterns of both.

        Parameters
        ----------
        other : Whole
            The facts of other shards.

        Returns
        -------
        Whole
            Of all these shards, their spans in ascending order. Gaps and overlaps are left to `checked`.

        Raises
        ------
        ValueError
            If they cannot be of one whole; the message says what differs, and between which rows.

        See Also
        --------
        checked : Refuse gaps and overlaps.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> whole = Shard(3 * np.eye(4)[:3]).whole.merged(Shard(np.eye(4)[3:], first=3).whole)
        >>> whole.count, whole.max_norm
        (4, 3.0)
        """
        names = {"d": "features", "width": "width of values", "dtype": "dtype", "types": "stored dtypes"}
        for name in ("d", "types", "width", "dtype", "similarity", "scale", "block"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                if name == "types":
                    mine, theirs = (tuple(map(str, types)) for types in (mine, theirs))
                raise ValueError(
                    f"shards: differ in {names.get(name, name)}: {mine} from row {self.spans[0].first_row} on, "
                    f"{theirs} from row {other.spans[0].first_row} on"
                )
        spans = tuple(sorted((*self.spans, *other.spans), key=lambda span: (span.first_row, span.first)))
        return replace(
            self,
            count=self.count + other.count,
            max_norm=max(self.max_norm, other.max_norm),
            spans=spans,
            named=self.named or other.named,
        )

    def checked(self) -> Whole:
        """Return the same, unless there are gaps or overlaps: shards must lie one behind the other.

        Returns
        -------
        Whole
            This object.

        Raises
        ------
        ValueError
            If a shard does not begin, by its position and its row, where the one before it ends.

        See Also
        --------
        merged : Return the facts of the patterns of two.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> Shard(np.eye(2)).whole.merged(Shard(np.eye(2), first=3).whole).checked()
        Traceback (most recent call last):
            ...
        ValueError: shards: one begins at position 3, row 3, where the one before it ends at position 2, row 2
        """
        first = row = 0
        for span in self.spans:
            if span.first != first or span.first_row != row:
                raise ValueError(
                    f"shards: one begins at position {span.first}, row {span.first_row}, where the one before it ends "
                    f"at position {first}, row {row}"
                )
            first, row = span.first + span.count, span.end_row
        return self

    def outline(self) -> Outline:
        """Return a pattern set without rows, for calls that others carry out.

        Returns
        -------
        Outline
            It has the shape and the dtypes of all patterns; where their numbers are needed it raises
            NotImplementedError.

        See Also
        --------
        Coordinator : Check queries by such a set.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> outline = Shard(np.eye(4)[:3]).whole.outline()
        >>> len(outline), outline.dtype
        (3, dtype('float64'))
        """
        return Outline(self)


class Outline(PatternSet):
    """A pattern set that says of the whole what calls ask, and has no rows."""

    def __init__(self, whole: Whole) -> None:
        values = np.empty((1, whole.width), whole.types[1]) if whole.has_values else None
        scale = None if whole.scale == 1 else whole.scale
        rows = np.empty((1, whole.d), whole.types[0])
        super().__init__(rows, values, whole.similarity, copy=None, check_finite=False, scale=scale, index=False)
        self.count = whole.count

    def __len__(self) -> int:
        return self.count

    def core(self, dtype: np.dtype[Any]) -> Any:
        """Raise, as there are no rows here."""
        raise NotImplementedError("patterns: are in the shards")


class Shard:
    """Successive patterns of the whole, checked and made ready: the part of a sharded memory that one worker holds.

    Parameters
    ----------
    patterns : array_like, shape (m, d)
        One row a pattern, as of `HopfieldMemory`.
    values : array_like, shape (m, v), optional
        What a retrieval returns a mixture of; the patterns themselves by default. All shards have values, or none.
    first : int, at least 0
        Position of its first pattern in the whole.
    first_row : int, at least 0, optional
        The row of the source that this pattern is, `first` by default. A multiple of `block`, where separations that
        give weight to all patterns are used.
    ids : array_like of int, shape (m,), optional
        Names of the patterns, distinct; by default the numbers of their rows.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `HopfieldMemory`; the same for all shards.
    scale : float, optional
        What uint8 and float16 patterns are multiplied with, 1 by default; the same for all shards.
    index : {"auto", True, False}
        Whether searches in this shard use an index, as of `HopfieldMemory`.
    check_finite : bool
        False skips the pass over `values`.
    copy : bool, optional
        True copies patterns and values; None and False copy only what the core cannot read in place. A borrowed array
        must not be changed while the shard lives.
    block : int, at least 1
        Rows of the source that are a block: for separations that give weight to all patterns sums are made block by
        block, and joined in an order that goes by the blocks alone, so that results do not depend on how many shards
        there are. The same for all shards.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault, rows counted from the shard's first.

    See Also
    --------
    Serial : Ask shards in this process.
    Coordinator : Answer queries by all shards.

    Notes
    -----
    A shard never changes: `moved` and `without` return others, which share its arrays. Pickled, it is its arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
    >>> X = np.eye(4)
    >>> memory = Coordinator(Serial([Shard(X[:2]), Shard(X[2:], first=2)]), beta=4.0)
    >>> memory.update([0.1, 0.0, 0.9, 0.0])
    array([0., 0., 1., 0.])
    """

    def __init__(
        self,
        patterns: ArrayLike,
        values: ArrayLike | None = None,
        *,
        first: int = 0,
        first_row: int | None = None,
        ids: ArrayLike | None = None,
        similarity: str = "dot",
        scale: float | None = None,
        index: IndexUse = "auto",
        check_finite: bool = True,
        copy: bool | None = None,
        block: int = BLOCK,
    ) -> None:
        self.first = as_whole("first", first, 0)
        self.first_row = self.first if first_row is None else as_whole("first_row", first_row, 0)
        self.block = as_whole("block", block, 1)
        self.stored = PatternSet(
            patterns, values, similarity, copy=copy, check_finite=check_finite, scale=scale, index=index
        )
        self.end_row = self.first_row + len(self.stored)
        self._given_ids = None if ids is None else as_ids(ids, len(self.stored))
        self._rows: NDArray[np.int64] | None = None  # of the source, counted from first_row; None: as in the storage
        self.stored.core(self.stored.dtype)  # checks the patterns now
        self._part = self.stored

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        return (
            f"Shard({len(self)} patterns of {self.stored.shape[1]} features, {self.stored.dtype}, positions "
            f"{self.first} to {self.first + len(self) - 1}, rows {self.first_row} to {self.end_row - 1})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        patterns, values = self.stored.arrays()
        options = {
            "first": self.first,
            "first_row": self.first_row,
            "ids": self._given_ids,
            "similarity": self.stored.similarity,
            "scale": None if self.stored.scale == 1 else self.stored.scale,
            "index": self.stored.index,
            "check_finite": self.stored.check_finite,
            "block": self.block,
        }
        rows = self.row_numbers - self.first_row if self._has_gaps else None
        return _rebuild, (patterns, values, options, rows, self.end_row)

    @property
    def _has_gaps(self) -> bool:
        """Return whether some rows of the source are removed."""
        return len(self) != self.end_row - self.first_row

    @cached
    def row_numbers(self) -> NDArray[np.int64]:
        """Return which rows of the source the patterns are, (m,), ascending."""
        rows = self.stored.rows if self._rows is None else self._rows
        return self.first_row + rows

    @cached
    def ids(self) -> NDArray[np.int64]:
        """Return the names of the patterns, (m,)."""
        return self.row_numbers if self._given_ids is None else self._given_ids

    @property
    def whole(self) -> Whole:
        """Return the facts of this shard alone."""
        stored = self.stored
        storages = [a for a in (stored.storage, stored.value_storage) if a is not None]
        return Whole(
            count=len(self),
            max_norm=stored.max_norm,
            d=stored.shape[1],
            width=stored.width,
            dtype=stored.dtype,
            types=tuple(a.dtype for a in storages),
            similarity=stored.similarity,
            scale=stored.scale,
            spans=(Span(self.first, len(self), self.first_row, self.end_row),),
            block=self.block,
            named=self._given_ids is not None or self._has_gaps or self.first != self.first_row,
        )

    def moved(self, first: int) -> Shard:
        """Return the same shard, whose first pattern has another position, as others before it were removed.

        Parameters
        ----------
        first : int, at least 0
            The position of its first pattern in the whole.

        Returns
        -------
        Shard
            It shares the patterns with this one.

        See Also
        --------
        without : Return a shard without some patterns, behind which others move.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> Shard(np.eye(4)[2:], first=2).moved(1)
        Shard(2 patterns of 4 features, float64, positions 1 to 2, rows 2 to 3)
        """
        other = self._copy()
        other.first = as_whole("first", first, 0)
        return other

    def spanning(self, first_row: int, end_row: int) -> Shard:
        """Return the same shard, to which other rows of the source belong: those beside its own are removed ones.

        Parameters
        ----------
        first_row, end_row : int
            The rows of the source that belong to the shard, `first_row` to `end_row - 1`; patterns keep the rows that
            they are.

        Returns
        -------
        Shard
            It shares the patterns with this one.

        Raises
        ------
        ValueError
            If rows of its patterns are not among them.

        See Also
        --------
        without : Return a shard without some patterns, whose rows still belong to it.

        Examples
        --------
        Rows 2 and 3 of the source, from which rows 0 and 1 were removed:

        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> shard = Shard(np.eye(4)[2:], first=0, first_row=2).spanning(0, 4)
        >>> shard, shard.row_numbers
        (Shard(2 patterns of 4 features, float64, positions 0 to 1, rows 0 to 3), array([2, 3]))
        """
        numbers = self.row_numbers
        if not first_row <= numbers[0] <= numbers[-1] < end_row:
            raise ValueError(f"first_row: {first_row} to {end_row} must hold rows {numbers[0]} to {numbers[-1]}")
        other = self._copy()
        other.first_row, other.end_row, other._rows = first_row, end_row, numbers - first_row
        return other

    def without(self, positions: Any) -> Shard:
        """Return a shard without some patterns; those behind them move up.

        Parameters
        ----------
        positions : int, slice, array_like of int, or mask of shape (m,)
            Counted from the shard's first pattern, as in `numpy.delete`; not all.

        Returns
        -------
        Shard
            The patterns that are left.

        Raises
        ------
        IndexError, ValueError, TypeError
            As `HopfieldMemory.remove`.

        See Also
        --------
        moved : Return the shards behind this one at their new positions.
        sparsehopfield.HopfieldMemory.remove : Remove patterns of a memory.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> left = Shard(np.eye(4), first=10).without([1])
        >>> left, left.ids
        (Shard(3 patterns of 4 features, float64, positions 10 to 12, rows 10 to 13), array([10, 12, 13]))
        """
        removed = as_positions(positions, len(self))
        if len(removed) == 0:
            return self
        if len(removed) == len(self):
            raise ValueError("positions: would remove all patterns of a shard, which has at least one")
        other = self._copy()
        left = np.delete(np.arange(len(self)), removed)
        other.stored = self._part.without(removed)  # which has the index, if there is one
        other._rows = self.row_numbers[left] - self.first_row
        other._given_ids = None if self._given_ids is None else self._given_ids[left]
        other._part = other.stored
        return other

    def _copy(self) -> Shard:
        """Return a shard of the same attributes, without what was computed of them."""
        other = Shard.__new__(Shard)
        kept = ("first", "first_row", "end_row", "block", "stored", "_given_ids", "_rows", "_part")
        other.__dict__.update({name: self.__dict__[name] for name in kept})
        return other

    # --- what steps ask of a shard --------------------------------------------------------------------

    def part_of(self, whole: Whole | None) -> PatternSet:
        """Return the patterns as part of a whole, by whose facts their calls go.

        All searches are of this set, so that they share its index.

        Parameters
        ----------
        whole : Whole or None
            Facts of the patterns of all shards; None: those that it was last asked with, its own at first.

        Returns
        -------
        PatternSet
            The patterns of this shard, which know how many there are in the whole, and how long the longest is.

        See Also
        --------
        scout : Find the best patterns of a shard by this set.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> shard = Shard(np.eye(4)[:3])
        >>> part = shard.part_of(shard.whole.merged(Shard(2 * np.eye(4)[3:], first=3).whole))
        >>> len(part), part.whole
        (3, (4, 2.0))
        """
        part = self._part
        if whole is not None and part.whole != (whole.count, whole.max_norm):
            part = self._part = part.as_part_of(whole.count, whole.max_norm)
        return part

    @cached
    def certificates(self) -> Certificates:
        """Return the certificates of these patterns alone."""
        return Certificates(self.stored)

    def local(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some positions of the whole that lie in the shard, as positions in it.

        Parameters
        ----------
        positions : ndarray of int64, shape (n,)
            Positions in the whole.

        Returns
        -------
        ndarray of int64
            Counted from the shard's first pattern, in their order; those of other shards are left out.

        See Also
        --------
        gather : Return the rows at positions of the whole.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> Shard(np.eye(3), first=7).local(np.array([2, 8, 9, 10]))
        array([1, 2])
        """
        here = positions - self.first
        return here[(here >= 0) & (here < len(self))]

    @cached
    def _block_sets(self) -> dict[bool, dict[int, PatternSet]]:
        """Return the pattern sets of blocks that were asked for, by whether they have values, and by their numbers."""
        return {False: {}, True: {}}

    def blocks(self, *, values: bool) -> Iterator[tuple[int, PatternSet | None]]:
        """Yield the shard's blocks of rows, which sums over all patterns are made of.

        Parameters
        ----------
        values : bool
            Whether what is mixed are the values, if there are any, rather than the patterns.

        Yields
        ------
        number : int
            The number of the block in the whole.
        patterns : PatternSet or None
            The patterns of the block; None if all its rows are removed.

        Raises
        ------
        ValueError
            If the shard does not begin where a block does.

        See Also
        --------
        sums : Sum over the patterns of each block.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Shard
        >>> shard = Shard(np.eye(5), first=4, block=2)
        >>> [(number, len(patterns)) for number, patterns in shard.blocks(values=False)]
        [(2, 2), (3, 2), (4, 1)]
        """
        if self.first_row % self.block:
            raise ValueError(
                f"shards: one begins at row {self.first_row}, which is no multiple of {self.block}: sums over all "
                f"patterns need shards of whole blocks of {self.block} rows"
            )
        sets = self._block_sets[values and self.stored.value_storage is not None]
        numbers = np.arange(self.first_row // self.block, -(-self.end_row // self.block))
        bounds = np.searchsorted(self.row_numbers, np.append(numbers, numbers[-1] + 1) * self.block)
        for number, first, last in zip(numbers.tolist(), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if first == last:
                yield number, None
                continue
            if number not in sets:
                sets[number] = self._rows_as_set(np.arange(first, last), values=values)
            yield number, sets[number]

    def _rows_as_set(self, positions: NDArray[np.int64], *, values: bool) -> PatternSet:
        """Return successive patterns of the shard as a pattern set: views where none between them is removed."""
        stored = self.stored
        rows = stored.rows_of(positions)
        together = slice(int(rows[0]), int(rows[-1]) + 1)

        def taken(storage: Array) -> Array:
            return storage[together] if together.stop - together.start == len(rows) else take_rows(storage, rows)

        return PatternSet(
            taken(stored.storage),
            taken(stored.value_storage) if values and stored.value_storage is not None else None,
            stored.similarity,
            copy=None,
            check_finite=False,
            scale=None if stored.scale == 1 else stored.scale,
            index=False,
        )


def _rebuild(
    patterns: Array, values: Array | None, options: dict[str, Any], rows: NDArray[np.int64] | None, end_row: int
) -> Shard:
    """Make a shard anew where it is unpickled."""
    shard = Shard(patterns, values, **options)
    shard._rows, shard.end_row = rows, end_row
    return shard


@dataclass(frozen=True, eq=False)
class Request:
    """A batch of queries under a model, and what a step asks besides; small, and pickled as it is.

    Attributes
    ----------
    whole : Whole or None
        Facts of all patterns, without where the shards lie; None where they are asked for.
    queries : ndarray, shape (n, d)
        Of the dtype that results have.
    beta : ndarray of float64, shape (1,) or (n,)
        Inverse temperature, one for all queries, or one each.
    code : (int, float)
        The separation: the number of its map and its parameter.
    k : int
        Of `TopK`; 0: all patterns count.
    first : int
        How many queries of the call come before these, for messages.
    count : int
        Of `scout`: how many of the best scores.
    floor : ndarray of float64, shape (n,), or None
        Of `partial`: lower scores are not listed.
    most : int
        Of `partial` for softmax: how many patterns a list may have.
    positions : ndarray of int64, or None
        Patterns of the whole that are asked for, or are the queries.
    values : bool
        Whether values are mixed, where there are any.
    options : dict
        Whatever else a step needs.
    version : str
        Of the package that made the request; others refuse it.

    See Also
    --------
    Engine.reduce : Bring a request to every shard.
    scout : Answer one, as the other steps do.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Request, Shard, scout
    >>> shard = Shard(np.eye(3))
    >>> request = Request(shard.whole, np.array([[0.9, 0.2, 0.0]]), count=2)
    >>> request.code, request.beta, scout(shard, request).position  # sparsemax at beta 1
    ((0, 2.0), array([1.]), array([[0, 1]]))
    """

    whole: Whole | None = None
    queries: Array = field(default_factory=lambda: np.empty((0, 1), np.float32))
    beta: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    code: tuple[int, float] = (0, 2.0)
    k: int = 0
    first: int = 0
    count: int = 0
    floor: NDArray[np.float64] | None = None
    most: int = 0
    positions: NDArray[np.int64] | None = None
    values: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    version: str = VERSION

    def __post_init__(self) -> None:
        """Leave out where the shards lie: a request goes to each of them, and none asks."""
        if self.whole is not None and len(self.whole.spans) > 1:
            object.__setattr__(self, "whole", self.whole.without_spans())

    @property
    def known_whole(self) -> Whole:
        """Return the facts of the whole; raise ValueError where there are none."""
        if self.whole is None:
            raise ValueError("request: needs the facts of the whole")
        return self.whole

    @property
    def known_positions(self) -> NDArray[np.int64]:
        """Return the positions; raise ValueError where there are none."""
        if self.positions is None:
            raise ValueError("request: needs positions")
        return self.positions

    def check_version(self) -> None:
        """Refuse a request of another version of the package.

        Raises
        ------
        RuntimeError
            If the request was made by another version than this worker has.

        See Also
        --------
        scout : Check this first, as the other steps do.

        Examples
        --------
        >>> from sparsehopfield.distributed import Request
        >>> Request(version="0.0").check_version()
        Traceback (most recent call last):
            ...
        RuntimeError: version: this worker has sparsehopfield ..., and the request is of 0.0; results could be those of
            neither: install one version everywhere
        """
        if self.version != VERSION:
            raise RuntimeError(
                f"version: this worker has sparsehopfield {VERSION}, and the request is of {self.version}; results "
                "could be those of neither: install one version everywhere"
            )


class Engine(Protocol):
    """A way to bring requests to shards: one method, which may run anywhere and in any order.

    See Also
    --------
    Serial : Ask the shards of a list one after the other: the simplest engine.
    Coordinator : Answer queries by an engine.

    Examples
    --------
    Shards of one process, each asked in a thread of its own:

    >>> import functools, itertools
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Coordinator, Shard
    >>> class Threads:
    ...     def __init__(self, shards):
    ...         self.shards = shards
    ...
    ...     def reduce(self, function, request, merge):
    ...         with ThreadPoolExecutor() as pool:
    ...             return functools.reduce(merge, pool.map(function, self.shards, itertools.repeat(request)))
    >>> X = np.eye(4)
    >>> Coordinator(Threads([Shard(X[:2]), Shard(X[2:], first=2)]), beta=4.0).update([0.1, 0.0, 0.9, 0.0])
    array([0., 0., 1., 0.])
    """

    def reduce(
        self, function: Callable[[Shard, Request], Part], request: Request, merge: Callable[[Part, Part], Part]
    ) -> Part:
        """Return the results of a function of every shard and the request, merged in pairs, in any grouping.

        Parameters
        ----------
        function : callable
            What is called with every shard and the request: a function of this package, at the top of its module, so
            that it can be pickled by name.
        request : Request
            What is asked of every shard.
        merge : callable
            Joins two results; associative, and it does not matter which comes first.

        Returns
        -------
        object
            The one result that is left: of all shards.

        See Also
        --------
        merge : Join the results of two shards.
        Serial.reduce : Do this one shard after the other.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Request, Serial, Shard, merge, scout
        >>> engine = Serial([Shard(np.eye(4)[:2]), Shard(np.eye(4)[2:], first=2)])
        >>> best = engine.reduce(scout, Request(queries=np.array([[0.1, 0.4, 0.3, 0.2]]), count=2), merge)
        >>> best.position, best.score
        (array([[1, 2]]), array([[0.4, 0.3]]))
        """


class Serial:
    """The simplest engine: a list of shards in this process, asked one after the other.

    Parameters
    ----------
    shards : iterable of Shard
        At least one, in any order.

    Raises
    ------
    ValueError, TypeError
        Naming `shards`.

    See Also
    --------
    Engine : Say what other engines must do.
    Coordinator : Answer queries by an engine.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
    >>> X = np.random.default_rng(0).standard_normal((100, 64))
    >>> engine = Serial([Shard(X[:64]), Shard(X[64:], first=64)])
    >>> np.array_equal(Coordinator(engine, beta=4.0).retrieve(X[70] + 0.1), X[70])
    True
    """

    def __init__(self, shards: Iterable[Shard]) -> None:
        self.shards = as_list("shards", shards, "a sequence of Shard")
        if not self.shards:
            raise ValueError("shards: needs at least one")
        if wrong := [s for s in self.shards if not isinstance(s, Shard)]:
            raise TypeError(f"shards: must be Shard, got {short(wrong[0])}")

    def reduce(
        self, function: Callable[[Shard, Request], Part], request: Request, merge: Callable[[Part, Part], Part]
    ) -> Part:
        """Return the results of a function of every shard and the request, merged from the first on.

        Parameters
        ----------
        function : callable
            What is called with every shard and the request.
        request : Request
            What is asked of every shard.
        merge : callable
            Joins two results.

        Returns
        -------
        object
            The one result that is left: of all shards.

        See Also
        --------
        Engine.reduce : Say what this must do.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Request, Serial, Shard, gather, merge
        >>> engine = Serial([Shard(np.eye(3)[:2]), Shard(np.eye(3)[2:], first=2)])
        >>> engine.reduce(gather, Request(positions=np.array([0, 2])), merge).patterns
        array([[1., 0., 0.],
               [0., 0., 1.]])
        """
        return reduce(merge, (function(shard, request) for shard in self.shards))
