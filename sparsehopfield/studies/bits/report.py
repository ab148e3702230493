"""The report of the bit pattern study: the paper's tables with its numbers beside, curves, and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.arrivals import Arrivals, compare
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.bits.protocol import (
    CURVES,
    EVALUATION,
    FRESH,
    INNER,
    LEVELS,
    LOWEST,
    SELECTION,
    TARGETS,
    TRAIN,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Table 1 of the paper, accuracy of pooling in per cent: by bag size with one signal, and by share of signals in
#: bags of 200. (It has 99.76 % for one signal in a bag of 200 and 73.40 % for two.)
PAPER: dict[str, dict[str, dict[tuple[int, int], float]]] = {
    "size": {
        "sparse": {(20, 1): 100, (50, 1): 100, (100, 1): 100, (150, 1): 99.76, (200, 1): 99.76, (300, 1): 99.76},
        "dense": {(20, 1): 100, (50, 1): 100, (100, 1): 100, (150, 1): 76.44, (200, 1): 49.13, (300, 1): 52.88},
    },
    "share": {
        "sparse": {(200, 2): 73.40, (200, 10): 99.68, (200, 20): 100, (200, 40): 100, (200, 80): 100},
        "dense": {(200, 2): 49.20, (200, 10): 85.58, (200, 20): 100, (200, 40): 100, (200, 80): 99.68},
    },
}
#: What the paper's sparse model reaches with bags of 150 to 300.
GOAL = 0.9976
#: A difference is told where its p is below this.
TOLD = 0.05

Condition = tuple[int, int]


class Summary(Means):
    """The values by recipe, layer, part, size, signals and model.

    Parameters
    ----------
    rows : sequence of dict
        The table.
    seconds : sequence of dict
        More rows, whose metric is `seconds`: the processor time of one start of each run; nan where it is not known.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], seconds: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__([*rows, *seconds], ("recipe", "layer", "part", "size", "signals", "model"))
        self.panels: list[Key] = list(dict.fromkeys(key[:3] for key in self.keys))

    def runs(self, panel: Key) -> int:
        """Return the number of runs of each setting of a panel."""
        return len(self.values(next(key for key in self.keys if key[:3] == panel), "last"))

    def arrivals(self, key: Key, target: str, unit: str) -> Arrivals:
        """Return when the runs arrived at a target, in "epochs" or "seconds"."""
        at = self.values(key, f"epoch of {target}")
        ends = np.full_like(at, max(self.epochs(key)))
        scale = 1.0 if unit == "epochs" else self.values(key, "seconds") / ends
        return Arrivals(at * scale, ends * scale)

    def has_seconds(self, key: Key) -> bool:
        """Return whether the time of every run is known."""
        return self.knows(key, "seconds") and bool(np.isfinite(self.values(key, "seconds")).all())

    def conditions(self, panel: Key) -> list[Condition]:
        """Return the sizes and numbers of signals of a panel: of one recipe, layer and part."""
        return list(dict.fromkeys(key[3:5] for key in self.keys if key[:3] == panel))

    def models(self, panel: Key) -> list[str]:
        """Return the models that ran in a panel."""
        return list(dict.fromkeys(key[5] for key in self.keys if key[:3] == panel))

    def epochs(self, key: Key) -> list[int]:
        """Return the epochs of a learning curve."""
        return [int(metric.split()[-1]) for at, metric in self._values if at == key and metric.startswith(CURVES[0])]

    @staticmethod
    def accuracy_metric(condition: Condition) -> str:
        """Return the name of the accuracy on fresh bags of the condition that was trained on."""
        return f"fresh {condition[0]}/{condition[1]}"

    @staticmethod
    def axis(part: str, condition: Condition) -> str:
        """Return the place of a condition along the axis of its part."""
        return str(condition[0]) if part == "size" else f"{condition[1] / condition[0]:.0%}"


