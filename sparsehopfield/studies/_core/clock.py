"""Times of calls, for studies that compare them."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time
from typing import TypeVar

Result = TypeVar("Result")
REPEATS = 3


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Return the processor time of a call in seconds, the least of three, and what the last one returned."""
    taken = []
    for _ in range(REPEATS):
        begin = process_time()
        result = call()
        taken.append(process_time() - begin)
    return min(taken), result
