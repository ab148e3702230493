"""Optimal solutions: patterns whose retrieval is known in closed form, and how near to it what is computed comes.

Sets: "pair", 1 and -1; "angle", two unit vectors at an angle; "orthonormal" and "simplex", SIZE vectors with equal
angles; "copies", orthonormal with the first one COPIES times; "interior", -1, 0 and 1. Queries lie on the segment from
the patterns' mean (position 0) to a pattern (position 1). Weights, states, energies, thresholds, sizes of supports, the
critical beta, states after several steps and fixed points are computed in float64 and float32, sparse and dense, and
compared with the closed forms; a difference is flagged where it exceeds what rounding can explain.

For n unit vectors with cosine c, k copies of the first, gap g = 1 - c and position a the first leads by L = beta g a.
Sparse: weight 1/k from L = 1/k on, below it (1 + (n - 1) L)/M, M = n - 1 + k; the position becomes (k - 1)/M + r a, r =
beta g k n/M; without copies min(1, beta g a): after t steps (beta g)^t a below the critical beta 1/g, which is 1/(1 -
cos angle), (n - 1)/n for the simplex and 1/2 for the pair. Dense: (k e^L - 1)/(k e^L + n - 1), for two tanh(L/2).
"""

from __future__ import annotations

import argparse
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import untrapped
from sparsehopfield._engine.text import aligned
from sparsehopfield.errors import RetrievalWarning
from sparsehopfield.functional import associate, energy, retrieve, sparsemax_threshold, update
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import base, tables
from sparsehopfield.studies._core.base import Outcome, among, at_least, bullets, wrapped
from sparsehopfield.studies._core.means import Means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

NAME = "optimal"
SETS = ("pair", "angle", "orthonormal", "simplex", "copies", "interior")
MAPS = {"sparse": "sparsemax", "dense": "softmax"}
DTYPES = ("float64", "float32")
#: What is compared, and for which model, where not for both.
QUANTITIES = ("weight", "state", "energy", "support", "threshold", "critical beta", "steps", "limit")
METRICS = ("computed", "closed", "difference", "allowed")
STEPS = 8
EXAMPLES = """\
examples:
  python -m sparsehopfield optimal
  python -m sparsehopfield optimal --sets angle --angle 1 --output results/close
  python -m sparsehopfield optimal --sets simplex orthonormal --size 200 --output results/many
"""


