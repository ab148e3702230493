"""Plots of a memory and of what it answers: energy, support, attention, calibration.

Each function draws on the axes that it is given as `ax`, or else on those of a new figure, and returns them. A new
figure is made without pyplot, so no window or display is needed and no state is left behind: show it as `ax.figure` at
the end of a notebook's cell, or write it by `ax.figure.savefig`. `**options` go to Matplotlib's own function.

They need Matplotlib: the extra "sparsehopfield[notebook]".
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine.checks import (
    as_flag,
    as_list,
    as_ndarray,
    as_numbers,
    as_positive_numbers,
    as_whole,
    axes_of,
    ignoring_float_errors,
)
from sparsehopfield._engine.labels import as_labels
from sparsehopfield._engine.optional import require
from sparsehopfield._engine.separations import as_choice, has_cutoff, separation_code, valid_separations
from sparsehopfield._engine.text import short
from sparsehopfield.inspect.paths import check_memory, one_step, retrieval_path
from sparsehopfield.inspect.plotting import GREYS, STYLES, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "attention_map",
    "bag_map",
    "calibration",
    "calibration_by_beta",
    "energy_path",
    "support_by_beta",
]

EXTRA = "notebook"
SIZE = (4.8, 3.4)  # inches, of a new figure with one axes
ZERO = GREYS[0]  # the colour of weights that are exactly 0
STRATEGIES = ("uniform", "quantile")


# --- energy and support -------------------------------------------------------------------------------------------


def energy_path(
    memory: Any,
    queries: ArrayLike,
    *,
    max_steps: int = 20,
    tol: float | None = None,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw the energy of each query and of the states that a retrieval moves it to, one line a query.

    Parameters
    ----------
    memory : HopfieldMemory
        Any memory with `retrieve` and `energy`, so a sharded one, too. With `values` the states are those in pattern
        space.
    queries : array_like, shape (..., d)
        One row a query; a single vector is one query.
    max_steps : int, at least 1
        Steps at most.
    tol : float, at least 0, optional
        As in `HopfieldMemory.retrieve`: a line ends with the first step that moves the state by at most
        `tol * max |xi|`; by default 4 eps of the dtype.
    labels : sequence of str, optional
        One name for each query, in a legend.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.
    **options
        Of the lines, to `Axes.plot`.

    Returns
    -------
    matplotlib.axes.Axes
        Line i has the energies of query i: at 0 of the query itself, at k of the state after k steps. No step raises
        the energy, but by rounding.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault; `memory` or `structure` where there is no energy.
    ImportError
        If Matplotlib is not installed.

    See Also
    --------
    sparsehopfield.inspect.paths.retrieval_path : Return the states themselves.

    References
    ----------
    Hu et al. 2023, "On sparse modern Hopfield model", lemma 2.1: the update lowers the energy.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> ax = energy_path(sh.HopfieldMemory(np.eye(3), beta=4.0), [[0.5, 0.4, 0.0], [0.0, 0.3, 0.6]])
    >>> [line.get_ydata().round(3).tolist() for line in ax.lines]
    [[-0.317, -0.41, -0.5, -0.5], [-0.375, -0.5, -0.5]]
    """
    path = retrieval_path(memory, queries, max_steps=max_steps, tol=tol)
    if path.energies is None:
        raise ValueError(f"memory: its separation must have an energy, got {short(memory.separation)}")
    names = None if labels is None else _as_texts("labels", labels, len(path.steps))
    ax = _axes(ax)
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linewidth": 1.4} | options
    for i, last in enumerate(path.steps):
        named: dict[str, Any] = {} if names is None else {"label": names[i]}
        ax.plot(np.arange(last + 1), path.energies[: last + 1, i], **style | named)
    ax.set(xlabel="steps", ylabel="energy")
    _tick_whole_numbers(ax.xaxis)
    return _finish(ax, legend=names is not None)


