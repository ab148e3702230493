"""Files: every bit comes back; whatever is wrong with a file is said; a save is all or nothing."""

import json
import math
import os
import pickle
import stat
import struct
import sys
import threading

import numpy as np
import pytest
from helpers import TABLE_MAPS, digest, name_of, run_python, same_bits
from safetensors.numpy import load_file, save_file

import sparsehopfield as sh
from sparsehopfield._engine import files

rng = np.random.default_rng(12)
PATTERNS = rng.normal(size=(7, 5)).astype(np.float32)
VALUES = rng.normal(size=(7, 3)).astype(np.float16)
QUERIES = rng.normal(size=(4, 5)).astype(np.float32)


def a_memory(**options):
    """A memory with everything that a file can hold."""
    options = {"beta": 0.7, "values": VALUES, "ids": np.arange(7) * 3, "separation": sh.Entmax(1.3)} | options
    return sh.HopfieldMemory(PATTERNS, **options)


def answers(memory):
    """The bits of a memory: what it holds and what it says."""
    top = None if memory.separation not in ("softmax", sh.Polynomial(3)) else 3
    arrays = memory.patterns, memory.values, memory.ids, memory.update(QUERIES), memory.associate(QUERIES, top=top)
    model = f"{memory.similarity} {memory.separation} {memory.beta!r} {memory.scale!r} {memory!r}"
    return digest(*arrays), model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.safetensors"


@pytest.fixture
def whole(path):
    """A good file, in bytes."""
    a_memory().save(path)
    return path.read_bytes()


