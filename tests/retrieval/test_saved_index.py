"""Indexes in files: used in place of building them, the same bits; whatever is wrong with one, no answer shows it."""

import copy
import ctypes
import json
import mmap
import os
import pickle
import struct
import sys
import warnings

import numpy as np
import pytest
from helpers import fails_without_memory, hook, run_python, same_bits
from helpers import path as core_path
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield import _core
from sparsehopfield._engine import files

M = 2000
rng = np.random.default_rng(5)


def patterns(d, structured, dtype=np.float32):
    """Patterns of d features, with leading directions or without."""
    x = rng.standard_normal((M, d)) + 0.3
    if structured:
        x /= np.sqrt(1 + 0.3 * np.arange(d))
    return np.round(x * 20 + 100).clip(0, 255).astype(dtype) if dtype == np.uint8 else x.astype(dtype)


def queries_of(x, n=300):
    return (x[:n] + 0.2 * rng.standard_normal((n, x.shape[1]))).astype(
        np.float64 if x.dtype == np.float64 else np.float32
    )


def with_all_indexes(x, similarity="dot", **options):
    """A memory with the index that suits it, and one of all columns."""
    memory = sh.HopfieldMemory(x, 3.0, similarity=similarity, **options)
    for name in ("lines", "columns"):
        with core_path(name):
            memory.update(queries_of(x, 2))
    return memory


X = patterns(130, True)
Q = queries_of(X)
PLAIN = sh.HopfieldMemory(X, 3.0, index=False).update(Q)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.safetensors"


@pytest.fixture
def saved(path):
    memory = sh.HopfieldMemory(X, 3.0)
    memory.save(path, index=True)
    return memory


def header_of(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), 8 + length


def index_of(data):
    """Where the index lies in a file: its first byte, and the byte behind its last."""
    header, start = header_of(data)
    first, last = header[files.INDEX]["data_offsets"]
    return start + first, start + last


def load_with_warning(path, **options):
    with pytest.warns(sh.FileFormatWarning, match="its index is not used") as caught:
        memory = sh.HopfieldMemory.load(path, **options)
    assert str(caught[0].message).startswith(str(path))
    assert caught[0].filename == __file__
    return memory


# --- there and back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "structured", "dtype", "similarity"),
    [
        (40, False, np.float32, "euclidean"),
        (40, False, np.float64, "cosine"),
        (130, True, np.float64, "dot"),
        (130, True, np.float32, "cosine"),
        (300, True, np.float32, "euclidean"),
        (150, False, np.uint8, "dot"),
    ],
)
def test_it_is_used_in_place_of_building_one(path, d, structured, dtype, similarity):
    x = patterns(d, structured, dtype)
    options = {"similarity": similarity, "scale": 0.01 if dtype == np.uint8 else None}
    queries = queries_of(x * 0.01 if dtype == np.uint8 else x)
    memory = with_all_indexes(x, **options)
    plain = sh.HopfieldMemory(x, 3.0, index=False, **options).update(queries)
    memory.save(path)
    for mapped in (False, True):
        again = sh.HopfieldMemory.load(path, mmap=mapped, verify=True)
        assert again.index_nbytes == memory.index_nbytes > 0
        assert same_bits(_core.export_index(again._snapshot.pattern_set.core(again.dtype)), _saved_index(path))
        for name in ("auto", "lines", "columns"):
            with core_path(name):
                assert same_bits(again.update(queries), plain)
        # grown, shrunk and copied; the map goes with what needs it
        others = [copy.deepcopy(again), pickle.loads(pickle.dumps(again)), copy.copy(again)]
        again.add(x[:5])
        again.build_index()
        with core_path("lines"):
            assert same_bits(
                again.update(queries), sh.HopfieldMemory(np.vstack([x, x[:5]]), 3.0, **options).update(queries)
            )
        again.remove(slice(M, None))
        assert again.index_nbytes > 0
        assert same_bits(again.update(queries), plain)
        del again
        assert [other.index_nbytes > 0 for other in others] == [True, False, False]
        for other in others:
            assert same_bits(other.update(queries), plain)


def _saved_index(path):
    data = path.read_bytes()
    first, last = index_of(data)
    assert first % 64 == last % 64 == 0
    return np.frombuffer(data[first:last], np.uint8)


