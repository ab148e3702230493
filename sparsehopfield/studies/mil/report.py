"""The report of the study of real bags: table 2 beside the paper's figures, and tests fold by fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from sparsehopfield._engine.dense import is_constant
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, join_numbers, wrap
from sparsehopfield.studies.mil.protocol import BASELINES, MODELS, NONE, Recipe

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
    "path-encoding": {
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


#: What stands below the table where files are not there.
ABSENT = "files not there; `load_mil` says where to get them"
TREC = "TREC9: read by load_mil, but not studied, as its features are sparse and the study's are dense."
SINGLE, TOGETHER = "single", "auc"


class Summary(Means):
    """The values by data set, recipe, layer, structure and model, all folds of all repeats together.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    descriptions : mapping of str to str
        What the data sets are.
    recipes : mapping of tuple of str to Recipe
        By recipe, layer, structure and model, what was searched.
    absent : sequence of str
        Data sets whose files are not there.

    Attributes
    ----------
    repeats, folds : int
        How often the bags were divided, and into how many parts.
    lines : list of (tuple of str, str)
        What has a row in the table: recipe, layer, structure and model, and the metric; ensembles last.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        descriptions: Mapping[str, str],
        recipes: Mapping[Key, Recipe],
        absent: Sequence[str] = (),
    ) -> None:
        super().__init__(rows, ("dataset", "recipe", "layer", "structure", "model"))
        self.descriptions, self.recipes, self.absent = descriptions, recipes, absent
        self.repeats, self.folds = (len({row[name] for row in rows}) for name in ("repeat", "fold"))
        self.datasets: list[str] = self.levels("dataset")
        measured: list[Key] = list(dict.fromkeys(key[1:] for key in self.keys))
        several = [line for line in measured if recipes[line].members > 1]
        self.lines = [(line, SINGLE) for line in measured] + [(line, TOGETHER) for line in several]

    def name(self, line: Key, metric: str = SINGLE) -> str:
        """Return the name of a row."""
        recipe, layer, structure, model = line
        if model in BASELINES:
            return model
        words = [model, recipe]
        if (layer, structure) != ("pooling", "all"):
            words += [layer, structure]
        return ", ".join([*words, f"ensemble of {self.recipes[line].members}" if metric == TOGETHER else "one network"])

    def of_repeats(self, key: Key, metric: str) -> tuple[float, float]:
        """Return mean and standard deviation of the repeats' means over folds."""
        means = self.values(key, metric).reshape(self.repeats, self.folds).mean(axis=1)
        return float(means.mean()), float(means.std(ddof=1)) if self.repeats > 1 else float("nan")

    def paired(self, dataset: str, first: tuple[Key, str], second: tuple[Key, str]) -> tuple[float, float, float]:
        """Compare two rows of the table fold by fold.

        Folds of several repeats share bags, which makes their differences look more certain than they are. Nadeau
        and Bengio's t-test ("Inference for the generalization error", 2003) corrects the variance for it.

        Returns
        -------
        difference, p, wilcoxon : float
            The mean of first - second, the corrected test's p, and for comparison that of Wilcoxon's test, which
            knows of no sharing.
        """
        one, other = (self.values((dataset, *line), metric) for line, metric in (first, second))
        ahead = one - other
        mean, variance = float(ahead.mean()), float(ahead.var(ddof=1))
        if is_constant(mean, variance**0.5, len(ahead)):
            return mean, 1.0 if mean == 0 else 0.0, 1.0 if mean == 0 else 0.0
        t = mean / (variance * (1 / len(ahead) + 1 / (self.folds - 1))) ** 0.5
        return mean, float(2 * stats.t.sf(abs(t), len(ahead) - 1)), float(stats.wilcoxon(ahead).pvalue)


def report_text(summary: Summary) -> str:
    """Write the results beside the paper's table."""
    parts = [
        f"Real bags: {summary.repeats} times {summary.folds}-fold cross-validation",
        "\n".join(wrap(f"{text}.") for text in summary.descriptions.values()),
        wrap(
            "Area under the ROC curve. Here: mean over all folds ± standard deviation over folds (and, in brackets, of "
            "the repeats' means). The paper does not say what its ± is; its other methods are quoted from Ramsauer et "
            "al. 'one network' is a single network; where several vote, the mean over these, each by itself, and the "
            "ensemble has a row of its own."
        ),
        _table(summary),
        *_comparisons(summary),
        bullets("What came out", _findings(summary)),
        *(_chosen(summary, line) for line in dict.fromkeys(line[:3] for line, _ in summary.lines if line[0] != NONE)),
    ]
    return "\n\n".join(part for part in parts if part)


