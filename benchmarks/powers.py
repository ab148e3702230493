"""alpha-entmax of rows and by retrieval, by alpha and dtype: what its powers cost, against another build.

python benchmarks/powers.py --other PATH --output powers.json

PATH is the root of another tree, built in place. Both builds run in processes of their own, in turn, call by call.
Times are of the calling thread's processor, with one thread, and a ratio is that of the least times.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import harness

ALPHAS = (1.2, 1.3, 1.5, 1.7, 2.5, 3.0)
SERVE = "--serve"


def serve(quick):
    """Answer names of calls on standard input by the nanoseconds that they took."""
    import numpy as np

    import sparsehopfield as sh

    sh.set_num_threads(1)
    rng = np.random.default_rng(0)
    calls = {}
    for dtype in ("float32", "float64"):
        z = rng.standard_normal((20 if quick else 100, 1024)).astype(dtype)
        patterns = rng.standard_normal((4000, 64)).astype(dtype)
        queries = (patterns[:100] + rng.standard_normal((100, 64)) / 2).astype(dtype)
        for alpha in ALPHAS:
            calls[f"rows {dtype} {alpha}"] = lambda z=z, alpha=alpha: sh.entmax(z, alpha)
            memory = sh.HopfieldMemory(patterns, separation=sh.Entmax(alpha), beta=0.2)
            calls[f"retrieval {dtype} {alpha}"] = lambda memory=memory, queries=queries: memory.retrieve(queries)
            wide = sh.HopfieldMemory(patterns, separation=sh.Entmax(alpha), beta=0.02)
            calls[f"wide support {dtype} {alpha}"] = lambda memory=wide, queries=queries: memory.retrieve(
                queries[:20], max_steps=1, tol=1e9
            )
    # where powers need the most digits: equal scores whose weight is close to the middle of two doubles, tiny weights
    equal = np.zeros((20, 1000))
    calls["equal rows float64 1.85"] = lambda: sh.entmax(equal, 1.8524033216704683)
    for gaps in (690, 707), (709, 744):
        z = np.tile(np.r_[0, -np.linspace(*gaps, 1023)], (20, 1))
        calls[f"rows with gaps from {gaps[0]} float64 1.0001"] = lambda z=z: sh.entmax(z, 1.0001)
    print(json.dumps(list(calls)), flush=True)
    for line in sys.stdin:
        call = calls[line.strip()]
        start = time.thread_time_ns()
        call()
        print(time.thread_time_ns() - start, flush=True)


class Build:
    """One build of the package in a process of its own."""

    def __init__(self, tree, quick):
        """Start it."""
        environment = os.environ | {"PYTHONPATH": str(tree)}
        command = [sys.executable, __file__, SERVE, *["--quick"] * quick]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.names = json.loads(self.process.stdout.readline())

    def time(self, name):
        """Return the seconds of one call."""
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()) * 1e-9

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait()


def options(parser):
    """Add what this script alone takes."""
    parser.add_argument("--other", type=Path, help="root of another built tree")
    parser.add_argument("--only", default="", help="only work with this in its name")


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0], options)
    table = harness.Table(harness.set_up(arguments))
    builds = {"ours": Build(Path(__file__).parents[1], arguments.quick)}
    if arguments.other:
        builds["other"] = Build(arguments.other.resolve(), arguments.quick)
    for name in builds["ours"].names:
        if arguments.only not in name:
            continue
        times = {build: [] for build in builds}
        for _ in range(2 if arguments.quick else 6 * arguments.rounds):
            for build, process in builds.items():
                times[build].append(process.time(name))
        least = {build: [min(t)] for build, t in times.items()}
        table.add(f"entmax, {name}", least["ours"], "the other build", least.get("other"), at_most=1.1)
    for process in builds.values():
        process.close()
    table.finish(arguments.output)


if __name__ == "__main__":
    if SERVE in sys.argv:
        serve("--quick" in sys.argv)
    else:
        main()
