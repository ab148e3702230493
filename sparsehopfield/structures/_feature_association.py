"""The association of the layers with features: forward, and the gradient through all updates, linear in the rows.

Arrays are (samples, heads, rows, numbers) here. With w_f the weights of the D means m_f = S_f / z_f (see `_features`),
out = sum_f w_f m_f; from g, its gradient, with a_f = <g, m_f> and r = <g, out>:

    log features of a query:    w_f (a_f - r)
    of S_f and z_f:             sum_i w_if / z_f g_i    and    -sum_i w_if / z_f r_i
    log features of a pattern:  phi_f (<dS_f, v> + dz_f)

All associations share the patterns' features, so those of S and z are summed and go to the patterns once. Features
depend on sqrt(beta) x alone, so 2 beta dbeta = sum <dx, x> + sum <dk, k>, without what k gets as a value. Features are
made again in the backward pass; no array holds them for all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..checks import Array
from ..stored import TYPE_CODES
from ._features import CAUSAL_BLOCK, FAINT, RELU, Features, Floats, RandomFeatures

MOST_UPDATES = 10_000
NUMBERS = 1 << 19  # of features that are there at a time
MANY = 512  # rows, from which on the core takes them, sample by sample and head by head
MOST = {np.dtype(np.float32): 1e70, np.dtype(np.float64): 1e300}  # of beta |x|^2, so that features are finite
Rows = slice


class _Block(NamedTuple):
    """Of a causal association: rows, what they are in units of, and what their queries see before them."""

    at: Rows
    top: Floats
    phi: Array
    ask: Array
    pairs: Array
    total: Array
    z: Array
    sum: Array


class _Sums(NamedTuple):
    """What stands for the patterns: (B, H, 1, D), (B, H, 1, D) and (B, H, D, v)."""

    top: Floats
    z: Floats
    keys: Floats
    values: Floats


@dataclass
class _Batch:
    """Samples of equally many rows: queries (B, H, N, d), keys (B, H, M, d), values (B, H, M, v), padding (B, M)."""

    structure: Features
    q: Array
    k: Array
    v: Array
    beta: Floats
    padding: NDArray[np.bool_] | None

    def __post_init__(self) -> None:
        d = self.k.shape[-1]
        self.dtype = self.q.dtype
        self.random = isinstance(self.structure, RandomFeatures)
        self.map = self.structure._map(d, 1.0, "dot")
        self.size = self.map.size
        self.root = np.sqrt(self.beta)[:, None, None]
        self.projection = None if self.map.projection is None else self.root * self.map.projection  # (H, D, d)
        self.states: list[Array] = []  # before each association
        self.moved: list[NDArray[np.bool_]] = []
        self.sums: _Sums | None = None

    def cores(self) -> Iterator[tuple[tuple[int, int], tuple[Any, ...]]]:
        """(sample and head, their map as the core takes it)."""
        for b, h in np.ndindex(self.q.shape[:2]):
            beta = float(self.beta[h])
            projection = None if self.projection is None else self.projection[h]
            yield (b, h), (self.map.code, self.size, beta, projection, beta / 2)

    # --- features ---

    def blocks(self, n: int) -> Iterator[Rows]:
        groups = self.q.shape[0] * self.q.shape[1]
        step = max(NUMBERS // (groups * self.size), 16)
        return (slice(first, first + step) for first in range(0, n, step))

    def features(self, x: Array, at: Rows | None = None) -> tuple[Floats | None, Array | None]:
        """(exponent, factor) of rows; at: which patterns they are."""
        exponent: Floats | None
        factor: Array | None
        if self.map.code == RELU:
            exponent, factor = None, np.maximum(x, 0)
        elif self.projection is None:
            exponent = self.root * x
            factor = np.maximum(exponent, 0).astype(self.dtype) + self.dtype.type(1)
            exponent = np.minimum(exponent, 0, out=exponent)
        else:
            wide = x.astype(np.float64, copy=False)
            exponent, factor = wide @ self.projection.swapaxes(-1, -2), None
            if at is not None:
                exponent -= (self.root**2 / 2) * np.einsum("...d,...d->...", wide, wide)[..., None]
        if at is not None and self.padding is not None:
            none = self.padding[:, None, at, None]
            if exponent is not None:
                exponent = np.where(none, -np.inf, exponent)
            else:
                assert factor is not None
                factor = factor * ~none
        return exponent, factor

    def phi(self, exponent: Floats | None, factor: Array | None, top: Floats) -> Array:
        """Features of patterns in units of exp(top)."""
        if exponent is None:
            assert factor is not None
            return factor
        phi = np.exp((exponent - np.where(top > -np.inf, top, 0)).astype(self.dtype))
        return phi if factor is None else np.multiply(phi, factor, out=phi)

    def chain(self, x: Array, dlog: Array, *, patterns: bool) -> Array:
        """From gradients of log features those of the rows."""
        if self.map.code == RELU:
            return np.divide(dlog, x, out=np.zeros_like(dlog), where=x > 0)
        if self.projection is None:
            u = self.root * x
            return (dlog * (self.root / (1 + np.maximum(u, 0)))).astype(self.dtype)
        dx = dlog @ self.projection.astype(self.dtype)
        if patterns:
            dx -= (self.root**2 * dlog.sum(axis=-1, keepdims=True, dtype=np.float64) * x).astype(self.dtype)
        return np.asarray(dx)

    # --- every query sees all rows ---

    def fold(self, *, keys: bool) -> _Sums:
        """The sums over the patterns; of keys only if they are wanted as values."""
        b, h, m, d = self.k.shape
        top = np.full((b, h, 1, self.size), 0.0 if self.map.code == RELU else -np.inf)
        z = np.zeros_like(top)
        sums = np.zeros((b, h, self.size, d if keys else 0)), np.zeros((b, h, self.size, self.v.shape[-1]))
        if m >= MANY and self.padding is None:
            top[...] = -np.inf
            for one, core in self.cores():
                for values, total in ((None, sums[0]), (self.v[one], sums[1]))[not keys :]:
                    top[one], z[one] = -np.inf, 0  # both of the same features
                    stored = False, self.k[one], values, 1.0, True, TYPE_CODES[self.dtype]
                    _core.features_add(*core, *stored, top[one][0], z[one][0], total[one])
            return _Sums(top, z, *sums)
        for at in self.blocks(m):
            exponent, factor = self.features(self.k[:, :, at], at)
            if exponent is not None:
                risen = np.maximum(top, exponent.max(axis=2, keepdims=True))
                less = _shrink(top, risen)
                top, z = risen, z * less
                for s in sums:
                    s *= less.swapaxes(-1, -2)
            phi = self.phi(exponent, factor, top)
            z += phi.sum(axis=2, keepdims=True, dtype=np.float64)
            across = phi.swapaxes(-1, -2)
            if keys:
                sums[0][...] += across @ self.k[:, :, at]
            sums[1][...] += across @ self.v[:, :, at]
        return _Sums(top, z, *sums)

    def log_sums(self) -> Floats:
        """log z, whatever units it is in; -inf without rows."""
        assert self.sums is not None
        none = self.sums.z == 0
        return np.where(none, -np.inf, self.sums.top + np.log(np.where(none, 1, self.sums.z)))

    def mixing(self, x: Array) -> Array:
        """w of queries, rows of sum 1 or 0."""
        assert self.sums is not None
        exponent, factor = self.features(x)
        if exponent is None:
            assert factor is not None
            share = self.sums.z / np.maximum(self.sums.z.max(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
            wide = factor * share
        else:
            exponent += self.log_sums()
            peak = exponent.max(axis=-1, keepdims=True)
            wide = np.exp((exponent - np.where(peak > -np.inf, peak, 0)).astype(self.dtype))
            wide = wide if factor is None else np.multiply(wide, factor, out=wide)
        total = wide.sum(axis=-1, keepdims=True)
        return (wide / np.where(total > 0, total, 1)).astype(self.dtype, copy=False)

    def means(self, total: Floats) -> Array:
        assert self.sums is not None
        z = self.sums.z.swapaxes(-1, -2)
        return np.divide(total, z, out=np.zeros_like(total), where=z > 0).astype(self.dtype)

    def associate(self, x: Array, *, keys: bool) -> Array:
        """One association of all queries: T(x) of keys, or of values."""
        values = self.k if keys else self.v
        out = np.empty((*x.shape[:-1], values.shape[-1]), self.dtype)
        many = x.shape[2] >= MANY
        if self.structure.causal:
            if many and self.padding is None:
                for one, core in self.cores():
                    stored = False, self.k[one], values[one], 1.0, True
                    _core.features_causal(*core, *stored, x[one], FAINT[self.dtype], out[one])
                return out
            for block in self.scan(x, values):
                out[:, :, block.at] = self.mixed(block, values)
            return out
        assert self.sums is not None
        total = self.sums.keys if keys else self.sums.values
        if many:
            for one, core in self.cores():
                sums = self.sums.top[one][0], self.sums.z[one][0], total[one]
                _core.features_mix(*core, *sums, x[one], out[one])
            return out
        means = self.means(total)
        for at in self.blocks(x.shape[2]):
            np.matmul(self.mixing(x[:, :, at]), means, out=out[:, :, at])
        return out

    def back(self, x: Array, grad: Array, total: Floats, dsum: Floats, dz: Floats) -> Array:
        """Gradient of an association's queries; those of the sums are added up."""
        assert self.sums is not None
        dx, means = np.empty_like(x), self.means(total)
        z = np.where(self.sums.z > 0, self.sums.z, 1)
        for at in self.blocks(x.shape[2]):
            some, g = x[:, :, at], grad[:, :, at]
            w = self.mixing(some)
            a = g @ means.swapaxes(-1, -2)
            r = (w * a).sum(axis=-1, keepdims=True)
            dx[:, :, at] = self.chain(some, w * (a - r), patterns=False)
            share = (w / z).astype(self.dtype).swapaxes(-1, -2)
            dsum += share @ g
            dz -= (share @ r).swapaxes(-1, -2)
        return dx

    def unfold(self, dsums: _Sums, *, keys: bool) -> tuple[Array, Array, Array]:
        """Gradients of keys by their features, of keys as values, and of values."""
        assert self.sums is not None
        k, v = self.k, self.v
        by_features, as_values, dv = (np.zeros(a.shape, self.dtype) for a in (k, k, v))
        dkeys, dvalues, dz = (a.astype(self.dtype) for a in (dsums.keys, dsums.values, dsums.z))
        for at in self.blocks(k.shape[2]):
            some = k[:, :, at]
            phi = self.phi(*self.features(some, at), self.sums.top)
            dphi = v[:, :, at] @ dvalues.swapaxes(-1, -2) + dz
            np.matmul(phi, dvalues, out=dv[:, :, at])
            if keys:
                dphi += some @ dkeys.swapaxes(-1, -2)
                np.matmul(phi, dkeys, out=as_values[:, :, at])
            by_features[:, :, at] = self.chain(some, phi * dphi, patterns=True)
        return by_features, as_values, dv

    # --- causal ---

    def asks(self, x: Array, top: Floats) -> Array:
        """Features of queries in units of exp(-top), each query's largest near 1."""
        exponent, factor = self.features(x)
        if exponent is None:
            assert factor is not None
            most = factor.max(axis=-1, keepdims=True)
            return np.asarray(factor / np.where(most > 0, most, 1))
        exponent += np.where(top > -np.inf, top, 0)
        if factor is not None:
            exponent += np.log(factor, dtype=np.float64)
        return np.exp((exponent - exponent.max(axis=-1, keepdims=True)).astype(self.dtype))

    def scan(self, x: Array, values: Array) -> Iterator[_Block]:
        """Blocks of rows from the first to the last, with the sums of those before them."""
        b, h, m, _ = self.k.shape
        top = np.full((b, h, 1, self.size), 0.0 if self.map.code == RELU else -np.inf)
        z, sums = np.zeros_like(top), np.zeros((b, h, self.size, values.shape[-1]))
        there = np.ones((1, m), bool) if self.padding is None else np.cumsum(~self.padding, axis=1) > 0
        todo = [slice(first, min(first + CAUSAL_BLOCK, m)) for first in range(0, m, CAUSAL_BLOCK)][::-1]
        while todo:
            at = todo.pop()
            exponent, factor = self.features(self.k[:, :, at], at)
            risen = top if exponent is None else np.maximum(top, exponent.max(axis=2, keepdims=True))
            less = _shrink(top, risen)
            phi, ask = self.phi(exponent, factor, risen), self.asks(x[:, :, at], risen)
            before = (z * less).astype(self.dtype), (sums * less.swapaxes(-1, -2)).astype(self.dtype)
            pairs = np.tril(ask @ phi.swapaxes(-1, -2))
            total = pairs.sum(axis=-1, keepdims=True) + ask @ before[0].swapaxes(-1, -2)
            faint = (total < FAINT[self.dtype]) & there[:, None, at, None]
            if exponent is not None and at.stop - at.start > 1 and faint.any():
                middle = (at.start + at.stop) // 2
                todo += [slice(middle, at.stop), slice(at.start, middle)]
                continue
            yield _Block(at, risen, phi, ask, pairs, total, *before)
            top, z, sums = risen, z * less, sums * less.swapaxes(-1, -2)
            z += phi.sum(axis=2, keepdims=True, dtype=np.float64)
            sums += phi.swapaxes(-1, -2) @ values[:, :, at]

    @staticmethod
    def mixed(block: _Block, values: Array) -> Array:
        some = values[:, :, block.at]
        mixed = block.pairs @ some + block.ask @ block.sum
        return np.divide(mixed, block.total, out=np.zeros_like(mixed), where=block.total > 0)

    def back_causal(self, x: Array, grad: Array, values: Array) -> tuple[Array, Array, Array]:
        """Gradients of queries, of keys by their features, and of values."""
        dx, dk, dv = (np.zeros(a.shape, self.dtype) for a in (x, self.k, values))
        seen: list[tuple[Rows, Floats, Array, Array]] = []
        for block in self.scan(x, values):
            at, g, v = block.at, grad[:, :, block.at], values[:, :, block.at]
            inverse = np.divide(1, block.total, out=np.zeros_like(block.total), where=block.total > 0)
            r = (g * self.mixed(block, values)).sum(axis=-1, keepdims=True)
            pull = np.tril(g @ v.swapaxes(-1, -2) - r)
            dlog = g @ block.sum.swapaxes(-1, -2) - r * block.z + pull @ block.phi
            dx[:, :, at] = self.chain(x[:, :, at], block.ask * inverse * dlog, patterns=False)
            seen.append((at, block.top, inverse, r))
        # what later queries ask for, in units of exp(-top)
        dz, dsum = np.zeros((1, self.size)), np.zeros((self.size, values.shape[-1]))
        later: Floats | None = None
        for at, top, inverse, r in reversed(seen):
            if later is not None:
                less = _shrink(top, later)
                dz, dsum = dz * less, dsum * less.swapaxes(-1, -2)
            later = top
            g, k, v = grad[:, :, at], self.k[:, :, at], values[:, :, at]
            phi = self.phi(*self.features(k, at), top)
            share = self.asks(x[:, :, at], top) * inverse
            pull = np.tril(g @ v.swapaxes(-1, -2) - r)
            narrow = dsum.astype(self.dtype)
            dphi = pull.swapaxes(-1, -2) @ share + v @ narrow.swapaxes(-1, -2) + dz.astype(self.dtype)
            dk[:, :, at] = self.chain(k, phi * dphi, patterns=True)
            dv[:, :, at] = np.tril(share @ phi.swapaxes(-1, -2)).swapaxes(-1, -2) @ g + phi @ narrow
            dsum = dsum + share.swapaxes(-1, -2) @ g
            dz = dz - (share.swapaxes(-1, -2) @ r).swapaxes(-1, -2)
        return dx, dk, dv

    # --- all updates ---

    def longest(self) -> Floats:
        """The largest norm of a key, (B, H, 1)."""
        squares = np.einsum("...d,...d->...", self.k, self.k, dtype=np.float64)
        if self.padding is not None:
            squares = np.where(self.padding[:, None], 0, squares)
        return np.asarray(np.sqrt(squares.max(axis=-1, keepdims=True, initial=0)))

    def forward(self, steps: int | None, eps: float) -> tuple[Array, int]:
        """The last association's mixture of values, and how many queries were still moving."""
        if not self.structure.causal:
            self.sums = self.fold(keys=steps != 0)
        self.states, self.moved = [self.q], []
        moving = np.ones(self.q.shape[:-1], bool)
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

    def backward(self, grad: Array, *, rows: bool, beta: bool) -> tuple[Array, Array | None, Array | None, Any]:
        """Gradients of q, k and v, shaped as these, and of beta (H)."""
        keys, total = len(self.moved) > 0, np.zeros(self.beta.shape)
        by_features, as_values, dv = (np.zeros(a.shape, self.dtype) for a in (self.k, self.k, self.v))
        dsums = None
        if self.sums is not None:
            dsums = _Sums(*(np.zeros_like(a) for a in self.sums))
        for t in range(len(self.states) - 1, -1, -1):
            x, last = self.states[t], t == len(self.states) - 1
            g = grad if last else np.where(self.moved[t][..., None], grad, 0)
            if dsums is None:
                dx, dk, dvalues = self.back_causal(x, g, self.v if last else self.k)
                by_features += dk
                if last:
                    dv = dvalues
                else:
                    as_values += dvalues
            else:
                assert self.sums is not None
                of, into = (self.sums.values, dsums.values) if last else (self.sums.keys, dsums.keys)
                dx = self.back(x, g, of, into, dsums.z)
            total += np.einsum("bhnd,bhnd->h", dx, x, dtype=np.float64)
            grad = dx if last else np.where(self.moved[t][..., None], dx, grad)
        if dsums is not None and (rows or beta):
            by_features, as_values, dv = self.unfold(dsums, keys=keys)
        if beta:
            total += np.einsum("bhmd,bhmd->h", by_features, self.k, dtype=np.float64)
            total = np.zeros_like(total) if self.map.code == RELU else total / (2 * self.beta)
        return grad, by_features + as_values if rows else None, dv if rows else None, total if beta else None


