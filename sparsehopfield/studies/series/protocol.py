"""The protocol of the study of time series: parts, models, errors over all windows, and their intervals.

Errors are those of standardised columns, by the mean and deviation of the part to train with, over every window of
the part to test with: no batch is dropped. Windows to validate and test with reach back over the border of their
part, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sparsehopfield._engine.optional import require
from sparsehopfield.studies.series.task import Floats, Source, Task, task_of

if TYPE_CHECKING:
    from sparsehopfield.estimators import HopfieldForecaster

#: Models without maps; the last of them are trained.
PLAIN = ("last", "seasonal", "seasonal mean", "ridge", "dlinear", "nlinear")
#: Models with a separation map; the last is trained. The first two share a memory, so they stay side by side.
MEMORIES = ("memory", "blend", "residuals")
MAPPED = (*MEMORIES, "network")
MODELS = PLAIN + MAPPED
TRAINED = ("dlinear", "nlinear", "network")
MAPS = ("softmax", "sparsemax", "entmax15")
DENSE = "softmax"

METRICS = ("mse", "mae", "support", "against ridge", "least", "most")
#: Of a blend: the memory's share of it.
SHARE = "share"
#: A sparse map in the same model without training, against softmax, with its interval.
PAIRED = ("against softmax", "softmax least", "softmax most")
#: Of ridge: the error when test windows come in batches of so many, and the last batch is dropped if it is not whole.
BATCHES = (32, 128, 512)

#: What is chosen by validation: ridge's penalty, and the memory's beta, at the first floor, and then its floor.
PENALTIES = (100.0, 1000.0, 10000.0, 100000.0)
FLOORS = (0.1, 0.2, 0.3)
BETAS = {
    "softmax": (6.0, 10.0, 15.0, 20.0, 28.0),
    "sparsemax": (0.01, 0.03, 0.06, 0.1, 0.2),
    "entmax15": (0.2, 0.5, 1.0, 2.0),
}
#: Draws of the bootstrap, and how many blocks it draws from at least: of fewer, intervals come out far too narrow.
DRAWS, BLOCKS = 1000, 10


def dropping(batch: int) -> str:
    """Return the name of ridge's error without what a last batch that is not whole holds."""
    return f"mse in whole batches of {batch}"


def at_beta(metric: str, beta: float) -> str:
    """Return the name of a memory's error, or support, on the part to validate with, at a beta and the first floor."""
    return f"validation {metric} at beta {beta:g}"


