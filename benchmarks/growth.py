"""Time and memory as the number of stored patterns grows from 1,000 to 1,000,000, with the index and by the scan.

    python benchmarks/growth.py --figures folder --output growth.json

128 features, 1,000 queries, one sparse step each; clustered patterns (Gaussian clusters of about 100, whose
centres lie in a subspace of 16 dimensions) and random ones (independent Gaussian), queried by noisy copies. Every
size runs in a new process. Time is that of a query in a batch, the median of several rounds on the same memory,
whose index was built before; memory is the index, and the peak beyond patterns, index, queries and result. The
exponents of growth are the slopes of straight lines through the logarithms. At last a memory of the largest size is
saved and opened through a memory map, and what the process that opens it keeps in memory is reported; and 1,000 of its
patterns are removed one by one.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import numpy as np

from sparsehopfield._engine import resources

FEATURES, BETA = 128, {"clustered": 0.1, "random": 0.05}


def draw(family, m, n):
    """Draw patterns and queries."""
    rng = np.random.default_rng(0)
    if family == "random":
        patterns = rng.standard_normal((m, FEATURES), dtype=np.float32)
    else:
        frame = np.linalg.qr(rng.standard_normal((FEATURES, 16)))[0].astype(np.float32)
        centres = 3 * rng.standard_normal((max(1, m // 100), 16), dtype=np.float32) @ frame.T
        patterns = centres[rng.integers(len(centres), size=m)]
        for i in range(0, m, 50_000):  # in parts: the peak of what follows must not come from here
            part = patterns[i : i + 50_000]
            part += np.float32(0.3) * rng.standard_normal(part.shape, dtype=np.float32)
    queries = patterns[rng.integers(m, size=n)] + np.float32(0.3) * rng.standard_normal((n, FEATURES), dtype=np.float32)
    return patterns, queries


def one_size(family, m, n, rounds, threads):
    """Measure one size, in a process of its own."""
    import sparsehopfield as sh
    from sparsehopfield import _core

    sh.set_num_threads(threads)
    rng = np.random.default_rng(1)
    small = rng.random((2000, FEATURES), dtype=np.float32)
    for beta in (1.0, 1e-3):  # libraries, threads and their buffers
        sh.update(small, small, beta)
    patterns, queries = draw(family, m, n)
    out = np.ones_like(queries)
    memory = sh.HopfieldMemory(patterns, BETA[family], similarity="euclidean")
    found = {"family": family, "patterns": m}

    def scan():
        before = _core._path("scan")
        memory.update(queries, out=out)
        _core._path(before)

    def index():
        memory.update(queries, out=out)

    found["scan: peak"] = resources.peak(scan)  # and the round that does not count
    want = out.copy()
    found["index: building peak"] = resources.peak(
        lambda: found.update({"index: building": harness.seconds(memory.build_index)})
    )
    size = memory.index_nbytes
    found["index: peak"] = resources.peak(index)
    assert out.tobytes() == want.tobytes(), "scan and index give other bits"
    found["index"] = memory.index_nbytes
    found["index: peak"] -= found["index"] - size  # codes that the call found worth building
    found["index: building peak"] -= size
    # Calls of less than some 20 ms are repeated.
    for name, call in (("scan", scan), ("index", index)):
        repeat = int(np.clip(0.02 / harness.seconds(call), 1, 100))
        taken = [
            harness.seconds(lambda call=call, r=repeat: [call() for _ in range(r)]) / repeat for _ in range(rounds)
        ]
        found[f"{name}: time"] = statistics.median(taken) / n
    weights = memory.associate(queries[:100])
    found["support"] = weights.nnz / weights.shape[0]
    return found


def mapped(file, n, threads):
    """Open a saved memory through a map, in a process of its own, and report what is resident."""
    import sparsehopfield as sh

    sh.set_num_threads(threads)
    small = np.random.default_rng(1).random((2000, FEATURES), dtype=np.float32)
    sh.update(small, small)
    resources.reset_peak()
    before = {field: resources.process_memory(field) for field in ("VmRSS", "RssAnon", "RssFile")}
    memory = sh.HopfieldMemory.load(file, mmap=True)
    found = {"loading": {field: resources.process_memory(field) - size for field, size in before.items()}}
    queries = np.asarray(memory.patterns[:: max(1, len(memory) // n)][:n]) + np.float32(0.01)
    for words, count in (("1 query", 1), (f"{n} queries", n)):
        memory.update(queries[:count])
        found[words] = {field: resources.process_memory(field) - size for field, size in before.items()}
    return found


def child(what, **options):
    """Run one of the two above in a new process."""
    command = [sys.executable, __file__, "--child", json.dumps({"what": what, **options})]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"failed: {what} {options}")
    return json.loads(done.stdout.splitlines()[-1])


def exponent(rows, name, least):
    """Fit the slope of log(name) over log(patterns), from `least` patterns on; None where there is nothing."""
    kept = [r for r in rows if r["patterns"] >= least]
    slope = resources.exponent([r["patterns"] for r in kept], [r[name] for r in kept])
    return None if np.isnan(slope) else slope


def report_mapped(sh, table, arguments, m, n):
    """Save a memory of the largest size, and see what opening and asking it takes."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as room:
        file = f"{room}/memory"
        patterns, _ = draw("clustered", m, n)
        memory = sh.HopfieldMemory(patterns, BETA["clustered"], similarity="euclidean")
        memory.save(file)
        del memory
        found = child("mapped", file=file, n=20, threads=arguments.threads)
    for words, sizes in found.items():
        table.put(
            f"resident of {m:,} mapped patterns after {words}",
            f"{sizes['VmRSS'] / 2**20:.4g} MiB",
            "the patterns",
            f"{patterns.nbytes / 2**20:.4g} MiB",
            sizes["VmRSS"] / patterns.nbytes,
            "",
            None,
            f"of it {sizes['RssAnon'] / 2**20:.3g} MiB its own, {sizes['RssFile'] / 2**20:.4g} MiB of the file",
            sizes,
        )


