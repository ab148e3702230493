"""Retrieval where stored rows have sample weights: a row of weight w counts as w copies of it.

With w_i copies of row i, of weight p_i each, the conditions of the separation maps read so, z = beta s:

    softmax    p_i = exp(z_i - theta),                        sum w_i p_i = 1
    entmax     p_i = [1 + a (z_i - theta)]_+^(1/a),           sum w_i p_i = 1,    a = alpha - 1
    normmax    p_i = u_i / sum w_j u_j, u_i = [z_i - tau]_+^(1/a),    sum w_i u_i^alpha = 1

for whole w, and are taken as the definition for all others. Row i has the share w_i p_i.

Rows that may have a share are listed first, by the core, at another inverse temperature and without weights. Let w be
the least weight. Each sum above falls as theta (or tau) rises, and grows with every weight, so that its solution is no
less than where all rows have weight w: there all rows that have a share have one, too. And where all rows have weight
w, the conditions are those without weights at another beta, as w can be drawn into the bracket: entmax at beta w^a,
normmax at beta w^(a/alpha), softmax at any. So the support there lists all rows that may have a share, for any w above
0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.call import TOLERANCE, Call, level_of_caller
from sparsehopfield._engine.checks import Array, as_number, ignoring_float_errors
from sparsehopfield._engine.separations import has_cutoff, row_of
from sparsehopfield.errors import RetrievalWarning
from sparsehopfield.memory import HopfieldMemory

Floats = NDArray[np.float64]
MOST_LISTED = 2**23  # pairs of queries and rows that are listed at a time, at most
WIDER = 1 - 2.0**-30  # factor of beta by which lists are a little longer than they must be, whatever rounding does
LIMITS = np.finfo(np.float64)
NEGLIGIBLE = 2.0**-60  # share of all rows of softmax together that need not be listed


@dataclass(frozen=True)
class Shares:
    """Some queries' lists: query i has `position[start[i]:start[i + 1]]`, and the share of each."""

    start: NDArray[np.int64]
    position: NDArray[np.int64]
    share: Floats
    conjugate: Floats  # of each query: Psi*(z) less the largest of its z
    best: Floats  # the largest score of each query


