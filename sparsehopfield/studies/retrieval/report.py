"""The report of a retrieval study: means over runs, the figure, and the paper's words beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.separations import has_cutoff, separation_code
from sparsehopfield._engine.text import aligned
from sparsehopfield.data.datasets import ImageSet
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Means
from sparsehopfield.studies._core.words import bullets, join_numbers, steps_in_words, wrap
from sparsehopfield.studies.retrieval.protocol import MODELS, PROTOCOLS, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "For all Hopfield models, we set beta = 1. A query pattern is deemed correctly retrieved if its cosine "
    "similarity error is below a set threshold. [...] Plotted are the means and standard deviations of 10 "
    "runs. The results suggest that the sparse Hopfield model excels when memory patterns exhibit a high "
    "degree of sparsity and the signal-to-noise ratio in patterns is low."
)
#: What figure 1 is said to show for each data set; it prints no numbers.
CLAIMS = {"digits": "not in it", "mnist": "sparse ahead", "cifar10": "no claim", "imagenet64": "no claim"}

Panel = tuple[Any, ...]


class Summary:
    """The values of all runs, by panel, position along the axis, model and metric.

    Parameters
    ----------
    study : Study
        The study of the rows.
    rows : sequence of dict
        Its table.

    Attributes
    ----------
    panels : list of tuple
        (similarity, beta, the mask or the number of patterns, protocol): what one axes of the figure shows.
    xs : list
        The label of the axis.
    thresholds : dict of str to float
        By protocol, the cosine error below which a pattern counts as retrieved.
    """

    def __init__(self, study: Study, rows: Sequence[Mapping[str, Any]]) -> None:
        self.study, self.rows = study, rows
        other = study.level if study.axis == "size" else "size"
        self._means = Means(rows, ("similarity", "beta", other, "protocol", study.axis, "model"))
        self.panels: list[Panel] = list(dict.fromkeys(key[:4] for key in self._means.keys))
        self.thresholds: dict[str, float] = {row["protocol"]: row["threshold"] for row in rows}
        self.xs: list[Any] = self._means.levels(study.axis)

    def models(self, panel: Panel) -> list[str]:
        """Return the models that ran in a panel."""
        return list(dict.fromkeys(key[5] for key in self._means.keys if key[:4] == panel))

    def mean(self, panel: Panel, x: Any, model: str, metric: str) -> float:
        """Return the mean over the runs."""
        return self._means.mean((*panel, x, model), metric)

    def std(self, panel: Panel, x: Any, model: str, metric: str) -> float:
        """Return the standard deviation over the runs; 0 for a single one."""
        return self._means.std((*panel, x, model), metric)

    def lead(self, panel: Panel, x: Any, metric: str) -> tuple[float, float]:
        """Return the mean difference of sparse and dense in the same runs, and its standard error (nan for one run)."""
        return self._means.lead((*panel, x, "sparse"), (*panel, x, "dense"), metric)

    def verdict(self, panel: Panel, x: Any, metric: str) -> str:
        """Return which model is ahead by more than one standard error."""
        lead, error = self.lead(panel, x, metric)
        if np.isnan(error):
            return "one run"
        error *= 1 + 1e-9  # one differing run out of n leads by exactly its error, which is not beyond it
        return "sparse ahead" if lead > error else "dense ahead" if -lead > error else "level"

    def name(self, panel: Panel) -> str:
        """Return a panel's title: its similarity, and what differs from the other panels."""
        similarity, beta, other, protocol = panel
        parts = [f"{similarity} similarity"] if PROTOCOLS[protocol].factors is None else []
        if {*self.thresholds} != {"printed"}:
            parts.append(f"{protocol} protocol")
        if len({p[1] for p in self.panels}) > 1:
            parts.append(f"beta {beta:g}")
        if len({p[2] for p in self.panels}) > 1:
            parts.append(f"M = {other}")
        return ", ".join(parts)

    @property
    def heading(self) -> str:
        """Write one line about the settings."""

        def all_of(column: str) -> str:
            return join_numbers(dict.fromkeys(row[column] for row in self.rows))

        study, first = self.study, self.rows[0]
        runs = {name: len({row["run"] for row in self.rows if row["protocol"] == name}) for name in self.thresholds}
        counts = {f"{n} {'run' if n == 1 else 'runs'}" for n in runs.values()}
        words = counts.pop() if len(counts) == 1 else ", ".join(f"{name} {n} runs" for name, n in runs.items())
        damage = f"{first['mask']} half masked" if study.level == "mask" else f"M = {all_of('size')}, Gaussian noise"
        return (
            f"{study.name} on {first['dataset']}: {damage}, {steps_in_words(first['steps'])}, beta {all_of('beta')}, "
            f"{words}"
        )

    @property
    def criterion(self) -> str:
        """Write below which cosine error a pattern counts as retrieved."""
        words = {f"{threshold:g}" for threshold in self.thresholds.values()}
        if len(words) == 1:
            return f"cosine error < {words.pop()}"
        return "cosine error < " + ", ".join(f"{value:g} ({name})" for name, value in self.thresholds.items())


