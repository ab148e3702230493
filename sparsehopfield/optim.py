"""Optimisation of layers: AdamW, clipping of gradients, and schedules of learning rate, beta and alpha."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield import _core
from sparsehopfield._engine import dense
from sparsehopfield._engine.checks import (
    Array,
    as_list,
    as_number,
    as_numbers,
    as_state,
    as_whole,
    as_writeable,
    contiguous,
    ignoring_float_errors,
)
from sparsehopfield._engine.separations import Entmax, SeparationMap, as_choice
from sparsehopfield._engine.text import short
from sparsehopfield.layers import Hopfield, HopfieldLayer, HopfieldPooling, Module, Parameter

__all__ = ["AdamW", "Annealing", "CosineDecay", "ExponentialDecay", "clip_gradients"]

Parameters = Module | Mapping[str, Parameter] | Iterable[Parameter]


def _by_name(parameters: Parameters) -> dict[str, Parameter]:
    """Return parameters by name; by number where they have none. A parameter that comes twice is returned once."""
    if isinstance(parameters, Module):
        parameters = parameters.parameters()
    what = "a layer or its parameters, at least one"
    if not isinstance(parameters, Mapping):
        parameters = {str(i): p for i, p in enumerate(as_list("parameters", parameters, what))}
    if not parameters or not all(isinstance(p, Parameter) for p in parameters.values()):
        raise TypeError(f"parameters: must be {what}, got {short(parameters)}")
    if len({*parameters.values()}) == len(parameters):
        return dict(parameters)
    names = {p: name for name, p in reversed([*parameters.items()])}  # its first
    return {name: p for name, p in parameters.items() if names[p] == name}


def _checked_pair(name: str, p: Parameter) -> tuple[Array, Array]:
    """Return a parameter's array and its gradient; raise unless one is writeable and the other has its shape."""
    value, g = as_writeable(name, p.value), p.grad
    if type(g) is not np.ndarray or g.dtype != value.dtype or not g.flags.carray:
        a = as_numbers(f"grad of {name}", g)  # type: ignore[arg-type]
        g = contiguous(a, value.dtype)
    if g.shape != value.shape:
        raise ValueError(f"grad of {name}: must have the parameter's shape {value.shape}, got {g.shape}")
    return value, g.copy() if np.may_share_memory(g, value) else g


