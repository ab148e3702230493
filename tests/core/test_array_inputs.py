"""Arrays in every form that other libraries give them: masked, unaligned, nullable, by every public function."""

import re
import warnings

import numpy as np
import pytest
from public_calls import LOSSES, ROW_MAPS, calls, flattened

import sparsehopfield as sh
from sparsehopfield import layers, optim, reference, theory
from sparsehopfield._engine import dense
from sparsehopfield.data.bags import Bags
from sparsehopfield.data.datasets import ImageSet
from sparsehopfield.estimators import HopfieldClassifier, HopfieldMILClassifier, HopfieldRetriever
from sparsehopfield.structures import BlockSparse, Window
from sparsehopfield.studies.mil.protocol import Scale

ALIASES = {
    "input": "stored pattern|state pattern|pattern projection|bags",
    "more": "patterns",
    "more_values": "values",
    "more_ids": "ids",
}
TABLE = calls()


def array_arguments(kinds="fiub"):
    """Give (name, function, arguments, argument) of every argument that is an array of such a kind."""
    for name, (function, arguments) in TABLE.items():
        for argument, value in arguments.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.ndim and value.size > 1:
                yield name, function, arguments, argument


def result_of(function, arguments):
    """Give the parts of a result, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flattened(function(**arguments))


def compare(name, found, expected):
    """Check that results are the same: to the bit, but where NumPy sums in an order that follows the strides."""
    assert len(found) == len(expected), name
    rtol = 1e-12 if name.startswith(("reference", "theory")) else 0
    for a, b in zip(found, expected, strict=True):
        if isinstance(a, (np.ndarray, np.floating)):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=name)
            assert a.dtype == b.dtype, name
        else:
            assert a == b or a != a, name


def is_row_map(name):
    """Return whether a call is one of a row map, or of a loss, whose scores may be masked."""
    return name.removeprefix("reference.").partition(" ")[0] in {*ROW_MAPS, *LOSSES}


def refused(name, function, arguments, argument):
    """Check that a call is refused by an argument's name."""
    pattern = rf"(^|\b)({argument}|{ALIASES.get(argument, argument)})\b"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**arguments)
        except (ValueError, TypeError) as error:
            message = str(error)
        else:
            pytest.fail(f"{name}({argument}): was taken")
    assert re.search(pattern, message), f"{name}({argument}): {message}"


# --- masked arrays ------------------------------------------------------------------------------------


def test_masked_entries_are_refused_by_name():
    """A mask that hides one entry is no array of numbers, for every argument that is one, but those of row maps."""
    count = 0
    for name, function, arguments, argument in array_arguments():
        if is_row_map(name):
            continue
        masked = np.ma.array(arguments[argument], copy=True)
        masked[(0,) * masked.ndim] = np.ma.masked
        refused(name, function, arguments | {argument: masked}, argument)
        count += 1
    assert count > 200


def test_masked_arrays_that_mask_nothing_are_arrays():
    for name, function, arguments, argument in array_arguments():
        plain = np.ma.array(arguments[argument], mask=False)
        found = result_of(function, arguments | {argument: plain})
        compare(f"{name}({argument})", found, result_of(function, arguments))