def report_text(summary: Summary) -> str:
    """Write the results beside the paper's numbers."""
    runs = ", ".join(f"{summary.runs(panel)} of {panel[0]}" for panel in {p[0]: p for p in summary.panels}.values())
    parts = [
        f"Bit patterns: runs of each setting: {runs}",
        wrap(
            f"Accuracy in per cent, mean ± standard deviation over runs. A run trains on {TRAIN} bags and keeps the "
            f"weights of the epoch that is best on {INNER} others. 'fresh' is their accuracy on {FRESH} bags drawn "
            f"afterwards. The others are on {EVALUATION} bags that are looked at after every epoch: 'chosen' with the "
            f"same weights, 'last' in the last epoch, which takes no labels but those trained on, 'best' in the epoch "
            f"that is best on these very bags, and 'batches' the same where each epoch's accuracy is the mean of "
            f"shuffled batches, one of them small. The released code reports the last of these; both flatter."
        ),
        wrap(
            f"Convergence: epochs until the loss on the {EVALUATION} bags is lowest, or their accuracy is first at "
            f"least {' or '.join(LEVELS)}. A run that does not arrive, or whose loss is lowest in its last epoch, is "
            f"taken for later than that (censored). Medians are Kaplan and Meier's; means are restricted to the time "
            f"that all runs had. p is of the paired test that changes the signs of differences between sparse and "
            f"dense in the same run; it is not corrected for the number of tests. Seconds are of one processor, for "
            f"training and for evaluation after every epoch, as many for each epoch of a run."
        ),
    ]
    for panel in summary.panels:
        parts += [_table(summary, panel), *_selection(summary, panel)]
        parts += [_convergence(summary, panel, target) for target in TARGETS]
        if len(summary.conditions(panel)) > 1:
            parts += [_shifted(summary, panel, model) for model in summary.models(panel)]
    return "\n\n".join([*parts, bullets("What came out", _findings(summary))])


def _table(summary: Summary, panel: Key) -> str:
    """Make one half of the paper's table 1."""
    recipe, layer, part = panel
    conditions = summary.conditions(panel)
    head = "bag size, one signal" if part == "size" else f"share of signals, bags of {conditions[0][0]}"
    lines = [["model", "", *(summary.axis(part, condition) for condition in conditions)]]
    for model in summary.models(panel):
        printed = PAPER[part][model] if layer == "pooling" else {}
        keys = [(*panel, *condition, model) for condition in conditions]
        if any(condition in printed for condition in conditions):
            lines.append([model, "paper", *(f"{printed[c]:.2f}" if c in printed else "" for c in conditions)])
        fresh = [summary.text(key, summary.accuracy_metric(c)) for key, c in zip(keys, conditions, strict=True)]
        lines.append([model, "fresh", *fresh])
        for metric in ("chosen", "last", "best", "batches"):
            lines.append([model, metric, *(summary.text(key, metric) for key in keys)])
    return f"Table 1, {layer}, recipe {recipe}: by {head}\n{aligned(lines)}"


def _selection(summary: Summary, panel: Key) -> Iterator[str]:
    """Make a table of what the choice among starts adds, and the labels that it takes, for recipes that choose."""
    recipe, layer, part = panel
    conditions = summary.conditions(panel)
    lines = [["model", "starts", "chosen by", "labels", *(summary.axis(part, c) for c in conditions)]]
    for model in summary.models(panel):
        keys = [(*panel, *condition, model) for condition in conditions]
        if not summary.knows(keys[0], SELECTION[0]):
            continue
        for starts, choice, labels, metric in (
            ("one", "nothing, last epoch", TRAIN, "first last"),
            ("one", f"nothing, the {INNER} are trained on, too", TRAIN + INNER, "all last"),
            ("one", f"epoch, by {INNER}", TRAIN + INNER, "first chosen"),
            ("several", f"start and epoch, by {INNER}", TRAIN + INNER, "chosen"),
        ):
            lines.append([model, starts, choice, str(labels), *(summary.text(key, metric) for key in keys)])
        lines.append([model, "trained", "", "", *(summary.text(key, "starts", 1, 1) for key in keys)])
    if len(lines) > 1:
        what = "bag size" if part == "size" else "share of signals"
        yield f"Selection, {layer}, recipe {recipe}: accuracy on the {EVALUATION} bags by {what}\n{aligned(lines)}"


