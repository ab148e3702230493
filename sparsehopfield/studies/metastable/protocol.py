"""The protocol of the study of metastable states: images stored and queried, and counts of patterns with weight.

A query is updated some times, and the patterns are counted that have weight in the last of these associations. The
counts are `support`, weights above zero; `heavy`, weights above 0.01; and `effective`, 1 / sum p^2, which is k for
k equal weights and says how many patterns matter where all have weight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.call import still_moving
from sparsehopfield._engine.separations import FAMILIES, SEPARATIONS, SeparationMap, has_cutoff, separation_code
from sparsehopfield._engine.text import short
from sparsehopfield.data.datasets import ImageSet, load_mnist
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.studies._core.options import check_names
from sparsehopfield.studies.retrieval.protocol import MASKS, Floats, half_masked

Integers = NDArray[np.int64]

#: What queries lose: nothing, or the half that `half_masked` sets to zero.
DAMAGE = ("none", *MASKS)
PIXELS = ("signed", "unit")
#: Loaders of test images, for data sets that have files of them; else the queries are images that are not stored.
TEST_IMAGES: dict[str, Callable[[Any], ImageSet]] = {"mnist": lambda root: load_mnist(root, "test")}

#: Weights above this are heavy.
HEAVY = 0.01
#: The histograms' bins by the largest count in each; one more holds the counts above.
BINS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)


def bin_names(bins: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of bins: their only count, or the first and the last."""
    firsts = [0, *(last + 1 for last in bins)]
    within = (str(last) if first == last else f"{first}-{last}" for first, last in zip(firsts, bins, strict=False))
    return (*within, f"{firsts[-1]} or more")


COUNTS = ("support", "heavy", "effective")
STATISTICS: dict[str, Callable[[NDArray[Any]], Any]] = {"mean": np.mean, "median": np.median, "max": np.max}
METRICS = (
    *(f"{count} {name}" for count in ("support", "heavy") for name in bin_names(BINS)),  # shares of the queries
    *(f"{count} {statistic}" for count in COUNTS for statistic in STATISTICS),
    "largest",  # weight of the strongest pattern, mean
    "leaders",  # how many patterns are the strongest one of some query
    "updates",
    "settled",
)


_FAMILIES = {name: family for name, family in FAMILIES.items() if family.row.has_energy}
#: The names of separation maps on the command line and in the table.
NAMES = (*SEPARATIONS, *(f"{name}:ALPHA" for name in _FAMILIES))


def separation_named(name: str) -> str | SeparationMap:
    """Return the separation map that the command line and the table call by this name.

    Parameters
    ----------
    name : str
        "softmax", "entmax15", "sparsemax", or "entmax:ALPHA" as in "entmax:1.25", and so of each map with an energy.

    Returns
    -------
    str or SeparationMap
        The value for `HopfieldMemory`.

    Raises
    ------
    ValueError
        If there is no such map. The polynomial is left out: all patterns have weight at any beta, and it has no
        energy whose minima its states could be.
    """
    kind, colon, alpha = name.partition(":")
    if colon and kind in _FAMILIES:
        try:
            value = float(alpha)
        except ValueError:
            value = 0.0
        if not 1 < value < np.inf:  # 1 is softmax, and goes by that name
            raise ValueError(f"separation: {kind}:ALPHA needs a number above 1, as in {kind}:1.25, got {short(name)}")
        return _FAMILIES[kind](value)
    check_names("separation", [name], NAMES)
    return name


def alpha_of(name: str) -> float:
    """Return the alpha of a map of this name: 1 for softmax, 2 for sparsemax, as they are maps of entmax."""
    return separation_code(separation_named(name))[1]


# Stored images and queries


