"""The report of the study of citations: what is found and cited, what vague questions cite, and certificates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.citations.protocol import LIMITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Summary(Means):
    """The values by questions, words left, map and beta.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(rows, ("questions", "left", "map", "beta"))
        self.stored, self.features = (int(self.mean(self.keys[0], name)) for name in ("stored", "features"))
        self.kinds = self.levels("questions", left="-")
        self.maps = self.levels("map", beta="chosen")
        self.left = [words for words in self.levels("left") if words != "-"]
        self.betas = [beta for beta in self.levels("beta") if beta != "chosen"]

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        return f"{self.stored} passages, {self.features} features"

    def value(self, kind: str, separation: str, metric: str, left: Any = "-", beta: Any = "chosen") -> float:
        """Return one value."""
        return self.mean((kind, left, separation, beta), metric)

    def share(self, kind: str, separation: str, metric: str, left: Any = "-", beta: Any = "chosen") -> str:
        """Return a share in per cent with its standard error, which depends on how many it is of."""
        share, asked, certified, unknown = (
            self.value(kind, separation, name, left, beta) for name in (metric, "asked", "certified", "unknown")
        )
        of = {"right": asked * certified, "others right": asked * (1 - unknown - certified)}.get(metric, asked)
        return percent(share, round(of) if of == of else 0)


def percent(share: float, n: int) -> str:
    """Return a share of n in per cent, with half the width of Wilson's interval of one standard error; "" for nan.

    It is no 0 where all or none of a few are counted.
    """
    if np.isnan(share):
        return ""
    return f"{100 * share:.1f} ± {100 * ((share * (1 - share) * n + 0.25) ** 0.5 / (n + 1)):.1f} %"


def figure(summary: Summary) -> Figure:
    """Draw the shares of answers that are certified, of those the right ones, and the right ones of all, by beta.

    Returns
    -------
    matplotlib.figure.Figure
        One axes for each kind of questions.
    """
    styles = {
        "certified": {"color": "#0072B2", "marker": "o"},
        "right, of certified answers": {"color": "#009E73", "marker": "^"},
        "right, of the others' best": {"color": "#D55E00", "marker": "s"},
    }
    panels = []
    for kind in summary.kinds:
        lines = [
            plotting.Line(
                label,
                summary.betas,
                [summary.value(kind, "sparsemax", metric, beta=beta) for beta in summary.betas],
                style=style,
            )
            for (label, style), metric in zip(styles.items(), ("certified", "right", "others right"), strict=True)
        ]
        panels.append(plotting.Panel(_label(kind), lines, "share", (-0.03, 1.03)))
    return plotting.curves([panels], xlabel="beta of sparsemax", title=summary.heading, log=True)


def vague_figure(summary: Summary) -> Figure:
    """Draw how many passages have weight, and how often the source is among them, as words are left out.

    Returns
    -------
    matplotlib.figure.Figure
        Two axes.
    """
    sparse = [name for name in summary.maps if name != "softmax"] or summary.maps

    def lines(metric: str) -> list[plotting.Line]:
        return [
            plotting.Line(
                separation,
                summary.left,
                [summary.value("vague", separation, metric, left) for left in summary.left],
                style=plotting.MEMBERS[separation],
            )
            for separation in sparse
        ]

    best = [summary.value("vague", sparse[0], "recall@1", left) for left in summary.left]
    first = plotting.Line("the best score", summary.left, best, style={"color": "#777777", "marker": "x"})
    panels = [
        [plotting.Panel("passages with weight", lines("support"), "mean")],
        [plotting.Panel("the source is cited, or has the best score", [*lines("cited"), first], "share")],
    ]
    return plotting.curves(panels, xlabel="words that are left", title=summary.heading)


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    parts = [
        summary.heading,
        wrap(
            "Shares have their standard errors, by Wilson's interval. found in k: the source is among the k best "
            "scores, which no map changes. cited: it has weight; weight: how much, on average; support: passages with "
            "weight; certified: answers that rest on one passage, provably. Beta of each map is that of least squared "
            "distance from all weight on the source, for questions about other passages, which are not tested with."
        ),
        *(_table(summary, kind) for kind in summary.kinds),
    ]
    if summary.left:
        parts.append(_vague_table(summary))
    if summary.betas and "sparsemax" in summary.maps:
        parts.append(_certificates(summary))
    return "\n\n".join([*parts, bullets("What came out", _findings(summary))])


