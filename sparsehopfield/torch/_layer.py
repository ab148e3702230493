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
from sparsehopfield.layers._roles import effective_weight
from sparsehopfield.layers._spec import HopfieldSpec, Part, Role
from sparsehopfield.torch import _operators, _tape
from sparsehopfield.torch._arguments import Options, Tensors, as_dense
from sparsehopfield.torch._arrays import array_of, tensor_like, whole_array, whole_arrays
from sparsehopfield.torch._backend import EAGER, check_devices, is_batched, route_of
from sparsehopfield.torch.functional import draw_seed, options_of

__all__ = ["Inputs", "Settings", "SideInputs", "as_tensors", "association_matrix", "projected_patterns", "run"]

AUTOCAST = {torch.float32, torch.bfloat16, torch.float16}  # what autocast turns into one another
FIXED = (None,) * 4  # the gradients of `WholeLayer` in what is no tensor
GIVEN = ("stored_pattern_padding_mask", "association_mask", "offsets", "seed")  # `SideInputs`, to callers
counts = {"forward": 0, "backward": 0, "forward again": 0}  # passes of whole layers, for tests
T = TypeVar("T")
Inputs = tuple[Tensor, Tensor, Tensor]  # stored pattern, state pattern, pattern projection
Roles = tuple[int, int, int]  # which of the distinct inputs has which role


class Settings(NamedTuple):
    """What a forward pass computes, beside tensors: the layer, and what may change from call to call."""

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


class Layout(NamedTuple):
    """How the inputs lie."""

    samples: int
    queries: int  # of a sample; where state patterns are ragged, of the largest
    rows: int | None  # of a sample; of the largest bag, which is not known while a compiler traces
    ragged_state: bool  # the state patterns are the bags' rows


def layout_of(spec: HopfieldSpec, inputs: Inputs, offsets: Tensor | None) -> Layout:
    """Check the inputs' shapes against one another."""
    stored, state, projection = inputs
    for name, x, role in zip(NAMES, inputs, (spec.key, spec.query, spec.value), strict=True):
        if x.ndim not in (2, 3):
            raise ValueError(f"{name}: must be (samples, patterns, features), got shape {tuple(x.shape)}")
        if role.size is not None and x.shape[-1] != role.size:
            raise ValueError(f"{name}: must have {role.size} features, got shape {tuple(x.shape)}")
    if not spec.key.projected and not spec.query.projected and stored.shape[-1] != state.shape[-1]:
        raise ValueError(
            f"state pattern: must have the {stored.shape[-1]} features of the stored patterns, got shape "
            f"{tuple(state.shape)}"
        )
    if offsets is not None:
        return _layout_of_bags(spec, inputs, offsets)
    if stored is state and stored.ndim == 2:
        raise ValueError(f"input: must be (samples, patterns, features), got shape {tuple(stored.shape)}")
    if projection is not stored and stored.shape[:-1] != projection.shape[:-1]:
        raise ValueError(
            f"pattern projection: needs one row for each stored pattern, {tuple(stored.shape[:-1])}, got "
            f"{tuple(projection.shape[:-1])}"
        )
    axis = 0 if spec.batch_first else 1
    samples = stored.shape[axis] if stored.ndim == 3 else state.shape[axis] if state.ndim == 3 else 1
    if state is not stored and state.ndim == 3 and state.shape[axis] != samples:
        raise ValueError(f"state pattern: needs {samples} samples, got shape {tuple(state.shape)}")
    rows = stored.shape[1 - axis] if stored.ndim == 3 else len(stored)
    return Layout(samples, state.shape[1 - axis] if state.ndim == 3 else len(state), rows, False)


def _layout_of_bags(spec: HopfieldSpec, inputs: Inputs, offsets: Tensor) -> Layout:
    """Check the inputs' shapes against the offsets of ragged bags."""
    stored, state, projection = inputs
    if not spec.batch_first:
        raise ValueError("offsets: ragged bags need batch_first")
    if stored.ndim != 2 or projection.shape[:-1] != stored.shape[:-1]:
        raise ValueError(
            "input: stored patterns and pattern projections of ragged bags must be (rows, features), got "
            f"{tuple(stored.shape)} and {tuple(projection.shape)}"
        )
    if type(offsets) is Tensor and offsets.is_cpu and not torch.compiler.is_compiling():
        as_offsets(offsets.numpy(), len(stored))
    samples, ragged_state = len(offsets) - 1, state is stored
    if state.ndim == 3 and len(state) != samples:
        raise ValueError(f"state pattern: needs {samples} samples, got shape {tuple(state.shape)}")
    if not ragged_state and torch.compiler.is_compiling():
        return Layout(samples, state.shape[-2], None, False)
    rows = int(offsets.diff().max()) if samples else 0
    return Layout(samples, rows if ragged_state else state.shape[-2], rows, ragged_state)


