"""One retrieval step on MNIST against one matrix product, torch and entmax: time and memory.

    python benchmarks/scan.py --data folder --output scan.json

"One sgemm" is np.matmul(q, X.T, out=o) in float32, in blocks of 2,000 queries into one reused o, by NumPy's
OpenBLAS. The 60,000 training images are stored, the 10,000 test images are the queries, grey levels from 0 to
1. Slow peers run on a part of the queries and their time is scaled to all of them, which the row says.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import numpy as np

MEMORY_BETAS = [10.0**e for e in (-6, -5, -4, -3, -2.5, -2, -1.5, -1, 0, 1, 2, 3, 4, 5, 6)]


def load(arguments):
    """Give patterns, queries, and a word on what they are."""
    from sparsehopfield import datasets

    root = arguments.data or os.environ.get("SPARSEHOPFIELD_DATA")
    m, n = (3000, 500) if arguments.quick else (60_000, 10_000)
    try:
        if not root:
            raise FileNotFoundError("no --data and no SPARSEHOPFIELD_DATA")
        images = [datasets.load_mnist(root, split).images for split in ("train", "test")]
    except FileNotFoundError as error:
        print(
            f"NOTE: random numbers of MNIST's shape instead of MNIST ({error}).\n"
            "      Supports, and so times, are not those of images.\n"
        )
        rng = np.random.default_rng(0)
        patterns = rng.random((m, 784), dtype=np.float32)
        queries = patterns[rng.integers(m, size=n)] * (rng.random((n, 784), dtype=np.float32) < 0.5)
        return patterns, queries.astype(np.float32), "random data"
    patterns, queries = ((i.astype(np.float32) / np.float32(255) if i.dtype == np.uint8 else i) for i in images)
    return np.ascontiguousarray(patterns[:m]), np.ascontiguousarray(queries[:n]), "MNIST"


def one_sgemm(patterns, queries):
    """Give the product that everything is compared with."""
    block = 2000
    o = np.empty((min(block, len(queries)), len(patterns)), np.float32)

    def run():
        for i in range(0, len(queries), block):
            q = queries[i : i + block]
            np.matmul(q, patterns.T, out=o[: len(q)])

    return run


CHILD = """
import ctypes, json, sys
import numpy as np
import sparsehopfield as sh
folder, beta, threads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
sh.set_num_threads(threads)
patterns, queries = np.load(folder + "/patterns.npy"), np.load(folder + "/queries.npy")
out = np.zeros_like(queries)
out += 1  # its pages are there
memory = sh.HopfieldMemory(patterns, beta)
rng = np.random.default_rng(0)
small = rng.random((2000, 784), dtype=np.float32)
for b in (1.0, 1e-3):  # libraries, threads and their buffers
    sh.update(small[:512], small, b)
try:
    ctypes.CDLL(None).malloc_trim(0)  # what the warm-up freed must not be there for the call to take
except AttributeError:
    pass

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))

try:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
except OSError:
    pass
before = {"peak": peak(), "resident": resident()}
memory.update(queries, out=out)
print(json.dumps({"before": before, "peak": peak()}))
"""


def growth(folder, beta, threads):
    """Peak memory of one update beyond what its inputs and outputs had taken, in a fresh process: MiB."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, folder, repr(beta), str(threads)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    # Where the peak could not be set back, an earlier one counts against us.
    return (found["peak"] - found["before"]["resident"]) / 2**20


def main():
    """Measure and print."""

    def options(parser):
        parser.add_argument("--data", help="folder of MNIST's files (or SPARSEHOPFIELD_DATA)")
        parser.add_argument("--only", choices=["time", "memory"], help="half of it")

    arguments = harness.start(__doc__.splitlines()[0], options)
    import sparsehopfield as sh

    table = harness.Table(harness.set_up(arguments))
    patterns, queries, name = load(arguments)
    size = f"{name} {len(patterns):,} x {len(queries):,}"
    table.config["data"] = size
    if arguments.only != "memory":
        measure_time(sh, table, arguments, patterns, queries, size)
    if arguments.only != "time" and Path("/proc/self/status").exists():
        measure_memory(table, arguments, patterns, queries, size)
    table.finish(arguments.output)


