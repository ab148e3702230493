"""The separation maps as functions of tensors: softmax, sparsemax, entmax and normmax, along any axis.

On the CPU the core computes all but softmax, for which torch is faster; plain torch (`_maps`) computes elsewhere, and
derivatives beyond the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from sparsehopfield import _core
from sparsehopfield._engine.checks import as_whole, ignoring_float_errors
from sparsehopfield._engine.separations import MAPS, ROWS
from sparsehopfield._engine.text import short
from sparsehopfield.torch import _maps
from sparsehopfield.torch._arguments import as_dense
from sparsehopfield.torch._arrays import array_of, compute_dtype, tensor_like
from sparsehopfield.torch._backend import OPERATOR, PLAIN, as_backend, route_of
from sparsehopfield.torch._custom_op import custom_op
from sparsehopfield.torch._maps import ENTMAX, NORMMAX, SOFTMAX, SPARSEMAX

__all__ = ["entmax", "normmax", "softmax", "sparsemax"]


# --- the core ---------------------------------------------------------------------------------------------------------


def _parameters(code: int, parameter: float, learned: Tensor | None) -> list[Any]:
    """Return the parameter as the core's functions take it: none, a number, or one for each row."""
    if ROWS[code].parameter is None:
        return []
    return [np.float64(parameter) if learned is None else array_of(learned, torch.float64)[..., 0]]


@ignoring_float_errors()
def _forward(z: Tensor, learned: Tensor | None, parameter: float, code: int) -> Tensor:
    """Return the weights (..., M), by the core."""
    weights = _core.row_maps[ROWS[code].name](array_of(z, compute_dtype(z)), *_parameters(code, parameter, learned))
    return tensor_like(weights, z)