def _convergence(summary: Summary, panel: Key, target: str) -> str:
    """Make a table of how soon the runs of a panel arrive at a target."""
    recipe, layer, part = panel
    models = summary.models(panel)
    both = {"sparse", "dense"} <= set(models)
    head = ["bag size" if part == "size" else "signals"]
    head += [text for model in models for text in (f"{model}: arrived", "median", "mean")]
    head += ["sparse - dense", "p"] * both
    head += [f"seconds: {model}" if i == 0 else model for i, model in enumerate(models)]
    lines = [head + ["sparse - dense", "p"] * both]
    for condition in summary.conditions(panel):
        keys = [(*panel, *condition, model) for model in models]
        line = [summary.axis(part, condition)]
        for unit, digits in (("epochs", 0), ("seconds", 2)):
            if unit == "seconds" and not all(map(summary.has_seconds, keys)):
                continue
            arrivals = {model: summary.arrivals(key, target, unit) for model, key in zip(models, keys, strict=True)}
            end = min(float(a.ends.min()) for a in arrivals.values())
            for times in arrivals.values():
                mean = f"{times.mean(end):.{digits}f}"
                middle = times.median()
                median = f"{middle:.{digits}f}" if np.isfinite(middle) else f"> {times.ends.max():.{digits}f}"
                line += [f"{times.count} of {len(times.times)}", median, mean] if unit == "epochs" else [mean]
            if both:
                difference, p = compare(arrivals["sparse"], arrivals["dense"], end)
                line += [f"{difference:+.{digits}f}", f"{p:.4f}"]
        lines.append(line + [""] * (len(lines[0]) - len(line)))
    what = "the lowest loss" if target == LOWEST else f"{target} accuracy"
    return f"Convergence, {layer}, recipe {recipe}: epochs to {what}\n{aligned(lines)}"


def _shifted(summary: Summary, panel: Key, model: str) -> str:
    """Make the paper's table 3, and the same for bag sizes: trained in one condition, tested in another."""
    recipe, layer, part = panel
    conditions = summary.conditions(panel)
    lines = [["trained at", *(summary.axis(part, condition) for condition in conditions)]]
    for condition in conditions:
        key = (*panel, *condition, model)
        lines.append(
            [summary.axis(part, condition), *(summary.text(key, summary.accuracy_metric(test)) for test in conditions)]
        )
    what = "bag size" if part == "size" else "share of signals"
    return f"Table 3, {layer}, recipe {recipe}, {model}: trained at one {what}, tested at another\n{aligned(lines)}"


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for panel in summary.panels:
        recipe, layer, part = panel
        conditions, models = summary.conditions(panel), summary.models(panel)
        where = f"{layer}, recipe {recipe}, {'bag sizes' if part == 'size' else 'shares of signals'}"
        for model in models:
            good = [c for c in conditions if summary.mean((*panel, *c, model), summary.accuracy_metric(c)) >= GOAL]
            names = ", ".join(summary.axis(part, c) for c in good) or "none"
            yield f"{where}: {model} reaches {GOAL:.2%} on average at: {names}."
        if {"sparse", "dense"} <= set(models):
            yield f"{where}: sparse - dense on fresh bags: {_race(summary, panel)}."
        for metric, what in (
            ("best", "choosing the epoch on the bags it is judged by"),
            ("batches", "the mean of batches, and the best epoch by it,"),
        ):
            flattery = max(
                summary.mean((*panel, *c, model), metric) - summary.mean((*panel, *c, model), "chosen")
                for c in conditions
                for model in models
            )
            yield f"{where}: {what} flatters by up to {100 * flattery:.2f} points."
        if {"sparse", "dense"} <= set(models):
            yield from (f"{where}: {sentence}" for sentence in _sooner(summary, panel))


