"""The association of the layers as two pure functions: forward, and backward from what forward saved.

Every query x moves to the mixture of its stored rows, x <- sum_j p_j k_j with p = separation(beta k x + mask), for a
number of steps or until it converges. The weights p of its last association then mix the values. `layers` call these
functions; csrc/association does the work.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield import _core
from sparsehopfield._engine.call import level_of_caller
from sparsehopfield._engine.checks import (
    Array,
    as_array,
    as_number,
    as_numbers,
    as_offsets,
    as_positive_numbers,
    as_steps,
    as_whole,
    compute_dtype,
    contiguous,
    overlap,
    overlaps_itself,
)
from sparsehopfield._engine.separations import as_choice, has_cutoff, row_of, separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield.errors import RetrievalWarning

__all__ = ["Projection", "Saved", "associate_backward", "associate_forward", "association_weights"]


BAD_OUT = "out: must be writeable {} arrays of the gradients' shapes, features contiguous and rows equally far apart"


class Projection(NamedTuple):
    """Hold a linear map of rows for each head, W_h r + b_h.

    Attributes
    ----------
    weight : ndarray of shape (H, d, e)
    bias : ndarray of shape (H, d)
    """

    weight: Array
    bias: Array


class Saved:
    """Hold what a forward pass saves for its backward pass; only `shape` and `steps` are public.

    Offsets, masks and the structure's lists are copies. Rows (`queries`, `stored`, `values`) and projections are too
    large to be copied: if their numbers change before the backward pass, its gradients are wrong.
    """

    def __init__(
        self,
        tape: Any,
        shape: tuple[int, int, int, int],
        broadcast: list[bool],
        sparse: bool,
        dtype: Any,
        rows: tuple[Array, Array, Array],
        executor: Any = None,
    ):
        """Keep a tape and the shape (B, H, N, M) of its weights, which are sparse or not.

        broadcast: whether each of `rows` (queries, stored and values) stands for several samples or heads.
        executor: what made the tape, where it was not the core.
        """
        self._tape, self._shape, self._broadcast, self._sparse, self._dtype = tape, shape, broadcast, sparse, dtype
        self._rows, self._executor = rows, executor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of all weights, (B, H, N, M)."""
        return self._shape

    @property
    def steps(self) -> Array:
        """Return how many updates each query made after its first association, (B, N, H)."""
        return _core.association_steps(self._tape) if self._executor is None else self._executor.steps(self._tape)


def _rows_with_heads(name: str, a: Array, dtype: np.dtype[Any]) -> Array:
    """Return rows (..., H, d) as the core reads them in place: features contiguous, strides in whole numbers."""
    if a.ndim not in (3, 4):
        raise ValueError(
            f"{name}: must be of shape (samples, rows, heads, features) or (rows, heads, features), got {a.shape}"
        )
    size = dtype.itemsize
    if a.dtype != dtype or not a.flags.aligned or (a.shape[-1] > 1 and a.strides[-1] != size):
        return contiguous(a, dtype)
    return a if all(s >= 0 and s % size == 0 for s in a.strides) else contiguous(a)


def _checked_projection(
    name: str, pair: Projection | None, dtype: np.dtype[Any], heads: int, rows: Array
) -> tuple[Any, Any]:
    """Check a projection of `rows` and return its weight and bias for the core; (None, None) where there is none."""
    if pair is None:
        return None, None
    weight, bias = (contiguous(as_numbers(name, a), dtype) for a in pair)
    if weight.ndim != 3 or weight.shape[0] != heads or weight.shape[2] != rows.shape[-1]:
        raise ValueError(f"{name}: weight must be of shape ({heads}, d, {rows.shape[-1]}), got {weight.shape}")
    if bias.shape != weight.shape[:2]:
        raise ValueError(f"{name}: bias must be of shape {weight.shape[:2]}, got {bias.shape}")
    if rows.shape[-2] != 1:
        raise ValueError(f"{name}: the rows that it projects must have one head, got {rows.shape[-2]}")
    return weight, bias


