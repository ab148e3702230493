"""Explanations of retrievals: the patterns that carry the weight, by how much, and what the others lacked.

Nothing here is fast or needs to be: an explanation is of one query, for a person to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core, reference
from sparsehopfield._engine import html
from sparsehopfield._engine.call import Call, Separation
from sparsehopfield._engine.checks import (
    Array,
    as_flat,
    as_image_shape,
    as_integers,
    as_numbers,
    as_whole,
    ignoring_float_errors,
    image_shape_of,
)
from sparsehopfield._engine.partial import threshold
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.separations import has_cutoff, row_of, separation_code
from sparsehopfield._engine.structure import Structure
from sparsehopfield._engine.text import aligned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "Miss"]  # what `HopfieldMemory.explain` returns


@dataclass(frozen=True)
class Miss:
    """The best pattern that has no weight.

    Attributes
    ----------
    position, id : int
        Where the pattern is in the memory, and its name.
    score : float
        Its score.
    gap : float
        How far its score is below the best.
    margin : float
        How far its score is below the threshold: what it lacked.

    See Also
    --------
    Explanation : Hold this as `miss`.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> X = np.array([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0]])
    >>> why = sh.HopfieldMemory(X, beta=1.0).explain([1.0, 0.0])
    >>> why.miss.position, why.miss.score, why.threshold, why.miss.margin
    (2, 0.0, 1.25, 1.25)
    """

    position: int
    id: int
    score: float
    gap: float
    margin: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The patterns that carry the weight of one query; printed, it is a small table.

    Attributes
    ----------
    positions, ids : ndarray of int64, shape (k,)
        The patterns with the largest weights, `top` at most, the heaviest first; of equal ones the first.
    scores : ndarray of float64, shape (k,)
        Their scores, by the canonical dot product.
    gaps : ndarray of float64, shape (k,)
        Best score - score.
    weights : ndarray, shape (k,)
        Their weights.
    threshold : float or None
        Scores at or below this have no weight; None for maps that give weight to all.
    miss : Miss or None
        The best pattern without weight, if there is one.
    beta : float
        Inverse temperature.
    separation : str, Entmax, Normmax or Polynomial
        The separation map.
    support_size : int
        Patterns with weight.
    energy : float or None
        Energy of the query; None for the polynomial, which has none.
    stages : dict of str to int
        How many patterns each stage left to the next: `stored`; under a structure `looked at`; where an index was used,
        `bounded`, those that the bounds of their codes did not exclude, and `bounded closer`, those that closer bounds
        did not; and `support`.
    scored : int or None
        Patterns scored canonically where an index was used, with those that set the threshold for the bounds.
    query, state : ndarray, shapes (d,) and (v,)
        The query, and what one update makes of it: a mixture of the values if the memory has any.
    patterns : ndarray, shape (k, d)
        The patterns at `positions`.
    structure : Structure or None
        The structure that selected patterns; None for all. `gaps`, `threshold` and `miss` are among these.
    pattern_shape : tuple of int or None
        The memory's, in which `plot` draws.

    See Also
    --------
    sparsehopfield.HopfieldMemory.explain : Return this of one query.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> X = np.array([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0]])
    >>> why = sh.HopfieldMemory(X, beta=1.0, ids=[10, 11, 12]).explain([1.0, 0.0])
    >>> why.ids, why.weights, why.support_size, why.miss.id
    (array([10, 11]), array([0.75, 0.25]), 2, 12)
    """

    positions: NDArray[np.int64]
    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    gaps: NDArray[np.float64]
    weights: Array
    threshold: float | None
    miss: Miss | None
    beta: float
    separation: Separation
    support_size: int
    energy: float | None
    stages: dict[str, int]
    scored: int | None
    query: Array = field(repr=False)
    state: Array = field(repr=False)
    patterns: Array = field(repr=False)
    structure: Structure | None = None
    pattern_shape: tuple[int, ...] | None = None

    @property
    def mass(self) -> float:
        """Return the weight of the listed patterns together: 1 if these are all that have weight."""
        return float(self.weights.sum())

    @property
    def excluded(self) -> dict[str, int]:
        """Return how many patterns each stage excluded."""
        return {name: before - left for (_, before), (name, left) in pairwise(self.stages.items())}

    def __str__(self) -> str:
        patterns, stages = self._tables()
        parts = [self._heading(), aligned(patterns), "\n".join(self._notes()), aligned(stages)]
        return "\n\n".join(filter(None, parts))

    def _repr_html_(self) -> str:
        patterns, stages = self._tables()
        return "\n".join(
            [html.table(patterns, self._heading()), html.paragraphs("\n".join(self._notes())), html.table(stages)]
        )

    def plot(self, shape: Sequence[int] | None = None) -> Figure:
        """Draw the query, the state and the patterns that carry it, or bars where patterns are no images.

        Parameters
        ----------
        shape : sequence of int, optional
            Shape of one pattern as an image, (height, width), (3, height, width) or (height, width, 3); `()` draws
            bars. By default the memory's `pattern_shape`, bars where that is no image; without one d features are taken
            for a square image, grey or of three colours, if they can be one of 4 x 4 or more.

        Returns
        -------
        matplotlib.figure.Figure
            Images, each from its own darkest to its own brightest pixel (the state only if it is as long as a
            pattern); or bars of weights at their scores, with the threshold and the best pattern without weight.

        Raises
        ------
        ValueError
            If the patterns cannot have this shape.
        ImportError
            If Matplotlib is not installed.

        See Also
        --------
        sparsehopfield.inspect.plotting.save : Write the figure.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield import HopfieldMemory
        >>> images = np.eye(16)  # of 4 x 4 pixels
        >>> figure = HopfieldMemory(images, beta=4.0).explain(images[3] + 0.1).plot()
        >>> [axis.get_title() for axis in figure.axes]
        ['query', 'state', '3: 1']
        """
        from sparsehopfield.inspect import plotting  # Matplotlib is only needed here

        d = self.query.size
        if shape is None:
            shape = guess_image_shape(d) if self.pattern_shape is None else image_shape_of(self.pattern_shape) or ()
        if as_integers("shape", shape).size == 0:
            missed = None if self.miss is None else self.miss.score
            return plotting.weights(self.scores, self.weights, self.threshold, missed)
        sides = as_image_shape(shape, d)
        images = {"query": self.query}
        if self.state.shape == self.query.shape:
            images["state"] = self.state
        images |= {
            f"{name}: {weight:.2g}": row
            for name, weight, row in zip(self.ids, self.weights, self.patterns, strict=True)
        }
        pictures = np.stack([_scale_to_unit(image) for image in images.values()])
        return plotting.image_grid({"": pictures}, sides, columns=list(images), title=self._support_text())

    def _heading(self) -> str:
        """Return the model and the size of the support in words."""
        structure = "" if self.structure is None else f", {self.structure!r}"
        return f"{self.separation}, beta {self.beta:g}{structure}: {self._support_text()}"

    def _support_text(self) -> str:
        """Return the size of the support in words."""
        return f"{self.support_size} of {self.stages['stored']} patterns have weight"

    def _notes(self) -> list[str]:
        """Return sentences about what the tables leave out."""
        notes = []
        if len(self.positions) < self.support_size:
            notes.append(f"listed: {len(self.positions)} patterns with {self.mass:.4g} of the weight")
        if self.threshold is not None:
            notes.append(f"no weight at scores up to {self.threshold:.6g}")
        if self.miss is not None:
            notes.append(
                f"best without weight: position {self.miss.position}, id {self.miss.id}, score {self.miss.score:.6g}, "
                f"gap {self.miss.gap:.4g}; it lacked {self.miss.margin:.4g}"
            )
        if self.energy is not None:
            notes.append(f"energy {self.energy:.6g}")
        if self.scored is not None:
            notes.append(f"scored: {self.scored} patterns")
        return notes

    def _tables(self) -> tuple[list[list[str]], list[list[str]]]:
        """Return the lines of two tables: the listed patterns, and the stages."""
        rows = zip(self.positions, self.ids, self.scores, self.gaps, self.weights, strict=True)
        patterns = [["position", "id", "score", "gap", "weight"]]
        patterns += [[f"{i}", f"{name}", f"{score:.6g}", f"{gap:.4g}", f"{p:.4g}"] for i, name, score, gap, p in rows]
        excluded = self.excluded
        stages = [["stage", "left", "excluded"]]
        stages += [[name, str(left), str(excluded.get(name, ""))] for name, left in self.stages.items()]
        return patterns, stages


