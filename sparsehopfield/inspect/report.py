"""The report on a memory, on one page: the patterns stored under each similarity, at which beta, and their radii.

Like an explanation, a report is for a person to read; what it is made of are the certificates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine import html
from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import (
    Array,
    as_image_shape,
    as_integers,
    as_number,
    ignoring_float_errors,
    image_shape_of,
)
from sparsehopfield._engine.progress import Passes
from sparsehopfield._engine.text import QUANTILES, aligned, quantiles
from sparsehopfield.inspect.certificates import Capacity, Certificates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Hardest", "Report", "Storage"]  # what `HopfieldMemory.report` returns

Floats = NDArray[np.float64]
HARDEST = 8  # pairs that are drawn
NAMED = 3  # of these on the page


@dataclass(frozen=True, eq=False)
class Storage:
    """The patterns that are stored under one similarity, in numbers.

    Attributes
    ----------
    certified : int
        Patterns certified at the report's beta.
    possible : int
        Patterns that some beta certifies.
    critical : ndarray of float64, shape (M,)
        The smallest such beta of each pattern, ascending; inf where there is none.

    See Also
    --------
    Report : Hold this for each similarity.
    sparsehopfield.HopfieldMemory.critical_beta : Return the betas in the patterns' order.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> report = sh.HopfieldMemory(np.array([[3.0, 0.0], [0.0, 3.0], [2.0, 0.0]]), beta=1.0).report()
    >>> report.storage["dot"].possible, report.storage["dot"].critical.round(3)
    (2, array([0.111, 0.333,   inf]))
    """

    certified: int
    possible: int
    critical: Floats

    def beta_for(self, share: float) -> float:
        """Return the smallest beta that certifies this share of the patterns.

        Parameters
        ----------
        share : float, above 0, at most 1
            Which share.

        Returns
        -------
        float
            One of `critical`; inf if no beta certifies so many.

        Raises
        ------
        ValueError, TypeError
            Naming `share`.

        See Also
        --------
        sparsehopfield.HopfieldMemory.suggest_beta : Return the same of the memory's own similarity.

        Examples
        --------
        >>> import numpy as np
        >>> import sparsehopfield as sh
        >>> report = sh.HopfieldMemory(np.array([[3.0, 0.0], [0.0, 3.0], [2.0, 0.0]]), beta=1.0).report()
        >>> [round(report.storage[name].beta_for(1.0), 3) for name in ("dot", "euclidean")]
        [inf, 2.0]
        """
        wanted = as_number("share", share, least=0.0)
        if not 0 < wanted <= 1:
            raise ValueError(f"share: must be above 0 and at most 1, got {share}")
        return float(self.critical[int(np.argmax(np.arange(1, len(self.critical) + 1) / len(self.critical) >= share))])


@dataclass(frozen=True, eq=False)
class Hardest:
    """The patterns with the smallest margins, each beside its rival: the other pattern that scores best with it.

    Attributes
    ----------
    positions, rivals : ndarray of int64, shape (k,)
        Where the patterns and their rivals are in the memory, smallest margin first, certified or not; of two patterns
        that are each other's rival the first alone. k is at most 8.
    margins : ndarray of float64, shape (k,)
        Of the patterns: their own scores less their rivals'.
    patterns, rival_patterns : ndarray, shape (k, d)
        The rows, as the numbers that are stored.
    ids, rival_ids : ndarray of int64, shape (k,), or None
        Names, if the memory has names other than positions.

    See Also
    --------
    Report : Hold these as `hardest`.
    sparsehopfield.HopfieldMemory.margin : Return the margins of all patterns.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> hardest = sh.HopfieldMemory(np.array([[3.0, 0.0], [0.0, 3.0], [2.0, 0.0]]), beta=1.0).report().hardest
    >>> hardest.positions, hardest.rivals, hardest.margins
    (array([2, 1]), array([0, 0]), array([-2.,  9.]))
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
    """A report on the patterns of a memory; printed, it is a page of text.

    Attributes
    ----------
    description : str
        The memory, as it shows itself.
    similarity : {"dot", "euclidean", "cosine"}
        The memory's, of which `margins`, `radii` and `hardest` are.
    separation : str, Entmax or Normmax
        The separation map.
    beta : float
        Inverse temperature that certificates and radii are of.
    storage : dict of str to Storage
        By similarity: the memory's own first, and at least dot and euclidean.
    margins : ndarray of float64, shape (M,)
        Each pattern's score with itself less its largest with another.
    radii : ndarray of float64, shape (M,)
        How far a query may be from each pattern and still go to it in one step; -inf where it is not certified.
    copies : int
        Patterns that lie within rounding of another.
    exact_copies : int
        Those of them that equal another number by number.
    hardest : Hardest
        The patterns with the smallest margins and their rivals; empty for a single pattern.
    capacity : Capacity or None
        How many random patterns of the same spread would be stored; None where all patterns are the same.
    pattern_shape : tuple of int or None
        The memory's, in which `figure` draws.

    See Also
    --------
    sparsehopfield.HopfieldMemory.report : Return this of a memory.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> report = sh.HopfieldMemory(np.array([[3.0, 0.0], [0.0, 3.0], [2.0, 0.0]]), beta=1.0).report()
    >>> report
    Report(at beta 1 2 of 3 patterns are certified; print it for the page)
    >>> report.margins, report.storage["euclidean"].certified
    (array([ 3.,  9., -2.]), 1)
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
    pattern_shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        tables = [aligned(lines) for lines in self._tables()]
        return "\n\n".join([self.description, "\n".join(self._stored()), *tables, "\n".join(self._notes())])

    def __repr__(self) -> str:
        certified, m = self.storage[self.similarity].certified, len(self.margins)
        return f"Report(at beta {self.beta:.6g} {certified} of {m} patterns are certified; print it for the page)"

    def _repr_html_(self) -> str:
        tables = [html.table(lines) for lines in self._tables()]
        stored, notes = "\n".join(self._stored()), "\n".join(self._notes())
        return "\n".join([html.paragraphs(self.description, stored), *tables, html.paragraphs(notes)])

    def _stored(self) -> list[str]:
        """Return in a line for each similarity how many patterns are stored."""
        m = len(self.margins)
        storage_lines = [
            f"{name}: {storage.certified} of {m} patterns ({storage.certified / m:.1%}) are certified to be stored"
            for name, storage in self.storage.items()
        ]
        return [f"at beta {self.beta:.6g}", *storage_lines]

    def _tables(self) -> list[list[list[str]]]:
        """Return the lines of the tables that have any."""
        tables = self._betas(), self._quantiles(), self._smallest_margins()
        return [lines for lines in tables if len(lines) > 1]

    def _notes(self) -> list[str]:
        """Return sentences about what the tables leave out."""
        m = len(self.margins)
        impossible = m - self.storage[self.similarity].possible
        notes = [f"without a margin under {self.similarity}, so that no beta certifies them: {impossible}"]
        exact = f", of which {self.exact_copies} are exact copies" if self.copies else ""
        notes += [f"within rounding of another: {self.copies}{exact}"]
        if self.capacity:
            notes.append(str(self.capacity))
        return notes

    def _betas(self) -> list[list[str]]:
        """Return the lines of a table: the smallest beta that certifies a share of the patterns, by similarity."""
        shares = (0.01, 0.5, 0.9, 0.99, 1.0)
        lines = [["smallest beta for", *(f"{share:.0%}" for share in shares)]]
        for name, storage in self.storage.items():
            betas = [storage.beta_for(share) for share in shares]
            lines.append([name, *(f"{beta:.4g}" if beta < np.inf else "none" for beta in betas)])
        return lines

    def _quantiles(self) -> list[list[str]]:
        """Return the lines of a table: quantiles of margins and radii."""
        lines = [["of the patterns", *QUANTILES]]
        reached = self.radii[self.radii >= 0]
        for name, numbers in (("margin", self.margins), ("radius, where certified", reached)):
            if len(numbers):
                lines.append([name, *quantiles(numbers)])
        return lines

    def _smallest_margins(self) -> list[list[str]]:
        """Return the lines of a table: the patterns of smallest margins and their rivals."""
        pairs = self.hardest
        lines = [["smallest margins: pattern", "rival", "margin"]]
        names = [pairs.positions, pairs.rivals]
        if pairs.ids is not None and pairs.rival_ids is not None:
            lines[0][1:1], names[1:1] = ["id"], [pairs.ids]
            lines[0][3:3], names[3:3] = ["id"], [pairs.rival_ids]
        for *numbers, margin in list(zip(*names, pairs.margins, strict=True))[:NAMED]:
            lines.append([*map(str, numbers), f"{margin:.4g}"])
        return lines

    def figure(self, shape: Sequence[int] | None = None) -> Figure:
        """Draw histograms of margins and radii, and the share that is certified against beta.

        Parameters
        ----------
        shape : sequence of int, optional
            Of a pattern that is an image: (height, width), or (3, height, width) or (height, width, 3) for colours; by
            default the memory's `pattern_shape`, if it is one of these. The hardest pairs are then drawn below,
            brightness from the smallest to the largest of their numbers; `()` leaves them out.

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

        See Also
        --------
        sparsehopfield.inspect.plotting.save : Write the figure.

        Examples
        --------
        >>> import numpy as np
        >>> import sparsehopfield as sh
        >>> figure = sh.HopfieldMemory(np.eye(3), beta=4.0).report().figure()
        >>> [axis.get_xlabel() for axis in figure.axes]
        ['margin', 'radius', 'beta']
        """
        from sparsehopfield.inspect.plotting import Pictures, certificates  # only for figures

        pairs = self.hardest
        if shape is None:
            shape = image_shape_of(self.pattern_shape or ()) or ()
        wanted = as_integers("shape", shape).size > 0
        images = as_image_shape(shape, pairs.patterns.shape[1]) if wanted else None
        betas = self.beta * np.geomspace(1e-3, 1e3, 241)
        shares = {
            name: np.searchsorted(storage.critical, betas, side="right") / len(self.margins)
            for name, storage in self.storage.items()
        }
        numbers = {"margin": self.margins, "radius": self.radii}
        finite = {name: x[np.isfinite(x)] for name, x in numbers.items()}
        if images is None or len(pairs.positions) == 0:
            return certificates(finite, betas, shares, self.beta)
        rows = {"pattern": pairs.patterns, "its rival": pairs.rival_patterns}
        least = min(float(x.min()) for x in rows.values())
        spread = max(float(x.max()) for x in rows.values()) - least
        pictures = {name: (x.astype(np.float64) - least) / (spread or 1.0) for name, x in rows.items()}
        captions = {"pattern": [str(i) for i in pairs.positions], "its rival": [str(i) for i in pairs.rivals]}
        columns = [f"margin\n{margin:.4g}" for margin in pairs.margins]
        heading = (
            "smallest margins, certified or not: each pattern, and the other that scores best with it; their positions"
        )
        return certificates(
            finite, betas, shares, self.beta, pictures=Pictures(pictures, images, columns, captions, heading)
        )


def _hardest(certificates: Certificates, ids: Array | None) -> Hardest:
    """Find the patterns of smallest margins and their rivals: the patterns that score best with them."""
    stored = certificates.pattern_set
    positions = np.argsort(certificates.margins, kind="stable")[: 2 * HARDEST if len(certificates.margins) > 1 else 0]
    best = _core.nearest(stored.core(stored.dtype), certificates.rows(positions), np.ones(1), 0, 2.0, 2)[0]
    rival = np.where(best[:, 0] == positions, best[:, 1], best[:, 0])
    _, first = np.unique(np.sort(np.column_stack([positions, rival])), axis=0, return_index=True)  # each pair once
    positions, rival = (x[np.sort(first)][:HARDEST] for x in (positions, rival))
    rows = certificates.under("euclidean").rows  # for cosine similarity the patterns, not their unit rows
    names = (None, None) if ids is None else (ids[positions], ids[rival])
    return Hardest(positions, rival, certificates.margins[positions], rows(positions), rows(rival), *names)


def _similarities(own: str) -> list[str]:
    """Return the similarities of a report: the memory's own, dot and euclidean."""
    return list(dict.fromkeys([own, "dot", "euclidean"]))


