"""The ledger of the papers' claims: each evaluated on five families of patterns, with a verdict.

Draws patterns and queries (uniform in the sphere around each pattern, near its edge towards the nearest neighbour, the
patterns themselves, anywhere), and counts on how many each numbered claim of the paper is violated, undefined, without
its condition, or a bound that says nothing; with it the known counterexamples, and what is true instead. Verdicts
are computed from these numbers. Trials refute, and are no proof: `sparsehopfield.theory` has the proofs.
Besides the table and the figure there are report.md and report.html.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.data import datasets
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import families, tables
from sparsehopfield.studies._core.cli import add_common_options, add_families_options, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.sources import load_dataset
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.theory_ledger.claims import CLAIMS
from sparsehopfield.studies.theory_ledger.report import Summary, figure, report_text, write
from sparsehopfield.studies.theory_ledger.trials import METRICS, Trials

NAME = "theory"
EDGE = 0.95  # of the way from a pattern to the edge of its sphere
EXAMPLES = """\
examples:
  python -m sparsehopfield theory
  python -m sparsehopfield theory --dataset mnist --output results/theory-mnist
  python -m sparsehopfield theory --families sphere --d 3 --output results/sphere
"""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    families : str or sequence of str
        Of `families.FAMILIES`.
    betas : float or sequence of float
        Inverse temperatures times m^2, m the length of the longest pattern.
    patterns : int
        Patterns M of each set, at least 2.
    d : int
        Their dimension, at least 2; images have their own.
    trials : int
        Queries of each kind: in the spheres, near their edges, anywhere. The patterns themselves come on top.
    dataset : {"digits", "mnist", "cifar10", "imagenet64"}
        The images of the family "images".
    data : path, optional
        The folder that holds it; the digits need none.
    jobs : int
        Number of settings to measure at the same time.
    """

    families: Sequence[str] = tuple(families.FAMILIES)
    betas: Sequence[float] = (0.1, 1.0, 10.0, 100.0, 1000.0)
    patterns: int = 64
    d: int = 32
    trials: int = 100
    dataset: str = "digits"
    data: str | os.PathLike[str] | None = None
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"families": str, "betas": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("families", self.families, families.FAMILIES)
        check_names("dataset", (self.dataset,), datasets.DATASETS)
        for name, least in (("patterns", 2), ("d", 2), ("trials", 1), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        for beta in self.betas:
            if not 0 < beta < math.inf:
                raise ValueError(f"betas: must be positive and finite, got {beta:g}")


class Measurement:
    """The measurement of settings; consecutive settings with the same trials share one draw.

    Parameters
    ----------
    chosen : Options
        The options of the run.
    images : ImageSet, optional
        The images of the family of images.
    """

    def __init__(self, chosen: Options, images: datasets.ImageSet | None) -> None:
        self.chosen, self.images = chosen, images
        self.claims = {claim.name: claim for claim in CLAIMS}
        self._drawn: tuple[tuple[Any, ...], Trials] | None = None

    def __call__(self, setting: Mapping[str, Any]) -> dict[str, float]:
        name, *key = setting.values()
        if self._drawn is None or self._drawn[0] != tuple(key):
            self._drawn = tuple(key), self.trials(*key)
        return self.claims[name].summarise(self._drawn[1])

    def trials(self, family: str, beta: float, seed: int) -> Trials:
        """Draw the trials of a family at a beta that is in units of 1/m^2."""
        rng = np.random.default_rng(seed)
        patterns = families.draw(family, rng, self.chosen.patterns, self.chosen.d, self.images)
        queries, index = draw_queries(rng, patterns, self.chosen.trials)
        return Trials(patterns, queries, index, beta / float((patterns**2).sum(axis=1).max()))


def draw_queries(
    rng: np.random.Generator, patterns: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw queries of every kind, and return the pattern that each is to find.

    Parameters
    ----------
    rng : numpy.random.Generator
        The generator.
    patterns : ndarray of shape (M, d)
        No two of them equal.
    count : int
        How many of a kind.

    Returns
    -------
    queries : ndarray of shape (3 count + M, d)
        Uniform in the spheres of random patterns; at `EDGE` of the radius, towards the nearest neighbour; the patterns;
        and uniform in the ball around 0 that holds all patterns, to find the pattern with the best score.
    index : ndarray of int, shape (3 count + M,)
    """
    m, d = patterns.shape
    radius = theory.min_half_distance(patterns)
    apart = cdist(patterns, patterns)
    np.fill_diagonal(apart, np.inf)
    inside, edge = rng.integers(m, size=(2, count))
    near = patterns[inside] + radius * _draw_in_ball(rng, count, d)
    towards = patterns[apart.argmin(axis=1)[edge]] - patterns[edge]
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    anywhere = float(np.linalg.norm(patterns, axis=1).max()) * _draw_in_ball(rng, count, d)
    queries = np.concatenate([near, patterns[edge] + EDGE * radius * towards, patterns, anywhere])
    return queries, np.concatenate([inside, edge, np.arange(m), (anywhere @ patterns.T).argmax(axis=1)])


def _draw_in_ball(rng: np.random.Generator, count: int, d: int) -> NDArray[np.float64]:
    """Draw uniform points of the unit ball."""
    return families.sphere(rng, count, d) * rng.random((count, 1)) ** (1 / d)


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of the papers' claims.

    Parameters
    ----------
    output : path
        Folder for the table, its settings, the figure and the reports; an interrupted table that is there is continued.
    **options
        Those of `Options`: `families`, `betas`, `patterns`, `d`, `trials`, `dataset`, `data`, `jobs`, `seed`,
        `restart`, `progress`.

    Returns
    -------
    Outcome
        Its `figures` end with the two reports.
    """
    chosen = Options(**options)
    images = load_dataset(chosen.dataset, chosen.data) if families.IMAGES in chosen.families else None
    if images is not None and chosen.patterns > len(images):
        raise ValueError(f"patterns: {chosen.patterns} are more than the {len(images)} images of {images.name}")
    settings = [
        {"claim": claim.name, "family": family, "beta_hat": beta, "seed": derive_seed(chosen.seed, i, j)}
        for i, family in enumerate(chosen.families)
        for j, beta in enumerate(chosen.betas)
        for claim in CLAIMS
    ]
    bounds = {claim.name for claim in CLAIMS if claim.bound}
    rows = measure_table(
        output,
        NAME,
        chosen,
        settings,
        lambda setting: METRICS if setting["claim"] in bounds else METRICS[:-1],
        Measurement(chosen, images),
    )
    summary = Summary(rows, chosen.as_settings())
    files = plotting.save(figure(summary), Path(output, NAME))
    written = write(summary, output, files[0])
    return Outcome(rows, Path(output, tables.TABLE), [*files, *written], report_text(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add_families_options(parser, default)
    add("betas", "inverse temperatures times m^2, m the length of the longest pattern", metavar="BETA")
    add("trials", "queries of each kind", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}-DATASET", default)