def _table(summary: Summary) -> str:
    rows = [["method", *summary.datasets]]
    for method, values in PAPER.items():
        rows.append([f"{method}, the paper", *(_printed(values.get(name)) for name in summary.datasets)])
    for line, metric in summary.lines:
        measured = (_measured(summary, (name, *line), metric) for name in summary.datasets)
        rows.append([summary.name(line, metric), *measured])
    absent = [name for name in summary.absent if name not in summary.datasets]
    notes = [f"{', '.join(absent)}: {ABSENT}."] if absent else []
    notes.append(TREC)
    return "\n".join([f"Table 2: area under the ROC curve\n{aligned(rows)}", *map(wrap, notes)])


def _printed(value: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value[0]:.3f}" + ("" if np.isnan(value[1]) else f" ± {value[1]:.3f}")


def _measured(summary: Summary, key: Key, metric: str) -> str:
    spread = summary.of_repeats(key, metric)[1]
    return summary.text(key, metric, 1, 3) + ("" if np.isnan(spread) else f" ({spread:.3f})")


def _comparisons(summary: Summary) -> Iterator[str]:
    """Write a table of paired tests: every row less that of the first single sparse network, or else the first row."""
    line = next((line for line, _ in summary.lines if line[3] == "sparse"), summary.lines[0][0])
    others = [row for row in summary.lines if row != (line, SINGLE)]
    if not others:
        return
    rows = [[f"less {summary.name(line)}", *summary.datasets]]
    for other in others:
        tests = [summary.paired(name, other, (line, SINGLE)) for name in summary.datasets]
        rows.append([summary.name(*other), *(f"{ahead:+.3f}, p = {p:.2f}" for ahead, p, _ in tests)])
    count = len(others) * len(summary.datasets)
    yield (
        "Differences on the same folds, and p of the corrected resampled t-test\n"
        + aligned(rows)
        + "\n"
        + wrap(f"Of {count} such tests {count / 20:.1f} have p < 0.05 where nothing differs.")
    )


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for name in summary.datasets:
        best = max(summary.lines, key=lambda row: summary.mean((name, *row[0]), row[1]))
        value = summary.mean((name, *best[0]), best[1])
        above = [method for method, values in PAPER.items() if name in values and values[name][0] >= value]
        text = ", ".join(above) if above else "none of the paper's methods"
        yield f"{name}: best is {summary.name(*best)}, with {value:.3f}; printed as good or better: {text}."
    for line, metric in summary.lines:
        other = (*line[:3], "dense")
        if line[3] == "sparse" and summary.has((summary.datasets[0], *other)):
            for name in summary.datasets:
                ahead, p, wilcoxon = summary.paired(name, (line, metric), (other, metric))
                yield (
                    f"{name}, {summary.name(line, metric).removeprefix('sparse, ')}: sparse - dense {ahead:+.4f}, "
                    f"p = {p:.2f} by the corrected resampled t-test (Wilcoxon, which takes folds for independent: "
                    f"{wilcoxon:.2f})."
                )


def _chosen(summary: Summary, line: Key) -> str:
    """Write how often the search chose each value of each option that varies."""
    recipe = next(made for key, made in summary.recipes.items() if key[:3] == line)
    values = {option: list(dict.fromkeys(str(made[option]) for made in recipe.grid)) for option in recipe.grid[0]}
    keys = [key for key in summary.keys if key[1:4] == line]
    rows = [["option", "value", *(f"{key[0]}, {key[4]}" for key in keys)]]
    for option, several in values.items():
        for value in several if len(several) > 1 else ():
            fits = np.array([str(made[option]) == value for made in recipe.grid])
            counts = (str(fits[summary.values(key, "chosen").astype(int)].sum()) for key in keys)
            rows.append([option, value, *counts])
    rounds = f", in rounds of {join_numbers(recipe.rungs)} epochs" if recipe.rungs else ""
    name = summary.name((*line, next(iter(MODELS)))).partition(", ")[2].removesuffix(", one network")
    return f"Recipe {name}, {len(recipe.grid)} settings{rounds}: how often each value was chosen\n{aligned(rows)}"


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
        points |= {summary.name(*row): summary.of_repeats((name, *row[0]), row[1]) for row in summary.lines}
        panels[name] = points
    ours = {summary.name(*row): row[0][3] if row[0][3] in MODELS else "baseline" for row in summary.lines}
    return plotting.intervals(
        panels, styles=ours, xlabel="area under the ROC curve", title="multiple instance learning"
    )
