"""Fenchel-Young losses of rows of scores: what softmax, sparsemax and entmax predict beside what is true.

L(z; q) = Omega*(z) + Omega(q) - <z, q>, with the conjugate Omega*, whose gradient p is the map, and the distribution q
that is true: e_y for a class y, where L = Omega*(z) - z_y as Omega(e_y) is 0. The gradient of L is p - q, and L is 0
where p = q: for sparsemax and entmax from a finite margin of the true class on. `sparsehopfield.torch` has the same for
tensors.

References: Martins & Astudillo 2016 for sparsemax; Blondel, Martins & Niculae 2020, "Learning with Fenchel-Young
losses".
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import (
    Array,
    as_array,
    as_flag,
    as_integers,
    as_numbers,
    as_weights,
    as_whole,
    contiguous,
    ignoring_float_errors,
)
from sparsehopfield._engine.separations import MAPS, as_choice
from sparsehopfield.row_maps import checked_axis, float_rows

__all__ = ["entmax_loss", "softmax_loss", "sparsemax_loss"]

REDUCTIONS = "mean", "sum", "none", "elementwise_mean"  # the last as entmax has it: the mean
BLOCK = 1 << 18  # numbers of rows that are taken at a time, in double: 2 MiB
MOST_OFF = 1e-3  # that the sum of a distribution may be from 1: float16 is as coarse


def softmax_loss(
    z: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int = -100,
    reduction: str = "none",
    sample_weight: ArrayLike | None = None,
    return_gradient: bool = False,
) -> Any:
    """Return the loss of softmax, which is cross entropy: log sum e^z - z_y.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores of n classes. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes the loss of its
        row NaN.
    target : array_like of int, shape (...), or of float, shape (..., n)
        The true classes, from 0 to n - 1, or `ignore_index`; or what is true as distributions q, with the classes on
        the axis that z has them on: the loss is then the divergence KL(q | softmax(z)).
    axis : int
        The axis of z on which the classes lie; the last by default.
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"none", "sum", "mean"}
        What is returned: the loss of each row, their sum, or their mean; "elementwise_mean" is the mean, too.
    sample_weight : array_like, shape (...), at least 0, optional
        What each row's loss is multiplied with; the mean is divided by their sum.
    return_gradient : bool
        Also return the gradient of what is returned in z; of the sum of the losses if they are not reduced.

    Returns
    -------
    loss : ndarray, shape (...), or float
        Of "none" in float32, or float64 for scores in float64 or integers of more than 16 bits; sums are taken in
        float64. A row whose true class is masked, as in a row that is all masked, has +inf.
    gradient : ndarray, shape (..., n)
        If asked for: p - e_y, or p - q, weighted and divided as the loss is; finite for all masks, and 0 for masked
        classes, but -1 for a true class that is masked. 0 in rows that are ignored.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsemax_loss : The loss that a finite margin makes 0.
    sparsehopfield.softmax : Compute the probabilities themselves.
    sparsehopfield.torch.softmax_loss : The same for tensors.

    Examples
    --------
    >>> softmax_loss([[0.0, 0.0]], [0])
    array([0.69314718])
    """
    return _loss(z, target, 1.0, axis, ignore_index, reduction, sample_weight, return_gradient)


def sparsemax_loss(
    z: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int = -100,
    reduction: str = "none",
    sample_weight: ArrayLike | None = None,
    return_gradient: bool = False,
) -> Any:
    """Return the loss of sparsemax: 0 where the score of the true class is at least 1 above all others.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores of n classes. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes the loss of its
        row NaN.
    target : array_like of int, shape (...), or of float, shape (..., n)
        The true classes, from 0 to n - 1, or `ignore_index`; or what is true as distributions q, with the classes on
        the axis that z has them on.
    axis : int
        The axis of z on which the classes lie; the last by default.
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"none", "sum", "mean"}
        What is returned: the loss of each row, their sum, or their mean; "elementwise_mean" is the mean, too.
    sample_weight : array_like, shape (...), at least 0, optional
        What each row's loss is multiplied with; the mean is divided by their sum.
    return_gradient : bool
        Also return the gradient of what is returned in z; of the sum of the losses if they are not reduced.

    Returns
    -------
    loss : ndarray, shape (...), or float
        Of "none" in the dtype that `softmax_loss` says, reduced a float; +inf where the true class is masked.
    gradient : ndarray, shape (..., n)
        If asked for: p - e_y, or p - q, as of `softmax_loss`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    entmax_loss : The family between this and `softmax_loss`.
    sparsehopfield.sparsemax : Compute the probabilities themselves.
    sparsehopfield.torch.sparsemax_loss : The same for tensors.

    References
    ----------
    Martins & Astudillo 2016, "From softmax to sparsemax", section 3.

    Examples
    --------
    >>> sparsemax_loss([[2.0, 1.0], [0.0, 0.0]], [0, 0])
    array([0.  , 0.25])
    """
    return _loss(z, target, 2.0, axis, ignore_index, reduction, sample_weight, return_gradient)


def entmax_loss(
    z: ArrayLike,
    target: ArrayLike,
    alpha: float = 1.5,
    *,
    axis: int = -1,
    ignore_index: int = -100,
    reduction: str = "none",
    sample_weight: ArrayLike | None = None,
    return_gradient: bool = False,
) -> Any:
    """Return the loss of alpha-entmax: 0 where the score of the true class is 1 / (alpha - 1) above all others.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores of n classes. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes the loss of its
        row NaN.
    target : array_like of int, shape (...), or of float, shape (..., n)
        The true classes, from 0 to n - 1, or `ignore_index`; or what is true as distributions q, with the classes on
        the axis that z has them on.
    alpha : float, at least 1
        1 is cross entropy, 2 the loss of sparsemax.
    axis : int
        The axis of z on which the classes lie; the last by default.
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"none", "sum", "mean"}
        What is returned: the loss of each row, their sum, or their mean; "elementwise_mean" is the mean, too.
    sample_weight : array_like, shape (...), at least 0, optional
        What each row's loss is multiplied with; the mean is divided by their sum.
    return_gradient : bool
        Also return the gradient of what is returned in z; of the sum of the losses if they are not reduced.

    Returns
    -------
    loss : ndarray, shape (...), or float
        Of "none" in the dtype that `softmax_loss` says, reduced a float; +inf where the true class is masked.
    gradient : ndarray, shape (..., n)
        If asked for: p - e_y, or p - q, as of `softmax_loss`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    softmax_loss : The loss of alpha = 1.
    sparsemax_loss : The loss of alpha = 2.
    sparsehopfield.torch.entmax_loss : The same for tensors.

    References
    ----------
    Peters, Niculae & Martins 2019, "Sparse sequence-to-sequence models".

    Examples
    --------
    >>> loss, gradient = entmax_loss([[2.0, 0.0], [0.0, 0.0]], [0, 0], reduction="mean", return_gradient=True)
    >>> round(loss, 4)
    0.1953
    >>> gradient
    array([[ 0.  ,  0.  ],
           [-0.25,  0.25]])

    Of a teacher's weights, which are distributions:

    >>> entmax_loss([[2.0, 0.0]], [[0.5, 0.5]])
    array([0.60947571])
    """
    parameter = MAPS["entmax"].parameter
    assert parameter is not None
    checked = float(parameter.checked(alpha))
    return _loss(z, target, checked, axis, ignore_index, reduction, sample_weight, return_gradient)


def _loss(
    z: ArrayLike,
    target: ArrayLike,
    alpha: float,
    axis: Any,
    ignore_index: int,
    reduction: str,
    sample_weight: ArrayLike | None,
    return_gradient: bool,
) -> Any:
    """Return the losses of rows, reduced, and their gradient if asked for."""
    as_choice("reduction", reduction, REDUCTIONS)
    rows = float_rows(z=z)
    at = checked_axis(axis, rows)
    scores = np.moveaxis(rows["z"], at, -1)
    leading, n = scores.shape[:-1], scores.shape[-1]
    if n == 0:
        raise ValueError(f"z: needs at least one class, got shape {rows['z'].shape}")
    given = as_array("target", target)
    if given.dtype.kind == "f" and given.ndim == scores.ndim:
        true, q = None, _as_distributions(given, rows["z"].shape, at)
        counts = np.ones(len(q), np.bool_)
    else:
        true, q = _as_classes(given, leading, n, as_whole("ignore_index", ignore_index, None)), None
        counts = true >= 0
        true = np.where(counts, true, 0)
    factors = counts.astype(np.float64)
    if sample_weight is not None:
        factors = np.where(counts, _as_weights(sample_weight, leading), 0)
    total = 1.0
    if reduction in ("mean", "elementwise_mean"):
        factors /= factors.max(initial=0) or 1  # so that no sum of them leaves float64
        total = factors.sum()
    flat = contiguous(scores).reshape(-1, n)
    gradient = np.empty_like(flat) if as_flag("return_gradient", return_gradient) else None
    with ignoring_float_errors():
        losses = _of_rows(flat, true, q, alpha, factors, total, gradient)
        if reduction == "none":
            result: Any = losses.astype(flat.dtype).reshape(leading)[()]
        else:
            result = float(losses.sum() / total)
    return result if gradient is None else (result, np.moveaxis(gradient.reshape(*leading, n), -1, at))


def _as_weights(sample_weight: ArrayLike, leading: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the weights of rows, (R,), checked."""
    w = as_weights(sample_weight)
    if w.shape != leading:
        raise ValueError(f"sample_weight: must be of shape {leading}, got {w.shape}")
    return w.reshape(-1)


