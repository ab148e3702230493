"""The three roles of a Hopfield layer's inputs: their normalisation and projection before the association, and back.

The affine part of a role's layer normalisation is folded into its projection, so that an array in several roles is
normalised once and projected by one product, and no gradient of the input is formed for the sake of the gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sparsehopfield._engine import dense
from sparsehopfield._engine.checks import Array, contiguous
from sparsehopfield.layers import _spec
from sparsehopfield.layers._spec import Part

__all__ = [
    "Gradients",
    "Source",
    "Workload",
    "effective_weight",
    "fold_projections",
    "is_cheaper_unprojected",
    "static_rows",
]


class Workload(NamedTuple):
    """The numbers that the cost of an association depends on."""

    rows: int  # in all
    queries: int  # in all
    per_bag: float  # rows that a query attends to
    features: int  # of an unprojected row
    width: int  # of a row projected for one head
    passes: int  # how often a query reads its rows: once for scores, once for a mixture


def is_cheaper_unprojected(*workloads: Workload) -> bool:
    """Check whether attending to unprojected rows is cheaper than projecting them.

    Count the multiplications of a forward pass, of one head. Unprojected rows have all their features, and queries are
    projected back and forth for each pass; projected rows are projected once, and have a head's features.
    """
    unprojected = projected = 0.0
    for rows, queries, per_bag, features, width, passes in workloads:
        unprojected += passes * queries * features * (per_bag + width)
        projected += rows * width * features + passes * queries * width * per_bag
    return unprojected < projected


class Source(NamedTuple):
    """One input array, normalised for all its roles."""

    x: Array
    xhat: Array
    rstd: Array | None  # None: not normalised
    roles: list[_spec.Role]

    @classmethod
    def of(cls, x: Array, eps: float | None) -> Source:
        """Normalise an array, or take it as it is."""
        if eps is None:
            return cls(x, contiguous(x), None, [])
        xhat, rstd = dense.normalize(x, eps)
        return cls(x, xhat, rstd, [])


def effective_weight(role: _spec.Role, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the weight and bias of a projection, arrays or tensors, before the normalisation is folded in; None for a
    bias that it does not have.
    """
    bias = None if role.bias is None else parameters[role.bias.name][role.bias.rows]
    if role.via is None:
        assert role.weight is not None
        return parameters[role.weight.name][role.weight.rows], bias
    first, first_bias = effective_weight(role.via, parameters)
    if role.weight is None:
        return first, first_bias
    weight = parameters[role.weight.name]
    if bias is None or first_bias is None:
        return weight @ first, None
    return weight @ first, weight @ first_bias + bias


def static_rows(role: _spec.Role, xhat: Array, parameters: Mapping[str, Array]) -> Array:
    """Return rows that are not projected, (..., 1, features): one head."""
    if role.gain is not None and role.shift is not None:
        xhat = xhat * parameters[role.gain] + parameters[role.shift]
    return xhat[..., None, :]


def fold_projections(
    roles: list[_spec.Role], parameters: Mapping[str, Array]
) -> tuple[Array, Array | None, list[Array]]:
    """Stack the weights and the biases of several roles, normalisations folded in; return each weight without them,
    too.
    """
    parts = [effective_weight(role, parameters) for role in roles]
    plain = [weight for weight, _ in parts]
    if len(roles) == 1 and roles[0].gain is None:
        return *parts[0], plain
    rows, e = sum(map(len, plain)), plain[0].shape[1]
    weights, biases, at = np.empty((rows, e), plain[0].dtype), np.empty(rows, plain[0].dtype), 0
    for role, (weight, bias) in zip(roles, parts, strict=True):
        end = at + len(weight)
        if role.gain is not None and role.shift is not None:
            out = weights[at:end], biases[at:end]
            dense.fold(weight, bias, parameters[role.gain], parameters[role.shift], out)
        else:
            weights[at:end] = weight
            biases[at:end] = 0 if bias is None else bias
        at = end
    return weights, biases, plain


class Gradients:
    """The gradients of one backward pass, collected by name, as an array may have many parts."""

    def __init__(self, parameters: Mapping[str, Array]) -> None:
        self.found: dict[str, Array] = {}
        self._parameters = parameters

    def add(self, name: str, grad: Array) -> None:
        """Add the gradient of a whole parameter, an array that nobody else has; the first is kept."""
        if name in self.found:
            self.found[name] += grad
        else:
            self.found[name] = grad

    def add_affine(self, gain: str, shift: str, x: Array, dy: Array) -> Array:
        """Add the gradients of gain and shift of y = gain x + shift; return that of x (..., e)."""
        axes = tuple(range(dy.ndim - 1))
        self.add(gain, (dy * x).sum(axis=axes))
        self.add(shift, dy.sum(axis=axes))
        return dy * self._parameters[gain]

    def add_folded(self, role: _spec.Role, weight: Array, dweight: Array, dbias: Array) -> None:
        """Add the gradients of a role's folded weight and bias to those of the parameters that these are made of.

        `weight` is the role's without the normalisation, as `fold_projections` gave it.
        """
        parameters = self._parameters
        if role.gain is not None and role.shift is not None:
            place = None if role.via is not None else self._part_of(role.weight)
            gain, shift = parameters[role.gain], parameters[role.shift]
            dweight, dgain, dshift = dense.unfold(dweight, dbias, weight, gain, shift, place)
            self.add(role.gain, dgain)
            self.add(role.shift, dshift)
            if place is not None:
                if role.bias is not None:
                    self._put(role.bias, dbias)
                return
        if role.via is not None:
            if role.weight is not None:  # its own, applied after that of `via`
                first, first_bias = effective_weight(role.via, parameters)
                self._put(role.weight, dweight @ first.T)
                if first_bias is not None:
                    self._put(role.weight, np.outer(dbias, first_bias))
                if role.bias is not None:
                    self._put(role.bias, dbias)
                own = parameters[role.weight.name]
                dweight, dbias = own.T @ dweight, dbias @ own
            role = role.via
        if role.weight is not None:
            self._put(role.weight, dweight)
        if role.bias is not None:
            self._put(role.bias, dbias)

    def _part_of(self, where: Part | None) -> Array | None:
        """Return the part of a parameter's gradient that belongs to one role; None where gradients have to be added
        up.
        """
        if where is None or where.rows == slice(None):
            return None
        if where.name not in self.found:
            self.found[where.name] = np.empty_like(self._parameters[where.name])
        return self.found[where.name][where.rows]  # parts of in_proj_weight: each comes once, and all come

    def _put(self, where: Part, grad: Array) -> None:
        """Put a part of a parameter's gradient in its place, or add it to what is there."""
        name, rows = where
        parameter = self._parameters[name]
        if len(grad) == len(parameter):
            self.add(name, grad)
            return
        once = parameter.ndim == 2  # parts of in_proj_weight: each comes once, and all come
        if name not in self.found:
            self.found[name] = (np.empty if once else np.zeros)(parameter.shape, parameter.dtype)
        part = self.found[name][rows]
        if once:
            part[...] = grad
        else:
            part += grad


class Role:
    """What pickles of layers hold of a role that were made before layers had a spec; it is loaded, and never read."""
