"""What may go wrong with a sharded memory: killed workers, interrupted programs, lost clients, and bad input.

Each case ends with a clear error or the right answer, and leaves no task to run. `benchmarks/killed_workers.py` counts
the outcomes of more trials of killed workers.
"""

import gc
import inspect
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import FOLDERS, digest

import sparsehopfield as sh

distributed = pytest.importorskip("distributed")
import dask.array as da  # noqa: E402
from dask.delayed import delayed  # noqa: E402

from sparsehopfield.distributed import ShardedMemory  # noqa: E402
from sparsehopfield.distributed._sources import as_source  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(7)
M, D = 9000, 4  # three blocks of rows
X = RNG.standard_normal((M, D), dtype=np.float32)
V = RNG.standard_normal((M, 3), dtype=np.float32)
QUERIES = X[::300] + np.float32(0.3) * RNG.standard_normal((30, D), dtype=np.float32)
BETA = 50.0  # small supports, and few steps of retrievals
ALONE = "exclude", "progress"  # parameters of methods of one memory alone: Dask shows progress of its own
WITHIN = 30.0  # seconds for what should take one or two: machines may be busy


def until(condition, within=WITHIN):
    """Wait until a condition holds; return whether it did within some seconds."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def tasks(client):
    """Return the names of the package's tasks that the scheduler knows, without their numbers, and those of shards."""

    def names(dask_scheduler):
        return [str(key) for key in dask_scheduler.tasks]

    found = {key.rsplit("-", 2)[0] for key in client.run_on_scheduler(names) if key.startswith("sparsehopfield")}
    return {name for name in found if "-load" not in name and "-change" not in name}


def is_idle(client):
    """Return whether no worker computes anything, and no task but those of shards is known."""
    return not any(client.processing().values()) and not tasks(client)


def kill_workers(client):
    """Kill all worker processes, and wait until the scheduler has noticed."""
    pids = client.run(os.getpid)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    assert until(lambda: not pids.keys() & client.scheduler_info()["workers"].keys())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of patterns, in one file and in two, and of values."""
    folder = tmp_path_factory.mktemp("rows")
    found = types.SimpleNamespace(x=folder / "x.npy", v=folder / "v.npy", parts=[folder / "a.npy", folder / "b.npy"])
    for path, rows in ((found.x, X), (found.v, V), (found.parts[0], X[:5000]), (found.parts[1], X[5000:])):
        np.save(path, rows)
    return found


@pytest.fixture(scope="module")
def sharded(client, files):
    """A memory with values on workers; tests leave it as it is."""
    return ShardedMemory(files.x, BETA, values=files.v, similarity="euclidean", shards=3, client=client)


@pytest.fixture(scope="module")
def one():
    """The same memory in this process."""
    return sh.HopfieldMemory(X, BETA, values=V, similarity="euclidean")


# --- workers that are killed ----------------------------------------------------------------------------------------


def killed_workers(folder, *arguments):
    """Run the trials of benchmarks/killed_workers.py, and return their counts."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "killed_workers.py", "--output", folder / "counts.json", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *FOLDERS])},
        timeout=900,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "counts.json").read_text())["counts"]


def test_killed_workers(tmp_path):
    """Two calls in the middle of which a worker is killed: one that gathers patterns, and one of sums over all."""
    calls = ["retrieve, sparsemax", "update, softmax, all"]
    sizes = ["--workers", "2", "--shards", "3", "--patterns", "20000", "--queries", "200"]
    counts = killed_workers(tmp_path, "--trials", "2", "--calls", *calls, *sizes)
    assert counts["right"] + counts["raised"] == 2
    assert counts["wrong"] == counts["unclear"] == counts["hung"] == counts["busy"] == 0


@pytest.mark.depth
def test_all_calls_while_workers_are_killed(tmp_path):
    """Every kind of call, with one worker killed, and with workers killed for as long as it goes on."""
    for kills in "1", "6":
        counts = killed_workers(tmp_path, "--trials", "15", "--workers", "2", "--queries", "200", "--kills", kills)
        assert counts["right"] + counts["raised"] == 15
        assert counts["wrong"] == counts["unclear"] == counts["hung"] == counts["busy"] == 0