def _sooner(summary: Summary, panel: Key) -> Iterator[str]:
    """Write which model arrives sooner, in epochs."""
    for target in TARGETS:
        sooner: dict[str, list[str]] = {"sparse": [], "dense": [], "neither that is told": []}
        for condition in summary.conditions(panel):
            sparse, dense = (summary.arrivals((*panel, *condition, m), target, "epochs") for m in ("sparse", "dense"))
            difference, p = compare(sparse, dense, float(sparse.ends.min()))
            which = "neither that is told" if p >= TOLD else "sparse" if difference < 0 else "dense"
            sooner[which].append(summary.axis(panel[2], condition))
        texts = [f"{model} at {', '.join(names)}" for model, names in sooner.items() if names]
        what = "the lowest loss" if target == LOWEST else target
        yield f"sooner at {what} (p below {TOLD:g}): {'; '.join(texts)}."


def _race(summary: Summary, panel: Key) -> str:
    """Write the lead of sparse at each condition, taken run by run, with its standard error where there is one."""
    texts = []
    for condition in summary.conditions(panel):
        first, second = ((*panel, *condition, model) for model in ("sparse", "dense"))
        lead, error = summary.lead(first, second, summary.accuracy_metric(condition))
        spread = "" if summary.runs(panel) == 1 else f" ± {100 * error:.2f}"
        texts.append(f"{summary.axis(panel[2], condition)}: {100 * lead:+.2f}{spread}")
    return ", ".join(texts)


# Figures


def figures(summary: Summary) -> dict[str, Figure]:
    """Draw table 1 and the learning curves.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        By the name of the file: `bits-RECIPE-LAYER-PART` the accuracy along the axis, `...-curves` figures 2 and 3,
        `...-arrivals` the share of runs that have come to a level of accuracy by each epoch.
    """
    drawn = {}
    for panel in summary.panels:
        name = "-".join(("bits", *panel))
        drawn[name] = _accuracies(summary, panel)
        drawn[f"{name}-curves"] = _curves(summary, panel)
        drawn[f"{name}-arrivals"] = _arrivals(summary, panel)
    return drawn


def _accuracies(summary: Summary, panel: Key) -> Figure:
    recipe, layer, part = panel
    conditions = summary.conditions(panel)
    xs = [size if part == "size" else signals / size for size, signals in conditions]
    lines = []
    for model in summary.models(panel):
        keys = [(*panel, *condition, model) for condition in conditions]
        means = [summary.mean(k, summary.accuracy_metric(c)) for k, c in zip(keys, conditions, strict=True)]
        stds = [summary.std(k, summary.accuracy_metric(c)) for k, c in zip(keys, conditions, strict=True)]
        lines.append(plotting.Line(model, xs, means, stds))
        printed = {c: v / 100 for c, v in PAPER[part][model].items() if layer == "pooling" and c in conditions}
        if printed:
            at = [xs[conditions.index(condition)] for condition in printed]
            lines.append(plotting.Line(f"{model}, the paper", at, list(printed.values()), [0.0] * len(printed)))
    xlabel = "bag size" if part == "size" else "share of signals"
    grid = [[plotting.Panel("", lines, "accuracy on fresh bags", (0.45, 1.02))]]
    return plotting.curves(grid, xlabel=xlabel, title=f"bit patterns, {layer}, recipe {recipe}", log=True)


