"""The report of the study of correlated patterns: tables, sentences and figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Means
from sparsehopfield.studies._core.words import bullets, join_numbers, wrap
from sparsehopfield.studies.correlated.protocol import (
    ALPHAS,
    Options,
    expected_scores,
    median_beta,
    predict_error,
    predict_support,
    typical_beta,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_TITLES = {
    "equal": "equal lengths, dot",
    "free": "unequal lengths, dot",
    "free-euclidean": "unequal lengths, euclidean",
    "sparse": "sparse features, dot",
    "positive": "sparse and positive, dot",
}


class Summary(Means):
    """The results by case, model, weight and beta."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        chosen: Options,
        seconds: Mapping[tuple[str, float], float] | None = None,
    ) -> None:
        super().__init__(rows, ("case", "model", "w", "beta"))
        self.chosen = chosen
        self.seconds = seconds or {}
        self.sparse = [model for model in chosen.models if model != "dense"]
        self.groups = list(dict.fromkeys(key[:2] for key in self.keys))

    def curve(self, case: str, model: str, w: float, metric: str) -> tuple[list[float], list[float]]:
        """Return inverse temperatures, and the metric at each."""
        keys = [key for key in self.keys if key[:3] == (case, model, w)]
        return [key[3] for key in keys], [self.mean(key, metric) for key in keys]

    def first(self, case: str, model: str, w: float, metric: str) -> float:
        """Return a metric that does not depend on beta."""
        return self.curve(case, model, w, metric)[1][0]

    def half(self, case: str, model: str, w: float, metric: str = "stored") -> float:
        """Return the beta from which on the metric stays at least a half, by interpolation of ln beta.

        inf if it is not at the end of the grid, nan if it is so at once.
        """
        betas, shares = self.curve(case, model, w, metric)
        below = [k for k, share in enumerate(shares) if share < 0.5]
        if not below:
            return math.nan
        k = below[-1]
        if k + 1 == len(betas):
            return math.inf
        part = (0.5 - shares[k]) / (shares[k + 1] - shares[k])
        return float(betas[k] * (betas[k + 1] / betas[k]) ** part)

    def apart(self, case: str, model: str, w: float) -> float:
        """Return the lowest beta at which the patterns lead to more than one state; inf if none."""
        betas, limits = self.curve(case, model, w, "limits")
        return next((beta for beta, n in zip(betas, limits, strict=True) if n > 1), math.inf)

    def predicted(self, case: str, model: str, w: float) -> float:
        """Return the beta predicted for half of the patterns; of several runs the median."""
        return median_beta(self.values(next(k for k in self.keys if k[:3] == (case, model, w)), "predicted"))

    def measured_lead(self, case: str, w: float, beta: float) -> float:
        """Return by how much the error at noisy queries is larger with dense than with sparse, at a beta in units of
        1/(1 - w^2).
        """
        dense, sparse = (self.mean((case, m, w, beta / (1 - w * w)), "noisy_error") for m in ("dense", "sparse"))
        return dense - sparse

    def predicted_lead(self, case: str, w: float, beta: float) -> float:
        """Return what `predict_error` says of the same."""
        dense, sparse = (predict_error(model, case, w, self.chosen, beta) for model in ("dense", "sparse"))
        return dense - sparse

    def crossings(self, lead: Callable[[str, float, float], float], case: str, w: float) -> list[float]:
        """Return the betas, in units of 1/(1 - w^2), where a lead changes its sign, by interpolation of ln beta."""
        betas = sorted(self.chosen.betas)
        leads = [lead(case, w, beta) for beta in betas]
        return [
            a * (b / a) ** (x / (x - y))
            for (a, x), (b, y) in itertools.pairwise(zip(betas, leads, strict=True))
            if (x > 0) != (y > 0)
        ]

    @property
    def compares_times(self) -> bool:
        """Say whether a sparse map and softmax were both timed, at all betas."""
        times = self.seconds.values()
        return "dense" in self.chosen.models and bool(self.sparse) and bool(times) and all(time > 0 for time in times)

    def times(self, model: str) -> list[float]:
        """Return the seconds of one step of the memory that was timed, by beta."""
        return [self.seconds[model, beta / (1 - self.chosen.weights[0] ** 2)] for beta in sorted(self.chosen.betas)]

    def supports(self, model: str) -> list[float]:
        """Return the expected supports of the memory that was timed, by beta."""
        chosen = self.chosen
        scores = expected_scores("equal", chosen.weights[0], chosen.d, chosen.density, chosen.noise)
        return [predict_support(model, chosen.timed, scores, beta) for beta in sorted(chosen.betas)]

    def speeds(self, model: str) -> list[float]:
        """Return how many times as long one step takes with softmax, by beta."""
        return [dense / taken for dense, taken in zip(self.times("dense"), self.times(model), strict=True)]

    def level_support(self, model: str) -> float | None:
        """Return the expected support at which the model gets faster than softmax as beta grows, by interpolation.

        None if it is faster at the lowest beta already, or at none.
        """
        points = zip(self.supports(model), self.speeds(model), strict=True)
        for (a, x), (b, y) in itertools.pairwise(points):
            if x <= 1 < y:
                return float(a * (b / a) ** (math.log(x) / math.log(x / y)))
        return None

    def coarsest(self) -> float:
        """Return the largest step of the grid of betas, as a factor."""
        betas = sorted(self.chosen.betas)
        return max((b / a for a, b in itertools.pairwise(betas)), default=1.0)


