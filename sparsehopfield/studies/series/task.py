"""A series in standard units and how far it is to be forecast: parts, windows and what followed them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sparsehopfield.data.series import SOURCE, Series, load, load_csv

Floats = NDArray[np.float64]

#: Rows that go before every window that is forecast: what the model that looks back furthest sees.
LOOK_BACK = 512


@dataclass(frozen=True, eq=False)
class Task:
    """A series in standard units, and how far it is to be forecast.

    Attributes
    ----------
    series : Series
    values : ndarray of float64, shape (T, c)
        In units of the part to train with; rows behind the parts are left out.
    horizon : int
    """

    series: Series
    values: Floats
    horizon: int

    @classmethod
    def of(cls, series: Series, horizon: int) -> Task:
        """Standardise a series."""
        train = series.values[: series.parts[0]]
        rows = series.values[: sum(series.parts)]
        flat = np.flatnonzero(np.ptp(train, axis=0) == 0)
        if len(flat):
            constant = series.columns[int(flat[0])]
            raise ValueError(f"file: column {constant!r} is constant in the part to train with; leave it out")
        task = cls(series, (rows - train.mean(axis=0)) / train.std(axis=0), horizon)
        for part in ("train", "validation", "test"):
            if len(task.origins(part)) < 2:
                raise ValueError(
                    f"horizons: {horizon} is too far for {len(rows)} rows, of which "
                    f"{', '.join(map(str, series.parts))} are to train, validate and test with: the {part} part has no "
                    f"two windows that {LOOK_BACK} rows go before and {horizon} follow"
                )
        return task

    @property
    def day(self) -> int:
        """Return the rows of a day; 1 where a row is no part of one, or more than half of the look-back."""
        seconds = int(self.series.step.astype("timedelta64[s]").astype(np.int64))
        rows = 86400 // seconds if 86400 % seconds == 0 else 1
        return rows if rows <= LOOK_BACK // 2 else 1

    def origins(self, part: str) -> NDArray[np.int64]:
        """Return the first rows to forecast in a part, "train", "validation" or "test"."""
        train, validation, _ = self.series.parts
        first = {"train": LOOK_BACK, "validation": train, "test": train + validation}[part]
        end = {"train": train, "validation": train + validation, "test": len(self.values)}[part]
        return np.arange(max(first, LOOK_BACK), end - self.horizon + 1)

    def truth(self, origins: NDArray[np.int64]) -> Floats:
        """Return what is to be forecast from these rows on, (n, horizon, c)."""
        rows: Floats = sliding_window_view(self.values, self.horizon, axis=0)[origins].transpose(0, 2, 1)
        return rows


@dataclass(frozen=True)
class Source:
    """The origin of a series, by which processes can load it by themselves: a csv file, or a name and a folder."""

    name: str
    data: str | None
    file: str | None
    rows: int | None

    def load(self) -> Series:
        """Load the series; of a small run only its last rows."""
        if self.file is not None:
            series = load_csv(self.file)
        elif self.data is None:
            raise ValueError(
                f"data: {self.name}.csv is read from a folder; give --data, or set SPARSEHOPFIELD_DATA; "
                f"get it from {SOURCE}, or name a csv file of your own by --file"
            )
        else:
            series = load(self.name, self.data)
        if self.rows is None or self.rows >= sum(series.parts):
            return series
        end = sum(series.parts)
        share = self.rows / end
        parts = tuple(int(part * share) for part in series.parts)
        some = slice(end - sum(parts), end)
        return Series(series.name, series.values[some], series.columns, series.dates[some], parts)  # type: ignore[arg-type]


@lru_cache(maxsize=2)
def task_of(source: Source, horizon: int) -> Task:
    """Return a task, loaded once in each process."""
    return Task.of(source.load(), horizon)