def metrics_of(setting: Mapping[str, Any], maps: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what `evaluate` measures of a setting, where these maps are compared."""
    model, separation = setting["model"], setting["map"]
    names: tuple[str, ...] = METRICS
    if model == "ridge":
        names += tuple(dropping(batch) for batch in BATCHES)
    if model == "memory":
        names += tuple(at_beta(metric, beta) for beta in BETAS[separation] for metric in ("mse", "support"))
    if model == "blend":
        names += (SHARE,)
    if model in MEMORIES and separation != DENSE and DENSE in maps:
        names += PAIRED
    return names


# --- forecasts without training -------------------------------------------------------------------------------------


def naive(task: Task, model: str, origins: NDArray[np.int64]) -> Floats:
    """Forecast by repetition, (n, horizon, c): of the last row, the last season, or the mean of the last 14 seasons."""
    period = 1 if model == "last" else task.season
    seasons = min(14, task.look_back // period) if model == "seasonal mean" else 1
    back = sliding_window_view(task.values, seasons * period, axis=0)[origins - seasons * period]
    season = back.reshape(*back.shape[:2], seasons, period).mean(axis=2)
    repeated: Floats = np.take(season, np.arange(task.horizon) % period, axis=2).transpose(0, 2, 1)
    return repeated


@lru_cache(maxsize=2)
def ridge_of(source: Source, horizon: int) -> Any:
    """Fit ridge regression from the rows of a look-back, less the last, to those that follow; penalty by validation.

    Returns
    -------
    Ridge
        Of windows less their last rows, for all columns.
    """
    linear = require("sklearn.linear_model", purpose="ridge regression", extra="studies")
    task = task_of(source, horizon)
    windows, targets = _windows(task, task.origins("train"))
    checked = task.some("validation")
    truth = task.truth(checked)
    found = []
    for penalty in PENALTIES:
        model = linear.Ridge(penalty, solver="cholesky").fit(windows, targets)
        found.append((float(np.mean((by_ridge(model, task, checked) - truth) ** 2)), penalty, model))
    return min(found, key=lambda one: one[0])[2]


def _windows(task: Task, origins: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return windows less their last rows, and what follows them less the same, of all columns one after the other."""
    windows = sliding_window_view(task.values, task.look_back, axis=0)[origins - task.look_back]
    followed = sliding_window_view(task.values, task.horizon, axis=0)[origins]
    last = windows[..., -1:]
    return (windows - last).reshape(-1, task.look_back), (followed - last).reshape(-1, task.horizon)


def by_ridge(model: Any, task: Task, origins: NDArray[np.int64]) -> Floats:
    """Forecast by ridge regression, (n, horizon, c)."""
    windows = sliding_window_view(task.values, task.look_back, axis=0)[origins - task.look_back]
    last = windows[..., -1:]
    forecast = model.predict((windows - last).reshape(-1, task.look_back)).reshape(*windows.shape[:2], -1) + last
    return np.asarray(forecast.transpose(0, 2, 1), np.float64)


@dataclass(frozen=True, eq=False)
class Tuned:
    """A forecaster whose floor and beta were chosen by validation, and its error there at each beta, first floor."""

    model: HopfieldForecaster
    floor: float
    beta: float
    errors: Mapping[float, float]
    supports: Mapping[float, float]


@lru_cache(maxsize=1)
def memory_of(source: Source, horizon: int, separation: str) -> Tuned:
    """Store the windows of the part to train with. The beta is chosen at the first floor, then the floor."""
    task = task_of(source, horizon)
    checked, counted = task.some("validation", times=2), task.some("validation", times=6)
    model = _stored(task, separation, FLOORS[0])
    errors, supports = {}, {}
    for beta in BETAS[separation]:
        tried = _at(model, beta)
        errors[beta] = -tried.score(task.values, checked)
        supports[beta] = support_of(tried, task, counted)
    best = min(errors, key=lambda beta: errors[beta])
    found = [(errors[best], FLOORS[0], model)]
    for floor in FLOORS[1:]:
        other = _stored(task, separation, floor)
        found.append((-_at(other, best).score(task.values, checked), floor, other))
    _, floor, model = min(found, key=lambda one: one[0])
    return Tuned(_at(model, best), floor, best, errors, supports)


@lru_cache(maxsize=1)
def residuals_of(source: Source, horizon: int, separation: str) -> HopfieldForecaster:
    """Store what ridge leaves of the part to train with, at the floor of `memory_of`. The beta is chosen anew."""
    frozen = require("sklearn.frozen", purpose="forecasts of residuals", extra="studies")
    task, floor = task_of(source, horizon), memory_of(source, horizon, separation).floor
    checked = task.some("validation", times=2)
    model = _stored(task, separation, floor, frozen.FrozenEstimator(ridge_of(source, horizon)))
    errors = {beta: -_at(model, beta).score(task.values, checked) for beta in BETAS[separation]}
    return _at(model, min(errors, key=lambda beta: errors[beta]))


def _stored(task: Task, separation: str, floor: float, base: Any = None) -> HopfieldForecaster:
    """Fit a forecaster to the part to train with."""
    from sparsehopfield.estimators import HopfieldForecaster  # here: only those who forecast need scikit-learn

    own = None if base is None else task.look_back
    model = HopfieldForecaster(task.horizon, task.window, 1.0, separation, floor=floor, base=base, base_window=own)
    return model.fit(task.values[: task.series.parts[0]])


def _at(model: HopfieldForecaster, beta: float) -> HopfieldForecaster:
    """Return a fitted forecaster at another beta; both share what is stored, and the first stays what it is."""
    other = copy(model).set_params(beta=beta)
    other.memories_ = [memory._at(beta) for memory in model.memories_]
    return other


def support_of(model: HopfieldForecaster, task: Task, origins: NDArray[np.int64]) -> float:
    """Return the mean number of windows with weight in forecasts from these rows on."""
    return float(model.support_size(task.values, origins).mean())


@lru_cache(maxsize=1)
def _by_memory(source: Source, horizon: int, separation: str) -> tuple[Floats, float]:
    """Forecast the part to test with by the memory; return its support, too."""
    task, memory = task_of(source, horizon), memory_of(source, horizon, separation).model
    return memory.predict_at(task.values, task.origins("test")), support_of(memory, task, task.some("test", times=2))


def _by_residuals(source: Source, horizon: int, separation: str) -> tuple[Floats, float]:
    """Forecast the part to test with by ridge and the memory of what it leaves; return the memory's support, too."""
    task, model = task_of(source, horizon), residuals_of(source, horizon, separation)
    return model.predict_at(task.values, task.origins("test")), support_of(model, task, task.some("test", times=2))


@lru_cache(maxsize=1)
def share_of(source: Source, horizon: int, separation: str) -> float:
    """Return the memory's share of its blend with ridge that has least squared error in validation, from 0 to 1."""
    task, ridge = task_of(source, horizon), ridge_of(source, horizon)
    checked = task.some("validation")
    one, other = (
        by_ridge(ridge, task, checked),
        memory_of(source, horizon, separation).model.predict_at(task.values, checked),
    )
    apart = other - one
    return float(np.clip(np.sum((task.truth(checked) - one) * apart) / np.sum(apart**2), 0, 1))


def _blended(source: Source, horizon: int, separation: str) -> tuple[Floats, float]:
    """Forecast the part to test with by both; the support is nan where the memory has no share."""
    task, share = task_of(source, horizon), share_of(source, horizon, separation)
    ridge = by_ridge(ridge_of(source, horizon), task, task.origins("test"))
    if share == 0:
        return ridge, float("nan")
    forecast, support = _by_memory(source, horizon, separation)
    return (1 - share) * ridge + share * forecast, support


# --- errors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors on all windows of the part to test with.

    Attributes
    ----------
    squares : ndarray of float64, shape (n,)
        The mean squared error of each window.
    absolute : float
        The mean absolute error.
    support : float
        The mean number of stored rows with weight; nan where nothing is stored.
    """

    squares: Floats
    absolute: float
    support: float

    @classmethod
    def of(cls, task: Task, forecast: Floats, support: float = float("nan")) -> Errors:
        """Compare forecasts (n, horizon, c) with what came."""
        wrong = forecast - task.truth(task.origins("test"))
        return cls(np.mean(wrong**2, (1, 2)), float(np.abs(wrong).mean()), support)


@lru_cache(maxsize=32)
def untrained(source: Source, horizon: int, model: str, separation: str) -> Errors:
    """Forecast by a model without training; softmax's errors and ridge's are asked for again by others."""
    task = task_of(source, horizon)
    if model in MEMORIES:
        makers: dict[str, Callable[[Source, int, str], tuple[Floats, float]]] = {
            "memory": _by_memory,
            "blend": _blended,
            "residuals": _by_residuals,
        }
        return Errors.of(task, *makers[model](source, horizon, separation))
    if model == "ridge":
        return Errors.of(task, by_ridge(ridge_of(source, horizon), task, task.origins("test")))
    return Errors.of(task, naive(task, model, task.origins("test")))


def evaluate(source: Source, setting: Mapping[str, Any], epochs: int, maps: Sequence[str] = MAPS) -> dict[str, float]:
    """Measure one setting on all windows of the part to test with.

    Parameters
    ----------
    source : Source
        Where the series comes from.
    setting : mapping
        `model`, `map`, `structure`, `horizon` and `seed`.
    epochs : int
        How long networks are trained.
    maps : sequence of str
        What is compared.

    Returns
    -------
    dict
        `mse` and `mae` in standard units; `support`, the mean number of windows, or of the network's patches, with
        weight (nan for models without a memory); `against ridge`, the mean squared error over ridge's, less 1, with
        `least` and `most`, its interval by `bootstrap`; and what else `metrics_of` names.
    """
    model, separation, horizon = setting["model"], setting["map"], setting["horizon"]
    task = task_of(source, horizon)
    if model in TRAINED:
        from sparsehopfield.studies.series import networks  # here: only those who train need PyTorch

        network = networks.trained(task, model, separation, setting["structure"], setting["seed"], epochs)
        test = task.origins("test")
        found = Errors.of(
            task, networks.forecast(network, task, test), networks.support(network, task, task.some("test"))
        )
    else:
        found = untrained(source, horizon, model, separation)
    squares = found.squares
    measured = {"mse": float(squares.mean()), "mae": found.absolute, "support": found.support}
    ridge = untrained(source, horizon, "ridge", "-").squares
    measured |= zip(
        METRICS[3:], (float(squares.mean() / ridge.mean() - 1), *bootstrap(squares, ridge, task.block)), strict=True
    )
    names = metrics_of(setting, maps)
    if PAIRED[0] in names:
        dense = untrained(source, horizon, model, DENSE).squares
        measured |= zip(
            PAIRED, (float(squares.mean() / dense.mean() - 1), *bootstrap(squares, dense, task.block)), strict=True
        )
    if model == "memory":
        tuned = memory_of(source, horizon, separation)
        for beta in BETAS[separation]:
            measured |= {at_beta("mse", beta): tuned.errors[beta], at_beta("support", beta): tuned.supports[beta]}
    if model == "blend":
        measured[SHARE] = share_of(source, horizon, separation)
    if model == "ridge":
        whole = {batch: len(squares) // batch * batch for batch in BATCHES}
        measured |= {dropping(batch): float(squares[:n].mean()) if n else float("nan") for batch, n in whole.items()}
    return {name: measured[name] for name in names}


def bootstrap(errors: Floats, others: Floats, block: int, *, draws: int = DRAWS) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of a ratio of mean errors, less 1, when blocks of windows are drawn anew.

    Parameters
    ----------
    errors, others : ndarray of float64, shape (n,)
        Of the same windows, so that what makes a week hard is in both.
    block : int
        Windows of a block, which are drawn together: the errors of windows that overlap are not independent, so it is
        at least as long as the horizon.
    draws : int

    Returns
    -------
    least, most : float
        nan where there are not ten blocks to draw from: intervals would hold the true ratio far too seldom.

    References
    ----------
    Politis and Romano 1992, "A circular block-resampling procedure for stationary data".

    Examples
    --------
    >>> bootstrap(np.full(1000, 2.0), np.ones(1000), 100)
    (1.0, 1.0)
    """
    n = len(errors)
    if n < BLOCKS * block:
        return float("nan"), float("nan")
    # blocks go round from the last window to the first, so that all windows count alike
    first = np.random.default_rng(0).integers(n, size=(draws, -(-n // block)))
    sums = [np.concatenate([[0.0], np.cumsum(np.tile(one, 2))]) for one in (errors, others)]
    mean, other = ((total[first + block] - total[first]).sum(axis=1) for total in sums)
    least, most = np.quantile(mean / other - 1, (0.025, 0.975))
    return float(least), float(most)
