"""Path encoding: which nodes of random trees the instances of a bag pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier, RandomTreesEmbedding

from sparsehopfield._engine.checks import as_whole
from sparsehopfield.studies.mil.baselines._base import BagClassifier, Floats, Ints, bag_of


class PathEncoding(BagClassifier):
    """Random forest on the shares of a bag's instances that pass each node of random trees.

    Trees that split at random, without labels, divide the instances; a bag becomes the share of its instances in each
    node on the way from the root. A random forest classifies these shares, and its score is the share of its trees
    less 1/2.

    Parameters
    ----------
    depth : int, at least 1
        Of the random trees.
    trees : int, at least 1
        Random trees; the forest has as many.
    random_state : int

    Notes
    -----
    Simpler than the paper, which cross-validates more of the trees' settings.

    References
    ----------
    Küçükaşcı and Baydoğan 2018, "Bag encoding strategies in multiple instance learning problems".
    """

    def __init__(self, depth: int = 5, trees: int = 100, random_state: int = 0) -> None:
        self.depth = depth
        self.trees = trees
        self.random_state = random_state

    def _check(self) -> None:
        as_whole("depth", self.depth, 1)
        as_whole("trees", self.trees, 1)

    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        options = {"n_estimators": self.trees, "random_state": self.random_state}
        self._embedding = RandomTreesEmbedding(max_depth=self.depth, **options).fit(rows)
        self._forest = RandomForestClassifier(**options).fit(self._shares(rows, offsets), positive)

    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        return self._forest.predict_proba(self._shares(rows, offsets))[:, 1] - 0.5

    def _shares(self, rows: Floats, offsets: Ints) -> Floats:
        """Return the share of each bag's instances that pass each node, (B, nodes)."""
        passed, _ = self._embedding.decision_path(rows)
        mean = sparse.csr_array((1 / np.diff(offsets)[bag_of(offsets)], np.arange(len(rows)), offsets))
        return (mean @ passed).toarray()
