"""Hostile calls: every public function answers, or says in an error which argument is at fault.

A case takes sound arguments of one function or method, puts something hostile in the place of one or two of them and
calls it. A result is fine, and so is a TypeError, ValueError or OverflowError that names an argument, or what else the
docstring's `Raises` lists. Anything else is not: other exceptions, messages that name nothing, arrays changed that are
no output, NaN made of finite numbers, crashes, hangs (`engine`).
"""

import copy
import fractions
import functools
import importlib
import inspect
import io
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import scipy.sparse

import sparsehopfield as sh
from sparsehopfield import distributed, layers, losses, optim, row_maps, structures, suggestion, theory
from sparsehopfield._engine import dense
from sparsehopfield._engine.association import associate_backward, associate_forward
from sparsehopfield._engine.separations import FAMILIES
from sparsehopfield.data import bags, datasets, repertoires
from sparsehopfield.theory import nonparametric
from sparsehopfield.theory import structures as theory_structures

from .corpus import ROOM
from .engine import Flaw, told

LONGEST = 4000  # characters of a message
MUCH = 10**6  # who asks for so many may be told that there is no memory
LOOPS = {"max_steps", "epochs", "steps", "restarts", "num_bags", "update_steps_max", "patience", "n_patterns"}

# --- sound arguments --------------------------------------------------------------------------------------

M, D, N, V = 6, 4, 3, 2


class Sound:
    """Arrays that fit one another, anew for every case."""

    def __init__(self, random: Random) -> None:
        rng = np.random.default_rng(random.randrange(2**32))
        self.dtype = dtype = random.choice((np.float32, np.float64))
        self.random = random

        def normal(*shape: int) -> Any:
            return rng.normal(size=shape).astype(dtype)

        self.x, self.q, self.v = normal(M, D), normal(N, D), normal(M, V)
        self.z, self.g = normal(N, M), normal(N, M)
        self.p = sh.sparsemax(self.z)
        self.bags, self.wide = normal(N, 5, D), normal(N, 5, D)
        self.index = np.array([0, 2, 5])
        self.separation = random.choice(("sparsemax", "entmax15", sh.Entmax(1.25)))
        self.similarity = random.choice(("dot", "euclidean", "cosine"))
        self.common = {"similarity": self.similarity, "separation": self.separation, "check_finite": True}

    def structure(self) -> Any:
        return self.random.choice((None, structures.TopK(2), structures.RandomMask(2, 1)))

    def memory(self, **options: Any) -> sh.HopfieldMemory:
        more = {"similarity": self.similarity, "separation": self.separation, **options}
        return sh.HopfieldMemory(self.x, 2.0, copy=True, **more)

    def layer(self, kind: Any = None, **options: Any) -> Any:
        made = kind or self.random.choice((layers.Hopfield, layers.SparseHopfield))
        return made(D, hidden_size=2, num_heads=2, dtype=np.dtype(self.dtype).name, random_state=0, **options)

    def images(self) -> datasets.ImageSet:
        return datasets.ImageSet("digits", np.arange(20 * 4, dtype=np.uint8).reshape(20, 4), (2, 2), "images")


def _row_map(name: str, **more: Any) -> Callable[[Sound], Any]:
    function = getattr(sh, name)

    def made(s: Sound) -> Any:
        own: dict[str, Any] = {
            "z": s.z,
            "p": s.p,
            "g": s.g,
            "axis": s.random.choice((-1, 0)),
            "out": np.empty_like(s.z),
        }
        own |= {"alpha": 1.5, "order": 3, "k": 2}
        if "vjp" in name:
            own["axis"] = -1
        return function, {n: own[n] for n in inspect.signature(function).parameters} | more

    return made


def _loss(name: str) -> Callable[[Sound], Any]:
    function = getattr(sh, name)

    def made(s: Sound) -> Any:
        axis = s.random.choice((-1, 0))
        rows = s.z.shape[1 + axis]
        own: dict[str, Any] = {"z": s.z, "target": s.p if s.random.random() < 0.5 else np.arange(rows) % 2}
        if own["target"] is s.p:
            axis, rows = -1, N
        own |= {"alpha": 1.5, "axis": axis, "ignore_index": -1, "sample_weight": np.ones(rows)}
        own |= {"reduction": s.random.choice(("none", "sum", "mean")), "return_gradient": True}
        return function, {n: own[n] for n in inspect.signature(function).parameters}

    return made


def _operation(name: str, **more: Any) -> Callable[[Sound], Any]:
    function = getattr(sh, name)

    def made(s: Sound) -> Any:
        own = {"queries": s.q, "patterns": s.x, "beta": 2.0, "structure": s.structure(), **s.common}
        if name in ("update", "retrieve"):
            own |= {"values": s.v, "out": np.empty((N, V), s.dtype)}
        if name == "retrieve":
            own |= {"max_steps": 20, "tol": 1e-3, "return_info": True}
        if name == "associate":
            own |= {"top": 3, "min_weight": 0.01}
        if name == "candidates":
            own |= {"values": s.v, "offset": 3, "structure": None}
        return function, own | more

    return made


def _of_memory(
    name: str, *, plain: bool = False, excludes: bool = False, of: Any = None, **options: Any
) -> Callable[[Sound], Any]:
    """A method of a memory, made with the options `of`; plain: of all pairs only; excludes: perhaps with `exclude`."""

    def made(s: Sound) -> Any:
        excluding = excludes and s.random.choice((True, False))
        structure = s.random.choice((None, structures.TopK(2))) if excluding else None if plain else s.structure()
        memory = s.memory(**{"structure": structure} | (of or {}), ids=[5, 4, 9, 1, 2, 7])
        own = {key: value(s) if callable(value) else value for key, value in options.items()}
        return getattr(memory, name), own | ({"exclude": np.arange(N) - 1 if excluding else None} if excludes else {})

    return made


def _of_shards(name: str, *, plain: bool = False, **options: Any) -> Callable[[Sound], Any]:
    """A method of a coordinator of two shards; plain: of all pairs only."""

    def made(s: Sound) -> Any:
        shards = [distributed.Shard(s.x[a:b], first=a, similarity=s.similarity, block=2) for a, b in ((0, 2), (2, M))]
        structure = None if plain else s.random.choice((None, structures.TopK(2)))
        model = {"separation": s.random.choice((s.separation, *([] if plain else ["softmax"]))), "structure": structure}
        memory = distributed.Coordinator(distributed.Serial(shards), 2.0, **model)
        return getattr(memory, name), {key: value(s) if callable(value) else value for key, value in options.items()}

    return made


def _setter(name: str, value: Any) -> Callable[[Sound], Any]:
    def made(s: Sound) -> Any:
        memory = s.memory()

        def assign(**given: Any) -> None:
            setattr(memory, name, given[name])

        return assign, {name: value(s) if callable(value) else value}

    return made


def _theory(module: Any, name: str, **more: Any) -> Callable[[Sound], Any]:
    function = getattr(module, name)

    def made(s: Sound) -> Any:
        own: dict[str, Any] = {"patterns": s.x, "queries": s.q, "points": s.q, "index": s.index, "beta": 2.0, "k": 2}
        own |= {"similarity": s.similarity, "separation": "sparsemax", "x": s.q, "y": s.x[:N], "p": s.p, "q": s.z}
        own |= {"scores": s.z, "mask": np.ones((N, M), bool), "n_features": 8, "relative_error": 0.5, "radius": None}
        names = [n for n in inspect.signature(function).parameters if n in own]
        return function, {n: own[n] for n in names} | more

    return made


