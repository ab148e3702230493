"""What a Hopfield layer is, without numbers: its checked options, sizes, roles and parameters.

Letters: H heads; e features of an input; d features of a head in the association space, p of its projected patterns.
The inputs have three roles, by hflayers' names: state pattern (query), stored pattern (key) and pattern projection
(value).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from sparsehopfield._engine.checks import Array, as_array, as_number, as_numbers, as_steps, as_whole
from sparsehopfield._engine.separations import as_choice
from sparsehopfield._engine.text import short
from sparsehopfield.layers._basic import as_positive, as_rate

__all__ = ["ACTIVATIONS", "CORE", "ORDER", "HopfieldSpec", "Part", "Role", "as_scaling"]

# name -> the function, and its derivative from its value
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda y: y > 0),
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "sigmoid": (expit, lambda y: y * (1 - y)),
}
CORE = "association_core."
#: The parameters in hflayers' order, which optimisers' states go by; `log_scaling` is this package's own.
ORDER = (
    *(CORE + name for name in ("p_norm_weight", "p_norm_bias", "in_proj_weight")),
    *(CORE + name for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v")),
    *(CORE + name for name in ("out_proj.weight", "out_proj.bias")),
    *(f"norm_{name}_pattern.{part}" for name in ("stored", "state") for part in ("weight", "bias")),
    *(f"norm_pattern_projection.{part}" for part in ("weight", "bias")),
    "log_scaling",
)


class Part(NamedTuple):
    """Some rows of a parameter, or all."""

    name: str
    rows: slice


class Role(NamedTuple):
    """Normalisation and projection of one of the three inputs; parameters by name."""

    name: str  # of the input: "state_pattern", "stored_pattern" or "pattern_projection"
    size: int | None  # features of the input; None: any number
    eps: float | None  # of the layer normalisation; None: not normalised
    width: int  # features of a head in the association space
    projected: bool
    gain: str | None  # of the layer normalisation
    shift: str | None
    weight: Part | None  # (H * width, size)
    bias: Part | None
    via: Role | None  # projected by this role's weight first: pattern_projection_as_connected


class HopfieldSpec:
    """What a Hopfield layer is, without numbers; it does not change, so that any number of threads may use it.

    Made from the options of `Hopfield` by name, all of which are needed but those that may be changed later or concern
    numbers alone (`scaling`, `separation`, `structure`, `dtype`, `random_state`), which are not looked at.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        The parameters by hflayers' names, in hflayers' order.
    draws : dict of str to {"normal", "ones", "zeros", "scaling"}
        What each begins with, in the order in which `Hopfield` draws: normal numbers of standard deviation
        `initial_std`, or one number; "scaling": the logarithm of the scaling.
    query, key, value : Role
        Of the state pattern, the stored pattern and the pattern projection.
    appended : int
        Rows that are appended to the stored patterns of each sample: the bias pattern, the zero pattern.
    in_space_norm : tuple of two str, or None
        Gain and shift of the normalisation in the association space.
    default_scaling : float
    Others : the checked options by their names, and the sizes by hflayers'.

    Raises
    ------
    ValueError, TypeError
        Naming the option at fault.
    """

    num_heads: int
    input_size: int | None
    state_pattern_dim: int | None
    stored_pattern_dim: int | None
    pattern_projection_dim: int | None
    hidden_size: int | None
    pattern_size: int | None
    output_size: int | None
    normalize_stored_pattern: bool
    normalize_stored_pattern_affine: bool
    normalize_state_pattern: bool
    normalize_state_pattern_affine: bool
    normalize_pattern_projection: bool
    normalize_pattern_projection_affine: bool
    normalize_hopfield_space: bool
    normalize_hopfield_space_affine: bool
    stored_pattern_as_static: bool
    state_pattern_as_static: bool
    pattern_projection_as_static: bool
    pattern_projection_as_connected: bool
    batch_first: bool
    input_bias: bool
    concat_bias_pattern: bool
    add_zero_association: bool
    disable_out_projection: bool
    learnable_scaling: bool

    def __init__(self, **options: Any) -> None:
        for name, kind in HopfieldSpec.__annotations__.items():
            if kind == "bool":
                setattr(self, name, bool(options[name]))
        self._set_sizes(options)
        self._set_association(options)
        self._set_parameters(options)

    def _set_sizes(self, o: dict[str, Any]) -> None:
        """Check and set the numbers of heads and features."""

        def size(name: str, default: int | None) -> int | None:
            return default if o[name] is None else as_whole(name, o[name], least=1)

        self.num_heads = as_whole("num_heads", o["num_heads"], least=1)
        self.input_size = self.state_pattern_dim = e = size("input_size", None)
        static = self.state_pattern_as_static and self.stored_pattern_as_static and self.pattern_projection_as_static
        connected = self.pattern_projection_as_connected
        bare = static and not connected and not self.normalize_hopfield_space and self.disable_out_projection
        if e is None and not bare:
            raise ValueError("input_size: is needed wherever something is projected or normalised in association space")
        self.stored_pattern_dim = size("stored_pattern_size", e)
        self.pattern_projection_dim = size("pattern_projection_size", e)
        if connected and self.stored_pattern_dim != self.pattern_projection_dim:
            raise ValueError(
                "pattern_projection_as_connected: stored patterns and pattern projections need one size, got "
                f"{self.stored_pattern_dim} and {self.pattern_projection_dim}"
            )
        self.pattern_projection_size = size("pattern_projection_size", None)
        self.hidden_size = self.pattern_size = None
        if e is not None and not bare:
            if o["hidden_size"] is None and e % self.num_heads:
                raise ValueError(
                    f"num_heads: must divide input_size {e} where hidden_size is not given, got {self.num_heads}"
                )
            self.hidden_size = size("hidden_size", e // self.num_heads)
            self.pattern_size = size("pattern_size", self.hidden_size)
            if connected and self.pattern_size != self.hidden_size:
                raise ValueError(
                    f"pattern_size: must be hidden_size {self.hidden_size} where connected, got {self.pattern_size}"
                )
        self.output_size = size("output_size", None if bare else e)
        self.default_scaling = 1.0 if self.hidden_size is None else self.hidden_size**-0.5

    def _set_association(self, o: dict[str, Any]) -> None:
        """Check and set the options of the association."""
        if self.normalize_hopfield_space_affine and not self.normalize_hopfield_space:
            raise ValueError("normalize_hopfield_space_affine: has no effect without normalize_hopfield_space")
        self.normalize_hopfield_space_eps = as_positive(
            "normalize_hopfield_space_eps", o["normalize_hopfield_space_eps"]
        )
        for name in ("update_steps_max", "update_steps_eps"):
            if o[name] is not None and as_array(name, o[name]).ndim != 0:
                raise TypeError(f"{name}: one number for all heads; one a head is not supported")
        steps = as_steps(o["update_steps_max"])
        self.update_steps_max = None if steps < 0 else steps
        self.update_steps_eps = as_positive("update_steps_eps", o["update_steps_eps"])
        self.gradient = as_choice("gradient", o["gradient"], ("unrolled", "implicit"))
        self.association_activation: str | None = o["association_activation"]
        if self.association_activation is not None:
            as_choice("association_activation", self.association_activation, ACTIVATIONS)
        self.dropout = as_rate("dropout", o["dropout"])
        if self.concat_bias_pattern and (self.stored_pattern_as_static or self.pattern_projection_as_static):
            raise ValueError("concat_bias_pattern: cannot be appended to static patterns")
        self.appended = self.concat_bias_pattern + self.add_zero_association

    def _set_parameters(self, o: dict[str, Any]) -> None:
        """Set the parameters, with hflayers' names and shapes, and the roles that use them."""
        H, d, p = self.num_heads, self.hidden_size or 0, self.pattern_size or 0
        self.initial_std = as_number("initial_std", o["initial_std"], least=0.0)
        shapes: dict[str, tuple[int, ...]] = {}
        self.draws: dict[str, str] = {}

        def parameter(name: str, shape: tuple[int, ...], draw: str) -> str:
            shapes[name], self.draws[name] = shape, draw
            return name

        connected = self.pattern_projection_as_connected and not self.stored_pattern_as_static
        sizes = (self.input_size, self.stored_pattern_dim, self.pattern_projection_dim)
        names = ("state_pattern", "stored_pattern", "pattern_projection")
        roles = [
            self._role(o, name, size, width, name == "pattern_projection" and connected)
            for name, size, width in zip(names, sizes, (d, d, p), strict=True)
        ]
        counts = [0 if o[f"{role.name}_as_static"] else H * role.width for role in roles]  # rows of a role's weight
        ends = [0, counts[0], counts[0] + counts[1], sum(counts)]
        parts = [slice(a, b) for a, b in pairwise(ends)]
        in_one = len({*sizes}) == 1 and o["pattern_size"] is None and not self.pattern_projection_as_connected
        if in_one and ends[-1]:
            parameter(CORE + "in_proj_weight", (ends[-1], self.input_size or 0), "normal")
        for i, (role, rows, letter, size) in enumerate(zip(roles, counts, "qkv", sizes, strict=True)):
            if rows and in_one:
                roles[i] = role._replace(weight=Part(CORE + "in_proj_weight", parts[i]))
            elif rows:
                features = H * d if connected and letter == "v" else size or 0
                name = parameter(f"{CORE}{letter}_proj_weight", (rows, features), "normal")
                roles[i] = role._replace(weight=Part(name, slice(None)))
        if self.input_bias and ends[-1]:
            # hflayers reserves the values' part also where they are static, and never uses it
            biases = parameter(CORE + "in_proj_bias", (ends[2] + H * p,), "zeros")
            roles = [
                role._replace(bias=Part(biases, part)) if rows else role
                for role, rows, part in zip(roles, counts, parts, strict=True)
            ]
        self.out_weight = self.out_bias = self.bias_k = self.bias_v = None
        if not self.disable_out_projection and self.output_size is not None:
            self.out_weight = parameter(CORE + "out_proj.weight", (self.output_size, H * p), "normal")
            if self.input_bias:
                self.out_bias = parameter(CORE + "out_proj.bias", (self.output_size,), "zeros")
        if self.concat_bias_pattern:
            self.bias_k = parameter(CORE + "bias_k", (1, 1, H * d), "normal")
            self.bias_v = parameter(CORE + "bias_v", (1, 1, H * p), "normal")
        self.in_space_norm = None
        if self.normalize_hopfield_space_affine:
            self.in_space_norm = (
                parameter(CORE + "p_norm_weight", (d,), "ones"),
                parameter(CORE + "p_norm_bias", (d,), "zeros"),
            )
        for i, (role, size) in enumerate(zip(roles, sizes, strict=True)):
            if o[f"normalize_{role.name}_affine"]:
                roles[i] = role._replace(
                    gain=parameter(f"norm_{role.name}.weight", (size or 0,), "ones"),
                    shift=parameter(f"norm_{role.name}.bias", (size or 0,), "zeros"),
                )
        if self.learnable_scaling:
            parameter("log_scaling", (H,), "scaling")
        self.query, self.key, value = roles
        self.value = value._replace(via=self.key if connected else None)
        self.shapes = {name: shapes[name] for name in ORDER if name in shapes}

    def _role(self, o: dict[str, Any], name: str, size: int | None, width: int, connected: bool) -> Role:
        """Make the role of one input, with `size` features where it is normalised or projected."""
        normal, projected = o[f"normalize_{name}"], connected or not o[f"{name}_as_static"]
        if o[f"normalize_{name}_affine"] and not normal:
            raise ValueError(f"normalize_{name}_affine: has no effect without normalize_{name}; set both to False")
        if normal and size is None:
            raise ValueError(f"normalize_{name}: needs input_size")
        eps = as_positive(f"normalize_{name}_eps", o[f"normalize_{name}_eps"]) if normal else None
        if name == "pattern_projection":  # what a pattern that is not projected must have
            in_space = None if self.disable_out_projection else width
        else:
            free = self.state_pattern_as_static and self.stored_pattern_as_static and not self.normalize_hopfield_space
            in_space = None if free else width
        if normal and not projected and in_space not in (None, size):
            raise ValueError(
                f"{name}_as_static: normalised patterns of {size} features are no patterns of the association space, "
                f"which has {in_space}"
            )
        return Role(
            name, size if normal or projected else in_space, eps, width, projected, None, None, None, None, None
        )

    def changed(self, **options: Any) -> HopfieldSpec:
        """Return a spec with other `update_steps_max`, `update_steps_eps`, `gradient` or `dropout`."""
        spec = copy(self)
        spec._set_association(vars(self) | options)
        return spec

    def pooling_shapes(self, quantity: int) -> dict[str, tuple[int, ...]]:
        """Return name and shape of the learned state patterns of `HopfieldPooling`."""
        size = (self.hidden_size if self.state_pattern_as_static else None) or self.input_size or 0
        return {"pooling_weights": (*self._learned_axes(quantity), size)}

    def lookup_shapes(self, quantity: int, separated: bool) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the learned patterns of `HopfieldLayer`: stored patterns, and `separated` pattern
        projections.
        """
        size = (self.hidden_size if self.stored_pattern_as_static else self.stored_pattern_dim) or self.input_size or 0
        shapes: dict[str, tuple[int, ...]] = {"lookup_weights": (*self._learned_axes(quantity), size)}
        if separated:
            shapes["target_weights"] = (*self._learned_axes(quantity), self.pattern_projection_size or size)
        return shapes

    def _learned_axes(self, quantity: int) -> tuple[int, int]:
        """Return the leading axes of learned patterns."""
        return (1, quantity) if self.batch_first else (quantity, 1)


def as_scaling(scaling: ArrayLike, heads: int, dtype: np.dtype[Any]) -> float | Array:
    """Return beta, a number or one for each head, checked: it is multiplied into queries of this dtype."""
    b = as_numbers("scaling", scaling).astype(np.float64)
    if b.shape not in ((), (heads,)):
        raise ValueError(f"scaling: must be a number or one for each of {heads} heads, got shape {b.shape}")
    if not ((b > 0) & (b <= np.finfo(dtype).max)).all():
        raise ValueError(f"scaling: must be positive and finite in {dtype}, got {short(scaling)}")
    return float(b) if b.ndim == 0 else b
