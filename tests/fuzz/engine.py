"""Runs cases in other processes, so that a crash, a hang or a greedy case is a finding and not the end of the run."""

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import random
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HANG = float(os.environ.get("FUZZ_HANG", 120))  # seconds without the end of a case; a busy machine is no failure
MEMORY = 2**30  # bytes that a case may have beyond what is there when everything is imported
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


class Flaw(AssertionError):
    """What must not happen has happened."""


@dataclass(frozen=True)
class Failure:
    """A case that failed."""

    attack: str
    seed: int
    number: int
    what: str

    @property
    def signature(self) -> str:
        """What failures of one cause have in common: the text without its numbers and names in quotes."""
        what = self.what.partition(" <- ")[0]
        place = re.match(r".*?\w+ in \w+\.py, \w+(?=:)", what)
        return re.sub(r"0x[0-9a-f]+|[\d.]+(e[+-]?\d+)?|'[^']*'|/\S+", "#", place[0] if place else what)[:200]

    @property
    def command(self) -> str:
        """What runs this case alone."""
        return f"python -m tests.fuzz {self.attack} --seed {self.seed} --only {self.number}"


@dataclass
class Run:
    """What a run found."""

    cases: int = 0
    failures: list[Failure] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)  # how the others ended

    def __str__(self) -> str:
        causes: dict[str, list[Failure]] = {}
        for failure in self.failures:
            causes.setdefault(failure.signature, []).append(failure)
        lines = []
        for several in sorted(causes.values(), key=lambda found: -len(found)):
            first = min(several, key=lambda failure: failure.number)
            lines += [f"{len(several)} x {first.what}", f"    {first.command}"]
        lines += [f"{n:8d}  {outcome}" for outcome, n in sorted(self.outcomes.items())]
        return "\n".join(["", *lines, f"{self.cases} cases, {len(self.failures)} failures of {len(causes)} causes"])


def run(
    attack: str,
    *,
    cases: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    jobs: int = 1,
    only: int | None = None,
) -> Run:
    """Run cases of an attack.

    Parameters
    ----------
    attack : str
        A module of this folder.
    cases : int, optional
        How many.
    seconds : float, optional
        No case begins after so long.
    seed : int
        Of all cases.
    jobs : int
        How many processes at a time.
    only : int, optional
        This case alone.
    """
    done, lock = Run(), threading.Lock()
    end = None if seconds is None else time.monotonic() + seconds
    last = 2**62 if cases is None else cases

    def worker(first: int) -> None:
        number = first
        while number < last and (end is None or time.monotonic() < end):
            number = _child(attack, seed, number, last, jobs, end, done, lock)

    if only is not None:
        os.environ["FUZZ_ONLY"] = "1"
        _child(attack, seed, only, only + 1, 1, None, done, lock)
        return done
    workers = [threading.Thread(target=worker, args=(i,)) for i in range(jobs)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    return done


def _child(
    attack: str, seed: int, first: int, last: int, step: int, end: float | None, done: Run, lock: threading.Lock
) -> int:
    """Run cases in one process until they, the time or the process are at an end; return the number to go on with."""
    package = __package__ or "fuzz"
    left = "none" if end is None else str(max(end - time.monotonic(), 0.0))
    command = [sys.executable, "-m", package, "--child", attack, *map(str, (seed, first, last, step)), left]
    roots = [str(Path(__file__).parents[1 + package.count(".")]), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(roots)), "OPENBLAS_NUM_THREADS": "1"}
    number, after = first, first

    def fail(what: str) -> None:
        failure = Failure(attack, seed, number, what)
        with lock:
            if failure.signature not in {other.signature for other in done.failures}:
                print(f"{failure.what}\n    {failure.command}", file=sys.stderr, flush=True)
            done.failures.append(failure)

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd=folder, env=environment
        )
        try:
            finished = hangs = False
            for word, number, text in _reports(child):
                after = number + step
                if word == "fail":
                    fail(text)
                elif word == "end":
                    with lock:
                        done.cases += 1
                        done.outcomes[text or "failed"] += 1
                elif word == "finished":
                    finished = True
                    after = number
                else:
                    hangs = word == "hang"
            if finished:
                return after
            if hangs:
                child.send_signal(signal.SIGABRT)  # at which it says where it is
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(10)
            child.kill()
            child.wait()
            errors.seek(0)
            said = errors.read()[-30000:].decode(errors="replace")
            with lock:
                done.cases += 1
            how = f"hangs for more than {HANG:g} s" if hangs else _death(child.returncode)
            fail(f"the process {how}: {_cause(said)}")
            return after
        finally:
            child.kill()
            child.wait()
            child.stdout.close()  # type: ignore[union-attr]


def _death(code: int) -> str:
    with contextlib.suppress(ValueError):
        return f"died of {signal.Signals(-code).name}"
    return f"ended with status {code}"


def _cause(said: str) -> str:
    """The lines of a process's last words that tell where it was: the current thread's, innermost first."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("Extension modules")]
    for i, line in enumerate(lines):
        if line.startswith("Current thread"):
            lines = lines[i + 1 :]
            break
    return " | ".join(lines[:6])[:1000] or "it said nothing"


def _reports(child: "subprocess.Popen[bytes]") -> Iterator[tuple[str, int, str]]:
    """What a child says, as (word, number, text); ("hang", number, "") when it has said nothing for too long."""
    rest, number = b"", 0
    with selectors.DefaultSelector() as waiting:
        waiting.register(child.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        while True:
            if not waiting.select(600 if "FUZZ_ONLY" in os.environ else HANG):
                yield "hang", number, ""
                return
            part = os.read(child.stdout.fileno(), 65536)  # type: ignore[union-attr]
            if not part:
                child.wait()
                return
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                word, number, text = json.loads(line)
                yield word, number, text


def randoms(attack: str, seed: int, number: int) -> random.Random:
    """The random numbers of one case."""
    return random.Random(f"{attack} {seed} {number}")


def child(attack: str, seed: int, first: int, last: int, step: int, seconds: float | None) -> None:
    """Run cases in this process, and say so on standard output, line by line."""
    talk = os.dup(1)
    os.dup2(2, 1)  # what a case prints must not be taken for a report

    def say(word: str, number: int, text: str = "") -> None:
        os.write(talk, json.dumps([word, number, text]).encode() + b"\n")

    faulthandler.enable()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: whoever ends the run ends its cases
    module = importlib.import_module(f"{__package__}.{attack}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not SANITIZED and sys.platform == "linux":  # a sanitizer's map of memory is larger than any limit
        with open("/proc/self/statm", encoding="ascii") as sizes:
            size = int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    warnings.simplefilter("ignore")
    end = None if seconds is None else time.monotonic() + seconds
    number = first
    while number < last and (end is None or time.monotonic() < end):
        say("begin", number)
        outcome = ""
        try:
            with tempfile.TemporaryDirectory(prefix="case-", dir=".") as folder:
                outcome = module.case(randoms(attack, seed, number), Path(folder))
        except Flaw as flaw:
            say("fail", number, str(flaw))
        except Exception:
            say("fail", number, "in the fuzzer itself: " + " | ".join(traceback.format_exc().splitlines()[-6:]))
        say("end", number, outcome)
        number += step
    say("finished", number)


def told(error: BaseException) -> str:
    """The error, and where in the package it came from."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if f"{os.sep}sparsehopfield{os.sep}" in file:
            where = f"{os.path.basename(file)}, {trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__} in {where}: {str(error)[:300]}"
