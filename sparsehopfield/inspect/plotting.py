"""The studies' figures: curves, histograms, heat maps, points, landscapes in the plane, and grids of images.

All return a `matplotlib.figure.Figure` made without pyplot, so no window or display is ever needed and no
state is left behind; `save` writes one as PNG and SVG, byte for byte the same each time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine.atomic_files import as_path, atomic_write
from sparsehopfield._engine.checks import as_numbers
from sparsehopfield._engine.optional import require
from sparsehopfield._engine.text import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What notebooks draw with; the other figures are those of single studies, reports and explanations.
__all__ = ["Line", "Panel", "Plane", "curves", "image_grid", "landscapes", "matrices", "save"]

#: Okabe and Ito's colours, which colour-blind readers tell apart; markers and dashes differ too, for print.
STYLES: dict[str, dict[str, Any]] = {
    "sparse": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "dense": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "polynomial": {"color": "#009E73", "marker": "^", "linestyle": ":"},
    "entmax15": {"color": "#CC79A7", "marker": "D", "linestyle": "-."},
    "mean": {"color": "#777777", "marker": "", "linestyle": (0, (1, 1))},
    "baseline": {"color": "#E69F00", "marker": "v", "linestyle": "-"},
    "sparse, the paper": {"color": "#0072B2", "marker": "x", "linestyle": (0, (1, 2))},
    "dense, the paper": {"color": "#D55E00", "marker": "+", "linestyle": (0, (1, 2))},
    "simulated": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "promised": {"color": "#D55E00", "marker": "v", "linestyle": ":"},
    "sparse, predicted": {"color": "#0072B2", "marker": "", "linestyle": (0, (1, 1)), "linewidth": 2.4},
    "dense, predicted": {"color": "#D55E00", "marker": "", "linestyle": (0, (1, 1)), "linewidth": 2.4},
    "entmax15, predicted": {"color": "#CC79A7", "marker": "", "linestyle": (0, (1, 1)), "linewidth": 2.4},
}

#: The members of the family of memories: all pairs, some pairs, features.
MEMBERS: dict[str, dict[str, Any]] = {
    "sparsemax": {"color": "#0072B2", "marker": "o"},
    "softmax": {"color": "#D55E00", "marker": "s"},
    "entmax15": {"color": "#CC79A7", "marker": "D"},
    "topk": {"color": "#009E73", "marker": "^"},
    "window": {"color": "#E69F00", "marker": "v"},
    "blocks": {"color": "#56B4E9", "marker": "P"},
    "random": {"color": "#000000", "marker": "X"},
    "elu+1": {"color": "#777777", "marker": "<"},
    "relu": {"color": "#777777", "marker": ">"},
    "features": {"color": "#8C6D1F", "marker": "*"},
}

#: The colours of regions of the plane, in order: pale, so that lines and points show above them.
TINTS = ("#A6CBE3", "#F6D28F", "#A3D9C6", "#EBCBDD", "#BFE2F6", "#F0B98E", "#F8F3A8")
#: Those of regions that belong to nothing that is named.
GREYS = ("#E4E4E4", "#C6C6C6", "#D6D6D6", "#B4B4B4")

#: So many sizes at most are labelled one by one on a logarithmic axis.
MOST_TICKS = 10


@dataclass(frozen=True)
class Line:
    """One curve: the mean and the standard deviation of several runs at each `x`.

    Parameters
    ----------
    label : str
        The name in the legend. One that `STYLES` has is drawn in its colour, marker and dashes.
    x : sequence of float, n of them
        Where the runs were measured, on the horizontal axis.
    mean : array_like, shape (n,)
        The mean of the runs at each `x`; where it is not finite, the line has a gap.
    std : float or array_like, shape (n,) or (2, n)
        How far the band goes below and above the mean: one standard deviation, or a row for below and one for above.
        NaN draws no band.
    style : mapping, optional
        Options of Matplotlib's `Axes.plot`, in place of those of `STYLES`.

    See Also
    --------
    Panel : Hold the lines of one axes.
    curves : Draw them.

    Examples
    --------
    >>> line = Line("sparse", [1, 2, 4], [0.9, 0.8, 0.5], 0.1)
    >>> figure = curves([[Panel("", [line])]], xlabel="patterns")
    >>> figure.axes[0].lines[0].get_xydata().tolist()
    [[1.0, 0.9], [2.0, 0.8], [4.0, 0.5]]
    """

    label: str
    x: Sequence[float]
    mean: ArrayLike
    std: ArrayLike = 0.0
    style: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Panel:
    """One axes of a figure of curves.

    Parameters
    ----------
    title : str
        What stands above the axes.
    lines : sequence of Line
        What is drawn there.
    ylabel : str
        The label of the vertical axis; of the panels in a row that of the first is drawn.
    ylim : tuple of 2 float, optional
        Where the vertical axis begins and ends; by default Matplotlib chooses. Panels in a row share it.

    See Also
    --------
    curves : Draw a grid of panels.

    Examples
    --------
    >>> panel = Panel("half of the pixels", [Line("sparse", [1, 2], [0.9, 0.8])], "share retrieved", (0, 1))
    >>> axis = curves([[panel]], xlabel="patterns").axes[0]
    >>> axis.get_title(), axis.get_ylabel(), axis.get_ylim() == (0, 1)
    ('half of the pixels', 'share retrieved', True)
    """

    title: str
    lines: Sequence[Line]
    ylabel: str = ""
    ylim: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bars:
    """One axes of a figure of histograms: one or more series of heights over the same bins."""

    title: str
    heights: Mapping[str, NDArray[Any]]  # those of some panel must be all series of the figure
    ylabel: str = ""


@dataclass(frozen=True)
class Pictures:
    """Rows of images below the axes of a figure; what `image_grid` draws on its own."""

    rows: Mapping[str, NDArray[Any]]
    shape: tuple[int, ...]
    columns: Sequence[str] = ()
    captions: Mapping[str, Sequence[str]] | None = None
    title: str = ""


@dataclass(frozen=True)
class Points:
    """One axes of a figure of points."""

    title: str
    series: Mapping[str, tuple[ArrayLike, ArrayLike]]  # the points' two coordinates by their names
    xlabel: str
    ylabel: str
    log: str = ""  # "x", "y" or "xy": the axes that are logarithmic
    guide: tuple[ArrayLike, ArrayLike] | None = None  # a thin line through the points


@dataclass(frozen=True)
class Leads:
    """One axes of a figure of leads: by how much one of two is ahead, cell by cell, and where both are level."""

    title: str
    x: Sequence[float]  # (w,) positive and ascending; the axis is logarithmic
    rows: Sequence[str]  # (h,) names of the rows, from below
    ahead: ArrayLike  # (h, w) positive where the first one is ahead
    level: Mapping[str, Sequence[Sequence[float]]]  # by its name: of each row, at which x both are level


@dataclass(frozen=True)
class Plane:
    """One axes of a figure of landscapes: the plane, and what lies in it.

    Parameters
    ----------
    title : str
        What stands above the axes.
    x, y : ndarray of float, shapes (w,) and (h,)
        The coordinates of a regular grid, ascending, at least 2 of each.
    regions : ndarray of int, shape (h, w)
        What each point of the grid belongs to: below M the pattern of this number, which gives the colour; others are
        grey, and -1 is white.
    patterns : ndarray of float, shape (M, 2)
        Drawn as points.
    limits : ndarray of float, shape (k, 2)
        States that retrievals end in, drawn as diamonds.
    height : ndarray of float, shape (h, w), optional
        The energy, say, drawn as contours.
    paths : sequence of ndarray, each of shape (steps + 1, 2)
        States that retrievals go through, drawn as lines.
    radii : ndarray of float, shape (M,), optional
        Of circles around the patterns, drawn where positive.

    See Also
    --------
    landscapes : Draw a grid of planes.
    sparsehopfield.inspect.paths.retrieval_path : Compute paths.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1.0, 1.0, 5)
    >>> regions = np.tile((x > 0).astype(np.int64), (5, 1))
    >>> patterns = np.array([[-0.5, 0.0], [0.5, 0.0]])
    >>> plane = Plane("two patterns", x, x, regions, patterns, patterns, radii=np.array([0.3, 0.0]))
    >>> legend = landscapes([[plane]]).legends[0]
    >>> [text.get_text() for text in legend.get_texts()]
    ['exact radius', 'limit', 'pattern']
    """

    title: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    regions: NDArray[np.int64]
    patterns: NDArray[np.float64]
    limits: NDArray[np.float64]
    height: NDArray[np.float64] | None = None
    paths: Sequence[NDArray[np.float64]] = ()
    radii: NDArray[np.float64] | None = None


def curves(
    panels: Sequence[Sequence[Panel]],
    *,
    xlabel: str | Sequence[str],
    title: str = "",
    log: bool | Sequence[bool] = False,
    logy: bool = False,
) -> Figure:
    """Draw mean lines, each with a band of one standard deviation.

    Parameters
    ----------
    panels : sequence of sequence of Panel
        The grid of axes, row by row, all rows of one length; each row shares its vertical axis.
    xlabel : str or sequence of str
        The label of the horizontal axes, which all share; or one for each row, whose panels then share theirs.
    title : str
        Title of the whole figure.
    log : bool or sequence of bool
        Whether the horizontal axes are logarithmic, all or those of each row.
    logy : bool
        Whether the vertical axes are logarithmic.

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot; `save` writes it.

    Raises
    ------
    ValueError, TypeError
        If there is nothing to draw, or the numbers of a line do not fit its `x`.

    See Also
    --------
    Line : Describe what is drawn of one label.
    save : Write the figure.

    Examples
    --------
    >>> lines = [Line("sparse", [1, 10, 100], [0.9, 0.8, 0.5], 0.1), Line("dense", [1, 10, 100], [0.8, 0.4, 0.1])]
    >>> figure = curves([[Panel("half of the pixels", lines, "share retrieved")]], xlabel="patterns", log=True)
    >>> figure.axes[0].get_xscale(), [text.get_text() for text in figure.legends[0].get_texts()]
    ('log', ['sparse', 'dense'])
    """
    height, width = _grid_shape("panels", panels)
    bands = [[[_band(line) for line in panel.lines] for panel in row] for row in panels]
    figure = empty_figure((max(4.6, 1.0 + 3.6 * width), 1.2 + 2.5 * height))
    by_row = not isinstance(xlabel, str)
    logs = [log] * height if isinstance(log, bool) else log
    axes = figure.subplots(height, width, squeeze=False, sharex="row" if by_row else True, sharey="row")
    handles: dict[str, Any] = {}
    for row, drawn, measured, logarithmic in zip(axes, panels, bands, logs, strict=True):
        sharing = [drawn] if by_row else panels
        positions = [line.x for panels_of_row in sharing for panel in panels_of_row for line in panel.lines]
        for axis, panel, lines in zip(row, drawn, measured, strict=True):
            for line, (mean, below, above) in zip(panel.lines, lines, strict=True):
                style = line.style or STYLES.get(line.label, {})
                options = {"label": line.label, "markersize": 4, "linewidth": 1.6, **style}
                (handles[line.label],) = axis.plot(line.x, mean, **options)
                axis.fill_between(
                    line.x, mean - below, mean + above, alpha=0.2, linewidth=0, color=handles[line.label].get_color()
                )
            axis.set_title(panel.title, fontsize=10)
            axis.grid(alpha=0.25, linewidth=0.6)
            if panel.ylim:
                axis.set_ylim(*panel.ylim)
            if logarithmic:
                _label_log_axis(axis, positions)
            if logy:
                axis.set_yscale("log")
        row[0].set_ylabel(drawn[0].ylabel)
    return _add_labels(figure, axes, xlabel, title, handles)


def _band(line: Line) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of a line, and how far its band goes below and above."""
    n = len(line.x)
    mean = _as_shaped(f"panels: the mean of {line.label!r}", line.mean, (n,))
    std = _as_shaped(f"panels: the std of {line.label!r}", line.std, (), (n,), (2, n))
    below, above = std if std.ndim == 2 else (std, std)
    return mean, below, above


