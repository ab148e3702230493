"""The report of the study of flipped bits: tables, sentences and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield import theory
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.flips.classical import CAPACITY
from sparsehopfield.studies.flips.protocol import LEADS, MODELS, Options, flips_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Of the bits that the network of 1982 has right at its capacity; below it, it has lost its patterns.
RIGHT = 0.95
_STYLES: dict[str, dict[str, Any]] = {
    "1982": {"color": "#009E73", "marker": "^", "linestyle": ":"},
    "1982, predicted": {"color": "#009E73", "marker": "", "linestyle": (0, (1, 1)), "linewidth": 2.4},
    "surely undone": {"color": "#009E73", "marker": "^", "linestyle": "--"},
    "in the exact ball": {"color": "#777777", "marker": "v", "linestyle": ":"},
}


class Summary(Means):
    """The results by model, bits, patterns, beta and rate."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("model", "d", "patterns", "beta_hat", "rate"))
        self.chosen = chosen
        self.betas = sorted(chosen.betas)
        self.middle = self.betas[len(self.betas) // 2]

    def beta(self, model: str) -> float:
        """Return the middle of the inverse temperatures, 0 for the model that has none."""
        return 0.0 if model == "1982" else self.middle

    def share(self, model: str, d: int, count: int, rate: float, metric: str) -> float:
        """Return a metric at the middle beta."""
        return self.mean((model, d, count, self.beta(model), rate), metric)

    def sparse_keys(self) -> list[Key]:
        """Return the settings of models that can end on exactly a pattern."""
        return [key for key in self.keys if math.isfinite(LEADS[key[0]])]

    def trials(self) -> int:
        """Return how many queries a setting has, in all runs."""
        return self.chosen.queries * self.chosen.runs

    def half(self, model: str, d: int, metric: str = "rest", rate: float = 0.0, level: float = 0.5) -> tuple[int, int]:
        """Return the last number of patterns up to which the metric is at least a level, and the next one; 0 where
        there is none.
        """
        sizes = sorted(self.chosen.sizes)
        good = 0
        for count in sizes:
            if self.share(model, d, count, rate, metric) < level:
                return good, count
            good = count
        return good, 0


def figure(summary: Summary) -> Figure:
    """Draw the share of queries with all bits right, at rest, over the number of patterns.

    Returns
    -------
    matplotlib.figure.Figure
        One row a number of bits, one column a rate (up to four of them), at the middle beta.
    """
    chosen = summary.chosen
    sizes = sorted(chosen.sizes)
    rates = [chosen.rates[k] for k in sorted({round(k) for k in np.linspace(0, len(chosen.rates) - 1, 4)})]
    panels = [
        [
            plotting.Panel(
                f"d = {d}, {100 * rate:g} % flipped",
                [
                    plotting.Line(
                        model,
                        sizes,
                        [summary.share(model, d, count, rate, "rest") for count in sizes],
                        style=_STYLES.get(model),
                    )
                    for model in chosen.models
                ],
                "share with all bits right, at rest",
                (-0.03, 1.03),
            )
            for rate in rates
        ]
        for d in chosen.dims
    ]
    return plotting.curves(panels, xlabel="patterns M", log=True)


def flips_figure(summary: Summary) -> Figure:
    """Draw what theory says of one step beside what is measured, over the share of bits flipped.

    Returns
    -------
    matplotlib.figure.Figure
        Of the first model with certificates, at the largest d; one row a beta, one column a number of patterns (up to
        four); empty axes where no model has any.
    """
    chosen = summary.chosen
    model = next((name for name in chosen.models if math.isfinite(LEADS[name])), None)
    if model is None:
        return plotting.curves([[plotting.Panel("no model has certificates", [])]], xlabel="share of bits flipped")
    d, rates, sizes = max(chosen.dims), sorted(chosen.rates), sorted(chosen.sizes)
    some = [sizes[k] for k in sorted({round(k) for k in np.linspace(0, len(sizes) - 1, 4)})]
    lines = {
        model: "exact",
        f"{model}, predicted": "predicted",
        "surely undone": "certified",
        "in the exact ball": "in_ball",
    }
    panels = [
        [
            plotting.Panel(
                f"{model}, d = {d}, M = {count}, beta d = {beta:g}",
                [
                    plotting.Line(
                        label,
                        rates,
                        [summary.mean((model, d, count, beta, rate), metric) for rate in rates],
                        style=_STYLES.get(label),
                    )
                    for label, metric in lines.items()
                ],
                "share of queries",
                (-0.03, 1.03),
            )
            for count in some
        ]
        for beta in summary.betas
    ]
    return plotting.curves(panels, xlabel="share of bits flipped")


def report_text(summary: Summary) -> str:
    """Write what was measured and what theory says, in tables and in words."""
    introduction = wrap(
        f"Random patterns of 1 and -1; queries are {summary.trials()} copies of them in which so many bits are "
        "flipped, drawn anew in each setting. beta is in units of 1/d. Retrieved: all bits have the right sign."
    )
    parts = ["Flipped bits", introduction]
    for metric, title in (("rest", "at rest"), ("one_step", "after one step")):
        parts.append(
            f"Retrieved {title}, in % (beta d = {summary.middle:g}), by the share of bits flipped\n"
            + aligned(_shares(summary, metric))
        )
    if summary.sparse_keys():
        parts.append(
            wrap(
                f"Flips that one step undoes exactly (beta d = {summary.middle:g}): those within the exact ball and "
                "those surely undone, wherever they are (for half of the patterns asked for); and how many random ones "
                "are undone for 99 % and for half of the queries, in closed form and found, between rates by "
                "interpolation"
            )
            + f"\n{aligned(_limits(summary))}"
        )
    parts.append(bullets("What came out", findings(summary)))
    return "\n\n".join(parts)


def _shares(summary: Summary, metric: str) -> list[list[str]]:
    chosen = summary.chosen
    lines = [["d", "M", "M/d", "model", *(f"{rate:g}" for rate in chosen.rates)]]
    for d in chosen.dims:
        for count in sorted(chosen.sizes):
            for model in chosen.models:
                shares = [f"{100 * summary.share(model, d, count, rate, metric):.1f}" for rate in chosen.rates]
                lines.append([str(d), str(count), f"{count / d:.3g}", model, *shares])
    return lines


def _limits(summary: Summary) -> list[list[str]]:
    chosen = summary.chosen
    lines = [["d", "M", "model", "in the ball", "surely", "99 %: predicted", "found", "half: predicted", "found"]]
    for d in chosen.dims:
        for count in sorted(chosen.sizes):
            for model in chosen.models:
                if math.isinf(LEADS[model]):
                    continue
                key = (model, d, count, summary.middle)
                numbers = [f"{summary.mean((*key, chosen.rates[0]), name):g}" for name in ("ball_flips", "sure_flips")]
                recall = theory.exact_recall(
                    d, count, np.arange(d + 1), summary.middle / d, separation=MODELS[model] or ""
                )
                for level in (0.99, 0.5):
                    numbers += [str(np.count_nonzero(recall >= level) - 1), _flips_kept(summary, key, level)]
                lines.append([str(d), str(count), model, *numbers])
    return lines


def _flips_kept(summary: Summary, key: Key, level: float) -> str:
    """Return up to how many flips the share restored exactly is at least a level, between rates by interpolation."""
    d, rates = key[1], sorted(summary.chosen.rates)
    shares = [summary.mean((*key, rate), "exact") for rate in rates]
    below = next((k for k, share in enumerate(shares) if share < level), None)
    if below is None:
        return f">= {flips_of(d, rates[-1])}"
    if below == 0:
        return f"< {flips_of(d, rates[0])}" if rates[0] > 0 else "-"
    first, last = flips_of(d, rates[below - 1]), flips_of(d, rates[below])
    part = (shares[below - 1] - level) / (shares[below - 1] - shares[below])
    return f"{first + part * (last - first):.1f}"


def findings(summary: Summary) -> list[str]:
    """Write sentences from the rows alone."""
    return [*_certificates(summary), *_prediction(summary), *_classical(summary), *_models(summary), *_rest(summary)]


def _certificates(summary: Summary) -> list[str]:
    keys, trials = summary.sparse_keys(), summary.trials()
    if not keys:
        return []
    totals = {
        metric: round(sum(summary.mean(key, metric) for key in keys) * trials)
        for metric in ("in_ball", "certified", "broken", "exact")
    }
    return [
        f"Of {len(keys) * trials} queries of models with certificates, {totals['in_ball']} are within the exact ball "
        f"of their pattern, {totals['certified']} have so few flips that they are surely undone, and "
        f"{totals['exact']} are restored exactly by one step. "
        + (
            "Every query with a certificate is among these."
            if totals["broken"] == 0
            else f"{totals['broken']} queries with a certificate are NOT among these."
        )
    ]


def _prediction(summary: Summary) -> list[str]:
    keys, trials = summary.sparse_keys(), summary.trials()
    if not keys:
        return []
    off = []
    for key in keys:
        p = summary.mean(key, "predicted")
        error = math.sqrt(max(p * (1 - p), 1 / trials) / trials)  # of shares near 0 and 1, one query or so
        off.append(abs(summary.mean(key, "exact") - p) / error)
    return [
        "The closed form of the share restored exactly is off by more than three standard errors in "
        f"{sum(z > 3 for z in off)} of {len(off)} settings, by {max(off):.1f} at most."
    ]


def _classical(summary: Summary) -> list[str]:
    chosen, sentences = summary.chosen, []
    if "1982" not in chosen.models or 0.0 not in chosen.rates:
        return []
    for d in chosen.dims:
        kept, lost = summary.half("1982", d, "right_bits", level=RIGHT)
        last, first = summary.half("1982", d)
        words = f"1982, d = {d}, asked with its patterns: "
        words += (
            f"from {kept / d:.3g} d to {lost / d:.3g} d the share of right bits at rest falls below {RIGHT:g} "
            if lost
            else f"the share of right bits at rest is nowhere below {RIGHT:g} "
        )
        words += f"(theory for large d: {CAPACITY:g} d); "
        words += (
            f"half of the patterns keep all bits at {last} ({last / d:.3g} d) and no longer at {first}."
            if first
            else "half of the patterns keep all bits at every number asked."
        )
        sentences.append(words)
    return sentences


def _models(summary: Summary) -> list[str]:
    chosen, sentences = summary.chosen, []
    most = max(chosen.sizes)
    for d in chosen.dims:
        words = []
        for model in chosen.models:
            good = [rate for rate in sorted(chosen.rates) if summary.share(model, d, most, rate, "rest") >= 0.99]
            words.append(f"{model} {f'up to {100 * good[-1]:g} % flipped' if good else 'at no share of flips'}")
        sentences.append(f"d = {d}, {most} patterns, 99 % of the queries retrieved at rest: {', '.join(words)}.")
    if {"sparse", "dense"} <= {*chosen.models}:
        for metric, title in (("one_step", "After one step"), ("rest", "At rest")):
            leads = [
                (summary.mean(("sparse", *key[1:]), metric) - summary.mean(key, metric), key)
                for key in summary.keys
                if key[0] == "dense"
            ]
            words = []
            for name, pick, sign in (("sparse", max, 1), ("dense", min, -1)):
                lead, key = pick(leads)
                words.append(
                    f"{name} is ahead by more than 1 % in {sum(sign * x > 0.01 for x, _ in leads)}"
                    + (
                        f" (at most by {100 * sign * lead:.1f} %, at M = {key[2]}, {100 * key[4]:g} % flipped, "
                        f"beta d = {key[3]:g})"
                        if sign * lead > 0
                        else ""
                    )
                )
            sentences.append(f"{title}, of {len(leads)} settings {' and '.join(words)}.")
    return sentences


def _rest(summary: Summary) -> list[str]:
    sentences = []
    for model in summary.chosen.models:
        keys = [key for key in summary.keys if key[0] == model]
        gains = [summary.mean(key, "rest") - summary.mean(key, "one_step") for key in keys]
        unit = "sweeps" if model == "1982" else "updates"
        steps = [summary.mean(key, "steps") for key in keys if summary.mean(key, "rest") >= 0.5]
        sentences.append(
            f"{model}: coming to rest changes the share retrieved by one step by {100 * min(gains):+.1f} to "
            f"{100 * max(gains):+.1f} %"
            + (
                f"; where half are retrieved it takes {min(steps):.1f} to {max(steps):.1f} {unit} on average."
                if steps
                else "."
            )
        )
    return sentences
