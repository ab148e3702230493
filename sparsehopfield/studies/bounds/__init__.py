"""Bounds on the retrieval error: which hold, which say anything, how tight they are, over beta and support size.

One step from queries of several kinds, on several families of patterns, sparse and dense; errors and bounds in units of
m, the length of the longest pattern. The bounds are those of `sparsehopfield.theory.retrieval_bound`: "sharp" (sparse
only), "exponential" (2.7 corrected), "separation" (corollary 3.1.2), "printed" (2.6, sparse only) and "printed
exponential" (2.7). "dense error" is theorem 2.2: the sparse error is at most the dense one. A bound says something
where it is below 2m, which no error exceeds, and is useful where it is below the largest distance of another pattern
from the one meant, which no error exceeds either.

Queries, R half of the smallest distance of two patterns: "pattern", the pattern itself; "random", SHARE * R from it in
a random direction; "nearest", as far towards the nearest other pattern; "mixture", half-way to another pattern, which
is beyond the papers' spheres: what is claimed only within is not broken there.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield._engine.checks import untrapped
from sparsehopfield._engine.text import aligned
from sparsehopfield.data import datasets
from sparsehopfield.functional import associate
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import base, families, tables
from sparsehopfield.studies._core.base import Outcome, among, at_least, bullets, spawned, wrapped
from sparsehopfield.studies._core.means import Means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

NAME = "bounds"
QUERIES = ("pattern", "random", "nearest", "mixture")
BEYOND = "mixture"  # lies outside the papers' spheres
#: What bounds the error of each model, and whether that is claimed within the papers' spheres only.
RULES: dict[str, tuple[str, ...]] = {
    "sparse": ("sharp", "exponential", "separation", "printed", "printed exponential", "dense error"),
    "dense": ("exponential", "separation", "printed exponential"),
}
WITHIN_ONLY = ("printed", "printed exponential", "dense error")
MAPS = {"sparse": "sparsemax", "dense": "softmax"}
#: Sizes of the sparse support, by name: the least and the most.
SIZES: dict[str, tuple[float, float]] = {
    "any": (1, math.inf),
    "1": (1, 1),
    "2": (2, 2),
    "3-4": (3, 4),
    "5-8": (5, 8),
    "9-16": (9, 16),
    "17 or more": (17, math.inf),
}
#: What depends on the size of the support.
BY_SIZE = ("sharp", "printed")
OF_ERROR = ("queries", "moved", "error mean", "error median", "error largest")
OF_BOUND = ("mean", "median", "informative", "useful", "violated", "tightness", "worst")
#: In units of m; an error this small is none, and a bound exceeded by so little is kept: both are rounded.
ROUNDING = 1e-12
EXAMPLES = """\
examples:
  python -m sparsehopfield bounds
  python -m sparsehopfield bounds --dataset mnist --families images --patterns 500
  python -m sparsehopfield bounds --families sphere gaussian --d 4 --output results/low
"""


@dataclass(frozen=True, kw_only=True)
class Options(base.Options):
    """What the study can be asked for, beside what all studies can.

    Attributes
    ----------
    families : str or sequence of str
        Of "sphere", "gaussian", "images", "correlated", "correlated-sphere".
    queries : str or sequence of str
        Of `QUERIES`.
    betas : float or sequence of float
        The inverse temperatures as beta m^2.
    patterns, d : int
        Patterns, at least 2, and features, at least 2 (of all families but images).
    asks : int
        Queries of each kind for each pattern.
    share : float
        How far queries are from their pattern, as a share of R; above 0 and at most 1.
    dataset : {"digits", "mnist", "cifar10", "imagenet64"}
        What the family "images" is drawn from.
    data : path, optional
        The folder that holds it; the digits need none.
    jobs : int
        How many settings to measure at the same time.
    """

    families: Sequence[str] = tuple(families.FAMILIES)
    queries: Sequence[str] = QUERIES
    betas: Sequence[float] = tuple(float(f"{10 ** (k / 2):.4g}") for k in range(-2, 9))
    patterns: int = 64
    d: int = 32
    asks: int = 4
    share: float = 0.9
    dataset: str = "digits"
    data: str | os.PathLike[str] | None = None
    jobs: int = 1

    _several: ClassVar[Mapping[str, type]] = {"families": str, "queries": str, "betas": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        among("families", self.families, families.FAMILIES)
        among("queries", self.queries, QUERIES)
        among("dataset", [self.dataset], datasets.DATASETS)
        for name, least in (("patterns", 2), ("d", 2), ("asks", 1), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        for beta in self.betas:
            if not 0 < beta < math.inf:
                raise ValueError(f"betas: must be positive and finite, got {beta:g}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share: must be above 0 and at most 1, got {self.share:g}")


@untrapped()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of bounds on the retrieval error.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `families`, `queries`, `betas`, `patterns`, `d`, `asks`, `share`, `dataset`, `data`, `jobs`,
        `seed`, `restart`, `progress`.

    Returns
    -------
    Outcome
    """
    chosen = Options(**options)
    if families.IMAGES in chosen.families:
        families.draw(families.IMAGES, np.random.default_rng(0), chosen.patterns, chosen.d, _images(chosen))
    settings = [
        {
            "family": family,
            "query": query,
            "scaled": beta,
            "model": model,
            "support": size,
            "seed": spawned(chosen.seed, [*families.FAMILIES].index(family)),
        }
        for family in chosen.families
        for query in chosen.queries
        for beta in sorted(chosen.betas)
        for model in RULES
        for size in (SIZES if model == "sparse" else ("any",))
    ]

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        family, query, beta, model, size, seed = setting.values()
        return judged(step(chosen, family, query, beta, seed), model, *SIZES[size])

    rows = base.measured(
        output,
        NAME,
        chosen,
        settings,
        metrics_of,
        measure,
    )
    summary = Summary(rows, chosen)
    files = plotting.save(figure(summary), Path(output, NAME))
    files += plotting.save(support_figure(summary), Path(output, f"{NAME}-support"))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def metrics_of(setting: Mapping[str, Any]) -> list[str]:
    """The metrics of a setting, which depend on its model, and are fewer for one size of the support."""
    rules: Sequence[str] = RULES[setting["model"]]
    metrics: Sequence[str] = OF_BOUND
    if setting["support"] != "any":
        rules, metrics = BY_SIZE, ("mean", "violated", "tightness")
    return [*OF_ERROR, *(f"{rule}, {metric}" for rule in rules for metric in metrics)]


