"""The report of the study of barriers: a table, sentences and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.barriers.protocol import CAUSES, Floats, Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The rank correlations, and their words.
CORRELATIONS = {
    **{f"steps and {cause}": f"updates and {cause}" for cause in CAUSES},
    "radius and barrier": "radius and barrier",
}


class Summary(Means):
    """The results by family and beta."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("family", "beta"))
        self.rows, self.chosen = rows, chosen

    def known(self, key: Key, metric: str) -> Floats:
        """Return the values of the sets that have one."""
        values = self.values(key, metric)
        return values[~np.isnan(values)]

    def all(self, metric: str) -> Floats:
        """Return the values of all sets that have one."""
        return np.concatenate([self.known(key, metric) for key in self.keys])

    def by_draw(self, metric: str, family: str | None = None) -> Floats:
        """Return the mean over the betas of each set of patterns that has a value, of one family or of all."""
        groups: dict[tuple[str, int], list[float]] = {}
        for row in self.rows:
            if row["metric"] == metric and family in (None, row["family"]) and not np.isnan(row["value"]):
                groups.setdefault((row["family"], row["draw"]), []).append(row["value"])
        return np.array([np.mean(values) for values in groups.values()])

    def median(self, key: Key, metric: str) -> float:
        """Return the median over the sets that have a value; nan for none."""
        values = self.known(key, metric)
        return float(np.median(values)) if len(values) else float("nan")


def figure(summary: Summary) -> Figure:
    """Draw, over beta and by family, minima, the bound by straight lines over the true height, and rank correlations.

    Returns
    -------
    matplotlib.figure.Figure
        Medians over the sets of patterns.
    """
    shown = {
        "minima": "minima",
        "line": "straight line over true height",
        "steps and barrier": "ranks of updates and barrier",
        "steps and rate": "ranks of updates and rate",
        "radius and barrier": "ranks of radius and barrier",
    }
    panels = []
    for metric, title in shown.items():
        lines = []
        for family in summary.levels("family"):
            betas = summary.levels("beta", family=family)
            lines.append(plotting.Line(family, betas, [summary.median((family, beta), metric) for beta in betas]))
        panels.append(plotting.Panel(title, lines, ""))
    return plotting.curves([panels], xlabel="beta", title="Minima and barriers of the sparse energy", log=True)


def report_text(summary: Summary) -> str:
    """Write the results, in a table and in words."""
    chosen = summary.chosen
    lines = [["family", "beta", "sets", "minima", "pure", "saddles", "escape", "line", "loose", "updates"]]
    lines[0] += ["barrier", "rate", "distance", "radius"]
    for key in summary.keys:
        known = summary.values(key, "known")
        numbers = [f"{summary.median(key, metric):.3g}" for metric in ("minima", "pure", "saddles", "escape", "line")]
        loose = [f"{100 * value:.0f} %" for value in [summary.median(key, "loose")]]
        ranks = [f"{summary.median(key, metric):+.2f}" for metric in CORRELATIONS]
        row = [key[0], f"{key[1]:g}", f"{known.sum():.0f}/{len(known)}", *numbers, *loose]
        lines.append([*row, f"{summary.median(key, 'steps'):.3g}", *ranks])
    introduction = (
        f"Sets of {chosen.patterns} patterns; {chosen.queries} queries each, up to {chosen.noise:g} of its length off. "
        "Medians over the sets whose minima and saddles are known: 'sets', of how many (the others have more supports "
        "than were to be looked at, or a degenerate state). 'pure': minima that are patterns; 'escape': the barrier "
        "around a minimum; 'line': the rise on the straight line between two minima over the least one; 'loose': pairs "
        "for which it is more than 1 % too high. Then rank correlations, within a set: of updates with barrier, rate "
        "and distance, of the exact radius with the barrier."
    )
    return "\n\n".join(
        ["Barriers", wrap(introduction), aligned(lines, {0}), bullets("What came out", _findings(summary))]
    )


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    known = summary.all("known")
    sets = len({(row["family"], row["draw"]) for row in summary.rows})
    yield f"Minima and saddles are known in {known.sum():.0f} of {len(known)} settings, of {sets} sets of patterns."
    line, loose = summary.all("line"), summary.all("loose")
    if len(line):
        yield (
            f"The straight line between two minima rises {np.median(line):.2f} times as far as it must (median over "
            f"sets of their medians), and by more than 1 % too far for {100 * np.mean(loose):.0f} % of the pairs."
        )
    for metric, words in CORRELATIONS.items():
        values = summary.by_draw(metric)
        if len(values) > 1:
            families = {family: summary.by_draw(metric, family) for family in summary.levels("family")}
            each = ", ".join(f"{family} {_mean(own)}" for family, own in families.items() if len(own) > 1)
            yield (
                f"Ranks of {words}: mean correlation {_mean(values)} (standard error over {len(values)} sets of "
                f"patterns, each the mean over its betas), positive in {100 * np.mean(values > 0):.0f} % of them."
                + (f" By family: {each}." if each else "")
            )


def _mean(values: Floats) -> str:
    """Write a mean and its standard error."""
    return f"{values.mean():+.2f} ± {values.std(ddof=1) / len(values) ** 0.5:.2f}"
