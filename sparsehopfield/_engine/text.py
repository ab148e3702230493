"""Text for people: columns that line up, and quotations of bounded length."""

from collections.abc import Sequence
from typing import Any


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as one text, every column as wide as its widest cell and flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(map(str.rstrip, padded))  # empty cells at the end leave nothing


def short(value: Any, *, quote: bool = True) -> str:
    """Return the text of any value for a message, cut to 200 characters; quote: by `repr`."""
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to write those of thousands of digits
        return f"a number of {value.bit_length()} bits"
    try:
        text = repr(value) if quote else str(value)
    except (RecursionError, ValueError):  # nested too deeply, or such numbers in a list
        return f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."