# What is measured


def _images(chosen: Options) -> datasets.ImageSet:
    return _loaded(chosen.dataset, None if chosen.data is None else os.fspath(chosen.data))


@lru_cache(maxsize=1)
def _loaded(dataset: str, data: str | None) -> datasets.ImageSet:
    return datasets.load(dataset, data)


@dataclass(frozen=True, eq=False)
class Step:
    """One step from several queries, all (N,): sizes of the sparse support; and in units of m how far the farthest
    pattern is from the one meant, the errors by their models, and what bounds them."""

    support: NDArray[np.int64]
    farthest: Floats
    error: dict[str, Floats]
    bounds: dict[str, Floats]


def asked(
    rng: np.random.Generator, patterns: Floats, kind: str, asks: int, share: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Queries of a kind, and the pattern that each is to find.

    Parameters
    ----------
    rng : numpy.random.Generator
    patterns : ndarray of shape (M, d)
    kind : str
        One of `QUERIES`.
    asks : int
        Queries for each pattern; of "pattern" and "nearest", which are not random, one.
    share : float
        How far they are from it, as a share of R.

    Returns
    -------
    queries : ndarray of shape (N, d)
    index : ndarray of int64, shape (N,)
    """
    m, d = patterns.shape
    index = np.repeat(np.arange(m), asks if kind in ("random", "mixture") else 1)
    own = patterns[index]
    if kind == "pattern":
        return own, index
    if kind == "mixture":
        other = (index + rng.integers(1, m, len(index))) % m
        return (own + patterns[other]) / 2, index
    if kind == "random":
        away = rng.standard_normal((len(index), d))
    else:
        distances = cdist(patterns, patterns)
        np.fill_diagonal(distances, np.inf)
        away = patterns[distances.argmin(axis=1)] - patterns
    length = np.linalg.norm(away, axis=1, keepdims=True)
    towards = np.divide(away, length, out=np.zeros_like(away), where=length > 0)  # a copy is where it is going
    return own + share * theory.min_half_distance(patterns) * towards, index


@lru_cache(maxsize=2)
def step(chosen: Options, family: str, kind: str, scaled: float, seed: int) -> Step:
    """One step from all queries of a kind.

    Parameters
    ----------
    chosen : Options
    family, kind : str
        Of the families, of `QUERIES`.
    scaled : float
        beta m^2.
    seed : int

    Returns
    -------
    Step
    """
    rng = np.random.default_rng(seed)
    images = _images(chosen) if family == families.IMAGES else None
    patterns = families.draw(family, rng, chosen.patterns, chosen.d, images)
    x, mu = asked(rng, patterns, kind, chosen.asks, chosen.share)
    m = float(np.linalg.norm(patterns, axis=1).max())
    beta = scaled / m**2
    error = {name: theory.retrieval_error(x, patterns, mu, beta, separation=MAPS[name]) / m for name in MAPS}
    bounds = {rule: theory.retrieval_bound(x, patterns, mu, beta, rule=rule) / m for rule in theory.BOUNDS}
    farthest = cdist(patterns, patterns).max(axis=1)[mu] / m
    support = np.diff(associate(x, patterns, beta).indptr).astype(np.int64)
    return Step(support, farthest, error, bounds | {"dense error": error["dense"]})


def judged(found: Step, model: str, least: float, most: float) -> dict[str, float]:
    """Errors of a model and their bounds, over the queries whose sparse support has a size, in numbers.

    Parameters
    ----------
    found : Step
    model : str
        One of `RULES`.
    least, most : float
        The size.

    Returns
    -------
    dict of str to float
        `queries`, how many there are, and of the errors `moved`, the share that is not 0, mean, median and largest. Of
        each bound mean and median; the shares of queries where it is below 2m (`informative`), below the distance of
        the farthest pattern (`useful`), and below the error (`violated`); error/bound where the error is not 0: the
        median (`tightness`) and the largest (`worst`). All are 0 where there is no such query.
    """
    chosen = (found.support >= least) & (found.support <= most)
    error, farthest = found.error[model][chosen], found.farthest[chosen]
    moved = error > ROUNDING
    values = {
        "queries": float(len(error)),
        "moved": _or_zero(np.mean, moved),
        "error mean": _or_zero(np.mean, error),
        "error median": _or_zero(np.median, error),
        "error largest": _or_zero(np.max, error),
    }
    for rule in RULES[model]:
        bound = found.bounds[rule][chosen]
        with np.errstate(divide="ignore", over="ignore"):
            ratio = error[moved] / bound[moved]
        for metric, value in (
            ("mean", _or_zero(np.mean, bound)),
            ("median", _or_zero(np.median, bound)),
            ("informative", _or_zero(np.mean, bound < 2 * (1 - ROUNDING))),
            ("useful", _or_zero(np.mean, bound < farthest * (1 - ROUNDING))),
            ("violated", _or_zero(np.mean, error > bound * (1 + 1e-9) + ROUNDING)),
            ("tightness", _or_zero(np.median, ratio)),
            ("worst", _or_zero(np.max, ratio)),
        ):
            values[f"{rule}, {metric}"] = value
    return values


def _or_zero(of: Any, values: NDArray[Any]) -> float:
    return float(of(values)) if len(values) else 0.0


# What came out


class Summary(Means):
    """What came out by family, kind of query, model, temperature and size of the support.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    chosen : Options
        What was asked for.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("family", "query", "scaled", "model", "support"))
        self.chosen = chosen
        self._columns = {name: np.array([key[k] for key in self.keys]) for k, name in enumerate(self.columns)}

    def where(self, **fixed: Any) -> list[tuple[Any, ...]]:
        """The settings with queries whose columns have these values, or one of these."""
        fits = np.ones(len(self.keys), bool)
        for name, value in fixed.items():
            fits &= np.isin(self._columns[name], np.atleast_1d(value))
        return [self.keys[k] for k in np.flatnonzero(fits) if self.mean(self.keys[k], "queries")]

    def pooled(self, keys: Sequence[tuple[Any, ...]], metric: str) -> float:
        """The mean of a share or mean over all queries of some settings; nan for none."""
        counts = [self.mean(key, "queries") for key in keys]
        return float(np.average([self.mean(key, metric) for key in keys], weights=counts)) if keys else math.nan

    def typical(self, keys: Sequence[tuple[Any, ...]], rule: str) -> float:
        """The median of error/bound over the settings in which something moves; nan for none."""
        ratios = [self.mean(key, f"{rule}, tightness") for key in keys if self.mean(key, "moved")]
        return float(np.median(ratios)) if ratios else math.nan

    def claimed(self, model: str, rule: str, **fixed: Any) -> list[tuple[Any, ...]]:
        """The settings, of any support, for which a bound is claimed."""
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

    Parameters
    ----------
    summary : Summary
        What came out.

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

    Parameters
    ----------
    summary : Summary
        What came out.

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
    """Values, without those beyond what is shown."""
    return [value if SHOWN[0] <= value <= SHOWN[1] else math.nan for value in values]


# Words


def report_text(summary: Summary) -> str:
    """Errors and bounds, in tables and in words.

    Parameters
    ----------
    summary : Summary
        What came out.

    Returns
    -------
    str
    """
    chosen = summary.chosen
    introduction = wrapped(
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    own = partial(base.add_own, parser, default)
    base.add_families_options(parser, default)
    own("queries", "kinds of queries", choices=QUERIES)
    own("betas", "inverse temperatures times m^2", metavar="BETA", shown="0.1 to 10000, 2 a decade")
    own("asks", "queries of a kind for each pattern", metavar="N")
    own("share", "how far queries are from their pattern, as a share of R", metavar="SHARE")
    base.add_jobs_option(parser)
    base.add_options(parser, f"results/{NAME}-DATASET", default)
