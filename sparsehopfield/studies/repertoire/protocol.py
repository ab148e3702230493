"""The protocol of the study of repertoires: what is drawn, which k-mers are looked at, and what is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.optional import require
from sparsehopfield.data.repertoires import Repertoires, kmers, load_airr, simulate
from sparsehopfield.studies._core.options import derive_seed

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sparsehopfield.estimators import HopfieldMILClassifier

Floats = NDArray[np.float64]

#: The separation maps of the networks, and what alpha grows to from 1, softmax, in the first part of the epochs.
ALPHA = {"sparsemax": 2.0, "entmax15": 1.5, "softmax": None}
#: What classifies without a network: regression on how often k-mers are there, and the count of the implanted motifs.
COUNTS, MOTIF = "counts", "motif"
MODELS = (*ALPHA, COUNTS, MOTIF)

WHOLE = ("auc", "accuracy")
METRICS = (
    *WHOLE,
    "support",
    "found",
    "key weight",
    "precision",
    "recall",
    "precision above 1/n",
    "recall above 1/n",
    "average precision",
)

#: The same for all maps, sizes and rates.
SETTINGS: dict[str, Any] = {
    "embedding": (32,),
    "hidden_size": 16,
    "num_heads": 1,
    "beta": 0.1,
    "normalize": False,
    "standardize": False,
    "initial_std": 0.3,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "validation_fraction": 0.2,
    "early_stopping": "loss",
}
#: Share of a file's repertoires that are tested with.
TESTED = 1 / 3
#: The regression chooses from these by cross-validation: how many k-mers, and the strength of its penalty.
NUMBERS, PENALTIES = (1, 4, 16, 64, 256), (0.01, 1.0)


@dataclass(frozen=True)
class Source:
    """The origin of repertoires, by which processes can make them by themselves: a file of labels, or a recipe."""

    file: str | None
    label: str
    positive: str | None
    bags: int
    tested: int
    motifs: int
    gap: float
    deletion: float
    k: int
    features: int
    counts: bool

    def repertoires(self, size: Any, rate: Any, seed: int) -> tuple[list[Repertoires], list[Repertoires]]:
        """Return the repertoires of one run, to train and to test with, in parts."""
        if self.file is not None:
            return self._split(seed)
        first = simulate(2, 1, 1.0, motifs=self.motifs, seed=derive_seed(seed, 0))
        recipe: dict[str, Any] = {"motifs": first.motifs, "gap": self.gap, "deletion": self.deletion}

        def drawn(part: int, count: int) -> list[Repertoires]:
            pairs = [simulate(2, size, rate, seed=derive_seed(seed, part, i), **recipe) for i in range(count // 2)]
            return [replace(pair, names=(f"{2 * i:05}", f"{2 * i + 1:05}")) for i, pair in enumerate(pairs)]

        return drawn(1, self.bags), drawn(2, self.tested)

    def digest(self) -> dict[str, str]:
        """Return what identifies the repertoires of the file; nothing where they are simulated."""
        if self.file is None:
            return {}
        everything = _loaded(self.file, self.label, self.positive)
        digest = sha256("\n".join(everything.names).encode())
        for numbers in (everything.sequences, everything.offsets, everything.labels, everything.counts):
            digest.update(np.ascontiguousarray(numbers).tobytes())
        return {"repertoires": digest.hexdigest()}

    def _split(self, seed: int) -> tuple[list[Repertoires], list[Repertoires]]:
        """Return the file's repertoires, split at random with as many positive ones in both parts as there may be."""
        assert self.file is not None
        everything = _loaded(self.file, self.label, self.positive)
        random = np.random.default_rng(seed)
        train, test = [], []
        for value in (0, 1):
            some = random.permutation(np.flatnonzero(everything.labels == value))
            tested = round(len(some) * TESTED)
            train += some[tested:].tolist()
            test += some[:tested].tolist()
        return tuple([everything.part(i, i + 1) for i in sorted(part)] for part in (train, test))  # type: ignore[return-value]


@lru_cache(maxsize=1)
def _loaded(file: str, label: str, positive: str | None) -> Repertoires:
    """Load the repertoires of a file of labels, once in each process."""
    return load_airr(file, label=label, positive=positive)


