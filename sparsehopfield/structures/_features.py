"""Structures whose kernel is a product of features, k(x, xi) = <phi(x), phi(xi)>: D sums stand for all patterns.

T(x) = sum_j k(x, xi_j) v_j / sum_j k(x, xi_j) needs of the patterns only S = sum_j phi(xi_j) v_j^T, (D, v), and
z = sum_j phi(xi_j), (D,). Both are in units of exp(top), top (D,) the largest exponents of features so far, so that
neither over- nor underflows; csrc/features/features.c says how.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import (
    INT_MAX,
    Array,
    as_exact,
    as_float_dtype,
    as_patterns,
    as_positive_numbers,
    as_queries,
    as_values,
    as_whole,
    as_widened_rows,
    compute_dtype,
    contiguous,
    ignoring_float_errors,
)
from sparsehopfield._engine.pattern_set import TYPE_CODES, PatternSet
from sparsehopfield._engine.separations import as_choice, similarity_code
from sparsehopfield._engine.structure import Cost
from sparsehopfield._engine.text import short
from sparsehopfield.structures import _feature_association
from sparsehopfield.structures._feature_map import (
    BLOCK,
    CAUSAL_BLOCK,
    ELU,
    LEAST_NORMALISER,
    PARTS,
    RANDOM,
    RELU,
    FeatureStructure,
    Floats,
    Map,
)

__all__ = ["FeatureState", "Features", "LinearFeatures", "RandomFeatures"]


def _parts(n: int, block: int) -> int:
    """Return the rows of each of the parts that n rows are cut into."""
    return max((n + PARTS * block - 1) // (PARTS * block), 1) * block


@dataclass(frozen=True)
class Features(FeatureStructure):
    """The base of the structures whose weights are proportional to <phi(x), phi(xi)>."""

    def association(self) -> Any:
        return _feature_association

    def _executor(self, pattern_set: PatternSet, rows: Array, beta: Floats, code: tuple[int, float]) -> FeatureExecutor:
        """Return what carries out a call of rows (N, d) by sums over features."""
        return FeatureExecutor(self, pattern_set, rows, beta, code)

    def state(
        self, patterns: ArrayLike, values: ArrayLike | None = None, beta: ArrayLike = 1.0, *, similarity: str = "dot"
    ) -> FeatureState:
        """Return the sums that stand for these patterns, to which more can be added.

        Parameters
        ----------
        patterns : array_like, shape (M, d)
            One row a pattern.
        values : array_like, shape (M, v), optional
            What is mixed; the patterns themselves by default.
        beta : float, positive
            Inverse temperature, the same for all queries, as the patterns' features depend on it.
        similarity : {"dot", "euclidean", "cosine"}
            As for `sparsehopfield.update`; LinearFeatures has no euclidean.

        Returns
        -------
        FeatureState
            With no more than the sums in it.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.structures.FeatureState : What is returned, and can be added to.

        Examples
        --------
        >>> import numpy as np
        >>> LinearFeatures().state(np.eye(2)).update([[1.0, 0.0]]).round(3)
        array([[0.556, 0.444]])
        """
        rows = as_patterns("patterns", patterns)
        v = as_values(values, len(rows))
        state = FeatureState(
            self, rows.shape[1], None if v is None else v.shape[1], beta, similarity, compute_dtype(rows, v)
        )
        state._take(rows, v, 1.0, True)
        return state

    def cost(self, n: int, m: int, d: int) -> Cost:
        """Return what one update of n queries over m patterns of d features takes.

        Parameters
        ----------
        n, m, d : int, at least 1
            How many queries and patterns there are (as many of both if `causal`), and how many features each has.

        Returns
        -------
        Cost
            Linear in n + m, and in the number of features D: 2 (n + m) D d multiplications for RandomFeatures, half of
            it for LinearFeatures, with D = d. Causal blocks add their pairs, and a pass over the patterns. Memory for
            two threads.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.structures.Pairs.cost : Return the same of structures that compute pairs.

        Examples
        --------
        >>> RandomFeatures(256).cost(65_536, 65_536, 64).multiplications == 2 * (65_536 + 65_536) * 256 * 64
        True
        """
        n, m, d = as_whole("n", n, 1), as_whole("m", m, 1), as_whole("d", d, 1)
        size = self._size(d)
        multiplications = (n + m) * (self._projected(d) + size * d)
        state, block = 8 * size * (d + 2), BLOCK
        if self.causal:
            if n != m:
                raise ValueError(f"n: causal features need as many queries as patterns, got {n} and {m}")
            block = CAUSAL_BLOCK
            full, rest = divmod(n, block)
            multiplications += (full * block**2 + rest**2) * (size + d) + n * size
            # sums that parts begin with: one more pass over all parts but the last
            ahead = (n - 1) // _parts(n, block) * _parts(n, block)
            multiplications += ahead * (self._projected(d) + size * d)
        # the states of the parts and of the whole, the projection, the means; of each of two threads a block's
        # features, of random ones their exponents and rows in float64, and a product
        memory = (min(-(-m // _parts(m, block)), PARTS) + 2) * state + 8 * self._projected(d) + 4 * size * d
        memory += 2 * (block * (4 * size + 12 * d + (8 * (size + d) if self._projected(d) else 0)) + 4 * size * d)
        if self.causal:
            memory += 2 * block * (4 * size + 4 * block)
        return Cost(multiplications, memory)


def log_kernel(structure: Features, x: Floats, rows: Floats, beta: float, similarity: str) -> Floats:
    """Compute log <phi(x), phi(rows)>, (N, M), also where the kernel itself is below the smallest float64.

    Under cosine similarity both are to have length 1. -inf where no feature is shared.
    """
    own, other = np.split(log_features(structure, np.concatenate([x, rows]), beta, similarity), [len(x)])
    with ignoring_float_errors():
        out = np.empty((len(x), len(rows)))
        for i, one in enumerate(own):
            terms = other + one
            top = terms.max(axis=1)
            top[np.isneginf(top)] = 0
            out[i] = np.log(np.exp(terms - top[:, None]).sum(axis=1)) + top
        return out


@ignoring_float_errors()
def log_features(structure: Features, a: Floats, beta: float, similarity: str) -> Floats:
    """Compute log phi(a), (N, D), of rows in float64."""
    of_map = structure._map(a.shape[1], beta, similarity)
    if of_map.code == RANDOM:
        assert of_map.projection is not None
        lengths = (a**2).sum(axis=1)[:, None]
        return np.asarray(a @ of_map.projection.T - of_map.bias * lengths - np.log(of_map.size) / 2)
    a = of_map.beta**0.5 * a
    above = np.maximum(a, 0)
    return np.asarray(np.log(above) if of_map.code == RELU else np.minimum(a, 0) + np.log1p(above))


@dataclass(frozen=True)
class LinearFeatures(Features):
    """Linear attention: weights proportional to <phi(sqrt(beta) x), phi(sqrt(beta) xi)>, phi one number a feature.

    Takes the place of softmax's kernel exp(beta <x, xi>): `separation` must be "softmax". One update takes
    O((N + M) d v), and no N x M array is made. **It is no memory**: its weights are nearly equal, and a stored pattern
    is no fixed point at any beta, see `sparsehopfield.theory.structures.kernel_displacement`.

    Parameters
    ----------
    kind : {"elu+1", "relu"}
        phi(x) = exp(x) for x <= 0, 1 + x for x > 0; or max(x, 0), where beta cancels.
    causal : bool
        Whether query i sees patterns 0 to i only; there must be as many queries as patterns.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.structures.RandomFeatures : Features whose weights come near softmax's.
    sparsehopfield.theory.structures.kernel_displacement : Compute how far an update moves stored patterns.

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
        as_choice("kind", self.kind, ("elu+1", "relu"))

    def _size(self, d: int) -> int:
        return d

    def _map(self, d: int, beta: float, similarity: str) -> Map:
        if similarity == "euclidean":
            raise ValueError("similarity: the kernel of LinearFeatures has no place for euclidean's bias -|xi|^2/2")
        return Map(ELU if self.kind == "elu+1" else RELU, d, beta, None, 0.0)


