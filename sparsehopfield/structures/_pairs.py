"""Structures whose queries see some of the patterns: the k best, windows, random subsets, blocks, dilated blocks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import as_array, as_integers, as_list, as_whole
from sparsehopfield._engine.structure import Cost, Structure
from sparsehopfield._engine.text import short

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

__all__ = ["BlockSparse", "DilatedBlocks", "Pairs", "RandomMask", "TopK", "Window"]

Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]
Descriptor = tuple[int, int, int, int, bool, int, int, int, Positions | None, Positions | None, Positions | None]

_NUMBERS = _core.structures()


def _descriptor(
    name: str,
    *,
    k: int = 1,
    width: int = 0,
    dilation: int = 1,
    causal: bool = False,
    seed: int = 0,
    block: tuple[int, int] = (1, 1),
    position: Positions | None = None,
    start: Positions | None = None,
    column: Positions | None = None,
) -> Descriptor:
    """Return what the core reads (sh_as_structure in csrc/binding/operations.c)."""
    return (_NUMBERS[name], k, width, dilation, causal, seed, *block, position, start, column)


def _sizes(n: Any, m: Any) -> tuple[int, int]:
    return as_whole("n", n, 0), as_whole("m", m, 1)


def _limited(k: int, m: int) -> int:
    if k > m:
        raise ValueError(f"k: must be at most the {m} patterns, got {k}")
    return k


def _positions(name: str, given: Any) -> Positions:
    """Return whole numbers of at least 0, flat and read-only."""
    a = as_integers(name, given)
    if a.size and (a.min() < 0 or a.max() > 2**62):
        raise ValueError(f"{name}: must be at least 0, got {a.min() if a.min() < 0 else a.max()}")
    a = np.array(a).ravel()
    a.flags.writeable = False
    return a


def _within(name: str, positions: Positions, m: int) -> None:
    if len(positions) and positions.max() >= m:
        raise ValueError(f"{name}: must be below the number of patterns, {m}, got {positions.max()}")


class Pairs(Structure):
    """The base of structures whose queries see some of the patterns, with the core's scores and weights.

    See Also
    --------
    sparsehopfield.structures.Structure : The base of these and of the structures of features.

    Examples
    --------
    >>> from sparsehopfield.structures import RandomFeatures
    >>> isinstance(TopK(2), Pairs), isinstance(RandomFeatures(2), Pairs)
    (True, False)
    """

    def refuse(self, operation: str) -> None:
        if operation == "certificates":
            raise ValueError(
                f"structure: margins are over all patterns, so they certify nothing under {type(self).__name__}, "
                "which may not look at a query's best pattern; is_fixed_point makes the step"
            )

    def descriptor(self, n: int, m: int, ragged: bool = False) -> Descriptor | None:
        raise NotImplementedError

    def cost(self, n: int, m: int, d: int) -> Cost:
        """Return what one update of n queries over m patterns of d features takes.

        Parameters
        ----------
        n, m, d : int, at least 0, 1 and 1
            How many queries and patterns there are, and how many features each of them has.

        Returns
        -------
        Cost
            Multiplications of the pairs alone, one product for the scores and one for the mixture: the most, as maps
            with a window mix their support only. Bytes with one thread.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.structures.Structure.count : Return how many pairs there are.

        Examples
        --------
        >>> Window(2).cost(10, 10, 64).multiplications, int(2 * Window(2).mask(10, 10).sum() * 64)
        (5632, 5632)
        """
        n, m = _sizes(n, m)
        d = as_whole("d", d, 1)
        queries = 40 * n  # of each its place, its group, its slack
        block = 4 * _core.PAIR_QUERIES * (_core.TILE + 2 * d + 4 * _core.PAIR_CAPACITY)
        return Cost(2 * self.count(n, m) * d, queries + self._own_bytes() + block)

    def mask(self, n: int, m: int) -> Mask:
        """Return which pairs these are: True where query i sees pattern j. It takes n x m bytes.

        Parameters
        ----------
        n, m : int, at least 0 and 1
            How many queries and patterns there are.

        Returns
        -------
        ndarray of bool, shape (n, m)
            One row a query, one column a pattern.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.structures.BlockSparse : The structure of any mask, in blocks.
        sparsehopfield.associate : Return the weights of the pairs, as a sparse array.

        Examples
        --------
        >>> Window(1, causal=True).mask(3, 3).astype(int)
        array([[1, 0, 0],
               [1, 1, 0],
               [0, 1, 1]])
        """
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        """Return what the structure is made of, to be compared."""
        raise NotImplementedError

    def _own_bytes(self) -> int:
        """Return the bytes of the structure's own lists."""
        return 0