def _checked_mask(mask: Any, dtype: np.dtype[Any], shape: tuple[int, int, int, int], copy: bool) -> Array:
    """Check a mask and return it broadcast to `shape`, (B, H, N, M); `copy`: so that the caller cannot change it."""
    a = as_array("mask", mask)
    a = a.copy() if copy else a
    samples, heads, queries, rows = shape
    if a.dtype.kind not in "bf":
        raise TypeError(f"mask: must be of bool or floating numbers, got dtype {a.dtype}")
    if a.ndim == 3 and a.shape[0] == samples * heads and heads > 1:  # as hflayers takes it
        a = a.reshape(samples, heads, *a.shape[1:])
    elif a.ndim == 3:
        a = a[:, None]
    if a.dtype.kind == "f":
        a = contiguous(a, dtype)
        if np.isnan(a).any() or np.isposinf(a).any():
            raise ValueError("mask: must be finite numbers or -inf")
    elif a.shape[-1:] and a.shape[-1] > 1 and a.strides[-1] != 1:
        a = contiguous(a)
    try:
        if a.ndim < 2 or a.shape[-1] != rows:
            raise ValueError
        return np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(
            f"mask: must be of shape ({queries}, {rows}), ({samples}, {queries}, {rows}), "
            f"({samples}, {heads}, {queries}, {rows}) or ({samples * heads}, {queries}, {rows}), got {np.shape(mask)}"
        ) from None


def _warn_if_unconverged(unconverged: int) -> None:
    """Warn if queries were still moving after the largest number of updates."""
    if unconverged:
        warnings.warn(
            f"{unconverged} queries were still moving after 10,000 updates",
            RetrievalWarning,
            stacklevel=level_of_caller(),
        )