def as_single_query(query: ArrayLike, d: int, shape: tuple[int, ...] | None = None) -> Array:
    """Return the one query (d,) that is to be explained; `shape`: of a pattern, in which it may come instead."""
    given = as_numbers("query", query) if shape is None else as_flat("query", query, shape)
    if given.shape != (d,):
        raise ValueError(
            f"query: must be a single vector of {d} features, got shape {given.shape}; explain the rows one by one"
        )
    if not np.isfinite(given).all():
        raise ValueError("query: contains NaN or infinity; every entry must be finite")
    return given


@ignoring_float_errors()
def explain(
    pattern_set: PatternSet,
    ids: Array,
    query: ArrayLike,
    beta: ArrayLike,
    separation: Separation,
    structure: Structure | None,
    top: Any,
    pattern_shape: tuple[int, ...] | None = None,
) -> Explanation:
    """Explain one retrieval; see `HopfieldMemory.explain`.

    Parameters
    ----------
    pattern_set : PatternSet
        The patterns.
    ids : ndarray of int64, shape (M,)
        Their names.
    query : array_like, shape (d,)
        The query.
    beta, separation, structure : float, str or map, and Structure or None
        The model.
    top : int
        How many patterns to list.
    pattern_shape : tuple of int, optional
        Of one pattern.

    Returns
    -------
    Explanation
        What `HopfieldMemory.explain` returns.

    Raises
    ------
    ValueError
        If there is more than one query, `top` is below 1, or the structure has no list of weights, or shows the query
        no pattern.
    """
    top = as_whole("top", top, 1)
    given = as_single_query(query, pattern_set.shape[1], pattern_shape)
    call = Call.prepare(pattern_set, given, beta, separation_code(separation), structure)
    visible = _count_visible(call)
    position, score, weight, score_threshold, size = _weighted_patterns(call, top, visible)
    order = np.lexsort((position, -score, -weight))
    best = float(score.max())
    miss = None
    if score_threshold is not None and size < visible:
        outside, value = _best_outside(call, position)
        miss = Miss(outside, int(ids[outside]), value, best - value, score_threshold - value)
    listed = order[:top]
    stages, scored = _stages(call, size, visible)
    return Explanation(
        positions=position[listed],
        ids=np.asarray(ids[position[listed]], np.int64),
        scores=score[listed],
        gaps=best - score[listed],
        weights=weight[listed],
        threshold=score_threshold,
        miss=miss,
        beta=float(call.beta[0]),
        separation=separation,
        support_size=size,
        energy=float(call.energy()) if row_of(call.code).has_energy else None,
        stages=stages,
        scored=scored,
        query=call.rows[0].copy(),
        state=call.update(),
        patterns=pattern_set.numbers(position[listed], call.rows.dtype),
        structure=structure,
        pattern_shape=pattern_shape,
    )


