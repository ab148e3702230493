"""Memory capacity: retrieve half-masked images while more and more are stored (figure 1, top).

Stores M images as patterns, sets one half of each to zero, and counts how many of them the sparse, the dense
and the 10th-order polynomial model retrieve, as M grows. The defaults are the paper's where it names them:
beta 1, one update, 10 runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from sparsehopfield._engine.text import short
from sparsehopfield.studies._core.options import Outcome
from sparsehopfield.studies.retrieval import study
from sparsehopfield.studies.retrieval.protocol import MASKS, Study, half_masked

STUDY = Study("capacity", level="mask", damage=half_masked, axis="size", xlabel="stored patterns M")
SIZES = {
    "digits": (10, 20, 50, 100, 200, 500, 1000),
    "mnist": (10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
    "cifar10": (10, 20, 50, 100, 200, 500, 1000),
    "imagenet64": (10, 20, 50, 100, 200, 500),
}
EXAMPLES = """\
examples:
  python -m sparsehopfield capacity
  python -m sparsehopfield capacity --dataset mnist --data ~/data
  python -m sparsehopfield capacity --sizes 10 100 1000 --beta 0.1 1 10 --output results/betas
  python -m sparsehopfield capacity --mask upper --steps fixed-point --output results/settled
"""


def run(
    output: str | os.PathLike[str], *, sizes: int | Sequence[int] | None = None, mask: str = "lower", **options: Any
) -> Outcome:
    """Run the capacity study.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
    sizes : int or sequence of int, optional
        Numbers of stored patterns; by default `SIZES` of the data set.
    mask : {"upper", "lower", "left", "right"}
        The half that is set to zero.
    **options
        Those of `sparsehopfield.studies.retrieval.Options`: `protocol`, `dataset`, `data`, `models`,
        `similarity`, `beta`, `steps`, `threshold`, `queries`, `runs`, `seed`, `restart`, `progress`.
    """
    if mask not in MASKS:
        raise ValueError(f"mask: unknown side {short(mask)}; valid: {', '.join(MASKS)}")
    chosen = study.Options(**options)
    if sizes is None:
        sizes = SIZES.get(chosen.dataset, (10,))
    return study.run(STUDY, output, chosen, sizes=sizes, levels=[mask])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    sizes = "; ".join(f"{name}: {' '.join(map(str, sizes))}" for name, sizes in SIZES.items())
    parser.add_argument(
        "--sizes", nargs="+", type=int, metavar="M", help=f"numbers of stored patterns (default: {sizes})"
    )
    parser.add_argument(
        "--mask", choices=MASKS, default="lower", help="the half that is set to zero (default: %(default)s)"
    )
    study.add_options(parser, STUDY.name)
