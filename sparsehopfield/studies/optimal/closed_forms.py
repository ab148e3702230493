"""Sets of patterns whose retrieval is known in closed form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class KnownSet(ABC):
    """Patterns and what is known of retrieval on the segment from their mean to one of them, at position a on it.

    Parameters
    ----------
    patterns : ndarray of shape (M, d)
        Float64; the longest have length 1.
    start, nearest : ndarray of shape (d,)
        The ends of the segment, positions 0 and 1.
    coordinates : ndarray of shape (M,)
        A mixture with weights p is at position sum p_i coordinates_i, by symmetry.
    at : int
        Position of the nearest pattern.
    critical : float
        The beta from which on it is an exact fixed point of sparse retrieval.
    """

    def __init__(
        self, patterns: Floats, *, start: Floats, nearest: Floats, coordinates: Floats, at: int, critical: float
    ) -> None:
        self.patterns, self.start, self.nearest = patterns, start, nearest
        self.coordinates, self.at, self.critical = coordinates, at, critical

    def query(self, a: float) -> Floats:
        """Return the query at a position."""
        return self.start + a * (self.nearest - self.start)

    @abstractmethod
    def scores(self, a: float) -> Floats:
        """Compute the scores, (M,)."""

    @abstractmethod
    def square(self, a: float) -> float:
        """Compute the squared length of the query."""

    @abstractmethod
    def weights(self, model: str, beta: float, a: float) -> Floats:
        """Compute the weights, (M,)."""

    @abstractmethod
    def slope(self, model: str, beta: float, a: float) -> float:
        """Compute the derivative of the next position in a, at kinks the larger one: the rate of convergence."""

    @abstractmethod
    def slack(self, beta: float, a: float) -> float:
        """Compute the distance of the lead, times beta, to the nearest change of the sparse support."""

    @abstractmethod
    def sparse_limit(self, beta: float) -> float:
        """Compute the limit of sparse retrieval from the pattern."""

    def step(self, model: str, beta: float, a: float) -> float:
        """Compute the next position."""
        return float(self.weights(model, beta, a) @ self.coordinates)

    def energy(self, model: str, beta: float, a: float) -> float:
        """Compute |x|^2/2 less the conjugate over beta, which is the largest <p, s> - Psi(p)/beta; dense by
        log-sum-exp.
        """
        s = self.scores(a)
        if model == "dense":
            return self.square(a) / 2 - s.max() - math.log(float(np.exp(beta * (s - s.max())).sum())) / beta
        p = self.weights(model, beta, a)
        return float(self.square(a) / 2 - p @ s + (p @ p - 1) / (2 * beta))

    def threshold(self, beta: float, a: float) -> float:
        """Compute sparsemax's threshold, of scores times beta: the nearest pattern's score less its weight."""
        return float(beta * self.scores(a)[self.at] - self.weights("sparse", beta, a)[self.at])

    def limit(self, model: str, beta: float) -> float:
        """Compute the limit of retrieval from the pattern; dense the largest solution of a = step(a), by iteration from
        above.
        """
        if model == "sparse":
            return self.sparse_limit(beta)
        a = 1.0
        for _ in range(100_000):
            following = self.step(model, beta, a)
            if following >= a:  # monotone but for rounding
                break
            a = following
        return a


class Equiangular(KnownSet):
    """n unit vectors with all cosines equal to c, of which the first is there k times.

    With x = mean + a (xi_1 - mean) and b = (1 + (n - 1) c)/n = |mean|^2 = <xi, mean>, scores are a + (1 - a) b for the
    first and a c + (1 - a) b for the others: it leads by g a, g = 1 - c, all others tie. Sparse, L = beta g a: if the
    k copies alone have weight, 1/k each, the others are at least 1/k below, L >= 1/k; else all M = n - 1 + k have
    weight, which sum to 1 with a difference of L: (1 + (n - 1) L)/M and (1 - k L)/M. With these P xi_1 + q sum of the
    others is at position P - q.
    """

    def __init__(self, vectors: Floats, cosine: float, copies: int = 1) -> None:
        n = len(vectors)
        super().__init__(
            np.concatenate([np.repeat(vectors[:1], copies, axis=0), vectors[1:]]),
            start=vectors.mean(axis=0),
            nearest=vectors[0],
            coordinates=np.concatenate([np.ones(copies), np.full(n - 1, -1 / (n - 1))]),
            at=0,
            critical=1 / (copies * (1 - cosine)),
        )
        self.n, self.cosine, self.copies = n, cosine, copies
        self.centre = (1 + (n - 1) * cosine) / n

    def scores(self, a: float) -> Floats:
        rest = (1 - a) * self.centre
        return np.array([a + rest] * self.copies + [a * self.cosine + rest] * (self.n - 1))

    def square(self, a: float) -> float:
        return a * a + (1 - a * a) * self.centre

    def weights(self, model: str, beta: float, a: float) -> Floats:
        n, c, k = self.n, self.cosine, self.copies
        lead = beta * (1 - c) * a
        if model == "dense":
            other = math.exp(-lead)
            first, other = (w / (k + (n - 1) * other) for w in (1.0, other))
        elif k * lead >= 1:
            first, other = 1 / k, 0.0
        else:
            first, other = ((1 + (n - 1) * lead) / (n - 1 + k), (1 - k * lead) / (n - 1 + k))
        return np.array([first] * k + [other] * (n - 1))

    def slope(self, model: str, beta: float, a: float) -> float:
        n, c, k = self.n, self.cosine, self.copies
        lead, size = beta * (1 - c) * a, n - 1 + k
        if model == "dense":  # the derivative of (k - e^-L)/(k + (n - 1) e^-L)
            decay = math.exp(-lead)
            return beta * (1 - c) * k * n * decay / (k + (n - 1) * decay) ** 2
        return 0.0 if k * lead > 1 + 1e-9 else beta * (1 - c) * k * n / size

    def slack(self, beta: float, a: float) -> float:
        return abs(beta * (1 - self.cosine) * a - 1 / self.copies)

    def sparse_limit(self, beta: float) -> float:
        if beta >= self.critical:
            return 1.0
        return (self.copies - 1) / (self.n - 1 + self.copies) / (1 - self.slope("sparse", beta, 0.0))


class Interior(KnownSet):
    """-1, 0 and 1 on a line: 0 is no extreme point, has margin 0, and is a fixed point for every beta.

    At x = a >= 0 scores are -a, 0, a. Sparse, L = beta a: all three have weight below L = 1/3, 1/3 -+ L and 1/3, so
    that a becomes 2L; two until L = 1, (1 - L)/2 and (1 + L)/2; then one. The iteration from 1 ends at 1 from beta = 1
    on, at 1/(2 - beta) down to beta = 1/2 (there every |a| <= 2/3 is a fixed point), below at 0. Dense: a becomes
    2 sinh L/(1 + 2 cosh L).
    """

    def __init__(self) -> None:
        line = np.array([[-1.0], [0.0], [1.0]])
        super().__init__(line, start=line[1], nearest=line[2], coordinates=line[:, 0], at=2, critical=1.0)

    def scores(self, a: float) -> Floats:
        return np.array([-a, 0.0, a])

    def square(self, a: float) -> float:
        return a * a

    def weights(self, model: str, beta: float, a: float) -> Floats:
        lead = beta * a
        if model == "dense":
            e = np.exp([-2 * lead, -lead, 0.0])
            return np.asarray(e / e.sum())
        if lead >= 1:
            return np.array([0.0, 0.0, 1.0])
        if lead >= 1 / 3:
            return np.array([0.0, (1 - lead) / 2, (1 + lead) / 2])
        return np.array([1 / 3 - lead, 1 / 3, 1 / 3 + lead])

    def slope(self, model: str, beta: float, a: float) -> float:
        lead = beta * a
        if model == "dense":
            return beta * (2 * math.cosh(lead) + 4) / (1 + 2 * math.cosh(lead)) ** 2
        if lead > 1 + 1e-9:
            return 0.0
        return beta / 2 if lead > 1 / 3 + 1e-9 else 2 * beta

    def slack(self, beta: float, a: float) -> float:
        return min(abs(beta * a - 1), abs(beta * a - 1 / 3))

    def sparse_limit(self, beta: float) -> float:
        if beta >= 1:
            return 1.0
        return 1 / (2 - beta) if beta >= 0.5 else 0.0
