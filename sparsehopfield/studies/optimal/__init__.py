"""Optimal solutions: patterns whose retrieval is known in closed form, and how near to it what is computed comes.

Sets: "pair", 1 and -1; "angle", two unit vectors at an angle; "orthonormal" and "simplex", SIZE vectors with equal
angles; "copies", orthonormal with the first one COPIES times; "interior", -1, 0 and 1. Queries lie on the segment from
the patterns' mean (position 0) to a pattern (position 1). Weights, states, energies, thresholds, sizes of supports, the
critical beta, states after several steps and fixed points are computed in float64 and float32, sparse and dense, and
compared with the closed forms; a difference is flagged where it exceeds what rounding can explain.

For n unit vectors with cosine c, k copies of the first, gap g = 1 - c and position a the first leads by L = beta g a.
Sparse: weight 1/k from L = 1/k on, below it (1 + (n - 1) L)/M, M = n - 1 + k; the position becomes (k - 1)/M + r a, r =
beta g k n/M; without copies min(1, beta g a): after t steps (beta g)^t a below the critical beta 1/g, which is 1/(1 -
cos angle), (n - 1)/n for the simplex and 1/2 for the pair. Dense: (k e^L - 1)/(k e^L + n - 1), for two tanh(L/2).
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
from sparsehopfield.studies._core.options import Outcome
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.optimal.protocol import (
    DTYPES,
    MAPS,
    METRICS,
    QUANTITIES,
    SETS,
    Options,
    compare,
    is_compared,
    make_set,
    time_sets,
)
from sparsehopfield.studies.optimal.report import Summary, figure, report_text

__all__ = [
    "DTYPES",
    "EXAMPLES",
    "MAPS",
    "NAME",
    "QUANTITIES",
    "SETS",
    "Options",
    "Summary",
    "add_options",
    "figure",
    "report_text",
    "run",
]

NAME = "optimal"
EXAMPLES = """\
examples:
  python -m sparsehopfield optimal
  python -m sparsehopfield optimal --sets angle --angle 1 --output results/close
  python -m sparsehopfield optimal --sets simplex orthonormal --size 200 --output results/many
  python -m sparsehopfield optimal --timed 512 --threads 1 --output results/timed
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of optimal solutions.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `sets`, `shares`, `positions`, `size`, `angle`, `copies`, `timed`, `jobs`, `seed`,
        `restart`, `progress`.
    """
    chosen = Options(**options)
    settings = [
        {"set": name, "model": model, "share": share, "position": a, "quantity": quantity, "dtype": dtype}
        for name in chosen.sets
        for model in MAPS
        for share in sorted(chosen.shares)
        for a in chosen.positions
        for quantity in QUANTITIES
        if is_compared(make_set(chosen, name), quantity, model, share, a)
        for dtype in DTYPES
    ]

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        name, model, share, a, quantity, dtype = setting.values()
        return compare(make_set(chosen, name), quantity, model, share, a, np.dtype(dtype))

    rows = measure_table(output, NAME, chosen, settings, METRICS, measure)
    timed, file = time_sets(chosen) if chosen.timed else [], Path(output, "timed.csv")
    if timed:
        tables.write_rows(file, timed)
    elif chosen.restart:
        file.unlink(missing_ok=True)
    summary = Summary(rows, chosen, timed)
    files: list[Path] = []
    for quantity in ("weight", "energy"):
        files += plotting.save(
            figure(summary, quantity), Path(output, NAME if quantity == "weight" else f"{NAME}-energy")
        )
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("sets", "sets of patterns", choices=SETS)
    add("shares", "inverse temperatures, as shares of each set's critical one", metavar="SHARE")
    add("positions", "where queries are, from 0, the mean, to 1, the pattern", metavar="A")
    add("size", "vectors of the larger sets", metavar="N")
    add("angle", "of 'angle'", metavar="DEGREES")
    add("copies", "of 'copies'", metavar="K")
    add("timed", "vectors of the sets on which sparse and dense retrieval are timed; 0 for none", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
