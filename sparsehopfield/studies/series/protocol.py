"""The protocol of the study of time series: parts, models, errors over all windows, and their intervals.

Errors are those of standardised columns, by the mean and deviation of the part to train with, over every window of
the part to test with: no batch is dropped. Windows to validate and test with reach back over the border of their
part, as is usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sparsehopfield._engine.optional import require
from sparsehopfield.studies.series.task import LOOK_BACK, Floats, Source, Task, task_of

if TYPE_CHECKING:
    from sparsehopfield.estimators import HopfieldForecaster

#: Models without maps; the last of them are trained.
PLAIN = ("last", "seasonal", "mean day", "ridge", "dlinear", "nlinear")
#: Models with a separation map; the last is trained.
MAPPED = ("memory", "blend", "residuals", "network")  # the first two share memories, which are kept in this order
MODELS = PLAIN + MAPPED
TRAINED = ("dlinear", "nlinear", "network")
MAPS = ("softmax", "sparsemax", "entmax15")

METRICS = ("mse", "mae", "support", "against ridge", "least", "most")

#: Rows of a window of the memory; ridge sees LOOK_BACK.
WINDOW = 96
#: What is chosen by validation: ridge's penalty, and the memory's floor and beta.
PENALTIES = (10.0, 100.0, 1000.0)
FLOORS = (0.1, 0.2, 0.3)
BETAS = {"softmax": (6.0, 10.0, 15.0, 28.0), "sparsemax": (0.01, 0.03, 0.1, 0.2), "entmax15": (0.2, 0.5, 1.0, 2.0)}
#: Validation looks at every sixth window.
STRIDE = 6
#: Draws of the bootstrap, of blocks of a week.
DRAWS = 1000


# --- forecasts without training -------------------------------------------------------------------------------------


def naive(task: Task, model: str, origins: NDArray[np.int64]) -> Floats:
    """Forecast by repetition, (n, horizon, c): of the last row, of the last day, or of the mean of the last 14 days."""
    period = 1 if model == "last" else task.day
    days = min(14, LOOK_BACK // period) if model == "mean day" else 1
    back = sliding_window_view(task.values, days * period, axis=0)[origins - days * period]
    day = back.reshape(*back.shape[:2], days, period).mean(axis=2)
    repeated: Floats = np.take(day, np.arange(task.horizon) % period, axis=2).transpose(0, 2, 1)
    return repeated


@lru_cache(maxsize=2)
def ridge_of(source: Source, horizon: int) -> Any:
    """Fit ridge regression from the last `LOOK_BACK` rows, less the last, to those that follow; penalty by validation.

    Returns
    -------
    Ridge
        Of windows less their last rows, for all columns.
    """
    linear = require("sklearn.linear_model", purpose="ridge regression", extra="studies")
    task = task_of(source, horizon)
    windows, targets = _windows(task, task.origins("train"))
    checked = task.origins("validation")[::STRIDE]
    truth = task.truth(checked)
    found = []
    for penalty in PENALTIES:
        model = linear.Ridge(penalty, solver="cholesky").fit(windows, targets)
        found.append((float(np.mean((by_ridge(model, task, checked) - truth) ** 2)), penalty, model))
    return min(found, key=lambda one: one[0])[2]


def _windows(task: Task, origins: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return windows less their last rows, and what follows them less the same, of all columns one after the other."""
    windows = sliding_window_view(task.values, LOOK_BACK, axis=0)[origins - LOOK_BACK]
    followed = sliding_window_view(task.values, task.horizon, axis=0)[origins]
    last = windows[..., -1:]
    return (windows - last).reshape(-1, LOOK_BACK), (followed - last).reshape(-1, task.horizon)


def by_ridge(model: Any, task: Task, origins: NDArray[np.int64]) -> Floats:
    """Forecast by ridge regression, (n, horizon, c)."""
    windows = sliding_window_view(task.values, LOOK_BACK, axis=0)[origins - LOOK_BACK]
    last = windows[..., -1:]
    forecast = model.predict((windows - last).reshape(-1, LOOK_BACK)).reshape(*windows.shape[:2], -1) + last
    return np.asarray(forecast.transpose(0, 2, 1), np.float64)


@lru_cache(maxsize=len(MAPS))
def memory_of(source: Source, horizon: int, separation: str, residuals: bool) -> HopfieldForecaster:
    """Store the windows of the part to train with, the floor and beta by validation; or what ridge leaves of them."""
    from sparsehopfield.estimators import HopfieldForecaster  # here: only those who forecast need scikit-learn

    frozen = require("sklearn.frozen", purpose="forecasts of residuals", extra="studies")
    task = task_of(source, horizon)
    base = frozen.FrozenEstimator(ridge_of(source, horizon)) if residuals else None
    train, checked = task.values[: task.series.parts[0]], task.origins("validation")[::STRIDE]
    found = []
    for floor in FLOORS:
        model = HopfieldForecaster(
            horizon, WINDOW, 1.0, separation, floor=floor, base=base, base_window=LOOK_BACK if residuals else None
        ).fit(train)
        for beta in BETAS[separation]:
            for memory in model.memories_:
                memory.beta = beta
            found.append((model.score(task.values, checked), beta, model))
    _, beta, best = max(found, key=lambda one: one[0])
    for memory in best.memories_:
        memory.beta = beta
    return best


