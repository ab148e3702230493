"""Text for people: columns that line up, quantiles in a few words, and quotations of bounded length."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The quantiles of a summary: their names, and the shares.
QUANTILES = {"least": 0.0, "10%": 0.1, "half": 0.5, "90%": 0.9, "most": 1.0}


def aligned(lines: Sequence[Sequence[str]], left: Collection[int] = ()) -> str:
    """Return lines of cells as one text: every column as wide as its widest cell, flush right or, of `left`, left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pads = [str.ljust if column in left else str.rjust for column in range(len(widths))]
    padded = (
        "  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)) for line in lines
    )
    return "\n".join(map(str.rstrip, padded))  # empty cells at the end leave nothing


def as_shown(numbers: Any) -> NDArray[Any]:
    """Return the numbers of an array, or of a tensor of PyTorch on any device, as an array."""
    return np.asarray(numbers.cpu() if hasattr(numbers, "cpu") else numbers)


def quantiles(numbers: ArrayLike) -> list[str]:
    """Return the QUANTILES of some numbers, at least one, as text: each one of the numbers."""
    found = np.quantile(np.asarray(numbers), list(QUANTILES.values()), method="lower") + 0.0  # makes -0.0 0.0
    return [f"{x:.4g}" for x in found]


def count(number: int, name: str) -> str:
    """Return a number of things in words, as "1 query" or "1,000 queries"."""
    plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    return f"{number:,} {name if number == 1 else plural}"


def in_bytes(number: int) -> str:
    """Return a number of bytes in words, as "12 bytes" or "1.5 MiB"."""
    size, units = float(number), iter(("bytes", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while size >= 1024 and unit != "TiB":
        size, unit = size / 1024, next(units)
    return f"{number} bytes" if unit == "bytes" else f"{size:.3g} {unit}"


def short(value: Any, *, quote: bool = True) -> str:
    """Return the text of any value for a message, cut to 200 characters; quote: by `repr`."""
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to write those of thousands of digits
        return f"a number of {value.bit_length()} bits"
    try:
        text = repr(value) if quote else str(value)
    except (RecursionError, ValueError):  # nested too deeply, or such numbers in a list
        return f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."
