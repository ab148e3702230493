"""The separation maps on rows of scores, with their thresholds, gradients and convex conjugates.

Row maps are NumPy generalised ufuncs from the C core under a thin layer that converts, checks and names. They
take masked arrays (`numpy.ma`), which nothing else does: where they are masked, scores z are -inf, weights p
and gradients g are 0. Results are plain arrays, as the weight of what is masked is known to be 0.
"""

from inspect import cleandoc
from operator import index
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield import _core
from sparsehopfield._engine.checks import FLOATS, Array, as_filled, as_numbers, compute_dtype, refuse_masks
from sparsehopfield._engine.separations import MAPS, Parameter
from sparsehopfield._engine.text import short

__all__ = [
    "entmax",
    "entmax_conjugate",
    "entmax_threshold",
    "entmax_vjp",
    "entmax_vjp_alpha",
    "normmax",
    "normmax_conjugate",
    "normmax_threshold",
    "normmax_vjp",
    "normmax_vjp_alpha",
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

_ndarray, _softmax, _sparsemax = np.ndarray, _core.row_maps["softmax"], _core.row_maps["sparsemax"]
_LAST = -1  # the default axis itself: any other object, which may compare as an array, is checked


def float_rows(**arrays: ArrayLike) -> dict[str, Array]:
    """Return arrays in one floating dtype, float32 or float64, by their names.

    Masked scores are -inf; weights are 0 there, and gradients in them do not count.
    """
    filled = {name: as_filled(name, a, -np.inf if name == "z" else 0.0) for name, a in arrays.items()}
    for name, a in filled.items():
        if a.ndim == 0:
            raise ValueError(f"{name}: must have at least one axis, got a number")
    dtype = compute_dtype(*filled.values())
    return {name: a if a.dtype == dtype else a.astype(dtype) for name, a in filled.items()}


_K_RANGE, _ORDER_RANGE = Parameter("k", 1, np.inf, above=False, whole=True), MAPS["polynomial"].parameter


def _parameter(parameter: Parameter | None, option: ArrayLike) -> dict[str, Array]:
    """Return a parameter of a map, checked, under its name: a number in its range, or an array of them."""
    assert parameter is not None
    name = parameter.name
    if ((type(option) is int and option < 2**53) or (type(option) is float and not parameter.whole)) and parameter.fits(
        option
    ):
        return {name: np.array(option, np.float64)}  # the shortest way for the commonest
    a = as_numbers(name, option)
    if parameter.whole and a.dtype.kind not in "iu":
        raise TypeError(f"{name}: must be a whole number, got {short(option)}")
    if not np.all(parameter.fits(a)):
        raise ValueError(f"{name}: must be {parameter.described('finite')}, got {short(option)}")
    return {name: a.astype(np.float64)}


def checked_axis(axis: Any, rows: dict[str, Array]) -> int:
    """Return the axis of the rows as an int; raise unless every array has it."""
    try:
        position = index(axis)
    except (TypeError, RuntimeError):  # as of tensors without numbers
        raise TypeError(f"axis: must be a whole number, got {short(axis)}") from None
    for name, a in rows.items():
        if not -a.ndim <= position < a.ndim:
            raise ValueError(f"axis: {position} is out of range for {name} of shape {a.shape}")
    return position


def _shape_error(rows: dict[str, Array], options: dict[str, Array], axis: int, error: ValueError) -> ValueError:
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


def _call_ufunc(ufunc: np.ufunc, rows: dict[str, Array], options: dict[str, Array], axis: Any, out: Any) -> Any:
    """Call a ufunc on rows and options; `axis` is the rows' axis of every array, and of the result if it has rows."""
    kwargs: dict[str, Any] = {}
    if out is not None:
        for o in out if isinstance(out, tuple) else (out,):
            if not isinstance(o, np.ndarray):
                raise TypeError(f"out: must be a NumPy array, got {type(o).__name__}")
            if not o.flags.writeable:
                raise ValueError("out: is read-only")
            refuse_masks("out", o)
        kwargs["out"] = out
    axis = -1 if axis is _LAST else checked_axis(axis, rows)
    if axis != -1:
        outputs = ufunc.signature.split("->")[1].count("n") if ufunc.signature else 0  # that are rows
        kwargs["axes"] = [axis] * len(rows) + [()] * len(options) + [axis] * outputs + [()] * (ufunc.nout - outputs)
    try:
        return ufunc(*rows.values(), *options.values(), **kwargs)
    except ValueError as error:
        raise _shape_error(rows, options, axis, error) from None
    except TypeError as error:
        if out is None:
            raise
        raise TypeError(f"out: {error}") from None


def softmax(z: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Return softmax: exp(z) / sum exp(z).

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        Weights that sum to 1; a row all masked gives zeros.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsemax : Give most scores no weight.
    softmax_vjp : Compute its gradient.
    softmax_loss : Compare it with what is true.

    Examples
    --------
    >>> softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    if axis is _LAST and out is None and type(z) is _ndarray and z.dtype in FLOATS and z.ndim:
        return _softmax(z)  # the shortest way for the commonest call
    return _call_ufunc(_core.row_maps["softmax"], float_rows(z=z), {}, axis, out)


def sparsemax(z: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Return sparsemax: [z - tau]_+ with sum 1, the point of the simplex nearest to z.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
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

    See Also
    --------
    entmax : Go between softmax and this.
    sparsemax_threshold : Return tau and the size of the support.
    sparsemax_vjp : Compute its gradient.

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
    return _call_ufunc(_core.row_maps["sparsemax"], float_rows(z=z), {}, axis, out)


def polynomial(z: ArrayLike, order: ArrayLike = 10, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Return polynomial weights: z^order / sum z^order.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, of any sign. -inf is a mask, as are the masked entries of a `numpy.ma` array, and counts as 0.
    order : int or array_like of int, at least 1
        The power that scores are raised to.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        Zeros where the powers sum to exactly 0. With an odd order weights may be negative.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    polynomial_vjp : Compute its gradient.
    Polynomial : The separation map of memories.

    References
    ----------
    Krotov & Hopfield 2016.

    Examples
    --------
    >>> polynomial([2.0, 1.0], order=2)
    array([0.8, 0.2])
    """
    return _call_ufunc(_core.row_maps["polynomial"], float_rows(z=z), _parameter(_ORDER_RANGE, order), axis, out)


def topk_softmax(z: ArrayLike, k: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Return softmax of the k largest scores; ties go to the lowest index.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    k : int or array_like of int, at least 1
        How many scores may have weight; more than n means n. An array broadcasts to the leading axes, one number a row.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        Weights that sum to 1, at most k of them above 0.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    softmax : Give weight to all scores.
    sparsehopfield.structures.TopK : Retrieve so, from the k best patterns.

    Examples
    --------
    >>> topk_softmax([1.0, 1.0, 1.0], 2)
    array([0.5, 0.5, 0. ])
    """
    return _call_ufunc(_core.row_maps["topk_softmax"], float_rows(z=z), _parameter(_K_RANGE, k), axis, out)


def topk_sparsemax(z: ArrayLike, k: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Return sparsemax of the k largest scores; ties go to the lowest index. It is sparsemax if k >= its support size.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    k : int or array_like of int, at least 1
        How many scores may have weight; more than n means n. An array broadcasts to the leading axes, one number a row.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        Weights that sum to 1, at most k of them above 0.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsemax : Leave the size of the support to the scores.
    sparsehopfield.structures.TopK : Retrieve so, from the k best patterns.

    Examples
    --------
    >>> topk_sparsemax([1.0, 0.5, 0.5], 2)
    array([0.75, 0.25, 0.  ])
    """
    return _call_ufunc(_core.row_maps["topk_sparsemax"], float_rows(z=z), _parameter(_K_RANGE, k), axis, out)


def sparsemax_threshold(z: ArrayLike, *, axis: int = _LAST) -> tuple[Array, Array]:
    """Return the threshold of sparsemax and the size of its support.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    axis : int
        The axis along which rows lie; the last by default.

    Returns
    -------
    tau : ndarray, shape (...)
        Weights are [z - tau]_+. +inf for a row all masked.
    support_size : ndarray of int64, shape (...)
        How many weights are above 0.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsemax : Compute the weights.
    sparsehopfield.theory.expected_support : Compute the support's size for random scores.

    Examples
    --------
    >>> tau, size = sparsemax_threshold([2.0, 1.5, 0.0])
    >>> float(tau), int(size)
    (1.25, 2)
    """
    return _call_ufunc(_core.row_maps["sparsemax_threshold"], float_rows(z=z), {}, axis, None)


def softmax_vjp(p: ArrayLike, g: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Return the gradient in the scores from that in the weights, through softmax: p (g - <p, g>).

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `softmax`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        The gradient in the scores.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    softmax : Compute the weights.
    softmax_loss : Compute a loss and its gradient in the scores at once.

    Examples
    --------
    >>> softmax_vjp([0.5, 0.5], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    return _call_ufunc(_core.row_maps["softmax_vjp"], float_rows(p=p, g=g), {}, axis, out)


def sparsemax_vjp(p: ArrayLike, g: ArrayLike, *, axis: int = _LAST, out: Array | None = None) -> Array:
    """Return the gradient in the scores through sparsemax: g less its mean over the support, on the support.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `sparsemax`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        The gradient in the scores.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsemax : Compute the weights.
    sparsemax_loss : Compute a loss and its gradient in the scores at once.

    References
    ----------
    Martins & Astudillo 2016, section 2.5.

    Examples
    --------
    >>> sparsemax_vjp([0.75, 0.25, 0.0], [1.0, 0.0, 5.0])
    array([ 0.5, -0.5,  0. ])
    """
    return _call_ufunc(_core.row_maps["sparsemax_vjp"], float_rows(p=p, g=g), {}, axis, out)


def polynomial_vjp(
    z: ArrayLike, p: ArrayLike, g: ArrayLike, order: ArrayLike = 10, *, axis: int = _LAST, out: Array | None = None
) -> Array:
    """Return the gradient in the scores through the polynomial map: order z^(order-1) (g - <p, g>) / sum z^order.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores: the weights alone do not determine the gradient.
    p : array_like, shape (..., n)
        Weights, the result of `polynomial`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    order : int or array_like of int, at least 1
        The power that scores are raised to.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        The gradient in the scores.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    polynomial : Compute the weights.

    Examples
    --------
    >>> polynomial_vjp([2.0, 1.0], [0.8, 0.2], [1.0, 0.0], order=2)
    array([ 0.16, -0.32])
    """
    return _call_ufunc(
        _core.row_maps["polynomial_vjp"], float_rows(z=z, p=p, g=g), _parameter(_ORDER_RANGE, order), axis, out
    )


def softmax_conjugate(z: ArrayLike, *, axis: int = _LAST) -> Array:
    """Return the conjugate of the negative entropy: log sum exp z.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    axis : int
        The axis along which rows lie; the last by default.

    Returns
    -------
    ndarray, shape (...)
        One number a row of scores.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    softmax : Its gradient.
    energy : The energy of a query, which contains it.
    softmax_loss : The loss that it makes.

    Examples
    --------
    >>> softmax_conjugate([[0.0], [1000.0]])  # of one score the score itself, however large
    array([   0., 1000.])
    """
    return _call_ufunc(_core.row_maps["softmax_conjugate"], float_rows(z=z), {}, axis, None)


def sparsemax_conjugate(z: ArrayLike, *, axis: int = _LAST) -> Array:
    """Return the conjugate Psi*(z) of Psi(p) = (|p|^2 - 1)/2; its gradient is sparsemax.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    axis : int
        The axis along which rows lie; the last by default.

    Returns
    -------
    ndarray, shape (...)
        z_max + sum p (z - z_max) - |p|^2/2 + 1/2: the paper's (2.4) without its cancelling squares.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsemax : Its gradient.
    energy : The energy of a query, which contains it.
    sparsemax_loss : The loss that it makes.

    References
    ----------
    Hu et al. 2023, theorem 2.1.

    Examples
    --------
    >>> float(sparsemax_conjugate([2.0, 1.0, 0.0]))
    2.0
    """
    return _call_ufunc(_core.row_maps["sparsemax_conjugate"], float_rows(z=z), {}, axis, None)


# --- maps with a parameter alpha ------------------------------------------------------------------


class _Weights(Protocol):
    def __call__(self, z: ArrayLike, alpha: ArrayLike = ..., *, axis: int = ..., out: Array | None = ...) -> Array: ...


class _Threshold(Protocol):
    def __call__(self, z: ArrayLike, alpha: ArrayLike = ..., *, axis: int = ...) -> tuple[Array, Array]: ...


class _Vjp(Protocol):
    def __call__(
        self, p: ArrayLike, g: ArrayLike, alpha: ArrayLike = ..., *, axis: int = ..., out: Array | None = ...
    ) -> Array: ...


class _VjpAlpha(Protocol):
    def __call__(self, p: ArrayLike, g: ArrayLike, alpha: ArrayLike = ..., *, axis: int = ...) -> Array: ...


class _Conjugate(Protocol):
    def __call__(self, z: ArrayLike, alpha: ArrayLike = ..., *, axis: int = ...) -> Array: ...


class AlphaMap(NamedTuple):
    """The functions of a map with a parameter alpha and a cutoff."""

    weights: _Weights
    threshold: _Threshold
    vjp: _Vjp
    vjp_alpha: _VjpAlpha
    conjugate: _Conjugate


def alpha_map(name: str) -> AlphaMap:
    """Return the functions of a map of the core's table, with the names and documentation that belong to it."""
    row = MAPS[name]
    standard, parameter = row.standard, row.parameter
    maps: list[np.ufunc] = [
        _core.row_maps[name + part] for part in ("", "_threshold", "_vjp", "_vjp_alpha", "_conjugate")
    ]

    def weights(z: ArrayLike, alpha: ArrayLike = standard, *, axis: int = _LAST, out: Array | None = None) -> Array:
        return _call_ufunc(maps[0], float_rows(z=z), _parameter(parameter, alpha), axis, out)

    def threshold(z: ArrayLike, alpha: ArrayLike = standard, *, axis: int = _LAST) -> tuple[Array, Array]:
        return _call_ufunc(maps[1], float_rows(z=z), _parameter(parameter, alpha), axis, None)

    def vjp(
        p: ArrayLike, g: ArrayLike, alpha: ArrayLike = standard, *, axis: int = _LAST, out: Array | None = None
    ) -> Array:
        return _call_ufunc(maps[2], float_rows(p=p, g=g), _parameter(parameter, alpha), axis, out)

    def vjp_alpha(p: ArrayLike, g: ArrayLike, alpha: ArrayLike = standard, *, axis: int = _LAST) -> Array:
        return _call_ufunc(maps[3], float_rows(p=p, g=g), _parameter(parameter, alpha), axis, None)

    def conjugate(z: ArrayLike, alpha: ArrayLike = standard, *, axis: int = _LAST) -> Array:
        return _call_ufunc(maps[4], float_rows(z=z), _parameter(parameter, alpha), axis, None)

    functions = AlphaMap(weights, threshold, vjp, vjp_alpha, conjugate)
    for ufunc, function, documentation in zip(maps, functions, _DOCUMENTATION, strict=True):
        documented: Any = function
        documented.__name__ = documented.__qualname__ = ufunc.__name__
        documented.__doc__ = cleandoc(documentation).format(
            name=name,
            formula=row.formula,
            regulariser=row.regulariser,
            source=row.source,
            bound=parameter and parameter.bound,
            family=row.class_name,
        )
    return functions


_DOCUMENTATION = (
    """Return the weights of alpha-{name}: {formula}, with sum 1.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    alpha : float or array_like, {bound}
        The map's parameter, see `{family}`; an array broadcasts to the leading axes, one number a row.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        Weights that sum to 1.

    Raises
    ------
    ValueError
        If `alpha` is out of its range.
    TypeError
        If an argument is no real number.

    See Also
    --------
    {family} : The separation map of memories.
    {name}_threshold : Return tau and the size of the support.
    {name}_vjp : Compute its gradient.

    References
    ----------
    {source}.

    Examples
    --------
    >>> {name}([3.0, 0.0, 0.0])  # the best score leads by enough to have all weight
    array([1., 0., 0.])
    """,
    """Return the threshold of alpha-{name} and the size of its support.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    alpha : float or array_like, {bound}
        The parameter of `{name}`; an array broadcasts to the leading axes, one number a row.
    axis : int
        The axis along which rows lie; the last by default.

    Returns
    -------
    tau : ndarray, shape (...)
        Weights are {formula}; -inf where the map has no threshold.
    support_size : ndarray of int64, shape (...)
        How many weights are above 0.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    {name} : Compute the weights.

    Examples
    --------
    >>> tau, size = {name}_threshold([3.0, 0.0, 0.0])
    >>> int(size)
    1
    """,
    """Return the gradient in the scores from the gradient in the weights, through alpha-{name}.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `{name}`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    alpha : float or array_like, {bound}
        The parameter of `{name}`; an array broadcasts to the leading axes, one number a row.
    axis : int
        The axis along which rows lie; the last by default.
    out : ndarray, shape (..., n), optional
        Takes the result.

    Returns
    -------
    ndarray, shape (..., n)
        The gradient in the scores.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    {name} : Compute the weights.
    {name}_vjp_alpha : Compute the derivative in alpha.

    References
    ----------
    {source}.

    Examples
    --------
    >>> {name}_vjp([0.5, 0.5, 0.0], [1.0, 1.0, 5.0])
    array([0., 0., 0.])
    """,
    """Return the derivative of <g, {name}(z, alpha)> in alpha, from the weights.

    Parameters
    ----------
    p : array_like, shape (..., n)
        Weights, the result of `{name}`.
    g : array_like, shape (..., n)
        Gradient of a loss in these weights.
    alpha : float or array_like, {bound}
        The parameter of `{name}`; an array broadcasts to the leading axes, one number a row.
    axis : int
        The axis along which rows lie; the last by default.

    Returns
    -------
    ndarray, shape (...)
        One number a row.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    {name} : Compute the weights.
    {name}_vjp : Compute the gradient in the scores.

    References
    ----------
    {source}.

    Examples
    --------
    >>> float({name}_vjp_alpha([1.0, 0.0], [1.0, 0.0]))
    0.0
    """,
    """Return the conjugate of Omega(p) = {regulariser}; its gradient is alpha-{name}.

    Parameters
    ----------
    z : array_like, shape (..., n)
        Scores, along `axis`. -inf is a mask, as are the masked entries of a `numpy.ma` array; NaN makes its row NaN.
    alpha : float or array_like, {bound}
        The parameter of `{name}`; an array broadcasts to the leading axes, one number a row.
    axis : int
        The axis along which rows lie; the last by default.

    Returns
    -------
    ndarray, shape (...)
        One number a row of scores.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    {name} : Its gradient.
    energy : The energy of a query, which contains it.

    References
    ----------
    {source}.

    Examples
    --------
    >>> float({name}_conjugate([3.0, 0.0, 0.0]))
    3.0
    """,
)

entmax, entmax_threshold, entmax_vjp, entmax_vjp_alpha, entmax_conjugate = alpha_map("entmax")
normmax, normmax_threshold, normmax_vjp, normmax_vjp_alpha, normmax_conjugate = alpha_map("normmax")
