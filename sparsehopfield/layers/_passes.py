"""The passes of a Hopfield layer as pure functions: forward, and backward from the tape that forward returns.

Letters: B samples; N state patterns (queries) and M stored patterns (rows) of each; H heads; e features of the inputs,
d features of a head in the association space, p of its projected patterns.

What makes it fast: the affine part of the layer normalisations is folded into the projections, so an array that has
several roles is normalised once and projected by one product; where few queries attend to many rows, rows are not
projected at all, and the association gets the projections instead (`is_cheaper_unprojected`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from sparsehopfield._engine import dense
from sparsehopfield._engine.association import Projection, Saved, association_weights, forward_of, gradients_of
from sparsehopfield._engine.checks import Array, as_offsets, as_positive_numbers, contiguous, ignoring_float_errors
from sparsehopfield._engine.chunked import add_arrays
from sparsehopfield._engine.separations import row_of, separation_code
from sparsehopfield._engine.structure import Structure
from sparsehopfield.layers import _roles
from sparsehopfield.layers._inputs import INPUTS, Inputs
from sparsehopfield.layers._layout import Layout, as_masks, check_shapes, layout_of
from sparsehopfield.layers._roles import Gradients, Source, Workload, fold_projections, static_rows
from sparsehopfield.layers._spec import ACTIVATIONS, HopfieldSpec, Role

__all__ = ["Tape", "associations", "backward", "forward", "projected_patterns"]

FEW_QUERIES = 8  # of a bag: where there are more, rows are projected


class Tape:
    """The result of a forward pass, and what its backward passes read; nothing changes it.

    It reads inputs that are not normalised, and all parameters, in place.
    """

    spec: HopfieldSpec
    parameters: Mapping[str, Array]
    inputs: Inputs  # samples first
    layout: Layout
    scaling: Array  # (H,)
    sources: list[Source]
    grouped: list[tuple[Source, list[Role], Array | None]]  # of each source: roles that its product projects, weight
    plain: dict[str, Array]  # role -> weight of its projection, without the folded normalisation
    unprojected: set[str]  # roles whose rows the association reads as they are, and projects itself
    in_space: dict[str, tuple[Array, Array]]  # role -> xhat, rstd in the association space
    offsets: Array | None  # of the bags with their appended rows
    padded: tuple[Array, Array] | None  # ragged queries: sample and position of each row in the padded array
    saved: Saved
    out: Array  # of the association (B, N, H, p)
    flat: Array  # the input of the output projection
    slope: Array | None  # of the activation
    result: Array


@ignoring_float_errors()
def forward(
    spec: HopfieldSpec,
    parameters: Mapping[str, Array],
    inputs: Inputs,
    *,
    padding: Any = None,
    mask: Any = None,
    offsets: Any = None,
    scaling: float | Array | None = None,
    separation: Any = "softmax",
    structure: Structure | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    recall: bool = False,
) -> Tape:
    """Run a Hopfield layer's forward pass.

    Parameters
    ----------
    spec : HopfieldSpec
    parameters : mapping of str to ndarray
        All of `spec.shapes`, C-contiguous.
    inputs : tuple of three ndarray
        Stored pattern, state pattern and pattern projection, shaped as `Hopfield.forward` says, of the parameters'
        dtype. An array in several roles is one object.
    padding, mask, offsets : array_like, optional
        `stored_pattern_padding_mask`, `association_mask` and `offsets` of `Hopfield.forward`.
    scaling : float or ndarray of shape (H,), optional
        beta, checked (`as_scaling`); `spec.default_scaling` by default, and without effect where it is learned.
    separation, structure
        As of `Hopfield`; the structure checked (`as_structure`).
    dropout : float from 0 to below 1
    seed : int
        Of dropout.
    recall : bool
        Mix the stored patterns as they came in, which gives `tape.out` (B, N, H, e), and no result and no backward
        pass.

    Returns
    -------
    Tape
        `tape.result` is the output: (B, N, output_size), or as `Hopfield.forward` says. Until the tape is gone,
        parameters and inputs must not change; masks and offsets may.

    Raises
    ------
    ValueError, TypeError, OverflowError
        As of `Hopfield.forward`.
    """
    query, key, value = spec.query, spec.key, spec.value
    code = separation_code(separation)
    tape = _normalized(spec, parameters, inputs, offsets, (query, key) if recall else (query, key, value))
    layout, H = tape.layout, spec.num_heads
    assert layout.rows is not None
    appended = spec.appended if layout.samples or layout.offsets is None else 0  # where there are no bags, no rows
    padding, mask = as_masks(padding, mask, layout, H, appended, tape.inputs[0].dtype)
    tape.unprojected = _choose_unprojected(tape, code, structure, recall)
    rows, projections = _project(tape)
    if recall:
        rows[value.name] = contiguous(tape.inputs[0])[..., None, :]
    queries, keys, values = _to_association_space(tape, rows[query.name], rows[key.name], rows[value.name], recall)
    if spec.gradient == "implicit" and not row_of(code).has_energy:
        raise ValueError("gradient: a polynomial update is the step of no energy; its gradient must be 'unrolled'")
    if queries.shape[-1] == 0 or values.shape[-1] == 0:
        raise ValueError("queries: at least one head and one feature are needed")
    try:
        beta = np.exp(parameters["log_scaling"].astype(np.float64)) if spec.learnable_scaling else scaling
        tape.scaling = as_positive_numbers("beta", spec.default_scaling if beta is None else beta) + np.zeros(H)
        steps = -1 if spec.update_steps_max is None else spec.update_steps_max
        tape.out, tape.saved = forward_of(
            queries,
            keys,
            values,
            tape.scaling,
            code,
            (layout.samples, H, layout.queries, layout.rows + appended),
            (steps, spec.update_steps_eps, dropout, seed, spec.gradient == "implicit"),
            (*projections.get(key.name, (None, None)), *projections.get(value.name, (None, None))),
            tape.offsets,
            padding,
            mask,
            structure,
            appended if layout.samples else 0,
            not recall,
        )
    except (ValueError, OverflowError):
        _check_finite(tape)
        raise
    if not recall:
        _project_output(tape)
    return tape


@ignoring_float_errors()
def backward(tape: Tape, grad: Array, needs: Collection[str] = ()) -> dict[str, Array]:
    """Compute the gradients of sum(grad * tape.result).

    Parameters
    ----------
    tape : Tape
        Of the forward pass; it may serve again, and in several threads.
    grad : ndarray
        Shaped as the result, of its dtype.
    needs : collection of str
        The gradients wanted beside those of all parameters: of the inputs "stored_pattern", "state_pattern" and
        "pattern_projection", and within the layer "queries", the projected state patterns (B, N, H, d), and
        "association", its output (B, N, H, p), which may be `grad` itself.

    Returns
    -------
    dict of str to ndarray
        By name: of the parameters, shaped as these, and of what `needs` names. An array in several roles has its whole
        gradient under the first of the three names that `needs` has, and the others have none.

    Raises
    ------
    ArithmeticError
        If `gradient="implicit"` and a fixed point is not isolated or not stable, so that it has no gradient.
    """
    gradients = Gradients(tape.parameters)
    grad = _backward_output(tape, grad, gradients)
    buffers, places = _gradient_buffers(tape)
    role_grads, projection_grads = _backward_association(tape, grad, needs, places, gradients)
    in_sources = _backward_projections(tape, role_grads, projection_grads, needs, buffers, gradients)
    return gradients.found | _input_grads(tape, in_sources)


def associations(tape: Tape) -> tuple[Any, tuple[int, ...]]:
    """Return the weights of the last association as `Hopfield.associations` does, and their shape (B, H, N, M)."""
    weights = association_weights(tape.saved)
    if tape.padded is not None:
        is_query = np.zeros((tape.layout.samples, 1, tape.layout.queries), tape.out.dtype)
        is_query[tape.padded[0], 0, tape.padded[1]] = 1
        is_query = np.repeat(is_query, tape.spec.num_heads, axis=1)
        if isinstance(weights, np.ndarray):
            weights *= is_query[..., None]
        else:
            weights.data *= np.repeat(is_query.ravel(), np.diff(weights.indptr))
            weights.eliminate_zeros()
    return weights, tape.saved.shape


@ignoring_float_errors()
def projected_patterns(
    spec: HopfieldSpec,
    parameters: Mapping[str, Array],
    inputs: Inputs,
    *,
    padding: Any = None,
    mask: Any = None,
    offsets: Any = None,
) -> Array:
    """Return the rows that the last association mixes as `Hopfield.get_projected_pattern_matrix` does; arguments are
    those of `forward`.
    """
    tape = _normalized(spec, parameters, inputs, offsets, (spec.value,))
    layout = tape.layout
    as_masks(padding, mask, layout, spec.num_heads, spec.appended, tape.inputs[0].dtype)
    tape.unprojected = set()
    rows = _project(tape)[0][spec.value.name]
    rows = np.broadcast_to(rows, (*rows.shape[:-2], spec.num_heads, rows.shape[-1]))
    if spec.appended:
        rows = _append(tape, rows, spec.bias_v)
    if rows.ndim == 3 and layout.offsets is None:
        rows = np.broadcast_to(rows, (layout.samples, *rows.shape))
    return np.ascontiguousarray(rows.swapaxes(-3, -2))


# --- forward --------------------------------------------------------------------------------------


def _check_finite(tape: Tape) -> None:
    """Raise a ValueError that names the input or the parameter that is not finite, if one is not."""
    for source in tape.sources:
        if not np.isfinite(source.x).all():
            name = source.roles[0].name.replace("_", " ")
            raise ValueError(f"{name}: must be finite in {source.x.dtype}") from None
    for name, value in tape.parameters.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: contains NaN or infinity; every entry must be finite") from None


def _normalized(
    spec: HopfieldSpec, parameters: Mapping[str, Array], inputs: Inputs, offsets: Any, roles: tuple[Role, ...]
) -> Tape:
    """Begin a tape: check the input arrays, bring samples to the first axis, and normalise the arrays for these
    roles.
    """
    tape = Tape()
    tape.spec, tape.parameters = spec, parameters
    stored, state, projection = inputs
    shapes, shared = (stored.shape, state.shape, projection.shape), state is stored
    check_shapes(spec, shapes, state_is_stored=shared, are_ragged=offsets is not None)
    offsets = None if offsets is None else as_offsets(offsets, len(stored))
    largest = None if offsets is None else int(np.diff(offsets).max(initial=0))
    tape.layout = layout_of(spec, shapes, state_is_stored=shared, offsets=offsets, largest=largest)
    if not spec.batch_first:
        swapped = {id(x): x.swapaxes(0, 1).copy() if x.ndim == 3 else x for x in inputs}
        stored, state, projection = swapped[id(stored)], swapped[id(state)], swapped[id(projection)]
    tape.inputs = stored, state, projection
    sources: dict[tuple[int, float | None], Source] = {}
    for role, x in ((spec.query, state), (spec.key, stored), (spec.value, projection)):
        if role in roles:
            source = sources.get((id(x), role.eps))
            if source is None:
                source = sources[id(x), role.eps] = Source.of(x, role.eps)
            source.roles.append(role)
    tape.sources = list(sources.values())
    return tape


def _choose_unprojected(tape: Tape, code: tuple[int, float], structure: Structure | None, recall: bool) -> set[str]:
    """Choose the roles whose rows the association is to read unprojected, and to project itself."""
    spec, layout = tape.spec, tape.layout
    shared = tape.inputs[0].ndim == 2 and layout.offsets is None  # projected once for all samples
    by_core = structure is None or structure.association() is None
    if spec.appended or shared or layout.queries > FEW_QUERIES or not by_core:
        return set()

    def workload(role: Role, x: Array, passes: int) -> Workload:
        rows, queries = x.size // x.shape[-1], layout.samples * layout.queries
        return Workload(rows, queries, rows / max(layout.samples, 1), x.shape[-1], role.width, passes)

    key, value, steps = spec.key, spec.value, spec.update_steps_max
    cheaper, found = _roles.is_cheaper_unprojected, set()
    values = [workload(value, tape.inputs[2], 1)] if value.projected and not recall else []
    if values and cheaper(*values):
        found = {value.name}
    limited = spec.gradient == "implicit" or not row_of(code).shift_invariant or spec.normalize_hopfield_space
    if key.projected and steps is not None and not limited:
        keys = workload(key, tape.inputs[0], 2 * (steps + 1))
        if cheaper(keys) and (found or cheaper(keys, *values)):  # unprojected keys have one head: values must, too
            found = {key.name, *([value.name] if values else [])}
    return found


def _project(tape: Tape) -> tuple[dict[str, Array], dict[str, Projection]]:
    """Project each role's rows to (..., H or 1, features), with one product for each source; return the projections
    that the association does itself, too.
    """
    rows: dict[str, Array] = {}
    projections: dict[str, Projection] = {}
    parameters, H = tape.parameters, tape.spec.num_heads
    tape.grouped, tape.plain = [], {}
    for source in tape.sources:
        group = [role for role in source.roles if role.projected and role.name not in tape.unprojected]
        weight = None
        if group:
            weight, bias, plain = fold_projections(group, parameters)
            y, at = dense.linear(source.xhat, weight, bias), 0
            for role, role_weight in zip(group, plain, strict=True):
                part = y[..., at : at + H * role.width]
                rows[role.name] = part.reshape(*part.shape[:-1], H, role.width)
                tape.plain[role.name] = role_weight
                at += H * role.width
        tape.grouped.append((source, group, weight))
        for role in source.roles:
            if not role.projected:
                rows[role.name] = static_rows(role, source.xhat, parameters)
            elif role.name in tape.unprojected:
                own, bias, (tape.plain[role.name],) = fold_projections([role], parameters)
                bias = np.zeros(len(own), own.dtype) if bias is None else bias
                projections[role.name] = Projection(own.reshape(H, role.width, -1), bias.reshape(H, role.width))
                rows[role.name] = source.xhat[..., None, :]
    return rows, projections


def _to_association_space(tape: Tape, q: Array, k: Array, v: Array, recall: bool) -> tuple[Array, Array, Array]:
    """Move queries, stored rows and values into the association space: normalise, append, and pad ragged queries."""
    spec, layout, H = tape.spec, tape.layout, tape.spec.num_heads
    tape.in_space, tape.offsets, tape.padded = {}, layout.offsets, None
    if spec.normalize_hopfield_space:
        q, k = _norm_in_space(tape, spec.query, q), _norm_in_space(tape, spec.key, k)
    if q.shape[-2] != H:
        q = np.broadcast_to(q, (*q.shape[:-2], H, q.shape[-1]))
    if spec.appended:
        k, v = _append(tape, k, spec.bias_k), _append(tape, v, None if recall else spec.bias_v)
        if layout.offsets is not None:
            tape.offsets = layout.offsets + spec.appended * np.arange(layout.samples + 1)
    if layout.ragged_state and layout.offsets is not None:
        sample = np.repeat(np.arange(layout.samples), np.diff(layout.offsets))
        tape.padded = sample, np.arange(len(q)) - layout.offsets[sample]
        padded = np.zeros((layout.samples, layout.queries, *q.shape[1:]), q.dtype)
        padded[tape.padded] = q
        q = padded
    return q, k, v


def _norm_in_space(tape: Tape, role: Role, x: Array) -> Array:
    """Normalise rows in the association space."""
    spec = tape.spec
    xhat, _ = tape.in_space[role.name] = dense.normalize(np.ascontiguousarray(x), spec.normalize_hopfield_space_eps)
    if spec.in_space_norm is None:
        return xhat
    gain, shift = spec.in_space_norm
    return xhat * tape.parameters[gain] + tape.parameters[shift]


def _append(tape: Tape, rows: Array, bias: str | None) -> Array:
    """Append the bias pattern and the zero pattern to the rows of every bag."""
    offsets = tape.layout.offsets
    heads, width = rows.shape[-2:]
    more = np.zeros((tape.spec.appended, heads, width), rows.dtype)
    if bias is not None:
        more[0] = tape.parameters[bias].reshape(heads, width)
    if rows.ndim == 4:
        return np.concatenate([rows, np.broadcast_to(more, (len(rows), *more.shape))], axis=1)
    if offsets is None:
        return np.concatenate([rows, more])
    ends = offsets[1:]
    return np.insert(rows, np.repeat(ends, len(more)), np.tile(more, (len(ends), 1, 1)), axis=0)


def _project_output(tape: Tape) -> None:
    """Compute the layer's output from that of the association."""
    spec = tape.spec
    out = tape.out if tape.padded is None else tape.out[tape.padded]
    tape.flat = out = out.reshape(*out.shape[:-2], out.shape[-2] * out.shape[-1])
    if spec.out_weight is not None:
        bias = None if spec.out_bias is None else tape.parameters[spec.out_bias]
        out = dense.linear(out, tape.parameters[spec.out_weight], bias)
    tape.slope = None
    if spec.association_activation is not None:
        function, slope = ACTIVATIONS[spec.association_activation]
        out = function(out)
        tape.slope = slope(out)
    tape.result = out if spec.batch_first else np.ascontiguousarray(out.swapaxes(0, 1))


