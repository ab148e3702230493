"""What the benchmark scripts share: a clean child process, data, peers, interleaved repetitions, memory, a table.

Times are medians of several rounds. In a round every contender runs once, one after the other, and a ratio
is the median of the rounds' ratios: a machine that slows down for a while slows all of them down.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

CHILD = "SPARSEHOPFIELD_BENCHMARK_CHILD"
# Left in the environment, these would choose BLAS kernels other than those the processor is best at.
REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def start(description, add_options=None):
    """Read the command line; run again in a clean child process, and only there return the arguments."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs; no targets")
    parser.add_argument("--rounds", type=int, help="repetitions of everything (default 5, quick 2)")
    parser.add_argument("--threads", type=int, default=2, help="threads for everybody (default 2)")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    parser.add_argument("--as-found", action="store_true", help=f"leave {' and '.join(REMOVED)} as they are")
    if add_options:
        add_options(parser)
    arguments = parser.parse_args()
    if CHILD not in os.environ:
        environment = {k: v for k, v in os.environ.items() if arguments.as_found or k not in REMOVED}
        environment[CHILD] = "1"
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 5)
    return arguments


def peer(name):
    """Import another package, or say that it is not there."""
    try:
        return import_module(name)
    except ImportError:
        print(f"{name} is not installed: its rows are left out")
        return None


def set_up(arguments):
    """Give everybody the same number of threads, and print and return what is being measured."""
    import threadpoolctl

    import sparsehopfield as sh

    sh.set_num_threads(arguments.threads)
    limits = threadpoolctl.threadpool_limits(arguments.threads, user_api="blas")
    sh.set_num_threads(arguments.threads)
    torch = peer("torch")
    if torch:
        torch.set_num_threads(arguments.threads)
    libraries = [p for p in threadpoolctl.threadpool_info() if p["internal_api"] == "openblas"]
    config = {
        "sparsehopfield": sh.show_config(mode="dict"),
        "openblas": [{k: p.get(k) for k in ("prefix", "version", "architecture", "num_threads")} for p in libraries],
        "torch": torch.__version__ if torch else None,
        "processor": processor(),
        "as_found": arguments.as_found,
        "quick": arguments.quick,
        "rounds": arguments.rounds,
    }
    sh.show_config()
    print(f"processor        {config['processor']}")
    for p in config["openblas"]:
        print(f"an OpenBLAS      {p['prefix']} {p['version']}, kernels {p['architecture']}, {p['num_threads']} threads")
    print(f"torch            {config['torch']}\n", flush=True)
    config["limits"] = limits  # holds as long as it lives
    return config


def processor():
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x {len(names)}" if names else platform.processor()


def clocked(call):
    """Time one call, once the threads of whoever ran before have stopped spinning (libgomp's do for a while).

    Return the seconds on the wall's clock, and those of the processor, of all threads together.
    """
    time.sleep(0.02)
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def seconds(call):
    """Time one call by the clock on the wall."""
    return clocked(call)[0]


@dataclass
class Contender:
    """What is timed: `run`, which gets what `prepare` gave, if there is one; that is not timed.

    The time is multiplied by the factor, for one that runs on a part. `processor` has the processor time of every run.
    """

    run: Callable[..., Any]
    prepare: Callable[[], Any] | None = None
    factor: float = 1.0
    processor: list[float] = field(default_factory=list)

    def seconds(self):
        """Time one run."""
        call = self.run if self.prepare is None else partial(self.run, self.prepare())
        wall, processor = clocked(call)
        self.processor.append(processor * self.factor)
        return wall * self.factor


def interleaved(contenders, rounds):
    """Time contenders or callables side by side: name -> list of seconds, one a round, after one that does not count.

    Those that are None are left out.
    """
    contenders = {k: v if hasattr(v, "seconds") else Contender(v) for k, v in contenders.items() if v is not None}
    times = {name: [] for name in contenders}
    for count in range(rounds + 1):
        for name, contender in contenders.items():
            taken = contender.seconds()
            if count:
                times[name].append(taken)
    return times


