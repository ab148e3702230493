"""Rows that are read by blocks, of zarr, dask and h5py, and .npy files that are mapped: as arrays, and one copy."""

import subprocess
import sys

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield._engine import blocks
from sparsehopfield._engine.checks import as_array

M, D = 50, 6
DTYPES = ["f2", "f4", "f8", "u1", "i2", "i8", ">f4", "?"]


def rows_of(dtype, m=M, d=D):
    return np.random.default_rng(0).integers(0, 2 if dtype == "?" else 99, (m, d)).astype(dtype)


def zarr_array(rows, folder, version, **options):
    zarr = pytest.importorskip("zarr", reason="reads zarr arrays")
    made = {
        "shape": rows.shape,
        "dtype": rows.dtype,
        "chunks": (7, 4)[: rows.ndim],
        "zarr_format": version,
        "overwrite": True,
    }
    array = zarr.create_array(str(folder / f"{version}.zarr"), **made | options)
    array[...] = rows
    return zarr.open_array(str(folder / f"{version}.zarr"), mode="r")


def zarr_2(rows, folder):
    return zarr_array(rows, folder, 2)


def zarr_3(rows, folder):
    return zarr_array(rows, folder, 3)


def in_shards(rows, folder):
    return zarr_array(rows, folder, 3, shards=(14, 4)[: rows.ndim])


def dask_array(rows, folder):
    dask = pytest.importorskip("dask.array", reason="reads dask arrays")
    return dask.from_array(rows, chunks=((1, 9, 40), (2, 4)) if rows.shape == (M, D) else -1)


def h5py_dataset(rows, folder, **options):
    h5py = pytest.importorskip("h5py", reason="reads h5py's data sets")
    file = h5py.File(folder / "rows.h5", "a")
    name = str(len(file))
    file.create_dataset(name, data=rows, **options)
    return file[name]


def h5py_chunks(rows, folder):
    chunks = tuple(min(n, most) for n, most in zip(rows.shape, (7, 4), strict=False))
    return h5py_dataset(rows, folder, chunks=chunks, compression="gzip")


FORMS = [zarr_2, zarr_3, in_shards, dask_array, h5py_dataset, h5py_chunks]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_the_same_as_of_arrays(form, dtype, tmp_path):
    rows, values = rows_of(dtype), np.random.default_rng(1).random((M, 3))
    plain = sh.HopfieldMemory(rows, values=values, similarity="euclidean")
    given = form(rows, tmp_path)
    read = sh.HopfieldMemory(given, values=values, similarity="euclidean")
    assert read.dtype == plain.dtype
    assert read.patterns.dtype == plain.patterns.dtype
    np.testing.assert_array_equal(read.patterns, rows)
    np.testing.assert_array_equal(read.retrieve(given), plain.retrieve(rows))


@pytest.mark.parametrize("form", FORMS)
def test_values_and_ids(form, tmp_path):
    rows, values, ids = rows_of("f4"), rows_of("f4")[:, :2] / 7, np.arange(M) * 2**40
    plain = sh.HopfieldMemory(rows, values=values, ids=ids)
    folders = [tmp_path / name for name in ("values", "ids")]
    for folder in folders:
        folder.mkdir()
    read = sh.HopfieldMemory(rows, values=form(values, folders[0]), ids=form(ids, folders[1]))
    np.testing.assert_array_equal(read.update(rows), plain.update(rows))
    np.testing.assert_array_equal(read.ids, ids)
    read.add(form(rows, tmp_path), form(values, folders[0]))
    plain.add(rows, values)
    np.testing.assert_array_equal(read.update(rows), plain.update(rows))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_belongs_to_the_memory(form, tmp_path):
    """So that there is nothing to borrow, to watch or to copy once more."""
    given = form(rows_of("f4"), tmp_path)
    with pytest.raises(ValueError, match=r"^copy: cannot be avoided"):
        sh.HopfieldMemory(given, copy=False)
    with pytest.raises(ValueError, match=r"^copy: cannot be avoided"):
        sh.HopfieldMemory(rows_of("f4"), values=given, copy=False)
    memory = sh.HopfieldMemory(given)
    assert not memory._snapshot.has_changed()
    assert memory._snapshot.fingerprint is None
    assert memory.patterns.base is None or memory.patterns.base.flags.owndata


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**9])
@pytest.mark.parametrize("form", FORMS)
def test_blocks(form, chunk_bytes, tmp_path, monkeypatch):
    """Any part, in blocks of any size, and no block larger than was said but for one chunk."""
    monkeypatch.setattr(blocks, "CHUNK", chunk_bytes)
    rows = rows_of("f4")
    given = form(rows, tmp_path)
    for start, stop in ((0, M), (0, 0), (3, 4), (6, 15), (7, 14), (M - 1, M), (20, 20)):
        np.testing.assert_array_equal(blocks.read_rows(given, start, stop), rows[start:stop])
    np.testing.assert_array_equal(as_array("patterns", given), rows)


