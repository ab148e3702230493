"""Flipped bits: binary patterns retrieved from noisy copies, by modern memories and by the network of 1982.

Stores M random patterns of d bits, 1 and -1, flips a share of the bits of some of them, and asks which model restores
all bits, after one step and at rest. Models: memories with sparsemax, entmax15 and softmax, and Hopfield's network of
1982 (Hebbian weights, one unit updated after another, or all at once), which holds about 0.138 d patterns. Beside the
measured shares stand what theory says of a single step: how many flips of each pattern are certified, that
is, undone whichever bits they hit (`theory.exact_flips`), how many of them stay within its exact ball
(`theory.exact_radius`), and the probability that random flips are undone, in closed form (`theory.exact_recall`).
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.flips.classical import CAPACITY, HebbianNetwork, one_step_share
from sparsehopfield.studies.flips.protocol import METRICS, MODELS, UPDATES, Options, measure
from sparsehopfield.studies.flips.report import Summary, figure, flips_figure, report_text

__all__ = [
    "CAPACITY",
    "EXAMPLES",
    "METRICS",
    "MODELS",
    "NAME",
    "HebbianNetwork",
    "Options",
    "Summary",
    "add_options",
    "figure",
    "flips_figure",
    "one_step_share",
    "report_text",
    "run",
]

NAME = "flips"
EXAMPLES = """\
examples:
  python -m sparsehopfield flips
  python -m sparsehopfield flips --models 1982 --dims 128 512 2048 --sizes 16 64 256 --rates 0 0.1
  python -m sparsehopfield flips --dims 64 256 --sizes 32 1024 32768 --output results/larger
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of flipped bits.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `models`, `dims`, `sizes`, `rates`, `betas`, `updates`, `queries`, `runs`, `jobs`, `seed`,
        `restart`, `progress`.
    """
    chosen = Options(**options)
    settings = [
        {
            "model": model,
            "d": d,
            "patterns": count,
            "beta_hat": beta,
            "rate": rate,
            "run": k,
            "seed": derive_seed(chosen.seed, d, count, k),
        }
        for d in chosen.dims
        for count in chosen.sizes
        for k in range(chosen.runs)
        for model in chosen.models
        for beta in ((0.0,) if model == "1982" else chosen.betas)
        for rate in chosen.rates
    ]
    rows = measure_table(output, NAME, chosen, settings, METRICS, partial(measure, chosen))
    summary = Summary(rows, chosen)
    files = plotting.save(figure(summary), Path(output, NAME))
    files += plotting.save(flips_figure(summary), Path(output, f"{NAME}-certified"))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("models", "models", choices=MODELS)
    add("dims", "bits of a pattern", metavar="D")
    add("sizes", "numbers of patterns", metavar="M")
    add("rates", "shares of the bits that are flipped", metavar="SHARE")
    add("betas", "inverse temperatures in units of 1/d, of all models but that of 1982", metavar="BETA")
    add("updates", "how the network of 1982 comes to rest", choices=UPDATES)
    add("queries", "queries of each setting", metavar="N")
    add("runs", "draws of patterns", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
