"""Energies, and a bound on how much one update stretches distances."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield._engine.separations import equal_scores_conjugate, row_of, separation_code
from sparsehopfield.functional import energy
from sparsehopfield.theory._patterns import as_single_beta, prepare_patterns, prepare_queries


def energy_as_printed(
    queries: ArrayLike, patterns: ArrayLike, beta: ArrayLike = 1.0, *, separation: Separation = "sparsemax"
) -> Any:
    """Compute the energy as printed, without the 1/beta: H(x) = -Psi*(beta Xi^T x) + |x|^2/2.

    Parameters
    ----------
    queries : array_like, shape (..., d)
        One row a query.
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        The map whose conjugate is Psi*.

    Returns
    -------
    ndarray, shape (...)
        The energy of each query.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.energy : Compute the energy that does fall along retrieval.
    energy_offset : Make that energy nowhere negative.

    Notes
    -----
    Claim (2.1 and lemma 2.1): T lowers H. **Fails** unless beta = 1: with the one pattern 1 and beta = 2, H rises from
    -2 at x = 2 to -3/2 at T(x) = 1. The step that lowers H is beta T, as grad Psi*(beta Xi^T x) = beta T(x); and at a
    fixed point grad H = (1 - beta) x. `sparsehopfield.energy` has the 1/beta: E(x) = -Psi*(beta Xi^T x)/beta + |x|^2/2.
    Its gradient is x - T(x), and E(x) - E(T(x)) >= |x - T(x)|^2/2 because Psi*(beta Xi^T .)/beta is convex with
    gradient T. H = beta E + (1 - beta) |x|^2/2.

    References
    ----------
    Hu et al. 2023, eq. (2.1) and lemma 2.1.

    Examples
    --------
    >>> energy_as_printed([[2.0], [1.0]], [[1.0]], 2.0)
    array([-2. , -1.5])
    """
    scored = prepare_patterns(patterns)
    x, _, b, leading = prepare_queries(queries, scored, 0, beta)
    with ignoring_float_errors():
        h = b * energy(x, scored.rows, b, separation=separation) + (1 - b) / 2 * (x**2).sum(1)
    if not np.isfinite(h).all():
        raise OverflowError("beta: the printed energy exceeds the largest float64")
    return h.reshape(leading)[()]


def energy_offset(
    patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot", separation: Separation = "sparsemax"
) -> float:
    """Compute an offset that makes the energy nowhere negative: m^2/2 + (M - 1)/(2 M beta).

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        The first term is m^2/2, 0 and 1/2.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        The second term is Psi*(0)/beta: for softmax ln(M)/beta.

    Returns
    -------
    float
        The offset.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault; Polynomial has no energy.

    See Also
    --------
    sparsehopfield.energy : Compute the energy that the offset is added to.

    Notes
    -----
    Not in the paper. Proof: -Psi is at most Psi*(0), so Psi*(beta s)/beta <= max s + Psi*(0)/beta; max s <= n m, and
    |x|^2/2 - n m >= -m^2/2 (euclidean: |x|^2/2 - max s = min |x - xi|^2/2 >= 0). On the hull of the patterns
    E <= -|x|^2/2 <= 0 for dot similarity, as max s >= <x, x> there: E plus the offset lies between 0 and the offset.

    Examples
    --------
    >>> energy_offset([[2.0, 0.0], [0.0, 2.0]], beta=1.0)
    2.25
    """
    scored, b = prepare_patterns(patterns, similarity), as_single_beta(beta)
    code = separation_code(separation)
    if not row_of(code).has_energy:
        raise ValueError(
            f"separation: {row_of(code).class_name} has no energy: its update is the gradient step of nothing"
        )
    entropy = equal_scores_conjugate(code, len(scored.rows))  # of equal weights, where -Psi is largest
    lowest = {"dot": float(scored.squares.max()) / 2, "euclidean": 0.0, "cosine": 0.5}[similarity]
    offset = lowest + entropy / b
    if offset == math.inf:
        raise OverflowError(f"beta: {b:g} is so small that the energy exceeds the largest float64")
    return offset


def contraction(
    patterns: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    similarity: str = "dot",
    separation: Separation = "sparsemax",
) -> float:
    """Bound how much T stretches distances: beta times the largest eigenvalue of the patterns' scatter matrix.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        One row a pattern.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is: <x, xi>; -|x - xi|^2/2; <x, xi/|xi|>, where the unit rows take the patterns' place.
    separation : {"sparsemax", "softmax", "entmax15"}, or Entmax with alpha at most 2
        With softmax the bound is half as large.

    Returns
    -------
    float
        Below 1, T has one fixed point, which every query comes to: the network remembers nothing.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    exact_radius : Compute how far noise in a query changes nothing at all.
    retrieval_error : Compute the error that noise changes.

    Notes
    -----
    Not in the paper. Proof: where T has support S its Jacobian is beta Xi J Xi^T, J the orthogonal projection on the
    vectors over S that sum to 0. J <= P, the projection on all vectors that sum to 0, so the Jacobian's norm is at most
    beta |Xi P|_2^2, and Xi P are the patterns less their mean. The bound is attained for two patterns: for 1 and -1 it
    is 2 beta, and T(x) = 2 beta x while |x| <= 1/(2 beta). The Jacobian of alpha-entmax is J = diag(s) - s s^T/sum(s)
    with s = p^(2 - alpha): v'Jv is sum s (v - v_s)^2 with the s-weighted mean v_s, at most sum (v - v_mean)^2 for
    s <= 1. That of softmax is a variance under p, at most a quarter of the squared range, and so at most |v|^2/2.

    Claim (section 2.2): noise in the query or in a pattern has a linear effect on the sparse retrieval error, and an
    exponential one on the dense. **Fails**: it is what two bounds look like, of which (2.6) jumps where the support
    grows, so that it is not even continuous in the noise. Noise eta in the query changes either error by at most
    `contraction` times |eta|, and noise eta in the pattern by at most (1 + n beta c sqrt(lambda)) |eta|, lambda the
    scatter matrix's largest eigenvalue and c = 1 (sparse) or 1/2 (dense): linear in both, with the smaller constant in
    the dense one. 1 and -1 with beta = 1: noise of .1 at x = 1/4 changes the sparse error by .2, the dense one by .096.
    What sparsemax has instead is an error of 0 within `exact_radius`, where noise changes nothing.

    Examples
    --------
    >>> contraction([[1.0], [-1.0]], beta=0.25)
    0.5
    >>> contraction([[1.0], [-1.0]], beta=0.25, separation="softmax")
    0.25
    """
    scored, b = prepare_patterns(patterns, similarity), as_single_beta(beta)
    number, parameter = separation_code(separation)
    row = row_of((number, parameter))
    if row.name not in ("softmax", "sparsemax", "entmax") or parameter > 2:
        raise ValueError(
            "separation: this bound is known of 'softmax', 'sparsemax' and Entmax(alpha) with alpha at most 2, got "
            f"{separation!r}"
        )
    stretch = 0.5 if row.name == "softmax" else 1.0
    m, d = scored.rows.shape
    with ignoring_float_errors():
        centred = scored.rows - scored.rows.mean(axis=0)
        scatter = centred.T @ centred if d <= m else centred @ centred.T
    if not np.isfinite(scatter).all():
        raise OverflowError("patterns: their scatter matrix exceeds the largest float64; scale the arrays down")
    return stretch * b * max(float(np.linalg.eigvalsh(scatter)[-1]), 0.0)
