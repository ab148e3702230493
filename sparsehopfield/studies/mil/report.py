"""The report of the study of real bags: table 2 with the paper's methods beside, and tests fold by fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from sparsehopfield._engine.dense import is_constant
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.mil.protocol import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Table 2 of the paper: AUC and what it has after the ±, where it has that.
PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "dense Hopfield": {
        "tiger": (0.878, 0.028),
        "fox": (0.600, 0.011),
        "elephant": (0.907, 0.022),
        "ucsb": (0.880, 0.013),
    },
    "sparse Hopfield": {
        "tiger": (0.892, 0.021),
        "fox": (0.611, 0.010),
        "elephant": (0.912, 0.016),
        "ucsb": (0.877, 0.009),
    },
    "path encoding": {
        "tiger": (0.910, 0.010),
        "fox": (0.712, 0.014),
        "elephant": (0.944, 0.007),
        "ucsb": (0.880, 0.022),
    },
    "MInD": {"tiger": (0.853, 0.011), "fox": (0.704, 0.016), "elephant": (0.936, 0.009), "ucsb": (0.831, 0.027)},
    "MILES": {"tiger": (0.872, 0.017), "fox": (0.738, 0.016), "elephant": (0.927, 0.007), "ucsb": (0.833, 0.026)},
    "APR": {"tiger": (0.778, 0.007), "fox": (0.541, 0.009), "elephant": (0.550, 0.010)},
    "citation-kNN": {
        "tiger": (0.855, 0.009),
        "fox": (0.635, 0.015),
        "elephant": (0.896, 0.009),
        "ucsb": (0.706, 0.032),
    },
    "DD": {"tiger": (0.841, float("nan")), "fox": (0.631, float("nan")), "elephant": (0.907, float("nan"))},
}


class Summary(Means):
    """The values by data set, recipe and model, all folds of all repeats together.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    descriptions : mapping of str to str
        What the data sets are.

    Attributes
    ----------
    repeats, folds : int
        How often the bags were divided, and into how many parts.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], descriptions: Mapping[str, str]) -> None:
        super().__init__(rows, ("dataset", "recipe", "model"))
        self.descriptions = descriptions
        self.repeats, self.folds = (len({row[name] for row in rows}) for name in ("repeat", "fold"))
        self.datasets: list[str] = self.levels("dataset")
        self.lines: list[Key] = list(dict.fromkeys(key[1:] for key in self.keys))

    def of_repeats(self, key: Key, metric: str) -> tuple[float, float]:
        """Return mean and standard deviation of the repeats' means over folds."""
        means = self.values(key, metric).reshape(self.repeats, self.folds).mean(axis=1)
        return float(means.mean()), float(means.std(ddof=1)) if self.repeats > 1 else float("nan")

    def paired(self, dataset: str, recipe: str) -> tuple[float, float, float]:
        """Compare sparse with dense fold by fold.

        Folds of several repeats share bags, which makes their differences look more certain than they are. Nadeau
        and Bengio's t-test ("Inference for the generalization error", 2003) corrects the variance for it.

        Returns
        -------
        difference, p, wilcoxon : float
            The mean of sparse - dense, the corrected test's p, and for comparison that of Wilcoxon's test, which
            knows of no sharing.
        """
        sparse, dense = (self.values((dataset, recipe, model), "auc") for model in ("sparse", "dense"))
        ahead = sparse - dense
        mean, variance = float(ahead.mean()), float(ahead.var(ddof=1))
        if is_constant(mean, variance**0.5, len(ahead)):
            return mean, 1.0 if mean == 0 else 0.0, 1.0 if mean == 0 else 0.0
        t = mean / (variance * (1 / len(ahead) + 1 / (self.folds - 1))) ** 0.5
        return mean, float(2 * stats.t.sf(abs(t), len(ahead) - 1)), float(stats.wilcoxon(ahead).pvalue)


