"""The steps of a call on shards: what each shard contributes, how contributions are merged, how the merged finish.

Results under maps with a cutoff, and of the k best, depend on the canonical scores of the patterns that have weight,
and on no others; so do those of softmax where few patterns are within reach (docs/reference/promises.md). So

1. `scout` gives each query's best few scores. Merged, they tell a floor: a score below which no pattern of the whole
   can have weight, as more scores never lower a threshold, the best or the k-th best of them.
2. `partial` lists the patterns from the floor on, where there are more than the scouted few.
3. `gather` brings the rows of those that have weight.
4. `finish` makes a small pattern set of these rows, in their order, which knows the whole: the ordinary calls on it
   give the bits of one memory.

Maps that give weight to all patterns, and softmax where many are within reach, are sums over all: `sums` makes them for
each block of rows, and joins blocks along a tree that goes by their numbers alone. So no bit depends on how many shards
there are, and in which order or grouping they are merged.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import FLOAT32, FLOAT64, Array, ignoring_float_errors
from sparsehopfield._engine.chunked import take_rows
from sparsehopfield._engine.executor import MOST_NEAREST, CoreExecutor, Weights
from sparsehopfield._engine.partial import threshold
from sparsehopfield._engine.pattern_set import TYPE_CODES, PatternSet
from sparsehopfield._engine.separations import SEPARATIONS, cutoff_of, has_cutoff, row_of
from sparsehopfield.distributed._shards import Request, Shard, Whole
from sparsehopfield.structures import TopK

__all__ = [
    "Best",
    "Finished",
    "Lists",
    "Rows",
    "Sums",
    "describe",
    "finish",
    "floors",
    "gather",
    "merge",
    "partial",
    "scout",
    "sums",
    "weigh",
    "weighted",
]

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
SPARSEMAX, SOFTMAX = SEPARATIONS["sparsemax"], SEPARATIONS["softmax"]
MOST_SCOUTED = MOST_NEAREST
SCOUTED = 12  # of maps with a cutoff: where supports are smaller, `partial` is not needed
#: A shard lists its patterns as if beta were smaller by this share: some that rounding might have left out are in.
LESS_BETA = 2.0**-30
SPARE = 8  # patterns beyond those that softmax may have within reach: what such lists may have more


class Mergeable(Protocol):
    """The result of a step: parts of one kind, from different shards, that can be merged."""

    def merged(self, other: Any) -> Self:
        """Return the part of both."""


Kind = TypeVar("Kind", bound=Mergeable)


def merge(one: Kind, other: Kind) -> Kind:
    """Merge what a step gave of two shards, or of two groups of shards.

    Parameters
    ----------
    one, other : results of one step
        Of `describe`, `scout`, `partial`, `gather` or `sums`, for the same request; of different shards.

    Returns
    -------
    The same kind of result, of all these shards
        It is the same, to the bit, in whatever order and grouping shards are merged.

    Raises
    ------
    ValueError, TypeError
        If they cannot belong together.

    See Also
    --------
    Engine.reduce : Ask every shard, and merge what comes back.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Request, Shard, merge, scout
    >>> shards = Shard(np.eye(4)[:2]), Shard(np.eye(4)[2:], first=2)
    >>> request = Request(queries=np.array([[0.1, 0.4, 0.3, 0.2]]), count=2)
    >>> merge(*(scout(shard, request) for shard in shards)).position
    array([[1, 2]])
    """
    if type(one) is not type(other):
        raise TypeError(f"other: must be the result of the same step, got {type(one).__name__}, {type(other).__name__}")
    return one.merged(other)


def describe(shard: Shard, request: Request) -> Whole:
    """Return the facts of a shard; merged, those of the whole."""
    request.check_version()
    return shard.whole


# --- the best scores --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Best:
    """The best patterns of each query, from the best score down, ties by position.

    Attributes
    ----------
    position : ndarray of int64, shape (n, count)
        In the whole; -1 where there are fewer.
    score : ndarray of float64, shape (n, count)
        Canonical; -inf there.
    """

    position: Positions
    score: Floats

    def merged(self, other: Best) -> Best:
        """Return the best of both."""
        position = np.concatenate([self.position, other.position], axis=1)
        score = np.concatenate([self.score, other.score], axis=1)
        order = np.lexsort((position, -score), axis=1)[:, : self.score.shape[1]]
        return Best(np.take_along_axis(position, order, 1), np.take_along_axis(score, order, 1))


def scout(shard: Shard, request: Request) -> Best:
    """Find the patterns of a shard with the best scores of each query.

    Parameters
    ----------
    shard : Shard
        The shard that is asked.
    request : Request
        Its `queries`, and `count`, from 1 to 32.

    Returns
    -------
    Best
        Scores are canonical, positions those in the whole.

    Raises
    ------
    RuntimeError
        If the request is of another version of the package.
    ValueError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    partial : List more patterns, where these tell that others may have weight.
    merge : Find the best of several shards.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Request, Shard, scout
    >>> best = scout(Shard(np.eye(3), first=7), Request(queries=np.array([[0.1, 0.4, 0.3]]), count=2))
    >>> best.position, best.score
    (array([[8, 9]]), array([[0.4, 0.3]]))
    """
    request.check_version()
    core = shard.part_of(request.whole).core(request.queries.dtype)
    position, score = _core.nearest(core, request.queries, request.beta, *request.code, request.count)
    return Best(np.where(position >= 0, position + shard.first, -1), score)


def scouted(whole: Whole, code: tuple[int, float], k: int) -> int:
    """Return how many of the best scores are scouted, under a separation and with k of `TopK`, or 0; 0: none.

    Scores of the polynomial are others than those by distance, so it has no floor.
    """
    if not row_of(code).shift_invariant:
        return 0
    if k:
        return min(k, MOST_SCOUTED)
    return SCOUTED if has_cutoff(code) else min(most_in_reach(whole) + 1, MOST_SCOUTED)


def most_in_reach(whole: Whole) -> int:
    """Return how many patterns may be within reach of softmax for canonical results (csrc/retrieval/run.c)."""
    return max(16, whole.count // 128)


def reach(whole: Whole, dtype: np.dtype[Any]) -> float:
    """Return how far below the best, times beta, patterns are within reach of softmax, as the core does."""
    return _core.reach(*SOFTMAX, whole.count)[0 if dtype == FLOAT32 else 1]


@ignoring_float_errors()
def floors(best: Best, request: Request) -> Floats:
    """Return for each query a score, (n,), below which no pattern of the whole can have weight.

    Parameters
    ----------
    best : Best
        Of the whole.
    request : Request
        The model, and the whole.

    Returns
    -------
    ndarray of float64, shape (n,)
        Lowered by what rounding may do; -inf where these scores tell none.
    """
    beta = np.broadcast_to(request.beta, len(best.score))
    top = best.score[:, 0]
    least = np.full(len(top), -np.inf)
    cutoff = cutoff_of(request.code)
    if cutoff is not None:
        found = np.isfinite(best.score).sum(axis=1).tolist()
        tau = [threshold(s[:n], b, request.code) for s, n, b in zip(best.score, found, beta, strict=True)]
        least = np.array(tau) - 1e-12 * cutoff / beta - 2.0**-50 * np.abs(top)
    elif not request.k:
        least = top - (1 + 1e-12) * reach(request.known_whole, request.queries.dtype) / beta - 2.0**-50 * np.abs(top)
    if request.k and best.score.shape[1] >= request.k:
        least = np.maximum(least, best.score[:, request.k - 1])
    return least


# --- lists ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Lists:
    """Patterns that may have weight: query i has those of the entries start[i] to start[i + 1], by position.

    Attributes
    ----------
    start : ndarray of int64, shape (n + 1,)
    position : ndarray of int64
        In the whole.
    score : ndarray of float64
        Canonical.
    too_many : ndarray of bool, shape (n,)
        Where there are more than `most`, so that there is no list.
    k, most : int
        Lists hold at most the k best (0: all); those of softmax at most so many (0: any number).
    """

    start: Positions
    position: Positions
    score: Floats
    too_many: NDArray[np.bool_]
    k: int = 0
    most: int = 0

    @classmethod
    def of_entries(
        cls, query: Positions, position: Positions, score: Floats, too_many: NDArray[np.bool_], k: int, most: int
    ) -> Self:
        """Return the lists of entries in any order, each with the number of its query; cut to k, or given up."""
        n = len(too_many)
        if k:
            order = np.lexsort((position, -score, query))
            counts = np.bincount(query, minlength=n)
            rank = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
            kept = order[rank < k]
            query, position, score = query[kept], position[kept], score[kept]
        if most:
            too_many = too_many | (np.bincount(query, minlength=n) > most)
            few = ~too_many[query]
            query, position, score = query[few], position[few], score[few]
        order = np.lexsort((position, query))
        query, position, score = query[order], position[order], score[order]
        if np.any((query[1:] == query[:-1]) & (position[1:] == position[:-1])):
            raise ValueError("shards: two have patterns of the same position")
        start = np.concatenate(([0], np.cumsum(np.bincount(query, minlength=n)))).astype(np.int64)
        return cls(start, position, score, too_many, k, most)

    def __len__(self) -> int:
        return len(self.too_many)

    @property
    def query(self) -> Positions:
        """Return the number of the query of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def merged(self, other: Lists) -> Lists:
        """Return the lists of the patterns of both."""
        query = np.concatenate([self.query, other.query])
        position, score = np.concatenate([self.position, other.position]), np.concatenate([self.score, other.score])
        return Lists.of_entries(query, position, score, self.too_many | other.too_many, self.k, self.most)

    def joined(self, other: Lists) -> Lists:
        """Return the lists of the same queries, each of which has entries, or is given up, in one of both at most."""
        return replace(self, most=0).merged(replace(other, most=0))

    def spread(self, which: NDArray[np.intp], n: int) -> Lists:
        """Return the lists as those of the queries `which` of n, whose others have none."""
        too_many = np.zeros(n, np.bool_)
        too_many[which] = self.too_many
        return Lists.of_entries(which[self.query], self.position, self.score, too_many, self.k, 0)

    def kept(self, keep: NDArray[np.bool_]) -> Lists:
        """Return the lists of some of the entries."""
        return Lists.of_entries(
            self.query[keep], self.position[keep], self.score[keep], self.too_many, self.k, self.most
        )

    def taken(self, which: NDArray[np.intp]) -> Lists:
        """Return the lists of some queries, in this order."""
        counts = np.diff(self.start)[which]
        entry = np.repeat(self.start[which] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        start = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return replace(
            self,
            start=start,
            position=self.position[entry],
            score=self.score[entry],
            too_many=self.too_many[which],
        )


@ignoring_float_errors()
def partial(shard: Shard, request: Request) -> Lists:
    """List the patterns of a shard that may have weight.

    Parameters
    ----------
    shard : Shard
        The shard that is asked.
    request : Request
        Its `whole`, and the model. `floor` excludes lower scores; `most`, for softmax: where more patterns are within
        reach, there is no list.

    Returns
    -------
    Lists
        For maps with a cutoff the patterns that would have weight if there were no other shards, and perhaps some
        that miss it by a rounding; for softmax those within reach of the best here; under `TopK` the k best here.

    Raises
    ------
    RuntimeError
        If the request is of another version of the package.
    ValueError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    scout : Find the best few, which tell `floor`.
    gather : Bring the rows of the patterns that have weight.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Request, Shard, partial
    >>> shard = Shard(np.eye(3), first=7)
    >>> lists = partial(shard, Request(whole=shard.whole, queries=np.array([[0.1, 2.0, 1.5]])))
    >>> lists.position, lists.score
    (array([8, 9]), array([2. , 1.5]))
    """
    request.check_version()
    core = shard.part_of(request.known_whole).core(request.queries.dtype)
    executor = CoreExecutor(core, request.beta * (1 - LESS_BETA), request.code, _pairs(request))
    start, position, score, too_many = executor.candidates(request.queries, request.floor, request.most)
    return Lists(start, position + shard.first, score, too_many, request.k, request.most)


def _pairs(request: Request) -> Any:
    """Return the structure of a request as the core reads it."""
    return TopK(request.k).descriptor(len(request.queries), request.known_whole.count) if request.k else None


@ignoring_float_errors()
def weighted(lists: Lists, request: Request) -> tuple[Lists, NDArray[np.bool_]]:
    """Return lists of those patterns that have weight in the whole, and which queries need sums over all patterns.

    Parameters
    ----------
    lists : Lists
        Of the whole: all that may have weight.
    request : Request

    Returns
    -------
    Lists
    ndarray of bool, shape (n,)
        Queries of softmax with too many patterns within reach; their lists are empty.
    """
    beta = np.broadcast_to(request.beta, len(lists))
    if has_cutoff(request.code):
        weight = _core.solve(*request.code, TYPE_CODES[FLOAT64], np.ascontiguousarray(beta), lists.start, lists.score)
        return lists.kept(weight > 0), lists.too_many
    if request.k:
        return lists, lists.too_many
    best = np.full(len(lists), -np.inf)
    np.maximum.at(best, lists.query, lists.score)
    within = beta[lists.query] * (lists.score - best[lists.query]) >= -reach(request.known_whole, request.queries.dtype)
    near = replace(lists, most=most_in_reach(request.known_whole)).kept(within)
    return near, near.too_many


# --- rows -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Rows:
    """Patterns of the whole, as they are stored, ascending by position.

    Attributes
    ----------
    position : ndarray of int64, shape (m,)
    patterns : ndarray, shape (m, d)
    values : ndarray, shape (m, v), or None
        None where the patterns are mixed, or no values were asked for.
    ids : ndarray of int64, shape (m,)
    """

    position: Positions
    patterns: Array
    values: Array | None
    ids: Positions

    def merged(self, other: Rows) -> Rows:
        """Return the rows of both."""
        if len(other.position) == 0:
            return self
        if len(self.position) == 0:
            return other
        position = np.concatenate([self.position, other.position])
        order = np.argsort(position, kind="stable")
        position = position[order]
        if (position[1:] == position[:-1]).any():
            raise ValueError("shards: two have patterns of the same position")
        values = None
        if self.values is not None and other.values is not None:
            values = np.concatenate([self.values, other.values])[order]
        return Rows(
            position,
            np.concatenate([self.patterns, other.patterns])[order],
            values,
            np.concatenate([self.ids, other.ids])[order],
        )


def gather(shard: Shard, request: Request) -> Rows:
    """Return those of some patterns that lie in a shard.

    Parameters
    ----------
    shard : Shard
        The shard that is asked.
    request : Request
        Its `positions`, ascending; `values` False leaves out values.

    Returns
    -------
    Rows
        The patterns, and where each stands.

    Raises
    ------
    RuntimeError
        If the request is of another version of the package.

    See Also
    --------
    finish : Make a small pattern set of these rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Request, Shard, gather
    >>> gather(Shard(np.eye(3), first=7), Request(positions=np.array([2, 8, 10]))).patterns
    array([[0., 1., 0.]])
    """
    request.check_version()
    local, stored = shard.local(request.known_positions), shard.stored
    rows = stored.rows_of(local)
    values = None
    if request.values and stored.value_storage is not None:
        values = take_rows(stored.value_storage, rows)
    return Rows(local + shard.first, take_rows(stored.storage, rows), values, shard.ids[local])


# --- sums over all patterns -------------------------------------------------------------------------

Node = tuple[int, int]  # of the tree of blocks: level and number; (l, i) is of blocks i 2^l to (i + 1) 2^l - 1
#: {scale, sum, mixture} of n queries in double, (n,), (n,) and (n, v); None of no patterns.
Partial = tuple[Floats, Floats, Floats] | None


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over all patterns of some blocks: nodes of a tree, none of which has its sibling here, too.

    Node (l, i) is made from (l - 1, 2i) and (l - 1, 2i + 1), or from the first alone where the blocks end. So each is
    computed in one way, whatever shards and merges it comes from.

    Attributes
    ----------
    nodes : dict
        By level and number what `_core.accumulate` gives, in double.
    blocks : int
        Of the whole.
    code : (int, float)
    beta : ndarray of float64
    """

    nodes: dict[Node, Partial]
    blocks: int
    code: tuple[int, float]
    beta: Floats

    def merged(self, other: Sums) -> Sums:
        """Return the sums over the blocks of both."""
        if shared := self.nodes.keys() & other.nodes.keys():
            raise ValueError(f"shards: two have rows of the same block, {min(shared)[1] << min(shared)[0]}")
        return self._joined({**self.nodes, **other.nodes})

    def _joined(self, nodes: dict[Node, Partial]) -> Sums:
        """Return the sums of some nodes, siblings joined."""
        left = dict(nodes)
        for level in range(max(self.blocks - 1, 0).bit_length()):
            last = (self.blocks - 1) >> level  # the last node of the level
            for number in sorted(i for at, i in left if at == level):
                one, two = (level, number & ~1), (level, number | 1)
                if one in left and two in left:
                    left[level + 1, number >> 1] = self._joined_pair(left.pop(one), left.pop(two))
                elif one in left and number == last:
                    left[level + 1, number >> 1] = left.pop(one)
        return replace(self, nodes=left)

    def _joined_pair(self, one: Partial, two: Partial) -> Partial:
        """Return the sums of two siblings."""
        if one is None or two is None:
            return two if one is None else one
        scale, total, mixture = (a.copy() for a in one)
        _core.merge(*self.code, self.beta, scale, total, mixture, *two)
        return scale, total, mixture

    def taken(self, which: NDArray[np.intp]) -> Sums:
        """Return the sums of some of the queries."""
        nodes = {at: node and (node[0][which], node[1][which], node[2][which]) for at, node in self.nodes.items()}
        return replace(self, nodes=nodes, beta=self.beta[which])

    @property
    def root(self) -> tuple[Floats, Floats, Floats]:
        """Return scale, sum and mixture over all blocks."""
        ((node, found),) = self.nodes.items()
        assert node == (max(self.blocks - 1, 0).bit_length(), 0)
        assert found is not None
        return found


def sums(shard: Shard, request: Request) -> Sums:
    """Sum over all patterns of a shard, by blocks, what maps with full support need.

    Parameters
    ----------
    shard : Shard
        The shard that is asked; it begins where a block does.
    request : Request
        Its `whole`, and the model. `values` False mixes the patterns, even if there are values; `options["mix"]` False
        mixes nothing.

    Returns
    -------
    Sums
        In double, but for sums within a block.

    Raises
    ------
    RuntimeError
        If the request is of another version of the package.
    ValueError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    merge : Add the sums of several shards.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Request, Shard, sums
    >>> shard = Shard(np.eye(3))
    >>> scale, total, mixture = sums(shard, Request(shard.whole, np.array([[1.0, 0.0, 0.0]]), code=(1, 1.0))).root
    >>> total.round(3), (mixture / total[:, None]).round(3)
    (array([1.736]), array([[0.576, 0.212, 0.212]]))
    """
    request.check_version()
    dtype, n = request.queries.dtype, len(request.queries)
    beta = request.beta if len(request.beta) == n else np.broadcast_to(request.beta, n).copy()
    found = Sums({}, request.known_whole.blocks, request.code, beta)
    for number, patterns in shard.blocks(values=request.values):
        node: Partial = None
        if patterns is not None:
            mixture = np.empty((n, patterns.width), dtype)
            executor = CoreExecutor(patterns.core(dtype), beta, request.code)
            scale, total = executor.accumulate(request.queries, mixture)
            node = scale, total, mixture.astype(np.float64)
        found = found.merged(replace(found, nodes={(0, number): node}))
    if not request.options.get("mix", True):
        nodes = {at: node and (node[0], node[1], np.empty((n, 0))) for at, node in found.nodes.items()}
        found = replace(found, nodes=nodes)
    return found


# --- weights of maps with full support --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Weighed:
    """Entries of the weights of n queries over all patterns, by query and position.

    Attributes
    ----------
    n, top : int
        Queries, and how many of the largest weights each has at most; 0: all.
    by_score : bool
        Whether the largest weights are those of the best scores, which tell apart what rounded weights do not.
    query, position : ndarray of int64
    score, weight : ndarray of float64
        Weights are rounded to the dtype of the results.
    """

    n: int
    top: int
    by_score: bool
    query: Positions
    position: Positions
    score: Floats
    weight: Floats

    def merged(self, other: Weighed) -> Weighed:
        """Return the entries of both."""
        names = ("query", "position", "score", "weight")
        columns = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in names)
        return Weighed(self.n, self.top, self.by_score, *columns).cut()

    def cut(self) -> Weighed:
        """Return the entries in order, those of the largest weights of each query."""
        kept = np.lexsort((self.position, -(self.score if self.by_score else self.weight), self.query))
        if self.top:
            counts = np.bincount(self.query, minlength=self.n)
            rank = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
            kept = kept[rank < self.top]
        kept = kept[np.lexsort((self.position[kept], self.query[kept]))]
        columns = self.query[kept], self.position[kept], self.score[kept], self.weight[kept]
        return Weighed(self.n, self.top, self.by_score, *columns)

    def lists(self) -> Weights:
        """Return the entries as CSR lists."""
        start = np.concatenate(([0], np.cumsum(np.bincount(self.query, minlength=self.n)))).astype(np.int64)
        return start, self.position, self.score, self.weight


ENTRIES = 2**22  # of a shard that are listed at a time, where all must be


@ignoring_float_errors()
def weigh(shard: Shard, request: Request) -> Weighed:
    """List the largest weights that patterns of a shard have among all, under a map with full support.

    Parameters
    ----------
    shard : Shard
    request : Request
        `options` has `scale` and `sum`, (n,), of `sums` of the whole; `top` and `min_weight` as of `associate`.

    Returns
    -------
    Weighed

    Raises
    ------
    RuntimeError
        If the request is of another version of the package.
    """
    request.check_version()
    n, dtype = len(request.queries), request.queries.dtype
    top, least = request.options["top"], request.options["min_weight"]
    scale, total = request.options["scale"], request.options["sum"]
    beta = np.broadcast_to(request.beta, n)
    softmax = row_of(request.code).shift_invariant
    found = Weighed(n, top, softmax, *(np.empty(0, np.int64),) * 2, *(np.empty(0),) * 2)
    by_rank = softmax and 0 < top < request.known_whole.count
    step = n if by_rank else max(1, ENTRIES // len(shard))
    for first in range(0, n, step):
        some = slice(first, min(first + step, n))
        start, position, score = _all_entries(shard, request, some, top if by_rank else 0)
        query = np.repeat(np.arange(n)[some], np.diff(start))
        if softmax:
            weight = np.exp(beta[query] * (score - scale[query])) / total[query]
        else:
            share = (score / np.where(scale == 0, 1.0, scale)[query]) ** int(request.code[1])
            weight = share / np.where(total == 0, np.inf, total)[query]
        weight = weight.astype(dtype).astype(np.float64)
        kept = weight >= least if least > 0 else np.ones(len(weight), np.bool_)
        more = Weighed(n, top, softmax, query[kept], position[kept] + shard.first, score[kept], weight[kept])
        found = found.merged(more)
    return found


def _all_entries(shard: Shard, request: Request, some: slice, k: int) -> tuple[Positions, Positions, Floats]:
    """Return CSR lists of all patterns of a shard, or of the k best, with canonical scores of some queries."""
    queries, code = request.queries[some], request.code
    core = shard.part_of(request.known_whole).core(queries.dtype)
    if k:
        pairs = TopK(k).descriptor(len(queries), request.known_whole.count)
        start, position, score, _ = CoreExecutor(core, np.ones(1), code, pairs).candidates(queries)
    elif row_of(code).shift_invariant:  # under sparsemax at next to no beta all patterns have weight
        tiny = np.array([float(np.finfo(np.float64).tiny)])
        start, position, score, _ = CoreExecutor(core, tiny, SPARSEMAX).associate(queries)
    else:
        start, position, score, _ = CoreExecutor(core, np.ones(1), code).associate(queries, len(shard))
    return start, position, score


# --- results ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Finished:
    """A small pattern set in place of the whole, for the queries whose weights lie on these patterns alone.

    Attributes
    ----------
    position : ndarray of int64, shape (m,)
        Of the patterns in the whole.
    ids : ndarray of int64, shape (m,)
    pattern_set : PatternSet
        It knows the whole.
    """

    position: Positions
    ids: Positions
    pattern_set: PatternSet = field(repr=False)

    def executor(self, request: Request) -> CoreExecutor:
        """Return what carries out calls of a request's queries on these patterns."""
        core = self.pattern_set.core(request.queries.dtype)
        return CoreExecutor(core, request.beta, request.code, _pairs(request))

    def associate(self, request: Request, top: int = 0, min_weight: float = 0.0) -> Weights:
        """Return CSR lists of weights by positions in the whole; see `CoreExecutor.associate`."""
        start, position, score, weight = self.executor(request).associate(request.queries, top, min_weight)
        return start, self.position[position], score, weight


def finish(rows: Rows, whole: Whole) -> Finished:
    """Make a small pattern set of gathered rows, which knows the whole.

    Parameters
    ----------
    rows : Rows
        What `gather` brings, merged: at least the patterns that have weight for the queries to be answered.
    whole : Whole
        What the shards are parts of.

    Returns
    -------
    Finished
        Calls on it give the bits of one memory of the whole.

    See Also
    --------
    gather : Bring the rows.
    Coordinator : Take all these steps.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.distributed import Request, Shard, finish, gather
    >>> shard = Shard(np.eye(3))
    >>> request = Request(shard.whole, np.array([[1.0, 0.2, 0.1]]), positions=np.array([0, 1]))
    >>> finished = finish(gather(shard, request), shard.whole)
    >>> finished.executor(request).energy(request.queries).round(6)
    array([-0.485])
    """
    scale = None if whole.scale == 1 else whole.scale
    small = PatternSet(
        rows.patterns, rows.values, whole.similarity, copy=None, check_finite=False, scale=scale, index=False
    )
    return Finished(rows.position, rows.ids, small.as_part_of(whole.count, whole.max_norm))
