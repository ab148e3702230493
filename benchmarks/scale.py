"""Retrieval from many and unevenly spread patterns, beside one matrix product, the scan, and approximate search.

    python benchmarks/scale.py --data folder --output scale.json
    python benchmarks/scale.py --data folder --only patches growth --threads 1 --clock processor
    python benchmarks/scale.py --data folder --only approximate --faiss folder/for/its/indexes --output faiss.json
    python benchmarks/scale.py --draw scale.json faiss.json

The patterns are 800,000 patches of ImageNet64 images (`skewed_data.py`) under euclidean similarity, and 5,000 others
are the queries, unless a row says otherwise. "One sgemm" is NumPy's product of as many queries with as many patterns
in float32, in the same round; it runs on a part of both and its time is scaled, which is right to some 2 %. "The scan"
is a memory with index=False. An index is built outside the clock, and building has rows of its own. Before a call is
timed, its results are held against the scan's on some of the queries: bit for bit where supports have at most 1,024
patterns, closely beyond. Ratios are those of wall times, or of processor times (--clock), which say more where others
use the machine; the JSON file has both. Rows of approximate search need faiss-cpu and --faiss: the first run builds
faiss's indexes (for 800,000 patterns that takes some minutes) and keeps them in that folder. The picture,
docs/figures/scale.png, is drawn by a whole run, or from the JSON files of earlier ones.
"""

import json
import statistics
import tempfile
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import engine
import harness
import numpy as np
import skewed_data
from engine import noisy_copies, settle, some, steps, update
from growth import draw as draw_clusters

from sparsehopfield._engine import resources

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "scale.png"
EXACT_SUPPORT = 1024  # up to which results have the scan's bits
#: Queries by their support at beta 1: the largest of a class, and the share of a sgemm's time that is to be reached
#: with the index, and hoped for.
CLASSES = ((24, 0.10, 0.06), (300, 0.12, 0.08), (EXACT_SUPPORT, 0.15, 0.10), (np.inf, 0.8, 0.4))
CLOCKS = ("wall", "processor")


@dataclass
class Times:
    """The seconds of every round, by clock and contender, and the clock that ratios go by."""

    seconds: dict[str, dict[str, list[float]]]
    clock: str

    def ratios(self, name, base, scale=1.0, clock=None):
        """Divide a contender's times by `scale` times those of another, round by round."""
        times = self.seconds[clock or self.clock]
        return [a / (b * scale) for a, b in zip(times[name], times[base], strict=True)]


@dataclass
class Bench(engine.Bench):
    """The state that groups of rows share: memories of patches are made once and answer many calls."""

    memories: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def patches(self):
        """Return the patches that are stored and those that are asked for."""
        n = 300 if self.arguments.quick else 5000
        return skewed_data.patches(harness.data_folder(self.arguments), self.arguments.patterns, n)

    def patch_memory(self, m, index="auto"):
        """Return a memory of the first m patches: with its index, or one that scans."""
        if (m, index) not in self.memories:
            memory = self.sh.HopfieldMemory(self.patches[0][:m], similarity="euclidean", index=index)
            if index:
                memory.build_index()
            self.memories[m, index] = memory
        return self.memories[m, index]

    @cached_property
    def supports(self):
        """Return the number of patches that have weight for every query at beta 1: shape (N,)."""
        memory = self.patch_memory(len(self.patches[0]))
        memory.beta = 1.0
        return support(memory, self.patches[1])

    def classes(self):
        """Yield the queries in parts by their supports: a name, the queries, what is to be reached, and hoped for."""
        least = 0
        for most, must, aim in CLASSES:
            chosen = (self.supports > least) & (self.supports <= most)
            if chosen.any():
                yield f"to {most:,}" if most < np.inf else f"over {least:,}", self.patches[1][chosen], must, aim
            least = most

    def check(self, memory, scan, queries):
        """Hold results against the scan's for some of the queries, and return the peak of memory of asking all."""
        part, found = some(queries, 20 if self.arguments.quick else 100), []
        asked = np.ascontiguousarray(queries[part])
        peak = resources.peak(lambda: found.append(memory.update(queries)))
        compare(found[0][part], scan.update(asked), support(scan, asked))
        return peak - found[0].nbytes

    def time(self, contenders, share=1.0):
        """Time contenders side by side, by both clocks."""
        wall = super().time(contenders, share)
        processor = {name: contenders[name].processor[-len(taken) :] for name, taken in wall.items()}
        return Times({"wall": wall, "processor": processor}, self.arguments.clock)

    def add(self, work, times, name, base="sgemm", *, peer="one sgemm", scale=1.0, place=None, note="", **targets):
        """Compare a contender with `scale` times another.

        `place` is (panel, label, series) in the picture, which shows the contender's share of a sgemm's time.
        """
        other = next(clock for clock in CLOCKS if clock != times.clock)
        words = f"{other} time {statistics.median(times.ratios(name, base, scale, other)):.3g}"
        note = f"{words}; {note}" if note else words
        taken = times.seconds[times.clock]
        self.table.add(work, taken[name], peer, [t * scale for t in taken[base]], note=note, **targets)
        row = self.table.rows[-1]
        row["clocks"] = {clock: {"ours": taken[name], "theirs": taken[base]} for clock, taken in times.seconds.items()}
        if place:
            must = targets.get("at_most") if base == "sgemm" else None
            row["picture"] = (*place, statistics.median(times.ratios(name, "sgemm")), must)

    def say(self, work, value, target="", met=None, note="", **options):
        """Add a row that has no peer."""
        self.table.put(work, value, "", "", options.pop("ratio", None), target, met, note, **options)


