"""The report of the study of bounds: tables, sentences and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.bounds.protocol import BEYOND, RULES, SIZES, WITHIN_ONLY, Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Summary(Means):
    """The results by family, kind of query, model, temperature and size of the support."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("family", "query", "scaled", "model", "support"))
        self.chosen = chosen
        self._columns = {name: np.array([key[k] for key in self.keys]) for k, name in enumerate(self.columns)}

    def where(self, **fixed: Any) -> list[tuple[Any, ...]]:
        """Return the settings with queries whose columns have these values, or one of these."""
        fits = np.ones(len(self.keys), bool)
        for name, value in fixed.items():
            fits &= np.isin(self._columns[name], np.atleast_1d(value))
        return [self.keys[k] for k in np.flatnonzero(fits) if self.mean(self.keys[k], "queries")]

    def pooled(self, keys: Sequence[tuple[Any, ...]], metric: str) -> float:
        """Return the mean of a share or mean over all queries of some settings; nan for none."""
        counts = [self.mean(key, "queries") for key in keys]
        return float(np.average([self.mean(key, metric) for key in keys], weights=counts)) if keys else math.nan

    def typical(self, keys: Sequence[tuple[Any, ...]], rule: str) -> float:
        """Return the median of error/bound over the settings with an error; nan for none."""
        ratios = [self.mean(key, f"{rule}, tightness") for key in keys if self.mean(key, "moved")]
        return float(np.median(ratios)) if ratios else math.nan

    def claimed(self, model: str, rule: str, **fixed: Any) -> list[tuple[Any, ...]]:
        """Return the settings, of any support, for which a bound is claimed."""
        kinds = [q for q in self.chosen.queries if q != BEYOND or rule not in WITHIN_ONLY]
        return self.where(model=model, support="any", query=kinds, **fixed)


_STYLES = {
    "error": plotting.STYLES["sparse"],
    "sharp": plotting.STYLES["polynomial"],
    "exponential": plotting.STYLES["dense"],
    "separation": plotting.STYLES["entmax15"],
    "printed": {"color": "#E69F00", "marker": "v", "linestyle": "-"},
    "printed exponential": {"color": "#000000", "marker": "x", "linestyle": (0, (1, 2))},
    "2m": plotting.STYLES["mean"],
}
#: Below and above this, in units of m, figures show nothing.
SHOWN = (1e-6, 1e3)


def figure(summary: Summary) -> Figure:
    """Draw the means of error and bounds over beta m^2, for queries in random directions if there are any.

    Returns
    -------
    matplotlib.figure.Figure
        One row a family, one column a model. A line ends where it is 0, and where it is out of what is shown.
    """
    chosen = summary.chosen
    kind = "random" if "random" in chosen.queries else chosen.queries[0]
    panels = []
    for family in chosen.families:
        row = []
        for model, rules in RULES.items():
            keys = summary.where(family=family, query=kind, model=model, support="any")
            x = [key[2] for key in keys]
            named = {"error": "error mean"} | {rule: f"{rule}, mean" for rule in rules if rule in _STYLES}
            lines = [
                plotting.Line(name, x, _shown([summary.mean(key, metric) for key in keys]), style=_STYLES[name])
                for name, metric in named.items()
            ]
            lines.append(plotting.Line("2m", x, [2.0] * len(x), style=_STYLES["2m"]))
            row.append(plotting.Panel(f"{family}, {model}", lines, "in units of m", SHOWN))
        panels.append(row)
    title = f"means of error and bounds; queries '{kind}'"
    return plotting.curves(panels, xlabel="beta m²", title=title, log=True, logy=True)


def support_figure(summary: Summary) -> Figure:
    """Draw the means of the sparse error and of the bounds that the support enters over its size.

    Returns
    -------
    matplotlib.figure.Figure
        One panel each, one line a family; all queries and temperatures together.
    """
    x = [least for size, (least, _) in SIZES.items() if size != "any"]
    styles = [_STYLES[name] for name in ("error", "exponential", "sharp", "separation", "printed")]
    panels = []
    for title, metric in (("error", "error mean"), ("sharp bound", "sharp, mean"), ("bound (2.6)", "printed, mean")):
        lines = []
        for family, style in zip(summary.chosen.families, styles, strict=False):
            found = [summary.where(family=family, model="sparse", support=size) for size in SIZES if size != "any"]
            lines.append(
                plotting.Line(family, x, _shown([summary.pooled(keys, metric) for keys in found]), style=style)
            )
        lines.append(plotting.Line("2m", x, [2.0] * len(x), style=_STYLES["2m"]))
        panels.append(plotting.Panel(f"sparse: {title}", lines, "mean, in units of m"))
    return plotting.curves([panels], xlabel="size of the support, or the least of its bin", log=True, logy=True)


