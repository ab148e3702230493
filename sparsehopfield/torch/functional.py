"""The association as functions of tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsehopfield._engine.checks import as_number, as_steps, as_whole
from sparsehopfield._engine.separations import as_choice, row_of, separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield.structures import Window
from sparsehopfield.torch import _operators
from sparsehopfield.torch._arguments import Options, Tensors, as_dense, samples_of, structure_text
from sparsehopfield.torch._backend import as_backend

__all__ = ["associate", "hopfield_attention"]

_ROWS = ("queries", "stored", "values")
_OF_ATTENTION = {
    "queries": "query",
    "stored": "key",
    "values": "value",
    "beta": "scale",
    "mask": "attn_mask",
    "padding_mask": "key_padding_mask",
}
_CAUSAL = structure_text(Window(2**40, causal=True))  # wider than any sample


def renamed(error: Exception, names: Mapping[str, str]) -> Exception:
    """Return an error of an association with the names that the arguments have for the caller."""
    pattern = rf"\b({'|'.join(names)})(?=: | on )"
    return type(error)(re.sub(pattern, lambda found: names[found[1]], str(error)))


def options_of(
    separation: Any,
    update_steps_max: int | None,
    update_steps_eps: float,
    dropout: float,
    gradient: str,
    structure: Structure | None,
    appended: int = 0,
    *,
    dropout_name: str = "dropout",
) -> Options:
    """Return the options of an association, checked."""
    code = separation_code(separation)
    implicit = as_choice("gradient", gradient, ("unrolled", "implicit")) == "implicit"
    if implicit and not row_of(code).has_energy:
        raise ValueError("gradient: a polynomial update is the step of no energy; its gradient must be 'unrolled'")
    steps = as_steps(update_steps_max)
    eps = as_number("update_steps_eps", update_steps_eps, least=0.0)
    rate = as_number(dropout_name, dropout, least=0.0)
    if rate >= 1:
        raise ValueError(f"{dropout_name}: must be below 1, got {dropout}")
    text = "" if structure is None else structure_text(as_structure(structure))
    return Options(*code, steps, eps, rate, implicit, text, as_whole("appended", appended, 0))


def draw_seed(device: torch.device | str = "cpu") -> Tensor:
    """Return a seed of dropout, (1,), by the generator of torch's device, which checkpoints and `manual_seed` rule."""
    return torch.randint(0, 2**62, (1,), dtype=torch.int64, device=device)


def as_seed(seed: int | Tensor | None, dropout: float) -> Tensor | None:
    """Return the seed of dropout as a tensor, drawn where none is given; None without dropout."""
    if not dropout:
        return None
    if seed is None:
        return draw_seed()
    if isinstance(seed, Tensor):
        if as_dense("seed", seed).numel() != 1 or seed.dtype != torch.int64:
            raise ValueError(f"seed: must be one number of int64, got {tuple(seed.shape)} of {seed.dtype}")
        return seed.reshape(1)
    return torch.tensor([as_whole("seed", seed, 0, 2**63 - 1)], dtype=torch.int64, device="cpu")


def as_beta(name: str, beta: float | Tensor, like: Tensor) -> Tensor:
    """Return beta as a tensor of one number, or as the tensor that it is."""
    if isinstance(beta, Tensor):
        if not as_dense(name, beta).is_floating_point():
            raise TypeError(f"{name}: must be of floating numbers, got {beta.dtype}")
        # one number may lie on the CPU beside another device, as in torch's arithmetic
        return beta.to(like.device) if beta.is_cpu and not like.is_cpu and beta.dim() == 0 else beta
    number = as_number(name, beta, least=0.0)
    if number == 0:
        raise ValueError(f"{name}: must be positive and finite, got {number}")
    dtype = torch.float32 if like.device.type == "mps" else torch.float64
    return torch.full((), number, dtype=dtype, device=like.device)


def _check_numbers(names: Sequence[str], tensors: Sequence[Any]) -> None:
    """Raise unless these are tensors of floating numbers."""
    for name, t in zip(names, tensors, strict=True):
        if not as_dense(name, t).is_floating_point():
            raise TypeError(f"{name}: must be of floating numbers, got {t.dtype}")


