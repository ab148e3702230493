"""The report of the study of bags of digits: curves, tables, and pictures of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.data.bags import Bags
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.mnist_bags.protocol import TESTED, weights_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparsehopfield.estimators import HopfieldMILClassifier

#: What the pictures show: so many positive bags, and so many instances of each.
BAGS_SHOWN, INSTANCES_SHOWN = 3, 12


class Summary(Means):
    """The values by mean bag size, bags to train with, and model.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    description : str
        A description of the images.
    targets : int or None
        Number of nines in a positive bag.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], description: str, targets: int | None) -> None:
        super().__init__(rows, ("size", "bags", "model"))
        self.runs = len({row["run"] for row in rows})
        self.description, self.targets = description, targets
        self.sizes, self.counts, self.models = (self.levels(name) for name in self.columns)

    @property
    def heading(self) -> str:
        """Write one line about the settings."""
        nines = "nines as chance has it" if self.targets is None else f"{self.targets} in each positive one"
        return f"bags of {self.description}: {nines}, {self.runs} run{'s' * (self.runs > 1)}"


def figure(summary: Summary) -> Figure:
    """Draw the area under the curve and where the weight went, over the number of bags to train with.

    Returns
    -------
    matplotlib.figure.Figure
        One column of axes for each bag size.
    """

    def panel(size: int, metric: str, label: str) -> plotting.Panel:
        lines = []
        for model in summary.models:
            keys = [(size, count, model) for count in summary.counts]
            means, stds = ([value(key, metric) for key in keys] for value in (summary.mean, summary.std))
            lines.append(plotting.Line(model, summary.counts, means, stds))
        return plotting.Panel(f"mean bag size {size}" if metric == "auc" else "", lines, label, None)

    shown = {
        "auc": "area under\nthe ROC curve",
        "found": "heaviest instance\nis a 9",
        "key weight": "weight of\nall nines",
    }
    grid = [[panel(size, *item) for size in summary.sizes] for item in shown.items()]
    return plotting.curves(grid, xlabel="bags to train with", title=summary.heading, log=True)


def pictures(seen: Mapping[str, tuple[HopfieldMILClassifier, Bags]]) -> Figure:
    """Draw the instances of some positive bags, the heaviest first, with their weights.

    Parameters
    ----------
    seen : mapping of str to (HopfieldMILClassifier, Bags)
        By model: a trained classifier, and bags it has not seen, the same for all.

    Returns
    -------
    matplotlib.figure.Figure
        One row for each bag and model.
    """
    rows, captions = {}, {}
    shape: tuple[int, ...] = ()
    for number in range(BAGS_SHOWN):
        for model, (machine, bags) in seen.items():
            index = int(np.flatnonzero(bags.labels)[number])
            (weights,) = weights_of(machine, bags.take([index]))
            order = np.argsort(-weights, kind="stable")[:INSTANCES_SHOWN]
            name = f"bag {number + 1}, {model}"
            rows[name], shape = bags[index][order], bags.shape or ()
            captions[name] = [f"{weights[i]:.2f}{' *' * bool(bags.keys_of(index)[i])}" for i in order]
    return plotting.image_grid(rows, shape, captions=captions, title="weights of the instances; * is a 9")


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    parts = [
        summary.heading[0].upper() + summary.heading[1:],
        wrap(
            f"In per cent, mean ± standard deviation over runs, on {TESTED} bags of images that were not trained on. "
            f"found: the instance with the largest weight of a positive bag is a 9; key weight: what all nines of a "
            f"positive bag have together; support: instances with weight. Ilse et al. learn features by a "
            f"convolutional network, here one linear layer sees the pixels: the levels are not theirs."
        ),
        *(_table(summary, size) for size in summary.sizes),
        bullets("What came out", _findings(summary)),
    ]
    return "\n\n".join(parts)


def _table(summary: Summary, size: int) -> str:
    lines = [["bags", "model", "area under curve", "accuracy", "found", "key weight", "support"]]
    for count in summary.counts:
        for model in summary.models:
            key = (size, count, model)
            values = [summary.text(key, metric) for metric in ("auc", "accuracy", "found", "key weight")]
            lines.append([str(count), model, *values, summary.text(key, "support", 1, 1)])
    return f"Mean bag size {size}\n{aligned(lines)}"


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    most = summary.counts[-1]
    for size in summary.sizes:
        for metric, words in (("auc", "area under the curve"), ("found", "heaviest instance a 9")):
            values = ", ".join(f"{model} {summary.text((size, most, model), metric)}" for model in summary.models)
            text = f"mean bag size {size}, {most} bags to train with, {words}: {values}"
            if {"sparse", "dense"} <= set(summary.models) and summary.runs > 1:
                lead, error = summary.lead((size, most, "sparse"), (size, most, "dense"), metric)
                text += f"; sparse - dense {100 * lead:+.2f} ± {100 * error:.2f}"
            yield f"{text}."
