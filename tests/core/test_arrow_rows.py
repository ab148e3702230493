"""Rows of Apache Arrow: in place where they lie in one piece, results as of arrays, and what is no row of numbers."""

import subprocess
import sys

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="reads Arrow's arrays")

import sparsehopfield as sh  # noqa: E402
from sparsehopfield._engine.checks import as_array  # noqa: E402

M, D = 40, 6
DTYPES = [np.float16, np.float32, np.float64, np.uint8]


def rows_of(dtype, m=M, d=D):
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 255, (m, d)).astype(dtype) if dtype == np.uint8 else rng.standard_normal((m, d)).astype(dtype)
    )


def fixed_lists(rows):
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def lists(rows, kind=pa.ListArray):
    return kind.from_arrays(np.arange(len(rows) + 1) * rows.shape[1], pa.array(rows.ravel()))


def large_lists(rows):
    return lists(rows, pa.LargeListArray)


def sliced(rows):
    """Return lists that are some of more, before and behind which there are others, and missing ones."""
    more = np.concatenate([rows[:3], rows, rows[:2]])
    array = fixed_lists(more)
    missing = pa.array([None], array.type)
    return pa.concat_arrays([missing, array, missing]).slice(4, len(rows))


def tensors(rows):
    return pa.FixedShapeTensorArray.from_numpy_ndarray(rows)


def table(rows):
    return pa.table({"rows": fixed_lists(rows)})


def batch(rows):
    return pa.record_batch({"rows": tensors(rows)})


def one_chunk(rows):
    empty = fixed_lists(rows[:0])
    return pa.chunked_array([empty, fixed_lists(rows), empty])


IN_PLACE = [fixed_lists, lists, large_lists, sliced, tensors, table, batch, one_chunk]


def chunked(rows):
    return pa.chunked_array([fixed_lists(part) for part in np.split(rows, [1, 1, 20])])


def chunked_tensors(rows):
    return pa.table({"rows": pa.chunked_array([tensors(part) for part in np.split(rows, [1, 3])])})


def columns(rows):
    return pa.table({f"column {j}": rows[:, j] for j in range(rows.shape[1])})


def chunked_columns(rows):
    return pa.concat_tables([columns(rows[:5]), columns(rows[5:30]), columns(rows[30:])])


def batch_of_columns(rows):
    return columns(rows).to_batches()[0]


COPIED = [chunked, chunked_tensors, columns, chunked_columns, batch_of_columns]


# --- the same numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", IN_PLACE)
def test_rows_in_one_piece_are_not_copied(form, dtype):
    rows = rows_of(dtype)
    given = form(rows)
    array = as_array("patterns", given)
    np.testing.assert_array_equal(array, rows)
    assert array.dtype == dtype
    assert array.__array_interface__["data"][0] == as_array("patterns", given).__array_interface__["data"][0]
    assert not array.flags.owndata
    memory = sh.HopfieldMemory(given, copy=False)
    assert np.shares_memory(memory.patterns, array)
    other = sh.HopfieldMemory(rows)
    np.testing.assert_array_equal(memory.update(given), other.update(rows))
    if form is fixed_lists:  # what is in place in Arrow, too: NumPy's own array
        assert np.shares_memory(array, rows) or dtype == np.float16


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", COPIED)
def test_rows_in_pieces_are_copied_once(form, dtype):
    rows = rows_of(dtype)
    given = form(rows)
    memory = sh.HopfieldMemory(given, beta=2.0)
    assert memory.patterns.dtype == dtype
    np.testing.assert_array_equal(memory.patterns, rows)
    np.testing.assert_array_equal(memory.retrieve(given), sh.HopfieldMemory(rows, beta=2.0).retrieve(rows))
    with pytest.raises(ValueError, match=r"^copy: cannot be avoided"):
        sh.HopfieldMemory(given, copy=False)


