"""The association in plain torch: any device and dtype, all derivatives, the core's results to rounding.

Work and memory follow all pairs, whatever the structure: what is not seen is masked. Nothing waits for the device but
for the offsets of ragged bags, and with unlimited updates once in 16. What the core refuses is not looked for: NaN and
infinities go where arithmetic takes them, but not out of rows that a sample does not have.

Letters: b samples, n queries, m stored rows, h heads, d features of a state, e of an unprojected row, v of a value, f
features of a feature map.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsehopfield._engine.checks import as_offsets
from sparsehopfield._engine.separations import ROWS
from sparsehopfield._engine.structure import Structure
from sparsehopfield.structures import (
    BlockSparse,
    DilatedBlocks,
    RandomFeatures,
    RandomMask,
    TopK,
    Window,
)
from sparsehopfield.structures._feature_map import ELU, RANDOM, RELU, FeatureStructure
from sparsehopfield.torch import _maps
from sparsehopfield.torch._arguments import Options, Tensors, samples_of, structure_from
from sparsehopfield.torch._arrays import compute_dtype
from sparsehopfield.torch._custom_op import constant_result, custom_op

__all__ = ["associate"]

MOST_UPDATES = 10_000
UPDATES_BETWEEN_LOOKS = 16  # on a device, where to look is to wait
BITS = 0xFFFFFFFF


@constant_result  # older compilers cannot call it
def _has_autocast(device: str) -> bool:
    """Tell whether a kind of device has autocast."""
    return torch.amp.is_autocast_available(device)


def associate(tensors: Tensors, options: Options) -> Tensor:
    """Return the mixtures of values by the last association, (B, N, H, v), as `associate_forward` does.

    Raises
    ------
    ValueError
        If there is no such association: features with masks, dropout, projections or implicit gradients; causal
        features of other than as many queries as rows; a structure for other numbers of queries or rows.
    NotImplementedError
        If the number of updates is unlimited where Python cannot look whether they have ended: compiled, under vmap, or
        on meta.
    """
    device = tensors.queries.device.type
    with torch.autocast(device, enabled=False) if _has_autocast(device) else nullcontext():
        return _associate(tensors, options).to(tensors.queries.dtype)


# --- stored rows ------------------------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Stored rows, and the letters of their axes: "bmh" and one for features, without b or h where these are shared."""

    data: Tensor
    axes: str

    def products(self, x: Tensor) -> Tensor:
        """Return the products of x (b, n, h, d) and the rows, (b, h, n, m)."""
        return torch.einsum(f"bnhd,{self.axes}d->bhnm", x, self.data)

    def mixed(self, p: Tensor) -> Tensor:
        """Return the mixtures of the rows by weights p (b, h, n, m), (b, n, h, d)."""
        return torch.einsum(f"bhnm,{self.axes}d->bnhd", p, self.data)


def _as_rows(a: Tensor) -> _Rows:
    """Return rows (b, m, h, d) or (m, h, d), where one head stands for all."""
    axes = "bmh" if a.dim() == 4 else "mh"
    return _Rows(a.squeeze(-2), axes[:-1]) if a.shape[-2] == 1 else _Rows(a, axes)


class _Bags(NamedTuple):
    """Where the rows of ragged bags lie when they are padded to one size."""

    place: Tensor  # (B, M) of the row in the list of all; 0 where there is none
    none: Tensor  # (B, M) True where there is none
    sizes: Tensor  # (B,)

    def padded(self, a: Tensor) -> Tensor:
        """Return rows (R, h, d) as (B, M, h, d)."""
        return a.index_select(0, self.place.flatten()).reshape(*self.place.shape, *a.shape[1:])


def _without(none: Tensor, a: Tensor) -> Tensor:
    """Return rows (b, m, h, d) or (m, h, d) of all samples with 0 where there is none, (B, m)."""
    return a.masked_fill(none[:, :, None, None], 0)