def figure(summary: Summary) -> Figure:
    """Draw the beta at which half of the patterns are stored over the weight of the common direction.

    Returns
    -------
    matplotlib.figure.Figure
        Measured with markers, predicted without; one panel a case.
    """
    chosen, panels = summary.chosen, []
    for case in chosen.cases:
        lines = []
        for model in chosen.models:
            for label, value in ((model, summary.half), (f"{model}, predicted", summary.predicted)):
                lines.append(plotting.Line(label, chosen.weights, [value(case, model, w) for w in chosen.weights]))
        if "sparse" in chosen.models:
            bound = [summary.first(case, "sparse", w, "one_below") for w in chosen.weights]
            lines.append(plotting.Line("sparse, all one", chosen.weights, bound, style=_GREY))
        panels.append(plotting.Panel(_TITLES[case], lines, "beta at which half are stored"))
    return plotting.curves([panels], xlabel="weight w of the common direction", logy=True)


_GREY = plotting.STYLES["mean"]


def shares_figure(summary: Summary) -> Figure:
    """Draw the share of patterns stored over beta, for up to four weights.

    Returns
    -------
    matplotlib.figure.Figure
        One column a case, one row a model.
    """
    chosen = summary.chosen
    some = [chosen.weights[k] for k in sorted({round(k) for k in np.linspace(0, len(chosen.weights) - 1, 4)})]
    styles = [plotting.STYLES[name] for name in ("sparse", "dense", "polynomial", "entmax15")]
    panels = [
        [
            plotting.Panel(
                f"{model}; {_TITLES[case]}",
                [
                    plotting.Line(f"w = {w:g}", *summary.curve(case, model, w, "stored"), style=style)
                    for w, style in zip(some, styles, strict=False)
                ],
                "share stored",
                (-0.03, 1.03),
            )
            for case in chosen.cases
        ]
        for model in chosen.models
    ]
    return plotting.curves(panels, xlabel="beta", log=True)


