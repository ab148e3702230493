"""The report of the study of translation: BLEU, differences with intervals, how sparse associations are, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.translation.bleu import bootstrap, corpus_bleu, signature
from sparsehopfield.studies.translation.parts import HEADS, LAYERS, PLACES
from sparsehopfield.studies.translation.protocol import DECODINGS, LEARNED, Work, model_name, network_of, sentences_of
from sparsehopfield.studies.translation.text import BEGIN, CONDITIONS, END, task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("map", "structure", "beta", "learning rate")
#: How lines of structures are drawn, where these are not all pieces.
DASHES = {"window": ":", "topk": "--", "features": "-."}
#: The conditions in words.
WORDS = {
    "clean": "whole sentences",
    "dropped 10": "10 % of the words dropped",
    "dropped 20": "20 % of the words dropped",
    "swapped 20": "20 % of the words swapped with their neighbours",
    "unknown 20": "20 % of the words unknown",
}
#: The panels of BLEU against damage: what is damaged, and the conditions by shares of words.
DAMAGE = {
    "words dropped": {0: "clean", 10: "dropped 10", 20: "dropped 20"},
    "neighbours swapped": {0: "clean", 20: "swapped 20"},
    "unknown words": {0: "clean", 20: "unknown 20"},
}
LONGEST = 14  # pieces of the sentence whose weights are drawn


class Summary(Means):
    """The values by model, and the differences from the first dense one.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    settings : sequence of mapping
        Those of the table, all runs.
    work : Work
        Where the sentences' counts are.
    trials : sequence of dict
        The grid's table, empty without a grid.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        settings: Sequence[Mapping[str, Any]],
        work: Work,
        trials: Sequence[Mapping[str, Any]],
    ) -> None:
        super().__init__(rows, COLUMNS)
        self.work, self.trials = work, trials
        self.epochs, self.runs = settings[0]["epochs"], len({setting["run"] for setting in settings})
        dense = [key for key in self.keys if key[0] == "softmax"] or self.keys
        self.reference = next((key for key in dense if key[1] == "all"), dense[0])
        self.differences = list(self._differences(settings))

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        task = task_of(self.work.source)
        parts = task.corpus
        return (
            f"{parts.name}, {' to '.join(parts.languages)}: {len(parts.train)} pairs, {len(parts.validation)} to "
            f"validate and {len(parts.test)} to test with; {len(task.vocabulary)} word pieces"
        )

    def _differences(self, settings: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield a row for each model, way to translate and condition: BLEU, and how far it is from the reference's."""
        counts: dict[Key, list[Any]] = {}
        for setting in settings:
            key = tuple(setting[name] for name in COLUMNS)
            counts.setdefault(key, []).append(sentences_of(self.work, setting))
        for key, runs in counts.items():
            for decoding in DECODINGS:
                for condition in CONDITIONS:
                    own, other = ([one[decoding, condition] for one in some] for some in (runs, counts[self.reference]))
                    bleu = np.array([corpus_bleu(one) for one in own])
                    apart = bleu - [corpus_bleu(one) for one in other]
                    least, most = bootstrap(own, other)
                    yield {
                        **dict(zip(COLUMNS, key, strict=True)),
                        "decoding": decoding,
                        "condition": condition,
                        "runs": len(own),
                        "bleu": bleu.mean(),
                        "deviation": bleu.std(ddof=1) if len(own) > 1 else np.nan,
                        "difference": apart.mean(),
                        "deviation of the difference": apart.std(ddof=1) if len(own) > 1 else np.nan,
                        "least": least,
                        "most": most,
                    }

    def difference(self, key: Key, decoding: str, condition: str) -> Mapping[str, Any]:
        """Return the row of a model, a way to translate and a condition."""
        wanted = (*key, decoding, condition)
        names = (*COLUMNS, "decoding", "condition")
        return next(row for row in self.differences if tuple(row[name] for name in names) == wanted)

    @property
    def others(self) -> list[Key]:
        """Return the models that are compared with the reference."""
        return [key for key in self.keys if key != self.reference]


def figures(summary: Summary) -> dict[str, Figure]:
    """Draw BLEU against damage, supports by layer and head, and losses; with a grid, its losses by beta.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
    """
    drawn = {"bleu": _bleu_figure(summary), "support": _support_figure(summary), "loss": _loss_figure(summary)}
    if any(row["beta"] != LEARNED for row in summary.trials):
        drawn["grid"] = _grid_figure(summary)
    return drawn


def _named(key: Key) -> str:
    """Return a model's name, with its structure."""
    return model_name(key[0], key[1])


def _style(name: str, structure: str) -> dict[str, Any]:
    """Return how a model's line is drawn."""
    own = {"color": "#009E73", "marker": "^"} if name == "normmax" else plotting.MEMBERS.get(name, {"marker": "X"})
    return own if structure == "all" else own | {"linestyle": DASHES[structure], "markerfacecolor": "white"}


def _line(summary: Summary, key: Key, x: Sequence[float], metrics: Sequence[str]) -> plotting.Line:
    """Return the line of a model: means of these metrics over runs, and their deviations."""
    means, stds = ([value(key, metric) for metric in metrics] for value in (summary.mean, summary.std))
    return plotting.Line(_named(key), x, means, stds, _style(key[0], key[1]))


def _bleu_figure(summary: Summary) -> Figure:
    panels = [
        [
            plotting.Panel(
                what,
                [_line(summary, key, [*by], [f"{decoding} {one}" for one in by.values()]) for key in summary.keys],
                f"BLEU, {decoding}",
            )
            for what, by in DAMAGE.items()
        ]
        for decoding in DECODINGS
    ]
    return plotting.curves(panels, xlabel="% of the words", title=summary.heading.partition(";")[0])


def _support_figure(summary: Summary) -> Figure:
    heads = [(layer, head) for layer in range(1, LAYERS + 1) for head in range(1, HEADS + 1)]
    panels = [
        plotting.Panel(
            place,
            [
                _line(summary, key, range(1, len(heads) + 1), [f"support {place} {at} {head}" for at, head in heads])
                for key in summary.keys
            ],
            "pieces with weight",
        )
        for place in PLACES
    ]
    xlabel = f"head, {HEADS} in each of {LAYERS} layers"
    return plotting.curves([panels], xlabel=xlabel, title="Support of the associations, test part")


def _loss_figure(summary: Summary) -> Figure:
    epochs = range(1, summary.epochs + 1)
    lines = [_line(summary, key, epochs, [f"loss {epoch}" for epoch in epochs]) for key in summary.keys]
    panel = plotting.Panel("", lines, "nats a piece")
    return plotting.curves([[panel]], xlabel="epoch", title="Loss on the validation part")


def _grid_figure(summary: Summary) -> Figure:
    means = Means([row for row in summary.trials if row["beta"] != LEARNED], COLUMNS)
    panels = []
    for rate in means.levels("learning rate"):
        lines = []
        for name, structure in dict.fromkeys(key[:2] for key in means.keys):
            betas = sorted(means.levels("beta", map=name, structure=structure), key=float)
            values = [means.mean((name, structure, beta, rate), "validation loss") for beta in betas]
            label, style = model_name(name, structure), _style(name, structure)
            lines.append(plotting.Line(label, [float(beta) for beta in betas], values, style=style))
        panels.append(plotting.Panel(f"learning rate {rate:g}", lines, "nats a piece"))
    title = f"The grid: loss on the validation part, {summary.trials[0]['epochs']} epochs"
    return plotting.curves([panels], xlabel="beta · √d", title=title, log=True)


def attention_figure(work: Work, settings: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the cross-association of the last layer for one sentence of the test part and its reference, by head.

    Parameters
    ----------
    work : Work
    settings : sequence of mapping
        Those of the table; the first run of each model is drawn.

    Returns
    -------
    matplotlib.figure.Figure
        A row of axes a model, one a head; weights that are exactly 0 have a colour of their own.
    """
    from sparsehopfield.studies.translation.training import padded

    task = task_of(work.source)
    pairs = task.numbers("test")
    source, target = min(pairs, key=lambda pair: abs(max(map(len, pair)) - LONGEST))
    rows = {}
    for setting in settings:
        if setting["run"]:
            continue
        network, _ = network_of(work, setting)
        weights = network.weights(padded([source]), padded([target[:-1]], BEGIN))["cross"][-1][0]
        name = model_name(setting["map"], setting["structure"])
        rows[name] = {f"head {head}": one.numpy() for head, one in enumerate(weights, start=1)}
    across, down = (
        [("end" if piece == END else task.vocabulary.piece(piece)) for piece in some] for some in (source, target)
    )
    return plotting.matrices(
        rows, across=across, down=down, title="Weights of the cross-association, last layer; exact zeros are grey"
    )


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    seeds = f"mean ± standard deviation over {summary.runs} seeds" if summary.runs > 1 else "one seed"
    parts = [
        summary.heading,
        wrap(
            f"BLEU ({signature()}) of lower-cased text tokenised before, not to be compared with that of text as it "
            f"is printed; {summary.epochs} epochs, {seeds}. The weights are those of the epoch with the least loss on "
            "the validation part. Damage is the same for all models; an unknown word is a piece that never occurs in "
            "training."
        ),
        *(_bleu_table(summary, decoding) for decoding in DECODINGS),
        *([_difference_table(summary)] if summary.others else []),
        _sparsity_table(summary),
        *([_grid_table(summary)] if summary.trials else []),
        bullets("What came out", _findings(summary)),
    ]
    return "\n\n".join(parts)


def _bleu_table(summary: Summary, decoding: str) -> str:
    lines = [["model", "beta", "rate", "loss", *CONDITIONS]]
    for key in summary.keys:
        _, _, beta, rate = key
        loss = summary.text(key, "validation loss", 1, 3)
        values = [summary.text(key, f"{decoding} {condition}", 1, 2) for condition in CONDITIONS]
        lines.append([_named(key), beta, f"{rate:g}", loss, *values])
    beam = DECODINGS[decoding]
    what = "the likeliest piece each time" if beam == 1 else f"beams of {beam}"
    return f"BLEU, {decoding}: {what}\n{aligned(lines, {0})}"


def _difference_table(summary: Summary) -> str:
    lines = [["", "model", *CONDITIONS]]
    for decoding in DECODINGS:
        for key in summary.others:
            found = [summary.difference(key, decoding, condition) for condition in CONDITIONS]
            lines.append([decoding, _named(key), *(_interval(row) for row in found)])
    title = (
        f"BLEU less that of {_named(summary.reference)}, and the 2.5 and 97.5 % quantiles of a bootstrap of sentences"
    )
    return f"{title}\n{aligned(lines, {0, 1})}"


def _interval(row: Mapping[str, Any]) -> str:
    """Write a difference and its interval."""
    return f"{row['difference']:+.2f} [{row['least']:+.2f}, {row['most']:+.2f}]"


def _sparsity_table(summary: Summary) -> str:
    lines = [["model", *(f"zeros {place}" for place in PLACES), *(f"support {place}" for place in PLACES)]]
    for key in summary.keys:
        zeros = [f"{summary.text(key, f'zeros {place}', 100, 1)} %" for place in PLACES]
        lines.append([_named(key), *zeros, *(summary.text(key, f"support {place}", 1, 2) for place in PLACES)])
    title = "Weights that are exactly 0, of those not hidden, and pieces with weight"
    if any(key[1] != "all" for key in summary.keys):
        title += "; what a structure leaves out has weight 0"
    return f"{title}\n{aligned(lines, {0})}"


def _grid_table(summary: Summary) -> str:
    means = Means(summary.trials, COLUMNS)
    models = list(dict.fromkeys(key[:2] for key in means.keys))
    lines = [["beta", "rate", *(model_name(*model) for model in models)]]
    for beta in means.levels("beta"):
        for rate in means.levels("learning rate"):
            losses = [f"{means.mean((*model, beta, rate), 'validation loss'):.3f}" for model in models]
            lines.append([beta, f"{rate:g}", *losses])
    each = (len(lines) - 1) * summary.trials[0]["epochs"]
    title = f"The grid: loss on the validation part; {len(lines) - 1} networks and {each} epochs for each model"
    return f"{title}\n{aligned(lines)}"


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for condition in ("clean", "unknown 20"):
        metric = f"beam {condition}"
        best = max(summary.keys, key=lambda key: summary.mean(key, metric))
        yield f"{_capital(WORDS[condition])}: most BLEU by {_named(best)}, {summary.text(best, metric, 1, 2)} (beam)."
    for key in summary.others:
        rows = [summary.difference(key, "beam", condition) for condition in CONDITIONS]
        lead = f"{_named(key)} against {_named(summary.reference)} (beam)"
        apart = [row for row in rows if row["least"] > 0 or row["most"] < 0]
        for row in apart:
            yield f"{lead}, {WORDS[row['condition']]}: {_interval(row)} BLEU{_over_seeds(row)}."
        if len(apart) < len(rows):
            names = ", ".join(WORDS[row["condition"]] for row in rows if row not in apart)
            yield f"{lead}, the interval of the difference holds 0: {names}."
    for key in summary.keys:
        share = [summary.mean(key, f"zeros {place}") for place in PLACES]
        if max(share) > 0:
            shares = ", ".join(f"{100 * one:.0f} % ({place})" for one, place in zip(share, PLACES, strict=True))
            yield f"{_named(key)}: exactly 0 are {shares} of the weights."
    if summary.runs == 1 and summary.others:
        yield "One seed: the intervals are those of sentences; how far seeds lie apart is not known."


def _over_seeds(row: Mapping[str, Any]) -> str:
    """Write how far the differences of seeds lie apart, where there are several."""
    return f", ± {row['deviation of the difference']:.2f} over {row['runs']} seeds" if row["runs"] > 1 else ""


def _capital(text: str) -> str:
    """Return a text with a capital at its beginning."""
    return text[0].upper() + text[1:]