class Drawn:
    """The stored images and the query images, drawn once for all settings of a study.

    Parameters
    ----------
    images : ImageSet
        The images of the patterns; a memory of more patterns holds those of a memory of fewer, too.
    tests : ImageSet or None
        The images of the queries; None takes those images that no memory stores.
    most : int
        The largest number of patterns that will be stored.
    queries : int
        How many queries at most.
    seed : int
        Seed of the draw.

    Raises
    ------
    ValueError
        If no image is left to ask with.
    """

    def __init__(self, images: ImageSet, tests: ImageSet | None, most: int, queries: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._images, self._tests = images, images if tests is None else tests
        self._order = rng.permutation(len(images))
        self._query_positions = (self._order[most:] if tests is None else rng.permutation(len(tests)))[:queries]
        if not len(self._query_positions):
            raise ValueError(
                f"sizes: {most} patterns leave none of the {len(images)} images of {images.name} to ask with"
            )

    def __len__(self) -> int:
        return len(self._query_positions)

    def patterns(self, size: int, pixels: str) -> Floats:
        """Return the first `size` of the drawn images, in the order of their files."""
        return _scaled(self._images.pixels(np.sort(self._order[:size])), pixels)

    def queries(self, pixels: str, damage: str) -> Floats:
        """Return the query images, whole or with one half set to zero, which is grey if pixels are signed."""
        queries = _scaled(self._tests.pixels(self._query_positions), pixels)
        return queries if damage == "none" else half_masked(queries, self._tests.shape, damage)


def _scaled(images: Floats, pixels: str) -> Floats:
    """Scale pixels from [0, 1] to [-1, 1] if they are to be signed."""
    return 2 * images - 1 if pixels == "signed" else images


# One measurement


def rest(memory: HopfieldMemory, queries: Floats, steps: int) -> dict[str, float]:
    """Update queries, and count what their last association mixes.

    Parameters
    ----------
    memory : HopfieldMemory
        With the beta and the separation map to measure; not the polynomial.
    queries : ndarray of shape (N, d)
        The query.
    steps : int
        Number of updates; 0 means to the fixed point.

    Returns
    -------
    dict
        A value for each of `METRICS`, and `seconds`, the time that the updates took.
    """
    limit = steps or 1000
    began = time.perf_counter()
    with still_moving():  # after a given number of steps some queries have not settled: as asked
        before, first = memory.retrieve(queries, max_steps=limit - 1, return_info=True)
        _, last = memory.retrieve(before, max_steps=1, return_info=True)
    seconds = time.perf_counter() - began
    heavy, effective, largest, leader = mixed(memory, before, last.support_size)
    found: dict[str, float] = {}
    for count, sizes in (("support", last.support_size), ("heavy", heavy)):
        shares = np.bincount(np.searchsorted(BINS, sizes), minlength=len(BINS) + 1) / len(sizes)
        found |= {f"{count} {name}": share for name, share in zip(bin_names(BINS), shares, strict=True)}
    for count, sizes in zip(COUNTS, (last.support_size, heavy, effective), strict=True):
        found |= {f"{count} {name}": statistic(sizes) for name, statistic in STATISTICS.items()}
    return found | {
        "largest": float(np.mean(largest)),
        "leaders": len(np.unique(leader)),
        "updates": float(np.mean(first.steps + ~first.converged)),
        "settled": float(np.mean(last.converged)),
        "seconds": seconds,
    }


def mixed(
    memory: HopfieldMemory, states: Floats, support: Integers
) -> tuple[Integers, NDArray[np.float64], Floats, Integers]:
    """Measure the weights of one association of each state.

    Parameters
    ----------
    memory : HopfieldMemory
        With its beta and its separation map.
    states : ndarray of shape (N, d)
        The states to associate.
    support : ndarray of int of shape (N,)
        How many patterns have weight.

    Returns
    -------
    heavy : ndarray of int of shape (N,)
        How many patterns have a weight above `HEAVY`.
    effective : ndarray of float of shape (N,)
        1 / sum p^2. For softmax it comes from two energies, with a relative error of some 1e-4.
    largest : ndarray of float of shape (N,)
        The largest weight.
    leader : ndarray of int of shape (N,)
        Position of the pattern that has it; the first of them if there are several.
    """
    top = None
    if not has_cutoff(separation_code(memory.separation)):
        top = min(len(memory), round(1 / HEAVY))  # no more can be above HEAVY, as weights sum to 1
        support = np.full(len(states), top)
    parts = [_row_statistics(memory.associate(states[part], top=top)) for part in _slices(support)]
    heavy, squares, largest, leader = (np.concatenate(column) for column in zip(*parts, strict=True))
    effective = 1 / squares if top is None else _effective_softmax(memory, states)
    return heavy, effective, largest, leader


def _slices(support: Integers, most: int = 2**24) -> Iterator[slice]:
    """Yield slices of the queries with about `most` weights each: at low beta, all weights together can fill memory."""
    ends = [*np.flatnonzero(np.diff(np.cumsum(support) // most)) + 1, len(support)]
    return (slice(start, end) for start, end in zip([0, *ends], ends, strict=False))


def _row_statistics(weights: Any) -> tuple[Integers, NDArray[np.float64], Floats, Integers]:
    """Compute for each row of a CSR array: number of heavy weights, sum of squares, largest weight and its column."""
    starts, values = weights.indptr[:-1], weights.data
    row = np.repeat(np.arange(len(starts)), np.diff(weights.indptr))
    largest = np.maximum.reduceat(values, starts)
    peaks = np.flatnonzero(values == largest[row])
    _, firsts = np.unique(row[peaks], return_index=True)
    heavy = np.add.reduceat((values > HEAVY).astype(np.int64), starts)
    squares = np.add.reduceat(values.astype(np.float64) ** 2, starts)
    return heavy, squares, largest, weights.indices[peaks[firsts]]


def _effective_softmax(memory: HopfieldMemory, states: Floats) -> NDArray[np.float64]:
    """Compute 1 / sum p^2 without the weights: sum p^2 = Z(2 beta) / Z(beta)^2, and the energy at beta has log
    Z(beta).
    """
    beta = float(np.asarray(memory.beta))
    half = np.sum(states.astype(np.float64) ** 2, axis=1) / 2

    def log_z(at: float) -> NDArray[np.float64]:
        memory.beta = at
        return np.asarray(at * (half - memory.energy(states)), np.float64)

    try:
        return np.maximum(1, np.exp(2 * log_z(beta) - log_z(2 * beta)))
    finally:
        memory.beta = beta