@pytest.mark.covering(2)
@pytest.mark.parametrize("module", [sh, reference], ids=["package", "reference"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8, np.int64])
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("name", ROW_MAPS)
def test_row_maps_give_masked_entries_no_weight(name, axis, dtype, module):
    """Masked scores are as -inf, masked weights and gradients as 0, and the result is a plain array."""
    rng = np.random.default_rng(1)
    options = {"alpha": 1.7, "order": 2, "k": 2}
    arguments = ROW_MAPS[name].split()
    mask = rng.random((4, 5)) < 0.4
    mask[0], mask[:, 0] = True, False
    mask[0, 0] = False
    masked, filled = {}, {}
    for argument in arguments:
        if argument in options:
            masked[argument] = filled[argument] = options[argument]
            continue
        given = (3 * rng.standard_normal((4, 5))).astype(dtype)
        if argument == "p":
            given = np.abs(given)
        hidden = given.copy()
        # what is under the mask must not matter
        hidden[mask] = np.iinfo(dtype).max if given.dtype.kind == "i" else np.nan
        masked[argument] = np.ma.array(hidden, mask=mask)
        wide = np.result_type(np.float32, dtype)
        filled[argument] = np.where(mask, -np.inf if argument == "z" else 0.0, given.astype(wide)).astype(wide)
    function = getattr(module, name)
    found, expected = function(**masked, axis=axis), function(**filled, axis=axis)
    np.testing.assert_equal(flattened(found), flattened(expected))
    for a, b in zip(flattened(found), flattened(expected), strict=True):
        assert type(a) is type(b)
        assert not isinstance(a, np.ma.MaskedArray)
        assert a.dtype == b.dtype


def test_masked_rows_in_lists():
    z = [np.ma.array([1.0, 2.0, 9.0], mask=[0, 0, 1]), np.ma.array([1.0, 2.0, 9.0], mask=[1, 0, 0])]
    assert np.array_equal(sh.sparsemax(z), [[0, 1, 0], [0, 0, 1]])
    assert np.array_equal(sh.sparsemax([np.ma.masked, 1.0]), [0, 1])
    assert np.array_equal(sh.softmax([[np.ma.masked, 1.0], [2.0, np.ma.masked]]), [[0, 1], [1, 0]])
    with pytest.raises(ValueError, match=r"^queries: masks"):
        sh.update(z, np.eye(3))
    with pytest.raises(ValueError, match=r"^patterns: masks"):
        sh.HopfieldMemory([[1.0, np.ma.masked]])
    with pytest.raises(ValueError, match=r"^stored pattern\[1\]: masks"):
        layers.HopfieldPooling(3).forward([np.eye(3), np.ma.masked_greater(np.eye(3), 0.5)])


def hidden_gradient():
    """Return a parameter whose gradient masks an entry."""
    p = layers.Parameter(np.zeros(2))
    p.grad = np.ma.array([1.0, 2.0], mask=[0, 1])
    return p


