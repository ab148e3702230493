"""The layers that a classifier needs beside Hopfield layers, and two losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, ndtr

from sparsehopfield._engine import dense
from sparsehopfield._engine.checks import (
    Array,
    as_exact,
    as_flag,
    as_float_dtype,
    as_number,
    as_numbers,
    as_whole,
    axes_of,
    compute_dtype,
    contiguous,
    ignoring_float_errors,
)
from sparsehopfield._engine.text import short
from sparsehopfield.layers._inputs import concatenate_bags
from sparsehopfield.layers._module import Module

__all__ = [
    "GELU",
    "Dropout",
    "Flatten",
    "LayerNorm",
    "Linear",
    "ReLU",
    "Sequential",
    "binary_cross_entropy_with_logits",
    "mean_squared_error",
]


def as_rate(name: str, rate: Any) -> float:
    """Check and return a share from 0 to below 1."""
    x = as_number(name, rate, least=0.0)
    if x >= 1:
        raise ValueError(f"{name}: must be from 0 to below 1, got {rate}")
    return x


def as_positive(name: str, number: Any) -> float:
    """Check and return a positive, finite number."""
    x = as_number(name, number, least=0.0)
    if x == 0:
        raise ValueError(f"{name}: must be positive, got {number}")
    return x


class Linear(Module):
    """A linear map of rows: x W^T + b.

    Parameters
    ----------
    input_size, output_size : int, at least 1
        Features of a row before and after.
    bias : bool
        Whether to add a bias b.
    dtype : {float32, float64}
        Of parameters and outputs; inputs are cast to it.
    random_state : None, int or numpy.random.Generator
        Draws weights and biases, uniform within 1 / sqrt(input_size) as PyTorch's are.

    See Also
    --------
    sparsehopfield.layers.Sequential : Layers one after another, among them linear ones.

    Examples
    --------
    >>> Linear(3, 2).forward(np.zeros((5, 3))).shape
    (5, 2)
    """

    def __init__(
        self, input_size: int, output_size: int, bias: bool = True, *, dtype: Any = "float32", random_state: Any = None
    ) -> None:
        self.input_size = as_whole("input_size", input_size, least=1)
        self.output_size = as_whole("output_size", output_size, least=1)
        super().__init__(
            {
                "input_size": self.input_size,
                "output_size": self.output_size,
                "bias": bool(bias),
                "dtype": as_float_dtype(dtype).name,
                "random_state": random_state,
            },
            dtype,
            random_state,
        )
        reach = self.input_size**-0.5

        def draw(shape: tuple[int, ...]) -> Array:
            return self._random.uniform(-reach, reach, shape)

        self.weight = self._parameter("weight", (self.output_size, self.input_size), draw)
        self.bias = self._parameter("bias", (self.output_size,), draw) if bias else None

    def _forward(self, input: ArrayLike, *, train: bool = False) -> tuple[Array, Array]:
        """Map (..., input_size) to (..., output_size)."""
        x = self._cast("input", input, self.input_size, copy=True)
        return dense.linear(x, self.weight.value, None if self.bias is None else self.bias.value), x

    def _backward(self, saved: Array, grad: Array, need_input_grad: bool) -> Array | None:
        """Add to the gradients of weight and bias; return that of the input."""
        dx, dweight, dbias = dense.linear_backward(saved, self.weight.value, grad, need_input_grad)
        self.weight.add(dweight)
        if self.bias is not None:
            self.bias.add(dbias)
        return dx


class LayerNorm(Module):
    """Layer normalisation: every row with mean 0 and variance 1, times a gain, plus a shift.

    Parameters
    ----------
    size : int, at least 1
        Features of a row.
    eps : float, positive
        Added to the variance.
    affine : bool
        Whether gain (`weight`) and shift (`bias`) are there and learned.
    dtype : {float32, float64}
        Of parameters and outputs; inputs are cast to it.

    See Also
    --------
    sparsehopfield.layers.Hopfield : A layer that normalises its inputs itself.

    References
    ----------
    Ba, Kiros & Hinton 2016, "Layer normalization".

    Examples
    --------
    >>> LayerNorm(2).forward([[1.0, 3.0]]).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, size: int, eps: float = 1e-5, affine: bool = True, *, dtype: Any = "float32") -> None:
        self.size, self.eps = as_whole("size", size, least=1), as_positive("eps", eps)
        config = {"size": self.size, "eps": self.eps, "affine": bool(affine), "dtype": as_float_dtype(dtype).name}
        super().__init__(config, dtype, None)
        self.weight = self._parameter("weight", (self.size,), np.ones) if affine else None
        self.bias = self._parameter("bias", (self.size,), np.zeros) if affine else None

    def _forward(self, input: ArrayLike, *, train: bool = False) -> tuple[Array, tuple[Array, Array]]:
        """Normalise rows of any leading shape: (..., size) to the same shape."""
        xhat, rstd = dense.normalize(self._cast("input", input, self.size), self.eps)
        if self.weight is None or self.bias is None:
            return xhat.copy(), (xhat, rstd)
        return xhat * self.weight.value + self.bias.value, (xhat, rstd)

    def _backward(self, saved: tuple[Array, Array], grad: Array, need_input_grad: bool) -> Array | None:
        """Add to the gradients of gain and shift; return that of the input."""
        xhat, rstd = saved
        if self.weight is not None and self.bias is not None:
            flat = grad.reshape(-1, self.size)
            self.weight.add(np.einsum("ne,ne->e", flat, xhat.reshape(flat.shape)))
            self.bias.add(flat.sum(axis=0))
            grad = grad * self.weight.value
        return dense.normalize_backward(xhat, rstd, grad) if need_input_grad else None


