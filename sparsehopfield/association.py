"""The association of the layers, as two pure functions: forward, and backward from what forward saved.

Every query x moves to the mixture of its stored rows, x <- sum_j p_j k_j with p = separation(beta k x + mask), as
often as asked, each query for itself; then the values are mixed by its last association. `layers` are thin users of
these functions; csrc/association does the work.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import reference
from .checks import Array

__all__ = ["Projection", "Saved", "associate_backward", "associate_forward", "association_weights"]


class Projection(NamedTuple):
    """Rows seen through a linear map, one for each head: W_h r + b_h.

    Attributes
    ----------
    weight : ndarray of shape (H, d, e)
    bias : ndarray of shape (H, d)
    """

    weight: Array
    bias: Array


class Saved:
    """What a forward pass keeps for its backward pass. It holds on to the arrays given, which must not change."""

    _inner: Any
    dtype: Any
    shared: bool


def associate_forward(
    queries: ArrayLike,
    stored: ArrayLike,
    values: ArrayLike,
    beta: ArrayLike,
    *,
    separation: Any = "sparsemax",
    update_steps_max: int | None = 0,
    update_steps_eps: float = 1e-4,
    padding_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    offsets: ArrayLike | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    gradient: str = "unrolled",
    key_projection: Projection | None = None,
    value_projection: Projection | None = None,
) -> tuple[Array, Saved]:
    """Batched, multi-head, masked association, repeated, with everything that its gradient needs.

    Parameters
    ----------
    queries : array_like of shape (B, N, H, d), or (N, H, d) shared by all samples
    stored : array_like of shape (B, M, H, d), or (M, H, d) shared by all samples, or (R, H, d) with `offsets`
        H may be 1 here: rows shared by all heads.
    values : array_like, shaped as `stored`, with v features instead of d
    beta : float or array_like of shape (H,)
    update_steps_max : int or None
        The first association and at most so many more; None or negative: until every query has come to rest.
    update_steps_eps : float
        A query has come to rest when its weights move by at most this, in the Euclidean norm.
    padding_mask : array_like of bool, shape (B, M)
        True where a stored row is none.
    mask : array_like, shape (N, M), (B, N, M), (B, H, N, M) or hflayers' (B * H, N, M)
        bool, True where a query must not look; or numbers added to the scores, -inf included.
    offsets : array_like of int, shape (B + 1,)
        Ragged bags: sample b has rows offsets[b] to offsets[b + 1].
    dropout : float from 0 to below 1
        Rate at which single weights of the last association are dropped; the others grow by 1 / (1 - rate).
    seed : int from 0 to 2^64 - 1
        Of dropout.
    gradient : {"unrolled", "implicit"}
        Through all updates; or at the fixed point reached.
    key_projection, value_projection : Projection
        The rows are W_h r + b_h in place of r; then `stored` or `values` have e features and one head.

    Returns
    -------
    out : ndarray of shape (B, N, H, v)
    saved : Saved
    """
    arrays = [np.asarray(a) for a in (queries, stored, values)]
    out, inner = reference.associate_forward(
        *arrays,
        beta,
        separation=separation,
        update_steps_max=update_steps_max,
        update_steps_eps=update_steps_eps,
        padding_mask=None if padding_mask is None else np.asarray(padding_mask),
        mask=None if mask is None else np.asarray(mask),
        offsets=None if offsets is None else np.asarray(offsets),
        dropout=dropout,
        seed=seed,
        gradient=gradient,
        key_projection=key_projection,
        value_projection=value_projection,
    )
    saved = Saved()
    saved._inner, saved.dtype, saved.shared = inner, np.result_type(*arrays), arrays[0].ndim == 3
    return out.astype(saved.dtype), saved


def associate_backward(saved: Saved, grad: ArrayLike, *, need_rows: bool = True) -> tuple[Any, ...]:
    """The gradients of sum(grad * out): (queries, stored, values, beta), each shaped as its argument, beta (H,).

    Where projections were given, `(key_projection, value_projection)` follow, each a Projection of gradients or None.
    With `need_rows=False` the gradients of stored rows and values are left out (None), which saves work where the
    rows are data; those of projections are there.
    """
    dq, dk, dv, dbeta, *more = reference.associate_backward(saved._inner, np.asarray(grad))
    dtype = saved.dtype
    if saved.shared:
        dq = dq.sum(axis=0)
    rows = (dk.astype(dtype), dv.astype(dtype)) if need_rows else (None, None)
    rest = tuple(None if p is None else Projection(*(a.astype(dtype) for a in p)) for p in more)
    return dq.astype(dtype), *rows, dbeta, *rest


def association_weights(saved: Saved) -> Any:
    """The weights of the last association, before dropout: dense (B, H, N, M), or where the map has a window a
    csr_array of shape (B * H * N, M), rows in that order; M is the largest bag's size where bags are ragged."""
    from scipy.sparse import csr_array

    s = saved._inner
    B, N, H, _ = s.queries.shape
    sizes = np.diff(s.offsets) if s.offsets is not None else [s.stored.shape[-3]]
    weights = np.zeros((B, H, N, max(sizes)), saved.dtype)
    for (b, n, h), (trail, _) in s.trails.items():
        weights[b, h, n, : len(trail[-1][2])] = trail[-1][2]
    if s.separation == "softmax" or hasattr(s.separation, "order"):
        return weights
    return csr_array(weights.reshape(B * H * N, -1))