def _nonparametric(s: Sound) -> Any:
    """A regression made, fitted and asked."""
    own: dict[str, Any] = {"memories": s.v, "queries": s.x, "asked": s.q, "positions": s.index}
    own |= {"kernel": s.random.choice(("exponential", "linear", "dot", structures.RandomFeatures(5)))}
    own |= {"structure": s.structure(), "beta": 2.0, "similarity": "dot", "C": s.random.choice((None, 10.0))}
    own |= {"epsilon": 1e-6, "cost": s.random.choice(("memories", "uniform")), "max_iter": 50, "tol": 1e-6}

    def run(memories: Any, queries: Any, asked: Any, positions: Any, **options: Any) -> Any:
        """Fit and ask; raises IndexError for positions out of range."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sh.RetrievalWarning)
            made = nonparametric.NonparametricHopfield(**options).fit(memories, queries)
            return made.update(asked), made.predict(asked), made.regression(positions).coefficients

    return run, own


def _constructed(kind: Any, **arguments: Any) -> Callable[[Sound], Any]:
    return lambda s: (kind, {n: value(s) if callable(value) else value for n, value in arguments.items()})


def _hopfield(kind: Any, **more: Any) -> Callable[[Sound], Any]:
    """A layer made, and run forward and backward."""

    def made(s: Sound) -> Any:
        own = {"input_size": D, "hidden_size": 2, "output_size": 3, "pattern_size": 2, "num_heads": 2, "scaling": 1.0}
        own |= {"update_steps_max": 1, "update_steps_eps": 1e-3, "dropout": 0.1, "separation": None, "structure": None}
        own |= {"gradient": "unrolled", "initial_std": 0.02, "dtype": "float32", "random_state": 0}
        own |= {"association_activation": "relu", "normalize_stored_pattern_eps": 1e-5, "stored_pattern_size": None}
        own |= {"batch_first": True, "concat_bias_pattern": False, "add_zero_association": False, **more}

        def run(**given: Any) -> Any:
            layer = kind(**given)
            out = layer.forward(s.bags, train=True)
            layer.backward(np.ones_like(out))
            return out

        return run, own

    return made


def _of_layer(method: str, kind: Any = None, *, ragged: bool = False, **more: Any) -> Callable[[Sound], Any]:
    def made(s: Sound) -> Any:
        layer = s.layer(kind, structure=s.random.choice((None, structures.TopK(2))))
        own: dict[str, Any] = {"input": s.bags, "stored_pattern_padding_mask": np.zeros((N, 5), bool)}
        own["association_mask"] = np.zeros((1 if kind else 5, 5), bool)
        if ragged:
            own = {"input": s.bags.reshape(-1, D), "offsets": np.array([0, 5, 9, 15])}
        return getattr(layer, method), own | more

    return made


def _run_layer(s: Sound) -> Any:
    layer = s.layer()
    layer.forward(s.bags)
    return layer


def _backward(kind: Any = None) -> Callable[[Sound], Any]:
    def made(s: Sound) -> Any:
        layer = s.layer(kind)
        out = layer.forward(s.bags, train=True)
        return layer.backward, {"grad": np.ones_like(out), "need_input_grad": True}

    return made


def _small_layer(layer: Callable[[], Any], method: str) -> Callable[[Sound], Any]:
    def made(s: Sound) -> Any:
        one = layer()
        if method == "forward":
            return one.forward, {"input": s.bags, "train": True}
        return one.backward, {"grad": np.ones_like(one.forward(s.bags)), "need_input_grad": True}

    return made


def _state_dict(of: str) -> Callable[[Sound], Any]:
    """One entry of a state is hostile, or the state itself."""

    def made(s: Sound) -> Any:
        layer = layers.Linear(D, 2, random_state=0)
        target: Any = layer if of == "layer" else optim.AdamW(layer)
        entries = target.state_dict()

        def load(**given: Any) -> None:
            target.load_state_dict(given["state"] if "state" in given else entries | given)

        if s.random.random() < 0.3:
            return load, {"state": entries}
        name = s.random.choice(sorted(entries))
        return load, {name: entries[name]}

    return made


def _optimiser(s: Sound) -> Any:
    layer = layers.Linear(D, 2, random_state=0)
    layer.backward(np.ones_like(layer.forward(s.q)))

    def step(**given: Any) -> None:
        optim.AdamW(**given).step()

    options = {"learning_rate": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    return step, {"parameters": layer, **options}


def _value_or_grad(s: Sound) -> Any:
    """What the caller puts into a parameter."""
    layer = layers.Linear(D, 2, random_state=0)

    def train(**given: Any) -> None:
        for name, array in given.items():
            parameter, _, part = name.partition("__")
            setattr(layer.parameters()[parameter], part, array)
        out = layer.forward(s.q)
        layer.backward(np.ones_like(out))
        optim.AdamW(layer).step()

    weight = layer.weight.value.copy()
    return train, {"weight__value": weight, "weight__grad": np.zeros_like(weight)}


def _annealing(s: Sound) -> Any:
    layer = s.layer(layers.SparseHopfieldPooling)

    def anneal(**given: Any) -> None:
        schedule = optim.Annealing(layer, **given)
        schedule.step()
        layer.forward(s.bags)

    return anneal, {"what": "beta", "start": 0.5, "stop": 2.0, "epochs": 3}


def _decay(s: Sound) -> Any:
    optimiser = optim.AdamW(layers.Linear(D, 2))
    return optim.ExponentialDecay, {"optimizer": optimiser, "rate": 0.9}


def _cosine(s: Sound) -> Any:
    optimiser = optim.AdamW(layers.Linear(D, 2))
    return optim.CosineDecay, {"optimizer": optimiser, "epochs": 3, "stop": 0.0}


def _clip(s: Sound) -> Any:
    layer = layers.Linear(D, 2, random_state=0)
    layer.backward(np.ones_like(layer.forward(s.q)))
    return optim.clip_gradients, {"parameters": layer, "max_norm": 1.0}


def _association(s: Sound) -> Any:
    rows = {
        "queries": s.bags.reshape(N, 5, 2, 2),
        "stored": s.wide.reshape(N, 5, 2, 2),
        "values": s.wide.reshape(N, 5, 2, 2),
    }
    options = {"beta": np.ones(2), "separation": "sparsemax", "update_steps_max": 1, "update_steps_eps": 1e-3}
    options |= {"padding_mask": np.zeros((N, 5), bool), "mask": None, "offsets": None, "dropout": 0.0, "seed": 1}
    return associate_forward, rows | options


def _association_back(s: Sound) -> Any:
    rows = [a.reshape(N, 5, 2, 2) for a in (s.bags, s.wide, s.wide)]
    out, saved, *_ = associate_forward(*rows, np.ones(2))
    return associate_backward, {"saved": saved, "grad": np.ones_like(out)}


def _merge(s: Sound) -> Any:
    options = {"similarity": s.similarity, "separation": s.random.choice((s.separation, "softmax"))}
    parts = [sh.candidates(s.q, s.x[a:b], 2.0, offset=a, **options) for a, b in ((0, 2), (2, 6))]

    def merge(**given: Any) -> Any:
        if "parts" in given:
            return sh.merge(given["parts"])
        part = copy.copy(parts[0])
        for name, array in given.items():  # what a caller may have done to a part
            object.__setattr__(part, name, array)
        whole = sh.merge([part, parts[1]])
        return whole.states(s.x if whole.start is not None else None)

    if s.random.random() < 0.4:
        return merge, {"parts": parts}
    names = [n for n in ("start", "position", "score", "scale", "sum", "mixture") if getattr(parts[0], n) is not None]
    return merge, {name: getattr(parts[0], name).copy() for name in s.random.sample(names, 1)}


def _states(s: Sound) -> Any:
    part = sh.candidates(s.q, s.x, 2.0, separation=s.separation)
    return part.states, {"values": s.x}


def _feature_state(method: str) -> Callable[[Sound], Any]:
    def made(s: Sound) -> Any:
        features = s.random.choice((structures.LinearFeatures(), structures.RandomFeatures(6, seed=1)))
        if method == "state":
            return features.state, {"patterns": s.x, "values": s.v, "beta": 0.5, "similarity": "dot"}
        state = features.state(s.x, s.v, 0.5)
        if method == "add":
            return state.add, {"patterns": s.x, "values": s.v}
        if method == "merge":
            return state.merge, {"other": features.state(s.x, s.v, 0.5)}
        return state.update, {"queries": s.q}

    return made


def _under(structure: Callable[..., Any], n: int, **arguments: Any) -> Callable[[Sound], Any]:
    """A structure made, and used."""

    def made(s: Sound) -> Any:
        def use(**given: Any) -> Any:
            made = structure(**given)
            repr(made)
            hash(made)
            return sh.update(s.x[:n], s.x, 1.0, separation="softmax", structure=made)

        return use, dict(arguments)

    return made


def _cost(structure: Any) -> Callable[[Sound], Any]:
    return lambda s: (structure.cost, {"n": M, "m": M, "d": D})


def _mask(structure: Any) -> Callable[[Sound], Any]:
    return lambda s: (structure.mask, {"n": M, "m": M})


def _classifier(s: Sound) -> Any:
    from sparsehopfield.estimators import HopfieldClassifier

    def fit(X: Any, y: Any, sample_weight: Any, Q: Any, return_certificate: Any, **options: Any) -> Any:
        model = HopfieldClassifier(**options).fit(X, y, sample_weight)
        model.partial_fit(X, y, sample_weight=sample_weight)
        return model.predict_proba(Q), model.predict(Q, return_certificate), model.predict_leave_one_out()

    options = {"beta": 1.0, "separation": "sparsemax", "similarity": "euclidean", "max_steps": 2, "tol": 0.1}
    rows = {"X": s.x, "y": [0, 1, 0, 1, 1, 0], "sample_weight": None, "Q": s.q, "return_certificate": True}
    return fit, {**rows, "structure": None, **options}


def _regressor(s: Sound) -> Any:
    from sparsehopfield.estimators import HopfieldRegressor

    def fit(X: Any, y: Any, sample_weight: Any, Q: Any, **options: Any) -> Any:
        model = HopfieldRegressor(**options).fit(X, y, sample_weight)
        model.partial_fit(X, y, sample_weight=sample_weight)
        return model.predict(Q), model.predict_leave_one_out()

    options = {"beta": 1.0, "separation": "sparsemax", "similarity": "euclidean", "max_steps": 2, "tol": 0.1}
    rows = {"X": s.x, "y": [0.0, 1, 0, 1, 1, 0], "sample_weight": [1.0, 2, 1, 0, 1, 1], "Q": s.q}
    return fit, {**rows, "structure": None, **options}


def _detector(s: Sound) -> Any:
    from sparsehopfield.estimators import HopfieldOutlierDetector

    def fit(X: Any, sample_weight: Any, Q: Any, **options: Any) -> Any:
        model = HopfieldOutlierDetector(**options, novelty=True).fit(X, sample_weight=sample_weight)
        model.partial_fit(X, sample_weight=sample_weight)
        return model.predict(Q), model.decision_function(Q)

    options = {"beta": 1.0, "separation": "sparsemax", "similarity": "euclidean", "contamination": 0.1}
    return fit, {"X": s.x, "sample_weight": [1.0, 2, 1, 0, 1, 1], "Q": s.q, "structure": None, **options}


def _retriever(s: Sound) -> Any:
    from sparsehopfield.estimators import HopfieldRetriever

    def fit(X: Any, sample_weight: Any, Q: Any, return_certificate: Any, **options: Any) -> Any:
        return HopfieldRetriever(**options).fit(X, None, sample_weight).transform(Q, return_certificate)

    options = {"beta": 1.0, "separation": "sparsemax", "similarity": "euclidean", "max_steps": 5, "tol": None}
    rows = {"X": s.x, "sample_weight": None, "Q": s.q, "return_certificate": True}
    return fit, {**rows, "structure": None, **options}


def _forecaster(s: Sound) -> Any:
    from sparsehopfield.estimators import HopfieldForecaster

    def fit(y: Any, more: Any, origins: Any, top: Any, **options: Any) -> Any:
        model = HopfieldForecaster(**options).fit(y).update(more)
        return model.predict(), model.predict_at(y, origins), model.support_size(y, origins), model.analogues(top=top)

    y = np.concatenate([s.x, s.x[::-1] + 1, s.x + 2])[:, :2]
    options = {"horizon": 2, "window": 3, "beta": 2.0, "separation": s.separation, "floor": 0.2, "base": None}
    rows = {"y": y, "more": s.q[:, :2], "origins": [4, 9], "top": 2}
    return fit, {**rows, "base_window": None, "structure": None, **options}


def _plot(name: str) -> Callable[[Sound], Any]:
    """A plot, or what is drawn from; Matplotlib, which sanitizers' runs lack, is imported when one is made."""

    def made(s: Sound) -> Any:
        from sparsehopfield.inspect import paths, plots

        function = getattr(plots, name, None) or getattr(paths, name)
        own: dict[str, Any] = {"memory": s.memory(), "queries": s.q, "max_steps": 5, "tol": 1e-3, "betas": [0.5, 2.0]}
        own |= {"quantiles": (0.1, 0.9), "labels": ["a", "b", "c"], "weights": s.p, "keys": [*"abcdef"], "bags": None}
        own |= {"colorbar": False, "ax": None, "y_true": [0, 1, 1], "probabilities": s.p[:, 0], "bins": 4, "name": "a"}
        own |= {"strategy": "uniform", "counts": True, "X": s.q, "y": [0, 1, 0]}
        if name == "attention_map":
            own["queries"] = [*"abc"]
        if name == "calibration":
            own["labels"] = [0, 1]
        if name == "calibration_by_beta":
            from sparsehopfield.estimators import HopfieldClassifier

            own["classifier"] = HopfieldClassifier().fit(s.x, [0, 1, 0, 1, 1, 0])
        return function, {n: own[n] for n in inspect.signature(function).parameters if n in own}

    return made


