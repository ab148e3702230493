"""The protocol of the study of flipped bits: its options, what is drawn, and what is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import theory
from sparsehopfield._engine.call import still_moving
from sparsehopfield._engine.separations import cutoff_of, separation_code
from sparsehopfield.functional import retrieve, update
from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names
from sparsehopfield.studies.flips.classical import HebbianNetwork, one_step_share

Floats = NDArray[np.float64]
#: The models and their maps; the network of 1982 has none.
MODELS = {"sparse": "sparsemax", "entmax15": "entmax15", "dense": "softmax", "1982": None}
#: The lead that a score needs to have all weight, times beta: the cutoff of the map; inf: none suffices.
LEADS = {
    model: (separation and cutoff_of(separation_code(separation))) or math.inf for model, separation in MODELS.items()
}
UPDATES = ("asynchronous", "synchronous")
METRICS = (
    *("one_step", "rest", "right_bits", "exact", "predicted"),
    *("in_ball", "certified", "broken", "ball_flips", "certified_flips"),
    *("flips_99", "flips_half", "steps"),
)
STEPS = 100  # at most, to rest
#: Of the shares restored exactly whose last number of flips is measured.
LEVELS = {"flips_99": 0.99, "flips_half": 0.5}


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    models : str or sequence of str
        Of "sparse", "entmax15", "dense", "1982".
    dims : int or sequence of int
        Bits d of a pattern, at least 2.
    sizes : int or sequence of int
        Numbers M of patterns.
    rates : float or sequence of float
        Shares of the bits that are flipped, from 0 to below 1.
    betas : float or sequence of float
        Inverse temperatures in units of 1/d, of all models but that of 1982.
    updates : {"asynchronous", "synchronous"}
        How the network of 1982 comes to rest.
    queries : int
        Queries of each setting.
    runs : int
        Draws of patterns.
    jobs : int
        Number of settings to measure at the same time.
    """

    models: Sequence[str] = tuple(MODELS)
    dims: Sequence[int] = (128,)
    sizes: Sequence[int] = (4, 8, 12, 18, 24, 32, 256, 4096)
    rates: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.35, 0.4)
    betas: Sequence[float] = (8.0, 32.0, 128.0)
    updates: str = "asynchronous"
    queries: int = 200
    runs: int = 1
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {
        "models": str,
        "dims": int,
        "sizes": int,
        "rates": float,
        "betas": float,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("models", self.models, MODELS)
        check_names("updates", (self.updates,), UPDATES)
        at_least("dims", min(self.dims), 2)
        at_least("sizes", min(self.sizes), 1)
        for name in ("queries", "runs", "jobs"):
            at_least(name, getattr(self, name), 1)
        for rate in self.rates:
            if not 0 <= rate < 1:
                raise ValueError(f"rates: must be at least 0 and below 1, got {rate:g}")
        for beta in self.betas:
            if not 0 < beta < math.inf:
                raise ValueError(f"betas: must be positive and finite, got {beta:g}")


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries, and the patterns that they are to find.

    Attributes
    ----------
    queries, targets : ndarray of shape (n, d)
    index : ndarray of int, shape (n,)
        Of the targets.
    """

    queries: Floats
    targets: Floats
    index: NDArray[np.int64]


@lru_cache(maxsize=2)
def draw_patterns(d: int, count: int, seed: int) -> Floats:
    """Draw random patterns of 1 and -1."""
    return np.random.default_rng(seed).choice((-1.0, 1.0), (count, d))


@lru_cache(maxsize=2)
def draw_queries(d: int, count: int, seed: int, flips: int, number: int) -> Queries:
    """Draw queries: random patterns of those stored, in each of which so many bits are flipped."""
    rng = np.random.default_rng([seed, flips])
    patterns = draw_patterns(d, count, seed)
    index = rng.integers(count, size=number)
    which = rng.random((number, d)).argsort(axis=1)[:, :flips]
    queries = patterns[index]
    np.put_along_axis(queries, which, -np.take_along_axis(queries, which, axis=1), axis=1)
    return Queries(queries, patterns[index], index)


@lru_cache(maxsize=8)
def _certified_flips(model: str, d: int, count: int, seed: int, beta: float) -> tuple[NDArray[np.int64], Floats]:
    """Return how many flips of each pattern are certified, and how many of them stay in its exact ball."""
    patterns = draw_patterns(d, count, seed)
    if math.isinf(LEADS[model]):
        return np.full(count, -1), np.full(count, -1.0)
    radius = theory.exact_radius(patterns, beta / LEADS[model])
    # f flips move a pattern by 2 sqrt(f)
    in_ball = np.where(radius < 0, -1.0, np.floor(np.minimum((radius / 2) ** 2 * (1 + 1e-12), d)))
    return theory.exact_flips(patterns, beta, separation=MODELS[model] or ""), in_ball


@lru_cache(maxsize=8)
def _last_flips(model: str, d: int, count: int, seed: int, beta: float, number: int) -> dict[str, float]:
    """Measure up to how many flips one step restores at least a level of the queries exactly, for all levels.

    Of the numbers of flips with at least the level, next to one with less, the nearest to the one that
    `predicted_flips` gives: from there on neighbours are measured, one after another; -1 if there is none.
    """
    patterns, shares = draw_patterns(d, count, seed), {-1: 1.0, d + 1: 0.0}

    def share(flips: int) -> float:
        if flips not in shares:
            drawn = draw_queries(d, count, seed, flips, number)
            step = update(drawn.queries, patterns, beta, separation=MODELS[model] or "")
            shares[flips] = (step == drawn.targets).all(axis=1).mean()
        return shares[flips]

    last = {}
    for name, level in LEVELS.items():
        flips = predicted_flips(model, d, count, beta, level)
        while share(flips) < level:
            flips -= 1
        while share(flips + 1) >= level:
            flips += 1
        last[name] = float(flips)
    return last


def predicted_flips(model: str, d: int, count: int, beta: float, level: float) -> int:
    """Return up to how many flips one step restores a pattern exactly with at least a probability, in closed form."""
    recall = theory.exact_recall(d, count, np.arange(d + 1), beta, separation=MODELS[model] or "")
    return int(np.count_nonzero(recall >= level)) - 1


def flips_of(d: int, rate: float) -> int:
    """Return the number of bits that a rate flips."""
    return round(rate * d)


def measure(chosen: Options, setting: Mapping[str, Any]) -> dict[str, float]:
    """Measure one setting.

    Parameters
    ----------
    chosen : Options
        Of which `queries` and `updates` are used.
    setting : mapping
        model, d, patterns, beta_hat, rate, run, seed.

    Returns
    -------
    dict of str to float
        Shares of the queries: `one_step`, `rest`: all bits of the state have the pattern's sign after one step, at
        rest; `right_bits`: the share of bits that have, at rest; `exact`: one step ends on exactly the pattern;
        `predicted`: the probability of that in closed form (1982: of all bits being right); `in_ball`, `certified`: the
        flips are so few that they stay in the pattern's exact ball, that they are undone whichever bits they hit;
        `broken`: certified, and one step does not end on exactly the pattern.
        Numbers: `steps`, the mean number of updates (sweeps) until rest. And for all rates the same: `ball_flips`,
        `certified_flips`, how many flips stay in the exact ball, are certified, the median over the queries' patterns;
        `flips_99`, `flips_half`, up to how many random flips one step restores 99 %, half of the queries exactly,
        measured at this number of flips and at the next.
    """
    model, d, count, beta_hat, rate, _, seed = setting.values()
    flips = flips_of(d, rate)
    drawn, patterns = draw_queries(d, count, seed, flips, chosen.queries), draw_patterns(d, count, seed)
    x, targets, beta = drawn.queries, drawn.targets, beta_hat / d
    if model == "1982":
        network = HebbianNetwork(patterns)
        step = network.step(x)
        rng = np.random.default_rng([seed, flips, 1])
        limits, steps = network.rest(x, rng, synchronous=chosen.updates == "synchronous", most=STEPS)
        predicted, last = one_step_share(d, count, flips), dict.fromkeys(LEVELS, math.nan)
    else:
        how: dict[str, Any] = {"separation": MODELS[model]}
        step = update(x, patterns, beta, **how)
        with still_moving():  # near a critical beta some queries take forever
            limits, info = retrieve(x, patterns, beta, max_steps=STEPS, tol=1e-6, return_info=True, **how)
        steps = info.steps
        predicted, last = math.nan, dict.fromkeys(LEVELS, math.nan)
        if math.isfinite(LEADS[model]):
            predicted = float(theory.exact_recall(d, count, flips, beta, **how))
            last = _last_flips(model, d, count, seed, beta, chosen.queries)
    certified_flips, ball_flips = (kind[drawn.index] for kind in _certified_flips(model, d, count, seed, beta))
    certified = certified_flips >= flips
    exact = (step == targets).all(axis=1)
    return {
        "one_step": np.mean((np.sign(step) == targets).all(axis=1)),
        "rest": np.mean((np.sign(limits) == targets).all(axis=1)),
        "right_bits": np.mean(np.sign(limits) == targets),
        "exact": exact.mean(),
        "predicted": predicted,
        "in_ball": np.mean(ball_flips >= flips),
        "certified": certified.mean(),
        "broken": np.mean(certified & ~exact),
        "ball_flips": float(np.quantile(ball_flips, 0.5, method="inverted_cdf")),
        "certified_flips": float(np.quantile(certified_flips, 0.5, method="inverted_cdf")),
        **last,
        "steps": np.mean(steps),
    }