def _as_classes(given: Array, leading: tuple[int, ...], n: int, ignore_index: int) -> NDArray[np.int64]:
    """Return the true classes, (R,), checked; -1 for rows that are ignored."""
    y = as_integers("target", given)
    if y.shape != leading:
        raise ValueError(f"target: must be of shape {leading}, got {y.shape}")
    y = y.reshape(-1)
    ignored = y == ignore_index
    wrong = y[~ignored & ((y < 0) | (y >= n))]
    if wrong.size:
        raise ValueError(f"target: must be classes from 0 to {n - 1}, got {wrong[0]}")
    return np.where(ignored, -1, y)


def _as_distributions(given: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Return what is true as distributions over classes, (R, n), checked."""
    q = as_numbers("target", given)
    if q.shape != shape:
        raise ValueError(f"target: distributions must be of z's shape {shape}, got {q.shape}")
    q = np.moveaxis(q, axis, -1).reshape(-1, shape[axis])
    total = q.sum(axis=1, dtype=np.float64)
    wrong = ~((q >= 0).all(axis=1) & (abs(total - 1) <= MOST_OFF))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"target: must be distributions, numbers of at least 0 whose sum is 1; row {row} is none")
    return q


def _of_rows(
    z: Array,
    true: Array | None,
    q: Array | None,
    alpha: float,
    factors: NDArray[np.float64],
    total: float,
    gradient: Array | None,
) -> NDArray[np.float64]:
    """Return the losses (R,) of rows (R, n), of true classes (R,) or distributions (R, n), times factors (R,).

    Writes the gradient, p - q times the factor and divided by the total. Takes some rows at a time, so that what is
    made of them in double stays in the cache.
    """
    weights, conjugate = _core.row_maps["entmax"], _core.row_maps["entmax_conjugate"]
    losses, parameter = np.empty(len(z)), np.array(alpha)
    step = max(1, BLOCK // z.shape[1])
    for first in range(0, len(z), step):
        block = slice(first, first + step)
        rows, factor = z[block], factors[block]
        each, counts = np.arange(len(rows)), factor > 0
        # Scores are taken relative to the true one, or to the best: differences, in which no size of scores cancels.
        level = rows.max(axis=1) if true is None else rows[each, true[block]]
        has_none = level == -np.inf
        above = np.subtract(rows, np.where(has_none, 0, level)[:, None], dtype=np.float64)
        loss = conjugate(above, parameter)
        is_nan, impossible = np.isnan(loss), has_none
        if q is not None:
            part = q[block].astype(np.float64)
            has_part = part > 0
            impossible = (has_part & (rows == -np.inf)).any(axis=1)
            loss += (part * (_share(part, alpha) - np.where(has_part, above, 0))).sum(axis=1)
        # The true class is masked; but NaN among the scores stays NaN. Without weight there is no loss, whatever it is.
        loss = np.where(impossible & ~is_nan, np.inf, np.maximum(loss, 0))
        losses[block] = np.where(counts, loss * factor, 0)
        if gradient is not None:
            p = weights(rows, parameter, out=gradient[block])
            if true is not None:
                p[each, true[block]] -= 1
            elif q is not None:
                p -= q[block]
            if total != 1 or (factor != 1).any():
                most = np.finfo(p.dtype).max  # not inf, for 0 inf is NaN
                p *= np.minimum(factor / total, most).astype(p.dtype)[:, None]
                p[~counts] = 0
    return losses


def _share(q: Array, alpha: float) -> Array:
    """Return (q^(alpha - 1) - 1) / (alpha (alpha - 1)), whose mean under q is the regulariser Omega(q)."""
    u = np.log(np.where(q > 0, q, 1))
    return np.asarray(u if alpha == 1 else np.expm1((alpha - 1) * u) / (alpha * (alpha - 1)))
