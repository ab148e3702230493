"""The report of the study of flipped bits: tables, sentences and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.flips.classical import CAPACITY
from sparsehopfield.studies.flips.protocol import LEADS, LEVELS, Options, predicted_flips

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The share of bits right at rest below which the network of 1982 is said to have lost its patterns: at the capacity it
#: is 98.4 %, and beyond it falls to about two thirds.
RIGHT = 0.95
#: The predicted shares that are neither near 0 nor near 1, and put the closed form to a test.
BETWEEN = (0.01, 0.99)
_STYLES: dict[str, dict[str, Any]] = {
    "1982": {"color": "#009E73", "marker": "^", "linestyle": ":"},
    "1982, predicted": {"color": "#009E73", "marker": "", "linestyle": (0, (1, 1)), "linewidth": 2.4},
    "certified": {"color": "#009E73", "marker": "^", "linestyle": "--"},
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

    def crossing(self, model: str, d: int, metric: str, level: float) -> tuple[int, int]:
        """Return between which numbers of patterns the metric falls below a level, asked with the patterns themselves.

        The last one up to which it is at least the level, and the next one; 0 where there is none.
        """
        good = 0
        for count in sorted(self.chosen.sizes):
            if self.share(model, d, count, 0.0, metric) < level:
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
        "certified": "certified",
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
                "those certified, which are undone whichever bits they hit (the median over patterns); and up to how "
                "many random ones are undone for 99 % and for half of the queries, in closed form and found, by "
                "measuring at neighbouring numbers of flips"
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
    lines = [["d", "M", "model", "in the ball", "certified", "99 %: predicted", "found", "half: predicted", "found"]]
    for d in chosen.dims:
        for count in sorted(chosen.sizes):
            for model in chosen.models:
                if math.isinf(LEADS[model]):
                    continue
                key: Key = (model, d, count, summary.middle)
                found = {
                    name: f"{summary.mean((*key, chosen.rates[0]), name):g}"
                    for name in ("ball_flips", "certified_flips", *LEVELS)
                }
                numbers = [found["ball_flips"], found["certified_flips"]]
                for name, level in LEVELS.items():
                    numbers += [str(predicted_flips(model, d, count, summary.middle / d, level)), found[name]]
                lines.append([str(d), str(count), model, *numbers])
    return lines


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
        f"of their pattern, {totals['certified']} have so few flips that they are certified, and "
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
    off: dict[bool, list[float]] = {True: [], False: []}
    for key in keys:
        p = summary.mean(key, "predicted")
        error = math.sqrt(max(p * (1 - p), 1 / trials) / trials)  # of shares near 0 and 1, one query or so
        off[BETWEEN[0] <= p <= BETWEEN[1]].append(abs(summary.mean(key, "exact") - p) / error)
    words = [
        f"{sum(z > 3 for z in errors)} of the {len(errors)} settings where it is {where}"
        + (f" (by {max(errors):.1f} at most)" if errors else "")
        for where, errors in (
            (f"from {BETWEEN[0]:g} to {BETWEEN[1]:g}", off[True]),
            ("nearer to 0 or 1, which is little of a test", off[False]),
        )
    ]
    return [
        "The closed form of the share restored exactly is off by more than three standard errors in "
        f"{' and in '.join(words)}."
    ]


def _classical(summary: Summary) -> list[str]:
    chosen, sentences = summary.chosen, []
    if "1982" not in chosen.models or 0.0 not in chosen.rates:
        return []
    for d in chosen.dims:
        kept, lost = summary.crossing("1982", d, "right_bits", RIGHT)
        last, first = summary.crossing("1982", d, "rest", 0.5)
        words = f"1982, d = {d}, asked with its patterns: "
        words += (
            f"the share of right bits at rest falls below {100 * RIGHT:g} % "
            f"between {kept / d:.3g} d and {lost / d:.3g} d "
            if lost
            else f"the share of right bits at rest is nowhere below {100 * RIGHT:g} % "
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
                # rounded, as a lead of 1 % is not more than that
                (round(summary.mean(("sparse", *key[1:]), metric) - summary.mean(key, metric), 9), key)
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
                        f"beta d = {key[3]:g}; it retrieves {_range(summary, name, ahead, metric)} there)"
                        if (ahead := [k for x, k in leads if sign * x > 0.01])
                        else ""
                    )
                )
            sentences.append(f"{title}, of {len(leads)} settings {' and '.join(words)}.")
    return sentences


def _range(summary: Summary, model: str, keys: Sequence[Key], metric: str) -> str:
    """Return the least, the median and the most that a model has of a metric at the settings of another's keys."""
    shares = sorted(100 * summary.mean((model, *key[1:]), metric) for key in keys)
    return f"{shares[0]:.0f} to {shares[-1]:.0f} %, in the median {np.median(shares):.0f} %"


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
