"""The protocol of the study of correlated patterns: its options, what is drawn, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield._engine.call import still_moving
from sparsehopfield.functional import retrieve, softmax, sparsemax, update
from sparsehopfield.row_maps import entmax
from sparsehopfield.studies._core.clock import timed
from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names, derive_seed

Floats = NDArray[np.float64]
#: The kinds of noise, and how they are compared.
CASES = {"equal": "dot", "free": "dot", "free-euclidean": "euclidean", "sparse": "dot", "positive": "dot"}
#: The models: their alpha, and their maps.
ALPHAS = {"sparse": 2.0, "entmax15": 1.5, "dense": 1.0}
MAPS = {"sparse": "sparsemax", "entmax15": "entmax15", "dense": "softmax"}
WEIGHTS: dict[str, Any] = {"sparse": sparsemax, "entmax15": entmax, "dense": softmax}
#: Limits that are closer than this share of the patterns' smallest distance are one.
SAME = 0.01
METRICS = (
    *("stored", "recovered", "perturbed", "one_step", "limits", "support"),
    *("predicted", "promised", "broken", "unforeseen", "predicted_step", "broken_step", "one_below"),
    *("noisy_error", "noisy_support", "expected_support"),
)


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

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
    density : float
        Share of the features that are not 0 in the cases "sparse" and "positive".
    noise : float
        Length of the noise of the noisy queries, in units of the length of the patterns' own part.
    timed : int
        Patterns of equal length of a memory on which one step is timed, at the first weight; 0 for none.
    runs : int
        Draws.
    jobs : int
        Number of settings to measure at the same time.
    """

    cases: Sequence[str] = tuple(CASES)
    models: Sequence[str] = tuple(ALPHAS)
    weights: Sequence[float] = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)
    betas: Sequence[float] = tuple(float(f"{10 ** (k / 6):.4g}") for k in range(-6, 13))
    patterns: int = 64
    d: int = 32
    tolerance: float = 0.1
    perturbation: float = 0.1
    density: float = 0.25
    noise: float = 1.0
    timed: int = 0
    runs: int = 1
    jobs: int = 1

    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "timed")
    _sequences: ClassVar[Mapping[str, type]] = {"cases": str, "models": str, "weights": float, "betas": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("cases", self.cases, CASES)
        check_names("models", self.models, ALPHAS)
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
        at_least("timed", self.timed, 0)
        if not 0 < self.density <= 1:
            raise ValueError(f"density: must be above 0 and at most 1, got {self.density:g}")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise: must be a finite number of at least 0, got {self.noise:g}")
        for name in ("tolerance", "perturbation"):
            if not 0 < getattr(self, name) < 0.5:
                raise ValueError(f"{name}: must be above 0 and below 0.5, got {getattr(self, name):g}")

    def settings(self) -> list[dict[str, Any]]:
        """Return the settings of the table."""
        return [
            {
                "case": case,
                "model": model,
                "w": w,
                "beta": beta / (1 - w * w),
                "run": k,
                "seed": derive_seed(self.seed, k),
            }
            for case in self.cases
            for model in self.models
            for w in self.weights
            for k in range(self.runs)
            for beta in sorted(self.betas)
        ]


@dataclass(frozen=True, eq=False)
class Memories:
    """Patterns, queries near them, and their distances; compared by identity, as results are cached for it.

    Attributes
    ----------
    similarity : str
        How scores are made.
    patterns, queries : ndarray of shape (M, d)
    noisy : ndarray of shape (M, d)
        Queries with more noise.
    leads : ndarray of shape (M, M)
        By how much the score of the row's pattern exceeds that of the column's, at the row's pattern; inf for itself.
    distances : ndarray of shape (M, M)
        inf for itself.
    """

    similarity: str
    patterns: Floats
    queries: Floats
    noisy: Floats
    leads: Floats
    distances: Floats

    @property
    def nearest(self) -> Floats:
        """Return the distance of each pattern to the nearest other one, (M,)."""
        return self.distances.min(axis=1)


@lru_cache(maxsize=4)
def draw_memories(
    case: str,
    w: float,
    count: int,
    d: int,
    perturbation: float,
    seed: int,
    density: float = Options.density,
    noise: float = Options.noise,
) -> Memories:
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
    density : float
        Share of the features that are not 0, in the cases that have such.
    noise : float
        Length of the noise of the noisy queries, in units of sqrt(1 - w^2).
    """
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(d)
    common /= np.linalg.norm(common)
    own = rng.standard_normal((count, d)) / d**0.5
    if case == "equal":
        own -= (own @ common)[:, None] * common
    elif case in ("sparse", "positive"):  # the common direction is a feature of its own
        common = np.eye(d)[-1]
        own = _draw_sparse(rng, count, d, density, positive=case == "positive")
    if case not in ("free", "free-euclidean"):
        own /= np.linalg.norm(own, axis=1, keepdims=True)
    patterns = w * common + math.sqrt(1 - w * w) * own
    distances = cdist(patterns, patterns)
    leads = distances**2 / 2
    if CASES[case] == "dot":  # from differences, so that close patterns lose no digits
        leads = np.array([(row - patterns) @ row for row in patterns])
    np.fill_diagonal(distances, np.inf)
    np.fill_diagonal(leads, np.inf)
    away = rng.standard_normal((count, d))
    away *= (perturbation * distances.min(axis=1) / np.linalg.norm(away, axis=1))[:, None]
    noisy = patterns + noise * math.sqrt((1 - w * w) / d) * rng.standard_normal((count, d))
    return Memories(CASES[case], patterns, patterns + away, noisy, leads, distances)


def _draw_sparse(rng: np.random.Generator, count: int, d: int, density: float, *, positive: bool) -> Floats:
    """Draw rows in which a share of the first d - 1 features is not 0, at least one: normal, or uniform from 0 to 1."""
    chosen = rng.random((count, d - 1)) < density
    empty = np.flatnonzero(~chosen.any(axis=1))
    chosen[empty, rng.integers(d - 1, size=len(empty))] = True
    rows = np.zeros((count, d))
    rows[:, :-1] = chosen * (rng.random((count, d - 1)) if positive else rng.standard_normal((count, d - 1)))
    return rows


class Predicted(NamedTuple):
    """Inverse temperatures from which on something is promised of each pattern, (M,), and that below which all are one.

    stored: the pattern is an exact fixed point (sparse maps), or the limit from it is within eps (dense).
    one_step: one step from the pattern ends within eps.
    """

    stored: Floats
    one_step: Floats
    one_below: float


@lru_cache(maxsize=4)
def predict(drawn: Memories, model: str, tolerance: float) -> Predicted:
    """Predict the retrieval of patterns under a model, by theory.

    Parameters
    ----------
    drawn : Memories
    model : str
        One of "sparse", "entmax15", "dense".
    tolerance : float
        eps as a share of the distance to the nearest other pattern.

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
    4. All one: below the beta at which `theory.contraction` is 1.
    """
    margin, eps = drawn.leads.min(axis=1), tolerance * drawn.nearest
    alpha = ALPHAS[model]
    one_below = 1 / theory.contraction(drawn.patterns, 1.0, similarity=drawn.similarity, separation=MAPS[model])
    if alpha > 1:
        with np.errstate(divide="ignore"):
            exact = np.where(margin > 0, 1 / ((alpha - 1) * margin), np.inf)
        return Predicted(exact, exact, one_below)
    m = float(np.linalg.norm(drawn.patterns, axis=1).max())
    with np.errstate(divide="ignore"):
        one_step = np.where(margin > 0, np.log(2 * m * (len(margin) - 1) / eps) / margin, np.inf)
    return Predicted(_stable_betas(drawn, eps), one_step, one_below)


def _stable_betas(drawn: Memories, eps: Floats) -> Floats:
    """Compute the beta from which on softmax provably maps the ball of radius eps around each pattern into itself; inf:
    none.

    By bisection of its logarithm from above, so that the promise holds at what is returned.
    """
    diagonal = np.eye(len(eps), dtype=bool)
    far = np.where(diagonal, 0, drawn.distances)
    slack = np.where(diagonal, np.inf, drawn.leads - eps[:, None] * far)
    feasible: Any = (slack > 0).all(axis=1)

    def stays_inside(beta: Floats) -> Any:
        """Check whether softmax at these betas maps each ball into itself."""
        return (far * np.exp(-beta[:, None] * np.where(feasible[:, None], slack, np.inf))).sum(axis=1) <= eps

    # from above: at ln(sum D/eps)/slack the largest term alone would do
    worst = np.where(feasible, slack.min(axis=1), 1.0)
    high = np.log(far.sum(axis=1) / eps) / worst * (1 + 1e-9)
    low = np.zeros_like(high)
    for _ in range(60):
        middle = (low + high) / 2
        stable = stays_inside(middle)
        low, high = np.where(stable, low, middle), np.where(stable, middle, high)
    return np.where(feasible, high, np.inf)


def typical_beta(count: int, d: int, w: float, alpha: float = 2.0) -> float:
    """Compute the beta from which on half of patterns of equal length are exact fixed points, in closed form.

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


class Scores(NamedTuple):
    """The distribution of the scores of noisy queries, in units of 1 - w^2.

    Those of the other patterns are normal with a standard deviation, and that of the query's own is above their mean by
    a lead, which is normal, too. The variance of the others grows with the lead, by `slope` times what that has above
    its mean, as longer queries have more of both.
    """

    spread: float
    lead: float
    lead_spread: float
    slope: float

    def at(self, nodes: Floats) -> tuple[Floats, Floats]:
        """Return leads and spreads of the others, where leads are so many standard deviations above their mean."""
        more = self.lead_spread * nodes
        return self.lead + more, np.sqrt(np.maximum(self.spread**2 + self.slope * more, self.spread**2 / 10))


def expected_scores(case: str, w: float, d: int, density: float, noise: float) -> Scores:
    """Compute the scores of noisy queries, from the family of patterns alone.

    Notes
    -----
    Let x = w c + sqrt(1 - w^2) (n_mu + nu e), e normal of length about 1, and v the variance of <u, n_nu> for a unit
    vector u: 1/d for d free features. Equal lengths: scores of others are w^2 + (1 - w^2) <n_mu + nu e, n_nu> with
    variance (1 - w^2)^2 (1 + nu^2 + 2 nu <e, n_mu>) v, and the own score is w^2 + (1 - w^2)(1 + nu <e, n_mu>). Patterns
    of positive features share a second direction, with the weight q = E(f)^2/E(f^2) of a feature f, 3/4 of the density
    for uniform ones: lead and variances are 1 - q times as large, and the lead varies with its part in that direction,
    too. Free lengths add |n|^2 with variance 2/d to the own score and, under dot similarity, w <c, n>/sqrt(1 - w^2) to
    all; euclidean similarity takes |n|^2/2 off all. So the support depends on w through beta (1 - w^2) alone, but for
    dot similarity and free lengths; and pattern sparsity does not count, but through q.
    """
    own, nu2 = d - 1 if case in ("equal", "sparse", "positive") else d, noise**2
    if case in ("equal", "sparse"):
        return Scores(math.sqrt((1 + nu2) / own), 1.0, math.sqrt(nu2 / own), 2 / own)
    if case == "positive":
        q = 0.75 * density
        return Scores(
            math.sqrt((1 + nu2) * (1 - q) / own), 1 - q, math.sqrt((nu2 + q) * (1 - q) / own), 2 * (1 - q) / own
        )
    if case == "free-euclidean":
        return Scores(math.sqrt((1.5 + nu2) / d), 1.0, math.sqrt((nu2 + 0.5) / d), 2 / d)
    shared = w * w / (1 - w * w)
    slope = (2 + 2 * nu2) / (2 + nu2 + shared) / d
    return Scores(math.sqrt((1 + nu2 + shared) / d), 1.0, math.sqrt((nu2 + 2 + shared) / d), slope)


@lru_cache(maxsize=4096)
def _support_at(model: str, count: int, spread: float, lead: float) -> float:
    """Return the expected support; many settings share it."""
    return theory.expected_support(count, spread, lead, separation=MAPS[model])


def predict_support(model: str, count: int, scores: Scores, beta: float) -> float:
    """Compute the expected size of the support at a noisy query, at a beta in units of 1/(1 - w^2)."""
    if model == "dense":
        return float(count)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    sizes = [  # rounded, so that equal settings are known to be so
        _support_at(model, count, float(f"{beta * spread:.9g}"), float(f"{beta * lead:.9g}"))
        for lead, spread in zip(*scores.at(nodes), strict=True)
    ]
    return float(weights @ sizes / weights.sum())


def predict_error(model: str, case: str, w: float, chosen: Options, beta: float) -> float:
    """Predict the error of one step from a noisy query, in units of sqrt(1 - w^2), from the family of patterns alone.

    Parameters
    ----------
    model, case : str
    w : float
        Weight of the common direction.
    chosen : Options
    beta : float
        In units of 1/(1 - w^2).

    Notes
    -----
    A step ends in sum p_nu n_nu, n_nu of mean square length l (1, or 1 - q for positive features, as `expected_scores`
    has it). Its part along the query is known from the score: n_nu = a_nu e + r_nu, with e the query's direction and
    a_nu = z_nu sqrt(l / d) for a score z_nu in units of the others' standard deviation, as that is sqrt(l / d) times
    the query's length. The rests r_nu of different patterns are taken as orthogonal, so that the squared error is
    (sum p a - a_mu)^2 + (1 - p_mu)^2 (l - a_mu^2) + sum over the others of p^2 (l - a^2). The others' scores are those
    of a typical draw, the normal quantiles; the mean is over the lead. So it is an approximation, the better the more
    patterns and features.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    m, features = chosen.patterns, chosen.d - (case in ("equal", "sparse", "positive"))
    square = 1 - 0.75 * chosen.density if case == "positive" else 1.0
    leads, spreads = expected_scores(case, w, chosen.d, chosen.density, chosen.noise).at(nodes)
    others = special.ndtri((np.arange(1, m) - 3 / 8) / (m - 3 / 4))
    z = np.column_stack([leads / spreads, np.tile(others, (len(nodes), 1))])
    p = WEIGHTS[model](beta * spreads[:, None] * z)
    along = np.clip(z * math.sqrt(square / features), -math.sqrt(square), math.sqrt(square))
    rest = square - along**2
    off = p.copy()
    off[:, 0] -= 1
    errors = np.sqrt((off * along).sum(axis=1) ** 2 + (off**2 * rest).sum(axis=1))
    return float(weights @ errors / weights.sum())


def measure_noisy(drawn: Memories, model: str, w: float, beta: float) -> dict[str, float]:
    """Measure one step from the noisy queries: error, in units of sqrt(1 - w^2), and size of the support."""
    scores = drawn.noisy @ drawn.patterns.T
    if drawn.similarity == "euclidean":
        scores -= (drawn.patterns**2).sum(axis=1) / 2
    weights = WEIGHTS[model](beta * scores)
    error = np.linalg.norm(weights @ drawn.patterns - drawn.patterns, axis=1).mean() / math.sqrt(1 - w * w)
    return {"noisy_error": error, "noisy_support": np.count_nonzero(weights, axis=1).mean()}


def time_step(chosen: Options, model: str, beta: float, seed: int) -> float:
    """Return the processor time of one step of up to 1024 noisy queries of equal length, the least of three, in s."""
    w, d = chosen.weights[0], chosen.d
    rng, scale = np.random.default_rng(seed), math.sqrt(1 - chosen.weights[0] ** 2)
    own = _draw_sparse(rng, chosen.timed, d, 1.0, positive=False)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    patterns = w * np.eye(d)[-1] + scale * own
    queries = patterns[:1024]
    queries = queries + chosen.noise * scale / d**0.5 * rng.standard_normal(queries.shape)
    return timed(lambda: update(queries, patterns, beta, separation=MAPS[model]))[0]


def compare(drawn: Memories, predicted: Predicted, model: str, beta: float, tolerance: float) -> dict[str, float]:
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
    with still_moving():  # near the critical beta some queries take forever
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
        "limits": count_groups(limits, SAME * drawn.nearest.min()),
        "support": info.support_size.mean(),
        "predicted": median_beta(predicted.stored),
        "promised": promised.mean(),
        "broken": (promised & ~stored).mean(),
        "unforeseen": (stored & ~promised).mean(),
        "predicted_step": median_beta(predicted.one_step),
        "broken_step": ((beta >= predicted.one_step) & ~one_step).mean(),
        "one_below": predicted.one_below,
    }


def median_beta(betas: Floats) -> float:
    """Return the lowest of the betas that at least half of them do not exceed."""
    return float(np.quantile(betas, 0.5, method="inverted_cdf"))


def count_groups(states: Floats, radius: float) -> int:
    """Count the groups that states form when those within a radius of each other belong together."""
    close = cdist(states, states) <= radius
    return int(connected_components(csr_array(close), directed=False, return_labels=False))