def report_removal(sh, table, m):
    """Remove 1,000 patterns of a memory of the largest size one by one, and see how long each takes."""
    rng = np.random.default_rng(2)
    patterns, queries = draw("clustered", m, 1000)
    memory = sh.HopfieldMemory(patterns, BETA["clustered"], similarity="euclidean")
    memory.build_index()

    def update():
        return min(harness.seconds(lambda: memory.update(queries)) for _ in range(3))

    before = update()
    taken = [harness.seconds(lambda: memory.remove(int(rng.integers(len(memory))))) for _ in range(1000)]
    after, copying = update(), min(harness.seconds(lambda: np.delete(patterns, 0, axis=0)) for _ in range(3))
    median = statistics.median(taken)
    table.put(
        f"remove one of {m:,} patterns",
        f"{median * 1e3:.3g} ms",
        "a copy of the others",
        f"{copying * 1e3:.3g} ms",
        median / copying,
        "under 1 ms",
        median < 1e-3,
        f"1,000 in {sum(taken):.3g} s, the longest in {max(taken) * 1e3:.3g} ms; a step of 1,000 queries by the index "
        f"took {before * 1e3:.3g} ms before and {after * 1e3:.3g} ms after",
        {"median": median, "all": sum(taken), "longest": max(taken), "step before": before, "step after": after},
    )


def draw_figure(rows, exponents, folder):
    """Draw time and memory over the number of patterns, both logarithmic."""
    from sparsehopfield.inspect import plotting

    names = {"index": "sparse", "scan": "dense", "peak, index": "polynomial", "peak, scan": "entmax15"}
    plotting.STYLES.update({mine: plotting.STYLES[theirs] for mine, theirs in names.items()})

    def lines(family, quantities, unit):
        own = [r for r in rows if r["family"] == family]
        made = []
        for label, name in quantities.items():
            points = [(r["patterns"], r[name] * unit) for r in own if r[name] > 0]
            if points:
                made.append(plotting.Line(label, [m for m, _ in points], [v for _, v in points], [0.0] * len(points)))
        return made

    times = {"index": "index: time", "scan": "scan: time"}
    sizes = {"index": "index", "peak, index": "index: peak", "peak, scan": "scan: peak"}
    panels = [[], []]
    for family in BETA:
        slopes = ", ".join(f"{k} {v:.2f}" for k, v in exponents[family].items() if k in times and v is not None)
        panels[0].append(plotting.Panel(f"{family}: exponents {slopes}", lines(family, times, 1e6), "µs a query"))
        panels[1].append(plotting.Panel(family, lines(family, sizes, 2.0**-20), "MiB (index; peak of a call)"))
    figure = plotting.curves(panels, xlabel="stored patterns", title=f"One sparse step, {FEATURES} features", log=True)
    for axis in figure.axes:
        axis.set_yscale("log")
    folder.mkdir(parents=True, exist_ok=True)
    print("written to", ", ".join(map(str, plotting.save(figure, folder / "growth"))))


def main():
    """Measure, fit, draw."""

    def options(parser):
        parser.add_argument("--figures", type=Path, help="folder for the figure (none is drawn without)")
        parser.add_argument("--folder", help="room for a file of 0.6 GB (default: where temporary files go)")
        parser.add_argument("--child", help=argparse.SUPPRESS)

    arguments = harness.start(__doc__.splitlines()[0], options)
    if arguments.child:
        given = json.loads(arguments.child)
        print(json.dumps({"one_size": one_size, "mapped": mapped}[given.pop("what")](**given)))
        return
    import sparsehopfield as sh

    table = harness.Table(harness.set_up(arguments))
    n, least = (200, 1000) if arguments.quick else (1000, 10_000)
    sizes = [1000, 3000, 10_000, 20_000] if arguments.quick else [1000, 3000, 10_000, 30_000, 100_000, 300_000, 10**6]
    rows, exponents = [], {}
    for family in BETA:
        for m in sizes:
            row = child("one_size", family=family, m=m, n=n, rounds=arguments.rounds, threads=arguments.threads)
            rows.append(row)
            table.put(
                f"one step, {family}, {m:,} patterns",
                f"{row['index: time'] * 1e6:.4g} µs",
                "its scan, a query",
                f"{row['scan: time'] * 1e6:.4g} µs",
                row["index: time"] / row["scan: time"],
                "",
                None,
                f"index {row['index'] / 2**20:.3g} MiB, built in {row['index: building']:.3g} s; "
                f"peaks {row['index: peak'] / 2**20:.3g} and {row['scan: peak'] / 2**20:.3g} MiB; "
                f"support {row['support']:.3g}",
                row,
            )
        own = [r for r in rows if r["family"] == family]
        names = {"index": "index: time", "scan": "scan: time", "size of the index": "index"}
        exponents[family] = {k: exponent(own, v, least) for k, v in names.items()}
        words = ", ".join(f"{k} {v:.2f}" for k, v in exponents[family].items() if v is not None)
        print(f"exponents, {family}, from {least:,} patterns on: {words}")
    table.config["exponents"] = exponents
    report_mapped(sh, table, arguments, sizes[-1], n)
    report_removal(sh, table, sizes[-1])
    if arguments.figures:
        draw_figure(rows, exponents, arguments.figures)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
