"""Hopfield layers as modules of PyTorch, with hflayers' arguments, parameters and outputs.

Letters: B samples; N state patterns and M stored patterns of each; H heads; e features of the inputs, d features of a
head in the association space, p of its projected patterns.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from sparsehopfield._engine.checks import as_whole, check_parameter
from sparsehopfield._engine.docstrings import with_sections
from sparsehopfield._engine.separations import separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield._engine.text import short
from sparsehopfield.layers._inputs import INPUTS
from sparsehopfield.layers._options import Delegated, HopfieldOptions
from sparsehopfield.layers._spec import CORE, ORDER, HopfieldSpec, as_scaling
from sparsehopfield.torch import _layer
from sparsehopfield.torch._arguments import as_dense
from sparsehopfield.torch._backend import as_backend

__all__ = [
    "Hopfield",
    "HopfieldLayer",
    "HopfieldPooling",
    "SparseHopfield",
    "SparseHopfieldLayer",
    "SparseHopfieldPooling",
]

STD = 0.02  # of the normal numbers that weights begin with, as in hflayers
SIZES = ("input_size", "hidden_size", "output_size", "pattern_size", "num_heads")
# of the association core itself: its out_proj is a module, which comes last
CORE_NAMES = tuple(name.removeprefix(CORE) for name in ORDER if name.startswith(CORE) and "out_proj" not in name)
CORE_PREFIXED = {name: CORE + name for name in CORE_NAMES}
OUT_NAMES = tuple((name, f"{CORE}out_proj.{name}") for name in ("weight", "bias"))
NORM_PREFIXED = {name: f"norm_{name}" for name in INPUTS}
INNER_NAMES = (
    ("out_proj", OUT_NAMES),
    *((name, tuple((part, f"{norm}.{part}") for part in ("weight", "bias"))) for name, norm in NORM_PREFIXED.items()),
)
Inputs = Tensor | list[Tensor] | tuple[Tensor | list[Tensor], ...]


class AssociationCore(nn.Module):
    """The parameters of the association, by hflayers' names; those that a layer does not have are None.

    Called, it returns them, so that hooks that make a parameter before each use (pruning, weight normalisation) run.
    """

    out_proj: nn.Linear | None

    def __init__(self, spec: HopfieldSpec, factory: Mapping[str, Any]) -> None:
        super().__init__()
        for name in CORE_NAMES:
            shape = spec.shapes.get(CORE + name)
            self.register_parameter(name, None if shape is None else nn.Parameter(torch.empty(shape, **factory)))
        out_shape = spec.shapes.get(f"{CORE}out_proj.weight")
        out_proj = None
        if out_shape is not None:
            has_bias = f"{CORE}out_proj.bias" in spec.shapes
            out_proj = nn.Linear(out_shape[1], out_shape[0], bias=has_bias, **factory)
        self.register_module("out_proj", out_proj)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin anew, with the draws that hflayers makes."""
        for name in CORE_NAMES[:-2]:
            parameter = getattr(self, name)
            if parameter is None:
                continue
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name == "p_norm_weight":
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, mean=0.0, std=STD)
        if self.out_proj is not None:
            nn.init.normal_(self.out_proj.weight, mean=0.0, std=STD)
            if self.out_proj.bias is not None:
                nn.init.zeros_(self.out_proj.bias)
        for name in CORE_NAMES[-2:]:
            if getattr(self, name) is not None:
                nn.init.normal_(getattr(self, name), mean=0.0, std=STD)

    def forward(self) -> dict[str, Tensor | None]:
        """Return the parameters of this module itself."""
        return {name: getattr(self, name) for name in CORE_NAMES}


# dictionaries that torch fills; only newer releases have a function that asks them
GLOBAL_HOOKS = (_global_backward_hooks, _global_backward_pre_hooks, _global_forward_hooks, _global_forward_pre_hooks)
NOT_CALLED = (AssociationCore, nn.Linear, nn.LayerNorm)  # what these do is done without them, but for their hooks


