"""The dense pieces of a layer, array in, array out: linear maps, layer normalisation, their gradients, AdamW.

Letters: n rows of e features, o outputs. Every function sees its arrays as C-contiguous matrices of one dtype, float32
or float64, flattened over all axes but the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .checks import Array

__all__ = [
    "adamw",
    "fold",
    "linear",
    "linear_backward",
    "normalize",
    "normalize_backward",
    "unfold",
]


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x W^T + b.

    Parameters
    ----------
    x : ndarray of shape (..., e)
    weight : ndarray of shape (o, e)
    bias : ndarray of shape (o,), optional

    Returns
    -------
    ndarray of shape (..., o)

    Examples
    --------
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([5.0]))
    array([[16.]])
    """
    out = x.reshape(-1, x.shape[-1]) @ weight.T
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], len(weight))


def linear_backward(x: Array, weight: Array, grad: Array, need_x: bool = True) -> tuple[Array | None, Array, Array]:
    """The gradients of `linear` in x (None where it is not needed), weight and bias."""
    flat, g = x.reshape(-1, x.shape[-1]), grad.reshape(-1, len(weight))
    return (g @ weight).reshape(x.shape) if need_x else None, g.T @ flat, g.sum(axis=0)


def normalize(x: Array, eps: float) -> tuple[Array, Array]:
    """Layer normalisation without its affine part: (x - mean) / sqrt(variance + eps), over the last axis.

    Parameters
    ----------
    x : ndarray of shape (..., e)
    eps : float, positive

    Returns
    -------
    xhat : ndarray of shape (..., e)
    rstd : ndarray of shape (...)
        1 / sqrt(variance + eps).

    Examples
    --------
    >>> normalize(np.array([[1.0, 3.0]]), 1e-12)[0]
    array([[-1.,  1.]])
    """
    xhat = x - x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(np.einsum("...i,...i->...", xhat, xhat) / x.shape[-1] + eps)
    rstd = rstd.astype(x.dtype, copy=False)
    xhat *= rstd[..., None]
    return xhat, rstd


def normalize_backward(xhat: Array, rstd: Array, grad: Array) -> Array:
    """The gradient of `normalize` in x: rstd (g - mean(g) - xhat mean(g xhat))."""
    along = np.einsum("...i,...i->...", grad, xhat)[..., None] / xhat.shape[-1]
    out = grad - grad.mean(axis=-1, keepdims=True)
    out -= xhat * along.astype(xhat.dtype, copy=False)
    out *= rstd[..., None]
    return out


def fold(weight: Array, bias: Array | None, gain: Array, shift: Array, out: tuple[Array, Array]) -> None:
    """One linear map for an affine one before a linear one: W (gain x + shift) + b = (W diag(gain)) x + (W shift + b).

    Parameters
    ----------
    weight : ndarray of shape (o, e)
    bias : ndarray of shape (o,), optional
    gain, shift : ndarray of shape (e,)
    out : ndarray of shape (o, e) and ndarray of shape (o,)
        Receive the weight and the bias.
    """
    folded, moved = out
    np.multiply(weight, gain, out=folded)
    np.matmul(weight, shift, out=moved)
    if bias is not None:
        moved += bias


def unfold(dweight: Array, dbias: Array, weight: Array, gain: Array, shift: Array) -> tuple[Array, Array, Array]:
    """The gradients of `fold` in weight, gain and shift, from those in its results; that in the bias is `dbias`."""
    return (
        dweight * gain + dbias[:, None] * shift,
        np.einsum("oe,oe->e", dweight, weight),
        dbias @ weight,
    )


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
    """One step of AdamW, in place, over lists of arrays.

    Parameters
    ----------
    parameters, first, second : sequence of ndarray
        Parameters and the running means of the gradients and of their squares; changed.
    grads : sequence of ndarray
        Shaped as the parameters.
    step : int, at least 1
        Which step this is, for the correction of the means' start at zero.

    References
    ----------
    Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """
    b1, b2 = betas
    rate, root = learning_rate / (1 - b1**step), (1 - b2**step) ** 0.5
    for p, g, m, v in zip(parameters, grads, first, second, strict=True):
        m += (1 - b1) * (g - m)
        v += (1 - b2) * (g * g - v)
        if weight_decay:
            p *= 1 - learning_rate * weight_decay
        p -= rate * m / (np.sqrt(v) / root + eps)