def associate_forward(
    queries: ArrayLike,
    stored: ArrayLike,
    values: ArrayLike,
    beta: ArrayLike,
    *,
    separation: Any = "sparsemax",
    update_steps_max: int | None = 0,
    update_steps_eps: float = 1e-4,
    padding_mask: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    offsets: ArrayLike | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    gradient: str = "unrolled",
    key_projection: Projection | None = None,
    value_projection: Projection | None = None,
    structure: Structure | None = None,
    appended: int = 0,
    keep: bool = True,
) -> tuple[Array, Any]:
    """Associate queries with stored rows, batched, with heads, repeatedly, and save what the gradient needs.

    Parameters
    ----------
    queries : array_like of shape (B, N, H, d), or (N, H, d) shared by all samples
    stored : array_like of shape (B, M, H, d), or (M, H, d) shared by all samples, or (R, H, d) with `offsets`
        H may be 1 here: rows shared by all heads.
    values : array_like, shaped as `stored`, with v features instead of d
        One of the two may have one head and the other all.
    beta : float or array_like of shape (H,)
    update_steps_max : int or None
        Updates after the first association; None or negative: until every query has converged, at most 10,000.
    update_steps_eps : float
        A query has converged when its weights move by at most this, in the Euclidean norm.
    padding_mask : array_like of bool, shape (B, M)
        True where there is no stored row.
    mask : array_like, shape (N, M), (B, N, M), (B, H, N, M) or hflayers' (B * H, N, M)
        bool, True where a query does not see a row; or numbers added to the scores, -inf included.
    offsets : array_like of int, shape (B + 1,)
        Ragged bags: sample b has rows offsets[b] to offsets[b + 1].
    dropout : float from 0 to below 1
        Rate at which single weights of the last association are dropped; the others are multiplied by
        1 / (1 - rate).
    seed : int from 0 to 2^64 - 1
        Seed of dropout.
    gradient : {"unrolled", "implicit"}
        The gradient through all updates, or that of the fixed point reached.
    key_projection, value_projection : Projection
        Takes W_h r + b_h in place of each row r; then `stored` or `values` have e features and one head.
    structure : Structure, optional
        Which of its sample's rows query n of each sample sees (`sparsehopfield.structures`); all by default. A query
        keeps its place through all updates. A k beyond the rows that it chooses from means all. Each ragged bag has
        rows 0 to its size - 1, and a window at a place that a bag does not have is empty. Features take the place of
        softmax; they have neither masks, dropout, projections nor implicit gradients, and a query has converged when
        an update moves it by at most `update_steps_eps` times the largest norm of a stored row.
    appended : int, at least 0
        How many rows at the end of each sample all queries see, whatever the structure; `TopK` chooses its k best among
        all rows, these included.
    keep : bool
        Whether a backward pass will follow. If not, nothing is saved, and `saved` is None.

    Returns
    -------
    out : ndarray of shape (B, N, H, v)
        Zeros for a query that sees no row. Of the arrays' dtype: float64 if one is, else float32.
    saved : Saved
        For `associate_backward` and `association_weights`. Until it is gone, the numbers in queries, stored, values and
        projections must not change, or gradients are wrong. Offsets and masks may change, as they are copied.

    Raises
    ------
    ValueError
        If shapes or masks do not fit, options are out of range, or a number is NaN or infinite.
    OverflowError
        If a score is beyond the dtype.

    Warns
    -----
    RetrievalWarning
        If a query is still moving after 10,000 updates.

    Notes
    -----
    The work is 2 (steps + 1) B N H M d multiplications for maps of full support. For the others the mixtures, and the
    whole backward pass, follow the supports. Under a structure work and memory follow the rows that any of some 16
    queries, neighbours in place, sees; TopK computes all scores, and its later work follows the pairs. No N x M array
    is made. With a `key_projection` the rows are not projected: products run in their own e features, right for few
    queries and many rows (pooling). Results are the same bits for any number of threads.

    References
    ----------
    Ramsauer et al. 2021, "Hopfield Networks is All You Need"; Hu et al. 2023, eq. (2.5) and section 3.

    Examples
    --------
    >>> bag = np.eye(3, dtype=np.float32).reshape(1, 3, 1, 3)          # one sample, three rows, one head
    >>> query = np.array([0.9, 0.2, 0.1], np.float32).reshape(1, 1, 1, 3)
    >>> out, saved = associate_forward(query, bag, bag, beta=2.0)
    >>> out.ravel()
    array([1., 0., 0.], dtype=float32)
    """
    arrays = [as_numbers(name, a) for name, a in (("queries", queries), ("stored", stored), ("values", values))]
    dtype = compute_dtype(*arrays)
    q, k = _rows_with_heads("queries", arrays[0], dtype), _rows_with_heads("stored", arrays[1], dtype)
    v = k if values is stored else _rows_with_heads("values", arrays[2], dtype)
    if offsets is not None:
        if k.ndim != 3:
            raise ValueError(f"offsets: need stored rows of shape (rows, heads, features), got {k.shape}")
        o = as_offsets(offsets, len(k))
        if padding_mask is not None:
            raise ValueError("padding_mask: ragged bags have no padding; leave the rows out")
        samples = len(o) - 1
    else:
        o = None
        samples = len(k) if k.ndim == 4 else len(q) if q.ndim == 4 else 1
    heads = q.shape[-2]
    if q.ndim == 4 and len(q) != samples:
        raise ValueError(f"queries: {len(q)} samples, but there are {samples} of stored rows")
    if k.shape[:-2] != v.shape[:-2]:
        raise ValueError(f"values: must have the rows of stored, {k.shape[:-2]}, got {v.shape[:-2]}")
    for name, a in (("stored", k), ("values", v)):
        if a.shape[-2] not in (1, heads):
            raise ValueError(f"{name}: must have the queries' {heads} heads or one, got {a.shape[-2]}")
    code = separation_code(separation)
    if as_choice("gradient", gradient, ("unrolled", "implicit")) == "implicit" and not row_of(code).has_energy:
        raise ValueError("gradient: a polynomial update is the step of no energy; its gradient must be 'unrolled'")
    steps = as_steps(update_steps_max)
    if key_projection is not None and (steps < 0 or not row_of(code).shift_invariant or gradient == "implicit"):
        raise ValueError("key_projection: not with unlimited updates, polynomials or the implicit gradient")
    key_weight, key_bias = _checked_projection("key_projection", key_projection, dtype, heads, k)
    value_weight, value_bias = _checked_projection("value_projection", value_projection, dtype, heads, v)
    if (k.shape[-1] if key_weight is None else key_weight.shape[1]) != q.shape[-1]:
        raise ValueError(f"queries: must have the features of the keys, got {q.shape[-1]}")
    if min(q.shape[-1], v.shape[-1]) == 0 or heads == 0:
        name = "queries" if q.shape[-1] == 0 or heads == 0 else "values"
        raise ValueError(f"{name}: at least one head and one feature are needed")
    b = as_positive_numbers("beta", beta)
    if b.max(initial=0) > np.finfo(dtype).max:  # it is multiplied into the queries
        raise ValueError(f"beta: must be finite in {dtype}, got {b.max()}")
    if b.ndim > 1 or (b.ndim == 1 and len(b) not in (1, heads)):
        raise ValueError(f"beta: must be one number or one for each of the {heads} heads, got shape {b.shape}")
    rate = as_number("dropout", dropout, least=0.0)
    if rate >= 1:
        raise ValueError(f"dropout: must be below 1, got {dropout}")
    seed = as_whole("seed", seed, 0, 2**64 - 1)
    rows = k.shape[-3] if o is None else int(np.diff(o).max(initial=0))
    if padding_mask is not None:
        padding_mask = np.array(as_numbers("padding_mask", padding_mask), np.bool_, order="C")
        if padding_mask.shape != (samples, rows):
            raise ValueError(f"padding_mask: must be of shape ({samples}, {rows}), got {padding_mask.shape}")
    shape = (samples, heads, q.shape[-3], rows)
    appended = as_whole("appended", appended, 0) if samples else 0
    if appended > rows:
        raise ValueError(f"appended: must be at most the {rows} rows, got {appended}")
    structure = as_structure(structure)
    eps = as_number("update_steps_eps", update_steps_eps, least=0.0)
    if mask is not None:
        mask = _checked_mask(mask, dtype, shape, copy=keep)
    settings = steps, eps, rate, seed, gradient == "implicit"
    projections = key_weight, key_bias, value_weight, value_bias
    b = b + np.zeros(heads)
    return forward_of(q, k, v, b, code, shape, settings, projections, o, padding_mask, mask, structure, appended, keep)


