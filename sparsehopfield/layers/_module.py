"""What every layer is: named parameters, a forward and a backward pass, a state that can be saved."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from .. import files
from ..checks import (
    Array,
    as_flag,
    as_float_dtype,
    as_generator,
    as_numbers,
    as_state,
    compute_dtype,
    in_order,
    untrapped,
)
from ..errors import FileFormatError
from ..separations import Entmax, Polynomial
from ..structure import Structure, described, restored

__all__ = ["Module", "Parameter", "load"]

KIND, VERSION = "layer", "1"
TRANSIENT = {"_saved", "_slope", "_tape", "_x"}
FIELDS = {"format", "version", "layer", "data", "header"}


class Parameter:
    """An array that is learned.

    Attributes
    ----------
    value : ndarray
        Changed in place by optimisers and by `load_state_dict`.
    grad : ndarray or None
        The sum of the gradients since the last `zero_grad`, None before the first.
    trainable : bool
        Whether optimisers change it.
    """

    __slots__ = ("grad", "trainable", "value")

    def __init__(self, value: Array, trainable: bool = True) -> None:
        self.value, self.trainable = value, trainable
        self.grad: Array | None = None

    def add(self, grad: Array) -> None:
        """Add to the gradient; an array that is the first is kept, not copied."""
        if self.grad is None:
            self.grad = grad
        else:
            self.grad += grad

    def __repr__(self) -> str:
        return f"Parameter(shape={self.value.shape}, dtype={self.value.dtype}, trainable={self.trainable})"


class Module:
    """The base of all layers.

    A layer computes by `forward` (or by being called), and `backward` takes the gradient of what the last forward
    returned, adds to the gradients of the parameters, and returns the gradient of the input, or None where that is
    not asked for: then nothing is computed for it.
    """

    _kinds: ClassVar[dict[str, type[Module]]] = {}
    _takes_masks = False  # and offsets, in `forward`

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.startswith(__package__):  # only what comes with the package is loaded from files
            Module._kinds[cls.__name__] = cls
        if cls.__module__.split(".")[0] == __package__.split(".")[0]:
            for name in cls.__dict__.keys() & {"forward", "backward"}:
                setattr(cls, name, untrapped()(cls.__dict__[name]))

    def __init__(self, config: dict[str, Any], dtype: Any, random_state: Any) -> None:
        """Begin a layer: the arguments it was made with, what its numbers are, and where its random ones come from."""
        self.dtype = as_float_dtype(dtype)
        self._random = as_generator("random_state", random_state)
        self._config = config
        self._own: dict[str, Parameter] = {}
        self._inner: dict[str, Module] = {}

    def _arguments(self) -> dict[str, Any]:
        """What would make the layer again, but for its state."""
        return self._config

    def _parameter(self, name: str, value: Array, trainable: bool = True) -> Parameter:
        """Register a parameter."""
        self._own[name] = Parameter(np.ascontiguousarray(value, dtype=self.dtype), trainable)
        return self._own[name]

    def _normal(self, std: float, *shape: int) -> Array:
        """Normal numbers, drawn in double so that both precisions begin alike."""
        return self._random.normal(0.0, std, shape)

    # --- computing --------------------------------------------------------------------------------

    def forward(self, input: Any, *, train: bool = False) -> Array:
        """What the layer makes of its input; with `train`, dropout acts."""
        raise NotImplementedError

    def backward(self, grad: ArrayLike, need_input_grad: bool = True) -> Any:
        """Add to the parameters' gradients; return that of the input, or None where it is not needed."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but what the last forward pass left for a backward pass."""
        return {name: None if name in TRANSIENT else value for name, value in self.__dict__.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """`forward`."""
        return self.forward(*args, **kwargs)

    def _cast(self, name: str, x: ArrayLike, size: int | None = None) -> Array:
        """Numbers of the layer's dtype, contiguous, with `size` features."""
        if not (type(x) is np.ndarray and x.dtype == self.dtype and x.flags.carray):
            x = in_order(as_numbers(name, x), self.dtype)
        if size is not None and (x.ndim == 0 or x.shape[-1] != size):
            raise ValueError(f"{name}: must have {size} features along its last axis, got shape {x.shape}")
        return x

    def _floats(self, x: ArrayLike) -> Array:
        """The input of a layer without parameters: its dtype is what comes in, float32 where that is no float."""
        a = as_numbers("input", x)
        self.dtype = compute_dtype(a)
        return in_order(a, self.dtype).reshape(a.shape)

    def _grad(self, grad: ArrayLike, shape: tuple[int, ...] | None) -> Array:
        """The gradient that came in, if it fits what the last forward returned."""
        if shape is None:
            raise RuntimeError(f"{type(self).__name__}.backward: needs a forward pass before it")
        g = self._cast("grad", grad)
        if g.shape != shape:
            raise ValueError(f"grad: must have the output's shape {shape}, got {g.shape}")
        return g

    # --- parameters -------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Parameter]:
        """All parameters by name, those of inner layers behind the inner layer's name and a dot."""
        found = dict(self._own)
        for name, module in self._inner.items():
            found |= {f"{name}.{inner}": p for inner, p in module.parameters().items()}
        return found

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters().values():
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters' values by name."""
        return {name: p.value.copy() for name, p in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Take over values by name; all of them, or none when something is wrong.

        Parameters
        ----------
        state : mapping of str to array_like
            Cast to the layer's dtype.
        strict : bool
            Whether all parameters must be there and nothing else.

        Raises
        ------
        ValueError
            If names are missing or unknown (when strict), shapes differ, or numbers are not finite.
        """
        own, state, strict = self.parameters(), as_state("state", state), as_flag("strict", strict)
        missing, unknown = [n for n in own if n not in state], [n for n in state if n not in own]
        if strict and (missing or unknown):
            parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(
                unknown
            )
            raise ValueError(f"state: does not fit {type(self).__name__}: {'; '.join(parts)}")
        fitting = {}
        for name in own.keys() & state.keys():
            a = as_numbers(f"state[{name!r}]", state[name])
            if a.shape != own[name].value.shape:
                raise ValueError(f"state[{name!r}]: must have shape {own[name].value.shape}, got {a.shape}")
            with untrapped():
                fitting[name] = a.astype(self.dtype)
            if not np.isfinite(fitting[name]).all():
                raise ValueError(f"state[{name!r}]: must be finite in {self.dtype}")
        for name, a in fitting.items():
            own[name].value[...] = a

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer to a safetensors file: its arguments and its state, as a whole or not at all.

        Raises
        ------
        ValueError
            If it is, or holds, a layer that does not come with this package: it could not be loaded.
        """
        fields = {"format": f"sparsehopfield.{KIND}", "version": VERSION, "layer": json.dumps(_described(self))}
        files.write_tensors(path, fields, self.state_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The layer that `save` wrote.

        Raises
        ------
        FileFormatError
            If the file is cut, damaged, from elsewhere or of a later version, or holds another kind of layer.
        """
        layer, arrays = files.read_tensors(path, _checked, mmap=False, verify=True)
        if not isinstance(layer, cls):
            raise FileFormatError(f"{os.fsdecode(path)}: holds a {type(layer).__name__}, no {cls.__name__}")
        try:
            layer.load_state_dict(arrays)
        except ValueError as error:
            raise FileFormatError(f"{os.fsdecode(path)}: {error}") from None
        return layer


def load(path: str | os.PathLike[str]) -> Module:
    """The layer, of whatever kind, that `Module.save` wrote.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    FileFormatError
        If the file is cut, damaged, from elsewhere or of a later version.

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
    """An argument as JSON has it: objects are {their kind: their arguments}."""
    if isinstance(value, Module):
        if Module._kinds.get(type(value).__name__) is not type(value):
            raise ValueError(f"save: {type(value).__name__} does not come with this package and could not be loaded")
        return {type(value).__name__: {k: _described(v) for k, v in value._arguments().items()}}
    if isinstance(value, Structure):
        return described(value)
    if isinstance(value, Entmax):
        return {"Entmax": value.alpha}
    if isinstance(value, Polynomial):
        return {"Polynomial": value.order}
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
    """The argument again."""
    if isinstance(value, list):
        return [_made(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, arguments),) = value.items()
    if kind in ("Entmax", "Polynomial"):
        return {"Entmax": Entmax, "Polynomial": Polynomial}[kind](arguments)
    if kind not in Module._kinds:
        return restored(value)
    layer = Module._kinds[kind]
    return layer(**{name: _made(value) for name, value in arguments.items()})


def _checked(path: str, fields: dict[str, str], tensors: files.Tensors) -> Module:
    """The layer of a file, as it was made, if the header is whole and the tensors can be its state."""
    files.sound_header(path, fields, tensors, kind=KIND, version=VERSION, names=FIELDS)
    for name, dtype, shape in tensors:
        if dtype not in ("F32", "F64") or not shape or min(shape) < 1:
            raise FileFormatError(f"{path}: {name}: cannot be {dtype} of shape {shape}")
    try:
        layer = _made(json.loads(fields["layer"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileFormatError(f"{path}: describes no layer of this version: {error}") from None
    if not isinstance(layer, Module):
        raise FileFormatError(f"{path}: describes no layer")
    return layer
