"""Correlated patterns: from which beta on patterns with a common direction come apart, beside what theory predicts.

Patterns are w c + sqrt(1 - w^2) n: a common unit vector c, and noise n of each pattern's own. Case "equal": n uniform
on the unit sphere orthogonal to c, so that all have length 1. "free" and "free-euclidean": n of independent features of
variance 1/d, so that lengths differ, and with them what dot and euclidean similarity find. Each pattern, and a query
near it, is retrieved to its fixed point, over w and beta.

Predictions, with D the distance of a pattern to the nearest other one and eps = TOLERANCE * D. Sparse maps
(alpha-entmax, alpha = 2 for sparsemax): stored exactly from beta = 1/((alpha - 1) margin) on, and for patterns of equal
length only then; there margin = D^2/2 = (1 - w^2)(1 - C), C the largest cosine of two noises. Dense: the limit is
within eps from the beta on at which sum over nu of D_nu exp(-beta (lead_nu - eps D_nu)) = eps; one step is from beta =
ln(2m(M-1)/eps)/margin on. Below beta = 1/s (dense 2/s), s the largest eigenvalue of the patterns' scatter matrix, all
memories are one.

In "equal" and "free-euclidean" scores at w and beta differ from those of the noise alone at beta (1 - w^2) only by
what all patterns share, which no map sees: all of these betas grow as 1/(1 - w^2). Under dot similarity lengths are in
the way: <c, n> differs between patterns, so that from some w on those that lie further along c outrank the others.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield._engine.checks import untrapped
from sparsehopfield._engine.text import aligned
from sparsehopfield.errors import RetrievalWarning
from sparsehopfield.functional import retrieve, update
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import base, tables
from sparsehopfield.studies._core.base import Outcome, among, at_least, bullets, spawned, wrapped
from sparsehopfield.studies._core.means import Means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

NAME = "correlated"
#: The kinds of noise, and how they are compared.
CASES = {"equal": "dot", "free": "dot", "free-euclidean": "euclidean"}
_TITLES = {
    "equal": "equal lengths, dot",
    "free": "unequal lengths, dot",
    "free-euclidean": "unequal lengths, euclidean",
}
#: The models: their maps and alpha, and by what beta s, s the scatter matrix's largest eigenvalue, is divided to
#: bound the norm of their Jacobian.
ALPHAS = {"sparse": 2.0, "entmax15": 1.5, "dense": 1.0}
MAPS = {"sparse": "sparsemax", "entmax15": "entmax15", "dense": "softmax"}
SLOWNESS = {"sparse": 1.0, "entmax15": 1.0, "dense": 2.0}
#: Limits that are closer than this share of the patterns' smallest distance are one.
SAME = 0.01
METRICS = (
    *("stored", "recovered", "perturbed", "one_step", "limits", "support"),
    *("predicted", "promised", "broken", "unforeseen", "predicted_step", "broken_step", "one_below"),
)
EXAMPLES = """\
examples:
  python -m sparsehopfield correlated
  python -m sparsehopfield correlated --models sparse --weights 0 0.9 --runs 5 --output results/runs
  python -m sparsehopfield correlated --cases equal --patterns 256 --d 128 --output results/larger
