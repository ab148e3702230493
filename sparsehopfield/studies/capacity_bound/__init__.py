"""Capacity bounds: how many random patterns are stored, by simulation, beside what the bounds promise (lemma 3.1).

Draws M uniform points on a unit sphere, many times, and counts how often all of them are exact fixed points of sparse
retrieval with a basin of at least the radius asked for. M goes over shares of the exact capacity
(`theory.exact_capacity`), which promises a share of failures of at most p. The Lambert bound of lemma 3.1, corrected,
and that of the dense model stand beside it; as printed the lemma's bound is undefined.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_jobs_option, add_option
from sparsehopfield.studies._core.families import sphere
from sparsehopfield.studies._core.options import Outcome, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.capacity_bound.protocol import METRICS, SHARES, Options, all_stored, count_patterns
from sparsehopfield.studies.capacity_bound.report import Summary, figure, report_text

__all__ = ["EXAMPLES", "NAME", "SHARES", "Options", "Summary", "add_options", "figure", "report_text", "run"]

NAME = "capacity-bound"
EXAMPLES = """\
examples:
  python -m sparsehopfield capacity-bound
  python -m sparsehopfield capacity-bound --dims 8 --betas 20 50 100 --output results/betas
  python -m sparsehopfield capacity-bound --radius 0.02 --output results/radius
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of capacity bounds.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
    **options
        Those of `Options`: `dims`, `betas`, `risks`, `radius`, `shares`, `draws`, `most`, `jobs`, `seed`, `restart`,
        `progress`.
    """
    chosen = Options(**options)
    settings = [
        {"d": d, "beta": beta, "p": p, "share": share, "seed": derive_seed(chosen.seed, i, j, k, n)}
        for i, d in enumerate(chosen.dims)
        for j, beta in enumerate(chosen.betas)
        for k, p in enumerate(chosen.risks)
        for n, share in enumerate(chosen.shares)
        if 2 <= count_patterns(d, beta, p, chosen.radius, share) <= chosen.most
    ]
    if not settings:
        raise ValueError(f"most: no setting has between 2 and {chosen.most} patterns; raise it, or shares or betas")

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        d, beta, p, share, seed = setting.values()
        count = count_patterns(d, beta, p, chosen.radius, share)
        rng = np.random.default_rng(seed)
        stored = sum(all_stored(sphere(rng, count, d), beta, chosen.radius) for _ in range(chosen.draws))
        return {"patterns": count, "success": stored / chosen.draws}

    rows = measure_table(output, NAME, chosen, settings, METRICS, measure)
    summary = Summary(rows, chosen)
    files = plotting.save(figure(summary), Path(output, NAME))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("dims", "dimensions", metavar="D")
    add("betas", "inverse temperatures", metavar="BETA")
    add("risks", "probabilities of failure", metavar="P")
    add("shares", "numbers of patterns, as shares of the exact capacity", metavar="SHARE")
    add("radius", "the basin's radius", metavar="R")
    add("draws", "sets of patterns a setting", metavar="N")
    add("most", "leave out larger sets", metavar="M")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
