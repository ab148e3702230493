"""The separation maps along the last axis in plain torch, on any device.

They can be differentiated as often as wanted, backward and forward, and vmapped. -inf is a mask, a row of masks alone
gives zeros, NaN makes its row NaN, and +inf shares the weight equally, as in `sparsehopfield.functional`.

Letters: z scores (..., M), p weights, u = z - max z, a = alpha - 1. Weights of entmax are [1 + a (u - theta)]_+^(1/a),
a form that has a limit at alpha = 1.

Thresholds are found by Newton's method on a norm of the weights, which is convex in the threshold and nearly linear,
so that few passes over the scores suffice. Where Python may look at the numbers it stops when no row moves. Elsewhere
(a compiler, vmap, other devices, where to look is to wait) sparsemax and entmax15 are sorted, and the others take a
fixed number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from sparsehopfield._engine.separations import MAPS

__all__ = [
    "batched",
    "can_look",
    "can_read",
    "hides_gradients",
    "jacobian_product",
    "parameter_derivative",
    "slopes",
    "weights",
]

SPARSEMAX, SOFTMAX, ENTMAX, POLYNOMIAL, NORMMAX = (
    MAPS[name].number for name in ("sparsemax", "softmax", "entmax", "polynomial", "normmax")
)
FIXED_STEPS = 16  # of Newton's method where nobody can look whether it has ended


def can_read(t: Tensor) -> bool:
    """Return whether Python may read the numbers of a tensor: it has some, and no compiler or vmap is at work."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        if torch._C._functorch.is_batchedtensor(t):
            return False
        t = torch._C._functorch.get_unwrapped(t)
    return not (t.is_meta or isinstance(t, FakeTensor) or torch._C._functorch.is_legacy_batchedtensor(t))


def numbers_of(t: Tensor) -> list[Any]:
    """Return the numbers of a tensor that Python may read.

    Within transforms of torch.func, too, where `tolist` of PyTorch 2.4 fails.
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    with torch._C._DisableFuncTorch():
        return t.tolist()


def can_look(t: Tensor) -> bool:
    """Return whether Python may read the numbers of a tensor without waiting for a device."""
    return t.is_cpu and can_read(t)


def hides_gradients() -> bool:
    """Return whether torch.func or forward mode is at work, so that tensors do not tell who needs their gradients."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


# --- thresholds ---------------------------------------------------------------------------------------