def leads_figure(summary: Summary) -> Figure:
    """Draw where one step from noisy queries is more accurate with sparse than with dense, over beta and w.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a case: the difference of the errors, and where both are level, as measured and as predicted.
    """
    chosen, betas = summary.chosen, sorted(summary.chosen.betas)
    panels = [
        plotting.Leads(
            _TITLES[case],
            betas,
            [f"{w:g}" for w in chosen.weights],
            [[summary.measured_lead(case, w, beta) for beta in betas] for w in chosen.weights],
            {
                name: [summary.crossings(lead, case, w) for w in chosen.weights]
                for name, lead in (
                    ("level, measured", summary.measured_lead),
                    ("level, predicted", summary.predicted_lead),
                )
            },
        )
        for case in chosen.cases
    ]
    return plotting.leads(
        panels,
        names=("sparse", "dense"),
        xlabel="beta (1 - w²)",
        ylabel="weight w",
        label="who is more accurate",
        title=f"One step from queries with noise {chosen.noise:g} times as long as the pattern's own part",
    )


def supports_figure(summary: Summary) -> Figure:
    """Draw the mean support at noisy queries over beta, beside what is expected, at the first and the last weight.

    Returns
    -------
    matplotlib.figure.Figure
        Measured with markers, expected without; one row a weight, one column a case.
    """
    chosen, panels = summary.chosen, []
    for w in dict.fromkeys((chosen.weights[0], chosen.weights[-1])):
        row = []
        for case in chosen.cases:
            lines = []
            for model in summary.sparse:
                for label, metric in ((model, "noisy_support"), (f"{model}, predicted", "expected_support")):
                    betas, sizes = summary.curve(case, model, w, metric)
                    lines.append(plotting.Line(label, [beta * (1 - w * w) for beta in betas], sizes))
            row.append(plotting.Panel(f"{_TITLES[case]}, w = {w:g}", lines, "mean support"))
        panels.append(row)
    return plotting.curves(panels, xlabel="beta (1 - w²)", log=True, logy=True)


def times_figure(summary: Summary) -> Figure:
    """Draw how many times as fast as softmax one step of a sparse map is, over the expected support.

    Returns
    -------
    matplotlib.figure.Figure
        One axes, of the memory that was timed.
    """
    lines = [plotting.Line(model, summary.supports(model), summary.speeds(model)) for model in summary.sparse]
    level = {"color": "black", "linewidth": 0.8, "linestyle": "--", "markersize": 0}
    lines.append(plotting.Line("equally fast", [1, summary.chosen.timed], [1, 1], style=level))
    panel = plotting.Panel(f"one step, {summary.chosen.timed:,} patterns", lines, "times as fast as softmax")
    return plotting.curves([[panel]], xlabel="expected support", log=True, logy=True)


def report_text(summary: Summary) -> str:
    """Write measurements and predictions, in tables and in words."""
    chosen = summary.chosen
    introduction = wrap(
        f"{chosen.patterns} patterns w c + sqrt(1 - w^2) n of {chosen.d} features, {chosen.runs} draw(s); retrieved to "
        "the fixed point from each pattern and from a query at "
        f"{chosen.perturbation:g} of the distance to the nearest other one. Stored: sparse and entmax15 exactly, dense "
        f"if the limit is within {chosen.tolerance:g} of that distance. 'half stored': from which beta on half are, by "
        "interpolation; "
        "'predicted': from which on half must be; 'closed form': the same of the family, not of the draw. 'near': from "
        "which on half of the queries lead to their pattern, within the tolerance. 'apart': the lowest beta with more "
        "than one limit; 'one below': all must be one below it. 'limits' and 'support': at the grid's middle beta."
    )
    lines = [
        [
            "case",
            "model",
            "w",
            "half stored",
            "predicted",
            "closed form",
            "near",
            "apart",
            "one below",
            "limits",
            "support",
        ]
    ]
    for case, model in summary.groups:
        for w in chosen.weights:
            betas, limits = summary.curve(case, model, w, "limits")
            at = len(betas) // 2
            closed = math.nan
            if case == "equal" and ALPHAS[model] > 1:
                closed = typical_beta(chosen.patterns, chosen.d, w, ALPHAS[model])
            numbers = (
                summary.half(case, model, w),
                summary.predicted(case, model, w),
                closed,
                summary.half(case, model, w, "perturbed"),
                summary.apart(case, model, w),
                summary.first(case, model, w, "one_below"),
                limits[at],
                summary.curve(case, model, w, "support")[1][at],
            )
            lines.append([case, model, f"{w:g}", *("-" if math.isnan(v) else f"{v:.4g}" for v in numbers)])
    return "\n\n".join(
        [
            "Correlated patterns",
            introduction,
            "Inverse temperatures (inf: beyond the grid, or never; -: before it, or there is none)",
            aligned(lines),
            wrap(
                f"When sparsity pays: one step from queries with noise {chosen.noise:g} times as long as the patterns' "
                f"own part (density of sparse features {chosen.density:g}). Mean support, found and expected, error in "
                "units of sqrt(1 - w^2), and beta in units of 1/(1 - w^2), at the first weight"
            )
            + f"\n{aligned(_noisy_lines(summary))}",
            *_level(summary),
            *_timed(summary),
            bullets("What came out", [*_findings(summary), *_noisy_findings(summary), *_timed_findings(summary)]),
        ]
    )


