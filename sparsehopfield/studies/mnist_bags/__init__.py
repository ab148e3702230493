"""Bags of digits: is a 9 among them, and which one? (the MNIST bags of Ilse et al., 2018)

Trains classifiers of bags of handwritten digits that are positive when a 9 is inside, with more and more bags, and
tests them with bags of other images. Besides how many bags they get right, it measures where they look: whether the
instance with the largest weight is a 9, and how much weight all nines of a bag have together. Pictures of some bags
show it. With --targets a positive bag has exactly so many nines, which makes large bags hard.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.data.bags import Bags
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_jobs_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies._core.words import join_numbers
from sparsehopfield.studies.mnist_bags.protocol import METRICS, MODELS, SETTINGS, Source, draw_and_train, evaluate
from sparsehopfield.studies.mnist_bags.report import Summary, figure, pictures, report_text

if TYPE_CHECKING:
    from sparsehopfield.estimators import HopfieldMILClassifier

NAME = "mnist-bags"
DATASETS = ("digits", "mnist")
EXAMPLES = """\
examples:
  python -m sparsehopfield mnist-bags --sizes 10 --bags 50 200
  python -m sparsehopfield mnist-bags --dataset mnist --data ~/data --jobs 4
  python -m sparsehopfield mnist-bags --dataset mnist --data ~/data --targets 1 --output results/one
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    dataset : {"digits", "mnist"}
        The images that bags are made of.
    data : path, optional
        The folder that holds MNIST.
    models : str or sequence of str
        Of "sparse" and "dense".
    sizes : int or sequence of int
        Mean bag sizes; the standard deviation is a fifth.
    bags : int or sequence of int
        How many bags to train with.
    targets : int, optional
        How many nines a positive bag has; by default as many as chance puts there.
    runs : int
        Draws of bags and initial weights.
    epochs : int
        Epochs to train.
    jobs : int
        Number of settings to measure at the same time.
    """

    dataset: str = "digits"
    data: str | os.PathLike[str] | None = None
    models: Sequence[str] = tuple(MODELS)
    sizes: Sequence[int] = (10, 50, 100)
    bags: Sequence[int] = (50, 100, 200, 400)
    targets: int | None = None
    runs: int = 3
    epochs: int = SETTINGS["epochs"]
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"models": str, "sizes": int, "bags": int}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("dataset", (self.dataset,), DATASETS)
        check_names("models", self.models, MODELS)
        at_least("sizes", min(self.sizes), 1)
        at_least("bags", min(self.bags), 2)
        for name in ("runs", "epochs", "jobs"):
            at_least(name, getattr(self, name), 1)
        if self.targets is not None:
            at_least("targets", self.targets, 1)

    def settings(self) -> list[dict[str, Any]]:
        """Return the settings of the table."""
        return [
            {
                "dataset": self.dataset,
                "size": size,
                "bags": count,
                "model": model,
                "run": run,
                "seed": derive_seed(self.seed, size, run),
            }
            for size in self.sizes
            for count in self.bags
            for run in range(self.runs)
            for model in self.models
        ]


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of bags of digits.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `dataset`, `data`, `models`, `sizes`, `bags`, `targets`, `runs`, `epochs`, `jobs`, `seed`,
        `restart`, `progress`.
    """
    chosen = Options(**options)
    folder = None if chosen.data is None else str(chosen.data)
    description = _source(chosen.dataset, folder).train.description
    settings = chosen.settings()

    def train(setting: Mapping[str, Any]) -> tuple[HopfieldMILClassifier, Bags]:
        name, size, count, model, _, seed = setting.values()
        return draw_and_train(_source(name, folder), model, size, count, chosen.targets, seed, chosen.epochs)

    rows = measure_table(output, NAME, chosen, settings, METRICS, lambda setting: evaluate(*train(setting)))
    summary = Summary(rows, description, chosen.targets)
    shown = [s for s in settings if s["size"] == chosen.sizes[0] and s["bags"] == chosen.bags[-1] and s["run"] == 0]
    seen = pictures({str(setting["model"]): train(setting) for setting in shown})
    drawn = {NAME: figure(summary), f"{NAME}-weights": seen}
    return Outcome(
        rows,
        Path(output, tables.TABLE),
        [file for name, one in drawn.items() for file in plotting.save(one, Path(output, name))],
        report_text(summary),
    )


def stored(folder: str | os.PathLike[str]) -> Summary:
    """Read a finished table of the study.

    Parameters
    ----------
    folder : path
        Of the table and its settings.

    Returns
    -------
    Summary
        Of which tables and figures are made; images are not needed.

    Raises
    ------
    FileNotFoundError
        If there is no table.
    FileFormatError
        If it is damaged, not finished, or of another study.
    """
    chosen = tables.stored_options(folder, NAME, Options)
    return Summary(tables.stored_rows(folder, chosen.settings(), METRICS), chosen.dataset, chosen.targets)


@lru_cache(maxsize=1)
def _source(name: str, folder: str | None) -> Source:
    """Load the images, once in each process."""
    return Source.load(name, folder)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    add(
        "--dataset",
        choices=DATASETS,
        default=default.dataset,
        help="images of digits; those of scikit-learn, or MNIST, which is read from --data (default: %(default)s)",
    )
    add_data_option(parser, "MNIST")
    add(
        "--models",
        nargs="+",
        choices=tuple(MODELS),
        default=default.models,
        metavar="MODEL",
        help=f"of {', '.join(MODELS)} (default: all); sparse is sparsemax, dense is softmax",
    )
    for name, text in (("sizes", "mean bag sizes; the standard deviation is a fifth"), ("bags", "bags to train with")):
        values = getattr(default, name)
        add(
            f"--{name}",
            nargs="+",
            type=int,
            metavar="N",
            default=values,
            help=f"{text} (default: {join_numbers(values)})",
        )
    add("--targets", type=int, metavar="N", help="nines in a positive bag (default: as many as chance puts there)")
    add("--runs", type=int, metavar="N", default=default.runs, help="runs of each setting (default: %(default)s)")
    add("--epochs", type=int, metavar="N", default=default.epochs, help="epochs to train (default: %(default)s)")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}-DATASET", default)