def test_the_masks_of_other_arguments():
    """What the table has no array for: results' places, labels, numbers of bags, options."""
    x = np.eye(3)
    out = np.ma.array(np.zeros(3), mask=[1, 0, 0])
    hidden = np.ma.array([0, 1, 0], mask=[0, 0, 1])
    ids = np.ma.array([0, 1, 2], mask=[0, 0, 1])
    bags = [x, x, x]
    for call, name in (
        (lambda: sh.HopfieldMemory(np.ma.masked_equal([[1, -999], [0, 2]], -999)), "patterns"),
        (lambda: sh.softmax([1.0, 2.0, 3.0], out=out), "out"),
        (lambda: sh.update(x[0], x, out=out), "out"),
        (lambda: sh.entmax(x, np.ma.array([1.5, 2, 2], mask=[0, 0, 1])), "alpha"),
        (lambda: sh.update(x, x, np.ma.array([1.0, 2, 2], mask=[0, 0, 1])), "beta"),
        (lambda: sh.HopfieldMemory(x, ids=ids), "ids"),
        (lambda: sh.HopfieldMemory(x).remove(ids), "positions"),
        (lambda: sh.HopfieldMemory(x).stored_fraction(np.ma.array([1.0, 2.0], mask=[0, 1])), "betas"),
        (lambda: setattr(sh.HopfieldMemory(x), "beta", np.ma.masked), "beta"),
        (lambda: HopfieldClassifier().fit(x, hidden), "y"),
        (lambda: HopfieldRetriever().fit(x).transform(np.ma.masked_less(x, 0.5)), "X"),
        (lambda: HopfieldMILClassifier().fit(bags, hidden), "y"),
        (lambda: HopfieldMILClassifier().fit(x, [0, 1], ids), "bag_ids"),
        (lambda: HopfieldMILClassifier().fit([x, np.ma.masked_less(x, 0.5)], [0, 1]), r"bags\[1\]"),
        (lambda: HopfieldMILClassifier().fit(np.ma.masked_less(np.stack(bags), 0.5), [0, 1, 0]), "bags"),
        (lambda: HopfieldMILClassifier(epochs=1).fit(bags, [0, 1, 0], validation=(bags, hidden)), "validation"),
        (
            lambda: Bags(x, np.array([0, 1, 3]), np.array([0, 1]), "two", "two").take(np.ma.masked_equal([0, 1], 1)),
            "index",
        ),
        (lambda: Window(1, positions=ids), "positions"),
        (lambda: BlockSparse(np.ma.array(x > 0, mask=x > 0), 1), "mask"),
        (
            lambda: layers.Linear(3, 2).load_state_dict(
                {"weight": np.ma.masked_less(np.ones((2, 3)), 2)}, strict=False
            ),
            "state",
        ),
        (lambda: layers.Hopfield(3).forward(x[None], association_mask=np.ma.masked_less(x, 0.5)), "association_mask"),
        (lambda: layers.SparseHopfield(3).forward(x, offsets=np.ma.masked_equal([0, 1, 3], 1)), "offsets"),
        (lambda: theory.margin_at(x, x, ids), "index"),
        (lambda: Bags(np.ma.masked_less(x, 0.5), np.arange(4), np.arange(3), "three", "three"), "instances"),
        (lambda: ImageSet("drawn", np.ma.masked_less(x, 0.5), (1, 3), "drawn"), "images"),
        (lambda: layers.Parameter(np.ma.masked_less(x, 0.5)), "value"),
        (lambda: optim.clip_gradients([hidden_gradient()], 1.0), "grad of 0"),
        (lambda: optim.AdamW([hidden_gradient()]).step(), "grad of 0"),
    ):
        with pytest.raises(ValueError, match=rf"^{name}"):
            call()
    assert np.array_equal(out.data, np.zeros(3))


# --- layouts ------------------------------------------------------------------------------------------


def unaligned(a):
    """Return the same numbers one byte past where they should lie."""
    raw = np.empty(a.nbytes + 1, np.uint8)
    out = np.frombuffer(raw, a.dtype, offset=1).reshape(a.shape) if a.size else a
    raw[1:] = np.frombuffer(np.ascontiguousarray(a).tobytes(), np.uint8)
    return out


def unaligned_field(a):
    """Return a column of packed records."""
    records = np.zeros(a.shape, [("flag", "i1"), ("number", a.dtype)])
    records["number"] = a
    return records["number"]


def readonly(a):
    """Return a copy that cannot be written to."""
    a = a.copy()
    a.flags.writeable = False
    return a