def report_text(summary: Summary, recipes: Mapping[str, Recipe]) -> str:
    """Write the results beside the paper's table."""
    parts = [
        f"Real bags: {summary.repeats} times {summary.folds}-fold cross-validation",
        "\n".join(wrap(f"{text}.") for text in summary.descriptions.values()),
        wrap(
            "Area under the ROC curve. Here: mean over all folds ± standard deviation over folds (and, in brackets, of "
            "the repeats' means). The paper does not say what its ± is; its other methods are quoted from Ramsauer et "
            "al. 'one network' is the mean over the networks that vote, each by itself."
        ),
        _table(summary, recipes),
        bullets("What came out", _findings(summary)),
        "\n\n".join(_chosen(summary, name, recipe) for name, recipe in recipes.items()),
    ]
    return "\n\n".join(parts)


def _table(summary: Summary, recipes: Mapping[str, Recipe]) -> str:
    lines = [["method", *summary.datasets]]
    for method, values in PAPER.items():
        lines.append([f"{method}, the paper", *(_printed(values.get(name)) for name in summary.datasets)])
    for recipe, model in summary.lines:
        keys = [(name, recipe, model) for name in summary.datasets]
        lines.append([f"{model}, {recipe}", *(_measured(summary, key, "auc") for key in keys)])
        if recipes[recipe].members > 1:
            lines.append([f"{model}, {recipe}, one network", *(_measured(summary, key, "single") for key in keys)])
    return f"Table 2: area under the ROC curve\n{aligned(lines)}"


def _printed(value: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value[0]:.3f}" + ("" if np.isnan(value[1]) else f" ± {value[1]:.3f}")


def _measured(summary: Summary, key: Key, metric: str) -> str:
    spread = summary.of_repeats(key, metric)[1]
    return summary.text(key, metric, 1, 3) + ("" if np.isnan(spread) else f" ({spread:.3f})")


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for name in summary.datasets:
        best = max(summary.lines, key=lambda line: summary.mean((name, *line), "auc"))
        value = summary.mean((name, *best), "auc")
        above = [method for method, values in PAPER.items() if name in values and values[name][0] >= value]
        text = ", ".join(above) if above else "none of the paper's methods"
        yield f"{name}: best is {best[1]}, recipe {best[0]}, with {value:.3f}; as good or better: {text}."
    for recipe in summary.levels("recipe"):
        if {"sparse", "dense"} <= set(summary.levels("model", recipe=recipe)):
            for name in summary.datasets:
                ahead, p, wilcoxon = summary.paired(name, recipe)
                yield (
                    f"{name}, recipe {recipe}: sparse - dense {ahead:+.4f}, p = {p:.2f} by the corrected resampled "
                    f"t-test (Wilcoxon, which takes folds for independent: {wilcoxon:.2f})."
                )


def _chosen(summary: Summary, name: str, recipe: Recipe) -> str:
    """Write which settings the inner search chose, and how often."""
    varied = [option for option in recipe.grid[0] if len({str(settings[option]) for settings in recipe.grid}) > 1]
    keys = [key for key in summary.keys if key[1] == name]
    counts = {key: np.bincount(summary.values(key, "chosen").astype(int), minlength=len(recipe.grid)) for key in keys}
    lines = [[*varied, *(f"{dataset}, {model}" for dataset, _, model in keys)]]
    for number, settings in enumerate(recipe.grid):
        lines.append([*(_short(settings[option]) for option in varied), *(str(counts[key][number]) for key in keys)])
    return f"Recipe {name}: how often the inner search chose each setting\n{aligned(lines)}"


def _short(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def figure(summary: Summary) -> Figure:
    """Draw the AUC of every method, ours with the standard deviation of the repeats' means.

    Returns
    -------
    matplotlib.figure.Figure
        One axes for each data set.
    """
    panels = {}
    for name in summary.datasets:
        points = {f"{method}, the paper": values[name] for method, values in PAPER.items() if name in values}
        points |= {f"{line[1]}, {line[0]}": summary.of_repeats((name, *line), "auc") for line in summary.lines}
        panels[name] = points
    ours = {f"{model}, {recipe}": model for recipe, model in summary.lines}
    return plotting.intervals(
        panels, styles=ours, xlabel="area under the ROC curve", title="multiple instance learning"
    )