@dataclass(frozen=True, eq=False)
class Part:
    """Repertoires to train or to test with.

    Attributes
    ----------
    repertoires : list of Repertoires
        In parts of one or two.
    k : int
        Letters of a k-mer.
    weighted : bool
        Whether the k-mers of a sequence that was seen c times count 1 + log(c) instead of 1.
    """

    repertoires: list[Repertoires]
    k: int
    weighted: bool

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Return all labels."""
        return np.concatenate([one.labels for one in self.repertoires])

    def single(self, index: int) -> Repertoires:
        """Return one repertoire."""
        for one in self.repertoires:
            if index < len(one):
                return one.part(index, index + 1)
            index -= len(one)
        raise IndexError(index)

    def counted(self, one: Repertoires, columns: NDArray[np.int64] | None = None) -> csr_array:
        """Count the k-mers of the sequences of some repertoires."""
        weights = 1 + np.log(one.counts) if self.weighted else None
        return kmers(one.sequences, self.k, columns=columns, weights=weights)

    @cached_property
    def shares(self) -> Floats:
        """Return the root of how often each k-mer is in a sequence on average, (repertoires, 20**k)."""
        rows = []
        for one in self.repertoires:
            counted = self.counted(one)
            for first, end in zip(one.offsets[:-1], one.offsets[1:], strict=True):
                entries = slice(*counted.indptr[[first, end]])
                total = np.bincount(counted.indices[entries], counted.data[entries], counted.shape[1])
                rows.append(np.sqrt(total / (end - first)))
        return np.stack(rows)

    def bags(self, columns: NDArray[np.int64]) -> list[csr_array]:
        """Return the k-mers of some columns in the sequences of each repertoire, a sparse bag each."""
        found = []
        for one in self.repertoires:
            counted = self.counted(one, columns)
            found += [counted[first:end] for first, end in zip(one.offsets[:-1], one.offsets[1:], strict=True)]
        return found


@dataclass(frozen=True, eq=False)
class Task:
    """The repertoires of one run, and the k-mers whose shares differ most between the two classes of those trained on.

    Attributes
    ----------
    train, test : Part
    columns : ndarray of int, shape (features,)
        The numbers of the k-mers, those that differ most first.
    """

    train: Part
    test: Part
    columns: NDArray[np.int64]

    @cached_property
    def train_bags(self) -> list[csr_array]:
        """Return the bags to train with."""
        return self.train.bags(self.columns)

    @cached_property
    def test_bags(self) -> list[csr_array]:
        """Return the bags to test with."""
        return self.test.bags(self.columns)


@lru_cache(maxsize=1)
def task_of(source: Source, size: Any, rate: Any, seed: int) -> Task:
    """Draw the repertoires of one run, once for all its models."""
    train, test = (Part(some, source.k, source.counts) for some in source.repertoires(size, rate, seed))
    return Task(train, test, differing(train.shares, train.labels, source.features))


def differing(shares: Floats, labels: NDArray[np.int64], features: int) -> NDArray[np.int64]:
    """Return the columns whose means differ most between two classes, in units of their deviations, the first most."""
    selection = require("sklearn.feature_selection", purpose="the choice of k-mers")
    varying = np.flatnonzero(np.ptp(shares, axis=0) > 0)
    values, _ = selection.f_classif(shares[:, varying], labels)
    order: NDArray[np.int64] = varying[np.argsort(-np.nan_to_num(values), kind="stable")[:features]]
    return order


def trained(task: Task, model: str, seed: int, epochs: int, anneal: float) -> HopfieldMILClassifier:
    """Train a network.

    Parameters
    ----------
    task : Task
    model : {"sparsemax", "entmax15", "softmax"}
        The separation map.
    seed : int
        Of the initial weights, the order of the bags and the inner split.
    epochs : int
    anneal : float
        Share of the epochs in which a sparse map comes about from softmax; 0: it is there from the first step on.
    """
    from sparsehopfield.estimators import HopfieldMILClassifier  # here: only those who train need scikit-learn

    alpha = ALPHA[model]
    machine = HopfieldMILClassifier(
        model,
        epochs=epochs,
        anneal=None if alpha is None or not anneal else ("alpha", 1.0, alpha, anneal),
        random_state=seed,
        **SETTINGS,
    )
    return machine.fit(task.train_bags, task.train.labels)


def evaluate(
    source: Source, setting: Mapping[str, Any], epochs: int, anneal: float
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measure one setting.

    Parameters
    ----------
    source : Source
    setting : mapping
        Its `size`, `rate`, `model` and `seed`.
    epochs, anneal
        As in `trained`.

    Returns
    -------
    values : dict
        `auc` and `accuracy` over the repertoires to test with. Of a network, the mean over the positive ones (of a
        file, over all) of `support`: how many sequences have weight. Where it is known which sequences were implanted,
        the means over the positive ones of `found`: whether the heaviest is one; `key weight`: what all of them have;
        `precision`: the share of them among those with weight, `recall`: the share with weight among them; the same
        `above 1/n`: among those with more weight than if all n had the same;
        `average precision`: the mean precision when the heaviest so many are taken, for all numbers that end with one
        of them. `seconds`: the processor time of training.
    heaviest : list of dict
        The heaviest sequences of some repertoires; of a network only.
    """
    task = task_of(source, setting["size"], setting["rate"], setting["seed"])
    model, seed = setting["model"], derive_seed(setting["seed"], 3)
    if model == MOTIF:
        return whole(task.test.labels, motif_counts(task), 0.5), []
    if model == COUNTS:
        return by_counts(task, seed), []
    bags = task.train_bags  # made before time is taken
    started = time.process_time()
    machine = trained(task, model, seed, epochs, anneal)
    seconds = time.process_time() - started
    values = whole(task.test.labels, machine.predict_proba(task.test_bags)[:, 1], 0.5)
    looks, heaviest = _looks(task, machine)
    del bags
    return {**values, **looks, "seconds": seconds}, heaviest


