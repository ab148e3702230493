"""Certificates: what a memory provably stores and retrieves, from how far its patterns' scores lie apart.

A map with a cutoff gives a pattern all weight exactly if its score leads every other by cutoff/beta: sparsemax by
1/beta, alpha-entmax by 1/(beta (alpha - 1)). So a lead that is known decides a retrieval (`theory` has the proofs).
Leads here are differences of canonical scores, in double, which retrieval itself decides by; each is lowered by what
rounding may do to it, here and there, so that a certificate holds in exact arithmetic and for every retrieval in
float32 and float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.call import Call
from sparsehopfield._engine.checks import Array, ignoring_float_errors
from sparsehopfield._engine.concurrency import cached
from sparsehopfield._engine.executor import CoreExecutor
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.separations import cutoff_of, valid_separations
from sparsehopfield._engine.structure import Structure
from sparsehopfield._engine.text import aligned

__all__ = ["Capacity", "Certificates", "Certified", "Duplicates", "required_cutoff"]

Floats = NDArray[np.float64]
BLOCK = 1024  # patterns at a time, at most,
NUMBERS = 2**21  # of them: a step of NumPy's takes well below a second, and its arrays some MiB
PRODUCTS = 2**27  # of distances in such a step
ROUNDOFF = 2.0**-53
NEARLY_SOFTMAX = (2, 1 + 2.0**-7)  # entmax, whose support is nearly all that is in its cutoff: see `_near`
CROWD = 1024  # candidates listed of one pattern; where there are more, all patterns are looked at


def required_cutoff(code: tuple[int, float]) -> float:
    """Return how far the best score must lead to get all weight, in units of 1/beta: the cutoff of the map.

    Raises
    ------
    ValueError
        For maps that give weight to all patterns.
    """
    cutoff = cutoff_of(code)
    if cutoff is None:
        raise ValueError(
            "separation: maps that give weight to every pattern, as softmax, store none exactly, and nothing can be "
            f"certified; maps with a cutoff do: {valid_separations(has_cutoff=True)}"
        )
    return cutoff


def _lengths(rows: Array) -> Floats:
    """Compute Euclidean lengths in float64, where squares may overflow or underflow."""
    rows = rows.astype(np.float64)
    # Powers of two round nothing, so that a length is what it would be without a scale.
    scale = np.ldexp(1.0, -np.clip(np.frexp(np.abs(rows).max(axis=1))[1], -1000, 1000))
    return np.linalg.norm(rows * scale[:, None], axis=1) / scale


@dataclass(frozen=True, eq=False)
class Certified:
    """Certified destinations of queries in one step; every field has the queries' leading shape.

    Attributes
    ----------
    index : ndarray of int64
        Position of the pattern that gets all weight, so that the result is this pattern, or its values; -1 where none
        is certain.
    nearest : ndarray of int64
        Position of the pattern with the best score, certain or not; of equal ones the first.
    gap : ndarray of float64
        How far its score leads all others at least: what was computed less what rounding may do; inf if there are none.
    lacks : ndarray of float64
        How much larger the gap would have to be; 0 where the query is certified.
    """

    index: NDArray[np.int64]
    nearest: NDArray[np.int64]
    gap: Floats
    lacks: Floats


@dataclass(frozen=True)
class Capacity:
    """The number of stored patterns, beside that of random ones of the same spread that would be stored.

    Attributes
    ----------
    stored : int
        The number of patterns.
    certified : int
        How many of them are certified at `beta`.
    radius : float
        Root mean square distance of the patterns (cosine: unit rows) from their mean.
    dimension : float
        Effective dimension: (sum of the covariance's eigenvalues)^2 / (sum of their squares), the participation ratio.
        d for a sphere or a ball in d dimensions, k for data alike in k directions and constant in the others.
    beta, p : float
        What was asked: inverse temperature, and probability that any of the random patterns is not stored.
    M, log_M : float
        How many random patterns on a sphere of this radius and dimension are all stored with probability 1 - p, and its
        natural logarithm; M is inf where it overflows.
    """

    stored: int
    certified: int
    radius: float
    dimension: float
    beta: float
    p: float
    M: float
    log_M: float

    def __str__(self) -> str:
        most = f"{int(self.M)}" if self.M < 1e6 else f"{self.M:.3g}" if self.M < np.inf else f"exp({self.log_M:.4g})"
        return (
            f"{self.certified} of {self.stored} patterns are certified at beta {self.beta:.4g};\n"
            f"of random ones with their spread ({self.dimension:.1f} effective dimensions, radius {self.radius:.4g}) "
            f"up to {most} would all be stored, with probability {1 - self.p:g}"
        )


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs and groups of patterns that are copies or near-copies of each other.

    Attributes
    ----------
    within : float
        The distance that was asked for.
    stored : int
        The number of patterns.
    pairs : ndarray of int64, shape (n, 2)
        Positions i < j of every pair of patterns at most so far apart, ascending.
    distance : ndarray of float64, shape (n,)
        How far apart: the length of the difference of their rows, for cosine similarity of their unit rows.
    groups : list of ndarray of int64
        Positions that pairs link, directly or through others: ascending, and the groups by their first.
    ids : ndarray of int64, shape (n, 2), or None
        The names of the pairs, if the memory has names other than positions.
    """

    within: float
    stored: int
    pairs: NDArray[np.int64]
    distance: Floats
    groups: list[NDArray[np.int64]]
    ids: NDArray[np.int64] | None = None

    def __str__(self) -> str:
        within = f"within {self.within:g} of each other" if self.within else "that are exact copies"
        n = len(self.pairs)
        if n == 0:
            return f"of {self.stored} patterns none are {within.removeprefix('that are ')}"
        linked, count = sum(map(len, self.groups)), len(self.groups)
        text = f"{n} {'pair' if n == 1 else 'pairs'} of patterns {within}: {linked} of {self.stored} patterns, in "
        text += f"{count} {'group' if count == 1 else 'groups'} of at most {max(map(len, self.groups))}"
        lines = [["pattern", "and", *(["id", "and"] if self.ids is not None else []), "distance"]]
        nearest = np.argsort(self.distance, kind="stable")[:5]
        for k in nearest:
            names = [*self.pairs[k], *([] if self.ids is None else self.ids[k])]
            lines.append([*map(str, names), f"{self.distance[k]:.4g}"])
        table = aligned(lines)
        return f"{text}\n\n{table}" + (f"\nand {n - len(nearest)} more" if n > len(nearest) else "")


class Certificates:
    """Certificates of stored patterns. Patterns never change, so each result is computed once and kept."""

    def __init__(self, stored: PatternSet) -> None:
        self.stored = stored
        self._core = stored.core(stored.dtype)
        self._others: dict[str, Certificates] = {}

    def _blocks(self) -> Iterator[slice]:
        """Yield slices of the patterns, of limited size."""
        m, d = self.stored.patterns.shape
        step = max(1, min(BLOCK, NUMBERS // d))
        for first in range(0, m, step):
            yield slice(first, min(first + step, m))

    def under(self, similarity: str) -> Certificates:
        """Return the certificates of the same patterns under another similarity."""
        own = self.stored
        if similarity == own.similarity:
            return self
        if similarity not in self._others:
            scale = None if own.scale == 1 else own.scale
            other = PatternSet(
                own.patterns, None, similarity, copy=None, check_finite=True, scale=scale, index=own.index
            )
            self._others[similarity] = Certificates(other)
        return self._others[similarity]

    # --- margins and their rounding -------------------------------------------------------------------

    @cached
    def margins(self) -> Floats:
        """Compute the margins, (M,): each pattern's score with itself less the best other."""
        return _core.margins(self._core)

    @cached
    @ignoring_float_errors()
    def _lengths(self) -> Floats:
        """Compute the lengths |xi| of the numbers that are stored, (M,), by their scale if they have one."""
        scale = self.stored.scale
        lengths = np.empty(len(self.stored.patterns))
        for block in self._blocks():
            rows = self.stored.patterns[block]
            if scale != 1:
                rows = rows.astype(np.float32) * np.float32(scale)  # as the core rounds them
            lengths[block] = _lengths(rows)
        return lengths

    @cached
    @ignoring_float_errors()
    def _reach(self) -> tuple[float, float]:
        """Compute the largest length of a row as scores see it, and what one underflow may cost a score."""
        longest, d = float(self._lengths.max()), self.stored.patterns.shape[1]
        tiny = float(np.finfo(np.float64).smallest_subnormal) * (d + 8)
        if self.stored.similarity == "cosine":
            return 1.0, tiny * max(1.0, 1 / float(self._lengths.min()))
        return longest, tiny

    @ignoring_float_errors()
    def rounding(self, lengths: Floats | float, scores: Floats | float) -> Any:
        """Bound what rounding may take from the lead of one score over another, at queries of these lengths.

        A canonical score is off by at most (d + 2) u |x| |xi|, u = 2^-53; twice that covers the unit rows' scale, and
        these lengths. One by distance is off by at most (d + 2) u of itself: `scores` is the sum of the sizes of the
        two. A lead has two scores, and is computed twice: here and by the retrieval.
        """
        longest, tiny = self._reach
        size = scores if self.stored.similarity == "euclidean" else lengths * longest
        return 4 * ((2 * self.stored.patterns.shape[1] + 8) * ROUNDOFF * size + tiny)

    @cached
    def unit_rounding(self) -> float:
        """Bound the distance of the rounded unit rows to exact ones; 0 but for cosine."""
        return 4 * float(np.finfo(self.stored.dtype).eps) if self.stored.similarity == "cosine" else 0.0

    @cached
    @ignoring_float_errors()
    def sure(self) -> Floats:
        """Compute lower bounds of the margins, (M,), that hold whatever rounding does."""
        lengths = np.ones(len(self._lengths)) if self.stored.similarity == "cosine" else self._lengths
        rounding = self.rounding(lengths, np.where(np.isinf(self.margins), 0, self.margins))  # inf: no other
        return self.margins - rounding - 2 * self.unit_rounding

    @ignoring_float_errors()
    def critical(self, needed: float) -> Floats:
        """Compute the smallest beta, (M,), with needed/beta <= sure margin; inf where there is none, 0 for a single
        pattern.

        Rounded up, so that `beta >= critical` is all that a certificate has to ask.
        """
        beta = np.where(self.sure > 0, needed / self.sure, np.inf)
        return np.where(beta > 0, np.nextafter(beta, np.inf), 0)

    # --- what T does ----------------------------------------------------------------------------------

    @cached
    def _bare(self) -> Any:
        """Return the patterns without values, for the core."""
        stored = self.stored
        return (
            self._core
            if stored.values is None
            else stored.with_rows(stored.patterns, None, extends=False, index=False).core(stored.dtype)
        )

    def rows(self, position: NDArray[np.int64] | slice = slice(None)) -> Array:
        """Return patterns as T returns them, to the bit: cosine unit rows, narrow numbers widened."""
        at = np.arange(len(self.stored.patterns))[position]
        rows = np.empty((len(at), self.stored.patterns.shape[1]), self.stored.dtype)
        _core.mix(self._bare, np.arange(len(at) + 1), at, np.ones(len(at)), rows)
        return rows

    def fixed(self, code: tuple[int, float], beta: Floats, structure: Structure | None) -> NDArray[np.bool_]:
        """Check whether a step moves each pattern, (M,), by no more than rounding can, as `retrieve` decides it.

        Under a structure all patterns are asked at once, each from its own place.
        """
        m = len(self.stored.patterns)
        fixed = np.empty(m, np.bool_)
        tol = 4 * float(np.finfo(self.stored.dtype).eps)
        pairs = None if structure is None else structure.descriptor(m, m)
        executor = CoreExecutor(self._core, beta, code, pairs)
        for block in self._blocks() if pairs is None else [slice(0, m)]:
            rows = self.rows(block)
            _, fixed[block], _ = executor.retrieve(rows, 1, tol, np.empty_like(rows), None)
        return fixed

    @ignoring_float_errors()
    def certify(self, call: Call, needed: float) -> Certified:
        """Return where queries provably go: to the best pattern, if it leads by needed/beta."""
        queries = call.rows
        position, score = _core.nearest(self.stored.core(queries.dtype), queries, call.beta, *call.code, 2)
        sizes = np.where(np.isinf(score), 0, np.abs(score)).sum(axis=1)
        gap = score[:, 0] - score[:, 1] - self.rounding(_lengths(queries), sizes)
        need = np.broadcast_to(needed / call.beta, gap.shape)
        certain = gap >= need
        lacks = np.subtract(need, gap, out=np.zeros(len(gap)), where=~certain)
        nearest, lead = position[:, 0].reshape(call.leading), call.leading
        return Certified(np.where(certain.reshape(lead), nearest, -1), nearest, gap.reshape(lead), lacks.reshape(lead))

    # --- balls ------------------------------------------------------------------------------------------

    @ignoring_float_errors()
    def radii(self, needed: float, beta: float) -> Floats:
        """Compute exact radii, (M,): the largest distance from which every query goes to the pattern; -inf where not
        even the pattern itself does.

        At x = xi + e the lead over another pattern at distance D is that at xi plus <e, difference>, at least the lead
        less |e| D, with equality in the worst direction: the radius is the least (lead - needed/beta) / D. What is
        needed is raised by the rounding at x, |x| <= 2 |xi| + max |xi|, as no radius exceeds |xi|, or D/2, where the
        two scores by distance are at most 2.5 D^2/2.
        """
        cosine = self.stored.similarity == "cosine"
        lengths = np.ones(len(self.margins)) if cosine else self._lengths
        scores = np.where(np.isinf(self.margins), 0, 2.5 * self.margins)
        need = needed / beta + self.rounding(2 * lengths + self._reach[0], scores)
        inside = self.sure >= need
        radii = np.full(len(inside), -np.inf)
        at = np.flatnonzero(inside)
        if len(at) == 0:
            return radii
        if len(inside) == 1:
            radii[at] = np.inf
        elif self.stored.similarity == "dot":
            # Four scores make a squared distance: it is never taken for too small.
            radii[at] = _core.radii(self._core, at, need[at], self.rounding(self._reach[0], 0.0))[0]
        else:  # the lead is D^2/2, so that the nearest pattern decides; and the quotient grows with D
            distance = np.sqrt(2 * self.sure[at])
            radii[at] = distance / 2 - need[at] / distance - self.unit_rounding
        radii -= np.abs(radii) * 16 * ROUNDOFF if len(inside) > 1 else 0
        return np.where(radii >= 0, radii, -np.inf)

    # --- capacity ---------------------------------------------------------------------------------------

    @cached
    @ignoring_float_errors()
    def spread(self) -> tuple[float, float]:
        """Compute the root mean square distance from the mean and the participation ratio of the covariance, BLOCK
        columns at a time.
        """
        m, d = self.stored.patterns.shape
        total = np.zeros(d)
        for block in self._blocks():
            total += self.rows(block).astype(np.float64).sum(axis=0)
        trace = squares = 0.0
        for first in range(0, d, BLOCK):
            columns = slice(first, min(first + BLOCK, d))
            scatter = np.zeros((d, columns.stop - first))
            for block in self._blocks():
                centred = self.rows(block) - total / m
                scatter += centred.T @ centred[:, columns]
            trace += float(np.trace(scatter, offset=-first)) / m
            squares += float(((scatter / m) ** 2).sum())
        if np.isnan(trace):
            raise ValueError("patterns: contain NaN or infinity; every entry must be finite")
        if not trace * trace < np.inf:
            raise OverflowError("patterns: their covariance exceeds the largest float64; scale the arrays down")
        if squares == 0 or trace <= (m * ROUNDOFF * self._reach[0]) ** 2:  # of the mean's rounding
            raise ValueError("patterns: are all the same, or too close for a covariance: there is no spread to compare")
        return trace**0.5, trace * trace / squares

    @ignoring_float_errors()
    def capacity(self, needed: float, beta: float, p: float) -> Capacity:
        """Compute how many random patterns of this spread are stored, beside how many of these are."""
        from sparsehopfield.theory import exact_capacity  # loads scipy

        radius, dimension = self.spread
        # Patterns on a sphere are stored by their distances, whatever its centre.
        most = exact_capacity(max(2, round(dimension)), radius, beta / needed, p)
        certified = int(np.count_nonzero(self.critical(needed) <= beta))
        return Capacity(len(self.margins), certified, radius, dimension, beta, float(p), most.M, most.log_M)

    # --- copies -----------------------------------------------------------------------------------------

    @cached
    def copies(self) -> list[NDArray[np.int64]]:
        """Return the positions of patterns whose rows are equal, in groups of two or more."""
        keys = np.empty(len(self.stored.patterns), np.int64)
        for block in self._blocks():
            keys[block] = [hash(row.tobytes()) for row in self.rows(block) + 0.0]  # makes -0.0 and 0.0 the same bytes
        _, key, count = np.unique(keys, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(count[key] > 1)
        groups: dict[bytes, list[int]] = {}
        for first in range(0, len(shared), BLOCK):
            at = shared[first : first + BLOCK]
            for position, row in zip(at.tolist(), self.rows(at) + 0.0, strict=True):
                groups.setdefault(row.tobytes(), []).append(position)
        return [np.array(group, np.int64) for group in groups.values() if len(group) > 1]

    @ignoring_float_errors()
    def duplicates(self, within: float, most: int) -> Duplicates:
        """Find all pairs of patterns at most `within` apart.

        Raises
        ------
        ValueError
            If they are more than `most`.
        """
        pairs, distance = [np.empty((0, 2), np.int64)], [np.empty(0)]
        count = sum(len(group) * (len(group) - 1) // 2 for group in self.copies)  # pairs at any distance
        if within > 0 and count <= most:
            count = 0
            for two, apart in (self.under("euclidean") if self.stored.similarity == "dot" else self)._near(within):
                pairs.append(two)
                distance.append(apart)
                count += len(two)
                if count > most:
                    break
        if count > most:
            raise ValueError(
                f"within: more than {most} pairs of patterns lie within {within:g}; ask for a smaller distance, or "
                "allow more with most="
            )
        if within == 0:
            pairs += [group[np.transpose(np.triu_indices(len(group), 1))] for group in self.copies]
            distance.append(np.zeros(count))
        found = np.concatenate(pairs)
        order = np.lexsort((found[:, 1], found[:, 0]))
        m = len(self.stored.patterns)
        return Duplicates(within, m, found[order], np.concatenate(distance)[order], _linked(found))

    def _near(self, within: float) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Yield pairs of near patterns and their distances, in parts.

        Asked with the row of one pattern, that of another at distance D scores D^2/2 less (cosine: of unit rows, which
        are off by some rounding). Entmax of alpha = 1 + a gives weight [1 - a (theta - z)]^(1/a); the largest of M
        weights is at least 1/M, so that all z down to M^-a / a below the best have weight. Those a little nearer have
        one that does not underflow. So beta makes this range as wide as the distance, and the scan of a retrieval
        finds all candidates.
        """
        cosine, a, m = self.stored.similarity == "cosine", NEARLY_SOFTMAX[1] - 1, len(self.stored.patterns)
        off, longest = self.unit_rounding, self._reach[0]
        need = (min(within, 4 * longest) + 2 * off) ** 2 / 2 + 2 * off  # no two are farther apart than 2 longest
        need = need + self.rounding(np.ones(m) if cosine else self._lengths, np.full(m, need))
        beta = np.clip((1 - a) * m**-a / a / need, np.finfo(np.float64).tiny, 1e300)
        asked = np.flatnonzero(self.margins <= need)
        for first in range(0, len(asked), BLOCK):
            mine = asked[first : first + BLOCK]
            start, position, _, _ = _core.associate(
                self._core, self.rows(mine), beta[mine], *NEARLY_SOFTMAX, None, CROWD, 0.0
            )
            count = np.diff(start)
            i = np.repeat(mine, count)
            kept = (position > i) & np.repeat(count < CROWD, count)
            yield from self._apart(i[kept], position[kept], within)
            crowded, step = mine[count == CROWD], max(1, PRODUCTS // (BLOCK * self.stored.patterns.shape[1]))
            for some in range(0, len(crowded), step):
                yield from self._near_all(crowded[some : some + step], within)

    def _near_all(self, mine: NDArray[np.int64], within: float) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Yield the same for these patterns and all behind them, by all distances."""
        from scipy.spatial.distance import cdist

        x = self.rows(mine).astype(np.float64)
        for block in self._blocks():
            far = cdist(x, self.rows(block).astype(np.float64)) > within * (1 + 1e-9)
            i, j = np.nonzero(~far)
            kept = j + block.start > mine[i]
            yield from self._apart(mine[i[kept]], j[kept] + block.start, within)

    def _apart(
        self, i: NDArray[np.int64], j: NDArray[np.int64], within: float
    ) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Yield those of some pairs that are near, by the difference of their rows."""
        step = max(1, BLOCK * BLOCK // self.stored.patterns.shape[1])
        for first in range(0, len(i), step):
            two = np.column_stack([i[first : first + step], j[first : first + step]])
            apart = _lengths(self.rows(two[:, 0]).astype(np.float64) - self.rows(two[:, 1]))
            yield two[apart <= within], apart[apart <= within]


def _linked(pairs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the positions in pairs, in groups that pairs connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(pairs) == 0:
        return []
    positions, node = np.unique(pairs, return_inverse=True)
    i, j = node.reshape(-1, 2).T
    graph = coo_array((np.ones(len(i), np.bool_), (i, j)), shape=(len(positions), len(positions)))
    label = connected_components(graph, directed=False)[1]
    order = np.argsort(label, kind="stable")
    groups = np.split(positions[order], np.flatnonzero(np.diff(label[order])) + 1)
    return sorted(groups, key=lambda group: int(group[0]))
