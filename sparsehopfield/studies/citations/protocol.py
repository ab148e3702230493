"""The protocol of the study of citations: a beta for each map, and what is found, cited and certified with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies._core.search import best_beta
from sparsehopfield.studies.citations.task import Floats, Positions, Source, task_of

MAPS = ("softmax", "sparsemax", "entmax15")
#: Betas of which validation chooses, and of others between the limits while an end of them is the best.
BETAS = {
    "softmax": (8.0, 16.0, 32.0, 64.0, 128.0),
    "sparsemax": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    "entmax15": (2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
}
LIMITS = {"softmax": (1.0, 4096.0), "sparsemax": (0.25, 1024.0), "entmax15": (0.5, 2048.0)}
#: Passages that are counted as found.
DEPTHS = (1, 5, 10)
METRICS = (
    *(f"recall@{k}" for k in DEPTHS),
    "cited",
    "weight",
    "support",
    "gap",
    "certified",
    "right",
    "others right",
    "unknown",
    "beta used",
    "asked",
    "stored",
    "features",
)
#: Questions of a kind that a beta is chosen by.
VALIDATED = 200
#: Weights of softmax below this are not listed; all of them count as support.
LEAST = 1e-6


def memory_of(source: Source, separation: str, beta: float) -> HopfieldMemory:
    """Return the memory of all passages under a model; it is one object, so that its index is built once."""
    memory = _memory(source)
    memory.separation, memory.beta = separation, beta
    return memory


@lru_cache(maxsize=1)
def _memory(source: Source) -> HopfieldMemory:
    """Store the unit vectors of all passages, so that scores are cosines."""
    return HopfieldMemory(task_of(source).vectors)


def weights_on(memory: HopfieldMemory, asked: Floats, at: Positions) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return of each question the weight on its source, the sum of squared weights, and how many have weight."""
    weights = memory.associate(asked, min_weight=LEAST if memory.separation == "softmax" else None)
    support = np.diff(weights.indptr)
    row = np.repeat(np.arange(len(asked)), support)
    of_source, numbers = weights.indices == at[row], weights.data.astype(np.float64)
    on_source = np.bincount(row[of_source], numbers[of_source], len(asked))
    squares = np.bincount(row, numbers**2, len(asked))
    return on_source, squares, np.full(len(asked), len(memory)) if memory.separation == "softmax" else support


@cache
def beta_of(source: Source, separation: str, kinds: tuple[str, ...], seed: int) -> float:
    """Return the beta whose weights are closest to all weight on the source, by the squared distance (Brier 1950).

    Mean over all kinds of questions, of passages that are not tested with.
    """
    task = task_of(source)
    asked = [task.ask(kind, VALIDATED, derive_seed(seed, 1, i), part=0) for i, kind in enumerate(kinds)]
    queries, at = (np.concatenate(part) for part in zip(*asked, strict=True))
    known = queries.any(axis=1)

    def distance(beta: float) -> float:
        on_source, squares, _ = weights_on(memory_of(source, separation, beta), queries[known], at[known])
        return float(np.mean(squares - 2 * on_source))

    return best_beta(distance, BETAS[separation], LIMITS[separation])


@dataclass(frozen=True)
class Plan:
    """The questions of a run: their kinds, how many words vague ones have, and how many there are."""

    kinds: tuple[str, ...]
    left: tuple[int, ...]
    questions: int
    seed: int


def evaluate(source: Source, setting: Mapping[str, Any], plan: Plan) -> dict[str, float]:
    """Measure one setting.

    Parameters
    ----------
    source : Source
        Where passages come from.
    setting : mapping
        `questions`, `left`, `map`, `beta` and `seed`.
    plan : Plan

    Returns
    -------
    dict
        The metrics, in the order of `METRICS`: shares of questions whose source is among the best 1, 5 and 10 and
        among those with weight; its mean weight; the mean number with weight; the mean gap between the best two
        scores; the share of certified answers, how many of these are the source, and of the best of all others; the
        share of questions without a known word, which count as not found; beta; and the numbers of questions, of
        passages and of their features. Nan where there is nothing to average.
    """
    task, separation = task_of(source), setting["map"]
    if setting["left"] == "-":
        queries, at = task.ask(setting["questions"], plan.questions, setting["seed"], part=1)
    else:
        asked, at = task.vague(plan.left, plan.questions, setting["seed"])
        queries = asked[setting["left"]]
    chosen = setting["beta"]
    beta = beta_of(source, separation, plan.kinds, plan.seed) if chosen == "chosen" else float(chosen)
    return measured(memory_of(source, separation, beta), queries, at)


def measured(memory: HopfieldMemory, queries: Floats, at: Positions) -> dict[str, float]:
    """Measure what a memory makes of questions (n, d) whose sources are at these positions."""
    known = queries.any(axis=1)
    found: dict[str, float] = dict.fromkeys(METRICS, float("nan"))
    found |= {"unknown": 1 - float(known.mean()), "beta used": float(np.asarray(memory.beta))}
    found |= {"asked": float(len(at)), "stored": float(len(memory)), "features": float(queries.shape[1])}
    asked, sources = queries[known], at[known]
    best, scores = memory.nearest(asked, max(DEPTHS))
    for k in DEPTHS:
        found[f"recall@{k}"] = float((best[:, :k] == sources[:, None]).any(axis=1).sum() / len(at))
    if not len(asked):
        return found | {"cited": 0.0, "weight": 0.0}
    on_source, _, support = weights_on(memory, asked, sources)
    found |= {
        "cited": float((on_source > 0).sum() / len(at)),
        "weight": float(on_source.sum() / len(at)),
        "support": float(support.mean()),
        "gap": float((scores[:, 0] - scores[:, 1]).mean()),
    }
    if memory.separation == "softmax":
        return found | {"cited": float("nan")}  # all are
    certified = memory.certify(asked).index >= 0
    right = best[:, 0] == sources
    found["certified"] = float(certified.sum() / len(at))
    for name, which in (("right", certified), ("others right", ~certified)):
        found[name] = float(right[which].mean()) if which.any() else float("nan")
    return found
