"""The report of the study of metastable states: histograms, tables, and sentences computed from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.separations import has_cutoff, separation_code
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.words import bullets, join_numbers, steps_in_words, wrap
from sparsehopfield.studies.metastable.protocol import (
    BINS,
    COUNTS,
    HEAVY,
    METRICS,
    STATISTICS,
    alpha_of,
    bin_names,
    separation_named,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The bins of the figure, each made of some of the table's.
DRAWN = (0, 1, 2, 5, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
#: The rows of the report's table: each size up to 10, as in the paper, and two for the rest.
PRINTED = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100)

_COUNTED = [(count, statistic) for count in COUNTS for statistic in STATISTICS]

Panel = tuple[Any, ...]


class Summary:
    """The values by panel, separation map and metric.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    times : sequence of float
        How long each setting took; nan where that is not known.
    description : str
        A description of the images.
    queries : int
        How many queries there were.

    Attributes
    ----------
    panels : list of tuple
        (size, pixels, similarity, mask, beta): what all maps were compared at.
    maps : list of str
        The separation maps by their names.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], times: Sequence[float], description: str, queries: int
    ) -> None:
        self.rows, self.description, self.queries = rows, description, queries
        self._values = {(self._panel(row), row["separation"], row["metric"]): row["value"] for row in rows}
        for row, seconds in zip(rows[:: len(METRICS)], times, strict=True):
            self._values[self._panel(row), row["separation"], "seconds"] = seconds
        self.panels: list[Panel] = list(dict.fromkeys(key[0] for key in self._values))
        self.maps: list[str] = list(dict.fromkeys(key[1] for key in self._values))

    @staticmethod
    def _panel(row: Mapping[str, Any]) -> Panel:
        return tuple(row[name] for name in ("size", "pixels", "similarity", "mask", "beta"))

    def value(self, panel: Panel, name: str, metric: str) -> float:
        """Return one number of the table."""
        return float(self._values[panel, name, metric])

    def shares(self, panel: Panel, name: str, count: str, bins: tuple[int, ...] = BINS) -> NDArray[np.float64]:
        """Return the share of the queries in each of some bins, each made of one or more of the table's."""
        fine = [self.value(panel, name, f"{count} {label}") for label in bin_names(BINS)]
        into = np.searchsorted(bins, [*BINS, BINS[-1] + 1])
        return np.asarray(np.bincount(into, weights=fine, minlength=len(bins) + 1), np.float64)

    def single(self, panel: Panel, name: str) -> float:
        """Return the share of the queries that come to rest on a single pattern, counted as the paper does."""
        return self.value(panel, name, f"{self.count(name)} 1")

    @staticmethod
    def count(name: str) -> str:
        """Return what the paper counts: the support, or for softmax, where that is all patterns, the heavy ones."""
        return "support" if has_cutoff(separation_code(separation_named(name))) else "heavy"

    def name(self, panel: Panel, beta: bool = True) -> str:
        """Return a panel's title: what differs from the other panels; without its beta on request."""
        size, pixels, similarity, mask, at = panel
        words = (
            f"M = {size}",
            f"{pixels} pixels",
            f"{similarity} similarity",
            "whole queries" if mask == "none" else f"{mask} half masked",
            f"beta {at:g}",
        )
        varies = [len(set(values)) > 1 for values in zip(*self.panels, strict=True)]
        parts = [word for word, differs in zip(words[:4], varies, strict=False) if differs]
        return ", ".join([*parts, *([words[4]] if beta else [])])

    def groups(self) -> dict[Panel, list[Panel]]:
        """Group the panels of all betas."""
        groups: dict[Panel, list[Panel]] = {}
        for panel in self.panels:
            groups.setdefault(panel[:4], []).append(panel)
        return groups

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        first = self.rows[0]
        sizes, betas = (join_numbers(dict.fromkeys(panel[i] for panel in self.panels)) for i in (0, 4))
        return (
            f"metastable states on {first['dataset']}: M = {sizes}, {self.queries} queries, "
            f"{steps_in_words(first['steps'])}, beta {betas}"
        )