def _playground(s: Sound) -> Any:
    from sparsehopfield.playground import playground

    def draw(**given: Any) -> Any:
        return playground(**given).draw()

    options = {"image": 1, "hidden": 0.5, "noise": 0.1, "beta": 2.0, "max_steps": 3, "seed": 0}
    return draw, {
        "memory_or_images": s.random.choice((s.x, s.memory())),
        "shape": (2, 2),
        "separation": s.separation,
        "similarity": s.similarity,
        **options,
    }


def _mil(s: Sound) -> Any:
    from sparsehopfield.estimators import HopfieldMILClassifier

    def fit(bags: Any, y: Any, bag_ids: Any, sample_weight: Any, **options: Any) -> Any:
        made = HopfieldMILClassifier(**options).fit(bags, y, bag_ids, sample_weight=sample_weight)
        return made.predict_proba(bags, bag_ids)

    options: dict[str, Any] = {"epochs": 1, "batch_size": 2, "hidden_size": 2, "num_heads": 1, "random_state": 0}
    options |= {"separation": "sparsemax", "layer": "pooling", "embedding": (3,), "beta": None, "quantity": 1}
    options |= {"update_steps_max": 0, "dropout": 0.1, "activation": "gelu", "learning_rate": 1e-3, "max_norm": 1.0}
    options |= {"learning_rate_decay": 0.9, "weight_decay": 1e-4, "anneal": None, "validation_fraction": 0.0}
    options |= {"early_stopping": None, "patience": None, "restarts": 1, "initial_std": 0.02, "verbose": 0}
    options |= {"dtype": "float32", "standardize": True, "structure": None, "head_dropout": 0.1, "output_size": None}
    rows, ids = s.bags.reshape(-1, D), np.repeat(np.arange(N), 5)
    return fit, {"bags": rows, "y": [0, 1, 0], "bag_ids": ids, "sample_weight": None, **options}


