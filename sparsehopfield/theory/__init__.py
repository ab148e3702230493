"""What the papers claim of sparse modern Hopfield networks, as functions: the claim, whether it holds, what is true.

Every function computes in float64, whatever comes in. Numbers of lemmas, theorems and equations are those of "On
Sparse Modern Hopfield Model" (Hu et al. 2023). Each docstring says which claim it computes and its verdict: *holds*,
*fails* (with a counterexample), *vacuous* (true, but can never be informative) or *infeasible* (nothing meets its
condition). Where the paper needs a correction the function computes the corrected form, and the printed one on request.

| claim | verdict | here |
|---|---|---|
| energy (2.1), lemma 2.1: it falls along retrieval | fails unless beta = 1 | `energy_as_printed` |
| lemma 2.2: limits are stationary | fails unless beta = 1; of `energy` they are | `energy_as_printed` |
| definition 2.2: R, and a bound on the error | fails | `min_half_distance` |
| theorem 2.2: sparse error <= dense error | fails | `retrieval_error`, `majorises` |
| (2.6): bound by the size of the support | vacuous | `retrieval_bound(rule="printed")`; better "sharp" |
| (2.7): exponential bound | fails | `retrieval_bound(rule="printed exponential")`; better "exponential" |
| theorem 3.1, corollary 3.1.1: well separated | hold, not for the closest pair | `well_separated`, `exact_radius` |
| (3.3): where sparsity pays | infeasible | `well_separated(rule="equation 3.3")` |
| lemma 3.1: capacity | undefined as printed | `capacity_bound`, `exact_capacity` |
| corollary 3.1.2: exponentially small error | holds | `retrieval_bound(rule="separation")` |

What structures (masks, top-K, linear and random features) do is in `sparsehopfield.theory.structures`.

Letters: x a query and n its length, xi_mu pattern mu of M, m = max |xi|, s_nu = <x, xi_nu> the scores, kappa the size
of the support, T the update with sparsemax, R a radius of retrieval. The gap of mu at x is its score less the best
other one; the margin of mu, the papers' Delta, is its gap at x = xi_mu.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sparsehopfield import _core
from sparsehopfield._engine.checks import (
    Array,
    as_beta,
    as_flag,
    as_integers,
    as_number,
    as_numbers,
    as_patterns,
    as_queries,
    as_whole,
    untrapped,
)
from sparsehopfield._engine.pattern_set import Separation, Stored
from sparsehopfield._engine.separations import (
    as_choice,
    equal_scores_conjugate,
    row_of,
    separation_code,
    similarity_code,
)
from sparsehopfield.functional import energy, sparsemax, update

__all__ = [
    "CapacityBound",
    "ExactCapacity",
    "capacity_bound",
    "contraction",
    "critical_beta",
    "dense_capacity_bound",
    "energy_as_printed",
    "energy_offset",
    "exact_capacity",
    "exact_radius",
    "is_certified",
    "is_fixed_point",
    "majorises",
    "margin",
    "margin_at",
    "min_half_distance",
    "retrieval_bound",
    "retrieval_error",
    "well_separated",
]

Floats = NDArray[np.float64]
BLOCK_ROWS, BLOCK_NUMBERS = 1024, 2**22  # at most, of the scores that are there at a time
SLACK = 1e-12  # relative, of conditions that hold with equality in exact arithmetic

# --- patterns and queries as the scores see them ----------------------------------------------------


class _Seen(NamedTuple):
    """Patterns under a similarity: the score of nu at x is <x, rows_nu> - pull |rows_nu|^2 / 2."""

    rows: Floats  # (M, d); unit rows for cosine
    squares: Floats  # (M,), |rows|^2
    pull: float  # 0 dot; 1 euclidean and cosine, where the bias is constant but for rounding

    @property
    @untrapped()
    def half(self) -> Floats:
        """What turns a lead at xi_mu into a distance: |xi_mu - xi_nu|^2 / 2 = lead + half_nu - half_mu."""
        return (1 - self.pull) / 2 * self.squares

    @untrapped()
    def lead(self, x: Floats, mu: Array, nu: Array) -> Floats:
        """Score of mu less that of nu at x, from the difference of the two, so that close patterns lose no digits."""
        a, b = self.rows[mu], self.rows[nu]
        return ((x - self.pull / 2 * (a + b)) * (a - b)).sum(axis=-1)


@untrapped()
def _finite(name: str, rows: Array) -> tuple[Floats, Floats]:
    """Rows in float64 and their squared lengths, if these can be computed with."""
    rows = rows.astype(np.float64)
    squares = (rows**2).sum(axis=1)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(f"{name}: row {bad.argmax()} contains NaN or infinity; every entry must be finite")
    if squares.max(initial=0) > np.finfo(np.float64).max / 16:  # so that differences of scores are finite
        raise OverflowError(
            f"{name}: the squared length of row {squares.argmax()} nears the largest float64; scale the arrays down"
        )
    return rows, squares


@untrapped()
def _see(patterns: ArrayLike, similarity: str = "dot") -> _Seen:
    similarity_code(similarity)
    rows, squares = _finite("patterns", as_patterns("patterns", patterns))
    if similarity == "cosine":
        largest = np.abs(rows).max(axis=1)
        if not largest.all():
            raise ValueError(f"patterns: row {largest.argmin()} has length 0, which has no cosine similarity")
        rows = rows / largest[:, None]  # so that no square underflows
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        squares = (rows**2).sum(axis=1)
    return _Seen(rows, squares, 0.0 if similarity == "dot" else 1.0)


def _ask(
    queries: ArrayLike, seen: _Seen, index: ArrayLike, beta: ArrayLike = 1.0
) -> tuple[Floats, Array, Floats, tuple[int, ...]]:
    """Queries (N, d), the pattern that each is to find (N,), its beta (N,), and the queries' leading axes."""
    m, d = seen.rows.shape
    given = as_queries(queries, d)
    leading = given.shape[:-1]
    x, _ = _finite("queries", given.reshape(-1, d))
    i = as_integers("index", index)
    if (outside := (i < -m) | (i >= m)).any():
        raise IndexError(f"index: {i[outside].flat[0]} is out of range for {m} patterns")
    try:
        mu = np.broadcast_to(i % m, leading).reshape(-1)
    except ValueError:
        raise ValueError(f"index: shape {i.shape} does not broadcast to the queries' leading axes {leading}") from None
    return x, mu, np.broadcast_to(as_beta(beta, leading), len(x)), leading