@dataclass(frozen=True, kw_only=True)
class Options(base.Options):
    """What the study can be asked for, beside what all studies can.

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
    jobs : int
        How many settings to measure at the same time.
    """

    sets: Sequence[str] = SETS
    shares: Sequence[float] = (0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 2.5, 4.0, 10.0)
    positions: Sequence[float] = (0.0, 0.5, 1.0)
    size: int = 8
    angle: float = 30.0
    copies: int = 3
    jobs: int = 1

    _several: ClassVar[Mapping[str, type]] = {"sets": str, "shares": float, "positions": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        among("sets", self.sets, SETS)
        for name, least in (("size", 2), ("copies", 2), ("jobs", 1)):
            at_least(name, getattr(self, name), least)
        for share in self.shares:
            if not 0 < share < math.inf:
                raise ValueError(f"shares: must be positive and finite, got {share:g}")
        for position in self.positions:
            if not 0 <= position <= 1:
                raise ValueError(f"positions: must lie between 0 and 1, got {position:g}")
        if not 0 < self.angle <= 180:
            raise ValueError(f"angle: must be above 0 and at most 180 degrees, got {self.angle:g}")


@untrapped()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of optimal solutions.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `sets`, `shares`, `positions`, `size`, `angle`, `copies`, `jobs`, `seed`, `restart`,
        `progress`.

    Returns
    -------
    Outcome
    """
    chosen = Options(**options)
    settings = [
        {"set": name, "model": model, "share": share, "position": a, "quantity": quantity, "dtype": dtype}
        for name in chosen.sets
        for model in MAPS
        for share in sorted(chosen.shares)
        for a in chosen.positions
        for quantity in QUANTITIES
        if is_compared(known(chosen, name), quantity, model, share, a)
        for dtype in DTYPES
    ]

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        name, model, share, a, quantity, dtype = setting.values()
        return compared(known(chosen, name), quantity, model, share, a, np.dtype(dtype))

    rows = base.measured(
        output,
        NAME,
        chosen,
        settings,
        METRICS,
        measure,
    )
    summary = Summary(rows, chosen)
    files: list[Path] = []
    for quantity in ("weight", "energy"):
        files += plotting.save(
            figure(summary, quantity), Path(output, NAME if quantity == "weight" else f"{NAME}-energy")
        )
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


# What is known


class Known(ABC):
    """Patterns and what is known of retrieval on the segment from their mean to one of them, at position a on it.

    Parameters
    ----------
    patterns : ndarray of shape (M, d)
        Float64; the longest have length 1.
    start, nearest : ndarray of shape (d,)
        The ends of the segment, positions 0 and 1.
    coordinates : ndarray of shape (M,)
        A mixture with weights p is at position sum p_i coordinates_i, by symmetry.
    at : int
        Which pattern is the nearest.
    critical : float
        The beta from which on it is an exact fixed point of sparse retrieval.
    """

    def __init__(
        self, patterns: Floats, *, start: Floats, nearest: Floats, coordinates: Floats, at: int, critical: float
    ) -> None:
        self.patterns, self.start, self.nearest = patterns, start, nearest
        self.coordinates, self.at, self.critical = coordinates, at, critical

    def query(self, a: float) -> Floats:
        """The query at a position."""
        return self.start + a * (self.nearest - self.start)

    @abstractmethod
    def scores(self, a: float) -> Floats:
        """The scores, (M,)."""

    @abstractmethod
    def square(self, a: float) -> float:
        """The squared length of the query."""

    @abstractmethod
    def weights(self, model: str, beta: float, a: float) -> Floats:
        """The weights, (M,)."""

    @abstractmethod
    def slope(self, model: str, beta: float, a: float) -> float:
        """The derivative of the next position in a, where there are two the larger: how fast it comes to rest."""

    @abstractmethod
    def slack(self, beta: float, a: float) -> float:
        """How far the lead, times beta, is from where the sparse support changes."""

    @abstractmethod
    def sparse_limit(self, beta: float) -> float:
        """Where the iteration of sparse retrieval from the pattern ends."""

    def step(self, model: str, beta: float, a: float) -> float:
        """The next position."""
        return float(self.weights(model, beta, a) @ self.coordinates)

    def energy(self, model: str, beta: float, a: float) -> float:
        """|x|^2/2 less the conjugate over beta: what is best there, <p, s> - Psi(p)/beta; dense in its closed form."""
        s = self.scores(a)
        if model == "dense":
            return self.square(a) / 2 - s.max() - math.log(float(np.exp(beta * (s - s.max())).sum())) / beta
        p = self.weights(model, beta, a)
        return float(self.square(a) / 2 - p @ s + (p @ p - 1) / (2 * beta))

    def threshold(self, beta: float, a: float) -> float:
        """Sparsemax's threshold, of scores times beta: what the nearest has, less its weight."""
        return float(beta * self.scores(a)[self.at] - self.weights("sparse", beta, a)[self.at])

    def limit(self, model: str, beta: float) -> float:
        """Where the iteration from the pattern ends: dense, the largest solution of a = step(a), which it falls to."""
        if model == "sparse":
            return self.sparse_limit(beta)
        a = 1.0
        for _ in range(100_000):
            following = self.step(model, beta, a)
            if following >= a:  # monotone but for rounding
                break
            a = following
        return a


class Equiangular(Known):
    """n unit vectors with all cosines equal to c, of which the first is there k times.

    With x = mean + a (xi_1 - mean) and b = (1 + (n - 1) c)/n = |mean|^2 = <xi, mean>, scores are a + (1 - a) b for the
    first and a c + (1 - a) b for the others: it leads by g a, g = 1 - c, all others tie. Sparse, L = beta g a: if the
    k copies alone have weight, 1/k each, the others are at least 1/k below, L >= 1/k; else all M = n - 1 + k have
    weight, which sum to 1 with a difference of L: (1 + (n - 1) L)/M and (1 - k L)/M. With these P xi_1 + q sum of the
    others is at position P - q.
    """

    def __init__(self, vectors: Floats, cosine: float, copies: int = 1) -> None:
        n = len(vectors)
        super().__init__(
            np.concatenate([np.repeat(vectors[:1], copies, axis=0), vectors[1:]]),
            start=vectors.mean(axis=0),
            nearest=vectors[0],
            coordinates=np.concatenate([np.ones(copies), np.full(n - 1, -1 / (n - 1))]),
            at=0,
            critical=1 / (copies * (1 - cosine)),
        )
        self.n, self.cosine, self.copies = n, cosine, copies
        self.centre = (1 + (n - 1) * cosine) / n

    def scores(self, a: float) -> Floats:
        rest = (1 - a) * self.centre
        return np.array([a + rest] * self.copies + [a * self.cosine + rest] * (self.n - 1))

    def square(self, a: float) -> float:
        return a * a + (1 - a * a) * self.centre

    def weights(self, model: str, beta: float, a: float) -> Floats:
        n, c, k = self.n, self.cosine, self.copies
        lead = beta * (1 - c) * a
        if model == "dense":
            other = math.exp(-lead)
            first, other = (w / (k + (n - 1) * other) for w in (1.0, other))
        elif k * lead >= 1:
            first, other = 1 / k, 0.0
        else:
            first, other = ((1 + (n - 1) * lead) / (n - 1 + k), (1 - k * lead) / (n - 1 + k))
        return np.array([first] * k + [other] * (n - 1))

    def slope(self, model: str, beta: float, a: float) -> float:
        n, c, k = self.n, self.cosine, self.copies
        lead, size = beta * (1 - c) * a, n - 1 + k
        if model == "dense":  # the derivative of (k - e^-L)/(k + (n - 1) e^-L)
            decay = math.exp(-lead)
            return beta * (1 - c) * k * n * decay / (k + (n - 1) * decay) ** 2
        return 0.0 if k * lead > 1 + 1e-9 else beta * (1 - c) * k * n / size

    def slack(self, beta: float, a: float) -> float:
        return abs(beta * (1 - self.cosine) * a - 1 / self.copies)

    def sparse_limit(self, beta: float) -> float:
        if beta >= self.critical:
            return 1.0
        return (self.copies - 1) / (self.n - 1 + self.copies) / (1 - self.slope("sparse", beta, 0.0))


class Interior(Known):
    """-1, 0 and 1 on a line: 0 is no extreme point, has margin 0, and is a fixed point for every beta.

    At x = a >= 0 scores are -a, 0, a. Sparse, L = beta a: all three have weight below L = 1/3, 1/3 -+ L and 1/3, so
    that a becomes 2L; two until L = 1, (1 - L)/2 and (1 + L)/2; then one. The iteration from 1 ends at 1 from beta = 1
    on, at 1/(2 - beta) down to beta = 1/2 (there every |a| <= 2/3 is a fixed point), below at 0. Dense: a becomes
    2 sinh L/(1 + 2 cosh L).
    """

    def __init__(self) -> None:
        line = np.array([[-1.0], [0.0], [1.0]])
        super().__init__(line, start=line[1], nearest=line[2], coordinates=line[:, 0], at=2, critical=1.0)

    def scores(self, a: float) -> Floats:
        return np.array([-a, 0.0, a])

    def square(self, a: float) -> float:
        return a * a

    def weights(self, model: str, beta: float, a: float) -> Floats:
        lead = beta * a
        if model == "dense":
            e = np.exp([-2 * lead, -lead, 0.0])
            return np.asarray(e / e.sum())
        if lead >= 1:
            return np.array([0.0, 0.0, 1.0])
        if lead >= 1 / 3:
            return np.array([0.0, (1 - lead) / 2, (1 + lead) / 2])
        return np.array([1 / 3 - lead, 1 / 3, 1 / 3 + lead])

    def slope(self, model: str, beta: float, a: float) -> float:
        lead = beta * a
        if model == "dense":
            return beta * (2 * math.cosh(lead) + 4) / (1 + 2 * math.cosh(lead)) ** 2
        if lead > 1 + 1e-9:
            return 0.0
        return beta / 2 if lead > 1 / 3 + 1e-9 else 2 * beta

    def slack(self, beta: float, a: float) -> float:
        return min(abs(beta * a - 1), abs(beta * a - 1 / 3))

    def sparse_limit(self, beta: float) -> float:
        if beta >= 1:
            return 1.0
        return 1 / (2 - beta) if beta >= 0.5 else 0.0


@cache
def known(chosen: Options, name: str) -> Known:
    """The patterns of a set.

    Parameters
    ----------
    chosen : Options
    name : str
        One of `SETS`.

    Returns
    -------
    Known
    """
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


# What is computed, and how near it must come


def is_compared(of: Known, quantity: str, model: str, share: float, a: float) -> bool:
    """Whether a quantity is compared at a setting: not where it is none, or where rounding decides.

    Thresholds are of sparsemax. The critical beta depends on neither beta nor position. Steps are not compared from
    the mean where it repels, as rounding is what moves them. Limits are those from the pattern, and not compared where
    every position is fixed, or nearly so.
    """
    beta = share * of.critical
    if quantity in ("threshold", "critical beta") and model != "sparse":
        return False
    if quantity == "critical beta":
        return (share, a) == (1.0, 1.0)
    if quantity == "steps":
        return a > 0 or of.slope(model, beta, 0.0) < 1
    if quantity == "limit":
        return a == 1 and of.slope(model, beta, of.limit(model, beta)) < 0.99
    return True


def compared(of: Known, quantity: str, model: str, share: float, a: float, dtype: np.dtype[Any]) -> dict[str, float]:
    """Compute a quantity by the package, and by its closed form.

    Parameters
    ----------
    of : Known
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
    beta, x = share * of.critical, of.query(a).astype(dtype)
    patterns = of.patterns.astype(dtype)
    how: dict[str, Any] = {"separation": MAPS[model]}
    allowed = Allowed(of, model, beta, a, dtype)
    if quantity in ("state", "steps", "limit"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RetrievalWarning)
            if quantity == "state":
                state, closed, most = update(x, patterns, beta, **how), of.step(model, beta, a), allowed.state()
            elif quantity == "limit":
                state, closed, most = retrieve(x, patterns, beta, **how), of.limit(model, beta), allowed.limit()
            else:
                state, closed = x, a
                for _ in range(STEPS):
                    state, closed = update(state, patterns, beta, **how), of.step(model, beta, closed)
                most = allowed.steps()
        wide, axis = np.asarray(state, np.float64), of.nearest - of.start
        position = float((wide - of.start) @ axis / (axis @ axis))
        return _pair(position, closed, float(np.linalg.norm(wide - of.query(closed))), most)
    if quantity == "energy":
        found = float(energy(x, patterns, beta, **how))
        return _pair(found, of.energy(model, beta, a), None, allowed.energy())
    if quantity == "threshold":
        scores = np.asarray(beta * (patterns @ x), dtype)
        return _pair(float(sparsemax_threshold(scores)[0]), of.threshold(beta, a), None, allowed.threshold())
    if quantity == "critical beta":
        return _pair(critical(of, patterns, x), of.critical, None, allowed.critical())
    found = associate(x, patterns, beta, top=len(patterns), **how)
    weights = of.weights(model, beta, a)
    if quantity == "support":
        return _pair(float(found.nnz), float(np.count_nonzero(weights)), None, allowed.support())
    return _pair(float(found.toarray()[0, of.at]), float(weights[of.at]), None, allowed.weight())


def _pair(computed: float, closed: float, difference: float | None, allowed: float) -> dict[str, float]:
    difference = abs(computed - closed) if difference is None else difference
    return {"computed": computed, "closed": closed, "difference": difference, "allowed": allowed}


def critical(of: Known, patterns: NDArray[Any], x: NDArray[Any]) -> float:
    """The lowest beta at which only the pattern and its copies have weight at it, by bisection.

    Parameters
    ----------
    of : Known
    patterns : ndarray of shape (M, d)
    x : ndarray of shape (d,)
        The pattern.

    Returns
    -------
    float
    """
    own = int(np.count_nonzero(of.coordinates == 1))
    low, high = of.critical / 2, of.critical * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if associate(x, patterns, middle).nnz == own else (middle, high)
    return high


@dataclass(frozen=True)
class Allowed:
    """What rounding can explain, with u the unit roundoff of a type and all patterns of length 1 at most.

    Patterns and query are rounded to the type, and products in it: scores are off by e = (d + 4) u at most. Sparse
    weights are off by 2 (kappa - 1) beta e and a rounding each, kappa the size of the support, or M where the lead is
    so near to a change of the support that rounding decides it. Dense weights move by no more than 2 beta e, and have
    the roundings of an exponential and a sum. States follow, energies are as far off as scores, and steps add what each
    does to what the slope makes of the error before it.
    """

    of: Known
    model: str
    beta: float
    a: float
    dtype: np.dtype[Any]

    @property
    def _u(self) -> float:
        return float(np.finfo(self.dtype).eps) / 2

    @property
    def _score(self) -> float:
        return (self.of.patterns.shape[1] + 4) * self._u

    def _undecided(self, a: float) -> bool:
        return self.model == "sparse" and self.of.slack(self.beta, a) <= 4 * self.beta * self._score

    def _size(self, a: float) -> int:
        inside = np.count_nonzero(self.of.weights(self.model, self.beta, a))
        return len(self.of.patterns) if self._undecided(a) else int(inside)

    def weight(self, a: float | None = None) -> float:
        """Of the weights, in sum."""
        size = self._size(self.a if a is None else a)
        if self.model == "dense":
            return 2 * self.beta * self._score + (size + 8) * self._u
        return 2 * (size - 1) * self.beta * self._score + size * self._u

    def state(self, a: float | None = None) -> float:
        """Of the state: weights times patterns, patterns and result rounded, and the sum."""
        return self.weight(a) + (self._size(self.a if a is None else a) + 2) * self._u

    def energy(self) -> float:
        """Of the energy: scores, square, and the terms of the conjugate over beta."""
        return 2 * self._score + (len(self.of.patterns) + 8) * self._u * (1 + 1 / self.beta)

    def threshold(self) -> float:
        """Of the threshold, of scores times beta."""
        return self.beta * self._score + 4 * self._u * (1 + self.beta)

    def critical(self) -> float:
        """Of the critical beta: the reciprocal of a lead of the pattern, off by two scores."""
        lead = 1 / self.of.critical
        return self.of.critical * (4 * self._score * len(self.of.patterns) / lead)

    def support(self) -> float:
        """Of the size of the support: none, or where rounding decides all of it."""
        return float(len(self.of.patterns)) if self._undecided(self.a) else 0.0

    def steps(self) -> float:
        """Of the state after `STEPS` steps."""
        error, a = 0.0, self.a
        for _ in range(STEPS):
            slope = self.of.slope(self.model, self.beta, a)
            if self._near(a, error):
                slope = max(slope, self.of.slope(self.model, self.beta, 0.0))
            error = slope * error + self.state(a)
            a = self.of.step(self.model, self.beta, a)
        return error

    def _near(self, a: float, error: float) -> bool:
        """Whether an error may have changed the support."""
        return self.model == "sparse" and self.of.slack(self.beta, a) <= 4 * self.beta * (self._score + error)

    def limit(self) -> float:
        """Of the limit, which retrieval takes for one when a step moves by 8 u at most."""
        a = self.of.limit(self.model, self.beta)
        slope = self.of.slope(self.model, self.beta, a)
        return (self.state(a) + 8 * self._u * (slope > 0)) / (1 - slope)


# What came out


class Summary(Means):
    """What came out by set, model, quantity and type.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    chosen : Options
        What was asked for.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("set", "model", "quantity", "dtype", "share", "position"))
        self.chosen = chosen

    def where(self, **fixed: Any) -> list[tuple[Any, ...]]:
        """The settings whose columns have these values."""
        return [key for key in self.keys if self._fits(key, fixed)]

    def largest(self, keys: Sequence[tuple[Any, ...]]) -> float:
        """The largest difference, in units of the type's eps."""
        return max(self.mean(key, "difference") / float(np.finfo(key[3]).eps) for key in keys)

    def beyond(self, keys: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The settings whose difference is more than rounding explains."""
        return [key for key in keys if not self.mean(key, "difference") <= self.mean(key, "allowed")]


def figure(summary: Summary, quantity: str) -> Figure:
    """Draw a quantity at the pattern over beta: the closed form as a line, what was computed in float64 as markers.

    Parameters
    ----------
    summary : Summary
        What came out.
    quantity : {"weight", "energy"}

    Returns
    -------
    matplotlib.figure.Figure
        One panel a set.
    """
    chosen = summary.chosen
    a = max(chosen.positions)
    grid = np.geomspace(min(chosen.shares) / 1.3, max(chosen.shares) * 1.3, 200)
    panels = []
    for name in chosen.sets:
        of, lines = known(chosen, name), []
        for model in MAPS:
            style = plotting.STYLES[model]
            closed = [
                float(of.weights(model, s * of.critical, a)[of.at])
                if quantity == "weight"
                else of.energy(model, s * of.critical, a)
                for s in grid
            ]
            keys = summary.where(set=name, model=model, quantity=quantity, dtype="float64", position=a)
            lines.append(plotting.Line(f"{model}, closed form", list(grid), closed, style=style | {"marker": ""}))
            lines.append(
                plotting.Line(
                    f"{model}, computed",
                    [key[4] for key in keys],
                    [summary.mean(key, "computed") for key in keys],
                    style=style | {"linestyle": "none", "markersize": 5},
                )
            )
        panels.append(plotting.Panel(f"{name} (critical beta {of.critical:.4g})", lines, quantity))
    width = 3 if len(panels) % 3 == 0 else 2 if len(panels) % 2 == 0 else 1
    rows = [panels[k : k + width] for k in range(0, len(panels), width)]
    what = "weight of the nearest pattern" if quantity == "weight" else "energy"
    title = f"{what}, query at position {a:g}"
    return plotting.curves(rows, xlabel="beta / critical beta", title=title, log=True)


# Words


def report_text(summary: Summary) -> str:
    """Differences from the closed forms, in tables and in words.

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
        f"Sets with known solutions (n = {chosen.size}, {chosen.copies} copies, {chosen.angle:g} degrees); queries at "
        f"positions {base.listed(chosen.positions)} between mean and pattern; beta from {min(chosen.shares):g} to "
        f"{max(chosen.shares):g} times the critical one. Largest difference from the closed form, in units of eps "
        f"(2.2e-16 and 1.2e-07) and, in brackets, as a share of what rounding can explain. 'steps': the state after "
        f"{STEPS}; 'limit': from the pattern."
    )
    quantities = [q for q in QUANTITIES if q != "support"]
    lines: list[Sequence[str]] = [["set", "model", "type", *quantities]]
    for name in chosen.sets:
        for model in MAPS:
            for dtype in DTYPES:
                cells = []
                for quantity in quantities:
                    keys = summary.where(set=name, model=model, quantity=quantity, dtype=dtype)
                    cells.append(_difference(summary, keys) if keys else "-")
                lines.append([name, model, dtype, *cells])
    critical_betas = [["set", "closed form", *DTYPES]]
    for name in chosen.sets:
        found = summary.where(set=name, quantity="critical beta")
        if found:
            values = [summary.mean(key, "computed") for key in found]
            critical_betas.append([name, *(f"{v:.15g}" for v in (summary.mean(found[0], "closed"), *values))])
    parts = ["Optimal solutions", introduction, "Differences", aligned(lines)]
    if len(critical_betas) > 1:
        parts += ["From which beta on the pattern is an exact fixed point", aligned(critical_betas)]
    return "\n\n".join([*parts, bullets("What came out", _findings(summary))])


