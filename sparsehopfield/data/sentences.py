"""Pairs of sentences in two languages, one sentence a line, read from text files of equal lengths.

Nothing is downloaded: `load` takes the folder of the data, looks there and in its sub-folder `multi30k`, and says what
it wants, and where to get it, when a file is not there. Files that do not belong together raise a FileFormatError,
which is a ValueError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsehopfield._engine.text import short
from sparsehopfield.data._content import as_path, text_lines
from sparsehopfield.errors import FileFormatError

__all__ = ["Corpus", "Pairs", "load", "load_files"]

SOURCE = "https://github.com/multi30k/dataset (data/task1/tok, the files *.lc.norm.tok.en and *.de)"
#: The files of the parts, before the language and .gz, if they are packed.
FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations.

    Attributes
    ----------
    sources, targets : tuple of str
        Of equal lengths; sentence i of one translates sentence i of the other.

    See Also
    --------
    load_files : Read pairs from two text files.

    Examples
    --------
    >>> pairs = Pairs(("a dog .", "a cat ."), ("ein hund .", "eine katze ."))
    >>> len(pairs), pairs.targets[1]
    (2, 'eine katze .')
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def head(self, n: int | None) -> Pairs:
        """Return the first n pairs; all for None.

        Parameters
        ----------
        n : int, at least 0, or None
            How many pairs; all if there are fewer, or for None.

        Returns
        -------
        Pairs
            The first pairs, in their order.

        See Also
        --------
        load_files : Read pairs from two text files.

        Examples
        --------
        >>> Pairs(("a dog .", "a cat ."), ("ein hund .", "eine katze .")).head(1)
        Pairs(sources=('a dog .',), targets=('ein hund .',))
        """
        return Pairs(self.sources[:n], self.targets[:n])


@dataclass(frozen=True)
class Corpus:
    """Pairs to train, to validate and to test with.

    Attributes
    ----------
    name : str
        The name of the data set.
    languages : tuple of 2 str
        The languages of the sources and of the targets.
    train, validation, test : Pairs
        The three parts, as their authors divide them.

    See Also
    --------
    load : Load Multi30k, a corpus of captions.

    Examples
    --------
    >>> pairs = Pairs(("a dog .", "a cat ."), ("ein hund .", "eine katze ."))
    >>> made = Corpus("made", ("en", "de"), pairs, pairs.head(1), pairs.head(1))
    >>> made.languages, len(made.train), made.test.sources
    (('en', 'de'), 2, ('a dog .',))
    """

    name: str
    languages: tuple[str, str]
    train: Pairs
    validation: Pairs
    test: Pairs


def load(root: str | os.PathLike[str], *, languages: Sequence[str] = ("en", "de")) -> Corpus:
    """Load Multi30k: captions of 31,014 pictures, of which 29,000 are to train with; lower-cased and tokenised.

    Parameters
    ----------
    root : path
        Folder with the files, packed by gzip or not; also looked for in its sub-folder `multi30k`.
    languages : sequence of 2 str
        Languages of the sources and of the targets: "en", "de", or "fr" and "cs" where their files are there.

    Returns
    -------
    Corpus
        The test part is that of 2016.

    Raises
    ------
    ValueError
        Naming `languages`.
    FileNotFoundError
        If a file is not there; the message says where to get it.
    FileFormatError
        If one is damaged, or the files of a part differ in length.

    See Also
    --------
    load_files : Read pairs from any two text files.

    References
    ----------
    Elliott, Frank, Sima'an and Specia 2016, "Multi30K: multilingual English-German image descriptions".

    Examples
    --------
    Files of two sentences in place of the real ones:

    >>> import pathlib, tempfile
    >>> texts = {"en": "a dog .\\na cat .\\n", "de": "ein hund .\\neine katze .\\n"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("train", "val", "test_2016_flickr"):
    ...         for language, text in texts.items():
    ...             _ = pathlib.Path(folder, f"{part}.lc.norm.tok.{language}").write_text(text)
    ...     corpus = load(folder)
    >>> corpus.languages, corpus.train.targets
    (('en', 'de'), ('ein hund .', 'eine katze .'))
    """
    names = list(languages) if isinstance(languages, Sequence) and not isinstance(languages, str) else []
    if len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"languages: must be two names, as ('en', 'de'), got {short(languages)}")
    folder = as_path("root", root)
    parts = {}
    for part, name in FILES.items():
        paths = [_find(folder, f"{name}.lc.norm.tok.{language}") for language in languages]
        parts[part] = load_files(*paths)
    return Corpus("Multi30k", (languages[0], languages[1]), **parts)


def paths_of(root: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a folder that `load` may read, in all languages."""
    folder = as_path("root", root)
    names = [f"{name}.lc.norm.tok.*" for name in FILES.values()]
    return sorted(path for sub in ("", "multi30k") for name in names for path in (folder / sub).glob(name))


def _find(folder: Path, name: str) -> Path:
    """Return the path of a file, packed or not, or raise a FileNotFoundError that says where to get it."""
    for sub in ("", "multi30k"):
        for packed in ("", ".gz"):
            path = folder / sub / f"{name}{packed}"
            if path.exists():
                return path
    raise FileNotFoundError(f"{folder}: has no {name} or {name}.gz, nor has its folder multi30k; get it from {SOURCE}")


def load_files(sources: str | os.PathLike[str], targets: str | os.PathLike[str]) -> Pairs:
    """Load pairs from two text files.

    Parameters
    ----------
    sources, targets : path
        UTF-8 text, one sentence a line, its words between blanks; may be packed by gzip, bzip2 or xz.

    Returns
    -------
    Pairs
        Line i of one file, and line i of the other; white space becomes single blanks.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    FileFormatError
        If one is damaged, has an empty line, or is longer than the other.

    See Also
    --------
    load : Load Multi30k from its folder.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = pathlib.Path(name)
    ...     for language, text in (("en", "a dog .\\na cat ."), ("de", "ein hund .\\neine katze .")):
    ...         _ = (folder / language).write_text(text)
    ...     pairs = load_files(folder / "en", folder / "de")
    >>> pairs.targets
    ('ein hund .', 'eine katze .')
    """
    found = [_lines(as_path(name, path)) for name, path in (("sources", sources), ("targets", targets))]
    if len(found[0]) != len(found[1]):
        raise FileFormatError(
            f"{sources} has {len(found[0])} lines and {targets} {len(found[1])}; each line must have its translation"
        )
    return Pairs(*found)


def _lines(path: Path) -> tuple[str, ...]:
    """Return the lines of a file, with single blanks between words."""
    lines = text_lines(path)
    for number, line in enumerate(lines, start=1):
        if not line.split():
            raise FileFormatError(f"{path}, line {number}: is empty; every line must be a sentence")
    return tuple(" ".join(line.split()) for line in lines)
