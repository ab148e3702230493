"""What a memory stores, on one page: under each similarity, at which beta, and how far its patterns reach.

Like an explanation, a report is for a person to read; what it is made of are the certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._text import aligned
from .certificates import Capacity, Certificates
from .stored import Separation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "Storage", "report"]

Floats = NDArray[np.float64]


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
    capacity: Capacity | None

    def __str__(self) -> str:
        m, own = len(self.margins), self.storage[self.similarity]
        says = [
            f"{name}: {storage.certified} of {m} patterns ({storage.certified / m:.1%}) are certified to be stored"
            for name, storage in self.storage.items()
        ]
        notes = [f"without a margin under {self.similarity}, so that no beta certifies them: {m - own.possible}"]
        notes += [f"within rounding of another: {self.copies}"]
        if self.capacity:
            notes.append(str(self.capacity))
        parts = [self.description, "\n".join([f"at beta {self.beta:.6g}", *says])]
        return "\n\n".join([*parts, aligned(self._betas()), aligned(self._spreads()), "\n".join(notes)])

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

    def figure(self) -> Figure:
        """Draw histograms of margins and radii, and the share that is certified against beta.

        Returns
        -------
        matplotlib.figure.Figure
            Made without pyplot; `sparsehopfield.plotting.save` writes it.

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        from .plotting import certificates  # of people's time

        betas = self.beta * np.geomspace(1e-3, 1e3, 241)
        shares = {
            name: np.searchsorted(storage.critical, betas, side="right") / len(self.margins)
            for name, storage in self.storage.items()
        }
        numbers = {"margin": self.margins, "radius": self.radii}
        return certificates({name: x[np.isfinite(x)] for name, x in numbers.items()}, betas, shares, self.beta)


def report(
    own: Certificates, description: str, separation: Separation, needed: float, beta: float, p: float = 0.1
) -> Report:
    """Put a report together; needed is the map's window."""
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
    return Report(
        description=description,
        similarity=own.stored.similarity,
        separation=separation,
        beta=beta,
        storage=storage,
        margins=own.margins.copy(),
        radii=own.radii(needed, beta),
        copies=int(np.count_nonzero(own.under("euclidean").sure <= 0)),
        capacity=capacity,
    )
