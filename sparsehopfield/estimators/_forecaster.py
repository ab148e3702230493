"""A forecaster without training: what followed the windows of the past that are most like the last one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import (
    Array,
    as_integers,
    as_number,
    as_numbers,
    as_one_beta,
    as_whole,
    ignoring_float_errors,
)
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield._engine.text import short
from sparsehopfield.data.series import months_apart
from sparsehopfield.estimators._base import refuse_signed_weights, restores
from sparsehopfield.inspect.paths import one_step
from sparsehopfield.memory import HopfieldMemory

__all__ = ["Analogues", "HopfieldForecaster"]


def _names_of(y: Any) -> list[Any] | None:
    """Return the columns' names of a data frame or a series; None of anything else, and where they are but numbered."""
    if hasattr(y, "columns"):
        names = list(y.columns)
        return None if names == list(range(len(names))) else names
    name = getattr(y, "name", None) if hasattr(y, "iloc") else None
    return None if name is None else [name]


def _kind_of(index: Any) -> str:
    """Return what an index of pandas has: dates, periods or durations, numbers, or labels."""
    kinds = {"DatetimeIndex": "dates", "PeriodIndex": "periods", "TimedeltaIndex": "durations"}
    return kinds.get(type(index).__name__, "numbers" if getattr(index.dtype, "kind", "O") in "iuf" else "labels")


