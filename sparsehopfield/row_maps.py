"""The separation maps on rows of scores, with their thresholds, gradients and convex conjugates.

Row maps are NumPy generalised ufuncs from the C core under a thin layer that converts, checks and names. They
take masked arrays (`numpy.ma`), which nothing else does: where they are masked, scores z are -inf, weights p
and gradients g are 0. Results are plain arrays, as the weight of what is masked is known to be 0.
"""

from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield import _core
from sparsehopfield._engine.checks import FLOATS, Array, as_filled, as_numbers, compute_dtype, refuse_masks
from sparsehopfield._engine.text import short

if TYPE_CHECKING:
    pass

__all__ = [
    "entmax",
    "entmax_conjugate",
    "entmax_threshold",
    "entmax_vjp",
    "entmax_vjp_alpha",
    "polynomial",
    "polynomial_vjp",
    "softmax",
    "softmax_conjugate",
    "softmax_vjp",
    "sparsemax",
    "sparsemax_conjugate",
    "sparsemax_threshold",
    "sparsemax_vjp",
    "topk_softmax",
    "topk_sparsemax",
]

_ndarray, _softmax, _sparsemax = np.ndarray, _core.softmax, _core.sparsemax
_LAST = -1  # the default axis itself: any other object, which may compare as an array, is checked


def _rows(**arrays: ArrayLike) -> dict[str, Array]:
    """Return arrays of one floating dtype, float32 or float64.

    Masked scores are -inf; weights are 0 there, and gradients in them do not count.
    """
    given = {name: as_filled(name, a, -np.inf if name == "z" else 0.0) for name, a in arrays.items()}
    for name, a in given.items():
        if a.ndim == 0:
            raise ValueError(f"{name}: must have at least one axis, got a number")
    dtype = compute_dtype(*given.values())
    return {name: a if a.dtype == dtype else a.astype(dtype) for name, a in given.items()}


def _options(**options: ArrayLike) -> dict[str, Array]:
    """Return numbers of at least 1, or arrays that broadcast against the rows; all but alpha are whole."""
    checked = {}
    for name, option in options.items():
        if (type(option) is int and 1 <= option < 2**53) or (
            type(option) is float and name == "alpha" and 1 <= option < np.inf
        ):
            checked[name] = np.array(option, np.float64)  # the shortest way for the commonest
            continue
        a = as_numbers(name, option)
        if name != "alpha" and a.dtype.kind not in "iu":
            raise TypeError(f"{name}: must be a whole number, got {short(option)}")
        if not (a >= 1).all() or (a.dtype.kind == "f" and np.isinf(a).any()):
            raise ValueError(f"{name}: must be a finite number of at least 1, got {short(option)}")
        checked[name] = a.astype(np.float64)
    return checked


def _checked_axis(axis: Any, rows: dict[str, Array]) -> int:
    """Return where the rows lie, if every array has that axis."""
    try:
        at = index(axis)
    except TypeError:
        raise TypeError(f"axis: must be a whole number, got {short(axis)}") from None
    for name, a in rows.items():
        if not -a.ndim <= at < a.ndim:
            raise ValueError(f"axis: {at} is out of range for {name} of shape {a.shape}")
    return at


def _misfit(rows: dict[str, Array], options: dict[str, Array], axis: int, error: ValueError) -> ValueError:
    """Return the error that names the array whose shape does not fit those before it; `out` if all fit."""
    first, leading = next(iter(rows)), ()
    for name, a in (rows | options).items():
        shape = a.shape
        if name in rows:
            if a.shape[axis] != rows[first].shape[axis]:
                return ValueError(
                    f"{name}: must have rows as long as those of {first} ({rows[first].shape[axis]}), got shape {shape}"
                )
            shape = np.moveaxis(a, axis, -1).shape[:-1]
        try:
            leading = np.broadcast_shapes(leading, shape)
        except (ValueError, RuntimeError):  # NumPy compares shapes of at most 32 axes
            return ValueError(f"{name}: shape {a.shape} does not broadcast to the rows' other axes, {leading}")
    return ValueError(f"out: {error}")


def _row_map(ufunc: np.ufunc, rows: dict[str, Array], options: dict[str, Array], axis: Any, out: Any) -> Any:
    """The call: `axis` means the rows' axis of every array, and of the result if it has rows."""
    kwargs: dict[str, Any] = {}
    if out is not None:
        for o in out if isinstance(out, tuple) else (out,):
            if not isinstance(o, np.ndarray):
                raise TypeError(f"out: must be a NumPy array, got {type(o).__name__}")
            if not o.flags.writeable:
                raise ValueError("out: is read-only")
            refuse_masks("out", o)
        kwargs["out"] = out
    at = -1 if axis is _LAST else _checked_axis(axis, rows)
    if at != -1:
        own = ufunc.signature.split("->")[1].count("n") if ufunc.signature else 0
        kwargs["axes"] = [at] * len(rows) + [()] * len(options) + [at] * own + [()] * (ufunc.nout - own)
    try:
        return ufunc(*rows.values(), *options.values(), **kwargs)
    except ValueError as error:
        raise _misfit(rows, options, at, error) from None
    except TypeError as error:
        if out is None:
            raise
        raise TypeError(f"out: {error}") from None


