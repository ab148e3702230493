"""What a memory holds at one moment. A snapshot never changes; a change makes another, which may share its arrays."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, as_remaining
from sparsehopfield._engine.chunked import take_rows
from sparsehopfield._engine.growable import GrowableRows
from sparsehopfield._engine.pattern_set import IndexUse, PatternSet

__all__ = ["Snapshot"]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Patterns, values and ids, and the pattern set that calls use."""

    stored: PatternSet
    patterns: GrowableRows
    values: GrowableRows | None
    ids: GrowableRows | None  # None: 0 to M - 1
    largest: int  # of the ids
    moves: int = 0  # removals after which other patterns had other places
    fingerprint: int | None = None  # of borrowed arrays, which others can change

    @classmethod
    def begin(cls, stored: PatternSet, ids: NDArray[np.int64] | None, *, borrows: bool) -> Self:
        """Return the first snapshot of a memory; borrows: others can change its arrays."""
        core = stored.core(stored.dtype)  # checks the patterns now
        names = None if ids is None else GrowableRows(ids)
        largest = len(stored) - 1 if ids is None else int(ids.max())
        values = None if stored.values is None else GrowableRows(stored.values)
        fingerprint = _core.fingerprint(core) if borrows else None
        return cls(stored, GrowableRows(stored.patterns), values, names, largest, fingerprint=fingerprint)

    def names(self) -> Array:
        """Return the patterns' ids, (M,)."""
        return np.arange(len(self.stored)) if self.ids is None else self.ids.rows

    def has_changed(self) -> bool:
        """Return whether a borrowed array has other numbers than when it was stored."""
        core = self.stored.core(self.stored.dtype)
        return self.fingerprint is not None and _core.fingerprint(core) != self.fingerprint

    def with_index(self, index: IndexUse) -> Self:
        """Return the same with another use of the index, which is built now if that is True."""
        old = self.stored
        stored = old.with_rows(old.patterns, old.values, extends=True, index=index)
        if index is True:
            _core.build_index(stored.core(stored.dtype))
        return replace(self, stored=stored)

    def with_more(
        self, rows: Array, values: Array | None, ids: NDArray[np.int64] | None
    ) -> tuple[Self, NDArray[np.int64]]:
        """Return a snapshot with n more patterns behind these, and the ids of the new ones, (n,)."""
        names = self._more_names(len(rows), ids)
        more = self.patterns.extended(rows)
        more_values = None if values is None or self.values is None else self.values.extended(values)
        more_ids = self.ids
        if ids is not None or more_ids is not None:
            more_ids = (more_ids or GrowableRows(self.names())).extended(names)
        stored = self.stored.with_rows(more.rows, None if more_values is None else more_values.rows, extends=True)
        for part in (more, more_values, more_ids):
            if part is not None:
                part.claim()
        largest = max(self.largest, int(names.max()))
        return type(self)(stored, more, more_values, more_ids, largest, self.moves), names

    def _more_names(self, n: int, ids: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Return the ids of n more patterns, new ones if none are given."""
        if ids is None:
            if self.largest > np.iinfo(np.int64).max - n:
                raise OverflowError(f"ids: none are left after {self.largest}; give them")
            return np.arange(self.largest + 1, self.largest + 1 + n)
        if ids.min() <= self.largest and (used := np.isin(ids, self.names())).any():
            raise ValueError(f"ids: {ids[used][0]} is the id of another pattern")
        return ids

    def without(self, positions: Any) -> Self:
        """Return a snapshot without some patterns, chosen as `numpy.delete` does; those behind them move up."""
        remains = as_remaining(positions, len(self.stored))
        if remains.all():
            return self
        if not remains.any():
            raise ValueError("positions: would remove all patterns; a memory has at least one")
        at = np.flatnonzero(remains)
        patterns = GrowableRows(take_rows(self.patterns.rows, at))
        values = None if self.values is None else GrowableRows(take_rows(self.values.rows, at))
        stored = self.stored.with_rows(patterns.rows, None if values is None else values.rows, extends=False)
        names = self.names()[at]
        moves = self.moves + int(at[-1] != len(at) - 1)  # from the end: all others keep their places
        return type(self)(stored, patterns, values, GrowableRows(names), int(names.max()), moves)