def figure(summary: Summary) -> Figure:
    """Draw the means with bands of one standard deviation.

    Parameters
    ----------
    summary : Summary
        The results.

    Returns
    -------
    matplotlib.figure.Figure
        One column of axes for each similarity (and beta), one row for each of: share retrieved, mean cosine,
        share retrieved exactly.
    """

    def panel(which: Panel, metric: str, label: str) -> plotting.Panel:
        lines = [
            plotting.Line(
                model,
                summary.xs,
                [summary.mean(which, x, model, metric) for x in summary.xs],
                [summary.std(which, x, model, metric) for x in summary.xs],
            )
            for model in summary.models(which)
        ]
        return plotting.Panel(
            summary.name(which) if metric == "retrieved" else "",
            lines,
            label,
            None if metric == "cosine" else (-0.04, 1.04),
        )

    shown = {
        "retrieved": f"share retrieved\n({summary.criterion})",
        "cosine": "mean cosine",
        "exact": "share retrieved\nexactly",
    }
    grid = [[panel(which, *item) for which in summary.panels] for item in shown.items()]
    return plotting.curves(grid, xlabel=summary.study.xlabel, title=summary.heading, log=summary.study.axis == "size")


def report_text(summary: Summary, images: ImageSet, queries: int) -> str:
    """Write the results beside what the paper says."""
    zeros = float(np.mean(images.images == 0))
    parts = [
        summary.heading[0].upper() + summary.heading[1:],
        wrap(
            f"{images.description}; {zeros:.0%} of the pixels are zero. At most {queries} queries a run. "
            f"Retrieved means a {summary.criterion.replace('<', 'below')}; exact means equal but for float32 "
            f"rounding; 'mean' answers every query with the mean of the stored images. Values are mean ± "
            f"standard deviation over runs; the lead of sparse over dense is taken run by run, ± its "
            f"standard error."
        ),
        *(wrap(f"The {name} protocol: {PROTOCOLS[name].summary}.") for name in summary.thresholds if name != "printed"),
        wrap(f'The paper, figure 1 (which prints no numbers): "{CAPTION}"'),
        *(_rates(summary, panel, CLAIMS[images.name]) for panel in summary.panels),
        *(_details(summary, panel) for panel in summary.panels),
        bullets("What came out", _findings(summary, CLAIMS[images.name])),
    ]
    return "\n\n".join(parts)


def _rates(summary: Summary, panel: Panel, claim: str) -> str:
    """Make the table of the shares retrieved, beside what the paper claims."""
    models = summary.models(panel)
    paired = {"sparse", "dense"} <= set(models)
    lines = [[_axis(summary), *models, *(["sparse - dense", "here", "paper"] if paired else [])]]
    for x in summary.xs:
        line = [
            f"{x:g}",
            *(
                f"{summary.mean(panel, x, model, 'retrieved'):.3f} ± {summary.std(panel, x, model, 'retrieved'):.3f}"
                for model in models
            ),
        ]
        if paired:
            lead, error = summary.lead(panel, x, "retrieved")
            line += [f"{lead:+.3f} ± {error:.3f}", summary.verdict(panel, x, "retrieved"), claim]
        lines.append(line)
    return f"Share retrieved, {summary.name(panel)}\n{aligned(lines)}"


def _details(summary: Summary, panel: Panel) -> str:
    """Make the table of mean cosine, share exact, and support of the maps that have zeros."""
    models = summary.models(panel)
    sparse = [model for model in models if model != "mean" and has_cutoff(separation_code(MODELS[model]))]
    columns = [(model, "cosine", ".3f") for model in models]
    columns += [(model, "exact", ".3f") for model in models if model != "mean"]
    columns += [(model, "support", ".1f") for model in sparse]
    firsts = [i == 0 or columns[i - 1][1] != metric for i, (_, metric, _) in enumerate(columns)]
    lines = [
        ["", *(f"{metric}:" if first else "" for (_, metric, _), first in zip(columns, firsts, strict=True))],
        [_axis(summary), *(model for model, _, _ in columns)],
    ]
    lines += [
        [f"{x:g}", *(format(summary.mean(panel, x, model, metric), form) for model, metric, form in columns)]
        for x in summary.xs
    ]
    return f"Mean cosine, share exact and mean support size, {summary.name(panel)}\n{aligned(lines)}"


