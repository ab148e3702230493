"""Digests of what the public functions return, to be compared before and after a change that should change nothing.

    PYTHONPATH=. python tests/digests.py                    prints a line for each group of results
    PYTHONPATH=. python tests/digests.py --write before     writes the lines to a file
    PYTHONPATH=. python tests/digests.py --expect before    compares with a file; returns 1 where a line differs

On one machine, with one build of NumPy and one BLAS: softmax, layers and features depend on these. What may depend on
nothing is digested by `csrc/tests/digests.c`.
"""

import argparse
import hashlib
import sys
import warnings

import numpy as np
from helpers import digest
from public_calls import calls, flattened

import sparsehopfield as sh
from sparsehopfield import layers, structures
from sparsehopfield.estimators import HopfieldClassifier, HopfieldMILClassifier, HopfieldRetriever

DTYPES = (np.float32, np.float64)
SEPARATIONS = ("sparsemax", "softmax", "entmax15", sh.Entmax(1.2), sh.Entmax(3.0), sh.Polynomial(4))
WINDOW_SEPARATIONS = ("sparsemax", "entmax15", sh.Entmax(1.2))


def digest_of(result):
    """Hash everything that a result holds, as far as it is arrays, numbers and texts."""
    parts = hashlib.sha256()
    for part in flattened(result):
        parts.update((digest(part) if isinstance(part, (np.ndarray, np.generic)) else repr(part)).encode())
    return parts.hexdigest()[:16]


def refused(error):
    """Return what an exception says, in place of a result."""
    return [type(error).__name__, str(error)]


def small_calls():
    """Give (name, result) of one small call of every public function, also of numbers that are large or tiny."""
    for scale, dtype in ((1.0, np.float64), (1.0, np.float32), (1e15, np.float32), (1e-160, np.float64)):
        for name, (function, arguments) in calls(scale, dtype).items():
            if name == "set_num_threads":  # it tells how many there were
                continue
            try:
                result = function(**arguments)
            except Exception as error:  # of numbers that are too large, say
                result = refused(error)
            yield f"call {np.dtype(dtype).name} {scale:g} {name}", result


