"""The directive `c-header`: a header's types, constants and functions for Sphinx's C domain, with their comments."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

COMMENT = re.compile(r"/\*(.*?)\*/", re.S)
#: A comment, or a declaration that begins at the start of a line.
TOKEN = re.compile(
    r"(?P<comment>^/\*.*?\*/)|(?P<function>^SH_API [^;]+;)|(?P<enum>^typedef enum \{[^}]*\} ?\w+;)"
    r"|(?P<struct>^typedef struct \w* ?\{.*?^\} ?\w+;)|(?P<opaque>^typedef [^{;]+;)|(?P<macro>^#define SH_\w+ [^\n]+$)",
    re.S | re.M,
)
SECTION = re.compile(r"(Given|Returned|Errors|Cost|Notes)\b")


def comment_text(comment: str) -> str:
    """Return the text of a comment without its frame of asterisks."""
    lines = comment.strip().removeprefix("/*").removesuffix("*/").strip().splitlines()
    return "\n".join([lines[0]] + [re.sub(r"^ \* ?", "", line) for line in lines[1:]]).strip()


def prose(text: str) -> list[str]:
    """Return a comment as reStructuredText: paragraphs, and what is in columns as it stands."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        rows = block.splitlines()
        first = next((i for i, row in enumerate(rows) if SECTION.match(row) or row.startswith(" ")), len(rows))
        first = 0 if first < len(rows) and rows[first - 1].endswith(",") else first  # a table from its first row on
        if rows[:first]:
            lines += [re.sub(r"([\\*|`_])", r"\\\1", " ".join(rows[:first])), ""]
        if rows[first:]:
            lines += [".. code-block:: text", "", *(f"   {row}" for row in rows[first:]), ""]
    return lines


def described(directive: str, signature: str, body: list[str]) -> list[str]:
    """Return a directive of the C domain with its content."""
    return [f".. c:{directive}:: {signature}", "", *(f"   {line}".rstrip() for line in body), ""]


def enumerators(text: str) -> list[str]:
    """Return the members of an enumeration, each with the comment behind it."""
    inside = text[text.index("{") + 1 : text.rindex("}")]
    found = re.findall(r"(SH_\w+)(?:\s*=\s*[^,/\n]+)?\s*,?[ \t]*(?:/\*(.*?)\*/)?", COMMENT.sub(r"/*\1*/", inside), re.S)
    return [line for name, note in found for line in described("enumerator", name, prose(" ".join(note.split())))]


def read(text: str) -> list[str]:
    """Return what a header declares as reStructuredText."""
    lines: list[str] = []
    pending = ""  # the comment above a declaration
    for match in TOKEN.finditer(text):
        kind, found = match.lastgroup, match[0]
        if kind == "comment":
            if pending:
                lines += prose(pending)
            pending = comment_text(found)
            if re.match(r"\w+\.h: ", pending):  # of the whole file
                lines, pending = prose(pending), ""
            continue
        if found.startswith("#define SH_API"):
            continue
        body = prose(pending)
        name = re.split(r"\W+", found.rstrip(";"))[-1]
        if kind == "function":
            signature = " ".join(COMMENT.sub("", found).removeprefix("SH_API").rstrip(";").split())
            name = re.search(r"(\w+)\(", signature)[1]  # type: ignore[index]
            mine = re.match(r"(\w+(?:, \w+)*): ", pending)
            if mine:
                body = prose(pending[mine.end() :][:1].upper() + pending[mine.end() + 1 :])
            lines += described("function", signature, body)
        elif kind == "enum":
            lines += described("enum", name, body + enumerators(found))
        elif kind == "struct":
            lines += described(
                "struct", name, [*body, ".. code-block:: c", "", *textwrap.indent(found, "   ").split("\n")]
            )
        elif kind == "opaque":
            lines += described("type", COMMENT.sub("", found).removeprefix("typedef").strip(" ;"), body)
        else:
            lines += described("macro", found.split()[1].split("(")[0], [f"``{found}``", "", *body])
        pending = ""
    return lines + (prose(pending) if pending else [])


class CHeader(SphinxDirective):
    """Document what a header declares; the argument is its path in the project's folder."""

    required_arguments = 1

    def run(self) -> list[Any]:
        path = Path(self.env.srcdir) / self.arguments[0]
        self.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        return self.parse_text_to_nodes(StringList(read(text), source=str(path)))


def setup(app: Any) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("c-header", CHeader)
    return {"parallel_read_safe": True}
