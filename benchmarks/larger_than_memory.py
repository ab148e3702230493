"""A memory larger than what may stay in RAM: 20 GB mapped, 4 GB resident, and what a query reads from the disk.

    python benchmarks/larger_than_memory.py --folder folder/on/a/disk --output larger.json

The file is sparse: 4,882,944 patterns of 1,024 float32 features, 20.0 GB, of which every tenth stretch of 1,024
patterns (4 MiB) has content, 2 GB in all; the others are holes, whose patterns are zero and take no room on the disk.
Patterns with content lie in clusters of about 100, whose centres lie in a subspace of 32 dimensions, all of them nearer
to one another than to zero. Queries are copies of some of these with noise, one sparse step each under euclidean
similarity. Two memories are tried: one without an index, and one whose file holds it (`save(index=True)`).

Resident memory is what a control group would be charged with: the process's own pages (RssAnon) and all pages of the
file that are in the page cache, mapped or not (cachestat). A thread looks every 30 ms, and a tenth below the limit
gives all pages of the file back, where the kernel would give back some: reads are rather overstated. Where the script
runs in a control group with that limit or a lower one, as under

    systemd-run --scope -p MemoryMax=4G python benchmarks/larger_than_memory.py

the kernel does it, and the thread only looks. The page cache is emptied of the file before each step that is "cold".

Columns: "brought in" are the pages of the file that came into the page cache, of holes, too: what would be read from a
file that has none. "From the disk" is what the kernel counts (read_bytes in /proc/self/io). Both count reads ahead:
the kernel brings in more around the page that is asked for.

Every answer is held against a reference that is computed block by block with NumPy: scores of all patterns in float64;
the patterns near enough to the best to matter, in a memory of their own, give the same bits, and in
`sparsehopfield.reference` the same numbers but for rounding.
"""

import argparse
import ctypes
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import harness
import numpy as np

from sparsehopfield._engine import files, resources

MARGIN = 0.1  # of the limit: how far below it pages are given back
STRETCH, EVERY = 1024, 10  # patterns of a stretch; one stretch in so many has content
FEATURES, BETA = 1024, 0.1
PAGE, CACHESTAT = mmap.PAGESIZE, 451  # the number of the system call
LIBC = ctypes.CDLL(None, use_errno=True)
GB = 1e9


# --- the file -----------------------------------------------------------------------------------------------------


