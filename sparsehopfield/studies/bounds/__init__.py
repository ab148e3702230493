"""Bounds on the retrieval error: which hold, which say anything, how tight they are, over beta and support size.

One step from queries of several kinds, on several families of patterns, sparse and dense; errors and bounds in units of
m, the length of the longest pattern. The bounds are those of `sparsehopfield.theory.retrieval_bound`: "sharp" (sparse
only), "exponential" (2.7 corrected), "separation" (corollary 3.1.2), "printed" (2.6, sparse only) and "printed
exponential" (2.7). "dense error" is theorem 2.2: the sparse error is at most the dense one. A bound says something
where it is below 2m, which no error exceeds, and is useful where it is below the largest distance of another pattern
from the one meant, which no error exceeds either.

Queries, R half of the smallest distance of two patterns: "pattern", the pattern itself; "random", SHARE * R from it in
a random direction; "nearest", as far towards the nearest other pattern; "mixture", half-way to another pattern, which
is beyond the papers' spheres: what is claimed only within is not broken there.
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
from sparsehopfield.studies._core import families, tables
from sparsehopfield.studies._core.cli import add_common_options, add_families_options, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.bounds.protocol import (
    MAPS,
    QUERIES,
    RULES,
    SIZES,
    Options,
    compare_bounds,
    load_images,
    metrics_of,
    step,
)
from sparsehopfield.studies.bounds.report import Summary, figure, report_text, support_figure

__all__ = [
    "EXAMPLES",
    "MAPS",
    "NAME",
    "RULES",
    "SIZES",
    "Options",
    "Summary",
    "add_options",
    "figure",
    "report_text",
    "run",
]

NAME = "bounds"
EXAMPLES = """\
examples:
  python -m sparsehopfield bounds
  python -m sparsehopfield bounds --dataset mnist --families images --patterns 500
  python -m sparsehopfield bounds --families sphere gaussian --d 4 --output results/low
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of bounds on the retrieval error.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `families`, `queries`, `betas`, `patterns`, `d`, `asks`, `share`, `dataset`, `data`, `jobs`,
        `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    if families.IMAGES in chosen.families:
        families.draw(families.IMAGES, np.random.default_rng(0), chosen.patterns, chosen.d, load_images(chosen))
    settings = [
        {
            "family": family,
            "query": query,
            "scaled": beta,
            "model": model,
            "support": size,
            "seed": derive_seed(chosen.seed, [*families.FAMILIES].index(family)),
        }
        for family in chosen.families
        for query in chosen.queries
        for beta in sorted(chosen.betas)
        for model in RULES
        for size in (SIZES if model == "sparse" else ("any",))
    ]

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        family, query, beta, model, size, seed = setting.values()
        return compare_bounds(step(chosen, family, query, beta, seed), model, *SIZES[size])

    rows = measure_table(output, NAME, chosen, settings, metrics_of, measure)
    summary = Summary(rows, chosen)
    files = plotting.save(figure(summary), Path(output, NAME))
    files += plotting.save(support_figure(summary), Path(output, f"{NAME}-support"))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add_families_options(parser, default)
    add("queries", "kinds of queries", choices=QUERIES)
    add("betas", "inverse temperatures times m^2", metavar="BETA", shown="0.1 to 10000, 2 a decade")
    add("asks", "queries of a kind for each pattern", metavar="N")
    add("share", "how far queries are from their pattern, as a share of R", metavar="SHARE")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}-DATASET", default)
