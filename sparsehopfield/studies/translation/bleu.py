"""BLEU from the counts of single sentences, so that sentences can be drawn anew without translating again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.optional import require

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

#: The counts of a sentence: pieces of length 1 to 4 that are in the reference, those of the hypothesis, both lengths.
COLUMNS = (*(f"right {n}" for n in range(1, 5)), *(f"all {n}" for n in range(1, 5)), "length", "reference")
ORDER = 4
DRAWS = 2000  # of a bootstrap


def _metric() -> Any:
    """Return sacrebleu's BLEU of text that is tokenised already."""
    bleu = require("sacrebleu", purpose="the study of translation", extra="translation")
    return bleu.BLEU(tokenize="none", force=True, effective_order=True)


def signature() -> str:
    """Return what sacrebleu says of how BLEU is computed."""
    bleu = require("sacrebleu", purpose="the study of translation", extra="translation")
    metric = bleu.BLEU(tokenize="none", force=True)
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


def counts_of(hypotheses: Sequence[str], references: Sequence[str]) -> Counts:
    """Return the counts of each sentence by sacrebleu, (n, 10), in the order of `COLUMNS`."""
    metric = _metric()
    scores = [metric.sentence_score(one, [other]) for one, other in zip(hypotheses, references, strict=True)]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], np.int64).reshape(-1, len(COLUMNS))


def bleu_of(sums: Any) -> Floats:
    """Return BLEU, in per cent, of the sums of sentences' counts.

    As sacrebleu computes it of a corpus, with its exponential smoothing of orders with no match.

    Parameters
    ----------
    sums : array_like of shape (..., 10)

    Returns
    -------
    ndarray of float64, shape (...)

    References
    ----------
    Papineni, Roukos, Ward and Zhu 2002, "BLEU: a method for automatic evaluation of machine translation"; Post 2018,
    "A call for clarity in reporting BLEU scores".

    Examples
    --------
    >>> round(float(bleu_of([5, 4, 3, 2, 5, 4, 3, 2, 5, 5])), 9)
    100.0
    """
    sums = np.asarray(sums, np.float64)
    right, total, (length, reference) = (
        sums[..., :ORDER],
        sums[..., ORDER : 2 * ORDER],
        np.moveaxis(sums[..., -2:], -1, 0),
    )
    smooth = 2.0 ** np.cumsum(right == 0, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(right > 0, right, 1 / smooth) / total
        brevity = np.exp(np.minimum(0, 1 - reference / length))
        score = 100 * brevity * np.exp(np.mean(np.log(precision), axis=-1))
    none = (total == 0).any(-1) | (right == 0).all(-1)
    return np.where(none, 0.0, score)


def corpus_bleu(counts: Counts) -> float:
    """Return BLEU of all sentences together."""
    return float(bleu_of(counts.sum(axis=0)))


def bootstrap(counts: Sequence[Counts], others: Sequence[Counts], *, draws: int = DRAWS) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of a difference of mean BLEU when sentences are drawn anew.

    Parameters
    ----------
    counts, others : sequence of ndarray of shape (n, 10)
        Of the runs of two models. All have the same sentences, which are drawn for all of them together.
    draws : int

    Returns
    -------
    least, most : float

    References
    ----------
    Koehn 2004, "Statistical significance tests for machine translation evaluation".

    Examples
    --------
    >>> some = np.tile([2, 1, 1, 1, 5, 4, 3, 2, 5, 5], (20, 1))
    >>> bootstrap([some], [some])
    (0.0, 0.0)
    """
    n = len(counts[0])
    taken = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)
    mean, other = (np.mean([bleu_of(taken @ one) for one in some], axis=0) for some in (counts, others))
    least, most = np.quantile(mean - other, (0.025, 0.975))
    return float(least), float(most)