def _findings(summary: Summary) -> list[str]:
    """Write sentences from the rows alone."""
    chosen, sentences = summary.chosen, _promises(summary)
    for model in chosen.models:
        ratios = [
            summary.predicted(case, model, w) / summary.half(case, model, w)
            for case in chosen.cases
            for w in chosen.weights
            if math.isfinite(summary.half(case, model, w)) and math.isfinite(summary.predicted(case, model, w))
        ]
        if ratios:
            sentences.append(
                f"{model}: the predicted beta for half of the patterns is {min(ratios):.3g} to {max(ratios):.3g} times "
                f"the measured one ({len(ratios)} of {len(chosen.cases) * len(chosen.weights)} cases and weights have "
                "both)."
            )
    sentences += _scaling(summary) + _cost_of_density(summary)
    for case in chosen.cases:
        never = [
            f"{model} for w = {join_numbers(lost)}"
            for model in chosen.models
            if (lost := [w for w in chosen.weights if math.isinf(summary.half(case, model, w))])
        ]
        if never:
            sentences.append(f"{case}: at no beta of the grid half of the patterns are stored: {'; '.join(never)}.")
    return sentences + _separation(summary)


def _promises(summary: Summary) -> list[str]:
    """Write how often the predictions are broken."""
    sentences = []
    sparse = [key for key in summary.keys if ALPHAS[key[1]] > 1]
    if sparse:
        agreed = sum(summary.mean(key, "broken") == summary.mean(key, "unforeseen") == 0 for key in sparse)
        broken = sum(summary.mean(key, "broken") > 0 for key in sparse)
        sentences.append(
            f"Sparse maps: in {agreed} of {len(sparse)} settings exactly the patterns are fixed points whose margin is "
            f"at least 1/((alpha - 1) beta); in {broken} one is promised and is not."
        )
    dense = [key for key in summary.keys if ALPHAS[key[1]] == 1]
    if dense:
        words = []
        for what, metric in (("limit", "broken"), ("one step", "broken_step")):
            words.append(f"{what}: broken in {sum(summary.mean(key, metric) > 0 for key in dense)} of {len(dense)}")
        sentences.append("Dense, the promise to end within the tolerance, by its bound, " + "; ".join(words) + ".")
    return sentences