def _shown(values: Sequence[float]) -> list[float]:
    """Return values with nan for those outside of what is shown."""
    return [value if SHOWN[0] <= value <= SHOWN[1] else math.nan for value in values]


def report_text(summary: Summary) -> str:
    """Write errors and bounds, in tables and in words."""
    chosen = summary.chosen
    introduction = wrap(
        f"{chosen.patterns} patterns a family, of {chosen.d} features (images: {chosen.dataset}), one step; beta m^2 "
        f"from {min(chosen.betas):g} to {max(chosen.betas):g}; queries {', '.join(chosen.queries)}, at "
        f"{chosen.share:g} R. violated: share of queries whose error exceeds the bound, where it is claimed; worst: "
        "the largest error/bound; informative: share of queries for which the bound is below 2m; useful: below the "
        "distance of the pattern that is farthest from the one meant; tightness: error/bound where there is an error, "
        "the median over the settings' medians."
    )
    lines = [["family", "model", "bound", "violated", "worst", "informative", "useful", "tightness"]]
    for family in chosen.families:
        for model, rules in RULES.items():
            for rule in rules:
                keys = summary.claimed(model, rule, family=family)
                worst = max((summary.mean(key, f"{rule}, worst") for key in keys), default=math.nan)
                shares = [summary.pooled(keys, f"{rule}, {metric}") for metric in ("violated", "informative", "useful")]
                lines.append(
                    [
                        *(
                            family,
                            model,
                            rule,
                            f"{shares[0]:.4f}",
                            f"{worst:.3g}",
                            f"{shares[1]:.3f}",
                            f"{shares[2]:.3f}",
                        ),
                        f"{summary.typical(keys, rule):.3g}",
                    ]
                )
    by_size = [["family", "support", "queries", "error", "sharp", "printed", "sharp, tightness"]]
    for family in chosen.families:
        for size in SIZES:
            keys = summary.where(family=family, model="sparse", support=size)
            if size != "any" and keys:
                means = [summary.pooled(keys, metric) for metric in ("error mean", "sharp, mean", "printed, mean")]
                count = sum(summary.mean(key, "queries") for key in keys)
                by_size.append(
                    [
                        *(family, size, f"{count:.0f}", *(f"{value:.3g}" for value in means)),
                        f"{summary.typical(keys, 'sharp'):.3g}",
                    ]
                )
    return "\n\n".join(
        [
            "Bounds on the retrieval error",
            introduction,
            "All temperatures and queries",
            aligned(lines),
            "Sparse, by the size of the support: means in units of m",
            aligned(by_size),
            bullets("What came out", _findings(summary)),
        ]
    )


def _findings(summary: Summary) -> list[str]:
    """Write sentences from the rows alone."""
    sentences = []
    for model, rules in RULES.items():
        for rule in rules:
            keys = summary.claimed(model, rule)
            if not keys:
                continue
            broken = [key for key in keys if summary.mean(key, f"{rule}, violated")]
            if broken:
                worst = max(broken, key=lambda key: summary.mean(key, f"{rule}, violated"))
                where = (
                    f"fails in {len(broken)} of {len(keys)} settings; most often for {worst[0]}, queries '{worst[1]}', "
                    f"beta m^2 = {worst[2]:g}: {100 * summary.mean(worst, f'{rule}, violated'):.1f} % of queries"
                )
            else:
                where = f"is kept by all queries of {len(keys)} settings"
            says = summary.pooled(keys, f"{rule}, informative")
            useful = summary.pooled(keys, f"{rule}, useful")
            words = (
                "it never says anything"
                if says == 0
                else f"it is below 2m for {100 * says:.1f} % and useful for {100 * useful:.1f} % of queries"
            )
            sentences.append(f"{model}, '{rule}': {where}; {words}.")
    for family in summary.chosen.families:
        keys = [key for key in summary.claimed("sparse", "sharp", family=family) if summary.mean(key, "moved")]
        if keys:
            sentences.append(
                f"{family}: where the sparse error is not 0 it is {summary.typical(keys, 'sharp'):.3g} of the sharp "
                f"bound in a typical setting, and {summary.typical(keys, 'exponential'):.3g} of the exponential one."
            )
    return sentences
