"""Calls of a sharded memory while its worker processes are killed: what is answered right, and what is not.

    python benchmarks/killed_workers.py --trials 50 --output killed.json

A local cluster of worker processes holds the patterns of three mapped .npy files. In each trial one call is made, and
at a random moment of it a random worker is killed (SIGKILL). Kinds of calls take turns: updates and retrievals with few
and with all patterns in the support, of the k best, energies, weights, margins, copies, explanations, adding, removing,
saving, making a memory. Moments are drawn from the time that the call took undisturbed; a kill that came after the call
had ended is counted apart, and tried again. The result is compared, bit by bit, with the one that the same calls gave
before any kill, which for maps with a cutoff is compared with the one of a HopfieldMemory of all rows. Outcomes:

    right      the call returned these bits
    raised     it raised an error that says what happened: RuntimeError, naming the argument
    wrong      it returned anything else (must be 0)
    unclear    it raised anything else (must be 0)
    hung       it did not return within --patience seconds (must be 0; the script ends there)

After each call the scheduler must be idle within a few seconds: `busy` counts the trials where it was not (must be 0).
A change (add, remove) that raised must have changed nothing.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import sparsehopfield as sh
from sparsehopfield.distributed import ShardedMemory

OUTCOMES = ("right", "raised", "wrong", "unclear", "hung")
FEATURES, BETA = 16, {"few": 4.0, "all": 0.05}
IDLE_WITHIN = 30.0  # seconds; on a busy machine a new worker needs some to start, and a task some to end
SETTLED_AFTER = 2.0  # seconds that a worker needs to start


@dataclass(frozen=True)
class Kind:
    """A call that is tried: what it gives of a memory, and the model that it is made under."""

    call: Callable[[Any, "Data"], Any]
    separation: Any = "sparsemax"
    beta: float = BETA["few"]
    structure: Any = None
    same_as_one: bool = True  # whether a HopfieldMemory of all rows gives the same bits


@dataclass(frozen=True)
class Data:
    """Patterns, the files they lie in, queries, and a folder for what is saved."""

    patterns: Any
    paths: list[str]
    queries: Any
    folder: str

    @classmethod
    def drawn(cls, m: int, n: int, folder: str) -> "Data":
        """Draw m patterns, in three files, and n queries, and some copies, so that there are some to find."""
        rng = np.random.default_rng(0)
        patterns = rng.standard_normal((m, FEATURES), dtype=np.float32)
        patterns[m - 50 :] = patterns[:50]
        queries = patterns[rng.integers(m, size=n)] + np.float32(0.4) * rng.standard_normal((n, FEATURES), np.float32)
        paths = []
        for i, rows in enumerate(np.split(patterns, [m // 3, m // 2])):
            paths.append(os.path.join(folder, f"patterns-{i}.npy"))
            np.save(paths[-1], rows)
        return cls(patterns, paths, queries, folder)


def _saved(memory: Any, data: Data) -> Any:
    """Save, and return the patterns of the files that the manifest names; of one memory its patterns."""
    if isinstance(memory, sh.HopfieldMemory):
        return memory.patterns
    folder = Path(data.folder, "saved")
    memory.save(folder)
    names = [entry["name"] for entry in json.loads((folder / "manifest.json").read_text())["files"]]
    return np.concatenate([sh.HopfieldMemory.load(folder / name).patterns for name in names])


def _made(memory: Any, data: Data) -> Any:
    """Make another memory of the same files, and return what it answers."""
    if isinstance(memory, ShardedMemory):
        other: Any = ShardedMemory(
            data.paths, memory.beta, similarity="euclidean", shards=5, client=memory.engine.client
        )
    else:
        other = sh.HopfieldMemory(data.patterns, memory.beta, similarity="euclidean")
    return other.update(data.queries[:10])


def _added(memory: Any, data: Data) -> Any:
    """Add rows that are in the middle of others, and take them away again at the end of the trial (see `restored`)."""
    return memory.add(data.queries[:100] + 1)


def _removed(memory: Any, data: Data) -> Any:
    """Remove every 50th row."""
    memory.remove(slice(0, None, 50))
    return len(memory)


def kinds() -> dict[str, Kind]:
    """Return what is tried, by name."""

    def update(memory: Any, data: Data) -> Any:
        return memory.update(data.queries)

    def retrieve(memory: Any, data: Data) -> Any:
        return memory.retrieve(data.queries, return_info=True)

    return {
        "update": Kind(update),
        "retrieve, sparsemax": Kind(retrieve),
        "update, softmax, all": Kind(update, "softmax", BETA["all"], same_as_one=False),
        "margin": Kind(lambda memory, data: memory.margin()),
        "retrieve, entmax15": Kind(retrieve, "entmax15"),
        "add": Kind(_added),
        "update, polynomial": Kind(
            lambda memory, data: memory.update(data.queries[:64]), sh.functional.Polynomial(3), same_as_one=False
        ),
        "associate, normmax": Kind(lambda memory, data: memory.associate(data.queries), sh.functional.Normmax(2.0)),
        "save": Kind(_saved),
        "retrieve, softmax, TopK": Kind(retrieve, "softmax", structure=sh.structures.TopK(8)),
        "remove": Kind(_removed),
        "energy, softmax, all": Kind(
            lambda memory, data: memory.energy(data.queries), "softmax", BETA["all"], same_as_one=False
        ),
        "make": Kind(_made),
        "duplicates": Kind(lambda memory, data: memory.duplicates()),
        "explain": Kind(lambda memory, data: memory.explain(data.queries[0])),
    }


def bits(result: Any) -> Any:
    """Return what two results have in common exactly if they are the same to the bit."""
    if hasattr(result, "indptr"):
        return result.shape, *(bits(getattr(result, name)) for name in ("indptr", "indices", "data"))
    if isinstance(result, (tuple, list)):
        return tuple(map(bits, result))
    if hasattr(result, "__dataclass_fields__"):
        return type(result).__name__, *(bits(getattr(result, name)) for name in result.__dataclass_fields__)
    if isinstance(result, (np.ndarray, np.generic)):
        return str(result.dtype), result.shape, result.tobytes()
    return result


class Trials:
    """A cluster, a memory on it, and what its calls gave before any worker was killed."""

    def __init__(self, data: Data, workers: int, shards: int, kills: int, patience: float, seed: int) -> None:
        import dask
        from distributed import Client, LocalCluster

        self.data, self.patience, self.kills, self.workers, self.shards = data, patience, kills, workers, shards
        self.rng = np.random.default_rng(seed)
        self.exit = contextlib.ExitStack()
        # A LocalCluster gives a worker up whose place is empty 15 seconds after one in it was lost: another may have
        # been killed there since.
        self.exit.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}))
        self.cluster = self.exit.enter_context(
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit="1 GiB",
                dashboard_address=":0",
                silence_logs=50,  # of workers that are killed there is much to say
            )
        )
        self.client = self.exit.enter_context(Client(self.cluster))
        self.kinds = kinds()
        self.memory = self.new_memory()
        self.expected: dict[str, tuple[Any, float]] = {}  # bits, seconds
        self.messages: Counter[str] = Counter()
        self.settled: set[str] = set()  # addresses of workers that run for a while

    def new_memory(self) -> ShardedMemory:
        """Return a memory of the files."""
        return ShardedMemory(self.data.paths, similarity="euclidean", shards=self.shards, client=self.client)

    def under(self, kind: Kind, memory: Any) -> Any:
        """Return a memory under the model of a kind of call."""
        memory.beta, memory.separation, memory.structure = kind.beta, kind.separation, kind.structure
        return memory

    def prepare(self, name: str) -> None:
        """Make a call undisturbed, twice, for its bits and its time; compare it with one memory's where promised."""
        kind = self.kinds[name]
        for _ in range(2):  # the first builds indexes
            start = time.perf_counter()
            found = bits(kind.call(self.under(kind, self.memory), self.data))
            taken = time.perf_counter() - start
            self.restore(name)
        if kind.same_as_one:
            one = sh.HopfieldMemory(self.data.patterns, similarity="euclidean")
            assert found == bits(kind.call(self.under(kind, one), self.data)), f"{name}: not what one memory gives"
        self.expected[name] = found, taken

    def restore(self, name: str) -> None:
        """Undo what a call has changed."""
        m = len(self.data.patterns)
        if name == "add" and len(self.memory) != m:
            self.memory.remove(slice(m, None))
        elif name == "margin" or len(self.memory) != m:  # a memory keeps its margins
            self.memory = self.new_memory()

    def kill(self) -> None:
        """Kill one worker process, but none that is just starting."""
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        pids = [nanny.pid for nanny in self.cluster.workers.values() if nanny.worker_address in known]
        if pids:
            with contextlib.suppress(ProcessLookupError):  # it was killed before, and its nanny does not know yet
                os.kill(int(self.rng.choice(pids)), signal.SIGKILL)

    def settle(self) -> None:
        """Wait until there are all workers, and none has just started: Dask gives up one that dies while it starts."""
        self.client.wait_for_workers(self.workers, timeout=self.patience)
        addresses = {*self.client.scheduler_info(n_workers=-1)["workers"]}
        if not addresses <= self.settled:
            time.sleep(SETTLED_AFTER)
        self.settled = addresses

    def one(self, name: str) -> tuple[str, bool, float]:
        """Make one trial; return its outcome, whether the scheduler was idle afterwards, and the seconds of the call.

        The outcome is "late" where the worker was killed after the call.
        """
        self.settle()
        kind = self.kinds[name]
        want, usual = self.expected[name]
        memory = self.under(kind, self.memory)
        m, found, error = len(memory), None, None

        def call() -> None:
            nonlocal found, error
            try:
                found = kind.call(memory, self.data)
            except BaseException as raised:
                error = raised

        thread = threading.Thread(target=call, daemon=True)
        start = time.perf_counter()
        thread.start()
        time.sleep(self.rng.uniform(0, usual))
        late = not thread.is_alive()
        self.kill()
        for _ in range(1, self.kills):
            thread.join(self.rng.uniform(0, usual) + SETTLED_AFTER)
            if thread.is_alive():
                self.kill()
        thread.join(self.patience)
        taken = time.perf_counter() - start
        if thread.is_alive():
            return "hung", False, taken
        idle = self.idle()
        if error is not None:
            clear = isinstance(error, RuntimeError) and str(error).startswith(("client:", "source:", "patterns:"))
            self.messages[f"{type(error).__name__}: {error}"[:300]] += 1
            outcome = "raised" if clear else "unclear"
            if len(memory) != m:
                outcome = "wrong"
        else:
            outcome = "right" if bits(found) == want else "wrong"
        self.restore(name)
        return "late" if late and outcome == "right" else outcome, idle, taken

    def idle(self) -> bool:
        """Return whether no task is left to run, within some seconds."""
        end = time.perf_counter() + IDLE_WITHIN
        while time.perf_counter() < end:
            if not any(self.client.processing().values()):
                return True
            time.sleep(0.1)
        return False

    def run(self, trials: int) -> list[dict[str, Any]]:
        """Make some trials and return their rows; one that was late is tried again, at most five times."""
        rows: list[dict[str, Any]] = []
        names = list(self.kinds)
        for number in range(trials):
            name = names[number % len(names)]
            if name not in self.expected:
                self.prepare(name)
            for _ in range(5):
                outcome, idle, taken = self.one(name)
                rows.append({"trial": number, "call": name, "outcome": outcome, "idle": idle, "seconds": taken})
                print(f"{number:4} {name:26} {outcome:8} {taken:6.2f} s{'' if idle else '   BUSY'}", flush=True)
                if outcome != "late":
                    break
            if outcome == "hung":
                break
        return rows


