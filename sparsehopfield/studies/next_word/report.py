"""The report of the study of the next word: perplexities with and without a memory, and what it mixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.next_word.protocol import ALONE, LIMITS, SHARES

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
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(rows, ("sentences", "order", "map"))
        self.sentences, self.orders, self.maps = (self.levels(name) for name in self.columns)

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        return f"Perplexity of {self.mean(self.keys[0], 'words'):.0f} words"

    def label(self, key: Key) -> str:
        """Name the memory of a setting: softmax is over the contexts that were searched for."""
        return f"softmax of {self.mean(key, 'searched'):.0f}" if key[2] == "softmax" else str(key[2])


def figure(summary: Summary) -> Figure:
    """Draw how far the perplexity is from that of the shortest n-grams alone, one line a model.

    Returns
    -------
    matplotlib.figure.Figure
        One axes.
    """
    lines = []
    shortest = [summary.mean((count, summary.orders[0], ALONE), "perplexity") for count in summary.sentences]
    for order, dashes in zip(summary.orders, DASHES * len(summary.orders), strict=False):
        for separation in summary.maps:
            style = plotting.MEMBERS.get(separation, {"color": "#777777", "marker": "x"}) | {"linestyle": dashes}
            name = summary.label((summary.sentences[0], order, separation))
            label = f"{order}-grams" + ("" if separation == ALONE else f" and memory, {name}")
            values = [summary.mean((count, order, separation), "perplexity") for count in summary.sentences]
            changes = [100 * (value / base - 1) for value, base in zip(values, shortest, strict=True)]
            lines.append(plotting.Line(label, summary.sentences, changes, style=style))
    panel = plotting.Panel("", lines, f"% against {summary.orders[0]}-grams")
    return plotting.curves([[panel]], xlabel="sentences to train with", title=summary.heading, log=True)


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    vocabulary, unknown = (summary.mean(summary.keys[0], name) for name in ("vocabulary", "unknown"))
    parts = [
        summary.heading,
        wrap(
            f"The vocabulary has {vocabulary:.0f} words, those that occur twice in all sentences of the part to train "
            "with, however many of these are trained with. All other words are one unknown word, which is predicted "
            f"like any other: {100 * unknown:.1f} % of the words to test with. known: perplexity without these."
        ),
        wrap(
            "n-grams with Kneser and Ney's smoothing, alone and mixed with a memory of contexts, whose share and beta "
            "are chosen by validation, on other sentences. A mixture is of the nearest contexts alone: softmax is cut "
            "off behind as many as its name says, and sums to one over these. change: of the perplexity against the "
            "same n-grams alone, with the 2.5 and 97.5 % quantiles of draws of sentences; support: contexts with "
            "weight; cut: words for which all contexts that were searched for have weight, so that more might have; "
            "seen: words to test with that followed at least one context with weight."
        ),
        *(_table(summary, count) for count in summary.sentences),
        bullets("What came out", _findings(summary)),
    ]
    return "\n\n".join(parts)


def _change(summary: Summary, key: Key, other: Key) -> float:
    return summary.mean(key, "perplexity") / summary.mean(other, "perplexity") - 1


def _interval(summary: Summary, key: Key, against: str) -> str:
    """Return an interval in per cent."""
    least, most = (100 * summary.mean(key, f"{against}{end}") for end in ("least", "most"))
    return f"[{least:+.1f}, {most:+.1f}]"


def _table(summary: Summary, count: int) -> str:
    lines = [["n-grams", "memory", "perplexity", "known", "change", "", "share", "beta", "support", "cut", "seen"]]
    for key in summary.keys:
        if key[0] != count:
            continue
        perplexity, known = (summary.mean(key, name) for name in ("perplexity", "known"))
        line = [str(key[1]), key[2], f"{perplexity:.2f}", f"{known:.2f}"]
        if key[2] != ALONE:
            line[1] = summary.label(key)
            support, cut, seen = (summary.mean(key, name) for name in ("support", "cut", "seen"))
            line += [
                f"{100 * _change(summary, key, (*key[:2], ALONE)):+.1f} %",
                _interval(summary, key, ""),
                f"{summary.mean(key, 'share'):g}",
                f"{summary.mean(key, 'beta used'):.3g}",
                f"{support:.0f}",
                f"{100 * cut:.0f} %",
                f"{100 * seen:.0f} %",
            ]
        lines.append(line + [""] * (len(lines[0]) - len(line)))
    return f"{count} sentences to train with\n{aligned(lines)}"


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for count in summary.sentences:
        keys = [key for key in summary.keys if key[0] == count]
        plain = min((key for key in keys if key[2] == ALONE), key=lambda key: summary.mean(key, "validation"))
        yield (
            f"{count} sentences: by validation the best n-grams alone are those of {plain[1]} words, with a perplexity "
            f"of {summary.mean(plain, 'perplexity'):.2f}."
        )
        mixed = [key for key in keys if key[2] != ALONE]
        if not mixed:
            continue
        best = min(mixed, key=lambda key: summary.mean(key, "validation"))
        yield (
            f"{count} sentences: a memory {_verdict(summary, best)}: by validation the best mixture is of "
            f"{best[1]}-grams and {summary.label(best)}, with {summary.mean(best, 'perplexity'):.2f}, "
            f"{100 * _change(summary, best, plain):+.1f} % {_interval(summary, best, 'best ')} against the best "
            "n-grams."
        )
        dense = (*best[:2], "softmax")
        for key in mixed:
            if key[1] == best[1] and key[2] != "softmax" and dense in mixed:
                yield (
                    f"{count} sentences, {key[1]}-grams: {key[2]} against {summary.label(dense)} "
                    f"{100 * _change(summary, key, dense):+.1f} % {_interval(summary, key, 'softmax ')}, with "
                    f"{summary.mean(key, 'support'):.0f} contexts in place of {summary.mean(dense, 'support'):.0f}."
                )
        yield from _ends(summary, mixed)


def _verdict(summary: Summary, key: Key) -> str:
    """Return what the interval against the best n-grams says of a memory."""
    if summary.mean(key, "best most") < 0:
        return "helps"
    return "hurts" if summary.mean(key, "best least") > 0 else "has no effect that these words can show"


def _ends(summary: Summary, mixed: Sequence[Key]) -> Iterator[str]:
    """Write which of the betas and shares tried is the first or last one, so that others may be better."""
    for key in mixed:
        separation, beta, share = key[2], summary.mean(key, "beta used"), summary.mean(key, "share")
        name = f"{key[0]} sentences, {key[1]}-grams and {summary.label(key)}"
        if share == 0:
            yield f"{name}: by validation the memory has no share."
        elif beta in LIMITS[separation]:
            yield f"{name}: beta {beta:.3g} is at an end of those that were tried; others may be better."
        if share == SHARES[-1]:
            yield f"{name}: the share {share:g} is the largest that was tried."