"""


@dataclass(frozen=True, kw_only=True)
class Options(base.Options):
    """What the study can be asked for, beside what all studies can.

    Attributes
    ----------
    cases : str or sequence of str
        Of `CASES`.
    models : str or sequence of str
        Of "sparse", "entmax15", "dense".
    weights : float or sequence of float
        Weights w of the common direction, from 0 to below 1.
    betas : float or sequence of float
        Inverse temperatures in units of 1/(1 - w^2).
    patterns, d : int
        Patterns, at least 2, and features, at least 3.
    tolerance : float
        How far from a pattern a limit may be to count as it, as a share of the distance to the nearest other pattern.
    perturbation : float
        How far from the pattern queries begin, as a share of the same.
    runs : int
        Draws.
    jobs : int
        How many settings to measure at the same time.
    """

    cases: Sequence[str] = tuple(CASES)
    models: Sequence[str] = tuple(ALPHAS)
    weights: Sequence[float] = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)
    betas: Sequence[float] = tuple(float(f"{10 ** (k / 6):.4g}") for k in range(-6, 13))
    patterns: int = 64
    d: int = 32
    tolerance: float = 0.1
    perturbation: float = 0.1
    runs: int = 1
    jobs: int = 1

    _several: ClassVar[Mapping[str, type]] = {"cases": str, "models": str, "weights": float, "betas": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        among("cases", self.cases, CASES)
        among("models", self.models, ALPHAS)
        at_least("patterns", self.patterns, 2)
        at_least("d", self.d, 3)
        for name in ("runs", "jobs"):
            at_least(name, getattr(self, name), 1)
        for w in self.weights:
            if not 0 <= w < 1:
                raise ValueError(f"weights: must be at least 0 and below 1, got {w:g}")
        for beta in self.betas:
            if not 0 < beta < math.inf:
                raise ValueError(f"betas: must be positive and finite, got {beta:g}")
        for name in ("tolerance", "perturbation"):
            if not 0 < getattr(self, name) < 0.5:
                raise ValueError(f"{name}: must be above 0 and below 0.5, got {getattr(self, name):g}")


@untrapped()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of correlated patterns.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `cases`, `models`, `weights`, `betas`, `patterns`, `d`, `tolerance`, `perturbation`, `runs`,
        `jobs`, `seed`, `restart`, `progress`.

    Returns
    -------
    Outcome
    """
    chosen = Options(**options)
    settings = [
        {"case": case, "model": model, "w": w, "beta": beta / (1 - w * w), "run": k, "seed": spawned(chosen.seed, k)}
        for case in chosen.cases
        for model in chosen.models
        for w in chosen.weights
        for k in range(chosen.runs)
        for beta in sorted(chosen.betas)
    ]

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        case, model, w, beta, _, seed = setting.values()
        drawn = memories(case, w, chosen.patterns, chosen.d, chosen.perturbation, seed)
        return measured(drawn, predictions(drawn, model, chosen.tolerance), model, beta, chosen.tolerance)

    rows = base.measured(
        output,
        NAME,
        chosen,
        settings,
        METRICS,
        measure,
    )
    summary = Summary(rows, chosen)
    files = plotting.save(figure(summary), Path(output, NAME))
    files += plotting.save(shares_figure(summary), Path(output, f"{NAME}-shares"))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


# What is stored


@dataclass(frozen=True, eq=False)
class Memories:
    """Patterns, queries near them, and how they lie to each other; compared by identity, as what is kept of it is.

    Attributes
    ----------
    similarity : str
        How scores are made.
    patterns, queries : ndarray of shape (M, d)
    leads : ndarray of shape (M, M)
        By how much the score of the row's pattern exceeds that of the column's, at the row's pattern; inf for itself.
    distances : ndarray of shape (M, M)
        inf for itself.
    """

    similarity: str
    patterns: Floats
    queries: Floats
    leads: Floats
    distances: Floats

    @property
    def nearest(self) -> Floats:
        """The distance of each pattern to the nearest other one, (M,)."""
        return self.distances.min(axis=1)


