"""What a Hopfield layer computes, by one of two routes that mean the same.

`by_parts` calls torch's layer normalisation and linear maps around the association: for compilers, other devices,
forward mode and second derivatives. `WholeLayer` is one autograd function around the NumPy layers' passes, for eager
calls on the CPU: there torch's own parts would take longer than the association.

Letters: B samples; N queries and M stored rows of each, R rows of all bags; H heads; e features of the inputs, d of a
head in the association space, p of its projected patterns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from sparsehopfield._engine.checks import Array, as_offsets
from sparsehopfield._engine.structure import Structure
from sparsehopfield.layers import _passes
from sparsehopfield.layers._inputs import INPUTS, NAMES, RAGGED_STATE
from sparsehopfield.layers._layout import Layout, check_mask, check_padding, check_shapes, layout_of
from sparsehopfield.layers._roles import effective_weight
from sparsehopfield.layers._spec import HopfieldSpec, Part, Role
from sparsehopfield.torch import _operators, _tape
from sparsehopfield.torch._arguments import Options, Tensors, as_dense
from sparsehopfield.torch._arrays import array_of, tensor_like, whole_array, whole_arrays
from sparsehopfield.torch._backend import EAGER, check_devices, is_batched, route_of
from sparsehopfield.torch.functional import draw_seed, options_of

__all__ = ["Call", "Settings", "SideInputs", "as_tensors", "association_matrix", "projected_patterns", "run"]

AUTOCAST = {torch.float32, torch.bfloat16, torch.float16}  # what autocast turns into one another
FIXED = (None,) * 4  # the gradients of `WholeLayer` in what is no tensor
GIVEN = ("stored_pattern_padding_mask", "association_mask", "offsets", "seed")  # `SideInputs`, to callers
counts = {"forward": 0, "backward": 0, "forward again": 0}  # passes of whole layers, for tests
T = TypeVar("T")
Inputs = tuple[Tensor, Tensor, Tensor]  # stored pattern, state pattern, pattern projection
Roles = tuple[int, int, int]  # which of the distinct inputs has which role


class Settings(NamedTuple):
    """What a call computes, beside tensors: the layer, and what may change from call to call."""

    spec: HopfieldSpec
    scaling: float | tuple[float, ...]  # unless it is learned
    separation: Any
    structure: Structure | None
    dropout: float  # 0 where the layer does not train
    backend: str | None


class SideInputs(NamedTuple):
    """The tensors that a forward pass gets, beside inputs and parameters."""

    padding: Tensor | None  # (B, M), True where a stored row is none
    mask: Tensor | None  # (N, M), (B, N, M), (B, H, N, M) or (B * H, N, M)
    offsets: Tensor | None  # int64 (B + 1,)
    seed: Tensor | None  # int64 (1,), of dropout


class Call(NamedTuple):
    """A call of a layer."""

    settings: Settings
    parameters: Mapping[str, Tensor]  # those of `settings.spec.shapes`
    modules: Mapping[str, Module]  # to be called: normalisations by their inputs' names, and "out_proj"
    inputs: Inputs  # one tensor in several roles is one object
    given: SideInputs


def as_tensors(input: Any, offsets: Any) -> tuple[Inputs, Tensor | None]:
    """Return the three inputs as tensors, and the offsets; an object in several roles stays one tensor."""
    given = input if isinstance(input, tuple) else (input, input, input)
    if len(given) != 3:
        raise ValueError(
            f"input: one tensor or a tuple (stored pattern, state pattern, pattern projection), got {len(given)}"
        )
    found: list[Tensor] = []
    sizes: list[int] | None = None
    for i, x in enumerate(given):
        if i and x is given[0]:
            found.append(found[0])
        elif i == 2 and x is given[1]:
            found.append(found[1])
        elif isinstance(x, Tensor):
            found.append(as_dense(NAMES[i] if isinstance(input, tuple) else "input", x))
        else:
            name = NAMES[i] if isinstance(input, tuple) else "input"
            if not isinstance(x, list):
                raise TypeError(f"{name}: must be a tensor, or a list of one tensor a bag, got {type(x).__name__}")
            if i == 1:
                raise ValueError(f"{name}: {RAGGED_STATE}")
            if offsets is not None:
                raise ValueError("offsets: a list of bags has its own; give one of the two")
            if not x or not all(isinstance(bag, Tensor) and bag.ndim == 2 for bag in x):
                raise ValueError(f"{name}: a list must hold one tensor (rows, features) a bag")
            if len({bag.shape[1] for bag in x}) > 1:
                raise ValueError(f"{name}: bags must have the same features, got {[bag.shape[1] for bag in x]}")
            if sizes is not None and sizes != [len(bag) for bag in x]:
                raise ValueError(f"{name}: bags must have the sizes of the stored patterns' bags")
            sizes = [len(bag) for bag in x]
            names = [f"{name}[{i}]" for i in range(len(x))]
            for bag_name, bag in zip(names, x, strict=True):
                as_dense(bag_name, bag)
            check_devices(names, x)
            found.append(torch.cat(x))
    if sizes is not None:
        offsets = torch.tensor([0, *accumulate(sizes)], device=found[0].device)
    elif offsets is not None:
        if not isinstance(offsets, Tensor) or offsets.is_cpu:
            offsets = torch.as_tensor(offsets, device=found[0].device)
        if offsets.ndim != 1 or offsets.is_floating_point() or offsets.dtype == torch.bool or not len(offsets):
            raise ValueError(
                f"offsets: must be integers of shape (samples + 1,), got {offsets.dtype} of shape "
                f"{tuple(offsets.shape)}"
            )
        offsets = offsets.long()
    return (found[0], found[1], found[2]), offsets


def checked_layout(spec: HopfieldSpec, inputs: Inputs, offsets: Tensor | None) -> Layout:
    """Return how the inputs lie, checked; the offsets' numbers only where they can be looked at."""
    stored, state, projection = inputs
    shapes, shared = (tuple(stored.shape), tuple(state.shape), tuple(projection.shape)), state is stored
    check_shapes(spec, shapes, state_is_stored=shared, are_ragged=offsets is not None)
    largest = None
    if offsets is not None:
        is_traced = torch.compiler.is_compiling()
        if type(offsets) is Tensor and offsets.is_cpu and not is_traced:
            as_offsets(offsets.numpy(), len(stored))
        if shared or not is_traced:
            largest = int(offsets.diff().max()) if len(offsets) > 1 else 0
    return layout_of(spec, shapes, state_is_stored=shared, offsets=offsets, largest=largest)