def _curves(summary: Summary, panel: Key) -> Figure:
    """Make figures 2 and 3: loss and accuracy by epoch, on the bags trained on and on those for evaluation."""
    recipe, layer, part = panel

    def lines(condition: Condition, curve: str) -> Iterator[plotting.Line]:
        for model in summary.models(panel):
            key = (*panel, *condition, model)
            epochs = summary.epochs(key)
            means, stds = (
                [value(key, f"{curve} {epoch}") for epoch in epochs] for value in (summary.mean, summary.std)
            )
            yield plotting.Line(model, epochs, means, stds)

    grid = [
        [
            plotting.Panel(
                _title(summary, part, condition) if curve == CURVES[0] else "",
                list(lines(condition, curve)),
                curve.replace(" ", "\n"),
                (0.4, 1.03) if curve.endswith("accuracy") else None,
            )
            for condition in summary.conditions(panel)
        ]
        for curve in CURVES
    ]
    title = f"bit patterns, {layer}, recipe {recipe}: mean and standard deviation of {summary.runs(panel)} runs"
    return plotting.curves(grid, xlabel="epoch", title=title)


def _arrivals(summary: Summary, panel: Key) -> Figure:
    """Draw the share of runs that have arrived at each level by each epoch, with Wilson's bands."""
    recipe, layer, part = panel

    def lines(condition: Condition, level: str) -> Iterator[plotting.Line]:
        for model in summary.models(panel):
            key = (*panel, *condition, model)
            epochs = list(range(0, max(summary.epochs(key)) + 1))
            share, band = summary.arrivals(key, level, "epochs").shares(epochs)
            yield plotting.Line(model, epochs, share, band, {**plotting.STYLES[model], "marker": ""})

    grid = [
        [
            plotting.Panel(
                _title(summary, part, condition) if row == 0 else "",
                list(lines(condition, level)),
                f"runs with {level}",
                (-0.03, 1.03),
            )
            for condition in summary.conditions(panel)
        ]
        for row, level in enumerate(LEVELS)
    ]
    title = f"{layer}, recipe {recipe}: share of {summary.runs(panel)} runs"
    return plotting.curves(grid, xlabel="epoch", title=title)


def _title(summary: Summary, part: str, condition: Condition) -> str:
    """Return the title of the panels of a condition."""
    return f"{'bag size' if part == 'size' else 'signals'} {summary.axis(part, condition)}"


# The search


class Search(Means):
    """The results of a round of the search, by layer, model and candidate.

    Parameters
    ----------
    rows : sequence of dict
        The round's table.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(rows, ("layer", "model", "candidate"))

    def ranked(self, layer: str, model: str) -> list[str]:
        """Return the candidates, best first: by accuracy on the bags to choose by, of equals by loss there."""
        return sorted(
            self.levels("candidate", layer=layer, model=model),
            key=lambda name: (-self.mean((layer, model, name), "accuracy"), self.mean((layer, model, name), "loss")),
        )


def search_report(first: Search, second: Search) -> str:
    """Report the search: the round of all candidates, and the round of the best of them."""
    parts = []
    for layer, model in dict.fromkeys(key[:2] for key in second.keys):
        names = second.ranked(layer, model)
        keys = [(layer, model, name) for name in names]
        lines = [["accuracy, first round", "second round", "loss", "settings"]]
        lines += [
            [
                first.text(key, "accuracy"),
                second.text(key, "accuracy"),
                second.text(key, "loss", 1, 4),
                " ".join(name.split()),
            ]
            for name, key in zip(names, keys, strict=True)
        ]
        counts = [len(search.levels("candidate", layer=layer, model=model)) for search in (first, second)]
        runs = [len(search.values(keys[0], "accuracy")) for search in (first, second)]
        title = (
            f"{layer}, {model}: {counts[0]} candidates in {runs[0]} runs, the best {counts[1]} of them in "
            f"{runs[1]} other runs; accuracy in per cent and loss on the {INNER} bags to choose by, best first"
        )
        parts.append(f"{title}\n{aligned(lines)}")
    return "\n\n".join(parts)
