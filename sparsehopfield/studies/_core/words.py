"""Words of the reports: lines, items and lists of numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable


def wrapped(text: str, indent: str = "") -> str:
    """Lines of at most 100 characters, all but the first indented."""
    return textwrap.fill(text, 100, subsequent_indent=indent)


def bullets(title: str, sentences: Iterable[str]) -> str:
    """A title, and each sentence as an item below it."""
    return "\n".join([title, *(wrapped(f"- {sentence}", "  ") for sentence in sentences)])


def listed(values: Iterable[float]) -> str:
    """Numbers with commas between them."""
    return ", ".join(f"{value:g}" for value in values)


def steps_in_words(steps: int) -> str:
    """How many updates `Options.steps` means."""
    return {0: "to the fixed point", 1: "one step"}.get(steps, f"{steps} steps")