FORMS = {
    "unaligned": unaligned,
    "unaligned field": unaligned_field,
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "unaligned and swapped": lambda a: unaligned(a.astype(a.dtype.newbyteorder())),
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "columns backwards": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "Fortran": np.asfortranarray,
    "spread": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "read-only": readonly,
    "a subclass": lambda a: a.view(type("Other", (np.ndarray,), {})),
    "object that has an array": lambda a: type("Holder", (), {"__array__": lambda self, dtype=None, copy=None: a})(),
}


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_arrays_give_the_same(form, dtype):
    table = calls(dtype=dtype)
    for name, (function, arguments) in table.items():
        if name.endswith(("bags", "MILClassifier", "attention", "options")):
            continue  # their bags are lists: the test below
        expected = None
        for argument, value in arguments.items():
            if not isinstance(value, np.ndarray) or not value.ndim or value.size < 2:
                continue
            if form.startswith("object") and argument == "X" and dtype is np.float32:
                continue  # of what has no dtype of its own scikit-learn makes float64
            expected = result_of(function, arguments) if expected is None else expected
            found = result_of(function, arguments | {argument: FORMS[form](value)})
            compare(f"{name}({argument})", found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_bags(form):
    for name in ("HopfieldMILClassifier", "HopfieldMILClassifier attention", "HopfieldPooling bags"):
        function, arguments = TABLE[name]
        key = "bags" if "bags" in arguments else "input"
        given = [FORMS[form](bag) for bag in arguments[key]]
        if key == "input" and form.startswith("object"):
            continue  # a layer tells lists of bags by their first array
        np.testing.assert_equal(result_of(function, arguments | {key: given}), result_of(function, arguments))


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.float32, np.float64])
def test_unaligned_memories(dtype):
    """Also those whose rows stay what they are; and what is not aligned cannot be lent."""
    patterns = (np.arange(30).reshape(10, 3) % 7).astype(dtype)
    x = np.ones(3, np.float32)
    expected = sh.HopfieldMemory(patterns).update(x)
    assert np.array_equal(sh.HopfieldMemory(unaligned(patterns)).update(unaligned(x)), expected)
    values = unaligned(np.arange(20.0).reshape(10, 2))
    mixed = sh.HopfieldMemory(patterns, values=values.copy()).update(x)
    assert np.array_equal(sh.HopfieldMemory(patterns, values=values).update(x), mixed)
    if dtype is not np.uint8:
        with pytest.raises(ValueError, match=r"^copy: "):
            sh.HopfieldMemory(unaligned(patterns), copy=False)


@pytest.mark.parametrize("form", ["unaligned", "unaligned field", "backwards", "Fortran", "spread"])
def test_results_are_written_to_any_layout(form):
    x = np.eye(3)[:2] * 0.9
    out = FORMS[form](np.full((2, 3), 7.0))
    for call in (
        lambda out: sh.update(x, np.eye(3), out=out),
        lambda out: sh.retrieve(x, np.eye(3), out=out),
        lambda out: sh.update(x, np.eye(3), values=np.eye(3) * 3, out=out),
        lambda out: sh.HopfieldMemory(np.eye(3)).update(x, out=out),
        lambda out: sh.entmax(x, out=out),
    ):
        if out.flags.writeable:
            out[...] = 7
            assert call(out) is out
            assert np.array_equal(out, call(None))


def test_one_number_for_all():
    """Arrays that step by nothing are read as what they stand for."""
    x = np.broadcast_to(np.float32(0.5), (4, 3))
    column = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None], (4, 3))
    for a in (x, column):
        assert np.array_equal(
            sh.update(a, np.eye(3, dtype=np.float32)), sh.update(a.copy(), np.eye(3, dtype=np.float32))
        )
        assert np.array_equal(sh.HopfieldMemory(a).update(a), sh.HopfieldMemory(a.copy()).update(a.copy()))
        layer = layers.Linear(3, 2, random_state=0)
        assert np.array_equal(layer.forward(a), layer.forward(a.copy()))
        assert np.array_equal(sh.entmax(a), sh.entmax(a.copy()))


# --- data frames --------------------------------------------------------------------------------------


def nullable(a):
    """Return a frame or series of pandas' own dtypes."""
    pandas = pytest.importorskip("pandas", reason="reads pandas' nullable dtypes")
    kind = {"f": f"Float{8 * a.dtype.itemsize}", "i": "Int64", "u": "UInt64", "b": "boolean"}[a.dtype.kind]
    return (pandas.DataFrame(a) if a.ndim == 2 else pandas.Series(a)).astype(kind)


def arrow(a):
    """Return a frame or series of Arrow's dtypes."""
    pandas = pytest.importorskip("pandas", reason="reads Arrow's dtypes in pandas")
    pytest.importorskip("pyarrow", reason="reads Arrow's dtypes in pandas")
    kind = {"f": "double" if a.dtype.itemsize == 8 else "float", "i": "int64", "u": "uint64", "b": "bool"}[a.dtype.kind]
    return (pandas.DataFrame(a) if a.ndim == 2 else pandas.Series(a)).astype(f"{kind}[pyarrow]")