@dataclass(frozen=True)
class TopK(Pairs):
    """The k best scores of each query, exactly; ties go to the lowest position.

    All scores are bounded or computed, by the index where there is one, but only k are weighed and mixed. A map with a
    window gives the same result as without, bit for bit, where its support has at most k patterns.

    Parameters
    ----------
    k : int, at least 1 and at most the number of patterns
        How many patterns each query sees; with as many as there are, all pairs.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.theory.structures.truncation_bound : Bound what is lost by the patterns that are left out.
    sparsehopfield.topk_softmax : Return the weights of scores of which the k best count.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> sh.update([3.0, 2.0, 1.0], np.eye(3), separation="softmax", structure=TopK(2)).round(3)
    array([0.731, 0.269, 0.   ])
    """

    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", as_whole("k", self.k, 1))

    @property
    def by_scores(self) -> bool:
        return True

    @classmethod
    def sized(cls, pairs: int, m: int, places: Positions | None = None, seed: int = 0) -> TopK:
        return cls(min(pairs, m))

    def within(self, m: int) -> TopK:
        return replace(self, k=min(self.k, m))

    def rows_to_choose_from(self, rows: int, appended: int) -> int:
        return rows

    def refuse(self, operation: str) -> None:
        pass  # a pattern with all weight is among the k best, and the result has the same bits

    def descriptor(self, n: int, m: int, ragged: bool = False) -> Descriptor | None:
        return None if _limited(self.k, m) == m else _descriptor("TopK", k=self.k)

    def count(self, n: int, m: int) -> int:
        return n * _limited(self.k, m)

    def mask(self, n: int, m: int) -> Mask:
        """Raise TypeError, as which pairs these are depends on the scores.

        Parameters
        ----------
        n, m : int
            How many queries and patterns there are; neither matters.

        Raises
        ------
        TypeError
            Always.

        See Also
        --------
        sparsehopfield.associate : Return the weights of the patterns that each query sees.

        Examples
        --------
        >>> TopK(2).mask(3, 5)
        Traceback (most recent call last):
        TypeError: TopK: which pairs are looked at depends on the scores
        """
        raise TypeError("TopK: which pairs are looked at depends on the scores")

    def cost(self, n: int, m: int, d: int) -> Cost:
        """Return what one update of n queries over m patterns of d features takes.

        Parameters
        ----------
        n, m, d : int, at least 0, 1 and 1
            How many queries and patterns there are, and how many features each of them has.

        Returns
        -------
        Cost
            Scores of all pairs (the scan; an index needs a part of it) and the mixture of n k rows. Bytes without the
            index, which is kept.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.HopfieldMemory.build_index : Make the index, by which part of the scores is enough.

        Examples
        --------
        >>> TopK(8).cost(100, 1000, 64).multiplications == 100 * 1000 * 64 + 100 * 8 * 64
        True
        """
        n, m = _sizes(n, m)
        d = as_whole("d", d, 1)
        rows = 24 * 2**20 if self.k > 32 else 0  # whole rows of scores (csrc/retrieval/overflow.c)
        memory = 16 * n + 4 * _core.SCAN_QUERIES * (_core.TILE + 4 * 128) + max(rows, 12 * m if rows else 0)
        return Cost(d * (n * m + self.count(n, m)), memory)


class Placed(Pairs):
    """The base of structures that go by the places of queries among the patterns, `positions`, and may be `causal`."""

    causal: bool
    positions: ArrayLike | None

    def __post_init__(self) -> None:
        if not isinstance(self.causal, (bool, np.bool_)):
            raise TypeError(f"causal: must be True or False, got {short(self.causal)}")
        object.__setattr__(self, "causal", bool(self.causal))
        if self.positions is not None:
            object.__setattr__(self, "positions", _positions("positions", self.positions))

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["positions"] is not None:  # a copy, which may be written to
            state["positions"].flags.writeable = False
        self.__dict__.update(state)

    def _key(self) -> tuple[Any, ...]:
        values = (getattr(self, name) for name in sorted(self.field_names()))
        return tuple(x.tobytes() if isinstance(x, np.ndarray) else x for x in values)

    @property
    def by_place(self) -> bool:
        """Tell whether the order of the patterns counts."""
        return True

    def _places(self, n: int, m: int) -> Positions:
        """Return the places of n queries among m patterns, checked."""
        if self.positions is None:
            if n != m:
                raise ValueError(
                    f"positions: {type(self).__name__} takes query i to be at pattern i, so with "
                    f"{n} queries and {m} patterns it needs their places"
                )
            return np.arange(n)
        places = np.asarray(self.positions)
        if len(places) != n:
            raise ValueError(f"positions: must be one for each of the {n} queries, got {len(places)}")
        _within("positions", places, m)
        return places

    def _position(self) -> Positions | None:
        """Return a copy of the positions for the core, whatever becomes of them meanwhile."""
        return None if self.positions is None else np.array(self.positions)

    def _own_bytes(self) -> int:
        return 0 if self.positions is None else np.asarray(self.positions).nbytes