def main() -> int:
    """Make the trials, print the counts, and return 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=50, help="calls in which a worker is killed (default 50)")
    parser.add_argument("--kills", type=int, default=1, help="workers killed in a call that goes on (default 1)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--shards", type=int, default=7)
    parser.add_argument("--patterns", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--calls", nargs="+", metavar="KIND", help="the kinds of calls that take turns (default: all)")
    parser.add_argument("--patience", type=float, default=180.0, help="seconds after which a call counts as hung")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Data.drawn(arguments.patterns, arguments.queries, folder)
        trials = Trials(data, arguments.workers, arguments.shards, arguments.kills, arguments.patience, arguments.seed)
        if arguments.calls:
            trials.kinds = {name: trials.kinds[name] for name in arguments.calls}
        with trials.exit:
            rows = trials.run(arguments.trials)
            counts = Counter(row["outcome"] for row in rows)
            busy = sum(not row["idle"] for row in rows)
            total = sum(counts[outcome] for outcome in OUTCOMES)
            print(f"\n{total} calls in the middle of which a worker was killed, {counts['late']} killed after the call")
            for outcome in OUTCOMES:
                print(f"{outcome:8} {counts[outcome]:4}")
            print(f"busy     {busy:4}")
            for message, count in trials.messages.most_common():
                print(f"{count} x {message}")
            if arguments.output:
                counted = {outcome: counts[outcome] for outcome in (*OUTCOMES, "late")} | {"busy": busy}
                result = {"counts": counted, "messages": trials.messages, "rows": rows}
                arguments.output.write_text(json.dumps(result, indent=1))
            bad = counts["wrong"] + counts["unclear"] + counts["hung"] + busy
            if counts["hung"]:
                sys.stdout.flush()
                os._exit(1)  # the thread that hangs would keep the process
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