def _prototypes(s: Sound) -> Any:
    from sparsehopfield.estimators import HopfieldPrototypeClassifier

    def fit(X: Any, y: Any, more: Any, classes: Any, sample_weight: Any, **options: Any) -> Any:
        made = HopfieldPrototypeClassifier(**options).fit(X, y, sample_weight)
        return made.partial_fit(more, y[:N], classes).predict_proba(X), made.prototype_weights(more)

    options: dict[str, Any] = {"n_prototypes": 3, "beta": 2.0, "learn_beta": True, "separation": s.separation}
    options |= {"structure": s.random.choice((None, structures.TopK(2))), "init": s.random.choice(("k-means", "rows"))}
    options |= {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "learning_rate_decay": 0.9, "weight_decay": 0.0}
    options |= {"max_norm": 1.0, "random_state": 0, "verbose": 0, "dtype": "float32"}
    y = np.arange(M) % 2
    return fit, {"X": s.x, "y": y, "more": s.q, "classes": None, "sample_weight": None, **options}


def _loader(function: Any, folder: str, **more: Any) -> Callable[[Sound], Any]:
    names = list(inspect.signature(function).parameters)
    given = {"root": str(ROOM / folder), "path": str(ROOM / folder / "plain.csv"), "name": "mnist", "split": "train"}
    return lambda s: (function, {n: given[n] for n in names if n not in more} | more)


def _bags_object(method: str) -> Callable[[Sound], Any]:
    def made(s: Sound) -> Any:
        found = bags.bit_patterns(4, 3, bags.bit_signals(), seed=1)
        return getattr(found, method), {"index": [0, 2] if method == "take" else 1}

    return made


def _dense(name: str) -> Callable[[Sound], Any]:
    def made(s: Sound) -> Any:
        weight, bias, gain = s.x[:2].copy(), s.x[0, :2].copy(), s.x[1].copy()
        shift, grad = s.x[2].copy(), s.q[:, :2].copy()
        xhat, rstd = dense.normalize(s.q, 1e-5)
        own: dict[str, dict[str, Any]] = {
            "linear": {"x": s.q, "weight": weight, "bias": bias},
            "linear_backward": {"x": s.q, "weight": weight, "grad": grad},
            "normalize": {"x": s.q, "eps": 1e-5},
            "normalize_backward": {"xhat": xhat, "rstd": rstd, "grad": s.q.copy()},
            "fold": {"weight": weight, "bias": bias, "gain": gain, "shift": shift},
            "unfold": {"dweight": weight.copy(), "dbias": bias.copy(), "weight": weight, "gain": gain, "shift": shift},
        }
        own["fold"]["out"] = (np.empty_like(weight), np.empty_like(bias))
        return getattr(dense, name), own[name]

    return made


def _module(kind: Any, **arguments: Any) -> Callable[[Sound], Any]:
    """A small layer made and run."""

    def made(s: Sound) -> Any:
        def run(**given: Any) -> Any:
            layer = kind(**given)
            out = layer.forward(s.q, train=True)
            layer.backward(np.ones_like(out))
            return out

        return run, dict(arguments)

    return made


def _saved(kind: str) -> Callable[[Sound], Any]:
    """`save` and `load` with hostile paths, in the case's folder."""

    def made(s: Sound) -> Any:
        target: Any = s.memory() if kind == "memory" else layers.Linear(D, 2, random_state=0)

        def save(path: Any, **options: Any) -> None:
            target.save(path)
            (sh.HopfieldMemory.load if kind == "memory" else layers.load)(path, **options)

        return save, {"path": "saved", **({"mmap": True, "verify": True} if kind == "memory" else {})}

    return made