@lru_cache(maxsize=4)
def memories(case: str, w: float, count: int, d: int, perturbation: float, seed: int) -> Memories:
    """Draw patterns with a common direction, and queries near them; for every w from the same noise.

    Parameters
    ----------
    case : str
        One of `CASES`.
    w : float
        Weight of the common direction.
    count, d : int
        Patterns and features.
    perturbation : float
        How far a query is from its pattern, as a share of the distance to the nearest other one.
    seed : int

    Returns
    -------
    Memories
    """
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(d)
    common /= np.linalg.norm(common)
    noise = rng.standard_normal((count, d)) / d**0.5
    if case == "equal":
        noise -= (noise @ common)[:, None] * common
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    patterns = w * common + math.sqrt(1 - w * w) * noise
    distances = cdist(patterns, patterns)
    leads = distances**2 / 2
    if CASES[case] == "dot":  # from differences, so that close patterns lose no digits
        leads = np.array([(row - patterns) @ row for row in patterns])
    np.fill_diagonal(distances, np.inf)
    np.fill_diagonal(leads, np.inf)
    away = rng.standard_normal((count, d))
    away *= (perturbation * distances.min(axis=1) / np.linalg.norm(away, axis=1))[:, None]
    return Memories(CASES[case], patterns, patterns + away, leads, distances)


# What is predicted of it


class Predicted(NamedTuple):
    """Inverse temperatures from which on something is promised of each pattern, (M,), and that below which all are one.

    stored: the pattern is an exact fixed point (sparse maps), or the limit from it is within eps (dense).
    one_step: one step from the pattern ends within eps.
    """

    stored: Floats
    one_step: Floats
    one_below: float


@lru_cache(maxsize=4)
def predictions(drawn: Memories, model: str, tolerance: float) -> Predicted:
    """What theory says of patterns under a model.

    Parameters
    ----------
    drawn : Memories
    model : str
        One of "sparse", "entmax15", "dense".
    tolerance : float
        eps as a share of the distance to the nearest other pattern.

    Returns
    -------
    Predicted

    Notes
    -----
    1. Sparse maps give xi_mu all weight iff its score leads by 1/((alpha - 1) beta): [(alpha - 1) z - tau]_+ to the
       power 1/(alpha - 1) is 1 for the best iff tau = (alpha - 1) z_max - 1, and 0 for the others iff theirs is at most
       tau. Necessary for xi_mu to be a fixed point where it is an extreme point (patterns of equal length all are).
    2. Dense, limit: for |x - xi_mu| <= eps the lead over nu is at least lead_nu - eps D_nu, and softmax weights are at
       most exp(-beta lead), so |T(x) - xi_mu| <= sum over nu of p_nu D_nu <= sum D_nu exp(-beta (lead_nu - eps D_nu)).
       Where that is at most eps, T maps the ball into itself, and the iteration from xi_mu never leaves it. It falls
       with beta if all lead_nu > eps D_nu; else nothing is promised.
    3. Dense, one step: `theory.retrieval_bound(rule="exponential")` at x = xi_mu, solved for beta. Sparse errors obey
       it, too; what stands here for sparse maps is the beta of 1., from which on that error is 0.
    4. All one: `theory.contraction`. Where a map's weights p have s = p^(2 - alpha) <= 1, its Jacobian's form is
       v'Jv = sum s (v - v_s)^2 with the s-weighted mean v_s, at most sum (v - v_mean)^2: the bound for sparsemax holds
       for every alpha from 1 to 2. For softmax it is a variance, at most half of |v|^2.
    """
    margin, eps = drawn.leads.min(axis=1), tolerance * drawn.nearest
    alpha = ALPHAS[model]
    spread = theory.contraction(drawn.patterns, 1.0, similarity=drawn.similarity)
    if alpha > 1:
        with np.errstate(divide="ignore"):
            exact = np.where(margin > 0, 1 / ((alpha - 1) * margin), np.inf)
        return Predicted(exact, exact, SLOWNESS[model] / spread)
    m = float(np.linalg.norm(drawn.patterns, axis=1).max())
    with np.errstate(divide="ignore"):
        one_step = np.where(margin > 0, np.log(2 * m * (len(margin) - 1) / eps) / margin, np.inf)
    return Predicted(_kept_in_ball(drawn, eps), one_step, SLOWNESS[model] / spread)