def structured_rows(m, d, seed, dtype):
    """Draw rows of few directions and some noise, so that an index has bounds that exclude."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((12, d))
    return (rng.standard_normal((m, 12)) @ directions + 0.3 * rng.standard_normal((m, d))).astype(dtype)


def looked_at(m):
    """Return structures for m patterns and as many queries."""
    blocks = np.eye(m // 50, dtype=bool) | np.eye(m // 50, k=-1, dtype=bool)
    return [
        structures.TopK(7),
        structures.TopK(60),
        structures.Window(9),
        structures.Window(20, causal=True, dilation=3, global_positions=[0]),
        structures.RandomMask(40, seed=3),
        structures.BlockSparse(blocks, 50),
        structures.LinearFeatures(),
        structures.LinearFeatures("relu"),
        structures.RandomFeatures(64, seed=1),
    ]


def memories():
    """Give (name, result) of memories of some size."""
    m, d, n = 1500, 80, 300
    for dtype in DTYPES:
        patterns, queries = structured_rows(m, d, 1, dtype), structured_rows(n, d, 2, dtype)
        values = structured_rows(m, 7, 3, dtype)
        for similarity in ("dot", "euclidean", "cosine"):
            for separation in SEPARATIONS:
                name = f"memory {np.dtype(dtype).name} {similarity} {separation}"
                beta = 0.05 if similarity != "cosine" else 30.0
                options = {"similarity": similarity, "separation": separation}
                memory = sh.HopfieldMemory(patterns, beta, values=values, **options)
                yield f"{name} update", memory.update(queries)
                yield f"{name} associate", memory.associate(queries, top=9)
                yield f"{name} retrieve", memory.retrieve(queries, max_steps=5, return_info=True)
                if not isinstance(separation, sh.Polynomial):
                    yield f"{name} energy", memory.energy(queries)
                if separation not in WINDOW_SEPARATIONS:
                    continue
                yield (
                    f"{name} certificates",
                    [
                        memory.margin(),
                        memory.critical_beta(),
                        memory.exact_radius(),
                        memory.is_certified(),
                        memory.is_fixed_point(),
                        memory.certify(queries),
                        memory.duplicates(0.1),
                        memory.stored_fraction([0.01, 1.0]),
                    ],
                )
                grown = sh.HopfieldMemory(patterns[: m // 2], beta, **options)
                grown.add(patterns[m // 2 :])
                yield f"{name} grown", grown.update(queries)
        for structure in looked_at(m):
            for separation in ("sparsemax", "softmax"):
                features = isinstance(structure, (structures.LinearFeatures, structures.RandomFeatures))
                if features and separation == "sparsemax":
                    continue
                options = {"values": values, "separation": separation, "structure": structure}
                result = sh.update(0.1 * patterns, patterns, 0.05, **options)
                yield f"memory {np.dtype(dtype).name} {structure} {separation}", result


def passed(layer, *inputs, **options):
    """Return what a layer makes of inputs, and all gradients of the sum of its squares."""
    out = layer.forward(inputs if len(inputs) > 1 else inputs[0], train=True, **options)
    found = layer.backward(2 * out)
    return out, found, {name: p.grad for name, p in layer.parameters().items()}


def trained_layers():
    """Give (name, result) of layers forward and backward."""
    b, n, size = 4, 100, 24
    for dtype in DTYPES:
        rng = np.random.default_rng(5)
        kind = np.dtype(dtype).name
        state, stored, projected = (rng.standard_normal((b, rows, size)).astype(dtype) for rows in (40, n, n))
        own = {"num_heads": 3, "dtype": kind, "random_state": 0}
        for separation in SEPARATIONS:
            for options in (
                {},
                {"update_steps_max": 2},
                {"dropout": 0.2, "concat_bias_pattern": True, "add_zero_association": True},
            ):
                layer = layers.Hopfield(size, separation=separation, **options, **own)
                yield f"layer {kind} Hopfield {separation} {options}", passed(layer, stored, state, projected)
            if not isinstance(separation, sh.Polynomial):
                options = {"update_steps_max": None, "gradient": "implicit", "scaling": 0.2}
                layer = layers.Hopfield(size, separation=separation, **options, **own)
                yield f"layer {kind} Hopfield {separation} at rest", passed(layer, stored, state, projected)
            pooling = layers.HopfieldPooling(size, separation=separation, quantity=2, **own)
            yield f"layer {kind} HopfieldPooling {separation}", passed(pooling, stored)
            bags = np.concatenate(list(stored))
            pooling = layers.HopfieldPooling(size, separation=separation, **own)
            yield f"layer {kind} bags {separation}", passed(pooling, bags, offsets=[0, 7, 7, 150, len(bags)])
            lookup = layers.HopfieldLayer(size, separation=separation, quantity=50, **own)
            yield f"layer {kind} HopfieldLayer {separation}", passed(lookup, stored)
        for structure in looked_at(n):
            features = isinstance(structure, (structures.LinearFeatures, structures.RandomFeatures))
            layer = layers.Hopfield(size, separation="softmax" if features else "sparsemax", structure=structure, **own)
            yield f"layer {kind} {structure}", passed(layer, stored)


def estimators():
    """Give (name, result) of the estimators."""
    rng = np.random.default_rng(7)
    rows, labels = structured_rows(400, 30, 4, np.float32), rng.integers(3, size=400)
    bags = [structured_rows(int(size), 12, int(size), np.float32) for size in rng.integers(2, 30, size=40)]
    targets = np.arange(40) % 2
    model = HopfieldRetriever("auto").fit(rows)
    yield "estimator HopfieldRetriever", [model.beta_, model.transform(rows[:50] * np.float32(0.9))]
    yield "estimator HopfieldClassifier", HopfieldClassifier(0.05).fit(rows, labels).predict_proba(rows[:50])
    for layer in ("pooling", "attention"):
        model = HopfieldMILClassifier(epochs=4, layer=layer, random_state=0).fit(bags, targets)
        yield f"estimator HopfieldMILClassifier {layer}", [model.predict_proba(bags), model.bag_weights(bags)]


def lines():
    """Give (name, digest) of all results."""
    for results in (small_calls, memories, trained_layers, estimators):
        for name, result in results():
            yield name, digest_of(result)


def main(arguments=None):
    """Print, write or compare all digests; return the exit code."""
    parser = argparse.ArgumentParser(description="Digests of what the public functions return.")
    parser.add_argument("--write", metavar="FILE", help="write the lines to a file")
    parser.add_argument("--expect", metavar="FILE", help="compare the lines with those of a file")
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dict(lines())
    text = "".join(f"{value} {name}\n" for name, value in found.items())
    if options.write:
        with open(options.write, "w", encoding="utf-8") as file:
            file.write(text)
    if options.expect:
        with open(options.expect, encoding="utf-8") as file:
            expected = {name: value for value, name in (line.rstrip("\n").split(" ", 1) for line in file)}
        differ = [name for name in expected | found if expected.get(name) != found.get(name)]
        for name in differ:
            print(f"{name}: {found.get(name, 'not made')} instead of {expected.get(name, 'nothing')}")
        print(f"{len(found)} lines, {len(differ)} differ")
        return int(bool(differ))
    if not options.write:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
