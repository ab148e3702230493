"""The protocol of the bit pattern study: how bags are drawn, the recipes, and what is measured of a trained model.

A run draws its own 4 signals, 600 bags to train on, 200 to choose by (the epoch, the best of several initial
weights), 400 that are evaluated after every epoch, as the paper's 400 are, and 2,000 fresh ones for each condition
that the chosen model is tested in.

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
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
RECIPES: dict[str, Mapping[str, Mapping[str, Any]]] = {"paper": dict.fromkeys(MODELS, PAPER), "tuned": TUNED}

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


def draw(size: int, signals: int, seed: int) -> tuple[Bags, Bags, NDArray[np.int8]]:
    """Draw the bags that one run trains on and is evaluated on.

    Parameters
    ----------
    size, signals : int
        Instances of a bag, and signals in a positive one.
    seed : int
        The run's seed, as the table has it.

    Returns
    -------
    train : Bags
        The bags to train on and to choose by.
    evaluation : Bags
        The bags to evaluate after every epoch.
    strings : ndarray of shape (4, 4)
        The signals.
    """
    strings = bit_signals(seed=derive_seed(seed, 0))
    count = TRAIN + INNER + EVALUATION
    bags = bit_patterns(count, size, strings, signals_per_bag=signals, seed=derive_seed(seed, 1))
    return bags.take(range(TRAIN + INNER)), bags.take(range(TRAIN + INNER, count)), strings


def classifier(model: str, layer: str, options: Mapping[str, Any], seed: int) -> HopfieldMILClassifier:
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

    Returns
    -------
    HopfieldMILClassifier
        Not yet trained.
    """
    from sparsehopfield.estimators import HopfieldMILClassifier  # here: only those who train need scikit-learn

    return HopfieldMILClassifier(
        separation=MODELS[model],
        layer=layer,
        validation_fraction=INNER / (TRAIN + INNER),
        early_stopping="accuracy",
        random_state=derive_seed(seed, 2),
        **options,
    )


def trained(
    model: str, layer: str, options: Mapping[str, Any], size: int, signals: int, seed: int
) -> tuple[HopfieldMILClassifier, NDArray[np.int8]]:
    """Draw the bags of one run and train on them.

    Parameters
    ----------
    model, layer, options, seed
        As `classifier` takes them.
    size, signals : int
        As `draw` takes them.

    Returns
    -------
    classifier : HopfieldMILClassifier
        Trained; its `history_` has the learning curves.
    strings : ndarray of shape (4, 4)
        The signals of this run.
    """
    train, evaluation, strings = draw(size, signals, seed)
    machine = classifier(model, layer, options, seed)
    return machine.fit(stacked(train), train.labels, validation=(stacked(evaluation), evaluation.labels)), strings


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


def learning(machine: HopfieldMILClassifier, epochs: int) -> dict[str, float]:
    """Return the measurements that were made while a classifier was trained.

    Parameters
    ----------
    machine : HopfieldMILClassifier
        A trained one.
    epochs : int
        How many epochs it was to be trained.

    Returns
    -------
    dict
        `last`: accuracy on the 400 bags in the last epoch; `best`: in the epoch that was best on these very bags,
        which flatters; `epoch`: the one that the weights are from; and the points of the learning curves.
    """
    history = machine.history_
    named = {"training": "", "validation": "validation_"}
    values = {
        "last": history["validation_accuracy"][-1],
        "best": history["validation_accuracy"].max(),
        "epoch": machine.best_epoch_,
    }
    for curve in CURVES:
        which, measure = curve.split()
        points = history[named[which] + measure]
        values |= {f"{curve} {epoch}": points[epoch - 1] for epoch in marks(epochs)}
    return {name: float(value) for name, value in values.items()}