def _bags(offsets: Tensor, rows: int, mask: Tensor | None) -> _Bags:
    """Return where the rows of bags lie.

    Offsets are checked by a copy on the CPU, for which a device is waited. Where nobody can look, they are not, and the
    largest bag may have all rows.
    """
    sizes = offsets.diff()
    if _maps.can_read(offsets):
        most = int(np.diff(as_offsets(_maps.numbers_of(offsets), rows)).max(initial=0))
        if mask is not None and mask.shape[-1] != most:
            raise ValueError(f"mask: must have a column for each of {most} rows, got {tuple(mask.shape)}")
    else:
        most = rows if mask is None else mask.shape[-1]
    j = torch.arange(most, device=offsets.device)
    none = j >= sizes[:, None]
    return _Bags((offsets[:-1, None] + j).masked_fill(none, 0), none, sizes)


# --- structures -------------------------------------------------------------------------------------------------------


@constant_result
def _kind(text: str) -> tuple[str, int, bool]:
    """Return what kind of structure it is ("", "pairs", "top", "features"), the k of "top", and if it is causal."""
    s = structure_from(text)
    if s is None:
        return "", 0, False
    if isinstance(s, TopK):
        return "top", s.k, False
    return "features" if isinstance(s, FeatureStructure) else "pairs", 0, bool(getattr(s, "causal", False))


def _best(z: Tensor, k: int) -> Tensor:
    """Return scores with those beyond the k best of each row masked; ties go to the first."""
    edge = z.topk(k, dim=-1).values[..., -1:]
    above, ties = z > edge, z == edge
    kept = above | (ties & (ties.cumsum(-1) <= k - above.sum(-1, keepdim=True)))
    return z.masked_fill(~kept, -torch.inf)


@lru_cache(16)
def _drawn(structure: RandomMask, n: int, m: int) -> np.ndarray:
    """Return which of m rows n queries see."""
    return structure.within(m).mask(n, m) if m else np.zeros((n, 0), bool)


def _seen_by_place(s: Window | DilatedBlocks, n: int, m: int, own: Tensor, device: torch.device) -> Tensor:
    """Return which rows are seen, (n, m) or (B, n, m), of samples with so many rows of their own; none beyond."""
    j = torch.arange(m, device=device)
    place = (
        torch.arange(n, device=device) if s.positions is None else torch.as_tensor(np.array(s.positions), device=device)
    )
    place = place[:, None]
    away = j - place
    seen = away % s.dilation == 0
    if isinstance(s, Window):
        seen &= away.abs() // s.dilation <= s.w
        seen = seen | torch.isin(j, torch.tensor(s.global_positions, dtype=torch.int64, device=device))
    else:
        seen &= j // s.block == place // s.block
    if s.causal:
        seen &= away <= 0
    return seen & (place < own) & (j < own)


def _seen(s: Structure, n: int, m: int, own: Tensor, device: torch.device) -> Tensor:
    """Return which rows are seen, (n, m) or (B, n, m); own: (), or (B, 1, 1) of ragged bags."""
    if isinstance(s, (Window, DilatedBlocks)):
        return _seen_by_place(s, n, m, own, device)
    sizes = own.flatten().tolist()
    if isinstance(s, BlockSparse):
        s.descriptor(n, sizes[0])  # raises for other sizes
        if any(size != sizes[0] for size in sizes):
            raise ValueError(f"mask: is for {sizes[0]} rows, but bags have {min(sizes)} to {max(sizes)}")
        blocks = torch.as_tensor(s.given.toarray() != 0, device=device)
        seen = blocks.repeat_interleave(s.block[0], 0).repeat_interleave(s.block[1], 1)
        return torch.nn.functional.pad(seen, (0, m - sizes[0]))
    if not isinstance(s, RandomMask):
        raise ValueError(f"structure: plain torch has no {type(s).__name__}")
    masks = np.zeros((len(sizes), n, m), bool)
    for mask, size in zip(masks, sizes, strict=True):
        mask[:, :size] = _drawn(s, n, size)
    seen = torch.as_tensor(masks, device=device)
    return seen if own.dim() else seen[0]