class Hopfield(HopfieldOptions, nn.Module):
    """The Hopfield association as a module: state patterns move to mixtures of stored patterns, and pattern projections
    are mixed by the last association.

    Arguments, their order and their defaults are those of hflayers, as are the parameters: checkpoints and optimisers'
    states load either way, and one seed of torch gives both the same weights. The keyword-only arguments at the end are
    this package's own.

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
    num_heads : int, at least 1
        Heads of the association.
    scaling : float, or Tensor or array_like of shape (num_heads,), optional
        The inverse temperature beta, positive; 1 / sqrt(hidden_size) by default. May be changed later.
    update_steps_max : int or None
        How many updates follow the first association; negative or None: until every query rests.
    update_steps_eps : float, positive
        A query rests when its association moves by at most this, in the Euclidean norm.
    normalize_stored_pattern, normalize_stored_pattern_affine, normalize_stored_pattern_eps : bool, bool and float
        Whether stored patterns pass a layer normalisation first; whether that has gain and shift, which are learned
        (without the normalisation this must be False); and what it adds to the variance.
    normalize_state_pattern, normalize_state_pattern_affine, normalize_state_pattern_eps : bool, bool and float
        The same of state patterns.
    normalize_pattern_projection, normalize_pattern_projection_affine : bool
        The same of pattern projections.
    normalize_pattern_projection_eps : float, positive
        What the normalisation of pattern projections adds to the variance.
    normalize_hopfield_space, normalize_hopfield_space_affine, normalize_hopfield_space_eps : bool, bool and float
        The same of state and stored patterns in the association space, by one normalisation for both and all heads.
    stored_pattern_as_static, state_pattern_as_static, pattern_projection_as_static : bool
        Whether these inputs are already in the association space, that is, not projected. All heads share them.
    pattern_projection_as_connected : bool
        Whether pattern projections pass the stored patterns' projection before their own.
    stored_pattern_size, pattern_projection_size : int, optional
        Features of these inputs; `input_size` by default.
    batch_first : bool
        Whether samples are the first axis of inputs and output, or the second.
    association_activation : {"relu", "tanh", "sigmoid"}, optional
        A function that is applied to the output.
    dropout : float from 0 to below 1
        Rate at which weights of the last association are dropped in training.
    input_bias : bool
        Whether projections have a bias.
    concat_bias_pattern : bool
        Whether to append a learned stored pattern and pattern projection in the association space.
    add_zero_association : bool
        Whether to append a stored pattern and a pattern projection of zeros.
    disable_out_projection : bool
        Whether to return the heads' mixtures side by side, (B, N, num_heads * p), instead of a projection of them.
    separation : {"softmax", "sparsemax", "entmax15"}, Entmax, Normmax or Polynomial, optional
        The separation map; softmax here, sparsemax in the `Sparse...` twins. May be changed later.
    structure : Structure, optional
        The stored patterns that a state pattern attends to (`sparsehopfield.structures`); all by default. State pattern
        n of every bag is query n. Each sees the appended patterns, too, and `TopK` chooses its k best among all; a k
        beyond these means all. May be changed later.
    gradient : {"unrolled", "implicit"}
        Whether it goes through all updates, or is that of the fixed point that they reach.
    learnable_scaling : bool
        Whether beta is learned, one a head, by its logarithm: parameter `log_scaling`.
    backend : {"core", "torch"}, optional
        What computes the association: the C core, on the CPU alone, or plain torch. By default the core where it can.
    device, dtype : torch.device and torch.dtype, optional
        Of the parameters, as in all modules of torch.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.SparseHopfield : The same with sparsemax.
    sparsehopfield.torch.HopfieldPooling : A module with learned state patterns, which makes a vector of each bag.
    sparsehopfield.torch.associate : The association alone, as a function of tensors.

    Notes
    -----
    Half precision and bfloat16 are computed in float32 and returned in kind. In eager calls on the CPU the whole layer
    is one autograd function; a compiler, another device, forward mode, a second derivative and a mask that requires
    grad take it by its parts, with the same results to rounding. So do inner modules, normalisations or the output
    projection, that have hooks, were replaced or given a `forward` of their own: these are called. The association core
    is called, too, if it has forward hooks; it returns its parameters, and its backward hooks see nothing.

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
    >>> import torch
    >>> layer = Hopfield(4, num_heads=2)
    >>> layer(torch.ones(3, 5, 4)).shape
    torch.Size([3, 5, 4])
    >>> stored, state = torch.ones(3, 7, 4), torch.ones(3, 5, 4)
    >>> layer((stored, state, stored)).shape
    torch.Size([3, 5, 4])
    """

    _part = "_spec"
    association_core: AssociationCore
    norm_stored_pattern: nn.LayerNorm | None
    norm_state_pattern: nn.LayerNorm | None
    norm_pattern_projection: nn.LayerNorm | None
    log_scaling: nn.Parameter | None

    def __init__(
        self,
        input_size: int | None = None,
        hidden_size: int | None = None,
        output_size: int | None = None,
        pattern_size: int | None = None,
        num_heads: int = 1,
        scaling: Any = None,
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
        backend: str | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        factory = {"device": options.pop("device"), "dtype": options.pop("dtype")}
        self._spec = spec = HopfieldSpec(**options, initial_std=STD)
        self.backend = backend
        self.separation = self._default_separation if separation is None else separation
        self.structure = structure
        for name, shape in spec.shapes.items():
            check_parameter(name, shape, options)
        self.association_core = AssociationCore(spec, factory)
        for name in INPUTS:
            self.register_module(f"norm_{name}", self._norm(name, options, factory))
        self.register_parameter(
            "log_scaling", nn.Parameter(torch.empty(spec.num_heads, **factory)) if learnable_scaling else None
        )
        self._scaling: float | tuple[float, ...] = 1.0
        self.scaling = spec.default_scaling if scaling is None else scaling
        self.reset_parameters()

    def _norm(self, name: str, options: Mapping[str, Any], factory: Mapping[str, Any]) -> nn.LayerNorm | None:
        """Make the layer normalisation of an input, if it has one."""
        if not options[f"normalize_{name}"]:
            return None
        role = {role.name: role for role in (self._spec.query, self._spec.key, self._spec.value)}[name]
        assert role.size is not None
        assert role.eps is not None
        return nn.LayerNorm(role.size, role.eps, options[f"normalize_{name}_affine"], **factory)

    def reset_parameters(self) -> None:
        """Begin anew: draw the weights from torch's generator, as hflayers draws them.

        See Also
        --------
        torch.nn.Module.load_state_dict : Set weights that are given.

        Examples
        --------
        >>> import torch
        >>> layer = Hopfield(4)
        >>> _ = torch.manual_seed(0)
        >>> layer.reset_parameters()
        >>> before = layer.association_core.in_proj_weight.clone()
        >>> _ = torch.manual_seed(0)
        >>> layer.reset_parameters()
        >>> torch.equal(before, layer.association_core.in_proj_weight)
        True
        """
        for module in self.children():
            module.reset_parameters()  # type: ignore[operator]
        if self.log_scaling is not None:
            self.scaling = self._scaling

    # --- options and sizes -----------------------------------------------------------------------

    @property
    def scaling(self) -> float | Tensor:
        """Return beta, a number or one for each head."""
        if self.log_scaling is not None:
            return self.log_scaling.detach().double().exp()
        if isinstance(self._scaling, tuple):
            return torch.tensor(self._scaling, dtype=torch.float64, device="cpu")
        return self._scaling

    @scaling.setter
    def scaling(self, scaling: Any) -> None:
        if isinstance(scaling, Tensor):
            if scaling.requires_grad:
                raise ValueError("scaling: is no parameter; use learnable_scaling=True to have it learned")
            scaling = scaling.double().numpy(force=True)
        b = as_scaling(scaling, self._spec.num_heads, np.dtype(np.float32))
        self._scaling = b if isinstance(b, float) else tuple(b.tolist())
        if self.log_scaling is not None:
            with torch.no_grad():
                self.log_scaling.copy_(torch.from_numpy(np.log(np.atleast_1d(b))))

    @property
    def separation(self) -> Any:
        """Return the separation map, which turns scores into weights."""
        return self._separation

    @separation.setter
    def separation(self, separation: Any) -> None:
        separation_code(separation)
        self._separation = separation

    @property
    def structure(self) -> Structure | None:
        """Return the structure, which says to which stored patterns a state pattern attends; None: all."""
        return self._structure

    @structure.setter
    def structure(self, structure: Structure | None) -> None:
        self._structure = as_structure(structure)

    @property
    def backend(self) -> str | None:
        """Return what computes the association: "core", "torch", or None for the core where it can."""
        return self._backend

    @backend.setter
    def backend(self, backend: str | None) -> None:
        self._backend = as_backend(backend)

    def extra_repr(self) -> str:
        """Return the sizes, the separation, and what else is not as by default, for `repr`.

        Returns
        -------
        str
            The options by name.

        See Also
        --------
        torch.nn.Module.extra_repr : Say what `repr` makes of it.

        Examples
        --------
        >>> Hopfield(4, dropout=0.1).extra_repr()
        "input_size=4, hidden_size=4, output_size=4, pattern_size=4, num_heads=1, dropout=0.1, separation='softmax'"
        """
        shown = {name: getattr(self, name) for name in SIZES if getattr(self, name) is not None}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name, getattr(self._spec, name, default))
            if name == "scaling":
                value, default = self._scaling, self._spec.default_scaling
            if name not in SIZES and (type(value) is not type(default) or value != default):
                shown[name] = value
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    # --- computing --------------------------------------------------------------------------------

    def forward(
        self,
        input: Inputs,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        *,
        offsets: Any = None,
    ) -> Tensor:
        """Compute the layer's output.

        Parameters
        ----------
        input : Tensor, or tuple of three
            One tensor in all three roles, or (stored pattern, state pattern, pattern projection), shaped (B, M, e),
            (B, N, e), (B, M, e); in a tuple, a tensor of two axes is shared by all samples, and never copied for them.
            Any of B, N and M may be 0. Ragged bags: lists of one (M_i, e) tensor a bag, or tensors (R, e) of all rows
            with `offsets`; state patterns are then (B, N, e), or (N, e) for all, or the very tensor of the stored
            patterns.
        stored_pattern_padding_mask : Tensor of bool, shape (B, M), optional
            True where a stored pattern is none.
        association_mask : Tensor, shape (N, M), (B, N, M), (B, H, N, M) or (B * H, N, M), optional
            Of bool, True where a state pattern must not attend to a stored one, as in hflayers; or numbers added to the
            scores. M is the largest bag's size where bags are ragged.
        offsets : Tensor or array_like of int, shape (B + 1,), optional
            Bag b has rows offsets[b] to offsets[b + 1].

        Returns
        -------
        Tensor of shape (B, N, output_size)
            (R, output_size) where the state patterns are ragged.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.torch.Hopfield.get_association_matrix : Compute the weights by which the output is mixed.
        sparsehopfield.torch.hopfield_attention : Compute attention by an association, without projections.

        Examples
        --------
        >>> import torch
        >>> layer = Hopfield(4)
        >>> layer([torch.ones(7, 4), torch.ones(2, 4)]).shape  # two bags, each associated with itself
        torch.Size([9, 4])
        >>> queries = torch.ones(1, 4)  # of two axes: shared by all bags
        >>> layer((torch.ones(2, 7, 4), queries, torch.ones(2, 7, 4))).shape
        torch.Size([2, 1, 4])
        """
        return _layer.run(self._call(self.training, input, stored_pattern_padding_mask, association_mask, offsets))

    def get_association_matrix(
        self,
        input: Inputs,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        *,
        offsets: Any = None,
    ) -> Tensor:
        """Compute the weights of the last association, without gradient and dropout.

        Parameters
        ----------
        input : Tensor, list of Tensor, or tuple
            As of `forward`.
        stored_pattern_padding_mask, association_mask, offsets : Tensor, optional
            As of `forward`.

        Returns
        -------
        Tensor of shape (B, H, N, M)
            M is the largest bag's size where bags are ragged, with the appended patterns behind each bag's own. Ragged
            state patterns are padded to the longest bag, with rows of zeros.

        See Also
        --------
        sparsehopfield.torch.Hopfield.get_projected_pattern_matrix : Compute what these weights mix.

        Examples
        --------
        >>> import torch
        >>> SparseHopfield(4).get_association_matrix(torch.ones(2, 5, 4)).shape
        torch.Size([2, 1, 5, 5])
        """
        with torch.no_grad():
            call = self._call(False, input, stored_pattern_padding_mask, association_mask, offsets)
            return _layer.association_matrix(call)

    def get_projected_pattern_matrix(
        self,
        input: Inputs,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        *,
        offsets: Any = None,
    ) -> Tensor:
        """Compute the projected patterns, which the association mixes, appended ones behind them, without gradient.

        Parameters
        ----------
        input : Tensor, list of Tensor, or tuple
            As of `forward`.
        stored_pattern_padding_mask, association_mask : Tensor, optional
            As of `forward`; without effect here.
        offsets : Tensor or array_like of int, optional
            As of `forward`.

        Returns
        -------
        Tensor of shape (B, H, M, p), or (H, R, p) for ragged bags
            The projected patterns of samples and heads.

        See Also
        --------
        sparsehopfield.torch.Hopfield.get_association_matrix : Compute the weights by which they are mixed.

        Examples
        --------
        >>> import torch
        >>> Hopfield(4, num_heads=2).get_projected_pattern_matrix(torch.ones(3, 5, 4)).shape
        torch.Size([3, 2, 5, 2])
        """
        with torch.no_grad():
            call = self._call(False, input, stored_pattern_padding_mask, association_mask, offsets)
            return _layer.projected_patterns(call)

    def _call(self, training: bool, input: Any, padding: Any, mask: Any, offsets: Any) -> _layer.Call:
        """Return a call of this layer, its inputs as tensors."""
        inputs, offsets = _layer.as_tensors(input, offsets)
        for name, given in (("stored_pattern_padding_mask", padding), ("association_mask", mask)):
            if given is not None:
                as_dense(name, given)
        spec, dropout = self._spec, self._spec.dropout if training else 0.0
        settings = _layer.Settings(spec, self._scaling, self._separation, self._structure, dropout, self._backend)
        return _layer.Call(settings, *self._parts(), inputs, _layer.SideInputs(padding, mask, offsets, None))

    def _parts(self) -> tuple[dict[str, Tensor], dict[str, nn.Module]]:
        """Return the parameters by name, as they are now, and the inner modules that have hooks or were replaced, so
        that they have to be called.
        """
        modules, unusual, watched = self._modules, {}, any(map(len, GLOBAL_HOOKS))
        core = modules["association_core"]
        assert core is not None
        own = core._parameters if _is_plain(core) else core()
        if own is core._parameters and own.keys() != CORE_PREFIXED.keys():
            own = {name: _own(core, name) for name in CORE_NAMES}
        found = {CORE_PREFIXED[name]: value for name, value in own.items() if value is not None}
        for role, names in INNER_NAMES:
            module = core._modules[role] if role == "out_proj" else modules[NORM_PREFIXED[role]]
            if module is None:
                continue
            if watched or not _is_plain(module):
                unusual[role] = module
            for name, full_name in names:
                value = _own(module, name)
                if value is not None:
                    found[full_name] = value
        log_scaling = _own(self, "log_scaling")
        if log_scaling is not None:
            found["log_scaling"] = log_scaling
        return found, unusual


