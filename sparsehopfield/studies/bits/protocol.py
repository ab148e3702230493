"""The protocol of the bit pattern study: how bags are drawn, the recipes, and what is measured of a trained model.

A run draws its own 4 signals, 600 bags to train on, 200 to choose by (the epoch, the best of several initial
weights), 400 that are evaluated after every epoch, as the paper's 400 are, and 2,000 fresh ones for each condition
that the chosen model is tested in. With fixed signals all of these but the fresh ones are drawn once for all runs,
which then differ in initial weights, order of bags and dropout alone.

The `released` recipes
----------------------
`bit_pattern.py`, which was released with the second paper (https://github.com/MAGICS-LAB/NonparametricHopfield), draws
signals and 1,000 bags once, with seed 1111, and differs from `paper` in its network, too: no layer norms, three
associations, wider initial weights. It makes a cosine schedule, but the line that would step it is a comment, so that
its learning rate is constant: `released` does as it does, `released-cosine` steps the schedule. It takes the mean
accuracy of four batches of shuffled bags, 128, 128, 128 and 16 of them, and reports the greatest of all epochs.

Not the same here are: random numbers; 200 bags more, to choose by; what an update of the state reads, there the values,
here the keys; and initial weights, there with standard deviations of 0.07 (64 inputs), 0.29 (4 inputs) and 1 (learned
queries), here all with 0.29. And its sparse model computes softmax, as its dense one does; here it computes sparsemax.

The `tuned` recipe
------------------
Both models were searched alike, over the same grid with the same number of runs of 100 epochs on bags of 300, judged on
the 200 bags alone: all 64 combinations of `GRID` once, then the best 8 of them 5 times (`python -m sparsehopfield bits
--search --share-size 300`); taken was the one with the least mean loss. The search draws other signals and bags than
the study. What was found is trained for the paper's 300 epochs from up to 12 initial weights, of which the 200 bags
choose one (the first that is right on all of them).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsehopfield.data.bags import Bags, bit_patterns, bit_signals
from sparsehopfield.studies._core.options import derive_seed

if TYPE_CHECKING:
    from sparsehopfield.estimators import HopfieldMILClassifier

#: The models by the names that the paper has for them, and the separation map of each.
MODELS = {"sparse": "sparsemax", "dense": "softmax"}
LAYERS = ("pooling", "hopfield", "attention")

TRAIN, INNER, EVALUATION, FRESH = 600, 200, 400, 2000

#: The public code's settings for this data (Ramsauer et al.), which the paper's section G.1 is said to follow:
#: layer norms, bits of 0 and 1, three updates, beta 0.25, AdamW as PyTorch has it, 300 epochs.
PAPER: dict[str, Any] = {
    "hidden_size": 8,
    "num_heads": 8,
    "update_steps_max": 3,
    "beta": 0.25,
    "dropout": 0.1,
    "standardize": False,
    "epochs": 300,
    "batch_size": 128,
    "weight_decay": 1e-2,
}

#: What the search keeps fixed, beside what it inherits from `PAPER`.
SEARCHED: dict[str, Any] = {**PAPER, "dropout": 0.0, "weight_decay": 1e-4, "epochs": 100}

#: The grid, the same for both models. A norm over 4 bits sends 1111 to the origin, where nothing can single it out:
#: without it bits are -1 and 1. A sparse association whose support holds copies of one instance passes no gradient:
#: hence low betas, and one that rises while training.
GRID: dict[str, Sequence[Mapping[str, Any]]] = {
    "input": (
        {"normalize": True, "initial_std": 0.02},  # as hflayers has it
        {"normalize": False, "signed": True, "initial_std": 0.2},
    ),
    "updates": ({"update_steps_max": 0}, {"update_steps_max": 3}),
    "heads": ({"num_heads": 8}, {"num_heads": 16, "output_size": 16}),
    "rate": ({"learning_rate": 1e-3}, {"learning_rate": 1e-2}),
    "beta": ({"beta": 0.05}, {"beta": 0.25}, {"beta": 1.0}, {"anneal": ("beta", 0.02, 1.0, 0.7)}),
}

_FOUND: dict[str, Any] = {
    **SEARCHED,
    "normalize": False,
    "signed": True,
    "initial_std": 0.2,
    "update_steps_max": 0,
    "epochs": PAPER["epochs"],
    "restarts": 12,
}
#: What the search found, by model: of the second round's candidates that with the least loss.
TUNED: dict[str, dict[str, Any]] = {
    "sparse": {**_FOUND, "num_heads": 16, "output_size": 16, "learning_rate": 1e-3, "anneal": ("beta", 0.02, 1.0, 0.7)},
    "dense": {**_FOUND, "num_heads": 8, "learning_rate": 1e-2, "beta": 1.0},
}
#: What the released code has instead, and the schedule that it makes.
RELEASED: dict[str, Any] = {**PAPER, "normalize": False, "update_steps_max": 2, "initial_std": 0.29}
COSINE: dict[str, Any] = {**RELEASED, "learning_rate_decay": "cosine"}


class Recipe(NamedTuple):
    """The options of the classifier by model, and how a recipe is run unless something else is asked for."""

    options: Mapping[str, Mapping[str, Any]]
    runs: int = 10
    signals: str = "fresh"


RECIPES = {
    "paper": Recipe(dict.fromkeys(MODELS, PAPER)),
    "tuned": Recipe(TUNED),
    "released": Recipe(dict.fromkeys(MODELS, RELEASED), 15, "fixed"),
    "released-cosine": Recipe(dict.fromkeys(MODELS, COSINE), 15, "fixed"),
}
#: How signals and bags are drawn: for every run, or once for all.
SIGNALS = ("fresh", "fixed")
FIXED_SEED = 1111

#: What a run is timed to: the lowest evaluation loss, and the first epoch with such an accuracy.
LOWEST = "lowest loss"
LEVELS = {"95 %": 0.95, "99 %": 0.99}
TARGETS = (LOWEST, *LEVELS)

#: What `learning` measures beside the learning curves.
MEASURED = ("chosen", "last", "best", "batches", "epoch", LOWEST, *(f"epoch of {target}" for target in TARGETS))

CURVES = ("training loss", "training accuracy", "validation loss", "validation accuracy")
#: Points of every learning curve in the table.
POINTS = 30


def candidates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every combination of the grid, with a name that lists its choices.

    Yields
    ------
    name : str
        The choices in words.
    options : dict
        Options of `HopfieldMILClassifier`.
    """
    for choice in itertools.product(*GRID.values()):
        options = {name: value for part in choice for name, value in part.items()}
        yield " ".join(f"{name}={_short(value)}" for name, value in options.items()), {**SEARCHED, **options}


