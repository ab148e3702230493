"""Indexes are built where they are wanted, and by themselves only where the memory that is left holds them."""

import copy
import pickle
import sys

import numpy as np
import pytest
from helpers import hook, run_python, same_bits

import sparsehopfield as sh
from sparsehopfield import _core
from sparsehopfield._engine import files
from sparsehopfield.errors import FileFormatError
from sparsehopfield.structures import TopK

GB = 1 << 30
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says what memory is left")
rng = np.random.default_rng(0)
X = rng.standard_normal((4096, 64)).astype(np.float32)
QUERIES = (X[:2048] + 0.1 * rng.standard_normal((2048, 64))).astype(np.float32)


# --- how much memory is left ------------------------------------------------------------------------------


def system(tmp_path, content):
    """Write files as a system has them, under a root of their own."""
    for name, text in content.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path)


MACHINE = {"proc/meminfo": f"MemTotal: {64 << 20} kB\nMemFree: 1 kB\nMemAvailable:   {32 << 20} kB\nSwapFree: 0 kB\n"}
V2_MOUNT = "30 23 0:27 {top} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "32 31 0:29 {top} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def group(folder, most, used, cache=0, version=2, **more):
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    total = "" if version == 2 else "total_"
    stat = f"anon 5\n{total}inactive_file {cache // 2}\nunevictable 0\n{total}active_file {cache - cache // 2}\n"
    content = {names[0]: f"{most}\n", names[1]: f"{used}\n", "memory.stat": stat} | more
    return {f"{folder}/{name}": text for name, text in content.items()}


