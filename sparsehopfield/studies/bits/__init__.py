"""Bit patterns: find one of four strings of bits in a bag of hundreds (tables 1 and 3, figures 2 and 3).

Trains classifiers of bags of bit strings, of which the positive ones hold some signals, and counts how many bags they
get right: first as bags grow and hold one signal (part `size`), then as the share of signals grows in bags of 200
(part `share`). What was trained in one condition is tested in all others of its part, which is table 3. The recipe
`paper` has the settings of Ramsauer et al.; `tuned` has settings that were searched alike for the sparse and for the
dense model; `released` does as the code that was released with the second paper does, and `released-cosine` also steps
the schedule of the learning rate that this code only makes. Accuracies are of 2,000 fresh bags, and of 400 that are
looked at after every epoch: in the last one, in the one that bags of its own choose, and in the best one of all, which
is what the released code reports. Besides, it times how soon a model gets there (figure 2), by epochs and by seconds.
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
from sparsehopfield.studies._core.cli import add_common_options, add_jobs_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies._core.words import join_numbers
from sparsehopfield.studies.bits import report
from sparsehopfield.studies.bits.protocol import (
    LAYERS,
    MEASURED,
    MODELS,
    RECIPES,
    SELECTION,
    SIGNALS,
    candidates,
    curve_metrics,
    fresh_accuracy,
    learning,
    selection,
    trained,
)

NAME = "bits"
PARTS = ("size", "share")
SIZES = (20, 50, 100, 150, 200, 300)
SHARES = (0.01, 0.05, 0.1, 0.2, 0.4)
#: The search: runs of every candidate, the number of candidates of the second round, and their runs.
FIRST_RUNS, KEPT, SECOND_RUNS = 1, 8, 5
EXAMPLES = """\
examples:
  python -m sparsehopfield bits --jobs 2
  python -m sparsehopfield bits --recipe paper tuned --jobs 2 --output results/bits-both
  python -m sparsehopfield bits --recipe released released-cosine --output results/bits-released
  python -m sparsehopfield bits --recipe paper --signals fixed --output results/bits-fixed
  python -m sparsehopfield bits --part size --sizes 500 1000 --recipe tuned --output results/large
  python -m sparsehopfield bits --layer hopfield attention --runs 3 --output results/layers
  python -m sparsehopfield bits --search --jobs 2 --output results/bits-search
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    part : str or sequence of str
        Of "size", bags that grow and hold one signal, and "share", a growing share of signals.
    recipe : str or sequence of str
        Of "paper", "tuned", "released" and "released-cosine".
    signals : str, optional
        "fresh": signals and bags are drawn for every run; "fixed": once for all, so that runs differ in initial
        weights, order and dropout alone. By default the recipe's: fixed for the released ones.
    layer : str or sequence of str
        Of "pooling", "hopfield" and "attention".
    models : str or sequence of str
        Of "sparse" and "dense".
    sizes : int or sequence of int
        Bag sizes.
    shares : float or sequence of float
        Shares of signals in a positive bag, above 0 and up to 1.
    share_size : int
        The size of bags in part "share".
    runs : int, optional
        Draws of initial weights, and of what else is not fixed; by default the recipe's: 15 for the released ones, else
        10.
    epochs : int, optional
        Epochs to train; by default the recipe's.
    search : bool
        Search for the settings of the recipe "tuned" instead, with bags of `share_size` and one signal.
    jobs : int
        Number of settings to measure at the same time.
    """

    part: Sequence[str] = PARTS
    recipe: Sequence[str] = ("paper",)
    signals: str | None = None
    layer: Sequence[str] = ("pooling",)
    models: Sequence[str] = tuple(MODELS)
    sizes: Sequence[int] = SIZES
    shares: Sequence[float] = SHARES
    share_size: int = 200
    runs: int | None = None
    epochs: int | None = None
    search: bool = False
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {
        "part": str,
        "recipe": str,
        "layer": str,
        "models": str,
        "sizes": int,
        "shares": float,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, valid in (("part", PARTS), ("recipe", RECIPES), ("layer", LAYERS), ("models", MODELS)):
            check_names(name, getattr(self, name), valid)
        if self.signals is not None:
            check_names("signals", (self.signals,), SIGNALS)
        at_least("sizes", min(self.sizes), 1)
        for name in ("share_size", "runs", "epochs", "jobs"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        for share in self.shares:
            if not 0 < share <= 1:
                raise ValueError(f"shares: must be above 0 and at most 1, got {share}")

    def conditions(self, part: str) -> list[tuple[int, int]]:
        """Return the bag sizes and numbers of signals of one part."""
        if part == "size":
            return [(size, 1) for size in self.sizes]
        return [(self.share_size, max(1, round(share * self.share_size))) for share in self.shares]

    def options_of(self, recipe: str, model: str) -> dict[str, Any]:
        """Return the options of the classifier."""
        options = dict(RECIPES[recipe].options[model])
        return options if self.epochs is None else {**options, "epochs": self.epochs}


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of bit patterns.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `part`, `recipe`, `signals`, `layer`, `models`, `sizes`, `shares`, `share_size`, `runs`,
        `epochs`, `search`, `jobs`, `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    if chosen.search:
        return _search(Path(output), chosen)
    settings = [
        {
            "recipe": recipe,
            "layer": layer,
            "part": part,
            "size": size,
            "signals": signals,
            "model": model,
            "run": run,
            "seed": derive_seed(chosen.seed, size, signals, run),
        }
        for layer in chosen.layer
        for part in chosen.part
        for size, signals in dict.fromkeys(chosen.conditions(part))
        for recipe in chosen.recipe
        for run in range(chosen.runs or RECIPES[recipe].runs)
        for model in chosen.models
    ]

    def tests(part: str) -> dict[str, tuple[int, int]]:
        return {f"fresh {size}/{signals}": (size, signals) for size, signals in chosen.conditions(part)}

    def metrics(setting: Mapping[str, Any]) -> list[str]:
        options = chosen.options_of(setting["recipe"], setting["model"])
        choice = SELECTION if options.get("restarts", 1) > 1 else ()
        return [*MEASURED, *choice, *tests(setting["part"]), *curve_metrics(options["epochs"])]

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        recipe, layer, part, size, signals, model, _, seed = setting.values()
        options, drawn = chosen.options_of(recipe, model), chosen.signals or RECIPES[recipe].signals
        asked = model, layer, options, size, signals, seed, drawn
        made = trained(*asked)
        values = {name: fresh_accuracy(made.machine, made.strings, *test, seed) for name, test in tests(part).items()}
        if options.get("restarts", 1) > 1:
            values |= selection(*asked, made)
        return {**values, **learning(made.machine, options["epochs"], seed), "seconds": made.seconds}

    rows = measure_table(output, NAME, chosen, settings, metrics, measure)
    seconds = tables.times(output, settings)
    summary = report.Summary(
        rows, [{**s, "metric": "seconds", "value": t} for s, t in zip(settings, seconds, strict=True)]
    )
    figures = [
        file for name, figure in report.figures(summary).items() for file in plotting.save(figure, Path(output, name))
    ]
    return Outcome(rows, Path(output, tables.TABLE), figures, report.report_text(summary))


def _search(output: Path, chosen: Options) -> Outcome:
    """Try all candidates a few times and the best of them more often, for every layer and model alike."""
    options = dict(candidates())
    if chosen.epochs is not None:
        options = {name: {**values, "epochs": chosen.epochs} for name, values in options.items()}

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        machine = trained(
            setting["model"],
            setting["layer"],
            options[setting["candidate"]],
            setting["size"],
            setting["signals"],
            setting["seed"],
        ).machine
        best = machine.best_epoch_ - 1
        return {name: machine.history_[f"inner_{name}"][best] for name in ("accuracy", "loss")}

    def round_of(name: str, runs: int, pairs: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
        settings = [
            {
                "layer": layer,
                "model": model,
                "candidate": candidate,
                "size": chosen.share_size,
                "signals": 1,
                "run": run,
                "seed": derive_seed(chosen.seed, len(name), run),  # unlike those of the study, which have three numbers
            }
            for layer, model, candidate in pairs
            for run in range(runs)
        ]
        also = {"pairs": len(pairs)}
        return measure_table(output / name, f"{NAME} search", chosen, settings, ("accuracy", "loss"), measure, also)

    everything = [(layer, model, name) for layer in chosen.layer for model in chosen.models for name in options]
    first = report.Search(round_of("all", FIRST_RUNS, everything))
    again = [
        (layer, model, name)
        for layer in chosen.layer
        for model in chosen.models
        for name in first.ranked(layer, model)[:KEPT]
    ]
    rows = round_of("best", SECOND_RUNS, again)
    second = report.Search(rows)
    return Outcome(rows, output / "best" / tables.TABLE, [], report.search_report(first, second))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    for name, valid, text in (
        ("part", PARTS, "bags that grow and hold one signal, or a growing share of signals"),
        ("recipe", tuple(RECIPES), "whose settings; 'tuned' are what a search found"),
        ("layer", LAYERS, "what looks at a bag"),
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
    add(
        "--signals",
        choices=SIGNALS,
        metavar="WHICH",
        help="fresh: signals and bags are drawn for every run; fixed: once for all (default: the recipe's)",
    )
    add("--sizes", nargs="+", type=int, metavar="M", default=SIZES, help=f"bag sizes (default: {join_numbers(SIZES)})")
    add(
        "--shares",
        nargs="+",
        type=float,
        metavar="SHARE",
        default=SHARES,
        help=f"shares of signals in a positive bag (default: {join_numbers(SHARES)})",
    )
    add(
        "--share-size",
        type=int,
        metavar="M",
        default=default.share_size,
        help="size of the bags whose share of signals grows, and of the search's (default: %(default)s)",
    )
    add("--runs", type=int, metavar="N", help="runs of each setting (default: the recipe's, 10 or 15)")
    add("--epochs", type=int, metavar="N", help="epochs to train (default: the recipe's)")
    add("--search", action="store_true", help="search for the settings of the recipe 'tuned' instead")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
