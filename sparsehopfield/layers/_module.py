"""The base of all layers: named parameters, a forward and a backward pass, a state that can be saved."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from operator import attrgetter
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine import files, html
from sparsehopfield._engine.checks import (
    FLOATS,
    Array,
    as_exact,
    as_flag,
    as_float_dtype,
    as_generator,
    as_numbers,
    as_state,
    as_writeable,
    check_parameter,
    compute_dtype,
    contiguous,
    ignoring_float_errors,
)
from sparsehopfield._engine.separations import FAMILIES, SeparationMap
from sparsehopfield._engine.structure import Structure, described, parsed, restored
from sparsehopfield._engine.text import short
from sparsehopfield.errors import FileFormatError

__all__ = ["Module", "Parameter", "load"]

KIND, VERSION = "layer", "1"
TRANSIENT = {"_tape", "_last_tape", "_last_gradients"}
FIELDS = {"format", "version", "layer", "data", "header"}
_from_file: ContextVar[bool] = ContextVar("_from_file", default=False)  # layers are made for what a file holds


class Parameter:
    """An array that is learned.

    Parameters
    ----------
    value : array_like
        What it begins with; float64 numbers stay so, others become float32.
    trainable : bool
        Whether optimisers change it.

    Attributes
    ----------
    value : ndarray of float32 or float64
        Changed in place by optimisers and by `load_state_dict`. May be replaced by an array of the same shape, which is
        kept if it has the same dtype and C order, else copied; one that is read-only serves as long as nothing has to
        change it.
    grad : ndarray or None
        The sum of the gradients since the last `zero_grad`, None before the first.
    trainable : bool
        Whether optimisers change it.
    changes : int
        How often `change`, or another array for `value`, has changed the numbers.

    See Also
    --------
    sparsehopfield.layers.Module.parameters : Return those of a layer by name.
    sparsehopfield.optim.AdamW : Change them by their gradients.

    Examples
    --------
    >>> weight = Parameter(np.ones((2, 3)))
    >>> weight.add(np.full((2, 3), 0.5))
    >>> weight, weight.grad[0]
    (Parameter(shape=(2, 3), dtype=float64, trainable=True), array([0.5, 0.5, 0.5]))
    """

    __slots__ = ("_value", "changes", "grad", "trainable")

    def __init__(self, value: ArrayLike, trainable: bool = True) -> None:
        a = as_numbers("value", value)
        self._value: Array = contiguous(a, compute_dtype(a))
        self.trainable = trainable
        self.changes = 0  # how often the package has changed the value
        self.grad: Array | None = None

    def _replace(self, value: ArrayLike) -> None:
        """Take another array for the value."""
        a = as_numbers("value", value)
        if a.shape != self._value.shape:
            raise ValueError(f"value: must have the parameter's shape {self._value.shape}, got {a.shape}")
        self._value = contiguous(a, self._value.dtype)
        self.changes += 1

    value: Any = property(attrgetter("_value"), _replace)  # read often

    def begin(self, value: Array) -> None:
        """Take over an array as it is, without a copy, a check or a count in `changes`.

        Parameters
        ----------
        value : ndarray of float32 or float64
            What the parameter begins with.

        See Also
        --------
        sparsehopfield.layers.Parameter.change : Overwrite the numbers of the array that is there.

        Examples
        --------
        >>> weight, value = Parameter(np.zeros(3)), np.ones(3)
        >>> weight.begin(value)
        >>> weight.value is value, weight.changes
        (True, 0)
        """
        self._value = value

    def change(self, value: Array | float) -> None:
        """Overwrite the numbers, in place: whoever holds the array sees it.

        Parameters
        ----------
        value : array_like that broadcasts to the parameter's shape
            The new numbers, cast to its dtype.

        See Also
        --------
        sparsehopfield.layers.Module.load_state_dict : Change all parameters of a layer, or none.

        Examples
        --------
        >>> weight = Parameter(np.zeros(3))
        >>> value = weight.value
        >>> weight.change(7.0)
        >>> value, weight.changes
        (array([7., 7., 7.]), 1)
        """
        self.value[...] = value
        self.changes += 1

    def add(self, grad: Array) -> None:
        """Add to the gradient; an array that is the first is kept, not copied.

        Parameters
        ----------
        grad : ndarray, of the parameter's shape
            What a backward pass found.

        See Also
        --------
        sparsehopfield.layers.Module.zero_grad : Forget the gradients.

        Examples
        --------
        >>> weight = Parameter(np.zeros(2))
        >>> for grad in ([1.0, 2.0], [0.5, 0.0]):
        ...     weight.add(np.array(grad))
        >>> weight.grad
        array([1.5, 2. ])
        """
        if self.grad is None:
            self.grad = grad
        elif self.grad.flags.writeable:
            self.grad += grad
        else:
            self.grad = self.grad + grad

    def __repr__(self) -> str:
        return f"Parameter(shape={self.value.shape}, dtype={self.value.dtype}, trainable={self.trainable})"


# The tape of a forward pass: shape and dtype of the output, the number of changes of the parameters before it, and what
# `_forward` saved. A plain tuple, which is fastest to make.
Tape = tuple[tuple[int, ...], np.dtype[Any], int, Any]


class Module:
    """The base of all layers.

    A layer computes by `forward` (or by being called), and `backward` takes the gradient of what the last forward
    returned, adds to the gradients of the parameters, and returns the gradient of the input, or None where that is
    not asked for: then nothing is computed for it.

    Parameters
    ----------
    config : dict of str to any
        The arguments that the layer is made with, as a file keeps them.
    dtype : {float32, float64}
        Of parameters and outputs; inputs are cast to it.
    random_state : None, int or numpy.random.Generator
        Draws the initial numbers, and what dropout drops.

    See Also
    --------
    sparsehopfield.layers.Sequential : Layers one after another.
    sparsehopfield.optim.AdamW : Train a layer.

    Notes
    -----
    A forward pass serves one backward pass, and the next forward pass drops its tape, so that passes without gradients
    need no more memory than one. Another backward pass is refused, as is one after the parameters have changed. A layer
    may stand several times in a `Sequential`. Inputs, offsets and masks may be overwritten between the two passes;
    parameters' values must not be, other than by optimisers and `load_state_dict`, which is noticed. A layer is to be
    used by one thread at a time. Where several forward passes are to wait for their backward passes, make each by a
    shallow copy of its own, `copy.copy(layer)`: copies share the parameters with their
    gradients, and the random numbers.

    A layer of this package is two functions that change nothing but gradients: `_forward` returns the output and
    the tape for `_backward`. A subclass from elsewhere defines `forward` and `backward`, and keeps its own tape.

    Examples
    --------
    >>> from sparsehopfield.layers import Linear
    >>> layer = Linear(2, 1, random_state=0)
    >>> out = layer([[1.0, 2.0]])  # as layer.forward
    >>> layer.backward([[1.0]]).shape  # the gradient of the input
    (1, 2)
    >>> layer.parameters()["weight"].grad
    array([[1., 2.]], dtype=float32)
    """

    _kinds: ClassVar[dict[str, type[Module]]] = {}
    _takes_masks = False  # and offsets, in `forward`
    _ours = True  # comes with this package

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._ours = cls.__module__.startswith(f"{__package__}.")
        if cls._ours and not cls.__name__.startswith("_"):  # nothing else is loaded from files
            Module._kinds[cls.__name__] = cls

    def __init__(self, config: dict[str, Any], dtype: Any, random_state: Any) -> None:
        """Set the arguments that the layer was made with, its dtype, and the generator of its random numbers."""
        self.dtype = as_float_dtype(dtype)
        self._random = as_generator("random_state", random_state)
        self._config = config
        self._own: dict[str, Parameter] = {}
        self._inner: dict[str, Module] = {}
        self._all: list[Parameter] | None = None  # of `parameters()`, once it is asked for
        self._tape: Tape | None = None

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments that make the layer again, but for its state."""
        return self._config

    # --- for people -------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """Return the arguments that are not the defaults, but for inner layers and the random state."""
        defaults = {name: p.default for name, p in inspect.signature(type(self).__init__).parameters.items()}
        return {
            name: value
            for name, value in self._arguments().items()
            if name not in ("layers", "random_state") and repr(value) != repr(defaults.get(name))
        }

    def __repr__(self) -> str:
        inner = [repr(layer) for layer in self._inner.values()] if "layers" in self._config else []
        settings = [f"{name}={short(value)}" for name, value in self._settings().items()]
        return f"{type(self).__name__}({', '.join([*inner, *settings])})"

    def _repr_html_(self) -> str:
        lines = [["parameter", "shape", "numbers", "dtype", "trained"]]
        for name, p in self.parameters().items():
            shape = " x ".join(map(str, p.value.shape)) or "one number"
            lines.append([name, shape, f"{p.value.size}", str(p.value.dtype), "yes" if p.trainable else "no"])
        sizes = [p.value.size for p in self.parameters().values()]
        inner = self._inner if "layers" in self._config else {}  # of others, the settings say all
        known = {name: short(layer) for name, layer in inner.items()}
        known |= {name: short(value, quote=not isinstance(value, str)) for name, value in self._settings().items()}
        known["parameters"] = f"{sum(sizes):,} numbers" if sizes else "none"
        table = f"\n{html.table(lines)}" if sizes else ""
        return html.facts(known, type(self).__name__) + table

    def _parameter(
        self, name: str, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Array], trainable: bool = True
    ) -> Parameter:
        """Register a parameter. Its first value is drawn for its shape; for a layer from a file, only the shape is
        set.
        """
        check_parameter(name, shape, self._config)
        p = self._own[name] = Parameter(np.zeros((), self.dtype), trainable)
        p.begin(np.broadcast_to(p.value, shape) if _from_file.get() else contiguous(draw(shape), self.dtype))
        return p

    def _normal(self, std: float) -> Callable[[tuple[int, ...]], Array]:
        """Return a function that draws normal numbers, in double so that both precisions begin alike."""
        return lambda shape: self._random.normal(0.0, abs(std), shape)  # of -0, which NumPy takes for negative

    # --- computing --------------------------------------------------------------------------------

    def forward(self, input: Any, *, train: bool = False) -> Array:
        """Compute the layer's output.

        Parameters
        ----------
        input : array_like
            Rows of features; a layer's class says of what shape.
        train : bool
            Whether dropout acts.

        Returns
        -------
        ndarray
            The output, in the layer's dtype; in that of the input where the layer has no parameters.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.layers.Module.backward : Pass a gradient of the output back.

        Examples
        --------
        >>> from sparsehopfield.layers import Dropout
        >>> layer = Dropout(0.5, random_state=0)
        >>> layer.forward([1.0, 1.0, 1.0, 1.0]), layer.forward([1.0, 1.0, 1.0, 1.0], train=True)
        (array([1., 1., 1., 1.]), array([2., 2., 2., 0.]))
        """
        return self._pass(input, train, {})

    @ignoring_float_errors()
    def backward(self, grad: ArrayLike, need_input_grad: bool = True) -> Any:
        """Add to the parameters' gradients; return that of the input, or None where it is not needed.

        Parameters
        ----------
        grad : array_like, of the output's shape
            The gradient of a loss in the output of the last forward pass.
        need_input_grad : bool
            Whether to compute the gradient of the input.

        Returns
        -------
        ndarray or None
            The gradient of the input; layers that take tuples say what they return.

        Raises
        ------
        RuntimeError
            If there was no forward pass since the last backward pass, or parameters have changed since.
        ValueError
            If `grad` does not have the output's shape.

        See Also
        --------
        sparsehopfield.layers.Module.forward : Make the forward pass that it needs.
        sparsehopfield.layers.Module.zero_grad : Forget the gradients.

        Examples
        --------
        >>> from sparsehopfield.layers import ReLU, mean_squared_error
        >>> layer = ReLU()
        >>> loss, grad = mean_squared_error(layer.forward([-1.0, 2.0]), [1.0, 1.0])
        >>> layer.backward(grad)
        array([-0.,  1.])
        """
        tape = self._tape
        if tape is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: needs a forward pass before it; each forward pass serves one"
            )
        shape, dtype, changes, saved = tape
        if changes != self._changes():
            raise RuntimeError(
                f"{type(self).__name__}.backward: parameters have changed since the forward pass; make it again"
            )
        g = self._cast("grad", grad, dtype=dtype)
        if g.shape != shape:
            raise ValueError(f"grad: must have the output's shape {shape}, got {g.shape}")
        self._tape = None  # whatever happens now: half of the gradients may be there
        return self._backward(saved, g, need_input_grad)

    @ignoring_float_errors()
    def _pass(self, input: Any, train: bool, options: dict[str, Any]) -> Array:
        """Run a forward pass with these options, and keep its tape for a backward pass."""
        self._tape = None
        changes = self._changes()
        out, saved = self._forward(input, train=train, **options)
        self._tape = out.shape, out.dtype, changes, saved
        return out

    def _changes(self) -> int:
        """Return how often the package has changed the parameters."""
        if self._all is None:
            self._all = list(self.parameters().values())
        count = 0
        for p in self._all:
            count += p.changes
        return count

    def _forward(self, input: Any, *, train: bool = False) -> tuple[Array, Any]:
        """Return the output, and what `_backward` needs."""
        raise NotImplementedError

    def _backward(self, saved: Any, grad: Array, need_input_grad: bool) -> Any:
        """Add to the parameters' gradients; return that of the input, or None where it is not needed."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: all but what the last forward pass left for a backward pass."""
        state = {name: None if name in TRANSIENT else value for name, value in self.__dict__.items()}
        return state | {"_config": dict(self._config)}  # shallow copies may be set otherwise

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """Call `forward`."""
        return self.forward(*args, **kwargs)

    def _cast(self, name: str, x: ArrayLike, size: int | None = None, dtype: Any = None, copy: bool = False) -> Array:
        """Return numbers of the layer's dtype, or of this one, contiguous, with `size` features.

        With `copy` they are a copy, so that `x` may be changed later.
        """
        dtype = self.dtype if dtype is None else dtype
        if type(x) is np.ndarray and x.dtype == dtype and x.flags.carray:
            x = x.copy() if copy else x
        else:
            a = as_numbers(name, x)
            a = as_exact(name, a, dtype)
            with ignoring_float_errors():  # infinities are found where they matter
                x = np.array(a, dtype, order="C") if copy else contiguous(a, dtype)
        if size is not None and (x.ndim == 0 or x.shape[-1] != size):
            raise ValueError(f"{name}: must have {size} features along its last axis, got shape {x.shape}")
        return x

    def _floats(self, x: ArrayLike) -> Array:
        """Return the input of a layer without parameters, in the dtype that it asks for."""
        if type(x) is np.ndarray and x.dtype in FLOATS and x.flags.carray:
            return x
        a = as_numbers("input", x)
        return contiguous(a, compute_dtype(a))

    # --- parameters -------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Parameter]:
        """Return all parameters by name; those of inner layers have the inner layer's name and a dot in front.

        Returns
        -------
        dict of str to Parameter
            In the order of `state_dict`, the very parameters.

        See Also
        --------
        sparsehopfield.layers.Module.state_dict : Return copies of their values.

        Examples
        --------
        >>> from sparsehopfield.layers import Linear, ReLU, Sequential
        >>> model = Sequential(Linear(4, 8), ReLU(), Linear(8, 1))
        >>> [(name, p.value.shape) for name, p in model.parameters().items()][:2]
        [('0.weight', (8, 4)), ('0.bias', (8,))]
        """
        found = dict(self._own)
        for name, module in self._inner.items():
            found |= {f"{name}.{inner}": p for inner, p in module.parameters().items()}
        return found

    def zero_grad(self) -> None:
        """Forget all gradients, as before the first backward pass.

        See Also
        --------
        sparsehopfield.layers.Module.backward : Add to the gradients.

        Examples
        --------
        >>> from sparsehopfield.layers import Linear
        >>> layer = Linear(2, 1)
        >>> _ = layer.backward(np.ones_like(layer.forward(np.ones((3, 2)))))
        >>> layer.zero_grad()
        >>> layer.parameters()["weight"].grad is None
        True
        """
        for p in self.parameters().values():
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters' values by name.

        Returns
        -------
        dict of str to ndarray
            The values, of parameters that are not learned, too; of Hopfield layers with hflayers' names and shapes.

        See Also
        --------
        sparsehopfield.layers.Module.load_state_dict : Set the values.
        sparsehopfield.layers.Module.save : Write them, and what makes the layer, to a file.

        Examples
        --------
        >>> from sparsehopfield.layers import LayerNorm
        >>> LayerNorm(2).state_dict()
        {'weight': array([1., 1.], dtype=float32), 'bias': array([0., 0.], dtype=float32)}
        """
        return {name: p.value.copy() for name, p in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Set values by name: all of them, or none if something is wrong.

        Parameters
        ----------
        state : mapping of str to array_like
            Values by the parameters' names, cast to the layer's dtype.
        strict : bool
            Whether all parameters must be there and nothing else.

        Raises
        ------
        ValueError
            If names are missing or unknown (when strict), shapes differ, numbers are not finite, or a parameter's
            array is read-only.

        See Also
        --------
        sparsehopfield.layers.Module.state_dict : Return such values.
        sparsehopfield.layers.load : Load a whole layer from a file.

        Examples
        --------
        >>> from sparsehopfield.layers import Linear
        >>> here, there = Linear(2, 1, random_state=0), Linear(2, 1, random_state=1)
        >>> there.load_state_dict(here.state_dict())
        >>> bool((here.forward([1.0, 2.0]) == there.forward([1.0, 2.0])).all())
        True
        """
        parameters, state, strict = self.parameters(), as_state("state", state), as_flag("strict", strict)
        fitting = self._fitting(state, strict)
        for name in fitting:
            as_writeable(name, parameters[name].value)
        for name, a in fitting.items():
            parameters[name].change(a)

    def _fitting(self, state: Mapping[str, ArrayLike], strict: bool = True) -> dict[str, Array]:
        """Return copies of the values for the parameters, checked."""
        arrays = {name: as_numbers(f"state[{name!r}]", state[name]) for name in state if name in self.parameters()}
        self._expect(dict.fromkeys(state, ()) | {name: a.shape for name, a in arrays.items()}, strict)
        fitting = {}
        for name, a in arrays.items():
            as_exact(f"state[{name!r}]", a, self.dtype)
            with ignoring_float_errors():
                fitting[name] = a.astype(self.dtype)
            if not np.isfinite(fitting[name]).all():
                raise ValueError(f"state[{name!r}]: must be finite in {self.dtype}")
        return fitting

    def _expect(self, shapes: Mapping[str, tuple[int, ...]], strict: bool = True) -> None:
        """Raise unless these are the parameters' shapes."""
        parameters = self.parameters()
        missing = [n for n in parameters if n not in shapes]
        unknown = [n for n in shapes if n not in parameters]
        if strict and (missing or unknown):
            parts = [
                f"{what} {short(', '.join(names), quote=False)}"
                for what, names in (("missing", missing), ("unknown", unknown))
                if names
            ]
            raise ValueError(f"state: does not fit {type(self).__name__}: {'; '.join(parts)}")
        for name, shape in shapes.items():
            if name in parameters and shape != parameters[name].value.shape:
                raise ValueError(f"state[{name!r}]: must have shape {parameters[name].value.shape}, got {shape}")

    def reset_parameters(self) -> None:
        """Begin anew: the parameters get the values of a new layer with the same arguments.

        They are drawn by the layer's own generator (in a `Sequential` by that of each layer), others every time.

        See Also
        --------
        sparsehopfield.layers.Module.load_state_dict : Set values that are given.

        Examples
        --------
        >>> from sparsehopfield.layers import Linear
        >>> layer = Linear(2, 1, random_state=0)
        >>> before = layer.state_dict()
        >>> layer.reset_parameters()
        >>> bool((layer.parameters()["weight"].value == before["weight"]).any())
        False
        """
        arguments = dict(self._arguments())
        if "random_state" in arguments:
            arguments["random_state"] = self._random
        self.load_state_dict(type(self)(**arguments).state_dict())

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer to a safetensors file: its arguments and its state, as a whole or not at all.

        Parameters
        ----------
        path : str or path-like
            The file to write; one that is there is replaced.

        Raises
        ------
        ValueError
            If it is, or holds, a layer that does not come with this package, or holds one twice, or layers in one
            another more than 30 deep: it could not be loaded.

        See Also
        --------
        sparsehopfield.layers.load : Load the layer again.

        Examples
        --------
        >>> import os, tempfile
        >>> from sparsehopfield.layers import Linear
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Linear(3, 2).save(os.path.join(folder, "layer.safetensors"))
        ...     os.listdir(folder)
        ['layer.safetensors']
        """
        parameters = self.parameters()
        if len({id(p) for p in parameters.values()}) < len(parameters):
            raise ValueError("save: a layer that stands in several places would be several layers when loaded")
        try:
            layer = json.dumps(_described(self))
            parsed(layer)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"save: {str(error).removeprefix('save: ')}") from None
        fields = {"format": f"sparsehopfield.{KIND}", "version": VERSION, "layer": layer}
        files.write_tensors(path, fields, self.state_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load the layer that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            The file to read.

        Returns
        -------
        Module
            A layer of this class.

        Raises
        ------
        FileFormatError
            If the file is cut, damaged, from elsewhere or of a later version, or holds another kind of layer.

        See Also
        --------
        sparsehopfield.layers.load : Load a layer of whatever kind.

        Examples
        --------
        >>> import os, tempfile
        >>> from sparsehopfield.layers import Linear
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Linear(3, 2).save(os.path.join(folder, "layer.safetensors"))
        ...     layer = Linear.load(os.path.join(folder, "layer.safetensors"))
        >>> layer.input_size, layer.output_size
        (3, 2)
        """
        from sparsehopfield import structures as structures  # their descriptions may be in the file

        layer, arrays = files.read_tensors(path, _checked, mmap=False, verify=True)
        if not isinstance(layer, cls):
            raise FileFormatError(f"{os.fsdecode(path)}: holds a {type(layer).__name__}, no {cls.__name__}")
        parameters = layer.parameters()
        try:
            for name, a in layer._fitting(arrays).items():
                parameters[name].value = a
        except ValueError as error:
            raise FileFormatError(f"{os.fsdecode(path)}: {error}") from None
        return layer


