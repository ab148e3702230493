"""Docstrings as reStructuredText: they are written to be read by `help`, where |x| is a length and * multiplies."""

from __future__ import annotations

import re
from typing import Any

#: What is no prose: literals, and references.
LITERAL = re.compile(r"(``.+?``|`[^`]+`_?|:\w+:`[^`]+`)")
#: What reStructuredText would read as the begin of a substitution, of emphasis, or as a reference.
MARKUP = re.compile(r"(\||\*|(?<=\w)_(?=\W|$))")


def plain(line: str) -> str:
    """Escape in a line of prose what would be markup."""
    parts = LITERAL.split(line)
    return "".join(part if i % 2 else MARKUP.sub(r"\\\1", part) for i, part in enumerate(parts))


def escape(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Escape the prose of a docstring, and leave its programs and tables as they are."""
    inside = False
    for i, line in enumerate(lines):
        if line.lstrip().startswith(">>>"):
            inside = True
        elif not line.strip():
            inside = False
        if not inside and not line.lstrip().startswith(("..", ":")):
            lines[i] = plain(line)


def setup(app: Any) -> dict[str, bool]:
    """Escape docstrings before numpydoc reads their sections, which does so at priority 500."""
    app.connect("autodoc-process-docstring", escape, priority=400)
    return {"parallel_read_safe": True}
