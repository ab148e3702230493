"""Rows that grow at their end while others read them: what a memory holds at one moment never changes."""

from dataclasses import dataclass, field

import numpy as np

from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.copying import fill

__all__ = ["Column", "Room"]


@dataclass(eq=False)
class Room:
    """An array with space for more rows than are in use; rows in use are never written again."""

    array: Array
    used: int


@dataclass(frozen=True, eq=False)
class Column:
    """An array, and the room whose first rows it is, if it has one.

    `with_more` gives a longer column, in the same room if its next rows are free, else in a new one of twice the
    size: n rows added one by one are copied O(n) times in all. The rows are taken only by `taken`, so that what
    was written for nothing is written over. One thread at a time may grow the columns of a room.
    """

    rows: Array
    room: Room | None = field(default=None, repr=False)

    def with_more(self, more: Array) -> "Column":
        """These rows and `more`, not yet taken."""
        old, new = len(self.rows), len(self.rows) + len(more)
        room = self.room
        if room is None or room.used != old or new > len(room.array):
            room = Room(np.empty((max(new, 2 * old), *self.rows.shape[1:]), self.rows.dtype), old)
            fill(room.array[:old], self.rows)
        fill(room.array[old:new], more)
        return Column(room.array[:new], room)

    def taken(self) -> "Column":
        """The same, once it is what the memory holds."""
        if self.room is not None:
            self.room.used = len(self.rows)
        return self
