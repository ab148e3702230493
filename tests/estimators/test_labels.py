"""Ids and labels: kept exactly as they came, wherever they come in, and never missing."""

import io
from datetime import date
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from scipy.io import savemat

import sparsehopfield as sh
from sparsehopfield._engine.labels import as_labels
from sparsehopfield.data import bags

#: Two that float64 makes one.
CLOSE = {
    "int64": (1523456789012345678, 1523456789012345679),
    "just beyond": (2**53, 2**53 + 1),
    "negative": (-(2**62) - 1, -(2**62)),
    "uint64": (2**64 - 1, 2**64 - 2),
    "beyond 64 bits": (10**25, 10**25 + 1),
    "both ends": (2**63, -1),
}


@pytest.mark.parametrize("pair", CLOSE.values(), ids=CLOSE)
@pytest.mark.parametrize(
    "form", [list, tuple, lambda pair: np.array(pair, dtype=object)], ids=["list", "tuple", "array"]
)
def test_numbers_stay_exact(pair, form):
    assert as_labels("ids", form(pair)).tolist() == list(pair)
    assert len(np.unique(as_labels("ids", form(pair)))) == 2


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ([1, 2], np.int64),
        ([True, False], np.bool_),
        (["a", "b"], "<U1"),
        ([b"a", b"b"], "S1"),
        ([1, 2.5], np.float64),
        ([2**60, 2.5], object),
        (["a", "a\0"], object),  # numpy would cut the NUL off
        ([Decimal("0.1"), 1], object),
        ([Fraction(1, 3), 1], object),
        ([date(2020, 1, 2), date(2020, 1, 1)], object),
        (np.array(["2020-01-01", "2021-01-01"], "M8[D]"), "M8[D]"),
        (np.array([1.5, -2.0], np.float32), np.float32),
        (np.ma.array([1, 2], mask=[False, False]), np.int64),
    ],
    ids=repr,
)
def test_kinds(given, dtype):
    made = as_labels("ids", given)
    assert made.dtype == dtype
    assert made.tolist() == np.asarray(given, dtype=object).tolist() or dtype == "M8[D]"
    assert len(np.unique(made)) == 2


MISSING = {
    "nan": [1.0, float("nan")],
    "None": [1, None],
    "None in text": ["a", None],
    "nan in text": ["a", float("nan")],
    "empty text": ["a", ""],
    "blank text": np.array(["a", "  "]),
    "empty bytes": np.array([b"a", b""]),
    "NaT": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "no duration": np.array([1, "NaT"], "m8[s]"),
    "NaT in a list": [np.datetime64("2020-01-01"), np.datetime64("NaT")],
    "masked": np.ma.array([1, 2], mask=[False, True]),
    "masked constant": [1, np.ma.masked],
    "float32": np.array([1, np.nan], np.float32),
    "decimal": [Decimal(1), Decimal("nan")],
    "signalling decimal": [Decimal(1), Decimal("snan")],
    "objects": np.array([1, None], dtype=object),
}


@pytest.mark.parametrize("given", MISSING.values(), ids=MISSING)
def test_missing(given):
    with pytest.raises(ValueError, match=r"^ids: must not be missing, but entry 1 is"):
        as_labels("ids", given)


@pytest.mark.parametrize(
    "given",
    [
        np.array([1, 1523456789012345678.0]),
        [1, float(2**53)],
        np.array([1, 2**24], np.float32),
        np.array([1, 2048], np.float16),
        [0.0, float("inf")],
        np.array([0.0, -np.inf]),
        [np.float64(2**60), 1],
    ],
    ids=repr,
)
def test_what_floats_cannot_tell_apart(given):
    with pytest.raises(ValueError, match=r"^ids: (must be finite|.* is beyond what float)"):
        as_labels("ids", given)