# --- backward -------------------------------------------------------------------------------------


def _backward_output(tape: Tape, grad: Array, gradients: Gradients) -> Array:
    """Return the gradient in the association's output; add those of the output projection."""
    spec = tape.spec
    if not spec.batch_first:
        grad = grad.swapaxes(0, 1)
    if tape.slope is not None:
        grad = grad * tape.slope
    grad = np.ascontiguousarray(grad)
    if spec.out_weight is not None:
        dflat, dweight, dbias = dense.linear_backward(tape.flat, tape.parameters[spec.out_weight], grad)
        assert dflat is not None
        gradients.add(spec.out_weight, dweight)
        if spec.out_bias is not None:
            gradients.add(spec.out_bias, dbias)
        grad = dflat
    if tape.padded is None:
        return grad.reshape(tape.out.shape)
    padded = np.zeros_like(tape.out)
    padded[tape.padded] = grad.reshape(-1, *tape.out.shape[2:])
    return padded


def _backward_association(
    tape: Tape, grad: Array, needs: Collection[str], places: dict[str, Array], gradients: Gradients
) -> tuple[dict[str, Array], list[Projection]]:
    """Return the gradients in each role's rows, and in the projections that the association did itself.

    `places` are arrays for the gradients of some roles.
    """
    spec = tape.spec
    query, key, value = spec.query, spec.key, spec.value
    need_rows = spec.in_space_norm is not None or any(
        role.name in needs
        or (role.projected and role.name not in tape.unprojected)
        or (role.gain is not None and not role.projected)
        for role in (key, value)
    )
    dq, dk, dv, dbeta, *dprojections = gradients_of(
        tape.saved,
        grad,
        need_rows,
        spec.learnable_scaling,
        (places.get(query.name), places.get(key.name), places.get(value.name)),
    )
    if "queries" in needs:
        gradients.found["queries"] = dq
    if "association" in needs:
        gradients.found["association"] = grad
    if spec.learnable_scaling:
        gradients.add("log_scaling", (dbeta * tape.scaling).astype(grad.dtype))
    if tape.padded is not None:
        dq = dq[tape.padded]
    if spec.appended and need_rows:
        dk = _append_backward(tape, dk, spec.bias_k, gradients)
        dv = _append_backward(tape, dv, spec.bias_v, gradients)
    if spec.normalize_hopfield_space:
        dq = _norm_in_space_backward(tape, query, dq, gradients)
        dk = _norm_in_space_backward(tape, key, dk, gradients) if need_rows else None
    return {query.name: dq, key.name: dk, value.name: dv}, dprojections