def _as_pair(name: str, projection: Any) -> tuple[Any, Any]:
    """Return weight and bias of a projection, (None, None) for none."""
    if projection is None:
        return None, None
    if not isinstance(projection, tuple) or len(projection) != 2:
        raise TypeError(f"{name}: must be a tuple of weight and bias")
    return projection


def _check_projection(name: str, weight: Any, bias: Any, heads: int, rows: Tensor) -> None:
    """Raise unless a projection, or none (of two None), maps these rows."""
    if weight is None and bias is None:
        return
    _check_numbers((f"{name}.weight", f"{name}.bias"), (weight, bias))
    if weight.dim() != 3 or weight.shape[0] != heads or weight.shape[2] != rows.shape[-1]:
        raise ValueError(f"{name}: weight must be of shape ({heads}, d, {rows.shape[-1]}), got {tuple(weight.shape)}")
    if bias.shape != weight.shape[:2]:
        raise ValueError(f"{name}: bias must be of shape {tuple(weight.shape[:2])}, got {tuple(bias.shape)}")
    if rows.shape[-2] != 1:
        raise ValueError(f"{name}: the rows that it projects must have one head, got {rows.shape[-2]}")


def _with_heads(mask: Tensor, samples: int, heads: int) -> Tensor:
    """Return a mask (B, N, M) as it is, and hflayers' (B * H, N, M) as (B, H, N, M)."""
    if heads == 1 or mask.shape[0] != samples * heads:
        return mask
    return mask.reshape(samples, heads, *mask.shape[1:])


def _check(tensors: Tensors, options: Options) -> None:
    """Raise unless the tensors of an association fit one another; numbers are not looked at."""
    queries, stored, values, beta, key_weight, key_bias, value_weight, value_bias, padding, mask, offsets, _ = tensors
    for name, t in zip(_ROWS, (queries, stored, values), strict=True):
        if t.dim() not in (3, 4):
            raise ValueError(
                f"{name}: must be of shape (samples, rows, heads, features) or (rows, heads, features), got "
                f"{tuple(t.shape)}"
            )
    heads = queries.shape[-2]
    if offsets is not None:
        if stored.dim() != 3:
            raise ValueError(f"offsets: need stored rows of shape (rows, heads, features), got {tuple(stored.shape)}")
        if offsets.dim() != 1 or offsets.shape[0] == 0 or offsets.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"offsets: must be (B + 1,) whole numbers, got {tuple(offsets.shape)} of {offsets.dtype}")
        if padding is not None:
            raise ValueError("padding_mask: ragged bags have no padding; leave the rows out")
    samples = samples_of(queries, stored, offsets)
    if queries.dim() == 4 and queries.shape[0] != samples:
        raise ValueError(f"queries: {queries.shape[0]} samples, but there are {samples} of stored rows")
    if stored.shape[:-2] != values.shape[:-2]:
        raise ValueError(
            f"values: must have the rows of stored, {tuple(stored.shape[:-2])}, got {tuple(values.shape[:-2])}"
        )
    for name, t in (("stored", stored), ("values", values)):
        if t.shape[-2] not in (1, heads):
            raise ValueError(f"{name}: must have the queries' {heads} heads or one, got {t.shape[-2]}")
    if key_weight is not None and (options.steps < 0 or options.implicit or not row_of(options[:2]).shift_invariant):
        raise ValueError("key_projection: not with unlimited updates, polynomials or the implicit gradient")
    _check_projection("key_projection", key_weight, key_bias, heads, stored)
    _check_projection("value_projection", value_weight, value_bias, heads, values)
    if key_weight is not None and values.shape[-2] != 1:
        raise ValueError("key_projection: then values must have one head, too (or a value_projection)")
    if (stored.shape[-1] if key_weight is None else key_weight.shape[1]) != queries.shape[-1]:
        raise ValueError(f"queries: must have the features of the keys, got {queries.shape[-1]}")
    if min(queries.shape[-1], values.shape[-1], heads) == 0:
        name = "queries" if queries.shape[-1] == 0 or heads == 0 else "values"
        raise ValueError(f"{name}: at least one head and one feature are needed")
    if beta.dim() > 1 or (beta.dim() == 1 and beta.shape[0] not in (1, heads)):
        raise ValueError(
            f"beta: must be one number or one for each of the {heads} heads, got shape {tuple(beta.shape)}"
        )
    rows = stored.shape[-3]  # with offsets at least those of any sample
    if padding is not None and (padding.dtype != torch.bool or padding.shape != (samples, rows)):
        raise ValueError(
            f"padding_mask: must be of bool and shape ({samples}, {rows}), got {padding.dtype} and "
            f"{tuple(padding.shape)}"
        )
    if mask is not None:
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise TypeError(f"mask: must be of bool or floating numbers, got {mask.dtype}")
        whole = (samples, heads, queries.shape[-3])
        sizes = (whole[-1:], (samples, whole[-1]), whole)
        if not 2 <= mask.dim() <= 4 or not all(
            n in (1, size) for n, size in zip(mask.shape[:-1], sizes[mask.dim() - 2], strict=True)
        ):
            raise ValueError(
                f"mask: must be of shape (N, M), (B, N, M), (B, H, N, M) or (B * H, N, M) with B, H, N = {whole}, got "
                f"{tuple(mask.shape)}"
            )
        if offsets is None and mask.shape[-1] != rows:
            raise ValueError(f"mask: must have a column for each of {rows} rows, got {tuple(mask.shape)}")
    if options.appended > rows:
        raise ValueError(f"appended: must be at most the {rows} rows, got {options.appended}")


