"""What a memory stores, on one page: under each similarity, at which beta, and how far its patterns reach.

Like an explanation, a report is for a person to read; what it is made of are the certificates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, as_image_shape, untrapped
from sparsehopfield._engine.pattern_set import Separation
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect.certificates import Capacity, Certificates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Hardest", "Report", "Storage", "report"]

Floats = NDArray[np.float64]
HARDEST = 8  # pairs that are drawn
NAMED = 3  # of these on the page


@dataclass(frozen=True, eq=False)
class Storage:
    """What is stored under one similarity.

    Attributes
    ----------
    certified : int
        Patterns certified at the report's beta.
    possible : int
        Patterns that some beta certifies.
    critical : ndarray of float64, shape (M,)
        The smallest such beta of each pattern, ascending; inf where there is none.
    """

    certified: int
    possible: int
    critical: Floats

    def beta_for(self, share: float) -> float:
        """The smallest beta that certifies this share of the patterns, or inf."""
        return float(self.critical[int(np.argmax(np.arange(1, len(self.critical) + 1) / len(self.critical) >= share))])


@dataclass(frozen=True, eq=False)
class Hardest:
    """The patterns with the smallest margins, each beside its rival: the other pattern that scores best with it.

    Attributes
    ----------
    positions, rivals : ndarray of int64, shape (k,)
        Smallest margin first; of two patterns that are each other's rival the first. Certified or not.
    margins : ndarray of float64, shape (k,)
        Of the patterns: their own scores less their rivals'.
    patterns, rival_patterns : ndarray, shape (k, d)
        The rows, as they are stored or stood for.
    ids, rival_ids : ndarray of int64, shape (k,), or None
        Names, if the memory has names other than positions.
    """

    positions: NDArray[np.int64]
    rivals: NDArray[np.int64]
    margins: Floats
    patterns: Array
    rival_patterns: Array
    ids: NDArray[np.int64] | None = None
    rival_ids: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """What a memory stores; printed, it is a page of text.

    Attributes
    ----------
    description : str
        The memory, as it shows itself.
    similarity : str
        The memory's.
    separation : str or Entmax
        How scores become weights.
    beta : float
        Inverse temperature of all that is said.
    storage : dict of str to Storage
        By similarity: the memory's own first, and at least dot and euclidean.
    margins : ndarray of float64, shape (M,)
        See `HopfieldMemory.margin`.
    radii : ndarray of float64, shape (M,)
        See `HopfieldMemory.exact_radius`.
    copies : int
        Patterns that lie within rounding of another.
    exact_copies : int
        Those of them that equal another number by number.
    hardest : Hardest
        A few of the smallest margins and what they are up against; empty for a single pattern.
    capacity : Capacity or None
        None where all patterns are the same.
    """

    description: str
    similarity: str
    separation: Separation
    beta: float
    storage: Mapping[str, Storage]
    margins: Floats
    radii: Floats
    copies: int
    exact_copies: int
    hardest: Hardest
    capacity: Capacity | None

    def __str__(self) -> str:
        m, own = len(self.margins), self.storage[self.similarity]
        says = [
            f"{name}: {storage.certified} of {m} patterns ({storage.certified / m:.1%}) are certified to be stored"
            for name, storage in self.storage.items()
        ]
        notes = [f"without a margin under {self.similarity}, so that no beta certifies them: {m - own.possible}"]
        exact = f", of which {self.exact_copies} are exact copies" if self.copies else ""
        notes += [f"within rounding of another: {self.copies}{exact}"]
        if self.capacity:
            notes.append(str(self.capacity))
        parts = [self.description, "\n".join([f"at beta {self.beta:.6g}", *says])]
        parts += [aligned(lines) for lines in (self._betas(), self._spreads(), self._hardest()) if len(lines) > 1]
        return "\n\n".join([*parts, "\n".join(notes)])

    def _betas(self) -> list[list[str]]:
        shares = (0.01, 0.5, 0.9, 0.99, 1.0)
        lines = [["smallest beta for", *(f"{share:.0%}" for share in shares)]]
        for name, storage in self.storage.items():
            betas = [storage.beta_for(share) for share in shares]
            lines.append([name, *(f"{beta:.4g}" if beta < np.inf else "none" for beta in betas)])
        return lines

    def _spreads(self) -> list[list[str]]:
        lines = [["of the patterns", "least", "10%", "half", "90%", "most"]]
        reached = self.radii[self.radii >= 0]
        for name, numbers in (("margin", self.margins), ("radius, where certified", reached)):
            if len(numbers):
                quantiles = np.quantile(numbers, (0, 0.1, 0.5, 0.9, 1), method="lower")
                lines.append([name, *(f"{x:.4g}" for x in quantiles)])
        return lines

    def _hardest(self) -> list[list[str]]:
        hard = self.hardest
        lines = [["smallest margins: pattern", "rival", "margin"]]
        names = [hard.positions, hard.rivals]
        if hard.ids is not None and hard.rival_ids is not None:
            lines[0][1:1], names[1:1] = ["id"], [hard.ids]
            lines[0][3:3], names[3:3] = ["id"], [hard.rival_ids]
        for *who, margin in list(zip(*names, hard.margins, strict=True))[:NAMED]:
            lines.append([*map(str, who), f"{margin:.4g}"])
        return lines

    def figure(self, shape: Sequence[int] | None = None) -> Figure:
        """Draw histograms of margins and radii, and the share that is certified against beta.

        Parameters
        ----------
        shape : sequence of int, optional
            Of a pattern that is an image: (height, width), or (3, height, width) for colours. The hardest pairs are
            then drawn below, brightness from the smallest to the largest of their numbers.

        Returns
        -------
        matplotlib.figure.Figure
            Made without pyplot; `sparsehopfield.inspect.plotting.save` writes it.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError, TypeError
            If patterns do not have this shape.
        """
        from sparsehopfield.inspect.plotting import Pictures, certificates  # of people's time

        hard = self.hardest
        images = None if shape is None else as_image_shape(shape, hard.patterns.shape[1])
        betas = self.beta * np.geomspace(1e-3, 1e3, 241)
        shares = {
            name: np.searchsorted(storage.critical, betas, side="right") / len(self.margins)
            for name, storage in self.storage.items()
        }
        numbers = {"margin": self.margins, "radius": self.radii}
        finite = {name: x[np.isfinite(x)] for name, x in numbers.items()}
        if images is None or len(hard.positions) == 0:
            return certificates(finite, betas, shares, self.beta)
        rows = {"pattern": hard.patterns, "its rival": hard.rival_patterns}
        least = min(float(x.min()) for x in rows.values())
        spread = max(float(x.max()) for x in rows.values()) - least
        pictures = {name: (x.astype(np.float64) - least) / (spread or 1.0) for name, x in rows.items()}
        captions = {"pattern": [str(i) for i in hard.positions], "its rival": [str(i) for i in hard.rivals]}
        columns = [f"margin\n{margin:.4g}" for margin in hard.margins]
        heading = (
            "smallest margins, certified or not: each pattern, and the other that scores best with it; their positions"
        )
        return certificates(
            finite, betas, shares, self.beta, pictures=Pictures(pictures, images, columns, captions, heading)
        )


def _hardest(own: Certificates, ids: Array | None) -> Hardest:
    """The smallest margins, and their rivals."""
    stored = own.stored
    mine = np.argsort(own.margins, kind="stable")[: 2 * HARDEST if len(own.margins) > 1 else 0]
    best = _core.nearest(stored.core(stored.dtype), own.rows(mine), np.ones(1), 0, 2.0, 2)[0]
    rival = np.where(best[:, 0] == mine, best[:, 1], best[:, 0])
    _, first = np.unique(np.sort(np.column_stack([mine, rival])), axis=0, return_index=True)  # each pair once
    mine, rival = (x[np.sort(first)][:HARDEST] for x in (mine, rival))
    rows = own.under("euclidean").rows  # for cosine similarity the patterns, not their unit rows
    names = (None, None) if ids is None else (ids[mine], ids[rival])
    return Hardest(mine, rival, own.margins[mine], rows(mine), rows(rival), *names)


@untrapped()
def report(
    own: Certificates,
    ids: Array | None,
    description: str,
    separation: Separation,
    needed: float,
    beta: float,
    p: float = 0.1,
) -> Report:
    """Put a report together; needed is the map's cutoff."""
    similarities = dict.fromkeys([own.stored.similarity, "dot", "euclidean"])
    storage = {}
    for name in similarities:
        critical = np.sort(own.under(name).critical(needed))
        certified = int(np.searchsorted(critical, beta, side="right"))
        storage[name] = Storage(certified, int(np.count_nonzero(critical < np.inf)), critical)
    try:
        capacity = own.capacity(needed, beta, p)
    except ValueError:  # no spread
        capacity = None
    nearest = own.under("euclidean")
    copies = int(np.count_nonzero(nearest.sure <= 0))
    return Report(
        description=description,
        similarity=own.stored.similarity,
        separation=separation,
        beta=beta,
        storage=storage,
        margins=own.margins.copy(),
        radii=own.radii(needed, beta),
        copies=copies,
        exact_copies=sum(map(len, nearest.copies)) if copies else 0,
        hardest=_hardest(own, ids),
        capacity=capacity,
    )
