"""Passages of text: the lines or paragraphs of files, as they are stored to be found and cited."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from sparsehopfield._engine.text import short
from sparsehopfield.data._content import as_path, reading, unpacked_content
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

    Returns
    -------
    list of str

    Examples
    --------
    >>> words("Two dogs, a cat.")
    ['two', 'dogs', 'a', 'cat']
    """
    return re.findall(r"\w+", text.lower())


def load(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, split: str = "lines") -> tuple[str, ...]:
    """Load the passages of text files.

    Parameters
    ----------
    paths : path, or sequence of paths
        Files of UTF-8 text, packed by gzip, bzip2 or xz or not; of a folder those that end in .txt, .md, .rst or .tex,
        packed or not, its sub-folders' too, by name.
    split : {"lines", "paragraphs"}
        What a passage is: a line, or the lines up to the next one without a word. White space becomes single blanks.

    Returns
    -------
    tuple of str
        Passages that have a word, in order.

    Raises
    ------
    ValueError
        Naming `split` or `paths`.
    FileNotFoundError
        If a file or folder is not there, or a folder has no text.
    FileFormatError
        If a file is damaged or not UTF-8, or has no word.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "made.txt")
    >>> _ = path.write_text("A dog\\nruns.\\n\\nA cat  sleeps.\\n")
    >>> load(path), load(path, split="paragraphs")
    (('A dog', 'runs.', 'A cat sleeps.'), ('A dog runs.', 'A cat sleeps.'))
    """
    if split not in SPLITS:
        raise ValueError(f"split: must be one of {', '.join(SPLITS)}, got {short(split)}")
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise ValueError("paths: must name a file or folder")
    files = [file for path in several for file in _files(as_path("paths", path))]
    return tuple(passage for file in files for passage in _passages(file, split))


def _files(path: Path) -> list[Path]:
    """Return the path, or the text files of the folder that it is."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: is not there; it must be a text file, or a folder of them")
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if TEXT_FILES.search(file.name) and file.is_file())
    if not found:
        raise FileNotFoundError(f"{path}: has no files that end in .txt, .md, .rst or .tex")
    return found


def _passages(path: Path, split: str) -> list[str]:
    """Return the passages of one file."""
    with reading(path, "text file"):
        lines = unpacked_content(path).decode("utf-8-sig").splitlines()
    found = [[]] if split == "paragraphs" else [[line] for line in lines]
    if split == "paragraphs":
        for line in lines:
            found.append([]) if not words(line) else found[-1].append(line)
    passages = [" ".join(" ".join(part).split()) for part in found]
    passages = [passage for passage in passages if words(passage)]
    if not passages:
        raise FileFormatError(f"{path}: has no word, so no passage")
    return passages
