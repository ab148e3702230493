"""Trials of a claim, the evidence that they give, and the verdict on it.

A claim says of every trial (patterns, a query, the pattern it is to find, beta) that one number is at most another,
wherever its condition is met. What is a yes or no is written with the numbers 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from sparsehopfield import theory
from sparsehopfield._engine.call import still_moving
from sparsehopfield._engine.concurrency import cached
from sparsehopfield.functional import energy, retrieve

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SLACK = 1e-9  # of an excess, which is relative to the claim's scale: rounding is no violation
STEPS = 1000  # updates at most; queries that still move then have no limit
HOLDS, FAILS, VACUOUS, INFEASIBLE, UNDEFINED = "HOLDS", "FAILS", "VACUOUS", "INFEASIBLE", "UNDEFINED"


@dataclass(frozen=True, eq=False)
class Trials:
    """Queries to one set of patterns, each with the pattern that it is to find, at one beta.

    Attributes
    ----------
    patterns : ndarray of shape (M, d)
    queries : ndarray of shape (n, d)
    index : ndarray of int, shape (n,)
    beta : float
    """

    patterns: Floats
    queries: Floats
    index: NDArray[np.int64]
    beta: float

    def __len__(self) -> int:
        return len(self.queries)

    @cached
    def m(self) -> float:
        """Return the largest length of a pattern."""
        return float(np.linalg.norm(self.patterns, axis=1).max())

    @cached
    def radius(self) -> float:
        """Return R of the papers' spheres, with mu != nu."""
        return theory.min_half_distance(self.patterns)

    @cached
    def target(self) -> Floats:
        """Return the patterns that the queries are to find, (n, d)."""
        return self.patterns[self.index]

    @cached
    def distance(self) -> Floats:
        """Return the distances from the target patterns, (n,)."""
        return np.linalg.norm(self.queries - self.target, axis=1)

    @cached
    def near(self) -> Bools:
        """Return whether queries are in the sphere of their pattern, (n,)."""
        return self.distance <= self.radius

    @cached
    def farthest(self) -> Floats:
        """Return the largest distance of another pattern from the target, (n,)."""
        return cdist(self.target, self.patterns).max(axis=1)

    @cached
    def everywhere(self) -> Bools:
        """Return True for every query, (n,)."""
        return np.ones(len(self), np.bool_)

    @cached
    def scores(self) -> Floats:
        """Return scores times beta, (n, M)."""
        return self.beta * self.queries @ self.patterns.T

    @cached
    def sparse(self) -> Floats:
        """Return the errors of one step with sparsemax, (n,)."""
        return theory.retrieval_error(self.queries, self.patterns, self.index, self.beta)

    @cached
    def dense(self) -> Floats:
        """Return the errors of one step with softmax, (n,)."""
        return theory.retrieval_error(self.queries, self.patterns, self.index, self.beta, separation="softmax")

    @cached
    def limits(self) -> tuple[Floats, Bools]:
        """Return the limits of retrieval, (n, d), and whether they are reached, (n,)."""
        with still_moving():
            states, info = retrieve(self.queries, self.patterns, self.beta, max_steps=STEPS, return_info=True)
        return states, info.converged

    def bound(self, rule: str) -> Floats:
        """Return a bound on the error of one step, (n,)."""
        return theory.retrieval_bound(self.queries, self.patterns, self.index, self.beta, rule=rule)

    def separated(self, rule: str) -> Bools:
        """Return whether a condition of separation is met, (n,)."""
        return theory.well_separated(self.queries, self.patterns, self.index, self.beta, rule=rule)

    def asked(self, rule: str) -> Floats:
        """Return the margin that a condition of separation asks for, (n,)."""
        return theory.required_margin(self.queries, self.patterns, self.index, self.beta, rule=rule)

    def energy(self, x: Floats) -> Floats:
        """Return the energy, with the 1/beta."""
        return energy(x, self.patterns, self.beta)

    @property
    def energies(self) -> float:
        """Return the scale of energies."""
        return self.m**2 + 1 / self.beta


