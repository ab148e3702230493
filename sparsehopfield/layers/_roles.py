"""The three roles of a Hopfield layer's inputs: their normalisation and projection before the association, and back.

The affine part of a role's layer normalisation is folded into its projection, so that an array in several roles is
normalised once and projected by one product, and no gradient of the input is formed for the sake of the gains.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehopfield._engine import dense
from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.chunked import add_arrays
from sparsehopfield.layers._module import Parameter

__all__ = ["ProjectionGradients", "Role", "Source", "Workload", "fold_projections", "is_cheaper_unprojected"]


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
    unprojected = sum(a.passes * a.queries * a.features * (a.per_bag + a.width) for a in workloads)
    projected = sum(a.rows * a.width * a.features + a.passes * a.queries * a.width * a.per_bag for a in workloads)
    return unprojected < projected


class Role:
    """Normalisation and projection of one of the three inputs; fixed when the layer is made."""

    __slots__ = ("bias", "eps", "gain", "name", "projected", "shift", "size", "via", "weight", "width")

    def __init__(self, name: str, size: int | None, eps: float | None, width: int, projected: bool) -> None:
        self.name, self.size, self.eps, self.width, self.projected = name, size, eps, width, projected
        self.gain: Parameter | None = None  # of the layer normalisation
        self.shift: Parameter | None = None
        self.weight: tuple[Parameter, slice] | None = None  # (H * width, size), among the rows of a parameter
        self.bias: tuple[Parameter, slice] | None = None
        self.via: Role | None = None  # projected by this role's weight first: pattern_projection_as_connected

    def effective_weight(self) -> tuple[Array, Array | None]:
        """Return the weight and bias of the projection, before the normalisation is folded in."""
        bias = None if self.bias is None else self.bias[0].value[self.bias[1]]
        if self.via is None:
            assert self.weight is not None
            return self.weight[0].value[self.weight[1]], bias
        first, first_bias = self.via.effective_weight()
        if self.weight is None:
            return first, first_bias
        weight = self.weight[0].value
        if bias is None or first_bias is None:
            return weight @ first, None
        return weight @ first, weight @ first_bias + bias

    def static_rows(self, xhat: Array) -> Array:
        """Return rows that are not projected, (..., 1, features): one head."""
        rows = xhat if self.gain is None or self.shift is None else xhat * self.gain.value + self.shift.value
        return rows[..., None, :]

    def static_backward(self, xhat: Array, drows: Array) -> Array:
        """Return the gradient of `static_rows`, from that of all heads."""
        d = drows.sum(axis=-2)
        if self.gain is None or self.shift is None:
            return d
        axes = tuple(range(d.ndim - 1))
        self.gain.add((d * xhat).sum(axis=axes))
        self.shift.add(d.sum(axis=axes))
        return d * self.gain.value


class Source:
    """One input array, normalised for all its roles."""

    __slots__ = ("grad", "roles", "rstd", "x", "xhat")

    def __init__(self, x: Array, eps: float | None) -> None:
        self.x, self.xhat, self.rstd = x, x, None  # rstd None: not normalised
        if eps is not None:
            self.xhat, self.rstd = dense.normalize(x, eps)
        self.roles: list[Role] = []
        self.grad: Array | None = None  # of xhat

    def add_gradient(self, grad: Array | None) -> None:
        """Add to the gradient in the normalised rows."""
        if grad is not None:
            self.grad = grad if self.grad is None else add_arrays(self.grad, grad)


def fold_projections(roles: list[Role]) -> tuple[Array, Array | None, list[Array]]:
    """Stack the weights and the biases of several roles, normalisations folded in; return each weight without them,
    too.
    """
    parts = [role.effective_weight() for role in roles]
    plain = [weight for weight, _ in parts]
    if len(roles) == 1 and roles[0].gain is None:
        return *parts[0], plain
    rows, e = sum(map(len, plain)), plain[0].shape[1]
    weights, biases, at = np.empty((rows, e), plain[0].dtype), np.empty(rows, plain[0].dtype), 0
    for role, (weight, bias) in zip(roles, parts, strict=True):
        end = at + len(weight)
        if role.gain is not None and role.shift is not None:
            dense.fold(weight, bias, role.gain.value, role.shift.value, (weights[at:end], biases[at:end]))
        else:
            weights[at:end] = weight
            biases[at:end] = 0 if bias is None else bias
        at = end
    return weights, biases, plain


class ProjectionGradients:
    """The projections' gradients of one backward pass, collected by parameter, as a parameter may have many parts."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Parameter, Array]] = {}

    def add_folded(self, role: Role, weight: Array, dweight: Array, dbias: Array) -> None:
        """Add the gradients of a role's folded weight and bias to those of the parameters that these are made of.

        `weight` is the role's without the normalisation, as `folded` gave it.
        """
        if role.gain is not None and role.shift is not None:
            place = None if role.via is not None else self._part_of(role.weight)
            dweight, dgain, dshift = dense.unfold(dweight, dbias, weight, role.gain.value, role.shift.value, place)
            role.gain.add(dgain)
            role.shift.add(dshift)
            if place is not None:
                if role.bias is not None:
                    self._put(role.bias, dbias)
                return
        if role.via is not None:
            if role.weight is not None:  # its own, applied after that of `via`
                first, first_bias = role.via.effective_weight()
                self._put(role.weight, dweight @ first.T)
                if first_bias is not None:
                    self._put(role.weight, np.outer(dbias, first_bias))
                if role.bias is not None:
                    self._put(role.bias, dbias)
                own = role.weight[0].value
                dweight, dbias = own.T @ dweight, dbias @ own
            role = role.via
        if role.weight is not None:
            self._put(role.weight, dweight)
        if role.bias is not None:
            self._put(role.bias, dbias)

    def _part_of(self, where: tuple[Parameter, slice] | None) -> Array | None:
        """Return the part of a parameter's gradient that belongs to one role; None where gradients have to be added
        up.
        """
        if where is None or where[1] == slice(None):
            return None
        parameter, rows = where
        _, whole = self._found.setdefault(id(parameter), (parameter, np.empty_like(parameter.value)))
        return whole[rows]  # parts of in_proj_weight: each comes once, and all come

    def _put(self, where: tuple[Parameter, slice], grad: Array) -> None:
        """Put a part of a parameter's gradient in its place, or add it to what is there."""
        parameter, rows = where
        key, whole = id(parameter), len(grad) == len(parameter.value)
        if whole and key not in self._found:
            self._found[key] = parameter, grad
            return
        once = parameter.value.ndim == 2 and not whole  # parts of in_proj_weight: each comes once, and all come
        if key not in self._found:
            self._found[key] = parameter, (np.empty_like if once else np.zeros_like)(parameter.value)
        if once:
            self._found[key][1][rows] = grad
        else:
            self._found[key][1][rows] += grad

    def add_to_parameters(self) -> None:
        """Add all collected gradients to the parameters."""
        for parameter, grad in self._found.values():
            parameter.add(grad)
