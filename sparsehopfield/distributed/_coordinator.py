"""The coordinator of a sharded memory: calls, batch by batch, on shards that an engine brings requests to."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.call import Call, Separation
from sparsehopfield._engine.checks import (
    FLOAT32,
    FLOAT64,
    Array,
    as_beta,
    as_positive_numbers,
    as_queries,
    as_whole,
    compute_dtype,
    contiguous,
    ignoring_float_errors,
)
from sparsehopfield._engine.executor import CoreExecutor, Steps, Weights
from sparsehopfield._engine.pattern_set import TYPE_CODES
from sparsehopfield._engine.separations import has_cutoff, row_of, separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield._engine.text import short
from sparsehopfield.distributed._shards import Engine, Outline, Request, Whole
from sparsehopfield.distributed._steps import (
    SPARE,
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
from sparsehopfield.structures import TopK

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Coordinator"]

Numbers = NDArray[np.intp]
Floats = NDArray[np.float64]
SCOUT_BYTES = 16 * 2**20  # of queries that are scouted at a time,
SCOUT_QUERIES = 4096  # and how many they are at most
EXACT_SUPPORT = 1024  # SH_EXACT_SUPPORT in csrc/include/sparsehopfield.h


@contextmanager
def rows_counted_from(first: int) -> Iterator[None]:
    """Have errors of a batch of queries name the row in the call, `first` of which come before the batch."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        found = re.match(r"(queries|beta): (.*)\brow (\d+)(.*)", str(error), re.DOTALL)
        if first == 0 or not found:
            raise
        name, before, row, after = found.groups()
        raise type(error)(f"{name}: {before}row {int(row) + first}{after}") from None


