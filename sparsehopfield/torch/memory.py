"""One step of retrieval, all steps with the gradient of the fixed point, and memories that take and give tensors."""

from __future__ import annotations

import copy as copying
import functools
import inspect
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self

import numpy as np
import torch
from torch import Tensor

import sparsehopfield.memory
from sparsehopfield import functional
from sparsehopfield._engine.call import Call, RetrievalInfo, Separation
from sparsehopfield._engine.checks import as_flag, as_positive_numbers
from sparsehopfield._engine.chunked import copy_array
from sparsehopfield._engine.docstrings import sections
from sparsehopfield._engine.executor import CoreExecutor
from sparsehopfield._engine.pattern_set import IndexUse, PatternSet
from sparsehopfield._engine.separations import SIMILARITIES, as_choice, has_cutoff, row_of, separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield.torch._arguments import as_dense
from sparsehopfield.torch._arrays import compute_dtype, given_array, lent_array, tensors_of
from sparsehopfield.torch._backend import EAGER, check_devices, is_batched, route_of
from sparsehopfield.torch._fixed_point import Model, Supports, gradients
from sparsehopfield.torch.functional import as_beta, associate, renamed

__all__ = ["HopfieldMemory", "energy", "retrieve", "update"]

Arguments = ParamSpec("Arguments")
ArrayMemory = sparsehopfield.memory.HopfieldMemory
_RETRIEVED = "queries", "patterns", "values", "beta"


@dataclass
class _Request:
    """What a retrieval is asked for, beside tensors."""

    similarity: str
    separation: Separation
    structure: Structure | None
    max_steps: int
    tol: float | None
    return_info: bool | Collection[str]
    check_finite: bool
    index: IndexUse
    sparse_grad: bool
    keeps: bool  # whether a backward pass may follow
    info: RetrievalInfo | None = None  # of the retrieval, when it is done


class _Retrieve(torch.autograd.Function):
    """Retrieval in the core, and the gradient of the fixed point in torch.

    `forward` returns the result, and for the backward pass the states, which queries rest, and the supports.
    """

    @staticmethod
    def forward(
        queries: Tensor, patterns: Tensor, values: Tensor | None, beta: Tensor, request: _Request
    ) -> tuple[Tensor, ...]:
        """Return the states (..., d) or the values (..., v), and what the backward pass needs."""
        code, structure = separation_code(request.separation), as_structure(request.structure)
        if request.keeps and not row_of(code).has_energy:
            raise ValueError(
                f"separation: {row_of(code).class_name} has no energy, and retrieval no gradient; detach the tensors"
            )
        rows, mixed = lent_array("patterns", patterns), lent_array("values", values)
        similarity, check, index = request.similarity, request.check_finite, request.index
        stored = PatternSet(rows, mixed, similarity, copy=None, check_finite=check, index=index)
        call = Call.prepare(stored, lent_array("queries", queries), lent_array("beta", beta), code, structure)
        if request.keeps and not isinstance(call.executor, CoreExecutor):
            raise ValueError(f"structure: {type(structure).__name__} has no gradient in retrieval; detach the tensors")
        asked = True if request.return_info is False else request.return_info
        out, info = call.retrieve(request.max_steps, request.tol, asked, None)
        request.info = info
        result = _in_kind(tensors_of(out, queries.device), queries)
        if not request.keeps:
            return (result,)
        states = tensors_of(info.states).reshape(call.rows.shape)
        kept = states.clone() if values is None else states, tensors_of(info.converged).reshape(-1)
        executor = call.executor
        if isinstance(executor, CoreExecutor) and (executor.pairs is not None or has_cutoff(code)):
            start, position, _, weight = executor.associate(states.numpy())
            return result, *kept, *map(tensors_of, (start, position, weight))
        return result, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs and what the forward pass found."""
        queries, patterns, values, beta, request = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(patterns, values, beta, *output[1:])
        ctx.queries = queries.shape, queries.dtype, queries.device
        ctx.options = Model(request.similarity, separation_code(request.separation)), request.sparse_grad

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, which is 0, patterns, values and beta."""
        if is_batched(grad):
            raise NotImplementedError("grad: retrieve takes no batched gradients; pass one after the other")
        shape, dtype, device = ctx.queries
        patterns, values, beta, *kept = ctx.saved_tensors
        of_queries = torch.zeros(shape, dtype=dtype, device=device) if ctx.needs_input_grad[0] else None
        options = shape[:-1], *ctx.options, ctx.needs_input_grad[1:4]
        found = _RetrieveBackward.apply(grad, patterns, values, beta, kept, *options)  # type: ignore[no-untyped-call]
        return of_queries, *found, None

    @staticmethod
    def vmap(*_: Any) -> Any:
        """Refuse vmap."""
        raise NotImplementedError("queries: retrieve has no vmap; queries may have any leading axes")