class AdamW:
    """Adam with decoupled weight decay.

    Parameters
    ----------
    parameters : Module, or mapping or iterable of Parameter
        A layer, or some of its parameters. Those that are trainable and have a gradient are moved.
    learning_rate : float, at least 0
        Step size; an attribute, which may be changed later.
    betas : tuple of two floats, from 0 to below 1
        By how much the running means of the gradient and of its square keep of themselves in a step.
    eps : float, positive
        What is added to the root of the second mean, so that it can be divided by.
    weight_decay : float, at least 0
        Share of a parameter, times the learning rate, that each step takes away.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    clip_gradients : Scale gradients down before a step.
    CosineDecay : Let the learning rate fall from epoch to epoch.
    sparsehopfield.layers.Module : The layers whose parameters are moved.

    References
    ----------
    Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.

    Examples
    --------
    >>> from sparsehopfield.layers import Linear
    >>> layer = Linear(1, 1, random_state=0)
    >>> optimizer = AdamW(layer, learning_rate=0.1, weight_decay=0.0)
    >>> before = layer.weight.value.copy()
    >>> _ = layer.forward([[1.0]]), layer.backward([[2.0]])
    >>> optimizer.step()
    >>> (layer.weight.value - before).round(3)
    array([[-0.1]], dtype=float32)
    """

    def __init__(
        self,
        parameters: Parameters,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self._parameters = _by_name(parameters)
        self.learning_rate = as_number("learning_rate", learning_rate, least=0.0)
        means = as_numbers("betas", betas)
        if means.shape != (2,) or not ((means >= 0) & (means < 1)).all():
            raise ValueError(f"betas: must be two numbers from 0 to below 1, got {short(betas)}")
        self.betas = float(means[0]), float(means[1])
        self.eps = as_number("eps", eps, least=np.finfo(np.float64).tiny)
        self.weight_decay = as_number("weight_decay", weight_decay, least=0.0)
        self._steps = 0
        self._gradient_means = {name: np.zeros_like(p.value) for name, p in self._parameters.items()}
        self._square_means = {name: np.zeros_like(p.value) for name, p in self._parameters.items()}

    def step(self) -> None:
        """Move the parameters by their gradients.

        Raises
        ------
        ValueError
            If a parameter's array is read-only, or a gradient does not have its shape; then nothing is moved.

        See Also
        --------
        zero_grad : Forget the gradients, before those of the next step are added up.
        clip_gradients : Scale them down before.

        Examples
        --------
        >>> p = Parameter(np.zeros(2))
        >>> optimizer = AdamW([p], learning_rate=0.1, weight_decay=0.0)
        >>> p.grad = np.array([3.0, -0.5])
        >>> optimizer.step()
        >>> p.value.round(3)  # the first step has the same length for gradients of any size
        array([-0.1,  0.1])
        """
        moved = [(name, p) for name, p in self._parameters.items() if p.trainable and p.grad is not None]
        values, grads = [p.value for _, p in moved], [p.grad for _, p in moved if p.grad is not None]
        if not _core.are_pairs(values, grads):
            pairs = [_checked_pair(name, p) for name, p in moved]
            values, grads = [value for value, _ in pairs], [g for _, g in pairs]
        self._steps += 1
        for _, p in moved:
            p.changes += 1
        dense.adamw(
            values,
            grads,
            [self._gradient_means[name] for name, _ in moved],
            [self._square_means[name] for name, _ in moved],
            self._steps,
            learning_rate=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )

    def zero_grad(self) -> None:
        """Forget the gradients: backward passes add to what is there.

        See Also
        --------
        step : Move the parameters by their gradients.

        Examples
        --------
        >>> p = Parameter(np.zeros(2))
        >>> p.grad = np.ones(2)
        >>> AdamW([p]).zero_grad()
        >>> p.grad is None
        True
        """
        for p in self._parameters.values():
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the optimiser's state, to go on from it later.

        Returns
        -------
        dict of str to ndarray
            "steps", the number of steps, and "learning_rate"; "first." and "second." with the name of each parameter
            are the running means of its gradient and of the gradient's square. Parameters without names have numbers.

        See Also
        --------
        load_state_dict : Set it again.
        sparsehopfield.layers.Module.state_dict : Return the parameters, which are not part of it.

        Examples
        --------
        >>> optimizer = AdamW([Parameter(np.zeros(2))])
        >>> state = optimizer.state_dict()
        >>> sorted(state), state["first.0"]
        (['first.0', 'learning_rate', 'second.0', 'steps'], array([0., 0.]))
        """
        state: dict[str, Array] = {
            "steps": np.array(self._steps),
            "learning_rate": np.array(self.learning_rate),
        }
        for prefix, means in (("first", self._gradient_means), ("second", self._square_means)):
            state |= {f"{prefix}.{name}": a.copy() for name, a in means.items()}
        return state

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Set what `state_dict` returned: all of it, or nothing if something does not fit.

        Parameters
        ----------
        state : mapping of str to array_like
            What `state_dict` returned of an optimiser of parameters with the same names and shapes.

        Raises
        ------
        ValueError
            If names are missing or unknown, shapes differ, or numbers cannot be.

        See Also
        --------
        state_dict : Return the state.
        sparsehopfield.layers.Module.load_state_dict : Set the parameters.

        Examples
        --------
        >>> optimizer = AdamW([Parameter(np.zeros(2))], learning_rate=0.1)
        >>> other = AdamW([Parameter(np.zeros(2))])
        >>> other.load_state_dict(optimizer.state_dict())
        >>> other.learning_rate
        0.1
        """
        current, state = self.state_dict(), as_state("state", state)
        if current.keys() != state.keys():
            raise ValueError(f"state: missing or unknown {sorted(current.keys() ^ state.keys())}")
        new = {name: as_numbers(f"state[{name!r}]", a) for name, a in state.items()}
        for name, a in new.items():
            if a.shape != current[name].shape or not np.isfinite(a).all():
                raise ValueError(f"state[{name!r}]: must be finite and of shape {current[name].shape}, got {a.shape}")
            if name.startswith("second.") and (a < 0).any():
                raise ValueError(f"state[{name!r}]: must not be negative, as means of squares")
        steps = as_whole("state['steps']", new["steps"].item(), least=0)
        self.learning_rate = as_number("state['learning_rate']", new["learning_rate"], least=0.0)
        self._steps = steps
        for prefix, means in (("first", self._gradient_means), ("second", self._square_means)):
            for name, a in means.items():
                a[...] = new[f"{prefix}.{name}"]


def clip_gradients(parameters: Parameters, max_norm: float) -> float:
    """Scale all gradients together so that their norm is at most `max_norm`.

    Parameters
    ----------
    parameters : Module, or mapping or iterable of Parameter
        Whose gradients are scaled, in place; those without a gradient do not count.
    max_norm : float, at least 0
        The largest Euclidean norm that all gradients together keep.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    ValueError
        If a gradient is not finite, or read-only and to be scaled; then none is.

    See Also
    --------
    AdamW.step : Move the parameters by these gradients.

    Examples
    --------
    >>> p = Parameter(np.zeros(2))
    >>> p.grad = np.array([3.0, 4.0])
    >>> clip_gradients([p], 1.0), p.grad
    (5.0, array([0.6, 0.8]))
    """
    max_norm = as_number("max_norm", max_norm, least=0.0)
    named = {name: p.grad for name, p in _by_name(parameters).items() if p.grad is not None}
    grads = [as_numbers(f"grad of {name}", g) for name, g in named.items()]
    with ignoring_float_errors():
        norm = sum(float(np.vdot(g, g)) for g in grads) ** 0.5
        if not np.isfinite(norm):  # squares that are too large for float32
            norm = float(np.linalg.norm([np.linalg.norm(g.ravel().astype(np.float64)) for g in grads]))
        if not np.isfinite(norm):
            raise ValueError("parameters: have gradients that are not finite")
        if norm > max_norm:
            for name, g in named.items():
                if as_writeable(f"grad of {name}", g).dtype.kind != "f":
                    raise TypeError(f"grad of {name}: must be floating-point to be scaled, got {g.dtype}")
            for g in grads:
                g *= max_norm / norm
    return norm


def _checked_optimizer(optimizer: AdamW) -> AdamW:
    """Return the optimiser whose learning rate is to be changed; raise unless it is one."""
    if not isinstance(optimizer, AdamW):
        raise TypeError(f"optimizer: must be an AdamW, got {type(optimizer).__name__}")
    return optimizer


class ExponentialDecay:
    """A learning rate that shrinks by a factor with each `step()`.

    Parameters
    ----------
    optimizer : AdamW
        The optimiser whose learning rate shrinks.
    rate : float, positive
        What each step multiplies the learning rate by.

    See Also
    --------
    CosineDecay : Let it fall to a number over so many epochs.
    AdamW : The optimiser.

    Examples
    --------
    >>> optimizer = AdamW([Parameter(np.zeros(2))], learning_rate=1.0)
    >>> ExponentialDecay(optimizer, 0.5).step()
    >>> optimizer.learning_rate
    0.5
    """

    def __init__(self, optimizer: AdamW, rate: float) -> None:
        self.optimizer = _checked_optimizer(optimizer)
        self.rate = as_number("rate", rate, least=np.finfo(np.float64).tiny)

    def step(self) -> None:
        """Shrink the learning rate, at the end of an epoch.

        See Also
        --------
        AdamW.step : Make a step of training, of which an epoch has many.

        Examples
        --------
        >>> optimizer = AdamW([Parameter(np.zeros(2))], learning_rate=1.0)
        >>> decay = ExponentialDecay(optimizer, 0.9)
        >>> decay.step(), decay.step()
        (None, None)
        >>> round(optimizer.learning_rate, 4)
        0.81
        """
        self.optimizer.learning_rate *= self.rate


class CosineDecay:
    """A learning rate that falls to `stop` as half a wave of a cosine, slowly at both ends.

    After t of T epochs it is `stop` + (start - `stop`) (1 + cos(pi t / T)) / 2, where start is the optimiser's rate
    when the schedule is made.

    Parameters
    ----------
    optimizer : AdamW
        The optimiser whose learning rate falls.
    epochs : int, at least 1
        T: after so many `step()`s the rate is `stop`, and stays there.
    stop : float, at least 0
        The learning rate at the end.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    ExponentialDecay : Let it shrink by the same factor in every epoch.
    AdamW : The optimiser.

    References
    ----------
    Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", equation 5, without restarts.

    Examples
    --------
    >>> optimizer = AdamW([Parameter(np.zeros(2))], learning_rate=1.0)
    >>> schedule = CosineDecay(optimizer, epochs=4)
    >>> for epoch in range(4):
    ...     schedule.step()
    ...     print(f"{optimizer.learning_rate:.3f}")
    0.854
    0.500
    0.146
    0.000
    """

    def __init__(self, optimizer: AdamW, epochs: int, stop: float = 0.0) -> None:
        self.optimizer = _checked_optimizer(optimizer)
        self.epochs, self.epoch = as_whole("epochs", epochs, least=1), 0
        self.start, self.stop = optimizer.learning_rate, as_number("stop", stop, least=0.0)

    def step(self) -> None:
        """Set the next learning rate, at the end of an epoch.

        See Also
        --------
        AdamW.step : Make a step of training, of which an epoch has many.

        Examples
        --------
        >>> optimizer = AdamW([Parameter(np.zeros(2))], learning_rate=1.0)
        >>> schedule = CosineDecay(optimizer, epochs=2, stop=0.1)
        >>> for epoch in range(3):
        ...     schedule.step()
        ...     print(round(optimizer.learning_rate, 3))
        0.55
        0.1
        0.1
        """
        self.epoch += 1
        wave = (1 + math.cos(math.pi * min(self.epoch / self.epochs, 1.0))) / 2
        self.optimizer.learning_rate = self.stop * (1 - wave) + self.start * wave


class Annealing:
    """beta or alpha of a Hopfield layer, moved from one number to another as training goes.

    A sparse association whose support holds one distinct pattern passes no gradient to the queries and keys: begin
    flat. beta moves by equal factors, alpha (1: softmax, 2: sparsemax) by equal steps.

    Parameters
    ----------
    layer : Hopfield, HopfieldPooling or HopfieldLayer
        The layer to change; it is set to `start` at once.
    what : {"beta", "alpha"}
        The layer's `scaling`, or its `separation`.
    start, stop : float, positive; at least 1 for alpha
        The number in the first epoch, and the one at the end.
    epochs : int, at least 1
        After so many `step()`s it is at `stop`, and stays there.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault; or if the layer learns its beta, which is to be annealed.

    See Also
    --------
    sparsehopfield.layers.Hopfield : The layer, with `scaling` and `separation`.
    sparsehopfield.Entmax : The maps between softmax and sparsemax.
    CosineDecay : Let the learning rate fall.

    Examples
    --------
    >>> from sparsehopfield.layers import HopfieldPooling
    >>> layer = HopfieldPooling(4)
    >>> annealing = Annealing(layer, "alpha", 1.0, 2.0, epochs=2)
    >>> for epoch in range(3):
    ...     print(layer.separation)
    ...     annealing.step()
    softmax
    Entmax(alpha=1.5)
    sparsemax
    """

    def __init__(
        self, layer: Hopfield | HopfieldPooling | HopfieldLayer, what: str, start: float, stop: float, epochs: int
    ) -> None:
        if not isinstance(layer, (Hopfield, HopfieldPooling, HopfieldLayer)):
            raise TypeError(f"layer: must be a Hopfield layer, got {type(layer).__name__}")
        if as_choice("what", what, ("beta", "alpha")) == "beta" and any(
            name.endswith("log_scaling") for name in layer.parameters()
        ):
            raise ValueError("what: this layer learns its beta; make it without learnable_scaling to anneal it")
        least = 1.0 if what == "alpha" else np.finfo(np.float64).tiny
        self.layer, self.what = layer, what
        self.start, self.stop = as_number("start", start, least=least), as_number("stop", stop, least=least)
        most = float(np.finfo(layer.dtype).max)
        for name, number in (("start", self.start), ("stop", self.stop)):
            if what == "beta" and number > most:
                raise ValueError(f"{name}: must be at most {most:g}, the largest {layer.dtype}, got {number:g}")
        self.epochs, self.epoch = as_whole("epochs", epochs, least=1), 0
        self._set_layer()

    @property
    def value(self) -> float:
        """Return the present beta or alpha."""
        share = min(self.epoch / self.epochs, 1.0)
        if share == 1:
            return self.stop
        if self.what == "beta":
            return float(self.start ** (1 - share) * self.stop**share)  # no quotient, which may leave float64
        return self.start + share * (self.stop - self.start)

    def _set_layer(self) -> None:
        """Set the beta or the separation of the layer to the present value."""
        if self.what == "beta":
            self.layer.scaling = self.value
        else:
            separation = self.layer.separation
            has_alpha = isinstance(separation, SeparationMap) and hasattr(separation, "alpha")
            family = type(separation) if has_alpha else Entmax
            named = {1.0: "softmax", 2.0: "sparsemax"} if family is Entmax else {}
            self.layer.separation = named.get(self.value) or family(self.value)

    def step(self) -> None:
        """Set the next value, at the end of an epoch.

        See Also
        --------
        Annealing : Choose where it begins and ends.

        Examples
        --------
        >>> from sparsehopfield.layers import HopfieldPooling
        >>> layer = HopfieldPooling(4)
        >>> annealing = Annealing(layer, "beta", 1.0, 16.0, epochs=2)
        >>> annealing.step()
        >>> annealing.value, layer.scaling  # half way, by equal factors
        (4.0, 4.0)
        """
        self.epoch += 1
        self._set_layer()
