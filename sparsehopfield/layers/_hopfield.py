"""Hopfield layers: the association between normalised, projected inputs, and back.

Letters: B samples; N state patterns (queries) and M stored patterns (rows) of each; H heads; e features of the inputs,
d features of a head in the association space, p of its projected patterns. The inputs have three roles, by hflayers'
names: state pattern (query), stored pattern (key) and pattern projection (value).

What makes it fast: the affine part of the layer normalisations is folded into the projections, so an array that has
several roles is normalised once and projected by one product; where few queries attend to many rows, rows are not
projected at all, and the association gets the projections instead (`is_cheaper_unprojected`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from sparsehopfield._engine import dense
from sparsehopfield._engine.association import Projection, Saved, associate_forward, association_weights, gradients_of
from sparsehopfield._engine.checks import Array, as_array, as_float_dtype, as_number, as_numbers, as_whole, as_writeable
from sparsehopfield._engine.separations import as_choice, row_of, separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield._engine.text import short
from sparsehopfield.layers import _roles
from sparsehopfield.layers._basic import as_positive, as_rate
from sparsehopfield.layers._inputs import Inputs, Layout, as_arrays, check_masks, layout_of
from sparsehopfield.layers._module import Argument, Module, Parameter
from sparsehopfield.layers._roles import ProjectionGradients, Role, Source, Workload, fold_projections

__all__ = ["Hopfield", "HopfieldTape", "SparseHopfield"]

FEW_QUERIES = 8  # of a bag: where there are more, rows are projected
ROLES = ("state_pattern", "stored_pattern", "pattern_projection")

# name -> the function, and its derivative from its value
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda y: y > 0),
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "sigmoid": (expit, lambda y: y * (1 - y)),
}


class HopfieldTape:
    """The tape of a forward pass, for the backward pass."""

    from_tuple: bool  # whether the input was a tuple
    inputs: Inputs  # samples first
    layout: Layout
    sources: list[Source]
    grouped: list[tuple[Source, list[Role], Array]]  # of each product: input, roles that it projects, weight
    plain: dict[str, Array]  # role -> weight of its projection, without the folded normalisation
    unprojected: set[str]  # roles whose rows the association reads as they are, and projects itself
    hopfield_norms: dict[str, tuple[Array, Array]]  # role -> xhat, rstd in the association space
    appended: int  # rows appended to each bag: bias pattern, zero pattern
    offsets: Array | None  # of the bags with their appended rows
    padded: tuple[Array, Array] | None  # ragged queries: sample and position of each row in the padded array
    saved: Saved
    out: Array  # of the association (B, N, H, p)
    flat: Array  # the input of the output projection
    slope: Array | None  # of the activation
    result: Array  # samples first
    query_grad: Array | None
    out_grad: Array | None


class Hopfield(Module):
    """The Hopfield association as a layer: state patterns move to mixtures of stored patterns, and pattern projections
    are mixed by the last association.

    Arguments and defaults are those of hflayers; the keyword-only ones at the end are this package's own.

    Parameters
    ----------
    input_size : int, optional
        Features e of the state patterns. May only be left out when nothing is projected (all `*_as_static`,
        `disable_out_projection`).
    hidden_size : int, optional
        Features d of a head in the association space; `input_size // num_heads` by default.
    output_size : int, optional
        Features of the output; `input_size` by default.
    pattern_size : int, optional
        Features p of a head's projected patterns; `hidden_size` by default.
    num_heads : int
    scaling : float or array_like of shape (num_heads,), optional
        beta; 1 / sqrt(hidden_size) by default.
    update_steps_max : int or None
        The first association and this many more updates; negative or None: until every query rests.
    update_steps_eps : float, positive
        A query rests when its association moves by at most this, in the Euclidean norm.
    normalize_stored_pattern, normalize_state_pattern, normalize_pattern_projection : bool
        Whether these inputs pass a layer normalisation; `..._affine`: with gain and shift, which are learned;
        `..._eps`: what is added to the variance.
    normalize_hopfield_space : bool
        Whether state and stored patterns pass one (shared by all heads) in the association space.
    stored_pattern_as_static, state_pattern_as_static, pattern_projection_as_static : bool
        Whether these inputs are already in the association space, that is, not projected. All heads share them.
    pattern_projection_as_connected : bool
        Pattern projections pass the stored patterns' projection before their own.
    stored_pattern_size, pattern_projection_size : int, optional
        Features of these inputs; `input_size` by default.
    batch_first : bool
        Whether samples are the first axis of inputs and output, or the second.
    association_activation : {"relu", "tanh", "sigmoid"}, optional
        Applied to the output.
    dropout : float from 0 to below 1
        Of the last association's weights, in training.
    input_bias : bool
        Whether projections have a bias.
    concat_bias_pattern : bool
        Append a learned stored pattern and pattern projection in the association space.
    add_zero_association : bool
        Append a stored pattern and a pattern projection of zeros.
    disable_out_projection : bool
        Return the heads' mixtures side by side, (B, N, num_heads * p).
    separation : {"softmax", "sparsemax", "entmax15"}, Entmax, Normmax or Polynomial, optional
        The separation map; softmax here, sparsemax in the `Sparse...` twins. May be changed later.
    structure : Structure, optional
        The stored patterns that a state pattern attends to (`sparsehopfield.structures`); all by default. State pattern
        n of every bag is query n. A k beyond a bag means all of the bag; appended patterns always take part. May be
        changed later.
    gradient : {"unrolled", "implicit"}
        Through all updates, or at the fixed point that is reached.
    learnable_scaling : bool
        Whether beta is learned, one a head, by its logarithm: parameter `log_scaling`.
    initial_std : float
        Standard deviation of what weights begin with.
    dtype : {float32, float64}
    random_state : None, int or numpy.random.Generator
        Of initial weights and dropout.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Notes
    -----
    A query whose stored patterns are all masked, or whose bag is empty, has no association: it counts as zeros, so the
    output is what the output projection makes of zeros (its bias), and no gradient flows.

    It differs from hflayers where that has faults: a `scaling` array counts per head; static patterns are given to all
    heads of their own sample; `concat_bias_pattern` does what it says; every query stops by itself, so no result
    depends on its companions in the batch. `update_steps_max` and `update_steps_eps` are one number for all heads.

    References
    ----------
    Ramsauer et al. 2021, "Hopfield networks is all you need"; Hu et al. 2023, "On sparse modern Hopfield model",
    section 4.

    Examples
    --------
    >>> layer = Hopfield(4, num_heads=2, random_state=0)
    >>> layer.forward(np.ones((3, 5, 4))).shape
    (3, 5, 4)
    >>> stored, state = np.ones((3, 7, 4)), np.ones((3, 5, 4))
    >>> layer.forward((stored, state, stored)).shape
    (3, 5, 4)
    """

    _default_separation = "softmax"
    _takes_masks = True
    _last_tape: HopfieldTape | None = None  # of the last forward pass, for `gradient_health`

    stored_pattern_as_static = Argument()
    state_pattern_as_static = Argument()
    pattern_projection_as_static = Argument()
    normalize_stored_pattern = Argument()
    normalize_stored_pattern_affine = Argument()
    normalize_state_pattern = Argument()
    normalize_state_pattern_affine = Argument()
    normalize_pattern_projection = Argument()
    normalize_pattern_projection_affine = Argument()
    normalize_hopfield_space = Argument()
    normalize_hopfield_space_affine = Argument()

    def __init__(
        self,
        input_size: int | None = None,
        hidden_size: int | None = None,
        output_size: int | None = None,
        pattern_size: int | None = None,
        num_heads: int = 1,
        scaling: ArrayLike | None = None,
        update_steps_max: int | None = 0,
        update_steps_eps: float = 1e-4,
        normalize_stored_pattern: bool = True,
        normalize_stored_pattern_affine: bool = True,
        normalize_stored_pattern_eps: float = 1e-5,
        normalize_state_pattern: bool = True,
        normalize_state_pattern_affine: bool = True,
        normalize_state_pattern_eps: float = 1e-5,
        normalize_pattern_projection: bool = True,
        normalize_pattern_projection_affine: bool = True,
        normalize_pattern_projection_eps: float = 1e-5,
        normalize_hopfield_space: bool = False,
        normalize_hopfield_space_affine: bool = False,
        normalize_hopfield_space_eps: float = 1e-5,
        stored_pattern_as_static: bool = False,
        state_pattern_as_static: bool = False,
        pattern_projection_as_static: bool = False,
        pattern_projection_as_connected: bool = False,
        stored_pattern_size: int | None = None,
        pattern_projection_size: int | None = None,
        batch_first: bool = True,
        association_activation: str | None = None,
        dropout: float = 0.0,
        input_bias: bool = True,
        concat_bias_pattern: bool = False,
        add_zero_association: bool = False,
        disable_out_projection: bool = False,
        *,
        separation: Any = None,
        structure: Structure | None = None,
        gradient: str = "unrolled",
        learnable_scaling: bool = False,
        initial_std: float = 0.02,
        dtype: Any = "float32",
        random_state: Any = None,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        options["dtype"] = as_float_dtype(dtype).name
        super().__init__(options, dtype, random_state)
        self._set_sizes(options)
        self._set_association(options)
        self._make_parameters(options)
        self._log_scaling: Parameter | None = None
        self.scaling = (1.0 if self.hidden_size is None else self.hidden_size**-0.5) if scaling is None else scaling
        if learnable_scaling:
            begin = np.log(self._scaling)
            self._log_scaling = self._parameter("log_scaling", (self.num_heads,), lambda shape: np.full(shape, begin))
        self._last_tape = None

    def _set_sizes(self, o: dict[str, Any]) -> None:
        """Check and set the numbers of heads and features."""

        def size(name: str, default: int | None) -> int | None:
            return default if o[name] is None else as_whole(name, o[name], least=1)

        self.num_heads = as_whole("num_heads", o["num_heads"], least=1)
        self.input_size = e = size("input_size", None)
        static = (o["state_pattern_as_static"], o["stored_pattern_as_static"], o["pattern_projection_as_static"])
        connected = o["pattern_projection_as_connected"]
        bare = all(static) and not connected and not o["normalize_hopfield_space"] and o["disable_out_projection"]
        if e is None and not bare:
            raise ValueError("input_size: is needed wherever something is projected or normalised in association space")
        self.stored_pattern_dim = size("stored_pattern_size", e)
        self.pattern_projection_dim = size("pattern_projection_size", e)
        if connected and self.stored_pattern_dim != self.pattern_projection_dim:
            raise ValueError(
                "pattern_projection_as_connected: stored patterns and pattern projections need one size, got "
                f"{self.stored_pattern_dim} and {self.pattern_projection_dim}"
            )
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
        self._projects_out = not o["disable_out_projection"]

    def _set_association(self, o: dict[str, Any]) -> None:
        """Check and set the options of the association."""
        if o["normalize_hopfield_space_affine"] and not o["normalize_hopfield_space"]:
            raise ValueError("normalize_hopfield_space_affine: has no effect without normalize_hopfield_space")
        self._hopfield_eps = as_positive("normalize_hopfield_space_eps", o["normalize_hopfield_space_eps"])
        for name in ("update_steps_max", "update_steps_eps"):
            if o[name] is not None and as_array(name, o[name]).ndim != 0:
                raise TypeError(f"{name}: one number for all heads; one a head is not supported")
        steps = o["update_steps_max"]
        steps = -1 if steps is None else as_whole("update_steps_max", steps, least=-(2**31))
        self.update_steps_max = None if steps < 0 else steps
        self.update_steps_eps = as_positive("update_steps_eps", o["update_steps_eps"])
        self.gradient, self.association_activation = o["gradient"], o["association_activation"]
        as_choice("gradient", self.gradient, ("unrolled", "implicit"))
        if self.association_activation is not None:
            as_choice("association_activation", self.association_activation, ACTIVATIONS)
        self.dropout = as_rate("dropout", o["dropout"])
        self.batch_first = bool(o["batch_first"])
        self.add_zero_association = bool(o["add_zero_association"])
        if o["concat_bias_pattern"] and (o["stored_pattern_as_static"] or o["pattern_projection_as_static"]):
            raise ValueError("concat_bias_pattern: cannot be appended to static patterns")
        self.separation = self._default_separation if o["separation"] is None else o["separation"]
        self.structure = o["structure"]

    def _make_parameters(self, o: dict[str, Any]) -> None:
        """Make the parameters, with hflayers' names and shapes, and the roles that use them."""
        H, d, p = self.num_heads, self.hidden_size or 0, self.pattern_size or 0
        self._std = std = as_number("initial_std", o["initial_std"], least=0.0)
        core = "association_core."
        connected = o["pattern_projection_as_connected"] and not o["stored_pattern_as_static"]
        sizes = (self.input_size, self.stored_pattern_dim, self.pattern_projection_dim)
        self._q, self._k, self._v = roles = [
            self._make_role(o, name, size, width, name == "pattern_projection" and connected)
            for name, size, width in zip(ROLES, sizes, (d, d, p), strict=True)
        ]
        self._v.via = self._k if connected else None

        counts = [0 if o[f"{role.name}_as_static"] else H * role.width for role in roles]  # rows of a role's weight
        ends = [0, counts[0], counts[0] + counts[1], sum(counts)]
        parts = [slice(a, b) for a, b in pairwise(ends)]
        in_one = len({*sizes}) == 1 and o["pattern_size"] is None and not o["pattern_projection_as_connected"]
        if in_one and ends[-1]:
            whole = self._parameter(core + "in_proj_weight", (ends[-1], self.input_size or 0), self._normal(std))
        for role, rows, part, letter, size in zip(roles, counts, parts, "qkv", sizes, strict=True):
            if rows and in_one:
                role.weight = whole, part
            elif rows:
                features = H * d if role.via else size or 0
                weight = self._parameter(f"{core}{letter}_proj_weight", (rows, features), self._normal(std))
                role.weight = weight, slice(None)
        if o["input_bias"] and ends[-1]:
            # hflayers reserves the values' part also where they are static, and never uses it
            biases = self._parameter(core + "in_proj_bias", (ends[2] + H * p,), np.zeros)
            for role, rows, part in zip(roles, counts, parts, strict=True):
                role.bias = (biases, part) if rows else None

        self._out_weight = self._out_bias = self._bias_k = self._bias_v = None
        if self._projects_out and self.output_size is not None:
            self._out_weight = self._parameter(core + "out_proj.weight", (self.output_size, H * p), self._normal(std))
            if o["input_bias"]:
                self._out_bias = self._parameter(core + "out_proj.bias", (self.output_size,), np.zeros)
        if o["concat_bias_pattern"]:
            self._bias_k = self._parameter(core + "bias_k", (1, 1, H * d), self._normal(std))
            self._bias_v = self._parameter(core + "bias_v", (1, 1, H * p), self._normal(std))
        self._hopfield_gain = self._hopfield_shift = None
        if o["normalize_hopfield_space_affine"]:
            self._hopfield_gain = self._parameter(core + "p_norm_weight", (d,), np.ones)
            self._hopfield_shift = self._parameter(core + "p_norm_bias", (d,), np.zeros)
        for role, size in zip(roles, sizes, strict=True):
            if o[f"normalize_{role.name}_affine"]:
                role.gain = self._parameter(f"norm_{role.name}.weight", (size or 0,), np.ones)
                role.shift = self._parameter(f"norm_{role.name}.bias", (size or 0,), np.zeros)

    def _make_role(self, o: dict[str, Any], name: str, size: int | None, width: int, connected: bool) -> Role:
        """Make the role of one input, with `size` features where it is normalised or projected."""
        normal, projected = o[f"normalize_{name}"], connected or not o[f"{name}_as_static"]
        if o[f"normalize_{name}_affine"] and not normal:
            raise ValueError(f"normalize_{name}_affine: has no effect without normalize_{name}; set both to False")
        if normal and size is None:
            raise ValueError(f"normalize_{name}: needs input_size")
        eps = as_positive(f"normalize_{name}_eps", o[f"normalize_{name}_eps"]) if normal else None
        if name == "pattern_projection":  # what a pattern that is not projected must have
            in_space = width if self._projects_out else None
        else:
            free = o["state_pattern_as_static"] and o["stored_pattern_as_static"] and not self.normalize_hopfield_space
            in_space = None if free else width
        if normal and not projected and in_space not in (None, size):
            raise ValueError(
                f"{name}_as_static: normalised patterns of {size} features are no patterns of the association space, "
                f"which has {in_space}"
            )
        return Role(name, size if normal or projected else in_space, eps, width, projected)

    @property
    def state_pattern_dim(self) -> int | None:
        """Return how many features state patterns have."""
        return self.input_size

    # --- what may be changed later ----------------------------------------------------------------

    @property
    def scaling(self) -> float | Array:
        """Return beta, a number or one for each head."""
        if self._log_scaling is not None:
            return np.exp(self._log_scaling.value.astype(np.float64))
        return self._scaling

    @scaling.setter
    def scaling(self, scaling: ArrayLike) -> None:
        b = as_numbers("scaling", scaling).astype(np.float64)
        if b.shape not in ((), (self.num_heads,)):
            raise ValueError(
                f"scaling: must be a number or one for each of {self.num_heads} heads, got shape {b.shape}"
            )
        if not ((b > 0) & (b <= np.finfo(self.dtype).max)).all():  # it is multiplied into queries of that dtype
            raise ValueError(f"scaling: must be positive and finite in {self.dtype}, got {short(scaling)}")
        if self._log_scaling is not None:
            as_writeable("scaling", self._log_scaling.value)
            self._log_scaling.change(np.log(b))
        self._scaling = float(b) if b.ndim == 0 else b
        self._config["scaling"] = self._scaling

    @property
    def separation(self) -> Any:
        """Return the separation map, which turns scores into weights."""
        return self._separation

    @separation.setter
    def separation(self, separation: Any) -> None:
        separation_code(separation)
        self._separation = self._config["separation"] = separation

    @property
    def structure(self) -> Structure | None:
        """Return the structure, which says to which stored patterns a state pattern attends; None: all."""
        return self._structure

    @structure.setter
    def structure(self, structure: Structure | None) -> None:
        self._structure = self._config["structure"] = as_structure(structure)

    # --- the public passes ------------------------------------------------------------------------

    def forward(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        train: bool = False,
    ) -> Array:
        """Compute the layer's output.

        Parameters
        ----------
        input : array_like, or tuple of three
            One array in all three roles, or (stored pattern, state pattern, pattern projection), shaped (B, M, e),
            (B, N, e), (B, M, e); in a tuple, an array of two axes is shared by all samples, and never copied for them.
            Any of B, N and M may be 0. Ragged bags: lists of one (M_i, e) array a bag, or arrays (R, e) of all rows
            with `offsets`; state patterns are then (B, N, e), or (N, e) for all, or the very array of the stored
            patterns.
        stored_pattern_padding_mask : array_like of bool, shape (B, M), optional
            True where a stored pattern is none.
        association_mask : array_like, shape (N, M), (B, N, M), (B, H, N, M) or (B * H, N, M), optional
            bool, True where a state pattern must not attend to a stored one; or numbers added to the scores. M is the
            largest bag's size where bags are ragged.
        offsets : array_like of int, shape (B + 1,), optional
            Bag b has rows offsets[b] to offsets[b + 1].
        train : bool
            Whether dropout acts.

        Returns
        -------
        ndarray of shape (B, N, output_size)
            (R, output_size) where the state patterns are ragged.
        """
        options = {"stored_pattern_padding_mask": stored_pattern_padding_mask, "association_mask": association_mask}
        return self._pass(input, train, options | {"offsets": offsets})

    def _forward(
        self,
        input: Any,
        stored_pattern_padding_mask: Any = None,
        association_mask: Any = None,
        *,
        offsets: Any = None,
        train: bool = False,
        learned: tuple[Array, ...] = (),
    ) -> tuple[Array, HopfieldTape]:
        """Compute the output; `learned` are the input arrays that are values of parameters."""
        as_they_are = any(role.eps is None for role in (self._q, self._k, self._v))  # kept for the backward pass

        def as_kept(name: str, x: Any) -> Array:
            return self._cast(name, x, copy=as_they_are and not any(x is y for y in learned))

        inputs, offsets, from_tuple = as_arrays(input, offsets, self._cast, as_kept)
        self._last_tape = None
        tape = self._run_forward(inputs, stored_pattern_padding_mask, association_mask, offsets, train=train)
        self._last_tape, tape.from_tuple = tape, from_tuple
        return tape.result if self.batch_first else np.ascontiguousarray(tape.result.swapaxes(0, 1)), tape

    def backward(self, grad: ArrayLike, need_input_grad: bool = True) -> Any:
        """Add to the parameters' gradients.

        Returns
        -------
        None, ndarray, or tuple of three
            The gradient of the input, as it was given, ragged bags as one array (R, e). In a tuple an array that was
            given more than once has its whole gradient at its first place and None at the others.
        """
        return super().backward(grad, need_input_grad)

    def _backward(self, saved: HopfieldTape, grad: Array, need_input_grad: bool) -> Any:
        grads = self._backward_inputs(saved, grad, need_input_grad, need_input_grad, need_input_grad)
        if not need_input_grad:
            return None
        return grads if saved.from_tuple else grads[0]

    def associations(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Any:
        """Compute the last association: what hflayers calls the association matrix.

        Parameters
        ----------
        input, stored_pattern_padding_mask, association_mask, offsets
            As of `forward`.

        Returns
        -------
        ndarray of shape (B, H, N, M), or csr_array of shape (B * H * N, M)
            CSR where the separation is sparse, rows in that order. M is the largest bag's size where bags are ragged,
            with the appended patterns behind each bag's own. Ragged state patterns are padded to the longest bag, with
            rows of zeros.
        """
        return self._associations(input, stored_pattern_padding_mask, association_mask, offsets)[0]

    def get_association_matrix(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Array:
        """Return `associations` as hflayers does: dense, whatever the separation.

        Parameters
        ----------
        input, stored_pattern_padding_mask, association_mask, offsets
            As of `forward`.

        Returns
        -------
        ndarray of shape (B, H, N, M)

        Examples
        --------
        >>> SparseHopfield(4, random_state=0).get_association_matrix(np.ones((2, 5, 4))).shape
        (2, 1, 5, 5)
        """
        weights, shape = self._associations(input, stored_pattern_padding_mask, association_mask, offsets)
        return weights if isinstance(weights, np.ndarray) else weights.toarray().reshape(shape)

    def get_projected_pattern_matrix(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Array:
        """Return the projected patterns, which the association mixes, appended ones behind them.

        Parameters
        ----------
        input, offsets
            As of `forward`.
        stored_pattern_padding_mask, association_mask
            As of `forward`; without effect here.

        Returns
        -------
        ndarray of shape (B, H, M, p), or (H, R, p) for ragged bags

        Examples
        --------
        >>> Hopfield(4, num_heads=2, random_state=0).get_projected_pattern_matrix(np.ones((3, 5, 4))).shape
        (3, 2, 5, 2)
        """
        inputs, offsets, _ = as_arrays(input, offsets, self._cast)
        tape = self._normalize_inputs(inputs, offsets, (self._v,))
        check_masks(stored_pattern_padding_mask, association_mask, tape.layout, self.num_heads, tape.appended)
        tape.unprojected = set()
        rows = self._project(tape)[0][self._v.name]
        rows = np.broadcast_to(rows, (*rows.shape[:-2], self.num_heads, rows.shape[-1]))
        if tape.appended:
            rows = self._append(rows, self._bias_v, tape.layout.offsets)
        if rows.ndim == 3 and tape.layout.offsets is None:
            rows = np.broadcast_to(rows, (tape.layout.samples, *rows.shape))
        return np.ascontiguousarray(rows.swapaxes(-3, -2))

    def _associations(self, input: Any, padding: Any, mask: Any, offsets: Any) -> tuple[Any, tuple[int, ...]]:
        """Return `associations`, and the dense shape (B, H, N, M)."""
        inputs, offsets, _ = as_arrays(input, offsets, self._cast)
        tape = self._run_forward(inputs, padding, mask, offsets)
        weights = association_weights(tape.saved)
        if tape.padded is not None:
            is_query = np.zeros((tape.layout.samples, 1, tape.layout.queries), self.dtype)
            is_query[tape.padded[0], 0, tape.padded[1]] = 1
            is_query = np.repeat(is_query, self.num_heads, axis=1)
            if isinstance(weights, np.ndarray):
                weights *= is_query[..., None]
            else:
                weights.data *= np.repeat(is_query.ravel(), np.diff(weights.indptr))
                weights.eliminate_zeros()
        return weights, tape.saved.shape

    def retrieve(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        per_head: bool = False,
        update_steps_max: int | None = None,
    ) -> Array:
        """Retrieve the stored patterns that the state patterns recall.

        State patterns are moved in the association space, to rest by default; what is returned is the mixture of the
        stored patterns as they came in (neither normalised nor projected) by the association that is reached.
        Appended patterns count as zeros.

        Parameters
        ----------
        input, stored_pattern_padding_mask, association_mask, offsets
            As of `forward`.
        per_head : bool
            One mixture for each head; their mean by default.
        update_steps_max : int or None
            As of the layer.

        Returns
        -------
        ndarray of shape (B, N, e), or (B, N, H, e) per head
            Beginning with (R,) in place of (B, N) where the state patterns are ragged.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> stored, state = rng.standard_normal((1, 100, 4)), rng.standard_normal((1, 2, 4))
        >>> layer = SparseHopfield(4, num_heads=2, random_state=0)
        >>> layer.retrieve((stored, state, stored)).shape
        (1, 2, 4)
        """
        inputs, offsets, _ = as_arrays(input, offsets, self._cast)
        steps = None if update_steps_max is None else as_whole("update_steps_max", update_steps_max, least=None)
        steps = None if steps is None or steps < 0 else steps
        tape = self._run_forward(
            inputs, stored_pattern_padding_mask, association_mask, offsets, recall=True, update_steps_max=steps
        )
        out = tape.out if tape.padded is None else tape.out[tape.padded]
        out = out if per_head else out.mean(axis=-2)
        return out if self.batch_first or tape.padded is not None else out.swapaxes(0, 1)

    # --- forward ----------------------------------------------------------------------------------

    def _run_forward(
        self,
        inputs: Inputs,
        padding: Any,
        mask: Any,
        offsets: Any,
        *,
        train: bool = False,
        recall: bool = False,
        update_steps_max: Any = ...,
    ) -> HopfieldTape:
        """Run the forward pass. With `recall` the association mixes the stored patterns as they came in, and nothing
        follows it.
        """
        q, k, v = self._q, self._k, self._v
        tape = self._normalize_inputs(inputs, offsets, (q, k) if recall else (q, k, v))
        layout, stored = tape.layout, tape.inputs[0]
        padding, mask = check_masks(padding, mask, layout, self.num_heads, tape.appended)
        steps = self.update_steps_max if update_steps_max is ... else update_steps_max
        tape.unprojected = self._choose_unprojected(tape, steps, recall)
        rows, projections = self._project(tape)
        if recall:
            rows[v.name] = stored[..., None, :]
        queries, keys, values = self._to_association_space(tape, rows[q.name], rows[k.name], rows[v.name], recall)

        dropout = self.dropout if train else 0.0
        try:
            tape.out, tape.saved = associate_forward(
                queries,
                keys,
                values,
                self.scaling,
                separation=self._separation,
                update_steps_max=steps,
                update_steps_eps=self.update_steps_eps,
                padding_mask=padding,
                mask=mask,
                offsets=tape.offsets,
                dropout=dropout,
                seed=int(self._random.integers(2**62)) if dropout else 0,
                gradient=self.gradient,
                key_projection=projections.get(k.name),
                value_projection=projections.get(v.name),
                structure=self._structure,
                appended=tape.appended,
                keep=not recall,
            )
        except (ValueError, OverflowError):
            self._check_finite(tape)
            raise
        if not recall:
            self._project_output(tape)
        return tape

    def _check_finite(self, tape: HopfieldTape) -> None:
        """Raise a ValueError that names the input or the parameter that is not finite, if one is not."""
        for source in tape.sources:
            if not np.isfinite(source.x).all():
                name = source.roles[0].name.replace("_", " ")
                raise ValueError(f"{name}: must be finite in {self.dtype}") from None
        for name, parameter in self.parameters().items():
            if not np.isfinite(parameter.value).all():
                raise ValueError(f"{name}: contains NaN or infinity; every entry must be finite") from None

    def _project_output(self, tape: HopfieldTape) -> None:
        """Compute the layer's output from that of the association."""
        out = tape.out if tape.padded is None else tape.out[tape.padded]
        tape.flat = out = out.reshape(*out.shape[:-2], out.shape[-2] * out.shape[-1])
        if self._out_weight is not None:
            out = dense.linear(out, self._out_weight.value, None if self._out_bias is None else self._out_bias.value)
        tape.slope = None
        if self.association_activation is not None:
            function, slope = ACTIVATIONS[self.association_activation]
            out = function(out)
            tape.slope = slope(out)
        tape.result = out
        tape.query_grad = tape.out_grad = None

    def _normalize_inputs(self, inputs: Inputs, offsets: Any, roles: tuple[Role, ...]) -> HopfieldTape:
        """Check the input arrays, bring samples to the first axis, and normalise the arrays for these roles."""
        q, k, v = self._q, self._k, self._v
        tape = HopfieldTape()
        tape.layout = layout_of(inputs, offsets, (k.size, q.size, v.size), first=self.batch_first)
        if not k.projected and not q.projected and inputs[0].shape[-1] != inputs[1].shape[-1]:
            raise ValueError(
                f"state pattern: must have the {inputs[0].shape[-1]} features of the stored patterns, got shape "
                f"{inputs[1].shape}"
            )
        if not self.batch_first:
            swapped = {id(x): x.swapaxes(0, 1).copy() if x.ndim == 3 else x for x in inputs}
            inputs = swapped[id(inputs[0])], swapped[id(inputs[1])], swapped[id(inputs[2])]
        tape.inputs = stored, state, projection = inputs
        tape.appended = (self._bias_k is not None) + self.add_zero_association

        sources: dict[tuple[int, float | None], Source] = {}
        for role, x in ((q, state), (k, stored), (v, projection)):
            if role not in roles:
                continue
            source = sources.get((id(x), role.eps))
            if source is None:
                source = sources[id(x), role.eps] = Source(x, role.eps)
            source.roles.append(role)
        tape.sources = list(sources.values())
        return tape

    def _choose_unprojected(self, tape: HopfieldTape, steps: int | None, recall: bool) -> set[str]:
        """Choose the roles whose rows the association is to read unprojected, and to project itself."""
        k, v, layout = self._k, self._v, tape.layout
        shared = tape.inputs[0].ndim == 2 and layout.offsets is None  # projected once for all samples
        by_core = self._structure is None or self._structure.association() is None
        if tape.appended or shared or layout.queries > FEW_QUERIES or not by_core:
            return set()

        def workload(role: Role, x: Array, passes: int) -> Workload:
            queries = layout.samples * layout.queries
            return Workload(math.prod(x.shape[:-1]), queries, layout.per_bag, x.shape[-1], role.width, passes)

        cheaper, found = _roles.is_cheaper_unprojected, set()
        values = [workload(v, tape.inputs[2], 1)] if v.projected and not recall else []
        if values and cheaper(*values):
            found = {v.name}
        limited = (
            self.gradient == "implicit"
            or not row_of(separation_code(self._separation)).shift_invariant
            or self.normalize_hopfield_space
        )
        if k.projected and steps is not None and not limited:
            keys = workload(k, tape.inputs[0], 2 * (steps + 1))
            if cheaper(keys) and (found or cheaper(keys, *values)):  # unprojected keys have one head: values must, too
                found = {k.name, *([v.name] if values else [])}
        return found

    def _project(self, tape: HopfieldTape) -> tuple[dict[str, Array], dict[str, Projection]]:
        """Project each role's rows to (..., H or 1, features), with one product for each source; return the projections
        that the association does itself, too.
        """
        rows: dict[str, Array] = {}
        projections: dict[str, Projection] = {}
        tape.grouped, tape.plain, H = [], {}, self.num_heads
        for source in tape.sources:
            group = [role for role in source.roles if role.projected and role.name not in tape.unprojected]
            if group:
                weight, bias, plain = fold_projections(group)
                tape.grouped.append((source, group, weight))
                y, at = dense.linear(source.xhat, weight, bias), 0
                for role, role_weight in zip(group, plain, strict=True):
                    part = y[..., at : at + H * role.width]
                    rows[role.name] = part.reshape(*part.shape[:-1], H, role.width)
                    tape.plain[role.name] = role_weight
                    at += H * role.width
            for role in source.roles:
                if not role.projected:
                    rows[role.name] = role.static_rows(source.xhat)
                elif role.name in tape.unprojected:
                    weight, bias, (tape.plain[role.name],) = fold_projections([role])
                    bias = np.zeros(len(weight), self.dtype) if bias is None else bias
                    projections[role.name] = Projection(weight.reshape(H, role.width, -1), bias.reshape(H, role.width))
                    rows[role.name] = source.xhat[..., None, :]
        return rows, projections

    def _to_association_space(
        self, tape: HopfieldTape, q: Array, k: Array, v: Array, recall: bool
    ) -> tuple[Array, Array, Array]:
        """Move queries, stored rows and values into the association space: normalise, append, and pad ragged
        queries.
        """
        layout, H = tape.layout, self.num_heads
        tape.hopfield_norms, tape.offsets, tape.padded = {}, layout.offsets, None
        if self.normalize_hopfield_space:
            q, k = self._hopfield_norm(self._q, q, tape), self._hopfield_norm(self._k, k, tape)
        if q.shape[-2] != H:
            q = np.broadcast_to(q, (*q.shape[:-2], H, q.shape[-1]))
        if tape.appended:
            k = self._append(k, self._bias_k, layout.offsets)
            v = self._append(v, None if recall else self._bias_v, layout.offsets)
            if layout.offsets is not None:
                tape.offsets = layout.offsets + tape.appended * np.arange(layout.samples + 1)
        if layout.ragged_state and layout.offsets is not None:
            sample = np.repeat(np.arange(layout.samples), np.diff(layout.offsets))
            tape.padded = sample, np.arange(len(q)) - layout.offsets[sample]
            padded = np.zeros((layout.samples, layout.queries, *q.shape[1:]), q.dtype)
            padded[tape.padded] = q
            q = padded
        return q, k, v

    def _hopfield_norm(self, role: Role, x: Array, tape: HopfieldTape) -> Array:
        """Normalise rows in the association space."""
        xhat, _ = tape.hopfield_norms[role.name] = dense.normalize(np.ascontiguousarray(x), self._hopfield_eps)
        if self._hopfield_gain is None or self._hopfield_shift is None:
            return xhat
        return xhat * self._hopfield_gain.value + self._hopfield_shift.value

    def _append(self, rows: Array, bias: Parameter | None, offsets: Array | None) -> Array:
        """Append the bias pattern and the zero pattern to the rows of every bag."""
        heads, width = rows.shape[-2:]
        more = np.zeros(((self._bias_k is not None) + self.add_zero_association, heads, width), rows.dtype)
        if bias is not None:
            more[0] = bias.value.reshape(heads, width)
        if rows.ndim == 4:
            return np.concatenate([rows, np.broadcast_to(more, (len(rows), *more.shape))], axis=1)
        if offsets is None:
            return np.concatenate([rows, more])
        ends = offsets[1:]
        return np.insert(rows, np.repeat(ends, len(more)), np.tile(more, (len(ends), 1, 1)), axis=0)

    def _append_backward(self, drows: Array, bias: Parameter | None, tape: HopfieldTape) -> Array:
        """Return the gradient of `_append` in the rows; add that in the bias pattern to its parameter."""
        n = tape.appended
        if drows.ndim == 4:
            dmore, drows = drows[:, -n:].sum(axis=0), drows[:, :-n]
        elif tape.offsets is None:
            dmore, drows = drows[-n:], drows[:-n]
        else:
            places = (tape.offsets[1:, None] - n + np.arange(n)).ravel()
            dmore = drows[places].reshape(-1, n, *drows.shape[1:]).sum(axis=0)
            drows = np.delete(drows, places, axis=0)
        if bias is not None:
            bias.add(dmore[0].reshape(bias.value.shape).copy())
        return drows

    # --- backward ---------------------------------------------------------------------------------

    def _backward_inputs(
        self, tape: HopfieldTape, grad: Array, need_stored: bool, need_state: bool, need_projection: bool
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Add to the parameters' gradients; return those in (stored, state, projection) where needed.

        An array in several roles has its whole gradient in the first of them.
        """
        needed = {self._k.name: need_stored, self._q.name: need_state, self._v.name: need_projection}
        grad = self._backward_output(tape, grad)
        buffers, places = self._gradient_buffers(tape)
        role_grads, projection_grads = self._backward_association(tape, grad, needed, places)
        self._backward_projections(tape, role_grads, projection_grads, needed, buffers)
        return self._input_grads(tape)

    def _backward_output(self, tape: HopfieldTape, grad: Array) -> Array:
        """Return the gradient in the association's output; add to those of the output projection."""
        if not self.batch_first:
            grad = grad.swapaxes(0, 1)
        if tape.slope is not None:
            grad = grad * tape.slope
        grad = np.ascontiguousarray(grad)
        if self._out_weight is not None:
            dflat, dweight, dbias = dense.linear_backward(tape.flat, self._out_weight.value, grad)
            assert dflat is not None
            self._out_weight.add(dweight)
            if self._out_bias is not None:
                self._out_bias.add(dbias)
            grad = dflat
        if tape.padded is None:
            return grad.reshape(tape.out.shape)
        padded = np.zeros_like(tape.out)
        padded[tape.padded] = grad.reshape(-1, *tape.out.shape[2:])
        return padded

    def _backward_association(
        self, tape: HopfieldTape, grad: Array, needed: dict[str, bool], places: dict[str, Array]
    ) -> tuple[dict[str, Array], list[Projection]]:
        """Return the gradients in each role's rows, and in the projections that the association did itself.

        `places` are arrays for the gradients of some roles.
        """
        need_rows = self._hopfield_gain is not None or any(
            needed[r.name]
            or (r.projected and r.name not in tape.unprojected)
            or (r.gain is not None and not r.projected)
            for r in (self._k, self._v)
        )
        dq, dk, dv, dbeta, *dprojections = gradients_of(
            tape.saved,
            grad,
            need_rows,
            self._log_scaling is not None,
            (places.get(self._q.name), places.get(self._k.name), places.get(self._v.name)),
        )
        tape.query_grad, tape.out_grad = dq, grad
        if self._log_scaling is not None:
            self._log_scaling.add((dbeta * self.scaling).astype(self.dtype))
        if tape.padded is not None:
            dq = dq[tape.padded]
        if tape.appended and need_rows:
            dk, dv = self._append_backward(dk, self._bias_k, tape), self._append_backward(dv, self._bias_v, tape)
        if self.normalize_hopfield_space:
            dq, dk = (
                self._hopfield_norm_backward(self._q, dq, tape),
                self._hopfield_norm_backward(self._k, dk, tape) if need_rows else None,
            )
        return {self._q.name: dq, self._k.name: dk, self._v.name: dv}, dprojections

    def _backward_projections(
        self,
        tape: HopfieldTape,
        role_grads: dict[str, Array],
        projection_grads: list[Projection],
        needed: dict[str, bool],
        buffers: list[Array | None],
    ) -> None:
        """Add to the gradients of the sources and of the projections' parameters, from those in each role's rows."""
        for source in tape.sources:
            source.grad = None
        gradients = ProjectionGradients()
        for (source, group, weight), dy in zip(tape.grouped, buffers, strict=True):
            parts = [
                role_grads[role.name].reshape(*source.xhat.shape[:-1], self.num_heads * role.width) for role in group
            ]
            if dy is None:
                dy = np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts, axis=-1)
            dx, dweight, dbias = dense.linear_backward(source.xhat, weight, dy, any(needed[r.name] for r in group))
            at = 0
            for role, part in zip(group, parts, strict=True):
                end = at + part.shape[-1]
                gradients.add_folded(role, tape.plain[role.name], dweight[at:end], dbias[at:end])
                at = end
            source.add_gradient(dx)
        for source in tape.sources:
            for role in source.roles:
                drows = role_grads[role.name]
                if role.name in tape.unprojected:
                    plain, gradient = tape.plain[role.name], projection_grads[0 if role is self._k else 1]
                    gradients.add_folded(role, plain, gradient.weight.reshape(plain.shape), gradient.bias.ravel())
                    drows = None if drows is None else drows[..., 0, :]
                elif role.projected:
                    continue
                elif drows is not None:
                    drows = role.static_backward(source.xhat, drows)
                source.add_gradient(drows if needed[role.name] else None)
        gradients.add_to_parameters()

    def _gradient_buffers(self, tape: HopfieldTape) -> tuple[list[Array | None], dict[str, Array]]:
        """Allocate the arrays that the association is to write gradients to. For each product that projected several
        roles, one array holds the gradients of these roles side by side, as the backward pass of that product reads
        them.
        """
        buffers: list[Array | None] = []
        places: dict[str, Array] = {}
        reshaped = tape.padded is not None or tape.appended or self.normalize_hopfield_space
        for source, group, weight in tape.grouped:
            shared_state = self._q in group and source.xhat.ndim == 2
            if reshaped or shared_state or len(group) == 1 or any(role.width != group[0].width for role in group):
                buffers.append(None)
                continue
            shape, H = source.xhat.shape[:-1], self.num_heads
            dy = np.empty((*shape, len(weight)), self.dtype)
            parts = dy.reshape(*shape, len(group), H, group[0].width)
            places |= {role.name: parts[..., i, :, :] for i, role in enumerate(group)}
            buffers.append(dy)
        return buffers, places

    def _hopfield_norm_backward(self, role: Role, dy: Array, tape: HopfieldTape) -> Array:
        """Compute the gradient of `_hopfield_norm`."""
        xhat, rstd = tape.hopfield_norms[role.name]
        if not role.projected:  # all heads saw the same
            dy = dy.sum(axis=-2, keepdims=True)
        if self._hopfield_gain is not None and self._hopfield_shift is not None:
            axes = tuple(range(dy.ndim - 1))
            self._hopfield_gain.add((dy * xhat).sum(axis=axes))
            self._hopfield_shift.add(dy.sum(axis=axes))
            dy = dy * self._hopfield_gain.value
        return dense.normalize_backward(xhat, rstd, dy)

    def _input_grads(self, tape: HopfieldTape) -> tuple[Array | None, Array | None, Array | None]:
        """Return the inputs' gradients, through their normalisations; an array in several roles has its gradient in the
        first.
        """
        total: dict[int, Array] = {}
        for source in tape.sources:
            if source.grad is not None:
                d = source.grad
                if source.rstd is not None:
                    d = dense.normalize_backward(source.xhat, source.rstd, d)
                total[id(source.x)] = total[id(source.x)] + d if id(source.x) in total else d
        found = [total.pop(id(x), None) for x in tape.inputs]
        if not self.batch_first:
            found = [d.swapaxes(0, 1) if d is not None and d.ndim == 3 else d for d in found]
        return tuple(found)  # type: ignore[return-value]


class SparseHopfield(Hopfield):
    """`Hopfield` with the sparsemax association of the main paper (Hu et al. 2023, section 4).

    Examples
    --------
    >>> SparseHopfield(4, random_state=0).separation
    'sparsemax'
    """

    _default_separation = "sparsemax"