@dataclass(frozen=True, eq=False)
class Window(Placed):
    """Patterns near the query's own place in their order: place + t * dilation, |t| <= w.

    As in Longformer's local attention. Cost and memory follow the pairs. A query near an end sees fewer.

    Parameters
    ----------
    w : int, at least 0
        How many patterns a query sees on each side of its own place. A window wider than the set has all.
    causal : bool
        Whether a query sees nothing behind its own place, global positions included.
    dilation : int, at least 1
        The step from one pattern of the window to the next.
    global_positions : collection of int, from 0 to M - 1
        Places of patterns that every query sees.
    positions : array_like of int, shape of the queries without features, optional
        Places of the queries among the patterns, 0 to M - 1. By default query i is at i, which needs as many queries as
        patterns.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.structures.DilatedBlocks : The query's own block in place of a window around it.
    sparsehopfield.theory.structures.masked_error : Compute what is lost by the patterns that are left out.

    Notes
    -----
    In a retrieval each query keeps its place.

    References
    ----------
    Beltagy, Peters & Cohan 2020, "Longformer: the long-document transformer", section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> x = np.eye(4)
    >>> sh.associate(x, x, separation="softmax", structure=Window(1)).toarray().round(2)
    array([[0.73, 0.27, 0.  , 0.  ],
           [0.21, 0.58, 0.21, 0.  ],
           [0.  , 0.21, 0.58, 0.21],
           [0.  , 0.  , 0.27, 0.73]])
    >>> sh.update(x[2], x, structure=Window(0, positions=3))
    array([0., 0., 0., 1.])
    """

    w: int
    _: KW_ONLY
    causal: bool = False
    dilation: int = 1
    global_positions: Collection[int] = ()
    positions: ArrayLike | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "w", as_whole("w", self.w, 0))
        object.__setattr__(self, "dilation", as_whole("dilation", self.dilation, 1))
        what = "a collection of whole numbers"
        listed = as_list("global_positions", self.global_positions, what)  # sets, too
        if as_array("global_positions", listed).ndim != 1:
            raise TypeError(f"global_positions: must be {what}, got {short(listed)}")
        everywhere = np.unique(_positions("global_positions", listed))
        object.__setattr__(self, "global_positions", tuple(everywhere.tolist()))

    @classmethod
    def sized(cls, pairs: int, m: int, places: Positions | None = None, seed: int = 0) -> Window:
        return cls(pairs // 2, positions=places)

    def _places(self, n: int, m: int) -> Positions:
        _within("global_positions", np.asarray(self.global_positions, np.int64), m)
        return super()._places(n, m)

    def descriptor(self, n: int, m: int, ragged: bool = False) -> Descriptor | None:
        self._places(n, m)
        if self.w >= m - 1 and self.dilation == 1 and not self.causal and not ragged:
            return None
        dilation = min(self.dilation, m)  # so far that no other pattern is there
        return _descriptor(
            "Window",
            width=min(self.w, (m - 1) // dilation),
            dilation=dilation,
            causal=self.causal,
            position=self._position(),
            column=np.asarray(self.global_positions, np.int64) if self.global_positions else None,
        )

    def mask(self, n: int, m: int) -> Mask:
        n, m = _sizes(n, m)
        away = np.arange(m) - self._places(n, m)[:, None]
        mask = (away % self.dilation == 0) & (abs(away) // self.dilation <= self.w)
        mask[:, list(self.global_positions)] = True
        return mask & (away <= 0) if self.causal else mask

    def count(self, n: int, m: int) -> int:
        places = self._places(n, m)
        before = np.minimum(self.w, places // self.dilation)
        after = np.zeros_like(places) if self.causal else np.minimum(self.w, (m - 1 - places) // self.dilation)
        count = int((before + after + 1).sum())
        for j in self.global_positions:
            away = j - places
            inside = (away % self.dilation == 0) & (abs(away) // self.dilation <= self.w)
            count += int(np.count_nonzero(~inside & (away <= 0) if self.causal else ~inside))
        return count

    def _own_bytes(self) -> int:
        return 8 * len(self.global_positions) + super()._own_bytes()


@dataclass(frozen=True)
class RandomMask(Pairs):
    """A fixed random subset of k patterns for each query, or for each block of consecutive queries.

    Drawn without replacement and never stored: the same (seed, k, block) and the same number of patterns give the same
    subsets, everywhere. Query i of a call belongs to block i // block.

    Parameters
    ----------
    k : int, at least 1 and at most the number of patterns
        How many patterns each query sees.
    seed : int, 0 to 2**64 - 1
        Of the random subsets: another seed, other subsets.
    block : int, at least 1
        How many consecutive queries share a subset.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.theory.structures.mask_hit_probability : Compute how likely a query sees its own pattern.

    References
    ----------
    Black & Rogaway 2002, "Ciphers with arbitrary finite domains": the first k members of a pseudo-random permutation.

    Examples
    --------
    >>> RandomMask(2, seed=1).mask(3, 5).sum(axis=1)
    array([2, 2, 2])
    """

    k: int
    seed: int = 0
    _: KW_ONLY
    block: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", as_whole("k", self.k, 1))
        object.__setattr__(self, "seed", as_whole("seed", self.seed, 0, 2**64 - 1))
        object.__setattr__(self, "block", as_whole("block", self.block, 1))

    @classmethod
    def sized(cls, pairs: int, m: int, places: Positions | None = None, seed: int = 0) -> RandomMask:
        return cls(min(pairs, m), seed)

    def within(self, m: int) -> RandomMask:
        return replace(self, k=min(self.k, m))

    def descriptor(self, n: int, m: int, ragged: bool = False) -> Descriptor | None:
        if _limited(self.k, m) == m:
            return None
        return _descriptor("RandomMask", k=self.k, seed=self.seed, block=(self.block, 1))

    def mask(self, n: int, m: int) -> Mask:
        n, m = _sizes(n, m)
        _limited(self.k, m)
        blocks = np.arange(-(-n // self.block), dtype=np.uint64)
        key = _mixed(np.uint64(self.seed) + _GOLDEN * (blocks + np.uint64(1)))[:, None]
        numbers = np.broadcast_to(np.arange(self.k, dtype=np.uint64), (len(blocks), self.k))
        chosen = np.zeros((len(blocks), m), dtype=np.bool_)
        np.put_along_axis(chosen, _permuted(numbers, key, m).astype(np.int64), True, axis=1)
        return chosen[np.arange(n) // self.block]

    def count(self, n: int, m: int) -> int:
        return n * _limited(self.k, m)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's mixing function of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _permuted(x: NDArray[np.uint64], key: NDArray[np.uint64], m: int) -> NDArray[np.uint64]:
    """Return x after a Feistel network on the least power of two from m on, walked until below m (structure.c)."""
    bits = (m - 1).bit_length()
    low_bits = np.uint64(bits - bits // 2)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << np.uint64(bits // 2)) - np.uint64(1)
    x = np.array(x)
    key = np.broadcast_to(key, x.shape)
    walking = np.ones(x.shape, np.bool_)
    while walking.any():
        low, high, keys = x[walking] & low_mask, x[walking] >> low_bits, key[walking]
        for _ in range(3):
            low = low ^ (_mixed(high + (keys := keys + _GOLDEN)) & low_mask)
            high = high ^ (_mixed(low + (keys := keys + _GOLDEN)) & high_mask)
        x[walking] = high << low_bits | low
        walking = x >= np.uint64(m)
    return x


@dataclass(frozen=True, eq=False)
class BlockSparse(Pairs):
    """Any mask of blocks: queries of a block row see the patterns of its blocks.

    Parameters
    ----------
    mask : scipy.sparse BSR, or array_like or scipy.sparse of bool, shape (block rows, block columns)
        A BSR array of shape (N, M), whose stored blocks are seen as a whole, whatever is in them; or one entry a
        block, with `block`. A block row may be empty: its queries get zeros.
    block : (int, int), or int for squares
        How many queries and how many patterns a block has, at least 1 each. Needed unless `mask` is BSR.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.structures.Pairs.mask : Return the pairs one by one.
    sparsehopfield.theory.structures.masked_error : Compute what is lost by the patterns that are left out.

    Notes
    -----
    Blocks of at least 4 rows are multiplied as blocks; thinner ones pair by pair.

    Examples
    --------
    >>> import numpy as np
    >>> BlockSparse([[True, False], [True, True]], (1, 2)).mask(2, 4).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 1, 1]])
    """

    given: Any
    block: tuple[int, int]

    def __init__(self, mask: ArrayLike | sparray | spmatrix, block: int | tuple[int, int] | None = None) -> None:
        from scipy.sparse import csr_array, issparse

        sparse: Any = mask
        if issparse(mask) and sparse.format == "bsr":
            if block is not None and _shape(block) != tuple(sparse.blocksize):
                raise ValueError(f"block: the mask has blocks of {sparse.blocksize}, got {short(block)}")
            rows, columns = (a // b for a, b in zip(sparse.shape, sparse.blocksize, strict=True))
            indices = np.array(sparse.indices)
            kept = csr_array((np.ones(len(indices), np.int8), indices, sparse.indptr), shape=(rows, columns), copy=True)
            kept.sum_duplicates()
            block = tuple(sparse.blocksize)
        else:
            if block is None:
                raise TypeError("block: needed, as the mask is no BSR array")
            if not issparse(mask):
                mask = as_array("mask", mask)
                if mask.ndim != 2 or mask.dtype.kind != "b":
                    raise ValueError(
                        f"mask: must be bool of shape (block rows, block columns), got {mask.dtype} of {mask.shape}"
                    )
            kept = csr_array(mask, copy=True)
            kept.sum_duplicates()
            kept.eliminate_zeros()
        kept.sort_indices()
        for a in (kept.indptr, kept.indices):  # SciPy follows them without a check
            a.flags.writeable = False
        object.__setattr__(self, "given", kept)
        object.__setattr__(self, "block", _shape(block))

    @classmethod
    def sized(cls, pairs: int, m: int, places: Positions | None = None, seed: int = 0) -> BlockSparse:
        block = np.arange(m) // pairs
        return cls((block if places is None else block[places])[:, None] == block, 1)

    def to_fields(self) -> dict[str, Any]:
        """Return the mask's blocks as CSR lists: those of row i are columns[start[i] : start[i + 1]].

        Returns
        -------
        dict
            "shape", the numbers of block rows and columns; "block", the size of a block; "start" and "columns".

        See Also
        --------
        sparsehopfield.structures.Structure.from_fields : Make the structure again.

        Examples
        --------
        >>> BlockSparse([[True, False], [True, True]], (1, 2)).to_fields()
        {'shape': [2, 2], 'block': [1, 2], 'start': [0, 1, 3], 'columns': [0, 0, 1]}
        """
        kept = self.given
        lists = {"start": kept.indptr.tolist(), "columns": kept.indices.tolist()}
        return {"shape": [int(side) for side in kept.shape], "block": list(self.block), **lists}

    @classmethod
    def from_fields(cls, given: dict[str, Any]) -> Self:
        from scipy.sparse import csr_array

        if not isinstance(given["shape"], list) or len(given["shape"]) != 2:
            raise ValueError(f"shape: must be two numbers, got {short(given['shape'])}")
        rows, columns = (as_whole("shape", side, 0) for side in given["shape"])
        start, column = (_positions(name, given[name]) for name in ("start", "columns"))
        if len(start) != rows + 1 or start[0] != 0 or start[-1] != len(column) or (np.diff(start) < 0).any():
            raise ValueError(f"start: must rise from 0 to {len(column)} columns in {rows} rows")
        _within("columns", column, columns)
        row = np.repeat(np.arange(rows), np.diff(start))
        if ((np.diff(row) == 0) & (np.diff(column) <= 0)).any():
            raise ValueError("columns: must ascend in every row")
        return cls(csr_array((np.ones(len(column), np.bool_), column, start), shape=(rows, columns)), given["block"])

    @classmethod
    def field_names(cls) -> set[str]:
        return {"shape", "block", "start", "columns"}

    def _key(self) -> tuple[Any, ...]:
        kept = self.given
        lists = (a.astype(np.int64).tobytes() for a in (kept.indptr, kept.indices))
        return (tuple(map(int, kept.shape)), self.block, *lists)

    def __repr__(self) -> str:
        return f"BlockSparse({self.given.nnz} of {self.given.shape} blocks, block={self.block})"

    @property
    def by_place(self) -> bool:
        """Tell whether the order of the patterns counts."""
        return True

    def _checked(self, n: int, m: int) -> Any:
        """Return the blocks, checked to be of n queries and m patterns."""
        rows, columns = (a * b for a, b in zip(self.given.shape, self.block, strict=True))
        if (rows, columns) != (n, m):
            raise ValueError(f"mask: is for {rows} queries and {columns} patterns, got {n} and {m}")
        return self.given

    def descriptor(self, n: int, m: int, ragged: bool = False) -> Descriptor | None:
        kept = self._checked(n, m)
        start, column = kept.indptr.astype(np.int64), kept.indices.astype(np.int64)
        return _descriptor("BlockSparse", block=self.block, start=start, column=column)

    def mask(self, n: int, m: int) -> Mask:
        kept = self._checked(*_sizes(n, m)).toarray() != 0
        return kept.repeat(self.block[0], axis=0).repeat(self.block[1], axis=1)

    def count(self, n: int, m: int) -> int:
        return int(self._checked(n, m).nnz) * self.block[0] * self.block[1]

    def _own_bytes(self) -> int:
        return 8 * (self.given.nnz + self.given.shape[0] + 1)


@dataclass(frozen=True, eq=False)
class DilatedBlocks(Placed):
    """Every dilation-th pattern of the query's own block: those at place + t * dilation within it.

    As in LongNet's dilated attention, where blocks are called segments: a query sees what the head of its own offset
    keeps. Cost and memory follow the pairs. The last block may be shorter.

    Parameters
    ----------
    block : int, at least 1
        How many consecutive patterns a block has. A block larger than the set is all of it.
    dilation : int, at least 1
        The step from one pattern that a query sees to the next.
    causal : bool
        Whether a query sees nothing behind its own place.
    positions : array_like of int, shape of the queries without features, optional
        Places of the queries among the patterns, 0 to M - 1. By default query i is at i, which needs as many queries as
        patterns.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.structures.Window : A window around the query's place in place of its block.
    sparsehopfield.theory.structures.masked_error : Compute what is lost by the patterns that are left out.

    References
    ----------
    Ding et al. 2023, "LongNet: scaling transformers to 1,000,000,000 tokens", section 3.1.

    Examples
    --------
    >>> DilatedBlocks(4, 2).mask(6, 6).astype(int)
    array([[1, 0, 1, 0, 0, 0],
           [0, 1, 0, 1, 0, 0],
           [1, 0, 1, 0, 0, 0],
           [0, 1, 0, 1, 0, 0],
           [0, 0, 0, 0, 1, 0],
           [0, 0, 0, 0, 0, 1]])
    """

    block: int
    dilation: int = 1
    _: KW_ONLY
    causal: bool = False
    positions: ArrayLike | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "block", as_whole("block", self.block, 1))
        object.__setattr__(self, "dilation", as_whole("dilation", self.dilation, 1))

    @classmethod
    def sized(cls, pairs: int, m: int, places: Positions | None = None, seed: int = 0) -> DilatedBlocks:
        return cls(2 * pairs, 2, positions=places)

    def descriptor(self, n: int, m: int, ragged: bool = False) -> Descriptor | None:
        self._places(n, m)
        block = min(self.block, m)
        dilation = min(self.dilation, block)  # so far that no other pattern is there
        if block == m and dilation == 1 and not self.causal and not ragged:
            return None
        position = self._position()
        return _descriptor("DilatedBlocks", block=(block, 1), dilation=dilation, causal=self.causal, position=position)

    def mask(self, n: int, m: int) -> Mask:
        n, m = _sizes(n, m)
        places, patterns = self._places(n, m)[:, None], np.arange(m)
        mask = (patterns // self.block == places // self.block) & ((patterns - places) % self.dilation == 0)
        return mask & (patterns <= places) if self.causal else mask

    def count(self, n: int, m: int) -> int:
        places = self._places(n, m)
        within = places % self.block
        last = places if self.causal else np.minimum(places - within + self.block, m) - 1
        return int((within // self.dilation + (last - places) // self.dilation + 1).sum())


def _shape(block: Any) -> tuple[int, int]:
    rows, columns = block if isinstance(block, (tuple, list)) and len(block) == 2 else (block, block)
    return as_whole("block", rows, 1), as_whole("block", columns, 1)
