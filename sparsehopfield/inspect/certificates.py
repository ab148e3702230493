"""Certificates: what a memory provably stores and retrieves, from how far its patterns' scores lie apart.

A map with a cutoff gives a pattern all weight exactly if the gap of its score to every other is at least the required
gap, cutoff/beta: 1/beta for sparsemax, 1/(beta (alpha - 1)) for alpha-entmax (`theory` has the proofs). Gaps here are
differences of canonical scores, in double, which retrieval itself decides by; each is lowered by what rounding may do
to it, here and there, so that a certificate holds in exact arithmetic and for every retrieval in float32 and float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine import html
from sparsehopfield._engine.call import Call
from sparsehopfield._engine.checks import Array, ignoring_float_errors
from sparsehopfield._engine.concurrency import cached
from sparsehopfield._engine.executor import CoreExecutor
from sparsehopfield._engine.partial import threshold
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.progress import Passes, Tell
from sparsehopfield._engine.separations import cutoff_of, valid_separations
from sparsehopfield._engine.structure import Structure
from sparsehopfield._engine.text import QUANTILES, aligned, as_shown, count, quantiles

__all__ = ["Capacity", "Certified", "Duplicates"]  # what methods of memories return

Floats = NDArray[np.float64]
DUPLICATE_PASSES = 3  # over the patterns, of `Certificates.duplicates`
LISTED = 5  # pairs of duplicates that are printed
BLOCK = 1024  # most patterns at a time,
NUMBERS = 2**21  # and most numbers of them: a step of NumPy's takes well below a second, and its arrays some MiB
PRODUCTS = 2**27  # most multiplications of distances in such a step
ROUNDOFF = 2.0**-53
NEARLY_SOFTMAX = (2, 1 + 2.0**-7)  # the code of an entmax whose support is nearly all within its cutoff: `_near_pairs`
SLIGHTLY_LESS = 1 - 2.0**-10  # factor of beta at which a few more patterns have weight: `certify_groups`
MOST_LISTED = 1024  # candidates of one pattern; where there are more, its distances to all patterns are computed


def required_cutoff(code: tuple[int, float]) -> float:
    """Return the cutoff of a map: the gap to all others at which a score gets all weight, in units of 1/beta.

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


