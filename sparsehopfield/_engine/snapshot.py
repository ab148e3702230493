"""What a memory holds at one moment. A snapshot never changes; a change makes another, which may share its arrays."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, as_positions
from sparsehopfield._engine.concurrency import cached
from sparsehopfield._engine.growable import GrowableRows
from sparsehopfield._engine.pattern_set import IndexUse, PatternSet

__all__ = ["Snapshot"]


SHARE = 8  # patterns are copied together when more than one row in so many is removed: at most 7 for each removed one


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Patterns, values and ids as rows of a storage, removed ones among them, and the pattern set that calls use."""

    pattern_set: PatternSet
    patterns: GrowableRows
    values: GrowableRows | None
    ids: GrowableRows | None  # None: the numbers of the rows
    largest_known: int | None  # id of a pattern; None: it was removed
    renumberings: int = 0  # removals after which other patterns had other places
    fingerprint: int | None = None  # of borrowed arrays, which others can change

    @classmethod
    def begin(cls, pattern_set: PatternSet, ids: NDArray[np.int64] | None, *, borrows: bool) -> Self:
        """Return the first snapshot of a memory; borrows: others can change its arrays."""
        core = pattern_set.core(pattern_set.dtype)  # checks the patterns now
        id_rows = None if ids is None else GrowableRows(ids)
        largest_id = len(pattern_set) - 1 if ids is None else int(ids.max())
        values = None if pattern_set.value_storage is None else GrowableRows(pattern_set.value_storage)
        fingerprint = _core.fingerprint(core) if borrows else None
        return cls(pattern_set, GrowableRows(pattern_set.storage), values, id_rows, largest_id, fingerprint=fingerprint)

    @cached
    def all_ids(self) -> NDArray[np.int64]:
        """Return the patterns' ids, (M,)."""
        if not self.pattern_set.removed:
            return np.arange(len(self.pattern_set)) if self.ids is None else self.ids.rows
        return self.pattern_set.rows if self.ids is None else self.ids.rows[self.pattern_set.rows]

    @property
    def given_ids(self) -> NDArray[np.int64] | None:
        """Return the ids, (M,), or None where they are 0 to M - 1."""
        return None if self.ids is None and not self.pattern_set.removed else self.all_ids

    @property
    def largest_id(self) -> int:
        """Return the largest id of a pattern."""
        if self.largest_known is not None:
            return self.largest_known
        if self.ids is None:
            return int(self.pattern_set.rows_of(np.array([len(self.pattern_set) - 1]))[0])
        return int(self.all_ids.max())

    def has_changed(self) -> bool:
        """Return whether a borrowed array has other numbers than when it was stored."""
        core = self.pattern_set.core(self.pattern_set.dtype)
        return self.fingerprint is not None and _core.fingerprint(core) != self.fingerprint

    def with_index(self, index: IndexUse) -> Self:
        """Return the same patterns with another use of the index ("auto", True, False); True builds it now."""
        old = self.pattern_set
        pattern_set = old.with_rows(old.storage, old.value_storage, extends=True, index=index)
        if index is True:
            _core.build_index(pattern_set.core(pattern_set.dtype))
        return replace(self, pattern_set=pattern_set)

    def with_more(
        self, rows: Array, values: Array | None, ids: NDArray[np.int64] | None
    ) -> tuple[Self, NDArray[np.int64]]:
        """Return a snapshot with n more patterns behind these, and the ids of the new ones, (n,)."""
        new_ids = self._more_ids(len(rows), ids)
        more = self.patterns.extended(rows)
        more_values = None if values is None or self.values is None else self.values.extended(values)
        more_ids, stored = self.ids, len(self.patterns.rows)
        if more_ids is not None or not np.array_equal(new_ids, np.arange(stored, stored + len(rows))):
            more_ids = (more_ids or GrowableRows(np.arange(stored))).extended(new_ids)
        pattern_set = self.pattern_set.with_rows(
            more.rows, None if more_values is None else more_values.rows, extends=True
        )
        for part in (more, more_values, more_ids):
            if part is not None:
                part.claim_rows()
        largest_id = max(self.largest_id, int(new_ids.max()))
        return type(self)(pattern_set, more, more_values, more_ids, largest_id, self.renumberings), new_ids

    def _more_ids(self, n: int, ids: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Check the ids of n more patterns and return them; new ones if none are given."""
        if ids is None:
            if self.largest_id > np.iinfo(np.int64).max - n:
                raise OverflowError(f"ids: none are left after {self.largest_id}; give them")
            return np.arange(self.largest_id + 1, self.largest_id + 1 + n)
        if ids.min() <= self.largest_id and (used := np.isin(ids, self.all_ids)).any():
            raise ValueError(f"ids: {ids[used][0]} is the id of another pattern")
        return ids

    def without(self, positions: Any) -> Self:
        """Return a snapshot without some patterns, chosen as `numpy.delete` does; those behind them move up."""
        old, m = self.pattern_set, len(self.pattern_set)
        removed = as_positions(positions, m)
        if len(removed) == 0:
            return self
        if len(removed) == m:
            raise ValueError("positions: would remove all patterns; a memory has at least one")
        pattern_set = old.without(removed)
        rows = old.rows_of(removed)
        largest = self.largest_known
        if largest is not None and ((rows if self.ids is None else self.ids.rows[rows]) == largest).any():
            largest = None
        renumberings = self.renumberings + int(removed[0] != m - len(removed))  # no other moves if the last go
        left = replace(self, pattern_set=pattern_set, largest_known=largest, renumberings=renumberings)
        return left._packed() if SHARE * pattern_set.removed > len(pattern_set.storage) else left

    def _packed(self) -> Self:
        """Return a snapshot of the same patterns in a storage that has no others."""
        pattern_set = self.pattern_set.copied()
        values = None if pattern_set.value_storage is None else GrowableRows(pattern_set.value_storage)
        patterns, ids = GrowableRows(pattern_set.storage), GrowableRows(self.all_ids)
        return type(self)(pattern_set, patterns, values, ids, self.largest_id, self.renumberings)