@ignoring_float_errors()
def _backward(
    p: Tensor, g: Tensor, learned: Tensor | None, parameter: float, code: int, needs: Sequence[bool] = (True, True)
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients by the scores and by a learned parameter, those that are needed, by the core."""
    name, dtype = ROWS[code].name, compute_dtype(p)
    arrays = array_of(p, dtype), array_of(g, dtype), *_parameters(code, parameter, learned)
    dz = tensor_like(_core.row_maps[f"{name}_vjp"](*arrays), p) if needs[0] else None
    if learned is None or not needs[1]:
        return dz, None
    by_row = torch.from_numpy(np.asarray(_core.row_maps[f"{name}_vjp_alpha"](*arrays)))[..., None]
    return dz, by_row.sum_to_size(learned.shape).to(learned.dtype)


def _plain_backward(
    p: Tensor, g: Tensor, learned: Tensor | None, parameter: float, code: int
) -> tuple[Tensor, Tensor | None]:
    """Return what `_backward` does, by plain torch, which can differentiate it."""
    dz = _maps.jacobian_product(p, g, code, parameter if learned is None else learned)
    if learned is None:
        return dz, None
    by_row = (g * _maps.parameter_derivative(p, code, learned)).sum(-1, keepdim=True)
    return dz, by_row.sum_to_size(learned.shape)


class _RowMap(Function):
    """A row map in the core, which keeps its weights alone."""

    @staticmethod
    def forward(z: Tensor, learned: Tensor | None, parameter: float, code: int) -> Tensor:
        return _forward(z, learned, parameter, code)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, learned, ctx.parameter, ctx.code = inputs
        ctx.save_for_backward(output, learned)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        if g is None:  # of weights that a loss only looks at
            return None, None, None, None
        p, learned = ctx.saved_tensors
        if torch.is_grad_enabled() or _maps.hides_gradients() or not _maps.can_look(g):
            gradients: Any = _plain_backward(p, g, learned, ctx.parameter, ctx.code)
        else:
            gradients = _backward(p, g, learned, ctx.parameter, ctx.code, ctx.needs_input_grad)
        return *gradients, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], z: Tensor, learned: Tensor | None, *options: Any) -> tuple[Any, int]:
        return _RowMap.apply(*_maps.batched(info.batch_size, in_dims, z, learned), *options), 0  # type: ignore[no-untyped-call]


# --- the core as an operator ------------------------------------------------------------------------------------------


@custom_op("sparsehopfield::row_map", device_types="cpu")
def row_map(z: Tensor, learned: Tensor | None, parameter: float, code: int) -> Tensor:
    """Return the weights of a map by the core, contiguous whatever the scores are, as compilers are told."""
    return _forward(z, learned, parameter, code).contiguous()


@row_map.register_fake
def _(z: Tensor, learned: Tensor | None, parameter: float, code: int) -> Tensor:
    return torch.empty_like(z, memory_format=torch.contiguous_format)


@custom_op("sparsehopfield::row_map_backward", device_types="cpu")
def row_map_backward(p: Tensor, g: Tensor, learned: Tensor | None, parameter: float, code: int) -> list[Tensor]:
    """Return the gradients by the scores and, where it is learned, by the parameter; contiguous."""
    return [d.contiguous() for d in _backward(p, g, learned, parameter, code) if d is not None]


@row_map_backward.register_fake
def _(p: Tensor, g: Tensor, learned: Tensor | None, parameter: float, code: int) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (p, learned) if t is not None]


def _operator_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, learned, *ctx.options = inputs
    ctx.save_for_backward(output, learned)


def _operator_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    p, learned = ctx.saved_tensors
    gradients = torch.ops.sparsehopfield.row_map_backward(p, g, learned, *ctx.options)
    return gradients[0], gradients[1] if learned is not None else None, None, None


def _second_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, ctx.parameter, ctx.code = inputs
    ctx.save_for_backward(*tensors)


def _second_backward(ctx: Any, gradients: list[Tensor]) -> tuple[Tensor | None, ...]:
    p, g, learned = ctx.saved_tensors
    given = [p, g] if learned is None else [p, g, learned]

    def first(p: Tensor, g: Tensor, learned: Tensor | None = None) -> list[Tensor]:
        return [d for d in _plain_backward(p, g, learned, ctx.parameter, ctx.code) if d is not None]

    found = torch.func.vjp(first, *given)[1](list(gradients))
    return *found, *([None] * (5 - len(found)))


row_map.register_autograd(_operator_backward, setup_context=_operator_context)
row_map_backward.register_autograd(_second_backward, setup_context=_second_context)


# --- the functions ----------------------------------------------------------------------------------------------------


def _checked(z: Any, dim: Any) -> int:
    """Return the axis of the rows from the front; raise for what is no tensor of floating numbers that has it."""
    if not as_dense("z", z).is_floating_point():
        raise TypeError(f"z: must be a tensor of floating numbers, got {z.dtype}")
    axis = as_whole("dim", dim, None)
    if not -z.dim() <= axis < z.dim():
        raise ValueError(f"dim: {axis} is out of range for z of shape {tuple(z.shape)}")
    return axis % z.dim()


def _alpha(name: str, alpha: Any, z: Tensor, axis: int) -> tuple[float, Tensor | None]:
    """Return alpha as a number or as a tensor that broadcasts to z with its rows last; checked, if without a wait."""
    parameter = MAPS[name].parameter
    assert parameter is not None
    if not isinstance(alpha, Tensor):
        return float(parameter.checked(alpha)), None
    if as_dense("alpha", alpha).dim() not in (0, z.dim()) or (alpha.dim() and alpha.shape[axis] != 1):
        raise ValueError(
            f"alpha: must be one number, or broadcast to z with size 1 along dim, got shape {tuple(alpha.shape)}"
        )
    if _maps.can_look(alpha):
        numbers = alpha.detach()
        if numbers.numel() and not bool(parameter.fits(numbers).all()):
            raise ValueError(f"alpha: must be {parameter.described('finite')}, got {short(numbers.tolist())}")
        if numbers.numel() == 1 and not (alpha.requires_grad or _maps.hides_gradients()):
            return float(numbers), None
    # one number may lie on the CPU beside another device, as in torch's arithmetic
    learned = alpha.to(z.device if alpha.is_cpu and alpha.dim() == 0 else alpha.device, compute_dtype(z))
    return 0.0, learned.movedim(axis, -1) if alpha.dim() else learned.reshape((1,) * z.dim())


def _weights(z: Tensor, axis: int, code: int, parameter: float, learned: Tensor | None, backend: str | None) -> Tensor:
    """Return the weights of rows along an axis, by whoever can compute them."""
    if z.shape[axis] == 0:
        return z.clone()
    if code == SOFTMAX and as_backend(backend) is None:
        backend = "torch"
    rows = z if axis == z.dim() - 1 else z.movedim(axis, -1)
    route = route_of(("z", "alpha"), (rows, learned), as_backend(backend))
    if route is PLAIN:
        dtype = compute_dtype(rows)
        p = _maps.weights(rows.to(dtype), code, parameter if learned is None else learned).to(z.dtype)
    elif route is OPERATOR:
        p = torch.ops.sparsehopfield.row_map(rows, learned, parameter, code)
    else:
        p = _RowMap.apply(rows, learned, parameter, code)  # type: ignore[no-untyped-call]
    return p if axis == z.dim() - 1 else p.movedim(-1, axis)


def softmax(z: Tensor, dim: int = -1, *, backend: str | None = None) -> Tensor:
    """Return softmax weights: e^z / sum e^z.

    Parameters
    ----------
    z : Tensor, shape (..., n, ...)
        Scores. -inf is a mask; NaN makes its row NaN, +inf shares the weight equally.
    dim : int
        The axis along which the weights sum to 1; negative ones count from the last.
    backend : {None, "core", "torch"}
        Who computes; None: torch, which is faster here.

    Returns
    -------
    Tensor
        Weights, of the shape and dtype of z. Zeros for a row all masked, unlike `torch.softmax`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.sparsemax : Weights of which most are 0.
    sparsehopfield.torch.softmax_loss : Cross entropy, whose gradient they are in.

    Examples
    --------
    >>> softmax(torch.tensor([0.0, 0.0, -torch.inf]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    return _weights(z, _checked(z, dim), SOFTMAX, 1.0, None, backend)


def sparsemax(z: Tensor, dim: int = -1, *, backend: str | None = None) -> Tensor:
    """Return sparsemax weights: the point of the probability simplex nearest to z.

    Parameters
    ----------
    z : Tensor, shape (..., n, ...)
        Scores. -inf is a mask; NaN makes its row NaN, +inf shares the weight equally.
    dim : int
        The axis along which the weights sum to 1; negative ones count from the last.
    backend : {None, "core", "torch"}
        Who computes; None: the core on the CPU, else plain torch.

    Returns
    -------
    Tensor
        Weights, of the shape and dtype of z. They sum to 1, most of them 0: only scores within 1 of the best can have
        weight. Zeros for a row all masked. Differentiable as often as wanted, and in forward mode.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.entmax : The family between softmax and sparsemax.
    sparsehopfield.torch.sparsemax_loss : The loss that goes with it.
    sparsehopfield.sparsemax : The same of arrays.

    References
    ----------
    Martins & Astudillo 2016, "From softmax to sparsemax".

    Examples
    --------
    >>> sparsemax(torch.tensor([2.0, 1.5, 0.0]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    return _weights(z, _checked(z, dim), SPARSEMAX, 2.0, None, backend)


def entmax(z: Tensor, alpha: float | Tensor = 1.5, dim: int = -1, *, backend: str | None = None) -> Tensor:
    """Return the weights of alpha-entmax: [(alpha - 1) z - tau]_+^(1 / (alpha - 1)), with sum 1.

    Parameters
    ----------
    z : Tensor, shape (..., n, ...)
        Scores. -inf is a mask; NaN makes its row NaN, +inf shares the weight equally.
    alpha : float or Tensor, at least 1
        1 is softmax, 2 sparsemax. A tensor of one number, or one that broadcasts to z and has size 1 along `dim`; it
        may have a gradient.
    dim : int
        The axis along which the weights sum to 1; negative ones count from the last.
    backend : {None, "core", "torch"}
        Who computes; None: the core on the CPU, else plain torch.

    Returns
    -------
    Tensor
        Weights, of the shape and dtype of z. Zeros for a row all masked.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault. A tensor `alpha` is checked where that needs no wait for a device.

    See Also
    --------
    sparsehopfield.torch.normmax : Another family, by norms.
    sparsehopfield.torch.entmax_loss : The loss that goes with it.
    sparsehopfield.entmax : The same of arrays.

    References
    ----------
    Peters, Niculae & Martins 2019, "Sparse sequence-to-sequence models"; Correia, Niculae & Martins 2019, "Adaptively
    sparse transformers", for the gradient by alpha.

    Examples
    --------
    >>> alpha = torch.tensor(1.5, requires_grad=True)
    >>> p = entmax(torch.tensor([1.0, 0.0, -2.0]), alpha)
    >>> p[0].backward()
    >>> p.detach(), alpha.grad > 0
    (tensor([0.8307, 0.1693, 0.0000]), tensor(True))
    """
    axis = _checked(z, dim)
    parameter, learned = _alpha("entmax", alpha, z, axis)
    if learned is None and parameter in (1.0, 2.0):
        return _weights(z, axis, SOFTMAX if parameter == 1 else SPARSEMAX, parameter, None, backend)
    return _weights(z, axis, ENTMAX, parameter, learned, backend)


def normmax(z: Tensor, alpha: float | Tensor = 2.0, dim: int = -1, *, backend: str | None = None) -> Tensor:
    """Return the weights of alpha-normmax: u / sum u with u = [z - tau]_+^(1 / (alpha - 1)) and |u|_alpha = 1.

    Parameters
    ----------
    z : Tensor, shape (..., n, ...)
        Scores. -inf is a mask; NaN makes its row NaN, +inf shares the weight equally.
    alpha : float or Tensor, above 1
        The larger, the more evenly the weight is shared. A tensor of one number, or one that broadcasts to z and has
        size 1 along `dim`; it may have a gradient.
    dim : int
        The axis along which the weights sum to 1; negative ones count from the last.
    backend : {None, "core", "torch"}
        Who computes; None: the core on the CPU, else plain torch.

    Returns
    -------
    Tensor
        Weights, of the shape and dtype of z. Zeros for a row all masked.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault. A tensor `alpha` is checked where that needs no wait for a device.

    See Also
    --------
    sparsehopfield.torch.entmax : Another family, by entropies.
    sparsehopfield.normmax : The same of arrays.

    References
    ----------
    Santos, Niculae, McNamee & Martins 2024, "Sparse and structured Hopfield networks".

    Examples
    --------
    >>> normmax(torch.tensor([3.0, 0.0, 0.0]))
    tensor([1., 0., 0.])
    """
    axis = _checked(z, dim)
    parameter, learned = _alpha("normmax", alpha, z, axis)
    return _weights(z, axis, NORMMAX, parameter, learned, backend)