def _append_backward(tape: Tape, drows: Array, bias: str | None, gradients: Gradients) -> Array:
    """Return the gradient of `_append` in the rows; add that in the bias pattern."""
    n = tape.spec.appended
    if drows.ndim == 4:
        dmore, drows = drows[:, -n:].sum(axis=0), drows[:, :-n]
    elif tape.offsets is None:
        dmore, drows = drows[-n:], drows[:-n]
    else:
        places = (tape.offsets[1:, None] - n + np.arange(n)).ravel()
        dmore = drows[places].reshape(-1, n, *drows.shape[1:]).sum(axis=0)
        drows = np.delete(drows, places, axis=0)
    if bias is not None:
        gradients.add(bias, dmore[0].reshape(tape.parameters[bias].shape).copy())
    return drows


def _norm_in_space_backward(tape: Tape, role: Role, dy: Array, gradients: Gradients) -> Array:
    """Compute the gradient of `_norm_in_space`."""
    xhat, rstd = tape.in_space[role.name]
    if not role.projected:  # all heads saw the same
        dy = dy.sum(axis=-2, keepdims=True)
    if tape.spec.in_space_norm is not None:
        dy = gradients.add_affine(*tape.spec.in_space_norm, xhat, dy)
    return dense.normalize_backward(xhat, rstd, dy)


