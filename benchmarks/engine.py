"""The engine with its index against one matrix product, torch, entmax and faiss: time, memory, size of the index.

    python benchmarks/engine.py --data folder --output engine.json
    python benchmarks/engine.py --data folder --only mnist gaussian

"One sgemm" is np.matmul(q, X.T, out=o) in float32, in blocks of 2,000 queries into one reused o, by NumPy's
OpenBLAS, in the same round as what it is compared with. MNIST's 60,000 training images are stored, the 10,000
test images are the queries, grey levels from 0 to 1. In every round each contender gets a new HopfieldMemory
whose index is built outside the clock and timed by itself; nothing is remembered between calls. Before a call
is timed, its results are compared on a part of the queries: with those of the scan, bit for bit, and with those
of the peer. Slow peers run on a part of the queries and their time is scaled to all of them, which the row says.
"""

import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import harness
import numpy as np

MASKED = slice(392, None)  # the second half of MNIST's pixels


@contextmanager
def path(name):
    """Force the engine's path of maps with a window."""
    from sparsehopfield import _core

    before = _core._path(name)
    try:
        yield
    finally:
        _core._path(before)


@dataclass
class Bench:
    """What the groups of rows share."""

    sh: ModuleType
    table: harness.Table
    arguments: Any
    peers: dict[str, ModuleType | None] = field(default_factory=dict)

    @cached_property
    def mnist(self):
        """Patterns, queries, and a word on what they are."""
        patterns, queries, name = harness.mnist(self.arguments)
        return patterns, queries, f"{name} {len(patterns):,} x {len(queries):,}"

    @cached_property
    def masked(self):
        """The queries without the second half of their pixels."""
        queries = self.mnist[1].copy()
        queries[:, MASKED] = 0
        return queries

    def memory(self, patterns, beta, **options):
        """Give what makes a new memory with its index, outside the clock."""

        def prepare():
            memory = self.sh.HopfieldMemory(patterns, beta, **options)
            memory.build_index()
            return memory

        return prepare

    def run(self, call, patterns, beta, **options):
        """Give the contender that calls `call(memory)`, each time on a new memory with its index."""
        return harness.Contender(call, self.memory(patterns, beta, **options))

    def index(self, patterns, **options):
        """Give the contender that builds the index of a new memory."""
        return harness.Contender(
            lambda memory: memory.build_index(), lambda: self.sh.HopfieldMemory(patterns, 1.0, **options)
        )

    def rounds(self, share=1.0):
        """Give the number of rounds, fewer where each is long."""
        return max(1, round(self.arguments.rounds * share))

    def time(self, contenders, share=1.0):
        """Time contenders side by side."""
        return harness.interleaved(contenders, self.rounds(share))


