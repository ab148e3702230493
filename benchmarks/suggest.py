"""Suggested settings beside the best of a full grid, on data of many kinds: how far off, and where.

    python benchmarks/suggest.py [--rows M] [--only retrieval]

Queries: rows with noise, rows of which half is lost, darker and brighter rows. `suggest(X, queries=...)` sees 200 of
them; 100 others are retrieved, and the rate is the share that reaches the row it was made from. Classes and targets:
`suggest(X, y)` sees the rows for training; the score is that of other rows, and the leave-one-out score beside it. The
grid has all similarities, separation maps and many betas, each judged on the same held-out queries or rows:
no choice without them can always reach its best. SPARSEHOPFIELD_DATA names the folder of the data sets; those that are
not there are left out.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import skewed_data
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

import sparsehopfield as sh
from sparsehopfield.data import datasets

SIMILARITIES = ("euclidean", "cosine", "dot")
MAPS = ("sparsemax", "entmax15", "softmax")
OCTAVES = range(-14, 15)


def sets(m):
    """Yield names and rows."""
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((m, 64)).astype(np.float32)
    yield "digits", load_digits().data.astype(np.float32)
    yield "Gaussian", gaussian
    yield "unit vectors", gaussian / np.linalg.norm(gaussian, axis=1, keepdims=True)
    yield "Gaussian, each twice", np.repeat(gaussian[: m // 2], 2, axis=0)
    folder = os.environ.get("SPARSEHOPFIELD_DATA")
    if folder:
        yield "MNIST", datasets.load_mnist(folder).pixels(slice(m))
        yield "CIFAR-10", datasets.load_cifar10(folder).pixels(slice(m // 2))
        yield "image patches", skewed_data.patches(Path(folder), m, 1)[0]
        yield "SIFT", skewed_data.descriptors(Path(folder), m, 1)[0]
        yield "sentences", skewed_data.sentences(Path(folder), m, 1)[0]


def damages(rows, rng):
    """Yield names and damaged rows."""
    noise = rng.standard_normal(rows.shape).astype(np.float32)
    spread = rows.std()
    yield "a little noise", rows + np.float32(0.3 * spread) * noise
    yield "noise", rows + spread * noise
    half = rows.copy()
    half[:, rows.shape[1] // 2 :] = 0
    yield "half lost", half
    yield "some lost", rows * (rng.random(rows.shape) < 0.6)
    yield "scaled", rows * rng.uniform(0.3, 1.5, (len(rows), 1)).astype(np.float32)


def rate(memory, queries, rows):
    """Return which share of queries reaches its row, or a copy of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sh.RetrievalWarning)
        found, _ = memory.retrieve(queries, max_steps=30, return_info=True)
    lengths = np.maximum(np.linalg.norm(rows, axis=1), 1e-30) if memory.similarity == "cosine" else np.ones(len(rows))
    target = rows / lengths[:, None]
    near = np.linalg.norm(found - target, axis=1) <= 1e-3 * np.maximum(np.linalg.norm(target, axis=1), 1e-30)
    return float(near.mean())


def of_queries(name, X):
    """Yield a line for each kind of damage."""
    rng = np.random.default_rng(1)
    at = rng.choice(len(X), 300, replace=False)
    for (kind, shown), (_, asked) in zip(damages(X[at[:200]], rng), damages(X[at[200:]], rng), strict=True):
        began = time.perf_counter()
        s = sh.suggest(X, queries=shown)
        seconds = time.perf_counter() - began
        rows = X[at[200:]]
        mine = rate(s.memory(X), asked, rows)
        grid = {}
        for similarity in SIMILARITIES:
            try:
                memory = sh.HopfieldMemory(X, similarity=similarity)
            except ValueError:  # rows of length 0 have no direction
                continue
            middle = np.log2(s.beta * (np.linalg.norm(X, axis=1).mean() if s.similarity != similarity else 1))
            for k in range(-6, 7, 3):
                memory.beta = 2.0 ** (round(middle) + k)
                grid[similarity, memory.beta] = rate(memory, asked, rows)
        best = max(grid, key=grid.get)
        yield f"{name}: {kind}", s, mine, grid[best], f"{best[0]}, {best[1]:.3g}", seconds