def whole(labels: NDArray[np.int64], scores: Floats, threshold: float) -> dict[str, float]:
    """Measure scores of whole repertoires; those above the threshold are said to be positive."""
    metrics = require("sklearn.metrics", purpose="the area under the curve")
    return {
        "auc": float(metrics.roc_auc_score(labels, scores)),
        "accuracy": float(np.mean((scores > threshold) == labels)),
    }


def motif_counts(task: Task) -> Floats:
    """Return how many sequences of each repertoire to test with have an implanted motif, whole and in one piece."""
    found = []
    for one in task.test.repertoires:
        has = np.zeros(len(one.sequences), bool)
        for motif in one.motifs:
            has |= np.char.find(one.sequences, motif.encode()) >= 0
        found.append(np.add.reduceat(has, one.offsets[:-1], dtype=np.float64))
    return np.concatenate(found)


def by_counts(task: Task, seed: int) -> dict[str, float]:
    """Measure logistic regression on the shares of k-mers in whole repertoires."""
    require("sklearn", purpose="the regression on k-mers")
    from sklearn.feature_selection import SelectKBest, VarianceThreshold
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps = VarianceThreshold(), SelectKBest(k=1), StandardScaler(), LogisticRegression(max_iter=1000)
    fewest = int(np.bincount(task.train.labels).min())
    grid = {
        "selectkbest__k": [n for n in NUMBERS if n <= task.train.shares.shape[1]],
        "logisticregression__C": PENALTIES,
    }
    folds = StratifiedKFold(min(5, fewest), shuffle=True, random_state=seed % 2**31)
    search = GridSearchCV(make_pipeline(*steps), grid, scoring="neg_log_loss", cv=folds, error_score="raise")
    search.fit(task.train.shares, task.train.labels)
    return whole(task.test.labels, search.predict_proba(task.test.shares)[:, 1], 0.5)


#: Repertoires whose heaviest sequences are kept, and how many of each.
KEPT, HEAVIEST = 5, 10


def _looks(task: Task, machine: HopfieldMILClassifier) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measure which sequences of the repertoires to test with have weight."""
    known = task.test.repertoires[0].implanted is not None
    chosen = np.flatnonzero(task.test.labels) if known else np.arange(len(task.test.labels))
    values: list[dict[str, float]] = []
    heaviest: list[dict[str, Any]] = []
    for index in chosen.tolist():
        (weights,) = machine.bag_weights([task.test_bags[index]])
        one = task.test.single(index)
        values.append(looks_of(weights, one.implanted))
        if len(values) <= KEPT:
            heaviest += _heaviest(one, weights)
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}, heaviest


def looks_of(weights: Floats, implanted: NDArray[np.bool_] | None) -> dict[str, float]:
    """Measure the weights of one repertoire's sequences against which of them were implanted; see `evaluate`.

    Examples
    --------
    >>> looks_of(np.array([0.5, 0.3, 0.2, 0.0]), np.array([True, False, True, True]))["precision"]
    0.6666666666666666
    """
    metrics = require("sklearn.metrics", purpose="average precision")
    has = weights > 0
    if implanted is None:
        return {"support": float(has.sum())}
    above = weights > 1 / len(weights)
    return {
        "support": float(has.sum()),
        "found": float(implanted[weights.argmax()]),
        "key weight": float(weights[implanted].sum()),
        "precision": float(implanted[has].mean()),
        "recall": float(has[implanted].mean()),
        "precision above 1/n": float(implanted[above].mean()) if above.any() else 0.0,
        "recall above 1/n": float(above[implanted].mean()),
        "average precision": float(metrics.average_precision_score(implanted, weights)),
    }


def _heaviest(one: Repertoires, weights: Floats) -> list[dict[str, Any]]:
    """Return the heaviest sequences of one repertoire."""
    rows = [row for row in np.argsort(-weights, kind="stable")[:HEAVIEST].tolist() if weights[row] > 0]
    return [
        {
            "repertoire": one.names[0],
            "sequence": one.sequences[row].decode(),
            "count": int(one.counts[row]),
            "weight": f"{weights[row]:.6g}",
            "implanted": "" if one.implanted is None else int(one.implanted[row]),
        }
        for row in rows
    ]


def path_of(path: str | os.PathLike[str] | None) -> str | None:
    """Return a path as text."""
    return None if path is None else os.fspath(path)
