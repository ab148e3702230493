"""Generalisation: do sparse maps learn bags better than softmax, beyond the bags trained on, and when?

Bags of random strings of bits, of which a share is 1, hold a signal or none; some of its bits are flipped. Networks
that pool them with softmax, sparsemax or entmax15 learn all training bags by heart. What they know of others is tested
with bags that are drawn alike, and with shifted ones: a quarter and four times as large, with three signals in place of
one, twice the flips, and another share of ones. Weight decay, dropout and width are varied, all of them with all
others. Beside the networks stands the test that knows how bags are drawn, which nothing can exceed but by chance.

All maps meet the same bags, initial weights and order of training, and each has the inverse temperature that other bags
choose. Differences are taken run by run, with intervals of t and p values that are corrected for their number.
"""

from __future__ import annotations

import argparse
import itertools
import os
from functools import partial
from pathlib import Path
from typing import Any

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.generalisation.protocol import MAPS, OPTIMAL, Options, measure, metrics
from sparsehopfield.studies.generalisation.report import Summary, figure, levels_figure, report_text

__all__ = [
    "EXAMPLES",
    "NAME",
    "Options",
    "Summary",
    "add_options",
    "figure",
    "levels_figure",
    "report_text",
    "run",
    "stored",
]

NAME = "generalisation"
EXAMPLES = """\
examples:
  python -m sparsehopfield generalisation
  python -m sparsehopfield generalisation --dropouts 0 0.3 --hidden 4 32 --runs 8 --output out
  python -m sparsehopfield generalisation --bags 1600 --output results/bags
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of generalisation.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `maps`, `densities`, `decays`, `dropouts`, `hidden`, `betas`, `heads`, `bits`, `signals`,
        `flips`, `size`, `bags`, `tested`, `epochs`, `runs`, `jobs`, `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    rows = measure_table(
        output,
        NAME,
        chosen,
        settings(chosen),
        partial(metrics, chosen),
        partial(measure, chosen),
        together=lambda setting: (setting["density"], setting["run"]),
    )
    summary = Summary(rows, chosen)
    figures = {NAME: figure(summary), f"{NAME}-levels": levels_figure(summary)}
    files = [
        file
        for name, drawn in figures.items()
        if drawn is not None
        for file in plotting.save(drawn, Path(output, name))
    ]
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def stored(folder: str | os.PathLike[str]) -> Summary:
    """Read the results of a table that is there, and finished.

    Parameters
    ----------
    folder : path
        The folder of the table and its settings.

    Returns
    -------
    Summary
        What reports and figures are made from.
    """
    chosen = tables.stored_options(folder, NAME, Options)
    return Summary(tables.stored_rows(folder, settings(chosen), partial(metrics, chosen)), chosen)


def settings(chosen: Options) -> list[dict[str, Any]]:
    """List the optimal test and every map with every regularisation, for every density and run."""
    grid = list(itertools.product(chosen.decays, chosen.dropouts, chosen.hidden, chosen.maps))
    return [
        {"map": name, "density": density, "decay": decay, "dropout": dropout, "hidden": hidden, "run": run}
        for run in range(chosen.runs)
        for density in chosen.densities
        for decay, dropout, hidden, name in [(0.0, 0.0, 0, OPTIMAL), *grid]
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("maps", "separation maps", choices=MAPS)
    add("densities", "shares of bits that are 1, each trained and tested with", metavar="SHARE")
    add("decays", "weight decay", metavar="DECAY")
    add("dropouts", "dropout, in the association and before the last layer", metavar="SHARE")
    add("hidden", "dimensions of a head", metavar="N")
    add("betas", "inverse temperatures to choose from, in units of 1/sqrt(hidden)", metavar="BETA")
    add("heads", "heads of the association", metavar="N")
    add("bits", "bits of an instance", metavar="D")
    add("signals", "signals, of which a positive bag holds one", metavar="N")
    add("flips", "share of a signal's bits that are flipped", metavar="SHARE")
    add("size", "instances of a bag", metavar="M")
    add("bags", "bags to train on", metavar="N")
    add("tested", "bags of each test", metavar="N")
    add("epochs", "epochs to train", metavar="N")
    add("runs", "draws of signals, bags and initial weights", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