@pytest.mark.parametrize("form", [*IN_PLACE, *COPIED])
def test_every_argument_that_is_an_array(form):
    """Queries and values as patterns are, ids and beta of one axis, by functions and methods."""
    rows, values = rows_of(np.float32), rows_of(np.float64)[:, :2]
    ids = np.arange(M) * 3
    given = sh.HopfieldMemory(form(rows), values=form(values), ids=pa.array(ids), similarity="euclidean")
    plain = sh.HopfieldMemory(rows, values=values, ids=ids, similarity="euclidean")
    np.testing.assert_array_equal(given.ids, plain.ids)
    np.testing.assert_array_equal(given.retrieve(form(rows)), plain.retrieve(rows))
    given.add(form(rows[:4] + 1), form(values[:4]), pa.chunked_array([[500, 501], [502, 503]]))
    plain.add(rows[:4] + 1, values[:4], [500, 501, 502, 503])
    np.testing.assert_array_equal(given.values, plain.values)
    np.testing.assert_array_equal(given.update(form(rows)), plain.update(rows))
    beta = pa.array(np.linspace(1, 2, M))
    np.testing.assert_array_equal(
        sh.update(form(rows), form(rows), beta, values=form(values)),
        sh.update(rows, rows, np.asarray(beta), values=values),
    )
    np.testing.assert_array_equal(sh.entmax(form(rows)), sh.entmax(rows))
    target = pa.array(np.arange(M) % D)
    np.testing.assert_array_equal(sh.entmax_loss(form(rows), target), sh.entmax_loss(rows, np.arange(M) % D))


def test_columns_of_several_dtypes():
    rng = np.random.default_rng(0)
    parts = [rng.random(5), rng.random(5).astype(np.float32), rng.integers(0, 9, 5), rng.random(5) < 0.5]
    given = pa.table({str(j): part for j, part in enumerate(parts)})
    np.testing.assert_array_equal(sh.HopfieldMemory(given).patterns, np.column_stack(parts))
    assert sh.HopfieldMemory(given.drop_columns(["0", "2"])).dtype == np.float32
    assert sh.HopfieldMemory(given.select(["1"])).shape == (5, 1)


def test_tensors_keep_their_axes():
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    given = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    np.testing.assert_array_equal(sh.sparsemax(given), sh.sparsemax(images))
    with pytest.raises(ValueError, match=r"^patterns: must be two-dimensional.*\(2, 3, 4, 5\)"):
        sh.HopfieldMemory(given)
    nested = pa.array(images.tolist(), pa.list_(pa.list_(pa.list_(pa.float32(), 5), 4), 3))
    np.testing.assert_array_equal(as_array("z", nested), images)


def test_files_are_mapped_where_they_lie(tmp_path):
    """An uncompressed file of Arrow's that is mapped: the patterns are its pages."""
    rows = rows_of(np.float32, 500, 16)
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, table(rows).schema) as writer:
        writer.write_table(table(rows))
    with pa.memory_map(str(tmp_path / "rows.arrow")) as file:
        mapped = pa.ipc.open_file(file).read_all()
        before = pa.total_allocated_bytes()
        memory = sh.HopfieldMemory(mapped, copy=False, similarity="euclidean")
        np.testing.assert_array_equal(memory.retrieve(mapped), rows)
        buffer = mapped["rows"].chunk(0).flatten().buffers()[1]
        assert memory.patterns.__array_interface__["data"][0] == buffer.address
        assert pa.total_allocated_bytes() == before
        memory.add(rows[:2] + 9)  # copied now, as mapped arrays are
        assert len(memory) == 502


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads parquet files")
    rows = rows_of(np.float32, 500, 16)
    for name, written in (
        ("lists", table(rows)),
        ("columns", columns(rows)),
        ("of any length", pa.table([lists(rows)], ["x"])),
    ):
        parquet.write_table(written, tmp_path / name, row_group_size=100)
        np.testing.assert_array_equal(sh.HopfieldMemory(parquet.read_table(tmp_path / name)).patterns, rows)


# --- other libraries' --------------------------------------------------------------------------------


