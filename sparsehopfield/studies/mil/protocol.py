"""The protocol of the study of real bags: folds, the search inside each of them, and what is measured.

The bags are divided into folds again and again. All that is chosen or measured for one fold, the scale of the
features among it, comes from the bags of the other folds. Networks and baselines meet the same folds.

- Recipes `paper` and `tuned`, and the baselines: every setting of a grid is cross-validated on the bags outside of the
  fold, and the best is trained on all of them; networks several times, from different initial weights. A single network
  is one of these by itself; the ensemble ranks the fold's bags by the mean of their probabilities.
- Recipe `released`: the grid of the public code. Every network is trained on four fifths of the bags outside of the
  fold, and the last fifth, the inner split, chooses both its epoch and the setting. Settings are searched by successive
  halving: all are trained for few epochs, the best third for thrice as many, and so on. The network that wins is tested
  as it is. scikit-learn's HalvingRandomSearchCV scores settings by bags that their training does not see, and so cannot
  choose epoch and setting by the same ones.

What `released` does not repeat
-------------------------------
The public code is `real_world_mil.py` of https://github.com/MAGICS-LAB/SparseModernHopfield at commit 0f308f2.

- It searches in the first fold alone, whose training bags are tested in the other nine, and trains every setting for
  all epochs.
- It chooses the setting by the inner AUC of the last epoch, and reports the test AUC of the epoch with the best one.
  (At 051e70c, before its last change, it reports the test AUC of the last epoch.)
- Its early stopping compares with a constant 0, and so ends no training; here is none either.
- It takes features as they are; here they are standardised.
- Every instance of a bag is a query of its layer; here one learned query pools the bag. It calls the layer with an
  argument that this does not take, and so does not run as it is.
- Its layer computes softmax in the mode "sparse", too, and projects its values from the keys; here sparse is sparsemax,
  and values are projected from the instances.
- Initial weights are uniform, as those of PyTorch's linear layers. Here those of the linear layers are, too; those of
  the Hopfield layer are normal, with the standard deviation that uniform ones have for inputs of the embedding's size.

The `tuned` grid
----------------
A feature of the photographs is zero in most segments and far from zero in a few, so that one segment can outweigh all
others. Standardised features are therefore cut off at a few standard deviations, and not scaled up again. That, and
the grid's ranges, were found by cross-validation in other divisions of the bags of Tiger, Fox and Elephant, for both
models alike; nothing else was kept from there. No bag of UCSB, Musk1 or Musk2 had a part in it. The baselines choose
between features that are cut off and that are not, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine import dense
from sparsehopfield._engine.optional import require
from sparsehopfield._engine.structure import Structure
from sparsehopfield.data.bags import Bags
from sparsehopfield.structures import LinearFeatures, RandomFeatures, RandomMask, TopK, Window
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies._core.scores import auc

if TYPE_CHECKING:
    from sparsehopfield.estimators import HopfieldMILClassifier
    from sparsehopfield.studies.mil.baselines import BagClassifier

#: The models by the names that the paper has for them, and the separation map of each.
MODELS = {"sparse": "sparsemax", "dense": "softmax"}
LAYERS = ("pooling", "hopfield", "attention")
#: What a query attends to: all instances of its bag, three of them, or all by features of softmax's kernel.
STRUCTURES: dict[str, Structure | None] = {
    "all": None,
    "topk": TopK(3),
    "random": RandomMask(3, 0),
    "window": Window(1),
    "features": RandomFeatures(64, 0),
    "linear": LinearFeatures("elu+1"),
}
OF_SOFTMAX = ("features", "linear")

METRICS = ("auc", "single", "accuracy", "inner", "chosen")

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """The options that classifiers are made with.

    Attributes
    ----------
    grid : sequence of dict
        The settings to choose from: options of the classifier, and `limit`, the number of standard deviations at which
        features are cut off, or None.
    members : int
        How many networks the chosen setting is trained with.
    rungs : sequence of int
        Epochs of the rounds of successive halving; none where settings are cross-validated.
    """

    grid: Sequence[Options]
    members: int
    rungs: Sequence[int] = ()

    def limited(self, count: int, seed: int) -> Recipe:
        """Return the recipe with at most so many settings: the first, or drawn from the grid of successive halving."""
        if not self.rungs or count >= len(self.grid):
            return replace(self, grid=self.grid[:count])
        drawn = np.random.default_rng(seed).choice(len(self.grid), count, replace=False)
        return replace(self, grid=[self.grid[i] for i in np.sort(drawn)])


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
#: What the public code of the paper trains: no layer norms, a ReLU behind the layer, the epoch chosen by AUC.
_RELEASED = {
    "limit": None,
    "normalize": False,
    "activation": "relu",
    "batch_size": 4,
    "weight_decay": 1e-4,
    "validation_fraction": 0.2,
    "early_stopping": "auc",
}


def _released() -> list[dict[str, Any]]:
    """Return the grid of the public code; initial weights vary as those of PyTorch's linear layers do."""
    grid = _product(
        _RELEASED,
        learning_rate=[1e-3, 1e-5],
        learning_rate_decay=[0.98, 0.96, 0.94],
        embedding=[(size,) * count for size in (32, 64, 128) for count in (1, 2)],
        hidden_size=[16, 32, 64],
        num_heads=[8, 12],
        beta=[0.1, 10.0],
        dropout=[0.0, 0.75],
    )
    return [{**options, "initial_std": round((3 * options["embedding"][-1]) ** -0.5, 3)} for options in grid]