class _Elementwise(Module):
    """A function of each number, by its derivative too; numbers stay float64 where they are, else become float32."""

    def __init__(self) -> None:
        super().__init__({}, "float32", None)

    @staticmethod
    def _value_and_slope(x: Array) -> tuple[Array, Array]:
        """Return the function and its derivative at every number."""
        raise NotImplementedError

    def _forward(self, input: ArrayLike, *, train: bool = False) -> tuple[Array, Array]:
        """Apply the function to each number of an array of any shape."""
        return self._value_and_slope(self._floats(input))

    def _backward(self, saved: Array, grad: Array, need_input_grad: bool) -> Array | None:
        """Multiply the gradient by the derivative."""
        return grad * saved if need_input_grad else None


class ReLU(_Elementwise):
    """The positive part of each number: max(x, 0).

    See Also
    --------
    sparsehopfield.layers.GELU : A smooth one.

    Examples
    --------
    >>> ReLU().forward([-1.0, 2.0])
    array([0., 2.])
    """

    @staticmethod
    def _value_and_slope(x: Array) -> tuple[Array, Array]:
        return np.maximum(x, 0), x > 0


class GELU(_Elementwise):
    """x Phi(x), with Phi the standard normal distribution function; exact, not by tanh.

    See Also
    --------
    sparsehopfield.layers.ReLU : One that is 0 for all negative numbers.

    References
    ----------
    Hendrycks & Gimpel 2016, "Gaussian error linear units".

    Examples
    --------
    >>> GELU().forward([0.0, 1.0]).round(4)
    array([0.    , 0.8413])
    """

    @staticmethod
    def _value_and_slope(x: Array) -> tuple[Array, Array]:
        below = ndtr(x)
        return x * below, below + x * np.exp(-x * x / 2) * x.dtype.type((2 * np.pi) ** -0.5)


class Dropout(_Elementwise):
    """Dropout: in training, each number is dropped at a rate and the others grow by 1 / (1 - rate).

    Parameters
    ----------
    rate : float from 0 to below 1
        Which share of the numbers becomes 0 in training.
    random_state : None, int or numpy.random.Generator
        Chooses the numbers that become 0, anew in every pass.

    See Also
    --------
    sparsehopfield.layers.Hopfield : A layer with dropout of its association's weights.

    Examples
    --------
    >>> Dropout(0.5, random_state=0).forward(np.ones(4, np.float32), train=True)
    array([2., 2., 2., 0.], dtype=float32)
    """

    def __init__(self, rate: float = 0.5, *, random_state: Any = None) -> None:
        self.rate = as_rate("rate", rate)
        Module.__init__(self, {"rate": self.rate, "random_state": random_state}, "float32", random_state)

    def _forward(self, input: ArrayLike, *, train: bool = False) -> tuple[Array, Array]:
        """Drop numbers of an array of any shape."""
        x = self._floats(input)
        if not (as_flag("train", train) and self.rate):
            return x, np.ones((), x.dtype)
        is_kept = self._random.random(x.shape, np.float32) >= self.rate
        slope = is_kept * x.dtype.type(1 / (1 - self.rate))
        return x * slope, slope