class Stream:
    """What any library gives by Arrow's interface."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


class OneArray:
    """The same of one array."""

    def __init__(self, array):
        self.array = array

    def __arrow_c_array__(self, requested_schema=None):
        return self.array.__arrow_c_array__(requested_schema)


@pytest.mark.parametrize("form", [*IN_PLACE, *COPIED])
def test_the_interface(form):
    rows = rows_of(np.float32)
    given = form(rows)
    wrapped = Stream(given) if hasattr(given, "__arrow_c_stream__") else OneArray(given)
    memory = sh.HopfieldMemory(wrapped)
    np.testing.assert_array_equal(memory.patterns, rows)
    if form in IN_PLACE:
        assert np.shares_memory(memory.patterns, as_array("x", given))


def test_what_the_interface_refuses():
    class Broken:
        def __arrow_c_stream__(self, requested_schema=None):
            return "no capsule"

    with pytest.raises(TypeError, match=r"^patterns: a Broken cannot be read by Arrow's interface"):
        sh.HopfieldMemory(Broken())
    with pytest.raises(TypeError, match=r"^queries: column 'a' is of string"):
        sh.update(Stream(pa.table({"a": ["x"], "b": [1.0]})), np.eye(2))


def test_polars():
    polars = pytest.importorskip("polars", reason="reads polars' frames")
    rows = rows_of(np.float32)
    series = polars.Series("rows", rows)
    assert series.dtype == polars.Array(polars.Float32, D)
    for given in (series, polars.DataFrame({"rows": series})):
        memory = sh.HopfieldMemory(given, copy=False)
        np.testing.assert_array_equal(memory.patterns, rows)
        assert np.shares_memory(memory.patterns, np.asarray(series))
    in_lists = series.cast(polars.List(polars.Float32))
    for given in (in_lists, polars.DataFrame({"rows": in_lists}), series.append(series[:0]), polars.DataFrame(rows)):
        np.testing.assert_array_equal(sh.HopfieldMemory(given).patterns, rows)
    np.testing.assert_array_equal(sh.HopfieldMemory(series.append(series)).patterns, np.concatenate([rows, rows]))
    with pytest.raises(ValueError, match=r"^patterns"):
        sh.HopfieldMemory(polars.Series([[1.0, 2.0], [None, 3.0]], dtype=polars.Array(polars.Float32, 2)))
    with pytest.raises(ValueError, match=r"^patterns: row 1 has 1 numbers, and row 0 has 2"):
        sh.HopfieldMemory(polars.Series([[1.0, 2.0], [3.0]]))
    with pytest.raises(TypeError, match=r"^patterns: column 'b' is of (large_)?string"):
        sh.HopfieldMemory(polars.DataFrame({"a": [1.0], "b": ["x"]}))


# --- what is no row of numbers ------------------------------------------------------------------------


def fixed(values, size, kind=None):
    return pa.array(values, pa.list_(kind or pa.float32(), size))


WRONG = {
    "a missing row": (lambda: fixed([[1.0, 2.0], None], 2), ValueError, "has 1 missing values"),
    "a missing number": (lambda: fixed([[1.0, 2.0], [None, 3.0]], 2), ValueError, "has 1 missing values"),
    "a missing row of a table": (lambda: pa.table({"x": fixed([[1.0], None], 1)}), ValueError, "has 1 missing values"),
    "a missing number of a column": (
        lambda: pa.table({"a": [1.0, 2.0], "b": [None, 2.0]}),
        ValueError,
        "column 'b': has 1 missing values",
    ),
    "a missing number of a later chunk": (
        lambda: pa.chunked_array([fixed([[1.0]], 1), fixed([[None]], 1)]),
        ValueError,
        "has 1 missing values",
    ),
    "a missing tensor": (
        lambda: pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [2]), fixed([[1.0, 2.0], [None, 3.0]], 2)
        ),
        ValueError,
        "has 1 missing values",
    ),
    "nothing but nulls": (lambda: pa.nulls(3), ValueError, "has 3 missing values"),
    "NaN": (lambda: fixed([[1.0, np.nan], [0.0, 0.0]], 2), ValueError, ""),
    "infinity": (lambda: fixed([[1.0, np.inf], [0.0, 0.0]], 2), ValueError, ""),
    "lists of several lengths": (
        lambda: pa.array([[1.0, 2.0], [3.0]]),
        ValueError,
        "row 1 has 1 numbers, and row 0 has 2",
    ),
    "chunks of several lengths": (
        lambda: pa.chunked_array([[[1.0, 2.0]], [[3.0]]]),
        ValueError,
        r"row 1 has shape \(1,\), and row 0 \(2,\)",
    ),
    "one axis": (lambda: pa.array([1.0, 2.0]), ValueError, "must be two-dimensional"),
    "no rows": (lambda: fixed([], 2), ValueError, "needs at least one row"),
    "no rows in no chunks": (
        lambda: pa.chunked_array([], pa.list_(pa.float32(), 2)),
        ValueError,
        "needs at least one row",
    ),
    "no tensors": (
        lambda: pa.chunked_array([], pa.fixed_shape_tensor(pa.float32(), [2])),
        ValueError,
        "needs at least one row",
    ),
    "no columns": (lambda: pa.table({}), ValueError, "needs at least one row"),
    "rows of no numbers": (lambda: fixed([[], []], 0), ValueError, "needs at least one row and one column"),
    "strings": (lambda: pa.array(["a", "b"]), TypeError, "must be real numbers"),
    "lists of strings": (lambda: fixed([["a"]], 1, pa.string()), TypeError, "must be real numbers"),
    "a column of strings": (lambda: pa.table({"a": [1.0], "b": ["x"]}), TypeError, "column 'b' is of string"),
    "two columns of lists": (
        lambda: pa.table({"a": fixed([[1.0]], 1), "b": fixed([[1.0]], 1)}),
        TypeError,
        "column 'a' is of fixed_size_list",
    ),
    "decimals": (lambda: fixed([[1]], 1, pa.decimal128(5, 2)), TypeError, "must be real numbers"),
    "times": (lambda: fixed([[1]], 1, pa.timestamp("s")), TypeError, "must be real numbers"),
    "maps": (lambda: pa.array([{"a": 1.0}]), TypeError, "must be real numbers"),
    "a path": (
        lambda: "rows.npy",
        TypeError,
        r"must be real numbers, got 'rows.npy'; numpy.load\(path, mmap_mode='r'\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case):
    make, error, message = WRONG[case]
    given, good = make(), np.ones((2, 2), np.float32)
    memory = sh.HopfieldMemory(np.eye(2), values=np.eye(2))
    for name, call in (
        ("patterns", lambda: sh.HopfieldMemory(given)),
        ("values", lambda: sh.HopfieldMemory(good, values=given)),
        ("patterns", lambda: memory.add(given, good)),
    ):
        with pytest.raises(error, match=rf"^{name}: ?.*{message}"):
            call()
    assert len(memory) == 2
    if case not in ("one axis", "no rows", "no tensors", "no rows in no chunks"):
        with pytest.raises((TypeError, ValueError), match=r"^queries"):
            memory.update(given)


# --- memory, and what is imported ---------------------------------------------------------------------

PEAK = """
import sys
import numpy as np, pyarrow as pa
import sparsehopfield as sh
m, d = 160_000, 256  # 156 MiB
rows = np.ones((m, d), np.float32)
part = lambda a, b: pa.FixedSizeListArray.from_arrays(pa.array(rows[a:b].ravel()), d)
given = {
    "one": lambda: part(0, m),
    "chunks": lambda: pa.chunked_array([part(a, a + m // 4) for a in range(0, m, m // 4)]),
    "columns": lambda: pa.table({str(j): rows[j * 625 :][:625].ravel() for j in range(d)}),
}[sys.argv[1]]()
sh.HopfieldMemory(np.eye(3))
peak = lambda: int([l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")][0]) * 1024
before = peak()  # which, unlike ru_maxrss, is not that of the process that started this one
memory = sh.HopfieldMemory(given, index=False)
print((peak() - before) / memory.nbytes)
"""


@pytest.mark.resources
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("form", "copies"), [("one", 0), ("chunks", 1), ("columns", 1)])
def test_no_second_copy_is_made(form, copies):
    done = subprocess.run([sys.executable, "-c", PEAK, form], capture_output=True, text=True, check=True)
    assert copies - 0.1 < float(done.stdout) < copies + 0.15


def test_nothing_is_imported_for_arrays_of_numpy():
    code = "import sys, numpy as np, sparsehopfield as sh; sh.HopfieldMemory(np.eye(3)).update([[1, 2, 3]])\n"
    code += "print([m for m in ('pyarrow', 'zarr', 'dask', 'h5py', 'polars') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