def some(queries, count=300):
    """Give a slice that takes about `count` of the queries, from everywhere."""
    return slice(None, None, max(1, len(queries) // count))


def check(bench, call, patterns, queries, beta, count=300, exact=True, **options):
    """Compare call(memory, queries) with the same by the scan on some of the queries; give all of the former.

    Where supports have more than 1,024 patterns bits are not promised, and `exact` is False.
    """
    part = some(queries, count)
    got = call(bench.memory(patterns, beta, **options)(), queries)
    with path("scan"):
        want = call(bench.sh.HopfieldMemory(patterns, beta, **options), np.ascontiguousarray(queries[part]))
    if exact:
        assert got[part].tobytes() == want.tobytes(), "the scan gives other bits"
    else:
        assert np.allclose(got[part], want, rtol=1e-4, atol=1e-5), "the scan gives something else"
    return got


def steps(count):
    """Give the call that makes `count` updates; queries that rest before are left alone, at the same bits."""
    return lambda memory, queries: memory.retrieve(queries, max_steps=count, tol=0.0)


def settle(memory, queries):
    """Retrieve to the fixed point."""
    return memory.retrieve(queries)


def update(memory, queries):
    """One step."""
    return memory.update(queries)


# --- groups of rows -------------------------------------------------------------------------------


def mnist(bench):
    """Five steps, half of each image lost, and building the index, against one sgemm."""
    patterns, queries, size = bench.mnist
    works = {
        "beta 1": (steps(5), queries, 1.0),
        "beta 0.1": (steps(5), queries, 0.1),
        "masked": (settle, bench.masked, 1.0),
    }
    for call, asked, beta in works.values():
        check(bench, call, patterns, asked, beta)
    contenders = {"sgemm": harness.one_sgemm(patterns, queries), "index": bench.index(patterns)}
    contenders["made"] = bench.memory(patterns, 1.0)
    for name, (call, asked, beta) in works.items():
        contenders[name] = bench.run(lambda memory, call=call, asked=asked: call(memory, asked), patterns, beta)
    times = bench.time(contenders)
    add, sgemm = bench.table.add, times["sgemm"]
    add(f"5 steps, {size}, beta 1", times["beta 1"], "one sgemm", sgemm, at_most=0.30, aim=0.15)
    add(f"5 steps, {size}, beta 0.1", times["beta 0.1"], "one sgemm", sgemm, at_most=0.50, aim=0.25)
    masked = f"half-masked to rest, {size}, beta 1"
    add(masked, times["masked"], "one sgemm", sgemm, at_most=0.60, aim=0.25)
    add(f"building the index, {size}", times["index"], "one sgemm", sgemm, at_most=0.12, aim=0.06)
    add(f"making the memory, index included, {size}", times["made"], "one sgemm", sgemm)
    report_size(bench, patterns, size)


def report_size(bench, patterns, name):
    """Report the size of the index: the usual one, and with the codes of all paths."""
    memory = bench.sh.HopfieldMemory(patterns)
    memory.build_index()
    sizes = {"size of the index": (memory.index_nbytes, 0.12)}
    for forced in ("lines", "columns"):
        with path(forced):
            memory.update(patterns[:2])
    sizes["size of the codes of all paths"] = (memory.index_nbytes, 0.40)
    for words, (size, limit) in sizes.items():
        share = size / patterns.nbytes
        bench.table.put(
            f"{words}, {name}",
            f"{size / 2**20:.4g} MiB",
            "patterns",
            f"{patterns.nbytes / 2**20:.4g} MiB",
            share,
            f"{limit:g} of them",
            share <= limit,
        )


def gaussian(bench):
    """Patterns without structure: one step for noisy copies, against the sgemm of the same product."""
    m, n = (3000, 500) if bench.arguments.quick else (60_000, 10_000)
    patterns, queries = noisy_copies(m, n, 784, 0.3)
    check(bench, update, patterns, queries, 0.05)
    times = bench.time(
        {
            "sgemm": harness.one_sgemm(patterns, queries),
            "index": bench.index(patterns),
            "ours": bench.run(lambda memory: update(memory, queries), patterns, 0.05),
        }
    )
    size = f"Gaussian {m:,} x {n:,}"
    bench.table.add(
        f"one step, {size}, noise 0.3, beta 0.05", times["ours"], "one sgemm", times["sgemm"], at_most=1.10, aim=0.45
    )
    bench.table.add(f"building the index, {size}", times["index"], "one sgemm", times["sgemm"])


def noisy_copies(m, n, d, noise, seed=0):
    """Draw independent Gaussian patterns, and queries that are some of them with noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.standard_normal((m, d), dtype=np.float32)
    queries = patterns[rng.integers(m, size=n)] + np.float32(noise) * rng.standard_normal((n, d), dtype=np.float32)
    return patterns, queries


def peers(bench):
    """Other ways to the same result: entmax, faiss, and for softmax torch's attention."""
    patterns, queries, size = bench.mnist
    torch, entmax, faiss = (bench.peers.get(name) for name in ("torch", "entmax", "faiss"))
    n = len(queries)
    part, larger = (100, 200) if bench.arguments.quick else (200, 2000)
    contenders = {
        "5 steps": bench.run(lambda memory: steps(5)(memory, queries), patterns, 1.0),
        "one step": bench.run(lambda memory: update(memory, queries), patterns, 1.0),
        "softmax": lambda: bench.sh.update(queries, patterns, 1.0, separation="softmax", check_finite=False),
    }
    five, one = (check(bench, call, patterns, queries, 1.0) for call in (steps(5), update))
    if torch:
        X, q = torch.from_numpy(patterns), torch.from_numpy(queries)
        contenders["fused"] = harness.Contender(
            lambda: harness.fused_attention(torch, q[:larger], X, 1.0), factor=n / larger
        )
        off = np.abs(contenders["softmax"]()[:larger] - contenders["fused"].run().numpy()).max()
        assert off < 1e-3, f"torch's attention computes something else: {off}"
    if torch and entmax:

        def composed(k, count, steps=5):
            states = q[:count]
            for _ in range(steps):
                states = harness.composed_step(entmax, states, X, 1.0, k)
            return states

        for name, k, count in (("all", None, part), ("best", 100, larger // 4)):
            contenders[name] = harness.Contender(lambda k=k, count=count: composed(k, count), factor=n / count)
            off = np.abs(one[:count] - composed(k, count, 1).numpy()).max()
            assert off < 1e-2, f"torch and entmax compute something else: {off}"
            # Float32 scores may send a query near a border to another fixed point, later on.
            off = np.abs(five[:count] - composed(k, count).numpy()).max(axis=1)
            assert (off < 1e-2).mean() > 0.98, f"torch and entmax come to something else: {off}"
    if faiss:
        flat = faiss.IndexFlatIP(patterns.shape[1])
        flat.add(patterns)
        scores, neighbours = flat.search(queries[:200], 64)
        weights = bench.sh.associate(queries[:200], patterns, 1.0)
        for row, (near, best) in enumerate(zip(neighbours, scores[:, 0], strict=True)):
            mine = weights.indices[weights.indptr[row] : weights.indptr[row + 1]]
            assert len(mine) > 64 or set(mine) <= set(near), "faiss misses a pattern that has weight"
            assert abs((patterns[mine] @ queries[row]).max() - best) <= 1e-5 * abs(best)
        contenders["faiss"] = lambda: flat.search(queries, 64)
        blas = [p for p in bench.table.config["openblas"] if p["prefix"] == "libopenblas"]
        kernels = "".join(f"its OpenBLAS {p['version']}, kernels {p['architecture']}" for p in blas)
    times = bench.time(contenders)
    scaled = "peer: {:,} queries, scaled"
    bench.table.add(
        f"5 steps, {size}, beta 1",
        times["5 steps"],
        "torch + entmax.sparsemax",
        times.get("all"),
        faster=250,
        aim=600,
        note=scaled.format(part),
    )
    bench.table.add(
        f"5 steps, {size}, beta 1",
        times["5 steps"],
        "torch + entmax.sparsemax(k=100)",
        times.get("best"),
        faster=50,
        note=scaled.format(larger // 4),
    )
    bench.table.add(
        f"one step, {size}, beta 1",
        times["one step"],
        "faiss IndexFlatIP, 64 neighbours",
        times.get("faiss"),
        faster=6,
        note=kernels if faiss else "",
    )
    bench.table.add(
        f"one dense (softmax) step, {size}",
        times["softmax"],
        "torch fused softmax attention",
        times.get("fused"),
        faster=1.8,
        note=scaled.format(larger),
    )


def single(bench):
    """One query at a time, against reading the patterns once.

    Patterns are larger than the caches, the index need not be: before every call something else is read, so that
    nobody finds anything in them. "Reading once" is the faster of two reductions by NumPy that do little more than
    load, with a part of the patterns for each thread: the maximum, and the bitwise exclusive or of words of 8 bytes.
    """
    patterns, queries, _ = bench.mnist
    threads = bench.arguments.threads
    count = 5 if bench.arguments.quick else 40
    asked = np.ascontiguousarray(queries[some(queries, count)][:count])
    check(bench, lambda memory, x: np.stack([memory.update(v) for v in x]), patterns, asked, 1.0)
    words = np.array_split(patterns.reshape(-1)[: patterns.size // 2 * 2].view(np.uint64), threads)
    numbers = np.array_split(patterns.reshape(-1), threads)
    other = np.zeros(2**20 if bench.arguments.quick else 2**25)
    with ThreadPoolExecutor(threads) as pool:
        ways = [
            lambda _: list(pool.map(np.maximum.reduce, numbers)),
            lambda _: list(pool.map(np.bitwise_xor.reduce, words)),
        ]

        def cold(call, inputs):
            """Time a call for each input, the mean."""
            total = 0.0
            for x in inputs:
                np.add(other, 1, out=other)
                total += harness.seconds(lambda x=x: call(x))
            return total / len(inputs)

        times = {"index": [], "warm": [], "scan": [], "read": []}
        for counted in range(bench.rounds() + 1):
            memory = bench.memory(patterns, 1.0)()
            taken = {"index": cold(memory.update, asked)}
            taken["warm"] = harness.seconds(lambda memory=memory: [memory.update(x) for x in asked]) / len(asked)
            with path("scan"):
                taken["scan"] = cold(bench.sh.HopfieldMemory(patterns, 1.0).update, asked)
            taken["read"] = min(cold(way, range(len(asked))) for way in ways)
            if counted:
                for name, t in taken.items():
                    times[name].append(t)
    work, once = f"one query, {len(patterns):,} patterns", f"reading them once ({threads} threads)"
    bench.table.add(f"{work}, index", times["index"], once, times["read"], at_most=0.2, note="caches cold")
    bench.table.add(f"{work}, scan", times["scan"], once, times["read"], at_most=1.3, note="caches cold")
    bench.table.add(f"{work}, index", times["warm"], once, times["read"], note="one after the other, caches warm")


def photographs(bench):
    """CIFAR-10 and ImageNet64: five steps for noisy copies of all that is stored, against one sgemm."""
    from sparsehopfield.data import datasets

    loaders = (("CIFAR-10", datasets.load_cifar10, 10_000), ("ImageNet64", datasets.load_imagenet64, 1_000))
    for name, loader, m in loaders:
        try:
            images = loader(harness.data_folder(bench.arguments))
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}")
            continue
        patterns = images.pixels(slice(min(m, 300) if bench.arguments.quick else m))
        rng = np.random.default_rng(0)
        queries = patterns + np.float32(0.2) * rng.standard_normal(patterns.shape, dtype=np.float32)
        size = f"{name} {len(patterns):,} x {len(queries):,}"
        contenders = {"sgemm": harness.one_sgemm(patterns, queries), "index": bench.index(patterns)}
        for similarity in ("dot", "euclidean"):
            check(bench, steps(5), patterns, queries, 1.0, similarity=similarity)
            contenders[similarity] = bench.run(
                lambda memory, queries=queries: steps(5)(memory, queries), patterns, 1.0, similarity=similarity
            )
        times = bench.time(contenders)
        for similarity in ("dot", "euclidean"):
            work = f"5 steps, {size}, beta 1, {similarity}"
            bench.table.add(work, times[similarity], "one sgemm", times["sgemm"])
        bench.table.add(f"building the index, {size}", times["index"], "one sgemm", times["sgemm"])
        report_size(bench, patterns, size)


def families(bench):
    """Yield data of all kinds, good and bad for an index: name, patterns, queries, beta, options."""
    quick = bench.arguments.quick
    m, n = (3000, 200) if quick else (60_000, 2_000)
    patterns, queries, _ = bench.mnist
    queries, masked = queries[:n], bench.masked[:n]
    yield "MNIST, beta 1", patterns, queries, 1.0, {}
    yield "MNIST masked, beta 0.1", patterns, masked, 0.1, {}
    yield "MNIST, entmax 1.25, beta 0.1", patterns, queries, 0.1, {"separation": bench.sh.Entmax(1.25)}
    yield "MNIST, euclidean, beta 0.3", patterns, queries, 0.3, {"similarity": "euclidean"}
    yield "MNIST, beta 1e-3", patterns, queries, 1e-3, {}
    yield "MNIST, beta 1e-6", patterns, queries[: n // 4], 1e-6, {}
    rng = np.random.default_rng(1)
    patterns = rng.standard_normal((m, 784), dtype=np.float32)
    queries = rng.standard_normal((n, 784), dtype=np.float32)
    yield "Gaussian, unrelated queries, beta 0.05", patterns, queries, 0.05, {}
    yield "Gaussian, unrelated queries, beta 0.5", patterns, queries, 0.5, {}
    few = patterns[rng.integers(m // 100, size=m)]
    yield "each pattern 100 times, beta 1", few, few[:n] + np.float32(0.3) * queries, 1.0, {}
    for a in (patterns, queries):
        a /= np.linalg.norm(a, axis=1, keepdims=True)
    yield "unit sphere, unrelated queries, beta 20", patterns, queries, 20.0, {}
    patterns = rng.random((m, 784), dtype=np.float32)
    queries = rng.random((n, 784), dtype=np.float32)
    yield "uniform, unrelated queries, beta 0.6", patterns, queries, 0.6, {}
    yield "small: 2,000 patterns of 64, 50 queries", patterns[:2000, :64].copy(), queries[:50, :64].copy(), 1.0, {}
    yield "wide: 2,000 of 8, all queries", patterns[:2000, :8].copy(), queries[:, :8].copy(), 10.0, {}


def never(bench):
    """Never more than a tenth slower than the scan: with an index, and for a new memory that may build one."""
    for name, patterns, queries, beta, options in families(bench):
        # calls too short to time by themselves
        repeat = max(1, (1_000_000 if bench.arguments.quick else 20_000_000) // (len(patterns) * len(queries)))

        def several(memory, queries=queries, repeat=repeat):
            for _ in range(repeat):
                memory.update(queries)

        def new(patterns=patterns, beta=beta, options=options):
            return bench.sh.HopfieldMemory(patterns, beta, **options)

        def scan(memory, several=several):
            with path("scan"):
                several(memory)

        wide = bench.sh.associate(queries[:20], patterns, beta, **options)
        check(bench, update, patterns, queries, beta, exact=np.diff(wide.indptr).max() <= 200, **options)
        times = bench.time(
            {
                "scan": harness.Contender(scan, new),
                "index": bench.run(several, patterns, beta, **options),
                "new": harness.Contender(several, new),
            }
        )
        bench.table.add(name, times["index"], "its scan", times["scan"], at_most=1.10)
        bench.table.add(
            f"{name}, new", times["new"], "its scan", times["scan"], at_most=1.10, note="no index built yet"
        )


def threads(bench):
    """Five steps with one thread, and more, up to all processors."""
    patterns, queries, size = bench.mnist
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    counts = sorted({1, cores, *(2**i for i in range(1, 7) if 2**i < cores)})
    prepare = bench.memory(patterns, 1.0)

    def scan(memory):
        with path("scan"):
            update(memory, queries)

    contenders = {}
    for count in counts:

        def ready(count=count):
            bench.sh.set_num_threads(count)
            return prepare()

        contenders["5 steps", count] = harness.Contender(lambda memory: steps(5)(memory, queries), ready)
        contenders["one step by scan", count] = harness.Contender(scan, ready)
    try:
        times = bench.time(contenders, share=0.6)
    finally:
        bench.sh.set_num_threads(bench.arguments.threads)
    for (work, count), taken in times.items():
        if count > 1:
            words = f"{work}, {size}, {count} threads"
            bench.table.add(words, taken, "with 1 thread", times[work, 1], note=f"{cores} processors")


def memory(bench):
    """Peak memory beyond patterns, index, queries and result, each in a new process."""
    if not Path("/proc/self/status").exists():
        print("no /proc: the rows of memory are left out")
        return
    patterns, queries, size = bench.mnist
    allowed = 64 + 4 * bench.arguments.threads
    five = "memory.retrieve(queries, max_steps=5, tol=0.0, out=out)"
    works = {
        "5 steps, beta 1": ("queries", 1.0, five),
        "5 steps, beta 0.1": ("queries", 0.1, five),
        "half-masked to rest, beta 1": ("masked", 1.0, "memory.retrieve(queries, out=out)"),
        "half-masked to rest, beta 0.1": ("masked", 0.1, "memory.retrieve(queries, out=out)"),
    }
    with tempfile.TemporaryDirectory() as room:
        for name, asked in (("queries", queries), ("masked", bench.masked)):
            folder = Path(room, name)
            folder.mkdir()
            np.save(folder / "queries.npy", asked)
            np.save(Path(room, "patterns.npy"), patterns)
            (folder / "patterns.npy").symlink_to(Path(room, "patterns.npy"))
        for work, (name, beta, call) in works.items():
            made = f"import warnings; warnings.simplefilter('ignore'); memory = sh.HopfieldMemory(patterns, {beta!r})"
            made += "; memory.build_index()"
            taken = harness.peak(f"{room}/{name}", bench.arguments.threads, made, call)
            bench.table.put(
                f"memory of {work}",
                f"{taken:.3g} MiB",
                "beyond patterns, index, queries, result",
                "",
                None,
                f"at most {allowed} MiB",
                taken <= allowed,
                size,
                {"MiB": taken},
            )
        made = "memory = sh.HopfieldMemory(patterns)"
        taken = harness.peak(f"{room}/queries", bench.arguments.threads, made, "memory.build_index()")
    bench.table.put(
        f"memory of building the index, {size}", f"{taken:.3g} MiB", "beyond patterns and index", "", None, "", None
    )


GROUPS = {f.__name__: f for f in (mnist, gaussian, peers, single, photographs, never, threads, memory)}


def main():
    """Measure and print."""

    def options(parser):
        harness.data_option(parser)
        harness.groups_option(parser, GROUPS)

    arguments = harness.start(__doc__.splitlines()[0], options)
    chosen = arguments.only or list(GROUPS)
    # Before the threads are set: faiss brings an OpenBLAS of its own.
    found = {name: harness.peer(name) for name in ("faiss", "entmax", "torch")} if "peers" in chosen else {}
    import sparsehopfield as sh

    warnings.simplefilter("ignore", sh.RetrievalWarning)  # five steps are what was asked for
    table = harness.Table(harness.set_up(arguments))
    if found.get("faiss"):
        found["faiss"].omp_set_num_threads(arguments.threads)
    bench = Bench(sh, table, arguments, found)
    for name in chosen:
        GROUPS[name](bench)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
