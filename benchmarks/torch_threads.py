"""PyTorch's threads and the core's own: what sharing PyTorch's saves where its operations alternate with ours.

python benchmarks/torch_threads.py --output torch_threads.json

"Shared" is what `import sparsehopfield.torch` begins: jobs go to PyTorch's threads of OpenMP while these are awake.
"Own" are the core's threads alone. Both alternate in one process, once as OpenMP's threads wait by default (they spin),
once with OMP_WAIT_POLICY=passive (they sleep at once); and both once more beside a process that keeps a processor busy.
Time of processors counts all threads of the process, spinning, too.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import warnings

import harness
import numpy as np

MEASURE = "SPARSEHOPFIELD_BENCHMARK_MEASURE"  # set where one policy is measured
PAUSED = ", after 30 ms of rest"
STEPS = 6  # in a row under one kind of threads; the first two do not count
BUSY = "x = 0\nwhile True: x += 1"


def training(torch, quick):
    """Return a training step of a small network: PyTorch's operations around an association of self with self."""
    from sparsehopfield.torch import associate

    torch.manual_seed(0)
    samples, rows, heads, d = (2, 64, 4, 64) if quick else (16, 256, 4, 64)
    net = torch.nn.ModuleDict(
        {"norm": torch.nn.LayerNorm(d), "projections": torch.nn.Linear(d, 3 * d), "output": torch.nn.Linear(d, d)}
    )
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    x, target = torch.randn(samples, rows, d), torch.randn(samples, rows, d)

    def step():
        q, k, v = (t.reshape(samples, rows, heads, -1) for t in net["projections"](net["norm"](x)).split(d, -1))
        found = torch.nn.functional.gelu(associate(q, k, v, 1.0).reshape(samples, rows, d))
        ((net["output"](found) - target) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def memories(torch, quick):
    """Return calls on memories: after an operation of PyTorch, by itself, and a short one."""
    import sparsehopfield as sh

    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((2_000 if quick else 100_000, 64), dtype=np.float32)
    queries = patterns[:1000] + 0.3 * rng.standard_normal((1000, 64), dtype=np.float32)
    tensor = torch.from_numpy(rng.standard_normal((512, 512), dtype=np.float32))
    large, small = sh.HopfieldMemory(patterns, 0.5), sh.HopfieldMemory(patterns[:2000], 0.5)

    def after_an_operation():
        tensor.softmax(-1)
        large.update(queries[:200])

    return {
        f"{len(patterns)} x 64, an operation, 200 queries": after_an_operation,
        f"{len(patterns)} x 64, retrieve of 1,000 queries": lambda: large.retrieve(queries),
        "2000 x 64, 100 queries" + PAUSED: lambda: small.update(queries[:100]),
    }


def measure(arguments):
    """Time all calls under both kinds of threads, alternately; print lists of (wall, processors) in seconds."""
    import torch

    import sparsehopfield as sh
    from sparsehopfield import _core
    from sparsehopfield.torch._threads import share_threads

    torch.set_num_threads(arguments.threads)
    sh.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", sh.RetrievalWarning)
    kinds = {"shared": share_threads, "own": lambda: _core.share_openmp(0, 0, 0)}
    calls = {"training step, 16 x 256 x 64": training(torch, arguments.quick), **memories(torch, arguments.quick)}
    times = {}
    for load in ("", ", beside a busy process"):
        busy = subprocess.Popen([sys.executable, "-c", BUSY]) if load else None
        try:
            for name, call in calls.items():
                found = times[name + load] = {kind: [] for kind in kinds}
                for round_ in range(arguments.rounds + 1):
                    for kind, begin in kinds.items():
                        begin()
                        for i in range(STEPS):
                            time.sleep(0.03 if PAUSED in name else 0)
                            before = time.perf_counter(), time.process_time()
                            call()
                            after = time.perf_counter(), time.process_time()
                            if i >= 2 and round_:
                                found[kind].append([b - a for a, b in zip(before, after, strict=True)])
        finally:
            if busy:
                busy.kill()
                busy.wait()
    print(json.dumps(times))


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0])
    if MEASURE in os.environ:
        measure(arguments)
        return
    table = harness.Table(harness.set_up(arguments))
    for policy in ("", "passive"):
        environment = {**os.environ, MEASURE: "1"} | ({"OMP_WAIT_POLICY": policy} if policy else {})
        done = subprocess.run(
            [sys.executable, *sys.argv], env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        for name, found in json.loads(done.stdout.splitlines()[-1]).items():
            for what, at in (("wall", 0), ("processors", 1)):
                ours, own = ([t[at] for t in found[kind]] for kind in ("shared", "own"))
                table.put(
                    f"{name}, {what}",
                    f"{statistics.median(ours) * 1e3:.3g} ms",
                    f"own threads{', OpenMP passive' if policy else ''}",
                    f"{statistics.median(own) * 1e3:.3g} ms",
                    statistics.median(ours) / statistics.median(own),
                    "",
                    None,
                    f"least {min(ours) * 1e3:.3g} / {min(own) * 1e3:.3g}, mean "
                    f"{statistics.mean(ours) * 1e3:.3g} / {statistics.mean(own) * 1e3:.3g}",
                    {"ours": ours, "theirs": own},
                )
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
