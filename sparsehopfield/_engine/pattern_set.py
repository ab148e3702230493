"""Stored patterns made ready for the core: what functions, memories and certificates share."""

import copy as copying
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import (
    Array,
    as_flag,
    as_number,
    as_patterns,
    as_rows,
    as_scale,
    as_values,
    as_whole,
    compute_dtype,
    is_made_of,
)
from sparsehopfield._engine.chunked import copy_array, take_rows
from sparsehopfield._engine.concurrency import cached
from sparsehopfield._engine.separations import similarity_code
from sparsehopfield._engine.text import short

IndexUse = bool | str  # True, False or "auto"
INDEX_USES: dict[IndexUse, int] = {"auto": 0, True: 1, False: 2}  # sh_index_use in csrc/include/sparsehopfield.h
TYPE_CODES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}  # sh_type in csrc/include/sparsehopfield.h


def as_index(index: Any) -> IndexUse:
    """Return whether calls build an index by themselves: "auto", True or False."""
    if type(index) is str and index == "auto":
        return index
    if isinstance(index, (bool, np.bool_)):
        return bool(index)
    error = ValueError if isinstance(index, str) else TypeError
    raise error(f"index: must be 'auto', True or False, got {short(index)}")


class PatternSet:
    """Patterns (M, d) and values (M, v), checked, and for each compute dtype a capsule of the core with their norms.

    The arrays never change; `sources` are those that the caller gave, which may be the same, or None where rows were
    read from chunks or files. Rows that were removed lie in `storage` and `value_storage` still; `patterns` and
    `values` are without them.
    """

    def __init__(
        self,
        patterns: ArrayLike,
        values: ArrayLike | None,
        similarity: str,
        *,
        copy: bool | None,
        check_finite: bool,
        scale: float | None = None,
        index: IndexUse = "auto",
    ) -> None:
        self.index = as_index(index)
        self.similarity = similarity
        self.similarity_code = similarity_code(similarity)
        source = as_patterns("patterns", patterns)
        source_values = as_values(values, len(source))
        self.sources = None if is_made_of(patterns, source) else source, source_values
        if source_values is not None and is_made_of(values, source_values):
            self.sources = self.sources[0], None
        self.check_finite = as_flag("check_finite", check_finite)
        self.scale = as_scale(scale, source)
        self.dtype = compute_dtype(source, source_values)
        self.storage = as_rows(source, self.dtype)
        self.value_storage = None if source_values is None else as_rows(source_values, self.dtype)
        self.removed = 0  # rows of the storage that are no patterns any more
        self.whole: tuple[int, float] | None = None  # count and max |xi| of the whole that these are part of
        if as_flag("copy", copy):
            if self.storage is self.sources[0]:
                self.storage = copy_array(source)
            if self.value_storage is not None and self.value_storage is self.sources[1]:
                self.value_storage = copy_array(self.value_storage)
        self._cores: dict[np.dtype[Any], Any] = {}
        # sums over the patterns, or over the first of them, that the executors of features share from call to call
        self.feature_states: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.storage) - self.removed

    @property
    def shape(self) -> tuple[int, int]:
        """Return (M, d)."""
        return len(self), self.storage.shape[1]

    @property
    def whole_count(self) -> int:
        """Return how many patterns the whole has that these are part of: M, unless there are more."""
        return len(self) if self.whole is None else self.whole[0]

    @property
    def max_norm(self) -> float:
        """Return max |xi| of these patterns; 1 under cosine similarity."""
        return _core.max_norm(self.core(self.dtype))

    @property
    def width(self) -> int:
        """Return v, or d where the patterns are mixed."""
        return int((self.storage if self.value_storage is None else self.value_storage).shape[1])

    @cached
    def patterns(self) -> Array:
        """Return the patterns, (M, d): the storage, or a copy where rows of it are removed."""
        return self._left(self.storage)

    @cached
    def values(self) -> Array | None:
        """Return the values, (M, v), as the patterns; None if the patterns are mixed."""
        return None if self.value_storage is None else self._left(self.value_storage)

    @cached
    def rows(self) -> NDArray[np.int64]:
        """Return which rows of the storage the patterns are, (M,)."""
        return self.rows_of(None)

    def rows_of(self, positions: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Return which rows of the storage some patterns are; None: all."""
        return _core.rows_of(self.core(self.dtype), positions)

    def _left(self, rows: Array) -> Array:
        """Return an array of the storage without the rows that are removed."""
        return take_rows(rows, self.rows) if self.removed else rows

    def numbers(self, position: NDArray[np.int64] | slice, dtype: np.dtype[Any]) -> Array:
        """Return patterns as the numbers that they stand for, (n, d), in the dtype of a call; perhaps a view."""
        if not (isinstance(position, slice) and self.removed == 0):
            position = self.rows_of(np.arange(len(self))[position] if isinstance(position, slice) else position)
        rows = self.storage[position]
        if self.scale == 1:
            return rows.astype(dtype, copy=False)
        return (rows.astype(np.float32) * np.float32(self.scale)).astype(dtype, copy=False)  # as the core rounds them

    def arrays(self) -> tuple[Array, Array | None]:
        """Return patterns and values, which the set does not keep where they are copies."""
        return self._left(self.storage), None if self.value_storage is None else self._left(self.value_storage)

    def core(self, dtype: np.dtype[Any]) -> Any:
        """Return the core's memory in this compute dtype, which holds all stored numbers; with the other's index."""
        if dtype in self._cores and len(self._cores) == 1:
            return self._cores[dtype]  # there is no other
        core = self._cores.get(dtype) or self._new_core(dtype)
        for other in list(self._cores.values()):
            _core.share_index(core, other)
        if dtype not in self._cores:
            if self.index is True:
                _core.build_index(core)  # if there is none
            self._cores[dtype] = core
        return core

    def _new_core(self, dtype: np.dtype[Any], *, takes_index: bool = False) -> Any:
        """Make a memory of the core's in this compute dtype, without an index; takes_index: it gets a saved one."""
        options = (self.similarity_code, TYPE_CODES[dtype], self.scale, self.check_finite, takes_index)
        core = _core.memory(self.storage, self.value_storage, *options)
        if self.removed:
            is_gone = np.ones(len(self.storage), np.bool_)
            is_gone[self.rows] = False
            core = _core.without(core, np.flatnonzero(is_gone))
        if self.index != "auto":
            _core.use_index(core, INDEX_USES[self.index])
        if self.whole is not None:
            _core.set_whole(core, *self.whole)
        return core

    def take_index(self, saved: Array) -> str | None:
        """Use an index that `_core.export_index` wrote, before any call; return what is wrong with it, or None."""
        core = self._new_core(self.dtype, takes_index=True)
        wrong = _core.import_index(core, saved)
        self._begin_with(core)
        return wrong

    def _begin_with(self, core: Any) -> None:
        """Use a memory of the core's that has an index already, or gets one if it always has."""
        if self.index is True:
            _core.build_index(core)  # if there is none
        self._cores[self.dtype] = core

    def with_rows(
        self, patterns: Array, values: Array | None, *, extends: bool, index: IndexUse | None = None
    ) -> "PatternSet":
        """Return a set of another storage under the same model; the rows must lie as the core reads them.

        extends: they begin with the storage of this set, whose norms and index are used again, and of which the same
        rows are removed. index: another use of it.
        """
        other = self._begin_another(patterns, values)
        other.index = self.index if index is None else index
        other.sources = patterns, values
        if extends:
            other.feature_states = dict(self.feature_states)
            self.core(self.dtype)
            for dtype, core in list(self._cores.items()):
                other._cores[dtype] = _core.extend(core, patterns, values)
                _core.use_index(other._cores[dtype], INDEX_USES[other.index])
        else:
            other.removed = 0
            other.core(self.dtype)  # checks the patterns
        return other

    def without(self, positions: NDArray[np.int64]) -> "PatternSet":
        """Return a set of the same storage without the patterns at some positions, distinct and not all."""
        other = self._begin_another(self.storage, self.value_storage)
        other.removed += len(positions)
        other._cores[self.dtype] = _core.without(self.core(self.dtype), positions)
        return other

    def as_part_of(self, count: int, max_norm: float) -> "PatternSet":
        """Return a set of the same storage whose calls go by a whole of `count` patterns that these are part of.

        max_norm: of the whole, at least that of these. Sets made from it know of no whole until they are told again.
        """
        other = self.with_rows(self.storage, self.value_storage, extends=True)
        other.sources = self.sources
        other.whole = as_whole("count", count, len(self)), as_number("max_norm", max_norm, least=self.max_norm)
        for core in other._cores.values():
            _core.set_whole(core, *other.whole)
        return other

    def copied(self) -> "PatternSet":
        """Return a set of copies of the patterns and values, which lie in a storage of their own, and with an index."""
        if self.removed:
            other = self._begin_another(*self.arrays())
            other.removed, other.sources = 0, (other.storage, other.value_storage)
            core = other._new_core(self.dtype)
            _core.pack_index(core, self.core(self.dtype))
            other._begin_with(core)
            return other
        values = None if self.value_storage is None else copy_array(self.value_storage)
        return self.with_rows(copy_array(self.storage), values, extends=True)

    def _begin_another(self, storage: Array, value_storage: Array | None) -> "PatternSet":
        """Return a set of another storage under the same model, of which nothing is computed yet."""
        other = copying.copy(self)
        for name in ("patterns", "values", "rows"):
            other.__dict__.pop(name, None)
        other.storage, other.value_storage = storage, value_storage
        other._cores, other.feature_states = {}, {}
        other.whole = None
        return other