def figure(summary: Summary) -> Figure:
    """Draw a histogram of the support and of the heavy patterns for every panel and map.

    Returns
    -------
    matplotlib.figure.Figure
        One row of axes for each panel, one column for each map. The support of softmax is all patterns, and is
        left out.
    """
    grid = [[_bars(summary, panel, name) for name in summary.maps] for panel in summary.panels]
    last = max(np.flatnonzero(height)[-1] for row in grid for bars in row for height in bars.heights.values())
    return plotting.histograms(
        grid, ticks=bin_names(DRAWN)[: last + 1], xlabel="patterns that are mixed", title=summary.heading
    )


def _bars(summary: Summary, panel: Panel, name: str) -> plotting.Bars:
    heights = {f"weight above {HEAVY:g}": summary.shares(panel, name, "heavy", DRAWN)}
    if summary.count(name) == "support":
        heights = {"weight above 0 (support)": summary.shares(panel, name, "support", DRAWN), **heights}
    title = name if panel == summary.panels[0] else ""
    return plotting.Bars(title, heights, ylabel=summary.name(panel).replace(", ", "\n"))


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    parts = [
        summary.heading[0].upper() + summary.heading[1:],
        wrap(
            f"{summary.description}. Counted is the last association. Support: patterns with a weight above 0; with "
            f"softmax these are all patterns, always. Heavy: with a weight above {HEAVY:g}. Effective: 1 / sum p^2, "
            f"which is k for k equal weights. One pattern is a retrieved one, more are a metastable state."
        ),
        *(_percent(summary, panels) for panels in summary.groups().values()),
        *(_statistics(summary, panels) for panels in summary.groups().values()),
        bullets("What came out", _findings(summary)),
        _seconds(summary),
    ]
    return "\n\n".join(parts)


def _percent(summary: Summary, panels: Sequence[Panel]) -> str:
    """Make the paper's table: how often each number of patterns is mixed."""
    columns = [(panel, name) for panel in panels for name in summary.maps]
    shares = np.array([summary.shares(panel, name, summary.count(name), PRINTED) for panel, name in columns])
    starred = {name: name + "*" * (summary.count(name) == "heavy") for name in summary.maps}
    lines = [
        ["", *(f"beta {panel[4]:g}:" if name == summary.maps[0] else "" for panel, name in columns)],
        ["patterns", *(starred[name] for _, name in columns)],
        *(
            [label, *(f"{share:.1%}" for share in row)]
            for label, row in zip(bin_names(PRINTED), shares.T, strict=True)
            if row.any()
        ),
    ]
    title = _title("Share of the queries by how many patterns are mixed", summary, panels[0])
    note = f"* counted are weights above {HEAVY:g}"
    return "\n".join([title, aligned(lines), *([note] if starred.keys() != set(starred.values()) else [])])


def _statistics(summary: Summary, panels: Sequence[Panel]) -> str:
    """Make the table of all statistics but the histograms."""
    columns = [(f"{count} {statistic}", ".0f" if statistic == "max" else ".1f") for count, statistic in _COUNTED]
    columns += [("largest", ".3f"), ("leaders", ".0f"), ("updates", ".2f"), ("settled", ".1%")]
    lines = [
        ["", "", *(f"{count}:" if statistic == "mean" else "" for count, statistic in _COUNTED), "", "", "", ""],
        ["beta", "map", *(metric.split()[-1] for metric, _ in columns)],
        *(
            [f"{panel[4]:g}", name, *(format(summary.value(panel, name, metric), form) for metric, form in columns)]
            for panel in panels
            for name in summary.maps
        ),
    ]
    text = "Patterns mixed, mean largest weight, patterns that lead some state, updates, share settled"
    return f"{_title(text, summary, panels[0])}\n{aligned(lines)}"