def test_workers_that_are_lost_too_often(client, tmp_path):
    """Where Dask gives up, as every worker dies that makes a shard, the call says so; the next one tries again."""
    np.save(tmp_path / "x.npy", X)
    rows = da.from_array(X, chunks=(4096, -1)).map_blocks(dying, str(tmp_path / "dies"), dtype=X.dtype)
    memory = ShardedMemory(rows, 2.0, similarity="euclidean", shards=2, client=client)
    want = memory.update(QUERIES)
    (tmp_path / "dies").touch()
    usual = client.run_on_scheduler(allow_failures, 0)
    kill_workers(client)
    try:
        with pytest.raises(RuntimeError, match=r"client: 1 workers? (was|were) lost"):
            memory.update(QUERIES)
    finally:
        client.run_on_scheduler(allow_failures, usual)
        (tmp_path / "dies").unlink()
    client.wait_for_workers(2, timeout=WITHIN)
    assert digest(memory.update(QUERIES)) == digest(want)  # all blocks of a shard that have failed are made again
    assert until(lambda: is_idle(client))


def allow_failures(number, dask_scheduler):
    """Set how often a task may lose its worker, and return what it was."""
    usual, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, number
    return usual


def dying(block, path):
    """Return a block; if there is a file, end the process, but not before its nanny knows that it runs."""
    if os.path.exists(path):
        time.sleep(1)
        os._exit(1)
    return block


# --- programs that are interrupted or lost ---------------------------------------------------------------------------

#: Makes a memory on another process's cluster, and calls it until it is interrupted; then once more.
PROGRAM = """
import signal, sys, time
import numpy as np
from distributed import Client
from helpers import digest
from sparsehopfield.distributed import ShardedMemory

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what runs in the background ignore it
    address, path, call = sys.argv[1:]
    with Client(address) as client:
        memory = ShardedMemory(path, 2.0, similarity="euclidean", shards=3)
        X = np.load(path)
        small, queries = X[::300] + np.float32(0.1), np.tile(X, (40, 1)) + np.float32(0.1)
        memory.beta, memory.separation = (2.0, "sparsemax") if call != "softmax" else (0.01, "softmax")
        print(digest(memory.update(small)), flush=True)
        try:
            while True:
                if call == "margin":
                    memory.margin()
                elif call == "make":
                    ShardedMemory(path, 2.0)
                else:
                    memory.update(queries)
        except KeyboardInterrupt:
            start = time.monotonic()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        while any(client.processing().values()):
            time.sleep(0.02)
        print(time.monotonic() - start, flush=True)
        print(digest(memory.update(small)), flush=True)

if __name__ == "__main__":
    main()
"""


def started(address, path, call):
    """Start PROGRAM in a process, and a group of its own; return it when its first answer is there."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *FOLDERS])}
    file = Path(path).parent / "program.py"
    file.write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, file, address, path, call],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return program, program.stdout.readline()


DEPTH = [pytest.param(call, marks=pytest.mark.depth) for call in ("update", "margin")]


@pytest.mark.parametrize("call", ["softmax", "make", *DEPTH])
def test_interrupted(client, cluster, files, call):
    """Ctrl-C ends a call within seconds, leaves the workers idle, and the memory answers as before."""
    program, answer = started(cluster.scheduler_address, files.x, call)
    assert until(lambda: any(client.processing().values()))
    time.sleep(RNG.uniform(0, 1))
    start = time.monotonic()
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=120)
    assert program.returncode == 0, err
    idle_after, again = out.splitlines()
    assert float(idle_after) < WITHIN
    assert time.monotonic() - start < 2 * WITHIN  # with a call, and its end
    assert again == answer.strip()
    assert until(lambda: is_idle(client))


def test_a_client_that_is_lost(client, cluster, files, sharded, one):
    """Where a program is killed in the middle of a call the workers are idle within seconds, and others can work."""
    program, _ = started(cluster.scheduler_address, files.x, "softmax")
    assert until(lambda: any(client.processing().values()))
    program.kill()
    program.communicate()
    assert digest(sharded.update(QUERIES)) == digest(one.update(QUERIES))
    assert until(lambda: is_idle(client))


def test_a_closed_client(cluster, files):
    """A memory whose client was closed says so."""
    with distributed.Client(cluster, set_as_default=False) as other:
        memory = ShardedMemory(files.x, 2.0, shards=2, client=other)
    with pytest.raises(RuntimeError, match="client: "):
        memory.update(QUERIES)
    with pytest.raises(ValueError, match="client: is closed"):
        ShardedMemory(files.x, 2.0, shards=2, client=other)


# --- files and arrays that are not as they should be ------------------------------------------------------------------


def saved(path, array):
    """Save an array to a .npy file and return the path."""
    np.save(path, array)
    return path


def cut(path, size):
    """Cut a file to its first bytes, or by as many as a negative size says, and return the path."""
    data = path.read_bytes()
    path.write_bytes(data[:size])
    return path


def damaged(path, at):
    """Change a byte of a file and return the path."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x5A
    path.write_bytes(data)
    return path


