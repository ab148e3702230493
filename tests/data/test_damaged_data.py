"""Files of data that are packed, damaged, hostile or of another layout: read, or refused by name."""

import bz2
import gzip
import io
import lzma
import os
import random
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix, random_array

from sparsehopfield import FileFormatError
from sparsehopfield.data import _content, bags, datasets

PACKERS = {"gzip": gzip.compress, "bz2": bz2.compress, "lzma": lzma.compress}


def matlab(version="5", sparse=True, compress=False):
    rng = np.random.default_rng(0)
    features = random_array((6, 5), density=0.5, rng=rng)
    content = {
        "features": csc_matrix(features) if sparse else features.toarray(),
        "labels": np.array([[-1.0, -1, 1, -1, 1, -1]]),
        "bag_ids": np.array([[1.0, 1, 2, 7, 7, 7]]),
        "other": "text",
    }
    if version == "5":
        content["cells"] = np.array([{"a": 1}, "text"], dtype=object)
    file = io.BytesIO()
    savemat(file, content, format=version, do_compression=compress)
    return file.getvalue()


def npz(save=np.savez):
    file = io.BytesIO()
    save(file, data=np.random.default_rng(0).integers(0, 3, (2, 12288), np.uint8), labels=np.arange(2))
    return file.getvalue()


CSV = b"0,1,0.5,2\n1,2,0.1,3\n0,1,0.7,4\n"
IMAGES = struct.pack(">4I", 0x803, 3, 28, 28) + bytes(range(196)) * 12
LABELS = struct.pack(">2I", 0x801, 4) + bytes([3, 9, 0, 1])
PHOTOGRAPHS = (bytes([3]) + bytes(range(256)) * 12) * 2

#: The name of a file in a folder, whole files of it, and what reads the folder.
LOADERS = {
    "csv": ("ucsb.csv", [CSV], lambda folder: bags.load_mil("ucsb", folder)),
    "matlab": (
        "tiger_100x100_matlab.mat",
        [matlab(), matlab(sparse=False, compress=True), matlab("4"), matlab("4", sparse=False)],
        lambda folder: bags.load_mil("tiger", folder),
    ),
    "images": ("train-images-idx3-ubyte", [IMAGES], datasets.load_mnist),
    "labels": ("train-labels-idx1-ubyte", [LABELS], lambda folder: datasets.load_labels("mnist", folder)),
    "cifar10": ("test_batch.bin", [PHOTOGRAPHS], datasets.load_cifar10),
    "imagenet64": ("val_data.npz", [npz(), npz(np.savez_compressed)], datasets.load_imagenet64),
}


def numbers(loaded):
    """What a loader returned, as arrays."""
    if isinstance(loaded, bags.Bags):
        return loaded.instances, loaded.offsets, loaded.labels
    return (loaded.images,) if isinstance(loaded, datasets.ImageSet) else (loaded,)


def refused(path, load, match=None):
    with pytest.raises(FileFormatError, match=match) as caught:
        load(path.parent)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) <= 1000


# Packed


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", LOADERS)
def test_packed_whatever_the_name(tmp_path, kind, packer):
    name, contents, load = LOADERS[kind]
    for content in contents:
        (tmp_path / name).write_bytes(content)
        expected = numbers(load(tmp_path))
        (tmp_path / name).write_bytes(PACKERS[packer](content))
        for found, wanted in zip(numbers(load(tmp_path)), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["csv", "matlab", "images", "labels"])
@pytest.mark.parametrize("pack", [gzip.compress, lambda content: content], ids=["packed", "not packed"])
def test_named_gz(tmp_path, kind, pack):
    name, contents, load = LOADERS[kind]
    (tmp_path / (name + ".gz")).write_bytes(pack(contents[0]))
    assert len(load(tmp_path)) > 0
    if kind in ("csv", "matlab"):
        assert len(bags.load_bags(tmp_path / (name + ".gz"))) > 0


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", LOADERS)
def test_packed_and_damaged(tmp_path, kind, packer):
    name, contents, load = LOADERS[kind]
    path = tmp_path / name
    whole = PACKERS[packer](contents[0])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:12], bytes(flipped)):
        path.write_bytes(damaged)
        refused(path, load, f"damaged or unreadable {packer} file .*; download it again")


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", LOADERS)
def test_packed_far_too_much(tmp_path, monkeypatch, kind, packer):
    name, _, load = LOADERS[kind]
    monkeypatch.setattr(_content, "MAX_UNPACKED", 10**5)
    (tmp_path / name).write_bytes(PACKERS[packer](bytes(10**5 + 1)))
    refused(tmp_path / name, load, "unpacks to more than 100000 bytes")


