"""Sharded memories on workers of this machine: time, bytes, memory, and a cost model that is held against them.

    python benchmarks/sharded.py --output sharded.json
    python benchmarks/sharded.py --only model --costs sharded.json

Groups (--only):
  bytes    what travels in one step, by pickled sizes: shards in this process, an engine that counts
  workers  seconds per query on 1 to 4 worker processes, of one thread each, and what of it is this process's
  tasks    what a task costs: the same queries on more and more shards of 4,096 patterns of 8 features
  memory   4 GB of patterns in a file, on 5 workers that may have 1 GB each: peaks of workers and of this process
  model    the cost model: its terms beside what was measured, then 1,000 workers and 10^9 patterns

The scheduler runs in this process, as it does in every `distributed.LocalCluster`, so "this process" is coordinator and
scheduler together. Patterns lie in clusters of about 100 around centres in a subspace of 16 dimensions, queries are
copies with noise, one sparse step each, euclidean similarity. All answers are compared with those of one memory, bit
for bit. More workers than processors gain nothing: their rows show what workers cost. Times are medians of the rounds,
in the group "tasks" the least of four times as many calls; processor times are those of all processes together, and
say more where others use the machine.

The model is of a step of N queries (one batch) of d features of w bytes on S shards of M / S patterns with supports of
k; `Model` has the formulas.
"""

import json
import math
import mmap
import pickle
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from pathlib import Path

import harness
import numpy as np

from sparsehopfield._engine import resources
from sparsehopfield.distributed._dask import FAN_IN, SMALL
from sparsehopfield.distributed._steps import SCOUTED

BETA = 0.1
WORKERS = (1, 2, 3, 4)