@dataclass(eq=False)
class Answer:
    """What some queries of a call need for their results: the patterns with weight, or sums over all."""

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

    def energy(self) -> Floats:
        """Return the energy of the queries, (n,)."""
        queries = self.request.queries
        if not isinstance(self.found, Sums):
            return self.found.executor(self.request).energy(queries)
        assert self.request.whole is not None
        scale, total, _ = self.found.root
        with ignoring_float_errors():
            conjugate = scale + np.log(total) / self.request.beta
            if self.request.whole.similarity == "euclidean":
                return -conjugate
            return (queries.astype(np.float64) ** 2).sum(axis=1) / 2 - conjugate

    def step(self, tol: float) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64]]:
        """Return the states after one update, mixed from patterns, whether they rest, and the sizes of supports."""
        queries, whole = self.request.queries, self.request.whole
        assert whole is not None
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

    def _lists(self, request: Request) -> tuple[Lists, NDArray[np.bool_]]:
        """Return lists of the patterns with weight, and which queries need sums."""
        n, k = len(request.queries), request.k
        nothing = np.empty(0, np.int64)
        if not (k or has_cutoff(request.code) or row_of(request.code).shift_invariant):  # the polynomial
            too_many = np.ones(n, np.bool_)
            return Lists.of_entries(nothing, nothing, np.empty(0), too_many, 0, 0), too_many
        most = 0 if k or has_cutoff(request.code) else most_in_reach(self.whole) + SPARE
        count = scouted(self.whole, request.code, k)
        floor, complete = None, np.zeros(n, np.bool_)
        query, position, score, too_many = nothing, nothing, np.empty(0), np.zeros(n, np.bool_)
        if count:
            best = self._reduce(scout, replace(request, count=count))
            floor = floors(best, request)
            listed = (best.position >= 0) & (best.score >= floor[:, None])
            complete = ~listed[:, -1] | (self.whole.count <= count) | (0 < k <= count) | (0 < most < count + SPARE)
            query, column = np.nonzero(listed & complete[:, None])
            position, score = best.position[query, column], best.score[query, column]
        rest = np.flatnonzero(~complete)
        if len(rest):
            more = self._reduce(
                partial,
                replace(
                    request,
                    queries=request.queries[rest],
                    beta=request.beta if len(request.beta) == 1 else request.beta[rest],
                    floor=None if floor is None else floor[rest],
                    most=most,
                ),
            )
            query = np.concatenate([query, rest[more.query]])
            position, score = np.concatenate([position, more.position]), np.concatenate([score, more.score])
            too_many[rest] = more.too_many
        return weighted(Lists.of_entries(query, position, score, too_many, k, 0), request)

    def answers(self, rows: Array, *, values: bool = True, mix: bool = True) -> Iterator[Answer]:
        """Yield what the rows (N, d) need for their results, some of them at a time.

        values: whether what is mixed are the values, if there are any. mix: whether anything is.
        """
        step = max(1, min(SCOUT_QUERIES, SCOUT_BYTES // (rows.shape[1] * rows.itemsize)))
        for first in range(0, len(rows), step):
            which = np.arange(first, min(first + step, len(rows)))
            lists, needs_sums = self._lists(self._request(rows, which))
            sizes = np.diff(lists.start)
            is_long = has_cutoff(self.code) & (self.k == 0) & (sizes > max(EXACT_SUPPORT, self.whole.count // 16))
            for long in (False, True):
                for some in self._batches(np.flatnonzero(~needs_sums & (is_long == long))):
                    yield from self._gathered(rows, which, lists, some, values, long)
            for some in self._batches(np.flatnonzero(needs_sums)):
                request = self._request(rows, which[some], values=values, options={"mix": mix})
                yield Answer(which[some], request, lists.taken(some), self._reduce(sums, request))

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
        found = finish(self._reduce(gather, Request(self.whole, positions=positions, values=values)), self.whole)
        yield Answer(which[some], self._request(rows, which[some]), of_some, found, is_long)

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


class Coordinator:
    """What answers queries by shards that an engine reaches: a memory whose patterns are elsewhere.

    Parameters
    ----------
    engine : Engine
        Brings requests to the shards; `Serial` for shards in this process.
    beta, separation
        As of `HopfieldMemory`; may be changed later.
    structure : TopK, optional
        The only structure that shards know; all pairs by default. May be changed later.
    whole : Whole, optional
        Facts of the patterns, by default those that the engine finds: one small request.
    batch : int
        Queries whose patterns are brought together at a time.
    gather_bytes : int
        Bytes of patterns, with their values, that are brought together at a time, unless one query needs more.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault; of `shards` that differ, or do not lie one behind the other.

    Notes
    -----
    Results have the bits of one `HopfieldMemory` of all patterns, wherever docs/reference/promises.md promises that
    these depend on the patterns alone (P1). Elsewhere they are equal within rounding, and the same bits for any number
    of shards. What comes from shards is lists of scores, the patterns that have weight, and for maps that give weight
    to all patterns sums: for a batch of n queries of v numbers at most some n v log2(blocks) of them from a shard.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
    >>> X = np.random.default_rng(0).standard_normal((100, 8))
    >>> memory = Coordinator(Serial([Shard(X[:64]), Shard(X[64:], first=64)]), beta=4.0)
    >>> memory
    Coordinator(100 patterns of 8 features in 2 shards, float64, beta=4.0, similarity='dot', separation='sparsemax')
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
                f"structure: of a sharded memory must be None (all pairs) or TopK, got {short(structure)}: others go by "
                "places in one order, or by sums of features"
            )
        self._structure = given

    def _call(self, queries: ArrayLike) -> Call:
        """Return the call of some queries under the model."""
        state, code = self._state, self._separation[1]
        whole, given = state.whole, as_queries(queries, state.whole.d)
        dtype = FLOAT64 if FLOAT64 in (whole.dtype, compute_dtype(given)) else FLOAT32
        rows = contiguous(given, dtype).reshape(-1, whole.d)
        betas = as_beta(self.beta, given.shape[:-1])
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
        out : ndarray, shape (..., v), optional

        Returns
        -------
        ndarray, shape (..., v)

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
        max_steps, tol, return_info, out
            As in `sparsehopfield.retrieve`.

        Returns
        -------
        ndarray, shape (..., v), or (ndarray, RetrievalInfo)

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
        top, min_weight
            As in `sparsehopfield.associate`.

        Returns
        -------
        scipy.sparse.csr_array, shape (N, M)

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

        Returns
        -------
        ndarray, shape (...)

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.distributed import Coordinator, Serial, Shard
        >>> Coordinator(Serial([Shard(np.eye(3))]), beta=4.0).energy(np.eye(3))
        array([-0.5, -0.5, -0.5])
        """
        return self._call(queries).energy()
