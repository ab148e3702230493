"""The report of the study of repertoires: curves over the witness rate, tables, and the heaviest sequences."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.repertoire.protocol import ALPHA, COUNTS, MOTIF, Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES: dict[str, dict[str, Any]] = {
    "sparsemax": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "entmax15": {"color": "#CC79A7", "marker": "D", "linestyle": "-."},
    "softmax": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    COUNTS: {"color": "#009E73", "marker": "^", "linestyle": ":"},
    MOTIF: {"color": "#777777", "marker": "", "linestyle": (0, (1, 1))},
}
#: What the figure shows of networks, a row each.
PANELS = {
    "auc": "area under\nthe ROC curve",
    "precision": "implanted among\nthose with weight",
    "recall": "with weight among\nthe implanted",
    "average precision": "average\nprecision",
}
#: What tables show of networks where it is known which sequences were implanted, and what they call it.
COLUMNS = {
    "found": "found",
    "key weight": "key weight",
    "precision": "precision",
    "recall": "recall",
    "precision above 1/n": "precision > 1/n",
    "recall above 1/n": "recall > 1/n",
    "average precision": "average",
}
#: Sequences of a repertoire that the report names.
SHOWN = 4


class Summary(Means):
    """The values by size, witness rate and model.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    source : Source
        Where the repertoires come from.
    seconds : mapping
        The processor time of training, by (size, rate, model, run); nan where none was written.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], source: Source, seconds: Mapping[Key, float]) -> None:
        super().__init__(rows, ("size", "rate", "model"))
        self.source, self._seconds = source, seconds
        self.runs = len({row["run"] for row in rows})
        self.sizes, self.rates, self.models = (self.levels(name) for name in self.columns)

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        runs = f"{self.runs} run{'s' * (self.runs > 1)}"
        if self.source.file is not None:
            return f"Repertoires of {Path(self.source.file).name}, {runs}"
        motifs = f"{self.source.motifs} motif{'s' * (self.source.motifs > 1)}"
        return f"Simulated repertoires: {self.source.bags} to train, {self.source.tested} to test, {motifs}, {runs}"

    def cell(self, key: Key, metric: str, scale: float = 100, digits: int = 1) -> str:
        """Format a value, empty where it was not measured."""
        return self.text(key, metric, scale, digits) if self.knows(key, metric) else ""

    def seconds(self, size: Any, model: str) -> float:
        """Return the mean time of training, nan where none is known."""
        known = [s for key, s in self._seconds.items() if key[0] == size and key[2] == model and not np.isnan(s)]
        return float(np.mean(known)) if known else float("nan")


def figure(summary: Summary) -> Figure:
    """Draw what is measured over the witness rate.

    Returns
    -------
    matplotlib.figure.Figure
        One column of axes for each size.
    """

    def panel(size: Any, metric: str) -> plotting.Panel:
        lines = []
        for model in summary.models:
            keys = [(size, rate, model) for rate in summary.rates if summary.knows((size, rate, model), metric)]
            if keys:
                means, stds = ([value(key, metric) for key in keys] for value in (summary.mean, summary.std))
                lines.append(plotting.Line(model, [100 * key[1] for key in keys], means, stds, STYLES[model]))
        title = f"{size:,} sequences" if metric == "auc" else ""
        return plotting.Panel(title, lines, PANELS[metric], None if metric == "auc" else (-0.05, 1.05))

    measured = [metric for metric in PANELS if any(summary.knows(key, metric) for key in summary.keys)]
    grid = [[panel(size, metric) for size in summary.sizes] for metric in measured]
    return plotting.curves(grid, xlabel="witness rate, per cent", title=summary.heading, log=True)


def report_text(summary: Summary, sequences: Mapping[str, Path]) -> str:
    """Write the results, in tables and in words.

    Parameters
    ----------
    summary : Summary
    sequences : mapping of str to Path
        By model: the file with the heaviest sequences of the first setting.
    """
    parts = [
        summary.heading,
        wrap(" ".join(_notes(summary))),
        *(_table(summary, size, rate) for size in summary.sizes for rate in summary.rates),
        *_named(sequences),
        bullets("What came out", _findings(summary)),
    ]
    return "\n\n".join(parts)