class Flatten(Module):
    """All axes from `start_axis` on become one.

    Parameters
    ----------
    start_axis : int, at least 0
        The first of the axes that become one.

    See Also
    --------
    sparsehopfield.layers.Sequential : Layers one after another, as where heads or patterns become features.

    Examples
    --------
    >>> Flatten().forward(np.zeros((5, 2, 3))).shape
    (5, 6)
    """

    def __init__(self, start_axis: int = 1) -> None:
        self.start_axis = as_whole("start_axis", start_axis, least=0)
        super().__init__({"start_axis": self.start_axis}, "float32", None)

    def _forward(self, input: ArrayLike, *, train: bool = False) -> tuple[Array, tuple[int, ...]]:
        """Flatten the axes from `start_axis` on."""
        x = self._floats(input)
        if x.ndim <= self.start_axis:
            raise ValueError(f"input: needs more than {self.start_axis} axes, got shape {x.shape}")
        return x.reshape(*x.shape[: self.start_axis], math.prod(x.shape[self.start_axis :])), x.shape

    def _backward(self, saved: tuple[int, ...], grad: Array, need_input_grad: bool) -> Array | None:
        return grad.reshape(saved) if need_input_grad else None


class Sequential(Module):
    """Layers one after another.

    Parameters
    ----------
    *layers : Module
        Their parameters are named by their places: `"0.weight"`. All that have parameters need one dtype.
    **described : list of Module
        For files alone: `layers=[...]` in place of one layer after another.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.layers.Module : The base, whose methods all layers have.
    sparsehopfield.optim.AdamW : Train its parameters.

    Notes
    -----
    `forward` hands masks and `offsets` to the Hopfield layers among them. A list of bags becomes one array of all
    their rows, with offsets, so that row by row layers (an embedding) may stand before the pooling.

    Examples
    --------
    >>> model = Sequential(Linear(4, 8, random_state=0), ReLU(), Linear(8, 1, random_state=1))
    >>> model.forward(np.zeros((5, 4))).shape
    (5, 1)
    """

    def __init__(self, *layers: Module, **described: Any) -> None:
        if described:  # from a file
            layers = tuple(described.pop("layers"))
        if described:
            raise TypeError(f"Sequential: unknown arguments {sorted(described)}")
        for layer in layers:
            if not isinstance(layer, Module):
                raise TypeError(f"layers: must be layers of this package, got {short(layer)}")
        if not layers:
            raise ValueError("layers: needs at least one")
        weighty = [layer for layer in layers if layer.parameters()]
        dtypes = {layer.dtype for layer in weighty}
        if len(dtypes) > 1:
            raise TypeError(f"layers: need one dtype, got {sorted(map(str, dtypes))}")
        super().__init__({"layers": list(layers)}, dtypes.pop() if dtypes else "float32", None)
        self.layers = layers
        self._inner = {str(i): layer for i, layer in enumerate(layers)}
        self._takes_masks = any(layer._takes_masks for layer in layers)
        self._lowest = layers.index(weighty[0]) if weighty else len(layers)  # below it no gradient is needed

    def forward(self, input: Any, *, train: bool = False, **options: Any) -> Array:
        """Apply all layers; hand `options` (masks, `offsets`) to the Hopfield layers.

        Parameters
        ----------
        input : array_like, or list of array_like
            Of the first layer; ragged bags as a list of one (M_i, e) array a bag, if a Hopfield layer follows.
        train : bool
            Whether dropout acts.
        **options : array_like, optional
            `stored_pattern_padding_mask`, `association_mask` and `offsets` of `Hopfield.forward`.

        Returns
        -------
        ndarray
            The last layer's output.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault, as each layer does; also for options that no layer takes.

        See Also
        --------
        sparsehopfield.layers.Sequential.backward : Pass gradients back through all layers.
        sparsehopfield.layers.Hopfield.forward : Say what the masks mean.

        Examples
        --------
        >>> from sparsehopfield.layers import HopfieldPooling
        >>> model = Sequential(Linear(3, 4, random_state=0), HopfieldPooling(4, random_state=1))
        >>> model.forward([np.ones((7, 3)), np.ones((2, 3))]).shape  # two bags, embedded row by row, then pooled
        (2, 4)
        """
        return self._pass(input, train, options)

    def _forward(self, input: Any, *, train: bool = False, **options: Any) -> tuple[Array, list[tuple[Any, Any]]]:
        """Apply the layers one after another, and keep the tape of each."""
        if isinstance(input, list) and input and axes_of(input[0]) == 2:
            input, options["offsets"] = concatenate_bags("input", input, options.get("offsets"))
        if options and not self._takes_masks:
            raise TypeError(f"{next(iter(options))}: no layer here takes it")
        saved = []
        for layer in self.layers:
            taken = options if layer._takes_masks else {}
            if layer._ours:
                input, tape = layer._forward(input, train=train, **taken)
            else:
                input, tape = layer.forward(input, train=train, **taken), None
            saved.append((tape, input.dtype))
        return input, saved

    def reset_parameters(self) -> None:
        for layer in self.layers:
            layer.reset_parameters()

    def _backward(self, saved: list[tuple[Any, Any]], grad: Any, need_input_grad: bool) -> Any:
        """Apply the layers' backward passes in reverse."""
        for i in reversed(range(len(self.layers))):
            if i < self._lowest and not need_input_grad:
                return None
            layer, need = self.layers[i], need_input_grad or i > self._lowest
            tape, dtype = saved.pop()
            grad = grad.astype(dtype, copy=False)
            grad = layer._backward(tape, grad, need) if layer._ours else layer.backward(grad, need)
        return grad