def associate(
    queries: Tensor,
    stored: Tensor,
    values: Tensor,
    beta: float | Tensor,
    *,
    separation: Any = "sparsemax",
    update_steps_max: int | None = 0,
    update_steps_eps: float = 1e-4,
    padding_mask: Tensor | None = None,
    mask: Tensor | None = None,
    offsets: Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    gradient: str = "unrolled",
    key_projection: tuple[Tensor, Tensor] | None = None,
    value_projection: tuple[Tensor, Tensor] | None = None,
    structure: Structure | None = None,
    appended: int = 0,
    backend: str | None = None,
) -> Tensor:
    """Associate queries with stored rows, batched, with heads, repeatedly.

    Every query x moves to the mixture of its stored rows, x <- sum_j p_j k_j with p = separation(beta k x + mask), for
    a number of steps or until it has converged. The weights p of its last association then mix the values.

    Parameters
    ----------
    queries : Tensor, shape (B, N, H, d), or (N, H, d) shared by all samples
        One row a query and head.
    stored : Tensor, shape (B, M, H, d), or (M, H, d) shared by all samples, or (R, H, d) with `offsets`
        H may be 1 here: rows shared by all heads.
    values : Tensor, shaped as `stored`, with v features instead of d
        One of the two may have one head and the other all.
    beta : float or Tensor of shape (), (1,) or (H,), positive
        Inverse temperature, one for all heads or one for each. A tensor may have a gradient.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        The separation map, which turns scores into weights.
    update_steps_max : int or None
        Updates after the first association; None or negative: until every query has converged, at most 10,000.
    update_steps_eps : float
        A query has converged when its weights move by at most this, in the Euclidean norm.
    padding_mask : Tensor of bool, shape (B, M), optional
        True where there is no stored row.
    mask : Tensor, shape (N, M), (B, N, M), (B, H, N, M) or hflayers' (B * H, N, M), optional
        Of bool, True where a query does not see a row (not as in `scaled_dot_product_attention`); or numbers added to
        the scores, -inf included, which may have a gradient: then plain torch computes.
    offsets : Tensor of int64, shape (B + 1,), optional
        Ragged bags: sample b has rows offsets[b] to offsets[b + 1].
    dropout : float from 0 to below 1
        Rate at which single weights of the last association are dropped; the others are multiplied by
        1 / (1 - rate).
    seed : int, at least 0, Tensor of int64 or None
        Seed of dropout: 64 bits, whatever number of int64 they are; drawn from torch's generator by default.
    gradient : {"unrolled", "implicit"}
        The gradient through all updates, or that of the fixed point reached.
    key_projection, value_projection : (Tensor of shape (H, d, e), Tensor of shape (H, d)), optional
        Weight and bias, which take W_h r + b_h in place of each row r; then `stored` or `values` have e features and
        one head.
    structure : Structure, optional
        Which of its sample's rows query n of each sample sees (`sparsehopfield.structures`); all by default.
    appended : int, at least 0
        How many rows at the end of each sample all queries see, whatever the structure; `TopK` chooses its k best among
        all rows, these included.
    backend : {None, "core", "torch"}
        None: the C core on the CPU where it can, else plain torch. "core" raises an error where the core cannot.

    Returns
    -------
    Tensor, shape (B, N, H, v)
        Zeros for a query that sees no row. In the queries' dtype; computed in float64 if any of the three is of it,
        else in float32.

    Raises
    ------
    ValueError, TypeError
        If shapes or masks do not fit, or options are out of range; where the core computes, also if a
        number is NaN or infinite.
    OverflowError
        If a score is beyond the dtype, where the core computes.
    NotImplementedError
        For second derivatives of the implicit gradient.

    See Also
    --------
    sparsehopfield.torch.Hopfield : The layer around it, with projections.
    sparsehopfield.torch.hopfield_attention : The same with the arguments of torch's attention.
    sparsehopfield.torch.update : One step from a set of patterns, under any similarity.

    References
    ----------
    Ramsauer et al. 2021, "Hopfield Networks is All You Need"; Hu et al. 2023, eq. (2.5) and section 3.

    Examples
    --------
    >>> bag = torch.eye(3).reshape(1, 3, 1, 3)  # one sample, three rows, one head
    >>> query = torch.tensor([0.9, 0.2, 0.1]).reshape(1, 1, 1, 3)
    >>> associate(query, bag, bag, beta=2.0).ravel()
    tensor([1., 0., 0.])
    """
    options = options_of(separation, update_steps_max, update_steps_eps, dropout, gradient, structure, appended)
    _check_numbers(_ROWS, (queries, stored, values))
    key_weight, key_bias = _as_pair("key_projection", key_projection)
    value_weight, value_bias = _as_pair("value_projection", value_projection)
    for name, t in (("padding_mask", padding_mask), ("mask", mask), ("offsets", offsets)):
        if t is not None:
            as_dense(name, t)
    if mask is not None and mask.dim() == 3:
        mask = _with_heads(mask, samples_of(queries, stored, offsets), queries.shape[-2])
    tensors = Tensors(
        queries,
        stored,
        values,
        as_beta("beta", beta, queries),
        key_weight,
        key_bias,
        value_weight,
        value_bias,
        padding_mask,
        mask,
        offsets,
        as_seed(seed, options.dropout),
    )
    _check(tensors, options)
    return _operators.associate(tensors, options, as_backend(backend))


