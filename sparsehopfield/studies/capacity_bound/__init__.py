"""Capacity bounds: how many random patterns are stored, by simulation, beside what the bounds promise (lemma 3.1).

Draws M uniform points on a unit sphere, many times, and counts how often all of them are exact fixed points of sparse
retrieval with a basin of at least the radius asked for. M goes over shares of the exact capacity
(`theory.exact_capacity`), which promises a share of failures of at most p. The Lambert bound of lemma 3.1, corrected,
and that of the dense model stand beside it; as printed the lemma's bound is undefined.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparsehopfield import theory
from sparsehopfield._engine.checks import untrapped
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.studies._core import base, tables
from sparsehopfield.studies._core.base import Outcome, at_least, bullets, spawned, wrapped
from sparsehopfield.studies._core.families import sphere
from sparsehopfield.studies._core.means import Means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "capacity-bound"
SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)
METRICS = ("patterns", "success")
EXAMPLES = """\
examples:
  python -m sparsehopfield capacity-bound
  python -m sparsehopfield capacity-bound --dims 8 --betas 20 50 100 --output results/betas
  python -m sparsehopfield capacity-bound --radius 0.02 --output results/radius
"""


@dataclass(frozen=True, kw_only=True)
class Options(base.Options):
    """What the study can be asked for, beside what all studies can.

    Attributes
    ----------
    dims : int or sequence of int
        Dimensions d, at least 2.
    betas : float or sequence of float
        Inverse temperatures; the sphere has radius 1.
    risks : float or sequence of float
        Probabilities p of failure, between 0 and 1.
    radius : float
        The basin's radius that each pattern is to have.
    shares : float or sequence of float
        Numbers of patterns to draw, as shares of the exact capacity.
    draws : int
        Sets of patterns that are drawn for each setting.
    most : int
        Settings with more patterns than this are left out.
    jobs : int
        How many settings to measure at the same time.
    """

    dims: Sequence[int] = (4, 8, 12)
    betas: Sequence[float] = (20.0, 100.0)
    risks: Sequence[float] = (0.5, 0.1, 0.01)
    radius: float = 0.0
    shares: Sequence[float] = SHARES
    draws: int = 1000
    most: int = 1000
    jobs: int = 1

    _several: ClassVar[Mapping[str, type]] = {"dims": int, "betas": float, "risks": float, "shares": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("dims", min(self.dims), 2)
        for name in ("draws", "jobs"):
            at_least(name, getattr(self, name), 1)
        at_least("most", self.most, 2)
        if not 0 <= self.radius < math.inf:
            raise ValueError(f"radius: must be a finite number of at least 0, got {self.radius}")
        for name, most in (("betas", math.inf), ("risks", 1.0), ("shares", math.inf)):
            for value in getattr(self, name):
                if not 0 < value < most:
                    raise ValueError(f"{name}: must be above 0 and below {most:g}, got {value:g}")


@untrapped()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of capacity bounds.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
    **options
        Those of `Options`: `dims`, `betas`, `risks`, `radius`, `shares`, `draws`, `most`, `jobs`, `seed`, `restart`,
        `progress`.

    Returns
    -------
    Outcome
    """
    chosen = Options(**options)
    settings = [
        {"d": d, "beta": beta, "p": p, "share": share, "seed": spawned(chosen.seed, i, j, k, n)}
        for i, d in enumerate(chosen.dims)
        for j, beta in enumerate(chosen.betas)
        for k, p in enumerate(chosen.risks)
        for n, share in enumerate(chosen.shares)
        if 2 <= patterns_of(d, beta, p, chosen.radius, share) <= chosen.most
    ]
    if not settings:
        raise ValueError(f"most: no setting has between 2 and {chosen.most} patterns; raise it, or shares or betas")

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        d, beta, p, share, seed = setting.values()
        count = patterns_of(d, beta, p, chosen.radius, share)
        rng = np.random.default_rng(seed)
        stored = sum(all_stored(sphere(rng, count, d), beta, chosen.radius) for _ in range(chosen.draws))
        return {"patterns": count, "success": stored / chosen.draws}

    rows = base.measured(
        output,
        NAME,
        chosen,
        settings,
        METRICS,
        measure,
    )
    summary = Summary(rows, chosen)
    files = plotting.save(figure(summary), Path(output, NAME))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def patterns_of(d: int, beta: float, p: float, radius: float, share: float) -> int:
    """A share of the exact capacity, rounded down."""
    return int(min(theory.exact_capacity(d, 1.0, beta, p, radius).M * share, 2**40))


def all_stored(patterns: Any, beta: float, radius: float) -> bool:
    """Whether every pattern, of length 1, has an exact basin of at least this radius: D/2 - 1/(beta D) at distance D.

    With radius 0: whether each is an exact fixed point.
    """
    nearest = math.sqrt(max(2 * float(HopfieldMemory(patterns, beta, similarity="euclidean").margin().min()), 0))
    return nearest > 0 and nearest / 2 - 1 / (beta * nearest) >= radius