def saved_memory(path, **options):
    """Save a memory of X and return the path."""
    sh.HopfieldMemory(X, **options).save(path)
    return path


def with_nan(row, like=X):
    """Return an array with NaN in a row."""
    array = like.copy()
    array[row, 1] = np.nan
    return array


def narrow(block, block_info=None):
    """Return another width than a dask array promises in all blocks but the first."""
    return block[:, :3] if block_info[0]["chunk-location"][0] else block


def wide(block, block_info=None):
    """Return another dtype than a dask array promises in the first block."""
    return block if block_info[0]["chunk-location"][0] else block.astype(float)


def short(block, block_info=None):
    """Return fewer rows than a dask array promises in the first block."""
    return block if block_info[0]["chunk-location"][0] else block[1:]


def failing(block, block_info=None):
    """Raise in the second block of a dask array."""
    if block_info[0]["chunk-location"][0] == 1:
        raise KeyError("no such block")
    return block


BLOCKS = da.from_array(X, chunks=(4096, -1))

SOURCES = {
    "widths": (
        lambda p: [saved(p / "a.npy", X), saved(p / "b.npy", X[:, :3])],
        ValueError,
        r"source: .*a\.npy.*b\.npy",
    ),
    "dtypes": (
        lambda p: [saved(p / "a.npy", X), saved(p / "b.npy", X.astype(float))],
        ValueError,
        r"source: patterns are float32 in .*a\.npy, and float64 in .*b\.npy",
    ),
    "no rows": (lambda p: [saved(p / "a.npy", X), saved(p / "b.npy", X[:0])], ValueError, r"source: .*b\.npy is empty"),
    "no columns": (lambda p: saved(p / "a.npy", X[:, :0]), ValueError, "source: "),
    "no bytes": (lambda p: cut(saved(p / "a.npy", X), 0), sh.FileFormatError, r"a\.npy: "),
    "cut in the header": (lambda p: cut(saved(p / "a.npy", X), 40), sh.FileFormatError, r"a\.npy: "),
    "cut": (lambda p: cut(saved(p / "a.npy", X), -1), sh.FileFormatError, r"a\.npy: is cut"),
    "damaged header": (lambda p: damaged(saved(p / "a.npy", X), 20), sh.FileFormatError, r"a\.npy: "),
    "text": (lambda p: (p / "a.npy").write_text("1 2 3\n") and p / "a.npy", sh.FileFormatError, r"a\.npy: "),
    "cut safetensors": (lambda p: cut(saved_memory(p / "m"), -1), sh.FileFormatError, "m: "),
    "cut header of safetensors": (lambda p: cut(saved_memory(p / "m"), 30), sh.FileFormatError, "m: "),
    "damaged safetensors": (lambda p: damaged(saved_memory(p / "m"), 3), sh.FileFormatError, "m: "),
    "missing": (lambda p: [saved(p / "a.npy", X), p / "b.npy"], FileNotFoundError, r"b\.npy"),
    "a folder": (lambda p: p, ValueError, "source: .* is a folder"),
    "no files": (lambda p: [], ValueError, "source: needs at least one file"),
    "one axis": (lambda p: saved(p / "a.npy", X[0]), ValueError, "source: .*must be two-dimensional"),
    "three axes": (lambda p: saved(p / "a.npy", X[None]), ValueError, "source: .*must be two-dimensional"),
    "complex": (lambda p: saved(p / "a.npy", X + 1j), TypeError, "source: must be real numbers"),
    "text array": (lambda p: saved(p / "a.npy", X.astype(str)), TypeError, "source: must be real numbers"),
    "objects": (lambda p: saved(p / "a.npy", X.astype(object)), sh.FileFormatError, "holds objects"),
    "NaN": (
        lambda p: [saved(p / "a.npy", X), saved(p / "b.npy", with_nan(5000))],
        ValueError,
        r"source: row 14000 \(row 5000 of .*b\.npy\) contains NaN or infinity.*shard 1, rows \d+ to 17999",
    ),
    "NaN in dask": (
        lambda p: da.from_array(with_nan(8999), chunks=(3000, -1)),
        ValueError,
        "source: row 8999 contains NaN or infinity.*shard 1, rows 4096 to 8999",
    ),
    "NumPy": (lambda p: X, TypeError, "source: must be a dask or zarr array.*dask.array.from_array"),
    "list of rows": (lambda p: X.tolist(), TypeError, "source: must be"),
    "list of arrays": (lambda p: [X, X], TypeError, "source: must be"),
    "path and array": (lambda p: [saved(p / "a.npy", X), X], TypeError, "source: must be"),
    "None": (lambda p: None, TypeError, "source: must be"),
    "a memory": (lambda p: sh.HopfieldMemory(X), TypeError, "source: must be"),
    "blocks of other widths": (lambda p: BLOCKS.map_blocks(narrow, dtype=X.dtype), ValueError, "(source|shards): "),
    "blocks of other dtypes": (lambda p: BLOCKS.map_blocks(wide, dtype=X.dtype), ValueError, "(source|shards): "),
    "blocks of fewer rows": (lambda p: BLOCKS.map_blocks(short, dtype=X.dtype), ValueError, "(source|shards): "),
    "a block that fails": (lambda p: BLOCKS.map_blocks(failing, dtype=X.dtype), KeyError, "no such block"),
    "blocks of unknown size": (lambda p: BLOCKS[BLOCKS[:, 0] > 0], ValueError, "source: has chunks of unknown size"),
    "dask of three axes": (lambda p: BLOCKS[None], ValueError, "source: must be two-dimensional"),
    "empty dask": (lambda p: BLOCKS[:0], ValueError, "source: "),
}