class _RetrieveBackward(torch.autograd.Function):
    """The backward pass of `_Retrieve`, which has no derivative itself, and says so where one is asked for."""

    @staticmethod
    def forward(
        grad: Tensor,
        patterns: Tensor,
        values: Tensor | None,
        beta: Tensor,
        kept: list[Tensor],
        leading: torch.Size,
        model: Model,
        sparse_grad: bool,
        needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of patterns, values and beta that are needed."""
        states, converged, *support = kept
        n = len(states)
        g = grad.detach().cpu().double().reshape(n, grad.shape[-1])
        if (moving := g.ne(0).any(1) & ~converged).any():
            raise ArithmeticError(
                f"max_steps: query {int(moving.nonzero()[0, 0])} is not at rest, so that its result has no gradient; "
                "raise max_steps, or leave it out of the loss (return_info=True tells which queries have converged)"
            )
        betas = beta.detach().cpu().double().expand(leading)
        stored, mixed = patterns.cpu(), None if values is None else values.cpu()
        supports = Supports(*support) if support else None
        found = gradients(g, states.double(), stored, mixed, betas.reshape(n), supports, model)

        def as_given(rows: Tensor | None, like: Tensor | None) -> Tensor | None:
            if rows is None or like is None:
                return None
            rows = rows.to(like.dtype).to(like.device)
            if found.touched is None:
                return rows
            touched = found.touched.to(like.device)
            if sparse_grad:
                options: dict[str, Any] = {"device": like.device, "is_coalesced": True, "check_invariants": False}
                return torch.sparse_coo_tensor(touched[None], rows, like.shape, **options)
            return torch.zeros_like(like, memory_format=torch.contiguous_format).index_copy_(0, touched, rows)

        of_beta = (
            found.beta.reshape(leading).sum_to_size(beta.shape).to(beta.dtype).to(beta.device) if needs[2] else None
        )
        of_values = as_given(found.values, values) if needs[1] else None
        return as_given(found.patterns, patterns) if needs[0] else None, of_values, of_beta

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Refuse a second derivative."""
        raise RuntimeError("patterns: the gradient of retrieve at a fixed point has no gradient itself")

    vmap = _Retrieve.vmap


def retrieve(
    queries: Tensor,
    patterns: Tensor,
    beta: float | Tensor = 1.0,
    *,
    values: Tensor | None = None,
    max_steps: int = 1000,
    tol: float | None = None,
    return_info: bool | Collection[str] = False,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
    structure: Structure | None = None,
    sparse_grad: bool = False,
    check_finite: bool = True,
    index: IndexUse = "auto",
) -> Any:
    """Update queries until nothing moves, and pass gradients back through where they rest.

    The core retrieves, with its index and for any number of updates. The gradient is that of the fixed point, computed
    in each query's support alone: nothing is kept of the updates, and nothing of patterns without weight.

    Parameters
    ----------
    queries : Tensor, shape (..., d)
        Their gradient is 0: where a query rests does not change with where it began.
    patterns : Tensor, shape (M, d)
        One row a pattern.
    beta : float or Tensor, positive
        Inverse temperature; a tensor broadcasts to the queries' leading axes, and may have a gradient.
    values : Tensor, shape (M, v), optional
        The iteration runs on the patterns; the result is the values mixed by the weights there.
    max_steps : int, at least 0
        Updates at most.
    tol : float, at least 0, optional
        A query has converged when a step moves it by at most `tol * max |xi|`, in Euclidean length; by default 4 eps of
        the dtype.
    return_info : bool, or of {"weights", "energy"}
        Whether to return a RetrievalInfo, too; names ask for what costs extra.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as in `update`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default.
    sparse_grad : bool
        Whether the gradients of patterns and values are sparse COO tensors with the rows that have weight in some
        result, as those of `torch.nn.Embedding(sparse=True)`, for `torch.optim.SparseAdam` and `SGD`.
    check_finite : bool
        Whether to look for NaN and infinity in `values`, too.
    index : {"auto", True, False}
        Whether the call builds an index of the patterns, as for `sparsehopfield.HopfieldMemory`.

    Returns
    -------
    states : Tensor, shape (..., d), or (..., v) with values
        In the queries' dtype, on their device. Computed in float64 if any of the tensors is float64, else in float32;
        the gradients in float64.
    info : RetrievalInfo
        If asked for, of tensors without gradients.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault: for gradients, `separation` if the map has no energy (Polynomial), `structure` if
        it is one of features, `sparse_grad` if all patterns have weight.
    ArithmeticError
        In the backward pass, if a query whose result has a gradient other than 0 is not at rest, or rests where an
        update would not bring it back from near by: at an unstable fixed point, such as one between patterns, or at
        one that is not isolated. Such a state has no gradient.

    Warns
    -----
    RetrievalWarning
        If queries are still moving after `max_steps`.

    See Also
    --------
    sparsehopfield.torch.update : One step, which has a gradient in the queries.
    sparsehopfield.torch.HopfieldMemory : Keep the patterns, and retrieve without gradients.
    sparsehopfield.retrieve : The same of arrays.

    Notes
    -----
    1. With J the Jacobian of the update T at x = T(x), a gradient g of x acts on patterns, beta and values as
       (1 - J)^-1 g does through one update. J is symmetric for maps with an energy, and 1 - J is factored by Cholesky,
       in the d features or in the k patterns of a support, whichever are fewer: some N k^2 d operations for N queries.
       Softmax, whose supports are all patterns, costs N M d^2, block by block; no N x M array is made.
    2. At the edge of a support the gradient is that of the support as it is.
    3. Once differentiable; without `torch.func.vmap` and forward mode. Under `torch.compile` it is a graph break.
       There is no `backend`: the core alone retrieves. Tensors on other devices are copied to the CPU, and the results
       back.

    References
    ----------
    Bai, Kolter & Koltun 2019, "Deep equilibrium models"; for the Jacobians Martins & Astudillo 2016, Peters, Niculae &
    Martins 2019, Santos, Niculae, McNamee & Martins 2024.

    Examples
    --------
    Patterns are learned so that what damaged queries retrieve comes near what was meant:

    >>> import torch
    >>> from sparsehopfield.torch import retrieve
    >>> rng = torch.Generator().manual_seed(0)
    >>> meant = torch.randn(20, 16, generator=rng)
    >>> damaged = meant + 0.2 * torch.randn(20, 16, generator=rng)
    >>> patterns = torch.nn.Parameter(meant + 0.3 * torch.randn(20, 16, generator=rng))
    >>> optimizer = torch.optim.SGD([patterns], lr=0.1)
    >>> def loss():
    ...     states = retrieve(damaged, patterns, similarity="euclidean", sparse_grad=True)
    ...     return (states - meant).square().sum()
    >>> before = loss().item()
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     loss().backward()
    ...     optimizer.step()
    >>> loss().item() < 0.01 * before
    True
    """
    tensors = [as_dense("queries", queries), as_dense("patterns", patterns)]
    if values is not None:
        tensors.append(as_dense("values", values))
    temperature = beta if isinstance(beta, Tensor) else torch.from_numpy(as_positive_numbers("beta", beta))
    keeps = torch.is_grad_enabled() and any(t.requires_grad for t in [*tensors, temperature])
    if as_flag("sparse_grad", sparse_grad) and structure is None and not has_cutoff(separation_code(separation)):
        raise ValueError("sparse_grad: this separation gives weight to all patterns, so that gradients have all rows")
    request = _Request(
        similarity, separation, structure, max_steps, tol, return_info, check_finite, index, bool(sparse_grad), keeps
    )
    return _eagerly(_retrieved, queries, patterns, values, temperature, request)


def _eagerly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, by a break in the graph where a caller is being compiled."""
    if torch.compiler.is_compiling():
        function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return function(*arguments)


def _retrieved(queries: Tensor, patterns: Tensor, values: Tensor | None, beta: Tensor, request: _Request) -> Any:
    """Return what `retrieve` returns."""
    tensors = queries, patterns, values, beta
    on_cpu = all(t is None or t.is_cpu for t in tensors)  # others are copied there, each by itself
    if (
        not request.keeps and on_cpu and route_of(_RETRIEVED, tensors) == EAGER
    ):  # no transform at work that would lose its derivative
        with torch.no_grad():
            result, *_ = _Retrieve.forward(*tensors, request)
    else:
        result, *_ = _Retrieve.apply(*tensors, request)  # type: ignore[no-untyped-call]
    return result if request.return_info is False else (result, tensors_of(request.info, queries.device))


def update(
    queries: Tensor,
    patterns: Tensor,
    beta: float | Tensor = 1.0,
    *,
    values: Tensor | None = None,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
    structure: Structure | None = None,
    backend: str | None = None,
) -> Tensor:
    """Make one retrieval step, differentiable in all tensors: `sparsehopfield.update`, for training.

    Parameters
    ----------
    queries : Tensor, shape (..., d)
        One row a query.
    patterns : Tensor, shape (M, d)
        One row a pattern.
    beta : float or Tensor, positive
        Inverse temperature; a tensor broadcasts to the queries' leading axes, and may have a gradient. Where one of
        several is not positive, the query is NaN.
    values : Tensor, shape (M, v), optional
        What is mixed; the patterns themselves by default.
    similarity : {"dot", "euclidean", "cosine"}
        Scores `<x, xi>`; `-|x - xi|^2/2`; `<x, xi/|xi|>`, where the unit rows are mixed, too.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default. Euclidean similarity has none
        of features.
    backend : {None, "core", "torch"}
        None: the C core on the CPU where it can, else plain torch. "core" raises an error where the core cannot.

    Returns
    -------
    Tensor, shape (..., v)
        In the queries' dtype; computed in float64 if any of queries, patterns and values is of it, else in float32.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.retrieve : All steps, with the gradient of the fixed point.
    sparsehopfield.torch.associate : The same of batches, with heads and masks.
    sparsehopfield.update : The same of arrays.

    Notes
    -----
    1. An association of layers, `sparsehopfield.torch.associate`, with scores of another similarity: euclidean ones as
       products with one feature more, of rows that are centred first. It has no index; for results without gradients
       use `HopfieldMemory.update`.
    2. Unlike `retrieve` it has a gradient in the queries, so that a map of queries and patterns, a metric, is learned.

    Examples
    --------
    Four features tell the patterns apart and four are noise; a scale for each is learned:

    >>> import torch
    >>> from sparsehopfield.torch import update
    >>> rng = torch.Generator().manual_seed(0)
    >>> meant = torch.randn(30, 8, generator=rng)
    >>> noisy = meant + torch.tensor([0.1] * 4 + [3.0] * 4) * torch.randn(30, 8, generator=rng)
    >>> scale = torch.nn.Parameter(torch.ones(8))
    >>> def loss():
    ...     states = update(noisy * scale, meant * scale, values=meant, similarity="euclidean", separation="softmax")
    ...     return (states - meant).square().mean()
    >>> before, optimizer = loss().item(), torch.optim.Adam([scale], lr=0.1)
    >>> for _ in range(50):
    ...     optimizer.zero_grad()
    ...     loss().backward()
    ...     optimizer.step()
    >>> loss().item() < 0.1 * before
    True
    >>> bool(scale[:4].abs().min() > scale[4:].abs().max())
    True
    """
    _check_numbers("queries", queries)
    if values is not None:
        _check_numbers("values", values)
        check_devices(("queries", "values"), (queries, values))
    products = _as_products(queries, patterns, beta, similarity, separation, structure)
    rows = products.mixed if values is None else values
    if rows.dim() != 2 or len(rows) != len(patterns) or rows.shape[1] == 0:
        raise ValueError(f"values: needs one row per pattern ({len(patterns)}), got shape {tuple(rows.shape)}")
    try:
        out = associate(
            products.queries[:, None],
            products.keys[:, None],
            rows[:, None],
            products.beta,
            separation=separation,
            structure=structure,
            backend=backend,
        )
    except (ValueError, OverflowError) as error:
        raise renamed(error, {"stored": "patterns"}) from None
    return out.to(queries.dtype).reshape(*queries.shape[:-1], rows.shape[1])


def _check_numbers(name: str, given: Any) -> None:
    """Raise unless an argument is a tensor of floating numbers."""
    if not as_dense(name, given).is_floating_point():
        raise TypeError(f"{name}: must be of floating numbers, got {given.dtype}")


class _Products(NamedTuple):
    """Queries and keys whose products are the scores; euclidean scores have one feature more than the patterns."""

    queries: Tensor  # (N, e), times beta where each has its own
    keys: Tensor  # (M, e)
    mixed: Tensor  # (M, d), the rows that a step mixes
    beta: float | Tensor  # one number
    origin: Tensor | float  # (d,), what was subtracted from queries and keys first


def _as_products(
    queries: Tensor,
    patterns: Tensor,
    beta: float | Tensor,
    similarity: str,
    separation: Separation,
    structure: Structure | None,
) -> _Products:
    """Return queries (..., d) and patterns (M, d) as queries and keys of products; raise if they do not fit."""
    _check_numbers("queries", queries)
    _check_numbers("patterns", patterns)
    if patterns.dim() != 2 or 0 in patterns.shape:
        raise ValueError(f"patterns: must be two-dimensional, one row a pattern, got shape {tuple(patterns.shape)}")
    check_devices(("queries", "patterns"), (queries, patterns))
    d = patterns.shape[1]
    if queries.dim() == 0 or queries.shape[-1] != d:
        raise ValueError(
            f"queries: the last axis must have the patterns' {d} features, got shape {tuple(queries.shape)}"
        )
    dtype = compute_dtype(queries, patterns)
    x = queries.reshape(-1, d).to(dtype)
    keys = mixed = patterns.to(dtype)
    origin: Tensor | float = 0.0
    if as_choice("similarity", similarity, SIMILARITIES) == "cosine":
        keys = mixed = torch.nn.functional.normalize(keys, dim=1)
    elif similarity == "euclidean":
        if structure is not None and structure.association() is not None:
            raise ValueError(f"structure: {type(structure).__name__} is for similarities that are products")
        if row_of(separation_code(separation)).shift_invariant:  # scores of rows far from the origin would cancel
            origin = keys.detach().mean(0)
            x, keys = x - origin, keys - origin
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        keys = torch.cat([keys, -0.5 * keys.square().sum(1, keepdim=True)], 1)
    if isinstance(beta, Tensor) and beta.dim() > 0:
        check_devices(("queries", "beta"), (queries, beta))
        shape, leading = tuple(beta.shape), tuple(queries.shape[:-1])
        try:
            each = beta.expand(leading).reshape(-1, 1).to(x.dtype)
        except RuntimeError:
            raise ValueError(f"beta: shape {shape} does not broadcast to the queries' leading axes {leading}") from None
        x, beta = x * _where_positive(each), 1.0
    return _Products(x, keys, mixed, beta, origin)


def _where_positive(beta: Tensor) -> Tensor:
    """Return beta with NaN, which is refused where the core reads it, in the place of what is not positive."""
    return torch.where(beta > 0, beta, torch.nan)


class _Conjugate(torch.autograd.Function):
    """Psi*(z) of the scores z = <x, k> of queries with all keys, whose gradient in z are the weights."""

    @staticmethod
    def forward(
        queries: Tensor, keys: Tensor, separation: Separation, structure: Structure | None, backend: str | None
    ) -> Tensor:
        """Return Psi*, (N,) of float64, for queries (N, e) and keys (M, e)."""
        x, rows = (lent_array(name, t).astype(np.float64) for name, t in (("queries", queries), ("patterns", keys)))
        energies = functional.energy(x, rows, separation=separation, structure=structure)
        return tensors_of(0.5 * np.square(x).sum(1) - energies, queries.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the queries and keys."""
        ctx.save_for_backward(*inputs[:2])
        ctx.options = dict(zip(("separation", "structure", "backend"), inputs[2:], strict=True))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries and keys, which have gradients themselves."""
        queries, keys = ctx.saved_tensors
        g = grad.to(queries.dtype)[:, None]
        of_keys = None
        with torch.enable_grad():
            mixed = keys.view_as(keys) if keys.requires_grad else keys.detach().requires_grad_()
            states = associate(queries[:, None], keys[:, None], mixed[:, None], 1.0, **ctx.options)[0, :, 0]
        if ctx.needs_input_grad[1]:  # the mixture's gradient in what it mixes alone: sum_n p_ni g_n x_n
            (of_keys,) = torch.autograd.grad(states, mixed, g * queries, create_graph=torch.is_grad_enabled())
        return g * states if torch.is_grad_enabled() else g * states.detach(), of_keys, None, None, None


def energy(
    queries: Tensor,
    patterns: Tensor,
    beta: float | Tensor = 1.0,
    *,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
    structure: Structure | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return the energy that retrieval lowers, differentiable in all tensors: `sparsehopfield.energy`, for training.

    Parameters
    ----------
    queries : Tensor, shape (..., d)
        One row a query.
    patterns : Tensor, shape (M, d)
        One row a pattern.
    beta : float or Tensor, positive
        Inverse temperature; a tensor broadcasts to the queries' leading axes, and may have a gradient. Where it is
        not positive, the query is NaN.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as in `update`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        How scores become weights; Polynomial has no energy.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default. Those of features have no
        energy.
    backend : {None, "core", "torch"}
        Who computes the gradient, as in `update`. The energy itself is computed in the core, from copies on the CPU.

    Returns
    -------
    Tensor, shape (...)
        In the queries' dtype; computed in float64. Its gradient in a query x is x - T(x), with T the update.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault; `separation` if the map has no energy (Polynomial).

    See Also
    --------
    sparsehopfield.torch.update : The step that lowers it.
    sparsehopfield.energy : The same of arrays.

    Notes
    -----
    Under `torch.compile` it is a graph break; without `torch.func.vmap` and forward mode.

    References
    ----------
    Hu et al. 2023, eq. (2.1), with the 1/beta that it lacks there.

    Examples
    --------
    >>> import torch
    >>> from sparsehopfield.torch import energy, update
    >>> X = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> x = torch.tensor([1.0, 0.8], requires_grad=True)
    >>> e = energy(x, X)
    >>> e.backward()
    >>> torch.allclose(x.grad, x - update(x, X))
    True
    """
    if not row_of(code := separation_code(separation)).has_energy:
        raise ValueError(f"separation: {row_of(code).class_name} has no energy")
    _check_numbers("queries", queries)
    leading = queries.shape[:-1]
    beta = as_beta("beta", beta, queries)
    check_devices(("queries", "beta"), (queries, beta))
    products = _as_products(queries, patterns, beta, similarity, separation, structure)
    x = products.queries * (_where_positive(beta) if beta.dim() == 0 else 1.0)
    conjugate = _eagerly(_conjugate, x.to(products.keys.dtype), products.keys, separation, structure, backend)
    squares = (queries.reshape(-1, patterns.shape[1]) - products.origin).to(conjugate.dtype).square().sum(1)
    each = beta.to(conjugate.dtype).expand(leading).reshape(-1)
    return (0.5 * squares - conjugate / each).to(queries.dtype).reshape(leading)


def _conjugate(*arguments: Any) -> Tensor:
    """Return Psi* of the scores of queries with all keys."""
    return _Conjugate.apply(*arguments)  # type: ignore[no-untyped-call]


_SECTIONS = "Parameters", "Returns", "Raises", "Warns"
_KINDS = {"array_like": "Tensor", "ndarray": "Tensor", "scipy.sparse.csr_array": "Tensor, sparse CSR"}


def _taking_tensors(
    method: Callable[Concatenate[ArrayMemory, Arguments], Any], example: str
) -> Callable[Concatenate[HopfieldMemory, Arguments], Any]:
    """Return a method of the memory of arrays as one of the memory of tensors, with an example for its docstring."""
    name, signature = method.__name__, inspect.signature(method)

    def call(self: HopfieldMemory, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
        _, *arguments = signature.bind(self, *args, **kwargs).arguments.items()
        return self._ask(name, dict(arguments))

    functools.update_wrapper(call, method, ("__name__", "__qualname__", "__annotations__"))  # of this module
    if method.__doc__:  # which `python -OO` drops
        kinds = re.compile("|".join(map(re.escape, _KINDS)))
        call.__doc__ = f"""{method.__doc__.partition(chr(10))[0]}

Results are on the device of the first tensor that is passed, or on the CPU.

{kinds.sub(lambda found: _KINDS[found[0]], sections(method, *_SECTIONS))}

See Also
--------
sparsehopfield.HopfieldMemory.{name} : The method of arrays, whose notes hold here, too.

Examples
--------
>>> import torch
{inspect.cleandoc(example)}
"""
    return call


class _Attribute:
    """An attribute of the memory of arrays, with tensors for arrays."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__doc__ = getattr(ArrayMemory, name).__doc__

    def __get__(self, memory: HopfieldMemory | None, owner: type) -> Any:
        if memory is None:
            return self
        memory._check_lent()
        return tensors_of(getattr(memory._memory, self._name))

    def __set__(self, memory: HopfieldMemory, value: Any) -> None:
        memory._check_lent()
        setattr(memory._memory, self._name, given_array(self._name, value))


class HopfieldMemory:
    """Stored patterns, and a model that retrieves them: `sparsehopfield.HopfieldMemory` with tensors for arrays.

    Parameters
    ----------
    patterns : Tensor, shape (M, d), or (M, *pattern_shape)
        One row a pattern: float32, float64, float16, uint8, integers; bfloat16 is widened to float32.
    beta : float or Tensor, positive
        Inverse temperature. May be changed later.
    values : Tensor, shape (M, v), optional
        What is mixed in place of the patterns.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is: `<x, xi>`; `-|x - xi|^2/2`; `<x, xi/|xi|>`, where the unit rows are mixed, too.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights. May be changed later.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default. May be changed later.
    ids : Tensor of int, shape (M,), optional
        Names of the patterns for the caller's use, all distinct; 0 to M - 1 by default.
    copy : bool, optional
        True copies, False refuses to, None copies what the core cannot read in place: tensors of other devices and
        dtypes; and what is meant to change: tensors that require a gradient, as parameters do, and tensors made in
        inference mode, whose changes nobody counts. A tensor that is read in place must not be changed while the memory
        lives, and cannot be resized: methods, attributes and copies of the memory raise then (not `len`, `repr` and
        `dtype`), but for changes through `.data` or NumPy, which only `verify` finds.
    check_finite : bool
        Whether to look for NaN and infinity in `values`, too; patterns are always looked at.
    scale : float, optional
        Of uint8 and float16 patterns: a stored number q stands for the float32 number q * scale; 1 by default.
    index : {"auto", True, False}
        Whether there is an index: from the first call on for which it pays, at once, or never. May be changed later.
    pattern_shape : sequence of int, optional
        Shape of one pattern, as (height, width) of images, of d numbers in all; patterns and queries may then end in
        these axes.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault. Tensors that require a gradient are refused by all methods while gradients are
        recorded, since a memory has none: `sparsehopfield.torch.retrieve` has.

    See Also
    --------
    sparsehopfield.torch.retrieve : Retrieve with gradients in patterns, values and beta.
    sparsehopfield.HopfieldMemory : The memory of arrays, which says more of each method.

    Notes
    -----
    1. Every method and attribute of `sparsehopfield.HopfieldMemory` is here, with tensors for arrays, also in what
       `certify`, `duplicates` and `retrieve(return_info=True)` return; sparse weights are CSR tensors; `dtype` is
       torch's. `explain`, `report` and `candidates` return what they do there.
    2. The memory lies on the CPU, where the core alone searches it: there is no `backend`. Queries of other devices are
       copied there and results back.
    3. `update` and `retrieve` return the queries' dtype, as every function here; what they compute with is as there.
    4. `patterns`, `values` and `ids` are copies, since no tensor is read-only.

    Examples
    --------
    >>> import torch
    >>> from sparsehopfield.torch import HopfieldMemory
    >>> rng = torch.Generator().manual_seed(0)
    >>> X = torch.randn(1000, 64, generator=rng)
    >>> memory = HopfieldMemory(X, beta=1.0)
    >>> x = X[7] + 0.5 * torch.randn(64, generator=rng)
    >>> torch.equal(memory.retrieve(x), X[7])
    True
    >>> memory.certify(x).index
    tensor(7)
    """

    _memory: ArrayMemory
    _lent: tuple[tuple[Tensor, int], ...]  # the tensors that are read in place, and their versions

    def __init__(
        self,
        patterns: Any,
        beta: Any = 1.0,
        *,
        values: Any = None,
        similarity: str = "dot",
        separation: Separation = "sparsemax",
        structure: Structure | None = None,
        ids: Any = None,
        copy: bool | None = None,
        check_finite: bool = True,
        scale: float | None = None,
        index: IndexUse = "auto",
        pattern_shape: Sequence[int] | None = None,
    ) -> None:
        self._memory = ArrayMemory(
            _stored_array("patterns", patterns, copy),
            given_array("beta", beta),
            values=_stored_array("values", values, copy),
            similarity=similarity,
            separation=separation,
            structure=structure,
            ids=given_array("ids", ids),
            copy=copy,
            check_finite=check_finite,
            scale=scale,
            index=index,
            pattern_shape=pattern_shape,
        )
        tensors = [given for given in (patterns, values) if isinstance(given, Tensor) and self._reads(given)]
        self._lent = tuple((tensor, tensor._version) for tensor in tensors)

    # --- how tensors pass ---------------------------------------------------------------------------

    def _ask(self, name: str, arguments: dict[str, Any]) -> Any:
        """Return what a method of the memory of arrays returns, with tensors for arrays."""
        self._check_lent()
        device = next((given.device for given in arguments.values() if isinstance(given, Tensor)), None)
        found = getattr(self._memory, name)(**{key: given_array(key, given) for key, given in arguments.items()})
        if name in ("add", "remove"):  # after which they may be read no longer
            self._lent = tuple(lent for lent in self._lent if self._reads(lent[0]))
        return tensors_of(found, device)

    def _reads(self, tensor: Tensor) -> bool:
        """Return whether the memory reads a tensor in place."""
        stored = self._memory._snapshot.pattern_set
        arrays = stored.storage, stored.value_storage
        return not tensor.is_inference() and tensor.data_ptr() in [a.ctypes.data for a in arrays if a is not None]

    def _check_lent(self) -> None:
        """Raise if a tensor that is read in place was changed."""
        if any(tensor._version != version for tensor, version in self._lent):
            raise ValueError(
                "patterns: the tensor was changed in place after it was stored; make a new memory, or use copy=True"
            )

    def __copy__(self) -> Self:
        self._check_lent()
        other = type(self).__new__(type(self))
        other._memory, other._lent = copying.copy(self._memory), self._lent
        return other

    def __getstate__(self) -> dict[str, Any]:
        self._check_lent()
        return {"_memory": self._memory, "_lent": ()}

    def __len__(self) -> int:
        return len(self._memory)

    def __repr__(self) -> str:
        return repr(self._memory)

    def _repr_html_(self) -> str:
        return self._memory._repr_html_()

    # --- what is stored ---------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype that results are computed in, for queries of the same or a smaller one."""
        return torch.from_numpy(np.empty(0, self._memory.dtype)).dtype

    shape = _Attribute()
    pattern_shape = _Attribute()
    nbytes = _Attribute()
    patterns = _Attribute()
    values = _Attribute()
    ids = _Attribute()
    scale = _Attribute()
    beta = _Attribute()
    separation = _Attribute()
    structure = _Attribute()
    similarity = _Attribute()
    index = _Attribute()
    index_nbytes = _Attribute()

    verify = _taking_tensors(
        ArrayMemory.verify,
        """
        >>> X = torch.eye(3)
        >>> memory = HopfieldMemory(X)
        >>> X.numpy()[0, 0] = 2  # which torch does not count as a change
        >>> memory.verify()
        Traceback (most recent call last):
        ValueError: patterns: the array was changed after it was stored; make a new memory, or use copy=True
        """,
    )
    add = _taking_tensors(
        ArrayMemory.add,
        """
        >>> memory = HopfieldMemory(torch.eye(3)[:2], beta=4.0)
        >>> memory.add(torch.eye(3)[2:])
        tensor([2])
        >>> memory.retrieve(torch.tensor([0.1, 0.2, 0.9]))
        tensor([0., 0., 1.])
        """,
    )
    remove = _taking_tensors(
        ArrayMemory.remove,
        """
        >>> memory = HopfieldMemory(torch.eye(4))
        >>> memory.remove(torch.tensor([0, 2]))
        >>> memory.ids
        tensor([1, 3])
        """,
    )
    save = _taking_tensors(
        ArrayMemory.save,
        """
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "memory.safetensors")
        ...     HopfieldMemory(torch.eye(3), beta=4.0).save(path)
        ...     HopfieldMemory.load(path)
        HopfieldMemory(3 patterns of 3 features, float32, beta=4.0, similarity='dot', separation='sparsemax')
        """,
    )

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], mmap: bool = False, verify: bool = False, *, index: IndexUse | None = None
    ) -> Self:
        """Load what `save` has written, here or in `sparsehopfield.HopfieldMemory`.

        Parameters
        ----------
        path : str or path-like
            The file to read.
        mmap : bool
            Whether to leave patterns, values and the index in the file, and read them where they are needed.
        verify : bool
            Whether to compare the data with its checksum.
        index : {"auto", True, False}, optional
            What the memory's `index` is to be; as it was saved by default.

        Returns
        -------
        HopfieldMemory
            The memory that was saved, with all its options.

        See Also
        --------
        sparsehopfield.torch.HopfieldMemory.save : Write a memory.
        sparsehopfield.HopfieldMemory.load : The method of arrays, with its errors and notes.

        Examples
        --------
        >>> import os, tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "memory.safetensors")
        ...     HopfieldMemory(torch.eye(3), beta=4.0).save(path)
        ...     memory = HopfieldMemory.load(path)
        >>> memory.retrieve(torch.tensor([0.1, 0.2, 0.9]))
        tensor([0., 0., 1.])
        """
        memory = cls.__new__(cls)
        memory._memory, memory._lent = ArrayMemory.load(path, mmap, verify, index=index), ()
        return memory

    # --- operations -------------------------------------------------------------------------------

    def update(self, queries: Tensor, *, exclude: Any = None) -> Tensor:
        """Make one retrieval step; see `sparsehopfield.update`.

        Parameters
        ----------
        queries : Tensor, shape (..., d), or (..., *pattern_shape)
            One row a query.
        exclude : Tensor of int, shape (...), optional
            Of each query the position of one pattern that it does not see, or -1.

        Returns
        -------
        Tensor, shape (..., v), or (..., *pattern_shape)
            The states after one step, in the queries' dtype.

        See Also
        --------
        sparsehopfield.HopfieldMemory.update : The method of arrays, with its errors and notes.
        sparsehopfield.torch.update : A step with gradients.

        Examples
        --------
        >>> import torch
        >>> memory = HopfieldMemory(torch.eye(3), beta=4.0)
        >>> memory.update(torch.tensor([0.9, 0.2, 0.0]))
        tensor([1., 0., 0.])
        >>> memory.update(torch.tensor([0.9, 0.2, 0.0]), exclude=0)
        tensor([0.0000, 0.9000, 0.1000])
        """
        return _in_kind(self._ask("update", {"queries": queries, "exclude": exclude}), queries)

    leave_one_out = _taking_tensors(
        ArrayMemory.leave_one_out,
        """
        >>> X = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
        >>> memory = HopfieldMemory(X, beta=2.0, values=X.square(), similarity="euclidean")
        >>> memory.leave_one_out().ravel()  # the last pattern gets the value of the one before
        tensor([1., 2., 1., 4.])
        """,
    )

    def retrieve(
        self,
        queries: Tensor,
        *,
        max_steps: int = 1000,
        tol: float | None = None,
        return_info: bool | Collection[str] = False,
        exclude: Any = None,
    ) -> Any:
        """Make steps until nothing moves; see `sparsehopfield.retrieve`.

        Parameters
        ----------
        queries : Tensor, shape (..., d), or (..., *pattern_shape)
            One row a query.
        max_steps : int, at least 0
            Updates at most.
        tol : float, at least 0, optional
            A query has converged when a step moves it by at most `tol` times the longest pattern that it sees; by
            default 4 eps of the dtype.
        return_info : bool, or of {"weights", "energy"}
            Whether to return a RetrievalInfo, too; names ask for what costs extra.
        exclude : Tensor of int, shape (...), optional
            Of each query the position of one pattern that it does not see in any step, or -1.

        Returns
        -------
        Tensor, shape (..., v), or (..., *pattern_shape); or (Tensor, RetrievalInfo)
            The states where retrieval ended, in the queries' dtype; the fields of RetrievalInfo are tensors.

        See Also
        --------
        sparsehopfield.HopfieldMemory.retrieve : The method of arrays, with its errors and notes.
        sparsehopfield.torch.retrieve : Retrieval with gradients.

        Examples
        --------
        >>> import torch
        >>> memory = HopfieldMemory(torch.eye(3), beta=4.0)
        >>> state, info = memory.retrieve(torch.tensor([0.5, 0.4, 0.0]), return_info=True)
        >>> state, info.steps, info.converged
        (tensor([1., 0., 0.]), tensor(3), tensor(True))
        """
        options = {"max_steps": max_steps, "tol": tol, "return_info": return_info, "exclude": exclude}
        found = self._ask("retrieve", {"queries": queries} | options)
        if return_info is False:
            return _in_kind(found, queries)
        return _in_kind(found[0], queries), found[1]

    associate = _taking_tensors(
        ArrayMemory.associate,
        """
        >>> HopfieldMemory(torch.eye(3)).associate(torch.tensor([0.5, 0.4, 0.0])).to_dense()
        tensor([[0.5333, 0.4333, 0.0333]])
        """,
    )
    energy = _taking_tensors(
        ArrayMemory.energy,
        """
        >>> HopfieldMemory(torch.eye(3), beta=4.0).energy(torch.eye(3))
        tensor([-0.5000, -0.5000, -0.5000])
        """,
    )
    nearest = _taking_tensors(
        ArrayMemory.nearest,
        """
        >>> memory = HopfieldMemory(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]), similarity="euclidean")
        >>> positions, scores = memory.nearest(torch.tensor([[0.0, 3.0]]), 2)
        >>> positions, (-2 * scores).sqrt()
        (tensor([[2, 0]]), tensor([[2., 3.]], dtype=torch.float64))
        """,
    )
    candidates = _taking_tensors(
        ArrayMemory.candidates,
        """
        >>> HopfieldMemory(torch.eye(3), beta=4.0).candidates(torch.eye(3)).position  # for `sparsehopfield.merge`
        array([0, 1, 2])
        """,
    )
    build_index = _taking_tensors(
        ArrayMemory.build_index,
        """
        >>> memory = HopfieldMemory(torch.rand(2000, 64))
        >>> memory.build_index()
        >>> memory.index_nbytes / memory.nbytes < 0.35
        True
        """,
    )

    margin = _taking_tensors(
        ArrayMemory.margin,
        """
        >>> HopfieldMemory(torch.tensor([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]])).margin()
        tensor([-2., -1.,  3.], dtype=torch.float64)
        """,
    )
    critical_beta = _taking_tensors(
        ArrayMemory.critical_beta,
        """
        >>> HopfieldMemory(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]])).critical_beta()
        tensor([1.0000,    inf, 0.0833], dtype=torch.float64)
        """,
    )
    is_certified = _taking_tensors(
        ArrayMemory.is_certified,
        """
        >>> HopfieldMemory(torch.tensor([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]])).is_certified()
        tensor([False, False,  True])
        """,
    )
    is_fixed_point = _taking_tensors(
        ArrayMemory.is_fixed_point,
        """
        >>> memory = HopfieldMemory(torch.tensor([[-1.0], [0.0], [1.0]]), beta=0.5)
        >>> memory.is_fixed_point(), memory.is_certified()  # the middle one rests, and would leave if it were pushed
        (tensor([False,  True, False]), tensor([False, False, False]))
        """,
    )
    stored_fraction = _taking_tensors(
        ArrayMemory.stored_fraction,
        """
        >>> memory = HopfieldMemory(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]]))
        >>> memory.stored_fraction(torch.tensor([0.05, 0.5, 5.0]))
        tensor([0.0000, 0.3333, 0.6667], dtype=torch.float64)
        """,
    )
    suggest_beta = _taking_tensors(
        ArrayMemory.suggest_beta,
        """
        >>> memory = HopfieldMemory(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]]))
        >>> round(memory.suggest_beta(0.6), 6)
        1.0
        """,
    )
    certify = _taking_tensors(
        ArrayMemory.certify,
        """
        >>> found = HopfieldMemory(torch.eye(3), beta=2.0).certify(torch.tensor([[0.9, 0.2, 0.0], [0.6, 0.4, 0.0]]))
        >>> found.index, found.lacks
        (tensor([ 0, -1]), tensor([0.0000, 0.3000], dtype=torch.float64))
        """,
    )
    exact_radius = _taking_tensors(
        ArrayMemory.exact_radius,
        """
        >>> HopfieldMemory(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), beta=4.0).exact_radius()
        tensor([1.3258, 1.3258], dtype=torch.float64)
        """,
    )
    capacity = _taking_tensors(
        ArrayMemory.capacity,
        """
        >>> X = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
        >>> capacity = HopfieldMemory(X, similarity="euclidean").capacity()
        >>> capacity.certified, capacity.M > 1000
        (50, True)
        """,
    )
    duplicates = _taking_tensors(
        ArrayMemory.duplicates,
        """
        >>> memory = HopfieldMemory(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]]))
        >>> found = memory.duplicates()
        >>> found.pairs, found.groups
        (tensor([[0, 2]]), [tensor([0, 2])])
        """,
    )

    explain = _taking_tensors(
        ArrayMemory.explain,
        """
        >>> why = HopfieldMemory(torch.tensor([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0]])).explain(torch.tensor([1.0, 0.0]))
        >>> why.positions, why.weights, why.miss.position
        (array([0, 1]), array([0.75, 0.25], dtype=float32), 2)
        """,
    )
    report = _taking_tensors(
        ArrayMemory.report,
        """
        >>> X = torch.tensor([[3.0, 0.0], [0.0, 3.0], [2.0, 0.0], [-2.0, -2.0]])
        >>> print(HopfieldMemory(X, beta=2.5).report())
        HopfieldMemory(4 patterns of 2 features, float32, beta=2.5, similarity='dot', separation='sparsemax')
        <BLANKLINE>
        at beta 2.5
        dot: 3 of 4 patterns (75.0%) are certified to be stored
        ...
        """,
    )


def _stored_array(name: str, given: Any, copy: bool | None) -> Any:
    """Return rows to be stored as an array that shares their memory, unless they are a tensor that is to be copied."""
    if not isinstance(given, Tensor):
        return given
    array = given_array(name, given.detach())
    shared = array.ctypes.data == given.data_ptr()
    changes = given.requires_grad or given.is_inference() or isinstance(given, torch.nn.Parameter)
    if copy is False and (changes or not shared):
        why = "may change, unseen" if shared else "is not in memory as the core reads it"
        raise ValueError(f"copy: cannot be avoided: {name} {why}")
    return copy_array(array) if shared and changes and not copy else array


def _in_kind(states: Tensor, queries: Any) -> Tensor:
    """Return states in the dtype of the queries, if they are a tensor of floats."""
    return states.to(queries.dtype) if isinstance(queries, Tensor) and queries.is_floating_point() else states
