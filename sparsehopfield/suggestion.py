"""Settings that fit data: similarity, beta, separation map and structure, with their reasons and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine.checks import (
    Array,
    as_generator,
    as_numbers,
    ignoring_float_errors,
)
from sparsehopfield._engine.separations import as_choice, cutoff_of, separation_code, valid_separations
from sparsehopfield._engine.text import short
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.structures import TopK

__all__ = ["best_beta", "storing_beta"]

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

TASKS = ("classification", "regression")
PRODUCTS = 2**39  # multiplications that a search for beta may take, about: some seconds
BETAS = 24  # updates of a search, about
LEAST_ROWS = 128  # that are left out in turn, where the memory has so many
COMPARED = 1024  # rows by whose scores the range of the search is found
OCTAVES = 40  # most octaves that a search takes, in either direction, where the best beta lies at its edge


def storing_beta(memory: HopfieldMemory, share: float = 0.99, *, margins: Floats | None = None) -> float:
    """Return the least beta that stores a share of the patterns exactly, of those that any beta stores.

    Parameters
    ----------
    memory : HopfieldMemory
    share : float
        Above 0, at most 1.
    margins : ndarray of float64, shape (M,), optional
        `memory.margin()` by default; others where patterns do not all count the same.

    Returns
    -------
    float
        A pattern is stored if its margin is at least 1 / (beta (alpha - 1)), with alpha = 2 for sparsemax. Patterns
        without a positive margin, as copies, are left out; 1 if that leaves none.

    Raises
    ------
    ValueError
        If the separation map gives weight to all patterns, as softmax, and so stores none exactly.

    See Also
    --------
    HopfieldMemory.suggest_beta : of all patterns, and with the error of rounding.

    Notes
    -----
    Costs `memory.margin()`. Hu et al. 2023, "On sparse modern Hopfield model", definition 2.1 and theorem 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import HopfieldMemory
    >>> from sparsehopfield.suggestion import storing_beta
    >>> memory = HopfieldMemory(np.array([[0.0], [1.0], [3.0], [3.0]]), similarity="euclidean")
    >>> storing_beta(memory), memory.margin()
    (2.0, array([0.5, 0.5, 0. , 0. ]))
    """
    cutoff = cutoff_of(separation_code(memory.separation))
    if cutoff is None:
        raise ValueError(
            f"beta: 'auto' needs a separation that stores patterns exactly, {valid_separations(has_cutoff=True)}, got "
            f"{short(memory.separation)}; give a number"
        )
    return _deciding_beta(memory.margin() if margins is None else margins, cutoff, share)


def _deciding_beta(gaps: Floats, gap: float, share: float = 0.99) -> float:
    """Return the least beta at which `beta * gaps` is at least `gap` for a share of the finite positive gaps; else 1.

    gap: the cutoff of a map.
    """
    gaps = np.sort(gaps[(gaps > 0) & np.isfinite(gaps)])[::-1]
    if len(gaps) == 0:  # no finite positive gap: no beta is better than another
        return 1.0
    least = gaps[int(np.ceil(share * len(gaps))) - 1]
    with ignoring_float_errors():
        return float(np.clip(gap / least, np.finfo(np.float64).tiny, np.finfo(np.float64).max))


# --- beta by leaving rows out -----------------------------------------------------------------------------------------


def best_beta(
    memory: HopfieldMemory,
    y: ArrayLike,
    *,
    task: str,
    sample_weight: ArrayLike | None = None,
    random_state: Any = 0,
) -> float:
    """Return the inverse temperature at which the memory best predicts rows that it does not see.

    Each of some stored rows is predicted by all others, at powers of 2 over the range in which beta matters, and at
    steps of sqrt(2) beside the best.

    Parameters
    ----------
    memory : HopfieldMemory
        Its values are the votes of the rows, one column a class, or their targets. Its own beta is not used and not
        changed. Its structure is None or `TopK`.
    y : array_like
        "classification": the rows' classes, shape (M,), columns of the values; "regression": their targets, shape (M,)
        or (M, t).
    task : {"classification", "regression"}
        What is scored: the share of rows whose class has the largest weight, where that ties the squared error of the
        weights; or R^2, its mean over the targets.
    sample_weight : array_like, shape (M,), optional
        Weights of the rows' scores, at least 0; 1 by default. Rows of weight 0 are not left out.
    random_state : int, Generator or None
        Draws the rows that are left out, if not all are: at most 1024, fewer where M d is large, at least 128.

    Returns
    -------
    float
        A power of sqrt(2); 1 where every beta scores the same, as for one row.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    Notes
    -----
    Costs some 20 updates of the rows that are left out. No row of these sees itself, so that the score is the one of as
    many memories without it.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import HopfieldMemory
    >>> from sparsehopfield.suggestion import best_beta
    >>> x = np.linspace(0, 6, 200)[:, None]
    >>> memory = HopfieldMemory(x, values=np.sin(x), similarity="euclidean")
    >>> beta = best_beta(memory, np.sin(x), task="regression")
    >>> beta > 100  # without noise: only the nearest rows count
    True
    """
    m, d = memory.shape
    weight = np.ones(m) if sample_weight is None else _as_weight(sample_weight, m)
    most = int(np.clip(PRODUCTS / (BETAS * m * d), LEAST_ROWS, COMPARED))
    positions = _drawn(as_generator("random_state", random_state), np.flatnonzero(weight), most)
    return _Search.begin(memory, y, task, weight, positions).best()[0]


def _drawn(rng: np.random.Generator, among: Positions, most: int) -> Positions:
    """Draw some positions, ascending; all if there are no more."""
    return among if len(among) <= most else np.sort(rng.choice(among, most, replace=False))


def _as_weight(sample_weight: ArrayLike, m: int) -> Floats:
    """Return weights of m rows, checked."""
    weight = as_numbers("sample_weight", sample_weight).astype(np.float64)
    if weight.shape != (m,):
        raise ValueError(f"sample_weight: must be one number for each of the {m} rows, got shape {weight.shape}")
    if not ((weight >= 0) & (weight < np.inf)).all():
        raise ValueError("sample_weight: must be finite and at least 0")
    if not weight.any():
        raise ValueError("sample_weight: must not be 0 for all rows")
    return weight / weight.max()


def _at(memory: HopfieldMemory, beta: Any) -> HopfieldMemory:
    """Return a memory of the same patterns and the same index at another inverse temperature, for calls alone."""
    other = object.__new__(type(memory))
    other.__dict__.update(memory.__dict__)
    other.beta = beta
    return other


@dataclass(frozen=True, eq=False)
class _Search:
    """A search for the beta at which some stored rows are best predicted by all others."""

    memory: HopfieldMemory
    positions: Positions  # of the rows that are left out
    rows: Array
    truth: Array  # of these: classes (n,), or targets (n, t)
    spread: Floats | None  # of the targets, (t,), their mean squared distances from their means; None: classes
    weight: Floats  # (n,), of sum 1

    @classmethod
    def begin(cls, memory: HopfieldMemory, y: ArrayLike, task: str, weight: Floats, positions: Positions) -> _Search:
        """Check the other arguments of `best_beta`; weight: (M,)."""
        m, width = len(memory), memory.values.shape[1]
        truth = as_numbers("y", y)
        if as_choice("task", task, TASKS) == "classification":
            spread = None
            if truth.shape != (m,) or truth.dtype.kind not in "iub":
                raise ValueError(f"y: must be whole numbers, one for each of the {m} rows, got shape {truth.shape}")
            if not ((truth >= 0) & (truth < width)).all():
                raise ValueError(f"y: must be columns of the memory's values, 0 to {width - 1}, got {truth.max()}")
        else:
            truth = truth.reshape(len(truth), -1).astype(np.float64) if truth.ndim in (1, 2) else truth
            if truth.shape != (m, width):
                raise ValueError(f"y: must be {width} numbers for each of the {m} rows, got shape {np.shape(y)}")
            if not np.isfinite(truth).all():
                raise ValueError("y: contains NaN or infinity; every entry must be finite")
            with ignoring_float_errors():
                scale = np.maximum(np.abs(truth).max(axis=0), np.finfo(np.float64).tiny)
                spread = ((truth / scale - (truth / scale).mean(axis=0)) ** 2).mean(axis=0) * scale**2
        if memory.structure is not None and not isinstance(memory.structure, TopK):
            raise ValueError(
                "structure: rows can be left out of all pairs and of TopK, got "
                f"{short(memory.structure)}; give beta as a number"
            )
        rows = _rows_of(memory, positions)
        return cls(memory, positions, rows, truth[positions], spread, weight[positions] / weight[positions].sum())

    def predicted(self, beta: float) -> Array:
        """Return what one update makes of the rows where none sees itself, (n, v)."""
        return _at(self.memory, beta).update(self.rows, exclude=self.positions)

    @ignoring_float_errors()
    def losses(self, beta: float) -> tuple[Floats, Floats]:
        """Compute the losses of the rows, (n,), and others that decide between betas where these are equal."""
        found = self.predicted(beta).astype(np.float64)
        if self.spread is not None:
            kept = self.spread > 0
            loss = ((found - self.truth)[:, kept] ** 2 / self.spread[kept]).sum(axis=1) / max(1, kept.sum())
            return loss, loss
        total = found.sum(axis=1, keepdims=True)
        shares = np.divide(found, total, out=np.zeros_like(found), where=total != 0)
        wrong = shares.argmax(axis=1) != self.truth
        shares[np.arange(len(shares)), self.truth] -= 1
        return wrong.astype(np.float64), (shares**2).sum(axis=1)

    def loss(self, beta: float) -> tuple[float, float]:
        """Compute the mean losses."""
        first, second = self.losses(beta)
        means = float(first @ self.weight), float(second @ self.weight)
        return tuple(x if np.isfinite(x) else np.inf for x in means)  # type: ignore[return-value]

    def best(self) -> tuple[float, float]:
        """Return the beta of the smallest loss, of several the smallest, and this loss."""
        if len(self.memory) == 1:
            return 1.0, np.inf
        low, high = _octaves(self.memory, self.rows)
        loss = {float(k): self.loss(2.0**k) for k in range(low, high + 1)}

        def best() -> float:
            return min(loss, key=lambda k: (loss[k], k))

        for step in (-1, 1):
            for _ in range(OCTAVES):
                edge = min(loss) if step < 0 else max(loss)
                # A loss that no longer changes is at its limit: that of the mean, or of the nearest row.
                if best() != edge or loss[edge] == loss.get(edge - step) or not -1000 < edge < 1000:
                    break
                loss[edge + step] = self.loss(2.0 ** (edge + step))
        if len(set(loss.values())) == 1:
            return 1.0, loss[best()][0]
        middle = best()
        for k in (middle - 0.5, middle + 0.5):
            loss[k] = self.loss(2.0**k)
        return 2.0 ** best(), loss[best()][0]


def _rows_of(memory: HopfieldMemory, positions: Positions) -> Array:
    """Return stored rows as queries: narrow numbers widened and scaled."""
    rows = memory.patterns[positions]
    return rows if memory.scale == 1 else rows.astype(np.float32) * np.float32(memory.scale)


@ignoring_float_errors()
def _scores(queries: Floats, rows: Floats, similarity: str) -> Floats:
    """Compute the scores (n, m) of a few rows, without the part that is the same for all rows."""
    score = queries @ rows.T
    if similarity == "euclidean":
        score -= (rows**2).sum(axis=1) / 2
    elif similarity == "cosine":
        score /= np.linalg.norm(rows, axis=1)
    return score


@ignoring_float_errors()
def _octaves(memory: HopfieldMemory, rows: Array) -> tuple[int, int]:
    """Return k such that below 2^k beta all rows weigh about the same, and one above which the nearest has all weight.

    Both for most of these rows, by their scores with some of the memory's; the gap of the best two falls with the
    number of rows.
    """
    m = len(memory)
    others = _rows_of(memory, np.unique(np.linspace(0, m - 1, min(m, COMPARED)).astype(np.int64)))
    score = np.sort(_scores(rows[:256].astype(np.float64), others.astype(np.float64), memory.similarity), axis=1)
    widest = float(np.median(score[:, -1] - score[:, 0]))
    gaps = (score[:, 1:] - score[:, :-1])[:, -3:]  # the first may be of the row itself
    gaps = gaps[gaps > 0]
    if len(gaps) == 0 or not 0 < widest < np.inf:
        return 0, 0
    cutoff = min(cutoff_of(separation_code(memory.separation)) or 8.0, 8.0)
    closest = float(np.quantile(gaps, 0.1)) * len(others) / m
    low, high = (np.log2(np.maximum(cutoff / x, 1e-300)) for x in (4 * widest, closest))
    return int(np.clip(np.floor(low), -990, 990)), int(np.clip(np.ceil(high), -990, 990))