def _short(value: Any) -> str:
    """Format a value for the name of a candidate."""
    return "-".join(map(_short, value)) if isinstance(value, tuple) else str(value)


class Drawn(NamedTuple):
    """The bags that one run trains on and is evaluated on."""

    train: Bags  # to train on, then those to choose by
    evaluation: Bags  # to evaluate after every epoch
    strings: NDArray[np.int8]  # the signals, (4, 4)


def draw(size: int, signals: int, seed: int, drawn: str = "fresh") -> Drawn:
    """Draw the bags that one run trains on and is evaluated on.

    Parameters
    ----------
    size, signals : int
        Instances of a bag, and signals in a positive one.
    seed : int
        The run's seed, as the table has it.
    drawn : {"fresh", "fixed"}
        Whether they are the run's own, or the same for all.

    Returns
    -------
    Drawn
        The bags and the signals.
    """
    of_strings, of_bags = (derive_seed(seed, i) if drawn == "fresh" else FIXED_SEED for i in range(2))
    strings = bit_signals(seed=of_strings)
    count = TRAIN + INNER + EVALUATION
    bags = bit_patterns(count, size, strings, signals_per_bag=signals, seed=of_bags)
    return Drawn(bags.take(range(TRAIN + INNER)), bags.take(range(TRAIN + INNER, count)), strings)


