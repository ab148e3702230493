"""Forecasts of a time series by memories: without training, of what ridge regression leaves, and by a network.

Forecasts an electricity transformer's loads and oil temperature (ETTh1), or the columns of any csv file with dates. A
memory stores windows of the past and what followed them; its forecast is a mixture of what followed the windows most
like the last one. Beside it: repetition, ridge regression, linear networks, and a transformer of patches with
Hopfield associations. Errors are over all windows of the last part of the series; what is deterministic has an
interval from a bootstrap of weeks, or of blocks as long as the horizon; what is trained a deviation over seeds.
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
from sparsehopfield.studies._core.options import Outcome, StudyOptions, as_tuple, at_least, check_names, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.series.protocol import (
    DENSE,
    MAPPED,
    MAPS,
    MODELS,
    PLAIN,
    TRAINED,
    evaluate,
    metrics_of,
)
from sparsehopfield.studies.series.report import Summary, analogues_figure, figures, report_text
from sparsehopfield.studies.series.task import LOOK_BACK, Source, task_of

NAME = "series"
EPOCHS = 6
DATASETS = ("ETTh1", "ETTh2")
STRUCTURES = ("all", "window", "features")
EXAMPLES = """\
examples:
  python -m sparsehopfield series --data ~/data
  python -m sparsehopfield series --data ~/data --models all --horizons 24 48 96 192 336 720 \\
      --structure all window features --structure-horizons 96 336 --runs 5 --jobs 2
  python -m sparsehopfield series --data ~/data --models ridge network --maps softmax sparsemax
  python -m sparsehopfield series --file sales.csv --date day --horizons 14 --season 7
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
        A csv file in place of it, with a column of dates, equal steps, and numbers in all other columns.
    date : str
        The column of dates.
    rows : int, optional
        Use only the last so many rows, for a small run.
    season : int, optional
        Rows of a season. By default what the step of the dates suggests: those of a day, of a week for days, of a year
        for weeks and months; 1, which is none, for others and where a season is longer than the look-back.
    look_back : int, optional
        Rows that go before each forecast. By default 512, or a quarter of the part to train with where that is shorter.
    horizons : int or sequence of int
        How many rows to forecast.
    models : str or sequence of str
        Of "last", "seasonal", "seasonal mean", "ridge", "dlinear", "nlinear", "memory", "blend", "residuals",
        "network", or "all".
    maps : str or sequence of str
        Separation maps of memories and networks: of "softmax", "sparsemax", "entmax15".
    structure : str or sequence of str
        Of the network's associations: of "all", "window" (2 patches on either side), "features" (random ones, which
        stand for softmax alone and are left out for other maps).
    structure_horizons : int or sequence of int, optional
        At which of the horizons structures other than "all" are measured; at all by default.
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
    date: str = "date"
    rows: int | None = None
    season: int | None = None
    look_back: int | None = None
    horizons: Sequence[int] = (24, 96)
    models: Sequence[str] = tuple(model for model in MODELS if model not in TRAINED)
    maps: Sequence[str] = MAPS
    structure: Sequence[str] = ("all",)
    structure_horizons: Sequence[int] | None = None
    runs: int = 1
    epochs: int = EPOCHS
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"horizons": int, "models": str, "maps": str, "structure": str}
    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "file")  # what it holds has one

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("dataset", (self.dataset,), DATASETS)
        if "all" in self.models:
            object.__setattr__(self, "models", MODELS)
        check_names("models", self.models, MODELS)
        check_names("maps", self.maps, MAPS)
        check_names("structure", self.structure, STRUCTURES)
        at_least("horizons", min(self.horizons), 1)
        for name in ("runs", "epochs", "jobs"):
            at_least(name, getattr(self, name), 1)
        for name, least in (("rows", 20), ("season", 1), ("look_back", 2)):
            if (value := getattr(self, name)) is not None:
                at_least(name, value, least)
        if self.look_back is not None and self.look_back > LOOK_BACK:
            raise ValueError(f"look_back: must be at most {LOOK_BACK}, got {self.look_back}")
        if self.structure_horizons is not None:
            few = as_tuple(self.structure_horizons, int)
            if extra := [horizon for horizon in few if horizon not in self.horizons]:
                raise ValueError(f"structure_horizons: must be of the horizons, {self.horizons}, got {extra[0]}")
            object.__setattr__(self, "structure_horizons", few)
        if "features" in self.structure and DENSE not in self.maps and "network" in self.models:
            raise ValueError(f"structure: features stand for softmax alone; maps must have {DENSE!r}, too")

    def settings(self) -> list[dict[str, Any]]:
        """Return the settings of the table: all that is not trained first, then one run of all that is after another.

        Models of one map stand side by side, as they share a memory.
        """
        plain = [(model, "-", "-") for model in self.models if model in PLAIN]
        mapped = [
            (model, separation, structure)
            for separation in self.maps
            for model in self.models
            if model in MAPPED
            for structure in (self.structure if model == "network" else ("-",))
            if structure != "features" or separation == DENSE
        ]
        few = self.horizons if self.structure_horizons is None else self.structure_horizons
        return [
            {
                "model": model,
                "map": separation,
                "structure": structure,
                "horizon": horizon,
                "run": number,
                "seed": derive_seed(self.seed, horizon, number),
            }
            for is_trained, runs in ((False, 1), (True, self.runs))
            for number in range(runs)
            for horizon in self.horizons
            for model, separation, structure in plain + mapped
            if (model in TRAINED) == is_trained and (structure in ("-", "all") or horizon in few)
        ]


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
    source = Source(
        name=chosen.dataset,
        data=folder,
        file=file,
        date=chosen.date,
        rows=chosen.rows,
        season=chosen.season,
        look_back=chosen.look_back,
    )
    tasks = [task_of(source, horizon) for horizon in chosen.horizons]  # bad files and horizons are told before any work
    rows = measure_table(
        output,
        NAME,
        chosen,
        chosen.settings(),
        lambda setting: metrics_of(setting, chosen.maps),
        lambda setting: evaluate(source, setting, chosen.epochs, chosen.maps),
        also={"series": tasks[0].series.name, "numbers": sha256(tasks[0].series.values.tobytes()).hexdigest()},
        together=lambda setting: None if setting["model"] in TRAINED else setting["horizon"],  # they share memories
    )
    summary = Summary(rows, tasks[0], chosen.epochs)
    drawn = figures(summary, NAME)
    if "memory" in chosen.models:
        shown = "sparsemax" if "sparsemax" in chosen.maps else chosen.maps[-1]
        drawn[f"{NAME}-analogues"] = analogues_figure(source, chosen.horizons[0], shown)
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
    add(
        "--file",
        metavar="CSV",
        help="forecast the columns of this csv file in place of the dataset; it has a column of dates with equal steps "
        "(or calendar months), and about 10 times as many rows as the farthest horizon",
    )
    add_option(parser, default, "date", "the column of dates", metavar="NAME")
    what = "rows of a season (default: a day; a week of days; a year of weeks or months; none of others)"
    add("--season", type=int, metavar="N", help=what)
    what = f"rows that go before each forecast (default: {LOOK_BACK}, or a quarter of the part to train with)"
    add("--look-back", type=int, metavar="N", help=what)
    add("--rows", type=int, metavar="N", help="use only the last so many rows, for a small run (default: all)")
    add_option(parser, default, "horizons", "rows to forecast", metavar="N")
    add_option(parser, default, "models", "models", choices=(*MODELS, "all"), shown="those that are not trained")
    add_option(parser, default, "maps", "separation maps of memories and networks", choices=MAPS)
    what = "which patches the network's associations see"
    add_option(parser, default, "structure", what, choices=STRUCTURES, shown=STRUCTURES[0])
    what = "horizons at which structures other than all are measured (default: all horizons)"
    add("--structure-horizons", type=int, nargs="+", metavar="N", help=what)
    add_option(parser, default, "runs", "seeds of what is trained", metavar="N")
    add_option(parser, default, "epochs", "epochs to train", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}-DATASET", default)