def clusters(m, d, seed=0):
    """Yield the patterns in parts: (at most 50,000, d) float32."""
    frame = np.linalg.qr(np.random.default_rng(0).standard_normal((max(d, 16), 16)))[0][:d].astype(np.float32)
    for part in range(0, m, 50_000):
        rng = np.random.default_rng([seed, part])
        n = min(50_000, m - part)
        centres = 3 * rng.standard_normal((max(1, n // 100), 16), dtype=np.float32) @ frame.T
        rows = centres[rng.integers(len(centres), size=n)]
        yield rows + np.float32(0.3) * rng.standard_normal((n, d), dtype=np.float32)


def write(path, m, d):
    """Write the patterns to a .npy file, part by part; return it mapped."""
    file = np.lib.format.open_memmap(path, "w+", np.float32, (m, d))
    first = 0
    for rows in clusters(m, d):
        file[first : first + len(rows)] = rows
        first += len(rows)
    file.flush()
    return np.load(path, mmap_mode="r")


def draw_queries(patterns, n):
    """Return noisy copies of some patterns, (n, d)."""
    rng = np.random.default_rng(1)
    chosen = np.sort(rng.integers(len(patterns), size=n))
    noise = rng.standard_normal((n, patterns.shape[1]), dtype=np.float32)
    return patterns[chosen] + np.float32(0.3) * noise


# --- the model ----------------------------------------------------------------------------------------------------


@dataclass
class Costs:
    """The costs of a machine and its network; measured, but for the network."""

    task: float = 5e-4  # seconds of the scheduler and this process for a task
    hop: float = 5e-3  # seconds from the end of a task to the beginning of the one that waits for it
    search: float = 1e-10  # seconds of a worker for a query and a number of a pattern
    merge: float = 2e-8  # seconds to merge an entry of two parts (position and score)
    finish: float = 2e-5  # seconds of this process for a query, but for tasks
    message: float = 700.0  # bytes of a request besides its arrays
    part: float = 450.0  # bytes of a part besides its arrays
    span: float = 0.0  # bytes of a request for each shard
    network: float = 1.25e9  # bytes a second between two machines: 10 Gbit/s


@dataclass
class Model:
    """One step of N queries: bytes and seconds.

    R are the distinct patterns with weight of the batch, at most N k. N' of the queries have so many patterns near
    their best that the few scouted ones do not tell: these are asked for once more (`partial`).
    """

    shards: int
    patterns: int
    features: int
    support: float
    queries: int
    distinct: float = 1.0  # R / (N k)
    long: float = 0.0  # N' / N
    size: int = 4  # bytes of a number
    workers: int | None = None

    @property
    def rows(self):
        """Return R."""
        return self.distinct * self.queries * self.support

    @property
    def levels(self):
        """Return the levels of the tree of merges."""
        return max(1, math.ceil(math.log(self.shards, FAN_IN) - 1e-9)) if self.shards > 1 else 0

    @property
    def merges(self):
        """Return the tasks that merge: ceil(S / 8) + ceil(S / 64) + ... + 1."""
        count, level = 0, self.shards
        while level > 1:
            level = -(-level // FAN_IN)
            count += level
        return count

    @property
    def asked(self):
        """Return how often the shards are asked: scout and gather, and partial if any query needs it."""
        return 2 + (self.long > 0)

    def tasks(self, costs, *, tree=True):
        """Return the tasks of a step: of each request one a shard, the merges, and one that brings a large one."""
        return self.asked * (self.shards + tree * self.merges + self.is_large(costs))

    def is_large(self, costs):
        """Return whether requests are so large that workers fetch them from each other."""
        return self.shards * self.request_bytes(costs) / self.asked > SMALL

    def request_bytes(self, costs):
        """Return the bytes of the requests to one shard: N d w of scout, N' (d w + 8) of partial, 8 R of gather."""
        again = self.long * self.queries * (self.features * self.size + 8)
        arrays = self.queries * self.features * self.size + again + 8 * self.rows
        return arrays + self.asked * (costs.message + costs.span * self.shards)

    def sent(self, costs):
        """Return the bytes that the coordinator sends: a large request once, a small one to every shard."""
        return self.request_bytes(costs) * (1 if self.is_large(costs) else self.shards)

    def _parts(self, costs, parts):
        """Return the bytes of so many parts of each step that are of the whole together.

        16 c N of each of scout; 9 N' of each of partial, and 16 for each of k N' patterns; R (d w + 16) of gather.
        """
        best = 16 * self.queries * SCOUTED * parts
        lists = self.long * self.queries * (9 * parts + 16 * self.support)
        return best + lists + self.rows * (self.features * self.size + 16) + self.asked * parts * costs.part

    def part_bytes(self, costs):
        """Return the bytes of all parts of the shards."""
        return self._parts(costs, self.shards)

    def received(self, costs, *, tree):
        """Return the bytes that the coordinator receives: with a tree one part of each step, without one all."""
        return self._parts(costs, 1 if tree else self.shards)

    def own_seconds(self, costs, *, tree=True):
        """Return the seconds of a step that the coordinator and the scheduler work, which bound all calls together."""
        parts = self.seconds(costs, tree=tree)
        return parts["tasks"] + parts["coordinator"] + (0 if tree else parts["merges"])

    def seconds(self, costs, *, tree=True):
        """Return the seconds of a step by what they go to; the sum is the step's where nothing overlaps."""
        workers = self.workers or self.shards
        entries = self.queries * SCOUTED
        fan = (FAN_IN - 1) * self.levels if tree else self.shards - 1
        return {
            "search": costs.search * (1 + self.long) * self.queries * self.patterns * self.features / workers,
            "tasks": costs.task * self.tasks(costs, tree=tree),
            "waiting": costs.hop * self.asked * (1 + self.is_large(costs) + tree * self.levels),
            "merges": costs.merge * entries * fan,
            "network": (self.sent(costs) + self.received(costs, tree=tree)) / costs.network,
            "coordinator": costs.finish * self.queries,
        }


# --- groups of rows -----------------------------------------------------------------------------------------------


class Counting:
    """An engine of shards in this process that counts what would travel, and the processor time of each side."""

    def __init__(self, shards):
        self.shards, self.steps = shards, []

    def reduce(self, function, request, merge):
        """Carry out a step, its parts merged eight at a time, and note the pickled sizes."""
        data = pickle.dumps(request, protocol=5)
        began = time.process_time()
        parts = [function(shard, request) for shard in self.shards]
        searched, sent = time.process_time() - began, [len(pickle.dumps(part, protocol=5)) for part in parts]
        began, between = time.process_time(), 0
        while len(parts) > 1:
            parts = [reduce(merge, parts[i : i + FAN_IN]) for i in range(0, len(parts), FAN_IN)]
            between += sum(len(pickle.dumps(part, protocol=5)) for part in parts) if len(parts) > 1 else 0
        self.steps.append(
            {
                "step": getattr(function, "__name__", str(function)),
                "request": len(data),
                "parts": sum(sent),
                "between": between,
                "received": len(pickle.dumps(parts[0], protocol=5)),
                "search": searched,
                "merging": time.process_time() - began,
            }
        )
        return parts[0]


def measure_bytes(bench):
    """Bytes of a step by pickled sizes, beside the model's, for more and more shards and queries."""
    import sparsehopfield as sh
    from sparsehopfield.distributed import Coordinator, Shard

    d, each = 64, 4096
    counts = (1, 4, 16) if bench.quick else (1, 4, 16, 64, 256)
    patterns = np.concatenate(list(clusters(each * counts[-1], d)))
    seen, spans = [], []
    for n in (1, 256):
        for s in counts:
            stored = patterns[: s * each]
            queries = draw_queries(stored, n)
            shards = [Shard(stored[i : i + each], first=i, similarity="euclidean") for i in range(0, len(stored), each)]
            engine = Counting(shards)
            memory = Coordinator(engine, BETA)
            engine.steps.clear()
            began = time.process_time()
            got = memory.update(queries)
            whole = time.process_time() - began
            single = sh.HopfieldMemory(stored, BETA, similarity="euclidean")
            assert got.tobytes() == single.update(queries).tobytes(), "other bits than one memory's"
            weights = single.associate(queries)
            found = {
                "queries": n,
                "shards": s,
                "support": weights.nnz / n,
                "distinct": len(np.unique(weights.indices)) / weights.nnz,
                "long": float(np.mean(np.diff(weights.indptr) >= SCOUTED)),
                "steps": engine.steps,
                "coordinator": whole - sum(step["search"] + step["merging"] for step in engine.steps),
                "processor": whole,
            }
            seen.append(found)
            spans.append((s, engine.steps[0]["request"] - n * d * 4))
    slope, base = np.polyfit(*zip(*spans, strict=True), 1)
    bench.costs = replace(bench.costs, message=float(base), span=float(max(slope, 0)))
    small = [f for f in seen if f["queries"] == 1]
    parts = [(s["parts"] - 16 * SCOUTED * f["shards"]) / f["shards"] for f in small for s in f["steps"][:1]]
    bench.costs.part = statistics.median(parts)
    merged = [
        s["merging"] / (f["queries"] * SCOUTED * (f["shards"] - 1))
        for f in seen
        for s in f["steps"]
        if s["step"] == "scout" and f["queries"] > 1 and f["shards"] > 1
    ]
    bench.costs.merge = statistics.median(merged)
    bench.costs.finish = statistics.median(f["coordinator"] / f["queries"] for f in seen if f["queries"] > 1)
    for found in seen:
        sizes = {"support": found["support"], "distinct": found["distinct"], "long": found["long"]}
        model = Model(found["shards"], found["shards"] * each, d, queries=found["queries"], **sizes)
        steps = found["steps"]
        request, parts = (sum(step[name] for step in steps) for name in ("request", "parts"))
        received = sum(step["received"] for step in steps)
        for what, got, said in (
            ("requests to a shard", request, model.request_bytes(bench.costs)),
            ("parts of all shards", parts, model.part_bytes(bench.costs)),
            ("to the coordinator", received, model.received(bench.costs, tree=True)),
        ):
            bench.table.put(
                f"{found['queries']} queries, {found['shards']} shards: {what}",
                f"{got:,} B",
                "the model",
                f"{said:,.0f} B",
                got / said,
                "",
                None,
                f"steps: {', '.join(step['step'] for step in steps)}; supports of {found['support']:.3g}",
                found,
            )
    last = seen[-1]
    bench.table.put(
        f"processor time of 256 queries, {last['shards']} shards",
        f"{last['processor'] * 1e3:.3g} ms",
        "of it the coordinator",
        f"{last['coordinator'] * 1e3:.3g} ms",
        last["coordinator"] / last["processor"],
        "",
        None,
        f"merges {sum(s['merging'] for s in last['steps']) * 1e3:.3g} ms",
        last,
    )


def started(n, **options):
    """Start n worker processes of one thread; return cluster and client, to be used as contexts."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=":0", **options)
    return cluster, Client(cluster)


def processor_time():
    """Return the processor time of this process, of a worker where it runs there."""
    return time.process_time()


def on_workers(client, function):
    """Return the sum of a function over the workers."""
    return sum(client.run(function).values())


def measure_workers(bench):
    """Seconds per query on 1 to 4 workers, beside one memory in one thread, and the share of this process."""
    import sparsehopfield as sh
    from sparsehopfield.distributed import ShardedMemory

    m, d, n = (40_000, 64, 100) if bench.quick else (1_000_000, 64, 1000)
    with tempfile.TemporaryDirectory(dir=bench.folder) as room:
        patterns = write(f"{room}/patterns.npy", m, d)
        queries = draw_queries(patterns, n)
        singles = {use: sh.HopfieldMemory(patterns, BETA, similarity="euclidean", index=use) for use in (False, True)}
        weights = singles[True].associate(queries)
        facts = {
            "queries": n,
            "patterns": m,
            "features": d,
            "support": weights.nnz / n,
            "distinct": len(np.unique(weights.indices)) / weights.nnz,
            "long": float(np.mean(np.diff(weights.indptr) >= SCOUTED)),
        }
        sh.set_num_threads(1)
        one = {
            use: [harness.clocked(partial(singles[use].update, queries)) for _ in range(bench.rounds)]
            for use in singles
        }
        sh.set_num_threads(bench.arguments.threads)
        want = singles[True].update(queries)
        bench.costs.search = statistics.median(processor for _, processor in one[False]) / (n * m * d)
        for count in WORKERS:
            cluster, client = started(count, memory_limit="2GB")
            with cluster, client:
                for use in singles:
                    memory = ShardedMemory(
                        f"{room}/patterns.npy", BETA, similarity="euclidean", index=use, shards=count, client=client
                    )
                    assert memory.update(queries).tobytes() == want.tobytes(), "other bits than one memory's"
                    found = facts | {
                        "workers": count,
                        "index": use,
                        "one": one[use],
                        "wall": [],
                        "own": [],
                        "theirs": [],
                    }
                    for _ in range(bench.rounds):
                        busy = on_workers(client, processor_time)
                        wall, mine = harness.clocked(partial(memory.update, queries))
                        found["wall"].append(wall)
                        found["own"].append(mine)
                        found["theirs"].append(on_workers(client, processor_time) - busy)
                    put_workers(bench, found)
                    del memory


def put_workers(bench, found):
    """Add the row of one number of workers."""
    n, med = found["queries"], statistics.median
    total = [a + b for a, b in zip(found["own"], found["theirs"], strict=True)]
    alone, alone_processor = (med(taken[i] for taken in found["one"]) for i in (0, 1))
    bench.table.put(
        f"{'index' if found['index'] else 'scan'}, {found['patterns']:,} x {found['features']}, {n:,} queries, "
        f"{found['workers']} workers",
        f"{med(found['wall']) / n * 1e6:.4g} µs",
        "one memory, 1 thread",
        f"{alone / n * 1e6:.4g} µs",
        med(found["wall"]) / alone,
        "",
        None,
        f"processor time of a query {med(total) / n * 1e6:.4g} µs, of one memory {alone_processor / n * 1e6:.4g} µs; "
        f"of it this process {med(found['own']) / med(total):.2g}; supports of {found['support']:.3g}",
        found,
    )
    bench.found.setdefault("workers", []).append(found)


def measure_tasks(bench):
    """Measure what a task costs: one query on more and more shards, so small that nothing else counts."""
    from sparsehopfield.distributed import ShardedMemory

    counts = (2, 8, 16) if bench.quick else (2, 8, 32, 64, 128, 256)
    d, each = 8, 4096
    with tempfile.TemporaryDirectory(dir=bench.folder) as room:
        patterns = write(f"{room}/patterns.npy", each * counts[-1], d)
        queries = draw_queries(patterns, 1)
        cluster, client = started(2, memory_limit="2GB")
        with cluster, client:
            tasks, wall, own = [], [], []
            for s in counts:
                path = f"{room}/{s}.npy"
                np.save(path, patterns[: s * each])
                memory = ShardedMemory(path, BETA, similarity="euclidean", index=False, shards=s, client=client)
                assert memory.shards == s
                memory.update(queries)
                taken = [harness.clocked(partial(memory.update, queries)) for _ in range(4 * bench.rounds)]
                tasks.append(Model(s, 1, d, 1, 1).tasks(bench.costs))
                wall.append(min(w for w, _ in taken))
                own.append(min(p for _, p in taken))
                bench.table.put(
                    f"one query, {s} shards, {tasks[-1]} tasks",
                    f"{wall[-1] * 1e3:.4g} ms",
                    "a task",
                    f"{wall[-1] / tasks[-1] * 1e3:.3g} ms",
                    None,
                    "",
                    None,
                    f"processor time of this process {own[-1] * 1e3:.4g} ms",
                    {"shards": s, "tasks": tasks[-1], "wall": wall[-1], "own": own[-1]},
                )
    waits = [2 * (1 + Model(s, 1, d, 1, 1).levels) for s in counts]
    (hop, slope), *_ = np.linalg.lstsq(np.column_stack([waits, tasks]).astype(float), np.array(wall), rcond=None)
    own_slope, _ = np.polyfit(tasks, own, 1)
    bench.costs.task, bench.costs.hop = float(own_slope), float(max(hop, 0))
    bench.table.put(
        "a task more",
        f"{slope * 1e3:.3g} ms",
        "of it this process",
        f"{own_slope * 1e3:.3g} ms",
        own_slope / slope,
        "",
        None,
        f"and {hop * 1e3:.3g} ms for each task that waits for another",
        {"slope": slope, "own": own_slope, "hop": hop},
    )


def peak_memory():
    """Return the peak of the resident memory of this process, mapped pages included, and what is its own now."""
    return resources.process_memory("VmHWM"), resources.process_memory("RssAnon")


def measure_memory(bench):
    """Peaks of memory: 4 GB of patterns on 5 workers that may have 1 GB each."""
    from sparsehopfield.distributed import ShardedMemory

    m, d = (100_000, 256) if bench.quick else (4_000_000, 256)
    n = 256
    with tempfile.TemporaryDirectory(dir=bench.folder) as room:
        patterns = write(f"{room}/patterns.npy", m, d)
        queries = draw_queries(patterns, n)
        size = patterns.nbytes
        patterns._mmap.madvise(mmap.MADV_DONTNEED)  # what this process has mapped is not counted
        resources.reset_peak()
        before = resources.process_memory("VmRSS")
        cluster, client = started(5, memory_limit="1GB")
        with cluster, client:
            made, states, source = [], np.empty_like(queries), f"{room}/patterns.npy"
            options = {"similarity": "euclidean", "index": not bench.arguments.no_index and "auto", "client": client}
            ran = harness.clocked(lambda: made.append(ShardedMemory(source, BETA, **options)))
            memory = made.pop()
            asked = harness.clocked(lambda: memory.update(queries, out=states))
            retrieved = harness.clocked(lambda: memory.retrieve(queries))
            peaks, shards = list(client.run(peak_memory).values()), memory.shards
            mine = resources.process_memory("VmHWM")
        check(states, queries, source)
    found = {"peaks": peaks, "mine": mine, "before": before, "load": ran, "update": asked, "retrieve": retrieved}
    bench.table.put(
        f"{size / 1e9:.3g} GB on 5 workers of 1 GB: the largest worker",
        f"{max(p for p, _ in peaks) / 1e6:.4g} MB",
        "its limit",
        "1000 MB",
        max(p for p, _ in peaks) / 1e9,
        "below it",
        max(p for p, _ in peaks) < 1e9,
        f"its own at most {max(a for _, a in peaks) / 1e6:.4g} MB, the rest pages of the file; {shards} shards; loaded "
        f"in {ran[0]:.3g} s, {n} queries in {asked[0]:.3g} s, to their fixed points in {retrieved[0]:.3g} s",
        found,
    )
    bench.table.put(
        "the coordinator, with the scheduler",
        f"{mine / 1e6:.4g} MB",
        "before",
        f"{before / 1e6:.4g} MB",
        mine / before,
        "",
        None,
        f"grew by {(mine - before) / 1e6:.4g} MB",
        found,
    )


def check(states, queries, path):
    """Raise unless states are, to the bit, those of the patterns near each query in a memory of their own.

    A pattern whose score is more than 1/beta below the best has no weight, and does not change the others' (P1).
    """
    import sparsehopfield as sh

    patterns = np.load(path, mmap_mode="r")
    wide, step = queries.astype(np.float64), 100_000
    best, near = np.full(len(queries), -np.inf), [[] for _ in queries]
    for first in range(0, len(patterns), step):
        rows = np.asarray(patterns[first : first + step])
        scores = (wide.astype(np.float32) @ rows.T).astype(np.float64) - (rows.astype(np.float64) ** 2).sum(1) / 2
        best = np.maximum(best, scores.max(1))
        for i in range(len(queries)):  # float32 products are off by far less than 0.5 here
            near[i].append(first + np.flatnonzero(scores[i] >= best[i] - 1 / BETA - 0.5))
    for i, query in enumerate(queries):
        rows = np.ascontiguousarray(patterns[np.concatenate(near[i])])
        memory = sh.HopfieldMemory(rows, BETA, similarity="euclidean")
        assert memory.update(query).tobytes() == states[i].tobytes(), f"query {i}: other bits than the reference's"


def show_model(bench):
    """The model's seconds beside those measured, then 1,000 workers and 10^9 patterns, with a tree and without."""
    costs = bench.costs
    print("costs:", ", ".join(f"{k} {v:.3g}" for k, v in asdict(costs).items()))
    for found in bench.found.get("workers", []):
        if found["index"]:
            continue
        # Dask's workers share the processors that there are.
        busy = min(found["workers"], bench.arguments.threads)
        facts = {name: found[name] for name in ("patterns", "features", "support", "queries", "distinct", "long")}
        model = Model(found["workers"], workers=busy, **facts)
        parts = model.seconds(costs)
        said = parts["search"] * busy + parts["tasks"] + parts["merges"] + parts["coordinator"]
        taken = statistics.median(a + b for a, b in zip(found["own"], found["theirs"], strict=True))
        bench.table.put(
            f"a step of {found['queries']:,} queries, {found['workers']} workers, scan: processors",
            f"{taken:.3g} s",
            "the model",
            f"{said:.3g} s",
            taken / said,
            "",
            None,
            f"by the clock {statistics.median(found['wall']):.3g} s, the model {sum(parts.values()):.3g} s: "
            f"{words_of(parts)}",
        )
    for shards in (10, 100, 1000, 4000):
        for n in (1, 256, 4096):
            model = Model(shards, 10**9, 128, 10, n, long=0.5, workers=min(shards, 1000))
            with_tree, without = (model.seconds(costs, tree=tree) for tree in (True, False))
            bench.table.put(
                f"10^9 x 128 on {model.workers} workers, {shards} shards, {n:,} queries",
                f"{sum(with_tree.values()):.3g} s",
                "without a tree",
                f"{sum(without.values()):.3g} s",
                sum(with_tree.values()) / sum(without.values()),
                "",
                None,
                f"{words_of(with_tree)}; to the coordinator {model.received(costs, tree=True) / 1e6:.3g} MB, without a "
                f"tree {model.received(costs, tree=False) / 1e6:.3g} MB; all requests "
                f"{shards * model.request_bytes(costs) / 1e6:.3g} MB; at most {n / model.own_seconds(costs):.3g} "
                f"queries a second, without a tree {n / model.own_seconds(costs, tree=False):.3g}",
            )


def words_of(seconds):
    """Write what the seconds of a step go to."""
    return ", ".join(f"{name} {value:.2g} s" for name, value in seconds.items())


GROUPS = {
    "bytes": measure_bytes,
    "workers": measure_workers,
    "tasks": measure_tasks,
    "memory": measure_memory,
    "model": show_model,
}


class Bench:
    """The state that groups share: the table, sizes, costs, and what was found for the model."""

    def __init__(self, arguments):
        self.arguments, self.quick, self.rounds = arguments, arguments.quick, arguments.rounds
        self.folder = arguments.folder
        self.table = harness.Table(harness.set_up(arguments))
        self.costs, self.found = Costs(), {}
        if arguments.costs:
            config = json.loads(arguments.costs.read_text(encoding="utf-8"))["config"]
            self.costs, self.found = Costs(**config["costs"]), {"workers": config["workers"]}
        if arguments.network:
            self.costs.network = arguments.network


def main():
    """Measure, group by group."""

    def options(parser):
        parser.add_argument("--folder", help="room for 4 GB of patterns (default: where temporary files go)")
        parser.add_argument("--costs", type=Path, help="a file of --output whose costs the model takes")
        parser.add_argument("--network", type=float, help="bytes a second between machines (default 1.25e9)")
        parser.add_argument("--no-index", action="store_true", help="scan in the group memory")
        harness.groups_option(parser, GROUPS)

    arguments = harness.start(__doc__.splitlines()[0], options)
    bench = Bench(arguments)
    for name, group in GROUPS.items():
        if not arguments.only or name in arguments.only:
            group(bench)
    bench.table.config |= {"costs": asdict(bench.costs), "workers": bench.found.get("workers", [])}
    bench.table.finish(arguments.output)


if __name__ == "__main__":
    main()