def _count_visible(call: Call) -> int:
    """Count the patterns that the query sees under the structure; raise if there are none."""
    m = call.pattern_set.whole_count
    if call.core_executor("associate").pairs is None:
        return m
    assert call.structure is not None
    if not (count := call.structure.count(1, m)):
        raise ValueError("structure: shows the query no pattern, so there is nothing to explain")
    return count


def _weighted_patterns(
    call: Call, top: int, visible: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], Array, float | None, int]:
    """Return positions, canonical scores and weights, (k,) each, the threshold, and the size of the support.

    k patterns: the support for maps with a cutoff, else the `top` heaviest.
    """
    if has_cutoff(call.code):
        _, position, score, weight = call.core_executor("associate").associate(call.rows)
        score_threshold = threshold(score, call.beta[0], call.code)
        return position, score, weight.astype(call.rows.dtype), score_threshold, len(position)
    weights = call.associate(top)
    position = weights.indices.astype(np.int64)
    canonical: Any = reference.canonical_scores  # without types
    rows = call.pattern_set.numbers(position, call.rows.dtype)
    score = canonical(call.rows, rows, call.pattern_set.similarity)[0]
    return position, score, weights.data, None, visible


def _best_outside(call: Call, support: NDArray[np.int64]) -> tuple[int, float]:
    """Return position and score of the best visible pattern outside a support.

    A support has all patterns above some score, and grows as beta falls. So the first larger one has the best pattern
    outside, and its canonical score; and there is one, as some beta gives weight to all.
    """
    executor = call.core_executor("associate")
    while True:
        executor = replace(executor, beta=executor.beta / 4)
        _, position, score, _ = executor.associate(call.rows)
        outside = ~np.isin(position, support)
        if outside.any():
            best = int(np.argmax(score[outside]))
            return int(position[outside][best]), float(score[outside][best])


def _stages(call: Call, support: int, visible: int) -> tuple[dict[str, int], int | None]:
    """Count the patterns that each stage left, and those that were scored, as far as the core tells."""
    between, scored = {}, -1
    if call.structure is not None:
        between = {"looked at": visible}
    elif has_cutoff(call.code):
        counts = _core.survey(call.core_executor("associate").core, call.rows, call.beta, *call.code)[0]
        between = {name: int(n) for name, n in zip(("bounded", "bounded closer"), counts, strict=False) if n >= 0}
        scored = int(counts[2]) if between else -1  # of an index alone
    return {"stored": call.pattern_set.whole_count, **between, "support": support}, scored if scored >= 0 else None


def guess_image_shape(d: int) -> tuple[int, ...]:
    """Return the shape of a square image of d features, grey or of three colours; () if there is none."""
    for shape in ((isqrt(d), isqrt(d)), (3, isqrt(d // 3), isqrt(d // 3))):
        if np.prod(shape) == d and shape[-1] >= 4:
            return shape
    return ()


def _scale_to_unit(image: Array) -> Array:
    """Scale an image so that its numbers go from 0 to 1."""
    low, high = float(image.min()), float(image.max())
    return (image - low) / (high - low or 1.0)
