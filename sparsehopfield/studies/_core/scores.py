"""Measure how well the scores of a classifier tell its classes apart, for studies that compare classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.optional import require


def auc(labels: NDArray[np.int64], scores: NDArray[np.floating[Any]]) -> float:
    """Compute the share of pairs of a positive and a negative that are in the right order; ties count half."""
    return float(require("sklearn.metrics", purpose="the area under the curve").roc_auc_score(labels, scores))