def histograms(panels: Sequence[Sequence[Bars]], *, ticks: Sequence[str], xlabel: str, title: str = "") -> Figure:
    """Draw histograms of shares between 0 and 1, several series side by side.

    Parameters
    ----------
    panels : rows of bars
        The grid of axes; the first of each row names its vertical axis.
    ticks : sequence of str
        What the bins are called; heights beyond these are left out.
    xlabel : str
        What the bins are of.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    height, width = _grid_shape("panels", panels)
    figure = empty_figure((max(4.6, 1.4 + 2.4 * width), 1.4 + 1.6 * height))
    axes = figure.subplots(height, width, squeeze=False, sharex=True, sharey=True)
    labels = max((list(bars.heights) for row in panels for bars in row), key=len)
    _check_not_empty("panels", labels)
    colours = dict(zip(labels, (STYLES[name]["color"] for name in ("sparse", "dense", "polynomial")), strict=False))
    bins, thick = np.arange(len(ticks)), 0.8 / len(labels)
    handles: dict[str, Any] = {}
    for row, drawn in zip(axes, panels, strict=True):
        for axis, bars in zip(row, drawn, strict=True):
            for label, heights in bars.heights.items():
                left = bins + (labels.index(label) - len(labels) / 2 + 0.5) * thick
                handles[label] = axis.bar(left, heights[: len(ticks)], thick, color=colours[label])
            axis.set_title(bars.title, fontsize=10)
            axis.grid(alpha=0.25, linewidth=0.6, axis="y")
            axis.set(ylim=(0, 1.02), xticks=bins)
            axis.set_xticklabels(ticks, fontsize=7, rotation=90)
        row[0].set_ylabel(drawn[0].ylabel, fontsize=9)
    return _add_labels(figure, axes, xlabel, title, {label: handles[label] for label in labels})


def heat_map(
    blocks: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    columns: Sequence[str],
    notes: Mapping[str, tuple[str, str]],
    label: str,
    title: str = "",
) -> Figure:
    """Draw shares between 0 and 1 as coloured cells, with a note beside each row.

    Parameters
    ----------
    blocks : mapping of str to mapping
        Of each block of rows, by its title: the rows by their names, one share a column; nan for none.
    columns : sequence of str
        What the columns are called.
    notes : mapping of str to tuple of str
        By the name of the row: what is written at its right, and in which colour.
    label : str
        The label of the shares.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    _check_not_empty("blocks", blocks, *blocks.values())
    _check_not_empty("columns", columns)
    for rows in blocks.values():
        for name, row in rows.items():
            _as_shaped(f"blocks: {name!r}, one share for each of columns,", row, (len(columns),))
            if name not in notes:
                raise ValueError(f"notes: has none for the row {name!r}")
    colours = require("matplotlib", purpose="drawing figures").colormaps["Oranges"].with_extremes(bad="#eeeeee")
    norm = require("matplotlib.colors", purpose="drawing figures").PowerNorm(0.5, 0, 1)  # so that 1 % can be seen
    heights = [len(rows) for rows in blocks.values()]
    figure = empty_figure((4.6 + 0.95 * len(columns), 1.6 + 0.24 * sum(heights) + 0.3 * len(heights)))
    axes = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (heading, rows) in zip(axes, blocks.items(), strict=True):
        shares = np.ma.masked_invalid(np.array(list(rows.values()), np.float64))
        drawn = axis.imshow(shares, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
        for (row, column), share in np.ndenumerate(shares.filled(np.nan)):
            text = "–" if np.isnan(share) else "0" if share == 0 else "<0.1" if share < 1e-3 else f"{100 * share:.1f}"
            axis.text(
                column, row, text, ha="center", va="center", fontsize=7.5, color="white" if share > 0.5 else "#333333"
            )
        axis.set_title(heading, fontsize=10, loc="left")
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
        axis.set_xticks(range(len(columns)), columns if axis is axes[-1] else [""] * len(columns), fontsize=8)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="white", linewidth=1.2)
        axis.tick_params(which="minor", length=0)
        side = axis.secondary_yaxis("right")
        side.set_yticks(range(len(rows)), [notes[name][0] for name in rows], fontsize=8, fontweight="bold")
        side.tick_params(length=0)
        side.spines[:].set_visible(False)
        for tick, name in zip(side.get_yticklabels(), rows, strict=True):
            tick.set_color(notes[name][1])
    bar = figure.colorbar(drawn, ax=list(axes), location="bottom", shrink=0.6, aspect=40, pad=0.01)
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "1", "10", "25", "50", "100 %"], fontsize=8)
    bar.set_label(label, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def leads(
    panels: Sequence[Leads], *, names: tuple[str, str], xlabel: str, ylabel: str, label: str, title: str = ""
) -> Figure:
    """Draw by how much one of two is ahead as coloured cells, and points where both are level.

    Parameters
    ----------
    panels : sequence of Leads
        Side by side; all have the same rows and the same colours.
    names : (str, str)
        Who is ahead where a number is positive, and where it is negative, of `STYLES`.
    xlabel, ylabel : str
        The labels of the axes.
    label : str
        What the numbers are.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    _check_not_empty("panels", panels)
    numbers = []
    for panel in panels:
        _check_not_empty("panels", panel.x, panel.rows)
        numbers.append(_as_shaped("panels: ahead", panel.ahead, (len(panel.rows), len(panel.x))))
    colours = require("matplotlib.colors", purpose="drawing figures")
    ends = [STYLES[name]["color"] for name in names]
    shades = colours.LinearSegmentedColormap.from_list("lead", [ends[1], "#FFFFFF", ends[0]])
    most = max(float(np.nanmax(np.abs(one))) for one in numbers) or 1.0
    figure = empty_figure((1.8 + 2.4 * len(panels), 1.6 + 0.32 * len(panels[0].rows)))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    handles: dict[str, Any] = {}
    for axis, panel, ahead in zip(axes, panels, numbers, strict=True):
        ticks, positions = np.log(panel.x), np.arange(len(panel.rows))
        half = np.diff(ticks).mean() / 2 if len(ticks) > 1 else 0.5
        edges = np.exp([ticks[0] - half, *(ticks[:-1] + ticks[1:]) / 2, ticks[-1] + half])
        cells = axis.pcolormesh(edges, np.arange(len(positions) + 1) - 0.5, ahead, cmap=shades, vmin=-most, vmax=most)
        for (name, places), marker in zip(panel.level.items(), ("o", "x", "+"), strict=False):
            points = [(x, row) for row, own in zip(positions, places, strict=True) for x in own]
            x, y = zip(*points, strict=True) if points else ((), ())
            (handles[name],) = axis.plot(x, y, marker=marker, color="black", linestyle="", markersize=5)
        axis.set_xscale("log")
        axis.set_yticks(positions, panel.rows)
        axis.set_title(panel.title, fontsize=10)
    axes[0].set_ylabel(ylabel)
    bar = figure.colorbar(cells, ax=list(axes), shrink=0.9, aspect=12, pad=0.01)
    bar.set_label(label, fontsize=8)
    bar.set_ticks([-most, 0, most], labels=[names[1], "level", names[0]], fontsize=8)
    return _add_labels(figure, axes[None], xlabel, title, handles)


def scatter(panels: Sequence[Points], *, title: str = "") -> Figure:
    """Draw points side by side, in as many series as there are models' colours.

    Parameters
    ----------
    panels : sequence of points
        The axes; a series has the same colour in all.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    _check_not_empty("panels", panels)
    figure = empty_figure((max(4.6, 3.5 * len(panels)), 3.6), gap=0.08)
    axes = figure.subplots(1, len(panels), squeeze=False)
    names = dict.fromkeys(name for panel in panels for name in panel.series)
    styles = dict(zip(names, ("sparse", "dense", "polynomial", "entmax15"), strict=False))
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes[0], panels, strict=True):
        if panel.guide:
            axis.plot(*panel.guide, color=STYLES["mean"]["color"], linewidth=1, zorder=1)
        for name, (x, y) in panel.series.items():
            style = STYLES[styles[name]]
            drawn = {"color": style["color"], "marker": style["marker"], "linewidths": 0.6, "facecolors": "none"}
            handles[name] = axis.scatter(x, y, s=12, alpha=0.7, **drawn)
        axis.set_title(panel.title, fontsize=10)
        axis.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
        axis.set(**{f"{which}scale": "log" for which in panel.log})
        axis.grid(alpha=0.25, linewidth=0.6)
    return _add_labels(figure, axes, "", title, {name: handles[name] for name in names})


