"""A series in standard units and how far it is to be forecast: parts, windows and what followed them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sparsehopfield.data._content import as_path
from sparsehopfield.data.series import SOURCE, Series, found, load, load_csv
from sparsehopfield.studies._core.sources import given_folder

Floats = NDArray[np.float64]

#: Rows at most that go before every window that is forecast: what ridge, which looks back furthest, sees.
LOOK_BACK = 512
#: Rows of a window of the memory, at most.
WINDOW = 96
#: Rows that networks see, at most, and of a patch of them.
SEEN, PATCH = 336, 24
#: Validation looks at every sixth window, but at about so many at least.
STRIDE, CHECKED = 6, 60


@dataclass(frozen=True, eq=False)
class Task:
    """A series in standard units, and how far it is to be forecast.

    Attributes
    ----------
    series : Series
    values : ndarray of float64, shape (T, c)
        In units of the part to train with; rows behind the parts are left out.
    horizon : int
    season : int
        Rows of a season; 1 for none.
    look_back : int
        Rows that go before every window that is forecast.
    """

    series: Series
    values: Floats
    horizon: int
    season: int
    look_back: int

    @classmethod
    def of(cls, series: Series, horizon: int, *, season: int | None = None, look_back: int | None = None) -> Task:
        """Standardise a series.

        Parameters
        ----------
        series : Series
        horizon : int
        season : int, optional
            By default what the step of the dates suggests, where a look-back holds so many rows; else 1.
        look_back : int, optional
            By default a quarter of the part to train with, or a season where that is longer; at most `LOOK_BACK`.
        """
        train, rows = series.parts[0], sum(series.parts)
        own = series.season if season is None else season
        if look_back is None:
            look_back = min(LOOK_BACK, max(train // 4, min(own, train // 2), 2))
        if own > look_back:
            if season is not None:
                raise ValueError(f"season: must be at most the look-back, {look_back} rows, got {season}")
            own = 1
        values = series.values[:rows]
        flat = np.flatnonzero(np.ptp(values[:train], axis=0) == 0)
        if len(flat):
            constant = series.columns[int(flat[0])]
            raise ValueError(f"file: column {constant!r} is constant in the part to train with; leave it out")
        mean, scale = values[:train].mean(axis=0), values[:train].std(axis=0)
        task = cls(series, (values - mean) / scale, horizon, own, look_back)
        for part in ("train", "validation", "test"):
            if len(task.origins(part)) < 2:
                least = max(
                    -(-(horizon + 1) * rows // min(series.parts)), -(-(look_back + horizon + 1) * rows // train)
                )
                raise ValueError(
                    f"horizons: {horizon} is too far for {rows} rows, of which {', '.join(map(str, series.parts))} are "
                    f"to train, validate and test with: the {part} part has no two windows that {look_back} rows go "
                    f"before and {horizon} follow; about {least} rows are needed"
                )
        return task

    @property
    def window(self) -> int:
        """Return the rows of a window of the memory."""
        return min(WINDOW, self.look_back)

    @property
    def patch(self) -> int:
        """Return the rows of a patch of the network."""
        return PATCH if self.look_back >= 4 * PATCH else max(1, self.look_back // 8)

    @property
    def seen(self) -> int:
        """Return the rows that networks see, whole patches."""
        return min(SEEN, self.look_back) // self.patch * self.patch

    @property
    def block(self) -> int:
        """Return the windows that the bootstrap draws together.

        A week where seasons are days, or else a season; but a horizon where that is longer, as the errors of windows
        that overlap go together.
        """
        is_day = self.season * self.series.step == np.timedelta64(1, "D")
        return max(7 * self.season if is_day else self.season, self.horizon, 2)

    def origins(self, part: str) -> NDArray[np.int64]:
        """Return the first rows to forecast in a part, "train", "validation" or "test"."""
        train, validation, _ = self.series.parts
        first = {"train": self.look_back, "validation": train, "test": train + validation}[part]
        end = {"train": train, "validation": train + validation, "test": len(self.values)}[part]
        return np.arange(max(first, self.look_back), end - self.horizon + 1)

    def some(self, part: str, *, times: int = 1) -> NDArray[np.int64]:
        """Return every sixth of these rows (or every `times` sixth), or more often where there are few of them."""
        rows = self.origins(part)
        return rows[:: max(1, min(STRIDE * times, len(rows) // CHECKED))]

    def truth(self, origins: NDArray[np.int64]) -> Floats:
        """Return what is to be forecast from these rows on, (n, horizon, c)."""
        rows: Floats = sliding_window_view(self.values, self.horizon, axis=0)[origins].transpose(0, 2, 1)
        return rows


@dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of a series, by which processes can load it by themselves: a csv file, or a name and a folder.

    Attributes
    ----------
    name : str
        Of the series, where it comes from a folder.
    data : str, optional
        The folder.
    file : str, optional
        A csv file in place of both.
    date : str
        Its column of dates.
    rows : int, optional
        Only the last so many.
    season, look_back : int, optional
        As `Task.of` takes them.
    content : str
        The SHA-256 of the file's bytes, "" where there is none: what is kept for a source is not kept for another
        content of the same file.
    """

    name: str = "ETTh1"
    data: str | None = None
    file: str | None = None
    date: str = "date"
    rows: int | None = None
    season: int | None = None
    look_back: int | None = None
    content: str = field(init=False)

    def __post_init__(self) -> None:
        path = None
        if self.file is not None:
            path = as_path("file", self.file)
        elif self.data is not None:
            path = found(self.name, as_path("data", self.data))
        is_file = path is not None and path.is_file()  # what is none is told of when it is loaded
        object.__setattr__(self, "content", sha256(path.read_bytes()).hexdigest() if path and is_file else "")

    def load(self) -> Series:
        """Load the series; of a small run only its last rows."""
        if self.file is not None:
            series = load_csv(self.file, date=self.date)
        else:
            series = load(self.name, given_folder(self.data, f"{self.name}.csv", SOURCE, "a csv file of your own"))
        if self.rows is None or self.rows >= sum(series.parts):
            return series
        end = sum(series.parts)
        share = self.rows / end
        parts = tuple(int(part * share) for part in series.parts)
        some = slice(end - sum(parts), end)
        return Series(series.name, series.values[some], series.columns, series.dates[some], parts)  # type: ignore[arg-type]


@lru_cache(maxsize=8)
def task_of(source: Source, horizon: int) -> Task:
    """Return a task, loaded once in each process."""
    return Task.of(_loaded(source), horizon, season=source.season, look_back=source.look_back)


@lru_cache(maxsize=2)
def _loaded(source: Source) -> Series:
    """Load a series once in each process."""
    return source.load()
