"""Translation from English to German by networks whose attention is Hopfield associations, dense or sparse.

Trains encoder-decoder networks of a million weights on the captions of Multi30k, with softmax, sparsemax, entmax15 or
normmax in encoder, decoder and cross-association, all with the same budget. Pieces see all others or, by --structure,
near ones, the best ones, or all by random features. Compares BLEU of whole sentences, and of sentences with words
dropped, swapped or unknown; sparse maps give most pieces a weight of exactly 0. Differences have intervals from a
bootstrap of sentences, which are the same for all models. After every epoch all is written that is needed to go on from
there.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield._engine.optional import require
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, as_tuple, at_least, check_names, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.translation.parts import MAPS, STRUCTURES
from sparsehopfield.studies.translation.protocol import (
    LEARNED,
    LEARNING_RATE,
    Work,
    default_beta,
    evaluate,
    evaluate_trial,
    maps_of,
    metrics,
    name_of,
    trial_metrics,
)
from sparsehopfield.studies.translation.report import Summary, attention_figure, figures, report_text
from sparsehopfield.studies.translation.text import Source, learn_vocabulary, task_of

NAME = "translation"
EXAMPLES = """\
examples:
  python -m sparsehopfield translation --data ~/data
  python -m sparsehopfield translation --data ~/data --maps softmax softmax/softmax/sparsemax
  python -m sparsehopfield translation --data ~/data --structure all window topk features
  python -m sparsehopfield translation --data ~/data --full --epochs 12 --runs 3
  python -m sparsehopfield translation --data ~/data --full --epochs 12 --runs 3 --grid
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    data : path, optional
        The folder that holds Multi30k.
    maps : str or sequence of str
        Models: one separation map of "softmax", "sparsemax", "entmax15", "normmax" for all associations, or three with
        / between, of encoder, decoder and cross-association.
    structure : str or sequence of str
        Which pieces the associations see: "all"; "window", 2 on either side in encoder and decoder, while the
        cross-association sees all, as a piece of the target has no place in the source; "topk", the 4 best; "features",
        all by 64 random features, which stand for softmax alone and are left out for other maps. Random subsets are
        not among them: that of a piece changes with every piece that is added, so a translation step by step would not
        be the whole network's.
    pairs, sentences : int
        Use the first so many pairs to train with, and so many to validate and to test with.
    vocabulary : int
        Word pieces.
    full : bool
        Use all pairs, and 4,000 word pieces, whatever these three say.
    epochs : int
        Epochs to train.
    runs : int
        Seeds of each model.
    grid : bool
        Choose beta and learning rate of each model on the validation part, by the grid of `betas` and `learning_rates`.
    betas : float, "learned", or a sequence of them
        Of the grid, in units of 1 / sqrt(d) for heads of d features; "learned": each head learns its own.
    learning_rates : float or sequence of float
        Of the grid.
    grid_epochs : int
        Epochs of each network of the grid.
    tokens : int
        Pieces of a batch, padding included.
    checkpoints : path, optional
        The folder of the networks; that of results has one by default. Those that are there are not trained again, so
        that several tables can share them.
    jobs : int
        Number of networks to train at the same time.
    """

    data: str | os.PathLike[str] | None = None
    maps: Sequence[str] = ("softmax", "entmax15")
    structure: Sequence[str] = ("all",)
    pairs: int = 1500
    sentences: int = 100
    vocabulary: int = 1000
    full: bool = False
    epochs: int = 4
    runs: int = 1
    grid: bool = False
    betas: Sequence[str] = ("0.25", "0.5", "1", LEARNED)
    learning_rates: Sequence[float] = (1e-3, LEARNING_RATE)
    grid_epochs: int = 3
    tokens: int = 1024
    checkpoints: str | os.PathLike[str] | None = None
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"maps": str, "structure": str, "betas": str, "learning_rates": float}
    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "checkpoints")

    def __post_init__(self) -> None:
        super().__post_init__()
        betas = as_tuple([f"{float(beta):g}" if _is_positive(beta) else beta for beta in self.betas], str)
        object.__setattr__(self, "betas", betas)
        names = [maps_of(name) for name in self.maps]
        object.__setattr__(self, "maps", as_tuple([name_of(maps) for maps in names], str))
        check_names("structure", self.structure, STRUCTURES)
        if "features" in self.structure and "softmax" not in self.maps:
            raise ValueError(
                "structure: features stand for softmax alone; maps must have 'softmax' for all associations"
            )
        for name in ("pairs", "sentences", "vocabulary", "epochs", "runs", "grid_epochs", "jobs"):
            at_least(name, getattr(self, name), 1)
        at_least("tokens", self.tokens, 64)
        for beta in self.betas:
            if beta != LEARNED and not _is_positive(beta):
                raise ValueError(f"betas: must be positive and finite, or {LEARNED!r}, got {beta}")
        for rate in self.learning_rates:
            if not _is_positive(rate):
                raise ValueError(f"learning_rates: must be positive and finite, got {rate}")

    @property
    def models(self) -> list[tuple[str, str]]:
        """Return maps and structure of each model."""
        return [
            (name, structure)
            for structure in self.structure
            for name in self.maps
            if structure != "features" or name == "softmax"
        ]


def _is_positive(number: Any) -> bool:
    """Return whether this is, or reads as, a positive finite number."""
    try:
        return 0 < float(number) < float("inf")
    except ValueError:
        return False


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of translation.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures, and in `grid` those of the grid; what was interrupted there
        is continued, networks from their last epoch.
    **options
        Those of `Options`.

    Returns
    -------
    Outcome

    Raises
    ------
    ValueError, FileNotFoundError
        Naming the option at fault, or the file and where to get it.
    ImportError
        If PyTorch, SentencePiece or sacrebleu is not installed.
    """
    chosen = Options(**options)
    for module in ("torch", "sentencepiece", "sacrebleu"):
        require(module, purpose="the study of translation", extra="translation")
    checkpoints = Path(output, "checkpoints") if chosen.checkpoints is None else Path(chosen.checkpoints)
    if chosen.restart and chosen.checkpoints is None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    pieces = 4000 if chosen.full else chosen.vocabulary
    source = Source(
        None if chosen.data is None else os.fspath(chosen.data),
        None if chosen.full else chosen.pairs,
        None if chosen.full else chosen.sentences,
        os.fspath(checkpoints / f"vocabulary-{pieces}.model"),
    )
    vocabulary = learn_vocabulary(source, pieces)  # bad files are told before any work
    also = {"vocabulary digest": vocabulary.digest, "texts": task_of(source).digest("train", "validation", "test")}
    work = Work(source, os.fspath(checkpoints), chosen.tokens, chosen.seed, chosen.progress and chosen.jobs == 1)
    trials = _grid(Path(output, "grid"), chosen, work, also) if chosen.grid else []
    settings = [
        {
            "map": name,
            "structure": structure,
            "beta": beta,
            "learning rate": rate,
            "epochs": chosen.epochs,
            "run": number,
            "seed": derive_seed(chosen.seed, number),
        }
        for number in range(chosen.runs)  # all models once, then all of them again
        for name, structure in chosen.models
        for beta, rate in (_best(trials, name, structure) if chosen.grid else (default_beta(name), LEARNING_RATE),)
    ]
    rows = measure_table(output, NAME, chosen, settings, metrics, partial(evaluate, work), also=also)
    summary = Summary(rows, settings, work, trials)
    tables.write_rows(Path(output, "differences.csv"), summary.differences)
    drawn = figures(summary) | {"attention": attention_figure(work, settings)}
    return Outcome(
        rows,
        Path(output, tables.TABLE),
        [file for name, one in drawn.items() for file in plotting.save(one, Path(output, f"{NAME}-{name}"))],
        report_text(summary),
    )