def v2(path, groups, top="/"):
    base = {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": V2_MOUNT.format(top=top)}
    return MACHINE | base | groups


def v1(path, groups, top="/"):
    lists = f"9:name=systemd:/x\n4:memory:{path}\n1:cpu,cpuacct:/elsewhere\n0::/\n"
    return MACHINE | {"proc/self/cgroup": lists, "proc/self/mountinfo": V1_MOUNT.format(top=top)} | groups


TOP, MEMORY = "sys/fs/cgroup", "sys/fs/cgroup/memory"
NO_LIMIT = 9223372036854771712  # as version 1 says it
SYSTEMS = {
    "machine": (MACHINE, 32 * GB),
    "nothing known": ({"proc/cpuinfo": ""}, None),
    "garbage": (
        {"proc/meminfo": "?", "proc/self/cgroup": "::::\n\0\n", "proc/self/mountinfo": "- cgroup2\n - cgroup2\n"},
        None,
    ),
    "v2": (v2("/a", group(f"{TOP}/a", 2 * GB, GB)), GB),
    "v2, cache counts as free": (v2("/a", group(f"{TOP}/a", 2 * GB, 2 * GB - 10, cache=GB)), GB + 10),
    "v2, all taken": (v2("/a", group(f"{TOP}/a", GB, 2 * GB)), 0),
    "v2, no limit": (v2("/a", group(f"{TOP}/a", "max", GB)), 32 * GB),
    "v2, limit above": (v2("/a/b/c", group(f"{TOP}/a", 3 * GB, GB) | group(f"{TOP}/a/b/c", "max", GB)), 2 * GB),
    "v2, least of two": (v2("/a/b", group(f"{TOP}/a", 8 * GB, GB) | group(f"{TOP}/a/b", 6 * GB, GB)), 5 * GB),
    "v2, in a container": (v2("/", group(TOP, 4 * GB, GB)), 3 * GB),
    "v2, of a container": (v2("/docker/x", group(TOP, 4 * GB, GB), top="/docker/x"), 3 * GB),
    "v2, elsewhere": (v2("/../y", group(TOP, 4 * GB, GB)), 3 * GB),
    "v2, throttled": (v2("/a", group(f"{TOP}/a", 4 * GB, GB, **{"memory.high": f"{2 * GB}\n"})), GB),
    "v2, more than the machine": (v2("/a", group(f"{TOP}/a", 400 * GB, GB)), 32 * GB),
    "v2, no usage": (v2("/a", {f"{TOP}/a/memory.max": "5\n"}), 32 * GB),
    "v2, no statistics": (
        v2("/a", {f"{TOP}/a/memory.max": f"{2 * GB}\n", f"{TOP}/a/memory.current": f"{GB}\n"}),
        GB,
    ),
    "v1": (v1("/p/q", group(f"{MEMORY}/p/q", 700 << 20, 200 << 20, 100 << 20, version=1)), 600 << 20),
    "v1, no limit": (v1("/p", group(f"{MEMORY}/p", NO_LIMIT, GB, version=1)), 32 * GB),
    "v1, limit above": (
        v1("/p/q", group(f"{MEMORY}/p", 2 * GB, GB, version=1) | group(f"{MEMORY}/p/q", NO_LIMIT, GB, version=1)),
        GB,
    ),
    "v1, of a container": (v1("/docker/z", group(MEMORY, 2 * GB, GB, version=1), top="/docker/z"), GB),
    "v1, of a container of its own": (
        v1("/docker/z/w", group(f"{MEMORY}/w", 3 * GB, GB, version=1), top="/docker/z"),
        2 * GB,
    ),
    "v1, only another controller": (
        MACHINE
        | {"proc/self/cgroup": "1:cpu:/a\n0::/\n", "proc/self/mountinfo": V1_MOUNT.format(top="/")}
        | group(f"{MEMORY}/a", 1, 1, version=1),
        32 * GB,
    ),
}


@linux
@pytest.mark.parametrize("name", SYSTEMS)
def test_memory_that_is_left(tmp_path, name):
    content, wanted = SYSTEMS[name]
    left = hook("_available_memory")
    limits = left(str(tmp_path / "empty"))  # of this process itself, if it has any
    assert left(system(tmp_path, content)) == min(limits, limits if wanted is None else wanted)


@linux
def test_available_memory_here():
    assert 0 < hook("_available_memory")("") < 1 << 50


@linux
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_process_itself(limit):
    hook("_available_memory")
    code = (
        "import json, resource, sys\n"
        "from sparsehopfield import _core\n"
        "before = _core._available_memory('')\n"
        "field = {'RLIMIT_AS': 'VmSize', 'RLIMIT_DATA': 'VmData'}[sys.argv[1]]\n"
        "used = next(int(l.split()[1]) << 10 for l in open('/proc/self/status') if l.startswith(field))\n"
        "resource.setrlimit(getattr(resource, sys.argv[1]), (used + (300 << 20), resource.RLIM_INFINITY))\n"
        "print(json.dumps([before, _core._available_memory('')]))\n"
    )
    before, after = run_python(code, limit)
    assert abs(after - min(before, 300 << 20)) < 64 << 20


# --- who builds ---------------------------------------------------------------------------------------------


@pytest.fixture
def left():
    pretend = hook("_set_available_memory")
    yield pretend
    pretend(-1)


PLAIN = sh.HopfieldMemory(X, 4.0, index=False).update(QUERIES)
CALLS = {
    "update": lambda memory: memory.update(QUERIES),
    "retrieve": lambda memory: memory.retrieve(QUERIES, max_steps=2, tol=1.0),
    "associate": lambda memory: memory.associate(QUERIES).toarray(),
    "energy": lambda memory: memory.energy(QUERIES),
    "certify": lambda memory: memory.certify(QUERIES).gap,
    "margin": lambda memory: memory.margin(),
    "radius": lambda memory: memory.exact_radius(),
    "fixed points": lambda memory: memory.is_fixed_point(),
    "duplicates": lambda memory: memory.duplicates(1e-3).pairs,
    "k best": lambda memory: _with(memory, TopK(4)).update(QUERIES),
}


def _with(memory, structure):
    memory.structure = structure
    return memory


@pytest.mark.parametrize("call", CALLS)
def test_every_call_heeds_what_is_left(left, call):
    results = []
    for index, bytes_left, built in (
        ("auto", 1 << 40, True),
        ("auto", 1 << 18, False),
        ("auto", 0, False),
        (True, 0, True),
        (False, 1 << 40, False),
    ):
        left(bytes_left)
        memory = sh.HopfieldMemory(X, 4.0, index=index)
        assert (memory.index_nbytes > 0) == (index is True)
        results.append(CALLS[call](memory))
        if (
            call not in ("energy", "fixed points", "duplicates") or not built or index is True
        ):  # not all pay for these patterns
            assert (memory.index_nbytes > 0) == built, (index, bytes_left)
    for result in results[1:]:
        assert same_bits(result, results[0])


@pytest.mark.parametrize("index", ["auto", True, False])
@pytest.mark.parametrize("enough", [True, False])
def test_functions_heed_it(monkeypatch, left, index, enough):
    made = []

    class Watched(sh.functional.PatternSet):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(sh.functional, "PatternSet", Watched)
    left(1 << 40 if enough else 0)
    functions = {
        "update": sh.update,
        "retrieve": lambda *a, **k: sh.retrieve(*a, max_steps=1, tol=10.0, **k),
        "energy": sh.energy,
        "associate": lambda *a, **k: sh.associate(*a, **k).toarray(),
        "candidates": lambda *a, **k: sh.candidates(*a, **k).score,
    }
    for name, function in functions.items():
        plain = function(QUERIES, X, 4.0, index=False)
        assert same_bits(function(QUERIES, X, 4.0, index=index), plain), name
        built = _core.index_nbytes(made[-1].core(np.dtype(np.float32))) > 0
        assert built == (index is True or (index == "auto" and enough)), name


def test_half_of_what_is_left_is_enough(left):
    memory = sh.HopfieldMemory(X, 4.0, index=True)
    needed = memory.index_nbytes + 2048 * 64 * 12
    for bytes_left, built in ((2 * needed + 100_000, True), (2 * needed - 200_000, False)):
        left(bytes_left)
        memory = sh.HopfieldMemory(X, 4.0)
        assert same_bits(memory.update(QUERIES), PLAIN)
        assert (memory.index_nbytes > 0) == built


def test_an_index_is_built_once_there_is_room(left):
    left(0)
    memory = sh.HopfieldMemory(X, 4.0)
    for _ in range(3):
        memory.update(QUERIES)
    assert memory.index_nbytes == 0
    left(1 << 40)
    for _ in range(3):
        assert same_bits(memory.update(QUERIES), PLAIN)
    assert memory.index_nbytes > 0


def test_building_by_name_asks_nobody(left):
    left(0)
    memory = sh.HopfieldMemory(X, 4.0)
    memory.build_index()
    assert memory.index_nbytes > 0
    assert same_bits(memory.update(QUERIES), PLAIN)


@pytest.mark.parametrize("structure", ["low rank", "none"])
def test_an_index_stays_in_use_where_there_is_no_room_for_a_second(left, structure):
    x = rng.standard_normal((4096, 400)).astype(np.float32)
    if structure == "low rank":
        x = (rng.standard_normal((4096, 40)) @ rng.standard_normal((40, 400))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1)[:, None]
    queries = rng.standard_normal((600, 400)).astype(np.float32)
    queries[:, 200:] = 0
    left(0)
    memory = sh.HopfieldMemory(x, 8.0, index="auto")
    memory.build_index()
    bytes_before = memory.index_nbytes
    for n in (600, 600, 1200):
        asked = np.vstack([queries] * (n // 600))
        assert same_bits(memory.update(asked), sh.update(asked, x, 8.0, index=False))
    assert memory.index_nbytes == bytes_before > 0


def test_growing(left):
    for index, bytes_left, built in (("auto", 1 << 40, True), ("auto", 0, False), (True, 0, True), (False, 0, False)):
        left(1 << 40)
        memory = sh.HopfieldMemory(X[:3000], 4.0, index=index)
        memory.update(QUERIES)
        left(bytes_left)
        memory.add(X[3000:])
        assert same_bits(memory.update(QUERIES), PLAIN)
        assert (memory.index_nbytes > 0) == built
        memory.remove(slice(3000, None))
        memory.add(X[3000:])
        for _ in range(2):
            assert same_bits(memory.update(QUERIES), PLAIN)
        assert memory.index == index
        assert (memory.index_nbytes > 0) == built


# --- the setting ----------------------------------------------------------------------------------------------


def test_it_may_be_changed(left):
    memory = sh.HopfieldMemory(X, 4.0, ids=np.arange(4096) + 7)
    memory.add(X[:1] * 2, ids=[3])
    memory.remove(4096)
    assert memory.index == "auto"
    memory.update(QUERIES)
    assert (had := memory.index_nbytes) > 0
    for index, there in ((True, True), ("auto", True), (False, False), (False, False), ("auto", False), (True, True)):
        memory.index = index
        assert memory.index == index
        assert (memory.index_nbytes > 0) == there
        assert same_bits(memory.update(QUERIES[:100]), PLAIN[:100])
        assert memory.ids[0] == 7
    assert memory.index_nbytes == had
    memory.index = False
    memory.update(QUERIES)
    memory.margin()
    assert memory.index_nbytes == 0
    with pytest.raises(ValueError, match=r"^index: is False, so that calls scan"):
        memory.build_index()
    assert "index=False" in repr(memory)
    memory.add(X[:5])
    assert (memory.index, memory.index_nbytes) == (False, 0)


@pytest.mark.parametrize("index", ["auto", True, False])
def test_it_goes_with_copies_and_files(tmp_path, index):
    memory = sh.HopfieldMemory(X, 4.0, index=index)
    path = tmp_path / "memory"
    memory.save(path)
    others = [
        copy.copy(memory),
        copy.deepcopy(memory),
        pickle.loads(pickle.dumps(memory)),
        sh.HopfieldMemory.load(path),
        sh.HopfieldMemory.load(path, mmap=True),
    ]
    for other in others:
        assert other.index == index
        assert (other.index_nbytes > 0) == (index is True)
        assert same_bits(other.update(QUERIES), PLAIN)
    for wanted in ("auto", True, False):
        other = sh.HopfieldMemory.load(path, mmap=True, index=wanted)
        assert other.index == wanted
        assert (other.index_nbytes > 0) == (wanted is True or (wanted == "auto" and index is True))  # as it was saved


def test_files_without_the_setting_are_as_they_were(tmp_path):
    """What is saved by default is read by versions that do not know of it."""
    assert set(files._fields_of(files.Model("dot", "softmax", 1.0, 1.0))) == files.FIELDS - {"data", "header"}


@pytest.mark.parametrize("text", ["1", "True", "", "null", '"auto"', "[]"])
def test_files_with_another_setting(tmp_path, monkeypatch, text):
    path, real = tmp_path / "memory", files._fields_of
    monkeypatch.setattr(files, "_fields_of", lambda model: real(model) | {"index": text})
    sh.HopfieldMemory(X[:3]).save(path)
    with pytest.raises(FileFormatError, match="index: unknown"):
        sh.HopfieldMemory.load(path)


@pytest.mark.parametrize("wrong", [None, 1, 0, 1.5, "yes", "", b"auto", [True]])
def test_other_settings_are_refused(tmp_path, wrong):
    memory = sh.HopfieldMemory(X[:3])
    memory.save(tmp_path / "memory")
    calls = [
        lambda: sh.HopfieldMemory(X[:3], index=wrong),
        lambda: setattr(memory, "index", wrong),
        lambda: sh.update(X[:2], X[:3], index=wrong),
        lambda: sh.candidates(X[:2], X[:3], index=wrong),
    ]
    if wrong is not None:  # as it was saved
        calls.append(lambda: sh.HopfieldMemory.load(tmp_path / "memory", index=wrong))
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=r"^index: must be 'auto', True or False, got"):
            call()
    assert memory.index == "auto"


# --- under a limit of the system's ------------------------------------------------------------------------------

LIMITED = """
import json, resource, sys
import numpy as np
import sparsehopfield as sh

sh.set_num_threads(1)
path, index = sys.argv[1], json.loads(sys.argv[2])
memory = sh.HopfieldMemory.load(path, mmap=True, index=index)
queries = np.array(memory.patterns[:2000])
whole = memory.update(queries[:16])
used = next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[3]), resource.RLIM_INFINITY))
states = memory.update(queries)
built = memory.index_nbytes
other = np.ones(int(sys.argv[4]) // 8)  # there is memory for others, too
print(json.dumps([bool((states == queries).all() and (whole == queries[:16]).all()), built]))
"""


@linux
@pytest.mark.resources
def test_a_mapped_memory_asked_under_a_limit(tmp_path):
    m, d = 60_000, 256
    path = tmp_path / "memory"
    sh.HopfieldMemory(rng.standard_normal((m, d)).astype(np.float32), 50.0).save(path)
    index = sh.HopfieldMemory.load(path, mmap=True, index=True).index_nbytes
    limit = 30 << 20
    assert index < limit - (4 << 20)  # it could be built, and leave the others nothing
    right, built = run_python(LIMITED, path, '"auto"', limit, limit // 3)
    assert right
    assert built == 0
    right, built = run_python(LIMITED, path, '"auto"', 20 * index, index)
    assert right
    assert built > 0
    right, built = run_python(LIMITED, path, "false", limit, limit // 3)
    assert right
    assert built == 0


def test_copies_share_an_index_that_waits_to_be_grown(left):
    """A copy between `add` and the call that grows the index leaves the original what it had."""
    left(1 << 40)
    memory = sh.HopfieldMemory(X[:3000], 4.0)
    memory.build_index()
    memory.add(X[3000:])
    others = [copy.deepcopy(memory) for _ in range(3)]
    memory.index = True
    for other in (memory, *others):
        assert same_bits(other.update(QUERIES), PLAIN)
        assert other.index_nbytes > 0
    del memory, other
    assert same_bits(others.pop().update(QUERIES), PLAIN)