def _seconds(summary: Summary) -> str:
    """Make the table of times, which comes last as only times differ from run to run."""
    lines = [["", *summary.maps]]
    for panel in summary.panels:
        seconds = [summary.value(panel, name, "seconds") for name in summary.maps]
        lines.append([summary.name(panel), *("not known" if np.isnan(s) else f"{s:.3g}" for s in seconds)])
    return f"Time taken: seconds for the updates of all {summary.queries} queries\n{aligned(lines)}"


def _title(text: str, summary: Summary, panel: Panel) -> str:
    return ", ".join(filter(None, [text, summary.name(panel, beta=False)]))


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for panel in summary.panels:
        yield _singles(summary, panel)
    for panel in summary.panels:
        if "softmax" in summary.maps:
            yield _softmax(summary, panel)
    for panels in summary.groups().values():
        if len(panels) > 1:
            low, high = min(panels, key=lambda panel: panel[4]), max(panels, key=lambda panel: panel[4])
            where = _title(f"beta {low[4]:g} -> {high[4]:g}", summary, low)
            yield f"{where}, at rest on a single pattern: {_changes(summary, low, high)}."
    for panel in summary.panels:
        whole = (*panel[:3], "none", panel[4])
        if panel != whole and whole in summary.panels:
            where = f"{summary.name(whole)} -> {panel[3]} half masked"
            yield f"{where}, at rest on a single pattern: {_changes(summary, whole, panel)}."
    yield _moving(summary)


def _singles(summary: Summary, panel: Panel) -> str:
    """Write where the single patterns are, and whether they become more with alpha."""
    maps = sorted(summary.maps, key=alpha_of)
    shares = [summary.single(panel, name) for name in maps]
    most, least = int(np.argmax(shares)), int(np.argmin(shares))
    text = f"{summary.name(panel)}: {shares[most]:.1%} of the queries rest on a single pattern with {maps[most]}"
    if len(maps) > 1:
        falls = [f"falls from {a} to {b}" for (a, x), (b, y) in pairwise(zip(maps, shares, strict=True)) if y < x]
        text += f", {shares[least]:.1%} with {maps[least]}; as alpha grows, that {', '.join(falls) or 'never falls'}"
    sparse = [name for name in maps if summary.count(name) == "support"]
    if sparse:
        widest = max(sparse, key=lambda name: summary.value(panel, name, "support max"))
        most_mixed = summary.value(panel, widest, "support max")
        text += f". Of the maps with zeros, {widest} mixes most patterns in one state: {most_mixed:.0f}"
    return text + "."


def _softmax(summary: Summary, panel: Panel) -> str:
    def value(metric: str) -> str:
        return f"{summary.value(panel, 'softmax', metric):.1f}"

    none = summary.value(panel, "softmax", "heavy 0")
    return (
        f"{summary.name(panel)}, softmax: all {panel[0]} patterns have weight in every state, {value('heavy mean')} of "
        f"them more than {HEAVY:g} on average (none for {none:.1%} of the queries); the effective number is "
        f"{value('effective median')} in the median and {value('effective max')} at most."
    )


def _changes(summary: Summary, a: Panel, b: Panel) -> str:
    return ", ".join(f"{name} {summary.single(a, name):.1%} -> {summary.single(b, name):.1%}" for name in summary.maps)


def _moving(summary: Summary) -> str:
    """Write whether the counted states are fixed points."""
    steps = steps_in_words(summary.rows[0]["steps"])
    settled = {
        (panel, name): summary.value(panel, name, "settled") for panel in summary.panels for name in summary.maps
    }
    (panel, name), least = min(settled.items(), key=lambda item: item[1])
    if least == 1:
        return f"All queries have settled ({steps})."
    some = sum(share < 1 for share in settled.values())
    return (
        f"The last update still moved some queries in {some} of {len(settled)} settings, so that what is counted there "
        f"is not yet a fixed point ({steps}): at most {1 - least:.1%} of them, with {name} ({summary.name(panel)})."
    )
