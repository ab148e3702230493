"""The protocol of the study of the next word: n-grams, memories of contexts, and both, by perplexity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import row_maps
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.studies._core.search import best_beta
from sparsehopfield.studies.next_word.task import (
    UNKNOWN,
    ContextVectors,
    Floats,
    KneserNey,
    Source,
    Text,
    Words,
    text_of,
)

#: The maps, as functions of rows of scores.
MAPS: dict[str, Callable[[ArrayLike], NDArray[Any]]] = {
    "softmax": row_maps.softmax,
    "sparsemax": row_maps.sparsemax,
    "entmax15": partial(row_maps.entmax, alpha=1.5),
}
#: In place of a map: n-grams alone.
ALONE = "-"
METRICS = (
    "perplexity",
    "validation",
    "known",
    "least",
    "most",
    "best least",
    "best most",
    "softmax least",
    "softmax most",
    "share",
    "beta used",
    "support",
    "cut",
    "seen",
    "words",
    "unknown",
    "vocabulary",
    "searched",
)

#: What is chosen by validation: the memory's share of the mixture, and beta. As many betas are tried first for each
#: map, and more while an end of them is the best.
SHARES = (*np.linspace(0, 0.95, 20).round(2).tolist(), 0.98, 0.99)
BETAS = {
    "softmax": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    "sparsemax": tuple(2.0**i for i in range(-8, -2)),
    "entmax15": tuple(2.0**i for i in range(-5, 1)),
}
LIMITS = {"softmax": (2.0**-4, 2.0**12), "sparsemax": (2.0**-12, 2.0**8), "entmax15": (2.0**-10, 2.0**10)}
#: Weights of the distances of words in a context.
WEIGHTS = (1.0, 0.8, 0.65, 0.5)
#: Draws of the bootstrap, of sentences.
DRAWS = 1000


@dataclass(frozen=True)
class Model:
    """The settings of a memory: features for each distance, and how many contexts a mixture is of at most."""

    dims: int
    nearest: int


@dataclass(frozen=True)
class Plan:
    """The baselines of results: n-grams of these orders, and maps, softmax perhaps among them."""

    orders: tuple[int, ...]
    maps: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """The nearest contexts of each word's context: scores (n, k), and whether what followed them is the word."""

    scores: Floats
    hits: NDArray[np.bool_]


@lru_cache(maxsize=8)
def n_grams(source: Source, count: int, order: int) -> tuple[Floats, Floats]:
    """Return the probabilities of the words to validate and to test with by n-grams."""
    text = text_of(source, count)
    model = KneserNey(text.train, order, len(text.vocabulary))
    validation, test = (model.probability(part.contexts, part.following) for part in (text.validation, text.test))
    return validation, test


def memory_of(text: Text, dims: int) -> tuple[HopfieldMemory, ContextVectors]:
    """Store the contexts of all words to train with, and what makes their vectors."""
    vectors = ContextVectors(text.train, len(text.vocabulary), dims, WEIGHTS)
    return HopfieldMemory(vectors.vectors(text.train.contexts), similarity="euclidean"), vectors


@lru_cache(maxsize=1)
def nearest_of(source: Source, count: int, model: Model) -> tuple[Found, Found]:
    """Find the nearest stored contexts of the words to validate and to test with."""
    text = text_of(source, count)
    memory, vectors = memory_of(text, model.dims)

    def found(part: Words) -> Found:
        positions, scores = memory.nearest(vectors.vectors(part.contexts), min(model.nearest, len(memory)))
        return Found(scores, text.train.following[positions] == part.following[:, None])

    return found(text.validation), found(text.test)


def by_memory(found: Found, separation: str, beta: float) -> tuple[Floats, NDArray[np.int64]]:
    """Return the weight on contexts that the right word followed, and how many contexts have weight, (n,) each.

    Weights are of the nearest contexts alone, over which they sum to one. For a map with a cutoff no others can have
    weight, unless all of these have; softmax is cut off behind them.
    """
    p, support = np.empty(len(found.hits)), np.empty(len(found.hits), np.int64)
    for first in range(0, len(p), 512):
        part = slice(first, first + 512)
        weights = MAPS[separation](beta * found.scores[part])
        p[part] = np.sum(weights, axis=1, where=found.hits[part])
        support[part] = np.count_nonzero(weights, axis=1)
    return p, support


@lru_cache(maxsize=64)
def validated(source: Source, count: int, separation: str, beta: float, model: Model) -> Floats:
    """Return what a memory gives the words to validate with; kept, as n-grams of each order are mixed with it."""
    return by_memory(nearest_of(source, count, model)[0], separation, beta)[0]


