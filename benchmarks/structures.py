"""Structures: the cost of looking at some of the pairs, beside all pairs in torch and the products of the same pairs.

    python benchmarks/structures.py --data folder --output structures.json

One update of n queries over n patterns of 64 features, float32, random; 2 threads for everybody. "Its own products" are
two np.matmul with as many multiplications as the pairs of the structure have, scores and mixture. torch's fused dense
attention runs on an eighth of the queries, which costs an eighth, and its time is scaled. Exponents are slopes of
log time over log n, fitted by least squares; times are medians.
"""

import functools
import statistics

import harness
import numpy as np

from sparsehopfield._engine import resources

LENGTH, D, W = 65_536, 64, 64
BETA = D**-0.5  # attention's


def rows(n, seed=0):
    """Queries and patterns: independent normal numbers."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, D), dtype=np.float32) for _ in range(2)]


def members(structures, n):
    """The structures by name, and the maps they are asked with."""
    blocks = np.eye(n // 128, dtype=bool)
    return {
        "window of 64": (structures.Window(W), ("softmax", "sparsemax")),
        "window of 64, causal": (structures.Window(W, causal=True), ("softmax", "sparsemax")),
        "blocks of 128, diagonal": (structures.BlockSparse(blocks, (128, 128)), ("softmax", "sparsemax")),
        "random 64 of all": (structures.RandomMask(64), ("softmax", "sparsemax")),
        "linear features": (structures.LinearFeatures(), ("softmax",)),
        "linear features, causal": (structures.LinearFeatures(causal=True), ("softmax",)),
        "256 random features": (structures.RandomFeatures(256), ("softmax",)),
    }


def own_products(x, pairs):
    """Two products of as many multiplications as `pairs` pairs have."""
    a = np.ascontiguousarray(x[: pairs // len(x)].T)
    return lambda: (x @ a) @ a.T


def fused(torch, q, k):
    """Torch's dense attention of an eighth of the queries, to be scaled."""
    part = q[: len(q) // 8]
    return harness.Contender(
        lambda: harness.fused_attention(torch, torch.from_numpy(part), torch.from_numpy(k), BETA), factor=8
    )


def at_length(sh, table, arguments, torch):
    """Every member at one length."""
    from sparsehopfield import structures

    n = 4096 if arguments.quick else LENGTH
    q, k = rows(n)
    contenders = {"fused": fused(torch, q, k)} if torch else {}
    pairs = {}
    for name, (structure, maps) in members(structures, n).items():
        if isinstance(structure, structures.Pairs):
            pairs[name] = structure.cost(n, n, D).multiplications // (2 * D)
            contenders["products", name] = own_products(q, pairs[name])
        for separation in maps:
            contenders[name, separation] = functools.partial(
                sh.update, q, k, BETA, separation=separation, structure=structure
            )
    times = harness.interleaved(contenders, arguments.rounds)
    for name, (_, maps) in members(structures, n).items():
        for separation in maps:
            ours, work = times[name, separation], f"{name}, {separation}, n = {n:,}"
            faster = {"window of 64": 100, "linear features": 300}.get(name)
            table.add(work, ours, "torch, fused dense", times.get("fused"), faster=faster or 1)
            if name in pairs:
                limit = 3 if name.startswith("window") else None
                table.add(work, ours, "its own products", times["products", name], at_most=limit)


def exponents(sh, table, arguments):
    """How times grow with the length."""
    from sparsehopfield import structures

    sizes = [2**i for i in (range(10, 13) if arguments.quick else range(12, 18))]
    times = {}
    for n in sizes:
        q, k = rows(n)
        contenders = {
            (name, separation): functools.partial(sh.update, q, k, BETA, separation=separation, structure=structure)
            for name, (structure, maps) in members(structures, n).items()
            for separation in maps
        }
        for key, taken in harness.interleaved(contenders, arguments.rounds).items():
            times.setdefault(key, []).append(statistics.median(taken))
    for (name, separation), taken in times.items():
        slope = resources.exponent(sizes, taken)
        work = f"exponent of {name}, {separation}"
        table.put(work, f"{slope:.3f}", f"n = {sizes[0]:,} to {sizes[-1]:,}", "", None, "at most 1.05", slope <= 1.05)


def topk(sh, table, arguments, torch):
    """The k best of MNIST's training images, beside dense softmax; the index is there already."""
    from sparsehopfield.structures import TopK

    patterns, tests, name = harness.mnist(arguments)
    n = 200 if arguments.quick else 1000
    rng = np.random.default_rng(0)
    stored = patterns[rng.integers(len(patterns), size=n)]
    halves = stored * (np.arange(stored.shape[1]) < stored.shape[1] // 2).astype(np.float32)
    noisy = np.clip(stored + 0.3 * rng.standard_normal(stored.shape, dtype=np.float32), 0, 1)
    asked = {"images": tests[:n], "images without their lower half": halves, "noisy images": noisy}
    for similarity in ("dot", "euclidean"):
        memory = sh.functional.Stored(patterns, None, similarity, copy=None, check_finite=True)
        memory.update(memory.ask(tests, 1.0, "sparsemax"), None)  # builds the index
        for kind, queries in asked.items():
            contenders = {
                separation: functools.partial(memory.update, memory.ask(queries, 1.0, separation, TopK(32)), None)
                for separation in ("softmax", "sparsemax")
            }
            if torch:
                q, k = torch.from_numpy(queries), torch.from_numpy(patterns)
                contenders["fused"] = functools.partial(harness.fused_attention, torch, q, k, 1.0)
            times = harness.interleaved(contenders, arguments.rounds)
            for separation in ("softmax", "sparsemax"):
                work = f"32 best of {len(patterns):,} of {name}, {similarity}, {separation}: {n:,} {kind}"
                table.add(work, times[separation], "torch, fused dense", times.get("fused"), faster=8)


def main():
    """Measure and print."""

    def options(parser):
        harness.data_option(parser)
        parser.add_argument("--only", nargs="+", choices=["length", "exponents", "topk"], help="some of it")

    arguments = harness.start(__doc__.splitlines()[0], options)
    torch = harness.peer("torch")
    import sparsehopfield as sh

    table = harness.Table(harness.set_up(arguments))
    chosen = arguments.only or ["length", "exponents", "topk"]
    if "length" in chosen:
        at_length(sh, table, arguments, torch)
    if "exponents" in chosen:
        exponents(sh, table, arguments)
    if "topk" in chosen:
        topk(sh, table, arguments, torch)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
