"""What the benchmark scripts share: a clean child process, interleaved repetitions, a table and a JSON file.

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
from importlib import import_module
from pathlib import Path

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


def seconds(call):
    """Time one call, once the threads of whoever ran before have stopped spinning (libgomp's do for a while)."""
    time.sleep(0.02)
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def interleaved(contenders, rounds):
    """Time callables side by side: name -> list of seconds, one a round, after one round that does not count.

    A contender may be (callable, factor): its time is multiplied by the factor, for one that runs on a part.
    """
    contenders = {k: v if isinstance(v, tuple) else (v, 1.0) for k, v in contenders.items() if v is not None}
    times = {name: [] for name in contenders}
    for count in range(rounds + 1):
        for name, (call, factor) in contenders.items():
            taken = seconds(call) * factor
            if count:
                times[name].append(taken)
    return times


class Table:
    """The rows: what was done, our time, the peer's, their ratio, and what it was to reach."""

    def __init__(self, config):
        self.config, self.rows = config, []

    def add(self, work, ours, peer_name, theirs, *, faster=None, at_most=None, note=""):
        """Compare lists of seconds; the target is how many times faster, or the largest share of its time."""
        if theirs is None:
            ratio, met, target = None, None, faster or at_most
        else:
            shares = [a / b for a, b in zip(ours, theirs, strict=True)]
            ratio = statistics.median([1 / s for s in shares] if faster else shares)
            target = faster or at_most
            met = ratio >= faster if faster else ratio <= at_most
        words = f"{target:g} x faster" if faster else f"{target:g} of its time"
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
        )

    def put(self, work, ours, peer_name, theirs, ratio, target, met, note="", measured=None):
        """Add a row as it is."""
        met = None if self.config["quick"] else met
        self.rows.append(
            {
                "work": work,
                "ours_shown": ours,
                "peer": peer_name,
                "theirs_shown": theirs,
                "ratio": ratio,
                "target": target,
                "met": None if met is None else bool(met),
                "note": note,
                "measured": measured,
            }
        )
        self.show(self.rows[-1:], head=len(self.rows) == 1)

    def show(self, rows, head=True):
        """Print rows."""
        if head:
            print(f"{'work':<46} {'ours':>10}  {'peer':<36} {'its':>10} {'ratio':>8}  {'to reach':<16} met?")
        for r in rows:
            ratio = "" if r["ratio"] is None else f"{r['ratio']:.3g}"
            met = {None: "-", True: "yes", False: "NO"}[r["met"]]
            print(
                f"{r['work']:<46} {r['ours_shown']:>10}  {r['peer']:<36} {r['theirs_shown']:>10} {ratio:>8}  "
                f"{r['target']:<16} {met}  {r['note']}",
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
            output.write_text(json.dumps({"config": config, "rows": self.rows}, indent=1))
            print(f"written to {output}")
