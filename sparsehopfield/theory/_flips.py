"""Binary patterns: how many flipped entries one step undoes, whichever they are, and how often if they are random."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import as_integers, as_whole, ignoring_float_errors
from sparsehopfield._engine.separations import cutoff_of, separation_code
from sparsehopfield.theory._margins import margin
from sparsehopfield.theory._patterns import SLACK, as_single_beta, prepare_patterns


def _lead_needed(separation: Separation, beta: ArrayLike) -> float:
    """Return by how much the best score must lead to have all weight."""
    cutoff = cutoff_of(separation_code(separation))
    if cutoff is None:
        raise ValueError(f"separation: must give all weight to a score that leads by enough, got {separation!r}")
    with ignoring_float_errors():
        return float(np.float64(cutoff) / as_single_beta(beta))


def exact_flips(
    patterns: ArrayLike, beta: ArrayLike = 1.0, *, separation: Separation = "sparsemax"
) -> NDArray[np.int64]:
    """Compute how many entries of each binary pattern may be flipped, whichever they are, so that one step restores it.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
        All entries c or -c, with one c for all.
    beta : float, positive
        Inverse temperature.
    separation : {"sparsemax", "entmax15"}, Entmax or Normmax
        A map that gives all weight to a score that leads by enough.

    Returns
    -------
    ndarray of int, shape (M,)
        -1 where not even the pattern itself is sent to exactly itself, and of copies; d for M = 1.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    See Also
    --------
    exact_recall : Compute how often flips are undone if they are random.
    exact_radius : Compute the radius of the ball, for patterns that are not binary.

    Notes
    -----
    Not in the paper. With h the smallest number of entries in which another pattern differs and t the lead that the map
    needs (1/beta for sparsemax, 2/beta for entmax15) it is (2 h c^2 - t)/(4 c^2), rounded down: nearly half of h.
    Proof: the lead over a pattern that differs in k entries is 2 k c^2, and each flip of one of these takes 4 c^2 off
    it, while other flips leave it. So after f flips every lead is at least 2 h c^2 - 4 f c^2, with equality where all
    are among the entries in which the nearest pattern differs: the number is exact. (A pattern of one length is an
    extreme point, so that without the lead the step does not end on it.)

    f flips move a pattern by 2 c sqrt(f), and the flips that stay within `exact_radius` are about h/4: half as many, as
    the worst direction of the ball is no vertex of the cube.

    Examples
    --------
    >>> X = [[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, -1, -1, -1, -1, -1, -1]]
    >>> exact_flips(X, beta=1.0), exact_flips(X, beta=0.1)
    (array([2, 2]), array([0, 0]))
    """
    rows = prepare_patterns(patterns).rows
    sizes = np.abs(rows)
    size = float(sizes.flat[0]) if sizes.size else 0.0
    if size == 0 or (sizes != size).any():
        raise ValueError("patterns: all entries must be c or -c, with one c above 0 for all")
    lead = _lead_needed(separation, beta)
    d = rows.shape[1]
    with ignoring_float_errors():
        # of rows of 1 and -1 the margin is a whole number, exactly
        half = (margin(np.sign(rows)) - lead / size / size) / 4
        flips = np.clip(np.floor(half + SLACK * np.maximum(1, half)), -1, d)
    return np.where(half < -SLACK, -1, flips).astype(np.int64)


def exact_recall(
    d: int, n_patterns: int, flips: ArrayLike, beta: ArrayLike = 1.0, *, separation: Separation = "sparsemax"
) -> Any:
    """Compute the probability that one step restores exactly a random binary pattern with flipped entries.

    Parameters
    ----------
    d : int, at least 1
        How many entries a pattern has, each 1 or -1 with probability a half.
    n_patterns : int, at least 1
        How many patterns are stored, M.
    flips : int or array_like of int, from 0 to d
        How many entries of the query are flipped.
    beta : float, positive
        Inverse temperature.
    separation : {"sparsemax", "entmax15"}, Entmax or Normmax
        A map that gives all weight to a score that leads by enough.

    Returns
    -------
    float or ndarray, shape of flips
        The probability for each number of flips.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    exact_flips : Compute how many flips are always undone, of patterns at hand.
    exact_capacity : Count the patterns on a sphere that are stored.

    Notes
    -----
    Not in the paper. P(B >= f + t/2)^(M - 1) with B binomial of d and 1/2, and t the lead that the map needs
    (`exact_flips`). Exact, but for patterns that are drawn twice. Proof: the query has the score d - 2f with its
    pattern. Another pattern, independent of the query, differs from it in B entries and has the score d - 2B; the
    step ends on the pattern iff 2B - 2f >= t for all of them.

    So with f = r d flips and large beta M can be about exp(d (ln 2 - H(r))), H the entropy of r: exponential in d,
    where the network of 1982 has 0.138 d.

    Examples
    --------
    >>> exact_recall(d=128, n_patterns=1000, flips=[0, 13, 38], beta=1.0).round(3)
    array([1.   , 1.   , 0.998])
    """
    entries, count = as_whole("d", d, 1), as_whole("n_patterns", n_patterns, 1)
    flipped = as_integers("flips", flips)
    if ((flipped < 0) | (flipped > entries)).any():
        raise ValueError(f"flips: must be from 0 to d = {entries}")
    needed = flipped + _lead_needed(separation, beta) / 2
    nearer = np.minimum(np.ceil(needed - SLACK * np.maximum(1, needed)), entries + 1) - 1  # too near at most so many
    with ignoring_float_errors():
        log_each = np.log1p(-np.where(nearer >= 0, special.bdtr(np.maximum(nearer, 0), entries, 0.5), 0.0))
        return np.exp((count - 1) * log_each if count > 1 else np.zeros(flipped.shape))[()]
