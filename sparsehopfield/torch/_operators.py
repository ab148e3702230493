"""The association as autograd functions and as operators, and which of them a call takes.

Operators cost more than functions, and torch.func.grad cannot differentiate them (jvp would silently be 0); functions
cannot be seen by compilers. So neither is public: `associate` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch.autograd import Function

from sparsehopfield.torch import _native, _plain, _tape
from sparsehopfield.torch._arguments import GRADED, Options, Tensors, samples_of
from sparsehopfield.torch._backend import EAGER, PLAIN, TRANSFORMED, is_batched, is_transformed, route_of

__all__ = ["associate"]

Gradients = tuple[Tensor | None, ...]  # of the first eight tensors
TENSORS = len(Tensors._fields)
OPTIONS = len(Options._fields)
QUERIES, STORED, VALUES, BETA = range(4)
UNGRADED = (None,) * (TENSORS - GRADED)


def associate(tensors: Tensors, options: Options, backend: str | None = None) -> Tensor:
    """Return the association (B, N, H, v) of arguments that fit one another, in the queries' dtype.

    backend: None for whoever can compute, "core" or "torch".
    """
    route = route_of(Tensors._fields, tensors, backend, _lacking(tensors.mask))
    if route is PLAIN:
        return _plain.associate(tensors, options)
    if route is TRANSFORMED:
        return _transformed(options, *tensors)[0]
    needed = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors[:GRADED])
    if route is EAGER:
        return _eager(options, *tensors) if needed else _native.forward(tensors, options, False)[0]
    keep = needed and not _is_exporting() and torch._C._get_tracing_state() is None
    return torch.ops.sparsehopfield.associate(*tensors, *options, keep)[0]


def _lacking(mask: Tensor | None) -> str:
    """Return what the core lacks for a mask, in words: the gradient of one that is learned."""
    if mask is None or mask.dtype == torch.bool:
        return ""
    # a transform's own tensors do not tell reliably whether the mask is differentiated
    learned = torch.is_grad_enabled() and mask.requires_grad
    return "gradient of a mask" if learned or is_transformed() else ""


def _never() -> bool:
    return False


_is_exporting = getattr(torch.compiler, "is_exporting", _never)  # since PyTorch 2.7


# --- eager mode -------------------------------------------------------------------------------------------------------


def _wanted(found: Sequence[Tensor | None], needs: Sequence[bool]) -> Gradients:
    """Return the gradients that are needed; None in place of the others."""
    return tuple(d if is_needed else None for d, is_needed in zip(found, needs, strict=False))


class _Eager(Function):
    """The association in the core: a function without setup_context, which would cost as much as a small call."""

    @staticmethod
    def forward(ctx: Any, options: Options, *given: Tensor | None) -> Tensor:
        tensors = Tensors(*given)  # type: ignore[arg-type]
        out, handle = _native.forward(tensors, options, True)
        ctx.save_for_backward(handle, *given)
        ctx.options = options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        handle, *given = ctx.saved_tensors
        needs = ctx.needs_input_grad[1 : 1 + GRADED]
        asked = needs[STORED] or needs[VALUES], needs[BETA]
        if is_batched(grad):  # which torch takes apart for operators
            if torch.is_grad_enabled():
                raise NotImplementedError("grad: batched gradients have no second derivative; see torch.func.jacrev")
            found = torch.ops.sparsehopfield.associate_backward(grad, handle, *given, *ctx.options, *asked)
            found = [None if t is None else d for d, t in zip(found, given[:GRADED], strict=True)]
        elif torch.is_grad_enabled():  # for second derivatives
            found = _backward(grad, handle, ctx.options, *asked, *given)
        else:
            found = _native.backward(grad, handle, Tensors(*given), ctx.options, *asked)
        return (None, *_wanted(found, needs), *UNGRADED)


# --- the transforms of torch.func, and second derivatives ---------------------------------------------------------


class _Transformed(Function):
    """The association in the core, and its tape."""

    @staticmethod
    def forward(options: Options, *given: Tensor | None) -> Any:
        return _native.forward(Tensors(*given), options, True)  # type: ignore[arg-type]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        options, *given = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], *given)
        ctx.options = options

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        handle, *given = ctx.saved_tensors
        needs = ctx.needs_input_grad[1 : 1 + GRADED]
        found = _backward(grad, handle, ctx.options, needs[STORED] or needs[VALUES], needs[BETA], *given)
        return (None, *_wanted(found, needs), *UNGRADED)

    @staticmethod
    def vmap(info: Any, in_dims: Any, options: Options, *given: Tensor | None) -> Any:
        dims = in_dims[1:]
        batch = info.batch_size
        joined = _as_samples(batch, dims, Tensors(*given), options)  # type: ignore[arg-type]
        if joined is not None:
            out, handle = _transformed(options, *joined)
            return (out.reshape(batch, -1, *out.shape[1:]), handle), (0, None)
        outs = [_transformed(options, *_selected(given, dims, i))[0] for i in range(batch)]
        return (torch.stack(outs), _tape.empty()), (0, None)


class _Backward(Function):
    """The gradients of the association, by the core; their own gradients are plain torch's."""

    @staticmethod
    def forward(
        grad: Tensor, handle: Tensor, options: Options, need_rows: bool, need_beta: bool, *given: Tensor | None
    ) -> Gradients:
        return _native.backward(grad, handle, Tensors(*given), options, need_rows, need_beta)  # type: ignore[arg-type]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        grad, _, options, _, _, *given = inputs
        ctx.save_for_backward(grad, *given)
        ctx.options = options
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *second: Tensor | None) -> Any:
        grad, *given = ctx.saved_tensors
        if ctx.options.implicit and ctx.options.steps:
            raise NotImplementedError("gradient: 'implicit' has no second derivatives; use 'unrolled'")
        needs = ctx.needs_input_grad[5 : 5 + GRADED]
        asked = [i for i, d in enumerate(second) if d is not None]
        if not asked:
            return (None,) * (5 + TENSORS)
        leaves = [i for i, t in enumerate(given[:GRADED]) if t is not None and (needs[i] or i in asked)]

        def associated(*some: Tensor) -> Tensor:
            tensors = list(given)
            for i, t in zip(leaves, some, strict=True):
                tensors[i] = t
            return _plain.associate(Tensors(*tensors), ctx.options)

        def gradients(grad: Tensor, *some: Tensor) -> tuple[Tensor, ...]:
            found = dict(zip(leaves, torch.func.vjp(associated, *some)[1](grad), strict=True))
            return tuple(found[i] for i in asked)

        pulled: Any = torch.func.vjp(gradients, grad, *(given[i] for i in leaves))
        dgrad, *rest = pulled[1](tuple(second[i] for i in asked))
        found = dict(zip(leaves, rest, strict=True))
        return (dgrad, None, None, None, None, *_wanted([found.get(i) for i in range(GRADED)], needs), *UNGRADED)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        grad: Tensor,
        handle: Tensor,
        options: Options,
        need_rows: bool,
        need_beta: bool,
        *given: Tensor | None,
    ) -> Any:
        dims = in_dims[5:]
        batch = info.batch_size
        tensors = Tensors(*given)  # type: ignore[arg-type]
        needs = need_rows, need_beta
        projected = tensors.key_weight is not None or tensors.value_weight is not None
        joined = None
        if any(d is not None for d in dims) and not need_beta and not projected:  # whose gradients are of each sample
            joined = _as_samples(batch, dims, tensors, options)
        if joined is not None:
            found = _backward(_batched(grad, in_dims[0], batch).flatten(0, 1), handle, options, *needs, *joined)
            # rows that all samples share were repeated for each
            found = [d if d is None else d.reshape(batch, -1, *d.shape[1:]) for d in found]
            own = [None if t is None else t.dim() - (d is not None) for t, d in zip(given, dims, strict=True)]
            found = [d.sum(1) if d is not None and n == 3 else d for d, n in zip(found, own, strict=False)]
        else:
            # where grad alone differs, all can be had from one tape
            each = [
                _backward(
                    grad if in_dims[0] is None else grad.select(in_dims[0], i),
                    handle,
                    options,
                    *needs,
                    *_selected(given, dims, i),
                )
                for i in range(batch)
            ]
            found = [None if some[0] is None else torch.stack(some) for some in zip(*each, strict=True)]
        return tuple(found), tuple(None if d is None else 0 for d in found)