def row_lengths(rows: Array) -> Floats:
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
        Its score less the best other, at least: what was computed less what rounding may do; inf if there is no other.
    lacks : ndarray of float64
        How much larger the gap would have to be; 0 where the query is certified.

    See Also
    --------
    sparsehopfield.HopfieldMemory.certify : Return these of the queries that it is given.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> found = sh.HopfieldMemory(np.eye(3), beta=2.0).certify([[0.9, 0.2, 0.0], [0.6, 0.4, 0.0]])
    >>> found.index, found.nearest, found.gap.round(6)  # a gap of 1/2 is needed
    (array([ 0, -1]), array([0, 0]), array([0.7, 0.2]))
    """

    index: NDArray[np.int64]
    nearest: NDArray[np.int64]
    gap: Floats
    lacks: Floats

    def _repr_html_(self) -> str:
        index, gap, lacks = (as_shown(a).reshape(-1) for a in (self.index, self.gap, self.lacks))
        certified = index >= 0
        n = int(np.count_nonzero(certified))
        share = f" ({n / len(index):.1%})" if len(index) else ""
        lines = [["of the queries", *QUANTILES]]
        for name, numbers in (("gap", gap), ("lacks, where not certified", lacks[~certified])):
            if len(numbers):
                lines.append([name, *quantiles(numbers)])
        heading = f"{n:,} of {count(len(index), 'query')} certified{share}"
        return html.table(lines, heading) if len(lines) > 1 else html.paragraphs(heading)


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
        Inverse temperature, and probability that any of the random patterns is not stored.
    M, log_M : float
        How many random patterns on a sphere of this radius and dimension are all stored with probability 1 - p, and its
        natural logarithm; M is inf where it overflows.

    See Also
    --------
    sparsehopfield.HopfieldMemory.capacity : Return this of a memory.
    sparsehopfield.theory.exact_capacity : Compute `M` from the dimension, the radius and beta.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> X = np.random.default_rng(0).standard_normal((200, 32))
    >>> capacity = sh.HopfieldMemory(X, similarity="euclidean").capacity()
    >>> capacity.certified, round(capacity.dimension), round(capacity.radius, 1), capacity.M > 10_000
    (200, 27, 5.6, True)
    """

    stored: int
    certified: int
    radius: float
    dimension: float
    beta: float
    p: float
    M: float
    log_M: float

    def _repr_html_(self) -> str:
        return html.paragraphs(str(self))

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
        The largest distance of a pair.
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

    See Also
    --------
    sparsehopfield.HopfieldMemory.duplicates : Return these of a memory.
    sparsehopfield.HopfieldMemory.remove : Remove patterns, as all but the first of each group.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> found = sh.HopfieldMemory(np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 0.5]])).duplicates(0.5)
    >>> found.pairs.tolist(), found.distance.tolist(), [group.tolist() for group in found.groups]
    ([[0, 2], [0, 3], [2, 3]], [0.0, 0.5, 0.5], [[0, 2, 3]])
    """

    within: float
    stored: int
    pairs: NDArray[np.int64]
    distance: Floats
    groups: list[NDArray[np.int64]]
    ids: NDArray[np.int64] | None = None

    def __str__(self) -> str:
        lines, more = self._nearest(), self._more()
        return self._heading() + (f"\n\n{aligned(lines)}" if lines else "") + (f"\n{more}" if more else "")

    def __repr__(self) -> str:
        return f"Duplicates({self._heading()})"

    def _repr_html_(self) -> str:
        lines, more = self._nearest(), self._more()
        shown = html.table(lines, self._heading()) if lines else html.paragraphs(self._heading())
        return shown + (f"\n{html.paragraphs(more)}" if more else "")

    def _heading(self) -> str:
        """Return in words how many pairs and groups there are."""
        within = f"within {self.within:g} of each other" if self.within else "that are exact copies"
        n = len(self.pairs)
        if n == 0:
            return f"of {self.stored} patterns none are {within.removeprefix('that are ')}"
        linked, count = sum(map(len, self.groups)), len(self.groups)
        text = f"{n} {'pair' if n == 1 else 'pairs'} of patterns {within}: {linked} of {self.stored} patterns, in "
        return text + f"{count} {'group' if count == 1 else 'groups'} of at most {max(map(len, self.groups))}"

    def _nearest(self) -> list[list[str]]:
        """Return the lines of a table of the nearest pairs; none if there are no pairs."""
        if not len(self.pairs):
            return []
        lines = [["pattern", "and", *(["id", "and"] if self.ids is not None else []), "distance"]]
        for k in np.argsort(as_shown(self.distance), kind="stable")[:LISTED]:
            names = [*self.pairs[k].tolist(), *([] if self.ids is None else self.ids[k].tolist())]
            lines.append([*map(str, names), f"{float(self.distance[k]):.4g}"])
        return lines

    def _more(self) -> str:
        """Return in words how many pairs the table leaves out."""
        return f"and {len(self.pairs) - LISTED} more" if len(self.pairs) > LISTED else ""


@dataclass(frozen=True)
class Rounding:
    """What rounding may do to the gaps of scores of some patterns, and the certificates that gaps give in spite of it.

    Attributes
    ----------
    similarity : str
    d : int
        Features.
    dtype : numpy.dtype
        In which the patterns are computed with.
    longest : float
        Length of the longest pattern; 1 under cosine similarity.
    underflow : float
        The most that underflow may change a score by.
    """

    similarity: str
    d: int
    dtype: np.dtype[Any]
    longest: float
    underflow: float

    @classmethod
    def of_lengths(cls, similarity: str, d: int, dtype: np.dtype[Any], longest: float, shortest: float) -> Rounding:
        """Return that of patterns between two lengths."""
        tiny = float(np.finfo(np.float64).smallest_subnormal) * (d + 8)
        if similarity == "cosine":
            return cls(similarity, d, dtype, 1.0, tiny * max(1.0, 1 / shortest))
        return cls(similarity, d, dtype, longest, tiny)

    @ignoring_float_errors()
    def bound(self, lengths: Floats | float, scores: Floats | float) -> Any:
        """Bound what rounding may take from the gap of two scores, at queries of these lengths.

        A canonical score is off by at most (d + 2) u |x| |xi|, u = 2^-53; twice that covers the unit rows' scale, and
        these lengths. One by distance is off by at most (d + 2) u of itself: `scores` is the sum of the sizes of the
        two. A gap has two scores, and is computed twice: here and by the retrieval.
        """
        size = scores if self.similarity == "euclidean" else lengths * self.longest
        return 4 * ((2 * self.d + 8) * ROUNDOFF * size + self.underflow)

    @property
    def unit_row_error(self) -> float:
        """Return a bound on the distance of the rounded unit rows to exact ones; 0 but for cosine."""
        return 4 * float(np.finfo(self.dtype).eps) if self.similarity == "cosine" else 0.0

    def own_lengths(self, lengths: Floats) -> Floats:
        """Return the lengths of patterns as queries: 1 under cosine similarity."""
        return np.ones(len(lengths)) if self.similarity == "cosine" else lengths

    @ignoring_float_errors()
    def lowered(self, margins: Floats, lengths: Floats) -> Floats:
        """Compute lower bounds of margins, (M,), that hold whatever rounding does; inf where there is no other."""
        rounding = self.bound(self.own_lengths(lengths), np.where(np.isinf(margins), 0, margins))
        return margins - rounding - 2 * self.unit_row_error

    @ignoring_float_errors()
    def near_gaps(self, lengths: Floats, within: float) -> Floats:
        """Bound from above the gap at each pattern, (M,), to another at most `within` away."""
        error = self.unit_row_error
        gap = (min(within, 4 * self.longest) + 2 * error) ** 2 / 2 + 2 * error  # none are farther apart than 2 longest
        return gap + self.bound(self.own_lengths(lengths), np.full(len(lengths), gap))

    @ignoring_float_errors()
    def certify(
        self, queries: Array, position: NDArray[np.int64], score: Floats, required_gap: Floats, leading: tuple[int, ...]
    ) -> Certified:
        """Return where an update provably moves queries (N, d), given their two best patterns and scores, (N, 2)."""
        sizes = np.where(np.isinf(score), 0, np.abs(score)).sum(axis=1)
        gap = score[:, 0] - score[:, 1] - self.bound(row_lengths(queries), sizes)
        required_gap = np.broadcast_to(required_gap, gap.shape)
        certain = gap >= required_gap
        lacks = np.subtract(required_gap, gap, out=np.zeros(len(gap)), where=~certain)
        nearest = position[:, 0].reshape(leading)
        index = np.where(certain.reshape(leading), nearest, -1)
        return Certified(index, nearest, gap.reshape(leading), lacks.reshape(leading))


@ignoring_float_errors()
def critical_betas(lower_margins: Floats, cutoff: float) -> Floats:
    """Compute the smallest beta, (M,), with cutoff/beta <= lower margin; inf where there is none; 0 if alone.

    Rounded up, so that `beta >= critical` is the whole condition of a certificate.
    """
    beta = np.where(lower_margins > 0, cutoff / lower_margins, np.inf)
    return np.where(beta > 0, np.nextafter(beta, np.inf), 0)


class Certificates:
    """Certificates of stored patterns. Patterns never change, so each result is computed once and kept."""

    def __init__(self, pattern_set: PatternSet) -> None:
        self.pattern_set = pattern_set
        self._core = pattern_set.core(pattern_set.dtype)
        self._others: dict[str, Certificates] = {}

    def _blocks(self) -> Iterator[slice]:
        """Yield slices of the patterns, of limited size."""
        m, d = self.pattern_set.shape
        step = max(1, min(BLOCK, NUMBERS // d))
        for first in range(0, m, step):
            yield slice(first, min(first + step, m))

    def under(self, similarity: str) -> Certificates:
        """Return the certificates of the same patterns under another similarity."""
        patterns = self.pattern_set
        if similarity == patterns.similarity:
            return self
        if similarity not in self._others:
            scale = None if patterns.scale == 1 else patterns.scale
            other = PatternSet(
                patterns.patterns, None, similarity, copy=None, check_finite=True, scale=scale, index=patterns.index
            )
            self._others[similarity] = Certificates(other)
        return self._others[similarity]

    # --- margins and their rounding -------------------------------------------------------------------

    @cached
    def margins(self) -> Floats:
        """Compute the margins, (M,): each pattern's score with itself less the best other."""
        return _core.margins(self._core)

    def make_margins(self, tell: Tell | None) -> None:
        """Compute the margins, unless they are there, and tell the function how many are done."""
        if "margins" not in self.__dict__:
            self.__dict__.setdefault("margins", _core.margins(self._core, tell))  # as `cached` does

    @cached
    @ignoring_float_errors()
    def lengths(self) -> Floats:
        """Compute the lengths |xi| of the numbers that are stored, (M,), by their scale if they have one."""
        scale = self.pattern_set.scale
        lengths = np.empty(len(self.pattern_set))
        for block in self._blocks():
            rows = self.pattern_set.patterns[block]
            if scale != 1:
                rows = rows.astype(np.float32) * np.float32(scale)  # as the core rounds them
            lengths[block] = row_lengths(rows)
        return lengths

    @cached
    def rounding(self) -> Rounding:
        """Return what rounding may do to the gaps of these patterns' scores."""
        patterns, lengths = self.pattern_set, self.lengths
        longest, shortest = float(lengths.max()), float(lengths.min())
        return Rounding.of_lengths(patterns.similarity, patterns.shape[1], patterns.dtype, longest, shortest)

    @cached
    def lower_margins(self) -> Floats:
        """Compute lower bounds of the margins, (M,), that hold whatever rounding does; inf where there is no other."""
        return self.rounding.lowered(self.margins, self.lengths)

    def critical_betas(self, cutoff: float) -> Floats:
        """Compute the smallest beta, (M,), with cutoff/beta <= lower margin; see `critical_betas`."""
        return critical_betas(self.lower_margins, cutoff)

    # --- the update T ----------------------------------------------------------------------------------

    @cached
    def _core_without_values(self) -> Any:
        """Return the core's memory of the patterns without their values."""
        stored = self.pattern_set
        return (
            self._core
            if stored.value_storage is None
            else stored.with_rows(stored.patterns, None, extends=False, index=False).core(stored.dtype)
        )

    def rows(self, position: NDArray[np.int64] | slice = slice(None)) -> Array:
        """Return patterns as T returns them, to the bit: cosine unit rows, narrow numbers widened."""
        positions = np.arange(len(self.pattern_set))[position]
        rows = np.empty((len(positions), self.pattern_set.shape[1]), self.pattern_set.dtype)
        _core.mix(self._core_without_values, np.arange(len(positions) + 1), positions, np.ones(len(positions)), rows)
        return rows

    def are_fixed(self, code: tuple[int, float], beta: Floats, structure: Structure | None) -> NDArray[np.bool_]:
        """Check whether an update moves each pattern, (M,), by no more than rounding can, as `retrieve` decides it.

        Under a structure all patterns are queries of one call, each at its place.
        """
        m = len(self.pattern_set)
        fixed = np.empty(m, np.bool_)
        tol = 4 * float(np.finfo(self.pattern_set.dtype).eps)
        pairs = None if structure is None else structure.descriptor(m, m)
        executor = CoreExecutor(self._core, beta, code, pairs)
        for block in self._blocks() if pairs is None else [slice(0, m)]:
            rows = self.rows(block)
            _, fixed[block], _ = executor.retrieve(rows, 1, tol, np.empty_like(rows), None)
        return fixed

    @ignoring_float_errors()
    def certify(self, call: Call, cutoff: float) -> Certified:
        """Return where an update provably moves queries: to the best pattern, if its gap is at least cutoff/beta."""
        queries = call.rows
        position, score = _core.nearest(self.pattern_set.core(queries.dtype), queries, call.beta, *call.code, 2)
        return self.rounding.certify(queries, position, score, cutoff / call.beta, call.leading)

    @ignoring_float_errors()
    def certify_groups(
        self, queries: ArrayLike, beta: float, code: tuple[int, float], group: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the group, (N,), that all patterns with weight belong to; -1 where rounding might change that.

        Let c(beta) be how far below the best a score must be to have no weight. If the gaps of all scores to the best
        are off by at most e, so is c: the threshold moves by no more than the scores do, and with them. So no pattern
        has weight whose computed gap is at least c + 2 e. Where c is larger by more than that at a slightly smaller
        beta, the patterns with weight there are all that may have any here.
        """
        code_cutoff = required_cutoff(code)
        wide = Call.prepare(self.pattern_set, queries, beta * SLIGHTLY_LESS, code)
        narrow = Call.prepare(self.pattern_set, wide.rows, beta, code)
        ends, scores, groups = [], [], []
        for call in (narrow, wide):
            start, position, score, _ = call.core_executor("certificates").associate(call.rows)
            ends.append(start)
            scores.append(score)
            groups.append(group[position])
        found = np.full(len(wide.rows), -1, np.int64)
        lengths = row_lengths(wide.rows)
        for i in range(len(found)):
            few, many = (s[e[i] : e[i + 1]] for s, e in zip(scores, ends, strict=True))
            near = groups[1][ends[1][i] : ends[1][i + 1]]
            if (near != near[0]).any():
                continue
            best = float(many.max())
            theirs = threshold(many, beta * SLIGHTLY_LESS, code)
            error = self.rounding.bound(float(lengths[i]), abs(best) + max(abs(best), abs(theirs), code_cutoff / beta))
            if threshold(few, beta, code) - theirs >= 3 * error:
                found[i] = near[0]
        return found.reshape(wide.leading)

    # --- radii ------------------------------------------------------------------------------------------

    @ignoring_float_errors()
    def radii(self, cutoff: float, beta: float, tell: Tell | None = None) -> Floats:
        """Compute exact radii, (M,): the largest distance from which every query goes to the pattern; -inf where not
        even the pattern itself does.

        At x = xi + e the gap to another pattern at distance D is that at xi plus <e, difference>, at least the gap at
        xi less |e| D, with equality in the worst direction: the radius is the least (gap - cutoff/beta) / D. The
        required gap is raised by the rounding at x, |x| <= 2 |xi| + max |xi|, as no radius exceeds |xi|, or D/2, where
        the two scores by distance are at most 2.5 D^2/2.
        """
        rounding = self.rounding
        lengths = rounding.own_lengths(self.lengths)
        scores = np.where(np.isinf(self.margins), 0, 2.5 * self.margins)
        required_gap = cutoff / beta + rounding.bound(2 * lengths + rounding.longest, scores)
        inside = self.lower_margins >= required_gap
        radii = np.full(len(inside), -np.inf)
        at = np.flatnonzero(inside)  # positions
        if len(at) == 0:
            return radii
        if len(inside) == 1:
            radii[at] = np.inf
        elif self.pattern_set.similarity == "dot":
            # Four scores make a squared distance: it is never taken for too small.
            slack = rounding.bound(rounding.longest, 0.0)
            radii[at] = _core.radii(self._core, at, required_gap[at], slack, tell)[0]
        else:  # the gap is D^2/2, so that the nearest pattern decides; and the quotient grows with D
            distance = np.sqrt(2 * self.lower_margins[at])
            radii[at] = distance / 2 - required_gap[at] / distance - rounding.unit_row_error
        radii -= np.abs(radii) * 16 * ROUNDOFF if len(inside) > 1 else 0
        return np.where(radii >= 0, radii, -np.inf)

    # --- capacity ---------------------------------------------------------------------------------------

    @cached
    @ignoring_float_errors()
    def radius_and_dimension(self) -> tuple[float, float]:
        """Compute the root mean square distance from the mean and the participation ratio of the covariance, BLOCK
        columns at a time.
        """
        m, d = self.pattern_set.shape
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
        if squares == 0 or trace <= (m * ROUNDOFF * self.rounding.longest) ** 2:  # of the mean's rounding
            raise ValueError("patterns: are all the same, or too close for a covariance: there is no spread to compare")
        return trace**0.5, trace * trace / squares

    @ignoring_float_errors()
    def capacity(self, cutoff: float, beta: float, p: float) -> Capacity:
        """Compute how many random patterns of this spread are stored, beside how many of these are."""
        from sparsehopfield.theory import exact_capacity  # loads scipy

        radius, dimension = self.radius_and_dimension
        # Patterns on a sphere are stored by their distances, whatever its centre.
        most = exact_capacity(max(2, round(dimension)), radius, beta / cutoff, p)
        certified = int(np.count_nonzero(self.critical_betas(cutoff) <= beta))
        return Capacity(len(self.margins), certified, radius, dimension, beta, float(p), most.M, most.log_M)

    # --- copies -----------------------------------------------------------------------------------------

    @cached
    def copies(self) -> list[NDArray[np.int64]]:
        """Return the positions of patterns whose rows are equal, in groups of two or more."""
        return self._find_copies(None)

    def make_copies(self, tell: Tell | None) -> None:
        """Find the copies, unless they are there, and tell the function how many patterns are done."""
        if "copies" not in self.__dict__:
            self.__dict__.setdefault("copies", self._find_copies(tell))  # as `cached` does

    def _find_copies(self, tell: Tell | None) -> list[NDArray[np.int64]]:
        """Find the copies in a pass over the patterns, of which the function is told."""
        keys = np.empty(len(self.pattern_set), np.int64)
        for block in self._blocks():
            keys[block] = [hash(row.tobytes()) for row in self.rows(block) + 0.0]  # makes -0.0 and 0.0 the same bytes
            if tell is not None:
                tell(block.stop, len(keys))
        _, key, count = np.unique(keys, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(count[key] > 1)
        groups: dict[bytes, list[int]] = {}
        for first in range(0, len(shared), BLOCK):
            at = shared[first : first + BLOCK]
            for position, row in zip(at.tolist(), self.rows(at) + 0.0, strict=True):
                groups.setdefault(row.tobytes(), []).append(position)
        return [np.array(group, np.int64) for group in groups.values() if len(group) > 1]

    @ignoring_float_errors()
    def duplicates(self, within: float, most: int, passes: Passes | None = None) -> Duplicates:
        """Find all pairs of patterns at most `within` apart, in up to DUPLICATE_PASSES passes over the patterns.

        Raises
        ------
        ValueError
            If they are more than `most`.
        """
        passes = passes or Passes(None, DUPLICATE_PASSES, len(self.pattern_set))
        self.make_copies(passes.begin())
        pairs, distance = [np.empty((0, 2), np.int64)], [np.empty(0)]
        count = sum(len(group) * (len(group) - 1) // 2 for group in self.copies)  # pairs at any distance
        if within > 0 and count <= most:
            count = 0
            by_distance = self.under("euclidean") if self.pattern_set.similarity == "dot" else self
            by_distance.make_margins(passes.begin())
            for pair, apart in by_distance._near_pairs(within, passes.begin()):
                pairs.append(pair)
                distance.append(apart)
                count += len(pair)
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
        m = len(self.pattern_set)
        return Duplicates(within, m, found[order], np.concatenate(distance)[order], _connected_groups(found))

    def _near_pairs(self, within: float, tell: Tell | None) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Yield pairs of patterns at most `within` apart, (n, 2), and their distances, (n,), in parts.

        With the row of one pattern as a query, another at distance D scores D^2/2 less (cosine: of unit rows, which are
        off by some rounding). Entmax of alpha = 1 + a gives weight [1 - a (theta - z)]^(1/a); the largest of M
        weights is at least 1/M, so that all z down to M^-a / a below the best have weight. Those a little nearer have
        one that does not underflow. So beta makes this range as wide as the distance, and the scan of a retrieval
        finds all candidates.
        """
        a, m = NEARLY_SOFTMAX[1] - 1, len(self.pattern_set)
        gap = self.rounding.near_gaps(self.lengths, within)
        beta = np.clip((1 - a) * m**-a / a / gap, np.finfo(np.float64).tiny, 1e300)
        near_others = np.flatnonzero(self.margins <= gap)
        for first in range(0, len(near_others), BLOCK):
            firsts = near_others[first : first + BLOCK]
            start, position, _, _ = _core.associate(
                self._core, self.rows(firsts), beta[firsts], *NEARLY_SOFTMAX, None, MOST_LISTED, 0.0
            )
            count = np.diff(start)
            i = np.repeat(firsts, count)
            kept = (position > i) & np.repeat(count < MOST_LISTED, count)
            yield from self._pairs_within(i[kept], position[kept], within)
            crowded = firsts[count == MOST_LISTED]
            step = max(1, PRODUCTS // (BLOCK * self.pattern_set.shape[1]))
            for some in range(0, len(crowded), step):
                yield from self._near_pairs_of_crowded(crowded[some : some + step], within)
            if tell is not None:
                tell(first + len(firsts), len(near_others))

    def _near_pairs_of_crowded(
        self, firsts: NDArray[np.int64], within: float
    ) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Yield the same pairs of these patterns and all behind them, by the distances to all."""
        from scipy.spatial.distance import cdist

        x = self.rows(firsts).astype(np.float64)
        for block in self._blocks():
            far = cdist(x, self.rows(block).astype(np.float64)) > within * (1 + 1e-9)
            i, j = np.nonzero(~far)
            kept = j + block.start > firsts[i]
            yield from self._pairs_within(firsts[i[kept]], j[kept] + block.start, within)

    def _pairs_within(
        self, i: NDArray[np.int64], j: NDArray[np.int64], within: float
    ) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Yield those of the pairs (i, j) that are at most `within` apart, by their rows' differences."""
        step = max(1, BLOCK * BLOCK // self.pattern_set.shape[1])
        for first in range(0, len(i), step):
            pair = np.column_stack([i[first : first + step], j[first : first + step]])
            distances = row_lengths(self.rows(pair[:, 0]).astype(np.float64) - self.rows(pair[:, 1]))
            yield pair[distances <= within], distances[distances <= within]


def _connected_groups(pairs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the positions in pairs, in groups that pairs connect directly or through others."""
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