def member_style(member: str, *, blind: bool = False) -> dict[str, Any]:
    """Return the style that a member of the family is drawn in; blind ones are hollow and dotted."""
    style = MEMBERS.get(member, {"color": "#000000", "marker": "*", "linestyle": "--"})
    return {**style, "linestyle": ":", "markerfacecolor": "white"} if blind else dict(style)


def trade_offs(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, xlabel: str, ylabel: str, title: str = ""
) -> Figure:
    """Draw shares over costs: one point a member and budget, those of a member joined, larger for larger budgets.

    Parameters
    ----------
    panels : mapping of str to mapping
        Of each axes, by its title: (cost, share) by growing budget; by the name of a member, or with ", blind" behind.
    xlabel, ylabel : str
        What the axes show; costs are logarithmic.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    _check_not_empty("panels", panels, *panels.values())
    figure = empty_figure((max(4.6, 4.5 * len(panels)), 4.4), gap=0.06)
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)
    handles: dict[str, Any] = {}
    for axis, (heading, series) in zip(axes[0], panels.items(), strict=True):
        for name, points in series.items():
            member, _, place = name.partition(", ")
            style = member_style(member, blind=place == "blind")
            x, y = zip(*points, strict=True)
            (handles[name],) = axis.plot(x, y, **style, markersize=6, linewidth=1, alpha=0.9)
            handles[name].set_markevery([0])
            for i, (cost, share) in enumerate(points):
                axis.plot([cost], [share], **{**style, "linestyle": ""}, markersize=6 + 2.5 * i, alpha=0.9)
        axis.set_title(heading, fontsize=10)
        axis.set(xscale="log", ylim=(-0.05, 1.05))
        axis.grid(alpha=0.25, linewidth=0.6)
    axes[0][0].set_ylabel(ylabel)
    return _add_labels(figure, axes, xlabel, title, handles)


def landscapes(panels: Sequence[Sequence[Plane | None]], *, title: str = "") -> Figure:
    """Draw planes: regions in pale colours, heights as contours, and patterns, limits and paths on them.

    Parameters
    ----------
    panels : sequence of sequence of Plane or None
        The grid of axes, row by row, all rows of one length; None leaves one empty.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot; `save` writes it.

    Raises
    ------
    ValueError
        If there is nothing to draw, or the rows differ in length.

    See Also
    --------
    Plane : Describe what is drawn on one axes.
    save : Write the figure.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1.0, 1.0, 5)
    >>> patterns = np.array([[-0.5, 0.0], [0.5, 0.0]])
    >>> plane = Plane("nearest", x, x, np.tile((x > 0).astype(np.int64), (5, 1)), patterns, patterns)
    >>> figure = landscapes([[plane, None]])
    >>> [axis.get_title() for axis in figure.axes], figure.axes[1].axison
    (['nearest', ''], False)
    """
    to_rgb = require("matplotlib.colors", purpose="drawing figures").to_rgb
    tints, greys = (np.array([to_rgb(colour) for colour in colours]) for colours in (TINTS, GREYS))
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 181))
    height, width = _grid_shape("panels", panels)
    figure = empty_figure((max(4.6, 0.4 + 2.5 * width), 1.0 + 2.6 * height), gap=0.03)
    axes = figure.subplots(height, width, squeeze=False)
    handles: dict[str, Any] = {}
    for axis, plane in zip(axes.flat, (plane for row in panels for plane in row), strict=True):
        if plane is None:
            axis.set_axis_off()
            continue
        count, regions = len(plane.patterns), plane.regions
        named = (regions < count)[..., None]
        colours = np.where(named, tints[regions % len(tints)], greys[(regions - count) % len(greys)])
        colours[regions < 0] = 1.0
        half = (plane.x[1] - plane.x[0]) / 2, (plane.y[1] - plane.y[0]) / 2
        frame = (plane.x[0] - half[0], plane.x[-1] + half[0], plane.y[0] - half[1], plane.y[-1] + half[1])
        axis.imshow(colours, origin="lower", extent=frame, interpolation="nearest")
        if plane.height is not None:  # levels at which equally many points of the grid lie between two
            levels = np.unique(np.quantile(plane.height, np.linspace(0.01, 0.97, 13)))
            axis.contour(
                plane.x, plane.y, plane.height, levels=levels, colors="#777777", linewidths=0.5, linestyles="solid"
            )
        for path in plane.paths:
            (handles["retrieval"],) = axis.plot(*path.T, color="#222222", linewidth=0.8, marker=".", markersize=3)
        for centre, radius in zip(plane.patterns, () if plane.radii is None else plane.radii, strict=False):
            if radius > 0:
                x, y = centre[0] + radius * circle.real, centre[1] + radius * circle.imag
                (handles["exact radius"],) = axis.plot(x, y, color="#D55E00", linestyle="--", linewidth=1.1)
        handles["limit"] = axis.scatter(
            *plane.limits.T, s=52, marker="D", facecolors="white", edgecolors="black", linewidths=0.9, zorder=3
        )
        handles["pattern"] = axis.scatter(*plane.patterns.T, s=16, marker="o", color="#0072B2", zorder=4)
        axis.set(xlim=frame[:2], ylim=frame[2:])
        axis.set_title(plane.title, fontsize=10)
        axis.tick_params(labelsize=7)
    return _add_labels(figure, axes, "", title, handles)


def intervals(
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    styles: Mapping[str, str],
    xlabel: str,
    title: str = "",
) -> Figure:
    """Draw numbers with their spread, one below the other.

    Parameters
    ----------
    panels : mapping of str to mapping
        Of each axes, by its title: the numbers by their names, (mean, spread), nan for an unknown spread.
    styles : mapping of str to str
        Which of the names are drawn in a model's colour; all others are grey.
    xlabel : str
        The label of the numbers.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    _check_not_empty("panels", panels, *panels.values())
    names = list(dict.fromkeys(name for points in panels.values() for name in points))
    figure = empty_figure((max(4.6, 2.2 + 2.6 * len(panels)), 1.2 + 0.25 * len(names)))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for axis, (heading, points) in zip(axes[0], panels.items(), strict=True):
        for name, (mean, spread) in points.items():
            style = STYLES[styles.get(name, "mean")]
            at = names.index(name)
            axis.errorbar(mean, at, xerr=np.nan_to_num(spread), color=style["color"], marker=style["marker"] or "o")
        axis.set(title=heading, yticks=range(len(names)), yticklabels=names)
        axis.grid(alpha=0.25, linewidth=0.6)
    axes[0][0].invert_yaxis()
    return _add_labels(figure, axes, xlabel, title, {})