@dataclass(frozen=True)
class Evidence:
    """The evidence on a claim: that left <= right, where it applies.

    Attributes
    ----------
    left, right : ndarray of shape (n,)
    applies : ndarray of bool, shape (n,)
        Where the claim's condition is met.
    scale : float
        The unit of an excess.
    trivial : ndarray of shape (n,), optional
        For bounds, what holds in any case: as T(x) is in the hull of the patterns, the distance of the farthest from
        the pattern meant, at most 2m. A bound below that is informative.
    """

    left: Floats
    right: Floats
    applies: Bools
    scale: float
    trivial: Floats | float = np.inf

    @property
    def excess(self) -> Floats:
        """Return by how much left exceeds right, in units of the scale; NaN where the claim is undefined."""
        with np.errstate(invalid="ignore", over="ignore"):
            return (self.left - self.right) / self.scale

    def summarise(self, slack: float) -> dict[str, float]:
        """Return the numbers of the table: see `METRICS`."""
        excess = self.excess[self.applies]
        defined = excess[~np.isnan(excess)]
        return {
            "trials": self.applies.size,
            "met": excess.size,
            "undefined": excess.size - defined.size,
            "violations": np.count_nonzero(defined > slack),
            "worst": defined.max(initial=-np.inf),
            "informative": np.count_nonzero(self.applies & (self.right < self.trivial * (1 - 1e-12))),
        }


#: Of the trials of a setting: how many there are, in how many the claim's condition is met, how many of these are
#: undefined, how many violate the claim, the largest excess (-inf if there is none), and, of claims that are bounds,
#: how many are informative.
METRICS = ("trials", "met", "undefined", "violations", "worst", "informative")


@dataclass(frozen=True)
class Example:
    """Patterns and a query that show what a claim comes to.

    Attributes
    ----------
    patterns : sequence of sequence of float
    query : sequence of float
    beta : float
    index : int
        The pattern that the query is to find.
    """

    patterns: tuple[tuple[float, ...], ...]
    query: tuple[float, ...]
    beta: float
    index: int = 0

    def trials(self) -> Trials:
        """Return the one trial."""
        patterns, query = (np.array(rows, np.float64) for rows in (self.patterns, [self.query]))
        return Trials(patterns, query, np.array([self.index]), self.beta)

    def __str__(self) -> str:
        patterns = ", ".join(map(_point, self.patterns))
        which = "" if self.index == 0 else f", pattern {self.index + 1}"
        return f"patterns {patterns}; x = {_point(self.query)}{which}, beta = {self.beta:g}"


def _point(numbers: tuple[float, ...]) -> str:
    """Format the coordinates of a point."""
    text = ", ".join(f"{x:g}" for x in numbers)
    return text if len(numbers) == 1 else f"({text})"


@dataclass(frozen=True)
class Claim:
    """A claim, and what is expected of it.

    Attributes
    ----------
    name : str
        Its number in the paper, or what it is called here.
    says : str
        What it says, in words.
    check : callable
        Its evidence on trials.
    expected : str
        The verdict of the docstrings of `sparsehopfield.theory`.
    instead : tuple of str
        Names of what is true instead; the exact capacity is the business of another study, `capacity_bound`.
    examples : tuple of Example
        Where it fails, or where its condition is met.
    slack : float
        Of an excess, for rounding.
    bound : bool
        Whether it is a bound on the error, which can be informative or not.
    printed : bool
        Whether the paper has it.
    """

    name: str
    says: str
    check: Callable[[Trials], Evidence]
    expected: str = HOLDS
    instead: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    slack: float = SLACK
    bound: bool = False
    printed: bool = True

    def summarise(self, trials: Trials) -> dict[str, float]:
        """Return the table's numbers of some trials."""
        return self.check(trials).summarise(self.slack)


def verdict(numbers: Mapping[str, float], *, bound: bool) -> str:
    """Return the verdict on a claim, from its numbers summed over all trials.

    Parameters
    ----------
    numbers : mapping
        Of `METRICS` at least "met", "undefined", "violations" and "informative".
    bound : bool
        Whether the claim is a bound on the error.

    Returns
    -------
    str
        FAILS on any violation, UNDEFINED if it is not a number on any trial, INFEASIBLE if its condition is never met,
        VACUOUS if it is a bound that is nowhere informative, and HOLDS (on all trials, which is no proof) otherwise.
    """
    if numbers["violations"]:
        return FAILS
    if numbers["undefined"]:
        return UNDEFINED
    if not numbers["met"]:
        return INFEASIBLE
    return VACUOUS if bound and not numbers["informative"] else HOLDS