@custom_op("sparsehopfield::visible_rows")
def visible_rows(text: str, n: int, m: int, appended: int, sizes: Tensor | None, device: torch.device) -> Tensor:
    """Return which rows each query sees under a structure, (n, m), or (B, n, m) of ragged bags of these sizes.

    An operator, as it reads the structure, which a compiler cannot do.
    """
    s = structure_from(text)
    assert s is not None
    own = torch.tensor(m, device="cpu") if sizes is None else sizes[:, None, None]
    own = own - appended
    most = m - appended
    if sizes is None:
        if most <= 0:
            return torch.ones(n, m, dtype=torch.bool, device=device)
        s.within(most).descriptor(n, most)  # raises for what does not fit
    elif device.type == "meta" or sizes.is_meta:
        return torch.empty(len(sizes), n, m, dtype=torch.bool, device=device)
    own = own.to(device) if isinstance(s, (Window, DilatedBlocks)) else own
    return _seen(s, n, m, own, device) | (torch.arange(m, device=device) >= own.to(device))


@visible_rows.register_fake
def _(text: str, n: int, m: int, appended: int, sizes: Tensor | None, device: torch.device) -> Tensor:
    return (
        torch.empty(n, m, dtype=torch.bool, device=device)
        if sizes is None
        else sizes.new_empty(len(sizes), n, m, dtype=torch.bool)
    )


# --- dropout ----------------------------------------------------------------------------------------------------------


def _hash(x: Tensor) -> Tensor:
    """Return the hash of 32-bit numbers by the function lowbias32."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & BITS
    return x ^ (x >> 16)


def _dropout_factors(rate: float, seed: Tensor, p: Tensor) -> Tensor:
    """Return what weights p (b, h, n, m) are multiplied by: the core's, 0 or 1 / (1 - rate), by a hashed counter."""
    b, h, n, m = (torch.arange(size, device=p.device) for size in p.shape)
    seed = seed.reshape(()).to(p.device)
    number = (b[:, None, None, None] * p.shape[2] + n[:, None]) * p.shape[1] + h[:, None, None]
    key = _hash((number & BITS) ^ (seed & BITS))
    key = _hash(key ^ (number >> 32) ^ ((seed >> 32) & BITS))
    drawn = _hash(key ^ ((m * 0x9E3779B9) & BITS))
    return (drawn >= min(round(rate * 2**32), BITS)).to(p.dtype) / (1 - rate)


# --- updates ----------------------------------------------------------------------------------------------------------