def run(
    call: Settings,
    parameters: Mapping[str, Tensor],
    modules: Mapping[str, Module],
    inputs: Inputs,
    given: SideInputs,
) -> Tensor:
    """Compute the output of a layer: (B, N, output_size), or (N, B, output_size) unless batch_first, or
    (R, output_size) where state patterns are ragged.

    Parameters
    ----------
    call : Settings
    parameters : mapping of str to Tensor
        Those of `call.spec.shapes`.
    modules : mapping of str to Module
        To be called in place of what they are by default: normalisations by their inputs' names, and "out_proj".
    inputs : tuple of three Tensor
        Stored pattern, state pattern, pattern projection; one tensor in several roles is one object.
    given : SideInputs
    """
    _check_dtypes(parameters, inputs)
    if call.dropout:
        seed = draw_seed(inputs[1].device)
        given = SideInputs(given.padding, given.mask, given.offsets, seed)
    if not _is_eager(call, parameters, modules, inputs, given):
        return by_parts(call, parameters, modules, inputs, given)
    roles, names, tensors = _joined(inputs, parameters)
    if torch.is_grad_enabled() and any([t.requires_grad for t in tensors]):
        return WholeLayer.apply(call, given, roles, names, *tensors)  # type: ignore[no-untyped-call]
    return _as_output(call, inputs[1].dtype, _forward(call, given, roles, names, tensors)[0].result)


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


def _is_eager(
    call: Settings, parameters: Mapping[str, Tensor], modules: Mapping[str, Module], inputs: Inputs, given: SideInputs
) -> bool:
    """Return whether the whole layer may be computed by the core, now; raise if tensors lie on several devices."""
    if modules:  # whose hooks may bring their parameters to the inputs' device
        check_devices((*NAMES, *GIVEN), (*inputs, *given))
        return False
    names = (*NAMES, *GIVEN, *parameters)
    tensors = (*inputs, *given, *parameters.values())
    return route_of(names, tensors, call.backend, _operators._lacking(given.mask)) is EAGER


def _dtype_of(parameters: Mapping[str, Tensor], inputs: Inputs) -> torch.dtype:
    """Return the dtype of a layer, that of its parameters if it has some."""
    for value in parameters.values():
        return value.dtype
    return inputs[0].dtype


def _check_dtypes(parameters: Mapping[str, Tensor], inputs: Inputs) -> None:
    """Raise TypeError unless the inputs have the parameters' dtype, or autocast sees to it."""
    dtype = _dtype_of(parameters, inputs)
    for name, x in zip(NAMES, inputs, strict=True):
        if x.dtype == dtype and x.is_floating_point():
            continue
        pair = {x.dtype, dtype}
        if not (pair <= AUTOCAST and torch.is_autocast_enabled(x.device.type)):
            raise TypeError(f"{name}: must be of {dtype}, as the layer is, got {x.dtype}")


def by_parts(
    call: Settings,
    parameters: Mapping[str, Tensor],
    modules: Mapping[str, Module],
    inputs: Inputs,
    given: SideInputs,
) -> Tensor:
    """Compute what `run` does with torch's own parts around the association; `given` has the seed."""
    spec, layout = call.spec, layout_of(call.spec, inputs, given.offsets)
    tensors, place = to_association(call, parameters, modules, inputs, given, layout)
    out = _operators.associate(tensors, _options(call), call.backend)
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