def _grid(folder: Path, chosen: Options, work: Work, also: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Train the networks of the grid; return the rows of its table."""
    settings = [
        {
            "map": name,
            "structure": structure,
            "beta": beta,
            "learning rate": rate,
            "epochs": chosen.grid_epochs,
            "run": 0,
            "seed": derive_seed(chosen.seed, 0),
        }
        for beta in chosen.betas
        for rate in chosen.learning_rates
        for name, structure in chosen.models
    ]
    return measure_table(folder, f"{NAME}-grid", chosen, settings, trial_metrics, partial(evaluate_trial, work), also)


def _best(trials: Sequence[Mapping[str, Any]], name: str, structure: str) -> tuple[str, float]:
    """Return beta and learning rate of a model with the least loss on the validation part."""
    losses = [row for row in trials if row["metric"] == "validation loss"]
    own = [row for row in losses if (row["map"], row["structure"]) == (name, structure)]
    best = min(own, key=lambda row: row["value"])
    return best["beta"], best["learning rate"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    add_data_option(parser, "Multi30k's")
    what = f"separation map of all associations, of {', '.join(MAPS)}, or those of encoder/decoder/cross"
    add_option(parser, default, "maps", what, metavar="MAP", shown=" ".join(default.maps))
    what = "which pieces the associations see"
    add_option(parser, default, "structure", what, choices=STRUCTURES, shown=STRUCTURES[0])
    add_option(parser, default, "pairs", "use the first so many pairs to train with", metavar="N")
    add_option(parser, default, "sentences", "use the first so many pairs to validate and to test with", metavar="N")
    add_option(parser, default, "vocabulary", "word pieces", metavar="N")
    add("--full", action="store_true", help="use all pairs and 4000 word pieces, whatever these three options say")
    add_option(parser, default, "epochs", "epochs to train", metavar="N")
    add_option(parser, default, "runs", "seeds of each model", metavar="N")
    add("--grid", action="store_true", help="choose beta and learning rate of each model on the validation part first")
    what = f"of the grid: in units of 1 / sqrt(features of a head), or {LEARNED!r} for each head"
    add_option(parser, default, "betas", what, metavar="BETA", shown=" ".join(default.betas))
    add_option(parser, default, "learning_rates", "of the grid: learning rates at their height", metavar="RATE")
    add_option(parser, default, "grid_epochs", "epochs of each network of the grid", metavar="N")
    add_option(parser, default, "tokens", "pieces of a batch, padding included", metavar="N")
    add(
        "--checkpoints",
        metavar="FOLDER",
        help="folder of the networks; those that are there are not trained again (default: checkpoints in --output)",
    )
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
