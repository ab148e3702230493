"""Majorisation: what is true in the place of theorem 2.2."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine.checks import as_numbers, ignoring_float_errors
from sparsehopfield.theory._patterns import SLACK


def majorises(p: ArrayLike, q: ArrayLike) -> Any:
    """Check whether p majorises q: equal sums, and for every k the k largest of p sum to no less than those of q.

    Parameters
    ----------
    p, q : array_like, shape (..., n)
        The numbers to compare, along the last axis; finite. Leading axes broadcast.

    Returns
    -------
    ndarray of bool, shape (...)
        With a slack of 1e-12 of the largest sum of magnitudes.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    retrieval_error : Compute the errors, whose order theorem 2.2 gets wrong.
    sparsehopfield.sparsemax : Compute weights that majorise those of softmax.

    Notes
    -----
    Not in the paper, but what is true of theorem 2.2: sparsemax(z) majorises softmax(z), for every z. Proof. Let
    g_i = max z - z_i, n = kappa - 1 and g the mean of the g_i over the rest of the support, where g_i < 1. By Jensen
    the largest softmax weight is at most 1/(1 + n e^-g), and e^-g >= 1 - g gives
    (1 + n g)(1 + n e^-g) >= 1 + n + n^2 g (1 - g) >= kappa, so it is at most (1 + n g)/kappa, the largest sparsemax
    weight. As a function of z, the difference of the weights (z - tau)_+ - e^z/Z is negative up to tau, concave beyond
    it and at least 0 at max z: it changes sign once, so its sums from the top rise and then fall to 0.

    Examples
    --------
    >>> majorises([[0.7, 0.3, 0.0], [0.4, 0.3, 0.3]], [0.5, 0.25, 0.25])
    array([ True, False])
    """
    a, b = (as_numbers(name, v).astype(np.float64) for name, v in (("p", p), ("q", q)))
    for name, v in (("p", a), ("q", b)):
        if v.ndim == 0 or v.shape[-1] == 0:
            raise ValueError(f"{name}: must have at least one number along its last axis, got shape {v.shape}")
        if not np.isfinite(v).all():
            raise ValueError(f"{name}: contains NaN or infinity; every entry must be finite")
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"q: must have as many numbers as p ({a.shape[-1]}), got {b.shape[-1]}")
    try:
        a, b = np.broadcast_arrays(a, b)
    except ValueError:
        raise ValueError(f"q: shape {b.shape} does not broadcast to that of p, {a.shape}") from None
    with ignoring_float_errors():
        slack = SLACK * np.maximum(np.abs(a).sum(axis=-1), np.abs(b).sum(axis=-1))
        more = (np.sort(a)[..., ::-1].cumsum(axis=-1)) - (np.sort(b)[..., ::-1].cumsum(axis=-1))
        return (more >= -slack[..., None]).all(axis=-1) & (np.abs(more[..., -1]) <= slack)
