"""Hopfield layers: the association between normalised, projected inputs, and back.

Letters: B samples; N state patterns (queries) and M stored patterns (rows) of each; H heads; e features that come in,
d features of a head in the association space, p of its projected patterns. Three roles come in, which hflayers calls
state pattern (query), stored pattern (key) and pattern projection (value).

What makes it fast: the affine part of the layer normalisations is folded into the projections, so an array that has
several roles is normalised once and projected by one product; where few queries look at many rows, rows are not
projected at all, and the association gets the projections instead (`_input_space_pays`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from .. import dense
from ..association import Projection, Saved, associate_backward, associate_forward, association_weights
from ..checks import Array, as_number, as_numbers, as_whole
from ..separations import separation_code, unknown_name
from ._basic import as_positive, as_rate
from ._module import Module, Parameter

__all__ = ["Hopfield", "SparseHopfield", "Tape", "flat_bags"]

GUESSED_STEPS = 8  # of an association that runs until it rests, where costs are compared
MOST_STEPS = 10_000  # of one that does not come to rest, as where eps is below rounding

# name -> the function, and its derivative from its value
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda y: y > 0),
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "sigmoid": (expit, lambda y: y * (1 - y)),
}


def flat_bags(name: str, bags: list[ArrayLike], offsets: Any = None) -> tuple[Array, Array]:
    """The rows of a list of bags (M_i, e) as one array, and where each bag begins."""
    if offsets is not None:
        raise ValueError("offsets: a list of bags has its own; give one of the two")
    arrays = [as_numbers(f"{name}[{i}]", bag) for i, bag in enumerate(bags)]
    if not arrays or any(a.ndim != 2 or a.shape[1] != arrays[0].shape[1] for a in arrays):
        raise ValueError(f"{name}: a list must hold one array (rows, features) a bag, got {[a.shape for a in arrays]}")
    return np.concatenate(arrays), np.cumsum([0, *map(len, arrays)])


def _as_offsets(offsets: ArrayLike, rows: int) -> Array:
    """Where bags begin, and the end."""
    o = np.asarray(offsets)
    if o.dtype.kind not in "iu":
        raise TypeError(f"offsets: must be whole numbers, got dtype {o.dtype}")
    if o.ndim != 1 or len(o) < 2 or o[0] != 0 or o[-1] != rows or (o[1:] < o[:-1]).any():
        raise ValueError(
            f"offsets: must rise from 0 to the number of rows, {rows}, one more than there are bags; got {o}"
        )
    return o.astype(np.int64, copy=False)


def _input_space_pays(rows: int, queries: int, per_bag: float, features: int, width: int, passes: int) -> bool:
    """Whether `queries`, each with `per_bag` rows, look at `rows` rows more cheaply before these are projected.

    Multiplications for one head, of a forward pass: rows of e features are looked at `passes` times by a query, and
    the query is moved between the spaces each time; or rows are projected once and looked at with d features.
    """
    unprojected = passes * queries * features * (per_bag + width)
    projected = rows * width * features + passes * queries * width * per_bag
    return unprojected < projected


class _Role:
    """What happens to one of the three inputs before the association; fixed when the layer is made."""

    __slots__ = ("bias", "eps", "gain", "name", "projected", "shift", "size", "via", "weight", "width")

    def __init__(self, name: str, size: int | None, eps: float | None, width: int, projected: bool) -> None:
        self.name, self.size, self.eps, self.width, self.projected = name, size, eps, width, projected
        self.gain: Parameter | None = None  # of the layer normalisation
        self.shift: Parameter | None = None
        self.weight: tuple[Parameter, slice] | None = None  # (H * width, size), among the rows of a parameter
        self.bias: tuple[Parameter, slice] | None = None
        self.via: _Role | None = None  # projected by this role's weight first: pattern_projection_as_connected


class _Source:
    """One array that comes in, normalised for all its roles."""

    __slots__ = ("grad", "roles", "rstd", "x", "xhat")

    def __init__(self, x: Array, eps: float | None) -> None:
        self.x, self.xhat, self.rstd = x, x, None  # rstd None: not normalised
        if eps is not None:
            self.xhat, self.rstd = dense.normalize(x, eps)
        self.roles: list[_Role] = []
        self.grad: Array | None = None  # of xhat

    def gather(self, grad: Array | None) -> None:
        """Add to the gradient."""
        if grad is not None:
            self.grad = grad if self.grad is None else self.grad + grad


class Tape:
    """What a forward pass leaves for the backward pass."""

    inputs: tuple[Array, Array, Array]  # as they were after the layout was unified
    sources: list[_Source]
    grouped: list[tuple[_Source, list[_Role], Array]]  # what one product projected, by which weight
    inside: set[str]  # roles whose projection the association got
    hopfield_norms: dict[str, tuple[Array, Array]]  # role -> xhat, rstd in the association space
    offsets: Array | None  # with the rows appended
    appended: int  # rows behind those that came in, in each bag
    padded: tuple[Array, Array] | None  # ragged queries: sample and place of each
    saved: Saved
    out: Array  # of the association (B, N, H, p)
    flat: Array  # what the output projection saw
    result: Array
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
        The first association and so many more updates; negative or None: until every query rests, 10,000 at most.
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
        Return the heads' mixtures beside one another, (B, N, num_heads * p).
    separation : {"softmax", "sparsemax", "entmax15"}, Entmax or Polynomial, optional
        How scores become weights; softmax here, sparsemax in the `Sparse...` twins. May be changed later.
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
    _tape: Tape | None = None

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
        gradient: str = "unrolled",
        learnable_scaling: bool = False,
        initial_std: float = 0.02,
        dtype: Any = "float32",
        random_state: Any = None,
    ) -> None:
        config = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        config["dtype"] = np.dtype(dtype).name
        super().__init__(config, dtype, random_state)

        # sizes
        self.num_heads = H = as_whole("num_heads", num_heads, least=1)
        e = None if input_size is None else as_whole("input_size", input_size, least=1)
        static = (state_pattern_as_static, stored_pattern_as_static, pattern_projection_as_static)
        connected = pattern_projection_as_connected
        bare = all(static) and not connected and not normalize_hopfield_space and disable_out_projection
        if e is None and not bare:
            raise ValueError("input_size: is needed wherever something is projected or normalised in association space")
        e_k = e if stored_pattern_size is None else as_whole("stored_pattern_size", stored_pattern_size, least=1)
        e_v = (
            e
            if pattern_projection_size is None
            else as_whole("pattern_projection_size", pattern_projection_size, least=1)
        )
        if connected and e_k != e_v:
            raise ValueError(
                "pattern_projection_as_connected: stored patterns and pattern projections need one size, got "
                f"{e_k} and {e_v}"
            )
        d = p = None
        if not bare:
            assert e is not None
            if hidden_size is None and e % H:
                raise ValueError(f"num_heads: must divide input_size {e} where hidden_size is not given, got {H}")
            d = e // H if hidden_size is None else as_whole("hidden_size", hidden_size, least=1)
            p = d if pattern_size is None else as_whole("pattern_size", pattern_size, least=1)
            if connected and p != d:
                raise ValueError(f"pattern_size: must be hidden_size {d} where connected, got {p}")
        self.input_size, self.stored_pattern_dim, self.pattern_projection_dim = e, e_k, e_v
        self.hidden_size, self.pattern_size = d, p
        projects_out = not disable_out_projection
        self.output_size = (
            None if not projects_out else e if output_size is None else as_whole("output_size", output_size, least=1)
        )

        # the association
        if normalize_hopfield_space_affine and not normalize_hopfield_space:
            raise ValueError("normalize_hopfield_space_affine: has no effect without normalize_hopfield_space")
        self.normalize_hopfield_space = bool(normalize_hopfield_space)
        self._hopfield_eps = as_positive("normalize_hopfield_space_eps", normalize_hopfield_space_eps)
        if update_steps_max is not None and np.ndim(update_steps_max) != 0:
            raise TypeError("update_steps_max: one number for all heads; one a head is not supported")
        if np.ndim(update_steps_eps) != 0:
            raise TypeError("update_steps_eps: one number for all heads; one a head is not supported")
        steps = -1 if update_steps_max is None else as_whole("update_steps_max", update_steps_max, least=-(2**31))
        self.update_steps_max = None if steps < 0 else steps
        self.update_steps_eps = as_positive("update_steps_eps", update_steps_eps)
        if gradient not in ("unrolled", "implicit"):
            raise unknown_name("gradient", str(gradient), ["unrolled", "implicit"])
        self.gradient = gradient
        self.dropout = as_rate("dropout", dropout)
        self.batch_first = bool(batch_first)
        if association_activation is not None and association_activation not in ACTIVATIONS:
            raise unknown_name("association_activation", str(association_activation), [*ACTIVATIONS])
        self.association_activation = association_activation
        self.separation = self._default_separation if separation is None else separation
        std = as_number("initial_std", initial_std, least=0.0)

        # parameters, with hflayers' names and shapes
        same = e_k == e and e_v == e and pattern_size is None and not connected
        in_width = [0 if s else H * w for s, w in zip(static, (d or 0, d or 0, p or 0), strict=True)]
        core = "association_core."
        weights: list[tuple[Parameter, slice] | None] = [None, None, None]
        ends = np.cumsum([0, *in_width]).tolist()
        if same and ends[-1]:
            assert e is not None
            whole = self._parameter(core + "in_proj_weight", self._normal(std, ends[-1], e))
            weights = [(whole, slice(ends[i], ends[i + 1])) if in_width[i] else None for i in range(3)]
        elif not same:
            v_in = H * d if connected and not stored_pattern_as_static and d else e_v
            for i, (name, size) in enumerate((("q", e), ("k", e_k), ("v", v_in))):
                if in_width[i]:
                    assert size is not None
                    values = self._normal(std, in_width[i], size)
                    weights[i] = self._parameter(f"{core}{name}_proj_weight", values), slice(None)
        biases: list[tuple[Parameter, slice] | None] = [None, None, None]
        if input_bias and ends[-1]:
            # hflayers reserves the values' part also where they are static, and never uses it
            both = self._parameter(core + "in_proj_bias", np.zeros(ends[2] + H * (p or 0)))
            biases = [(both, slice(ends[i], ends[i + 1])) if in_width[i] else None for i in range(3)]
        self._out_weight = self._out_bias = None
        if projects_out:
            assert self.output_size is not None
            assert p is not None
            values = self._normal(std, self.output_size, H * p)
            self._out_weight = self._parameter(core + "out_proj.weight", values)
            if input_bias:
                self._out_bias = self._parameter(core + "out_proj.bias", np.zeros(self.output_size))
        self._bias_k = self._bias_v = None
        if concat_bias_pattern:
            if stored_pattern_as_static or pattern_projection_as_static:
                raise ValueError("concat_bias_pattern: cannot be appended to static patterns")
            self._bias_k = self._parameter(core + "bias_k", self._normal(std, 1, 1, in_width[1]))
            self._bias_v = self._parameter(core + "bias_v", self._normal(std, 1, 1, in_width[2]))
        self.add_zero_association = bool(add_zero_association)
        self._hopfield_gain = self._hopfield_shift = None
        if normalize_hopfield_space_affine:
            assert d is not None
            self._hopfield_gain = self._parameter(core + "p_norm_weight", np.ones(d))
            self._hopfield_shift = self._parameter(core + "p_norm_bias", np.zeros(d))

        # roles
        in_space = d if self.normalize_hopfield_space or not (static[0] and static[1]) else None
        asked = (
            ("state_pattern", e, in_space, normalize_state_pattern, normalize_state_pattern_affine,
             normalize_state_pattern_eps, d),
            ("stored_pattern", e_k, in_space, normalize_stored_pattern, normalize_stored_pattern_affine,
             normalize_stored_pattern_eps, d),
            ("pattern_projection", e_v, p if projects_out else None, normalize_pattern_projection,
             normalize_pattern_projection_affine, normalize_pattern_projection_eps, p),
        )  # fmt: skip
        roles = []
        for i, (name, size, unprojected, normal, affine, eps, width) in enumerate(asked):
            if affine and not normal:
                raise ValueError(f"normalize_{name}_affine: has no effect without normalize_{name}; set both to False")
            projected = not static[i] or (i == 2 and connected and not stored_pattern_as_static)
            if normal and size is None:
                raise ValueError(f"normalize_{name}: needs input_size")
            needs = size if normal or projected else unprojected
            if not projected and normal and unprojected is not None and unprojected != size:
                raise ValueError(
                    f"{name}_as_static: normalised patterns of {size} features are no patterns of the association "
                    f"space, which has {unprojected}"
                )
            role = _Role(
                name, needs, as_positive(f"normalize_{name}_eps", eps) if normal else None, width or 0, projected
            )
            role.weight, role.bias = weights[i], biases[i]
            if affine:
                assert size is not None
                role.gain = self._parameter(f"norm_{name}.weight", np.ones(size))
                role.shift = self._parameter(f"norm_{name}.bias", np.zeros(size))
            roles.append(role)
        self._q, self._k, self._v = roles
        if connected and not stored_pattern_as_static:
            self._v.via = self._k

        # beta
        b = as_numbers("scaling", scaling if scaling is not None else 1.0 if d is None else d**-0.5)
        self._log_scaling = None
        if learnable_scaling:
            self._log_scaling = self._parameter("log_scaling", np.zeros(H))
        self.scaling = b
        config["scaling"] = scaling  # None stays None: it follows hidden_size

    # --- what may be changed later ----------------------------------------------------------------

    @property
    def scaling(self) -> float | Array:
        """beta, a number or one a head."""
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
        if not ((b > 0) & (b < np.inf)).all():
            raise ValueError(f"scaling: must be positive and finite, got {scaling!r}")
        if self._log_scaling is not None:
            self._log_scaling.value[...] = np.log(b)
        self._scaling = float(b) if b.ndim == 0 else b
        self._config["scaling"] = self._scaling

    @property
    def separation(self) -> Any:
        """How scores become weights."""
        return self._separation

    @separation.setter
    def separation(self, separation: Any) -> None:
        separation_code(separation)
        self._separation = self._config["separation"] = separation

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
        """The layer's output.

        Parameters
        ----------
        input : array_like, or tuple of three
            One array in all three roles, or (stored pattern, state pattern, pattern projection), shaped (B, M, e),
            (B, N, e), (B, M, e); in a tuple, an array of two axes is shared by all samples, and never copied for them.
            Ragged bags: lists of one (M_i, e) array a bag, or arrays (R, e) of all rows with `offsets`; state patterns
            are then (B, N, e), or (N, e) for all, or the very array of the stored patterns.
        stored_pattern_padding_mask : array_like of bool, shape (B, M), optional
            True where a stored pattern is none.
        association_mask : array_like, shape (N, M), (B, N, M), (B, H, N, M) or (B * H, N, M), optional
            bool, True where a state pattern must not look; or numbers added to the scores.
        offsets : array_like of int, shape (B + 1,), optional
            Bag b has rows offsets[b] to offsets[b + 1].
        train : bool
            Whether dropout acts.

        Returns
        -------
        ndarray of shape (B, N, output_size)
            (R, output_size) where the state patterns are ragged.
        """
        inputs, offsets, self._places = self._roles_of(input, offsets)
        self._tape = self._run(inputs, stored_pattern_padding_mask, association_mask, offsets, train=train)
        return self._tape.result

    def backward(self, grad: ArrayLike, need_input_grad: bool = True) -> Any:
        """Add to the parameters' gradients.

        Returns
        -------
        None, ndarray, or tuple of three
            The gradient of the input, as it was given, ragged bags as one array (R, e). In a tuple an array that was
            given more than once has its whole gradient at its first place and None at the others.
        """
        tape = self._tape
        g = self._grad(grad, None if tape is None else tape.result.shape)
        assert tape is not None
        grads = self._back(tape, g, need_input_grad, need_input_grad, need_input_grad)
        if not need_input_grad:
            return None
        return grads[0] if self._places == 1 else grads

    def associations(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Any:
        """The last association: what hflayers calls the association matrix.

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
        inputs, offsets, _ = self._roles_of(input, offsets)
        tape = self._run(inputs, stored_pattern_padding_mask, association_mask, offsets)
        return association_weights(tape.saved)

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
        """The stored patterns that the state patterns recall.

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
        inputs, offsets, _ = self._roles_of(input, offsets)
        steps = None if update_steps_max is None or update_steps_max < 0 else update_steps_max
        tape = self._run(
            inputs, stored_pattern_padding_mask, association_mask, offsets, recall=True, update_steps_max=steps
        )
        out = tape.out if tape.padded is None else tape.out[tape.padded]
        out = out if per_head else out.mean(axis=-2)
        return out if self.batch_first or tape.padded is not None else out.swapaxes(0, 1)

    # --- what came in -----------------------------------------------------------------------------

    def _roles_of(self, input: Any, offsets: Any) -> tuple[tuple[Array, Array, Array], Any, int]:
        """(stored, state, projection) as arrays, the offsets, and how many of them were given."""
        if isinstance(input, tuple):
            if len(input) != 3:
                raise ValueError(
                    "input: must be one array, or a tuple (stored pattern, state pattern, pattern projection), got "
                    f"{len(input)}"
                )
            named = zip(("stored pattern", "state pattern", "pattern projection"), input, strict=True)
            places = 3
        else:
            named = zip(("input",), (input,), strict=True)
            places = 1
        made: dict[int, Array] = {}  # what is one object stays one array
        own = None
        for name, x in named:
            if id(x) not in made:
                if isinstance(x, list) and x and np.ndim(x[0]) == 2:
                    x_flat, o = flat_bags(name, x, offsets)
                    if own is not None and not np.array_equal(own, o):
                        raise ValueError(f"{name}: bags must have the sizes of the stored patterns' bags")
                    own, made[id(x)] = o, self._cast(name, x_flat)
                else:
                    made[id(x)] = self._cast(name, x)
        given = tuple(made[id(x)] for x in (input if places == 3 else (input,) * 3))
        return given, offsets if own is None else own, places  # type: ignore[return-value]

    def _layout(self, inputs: tuple[Array, Array, Array], offsets: Any) -> tuple[int, int, Any]:
        """Check the inputs' shapes against one another; the number of samples, of rows in the largest bag, offsets."""
        stored, state, projection = inputs
        for role, x in ((self._q, state), (self._k, stored), (self._v, projection)):
            name = role.name.replace("_", " ")
            if x.ndim not in (2, 3):
                raise ValueError(f"{name}: must be (samples, patterns, features), got shape {x.shape}")
            if role.size is not None and x.shape[-1] != role.size:
                raise ValueError(f"{name}: must have {role.size} features, got shape {x.shape}")
        if not self._k.projected and not self._q.projected and stored.shape[-1] != state.shape[-1]:
            raise ValueError(
                f"state pattern: must have the {stored.shape[-1]} features of the stored patterns, got {state.shape}"
            )
        if offsets is not None:
            if not self.batch_first:
                raise ValueError("offsets: ragged bags need batch_first")
            offsets = _as_offsets(offsets, len(stored))
            if stored.ndim != 2 or projection.shape[:-1] != stored.shape[:-1]:
                raise ValueError(
                    "input: stored patterns and pattern projections of ragged bags must be (rows, features), got "
                    f"{stored.shape} and {projection.shape}"
                )
            samples, rows = len(offsets) - 1, int((offsets[1:] - offsets[:-1]).max())
        else:
            if stored is state and stored.ndim == 2:
                raise ValueError(f"input: must be (samples, patterns, features), got shape {stored.shape}")
            axis = 0 if self.batch_first else 1
            counts = {x.shape[axis] for x in inputs if x.ndim == 3}
            if len(counts) > 1:
                raise ValueError(f"input: all must have one number of samples, got shapes {[x.shape for x in inputs]}")
            if stored.ndim != projection.ndim or stored.shape[:-1] != projection.shape[:-1]:
                raise ValueError(
                    f"pattern projection: needs one row for each stored pattern, {stored.shape[:-1]}, got "
                    f"{projection.shape[:-1]}"
                )
            samples = counts.pop() if counts else 1
            rows = stored.shape[1 - axis] if stored.ndim == 3 else len(stored)
        if state.ndim == 3 and state.shape[0 if self.batch_first else 1] != samples:
            raise ValueError(f"state pattern: needs {samples} samples, got shape {state.shape}")
        if samples == 0 or (state.size == 0 and state is not stored):
            raise ValueError(f"input: needs at least one sample and one state pattern, got shapes {state.shape}")
        return samples, rows, offsets

    def _masks(
        self, padding: Any, mask: Any, samples: int, queries: int, rows: int, offsets: Any
    ) -> tuple[Array | None, Array | None]:
        """The masks, checked, with a column of nothing for each row that will be appended."""
        more = (self._bias_k is not None) + self.add_zero_association
        if padding is not None:
            if offsets is not None:
                raise ValueError("stored_pattern_padding_mask: ragged bags have no padding")
            padding = as_numbers("stored_pattern_padding_mask", padding)
            if padding.dtype.kind not in "biu" or padding.shape != (samples, rows):
                raise ValueError(
                    f"stored_pattern_padding_mask: must be bool of shape {(samples, rows)}, got {padding.dtype} of "
                    f"shape {padding.shape}"
                )
            padding = padding.astype(np.bool_)
            if more:
                padding = np.pad(padding, ((0, 0), (0, more)))
        if mask is not None:
            mask = as_numbers("association_mask", mask)
            mask = mask.astype(np.bool_) if mask.dtype.kind in "iu" else mask
            H = self.num_heads
            fits = [
                (queries, rows),
                (samples, queries, rows),
                (samples, H, queries, rows),
                (samples * H, queries, rows),
            ]
            if mask.shape not in fits:
                raise ValueError(f"association_mask: must have one of the shapes {fits}, got {mask.shape}")
            if mask.dtype.kind == "f" and not (mask < np.inf).all():
                raise ValueError("association_mask: must be numbers below infinity")
            if mask.ndim == 3 and len(mask) != samples:
                mask = mask.reshape(samples, H, queries, rows)
            if more:
                mask = np.pad(mask, ((0, 0),) * (mask.ndim - 1) + ((0, more),))
                if offsets is not None:  # a bag's appended rows are right behind its own
                    mask = np.repeat(mask[None], samples, axis=0) if mask.ndim == 2 else mask
                    for b, size in enumerate(offsets[1:] - offsets[:-1]):
                        mask[b, ..., size : size + more] = 0
        return padding, mask

    # --- projections ------------------------------------------------------------------------------

    def _effective(self, role: _Role) -> tuple[Array, Array | None]:
        """The weight and bias that a role is projected with, before the normalisation is folded in."""
        if role.via is None:
            assert role.weight is not None
            weight = role.weight[0].value[role.weight[1]]
            return weight, None if role.bias is None else role.bias[0].value[role.bias[1]]
        first, bias = self._effective(role.via)
        if role.weight is None:
            return first, bias
        weight = role.weight[0].value
        if bias is None or role.bias is None:
            return weight @ first, None
        return weight @ first, weight @ bias + role.bias[0].value[role.bias[1]]

    def _folded(self, roles: list[_Role]) -> tuple[Array, Array | None]:
        """The weights and biases of these roles below one another, normalisations folded in."""
        parts = [self._effective(role) for role in roles]
        if len(roles) == 1 and roles[0].gain is None:
            return parts[0]
        rows, e = sum(len(weight) for weight, _ in parts), parts[0][0].shape[1]
        weights, biases, at = np.empty((rows, e), self.dtype), np.empty(rows, self.dtype), 0
        for role, (weight, bias) in zip(roles, parts, strict=True):
            end = at + len(weight)
            if role.gain is not None and role.shift is not None:
                dense.fold(weight, bias, role.gain.value, role.shift.value, (weights[at:end], biases[at:end]))
            else:
                weights[at:end] = weight
                biases[at:end] = 0 if bias is None else bias
            at = end
        return weights, biases

    def _credit(self, role: _Role, dweight: Array, dbias: Array, grads: dict[int, tuple[Parameter, Array]]) -> None:
        """Hand the gradients of a role's folded weight and bias on to the parameters that these are made of."""
        weight, _ = self._effective(role)
        if role.gain is not None and role.shift is not None:
            dweight, dgain, dshift = dense.unfold(dweight, dbias, weight, role.gain.value, role.shift.value)
            role.gain.add(dgain)
            role.shift.add(dshift)
        if role.via is not None:
            outer, (first, first_bias) = role, self._effective(role.via)
            if outer.weight is not None:
                _put(grads, outer.weight, dweight @ first.T)
                if first_bias is not None:
                    _put(grads, outer.weight, np.outer(dbias, first_bias))
                if outer.bias is not None:
                    _put(grads, outer.bias, dbias)
                own = outer.weight[0].value
                dweight, dbias = own.T @ dweight, dbias @ own
            role = role.via
        if role.weight is not None:
            _put(grads, role.weight, dweight)
        if role.bias is not None:
            _put(grads, role.bias, dbias)

    def _static(self, role: _Role, xhat: Array) -> Array:
        """Rows that are not projected, with one head."""
        rows = xhat if role.gain is None or role.shift is None else xhat * role.gain.value + role.shift.value
        return rows[..., None, :]

    def _hopfield_norm(self, role: _Role, x: Array, tape: Tape) -> Array:
        """Layer normalisation in the association space."""
        saved = dense.normalize(np.ascontiguousarray(x), self._hopfield_eps)
        tape.hopfield_norms[role.name], xhat = saved, saved[0]
        if self._hopfield_gain is None or self._hopfield_shift is None:
            return xhat
        return xhat * self._hopfield_gain.value + self._hopfield_shift.value

    # --- forward ----------------------------------------------------------------------------------

    def _run(
        self,
        inputs: tuple[Array, Array, Array],
        padding: Any,
        mask: Any,
        offsets: Any,
        *,
        train: bool = False,
        recall: bool = False,
        update_steps_max: Any = ...,
    ) -> Tape:
        """The forward pass of (stored, state, projection); with `recall`, stored patterns as they are are mixed."""
        samples, rows, offsets = self._layout(inputs, offsets)
        if not self.batch_first:
            turned = {id(x): x.swapaxes(0, 1).copy() if x.ndim == 3 else x for x in inputs}
            inputs = tuple(turned[id(x)] for x in inputs)  # type: ignore[assignment]
        stored, state, projection = inputs
        ragged_state = offsets is not None and state is stored
        queries = rows if ragged_state else state.shape[-2]
        padding, mask = self._masks(padding, mask, samples, queries, rows, offsets)
        steps = self.update_steps_max if update_steps_max is ... else update_steps_max

        tape = Tape()
        tape.inputs, tape.offsets, tape.hopfield_norms = inputs, offsets, {}
        tape.appended = (self._bias_k is not None) + self.add_zero_association
        roles = [(self._q, state), (self._k, stored)] + ([] if recall else [(self._v, projection)])
        sources: dict[tuple[int, float | None], _Source] = {}
        for role, x in roles:
            source = sources.get((id(x), role.eps))
            if source is None:
                source = sources[id(x), role.eps] = _Source(x, role.eps)
            source.roles.append(role)
        tape.sources = list(sources.values())

        # where each role's projection happens
        tape.inside = set()
        if not tape.appended and self.gradient == "unrolled":
            count = math.prod(stored.shape[:-1])
            per_bag = count / samples if offsets is not None else rows
            passes = 2 * ((GUESSED_STEPS if steps is None else steps) + 1)
            for role, x, times in ((self._k, stored, passes), (self._v, projection, 1)):
                if (
                    role.projected
                    and not (role is self._k and self.normalize_hopfield_space)
                    and not (role is self._v and recall)
                    and _input_space_pays(count, samples * queries, per_bag, x.shape[-1], role.width, times)
                ):
                    tape.inside.add(role.name)

        # one product for each source
        heads: dict[str, Array] = {}
        projections: dict[str, Projection] = {}
        tape.grouped = []
        H = self.num_heads
        for source in tape.sources:
            group = [role for role in source.roles if role.projected and role.name not in tape.inside]
            if group:
                weight, bias = self._folded(group)
                tape.grouped.append((source, group, weight))
                y, at = dense.linear(source.xhat, weight, bias), 0
                for role in group:
                    part = y[..., at : at + H * role.width]
                    heads[role.name] = part.reshape(*part.shape[:-1], H, role.width)
                    at += H * role.width
            for role in source.roles:
                if not role.projected:
                    heads[role.name] = self._static(role, source.xhat)
                elif role.name in tape.inside:
                    weight, bias = self._folded([role])
                    bias = np.zeros(len(weight), self.dtype) if bias is None else bias
                    projections[role.name] = Projection(weight.reshape(H, role.width, -1), bias.reshape(H, role.width))
                    heads[role.name] = source.xhat[..., None, :]

        q, k = heads[self._q.name], heads[self._k.name]
        v = stored[..., None, :] if recall else heads[self._v.name]
        if self.normalize_hopfield_space:
            q, k = self._hopfield_norm(self._q, q, tape), self._hopfield_norm(self._k, k, tape)
        if q.shape[-2] != H:
            q = np.repeat(q, H, axis=-2)
        if tape.appended:
            k = self._append(k, self._bias_k, tape)
            v = self._append(v, None if recall else self._bias_v, tape)
            if offsets is not None:
                tape.offsets = offsets + tape.appended * np.arange(samples + 1)
        tape.padded = None
        if ragged_state:
            sizes = offsets[1:] - offsets[:-1]
            sample = np.repeat(np.arange(samples), sizes)
            tape.padded = sample, np.arange(len(stored)) - offsets[sample]
            padded = np.zeros((samples, queries, *q.shape[1:]), q.dtype)
            padded[tape.padded] = q
            q = padded

        dropout = self.dropout if train else 0.0
        tape.out, tape.saved = associate_forward(
            q,
            k,
            v,
            self.scaling,
            separation=self._separation,
            update_steps_max=MOST_STEPS if steps is None else steps,
            update_steps_eps=self.update_steps_eps,
            padding_mask=padding,
            mask=mask,
            offsets=tape.offsets,
            dropout=dropout,
            seed=int(self._random.integers(2**62)) if dropout else 0,
            gradient=self.gradient,
            key_projection=projections.get(self._k.name),
            value_projection=projections.get(self._v.name),
        )
        if recall:
            return tape
        out = tape.out if tape.padded is None else tape.out[tape.padded]
        tape.flat = out = out.reshape(*out.shape[:-2], -1)
        if self._out_weight is not None:
            out = dense.linear(out, self._out_weight.value, None if self._out_bias is None else self._out_bias.value)
        if self.association_activation is not None:
            out = ACTIVATIONS[self.association_activation][0](out)
        if not np.isfinite(out.sum()):
            for role, x in roles:
                if not np.isfinite(x).all():
                    raise ValueError(f"{role.name.replace('_', ' ')}: must be finite in {self.dtype}")
        tape.result = out if self.batch_first else np.ascontiguousarray(out.swapaxes(0, 1))
        tape.query_grad = tape.out_grad = None
        return tape

    def _append(self, rows: Array, bias: Parameter | None, tape: Tape) -> Array:
        """The bias pattern and the zero pattern behind the rows of every bag."""
        heads, width = rows.shape[-2:]
        more = np.zeros((tape.appended, heads, width), rows.dtype)
        if bias is not None:
            more[0] = bias.value.reshape(heads, width)
        if rows.ndim == 4:
            return np.concatenate([rows, np.broadcast_to(more, (len(rows), *more.shape))], axis=1)
        if tape.offsets is None:
            return np.concatenate([rows, more])
        ends = tape.offsets[1:]
        return np.insert(rows, np.repeat(ends, tape.appended), np.tile(more, (len(ends), 1, 1)), axis=0)

    def _appended(self, drows: Array, bias: Parameter | None, tape: Tape) -> Array:
        """The gradient of `_append` in the rows; that of the bias pattern goes to it."""
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

    def _back(
        self, tape: Tape, grad: Array, need_stored: bool, need_state: bool, need_projection: bool
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Parameters' gradients, and those of (stored, state, projection) where needed.

        An array that came in more than once has its gradient at the first place.
        """
        if not self.batch_first:
            grad = grad.swapaxes(0, 1)
        if self.association_activation is not None:
            result = tape.result if self.batch_first else tape.result.swapaxes(0, 1)
            grad = grad * ACTIVATIONS[self.association_activation][1](result)
        grad = np.ascontiguousarray(grad)
        if self._out_weight is not None:
            dflat, dweight, dbias = dense.linear_backward(tape.flat, self._out_weight.value, grad)
            assert dflat is not None
            self._out_weight.add(dweight)
            if self._out_bias is not None:
                self._out_bias.add(dbias)
            grad = dflat
        if tape.padded is None:
            grad = grad.reshape(tape.out.shape)
        else:
            padded = np.zeros_like(tape.out)
            padded[tape.padded] = grad.reshape(-1, *tape.out.shape[2:])
            grad = padded

        needed = {self._k.name: need_stored, self._q.name: need_state, self._v.name: need_projection}
        need_rows = any(
            needed[r.name] or (r.projected and r.name not in tape.inside) or (r.gain is not None and not r.projected)
            for r in (self._k, self._v)
        )
        dq, dk, dv, dbeta, *dprojections = associate_backward(tape.saved, grad, need_rows=need_rows)
        tape.query_grad, tape.out_grad = dq, grad
        if self._log_scaling is not None:
            self._log_scaling.add((dbeta * self.scaling).astype(self.dtype))
        if tape.padded is not None:
            dq = dq[tape.padded]
        if not self._q.projected:
            dq = dq.sum(axis=-2, keepdims=True)
        if tape.appended and need_rows:
            dk, dv = self._appended(dk, self._bias_k, tape), self._appended(dv, self._bias_v, tape)
        if self.normalize_hopfield_space:
            dq, dk = (
                self._hopfield_norm_backward(self._q, dq, tape),
                self._hopfield_norm_backward(self._k, dk, tape) if need_rows else None,
            )
        dheads = {self._q.name: dq, self._k.name: dk, self._v.name: dv}
        for source in tape.sources:
            source.grad = None
        grads: dict[int, tuple[Parameter, Array]] = {}
        for source, group, weight in tape.grouped:
            parts = [dheads[role.name].reshape(*source.xhat.shape[:-1], self.num_heads * role.width) for role in group]
            dy = np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts, axis=-1)
            dx, dweight, dbias = dense.linear_backward(source.xhat, weight, dy, any(needed[r.name] for r in group))
            at = 0
            for role, part in zip(group, parts, strict=True):
                end = at + part.shape[-1]
                self._credit(role, dweight[at:end], dbias[at:end], grads)
                at = end
            source.gather(dx)
        for source in tape.sources:
            for role in source.roles:
                if not role.projected:
                    source.gather(self._static_backward(role, source.xhat, dheads[role.name], needed[role.name]))
                elif role.name in tape.inside:
                    dprojection = dprojections[0 if role is self._k else 1]
                    self._credit(role, dprojection.weight.reshape(-1, role.size), dprojection.bias.reshape(-1), grads)
                    source.gather(dheads[role.name][..., 0, :] if needed[role.name] else None)
        for parameter, g in grads.values():
            parameter.add(g)
        return self._input_grads(tape)

    def _static_backward(self, role: _Role, xhat: Array, dhead: Array | None, needed: bool) -> Array | None:
        """The gradient of `_static`."""
        if dhead is None:
            return None
        d = dhead[..., 0, :]
        if role.gain is not None and role.shift is not None:
            axes = tuple(range(d.ndim - 1))
            role.gain.add((d * xhat).sum(axis=axes))
            role.shift.add(d.sum(axis=axes))
            d = d * role.gain.value
        return d if needed else None

    def _hopfield_norm_backward(self, role: _Role, dy: Array, tape: Tape) -> Array:
        """The gradient of `_hopfield_norm`."""
        xhat, rstd = tape.hopfield_norms[role.name]
        if self._hopfield_gain is not None and self._hopfield_shift is not None:
            axes = tuple(range(dy.ndim - 1))
            self._hopfield_gain.add((dy * xhat).sum(axis=axes))
            self._hopfield_shift.add(dy.sum(axis=axes))
            dy = dy * self._hopfield_gain.value
        return dense.normalize_backward(xhat, rstd, dy)

    def _input_grads(self, tape: Tape) -> tuple[Array | None, Array | None, Array | None]:
        """The sources' gradients, through their normalisations, at the first places of their arrays."""
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


def _put(grads: dict[int, tuple[Parameter, Array]], where: tuple[Parameter, slice], grad: Array) -> None:
    """Add a gradient to some rows of a parameter's; a backward pass collects them here, and hands them over whole."""
    parameter, rows = where
    if id(parameter) not in grads:
        if len(grad) == len(parameter.value):
            grads[id(parameter)] = parameter, grad
            return
        grads[id(parameter)] = parameter, np.zeros_like(parameter.value)
    grads[id(parameter)][1][rows] += grad


class SparseHopfield(Hopfield):
    """`Hopfield` with the sparsemax association of the main paper (Hu et al. 2023, section 4).

    Examples
    --------
    >>> SparseHopfield(4, random_state=0).separation
    'sparsemax'
    """

    _default_separation = "sparsemax"
