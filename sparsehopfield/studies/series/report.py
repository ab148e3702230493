"""The report of the study of time series: a table a horizon, errors by horizon, and a forecast with its analogues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned, count
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.series.protocol import (
    BATCHES,
    BETAS,
    BLOCKS,
    DENSE,
    MAPPED,
    MODELS,
    PAIRED,
    SHARE,
    TRAINED,
    at_beta,
    by_ridge,
    dropping,
    memory_of,
    ridge_of,
)
from sparsehopfield.studies.series.task import Floats, Source, Task, task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Analogues that are drawn.
SHOWN = 5
#: How lines are drawn: models without a map, and maps.
STYLES: dict[str, dict[str, Any]] = {
    "last": {"color": "#BBBBBB", "marker": ""},
    "seasonal": {"color": "#BBBBBB", "marker": "", "linestyle": "--"},
    "seasonal mean": {"color": "#999999", "marker": ""},
    "ridge": {"color": "#000000", "marker": "s"},
    "dlinear": {"color": "#E69F00", "marker": "v"},
    "nlinear": {"color": "#009E73", "marker": "^"},
    "softmax": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "sparsemax": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "entmax15": {"color": "#CC79A7", "marker": "D", "linestyle": "-."},
}
LINEAR = ("dlinear", "nlinear")


class Summary(Means):
    """The values by horizon, model, map and structure.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    task : Task
        What was forecast, at any horizon.
    epochs : int
        How long networks were trained.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], task: Task, epochs: int) -> None:
        super().__init__(rows, ("horizon", "model", "map", "structure"))
        self.keys.sort(key=lambda key: MODELS.index(key[1]))  # in the table models of one map stand side by side
        self.task, self.epochs = task, epochs
        self.runs = len({row["run"] for row in rows})
        self.horizons = self.levels("horizon")

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        series, season = self.task.series, self.task.season
        train, validation, test = series.parts
        return (
            f"{series.name}: {len(series.columns)} columns, {train}, {validation} and {test} rows, "
            f"{'no season' if season == 1 else f'a season of {season} rows'}, a look-back of {self.task.look_back}"
        )

    def blocks(self, horizon: int) -> str:
        """Write what intervals at a horizon are drawn from, or that there are none."""
        task = replace(self.task, horizon=horizon)
        blocks = count(len(task.origins("test")) // task.block, "block") + f" of {task.block} windows"
        has = len(task.origins("test")) >= BLOCKS * task.block
        return f"intervals from {blocks}" if has else f"no intervals: {blocks}, fewer than {BLOCKS}"

    def name(self, key: Key) -> str:
        """Return a model's name, with its map and structure."""
        _, model, separation, structure = key
        words = [model, *(word for word in (separation, structure) if word not in ("-", "all"))]
        return " ".join(words)


def figures(summary: Summary, name: str) -> dict[str, Figure]:
    """Draw what the table has, each figure by its file's name without an ending."""
    drawn = {name: errors_figure(summary)}
    if any(key[1] == "memory" for key in summary.keys):
        drawn[f"{name}-beta"] = betas_figure(summary)
    if any(key[1] == "ridge" for key in summary.keys):
        drawn[f"{name}-dropped"] = dropped_figure(summary)
    return drawn


def errors_figure(summary: Summary) -> Figure:
    """Draw the mean squared error by horizon, and how far it is from ridge's, with intervals, one line a map.

    Returns
    -------
    matplotlib.figure.Figure
        Two rows of axes, one column a model; ridge is in all, and the mean of seasons in the upper row.
    """
    kinds = list(dict.fromkeys(key[1:] for key in summary.keys))
    columns = {
        model: [kind for kind in kinds if kind[0] == model]
        for model in MAPPED
        if any(kind[0] == model for kind in kinds)
    }
    if linear := [kind for kind in kinds if kind[0] in LINEAR]:
        columns["linear networks"] = linear
    beside = [kind for kind in kinds if kind[0] in ("ridge", "seasonal mean") or not columns]
    errors, ratios = [], []
    for title, own in (columns or {"baselines": []}).items():
        lines = [(kind, _line(summary, kind)) for kind in beside + own]
        errors.append(plotting.Panel(title, [error for _, (error, _) in lines], "mean squared error"))
        near = [ratio for kind, (_, ratio) in lines if kind[0] not in ("last", "seasonal", "seasonal mean")]
        ratios.append(plotting.Panel("", near, "more than ridge's, %"))
    rows = [errors, ratios] if all(panel.lines for panel in ratios) else [errors]
    return plotting.curves(rows, xlabel="rows to forecast", title=summary.task.series.name, log=True)


def _line(summary: Summary, kind: Key) -> tuple[plotting.Line, plotting.Line]:
    """Return two lines by horizon of a model: its error with the deviation over seeds, its ratio with the interval."""
    model, separation, structure = kind
    keys = [(horizon, *kind) for horizon in summary.horizons if summary.has((horizon, *kind))]
    x = [key[0] for key in keys]
    name = model if separation == "-" else separation
    style, label = STYLES[name], name
    if structure not in ("-", "all"):
        style, label = style | {"linestyle": ":", "markerfacecolor": "white"}, f"{name} {structure}"
    means, stds = ([value(key, "mse") for key in keys] for value in (summary.mean, summary.std))
    middle, least, most = (
        np.array([100 * summary.mean(key, metric) for key in keys]) for metric in ("against ridge", "least", "most")
    )
    band = np.stack([middle - least, most - middle])
    return plotting.Line(label, x, means, stds, style), plotting.Line(label, x, middle, band, style)


def betas_figure(summary: Summary) -> Figure:
    """Draw the memory's error and support on the part to validate with by beta, at the first horizon, one line a map.

    Returns
    -------
    matplotlib.figure.Figure
        Two axes, one above the other.
    """
    horizon = summary.horizons[0]
    panels = []
    for metric, text in (("mse", "mean squared error"), ("support", "windows with weight")):
        lines = []
        for separation in summary.levels("map", horizon=horizon, model="memory"):
            betas, key = BETAS[separation], (horizon, "memory", separation, "-")
            values = [summary.mean(key, at_beta(metric, beta)) for beta in betas]
            lines.append(plotting.Line(separation, betas, values, style=STYLES[separation]))
        panels.append([plotting.Panel("", lines, text)])
    title = f"{horizon} rows ahead, part to validate with"
    figure = plotting.curves(panels, xlabel="beta", title=title, log=True)
    figure.axes[1].set_yscale("log")
    return figure


def dropped_figure(summary: Summary) -> Figure:
    """Draw what ridge's error becomes when the last batch of windows is dropped where it is not whole.

    Returns
    -------
    matplotlib.figure.Figure
        One axes a horizon.
    """
    panels = {}
    for horizon in summary.horizons:
        key = (horizon, "ridge", "-", "-")
        numbers = {"all windows": (summary.mean(key, "mse"), np.nan)}
        numbers |= {f"batches of {batch}": (summary.mean(key, dropping(batch)), np.nan) for batch in BATCHES}
        panels[f"{horizon} rows ahead"] = numbers
    return plotting.intervals(panels, styles={"all windows": "sparse"}, xlabel="ridge's squared error")


def analogues_figure(source: Source, horizon: int, separation: str) -> Figure:
    """Draw a forecast of the last column beside what came and ridge's, and the windows that it is a mixture of.

    Parameters
    ----------
    source : Source
        Where the series comes from.
    horizon : int
    separation : str
        The map of the memory.

    Returns
    -------
    matplotlib.figure.Figure
        Two axes: the forecast; and the analogues, with dates and weights, moved and scaled as the memory sees them.
    """
    task, tuned = task_of(source, horizon), memory_of(source, horizon, separation)
    memory = tuned.model
    origin = int(task.origins("test")[len(task.origins("test")) // 2])
    column, shown = len(task.series.columns) - 1, range(origin - task.window, origin + horizon)
    ahead = range(origin, origin + horizon)
    series = task.values[:, column]
    forecast = memory.predict_at(task.values, [origin])[0, :, column]
    ridge = by_ridge(ridge_of(source, horizon), task, np.array([origin]))[0, :, column]
    plain = {"marker": ""}
    lines = [
        plotting.Line("what came", shown, series[shown], style={**plain, "color": "#000000"}),
        plotting.Line("ridge", ahead, ridge, style={**plain, "color": "#D55E00", "linestyle": "--"}),
        plotting.Line(f"memory, {separation}", ahead, forecast, style={**plain, "color": "#0072B2"}),
    ]
    found = memory.analogues(task.values, origin, top=SHOWN)[column]
    own_middle, own_unit = _unit(series[origin - task.window : origin], tuned.floor)
    past = [plotting.Line("what came", shown[: task.window], series[shown[: task.window]], style=lines[0].style)]
    for number, (end, weight) in enumerate(zip(found.ends, found.weights, strict=True)):
        there = np.arange(end - task.window, end + horizon)
        style = {**plain, "color": f"C{number}", "linewidth": 1.0}
        label = f"{str(task.series.dates[end])[:16].replace('T', ' ')}: {weight:.3f}"
        middle, unit = _unit(series[end - task.window : end], tuned.floor)
        past.append(plotting.Line(label, shown, own_middle + (series[there] - middle) / unit * own_unit, style=style))
    shown_of = min(SHOWN, found.support_size)
    panels = [
        [plotting.Panel(f"{task.series.columns[column]} from {task.series.dates[origin]}", lines, "standard units")],
        [
            plotting.Panel(
                f"the {shown_of} heaviest of {found.support_size} windows with weight", past, "in units of this window"
            )
        ],
    ]
    return plotting.curves(panels, xlabel="row", title=task.series.name)


def _unit(window: Floats, floor: float) -> tuple[float, float]:
    """Return the mean and the unit of a window, as the memory has them."""
    return float(window.mean()), float((window.var() + floor**2) ** 0.5)


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    trained = any(key[1] in TRAINED for key in summary.keys)
    seeds = f"mean ± standard deviation over {summary.runs} seeds" if summary.runs > 1 else "one seed"
    runs = f" Trained models: {summary.epochs} epochs, {seeds}."
    parts = [
        summary.heading[0].upper() + summary.heading[1:],
        wrap(
            "Mean squared and absolute errors of standardised columns, over all windows of the part to test with (no "
            "batch is dropped). against ridge: the squared error over ridge's, less 1, with the 2.5 and 97.5 % "
            "quantiles of a bootstrap of blocks of windows, none shorter than the horizon, and a dash where there are "
            f"fewer than {BLOCKS} blocks; share: the memory's in the blend; support: windows with weight, and of a "
            "network's associations patches." + runs * trained
        ),
        *(_table(summary, horizon) for horizon in summary.horizons),
        bullets("What came out", findings(summary)),
    ]
    return "\n\n".join(parts)


def _table(summary: Summary, horizon: int) -> str:
    lines = [["model", "squared", "absolute", "against ridge", "", "share", "support"]]
    for key in summary.keys:
        if key[0] != horizon:
            continue
        against, least, most = (100 * summary.mean(key, name) for name in ("against ridge", "least", "most"))
        support = summary.mean(key, "support")
        share = summary.mean(key, SHARE) if summary.knows(key, SHARE) else np.nan
        lines.append(
            [
                summary.name(key),
                *(summary.text(key, metric, 1, 4) for metric in ("mse", "mae")),
                f"{against:+.1f} %",
                _interval(least, most),
                "" if np.isnan(share) else f"{share:.2f}",
                "" if np.isnan(support) else f"{support:.0f}",
            ]
        )
    return f"{horizon} rows ahead, {summary.blocks(horizon)}\n{aligned(lines)}"


def _interval(least: float, most: float) -> str:
    """Write an interval in per cent; a dash where there is none."""
    return "-" if np.isnan(least) else f"[{least:+.1f}, {most:+.1f}]"


def findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for horizon in summary.horizons:
        keys = [key for key in summary.keys if key[0] == horizon]
        best = min(keys, key=lambda key: summary.mean(key, "mse"))
        yield f"{horizon} rows ahead, least squared error: {summary.name(best)}, {summary.text(best, 'mse', 1, 4)}."
        for sparse in keys:
            dense = (horizon, sparse[1], DENSE, sparse[3])
            if sparse[2] not in ("-", DENSE) and summary.has(dense):
                yield _pair(summary, sparse, dense)
    for horizon in summary.horizons:
        if summary.has(ridge := (horizon, "ridge", "-", "-")):
            whole, lost = summary.mean(ridge, "mse"), {batch: summary.mean(ridge, dropping(batch)) for batch in BATCHES}
            errors = [f"{error:.4f} (batches of {batch})" for batch, error in lost.items() if np.isfinite(error)]
            if errors:
                yield (
                    f"{horizon} rows ahead, ridge's squared error, {whole:.4f}, would be {', '.join(errors)} if the "
                    "last batch of windows were dropped where it is not whole."
                )


def _pair(summary: Summary, sparse: Key, dense: Key) -> str:
    """Write how a sparse map compares with softmax in the same model, of the same windows or the same seeds."""
    words = f"{sparse[0]} rows ahead, {summary.name(sparse)} against softmax:"
    if summary.knows(sparse, PAIRED[0]):
        share, least, most = (100 * summary.mean(sparse, metric) for metric in PAIRED)
        interval = "" if np.isnan(least) else f" {_interval(least, most)}"
        return f"{words} {share:+.1f} %{interval} squared error{'' if interval else ', no interval'}."
    lead, error = summary.lead(sparse, dense, "mse")
    scale = 100 / summary.mean(dense, "mse")
    if np.isnan(error):
        return f"{words} {scale * lead:+.1f} % squared error, one seed."
    seeds = len(summary.values(sparse, "mse"))
    return f"{words} {scale * lead:+.1f} ± {scale * error:.1f} % squared error, in pairs of {seeds} seeds."
