"""The report of the study of the next word: perplexities with and without a memory, and what it mixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Lines of the figure: one colour a map, dashes by the length of n-grams.
DASHES = ("-", "--", ":", "-.")


class Summary(Means):
    """The values by sentences, order and map.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    words : int
        To test with.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], words: int) -> None:
        super().__init__(rows, ("sentences", "order", "map"))
        self.words = words
        self.sentences, self.orders, self.maps = (self.levels(name) for name in self.columns)

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        return f"Perplexity of {self.words} words"


def figure(summary: Summary) -> Figure:
    """Draw the perplexity by the sentences to train with, one line a model.

    Returns
    -------
    matplotlib.figure.Figure
        One axes.
    """
    lines = []
    for order, dashes in zip(summary.orders, DASHES * len(summary.orders), strict=False):
        for separation in summary.maps:
            style = plotting.MEMBERS.get(separation, {"color": "#777777", "marker": "x"}) | {"linestyle": dashes}
            label = f"{order}-grams" + ("" if separation == "-" else f" and memory, {separation}")
            values = [summary.mean((count, order, separation), "perplexity") for count in summary.sentences]
            lines.append(plotting.Line(label, summary.sentences, values, style=style))
    panel = plotting.Panel("", lines, "perplexity")
    return plotting.curves([[panel]], xlabel="sentences to train with", title=summary.heading, log=True)


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    parts = [
        summary.heading,
        wrap(
            "n-grams with Kneser and Ney's smoothing, alone and mixed with a memory of contexts, whose share and beta "
            "are chosen by other sentences. change: of the perplexity against the same n-grams alone, with the 2.5 and "
            "97.5 % quantiles of draws of sentences; support: contexts with weight; cut: words for which all contexts "
            "that were found have weight, so that more might have; seen: words that followed a context with weight."
        ),
        *(_table(summary, count) for count in summary.sentences),
        bullets("What came out", _findings(summary)),
    ]
    return "\n\n".join(parts)


def _change(summary: Summary, key: Key) -> float:
    return summary.mean(key, "perplexity") / summary.mean((*key[:2], "-"), "perplexity") - 1


def _table(summary: Summary, count: int) -> str:
    lines = [["n-grams", "memory", "perplexity", "change", "", "share", "beta", "support", "cut", "seen"]]
    for key in summary.keys:
        if key[0] != count:
            continue
        value = {name: summary.mean(key, name) for name in ("perplexity", "least", "most", "share", "beta used")}
        line = [str(key[1]), key[2], f"{value['perplexity']:.2f}"]
        if key[2] != "-":
            support, cut, seen = (summary.mean(key, name) for name in ("support", "cut", "seen"))
            line += [
                f"{100 * _change(summary, key):+.1f} %",
                f"[{100 * value['least']:+.1f}, {100 * value['most']:+.1f}]",
                f"{value['share']:g}",
                f"{value['beta used']:g}",
                f"{support:.0f}",
                f"{100 * cut:.0f} %",
                f"{100 * seen:.0f} %",
            ]
        lines.append(line + [""] * (len(lines[0]) - len(line)))
    return f"{count} sentences to train with\n{aligned(lines)}"


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for count in summary.sentences:
        plain = {order: summary.mean((count, order, "-"), "perplexity") for order in summary.orders}
        best = min(plain, key=plain.__getitem__)
        yield f"{count} sentences: the best n-grams alone are those of {best} words, {plain[best]:.2f}."
        keys = [key for key in summary.keys if key[0] == count and key[2] != "-"]
        if not keys:
            continue
        with_memory = min(keys, key=lambda key: summary.mean(key, "perplexity"))
        _, order, separation = with_memory
        value, least, most = (summary.mean(with_memory, name) for name in ("perplexity", "least", "most"))
        verdict = "helps" if most < 0 else "hurts" if least > 0 else "makes no difference that these words can tell"
        yield (
            f"{count} sentences: a memory {verdict}: at best {value:.2f}, {order}-grams and {separation}, "
            f"{100 * (value / plain[best] - 1):+.1f} % against the best n-grams."
        )
        dense = (count, order, "softmax")
        for key in keys:
            if key[1] == order and key[2] != "softmax" and dense in keys:
                ratio = summary.mean(key, "perplexity") / summary.mean(dense, "perplexity") - 1
                yield (
                    f"{count} sentences, {order}-grams: {key[2]} against softmax {100 * ratio:+.1f} %, with "
                    f"{summary.mean(key, 'support'):.0f} contexts in place of "
                    f"{np.round(summary.mean(dense, 'support')):.0f}."
                )
