"""The protocol of the study of real bags: folds, the search inside each of them, and what is measured.

The bags are divided into folds again and again. All that is chosen or measured for one fold, the scale of the
features among it, comes from the bags of the other folds: every setting of a recipe's grid is cross-validated on
them, and the best is trained on all of them, several times from different initial weights. The fold's bags are then
ranked by the mean of the networks' probabilities.

The `tuned` grid
----------------
A feature of these sets is zero in most segments and far from zero in a few, so that one segment can outweigh all
others. Standardised features are therefore cut off at a few standard deviations, and not scaled up again. That, and
the grid's ranges, were found by cross-validation in other divisions of the same bags, for both models alike; nothing
else was kept from there.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine import dense
from sparsehopfield._engine.optional import require
from sparsehopfield.data.bags import Bags
from sparsehopfield.studies._core.options import derive_seed

if TYPE_CHECKING:
    from sparsehopfield.estimators import HopfieldMILClassifier

#: The models by the names that the paper has for them, and the separation map of each.
MODELS = {"sparse": "sparsemax", "dense": "softmax"}

METRICS = ("auc", "single", "accuracy", "inner", "chosen")

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """The options that classifiers are made with.

    Attributes
    ----------
    grid : sequence of dict
        The settings to choose from: options of `HopfieldMILClassifier`, and `limit`, the number of standard
        deviations at which features are cut off, or None.
    members : int
        How many networks the chosen setting is trained with.
    """

    grid: Sequence[Options]
    members: int


def _product(fixed: Options, **several: Sequence[Any]) -> list[dict[str, Any]]:
    return [{**fixed, **dict(zip(several, values, strict=True))} for values in itertools.product(*several.values())]


#: The paper follows the public code of Ramsauer et al.: a layer before the pooling, 50 epochs, bags by fours. That
#: searches wider ranges; tried here is what matters most of them, sharp or flat weights with and without dropout.
_PAPER = {
    "limit": None,
    "embedding": (64,),
    "num_heads": 8,
    "hidden_size": 32,
    "update_steps_max": 3,
    "epochs": 50,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "learning_rate_decay": 0.96,
}
_TUNED = {
    "embedding": (128,),
    "num_heads": 8,
    "hidden_size": 32,
    "dropout": 0.5,
    "head_dropout": 0.5,
    "activation": None,
    "epochs": 15,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "learning_rate_decay": 0.96,
    "beta": 0.1,
}
RECIPES = {
    "paper": Recipe(_product(_PAPER, beta=[0.1, 10.0], dropout=[0.0, 0.75]), members=1),
    "tuned": Recipe(_product(_TUNED, limit=[1.0, 2.0], initial_std=[0.02, 0.1]), members=5),
}


def divisions(labels: NDArray[np.int64], folds: int, seed: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Divide bags into folds in which the classes have about their share.

    Parameters
    ----------
    labels : ndarray of shape (B,)
        0 or 1 for each bag.
    folds : int
        How many.
    seed : int
        Seed of the division.

    Returns
    -------
    list of (train, test)
        The numbers of the bags outside and inside of each fold.
    """
    split = require("sklearn.model_selection", purpose="cross-validation").StratifiedKFold
    return list(split(folds, shuffle=True, random_state=seed).split(labels[:, None], labels))