def _selected(given: Sequence[Tensor | None], dims: Sequence[int | None], i: int) -> list[Tensor | None]:
    """Return entry i of the tensors that are batched, and the others."""
    return [t if t is None or d is None else t.select(d, i) for t, d in zip(given, dims, strict=True)]


def _batched(t: Tensor, dim: int | None, batch: int) -> Tensor:
    """Return a tensor with the batch as its first axis."""
    return t.expand(batch, *t.shape) if dim is None else t.movedim(dim, 0)


def _as_samples(batch: int, dims: Sequence[int | None], tensors: Tensors, options: Options) -> Tensors | None:
    """Return the tensors of a batch of associations as those of one, whose samples are all samples of the batch.

    None where that is not possible: what all samples share would differ, and so would the samples' random numbers.
    """
    shared = (3, 4, 5, 6, 7, 10)  # beta, projections, offsets
    if options.dropout or tensors.offsets is not None or any(dims[i] is not None for i in shared):
        return None
    own = [None if t is None else t.dim() - (d is not None) for t, d in zip(tensors, dims, strict=True)]
    samples = 1
    for i in (STORED, QUERIES):
        t, d = tensors[i], dims[i]
        if own[i] == 4 and t is not None:
            samples = t.select(d, 0).shape[0] if d is not None else t.shape[0]
            break
    new = list(tensors)
    for i in (QUERIES, STORED, VALUES):
        t = _batched(tensors[i], dims[i], batch)  # type: ignore[arg-type]
        if own[i] == 3:
            t = t.unsqueeze(1).expand(batch, samples, *t.shape[1:])
        new[i] = t.flatten(0, 1)
    if tensors.padding_mask is not None:
        new[8] = _batched(tensors.padding_mask, dims[8], batch).flatten(0, 1)
    if tensors.mask is not None and (own[9] != 2 or dims[9] is not None):
        t = _batched(tensors.mask, dims[9], batch)
        if own[9] == 2:
            t = t.unsqueeze(1).expand(batch, samples, *t.shape[1:])
        new[9] = t.flatten(0, 1)
    return Tensors(*new)  # type: ignore[arg-type]