def _updated(
    x: Tensor,
    found: Tensor,
    advance: Callable[[Tensor, Tensor], Tensor],
    examine: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Update states x (b, n, h, d) until each rests, or so many times; -1: until all rest.

    Parameters
    ----------
    x, found : Tensor
        States, and what is known of them.
    advance : callable
        Returns the next states.
    examine : callable
        Returns, from states, the next states and what is known of the former, what is known of the next ones, and which
        of them are moving yet, (b, n, h, 1).
    steps : int
    """
    moving = None
    for i in range(MOST_UPDATES if steps < 0 else steps):
        new = advance(x, found)
        new = new if moving is None else torch.where(moving, new, x)
        found, moved = examine(x, new, found)
        x, moving = new, moved if moving is None else moved & moving
        if _maps.can_look(moving) or (steps < 0 and _is_time_to_wait(i, moving)):
            if not bool(moving.any()):
                break
    return x, found


def _is_time_to_wait(i: int, moving: Tensor) -> bool:
    """Return whether to wait for a device after update i of unlimited ones."""
    if not _maps.can_read(moving):
        raise NotImplementedError(
            "update_steps_max: unlimited updates end when no query moves, which cannot be seen here (compiled, under "
            "vmap, or on meta); give their largest number"
        )
    return i % UPDATES_BETWEEN_LOOKS == UPDATES_BETWEEN_LOOKS - 1


class _NoSecondDerivative(torch.autograd.Function):
    """The gradient g of y, which cannot be differentiated: y is given so that whoever tries gets here."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, y: Tensor) -> Tensor:
        return g.view_as(g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        raise NotImplementedError("gradient: 'implicit' has no second derivatives; use 'unrolled'")


class _OnceDifferentiable(torch.autograd.Function):
    """The identity, whose gradient cannot be differentiated; where `exists` is False it is refused, or NaN."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, exists: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output, inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        y, exists = ctx.saved_tensors
        if _maps.can_look(exists) and not bool(exists.all()):
            raise ArithmeticError(
                "gradient: a fixed point is not isolated or not stable (beta is near a critical value); use "
                "gradient='unrolled'"
            )
        g = g.masked_fill(~exists, torch.nan)
        return g if torch.compiler.is_compiling() else _NoSecondDerivative.apply(g, y), None  # type: ignore[no-untyped-call]


class _OnceDifferentiableBothWays(_OnceDifferentiable):
    """The same with forward mode, which Dynamo does not take."""

    @staticmethod
    def jvp(ctx: Any, dy: Tensor, _: None) -> Tensor:
        return dy.masked_fill(~ctx.saved_tensors[0], torch.nan)


def _as_fixed_point(
    x: Tensor, p: Tensor, update: Callable[[Tensor], Tensor], rows: _Rows, beta: Tensor, options: Options
) -> Tensor:
    """Return states x at rest, with the gradient of the fixed point that they are: (1 - J)^-1 times that of an update.

    J = beta K^T P' K, P' = sum_i w_i (e_i - c) (e_i - c)^T, with the slopes w and the centre c of the map at weights p.
    """
    x, p, k = x.detach(), p.detach(), _Rows(rows.data.detach(), rows.axes)
    if p.shape[-1] == 0 or not (torch.is_grad_enabled() or _maps.hides_gradients()):
        return x
    w, centre = _maps.slopes(p, options.separation, options.parameter)
    mean, first = k.mixed(centre), k.mixed(w)
    pairs = _Rows((k.data[..., :, None] * k.data[..., None, :]).flatten(-2), k.axes)
    cross = first[..., :, None] * mean[..., None, :]
    total = w.sum(-1).transpose(1, 2)[..., None, None]
    j = pairs.mixed(w).reshape(*x.shape, x.shape[-1]) - cross - cross.mT
    j = j + total * (mean[..., :, None] * mean[..., None, :])
    one = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    system = one - beta.detach()[..., None] * j
    factor, failures = torch.linalg.cholesky_ex(system)
    exists = (failures == 0)[..., None]
    factor = torch.where(exists[..., None], factor, one)
    y = update(x)
    once: Any = _OnceDifferentiable if torch.compiler.is_compiling() else _OnceDifferentiableBothWays
    moves = once.apply(y, exists) - y.detach()  # 0  # type: ignore[no-untyped-call]
    return x + torch.cholesky_solve(moves[..., None], factor).squeeze(-1)


# --- pairs ------------------------------------------------------------------------------------------------------------


def _biased(z: Tensor, bias: Tensor | None, hidden: Tensor | None) -> Tensor:
    """Return scores with what a mask adds to them, and masked where rows are hidden."""
    z = z if bias is None else z + bias
    return z if hidden is None else z.masked_fill(hidden, -torch.inf)


def _by_heads(mask: Tensor) -> Tensor:
    """Return a mask that broadcasts to (b, h, n, m)."""
    return mask[:, None] if mask.dim() == 3 else mask


def _associate(t: Tensors, options: Options) -> Tensor:
    dtype = compute_dtype(t.queries, t.stored, t.values)
    q, stored, values = (a.to(dtype) for a in (t.queries, t.stored, t.values))
    hidden, bags, none = [], None, t.padding_mask
    is_same = t.stored is t.values
    if t.offsets is not None:
        bags = _bags(t.offsets, t.stored.shape[0], t.mask)
        none = bags.none
        stored, values = bags.padded(stored), values if is_same else bags.padded(values)
    if none is not None:  # weights of 0 would not rid mixtures of NaN, nor of gradients
        hidden.append(none[:, None, None, :])
        stored, values = _without(none, stored), values if is_same else _without(none, values)
    values = stored if is_same else values
    samples = samples_of(t.queries, t.stored, t.offsets)
    kind, k, causal = _kind(options.structure)
    heads, n, m = q.shape[-2], q.shape[-3], stored.shape[-3]
    beta = t.beta.to(dtype).expand(heads)[:, None]
    if kind == "features":
        return _associate_features(t, options, q, stored, values, beta, samples, none, causal)
    q = q.expand(samples, *q.shape[-3:])
    bias = None
    if t.mask is not None:
        if t.mask.dtype == torch.bool:
            hidden.append(_by_heads(t.mask))
        else:
            bias = _by_heads(t.mask).to(dtype)
    if kind == "pairs":
        sizes = None if bags is None else bags.sizes
        hidden.append(~_by_heads(visible_rows(options.structure, n, m, options.appended, sizes, q.device)))
    unseen = None
    for h in hidden:
        unseen = h if unseen is None else unseen | h
    best = k if kind == "top" and k < m else 0

    key_weight, key_bias = (None if a is None else a.to(dtype) for a in (t.key_weight, t.key_bias))
    keys = _as_rows(stored)
    invariant = ROWS[options.separation].shift_invariant
    if key_weight is not None and key_bias is not None and (options.implicit or options.steps < 0 or not invariant):
        keys = _Rows(
            torch.einsum(f"{keys.axes}e,hde->{keys.axes}hd", keys.data, key_weight) + key_bias, keys.axes + "h"
        )
        key_weight = None
    if key_weight is not None:  # q (W r + b) = (W^T q) r and a constant: rows need not be projected
        q = torch.einsum("bnhd,hde->bnhe", q, key_weight)

    def look(x: Tensor) -> Tensor:
        z = _biased(keys.products(beta * x), bias, unseen)
        return _maps.weights(_best(z, best) if best else z, options.separation, options.parameter)

    def advance(x: Tensor, p: Tensor) -> Tensor:
        mixture = keys.mixed(p)
        if key_weight is None or key_bias is None:
            return mixture
        shift = p.sum(-1).transpose(1, 2)[..., None] * key_bias
        return torch.einsum("bnhd,hde->bnhe", torch.einsum("bnhe,hde->bnhd", mixture, key_weight) + shift, key_weight)

    def examine(x: Tensor, new: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        new_p = look(new)
        with torch.no_grad():
            moved = torch.linalg.vector_norm(new_p - p, dim=-1) > options.eps
        return new_p, moved.transpose(1, 2)[..., None]

    implicit = options.implicit and options.steps != 0
    with torch.no_grad() if implicit else nullcontext():
        x, p = _updated(q, look(q), advance, examine, options.steps)
    if implicit:
        at_rest = _as_fixed_point(x, p, lambda x: advance(x, look(x)), keys, beta, options)
        p = look(at_rest + 0 * q)  # where they rest does not depend on the queries: their gradient is 0, not None
    if options.dropout and t.seed is not None:
        p = p * _dropout_factors(options.dropout, t.seed, p)
    out = _as_rows(values).mixed(p)
    if t.value_weight is None or t.value_bias is None:
        return out
    out = torch.einsum("bnhe,hve->bnhv", out, t.value_weight.to(dtype))
    return out + p.sum(-1).transpose(1, 2)[..., None] * t.value_bias.to(dtype)


# --- features ---------------------------------------------------------------------------------------------------------


@lru_cache(16)
def _projection(text: str, d: int) -> np.ndarray:
    structure = structure_from(text)
    assert isinstance(structure, RandomFeatures)
    return structure.projection(d)


@custom_op("sparsehopfield::feature_projection")
def feature_projection(text: str, features: int, d: int, device: torch.device) -> Tensor:
    """Return the projection W (D, d) of random features, float64; an operator, as it is drawn by NumPy."""
    return torch.tensor(_projection(text, d), device=device)


@feature_projection.register_fake
def _(text: str, features: int, d: int, device: torch.device) -> Tensor:
    return torch.empty(features, d, dtype=torch.float64, device=device)


@constant_result
def _feature_map(text: str) -> tuple[int, int]:
    """Return the kind of a feature map, and the number of random features."""
    s = structure_from(text)
    if isinstance(s, RandomFeatures):
        return RANDOM, s.n_features
    assert isinstance(s, FeatureStructure)
    return (ELU if s.to_fields()["kind"] == "elu+1" else RELU), 0


def _log_features(a: Tensor, kind: int, projection: Tensor | None) -> Tensor:
    """Return log phi (..., D) of rows (..., h, d) that are multiplied by sqrt(beta)."""
    if projection is not None:
        return a @ projection.mT - a.square().sum(-1, keepdim=True) / 2
    if kind == RELU:
        return torch.where(a > 0, a, torch.ones_like(a)).log().masked_fill(~(a > 0), -torch.inf)
    return a.clamp_max(0) + a.clamp_min(0).log1p()


def _finite(a: Tensor) -> Tensor:
    """Return numbers without gradients, 0 in place of -inf."""
    return a.detach().masked_fill(a == -torch.inf, 0)


def _associate_features(
    t: Tensors,
    options: Options,
    q: Tensor,
    stored: Tensor,
    values: Tensor,
    beta: Tensor,
    samples: int,
    none: Tensor | None,
    causal: bool,
) -> Tensor:
    """Return sum_j k(x, k_j) v_j / sum_j k(x, k_j), k(x, y) = <phi(x), phi(y)>; in units that no feature overflows.

    Causal ones are computed by their pairs, in float64: their units are those of all rows, and the first may be small.
    """
    given = {
        "dropout": options.dropout > 0,
        "mask": t.mask is not None,
        "gradient": options.implicit,
        "key_projection": t.key_weight is not None,
        "value_projection": t.value_weight is not None,
    }
    asked = [name for name, is_used in given.items() if is_used]
    if asked or options.separation != _maps.SOFTMAX or (causal and options.appended):
        s = structure_from(options.structure)
        s.association().check(s, (options.separation, options.parameter), options.appended, asked)  # type: ignore[union-attr]
    kind, size = _feature_map(options.structure)
    if causal and q.shape[-3] != stored.shape[-3]:
        raise ValueError(f"queries: causal features need as many as stored rows, {stored.shape[-3]}, got {q.shape[-3]}")
    q = q.expand(samples, *q.shape[-3:])
    if causal:
        q, stored, values, beta = q.double(), stored.double(), values.double(), beta.double()
    projection = (
        feature_projection(options.structure, size, q.shape[-1], q.device).to(q.dtype) if kind == RANDOM else None
    )
    stored, values = (a if a.dim() == 4 else a[None] for a in (stored, values))
    log_keys = _log_features(stored * beta.sqrt(), kind, projection)  # (b, m, h, D)
    if none is not None:
        log_keys = log_keys.masked_fill(none[:, :, None, None], -torch.inf)
    if log_keys.shape[1] == 0:
        return _as_rows(values).mixed(q.new_zeros(*q.shape[:1], q.shape[2], q.shape[1], 0)).to(t.queries.dtype)
    top = _finite(log_keys.amax(1, keepdim=True))
    phi_keys = (log_keys - top).exp()

    def mean(x: Tensor, rows: Tensor) -> Tensor:
        log_queries = _log_features(x * beta.sqrt(), kind, projection) + top
        phi = (log_queries - _finite(log_queries.amax(-1, keepdim=True))).exp()
        if causal:
            kernel = torch.einsum("bnhf,bmhf->bhnm", phi, phi_keys.expand(phi.shape[0], *phi_keys.shape[1:])).tril()
            total, mixed = kernel.sum(-1).transpose(1, 2)[..., None], _as_rows(rows.squeeze(0)).mixed(kernel)
        else:
            whole = phi_keys.sum(1, keepdim=True)
            total = (phi * whole).sum(-1, keepdim=True)
            sums = torch.einsum("bmhf,bmhd->bhfd", phi_keys, rows.expand(phi_keys.shape[0], -1, phi_keys.shape[2], -1))
            mixed = torch.einsum("bnhf,bhfd->bnhd", phi, sums.expand(phi.shape[0], -1, -1, -1))
        return mixed / total.masked_fill(total == 0, torch.inf)

    longest = stored.detach().square().sum(-1).sqrt().amax(1)[:, None, :, None]  # (b, 1, h, 1)

    def examine(x: Tensor, new: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        return found, torch.linalg.vector_norm(new - x, dim=-1, keepdim=True) > options.eps * longest

    x, _ = _updated(q, q, lambda x, _: mean(x, stored), examine, options.steps)
    out = mean(x, values)
    if causal and t.offsets is not None:  # a bag has as many queries as rows
        assert none is not None
        out = _without(none, out)
    return out
