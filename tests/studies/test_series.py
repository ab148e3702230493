"""The study of time series: its table, resumed and not, its intervals, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from sparsehopfield.__main__ import main
from sparsehopfield.inspect import plotting
from sparsehopfield.studies import series
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies.series import protocol
from sparsehopfield.studies.series.task import Source, task_of


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An hourly series of 900 rows: days, weeks and noise."""
    path = tmp_path_factory.mktemp("series") / "made.csv"
    rng, hours = np.random.default_rng(0), np.arange(900)
    day = np.sin(hours * np.pi / 12)
    columns = np.stack([day + 0.3 * rng.standard_normal(900), day * (hours // 24 % 7 < 5) + 0.1 * rng.random(900)], 1)
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
    whole = run(tmp_path / "whole", file, models=models, season=12)  # no week: the test part has 14 blocks, not one
    evaluated = []

    def stopped(*arguments):
        if len(evaluated) == 5:
            raise KeyboardInterrupt
        evaluated.append(arguments)
        return protocol.evaluate(*arguments)

    monkeypatch.setattr(series, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", file, models=models, season=12)
    monkeypatch.undo()
    for kept in (protocol.ridge_of, protocol.memory_of, protocol.residuals_of, protocol._by_memory, protocol.untrained):
        kept.cache_clear()  # as in a process of its own
    parts = run(tmp_path / "parts", file, models=models, season=12)
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
    assert "12 rows ahead, intervals from 14 blocks of 12 windows" in whole.report
    tuned = protocol.memory_of(Source(file=str(file), season=12), 12, "sparsemax")
    errors = [values["memory", "sparsemax", protocol.at_beta("mse", beta)] for beta in protocol.BETAS["sparsemax"]]
    assert [*tuned.errors.values()] == errors
    assert tuned.errors[tuned.beta] == min(errors)
    names = {metric for model, _, metric in values if model == "ridge"}
    assert names == {
        *protocol.METRICS,
        "mse in whole batches of 32",
        "mse in whole batches of 128",
        "mse in whole batches of 512",
    }


def test_naive_forecasts_repeat(file):
    made = task_of(Source(file=str(file)), 30)
    origins = made.origins("test")[:2]
    assert made.season == 24
    for model, rows in (("last", [-1] * 30), ("seasonal", [i % 24 - 24 for i in range(30)])):
        forecast = protocol.naive(made, model, origins)
        assert np.array_equal(forecast, np.stack([made.values[o + np.array(rows)] for o in origins]))
    mean = np.mean([made.values[origins[0] - 24 * k : origins[0] - 24 * k + 24] for k in range(1, 7)], axis=0)
    assert protocol.naive(made, "seasonal mean", origins)[0, :24] == pytest.approx(mean)


def test_no_window_to_test_with_is_dropped(file):
    made = task_of(Source(file=str(file)), 12)
    train, _validation, test = made.series.parts
    assert len(made.origins("test")) == test - 12 + 1
    assert made.origins("train").max() + 12 == train
    assert np.array_equal(made.truth(np.array([700]))[0], made.values[700:712])


def test_the_bootstrap_covers_a_known_ratio_of_windows_that_overlap(file):
    """The windows of two forecasts that are equally good overlap by a horizon that is longer than a season."""
    horizon, n = 24, 720
    block = replace(task_of(Source(file=str(file), season=4), 12), horizon=horizon).block
    assert block == horizon
    rng, covered = np.random.default_rng(1), {block: 0, 4: 0}
    for _ in range(200):
        rows = rng.exponential(size=(2, n + horizon - 1))
        one, other = (np.convolve(row, np.full(horizon, 1 / horizon), "valid") for row in rows)
        for length in covered:
            least, most = protocol.bootstrap(one, other, length, draws=200)
            covered[length] += least <= 0 <= most
    assert 155 <= covered[block] <= 198  # of 190: what 30 blocks that are no longer than the horizon can do
    assert covered[4] < 110  # a season does not do: windows overlap by more


@pytest.mark.parametrize(
    ("season", "horizon", "block"), [(None, 12, 168), (None, 200, 200), (12, 4, 12), (12, 40, 40), (1, 1, 2)]
)
def test_blocks_are_weeks_or_seasons_but_no_shorter_than_horizons(file, season, horizon, block):
    assert replace(task_of(Source(file=str(file), season=season), 12), horizon=horizon).block == block


def test_nothing_is_kept_of_a_file_that_was_rewritten(tmp_path, file, monkeypatch):
    monkeypatch.setattr(series, "figures", lambda *_: {})
    monkeypatch.setattr(series, "analogues_figure", lambda *_: Figure())
    path, errors = tmp_path / "rewritten.csv", []
    lines = file.read_text().splitlines()
    for rows in (lines[:700], [lines[0], *lines[201:]], lines[:700]):  # as long, and other numbers
        path.write_text("\n".join(rows))
        found = run(tmp_path / "out", path, models=("ridge", "memory"), maps="softmax", restart=True)
        errors.append((found.table.read_bytes(), (tmp_path / "out" / "settings.json").read_text()))
    assert errors[0] == errors[2]
    for one, other in zip(*errors[:2], strict=True):
        assert one != other


def test_another_beta_leaves_a_forecaster_what_it_is(file):
    source = Source(file=str(file))
    model = protocol.memory_of(source, 12, "softmax").model
    before = model.predict()
    other = protocol._at(model, 0.5)
    assert other.beta == other.memories_[0].beta == 0.5
    assert not np.allclose(other.predict(), before)
    assert np.array_equal(model.predict(), before)
    assert np.shares_memory(model.memories_[0].patterns, other.memories_[0].patterns)


def test_a_blend_without_the_memory_has_no_support(file, monkeypatch):
    source, setting = Source(file=str(file)), {"model": "blend", "map": "softmax", "horizon": 12}
    found = protocol.evaluate(source, setting, 1)
    assert 0 < found["share"] <= 1
    assert found["support"] == protocol.evaluate(source, {**setting, "model": "memory"}, 1)["support"]
    protocol.untrained.cache_clear()
    monkeypatch.setattr(protocol, "share_of", lambda *_: 0.0)
    found = protocol.evaluate(source, setting, 1)
    protocol.untrained.cache_clear()
    assert found["share"] == found["against ridge"] == 0
    assert np.isnan(found["support"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizons": 0}, "horizons: "),
        ({"horizons": 1000}, "horizons: 1000 is too far .* about 10010 rows are needed"),
        ({"models": "arima"}, "models: unknown"),
        ({"maps": "hard"}, "maps: unknown"),
        ({"rows": 10}, "rows: "),
        ({"season": 0}, "season: must be at least 1"),
        ({"season": 400}, "season: must be at most the look-back, 315 rows"),
        ({"look_back": 513}, "look_back: must be at most 512"),
        ({"structure_horizons": 24}, r"structure_horizons: must be of the horizons, \(12,\)"),
        ({"structure": "features", "models": "network", "maps": "sparsemax"}, "structure: features"),
        ({"dataset": "ETTm1"}, "dataset: unknown"),
    ],
)
def test_bad_options_are_named(tmp_path, file, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, file, **options)


def paired(errors, others, blocks):
    """Draw blocks one by one, as the bootstrap says that it does."""
    ratios = []
    for first in blocks:
        rows = (first[:, None] + np.arange(10)).ravel() % len(errors)
        ratios.append(errors[rows].mean() / others[rows].mean() - 1)
    return np.quantile(ratios, (0.025, 0.975))


def test_the_bootstrap_draws_blocks_of_both(file):
    errors, others = np.random.default_rng(3).exponential(size=(2, 105))
    blocks = np.random.default_rng(0).integers(105, size=(200, 11))
    assert protocol.bootstrap(errors, others, 10, draws=200) == pytest.approx(tuple(paired(errors, others, blocks)))
    assert np.isnan(protocol.bootstrap(errors[:99], others[:99], 10)).all()
    assert np.isfinite(protocol.bootstrap(errors[:100], others[:100], 10)).all()


def test_seeds_come_one_after_another_behind_what_is_not_trained():
    chosen = series.Options(
        models="all", horizons=(24, 96), runs=2, structure=("all", "window", "features"), structure_horizons=96
    )
    settings = chosen.settings()
    is_trained = [setting["model"] in protocol.TRAINED for setting in settings]
    assert is_trained == sorted(is_trained)
    runs = [setting["run"] for setting in settings]
    assert runs == sorted(runs)
    assert len({tuple(setting.values()) for setting in settings}) == len(settings)
    structures = {(s["horizon"], s["map"], s["structure"]) for s in settings if s["model"] == "network"}
    assert len([one for one in structures if one[0] == 24]) == 3
    assert {one[1] for one in structures if one[2] == "features"} == {"softmax"}
    assert {setting["seed"] for setting in settings if setting["horizon"] == 24 and setting["run"] == 1} == {
        derive_seed(0, 24, 1)
    }


def test_a_short_series_is_looked_back_upon_less(tmp_path):
    path = tmp_path / "sales.csv"
    months = [np.datetime64("2000-01") + i for i in range(144)]
    path.write_text(
        "month,sales\n" + "".join(f"{m}-01,{np.sin(i * np.pi / 6) + i % 5}\n" for i, m in enumerate(months))
    )
    found = run(tmp_path / "out", path, date="month", models=("seasonal", "ridge", "memory"), maps="sparsemax")
    made = task_of(Source(file=str(path), date="month"), 12)
    assert (made.season, made.look_back, made.window, made.patch, made.seen) == (12, 25, 25, 3, 24)
    assert "a season of 12 rows, a look-back of 25" in found.report
    assert "no intervals: 1 block of 12 windows, fewer than 10" in found.report
    assert "[" not in found.report
    with pytest.raises(ValueError, match="about 151 rows are needed"):
        run(tmp_path / "far", path, date="month", horizons=13, rows=130)


def test_what_is_in_a_file_names_the_folder(tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["series", "--file", str(file), "--horizons", "12", "--models", "last", "ridge", "--quiet"]) == 0
    assert (tmp_path / "results" / "series-made" / "table.csv").exists()


def test_rows_that_share_what_is_kept_are_measured_by_one_process(tmp_path, monkeypatch):
    joblib = pytest.importorskip("joblib")
    settings = [{"group": group, "number": number} for group in "abcc" for number in range(2)]
    settings += [{"group": "a", "number": 2}]  # no neighbour of the others
    asked = []

    def one_process(measure, group):
        asked.append([setting["number"] for setting in group])
        return [measure(setting) for setting in group]

    monkeypatch.setattr(tables, "_with_one_thread", one_process)
    with joblib.parallel_config(backend="threading"):
        rows = list(
            tables._measured(
                lambda setting: setting, settings, 2, lambda one: None if one["group"] == "b" else one["group"]
            )
        )
    assert rows == settings
    assert sorted(asked) == sorted([[0, 1], [0], [1], [0, 1, 0, 1], [2]])


def test_a_missing_folder_says_where_to_get_the_series(tmp_path):
    with pytest.raises(ValueError, match="ETDataset"):
        series.run(tmp_path / "out", progress=False)
    with pytest.raises(FileNotFoundError, match="ETDataset"):
        series.run(tmp_path / "out", data=tmp_path, progress=False)


def test_no_band_is_drawn_where_there_is_no_interval():
    band = [[1.0, 2.0, np.nan, np.nan], [3.0, 4.0, np.nan, np.nan]]
    figure = plotting.curves([[plotting.Panel("", [plotting.Line("ridge", [1, 2, 3, 4], [5.0] * 4, band)])]], xlabel="")
    (drawn,) = [path.vertices for path in figure.axes[0].collections[0].get_paths()]
    assert drawn[:, 0].max() == 2
    assert set(map(tuple, drawn)) == {(1, 4), (1, 8), (2, 3), (2, 9)}