def _shrink(old: Floats, new: Floats) -> Floats:
    """exp(old - new), where -inf is the exponent of nothing."""
    with np.errstate(invalid="ignore"):
        return np.where(old == new, 1.0, np.exp(old - new))


@dataclass
class Tape:
    """What `forward` leaves for `backward`. The arrays given must not change until it is gone."""

    structure: Features
    batches: list[tuple[_Batch, Any]]  # and where their rows lie, of ragged bags: (samples, rows (B, M))
    shapes: list[tuple[int, ...]]  # of q, k, v
    ragged_queries: bool
    padded: tuple[tuple[int, ...], Any] | None = None  # ragged queries: their shape, and where each lay in it


def _heads_first(a: Array, samples: int, heads: int) -> Array:
    """(B, rows, H or 1, c), or (rows, H or 1, c) shared by samples, as a view (B, H, rows, c)."""
    a = a if a.ndim == 4 else a[None]
    return np.broadcast_to(a.swapaxes(1, 2), (samples, heads, a.shape[1], a.shape[3]))


def _like(a: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of what was broadcast to (B, H, rows, c), in its own shape."""
    a = a.swapaxes(1, 2)
    if shape[-2] == 1:
        a = a.sum(axis=2, keepdims=True)
    return np.ascontiguousarray(a) if len(shape) == 4 else a.sum(axis=0)


def _sound(name: str, a: Array, beta: Floats) -> Array:
    """Rows whose features are contiguous and can be computed with."""
    largest = float(np.abs(a).max(initial=0))
    if not largest < np.inf:
        raise ValueError(f"{name}: contains NaN or infinity; every entry must be finite")
    if largest * (a.shape[-1] * float(beta.max(initial=0))) ** 0.5 > (most := MOST[a.dtype]) ** 0.5:
        raise OverflowError(f"beta: times the squared length of a row of {name} it may exceed {most:g}")
    return a if a.shape[-1] == 1 or a.strides[-1] == a.itemsize else np.ascontiguousarray(a)


def _bags(
    offsets: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_] | None]]:
    """(samples, rows (B, M), padding) of bags about equally long: within a factor of two."""
    lengths = np.diff(offsets)
    sizes = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
    for size in np.unique(sizes):
        samples = np.flatnonzero(sizes == size)
        of = lengths[samples]
        row = np.arange(max(int(of.max()), 1))
        padding = row >= of[:, None]
        rows = np.where(padding, 0, offsets[samples][:, None] + row)
        yield samples, rows, padding if padding.any() else None


def _padded(padded: tuple[tuple[int, ...], Any], flat: Array) -> Array:
    """What belongs to ragged queries (R, H, c), where these lay: (B, N, H, c)."""
    shape, places = padded
    whole = np.zeros((*shape[:2], *flat.shape[1:]), flat.dtype)
    whole[places] = flat
    return whole


def check(structure: Features, code: tuple[int, float], appended: int, asked: list[str]) -> None:
    """Refuse what the association of layers can do and features cannot.

    Parameters
    ----------
    structure : LinearFeatures or RandomFeatures
    code : tuple
        The separation as the core has it.
    appended : int
        Rows that all queries look at.
    asked : list of str
        Arguments of `associate_forward` that are in use.

    Raises
    ------
    ValueError
        Naming the argument at fault.
    """
    structure.refuse_maps(code)
    name = type(structure).__name__
    if asked:
        raise ValueError(f"{asked[0]}: not with {name}, whose weights are never computed one by one")
    if structure.causal and appended:
        raise ValueError("appended: not with causal features, where query i sees rows 0 to i alone")


def steps(tape: Tape) -> Array:
    """Updates that each query made, (B, N, H)."""
    found = None
    for batch, where in tape.batches:
        made = np.zeros(batch.q.shape[:-1], np.int64)
        for moved in batch.moved:
            made += moved
        made = made.swapaxes(1, 2)
        if where is None:
            return np.ascontiguousarray(made).reshape(-1, *tape.shapes[0][-3:][:2])
        which, rows, none = where
        if found is None:
            heads = tape.shapes[0][-2]
            samples = sum(len(w[0]) for _, w in tape.batches)
            rows_of = tape.shapes[0][:1] if tape.ragged_queries else (samples, batch.q.shape[2])
            found = np.zeros((*rows_of, heads), np.int64)
        if tape.ragged_queries:
            there = slice(None) if none is None else ~none
            found[rows[there]] = made[there]
        else:
            found[which] = made
    assert found is not None
    return found if tape.padded is None else _padded(tape.padded, found[..., None])[..., 0]


def refuse(tape: Tape, what: str) -> None:
    """Raise if there is none of this of features."""
    tape.structure.refuse(what)


def forward(
    structure: Features,
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
    """The association of `association.associate_forward` with a structure of features in place of the scores.

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
    heads, dtype = q.shape[-2], q.dtype
    ragged_queries = offsets is not None and structure.causal
    padded = None
    if ragged_queries and q.ndim == 4 and offsets is not None:
        lengths = np.diff(offsets)
        if q.shape[1] != lengths.max(initial=0):
            raise ValueError(
                f"queries: causal features need as many as stored rows, {lengths.max(initial=0)} of the largest bag, "
                f"got {q.shape[1]}"
            )
        sample = np.repeat(np.arange(len(lengths)), lengths)
        padded = q.shape, (sample, np.arange(len(sample)) - offsets[sample])
        q = q[padded[1]]
    shapes = [q.shape, k.shape, v.shape]
    if padding is not None:  # whatever a row that is none holds
        k, v = (np.where(padding[:, :, None, None], dtype.type(0), a) for a in (k, v))
    q, k = _sound("queries", q, beta), _sound("stored", k, beta)
    v = _sound("values", v, np.zeros(1))
    batches: list[tuple[_Batch, Any]] = []
    unsettled = 0
    if ragged_queries and (q.ndim != 3 or len(q) != len(k)):
        raise ValueError(f"queries: causal features need as many as stored rows, {k.shape}, got {q.shape}")
    if offsets is not None:
        samples = len(offsets) - 1
        out = np.zeros(
            (len(q), heads, v.shape[-1]) if ragged_queries else (samples, q.shape[-3], heads, v.shape[-1]), dtype
        )
        for which, rows, none in _bags(offsets):
            if not len(k):
                continue
            own = q[rows] if ragged_queries else q if q.ndim == 3 else q[which]
            parts = [_heads_first(a, len(which), heads) for a in (own, k[rows], v[rows])]
            batch = _Batch(structure, parts[0], parts[1], parts[2], beta, none)
            mixed, moving = batch.forward(steps, eps)
            unsettled += moving
            mixed = mixed.swapaxes(1, 2)
            if ragged_queries:
                there = slice(None) if none is None else ~none
                out[rows[there]] = mixed[there]
            else:
                out[which] = mixed
            if keep:
                batches.append((batch, (which, rows, none)))
    else:
        samples = max(len(a) if a.ndim == 4 else 1 for a in (q, k))
        if k.ndim == 3 and q.ndim == 4 and not structure.causal:  # one sample's rows, of more queries
            q, samples = q.reshape(1, -1, *q.shape[2:]), 1
        parts = [_heads_first(a, samples, heads) for a in (q, k, v)]
        if structure.causal and q.shape[-3] != k.shape[-3]:
            raise ValueError(f"queries: causal features need as many as stored rows, {k.shape[-3]}, got {q.shape[-3]}")
        batch = _Batch(structure, parts[0], parts[1], parts[2], beta, padding)
        mixed, unsettled = batch.forward(steps, eps)
        out = np.ascontiguousarray(mixed.swapaxes(1, 2)).reshape(-1, *shapes[0][-3:-1], v.shape[-1])
        batches.append((batch, None))
    if not np.isfinite(out).all():
        raise OverflowError(f"stored: sums over their features exceed the largest {dtype}; scale the arrays down")
    if padded is not None:
        out = _padded(padded, out)
    return out, Tape(structure, batches, shapes, ragged_queries, padded) if keep else None, unsettled


def backward(
    tape: Tape, grad: Array, need_rows: bool = True, need_beta: bool = True
) -> tuple[Array, Array | None, Array | None, Floats | None]:
    """The gradients of sum(grad * out), through all updates.

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
    if tape.padded is None:
        return _backward(tape, grad, need_rows, need_beta)
    dq, *others = _backward(tape, grad[tape.padded[1]], need_rows, need_beta)
    return _padded(tape.padded, dq), others[0], others[1], others[2]


def _backward(
    tape: Tape, grad: Array, need_rows: bool, need_beta: bool
) -> tuple[Array, Array | None, Array | None, Floats | None]:
    q_shape, k_shape, v_shape = tape.shapes
    batch, where = tape.batches[0] if tape.batches else (None, None)
    if batch is not None and where is None:
        g = grad.reshape(batch.q.shape[0], -1, *grad.shape[2:]).swapaxes(1, 2)
        dq, dk, dv, dbeta = batch.backward(g, rows=need_rows, beta=need_beta)
        rows = (None, None) if dk is None or dv is None else (_like(dk, k_shape), _like(dv, v_shape))
        return _like(dq, q_shape).reshape(q_shape), *rows, dbeta
    dtype, heads = grad.dtype, q_shape[-2]
    dq, dk, dv = (np.zeros(shape, dtype) for shape in tape.shapes)
    dbeta = np.zeros(heads)
    for batch, (which, rows, none) in tape.batches:
        g = grad[rows] if tape.ragged_queries else grad[which]
        there = slice(None) if none is None else ~none
        if tape.ragged_queries and none is not None:
            g = np.where(none[:, :, None, None], 0, g)
        by_q, by_k, by_v, by_beta = batch.backward(g.swapaxes(1, 2), rows=need_rows, beta=need_beta)
        if tape.ragged_queries:
            dq[rows[there]] = _like(by_q, (len(which), *q_shape))[there]
        elif len(q_shape) == 3:
            dq += _like(by_q, q_shape)
        else:
            dq[which] = _like(by_q, q_shape)
        if by_k is not None and by_v is not None:
            dk[rows[there]] = _like(by_k, (len(which), *k_shape))[there]
            dv[rows[there]] = _like(by_v, (len(which), *v_shape))[there]
        if by_beta is not None:
            dbeta += by_beta
    return dq, dk if need_rows else None, dv if need_rows else None, dbeta if need_beta else None