_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(Hopfield).parameters.items()}


def _own(module: nn.Module, name: str) -> Tensor | None:
    """Return a parameter of a module, where modules keep it, or an attribute: so replicas of nn.DataParallel have it,
    and whatever makes it from others.
    """
    own = module._parameters
    return own[name] if name in own else getattr(module, name, None)


def _is_plain(module: nn.Module) -> bool:
    """Return whether calling a module does what its type says, and nothing else."""
    hooked = module._forward_pre_hooks or module._forward_hooks or module._backward_pre_hooks or module._backward_hooks
    return not hooked and type(module) in NOT_CALLED and "forward" not in module.__dict__


@with_sections(Hopfield, "Parameters")
class SparseHopfield(Hopfield):
    """`Hopfield` with the sparsemax association of the main paper (Hu et al. 2023, section 4).

    See Also
    --------
    sparsehopfield.torch.Hopfield : The same with softmax.
    sparsehopfield.torch.SparseHopfieldPooling : A module with learned state patterns, which makes a vector of each bag.

    Examples
    --------
    >>> import torch
    >>> layer = SparseHopfield(4)
    >>> layer.separation, layer(torch.ones(3, 5, 4)).shape
    ('sparsemax', torch.Size([3, 5, 4]))
    """

    _default_separation = "sparsemax"