def test_longer_codes_are_saved(path):
    x = patterns(300, True)
    queries = rng.standard_normal((600, 300)).astype(np.float32)
    memory = sh.HopfieldMemory(x, 0.5, index=True)
    before = memory.index_nbytes
    memory.update(queries)
    memory.save(path)
    again = sh.HopfieldMemory.load(path, mmap=True)
    assert again.index_nbytes == memory.index_nbytes > before
    assert same_bits(again.update(queries), sh.HopfieldMemory(x, 0.5, index=False).update(queries))


def test_who_saves_it(path):
    memory = sh.HopfieldMemory(X, 3.0, values=X[:, :3].astype(np.float64), ids=np.arange(M) + 5)
    memory.save(path)
    plain = path.read_bytes()
    memory.build_index()
    memory.save(path, index=False)
    assert path.read_bytes() == plain
    memory.save(path)
    with_index = path.read_bytes()
    assert len(with_index) >= len(plain) + memory.index_nbytes
    header, _ = header_of(with_index)
    assert (header["__metadata__"]["version"], header_of(plain)[0]["__metadata__"]["version"]) == ("2", "1")
    assert with_index[index_of(with_index)[1] :] == plain[header_of(plain)[1] :]
    again = sh.HopfieldMemory.load(path, mmap=True, verify=True)
    assert again.patterns.flags.aligned
    assert again.values.flags.aligned
    again.save(path)  # over the file that it is mapped from
    assert path.read_bytes() == with_index
    assert same_bits(again.ids, memory.ids)
    sh.HopfieldMemory(X, 3.0, values=X[:, :3].astype(np.float64), ids=np.arange(M) + 5).save(path, index=True)
    assert path.read_bytes() == with_index
    with pytest.raises(TypeError, match=r"^index: must be True or False"):
        memory.save(path, index=np.arange(2))
    none = sh.HopfieldMemory(X, index=False)
    with pytest.raises(ValueError, match=r"^index: is False"):
        none.save(path, index=True)
    none.save(path)
    assert files.INDEX not in header_of(path.read_bytes())[0]
    extreme = sh.HopfieldMemory(np.zeros((3, 2)), 1.0)
    extreme.save(path, index=True)  # none can be had
    assert files.INDEX not in header_of(path.read_bytes())[0]


def test_who_loads_it(path, saved):
    available = hook("_set_available_memory")
    assert saved.index_nbytes > 0
    try:
        for mmap in (False, True):
            for index, left, there in (
                (None, 1 << 40, True),
                (None, 0, mmap),  # a map takes no memory
                ("auto", 0, mmap),
                (True, 0, True),
                (False, 1 << 40, False),
            ):
                available(left)
                memory = sh.HopfieldMemory.load(path, mmap=mmap, index=index)
                assert (memory.index_nbytes > 0) == there
                assert memory.index == ("auto" if index is None else index)
                assert same_bits(memory.update(Q[:20]), PLAIN[:20])
    finally:
        available(-1)


@pytest.mark.parametrize("mmap", [False, True])
def test_it_is_neither_copied_nor_built(path, saved, mmap):
    allocated = hook("_allocated")
    memory = sh.HopfieldMemory.load(path, mmap=mmap)
    allocated()
    memory = sh.HopfieldMemory.load(path, mmap=mmap)
    assert allocated() < saved.index_nbytes / 20
    assert fails_without_memory(lambda: sh.HopfieldMemory.load(path, mmap=mmap))
    assert same_bits(memory.update(Q), PLAIN)


OTHER_INSTRUCTIONS = """
import json, sys
import numpy as np
import sparsehopfield as sh

memory = sh.HopfieldMemory.load(sys.argv[1], mmap=True)
states = memory.update(np.load(sys.argv[2])).tolist()
print(json.dumps([sh.show_config(mode="dict")["simd"]["chosen"], memory.index_nbytes, states]))
"""


def test_by_another_instruction_set(path, saved, tmp_path):
    np.save(tmp_path / "queries.npy", Q[:40])
    level, nbytes, states = run_python(OTHER_INSTRUCTIONS, path, tmp_path / "queries.npy", SPARSEHOPFIELD_SIMD="base")
    assert level == "base"
    assert nbytes == saved.index_nbytes
    assert same_bits(np.array(states, np.float32), PLAIN[:40])