def _apart(a: Array) -> Array:
    """Return rows whose samples and heads lie apart: where they share memory, the core has one gradient for all."""
    sides = (a.shape[-2], a.strides[-2]), *([(a.shape[0], a.strides[0])] if a.ndim == 4 else [])
    return contiguous(a) if any(n > 1 and step == 0 for n, step in sides) else a


def forward_of(
    q: Array,
    k: Array,
    v: Array,
    beta: Array,
    code: tuple[int, float],
    shape: tuple[int, int, int, int],
    settings: tuple[int, float, float, int, bool],
    projections: tuple[Array | None, Array | None, Array | None, Array | None],
    offsets: Array | None,
    padding: Array | None,
    mask: Array | None,
    structure: Structure | None,
    appended: int,
    keep: bool,
) -> tuple[Array, Any]:
    """Return what `associate_forward` does, of arguments that fit one another.

    Parameters
    ----------
    q, k, v : ndarray
        As `associate_forward` takes them, of one dtype, features contiguous.
    beta : ndarray of float64, shape (H,)
    code : tuple
        The separation as the core has it.
    shape : tuple
        (B, H, N, M) of the weights.
    settings : tuple
        Updates (-1: until converged), eps, rate of dropout, its seed, whether the gradient is implicit.
    projections : tuple
        Weight and bias of keys, weight and bias of values, contiguous, or None.
    offsets, padding : ndarray or None
        Contiguous.
    mask : ndarray of bool or of the arrays' dtype, shape (B, H, N, M), or None
        It may be broadcast, but along the last axis. Like the other arrays it must not change while `saved` is used.
    structure : Structure or None
        None for all pairs.
    """
    samples, heads, queries, rows = shape
    dtype, key_weight, sparse = q.dtype, projections[0], True
    broadcast = [q.ndim == 3, False, False]
    if structure is not None and (executor := structure.association()) is not None:
        options = {
            "dropout": settings[2] > 0,
            "mask": mask is not None,
            "gradient": settings[4],
            "key_projection": key_weight is not None,
            "value_projection": projections[2] is not None,
        }
        executor.check(structure, code, appended, [name for name, is_used in options.items() if is_used])
        limit = None if settings[0] < 0 else settings[0]
        out, tape, unconverged = executor.forward(
            structure, q, k, v, beta, steps=limit, eps=settings[1], padding=padding, offsets=offsets, keep=keep
        )
        _warn_if_unconverged(unconverged)
        return out, Saved(tape, shape, broadcast, sparse, dtype, (q, k, v), executor) if keep else None
    descriptor = None
    if structure is not None and (choice := structure.rows_to_choose_from(rows, appended)):
        ragged = offsets is not None and bool((np.diff(offsets) < rows).any())
        descriptor = structure.within(choice).descriptor(queries, choice, ragged)
    if padding is not None and k.ndim == 3:  # samples share rows, and each masks others
        hidden = np.broadcast_to(padding[:, None, None, :], shape)
        if mask is None:
            mask = hidden
        else:
            mask = mask | hidden if mask.dtype == np.bool_ else np.where(hidden, dtype.type(-np.inf), mask)
        padding = None
    if keep or padding is not None:  # padded samples have rows of their own
        k, v = _apart(k), _apart(v)
    # an array of one head beside one of all heads is a view, broadcast to all; its gradient is summed over them
    if k.shape[-2] != v.shape[-2]:
        broadcast[1:] = k.shape[-2] < v.shape[-2], v.shape[-2] < k.shape[-2]
        if broadcast[1] and key_weight is not None:
            raise ValueError("key_projection: then values must have one head, too (or a value_projection)")
        k, v = (np.broadcast_to(a, (*a.shape[:-2], heads, a.shape[-1])) for a in (k, v))
    out, tape, unconverged = _core.associate_forward(
        q, k, v, beta, *code, samples, offsets, padding, mask, *settings, *projections, descriptor, appended, keep
    )
    _warn_if_unconverged(unconverged)
    if tape is None:
        return out, None
    sparse = has_cutoff(code) or descriptor is not None
    return out, Saved(tape, shape, broadcast, sparse, dtype, (q, k, v))


