"""Real bags: Tiger, Fox, Elephant and UCSB breast cancer (table 2).

Trains classifiers of photographs, each a bag of segments, and of tissue images, each a bag of patches, by repeated
stratified cross-validation, the settings chosen inside the training part of each fold. The mean area under the ROC
curve stands beside the paper's and those of the six other methods that it quotes; eight methods of other authors are
trained on the same folds, and compared fold by fold. The recipe `paper` has part of the settings of Ramsauer et al.,
`released` the 864 of the paper's public code, searched by successive halving; `tuned` cuts features off that are far
from their mean, and has single networks and an ensemble of five, each a row of its own.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.data.bags import find_mil, load_mil
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_jobs_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.sources import naming_options
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.mil.protocol import (
    BASELINES,
    LAYERS,
    METRICS,
    MODELS,
    RECIPES,
    STRUCTURES,
    Recipe,
    divisions,
    evaluate,
    lines,
)
from sparsehopfield.studies.mil.report import Summary, figure, report_text

NAME = "mil"
#: The sets of this study. Those of text, which `load_mil` reads, too, have more features than the study's dense
#: arrays can hold.
DATASETS = ("tiger", "fox", "elephant", "ucsb", "musk1", "musk2")
EXAMPLES = """\
examples:
  python -m sparsehopfield mil --data ~/data --jobs 4
  python -m sparsehopfield mil --dataset elephant --recipe tuned --repeats 1 --output results/one
  python -m sparsehopfield mil --models MILES mi-SVM --repeats 1 --output results/baselines
  python -m sparsehopfield mil --models dense --layer hopfield --structure window features
  python -m sparsehopfield mil --dataset ucsb --output results/ucsb
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    dataset : str or sequence of str
        Of `DATASETS`.
    data : path, optional
        The folder that holds them.
    recipe : str or sequence of str
        Of "paper", "tuned" and "released", for networks.
    models : str or sequence of str
        Of "sparse", "dense" and the baselines.
    layer : str or sequence of str
        Of "pooling", "hopfield" and "attention", for networks.
    structure : str or sequence of str
        Of "all", "topk", "random", "window", "features" and "linear": what a query attends to. Windows are not for
        pooling, and the last two only for "dense".
    repeats, folds : int
        How often the bags are divided, and into how many parts.
    inner_folds : int
        Parts to divide the training bags of a fold into when choosing the settings.
    limit_settings : int, optional
        Try only so many of a recipe's settings, of "released" a random choice, the same for all folds and models.
    epochs, members : int, optional
        Epochs to train and networks that vote; by default the recipe's.
    jobs : int
        How many folds to measure at the same time.
    """

    dataset: Sequence[str] = ("tiger", "fox", "elephant")
    data: str | os.PathLike[str] | None = None
    recipe: Sequence[str] = ("paper", "tuned")
    models: Sequence[str] = (*MODELS, *BASELINES)
    layer: Sequence[str] = ("pooling",)
    structure: Sequence[str] = ("all",)
    repeats: int = 5
    folds: int = 10
    inner_folds: int = 3
    limit_settings: int | None = None
    epochs: int | None = None
    members: int | None = None
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = dict.fromkeys(("dataset", "recipe", "models", "layer", "structure"), str)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, valid in (
            ("dataset", DATASETS),
            ("recipe", RECIPES),
            ("models", (*MODELS, *BASELINES)),
            ("layer", LAYERS),
            ("structure", STRUCTURES),
        ):
            check_names(name, getattr(self, name), valid)
        if not self.lines():
            raise ValueError("structure: windows are not for pooling, features and linear only for dense; none is left")
        for name, least in (("repeats", 1), ("folds", 2), ("inner_folds", 2), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        for name in ("limit_settings", "epochs", "members"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)

    def lines(self) -> list[dict[str, str]]:
        """Return recipe, layer, structure and model of all that is measured."""
        return list(lines(self.recipe, self.layer, self.structure, self.models))

    def settings(self) -> list[dict[str, Any]]:
        """Return the settings of the table."""
        return [
            {"dataset": name, **line, "repeat": repeat, "fold": fold, "seed": derive_seed(self.seed, repeat, fold)}
            for line in self.lines()
            for name in self.dataset
            for repeat in range(self.repeats)
            for fold in range(self.folds)
        ]

    def recipe_of(self, line: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a line, with the changes of these options."""
        if line["model"] in BASELINES:
            recipe = BASELINES[line["model"]][1]
            return recipe if self.limit_settings is None else recipe.limited(self.limit_settings, self.seed)
        recipe = RECIPES[line["recipe"]]
        if self.limit_settings is not None:
            recipe = recipe.limited(self.limit_settings, self.seed)
        changed = {"layer": line["layer"], "structure": STRUCTURES[line["structure"]]}
        if self.epochs is not None:
            changed["epochs"] = self.epochs
        return Recipe(
            [{**options, **changed} for options in recipe.grid],
            recipe.members if self.members is None or recipe.rungs else self.members,
            [min(epochs, self.epochs or epochs) for epochs in recipe.rungs],
        )


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of real bags.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
    **options
        Those of `Options`: `dataset`, `data`, `recipe`, `models`, `repeats`, `folds`, `inner_folds`,
        `limit_settings`, `epochs`, `members`, `jobs`, `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    with naming_options():
        sets = {name: load_mil(name, chosen.data) for name in chosen.dataset}
    for name, bags in sets.items():
        fewest = min(bags.labels.sum(), len(bags) - bags.labels.sum())
        if chosen.folds > fewest:
            raise ValueError(f"folds: must be at most {fewest}, the bags of the smaller class of {name}")

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        bags = sets[setting["dataset"]]
        division = divisions(bags.labels, chosen.folds, derive_seed(chosen.seed, setting["repeat"]))
        train, test = (bags.take(part) for part in division[setting["fold"]])
        began = time.process_time()
        values = evaluate(train, test, setting["model"], chosen.recipe_of(setting), chosen.inner_folds, setting["seed"])
        return {**values, "seconds": time.process_time() - began}

    recipes = {tuple(line.values()): chosen.recipe_of(line) for line in chosen.lines()}
    also = {"settings": {", ".join(line): len(recipe.grid) for line, recipe in recipes.items()}}
    rows = measure_table(output, NAME, chosen, chosen.settings(), METRICS, measure, also)
    summary = Summary(
        rows, {name: bags.description for name, bags in sets.items()}, recipes, list(_absent(chosen.data))
    )
    return Outcome(
        rows, Path(output, tables.TABLE), plotting.save(figure(summary), Path(output, NAME)), report_text(summary)
    )


def stored(folder: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> Summary:
    """Read a finished table, for which the data are not needed.

    Parameters
    ----------
    folder : path
        The folder of the table and its settings.
    data : path, optional
        The folder of the data, to say which sets are not there.

    Returns
    -------
    Summary
        From which `report_text` and `figure` make what `run` makes.

    Raises
    ------
    FileNotFoundError
        If the table or its settings are not there.
    FileFormatError
        If one of them is damaged or another study's, or the table is not finished.
    """
    chosen = tables.stored_options(folder, NAME, Options)
    rows = tables.stored_rows(folder, chosen.settings(), METRICS)
    recipes = {tuple(line.values()): chosen.recipe_of(line) for line in chosen.lines()}
    return Summary(rows, {}, recipes, [] if data is None else list(_absent(data)))


def _absent(data: str | os.PathLike[str] | None) -> Iterator[str]:
    """Yield the data sets of this study whose files are not there."""
    for name in DATASETS:
        try:
            with naming_options():
                find_mil(name, data)
        except FileNotFoundError:
            yield name


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    for name, valid, text in (
        ("dataset", DATASETS, "the sets of bags, read from --data"),
        ("recipe", tuple(RECIPES), "settings of networks, of other authors or those that suit these sets"),
        ("models", (*MODELS, *BASELINES), "sparse is sparsemax, dense is softmax, the others are baselines"),
        ("layer", LAYERS, "the layer of networks over a bag"),
        ("structure", tuple(STRUCTURES), "what its queries attend to"),
    ):
        values = getattr(default, name)
        add(
            f"--{name}",
            nargs="+",
            choices=valid,
            default=values,
            metavar=name.rstrip("s").upper(),
            help=f"of {', '.join(valid)}: {text} (default: {' '.join(values)})",
        )
    add_data_option(parser, "data")
    for name, text in (
        ("repeats", "how often the bags are divided"),
        ("folds", "parts that they are divided into"),
        ("inner-folds", "parts of the bags outside of a fold when settings are chosen"),
    ):
        value = getattr(default, name.replace("-", "_"))
        add(f"--{name}", type=int, metavar="N", default=value, help=f"{text} (default: %(default)s)")
    add("--limit-settings", type=int, metavar="N", help="try only so many settings of a grid (default: all)")
    add("--epochs", type=int, metavar="N", help="epochs to train (default: the recipe's)")
    add("--members", type=int, metavar="N", help="networks that vote (default: the recipe's)")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