@pytest.mark.parametrize(
    "given",
    [
        [1, "1"],
        [True, 1],
        ["a", b"a"],
        [{}, {}],
        [1j, 2j],
        np.array([1j]),
        [{1}, {2}, {1}],  # sorted without complaint, and not in order
        [frozenset({1, 2}), frozenset({1}), frozenset({2, 3})],
        [np.zeros(2), np.zeros(3)],
    ],
    ids=repr,
)
def test_kinds_that_cannot_be_compared(given):
    with pytest.raises(TypeError, match=r"^ids: must be"):
        as_labels("ids", given)


def test_pandas():
    pd = pytest.importorskip("pandas", reason="labels may be columns of pandas frames")
    for given in (
        pd.Series([1, None], dtype="Int64"),
        pd.Series(["a", None]),
        pd.Series(["a", None], dtype="string"),
        pd.Series(["a", None], dtype="category"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([pd.Timestamp("2020"), pd.NaT]),
        pd.Series([1.0, None]),
        pd.array([1, pd.NA], dtype="UInt8"),
        [1, pd.NA],
        ["a", pd.NaT],
    ):
        with pytest.raises(ValueError, match=r"^ids: must not be missing, but entry 1 is"):
            as_labels("ids", given)
    for pair in CLOSE["int64"], CLOSE["uint64"]:
        for dtype in ("UInt64", "object", "uint64"):
            assert as_labels("ids", pd.Series(pair, dtype=dtype)).tolist() == list(pair)
    assert as_labels("ids", pd.Series(["b", "a"], dtype="category")).tolist() == ["b", "a"]


# Where they come in


@pytest.fixture
def mil():
    pytest.importorskip("sklearn", reason="the estimators need scikit-learn")
    from sparsehopfield.estimators import HopfieldMILClassifier

    return HopfieldMILClassifier(hidden_size=2, num_heads=1, epochs=1, random_state=0)


X = np.random.default_rng(0).standard_normal((8, 3))


@pytest.mark.parametrize("pair", CLOSE.values(), ids=CLOSE)
def test_bag_ids_stay_exact(mil, pair):
    ids = [*pair, *pair, 5, 5, 6, 6]
    y = np.arange(4) % 2
    by_number = mil.fit(X, y, bag_ids=ids)
    order = np.unique(as_labels("ids", ids), return_inverse=True)[1]
    expected = by_number.decision_function([X[order == i] for i in range(4)])
    np.testing.assert_array_equal(by_number.decision_function(X, ids), expected)
    np.testing.assert_array_equal(by_number.predict((X, ids)), by_number.predict(X, ids))


@pytest.mark.filterwarnings("ignore:Warning. converting a masked element")
@pytest.mark.parametrize("given", MISSING.values(), ids=MISSING)
def test_missing_bag_ids(mil, given):
    ids = np.ma.concatenate([given] * 4) if np.ma.isMaskedArray(given) else type(given) is list and given * 4
    ids = np.concatenate([given] * 4) if ids is False else ids
    fitted = mil.fit(X, [0, 1], bag_ids=[1, 1, 1, 1, 2, 2, 2, 2])
    for call in (
        lambda: mil.fit(X, [0, 1], bag_ids=ids),
        lambda: mil.fit(X, [0, 1], bag_ids=[1] * 4 + [2] * 4, validation=((X, ids), [0, 1])),
        lambda: fitted.predict(X, ids),
        lambda: fitted.predict_proba(X, bag_ids=ids),
        lambda: fitted.decision_function((X, ids)),
        lambda: fitted.transform(X, ids),
        lambda: fitted.bag_weights(X, ids),
    ):
        with pytest.raises(ValueError, match=r"^bag_ids: must not be missing, but entry 1 is"):
            call()


@pytest.mark.parametrize("pair", [CLOSE["int64"], CLOSE["uint64"]])
def test_classes_stay_exact(mil, pair):
    from sparsehopfield.estimators import HopfieldClassifier

    sets = list(X.reshape(4, 2, 3))
    y = [*pair, *pair]
    fitted = mil.fit(sets, y, validation=(sets, y))
    assert fitted.classes_.tolist() == sorted(pair)
    assert set(fitted.predict(sets).tolist()) <= set(pair)
    classifier = HopfieldClassifier(beta=100.0).fit(X[:4], y)
    assert classifier.predict(X[:4]).tolist() == y
    with pytest.raises(ValueError, match=r"^validation: label"):
        mil.fit(sets, y, validation=(sets, [*pair, *pair[:1], pair[1] - 10]))


def test_classes_of_two_kinds(mil):
    from sparsehopfield.estimators import HopfieldClassifier

    for y, error in (([1, "1", 1, "1"], TypeError), ([1, None, 1, 2], ValueError), (["a", "", "a", "b"], ValueError)):
        for call in (lambda y=y: mil.fit(list(X.reshape(4, 2, 3)), y), lambda y=y: HopfieldClassifier().fit(X[:4], y)):
            with pytest.raises(error, match=r"^y: must"):
                call()
    with pytest.raises(ValueError, match=r"^y: (must not be missing|masks some)"):
        HopfieldClassifier().fit(X[:4], np.ma.array([0, 1, 0, 1], mask=[0, 0, 0, 1]))


def test_two_bags_are_no_bag_with_ids(mil):
    two = (X[:3].tolist(), X[3:].tolist())
    assert mil.fit(two, [0, 1]).predict(two).shape == (2,)
    with pytest.raises(ValueError, match=r"^bags\[1\]: "):
        mil.predict((X[:3].tolist(), [[1.0, 2.0, 3.0], [1.0]]))


def test_bags_of_objects(mil):
    """Numbers in arrays of objects are read as numbers, and text in them is none."""
    stacked = X.reshape(4, 2, 3).astype(object)
    expected = mil.fit(X.reshape(4, 2, 3), [0, 1, 0, 1]).decision_function(X.reshape(4, 2, 3))
    np.testing.assert_array_equal(mil.decision_function(stacked), expected)
    for wrong in (stacked.astype(str).astype(object), np.where(stacked > 1, None, stacked)):
        with pytest.raises((TypeError, ValueError), match=r"^bags"):
            mil.predict(wrong)


def test_ids_of_memories():
    for pair in (CLOSE["int64"], CLOSE["just beyond"], CLOSE["negative"]):
        memory = sh.HopfieldMemory(np.eye(2), ids=pair)
        assert memory.ids.tolist() == list(pair)
        memory.add(np.eye(2)[:1], ids=[pair[0] - 1000])
        assert memory.ids.tolist() == [*pair, pair[0] - 1000]
    for wrong in ([1.0, np.nan], [1, None], np.array([1.0, 2.0**60]), CLOSE["both ends"]):
        with pytest.raises((TypeError, ValueError, OverflowError), match=r"^ids:"):
            sh.HopfieldMemory(np.eye(2), ids=wrong)


# In files


@pytest.mark.parametrize("pair", CLOSE.values(), ids=CLOSE)
@pytest.mark.parametrize("written", ["{}", "{}.0", '"{}"', " {} "], ids=repr)
def test_ids_of_csv_stay_exact(tmp_path, pair, written):
    path = tmp_path / "any.csv"
    path.write_text("".join(f"{i},{written.format(name)},{i}\n" for i, name in enumerate(pair)))
    loaded = bags.load_bags(path)
    assert loaded.sizes.tolist() == [1, 1]
    assert loaded.labels.tolist() == ([0, 1] if pair[0] < pair[1] else [1, 0])


def test_numbers_written_in_several_ways(tmp_path):
    path = tmp_path / "any.csv"
    path.write_text("1,1,0\n0,1.0,1\n0,1e0,2\n0,+1,3\n0,01,4\n0,0.1,5\n0,0.10,6\n0,-1,7\n")
    loaded = bags.load_bags(path)
    assert [bag.ravel().tolist() for bag in loaded] == [[7], [5, 6], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("line", ['"1,1",2,3', '1,"1,2",3', '1,1,2"', '1,"1,2,3', '"1"",1,2'])
def test_quotes_that_are_not_around_one_number(tmp_path, line):
    path = tmp_path / "any.csv"
    path.write_text(line + "\n")
    with pytest.raises(sh.FileFormatError, match="line 1: not a csv file of numbers"):
        bags.load_bags(path)


@pytest.mark.parametrize("pair", ["int64", "just beyond", "negative", "uint64"])
@pytest.mark.parametrize("compress", [True, False])
def test_ids_of_matlab_stay_exact(tmp_path, pair, compress):
    ids = np.array(CLOSE[pair])
    content = {"features": np.arange(6.0).reshape(2, 3), "labels": np.array([-1, 1]), "bag_ids": ids}
    savemat(tmp_path / "any.mat", content, do_compression=compress)
    assert bags.load_bags(tmp_path / "any.mat").sizes.tolist() == [1, 1]
    savemat(tmp_path / "any.mat", content | {"bag_ids": ids.astype(float)}, do_compression=compress)
    with pytest.raises(sh.FileFormatError, match=r"any\.mat: bag ids: .* is beyond what float64 numbers can tell"):
        bags.load_bags(tmp_path / "any.mat")


@pytest.mark.parametrize("missing", ["", " ", "nan", "NA", "None", "inf", "NaT", '""', "1_0", "١", "0x10"])
@pytest.mark.parametrize("what", ["label", "bag id", "feature 2"])
def test_missing_in_csv(tmp_path, missing, what):
    fields = ["1", "3", "0.5", "0.25"]
    fields[["label", "bag id", "feature 1", "feature 2"].index(what)] = missing
    path = tmp_path / "any.csv"
    path.write_text(f"0,1,2,3\n\n# a comment\n{','.join(fields)}\n", encoding="utf-8")
    with pytest.raises(sh.FileFormatError, match=rf"any\.csv, line 4: .*its {what} is (missing|no finite number)"):
        bags.load_bags(path)


def test_missing_in_matlab(tmp_path):
    content = {"features": np.ones((3, 2)), "labels": np.array([0.0, 1, 0]), "bag_ids": np.array([1.0, 2, 2])}
    for name, text in (("labels", "labels"), ("bag_ids", "bag ids")):
        spoilt = content[name].copy()
        spoilt[1] = np.nan
        file = io.BytesIO()
        savemat(file, content | {name: spoilt})
        (tmp_path / "any.mat").write_bytes(file.getvalue())
        with pytest.raises(sh.FileFormatError, match=rf"any\.mat: {text}: must not be missing, but entry 1 is"):
            bags.load_bags(tmp_path / "any.mat")


@pytest.mark.parametrize(
    "labels",
    [[3, -1, 3], [True, False], [0.5, 2.0, -0.0], ["b", "a ", "ab"], [2**63, 2**64 - 1], [2**63, -1], ["a\0", "a"]],
)
def test_lists_are_what_arrays_of_objects_are(labels):
    listed, objects = as_labels("ids", labels), as_labels("ids", np.array([labels], dtype=object))[0]
    assert listed.dtype == objects.dtype
    assert listed.tolist() == objects.tolist() == labels
    assert as_labels("ids", np.array(labels, dtype=object)).tolist() == labels


@pytest.mark.parametrize("labels", [[1, True], [1.0, float("nan")], [1.0, 2.0**53], ["a", " "], ["a", 1], [1, None]])
def test_lists_that_are_refused_as_arrays_of_objects_are(labels):
    with pytest.raises((ValueError, TypeError)) as of_array:
        as_labels("ids", np.array([labels], dtype=object))
    with pytest.raises(of_array.type) as of_list:
        as_labels("ids", labels)
    assert str(of_list.value) == str(of_array.value)