class _WithLearnedPatterns(HopfieldOptions, nn.Module):
    """A Hopfield layer, some of whose inputs are learned patterns."""

    _part = "hopfield"
    hopfield: Hopfield

    scaling = Delegated()
    separation = Delegated()
    structure = Delegated()
    backend = Delegated()

    def __init__(self, given: dict[str, Any]) -> None:
        """Make the Hopfield layer from the arguments given by name, its own among others; "options" has more."""
        super().__init__()
        self.quantity = as_whole("quantity", given["quantity"], least=1)
        options = given["options"] | {name: value for name, value in given.items() if name in _DEFAULTS}
        if options.get("separation") is None:
            options["separation"] = self._default_separation
        self._factory = {name: options.get(name) for name in ("device", "dtype")}
        self.hopfield = Hopfield(**options)

    def _learned(self, name: str, shape: tuple[int, ...] | None, trainable: bool) -> None:
        """Register learned patterns, if there are any."""
        if shape is not None:
            check_parameter(name, shape, {"quantity": self.quantity, "input_size": shape[-1]})
        pattern = None if shape is None else nn.Parameter(torch.empty(shape, **self._factory), bool(trainable))
        self.register_parameter(name, pattern)

    def reset_parameters(self) -> None:
        """Begin anew: draw weights and learned patterns from torch's generator, as hflayers draws them.

        See Also
        --------
        torch.nn.Module.load_state_dict : Set weights that are given.

        Examples
        --------
        >>> import torch
        >>> pooling = HopfieldPooling(4)
        >>> before = pooling.pooling_weights.clone()
        >>> pooling.reset_parameters()
        >>> torch.equal(before, pooling.pooling_weights)
        False
        """
        self.hopfield.reset_parameters()
        for pattern in self._parameters.values():
            if pattern is not None:
                nn.init.normal_(pattern, mean=0.0, std=STD)

    def extra_repr(self) -> str:
        """Return how many patterns are learned, for `repr`.

        Returns
        -------
        str
            The number by its name.

        See Also
        --------
        torch.nn.Module.extra_repr : Say what `repr` makes of it.

        Examples
        --------
        >>> HopfieldLayer(4, quantity=7).extra_repr()
        'quantity=7'
        """
        return f"quantity={self.quantity}"

    def _complete(self, input: Any) -> Inputs:
        """Return the tuple for the Hopfield layer. Learned patterns have two axes, so that all samples share them."""
        raise NotImplementedError

    def forward(
        self,
        input: Inputs,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        *,
        offsets: Any = None,
    ) -> Tensor:
        """Compute what `Hopfield.forward` does, from this layer's input."""
        completed = self._complete(input)
        return self.hopfield(completed, stored_pattern_padding_mask, association_mask, offsets=offsets)

    @with_sections(Hopfield.get_association_matrix, "Parameters", "Returns")
    def get_association_matrix(
        self,
        input: Inputs,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        *,
        offsets: Any = None,
    ) -> Tensor:
        """Compute `Hopfield.get_association_matrix` from this layer's input.

        See Also
        --------
        sparsehopfield.torch.Hopfield.get_association_matrix : Compute it without learned patterns.

        Examples
        --------
        >>> import torch
        >>> SparseHopfieldPooling(4).get_association_matrix(torch.ones(3, 5, 4)).shape
        torch.Size([3, 1, 1, 5])
        """
        return self.hopfield.get_association_matrix(
            self._complete(input), stored_pattern_padding_mask, association_mask, offsets=offsets
        )

    @with_sections(Hopfield.get_projected_pattern_matrix, "Parameters", "Returns")
    def get_projected_pattern_matrix(
        self,
        input: Inputs,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        *,
        offsets: Any = None,
    ) -> Tensor:
        """Compute `Hopfield.get_projected_pattern_matrix` from this layer's input.

        See Also
        --------
        sparsehopfield.torch.Hopfield.get_projected_pattern_matrix : Compute it without learned patterns.

        Examples
        --------
        >>> import torch
        >>> SparseHopfieldPooling(4).get_projected_pattern_matrix(torch.ones(3, 5, 4)).shape
        torch.Size([3, 1, 5, 4])
        """
        return self.hopfield.get_projected_pattern_matrix(
            self._complete(input), stored_pattern_padding_mask, association_mask, offsets=offsets
        )