def _separation(summary: Summary) -> list[str]:
    """Write from which beta on the patterns lead to different limits, beside the bound for one limit."""
    chosen, sentences = summary.chosen, []
    merged = [key for key in summary.keys if key[3] < min(summary.values(key, "one_below"))]
    if merged:
        kept = sum(max(summary.values(key, "limits")) == 1 for key in merged)
        sentences.append(f"Below the bound for one fixed point there is one limit in {kept} of {len(merged)} settings.")
    for model in chosen.models:
        apart = [(summary.apart(case, model, w), case, w) for case in chosen.cases for w in chosen.weights]
        late = [beta / summary.first(case, model, w, "one_below") for beta, case, w in apart if math.isfinite(beta)]
        if late:
            sentences.append(
                f"{model}: memories are first seen apart at {min(late):.3g} to {max(late):.3g} times that bound; the "
                f"grid's steps are a factor of {summary.coarsest():.3g}."
            )
    return sentences


def _scaling(summary: Summary) -> list[str]:
    """Write whether the betas grow as 1/(1 - w^2)."""
    sentences: list[str] = []
    if len(summary.chosen.weights) < 2:
        return sentences
    for case in summary.chosen.cases:
        spreads = {}
        for model in summary.chosen.models:
            scaled = [summary.half(case, model, w) * (1 - w * w) for w in summary.chosen.weights]
            spreads[model] = max(scaled) / min(scaled) - 1 if all(map(math.isfinite, scaled)) else math.inf
        words = {
            model: f"{s:.1g}" if math.isfinite(s) else "no number, as some are beyond the grid"
            for model, s in spreads.items()
        }
        listed = ", ".join(f"{model} {word}" for model, word in words.items())
        law = "grow as 1/(1 - w^2)" if max(spreads.values()) < 0.01 else "do not all grow as 1/(1 - w^2)"
        sentences.append(f"{case}: the measured betas {law}; relative spread of beta (1 - w^2): {listed}.")
    return sentences


def _cost_of_density(summary: Summary) -> list[str]:
    """Write how much more beta the dense model needs than the sparse one."""
    chosen = summary.chosen
    if not {"sparse", "dense"} <= {*chosen.models}:
        return []
    ratios = [
        summary.half(case, "dense", w) / summary.half(case, "sparse", w)
        for case in chosen.cases
        for w in chosen.weights
    ]
    ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
    if not ratios:
        return []
    return [
        f"For half of the patterns within the tolerance dense needs {min(ratios):.3g} to {max(ratios):.3g} times the "
        "beta with which sparse stores them exactly."
    ]


def _noisy_lines(summary: Summary) -> list[list[str]]:
    """Return the table of noisy queries, at the first weight and every third beta."""
    chosen, w = summary.chosen, summary.chosen.weights[0]
    lines = [["case", "beta"]]
    for model in summary.sparse:
        lines[0] += [f"{model}: support", "expected"]
    lines[0] += [f"error {model}" for model in chosen.models]
    for case in chosen.cases:
        for beta in sorted(chosen.betas)[::3]:
            line = [case, f"{beta:g}"]
            keys = {model: (case, model, w, beta / (1 - w * w)) for model in chosen.models}
            for model in summary.sparse:
                line += [f"{summary.mean(keys[model], name):.2f}" for name in ("noisy_support", "expected_support")]
            lines.append([*line, *(f"{summary.mean(keys[model], 'noisy_error'):.3f}" for model in chosen.models)])
    return lines