def association_matrix(
    call: Settings,
    parameters: Mapping[str, Tensor],
    modules: Mapping[str, Module],
    inputs: Inputs,
    given: SideInputs,
) -> Tensor:
    """Return the weights of the last association, (B, H, N, M), without those of ragged queries that only fill up."""
    _check_dtypes(parameters, inputs)
    if _is_eager(call, parameters, modules, inputs, given):
        tape = _forward(call, given, *_joined(inputs, parameters))[0]
        found, shape = _passes.associations(tape)
        matrix = torch.from_numpy(found if isinstance(found, np.ndarray) else found.toarray().reshape(shape))
        return matrix.to(inputs[1].dtype)
    layout = layout_of(call.spec, inputs, given.offsets)
    tensors, place = to_association(call, parameters, modules, inputs, given, layout)
    assert layout.rows is not None
    rows, stored, offsets = layout.rows + call.spec.appended, tensors.stored, tensors.offsets
    own = torch.eye(rows, dtype=stored.dtype, device=stored.device)  # the mixture of these values is the weights
    if offsets is not None:
        at = torch.arange(len(stored), device=stored.device)
        own = own[at - offsets[_sample_of(at, offsets)]]
    values = own[:, None] if stored.ndim == 3 else own[:, None].expand(len(stored), -1, -1, -1)
    weights = _operators.associate(tensors._replace(values=values), _options(call), call.backend)
    if place is not None:
        weights = weights.new_zeros(weights.shape).index_put(place, weights[place])
    return weights.transpose(1, 2).to(inputs[1].dtype)


def projected_patterns(
    call: Settings,
    parameters: Mapping[str, Tensor],
    modules: Mapping[str, Module],
    inputs: Inputs,
    given: SideInputs,
) -> Tensor:
    """Return the rows that the association mixes, (B, H, M, p), or (H, R, p) of ragged bags."""
    _check_dtypes(parameters, inputs)
    _is_eager(call, parameters, modules, inputs, given)
    layout = layout_of(call.spec, inputs, given.offsets)
    v = to_association(call, parameters, modules, inputs, given, layout)[0].values
    v = v.expand(*v.shape[:-2], call.spec.num_heads, v.shape[-1]).transpose(-3, -2)
    if given.offsets is None and v.ndim == 3:
        v = v.expand(layout.samples, *v.shape)
    return v.contiguous()


def _options(call: Settings) -> Options:
    """Return the association's options."""
    spec = call.spec
    steps, eps = spec.update_steps_max, spec.update_steps_eps
    return options_of(call.separation, steps, eps, call.dropout, spec.gradient, call.structure, spec.appended)


def to_association(
    call: Settings,
    parameters: Mapping[str, Tensor],
    modules: Mapping[str, Module],
    inputs: Inputs,
    given: SideInputs,
    layout: Layout,
) -> tuple[Tensors, tuple[Tensor, Tensor] | None]:
    """Return the association's tensors; where state patterns are ragged, sample and position of each, too."""
    spec = call.spec
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
    beta = _beta(call, parameters, q.device)
    return Tensors(q, k, v, beta, None, None, None, None, padding, mask, offsets, given.seed), place


def _get(parameters: Mapping[str, Tensor], name: str | None) -> Tensor | None:
    """Return a parameter that may not be there."""
    return None if name is None else parameters[name]


