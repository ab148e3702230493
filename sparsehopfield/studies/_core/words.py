"""Words of the reports: lines, items and lists of numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable


def wrap(text: str, indent: str = "") -> str:
    """Wrap text to lines of at most 100 characters; indent all but the first."""
    return textwrap.fill(text, 100, subsequent_indent=indent)


def bullets(title: str, sentences: Iterable[str]) -> str:
    """Format a title, and each sentence as an item below it."""
    return "\n".join([title, *(wrap(f"- {sentence}", "  ") for sentence in sentences)])


def join_numbers(values: Iterable[float]) -> str:
    """Join numbers with commas."""
    return ", ".join(f"{value:g}" for value in values)


def steps_in_words(steps: int) -> str:
    """Return what `ImageOptions.steps` means in words."""
    return {0: "to the fixed point", 1: "one step"}.get(steps, f"{steps} steps")
