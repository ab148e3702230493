"""The association of the layers with features: forward, and the gradient through all updates, linear in the rows.

The core (csrc/features/sets.c, where the mathematics is) computes all samples and heads at a time. Arrays are (samples,
rows, heads, numbers) here; of ragged bags (all rows, heads, numbers).

All updates share the patterns' features, so gradients by the sums are added up over the updates, and gradients by the
patterns are computed once from them. Features depend on sqrt(beta) x alone, so
2 beta dbeta = sum <dx, x> + sum <dk, k>, where dk leaves out the gradient by keys as values; `grad_dot` is that sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, contiguous, ignoring_float_errors
from sparsehopfield.structures._feature_map import BLOCK, LEAST_NORMALISER, RELU, FeatureStructure, Floats

MOST_UPDATES = 10_000
LARGEST = {np.dtype(np.float32): 1e70, np.dtype(np.float64): 1e300}  # of beta |x|^2, so that features are finite


class _Sums(NamedTuple):
    """The states of all sets (samples and heads), (BH, D), (BH, D), (BH D, d) and (BH D, v)."""

    top: Floats
    z: Floats
    keys: Floats
    values: Floats


@dataclass
class Tape:
    """What `forward` leaves for `backward`. The arrays given must not change while it is used."""

    structure: FeatureStructure
    q: Array  # (B, N, H, d) or (N, H, d); or (R, H, d), where `listed`
    k: Array  # (B, M, H or 1, d) or (M, H or 1, d); or (R, H or 1, d), of ragged bags
    v: Array
    beta: Floats
    samples: int
    padding: NDArray[np.bool_] | None
    offsets: NDArray[np.int64] | None
    shape: tuple[int, ...]  # of the queries given
    rows_axes: int  # of the patterns given: 3 where samples share them, though padding sets them apart
    padded: tuple[tuple[int, ...], Any] | None = None  # listed queries: their padded shape, and where each lay in it
    states: list[Array] = field(default_factory=list)  # before each association
    moved: list[NDArray[np.bool_]] = field(default_factory=list)
    sums: _Sums | None = None

    def __post_init__(self) -> None:
        self.map = self.structure._map(self.k.shape[-1], 1.0, "dot")
        self.dtype = self.q.dtype
        p = self.map.projection
        self.projection = None if p is None else np.sqrt(self.beta)[:, None, None] * p  # (H, D, d)
        self.listed = self.structure.causal and self.offsets is not None
        lead = self.q.shape[:1] if self.listed else (self.samples, self.q.shape[-3])
        self.lead = (*lead, self.q.shape[-2])
        self.by_pairs = not self.structure.causal and self._pairs_cost_less()

    @property
    def samples_of_queries(self) -> int:
        """Return how many samples the queries have, as they were given."""
        return self.shape[0] if len(self.shape) == 4 else self.samples

    def _pairs_cost_less(self) -> bool:
        """Tell whether the pairs of queries and rows are fewer multiplications than sums."""
        n, m, size, v = self.lead[-2], self.k.shape[-3], self.map.size, self.v.shape[-1]
        if self.offsets is not None:
            m = int(np.diff(self.offsets).max(initial=0))
        return max(n, m) <= BLOCK and n * m * (size + v) <= (n + m) * size * v

    def sets(self, x: Array, values: Array) -> tuple[Any, ...]:
        """Return the arguments of the core's operations over sets, with these queries and values."""
        model = self.map.code, self.map.size, self.beta, self.projection, LEAST_NORMALISER[self.dtype]
        return *model, self.samples, x, self.k, values, self.offsets, self.padding

    def empty(self, a: Array) -> Array:
        """Return an array for gradients by rows such as these, one for each set."""
        return np.empty((*(() if self.offsets is not None else (self.samples,)), *self.rows(a)), self.dtype)

    def rows(self, a: Array) -> tuple[int, int, int]:
        """Return the shape of one sample's rows, with all heads."""
        return a.shape[-3], self.q.shape[-2], a.shape[-1]

    @ignoring_float_errors()
    def fold(self, *, keys: bool) -> _Sums:
        """Return the sums over the patterns, those with keys as values only where `keys`."""
        all_sets, size = self.samples * self.q.shape[-2], self.map.size
        top, z = np.empty((all_sets, size)), np.empty((all_sets, size))
        sums = []
        for values in (self.k, self.v)[not keys :]:
            sums.append(np.empty((all_sets * size, values.shape[-1])))
            _core.feature_sets_sum(*self.sets(self.q, values), top, z, sums[-1])
        return _Sums(top, z, sums[0], sums[-1])

    @ignoring_float_errors()
    def associate(self, x: Array, *, keys: bool) -> Array:
        """Return one association of all queries: T(x), mixed from keys or from values."""
        values = self.k if keys else self.v
        out = np.empty((*self.lead, values.shape[-1]), self.dtype)
        if self.sums is None:
            operation = _core.feature_sets_pairs if self.by_pairs else _core.feature_sets_causal
            operation(*self.sets(x, values), out)
        else:
            total = self.sums.keys if keys else self.sums.values
            _core.feature_sets_mix(*self.sets(x, values), self.sums.top, self.sums.z, total, out)
        return out

    @ignoring_float_errors()
    def longest(self) -> Floats:
        """Return the largest norm of a key that each query sees."""
        squares = np.einsum("...d,...d->...", self.k, self.k, dtype=np.float64)
        if self.offsets is None:
            return np.asarray(np.sqrt(squares.max(axis=-2, keepdims=True, initial=0)))
        lengths = np.diff(self.offsets)
        sample = np.repeat(np.arange(len(lengths)), lengths)
        most = np.zeros((len(lengths), squares.shape[-1]))
        np.maximum.at(most, sample, squares)
        return np.asarray(np.sqrt(most[sample] if self.listed else most[:, None]))

    @ignoring_float_errors()
    def forward(self, steps: int | None, eps: float) -> tuple[Array, int]:
        """Return the last association's mixture of values, and how many queries were still moving."""
        if not self.structure.causal and not self.by_pairs:
            self.sums = self.fold(keys=steps != 0)
        self.states, self.moved = [self.q], []
        moving = np.ones(self.lead, bool)
        reach = eps * self.longest() if steps != 0 else None
        for _ in range(MOST_UPDATES if steps is None else steps):
            x = self.states[-1]
            new = np.where(moving[..., None], self.associate(x, keys=True), x)
            self.states.append(new)
            self.moved.append(moving)
            moving = moving & (np.linalg.norm(new.astype(np.float64) - x, axis=-1) > reach)
            if not moving.any():
                break
        return self.associate(self.states[-1], keys=False), int(moving.sum()) if steps is None else 0

    @ignoring_float_errors()
    def backward(self, grad: Array, *, rows: bool, beta: bool) -> tuple[Array, Array | None, Array | None, Any]:
        """Return gradients by queries, by keys and values, one for each set, and by beta (H)."""
        grad_dot = np.zeros(len(self.beta))
        dk, dv = self.empty(self.k), self.empty(self.v)
        at_once = _core.feature_sets_pairs_backward if self.by_pairs else _core.feature_sets_causal_backward
        dz = dsums = None
        if self.sums is not None and (rows or beta):
            dz, *dsums = (np.zeros(a.shape) for a in (self.sums.z, self.sums.keys, self.sums.values))
        for t in range(len(self.states) - 1, -1, -1):
            x, last = self.states[t], t == len(self.states) - 1
            g = grad if last else np.where(self.moved[t][..., None], grad, 0)
            dx = np.empty((*self.lead, x.shape[-1]), self.dtype)
            values = self.v if last else self.k
            if self.sums is not None:
                total, dtotal = self.sums[2 + last], None if dsums is None else dsums[last]
                state = self.sums.top, self.sums.z, total
                _core.feature_sets_mix_backward(*self.sets(x, values), *state, g, dz, dtotal, dx, grad_dot)
            elif last:
                at_once(*self.sets(x, values), g, dx, dk, dv, grad_dot)
            else:
                by_features, as_values = self.empty(self.k), self.empty(self.k)
                at_once(*self.sets(x, values), g, dx, by_features, as_values, grad_dot)
                dk += by_features
                dk += as_values
            grad = dx if last else np.where(self.moved[t][..., None], dx, grad)
        if dsums is not None:
            assert self.sums is not None
            state = self.sums.top, self.sums.z, self.sums.values
            dkeys = dsums[0] if self.moved else None
            _core.feature_sets_sum_backward(*self.sets(self.q, self.v), *state, dz, dsums[1], dkeys, dk, dv, grad_dot)
        dbeta = np.zeros_like(grad_dot) if self.map.code == RELU else grad_dot / (2 * self.beta)
        return grad, dk if rows else None, dv if rows else None, dbeta if beta else None