# --- data and peers -------------------------------------------------------------------------------


def data_option(parser):
    """Add the option for the folder of the data sets."""
    parser.add_argument("--data", help="folder of the data sets (or SPARSEHOPFIELD_DATA)")


def groups_option(parser, groups):
    """Add the option for single groups of rows, from their functions by name."""
    words = "; ".join(f"{name}: {f.__doc__.splitlines()[0]}" for name, f in groups.items())
    parser.add_argument("--only", nargs="+", choices=groups, metavar="GROUP", help=words)


def data_folder(arguments):
    """Give the folder of the data sets; FileNotFoundError where none was named."""
    root = arguments.data or os.environ.get("SPARSEHOPFIELD_DATA")
    if not root:
        raise FileNotFoundError("no --data and no SPARSEHOPFIELD_DATA")
    return root


def mnist(arguments):
    """Give patterns (60,000), queries (10,000), and a word on what they are; fewer if it is to be quick."""
    from sparsehopfield.data import datasets

    m, n = (3000, 500) if arguments.quick else (60_000, 10_000)
    try:
        images = [datasets.load_mnist(data_folder(arguments), split) for split in ("train", "test")]
    except FileNotFoundError as error:
        print(
            f"NOTE: random numbers of MNIST's shape instead of MNIST ({error}).\n"
            "      Supports, and so times, are not those of images.\n"
        )
        rng = np.random.default_rng(0)
        patterns = rng.random((m, 784), dtype=np.float32)
        queries = patterns[rng.integers(m, size=n)] * (rng.random((n, 784), dtype=np.float32) < 0.5)
        return patterns, queries.astype(np.float32), "random data"
    return images[0].pixels(slice(m)), images[1].pixels(slice(n)), "MNIST"


def one_sgemm(patterns, queries):
    """Give the product that everything is compared with: blocks of 2,000 queries into one reused output."""
    block = 2000
    o = np.empty((min(block, len(queries)), len(patterns)), np.float32)

    def run():
        for i in range(0, len(queries), block):
            q = queries[i : i + block]
            np.matmul(q, patterns.T, out=o[: len(q)])

    return run


def fused_attention(torch, queries, patterns, beta):
    """One dense update by torch's fused softmax attention."""
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(queries[None, None], patterns[None, None], patterns[None, None], scale=beta)[0, 0]


def composed_step(entmax, queries, patterns, beta, k=None):
    """One sparse update by torch and entmax: product, map (sorting all, or the best k first), product."""
    return entmax.sparsemax(beta * (queries @ patterns.T), dim=-1, k=k) @ patterns


# --- memory ---------------------------------------------------------------------------------------

MEMORY = """
import json, sys
import numpy as np
import sparsehopfield as sh
from sparsehopfield import _resources
folder, threads, setup, call = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
sh.set_num_threads(threads)
if folder:
    patterns, queries = np.load(folder + "/patterns.npy"), np.load(folder + "/queries.npy")
    out = np.zeros_like(queries)
    out += 1  # its pages are there
memory = None
small = np.random.default_rng(0).random((2000, 784), dtype=np.float32)
for b in (1.0, 1e-3):  # libraries, threads and their buffers
    sh.update(small[:512], small, b)
exec(setup)
def index_nbytes():
    return 0 if memory is None else memory.index_nbytes

index = index_nbytes()
beyond = _resources.peak(lambda: exec(call, globals()))
print(json.dumps({"beyond": beyond, "index": index_nbytes() - index}))
"""