def _from_best(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return u = z - max z, and which rows (..., 1) have no score at all."""
    z = z.clamp(max=torch.finfo(z.dtype).max)  # +inf less itself would be NaN
    best = z.amax(-1, keepdim=True)
    none = best == -torch.inf
    return z - best.masked_fill(none, 0), none


def _limit(step: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the limit of x <- x + step(x), whose steps keep their sign until they are rounding errors."""
    look = can_look(x)
    least = 2 * torch.finfo(x.dtype).eps
    for _ in range(200 if look else FIXED_STEPS):
        dx = step(x)
        x = x + dx
        if look and not bool((dx.abs() > least * (1 + x.abs())).any()):
            break
    return x


def _divided(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b of numbers b >= 0, and 0 where b is 0."""
    return a / b.masked_fill(b == 0, torch.inf)


def _sparsemax(u: Tensor) -> Tensor:
    """Return the weights [1 + u - theta]_+ (Martins & Astudillo 2016)."""

    def step(theta: Tensor) -> Tensor:
        y = (u1 - theta).clamp_min(0)
        return _divided(y.sum(-1, keepdim=True) - 1, (y > 0).sum(-1, keepdim=True, dtype=u.dtype))

    u1 = u + 1
    if can_look(u):
        theta = _limit(step, torch.zeros_like(u[..., :1]))
    else:
        s = u.clamp_min(-1).sort(dim=-1, descending=True).values
        k = torch.arange(1, u.shape[-1] + 1, device=u.device, dtype=u.dtype)
        c = s.cumsum(-1)
        size = (1 + k * s > c).sum(-1, keepdim=True).clamp_min(1)
        theta = (c.gather(-1, size - 1) - 1) / size + 1
        theta = theta + step(theta)  # corrects what the sums of sorted scores were rounded by
    return (u1 - theta).clamp_min(0)


def _entmax15(u: Tensor) -> Tensor:
    """Return the weights [1 + (u - theta) / 2]_+^2 (Peters, Niculae & Martins 2019, algorithm 2)."""

    def step(theta: Tensor) -> Tensor:
        y = (u1 - theta).clamp_min(0)
        total = (y * y).sum(-1, keepdim=True)
        return _divided(total - total.sqrt(), y.sum(-1, keepdim=True))

    u1 = u / 2 + 1  # and theta here is half of the other
    if can_look(u):
        theta = _limit(step, torch.zeros_like(u[..., :1]))
    else:
        s = (u / 2).clamp_min(-1).sort(dim=-1, descending=True).values
        k = torch.arange(1, u.shape[-1] + 1, device=u.device, dtype=u.dtype)
        mean = s.cumsum(-1) / k
        spread = (s * s).cumsum(-1) - k * mean * mean
        tau = mean - ((1 - spread).clamp_min(0) / k).sqrt()
        size = (tau < s).sum(-1, keepdim=True).clamp_min(1)
        theta = tau.gather(-1, size - 1) + 1
        theta = theta + step(theta)
    return (u1 - theta).clamp_min(0).square()


def _entmax(u: Tensor, a: float | Tensor) -> Tensor:
    """Return the weights of alpha-entmax for 0 < a <= 1."""

    def log_weights(theta: Tensor) -> Tensor:
        return (a * (u - theta)).clamp_min(-1).log1p() / a

    def step(theta: Tensor) -> Tensor:
        log_p = log_weights(theta)
        total = log_p.exp().sum(-1, keepdim=True)
        slope = torch.exp((1 - a) * log_p).masked_fill(log_p == -torch.inf, 0).sum(-1, keepdim=True)
        return _divided(-total * torch.expm1(-a * total.log()) / a, slope)

    return log_weights(_limit(step, torch.zeros_like(u[..., :1]))).exp()


def _power_sum_root(c: Tensor, q: Tensor, a: float | Tensor) -> Tensor:
    """Return (c^a + q^a)^(1/a), where powers may overflow or underflow."""
    most, least = torch.maximum(c, q), torch.minimum(c, q)
    return most * torch.exp(torch.log1p((least / most.clamp_min(torch.finfo(c.dtype).tiny)) ** a) / a)


def _entmax_steep(u: Tensor, a: float | Tensor) -> Tensor:
    """Return the weights of alpha-entmax for a > 1.

    There the root is steep, and digits that a threshold loses count: weights are (a (u - lowest) + q^a)^(1/a) instead,
    with `lowest` the lowest score of the support and q its weight. A score is in the support if the weights of those
    above it sum to less than 1 at the threshold that gives it weight 0.
    """
    s = u.sort(dim=-1, descending=True).values
    size = torch.ones_like(u[..., :1], dtype=torch.int64)
    most = torch.full_like(size, u.shape[-1])
    for _ in range(u.shape[-1].bit_length() if isinstance(u.shape[-1], int) else 32):
        middle = (size + most + 1) // 2
        above = (a * (u - s.gather(-1, middle - 1))).clamp_min(0) ** (1 / a)
        inside = above.sum(-1, keepdim=True) < 1
        size, most = torch.where(inside, middle, size), torch.where(inside, most, middle - 1)
        most = torch.maximum(size, most)
    lowest = s.gather(-1, size - 1)
    outside = u < lowest
    c = (a * (u - lowest)).clamp_min(0) ** (1 / a)

    def of(q: Tensor) -> Tensor:
        return _power_sum_root(c, q, a).masked_fill(outside, 0)

    def step(q: Tensor) -> Tensor:
        p = of(q)
        slope = (q / p.masked_fill(outside, torch.inf)).clamp(0, 1) ** (a - 1)
        return _divided(1 - p.sum(-1, keepdim=True), slope.sum(-1, keepdim=True))

    return of(_limit(step, 1 / size.to(u.dtype)))


def _normmax(u: Tensor, alpha: float | Tensor) -> Tensor:
    """Return the weights y / sum y, y = [1 + u - theta]_+^(1/a), whose alpha-norm is 1."""
    a = alpha - 1

    def step(theta: Tensor) -> Tensor:
        x = (u - theta + 1).clamp_min(0)
        y = x ** (1 / a)
        total = (x * y).sum(-1, keepdim=True)
        return _divided(total - total ** (1 / alpha), y.sum(-1, keepdim=True))

    y = (u - _limit(step, torch.zeros_like(u[..., :1])) + 1).clamp_min(0) ** (1 / a)
    return _divided(y, y.sum(-1, keepdim=True))


def _thresholded(z: Tensor, code: int, parameter: float | Tensor) -> Tensor:
    """Return the weights of a map with a threshold."""
    u, none = _from_best(z)
    if code == NORMMAX:
        p = _normmax(u, parameter)
    elif isinstance(parameter, Tensor):
        a = parameter - 1
        gentle = _entmax(u, a.clamp(torch.finfo(z.dtype).tiny, 1))
        p = torch.where(a > 1, _entmax_steep(u, a.clamp_min(1)), gentle)
        p = torch.where(a == 0, torch.softmax(u, -1), p)
    elif parameter == 2:
        p = _sparsemax(u)
    elif parameter == 1.5:
        p = _entmax15(u)
    else:
        p = _entmax(u, parameter - 1) if parameter < 2 else _entmax_steep(u, parameter - 1)
    return p.masked_fill(none, 0)


# --- derivatives --------------------------------------------------------------------------------------


def _alpha_norm(p: Tensor, alpha: float | Tensor) -> Tensor:
    """Return |p|_alpha of weights (..., M), whose powers may leave the range; 1 where there is none."""
    largest = p.detach().amax(-1, keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    total = ((p / largest) ** alpha).sum(-1, keepdim=True)
    return largest * torch.where(total > 0, total, torch.ones_like(total)) ** (1 / alpha)


def slopes(p: Tensor, code: int, parameter: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return w and c, both (..., M), of the Jacobian sum_i w_i (e_i - c) (e_i - c)^T of a map at its weights p."""
    support = p > 0
    inside = torch.where(support, p, torch.ones_like(p))
    if code == NORMMAX:
        norm = _alpha_norm(p, parameter)
        w = (inside / norm) ** (2 - parameter) * norm / (parameter - 1)
        return w.masked_fill(~support, 0), p
    alpha: float | Tensor = {SPARSEMAX: 2.0, SOFTMAX: 1.0}.get(code, parameter)
    w = (inside ** (2 - alpha)).masked_fill(~support, 0)
    return w, _divided(w, w.sum(-1, keepdim=True))


def jacobian_product(p: Tensor, g: Tensor, code: int, parameter: float | Tensor) -> Tensor:
    """Return the Jacobian of a map at its weights p, which is symmetric, times g; not of polynomials."""
    support = p > 0
    one = torch.ones_like(p)
    inside = torch.where(support, p, one)
    g = torch.where(support, g, torch.zeros_like(g))
    if code == NORMMAX:
        w, centre = slopes(p, code, parameter)
        centred = torch.where(support, w * (g - (centre * g).sum(-1, keepdim=True)), torch.zeros_like(g))
        return centred - p * centred.sum(-1, keepdim=True)
    unit: Tensor | float = 1.0  # of the slopes, which may overflow
    if code == SOFTMAX or (code == ENTMAX and not isinstance(parameter, Tensor) and parameter == 1):
        return p * (g - (p * g).sum(-1, keepdim=True))
    if code == SPARSEMAX:
        slope = support.to(p.dtype)
    elif not isinstance(parameter, Tensor) and parameter == 1.5:
        slope = torch.where(support, inside.sqrt(), torch.zeros_like(p))
    else:
        steep = torch.as_tensor(parameter, dtype=p.dtype, device=p.device) > 2
        least, at = inside.detach().min(-1, keepdim=True)
        unit = torch.where(steep, least, one[..., :1])
        # its slope may be all that counts: means are taken of what g is above that of the least weight
        g = torch.where(support, g - g.gather(-1, at) * steep, torch.zeros_like(g))
        slope = torch.where(support, (inside / unit) ** (2 - parameter), torch.zeros_like(p))
        unit = unit ** (2 - parameter)
    mean = _divided((slope * g).sum(-1, keepdim=True), slope.sum(-1, keepdim=True))
    return slope * (g - mean) * unit


def _phi(x: Tensor, m: Tensor) -> Tensor:
    """Return (e^x - 1 - x) / x^2 times e^-m for 0 <= x <= m, by its series where the difference would cancel."""
    small = x.clamp_max(1)
    series = torch.zeros_like(x)
    for k in range(19, -1, -1):  # sum of x^k / (k + 2)!, by Horner's rule
        series = (1 + series * small) / (k + 2)
    large = x.clamp_min(1)
    direct = (torch.exp(large - m) - (1 + large) * torch.exp(-m)) / large.square()
    return torch.where(x < 1, series * torch.exp(-m), direct)


def parameter_derivative(p: Tensor, code: int, alpha: Tensor) -> Tensor:
    """Return dp / dalpha of entmax or normmax at weights p (..., M)."""
    support, a = p > 0, alpha - 1
    inside = torch.where(support, p, torch.ones_like(p))
    if code == NORMMAX:
        # Differentiating p = y / sum y, y = x^(1/a), x = u - theta, and sum x y = 1: dtheta = -<p, x log y> / alpha
        # and dp = p (q - <p, q>), q = (-log y - dtheta / x) / a
        y = inside / _alpha_norm(p, alpha)
        x, log_y = y**a, y.log()
        q = (-log_y + (p * x * log_y).sum(-1, keepdim=True) / alpha / x) / a
    else:
        # With v = log p, q = v^2 phi(-a v), Q = <p, q>, H = -<p, v>, D = sum p^(1-a) = 1 + a H + a^2 Q, in units of
        # e^m = max p^(1-a): dp / dalpha = p / D ((Q - q) - a (Q v + H q)), which is not 0/0 as alpha -> 1
        v = inside.log()
        x = -a * v
        m = x.detach().amax(-1, keepdim=True)
        q = v.square() * _phi(x, m)
        mean_q, entropy = (p * q).sum(-1, keepdim=True), -(p * v).sum(-1, keepdim=True)
        d = (p * torch.exp(x - m)).sum(-1, keepdim=True)
        return _divided(p * ((mean_q - q) - a * (mean_q * v + entropy * q)), d)
    return p * (q - (p * q).sum(-1, keepdim=True))


def batched(size: int, in_dims: tuple[Any, ...], z: Tensor, parameter: Any) -> tuple[Tensor, Any]:
    """Return scores and a parameter with the axis of vmap in front; a parameter without one broadcasts."""
    z = z.expand(size, *z.shape) if in_dims[0] is None else z.movedim(in_dims[0], 0)
    return z, parameter if in_dims[1] is None else parameter.movedim(in_dims[1], 0)


class _Map(torch.autograd.Function):
    """A map with a threshold, of which the weights alone are kept; its gradient can be differentiated."""

    @staticmethod
    def forward(z: Tensor, parameter: float | Tensor, code: int) -> Tensor:
        return _thresholded(z, code, parameter)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, parameter, ctx.code = inputs
        ctx.set_materialize_grads(False)
        learned = isinstance(parameter, Tensor)
        ctx.parameter = None if learned else parameter
        ctx.save_for_backward(output, *([parameter] if learned else []))
        ctx.save_for_forward(output, *([parameter] if learned else []))

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if g is None:  # of weights that a loss only looks at
            return None, None, None
        p, *learned = ctx.saved_tensors
        parameter = learned[0] if learned else ctx.parameter
        dz = jacobian_product(p, g, ctx.code, parameter) if ctx.needs_input_grad[0] else None
        if not learned or not ctx.needs_input_grad[1]:
            return dz, None, None
        by_row = (g * parameter_derivative(p, ctx.code, parameter)).sum(-1, keepdim=True)
        return dz, by_row.sum_to_size(parameter.shape), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], z: Tensor, parameter: Any, code: int) -> tuple[Tensor, int]:
        return _map_class().apply(*batched(info.batch_size, in_dims, z, parameter), code), 0  # type: ignore[no-untyped-call]