def _like(a: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient by what samples or heads share, in its own shape."""
    if a.ndim > len(shape):
        a = a.sum(axis=0)
    return a.sum(axis=-2, keepdims=True) if shape[-2] < a.shape[-2] else a


@ignoring_float_errors()
def _sound(name: str, a: Array, beta: Floats) -> Array:
    """Return rows that the core can use in place, after checks that their features are in range."""
    largest = max(float(a.max(initial=0)), -float(a.min(initial=0)))
    if not largest < np.inf:
        raise ValueError(f"{name}: contains NaN or infinity; every entry must be finite")
    if largest * (a.shape[-1] * float(beta.max(initial=0))) ** 0.5 > (most := LARGEST[a.dtype]) ** 0.5:
        raise OverflowError(f"beta: times the squared length of a row of {name} it may exceed {most:g}")
    in_place = a.strides[-1] == a.itemsize and all(s >= 0 and s % a.itemsize == 0 for s in a.strides)
    return (a if in_place and a.flags.aligned else contiguous(a))[...]  # a view: nobody else can change its shape


def _padded(padded: tuple[tuple[int, ...], Any], flat: Array) -> Array:
    """Return numbers of listed queries (R, H, c) in padded form, (B, N, H, c)."""
    shape, places = padded
    whole = np.zeros((*shape[:2], *flat.shape[1:]), flat.dtype)
    whole[places] = flat
    return whole


def check(structure: FeatureStructure, code: tuple[int, float], appended: int, asked: list[str]) -> None:
    """Raise for what the association of layers can do and features cannot.

    Parameters
    ----------
    structure : LinearFeatures or RandomFeatures
    code : tuple
        The separation as the core has it.
    appended : int
        Rows that all queries see.
    asked : list of str
        Arguments of `associate_forward` that are in use.

    Raises
    ------
    ValueError
        Naming the argument at fault.
    """
    structure._refuse_maps(code)
    name = type(structure).__name__
    if asked:
        raise ValueError(f"{asked[0]}: not with {name}, whose weights are never computed one by one")
    if structure.causal and appended:
        raise ValueError("appended: not with causal features, where query i sees rows 0 to i alone")


def steps(tape: Tape) -> Array:
    """Return the updates that each query made, (B, N, H)."""
    made = np.zeros(tape.lead, np.int64)
    for moved in tape.moved:
        made += moved
    return (
        made.reshape(tape.samples_of_queries, *tape.shape[-3:-1]) if tape.padded is None else _padded(tape.padded, made)
    )


def refuse(tape: Tape, what: str) -> None:
    """Raise, as features have no such thing."""
    tape.structure.refuse(what)


def forward(
    structure: FeatureStructure,
    q: Array,
    k: Array,
    v: Array,
    beta: Floats,
    *,
    steps: int | None = 0,
    eps: float = 1e-4,
    padding: NDArray[np.bool_] | None = None,
    offsets: NDArray[np.int64] | None = None,
    keep: bool = True,
) -> tuple[Array, Tape | None, int]:
    """Return what `association.associate_forward` does, with a structure of features in place of scores.

    Parameters
    ----------
    structure : LinearFeatures or RandomFeatures
        If causal, query i sees rows 0 to i of its sample, and there are as many queries as rows; of ragged bags the
        queries are then (R, H, d), too, and so is the output; or padded to the largest bag, (B, N, H, d).
    q : ndarray of shape (B, N, H, d), or (N, H, d) shared by all samples
    k : ndarray of shape (B, M, H or 1, d), or (M, H or 1, d) shared by all samples, or (R, H or 1, d) with `offsets`
    v : ndarray, shaped as `k`, with v numbers instead of d
        All three float32 or all float64.
    beta : ndarray of float64, shape (H,)
    steps : int or None
        At most so many updates x <- T(x) with the keys as values before the values are mixed; None: until at rest.
    eps : float
        There are no weights whose movement could be told, so a query has come to rest when an update moves it by at
        most eps times the largest norm of a key of its sample and head.
    padding : ndarray of bool, shape (B, M)
        True where a row is none.
    offsets : ndarray of int64, shape (B + 1,)
        Ragged bags: sample b has rows offsets[b] to offsets[b + 1].
    keep : bool
        Whether a backward pass will follow.

    Returns
    -------
    out : ndarray of shape (B, N, H, v)
        Zeros for a query without rows, or (relu) without a positive feature that it shares with one.
    tape : Tape or None
    unsettled : int
        With steps None, queries that were still moving after 10,000 updates.

    Raises
    ------
    ValueError
        If a causal structure gets other than as many queries as rows, or a number is NaN or infinite.
    OverflowError
        If features are beyond float64, or sums of them with values beyond the dtype.

    Examples
    --------
    >>> from sparsehopfield.structures import LinearFeatures
    >>> rows = np.eye(3).reshape(1, 3, 1, 3)
    >>> out, tape, unsettled = forward(LinearFeatures("relu"), rows, rows, rows, np.ones(1))
    >>> bool((out == rows).all())
    True
    """
    shape, rows_axes, dtype, padded = q.shape, k.ndim, q.dtype, None
    listed = offsets is not None and structure.causal
    if offsets is not None and structure.causal and q.ndim == 4:
        lengths = np.diff(offsets)
        if q.shape[1] != lengths.max(initial=0):
            raise ValueError(
                f"queries: causal features need as many as stored rows, {lengths.max(initial=0)} of the largest bag, "
                f"got {q.shape[1]}"
            )
        sample = np.repeat(np.arange(len(lengths)), lengths)
        padded = q.shape, (sample, np.arange(len(sample)) - offsets[sample])
        q = q[padded[1]]
    if structure.causal and q.shape[-3] != k.shape[-3]:
        raise ValueError(f"queries: causal features need as many as stored rows, {k.shape[-3]}, got {q.shape[-3]}")
    if padding is not None:  # whatever a row that is none holds
        k, v = (np.where(padding[:, :, None, None], dtype.type(0), a) for a in (k, v))
        padding = contiguous(padding)
    q, k = _sound("queries", q, beta), _sound("stored", k, beta)
    v = _sound("values", v, np.zeros(1))
    samples = len(k) if k.ndim == 4 else len(q) if q.ndim == 4 else 1
    if offsets is not None:
        samples = len(offsets) - 1
    if offsets is None and k.ndim == 3 and q.ndim == 4 and not structure.causal:  # one sample's rows, of more queries
        q, samples = q.reshape(1, -1, *q.shape[2:]), 1
    tape = Tape(structure, q, k, v, contiguous(beta), samples, padding, offsets, shape, rows_axes, padded)
    out, unsettled = tape.forward(steps, eps)
    if not np.isfinite(out).all():
        raise OverflowError(f"stored: sums over their features exceed the largest {dtype}; scale the arrays down")
    if padded is not None:
        out = _padded(padded, out)
    elif not listed:
        out = out.reshape(tape.samples_of_queries, *shape[-3:-1], v.shape[-1])
    return out, tape if keep else None, unsettled


def backward(
    tape: Tape, grad: Array, need_rows: bool = True, need_beta: bool = True
) -> tuple[Array, Array | None, Array | None, Floats | None]:
    """Return the gradients of sum(grad * out), through all updates.

    Parameters
    ----------
    tape : Tape
        Of `forward`.
    grad : ndarray, shaped as the output
    need_rows, need_beta : bool
        False leaves out the gradients of keys and values, or of beta.

    Returns
    -------
    dq, dk, dv : ndarray or None
        Shaped as q, k and v were; 0 for padded rows, and for queries whose output is 0 for want of rows.
    dbeta : ndarray of float64, shape (H,), or None
        0 for "relu", where beta cancels. The projection of RandomFeatures is taken as fixed.
    """
    if tape.padded is not None:
        grad = grad[tape.padded[1]]
    g = contiguous(grad, tape.dtype).reshape(*tape.lead, grad.shape[-1])
    dq, dk, dv, dbeta = tape.backward(g, rows=need_rows, beta=need_beta)
    if tape.padded is not None:
        dq = _padded(tape.padded, dq)
    elif not tape.listed:
        dq = _like(dq, tape.q.shape).reshape(tape.shape)
    given = (a.shape[-tape.rows_axes :] for a in (tape.k, tape.v))
    rows = (None, None) if dk is None or dv is None else map(_like, (dk, dv), given)
    return dq, *rows, dbeta