@lru_cache(maxsize=16)
def chosen(source: Source, count: int, order: int, separation: str, model: Model) -> tuple[float, float]:
    """Return the share and beta of the memory with the least perplexity of the words to validate with."""
    plain = n_grams(source, count, order)[0]

    def best(beta: float) -> tuple[float, float]:
        near = validated(source, count, separation, beta, model)
        return min((perplexity((1 - share) * plain + share * near), share) for share in SHARES)

    beta = best_beta(lambda beta: best(beta)[0], BETAS[separation], LIMITS[separation])
    return best(beta)[1], beta


@dataclass(frozen=True, eq=False)
class Mixture:
    """N-grams mixed with a memory: its share and beta, and what it gives the words to validate and to test with.

    Attributes
    ----------
    share, beta : float
        No share and nan for n-grams alone.
    validation, test : ndarray of float64
        Probabilities of the words.
    near : ndarray of float64
        What the memory alone gives the words to test with.
    support : ndarray of int64
        How many contexts have weight for each of these.
    """

    share: float
    beta: float
    validation: Floats
    test: Floats
    near: Floats
    support: NDArray[np.int64]


@lru_cache(maxsize=8)
def mixture_of(source: Source, count: int, order: int, separation: str, model: Model) -> Mixture:
    """Return the mixture of a setting; kept, as those of one order are held against softmax's."""
    validation, test = n_grams(source, count, order)
    if separation == ALONE:
        return Mixture(0.0, float("nan"), validation, test, np.zeros(len(test)), np.zeros(len(test), np.int64))
    share, beta = chosen(source, count, order, separation, model)
    near, support = by_memory(nearest_of(source, count, model)[1], separation, beta)
    of_validation = validated(source, count, separation, beta, model)
    return Mixture(
        share, beta, (1 - share) * validation + share * of_validation, (1 - share) * test + share * near, near, support
    )


def perplexity(p: Floats) -> float:
    """Return e to the mean negative logarithm of probabilities."""
    return float(np.exp(-np.mean(np.log(p))))


def evaluate(source: Source, setting: Mapping[str, Any], model: Model, plan: Plan) -> dict[str, float]:
    """Measure one setting.

    Parameters
    ----------
    source : Source
        Where the text comes from.
    setting : mapping
        `sentences`, `order` and `map`, "-" for n-grams alone.
    model : Model
    plan : Plan

    Returns
    -------
    dict
        `perplexity` of the words to test with, of those to validate with (`validation`), and of the words to test with
        that are in the vocabulary (`known`). `least` and `most`, the 2.5 and 97.5 % quantiles of its ratio to that of
        the same n-grams alone, less 1, over draws of sentences; the same against the best n-grams by validation
        (`best least`, `best most`) and against softmax and the same n-grams (`softmax least`, `softmax most`). The
        memory's `share` and `beta used`; `support`, the mean number of contexts with weight; `cut`, for how many words
        all that were searched for have weight, so that more might; `seen`, for how many a context with weight was
        followed by the right word; how many were `searched` for. The `words` to test with, the share of these that is
        `unknown`, and the `vocabulary`. Nan where there is nothing to measure.
    """
    count, order, separation = setting["sentences"], setting["order"], setting["map"]
    text, mixture = text_of(source, count), mixture_of(source, count, order, separation, model)
    words = text.test
    known = words.following != UNKNOWN
    found = dict.fromkeys(METRICS, float("nan")) | {
        "perplexity": perplexity(mixture.test),
        "validation": perplexity(mixture.validation),
        "known": perplexity(mixture.test[known]) if known.any() else float("nan"),
        "share": mixture.share,
        "words": float(len(known)),
        "unknown": float(np.mean(~known)),
        "vocabulary": float(len(text.vocabulary)),
    }
    if separation == ALONE:
        return found

    def against(name: str, other: Mixture) -> dict[str, float]:
        least, most = interval(np.log(other.test) - np.log(mixture.test), words.sentence)
        return {f"{name}least": least, f"{name}most": most}

    best = min(plan.orders, key=lambda order: perplexity(n_grams(source, count, order)[0]))
    found |= against("", mixture_of(source, count, order, ALONE, model))
    found |= against("best ", mixture_of(source, count, best, ALONE, model))
    if "softmax" in plan.maps and separation != "softmax":
        found |= against("softmax ", mixture_of(source, count, order, "softmax", model))
    searched = nearest_of(source, count, model)[1].hits.shape[1]
    return found | {
        "beta used": mixture.beta,
        "support": float(mixture.support.mean()),
        "cut": float((mixture.support == searched).mean()),
        "seen": float((mixture.near > 0).mean()),
        "searched": float(searched),
    }


def interval(difference: Floats, sentence: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of e to the mean difference, less 1, when sentences are drawn anew.

    Parameters
    ----------
    difference : ndarray of float64, shape (n,)
        Of the logarithms of two models' probabilities of the same words.
    sentence : ndarray of int64, shape (n,)
        Which sentence each word is in.
    """
    sums, counts = np.bincount(sentence, difference), np.bincount(sentence)
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    ratios = np.exp(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)) - 1
    least, most = np.quantile(ratios, (0.025, 0.975))
    return float(least), float(most)
