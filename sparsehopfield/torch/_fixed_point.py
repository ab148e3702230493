"""The gradient of retrieval at a fixed point, in the support of each query alone.

A query that rests at x = T(x) = sum p_i m_i has, for a gradient g of x, the adjoint l that solves (1 - J) l = g, with J
the Jacobian of T: the gradient of the loss in anything else is that of one update T, with l in the place of g. The m_i
are the rows that are mixed: the patterns, or their unit rows (cosine).

The Jacobian of every map with an energy has one form on the support: D = A A' with A' y = sqrt(r) (y - <c, y>), where
r >= 0, and c >= 0 adds up to 1. So J = B' B for the rows B_i = sqrt(beta r_i) (m_i - <c, m>), and 1 - J has a Cholesky
factor exactly where the fixed point is stable and isolated; so has 1 - B B', k x k for a support of k.

Letters: N queries, M patterns, d features, v of a value; n queries at a time with supports of at most k patterns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sparsehopfield.torch._maps import slopes

__all__ = ["Gradients", "Model", "Supports", "gradients"]

NUMBERS = 2**20  # at most in a step's array of n x k x d, but for one query


class Model(NamedTuple):
    """What a score is, and how scores become weights."""

    similarity: str
    code: tuple[int, float]  # of a separation map with an energy


class Supports(NamedTuple):
    """The patterns with weight, query by query: query i has places start[i] to start[i + 1] of the other two."""

    start: Tensor  # int64 (N + 1,)
    position: Tensor  # int64, of a pattern
    weight: Tensor  # float64


class Gradients(NamedTuple):
    """The gradients of a retrieval, float64; other patterns than the touched ones have none."""

    touched: Tensor | None  # int64 (T,), patterns in some support, ascending; None: all, T = M
    patterns: Tensor  # (T, d)
    values: Tensor | None  # (T, v)
    beta: Tensor  # (N,)


class _Block(NamedTuple):
    """Queries whose gradients are computed at a time, their supports filled up to the same size by weights of 0."""

    queries: Tensor  # int64 (n,)
    position: Tensor | None  # int64 (n, k), of patterns; None: all patterns in their order
    weight: Tensor  # (n, k)


def gradients(
    grad: Tensor,
    states: Tensor,
    patterns: Tensor,
    values: Tensor | None,
    beta: Tensor,
    supports: Supports | None,
    model: Model,
) -> Gradients:
    """Return the gradients of sum(grad * result) in patterns, values and beta.

    Parameters
    ----------
    grad : Tensor, shape (N, d) or (N, v)
        Of the states, or of the values mixed there: float64, on the CPU as all others.
    states : Tensor, shape (N, d), float64
        Where the queries rest.
    patterns, values : Tensor, shapes (M, d) and (M, v)
    beta : Tensor, shape (N,), float64
    supports : Supports or None
        None: all patterns have weight, by softmax.
    model : Model

    Raises
    ------
    ArithmeticError
        If a query with a gradient rests at a fixed point that is not stable and isolated.
    """
    touched = None
    if supports is not None:
        touched, position = torch.unique(supports.position, return_inverse=True)
        supports = supports._replace(position=position)
        patterns, values = patterns[touched], None if values is None else values[touched]
    patterns, values = patterns.double(), None if values is None else values.double()
    found = Gradients(
        touched,
        torch.zeros_like(patterns),
        None if values is None else torch.zeros_like(values),
        torch.zeros_like(beta),
    )
    lengths = torch.linalg.vector_norm(patterns, dim=1, keepdim=True) if model.similarity == "cosine" else None
    mixed = patterns if lengths is None else patterns / lengths
    asked = grad.ne(0).any(1).nonzero()[:, 0]
    for block in _blocks(asked, states, mixed, beta, supports, model):
        _add_block(found, block, grad, states, mixed, values, beta, model)
    if lengths is not None:  # through m = xi / |xi|
        along = (found.patterns * mixed).sum(1, keepdim=True)
        found.patterns.sub_(along * mixed).div_(lengths)
    return found


def _blocks(
    asked: Tensor, states: Tensor, mixed: Tensor, beta: Tensor, supports: Supports | None, model: Model
) -> Iterator[_Block]:
    """Yield blocks of the queries that are asked for, those with supports of about the same size together."""
    m, d = mixed.shape
    if supports is None:
        for queries in torch.split(asked, max(1, NUMBERS // (m * d))):
            scores = _scores(states[queries], mixed.expand(len(queries), m, d), model)
            yield _Block(queries, None, torch.softmax(beta[queries, None] * scores, 1))
        return
    size = supports.start.diff()
    asked = asked[size[asked] > 0]  # a structure may show a query no pattern
    asked = asked[torch.argsort(size[asked], stable=True)]
    sizes, first = size[asked].tolist(), 0
    while first < len(sizes):
        last, most = first, 2 * sizes[first]
        while (
            last < len(sizes)
            and sizes[last] <= most
            and (last == first or (last + 1 - first) * sizes[last] * d <= NUMBERS)
        ):
            last += 1
        queries, k = asked[first:last], sizes[last - 1]
        column, n = torch.arange(k, device=size.device), size[queries, None]
        place = supports.start[queries, None] + torch.minimum(column, n - 1)
        yield _Block(queries, supports.position[place], supports.weight[place] * (column < n))
        first = last


def _scores(x: Tensor, m: Tensor, model: Model) -> Tensor:
    """Return the scores (n, k) of states (n, d) with their rows (n, k, d)."""
    if model.similarity == "euclidean":
        return -0.5 * (x[:, None, :] - m).square().sum(2)
    return (m @ x[:, :, None])[:, :, 0]


def _add_block(
    found: Gradients,
    block: _Block,
    grad: Tensor,
    states: Tensor,
    mixed: Tensor,
    values: Tensor | None,
    beta: Tensor,
    model: Model,
) -> None:
    """Add the gradients of a block of queries to those that were found."""
    queries, position, p = block
    n = len(p)
    g = grad[queries]
    if p.shape[1] == 1:  # all weight is on one pattern, and stays there
        _add_rows(found.patterns if values is None else found.values, position, g[:, None, :])
        return
    x, b = states[queries], beta[queries, None]
    m = mixed.expand(n, *mixed.shape) if position is None else mixed[position]
    r, c = slopes(p, *model.code)
    root = r.sqrt()

    centred = m - (c[:, None, :] @ m)
    rows = (b.sqrt() * root)[:, :, None] * centred  # B
    if values is None:
        pulled, right = torch.zeros_like(p), g
    else:
        v = values.expand(n, *values.shape) if position is None else values[position]
        y = (v @ g[:, :, None])[:, :, 0]
        pulled = root * (y - (c * y).sum(1, keepdim=True))  # A' y
        right = b.sqrt() * (rows.mT @ pulled[:, :, None])[:, :, 0]
    adjoint = _solve(rows, right, queries)
    pulled = pulled + (rows @ adjoint[:, :, None])[:, :, 0] / b.sqrt()
    of_scores = b * (root * pulled - c * (root * pulled).sum(1, keepdim=True))
    towards = x[:, None, :] - m if model.similarity == "euclidean" else x[:, None, :]
    _add_rows(found.patterns, position, p[:, :, None] * adjoint[:, None, :] + of_scores[:, :, None] * towards)
    if values is not None:
        _add_rows(found.values, position, p[:, :, None] * g[:, None, :])
    found.beta[queries] = (of_scores * _scores(x, m, model)).sum(1) / b[:, 0]


def _solve(rows: Tensor, right: Tensor, queries: Tensor) -> Tensor:
    """Return the solution (n, d) of (1 - B' B) l = right, for rows B (n, k, d), by a factor of the smaller size."""
    k, d = rows.shape[1:]
    narrow = k <= d
    gram = rows @ rows.mT if narrow else rows.mT @ rows
    factor, fails = torch.linalg.cholesky_ex(torch.eye(min(k, d), dtype=rows.dtype, device=rows.device) - gram)
    # The last bits of a pivot are those of 1, which it is a difference to.
    least = factor.diagonal(dim1=1, dim2=2).square().amin(1)
    singular = (fails > 0) | ~(least > 1e3 * torch.finfo(rows.dtype).eps)
    if singular.any():
        raise ArithmeticError(
            f"queries: query {int(queries[singular.nonzero()[0, 0]])} rests at a fixed point that is not stable and "
            "isolated, so that it has no gradient (beta is near a critical value, or the query lies between patterns)"
        )
    if not narrow:
        return torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
    inner = torch.cholesky_solve(rows @ right[:, :, None], factor)
    return right + (rows.mT @ inner)[:, :, 0]


def _add_rows(to: Tensor | None, position: Tensor | None, rows: Tensor) -> None:
    """Add rows (n, k, d) to those at their positions (n, k), or to all in order."""
    if to is None:
        return
    if position is None:
        to.add_(rows.sum(0))
    else:
        to.index_add_(0, position.reshape(-1), rows.flatten(0, 1))
