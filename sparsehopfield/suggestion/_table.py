"""What is suggested, as a table with its reasons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import Array, as_numbers, as_patterns, compute_dtype
from sparsehopfield._engine.html import paragraphs, table
from sparsehopfield._engine.labels import as_labels
from sparsehopfield._engine.separations import as_choice
from sparsehopfield._engine.structure import Structure
from sparsehopfield._engine.text import aligned
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.suggestion._betas import TASKS, Positions

__all__ = ["Suggestion", "SuggestionRow"]


@dataclass(frozen=True)
class SuggestionRow:
    """One line of a suggestion: what it says, why, and how to measure that.

    Attributes
    ----------
    setting : str
        "similarity", "beta", "separation", "structure", or "index", which results do not depend on.
    value : str
        What is suggested for it.
    reason : str
        Why, in a sentence.
    evidence : float
        What was measured.
    call : str
        The expression that gives it, of `np`, `sh` (this package), `X`, `y` and `queries` as arrays, and `s`, the
        suggestion.

    See Also
    --------
    sparsehopfield.Suggestion : The settings, with their lines in `rows`.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import suggest
    >>> row = suggest(np.array([[0.0], [1.0], [3.0], [3.0]])).rows[5]
    >>> row.setting, row.reason
    ('beta', '50 % of the rows are copies of others, which no beta stores: see memory.duplicates().')
    >>> row.evidence, row.call
    (0.5, "(sh.HopfieldMemory(X, similarity='euclidean').certify(X[s.sample]).gap <= 0).mean()")
    """

    setting: str
    value: str
    reason: str
    evidence: float
    call: str


@dataclass(frozen=True, eq=False)
class Suggestion:
    """Settings that fit some data; printed, a table of them with their reasons, and of how to measure these.

    Attributes
    ----------
    similarity : {"dot", "euclidean", "cosine"}
        What a score is.
    beta : float
        The inverse temperature.
    separation : str, Entmax or Normmax
        How scores become weights.
    structure : Structure or None
        The patterns that a query sees; None: all.
    rows : tuple of SuggestionRow
        The table: what each setting rests on.
    sample : ndarray of int64
        Positions of the rows of X that were looked at, ascending.
    queried : ndarray of int64
        Positions of the queries that were looked at.
    part : ndarray of int64
        Positions of the rows of X, all if there are at most 16,384, among which models were compared.
    shape : tuple of int
        (M, d), of X.
    task : {"classification", "regression"} or None
        What `y` was taken for; None without it.

    See Also
    --------
    sparsehopfield.suggest : Make one.
    sparsehopfield.suggestion.SuggestionRow : One line of the table.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import suggest
    >>> found = suggest(np.array([[0.0], [1.0], [3.0]]))
    >>> found.similarity, found.beta
    ('euclidean', 2.001)
    >>> print(str(found).splitlines()[2])
       setting      value  measured  reason
    """

    similarity: str
    beta: float
    separation: Separation
    structure: Structure | None
    rows: tuple[SuggestionRow, ...] = field(repr=False)
    sample: Positions = field(repr=False)
    queried: Positions = field(repr=False)
    part: Positions = field(repr=False)
    shape: tuple[int, int]
    task: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return the four settings by name, as constructors of memories and estimators take them.

        Returns
        -------
        dict
            Of `beta`, `similarity`, `separation` and `structure`.

        See Also
        --------
        memory : Store rows under these settings.
        sparsehopfield.estimators.HopfieldRetriever : Take them as arguments.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield import suggest
        >>> suggest(np.array([[0.0], [1.0], [3.0]])).settings()
        {'similarity': 'euclidean', 'beta': 2.001, 'separation': 'sparsemax', 'structure': None}
        """
        return {
            "similarity": self.similarity,
            "beta": self.beta,
            "separation": self.separation,
            "structure": self.structure,
        }

    def memory(self, X: ArrayLike, y: Any = None, **options: Any) -> HopfieldMemory:
        """Store rows under these settings.

        Parameters
        ----------
        X : array_like, shape (M, d)
            The rows to store.
        y : array_like, optional
            Classes or targets of the rows, as the suggestion was made from: the memory's values are their votes, one
            column each of `numpy.unique(y)`, or these targets.
        **options
            Other arguments of `HopfieldMemory`, which take the place of the suggested ones.

        Returns
        -------
        HopfieldMemory
            It has all rows, not the sample alone.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault.

        See Also
        --------
        settings : Return the settings alone.
        sparsehopfield.HopfieldMemory : What is returned.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield import suggest
        >>> X = np.array([[0.0], [1.0], [3.0]])
        >>> suggest(X).memory(X).retrieve([[0.9]])
        array([[1.]])
        """
        with naming_rows():
            rows = as_patterns("X", X)
            if y is not None:
                options = {"values": as_targets(y, rows, self.task)[1], **options}
            return HopfieldMemory(rows, **{**self.settings(), **options})

    def _heading(self) -> str:
        m, d = self.shape
        looked = f", of which {len(self.sample)} were looked at" if len(self.sample) < m else ""
        return f"suggested for {m} rows of {d} features{looked}"

    def _tables(self) -> tuple[list[list[str]], list[list[str]]]:
        """Return the lines of both tables, each with its head."""
        numbers = [f"{row.evidence:.4g}" for row in self.rows]
        reasons = [["setting", "value", "measured", "reason"]]
        calls = [["measured", "by"]]
        before = None
        for row, number in zip(self.rows, numbers, strict=True):
            new = row.setting != before
            reasons.append([row.setting if new else "", row.value if new else "", number, row.reason])
            calls.append([number, row.call])
            before = row.setting
        return reasons, calls

    def __str__(self) -> str:
        reasons, calls = self._tables()
        return f"{self._heading()}\n\n{aligned(reasons, left=[3])}\n\n{aligned(calls, left=[1])}"

    def _repr_html_(self) -> str:
        reasons, calls = self._tables()
        return "\n".join([paragraphs(self._heading()), table(reasons), table(calls)])


@contextmanager
def naming_rows() -> Iterator[None]:
    """Have errors of memories name `X`, the argument that their patterns are."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        text = str(error)
        if not text.startswith("patterns:"):
            raise
        raise type(error)("X:" + text.removeprefix("patterns:")) from None


def as_targets(y: Any, X: Array, task: str | None) -> tuple[Array, Array, str]:
    """Return y as `best_beta` takes it, the values of a memory of X, and what it is: `task`, or what its dtype says."""
    m, dtype = len(X), compute_dtype(X)
    if task is not None:
        as_choice("task", task, TASKS)
    if task != "classification":
        try:
            targets = as_numbers("y", y)
        except (TypeError, ValueError):
            targets = None
        if targets is not None and (task is not None or targets.ndim == 2 or targets.dtype.kind == "f"):
            if targets.ndim not in (1, 2) or len(targets) != m or targets.size == 0:
                raise ValueError(f"y: must be one row of targets for each of the {m} rows of X, got {targets.shape}")
            if not np.isfinite(targets).all():
                raise ValueError("y: contains NaN or infinity; every entry must be finite")
            return targets, targets.reshape(m, -1).astype(dtype), "regression"
        if task is not None:
            as_numbers("y", y)  # raises
    labels = as_labels("y", y)
    if labels.shape != (m,):
        raise ValueError(f"y: must be one class for each of the {m} rows of X, got shape {labels.shape}")
    names, classes = np.unique(labels, return_inverse=True)
    return classes, np.eye(len(names), dtype=dtype)[classes], "classification"