def _kept_in_ball(drawn: Memories, eps: Floats) -> Floats:
    """The beta from which on softmax provably maps the ball of radius eps around each pattern into itself; inf: none.

    By bisection of its logarithm from above, so that the promise holds at what is returned.
    """
    own = np.eye(len(eps), dtype=bool)
    far = np.where(own, 0, drawn.distances)
    slack = np.where(own, np.inf, drawn.leads - eps[:, None] * far)
    able: Any = (slack > 0).all(axis=1)

    def kept(beta: Floats) -> Any:
        return (far * np.exp(-beta[:, None] * np.where(able[:, None], slack, np.inf))).sum(axis=1) <= eps

    # from above: at ln(sum D/eps)/slack the largest term alone would do
    worst = np.where(able, slack.min(axis=1), 1.0)
    high = np.log(far.sum(axis=1) / eps) / worst * (1 + 1e-9)
    low = np.zeros_like(high)
    for _ in range(60):
        middle = (low + high) / 2
        fine = kept(middle)
        low, high = np.where(fine, low, middle), np.where(fine, middle, high)
    return np.where(able, high, np.inf)


def typical_beta(count: int, d: int, w: float, alpha: float = 2.0) -> float:
    """The beta from which on half of patterns of equal length are exact fixed points, in closed form.

    Parameters
    ----------
    count, d : int
        Patterns and features.
    w : float
        Weight of the common direction.
    alpha : float
        Of the map, above 1.

    Returns
    -------
    float
        1/((alpha - 1)(1 - w^2)(1 - C)), C the median of the largest cosine of one noise with all others: these are
        independent, so (1 - F(C))^(M - 1) = 1/2, F(C) the probability that two points on the sphere of d - 1 dimensions
        have a larger cosine, which is half the regularised incomplete beta function of 1 - C^2 at ((d - 2)/2, 1/2).
    """
    closer = -math.expm1(-math.log(2) / (count - 1))
    cosine = math.sqrt(1 - float(special.betaincinv((d - 2) / 2, 0.5, min(1.0, 2 * closer))))
    return 1 / ((alpha - 1) * (1 - w * w) * (1 - cosine))


# What comes out


def measured(drawn: Memories, predicted: Predicted, model: str, beta: float, tolerance: float) -> dict[str, float]:
    """Retrieve all patterns and the queries near them, and compare with what is predicted.

    Parameters
    ----------
    drawn : Memories
    predicted : Predicted
    model : str
    beta : float
    tolerance : float
        How far from a pattern a limit may be, as a share of the distance to the nearest other pattern.

    Returns
    -------
    dict of str to float
        The metrics: shares of the patterns, but for `limits` (how many states they lead to), `support` (its
        mean size there) and inverse temperatures: `predicted` and `predicted_step`, for half of the patterns, and
        `one_below`. `promised`: predicted to be stored; `broken`, `broken_step`: promised and not so; `unforeseen`:
        stored and not promised.
    """
    x = drawn.patterns
    how: dict[str, Any] = {"similarity": drawn.similarity, "separation": MAPS[model]}
    step = update(x, x, beta, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RetrievalWarning)  # near the critical beta some queries take forever
        limits, info = retrieve(x, x, beta, tol=1e-8, return_info=True, **how)
        near = retrieve(drawn.queries, x, beta, tol=1e-8, **how)
    eps = tolerance * drawn.nearest
    recovered, perturbed, one_step = (np.linalg.norm(s - x, axis=1) <= eps for s in (limits, near, step))
    stored = recovered if model == "dense" else (step == x).all(axis=1)
    promised = beta >= predicted.stored
    return {
        "stored": stored.mean(),
        "recovered": recovered.mean(),
        "perturbed": perturbed.mean(),
        "one_step": one_step.mean(),
        "limits": distinct(limits, SAME * drawn.nearest.min()),
        "support": info.support_size.mean(),
        "predicted": half_of(predicted.stored),
        "promised": promised.mean(),
        "broken": (promised & ~stored).mean(),
        "unforeseen": (stored & ~promised).mean(),
        "predicted_step": half_of(predicted.one_step),
        "broken_step": ((beta >= predicted.one_step) & ~one_step).mean(),
        "one_below": predicted.one_below,
    }


