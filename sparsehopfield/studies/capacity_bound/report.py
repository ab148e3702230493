"""The report of the study of capacity bounds: tables, sentences and the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.capacity_bound.protocol import Options, bounds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Summary(Means):
    """The simulated shares by dimension, beta, risk and share of the capacity."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("d", "beta", "p", "share"))
        self.chosen = chosen
        self.spheres = list(dict.fromkeys(key[:2] for key in self.keys))

    def curve(self, d: int, beta: float, p: float) -> list[tuple[float, float]]:
        """Return numbers of patterns, and the share of draws in which all were stored."""
        keys = [key for key in self.keys if key[:3] == (d, beta, p)]
        return [(self.mean(key, "patterns"), self.mean(key, "success")) for key in keys]


def figure(summary: Summary) -> Figure:
    """Draw the share of draws in which all patterns were stored over their number."""
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
    """Write the bounds and the simulations, in tables and in words."""
    chosen = summary.chosen
    introduction = wrap(
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
    """Write sentences from the rows alone."""
    chosen, sentences = summary.chosen, []
    at_bound = [key for key in summary.keys if key[3] == 1]
    if at_bound:
        met = []
        for key in at_bound:
            error = math.sqrt(key[2] * (1 - key[2]) / chosen.draws)
            met.append(summary.mean(key, "success") >= 1 - key[2] - 3 * error)
        sentences.append(
            f"At the exact capacity {sum(met)} of {len(met)} settings succeed in a share of at least 1 - p, within "
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
