"""The loaders: tiny files in the real formats, damaged ones, and the real data where it is."""

import gzip
import struct
import sys

import numpy as np
import pytest

from sparsehopfield.data import datasets


def idx(images, magic=0x803, count=None, size=(28, 28)):
    return struct.pack(">4I", magic, len(images) if count is None else count, *size) + images.tobytes()


@pytest.fixture
def grey(rng):
    return rng.integers(0, 256, (5, 784), np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def load_or_skip(name, folder, *options):
    try:
        return datasets.DATASETS[name](folder, *options)
    except FileNotFoundError as error:
        pytest.skip(f"real data: {error}")


# MNIST


@pytest.mark.parametrize("folder", [".", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist(tmp_path, grey, folder, packed):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    path = tmp_path / folder / ("train-images-idx3-ubyte" + ".gz" * packed)
    path.write_bytes(gzip.compress(idx(grey)) if packed else idx(grey))
    images = datasets.load_mnist(tmp_path)
    np.testing.assert_array_equal(images.images, grey)
    assert (images.name, images.shape, len(images)) == ("mnist", (28, 28), 5)
    pixels = images.pixels([1, 3])
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, grey[[1, 3]].astype(np.float32) / np.float32(255))


def test_mnist_splits(tmp_path, grey):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(grey))
    assert len(datasets.load_mnist(tmp_path, split="test")) == 5
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        datasets.load_mnist(tmp_path)
    with pytest.raises(ValueError, match="split"):
        datasets.load_mnist(tmp_path, split="validation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: b"", "too few"),
        (lambda images: idx(images)[:11], "too few"),
        (lambda images: idx(images, magic=0x801), "0x00000801"),
        (lambda images: idx(images, size=(32, 32)), "32 x 32"),
        (lambda images: idx(images, count=0), "0 images"),
        (lambda images: idx(images)[:-1], "promises 5 images"),
        (lambda images: idx(images) + b"\0", "promises 5 images"),
        (lambda images: idx(images, count=2**32 - 1), "promises 4294967295 images"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_damaged(tmp_path, grey, change, message, packed):
    path = tmp_path / ("train-images-idx3-ubyte" + ".gz" * packed)
    path.write_bytes(gzip.compress(change(grey)) if packed else change(grey))
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_mnist(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-20],  # cut off
        lambda packed: packed[:40] + bytes(b ^ 0x5A for b in packed[40:60]) + packed[60:],  # other bytes
    ],
)
def test_mnist_damaged_gzip(tmp_path, grey, damage):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.compress(idx(grey))))
    with pytest.raises(ValueError, match=r"damaged or unreadable gzip file .*download it again") as caught:
        datasets.load_mnist(tmp_path)
    assert str(path) in str(caught.value)


# CIFAR-10


def records(rng, count, label=None):
    made = rng.integers(0, 256, (count, 3073), np.uint8)
    made[:, 0] = np.arange(count) % 10 if label is None else label
    return made


@pytest.mark.parametrize("folder", [".", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, rng, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    parts = {"data_batch_2.bin": records(rng, 3), "test_batch.bin": records(rng, 2)}
    for name, part in parts.items():
        part.tofile(tmp_path / folder / name)
    images = datasets.load_cifar10(tmp_path)
    np.testing.assert_array_equal(images.images, np.concatenate([part[:, 1:] for part in parts.values()]))
    assert images.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda rng: b"", "whole number of records"),
        (lambda rng: records(rng, 2).tobytes()[:-7], "whole number of records"),
        (lambda rng: records(rng, 2, label=77).tobytes(), "label 77"),
    ],
)
def test_cifar10_damaged(tmp_path, rng, content, message):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(content(rng))
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_cifar10(tmp_path)
    assert str(path) in str(caught.value)


# ImageNet


@pytest.mark.parametrize("folder", [".", "imagenet64"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_imagenet64(tmp_path, rng, folder, save):
    (tmp_path / folder).mkdir(exist_ok=True)
    data = rng.integers(0, 256, (4, 12288), np.uint8)
    save(tmp_path / folder / "val_data.npz", data=data, labels=np.arange(4))
    images = datasets.load_imagenet64(tmp_path)
    np.testing.assert_array_equal(images.images, data)
    assert images.shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "no array called 'data'"),
        ({"data": np.zeros((2, 12288), np.float32)}, "float32"),
        ({"data": np.zeros((2, 3072), np.uint8)}, r"\(2, 3072\)"),
        ({"data": np.zeros((0, 12288), np.uint8)}, r"\(0, 12288\)"),
        ({"data": np.array([{}], dtype=object)}, "object"),  # a pickle inside: never loaded
    ],
)
def test_imagenet64_wrong(tmp_path, arrays, message):
    path = tmp_path / "val_data.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_imagenet64(tmp_path)
    assert str(path) in str(caught.value)


def test_imagenet64_damaged(tmp_path, rng):
    path = tmp_path / "val_data.npz"
    np.savez(path, data=rng.integers(0, 256, (2, 12288), np.uint8))
    whole = path.read_bytes()
    np.save(tmp_path / "plain.npy", np.zeros(3))
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF  # the checksum no longer holds
    for content in (b"", b"nonsense", whole[: len(whole) // 2], bytes(spoilt), (tmp_path / "plain.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or unreadable") as caught:
            datasets.load_imagenet64(tmp_path)
        assert str(path) in str(caught.value)


# All of them


@pytest.mark.parametrize("name", ["mnist", "cifar10", "imagenet64"])
def test_absent_files_are_named(tmp_path, name):
    expected = {"mnist": "train-images-idx3-ubyte.gz", "cifar10": "data_batch_1.bin", "imagenet64": "val_data.npz"}
    with pytest.raises(FileNotFoundError, match="https://") as caught:
        datasets.load(name, tmp_path)
    assert expected[name] in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "imagenet64"])
def test_no_default_folder(name, monkeypatch):
    monkeypatch.setenv("SPARSEHOPFIELD_DATA", "/data")  # read by the command line, not by the library
    with pytest.raises(ValueError, match=f"^root: the data set '{name}' .*--data"):
        datasets.load(name)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"^name: unknown name .* valid: digits, mnist"):
        datasets.load("mnits")


def test_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    digits = datasets.load("digits")
    assert digits.images.shape == (1797, 64)
    assert digits.images.dtype == np.float32
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    np.testing.assert_array_equal(digits.pixels(), digits.images)


def test_digits_without_sklearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"scikit-learn.*sparsehopfield\[sklearn\]"):
        datasets.load_digits()


@pytest.mark.parametrize(("split", "count", "mean"), [("train", 60000, 33.318), ("test", 10000, 33.791)])
def test_real_mnist(data_folder, split, count, mean):
    images = load_or_skip("mnist", data_folder, split)
    assert images.images.shape == (count, 784)
    assert abs(images.images.mean() - mean) < 0.001  # the well-known means of the original pixels


@pytest.mark.parametrize(("name", "size"), [("cifar10", 32), ("imagenet64", 64)])
def test_real_photographs(data_folder, name, size):
    images = load_or_skip(name, data_folder)
    assert len(images) >= 1000
    assert images.images.shape[1] == 3 * size * size
    rows = images.pixels(slice(0, 200)).reshape(-1, 3, size, size)
    # neighbouring pixels are alike along both axes, which they are not when axes are mixed up
    assert np.abs(np.diff(rows, axis=2)).mean() < 0.12
    assert np.abs(np.diff(rows, axis=3)).mean() < 0.12
    assert np.abs(rows - rows[:, ::-1]).mean() < 0.25
