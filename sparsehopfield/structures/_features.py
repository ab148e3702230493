"""Kernels that are a product of features, k(x, xi) = <phi(x), phi(xi)>: D sums stand for any number of patterns.

T(x) = sum_j k(x, xi_j) v_j / sum_j k(x, xi_j) needs of the patterns only S = sum_j phi(xi_j) v_j^T, (D, v), and
z = sum_j phi(xi_j), (D,). Features are held as phi = exp(exponent) * factor, and each of the D sums in units of
exp(top), top the largest exponent of that feature so far: z is then at least 1, however long the patterns are, and a
pattern that raises top shrinks what was there. The answer is a mean of the D means S_f / z_f, so it overflows nowhere:

    T(x) = sum_f w_f S_f / z_f,    w_f proportional to phi_f(x) exp(top_f) z_f.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import Array, as_beta, as_numbers, as_patterns, as_queries, as_values, as_whole, compute_dtype
from ..separations import SEPARATIONS, similarity_code, unknown_name
from ..structure import Cost, Structure

if TYPE_CHECKING:
    from ..stored import Asked, Stored

__all__ = ["FeatureState", "Features", "LinearFeatures", "RandomFeatures"]

Floats = NDArray[np.float64]
BLOCK = 1024  # rows whose features are there at a time
CAUSAL_BLOCK = 128  # rows whose pairs are
# A causal block's sums are in units of its largest features. Where a query's sum is below this, the features of later
# patterns drown those that it sees: terms below the smallest float are lost. Half the block is then taken at a time.
FAINT = {np.dtype(np.float32): 1e-20, np.dtype(np.float64): 1e-200}
MOST = {np.dtype(np.float32): 1e70, np.dtype(np.float64): 1e300}  # of beta |x|^2, so that features are finite
_times = np.matmul  # all products go through it, so that a test can count them


class _Map:
    """Features of rows under one beta and similarity: (exponent, factor), each (n, D), or None where it is 0 or 1.

    Exponents are float64: they may be large, and their rounding errors become relative errors of weights.
    """

    size: int

    def patterns(self, rows: Array) -> tuple[Floats | None, Array | None]:
        raise NotImplementedError

    def queries(self, rows: Array) -> tuple[Floats | None, Array | None]:
        raise NotImplementedError


class _Relu(_Map):
    def __init__(self, d: int) -> None:
        self.size = d

    def queries(self, rows: Array) -> tuple[Floats | None, Array | None]:
        return None, np.maximum(rows, 0)  # without sqrt(beta), which cancels

    def patterns(self, rows: Array) -> tuple[Floats | None, Array | None]:
        return self.queries(rows)


class _Elu(_Map):
    """elu(x) + 1 = exp(min(x, 0)) (1 + max(x, 0)), of sqrt(beta) x."""

    def __init__(self, d: int, beta: float) -> None:
        self.size, self.root = d, beta**0.5

    def queries(self, rows: Array) -> tuple[Floats | None, Array | None]:
        scaled = np.multiply(rows, self.root, dtype=np.float64)
        factor = np.maximum(scaled, 0).astype(rows.dtype, copy=False)
        factor += 1
        return np.minimum(scaled, 0, out=scaled), factor

    def patterns(self, rows: Array) -> tuple[Floats | None, Array | None]:
        return self.queries(rows)


class _Random(_Map):
    """exp(sqrt(beta) W x - beta |x|^2/2); of queries the second term cancels, and patterns carry their bias as well."""

    def __init__(self, projection: Floats, beta: float, similarity: str) -> None:
        self.size = len(projection)
        self.projection = (beta**0.5 * projection).T
        self.bias = beta if similarity == "euclidean" else beta / 2

    def queries(self, rows: Array) -> tuple[Floats | None, Array | None]:
        return _times(rows.astype(np.float64, copy=False), self.projection), None

    def patterns(self, rows: Array) -> tuple[Floats | None, Array | None]:
        wide = rows.astype(np.float64, copy=False)
        exponent = _times(wide, self.projection)
        exponent -= self.bias * np.einsum("ij,ij->i", wide, wide)[:, None]
        return exponent, None


@dataclass(frozen=True)
class Features(Structure):
    """The base of the structures whose weights are proportional to <phi(x), phi(xi)>."""

    causal: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.causal, (bool, np.bool_)):
            raise TypeError(f"causal: must be True or False, got {self.causal!r}")
        object.__setattr__(self, "causal", bool(self.causal))

    @property
    def by_place(self) -> bool:
        """Whether the order of the patterns counts."""
        return self.causal

    @property
    def _name(self) -> str:
        return type(self).__name__

    def refuse(self, what: str) -> None:
        """Raise where features have no such thing."""
        name = self._name
        raise ValueError(
            {
                "energy": f"structure: {name} has no energy: the Jacobian of its update is not symmetric, so the "
                "update is no gradient step of anything",
                "associate": f"structure: {name} has no list of weights: they are never computed one by one, and all "
                "patterns have some; update(values=...) mixes by them",
                "candidates": f"structure: {name} has no candidates, as no pattern is kept; its state() has add and "
                "merge",
                "certificates": f"structure: {name} has no window, beyond which patterns have no weight, so margins "
                "certify nothing",
                "fixed points": f"structure: {name} has no window, so no pattern is known to stay for certain; "
                "compare update(patterns) with the patterns",
            }[what]
        )

    def steps(self, stored: Stored, asked: Asked) -> Steps:
        """Steps from state to state."""
        return Steps(stored, asked)

    def _map(self, d: int, beta: float, similarity: str) -> _Map:
        raise NotImplementedError

    def _size(self, d: int) -> int:
        """How many features d become."""
        raise NotImplementedError

    def _projected(self, d: int) -> int:
        """Multiplications that the features of one row take."""
        return 0

    def state(
        self, patterns: ArrayLike, values: ArrayLike | None = None, beta: ArrayLike = 1.0, *, similarity: str = "dot"
    ) -> FeatureState:
        """The sums that stand for these patterns, to which more can be added.

        Parameters
        ----------
        patterns : array_like, shape (M, d)
        values : array_like, shape (M, v), optional
            What is mixed; the patterns themselves by default.
        beta : float, positive
            Inverse temperature, the same for all queries, as the patterns' features depend on it.
        similarity : {"dot", "euclidean", "cosine"}
            As for `sparsehopfield.update`; LinearFeatures has no euclidean.

        Returns
        -------
        FeatureState

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault.
        """
        rows = as_patterns("patterns", patterns)
        v = as_values(values, len(rows))
        state = FeatureState(
            self, rows.shape[1], None if v is None else v.shape[1], _one(beta), similarity, compute_dtype(rows, v)
        )
        state.add(rows, v)
        return state

    def cost(self, n: int, m: int, d: int) -> Cost:
        """What one update of n queries over m patterns of d features takes.

        Parameters
        ----------
        n, m, d : int, at least 1
            n and m are equal if `causal`.

        Returns
        -------
        Cost
            Linear in n + m, and in the number of features D: 2 (n + m) D d multiplications for RandomFeatures, half of
            it for LinearFeatures, with D = d. Causal blocks add their pairs.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        Examples
        --------
        >>> RandomFeatures(256).cost(65_536, 65_536, 64).multiplications == 2 * (65_536 + 65_536) * 256 * 64
        True
        """
        n, m, d = as_whole("n", n, 1), as_whole("m", m, 1), as_whole("d", d, 1)
        size = self._size(d)
        multiplications = (n + m) * (self._projected(d) + size * d)
        block = min(BLOCK, max(n, m))
        # the state, the projection and the means; a block's exponents twice, its features twice, its rows in float64
        memory = 8 * size * (d + 2) + (16 if self._projected(d) else 4) * size * d + block * (24 * size + 8 * d)
        if self.causal:
            if n != m:
                raise ValueError(f"n: causal features need as many queries as patterns, got {n} and {m}")
            block = min(CAUSAL_BLOCK, n)
            full, rest = divmod(n, block)
            multiplications += (full * block**2 + rest**2) * (size + d) + n * size
            memory = 8 * size * (d + 2) + (16 if self._projected(d) else 4) * size * d
            memory += block * (48 * size + 8 * d + 8 * block)
        return Cost(multiplications, memory)


@dataclass(frozen=True)
class LinearFeatures(Features):
    """Linear attention: weights proportional to <phi(sqrt(beta) x), phi(sqrt(beta) xi)>, phi one number a feature.

    Takes the place of softmax's kernel exp(beta <x, xi>): `separation` must be "softmax". One update takes
    O((N + M) d v), and no N x M array is made. **It is no memory**: its weights are nearly equal, and a stored pattern
    is no fixed point at any beta, see `sparsehopfield.theory_structures.kernel_displacement`.

    Parameters
    ----------
    kind : {"elu+1", "relu"}
        phi(x) = exp(x) for x <= 0, 1 + x for x > 0; or max(x, 0), where beta cancels.
    causal : bool
        Query i sees patterns 0 to i only; there must be as many queries as patterns.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Notes
    -----
    Similarity "dot" and "cosine"; the bias -|xi|^2/2 of "euclidean" has no counterpart in this kernel. beta must be one
    number. Queries that share no positive feature with a pattern, which "relu" makes possible, get zeros, as a row
    without any score does. There is no energy: the update is no gradient map. `support_size` of a retrieval counts all
    patterns seen.

    References
    ----------
    Katharopoulos et al. 2020, "Transformers are RNNs: fast autoregressive transformers with linear attention".

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> sh.update([1.0, 0.0], np.eye(2), separation="softmax", structure=LinearFeatures()).round(3)
    array([0.556, 0.444])
    """

    kind: str = "elu+1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.kind, str):
            raise TypeError(f"kind: must be 'elu+1' or 'relu', got {self.kind!r}")
        if self.kind not in ("elu+1", "relu"):
            raise unknown_name("kind", self.kind, ["elu+1", "relu"])

    def _size(self, d: int) -> int:
        return d

    def _map(self, d: int, beta: float, similarity: str) -> _Map:
        if similarity == "euclidean":
            raise ValueError("similarity: the kernel of LinearFeatures has no place for euclidean's bias -|xi|^2/2")
        return _Elu(d, beta) if self.kind == "elu+1" else _Relu(d)


@dataclass(frozen=True)
class RandomFeatures(Features):
    """Positive random features: weights whose kernel is, on average, softmax's exp(beta <x, xi>).

    phi(x) = exp(sqrt(beta) W x - beta |x|^2/2) / sqrt(D) with normal W, (D, d). `separation` must be "softmax", the
    only map whose kernel this is. One update takes O((N + M) D (d + v)), and no N x M array is made. **Exact retrieval
    is out of reach**: where it begins, D would have to exceed exp(4 beta |xi|^2), see
    `sparsehopfield.theory_structures.features_needed`.

    Parameters
    ----------
    n_features : int, at least 1
        D.
    seed : int, at least 0
        W is drawn from it alone: the same for every call and beta.
    orthogonal : bool
        Rows of W are orthogonal in groups of d; each is normal for itself, so that the kernel stays unbiased, and its
        variance is in practice a little smaller.
    causal : bool
        Query i sees patterns 0 to i only; there must be as many queries as patterns.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Notes
    -----
    All similarities: the bias of "euclidean" goes into the patterns' exponents. beta must be one number. The kernel is
    unbiased, the quotient that is the update is so only as D grows. There is no energy: the update is no gradient map.
    `support_size` of a retrieval counts all patterns seen.

    References
    ----------
    Choromanski et al. 2021, "Rethinking attention with Performers".

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> x, X = np.array([0.5, 0.0]), np.eye(2)
    >>> exact = sh.update(x, X, separation="softmax")
    >>> near = sh.update(x, X, separation="softmax", structure=RandomFeatures(4096))
    >>> bool(np.abs(near - exact).max() < 0.05)
    True
    """

    n_features: int
    seed: int = 0
    orthogonal: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "n_features", as_whole("n_features", self.n_features, 1))
        object.__setattr__(self, "seed", as_whole("seed", self.seed, 0))
        if not isinstance(self.orthogonal, (bool, np.bool_)):
            raise TypeError(f"orthogonal: must be True or False, got {self.orthogonal!r}")
        object.__setattr__(self, "orthogonal", bool(self.orthogonal))

    def _size(self, d: int) -> int:
        return self.n_features

    def _projected(self, d: int) -> int:
        return self.n_features * d

    def projection(self, d: int) -> Floats:
        """W, for patterns of d features.

        Parameters
        ----------
        d : int, at least 1

        Returns
        -------
        ndarray of float64, shape (n_features, d)
        """
        rng = np.random.default_rng(self.seed)
        w = rng.standard_normal((self.n_features, as_whole("d", d, 1)))
        if self.orthogonal:
            lengths = np.linalg.norm(w, axis=1, keepdims=True)
            for first in range(0, self.n_features, d):
                # With the signs of R's diagonal, Q of a normal matrix is uniform among orthogonal ones; its rows are
                # then independent of the lengths, which come from a draw of their own.
                q, r = np.linalg.qr(rng.standard_normal((d, d)))
                w[first : first + d] = (q * np.sign(np.diag(r)))[: self.n_features - first]
            w *= lengths
        return w

    def _map(self, d: int, beta: float, similarity: str) -> _Map:
        return _Random(self.projection(d), beta, similarity)


class FeatureState:
    """The sums that stand for any number of patterns: made by `LinearFeatures.state` and `RandomFeatures.state`.

    Of D features and values of v columns it holds D (v + 2) numbers, and adding a pattern takes O(D (d + v)), however
    many there are. Patterns cannot be taken out: a difference of sums loses the digits of what is left, so build the
    state anew from the patterns that stay.

    Attributes
    ----------
    structure : LinearFeatures or RandomFeatures
    beta : float
    similarity : str
    dtype : dtype
        float32 or float64, of the first patterns and values; sums are float64.
    n_patterns : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((1000, 8))
    >>> state = RandomFeatures(64).state(X[:10], beta=0.1)
    >>> state.add(X[10:])
    >>> state.n_patterns, state.update(X[:3]).shape
    (1000, (3, 8))
    """

    def __init__(
        self, structure: Features, d: int, v: int | None, beta: float, similarity: str, dtype: np.dtype[Any]
    ) -> None:
        similarity_code(similarity)
        self.structure, self.beta, self.similarity, self.dtype = structure, beta, similarity, dtype
        self.n_patterns = 0
        self._longest = 0.0
        self._d, self._v = d, v
        self._map = structure._map(d, beta, similarity)
        self._top: Floats = np.full(self._map.size, -np.inf)
        self._total: Floats = np.zeros(self._map.size)
        self._sum: Floats = np.zeros((self._map.size, d if v is None else v))

    def __repr__(self) -> str:
        options = f"beta={self.beta:g}, similarity={self.similarity!r}"
        return f"<FeatureState of {self.n_patterns} patterns: {self.structure!r}, {options}>"

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        return self._sum.nbytes + self._total.nbytes + self._top.nbytes

    def add(self, patterns: ArrayLike, values: ArrayLike | None = None) -> None:
        """Add patterns; the state stays as it was if an error is raised.

        Parameters
        ----------
        patterns : array_like, shape (M, d)
        values : array_like, shape (M, v)
            If, and only if, the state was made with values.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault.
        """
        rows = as_patterns("patterns", patterns)
        if rows.shape[1] != self._d:
            raise ValueError(f"patterns: must have the state's {self._d} columns, got shape {rows.shape}")
        v = as_values(values, len(rows))
        if (v is None) != (self._v is None):
            raise ValueError("values: needed, as the state has values" if v is None else "values: the state has none")
        if v is not None and v.shape[1] != self._v:
            raise ValueError(f"values: must have the state's {self._v} columns, got shape {v.shape}")
        more = self._with(rows, v, 1.0, True)
        self.__dict__.update(more.__dict__)

    def merge(self, other: FeatureState) -> FeatureState:
        """The state of the patterns of both, which stay as they are.

        Parameters
        ----------
        other : FeatureState
            Of the same structure, beta, similarity, dtype and shapes.

        Returns
        -------
        FeatureState

        Raises
        ------
        ValueError, TypeError
            If they do not belong together.
        """
        if not isinstance(other, FeatureState):
            raise TypeError(f"other: must be a FeatureState, got {type(other).__name__}")
        for what in ("structure", "beta", "similarity", "dtype", "_d", "_v"):
            mine, its = getattr(self, what), getattr(other, what)
            if mine != its:
                name = {"_d": "features of a pattern", "_v": "columns of values"}.get(what, what)
                raise ValueError(f"other: differs in {name}: {its} is not {mine}")
        both = self._copy()
        both._rise(other._top)
        with np.errstate(under="ignore", invalid="ignore"):
            shrink = _shrink(other._top, both._top)
            both._total += shrink * other._total
            both._sum += shrink[:, None] * other._sum
        both.n_patterns += other.n_patterns
        both._longest = max(both._longest, other._longest)
        return both

    def update(self, queries: ArrayLike) -> Array:
        """One retrieval step over all patterns added so far, also where the structure is causal.

        Parameters
        ----------
        queries : array_like, shape (..., d)

        Returns
        -------
        ndarray, shape (..., v)
            float64 if the queries or the state are, else float32.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault.
        """
        given = as_queries(queries, self._d)
        dtype = np.result_type(compute_dtype(given), self.dtype)
        rows = np.ascontiguousarray(given, dtype=dtype).reshape(-1, self._d)
        out = np.empty((len(rows), self._sum.shape[1]), dtype)
        self._answer(rows, out)
        return out.reshape(*given.shape[:-1], out.shape[1])

    # --- what the package computes with ---

    def _copy(self) -> FeatureState:
        """Another state of the same patterns."""
        other = copy.copy(self)
        other._top, other._total, other._sum = self._top.copy(), self._total.copy(), self._sum.copy()
        return other

    def _with(
        self, patterns: Array, values: Array | None, scale: float, check_values: bool, first: int = 0
    ) -> FeatureState:
        """The state of these patterns, from the first on, and those that are there; this one stays as it is."""
        other = self._copy()
        with np.errstate(under="ignore", over="ignore", invalid="ignore"):
            for _, rows, v in other._blocks(patterns, values, scale, check_values, BLOCK, first):
                other._fold(other._scaled(*other._map.patterns(rows)), v)
                other._longest = max(other._longest, _largest_length(rows))
        if not np.isfinite(other._total).all() or (check_values and not np.isfinite(other._sum).all()):
            raise OverflowError(f"patterns: their sums exceed the largest {self.dtype}; scale the arrays down")
        return other

    def _rise(self, top: Floats) -> None:
        """Count in units of exp(top), where that is more than it was."""
        top = np.maximum(self._top, top)
        shrink = _shrink(self._top, top)
        if (shrink != 1).any():
            self._total *= shrink
            self._sum *= shrink[:, None]
        self._top = top

    def _fold(self, phi: Array, values: Array) -> None:
        """Add patterns whose features, in units of exp(top), are there."""
        self._total += phi.sum(axis=0, dtype=np.float64)
        self._sum += _times(phi.T, values)
        self.n_patterns += len(phi)

    def _scaled(self, exponent: Floats | None, factor: Array | None) -> Array:
        """Features of patterns in units of exp(top), which they raise."""
        if exponent is None:
            assert factor is not None
            self._top = np.zeros(len(self._top))
            return factor
        self._rise(exponent.max(axis=0))
        exponent -= self._top
        phi = np.exp(exponent.astype(self.dtype, copy=False))
        return phi if factor is None else np.multiply(phi, factor, out=phi)

    def _blocks(
        self, patterns: Array, values: Array | None, scale: float, check_values: bool, step: int, start: int = 0
    ) -> Iterator[tuple[slice, Array, Array]]:
        """(place, rows, values) of some patterns at a time, from `start` on, checked."""
        for first in range(start, len(patterns), step):
            at = slice(first, first + step)
            rows = np.ascontiguousarray(patterns[at], dtype=self.dtype)
            if scale != 1:
                rows = rows * self.dtype.type(scale)
            if self.similarity == "cosine":
                _sound("patterns", rows, first)
                rows = _unit(rows, first).astype(self.dtype, copy=False)
            _sound("patterns", rows, first, self.beta)
            if values is None:
                v = rows
            else:
                v = np.ascontiguousarray(values[at], dtype=self.dtype)
                if check_values:
                    _sound("values", v, first)
            yield at, rows, v

    def _answer(self, rows: Array, out: Array) -> None:
        """T of rows, into out."""
        dtype = out.dtype
        with np.errstate(under="ignore", over="ignore", invalid="ignore", divide="ignore"):
            means = np.where(self._total[:, None] > 0, self._sum / self._total[:, None], 0).astype(dtype)
            weight = self._top + np.log(self._total)
            share = self._total / max(float(self._total.max()), np.finfo(np.float64).tiny)
            for first in range(0, len(rows), BLOCK):
                at = slice(first, first + BLOCK)
                _sound("queries", rows[at], first, self.beta)
                exponent, factor = self._map.queries(rows[at])
                if exponent is None:
                    assert factor is not None
                    w = _normed(factor * share).astype(dtype)
                else:
                    exponent += weight
                    exponent -= exponent.max(axis=1, keepdims=True)
                    w = np.exp(exponent.astype(dtype, copy=False))
                    w = _normed(w if factor is None else np.multiply(w, factor, out=w))
                _times(w, means, out=out[at])

    def _answer_causal(
        self, queries: Array, patterns: Array, values: Array | None, scale: float, check_values: bool, out: Array
    ) -> None:
        """Add the patterns one after the other, and ask query i when pattern i is there."""
        with np.errstate(under="ignore", over="ignore", invalid="ignore"):
            for at, rows, v in self._blocks(patterns, values, scale, check_values, CAUSAL_BLOCK):
                _sound("queries", queries[at], at.start, self.beta)
                self._causal_block(queries[at], rows, v, out[at])
        if check_values and not np.isfinite(out).all():
            raise OverflowError(f"patterns: their sums exceed the largest {self.dtype}; scale the arrays down")

    def _causal_block(self, queries: Array, rows: Array, values: Array, out: Array) -> None:
        own, factor = self._map.queries(queries)
        exponent, factor_of_patterns = self._map.patterns(rows)
        before = self._top, self._total, self._sum.copy()
        self._total = self._total.copy()
        phi = self._scaled(exponent, factor_of_patterns)
        if own is None:
            assert factor is not None
            ask = _normed(factor)
        else:
            own += self._top
            own -= own.max(axis=1, keepdims=True)
            ask = np.exp(own.astype(self.dtype, copy=False))
            ask = ask if factor is None else np.multiply(ask, factor, out=ask)
        pairs = np.tril(_times(ask, phi.T))
        total = pairs.sum(axis=1) + _times(ask, self._total.astype(self.dtype))
        if own is not None and len(rows) > 1 and not total.min() >= FAINT[self.dtype]:
            self._top, self._total, self._sum = before
            half = len(rows) // 2
            for part in (slice(half), slice(half, None)):
                self._causal_block(queries[part], rows[part], values[part], out[part])
            return
        if not np.isfinite(total).all():
            raise OverflowError(f"patterns: their kernels exceed the largest {self.dtype}; scale the arrays down")
        mixed = _times(pairs, values) + _times(ask, self._sum.astype(self.dtype))
        out[...] = np.where(total[:, None] > 0, mixed / np.where(total > 0, total, 1)[:, None], 0)
        self._fold(phi, values)


def _shrink(old: Floats, new: Floats) -> Floats:
    """exp(old - new), where -inf is the exponent of nothing."""
    with np.errstate(under="ignore", invalid="ignore"):
        return np.where(old == new, 1.0, np.exp(old - new))


def _largest_length(rows: Array) -> float:
    return float(np.linalg.norm(rows.astype(np.float64), axis=1).max())


def _normed(w: Array) -> Array:
    """Rows divided by their sums; rows of zeros stay."""
    total = w.sum(axis=1, keepdims=True)
    return np.divide(w, np.where(total > 0, total, 1), out=w)


def _unit(rows: Array, first: int) -> Floats:
    largest = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64)
    if not largest.all():
        raise ValueError(f"patterns: row {first + largest[:, 0].argmin()} has length 0, which has no cosine similarity")
    unit = rows / largest  # so that no square underflows
    return unit / np.linalg.norm(unit, axis=1, keepdims=True)


def _sound(name: str, rows: Array, first: int, beta: float = 0.0) -> None:
    """Refuse rows whose squared lengths, or exponents at this beta, cannot be computed with."""
    with np.errstate(over="ignore", invalid="ignore"):
        longest = float(np.einsum("ij,ij->i", rows, rows).max(initial=0))
    if not longest < np.inf:
        if not (finite := np.isfinite(rows).all(axis=1)).all():
            row = first + finite.argmin()
            raise ValueError(f"{name}: row {row} contains NaN or infinity; every entry must be finite")
        with np.errstate(over="ignore"):
            squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        longest = float(squares.max())
        if longest == np.inf:
            row = first + squares.argmax()
            raise OverflowError(f"{name}: the squared length of row {row} exceeds the largest float64")
    if beta * longest > (most := MOST[rows.dtype]):
        raise OverflowError(f"beta: {beta:g} times the squared length of {name} exceeds {most:g}")


def _one(beta: ArrayLike) -> float:
    if as_numbers("beta", beta).ndim:
        raise ValueError(f"beta: must be one number, as patterns' features depend on it, got shape {np.shape(beta)}")
    return float(as_beta(beta, ())[0])


# --- as a structure of the package's operations ----------------------------------------------------------------------


class Steps:
    """The updates of one call, by features."""

    def __init__(self, stored: Stored, asked: Asked) -> None:
        structure = asked.structure
        assert isinstance(structure, Features)
        if asked.code != SEPARATIONS["softmax"]:
            raise ValueError(
                f"separation: {structure._name} stands in for softmax's kernel, pass separation='softmax'; other maps "
                "are no quotient of sums over patterns"
            )
        if asked.beta.size != 1:
            raise ValueError(
                f"beta: features of patterns depend on it, so {structure._name} needs one number for all queries"
            )
        n, m = len(asked.rows), len(stored.patterns)
        if structure.causal and n != m:
            raise ValueError(f"queries: causal features need as many queries as patterns ({m}), got {n}")
        self.stored, self.structure, self.dtype = stored, structure, asked.rows.dtype
        self.beta = float(asked.beta[0])
        self.seen = np.arange(1, m + 1) if structure.causal else np.full(n, m)
        self.states: dict[bool, FeatureState] = {}

    def _empty(self, values: Array | None) -> FeatureState:
        d, v = self.stored.patterns.shape[1], None if values is None else values.shape[1]
        return FeatureState(self.structure, d, v, self.beta, self.stored.similarity, self.dtype)

    def into(self, rows: Array, out: Array) -> None:
        """One update of rows (all of them, where causal): of the values, if there are any."""
        self._into(rows, out, values=self.stored.values is not None)

    def _into(self, rows: Array, out: Array, *, values: bool) -> None:
        s = self.stored
        v = s.values if values else None
        if self.structure.causal:
            self._empty(v)._answer_causal(rows, s.patterns, v, s.scale, s.check_finite, out)
            return
        self._state(values)._answer(rows, out)

    def _state(self, values: bool) -> FeatureState:
        """The state of the patterns, and of values or not: kept with them, so that it is made once."""
        s, kept = self.stored, self.stored.features
        if values not in self.states:
            model = self.structure, self.beta
            key = (*model, self.dtype, values)
            v = s.values if values else None
            state = kept.get(key) or self._empty(v)
            if state.n_patterns < len(s.patterns):  # those that were added since
                state = state._with(s.patterns, v, s.scale, s.check_finite, state.n_patterns)
            for other in list(kept):
                if other[:2] != model:
                    kept.pop(other, None)  # of one model at a time, however often beta changes
            self.states[values] = kept[key] = state
        return self.states[values]

    def _longest(self) -> float:
        """The largest length of a pattern as scores see it."""
        if self.stored.similarity == "cosine":
            return 1.0
        if not self.structure.causal:
            return self._state(False)._longest
        blocks = self._empty(None)._blocks(self.stored.patterns, None, self.stored.scale, False, BLOCK)
        return max(_largest_length(rows) for _, rows, _ in blocks)

    def retrieve(
        self, rows: Array, max_steps: int, tol: float, states: Array, before: Array | None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Updates until rest, into states; before: where each query was at its last update."""
        n = len(rows)
        states[...] = rows
        steps, converged = np.zeros(n, np.int64), np.zeros(n, np.bool_)
        reach = tol * self._longest()
        for _ in range(max_steps):
            moving = np.flatnonzero(~converged)
            if not len(moving):
                break
            old = states[moving]
            if self.structure.causal:
                everywhere = np.empty_like(states)
                self._into(states, everywhere, values=False)
                new = everywhere[moving]
            else:
                new = np.empty_like(old)
                self._into(old, new, values=False)
            if before is not None:
                before[moving] = old
            converged[moving] = np.linalg.norm(new.astype(np.float64) - old, axis=1) <= reach
            states[moving] = new
            steps[moving] += 1
        return steps, converged, np.where(steps > 0, self.seen, 0)
