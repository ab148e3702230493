"""Where rows come from: files, arrays, and how they are cut; all without a cluster."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import sparsehopfield as sh
from sparsehopfield.distributed import _sources as sources

EXTRA = """
import sys
import sparsehopfield.distributed as d
assert not {"dask", "distributed", "zarr"} & sys.modules.keys()
sys.modules["distributed"] = None
try:
    d.ShardedMemory
except ImportError as error:
    assert str(error) == (
        'ShardedMemory needs distributed, which is not installed; install it with: '
        'python -m pip install "sparsehopfield[dask]"'
    ), error
else:
    raise AssertionError
"""

RNG = np.random.default_rng(0)


def test_without_dask():
    subprocess.run([sys.executable, "-c", EXTRA], check=True, timeout=60)


@pytest.fixture
def saved(tmp_path):
    """Three .npy files of 10, 1 and 25 rows of three columns, and all rows."""
    X = RNG.standard_normal((36, 3)).astype(np.float32)
    paths = []
    for i, (start, stop) in enumerate([(0, 10), (10, 11), (11, 36)]):
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[-1], X[start:stop])
    return paths, X


def write_raw(path, shape, dtype):
    np.save(path, np.zeros(shape, dtype))
    return path


@pytest.mark.parametrize(("start", "stop"), [(0, 36), (0, 10), (9, 12), (10, 11), (20, 30), (35, 36), (0, 1)])
def test_rows_of_several_files(saved, start, stop):
    paths, X = saved
    rows = sources.as_source(paths).patterns
    assert rows.shape == X.shape
    assert list(rows.boundaries) == [0, 10, 11, 36]
    part = rows.cut(start, stop)
    assert np.array_equal(sources.read_rows(part), X[start:stop])
    in_one_file = isinstance(part, sources.FileRows)
    assert (sources.mapping_of(sources.read_rows(part)) is not None) == in_one_file
    assert part.name_of(stop - start - 1) == rows.name_of(stop - 1)


def test_rows_are_named_by_their_files(saved):
    paths, _ = saved
    rows = sources.as_source([str(path) for path in paths]).patterns
    assert rows.name_of(0) == f"row 0 of {paths[0]}"
    assert rows.name_of(10) == f"row 0 of {paths[1]}"
    assert rows.name_of(35) == f"row 24 of {paths[2]}"
    assert rows.cut(12, 36).name_of(0) == f"row 1 of {paths[2]}"


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int16, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files(tmp_path, dtype, order):
    X = np.asarray(RNG.integers(0, 100, (50, 4)), dtype=dtype, order=order)
    np.save(tmp_path / "x.npy", X)
    rows = sources.as_source(tmp_path / "x.npy").patterns
    read = sources.read_rows(rows.cut(7, 31))
    assert read.dtype == X.dtype
    assert np.array_equal(read, X[7:31])
    assert sources.mapping_of(read) is not None


@pytest.mark.parametrize("with_ids", [False, True])
def test_files_of_memories(tmp_path, with_ids):
    X = RNG.integers(0, 255, (30, 5)).astype(np.uint8)
    V = RNG.standard_normal((30, 2)).astype(np.float32)
    ids = RNG.permutation(1000)[:30]
    for i, part in enumerate((slice(0, 12), slice(12, 30))):
        of_part = ids[part] if with_ids else None
        sh.HopfieldMemory(X[part], values=V[part], ids=of_part, scale=0.5).save(tmp_path / f"{i}")
    source = sources.as_source([tmp_path / "0", tmp_path / "1"])
    assert source.scale == 0.5
    patterns, values, names = source.cut(10, 20)
    assert np.array_equal(sources.read_rows(patterns), X[10:20])
    assert np.array_equal(sources.read_rows(values), V[10:20])
    assert (names is not None) == with_ids
    if with_ids:
        assert np.array_equal(sources.read_rows(names), ids[10:20])


def test_a_damaged_header_of_a_memory(tmp_path):
    path = tmp_path / "memory"
    sh.HopfieldMemory(np.ones((3, 2), np.uint8), scale=0.5).save(path)
    path.write_bytes(path.read_bytes().replace((0.5).hex().encode(), (0.25).hex().encode()))
    with pytest.raises(sh.FileFormatError, match="memory: is damaged: the header does not have its checksum"):
        sources.as_source(path)


def test_safetensors_of_others(tmp_path):
    torch = pytest.importorskip("torch", reason="other dtypes are written by PyTorch's part of safetensors")
    from safetensors.torch import save_file as save_tensors

    X = RNG.standard_normal((9, 3))
    tensors = {"patterns": X, "ids": np.arange(9) * 3}
    save_file(tensors, tmp_path / "plain")
    source = sources.as_source(tmp_path / "plain")
    assert np.array_equal(sources.read_rows(source.patterns.cut(0, 9)), X)
    assert np.array_equal(sources.read_rows(source.ids.cut(2, 4)), [6, 9])
    # between others, of dtypes that are not read, patterns are found all the same
    others = {"a": torch.ones(5, dtype=torch.bfloat16), "patterns": torch.tensor(X), "b": torch.ones(3)}
    save_tensors(others, tmp_path / "more")
    assert np.array_equal(sources.read_rows(sources.as_source(tmp_path / "more").patterns.cut(1, 8)), X[1:8])
    save_tensors({"patterns": torch.ones(2, 2, dtype=torch.bfloat16)}, tmp_path / "bf16")
    with pytest.raises(sh.FileFormatError, match="bf16: patterns: cannot be BF16"):
        sources.as_source(tmp_path / "bf16")
    save_file({"rows": X}, tmp_path / "rows")
    with pytest.raises(sh.FileFormatError, match=r"rows: has no tensor 'patterns'; its tensors: .'rows'."):
        sources.as_source(tmp_path / "rows")


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((4, 5), np.float32, "have 3 columns in {0}, and 5 in {1}"),
        ((4, 3), np.float64, "are float32 in {0}, and float64 in {1}"),
        ((0, 3), np.float32, "{1} is empty"),
        ((4,), np.float32, "of {1} must be two-dimensional"),
        ((4, 3, 2), np.float32, "of {1} must be two-dimensional"),
    ],
)
def test_files_that_do_not_fit(tmp_path, saved, shape, dtype, words):
    paths, _ = saved
    other = write_raw(tmp_path / "other.npy", shape, dtype)
    with pytest.raises(ValueError, match=r"^source: ") as caught:
        sources.as_source([paths[0], other])
    assert words.format(paths[0], other) in str(caught.value)


def test_bad_files(tmp_path, saved):
    paths, X = saved
    cut = tmp_path / "cut.npy"
    cut.write_bytes(paths[0].read_bytes()[:-1])
    with pytest.raises(sh.FileFormatError, match=r"cut.npy: is cut"):
        sources.as_source(cut)
    np.save(tmp_path / "objects.npy", np.array([[None]]), allow_pickle=True)
    with pytest.raises(sh.FileFormatError, match="objects, not numbers"):
        sources.as_source(tmp_path / "objects.npy")
    (tmp_path / "text").write_text("no file of arrays")
    with pytest.raises(sh.FileFormatError, match="no safetensors file"):
        sources.as_source(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="missing"):
        sources.as_source(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"is a folder.*ShardedMemory.load.*zarr.open"):
        sources.as_source(tmp_path)
    with pytest.raises(ValueError, match="at least one file"):
        sources.as_source([])
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    with pytest.raises(TypeError, match="source: must be real numbers"):
        sources.as_source(tmp_path / "complex.npy")
    sh.HopfieldMemory(X, values=X).save(tmp_path / "with_values")
    with pytest.raises(ValueError, match=r"holds patterns, and .*with_values patterns, values"):
        sources.as_source([paths[0], tmp_path / "with_values"])
    with pytest.raises(ValueError, match="values: the files of the source hold values already"):
        sources.as_source(tmp_path / "with_values", paths)


@pytest.mark.parametrize("what", ["larger", "other header"])
def test_a_file_that_was_changed_is_refused(saved, what):
    paths, X = saved
    part = sources.as_source(paths).patterns.cut(12, 20)
    np.save(paths[2], X if what == "larger" else X[11:].astype(np.int32))
    with pytest.raises(sh.FileFormatError, match=r"2.npy: was changed after the memory was made"):
        sources.read_rows(part)


def test_arrays_of_this_process_are_refused(saved):
    for given in (np.ones((3, 2)), [[1.0, 2.0]], 3, None):
        with pytest.raises(TypeError, match="source: must be a dask or zarr array, or paths"):
            sources.as_source(given)
    with pytest.raises(TypeError, match=r"HopfieldMemory, or dask.array.from_array.*numpy.save"):
        sources.as_source(np.ones((3, 2)))


def test_values_and_ids_beside(saved, tmp_path):
    paths, _ = saved
    values = write_raw(tmp_path / "v.npy", (36, 2), np.float32)
    source = sources.as_source(paths, values, np.arange(36)[::-1])
    assert source.values.shape == (36, 2)
    assert np.array_equal(source.cut(3, 6)[2], [32, 31, 30])
    with pytest.raises(ValueError, match=r"values: needs one row of numbers per pattern \(36\), got shape \(10, 3\)"):
        sources.as_source(paths, paths[0])
    with pytest.raises(ValueError, match="ids: must be distinct"):
        sources.as_source(paths, ids=np.zeros(36, int))
    with pytest.raises(ValueError, match="ids: needs one per pattern"):
        sources.as_source(paths, ids=[1, 2])


def test_dask_arrays():
    da = pytest.importorskip("dask.array")
    X = RNG.standard_normal((20, 3))
    rows = sources.as_source(da.from_array(X, chunks=(7, 2))).patterns
    assert list(rows.boundaries) == [0, 7, 14, 20]
    assert np.array_equal(rows.cut(3, 16).compute(scheduler="synchronous"), X[3:16])
    x = da.from_array(X, chunks=(7, 3))
    with pytest.raises(ValueError, match=r"unknown size along axis 0.*compute_chunk_sizes"):
        sources.as_source(x[x[:, 0] > 0])
    with pytest.raises(ValueError, match="source: chunk 1 along axis 0 is empty"):
        sources.as_source(da.from_array(X, chunks=((7, 0, 13), 3)))
    with pytest.raises(ValueError, match="source: must be two-dimensional"):
        sources.as_source(x[:, 0])


def test_zarr_arrays(tmp_path):
    zarr = pytest.importorskip("zarr")
    X = RNG.standard_normal((20, 3))
    z = zarr.create_array(str(tmp_path / "x.zarr"), shape=X.shape, chunks=(6, 3), dtype=X.dtype)
    z[:] = X
    rows = sources.as_source(z).patterns
    assert list(rows.boundaries) == [0, 6, 12, 18, 20]
    assert np.array_equal(sources.read_rows(rows.cut(4, 19)), X[4:19])
    with pytest.raises(ValueError, match="lies in the memory of this process"):
        sources.as_source(zarr.create_array(zarr.storage.MemoryStore(), shape=(2, 2), dtype="f8"))
    with pytest.raises(ValueError, match=r"is a folder.*zarr.open"):
        sources.as_source(str(tmp_path / "x.zarr"))


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 64, 65, 1000])
@pytest.mark.parametrize("shards", [1, 2, 3, 7, 2000])
def test_boundaries(rows, shards):
    ends = sources.boundaries(rows, shards, [], 8)
    sizes = np.diff(ends)
    assert ends[0] == 0
    assert ends[-1] == rows
    assert len(sizes) == min(shards, -(-rows // 8))
    assert (sizes > 0).all()
    assert all(end % 8 == 0 for end in ends[:-1])
    assert sizes.max() <= 8 * np.ceil(np.ceil(rows / 8) / len(sizes))


def test_boundaries_fall_between_files():
    assert sources.boundaries(800, 4, [200, 408, 590], 8) == [0, 200, 408, 600, 800]
    assert sources.boundaries(800, 4, range(0, 800, 8), 8) == [0, 200, 400, 600, 800]
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 12))
        ends = sources.boundaries(800, n, rng.choice(800, 20), 8)
        assert len(ends) == n + 1
        assert np.all(np.diff(ends) > 0)
