"""The inverse temperature that fits: by the gaps of what is stored, or by leaving rows out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine.checks import Array, as_generator, as_number, as_numbers, as_weights, ignoring_float_errors
from sparsehopfield._engine.separations import as_choice, cutoff_of, separation_code, valid_separations
from sparsehopfield._engine.structure import check_can_leave_out
from sparsehopfield._engine.text import short
from sparsehopfield.memory import HopfieldMemory

__all__ = ["best_beta", "storing_beta"]

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

TASKS = ("classification", "regression")
LEFT_OUT = 2**35  # most multiplications of one update of the rows that are left out, where these are more than 256
PART = 8192  # rows by which models are compared, and near whose best beta that of all is looked for
COMPARED = 1024  # rows by whose scores the range of the search is found
OCTAVES = 40  # most octaves that a search takes, in either direction, where the best beta lies at its edge


def storing_beta(memory: HopfieldMemory, share: float = 0.99, *, margins: ArrayLike | None = None) -> float:
    """Return the least beta that stores a share of the patterns exactly, of those that any beta stores.

    Parameters
    ----------
    memory : HopfieldMemory
        The memory whose patterns are to be stored. Its own beta is not used and not changed.
    share : float, above 0, at most 1
        Which share of the patterns is to be stored, of those that any beta stores.
    margins : array_like, shape (M,), optional
        `memory.margin()` by default; others where patterns do not all count the same.

    Returns
    -------
    float
        A pattern is stored if its margin is at least 1 / (beta (alpha - 1)), with alpha = 2 for sparsemax. Patterns
        without a positive margin, as copies, are left out; 1 if that leaves none.

    Raises
    ------
    ValueError
        If the separation map gives weight to all patterns, as softmax, and so stores none exactly; or naming `share`.
    TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.HopfieldMemory.suggest_beta : Find the beta of a share of all patterns, rounding included.
    best_beta : Find the beta that predicts best.
    sparsehopfield.suggest : Choose the other settings, too.

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
    cutoff = cutoff_of(separation_code(_as_memory(memory).separation))
    if cutoff is None:
        raise ValueError(
            f"beta: 'auto' needs a separation that stores patterns exactly, {valid_separations(has_cutoff=True)}, got "
            f"{short(memory.separation)}; give a number"
        )
    wanted = as_number("share", share, least=0.0)
    if not 0 < wanted <= 1:
        raise ValueError(f"share: must be above 0 and at most 1, got {short(share)}")
    if margins is None:
        return deciding_beta(memory.margin(), cutoff, wanted)
    given = as_numbers("margins", margins).astype(np.float64)
    if given.shape != (len(memory),):
        raise ValueError(f"margins: must have shape ({len(memory)},), got {given.shape}")
    return deciding_beta(given, cutoff, wanted)


def _as_memory(memory: Any) -> HopfieldMemory:
    """Return the argument, if it is a memory."""
    if not isinstance(memory, HopfieldMemory):
        raise TypeError(f"memory: must be a HopfieldMemory, got {short(memory)}")
    return memory


def deciding_beta(gaps: Floats, gap: float, share: float = 0.99) -> float:
    """Return the least beta at which `beta * gaps` is at least `gap` for a share of the finite positive gaps; else 1.

    gap: the cutoff of a map.
    """
    gaps = np.sort(gaps[(gaps > 0) & np.isfinite(gaps)])[::-1]
    if len(gaps) == 0:  # no finite positive gap: no beta is better than another
        return 1.0
    enough = np.arange(1, len(gaps) + 1) / len(gaps) >= share  # a product with the share might round up
    least = gaps[int(np.argmax(enough))]
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
    steps of sqrt(2) beside the best. Of more than 16,384 rows the best power of 2 is found among 8192, and the best of
    all from there on, since beta grows with the number of rows.

    Parameters
    ----------
    memory : HopfieldMemory
        Its values are the votes of the rows, one column a class, or their targets. Its own beta is not used and not
        changed. Its structure is None or `TopK`.
    y : array_like, shape (M,) or (M, t)
        "classification": the rows' classes, as columns of the values, shape (M,); "regression": their targets, shape
        (M,) or (M, t).
    task : {"classification", "regression"}
        What is scored: the share of rows whose class has the largest weight, where that ties the squared error of the
        weights; or R^2, its mean over the targets.
    sample_weight : array_like, shape (M,), at least 0, optional
        How much the score of each row counts; 1 by default. Rows of weight 0 are not left out of the memory.
    random_state : int, Generator or None
        Draws the rows that are left out, if not all are: at most 1024, fewer where M d is large, at least 256.

    Returns
    -------
    float
        A power of sqrt(2); 1 where every beta scores the same, as for one row.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    storing_beta : Find the beta that stores the patterns.
    sparsehopfield.HopfieldMemory.leave_one_out : Make the predictions that are scored.
    sparsehopfield.suggest : Choose the other settings, too.

    Notes
    -----
    Costs some 20 updates of the rows that are left out, or 6 where there are more than 16,384 rows. None of these sees
    itself, so that the score is the one of as many memories, each without one row.

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
    m, d = _as_memory(memory).shape
    weight = np.ones(m) if sample_weight is None else _as_weight(sample_weight, m)
    positions = drawn(as_generator("random_state", random_state), np.flatnonzero(weight), most_left_out(m, d))
    return Search.begin(memory, y, task, weight, positions).best()[0]


def most_left_out(m: int, d: int) -> int:
    """Return how many of m rows of d features a search leaves out, at most."""
    return int(np.clip(LEFT_OUT / (m * d), 256, COMPARED))


def drawn(rng: np.random.Generator, among: Positions, most: int) -> Positions:
    """Draw some positions, ascending; all if there are no more."""
    return among if len(among) <= most else np.sort(rng.choice(among, most, replace=False))