def _difference(summary: Summary, keys: Sequence[tuple[Any, ...]]) -> str:
    shares = []
    for key in keys:
        difference, allowed = summary.mean(key, "difference"), summary.mean(key, "allowed")
        shares.append(0.0 if difference == 0 else difference / allowed if allowed else math.inf)
    return f"{summary.largest(keys):.3g} ({max(shares):.2f})"


def _findings(summary: Summary) -> list[str]:
    sentences = []
    numbers = [key for key in summary.keys if key[2] != "support"]
    for dtype in DTYPES:
        keys = [key for key in numbers if key[3] == dtype]
        worst = max(keys, key=lambda key: summary.mean(key, "difference"))
        exact = sum(summary.mean(key, "difference") == 0 for key in keys)
        sentences.append(
            f"{dtype}: {exact} of {len(keys)} numbers equal the closed form (in float64) to the bit; the largest "
            f"difference is {summary.largest([worst]):.3g} eps, of {_place(worst)}."
        )
    beyond = summary.beyond(numbers)
    places = "".join(f"; {_place(key)}, {key[3]}" for key in beyond[:5])
    sentences.append(f"More than rounding explains: {len(beyond)} of {len(numbers)} numbers{places}.")
    supports = [key for key in summary.keys if key[2] == "support"]
    for words, decided in (("where rounding cannot decide it", True), ("where rounding decides it", False)):
        keys = [key for key in supports if (summary.mean(key, "allowed") == 0) == decided]
        if keys:
            agreed = sum(summary.mean(key, "difference") == 0 for key in keys)
            sentences.append(f"The size of the support, {words}: {agreed} of {len(keys)} agree.")
    arrived = [key for key in summary.where(model="sparse", quantity="limit") if summary.mean(key, "closed") == 1]
    if arrived:
        late = [key for key in arrived if summary.mean(key, "difference") > float(np.finfo(key[3]).eps)]
        places = "".join(f"; not {_place(key)}, {key[3]}" for key in late[:5])
        sentences.append(
            f"Sparse limits that are to be the pattern are within one eps of it in {len(arrived) - len(late)} of "
            f"{len(arrived)}{places}."
        )
    still = [key for key in summary.where(model="sparse", quantity="state", share=1.0) if key[0] in _LINEAR]
    if still:
        moved = max(abs(summary.mean(key, "computed") - key[5]) / float(np.finfo(key[3]).eps) for key in still)
        names = list(dict.fromkeys(key[0] for key in still))
        sentences.append(
            f"At the critical beta one sparse step moves no position of {', '.join(names)} by more than {moved:.3g} "
            "eps, where none is to move."
        )
    return sentences


#: Without copies and interior patterns every position is a fixed point at the critical beta.
_LINEAR = ("pair", "angle", "orthonormal", "simplex")


def _place(key: tuple[Any, ...]) -> str:
    name, model, quantity, _, share, position = key
    return f"{name}, {model}, {quantity}, beta {share:g} times critical, position {position:g}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    own = partial(base.add_own, parser, default)
    own("sets", "sets of patterns", choices=SETS)
    own("shares", "inverse temperatures, as shares of each set's critical one", metavar="SHARE")
    own("positions", "where queries are, from 0, the mean, to 1, the pattern", metavar="A")
    own("size", "vectors of the larger sets", metavar="N")
    own("angle", "of 'angle'", metavar="DEGREES")
    own("copies", "of 'copies'", metavar="K")
    base.add_jobs_option(parser)
    base.add_options(parser, f"results/{NAME}", default)