@contextmanager
def _naming_base() -> Iterator[None]:
    """Put the name of the argument into errors that a base raises."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"base: {short(str(error), quote=False)}") from error


@dataclass(frozen=True, eq=False)
class Analogues:
    """The windows of the past that a forecast of one column is a mixture of.

    Attributes
    ----------
    column : int or str
        The column, by its name where the series was a data frame.
    ends : ndarray of int64, shape (k,)
        The row behind each window: what follows it begins there. The heaviest window first.
    dates : ndarray, shape (k,), or None
        The index of the series at these rows, where it had one.
    weights : ndarray of float64, shape (k,)
        Their weights.
    support_size : int
        How many windows have weight in all; those that are named may be fewer.

    See Also
    --------
    HopfieldForecaster.analogues : Find them.
    HopfieldForecaster.support_size : Count them for many forecasts.

    Examples
    --------
    >>> rows = np.sin(np.arange(60) * np.pi / 6)  # a period of 12
    >>> model = HopfieldForecaster(horizon=6, window=12, beta=20.0, separation="sparsemax").fit(rows)
    >>> (found,) = model.analogues(top=3)
    >>> found.ends, found.weights.round(3)
    (array([48, 36, 24]), array([0.25, 0.25, 0.25]))
    """

    column: Any
    ends: NDArray[np.int64]
    dates: Any
    weights: NDArray[np.float64]
    support_size: int


class HopfieldForecaster(RegressorMixin, BaseEstimator):
    """Forecaster by analogues: a mixture of what followed the most similar windows of the past.

    Every column is stored on its own: its keys are all windows, each less its mean and divided by
    sqrt(variance + floor^2) and by sqrt(window), its values what followed them, in the same units. A forecast is one
    update of the last window by euclidean similarity. With softmax this is the regression of Nadaraya and Watson on
    windows; with sparsemax most windows have weight 0, and those that have some can be looked at (`analogues`).

    Parameters
    ----------
    horizon : int, at least 1
        How many rows to forecast.
    window : int, at least 2
        How many rows a window has.
    beta : float, positive
        Inverse temperature. Keys have about length 1, so it does not depend on the window.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        How scores become weights: softmax gives every window some, sparse maps give most none.
    floor : float, positive
        Windows are divided by sqrt(variance + floor^2), so that the noise behind nearly constant ones is not blown up.
        In units of the standardised columns.
    base : estimator, optional
        A regressor of scikit-learn for several targets, such as `Ridge()`: it is fitted to forecast from the last
        `base_window` rows less the last of them, all columns together, and the memory forecasts what it leaves of the
        rows that it was fitted to. So it must not fit these much closer than new rows, as linear models with many more
        rows than `base_window` do not: a full-grown tree leaves nothing, and the memory corrects nothing. A base that
        was fitted to other rows may be given as a `FrozenEstimator`.
    base_window : int, at least 2, optional
        How many rows `base` sees; by default `window`.
    structure : Structure, optional
        The windows that a window attends to, as `TopK(20)`; all by default.

    Attributes
    ----------
    horizon_ : int
        Rows that are forecast.
    memories_ : list of HopfieldMemory
        One a column.
    base_ : estimator or None
        The fitted regressor.
    mean_, scale_ : ndarray, shape (c,)
        By which columns are standardised.
    history_ : ndarray, shape (T, c)
        The rows of the series so far.
    n_features_in_ : int
        The number of columns.

    See Also
    --------
    HopfieldRegressor : Predict from features that you make.
    Analogues : The windows that a forecast is a mixture of.
    sparsehopfield.data.series : Read series, and make some.

    References
    ----------
    Hu et al. 2023, "On sparse modern Hopfield model"; the method of analogues is Lorenz's, 1969.

    Examples
    --------
    >>> import numpy as np
    >>> hours = np.arange(24 * 60)
    >>> load = np.sin(hours * np.pi / 12) + 0.5 * (hours // 24 % 7 < 5)
    >>> model = HopfieldForecaster(horizon=24, window=168, beta=20.0, separation="sparsemax").fit(load[:-24])
    >>> float(np.abs(model.predict() - load[-24:]).max().round(3))
    0.0
    >>> model.analogues(top=8)[0].ends % 168  # they ended at the same hour of the same day of the week
    array([72, 72, 72, 72, 72, 72, 72])
    """

    def __init__(
        self,
        horizon: int = 24,
        window: int = 96,
        beta: float = 15.0,
        separation: Separation = "softmax",
        floor: float = 0.2,
        base: Any = None,
        base_window: int | None = None,
        structure: Structure | None = None,
    ) -> None:
        self.horizon = horizon
        self.window = window
        self.beta = beta
        self.separation = separation
        self.floor = floor
        self.base = base
        self.base_window = base_window
        self.structure = structure

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_settings(self, fh: Any) -> None:
        """Keep the lengths and the floor that this fit goes by, checked."""
        horizon = as_whole("horizon", self.horizon, 1)
        self.horizon_ = horizon if fh is None else as_whole("fh", fh, 1)
        self._window = as_whole("window", self.window, 2)
        own = self._window if self.base_window is None else as_whole("base_window", self.base_window, 2)
        self._base_window = self._window if self.base is None else own
        self._longest = max(self._window, self._base_window)
        self._floor = as_number("floor", self.floor, least=0.0)
        if self._floor == 0:
            raise ValueError("floor: must be positive, got 0")

    def _as_fitted(self, y: Any) -> Array:
        """Return a series with the columns of the fitted one as an array (T, c) of float64; its index ascends, too."""
        index = self._index_of(y)
        if index is not None:
            self._check_index(index)
        names, fitted = _names_of(y), self._frame_names
        if names is not None and fitted is not None and names != fitted:
            raise ValueError(f"y: its columns must be those of fit, in this order: {short(fitted)}, got {short(names)}")
        return self._as_series("y", y, self.n_features_in_)

    @staticmethod
    def _as_series(name: str, y: Any, columns: int | None = None) -> Array:
        """Return a series as an array (T, c) of float64."""
        rows = np.asarray(as_numbers(name, y), np.float64)
        rows = rows[:, None] if rows.ndim == 1 else rows
        if rows.ndim != 2:
            raise ValueError(f"{name}: must have one axis of times, or axes of times and columns, got {rows.ndim} axes")
        if rows.shape[1] == 0:
            raise ValueError(f"{name}: must have at least one column, got none")
        if columns is not None and rows.shape[1] != columns:
            raise ValueError(f"{name}: must have {columns} columns, as in fit, got {rows.shape[1]}")
        if not np.isfinite(rows).all():
            raise ValueError(f"{name}: contains NaN or infinity; fill gaps in first")
        return rows

    def _check_structure(self, keys: Array) -> None:
        """Raise for a structure by which a new window cannot ask the stored ones, whose keys these are."""
        structure = as_structure(self.structure)
        if structure is None:
            return
        if structure.by_place:
            raise ValueError(
                "structure: must be TopK, RandomMask or RandomFeatures, or None: a new window has no place among the "
                f"stored ones, got {short(structure)}"
            )
        try:
            options: dict[str, Any] = {"similarity": "euclidean", "separation": self.separation, "structure": structure}
            HopfieldMemory(keys, **options).update(keys[:1])
        except ValueError as error:
            raise ValueError(f"structure: {short(structure)} does not go with these forecasts ({error})") from None

    @staticmethod
    def _refuse_exogenous(X: Any) -> None:
        """Raise if there are exogenous columns."""
        if X is not None:
            raise ValueError(
                "X: exogenous columns are not supported; a forecast is made of the series alone. All columns of y are "
                "forecast: give those of X as columns of y, or leave them out"
            )

    @staticmethod
    def _index_of(y: Any) -> Any:
        """Return the index of a data frame or a series of pandas; None of anything else."""
        return getattr(y, "index", None) if hasattr(y, "iloc") else None

    @staticmethod
    def _check_index(index: Any) -> None:
        """Raise unless times or numbers ascend with one step, or one of calendar months; other labels are not asked."""
        values = getattr(index, "asi8", None)  # of dates, periods and durations
        if values is None:
            values = index.to_numpy()
            if values.dtype.kind not in "iuf":
                return
        steps = np.diff(values)
        if len(steps) == 0:
            return
        usual = np.median(steps)
        wrong = np.flatnonzero(~np.isclose(steps, usual, rtol=1e-9, atol=0) | ~(steps > 0))
        if len(wrong) == 0:
            return
        if hasattr(index, "tz_localize"):  # days and months may be those of a clock that is put on and back
            clock = index.tz_localize(None).to_numpy().astype("datetime64[s]")
            apart = np.diff(clock)
            if months_apart(clock) or (apart[0] > np.timedelta64(0, "s") and np.all(apart == apart[0])):
                return
        back = np.flatnonzero(~(steps > 0))
        i = int(back[0] if len(back) else np.argmax(np.abs(steps - usual)))  # months differ, but a gap differs more
        raise ValueError(
            f"y: its index must ascend with one step, but after {index[i]} comes {index[i + 1]}; sort the rows, fill "
            "gaps in first, or pass a frame without this index (y.reset_index(drop=True))"
        )

    # --- fitting ------------------------------------------------------------------------------------------------------

    @restores
    @ignoring_float_errors()
    def fit(self, y: Any, X: None = None, fh: int | None = None) -> Self:
        """Store all windows of a series that are followed by a whole horizon.

        Parameters
        ----------
        y : array_like of shape (T,) or (T, c), or a data frame
            The series, with equal steps, the earliest row first. The index of a data frame or a series of pandas must
            ascend with one step where it has times or numbers (calendar months count as one); `analogues` names it.
        X : None
            Exogenous columns, which are refused.
        fh : int, optional
            How many rows to forecast, in place of `horizon`. In sktime a number is that one step alone.

        Returns
        -------
        HopfieldForecaster
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault: NaN, a constant column, a series that is too short, an index with gaps. The
            estimator is then as it was.

        See Also
        --------
        update : Append rows later, without storing all again.
        predict : Forecast what follows.

        Examples
        --------
        >>> import numpy as np
        >>> rows = np.sin(np.arange(60) * np.pi / 6)
        >>> model = HopfieldForecaster(horizon=6, window=12).fit(rows)
        >>> len(model.memories_[0])  # windows of 12 rows that 6 rows follow, but for the first
        43
        """
        self._refuse_exogenous(X)
        self._check_settings(fh)
        horizon, longest, beta = self.horizon_, self._longest, as_one_beta(self.beta)
        refuse_signed_weights(self.separation)
        rows, index = self._as_series("y", y), self._index_of(y)
        if index is not None:
            self._check_index(index)
        if len(rows) < longest + horizon + 1:
            raise ValueError(
                f"y: {len(rows)} rows are too short a series: {longest + horizon + 1} are needed, for two windows of "
                f"{longest} that are followed by {horizon}"
            )
        constant = np.flatnonzero(np.ptp(rows, axis=0) == 0)
        if len(constant):
            raise ValueError(f"y: column {constant[0]} is constant; leave it out")
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        if not (np.isfinite(mean) & np.isfinite(scale) & (scale > 0)).all():
            raise ValueError("y: has columns whose mean or deviation leaves the range of float64; scale them first")
        standard = (rows - mean) / scale
        origins = np.arange(longest, len(rows) - horizon + 1)
        base = self._fitted_base(standard, origins)
        memories = []
        for column in range(rows.shape[1]):
            keys, values = self._pairs(standard[:, column], origins, base)
            if column == 0:
                self._check_structure(keys)
            memories.append(
                HopfieldMemory(
                    keys,
                    beta,
                    values=values,
                    similarity="euclidean",
                    separation=self.separation,
                    structure=self.structure,
                    ids=origins,
                )
            )
        self.mean_, self.scale_, self.base_, self.memories_ = mean, scale, base, memories
        self.history_, self.n_features_in_ = rows.copy(), rows.shape[1]
        self._frame_names = _names_of(y)
        self._names = list(getattr(y, "columns", self._frame_names or range(rows.shape[1])))
        self._index = index
        return self

    def _fitted_base(self, standard: Array, origins: NDArray[np.int64]) -> Any:
        """Return the base, fitted to the windows of all columns together; None if there is none."""
        if self.base is None:
            return None
        windows, targets = [], []
        for column in standard.T:
            rows = self._base_windows(column, origins)
            windows.append(rows - rows[:, -1:])
            targets.append(sliding_window_view(column, self.horizon_)[origins] - rows[:, -1:])
        if isinstance(self.base, type) or not all(hasattr(self.base, name) for name in ("fit", "predict")):
            raise TypeError(
                f"base: must be a regressor of scikit-learn, as Ridge(), with fit and predict, got {short(self.base)}"
            )
        followed = np.concatenate(targets)
        with _naming_base():
            return clone(self.base).fit(np.concatenate(windows), followed[:, 0] if self.horizon_ == 1 else followed)

    def _base_windows(self, column: Array, origins: NDArray[np.int64]) -> Array:
        """Return the windows that the base sees, (n, base_window), which end before these rows."""
        return sliding_window_view(column, self._base_window)[origins - self._base_window]

    def _key(self, column: Array, origins: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Return the keys (n, window) of the windows that end before these rows, their means and their units (n, 1)."""
        rows = sliding_window_view(column, self._window)[origins - self._window]
        mean = rows.mean(axis=1, keepdims=True)
        unit = np.sqrt(rows.var(axis=1, keepdims=True) + self._floor**2)
        return (rows - mean) / (unit * np.sqrt(self._window)), mean, unit

    def _expected(self, column: Array, origins: NDArray[np.int64], mean: Array, base: Any) -> Array:
        """Return what is forecast without the memory, (n, horizon) or (n, 1): the base's forecast, or the mean."""
        if base is None:
            return mean
        rows = self._base_windows(column, origins)
        with _naming_base():
            forecast = np.asarray(base.predict(rows - rows[:, -1:]), np.float64)
        forecast = forecast[:, None] if forecast.ndim == self.horizon_ == 1 else forecast
        if forecast.shape != (wanted := (len(rows), self.horizon_)):
            raise ValueError(f"base: must forecast {self.horizon_} rows a window, {wanted}, got {forecast.shape}")
        return forecast + rows[:, -1:]

    def _pairs(self, column: Array, origins: NDArray[np.int64], base: Any) -> tuple[Array, Array]:
        """Return the keys of windows and, as values, what followed beyond what is expected, in the windows' units."""
        keys, mean, unit = self._key(column, origins)
        followed = sliding_window_view(column, self.horizon_)[origins]
        values = (followed - self._expected(column, origins, mean, base)) / unit
        keys, values = keys.astype(np.float32), values.astype(np.float32)
        if not (np.isfinite(keys).all() and np.isfinite(values).all()):
            raise ValueError("y: has numbers too large for float32 in the units of the columns")
        return keys, values

    @ignoring_float_errors()
    def update(self, y: Any, X: None = None) -> Self:
        """Append rows to the series, and store the windows that are now followed by a whole horizon.

        Parameters
        ----------
        y : array_like of shape (n,) or (n, c), or a data frame
            The rows that follow those so far; their index must go on with the same step. The means and scales, and the
            base, stay as `fit` made them. If these rows have no index, `analogues` names no dates from then on.
        X : None
            Exogenous columns, which are refused.

        Returns
        -------
        HopfieldForecaster
            This estimator.

        Raises
        ------
        ValueError, TypeError, MemoryError
            Naming the argument at fault. Nothing has changed then.

        See Also
        --------
        fit : Store a series anew.

        Examples
        --------
        >>> import numpy as np
        >>> rows = np.sin(np.arange(300.0))
        >>> model = HopfieldForecaster(horizon=3, window=20).fit(rows[:200]).update(rows[200:])
        >>> int(model.memories_[0].ids.max())  # the last window that three rows follow ended before row 297
        297
        """
        check_is_fitted(self)
        self._refuse_exogenous(X)
        rows = self._as_fitted(y)
        index = None if self._index is None else self._index_of(y)
        if index is not None and len(index):
            own, index = index, self._index.append(index)
            if not _kind_of(self._index) == _kind_of(own) == _kind_of(index):  # dates with a zone and without mix, too
                raise ValueError(
                    f"y: its index must go on as in fit, with {_kind_of(self._index)} of {self._index.dtype}, got "
                    f"{_kind_of(own)} of {own.dtype}"
                )
            self._check_index(index)
        elif not len(rows):
            index = self._index
        history = np.concatenate([self.history_, rows])
        origins = np.arange(len(self.history_) - self.horizon_ + 1, len(history) - self.horizon_ + 1)
        standard = (history - self.mean_) / self.scale_
        pairs = [self._pairs(column, origins, self.base_) for column in standard.T] if len(origins) else []
        grown: list[HopfieldMemory] = []
        try:
            for memory, (keys, values) in zip(self.memories_, pairs, strict=False):
                memory.add(keys, values, ids=origins)
                grown.append(memory)
        except BaseException:  # there is no memory for all, or somebody interrupts
            for memory in grown:
                memory.remove(slice(len(memory) - len(origins), None))
            raise
        self.history_, self._index = history, index
        return self

    # --- forecasts ----------------------------------------------------------------------------------------------------

    def predict(self, fh: int | None = None, X: None = None) -> Array:
        """Forecast the rows that follow the series.

        Parameters
        ----------
        fh : int, optional
            How many of the rows, at most `horizon`; all by default.
        X : None
            Exogenous columns, which are refused.

        Returns
        -------
        ndarray of float64, shape (fh, c)
            Of shape (fh,) where the series has one column.

        See Also
        --------
        predict_at : Forecast from other times and of other series.
        analogues : See what the forecast is made of.

        Examples
        --------
        >>> import numpy as np
        >>> rows = np.sin(np.arange(60) * np.pi / 6)
        >>> model = HopfieldForecaster(horizon=6, window=12, beta=20.0, separation="sparsemax").fit(rows)
        >>> model.predict(fh=3).round(2) + 0.0
        array([0.  , 0.5 , 0.87])
        """
        check_is_fitted(self)
        self._refuse_exogenous(X)
        steps = self.horizon_ if fh is None else as_whole("fh", fh, 1, self.horizon_)
        forecast = self.predict_at(self.history_, [len(self.history_)])[0, :steps]
        return forecast[:, 0] if self.n_features_in_ == 1 else forecast

    @ignoring_float_errors()
    def predict_at(self, y: Any, origins: ArrayLike) -> Array:
        """Forecast from many times of a series, from what lies before each.

        Parameters
        ----------
        y : array_like of shape (T,) or (T, c)
            A series with the columns of the fitted one; often the same one with rows behind it.
        origins : array_like of int, shape (n,)
            The first row that is forecast, each from the rows before it; T for the rows behind the series.

        Returns
        -------
        ndarray of float64, shape (n, horizon, c)
            The forecasts: for each time `horizon` rows of all columns.

        See Also
        --------
        predict : Forecast what follows the fitted series.
        score : Measure forecasts from many times.

        Notes
        -----
        Windows of rows that were fitted are stored, and find themselves and what followed them, the more so the larger
        beta is: only forecasts of rows behind the fitted ones say how good the forecaster is.

        Examples
        --------
        >>> import numpy as np
        >>> rows = np.sin(np.arange(72) * np.pi / 6)
        >>> model = HopfieldForecaster(horizon=3, window=12, beta=20.0, separation="sparsemax").fit(rows[:60])
        >>> forecast = model.predict_at(rows, [61, 69])
        >>> forecast.shape, forecast[0, :, 0].round(2), rows[61:64].round(2)
        ((2, 3, 1), array([0.5 , 0.87, 1.  ]), array([0.5 , 0.87, 1.  ]))
        """
        standard, where = self._standardised(y, origins)
        forecast = np.empty((len(where), self.horizon_, self.n_features_in_))
        for number, column in enumerate(standard.T):
            keys, mean, unit = self._key(column, where)
            mixed = self.memories_[number].update(keys.astype(np.float32))
            forecast[:, :, number] = mixed * unit + self._expected(column, where, mean, self.base_)
        return forecast * self.scale_ + self.mean_

    def _standardised(self, y: Any, origins: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
        """Return a standardised series and origins that it has windows for, checked."""
        check_is_fitted(self)
        rows = self._as_fitted(y)
        where = np.atleast_1d(as_integers("origins", origins))
        if where.ndim != 1 or (len(where) and (where.min() < self._longest or where.max() > len(rows))):
            raise ValueError(f"origins: must be rows from {self._longest}, the length of a window, to {len(rows)}")
        return (rows - self.mean_) / self.scale_, where

    @ignoring_float_errors()
    def analogues(self, y: Any = None, origin: int | None = None, *, top: int = 5) -> list[Analogues]:
        """Return the windows of the past that a forecast is made of.

        Parameters
        ----------
        y : array_like of shape (T,) or (T, c), optional
            A series, as in `predict_at`; the fitted one by default.
        origin : int, optional
            The first row that is forecast; by default the one behind the series.
        top : int, at least 1
            How many windows to name.

        Returns
        -------
        list of Analogues
            One a column.

        See Also
        --------
        Analogues : What is returned for each column.
        support_size : Count them for many forecasts.

        Examples
        --------
        >>> import numpy as np
        >>> rows = np.sin(np.arange(60) * np.pi / 6)
        >>> model = HopfieldForecaster(horizon=6, window=12, beta=20.0, separation="sparsemax").fit(rows)
        >>> (found,) = model.analogues(top=2)
        >>> found.ends % 12, found.support_size  # each ended where the last window ends in its period
        (array([0, 0]), 4)
        """
        check_is_fitted(self)
        top = as_whole("top", top, 1)
        rows = self.history_ if y is None else self._as_fitted(y)
        standard, where = self._standardised(rows, [len(rows) if origin is None else origin])
        found = []
        for number, column in enumerate(standard.T):
            why = self.memories_[number].explain(self._key(column, where)[0][0].astype(np.float32), top=top)
            dates = None if self._index is None else self._index[why.ids]
            weights = np.asarray(why.weights, np.float64)
            found.append(Analogues(self._names[number], why.ids, dates, weights, why.support_size))
        return found

    def support_size(self, y: Any, origins: ArrayLike) -> NDArray[np.int64]:
        """Count the windows that forecasts are mixtures of.

        Parameters
        ----------
        y : array_like of shape (T,) or (T, c)
            A series, as in `predict_at`.
        origins : array_like of int, shape (n,)
            The first row that is forecast, each from the rows before it; T for the rows behind the series.

        Returns
        -------
        ndarray of int64, shape (n, c)
            How many windows have weight.

        See Also
        --------
        analogues : Name the windows of one forecast.

        Examples
        --------
        >>> import numpy as np
        >>> rows = np.sin(np.arange(60) * np.pi / 6)
        >>> model = HopfieldForecaster(horizon=6, window=12, beta=20.0, separation="sparsemax").fit(rows)
        >>> model.support_size(rows, [60])  # of 43 windows
        array([[4]])
        """
        standard, where = self._standardised(y, origins)
        size = np.empty((len(where), self.n_features_in_), np.int64)
        for number, column in enumerate(standard.T):
            keys = self._key(column, where)[0].astype(np.float32)
            size[:, number] = one_step(self.memories_[number], keys).support_size
        return size

    def score(self, y: Any, origins: ArrayLike | None = None, sample_weight: None = None) -> float:
        """Return the negative mean squared error of all forecasts in a series, in standardised units.

        Parameters
        ----------
        y : array_like of shape (T,) or (T, c)
            A series, as in `predict_at`. It may begin with the fitted rows, or hold none of them.
        origins : array_like of int, optional
            As in `predict_at`; by default all rows that have a window before them and a horizon behind, but none of the
            fitted rows where the series begins with these: their windows are stored and would find themselves.
        sample_weight : None
            Not supported.

        Returns
        -------
        float
            The larger, the better.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault: a series that is too short, or ends where the fitted rows end.

        See Also
        --------
        predict_at : Compute the forecasts that are scored.

        Examples
        --------
        >>> import numpy as np
        >>> rows = np.sin(np.arange(84) * np.pi / 6)
        >>> model = HopfieldForecaster(horizon=6, window=12, beta=20.0, separation="sparsemax").fit(rows[:60])
        >>> abs(round(model.score(rows), 6))  # on the 24 rows that were not fitted
        0.0
        """
        check_is_fitted(self)
        if sample_weight is not None:
            raise ValueError("sample_weight: is not supported")
        rows, fitted = self._as_fitted(y), len(self.history_)
        first, last = self._longest, len(rows) - self.horizon_
        if last < first:
            raise ValueError(
                f"y: {len(rows)} rows are too short a series: {first + self.horizon_} are needed, for a window of "
                f"{first} that is followed by {self.horizon_}"
            )
        if origins is None and np.array_equal(rows[:fitted], self.history_[: len(rows)]):  # its windows are stored
            first = fitted
            if last < first:
                raise ValueError(
                    f"y: no horizon of {self.horizon_} rows lies behind the {fitted} that were fitted, whose windows "
                    "are stored and would find themselves; give more rows, or origins"
                )
        where = np.arange(first, last + 1) if origins is None else np.atleast_1d(as_integers("origins", origins))
        if len(where) == 0 or where.min() < first or where.max() > last:
            raise ValueError(f"origins: must be rows from {first} to {last}, which a whole horizon follows")
        true = sliding_window_view(rows, self.horizon_, axis=0)[where].transpose(0, 2, 1)
        return -float(np.mean(((self.predict_at(rows, where) - true) / self.scale_) ** 2))
