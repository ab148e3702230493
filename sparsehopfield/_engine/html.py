"""HTML for notebooks, and whole pages: small tables that read well on light and dark grounds, without scripts.

All text is escaped. Tables bring their style along, since a notebook has no style sheet of ours, and name no colour of
text or ground: both are the reader's. Whole pages are made from one template, which needs Jinja2; tables do not.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsehopfield._engine.optional import require

__all__ = ["Section", "facts", "page", "paragraphs", "table"]

TEMPLATE = "page.html.j2"  # beside this module

_TABLE = "border-collapse:collapse;margin:0.4em 0;font-size:0.95em"
_CAPTION = "caption-side:top;text-align:left;font-weight:600;padding:0.2em 0"
_CELL = "padding:0.15em 0.7em;border:0;border-bottom:1px solid rgba(128,128,128,0.35);vertical-align:top"


def _escaped(text: str) -> str:
    """Return text as HTML shows it; half a surrogate pair, which no encoding has, as \\u and its number."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number, a percentage, or nothing."""
    try:
        float(cell.strip().rstrip("%") or "0")
    except ValueError:
        return False
    return True


def _cell(tag: str, text: str, *, right: bool, scope: str = "") -> str:
    """Return one cell."""
    style = f"{_CELL};text-align:{'right' if right else 'left'}"
    marks = f'{style};font-weight:600" scope="{scope}' if tag == "th" else style
    return f'<{tag} style="{marks}">{_escaped(text)}</{tag}>'


def _tabled(rows: Sequence[str], caption: str) -> str:
    """Return a table of rows that are HTML already."""
    heading = [f'<caption style="{_CAPTION}">{_escaped(caption)}</caption>'] if caption else []
    return "\n".join([f'<table style="{_TABLE}">', *heading, *rows, "</table>"])


def table(lines: Sequence[Sequence[str]], caption: str = "") -> str:
    """Format lines of cells as an HTML table.

    Parameters
    ----------
    lines : sequence of sequence of str
        The first is the head. Columns of numbers are flush right, others flush left.
    caption : str

    Returns
    -------
    str
    """
    head, *body = lines
    right = [bool(body) and all(_is_number(line[k]) for line in body) for k in range(len(head))]
    rows = []
    for tag, line in [("th", head), *(("td", line) for line in body)]:
        cells = [_cell(tag, text, right=flush, scope="col") for text, flush in zip(line, right, strict=True)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _tabled(rows, caption)


def facts(named: Mapping[str, str], caption: str = "") -> str:
    """Format names and what they stand for as an HTML table of two columns without a head."""
    rows = [
        f"<tr>{_cell('th', name, right=False, scope='row')}{_cell('td', text, right=False)}</tr>"
        for name, text in named.items()
    ]
    return _tabled(rows, caption)


def paragraphs(*texts: str) -> str:
    """Format texts as HTML paragraphs; lines stay lines."""
    return "\n".join(f"<p>{_escaped(text).replace(chr(10), '<br>')}</p>" for text in texts)


@dataclass(frozen=True)
class Section:
    """One part of a page; what is empty is left out.

    Attributes
    ----------
    title : str
    paragraphs, items : sequence of str
        Paragraphs, then a list.
    lines : sequence of sequence of str
        A table, the first line its head.
    wide : bool
        Whether its cells are sentences rather than numbers.
    picture : bytes
        A PNG file.
    described : str
        What the picture shows, in words.
    """

    title: str = ""
    paragraphs: Sequence[str] = ()
    items: Sequence[str] = ()
    lines: Sequence[Sequence[str]] = ()
    wide: bool = False
    picture: bytes = b""
    described: str = ""

    @property
    def source(self) -> str:
        """Return the picture as the address of an image."""
        return f"data:image/png;base64,{base64.b64encode(self.picture).decode('ascii')}"


def page(title: str, sections: Sequence[Section], *, colours: Mapping[str, str] | None = None) -> str:
    """Format a whole HTML page, which needs no other file.

    Parameters
    ----------
    title : str
    sections : sequence of Section
    colours : mapping of str to str, optional
        Cells with one of these texts are bold and in its colour.

    Returns
    -------
    str

    Raises
    ------
    ImportError
        If Jinja2 is not installed.
    """
    jinja2 = require("jinja2", purpose="a report as a page")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8")
    made = environment.from_string(template).render(title=title, sections=sections, colours=colours or {})
    return str(made)
