"""How many of many random scores have weight."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import as_number, as_whole
from sparsehopfield._engine.separations import row_of, separation_code
from sparsehopfield.theory._patterns import Floats

CELLS = 64  # of the grid on which sums are distributed; a second one has twice as many
NODES = 8  # of each part of the integral over scores
#: The means of the sum of min(Y, 1) at which the integral is divided. At the first, sums below 1 are as good as
#: impossible: P(S < 1) <= e E exp(-S), and exp(-Y) <= 1 - (1 - 1/e) min(Y, 1).
LEVELS = (50.0, 8.0, 2.5, 1.5, 1.15, 1.0, 0.85, 0.6, 0.2, 0.02)


class _Excess(NamedTuple):
    """The terms Y = (scale (Z - z))_+^power of normal scores Z above a score z, which has weight iff they sum to less
    than 1.

    Attributes
    ----------
    spread : float
        Standard deviation of Z, whose mean is 0.
    scale : float
        1 for sparsemax, 1/2 for 1.5-entmax.
    power : int
        1 for sparsemax, 2 for 1.5-entmax.
    """

    spread: float
    scale: float
    power: int

    def mean_above(self, z: Floats, t: Floats) -> Floats:
        """Return E(Y - t)_+ for scores z and thresholds t, broadcast."""
        s, m = self.scale * self.spread, -self.scale * z
        root = t if self.power == 1 else np.sqrt(t)
        a = (root - m) / s
        tail, density = special.ndtr(-a), np.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        if self.power == 1:
            above = s * density + (m - t) * tail
        else:
            above = (m * m + s * s - t) * tail + s * (root + m) * density
        return np.maximum(above, 0)

    def term(self, lead: Floats) -> Floats:
        """Return the term of a single score that is so far above z."""
        return np.asarray(np.maximum(self.scale * lead, 0) ** self.power, np.float64)


def _sums(excess: _Excess, z: Floats, count: int, cells: int) -> Floats:
    """Return the probabilities (len(z), cells + 1) that the sum of so many terms is k/cells, on a grid that keeps
    means.
    """
    grid = np.arange(cells + 2) / cells
    above = excess.mean_above(z[:, None], grid)
    # E of the hat functions on the grid: second differences of the mean above
    one = np.empty((len(z), cells + 1))
    one[:, 0] = 1 - cells * (above[:, 0] - above[:, 1])
    one[:, 1:] = cells * (above[:, :-2] - 2 * above[:, 1:-1] + above[:, 2:])
    one = np.clip(one, 0, 1)
    total = np.zeros_like(one)
    total[:, 0] = 1
    size = 2 * (cells + 1)

    def product(a: Floats, b: Floats) -> Floats:
        """Convolve rows, up to the end of the grid."""
        both = np.fft.irfft(np.fft.rfft(a, size) * np.fft.rfft(b, size), size)
        return np.maximum(both[:, : cells + 1], 0)

    while count:
        if count & 1:
            total = product(total, one)
        count >>= 1
        if count:
            one = product(one, one)
    return total


def _inside(excess: _Excess, z: Floats, count: int, taken: Floats, cells: int) -> Floats:
    """Return the probability that the sum of so many terms stays below 1 less what is taken, for every z."""
    sums = _sums(excess, z, count, cells)
    limit = np.clip((1 - taken) * cells, 0, cells)
    # a sum on the grid stands for one spread over the two cells beside it
    k = np.arange(cells + 1)
    share = np.clip(limit[:, None] - k + 0.5, 0, 1)
    return np.asarray((sums * share).sum(axis=1), np.float64)


def _where_capped_sum(excess: _Excess, others: int, least: float, most: float) -> list[float]:
    """Return the scores z at which the sum of min(Y, 1) over the others has the means `LEVELS`, by bisection; it falls
    with z.
    """
    low, high = np.full(len(LEVELS), least), np.full(len(LEVELS), most)
    for _ in range(60):
        middle = (low + high) / 2
        above = excess.mean_above(middle[:, None], np.arange(2.0))
        more = others * (above[:, 0] - above[:, 1]) > LEVELS
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return [float(z) for z in low]


def _expected(excess: _Excess, count: int, lead: float | None, cells: int) -> float:
    """Compute the expected number of scores in the support with a grid of so many cells."""
    s, others = excess.spread, count - (1 if lead is None else 2)
    low, high = -10 * s, s * (math.sqrt(2 * math.log(max(count, 2))) + 6)
    cuts = _where_capped_sum(excess, others, low, high) if others > 0 else [low]
    low = cuts[0]
    cuts += [s * z for z in (-4.0, -2.0, -0.7, 0.7, 2.0, 4.0)]
    if lead is not None:  # where what it takes jumps and bends
        cuts += [lead - 1 / excess.scale, lead]
    edges = [low, *sorted(z for z in set(cuts) if low < z < high), high]
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    ends = np.array(edges)
    half, centre = np.diff(ends)[:, None] / 2, (ends[1:] + ends[:-1])[:, None] / 2
    z = (centre + half * nodes).ravel()
    density = np.exp(-((z / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi)) * (half * weights).ravel()
    taken = excess.term(lead - z) if lead is not None else np.zeros_like(z)
    random = count - (lead is not None)
    counts = (taken < 1) & (random * density > 1e-9)
    z, density, taken = z[counts], density[counts], taken[counts]
    size = random * float(density @ _inside(excess, z, others, taken, cells)) if random and len(z) else 0.0
    if lead is not None:
        size += float(_inside(excess, np.array([lead]), random, np.zeros(1), cells)[0])
    return size


def expected_support(
    n_patterns: int, spread: float, lead: float | None = None, *, separation: Separation = "sparsemax"
) -> float:
    """Compute how many patterns have weight on average, where scores are independent and normal.

    Parameters
    ----------
    n_patterns : int, at least 1
        How many patterns there are, M.
    spread : float, positive
        Standard deviation of the scores, times beta: for a query x and patterns with independent features of variance v
        it is beta sqrt(v) |x|.
    lead : float, optional
        Beta times how far the score of one pattern, which the query is for, is above the mean of the others. By default
        the query is for none.
    separation : {"sparsemax", "entmax15"}
        The map that turns scores into weights.

    Returns
    -------
    float
        From 1 to M.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.sparsemax_threshold : Count the support of scores at hand.
    sparsehopfield.associate : Compute the weights of patterns at hand.

    Notes
    -----
    Not in the paper. A score z is in the support of sparsemax iff the sum of (z_j - z)_+ over all others is below 1, of
    1.5-entmax iff that of ((z_j - z)/2)_+^2 is. So E kappa = M times the integral over the density of z of the
    probability that a sum of M - 1 independent terms is below 1. That probability is computed on a grid of [0, 1], the
    M - 1 terms convolved by squaring, and the grid's error is extrapolated; the integral is by Gauss and Legendre. What
    remains is below about 1 %.

    Where kappa is large the sum is close to its mean, and kappa to M P(Z > tau) with M E(Z - tau)_+ = 1.

    Examples
    --------
    >>> for beta_spread in (0.1, 1.0, 10.0):
    ...     print(f"{expected_support(1000, beta_spread):.1f} of 1000")
    27.1 of 1000
    4.1 of 1000
    1.3 of 1000
    """
    count = as_whole("n_patterns", n_patterns, 1)
    s = as_number("spread", spread, least=0)
    if s == 0:
        raise ValueError(f"spread: must be positive and finite, got {spread}")
    above = None if lead is None else as_number("lead", lead, least=-np.finfo(np.float64).max)
    code = separation_code(separation)
    row: Any = row_of(code)
    if row.name == "sparsemax" or (row.name == "entmax" and code[1] == 2):
        excess = _Excess(s, 1.0, 1)
    elif row.name == "entmax" and code[1] == 1.5:
        excess = _Excess(s, 0.5, 2)
    else:
        raise ValueError(f"separation: must be 'sparsemax' or 'entmax15', got {separation!r}")
    coarse, fine = (_expected(excess, count, above, cells) for cells in (CELLS, 2 * CELLS))
    return float(min(max(2 * fine - coarse, 1.0), count))
