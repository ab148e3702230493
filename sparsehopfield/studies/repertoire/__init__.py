"""Immune repertoires: which people have met the antigen, and which of their sequences say so?

Simulates repertoires of ten or a hundred thousand CDR3 sequences, after the simulations by which DeepRC was judged
(Widrich et al., 2020): a short motif is implanted in 1 to 0.01 % of the sequences of every other repertoire, at varying
places, some with a gap or a deletion. Classifiers see labels of whole repertoires alone. Each sequence is the k-mers in
it, of those whose shares differ most between the classes; a Hopfield layer pools the sequences, by a sparse map or by
softmax. Besides how many repertoires are told apart, the study measures whether the sequences that got weight are those
with the motif. Beside the networks are a regression on how often k-mers are there, and the count of the motif itself,
whole ones only, which no method knows. With --file it reads repertoires from AIRR tsv files.
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
from sparsehopfield.studies._core.cli import add_common_options, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.sources import as_path_or_none
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.repertoire.protocol import (
    ALPHA,
    METRICS,
    MODELS,
    MOTIF,
    WHOLE,
    Source,
    evaluate,
)
from sparsehopfield.studies.repertoire.report import Summary, figure, report_text

NAME = "repertoire"
#: The folder of the heaviest sequences, one csv file a setting.
SEQUENCES = "sequences"
EXAMPLES = """\
examples:
  python -m sparsehopfield repertoire
  python -m sparsehopfield repertoire --rates 0.01 0.001 0.0003 0.0001 --bags 200 --tested 200 \\
      --epochs 16 --runs 5
  python -m sparsehopfield repertoire --sizes 100000 --rates 0.001 0.0001 --bags 200 --tested 200 \\
      --epochs 16 --runs 3
  python -m sparsehopfield repertoire --file cohort/metadata.tsv --label CMV --runs 5
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    file : path, optional
        A file of labels in place of simulated repertoires; see `sparsehopfield.data.repertoires.load_airr`.
    label, positive : str
        The column of the labels there, and the label of a positive repertoire.
    counts : bool
        Whether the k-mers of a sequence that was seen c times count 1 + log(c).
    sizes : int or sequence of int
        Sequences of a repertoire.
    rates : float or sequence of float
        Witness rates.
    motifs : int
        How many motifs are implanted.
    gap, deletion : float
        How often a motif has a gap, and how often it lacks a letter.
    models : str or sequence of str
        Of "sparsemax", "entmax15", "softmax", "counts", "motif".
    bags, tested : int
        Repertoires to train and to test with, even numbers; of a file a third is tested with.
    k : int
        Letters of a k-mer.
    features : int
        How many k-mers the networks see.
    epochs : int
        Epochs to train.
    anneal : float
        Share of them, the first, in which alpha grows from 1, softmax, to that of a sparse map.
    runs : int
        Draws of repertoires and initial weights; of a file, of its split.
    jobs : int
        Number of settings to measure at the same time.
    """

    file: str | None = None
    label: str = "label"
    positive: str | None = None
    counts: bool = False
    sizes: Sequence[int] = (10_000,)
    rates: Sequence[float] = (0.01, 0.001)
    motifs: int = 1
    gap: float = 0.1
    deletion: float = 0.1
    models: Sequence[str] = MODELS
    bags: int = 160
    tested: int = 100
    k: int = 3
    features: int = 256
    epochs: int = 10
    anneal: float = 0.5
    runs: int = 1
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"sizes": int, "rates": float, "models": str}
    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "file")  # what it holds has one

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "file", as_path_or_none("file", self.file))
        check_names("models", self.models, MODELS)
        at_least("sizes", min(self.sizes), 1)
        for name in ("motifs", "k", "features", "epochs", "runs", "jobs"):
            at_least(name, getattr(self, name), 1)
        for name, least in (("bags", 10), ("tested", 2)):
            at_least(name, getattr(self, name), least)
            if getattr(self, name) % 2:
                raise ValueError(f"{name}: must be even, half of them positive, got {getattr(self, name)}")
        if self.k > 4:
            raise ValueError(f"k: must be at most 4, got {self.k}")
        for name, values in (("rates", self.rates), *((name, (getattr(self, name),)) for name in SHARES)):
            for value in values:
                if not 0 <= value <= 1 or (name == "rates" and value == 0):
                    raise ValueError(f"{name}: must be from 0 to 1, got {value}")
        if self.file is not None and set(self.models) == {MOTIF}:
            raise ValueError("models: nobody knows the motif of a file; name another model")


#: Options that are shares.
SHARES = ("gap", "deletion", "anneal")


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of immune repertoires.

    Parameters
    ----------
    output : path
        Folder for the table, its settings, the figure, and the heaviest sequences (in its folder `sequences`); an
        interrupted table that is there is continued.
    **options
        Those of `Options`.

    Returns
    -------
    Outcome

    Raises
    ------
    ValueError, FileNotFoundError
        Naming the option at fault, or the file.
    """
    chosen = Options(**options)
    source = Source(
        file=chosen.file,
        **{name: getattr(chosen, name) for name in Source.__dataclass_fields__ if name not in ("file", "digest")},
    ).pinned(chosen.models)  # bad files are found before any work
    simulated = source.file is None
    settings = [
        {"size": size, "rate": rate, "model": model, "run": number, "seed": derive_seed(chosen.seed, *key, number)}
        for size, rate, key in (
            [(size, rate, (size, round(1e9 * rate))) for size in chosen.sizes for rate in chosen.rates]
            if simulated
            else [("-", "-", ())]
        )
        for number in range(chosen.runs)
        for model in chosen.models
        if simulated or model != MOTIF
    ]

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        values, heaviest = evaluate(source, setting, chosen.epochs, chosen.anneal)
        if heaviest:
            tables.write_rows(Path(output, SEQUENCES, sequences_name(setting)), heaviest)
        return values

    def metrics(setting: Mapping[str, Any]) -> Sequence[str]:
        if setting["model"] not in ALPHA:
            return WHOLE
        return METRICS if simulated else (*WHOLE, "support")

    also = {} if simulated else {"repertoires": source.digest}
    rows = measure_table(
        output,
        NAME,
        chosen,
        settings,
        metrics,
        measure,
        also=also,
        together=lambda setting: (setting["size"], setting["rate"], setting["run"]),  # all models see the same draw
    )
    summary = Summary(rows, source, dict(zip(map(_key, settings), tables.times(output, settings), strict=True)))
    first = [s for s in settings if s["run"] == 0 and s["model"] in ALPHA]
    shown = {str(s["model"]): Path(output, SEQUENCES, sequences_name(s)) for s in reversed(first)}
    figures = plotting.save(figure(summary), Path(output, NAME)) if simulated else []
    return Outcome(rows, Path(output, tables.TABLE), figures, report_text(summary, shown))


