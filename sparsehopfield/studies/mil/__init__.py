"""Real bags: Tiger, Fox, Elephant and UCSB breast cancer (table 2).

Trains classifiers of photographs, each a bag of segments, and of tissue images, each a bag of patches, by repeated
stratified cross-validation, the settings chosen inside the training part of each fold. The mean area under the ROC
curve stands beside the paper's and those of the six other methods that it quotes, and sparse and dense are compared
fold by fold. The recipe `paper` has the public code's ranges of settings; `tuned` cuts features off that are far from
their mean and lets five networks vote.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.data.bags import MIL_SETS, load_mil
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_jobs_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.mil.protocol import METRICS, MODELS, RECIPES, Recipe, divisions, evaluate
from sparsehopfield.studies.mil.report import Summary, figure, report_text

NAME = "mil"
EXAMPLES = """\
examples:
  python -m sparsehopfield mil --data ~/data --jobs 4
  python -m sparsehopfield mil --dataset elephant --recipe tuned --repeats 1 --output results/one
  python -m sparsehopfield mil --dataset ucsb --output results/ucsb
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    dataset : str or sequence of str
        Of "tiger", "fox", "elephant" and "ucsb".
    data : path, optional
        The folder that holds them.
    recipe : str or sequence of str
        Of "paper" and "tuned".
    models : str or sequence of str
        Of "sparse" and "dense".
    repeats, folds : int
        How often the bags are divided, and into how many parts.
    inner_folds : int
        Parts to divide the training bags of a fold into when choosing the settings.
    limit_settings : int, optional
        Try only so many of a recipe's settings.
    epochs, members : int, optional
        Epochs to train and networks that vote; by default the recipe's.
    jobs : int
        How many folds to measure at the same time.
    """

    dataset: Sequence[str] = ("tiger", "fox", "elephant")
    data: str | os.PathLike[str] | None = None
    recipe: Sequence[str] = tuple(RECIPES)
    models: Sequence[str] = tuple(MODELS)
    repeats: int = 5
    folds: int = 10
    inner_folds: int = 3
    limit_settings: int | None = None
    epochs: int | None = None
    members: int | None = None
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"dataset": str, "recipe": str, "models": str}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, valid in (("dataset", MIL_SETS), ("recipe", RECIPES), ("models", MODELS)):
            check_names(name, getattr(self, name), valid)
        for name, least in (("repeats", 1), ("folds", 2), ("inner_folds", 2), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        for name in ("limit_settings", "epochs", "members"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)

    def recipe_named(self, name: str) -> Recipe:
        """Return a recipe with the changes of these options."""
        recipe = RECIPES[name]
        changed = {} if self.epochs is None else {"epochs": self.epochs}
        return Recipe(
            [{**options, **changed} for options in recipe.grid[: self.limit_settings]], self.members or recipe.members
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
    sets = {name: load_mil(name, chosen.data) for name in chosen.dataset}
    for name, bags in sets.items():
        fewest = min(bags.labels.sum(), len(bags) - bags.labels.sum())
        if chosen.folds > fewest:
            raise ValueError(f"folds: must be at most {fewest}, the bags of the smaller class of {name}")
    settings = [
        {
            "dataset": name,
            "recipe": recipe,
            "repeat": repeat,
            "fold": fold,
            "model": model,
            "seed": derive_seed(chosen.seed, repeat, fold),
        }
        for name in chosen.dataset
        for recipe in chosen.recipe
        for repeat in range(chosen.repeats)
        for fold in range(chosen.folds)
        for model in chosen.models
    ]

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        bags = sets[setting["dataset"]]
        division = divisions(bags.labels, chosen.folds, derive_seed(chosen.seed, setting["repeat"]))
        train, test = (bags.take(part) for part in division[setting["fold"]])
        recipe = chosen.recipe_named(setting["recipe"])
        return evaluate(train, test, setting["model"], recipe, chosen.inner_folds, setting["seed"])

    also = {"settings": {name: len(chosen.recipe_named(name).grid) for name in chosen.recipe}}
    rows = measure_table(output, NAME, chosen, settings, METRICS, measure, also)
    summary = Summary(rows, {name: bags.description for name, bags in sets.items()})
    recipes = {name: chosen.recipe_named(name) for name in chosen.recipe}
    return Outcome(
        rows,
        Path(output, tables.TABLE),
        plotting.save(figure(summary), Path(output, NAME)),
        report_text(summary, recipes),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    for name, valid, text in (
        ("dataset", tuple(MIL_SETS), "the sets of bags, read from --data"),
        ("recipe", tuple(RECIPES), "the public code's settings, or those that suit these sets"),
        ("models", tuple(MODELS), "sparse is sparsemax, dense is softmax"),
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
    add("--limit-settings", type=int, metavar="N", help="try only so many of a recipe's settings (default: all)")
    add("--epochs", type=int, metavar="N", help="epochs to train (default: the recipe's)")
    add("--members", type=int, metavar="N", help="networks that vote (default: the recipe's)")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
