"""The protocol of the study of repertoires: what is drawn, which k-mers are looked at, and what is measured."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.concurrency import cached
from sparsehopfield._engine.optional import require
from sparsehopfield.data._content import first_line
from sparsehopfield.data.repertoires import Repertoires, kmers, load_airr, simulate
from sparsehopfield.errors import FileFormatError
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies._core.scores import auc
from sparsehopfield.studies._core.sources import digest

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
    digest: str = ""  # of what the file held when the study began, see `pinned`

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

    def pinned(self, models: Sequence[str]) -> Source:
        """Read the file, and return a source of just what it holds now; of simulated repertoires this source itself.

        Raises
        ------
        ValueError, FileNotFoundError
            If the file cannot be read, or has too few repertoires for some of the models.
        """
        if self.file is None:
            return self
        everything = load_airr(self.file, label=self.label, positive=self.positive)
        _check_enough(self.file, everything.labels, models)
        _FILES.clear()
        found = replace(self, digest=_digest(everything))
        _FILES[found] = everything
        return found

    def _loaded(self) -> Repertoires:
        """Return the file's repertoires, which each process reads once; raise if they are not those of the digest."""
        if self in _FILES:
            return _FILES[self]
        assert self.file is not None
        everything = load_airr(self.file, label=self.label, positive=self.positive)
        if self.digest:
            if _digest(everything) != self.digest:
                raise FileFormatError(f"{self.file}: changed while its repertoires were measured; run it again")
            _FILES.clear()
            _FILES[self] = everything
        return everything

    def _split(self, seed: int) -> tuple[list[Repertoires], list[Repertoires]]:
        """Return the file's repertoires, split at random with as many positive ones in both parts as there may be."""
        everything = self._loaded()
        random = np.random.default_rng(seed)
        train, test = [], []
        for value in (0, 1):
            some = random.permutation(np.flatnonzero(everything.labels == value))
            tested = tested_of(len(some))
            train += some[tested:].tolist()
            test += some[:tested].tolist()
        return tuple([everything.part(i, i + 1) for i in sorted(part)] for part in (train, test))  # type: ignore[return-value]


#: What this process has read of the last file, by its source, which has a digest of the content: a path is not enough.
_FILES: dict[Source, Repertoires] = {}


def _digest(everything: Repertoires) -> str:
    """Return the digest of repertoires."""
    made = everything
    return digest(made.names, made.sequences, made.offsets, made.labels, made.counts)


def tested_of(count: int) -> int:
    """Return how many of so many repertoires of one label are tested with."""
    return round(count * TESTED)


def _check_enough(file: str, labels: NDArray[np.int64], models: Sequence[str]) -> None:
    """Raise unless both labels have repertoires to test with, two to train with, and networks an inner split."""
    counts = np.bincount(labels, minlength=2).tolist()
    trained = [count - tested_of(count) for count in counts]
    needed = 6 if set(models) & set(ALPHA) else 4  # networks choose the epoch by a fifth of them, one of each label
    if min(counts) < 3 or sum(trained) < needed:
        raise ValueError(
            f"file: needs at least 3 repertoires of each label and {needed} to train with, as a third is tested with; "
            f"{Path(file).name} has {counts[1]} positive and {counts[0]} negative, and {sum(trained)} of them to train "
            "with"
        )


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

    @cached
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

    @cached
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

    @cached
    def train_bags(self) -> list[csr_array]:
        """Return the bags to train with."""
        return self.train.bags(self.columns)

    @cached
    def test_bags(self) -> list[csr_array]:
        """Return the bags to test with."""
        return self.test.bags(self.columns)


@lru_cache(maxsize=1)
def task_of(source: Source, size: Any, rate: Any, seed: int) -> Task:
    """Draw the repertoires of one run, once for all its models."""
    train, test = (Part(some, source.k, source.counts) for some in source.repertoires(size, rate, seed))
    return Task(train, test, differing(train.shares, train.labels, source.features))


@contextmanager
def _choosing_quietly() -> Iterator[None]:
    """Choose k-mers without scikit-learn's warnings where few repertoires have few k-mers, or some separate them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"sklearn\.feature_selection")
        yield


def differing(shares: Floats, labels: NDArray[np.int64], features: int) -> NDArray[np.int64]:
    """Return the columns whose means differ most between two classes, in units of their deviations, the first most."""
    selection = require("sklearn.feature_selection", purpose="the choice of k-mers")
    varying = np.flatnonzero(np.ptp(shares, axis=0) > 0)
    if not len(varying):
        raise ValueError(
            "file: the repertoires to train with have each k-mer equally often, so that nothing distinguishes them"
        )
    with _choosing_quietly():
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
        Share of the epochs, the first, in which alpha grows from 1, softmax, to that of a sparse map; at 0 the map is
        sparse from the first step on.
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
        the means over the positive ones of `found`: whether the heaviest was implanted; `key weight`: the weight of all
        implanted sequences together; `precision`: the share of implanted ones among those with weight; `recall`: the
        share of those with weight among the implanted; both `above 1/n`: of those with more weight than if all n had
        the same; `average precision`: the mean over the implanted sequences of the share of implanted ones among all
        that are at least as heavy. `seconds`: the processor time of training.
    heaviest : list of dict
        The heaviest sequences of some repertoires; of a network only.
    """
    task = task_of(source, setting["size"], setting["rate"], setting["seed"])
    model, seed = setting["model"], derive_seed(setting["seed"], 3)
    if model == MOTIF:
        scores = motif_counts(task.test)
        return whole(task.test.labels, scores, best_threshold(task.train.labels, motif_counts(task.train))), []
    if model == COUNTS:
        return by_counts(task, seed), []
    _ = task.train_bags  # made before time is taken
    started = time.process_time()
    machine = trained(task, model, seed, epochs, anneal)
    seconds = time.process_time() - started
    values = whole(task.test.labels, machine.predict_proba(task.test_bags)[:, 1], 0.5)
    looks, heaviest = _looks(task, machine)
    return {**values, **looks, "seconds": seconds}, heaviest


def whole(labels: NDArray[np.int64], scores: Floats, threshold: float) -> dict[str, float]:
    """Measure scores of whole repertoires; those above the threshold are said to be positive."""
    return {
        "auc": auc(labels, scores),
        "accuracy": float(np.mean((scores > threshold) == labels)),
    }


def best_threshold(labels: NDArray[np.int64], scores: Floats) -> float:
    """Return the threshold of scores by which most labels are right, halfway between two scores; of equals the lowest.

    Examples
    --------
    >>> best_threshold(np.array([0, 0, 1, 1]), np.array([0.0, 2.0, 3.0, 9.0]))
    2.5
    """
    levels = np.unique(scores)
    thresholds = np.concatenate([[levels[0] - 1], (levels[:-1] + levels[1:]) / 2, [levels[-1] + 1]])
    right = [np.mean((scores > threshold) == labels) for threshold in thresholds]
    return float(thresholds[np.argmax(right)])


def motif_counts(part: Part) -> Floats:
    """Return how many sequences of each repertoire have an implanted motif whole, with neither a gap nor a deletion."""
    found = []
    for one in part.repertoires:
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
    try:
        with _choosing_quietly():
            search.fit(task.train.shares, task.train.labels)
    except ValueError as error:  # as of a fold whose repertoires are all the same
        raise ValueError(f"models: {COUNTS} cannot be fitted ({first_line(error)}); leave it out") from error
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
