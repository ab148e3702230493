"""Forecasts of a time series by memories: without training, of what ridge regression leaves, and by a network.

Forecasts an electricity transformer's loads and oil temperature (ETTh1), or the columns of any csv file with dates. A
memory stores windows of the past and what followed them; its forecast is a mixture of what followed the windows most
like the last one. Beside it: repetition, ridge regression, linear networks, and a transformer of patches with
Hopfield associations. Errors are over all windows of the last part of the series; what is deterministic has an
interval from a bootstrap of weeks, what is trained a deviation over seeds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield._engine.optional import require
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.series.protocol import (
    MAPPED,
    MAPS,
    METRICS,
    MODELS,
    TRAINED,
    evaluate,
)
from sparsehopfield.studies.series.report import Summary, analogues_figure, figure, report_text
from sparsehopfield.studies.series.task import LOOK_BACK, Source, task_of

NAME = "series"
DATASETS = ("ETTh1", "ETTh2")
STRUCTURES = ("all", "window", "features")
EXAMPLES = """\
examples:
  python -m sparsehopfield series --data ~/data
  python -m sparsehopfield series --data ~/data --horizons 24 48 96 192 336 720 --jobs 2
  python -m sparsehopfield series --data ~/data --models nlinear network --runs 5 --epochs 8
  python -m sparsehopfield series --file sales.csv --horizons 12 --models seasonal ridge memory
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    dataset : {"ETTh1", "ETTh2"}
        The series.
    data : path, optional
        The folder that holds it.
    file : path, optional
        A csv file with a column `date` in place of it.
    rows : int, optional
        Use only the last so many rows, for a small run.
    horizons : int or sequence of int
        How many rows to forecast.
    models : str or sequence of str
        Of "last", "seasonal", "mean day", "ridge", "dlinear", "nlinear", "memory", "residuals", "blend", "network".
    maps : str or sequence of str
        Separation maps of memories and networks: of "softmax", "sparsemax", "entmax15".
    structure : str or sequence of str
        Of the network's associations: of "all", "window" (2 patches on either side), "features" (random ones).
    runs : int
        Seeds of what is trained.
    epochs : int
        Epochs to train.
    jobs : int
        Number of settings to measure at the same time.
    """

    dataset: str = "ETTh1"
    data: str | os.PathLike[str] | None = None
    file: str | os.PathLike[str] | None = None
    rows: int | None = None
    horizons: Sequence[int] = (24, 96)
    models: Sequence[str] = tuple(model for model in MODELS if model not in TRAINED)
    maps: Sequence[str] = MAPS
    structure: Sequence[str] = ("all",)
    runs: int = 1
    epochs: int = 3
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"horizons": int, "models": str, "maps": str, "structure": str}
    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "file")  # what it holds has one

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("dataset", (self.dataset,), DATASETS)
        check_names("models", self.models, MODELS)
        check_names("maps", self.maps, MAPS)
        check_names("structure", self.structure, STRUCTURES)
        at_least("horizons", min(self.horizons), 1)
        for name in ("runs", "epochs", "jobs"):
            at_least(name, getattr(self, name), 1)
        if self.rows is not None:
            at_least("rows", self.rows, 2 * LOOK_BACK)
        if "features" in self.structure and set(self.maps) != {"softmax"} and "network" in self.models:
            raise ValueError("structure: features stand for softmax alone; pass maps='softmax', too")


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of time series.

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
    ImportError
        If networks are asked for and PyTorch is not installed.
    """
    chosen = Options(**options)
    if set(TRAINED) & set(chosen.models):
        require("torch", purpose="networks of the study of time series", extra="torch")
    folder, file = (None if path is None else os.fspath(path) for path in (chosen.data, chosen.file))
    source = Source(chosen.dataset, folder, file, chosen.rows)
    tasks = [task_of(source, horizon) for horizon in chosen.horizons]  # bad files and horizons are told before any work
    settings = [
        {
            "model": model,
            "map": separation,
            "structure": structure,
            "horizon": horizon,
            "run": number,
            "seed": derive_seed(chosen.seed, horizon, number),
        }
        for horizon in chosen.horizons
        for model in chosen.models
        for separation in (chosen.maps if model in MAPPED else ("-",))
        for structure in (chosen.structure if model == "network" else ("-",))
        for number in range(chosen.runs if model in TRAINED else 1)
    ]
    rows = measure_table(
        output,
        NAME,
        chosen,
        settings,
        METRICS,
        lambda setting: evaluate(source, setting, chosen.epochs),
        also={"series": tasks[0].series.name, "numbers": sha256(tasks[0].series.values.tobytes()).hexdigest()},
    )
    summary = Summary(rows, tasks[0].series, chosen.epochs)
    drawn = {NAME: figure(summary)}
    if "memory" in chosen.models:
        drawn[f"{NAME}-analogues"] = analogues_figure(source, chosen.horizons[0], chosen.maps[-1])
    return Outcome(
        rows,
        Path(output, tables.TABLE),
        [file for name, one in drawn.items() for file in plotting.save(one, Path(output, name))],
        report_text(summary),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    add("--dataset", choices=DATASETS, default=default.dataset, help="the series (default: %(default)s)")
    add_data_option(parser, "series'")
    add("--file", metavar="CSV", help="forecast the columns of this csv file with a column `date` and equal steps")
    add("--rows", type=int, metavar="N", help="use only the last so many rows, for a small run (default: all)")
    add_option(parser, default, "horizons", "rows to forecast", metavar="N")
    add_option(parser, default, "models", "models", choices=MODELS, shown="those that are not trained")
    add_option(parser, default, "maps", "separation maps of memories and networks", choices=MAPS)
    what = "which patches the network's associations see"
    add_option(parser, default, "structure", what, choices=STRUCTURES, shown=STRUCTURES[0])
    add_option(parser, default, "runs", "seeds of what is trained")
    add_option(parser, default, "epochs", "epochs to train", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}-DATASET", default)
