"""The C core under sanitizers: builds the harness of core.c and runs it, under the least and the best instruction set.

Engines: "random", driver.c with bytes from a seed, which needs no more than the compiler; "libfuzzer", which follows
the code's branches, and needs clang beside gcc.
"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from .engine import Failure, Run

ENGINES = ("random", "libfuzzer")
CSRC = Path(__file__).parents[2] / "csrc"
SANITIZERS = "-fsanitize=address,undefined"
BATCH = 500  # cases of one process
CORPUS = Path(__file__).with_name("corpus") / "core"
LEVELS = ("base", "")  # of SPARSEHOPFIELD_SIMD; "": the highest that there is


def build(engine: str = "random") -> Path:
    """Build the harness; return its path."""
    folder, target, more = "build-asan", "core", [f"LDFLAGS={SANITIZERS}", "CFLAGS=-O1 -g -Werror " + SANITIZERS]
    if engine == "libfuzzer":
        if not shutil.which("clang"):
            raise SystemExit("libfuzzer: needs clang and its runtime (Debian: clang, libclang-rt-14-dev)")
        # clang's, unlike gcc's, objects to places in a block counted from NULL, which is how the core takes its size
        folder, target = "build-libfuzzer", "core-libfuzzer"
        more = ["CC=clang", "COVERAGE=-fsanitize=fuzzer-no-link"]
        more += [f"CFLAGS=-O1 -g {SANITIZERS} -fno-sanitize=pointer-overflow", f"LDFLAGS={SANITIZERS},fuzzer"]
    subprocess.run(
        ["make", "-C", CSRC, "-s", f"-j{os.cpu_count()}", f"{folder}/{target}", f"BUILD={folder}", *more], check=True
    )
    return CSRC / folder / target


def run(
    *, cases: int | None, seconds: float | None, seed: int = 0, only: int | None = None, engine: str = "random"
) -> Run:
    """Run cases; the arguments are those of `engine.run`, and which engine."""
    program = build(engine)
    if engine == "libfuzzer":
        return _libfuzzer(program, cases, seconds, seed)
    done, number, left = Run(), 0 if only is None else only, cases if only is None else 1
    end = None if seconds is None else time.monotonic() + seconds
    while (left is None or left > 0) and (end is None or time.monotonic() < end):
        batch = BATCH if left is None else min(BATCH, left)
        promised = {level: _batch(program, level, seed, number, batch, done) for level in LEVELS}
        done.cases += batch
        if None not in promised.values() and len(set(promised.values())) > 1:
            what = f"other bits for other instruction sets in cases {number} to {number + batch - 1}: {promised}"
            done.failures.append(Failure("core", seed, number, what))
        number += batch
        left = None if left is None else left - batch
    return done


def _environment(level: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    own |= {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1", "OPENBLAS_NUM_THREADS": "1"}
    return own | ({"SPARSEHOPFIELD_SIMD": level} if level else {})


def _batch(program: Path, level: str, seed: int, first: int, cases: int, done: Run) -> str | None:
    """Run a batch under one instruction set; return the bits that it promises, or None if it failed."""
    command = [program, "--seed", str(seed), "--first", str(first), "--cases", str(cases)]
    try:
        ended = subprocess.run(
            command, env=_environment(level), capture_output=True, text=True, timeout=600, check=False
        )
        text, code = ended.stderr, ended.returncode
    except subprocess.TimeoutExpired as error:
        text, code = (error.stderr or b"").decode(errors="replace"), -1
    if code == 0:
        return ended.stdout.split()[-1]
    numbers = re.findall(r"^case (\d+)$", text, re.MULTILINE)
    said = [line for line in text.splitlines() if not line.startswith("case ")]
    what = "hangs" if code == -1 else " | ".join(line.strip() for line in said[:12])[:1500]
    done.failures.append(Failure("core", seed, int(numbers[-1]) if numbers else first, what))
    return None


def _libfuzzer(program: Path, cases: int | None, seconds: float | None, seed: int) -> Run:
    """Run libFuzzer from the corpus; what it adds is kept beside the program, not in the project."""
    found = program.parent / "corpus"
    found.mkdir(exist_ok=True)
    corpus = [CORPUS] if CORPUS.is_dir() else []
    command = [
        program,
        f"-seed={seed + 1}",
        "-max_len=300",
        "-print_final_stats=1",
        f"-artifact_prefix={found.parent}/",
    ]
    command += [] if cases is None else [f"-runs={cases}"]
    command += [] if seconds is None else [f"-max_total_time={int(seconds)}"]
    ended = subprocess.run(
        [*command, found, *corpus], env=_environment(""), capture_output=True, text=True, check=False
    )
    counted = re.search(r"stat::number_of_executed_units: (\d+)", ended.stderr)
    done = Run(cases=int(counted[1]) if counted else 0)
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if not line.startswith("#")]
        done.failures.append(Failure("core", seed, 0, " | ".join(lines[-60:])[:3000]))
    return done
