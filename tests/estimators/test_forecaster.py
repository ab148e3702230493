"""The forecaster: what it stores, what it forecasts, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, Ridge

from sparsehopfield.estimators import HopfieldForecaster
from sparsehopfield.structures import DilatedBlocks, LinearFeatures, RandomFeatures, RandomMask, TopK, Window

HORIZON, WINDOW = 3, 6


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(0)
    return np.cumsum(rng.standard_normal((120, 2)), axis=0)


def plain(train, y, origin, beta, floor, separation):
    """Forecast as the formulas say, in float64, one column and one window at a time."""
    mean, scale = train.mean(0), train.std(0)
    train, y = (train - mean) / scale, (y - mean) / scale

    def key(rows):
        unit = np.sqrt(rows.var() + floor**2)
        return (rows - rows.mean()) / unit / np.sqrt(len(rows)), rows.mean(), unit

    forecast = []
    for column in range(train.shape[1]):
        query, middle, unit = key(y[origin - WINDOW : origin, column])
        scores, followed = [], []
        for end in range(WINDOW, len(train) - HORIZON + 1):
            stored, its_mean, its_unit = key(train[end - WINDOW : end, column])
            scores.append(-((query - stored) ** 2).sum() / 2)
            followed.append((train[end : end + HORIZON, column] - its_mean) / its_unit)
        z = beta * np.array(scores)
        if separation == "softmax":
            p = np.exp(z - z.max())
            p /= p.sum()
        else:
            ordered = np.sort(z)[::-1]
            sums = np.cumsum(ordered)
            k = np.count_nonzero(1 + np.arange(1, len(z) + 1) * ordered > sums)
            p = np.maximum(z - (sums[k - 1] - 1) / k, 0)
        forecast.append(p @ np.array(followed) * unit + middle)
    return np.array(forecast).T * scale + mean


@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
def test_forecasts_are_those_of_the_formulas(series, separation):
    model = HopfieldForecaster(HORIZON, WINDOW, 8.0, separation, floor=0.3).fit(series[:90])
    origins = [60, 90, 120]
    made = model.predict_at(series, origins)
    assert made.shape == (3, HORIZON, 2)
    for one, origin in zip(made, origins, strict=True):
        assert one == pytest.approx(plain(series[:90], series, origin, 8.0, 0.3, separation), rel=1e-4, abs=1e-4)
    assert np.array_equal(model.predict(), model.predict_at(series[:90], [90])[0])
    assert np.array_equal(model.predict(fh=2), model.predict()[:2])


def test_update_is_a_fit_of_more_rows_but_for_the_scale(series):
    model = HopfieldForecaster(HORIZON, WINDOW, 8.0).fit(series[:90])
    for first in range(90, 110, 4):  # some rows at a time, fewer and more than a horizon
        model.update(series[first : first + 4])
    whole = clone(model).fit(series[:90])
    whole.update(series[90:110])
    for one, other in zip(model.memories_, whole.memories_, strict=True):
        assert np.array_equal(one.patterns, other.patterns)
        assert np.array_equal(one.ids, other.ids)
    assert np.array_equal(model.memories_[0].ids, np.arange(WINDOW, 108))
    assert np.array_equal(model.predict(), whole.predict())


def test_a_base_forecasts_and_the_memory_corrects_it(series):
    model = HopfieldForecaster(HORIZON, WINDOW, 1e6, "sparsemax", base=Ridge(1.0), base_window=10).fit(series[:90])
    made = model.predict_at(series, np.arange(10, 88))  # windows that are stored: what followed them comes back
    true = np.stack([series[o : o + HORIZON] for o in range(10, 88)])
    assert made == pytest.approx(true, rel=1e-3, abs=1e-3)
    alone = HopfieldForecaster(HORIZON, WINDOW, 1e-9, base=Ridge(1.0), base_window=10).fit(series[:90])
    assert not np.allclose(alone.predict(), model.predict(), atol=1e-3)


def test_analogues_are_the_windows_with_weight(series):
    dates = pd.date_range("2020-01-01", periods=90, freq="h")
    frame = pd.DataFrame(series[:90], columns=["load", "oil"], index=dates)
    model = HopfieldForecaster(HORIZON, WINDOW, 20.0, "sparsemax").fit(frame)
    for found, memory in zip(model.analogues(top=100), model.memories_, strict=True):
        assert found.weights.sum() == pytest.approx(1)
        assert len(found.ends) == found.support_size < len(memory)
        assert np.all(np.diff(found.weights) <= 0)
        assert list(found.dates) == list(dates[found.ends])
    assert [found.column for found in model.analogues()] == ["load", "oil"]
    size = model.support_size(series[:90], [90])
    assert size.tolist() == [[found.support_size for found in model.analogues()]]


def test_score_is_the_mean_squared_error_in_standard_units(series):
    model = HopfieldForecaster(HORIZON, WINDOW).fit(series[:90])
    origins = np.arange(90, 118)
    true = np.stack([series[o : o + HORIZON] for o in origins])
    wrong = (model.predict_at(series, origins) - true) / series[:90].std(0)
    assert model.score(series, origins) == pytest.approx(-np.mean(wrong**2))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (pd.date_range("2020-01-01", periods=90, freq="h"), None),
        (pd.date_range("2020-01-01", periods=90, freq="MS"), None),
        (pd.date_range("2020-01-31", periods=90, freq="QE"), None),
        (pd.period_range("2020-01", periods=90, freq="M"), None),
        (pd.date_range("2020-01-01", periods=90, freq="D", tz="Europe/Vienna"), None),
        (pd.RangeIndex(5, 185, 2), None),
        (pd.Index(0.1 * np.arange(90)), None),
        (pd.Index([f"row {i}" for i in range(90)]), None),
        (pd.date_range("2020-01-01", periods=91, freq="h").delete(40), "after 2020-01-02 15:00:00 comes 2020-01-02 17"),
        (pd.date_range("2020-01-01", periods=90, freq="h")[::-1], "must ascend with one step, but after"),
        (pd.date_range("2020-01-01", periods=90, freq="B"), "after 2020-01-03 00:00:00 comes 2020-01-06"),
        (pd.date_range("2020-01-01", periods=91, freq="MS").delete(7), "after 2020-07-01 00:00:00 comes 2020-09"),
        (pd.Index([0, *range(89)]), "after 0 comes 0"),
        (pd.Index([np.nan, *range(89)]), "after nan comes 0.0"),
    ],
)
def test_an_index_ascends_with_one_step(series, index, message):
    model, frame = HopfieldForecaster(HORIZON, WINDOW), pd.DataFrame(series[:90], index=index)
    if message is None:
        model.fit(frame[:80]).update(frame[80:])
        assert list(model.analogues()[0].dates) == [index[end] for end in model.analogues()[0].ends]
    else:
        with pytest.raises(ValueError, match=f"y: its index .*{message}"):
            model.fit(frame)


def test_rows_that_are_added_go_on_where_the_series_ended(series):
    frame = pd.Series(series[:90, 0], pd.date_range("2020-01-01", periods=90, freq="h"), name="load")
    model = HopfieldForecaster(HORIZON, WINDOW).fit(frame[:80])
    before = model.predict()
    with pytest.raises(ValueError, match="after 2020-01-04 07:00:00 comes 2020-01-04 09:00:00"):
        model.update(frame[81:])
    assert np.array_equal(model.predict(), before)
    assert model.update(frame[80:80]).analogues()[0].dates is not None
    assert model.update(frame[80:]).analogues()[0].column == "load"


def test_one_column_gives_one_axis(series):
    model = HopfieldForecaster(HORIZON, WINDOW).fit(series[:, 0])
    assert model.predict().shape == (HORIZON,)
    assert model.get_params()["horizon"] == HORIZON
    assert clone(model).fit(series[:, 0], fh=2).predict().shape == (2,)


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({"horizon": 0}, None, "horizon: "),
        ({"window": 1}, None, "window: "),
        ({"floor": 0.0}, None, "floor: "),
        ({"beta": -1.0}, None, "beta: "),
        ({"separation": "sparse"}, None, "separation: "),
        ({"base_window": 1, "base": Ridge()}, None, "base_window: "),
        ({"window": 200}, None, "y: 120 rows are too short"),
        ({}, np.ones((50, 2)), "y: column 0 is constant"),
        ({}, np.full((50, 2), np.nan), "y: contains NaN"),
        ({}, np.ones((5, 5, 5)), "y: must have one axis"),
        ({}, [["a"] * 50], "y: "),
        ({}, np.ones((50, 0)), "y: must have at least one column"),
        ({"base": "ridge"}, None, "base: must be a regressor .* got 'ridge'"),
        ({"base": Ridge}, None, "base: must be a regressor"),
        ({"base": GradientBoostingRegressor()}, None, "base: .*1d array"),
        ({"base": FrozenEstimator(Ridge().fit(np.eye(6), np.eye(6)))}, None, "base: must forecast 3 rows a window"),
        ({"structure": Window(2)}, None, "structure: must be TopK"),
        ({"structure": Window(2, positions=[0])}, None, "structure: must be TopK"),
        ({"structure": DilatedBlocks(4)}, None, "structure: must be TopK"),
        ({"structure": TopK(1000)}, None, "structure: .* must be at most the 112 patterns"),
        ({"structure": LinearFeatures()}, None, "structure: LinearFeatures.* does not go with these forecasts"),
        (
            {"structure": RandomFeatures(8), "separation": "sparsemax"},
            None,
            "structure: RandomFeatures.* does not go with these forecasts .*separation='softmax'",
        ),
    ],
)
def test_bad_settings_and_series_are_named(series, options, y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        HopfieldForecaster(**{"horizon": HORIZON, "window": WINDOW, **options}).fit(series if y is None else y)


def test_bad_calls_are_named_and_change_nothing(series):
    model = HopfieldForecaster(HORIZON, WINDOW).fit(series)
    before = model.predict()
    for call in (model.fit, model.update):
        with pytest.raises(ValueError, match=r"X: exogenous columns .* give those of X as columns of y"):
            call(series, series)
    with pytest.raises(ValueError, match="X: exogenous"):
        model.predict(X=series)
    with pytest.raises(ValueError, match="fh: "):
        model.predict(HORIZON + 1)
    with pytest.raises(ValueError, match="origins: "):
        model.predict_at(series, [WINDOW - 1])
    with pytest.raises(ValueError, match="origins: "):
        model.predict_at(series, [len(series) + 1])
    with pytest.raises(ValueError, match="y: must have 2 columns"):
        model.update(series[:, :1])
    with pytest.raises(ValueError, match="y: contains NaN"):
        model.update(series[:3] * np.nan)
    assert np.array_equal(model.predict(), before)


def test_a_failed_fit_or_update_changes_nothing(series):
    model = HopfieldForecaster(HORIZON, WINDOW).fit(series[:90])
    before = model.predict()
    with pytest.raises(ValueError, match="beta: "):
        model.set_params(horizon=6, beta=-1.0).fit(series)
    with pytest.raises(ValueError, match="y: has numbers too large"):
        model.update([[1.0, 1e200]])
    assert np.array_equal(model.predict(), before)
    assert [len(memory) for memory in model.memories_] == [90 - HORIZON - WINDOW + 1] * 2
    whole = HopfieldForecaster(HORIZON, WINDOW).fit(series[:90]).update(series[90:])
    assert np.array_equal(model.update(series[90:]).predict(), whole.predict())


def test_settings_count_when_fitted(series):
    model = HopfieldForecaster(HORIZON, WINDOW).fit(series)
    before = model.predict()
    model.set_params(window=50, floor=3.0, horizon=9, base_window=4)
    assert np.array_equal(model.predict(), before)


def test_faults_of_scores_are_named(series):
    model = HopfieldForecaster(HORIZON, WINDOW).fit(series)
    for origins in ([len(series) - HORIZON + 1], [WINDOW - 1], []):
        with pytest.raises(ValueError, match="origins: must be rows from 6 to 117"):
            model.score(series, origins)
    with pytest.raises(ValueError, match="y: 2 rows are too short a series: 9 are needed"):
        model.score(series[:2])
    with pytest.raises(ValueError, match="sample_weight: "):
        model.score(series, sample_weight=np.ones(3))
    assert model.score(series, 50) <= 0


@pytest.mark.parametrize("number", [0.1, 1e300])
def test_columns_without_a_deviation_are_refused(number):
    with pytest.raises(ValueError, match=r"y: (column 0 is constant|has columns whose mean)"):
        HopfieldForecaster(HORIZON, WINDOW).fit(np.where(number > 1, [[number], [-number]] * 25, number))


@pytest.mark.parametrize("structure", [TopK(5), RandomMask(5, seed=0), RandomFeatures(8, seed=0)])
def test_structures_of_any_query_go_with_forecasts(series, structure):
    model = HopfieldForecaster(HORIZON, WINDOW, structure=structure).fit(series)
    assert np.isfinite(model.predict()).all()


def test_columns_of_frames_are_those_of_fit(series):
    frame = pd.DataFrame(series, columns=["load", "oil"])
    model = HopfieldForecaster(HORIZON, WINDOW).fit(frame[:90])
    before = model.predict()
    swapped = frame[["oil", "load"]]
    calls = (model.update, model.score, model.analogues, lambda y: model.predict_at(y, [90]))
    for call in (*calls, lambda y: model.support_size(y, [90])):
        with pytest.raises(
            ValueError, match=r"y: its columns must be those of fit.*\['load', 'oil'\].*\['oil', 'load'\]"
        ):
            call(swapped)
    assert np.array_equal(model.predict(), before)
    assert model.score(frame) == model.score(series) == model.score(pd.DataFrame(series))
    with pytest.raises(ValueError, match="y: its columns"):
        clone(model).fit(frame["load"]).predict_at(frame["oil"], [90])


def test_an_index_ascends_wherever_a_series_is_given(series):
    frame = pd.DataFrame(series, pd.date_range("2020-01-01", periods=120, freq="h"))
    model = HopfieldForecaster(HORIZON, WINDOW).fit(frame[:90])
    calls = (model.update, model.score, model.analogues, lambda y: model.predict_at(y, [90]))
    for call in (*calls, lambda y: model.support_size(y, [90])):
        for wrong in (frame[::-1], frame.drop(frame.index[100])):
            with pytest.raises(ValueError, match="y: its index must ascend with one step"):
                call(wrong)
    assert model.score(frame) == model.score(series)


@pytest.mark.parametrize(
    ("fitted", "added"),
    [
        (pd.date_range("2020-01-01", periods=90, freq="h"), pd.RangeIndex(30)),
        (pd.RangeIndex(90), pd.date_range("2020-01-01", periods=30, freq="h")),
        (
            pd.date_range("2020-01-01", periods=90, freq="h"),
            pd.date_range("2020-01-04 18:00", periods=30, freq="h", tz="UTC"),
        ),
        (pd.period_range("2020-01", periods=90, freq="M"), pd.period_range("2027-07-01", periods=30, freq="D")),
        (pd.RangeIndex(90), pd.Index([f"row {i}" for i in range(30)])),
    ],
)
def test_rows_with_an_index_of_another_kind_are_refused(series, fitted, added):
    model = HopfieldForecaster(HORIZON, WINDOW).fit(pd.DataFrame(series[:90], fitted))
    with pytest.raises(ValueError, match="y: its index must go on as in fit, with "):
        model.update(pd.DataFrame(series[90:], added))
    assert len(model.history_) == len(model._index) == 90


def test_the_score_leaves_fitted_rows_out(series):
    model = HopfieldForecaster(HORIZON, WINDOW, 1e5).fit(series[:90])
    behind = np.arange(90, 118)
    assert model.score(series) == model.score(series, behind) < -0.01
    assert model.score(series, np.arange(WINDOW, 88)) > -1e-6  # stored windows find themselves
    for rows in (series[:90], series[:92], series[:50]):
        with pytest.raises(ValueError, match="y: no horizon of 3 rows lies behind the 90 that were fitted"):
            model.score(rows)
    assert model.score(series[90:]) < -0.01  # another series has all its windows


def test_a_base_for_one_target_goes_with_a_horizon_of_one(series, recwarn):
    model = HopfieldForecaster(1, WINDOW, 1e-9, base=LinearRegression()).fit(series[:90])
    model.set_params(base=GradientBoostingRegressor(n_estimators=5)).fit(series[:90])
    assert model.predict().shape == (1, 2)
    model.set_params(base=DummyRegressor()).fit(series[:90])
    windows = np.stack([series[o] - series[o - 1] for o in range(WINDOW, 90)]) / series[:90].std(0)
    expected = series[89] + windows.mean() * series[:90].std(0)  # and what it leaves, of mean 0 in plain units
    leaves = model.memories_[0].values
    assert leaves.shape == (90 - WINDOW, 1)
    assert model._expected(((series - model.mean_) / model.scale_)[:, 0], np.array([90]), None, model.base_) == (
        pytest.approx((expected[0] - model.mean_[0]) / model.scale_[0])
    )
    assert not [one for one in recwarn if "column-vector" in str(one.message)]
