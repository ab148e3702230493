"""The dense pieces of a layer, array in, array out: linear maps, layer normalisation, their gradients, AdamW.

Letters: n rows of e features, o outputs. Every function sees its arrays as C-contiguous matrices of one dtype, float32
or float64, flattened over all axes but the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, contiguous, ignoring_float_errors

__all__ = [
    "adamw",
    "feature_scale",
    "fold",
    "is_constant",
    "linear",
    "linear_backward",
    "normalize",
    "normalize_backward",
    "unfold",
]


def _matrix(x: Array) -> Array:
    """Return x as a contiguous matrix (n, e), e the last axis."""
    return contiguous(x) if x.ndim == 2 else contiguous(x).reshape(-1, x.shape[-1])


def is_constant(mean: Array | float, deviation: Array | float, n: int) -> Any:
    """Return whether n numbers of this mean and standard deviation are all equal but for rounding.

    The computed mean of n equal numbers is off by up to n eps of it, and deviations from it are then that error alone.
    scikit-learn's scalers have the same rule.
    """
    return deviation <= n * np.finfo(np.float64).eps * np.abs(mean)


def feature_scale(rows: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Return the mean of every feature of rows (n, e), and what to divide it by; both float64 (e,).

    That is its standard deviation, or 1 where it is constant. weight: how many times each row counts, (n,).
    """
    _, exponent = np.frexp(np.abs(rows).max(axis=0))  # scaled by it, squares neither overflow nor vanish
    with ignoring_float_errors():
        scaled = np.ldexp(rows, -exponent)
        if weight is None:
            mean, deviation = scaled.mean(axis=0, dtype=np.float64), scaled.std(axis=0, dtype=np.float64)
        else:
            mean = np.average(scaled.astype(np.float64), axis=0, weights=weight)
            deviation = np.sqrt(np.average((scaled - mean) ** 2, axis=0, weights=weight))
        constant = is_constant(mean, deviation, len(rows))
        return np.ldexp(mean, exponent), np.where(constant, 1.0, np.ldexp(deviation, exponent))


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x W^T + b, (..., o), of x (..., e), weight (o, e) and bias (o,) or None."""
    out = np.empty((*x.shape[:-1], len(weight)), x.dtype)
    _core.linear(_matrix(x), contiguous(weight), bias, out)
    return out


def linear_backward(x: Array, weight: Array, grad: Array, need_x: bool = True) -> tuple[Array | None, Array, Array]:
    """Return the gradients of `linear` in x (None where it is not needed), weight and bias, shaped as these."""
    dx = np.empty(x.shape, x.dtype) if need_x else None
    dweight, dbias = np.empty(weight.shape, x.dtype), np.empty(len(weight), x.dtype)
    _core.linear_backward(_matrix(x), contiguous(weight), contiguous(grad), dx, dweight, dbias)
    return dx, dweight, dbias


def normalize(x: Array, eps: float) -> tuple[Array, Array]:
    """Normalise x (..., e) without an affine part: xhat = (x - mean) / sqrt(variance + eps), over the last axis.

    Return xhat (..., e) and rstd = 1 / sqrt(variance + eps), (...).
    """
    x = contiguous(x)
    xhat, rstd = np.empty_like(x), np.empty(x.shape[:-1], x.dtype)
    _core.normalize(_matrix(x), eps, xhat, rstd)
    return xhat, rstd


def normalize_backward(xhat: Array, rstd: Array, grad: Array) -> Array:
    """Return the gradient of `normalize` in x: rstd (g - mean(g) - xhat mean(g xhat))."""
    out = np.empty_like(xhat)
    _core.normalize_backward(_matrix(xhat), rstd, contiguous(grad), out)
    return out


def fold(weight: Array, bias: Array | None, gain: Array, shift: Array, out: tuple[Array, Array]) -> None:
    """Merge an affine map and the linear one behind it: W (gain x + shift) + b = (W diag(gain)) x + (W shift + b).

    weight (o, e), bias (o,) or None, gain and shift (e,); out gets the weight (o, e) and the bias (o,).
    """
    _core.fold(weight, bias, gain, shift, *out)


def unfold(
    dweight: Array, dbias: Array, weight: Array, gain: Array, shift: Array, out: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return the gradients of `fold` in weight (in `out`, if given), gain and shift, from those in its two results.

    The gradient in the bias is `dbias` itself.
    """
    out = np.empty_like(weight) if out is None else out
    dgain, dshift = np.empty_like(gain), np.empty_like(shift)
    _core.unfold(contiguous(dweight), contiguous(dbias), weight, gain, shift, out, dgain, dshift)
    return out, dgain, dshift


def adamw(
    parameters: Sequence[Array],
    grads: Sequence[Array],
    first: Sequence[Array],
    second: Sequence[Array],
    step: int,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Make step number `step`, from 1 on, of AdamW over lists of arrays, in place.

    first, second: running means of the gradients and of their squares, which start at zero; shaped as the parameters.
    Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """
    for p, g, m, v in zip(parameters, grads, first, second, strict=True):
        _core.adamw(p, g if g.flags.carray else contiguous(g), m, v, step, learning_rate, *betas, eps, weight_decay)