def header_of(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put(path, header, data, pad=b" "):
    """Write a file of this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += pad * (-(8 + len(text)) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def sealed(header):
    """Give a header the checksum that belongs to it: what is wrong with it was meant."""
    tensors = sorted((v["data_offsets"], k) for k, v in header.items() if k != "__metadata__")
    listed = [(k, header[k]["dtype"], tuple(header[k]["shape"])) for _, k in tensors]
    header["__metadata__"]["header"] = files._header_checksum(header["__metadata__"], listed)
    return header


# --- there and back -------------------------------------------------------------------------------------


MAPS = ["sparsemax", "softmax", "entmax15", sh.Entmax(1.1), sh.Polynomial(3), *TABLE_MAPS]


@pytest.mark.covering(1)
@pytest.mark.parametrize("separation", MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float32, None), (np.float64, None), (np.float16, 0.1), (np.uint8, 3.7)], ids=str
)
def test_every_bit_comes_back(path, dtype, scale, similarity, separation):
    patterns = (PATTERNS * 10 + 100).astype(dtype)
    for values in (None, VALUES, VALUES.astype(float)):
        for ids in (None, np.arange(7) - 10**15):
            memory = sh.HopfieldMemory(
                patterns, 0.1, values=values, similarity=similarity, separation=separation, ids=ids, scale=scale
            )
            memory.save(path)
            for mmap in (False, True):
                for verify in (False, True):
                    again = sh.HopfieldMemory.load(path, mmap=mmap, verify=verify)
                    assert answers(again) == answers(memory)
                    again.verify()


@pytest.mark.parametrize("beta", [0.1, 1, 1e-300, 5e-324, 1.7976931348623157e308, np.float32(0.1), np.array(2.5)])
def test_beta_is_exact(path, beta):
    sh.HopfieldMemory(PATTERNS, beta).save(path)
    again = sh.HopfieldMemory.load(path)
    assert type(again.beta) is float
    assert again.beta == float(beta)


def test_one_beta_per_query_is_no_part_of_a_memory(path):
    memory = sh.HopfieldMemory(PATTERNS, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"^beta:.*one number"):
        memory.save(path)
    assert not path.exists()
    memory.beta = 2.0
    memory.save(path)


def test_it_is_a_safetensors_file(path):
    memory = a_memory()
    memory.save(path)
    tensors = load_file(path)
    assert set(tensors) == {"patterns", "values", "ids"}
    assert same_bits(tensors["patterns"], PATTERNS)
    assert same_bits(tensors["values"], VALUES)
    assert same_bits(tensors["ids"], memory.ids)
    header, _ = header_of(path.read_bytes())
    fields = header["__metadata__"]
    assert fields.keys() == files.FIELDS
    assert fields["format"] == "sparsehopfield.memory"
    assert fields["beta"] == (0.7).hex()
    assert fields["separation"] == "entmax " + (1.3).hex()
    # and what that package writes of it is read
    save_file(tensors, path, fields)
    assert answers(sh.HopfieldMemory.load(path, mmap=True)) == answers(memory)


def test_the_same_memory_gives_the_same_file(path, whole):
    for _ in range(3):
        a_memory().save(path)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint8], ids=lambda t: t.__name__)
def test_tensors_are_aligned(path, dtype):
    for m in (1, 2, 3):
        for d in (1, 3, 5):
            patterns = np.ones((m, d), dtype)
            for values in (np.ones((m, 1), np.uint8), np.ones((m, 3), np.float16), np.ones((m, 1))):
                sh.HopfieldMemory(patterns, values=values, ids=range(m)).save(path)
                header, data = header_of(path.read_bytes())
                assert (path.stat().st_size - len(data)) % 64 == 0
                for name, tensor in header.items():
                    if name != "__metadata__":
                        size = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "U8": 1}[tensor["dtype"]]
                        assert tensor["data_offsets"][0] % size == 0
                memory = sh.HopfieldMemory.load(path, mmap=True)
                assert memory.patterns.flags.aligned
                assert isinstance(memory.patterns.base.base, np.memmap)


def test_rows_with_gaps_and_slices(path, monkeypatch):
    """Arrays are written and read some rows, some bytes at a time."""
    wide = rng.normal(size=(300, 20)).astype(np.float32)
    memory = sh.HopfieldMemory(wide[::2, 3:10], values=wide[::-2, ::-1])
    for size in (1, 27, 28, 29, 1000, 10**9):
        monkeypatch.setattr(files, "SLICE", size)
        memory.save(path)
        again = sh.HopfieldMemory.load(path, verify=True)
        assert same_bits(again.patterns, wide[::2, 3:10])
        assert same_bits(again.values, wide[::-2, ::-1])


def test_a_mapped_memory(path):
    a_memory().save(path)
    memory = sh.HopfieldMemory.load(path, mmap=True)
    before = answers(memory)
    assert not memory.patterns.flags.writeable
    memory.beta = 2.0
    memory.save(path)  # over the file that it is mapped from
    assert sh.HopfieldMemory.load(path).beta == 2.0
    memory.beta = 0.7
    assert answers(memory) == before
    os.remove(path)
    assert answers(memory) == before
    memory.add(PATTERNS[:2], VALUES[:2])
    memory.remove(0)
    memory.save(path)
    assert answers(sh.HopfieldMemory.load(path, mmap=True)) == answers(memory)
    again = pickle.loads(pickle.dumps(sh.HopfieldMemory.load(path, mmap=True)))
    assert answers(again) == answers(memory)


# --- what is wrong with a file --------------------------------------------------------------------------


def refused(path, match=None, **options):
    """Every way to load it says what is wrong, beginning with the path."""
    for mmap in (False, True):
        with pytest.raises(sh.FileFormatError, match=match) as caught:
            sh.HopfieldMemory.load(path, mmap=mmap, **options)
        assert str(caught.value).startswith(f"{path}: ")
        assert isinstance(caught.value, ValueError)


def test_cut_anywhere(path, whole):
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        refused(path, "is cut")
    for more in (b"\0", b" ", whole):
        path.write_bytes(whole + more)
        refused(path)


def test_a_bit_of_the_header_changed(path, whole):
    """In the length, the text or the padding: found without looking at the data."""
    end = 8 + int.from_bytes(whole[:8], "little")
    for i in range(end):
        for bit in (i % 8, 5):  # the sixth is that of upper and lower case
            data = bytearray(whole)
            data[i] ^= 1 << bit
            path.write_bytes(data)
            with pytest.raises(sh.FileFormatError):
                sh.HopfieldMemory.load(path, mmap=i % 2 == 0)


def test_a_bit_of_the_data_changed(path, whole):
    start = 8 + int.from_bytes(whole[:8], "little")
    for i in range(start, len(whole)):
        data = bytearray(whole)
        data[i] ^= 1 << (i % 8)
        path.write_bytes(data)
        refused(path, "does not have its checksum", verify=True)


NESTED = b'{"__metadata__":' + b"[" * 30_000 + b"]" * 30_000 + b"}"

HOSTILE_TEXT = {
    "nothing": b"",
    "no JSON": b"\x80\x04\x95" + b"x" * 40,
    "an array": b"[]",
    "a number": b"1e999",
    "null": b"null",
    "not UTF-8": b'{"\xff": 1}',
    "nested deeply": NESTED,
    "empty": b"{}",
    "NaN": b'{"a": NaN}',
    "unfinished": b'{"__metadata__": {',
}


@pytest.mark.parametrize("name", HOSTILE_TEXT)
def test_hostile_headers(path, name):
    put(path, HOSTILE_TEXT[name], b"\0" * 64)
    refused(path)


def test_lengths_that_lie(path, whole):
    for length in (0, 1, 7, len(whole), len(whole) + 1, 2**31, 2**32 - 8, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1):
        path.write_bytes(length.to_bytes(8, "little") + whole[8:])
        refused(path)
    # a header within the file, but too long to be one of ours, is not even looked at
    header, data = header_of(whole)
    header["__metadata__"]["format"] = "x" * (1 << 20)
    put(path, header, data)
    refused(path, "header has")


def change(name, **entry):
    def apply(header):
        header[name] = header.get(name, {}) | entry

    return apply


def field(name, text):
    def apply(header):
        if text is None:
            del header["__metadata__"][name]
        else:
            header["__metadata__"][name] = text

    return apply


SEALED = {  # headers with the right checksum, so that every other check has to do its work
    "another format": (field("format", "sparsehopfield.index"), "holds no memory"),
    "no format": (field("format", None), "holds no memory"),
    "a later version": (field("version", "4"), "version '4'"),
    "no version": (field("version", None), "version None"),
    "one field too many": (field("more", "x"), "damaged"),
    "no beta": (field("beta", None), "damaged"),
    "beta NaN": (field("beta", "nan"), "beta"),
    "beta inf": (field("beta", "inf"), "beta"),
    "beta 0": (field("beta", "0x0p+0"), "beta"),
    "beta < 0": (field("beta", "-0x1p+0"), "beta"),
    "beta too large": (field("beta", "0x1p+99999"), None),
    "beta no number": (field("beta", "one"), None),
    "scale NaN": (field("scale", "nan"), "scale"),
    "scale 0": (field("scale", "0x0p+0"), "scale"),
    "scale of float32": (field("scale", "0x1p+1"), "scale"),
    "similarity": (field("similarity", "sparse"), "similarity"),
    "separation": (field("separation", "hardmax"), "separation"),
    "alpha missing": (field("separation", "entmax"), None),
    "alpha < 1": (field("separation", "entmax 0x1p-1"), "alpha"),
    "alpha NaN": (field("separation", "entmax nan"), "alpha"),
    "order 0": (field("separation", "polynomial 0"), "order"),
    "order endless": (field("separation", "polynomial " + "9" * 10_000), None),
    "a parameter too many": (field("separation", "sparsemax 2"), "separation"),
    "no patterns": (lambda h: h.__setitem__("rows", h.pop("patterns")), "must hold patterns"),
    "another tensor": (lambda h: h.__setitem__("more", h.pop("ids")), "may hold"),
    "patterns of int32": (change("patterns", dtype="I32"), "cannot be I32"),
    "patterns of bfloat16": (change("patterns", dtype="BF16", shape=[7, 10]), "cannot be BF16"),
    "values of bool": (change("values", dtype="BOOL", shape=[7, 6]), "cannot be BOOL"),
    "ids of float64": (change("ids", dtype="F64"), "cannot be F64"),
    "one dimension": (change("patterns", shape=[35]), "shape"),
    "three dimensions": (change("patterns", shape=[7, 5, 1]), "shape"),
    "no dimension": (change("ids", shape=[]), None),
    "another number of patterns": (change("patterns", shape=[5, 7]), "shape"),
    "another number of values": (change("values", shape=[3, 7]), "shape"),
    "no patterns at all": (change("patterns", shape=[0, 5]), None),
    "sizes that overflow": (change("patterns", shape=[2**62, 2**62]), None),
    "sizes that wrap to the right one": (change("patterns", shape=[7 + 2**61, 5]), None),
    "a negative size": (change("patterns", shape=[-7, -5]), None),
    "a size that is no number": (change("patterns", shape=["7", 5]), None),
    "tensors that overlap": (change("values", data_offsets=[56, 98]), None),
    "a hole": (change("values", data_offsets=[200, 242]), None),
    "an end before the beginning": (change("values", data_offsets=[238, 196]), None),
    "an end beyond the file": (change("values", data_offsets=[196, 2**40]), None),
    "negative offsets": (change("ids", data_offsets=[-56, 0]), None),
    "unknown dtype": (change("ids", dtype="F12"), None),
}


@pytest.mark.parametrize("name", SEALED)
def test_headers_of_the_right_checksum(path, whole, name):
    header, data = header_of(whole)
    apply, match = SEALED[name]
    apply(header)
    put(path, sealed(header), data)
    refused(path, match)


def test_metadata_that_is_no_text(path, whole):
    for wrong in (3, None, [], {}, 1.5, True):
        header, data = header_of(whole)
        header["__metadata__"]["beta"] = wrong
        put(path, header, data)
        refused(path)
    for wrong in (3, [], "text"):
        header["__metadata__"] = wrong
        put(path, header, data)
        refused(path)


def tensors_of(path, **arrays):
    """A file of these arrays with the right checksums."""
    model = files.Model("euclidean", "sparsemax", 1.0, 1.0)
    files.write(path, model, arrays)


def test_data_that_no_memory_can_have(path):
    nan = PATTERNS.copy()
    nan[3, 1] = np.nan
    tensors_of(path, patterns=nan)
    refused(path, "patterns: row 3")
    tensors_of(path, patterns=PATTERNS * np.float32(1e30))
    refused(path, "patterns: .*row 0")
    tensors_of(path, patterns=PATTERNS, ids=np.array([1, 2, 3, 4, 5, 6, 1]))
    refused(path, "ids: must be distinct")
    tensors_of(path, patterns=PATTERNS, values=nan)
    with pytest.raises(sh.FileFormatError, match=r"values: row 3"):
        sh.HopfieldMemory.load(path)
    sh.HopfieldMemory.load(path, mmap=True)  # does not look at values


def test_tensors_out_of_line(path):
    """Another order is another file: sizes are right, but numbers do not begin where they must."""
    header = {
        "__metadata__": files._fields_of(files.Model("dot", "sparsemax", 1.0, 1.0)) | {"data": "0" * 64},
        "values": {"dtype": "U8", "shape": [3, 1], "data_offsets": [0, 3]},
        "patterns": {"dtype": "F32", "shape": [3, 1], "data_offsets": [3, 15]},
    }
    put(path, sealed(header), b"\0" * 15)
    refused(path, "patterns: F32 numbers must be aligned")


@pytest.mark.parametrize("patterns", [[], [3], [1, 3, 1], [0, 3], [3, 0]], ids=str)
@pytest.mark.parametrize(
    "others", [{}, {"ids": [3]}, {"values": [3, 2]}, {"ids": [3], "values": []}, {"ids": []}], ids=str
)
def test_shapes_that_no_memory_has(path, others, patterns):
    """In any order in the file: what comes first is compared with patterns that may have no axis."""
    shapes = {name: others[name] for name in others} | {"patterns": patterns}
    header = {"__metadata__": files._fields_of(files.Model("dot", "sparsemax", 1.0, 1.0)) | {"data": "0" * 64}}
    at = 0
    for name, shape in shapes.items():
        dtype, size = ("I64", 8) if name == "ids" else ("F64", 8)
        end = at + size * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    put(path, sealed(header), b"\0" * at)
    refused(path, "cannot have shape")


def test_messages_are_bounded(path):
    for name in ("similarity", "separation", "format", "version", "beta"):
        fields = files._fields_of(files.Model("dot", "sparsemax", 1.0, 1.0)) | {"data": "0" * 64, name: "x" * 10**5}
        header = {"__metadata__": fields, "patterns": {"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]}}
        put(path, sealed(header), struct.pack("<d", 1.0))
        with pytest.raises(sh.FileFormatError) as caught:
            sh.HopfieldMemory.load(path)
        assert str(caught.value).startswith(str(path))
        assert len(str(caught.value)) <= 1000


def test_files_from_elsewhere(path, tmp_path):
    save_file({"weight": np.ones((3, 4), np.float32)}, path)
    refused(path, "holds no memory")
    save_file({"patterns": np.ones((3, 4), np.float32)}, path, {"format": "pt"})
    refused(path, "format is 'pt'")
    np.save(tmp_path / "a.npy", PATTERNS)
    refused(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", PATTERNS)
    refused(tmp_path / "a.npz")
    for text in (b"", b"x", b"\0" * 7, b"\0" * 8, b"\0" * 1000, b"\xff" * 1000, os.urandom(5000)):
        path.write_bytes(text)
        refused(path)


class Trap:
    """Unpickled, it would say so."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_a_pickle_is_never_loaded(path):
    path.write_bytes(pickle.dumps(Trap()))
    refused(path)


def test_paths(path, tmp_path):
    memory = a_memory()
    for wrong in (3, None, 1.5, ["x"]):
        with pytest.raises(TypeError, match=r"^path:"):
            memory.save(wrong)
        with pytest.raises(TypeError, match=r"^path:"):
            sh.HopfieldMemory.load(wrong)
    with pytest.raises(FileNotFoundError):
        sh.HopfieldMemory.load(path)
    with pytest.raises(FileNotFoundError):
        memory.save(tmp_path / "nowhere" / "memory")
    with pytest.raises(IsADirectoryError):
        sh.HopfieldMemory.load(tmp_path)
    with pytest.raises(IsADirectoryError):
        memory.save(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", "/dev/null", "/dev/zero"):
        if os.path.exists(special):
            refused(special, "no regular file")
            with pytest.raises(ValueError, match=r"^path:.*no regular file"):
                memory.save(special)
    for name in ("memory", "ümläut ☃", "x" * 255, ".hidden"):
        for given in (str(tmp_path / name), tmp_path / name, os.fsencode(tmp_path / name)):
            memory.save(given)
            assert answers(sh.HopfieldMemory.load(given)) == answers(memory)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]
    os.chdir(tmp_path)
    memory.save("here")
    assert answers(sh.HopfieldMemory.load("here", mmap=True)) == answers(memory)


@pytest.fixture(autouse=True)
def _same_folder():
    before = os.getcwd()
    yield
    os.chdir(before)


# --- all or nothing -------------------------------------------------------------------------------------


def test_modes_and_links(path, tmp_path):
    before = os.umask(0o027)
    try:
        a_memory().save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        a_memory(beta=2.0).save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)
    link = tmp_path / "link"
    link.symlink_to(path)
    a_memory(beta=3.0).save(link)
    assert link.is_symlink()
    assert sh.HopfieldMemory.load(path).beta == 3.0