def associate_backward(
    saved: Saved,
    grad: ArrayLike,
    *,
    need_rows: bool = True,
    need_beta: bool = True,
    out: tuple[Array | None, Array | None, Array | None] = (None, None, None),
) -> tuple[Any, ...]:
    """Compute the gradients of sum(grad * out).

    Parameters
    ----------
    saved : Saved
        What the forward pass saved.
    grad : array_like of shape (B, N, H, v)
    need_rows : bool
        False leaves out the gradients of stored rows and values, which saves work where the rows are data; those of
        projections are there in any case.
    need_beta : bool
        False leaves out the gradient of beta.
    out : tuple of three ndarray or None
        Where to put the gradients of queries, stored and values: arrays of their shapes and dtype, whose rows may be
        apart, as parts of a wider array are. Only for arrays that are not broadcast: queries of shape (B, N, H, d), and
        stored and values that both have all heads or both one.

    Returns
    -------
    queries, stored, values : ndarray or None
        Each shaped as its argument was.
    beta : ndarray of shape (H,), float64, or None
    key_projection, value_projection : Projection or None
        Two more where a projection was given.

    Raises
    ------
    ValueError
        If `grad` does not have the shape of the output, or `out` cannot be written to, or overlaps another array.
    ArithmeticError
        If `gradient="implicit"` and a fixed point is not isolated or not stable, so that it has no gradient.

    References
    ----------
    Martins & Astudillo 2016 for the Jacobian of sparsemax; Bai, Kolter & Koltun 2019, "Deep equilibrium models", for
    gradients at fixed points.

    Examples
    --------
    >>> bag = np.eye(3, dtype=np.float32).reshape(1, 3, 1, 3)
    >>> query = np.array([0.5, 0.3, 0.1], np.float32).reshape(1, 1, 1, 3)
    >>> out, saved = associate_forward(query, bag, bag, beta=1.0)
    >>> dqueries, dstored, dvalues, dbeta = associate_backward(saved, np.ones_like(out))
    >>> bool(np.abs(dqueries).max() < 1e-6)  # the weights sum to 1 whatever the query
    True
    """
    g = contiguous(as_numbers("grad", grad), saved._dtype)
    samples, heads, queries, _ = saved._shape
    if g.ndim != 4 or g.shape[:3] != (samples, queries, heads):
        raise ValueError(f"grad: must have the shape of the output, ({samples}, {queries}, {heads}, v), got {g.shape}")
    if any(a is not None for a in out):
        _check_out(saved, g, out)
    return gradients_of(saved, g, need_rows, need_beta, out)