def _label(kind: str) -> str:
    """Return a kind of questions in words."""
    name, _, share = kind.partition(" ")
    return {"without": f"without {share} of their words", "noise": f"with a share {share} of noise"}.get(name, kind)


def _count(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _table(summary: Summary, kind: str) -> str:
    first = summary.maps[0]
    found = ", ".join(f"{summary.share(kind, first, f'recall@{k}')} in {k}" for k in (1, 5, 10))
    lines = [["map", "beta", "cited", "weight", "support", "certified", "of these right"]]
    for separation in summary.maps:
        lines.append(
            [
                separation,
                f"{summary.value(kind, separation, 'beta used'):g}",
                summary.share(kind, separation, "cited"),
                f"{summary.value(kind, separation, 'weight'):.3f}",
                _count(summary.value(kind, separation, "support")),
                *(summary.share(kind, separation, metric) for metric in ("certified", "right")),
            ]
        )
    asked = summary.value(kind, first, "asked")
    return f"{asked:.0f} questions {_label(kind)}: found {found}\n{aligned(lines)}"


def _vague_table(summary: Summary) -> str:
    maps = [separation for separation in summary.maps if separation != "softmax"]
    lines = [
        ["words left", "found in 1", "gap", *(f"support, {name}" for name in maps), *(f"cited, {n}" for n in maps)]
    ]
    for left in summary.left:
        lines.append(
            [
                str(left),
                summary.share("vague", summary.maps[0], "recall@1", left),
                f"{summary.value('vague', summary.maps[0], 'gap', left):.3f}",
                *(_count(summary.value("vague", separation, "support", left)) for separation in maps),
                *(summary.share("vague", separation, "cited", left) for separation in maps),
            ]
        )
    asked = summary.value("vague", summary.maps[0], "asked", summary.left[0])
    return f"{asked:.0f} vague questions, with fewer and fewer of a passage's words\n{aligned(lines)}"


def _certificates(summary: Summary) -> str:
    lines = [["questions", "beta", "certified", "of these right", "of others right"]]
    for kind in summary.kinds:
        for beta in summary.betas:
            values = (summary.share(kind, "sparsemax", m, beta=beta) for m in ("certified", "right", "others right"))
            name = _label(kind) if beta == summary.betas[0] else ""
            lines.append([name, f"{beta:g}", *values])
    return f"Certified answers of sparsemax: the best score leads by 1/beta\n{aligned(lines)}"


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    sparse = [separation for separation in summary.maps if separation != "softmax"]
    for kind in summary.kinds:
        for separation in sparse:
            yield (
                f"Questions {_label(kind)}: {separation} cites {_count(summary.value(kind, separation, 'support'))} of "
                f"{summary.stored} passages, the source among them for {summary.share(kind, separation, 'cited')}; the "
                f"best score is the source's for {summary.share(kind, separation, 'recall@1')}."
            )
    if summary.left and sparse:
        ends = [summary.left[0], summary.left[-1]]
        for separation in sparse:
            few, many = (summary.value("vague", separation, "support", left) for left in ends)
            yield (
                f"From {ends[0]} words to {ends[-1]}, the support of {separation} goes from {_count(few)} to "
                f"{_count(many)}."
            )
    for key in summary.keys:
        yield from _certified(summary, key)
    for separation in summary.maps:
        beta = summary.value(summary.kinds[0], separation, "beta used")
        if beta in LIMITS[separation]:
            yield f"{separation}: beta {beta:g} is at an end of those that were tried; others may be better."
    unknown = max(summary.mean(key, "unknown") for key in summary.keys)
    if unknown:
        yield f"Questions without a known word, which get no answer: up to {100 * unknown:.1f} % of a kind."


def _certified(summary: Summary, key: Key) -> Iterator[str]:
    """Write what certificates of the chosen sparsemax are worth."""
    kind, left, separation, beta = key
    if separation == "sparsemax" and left == "-" and beta == "chosen":
        certified, right, others = (
            summary.share(kind, separation, metric) for metric in ("certified", "right", "others right")
        )
        if summary.mean(key, "certified") > 0:
            yield (
                f"Questions {_label(kind)}: {certified} of sparsemax's answers are certified, and {right} of these are "
                f"right; of the others the best passage is right for {others or 'none, as there are none'}."
            )