def _findings(summary: Summary, claim: str) -> list[str]:
    """Write sentences from the rows alone."""
    found = []
    for panel in summary.panels:
        if {"sparse", "dense"} <= set(summary.models(panel)):
            found += [
                f"{summary.name(panel)}, by {words}: {_race(summary, panel, metric)}."
                for metric, words in (
                    ("retrieved", "share retrieved"),
                    ("cosine", "mean cosine"),
                    ("exact", "share exact"),
                )
            ]
    for panel in summary.panels:
        if panel[0] == "dot" and {"sparse", "dense", "mean"} <= set(summary.models(panel)):
            found.append(_worth(summary, panel))
    if claim == "sparse ahead":
        found += [
            _against_claim(summary, panel)
            for panel in summary.panels
            if panel[0] == "dot" and {"sparse", "dense"} <= set(summary.models(panel))
        ]
    for panel in summary.panels:
        dot = ("dot", *panel[1:])
        if panel[0] != "dot" and dot in summary.panels:
            found += [
                _change(summary, dot, panel, model)
                for model in summary.models(panel)
                if model in summary.models(dot) and model != "mean"
            ]
    if any("polynomial" in summary.models(p) for p in summary.panels) and any(
        p[0] == "euclidean" for p in summary.panels
    ):
        found.append(
            "polynomial is not run with euclidean similarity: its scores are negative, and an even "
            "power would let the worst pattern win."
        )
    return found


def _race(summary: Summary, panel: Panel, metric: str) -> str:
    by: dict[str, list[Any]] = {}
    for x in summary.xs:
        by.setdefault(summary.verdict(panel, x, metric), []).append(x)
    if "one run" in by:
        return "one run has no standard error, so who is ahead is not known"
    parts = []
    for verdict, sign in (("sparse ahead", 1), ("dense ahead", -1)):
        if verdict in by:
            most = max(sign * summary.lead(panel, x, metric)[0] for x in by[verdict])
            who = "sparse is ahead of dense" if sign > 0 else "sparse loses to dense"
            parts.append(
                f"{who} by more than one standard error at {_axis(summary)} = {join_numbers(by[verdict])} "
                f"(by {most:.2g} at most)"
            )
    if "level" in by:
        parts.append(f"they are level at {_axis(summary)} = {join_numbers(by['level'])}")
    return "; ".join(parts)


def _against_claim(summary: Summary, panel: Panel) -> str:
    verdicts = [summary.verdict(panel, x, "retrieved") for x in summary.xs]
    ahead, behind = verdicts.count("sparse ahead"), verdicts.count("dense ahead")
    if "one run" in verdicts:
        return f"{summary.name(panel)}: one run cannot tell whether the paper's claim holds."
    if ahead + behind == 0:
        return f"{summary.name(panel)}: neither model is ahead anywhere, so the paper's claim is not seen."
    agree = "agrees with" if behind == 0 else "contradicts" if ahead == 0 else "only partly agrees with"
    return (
        f"{summary.name(panel)}: sparse is ahead at {ahead} and behind at {behind} of {len(verdicts)} "
        f'settings, which {agree} the paper\'s "excels" on images with many zeros.'
    )


def _worth(summary: Summary, panel: Panel) -> str:
    """Write how often an answer that ignores the query counts as retrieved."""
    rates = {
        model: [summary.mean(panel, x, model, "retrieved") for x in summary.xs] for model in ("mean", "sparse", "dense")
    }
    below = {
        model: [x for x, rate, mean in zip(summary.xs, rates[model], rates["mean"], strict=True) if rate < mean]
        for model in ("sparse", "dense")
    }
    words = [
        f"{model} is below that at {_axis(summary)} = {join_numbers(below[model])}"
        if below[model]
        else f"{model} is nowhere below that"
        for model in below
    ]
    low, high = f"{min(rates['mean']):.3f}", f"{max(rates['mean']):.3f}"
    return (
        f"{summary.name(panel)}: the mean of the stored images, whatever the query, counts as retrieved "
        f"for {low if low == high else low + ' to ' + high} of the queries; {', '.join(words)}."
    )


def _change(summary: Summary, dot: Panel, panel: Panel, model: str) -> str:
    """Write what another similarity than dot changes for a model, on average over the axis."""

    def average(which: Panel, metric: str) -> float:
        return float(np.mean([summary.mean(which, x, model, metric) for x in summary.xs]))

    parts = [
        f"{words} {average(dot, metric):.3f} -> {average(panel, metric):.3f}"
        for metric, words in (("retrieved", "share retrieved"), ("cosine", "mean cosine"), ("exact", "share exact"))
    ]
    what = ", ".join([panel[0] + " instead of dot", *summary.name(panel).split(", ")[1:]])
    return f"{what}, {model}, averaged over all {_axis(summary)}: {', '.join(parts)}."


def _axis(summary: Summary) -> str:
    return "M" if summary.study.axis == "size" else "sigma"