def test_compressed_arrays_of_far_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(_content, "MAX_UNPACKED", 10**4)
    path = tmp_path / "tiger_100x100_matlab.mat"
    savemat(path, {"features": np.zeros((2000, 1))}, do_compression=True)
    refused(path, LOADERS["matlab"][2], "larger than what is read")
    path = tmp_path / "val_data.npz"
    np.savez_compressed(path, data=np.zeros((2, 12288), np.uint8))
    refused(path, datasets.load_imagenet64, "unpacks to more than 10000 bytes")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_no_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(FileFormatError, match="is no regular file"):
        bags.load_bags(tmp_path / "pipe.csv")
    with pytest.raises(IsADirectoryError):
        bags.load_bags(tmp_path)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "~nobody-of-this-name/x"], ids=["NUL", "surrogate", "home"])
def test_paths_that_cannot_be(path):
    for load in (bags.load_bags, bags.load_ucsb):
        with pytest.raises(ValueError, match=r"^path: "):
            load(path)
    for load in (datasets.load_mnist, datasets.load_cifar10, lambda root: bags.load_mil("fox", root)):
        with pytest.raises(ValueError, match=r"^root: "):
            load(path)
    with pytest.raises(TypeError, match=r"^path: must be a string or a path, got int"):
        bags.load_bags(3)


# MATLAB


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("compress", [True, False])
def test_versions_of_matlab(tmp_path, version, sparse, compress):
    path = tmp_path / "any.mat"
    path.write_bytes(matlab(version, sparse, compress))
    loaded = bags.load_bags(path)
    expected = random_array((6, 5), density=0.5, rng=np.random.default_rng(0)).toarray()
    np.testing.assert_array_equal(loaded.instances, expected)
    assert (loaded.sizes.tolist(), loaded.labels.tolist()) == ([2, 1, 3], [0, 1, 1])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?"])
def test_types_of_matlab(tmp_path, dtype):
    features = np.arange(12).reshape(3, 4).astype(dtype)
    savemat(tmp_path / "any.mat", {"features": features, "labels": [0, 1, 0], "bag_ids": np.array([3, 1, 3], "u2")})
    loaded = bags.load_bags(tmp_path / "any.mat")
    np.testing.assert_array_equal(loaded.instances, features[[1, 0, 2]].astype(float))


