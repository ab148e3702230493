"""The coordinator of a sharded memory: calls, batch by batch, on shards that an engine brings requests to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.call import Call, Separation, rows_counted_from
from sparsehopfield._engine.checks import (
    FLOAT32,
    FLOAT64,
    Array,
    as_beta,
    as_number,
    as_one_beta,
    as_positive_numbers,
    as_queries,
    as_whole,
    compute_dtype,
    contiguous,
    ignoring_float_errors,
)
from sparsehopfield._engine.executor import CoreExecutor, Steps, Weights
from sparsehopfield._engine.pattern_set import TYPE_CODES
from sparsehopfield._engine.separations import SEPARATIONS, has_cutoff, row_of, separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield._engine.text import short
from sparsehopfield.distributed._certificates import ShardedCertificates
from sparsehopfield.distributed._shards import Engine, Outline, Request, Whole
from sparsehopfield.distributed._steps import (
    MOST_SCOUTED,
    SPARE,
    Best,
    Finished,
    Lists,
    Sums,
    describe,
    finish,
    floors,
    gather,
    merge,
    most_in_reach,
    partial,
    scout,
    scouted,
    sums,
    weigh,
    weighted,
)
from sparsehopfield.inspect.certificates import Certified, Duplicates, required_cutoff
from sparsehopfield.structures import TopK

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sparsehopfield.inspect.explain import Explanation

__all__ = ["Coordinator"]

Numbers = NDArray[np.intp]
Floats = NDArray[np.float64]
SCOUT_BYTES = 16 * 2**20  # of queries that are scouted at a time,
SCOUT_QUERIES = 4096  # and how many they are at most
LISTED = 2**23  # entries of lists at a time, more or less,
FIRST_LISTED = 16  # and of so many queries, or few patterns, until it is known how long their lists are
EXACT_SUPPORT = 1024  # SH_EXACT_SUPPORT in csrc/include/sparsehopfield.h


@dataclass(eq=False)
class Answer:
    """The part of the whole that some queries need for their results: the patterns with weight, or sums over all."""

    which: Numbers  # of the queries in the call, ascending
    request: Request  # these queries
    lists: Lists  # their patterns of weight, empty where there are sums
    found: Finished | Sums
    is_long: bool = False  # supports beyond those whose weights are canonical in one memory

    def update(self, out: Array) -> None:
        """Write one update of the queries, (n, v), to out."""
        if isinstance(self.found, Sums):
            _, total, mixture = self.found.root
            with ignoring_float_errors():
                out[...] = mixture / np.where(total == 0, 1.0, total)[:, None]
        elif self.is_long:
            core = self.found.pattern_set.core(out.dtype)
            code, lists = self.request.code, self.lists
            weight = _core.solve(*code, TYPE_CODES[out.dtype], self.request.beta, lists.start, lists.score)
            _core.mix(core, lists.start, np.searchsorted(self.found.position, lists.position), weight, out)
        else:
            self.found.executor(self.request).update(self.request.queries, out)

    def taken(self, some: Numbers) -> Answer:
        """Return the answer of some of the queries that have sums."""
        assert isinstance(self.found, Sums)
        beta = self.request.beta if len(self.request.beta) == 1 else self.request.beta[some]
        request = replace(self.request, queries=self.request.queries[some], beta=beta)
        return Answer(self.which[some], request, self.lists.taken(some), self.found.taken(some))

    @ignoring_float_errors()
    def certainly_exceeds(self, most: int) -> NDArray[np.bool_]:
        """Tell of which queries of softmax, (n,), by their sums, certainly more than `most` patterns are within reach.

        A pattern within reach adds at most 1 to the sum, all others together less than 2^-24; but for the error of
        scores, which is no more than (1.05 d + 16) u (|x| + max |xi|)^2 (csrc/retrieval/run.c).
        """
        queries, whole = self.request.queries.astype(np.float64), self.request.known_whole
        assert isinstance(self.found, Sums)
        unit = float(np.finfo(self.request.queries.dtype).eps) / 2
        longest = np.sqrt((queries**2).sum(axis=1)) + whole.max_norm
        error = self.request.beta * (1.05 * whole.d + 16) * unit * longest**2
        return self.found.root[1] * np.exp(-2 * error) > 1.1 * most + 1

    def energy(self) -> Floats:
        """Return the energy of the queries, (n,)."""
        queries = self.request.queries
        if not isinstance(self.found, Sums):
            return self.found.executor(self.request).energy(queries)
        scale, total, _ = self.found.root
        with ignoring_float_errors():
            conjugate = scale + np.log(total) / self.request.beta
            if self.request.known_whole.similarity == "euclidean":
                return -conjugate
            return (queries.astype(np.float64) ** 2).sum(axis=1) / 2 - conjugate

    def step(self, tol: float) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64]]:
        """Return the states after one update, mixed from patterns, whether they rest, and the sizes of supports."""
        queries, whole = self.request.queries, self.request.known_whole
        states = np.empty_like(queries)
        if isinstance(self.found, Finished) and not self.is_long:
            _, rests, support = self.found.executor(self.request).retrieve(queries, 1, tol, states, None)
            return states, rests, support
        self.update(states)
        with ignoring_float_errors():
            moved = ((states.astype(np.float64) - queries) ** 2).sum(axis=1)
        size = np.full(len(queries), whole.count) if isinstance(self.found, Sums) else np.diff(self.lists.start)
        return states, moved <= (tol * whole.max_norm) ** 2, size


@dataclass(slots=True)
class ShardedExecutor(CoreExecutor):
    """The operations of one call, carried out by shards; under `TopK` with k > 0."""

    engine: Any = None
    whole: Any = None
    k: int = 0
    batch: int = 256
    gather_bytes: int = 2**26

    def _request(self, rows: Array, which: Numbers, **asked: Any) -> Request:
        """Return the request of some of the rows (N, d)."""
        beta = self.beta if len(self.beta) == 1 else self.beta[which]
        first = int(which[0]) if len(which) else 0
        return Request(self.whole, rows[which], beta, self.code, self.k, first, **asked)

    def _reduce(self, function: Callable[..., Any], request: Request) -> Any:
        """Return what a step gives of the whole."""
        with rows_counted_from(request.first):
            return self.engine.reduce(function, request, merge)

    def answers(self, rows: Array, *, values: bool = True, mix: bool = True) -> Iterator[Answer]:
        """Yield what the rows (N, d) need for their results, some of them at a time.

        values: whether what is mixed are the values, if there are any. mix: whether anything is.
        """

        def summed(some: Numbers) -> Answer:
            request = self._request(rows, which[some], values=values, options={"mix": mix})
            return Answer(which[some], request, lists.taken(some), self._reduce(sums, request))

        for which in self._scouting(rows):
            request = self._request(rows, which)
            lists, floor, is_open, is_flat = self._scouted(request)
            has_sums = np.zeros(len(which), np.bool_)
            for some in self._batches(np.flatnonzero(is_open & is_flat)):
                answer = summed(some)
                certain = answer.certainly_exceeds(most_in_reach(self.whole))
                has_sums[some] = certain
                if certain.any():
                    yield answer.taken(np.flatnonzero(certain))
            more = self._listed(request, floor, np.flatnonzero(is_open & ~has_sums))
            lists, needs_sums = weighted(lists.joined(more), request)
            is_long = has_cutoff(self.code) & (self.k == 0) & (np.diff(lists.start) > self._exact_support)
            for long in (False, True):
                for some in self._batches(np.flatnonzero(~has_sums & ~needs_sums & (is_long == long))):
                    yield from self._gathered(rows, which, lists, some, values, long)
            for some in self._batches(np.flatnonzero(needs_sums)):
                yield summed(some)

    def _scouted(self, request: Request) -> tuple[Lists, Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Return what the best scores tell: lists of all patterns that may have weight, and floors.

        Besides, which queries are open, as they may have more such patterns than were scouted; and which of these seem
        to have many, under softmax.
        """
        n, k = len(request.queries), request.k
        count = scouted(self.whole, request.code, k)
        no, nothing = np.zeros(n, np.bool_), np.empty(0, np.int64)
        floor = np.full(n, -np.inf)
        if not count:  # the polynomial: all or the k best
            too_many = no if k else ~no
            return Lists.of_entries(nothing, nothing, np.empty(0), too_many, k, 0), floor, ~too_many, no
        best: Best = self._reduce(scout, replace(request, count=count))
        floor = floors(best, request)
        listed = (best.position >= 0) & (best.score >= floor[:, None])
        by_reach = not (k or has_cutoff(request.code))
        all_scouted = self.whole.count <= count or 0 < k <= count or (by_reach and most_in_reach(self.whole) < count)
        is_open = no if all_scouted else listed[:, -1]
        query, column = np.nonzero(listed & ~is_open[:, None])
        lists = Lists.of_entries(query, best.position[query, column], best.score[query, column], no, k, 0)
        with ignoring_float_errors():
            is_flat = by_reach & (best.score[:, -1] > (3 * best.score[:, 0] + floor) / 4)
        return lists, floor, is_open, is_flat

    def _listed(self, request: Request, floor: Floats, which: Numbers) -> Lists:
        """Return the lists of some queries of a request, and empty ones of the others: as many at a time as fit."""
        n = len(request.queries)
        nothing = np.empty(0, np.int64)
        lists = Lists.of_entries(nothing, nothing, np.empty(0), np.zeros(n, np.bool_), request.k, 0)
        by_reach = not (request.k or has_cutoff(request.code))
        most = most_in_reach(self.whole) + SPARE if by_reach else 0
        step = min(self.batch, max(FIRST_LISTED, 8 * LISTED // self.whole.count))
        while len(which):
            some, which = which[:step], which[step:]
            beta = request.beta if len(request.beta) == 1 else request.beta[some]
            asked = replace(request, queries=request.queries[some], beta=beta, floor=floor[some], most=most)
            more: Lists = self._reduce(partial, asked)
            lists = lists.joined(more.spread(some, n))
            per_query = max(len(more.position) // len(some), most, 1)
            step = max(1, min(self.batch, 4 * step, LISTED // per_query))
        return lists

    @property
    def _exact_support(self) -> int:
        """Return up to which size of supports one memory has canonical weights (csrc/retrieval/job.h)."""
        return max(EXACT_SUPPORT, self.whole.count // 16)

    def _batches(self, which: Numbers) -> Iterator[Numbers]:
        """Yield some queries, `batch` at a time."""
        for first in range(0, len(which), self.batch):
            yield which[first : first + self.batch]

    def _gathered(
        self, rows: Array, which: Numbers, lists: Lists, some: Numbers, values: bool, is_long: bool
    ) -> Iterator[Answer]:
        """Yield the answers of `some` of the queries `which` by their patterns: by halves where these are too large."""
        of_some = lists.taken(some)
        positions = np.unique(of_some.position)
        if len(some) > 1 and len(positions) * self.whole.row_bytes > self.gather_bytes:
            for half in (some[: len(some) // 2], some[len(some) // 2 :]):
                yield from self._gathered(rows, which, lists, half, values, is_long)
            return
        found = self.found_at(positions, values=values)
        yield Answer(which[some], self._request(rows, which[some]), of_some, found, is_long)

    def found_at(self, positions: NDArray[np.int64], *, values: bool = True) -> Finished:
        """Return the patterns at some positions, ascending, as a small set that knows the whole."""
        return finish(self._reduce(gather, Request(self.whole, positions=positions, values=values)), self.whole)

    def nearest(self, rows: Array, k: int) -> tuple[NDArray[np.int64], Floats]:
        """Return positions and canonical scores (N, k) of the best of all patterns, k at most `MOST_SCOUTED`."""
        parts = [self._reduce(scout, self._request(rows, which, count=k)) for which in self._scouting(rows)]
        if not parts:
            return np.empty((0, k), np.int64), np.empty((0, k))
        return np.concatenate([p.position for p in parts]), np.concatenate([p.score for p in parts])

    def best_of_one(self, request: Request, count: int) -> NDArray[np.int64]:
        """Return the positions of the `count` best patterns of the one query of a request, in any order."""
        if count >= self.whole.count:
            return np.arange(self.whole.count)
        if count <= MOST_SCOUTED:
            best: Best = self._reduce(scout, replace(request, count=count))
            return best.position[0]
        by_rank = replace(request, k=count, code=SEPARATIONS["softmax"])
        lists: Lists = self._reduce(partial, by_rank)
        return lists.position

    def _scouting(self, rows: Array) -> Iterator[Numbers]:
        """Yield the numbers of the rows (N, d), as many at a time as are scouted together."""
        step = max(1, min(SCOUT_QUERIES, SCOUT_BYTES // (rows.shape[1] * rows.itemsize)))
        for first in range(0, len(rows), step):
            yield np.arange(first, min(first + step, len(rows)))

    def update(self, rows: Array, out: Array) -> None:
        """Write one update of rows (N, d) to out (N, v)."""
        for answer in self.answers(rows):
            states = np.empty((len(answer.which), out.shape[1]), out.dtype)
            answer.update(states)
            out[answer.which] = states

    def energy(self, rows: Array) -> Floats:
        """Return E_beta of rows (N, d), (N,)."""
        energy = np.empty(len(rows))
        for answer in self.answers(rows, values=False, mix=False):
            energy[answer.which] = answer.energy()
        return energy

    def retrieve(self, rows: Array, max_steps: int, tol: float, states: Array, before: Array | None) -> Steps:
        """Update rows (N, d) until none moves, into states; only those that move are sent on."""
        n = len(rows)
        steps, rests, support = np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.int64)
        states[...] = rows
        if before is not None:
            before[...] = rows
        moving, now = np.arange(n), rows
        for step in range(1, max_steps + 1):
            if not len(moving):
                break
            executor = replace(self, beta=self.beta if len(self.beta) == 1 else self.beta[moving])
            after = np.empty_like(now)
            for answer in executor.answers(now, values=False):
                at = moving[answer.which]
                after[answer.which], rests[at], support[at] = answer.step(tol)
            steps[moving] = step
            states[moving] = after
            if before is not None:
                before[moving] = now
            goes_on = ~rests[moving]
            moving, now = moving[goes_on], after[goes_on]
        return steps, rests, support

    def associate(self, rows: Array, top: int = 0, min_weight: float = 0.0) -> Weights:
        """Return CSR lists of rows (N, d): weights of at least min_weight, of each row the `top` largest; 0: all."""
        parts = []
        for answer in self.answers(rows, values=False, mix=False):
            if isinstance(answer.found, Sums):
                scale, total, _ = answer.found.root
                asked = {"scale": scale, "sum": total, "top": top, "min_weight": min_weight}
                weights = self._reduce(weigh, replace(answer.request, options=asked)).lists()
            else:
                weights = answer.found.associate(answer.request, top, min_weight)
            parts.append((answer.which, weights))
        return _joined(parts, len(rows))


def _joined(parts: list[tuple[Numbers, Weights]], n: int) -> Weights:
    """Return the CSR lists of n rows from those of some at a time."""
    counts = np.zeros(n, np.int64)
    for which, (start, *_) in parts:
        counts[which] = np.diff(start)
    start = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    total = int(start[-1])
    position, score, weight = np.empty(total, np.int64), np.empty(total), np.empty(total)
    for which, (begin, *columns) in parts:
        size = np.diff(begin)
        to = np.repeat(start[which] - begin[:-1], size) + np.arange(begin[-1])
        for whole, part in zip((position, score, weight), columns, strict=True):
            whole[to] = part
    return start, position, score, weight


class State:
    """An engine and the facts of the patterns that it reaches: what a change of the memory replaces as one."""

    def __init__(self, engine: Engine, whole: Whole) -> None:
        self.engine, self.whole = engine, whole.checked()
        self.outline = Outline(self.whole)
        self.certificates = ShardedCertificates(engine, self.whole)


class Coordinator:
    """A memory whose patterns are elsewhere: it answers queries by the shards that an engine reaches.

    Parameters
    ----------
    engine : Engine
        Brings requests to the shards; `Serial` for shards in this process.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes. May be changed later.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights. May be changed later.
    structure : TopK, optional
        The only structure that shards know; all pairs by default. May be changed later.
    whole : Whole, optional
        Facts of the patterns, by default those that the engine finds: one small request.
    batch : int, at least 1
        Queries whose patterns are brought together at a time.
    gather_bytes : int, at least 1
        Bytes of patterns, with their values, that are brought together at a time, unless one query needs more.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault; of `shards` that differ, or do not lie one behind the other.

    See Also
    --------
    Serial : Ask shards that lie in this process.
    Engine : Say what other engines must do.
    sparsehopfield.HopfieldMemory : Give the same answers from patterns in one place.

    Notes
    -----
    Results have the bits of one `HopfieldMemory` of all patterns, wherever docs/reference/promises.md promises that
    these depend on the patterns alone (P1). Elsewhere they are equal within rounding, and the same bits for any number
    of shards. What comes from shards is lists of scores, the patterns that have weight, and for maps that give weight
    to all patterns sums: for a batch of n queries of v numbers at most some n v log2(blocks) of them from a shard.
    All patterns that have weight for one query are brought together, however many these are.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
    >>> X = np.random.default_rng(0).standard_normal((100, 64))
    >>> memory = Coordinator(Serial([Shard(X[:64]), Shard(X[64:], first=64)]), beta=4.0)
    >>> memory
    Coordinator(100 patterns of 64 features in 2 shards, float64, beta=4.0, similarity='dot', separation='sparsemax')
    >>> np.array_equal(memory.retrieve(X[70] + 0.1), X[70])
    True
    """

    def __init__(
        self,
        engine: Engine,
        beta: ArrayLike = 1.0,
        *,
        separation: Separation = "sparsemax",
        structure: Structure | None = None,
        whole: Whole | None = None,
        batch: int = 256,
        gather_bytes: int = 2**26,
    ) -> None:
        self.beta = beta
        self.separation = separation
        self.structure = structure
        if not callable(getattr(engine, "reduce", None)):
            raise TypeError(f"engine: must have a method reduce(function, request, merge), got {short(engine)}")
        self._batch = as_whole("batch", batch, 1)
        self._gather_bytes = as_whole("gather_bytes", gather_bytes, 1)
        self._state = State(engine, engine.reduce(describe, Request(), merge) if whole is None else whole)

    def __len__(self) -> int:
        return self.whole.count

    def __repr__(self) -> str:
        whole = self.whole
        structure = "" if self.structure is None else f", structure={self.structure!r}"
        return (
            f"{type(self).__name__}({whole.count} patterns of {whole.d} features in {len(whole.spans)} shards, "
            f"{whole.dtype}, beta={self.beta}, similarity={whole.similarity!r}, separation={self.separation!r}"
            f"{structure})"
        )

    @property
    def engine(self) -> Engine:
        """Return what brings requests to the shards."""
        return self._state.engine

    @property
    def whole(self) -> Whole:
        """Return the facts of all patterns."""
        return self._state.whole

    @property
    def shape(self) -> tuple[int, int]:
        """Return (M, d)."""
        return self.whole.count, self.whole.d

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of results for queries of the same or a smaller one."""
        return self.whole.dtype

    @property
    def similarity(self) -> str:
        """Return what a score is."""
        return self.whole.similarity

    @property
    def beta(self) -> ArrayLike:
        """Return the inverse temperature; it may be set."""
        return self._beta

    @beta.setter
    def beta(self, beta: ArrayLike) -> None:
        b = as_positive_numbers("beta", beta)
        self._beta: ArrayLike = float(b) if b.ndim == 0 else beta

    @property
    def separation(self) -> Separation:
        """Return how scores become weights; it may be set."""
        return self._separation[0]

    @separation.setter
    def separation(self, separation: Separation) -> None:
        self._separation = separation, separation_code(separation)  # in one assignment

    @property
    def structure(self) -> Structure | None:
        """Return which patterns each query sees, None for all; it may be set."""
        return self._structure

    @structure.setter
    def structure(self, structure: Structure | None) -> None:
        given = as_structure(structure)
        if given is not None and not isinstance(given, TopK):
            raise ValueError(
                f"structure: of a sharded memory must be None (all pairs) or TopK, got {short(structure)}: others go "
                "by places in one order, or by sums of features"
            )
        self._structure = given

    @property
    def ids(self) -> NDArray[np.int64]:
        """Return the names of the patterns, (M,), read-only; they come from the shards."""
        ids: NDArray[np.int64] = self._state.certificates.ids
        view = ids.view()
        view.flags.writeable = False
        return view

    def _call(self, queries: ArrayLike, beta: ArrayLike | None = None, state: State | None = None) -> Call:
        """Return the call of some queries under the model: of the memory now or at a state, at its beta or another."""
        state, code = state or self._state, self._separation[1]
        whole, given = state.whole, as_queries(queries, state.whole.d)
        dtype = FLOAT64 if FLOAT64 in (whole.dtype, compute_dtype(given)) else FLOAT32
        rows = contiguous(given, dtype).reshape(-1, whole.d)
        betas = as_beta(self.beta if beta is None else beta, given.shape[:-1])
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise ValueError(f"queries: row {row} contains NaN or infinity; every entry must be finite")
        structure = self.structure
        pairs = None if structure is None else structure.descriptor(len(rows), whole.count)
        executor = ShardedExecutor(
            core=None,
            beta=betas,
            code=code,
            pairs=pairs,
            engine=state.engine,
            whole=whole,
            k=structure.k if pairs is not None and isinstance(structure, TopK) else 0,
            batch=self._batch,
            gather_bytes=self._gather_bytes,
        )
        return Call(state.outline, given, given.shape[:-1], rows, betas, code, structure, executor)

    # --- operations -------------------------------------------------------------------------------

    def update(self, queries: ArrayLike, *, out: Array | None = None) -> Array:
        """Make one retrieval step; see `sparsehopfield.update`.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.
        out : ndarray, shape (..., v), optional
            Where the states are written; must not overlap the queries.

        Returns
        -------
        ndarray, shape (..., v)
            The states after one step.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault.

        See Also
        --------
        retrieve : Make steps until nothing moves.
        sparsehopfield.HopfieldMemory.update : Make the same step with patterns in one place.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> Coordinator(Serial([Shard(np.eye(3))]), beta=4.0).update([0.9, 0.2, 0.0])
        array([1., 0., 0.])
        """
        return self._call(queries).update(out)

    def retrieve(
        self,
        queries: ArrayLike,
        *,
        max_steps: int = 1000,
        tol: float | None = None,
        return_info: bool | Collection[str] = False,
        out: Array | None = None,
    ) -> Any:
        """Make steps until nothing moves; see `sparsehopfield.retrieve`. Only queries that still move are sent on.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.
        max_steps : int, at least 0
            Updates at most.
        tol : float, at least 0, optional
            A query has converged when a step moves it by at most `tol * max |xi|`, in Euclidean length; by default 4
            eps of the dtype.
        return_info : bool, or of {"weights", "energy"}
            Also return a RetrievalInfo; names ask for what costs extra.
        out : ndarray, shape (..., v), optional
            Where the states are written; must not overlap the queries.

        Returns
        -------
        ndarray, shape (..., v), or (ndarray, RetrievalInfo)
            The states where retrieval ended; with `return_info` also how it went.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault.

        Warns
        -----
        RetrievalWarning
            If queries are still moving after `max_steps`.

        See Also
        --------
        update : Make one step.
        sparsehopfield.RetrievalInfo : Hold how it went.
        sparsehopfield.HopfieldMemory.retrieve : Make the same steps with patterns in one place.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> Coordinator(Serial([Shard(np.eye(3))]), beta=4.0).retrieve([0.5, 0.4, 0.0])
        array([1., 0., 0.])
        """
        return self._call(queries).retrieve(max_steps, tol, return_info, out)

    def associate(self, queries: ArrayLike, *, top: int | None = None, min_weight: float | None = None) -> csr_array:
        """Return the weights; see `sparsehopfield.associate`. Columns are positions in the whole.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query; N in all.
        top : int, at least 1, optional
            Keep so many of the largest weights of each query; ties go to the lowest position.
        min_weight : float, at least 0, optional
            Keep weights of at least this. Maps that give weight to all patterns need one of the two.

        Returns
        -------
        scipy.sparse.csr_array, shape (N, M)
            The weights that are not 0.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault.

        See Also
        --------
        explain : Say of one query what carries the weight, and what the others lacked.
        sparsehopfield.HopfieldMemory.associate : Return the same of patterns in one place.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> Coordinator(Serial([Shard(np.eye(3))])).associate([0.5, 0.4, 0.0]).toarray().round(3)
        array([[0.533, 0.433, 0.033]])
        """
        return self._call(queries).associate(top, min_weight)

    def energy(self, queries: ArrayLike) -> Any:
        """Return E_beta; see `sparsehopfield.energy`.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.

        Returns
        -------
        ndarray, shape (...)
            The energy of each query.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault; `separation` for the polynomial, which has no energy.

        See Also
        --------
        retrieve : Make steps that lower the energy.
        sparsehopfield.HopfieldMemory.energy : Return the same of patterns in one place.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> Coordinator(Serial([Shard(np.eye(3))]), beta=4.0).energy(np.eye(3))
        array([-0.5, -0.5, -0.5])
        """
        return self._call(queries).energy()

    def nearest(self, queries: ArrayLike, k: int = 1) -> tuple[NDArray[np.int64], Floats]:
        """Find the patterns with the best scores of each query.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.
        k : int, from 1 to 32
            How many patterns to find for each query.

        Returns
        -------
        position : ndarray of int64, shape (..., k)
            From the best score down, ties by position; -1 where there are fewer patterns.
        score : ndarray of float64, shape (..., k)
            Canonical; -inf there. Those of `HopfieldMemory.nearest`.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault.

        See Also
        --------
        certify : Say which queries provably go to the best of these patterns.
        sparsehopfield.HopfieldMemory.nearest : Find the same among patterns in one place.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> Coordinator(Serial([Shard(np.eye(3))])).nearest([0.1, 0.4, 0.2], 2)
        (array([1, 2]), array([0.4, 0.2]))
        """
        call = self._call(queries)
        return call.nearest(as_whole("k", k, 1, MOST_SCOUTED))

    @staticmethod
    def _executor(call: Call) -> ShardedExecutor:
        """Return what carries out a call."""
        assert isinstance(call.executor, ShardedExecutor)
        return call.executor

    def explain(self, query: ArrayLike, *, top: int = 10) -> Explanation:
        """Explain a query's result: which patterns carry the weight, and what the others lacked.

        Parameters
        ----------
        query : array_like, shape (d,)
            One query.
        top : int, at least 1
            How many patterns to list: those with the largest weights.

        Returns
        -------
        Explanation
            As of `HopfieldMemory.explain`, but for the stages of a search by an index, which shards do not tell.

        Raises
        ------
        ValueError
            If there is more than one query, or `top` is below 1.

        See Also
        --------
        associate : Return the weights of many queries.
        sparsehopfield.inspect.explain.Explanation : Hold what is returned.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> X = np.array([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0]])
        >>> why = Coordinator(Serial([Shard(X[:1]), Shard(X[1:], first=1)])).explain([1.0, 0.0])
        >>> why.positions, why.weights, why.miss.margin
        (array([0, 1]), array([0.75, 0.25]), 1.25)
        """
        from sparsehopfield.inspect.explain import as_single_query  # of people's time, not of every import

        top = as_whole("top", top, 1)
        given = as_single_query(query, self.whole.d)
        call, separation = self._call(given), self.separation
        (answer,) = self._executor(call).answers(call.rows)
        if isinstance(answer.found, Sums):
            return self._explain_sums(call, answer, separation, top)
        return self._explain_patterns(call, answer, separation, top)

    def _explain_patterns(self, call: Call, answer: Answer, separation: Separation, top: int) -> Explanation:
        """Explain a query by the patterns with weight, and the best without."""
        from sparsehopfield.inspect.explain import explain

        executor, positions = self._executor(call), answer.lists.position
        visible = executor.k or executor.whole.count
        if has_cutoff(call.code) and len(positions) < visible:
            positions = np.union1d(positions, executor.best_of_one(answer.request, len(positions) + 1))
        found = executor.found_at(positions)
        why = explain(found.pattern_set, found.ids, call.rows[0], call.beta[0], separation, call.structure, top)
        miss = None if why.miss is None else replace(why.miss, position=int(found.position[why.miss.position]))
        return replace(why, positions=found.position[why.positions], miss=miss)

    def _explain_sums(self, call: Call, answer: Answer, separation: Separation, top: int) -> Explanation:
        """Explain a query whose weights lie on all patterns."""
        from sparsehopfield import reference
        from sparsehopfield.inspect.explain import Explanation

        executor, dtype = self._executor(call), call.rows.dtype
        _, position, _, weight = executor.associate(call.rows, top)
        found = executor.found_at(position)
        rows = found.pattern_set.numbers(np.arange(len(position)), dtype)
        canonical: Any = reference.canonical_scores  # without types
        score = canonical(call.rows, rows, executor.whole.similarity)[0]
        order = np.lexsort((position, -score, -weight))
        state = np.empty((1, executor.whole.width), dtype)
        answer.update(state)
        count = executor.whole.count
        return Explanation(
            positions=position[order],
            ids=found.ids[order],
            scores=score[order],
            gaps=float(score.max()) - score[order],
            weights=weight[order].astype(dtype),
            threshold=None,
            miss=None,
            beta=float(call.beta[0]),
            separation=separation,
            support_size=count,
            energy=float(call.energy()) if row_of(call.code).has_energy else None,
            stages={"stored": count, **({"looked at": count} if call.structure else {}), "support": count},
            scored=None,
            query=call.rows[0].copy(),
            state=state[0],
            patterns=rows[order],
            structure=call.structure,
        )

    # --- certificates -----------------------------------------------------------------------------------------------

    def margin(self) -> Floats:
        """Return how far each pattern stands out: its score with itself less the largest with another.

        Returns
        -------
        ndarray, shape (M,)
            As of `HopfieldMemory.margin`.

        Raises
        ------
        OverflowError, MemoryError
            If scores exceed the largest float64, or memory runs out, here or on a worker.

        See Also
        --------
        critical_beta : Return from which beta on margins suffice.
        sparsehopfield.HopfieldMemory.margin : Return the same of patterns in one place.

        Notes
        -----
        Every pattern is a query: blocks of patterns come here from their shards, at most 16 MiB at a time, and go out
        to all shards. So M d numbers come in, and as many go out to each shard.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> X = np.array([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]])
        >>> Coordinator(Serial([Shard(X[:1]), Shard(X[1:], first=1)])).margin()
        array([-2., -1.,  3.])
        """
        state = self._state
        return state.certificates.margins(state.whole.similarity).copy()

    def critical_beta(self) -> Floats:
        """Return the inverse temperature from which on each pattern is certified to be stored exactly.

        Returns
        -------
        ndarray, shape (M,)
            As of `HopfieldMemory.critical_beta`.

        Raises
        ------
        ValueError
            If the separation gives weight to all patterns, and so stores none exactly.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        is_certified : Compare these with a beta.
        margin : Return what these are made of.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> Coordinator(Serial([Shard(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]]))])).critical_beta().round(6)
        array([1.      ,      inf, 0.083333])
        """
        cutoff = required_cutoff(self._separation[1])
        self._check_structure()
        return self._state.certificates.critical_betas(cutoff)

    def is_certified(self, beta: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return whether each pattern is certified to be stored: one step leaves it exactly as it is, to the bit.

        Parameters
        ----------
        beta : float, positive, optional
            The memory's by default.

        Returns
        -------
        ndarray of bool, shape (M,)
            `beta >= critical_beta()`.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault; `separation` as in `critical_beta`.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        critical_beta : Return from which beta on each pattern is certified.
        certify : Say where queries provably go.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> Coordinator(Serial([Shard(np.array([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]]))])).is_certified()
        array([False, False,  True])
        """
        return as_one_beta(self.beta if beta is None else beta) >= self.critical_beta()

    def certify(self, queries: ArrayLike, beta: ArrayLike | None = None) -> Certified:
        """Return the pattern that each query provably goes to in one step, if there is one.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.
        beta : float or array_like, positive, optional
            The memory's by default; an array broadcasts to the queries' leading axes.

        Returns
        -------
        Certified
            As of `HopfieldMemory.certify`.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault; `separation` as in `critical_beta`.

        See Also
        --------
        is_certified : Say which patterns are stored.
        sparsehopfield.inspect.certificates.Certified : Hold what is returned.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> found = Coordinator(Serial([Shard(np.eye(3))]), beta=2.0).certify([[0.9, 0.2, 0.0], [0.6, 0.4, 0.0]])
        >>> found.index, found.lacks.round(6)
        (array([ 0, -1]), array([0. , 0.3]))
        """
        self._check_structure()
        state = self._state
        call = self._call(queries, beta, state)
        cutoff = required_cutoff(call.code)
        position, score = self._executor(call).nearest(call.rows, 2)
        with ignoring_float_errors():
            required_gap = cutoff / call.beta
        rounding = state.certificates.rounding(state.whole.similarity)
        return rounding.certify(call.rows, position, score, required_gap, call.leading)

    def _check_structure(self) -> None:
        """Raise if a structure does not fit the number of patterns."""
        if self.structure is not None:
            self.structure.descriptor(1, self.whole.count)

    def duplicates(self, within: float = 0.0, *, most: int = 1_000_000) -> Duplicates:
        """Find the patterns that are copies or near-copies of others.

        Parameters
        ----------
        within : float, at least 0
            How far apart the rows of a pair may be, for cosine similarity their unit rows. 0 finds exact copies.
        most : int, at least 1
            How many pairs to find at most: k copies of one pattern are k (k - 1)/2 pairs.

        Returns
        -------
        Duplicates
            The pairs, by positions in the whole.

        Raises
        ------
        ValueError
            If `within` is negative or not finite, `most` below 1, or there are more pairs than that.
        TypeError
            Naming the argument at fault.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        sparsehopfield.inspect.certificates.Duplicates : Hold what is returned.
        sparsehopfield.HopfieldMemory.duplicates : Find the same among patterns in one place.

        Notes
        -----
        Exact copies cost a pass over the patterns, and 8 bytes of each that come here; near ones what `margin` does.
        The patterns that have a copy, or one so near, come here.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> X = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 0.5]])
        >>> print(Coordinator(Serial([Shard(X[:2]), Shard(X[2:], first=2)])).duplicates(0.5))
        3 pairs of patterns within 0.5 of each other: 3 of 4 patterns, in 1 group of at most 3
        <BLANKLINE>
        pattern  and  distance
              0    2         0
              0    3       0.5
              2    3       0.5
        """
        near, limit = as_number("within", within, least=0.0), as_whole("most", most, 1)
        return self._state.certificates.duplicates(near, limit)