def _as_weight(sample_weight: ArrayLike, m: int) -> Floats:
    """Return weights of m rows, checked."""
    weight = as_weights(sample_weight)
    if weight.shape != (m,):
        raise ValueError(f"sample_weight: must be one number for each of the {m} rows, got shape {weight.shape}")
    if not weight.any():
        raise ValueError("sample_weight: must not be 0 for all rows")
    return weight / weight.max()


@dataclass(frozen=True, eq=False)
class Search:
    """A search for the beta at which some stored rows are best predicted by all others."""

    memory: HopfieldMemory
    positions: Positions  # of the rows that are left out
    rows: Array
    truth: Array  # of these: classes (n,), or targets (n, t)
    spread: Floats | None  # of the targets, (t,), their mean squared distances from their means; None: classes
    weight: Floats  # (n,), of sum 1

    @classmethod
    def begin(cls, memory: HopfieldMemory, y: ArrayLike, task: str, weight: Floats, positions: Positions) -> Search:
        """Check the other arguments of `best_beta`; weight: (M,)."""
        m, width = len(memory), memory.values.reshape(len(memory), -1).shape[1]  # values may be images
        truth = as_numbers("y", y)
        if as_choice("task", task, TASKS) == "classification":
            spread = None
            if truth.shape != (m,) or truth.dtype.kind not in "iub":
                raise ValueError(f"y: must be whole numbers, one for each of the {m} rows, got shape {truth.shape}")
            truth = truth.astype(np.int64)
            wrong = truth[(truth < 0) | (truth >= width)]
            if len(wrong):
                raise ValueError(f"y: must be columns of the memory's values, 0 to {width - 1}, got {wrong[0]}")
        else:
            truth = truth.reshape(len(truth), -1).astype(np.float64) if truth.ndim in (1, 2) else truth
            if truth.shape != (m, width):
                raise ValueError(f"y: must be {width} numbers for each of the {m} rows, got shape {np.shape(y)}")
            if not np.isfinite(truth).all():
                raise ValueError("y: contains NaN or infinity; every entry must be finite")
            with ignoring_float_errors():
                scale = np.maximum(np.abs(truth).max(axis=0), np.finfo(np.float64).tiny)
                spread = ((truth / scale - (truth / scale).mean(axis=0)) ** 2).mean(axis=0) * scale**2
        check_can_leave_out(memory.structure, "; give beta as a number")
        rows = _rows_of(memory, positions)
        return cls(memory, positions, rows, truth[positions], spread, weight[positions] / weight[positions].sum())

    def predicted(self, beta: float) -> Array:
        """Return what one update makes of the rows where none sees itself, (n, v)."""
        return self.memory._at(beta).leave_one_out(self.positions).reshape(len(self.positions), -1)

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

    def best(self, start: float | None = None) -> tuple[float, float]:
        """Return the beta of the smallest loss, of several the smallest, and this loss.

        It is looked for from `start` on, by default over the whole range; of many rows from the best beta of PART of
        them on: it grows with the number of rows, so that most of the range, where supports are large, is left out.
        """
        m = len(self.memory)
        if m == 1:
            return 1.0, np.inf
        if start is None and m > 2 * PART:
            start = self._of_part()._best_from(None)[0]
        return self._best_from(start)

    def _best_from(self, start: float | None) -> tuple[float, float]:
        """Return the best beta, and its loss, found among these rows from `start` on, or over the whole range."""
        octaves = _octaves(self.memory, self.rows) if start is None else (round(np.log2(start)),) * 2
        loss = {float(k): self.loss(2.0**k) for k in range(octaves[0], octaves[1] + 1)}

        def best() -> float:
            return min(loss, key=lambda k: (loss[k], k))

        for step in (1, -1):
            for _ in range(OCTAVES):
                edge = max(loss) if step > 0 else min(loss)
                # A loss that no longer changes is at its limit: that of the mean, or of the nearest row.
                if best() != edge or loss[edge] == loss.get(edge - step) or not -1000 < edge < 1000:
                    break
                loss[edge + step] = self.loss(2.0 ** (edge + step))
        if len(set(loss.values())) == 1:
            return 1.0, loss[best()][0]
        middle = best()
        loss |= {k: self.loss(2.0**k) for k in (middle - 0.5, middle + 0.5)}
        return 2.0 ** best(), loss[best()][0]

    def _of_part(self) -> Search:
        """Return the search for the same rows among PART of the rows."""
        memory, part = self.memory, part_of(len(self.memory), self.positions)
        few = HopfieldMemory(
            memory.patterns[part].reshape(len(part), -1),
            values=memory.values[part].reshape(len(part), -1),
            similarity=memory.similarity,
            separation=memory.separation,
            structure=memory.structure,
            scale=None if memory.scale == 1 else memory.scale,
        )
        return replace(self, memory=few, positions=np.searchsorted(part, self.positions))


def part_of(m: int, positions: Positions) -> Positions:
    """Return the positions of about PART of m rows, evenly spaced, and these; all if m is at most twice PART."""
    if m <= 2 * PART:
        return np.arange(m)
    return np.union1d(np.linspace(0, m - 1, PART).astype(np.int64), positions)


def _rows_of(memory: HopfieldMemory, positions: Positions) -> Array:
    """Return stored rows as queries: narrow numbers widened and scaled."""
    rows = memory.patterns[positions].reshape(len(positions), -1)
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
    # sorted: of few rows the usual widest gap may be less than a close one of others
    low, high = sorted(np.log2(np.maximum(cutoff / x, 1e-300)) for x in (4 * widest, closest))
    return int(np.clip(np.floor(low), -990, 990)), int(np.clip(np.ceil(high), -990, 990))
