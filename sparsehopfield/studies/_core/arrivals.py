"""Times until something comes, where some runs end before it does: medians, means and a paired test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

#: The paired test is exact up to so many pairs; of more, it draws as many changes of sign as these have.
EXACT_PAIRS = 15


@dataclass(frozen=True)
class Arrivals:
    """When something came in each of several runs, or that it had not come when a run ended (it is censored then).

    Parameters
    ----------
    times : ndarray of shape (n,)
        When it came; inf where it did not.
    ends : ndarray of shape (n,)
        When each run ended.

    Examples
    --------
    >>> arrivals = Arrivals(np.array([10.0, 30.0, np.inf]), np.array([50.0, 50.0, 50.0]))
    >>> arrivals.count, arrivals.median(), arrivals.mean(50)
    (2, 30.0, 30.0)
    """

    times: NDArray[np.float64]
    ends: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Return in how many runs it came."""
        return int(np.isfinite(self.times).sum())

    def median(self) -> float:
        """Return Kaplan and Meier's estimate of the median; inf where too few runs arrived to tell."""
        at, later = self._survival()
        reached = at[later <= 0.5]
        return float(reached[0]) if len(reached) else float("inf")

    def mean(self, end: float) -> float:
        """Return the restricted mean: the area below Kaplan and Meier's curve from 0 to `end`."""
        at, later = self._survival()
        edges = np.concatenate([[0.0], at[at < end], [end]])
        return float(np.diff(edges) @ np.concatenate([[1.0], later[at < end]]))

    def restricted(self, end: float) -> NDArray[np.float64]:
        """Return the time of each run, or `end` where that is sooner; ValueError where a run ended before."""
        if np.min(self.ends) < end:
            raise ValueError(f"end: must be at most {np.min(self.ends):g}, where the first run ended, got {end:g}")
        return np.minimum(self.times, end)

    def shares(self, at: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the share of runs that have arrived by some times, and how far its band goes.

        Parameters
        ----------
        at : array_like of shape (m,)
            Times at which all runs still went on, or that are their common end.

        Returns
        -------
        share : ndarray of shape (m,)
            Of the runs.
        band : ndarray of shape (2, m)
            How far Wilson's interval of 95 % goes below and above.
        """
        counts = (self.times[:, None] <= np.asarray(at)).sum(axis=0)
        intervals = [stats.binomtest(k, len(self.times)).proportion_ci(method="wilson") for k in counts.tolist()]
        share = counts / len(self.times)
        low, high = (np.array([getattr(interval, name) for interval in intervals]) for name in ("low", "high"))
        return share, np.maximum(np.stack([share - low, high - share]), 0.0)

    def _survival(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the times at which Kaplan and Meier's curve steps, and the share that is later than each."""
        arrived = np.isfinite(self.times)
        data = stats.CensoredData.right_censored(np.where(arrived, self.times, self.ends), ~arrived)
        curve = stats.ecdf(data).sf
        return curve.quantiles, curve.probabilities


def compare(first: Arrivals, second: Arrivals, end: float) -> tuple[float, float]:
    """Compare the arrivals of pairs of runs, up to some time.

    Parameters
    ----------
    first, second : Arrivals
        Run i of one and run i of the other are a pair.
    end : float
        Time beyond which nothing counts, at most when the first run ended.

    Returns
    -------
    difference : float
        The restricted mean of the first, less that of the second.
    p : float
        Two-sided, of the test that changes the signs of the pairs' differences, which takes for granted only that the
        two of a pair could be exchanged if there was no difference.

    Examples
    --------
    >>> ends = np.full(5, 100.0)
    >>> slow, fast = Arrivals(np.array([60.0, 80, 90, np.inf, np.inf]), ends), Arrivals(np.arange(10.0, 60, 10), ends)
    >>> difference, p = compare(fast, slow, 100)
    >>> round(difference, 2), p
    (-56.0, 0.0625)
    """
    differences = first.restricted(end) - second.restricted(end)
    told = differences[differences != 0]  # the others have no sign to change
    if len(told) < 2:
        return float(np.mean(differences)), 1.0
    test = stats.permutation_test(
        (told, np.zeros_like(told)),
        lambda a, b, axis: np.sum(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=2**EXACT_PAIRS,
        vectorized=True,
        random_state=0,
    )
    return float(np.mean(differences)), float(test.pvalue)