def run(call: Call) -> Tensor:
    """Compute the output of a layer: (B, N, output_size), or (N, B, output_size) unless batch_first, or
    (R, output_size) where state patterns are ragged.
    """
    _check_dtypes(call)
    settings, parameters, modules, inputs, given = call
    if settings.dropout:
        given = SideInputs(given.padding, given.mask, given.offsets, draw_seed(inputs[1].device))
        call = Call(settings, parameters, modules, inputs, given)  # PyTorch 2.4 compiles no _replace
    if not _is_eager(call):
        return by_parts(call)
    roles, names, tensors = _joined(inputs, parameters)
    if torch.is_grad_enabled() and any([t.requires_grad for t in tensors]):
        return WholeLayer.apply(settings, given, roles, names, *tensors)  # type: ignore[no-untyped-call]
    return _as_output(settings, inputs[1].dtype, _forward(settings, given, roles, names, tensors)[0].result)


def _joined(inputs: Inputs, parameters: Mapping[str, Tensor]) -> tuple[Roles, tuple[str, ...], tuple[Tensor, ...]]:
    """Return inputs and parameters as `WholeLayer` has them: the inputs' roles, the parameters' names, all tensors."""
    distinct, roles = _distinct(inputs)
    return roles, tuple(parameters), (*distinct, *parameters.values())


def _distinct(inputs: Inputs) -> tuple[tuple[Tensor, ...], Roles]:
    """Return the inputs, each once, and which of them has which role."""
    stored, state, projection = inputs
    if state is stored:
        return ((stored,), (0, 0, 0)) if projection is stored else ((stored, projection), (0, 0, 1))
    if projection is stored:
        return (stored, state), (0, 1, 0)
    return ((stored, state), (0, 1, 1)) if projection is state else (inputs, (0, 1, 2))


def _is_eager(call: Call) -> bool:
    """Return whether the whole layer may be computed by the core, now; raise if tensors lie on several devices."""
    settings, parameters, modules, inputs, given = call
    if modules:  # whose hooks may bring their parameters to the inputs' device
        check_devices((*NAMES, *GIVEN), (*inputs, *given))
        return False
    names = (*NAMES, *GIVEN, *parameters)
    tensors = (*inputs, *given, *parameters.values())
    return route_of(names, tensors, settings.backend, _operators._lacking(given.mask)) is EAGER