# --- losses ---------------------------------------------------------------------------------------------


def _checked_pair(name: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    """Check outputs and targets and return them with one dtype."""
    x, y = as_numbers(name, outputs), as_numbers("targets", targets)
    if x.shape != y.shape or x.size == 0:
        raise ValueError(f"targets: must have the shape of {name} {x.shape} and not be empty, got {y.shape}")
    dtype = compute_dtype(x)
    return contiguous(x, dtype).reshape(x.shape), contiguous(as_exact("targets", y, dtype), dtype).reshape(y.shape)


def binary_cross_entropy_with_logits(logits: ArrayLike, targets: ArrayLike) -> tuple[float, Array]:
    """Compute the mean of log(1 + e^x) - y x, and its gradient (sigmoid(x) - y) / n in the logits.

    Parameters
    ----------
    logits : array_like
        The x, of any shape: a positive one speaks for a target of 1.
    targets : array_like, from 0 to 1
        The y, of the same shape.

    Returns
    -------
    loss : float
        The mean.
    grad : ndarray of the logits' shape
        The gradient.

    Raises
    ------
    ValueError
        If shapes differ, nothing is there, or a target is outside [0, 1].

    See Also
    --------
    sparsehopfield.layers.Module.backward : Takes the gradient.
    sparsehopfield.softmax_loss : The loss of several classes.

    Examples
    --------
    >>> loss, grad = binary_cross_entropy_with_logits([0.0], [1.0])
    >>> round(loss, 4), grad
    (0.6931, array([-0.5]))
    """
    x, y = _checked_pair("logits", logits, targets)
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError("targets: must be from 0 to 1")
    with ignoring_float_errors():
        loss = np.logaddexp(0, x) - y * x
        return float(loss.mean(dtype=np.float64)), (expit(x) - y) / x.dtype.type(x.size)


def mean_squared_error(predictions: ArrayLike, targets: ArrayLike) -> tuple[float, Array]:
    """Compute the mean of (x - y)^2, and its gradient 2 (x - y) / n in the predictions.

    Parameters
    ----------
    predictions : array_like
        The x, of any shape.
    targets : array_like
        The y, of the same shape.

    Returns
    -------
    loss : float
        The mean.
    grad : ndarray of the predictions' shape
        The gradient.

    Raises
    ------
    ValueError
        If shapes differ or nothing is there.

    See Also
    --------
    sparsehopfield.layers.Module.backward : Takes the gradient.
    sparsehopfield.layers.binary_cross_entropy_with_logits : The loss of a class that is there or not.

    Examples
    --------
    >>> mean_squared_error([1.0, 3.0], [1.0, 1.0])
    (2.0, array([0., 2.]))
    """
    x, y = _checked_pair("predictions", predictions, targets)
    with ignoring_float_errors():
        difference = x - y
        return float(np.mean(difference * difference, dtype=np.float64)), difference * x.dtype.type(2 / x.size)