def mixed(a):
    """Return a frame whose columns differ in their dtypes, which NumPy makes an array of objects."""
    pandas = pytest.importorskip("pandas", reason="reads pandas' nullable dtypes")
    frame = pandas.DataFrame(a)
    if a.dtype.kind == "f" and a.ndim == 2:
        frame = frame.astype({0: "Float64", 1: "double[pyarrow]"} if a.dtype == np.float64 else {0: "Float32"})
    return frame if a.ndim == 2 else frame[0].astype("Float64" if a.dtype.kind == "f" else "Int64")


def polars_frame(a):
    """Return a frame or series of polars."""
    polars = pytest.importorskip("polars", reason="reads polars' frames")
    return polars.DataFrame(a) if a.ndim == 2 else polars.Series(a)


def arrow_table(a):
    """Return a table of Arrow, a column for each of the array's, or an array of Arrow."""
    pyarrow = pytest.importorskip("pyarrow", reason="reads Arrow's tables")
    return pyarrow.table({str(j): a[:, j] for j in range(a.shape[1])}) if a.ndim == 2 else pyarrow.array(a)


FRAMES = {"nullable": nullable, "arrow": arrow, "mixed": mixed, "polars": polars_frame, "table": arrow_table}


@pytest.mark.parametrize("frame", FRAMES)
def test_frames_give_the_same(frame):
    for name, function, arguments, argument in array_arguments("fi"):
        if arguments[argument].ndim > 2:
            continue
        given = FRAMES[frame](arguments[argument])
        found = result_of(function, arguments | {argument: given})
        compare(f"{name}({argument})", found, result_of(function, arguments))


@pytest.mark.parametrize("frame", ["nullable", "arrow", "mixed"])
def test_missing_values_are_refused_by_name(frame):
    """They become NaN: refused wherever NaN is, and in row maps a row of NaN."""
    pandas = pytest.importorskip("pandas", reason="reads pandas' nullable dtypes")
    for name, function, arguments, argument in array_arguments("f"):
        value = arguments[argument]
        if value.ndim > 2 or argument in ("grad", "logits", "predictions", "targets") or name in ("ReLU", "GELU"):
            continue  # functions of each number
        given = FRAMES[frame](value)
        if value.ndim == 2:
            given.iloc[0, 0] = pandas.NA
        else:
            given.iloc[0] = pandas.NA
        if is_row_map(name) and argument not in ("target", "sample_weight"):
            with_nan = value.copy()
            with_nan[(0,) * value.ndim] = np.nan
            expected = result_of(function, arguments | {argument: with_nan})
            np.testing.assert_equal(result_of(function, arguments | {argument: given}), expected)
        elif name not in ("Linear", "LayerNorm", "Dropout", "Linear.backward", "optim") and "reference" not in name:
            refused(name, function, arguments | {argument: given}, argument)


@pytest.mark.parametrize("kind", ["nullable", "arrow", "polars"])
def test_frames_in_bags(kind):
    pandas = pytest.importorskip("pandas", reason="reads pandas' nullable dtypes")
    function, arguments = TABLE["HopfieldMILClassifier"]
    given = [FRAMES[kind](bag) for bag in arguments["bags"]]
    np.testing.assert_equal(result_of(function, arguments | {"bags": given}), result_of(function, arguments))
    function, arguments = TABLE["HopfieldMILClassifier ids"]
    given = {name: FRAMES[kind](arguments[name]) for name in ("bags", "bag_ids", "y")}
    np.testing.assert_equal(result_of(function, arguments | given), result_of(function, arguments))
    if kind != "polars":
        spoilt = FRAMES[kind](arguments["bags"])
        spoilt.iloc[3, 1] = pandas.NA
        with pytest.raises(ValueError, match=r"^bags: bag 1 "):
            function(**arguments | {"bags": spoilt})