def _gradient_buffers(tape: Tape) -> tuple[list[Array | None], dict[str, Array]]:
    """Allocate the arrays that the association is to write gradients to. For each product that projected several roles,
    one array holds the gradients of these roles side by side, as the backward pass of that product reads them.
    """
    spec, H = tape.spec, tape.spec.num_heads
    buffers: list[Array | None] = []
    places: dict[str, Array] = {}
    reshaped = tape.padded is not None or spec.appended or spec.normalize_hopfield_space
    for source, group, weight in tape.grouped:
        shared_state = spec.query in group and source.xhat.ndim == 2
        apart = len(group) < 2 or any(role.width != group[0].width for role in group)
        if weight is None or apart or reshaped or shared_state:
            buffers.append(None)
            continue
        shape = source.xhat.shape[:-1]
        dy = np.empty((*shape, len(weight)), weight.dtype)
        parts = dy.reshape(*shape, len(group), H, group[0].width)
        places |= {role.name: parts[..., i, :, :] for i, role in enumerate(group)}
        buffers.append(dy)
    return buffers, places


def _backward_projections(
    tape: Tape,
    role_grads: dict[str, Array],
    projection_grads: list[Projection],
    needs: Collection[str],
    buffers: list[Array | None],
    gradients: Gradients,
) -> list[Array | None]:
    """Return the gradients in the normalised rows of the sources, from those in each role's rows; add those of the
    projections' parameters.
    """
    H = tape.spec.num_heads
    found: list[Array | None] = []
    for (source, group, weight), dy in zip(tape.grouped, buffers, strict=True):
        total = None
        if weight is not None:
            if dy is None:
                parts = [role_grads[role.name].reshape(*source.xhat.shape[:-1], H * role.width) for role in group]
                dy = np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts, axis=-1)
            need = any(role.name in needs for role in group)
            total, dweight, dbias = dense.linear_backward(source.xhat, weight, dy, need)
            at = 0
            for role in group:
                end = at + H * role.width
                gradients.add_folded(role, tape.plain[role.name], dweight[at:end], dbias[at:end])
                at = end
        for role in source.roles:
            drows = role_grads[role.name]
            if role.name in tape.unprojected:
                plain, gradient = tape.plain[role.name], projection_grads[0 if role.name == "stored_pattern" else 1]
                gradients.add_folded(role, plain, gradient.weight.reshape(plain.shape), gradient.bias.ravel())
                drows = None if drows is None else drows[..., 0, :]
            elif role.projected:
                continue
            elif drows is not None:
                drows = drows.sum(axis=-2)
                if role.gain is not None and role.shift is not None:
                    drows = gradients.add_affine(role.gain, role.shift, source.xhat, drows)
            if drows is not None and role.name in needs:
                total = drows if total is None else add_arrays(total, drows)
        found.append(total)
    return found


def _input_grads(tape: Tape, in_sources: list[Array | None]) -> dict[str, Array]:
    """Return the inputs' gradients, through their normalisations; an array in several roles has its gradient in the
    first.
    """
    total: dict[int, Array] = {}
    for source, d in zip(tape.sources, in_sources, strict=True):
        if d is not None:
            if source.rstd is not None:
                d = dense.normalize_backward(source.xhat, source.rstd, d)
            total[id(source.x)] = total[id(source.x)] + d if id(source.x) in total else d
    found = {}
    for name, x in zip(INPUTS, tape.inputs, strict=True):
        if (d := total.pop(id(x), None)) is not None:
            found[name] = d if tape.spec.batch_first or d.ndim == 2 else d.swapaxes(0, 1)
    return found