def support_of(model: HopfieldForecaster, task: Task) -> float:
    """Return the mean number of windows with weight, over every sixth window of the part to test with."""
    return float(model.support_size(task.values, task.origins("test")[::STRIDE]).mean())


# --- forecasts and errors -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Forecast:
    """Forecasts of the part to test with, (n, horizon, c), and the mean number of windows that had weight."""

    values: Floats
    support: float = float("nan")


def forecast_of(source: Source, setting: Mapping[str, Any], epochs: int) -> Forecast:
    """Make the forecasts of one setting."""
    model, separation, horizon = setting["model"], setting["map"], setting["horizon"]
    task = task_of(source, horizon)
    origins = task.origins("test")
    if model in TRAINED:
        from sparsehopfield.studies.series import networks  # here: only those who train need PyTorch

        network = networks.trained(task, model, separation, setting["structure"], setting["seed"], epochs)
        return Forecast(networks.forecast(network, task, origins))
    if model in ("last", "seasonal", "mean day"):
        return Forecast(naive(task, model, origins))
    if model == "ridge":
        return Forecast(by_ridge(ridge_of(source, horizon), task, origins))
    memory = memory_of(source, horizon, separation, model == "residuals")
    by_memory, support = memory.predict_at(task.values, origins), support_of(memory, task)
    if model != "blend":
        return Forecast(by_memory, support)
    ridge, checked = ridge_of(source, horizon), task.origins("validation")[::STRIDE]
    one, other = by_ridge(ridge, task, checked), memory.predict_at(task.values, checked)
    apart = other - one  # the share of the memory that has least squared error
    share = float(np.clip(np.sum((task.truth(checked) - one) * apart) / np.sum(apart**2), 0, 1))
    return Forecast((1 - share) * by_ridge(ridge, task, origins) + share * by_memory, support)


@lru_cache(maxsize=4)
def _ridge_errors(source: Source, horizon: int) -> Floats:
    """Return ridge's squared error of each window to test with, (n,)."""
    task = task_of(source, horizon)
    origins = task.origins("test")
    return np.asarray(np.mean((by_ridge(ridge_of(source, horizon), task, origins) - task.truth(origins)) ** 2, (1, 2)))


def evaluate(source: Source, setting: Mapping[str, Any], epochs: int) -> dict[str, float]:
    """Measure one setting on all windows of the part to test with.

    Parameters
    ----------
    source : Source
        Where the series comes from.
    setting : mapping
        `model`, `map`, `structure`, `horizon` and `seed`.
    epochs : int
        How long networks are trained.

    Returns
    -------
    dict
        `mse` and `mae` in standard units; `support`, the mean number of windows with weight (nan for models without a
        memory); `against ridge`, the mean squared error over ridge's, less 1, with `least` and `most`, the 2.5 and
        97.5 % quantiles of it over draws of whole weeks.
    """
    task = task_of(source, setting["horizon"])
    made = forecast_of(source, setting, epochs)
    wrong = made.values - task.truth(task.origins("test"))
    squares, ridge = np.mean(wrong**2, (1, 2)), _ridge_errors(source, setting["horizon"])
    least, most = bootstrap(squares, ridge, 7 * task.day)
    return {
        "mse": float(squares.mean()),
        "mae": float(np.abs(wrong).mean()),
        "support": made.support,
        "against ridge": float(squares.mean() / ridge.mean() - 1),
        "least": least,
        "most": most,
    }


def bootstrap(errors: Floats, others: Floats, block: int, *, draws: int = DRAWS) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of a ratio of mean errors, less 1, when blocks of windows are drawn anew.

    Parameters
    ----------
    errors, others : ndarray of float64, shape (n,)
        Of the same windows, so that what makes a week hard is in both.
    block : int
        Windows of a block, which are drawn together: the errors of windows that overlap are not independent.
    draws : int

    Returns
    -------
    least, most : float

    References
    ----------
    Politis and Romano 1992, "A circular block-resampling procedure for stationary data".

    Examples
    --------
    >>> bootstrap(np.full(1000, 2.0), np.ones(1000), 100)
    (1.0, 1.0)
    """
    n = len(errors)
    block = max(1, min(block, n))
    # blocks go round from the last window to the first, so that all windows count alike
    first = np.random.default_rng(0).integers(n, size=(draws, -(-n // block)))
    sums = [np.concatenate([[0.0], np.cumsum(np.tile(one, 2))]) for one in (errors, others)]
    mean, other = ((total[first + block] - total[first]).sum(axis=1) for total in sums)
    least, most = np.quantile(mean / other - 1, (0.025, 0.975))
    return float(least), float(most)
