"""The next word of a text, by n-grams and a memory of contexts: does it help, and must it be sparse?

Predicts the words of captions (Multi30k), or of a text file, by n-grams with Kneser and Ney's smoothing, and by a
memory that stores what came before every word to train with, and which word followed. Both are mixed; the memory's
share and beta are those of least perplexity of other sentences. Longer n-grams stand beside it, and more sentences to
train with.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names
from sparsehopfield.studies._core.sources import as_path_or_none, as_paths
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.next_word.protocol import ALONE, MAPS, METRICS, Model, Plan, evaluate
from sparsehopfield.studies.next_word.report import Summary, figure, report_text
from sparsehopfield.studies.next_word.task import CONTEXT, Source, text_of

NAME = "next-word"
LANGUAGES = ("en", "de")
EXAMPLES = """\
examples:
  python -m sparsehopfield next-word --data ~/data
  python -m sparsehopfield next-word --data ~/data --sentences 5000 29000 --words 20000
  python -m sparsehopfield next-word --data ~/data --language de
  python -m sparsehopfield next-word --file book.txt --sentences 2000
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    data : path, optional
        The folder that holds Multi30k.
    file : path or sequence of paths, optional
        Text files in place of it, one sentence a line: four of five lines to train with, half of the rest to validate.
    language : {"en", "de"}
        Of the captions.
    sentences : int or sequence of int
        How many to train with, the first ones.
    words : int, optional
        Validate and test with the first sentences that have so many words each, ends of sentences among them; all for
        None.
    order : int or sequence of int
        The words of the longest n-grams.
    maps : str or sequence of str
        Separation maps of the memory: of "softmax", "sparsemax", "entmax15".
    dims : int
        Features for each of the last four words of a context.
    nearest : int
        A mixture is of so many contexts at most.
    jobs : int
        Number of settings to measure at the same time.
    """

    data: str | None = None
    file: Sequence[str] = ()
    language: str = "en"
    sentences: Sequence[int] = (2000, 10000)
    words: int | None = 3000
    order: Sequence[int] = (3, 4)
    maps: Sequence[str] = tuple(MAPS)
    dims: int = 32
    nearest: int = 1024
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"sentences": int, "order": int, "maps": str}
    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "file")  # what it holds has one

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "file", as_paths("file", self.file))
        object.__setattr__(self, "data", as_path_or_none("data", self.data))
        check_names("language", (self.language,), LANGUAGES)
        check_names("maps", self.maps, MAPS)
        at_least("sentences", min(self.sentences), 10)
        for name in ("dims", "nearest", "jobs"):
            at_least(name, getattr(self, name), 1)
        if self.words is not None:
            at_least("words", self.words, 1)
        for order in self.order:
            if not 1 <= order <= CONTEXT:
                raise ValueError(f"order: must be from 1 to {CONTEXT}, got {order}")


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of the next word.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
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
    source = Source(chosen.data, tuple(chosen.file), chosen.language, chosen.words)
    largest = text_of(source, max(chosen.sentences))  # bad files are refused before any work
    if chosen.dims >= (most := len(largest.vocabulary)):
        raise ValueError(f"dims: must be below the {most} words of the text, got {chosen.dims}")
    model = Model(chosen.dims, chosen.nearest)
    settings = [
        {"sentences": count, "order": order, "map": separation}
        for count in chosen.sentences
        for order in chosen.order
        for separation in (ALONE, *chosen.maps)
    ]
    plan, also = Plan(tuple(chosen.order), tuple(chosen.maps)), {"text": largest.digest}
    rows = measure_table(
        output, NAME, chosen, settings, METRICS, lambda setting: evaluate(source, setting, model, plan), also
    )
    summary = Summary(rows)
    drawn = plotting.save(figure(summary), Path(output, NAME))
    return Outcome(rows, Path(output, tables.TABLE), drawn, report_text(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    add_data_option(parser, "captions'")
    add("--file", nargs="+", metavar="TEXT", default=(), help="text files in place of the captions, a sentence a line")
    add("--language", choices=LANGUAGES, default=default.language, help="of the captions (default: %(default)s)")
    add_option(parser, default, "sentences", "how many to train with", metavar="N")
    add(
        "--words",
        type=int,
        metavar="N",
        default=default.words,
        help="validate and test with about so many words (default: %(default)s)",
    )
    add_option(parser, default, "order", "the words of the longest n-grams", metavar="N")
    add_option(parser, default, "maps", "separation maps of the memory", choices=MAPS)
    add_option(parser, default, "dims", "features for each of the last four words of a context", metavar="N")
    add_option(parser, default, "nearest", "a mixture is of so many contexts at most", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}, or results/{NAME}-FILE", default)
