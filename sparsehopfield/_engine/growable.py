"""Rows that grow at their end while others read them: rows in use are never written again."""

from dataclasses import dataclass, field

import numpy as np

from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.chunked import copy_rows

__all__ = ["Buffer", "GrowableRows"]


@dataclass(eq=False)
class Buffer:
    """An array with space behind the rows in use."""

    array: Array
    used: int  # rows


@dataclass(frozen=True, eq=False)
class GrowableRows:
    """An array, and the buffer whose first rows it is, if it has one.

    Rows that are extended lie in the same buffer if its next rows are free, else in a new one of twice the size: n rows
    added one by one are copied O(n) times in all. One thread at a time may extend rows of one buffer.
    """

    rows: Array
    buffer: Buffer | None = field(default=None, repr=False)

    def extended(self, more: Array) -> "GrowableRows":
        """Return these rows and `more`, whose place in the buffer may be taken by others until `claim`."""
        old, new = len(self.rows), len(self.rows) + len(more)
        buffer = self.buffer
        if buffer is None or buffer.used != old or new > len(buffer.array):
            buffer = Buffer(np.empty((max(new, 2 * old), *self.rows.shape[1:]), self.rows.dtype), old)
            copy_rows(buffer.array[:old], self.rows)
        copy_rows(buffer.array[old:new], more)
        return GrowableRows(buffer.array[:new], buffer)

    def claim_rows(self) -> None:
        """Mark the rows as in use in their buffer."""
        if self.buffer is not None:
            self.buffer.used = len(self.rows)
