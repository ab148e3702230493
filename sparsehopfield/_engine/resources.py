"""Time and memory of calls, and how they grow: for the study of efficiency and the benchmarks."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

SHORT = 0.02  # seconds for which short calls are repeated


def seconds(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Measure the time of a call that has run before, by at least `repeats` calls that take at least 20 ms in all.

    Return the median in seconds, and the upper quartile over the lower one: far above 1 where others use the machine.
    """
    taken: list[float] = []
    while len(taken) < repeats or sum(taken) < SHORT:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    lower, median, upper = np.quantile(taken, [0.25, 0.5, 0.75])
    return float(median), float(upper / lower)


def process_memory(field: str) -> int:
    """Return a size in bytes from /proc/self/status, 0 where there is none."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(field)), 0)
    return 0


def reset_peak() -> None:
    """Give freed memory back to the system, and measure the peak from now on."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def can_measure_peak() -> bool:
    """Return whether the system tells the peak of memory, and lets it be reset."""
    return process_memory("VmHWM") > 0 and Path("/proc/self/clear_refs").exists()


def peak(call: Callable[[], Any]) -> int:
    """Measure by how many bytes a call raises memory at its peak; right to some 100 KiB where no other thread runs."""
    reset_peak()
    before = process_memory("VmRSS")
    call()
    return process_memory("VmHWM") - before


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit the slope of log(value) over log(size) to the positive finite values; nan where there are not two."""
    points = [(n, v) for n, v in zip(sizes, values, strict=True) if 0 < v < np.inf]
    if len(points) < 2:
        return float("nan")
    x, y = np.log(points).T
    return float(np.polyfit(x, y, 1)[0])
