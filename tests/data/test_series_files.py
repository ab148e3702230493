"""Time series from csv files: what is read, and what is refused with its place."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from sparsehopfield.data.series import load, load_csv
from sparsehopfield.errors import FileFormatError

ROWS = [f"2020-01-{1 + i // 24:02} {i % 24:02}:00:00,{i % 7}.5,{i * i}" for i in range(100)]


def written(folder, rows=ROWS, header="date,load,oil"):
    path = folder / "made.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_file_is_read(tmp_path):
    series = load_csv(written(tmp_path))
    assert series.name == "made"
    assert series.columns == ("load", "oil")
    assert np.array_equal(series.values, [[i % 7 + 0.5, i * i] for i in range(100)])
    assert series.dates[25] == np.datetime64("2020-01-02T01:00:00")
    assert series.step == np.timedelta64(3600, "s")
    assert series.parts == (70, 10, 20)


@pytest.mark.parametrize(
    ("step", "count", "season"),
    [("h", 1, 24), ("m", 15, 96), ("h", 6, 4), ("h", 5, 1), ("D", 1, 7), ("D", 2, 1), ("W", 1, 52), ("W", 2, 1)],
)
def test_the_season_is_that_of_the_step(tmp_path, step, count, season):
    dates = np.datetime64("2020-01-01T00:00:00") + np.arange(30) * np.timedelta64(count, step)
    series = load_csv(written(tmp_path, [f"{date},{i % 7}" for i, date in enumerate(dates)], "date,load"))
    assert series.season == season


@pytest.mark.parametrize(
    ("dates", "season"),
    [
        ([f"{2000 + i // 12}-{1 + i % 12:02}-15" for i in range(40)], 12),
        ([f"{2000 + i // 4}-{1 + i % 4 * 3:02}-01" for i in range(40)], 4),
        ([f"{2000 + i}-07-01" for i in range(40)], 1),
        ([str(np.datetime64("2000-01") + i + 1 - np.timedelta64(1, "D")) for i in range(40)], 12),  # last days
    ],
)
def test_steps_may_be_calendar_months(tmp_path, dates, season):
    rows = [f"{date},{i % 7}" for i, date in enumerate(dates)]
    assert load_csv(written(tmp_path, rows, "date,load")).season == season
    gap = rows[:20] + rows[21:]
    with pytest.raises(FileFormatError, match=f"after {dates[19]}T00:00:00 comes {dates[21]}"):
        load_csv(written(tmp_path, gap, "date,load"))


def test_a_packed_file_is_the_same(tmp_path):
    path = written(tmp_path)
    packed = tmp_path / "made.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(load_csv(packed).values, load_csv(path).values)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (ROWS[:40] + ROWS[41:], "date,load,oil", "after 2020-01-02T15:00:00 comes 2020-01-02T17:00:00"),
        (ROWS[::-1], "date,load,oil", "rows must be in order"),
        (
            sorted(ROWS * 3),
            "date,load,oil",
            "T00:00:00 comes 2020-01-01T00:00:00; rows must be in order and equally far",
        ),
        (ROWS, "time,load,oil", "must name a column 'date'"),
        ([row.rpartition(",")[0] + ",3" for row in ROWS], "date,load,oil", "column 'oil' is constant"),
        ([*ROWS[:5], "2020-01-01 05:00:00,,1", *ROWS[6:]], "date,load,oil", "row 6 behind the header: a number"),
        ([*ROWS[:5], "2020-01-01 05:00:00,x,1", *ROWS[6:]], "date,load,oil", "row 6 behind the header: could not"),
        (
            [*ROWS[:5], "2020-01-01 05:00:00,1", *ROWS[6:]],
            "date,load,oil",
            "row 6 behind the header: must have 3 fields",
        ),
        ([*ROWS[:5], "yesterday,1,1", *ROWS[6:]], "date,load,oil", "row 6 behind the header"),
        *(
            (
                [*ROWS[:5], f"2020-01-01 05:00:00,{number},1", *ROWS[6:]],
                "date,load,oil",
                "row 6 .* could not read the num",
            )
            for number in ("5_5", "0x10", "٣", "1e", "--1", "1 000")
        ),
        *(
            (
                [*ROWS[:5], f"2020-01-01 05:00:00,{number},1", *ROWS[6:]],
                "date,load,oil",
                "row 6 .* missing or not finite",
            )
            for number in ("nan", "inf", "-Infinity", "1e999")
        ),
        *(
            ([*ROWS[:5], f"{date},1,1", *ROWS[6:]], "date,load,oil", "row 6 behind the header: could not read the date")
            for date in (
                "2020-01-01 05:00:00+01:00",
                "2020-01-01T05:00:00Z",
                "2020-01-01 05:00:00.250",
                "now",
                "today",
                "20200101",
                "1.1.2020",
            )
        ),
        ([*ROWS[:5], "NaT,1,1", *ROWS[6:]], "date,load,oil", "row 6 .* missing or not finite"),
        ([*ROWS[:5], "2020-02-30,1,1", *ROWS[6:]], "date,load,oil", "row 6 .* [Dd]ay out of range"),
        (ROWS[:1], "date,load,oil", "at least 2 rows"),
        (ROWS[:4], "date,load,oil", "too few for parts"),
        ([row.partition(",")[0] for row in ROWS], "date", "no column beside"),
        ([], "", "must name a column"),
    ],
)
def test_what_cannot_be_forecast_is_told_with_its_place(tmp_path, rows, header, message):
    with pytest.raises(FileFormatError, match=message):
        load_csv(written(tmp_path, rows, header))


def test_names_of_columns_may_have_spaces(tmp_path):
    assert load_csv(written(tmp_path, header="date , load, oil ")).columns == ("load", "oil")


def test_numbers_and_dates_are_read_as_they_are_written(tmp_path):
    numbers = ["1", "+2.5", "-.5", "3.", "1e3", "2.5E-2", "0", "7"]
    dates = [f"2020-01-01T00:00:{i:02}.000" for i in range(8)]
    series = load_csv(
        written(tmp_path, [f"{d}, {n}" for d, n in zip(dates, numbers, strict=True)], "date,load"), parts=(4, 2, 2)
    )
    assert series.values[:, 0].tolist() == [1, 2.5, -0.5, 3, 1000, 0.025, 0, 7]
    assert series.step == np.timedelta64(1, "s")
    years = load_csv(written(tmp_path, [f"{2000 + i},{i % 3}" for i in range(20)], "date,load"))
    assert years.dates[3] == np.datetime64("2003-01-01T00:00:00")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileFormatError, match="is a folder"):
        load_csv(tmp_path)


@pytest.mark.parametrize("parts", [(1, 2), (0, 1, 1), "abc", (1.5, 2, 3), 5, [[1, 2, 3]]])
def test_wrong_parts_are_no_fault_of_the_file(tmp_path, parts):
    with pytest.raises((ValueError, TypeError), match="parts: "):
        load_csv(written(tmp_path), parts=parts)


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="ETDataset"):
        load("ETTh1", tmp_path)
    with pytest.raises(FileNotFoundError, match="is not there"):
        load_csv(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="name: must be"):
        load("ETTm1", tmp_path)


def test_the_published_file_has_the_usual_parts():
    root = Path(os.environ.get("SPARSEHOPFIELD_DATA", "../shared/data"))
    if not (root / "ett" / "ETTh1.csv").exists():
        pytest.skip("ETTh1.csv is not in SPARSEHOPFIELD_DATA")
    series = load("ETTh1", root)
    assert series.values.shape == (17420, 7)
    assert series.parts == (8640, 2880, 2880)
    assert series.columns[-1] == "OT"
