"""An attack on nothing, whose cases fail in every way there is: the engine must tell each, and go on."""

import ctypes
import time
from pathlib import Path
from random import Random

import numpy as np

from .engine import MEMORY, Flaw


def _segfault() -> None:
    ctypes.string_at(0)


def _flaw() -> None:
    raise Flaw("a flaw")


def _error() -> None:
    raise KeyError("an error of the fuzzer")


def _memory() -> None:
    try:
        np.ones(2 * MEMORY, np.uint8)
    except MemoryError:
        raise Flaw("too much memory") from None


def _hang() -> None:
    time.sleep(10_000)


def _noise() -> None:
    print("a line on standard output is no report")


WAYS = {"noise": _noise, "segfault": _segfault, "flaw": _flaw, "error": _error, "memory": _memory, "hang": _hang}


def case(random: Random, folder: Path) -> str:
    """One of the ways."""
    way = random.choice(list(WAYS))
    WAYS[way]()
    return way
