"""Passages of text: the lines or paragraphs of files, as they are stored to be found and cited."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsehopfield._engine.text import short
from sparsehopfield.data._content import as_path, text_lines
from sparsehopfield.errors import FileFormatError

__all__ = ["SPLITS", "load", "words"]

#: What a passage is.
SPLITS = ("lines", "paragraphs")
#: Names of the files that are read of a folder, packed or not.
TEXT_FILES = re.compile(r"\.(txt|md|rst|tex)(\.(gz|bz2|xz))?$", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case: runs of letters, digits and underscores.

    Parameters
    ----------
    text : str
        Text in any language.

    Returns
    -------
    list of str
        The words in their order; those that come more than once are repeated.

    Raises
    ------
    TypeError
        If `text` is no str.

    See Also
    --------
    load : Load passages, each of which has a word.

    Examples
    --------
    >>> words("Two dogs, a cat.")
    ['two', 'dogs', 'a', 'cat']
    """
    if not isinstance(text, str):
        raise TypeError(f"text: must be a str, got {type(text).__name__}")
    return re.findall(r"\w+", text.lower())


def load(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, split: str = "lines") -> tuple[str, ...]:
    """Load the passages of text files.

    Parameters
    ----------
    paths : path, or sequence of paths
        Files of UTF-8 text, packed by gzip, bzip2 or xz or not; of a folder those that end in .txt, .md, .rst or .tex,
        packed or not, its sub-folders' too, by name; those without a word are skipped.
    split : {"lines", "paragraphs"}
        What a passage is: a line, or the lines up to the next one without a word. Line feeds, carriage returns, or
        both together end a line. White space becomes single blanks.

    Returns
    -------
    tuple of str
        Passages that have a word, in order.

    Raises
    ------
    ValueError, TypeError
        Naming `split` or `paths`.
    FileNotFoundError
        If a file or folder is not there, or a folder has no text.
    FileFormatError
        If a file is damaged or not UTF-8, or if a file or folder has no word.

    See Also
    --------
    words : Return the words of a passage.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "made.txt")
    ...     _ = path.write_text("A dog\\nruns.\\n\\nA cat  sleeps.\\n")
    ...     load(path), load(path, split="paragraphs")
    (('A dog', 'runs.', 'A cat sleeps.'), ('A dog runs.', 'A cat sleeps.'))
    """
    if split not in SPLITS:
        raise ValueError(f"split: must be one of {', '.join(SPLITS)}, got {short(split)}")
    return tuple(passage for path in _several(paths) for passage in _passages(path, split))


def paths_of(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the files that `load` reads of those that are there."""
    return [file for path in _several(paths) if path.exists() for file in _files(path)]


def _several(paths: Any) -> list[Path]:
    """Return one path or several as a list."""
    if not isinstance(paths, str | os.PathLike | Sequence):
        raise TypeError(f"paths: must be a path or a sequence of paths, got {type(paths).__name__}")
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    if not several:
        raise ValueError("paths: must name a file or folder")
    return [as_path("paths", path) for path in several]


def _files(path: Path) -> list[Path]:
    """Return the path, or the text files of the folder that it is."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if TEXT_FILES.search(file.name) and file.is_file())


def _passages(path: Path, split: str) -> list[str]:
    """Return the passages of a file, or of those in a folder."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: is not there; it must be a text file, or a folder of them")
    files = _files(path)
    if not files:
        raise FileNotFoundError(f"{path}: has no files that end in .txt, .md, .rst or .tex")
    found = [passage for file in files for passage in _passages_of(text_lines(file), split)]
    if not found:
        raise FileFormatError(f"{path}: has no word, so no passage")
    return found


def _passages_of(lines: Sequence[str], split: str) -> list[str]:
    """Return the passages of lines."""
    found: list[list[str]] = [[]] if split == "paragraphs" else [[line] for line in lines]
    if split == "paragraphs":
        for line in lines:
            found.append([]) if not words(line) else found[-1].append(line)
    passages = [" ".join(" ".join(part).split()) for part in found]
    return [passage for passage in passages if words(passage)]