def classifier(
    model: str, layer: str, options: Mapping[str, Any], seed: int, drawn: str = "fresh"
) -> HopfieldMILClassifier:
    """Make a classifier that keeps the weights of the best epoch and restart, by bags that it does not train on.

    Parameters
    ----------
    model : {"sparse", "dense"}
        The separation map.
    layer : {"pooling", "hopfield", "attention"}
        The layer over a bag.
    options : mapping
        Other options of `HopfieldMILClassifier`.
    seed : int
        The run's seed.
    drawn : {"fresh", "fixed"}
        Whether the bags to choose by are drawn for this run, or the last ones, the same for all runs.

    Returns
    -------
    HopfieldMILClassifier
        Not yet trained.
    """
    from sparsehopfield.estimators import HopfieldMILClassifier  # here: only those who train need scikit-learn

    class LastChoose(HopfieldMILClassifier):
        """A classifier that trains on the first bags and chooses by the last, where others draw which."""

        def _split(self, labels: NDArray[Any], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
            first, last = np.split(np.arange(len(labels)), [TRAIN])
            return first, last

    kind = HopfieldMILClassifier if drawn == "fresh" else LastChoose
    choosing = {"validation_fraction": INNER / (TRAIN + INNER), "early_stopping": "accuracy"}
    return kind(separation=MODELS[model], layer=layer, random_state=derive_seed(seed, 2), **{**choosing, **options})


class Trained(NamedTuple):
    """A trained classifier, the signals of its run, and how long one start took."""

    machine: HopfieldMILClassifier  # its `history_` has the learning curves
    strings: NDArray[np.int8]  # (4, 4)
    seconds: float  # of processor time, of training and of evaluation after every epoch, for each start


def trained(
    model: str, layer: str, options: Mapping[str, Any], size: int, signals: int, seed: int, drawn: str = "fresh"
) -> Trained:
    """Draw the bags of one run and train on them.

    Parameters
    ----------
    model, layer, options, seed, drawn
        As `classifier` takes them.
    size, signals : int
        As `draw` takes them.

    Returns
    -------
    Trained
        The classifier and what belongs to it.
    """
    train, evaluation, strings = draw(size, signals, seed, drawn)
    machine = classifier(model, layer, options, seed, drawn)
    began = time.process_time()
    machine.fit(stacked(train), train.labels, validation=(stacked(evaluation), evaluation.labels))
    return Trained(machine, strings, (time.process_time() - began) / len(machine.starts_))


def fresh_accuracy(
    machine: HopfieldMILClassifier, strings: NDArray[np.int8], size: int, signals: int, seed: int
) -> float:
    """Compute a trained classifier's accuracy on fresh bags, of any size and with any number of signals."""
    bags = bit_patterns(FRESH, size, strings, signals_per_bag=signals, seed=derive_seed(seed, 3, size, signals))
    return float(machine.score(stacked(bags), bags.labels))


def stacked(bags: Bags) -> NDArray[Any]:
    """Return bags of one size as one array of shape (bags, instances, features)."""
    return bags.instances.reshape(len(bags), -1, bags.instances.shape[1])


def marks(epochs: int) -> list[int]:
    """Return the epochs, counted from 1, whose losses and accuracies the table holds."""
    return [int(epoch) for epoch in np.unique(np.linspace(1, epochs, POINTS).round())]


def curve_metrics(epochs: int) -> list[str]:
    """Return the names of the points of all learning curves."""
    return [f"{curve} {epoch}" for curve in CURVES for epoch in marks(epochs)]


def learning(machine: HopfieldMILClassifier, epochs: int, seed: int) -> dict[str, float]:
    """Return the measurements that were made while a classifier was trained.

    Parameters
    ----------
    machine : HopfieldMILClassifier
        A trained one.
    epochs : int
        How many epochs it was to be trained.
    seed : int
        The run's seed.

    Returns
    -------
    dict
        `chosen`: accuracy on the 400 bags in the epoch that the 200 choose, which the weights are from; `last`: in the
        last epoch; `best`: in the epoch that is best on these very bags, which flatters; `batches`: the same where each
        epoch's accuracy is the mean of shuffled batches, the last of them small; `epoch`: the one that the weights are
        from; `lowest loss`, and `epoch of` it and of the first accuracy of each level: inf where it never came, or
        where the loss is lowest in the last epoch and may go on falling; and the points of the learning curves.
    """
    history = machine.history_
    accuracy, loss = history["validation_accuracy"], history["validation_loss"]
    lowest = int(loss.argmin()) + 1
    named = {"training": "", "validation": "validation_"}
    values = {
        "chosen": accuracy[machine.best_epoch_ - 1],
        "last": accuracy[-1],
        "best": accuracy.max(),
        "batches": batch_means(accuracy, EVALUATION, machine.batch_size, derive_seed(seed, 4)).max(),
        "epoch": machine.best_epoch_,
        LOWEST: loss.min(),
        f"epoch of {LOWEST}": lowest if lowest < len(loss) else np.inf,
        **{f"epoch of {name}": first_reached(accuracy, level) for name, level in LEVELS.items()},
    }
    for curve in CURVES:
        which, measure = curve.split()
        points = history[named[which] + measure]
        values |= {f"{curve} {epoch}": points[epoch - 1] for epoch in marks(epochs)}
    return {name: float(value) for name, value in values.items()}


def first_reached(values: NDArray[np.float64], level: float) -> float:
    """Return the epoch, counted from 1, in which values first reach a level; inf if none does."""
    reached = np.flatnonzero(values >= level)
    return float(reached[0] + 1) if len(reached) else np.inf


def batch_means(accuracy: NDArray[np.float64], count: int, batch_size: int, seed: int) -> NDArray[np.float64]:
    """Draw what the mean over batches of shuffled bags makes of their accuracy.

    Every order of the bags is as likely. So the wrong ones fall into batches as a sample without replacement does, and
    a batch that is small counts as much as the others.

    Parameters
    ----------
    accuracy : ndarray of shape (n,)
        The share of the bags that are right.
    count : int
        How many bags there are.
    batch_size : int
        Bags of a batch; the last one has those that are left.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of shape (n,)
        The mean of the batches' accuracies.
    """
    sizes = np.diff(np.append(np.arange(0, count, batch_size), count))
    wrong = np.rint((1 - accuracy) * count).astype(np.int64)
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.multivariate_hypergeometric(sizes, k) for k in wrong])
    return 1 - (drawn / sizes).mean(axis=1)


#: What selection is held against, of recipes that choose among several starts.
SELECTION = ("starts", "first last", "first chosen", "all last")


def selection(
    model: str, layer: str, options: Mapping[str, Any], size: int, signals: int, seed: int, drawn: str, chosen: Trained
) -> dict[str, float]:
    """Measure what a run would be without the choice among starts, and without any choice.

    Parameters
    ----------
    model, layer, options, size, signals, seed, drawn
        As `trained` takes them.
    chosen : Trained
        What it returned.

    Returns
    -------
    dict
        `starts`: how many were trained; accuracy on the 400 bags: `first last` of the first start in the last epoch,
        `first chosen` in the epoch that the 200 choose, and `all last` of a single start that also trains on these 200,
        in the last epoch.
    """
    starts = chosen.machine.starts_
    epoch, history = starts[0]
    simple = {**options, "restarts": 1, "early_stopping": None, "validation_fraction": 0.0}
    whole = trained(model, layer, simple, size, signals, seed, drawn).machine.history_
    return {
        "starts": float(len(starts)),
        "first last": float(history["validation_accuracy"][-1]),
        "first chosen": float(history["validation_accuracy"][epoch - 1]),
        "all last": float(whole["validation_accuracy"][-1]),
    }