def content(stretch, features):
    """Return the patterns of a stretch that has content: (STRETCH, features) float32, always the same."""
    frame = np.random.default_rng(0).standard_normal((32, features), dtype=np.float32) / np.float32(features**0.5)
    rng = np.random.default_rng([1, stretch])
    centres = 10 * rng.standard_normal((-(-STRETCH // 100), 32), dtype=np.float32) @ frame
    patterns = centres[rng.integers(len(centres), size=STRETCH)]
    patterns += np.float32(3 / features**0.5) * rng.standard_normal(patterns.shape, dtype=np.float32)
    return patterns + np.float32(
        100 / features**0.5
    )  # far from the holes, which else tied as the nearest of many parts


def write_patterns(path, m, features):
    """Write the patterns as a .npy file with holes; return how many have content."""
    patterns = np.lib.format.open_memmap(path, "w+", np.float32, (m, features))  # ftruncate: all one hole
    for first in range(0, m, STRETCH * EVERY):
        rows = patterns[first : first + STRETCH]
        rows[:] = content(first // STRETCH, features)[: len(rows)]
    patterns.flush()
    return sum(min(STRETCH, m - first) for first in range(0, m, STRETCH * EVERY))


class LeavingHoles:
    """A file that leaves holes where blocks of zeros are written to it."""

    BLOCK = 1 << 20

    def __init__(self, file):
        self.file, self.end = file, 0

    def write(self, data):
        """Write bytes, but for blocks of zeros, which are passed over."""
        data = memoryview(data)
        for i in range(0, len(data), self.BLOCK):
            part = data[i : i + self.BLOCK]
            if np.frombuffer(part, np.uint8).any():
                self.file.write(part)
            else:
                self.file.seek(len(part), os.SEEK_CUR)
        self.end = max(self.end, self.file.tell())

    def __getattr__(self, name):
        return getattr(self.file, name)


@contextmanager
def saving_with_holes():
    """Have memories saved within leave holes where they have zeros: the same bytes, in less room."""
    whole = files.atomic_write

    @contextmanager
    def sparse(path):
        with whole(path) as file:
            yield (holes := LeavingHoles(file))
            file.flush()
            file.truncate(holes.end)

    files.atomic_write = sparse
    try:
        yield
    finally:
        files.atomic_write = whole


def draw_queries(m, features, n):
    """Return n queries, (n, features): patterns with content, and noise."""
    rng = np.random.default_rng(2)
    chosen = EVERY * rng.integers(-(-m // (STRETCH * EVERY)), size=n)
    rows = np.stack(
        [content(stretch, features)[rng.integers(min(STRETCH, m - stretch * STRETCH))] for stretch in chosen]
    )
    return rows + np.float32(1 / features**0.5) * rng.standard_normal(rows.shape, dtype=np.float32)


# --- what is in memory, and what is read --------------------------------------------------------------------------


def group_limit():
    """Return the limit of memory of this process's control group in bytes, or None."""
    limits = []
    for line in Path("/proc/self/cgroup").read_text().splitlines() if Path("/proc/self/cgroup").exists() else ():
        _, controllers, group = line.split(":", 2)
        name = "memory.max" if controllers == "" else "memory.limit_in_bytes"
        root = "/sys/fs/cgroup" if controllers == "" else "/sys/fs/cgroup/memory"
        if controllers in ("", "memory") and (file := Path(root + group, name)).exists():
            limits += [int(text) for text in [file.read_text().strip()] if text.isdigit()]
    return min(limits, default=None)


class Resident(threading.Thread):
    """Looks at the resident memory of this process and of a file, keeps the peaks, and gives the file's pages back."""

    def __init__(self, path, limit):
        super().__init__(daemon=True)
        self.path, self.limit, self.stopped = os.path.realpath(path), limit, threading.Event()
        self.descriptor = os.open(path, os.O_RDONLY)
        group = group_limit()
        self.enforced = group is not None and group <= limit
        self.peaks = {"own": 0, "file": 0, "both": 0}
        self.brought, self.given_back, self.lock = 0, 0, threading.Lock()

    def cached(self):
        """Return how many bytes of the file are in the page cache."""
        everything, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
        if LIBC.syscall(CACHESTAT, self.descriptor, everything, found, 0):
            raise OSError(ctypes.get_errno(), "cachestat, which Linux has from 6.5 on")
        return found[0] * PAGE

    def look(self):
        """Note what is resident; return the bytes of the file that are, and all bytes."""
        own, cached = resources.process_memory("RssAnon"), self.cached()
        for name, size in (("own", own), ("file", cached), ("both", own + cached)):
            self.peaks[name] = max(self.peaks[name], size)
        return cached, own + cached

    def give_back(self, start=0):
        """Take the file's pages, from a byte of it on, from this process and from the page cache."""
        with open("/proc/self/maps", encoding="utf-8") as file:
            mapped = [line.split()[0] for line in file if line.rstrip("\n").endswith(self.path)]
        for text in mapped:
            first, last = (int(number, 16) for number in text.split("-"))
            LIBC.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)
        os.posix_fadvise(self.descriptor, start, 0, os.POSIX_FADV_DONTNEED)

    def run(self):
        """Look every 30 ms, and keep the limit."""
        while not self.stopped.wait(0.03):
            with self.lock:
                cached, both = self.look()
                if not self.enforced and both > (1 - MARGIN) * self.limit:
                    self.give_back()
                    self.brought += cached - self.cached()
                    self.given_back += 1

    def measure(self, call, *, cold_from=None):
        """Run a call; return what it read, took and kept. cold_from: the file's pages from this byte on go before."""
        with self.lock:
            if cold_from is not None:
                self.give_back(cold_from)
            self.peaks = dict.fromkeys(self.peaks, 0)
            before, self.brought, self.given_back = self.cached(), 0, 0
        faults, read = major_faults(), bytes_read()
        wall, processor = harness.clocked(call)
        with self.lock:
            after, _ = self.look()
            return {
                "seconds": wall,
                "processor": processor,
                "from the disk": bytes_read() - read,
                "brought in": after - before + self.brought,
                "major faults": major_faults() - faults,
                "times given back": self.given_back,
                "peaks": dict(self.peaks),
            }


def bytes_read():
    """Return the bytes that this process has had read from disks."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def major_faults():
    """Return how many pages this process has waited for."""
    return int(Path("/proc/self/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[9])


# --- what is measured, each in a process of its own ---------------------------------------------------------------


def build(path, saved, limit, threads):
    """Map a .npy file, build the index, and save both to one file."""
    import sparsehopfield as sh

    sh.set_num_threads(threads)
    watch = Resident(path, limit)
    watch.start()
    made, found = [], {}

    def load():
        made.append(sh.HopfieldMemory(np.load(path, mmap_mode="r"), BETA, similarity="euclidean"))

    found["norms"] = watch.measure(load, cold_from=0)
    found["building the index"] = watch.measure(made[0].build_index, cold_from=0)
    found["index"] = made[0].index_nbytes
    with saving_with_holes():
        found["saving"] = watch.measure(lambda: made[0].save(saved, index=True), cold_from=0)
    return found


def ask(path, limit, threads, index, features, m, counts):
    """Load a memory through a map, with or without the index of its file, and ask queries of it."""
    import sparsehopfield as sh

    sh.set_num_threads(threads)
    queries = draw_queries(m, features, sum(counts))
    small = np.random.default_rng(1).random((2000, features), dtype=np.float32)
    sh.update(small[:300], small)  # libraries, threads and their buffers
    watch = Resident(path, limit)
    watch.start()
    made, answers, found = [], [], {}

    def load():
        made.append(sh.HopfieldMemory.load(path, mmap=True, index=index))

    def update(part):
        answers.append(made[0].update(part))

    found["loading"] = watch.measure(load, cold_from=0)
    found["index"] = made[0].index_nbytes
    first, one_by_one, batch = np.split(queries, np.cumsum(counts)[:-1])
    found["first query"] = watch.measure(lambda: update(first), cold_from=0)
    steps = [watch.measure(lambda q=q: update(q[None])) for q in one_by_one]
    found["one query"] = mean_of(steps)
    found["batch"] = watch.measure(lambda: update(batch), cold_from=0)
    # The index lies before the patterns: all of it is read once, then pages behind it are given back before each query.
    start = os.path.getsize(path) - m * features * 4
    if found["index"]:
        with open(path, "rb") as file:
            while file.tell() < start:
                file.read(min(1 << 24, start - file.tell()))
        steps = [watch.measure(lambda q=q: update(q[None]), cold_from=start) for q in one_by_one]
        del answers[-len(steps) :]
        found["index in memory"] = mean_of(steps)
    np.save(Path(path).parent / f"answers-{index}.npy", np.concatenate(answers))
    return found


def mean_of(steps):
    """Return the means of what `Resident.measure` returned of several calls, and the largest of the peaks."""
    mean = {name: float(np.mean([step[name] for step in steps])) for name in steps[0] if name != "peaks"}
    return mean | {"peaks": {name: max(step["peaks"][name] for step in steps) for name in steps[0]["peaks"]}}


def child(what, **options):
    """Run one of the two above in a new process."""
    command = [sys.executable, __file__, "--child", json.dumps({"what": what, **options})]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"failed: {what} {options}")
    return json.loads(done.stdout.splitlines()[-1])


# --- the reference ------------------------------------------------------------------------------------------------


def check(answers, queries, m, features):
    """Raise unless answers (N, features) are those of the reference; return the sizes of the supports."""
    import sparsehopfield as sh
    from sparsehopfield import reference

    wide = queries.astype(np.float64)
    norms = (wide**2).sum(1) / 2
    window = 1 / BETA + 1e-6  # a pattern so far below the best has no weight under sparsemax
    best, kept = np.full(len(queries), -np.inf), [[] for _ in queries]
    best = np.maximum(best, -norms)  # of a hole: a pattern of zeros
    zeros_matter = False
    for first in range(0, m, STRETCH * EVERY):
        rows = content(first // STRETCH, features)[: m - first]
        doubles = rows.astype(np.float64)
        scores = wide @ doubles.T - (doubles**2).sum(1) / 2 - norms[:, None]
        best = np.maximum(best, scores.max(1))
        for i in range(len(queries)):
            near = np.flatnonzero(scores[i] >= best[i] - window)
            kept[i] += [(first + j, scores[i, j], rows[j]) for j in near]
    supports = []
    for i, query in enumerate(queries):
        zeros_matter |= -norms[i] >= best[i] - window
        near = np.stack([row for _, score, row in kept[i] if score >= best[i] - window])
        memory = sh.HopfieldMemory(near, BETA, similarity="euclidean")
        assert memory.update(query).tobytes() == answers[i].tobytes(), f"query {i}: other bits than the reference's"
        plain = reference.update(query.astype(np.float64), near.astype(np.float64), BETA, similarity="euclidean")
        assert np.allclose(answers[i], plain, rtol=1e-5, atol=1e-6), f"query {i}: not what the reference computes"
        supports.append(memory.associate(query).nnz)
    assert not zeros_matter, "holes are within reach of a query: choose another beta"
    return np.array(supports)


# --- the table ----------------------------------------------------------------------------------------------------


def megabytes(size):
    """Write a size in bytes."""
    return f"{size / GB:.3g} GB" if size >= GB else f"{size / 1e6:.3g} MB"


def put(table, work, step, size):
    """Add a row: what was brought into memory of the file, as a share of it."""
    peaks = step["peaks"]
    table.put(
        work,
        megabytes(step["brought in"]),
        "the patterns",
        megabytes(size),
        step["brought in"] / size,
        "",
        None,
        f"from the disk {megabytes(step['from the disk'])}; {step['major faults']:.4g} major faults; "
        f"{step['seconds']:.3g} s ({step['processor']:.3g} s of processors); resident at most "
        f"{megabytes(peaks['both'])}, its own {megabytes(peaks['own'])}",
        step,
    )


def main():
    """Make the file, build its index, ask with it and without, and compare with the reference."""

    def options(parser):
        parser.add_argument("--folder", help="room on a disk for 6 GB (default: where temporary files go)")
        parser.add_argument("--size", type=float, default=20.0, help="of the patterns, in GB (default 20)")
        parser.add_argument("--limit", type=float, default=4.0, help="of resident memory, in GB (default 4)")
        parser.add_argument("--child", help=argparse.SUPPRESS)

    arguments = harness.start(__doc__.splitlines()[0], options)
    if arguments.child:
        given = json.loads(arguments.child)
        print(json.dumps({"build": build, "ask": ask}[given.pop("what")](**given)))
        return
    size, limit = (0.2, 0.1) if arguments.quick else (arguments.size, arguments.limit)
    # The first query, those asked one by one, and those asked together; a scan of all for each takes its time.
    every = {False: (1, 2, 22), "auto": (1, 4, 20)} if arguments.quick else {False: (1, 3, 237), "auto": (1, 40, 200)}
    m = -(-int(size * GB) // (4 * FEATURES * STRETCH)) * STRETCH
    limit = int(limit * GB) + (resources.process_memory("VmRSS") if arguments.quick else 0)
    table = harness.Table(harness.set_up(arguments))
    group = group_limit()
    kept = "its control group" if group is not None and group <= limit else "the script (see its first lines)"
    print(f"{m:,} patterns, {megabytes(m * 4 * FEATURES)}; {megabytes(limit)} of resident memory, kept by {kept}\n")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as room:
        patterns, saved = f"{room}/patterns.npy", f"{room}/memory.safetensors"
        real = write_patterns(patterns, m, FEATURES)
        on_disk = os.stat(patterns).st_blocks * 512
        print(f"{real:,} patterns have content; the file takes {megabytes(on_disk)} of the disk\n", flush=True)
        bytes_, common = m * 4 * FEATURES, {"limit": limit, "threads": arguments.threads}
        found = {"build": child("build", path=patterns, saved=saved, **common)}
        for name in ("norms", "building the index", "saving"):
            put(table, name, found["build"][name], bytes_)
        os.remove(patterns)
        queries, answers = draw_queries(m, FEATURES, sum(every["auto"])), []
        for index, counts in every.items():
            words = "without an index" if index is False else "index in the file"
            found[words] = child("ask", path=saved, index=index, features=FEATURES, m=m, counts=counts, **common)
            shown = {
                "loading": "loading",
                "first query": "first query, cold",
                "one query": f"next {counts[1]}, each",
                "index in memory": f"{counts[1]}, each, patterns cold",
                "batch": f"{counts[2]} together, cold",
            }
            for name in [name for name in shown if name in found[words]]:
                put(table, f"{words}: {shown[name]}", found[words][name], bytes_)
            answers.append(np.load(f"{room}/answers-{index}.npy"))
        table.put(
            "size of the index",
            megabytes(found["build"]["index"]),
            "the patterns",
            megabytes(bytes_),
            found["build"]["index"] / bytes_,
            "",
            None,
        )
        assert answers[0].tobytes() == answers[1].tobytes(), "index and scan give other bits"
        supports = check(answers[0], queries, m, FEATURES)
    most = max(s["peaks"]["both"] for part in found.values() for s in part.values() if isinstance(s, dict))
    table.put(
        "resident at most", megabytes(most), "the limit", megabytes(limit), most / limit, "below it", most < limit
    )
    print(
        f"\nall {len(queries)} answers are the reference's; supports of {supports.min()} to {supports.max()} patterns"
    )
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