class HopfieldPooling(_WithLearnedPatterns):
    """Bags to vectors: learned state patterns attend to the instances of every bag.

    Arguments, parameters and outputs are those of hflayers.

    Parameters
    ----------
    input_size, hidden_size, output_size, pattern_size, num_heads : int, optional but the first
        As of `Hopfield`, as are the other arguments whose meaning is not stated.
    scaling, update_steps_max, update_steps_eps : float or Tensor, int and float, optional
        As of `Hopfield`.
    normalize_stored_pattern, normalize_stored_pattern_affine : bool
        As of `Hopfield`.
    normalize_state_pattern, normalize_state_pattern_affine : bool
        As of `Hopfield`.
    normalize_pattern_projection, normalize_pattern_projection_affine : bool
        As of `Hopfield`.
    normalize_hopfield_space, normalize_hopfield_space_affine : bool
        As of `Hopfield`.
    stored_pattern_as_static, state_pattern_as_static, pattern_projection_as_static : bool
        As of `Hopfield`.
    pattern_projection_as_connected : bool
        As of `Hopfield`.
    stored_pattern_size, pattern_projection_size : int, optional
        As of `Hopfield`.
    batch_first, association_activation, dropout, input_bias : bool, str, float and bool, optional
        As of `Hopfield`.
    concat_bias_pattern, add_zero_association, disable_out_projection : bool
        As of `Hopfield`.
    quantity : int, at least 1
        How many state patterns there are, each of which gives `output_size` features.
    trainable : bool
        Whether the state patterns are learned.
    **options
        The keyword-only arguments of `Hopfield`, and its three `normalize_..._eps` of inputs.

    See Also
    --------
    sparsehopfield.torch.SparseHopfieldPooling : The same with sparsemax.
    sparsehopfield.torch.Hopfield : The module inside, which says what the other arguments are.
    sparsehopfield.layers.HopfieldPooling : The same without PyTorch.

    Notes
    -----
    `forward` takes one tensor of bags (B, M, e), or (stored pattern, pattern projection), or ragged bags as `Hopfield`
    does, and returns (B, quantity * output_size); with `batch_first=False` what hflayers returns, (quantity,
    B * output_size). Rows (M, e) are one bag, B = 1, where hflayers raises an IndexError. For an empty or fully
    masked bag see `Hopfield`.

    Examples
    --------
    >>> import torch
    >>> pooling = HopfieldPooling(4, hidden_size=8, num_heads=2, output_size=3)
    >>> pooling(torch.ones(5, 10, 4)).shape
    torch.Size([5, 3])
    >>> pooling(torch.ones((10, 4))).shape  # one bag
    torch.Size([1, 3])
    >>> pooling([torch.ones(7, 4), torch.ones(2, 4)]).shape
    torch.Size([2, 3])
    """

    pooling_weights: nn.Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        output_size: int | None = None,
        pattern_size: int | None = None,
        num_heads: int = 1,
        scaling: Any = None,
        update_steps_max: int | None = 0,
        update_steps_eps: float = 1e-4,
        normalize_stored_pattern: bool = True,
        normalize_stored_pattern_affine: bool = True,
        normalize_state_pattern: bool = True,
        normalize_state_pattern_affine: bool = True,
        normalize_pattern_projection: bool = True,
        normalize_pattern_projection_affine: bool = True,
        normalize_hopfield_space: bool = False,
        normalize_hopfield_space_affine: bool = False,
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
        quantity: int = 1,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(locals())
        shape = self.hopfield._spec.pooling_shapes(self.quantity)["pooling_weights"]
        self._learned("pooling_weights", shape, trainable)
        self.reset_parameters()

    def _complete(self, input: Any) -> Inputs:
        state = self.pooling_weights.flatten(0, 1)
        if isinstance(input, tuple):
            if len(input) != 2:
                raise ValueError(
                    f"input: must be one tensor or a tuple (stored pattern, pattern projection), got {len(input)}"
                )
            return input[0], state, input[1]
        return input, state, input

    def forward(
        self,
        input: Inputs,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        *,
        offsets: Any = None,
    ) -> Tensor:
        """Pool each bag to one vector.

        Parameters
        ----------
        input : Tensor, list of Tensor, or tuple of two
            Bags (B, M, e), one bag (M, e), or ragged bags: a list of one (M_i, e) tensor a bag, or all rows (R, e) with
            `offsets`. A tuple is (stored pattern, pattern projection).
        stored_pattern_padding_mask : Tensor of bool, shape (B, M), optional
            True where a row of a bag is none.
        association_mask : Tensor, shape (quantity, M) or as of `Hopfield.forward`, optional
            Of bool, True where a state pattern must not attend to a row; or numbers added to the scores.
        offsets : Tensor or array_like of int, shape (B + 1,), optional
            Bag b has rows offsets[b] to offsets[b + 1].

        Returns
        -------
        Tensor of shape (B, quantity * output_size)
            What each of the state patterns makes of a bag, one after another; (quantity, B * output_size) unless
            `batch_first`.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.torch.Hopfield.forward : Do the same with state patterns that are given.

        Examples
        --------
        >>> import torch
        >>> pooling = HopfieldPooling(4, quantity=2)
        >>> padding = torch.zeros(3, 6, dtype=torch.bool)
        >>> padding[:, 5:] = True  # the last row of each bag is none
        >>> pooling(torch.ones(3, 6, 4), padding).shape
        torch.Size([3, 8])
        """
        pooled = super().forward(input, stored_pattern_padding_mask, association_mask, offsets=offsets)
        return pooled.flatten(start_dim=1)


