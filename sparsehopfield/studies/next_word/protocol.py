"""The protocol of the study of the next word: n-grams, memories of contexts, and both, by perplexity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import HopfieldMemory, row_maps
from sparsehopfield.studies.next_word.task import ContextVectors, Floats, KneserNey, Source, Text, Words, text_of

#: The maps, as functions of rows of scores.
MAPS: dict[str, Callable[[ArrayLike], NDArray[Any]]] = {
    "softmax": row_maps.softmax,
    "sparsemax": row_maps.sparsemax,
    "entmax15": partial(row_maps.entmax, alpha=1.5),
}
METRICS = ("perplexity", "least", "most", "share", "beta used", "support", "cut", "seen")

#: What is chosen by validation: the memory's share of the mixture, and beta.
SHARES = tuple(np.linspace(0, 0.95, 20).round(2).tolist())
BETAS = {
    "softmax": (2.0, 4.0, 8.0, 16.0, 32.0),
    "sparsemax": (0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0),
    "entmax15": (0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0),
}
#: Weights of the distances of words in a context.
WEIGHTS = (1.0, 0.8, 0.65, 0.5)
#: Draws of the bootstrap, of sentences.
DRAWS = 1000


@dataclass(frozen=True)
class Model:
    """How words are predicted: features for each distance, and how many contexts a mixture is of at most."""

    dims: int
    nearest: int


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

    For a map with a cutoff the nearest contexts are all that can have weight, unless all of them have.
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
    plain, tried = n_grams(source, count, order)[0], []
    for beta in BETAS[separation]:
        near = validated(source, count, separation, beta, model)
        tried += [(perplexity((1 - share) * plain + share * near), share, beta) for share in SHARES]
    _, share, beta = min(tried)
    return share, beta


def perplexity(p: Floats) -> float:
    """Return e to the mean negative logarithm of probabilities."""
    return float(np.exp(-np.mean(np.log(p))))


def evaluate(source: Source, setting: Mapping[str, Any], model: Model) -> dict[str, float]:
    """Measure one setting.

    Parameters
    ----------
    source : Source
        Where the text comes from.
    setting : mapping
        `sentences`, `order` and `map`, "-" for n-grams alone.
    model : Model

    Returns
    -------
    dict
        `perplexity` of the words to test with; `least` and `most`, the 2.5 and 97.5 % quantiles of its ratio to that of
        n-grams alone, less 1, over draws of sentences; the memory's `share` and `beta used`; `support`, the mean number
        of contexts with weight; `cut`, for how many words all that were found have weight, so that more might; `seen`,
        for how many the right word followed one with weight.
    """
    count, order, separation = setting["sentences"], setting["order"], setting["map"]
    text, plain = text_of(source, count), n_grams(source, count, order)[1]
    if separation == "-":
        return dict.fromkeys(METRICS, float("nan")) | {"perplexity": perplexity(plain), "share": 0.0}
    share, beta = chosen(source, count, order, separation, model)
    found = nearest_of(source, count, model)[1]
    near, support = by_memory(found, separation, beta)
    mixed = (1 - share) * plain + share * near
    least, most = interval(np.log(plain) - np.log(mixed), text.test.sentence)
    return {
        "perplexity": perplexity(mixed),
        "least": least,
        "most": most,
        "share": share,
        "beta used": beta,
        "support": float(support.mean()),
        "cut": float((support == found.hits.shape[1]).mean()),
        "seen": float((near > 0).mean()),
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