def test_other_axes(tmp_path):
    cube = rows_of("f4").reshape(5, 10, D)
    given = zarr_3(cube[:, :, 0], tmp_path)
    with pytest.raises(ValueError, match=r"^patterns: must be two-dimensional"):
        sh.HopfieldMemory(zarr_array(cube, tmp_path, 2, chunks=(2, 3, D)))
    np.testing.assert_array_equal(sh.sparsemax(given), sh.sparsemax(cube[:, :, 0]))
    number = zarr_array(np.array(2.0), tmp_path, 2)
    np.testing.assert_array_equal(sh.update(np.eye(3), np.eye(3), number), sh.update(np.eye(3), np.eye(3), 2.0))


def test_dask_arrays_of_unknown_chunks_are_computed(tmp_path):
    given = dask_array(rows_of("f4"), tmp_path)
    kept = given[given[:, 0] > 20]
    np.testing.assert_array_equal(sh.HopfieldMemory(kept).patterns, kept.compute())


def test_what_is_wrong_is_named(tmp_path):
    zarr = pytest.importorskip("zarr", reason="reads zarr arrays")
    missing, infinite = rows_of("f4"), rows_of("f4")
    missing[3, 2], infinite[49, 5] = np.nan, np.inf
    memory = sh.HopfieldMemory(np.eye(D), values=np.eye(D))
    for number, (given, error, message) in enumerate(
        (
            (missing, ValueError, ""),
            (infinite, ValueError, ""),
            (np.zeros((0, D)), ValueError, "needs at least one row"),
            (np.zeros(D, complex), TypeError, "must be real numbers of at most 64 bits, got dtype complex128"),
            (np.array(["2020"], "M8[s]"), TypeError, "must be real numbers of at most 64 bits, got dtype"),
        )
    ):
        path = str(tmp_path / str(number))
        array = zarr.create_array(path, shape=given.shape, dtype=given.dtype)
        array[...] = given
        for name, call in (
            ("patterns", lambda a=array: sh.HopfieldMemory(a)),
            ("values", lambda a=array, g=given: sh.HopfieldMemory(np.ones((max(1, len(g)), 2)), values=a)),
        ):
            with pytest.raises(error, match=rf"^{name}: ?.*{message}"):
                call()
        if len(given):
            with pytest.raises(error, match=rf"^queries: ?.*{message}"):
                memory.update(array)
    with pytest.raises((TypeError, ValueError), match=r"^patterns"):
        sh.HopfieldMemory(zarr.open_group(str(tmp_path / "group")))


# --- files of NumPy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1"])
def test_mapped_files_are_used_where_they_lie(dtype, tmp_path):
    rows = rows_of(dtype)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "values.npy", rows[:, :3])
    mapped, values = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("rows", "values"))
    memory = sh.HopfieldMemory(mapped, values=values, copy=False)
    assert np.shares_memory(memory.patterns, mapped)
    assert np.shares_memory(memory.values, values)
    np.testing.assert_array_equal(memory.update(mapped), sh.HopfieldMemory(rows, values=rows[:, :3]).update(rows))
    with pytest.raises(TypeError, match=r"^patterns: must be real numbers, got .*numpy\.load\(path, mmap_mode='r'\)"):
        sh.HopfieldMemory(tmp_path / "rows.npy")


# --- memory -------------------------------------------------------------------------------------------

PEAK = """
import sys
import numpy as np
import sparsehopfield as sh
kind, path = sys.argv[1:]
m, d = 400_000, 256  # 391 MiB
if kind == "zarr":
    import zarr
    given = zarr.create_array(path, shape=(m, d), dtype="f4", chunks=(5000, d))
    given[...] = np.float32(1)
    given[:5000] = np.random.default_rng(0).random((5000, d))
elif kind == "dask":
    import dask.array
    given = dask.array.ones((m, d), dtype="f4", chunks=(5000, d)) * 2
else:
    np.lib.format.open_memmap(path, "w+", np.float32, (m, d)).flush()
    given = np.load(path, mmap_mode="r")
sh.HopfieldMemory(np.ones((3, 2), np.float32)).update(np.ones((3, 2)))
np.asarray(given[:5000])
def bytes_of(name):
    return int([line.split()[1] for line in open("/proc/self/status") if line.startswith(name)][0]) * 1024
before, kept_before = bytes_of("VmHWM"), bytes_of("RssAnon")
memory = sh.HopfieldMemory(given, index=False, copy=None if kind == "npy" else True)
print((bytes_of("VmHWM") - before) / memory.nbytes, (bytes_of("RssAnon") - kept_before) / memory.nbytes)
"""


@pytest.mark.resources
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("kind", "copies"), [("zarr", 1), ("dask", 1), ("npy", 0)])
def test_no_second_copy_is_made(kind, copies, tmp_path):
    if kind != "npy":
        pytest.importorskip(kind, reason="reads its arrays")
    done = subprocess.run([sys.executable, "-c", PEAK, kind, str(tmp_path / "rows")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak, kept = map(float, done.stdout.split())
    assert copies - 0.1 < kept < copies + 0.3  # the allocator keeps some blocks
    if copies:  # the pages of a mapped file count as resident while the system leaves them there
        assert peak < copies + 0.3
