"""One retrieval step on MNIST against one matrix product, torch and entmax: time and memory.

    python benchmarks/scan.py --data folder --output scan.json

"One sgemm" is np.matmul(q, X.T, out=o) in float32, in blocks of 2,000 queries into one reused o, by NumPy's
OpenBLAS. The 60,000 training images are stored, the 10,000 test images are the queries, grey levels from 0 to
1. Slow peers run on a part of the queries and their time is scaled to all of them, which the row says.
"""

import tempfile
from pathlib import Path

import harness
import numpy as np

MEMORY_BETAS = [10.0**e for e in (-6, -5, -4, -3, -2.5, -2, -1.5, -1, 0, 1, 2, 3, 4, 5, 6)]


def main():
    """Measure and print."""

    def options(parser):
        harness.data_option(parser)
        parser.add_argument("--only", choices=["time", "memory"], help="half of it")

    arguments = harness.start(__doc__.splitlines()[0], options)
    import sparsehopfield as sh

    table = harness.Table(harness.set_up(arguments))
    patterns, queries, name = harness.mnist(arguments)
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
    sgemm, out = harness.one_sgemm(patterns, queries), np.empty_like(queries)
    n, part = len(queries), min(len(queries), 200 if arguments.quick else 500)
    larger = min(n, 4 * part)

    def step(beta, separation="sparsemax"):
        return lambda: sh.update(queries, patterns, beta, separation=separation, out=out, check_finite=False)

    if torch:
        X, q = torch.from_numpy(patterns), torch.from_numpy(queries)

        def fused(beta, count):
            return harness.fused_attention(torch, q[:count], X, beta)

        def composed(beta, count):
            return harness.composed_step(entmax, q[:count], X, beta)

    for beta in (1.0, 0.1):
        contenders = {"ours": step(beta), "sgemm": sgemm}
        if torch:
            contenders["fused"] = harness.Contender(lambda beta=beta: fused(beta, larger), factor=n / larger)
        if torch and entmax:
            contenders["composed"] = harness.Contender(lambda beta=beta: composed(beta, part), factor=n / part)
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
        contenders["fused"] = harness.Contender(lambda: fused(1.0, larger), factor=n / larger)
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
        taken = {
            beta: harness.peak(
                folder,
                arguments.threads,
                f"memory = sh.HopfieldMemory(patterns, {beta!r})",
                "memory.update(queries, out=out)",
            )
            for beta in betas
        }
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
