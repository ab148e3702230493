"""Time series, read from csv files with a column of dates.

Nothing is downloaded: `load` takes the folder of the data, looks there and in the sub-folders that the files usually
come in, and says what it wants, and where to get it, when a file is not there. What a forecast cannot be made of
raises a FileFormatError, which is a ValueError: steps that are not equal, numbers that are missing, columns that are
constant.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import as_integers
from sparsehopfield._engine.text import short
from sparsehopfield.data._content import as_path, reading, unpacked_content
from sparsehopfield.errors import FileFormatError

__all__ = ["Series", "load", "load_csv"]

#: Hours of the parts to train, validate and test with, as the literature takes them of ETTh1 and ETTh2.
HOURS = 8640, 2880, 2880
#: Shares of the rows for the same parts of any other series.
SHARES = 0.7, 0.1, 0.2
#: Seconds.
DAY = 86400
#: What is read as a date, and as a number.
DATE = re.compile(r"\d{4}(-\d\d(-\d\d([ T]\d\d(:\d\d(:\d\d(\.0+)?)?)?)?)?)?", re.ASCII)
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?)", re.ASCII | re.IGNORECASE)
SOURCE = "https://github.com/zhouhaoyi/ETDataset (ETT-small)"


@dataclass(frozen=True, eq=False)
class Series:
    """A multivariate time series with equal steps, or steps of calendar months.

    Attributes
    ----------
    name : str
        The name of the file, without its ending.
    values : ndarray of float64, shape (T, c)
        One row a time, the earliest first.
    columns : tuple of str
        The names of the c columns.
    dates : ndarray of datetime64[s], shape (T,)
        The time of each row.
    parts : tuple of 3 int
        How many rows there are to train, to validate and to test with, in this order; rows behind them are not used.

    See Also
    --------
    load : Load a series of the literature.
    load_csv : Read a series from a csv file.
    sparsehopfield.estimators.HopfieldForecaster : Forecast a series from its own past.

    Examples
    --------
    >>> import numpy as np
    >>> dates = np.arange("2026-01-01", "2026-01-11", dtype="datetime64[D]").astype("datetime64[s]")
    >>> series = Series("made", np.arange(10.0)[:, None], ("load",), dates, (6, 2, 2))
    >>> len(series), series.step, series.season
    (10, np.timedelta64(86400,'s'), 7)
    """

    name: str
    values: NDArray[np.float64]
    columns: tuple[str, ...]
    dates: NDArray[np.datetime64]
    parts: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def step(self) -> np.timedelta64:
        """Return the time between two rows."""
        step: np.timedelta64 = self.dates[1] - self.dates[0]
        return step

    @property
    def season(self) -> int:
        """Return the rows of the season that the step suggests.

        Those of a day for steps that a day is a multiple of, of a week for days, of a year for weeks and for calendar
        months and multiples of these; 1 for all others.
        """
        seconds = int(self.step.astype("timedelta64[s]").astype(np.int64))
        months = months_apart(self.dates)
        if months:
            return 12 // months if 12 % months == 0 else 1
        if seconds == 7 * DAY:
            return 52
        if seconds == DAY:
            return 7
        return DAY // seconds if DAY % seconds == 0 else 1


def load(name: str, root: str | os.PathLike[str]) -> Series:
    """Load a series by the name of its file, with the parts that the literature takes.

    Parameters
    ----------
    name : {"ETTh1", "ETTh2"}
        Hourly loads and oil temperatures of a transformer: Zhou et al. 2021, "Informer".
    root : path
        Folder with the csv file; also looked for in its sub-folders `ett` and `ETT-small`.

    Returns
    -------
    Series
        With the parts that the literature takes: 8,640 hours to train, 2,880 to validate and 2,880 to test with.

    Raises
    ------
    ValueError
        For another name.
    FileNotFoundError
        If it is not there; the message says where to get it.
    FileFormatError
        If it is damaged.

    See Also
    --------
    load_csv : Read a series from any csv file.
    sparsehopfield.estimators.HopfieldForecaster : Forecast a series from its own past.

    Examples
    --------
    >>> load("ETTh1", "nowhere")
    Traceback (most recent call last):
        ...
    FileNotFoundError: nowhere: has no ETTh1.csv, nor have its folders ett and ETT-small; get it from
        https://github.com/zhouhaoyi/ETDataset (ETT-small)
    """
    if name not in ("ETTh1", "ETTh2"):
        raise ValueError(f"name: must be 'ETTh1' or 'ETTh2', got {short(name)}; load_csv reads other files")
    folder = as_path("root", root)
    path = found(name, folder)
    if path is None:
        raise FileNotFoundError(
            f"{folder}: has no {name}.csv, nor have its folders ett and ETT-small; get it from {SOURCE}"
        )
    return load_csv(path, parts=HOURS)


def found(name: str, folder: Path) -> Path | None:
    """Return where `load` finds a series; None where it is in none of the folders."""
    return next((path for sub in ("", "ett", "ETT-small") if (path := folder / sub / f"{name}.csv").exists()), None)


def load_csv(path: str | os.PathLike[str], *, date: str = "date", parts: tuple[int, int, int] | None = None) -> Series:
    """Load a series from a csv file.

    Parameters
    ----------
    path : path
        A file with a header and one row a time, the earliest first. From one row to the next it is always equally long,
        or always the same number of calendar months. It may be packed by gzip, bzip2 or xz.
    date : str
        The column of dates, as ISO 8601 has them: 2016-07-01 or 2016-07-01 00:00:00, in whole seconds and without a
        time zone. All other columns are numbers.
    parts : tuple of 3 int, optional
        Rows to train, validate and test with; by default 70, 10 and 20 % of all.

    Returns
    -------
    Series
        With the parts that were asked for.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        Naming `parts`.
    FileFormatError
        If it cannot be read, or has no such column, a number that is missing or not finite, dates that are not in order
        or whose steps differ, or a column that is constant; the message names the line or the column.

    See Also
    --------
    load : Load a series of the literature by its name.
    sparsehopfield.estimators.HopfieldForecaster : Forecast a series from its own past.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "made.csv")
    ...     _ = path.write_text("date,load" + "".join(f"\\n2026-01-{day:02},{day % 7}.5" for day in range(1, 21)))
    ...     series = load_csv(path)
    >>> series.values.shape, series.columns, series.step
    ((20, 1), ('load',), np.timedelta64(86400,'s'))
    """
    path = as_path("path", path)
    if parts is not None:
        rows = as_integers("parts", parts)
        if rows.shape != (3,) or rows.min() < 1:
            raise ValueError(f"parts: must be 3 numbers of rows, each at least 1, got {short(parts)}")
        parts = tuple(rows.tolist())
    if path.is_dir():
        raise FileFormatError(f"{path}: is a folder; it must be a csv file with a column {date!r}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: is not there; it must be a csv file with a column {date!r}")
    content = unpacked_content(path)
    with reading(path, "csv file"):
        lines = [line for line in csv.reader(content.decode("utf-8-sig").splitlines()) if line]
    header = [name.strip() for name in lines[0]] if lines else []
    if date not in header:
        raise FileFormatError(f"{path}: its header must name a column {date!r}, got {short(header)}")
    at = header.index(date)
    columns = tuple(name for i, name in enumerate(header) if i != at)
    if not columns:
        raise FileFormatError(f"{path}: has no column beside {date!r}")
    dates, values = _read_rows(path, lines[1:], at, len(columns))
    _check_steps(path, dates)
    constant = [name for name, column in zip(columns, values.T, strict=True) if np.ptp(column) == 0]
    if constant:
        raise FileFormatError(f"{path}: column {constant[0]!r} is constant: there is nothing to forecast; leave it out")
    n = len(values)
    if parts is None:
        parts = (int(n * SHARES[0]), int(n * SHARES[1]), n - int(n * SHARES[0]) - int(n * SHARES[1]))
    if min(parts) < 1 or sum(parts) > n:
        raise FileFormatError(f"{path}: has {n} rows, too few for parts of {', '.join(map(str, parts))}")
    return Series(path.name.partition(".")[0], values, columns, dates, parts)


def _read_rows(
    path: Path, lines: list[list[str]], at: int, columns: int
) -> tuple[NDArray[np.datetime64], NDArray[np.float64]]:
    """Return the dates and numbers of the lines behind the header."""
    dates, values = np.empty(len(lines), "datetime64[s]"), np.empty((len(lines), columns))
    if len(lines) < 2:
        raise FileFormatError(f"{path}: must have at least 2 rows behind the header, got {len(lines)}")
    for row, line in enumerate(lines):
        where = f"{path}, row {row + 1} behind the header"
        if len(line) != columns + 1:
            raise FileFormatError(f"{where}: must have {columns + 1} fields, got {len(line)}")
        try:
            dates[row] = _as_date(line[at].strip())
            values[row] = [_as_number(field.strip()) for i, field in enumerate(line) if i != at]
        except ValueError as error:
            raise FileFormatError(f"{where}: {short(str(error), quote=False)}") from None
        if not np.isfinite(values[row]).all() or np.isnat(dates[row]):
            raise FileFormatError(
                f"{where}: a number or date is missing or not finite; fill it in, or leave the row out"
            )
    return dates, values


def _as_date(text: str) -> np.datetime64:
    """Return a date of whole seconds, NaT where none is written; NumPy alone reads more, and cuts some of it off."""
    if text.lower() in ("", "nat"):
        return np.datetime64("NaT", "s")
    if not DATE.fullmatch(text):
        raise ValueError(
            f"could not read the date {short(text)}; it must be like 2016-07-01 or 2016-07-01 00:00:00, in whole "
            "seconds and without a time zone"
        )
    return np.datetime64(text.partition(".")[0], "s")


def _as_number(text: str) -> float:
    """Return a number, nan where none is written; Python alone would read 5_5 as 55."""
    if not text:
        return np.nan
    if not NUMBER.fullmatch(text):
        raise ValueError(f"could not read the number {short(text)}")
    return float(text)


def _check_steps(path: Path, dates: NDArray[np.datetime64]) -> None:
    """Raise for the first date that does not follow the one before by the usual step."""
    steps = np.diff(dates)
    usual = np.median(steps.astype(np.int64)).astype(np.int64)
    wrong = np.flatnonzero(steps.astype(np.int64) != usual)
    if len(wrong) and months_apart(dates):
        return
    if usual <= 0 or len(wrong):
        back = np.flatnonzero(steps.astype(np.int64) <= 0)
        i = int(back[0] if len(back) else np.argmax(np.abs(steps.astype(np.int64) - usual)))  # a gap differs most
        apart = f"{np.timedelta64(usual, 's')} apart, or whole calendar months" if usual > 0 else "equally far apart"
        raise FileFormatError(
            f"{path}: after {dates[i]} comes {dates[i + 1]}; rows must be in order and {apart}: fill gaps in first"
        )


def months_apart(dates: NDArray[np.datetime64]) -> int:
    """Return how many calendar months lie between a date and the next; 0 where they are no such dates.

    All are the same day of the month at the same time, or the last day of theirs.
    """
    months = dates.astype("datetime64[M]")
    within = dates - months.astype(dates.dtype)
    last = (months + 1).astype(dates.dtype) - dates <= np.timedelta64(1, "D")
    steps = np.diff(months).astype(np.int64)
    if len(steps) and steps[0] > 0 and np.all(steps == steps[0]) and (np.all(within == within[0]) or np.all(last)):
        return int(steps[0])
    return 0