def measure_time(sh, table, arguments, patterns, queries, size):
    """Compare one step at several temperatures."""
    torch, entmax = harness.peer("torch"), harness.peer("entmax")
    sgemm, out = one_sgemm(patterns, queries), np.empty_like(queries)
    n, part = len(queries), min(len(queries), 200 if arguments.quick else 500)
    larger = min(n, 4 * part)

    def step(beta, separation="sparsemax"):
        return lambda: sh.update(queries, patterns, beta, separation=separation, out=out, check_finite=False)

    if torch:
        X, q = torch.from_numpy(patterns), torch.from_numpy(queries)

        def fused(beta, count):
            attention = torch.nn.functional.scaled_dot_product_attention
            return attention(q[None, None, :count], X[None, None], X[None, None], scale=beta)[0, 0]

        def composed(beta, count):
            return entmax.sparsemax(beta * (q[:count] @ X.T), dim=-1) @ X

    for beta in (1.0, 0.1):
        contenders = {"ours": step(beta), "sgemm": sgemm}
        if torch:
            contenders["fused"] = (lambda beta=beta: fused(beta, larger), n / larger)
        if torch and entmax:
            contenders["composed"] = (lambda beta=beta: composed(beta, part), n / part)
        times = harness.interleaved(contenders, arguments.rounds)
        if torch and entmax:
            step(beta)()
            off = np.abs(out[:part] - composed(beta, part).numpy()).max()
            assert off < 1e-2, f"torch + entmax computes something else: {off}"
        work = f"sparse update, {size}, beta {beta:g}"
        table.add(work, times["ours"], "one sgemm", times["sgemm"], at_most=1.10)
        table.add(
            work,
            times["ours"],
            "torch matmul + entmax.sparsemax + matmul",
            times.get("composed"),
            faster=20,
            note=f"peer: {part:,} queries, scaled",
        )
        table.add(
            work,
            times["ours"],
            "torch fused softmax attention",
            times.get("fused"),
            faster=4,
            note=f"peer: {larger:,} queries, scaled",
        )
    times = harness.interleaved({"ours": step(1e-6), "sgemm": sgemm}, max(1, arguments.rounds // 2))
    table.add(f"sparse update, {size}, beta 1e-6", times["ours"], "one sgemm", times["sgemm"], at_most=8)

    contenders = {"ours": step(1.0, "softmax")}
    if torch:
        contenders["fused"] = (lambda: fused(1.0, larger), n / larger)
    times = harness.interleaved(contenders, arguments.rounds)
    if torch:
        off = np.abs(out[:larger] - fused(1.0, larger).numpy()).max()
        assert off < 1e-3, f"torch's attention computes something else: {off}"
    table.add(
        f"dense (softmax) update, {size}, beta 1",
        times["ours"],
        "torch fused softmax attention",
        times.get("fused"),
        faster=1.6,
        note=f"peer: {larger:,} queries, scaled",
    )


def measure_memory(table, arguments, patterns, queries, size):
    """Measure the peak of one update, each in a fresh process."""
    betas = [1e-6, 1.0] if arguments.quick else MEMORY_BETAS
    allowed = 64 + 4 * arguments.threads
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/patterns.npy", patterns)
        np.save(f"{folder}/queries.npy", queries)
        taken = {beta: growth(folder, beta, arguments.threads) for beta in betas}
    worst = max(taken, key=taken.get)
    table.put(
        f"memory of an update, {size}",
        f"{taken[worst]:.3g} MiB",
        f"worst of beta 1e-6 to 1e6: {worst:.3g}",
        "",
        None,
        f"at most {allowed} MiB",
        taken[worst] <= allowed,
        measured={"MiB by beta": {f"{b:.3g}": round(g, 2) for b, g in taken.items()}},
    )


if __name__ == "__main__":
    main()
