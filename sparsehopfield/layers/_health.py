"""A check that the gradients of a sparse association have not died."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from sparsehopfield._engine.association import association_weights
from sparsehopfield._engine.checks import Array
from sparsehopfield.layers._hopfield import Hopfield
from sparsehopfield.layers._learned import HopfieldLayer, HopfieldPooling
from sparsehopfield.layers._passes import Tape

__all__ = ["GradientHealth", "gradient_health"]

COUNTS = 1e-6  # weights of full-support maps above this share of the largest count as support
MOST_COLLAPSED = 0.95
LEAST_GRADIENT = 1e-8


class GradientHealth(NamedTuple):
    """The result of `gradient_health`.

    Attributes
    ----------
    collapsed : float
        Share of the associations whose support holds one distinct stored pattern: they pass no gradient to state and
        stored patterns. Queries without stored patterns do not count.
    query_gradient : float or None
        The norm of the gradient in the projected state patterns over that in the association's output, of the last
        backward pass; None before there is one.

    See Also
    --------
    sparsehopfield.layers.gradient_health : Look at a layer, and return this.

    Examples
    --------
    >>> from sparsehopfield.layers import HopfieldPooling
    >>> pooling = HopfieldPooling(4, random_state=0)
    >>> _ = pooling.forward(np.random.default_rng(0).standard_normal((5, 10, 4)))
    >>> health = gradient_health(pooling)
    >>> health.collapsed, health.query_gradient  # softmax never collapses so; there was no backward pass
    (0.0, None)
    """

    collapsed: float
    query_gradient: float | None


def gradient_health(layer: Hopfield | HopfieldPooling | HopfieldLayer, *, warn: bool = True) -> GradientHealth:
    """Check the last forward (and backward) pass of a Hopfield layer for gradients that have died.

    A sparse association gets stuck when its support holds one stored pattern, or copies of one: then no change of a
    query changes the output. Remedies: a smaller beta, or `optim.Annealing` of beta or alpha, from flat to sharp.

    Parameters
    ----------
    layer : Hopfield, HopfieldPooling or HopfieldLayer
        The layer, after a forward pass; also its sparse twins.
    warn : bool
        Whether to issue a RuntimeWarning when more than 95 % of the associations have collapsed, or the query gradient
        is below 1e-8 of that coming in.

    Returns
    -------
    GradientHealth
        What was found.

    Raises
    ------
    RuntimeError
        If there was no forward pass yet.
    TypeError
        If `layer` is no Hopfield layer.

    Warns
    -----
    RuntimeWarning
        If `warn`, and gradients have died.

    See Also
    --------
    sparsehopfield.optim.Annealing : Change beta or alpha step by step, from flat to sharp.

    Examples
    --------
    >>> from sparsehopfield.layers import SparseHopfieldPooling
    >>> pooling = SparseHopfieldPooling(4, initial_std=1.0, scaling=1e6, random_state=0)
    >>> _ = pooling.forward(np.random.default_rng(0).standard_normal((5, 10, 4)))
    >>> gradient_health(pooling, warn=False)
    GradientHealth(collapsed=1.0, query_gradient=None)
    """
    if not isinstance(layer, (Hopfield, HopfieldPooling, HopfieldLayer)):
        raise TypeError(f"layer: must be a Hopfield layer, got {type(layer).__name__}")
    core = layer if isinstance(layer, Hopfield) else layer.hopfield
    tape = core._last_tape
    if tape is None:
        raise RuntimeError("gradient_health: needs a forward pass of the layer before it")
    health = GradientHealth(_collapsed_share(tape), _query_gradient(core))
    if warn and health.collapsed > MOST_COLLAPSED:
        warnings.warn(
            f"{health.collapsed:.0%} of the associations hold one distinct stored pattern and pass no gradient; "
            "begin with a smaller beta, or anneal beta or alpha",
            RuntimeWarning,
            stacklevel=2,
        )
    elif warn and health.query_gradient is not None and health.query_gradient < LEAST_GRADIENT:
        warnings.warn(
            f"the gradient in the state patterns has vanished ({health.query_gradient:.1e} of what comes in); begin "
            "with a smaller beta, or anneal beta or alpha",
            RuntimeWarning,
            stacklevel=2,
        )
    return health


def _query_gradient(core: Hopfield) -> float | None:
    """Return the norm of the gradient in the queries over that in the association's output."""
    if core._last_gradients is None:
        return None
    going, coming = (float(np.linalg.norm(grad)) for grad in core._last_gradients)
    return going / coming if coming else 0.0


def _row_labels(tape: Tape) -> Array:
    """Label every row that a sample may attend to, (B, M): equal rows alike, appended rows unlike all others."""
    (source,) = [source for source in tape.sources if tape.spec.key in source.roles]
    samples, rows = len(tape.out), source.xhat
    _, labels = np.unique(rows.reshape(-1, rows.shape[-1]), axis=0, return_inverse=True)
    appended = -1 - np.arange(tape.spec.appended)
    if tape.offsets is None:
        in_bags = np.broadcast_to(labels.reshape(rows.shape[:-1]), (samples, rows.shape[-2]))
        return np.concatenate([in_bags, np.broadcast_to(appended, (samples, tape.spec.appended))], axis=1)
    sizes = np.diff(tape.offsets) - tape.spec.appended
    bags = [np.append(bag, appended) for bag in np.split(labels.ravel(), np.cumsum(sizes)[:-1])]
    padded = np.zeros((samples, max(map(len, bags))), np.int64)
    for b, bag in enumerate(bags):
        padded[b, : len(bag)] = bag
    return padded


def _collapsed_share(tape: Tape) -> float:
    """Return the share of the associations whose support has one distinct stored pattern."""
    from scipy.sparse import csr_array

    weights: Any = association_weights(tape.saved)
    samples, queries, heads = tape.out.shape[:3]
    if isinstance(weights, np.ndarray):
        weights = weights.reshape(samples * heads * queries, weights.shape[-1])
        weights = csr_array(weights * (weights > COUNTS * weights.max(axis=1, initial=0, keepdims=True)))
    sizes = np.diff(weights.indptr)
    if tape.padded is not None:  # queries that only fill up
        real = np.zeros((samples, heads, queries), bool)
        real[tape.padded[0], :, tape.padded[1]] = True
        sizes = sizes * real.ravel()
    attending = sizes > 0
    if not attending.any():
        return 0.0
    sample = np.repeat(np.arange(samples), heads * queries)
    labels = _row_labels(tape)
    alike = [
        len(np.unique(labels[sample[i], weights.indices[weights.indptr[i] : weights.indptr[i + 1]]])) == 1
        for i in np.flatnonzero(attending)
    ]
    return float(np.mean(alike))
