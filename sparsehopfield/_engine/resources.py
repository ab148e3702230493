"""Time and memory of calls, and how they grow: what the study of efficiency and the benchmarks measure with."""

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
    """Time of a call that has been made before: of so many, or of as many as fill 20 ms.

    Returns
    -------
    median : float
        Seconds.
    spread : float, at least 1
        The upper quartile over the lower one: far above 1 where others use the machine.
    """
    taken: list[float] = []
    while len(taken) < repeats or sum(taken) < SHORT:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    lower, median, upper = np.quantile(taken, [0.25, 0.5, 0.75])
    return float(median), float(upper / lower)


def status(field: str) -> int:
    """A size from the system's word on this process: bytes, 0 where there is none."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(field)), 0)
    return 0


def forget() -> None:
    """Give freed memory back to the system, and let the peak count from here."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def sees_peaks() -> bool:
    """Whether the system tells the peak of memory, and lets it be set back."""
    return status("VmHWM") > 0 and Path("/proc/self/clear_refs").exists()


def peak(call: Callable[[], Any]) -> int:
    """The peak of memory in a call beyond what is there, bytes; good to some 100 KiB where other threads rest."""
    forget()
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log(value) over log(size) by least squares, of positive finite values; nan where there are not two."""
    points = [(n, v) for n, v in zip(sizes, values, strict=True) if 0 < v < np.inf]
    if len(points) < 2:
        return float("nan")
    x, y = np.log(points).T
    return float(np.polyfit(x, y, 1)[0])