# Function.apply has no types
_eager: Any = _Eager.apply
_transformed: Any = _Transformed.apply
_backward: Any = _Backward.apply


# --- operators, for compilers --------------------------------------------------------------------------------


# what both operators take, written as torch writes schemas
_SCHEMA_TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", int: "SymInt", float: "float", bool: "bool", str: "str"}
_ARGUMENTS = ", ".join(
    f"{_SCHEMA_TYPES[hint]} {name}"
    for arguments in (Tensors, Options)
    for name, hint in get_type_hints(arguments).items()
)


@torch.library.custom_op(
    "sparsehopfield::associate",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_ARGUMENTS}, bool keep) -> (Tensor, Tensor)",
)
def _associate(*given: Any) -> tuple[Tensor, Tensor]:
    out, handle = _native.forward(Tensors(*given[:TENSORS]), Options(*given[TENSORS:-1]), given[-1])
    return out, _tape.empty() if handle is None else handle


@_associate.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor]:
    tensors = Tensors(*given[:TENSORS])
    queries, weight = tensors.queries, tensors.value_weight
    samples = samples_of(queries, tensors.stored, tensors.offsets)
    features = tensors.values.shape[-1] if weight is None else weight.shape[1]
    out = queries.new_empty(samples, queries.shape[-3], queries.shape[-2], features)
    return out, queries.new_empty(1, dtype=torch.uint8)


@torch.library.custom_op(
    "sparsehopfield::associate_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad, Tensor handle, {_ARGUMENTS}, bool need_rows, bool need_beta) -> "
    f"({', '.join(['Tensor'] * GRADED)})",
)
def _associate_backward(grad: Tensor, handle: Tensor, *given: Any) -> tuple[Tensor, ...]:
    found = _native.backward(grad, handle, Tensors(*given[:TENSORS]), Options(*given[TENSORS:-2]), *given[-2:])
    return tuple(given[QUERIES].new_empty(0) if d is None else d for d in found)


@_associate_backward.register_fake
def _(grad: Tensor, handle: Tensor, *given: Any) -> tuple[Tensor, ...]:
    need_rows, need_beta = given[-2:]
    is_there = (True, need_rows, need_rows, need_beta, True, True, True, True)
    return tuple(
        given[QUERIES].new_empty(0) if t is None or not found else t.new_empty(t.shape)
        for t, found in zip(given[:GRADED], is_there, strict=True)
    )


def _setup_operator(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], *inputs[:TENSORS])
    ctx.options = inputs[TENSORS : TENSORS + OPTIONS]


def _operator_backward(ctx: Any, grad: Tensor, _: Any) -> Any:
    handle, *given = ctx.saved_tensors
    needs = ctx.needs_input_grad[:GRADED]
    asked = needs[STORED] or needs[VALUES], needs[BETA]
    found = torch.ops.sparsehopfield.associate_backward(grad, handle, *given, *ctx.options, *asked)
    there = [d if t is not None else None for d, t in zip(found, given[:GRADED], strict=True)]
    return (*_wanted(there, needs), *UNGRADED, *(None,) * (OPTIONS + 1))


_associate.register_autograd(_operator_backward, setup_context=_setup_operator)