def _dtype_of(call: Call) -> torch.dtype:
    """Return the dtype of a layer, that of its parameters if it has some."""
    for value in call.parameters.values():
        return value.dtype
    return call.inputs[0].dtype


def _check_dtypes(call: Call) -> None:
    """Raise TypeError unless the inputs have the parameters' dtype, or autocast sees to it."""
    dtype = _dtype_of(call)
    for name, x in zip(NAMES, call.inputs, strict=True):
        if x.dtype == dtype and x.is_floating_point():
            continue
        pair = {x.dtype, dtype}
        if not (pair <= AUTOCAST and torch.is_autocast_enabled(x.device.type)):
            raise TypeError(f"{name}: must be of {dtype}, as the layer is, got {x.dtype}")


def by_parts(call: Call) -> Tensor:
    """Compute what `run` does with torch's own parts around the association; the call has its seed."""
    settings, parameters, modules, _, _ = call
    spec = settings.spec
    tensors, place, _ = to_association(call)
    out = _operators.associate(tensors, _options(settings), settings.backend)
    if place is not None:
        out = out[place]
    out = out.flatten(-2)
    if "out_proj" in modules:
        out = modules["out_proj"](out)
    elif spec.out_weight is not None:
        out = F.linear(out, parameters[spec.out_weight], _get(parameters, spec.out_bias))
    if spec.association_activation is not None:
        out = getattr(torch, spec.association_activation)(out)
    return out if spec.batch_first else out.transpose(0, 1)


def association_matrix(call: Call) -> Tensor:
    """Return the weights of the last association, (B, H, N, M), without those of ragged queries that only fill up."""
    _check_dtypes(call)
    settings, dtype = call.settings, call.inputs[1].dtype
    if _is_eager(call):
        tape = _forward(settings, call.given, *_joined(call.inputs, call.parameters))[0]
        found, shape = _passes.associations(tape)
        matrix = torch.from_numpy(found if isinstance(found, np.ndarray) else found.toarray().reshape(shape))
        return matrix.to(dtype)
    tensors, place, layout = to_association(call)
    assert layout.rows is not None
    rows, stored, offsets = layout.rows + settings.spec.appended, tensors.stored, tensors.offsets
    own = torch.eye(rows, dtype=stored.dtype, device=stored.device)  # the mixture of these values is the weights
    if offsets is not None:
        at = torch.arange(len(stored), device=stored.device)
        own = own[at - offsets[_sample_of(at, offsets)]]
    values = own[:, None] if stored.ndim == 3 else own[:, None].expand(len(stored), -1, -1, -1)
    weights = _operators.associate(tensors._replace(values=values), _options(settings), settings.backend)
    if place is not None:
        weights = weights.new_zeros(weights.shape).index_put(place, weights[place])
    return weights.transpose(1, 2).to(dtype)


def projected_patterns(call: Call) -> Tensor:
    """Return the rows that the association mixes, (B, H, M, p), or (H, R, p) of ragged bags."""
    _check_dtypes(call)
    _is_eager(call)
    tensors, _, layout = to_association(call)
    v = tensors.values
    v = v.expand(*v.shape[:-2], call.settings.spec.num_heads, v.shape[-1]).transpose(-3, -2)
    if layout.offsets is None and v.ndim == 3:
        v = v.expand(layout.samples, *v.shape)
    return v.contiguous()


def _options(settings: Settings) -> Options:
    """Return the association's options."""
    spec, separation, structure = settings.spec, settings.separation, settings.structure
    steps, eps = spec.update_steps_max, spec.update_steps_eps
    return options_of(separation, steps, eps, settings.dropout, spec.gradient, structure, spec.appended)