def support_by_beta(
    memory: Any,
    queries: ArrayLike,
    betas: ArrayLike | None = None,
    *,
    quantiles: Sequence[float] = (0.1, 0.9),
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw how many patterns have weight at each inverse temperature: the median of the queries, and quantiles.

    Parameters
    ----------
    memory : HopfieldMemory
        Its separation must have a cutoff, as those of sparsemax and entmax. The memory is not changed.
    queries : array_like, shape (..., d)
        One row a query.
    betas : array_like, shape (b,), optional
        Inverse temperatures; by default 33 from a hundredth to the hundredfold of the memory's.
    quantiles : two numbers from 0 to 1
        The quantiles of the queries that the band reaches from and to.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.
    **options
        Of the line of medians, to `Axes.plot`.

    Returns
    -------
    matplotlib.axes.Axes
        Both axes are logarithmic. The first line has the medians; the band is the first collection.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.
    ImportError
        If Matplotlib is not installed.

    See Also
    --------
    sparsehopfield.HopfieldMemory.suggest_beta : Return the smallest beta that stores a share of the patterns.

    Notes
    -----
    The supports are those of exact associations, one for each beta and query.

    References
    ----------
    Hu et al. 2023, "On sparse modern Hopfield model", section 2.2; Martins and Astudillo 2016, "From softmax to
    sparsemax", proposition 1.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehopfield as sh
    >>> memory = sh.HopfieldMemory(np.eye(3))
    >>> support_by_beta(memory, [0.5, 0.4, 0.0], [0.1, 4.0, 40.0]).lines[0].get_ydata().tolist()
    [3.0, 2.0, 1.0]
    """
    check_memory(memory, "retrieve", "separation", "beta")
    if not has_cutoff(separation_code(memory.separation)):
        raise ValueError(
            f"memory: its separation must be {valid_separations(has_cutoff=True)}, as others give weight to all "
            f"patterns at any beta; got {short(memory.separation)}"
        )
    rows = as_numbers("queries", queries)
    if rows.size == 0:
        raise ValueError("queries: there is nothing to draw")
    chosen = _as_betas(betas, memory.beta, np.geomspace(0.01, 100, 33))
    low, high = _as_quantiles(quantiles)
    sizes = np.stack([np.ravel(one_step(_at_beta(memory, beta), rows).support_size) for beta in chosen])
    ax = _axes(ax)
    style = {"color": STYLES["sparse"]["color"], "linewidth": 1.6, "label": "median"} | options
    (line,) = ax.plot(chosen, np.median(sizes, axis=1), **style)
    band = f"{100 * low:g} % to {100 * high:g} % of the queries"
    reach = np.quantile(sizes, (low, high), axis=1)
    ax.fill_between(chosen, *reach, color=line.get_color(), alpha=0.2, linewidth=0, label=band)
    if np.ndim(memory.beta) == 0 and chosen[0] <= float(memory.beta) <= chosen[-1]:
        ax.axvline(float(memory.beta), color=STYLES["mean"]["color"], linestyle="--", linewidth=1, label="memory.beta")
    ax.set(xscale="log", yscale="log", xlabel="beta", ylabel="patterns with weight")
    return _finish(ax, legend=True)


# --- attention ----------------------------------------------------------------------------------------------------


def attention_map(
    weights: Any,
    *,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    colorbar: bool = True,
    ax: Any = None,
    **options: Any,
) -> Any:
    """Draw attention weights as a map, queries down and stored patterns across; heads side by side.

    Weights that are exactly 0, of which sparse maps have many, are grey, and no other weight is.

    Parameters
    ----------
    weights : array_like or sparse array, shape (N, M), (H, N, M) or (B, H, N, M)
        What `get_association_matrix` of a layer or module returns, or a part of it, or `HopfieldMemory.associate`. One
        map for (N, M), a row of maps for H heads, and a grid of maps, one row a sample, for B samples.
    queries, keys : sequence of str, optional
        Names of the N queries and of the M stored patterns: the words of a sentence.
    colorbar : bool
        Whether to draw a colour bar, beside all maps.
    ax : matplotlib.axes.Axes, or array of them with shape (H,) or (B, H), optional
        Where to draw; by default on a new figure.
    **options
        To `Axes.imshow`, as cmap, vmax. All maps have one scale of colours.

    Returns
    -------
    matplotlib.axes.Axes, or ndarray of them with shape (H,) or (B, H)
        Each has one image: its array has the weights, where they are not 0, and is masked where they are.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.
    ImportError
        If Matplotlib is not installed.

    See Also
    --------
    bag_map : The weights of the instances of bags.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield.layers import SparseHopfield
    >>> x = np.random.default_rng(0).standard_normal((1, 5, 4))
    >>> weights = SparseHopfield(4, num_heads=2, random_state=0).get_association_matrix(x)
    >>> axes = attention_map(weights[0])
    >>> [ax.images[0].get_array().shape for ax in axes]
    [(5, 5), (5, 5)]
    """
    dense = _as_weights("weights", weights.toarray() if callable(getattr(weights, "toarray", None)) else weights)
    if not 2 <= dense.ndim <= 4:
        raise ValueError(f"weights: must have shape (N, M), (H, N, M) or (B, H, N, M), got {dense.shape}")
    titles = _titles(dense.shape[:-2])
    named = {"y": (queries, "queries"), "x": (keys, "keys")}
    ticks = {
        axis: _as_ticks(name, given, dense.shape[-2 if axis == "y" else -1]) for axis, (given, name) in named.items()
    }
    return _draw_maps(dense, None, titles, ticks, ("stored pattern", "query"), colorbar, ax, options)


def bag_map(
    weights: Any,
    *,
    bags: Sequence[str] | None = None,
    colorbar: bool = True,
    ax: Any = None,
    **options: Any,
) -> Any:
    """Draw the weights of the instances of bags as a map, one row a bag; heads side by side.

    Weights that are exactly 0 are grey; where a bag has no more instances the map is white.

    Parameters
    ----------
    weights : sequence of array_like, each of shape (M_i,) or (H, M_i)
        One array a bag, as `HopfieldMILClassifier.bag_weights` returns them, averaged over the heads or `per_head`.
    bags : sequence of str, optional
        Names of the bags: their labels.
    colorbar : bool
        Whether to draw a colour bar, beside all maps.
    ax : matplotlib.axes.Axes, or array of them with shape (H,), optional
        Where to draw; by default on a new figure.
    **options
        To `Axes.imshow`, as cmap, vmax. All maps have one scale of colours.

    Returns
    -------
    matplotlib.axes.Axes, or ndarray of them with shape (H,)
        The first image of each has the weights, (bags, instances of the largest bag), where they are not 0, and is
        masked where they are.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.
    ImportError
        If Matplotlib is not installed.

    See Also
    --------
    attention_map : Weights of queries and stored patterns.

    Examples
    --------
    >>> ax = bag_map([[0.0, 1.0], [0.5, 0.0, 0.5]], bags=["first", "second"])
    >>> print(ax.images[0].get_array())
    [[-- 1.0 --]
     [0.5 -- 0.5]]
    """
    given = [_as_weights("weights", w) for w in as_list("weights", weights, "one array a bag")]
    if not given:
        raise ValueError("weights: there is nothing to draw")
    heads = {w.shape[:-1] for w in given}
    if len(heads) > 1 or given[0].ndim not in (1, 2):
        shapes = short([w.shape for w in given])
        raise ValueError(f"weights: must all be of shape (M_i,), or all of (H, M_i) with the same H, got {shapes}")
    dense = np.zeros((*given[0].shape[:-1], len(given), max(w.shape[-1] for w in given)))
    absent = np.ones(dense.shape[-2:], bool)
    for i, w in enumerate(given):
        dense[..., i, : w.shape[-1]] = w
        absent[i, : w.shape[-1]] = False
    ticks = {"y": _as_ticks("bags", bags, len(given)), "x": None}
    return _draw_maps(dense, absent, _titles(dense.shape[:-2]), ticks, ("instance", "bag"), colorbar, ax, options)


def _as_weights(name: str, given: Any) -> NDArray[np.float64]:
    """Return finite weights as float64, of at least one number."""
    weights = as_numbers(name, given).astype(np.float64)
    if weights.size == 0:
        raise ValueError(f"{name}: there is nothing to draw")
    if not np.isfinite(weights).all():
        raise ValueError(f"{name}: must be finite")
    return weights


def _titles(shape: tuple[int, ...]) -> list[str]:
    """Return the titles of maps of heads (H,), or of samples and heads (B, H), in their order; none of one map."""
    heads = [f"head {h}" for h in range(shape[-1])] if shape else [""]
    if len(shape) < 2:
        return heads
    return [f"sample {b}, {head}" for b in range(shape[0]) for head in heads]


def _as_ticks(name: str, given: Any, count: int) -> list[str] | None:
    """Return the names along an axis, or None."""
    return None if given is None else _as_texts(name, given, count)


def _draw_maps(
    weights: NDArray[np.float64],
    absent: NDArray[np.bool_] | None,
    titles: list[str],
    ticks: dict[str, list[str] | None],
    labels: tuple[str, str],
    colorbar: Any,
    ax: Any,
    options: dict[str, Any],
) -> Any:
    """Draw maps (..., n, m) of weights with one scale of colours, and return their axes, or array of axes."""
    with_bar, leading = as_flag("colorbar", colorbar), weights.shape[:-2]
    axes = _axes_of_maps(ax, leading, weights.shape[-2:])
    least, most = float(weights.min()), float(weights.max())
    if least < 0:  # of a map whose weights have signs
        scale = {"cmap": "PuOr", "vmin": -max(most, -least), "vmax": max(most, -least)}
    else:
        scale = {"cmap": "viridis", "vmin": 0.0, "vmax": most or 1.0}
    style = {"aspect": "auto" if absent is not None else "equal", "interpolation": "nearest"} | scale | options
    drawn: Any = None
    for axis, title, one in zip(np.ravel(axes), titles, weights.reshape(-1, *weights.shape[-2:]), strict=True):
        axis.set_facecolor(ZERO)
        drawn = axis.imshow(np.ma.masked_equal(one, 0.0), **style)
        if absent is not None and absent.any():
            white = require("matplotlib.colors", purpose="drawing figures", extra=EXTRA).ListedColormap(["white"])
            missing = np.ma.masked_array(np.ones(absent.shape), ~absent)
            axis.imshow(missing, cmap=white, aspect=style["aspect"], interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set(xlabel=labels[0], ylabel=labels[1])
        for axis_name, names in ticks.items():
            ruler = getattr(axis, f"{axis_name}axis")
            if names is None:
                _tick_whole_numbers(ruler)
            else:
                ruler.set_ticks(range(len(names)), names, fontsize=8)
        if ticks["x"] is not None:
            axis.tick_params(axis="x", rotation=60)
        if ax is None:
            axis.label_outer()
    if with_bar:
        bar = np.ravel(axes)[0].figure.colorbar(drawn, ax=list(np.ravel(axes)))
        bar.set_label("weight (grey: exactly 0)")
    return axes if leading else axes[()]


def _axes_of_maps(ax: Any, leading: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """Return an array of axes with the leading shape of some maps: those given, or those of a new figure."""
    if ax is None:
        rows, columns = (1, *leading)[-2:] if leading else (1, 1)
        height, width = (min(4.2, max(1.6, 0.22 * side)) for side in shape)
        figure = empty_figure((1.5 + columns * (width + 0.4), 0.7 + rows * (height + 0.4)), extra=EXTRA)
        return figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).reshape(leading)
    given = as_ndarray("ax", ax, object)
    if given.shape != leading:
        wanted = f"an array of {leading} axes" if leading else "one axes"
        raise ValueError(f"ax: must be {wanted} for such weights, got {short(ax) if leading == () else given.shape}")
    for one in given.flat:
        _check_axes(one)
    return given


# --- calibration --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Reliability:
    """A reliability curve: mean probabilities and shares of right answers, by bins of probabilities."""

    edges: NDArray[np.float64]  # (bins + 1,)
    counts: NDArray[np.int64]  # (bins,) samples
    predicted: NDArray[np.float64]  # (bins with samples,) mean probability
    observed: NDArray[np.float64]  # (bins with samples,) share of the positive class, or of right answers

    @property
    def error(self) -> float:
        """Return the expected calibration error."""
        counts = self.counts[self.counts > 0]
        return float((counts * np.abs(self.predicted - self.observed)).sum() / counts.sum())


def calibration(
    y_true: Any,
    probabilities: ArrayLike,
    bins: int = 10,
    *,
    strategy: str = "uniform",
    labels: Any = None,
    name: str = "",
    counts: bool = True,
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw how often a classifier is right against how sure it is: the reliability curve of its probabilities.

    Parameters
    ----------
    y_true : array_like, shape (N,)
        The true classes.
    probabilities : array_like, shape (N,) or (N, C)
        The positive class's, the greater of two; the curve then has the share of that class. Or one column a class, as
        `predict_proba` returns them; then it has the share of right answers against the probability of the class that
        is answered, the likeliest.
    bins : int from 1 to 1000
        Bins of the probabilities.
    strategy : {"uniform", "quantile"}
        Bins of one width, or of as many samples each as equal probabilities allow; as in scikit-learn.
    labels : array_like, shape (C,), optional
        The classes in the order of the columns, or (negative, positive); by default those in `y_true`, sorted.
    name : str
        Name of the classifier, in the legend.
    counts : bool
        Whether to draw the share of the samples in each bin as bars, with their number above.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.
    **options
        Of the curve, to `Axes.plot`.

    Returns
    -------
    matplotlib.axes.Axes
        The line whose label has the expected calibration error is the curve: mean probability and share of each bin
        that has samples.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.
    ImportError
        If Matplotlib is not installed.

    See Also
    --------
    calibration_by_beta : Draw the curves of one classifier at several betas.
    sklearn.calibration.CalibrationDisplay : The same curve of two classes.

    Notes
    -----
    The expected calibration error is the mean, over the samples, of the difference between the mean probability and
    the share in their bin.

    References
    ----------
    Niculescu-Mizil and Caruana 2005, "Predicting good probabilities with supervised learning"; Guo et al. 2017, "On
    calibration of modern neural networks", equation (3).

    Examples
    --------
    >>> ax = calibration([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.9], bins=2)
    >>> ax.lines[-1].get_xydata().round(2).tolist()
    [[0.3, 0.33], [0.9, 1.0]]
    >>> ax.lines[-1].get_label()
    'expected calibration error 0.050'
    """
    found = _reliability(*_right_and_sure(y_true, probabilities, labels), bins, strategy)
    with_counts = as_flag("counts", counts)
    if not isinstance(name, str):
        raise TypeError(f"name: must be text, got {short(name)}")
    multiclass = axes_of(probabilities) == 2
    ax = _reliability_axes(ax, multiclass)
    if with_counts:
        _draw_counts(ax, found)
    label = f"expected calibration error {found.error:.3f}"
    _draw_reliability(ax, found, f"{name}: {label}" if name else label, options)
    return _finish(ax, legend=True)


def calibration_by_beta(
    classifier: Any,
    X: Any,
    y: Any,
    betas: ArrayLike | None = None,
    bins: int = 10,
    *,
    strategy: str = "uniform",
    ax: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw the reliability curve of a classifier at several inverse temperatures.

    Small betas average many rows and are too little sure of themselves, large ones are too sure: the curve next to the
    diagonal tells where probabilities can be trusted.

    Parameters
    ----------
    classifier : HopfieldClassifier
        Fitted. It is not changed.
    X : array_like, shape (N, d)
        Rows that were not fitted.
    y : array_like, shape (N,)
        Their classes.
    betas : array_like, shape (b,), optional
        Inverse temperatures; by default 1/10, 1/3, 1, 3 and 10 times that of the classifier.
    bins : int from 1 to 1000
        Bins of the probabilities.
    strategy : {"uniform", "quantile"}
        Bins of one width, or of as many rows each as equal probabilities allow.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.
    **options
        Of the curves, to `Axes.plot`.

    Returns
    -------
    matplotlib.axes.Axes
        Behind the diagonal one line for each beta, ascending, whose label has the expected calibration error.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.
    ImportError
        If Matplotlib is not installed.

    See Also
    --------
    calibration : Draw the curve of any classifier's probabilities.
    sparsehopfield.estimators.HopfieldClassifier : Answer with the classes of stored rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sparsehopfield.estimators import HopfieldClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = HopfieldClassifier().fit(X[::2], y[::2])
    >>> for line in calibration_by_beta(classifier, X[1::2], y[1::2], [0.1, 1.0]).lines[1:]:
    ...     print(line.get_label())
    beta 0.1: 0.068
    beta 1: 0.038
    """
    if not callable(getattr(classifier, "predict_proba", None)):
        raise TypeError(f"classifier: must be a HopfieldClassifier, got {type(classifier).__name__}")
    memory = getattr(classifier, "memory_", None)
    if memory is None:
        raise ValueError("classifier: must be a HopfieldClassifier that was fitted")
    chosen = _as_betas(betas, memory.beta, np.array([0.1, 1 / 3, 1.0, 3.0, 10.0]))
    curves = []
    for beta in chosen:
        other = copy.copy(classifier)
        other.memory_ = _at_beta(memory, beta)
        right, sure = _right_and_sure(y, other.predict_proba(X), classifier.classes_, "y")
        curves.append(_reliability(right, sure, bins, strategy))
    colours = require("matplotlib", purpose="drawing figures", extra=EXTRA).colormaps["viridis"]
    ax = _reliability_axes(ax, True)
    for i, (beta, found) in enumerate(zip(chosen, curves, strict=True)):
        colour = colours(0.9 * i / max(len(chosen) - 1, 1))
        _draw_reliability(ax, found, f"beta {beta:.3g}: {found.error:.3f}", {"color": colour} | options)
    return _finish(ax, legend=True, title="expected calibration error")


def _right_and_sure(
    y_true: Any, probabilities: Any, labels: Any, name: str = "y_true"
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return for each sample whether what a probability is of was so, and the probability."""
    y = as_labels(name, y_true)
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"{name}: must be one-dimensional, one class a sample, got shape {y.shape}")
    p = as_numbers("probabilities", probabilities).astype(np.float64)
    if p.ndim not in (1, 2):
        raise ValueError(f"probabilities: must have shape (N,) or (N, classes), got {p.shape}")
    if len(p) != len(y):
        raise ValueError(f"{name}: needs one class for each of {len(p)} samples, got {len(y)}")
    if not ((p >= 0) & (p <= 1)).all():  # NaN is not
        raise ValueError("probabilities: must be from 0 to 1")
    classes = np.unique(y) if labels is None else as_labels("labels", labels)
    wanted = 2 if p.ndim == 1 else p.shape[1]
    if classes.shape != (wanted,):
        where = f"{name}: has {len(classes)} classes" if labels is None else f"labels: has shape {classes.shape}"
        raise ValueError(f"{where}, but probabilities are of {wanted}; give as many labels")
    try:
        unknown = set(y.tolist()) - set(classes.tolist())
    except TypeError:  # of lists, which as labels have an order
        raise TypeError(f"{name}: must be numbers, text or dates, and so must labels") from None
    if unknown:
        raise ValueError(f"{name}: {short(unknown.pop())} is not among the labels, {short(classes.tolist())}")
    if p.ndim == 1:
        return y == classes[1], p
    best = p.argmax(axis=1)
    return y == classes[best], p[np.arange(len(p)), best]


@ignoring_float_errors()
def _reliability(right: NDArray[np.bool_], sure: NDArray[np.float64], bins: Any, strategy: Any) -> _Reliability:
    """Return the reliability of probabilities; bins are those of `sklearn.calibration.calibration_curve`."""
    count = as_whole("bins", bins, 1, most=1000)
    if as_choice("strategy", strategy, STRATEGIES) == "uniform":
        edges = np.linspace(0.0, 1.0, count + 1)
    else:
        edges = np.percentile(sure, np.linspace(0, 1, count + 1) * 100)
    bin_of = np.searchsorted(edges[1:-1], sure)
    counts = np.bincount(bin_of, minlength=count)
    filled = counts > 0
    predicted, observed = (np.bincount(bin_of, x, count)[filled] / counts[filled] for x in (sure, right))
    return _Reliability(edges, counts, predicted, observed)


def _reliability_axes(ax: Any, multiclass: bool) -> Any:
    """Return axes, given or new, with the diagonal and labels."""
    ax = _axes(ax, (4.6, 4.2))
    ax.plot([0, 1], [0, 1], color=STYLES["mean"]["color"], linestyle=":", linewidth=1.2, label="calibrated")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if multiclass:
        ax.set(xlabel="mean probability of the answer", ylabel="share of right answers")
    else:
        ax.set(xlabel="mean probability of the positive class", ylabel="share of the positive class")
    return ax


def _draw_reliability(ax: Any, found: _Reliability, label: str, options: dict[str, Any]) -> None:
    """Draw one curve."""
    style = {"marker": "o", "markersize": 4, "linewidth": 1.6, "label": label}
    if "color" not in options and "c" not in options:
        style["color"] = STYLES["sparse"]["color"]
    ax.plot(found.predicted, found.observed, **style | options)


def _draw_counts(ax: Any, found: _Reliability) -> None:
    """Draw the share of the samples in each bin, and their number."""
    shares, widths = found.counts / found.counts.sum(), np.diff(found.edges)
    ax.bar(
        found.edges[:-1], shares, widths, align="edge", color=GREYS[1], alpha=0.5, zorder=0, label="share of samples"
    )
    for left, width, share, number in zip(found.edges, widths, shares, found.counts, strict=False):
        if number:
            ax.text(left + width / 2, share, f"{number}", ha="center", va="bottom", fontsize=7, color="#555555")


# --- what they share ----------------------------------------------------------------------------------------------


def _at_beta(memory: Any, beta: float) -> Any:
    """Return a memory of the same patterns and, but for tensors, the same index at another inverse temperature."""
    if hasattr(memory, "_at"):
        return memory._at(float(beta))
    other = copy.copy(memory)
    other.beta = float(beta)
    return other


def _as_betas(betas: Any, own: Any, factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return inverse temperatures in ascending order: those given, or some times a memory's own."""
    if betas is None:
        if np.ndim(own) != 0:
            raise ValueError("betas: must be given for a memory with one beta for each query")
        return np.asarray(float(own) * factors)
    chosen = np.unique(as_positive_numbers("betas", betas))
    if np.ndim(betas) != 1 or len(chosen) == 0:
        raise ValueError(f"betas: must be one-dimensional, of at least one number, got {short(betas)}")
    return chosen


def _as_quantiles(quantiles: Any) -> tuple[float, float]:
    """Return the two quantiles that a band reaches from and to."""
    q = as_numbers("quantiles", quantiles)
    if q.shape != (2,) or not 0 <= q[0] <= q[1] <= 1:
        raise ValueError(f"quantiles: must be two numbers from 0 to 1 in ascending order, got {short(quantiles)}")
    return float(q[0]), float(q[1])


def _as_texts(name: str, given: Any, count: int) -> list[str]:
    """Return so many texts; other things than text are written as `str` does."""
    texts = list(map(str, as_list(name, given, f"{count} names")))
    if len(texts) != count:
        raise ValueError(f"{name}: needs {count} names, got {len(texts)}")
    return texts


def _axes(ax: Any, size: tuple[float, float] = SIZE) -> Any:
    """Return the axes, or those of a new figure if there are none."""
    if ax is None:
        return empty_figure(size, extra=EXTRA).subplots()
    _check_axes(ax)
    return ax


def _check_axes(ax: Any) -> None:
    """Raise unless an argument is one axes of Matplotlib."""
    module = require("matplotlib.axes", purpose="drawing figures", extra=EXTRA)
    if not isinstance(ax, module.Axes):
        raise TypeError(f"ax: must be axes of Matplotlib, got {short(ax)}")


def _tick_whole_numbers(ruler: Any) -> None:
    """Put the ticks of a horizontal or vertical axis at whole numbers."""
    locator = ruler.get_major_locator()
    if hasattr(locator, "_integer"):  # not one that the caller has chosen
        locator.set_params(integer=True)


def _finish(ax: Any, *, legend: bool, title: str = "") -> Any:
    """Draw the grid, and the legend if there is one, and return the axes."""
    ax.grid(alpha=0.25, linewidth=0.6)
    if legend:
        ax.legend(frameon=False, fontsize=8, title=title, title_fontsize=8)
    return ax