def load(path: str | os.PathLike[str]) -> Module:
    """Load the layer, of whatever kind, that `Module.save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file to read.

    Returns
    -------
    Module
        The layer, of the class that was saved, with its arguments and its parameters.

    Raises
    ------
    FileFormatError
        If the file is cut, damaged, from elsewhere or of a later version.

    See Also
    --------
    sparsehopfield.layers.Module.save : Write a layer.
    sparsehopfield.HopfieldMemory.load : Load a memory.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparsehopfield.layers import Linear
    >>> layer = Linear(3, 2, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     layer.save(os.path.join(folder, "layer.safetensors"))
    ...     again = load(os.path.join(folder, "layer.safetensors"))
    >>> bool((again.parameters()["weight"].value == layer.parameters()["weight"].value).all())
    True
    """
    return Module.load(path)


def _described(value: Any) -> Any:
    """Return an argument as JSON has it: objects are {their kind: their arguments}."""
    if isinstance(value, Module):
        if Module._kinds.get(type(value).__name__) is not type(value):
            raise ValueError(f"save: {type(value).__name__} does not come with this package and could not be loaded")
        return {type(value).__name__: {k: _described(v) for k, v in value._arguments().items()}}
    if isinstance(value, Structure):
        return described(value)
    if isinstance(value, SeparationMap):
        return {type(value).__name__: value.value}
    if isinstance(value, (list, tuple)):
        return [_described(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.random.Generator, np.random.SeedSequence, np.random.BitGenerator)):
        return None  # a stream of random numbers is not saved
    return value