# --- what is wrong with one ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small file with an index, queries, and their states."""
    x = X[:300, :20]
    path = tmp_path_factory.mktemp("small") / "memory"
    sh.HopfieldMemory(x, 3.0, similarity="euclidean").save(path, index=True)
    states = sh.HopfieldMemory(x, 3.0, similarity="euclidean", index=False).update(x[:20])
    return path, path.read_bytes(), x[:20], states


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_is_damaged(small, data):
    """Other bytes anywhere in the index: it is refused, and the answer is right."""
    path, whole, queries, states = small
    first, last = index_of(whole)
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.one_of(st.integers(first, first + 600), st.integers(first, last - 8)))
        bits = data.draw(st.one_of(st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63]), st.integers(1, 255)))
        number = int.from_bytes(changed[where : where + 8], "little") ^ bits
        changed[where : where + 8] = number.to_bytes(8, "little")
    path.write_bytes(changed)
    mmap, use = data.draw(st.booleans()), data.draw(st.sampled_from(["auto", True]))
    if changed == whole:
        memory = sh.HopfieldMemory.load(path, mmap=mmap, index=use)
    else:
        memory = load_with_warning(path, mmap=mmap, index=use)
        assert (memory.index_nbytes > 0) == (use is True)  # built anew
        with pytest.raises(sh.FileFormatError, match="is damaged: the data"):
            sh.HopfieldMemory.load(path, mmap=mmap, verify=True)
    with core_path("lines"):
        assert same_bits(memory.update(queries), states)


def replaced(whole, index):
    """A file with another index, and checksums of what it holds."""
    header, _ = header_of(whole)
    first, last = index_of(whole)
    data = index + whole[last:]
    shift = len(index) - (last - first)
    for name, tensor in header.items():
        if name == files.INDEX:
            tensor.update(shape=[len(index)], data_offsets=[0, len(index)])
        elif name != "__metadata__":
            tensor["data_offsets"] = [at + shift for at in tensor["data_offsets"]]
    tensors = sorted((t["data_offsets"], n) for n, t in header.items() if n != "__metadata__")
    listed = [(n, header[n]["dtype"], tuple(header[n]["shape"])) for _, n in tensors]
    fields = header["__metadata__"]
    fields["data"] = files.hashlib.sha256(data).hexdigest()
    fields["header"] = files._header_checksum(fields, listed)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text + data


def test_other_indexes(small, tmp_path):
    path, whole, queries, states = small
    index = whole[slice(*index_of(whole))]
    assert replaced(whole, index) == whole
    other = tmp_path / "other"
    sh.HopfieldMemory(X[:300, :20][::-1], 3.0, similarity="euclidean").save(other, index=True)
    of_others = other.read_bytes()
    of_others = of_others[slice(*index_of(of_others))]
    cases = {
        "damaged": [index[:-64], index + bytes(64), index[:64], bytes(64), bytes(len(index)), of_others[:-64]],
        "another version": [
            index[:8] + struct.pack("<I", 7) + index[12:],
            index[:12] + index[12:16][::-1] + index[16:],
        ],
        "not that of the file's patterns": [of_others],
    }
    for reason, indexes in cases.items():
        for wrong in indexes:
            path.write_bytes(replaced(whole, wrong))
            for use in (None, True):
                with pytest.warns(sh.FileFormatWarning, match=reason):
                    memory = sh.HopfieldMemory.load(path, mmap=use is None, verify=True, index=use)
                assert (memory.index_nbytes > 0) == (use is True)
                assert same_bits(memory.update(queries), states)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                sh.HopfieldMemory.load(path, index=False)


def test_patterns_that_were_changed(small):
    """All signs of two patterns, which the index is not of, are flipped; nobody has looked at the data's checksum."""
    path, whole, queries, _ = small
    changed = bytearray(whole)
    for row in range(2):
        for column in range(20):
            changed[index_of(whole)[1] + (row * 20 + column) * 4 + 3] ^= 0x80
    path.write_bytes(changed)
    memory = load_with_warning(path)
    plain = sh.HopfieldMemory(memory.patterns, 3.0, similarity="euclidean", index=False)
    assert same_bits(memory.update(queries), plain.update(queries))


