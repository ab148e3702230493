"""Builds of this package beside one another: an old one and a new one, or one of GCC and one of Clang.

    python benchmarks/builds.py old/checkout new/checkout another/checkout --output builds.json

Each checkout has its core compiled in place (`pip install -e .` or `python setup.py build_ext --inplace` in it). Every
build has a process of its own that lives as long as the benchmark. In a round every process does a piece of work, one
after the other, and the order changes from round to round. What is compared is the processor time of one thread; the
table shows the median of each build and the median of the rounds' ratios to the first build.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def rows():
    """Return pieces of work by name: functions of no argument, of some 0.1 to 100 ms each."""
    import sparsehopfield as sh
    from sparsehopfield.layers import HopfieldPooling, SparseHopfield

    sh.set_num_threads(1)
    rng = np.random.default_rng(0)
    work = {}

    eight = rng.normal(size=8)
    work["sparsemax of 8 numbers, 1,000 times"] = lambda: [sh.sparsemax(eight) for _ in range(1000)]
    scores = rng.normal(size=(256, 1024)).astype(np.float32)
    for name, function in {
        "softmax": sh.softmax,
        "sparsemax": sh.sparsemax,
        "entmax 1.2": lambda z: sh.entmax(z, alpha=1.2),
        "entmax 1.5": lambda z: sh.entmax(z, alpha=1.5),
        "entmax 1.7": lambda z: sh.entmax(z, alpha=1.7),
        "entmax 3": lambda z: sh.entmax(z, alpha=3),
    }.items():
        work[f"{name} of 256 x 1024 float32"] = lambda function=function: function(scores)
        work[f"{name} of 64 x 1024 float64"] = lambda function=function: function(scores[:64].astype(np.float64))

    directions = rng.normal(size=(24, 256))
    patterns = rng.normal(size=(20000, 24)) @ directions + 0.3 * rng.normal(size=(20000, 256))
    for type_ in (np.float32, np.float64):
        x = patterns.astype(type_)
        queries = (x[:200] + 0.5 * rng.normal(size=(200, 256))).astype(type_)
        for similarity in ("dot", "euclidean"):
            for index in (False, True):
                memory = sh.HopfieldMemory(x, similarity=similarity, beta=0.5, index=index)
                memory.update(queries)  # builds the index
                name = f"update, {similarity}, {np.dtype(type_).name}, {'index' if index else 'scan'}"
                work[name] = lambda memory=memory, queries=queries: memory.update(queries)
        for name, separation, beta in (("softmax", "softmax", 0.01), ("entmax 1.3", sh.Entmax(1.3), 0.5)):
            memory = sh.HopfieldMemory(x, separation=separation, beta=beta)
            memory.update(queries)
            work[f"update, {name}, {np.dtype(type_).name}"] = lambda memory=memory, queries=queries: memory.update(
                queries
            )
    few = sh.HopfieldMemory(patterns[:2000].astype(np.float32), beta=0.5)
    one = patterns[0].astype(np.float32)
    work["update of one query in 2,000 x 256, 20 times"] = lambda: [few.update(one) for _ in range(20)]

    bags = rng.normal(size=(32, 16, 32)).astype(np.float32)
    for name, layer in {
        "SparseHopfield": SparseHopfield(32, num_heads=4, random_state=0),
        "HopfieldPooling": HopfieldPooling(32, num_heads=4, random_state=0),
    }.items():

        def step(layer=layer):
            out = layer(bags)
            layer.backward(np.ones_like(out))

        work[f"{name} forward and backward, 32 x 16 x 32"] = step
    return work


def serve():
    """Answer each name of work that comes in with the processor time that it took; first of all the names."""
    work = rows()
    print(json.dumps(list(work)), flush=True)
    for line in sys.stdin:
        function = work[json.loads(line)]
        began = time.thread_time()
        function()
        print(time.thread_time() - began, flush=True)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("builds", nargs="+", type=Path, help="checkouts, the first of which is the measure")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names of what is measured")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    processes = []
    for build in arguments.builds:
        environment = os.environ | {"PYTHONPATH": str(build.resolve()), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--serve"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **pipes))
    names, *_ = [json.loads(process.stdout.readline()) for process in processes]

    def ask(process, name):
        print(json.dumps(name), file=process.stdin, flush=True)
        return float(process.stdout.readline())

    table = []
    for name in names:
        if not any(part in name for part in arguments.only):
            continue
        times = [[] for _ in processes]
        for _ in range(arguments.rounds):
            for i in random.sample(range(len(processes)), len(processes)):
                times[i].append(ask(processes[i], name))
        ratios = [statistics.median(t / first for t, first in zip(build, times[0], strict=True)) for build in times]
        table.append({"work": name, "ms": [1e3 * statistics.median(t) for t in times], "ratio": ratios})
        row = "   ".join(f"{ms:9.3f} ms  {r:5.2f}" for ms, r in zip(table[-1]["ms"], ratios, strict=True))
        print(f"{name:52} {row}", flush=True)
    for i in range(1, len(processes)):
        each = [row["ratio"][i] for row in table]
        print(
            f"{arguments.builds[i]}: {statistics.geometric_mean(each):.3f} of the first in the geometric mean, "
            f"{min(each):.2f} to {max(each):.2f}"
        )
    for process in processes:
        process.stdin.close()
        process.wait()
    if arguments.output:
        arguments.output.write_text(json.dumps({"builds": [str(b) for b in arguments.builds], "rows": table}, indent=1))


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