def peak(folder, threads, setup, call):
    """Peak memory of a call beyond what was there before it, less what its index grew by, in a new process: MiB.

    Parameters
    ----------
    folder : str
        Has patterns.npy and queries.npy; or "".
    threads : int
        For the call.
    setup : str
        Python that makes `memory` from `patterns`, or whatever else `call` needs; `queries`, and `out` like them, are
        there, too.
    call : str
        Python to measure. Where the peak could not be set back, an earlier one counts against it.
    """
    command = [sys.executable, "-c", MEMORY, folder, str(threads), setup, call]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"the process that measures memory failed: {call}")
    found = json.loads(done.stdout)
    return (found["beyond"] - found["index"]) / 2**20


# --- the table ------------------------------------------------------------------------------------


class Table:
    """The rows: what was done, our time, the peer's, their ratio, and what it was to reach."""

    def __init__(self, config):
        self.config, self.rows = config, []

    def add(self, work, ours, peer_name, theirs, *, faster=None, at_most=None, aim=None, note=""):
        """Compare lists of seconds; the target is how many times faster, or the largest share of its time.

        `aim` is what is hoped for beyond the target, in the same unit. Without either target the row only informs.
        """
        target, ratio, met, aim_met = faster or at_most, None, None, None
        if theirs is not None:
            shares = [a / b for a, b in zip(ours, theirs, strict=True)]
            ratio = statistics.median([1 / s for s in shares] if faster else shares)
            if target:
                met = ratio >= target if faster else ratio <= target
            if aim:
                aim_met = ratio >= aim if faster else ratio <= aim
        words = f"{target:g} x faster" if faster else f"{target:g} of its time" if target else ""
        self.put(
            work,
            f"{statistics.median(ours):.4g} s",
            peer_name,
            "not there" if theirs is None else f"{statistics.median(theirs):.4g} s",
            ratio,
            words,
            met,
            note,
            {"ours": ours, "theirs": theirs},
            aim,
            aim_met,
        )

    def put(self, work, ours, peer_name, theirs, ratio, target, met, note="", measured=None, aim=None, aim_met=None):
        """Add a row as it is."""
        met, aim_met = (None if self.config["quick"] or m is None else bool(m) for m in (met, aim_met))
        self.rows.append(
            {
                "work": work,
                "ours_shown": ours,
                "peer": peer_name,
                "theirs_shown": theirs,
                "ratio": ratio,
                "target": target,
                "aim": aim,
                "met": met,
                "aim_met": aim_met,
                "note": note,
                "measured": measured,
            }
        )
        self.show(self.rows[-1:], head=len(self.rows) == 1)

    def show(self, rows, head=True):
        """Print rows."""
        if head:
            names = f"{'work':<52} {'ours':>10}  {'peer':<40} {'its':>10} {'ratio':>8}"
            print(f"{names}  {'must':<16} {'aim':<6} met?")
        for r in rows:
            ratio = "" if r["ratio"] is None else f"{r['ratio']:.3g}"
            aim = "" if r["aim"] is None else f"{r['aim']:g}"
            met = {None: "-", True: "yes", False: "NO"}[r["met"]] + (", the aim too" if r["aim_met"] else "")
            print(
                f"{r['work']:<52} {r['ours_shown']:>10}  {r['peer']:<40} {r['theirs_shown']:>10} {ratio:>8}  "
                f"{r['target']:<16} {aim:<6} {met}  {r['note']}",
                flush=True,
            )

    def finish(self, output):
        """Write the JSON file, if one is wanted."""
        missed = [r["work"] + " / " + r["peer"] for r in self.rows if r["met"] is False]
        if self.config["quick"]:
            print("\nsizes too small to judge by")
        else:
            print(f"\n{len(missed)} targets missed: {'; '.join(missed)}" if missed else "\nno target missed")
        if output:
            config = {k: v for k, v in self.config.items() if k != "limits"}
            from sparsehopfield._engine.atomic_files import atomic_write

            with atomic_write(output) as file:
                file.write(json.dumps({"config": config, "rows": self.rows}, indent=1).encode())
            print(f"written to {output}")