def _one_beta(beta: ArrayLike) -> float:
    return float(as_beta(beta, ())[0])


def _blocks(n: int, m: int) -> Iterator[slice]:
    """Slices of n rows of m scores each."""
    step = max(1, min(BLOCK_ROWS, BLOCK_NUMBERS // m))
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


@untrapped()
def _rivals(seen: _Seen, x: Floats, mu: Array, cost: Callable[[slice, Floats], Floats]) -> Array:
    """For every x the pattern other than mu that costs least; mu itself where all cost is infinite.

    cost(block, lead) is told which queries, and by how much mu leads each pattern, (b, M). Rivals are found by a
    matrix product; what is reported of them comes from `_Seen.lead`.
    """
    nu = mu.copy()
    for block in _blocks(len(x), len(seen.rows)):
        scores = x[block] @ seen.rows.T - seen.pull / 2 * seen.squares
        own = mu[block, None]
        costs = cost(block, np.take_along_axis(scores, own, axis=1) - scores)
        np.put_along_axis(costs, own, np.inf, axis=1)
        best = costs.argmin(axis=1)
        costs_of_best = np.take_along_axis(costs, best[:, None], axis=1)[:, 0]
        nu[block] = np.where(costs_of_best < np.inf, best, mu[block])
    return nu


@untrapped()
def _gaps(seen: _Seen, x: Floats, mu: Array) -> Floats:
    nu = _rivals(seen, x, mu, lambda block, lead: lead)
    return np.where(nu == mu, np.inf, seen.lead(x, mu, nu))


@untrapped()
def _reaches(lead: Array, beta: Array | float) -> NDArray[np.bool_]:
    return beta * lead >= 1 - SLACK


# --- energy -----------------------------------------------------------------------------------------


def energy_as_printed(
    queries: ArrayLike, patterns: ArrayLike, beta: ArrayLike = 1.0, *, separation: Separation = "sparsemax"
) -> Any:
    """The energy as printed: H(x) = -Psi*(beta Xi^T x) + |x|^2/2, without the 1/beta.

    Parameters
    ----------
    queries : array_like, shape (..., d)
    patterns : array_like, shape (M, d)
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    separation : {"sparsemax", "softmax", "entmax15"} or Entmax

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

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
    seen = _see(patterns)
    x, _, b, leading = _ask(queries, seen, 0, beta)
    with untrapped():
        h = b * energy(x, seen.rows, b, separation=separation) + (1 - b) / 2 * (x**2).sum(1)
    if not np.isfinite(h).all():
        raise OverflowError("beta: the printed energy exceeds the largest float64")
    return h.reshape(leading)[()]


def energy_offset(
    patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot", separation: Separation = "sparsemax"
) -> float:
    """What to add to the energy so that it is nowhere negative: m^2/2 + (M - 1)/(2 M beta).

    Parameters
    ----------
    patterns : array_like, shape (M, d)
    beta : float, positive
    similarity : {"dot", "euclidean", "cosine"}
        The first term is m^2/2, 0 and 1/2.
    separation : {"sparsemax", "softmax", "entmax15"} or Entmax
        The second term is Psi*(0)/beta: for softmax ln(M)/beta.

    Returns
    -------
    float

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault; Polynomial has no energy.

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
    seen, b = _see(patterns, similarity), _one_beta(beta)
    code = separation_code(separation)
    if not row_of(code).has_energy:
        name = row_of(code).name.capitalize()
        raise ValueError(f"separation: {name} has no energy: its update is the gradient step of nothing")
    entropy = equal_scores_conjugate(code, len(seen.rows))  # of equal weights, where -Psi is largest
    lowest = {"dot": float(seen.squares.max()) / 2, "euclidean": 0.0, "cosine": 0.5}[similarity]
    offset = lowest + entropy / b
    if offset == math.inf:
        raise OverflowError(f"beta: {b:g} is so small that the energy exceeds the largest float64")
    return offset


def contraction(patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot") -> float:
    """A bound on how much T stretches distances: beta times the largest eigenvalue of the patterns' scatter matrix.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
    beta : float, positive
    similarity : {"dot", "euclidean", "cosine"}

    Returns
    -------
    float
        Below 1, T has one fixed point, which every query comes to: the network remembers nothing.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    Not in the paper. Proof: where T has support S its Jacobian is beta Xi J Xi^T, J the orthogonal projection on the
    vectors over S that sum to 0. J <= P, the projection on all vectors that sum to 0, so the Jacobian's norm is at most
    beta |Xi P|_2^2, and Xi P are the patterns less their mean. (Softmax: half of it.) The bound is attained for two
    patterns: for 1 and -1 it is 2 beta, and T(x) = 2 beta x while |x| <= 1/(2 beta).

    Examples
    --------
    >>> contraction([[1.0], [-1.0]], beta=0.25)
    0.5
    """
    seen, b = _see(patterns, similarity), _one_beta(beta)
    m, d = seen.rows.shape
    with untrapped():
        centred = seen.rows - seen.rows.mean(axis=0)
        scatter = centred.T @ centred if d <= m else centred @ centred.T
    if not np.isfinite(scatter).all():
        raise OverflowError("patterns: their scatter matrix exceeds the largest float64; scale the arrays down")
    return b * max(float(np.linalg.eigvalsh(scatter)[-1]), 0.0)


# --- separation of patterns ---------------------------------------------------------------------------


def margin(patterns: ArrayLike, *, similarity: str = "dot") -> Floats:
    """How far each pattern stands out: its score with itself less the largest with another.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
    similarity : {"dot", "euclidean", "cosine"}
        Dot: min over nu of <xi_mu, xi_mu - xi_nu>. Euclidean: min |xi_mu - xi_nu|^2/2. Cosine: of the unit rows.

    Returns
    -------
    ndarray, shape (M,)
        The papers' Delta. inf for M = 1; 0 where a pattern has a copy; negative where a longer pattern outranks it, as
        patterns of different length do with dot similarity.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    A definition. `HopfieldMemory.margin` computes the same in C, for many patterns much faster.

    References
    ----------
    Hu et al. 2023, eq. (3.1).

    Examples
    --------
    >>> margin([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]])
    array([-2., -1.,  3.])
    """
    seen = _see(patterns, similarity)
    return _gaps(seen, seen.rows, np.arange(len(seen.rows)))


def margin_at(queries: ArrayLike, patterns: ArrayLike, index: ArrayLike, *, similarity: str = "dot") -> Any:
    """The gap of a pattern at a query: its score less the largest with another.

    Parameters
    ----------
    queries : array_like, shape (..., d)
    patterns : array_like, shape (M, d)
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    similarity : {"dot", "euclidean", "cosine"}

    Returns
    -------
    ndarray, shape (...)
        inf for M = 1, negative where another pattern has the top score.

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    The definition (3.2). T(x) = xi_mu if the gap is at least 1/beta, as sparsemax is then a unit vector; for extreme
    points of the patterns' hull without copies, only if.

    References
    ----------
    Hu et al. 2023, eq. (3.2).

    Examples
    --------
    >>> margin_at([[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]], index=0)
    array([1., 0.])
    """
    seen = _see(patterns, similarity)
    x, mu, _, leading = _ask(queries, seen, index)
    return _gaps(seen, x, mu).reshape(leading)[()]


def min_half_distance(patterns: ArrayLike) -> float:
    """R = min |xi_mu - xi_nu|/2 over mu != nu, the radius of the papers' spheres S_mu.

    Parameters
    ----------
    patterns : array_like, shape (M, d)

    Returns
    -------
    float
        inf for M = 1, 0 if there are copies; at most m otherwise.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    As printed the minimum includes mu = nu and R = 0. The spheres must be open: closed ones of the closest pair touch.
    The footnote's bound on the error, max(|x - xi_mu|, |xi_mu - x*|) with x* the limit, **fails**: patterns (-.8, -.2),
    (1.6, .2), (-.8, 1), beta = 1/4, x = (-.3, .1) have R = .6 and error .765 > .688.

    References
    ----------
    Hu et al. 2023, definition 2.2.

    Examples
    --------
    >>> min_half_distance([[0.0], [1.0], [4.0]])
    0.5
    """
    return math.sqrt(margin(patterns, similarity="euclidean").min() / 2)  # that margin is half the squared distance


def critical_beta(patterns: ArrayLike, *, similarity: str = "dot") -> Floats:
    """The inverse temperature from which on each pattern is certified: 1/margin.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
    similarity : {"dot", "euclidean", "cosine"}

    Returns
    -------
    ndarray, shape (M,)
        inf where the margin is not positive, 0 for M = 1.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    See `is_certified`. A pattern with k copies in all is stored from 1/k of its copies' common margin on, which this
    does not count.

    Examples
    --------
    >>> critical_beta([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]])
    array([1.        ,        inf, 0.08333333])
    """
    delta = margin(patterns, similarity=similarity)
    with untrapped():
        return np.where(delta > 0, 1 / delta, np.inf)


def is_certified(patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot") -> NDArray[np.bool_]:
    """Whether each pattern's margin is at least 1/beta, so that T(xi_mu) is exactly xi_mu.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
    beta : float, positive
    similarity : {"dot", "euclidean", "cosine"}
        Cosine: of the unit rows.

    Returns
    -------
    ndarray of bool, shape (M,)
        With a relative slack of 1e-12, as equality counts.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    Not in the paper, whose conditions (`well_separated`) are stronger. Sufficient: with every other score 1/beta below
    its own, sparsemax gives xi_mu all the weight. Necessary for an extreme point of the patterns' hull without copies
    (all distinct patterns of equal length are), as it is only one convex combination of patterns. Not otherwise: of
    -1, 0, 1 the pattern 0 has margin 0 and is a fixed point for every beta; (1, 0), (1, 0), (.6, .8) are fixed points
    from beta = 1.25 on. `is_fixed_point` asks T itself.

    Examples
    --------
    >>> is_certified([[1.0, 0.0], [0.6, 0.8]], beta=2.5)
    array([ True,  True])
    """
    return _reaches(margin(patterns, similarity=similarity), _one_beta(beta))


def is_fixed_point(patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot") -> NDArray[np.bool_]:
    """Whether T leaves each pattern where it is, by applying T.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
    beta : float, positive
    similarity : {"dot", "euclidean", "cosine"}
        Cosine: of the unit rows, which are what T mixes.

    Returns
    -------
    ndarray of bool, shape (M,)
        |T(xi_mu) - xi_mu| <= 1e-12 m. True wherever `is_certified` is, and for some copies and interior points
        besides.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Examples
    --------
    >>> is_fixed_point([[-1.0], [0.0], [1.0]], beta=0.5)
    array([False,  True, False])
    """
    seen, b = _see(patterns, similarity), _one_beta(beta)
    moved = update(seen.rows, seen.rows, b, similarity="euclidean" if similarity == "euclidean" else "dot") - seen.rows
    with untrapped():
        return (moved**2).sum(axis=1) <= SLACK**2 * seen.squares.max()


@untrapped()
def _radii(seen: _Seen, mu: Array, beta: Floats | float) -> Floats:
    """The exact radius of some patterns, each at its beta."""
    kinds: dict[bytes, int] = {}
    kind = np.array([kinds.setdefault(row.tobytes(), len(kinds)) for row in seen.rows + 0.0])  # + 0.0 leaves no -0.0
    first, count = np.unique(kind, return_index=True, return_counts=True)[1:]
    need = 1 / beta / count[kind[mu]]  # the lead over the others that gives xi_mu and its copies all weight
    finite = need < np.inf
    distinct = Stored(seen.rows[first], None, "euclidean" if seen.pull else "dot", copy=False, check_finite=False)
    at = np.flatnonzero(finite)
    _, rival = _core.radii(distinct.core(np.dtype(np.float64)), kind[mu[at]], need[at], 0.0)
    radii = np.where(finite | (len(first) == 1), np.inf, -np.inf)
    at, rival = at[rival >= 0], rival[rival >= 0]
    own, nu = mu[at], first[rival]
    distance = np.linalg.norm(seen.rows[own] - seen.rows[nu], axis=1)
    radii[at] = (seen.lead(seen.rows[own], own, nu) - need[at]) / distance
    return radii


def exact_radius(patterns: ArrayLike, beta: ArrayLike = 1.0, *, similarity: str = "dot") -> Floats:
    """The radius of the largest ball around each pattern that one step sends to exactly this pattern.

    Parameters
    ----------
    patterns : array_like, shape (M, d)
    beta : float, positive
    similarity : {"dot", "euclidean", "cosine"}
        Cosine: around the unit rows.

    Returns
    -------
    ndarray, shape (M,)
        r_mu = min over nu of (lead of mu over nu at xi_mu - 1/(k beta)) / |xi_mu - xi_nu|, k how many copies of xi_mu
        there are, nu over the patterns that are none. Dot: the lead is <xi_mu, xi_mu - xi_nu>. Euclidean and cosine:
        it is D^2/2 at distance D, so r_mu = D/2 - 1/(k beta D) with D the distance to the nearest pattern (unit row).
        inf where all patterns are copies; negative where no ball is. Copies are rows (cosine: unit rows) equal in every
        entry, to the last bit.

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    Not in the paper; it takes the place of theorem 3.1. Proof: k equal scores on top have all weight iff they lead the
    others by 1/(k beta). At x = xi_mu + e the lead over nu is that at xi_mu plus <e, xi_mu - xi_nu>, at least the lead
    less |e| |xi_mu - xi_nu|, with equality towards nu: so all of the ball goes to xi_mu, and past it in the worst
    direction others have weight, all of them with <e, xi_nu - xi_mu> > 0, as their lead has shrunk from at least
    1/(k beta). So <e, T(x) - xi_mu> > 0 there, and the radius is exact for every pattern, extreme or not. If r_mu < 0
    there is no ball: on a region where T is affine and constant, with Jacobian beta Xi J Xi^T = 0, all patterns of
    the support are equal. The single point may still be fixed (`is_fixed_point`).

    Examples
    --------
    >>> exact_radius([[2.0, 0.0], [0.0, 2.0]], beta=4.0).round(6)
    array([1.325825, 1.325825])
    """
    seen = _see(patterns, similarity)
    return _radii(seen, np.arange(len(seen.rows)), _one_beta(beta))


# --- retrieval ----------------------------------------------------------------------------------------


def retrieval_error(
    queries: ArrayLike,
    patterns: ArrayLike,
    index: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    separation: Separation = "sparsemax",
) -> Any:
    """How far one step lands from the pattern meant: |T(x) - xi_mu|.

    Parameters
    ----------
    queries : array_like, shape (..., d)
    patterns : array_like, shape (M, d)
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Polynomial
        "softmax" is the papers' dense model. Dense less sparse error is the papers' delta.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    Claim (theorem 2.2): the sparse error is at most the dense error near xi_mu. **Fails**, even at x = xi_mu and on the
    unit sphere: (0, 1), (.6, .8), (-.8, .6), beta = 2, x = xi_1 has errors .1897 and .1494; 1, 3 with beta = 1 and
    x = 1 has 2 and 1.76. Errors of opposite patterns cancel in the dense mixture, and sparsemax leaves one of them out.
    True, as sparsemax majorises softmax (`majorises`): where mu has the top score its sparse weight is at least its
    dense weight; <x, T(x)> is at least <x, T_dense(x)>; the claim for two patterns of equal length, and wherever the
    gap is at least 1/beta, with error 0.

    References
    ----------
    Hu et al. 2023, theorem 2.2.

    Examples
    --------
    >>> X = [[0.0, 1.0], [0.6, 0.8], [-0.8, 0.6]]
    >>> [round(float(retrieval_error(X[0], X, 0, 2.0, separation=s)), 4) for s in ("sparsemax", "softmax")]
    [0.1897, 0.1494]
    """
    seen = _see(patterns)
    x, mu, b, leading = _ask(queries, seen, index, beta)
    states = update(x, seen.rows, b, separation=separation)
    with untrapped():
        return np.linalg.norm(states - seen.rows[mu], axis=1).reshape(leading)[()]


class _Support(NamedTuple):
    """Of every query: the size kappa of the support, the largest score, and the smallest in the support."""

    size: Floats
    best: Floats
    last: Floats


@untrapped()
def _support(seen: _Seen, x: Floats, beta: Floats) -> _Support:
    size, best, last = np.empty((3, len(x)))
    for block in _blocks(len(x), len(seen.rows)):
        scores = x[block] @ seen.rows.T
        best[block] = scores.max(axis=1)
        inside = sparsemax(beta[block, None] * (scores - best[block, None])) > 0
        size[block] = np.count_nonzero(inside, axis=1)
        last[block] = np.where(inside, scores, np.inf).min(axis=1)
    return _Support(size, best, last)


@untrapped()
def _farthest(seen: _Seen, mu: Array) -> Floats:
    """The largest distance of a pattern from mu."""
    some, where = np.unique(mu, return_inverse=True)
    half = seen.half
    nu = _rivals(seen, seen.rows[some], some, lambda block, lead: half[some[block], None] - half - lead)
    return np.linalg.norm(seen.rows[some] - seen.rows[nu], axis=1)[where]


def _margins_of(seen: _Seen, mu: Array) -> Floats:
    some, where = np.unique(mu, return_inverse=True)
    return _gaps(seen, seen.rows[some], some)[where]


def _sharp(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    gap = _gaps(seen, x, mu)
    others = (1 - 1 / _support(seen, x, beta).size) * np.maximum(0, 1 - beta * gap)  # at most their weight
    return _farthest(seen, mu) * np.where(gap < 0, 1, others)


def _decay(seen: _Seen, gap: Floats, beta: Floats, m: float, *, clip: bool = True) -> Floats:
    """2m (M - 1) exp(-beta gap), through the exponent, which may be large of either sign."""
    if len(seen.rows) == 1:
        return np.zeros(len(gap))
    exponent = math.log(len(seen.rows) - 1) - beta * gap
    return 2 * m * np.exp(np.minimum(exponent, 0) if clip else exponent)


def _exponential(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    return _decay(seen, _gaps(seen, x, mu), beta, m)


def _by_separation(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    return _decay(seen, _margins_of(seen, mu) - 2 * m * np.linalg.norm(x - seen.rows[mu], axis=1), beta, m)


def _printed(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    support = _support(seen, x, beta)
    return m + math.sqrt(x.shape[1]) * m * (beta * support.size * (support.best - support.last) + 1)


def _printed_exponential(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float) -> Floats:
    own = seen.rows[mu]
    gap = ((x - own) * own).sum(axis=1) + np.minimum(_margins_of(seen, mu), 0)  # the maximum includes mu itself
    return _decay(seen, gap, beta, m, clip=False)


BOUNDS = {
    "sharp": _sharp,
    "exponential": _exponential,
    "separation": _by_separation,
    "printed": _printed,
    "printed exponential": _printed_exponential,
}


def retrieval_bound(
    queries: ArrayLike, patterns: ArrayLike, index: ArrayLike, beta: ArrayLike = 1.0, *, rule: str = "sharp"
) -> Any:
    """A bound on `retrieval_error`, from the gap of a pattern at the query or from its margin.

    Parameters
    ----------
    queries : array_like, shape (..., d)
    patterns : array_like, shape (M, d)
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    rule : {"sharp", "exponential", "separation", "printed", "printed exponential"}
        See Notes.

    Returns
    -------
    ndarray, shape (...)
        The first three never exceed 2m, which always holds. 0 for M = 1, but for "printed".

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    With g the gap of mu at x:

    1. "sharp": max_nu |xi_nu - xi_mu| (1 - 1/kappa) max(0, 1 - beta g); where mu has not the top score only the first
       factor. **Holds**; not in the paper, and to be used in place of (2.6). Proof: the error is at most the first
       factor times 1 - p_mu, and p_mu = (1 + sum over the support of beta (s_mu - s_nu))/kappa is at least
       (1 + (kappa - 1) beta g)/kappa.
    2. "exponential": 2m (M - 1) exp(-beta g), (2.7) with the query where it must be. **Holds** for the sparse and the
       dense error. Proof: the dense 1 - p_mu is at most (M - 1) exp(-beta g), and the sparse one no larger where
       g >= 0; for g < 0 and M > 1 the bound exceeds 2m.
    3. "separation": 2m (M - 1) exp(-beta (Delta_mu - 2m |x - xi_mu|)), corollary 3.1.2 without the distance to the
       limit, which only loosens it. **Holds**, as g >= Delta_mu - 2m |x - xi_mu|. Informative only where that is
       positive.
    4. "printed": m + sqrt(d) m (beta kappa (max_nu s_nu - s_(kappa)) + 1), (2.6). **Vacuous**: never below 2m.
    5. "printed exponential": 2m (M - 1) exp(-beta (s_mu - max_nu <xi_mu, xi_nu>)), (2.7). **Fails**, for both errors:
       (1, 0), (.96, .28), x = (1.1, 0), beta = 100 has dense error 3.4e-3 and bound 9.1e-5. With nu != mu, too:
       (1, 0), (0, 1), x = (.5, .5), beta = 10 has error .71 and bound .013.

    References
    ----------
    Hu et al. 2023, eq. (2.6), (2.7), corollary 3.1.2.

    Examples
    --------
    >>> X = [[1.0, 0.0], [0.0, 1.0]]
    >>> [round(float(retrieval_bound([0.6, 0.4], X, 0, 2.0, rule=rule)), 4) for rule in ("sharp", "printed")]
    [0.4243, 3.5456]
    >>> float(retrieval_error([0.6, 0.4], X, 0, 2.0).round(4))
    0.4243
    """
    bound = BOUNDS[as_choice("rule", rule, BOUNDS)]
    seen = _see(patterns)
    x, mu, b, leading = _ask(queries, seen, index, beta)
    with untrapped():  # an infinite bound is none, and an infinite gap in 1/beta enough
        return bound(seen, x, mu, b, math.sqrt(seen.squares.max())).reshape(leading)[()]


def _exactly(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> NDArray[np.bool_]:
    return _reaches(_gaps(seen, x, mu), beta)


def _near(seen: _Seen, x: Floats, mu: Array, radius: float) -> NDArray[np.bool_]:
    return np.linalg.norm(x - seen.rows[mu], axis=1) <= radius


def _in_ball(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> NDArray[np.bool_]:
    return _near(seen, x, mu, radius) & (_radii(seen, mu, beta) >= radius)


def _theorem_31(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> NDArray[np.bool_]:
    support, n, root = _support(seen, x, beta), np.linalg.norm(x, axis=1), math.sqrt(x.shape[1])
    need = m * n + 2 * m * radius - support.last - (radius - m - m * root) / (support.size * m * beta * root)
    return _near(seen, x, mu, radius) & (_margins_of(seen, mu) >= need)


def _corollary_311(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> NDArray[np.bool_]:
    dense, sparse = (retrieval_error(x, seen.rows, mu, beta, separation=s) for s in ("softmax", "sparsemax"))
    reach = np.maximum(radius + dense - sparse, 0)
    need = (np.log(2 * (len(seen.rows) - 1) * m) - np.log(reach)) / beta + 2 * m * radius
    return _near(seen, x, mu, radius) & (_margins_of(seen, mu) >= need)


def _equation_33(seen: _Seen, x: Floats, mu: Array, beta: Floats, m: float, radius: float) -> NDArray[np.bool_]:
    return np.full(len(x), radius >= m * math.sqrt(x.shape[1]) + m)


CONDITIONS = {
    "exact": _exactly,
    "ball": _in_ball,
    "theorem 3.1": _theorem_31,
    "corollary 3.1.1": _corollary_311,
    "equation 3.3": _equation_33,
}


def well_separated(
    queries: ArrayLike,
    patterns: ArrayLike,
    index: ArrayLike,
    beta: ArrayLike = 1.0,
    *,
    rule: str = "exact",
    radius: float | None = None,
) -> Any:
    """Whether a condition holds under which T sends a query to a pattern, or as near as R.

    Parameters
    ----------
    queries : array_like, shape (..., d)
    patterns : array_like, shape (M, d)
    index : int or array_like of int
        The pattern that each query is to find, from the end if negative; broadcasts to the queries' leading axes.
    beta : float or array_like, positive
        Inverse temperature; an array broadcasts to the queries' leading axes.
    rule : {"exact", "ball", "theorem 3.1", "corollary 3.1.1", "equation 3.3"}
        See Notes.
    radius : float, at least 0, optional
        R of all rules but "exact"; `min_half_distance` by default, as in the paper.

    Returns
    -------
    ndarray of bool, shape (...)
        True for M = 1 and for patterns that are all zero, which are what T(x) is for every x.

    Raises
    ------
    ValueError, TypeError, IndexError, OverflowError
        Naming the argument at fault.

    Notes
    -----
    1. "exact": the gap at x is at least 1/beta. Then T(x) = xi_mu; for extreme points without copies, only then.
    2. "ball": |x - xi_mu| <= R <= `exact_radius`. Then T(x) = xi_mu.
    3. "theorem 3.1": |x - xi_mu| <= R and
       Delta_mu >= m n + 2mR - s_(kappa) - (R - m - m sqrt(d))/(kappa m beta sqrt(d)).
       **Holds** for R <= m, and then even T(x) = xi_mu. Proof: the condition gives a gap of at least
       m n - s_(kappa) + 1/(kappa beta), so mu has the top score; for kappa >= 2 the gap is at most
       s_(1) - s_(kappa) <= m n - s_(kappa), a contradiction; so kappa = 1. The simpler Delta_mu >= 1/beta + 2mR, which
       follows, suffices. **Infeasible** for both patterns of the closest pair: there Delta_mu <= 2mR. The text calls
       the condition necessary; it is not.
    4. "corollary 3.1.1": |x - xi_mu| <= R and Delta_mu >= ln(2 (M - 1) m/(R + delta))/beta + 2mR, delta the dense less
       the sparse error at x; False where R + delta <= 0. **Holds**, by the corrected (2.7): then |T(x) - xi_mu| <= R.
       Infeasible for the closest pair unless R + delta >= 2 (M - 1) m.
    5. "equation 3.3": R >= m sqrt(d) (1 + alpha beta n m kappa) + m, with alpha = 0, which is most in its favour.
       **Infeasible**: the right side is at least 2m, and R at most m.

    References
    ----------
    Hu et al. 2023, theorem 3.1, corollary 3.1.1, eq. (3.3).

    Examples
    --------
    >>> X = [[1.0, 0.0], [0.0, 1.0]]
    >>> [bool(well_separated([0.9, 0.1], X, 0, 5.0, rule=rule)) for rule in ("exact", "theorem 3.1")]
    [True, False]
    """
    condition = CONDITIONS[as_choice("rule", rule, CONDITIONS)]
    seen = _see(patterns)
    x, mu, b, leading = _ask(queries, seen, index, beta)
    m = math.sqrt(seen.squares.max())
    r = min_half_distance(seen.rows) if radius is None else as_number("radius", radius, least=0)
    if len(seen.rows) == 1 or m == 0:
        return np.ones(leading, np.bool_)[()]
    with untrapped():  # what is infinite is met always or never
        return condition(seen, x, mu, b, m, r).reshape(leading)[()]


# --- majorisation -------------------------------------------------------------------------------------


def majorises(p: ArrayLike, q: ArrayLike) -> Any:
    """Whether p majorises q: equal sums, and for every k the k largest of p sum to no less than those of q.

    Parameters
    ----------
    p, q : array_like, shape (..., n)
        Finite.

    Returns
    -------
    ndarray of bool, shape (...)
        With a slack of 1e-12 of the largest sum of magnitudes.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

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
    with untrapped():
        slack = SLACK * np.maximum(np.abs(a).sum(axis=-1), np.abs(b).sum(axis=-1))
        more = (np.sort(a)[..., ::-1].cumsum(axis=-1)) - (np.sort(b)[..., ::-1].cumsum(axis=-1))
        return (more >= -slack[..., None]).all(axis=-1) & (np.abs(more[..., -1]) <= slack)


# --- capacity -----------------------------------------------------------------------------------------


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.78 else math.inf


def _positive(name: str, number: Any) -> float:
    x = as_number(name, number, least=0)
    if x == 0:
        raise ValueError(f"{name}: must be positive and finite, got {number}")
    return x


def _sphere(d: Any, m: Any, beta: ArrayLike, p: Any) -> tuple[int, float, float, float]:
    """What the capacities have in common: dimension, radius of the sphere, beta, probability of failure."""
    dimension = as_whole("d", d, 2)  # d = 1 has no (d - 1)-th root, and a sphere of two points
    risk = as_number("p", p, least=0)
    if not 0 < risk < 1:
        raise ValueError(f"p: must lie between 0 and 1, the probability of failure, got {p}")
    return dimension, _positive("m", m), _one_beta(beta), risk


@dataclass(frozen=True)
class CapacityBound:
    """How many random patterns are stored, by the Lambert bound M = sqrt(p) C^((d-1)/4).

    Attributes
    ----------
    a, b : float
        C = b/W(exp(a + ln b)), W the principal branch of Lambert's function.
    C : float
    M : float
        inf where it exceeds the largest float64.
    log_M : float
        Its natural logarithm.
    """

    a: float
    b: float
    C: float
    M: float
    log_M: float

    @property
    def is_empty(self) -> bool:
        """Whether M is below 2: a bound that says nothing, as a single pattern is always stored."""
        return self.log_M < math.log(2)


def _lambert(d: int, p: float, a: float, log_b: float) -> CapacityBound:
    # With w = b/C, w + ln w = a + ln b: w is the Wright omega function there, and exp(a + ln b) need not be formed.
    w = float(special.wrightomega(a + log_b))
    log_c = w - a if w < 1 else log_b - math.log(w)  # equal; each where it does not cancel
    log_m = math.log(p) / 2 + (d - 1) / 4 * log_c
    return CapacityBound(a, _exp(log_b), _exp(log_c), _exp(log_m), log_m)


def capacity_bound(
    d: int,
    m: float,
    beta: ArrayLike,
    p: float,
    radius: float,
    delta: float = 0.0,
    *,
    strict: bool = True,
    as_printed: bool = False,
) -> CapacityBound:
    """Lemma 3.1, corrected: M random patterns on a sphere that are all retrieved from radius R with probability 1 - p.

    Parameters
    ----------
    d : int, at least 2
        Dimension.
    m : float, positive
        Radius of the sphere that patterns are drawn from, uniformly. Of data of other kinds the lemma says nothing.
    beta : float, positive
    p : float, between 0 and 1
        Probability of failure.
    radius : float, at least 0
        R, from which patterns are to be retrieved with error at most R. To be chosen: with half the smallest distance
        the condition that the lemma counts is infeasible (`well_separated`).
    delta : float
        Dense less sparse error. radius + delta must be positive.
    strict : bool
        False puts the paper's 1 in the place of 2 beta m R, which it must be at least.
    as_printed : bool
        True raises, and says why.

    Returns
    -------
    CapacityBound
        a = 4/(d-1) (ln(2m sqrt(p)/(R + delta)) + 2 beta m R), b = 4 m^2 beta/(5 (d-1)).

    Raises
    ------
    ValueError, TypeError, OverflowError
        Naming the argument at fault.

    Warns
    -----
    UserWarning
        If radius exceeds m: balls that large around points of the sphere cannot be disjoint.

    Notes
    -----
    As printed a has sqrt(p) - 1, negative for every p < 1, in its logarithm: **undefined**. The corrected bound
    **holds**. Proof: for two uniform points P(angle < t) <= sin^(d-1)(t)/2 up to a right angle, so by a union bound all
    M = sqrt(p) C^((d-1)/4) >= 2 patterns keep angles of at least C^(-1/2) with probability at least 1 - p/4. Then
    Delta >= m^2 (1 - cos C^(-1/2)) >= m^2/(5C), and C solves m^2/(5C) = 2mR + ln(2Mm/(R + delta))/beta, which is
    corollary 3.1.1.

    It is very loose (`exact_capacity`), and saturates: C < m/(10R) for every beta, where M >= 2. "M >= M_dense" is true
    iff delta >= 0 (d ln M/d delta = 1/((R + delta)(1 + b/C))); the gain is a factor of at most 1 + delta/R, never
    another exponent, and delta falls to 0 as beta grows.

    References
    ----------
    Hu et al. 2023, lemma 3.1; Corless et al. 1996 for Lambert's and Wright's functions.

    Examples
    --------
    >>> bound = capacity_bound(d=20, m=1.0, beta=100.0, p=0.1, radius=0.005)
    >>> round(bound.M, 2), bound.is_empty
    (11.32, False)
    """
    dimension, length, b, risk = _sphere(d, m, beta, p)
    r = as_number("radius", radius, least=0)
    difference = as_number("delta", delta, least=-np.finfo(np.float64).max)
    if as_flag("as_printed", as_printed):
        raise ValueError(
            "as_printed: the lemma's a contains ln(2m(sqrt(p) - 1)/(R + delta)), and sqrt(p) - 1 is negative for every "
            "p < 1: there is no such number"
        )
    if not 0 < r + difference < math.inf:
        raise ValueError(f"delta: radius + delta must be positive and finite, got {r + difference:g}")
    if r > length:
        warnings.warn(f"radius: {r:g} exceeds the sphere's {length:g}; such balls are not disjoint", stacklevel=2)
    spread = 2 * b * length * r
    is_strict = as_flag("strict", strict)
    if not is_strict and spread > 1 + SLACK:
        raise ValueError(f"strict: False takes 2 beta m radius for at most 1, but it is {spread:g}")
    log_ratio = math.log(2) + math.log(length) + math.log(risk) / 2 - math.log(r + difference)
    a = 4 / (dimension - 1) * (log_ratio + (spread if is_strict else 1.0))
    log_b = math.log(0.8) + 2 * math.log(length) + math.log(b) - math.log(dimension - 1)
    return _lambert(dimension, risk, a, log_b)


def dense_capacity_bound(d: int, m: float, beta: ArrayLike, p: float) -> CapacityBound:
    """The dense model's capacity in the literature, which lemma 3.1 follows.

    Parameters
    ----------
    d : int, at least 2
    m : float, positive
        Radius of the sphere that patterns are drawn from; K sqrt(d - 1) in the source.
    beta : float, positive
    p : float, between 0 and 1
        Probability of failure.

    Returns
    -------
    CapacityBound
        a = 2/(d-1) (1 + ln(2 beta m^2 p)), b = 2 m^2 beta/(5 (d-1)).

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Notes
    -----
    Claimed where C >= (2/sqrt(p))^(4/(d-1)), which is M >= 2: elsewhere `is_empty`. It asks for a smaller error than
    `capacity_bound`: R = 1/(beta m M) where that one has R fixed, which is why each can be the larger.

    References
    ----------
    Ramsauer et al. 2020, theorem 3.

    Examples
    --------
    >>> round(dense_capacity_bound(d=20, m=3 * 19**0.5, beta=1.0, p=0.001).C, 6)
    3.154611
    """
    dimension, length, b, risk = _sphere(d, m, beta, p)
    log_square = 2 * math.log(length) + math.log(b)  # of beta m^2
    a = 2 / (dimension - 1) * (1 + math.log(2) + log_square + math.log(risk))
    return _lambert(dimension, risk, a, math.log(0.4) + log_square - math.log(dimension - 1))


@dataclass(frozen=True)
class ExactCapacity:
    """How many random patterns are exact fixed points, each with an exact basin of radius r.

    Attributes
    ----------
    D : float
        The least distance that two patterns must keep.
    F, log_F : float
        Probability that two random patterns are closer, and its natural logarithm; F may underflow to 0.
    M, log_M : float
        Real-valued number of patterns, at least 1, and its natural logarithm; M is inf where it overflows.
    weak_M, log_weak_M : float
        The closed form sqrt(p) (beta m^2/5)^((d-1)/4), for radius 0.
    """

    D: float
    F: float
    log_F: float
    M: float
    log_M: float
    weak_M: float
    log_weak_M: float


def _log_cap(log_s: float, a: float) -> float:
    """Return ln of I_x(a, 1/2)/2, where x = sin^2 of twice the angle whose sine is s, at most a right angle."""
    s = math.exp(log_s)
    log_x = min(2 * (math.log(2) + log_s) + math.log1p(-s * s), 0.0)
    cap = float(special.betainc(a, 0.5, math.exp(log_x)))
    if cap > 1e-290:
        return math.log(cap / 2)
    # I = x^a/(a B(a, 1/2)) J with J the mean of 1/sqrt(1 - x exp(-t/a)) under exp(-t). Where I is this small, a |ln x|
    # is in the hundreds, so that the nearest singularity, t = a ln x, is far away and 32 nodes give all digits.
    t, weight = np.polynomial.laguerre.laggauss(32)
    j = float(weight @ (-np.expm1(log_x - t / a)) ** -0.5)
    return a * log_x - math.log(2 * a) - float(special.betaln(a, 0.5)) + math.log(j)


def exact_capacity(d: int, m: float, beta: ArrayLike, p: float, radius: float = 0.0) -> ExactCapacity:
    """How many random patterns on a sphere all have an exact radius of at least r, with probability 1 - p.

    Parameters
    ----------
    d : int, at least 2
        Dimension.
    m : float, positive
        Radius of the sphere that patterns are drawn from, uniformly.
    beta : float, positive
    p : float, between 0 and 1
        Probability of failure.
    radius : float, at least 0
        r: every query within r of a pattern is sent to exactly this pattern in one step.

    Returns
    -------
    ExactCapacity
        M = 1 where two patterns cannot be as far apart as D.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    Notes
    -----
    Not in the paper; it takes the place of lemma 3.1. Proof: patterns of equal length have `exact_radius`
    D/2 - 1/(beta D) >= r iff their distances are at least D = r + sqrt(r^2 + 2/beta), that is angles of at least
    alpha = 2 arcsin(D/2m). Two uniform points are closer with probability F, half the regularised incomplete beta
    function I of sin^2(alpha) at ((d-1)/2, 1/2) up to a right angle, beyond it one minus that; the union bound
    M (M - 1)/2 F <= p is solved for M. Nearly tight: at this M, as many draws in simulations succeed as 1 - p says.
    The closed form is the literature's; F <= (D/m)^(d-1)/2 gives more, 2 sqrt(p) (beta m^2/2)^((d-1)/4).

    Examples
    --------
    >>> capacity = exact_capacity(d=64, m=1.0, beta=100.0, p=0.1, radius=0.005)
    >>> f"{capacity.M:.3e}"
    '4.078e+26'
    """
    dimension, length, b, risk = _sphere(d, m, beta, p)
    r = as_number("radius", radius, least=0)
    distance = r + math.hypot(r, math.sqrt(2) / math.sqrt(b))
    log_s, a = math.log(distance) - math.log(length) - math.log(2), (dimension - 1) / 2
    s = distance / length / 2
    if s > 1:
        log_f = 0.0
    elif 2 * s * s > 1:
        log_f = math.log1p(-float(special.betainc(a, 0.5, 4 * s * s * (1 - s * s))) / 2)
    else:
        log_f = _log_cap(log_s, a)
    # M = (1 + sqrt(1 + q))/2 with q = 8p/F, from half the logarithm of q
    h = (math.log(8) + math.log(risk) - log_f) / 2
    log_m = 0.0 if s > 1 else h - math.log(2) + math.asinh(_exp(-h))
    log_weak = math.log(risk) / 2 + (dimension - 1) / 4 * (math.log(b) + 2 * math.log(length) - math.log(5))
    return ExactCapacity(distance, math.exp(log_f), log_f, _exp(log_m), log_m, _exp(log_weak), log_weak)