def hopfield_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | Tensor | None = None,
    *,
    separation: Any = "sparsemax",
    update_steps_max: int | None = 0,
    update_steps_eps: float = 1e-4,
    gradient: str = "unrolled",
    key_padding_mask: Tensor | None = None,
    structure: Structure | None = None,
    enable_gqa: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Compute attention as `torch.nn.functional.scaled_dot_product_attention` does, with any separation and updates.

    Parameters
    ----------
    query : Tensor, shape (..., H, N, d)
        One row a query.
    key : Tensor, shape (..., H, M, d)
        Heads and leading axes broadcast to the query's.
    value : Tensor, shape (..., H, M, v)
        One row for each of the keys.
    attn_mask : Tensor, broadcast to (..., H, N, M), optional
        Of bool, True where a query sees a row, as `scaled_dot_product_attention` takes it (and not as the layers do);
        or numbers added to the scores, -inf included.
    dropout_p : float from 0 to below 1
        Rate at which weights are dropped; always, also in evaluation.
    is_causal : bool
        Query n sees rows 0 to n. Not with `attn_mask`.
    scale : float or Tensor of shape (), (1,) or (H,), positive, optional
        What scores are multiplied with; 1 / sqrt(d) by default. A tensor may have a gradient.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        The separation map, which turns scores into weights.
    update_steps_max : int or None
        Updates of the queries before the last association; None or negative: until every query has converged.
    update_steps_eps : float
        A query has converged when its weights move by at most this, in the Euclidean norm.
    gradient : {"unrolled", "implicit"}
        The gradient through all updates, or that of the fixed point reached.
    key_padding_mask : Tensor of bool, shape (..., M), optional
        True where there is no row, as `torch.nn.MultiheadAttention` takes it.
    structure : Structure, optional
        Which rows each query sees (`sparsehopfield.structures`); all by default.
    enable_gqa : bool
        Grouped-query attention: keys and values have G heads, of which H is a multiple, and each serves H / G heads of
        the query that follow one another. Rows are copied for these heads only where there is dropout, or a mask or a
        scale of each sample or head.
    backend : {None, "core", "torch"}
        None: the C core on the CPU where it can, else plain torch. "core" raises an error where the core cannot.

    Returns
    -------
    Tensor, shape (..., H, N, v)
        In the query's dtype. Zeros for a query that sees no row.

    Raises
    ------
    ValueError, TypeError
        If shapes or masks do not fit, or options are out of range; where the core computes, also if a
        number is NaN or infinite.
    OverflowError
        If a score is beyond the dtype, where the core computes.

    See Also
    --------
    torch.nn.functional.scaled_dot_product_attention : What it computes with softmax and no updates.
    sparsehopfield.torch.associate : The association with heads behind rows, ragged bags and projections.

    References
    ----------
    Ramsauer et al. 2021, "Hopfield Networks is All You Need", section 3; Hu et al. 2023, "On Sparse Modern Hopfield
    Model", section 3.

    Examples
    --------
    >>> x = torch.eye(4).expand(2, 3, 4, 4)
    >>> hopfield_attention(x, x, x, scale=1.0).shape
    torch.Size([2, 3, 4, 4])
    >>> sdpa = torch.nn.functional.scaled_dot_product_attention(x, x, x)
    >>> torch.allclose(hopfield_attention(x, x, x, separation="softmax"), sdpa, atol=1e-6)
    True
    """
    options = options_of(
        separation, update_steps_max, update_steps_eps, dropout_p, gradient, structure, dropout_name="dropout_p"
    )
    _check_numbers(("query", "key", "value"), (query, key, value))
    for name, t in (("query", query), ("key", key), ("value", value)):
        if t.dim() < 2:
            raise ValueError(f"{name}: must be of shape (..., heads, rows, features), got {tuple(t.shape)}")
    squeeze = query.dim() == 2
    query = query.unsqueeze(0) if squeeze else query
    lead, heads, n, m = query.shape[:-3], query.shape[-3], query.shape[-2], key.shape[-2]
    if value.shape[-2] != m:
        raise ValueError(f"value: must have a row for each of {m} rows of key, got {tuple(value.shape)}")
    if key.shape[-1] != query.shape[-1]:
        raise ValueError(f"query: must have the features of the keys, {key.shape[-1]}, got {query.shape[-1]}")
    if min(query.shape[-1], value.shape[-1], heads) == 0:
        name = "query" if query.shape[-1] == 0 or heads == 0 else "value"
        raise ValueError(f"{name}: at least one head and one feature are needed")
    if attn_mask is not None:
        if is_causal:
            raise ValueError("attn_mask: not with is_causal; give a mask that is both")
        if as_dense("attn_mask", attn_mask).dtype != torch.bool and not attn_mask.is_floating_point():
            raise TypeError(f"attn_mask: must be of bool or floating numbers, got {attn_mask.dtype}")
        mask: Tensor | None = _mask_of(attn_mask, lead, heads, n, m)
    elif is_causal and n == m and not options.structure and query.device.type in ("cpu", "meta"):
        mask, options = (
            None,
            Options(*options[:6], _CAUSAL, options.appended),
        )  # half the work, and no array of all pairs
    elif is_causal:
        mask = torch.ones(n, m, dtype=torch.bool, device=query.device).triu(1)
    else:
        mask = None
    padding = None
    if key_padding_mask is not None:
        if as_dense("key_padding_mask", key_padding_mask).dtype != torch.bool or key_padding_mask.shape != (*lead, m):
            raise ValueError(
                f"key_padding_mask: must be of bool and shape {(*lead, m)}, got {key_padding_mask.dtype} and "
                f"{tuple(key_padding_mask.shape)}"
            )
        padding = _flat(key_padding_mask, 1)
    beta = as_beta("scale", 1 / math.sqrt(query.shape[-1]) if scale is None else scale, query)
    if beta.dim() > 1 or (beta.dim() == 1 and beta.shape[0] not in (1, heads)):
        raise ValueError(f"scale: must be one number or one for each of {heads} heads, got {tuple(beta.shape)}")
    key, value = (t.unsqueeze(0) if t.dim() == 2 else t for t in (key, value))
    is_shared = any(size != 1 for size in lead) and all(size == 1 for t in (key, value) for size in t.shape[:-3])
    lead_of_rows = lead[:0] if is_shared else lead  # rows of all samples are (M, H, d)
    if is_shared:
        key, value = (t.reshape(t.shape[-3:]) for t in (key, value))
    groups = key.shape[-3] if enable_gqa else heads
    if groups == 0 or heads % groups:
        raise ValueError(f"key: needs a number of heads that divides the query's {heads}, got {tuple(key.shape)}")
    key, value = _broadcast("key", key, lead_of_rows, groups), _broadcast("value", value, lead_of_rows, groups)
    # heads that follow one another are taken for samples of one head, whose gradients follow one another, too; so are
    # groups of heads that share their rows
    are_samples = (
        (mask is None or mask.dim() == 2)
        and padding is None
        and beta.dim() == 0
        and not options.dropout  # which numbers samples and heads
        and all(t.shape[:-2] == (*lead, groups) for t in (key, value))
        and (groups < heads or all(t.is_contiguous() for t in (query, key, value)))
    )
    if are_samples:
        samples = groups
        for size in lead:
            samples *= size
        rows = [t.reshape(samples, t.shape[-3] // groups, *t.shape[-2:]) for t in (query, key, value)]
    else:
        if 1 < groups < heads:
            key, value = (t.repeat_interleave(heads // t.shape[-3], -3) for t in (key, value))
        rows = [t if is_shared and t is not query else _flat(t, 3) for t in (query, key, value)]
    rows = [t.transpose(-3, -2) for t in rows]
    tensors = Tensors(
        rows[0], rows[1], rows[2], beta, None, None, None, None, padding, mask, None, as_seed(None, options.dropout)
    )
    try:
        out = _operators.associate(tensors, options, as_backend(backend))
    except (ValueError, TypeError, OverflowError) as error:
        raise renamed(error, _OF_ATTENTION) from None
    out = out.transpose(1, 2).reshape(*lead, heads, n, value.shape[-1])
    return out.squeeze(0) if squeeze else out


def _flat(t: Tensor, axes: int) -> Tensor:
    """Return a tensor with its axes before the last few as one."""
    return t.unsqueeze(0) if t.dim() == axes else t.flatten(0, -1 - axes)


def _broadcast(name: str, t: Tensor, lead: torch.Size, heads: int) -> Tensor:
    """Return (..., H or 1, rows, features) broadcast to leading axes."""
    if t.shape[-3] not in (1, heads):
        raise ValueError(f"{name}: must have {heads} heads or one, got {tuple(t.shape)}")
    if t.shape[:-3] == lead:
        return t
    try:
        return t.expand(*lead, *t.shape[-3:])
    except RuntimeError:
        raise ValueError(f"{name}: must have the query's leading axes, {tuple(lead)}, got {tuple(t.shape)}") from None


def _mask_of(attn_mask: Tensor, lead: torch.Size, heads: int, n: int, m: int) -> Tensor:
    """Return a mask as associations take it, (N, M) or (B or 1, H or 1, N, M), True where a row is left out."""
    given = attn_mask.shape
    mask = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask
    try:
        if mask.dim() <= 2:
            return mask.expand(n, m)
        mask = mask.expand(*mask.shape[:-2], n, m)
        if mask.shape[-3] not in (1, heads):
            raise RuntimeError
        if mask.dim() == 3:
            return mask.unsqueeze(0)
        mask = mask if mask.shape[:-3] == lead else mask.expand(*lead, *mask.shape[-3:])
        return _flat(mask, 3)
    except RuntimeError:
        raise ValueError(f"attn_mask: must broadcast to {(*lead, heads, n, m)}, got {tuple(given)}") from None
