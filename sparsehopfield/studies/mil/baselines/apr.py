"""APR: the smallest box that holds an instance of every positive bag and few of the negative ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import norm

from sparsehopfield._engine.checks import as_number
from sparsehopfield.studies.mil.baselines._base import BagClassifier, Floats, Ints, check_positive

ROUNDS = 10


class APR(BagClassifier):
    """Axis-parallel rectangle by iterated discrimination.

    In turn, a box is grown that holds an instance of every positive bag, and the features are kept by which it
    excludes the negative instances, until these no longer change. At last its sides move out, so that a further
    positive instance falls inside with probability 1 - outside on each feature, by a kernel density of the instances
    chosen. A bag scores by its instance that is least outside of the box: minus the sum, over features, of how far it
    lies out; 0 inside. `predict` takes 0 for positive.

    Parameters
    ----------
    margin : float of at least 0
        A feature excludes an instance well if this lies so far outside of the box.
    outside : float above 0 and below 1

    Notes
    -----
    Simpler than the paper: growth starts from the one instance that is nearest to all positive bags; the kernel's
    width is Scott's, not chosen by held-out bags.

    References
    ----------
    Dietterich, Lathrop and Lozano-Pérez 1997, "Solving the multiple instance problem with axis-parallel rectangles".
    """

    def __init__(self, margin: float = 1.0, outside: float = 0.01) -> None:
        self.margin = margin
        self.outside = outside

    def _check(self) -> None:
        as_number("margin", self.margin, least=0.0)
        check_positive("outside", self.outside)
        if self.outside >= 1:
            raise ValueError(f"outside: must be below 1, got {self.outside}")

    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        bags = [rows[a:b] for a, b in pairwise(offsets)]
        inside = [bag for bag, label in zip(bags, positive, strict=True) if label]
        negative = np.concatenate([bag for bag, label in zip(bags, positive, strict=True) if not label])
        features = np.arange(rows.shape[1])
        chosen = _grown(inside)
        for _ in range(ROUNDS):
            kept = features[_excluding(chosen, negative[:, features], self.margin)]
            if len(kept) in (0, len(features)):
                break
            features, chosen = kept, _grown([bag[:, kept] for bag in inside])
        self.features_ = features
        self.low_, self.high_ = _moved_out(chosen, self.outside)

    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        out = _outside(rows[:, self.features_], self.low_, self.high_).sum(axis=1)
        return np.finfo(np.float64).tiny - np.minimum.reduceat(out, offsets[:-1])  # above 0 inside


def _outside(rows: Floats, low: Floats, high: Floats) -> Floats:
    """Return how far instances lie outside of a box on each feature, (R, d)."""
    return np.maximum(np.maximum(low - rows, rows - high), 0)


def _grown(bags: list[Floats]) -> Floats:
    """Choose an instance of each bag, (B, d), so that the box around all is small: by greed and second thoughts."""
    rows = np.concatenate(bags)
    first = np.cumsum([0, *map(len, bags)])[:-1]
    start = rows[np.minimum.reduceat(cdist(rows, rows, "cityblock"), first, axis=1).sum(axis=1).argmin()]
    chosen: dict[int, Floats] = {}
    low = high = start
    while len(chosen) < len(bags):
        growth = {i: _outside(bag, low, high).sum(axis=1) for i, bag in enumerate(bags) if i not in chosen}
        number = min(growth, key=lambda i: growth[i].min())
        chosen[number] = bags[number][growth[number].argmin()]
        for other in list(chosen)[:-1]:  # would another of its bag leave the box smaller now?
            rest = np.array([row for key, row in chosen.items() if key != other])
            low, high = rest.min(axis=0), rest.max(axis=0)
            chosen[other] = bags[other][_outside(bags[other], low, high).sum(axis=1).argmin()]
        everything = np.array(list(chosen.values()))
        low, high = everything.min(axis=0), everything.max(axis=0)
    return np.array([chosen[number] for number in range(len(bags))])


def _excluding(chosen: Floats, negative: Floats, margin: float) -> Ints:
    """Choose features one by one, each the one that excludes most of the negative instances not yet excluded."""
    out = _outside(negative, chosen.min(axis=0), chosen.max(axis=0))
    well = (out >= margin) | ((out > 0) & (out == out.max(axis=1, keepdims=True)))  # or else as well as any does
    features: list[int] = []
    left = np.ones(len(negative), bool)
    while (counts := well[left].sum(axis=0)).any():
        features.append(int(counts.argmax()))
        left &= ~well[:, features[-1]]
    return np.sort(np.array(features, np.intp))


def _moved_out(chosen: Floats, outside: float) -> tuple[Floats, Floats]:
    """Return the sides of a box, beyond each of which half of `outside` of a kernel density lies."""
    width = np.maximum(chosen.std(axis=0), 1e-9) * len(chosen) ** -0.2
    grid = np.linspace(chosen.min(axis=0) - 4 * width, chosen.max(axis=0) + 4 * width, 200)  # (200, d)
    below = norm.cdf((grid[:, None] - chosen) / width).mean(axis=1)
    low, high = (np.abs(below - share).argmin(axis=0) for share in (outside / 2, 1 - outside / 2))
    columns = np.arange(chosen.shape[1])
    return np.minimum(grid[low, columns], chosen.min(axis=0)), np.maximum(grid[high, columns], chosen.max(axis=0))
