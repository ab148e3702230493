"""Means over the runs of a table, and who is ahead: what the reports of studies that train have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Key = tuple[Any, ...]


class Means:
    """The values of a tidy table, those of all runs of a setting together.

    Parameters
    ----------
    rows : sequence of dict
        The table.
    columns : sequence of str
        The columns that distinguish settings; all others, such as the number of the run, are averaged over.

    Examples
    --------
    >>> rows = [{"model": "dense", "run": i, "metric": "accuracy", "value": v} for i, v in enumerate((0.5, 0.7))]
    >>> means = Means(rows, ["model"])
    >>> means.text(("dense",), "accuracy")
    '60.00 ± 14.14'
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._values: dict[tuple[Key, str], list[float]] = {}
        for row in rows:
            self._values.setdefault((tuple(row[name] for name in columns), row["metric"]), []).append(row["value"])
        self.keys: list[Key] = list(dict.fromkeys(key for key, _ in self._values))

    def values(self, key: Key, metric: str) -> NDArray[np.float64]:
        """Return the values of all runs."""
        return np.array(self._values[key, metric])

    def levels(self, column: str, **fixed: Any) -> list[Any]:
        """Return the values of a column, in order, of the settings whose other columns have these values."""
        at = self.columns.index(column)
        return list(dict.fromkeys(key[at] for key in self.keys if self._fits(key, fixed)))

    def has(self, key: Key) -> bool:
        """Return whether a setting was measured."""
        return key in self.keys

    def knows(self, key: Key, metric: str) -> bool:
        """Return whether a value was measured of a setting."""
        return (key, metric) in self._values

    def mean(self, key: Key, metric: str) -> float:
        """Return the mean over the runs."""
        return float(np.mean(self.values(key, metric)))

    def std(self, key: Key, metric: str) -> float:
        """Return the standard deviation over the runs; 0 for a single one."""
        values = self.values(key, metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def text(self, key: Key, metric: str, scale: float = 100, digits: int = 2) -> str:
        """Format mean ± standard deviation, by default in per cent; a single run has the one value."""
        mean, std = (f"{scale * value:.{digits}f}" for value in (self.mean(key, metric), self.std(key, metric)))
        return f"{mean} ± {std}" if len(self.values(key, metric)) > 1 else mean

    def lead(self, first: Key, second: Key, metric: str) -> tuple[float, float]:
        """Return the mean difference of the first and the second in the same runs, and its standard error (nan for one
        run).
        """
        ahead = self.values(first, metric) - self.values(second, metric)
        error = float(np.std(ahead, ddof=1)) / len(ahead) ** 0.5 if len(ahead) > 1 else float("nan")
        return float(np.mean(ahead)), error

    def _fits(self, key: Key, fixed: Mapping[str, Any]) -> bool:
        """Check whether columns of a setting have these values."""
        return all(key[self.columns.index(name)] == value for name, value in fixed.items())