def support(memory, queries):
    """Count the patterns that have weight for every query: shape (N,)."""
    return np.diff(memory.associate(queries).indptr)


def compare(got, want, supports):
    """Raise unless results are equal to the bit where supports are small, and close elsewhere."""
    exact = supports <= EXACT_SUPPORT
    assert got[exact].tobytes() == want[exact].tobytes(), "the scan gives other bits"
    assert np.allclose(got, want, rtol=1e-4, atol=1e-5), "the scan gives something else"


def sgemm(patterns, queries):
    """Return the contender that multiplies a part of the queries with a part of the patterns."""
    X, q = patterns[:50_000], queries[:1000]
    return harness.Contender(harness.one_sgemm(X, q), factor=patterns.size * len(queries) / (X.size * len(q)))


def step(memory, beta, queries, of=None):
    """Return the contender that makes one step; its time is scaled to that of as many queries as `of` has."""

    def run():
        memory.beta = beta
        memory.update(queries)

    return harness.Contender(run, factor=1.0 if of is None else len(of) / len(queries))


def mebibytes(size):
    """Write a size in bytes."""
    return f"{size / 2**20:.4g} MiB"


# --- groups of rows -------------------------------------------------------------------------------


def patches(bench):
    """Image patches with the index: all and an eighth of them, by support, building the index, memory."""
    stored, queries = bench.patches
    every = len(stored)
    musts = {every // 8: {1.0: (0.25, 0.2), 10.0: (0.16, 0.12)}, every: {1.0: (0.12, 0.08), 10.0: (0.08, 0.05)}}
    for m, betas in musts.items():
        X, memory, scan = stored[:m], bench.patch_memory(m), bench.patch_memory(m, index=False)
        size = f"patches {m:,} x {len(queries):,}"
        contenders, peaks = {"sgemm": sgemm(X, queries), "index": bench.index(X, similarity="euclidean")}, {}
        for beta in betas:
            memory.beta = scan.beta = beta
            peaks[beta] = bench.check(memory, scan, queries)
            contenders[f"{beta:g}"] = step(memory, beta, queries)
        classes = list(bench.classes()) if m == every else []
        for name, asked, _, _ in classes:
            contenders[name] = step(memory, 1.0, asked, of=queries)
        times = bench.time(contenders, share=0.6)
        for beta, (must, aim) in betas.items():
            bench.add(
                f"one step, {size}, beta {beta:g}",
                times,
                f"{beta:g}",
                at_most=must,
                aim=aim,
                note=f"peak {mebibytes(peaks[beta])}",
                place=("Image patches", f"{m:,}, beta {beta:g}", "index"),
            )
        for name, asked, must, aim in classes:
            bench.add(
                f"support {name}, patches {m:,}, beta 1",
                times,
                name,
                at_most=must,
                aim=aim,
                note=f"{len(asked):,} queries, scaled",
                place=("Image patches", f"{m:,}, support {name}", "index"),
            )
        building(bench, f"patches {m:,}", times, queries, mebibytes(memory.index_nbytes))


def building(bench, name, times, queries, note=""):
    """Add the row of building an index, beside the product of the patterns with 10,000 queries."""
    peer, scale = "sgemm of 10,000 queries", 10_000 / len(queries)
    work = f"building the index, {name}"
    bench.add(work, times, "index", peer=peer, scale=scale, at_most=0.10, aim=0.06, note=note)


def scan(bench):
    """Image patches without an index: a mixed batch, by support, and supports up to a sixteenth of the patterns."""
    stored, queries = bench.patches
    m = len(stored)
    memory = bench.patch_memory(m, index=False)
    wide = 0.003  # a beta at which most supports are larger than the classes'
    bench.patch_memory(m).beta = wide
    few = queries[:300]
    supports = support(bench.patch_memory(m), few)
    chosen = (supports > EXACT_SUPPORT) & (supports <= m // 16)
    works = {f"{m:,}, beta {beta:g}": (beta, queries[some(queries, 500)]) for beta in (1.0, 10.0)}
    works |= {f"{m:,}, support {name}": (1.0, asked[:300]) for name, asked, _, _ in bench.classes()}
    if chosen.any():
        works[f"{m:,}, beta {wide:g}, support to M/16"] = (wide, few[chosen])
    contenders = {"sgemm": sgemm(stored, queries)}
    contenders |= {name: step(memory, beta, asked, of=queries) for name, (beta, asked) in works.items()}
    times = bench.time(contenders, share=0.6)
    for name, (_, asked) in works.items():
        bench.add(
            f"the scan, patches {name}",
            times,
            name,
            at_most=1.15,
            aim=1.05,
            note=f"{len(asked):,} queries, scaled",
            place=("Image patches", name, "scan"),
        )


def mnist(bench):
    """MNIST: five steps, half of each image lost, and the dense (softmax) step."""
    patterns, queries, size = bench.mnist
    works = {
        "5 steps, beta 1": (steps(5), queries, 1.0, 0.092, 0.06),
        "5 steps, beta 0.1": (steps(5), queries, 0.1, 0.148, 0.08),
        "half masked to rest, beta 1": (settle, bench.masked, 1.0, 0.087, 0.08),
    }
    contenders = {"sgemm": sgemm(patterns, queries), "index": bench.index(patterns)}
    for name, (call, asked, beta, _, _) in works.items():
        engine.check(bench, call, patterns, asked, beta)
        contenders[name] = bench.run(lambda memory, call=call, asked=asked: call(memory, asked), patterns, beta)
    dense = {"softmax, beta 4": (4.0, 0.3, 0.2), "softmax, beta 8": (8.0, 0.15, 0.1)}
    for name, (beta, _, _) in dense.items():
        check_softmax(bench, patterns, queries, beta)
        contenders[name] = bench.run(lambda memory: update(memory, queries), patterns, beta, separation="softmax")
    times = bench.time(contenders, share=0.6)
    for name, (_, _, _, must, aim) in works.items():
        bench.add(f"{name}, {size}", times, name, at_most=must, aim=aim, place=("MNIST", name, "index"))
    for name, (_, must, aim) in dense.items():
        bench.add(f"{name}, {size}", times, name, at_most=must, aim=aim, place=("MNIST", name, "index"))
    building(bench, f"MNIST {len(patterns):,}", times, queries)


def check_softmax(bench, patterns, queries, beta):
    """Compare the dense step with its formula in float64, for some of the queries."""
    part = some(queries, 20)
    got = bench.memory(patterns, beta, separation="softmax")().update(queries)[part]
    scores = beta * (queries[part].astype(np.float64) @ patterns.T.astype(np.float64))
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    want = weights / weights.sum(axis=1, keepdims=True) @ patterns
    assert np.abs(got - want).max() < 1e-4, "the formula gives something else"


def growth(bench):
    """Measure how the time of a query grows from an eighth of the patches to all of them, at beta 10."""
    stored, queries = bench.patches
    sizes = [len(stored) // part for part in (8, 4, 2, 1)]
    contenders = {}
    for m in sizes:
        contenders[f"sgemm {m}"] = sgemm(stored[:m], queries)
        contenders[m] = step(bench.patch_memory(m), 10.0, queries)
    times = bench.time(contenders, share=0.6)
    taken = times.seconds[times.clock]
    medians = {m: statistics.median(taken[m]) / len(queries) for m in sizes}
    shares = {m: statistics.median(times.ratios(m, f"sgemm {m}")) for m in sizes}
    exponent = resources.exponent(sizes, list(medians.values()))
    bench.say(
        f"exponent of growth, patches {sizes[0]:,} to {sizes[-1]:,}, beta 10",
        f"{exponent:.3g}",
        "0.75",
        exponent <= 0.75,
        "; ".join(f"{m:,}: {t * 1e6:.3g} µs, {shares[m]:.3g} sgemm" for m, t in medians.items()),
        ratio=exponent,
        aim=0.6,
        aim_met=exponent <= 0.6,
        measured=times.seconds,
    )


def approximate(bench):
    """Approximate search by faiss that finds the nearest pattern of 95 in 100 queries: batches, single queries."""
    faiss, folder = bench.peers["faiss"], bench.arguments.faiss
    if not (faiss and folder):
        print("approximate search is left out: it needs faiss-cpu, and --faiss, a folder for its indexes")
        return
    folder.mkdir(parents=True, exist_ok=True)
    patterns, queries, _ = bench.mnist
    works = (
        ("patches", *bench.patches, 10.0, 1 / 2, 1 / 3),
        ("MNIST", patterns, queries[some(queries, 5000)], 1.0, 1, 1 / 2),
    )
    for data, patterns, queries, beta, must, aim in works:
        memory, scan = (
            bench.sh.HopfieldMemory(patterns, beta, similarity="euclidean", index=index) for index in (True, False)
        )
        bench.check(memory, scan, queries)
        nearest = memory.associate(queries, top=1).indices
        single = queries[some(queries, 20 if bench.arguments.quick else 200)]
        contenders = {
            "sgemm": sgemm(patterns, queries),
            "ours": step(memory, beta, queries),
            "ours, single": harness.Contender(lambda m=memory, s=single: [m.update(x) for x in s]),
        }
        found = {}
        for kind, make in (("HNSW32", hnsw), ("IVF", inverted_lists)):
            file = folder / f"{kind}-{data}-{len(patterns)}x{patterns.shape[1]}.faiss"
            index, settings = make(faiss, file, patterns)
            parameters, found[kind] = tuned(index, settings, patterns, queries, nearest)
            contenders[kind] = harness.Contender(lambda i=index, p=parameters, q=queries: i.search(q, 1, params=p))
            contenders[f"{kind}, single"] = harness.Contender(
                lambda i=index, p=parameters, s=single: [i.search(x[None], 1, params=p) for x in s]
            )
        times = bench.time(contenders, share=0.6)
        size = f"{data} {len(patterns):,}, euclidean, beta {beta:g}"
        label = f"{len(patterns):,}, beta {beta:g}" if data == "patches" else f"one step, euclidean, beta {beta:g}"
        place = ("Image patches" if data == "patches" else data, label)
        bench.add(f"one step, {size}", times, "ours", place=(*place, "index"))
        for kind, words in found.items():
            in_batch, alone = ({"at_most": must, "aim": aim}, {"at_most": 1.25, "aim": 1 / 1.2})
            if kind != "HNSW32":
                in_batch = alone = {}
            bench.add(f"{len(queries):,} queries, {size}", times, "ours", kind, peer=words, **in_batch)
            bench.add(f"single queries, {size}", times, "ours, single", f"{kind}, single", peer=words, **alone)
        bench.add(f"faiss {found['HNSW32']}", times, "HNSW32", place=(*place, "HNSW at recall 0.95"))


def hnsw(faiss, file, patterns):
    """Read or build a graph (Malkov and Yashunin 2018); return it and its settings, from fast to thorough."""
    if file.exists():
        index = faiss.read_index(str(file))
    else:
        index = faiss.index_factory(patterns.shape[1], "HNSW32")
        index.hnsw.efConstruction = 200
        taken = harness.seconds(lambda: index.add(patterns))
        print(f"{file.name} was built in {taken:.4g} s", flush=True)
        faiss.write_index(index, str(file))
    sizes = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    return index, {f"HNSW32, ef {ef}": faiss.SearchParametersHNSW(efSearch=ef) for ef in sizes}


def inverted_lists(faiss, file, patterns):
    """Read or build inverted lists, one of some 200 patterns each; return them and their settings."""
    if file.exists():
        index = faiss.read_index(str(file))
    else:
        lists = 2 ** round(np.log2(max(16, len(patterns) / 200)))
        index = faiss.index_factory(patterns.shape[1], f"IVF{lists},Flat")
        index.cp.max_points_per_centroid = 64

        def build():
            index.train(patterns)
            index.add(patterns)

        print(f"{file.name} was built in {harness.seconds(build):.4g} s", flush=True)
        faiss.write_index(index, str(file))
    counts = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    return index, {f"IVF{index.nlist}, {n} lists": faiss.SearchParametersIVF(nprobe=n) for n in counts}


def tuned(index, settings, patterns, queries, nearest):
    """Return the first setting that finds the nearest pattern of 95 of 100 queries, and its name with what it finds."""

    def distances(found):
        return np.linalg.norm(queries - patterns[found], axis=1)

    best = distances(nearest)
    for name, parameters in settings.items():
        found = index.search(queries, 1, params=parameters)[1][:, 0]
        # Of patterns as near as the nearest, any is right.
        recall = np.mean((found >= 0) & (distances(found) <= best * (1 + 1e-6)))
        if recall >= 0.95:
            return parameters, f"{name}, recall {recall:.3f}"
    return parameters, f"{name}, recall only {recall:.3f}"


def families(bench):
    """Yield data of all kinds: a name, patterns, queries, inverse temperatures, options of the memory."""
    quick = bench.arguments.quick
    folder = harness.data_folder(bench.arguments)
    m, n = (2000, 100) if quick else (60_000, 2000)
    from sparsehopfield.data import datasets

    near = {"similarity": "euclidean"}
    for name, loader, betas in (
        ("CIFAR-10", datasets.load_cifar10, (0.003, 0.03)),
        ("ImageNet64", datasets.load_imagenet64, (0.001, 0.01)),
    ):
        yield name, *skewed_data.photographs(loader(folder), m // 6, n), betas, near
    patterns, queries = skewed_data.descriptors(folder, m, n)
    yield "SIFT", patterns, queries, (1e-6, 1e-5, 1e-4), near
    yield "SIFT, stored as uint8", patterns.astype(np.uint8), queries, (1e-5,), near
    if harness.peer("sklearn"):
        yield "sentences", *skewed_data.sentences(folder, m, n), (0.3, 3.0, 30.0), {"similarity": "cosine"}
    patterns, queries = (a[:count] for a, count in zip(bench.patches, (m, n), strict=True))
    yield "patches", patterns, queries, (0.1, 1.0), near
    copies = skewed_data.duplicates(patterns, queries, m // 60)
    yield f"each patch {m // 60:,} times", *copies, (0.03, 1.0), near
    yield "a cluster and outliers", *skewed_data.outliers(m, n), (0.1, 1.0, 10.0), near
    patterns, queries = noisy_copies(m, n, 192, 0.3)
    yield "Gaussian", patterns, queries, (0.01, 1.0), near
    others = np.random.default_rng(1).standard_normal(queries.shape, dtype=np.float32)
    yield "Gaussian, unrelated", patterns, others, (0.01, 0.1), near


def never(bench):
    """Data of all kinds: never more than a tenth slower than the scan, with an index or as a new memory."""
    for name, patterns, queries, betas, options in families(bench):
        for beta in betas:
            never_slower(bench, f"{name}, beta {beta:g}", patterns, queries, beta, options)


def never_slower(bench, label, patterns, queries, beta, options):
    """Compare one step with the index, and of a new memory that may build one, with the scan's."""
    # calls too short to time by themselves
    repeat = max(1, 400_000_000 // (patterns.size * len(queries)))

    def several(memory):
        for _ in range(repeat):
            memory.update(queries)

    def made(index):
        return lambda: bench.sh.HopfieldMemory(patterns, beta, index=index, **options)

    scan, ready = made(False)(), bench.memory(patterns, beta, **options)()
    bench.check(ready, scan, queries)
    product = sgemm(patterns.astype(np.float32, copy=False), queries)
    product.factor *= repeat
    contenders = {
        "sgemm": product,
        "scan": harness.Contender(several, made(False)),
        "index": bench.run(several, patterns, beta, **options),
        "new": harness.Contender(several, made("auto")),
    }
    times = bench.time(contenders, share=0.6)
    kappa = np.median(support(scan, queries[some(queries, 100)]))
    place, note = ("Other data", label), f"{len(patterns):,} x {len(queries):,}, support {kappa:g}"
    bench.add(label, times, "index", "scan", peer="its scan", at_most=1.10, note=note, place=(*place, "index"))
    bench.add(f"{label}, new", times, "new", "scan", peer="its scan", at_most=1.10, note="no index built yet")
    bench.add(f"{label}, the scan", times, "scan", note=note, place=(*place, "scan"))


def living(bench):
    """An index that lives: one pattern of a million removed, some added, the file loaded, and the first batch after."""
    m, n = (20_000, 100) if bench.arguments.quick else (1_000_000, 1000)
    rows, queries = draw_clusters("clustered", m + n, n)
    stored, more = rows[:m], rows[m:]
    memory = bench.memory(stored, 0.1, similarity="euclidean")()
    rng = np.random.default_rng(0)
    size = f"{m:,} x {stored.shape[1]}"
    limit = 1e-3
    before = first_batch(memory, queries)
    memory.remove(0)  # the first one copies what was borrowed
    taken = [removing(memory, rng) for _ in range(bench.rounds())]
    removed = statistics.median(taken)
    note = f"{before:.3g} s before"
    bench.say(f"remove one pattern of {size}", f"{removed:.3g} s", f"{limit:g} s", removed <= limit, measured=taken)
    bench.say(f"{n:,} queries after it", f"{first_batch(memory, queries):.3g} s", note=note)
    bench.say(f"add {n:,} patterns to {size}", f"{adding(memory, more):.3g} s")
    bench.say(f"{n:,} queries after it", f"{first_batch(memory, queries):.3g} s", note=note)
    for _ in range(10):
        removing(memory, rng)
        adding(memory, more[rng.integers(n, size=3)])
    fresh = bench.sh.HopfieldMemory(memory.patterns, 0.1, similarity="euclidean", index=False)
    bench.check(memory, fresh, queries)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "memory")
        bench.say(f"save {size}", f"{harness.seconds(lambda: memory.save(file)):.3g} s", note=mebibytes(memory.nbytes))
        for mmap in (False, True):
            taken, loaded = loading(bench, file, mmap)
            words = f"load {size}{', mapped' if mmap else ''}"
            bench.say(words, f"{taken:.3g} s", note=f"index {mebibytes(loaded.index_nbytes)}")
            bench.say(f"{n:,} queries after it", f"{first_batch(loaded, queries):.3g} s", note=note)
            bench.check(loaded, fresh, queries)
            del loaded


def removing(memory, rng):
    """Time the removal of one pattern, anywhere."""
    place = int(rng.integers(len(memory)))
    return harness.seconds(lambda: memory.remove(place))


def adding(memory, rows):
    """Time adding patterns."""
    return harness.seconds(lambda: memory.add(rows))


def loading(bench, file, mmap):
    """Time loading a saved memory, with its index where the file has one; return the time and the memory."""
    found = []
    taken = harness.seconds(lambda: found.append(bench.sh.HopfieldMemory.load(file, mmap=mmap)))
    return taken, found[0]


def first_batch(memory, queries):
    """Time a batch of queries; it may build or complete the index."""
    return harness.seconds(lambda: memory.update(queries))


GROUPS = {f.__name__: f for f in (patches, scan, mnist, growth, approximate, never, living)}

# --- the picture ----------------------------------------------------------------------------------

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
#: From back to front.
SERIES = {
    "index": {"marker": "o", "color": BLUE},
    "scan": {"marker": "s", "markerfacecolor": "none", "color": ORANGE},
    "HNSW at recall 0.95": {"marker": "D", "markerfacecolor": "none", "color": GREY},
}


def picture(rows, title):
    """Draw the share of a sgemm's time that each series takes, by kind of data: logarithmic, one line a kind."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    panels = {}
    for row in rows:
        if "picture" not in row:
            continue
        panel, label, series, share, must = row["picture"]
        points, limits = panels.setdefault(panel, {}).setdefault(label, ({}, []))
        points.setdefault(series, share)
        limits += [must] if must and series == "index" else []
    *others, last = panels
    columns = [column for column in (others, [last]) if column]
    heights = [[len(panels[name]) + 2.5 for name in column] for column in columns]
    tallest = max(map(sum, heights))
    shares = [s for panel in panels.values() for points, _ in panel.values() for s in points.values()]
    figure = Figure(figsize=(11, 1 + 0.2 * tallest), dpi=100, facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid, legend = figure.add_gridspec(1, len(columns)), {}
    for c, column in enumerate(columns):
        rest = tallest - sum(heights[c])  # all lines are equally high
        ratios = [*heights[c], rest] if rest else heights[c]
        own = grid[c].subgridspec(len(ratios), 1, height_ratios=ratios)
        for r, name in enumerate(column):
            axes = figure.add_subplot(own[r])
            axes.axvline(1, color="black", linewidth=1)
            for y, (points, limits) in enumerate(panels[name].values()):
                axes.plot([min(points.values()), max(points.values())], [y, y], color="#CCCCCC", linewidth=2, zorder=1)
                for series in (series for series in SERIES if series in points):
                    style = {"linestyle": "", "markersize": 6, **SERIES[series]}
                    legend[series] = axes.plot(points[series], y, **style)[0]
                for must in limits[:1]:
                    style = {"marker": "|", "markersize": 9, "color": "black", "linestyle": ""}
                    legend["to be reached with the index"] = axes.plot(must, y, **style)[0]
            axes.set(xscale="log", xlim=(min([*shares, 0.1]) / 1.5, max([*shares, 1]) * 1.5))
            axes.set_title(name, fontsize=10, fontweight="bold")
            axes.set(yticks=range(len(panels[name])), yticklabels=list(panels[name]))
            axes.set_ylim(len(panels[name]) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0, labelsize=8)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.grid(axis="x", color="#EEEEEE")
            axes.set_axisbelow(True)
            axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel("time over that of one matrix product", fontsize=9)
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=len(legend), frameon=False, fontsize=9)
    return figure


def draw(rows, config, file):
    """Draw and save the picture."""
    words = f"{config['threads']} thread{'s' * (config['threads'] > 1)}, {config['clock']} time"
    figure = picture(rows, f"Retrieval beside one matrix product of all queries with all patterns ({words})")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Software": None})
    print(f"written to {file}")


def main():
    """Measure, print and draw."""

    def options(parser):
        harness.data_option(parser)
        harness.groups_option(parser, GROUPS)
        parser.add_argument("--patterns", type=int, help="patches that are stored (default 800,000, quick 20,000)")
        parser.add_argument("--clock", choices=CLOCKS, default="wall", help="that of the ratios (default wall)")
        parser.add_argument("--faiss", type=Path, help="folder that keeps faiss's indexes between runs")
        parser.add_argument("--figure", type=Path, help=f"where the picture goes (a whole run: {FIGURE.name})")
        parser.add_argument("--draw", nargs="+", type=Path, help="only draw, from the JSON files of earlier runs")

    arguments = harness.start(__doc__.splitlines()[0], options)
    if arguments.draw:
        runs = [json.loads(file.read_text()) for file in arguments.draw]
        draw([row for run in runs for row in run["rows"]], runs[0]["config"], arguments.figure or FIGURE)
        return
    arguments.patterns = arguments.patterns or (20_000 if arguments.quick else 800_000)
    chosen = arguments.only or list(GROUPS)
    # Before the threads are set: faiss brings an OpenBLAS of its own.
    peers = {"faiss": harness.peer("faiss") if "approximate" in chosen and arguments.faiss else None}
    import sparsehopfield as sh

    warnings.simplefilter("ignore", sh.RetrievalWarning)  # five steps are what was asked for
    table = harness.Table(harness.set_up(arguments))
    table.config |= {key: getattr(arguments, key) for key in ("threads", "clock", "patterns")}
    if peers["faiss"]:
        peers["faiss"].omp_set_num_threads(arguments.threads)
    bench = Bench(sh, table, arguments, peers)
    for name in chosen:
        try:
            GROUPS[name](bench)
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}")
    if arguments.figure or not (arguments.quick or arguments.only):
        draw(table.rows, table.config, arguments.figure or FIGURE)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