def supervised():
    """Yield names, rows and classes or targets."""
    for name, load in (("iris", load_iris), ("wine", load_wine), ("cancer", load_breast_cancer)):
        X, y = load(return_X_y=True)
        yield name, X / X.std(axis=0), y
        yield f"{name}, as it is", X, y
    yield "digits", *load_digits(return_X_y=True)
    X, y = load_diabetes(return_X_y=True)
    yield "diabetes", X, y
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 4))
    yield "smooth function", X, np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.2 * rng.standard_normal(2000)
    folder = os.environ.get("SPARSEHOPFIELD_DATA")
    if folder:
        yield "MNIST", datasets.load_mnist(folder).pixels(slice(4000)), datasets.load_labels("mnist", folder)[:4000]


def score(memory, X, y):
    """Return accuracy or R^2."""
    found = memory.update(X)
    if y.dtype.kind == "f":
        return 1 - float(((found[:, 0] - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    return float((found.argmax(axis=1) == y).mean())


def leave_one_out(memory, y):
    """Return accuracy or R^2 of the rows themselves, without each."""
    found = memory.leave_one_out()
    if y.dtype.kind == "f":
        return 1 - float(((found[:, 0] - y) ** 2).mean() / y.var())
    return float((found.argmax(axis=1) == y).mean())


def of_classes(name, X, y):
    """Yield the lines of a set: leave-one-out, and held-out rows."""
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[: 2 * len(X) // 3], order[2 * len(X) // 3 :]
    y = y if y.dtype.kind == "f" else y.astype(int)
    began = time.perf_counter()
    s = sh.suggest(X[train], y[train])
    seconds = time.perf_counter() - began
    inside, outside = {}, {}
    for similarity in SIMILARITIES:
        memory = s.memory(X[train], y[train], similarity=similarity, structure=None)
        lengths = np.linalg.norm(X[train], axis=1).mean()
        unit = {"cosine": 1 / lengths}.get(similarity, 1 / lengths**2)
        for separation in MAPS:
            memory.separation = separation
            for k in OCTAVES:
                memory.beta = unit * 2.0 ** (k + 4)
                key = similarity, separation, memory.beta
                inside[key], outside[key] = leave_one_out(memory, y[train]), score(memory, X[test], y[test])
    memory = s.memory(X[train], y[train])
    for kind, grid, mine in (
        ("leave-one-out", inside, leave_one_out(memory, y[train])),
        ("held out", outside, score(memory, X[test], y[test])),
    ):
        best = max(grid, key=grid.get)
        yield f"{name}: {kind}", s, mine, grid[best], f"{best[0]}, {best[1]}, {best[2]:.3g}", seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=4000, help="rows of each set (default: 4000)")
    parser.add_argument("--only", choices=["retrieval", "prediction"], help="one of the two tables")
    options = parser.parse_args()
    heads = f"{'its':>6s}  {'best':>6s}  {'off':>6s}  {'the best of the grid':32s}  {'s':>5s}"
    print(f"{'data':38s}  {'suggested':28s}  {heads}")
    for title, lines in (
        ("retrieval", (line for one in sets(options.rows) for line in of_queries(*one))),
        ("prediction", (line for one in supervised() for line in of_classes(*one))),
    ):
        if options.only not in (None, title):
            continue
        off = []
        for name, s, mine, best, settings, seconds in lines:
            off.append(best - mine)
            mark = "  <-- off" if off[-1] > 0.05 else ""
            structure = "" if s.structure is None else f", {s.structure}"
            own = f"{s.similarity}, {s.separation}, {s.beta:.3g}{structure}"
            cells = f"{mine:6.3f}  {best:6.3f}  {off[-1]:6.3f}  {settings:32s}  {seconds:5.2f}{mark}"
            print(f"{name:38s}  {own:28s}  {cells}", flush=True)
        if off:
            within = ", ".join(
                f"within {x:g} of the best in {sum(o <= x for o in off)}" for x in (0.01, 0.02, 0.05, 0.1)
            )
            print(f"{title}, {len(off)} cases: {within}; at worst {max(off):.3f} below\n", flush=True)


if __name__ == "__main__":
    main()
