"""The study of time series: its table, resumed and not, its intervals, and what it refuses."""

import numpy as np
import pytest

from sparsehopfield.studies import series
from sparsehopfield.studies.series import protocol
from sparsehopfield.studies.series.task import Source, task_of


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An hourly series of 1,600 rows: days, weeks and noise."""
    path = tmp_path_factory.mktemp("series") / "made.csv"
    rng, hours = np.random.default_rng(0), np.arange(1600)
    day = np.sin(hours * np.pi / 12)
    columns = np.stack([day + 0.3 * rng.standard_normal(1600), day * (hours // 24 % 7 < 5) + 0.1 * rng.random(1600)], 1)
    dates = np.datetime64("2020-01-01T00:00:00") + hours.astype("timedelta64[h]")
    rows = [f"{str(date).replace('T', ' ')},{a},{b}" for date, (a, b) in zip(dates, columns, strict=True)]
    path.write_text("date,a,b\n" + "\n".join(rows) + "\n")
    return path


def run(folder, file, **options):
    return series.run(
        folder, file=file, progress=False, **{"horizons": 12, "maps": ("softmax", "sparsemax"), **options}
    )


def test_an_interrupted_table_is_continued_to_the_same(tmp_path, file, monkeypatch):
    models = ("last", "seasonal", "seasonal mean", "ridge", "memory", "blend", "residuals")
    whole = run(tmp_path / "whole", file, models=models)
    evaluated = []

    def stopped(*arguments):
        if len(evaluated) == 5:
            raise KeyboardInterrupt
        evaluated.append(arguments)
        return protocol.evaluate(*arguments)

    monkeypatch.setattr(series, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", file, models=models)
    monkeypatch.undo()
    parts = run(tmp_path / "parts", file, models=models)
    assert parts.table.read_bytes() == whole.table.read_bytes()
    assert len(whole.figures) == 8
    values = {(row["model"], row["map"], row["metric"]): row["value"] for row in whole.rows}
    assert values["ridge", "-", "against ridge"] == values["ridge", "-", "least"] == 0
    for model, separation in (("memory", "softmax"), ("blend", "sparsemax"), ("residuals", "softmax")):
        assert values[model, separation, "mse"] < values["last", "-", "mse"]
        assert values[model, separation, "least"] <= values[model, separation, "against ridge"]
        assert values[model, separation, "against ridge"] <= values[model, separation, "most"]
    assert values["memory", "sparsemax", "support"] < values["memory", "softmax", "support"]
    assert "memory sparsemax against softmax" in whole.report


def test_naive_forecasts_repeat(file):
    made = task_of(Source(file=str(file)), 30)
    origins = made.origins("test")[:2]
    assert made.season == 24
    for model, rows in (("last", [-1] * 30), ("seasonal", [i % 24 - 24 for i in range(30)])):
        forecast = protocol.naive(made, model, origins)
        assert np.array_equal(forecast, np.stack([made.values[o + np.array(rows)] for o in origins]))
    mean = np.mean([made.values[origins[0] - 24 * k : origins[0] - 24 * k + 24] for k in range(1, 12)], axis=0)
    assert protocol.naive(made, "seasonal mean", origins)[0, :24] == pytest.approx(mean)


def test_no_window_to_test_with_is_dropped(file):
    made = task_of(Source(file=str(file)), 12)
    train, _validation, test = made.series.parts
    assert len(made.origins("test")) == test - 12 + 1
    assert made.origins("train").max() + 12 == train
    assert np.array_equal(made.truth(np.array([700]))[0], made.values[700:712])


def test_the_bootstrap_covers_a_known_ratio():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(100):
        noise = np.repeat(rng.exponential(size=40), 10)
        least, most = protocol.bootstrap(noise * rng.uniform(0.8, 1.4, 400), noise, 10, draws=200)
        inside += least <= 0.1 <= most
    assert 80 <= inside <= 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizons": 0}, "horizons: "),
        ({"horizons": 1000}, "horizons: 1000 is too far"),
        ({"models": "arima"}, "models: unknown"),
        ({"maps": "hard"}, "maps: unknown"),
        ({"rows": 10}, "rows: "),
        ({"structure": "features", "models": "network"}, "structure: features"),
        ({"dataset": "ETTm1"}, "dataset: unknown"),
    ],
)
def test_bad_options_are_named(tmp_path, file, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, file, **options)


def test_a_missing_folder_says_where_to_get_the_series(tmp_path):
    with pytest.raises(ValueError, match="ETDataset"):
        series.run(tmp_path / "out", progress=False)
    with pytest.raises(FileNotFoundError, match="ETDataset"):
        series.run(tmp_path / "out", data=tmp_path, progress=False)