def test_matlab_of_the_other_byte_order(tmp_path):
    def part(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    def array(name, values):
        values = np.asarray(values, ">f8")
        rows, columns = values.shape
        inside = part(6, struct.pack(">II", 6, 0)) + part(5, struct.pack(">2i", rows, columns)) + part(1, name.encode())
        return part(14, inside + part(9, values.tobytes(order="F")))

    arrays = {"features": [[1, 2], [3, 4], [5, 6]], "labels": [[0], [1], [0]], "bag_ids": [[2], [1], [2]]}
    content = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI" + b"".join(array(*item) for item in arrays.items())
    (tmp_path / "any.mat").write_bytes(content)
    assert [bag.tolist() for bag in bags.load_bags(tmp_path / "any.mat")] == [[[3, 4]], [[1, 2], [5, 6]]]


@pytest.mark.parametrize(
    ("triplets", "match"),
    [
        ([[1, 1, 5], [3, 2, 0]], r"'features' is \(3, 2\), with 2 labels"),
        ([[4, 1, 5], [2, 2, 0]], "places outside of their shape"),
        ([[0, 1, 5], [2, 2, 0]], "places outside of their shape"),
        ([[1.5, 1, 5], [2, 2, 0]], "places outside of their shape"),
        ([[1, 1, 5], [2, 1e9, 0]], "larger than what is read"),
        ([[1, 1, 5], [-2, 2, 0]], "larger than what is read"),
        ([[1, np.nan, 5], [2, 2, 0]], "no sparse array of real numbers"),
        ([[1, 1, 5, 5], [2, 2, 0, 0]], "no sparse array of real numbers"),
    ],
)
def test_sparse_arrays_of_version_4(tmp_path, triplets, match):
    def array(kind, name, values):
        values = np.asarray(values, "<f8")
        return struct.pack("<5i", kind, *values.shape, 0, len(name) + 1) + name + b"\0" + values.tobytes(order="F")

    path = tmp_path / "tiger_100x100_matlab.mat"
    others = array(0, b"labels", [[0, 1]]) + array(0, b"bag_ids", [[1, 2]])
    path.write_bytes(array(2, b"features", [[2, 1, 5], [2, 2, 0]]) + others)
    assert [bag.tolist() for bag in bags.load_bags(path)] == [[[0, 0]], [[5, 0]]]
    path.write_bytes(array(2, b"features", triplets) + others)
    refused(path, LOADERS["matlab"][2], match)


def test_other_matlab_files(tmp_path):
    path = tmp_path / "tiger_100x100_matlab.mat"
    for content, match in (
        (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(512), "version 7.3, .*save it with -v7"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0??", "does not begin as one"),
        (bytes(20) * 10, "has no features"),
    ):
        path.write_bytes(content)
        refused(path, LOADERS["matlab"][2], match)
    savemat(path, {"features": np.ones((2, 2)) * 1j, "labels": [0, 1], "bag_ids": [1, 2]})
    refused(path, LOADERS["matlab"][2], "features are no real numbers")


# npz


def npy(header, data=b"", version=(1, 0)):
    """A zip file with one array, and any header."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
        archive.writestr("data.npy", b"\x93NUMPY" + bytes(version) + size + header.encode() + data)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 12288), }\n", bytes(24575)),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (200000000000, 12288), }\n", bytes(99)),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 12288\n"),  # TokenError from numpy
        npy("{'descr': '|u1', 'fortran_order' False}\n"),  # SyntaxError
        npy("(" * 5000 + "\n"),  # MemoryError
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 12288), }\n"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 12288), }\n", b"cos\nsystem\n"),
        npy("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (2, 12288), }\n", bytes(24576)),
        npy("", version=(9, 9)),
        npy("\0" * 64),
    ],
)
def test_headers_of_npy(tmp_path, content):
    path = tmp_path / "val_data.npz"
    path.write_bytes(content)
    refused(path, datasets.load_imagenet64)


def test_npz_in_either_order(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (3, 12288), np.uint8)
    for array in (rows, np.asfortranarray(rows)):
        np.savez(tmp_path / "val_data.npz", data=array)
        np.testing.assert_array_equal(datasets.load_imagenet64(tmp_path).images, rows)


# Mutated files


def mutated(rng, content):
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        i = rng.randrange(min(len(content), rng.choice([60, 400, 10**6]))) if content else 0
        change = rng.randrange(7)
        if change == 0:
            content[i : i + 1] = bytes([rng.randrange(256)])
        elif change == 1:
            content[i : i + 1] = bytes([rng.choice([0, 1, 14, 15, 127, 128, 255])])
        elif change == 2:
            del content[i : i + rng.randrange(1, 40)]
        elif change == 3:
            content[i:i] = rng.randbytes(rng.randrange(1, 9))
        elif change == 4:
            number = rng.choice([0, 1, 2**16, 2**30, 2**31 - 1, 2**31, 2**32 - 1])
            content[i : i + 4] = struct.pack(rng.choice("<>") + "I", number)
        elif change == 5:
            del content[i:]
        else:
            content[i : i + 8] = struct.pack("<d", rng.choice([np.nan, np.inf, -1.0, 1e300, 2.0**53, 0.0]))
    return bytes(content)


@pytest.mark.parametrize("kind", LOADERS)
def test_mutated(tmp_path, kind):
    name, contents, load = LOADERS[kind]
    path, rng, messages = tmp_path / name, random.Random(kind), []
    for i in range(400):
        content = mutated(rng, contents[i % len(contents)])
        path.write_bytes(gzip.compress(content) if i % 3 == 0 else content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                load(tmp_path)
            except FileFormatError as error:
                messages.append(str(error))
    assert len(messages) > 100
    assert all(str(path) in message and len(message) <= 1000 for message in messages)


BOUNDED = """
import resource, sys
from sparsehopfield import FileFormatError, bags, datasets
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 2**29
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
mil = lambda name: lambda root: bags.load_mil(name, root)
for load in (datasets.load_imagenet64, mil("tiger"), mil("ucsb")):
    try:
        print(len(load(sys.argv[1])))
    except FileFormatError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_small_files_that_ask_for_much(tmp_path):
    shape = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 12288), }\n"
    (tmp_path / "val_data.npz").write_bytes(npy(shape, bytes(9)))
    flags, dims = struct.pack("<4I", 6, 8, 5, 0), struct.pack("<2I2i", 5, 8, 2**30, 2)  # sparse, with two columns
    name = struct.pack("<2I", 1, 8) + b"features"
    parts = struct.pack("<2Ii4x", 5, 4, 0) + struct.pack("<2I3i4x", 5, 12, 0, 1, 1) + struct.pack("<2Id", 9, 8, 1.0)
    element = flags + dims + name + parts
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    packed = zlib.compress(struct.pack("<2I", 14, len(element)) + element)
    content = header + struct.pack("<2I", 15, len(packed)) + packed
    (tmp_path / "tiger_100x100_matlab.mat").write_bytes(content)
    (tmp_path / "ucsb.csv").write_bytes(gzip.compress(CSV))  # of which nothing is large
    ran = subprocess.run([sys.executable, "-c", BOUNDED, tmp_path], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    first, second, third = ran.stdout.splitlines()
    assert "are not those of shape (1000000, 12288)" in first
    assert "larger than what is read" in second
    assert third == "2"
