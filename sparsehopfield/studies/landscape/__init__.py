"""Landscapes: energies and basins of patterns in the plane, and how fast retrieval ends, beside what predicts it.

In the plane retrieval starts from every point of a grid, for each map and beta. Counted are the limits, which of them
are stored patterns, how much of the grid goes to these, and whether each update lowers the energy as it must. The
polynomial map has no energy, and beta cancels: its basins are shown once.

Then single queries near patterns of random families, with sparsemax: the updates until each rests, against beta times
the margin of its pattern and against the spectral norm of the update's linear part at the limit, which predicts the
rate at which steps shrink.
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
from sparsehopfield.studies.landscape.protocol import (
    BASINS,
    PLANE,
    SIMILARITIES,
    Options,
    draw_query,
    measure_plane,
    metrics_of,
    plane_patterns,
    retrieval,
)
from sparsehopfield.studies.landscape.report import (
    SHOWN,
    Plane,
    Rates,
    plane_figure,
    plane_panel,
    rates_figure,
    report_text,
)

__all__ = [
    "BASINS",
    "EXAMPLES",
    "NAME",
    "SHOWN",
    "Options",
    "Plane",
    "Rates",
    "add_options",
    "plane_panel",
    "report_text",
    "run",
]

NAME = "landscape"
EXAMPLES = """\
examples:
  python -m sparsehopfield landscape
  python -m sparsehopfield landscape --plane 7 --seed 3 --betas 1 2 4 8 16 --output results/seven
  python -m sparsehopfield landscape --similarity euclidean --output results/euclidean
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of landscapes.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `betas`, `similarity`, `plane`, `grid`, `families`, `rate_betas`, `patterns`, `d`, `noise`,
        `draws`, `jobs`, `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    images = datasets.load_digits() if IMAGES in chosen.families else None
    if images is not None and chosen.patterns > len(images):
        raise ValueError(f"patterns: {chosen.patterns} are more than the {len(images)} digits; leave out {IMAGES}")
    settings = [
        {"family": PLANE, "map": name, "beta": beta, "draw": 0, "seed": chosen.seed} for name, beta in chosen.surfaces
    ]
    settings += [
        {"family": family, "map": "sparse", "beta": beta, "draw": draw, "seed": derive_seed(chosen.seed, number, draw)}
        for number, family in enumerate(FAMILIES)
        if family in chosen.families
        for beta in chosen.rate_betas
        for draw in range(chosen.draws)
    ]

    def measure(setting: Mapping[str, Any]) -> Mapping[str, float]:
        family, name, beta, _, seed = setting.values()
        if family == PLANE:
            return measure_plane(plane_patterns(chosen.plane, seed), beta, name, chosen.similarity, chosen.grid)
        patterns, query, index = draw_query(family, seed, chosen.patterns, chosen.d, chosen.noise, images)
        return retrieval(patterns, query, index, beta, chosen.similarity)._asdict()

    rows = measure_table(output, NAME, chosen, settings, metrics_of, measure)
    plane, rates = Plane(rows, chosen), Rates(rows, chosen)
    files = plotting.save(plane_figure(chosen), Path(output, NAME))
    files += plotting.save(rates_figure(rates), Path(output, f"{NAME}-rates"))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(plane, rates))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("betas", "inverse temperatures in the plane", metavar="BETA")
    add("rate_betas", "inverse temperatures for the families", metavar="BETA")
    add("similarity", "what a score is", choices=SIMILARITIES)
    add("plane", "so many random patterns in the plane; 0: five that are always the same", metavar="N")
    add("grid", "points along each axis of the plane", metavar="N")
    add("families", "families of patterns", choices=FAMILIES)
    add("patterns", "patterns of a family", metavar="M")
    add("d", "features of a family", metavar="D")
    add("draws", "sets of patterns, with a query each, a family and beta", metavar="N")
    add("noise", "distance of a query from its pattern, as a share of the pattern's length", metavar="R")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
