"""The protocols of the paper's figure 1, which the capacity and the robustness study share.

Some images are stored as patterns; stored images are damaged and used as queries; one is retrieved when the cosine
error `1 - cos(T(x), xi)` between what the model makes of the query and the stored image is below a threshold. The
studies differ in the damage and in what grows along the axis, nothing else. `PROTOCOLS` has what is left to choose:
the paper's text, its released code, and the same with one factor for all models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.call import still_moving
from sparsehopfield._engine.separations import FAMILIES, ROWS
from sparsehopfield._engine.text import short
from sparsehopfield.data.datasets import ImageSet
from sparsehopfield.functional import retrieve

Floats = NDArray[np.float32]

#: The models by the names that the studies use for them, and the separation map of each. "mean" is no model
#: but the measure of how much a success means: it answers every query with the mean of the stored images.
MODELS: dict[str, Any] = {
    "sparse": "sparsemax",
    "dense": "softmax",
    **{row.alias or row.name: row.alias or FAMILIES[row.name](row.standard) for row in reversed(ROWS) if row.parameter},
    "mean": None,
}
MASKS = ("upper", "lower", "left", "right")

#: Cosine errors below which a pattern counts as retrieved: the paper's for its three data sets. The digits of
#: 8 x 8 pixels are so alike that at 0.5 the mean image passes for every one of them.
THRESHOLDS = {"digits": 0.1, "mnist": 0.5, "cifar10": 0.1, "imagenet64": 0.1}


@dataclass(frozen=True)
class Protocol:
    """A way to compare models: the patterns, the scores of each model, and when a pattern counts as retrieved.

    Attributes
    ----------
    summary : str
        What it does, in words.
    thresholds : mapping of str to float
        The cosine error below which a pattern counts as retrieved, by the name of the data set.
    runs : int
        How many draws for each setting.
    in_order : bool
        Whether the images are stored in the order of their file, from the first on, instead of drawn.
    factors : mapping of str to float, optional
        By model, the factor of its scores, which are dot products divided by their sum over the stored patterns. None:
        scores are of the similarity and the beta that the study is asked for.
    """

    summary: str
    thresholds: Mapping[str, float]
    runs: int
    in_order: bool
    factors: Mapping[str, float] | None


#: The released code is that of github.com/MAGICS-LAB/SparseModernHopfield, theoretical_results_validation. Whatever
#: threshold it is called with, it sets 20 per cent. Of its models only softmax takes the factor of 1,000.
PROTOCOLS = {
    "printed": Protocol("the paper's text: dot products times beta", THRESHOLDS, 10, False, None),
    "released": Protocol(
        "the released code: dot products divided by their sum, times 1,000 for the dense model alone",
        dict.fromkeys(THRESHOLDS, 0.2),
        1,
        True,
        {"sparse": 1.0, "dense": 1000.0, "polynomial": 1.0, "mean": 1.0},
    ),
    "fair": Protocol(
        "as released, but times 1,000 for all models",
        dict.fromkeys(THRESHOLDS, 0.2),
        1,
        True,
        dict.fromkeys(MODELS, 1000.0),
    ),
}


@dataclass(frozen=True)
class Study:
    """The differences between the retrieval studies.

    Attributes
    ----------
    name : str
        Its name on the command line.
    level : str
        The column of the table that says how queries are damaged.
    damage : callable
        `damage(images, shape, level, rng)` returns the damaged images.
    axis : str
        The column along the figure's horizontal axis.
    xlabel : str
        The label of that axis.
    """

    name: str
    level: str
    damage: Callable[[Floats, tuple[int, ...], Any, np.random.Generator], Floats]
    axis: str
    xlabel: str


# The damage


def half_masked(images: Floats, shape: tuple[int, ...], side: str, rng: np.random.Generator | None = None) -> Floats:
    """Set one half of each image to zero.

    Parameters
    ----------
    images : ndarray of shape (N, d)
        The images; not changed.
    shape : tuple of int
        Shape of one image, rows and columns last.
    side : {"upper", "lower", "left", "right"}
        The half.
    rng : Generator, optional
        Not used; here so that both kinds of damage are called alike.

    Returns
    -------
    ndarray of shape (N, d)
        The damaged images.
    """
    damaged = images.reshape(-1, *shape).copy()
    height, width = (size // 2 for size in shape[-2:])
    if side == "upper":
        damaged[..., :height, :] = 0
    elif side == "lower":
        damaged[..., shape[-2] - height :, :] = 0
    elif side == "left":
        damaged[..., :width] = 0
    elif side == "right":
        damaged[..., shape[-1] - width :] = 0
    else:
        raise ValueError(f"mask: unknown side {short(side)}; valid: {', '.join(MASKS)}")
    return damaged.reshape(images.shape)


def noisy(images: Floats, shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Floats:
    """Add Gaussian noise and clip: `clip(|x + sigma g|, 0, 1)`.

    Parameters
    ----------
    images : ndarray of shape (N, d)
        The images; not changed.
    shape : tuple of int
        Not used; here so that both kinds of damage are called alike.
    sigma : float
        Standard deviation of the noise.
    rng : Generator
        The generator of the noise.

    Returns
    -------
    ndarray of shape (N, d)
        The damaged images.
    """
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(np.abs(images + np.float32(sigma) * noise), 0, 1)


# One measurement


def draw(
    images: ImageSet, size: int, queries: int, seed: int, *, protocol: str = "printed", run: int = 0
) -> tuple[Floats, NDArray[np.intp], np.random.Generator]:
    """Draw the patterns of one run and say which of them are queried.

    Parameters
    ----------
    images : ImageSet
        The images to draw from.
    size : int
        How many patterns to store, drawn without replacement.
    queries : int
        How many of them to query at most.
    seed : int
        The run's seed, as the table has it.
    protocol : str
        One of `PROTOCOLS`. Where it stores images in order, the first of them are queried, too.
    run : int
        The number of the run: in order, each takes the images behind those of the run before.

    Returns
    -------
    patterns : ndarray of float32 of shape (size, d)
        Pixels between 0 and 1.
    queried : ndarray of int
        Positions of the patterns that are queried.
    rng : Generator
        The generator, to draw the noise from.
    """
    rng = np.random.default_rng(seed)
    if PROTOCOLS[protocol].in_order:
        return images.pixels(slice(run * size, (run + 1) * size)), np.arange(min(size, queries)), rng
    patterns = images.pixels(rng.choice(len(images), size, replace=False))
    return patterns, rng.permutation(size)[:queries], rng


def sharing_scores(queries: Floats, patterns: Floats) -> NDArray[np.float64]:
    """Scale each query so that its dot products with all patterns sum to 1.

    Parameters
    ----------
    queries, patterns : ndarray of shapes (N, d) and (M, d)
        Pixels, at least 0.

    Returns
    -------
    ndarray of float64 of shape (N, d)
        The scaled queries; one whose products are all 0 becomes 0.
    """
    exact = queries.astype(np.float64)
    sums = (exact @ patterns.sum(axis=0, dtype=np.float64))[:, None]
    return np.divide(exact, sums, out=np.zeros_like(exact), where=sums > 0)


def attempt(
    queries: NDArray[Any],
    patterns: Floats,
    *,
    model: str,
    similarity: str = "dot",
    beta: float = 1.0,
    steps: int = 1,
    protocol: str = "printed",
) -> tuple[Floats, Any]:
    """Retrieve with one of the models.

    Parameters
    ----------
    queries, patterns : ndarray of shapes (N, d) and (M, d)
        The damaged images and the stored ones.
    model : str
        One of `MODELS`.
    similarity : {"dot", "euclidean", "cosine"}
        The similarity of scores.
    beta : float
        The inverse temperature.
    steps : int
        Number of updates; 0 means to the fixed point.
    protocol : str
        One of `PROTOCOLS`. One that has factors takes no other similarity, beta and steps than these defaults.

    Returns
    -------
    states : ndarray of shape (N, d)
        The retrieved states.
    info : RetrievalInfo
        Steps, support sizes and so on.
    """
    if model == "mean":
        count = len(queries)
        return np.tile(patterns.mean(axis=0), (count, 1)), SimpleNamespace(
            steps=np.zeros(count, int), converged=np.ones(count, bool), support_size=np.full(count, len(patterns))
        )
    factors = PROTOCOLS[protocol].factors
    if factors is not None:
        queries, beta = sharing_scores(queries, patterns), factors[model]
    with still_moving():  # after a given number of steps most queries have not settled: as asked
        states, info = retrieve(
            queries,
            patterns,
            beta,
            max_steps=steps or 1000,
            return_info=True,
            similarity=similarity,
            separation=MODELS[model],
        )
    if factors is not None:
        states[~queries.any(axis=1)] = 0  # no scores, no answer: nothing is retrieved
    return states, info


def compare(states: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Compare each retrieved state with what was stored, by no threshold yet.

    Parameters
    ----------
    states, targets : ndarray of shape (N, d)
        What was retrieved, and what should have been.

    Returns
    -------
    cosines : ndarray of shape (N,)
        The cosine of each state and its target; 0 where either is 0.
    exact : ndarray of bool of shape (N,)
        Whether they are equal but for float32 rounding (4 eps of the largest pixel).
    """
    states, targets = states.astype(float), targets.astype(float)
    lengths = np.linalg.norm(states, axis=1) * np.linalg.norm(targets, axis=1)
    products = np.einsum("ij,ij->i", states, targets)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    slack = 4 * np.finfo(np.float32).eps * np.abs(targets).max(axis=1)
    return cosines, np.abs(states - targets).max(axis=1) <= slack


def judge(states: Floats, targets: Floats, threshold: float) -> dict[str, float]:
    """Compare what was retrieved with what was stored.

    Parameters
    ----------
    states, targets : ndarray of shape (N, d)
        What was retrieved, and what should have been.
    threshold : float
        A pattern is retrieved when its cosine error is below this.

    Returns
    -------
    dict
        As of `shares`.
    """
    return shares(*compare(states, targets), threshold)


def shares(cosines: NDArray[np.float64], exact: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Sum up what `compare` returned.

    Parameters
    ----------
    cosines, exact : ndarray of shape (N,)
        Its results.
    threshold : float
        A pattern is retrieved when its cosine error is below this.

    Returns
    -------
    dict
        `retrieved`: the share below the threshold; `cosine`: the mean cosine; `exact`: the share that
        equals the stored pattern.
    """
    return {
        "retrieved": float(np.mean(1 - cosines < threshold)),
        "cosine": float(np.mean(cosines)),
        "exact": float(np.mean(exact)),
    }
