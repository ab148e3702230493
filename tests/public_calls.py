"""Every public function with arguments that it takes, for tests that ask the same thing of all of them."""

import numpy as np
from helpers import TABLE_ROWS

import sparsehopfield as sh
from sparsehopfield import layers, optim, reference, structures, theory
from sparsehopfield._engine import association
from sparsehopfield._engine.separations import FAMILIES
from sparsehopfield.data import bags, datasets
from sparsehopfield.estimators import (
    HopfieldClassifier,
    HopfieldForecaster,
    HopfieldMILClassifier,
    HopfieldOutlierDetector,
    HopfieldPrototypeClassifier,
    HopfieldRegressor,
    HopfieldRetriever,
)
from sparsehopfield.theory import nonparametric
from sparsehopfield.theory import structures as theory_structures

M, D, N = 7, 3, 4
ROW_MAPS = {
    "softmax": "z",
    "sparsemax": "z",
    "entmax": "z alpha",
    "polynomial": "z order",
    "topk_softmax": "z k",
    "topk_sparsemax": "z k",
    "sparsemax_threshold": "z",
    "entmax_threshold": "z alpha",
    "softmax_vjp": "p g",
    "sparsemax_vjp": "p g",
    "entmax_vjp": "p g alpha",
    "entmax_vjp_alpha": "p g alpha",
    "polynomial_vjp": "z p g order",
    "softmax_conjugate": "z",
    "sparsemax_conjugate": "z",
    "entmax_conjugate": "z alpha",
}
for _part in ("", "_threshold", "_vjp", "_vjp_alpha", "_conjugate"):
    ROW_MAPS |= {row.name + _part: ROW_MAPS[f"entmax{_part}"] for row in TABLE_ROWS}
LOSSES = ("softmax_loss", "sparsemax_loss", "entmax_loss")
OPERATIONS = ("energy", "update", "associate", "retrieve", "candidates")


def memory_of(patterns, **options):
    """Return a memory."""
    return sh.HopfieldMemory(patterns, **options)


def _method(method, **fixed):
    """Return a function that makes a memory and calls one of its methods."""

    def call(patterns, **arguments):
        return getattr(sh.HopfieldMemory(patterns, **fixed), method)(**arguments)

    return call


def _nonparametric(memories, queries, positions=(1, 3), **options):
    """Return what a regression answers, and its coefficients for some of the pairs."""
    model = nonparametric.NonparametricHopfield(**options).fit(memories, queries)
    return model.update(queries), model.predict(queries), model.regression(positions).coefficients


def _added(patterns, values, ids, more, more_values, more_ids):
    memory = sh.HopfieldMemory(patterns, values=values, ids=ids)
    memory.add(more, more_values, more_ids)
    return memory.patterns, memory.values, memory.ids


def _removed(patterns, positions):
    memory = sh.HopfieldMemory(patterns)
    memory.remove(positions)
    return memory.patterns


def _layer(kind, *inner, **options):
    """Return a function that makes a layer, passes an input through it and a gradient back."""

    def call(input, **arguments):
        layer = kind(*inner, **options)
        out = layer.forward(input, **arguments)
        found = layer.backward(np.ones_like(out))
        return out, found, {name: p.grad for name, p in layer.parameters().items()}

    return call


def _backward(input, grad):
    layer = layers.Linear(D, 2, random_state=0)
    layer.forward(input)
    return layer.backward(grad), layer.weight.grad


def _trained(input, learning_rate, betas, eps, weight_decay, max_norm):
    layer = layers.Linear(D, 2, random_state=0)
    optimizer = optim.AdamW(layer, learning_rate, betas, eps, weight_decay)
    for _ in range(3):
        layer.backward(layer.forward(input))
        norm = optim.clip_gradients(layer, max_norm)
        optimizer.step()
        optimizer.zero_grad()
    return norm, layer.state_dict(), optimizer.state_dict()


def _seen_by(layer, input):
    """Return a layer after a forward pass."""
    layer.forward(input)
    return layer


