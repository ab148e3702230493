"""Retrieval as regression: the construction of "Nonparametric Modern Hopfield Models" (Hu et al. 2024), solved.

A memory is given as pairs (q_mu, xi_mu): asked for q_mu, a pattern with noise or the pattern itself, it is to answer
xi_mu. Every coordinate i of the answer is a linear function of features, f_i(x) = <w_i, Phi(x)> / h(x), and is fitted
as support vector regression fits, without an intercept:

    minimise  |w_i|^2 / 2 + C sum_mu c_mu^i max(|f_i(q_mu) - xi_mu^i| - epsilon, 0).

With the kernel k(x, y) = <Phi(x), Phi(y)> and the normaliser h(x) = sum_mu k(q_mu, x) the solution is an average

    f(x) = sum_mu b_mu k(q_mu, x) / sum_nu k(q_nu, x),   |b_mu^i| <= C c_mu^i / h(q_mu),

of coefficients b_mu, the multipliers of the constraints. A memory's update averages the patterns xi_mu themselves, so
the two are equal where the multipliers are the memories. The table says when they are.

| statement | verdict | here |
|---|---|---|
| f = C T if every answer is short by more than epsilon and c_mu^i = h(q_mu) abs(xi_mu^i) | holds | `is_closed_form` |
| every answer is, for all C up to some C* > 0 | holds if epsilon is below all abs(xi_mu^i) but 0 | `critical_C` |
| f is a multiple of T at one cost for all pairs, c = 1 | fails | `cost="uniform"` |
| it is so where all entries are +-1 and all h(q_mu) are equal | holds | `cost="uniform"` |
| f is a multiple of T with an intercept | fails: the multipliers sum to 0 | |
| f = C T above C* | fails: with C, f comes to answer every pair within epsilon | `C` |
| the sparse model, with sparsemax, is such a regression | fails: its weights are no quotient of kernels | |

Letters: M pairs, d features of queries, v of memories; T the update that averages the memories by the same kernel.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, softmax

from sparsehopfield._engine.checks import (
    Array,
    as_chosen,
    as_number,
    as_patterns,
    as_queries,
    as_whole,
    ignoring_float_errors,
)
from sparsehopfield._engine.restoring import restores
from sparsehopfield._engine.separations import as_choice, similarity_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield._engine.text import short
from sparsehopfield.errors import RetrievalWarning
from sparsehopfield.functional import update
from sparsehopfield.structures import LinearFeatures, Pairs, RandomFeatures
from sparsehopfield.structures._features import log_kernel
from sparsehopfield.theory._patterns import Bools, Floats, as_single_beta, finite_rows, row_blocks, unit_rows

__all__ = ["MarginFit", "NonparametricHopfield"]

KERNELS = ("exponential", "linear", "dot")
COSTS = ("memories", "uniform")
TINY = float(np.finfo(np.float64).tiny)
MOST = 1e150  # of a coefficient: no cost makes their sums leave float64


@dataclass(frozen=True)
class MarginFit:
    """A soft-margin regression to some of the pairs, solved.

    Attributes
    ----------
    positions : ndarray of int, shape (k,)
        The pairs.
    coefficients : ndarray of float64, shape (k, v)
        b: what the kernel averages.
    bounds : ndarray of float64, shape (k, v)
        The largest that abs(b) may be, C c / h.
    C : float
        The cost of one unit beyond the margin.
    critical_C : float
        C*: below it errors cost so little that every answer falls short of its memory by more than the margin.
    violation : float
        The most by which a condition of optimality is not met (Karush, Kuhn and Tucker's), in the unit of the memories;
        0 in the closed form.
    n_iter : int
        Passes over the pairs.
    is_closed_form : bool
        Whether every answer falls short of its memory by more than the margin, so that each coefficient is at the bound
        on its memory's side: with the costs "memories" the update is then that of the memory.

    See Also
    --------
    NonparametricHopfield.regression : Solve one.
    NonparametricHopfield : The memory that it is part of.

    Examples
    --------
    >>> fit = NonparametricHopfield(beta=2.0).fit([[1.0, 0.0], [0.0, 1.0]]).fit_
    >>> fit.is_closed_form, fit.coefficients.round(3).tolist()
    (True, [[0.568, 0.0], [0.0, 0.568]])
    >>> round(fit.C, 3), round(fit.critical_C, 3)
    (0.568, 1.135)
    """

    positions: NDArray[np.int64]
    coefficients: Floats
    bounds: Floats
    C: float
    critical_C: float
    violation: float
    n_iter: int
    is_closed_form: bool

    @property
    def active(self) -> Bools:
        """Return which coefficients are at a bound, (k, v): there the answer is off by the margin or more."""
        return np.abs(self.coefficients) >= self.bounds


class NonparametricHopfield:
    """A memory as a regression from queries to memories, by support vectors (`sparsehopfield.theory.nonparametric`).

    Parameters
    ----------
    kernel : {"exponential", "linear", "dot"}, LinearFeatures or RandomFeatures
        "exponential" is exp(beta s(x, y)) of the similarity s, which makes the dense model; "linear" the same as
        `LinearFeatures()`, the linear model; `RandomFeatures(D)` estimates the exponential one. "dot" is beta <x, y>
        without a normaliser (h = 1), the classical network of outer products.
    structure : Structure, optional
        The pairs that a query sees: `TopK`, `Window`, `RandomMask` and the others that list pairs. Its answer is the
        regression to these pairs alone, solved once for each set of them.
    beta : float, positive
        Inverse temperature.
    similarity : {"dot", "euclidean", "cosine"}
        "euclidean" makes the exponential kernel the Gaussian exp(-beta |x - y|^2 / 2); "cosine" takes the pairs'
        queries at length 1, as memories do. "dot" for the kernel "dot".
    C : float, positive, optional
        The cost of errors beyond the margin. By default half the largest at which all answers fall short by more than
        the margin, and at most 1: the update is then that of the memory in closed form.
    epsilon : float, at least 0
        Half the width of the margin.
    cost : {"memories", "uniform"}
        c: "memories" are h(q_mu) abs(xi_mu^i), those under which the closed form comes out; "uniform" is 1, as
        support vector regression has it.
    max_iter : int, at least 1
        Passes over the pairs, at most.
    tol : float, at least 0
        The violation of the conditions of optimality that ends them, relative to the largest entry of the memories.

    Attributes
    ----------
    queries_ : ndarray of float64, shape (M, d)
        What the memories are answers to.
    memories_ : ndarray of float64, shape (M, v)
        The answers that the regression is fitted to.
    fit_ : MarginFit
        The regression to all pairs; None with a structure, whose sets of pairs are solved as queries come.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    MarginFit : What the regression comes to.
    sparsehopfield.HopfieldMemory : Retrieve by the closed form, for many patterns.

    Notes
    -----
    The dual problem is solved by descent along one coefficient of all coordinates at a time (Ho & Lin 2012), with
    conditions divided by h(q_mu), so that no exponential overflows whatever the scores. Existing solvers do not fit:
    LIBSVM has an intercept and keeps kernels in float32, LIBLINEAR takes features in place of kernels. Tests compare
    the solution with theirs. A pass takes O(M^2 v), and the kernel O(M^2) numbers: this class is for studying memories;
    to retrieve, use `HopfieldMemory`.

    References
    ----------
    Hu et al. 2024, "Nonparametric modern Hopfield models"; Smola & Schoelkopf 2004, "A tutorial on support vector
    regression"; Ho & Lin 2012, "Large-scale linear support vector regression"; Personnaz et al. 1986, of the linear
    kernel at a large C.

    Examples
    --------
    >>> import sparsehopfield as sh
    >>> X = np.random.default_rng(0).standard_normal((6, 3))
    >>> model = NonparametricHopfield(beta=2.0).fit(X)
    >>> bool(np.allclose(model.update(X), sh.update(X, X, 2.0, separation="softmax"), atol=1e-12))
    True
    >>> model.fit_.is_closed_form, model.fit_.violation
    (True, 0.0)

    At a high cost of errors every pattern is answered by itself, which the memory does not do.

    >>> exact = NonparametricHopfield(beta=2.0, C=1e6).fit(X)
    >>> float(abs(exact.update(X) - X).max()) < 1e-6 < float(abs(model.update(X) - X).max())
    True
    """

    queries_: Floats
    memories_: Floats
    fit_: MarginFit | None

    def __init__(
        self,
        kernel: str | LinearFeatures | RandomFeatures = "exponential",
        structure: Structure | None = None,
        *,
        beta: float = 1.0,
        similarity: str = "dot",
        C: float | None = None,
        epsilon: float = 0.0,
        cost: str = "memories",
        max_iter: int = 2000,
        tol: float = 1e-9,
    ) -> None:
        if not isinstance(kernel, (LinearFeatures, RandomFeatures)):
            as_choice("kernel", kernel, KERNELS)
        elif kernel.causal:
            raise ValueError("kernel: causal features have no kernel of all pairs; pass causal=False")
        similarity_code(similarity)
        features = LinearFeatures() if kernel == "linear" else kernel if not isinstance(kernel, str) else None
        if isinstance(features, LinearFeatures) and similarity == "euclidean":
            raise ValueError("similarity: the kernel of LinearFeatures has no place for euclidean's bias -|xi|^2/2")
        if kernel == "dot" and similarity != "dot":
            raise ValueError(f"similarity: the kernel 'dot' is of dot products, got {short(similarity)}")
        seen = as_structure(structure)
        if seen is not None and not isinstance(seen, Pairs):
            raise ValueError(f"structure: must be one that lists pairs; features are a kernel, got {short(structure)}")
        self.kernel, self.structure = kernel, seen
        self.beta, self.similarity = as_single_beta(beta), similarity
        self.C = None if C is None else as_number("C", C, least=TINY)
        self.epsilon = as_number("epsilon", epsilon, least=0.0)
        self.cost = as_choice("cost", cost, COSTS)
        self.max_iter, self.tol = as_whole("max_iter", max_iter, 1), as_number("tol", tol, least=0.0)
        self._features = features

    # --- fitting ------------------------------------------------------------------------------------

    @restores
    def fit(self, memories: ArrayLike, queries: ArrayLike | None = None) -> Self:
        """Fit the regression to pairs of a query and what it is to retrieve.

        Parameters
        ----------
        memories : array_like, shape (M, v)
            One row a memory.
        queries : array_like, shape (M, d), optional
            By default the memories themselves; else, say, memories with noise.

        Returns
        -------
        NonparametricHopfield
            This object.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault; `epsilon` if it leaves no C for the closed form and none is given.

        Warns
        -----
        RetrievalWarning
            If `max_iter` passes were not enough.

        See Also
        --------
        regression : Solve the regression to some of the pairs.
        update : Retrieve.

        Examples
        --------
        Patterns with noise as queries, whose answers are the patterns.

        >>> X = np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> model = NonparametricHopfield(beta=2.0).fit(X, X + 0.1)
        >>> model.fit_.is_closed_form, model.update([1.1, 1.1]).round(3)
        (True, array([1.   , 0.976]))
        """
        targets, _ = finite_rows("memories", as_patterns("memories", memories))
        asked = targets if queries is None else finite_rows("queries", as_patterns("queries", queries))[0]
        if len(asked) != len(targets):
            raise ValueError(f"queries: must be one for each of the {len(targets)} memories, got {len(asked)}")
        # what kernels take
        is_cosine = self.similarity == "cosine"
        self._rows = unit_rows("memories" if queries is None else "queries", asked) if is_cosine else asked
        self.queries_, self.memories_ = asked, targets
        self.fit_ = self.regression() if self.structure is None else None
        return self

    def regression(self, positions: ArrayLike | None = None) -> MarginFit:
        """Solve the regression to some of the pairs.

        Parameters
        ----------
        positions : array_like of int, shape (k,), optional
            The pairs, each of which counts once; all by default.

        Returns
        -------
        MarginFit
            The solution, and what tells whether it is the closed form.

        Raises
        ------
        ValueError, TypeError, IndexError
            Naming the argument at fault, as in `fit`.

        See Also
        --------
        fit : Set the pairs, and solve the regression to all of them.
        MarginFit : What is returned.

        Examples
        --------
        >>> model = NonparametricHopfield(beta=2.0).fit(np.eye(3))
        >>> some = model.regression([0, 2])
        >>> some.positions, some.coefficients.round(3).tolist()
        (array([0, 2]), [[0.568, 0.0, 0.0], [0.0, 0.0, 0.568]])
        """
        self._check_fitted()
        m = len(self.memories_)
        chosen = np.arange(m) if positions is None else np.unique(as_chosen(positions, m))
        if not len(chosen):
            raise ValueError("positions: must be at least one pair")
        y = self.memories_[chosen]
        weights, log_mass = self._weights(self._log_kernel(self._rows[chosen], self._rows[chosen]))
        # The bounds for C = 1, and what the regression answers where all coefficients are at them.
        with ignoring_float_errors():
            unit = np.abs(y) if self.cost == "memories" else np.exp(-log_mass)[:, None] + 0 * y
            unit = np.minimum(unit, MOST)
            critical = _critical(y, weights @ (np.sign(y) * unit), unit, self.epsilon)
            C = min(1.0, critical / 2) if self.C is None else self.C
            bounds = np.minimum(C * unit, MOST)
        if not C > 0:
            least = np.abs(y[y != 0]).min(initial=np.inf)
            if self.epsilon >= least:
                needed = f"it must be below {least}"
            elif not self.epsilon and self.cost == "uniform" and not y.all():
                needed = "with the costs 'uniform' it must be positive, as memories have entries that are 0"
            else:
                needed = "the largest such C is below the smallest float64"
            raise ValueError(f"epsilon: at {self.epsilon} no C lets all answers fall short: {needed}, or give C")
        scale = float(np.abs(y).max()) or 1.0
        b, violation, passes = _descend(weights, y, bounds, self.epsilon, self.max_iter, self.tol * scale)
        if violation > self.tol * scale:
            warn(
                f"the regression misses its conditions of optimality by {violation:.3g} after {passes} passes; raise "
                "max_iter or tol, or lower C",
                RetrievalWarning,
                stacklevel=3,
            )
        closed = bool((b == np.sign(y) * bounds).all())
        return MarginFit(chosen, b, bounds, C, critical, violation, passes, closed)

    # --- answers ------------------------------------------------------------------------------------

    def predict(self, queries: ArrayLike) -> Array:
        """Compute f, the regression, at queries.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.

        Returns
        -------
        ndarray of float64, shape (..., v)
            One row a query.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault; `queries` if the structure has places for other queries.

        See Also
        --------
        update : Divide it by C, which makes it a step of retrieval.

        Examples
        --------
        >>> model = NonparametricHopfield(beta=2.0).fit(np.eye(2))
        >>> f, C = model.predict([0.9, 0.1]), model.fit_.C
        >>> f.round(3), (f / C).round(3)
        (array([0.472, 0.095]), array([0.832, 0.168]))
        """
        return self._answer(queries, False)

    def update(self, queries: ArrayLike) -> Array:
        """Make one step of retrieval: f / min(C, 1), which undoes the factor C of the closed form.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.

        Returns
        -------
        ndarray of float64, shape (..., v)
            `closed_form(queries)` where `fit_.is_closed_form`, C is at most 1 and costs are "memories".

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault; `queries` if the structure has places for other queries.

        See Also
        --------
        closed_form : Make the step by the memory's formula.
        predict : Compute the regression itself.
        sparsehopfield.update : Make a step without a regression.

        Examples
        --------
        >>> model = NonparametricHopfield(beta=2.0).fit(np.eye(2))
        >>> model.update([0.9, 0.1]).round(3)
        array([0.832, 0.168])
        """
        return self._answer(queries, True)

    def closed_form(self, queries: ArrayLike) -> Array:
        """Make the same step by the memory that this package has for this kernel and structure.

        Parameters
        ----------
        queries : array_like, shape (..., d)
            One row a query.

        Returns
        -------
        ndarray of float64, shape (..., v)
            `sparsehopfield.update` with softmax; for the kernel "dot" beta sum_mu <q_mu, x> xi_mu.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault; `structure` if the kernel has features and there is a structure, or the
            kernel is "dot" and there is one: no memory has both.

        See Also
        --------
        update : Make the step by the regression.
        sparsehopfield.update : What it calls.

        Examples
        --------
        Without a bound on the cost the regression answers a pattern by itself; the memory keeps mixing.

        >>> model = NonparametricHopfield(beta=2.0, C=1e6).fit([[1.0, 1.0], [1.0, -1.0]])
        >>> model.update([1.0, 1.0]).round(3), model.closed_form([1.0, 1.0]).round(3)
        (array([1., 1.]), array([1.   , 0.964]))
        """
        self._check_fitted()
        if self.structure is not None and self.kernel != "exponential":
            raise ValueError(f"structure: no memory has both a kernel {short(self.kernel)} and a structure")
        rows = as_queries(queries, self.queries_.shape[1]).astype(np.float64)
        self._check_places(math.prod(rows.shape[:-1]))
        if self.kernel == "dot":
            finite_rows("queries", rows.reshape(-1, rows.shape[-1]))
            return np.asarray(self.beta * (rows @ (self.queries_.T @ self.memories_)))
        return np.asarray(
            update(
                rows,
                self.queries_,
                self.beta,
                values=self.memories_,
                similarity=self.similarity,
                separation="softmax",
                structure=self.structure if self._features is None else self._features,
            )
        )

    # --- kernels and sets of pairs ------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not hasattr(self, "memories_"):
            raise ValueError("memories: none are there yet, call fit first")

    def _check_places(self, n: int) -> None:
        """Raise unless the structure says of n queries which pairs they see."""
        if self.structure is not None:
            try:
                self.structure.count(n, len(self.memories_))
            except ValueError as error:
                raise ValueError(f"queries: do not fit the structure: {error}") from None

    @ignoring_float_errors()
    def _log_kernel(self, x: Floats, rows: Floats) -> Floats:
        """Return log k(x, rows), (N, M); of the kernel "dot" k itself."""
        if self.kernel == "dot":
            return np.asarray(self.beta * (x @ rows.T))
        if self._features is None:
            scores = x @ rows.T
            if self.similarity == "euclidean":
                scores -= ((x**2).sum(axis=1)[:, None] + (rows**2).sum(axis=1)) / 2
            return np.asarray(self.beta * scores)
        return log_kernel(self._features, x, rows, self.beta, self.similarity)

    @ignoring_float_errors()
    def _weights(self, log_kernel: Floats) -> tuple[Floats, Floats]:
        """Return k(x, q_mu) / h(x), (N, M), and log h(x), (N,); a row whose kernel is 0 throughout has weights 0."""
        if self.kernel == "dot":
            return log_kernel, np.zeros(len(log_kernel))
        mass = np.asarray(logsumexp(log_kernel, axis=1))
        return np.where(np.isneginf(mass)[:, None], 0.0, softmax(log_kernel, axis=1)), mass

    def _answer(self, queries: ArrayLike, scaled: bool) -> Array:
        """Return f of queries, divided by min(C, 1) if `scaled`."""
        self._check_fitted()
        given = as_queries(queries, self.queries_.shape[1])
        rows, _ = finite_rows("queries", given.reshape(-1, given.shape[-1]))
        self._check_places(len(rows))
        out = np.empty((len(rows), self.memories_.shape[1]))
        for fit, at in self._fits(rows):
            b = fit.coefficients / min(fit.C, 1.0) if scaled else fit.coefficients
            for block in row_blocks(len(at), len(fit.positions)):
                out[at[block]] = self._weights(self._log_kernel(rows[at[block]], self._rows[fit.positions]))[0] @ b
        return out.reshape(*given.shape[:-1], out.shape[1])

    def _fits(self, rows: Floats) -> Iterator[tuple[MarginFit, NDArray[np.int64]]]:
        """Yield the regressions that answer these rows (N, d), each with the positions of those it answers."""
        if self.fit_ is not None:
            yield self.fit_, np.arange(len(rows))
            return
        assert isinstance(self.structure, Pairs)
        n, m = len(rows), len(self.memories_)
        if self.structure.by_scores:
            kernel = self._log_kernel(rows, self._rows)
            best = np.argsort(-kernel, axis=1, kind="stable")[:, : self.structure.count(1, m)]
            mask = np.zeros((n, m), np.bool_)
            np.put_along_axis(mask, best, True, axis=1)
        else:
            mask = self.structure.mask(n, m)
        sets, which = np.unique(mask, axis=0, return_inverse=True)
        for i, seen in enumerate(sets):
            if not seen.any():
                raise ValueError(f"structure: query {np.argmax(which.reshape(-1) == i)} sees no pattern")
            yield self.regression(np.flatnonzero(seen)), np.flatnonzero(which.reshape(-1) == i)


@ignoring_float_errors()
def _critical(y: Floats, answers: Floats, unit: Floats, epsilon: float) -> float:
    """Return the largest C at which all pairs exceed their margins, C times `answers` being what they then get.

    A pair with y > 0 has to get less than y - epsilon, and one with y < 0 more than y + epsilon; one with y = 0, whose
    coefficient is then 0, within epsilon.
    """
    towards = np.sign(y) * answers
    room = np.where(y == 0, epsilon, np.abs(y) - epsilon)
    against = np.where(y == 0, np.abs(answers), towards)
    counts = (y != 0) | (unit > 0)
    if (counts & ((room < 0) | ((room == 0) & (y != 0)))).any():
        return 0.0
    limited = counts & (against > 0)
    return float((room[limited] / against[limited]).min(initial=np.inf))


@ignoring_float_errors()
def _descend(
    weights: Floats, y: Floats, bounds: Floats, epsilon: float, max_iter: int, tol: float
) -> tuple[Floats, float, int]:
    """Solve the dual problem: return coefficients (k, v), the violation of its conditions, and the passes made.

    The dual is min b^T K b / 2 - sum_mu h_mu (y_mu b_mu - epsilon |b_mu|) with |b_mu| <= bound, for each column of y on
    its own. Its derivative by b_mu, divided by h_mu, is the residual (P b - y)_mu of P = K / h, plus or minus epsilon:
    a coefficient moves by the residual over P_mumu, is drawn towards 0 by epsilon over it, and clipped.
    """
    b = np.zeros_like(y)
    for done in range(max_iter + 1):
        residual = weights @ b - y
        push = residual + epsilon * np.sign(b)  # the condition where 0 < |b| < bound: it is 0
        off = np.where(b == 0, np.maximum(np.abs(residual) - epsilon, 0), np.abs(push))
        at_bound = (np.abs(b) >= bounds) & (bounds > 0)
        off = np.where(at_bound, np.maximum(push * np.sign(b), 0), np.where(bounds == 0, 0, off))
        violation = float(off.max())
        if violation <= tol or done == max_iter:
            return b, violation, done
        for mu, own in enumerate(weights.diagonal()):
            pull = b[mu] * own - (weights[mu] @ b - y[mu])
            pull = np.sign(pull) * np.maximum(np.abs(pull) - epsilon, 0)
            b[mu] = np.where(pull == 0, 0.0, np.clip(pull / own, -bounds[mu], bounds[mu]))
    raise AssertionError
