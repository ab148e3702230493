"""The protocol of the study of bags of digits: what is drawn, how classifiers are made, what is measured of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield.data import datasets
from sparsehopfield.data.bags import Bags, image_bags
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies._core.scores import auc
from sparsehopfield.studies._core.sources import naming_options

if TYPE_CHECKING:
    from sparsehopfield.estimators import HopfieldMILClassifier

#: The models by the names that the paper has for them, and the separation map of each.
MODELS = {"sparse": "sparsemax", "dense": "softmax"}

METRICS = ("auc", "accuracy", "found", "key weight", "support")

#: Bags that a classifier is tested with, as Ilse et al. do.
TESTED = 1000
#: Of scikit-learn's 1,797 digits, so many make the bags to train with, and the others those to test with.
DIGITS_TRAINED = 1297

#: The same for both models and for all bags.
SETTINGS: dict[str, Any] = {
    "embedding": (128,),
    "num_heads": 4,
    "hidden_size": 32,
    "beta": 1.0,
    "standardize": False,
    "head_dropout": 0.2,
    "epochs": 40,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "anneal": ("beta", 0.05, 1.0, 0.7),
}


@dataclass(frozen=True)
class Source:
    """Images to train with and images to test with, and the digits that they show.

    Attributes
    ----------
    train, test : ImageSet
        The images.
    train_digits, test_digits : ndarray of int
        The digits.
    """

    train: datasets.ImageSet
    train_digits: NDArray[np.uint8]
    test: datasets.ImageSet
    test_digits: NDArray[np.uint8]

    @classmethod
    def load(cls, name: str, root: str | os.PathLike[str] | None) -> Source:
        """Load a data set by name, "digits" or "mnist"; MNIST is read from the folder `root`."""
        with naming_options():
            images, digits = datasets.load(name, root), datasets.load_labels(name, root)
        if name == "digits":
            parts = slice(0, DIGITS_TRAINED), slice(DIGITS_TRAINED, None)
            train, test = (
                datasets.ImageSet(images.name, images.images[part], images.shape, images.description) for part in parts
            )
            return cls(train, digits[parts[0]], test, digits[parts[1]])
        assert root is not None  # else nothing was loaded
        return cls(images, digits, datasets.load_mnist(root, "test"), datasets.load_labels(name, root, "test"))

    def bags(self, part: str, count: int, size: int, targets: int | None, seed: int) -> Bags:
        """Draw bags.

        Parameters
        ----------
        part : {"train", "test"}
            The images to draw from.
        count, size : int
            How many bags, and their mean size; the standard deviation is a fifth of it, as Ilse et al. have it.
        targets : int or None
            How many nines a positive bag has; None for as many as chance puts there.
        seed : int
            Seed of the draw.
        """
        images, digits = (self.train, self.train_digits) if part == "train" else (self.test, self.test_digits)
        return image_bags(images, digits, count, size, size / 5, targets_per_bag=targets, seed=seed)


def trained(model: str, bags: Bags, seed: int, epochs: int) -> HopfieldMILClassifier:
    """Train a classifier on bags for some epochs; `seed` is of the initial weights and of the order of the bags."""
    from sparsehopfield.estimators import HopfieldMILClassifier  # here: only those who train need scikit-learn

    options = {**SETTINGS, "epochs": epochs}
    return HopfieldMILClassifier(separation=MODELS[model], random_state=seed, **options).fit(bags, bags.labels)


def evaluate(machine: HopfieldMILClassifier, bags: Bags) -> dict[str, float]:
    """Measure a trained classifier.

    Parameters
    ----------
    machine : HopfieldMILClassifier
        A trained one.
    bags : Bags
        Bags that it has not seen.

    Returns
    -------
    dict
        `auc` and `accuracy` over all bags; and over the positive ones, `found`: the share in which the instance with
        the largest weight is a nine, `key weight`: the mean weight of all nines together, `support`: the mean number
        of instances with weight. An instance's weight is the mean over heads.
    """
    probabilities = machine.predict_proba(bags)[:, 1]
    positive = np.flatnonzero(bags.labels)
    weights = weights_of(machine, bags.take(positive))
    keys = [bags.keys_of(int(index)) for index in positive]
    return {
        "auc": auc(bags.labels, probabilities),
        "accuracy": float(np.mean((probabilities > 0.5) == bags.labels)),
        "found": float(np.mean([key[weight.argmax()] for key, weight in zip(keys, weights, strict=True)])),
        "key weight": float(np.mean([weight[key].sum() for key, weight in zip(keys, weights, strict=True)])),
        "support": float(np.mean([np.count_nonzero(weight) for weight in weights])),
    }


def weights_of(machine: HopfieldMILClassifier, bags: Bags) -> Sequence[NDArray[np.float64]]:
    """Compute the weight of every instance of every bag, the mean over heads."""
    return [np.asarray(weights, np.float64) for weights in machine.bag_weights(bags)]


def draw_and_train(
    source: Source, model: str, size: int, count: int, targets: int | None, seed: int, epochs: int
) -> tuple[HopfieldMILClassifier, Bags]:
    """Draw the bags of one run, and train on some of them.

    Parameters
    ----------
    source : Source
        The images.
    model : {"sparse", "dense"}
        The separation map.
    size, count : int
        The mean size of a bag, and how many to train with.
    targets : int or None
        Number of nines in a positive bag.
    seed : int
        The run's seed, as the table has it.
    epochs : int
        How long to train.

    Returns
    -------
    machine : HopfieldMILClassifier
        Trained.
    test : Bags
        Bags of the other images, to test with.
    """
    machine = trained(
        model, source.bags("train", count, size, targets, derive_seed(seed, 0)), derive_seed(seed, 1), epochs
    )
    return machine, source.bags("test", TESTED, size, targets, derive_seed(seed, 2))