def _made(value: Any) -> Any:
    """Make an argument from its JSON."""
    if isinstance(value, list):
        return [_made(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, arguments),) = value.items()
    if (family := FAMILIES.get(str(kind).lower())) and family.__name__ == kind:
        return family(arguments)
    if kind not in Module._kinds:
        return restored(value)
    layer = Module._kinds[kind]
    return layer(**{name: _made(value) for name, value in arguments.items()})


def _checked(path: str, fields: dict[str, str], tensors: files.Tensors) -> Module:
    """Make the layer that a file describes, its parameters without numbers, if header and tensors are sound. No array
    of the size that the file claims is allocated.
    """
    files.check_header(path, fields, tensors, kind=KIND, versions=(VERSION,), names=FIELDS)
    for name, dtype, shape in tensors:
        if dtype not in ("F32", "F64") or not shape or min(shape) < 1:
            raise FileFormatError(f"{path}: {name}: cannot be {dtype} of shape {shape}")
    token = _from_file.set(True)
    try:
        layer = _made(parsed(fields["layer"]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError) as error:
        raise FileFormatError(f"{path}: describes no layer of this version: {error}") from None
    finally:
        _from_file.reset(token)
    if not isinstance(layer, Module):
        raise FileFormatError(f"{path}: describes no layer")
    try:
        layer._expect({name: shape for name, _, shape in tensors})
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}") from None
    return layer
