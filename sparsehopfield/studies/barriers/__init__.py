"""Barriers: how high the sparse energy must rise between its minima, exactly, and whether that says how fast one rests.

Where retrieval rests is a minimum of the energy. To leave it for another one, the energy must first rise, at least to
the lowest saddle on the way: `theory.energy_barriers` finds all minima and saddles, so that heights are exact. The
straight line between two minima gives an upper bound of the same, which is all that is usually computed.

For sets of patterns of each family, at each inverse temperature, queries near the patterns are retrieved. Are deep
minima reached in fewer updates than shallow ones? Ranks of the updates are compared, within each set, with those of the
barrier around the minimum, of the rate that the update's linear part predicts there, and of how far the query began
from it. And does the barrier around a pattern say how much noise it bears, the radius of the ball that one update sends
to it exactly?
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.data import datasets
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_jobs_option, add_option
from sparsehopfield.studies._core.families import FAMILIES, IMAGES
from sparsehopfield.studies._core.options import Outcome, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.barriers.protocol import METRICS, Options, measure
from sparsehopfield.studies.barriers.report import Summary, figure, report_text

__all__ = ["EXAMPLES", "METRICS", "NAME", "Options", "Summary", "add_options", "figure", "report_text", "run"]

NAME = "barriers"
EXAMPLES = """\
examples:
  python -m sparsehopfield barriers
  python -m sparsehopfield barriers --families sphere --patterns 64 --d 32 --betas 8 16 --output out
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of barriers.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
    **options
        Those of `Options`: `families`, `betas`, `patterns`, `d`, `noise`, `queries`, `draws`, `max_supports`, `jobs`,
        `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    images = datasets.load_digits() if IMAGES in chosen.families else None
    if images is not None and chosen.patterns > len(images):
        raise ValueError(f"patterns: {chosen.patterns} are more than the {len(images)} digits; leave out {IMAGES}")
    settings = [
        {"family": family, "beta": beta, "draw": draw, "seed": derive_seed(chosen.seed, number, draw)}
        for number, family in enumerate(FAMILIES)
        if family in chosen.families
        for beta in chosen.betas
        for draw in range(chosen.draws)
    ]

    def measured(setting: Mapping[str, Any]) -> Mapping[str, float]:
        family, beta, _, seed = setting.values()
        return measure(chosen, family, beta, seed, images)

    rows = measure_table(output, NAME, chosen, settings, METRICS, measured)
    summary = Summary(rows, chosen)
    files = plotting.save(figure(summary), Path(output, NAME))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("families", "families of patterns", choices=FAMILIES)
    add("betas", "inverse temperatures; the longest pattern has length 1", metavar="BETA")
    add("patterns", "patterns of a set", metavar="M")
    add("d", "features; images have their own", metavar="D")
    add("noise", "largest distance of a query from its pattern, as a share of the pattern's length", metavar="R")
    add("queries", "queries near each pattern", metavar="N")
    add("draws", "sets of patterns of each family", metavar="N")
    add("max_supports", "sets of patterns to look at for minima and saddles before giving up", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