def _beta(call: Settings, parameters: Mapping[str, Tensor], device: torch.device) -> Tensor:
    """Return beta in double precision, whatever the layer's dtype, where the device has that."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    if call.spec.learnable_scaling:
        return parameters["log_scaling"].to(dtype).exp()
    if isinstance(call.scaling, tuple):
        return torch.tensor(call.scaling, dtype=dtype, device=device)
    return torch.full((1,), call.scaling, dtype=dtype, device=device)


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
    """Project rows (..., e), to the heads given by given."""
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
    padding, mask, n = given.padding, given.mask, spec.appended
    samples, queries, rows = layout[:3]
    if padding is not None:
        if given.offsets is not None:
            raise ValueError("stored_pattern_padding_mask: ragged bags have no padding; leave the rows out")
        if padding.is_floating_point() or padding.is_complex() or tuple(padding.shape) != (samples, rows):
            raise ValueError(
                f"stored_pattern_padding_mask: must be bool of shape {(samples, rows)}, got {padding.dtype} of shape "
                f"{tuple(padding.shape)}"
            )
        padding = padding.bool()
        padding = F.pad(padding, (0, n)) if n else padding
    if mask is not None:
        mask = mask if mask.is_floating_point() else mask.bool()
        pairs = (queries, mask.shape[-1] if rows is None else rows)
        fits = [pairs, (samples, *pairs), (samples, spec.num_heads, *pairs), (samples * spec.num_heads, *pairs)]
        if tuple(mask.shape) not in fits:
            raise ValueError(f"association_mask: must have one of the shapes {fits}, got {tuple(mask.shape)}")
        if mask.ndim == 3 and len(mask) != samples:
            mask = mask.reshape(samples, spec.num_heads, *pairs)
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
    call: Settings, given: SideInputs, roles: Roles, names: Sequence[str], tensors: Sequence[Tensor]
) -> tuple[_passes.Tape, list[bool]]:
    """Run the NumPy layer's forward pass; return its tape, and which of the tensors it reads where they lie.

    roles, names, tensors: as `WholeLayer` has them.
    """
    counts["forward"] += 1
    dtype = _compute_dtype(names, tensors)
    arrays, read = whole_arrays(tensors, dtype)
    inputs, parameters = _sorted(roles, names, arrays)
    scaling = call.scaling
    tape = _passes.forward(
        call.spec,
        parameters,
        inputs,
        padding=None if given.padding is None else array_of(given.padding),
        mask=None if given.mask is None else _mask(given.mask, dtype),
        offsets=None if given.offsets is None else array_of(given.offsets),
        scaling=np.array(scaling) if isinstance(scaling, tuple) else scaling,
        separation=call.separation,
        structure=call.structure,
        dropout=call.dropout,
        seed=0 if given.seed is None else int(given.seed),
    )
    return tape, read


def _compute_dtype(names: Sequence[str], tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the dtype that a layer is computed in: float64 if its parameters, or else its inputs, are of that."""
    return torch.float64 if tensors[-len(names)].dtype == torch.float64 else torch.float32


def _mask(mask: Tensor, dtype: torch.dtype) -> Array:
    """Return a mask as an array of bool, of integers or of this dtype."""
    return array_of(mask, dtype if mask.is_floating_point() else None)


def _as_output(call: Settings, dtype: torch.dtype, result: Array) -> Tensor:
    """Return the result of the core as a tensor, of the dtype that torch's parts would give; `dtype`: of the states."""
    out = torch.from_numpy(result)
    through_linear = call.spec.out_weight is not None or call.spec.query.projected
    if through_linear and dtype in AUTOCAST and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    return out if out.dtype == dtype else out.to(dtype)


class WholeLayer(torch.autograd.Function):
    """A layer as one function of its inputs, each of them once, and its parameters, in the core.

    Its first derivative is in the core, too; the second one is that of the layer's parts.
    """

    @staticmethod
    def forward(
        ctx: Any, call: Settings, given: SideInputs, roles: Roles, names: tuple[str, ...], *tensors: Tensor
    ) -> Tensor:
        tape, read = _forward(call, given, roles, names, tensors)
        handle = _tape.keep(tape, (*given, *tensors), (*[t is not None for t in given], *read))
        ctx.save_for_backward(handle, *given, *tensors)
        ctx.made_from = call, roles, names
        return _as_output(call, tensors[roles[1]].dtype, tape.result)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        handle, *saved = ctx.saved_tensors
        given, tensors = SideInputs(*saved[: len(SideInputs._fields)]), saved[len(SideInputs._fields) :]
        call, roles, names = ctx.made_from
        needs = ctx.needs_input_grad[len(FIXED) :]
        if torch.is_grad_enabled() or is_batched(grad):  # for a second derivative, or many first ones
            return *FIXED, *_gradients_by_parts(call, given, roles, names, tensors, needs, grad)
        counts["backward"] += 1
        tape = _tape.find(handle, saved)
        if tape is None:
            counts["forward again"] += 1
            tape, _ = _forward(call, given, roles, names, tensors)
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


def _gradients_by_parts(
    call: Settings,
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
        inputs, parameters = _sorted(roles, names, views)
        out = by_parts(call, parameters, {}, inputs, given)
    wanted = [view for view, is_needed in zip(views, needs, strict=True) if is_needed]
    gradients = iter(torch.autograd.grad(out, wanted, grad, create_graph=torch.is_grad_enabled(), allow_unused=True))
    return [next(gradients) if is_needed else None for is_needed in needs]