_STEP = 2**32  # multiplications of one call of NumPy, a fraction of a second: between two, Ctrl-C is heard


def _normal(rng: np.random.Generator, n: int, d: int) -> Floats:
    """Return n rows of d normal numbers, drawn some rows at a time."""
    w = np.empty((n, d))
    rows = max(1, 2**22 // d)
    for first in range(0, n, rows):
        rng.standard_normal(out=w[first : first + rows])
    return w


def _orthogonal(a: Floats) -> Floats:
    """Return Q of a square matrix's QR decomposition with a positive diagonal of R, some columns at a time.

    Each block of columns is made orthogonal to those before it twice, which is enough where the matrix is as good as
    a normal one.
    """
    d = len(a)
    q = np.empty_like(a)
    columns = min(128, max(1, _STEP // d**2))
    for first in range(0, d, columns):
        done, block = q[:, :first], a[:, first : first + columns]
        for _ in range(2):
            block = block - done @ (done.T @ block)
        block, r = np.linalg.qr(block)
        q[:, first : first + columns] = block * np.sign(np.diag(r))
    return q


@dataclass(frozen=True)
class RandomFeatures(Features):
    """Positive random features: weights whose kernel is, on average, softmax's exp(beta <x, xi>).

    phi(x) = exp(sqrt(beta) W x - beta |x|^2/2) / sqrt(D) with normal W, (D, d). `separation` must be "softmax", the
    only map whose kernel this is. One update takes O((N + M) D (d + v)), and no N x M array is made. **Exact retrieval
    is out of reach**: where it begins, D would have to exceed exp(4 beta |xi|^2), see
    `sparsehopfield.theory.structures.features_needed`.

    Parameters
    ----------
    n_features : int, from 1 to 2**31 - 1
        How many features D there are. The kernel's error falls as 1 / sqrt(D); time and memory grow with D.
    seed : int, at least 0
        W is drawn from it alone: the same for every call and beta.
    causal : bool
        Whether query i sees patterns 0 to i only; there must be as many queries as patterns.
    orthogonal : bool
        Whether rows of W are orthogonal in groups of d. Each is normal for itself, so that the kernel stays unbiased;
        its variance is in practice a little smaller.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.structures.LinearFeatures : One number a feature, cheaper and flatter.
    sparsehopfield.theory.structures.features_needed : Compute how many features a wanted error takes.

    Notes
    -----
    All similarities: the bias of "euclidean" goes into the patterns' exponents. beta must be one number. The kernel is
    unbiased, the quotient that is the update is so only as D grows. There is no energy: the update is no gradient map.
    `support_size` of a retrieval counts all patterns seen. A common shift of patterns and queries, which changes no
    euclidean score, does change the estimate: its variance grows as exp(beta |x + xi|^2), so take a common centre off
    first.

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
        object.__setattr__(self, "n_features", as_whole("n_features", self.n_features, 1, INT_MAX))
        object.__setattr__(self, "seed", as_whole("seed", self.seed, 0))
        if not isinstance(self.orthogonal, (bool, np.bool_)):
            raise TypeError(f"orthogonal: must be True or False, got {short(self.orthogonal)}")
        object.__setattr__(self, "orthogonal", bool(self.orthogonal))

    @classmethod
    def sized(cls, pairs: int, m: int, places: NDArray[np.int64] | None = None, seed: int = 0) -> RandomFeatures:
        return cls(pairs, seed)

    def _size(self, d: int) -> int:
        return self.n_features

    def _projected(self, d: int) -> int:
        return self.n_features * d

    def projection(self, d: int) -> Floats:
        """Return W, for patterns of d features.

        Parameters
        ----------
        d : int, at least 1
            How many features a pattern has.

        Returns
        -------
        ndarray of float64, shape (n_features, d)
            One row a random feature.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.theory.structures.feature_relative_variance : Compute the variance of the kernel that W gives.

        Examples
        --------
        >>> W = RandomFeatures(4, seed=1).projection(2)
        >>> W.shape, bool(abs(W[0] @ W[1]) < 1e-12)  # orthogonal in groups of two
        ((4, 2), True)
        """
        rng = np.random.default_rng(self.seed)
        w = _normal(rng, self.n_features, as_whole("d", d, 1))
        if self.orthogonal:
            lengths = np.linalg.norm(w, axis=1, keepdims=True)
            for first in range(0, self.n_features, d):
                # Q of a normal matrix is uniform among orthogonal ones where R's diagonal is positive; its rows are
                # then independent of the lengths, which come from a draw of their own.
                w[first : first + d] = _orthogonal(_normal(rng, d, d))[: self.n_features - first]
            w *= lengths
        return w

    def _map(self, d: int, beta: float, similarity: str) -> Map:
        bias = beta if similarity == "euclidean" else beta / 2  # of queries it cancels
        return Map(RANDOM, self.n_features, beta, beta**0.5 * self.projection(d), bias)


class FeatureState:
    """The sums that stand for any number of patterns: made by `LinearFeatures.state` and `RandomFeatures.state`.

    Of D features and values of v columns it holds D (v + 2) numbers, and adding a pattern takes O(D (d + v)), however
    many there are. Patterns cannot be taken out: a difference of sums loses the digits of what is left, so build the
    state anew from the patterns that stay.

    Parameters
    ----------
    structure : LinearFeatures or RandomFeatures
        Whose features are summed.
    d : int, at least 1
        How many features a pattern has.
    v : int, at least 1, or None
        How many columns values have; None: the patterns themselves are mixed.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        As for `sparsehopfield.update`; LinearFeatures has no euclidean.
    dtype : {float32, float64}
        Of the patterns and values.

    Attributes
    ----------
    structure : LinearFeatures or RandomFeatures
        Whose features are summed.
    beta : float
        Inverse temperature.
    similarity : str
        What the scores are.
    dtype : dtype
        float32 or float64, of the first patterns and values; sums are float64.
    n_patterns : int
        How many patterns the sums stand for.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.HopfieldMemory : Keep the patterns, and retrieve exactly.

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
        self, structure: Features, d: int, v: int | None, beta: ArrayLike, similarity: str, dtype: np.dtype[Any]
    ) -> None:
        if not isinstance(structure, Features):
            raise TypeError(f"structure: must be one of features, got {short(structure)}")
        similarity_code(similarity)
        dtype = as_float_dtype(dtype)
        d, v = as_whole("d", d, 1), None if v is None else as_whole("v", v, 1)
        self.structure, self.beta, self.similarity, self.dtype = structure, _one(beta), similarity, dtype
        self.n_patterns = 0
        self.measured = 0, 0.0  # so many of the patterns are at most so long; `FeatureExecutor` asks
        self._d, self._v = d, v
        self._map = structure._map(d, self.beta, similarity)
        self._top: Floats = np.full(self._map.size, -np.inf)
        self._total: Floats = np.zeros(self._map.size)
        self._sum: Floats = np.zeros((self._map.size, d if v is None else v))

    def __repr__(self) -> str:
        options = f"beta={self.beta:g}, similarity={self.similarity!r}"
        return f"<FeatureState of {self.n_patterns} patterns: {self.structure!r}, {options}>"

    @property
    def nbytes(self) -> int:
        """Return the bytes of the sums."""
        return self._sum.nbytes + self._total.nbytes + self._top.nbytes

    def add(self, patterns: ArrayLike, values: ArrayLike | None = None) -> None:
        """Add patterns; the state stays as it was if an error is raised.

        Parameters
        ----------
        patterns : array_like, shape (M, d)
            One row a pattern.
        values : array_like, shape (M, v), optional
            What is mixed: needed if the state was made with values, else refused.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.structures.FeatureState.merge : Join two states.

        Examples
        --------
        >>> import numpy as np
        >>> state, whole = LinearFeatures().state(np.eye(3)[:1]), LinearFeatures().state(np.eye(3))
        >>> state.add(np.eye(3)[1:])
        >>> state.n_patterns, bool(np.allclose(state.update(np.eye(3)), whole.update(np.eye(3))))
        (3, True)
        """
        rows = as_patterns("patterns", patterns)
        if rows.shape[1] != self._d:
            raise ValueError(f"patterns: must have the state's {self._d} columns, got shape {rows.shape}")
        v = as_values(values, len(rows))
        if (v is None) != (self._v is None):
            raise ValueError("values: needed, as the state has values" if v is None else "values: the state has none")
        if v is not None and v.shape[1] != self._v:
            raise ValueError(f"values: must have the state's {self._v} columns, got shape {v.shape}")
        as_exact("patterns", rows, self.dtype)
        if v is not None:
            as_exact("values", v, self.dtype)
        more = self._with(rows, v, 1.0, True)
        self.__dict__.update(more.__dict__)

    def merge(self, other: FeatureState) -> FeatureState:
        """Return the state of the patterns of both states, which stay as they are.

        Parameters
        ----------
        other : FeatureState
            Of the same structure, beta, similarity and dtype, and of patterns and values with as many columns.

        Returns
        -------
        FeatureState
            A new state.

        Raises
        ------
        ValueError, TypeError
            If they do not belong together.

        See Also
        --------
        sparsehopfield.structures.FeatureState.add : Add patterns to a state.
        sparsehopfield.merge : Join the weights of shards exactly, where patterns are kept.

        Examples
        --------
        >>> import numpy as np
        >>> here, there = LinearFeatures().state(np.eye(3)[:1]), LinearFeatures().state(np.eye(3)[1:])
        >>> here.merge(there).n_patterns, here.n_patterns
        (3, 1)
        """
        if not isinstance(other, FeatureState):
            raise TypeError(f"other: must be a FeatureState, got {type(other).__name__}")
        for what in ("structure", "beta", "similarity", "dtype", "_d", "_v"):
            mine, its = getattr(self, what), getattr(other, what)
            if mine != its:
                name = {"_d": "features of a pattern", "_v": "columns of values"}.get(what, what)
                raise ValueError(f"other: differs in {name}: {its} is not {mine}")
        both = copy.copy(self)
        both._top = np.maximum(self._top, other._top)
        mine, its = _rescale_factor(self._top, both._top), _rescale_factor(other._top, both._top)
        with ignoring_float_errors():
            both._total = mine * self._total + its * other._total
            both._sum = mine[:, None] * self._sum + its[:, None] * other._sum
        both.n_patterns += other.n_patterns
        return both

    def update(self, queries: ArrayLike) -> Array:
        """Make one retrieval step over all patterns added so far, also where the structure is causal.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.

        Returns
        -------
        ndarray, shape (..., v)
            float64 if the queries or the state are, else float32.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.update : Make the step from patterns, under any structure.

        Examples
        --------
        >>> import numpy as np
        >>> state = LinearFeatures().state(np.eye(2), values=[[0.0], [9.0]])
        >>> state.update([[1.0, 0.0], [0.0, 1.0]])
        array([[4.],
               [5.]])
        """
        given = as_queries(queries, self._d)
        dtype = np.result_type(compute_dtype(given), self.dtype)
        rows = contiguous(given, dtype).reshape(-1, self._d)
        out = np.empty((len(rows), self._sum.shape[1]), dtype)
        self._answer(rows, out)
        return out.reshape(*given.shape[:-1], out.shape[1])

    # --- what the package computes with ---

    def _copy(self) -> FeatureState:
        """Return another state of the same patterns."""
        other = copy.copy(self)
        other._top, other._total, other._sum = (a.copy() for a in self._state)
        return other

    def _with(
        self, patterns: Array, values: Array | None, scale: float, check_values: bool, first: int = 0
    ) -> FeatureState:
        """Return the state of this one's patterns and of those given, from number `first` on."""
        other = self._copy()
        other._take(patterns[first:], None if values is None else values[first:], scale, check_values)
        return other

    @property
    def _state(self) -> tuple[Floats, Floats, Floats]:
        """Return top, total and sum, as the core takes them."""
        return self._top, self._total, self._sum

    def _stored(self, patterns: Array, values: Array | None, scale: float, check_values: bool) -> tuple[Any, ...]:
        """Return patterns and values as the core takes them."""
        rows = as_widened_rows(patterns, self.dtype), None if values is None else as_widened_rows(values, self.dtype)
        return self.similarity == "cosine", *rows, scale, bool(check_values)

    def _take(self, patterns: Array, values: Array | None, scale: float, check_values: bool) -> None:
        """Add patterns to this state."""
        stored = self._stored(patterns, values, scale, check_values)
        _core.features_add(*self._map, *stored, TYPE_CODES[self.dtype], *self._state)
        if not np.isfinite(self._total).all() or (check_values and not np.isfinite(self._sum).all()):
            raise OverflowError(f"patterns: their sums exceed the largest {self.dtype}; scale the arrays down")
        self.n_patterns += len(patterns)

    def _answer(self, rows: Array, out: Array) -> None:
        """Compute T of rows, into out."""
        _core.features_mix(*self._map, *self._state, rows, out)

    def _answer_causal(
        self, queries: Array, patterns: Array, values: Array | None, scale: float, check_values: bool, out: Array
    ) -> None:
        """Compute T of query i over patterns 0 to i, into out; the state is not used."""
        stored = self._stored(patterns, values, scale, check_values)
        _core.features_causal(*self._map, *stored, queries, LEAST_NORMALISER[self.dtype], out)


def _rescale_factor(old: Floats, new: Floats) -> Floats:
    """Return exp(old - new), what sums in units of exp(old) are multiplied by; 1 where both are -inf, of nothing."""
    with ignoring_float_errors():
        return np.where(old == new, 1.0, np.exp(old - new))


def _one(beta: ArrayLike) -> float:
    """Return beta, checked to be one number."""
    b = as_positive_numbers("beta", beta)
    if b.ndim:
        raise ValueError(f"beta: must be one number, as patterns' features depend on it, got {short(beta)}")
    return float(b)


# --- as a structure of the package's operations ----------------------------------------------------------------------


class FeatureExecutor:
    """The updates of one call, by features."""

    def __init__(
        self, structure: Features, stored: PatternSet, rows: Array, beta: Floats, code: tuple[int, float]
    ) -> None:
        self.structure, self.stored, self.dtype, self.code = structure, stored, rows.dtype, code
        self.betas, self.beta = beta, float(beta.flat[0]) if beta.size else 1.0
        self.states: dict[bool, FeatureState] = {}

    def refuse(self, operation: str) -> None:
        """Raise, as features have no list of weights."""
        self.structure.refuse(operation)

    def _check(self, n: int) -> None:
        """Raise unless features have an update of n queries under this model."""
        self.structure._refuse_maps(self.code)
        if self.betas.size != 1:
            raise ValueError(
                f"beta: features of patterns depend on it, so {self.structure._name} needs one number for all queries"
            )
        if self.structure.causal and n != len(self.stored):
            raise ValueError(f"queries: causal features need as many queries as patterns ({len(self.stored)}), got {n}")

    def _empty(self, values: Array | None) -> FeatureState:
        """Return a state of no patterns."""
        d, v = self.stored.shape[1], None if values is None else values.shape[1]
        return FeatureState(self.structure, d, v, self.beta, self.stored.similarity, self.dtype)

    def update(self, rows: Array, out: Array) -> None:
        """Write one update of rows (N, d) to out (N, v): a mixture of the values, or of the patterns without any."""
        self._check(len(rows))
        self._into(rows, out, values=self.stored.value_storage is not None)

    def _into(self, rows: Array, out: Array, *, values: bool) -> None:
        s = self.stored
        v = s.values if values else None
        if self.structure.causal:
            self._empty(v)._answer_causal(rows, s.patterns, v, s.scale, s.check_finite, out)
            return
        self._state(values)._answer(rows, out)

    def _state(self, values: bool) -> FeatureState:
        """Return the state of the patterns, and of values or not: kept with them, so that it is made once."""
        s, kept = self.stored, self.stored.feature_states
        if values not in self.states:
            model = self.structure, self.beta
            key = (*model, self.dtype, values)
            v = s.values if values else None
            state = kept.get(key) or self._empty(v)
            if state.n_patterns < len(s):  # those that were added since
                state = state._with(s.patterns, v, s.scale, s.check_finite, state.n_patterns)
            for other in list(kept):
                if other[:2] != model:
                    kept.pop(other, None)  # of one model at a time, however often beta changes
            self.states[values] = kept[key] = state
        return self.states[values]

    def _longest(self) -> float:
        """Return the largest length of a pattern; 1 under cosine similarity."""
        if self.stored.similarity == "cosine":
            return 1.0
        if self.structure.causal:
            return self._longest_from(0, 0.0)
        state = self._state(False)
        if state.measured[0] < len(self.stored):
            state.measured = len(self.stored), self._longest_from(*state.measured)
        return state.measured[1]

    @ignoring_float_errors()
    def _longest_from(self, begin: int, longest: float) -> float:
        """Return the largest of the lengths of patterns from number `begin` on, and of `longest`."""
        scale = self.dtype.type(self.stored.scale)
        for first in range(begin, len(self.stored), BLOCK):
            rows = self.stored.patterns[first : first + BLOCK].astype(self.dtype) * scale
            longest = max(longest, float(np.linalg.norm(rows.astype(np.float64), axis=1).max()))
        return longest

    @ignoring_float_errors()
    def retrieve(
        self, rows: Array, max_steps: int, tol: float, states: Array, before: Array | None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Update rows (N, d) until they stay, into states; `before` gets each query as it was at its last update."""
        n, m = len(rows), len(self.stored)
        self._check(n)
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
        visible = np.arange(1, m + 1) if self.structure.causal else m
        return steps, converged, np.where(steps > 0, visible, 0)