def test_what_is_no_index(small):
    path, whole, _, _ = small
    header, start = header_of(whole)

    def write(**changes):
        changed = json.loads(json.dumps(header))
        for name, change in changes.items():
            changed[name].update(change)
        tensors = sorted((t["data_offsets"], n) for n, t in changed.items() if n != "__metadata__")
        listed = [(n, changed[n]["dtype"], tuple(changed[n]["shape"])) for _, n in tensors]
        changed["__metadata__"]["header"] = files._header_checksum(changed["__metadata__"], listed)
        text = json.dumps(changed).encode()
        text += b" " * (-(8 + len(text)) % 64)
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[start:])

    n = header[files.INDEX]["shape"][0]
    for changes, match in (
        ({"__metadata__": {"version": "1"}}, "must hold patterns, and may hold values and ids"),
        ({files.INDEX: {"shape": [n // 4], "dtype": "F32"}}, "index_codes: cannot be F32"),
        ({files.INDEX: {"shape": [n // 2, 2]}}, "index_codes: cannot be U8 of shape"),
    ):
        write(**changes)
        with pytest.raises(sh.FileFormatError, match=match):
            sh.HopfieldMemory.load(path)
    sh.HopfieldMemory(X[:3]).save(path)
    whole = path.read_bytes()
    header, start = header_of(whole)
    write(__metadata__={"version": "2"})
    with pytest.raises(sh.FileFormatError, match="must hold index_codes and patterns"):
        sh.HopfieldMemory.load(path)


def test_what_safetensors_writes_is_read(small):
    """Another order of tensors, so that the index is not where it can be mapped."""
    from safetensors.numpy import load_file, save_file

    path, whole, queries, states = small
    path.write_bytes(whole)
    tensors = load_file(path)
    for offset in (0, 1, 2, 3):
        save_file(tensors | {"ids": np.arange(300) + offset}, path, header_of(whole)[0]["__metadata__"])
        header, _ = header_of(path.read_bytes())
        listed = [(n, t["dtype"], tuple(t["shape"])) for n, t in header.items() if n != "__metadata__"]
        listed.sort(key=lambda item: header[item[0]]["data_offsets"])
        fields = header["__metadata__"]
        fields["header"] = files._header_checksum(fields, listed)
        save_file(tensors | {"ids": np.arange(300) + offset}, path, fields)
        for mapped in (False, True):
            memory = sh.HopfieldMemory.load(path, mmap=mapped)
            assert memory.index_nbytes > 0
            assert same_bits(memory.update(queries), states)


def test_the_core_takes_one_alone(small):
    """The core's own checks of the array."""
    path, whole, _, _ = small
    path.write_bytes(whole)
    memory = sh.HopfieldMemory.load(path, mmap=True)
    core = memory._snapshot.pattern_set.core(memory.dtype)
    with pytest.raises(ValueError, match="has an index from a file"):
        _core.import_index(core, _saved_index(path))
    for wrong in (None, np.zeros(3), np.zeros((2, 64), np.uint8), np.zeros(128, np.uint8)[::2]):
        with pytest.raises(TypeError):
            _core.import_index(core, wrong)
    assert _core.index_fits(0)
    assert not _core.index_fits(1 << 62)
    assert _core.export_index(sh.HopfieldMemory(X[:3])._snapshot.pattern_set.core(np.dtype(np.float32))) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what it has read of a file")
def test_a_search_reads_rows_and_nothing_around_them(path):
    """Of a mapped file whose pages the system has given up a query brings in the rows that it scores."""
    centres = 10 * rng.standard_normal((128, 1024), dtype=np.float32)
    x = centres[rng.integers(128, size=8192)] + rng.standard_normal((8192, 1024), dtype=np.float32)  # 4 KiB a row
    sh.HopfieldMemory(x, 0.0008, similarity="euclidean").save(path, index=True)
    memory = sh.HopfieldMemory.load(path, mmap=True)
    rows = memory.patterns
    mapped = rows
    while not isinstance(mapped, mmap.mmap):
        mapped = mapped.base
    begin = rows.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    size = rows.ctypes.data + rows.nbytes - begin
    present = np.empty(-(-size // mmap.PAGESIZE), np.uint8)

    def pages():
        arguments = map(ctypes.c_void_p, (begin, size, present.ctypes.data))
        assert ctypes.CDLL(None, use_errno=True).mincore(*arguments) == 0
        return int((present & 1).sum())

    mapped.madvise(mmap.MADV_DONTNEED)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if (left := pages()) > 1024:  # beside the index, which is mapped still, there may be some
        pytest.skip(f"the file system keeps {left} of {len(present)} pages of the file in memory")
    query = x[5000] + np.float32(0.1)
    state = memory.update(query)
    read = pages() - left
    assert 1 < memory.associate(query).nnz <= read < 400  # of 8,192; each row has at most two pages
    assert state.tobytes() == sh.update(query, x, 0.0008, similarity="euclidean").tobytes()