def _check_out(saved: Saved, g: Array, out: tuple[Array | None, Array | None, Array | None]) -> None:
    """Raise unless gradients can be written to these arrays."""
    for name, shared, a in zip(("queries", "stored", "values"), saved._broadcast, out, strict=True):
        if shared and a is not None:
            raise ValueError(f"out: the gradient of {name}, which are shared, is summed, and has no place")
    others = [g, *saved._rows]
    for a, rows in zip(out, saved._rows, strict=True):
        if not isinstance(a, np.ndarray):
            continue
        if not a.flags.writeable:
            raise ValueError("out: is read-only")
        if any(overlap(a, other) for other in others):
            raise ValueError("out: overlaps another array of this call in memory; give one of its own")
        if saved._executor is not None and (a.shape != rows.shape or a.dtype != rows.dtype or overlaps_itself(a)):
            raise ValueError(BAD_OUT.format(saved._dtype))
        others.append(a)


def gradients_of(
    saved: Saved,
    g: Array,
    need_rows: bool,
    need_beta: bool,
    out: tuple[Array | None, Array | None, Array | None] = (None, None, None),
) -> tuple[Any, ...]:
    """Return what `associate_backward` does, of a contiguous `g` and arrays `out` that were checked."""
    if saved._executor is not None:
        gradients = saved._executor.backward(saved._tape, g, need_rows, need_beta)
        for a, d in zip(out, gradients, strict=False):
            if a is not None and d is not None:
                a[...] = d
        return tuple(d if a is None else a for a, d in zip((*out, None), gradients, strict=True))
    try:
        dq, dk, dv, dbeta, kw, kb, vw, vb = _core.associate_backward(saved._tape, g, need_rows, need_beta, *out)
    except TypeError:
        raise ValueError(BAD_OUT.format(saved._dtype)) from None
    if saved._shape[0] == 0:  # the core has no set of rows, but there are some where samples share them
        for a in (dq, dk, dv, kw, kb, vw, vb):
            if a is not None:
                a[...] = 0
    if saved._broadcast[0]:
        dq = dq.sum(axis=0)
    dk, dv = (
        a.sum(axis=-2, keepdims=True) if is_broadcast and a is not None else a
        for a, is_broadcast in zip((dk, dv), saved._broadcast[1:], strict=True)
    )
    gradients = (dq, dk, dv, None if dbeta is None else dbeta.sum(axis=(0, 1)))
    if kw is None and vw is None:
        return gradients
    return (*gradients, None if kw is None else Projection(kw, kb), None if vw is None else Projection(vw, vb))


def association_weights(saved: Saved) -> Any:
    """Return the weights of the last association, before dropout.

    Parameters
    ----------
    saved : Saved
        What a forward pass saved.

    Returns
    -------
    ndarray of shape (B, H, N, M), or csr_array of shape (B * H * N, M)
        The second, its rows in the order of the first's leading axes, where the map has a cutoff or there is a
        structure, so that supports are small. M is the size of the largest bag where bags are ragged.

    Examples
    --------
    >>> bag = np.eye(3, dtype=np.float32).reshape(1, 3, 1, 3)
    >>> query = np.array([0.5, 0.3, -9], np.float32).reshape(1, 1, 1, 3)
    >>> association_weights(associate_forward(query, bag, bag, beta=1.0)[1]).toarray().round(2)
    array([[0.6, 0.4, 0. ]], dtype=float32)
    """
    from scipy.sparse import csr_array  # SciPy takes a while to import

    if saved._executor is not None:
        saved._executor.refuse(saved._tape, "associate")
    start, position, weight = _core.association_weights(saved._tape)
    samples, heads, queries, rows = saved._shape
    sparse = csr_array((contiguous(weight, saved._dtype), position, start), shape=(samples * heads * queries, rows))
    sparse.sort_indices()
    return sparse if saved._sparse else sparse.toarray().reshape(saved._shape)
