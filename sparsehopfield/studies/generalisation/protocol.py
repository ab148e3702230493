"""The protocol of the study of generalisation: its options, what is drawn, who is trained, and what is measured.

A run draws signals, strings of bits of which a share (the density) is 1, and bags: other strings are random with the
same share, and in every second bag one of them is replaced by a signal, some bits of which are flipped. All maps,
regularisations and inverse temperatures meet the same signals and bags, initial weights and order of bags.

The network is the one that the study of bits found best: layer norms off, bits of -1 and 1, one association with
learned queries, GELU, one linear layer. It is trained for all epochs, and its last weights are taken: nothing but the
regularisation keeps it from learning the bags by heart. Inverse temperatures are chosen for each map, density and run,
from the same list for all, by bags that are neither trained on nor tested with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sparsehopfield.studies._core.options import StudyOptions, at_least, check_names, derive_seed
from sparsehopfield.studies._core.scores import auc

if TYPE_CHECKING:
    from sparsehopfield.estimators import HopfieldMILClassifier

Floats = NDArray[np.float64]
MAPS = ("softmax", "sparsemax", "entmax15")
#: Not trained: the test that knows signals and shares (Neyman and Pearson's), which nothing can exceed but by chance.
OPTIMAL = "optimal"
#: The options that regularise.
REGULARISERS = ("decay", "dropout", "hidden")
#: Bags to choose inverse temperatures and regularisations by.
CHOOSING = 200
#: How the tested bags differ from those trained on: factors of the size, signals in a bag, a factor of the flips.
SMALLER, LARGER, MORE, NOISIER = 1 / 4, 4, 3, 2
#: What all networks have alike.
NETWORK: dict[str, Any] = {
    "normalize": False,
    "standardize": False,
    "signed": True,
    "initial_std": 0.2,
    "learning_rate": 1e-2,
    "batch_size": 80,
}


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of the study, beside those of all studies.

    Attributes
    ----------
    maps : str or sequence of str
        Of `MAPS`.
    densities : float or sequence of float
        Shares of bits that are 1; each is trained with, and its networks are tested with the others, too.
    decays, dropouts : float or sequence of float
        Weight decay of AdamW; dropout, in the association and before the last layer.
    hidden : int or sequence of int
        Dimensions of a head.
    betas : float or sequence of float
        Inverse temperatures to choose from, in units of 1 / sqrt(hidden).
    heads, bits, signals, size, bags, tested, epochs, runs : int
        Heads of the association, bits of an instance, signals, instances of a bag, bags to train on and of each test,
        epochs, and runs.
    flips : float
        The share of a signal's bits that are flipped.
    jobs : int
        Number of settings to measure at the same time.
    """

    maps: Sequence[str] = MAPS
    densities: Sequence[float] = (0.2, 0.5)
    decays: Sequence[float] = (0.0, 1.0)
    dropouts: Sequence[float] = (0.0,)
    hidden: Sequence[int] = (8,)
    betas: Sequence[float] = (0.06, 0.25, 1.0)
    heads: int = 4
    bits: int = 32
    signals: int = 4
    flips: float = 0.1
    size: int = 20
    bags: int = 400
    tested: int = 500
    epochs: int = 30
    runs: int = 3
    jobs: int = 1

    _sequences: ClassVar[Mapping[str, type]] = {
        "maps": str,
        "densities": float,
        "decays": float,
        "dropouts": float,
        "hidden": int,
        "betas": float,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("maps", self.maps, MAPS)
        for name, least in (("bits", 2), ("size", MORE), ("bags", 4), ("tested", 4)):
            at_least(name, getattr(self, name), least)
        for name in ("heads", "signals", "epochs", "runs", "jobs"):
            at_least(name, getattr(self, name), 1)
        at_least("hidden", min(self.hidden), 1)
        for density in self.densities:
            if not 0 < density < 1:
                raise ValueError(f"densities: must be above 0 and below 1, got {density}")
        for decay in self.decays:
            if not 0 <= decay < math.inf:
                raise ValueError(f"decays: must be finite and at least 0, got {decay}")
        for dropout in self.dropouts:
            if not 0 <= dropout < 1:
                raise ValueError(f"dropouts: must be at least 0 and below 1, got {dropout}")
        for beta in self.betas:
            if not 0 < beta < math.inf:
                raise ValueError(f"betas: must be positive and finite, got {beta}")
        if not 0 < self.flips * NOISIER < 0.5:
            raise ValueError(f"flips: must be above 0 and below {0.5 / NOISIER:g}, got {self.flips}")


class Condition(NamedTuple):
    """The parameters by which bags are drawn."""

    size: int  # instances of a bag
    signals: int  # instances of a positive bag that are signals
    density: float  # share of ones in the other instances
    flips: float  # share of a signal's bits that are flipped


class Drawn(NamedTuple):
    """Some bags."""

    bags: NDArray[np.float32]  # (n, size, bits), of 0 and 1
    labels: NDArray[np.int64]  # (n,)
    keys: NDArray[np.bool_]  # (n, size) which instances are signals
    condition: Condition


class Task(NamedTuple):
    """All that a run draws: the signals, bags to choose by, and the bags of each condition, those to train on first."""

    signals: NDArray[np.bool_]  # (signals, bits)
    choosing: Drawn
    sets: dict[str, Drawn]


def conditions(chosen: Options, density: float) -> dict[str, Condition]:
    """Return what the bags of each set are drawn from: trained on, tested alike, and shifted."""
    same = Condition(chosen.size, 1, density, chosen.flips)
    return {
        "train": same,
        "test": same,
        "smaller": same._replace(size=max(1, round(chosen.size * SMALLER))),
        "larger": same._replace(size=chosen.size * LARGER),
        "more": same._replace(signals=MORE),
        "noisier": same._replace(flips=chosen.flips * NOISIER),
        **{f"density {other:g}": same._replace(density=other) for other in chosen.densities if other != density},
    }


def metrics(chosen: Options, setting: Mapping[str, Any]) -> list[str]:
    """Return what is measured of a setting: AUC by the set's name, accuracy, and of networks what was chosen and why.

    `beta` is the inverse temperature, in units of 1 / sqrt(hidden); `choosing` the AUC on the bags to choose by;
    `weight` that of the signal, in the mean of all heads and positive bags of the set `test`.
    """
    names = list(conditions(chosen, setting["density"]))
    own = () if setting["map"] == OPTIMAL else ("beta", "choosing", "weight")
    return [*names, *(f"{name} accuracy" for name in names), *own]


def draw_signals(rng: np.random.Generator, count: int, bits: int, density: float) -> NDArray[np.bool_]:
    """Draw strings with a share of ones, rounded, but at least 1; (count, bits)."""
    ordered = np.arange(bits) < max(1, round(density * bits))
    return rng.permuted(np.tile(ordered, (count, 1)), axis=1)


def draw(rng: np.random.Generator, count: int, signals: NDArray[np.bool_], condition: Condition) -> Drawn:
    """Draw bags, every second one positive."""
    size, held, density, flips = condition
    bags = rng.random((count, size, signals.shape[1])) < density
    labels = np.arange(count) % 2
    positive = np.flatnonzero(labels)
    places = rng.permuted(np.tile(np.arange(size), (len(positive), 1)), axis=1)[:, :held]
    keys = np.zeros((count, size), np.bool_)
    keys[positive[:, None], places] = True
    which = rng.integers(len(signals), size=int(keys.sum()))
    bags[keys] = signals[which] ^ (rng.random((len(which), signals.shape[1])) < flips)
    return Drawn(bags.astype(np.float32), labels, keys, condition)


@lru_cache(maxsize=1)  # the settings of one run and density follow each other
def task(chosen: Options, density: float, run: int) -> Task:
    """Draw all of a run."""
    seeds = (derive_seed(chosen.seed, run, number) for number in range(1, 100))  # 0 is for the network
    signals = draw_signals(np.random.default_rng(next(seeds)), chosen.signals, chosen.bits, density)
    drawn_from = conditions(chosen, density)
    choosing = draw(np.random.default_rng(next(seeds)), CHOOSING, signals, drawn_from["train"])
    sets = {
        name: draw(np.random.default_rng(seed), chosen.bags if name == "train" else chosen.tested, signals, condition)
        for (name, condition), seed in zip(drawn_from.items(), seeds, strict=False)
    }
    return Task(signals, choosing, sets)


def optimal_scores(drawn: Drawn, signals: NDArray[np.bool_]) -> Floats:
    """Compute the logarithm of each bag's likelihood as a positive one over that as a negative one, (n,).

    It is the mean, over all places that the signals may have, of the product of these instances' ratios: an elementary
    symmetric polynomial of the ratios of all instances.
    """
    bags = drawn.bags.astype(np.float64)
    size, held, density, flips = drawn.condition
    ones = np.where(signals, 1 - flips, flips)  # (K, d) probabilities of a 1 in a flipped signal
    ratios = bags @ np.log(ones / density).T + (1 - bags) @ np.log((1 - ones) / (1 - density)).T  # (n, size, K)
    each = special.logsumexp(ratios, axis=-1) - math.log(len(signals))
    sums = np.full((len(bags), held + 1), -np.inf)  # logarithms of the polynomials of degree 0 to `held`
    sums[:, 0] = 0
    for instance in each.T:
        sums[:, 1:] = np.logaddexp(sums[:, 1:], instance[:, None] + sums[:, :-1])
    return sums[:, -1] - math.log(math.comb(size, held))


def trained(chosen: Options, setting: Mapping[str, Any], beta: float, train: Drawn) -> HopfieldMILClassifier:
    """Train the network of a setting with one inverse temperature, in units of 1 / sqrt(hidden)."""
    from sparsehopfield.estimators import HopfieldMILClassifier  # here: only those who train need scikit-learn

    return HopfieldMILClassifier(
        setting["map"],
        **NETWORK,
        num_heads=chosen.heads,
        hidden_size=setting["hidden"],
        beta=beta / math.sqrt(setting["hidden"]),
        dropout=setting["dropout"],
        head_dropout=setting["dropout"],
        weight_decay=setting["decay"],
        epochs=chosen.epochs,
        random_state=derive_seed(chosen.seed, setting["run"], 0),
    ).fit(train.bags, train.labels)


@lru_cache(maxsize=len(MAPS))  # every regularisation of a run and density asks
def best_beta(chosen: Options, name: str, density: float, run: int) -> float:
    """Return the inverse temperature of a map for all regularisations: by AUC on the bags to choose by.

    It is chosen, the first of equals, with the first weight decay, dropout and width of the options.
    """
    if len(chosen.betas) == 1:
        return chosen.betas[0]
    drawn = task(chosen, density, run)
    first = {"decay": chosen.decays[0], "dropout": chosen.dropouts[0], "hidden": chosen.hidden[0]}

    def merit(beta: float) -> float:
        machine = trained(chosen, {"map": name, "run": run, **first}, beta, drawn.sets["train"])
        return auc(drawn.choosing.labels, machine.decision_function(drawn.choosing.bags))

    return max(chosen.betas, key=merit)


def measure(chosen: Options, setting: Mapping[str, Any]) -> dict[str, float]:
    """Measure the values of `metrics` for one setting of the table; areas and weights to four digits."""
    name, density, run = (setting[column] for column in ("map", "density", "run"))
    drawn = task(chosen, density, run)
    if name == OPTIMAL:
        return _judged({kind: optimal_scores(some, drawn.signals) for kind, some in drawn.sets.items()}, drawn)
    beta = best_beta(chosen, name, density, run)
    machine = trained(chosen, setting, beta, drawn.sets["train"])
    test, positive = drawn.sets["test"], drawn.sets["test"].labels == 1
    weights = np.stack(machine.bag_weights(test.bags[positive]))
    return {
        **_judged({kind: machine.decision_function(some.bags) for kind, some in drawn.sets.items()}, drawn),
        "beta": beta,
        "choosing": round(auc(drawn.choosing.labels, machine.decision_function(drawn.choosing.bags)), 4),
        "weight": round(float(weights[test.keys[positive]].mean()), 4),
    }


def _judged(scores: Mapping[str, Floats], drawn: Task) -> dict[str, float]:
    """Return AUC and accuracy of the scores of each set; a bag is called positive where its score is above 0."""
    areas = {name: round(auc(drawn.sets[name].labels, given), 4) for name, given in scores.items()}
    right = {
        f"{name} accuracy": float(np.mean((given > 0) == drawn.sets[name].labels)) for name, given in scores.items()
    }
    return areas | right