def _key(setting: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what distinguishes a setting but for its seed."""
    return tuple(setting[name] for name in ("size", "rate", "model", "run"))


def sequences_name(setting: Mapping[str, Any]) -> str:
    """Return the name of the file with the heaviest sequences of a setting."""
    where = "" if setting["size"] == "-" else f"{setting['size']}-{setting['rate']:g}-"
    return f"{where}{setting['model']}-{setting['run']}.csv"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    add(
        "--file",
        metavar="TABLE",
        help="read repertoires from AIRR tsv files; this tsv or csv file has one row for each, with the columns "
        "repertoire_id, a label, and where it is there filename (default: simulate them)",
    )
    add("--label", metavar="COLUMN", default=default.label, help="the column of labels in it (default: %(default)s)")
    add(
        "--positive",
        metavar="LABEL",
        help="the label there of a positive one (default: 1, +, true or yes beside its opposite)",
    )
    add("--counts", action="store_true", help="weigh a sequence that was seen c times by 1 + log(c)")
    add_option(parser, default, "sizes", "sequences of a repertoire", metavar="N")
    add_option(parser, default, "rates", "shares of a positive one's sequences with a motif", metavar="SHARE")
    add_option(parser, default, "motifs", "motifs to implant", metavar="N")
    add_option(parser, default, "gap", "how often a motif has a gap", metavar="SHARE")
    add_option(parser, default, "deletion", "how often a motif lacks a letter", metavar="SHARE")
    add_option(parser, default, "models", "what classifies", choices=MODELS)
    add_option(parser, default, "bags", "repertoires to train with", metavar="N")
    add_option(parser, default, "tested", "repertoires to test with; of a file a third is", metavar="N")
    add_option(parser, default, "k", "letters of a k-mer", metavar="N")
    add_option(parser, default, "features", "k-mers that networks see", metavar="N")
    add_option(parser, default, "epochs", "epochs to train", metavar="N")
    add_option(parser, default, "anneal", "share of them in which alpha grows from softmax's", metavar="SHARE")
    add_option(parser, default, "runs", "draws of repertoires, or splits of a file", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