@pytest.mark.parametrize("error", [OSError(28, "no space"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("step", ["builtins.open", "os.fchmod", "os.fsync", "os.replace", "slices"])
def test_a_failure_leaves_the_old_file_and_nothing_else(path, whole, monkeypatch, step, error):
    def fail(*arguments, **options):
        raise error

    def some_slices(a):
        yield from ()
        raise error

    if step == "slices":
        monkeypatch.setattr(files, "_slices", some_slices)
    else:
        monkeypatch.setattr(step, fail)
    memory = a_memory(beta=9.0)
    with pytest.raises(type(error)):
        memory.save(path)
    monkeypatch.undo()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == whole
    memory.save(path)
    assert sh.HopfieldMemory.load(path, verify=True).beta == 9.0


KILLED = """
import builtins, json, os, random, signal, sys, time
import numpy as np
import sparsehopfield as sh
from sparsehopfield import files

folder = sys.argv[1]
path = os.path.join(folder, "memory")
old = sh.HopfieldMemory(np.full((300, 500), 1, np.float32), 1.0)
new = sh.HopfieldMemory(np.full((400, 500), 2, np.float32), 2.0)

def forked(child):
    process = os.fork()
    if process == 0:
        try:
            child()
        finally:
            os._exit(7)
    return process

def state():
    memory = sh.HopfieldMemory.load(path, verify=True)
    return [memory.beta, len(memory), float(memory.patterns.min()), float(memory.patterns.max())]

def at_point(k):
    # every call that touches the file is a point before and one after it, and so is every slice
    count = 0
    def point():
        nonlocal count
        if count == k:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
    def around(function):
        def pointed(*arguments, **options):
            point()
            result = function(*arguments, **options)
            point()
            return result
        return pointed
    for name in ("open", "fchmod", "fsync", "replace", "close"):
        setattr(os, name, around(getattr(os, name)))
    builtins.open = around(open)
    slices = files._slices
    def pointed_slices(a):
        for part in slices(a):
            yield part
            point()
    files._slices, files.SLICE = pointed_slices, 100_000
    new.save(path)
    os._exit(0)

states = []
for k in range(1000):
    old.save(path)
    _, status = os.waitpid(forked(lambda: at_point(k)), 0)
    if os.WIFEXITED(status):
        states.append("finished" if os.WEXITSTATUS(status) == 0 else "failed")
        break
    states.append(state())

def saving():
    while True:
        old.save(path)
        new.save(path)

timed = []
for i in range(40):
    process = forked(saving)
    time.sleep(random.uniform(0.0, 0.03))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    timed.append(state())
left = sorted(set(os.listdir(folder)) - {"memory"})
print(json.dumps([states, timed, left]))
"""


def test_a_save_killed_at_any_point_leaves_a_whole_file(tmp_path):
    states, timed, left = run_python(KILLED, tmp_path)
    old, new = [1.0, 300, 1.0, 1.0], [2.0, 400, 2.0, 2.0]
    *states, last = states
    assert last == "finished"
    assert len(states) > 15
    assert all(s in (old, new) for s in [*states, *timed])
    assert states == sorted(states)  # the old one up to some point, the new one from there
    assert old in states
    assert new in states
    assert all(name.startswith(".sparsehopfield-") and name.endswith(".tmp") for name in left)


FULL = """
import json, os, resource, sys
import numpy as np
import sparsehopfield as sh

path = os.path.join(sys.argv[1], "memory")
sh.HopfieldMemory(np.ones((10, 50)), 1.0).save(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    sh.HopfieldMemory(np.ones((1000, 50)), 2.0).save(path)
    error = None
except OSError as caught:
    error = caught.errno
print(json.dumps([error, sh.HopfieldMemory.load(path, verify=True).beta, os.listdir(sys.argv[1])]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_full_disk(tmp_path):
    import errno

    assert run_python(FULL, tmp_path) == [errno.EFBIG, 1.0, ["memory"]]


LARGE = """
import json, resource, sys
import numpy as np
import sparsehopfield as sh

resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))
found = []
try:
    sh.HopfieldMemory.load(sys.argv[1])
except MemoryError:
    found.append("too large to read")
memory = sh.HopfieldMemory.load(sys.argv[1], mmap=True)
queries = np.zeros((2, 256), np.float32)
queries[0, 0] = queries[1, 1] = 1
states, info = memory.retrieve(queries, return_info=True)
found += [len(memory), states[:, :2].tolist(), info.support_size.tolist()]
print(json.dumps(found))
"""


@pytest.mark.resources
@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_memory_larger_than_the_memory_allowed(path):
    """Half a gigabyte, nearly all of it a hole in the file, within 300 MiB of data."""
    m, d = 2**19, 256
    fields = files._fields_of(files.Model("euclidean", "sparsemax", 50.0, 1.0)) | {"data": "0" * 64}
    header = {"__metadata__": fields, "patterns": {"dtype": "F32", "shape": [m, d], "data_offsets": [0, m * d * 4]}}
    put(path, sealed(header), b"")
    start = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(start + m * d * 4)
        for row in (0, 1):  # two unit vectors, far apart
            file.seek(start + (row * (m // 2) * d + row) * 4)
            file.write(np.float32(1).tobytes())
    found = run_python(LARGE, path)
    assert found == ["too large to read", m, [[1.0, 0.0], [0.0, 1.0]], [1, 1]]


# --- several at once ------------------------------------------------------------------------------------


def test_loading_while_another_saves(path):
    """A load sees one file, never the header of one and the data of another."""
    memories = [sh.HopfieldMemory(np.full((n, 40), n, np.float32), float(n)) for n in (3, 50, 700)]
    known = {len(m): answers_of_any(m) for m in memories}
    memories[0].save(path)
    done, errors = threading.Event(), []

    def save():
        while not done.is_set():
            for memory in memories:
                memory.save(path)

    def load(mmap):
        try:
            for _ in range(150):
                memory = sh.HopfieldMemory.load(path, mmap=mmap, verify=True)
                if answers_of_any(memory) != known[len(memory)]:
                    errors.append(len(memory))
        except Exception as error:
            errors.append(error)

    saver = threading.Thread(target=save)
    saver.start()
    loaders = [threading.Thread(target=load, args=(mmap,)) for mmap in (False, True)]
    for loader in loaders:
        loader.start()
    for loader in loaders:
        loader.join()
    done.set()
    saver.join()
    assert errors == []


def answers_of_any(memory):
    return digest(memory.patterns), memory.beta


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_replaced_between_two_looks(path, monkeypatch, mmap):
    """The safetensors package opens the path again; by then it may be another file."""
    import safetensors

    small, large = (sh.HopfieldMemory(np.full((n, 4), n, np.float32), float(n)) for n in (3, 500))
    real, times = safetensors.safe_open, iter([large, small, large])

    def replacing(*arguments, **options):
        memory = next(times, None)
        if memory is not None:
            memory.save(path)
        return real(*arguments, **options)

    small.save(path)
    monkeypatch.setattr(safetensors, "safe_open", replacing)
    again = sh.HopfieldMemory.load(path, mmap=mmap, verify=True)
    assert next(times, None) is None
    assert answers_of_any(again) == answers_of_any(large)


def test_many_saves_at_once(path):
    """The last to finish wins; nobody's data are mixed."""
    memories = [a_memory(beta=float(i + 1)) for i in range(4)]
    savers = [threading.Thread(target=lambda m=m: [m.save(path) for _ in range(25)]) for m in memories]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    again = sh.HopfieldMemory.load(path, verify=True)
    assert answers(again) == answers(memories[int(again.beta) - 1])
    assert [p.name for p in path.parent.iterdir()] == [path.name]