def _associated(queries, stored, values, beta, grad, **options):
    out, saved = association.associate_forward(queries, stored, values, beta, **options)
    return out, association.associate_backward(saved, grad), association.association_weights(saved)


def _mil(bags, y, **options):
    options = {"epochs": 2, "hidden_size": 2, "num_heads": 1, "random_state": 0} | options
    model = HopfieldMILClassifier(**options).fit(bags, y)
    return model.history_, model.predict_proba(bags), model.bag_weights(bags), model.mean_, model.scale_


def _by_ids(bags, y, bag_ids):
    model = HopfieldMILClassifier(epochs=1, hidden_size=2, num_heads=1, random_state=0).fit(bags, y, bag_ids)
    return model.predict_proba(bags, bag_ids), model.scale_


def _prototypes(X, y, sample_weight=None, **options):
    options = {"n_prototypes": 3, "epochs": 2, "random_state": 0} | options
    model = HopfieldPrototypeClassifier(**options).fit(X, y, sample_weight)
    return model.prototypes_, model.predict_proba(X), model.usage_.weight, model.history_


def _retriever(X, **options):
    model = HopfieldRetriever(**options).fit(X)
    return model.beta_, model.transform(X)


def _classifier(X, y, beta, sample_weight=None):
    model = HopfieldClassifier(beta).fit(X, y, sample_weight)
    return model.predict_proba(X), model.predict_proba_leave_one_out()


def _regressor(X, y, beta, sample_weight=None):
    model = HopfieldRegressor(beta).fit(X, y, sample_weight)
    return model.predict(X), model.predict_leave_one_out()


def _forecaster(y, beta):
    model = HopfieldForecaster(horizon=1, window=2, beta=beta).fit(y)
    return model.predict(), model.predict_at(y, [3, 4])


def _detector(X, beta, contamination, sample_weight=None):
    model = HopfieldOutlierDetector(beta, contamination=contamination, novelty=True).fit(X, sample_weight=sample_weight)
    return model.leave_one_out_scores_, model.decision_function(X)


def _state(structure, patterns, values, queries, beta):
    return structure.state(patterns, values, beta).update(queries)