def softmax(z: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Softmax: exp(z) / sum exp(z).

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        Weights that sum to 1; a row all masked gives zeros.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    Examples
    --------
    >>> softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    if axis is _LAST and out is None and type(z) is _ndarray and z.dtype in FLOATS and z.ndim:
        return _softmax(z)  # the shortest way for the commonest call
    return _row_map(_core.softmax, _rows(z=z), {}, axis, out)


def sparsemax(z: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Sparsemax: [z - tau]_+ with sum 1, the point of the simplex nearest to z.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        Weights that sum to 1, most of them 0: only scores within 1 of the best can have weight. The support is
        decided in exact integer arithmetic, and weights are rounded once.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    References
    ----------
    Martins & Astudillo 2016; Hu et al. 2023, eq. (2.3).

    Examples
    --------
    >>> sparsemax([2.0, 1.5, 0.0])
    array([0.75, 0.25, 0.  ])
    """
    if axis is _LAST and out is None and type(z) is _ndarray and z.dtype in FLOATS and z.ndim:
        return _sparsemax(z)
    return _row_map(_core.sparsemax, _rows(z=z), {}, axis, out)


def entmax(z: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Alpha-entmax: [(alpha - 1) z - tau]_+^(1 / (alpha - 1)) with sum 1.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    alpha : float or array_like, at least 1
        1 is softmax, 2 sparsemax. An array broadcasts to the leading axes, one number a row.
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)

    Raises
    ------
    ValueError
        If `alpha` is below 1 or not finite.
    TypeError
        If an argument is no real number.

    References
    ----------
    Peters, Niculae & Martins 2019.

    Examples
    --------
    >>> entmax([1.0, 0.0, -3.0]).round(4)
    array([0.8307, 0.1693, 0.    ])
    """
    return _row_map(_core.entmax, _rows(z=z), _options(alpha=alpha), axis, out)


def polynomial(z: ArrayLike, order: ArrayLike = 10, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Polynomial weights: z^order / sum z^order.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, of any sign. -inf is a mask, as are the masked entries of a `numpy.ma` array, and counts as 0.
    order : int or array_like of int, at least 1
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        Zeros where the powers sum to exactly 0. With an odd order weights may be negative.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    References
    ----------
    Krotov & Hopfield 2016.

    Examples
    --------
    >>> polynomial([2.0, 1.0], order=2)
    array([0.8, 0.2])
    """
    return _row_map(_core.polynomial, _rows(z=z), _options(order=order), axis, out)


def topk_softmax(z: ArrayLike, k: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Softmax of the k largest scores; ties go to the lowest index.

    Parameters
    ----------
    z : array_like, shape (..., n)
    k : int or array_like of int, at least 1
        More than n means n.
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Examples
    --------
    >>> topk_softmax([1.0, 1.0, 1.0], 2)
    array([0.5, 0.5, 0. ])
    """
    return _row_map(_core.topk_softmax, _rows(z=z), _options(k=k), axis, out)


def topk_sparsemax(z: ArrayLike, k: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Sparsemax of the k largest scores; ties go to the lowest index. Equals sparsemax where k >= its support size.

    Parameters
    ----------
    z : array_like, shape (..., n)
    k : int or array_like of int, at least 1
        More than n means n.
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Examples
    --------
    >>> topk_sparsemax([1.0, 0.5, 0.5], 2)
    array([0.75, 0.25, 0.  ])
    """
    return _row_map(_core.topk_sparsemax, _rows(z=z), _options(k=k), axis, out)


def sparsemax_threshold(z: ArrayLike, *, axis: int = _LAST) -> tuple[Array, Array]:
    """The threshold of sparsemax and the size of its support.

    Parameters
    ----------
    z : array_like, shape (..., n)
    axis : int
        Where the rows lie.

    Returns
    -------
    tau : ndarray, shape (...)
        Weights are [z - tau]_+. +inf for a row all masked.
    support_size : ndarray of int64, shape (...)

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    Examples
    --------
    >>> tau, size = sparsemax_threshold([2.0, 1.5, 0.0])
    >>> float(tau), int(size)
    (1.25, 2)
    """
    return _row_map(_core.sparsemax_threshold, _rows(z=z), {}, axis, None)


def entmax_threshold(z: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = _LAST) -> tuple[Array, Array]:
    """The threshold of alpha-entmax and the size of its support.

    Parameters
    ----------
    z : array_like, shape (..., n)
    alpha : float or array_like, at least 1
    axis : int
        Where the rows lie.

    Returns
    -------
    tau : ndarray, shape (...)
        Weights are [(alpha - 1) z - tau]_+^(1 / (alpha - 1)); -inf for alpha = 1, which has no threshold.
    support_size : ndarray of int64, shape (...)

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Examples
    --------
    >>> tau, size = entmax_threshold([2.0, 1.5, 0.0], alpha=2)
    >>> float(tau), int(size)
    (1.25, 2)
    """
    return _row_map(_core.entmax_threshold, _rows(z=z), _options(alpha=alpha), axis, None)


def softmax_vjp(p: ArrayLike, g: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Gradient in the scores from the gradient in the weights, through softmax: p (g - <p, g>).

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `softmax`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    Examples
    --------
    >>> softmax_vjp([0.5, 0.5], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    return _row_map(_core.softmax_vjp, _rows(p=p, g=g), {}, axis, out)


def sparsemax_vjp(p: ArrayLike, g: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Gradient in the scores through sparsemax: g less its mean over the support, on the support.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `sparsemax`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    References
    ----------
    Martins & Astudillo 2016, section 2.5.

    Examples
    --------
    >>> sparsemax_vjp([0.75, 0.25, 0.0], [1.0, 0.0, 5.0])
    array([ 0.5, -0.5,  0. ])
    """
    return _row_map(_core.sparsemax_vjp, _rows(p=p, g=g), {}, axis, out)


def entmax_vjp(
    p: ArrayLike, g: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = _LAST, out: Array | None = None
) -> Array:
    """Gradient in the scores through alpha-entmax: s (g - <s, g> / sum s) with s = p^(2 - alpha) on the support.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `entmax`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    alpha : float or array_like, at least 1
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    References
    ----------
    Peters, Niculae & Martins 2019.

    Examples
    --------
    >>> entmax_vjp([0.75, 0.25, 0.0], [1.0, 0.0, 5.0], alpha=2)
    array([ 0.5, -0.5,  0. ])
    """
    return _row_map(_core.entmax_vjp, _rows(p=p, g=g), _options(alpha=alpha), axis, out)


def entmax_vjp_alpha(p: ArrayLike, g: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = _LAST) -> Array:
    """Derivative of <g, entmax(z, alpha)> in alpha, from the weights.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `entmax`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    alpha : float or array_like, at least 1
        Also at 1, and stable near it.
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray, shape (...)
        One number a row.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    References
    ----------
    Correia, Niculae & Martins 2019, proposition 1, with its cancelling terms divided out.

    Examples
    --------
    >>> p = entmax([1.0, 0.0], 1.5)
    >>> bool(entmax_vjp_alpha(p, [1.0, 0.0], 1.5) > 0)
    True
    """
    return _row_map(_core.entmax_vjp_alpha, _rows(p=p, g=g), _options(alpha=alpha), axis, None)


def polynomial_vjp(
    z: ArrayLike, p: ArrayLike, g: ArrayLike, order: ArrayLike = 10, *, axis: int = _LAST, out: Array | None = None
) -> Array:
    """Gradient in the scores through the polynomial map: order z^(order-1) (g - <p, g>) / sum z^order.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores: the weights alone do not determine the gradient.
    p : array_like, shape (..., n)
        Weights, the result of `polynomial`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    order : int or array_like of int, at least 1
    axis : int
        Where the rows lie.
    out : ndarray, optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Examples
    --------
    >>> polynomial_vjp([2.0, 1.0], [0.8, 0.2], [1.0, 0.0], order=2)
    array([ 0.16, -0.32])
    """
    return _row_map(_core.polynomial_vjp, _rows(z=z, p=p, g=g), _options(order=order), axis, out)


def softmax_conjugate(z: ArrayLike, *, axis: int = _LAST) -> Array:
    """The conjugate of the negative entropy: log sum exp z.

    Parameters
    ----------
    z : array_like, shape (..., n)
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    Examples
    --------
    >>> float(softmax_conjugate([0.0]))
    0.0
    """
    return _row_map(_core.softmax_conjugate, _rows(z=z), {}, axis, None)


def sparsemax_conjugate(z: ArrayLike, *, axis: int = _LAST) -> Array:
    """The conjugate Psi*(z) of Psi(p) = (|p|^2 - 1)/2; its gradient is sparsemax.

    Parameters
    ----------
    z : array_like, shape (..., n)
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray, shape (...)
        z_max + sum p (z - z_max) - |p|^2/2 + 1/2: the paper's (2.4) without its cancelling squares.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    References
    ----------
    Hu et al. 2023, theorem 2.1.

    Examples
    --------
    >>> float(sparsemax_conjugate([2.0, 1.0, 0.0]))
    2.0
    """
    return _row_map(_core.sparsemax_conjugate, _rows(z=z), {}, axis, None)


def entmax_conjugate(z: ArrayLike, alpha: ArrayLike = 1.5, *, axis: int = _LAST) -> Array:
    """The conjugate of Omega(p) = (sum p^alpha - 1) / (alpha (alpha - 1)); its gradient is entmax.

    Parameters
    ----------
    z : array_like, shape (..., n)
    alpha : float or array_like, at least 1
    axis : int
        Where the rows lie.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    References
    ----------
    Blondel, Martins & Niculae 2020.

    Examples
    --------
    >>> float(entmax_conjugate([2.0, 1.0, 0.0], alpha=2))
    2.0
    """
    return _row_map(_core.entmax_conjugate, _rows(z=z), _options(alpha=alpha), axis, None)