ARRAYS = {"queries": lambda s: s.q}
TARGETS: dict[str, Callable[[Sound], Any]] = {
    **{f"sparsehopfield.{name}": _row_map(name) for name in row_maps.__all__},
    **{f"sparsehopfield.{name}": _loss(name) for name in losses.__all__},
    **{
        f"sparsehopfield.{name}": _operation(name)
        for name in ("update", "retrieve", "associate", "energy", "candidates")
    },
    "sparsehopfield.merge": _merge,
    "sparsehopfield.Candidates": _states,
    **{
        f"sparsehopfield.{family.__name__}": _constructed(family, **{family.row.parameter.name: 3})
        for family in FAMILIES.values()
    },
    "sparsehopfield.suggest": _constructed(
        sh.suggest,
        X=lambda s: s.x,
        y=lambda s: s.v[:, 0],
        queries=lambda s: s.q,
        task="regression",
        similarity=lambda s: s.similarity,
        separation="sparsemax",
        subsample=5,
        random_state=1,
    ),
    "suggestion.storing_beta": _constructed(
        suggestion.storing_beta, memory=lambda s: sh.HopfieldMemory(s.x), share=0.5
    ),
    "suggestion.best_beta": _constructed(
        suggestion.best_beta,
        memory=lambda s: sh.HopfieldMemory(s.x, values=s.v[:, :1]),
        y=lambda s: s.v[:, 0],
        task="regression",
        sample_weight=lambda s: np.ones(len(s.x)),
        random_state=1,
    ),
    "sparsehopfield.show_config": _constructed(sh.show_config, mode="dict"),
    "sparsehopfield.set_num_threads": _constructed(sh.set_num_threads, n=1),
    "sparsehopfield.HopfieldMemory": _constructed(
        sh.HopfieldMemory,
        patterns=lambda s: s.x,
        beta=2.0,
        values=lambda s: s.v,
        similarity=lambda s: s.similarity,
        separation=lambda s: s.separation,
        structure=lambda s: s.structure(),
        ids=lambda s: np.arange(M) * 3,
        copy=True,
        check_finite=True,
        scale=None,
        pattern_shape=lambda s: s.random.choice((None, (D,), (2, D // 2))),
    ),
    "HopfieldMemory.add": _of_memory("add", patterns=lambda s: s.q, ids=lambda s: [100, 101, 99]),
    "HopfieldMemory.remove": _of_memory("remove", positions=lambda s: s.random.choice(([0, 2], 1, slice(1, 3)))),
    "HopfieldMemory.update": _of_memory("update", **ARRAYS, excludes=True, out=lambda s: np.empty_like(s.q)),
    "HopfieldMemory.leave_one_out": _of_memory(
        "leave_one_out", plain=True, positions=lambda s: s.random.choice(([0, 2], 1, None))
    ),
    "HopfieldMemory.retrieve": _of_memory(
        "retrieve", **ARRAYS, excludes=True, max_steps=20, tol=1e-3, return_info=True, out=lambda s: np.empty_like(s.q)
    ),
    "HopfieldMemory.associate": _of_memory("associate", **ARRAYS, excludes=True, top=2, min_weight=0.01),
    "HopfieldMemory.energy": _of_memory("energy", **ARRAYS, excludes=True),
    "HopfieldMemory.candidates": _of_memory("candidates", plain=True, **ARRAYS, offset=2),
    "HopfieldMemory.nearest": _of_memory("nearest", plain=True, **ARRAYS, excludes=True, k=2),
    "HopfieldMemory.certify": _of_memory("certify", plain=True, **ARRAYS, beta=2.0),
    "HopfieldMemory.explain": _of_memory("explain", query=lambda s: s.q[0], top=3),
    "HopfieldMemory.is_certified": _of_memory("is_certified", plain=True, beta=2.0),
    "HopfieldMemory.is_fixed_point": _of_memory("is_fixed_point", plain=True, beta=2.0),
    "HopfieldMemory.stored_fraction": _of_memory("stored_fraction", plain=True, betas=lambda s: np.array([0.5, 2.0])),
    "HopfieldMemory.suggest_beta": _of_memory("suggest_beta", plain=True, of={"similarity": "euclidean"}, stored=0.3),
    "HopfieldMemory.exact_radius": _of_memory("exact_radius", plain=True, beta=2.0, progress=False),
    "HopfieldMemory.capacity": _of_memory("capacity", plain=True, p=0.1, beta=2.0),
    "HopfieldMemory.margin": _of_memory("margin", plain=True, progress=False),
    "HopfieldMemory.build_index": _of_memory("build_index", plain=True, progress=False),
    "HopfieldMemory.duplicates": _of_memory("duplicates", within=0.1, most=100, progress=False),
    "HopfieldMemory.report": _of_memory("report", plain=True, beta=2.0, progress=False),
    "distributed.Shard": _constructed(
        distributed.Shard,
        patterns=lambda s: s.x,
        values=lambda s: s.v,
        first=2,
        first_row=4,
        ids=lambda s: np.arange(M) * 3,
        similarity=lambda s: s.similarity,
        scale=None,
        check_finite=True,
        copy=True,
        block=2,
    ),
    "Shard.without": lambda s: (distributed.Shard(s.x).without, {"positions": [0, 2]}),
    "Shard.moved": lambda s: (distributed.Shard(s.x).moved, {"first": 3}),
    "distributed.Serial": lambda s: (distributed.Serial, {"shards": [distributed.Shard(s.x)]}),
    "distributed.Coordinator": lambda s: (
        distributed.Coordinator,
        {"engine": distributed.Serial([distributed.Shard(s.x)]), "beta": 2.0, "batch": 3, "gather_bytes": 99},
    ),
    "Coordinator.update": _of_shards("update", **ARRAYS, out=lambda s: np.empty_like(s.q)),
    "Coordinator.retrieve": _of_shards(
        "retrieve", **ARRAYS, max_steps=20, tol=1e-3, return_info=True, out=lambda s: np.empty_like(s.q)
    ),
    "Coordinator.associate": _of_shards("associate", **ARRAYS, top=2, min_weight=0.01),
    "Coordinator.energy": _of_shards("energy", **ARRAYS),
    "Coordinator.nearest": _of_shards("nearest", **ARRAYS, k=2),
    "Coordinator.certify": _of_shards("certify", plain=True, **ARRAYS, beta=2.0),
    "Coordinator.is_certified": _of_shards("is_certified", plain=True, beta=2.0),
    "Coordinator.explain": _of_shards("explain", query=lambda s: s.q[0], top=3),
    "Coordinator.duplicates": _of_shards("duplicates", within=0.1, most=100),
    "HopfieldMemory.beta": _setter("beta", 1.0),
    "HopfieldMemory.separation": _setter("separation", "softmax"),
    "HopfieldMemory.structure": _setter("structure", lambda s: s.structure()),
    "HopfieldMemory.save": _saved("memory"),
    **{
        f"theory.{name}": _theory(theory, name)
        for name in (
            *("contraction", "critical_beta", "energy_as_printed", "energy_offset", "exact_radius", "is_certified"),
            *("is_fixed_point", "majorises", "margin", "margin_at", "min_half_distance", "retrieval_bound"),
            *("dense_error_floor", "required_margin", "retrieval_error", "well_separated"),
        )
    },
    "theory.capacity_bound": _constructed(
        theory.capacity_bound, d=20, m=1.0, beta=1.0, p=0.1, radius=0.1, delta=0.0, strict=False
    ),
    "theory.dense_capacity_bound": _constructed(theory.dense_capacity_bound, d=20, m=1.0, beta=1.0, p=0.1),
    "theory.exact_flips": _constructed(
        theory.exact_flips, patterns=lambda s: np.where(s.x > 0, 1.0, -1.0), beta=2.0, separation="sparsemax"
    ),
    "theory.energy_barriers": _constructed(
        theory.energy_barriers, patterns=lambda s: s.x[:6], beta=2.0, similarity="dot", max_supports=1000
    ),
    "theory.stationary_states": _constructed(
        theory.stationary_states, patterns=lambda s: s.x[:6], beta=2.0, similarity="dot", max_index=1, max_supports=1000
    ),
    "theory.exact_recall": _constructed(
        theory.exact_recall, d=20, n_patterns=9, flips=3, beta=2.0, separation="sparsemax"
    ),
    "theory.expected_support": _constructed(
        theory.expected_support, n_patterns=9, spread=0.5, lead=1.0, separation="entmax15"
    ),
    "theory.exact_capacity": _constructed(theory.exact_capacity, d=20, m=1.0, beta=1.0, p=0.1, radius=0.0),
    **{
        f"theory_structures.{name}": _theory(theory_structures, name)
        for name in (
            *("diameter", "feature_relative_variance", "features_needed", "hull_distance", "linear_weight_bound"),
            *("masked_bound", "masked_error", "topk_energy", "truncation", "truncation_bound"),
        )
    },
    "theory_structures.kernel_displacement": _theory(
        theory_structures, "kernel_displacement", structure=structures.LinearFeatures()
    ),
    "theory_structures.mask_hit_probability": _constructed(
        theory_structures.mask_hit_probability, n_patterns=10, k=3, steps=2
    ),
    "nonparametric.NonparametricHopfield": _nonparametric,
    "bags.bit_signals": _constructed(bags.bit_signals, num_signals=3, num_bits=4, seed=1),
    "bags.bit_patterns": _constructed(
        bags.bit_patterns, num_bags=4, bag_size=3, signals=lambda s: bags.bit_signals(), signals_per_bag=1, seed=1
    ),
    "bags.image_bags": _constructed(
        bags.image_bags,
        images=lambda s: s.images(),
        digits=lambda s: np.arange(20) % 10,
        num_bags=4,
        mean_size=5.0,
        std_size=1.0,
        target=9,
        targets_per_bag=1,
        seed=1,
    ),
    "bags.load_mil": _loader(bags.load_mil, "matlab", name="tiger"),
    "bags.load_ucsb": _loader(bags.load_ucsb, "bags"),
    "bags.load_bags": _loader(bags.load_bags, "bags", keep_sparse=False),
    "repertoires.simulate": _constructed(
        repertoires.simulate, repertoires=4, size=20, rate=0.2, motifs=("WHMK",), gap=0.1, deletion=0.1, seed=1
    ),
    "repertoires.kmers": _constructed(
        repertoires.kmers,
        sequences=np.array([b"CASSLGF", b"CASSF", b""]),
        k=2,
        columns=[5, 3],
        weights=(1.0, 2.0, 1.0),
        dtype="float32",
    ),
    "bags.Bags": _bags_object("take"),
    "Bags.keys_of": _bags_object("keys_of"),
    **{f"datasets.{name}": _loader(getattr(datasets, name), "mnist") for name in ("load", "load_mnist", "load_labels")},
    "datasets.load_cifar10": _loader(datasets.load_cifar10, "cifar"),
    "datasets.load_imagenet64": _loader(datasets.load_imagenet64, "imagenet"),
    "optim.AdamW": _optimiser,
    "optim.Annealing": _annealing,
    "optim.CosineDecay": _cosine,
    "optim.ExponentialDecay": _decay,
    "optim.clip_gradients": _clip,
    "AdamW.load_state_dict": _state_dict("optimiser"),
    **{
        f"layers.{kind.__name__}": _hopfield(kind, **more)
        for kind, more in (
            (layers.Hopfield, {}),
            (layers.SparseHopfield, {}),
            (layers.HopfieldPooling, {"quantity": 2, "trainable": True}),
            (layers.SparseHopfieldPooling, {"quantity": 2}),
            (layers.HopfieldLayer, {"quantity": 3, "lookup_weights_as_separated": True}),
            (layers.SparseHopfieldLayer, {"quantity": 3, "lookup_targets_as_trainable": True}),
        )
    },
    "layers.Linear": _module(layers.Linear, input_size=D, output_size=2, bias=True, dtype="float32", random_state=0),
    "layers.LayerNorm": _module(layers.LayerNorm, size=D, eps=1e-5, affine=True, dtype="float32"),
    "layers.Dropout": _module(layers.Dropout, rate=0.5, random_state=0),
    "layers.Flatten": _module(layers.Flatten, start_axis=1),
    "layers.Sequential": _small_layer(lambda: layers.Sequential(layers.Linear(D, 3), layers.ReLU()), "forward"),
    "layers.Parameter": _value_or_grad,
    "layers.Module": _state_dict("layer"),
    "layers.load": _saved("layer"),
    "layers.ReLU": _small_layer(layers.ReLU, "forward"),
    "layers.GELU": _small_layer(layers.GELU, "forward"),
    **{
        f"{name}.{method}": _small_layer(layer, method)
        for method in ("forward", "backward")
        for name, layer in (
            ("Linear", lambda: layers.Linear(D, 3)),
            ("LayerNorm", lambda: layers.LayerNorm(D)),
            ("GELU", layers.GELU),
            ("ReLU", layers.ReLU),
            ("Dropout", layers.Dropout),
            ("Flatten", layers.Flatten),
            ("Sequential", lambda: layers.Sequential(layers.Linear(D, 3), layers.GELU(), layers.Linear(3, 1))),
        )
    },
    "Hopfield.forward": _of_layer("forward", train=True),
    "Hopfield.forward of ragged bags": _of_layer("forward", ragged=True),
    "Hopfield.associations": _of_layer("associations"),
    "Hopfield.retrieve": _of_layer("retrieve", per_head=True, update_steps_max=1),
    "Hopfield.backward": _backward(),
    "HopfieldPooling.forward": _of_layer("forward", layers.HopfieldPooling, train=True),
    "HopfieldPooling.backward": _backward(layers.HopfieldPooling),
    "HopfieldLayer.backward": _backward(layers.HopfieldLayer),
    "layers.binary_cross_entropy_with_logits": _constructed(
        layers.binary_cross_entropy_with_logits, logits=lambda s: s.z, targets=lambda s: (s.z > 0).astype(s.dtype)
    ),
    "layers.mean_squared_error": _constructed(
        layers.mean_squared_error, predictions=lambda s: s.z, targets=lambda s: s.g
    ),
    "layers.gradient_health": _constructed(layers.gradient_health, layer=_run_layer, warn=True),
    "association.associate_forward": _association,
    "association.associate_backward": _association_back,
    **{
        f"dense.{name}": _dense(name)
        for name in ("linear", "linear_backward", "normalize", "normalize_backward", "fold", "unfold")
    },
    "structures.TopK": _under(structures.TopK, N, k=2),
    "structures.Window": _under(
        structures.Window, N, w=1, causal=False, dilation=1, global_positions=(0,), positions=[0, 1, 5]
    ),
    "structures.RandomMask": _under(structures.RandomMask, N, k=2, seed=1, block=2),
    "structures.BlockSparse": _under(structures.BlockSparse, 4, mask=[[True, False], [True, True]], block=(2, 3)),
    "structures.DilatedBlocks": _under(
        structures.DilatedBlocks, N, block=3, dilation=2, causal=False, positions=[0, 1, 5]
    ),
    "structures.LinearFeatures": _under(structures.LinearFeatures, M, kind="relu", causal=True),
    "structures.RandomFeatures": _under(
        structures.RandomFeatures, M, n_features=6, seed=1, causal=False, orthogonal=True
    ),
    "structures.FeatureState": _feature_state("state"),
    "FeatureState.add": _feature_state("add"),
    "FeatureState.merge": _feature_state("merge"),
    "FeatureState.update": _feature_state("update"),
    "TopK.cost": _cost(structures.TopK(2)),
    "Window.cost": _cost(structures.Window(1)),
    "RandomMask.cost": _cost(structures.RandomMask(2)),
    "LinearFeatures.cost": _cost(structures.LinearFeatures()),
    "RandomFeatures.cost": _cost(structures.RandomFeatures(8)),
    "Window.mask": _mask(structures.Window(1)),
    "RandomMask.mask": _mask(structures.RandomMask(2)),
    "estimators.HopfieldClassifier": _classifier,
    "estimators.HopfieldForecaster": _forecaster,
    "estimators.HopfieldOutlierDetector": _detector,
    "estimators.HopfieldRegressor": _regressor,
    "estimators.HopfieldRetriever": _retriever,
    "estimators.HopfieldMILClassifier": _mil,
    "estimators.HopfieldPrototypeClassifier": _prototypes,
    **{
        f"plots.{name}": _plot(name)
        for name in (
            "attention_map",
            "bag_map",
            "calibration",
            "calibration_by_beta",
            "energy_path",
            "retrieval_path",
            "support_by_beta",
        )
    },
    "playground.playground": _playground,
}

# What layers are made of, and what a caller has no business in: these take arrays, of whatever kind, and their errors
# need not name an argument.
TRUSTING = ("dense.", "association.", "layers.Parameter")

# Names that messages have for arguments besides their own.
ROLES = ("stored pattern", "state pattern", "pattern projection", "input")
ALIASES = {
    **dict.fromkeys(("Hopfield", "HopfieldPooling", "HopfieldLayer"), ROLES),
    "layers": (*ROLES, "queries", "positions", "offsets"),
    "Sequential": (*ROLES, "offsets"),
    "datasets": ("dataset", "data"),
    "bags.load_mil": ("dataset", "data"),
    "HopfieldMemory": ("queries", "patterns", "beta"),
    "Coordinator": ("queries", "patterns", "beta"),
    "estimators": ("queries", "patterns", "positions"),
    "structures": ("queries", "patterns"),
    "FeatureState": ("beta",),
    "nonparametric": ("queries", "patterns"),
    "Window": ("positions", "w"),
    "TopK": ("k",),
    "RandomMask": ("k",),
    "layers.load": ("input_size",),
    "plots": ("queries", "patterns", "beta", "separation", "structure"),
    "playground": ("patterns", "queries"),
}

# Public names that are not called on their own, and why.
MODULES = (
    "sparsehopfield",
    "theory",
    "theory.structures",
    "theory.nonparametric",
    "data.bags",
    "data.datasets",
    "data.repertoires",
    "optim",
    "layers",
    "structures",
    "estimators",
    "distributed",
    "suggestion",
    "inspect.plots",
    "playground",
)
LEFT_OUT = {
    **dict.fromkeys(("FileFormatError", "FileFormatWarning", "RetrievalWarning"), "are raised, not called"),
    **dict.fromkeys(
        ("RetrievalInfo", "CapacityBound", "ExactCapacity", "Truncation", "Cost", "GradientHealth", "MarginFit"),
        "results",
    ),
    **dict.fromkeys(("EnergyBarriers", "StationaryStates"), "results"),
    **dict.fromkeys(("get_num_threads", "load_digits", "Full"), "have no argument that is looked at"),
    **dict.fromkeys(("Analogues", "PrototypeUsage", "Suggestion", "SuggestionRow"), "results"),
    "load_airr": "reads several files; tests/data/test_repertoires.py damages them",
    **dict.fromkeys(("ImageSet", "Repertoires", "Settings", "Trial"), "records; what they are given to is called"),
    **dict.fromkeys(("Playground",), "made by what is called"),
    **dict.fromkeys(("Structure", "Pairs"), "base classes"),
    **dict.fromkeys(("Engine",), "a protocol"),
    "ShardedMemory": "needs a cluster; tests/sharded call it",
    **dict.fromkeys(("Request", "Whole"), "records; those who make them have checked what they hold"),
    **dict.fromkeys(("scout", "partial", "gather", "sums", "merge", "finish"), "take records and what they return"),
}


def not_called() -> list[str]:
    """Public functions and classes that no target calls."""
    called = {name.partition(".")[2] for name in TARGETS}
    missing = []
    for module in MODULES:
        found = importlib.import_module("sparsehopfield" if module == "sparsehopfield" else f"sparsehopfield.{module}")
        missing += [
            f"{module}.{n}" for n in found.__all__ if n not in called | LEFT_OUT.keys() and callable(getattr(found, n))
        ]
    methods = {name.partition(".")[2] for name in TARGETS if name.startswith("HopfieldMemory.")}
    own = [name for name, f in vars(sh.HopfieldMemory).items() if inspect.isfunction(f) and not name.startswith("_")]
    return missing + [
        n for n in own if len(inspect.signature(getattr(sh.HopfieldMemory, n)).parameters) > 1 and n not in methods
    ]


# --- hostile arguments ------------------------------------------------------------------------------------


class Odd(Exception):
    """What an argument of the caller's own making raises; it may pass through."""


class OddArray:
    """Raises when it is to become an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise Odd


class NoArray:
    """Becomes no array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return "none"


class OddNumber:
    """Raises when it is to become a number."""

    def __index__(self) -> int:
        raise Odd

    __float__ = __int__ = __index__  # type: ignore[assignment]


class NoNumber:
    """Becomes no number."""

    def __index__(self) -> int:
        return "none"  # type: ignore[return-value]

    __float__ = __index__  # type: ignore[assignment]


class OddText(str):
    """Equal to nothing."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


class Sub(np.ndarray):
    """A subclass of arrays."""


@functools.cache
def _constants() -> list[Any]:
    # fmt: off
    made: list[Any] = [None, True, False, "", "x", "\0", "\ud800", "nan", "1", "sparsemax", b"", b"x"]
    made += [OddText("softmax")]
    made += [0, 1, -1, 2, 3, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64]
    made += [10**400]
    made += [-(2**31), -(2**63), -(10**400), 0.0, -0.0, 0.5, 1.0, 1.5, -1.5, 1e-320, 1e-40, 1e38, 4e38, 1e308, 1 / 3]
    made += [float("nan"), float("inf"), -float("inf"), 1j, complex("nan"), fractions.Fraction(1, 3), ...]
    made += [NotImplemented]
    made += [np.float32(2), np.float16(2), np.int8(3), np.uint64(2**64 - 1), np.bool_(True), np.str_("x")]
    made += [np.bytes_(b"x")]
    made += [np.longdouble(2), np.datetime64("NaT"), np.datetime64("2020-01-01"), np.timedelta64(1, "s")]
    made += [np.complex64(1)]
    made += [np.array(2), np.array(2.0), np.array(True), np.array("x"), np.array(None), np.array([3])]
    made += [np.array([[2.0]])]
    made += [[], (), {}, set(), [0], [1, 2], [1.0, 2.0], (1, 2), [[1, 2], [3]], [None], ["x"], [[]], [[[]]]]
    made += [{"a": 1}, {1, 2}]
    made += [range(3), range(0), slice(None), slice(5, 1, -2), slice("a"), object(), object, int, len, lambda x: x]
    made += [io.BytesIO]
    made += [OddArray(), NoArray(), OddNumber(), NoNumber(), pathlib.Path("."), pathlib.Path("/nowhere/x")]
    made += [memoryview(b"xy")]
    made += [np.empty(0), np.empty((0, 4)), np.empty((4, 0)), np.empty((0, 0, 0)), np.zeros((1,) * 20)]
    made += [np.zeros((1,) * 40)]
    made += [scipy.sparse.csr_array(np.eye(3)), scipy.sparse.bsr_array(np.eye(4), blocksize=(2, 2))]
    made += [scipy.sparse.coo_array((0, 0))]
    made += [np.rec.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), np.matrix("1 2; 3 4"), [OddNumber()]]
    made += [[2**70, 1]]
    made += [np.broadcast_to(np.float32(1), (2**13, 4)), np.broadcast_to(np.uint8(1), (3, 2**31 + 8))]
    made += [bytearray(b"abc")]
    made += [sh.Entmax(2.0), sh.Polynomial(2), sh.Entmax, structures.TopK(2), structures.TopK(50), structures.Window(0)]
    made += [structures.Window(1, positions=[0, 9]), structures.RandomMask(99), structures.LinearFeatures()]
    made += [structures.Full()]
    made += [structures.LinearFeatures(causal=True), structures.RandomFeatures(3), structures.BlockSparse([[True]], 2)]
    made += [structures.BlockSparse([[False]], 1000), layers.ReLU(), layers.Linear(D, 2)]
    made += [[layers.ReLU()]]
    # fmt: on
    return made


def _unaligned(a: Any) -> Any:
    return np.frombuffer(b"\0" + np.ascontiguousarray(a).tobytes(), a.dtype, offset=1).reshape(a.shape)


def _readonly(a: Any) -> Any:
    a = a.copy()
    a.flags.writeable = False
    return a


def _strange_strides(a: Any) -> Any:
    big = np.zeros((*a.shape, 3), a.dtype)
    big[..., 1] = a
    return big[..., 1]


def _spoiled(random: Random, a: Any, value: Any) -> Any:
    a = a.copy()
    if a.size and (a.dtype.kind == "f" or (a.dtype.kind in "iu" and abs(value) < 128)):
        a.flat[random.randrange(a.size)] = value
    return a


def _masked(random: Random, a: Any) -> Any:
    return (
        np.ma.array(a, mask=[random.random() < 0.3 for _ in range(a.size)]) if a.ndim == 1 else np.ma.masked_less(a, 0)
    )


DTYPES = [
    "?",
    "i1",
    "u1",
    "i2",
    "u2",
    "i4",
    "i8",
    "u8",
    "f2",
    "f4",
    "f8",
    "g",
    "F",
    "D",
    "O",
    "S3",
    "U3",
    ">f4",
    ">f8",
    "V4",
]
LAYOUTS: tuple[Callable[[Random, Any], Any], ...] = (
    lambda r, a: a.astype(r.choice(DTYPES)),
    lambda r, a: a.astype(r.choice(DTYPES)),
    lambda r, a: a.astype("M8[s]"),
    lambda r, a: a[..., :0],
    lambda r, a: a[:0],
    lambda r, a: a[:-1],
    lambda r, a: a[..., :-1],
    lambda r, a: a[None],
    lambda r, a: a[..., None],
    lambda r, a: a[0],
    lambda r, a: a.T,
    lambda r, a: a.ravel(),
    lambda r, a: a[::-1, ...],
    lambda r, a: a[..., ::-1],
    lambda r, a: np.concatenate([a, a]),
    lambda r, a: np.repeat(a, 3, axis=-1),
    lambda r, a: np.asfortranarray(a),
    lambda r, a: np.broadcast_to(a[:1], (5, *a.shape[1:])),
    lambda r, a: np.broadcast_to(a[..., :1], a.shape),
    lambda r, a: _unaligned(a),
    lambda r, a: _readonly(a),
    lambda r, a: _strange_strides(a),
    lambda r, a: _masked(r, a),
    lambda r, a: a.view(Sub),
    lambda r, a: np.matrix(a),
    lambda r, a: a.tolist(),
    lambda r, a: [list(row) for row in a],
    lambda r, a: memoryview(a),
    lambda r, a: scipy.sparse.csr_array(a),
    lambda r, a: np.lib.stride_tricks.as_strided(a, a.shape, [s // 2 for s in a.strides], writeable=False),
    lambda r, a: np.lib.stride_tricks.as_strided(a, a.shape, [0] * a.ndim, writeable=False),
    *(
        (lambda r, a, value=value: _spoiled(r, a, value))
        for value in (float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 1e308, 1e-40, 1e-310, 0.0, -1.0, 1e20)
    ),
    lambda r, a: a * 0,
    lambda r, a: a * a.dtype.type(r.choice((1e18, 1e-18, 1e-30, 100))),
    lambda r, a: -a,
)


def _hostile(random: Random, name: str, value: Any, others: dict[str, Any], trusting: bool) -> Any:
    """Something in the place of a value."""
    kind = random.random()
    if isinstance(
        value, bool
    ):  # whatever Python takes for true or false; of an array NumPy itself says that it is neither
        return random.choice([c for c in _constants() if not isinstance(c, (np.ndarray, scipy.sparse.sparray))])
    if isinstance(value, np.ndarray) and (kind < 0.75 or trusting):
        try:
            laid_out = random.choice(LAYOUTS)(random, value)
        except Exception:  # this array cannot be laid out so
            laid_out = random.choice(_constants())
        return value if trusting and not isinstance(laid_out, np.ndarray) else laid_out
    if trusting:
        return value
    arrays = [a for a in others.values() if isinstance(a, np.ndarray)]
    if name == "out" and arrays and kind < 0.9:
        return random.choice(arrays)  # the output lies where an input does
    if isinstance(value, (int, float)) and not isinstance(value, bool) and kind < 0.3:
        return random.choice(
            (value + 1, value - 1, -value, value * 1e9, [value], [value] * N, str(value), np.array(value))
        )
    if arrays and kind < 0.4:
        return random.choice(arrays)
    return random.choice(_constants())


def _asks_for_much(values: Any) -> bool:
    for value in values:
        if isinstance(value, np.ndarray) and value.nbytes > MUCH:
            return True
        try:
            if abs(value) >= MUCH:
                return True
        except Exception:
            continue
    return False


# --- what may come of it ----------------------------------------------------------------------------------


def _arrays(result: Any) -> Iterator[Any]:
    if isinstance(result, np.ndarray):
        yield result
    elif isinstance(result, (tuple, list)):
        for one in result:
            yield from _arrays(one)
    elif scipy.sparse.issparse(result):
        yield result.data


def _finite(value: Any) -> bool:
    if isinstance(value, np.ma.MaskedArray):
        return False
    try:
        a = np.asarray(value)
        return a.dtype.kind not in "fcmMO" or (a.dtype.kind == "f" and bool(np.isfinite(a).all()))
    except Exception:
        return True


def _changed(before: dict[str, bytes], given: dict[str, Any]) -> list[str]:
    return [name for name, content in before.items() if given[name].tobytes() != content]


def _shared(a: Any, out: Any) -> bool:
    """Whether an array may be written to: it is the output, or lies where that does."""
    return isinstance(out, np.ndarray) and np.may_share_memory(a, out)


def _in_sklearn(error: BaseException) -> bool:
    """Whether scikit-learn refused it, in its own words."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and f"{os.sep}sklearn{os.sep}" in trace.tb_frame.f_code.co_filename


def names_one(text: str, names: Any) -> bool:
    """Whether a message names an argument."""
    return any(re.search(rf"(?<![A-Za-z_]){re.escape(str(name))}(?![A-Za-z])", text) for name in names)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        content = f" {value.tolist()!r}" if value.size <= 12 else ""
        return f"{type(value).__name__}({value.dtype}, {value.shape}, strides {value.strides}){content}"[:300]
    return f"{value!r:.200}" if not isinstance(value, int) or abs(value) < 10**50 else f"{'-' * (value < 0)}10**..."


def case(random: Random, folder: Path) -> str:
    """One hostile call."""
    target = random.choice(list(TARGETS))
    sound = Sound(random)
    function, arguments = TARGETS[target](sound)
    trusting = target.startswith(TRUSTING) or (target == "sparsehopfield.merge" and "parts" not in arguments)
    hostile = random.sample(sorted(arguments), min(len(arguments), random.choice((1, 1, 1, 2))))
    if random.random() < 0.02:
        hostile = []  # sound arguments work, or this fuzzer looks at nothing
    given = dict(arguments)
    for name in hostile:
        value = _hostile(random, name, arguments[name], given, trusting)
        if name in LOOPS and isinstance(value, (int, float, np.number)) and value > 300:
            value = 300  # who asks for a long loop gets one
        given[name] = value
    shown = ", ".join(f"{name}={_shown(given[name])}" for name in hostile)
    before = {
        name: a.tobytes()
        for name, a in given.items()
        if isinstance(a, np.ndarray)
        and a.nbytes < MUCH
        and a.dtype.kind != "O"
        and not _shared(a, given.get("out"))
        and (not name.endswith(("__value", "__grad", "dweight")) or not a.flags.writeable)
    }
    here = os.getcwd()
    os.chdir(folder)

    def flaw(what: str) -> Flaw:
        return Flaw(f"{target}: {what} <- {shown}")

    try:
        result = function(**given)
    except Odd:
        return "an argument's own error"
    except Exception as error:
        text, documented = str(error), inspect.getdoc(function) or ""
        allowed = isinstance(error, (TypeError, ValueError, OverflowError)) or (
            type(error).__name__ in documented and not isinstance(error, MemoryError) and names_one(text, arguments)
        )
        allowed |= isinstance(error, OSError) and bool({"path", "root"} & set(hostile))
        much = isinstance(error, MemoryError) or re.search("too big|Maximum allowed|too large to be", text)
        if much and _asks_for_much(given.values()):
            return "no memory, where much was asked for"
        if isinstance(error, RuntimeError) and "forward pass" in text:
            return "refused"
        if not hostile:
            raise flaw(f"refuses sound arguments: {type(error).__name__}: {text[:300]}") from None
        if not allowed:
            raise flaw(f"{told(error)}") from None
        if len(text) > LONGEST:
            raise flaw(f"{type(error).__name__} with a message of {len(text)} characters: {text[:150]}") from None
        unnamed = not (trusting or isinstance(error, OSError) or _in_sklearn(error))
        if unnamed and not names_one(
            text, {*arguments, *ALIASES.get(target, ()), *ALIASES.get(target.partition(".")[0], ())}
        ):
            raise flaw(f"names no argument: {told(error)}") from None
        if changed := _changed(before, given):
            raise flaw(f"changes {changed} before it refuses") from None
        return "refused"
    finally:
        os.chdir(here)
    if changed := _changed(before, given):
        raise flaw(f"changes {changed}")
    of_weights = "vjp" in target  # which may be none here, and of other numbers there are no gradients
    if (
        target.startswith(("sparsehopfield.", "HopfieldMemory."))
        and not of_weights
        and all(map(_finite, given.values()))
    ):
        for a in _arrays(result):
            if a.dtype.kind == "f" and np.isnan(a).any():
                raise flaw("NaN of finite numbers")
    return "answered" if hostile else "sound arguments"