def to_association(call: Call) -> tuple[Tensors, tuple[Tensor, Tensor] | None, Layout]:
    """Return the association's tensors; where state patterns are ragged, sample and position of each; the layout."""
    settings, parameters, modules, inputs, given = call
    spec = settings.spec
    layout = checked_layout(spec, inputs, given.offsets)
    padding, mask = _masks(spec, given, layout)
    q, k, v = _project(spec, parameters, modules, inputs)
    if not spec.batch_first:
        q, k, v = (x.transpose(0, 1) if x.ndim == 4 else x for x in (q, k, v))
    if spec.normalize_hopfield_space:
        gain, shift = (None, None) if spec.in_space_norm is None else (parameters[n] for n in spec.in_space_norm)
        q, k = (_normalized(x, spec.normalize_hopfield_space_eps, gain, shift) for x in (q, k))
    q = q.expand(*q.shape[:-2], spec.num_heads, q.shape[-1])
    offsets = given.offsets
    if spec.appended:
        k = _append(spec, k, _get(parameters, spec.bias_k), offsets)
        v = _append(spec, v, _get(parameters, spec.bias_v), offsets)
    place = None
    if layout.ragged_state:
        assert offsets is not None
        rows = torch.arange(len(q), device=q.device)
        sample = _sample_of(rows, offsets)
        place = sample, rows - offsets[sample]
        q = q.new_zeros(layout.samples, layout.queries, *q.shape[1:]).index_put(place, q)
    if spec.appended and offsets is not None:
        offsets = offsets + spec.appended * torch.arange(len(offsets), device=offsets.device)
    beta = _beta(settings, parameters, q.device)
    return Tensors(q, k, v, beta, None, None, None, None, padding, mask, offsets, given.seed), place, layout


def _get(parameters: Mapping[str, Tensor], name: str | None) -> Tensor | None:
    """Return a parameter that may not be there."""
    return None if name is None else parameters[name]


def _beta(settings: Settings, parameters: Mapping[str, Tensor], device: torch.device) -> Tensor:
    """Return beta in double precision, whatever the layer's dtype, where the device has that."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    if settings.spec.learnable_scaling:
        return parameters["log_scaling"].to(dtype).exp()
    if isinstance(settings.scaling, tuple):
        return torch.tensor(settings.scaling, dtype=dtype, device=device)
    return torch.full((1,), settings.scaling, dtype=dtype, device=device)


def _sample_of(rows: Tensor, offsets: Tensor) -> Tensor:
    """Return the bag that each row, given by its position among all, belongs to."""
    return torch.searchsorted(offsets[1:].contiguous(), rows, right=True)


def _project(
    spec: HopfieldSpec, parameters: Mapping[str, Tensor], modules: Mapping[str, Module], inputs: Inputs
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, stored rows and values in the association space, (..., H or 1, d or p).

    An input in several roles is normalised once and projected by one product: the affine parts of its normalisations
    are folded into the projections.
    """
    stored, state, projection = inputs
    found: dict[str, Tensor] = {}
    groups: list[tuple[Tensor, list[Role]]] = []  # inputs, and the roles in which they may share a product
    for role, x in ((spec.query, state), (spec.key, stored), (spec.value, projection)):
        if role.name in modules:
            y = modules[role.name](x)
            found[role.name] = _projected(role, y, parameters) if role.projected else y
            continue
        for other, roles in groups:
            if other is x and roles[0].eps == role.eps and role.projected and roles[0].projected:
                roles.append(role)
                break
        else:
            groups.append((x, [role]))
    for x, roles in groups:
        role = roles[0]
        if len(roles) == 1:
            y = _normalized(x, role.eps, _get(parameters, role.gain), _get(parameters, role.shift))
            found[role.name] = _projected(role, y, parameters) if role.projected else y
            continue
        folded = [_folded(role, parameters) for role in roles]
        weight, xhat = torch.cat([weight for weight, _ in folded]), _normalized(x, role.eps, None, None)
        product, at = F.linear(xhat, weight, _joined_biases(folded)), 0
        for role, (role_weight, _) in zip(roles, folded, strict=True):
            found[role.name] = product[..., at : at + len(role_weight)]
            at += len(role_weight)
    q, k, v = (
        _with_heads(found[role.name], spec.num_heads if role.projected else 1)
        for role in (spec.query, spec.key, spec.value)
    )
    return q, k, v


def _with_heads(x: Tensor, heads: int) -> Tensor:
    """Return rows (..., H * d) as (..., H, d)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def _normalized(x: Tensor, eps: float | None, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    """Return rows (..., e) normalised, if they are to be."""
    return x if eps is None else F.layer_norm(x, x.shape[-1:], gain, shift, eps)


def _part(parameters: Mapping[str, Tensor], part: Part | None) -> Tensor | None:
    """Return some rows of a parameter."""
    if part is None:
        return None
    whole = parameters[part.name]
    return whole if part.rows == slice(None) else whole[part.rows]


def _projected(role: Role, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Project rows (..., e) to those of all heads, (..., H * d), if the role is projected."""
    if role.via is not None:
        x = _projected(role.via, x, parameters)
    weight = _part(parameters, role.weight)
    return x if weight is None else F.linear(x, weight, _part(parameters, role.bias))