@dataclass(frozen=True)
class Scale:
    """Features at mean 0 and standard deviation 1, cut off where they are far from 0.

    Attributes
    ----------
    mean, std : ndarray of shape (d,)
        Of the instances to learn from; 1 for a feature that never varies.
    limit : float or None
        How many standard deviations from 0 a feature is cut off.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    limit: float | None

    @classmethod
    def of(cls, bags: Bags, limit: float | None) -> Scale:
        """Compute the scale of the instances of some bags."""
        return cls(*dense.feature_scale(bags.instances), limit)

    def __call__(self, bags: Bags) -> list[NDArray[np.float32]]:
        """Scale bags."""
        limit = np.inf if self.limit is None else self.limit
        return [np.clip((bag - self.mean) / self.std, -limit, limit).astype(np.float32) for bag in bags]


def networks(train: Bags, model: str, options: Options, members: int, seed: int) -> Ensemble:
    """Train some networks on the same bags, from different initial weights.

    Parameters
    ----------
    train : Bags
        The bags to learn from.
    model : {"sparse", "dense"}
        The separation map.
    options : mapping
        One setting of a recipe's grid.
    members : int
        How many networks.
    seed : int
        Seed of all their draws.
    """
    from sparsehopfield.estimators import HopfieldMILClassifier  # here: only those who train need scikit-learn

    options = dict(options)
    scale = Scale.of(train, options.pop("limit"))
    bags = scale(train)
    return Ensemble(
        scale,
        [
            HopfieldMILClassifier(
                separation=MODELS[model], standardize=False, random_state=derive_seed(seed, member), **options
            ).fit(bags, train.labels)
            for member in range(members)
        ],
    )


@dataclass(frozen=True)
class Ensemble:
    """Networks that were trained on the same bags.

    Attributes
    ----------
    scale : Scale
        Normalisation of the features.
    members : list of HopfieldMILClassifier
        The networks.
    """

    scale: Scale
    members: Sequence[HopfieldMILClassifier]

    def probabilities(self, bags: Bags) -> NDArray[np.float64]:
        """Compute the probability of each bag to be positive, by each network: (members, B)."""
        scaled = self.scale(bags)
        return np.array([member.predict_proba(scaled)[:, 1] for member in self.members])


def auc(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Compute the share of pairs of a positive and a negative bag that are in the right order; ties count half."""
    return float(require("sklearn.metrics", purpose="the area under the curve").roc_auc_score(labels, scores))


def choose(train: Bags, model: str, grid: Sequence[Options], folds: int, seed: int) -> tuple[int, float]:
    """Cross-validate every setting of a grid.

    Parameters
    ----------
    train : Bags
        The bags to learn from.
    model : {"sparse", "dense"}
        The separation map.
    grid : sequence of mapping
        The settings.
    folds : int
        Parts to divide the bags into.
    seed : int
        Seed of all draws, the same for all settings.

    Returns
    -------
    chosen : int
        The number of the best setting; the first of equals.
    auc : float
        Its mean AUC.
    """
    split = divisions(train.labels, folds, derive_seed(seed, 0))
    means = []
    for options in grid:
        values = []
        for number, (outside, inside) in enumerate(split):
            network = networks(train.take(outside), model, options, 1, derive_seed(seed, 1, number))
            inner = train.take(inside)
            values.append(auc(inner.labels, network.probabilities(inner)[0]))
        means.append(float(np.mean(values)))
    return int(np.argmax(means)), max(means)


def evaluate(train: Bags, test: Bags, model: str, recipe: Recipe, folds: int, seed: int) -> dict[str, float]:
    """Choose a setting on some bags, train with it, and measure on others.

    Parameters
    ----------
    train, test : Bags
        The bags to learn from, and those to measure on.
    model : {"sparse", "dense"}
        The separation map.
    recipe : Recipe
        What to choose from.
    folds : int
        Parts to divide the training bags into when choosing.
    seed : int
        Seed of all draws.

    Returns
    -------
    dict
        `auc`: of the networks together; `single`: mean AUC of one network; `accuracy`: of the networks together;
        `inner`: mean AUC of the chosen setting in the search; `chosen`: its number in the grid.
    """
    chosen, inner = choose(train, model, recipe.grid, folds, derive_seed(seed, 0))
    probabilities = networks(train, model, recipe.grid[chosen], recipe.members, derive_seed(seed, 1)).probabilities(
        test
    )
    together = probabilities.mean(axis=0)
    return {
        "auc": auc(test.labels, together),
        "single": float(np.mean([auc(test.labels, one) for one in probabilities])),
        "accuracy": float(np.mean((together > 0.5) == test.labels)),
        "inner": inner,
        "chosen": float(chosen),
    }
