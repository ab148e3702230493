"""The protocol of the study of optimal solutions: its options, what is computed, and the error that rounding allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.call import still_moving
from sparsehopfield.functional import associate, energy, retrieve, sparsemax_threshold, update
from sparsehopfield.studies._core.clock import timed
from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names
from sparsehopfield.studies.optimal.closed_forms import Equiangular, Interior, KnownSet

SETS = ("pair", "angle", "orthonormal", "simplex", "copies", "interior")
MAPS = {"sparse": "sparsemax", "dense": "softmax"}
DTYPES = ("float64", "float32")
#: What is compared, and for which model, where not for both.
QUANTITIES = ("weight", "state", "energy", "support", "threshold", "critical beta", "steps", "limit")
METRICS = ("computed", "closed", "difference", "allowed")
STEPS = 8
#: The sets on which retrieval is timed, as they can be of any size; the position and number of the queries; updates at
#: most.
TIMED, TIMED_POSITION, TIMED_QUERIES, TIMED_STEPS = ("orthonormal", "simplex"), 0.5, 64, 100


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    sets : str or sequence of str
        Of `SETS`.
    shares : float or sequence of float
        Inverse temperatures, as shares of each set's critical one.
    positions : float or sequence of float
        Where queries are, from 0, the mean, to 1, the pattern.
    size : int
        Vectors of "orthonormal", "simplex" and, without copies, "copies"; at least 2.
    angle : float
        Degrees, above 0 and at most 180.
    copies : int
        How often the first pattern of "copies" is there, at least 2.
    timed : int
        Vectors of the sets of `TIMED` on which sparse and dense retrieval are timed; 0 for none.
    jobs : int
        Number of settings to measure at the same time.
    """

    sets: Sequence[str] = SETS
    shares: Sequence[float] = (0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 2.5, 4.0, 10.0)
    positions: Sequence[float] = (0.0, 0.5, 1.0)
    size: int = 8
    angle: float = 30.0
    copies: int = 3
    timed: int = 0
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {"sets": str, "shares": float, "positions": float}
    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "timed")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("sets", self.sets, SETS)
        for name, least in (("size", 2), ("copies", 2), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        if self.timed:
            at_least("timed", self.timed, 2)
            if not {*TIMED} & {*self.sets}:
                raise ValueError(f"timed: only {' and '.join(TIMED)} are timed; ask for one of them by sets")
        for share in self.shares:
            if not 0 < share < math.inf:
                raise ValueError(f"shares: must be positive and finite, got {share:g}")
        for position in self.positions:
            if not 0 <= position <= 1:
                raise ValueError(f"positions: must lie between 0 and 1, got {position:g}")
        if not 0 < self.angle <= 180:
            raise ValueError(f"angle: must be above 0 and at most 180 degrees, got {self.angle:g}")


@cache
def make_set(chosen: Options, name: str) -> KnownSet:
    """Make the patterns of one of `SETS`."""
    n = chosen.size
    if name == "pair":
        return Equiangular(np.array([[1.0], [-1.0]]), -1.0)
    if name == "angle":
        angle = math.radians(chosen.angle)
        return Equiangular(np.array([[1.0, 0.0], [math.cos(angle), math.sin(angle)]]), math.cos(angle))
    if name == "simplex":
        centred = np.eye(n) - 1 / n
        return Equiangular(centred * math.sqrt(n / (n - 1)), -1 / (n - 1))
    if name == "interior":
        return Interior()
    turned = np.linalg.qr(np.random.default_rng(chosen.seed).standard_normal((n, n)))[0]
    return Equiangular(turned, 0.0, chosen.copies if name == "copies" else 1)


def is_compared(known: KnownSet, quantity: str, model: str, share: float, a: float) -> bool:
    """Check whether a quantity is compared at a setting: it must be defined there, and not decided by rounding.

    Thresholds are of sparsemax. The critical beta depends on neither beta nor position. Steps are not compared from
    the mean where it repels, as rounding is what moves them. Limits are those from the pattern, and not compared where
    every position is fixed, or nearly so.
    """
    beta = share * known.critical
    if quantity in ("threshold", "critical beta") and model != "sparse":
        return False
    if quantity == "critical beta":
        return (share, a) == (1.0, 1.0)
    if quantity == "steps":
        return a > 0 or known.slope(model, beta, 0.0) < 1
    if quantity == "limit":
        return a == 1 and known.slope(model, beta, known.limit(model, beta)) < 0.99
    return True


def compare(
    known: KnownSet, quantity: str, model: str, share: float, a: float, dtype: np.dtype[Any]
) -> dict[str, float]:
    """Compute a quantity by the package, and by its closed form.

    Parameters
    ----------
    known : KnownSet
    quantity : str
        One of `QUANTITIES`. "state", "steps" and "limit" are given by their positions; their differences are distances
        of the states themselves.
    model : str
        "sparse" or "dense".
    share : float
        Inverse temperature, as a share of the critical one.
    a : float
        The query's position.
    dtype : dtype
        Of patterns and query, which are rounded to it.

    Returns
    -------
    dict of str to float
        `computed`, `closed`, `difference` and `allowed`, the difference that rounding can explain.
    """
    beta, x = share * known.critical, known.query(a).astype(dtype)
    patterns = known.patterns.astype(dtype)
    how: dict[str, Any] = {"separation": MAPS[model]}
    allowed = RoundingBounds(known, model, beta, a, dtype)
    if quantity in ("state", "steps", "limit"):
        with still_moving():
            if quantity == "state":
                state, closed, most = update(x, patterns, beta, **how), known.step(model, beta, a), allowed.state()
            elif quantity == "limit":
                state, closed, most = retrieve(x, patterns, beta, **how), known.limit(model, beta), allowed.limit()
            else:
                state, closed = x, a
                for _ in range(STEPS):
                    state, closed = update(state, patterns, beta, **how), known.step(model, beta, closed)
                most = allowed.steps()
        state, axis = np.asarray(state, np.float64), known.nearest - known.start
        position = float((state - known.start) @ axis / (axis @ axis))
        return _pair(position, closed, float(np.linalg.norm(state - known.query(closed))), most)
    if quantity == "energy":
        found = float(energy(x, patterns, beta, **how))
        return _pair(found, known.energy(model, beta, a), None, allowed.energy())
    if quantity == "threshold":
        scores = np.asarray(beta * (patterns @ x), dtype)
        return _pair(float(sparsemax_threshold(scores)[0]), known.threshold(beta, a), None, allowed.threshold())
    if quantity == "critical beta":
        return _pair(find_critical_beta(known, patterns, x), known.critical, None, allowed.critical())
    found = associate(x, patterns, beta, top=len(patterns), **how)
    weights = known.weights(model, beta, a)
    if quantity == "support":
        return _pair(float(found.nnz), float(np.count_nonzero(weights)), None, allowed.support())
    return _pair(float(found.toarray()[0, known.at]), float(weights[known.at]), None, allowed.weight())


def _pair(computed: float, closed: float, difference: float | None, allowed: float) -> dict[str, float]:
    """Return the metrics of a number beside its closed form."""
    difference = abs(computed - closed) if difference is None else difference
    return {"computed": computed, "closed": closed, "difference": difference, "allowed": allowed}


def find_critical_beta(known: KnownSet, patterns: NDArray[Any], x: NDArray[Any]) -> float:
    """Find the lowest beta at which only the pattern x (d,) and its copies have weight at x, by bisection."""
    copies = int(np.count_nonzero(known.coordinates == 1))
    low, high = known.critical / 2, known.critical * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if associate(x, patterns, middle).nnz == copies else (middle, high)
    return high


@dataclass(frozen=True)
class RoundingBounds:
    """Bounds on errors of rounding, with u the unit roundoff of a type and all patterns of length 1 at most.

    Patterns and query are rounded to the type, and products in it: scores are off by e = (d + 4) u at most. Sparse
    weights are off by 2 (kappa - 1) beta e and a rounding each, kappa the size of the support, or M where the lead is
    so near to a change of the support that rounding decides it. Dense weights move by no more than 2 beta e, and have
    the roundings of an exponential and a sum. States follow, energies are as far off as scores, and steps add what each
    does to what the slope makes of the error before it.
    """

    known: KnownSet
    model: str
    beta: float
    a: float
    dtype: np.dtype[Any]

    @property
    def _u(self) -> float:
        """Return the unit roundoff."""
        return float(np.finfo(self.dtype).eps) / 2

    @property
    def _score(self) -> float:
        """Bound the error of a score."""
        return (self.known.patterns.shape[1] + 4) * self._u

    def _undecided(self, a: float) -> bool:
        """Check whether rounding decides the support."""
        return self.model == "sparse" and self.known.slack(self.beta, a) <= 4 * self.beta * self._score

    def _size(self, a: float) -> int:
        """Return the size of the support, or M where rounding decides it."""
        inside = np.count_nonzero(self.known.weights(self.model, self.beta, a))
        return len(self.known.patterns) if self._undecided(a) else int(inside)

    def weight(self, a: float | None = None) -> float:
        """Bound the error of the weights, in sum."""
        size = self._size(self.a if a is None else a)
        if self.model == "dense":
            return 2 * self.beta * self._score + (size + 8) * self._u
        return 2 * (size - 1) * self.beta * self._score + size * self._u

    def state(self, a: float | None = None) -> float:
        """Bound the error of the state: weights times patterns, patterns and result rounded, and the sum."""
        return self.weight(a) + (self._size(self.a if a is None else a) + 2) * self._u

    def energy(self) -> float:
        """Bound the error of the energy: scores, square, and the terms of the conjugate over beta."""
        return 2 * self._score + (len(self.known.patterns) + 8) * self._u * (1 + 1 / self.beta)

    def threshold(self) -> float:
        """Bound the error of the threshold, of scores times beta."""
        return self.beta * self._score + 4 * self._u * (1 + self.beta)

    def critical(self) -> float:
        """Bound the error of the critical beta: the reciprocal of a lead of the pattern, off by two scores."""
        lead = 1 / self.known.critical
        return self.known.critical * (4 * self._score * len(self.known.patterns) / lead)

    def support(self) -> float:
        """Bound the error of the size of the support: 0, or M where rounding decides it."""
        return float(len(self.known.patterns)) if self._undecided(self.a) else 0.0

    def steps(self) -> float:
        """Bound the error of the state after `STEPS` steps."""
        error, a = 0.0, self.a
        for _ in range(STEPS):
            slope = self.known.slope(self.model, self.beta, a)
            if self._may_change_support(a, error):
                slope = max(slope, self.known.slope(self.model, self.beta, 0.0))
            error = slope * error + self.state(a)
            a = self.known.step(self.model, self.beta, a)
        return error

    def _may_change_support(self, a: float, error: float) -> bool:
        """Check whether an error may have changed the support."""
        return self.model == "sparse" and self.known.slack(self.beta, a) <= 4 * self.beta * (self._score + error)

    def limit(self) -> float:
        """Bound the error of the limit: retrieval stops when a step moves by 8 u at most."""
        a = self.known.limit(self.model, self.beta)
        slope = self.known.slope(self.model, self.beta, a)
        return (self.state(a) + 8 * self._u * (slope > 0)) / (1 - slope)


def time_sets(chosen: Options) -> list[dict[str, Any]]:
    """Time one update and retrieval to rest, sparse and dense, of queries halfway from the mean to each pattern.

    Parameters
    ----------
    chosen : Options
        `timed` vectors a set.

    Returns
    -------
    list of dict
        A row for each set, share of the critical beta and model: `update` and `rest`, seconds of processor time of up
        to 64 queries, the least of three, `steps`, the mean number of updates until rest (at most 100), and
        `support`, the patterns with weight in the first update, by the closed form.
    """
    rows = []
    for name in (one for one in TIMED if one in chosen.sets):
        known = make_set(replace(chosen, size=chosen.timed), name)
        queries = known.start + TIMED_POSITION * (known.patterns[:TIMED_QUERIES] - known.start)
        for share in sorted(chosen.shares):
            for model, separation in MAPS.items():
                beta = share * known.critical
                step = partial(update, queries, known.patterns, beta, separation=separation)
                to_rest = partial(
                    retrieve,
                    queries,
                    known.patterns,
                    beta,
                    max_steps=TIMED_STEPS,
                    return_info=True,
                    separation=separation,
                )
                with still_moving():
                    (one, _), (rest, (_, info)) = timed(step), timed(to_rest)
                support = np.count_nonzero(known.weights(model, beta, TIMED_POSITION))
                about = {"set": name, "patterns": chosen.timed, "share": share, "model": model, "support": support}
                rows.append(about | {"steps": info.steps.mean(), "update": one, "rest": rest})
    return rows