def half_of(betas: Floats) -> float:
    """The lowest of the betas that at least half of them do not exceed."""
    return float(np.quantile(betas, 0.5, method="inverted_cdf"))


def distinct(states: Floats, radius: float) -> int:
    """How many groups states form when those within a radius of each other belong together."""
    close = cdist(states, states) <= radius
    return int(connected_components(csr_array(close), directed=False, return_labels=False))


class Summary(Means):
    """What came out by case, model, weight and beta.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    chosen : Options
        What was asked for.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("case", "model", "w", "beta"))
        self.chosen = chosen
        self.groups = list(dict.fromkeys(key[:2] for key in self.keys))

    def curve(self, case: str, model: str, w: float, metric: str) -> tuple[list[float], list[float]]:
        """Inverse temperatures, and the metric at each."""
        keys = [key for key in self.keys if key[:3] == (case, model, w)]
        return [key[3] for key in keys], [self.mean(key, metric) for key in keys]

    def first(self, case: str, model: str, w: float, metric: str) -> float:
        """What does not depend on beta: the metric at the first."""
        return self.curve(case, model, w, metric)[1][0]

    def half(self, case: str, model: str, w: float, metric: str = "stored") -> float:
        """From which beta on the metric is at least a half for good, by interpolation of ln beta.

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
        """The lowest beta at which the patterns lead to more than one state; inf if none."""
        betas, limits = self.curve(case, model, w, "limits")
        return next((beta for beta, n in zip(betas, limits, strict=True) if n > 1), math.inf)

    def predicted(self, case: str, model: str, w: float) -> float:
        """The beta predicted for half of the patterns: of several runs' the middle one."""
        return half_of(self.values(next(k for k in self.keys if k[:3] == (case, model, w)), "predicted"))

    def coarsest(self) -> float:
        """The largest step of the grid of betas, as a factor."""
        betas = sorted(self.chosen.betas)
        return max((b / a for a, b in itertools.pairwise(betas)), default=1.0)


def figure(summary: Summary) -> Figure:
    """Draw the beta at which half of the patterns are stored over the weight of the common direction.

    Parameters
    ----------
    summary : Summary
        What came out.

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

    Parameters
    ----------
    summary : Summary
        What came out.

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


# Words


def report_text(summary: Summary) -> str:
    """Measured and predicted, in tables and in words.

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
            bullets("What came out", _findings(summary)),
        ]
    )


def _findings(summary: Summary) -> list[str]:
    chosen, sentences = summary.chosen, []
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
            f"{model} for w = {base.listed(lost)}"
            for model in chosen.models
            if (lost := [w for w in chosen.weights if math.isinf(summary.half(case, model, w))])
        ]
        if never:
            sentences.append(f"{case}: at no beta of the grid half of the patterns are stored: {'; '.join(never)}.")
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
    """Whether the betas grow as 1/(1 - w^2)."""
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
    """How much more beta the dense model needs than the sparse one."""
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    own = partial(base.add_own, parser, default)
    own("cases", "kinds of noise", choices=CASES)
    own("models", "models", choices=ALPHAS)
    own("weights", "weights of the common direction", metavar="W")
    own("betas", "inverse temperatures in units of 1/(1 - w^2)", metavar="BETA", shown="0.1 to 100, 6 a decade")
    own("patterns", "patterns", metavar="M")
    own("d", "features", metavar="D")
    own("runs", "draws", metavar="N")
    apart = "as a share of the distance to the nearest other pattern"
    own("tolerance", f"how far from a pattern a limit may be to count as it, {apart}", metavar="SHARE")
    own("perturbation", f"how far from the pattern queries begin, {apart}", metavar="SHARE")
    base.add_jobs_option(parser)
    base.add_options(parser, f"results/{NAME}", default)
