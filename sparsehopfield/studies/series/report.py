"""The report of the study of time series: a table a horizon, errors by horizon, and a forecast with its analogues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.data.series import Series
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.series.protocol import WINDOW, by_ridge, memory_of, ridge_of
from sparsehopfield.studies.series.task import Source, task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Analogues that are drawn.
SHOWN = 5
#: How models are drawn, one colour a model.
STYLES: dict[str, dict[str, Any]] = {
    "last": {"color": "#BBBBBB", "marker": ""},
    "seasonal": {"color": "#999999", "marker": ""},
    "mean day": {"color": "#777777", "marker": ""},
    "ridge": {"color": "#000000", "marker": "s"},
    "dlinear": {"color": "#E69F00", "marker": "v"},
    "nlinear": {"color": "#F0E442", "marker": "^"},
    "memory": {"color": "#0072B2", "marker": "o"},
    "residuals": {"color": "#56B4E9", "marker": "P"},
    "blend": {"color": "#009E73", "marker": "D"},
    "network": {"color": "#D55E00", "marker": "X"},
}
DASHES = {"-": "-", "softmax": "-", "sparsemax": "--", "entmax15": ":"}


class Summary(Means):
    """The values by horizon, model, map and structure.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    series : Series
        What was forecast.
    epochs : int
        How long networks were trained.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], series: Series, epochs: int) -> None:
        super().__init__(rows, ("horizon", "model", "map", "structure"))
        self.series, self.epochs = series, epochs
        self.runs = len({row["run"] for row in rows})
        self.horizons = self.levels("horizon")

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        train, validation, test = self.series.parts
        return f"{self.series.name}: {len(self.series.columns)} columns, {train}, {validation} and {test} rows"

    def name(self, key: Key) -> str:
        """Return a model's name, with its map and structure."""
        _, model, separation, structure = key
        words = [model, *(word for word in (separation, structure) if word not in ("-", "all"))]
        return " ".join(words)


def figure(summary: Summary) -> Figure:
    """Draw the mean squared error by horizon, one line a model.

    Returns
    -------
    matplotlib.figure.Figure
        One axes.
    """
    kinds = list(dict.fromkeys(key[1:] for key in summary.keys))
    lines = []
    for kind in kinds:
        keys = [(horizon, *kind) for horizon in summary.horizons if summary.has((horizon, *kind))]
        style = STYLES[kind[0]] | {"linestyle": DASHES[kind[1]]}
        means, stds = ([value(key, "mse") for key in keys] for value in (summary.mean, summary.std))
        lines.append(plotting.Line(summary.name(keys[0]), [key[0] for key in keys], means, stds, style))
    panel = plotting.Panel("", lines, "mean squared error")
    return plotting.curves([[panel]], xlabel="rows to forecast", title=summary.heading, log=True)


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
        Two axes: the forecast; and the analogues, moved to where they would be, with their dates and weights.
    """
    task, memory = task_of(source, horizon), memory_of(source, horizon, separation, False)
    origin = int(task.origins("test")[len(task.origins("test")) // 2])
    column, shown = len(task.series.columns) - 1, range(origin - WINDOW, origin + horizon)
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
    past = []
    for number, (end, weight) in enumerate(zip(found.ends, found.weights, strict=True)):
        there = np.arange(end - WINDOW, end + horizon)
        style = {**plain, "color": f"C{number}", "linewidth": 1.0}
        label = f"{str(task.series.dates[end])[:16].replace('T', ' ')}: {weight:.3f}"
        past.append(plotting.Line(label, shown, series[there] - series[end - 1] + series[origin - 1], style=style))
    panels = [
        [plotting.Panel(f"{task.series.columns[column]} from {task.series.dates[origin]}", lines, "standard units")],
        [plotting.Panel(f"the {SHOWN} heaviest of {found.support_size} windows with weight", past, "moved")],
    ]
    return plotting.curves(panels, xlabel="row", title=task.series.name)


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    runs = f" Trained models: {summary.epochs} epochs, mean ± standard deviation over {summary.runs} seeds."
    parts = [
        summary.heading[0].upper() + summary.heading[1:],
        wrap(
            "Mean squared and absolute errors of standardised columns, over all windows of the part to test with (no "
            "batch is dropped). against ridge: the squared error over ridge's, less 1, with the 2.5 and 97.5 % "
            "quantiles of a bootstrap of weeks; support: windows with weight."
            + runs
            * any(key[1] in ("dlinear", "nlinear", "network") for key in summary.keys)
        ),
        *(_table(summary, horizon) for horizon in summary.horizons),
        bullets("What came out", _findings(summary)),
    ]
    return "\n\n".join(parts)


def _table(summary: Summary, horizon: int) -> str:
    lines = [["model", "squared", "absolute", "against ridge", "", "support"]]
    for key in summary.keys:
        if key[0] != horizon:
            continue
        against, least, most = (100 * summary.mean(key, name) for name in ("against ridge", "least", "most"))
        support = summary.mean(key, "support")
        lines.append(
            [
                summary.name(key),
                *(summary.text(key, metric, 1, 4) for metric in ("mse", "mae")),
                f"{against:+.1f} %",
                f"[{least:+.1f}, {most:+.1f}]",
                "" if np.isnan(support) else f"{support:.0f}",
            ]
        )
    return f"{horizon} rows ahead\n{aligned(lines)}"


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for horizon in summary.horizons:
        keys = [key for key in summary.keys if key[0] == horizon]
        best = min(keys, key=lambda key: summary.mean(key, "mse"))
        yield f"{horizon} rows ahead, least squared error: {summary.name(best)}, {summary.text(best, 'mse', 1, 4)}."
        for model in dict.fromkeys(key[1] for key in keys if key[2] != "-"):
            dense = [key for key in keys if key[1:3] == (model, "softmax")]
            for one in dense:
                for key in keys:
                    if key[1] == model and key[3] == one[3] and key != one:
                        yield _pair(summary, key, one)


def _pair(summary: Summary, sparse: Key, dense: Key) -> str:
    """Write how a sparse map compares with softmax in the same model."""
    lead, error = summary.lead(sparse, dense, "mse")
    share = 100 * lead / summary.mean(dense, "mse")
    spread = "" if np.isnan(error) else f" ± {100 * error / summary.mean(dense, 'mse'):.1f}"
    return f"{sparse[0]} rows ahead, {summary.name(sparse)} against softmax: {share:+.1f}{spread} % squared error."