class WeightedMemory:
    """A memory whose rows have sample weights, all positive.

    Parameters
    ----------
    memory : HopfieldMemory
        Without a structure.
    weight : ndarray of float64, shape (M,)
    """

    def __init__(self, memory: HopfieldMemory, weight: Floats) -> None:
        self.stored = memory._current()[0].pattern_set
        self.beta, self.code = float(np.asarray(memory.beta)), memory._separation[1]
        self.weight = weight
        self.name = row_of(self.code).name
        self.alpha = {"softmax": 1.0, "sparsemax": 2.0}.get(self.name, self.code[1])

    def uniform_beta(self, weight: Any) -> Any:
        """Return the beta at which the map without weights is that where all rows have this weight."""
        exponent = (self.alpha - 1) / (self.alpha if self.name == "normmax" else 1)
        with ignoring_float_errors():
            return np.clip(self.beta * np.asarray(weight) ** exponent, LIMITS.tiny, LIMITS.max)

    @property
    def is_uniform(self) -> bool:
        """Return whether all weights are the same."""
        return bool(self.weight.min() == self.weight.max())

    # --- operations ---------------------------------------------------------------------------------

    @ignoring_float_errors()
    def update(self, queries: Array, exclude: NDArray[np.int64] | None = None) -> Array:
        """Return one update of queries (N, d): a mixture (N, v) of the values, or of the patterns without any."""
        if self.is_uniform:
            return self._call(queries, self.uniform_beta(self.weight[0]), exclude).update()
        if not has_cutoff(self.code) and self.stored.value_storage is not None:
            return self._softmax_update(queries, exclude)
        return self._mixed(self.stored, queries, exclude)

    @ignoring_float_errors()
    def retrieve(
        self, queries: Array, max_steps: int, tol: float | None, exclude: NDArray[np.int64] | None = None
    ) -> Array:
        """Return what `HopfieldMemory.retrieve` does, (N, v): updates until none moves, at most max_steps."""
        if self.is_uniform:
            out = self._call(queries, self.uniform_beta(self.weight[0]), exclude).retrieve(max_steps, tol, False, None)
            assert isinstance(out, np.ndarray)
            return out
        states = self._call(queries[:0], self.beta, None).rows
        tol = TOLERANCE[states.dtype] if tol is None else as_number("tol", tol, least=0.0)
        least = tol * self.stored.max_norm
        stored = self.stored
        if stored.value_storage is not None:
            stored = stored.with_rows(stored.patterns, None, extends=False, index=False)
        states = np.array(queries, states.dtype)
        before, moving = states.copy(), np.arange(len(states))
        for _ in range(max_steps):
            before[moving] = states[moving]
            after = self._mixed(stored, states[moving], None if exclude is None else exclude[moving])
            moved = np.linalg.norm((after - states[moving]).astype(np.float64), axis=1)
            states[moving] = after
            moving = moving[moved > least]
            if len(moving) == 0:
                break
        if len(moving):
            warnings.warn(
                f"{len(moving)} of {len(states)} queries still moved by more than tol * max|xi| = {tol:.3g} * max|xi| "
                f"after {max_steps} steps; raise max_steps or tol",
                RetrievalWarning,
                stacklevel=level_of_caller(),
            )
        return states if self.stored.value_storage is None else self.update(before, exclude)

    @ignoring_float_errors()
    def energy(self, queries: Array, *, lacks_a_copy: bool = False) -> Floats:
        """Return E_beta of queries (N, d), (N,). lacks_a_copy: query i is pattern i and does not see one of its copies,
        so that its own weight is 1 less, or 0 where it is at most 1.
        """
        exclude = np.where(self.weight <= 1, np.arange(len(self.weight)), -1) if lacks_a_copy else None
        energies = np.empty(len(queries))
        for part, _, lists in self._lists(queries, exclude, lacks_a_copy=lacks_a_copy):
            energies[part] = -lists.conjugate / self.beta - lists.best
            if self.stored.similarity != "euclidean":
                energies[part] += (queries[part].astype(np.float64) ** 2).sum(axis=1) / 2
        return energies

    # --- how ----------------------------------------------------------------------------------------

    def _call(self, queries: Array, beta: float, exclude: NDArray[np.int64] | None) -> Call:
        """Return the call of some queries at this beta."""
        return Call.prepare(self.stored, queries, beta, self.code, exclude=exclude)

    def _softmax_update(self, queries: Array, exclude: NDArray[np.int64] | None) -> Array:
        """Return one update by softmax: sum w p v / sum w p, where w v and w are the values that are mixed."""
        values, weight = self.stored.values, self.weight / self.weight.max()
        assert values is not None
        mixed = np.column_stack([values * weight[:, None], weight]).astype(self.stored.dtype)
        weighted = self.stored.with_rows(self.stored.patterns, mixed, extends=False, index=False)
        sums = Call.prepare(weighted, queries, self.beta, self.code, exclude=exclude).update()
        # A row of next to no weight may be the only one near: then its lists have the digits that the sums lack.
        ratios = sums[:, :-1] / sums[:, -1:]
        if (lost := ~(sums[:, -1] > np.finfo(sums.dtype).eps)).any():
            ratios[lost] = self._mixed(self.stored, queries[lost], None if exclude is None else exclude[lost])
        return ratios

    def _mixed(self, stored: Any, queries: Array, exclude: NDArray[np.int64] | None) -> Array:
        """Return mixtures (N, v) of what a pattern set mixes, by the shares of its rows."""
        dtype = self._call(queries[:0], self.beta, None).rows.dtype
        out = np.empty((len(queries), stored.width), dtype)
        for part, _, lists in self._lists(queries, exclude):
            _core.mix(stored.core(dtype), lists.start, lists.position, lists.share, out[part])
        return out

    def _lists(
        self, queries: Array, exclude: NDArray[np.int64] | None, *, lacks_a_copy: bool = False
    ) -> Iterator[tuple[slice, Call, Shares]]:
        """Yield which queries, their call, and their shares; some queries at a time."""
        weight, least = self.weight, float(self.weight.min())
        if lacks_a_copy and (weight > 1).any():
            least = min(least, float((weight[weight > 1] - 1).min()))
        beta = max(self.uniform_beta(least) * WIDER, LIMITS.tiny)
        # Rows of less weight than this, all together, have less than NEGLIGIBLE of what the best has.
        omitted = 0.0 if has_cutoff(self.code) else NEGLIGIBLE * least / float(weight.sum()) / len(weight)
        step = max(1, MOST_LISTED // len(weight))
        for first in range(0, len(queries), step):
            part = slice(first, min(first + step, len(queries)))
            call = self._call(queries[part], beta, None if exclude is None else exclude[part])
            start, position, score, _ = call.core_executor("associate").associate(call.rows, 0, omitted)
            w = weight[position]
            if lacks_a_copy:
                w = w - (position == np.repeat(np.arange(part.start, part.stop), np.diff(start)))
            yield part, call, self._shares(start, position, score, w)

    def _shares(self, start: NDArray[np.int64], position: NDArray[np.int64], score: Floats, w: Floats) -> Shares:
        """Return the shares of lists of scores and weights."""
        lists = _Lists(start)
        best = np.maximum.reduceat(score, start[:-1])
        z = self.beta * (score - lists.spread(best))
        if self.alpha == 1:
            p = np.exp(z)
            total = lists.sum(w * p)
            conjugate = np.log(total)
        elif self.name == "normmax":
            p, conjugate = _normmax(lists, z, w, self.alpha)
            total = lists.sum(w * p)
        else:
            a = self.alpha - 1
            p = _flat_entmax(lists, z, w, a) if a <= 1 else _steep_entmax(lists, z, w, a)
            total = lists.sum(w * p)
            regulariser = np.where(p > 0, np.expm1(a * np.log(np.where(p > 0, p, 1))), 0) / (self.alpha * a)
            conjugate = lists.sum(w * p * (z - regulariser)) / total
        return Shares(start, position, w * p / lists.spread(total), conjugate, best)


@dataclass(frozen=True)
class _Lists:
    """Lists that lie end to end, none of them empty."""

    start: NDArray[np.int64]

    def sum(self, x: Floats) -> Floats:
        """Return the sum of each list."""
        return np.add.reduceat(x, self.start[:-1])

    def most(self, x: Floats) -> Floats:
        """Return the largest of each list."""
        return np.maximum.reduceat(x, self.start[:-1])

    def spread(self, x: Any) -> Any:
        """Return one number for each entry: that of its list."""
        return np.repeat(x, np.diff(self.start))


def _root(function: Callable[[Floats], tuple[Floats, Floats]], low: Floats, high: Floats) -> Floats:
    """Return where falling functions, given with their slopes, are 0, each in a bracket.

    By Newton's steps where these halve and stay in the bracket, else by bisection (as `rtsafe` of Press et al. 1992).
    """
    x, moved, is_found = low, high - low, np.zeros(len(low), np.bool_)
    for _ in range(200):
        f, slope = function(x)
        low, high = np.where(f >= 0, x, low), np.where(f <= 0, x, high)
        step = -f / slope
        is_good = (x + step >= low) & (x + step <= high) & (2 * np.abs(step) <= moved)
        after = np.where(is_found, x, np.where(is_good, x + step, (low + high) / 2))
        x, moved = after, np.abs(after - x)
        is_found = moved <= 2.0**-51 * np.maximum(1, np.abs(x))  # and does not move again, whatever others need
        if is_found.all():
            break
    return x


def _flat_entmax(lists: _Lists, z: Floats, w: Floats, a: float) -> Floats:
    """Return p = [1 + a (z - theta)]_+^(1/a) with sum w p = 1, for 0 < a <= 1.

    With p = 1/c at the best score, where z is 0, the others are [1 + a c^a z]_+^(1/a) / c, and c is between the weight
    of the best and that of all. So no digit is lost, however large or small weights are; log c is found.
    """

    def roots(log_c: Floats) -> tuple[Floats, Floats, Any]:
        y = a * z * lists.spread(np.exp(a * log_c))
        inside = y > -1
        return y, np.log1p(np.where(inside, y, 0)), inside

    def equation(log_c: Floats) -> tuple[Floats, Floats]:
        y, logs, inside = roots(log_c)
        total = lists.sum(np.where(inside, w * np.exp(logs / a), 0))
        slope = lists.sum(np.where(inside, w * np.exp(logs * (1 / a - 1)) * y, 0))
        return np.log(total) - log_c, slope / total - 1

    log_c = _root(equation, np.log(lists.most(np.where(z == 0, w, 0))), np.log(lists.sum(w)))
    _, logs, inside = roots(log_c)
    return np.where(inside, np.exp(logs / a - lists.spread(log_c)), 0)


def _steep_entmax(lists: _Lists, z: Floats, w: Floats, a: float) -> Floats:
    """Return p = [a z - tau]_+^(1/a) with sum w p = 1, for a > 1.

    The root is steep at 0, and digits that tau would lose count: p = (a (z - z') + q^a)^(1/a) instead, with z' the
    lowest score that has a share and q its p. A score has one if those above it sum to less than 1 where its own p is
    0. The number of these is found by bisection in the list in descending order, and so is q.
    """
    size = np.diff(lists.start)
    descending = z[np.lexsort((-z, lists.spread(np.arange(len(size)))))]
    inside, outside = np.zeros(len(size), np.int64), size.copy()  # the first of a list is inside
    while (unknown := outside - inside > 1).any():
        middle = np.where(unknown, (inside + outside) // 2, inside)
        above = np.maximum(z - lists.spread(descending[lists.start[:-1] + middle]), 0)
        is_inside = lists.sum(w * (a * above) ** (1 / a)) < 1
        inside, outside = np.where(unknown & is_inside, middle, inside), np.where(unknown & ~is_inside, middle, outside)
    lowest = lists.spread(descending[lists.start[:-1] + inside])
    has_share = z >= lowest
    root = (a * np.maximum(z - lowest, 0)) ** (1 / a)

    def powers(q: Floats) -> Floats:
        most, least = np.maximum(root, q_of := lists.spread(q)), np.minimum(root, q_of)
        ratio = np.divide(least, most, out=np.zeros(len(z)), where=most > 0)
        return np.where(has_share, most * np.exp(np.log1p(ratio**a) / a), 0)

    low, high = np.zeros(len(size)), 1 / lists.sum(np.where(has_share, w, 0))
    for _ in range(64):
        q = (low + high) / 2
        too_much = lists.sum(w * powers(q)) > 1
        low, high = np.where(too_much, low, q), np.where(too_much, q, high)
    return powers(high)


def _normmax(lists: _Lists, z: Floats, w: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Return u = [z + t]_+^(1/a) with sum w u^alpha = 1, and 1 - t, the conjugate.

    The sum rises with t, which is between the solutions for the weight of all and for that of the best; log t is found.
    """
    a = alpha - 1
    r = alpha / a

    def equation(log_t: Floats) -> tuple[Floats, Floats]:
        t = np.exp(log_t)
        y = np.maximum(z + lists.spread(t), 0)
        total = lists.sum(w * y**r)
        return -np.log(total), -r * t * lists.sum(w * y ** (r - 1)) / total

    best = lists.most(np.where(z == 0, w, 0))
    t = np.exp(_root(equation, -np.log(lists.sum(w)) / r, -np.log(best) / r))
    return np.maximum(z + lists.spread(t), 0) ** (1 / a), 1 - t