def calls(scale=1.0, dtype=np.float64):
    """Give name -> (function, arguments), numbers of about the size `scale`.

    Parameters
    ----------
    scale : float
        What arrays of features and scores are multiplied with.
    dtype : dtype
        Of these arrays.
    """
    rng = np.random.default_rng(0)

    def rows(*shape):
        return (scale * rng.standard_normal(shape)).astype(dtype)

    patterns, queries, values, index = rows(M, D), rows(N, D), rows(M, 2), np.arange(N)
    z, g = rows(N, M), rows(N, M)
    p = reference.sparsemax(rng.standard_normal((N, M))).astype(dtype)
    own = {"z": z, "p": p, "g": g, "alpha": 1.5, "order": 3, "k": 2}
    asked = {"queries": queries, "patterns": patterns, "beta": 2.0}
    meant = {"queries": queries, "patterns": patterns, "index": index, "beta": 2.0}
    keep = rng.random((N, M)) < 0.7
    keep[:, 0] = True
    sphere = {"d": 8, "m": 1.0, "beta": 20.0, "p": 0.1}
    bag_rows, labels = [rows(size, D) for size in (2, 3, 4, 2, 3, 3)], np.array([0, 1, 0, 1, 1, 0])
    table = {}
    for name, arguments in ROW_MAPS.items():
        chosen = {a: own[a] for a in arguments.split()} | {"axis": -1}
        table[name] = getattr(sh, name), chosen
        table[f"reference.{name}"] = getattr(reference, name), {a: own[a] for a in arguments.split()}
    row_weights, gradients = rng.random(N), {"reduction": "mean", "return_gradient": True}
    for name in LOSSES:
        chosen = {"z": z, "target": index, "sample_weight": row_weights, "axis": -1, "ignore_index": 2} | gradients
        chosen |= {"alpha": 1.5} if name == "entmax_loss" else {}
        table[name], table[f"reference.{name}"] = (getattr(sh, name), chosen), (getattr(reference, name), chosen)
        table[f"{name} of distributions"] = getattr(sh, name), {"z": z, "target": p} | gradients
    for name in OPERATIONS:
        for separation in ("sparsemax", "softmax", "entmax15"):
            more = {"top": 2} if name == "associate" else {}
            for similarity in ("dot", "euclidean", "cosine"):
                options = {"separation": separation, "similarity": similarity} | more
                table[f"{name} {separation} {similarity}"] = getattr(sh, name), asked | options
        if name != "candidates":
            table[f"reference.{name}"] = getattr(reference, name), dict(asked)
    table |= {
        "update values": (sh.update, asked | {"values": values}),
        "update polynomial": (sh.update, asked | {"separation": sh.Polynomial(4)}),
        "retrieve tol": (sh.retrieve, asked | {"values": values, "max_steps": 5, "tol": 1e-3, "return_info": True}),
        "candidates.states": (
            lambda values, **k: sh.candidates(**k).states(values),
            asked | {"values": patterns},
        ),
        "candidates softmax": (
            lambda **k: sh.merge([sh.candidates(**k), sh.candidates(**k, offset=M)]).states(),
            asked | {"separation": "softmax"},
        ),
        "candidates.bound": (lambda **k: sh.candidates(**k).bound, dict(asked)),
        "reference.canonical_scores": (reference.canonical_scores, {"queries": queries, "patterns": patterns}),
        "Entmax": (sh.Entmax, {"alpha": 1.5}),
        **{f"{row.name.capitalize()}": (FAMILIES[row.name], {"alpha": 1.5}) for row in TABLE_ROWS},
        "Polynomial": (sh.Polynomial, {"order": 2}),
        # structures
        "TopK": (lambda k: structures.TopK(k).cost(3, M, 3), {"k": 2}),
        "Window": (
            lambda **k: structures.Window(**k).mask(N, M),
            {"w": 1, "causal": False, "dilation": 1, "global_positions": [0], "positions": index},
        ),
        "RandomMask": (lambda **k: structures.RandomMask(**k).mask(N, M), {"k": 2, "seed": 1, "block": 2}),
        "BlockSparse": (
            lambda **k: structures.BlockSparse(**k).mask(4, 4),
            {"mask": np.eye(2, dtype=bool), "block": (2, 2)},
        ),
        "DilatedBlocks": (
            lambda **k: structures.DilatedBlocks(**k).mask(N, M),
            {"block": 3, "dilation": 2, "causal": False, "positions": index},
        ),
        "LinearFeatures": (lambda **k: structures.LinearFeatures(**k), {"kind": "relu", "causal": False}),
        "RandomFeatures": (
            lambda **k: structures.RandomFeatures(**k).projection(D),
            {"n_features": 6, "seed": 1, "causal": False, "orthogonal": True},
        ),
        "cost": (lambda **k: structures.Window(1).cost(**k), {"n": 5, "m": 5, "d": 3}),
        "features.cost": (lambda **k: structures.RandomFeatures(4).cost(**k), {"n": 5, "m": 5, "d": 3}),
    }
    for structure in (
        structures.TopK(2),
        structures.Window(1, positions=index),
        structures.RandomMask(3),
        structures.LinearFeatures(),
        structures.LinearFeatures("relu"),
        structures.RandomFeatures(8),
    ):
        options = {"separation": "softmax", "structure": structure}
        table[f"update {structure}"] = sh.update, asked | {"values": values} | options
        table[f"retrieve {structure}"] = sh.retrieve, asked | {"max_steps": 3} | options
        if hasattr(structure, "state"):
            table[f"{structure}.state"] = (
                lambda structure=structure, **k: _state(structure, **k),
                asked | {"values": values},
            )
    for separation in ("sparsemax", "entmax15"):
        for similarity in ("dot", "euclidean", "cosine"):
            fixed = {"separation": separation, "similarity": similarity}
            for method, arguments in {
                "margin": {},
                "critical_beta": {},
                "is_certified": {"beta": 2.0},
                "is_fixed_point": {"beta": 2.0},
                "stored_fraction": {"betas": [0.5, 2.0]},
                "certify": {"queries": queries, "beta": 2.0},
                "exact_radius": {"beta": 2.0},
                "capacity": {"p": 0.1, "beta": 2.0},
                "duplicates": {"within": 0.5, "most": 1000},
                "nearest": {"queries": queries, "k": 3, "exclude": 0},
                "explain": {"query": queries[0], "top": 3},
                "report": {"beta": 2.0},
                "update": {"queries": queries, "exclude": np.arange(len(queries)) - 1},
                "leave_one_out": {"positions": [2, 0]},
                "energy": {"queries": queries, "exclude": 1},
                "associate": {"queries": queries, "top": 2, "min_weight": 0.1, "exclude": 0},
                "candidates": {"queries": queries, "offset": 3},
                "retrieve": {"queries": queries, "max_steps": 9, "tol": 1e-6, "exclude": 0},
            }.items():
                name = f"memory.{method} {separation} {similarity}"
                table[name] = _method(method, **fixed), {"patterns": patterns} | arguments
    table |= {
        "memory": (
            memory_of,
            {
                "patterns": patterns,
                "beta": 2.0,
                "values": values,
                "ids": np.arange(M) + 5,
                "similarity": "dot",
                "separation": "sparsemax",
                "structure": structures.TopK(3),
                "copy": True,
                "check_finite": True,
            },
        ),
        "memory.scale": (memory_of, {"patterns": np.ones((2, 2), np.uint8), "scale": 0.5}),
        "memory.suggest_beta": (_method("suggest_beta", similarity="euclidean"), {"patterns": patterns, "stored": 0.5}),
        "memory.add": (
            _added,
            {
                "patterns": patterns,
                "values": values,
                "ids": np.arange(M),
                "more": queries,
                "more_values": rows(N, 2),
                "more_ids": 10 + index,
            },
        ),
        "memory.remove": (_removed, {"patterns": patterns, "positions": [0, 2]}),
        "suggest": (sh.suggest, {"X": patterns, "y": values, "queries": queries, "subsample": 5}),
    }
    # theory
    table |= {
        f"theory.{name}": (getattr(theory, name), arguments)
        for name, arguments in {
            "capacity_bound": sphere | {"radius": 0.01, "delta": 0.0, "strict": True},
            "dense_capacity_bound": dict(sphere),
            "exact_capacity": sphere | {"radius": 0.01},
            "contraction": {"patterns": patterns, "beta": 2.0, "similarity": "dot", "separation": "softmax"},
            "dense_error_floor": dict(meant),
            "critical_beta": {"patterns": patterns, "similarity": "dot"},
            "energy_as_printed": asked | {"separation": "sparsemax"},
            "energy_barriers": {"patterns": patterns[:6], "beta": 2.0, "similarity": "dot", "max_supports": 1000},
            "energy_offset": {"patterns": patterns, "beta": 2.0, "similarity": "dot", "separation": "entmax15"},
            "exact_flips": {"patterns": np.where(patterns > 0, 1.0, -1.0), "beta": 2.0, "separation": "entmax15"},
            "exact_recall": {"d": 20, "n_patterns": 9, "flips": 3, "beta": 2.0, "separation": "sparsemax"},
            "expected_support": {"n_patterns": 9, "spread": 0.5, "lead": 1.0, "separation": "entmax15"},
            "exact_radius": {"patterns": patterns, "beta": 2.0, "similarity": "euclidean"},
            "is_certified": {"patterns": patterns, "beta": 2.0, "similarity": "dot"},
            "stationary_states": {"patterns": patterns[:6], "beta": 2.0, "similarity": "cosine", "max_index": 1}
            | {"max_supports": 1000},
            "is_fixed_point": {"patterns": patterns, "beta": 2.0, "similarity": "cosine"},
            "majorises": {"p": p, "q": reference.softmax(p)},
            "margin": {"patterns": patterns, "similarity": "euclidean"},
            "margin_at": {"queries": queries, "patterns": patterns, "index": index, "similarity": "dot"},
            "min_half_distance": {"patterns": patterns},
            "retrieval_error": meant | {"separation": "softmax"},
        }.items()
    }
    for rule in theory.BOUNDS:
        table[f"theory.retrieval_bound {rule}"] = theory.retrieval_bound, meant | {"rule": rule}
    for rule in theory.REQUIREMENTS:
        table[f"theory.required_margin {rule}"] = theory.required_margin, meant | {"rule": rule, "radius": 0.1}
    for rule in theory.CONDITIONS:
        table[f"theory.well_separated {rule}"] = theory.well_separated, meant | {"rule": rule, "radius": 0.1}
    table |= {
        f"theory_structures.{name}": (getattr(theory_structures, name), arguments)
        for name, arguments in {
            "diameter": {"patterns": patterns},
            "feature_relative_variance": {"x": queries, "y": queries[0], "n_features": 8, "beta": 0.5},
            "features_needed": {"x": queries, "y": queries[0], "relative_error": 0.1, "beta": 0.5},
            "hull_distance": {"points": queries, "patterns": patterns},
            "kernel_displacement": {"patterns": patterns, "beta": 2.0, "structure": structures.LinearFeatures()},
            "linear_weight_bound": {"patterns": patterns, "beta": 2.0, "index": [0, 2]},
            "mask_hit_probability": {"n_patterns": 9, "k": 2, "steps": 3},
            "masked_bound": meant | {"mask": keep},
            "masked_error": meant | {"mask": keep},
            "topk_energy": asked | {"k": 2},
            "truncation": asked | {"k": 2},
            "truncation_bound": {"scores": z, "k": 2, "beta": 2.0},
        }.items()
    }
    regression = {"memories": values, "queries": patterns, "beta": 0.5, "tol": 1e-6}
    table |= {
        f"NonparametricHopfield {kernel}": (_nonparametric, regression | {"kernel": kernel, **more})
        for kernel, more in {
            "exponential": {"structure": structures.TopK(3), "similarity": "euclidean"},
            "linear": {"C": 2.0, "epsilon": 1e-3, "max_iter": 10**4},
            "dot": {"cost": "uniform", "positions": [0, 2]},
        }.items()
    }
    # layers, losses, optimisers
    made = {"random_state": 0, "dtype": np.dtype(dtype).name}
    samples, flat = rows(2, 4, D), rows(5, D)
    table |= {
        "Linear": (_layer(layers.Linear, D, 2, **made), {"input": flat}),
        "Linear()": (layers.Linear, {"input_size": 3, "output_size": 2, "dtype": "float32", "random_state": 0}),
        "Linear.backward": (_backward, {"input": flat, "grad": rows(5, 2)}),
        "LayerNorm": (_layer(layers.LayerNorm, D, dtype=made["dtype"]), {"input": flat}),
        "LayerNorm()": (layers.LayerNorm, {"size": 3, "eps": 1e-5, "dtype": "float64"}),
        "ReLU": (_layer(layers.ReLU), {"input": flat}),
        "GELU": (_layer(layers.GELU), {"input": 40 * flat}),
        "Dropout": (_layer(layers.Dropout, 0.5, random_state=0), {"input": flat, "train": True}),
        "Dropout()": (layers.Dropout, {"rate": 0.5, "random_state": 0}),
        "Flatten": (_layer(layers.Flatten, 1), {"input": samples}),
        "Flatten()": (layers.Flatten, {"start_axis": 1}),
        "Sequential": (
            lambda input: _layer(layers.Sequential, layers.Linear(D, 4, **made), layers.GELU())(input),
            {"input": samples},
        ),
        "Hopfield": (_layer(layers.Hopfield, D, **made), {"input": samples}),
        "Hopfield masks": (
            _layer(layers.Hopfield, D, num_heads=1, **made),
            {
                "input": samples,
                "association_mask": np.triu(np.full((4, 4), -1.0), 1),
                "stored_pattern_padding_mask": np.zeros((2, 4), bool),
            },
        ),
        "Hopfield offsets": (_layer(layers.SparseHopfield, D, **made), {"input": flat, "offsets": [0, 2, 5]}),
        "Hopfield()": (
            layers.Hopfield,
            {
                "input_size": 3,
                "hidden_size": 2,
                "output_size": 2,
                "pattern_size": 2,
                "num_heads": 2,
                "scaling": 1.0,
                "update_steps_max": 1,
                "update_steps_eps": 1e-4,
                "dropout": 0.1,
                "gradient": "unrolled",
                "initial_std": 0.02,
                "dtype": "float32",
                "random_state": 0,
            },
        ),
        "SparseHopfield steps": (
            _layer(layers.SparseHopfield, D, update_steps_max=3, scaling=9.0, **made),
            {"input": samples},
        ),
        "HopfieldPooling": (_layer(layers.HopfieldPooling, D, **made), {"input": samples}),
        "HopfieldPooling bags": (_layer(layers.SparseHopfieldPooling, D, **made), {"input": bag_rows}),
        "HopfieldPooling()": (layers.HopfieldPooling, {"input_size": 3, "quantity": 2}),
        "HopfieldLayer": (_layer(layers.HopfieldLayer, D, quantity=3, **made), {"input": samples}),
        "HopfieldLayer()": (layers.HopfieldLayer, {"input_size": 3, "quantity": 2}),
        "binary_cross_entropy_with_logits": (
            layers.binary_cross_entropy_with_logits,
            {"logits": 200 * z, "targets": (z > 0).astype(dtype)},
        ),
        "mean_squared_error": (layers.mean_squared_error, {"predictions": z, "targets": g}),
        "optim": (
            _trained,
            {
                "input": flat,
                "learning_rate": 1e-3,
                "betas": (0.9, 0.99),
                "eps": 1e-8,
                "weight_decay": 0.01,
                "max_norm": 1.0,
            },
        ),
        "ExponentialDecay": (
            lambda rate: optim.ExponentialDecay(optim.AdamW(layers.Linear(2, 2)), rate),
            {"rate": 0.5},
        ),
        "CosineDecay": (
            lambda **k: optim.CosineDecay(optim.AdamW(layers.Linear(2, 2)), **k).step(),
            {"epochs": 3, "stop": 0.0},
        ),
        "Annealing": (
            lambda **k: optim.Annealing(layers.HopfieldPooling(4), **k).value,
            {"what": "alpha", "start": 1.0, "stop": 2.0, "epochs": 3},
        ),
    }
    heads = {"queries": rows(2, N, 1, D), "stored": rows(2, M, 1, D), "values": rows(2, M, 1, 2), "beta": 2.0}
    for separation in ("sparsemax", "softmax", sh.Entmax(1.3)):
        table[f"association {separation}"] = (
            _associated,
            heads | {"grad": rows(2, N, 1, 2), "separation": separation, "update_steps_max": 2},
        )
    table["association masks"] = (
        _associated,
        heads
        | {
            "grad": rows(2, N, 1, 2),
            "mask": np.where(keep, 0.0, -np.inf),
            "padding_mask": np.zeros((2, M), bool),
            "dropout": 0.1,
            "seed": 3,
            "appended": 1,
            "update_steps_eps": 1e-3,
        },
    )
    table["association offsets"] = (
        _associated,
        {k: a if k == "beta" else a[0] for k, a in heads.items()} | {"offsets": [0, 3, M], "grad": rows(2, N, 1, 2)},
    )
    # estimators and bags
    bits = bags.bit_signals()
    table |= {
        "HopfieldRetriever": (_retriever, {"X": patterns, "beta": 2.0}),
        "HopfieldRetriever auto": (_retriever, {"X": patterns, "beta": "auto"}),
        "HopfieldClassifier": (_classifier, {"X": patterns, "y": np.arange(M) % 2, "beta": 2.0}),
        "HopfieldClassifier weights": (
            _classifier,
            {"X": patterns, "y": np.arange(M) % 2, "beta": 2.0, "sample_weight": 1.0 + np.arange(M) % 3},
        ),
        "HopfieldRegressor": (_regressor, {"X": patterns, "y": values, "beta": 2.0}),
        "HopfieldRegressor weights": (
            _regressor,
            {"X": patterns, "y": values[:, 0], "beta": 2.0, "sample_weight": 1.0 + np.arange(M) % 3},
        ),
        "HopfieldForecaster": (_forecaster, {"y": patterns, "beta": 2.0}),
        "HopfieldOutlierDetector": (_detector, {"X": patterns, "beta": 2.0, "contamination": "auto"}),
        "HopfieldOutlierDetector weights": (
            _detector,
            {"X": patterns, "beta": 2.0, "contamination": 0.2, "sample_weight": 1.0 + np.arange(M) % 3},
        ),
        "HopfieldPrototypeClassifier": (_prototypes, {"X": patterns, "y": np.arange(M) % 2, "beta": 2.0}),
        "HopfieldMILClassifier": (_mil, {"bags": bag_rows, "y": labels}),
        "HopfieldMILClassifier attention": (_mil, {"bags": bag_rows, "y": labels, "layer": "attention"}),
        "HopfieldMILClassifier ids": (
            _by_ids,
            {
                "bags": np.concatenate(bag_rows),
                "y": labels,
                "bag_ids": np.repeat(np.arange(6), list(map(len, bag_rows))),
            },
        ),
        "HopfieldMILClassifier options": (
            _mil,
            {
                "bags": bag_rows,
                "y": labels,
                "separation": "softmax",
                "layer": "pooling",
                "embedding": (3,),
                "output_size": 2,
                "quantity": 1,
                "beta": 1.0,
                "update_steps_max": 1,
                "dropout": 0.1,
                "head_dropout": 0.1,
                "activation": "relu",
                "batch_size": 2,
                "learning_rate": 1e-3,
                "learning_rate_decay": 0.9,
                "weight_decay": 1e-4,
                "max_norm": 1.0,
                "anneal": ("beta", 0.5, 1.0, 0.5),
                "validation_fraction": 0.4,
                "early_stopping": "loss",
                "patience": 2,
                "restarts": 1,
                "initial_std": 0.02,
                "random_state": 0,
                "dtype": "float64",
                "structure": structures.TopK(2),
            },
        ),
        "retriever options": (
            _retriever,
            {
                "X": patterns,
                "separation": "entmax15",
                "similarity": "euclidean",
                "max_steps": 5,
                "tol": 1e-3,
                "structure": structures.TopK(2),
            },
        ),
        "explain.plot": (
            lambda shape: type(sh.HopfieldMemory(np.eye(16)).explain(np.eye(16)[0]).plot(shape)).__name__,
            {"shape": (4, 4)},
        ),
        "report.figure": (
            lambda shape: type(sh.HopfieldMemory(np.eye(16)).report().figure(shape)).__name__,
            {"shape": (4, 4)},
        ),
        "merge": (sh.merge, {"parts": [sh.candidates(queries, patterns)]}),
        "load_state_dict": (
            lambda **k: layers.Linear(D, 2).load_state_dict(**k),
            {"state": layers.Linear(D, 2, random_state=1).state_dict(), "strict": True},
        ),
        "AdamW.load_state_dict": (
            lambda state: optim.AdamW(layers.Linear(D, 2)).load_state_dict(state),
            {"state": optim.AdamW(layers.Linear(D, 2)).state_dict()},
        ),
        "AdamW()": (lambda parameters: optim.AdamW(parameters).state_dict(), {"parameters": layers.Linear(D, 2)}),
        "clip_gradients": (optim.clip_gradients, {"parameters": layers.Linear(D, 2), "max_norm": 1.0}),
        "ExponentialDecay()": (
            lambda optimizer: optim.ExponentialDecay(optimizer, 0.5).step(),
            {"optimizer": optim.AdamW(layers.Linear(D, 2))},
        ),
        "CosineDecay()": (
            lambda optimizer: optim.CosineDecay(optimizer, 3).step(),
            {"optimizer": optim.AdamW(layers.Linear(D, 2))},
        ),
        "Annealing()": (
            lambda layer: optim.Annealing(layer, "beta", 1.0, 2.0, 3).value,
            {"layer": layers.HopfieldPooling(4)},
        ),
        "gradient_health": (layers.gradient_health, {"layer": _seen_by(layers.HopfieldPooling(D), np.eye(D)[None])}),
        "Sequential()": (lambda layers_: layers.Sequential(*layers_).parameters(), {"layers_": [layers.Linear(D, 2)]}),
        "scaling": (
            lambda scaling: setattr(layers.Hopfield(D, num_heads=1), "scaling", scaling),
            {"scaling": 1.0},
        ),
        "FeatureState()": (
            lambda **k: structures.FeatureState(**k).nbytes,
            {
                "structure": structures.LinearFeatures(),
                "d": 3,
                "v": 2,
                "beta": 1.0,
                "similarity": "dot",
                "dtype": np.dtype(np.float64),
            },
        ),
        "FeatureState.add": (
            lambda **k: structures.FeatureState(structures.LinearFeatures(), D, 2, 1.0, "dot", dtype).add(**k),
            {"patterns": patterns, "values": values},
        ),
        "FeatureState.merge": (
            lambda other: structures.LinearFeatures().state(patterns).merge(other).n_patterns,
            {"other": structures.LinearFeatures().state(patterns)},
        ),
        "validation": (
            lambda validation: HopfieldMILClassifier(epochs=1).fit(bag_rows, labels, validation=validation).classes_,
            {"validation": (bag_rows, labels)},
        ),
        "set_num_threads": (lambda n: sh.set_num_threads(n), {"n": sh.get_num_threads()}),
        "show_config": (lambda mode: type(sh.show_config(mode)).__name__, {"mode": "dict"}),
        "image_bags": (
            bags.image_bags,
            {
                "images": datasets.ImageSet("drawn", rng.random((20, 16), dtype=np.float32), (4, 4), "drawn"),
                "digits": np.arange(20) % 10,
                "num_bags": 4,
                "mean_size": 3,
                "std_size": 1,
                "target": 9,
                "targets_per_bag": 1,
                "seed": 0,
            },
        ),
        "bit_signals": (bags.bit_signals, {"num_signals": 3, "num_bits": 3, "seed": 0}),
        "bit_patterns": (
            bags.bit_patterns,
            {"num_bags": 4, "bag_size": 3, "signals": bits, "signals_per_bag": 1, "seed": 0},
        ),
        "Bags.take": (lambda index: bags.bit_patterns(4, 3, bits).take(index), {"index": [0, 2]}),
    }
    return table


def flattened(result):
    """Give everything that a result holds as a list of arrays, texts and plain objects."""
    if result is None or isinstance(result, (str, bytes, bool, int, float, np.generic, np.ndarray, np.dtype)):
        return [result]
    if hasattr(result, "indptr"):
        return [result.indptr, result.indices, result.data]
    if isinstance(result, dict):
        return [part for value in result.values() for part in flattened(value)]
    if isinstance(result, (list, tuple)):
        return [part for value in result for part in flattened(value)]
    if hasattr(result, "__dataclass_fields__"):
        return flattened({name: getattr(result, name) for name in result.__dataclass_fields__})
    return [str(type(result))]