def _noisy_findings(summary: Summary) -> list[str]:
    """Write how supports compare with what is expected, and where sparse is more accurate than dense."""
    chosen, sentences = summary.chosen, []
    for case in chosen.cases:
        ratios = [
            summary.mean(key, "noisy_support") / summary.mean(key, "expected_support")
            for key in summary.keys
            if key[0] == case and key[1] != "dense"
        ]
        if ratios:
            sentences.append(
                f"{case}: the mean support at noisy queries is {min(ratios):.2f} to {max(ratios):.2f} times the "
                f"expected one, within a tenth in {sum(abs(r - 1) <= 0.1 for r in ratios)} of {len(ratios)} settings."
            )
    if not {"sparse", "dense"} <= {*chosen.models}:
        return sentences
    for case in chosen.cases:
        places: dict[str, list[float]] = {}
        for w in chosen.weights:
            better = [beta for beta in sorted(chosen.betas) if summary.measured_lead(case, w, beta) > 0]
            where = "at no beta of the grid"
            if better:
                holes = [b for b in sorted(chosen.betas) if better[0] < b < better[-1] and b not in better]
                where = f"from {better[0]:g} to {better[-1]:g}{' but for ' + join_numbers(holes) if holes else ''}"
            places.setdefault(where, []).append(w)
        words = [
            f"{where} {f'(w = {join_numbers(ws)})' if len(places) > 1 else '(all w)'}" for where, ws in places.items()
        ]
        most, least = (
            pick((summary.measured_lead(case, w, beta), w, beta) for w in chosen.weights for beta in chosen.betas)
            for pick in (max, min)
        )
        sentences.append(
            f"{case}: one step from noisy queries is more accurate with sparse than with dense for beta (1 - w^2): "
            f"{'; '.join(words)}. By at most {most[0]:.3f} (beta {most[2]:g}), and dense by at most "
            f"{max(-least[0], 0):.3f} (beta {least[2]:g})."
        )
    return sentences


def _level_lines(summary: Summary) -> list[list[str]]:
    """Return the table of the betas at which sparse and dense are level; equal weights of a case share a line."""
    lines = [["case", "w", "level", "predicted"]]
    for case in summary.chosen.cases:
        places: dict[tuple[str, ...], list[float]] = {}
        for w in summary.chosen.weights:
            found = (summary.crossings(lead, case, w) for lead in (summary.measured_lead, summary.predicted_lead))
            texts = tuple(", ".join(f"{beta:.3g}" for beta in betas) or "nowhere" for betas in found)
            places.setdefault(texts, []).append(w)
        lines += [[case, join_numbers(weights), *texts] for texts, weights in places.items()]
    return lines


def _level(summary: Summary) -> list[str]:
    """Return the table of where sparse and dense are level, where both were measured."""
    if not {"sparse", "dense"} <= {*summary.chosen.models}:
        return []
    words = (
        "Where sparse and dense are equally accurate: beta (1 - w^2), by interpolation, and as the family of patterns "
        "alone predicts it, of normal scores"
    )
    return [f"{wrap(words)}\n{aligned(_level_lines(summary), {0, 1})}"]


def _timed(summary: Summary) -> list[str]:
    """Return the table of times of one step, where there are any."""
    chosen = summary.chosen
    if not summary.seconds:
        return []
    columns = [["beta", *(f"{beta:g}" for beta in sorted(chosen.betas))]]
    columns += [[f"support {m}", *(f"{size:.1f}" for size in summary.supports(m))] for m in summary.sparse]
    columns += [[f"ms {m}", *(f"{1000 * time:.1f}" for time in summary.times(m))] for m in chosen.models]
    if summary.compares_times:
        columns += [[f"dense/{m}", *(f"{ratio:.2f}" for ratio in summary.speeds(m))] for m in summary.sparse]
    lines = [list(line) for line in zip(*columns, strict=True)]
    words = (
        f"One step of up to 1024 such queries with {chosen.timed} patterns of equal length: expected supports, and "
        "processor time"
    )
    return [wrap(words) + f"\n{aligned(lines)}"]


def _timed_findings(summary: Summary) -> list[str]:
    """Write from which support down sparse maps are faster than softmax, where both were timed."""
    if not summary.compares_times:
        return []
    sentences = []
    for model in summary.sparse:
        level, ratios = summary.level_support(model), summary.speeds(model)
        where = "at the lowest beta already" if ratios[0] > 1 else "at no beta"
        if level is not None:
            where = f"from an expected support of {level:.0f} down"
        sentences.append(
            f"{model}: one step of {summary.chosen.timed} patterns is faster than with softmax {where}; "
            f"{min(ratios):.2g} to {max(ratios):.2g} times as fast over the grid."
        )
    return sentences
