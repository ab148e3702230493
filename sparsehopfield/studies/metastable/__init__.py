"""Metastable states: how many patterns are mixed in the states where queries come to rest.

Stores M images, asks with images that are not stored, and updates each query some times. Counts the patterns that
have weight in the last association: one is a retrieved pattern, more are a metastable state. Santos et al. tabulate
these counts for MNIST (2024, arXiv:2402.13725 and 2411.08590); the defaults are what their public code does: pixels
from -1 to 1, dot similarity, 5 updates, beta 0.1 and 1, all 60,000 training images stored, the 10,000 test images
asked.

With softmax every pattern has weight, always. So, beside the support (weights above zero), the patterns with a weight
above 0.01 are counted, which their code does for softmax, and the effective number of patterns, 1 / sum p^2.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.inspect import plotting
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_image_options
from sparsehopfield.studies._core.options import ImageOptions, Outcome, check_names, check_sizes
from sparsehopfield.studies._core.sources import load_dataset
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.metastable.protocol import (
    DAMAGE,
    METRICS,
    NAMES,
    PIXELS,
    TEST_IMAGES,
    Drawn,
    rest,
    separation_named,
)
from sparsehopfield.studies.metastable.report import Summary, figure, report_text

NAME = "metastable"
SIZES = {"digits": (1297,), "mnist": (60_000,), "cifar10": (50_000,), "imagenet64": (10_000,)}
EXAMPLES = """\
examples:
  python -m sparsehopfield metastable
  python -m sparsehopfield metastable --dataset mnist --data ~/data
  python -m sparsehopfield metastable --separation sparsemax entmax:1.1 --output results/maps
  python -m sparsehopfield metastable --beta 1 3 --steps fixed-point --output results/settled
"""


@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    separation : str or sequence of str
        The separation maps: "softmax", "entmax15", "sparsemax", "entmax:ALPHA".
    mask : str or sequence of str
        What the queries lose: "none", or the half "lower", "upper", "left", "right", which is set to zero.
    pixels : str or sequence of str
        Of "signed", from -1 to 1, and "unit", from 0 to 1.
    """

    beta: Sequence[float] = (0.1, 1.0)
    steps: int = 5
    queries: int = 10_000
    separation: Sequence[str] = ("softmax", "entmax:1.25", "entmax15", "sparsemax", "entmax:3")
    mask: Sequence[str] = ("none", "lower")
    pixels: Sequence[str] = ("signed",)

    _sequences: ClassVar[Mapping[str, type]] = {
        **ImageOptions._sequences,
        "separation": str,
        "mask": str,
        "pixels": str,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("mask", self.mask, DAMAGE)
        check_names("pixels", self.pixels, PIXELS)
        for name in self.separation:
            separation_named(name)


@ignoring_float_errors()
def run(output: str | os.PathLike[str], *, sizes: int | Sequence[int] | None = None, **options: Any) -> Outcome:
    """Run the study of metastable states.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
        Its `times.csv` has the seconds that the updates of each setting took. Whatever a memory makes ready
        when it is first asked is part of the first of them.
    sizes : int or sequence of int, optional
        Numbers of stored patterns; by default `SIZES` of the data set.
    **options
        Those of `Options`: `dataset`, `data`, `separation`, `similarity`, `pixels`, `mask`, `beta`, `steps`,
        `queries`, `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    images = load_dataset(chosen.dataset, chosen.data)
    sizes = check_sizes(SIZES.get(chosen.dataset, (1,)) if sizes is None else sizes, images)
    tests = TEST_IMAGES[chosen.dataset](chosen.data) if chosen.dataset in TEST_IMAGES else None
    drawn = Drawn(images, tests, max(sizes), chosen.queries, chosen.seed)
    settings = [
        {
            "dataset": chosen.dataset,
            "size": size,
            "pixels": pixels,
            "similarity": similarity,
            "mask": mask,
            "beta": beta,
            "separation": separation,
            "steps": chosen.steps,
            "seed": chosen.seed,
        }
        for size in sizes
        for pixels in chosen.pixels
        for similarity in chosen.similarity
        for mask in chosen.mask
        for beta in chosen.beta
        for separation in chosen.separation
    ]

    @lru_cache(maxsize=1)  # it is large, and the settings of one memory follow each other
    def stored(size: int, pixels: str, similarity: str) -> HopfieldMemory:
        return HopfieldMemory(drawn.patterns(size, pixels), similarity=similarity)

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        memory = stored(setting["size"], setting["pixels"], setting["similarity"])
        memory.beta, memory.separation = setting["beta"], separation_named(setting["separation"])
        return rest(memory, drawn.queries(setting["pixels"], setting["mask"]), chosen.steps)

    also = {"images": len(images), "sizes": list(sizes), "asked": len(drawn)}
    rows = measure_table(output, NAME, chosen, settings, METRICS, measure, also)
    summary = Summary(rows, tables.times(output, settings), images.description, len(drawn))
    return Outcome(
        rows, Path(output, tables.TABLE), plotting.save(figure(summary), Path(output, NAME)), report_text(summary)
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    add, default = parser.add_argument, Options()
    sizes = "; ".join(f"{name}: {' '.join(map(str, sizes))}" for name, sizes in SIZES.items())
    add("--sizes", nargs="+", type=int, metavar="M", help=f"numbers of stored patterns (default: {sizes})")
    add(
        "--separation",
        nargs="+",
        default=default.separation,
        metavar="MAP",
        help=f"{', '.join(NAMES)}, ALPHA a number above 1 (default: {' '.join(default.separation)})",
    )
    add(
        "--mask",
        nargs="+",
        choices=DAMAGE,
        default=default.mask,
        metavar="HALF",
        help=f"what the queries lose, of {', '.join(DAMAGE)} (default: {' '.join(default.mask)})",
    )
    add(
        "--pixels",
        nargs="+",
        choices=PIXELS,
        default=default.pixels,
        metavar="SCALE",
        help="signed, from -1 to 1, or unit, from 0 to 1 (default: signed, the paper's)",
    )
    papers = {"similarity": "dot is the paper's", "beta": "the paper's", "steps": "the paper's"}
    add_image_options(parser, NAME, default, queries="the images that are not stored", papers=papers)