def weights(
    scores: NDArray[np.float64], heights: NDArray[Any], threshold: float | None, miss: float | None = None
) -> Figure:
    """Draw the weights of one association at the scores that they belong to.

    Parameters
    ----------
    scores, heights : ndarray of shape (k,)
        Scores and weights.
    threshold : float or None
        Where weights begin, if that is anywhere.
    miss : float or None
        The best score without weight, if there is one.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    figure = empty_figure((5.2, 3.0))
    axis = figure.subplots()
    axis.vlines(scores, 0, heights, color=STYLES["sparse"]["color"], linewidth=3, label="patterns with weight")
    axis.plot(scores, heights, "o", color=STYLES["sparse"]["color"], markersize=5)
    if threshold is not None:
        axis.axvline(threshold, color=STYLES["mean"]["color"], linestyle="--", linewidth=1.2, label="threshold")
    if miss is not None:
        axis.plot([miss], [0], "x", color=STYLES["dense"]["color"], label="best without weight", clip_on=False)
    axis.set(xlabel="score", ylabel="weight", ylim=(0, None))
    axis.grid(alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def certificates(
    numbers: Mapping[str, NDArray[np.float64]],
    betas: NDArray[np.float64],
    shares: Mapping[str, NDArray[np.float64]],
    beta: float,
    pictures: Pictures | None = None,
) -> Figure:
    """Draw what a memory stores: histograms of its patterns' numbers, and the share that is certified against beta.

    Parameters
    ----------
    numbers : mapping of str to ndarray
        By name, finite; any number of them, or none.
    betas : ndarray of shape (b,)
        Inverse temperatures.
    shares : mapping of str to ndarray of shape (b,)
        By similarity, three at most: shares between 0 and 1.
    beta : float
        The position of a line.
    pictures : Pictures, optional
        What to draw below.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    width, height = 3.4 * (len(numbers) + 1), 3.2
    above: Any  # a figure, or a part of one
    if pictures is None:
        figure = above = empty_figure((width, height))
    else:
        below = _size_in_inches(pictures)[1] + 0.3
        figure = empty_figure((width, height + below))
        parts: Any = figure.subfigures(2, 1, height_ratios=(height, below))
        above = parts[0]
        _draw_images(parts[1], pictures)
    *left, right = above.subplots(1, len(numbers) + 1, squeeze=False)[0]
    for axis, (name, values) in zip(left, numbers.items(), strict=True):
        axis.hist(values, bins=min(50, max(10, len(values) // 20)), color=STYLES["sparse"]["color"])
        axis.set(xlabel=name, ylabel="patterns")
        axis.grid(alpha=0.25, linewidth=0.6)
    for (name, share), style in zip(shares.items(), ("sparse", "dense", "polynomial"), strict=False):
        right.plot(betas, share, color=STYLES[style]["color"], linestyle=STYLES[style]["linestyle"], label=name)
    right.axvline(beta, color=STYLES["mean"]["color"], linewidth=1.2, label=f"beta {beta:.4g}")
    right.set(xscale="log", xlabel="beta", ylabel="share of patterns certified", ylim=(0, 1.02))
    right.grid(alpha=0.25, linewidth=0.6)
    above.legend(loc="outside lower center", ncols=len(shares) + 1, frameon=False, fontsize=9)
    return figure


def matrices(
    rows: Mapping[str, Mapping[str, NDArray[np.float64]]],
    *,
    across: Sequence[str],
    down: Sequence[str],
    title: str = "",
) -> Figure:
    """Draw weights of associations as cells, those that are exactly 0 in a colour of their own.

    Parameters
    ----------
    rows : mapping of str to mapping
        The matrices of each row of axes by the row's name, and in a row by their titles, as many in each row. Their
        shape is (len(down), len(across)), their weights are from 0 to 1.
    across, down : sequence of str
        What the columns and the rows of each matrix are called.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot; `save` writes it.

    Raises
    ------
    ValueError, TypeError
        If there is nothing to draw, a matrix does not fit the names of its columns and rows, or has other numbers.

    See Also
    --------
    sparsehopfield.inspect.plots.attention_map : Draw the heads of one layer, each on axes of its own.
    save : Write the figure.

    Examples
    --------
    >>> import numpy as np
    >>> weights = {"head 1": np.array([[1.0, 0.0], [0.5, 0.5]]), "head 2": np.eye(2)}
    >>> figure = matrices({"sparsemax": weights}, across=["a", "word"], down=["ein", "Wort"])
    >>> [axis.get_title() for axis in figure.axes]
    ['head 1', 'head 2']
    """
    height, width = _grid_shape("rows", [list(matrices) for matrices in rows.values()])
    _check_not_empty("across", across)
    _check_not_empty("down", down)
    cells = {
        (name, heading): _as_shaped(f"rows: {name!r}, {heading!r}, (down, across),", given, (len(down), len(across)))
        for name, named in rows.items()
        for heading, given in named.items()
    }
    for (name, heading), given in cells.items():
        if not ((given >= 0) & (given <= 1)).all():  # what is no number would look like a zero
            raise ValueError(f"rows: {name!r}, {heading!r}, must be weights from 0 to 1")
    colours = require("matplotlib", purpose="drawing figures").colormaps["Oranges"].with_extremes(bad="#CCCCCC")
    figure = empty_figure((1.6 + 0.17 * len(across) * width, 1.4 + 0.17 * len(down) * height))
    axes = figure.subplots(height, width, squeeze=False)
    for place, (line, (name, named)) in enumerate(zip(axes, rows.items(), strict=True)):
        for axis, heading in zip(line, named, strict=True):
            shown = np.ma.masked_equal(cells[name, heading], 0)
            axis.imshow(shown, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            axis.set_xticks(range(len(across)), across if place == height - 1 else [], fontsize=6, rotation=90)
            axis.set_yticks(range(len(down)), down if axis is line[0] else [], fontsize=6)
            axis.tick_params(length=0)
            if place == 0:
                axis.set_title(heading, fontsize=9)
        line[0].set_ylabel(name, fontsize=9)
    return _add_labels(figure, axes, "", title, {})


def image_grid(
    rows: Mapping[str, NDArray[Any]],
    shape: tuple[int, ...],
    *,
    columns: Sequence[str] = (),
    captions: Mapping[str, Sequence[str]] | None = None,
    title: str = "",
) -> Figure:
    """Draw rows of images: stored, damaged, and retrieved by each model; or the instances of bags.

    Parameters
    ----------
    rows : mapping of str to ndarray, shape (n, d)
        The rows of the grid by their names: n images, whose pixels are from 0 to 1. They may differ in n.
    shape : tuple of int
        Shape of one image: (height, width), (3, height, width) or (height, width, 3).
    columns : sequence of str
        Titles above the columns.
    captions : mapping of str to sequence of str, optional
        What is written below each image, by the name of its row.
    title : str
        Title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot; `save` writes it.

    Raises
    ------
    ValueError
        If there is nothing to draw, or the pixels of an image do not fit its shape.

    See Also
    --------
    save : Write the figure.
    sparsehopfield.data.datasets.ImageSet : Hold images, and their shape.

    Examples
    --------
    >>> import numpy as np
    >>> stored = np.eye(4)[:2]
    >>> figure = image_grid({"stored": stored, "damaged": 0.5 * stored}, (2, 2), columns=["first", "second"])
    >>> [axis.get_ylabel() for axis in figure.axes], figure.axes[2].images[0].get_array().tolist()
    (['stored', '', 'damaged', ''], [[0.5, 0.0], [0.0, 0.0]])
    """
    _check_not_empty("rows", rows, *rows.values())
    pictures = Pictures(rows, shape, columns, captions, title)
    figure = empty_figure(_size_in_inches(pictures), gap=0.02)
    _draw_images(figure, pictures)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> list[Path]:
    """Write a figure as PNG and as SVG, each as a whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    path : path
        Where, without an ending.

    Returns
    -------
    list of Path
        The two files, `path` with .png and with .svg behind it.

    Raises
    ------
    OSError
        If a file cannot be written.
    TypeError, ValueError
        If `path` is no path.

    See Also
    --------
    curves : Draw means with their spread.
    image_grid : Draw rows of images.

    Examples
    --------
    >>> import numpy as np
    >>> import tempfile
    >>> figure = image_grid({"": np.eye(4)[:1]}, (2, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in save(figure, f"{folder}/pixels")]
    ['pixels.png', 'pixels.svg']
    """
    matplotlib = require("matplotlib", purpose="drawing figures")
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": 150, "metadata": {"Software": None}},
        "svg": {"metadata": {"Date": None}},
    }
    files = [Path(f"{as_path(path)}.{kind}") for kind in options]
    with matplotlib.rc_context({"svg.hashsalt": "sparsehopfield", "svg.fonttype": "path"}):
        for name, kind in zip(files, options, strict=True):
            with atomic_write(name) as file:
                figure.savefig(file, format=kind, **options[kind])
    return files


def _check_not_empty(name: str, *parts: Sized) -> None:
    """Raise if one of the parts of an argument is empty."""
    if not all(map(len, parts)):
        raise ValueError(f"{name}: there is nothing to draw")


def _as_shaped(name: str, given: ArrayLike, *shapes: tuple[int, ...]) -> NDArray[np.float64]:
    """Return real numbers as float64; raise unless they have one of the shapes."""
    numbers = as_numbers(name, given).astype(np.float64)
    if numbers.shape not in shapes:
        raise ValueError(f"{name}: must have shape {' or '.join(map(str, shapes))}, got {numbers.shape}")
    return numbers


def _grid_shape(name: str, rows: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """Return the number of rows and of columns of a grid; raise unless its rows have one length."""
    _check_not_empty(name, rows, *rows)
    if len({*map(len, rows)}) > 1:
        raise ValueError(f"{name}: must be rows of one length, got {short([*map(len, rows)])}")
    return len(rows), len(rows[0])


def empty_figure(size: tuple[float, float], gap: float = 0.04, extra: str = "studies") -> Figure:
    """Return an empty figure; its size (width, height), and the gap between its parts, are in inches."""
    module = require("matplotlib.figure", purpose="drawing figures", extra=extra)
    engine = require("matplotlib.layout_engine", purpose="drawing figures", extra=extra).ConstrainedLayoutEngine
    figure: Figure = module.Figure(figsize=size, layout=engine(w_pad=gap, h_pad=gap))
    return figure


def _size_in_inches(pictures: Pictures) -> tuple[float, float]:
    """Return width and height of rows of images."""
    count = max(len(images) for images in pictures.rows.values())
    height = 1.05 if pictures.captions else 0.85
    return 1.3 + 0.85 * count, 0.4 + height * len(pictures.rows)


def _draw_images(figure: Any, pictures: Pictures) -> None:
    """Draw rows of images on a figure or a part of one."""
    count = max(len(images) for images in pictures.rows.values())
    axes = figure.subplots(len(pictures.rows), count, squeeze=False)
    for line, (name, images) in zip(axes, pictures.rows.items(), strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image_of_row(image, pictures.shape), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for axis, text in zip(line, (pictures.captions or {}).get(name, ()), strict=False):
            axis.set_xlabel(text, fontsize=8)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    for axis, text in zip(axes[0], pictures.columns, strict=False):
        axis.set_title(text, fontsize=9)
    if pictures.title:
        figure.suptitle(pictures.title, fontsize=11)


def _add_labels(
    figure: Figure, axes: Any, xlabel: str | Sequence[str], title: str, handles: Mapping[str, Any]
) -> Figure:
    """Add the labels of the horizontal axes, the title and a legend of `handles` to a figure, and return it."""
    for row, text in [(axes[-1], xlabel)] if isinstance(xlabel, str) else zip(axes, xlabel, strict=True):
        for axis in row if text else ():
            axis.set_xlabel(text)
    if title:
        figure.suptitle(title, fontsize=11)
    if handles:
        needed = sum(0.65 + 0.085 * len(label) for label in handles)  # inches, roughly
        rows = int(np.ceil(needed / figure.get_figwidth()))
        columns = -(-len(handles) // rows)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _label_log_axis(axis: Any, positions: Sequence[Sequence[float]]) -> None:
    """Label a logarithmic axis with the sizes that were run, or with powers of ten where these are many."""
    ticks = sorted({x for line in positions for x in line})
    axis.set_xscale("log")
    axis.minorticks_off()
    if len(ticks) > MOST_TICKS:
        ticks = [10.0**k for k in range(int(np.floor(np.log10(ticks[0]))), int(np.ceil(np.log10(ticks[-1]))) + 1)]
    axis.set_xticks(ticks, [f"{x:g}" for x in ticks], fontsize=8, rotation=45 if len(ticks) > 6 else 0)


def image_of_row(row: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a row of pixels as Matplotlib takes images: (height, width), or (height, width, 3)."""
    return np.clip(pixels_of_row(row, shape), 0, 1)


def pixels_of_row(row: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the numbers of a row at their places in the image, (height, width), or (height, width, 3)."""
    picture = np.reshape(row, shape)
    return np.moveaxis(picture, 0, -1) if picture.ndim == 3 and len(picture) == 3 else picture
