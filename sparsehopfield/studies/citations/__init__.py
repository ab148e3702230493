"""Passages of text that are found and cited: which have weight when a question is damaged, translated or vague.

Stores the vectors of passages in a memory: captions of pictures (Multi30k), the lines or paragraphs of text files, or
embeddings from elsewhere. Questions are passages without some of their words, or in another language; the memory's
weights are its citations. Beta is chosen for each map by other questions. Besides how often the source is found and
cited, it measures how many passages are cited as a question has fewer and fewer words, and how often answers that are
certified are right.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.data.passages import SPLITS
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.sources import as_path_or_none, as_paths
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.citations.protocol import MAPS, METRICS, Plan, evaluate
from sparsehopfield.studies.citations.report import Summary, figure, report_text, vague_figure
from sparsehopfield.studies.citations.task import Source, task_of

NAME = "citations"
EXAMPLES = """\
examples:
  python -m sparsehopfield citations --data ~/data
  python -m sparsehopfield citations --data ~/data --dims 512 --questions 1000
  python -m sparsehopfield citations --file notes/ --split paragraphs --dims 64
  python -m sparsehopfield citations --embeddings passages.npy --queries questions.npy
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    data : path, optional
        The folder that holds Multi30k.
    file : path or sequence of paths, optional
        Text files, or folders of them, in place of it.
    split : {"lines", "paragraphs"}
        What a passage of these is.
    embeddings : path, optional
        A .npy file with one row a passage, in place of vectors that are made here.
    queries : path, optional
        A .npy file whose row i asks for passage i.
    dims : int
        Features of the vectors that are made here.
    passages : int, optional
        Use only the first so many, for a small run.
    without : float or sequence of float
        Shares of words that are dropped, or of noise in embeddings.
    words : int
        Vague questions have from so many words down to one; 0 asks none.
    betas : float or sequence of float
        Where certificates of sparsemax are counted.
    maps : str or sequence of str
        Of "softmax", "sparsemax", "entmax15".
    questions : int
        How many of a kind to test with, or as many as there are.
    """

    data: str | None = None
    file: Sequence[str] = ()
    split: str = "lines"
    embeddings: str | None = None
    queries: str | None = None
    dims: int = 256
    passages: int | None = None
    without: Sequence[float] = (0.25, 0.5, 0.75)
    words: int = 10
    betas: Sequence[float] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    maps: Sequence[str] = MAPS
    questions: int = 500

    _sequences: ClassVar[Mapping[str, type]] = {"without": float, "betas": float, "maps": str}
    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "file", "embeddings", "queries")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "file", as_paths("file", self.file))
        for name in ("data", "embeddings", "queries"):
            object.__setattr__(self, name, as_path_or_none(name, getattr(self, name)))
        check_names("split", (self.split,), SPLITS)
        check_names("maps", self.maps, MAPS)
        for name, least in (("dims", 1), ("questions", 2), ("words", 0)):
            at_least(name, getattr(self, name), least)
        if self.passages is not None:
            at_least("passages", self.passages, 10)
        for share in self.without:
            if not 0 <= share < 1:
                raise ValueError(f"without: must be at least 0 and below 1, got {share}")
        for beta in self.betas:
            if not 0 < beta < float("inf"):
                raise ValueError(f"betas: must be positive and finite, got {beta}")
        if self.queries is not None and self.embeddings is None:
            raise ValueError("queries: are rows for the passages of --embeddings, which are not given")


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of citations.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`.

    Returns
    -------
    Outcome

    Raises
    ------
    ValueError, FileNotFoundError
        Naming the option at fault, or the file and where to get it.
    """
    chosen = Options(**options)
    source = Source(
        chosen.data,
        tuple(chosen.file),
        chosen.split,
        chosen.embeddings,
        chosen.queries,
        chosen.dims,
        chosen.passages,
    )
    task = task_of(source)  # bad files are refused before any work
    kinds = task.kinds(chosen.without)
    left = tuple(range(chosen.words, 0, -1)) if task.space is not None else ()
    if left:
        task.vague(left, chosen.questions, 0)
    plan = Plan(tuple(kinds), left, chosen.questions, chosen.seed)

    def setting(kind: str, number: int, separation: str, words: Any = "-", beta: Any = "chosen") -> dict[str, Any]:
        seed = derive_seed(chosen.seed, 0, number)
        return {"questions": kind, "left": words, "map": separation, "beta": beta, "seed": seed}

    settings = [setting(kind, i, separation) for i, kind in enumerate(kinds) for separation in chosen.maps]
    settings += [setting("vague", len(kinds), separation, words) for words in left for separation in chosen.maps]
    if "sparsemax" in chosen.maps:
        settings += [setting(kind, i, "sparsemax", beta=beta) for i, kind in enumerate(kinds) for beta in chosen.betas]
    also = {"content": task.digest}
    rows = measure_table(output, NAME, chosen, settings, METRICS, lambda setting: evaluate(source, setting, plan), also)
    summary = Summary(rows)
    drawn = {NAME: figure(summary)} if "sparsemax" in chosen.maps else {}
    if left:
        drawn[f"{NAME}-vague"] = vague_figure(summary)
    return Outcome(
        rows,
        Path(output, tables.TABLE),
        [file for name, one in drawn.items() for file in plotting.save(one, Path(output, name))],
        report_text(summary),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    add_data_option(parser, "captions'")
    add("--file", nargs="+", metavar="TEXT", default=(), help="passages of these text files, or folders of them")
    add("--split", choices=SPLITS, default=default.split, help="what a passage of a file is (default: %(default)s)")
    add("--embeddings", metavar="NPY", help="vectors of passages from elsewhere, one row each, in place of ours")
    add("--queries", metavar="NPY", help="vectors of questions to these; row i asks for passage i")
    add_option(parser, default, "dims", "features of the vectors that are made here", metavar="N")
    add("--passages", type=int, metavar="N", help="use only the first so many, for a small run (default: all)")
    add_option(parser, default, "without", "shares of words to drop, or of noise in embeddings", metavar="SHARE")
    add_option(parser, default, "words", "vague questions have from so many words down to one; 0: none", metavar="N")
    add_option(parser, default, "betas", "where certificates of sparsemax are counted", metavar="BETA")
    add_option(parser, default, "maps", "separation maps of the memory", choices=MAPS)
    add_option(parser, default, "questions", "how many of a kind to test with", metavar="N")
    add_common_options(parser, f"results/{NAME}, or results/{NAME}-FILE", default)