RECIPES = {
    "paper": Recipe(_product(_PAPER, beta=[0.1, 10.0], dropout=[0.0, 0.75]), members=1),
    "tuned": Recipe(_product(_TUNED, limit=[1.0, 2.0], initial_std=[0.02, 0.1]), members=5),
    "released": Recipe(_released(), members=1, rungs=(2, 6, 17, 50)),
}

_LIMITS = [None, 2.0]
#: The baselines, by their names in the tables: the class in `baselines`, and the grid.
BASELINES: dict[str, tuple[str, Recipe]] = {
    name: (kind, Recipe(_product({}, limit=_LIMITS, **several), members=1))
    for name, kind, several in (
        ("MILES", "MILES", {"width": [0.5, 1.0], "C": [1.0, 10.0]}),
        ("citation-kNN", "CitationKNN", {"references": [2, 10], "citers": [4, 14]}),
        ("MInD", "MInD", {"C": [0.01, 0.1, 1.0]}),
        ("APR", "APR", {"outside": [0.01, 0.5]}),
        ("EM-DD", "EMDD", {"steps": [20, 100]}),
        ("mi-SVM", "MiSVM", {"C": [1.0, 10.0]}),
        ("gated-attention", "GatedAttention", {"learning_rate": [5e-4, 2e-3]}),
        ("path-encoding", "PathEncoding", {"depth": [3, 6]}),
    )
}
#: The recipe, layer and structure of a baseline in the table.
NONE = "-"


def lines(
    recipes: Sequence[str], layers: Sequence[str], structures: Sequence[str], models: Sequence[str]
) -> Iterator[dict[str, str]]:
    """Yield recipe, layer, structure and model of what is measured: baselines once, networks where they are defined.

    A window needs a place for every query, which a learned one does not have, and features stand in for softmax alone.
    """
    for model in models:
        if model in BASELINES:
            yield {"recipe": NONE, "layer": NONE, "structure": NONE, "model": model}
            continue
        for recipe, layer, structure in itertools.product(recipes, layers, structures):
            of_pooling, of_softmax = structure != "window", model == "dense" or structure not in OF_SOFTMAX
            if of_softmax and (of_pooling or layer != "pooling"):
                yield {"recipe": recipe, "layer": layer, "structure": structure, "model": model}


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


def classifiers(train: Bags, model: str, options: Options, members: int, seed: int) -> Ensemble:
    """Train some networks on the same bags, from different initial weights; or a baseline.

    Parameters
    ----------
    train : Bags
        The bags to learn from.
    model : str
        Of `MODELS` or `BASELINES`.
    options : mapping
        One setting of a recipe's grid; with `layer` and `structure` of networks, where they are not the classifier's.
    members : int
        How many networks.
    seed : int
        Seed of all their draws.
    """
    options = dict(options)
    scale = Scale.of(train, options.pop("limit"))
    bags = scale(train)
    if model in BASELINES:
        from sparsehopfield.studies.mil import baselines  # here: only those who train need scikit-learn

        kind = getattr(baselines, BASELINES[model][0])
        if "random_state" in kind().get_params():
            options["random_state"] = derive_seed(seed, 0)
        return Ensemble(scale, [kind(**options).fit(bags, train.labels)])
    from sparsehopfield.estimators import HopfieldMILClassifier

    made = [
        HopfieldMILClassifier(
            separation=MODELS[model], standardize=False, random_state=derive_seed(seed, member), **options
        )
        for member in range(members)
    ]
    return Ensemble(scale, [one.fit(bags, train.labels) for one in made])