@pytest.mark.parametrize("name", SOURCES)
def test_bad_sources(client, tmp_path, name):
    make, error, words = SOURCES[name]
    source = make(tmp_path)
    with pytest.raises(error, match=words):
        ShardedMemory(source, 2.0, shards=2, client=client)
    gc.collect()
    assert until(lambda: is_idle(client))


def test_damaged_headers_of_npy_files(tmp_path):
    """Whatever a byte of the header is: an error that names the file, or rows that lie in it."""
    path = saved(tmp_path / "x.npy", np.ones((20, 3), np.float32))
    data = path.read_bytes()
    for at, byte in itertools.product(range(0, len(data) - 240, 2), b"\x00\n#'(),-3:]}\xff"):
        path.write_bytes(data[:at] + bytes([byte]) + data[at + 1 :])
        with warnings.catch_warnings(action="ignore"):
            try:
                rows = as_source(path).patterns
            except (sh.FileFormatError, ValueError, TypeError) as error:
                unnamed = not re.match(f"source: |{path}: ", str(error))
                if unnamed:
                    raise
                continue
        n, d = rows.shape
        assert 0 < n * d * rows.dtype.itemsize <= 240
        assert rows.cut(0, n).read().shape == (n, d)


ARGUMENTS = {
    "values of fewer rows": (lambda p: {"values": saved(p / "v.npy", V[:-1])}, ValueError, "values: "),
    "values with NaN": (
        lambda p: {"values": saved(p / "v.npy", with_nan(6000, V))},
        ValueError,
        r"values: row 6000 \(row 6000 of .*v\.npy\) contains NaN or infinity",
    ),
    "values of text": (lambda p: {"values": saved(p / "v.npy", V.astype(str))}, TypeError, "values: "),
    "values in memory": (lambda p: {"values": V}, TypeError, "values: must be a dask or zarr array"),
    "fewer ids": (lambda p: {"ids": range(M - 1)}, ValueError, "ids: needs one per pattern"),
    "ids in two shards": (lambda p: {"ids": np.r_[: M - 1, 5]}, ValueError, "ids: .*distinct.* 5 twice"),
    "ids of halves": (lambda p: {"ids": np.arange(M) / 2}, (TypeError, ValueError), "ids: must be"),
    "scale of float32": (lambda p: {"scale": 0.5}, ValueError, "scale: "),
    "beta": (lambda p: {"beta": 0.0}, ValueError, "beta: must be positive"),
    "beta of text": (lambda p: {"beta": "hot"}, (TypeError, ValueError), "beta: "),
    "beta of NaN": (lambda p: {"beta": np.nan}, ValueError, "beta: "),
    "a window": (lambda p: {"structure": sh.structures.Window(3)}, ValueError, "structure: .*TopK"),
    "a subset": (lambda p: {"structure": sh.structures.RandomMask(3)}, ValueError, "structure: .*TopK"),
    "a structure of text": (lambda p: {"structure": "top"}, TypeError, "structure: "),
    "a separation": (lambda p: {"separation": 3}, (TypeError, ValueError), "separation: "),
    "shards": (lambda p: {"shards": -1}, ValueError, "shards: must be at least 1"),
    "an address": (lambda p: {"client": "127.0.0.1:8786"}, TypeError, "client: must be a distributed.Client"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_arguments(client, files, tmp_path, name):
    make, error, words = ARGUMENTS[name]
    with pytest.raises(error, match=words):
        ShardedMemory(files.x, **({"beta": 2.0, "shards": 2, "client": client} | make(tmp_path)))
    gc.collect()
    assert until(lambda: is_idle(client))


def test_files_that_change(client, tmp_path):
    """Files that are gone, or not those that the memory was made of, are noticed where they are read again."""
    path = saved(tmp_path / "x.npy", X)
    memory = ShardedMemory(path, 2.0, shards=2, client=client)
    want = memory.update(QUERIES)
    path.unlink()  # what is mapped stays
    assert digest(memory.update(QUERIES)) == digest(want)
    kill_workers(client)
    with pytest.raises(FileNotFoundError, match=r"x\.npy"):
        memory.update(QUERIES)
    saved(path, X[:-1])
    with pytest.raises(sh.FileFormatError, match=r"x\.npy: was changed after the memory was made"):
        memory.update(QUERIES)
    saved(path, X)  # as it was
    assert digest(memory.update(QUERIES)) == digest(want)
    kill_workers(client)
    saved(path, X[::-1])
    with pytest.raises(RuntimeError, match=r"source: shard \d, rows .*has changed since the memory was made"):
        memory.update(QUERIES)
    assert until(lambda: is_idle(client))


def test_a_failure_of_before(client, tmp_path):
    """A part that was read when its file was gone, and fails in a later call, is read again in that call; the error
    that it met keeps no results of the second attempt at the workers, where no garbage is collected, either.
    """
    path = saved(tmp_path / "x.npy", X)

    def read(start, wait):
        was_there = path.exists()
        time.sleep(wait)
        if not was_there:
            raise FileNotFoundError(path)
        return np.load(path)[start : start + 5000]

    blocks = [
        da.from_delayed(delayed(read)(start, wait), (min(5000, len(X) - start), D), X.dtype)
        for start, wait in ((0, 0.0), (5000, 1.0))
    ]
    memory = ShardedMemory(da.concatenate(blocks), 2.0, shards=2, client=client)
    want = memory.update(QUERIES)
    path.unlink()
    kill_workers(client)
    with pytest.raises(FileNotFoundError, match=r"x\.npy"):  # of the first part, at once
        memory.update(QUERIES)
    saved(path, X)
    gc.collect()
    gc.disable()
    try:
        assert digest(memory.update(QUERIES)) == digest(want)
        assert until(lambda: is_idle(client))
    finally:
        gc.enable()


# --- calls ------------------------------------------------------------------------------------------------------------

CALLS = [
    lambda m: m.update(np.ones(3)),
    lambda m: m.update(np.ones((2, 5))),
    lambda m: m.update(np.float32(1)),
    lambda m: m.update([[1, 2, 3, 4], [1, 2, 3]]),
    lambda m: m.update("text"),
    lambda m: m.update(None),
    lambda m: m.update(np.ones((2, D), complex)),
    lambda m: m.update(np.full((2, D), np.inf)),
    lambda m: m.update(with_nan(3, QUERIES)),
    lambda m: m.update(np.full((2, D), 1e38, np.float32)),
    lambda m: m.update(QUERIES, out=np.empty((30, D), np.float32)),
    lambda m: m.update(QUERIES, out=np.empty((30, 3))),
    lambda m: m.update(QUERIES, out=np.empty((29, 3), np.float32)),
    lambda m: m.update(QUERIES, out=[[0.0] * 3] * 30),
    lambda m: m.retrieve(with_nan(29, QUERIES)),
    lambda m: m.retrieve(QUERIES, max_steps=0),
    lambda m: m.retrieve(QUERIES, max_steps=2.5),
    lambda m: m.retrieve(QUERIES, tol=-1.0),
    lambda m: m.retrieve(QUERIES, tol=np.nan),
    lambda m: m.retrieve(QUERIES, return_info=["weight"]),
    lambda m: m.retrieve(QUERIES, out=np.empty((30, 2), np.float32)),
    lambda m: m.associate(QUERIES[:, :2]),
    lambda m: m.associate(QUERIES, top=0),
    lambda m: m.associate(QUERIES, top=1.5),
    lambda m: m.associate(QUERIES, min_weight=-0.1),
    lambda m: m.energy(QUERIES[:, :2]),
    lambda m: m.energy(with_nan(0, QUERIES)),
    lambda m: m.explain(QUERIES),
    lambda m: m.explain(QUERIES[0], top=0),
    lambda m: m.explain(QUERIES[0, :2]),
    lambda m: m.certify(QUERIES[:, :2]),
    lambda m: m.certify(QUERIES, beta=-1.0),
    lambda m: m.is_certified(beta=0),
    lambda m: m.is_certified(beta=[1.0, 2.0]),
    lambda m: m.duplicates(-1.0),
    lambda m: m.duplicates(np.nan),
    lambda m: m.duplicates("near"),
    lambda m: m.duplicates(most=0),
    lambda m: m.duplicates(0.1, most=10),
    lambda m: m.remove([M]),
    lambda m: m.remove([0, -M - 1]),
    lambda m: m.remove([0.5]),
    lambda m: m.remove(np.zeros(M - 1, bool)),
    lambda m: m.remove([[0, 1]]),
    lambda m: m.remove("first"),
    lambda m: m.remove(slice(None)),
    lambda m: m.remove(range(M)),
    lambda m: m.add(X[:2, :3], V[:2]),
    lambda m: m.add(X[:2]),
    lambda m: m.add(X[:2], V[:1]),
    lambda m: m.add(X[:2], V[:2, :2]),
    lambda m: m.add(X[:2], V[:2], ids=[7]),
    lambda m: m.add(X[:2], V[:2], ids=[M, M]),
    lambda m: m.add(X[:2], V[:2], ids=[M, 17]),
    lambda m: m.add(X[:2], V[:2], ids=[0.5, M]),
    lambda m: m.add(with_nan(1, X[:3]), V[:3]),
    lambda m: m.add(X[:3], with_nan(2, V[:3])),
    lambda m: m.add(X[:0], V[:0]),
    lambda m: m.add(X[:1].astype(str), V[:1]),
    lambda m: m.add(X[:1], V[:1].astype(str)),
    lambda m: setattr(m, "beta", -1),
    lambda m: setattr(m, "beta", [1.0, 0.0]),
    lambda m: setattr(m, "separation", "softmin"),
    lambda m: setattr(m, "separation", None),
    lambda m: setattr(m, "structure", 5),
    lambda m: m.save(None),
    lambda m: m.save("/proc/nothing/here"),
]


def error_of(call, memory):
    """Return the error that a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call(memory)
    return caught.value


@pytest.mark.parametrize("call", CALLS, ids=[inspect.getsource(c).strip()[10:-1] for c in CALLS])
def test_bad_calls(client, sharded, one, call):
    """Calls that one memory refuses are refused for the same argument; nothing is changed, and nothing left to run."""
    error, expected = error_of(call, sharded), error_of(call, one)
    assert isinstance(error, type(expected)), (error, expected)
    argument = str(expected).partition(":")[0].replace("path", "folder")  # the parameter of `save`
    assert str(error).partition(":")[0] == argument, (error, expected)
    assert len(sharded) == M
    assert until(lambda: is_idle(client))


def test_nothing_was_changed_by_them(sharded, one):
    assert digest(sharded.update(QUERIES)) == digest(one.update(QUERIES))
    assert (sharded.beta, sharded.separation, sharded.structure) == (one.beta, one.separation, one.structure)


@pytest.mark.parametrize("shape", [(0, D), (3, 0, D), (D,), (2, 3, D), (1, 1, 1, D)])
def test_shapes_of_queries(sharded, one, shape):
    queries = RNG.standard_normal(shape)
    for call in (
        lambda memory: memory.update(queries),
        lambda memory: memory.retrieve(queries, tol=1.0),
        lambda memory: memory.energy(queries),
    ):
        found, want = call(sharded), call(one)
        assert digest(np.asarray(found)) == digest(np.asarray(want))
        assert type(found) is type(want)
    found, want = sharded.associate(queries), one.associate(queries)
    assert found.shape == want.shape
    assert digest(found.data, found.indices, found.indptr) == digest(want.data, want.indices, want.indptr)


def test_beta_per_query(sharded, one):
    beta = np.linspace(20, 90, 30)
    try:
        sharded.beta = one.beta = beta
        assert digest(sharded.retrieve(QUERIES, tol=0.1)) == digest(one.retrieve(QUERIES, tol=0.1))
        with pytest.raises(ValueError, match="beta: "):
            sharded.retrieve(QUERIES[:7])
        with pytest.raises(ValueError, match="beta: a file holds one number"):
            sharded.save("anywhere")
    finally:
        sharded.beta = one.beta = BETA


def test_signatures_of_one_memory():
    """Methods have the parameters and defaults of HopfieldMemory's; what differs is named here."""
    names = "update retrieve associate energy margin critical_beta is_certified certify duplicates add remove explain"
    for name in names.split():
        found, want = ([(p.name, p.kind, p.default) for p in inspect.signature(getattr(c, name)).parameters.values()]
                       for c in (ShardedMemory, sh.HopfieldMemory))  # fmt: skip
        assert found == [parameter for parameter in want if parameter[0] not in ALONE], name
    found, want = (inspect.signature(c).parameters for c in (ShardedMemory, sh.HopfieldMemory))
    assert [name for name in want if name not in found] == ["patterns", "copy", "check_finite", "pattern_shape"]
    assert [name for name in found if name not in want] == ["source", "shards", "client"]
    assert all(found[name].default == want[name].default for name in found if name in want)


def test_removing_whole_shards(client, files):
    """Shards may be removed one by one, from the front and from the back, until one row is left."""
    for slices in [slice(0, 4096), slice(0, 4096), slice(1, None)], [slice(8000, None), slice(100, None), slice(0, 99)]:
        memory = ShardedMemory(files.x, 2.0, similarity="euclidean", shards=3, client=client)
        one = sh.HopfieldMemory(X, 2.0, similarity="euclidean")
        for removed in slices:
            memory.remove(removed)
            one.remove(removed)
            assert digest(memory.update(QUERIES)) == digest(one.update(QUERIES))
            assert digest(memory.ids) == digest(one.ids)
        with pytest.raises(ValueError, match="positions: would remove all patterns"):
            memory.remove(0)
        assert digest(memory.add(X[:2])) == digest(one.add(X[:2]))
        assert digest(memory.retrieve(QUERIES)) == digest(one.retrieve(QUERIES))


# --- versions, and clients --------------------------------------------------------------------------------------------


def test_a_worker_with_another_version(client, files):
    """A worker that has another version of the package is refused, and named."""

    def pretend(version):
        from sparsehopfield import _core
        from sparsehopfield.distributed import _shards

        old, _core.__version__ = _core.__version__, version
        _shards.VERSION = version
        return old

    memory = ShardedMemory(files.x, 2.0, shards=2, client=client)
    worker = next(iter(client.scheduler_info()["workers"]))
    version = client.run(pretend, "0.0.9", workers=[worker])[worker]
    try:
        with pytest.raises(RuntimeError, match=rf"client: worker {worker} has sparsehopfield 0\.0\.9, and"):
            ShardedMemory(files.x, 2.0, shards=2, client=client)
        with pytest.raises(RuntimeError, match=r"version: this worker has sparsehopfield 0\.0\.9, and"):
            memory.update(QUERIES)
    finally:
        client.run(pretend, version, workers=[worker])
    assert until(lambda: is_idle(client))
    memory.update(QUERIES)


def test_a_restarted_cluster(client, files, one):
    """Shards are gone where the workers were started anew: a memory says so, or has them made again."""
    memory = ShardedMemory(files.x, 2.0, values=files.v, similarity="euclidean", shards=2, client=client)
    client.restart(timeout=WITHIN)
    with pytest.raises(RuntimeError, match="client: the shards are gone"):
        memory.update(QUERIES)
    assert until(lambda: is_idle(client))