def passes_of(own: str) -> int:
    """Return how many passes over the patterns a report makes: margins under each similarity, and the radii."""
    return len(_similarities(own)) + 1


@ignoring_float_errors()
def report(
    certificates: Certificates,
    ids: Array | None,
    description: str,
    separation: Separation,
    cutoff: float,
    beta: float,
    pattern_shape: tuple[int, ...] | None = None,
    p: float = 0.1,
    passes: Passes | None = None,
) -> Report:
    """Put a report together, in `passes_of` passes over the patterns; cutoff: the map's, which is the gap that a
    certificate requires, in units of 1/beta.
    """
    own = certificates.pattern_set.similarity
    passes = passes or Passes(None, passes_of(own), len(certificates.pattern_set))
    storage = {}
    for name in _similarities(own):
        certificates.under(name).make_margins(passes.begin())
        critical = np.sort(certificates.under(name).critical_betas(cutoff))
        certified = int(np.searchsorted(critical, beta, side="right"))
        storage[name] = Storage(certified, int(np.count_nonzero(critical < np.inf)), critical)
    try:
        capacity = certificates.capacity(cutoff, beta, p)
    except ValueError:  # no spread
        capacity = None
    radii = certificates.radii(cutoff, beta, passes.begin())
    nearest = certificates.under("euclidean")
    copies = int(np.count_nonzero(nearest.lower_margins <= 0))
    return Report(
        description=description,
        similarity=certificates.pattern_set.similarity,
        separation=separation,
        beta=beta,
        storage=storage,
        margins=certificates.margins.copy(),
        radii=radii,
        copies=copies,
        exact_copies=sum(map(len, nearest.copies)) if copies else 0,
        hardest=_hardest(certificates, ids),
        capacity=capacity,
        pattern_shape=pattern_shape,
    )