@with_sections(HopfieldPooling, "Parameters")
class SparseHopfieldPooling(HopfieldPooling):
    """`HopfieldPooling` with the sparsemax association of the main paper (Hu et al. 2023, section 4).

    See Also
    --------
    sparsehopfield.torch.HopfieldPooling : The same with softmax.
    sparsehopfield.estimators.HopfieldMILClassifier : A classifier of bags, without PyTorch.

    Examples
    --------
    >>> import torch
    >>> pooling = SparseHopfieldPooling(4)
    >>> pooling.separation, pooling(torch.ones(5, 10, 4)).shape
    ('sparsemax', torch.Size([5, 4]))
    """

    _default_separation = "sparsemax"


class HopfieldLayer(_WithLearnedPatterns):
    """Lookup: the input's state patterns attend to learned stored patterns, which are never copied for the samples.

    Arguments, parameters and outputs are those of hflayers.

    Parameters
    ----------
    input_size, hidden_size, output_size, pattern_size, num_heads : int, optional but the first
        As of `Hopfield`, as are the other arguments whose meaning is not stated.
    scaling, update_steps_max, update_steps_eps : float or Tensor, int and float, optional
        As of `Hopfield`.
    lookup_weights_as_separated : bool
        Whether pattern projections are learned beside the stored patterns; else they are these.
    lookup_targets_as_trainable : bool
        Whether these separate pattern projections are learned.
    normalize_stored_pattern, normalize_stored_pattern_affine : bool
        As of `Hopfield`.
    normalize_state_pattern, normalize_state_pattern_affine : bool
        As of `Hopfield`.
    normalize_pattern_projection, normalize_pattern_projection_affine : bool
        As of `Hopfield`.
    normalize_hopfield_space, normalize_hopfield_space_affine : bool
        As of `Hopfield`.
    stored_pattern_as_static, state_pattern_as_static, pattern_projection_as_static : bool
        As of `Hopfield`.
    pattern_projection_as_connected : bool
        As of `Hopfield`.
    stored_pattern_size, pattern_projection_size : int, optional
        As of `Hopfield`.
    batch_first, association_activation, dropout, input_bias : bool, str, float and bool, optional
        As of `Hopfield`.
    concat_bias_pattern, add_zero_association, disable_out_projection : bool
        As of `Hopfield`.
    quantity : int, at least 1
        How many stored patterns there are.
    trainable : bool
        Whether the stored patterns are learned.
    **options
        The keyword-only arguments of `Hopfield`, and its three `normalize_..._eps` of inputs.

    See Also
    --------
    sparsehopfield.torch.SparseHopfieldLayer : The same with sparsemax.
    sparsehopfield.torch.Hopfield : The module inside, which says what the other arguments are.
    sparsehopfield.layers.HopfieldLayer : The same without PyTorch.

    Notes
    -----
    `forward` takes the state patterns (B, N, e), or (N, e) of one sample, B = 1, and returns (B, N, output_size).

    Examples
    --------
    >>> import torch
    >>> lookup = HopfieldLayer(4, quantity=100)
    >>> lookup(torch.ones(5, 1, 4)).shape
    torch.Size([5, 1, 4])
    """

    lookup_weights: nn.Parameter
    target_weights: nn.Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        output_size: int | None = None,
        pattern_size: int | None = None,
        num_heads: int = 1,
        scaling: Any = None,
        update_steps_max: int | None = 0,
        update_steps_eps: float = 1e-4,
        lookup_weights_as_separated: bool = False,
        lookup_targets_as_trainable: bool = True,
        normalize_stored_pattern: bool = True,
        normalize_stored_pattern_affine: bool = True,
        normalize_state_pattern: bool = True,
        normalize_state_pattern_affine: bool = True,
        normalize_pattern_projection: bool = True,
        normalize_pattern_projection_affine: bool = True,
        normalize_hopfield_space: bool = False,
        normalize_hopfield_space_affine: bool = False,
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
        quantity: int = 1,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(locals())
        shapes = self.hopfield._spec.lookup_shapes(self.quantity, bool(lookup_weights_as_separated))
        self._learned("lookup_weights", shapes["lookup_weights"], trainable)
        self._learned("target_weights", shapes.get("target_weights"), lookup_targets_as_trainable)
        self.reset_parameters()

    def _complete(self, input: Any) -> Inputs:
        if not isinstance(input, Tensor):
            raise TypeError(f"input: must be one tensor of state patterns, got {short(type(input).__name__)}")
        stored = self.lookup_weights.flatten(0, 1)
        return stored, input, stored if self.target_weights is None else self.target_weights.flatten(0, 1)

    def forward(
        self,
        input: Inputs,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        *,
        offsets: Any = None,
    ) -> Tensor:
        """Look up state patterns among the learned patterns.

        Parameters
        ----------
        input : Tensor of shape (B, N, e), or (N, e) of one sample
            State patterns, a row of e features each.
        stored_pattern_padding_mask : Tensor of bool, shape (B, quantity), optional
            True where a sample does not have a stored pattern.
        association_mask : Tensor, shape (N, quantity) or as of `Hopfield.forward`, optional
            Of bool, True where a state pattern must not attend to a stored one; or numbers added to the scores.
        offsets : None
            As of the other modules; here there are no ragged bags.

        Returns
        -------
        Tensor of shape (B, N, output_size)
            The mixture for each state pattern, projected.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.torch.Hopfield.forward : Do the same with stored patterns that are given.

        Examples
        --------
        >>> import torch
        >>> lookup = HopfieldLayer(4, quantity=3)
        >>> absent = torch.tensor([[False, False, True]])  # as if the last stored pattern were not there
        >>> lookup(torch.ones(1, 5, 4), absent).shape
        torch.Size([1, 5, 4])
        """
        if offsets is not None:
            raise ValueError("offsets: the stored patterns are learned, so there are no ragged bags of them")
        return super().forward(input, stored_pattern_padding_mask, association_mask)


@with_sections(HopfieldLayer, "Parameters")
class SparseHopfieldLayer(HopfieldLayer):
    """`HopfieldLayer` with the sparsemax association of the main paper (Hu et al. 2023, section 4).

    See Also
    --------
    sparsehopfield.torch.HopfieldLayer : The same with softmax.
    sparsehopfield.estimators.HopfieldPrototypeClassifier : A classifier by learned patterns, without PyTorch.

    Examples
    --------
    >>> import torch
    >>> lookup = SparseHopfieldLayer(4, quantity=100)
    >>> lookup.separation, lookup(torch.ones(5, 1, 4)).shape
    ('sparsemax', torch.Size([5, 1, 4]))
    """

    _default_separation = "sparsemax"