def test_frames_keep_whole_numbers_whole():
    """Ids of 19 digits do not pass through float64."""
    pandas = pytest.importorskip("pandas", reason="reads pandas' nullable dtypes")
    ids = pandas.array([1523456789012345678, 1523456789012345679, 3], dtype="Int64")
    frame = pandas.DataFrame({"a": ids, "b": pandas.array([True, False, True], dtype="boolean")})
    assert np.array_equal(sh.HopfieldMemory(np.eye(3), ids=pandas.Series(ids)).ids, [*map(int, ids)])
    memory = sh.HopfieldMemory(frame.astype({"a": "UInt8"}, errors="ignore").iloc[:, 1:].astype("Int8"))
    assert np.array_equal(memory.patterns, [[1], [0], [1]])
    with pytest.raises(ValueError, match=r"^z: has integers beyond 2\*\*53"):
        sh.sparsemax(frame, axis=0)


def test_frames_of_anything_else_are_refused():
    pandas = pytest.importorskip("pandas", reason="reads pandas' nullable dtypes")
    for column in (["a", "b"], pandas.to_datetime(["2020", "2021"]), [None, object()], pandas.Categorical(["x", "y"])):
        frame = pandas.DataFrame({"number": pandas.array([1.0, 2.0], dtype="Float64"), "other": column})
        for call, name in (
            (lambda f=frame: sh.HopfieldMemory(f), "patterns"),
            (lambda f=frame: sh.softmax(f), "z"),
            (lambda f=frame: layers.Linear(2, 1).forward(f), "input"),
        ):
            with pytest.raises(TypeError, match=rf"^{name}: must be real numbers"):
                call()
    with pytest.raises(TypeError, match=r"^queries: .*object; convert it"):
        sh.update(np.array([1, 2.0], object), np.eye(2))
    with pytest.raises(TypeError, match=r"^patterns: .*object; leave out text, as with select_dtypes"):
        sh.HopfieldMemory(pandas.DataFrame({"number": [1.0, 2.0], "other": ["a", "b"]}))
    with pytest.raises(TypeError, match=r"^patterns: .*object; np\.stack"):
        sh.HopfieldMemory(pandas.Series([[1.0, 2.0], np.ones(2)]))
    with pytest.raises(TypeError, match=r"^patterns: .*object; convert it"):
        sh.HopfieldMemory(np.array(None))


# --- constant features --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constant", [0.1, 0.0, -1 / 3, 1e-300, 1e30, 12345.678])
@pytest.mark.parametrize("size", [7, 1000])
def test_constant_features_have_scale_one(constant, size, dtype):
    """Whatever rounding the mean of equal numbers has; and what varies little is not taken for constant."""
    rng = np.random.default_rng(0)
    bags = rng.normal(size=(10, size, 3))
    bags[..., 1] = constant
    bags[..., 2] = 1 + 1e-5 * bags[..., 2]
    model = HopfieldMILClassifier(epochs=1, normalize=False, dtype=dtype).fit(bags, np.arange(10) % 2)
    assert model.scale_[1] == 1
    assert model.scale_[2] == pytest.approx(1e-5, rel=0.1)
    rows = bags.reshape(-1, 3)
    assert np.array_equal(dense.feature_scale(rows)[1] == 1, [False, True, False])
    scale = Scale.of(Bags(rows, np.arange(11) * size, np.arange(10) % 2, "drawn", "drawn"), None)
    assert scale.std[1] == 1


def test_scales_of_few_or_large_numbers():
    assert np.array_equal(dense.feature_scale(np.array([[3.0, -5.0]]))[1], [1, 1])
    for size in (1e200, 5e307, 1e-200, 2.0**-1060):  # whose squares float64 does not hold
        mean, scale = dense.feature_scale(np.array([[1.0], [3.0]]) * size)
        assert (mean / size, scale / size) == (2, 1)
    for constant in (1.7e308, -1.7e308, 5e-324):
        mean, scale = dense.feature_scale(np.full((7, 1), constant))
        assert mean[0] == pytest.approx(constant)
        assert scale[0] == 1
    assert dense.feature_scale(np.array([[-1.0], [1.0]]))[1] == 1