class Summary(Means):
    """The simulated shares by dimension, beta, risk and share of the capacity.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    chosen : Options
        What was asked for.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("d", "beta", "p", "share"))
        self.chosen = chosen
        self.spheres = list(dict.fromkeys(key[:2] for key in self.keys))

    def curve(self, d: int, beta: float, p: float) -> list[tuple[float, float]]:
        """Numbers of patterns, and the share of draws in which all were stored."""
        keys = [key for key in self.keys if key[:3] == (d, beta, p)]
        return [(self.mean(key, "patterns"), self.mean(key, "success")) for key in keys]


def bounds(d: int, beta: float, p: float, radius: float) -> dict[str, float]:
    """What each bound promises for a unit sphere; lemma 3.1 at radius 1/(2 beta) where none is asked for."""
    exact = theory.exact_capacity(d, 1.0, beta, p, radius)
    return {
        "exact": exact.M,
        "closed form": exact.weak_M,
        "lemma 3.1, corrected": theory.capacity_bound(d, 1.0, beta, p, radius or 1 / (2 * beta)).M,
        "dense": theory.dense_capacity_bound(d, 1.0, beta, p).M,
    }


def figure(summary: Summary) -> Figure:
    """Draw the share of draws in which all patterns were stored over their number.

    Parameters
    ----------
    summary : Summary
        What came out.

    Returns
    -------
    matplotlib.figure.Figure
    """
    panels = []
    for d, beta in summary.spheres:
        points = sorted({point for p in summary.chosen.risks for point in summary.curve(d, beta, p)})
        lines = [plotting.Line("simulated", [m for m, _ in points], [s for _, s in points], [0.0] * len(points))]
        promised = [
            (bounds(d, beta, p, summary.chosen.radius)["exact"], 1 - p)
            for p in sorted(summary.chosen.risks, reverse=True)
            if summary.curve(d, beta, p)
        ]
        promised = sorted((m, share) for m, share in promised)
        lines.append(
            plotting.Line("promised", [m for m, _ in promised], [s for _, s in promised], [0.0] * len(promised))
        )
        panels.append(plotting.Panel(f"d = {d}, beta = {beta:g}", lines, "share of draws", (-0.03, 1.03)))
    return plotting.curves([panels], xlabel="patterns M", title="all patterns stored", log=True)


def report_text(summary: Summary) -> str:
    """The bounds and what was simulated, in tables and in words.

    Parameters
    ----------
    summary : Summary
        What came out.

    Returns
    -------
    str
    """
    chosen = summary.chosen
    introduction = wrapped(
        f"Random patterns on a unit sphere, {chosen.draws} draws of each setting. A draw succeeds when all M patterns "
        f"have an exact basin of radius {chosen.radius:g} or more. The bounds promise a share of at least 1 - p. "
        "'lemma 3.1' is corrected (as printed it takes the logarithm of a negative number); a bound below 2 patterns "
        "says nothing."
    )
    lines: list[Sequence[str]] = []
    for d, beta in summary.spheres:
        for p in chosen.risks:
            promised = bounds(d, beta, p, chosen.radius)
            if not lines:
                lines.append(["d", "beta", "p", *promised, *(f"at {share:g}x" for share in chosen.shares)])
            found = [(d, beta, p, share) for share in chosen.shares]
            shown = [f"{summary.mean(key, 'success'):.3f}" if summary.has(key) else "-" for key in found]
            lines.append([str(d), f"{beta:g}", f"{p:g}", *(f"{m:.4g}" for m in promised.values()), *shown])
    return "\n\n".join(
        [
            "Capacity bounds",
            introduction,
            "Patterns that each bound promises; share of draws that succeed at shares of the exact one",
            aligned(lines),
            bullets("What came out", _findings(summary)),
        ]
    )


def _findings(summary: Summary) -> list[str]:
    chosen, sentences = summary.chosen, []
    at_bound = [key for key in summary.keys if key[3] == 1]
    if at_bound:
        kept = []
        for key in at_bound:
            error = math.sqrt(key[2] * (1 - key[2]) / chosen.draws)
            kept.append(summary.mean(key, "success") >= 1 - key[2] - 3 * error)
        sentences.append(
            f"At the exact capacity {sum(kept)} of {len(kept)} settings succeed in a share of at least 1 - p, within "
            "three standard errors."
        )
    beyond = [key for key in summary.keys if key[3] >= 2]
    if beyond:
        worst = max(summary.mean(key, "success") - (1 - key[2]) for key in beyond)
        sentences.append(
            f"With twice the patterns or more the share exceeds 1 - p by at most {max(worst, 0):.3f}: the exact "
            "capacity is nearly tight."
            if worst < 0.1
            else f"With twice the patterns or more the share still exceeds 1 - p by up to {worst:.3f}."
        )
    empty = [
        (d, beta, p)
        for d, beta in summary.spheres
        for p in chosen.risks
        if bounds(d, beta, p, chosen.radius)["lemma 3.1, corrected"] < 2
    ]
    total = len(summary.spheres) * len(chosen.risks)
    sentences.append(
        f"The corrected bound of lemma 3.1 says nothing (fewer than 2 patterns) in {len(empty)} of {total}."
    )
    return sentences


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    own = partial(base.add_own, parser, default)
    own("dims", "dimensions", metavar="D")
    own("betas", "inverse temperatures", metavar="BETA")
    own("risks", "probabilities of failure", metavar="P")
    own("shares", "numbers of patterns, as shares of the exact capacity", metavar="SHARE")
    own("radius", "the basin's radius", metavar="R")
    own("draws", "sets of patterns a setting", metavar="N")
    own("most", "leave out larger sets", metavar="M")
    base.add_jobs_option(parser)
    base.add_options(parser, f"results/{NAME}", default)