@dataclass(frozen=True)
class Ensemble:
    """Networks that were trained on the same bags, or a baseline.

    Attributes
    ----------
    scale : Scale
        Normalisation of the features.
    members : list of HopfieldMILClassifier, or of one BagClassifier
    """

    scale: Scale
    members: Sequence[HopfieldMILClassifier | BagClassifier]

    @property
    def threshold(self) -> float:
        """Return the score above which a bag is called positive."""
        return 0.5 if hasattr(self.members[0], "predict_proba") else 0.0

    def scores(self, bags: Bags) -> NDArray[np.float64]:
        """Compute the probability of each bag to be positive, by each network, or a baseline's score: (members, B)."""
        scaled = self.scale(bags)
        return np.array(
            [
                member.predict_proba(scaled)[:, 1]
                if hasattr(member, "predict_proba")
                else member.decision_function(scaled)
                for member in self.members
            ]
        )


def choose(train: Bags, model: str, grid: Sequence[Options], folds: int, seed: int) -> tuple[int, float]:
    """Cross-validate every setting of a grid.

    Parameters
    ----------
    train : Bags
        The bags to learn from.
    model : str
        Of `MODELS` or `BASELINES`.
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
            trained = classifiers(train.take(outside), model, options, 1, derive_seed(seed, 1, number))
            inner = train.take(inside)
            values.append(auc(inner.labels, trained.scores(inner)[0]))
        means.append(float(np.mean(values)))
    return int(np.argmax(means)), max(means)


def halve(
    train: Bags, model: str, grid: Sequence[Options], rungs: Sequence[int], seed: int
) -> tuple[int, float, Ensemble]:
    """Search a grid by successive halving: from round to round a third of the settings is trained for more epochs.

    Parameters
    ----------
    train : Bags
        The bags to learn from; an inner split of them, the same for all settings, chooses.
    model : {"sparse", "dense"}
        The network: with sparsemax, or with softmax.
    grid : sequence of mapping
        The settings; with `validation_fraction` and `early_stopping`.
    rungs : sequence of int
        Epochs of each round.
    seed : int
        Seed of all draws, the same for all settings.

    Returns
    -------
    chosen : int
        The number of the setting that is best in the last round; the first of equals.
    auc : float
        The AUC of its best epoch on the inner split.
    network : Ensemble
        The network of that round and epoch, alone.
    """
    left = list(range(len(grid)))
    for number, epochs in enumerate(rungs):
        trained = {i: classifiers(train, model, {**grid[i], "epochs": epochs}, 1, seed) for i in left}
        merits = {i: _merit(one.members[0]) for i, one in trained.items()}
        left = sorted(left, key=merits.__getitem__, reverse=True)
        if number + 1 < len(rungs):
            left = left[: math.ceil(len(left) / 3)]
    return left[0], merits[left[0]][0], trained[left[0]]


def _merit(network: Any) -> tuple[float, float]:
    """Return AUC and -loss of a network's best epoch on its inner split."""
    best = network.best_epoch_ - 1
    return float(network.history_["inner_auc"][best]), -float(network.history_["inner_loss"][best])


def evaluate(train: Bags, test: Bags, model: str, recipe: Recipe, folds: int, seed: int) -> dict[str, float]:
    """Choose a setting on some bags, train with it, and measure on others.

    Parameters
    ----------
    train, test : Bags
        The bags to learn from, and those to measure on.
    model : str
        Of `MODELS` or `BASELINES`.
    recipe : Recipe
        What to choose from.
    folds : int
        Parts to divide the training bags into when choosing by cross-validation.
    seed : int
        Seed of all draws.

    Returns
    -------
    dict
        `auc`: of the networks together; `single`: mean AUC of one network; `accuracy`: of the networks together;
        `inner`: mean AUC of the chosen setting in the search; `chosen`: its number in the grid.
    """
    if recipe.rungs:
        chosen, inner, ensemble = halve(train, model, recipe.grid, recipe.rungs, seed)
    else:
        chosen, inner = choose(train, model, recipe.grid, folds, derive_seed(seed, 0))
        ensemble = classifiers(train, model, recipe.grid[chosen], recipe.members, derive_seed(seed, 1))
    scores = ensemble.scores(test)
    together = scores.mean(axis=0)
    return {
        "auc": auc(test.labels, together),
        "single": float(np.mean([auc(test.labels, one) for one in scores])),
        "accuracy": float(np.mean((together > ensemble.threshold) == test.labels)),
        "inner": inner,
        "chosen": float(chosen),
    }