class _MapBothWays(_Map):
    """The same with forward mode, which Dynamo does not take."""

    @staticmethod
    def jvp(ctx: Any, dz: Tensor | None, dparameter: Tensor | None, _: None) -> Tensor:
        p, *learned = ctx.saved_tensors
        dp = (
            torch.zeros_like(p)
            if dz is None
            else jacobian_product(p, dz, ctx.code, learned[0] if learned else ctx.parameter)
        )
        if dparameter is not None:
            dp = dp + parameter_derivative(p, ctx.code, learned[0]) * dparameter
        return dp


def _map_class() -> type[_Map]:
    return _Map if torch.compiler.is_compiling() else _MapBothWays


# --- the maps -----------------------------------------------------------------------------------------


def _softmax(z: Tensor) -> Tensor:
    best = z.amax(-1, keepdim=True)
    if can_look(best) and bool(best.isfinite().all()):
        return torch.softmax(z, -1)
    z = torch.where(best == torch.inf, torch.where(z == torch.inf, 0.0, -torch.inf).to(z.dtype), z)
    none = best == -torch.inf
    return torch.softmax(z.masked_fill(none, 0), -1).masked_fill(none, 0)


def _polynomial(z: Tensor, order: int) -> Tensor:
    """Return z^order / sum z^order, a mask counting as 0; the ratio does not change with the scale of z."""
    most = torch.finfo(z.dtype).max
    z = z.masked_fill(z == -torch.inf, 0).clamp(max=most)
    largest = z.detach().abs().amax(-1, keepdim=True)
    power = (z / torch.where(largest == 0, torch.ones_like(largest), largest)) ** order
    total = power.sum(-1, keepdim=True)
    none = total == 0
    return (power / torch.where(none, torch.ones_like(total), total)).masked_fill(none, 0)


def weights(z: Tensor, code: int, parameter: float | Tensor) -> Tensor:
    """Return the weights (..., M) of scores.

    Parameters
    ----------
    z : Tensor, shape (..., M), of float32 or float64
    code : int
        The map's number in the core.
    parameter : float or Tensor
        The number that chooses one map of its family; as a tensor, which may have a gradient, it is of entmax or
        normmax, with as many axes as z, the last of size 1.
    """
    if z.shape[-1] == 0:
        return z
    if code == SOFTMAX or (code == ENTMAX and not isinstance(parameter, Tensor) and parameter == 1):
        return _softmax(z)
    if code == POLYNOMIAL:
        return _polynomial(z, int(parameter))
    if not isinstance(parameter, Tensor) and parameter == 2 and code == ENTMAX:
        code = SPARSEMAX
    p: Tensor = _map_class().apply(z, 2.0 if code == SPARSEMAX else parameter, code)  # type: ignore[no-untyped-call]
    return p