def _folded(role: Role, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a role's projection, with the affine part of its normalisation folded in."""
    weight, bias = effective_weight(role, parameters)
    if role.gain is None or role.shift is None:
        return weight, bias
    shifted = (weight * parameters[role.shift]).sum(-1)
    return weight * parameters[role.gain], shifted if bias is None else shifted + bias


def _joined_biases(folded: list[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """Return the biases of several projections as one; None where none has one."""
    if all(bias is None for _, bias in folded):
        return None
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in folded])


def _append(spec: HopfieldSpec, rows: Tensor, bias: Tensor | None, offsets: Tensor | None) -> Tensor:
    """Append the bias pattern and the zero pattern to the rows of every sample."""
    heads, width = rows.shape[-2:]
    more = [] if bias is None else [bias.reshape(1, heads, width).to(rows.dtype)]
    if spec.add_zero_association:
        more.append(rows.new_zeros(1, heads, width))
    if rows.ndim == 4:
        return torch.cat([rows, torch.cat(more).expand(len(rows), -1, -1, -1)], dim=1)
    if offsets is None:
        return torch.cat([rows, *more])
    n, count, bags = spec.appended, len(rows), len(offsets) - 1
    own = torch.arange(count, device=rows.device)
    behind = (offsets[1:, None] + n * torch.arange(bags, device=rows.device)[:, None]) + torch.arange(
        n, device=rows.device
    )
    order = torch.empty(count + n * bags, dtype=torch.int64, device=rows.device)
    order = order.index_put((own + n * _sample_of(own, offsets),), own)
    order = order.index_put((behind,), (count + torch.arange(n, device=rows.device)).expand(bags, n))
    return torch.cat([rows, *more])[order]


def _masks(spec: HopfieldSpec, given: SideInputs, layout: Layout) -> tuple[Tensor | None, Tensor | None]:
    """Check and return the masks, with a column without effect for each row that will be appended."""
    padding, mask, n, samples = given.padding, given.mask, spec.appended, layout.samples
    if padding is not None:
        is_whole = not (padding.is_floating_point() or padding.is_complex())
        check_padding(layout, tuple(padding.shape), padding.dtype, is_whole)
        padding = padding.bool()
        padding = F.pad(padding, (0, n)) if n else padding
    if mask is not None:
        mask = mask if mask.is_floating_point() else mask.bool()
        check_mask(layout, spec.num_heads, tuple(mask.shape))
        if mask.ndim == 3 and len(mask) != samples:
            mask = mask.reshape(samples, spec.num_heads, *mask.shape[1:])
        if n:
            mask = F.pad(mask, (0, n))
            if given.offsets is not None:  # a bag's appended rows are right behind its own
                mask = mask.expand(samples, *mask.shape) if mask.ndim == 2 else mask
                size = given.offsets.diff()[:, None]
                at = torch.arange(mask.shape[-1], device=mask.device)
                appended = (at >= size) & (at < size + n)
                mask = mask.masked_fill(appended.view(samples, *(1,) * (mask.ndim - 2), -1), 0)
    return padding, mask


# --- the whole layer in the core ----------------------------------------------------------------------------------


def _forward(
    settings: Settings, given: SideInputs, roles: Roles, names: Sequence[str], tensors: Sequence[Tensor]
) -> tuple[_passes.Tape, list[bool]]:
    """Run the NumPy layer's forward pass; return its tape, and which of the tensors it reads where they lie.

    roles, names, tensors: as `WholeLayer` has them.
    """
    counts["forward"] += 1
    dtype = _compute_dtype(names, tensors)
    arrays, read = whole_arrays(tensors, dtype)
    inputs, parameters = _sorted(roles, names, arrays)
    scaling = settings.scaling
    tape = _passes.forward(
        settings.spec,
        parameters,
        inputs,
        padding=None if given.padding is None else array_of(given.padding),
        mask=None if given.mask is None else _mask(given.mask, dtype),
        offsets=None if given.offsets is None else array_of(given.offsets),
        scaling=np.array(scaling) if isinstance(scaling, tuple) else scaling,
        separation=settings.separation,
        structure=settings.structure,
        dropout=settings.dropout,
        seed=0 if given.seed is None else int(given.seed),
    )
    return tape, read


def _compute_dtype(names: Sequence[str], tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the dtype that a layer is computed in: float64 if its parameters, or else its inputs, are of that."""
    return torch.float64 if tensors[-len(names)].dtype == torch.float64 else torch.float32


def _mask(mask: Tensor, dtype: torch.dtype) -> Array:
    """Return a mask as an array of bool, of integers or of this dtype."""
    return array_of(mask, dtype if mask.is_floating_point() else None)


def _as_output(settings: Settings, dtype: torch.dtype, result: Array) -> Tensor:
    """Return the result of the core as a tensor, of the dtype that torch's parts would give; `dtype`: of the states."""
    out = torch.from_numpy(result)
    through_linear = settings.spec.out_weight is not None or settings.spec.query.projected
    if through_linear and dtype in AUTOCAST and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    return out if out.dtype == dtype else out.to(dtype)


class WholeLayer(torch.autograd.Function):
    """A layer as one function of its inputs, each of them once, and its parameters, in the core.

    Its first derivative is in the core, too; the second one is that of the layer's parts.
    """

    @staticmethod
    def forward(
        ctx: Any, settings: Settings, given: SideInputs, roles: Roles, names: tuple[str, ...], *tensors: Tensor
    ) -> Tensor:
        tape, read = _forward(settings, given, roles, names, tensors)
        handle = _tape.keep(tape, (*given, *tensors), (*[t is not None for t in given], *read))
        ctx.save_for_backward(handle, *given, *tensors)
        ctx.made_from = settings, roles, names
        return _as_output(settings, tensors[roles[1]].dtype, tape.result)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        handle, *saved = ctx.saved_tensors
        given, tensors = SideInputs(*saved[: len(SideInputs._fields)]), saved[len(SideInputs._fields) :]
        settings, roles, names = ctx.made_from
        needs = ctx.needs_input_grad[len(FIXED) :]
        if torch.is_grad_enabled() or is_batched(grad):  # for a second derivative, or many first ones
            return *FIXED, *_gradients_by_parts(settings, given, roles, names, tensors, needs, grad)
        counts["backward"] += 1
        tape = _tape.find(handle, saved)
        if tape is None:
            counts["forward again"] += 1
            tape, _ = _forward(settings, given, roles, names, tensors)
        wanted = [role for role, i in zip(INPUTS, roles, strict=True) if needs[i]]
        found = _passes.backward(tape, whole_array(grad, _compute_dtype(names, tensors)), wanted)
        first = [role for role, i, j in zip(INPUTS, roles, (-1, *roles), strict=False) if i > j]
        return *FIXED, *[
            tensor_like(found[name], t) if is_needed and name in found else None
            for name, t, is_needed in zip((*first, *names), tensors, needs, strict=True)
        ]


def _sorted(roles: Roles, names: Sequence[str], tensors: Sequence[T]) -> tuple[tuple[T, T, T], dict[str, T]]:
    """Return inputs and parameters from the tensors of `WholeLayer`, or their arrays."""
    i, j, k = roles
    return (tensors[i], tensors[j], tensors[k]), dict(zip(names, tensors[max(roles) + 1 :], strict=True))


def _call_of(
    settings: Settings, given: SideInputs, roles: Roles, names: tuple[str, ...], tensors: Sequence[Tensor]
) -> Call:
    """Return the call of a layer from what `WholeLayer` takes."""
    inputs, parameters = _sorted(roles, names, tensors)
    return Call(settings, parameters, {}, inputs, given)


def _gradients_by_parts(
    settings: Settings,
    given: SideInputs,
    roles: Roles,
    names: tuple[str, ...],
    tensors: Sequence[Tensor],
    needs: Sequence[bool],
    grad: Tensor,
) -> list[Tensor | None]:
    """Return the gradients that are needed of `WholeLayer` in a way that can be differentiated again."""
    # views, so that no gradient runs on to what an argument was made from, which may be another argument
    with torch.enable_grad():
        views = [t.view_as(t) if is_needed else t for t, is_needed in zip(tensors, needs, strict=True)]
        out = by_parts(_call_of(settings, given, roles, names, views))
    wanted = [view for view, is_needed in zip(views, needs, strict=True) if is_needed]
    gradients = iter(torch.autograd.grad(out, wanted, grad, create_graph=torch.is_grad_enabled(), allow_unused=True))
    return [next(gradients) if is_needed else None for is_needed in needs]