def _notes(summary: Summary) -> Iterator[str]:
    """Write what the columns and the models are."""
    simulated = summary.source.file is None
    yield "In per cent, mean ± standard deviation over runs, on repertoires that were not trained on."
    if not ALPHA.keys().isdisjoint(summary.models):
        yield "support: sequences with weight; seconds: processor time of training."
        yield (
            f"Networks see the {summary.source.features} k-mers whose shares differ most between the classes of all "
            "repertoires trained on, also of those among them by which the epoch is chosen."
        )
        if simulated:
            yield (
                "found: the heaviest sequence of a positive repertoire has a motif; key weight: the weight of all "
                "with a motif together; precision: how many of the sequences with weight have one; recall: how many "
                "with one have weight; > 1/n: the same of sequences with more weight than if all had the same; "
                "average: the average precision of the order by weight."
            )
    if COUNTS in summary.models:
        yield f"{COUNTS}: logistic regression on the shares of k-mers in whole repertoires."
    if MOTIF in summary.models:
        yield (
            f"{MOTIF}: how many sequences have the motif itself, which no method knows; only whole motifs are counted, "
            "none with a gap or a deletion. Its threshold for the accuracy is chosen on the repertoires trained on."
        )


def _table(summary: Summary, size: Any, rate: Any) -> str:
    trained = any(model in ALPHA for model in summary.models)
    more = [name for name in COLUMNS if any(summary.knows(key, name) for key in summary.keys)]
    lines = [["model", "auc", "accuracy", *(COLUMNS[name] for name in more), *(["support", "seconds"] * trained)]]
    for model in summary.models:
        key = (size, rate, model)
        if not summary.has(key):
            continue
        line = [model, *(summary.cell(key, metric) for metric in ("auc", "accuracy", *more))]
        if trained:
            seconds = summary.seconds(size, model)
            line += [summary.cell(key, "support", 1), "" if np.isnan(seconds) else f"{seconds:.1f}"]
        lines.append(line)
    title = "" if summary.source.file is not None else f"{size:,} sequences, {100 * rate:g} % of them with a motif\n"
    return f"{title}{aligned(lines)}"


def _named(sequences: Mapping[str, Path]) -> Iterator[str]:
    """Write the heaviest sequences of one repertoire for each model whose file is there."""
    for model, path in sequences.items():
        if not path.exists():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        first = [row for row in rows if row["repertoire"] == rows[0]["repertoire"]][:SHOWN]
        lines = [
            [row["sequence"], f"{float(row['weight']):.3f}", "has a motif" * (row["implanted"] == "1")] for row in first
        ]
        yield f"The heaviest sequences of repertoire {rows[0]['repertoire']}, {model}\n{aligned(lines)}"


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    for size in summary.sizes:
        for rate in summary.rates:
            keys = [(size, rate, model) for model in summary.models if summary.has((size, rate, model))]
            where = "" if size == "-" else f"{size:,} sequences, {100 * rate:g} %: "
            fair = [key for key in keys if key[2] != MOTIF] or keys
            best = max(fair, key=lambda key: summary.mean(key, "auc"))
            yield f"{where}largest area under the curve: {best[2]}, {summary.text(best, 'auc', digits=1)}."
            dense = (size, rate, "softmax")
            for key in keys:
                if key[2] in ALPHA and key != dense and dense in keys:
                    yield f"{where}{_pair(summary, key, dense)}."


def _pair(summary: Summary, sparse: Key, dense: Key) -> str:
    """Write how a sparse map compares with softmax on the same draws."""
    words = []
    for metric, name in (("auc", "area under the curve"), ("average precision", "average precision")):
        if summary.knows(sparse, metric):
            lead, error = summary.lead(sparse, dense, metric)
            spread = "" if np.isnan(error) else f" ± {100 * error:.1f}"
            words.append(f"{name} {100 * lead:+.1f}{spread}")
    support = f"{summary.mean(sparse, 'support'):.0f} against {summary.mean(dense, 'support'):.0f} sequences"
    return f"{sparse[2]} - softmax: {', '.join(words)}; weight on {support}"
