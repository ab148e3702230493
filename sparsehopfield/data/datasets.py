"""Images for the studies, read from the files that their authors publish.

Nothing is downloaded and no folder is assumed: each loader takes the folder, `root`, looks there and in the
sub-folder that the data usually comes in, and says what it wants, and where to get it, when it is not there.
A file that is there but damaged raises a FileFormatError, which is a ValueError, that names it. Files may be packed by
gzip, bzip2 or xz, whatever their names are.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import refuse_masks
from sparsehopfield._engine.optional import require
from sparsehopfield._engine.text import short
from sparsehopfield.data import _content
from sparsehopfield.data._content import as_path, open_unpacked, reading, unpacked_content
from sparsehopfield.errors import FileFormatError

__all__ = [
    "DATASETS",
    "ImageSet",
    "load",
    "load_cifar10",
    "load_digits",
    "load_imagenet64",
    "load_labels",
    "load_mnist",
]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images as the rows of a matrix.

    Attributes
    ----------
    name : str
        Short name, as the command line knows it.
    images : ndarray of shape (N, d)
        One image a row; uint8 from 0 to 255, or float32 from 0 to 1.
    shape : tuple of int
        Shape of one image: (height, width), or (3, height, width) for colour, channel by channel.
    description : str
        One line for people.

    See Also
    --------
    load : Load a set of images by its name.
    sparsehopfield.HopfieldMemory : Store images, and retrieve them.

    Examples
    --------
    >>> digits = load("digits")
    >>> len(digits), digits.images.shape, digits.shape
    (1797, (1797, 64), (8, 8))
    """

    name: str
    images: NDArray[Any]
    shape: tuple[int, ...]
    description: str

    def __post_init__(self) -> None:
        refuse_masks("images", self.images)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, index: Any = slice(None)) -> NDArray[np.float32]:
        """Return the images `index` as rows of float32 pixels between 0 and 1.

        Parameters
        ----------
        index : int, slice or array_like of int
            Which images; all by default.

        Returns
        -------
        ndarray of float32, shape (d,) or (n, d)
            Pixels from 0 to 1. They are converted when asked for, so a large set stays in memory as it was stored.

        See Also
        --------
        load : Load a set of images by its name.

        Examples
        --------
        >>> import numpy as np
        >>> images = ImageSet("two", np.array([[0, 51], [255, 102]], np.uint8), (1, 2), "two images of two pixels")
        >>> images.pixels([1])
        array([[1. , 0.4]], dtype=float32)
        """
        rows = self.images[index]
        if rows.dtype == np.uint8:
            return np.asarray(rows, np.float32) / np.float32(255)
        return np.asarray(rows, np.float32)


def load_digits(root: str | os.PathLike[str] | None = None) -> ImageSet:
    """Load the 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn.

    Parameters
    ----------
    root : path, optional
        Not used: here so that all loaders are called alike.

    Returns
    -------
    ImageSet
        float32 images between 0 and 1 (the file has 17 grey levels).

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    See Also
    --------
    load_labels : Load the digit that each image shows.
    load_mnist : Load larger images of digits.

    Examples
    --------
    >>> digits = load_digits()
    >>> digits.images.shape, (16 * digits.images[0, :8]).astype(int).tolist()
    ((1797, 64), [0, 0, 5, 13, 9, 1, 0, 0])
    """
    images = require("sklearn.datasets", purpose="the digits data set", extra="sklearn").load_digits().data
    return ImageSet(
        name="digits",
        images=np.asarray(images / 16, np.float32),
        shape=(8, 8),
        description="scikit-learn's handwritten digits, 8 x 8 grey",
    )


def load_mnist(root: str | os.PathLike[str], split: str = "train") -> ImageSet:
    """Load MNIST's handwritten digits, 28 x 28 grey, from the original IDX files.

    Parameters
    ----------
    root : path
        Folder with ``train-images-idx3-ubyte`` or ``t10k-images-idx3-ubyte``, plain or with ``.gz``; also
        looked for in its sub-folders ``mnist`` and ``MNIST/raw``.
    split : {"train", "test"}
        The 60,000 training images or the 10,000 test images.

    Returns
    -------
    ImageSet
        uint8 images.

    Raises
    ------
    ValueError
        For an unknown `split`.
    FileNotFoundError
        When the file is not there; the message says where to get it.
    FileFormatError
        A ValueError, for a file that is damaged or of another layout.

    See Also
    --------
    load_labels : Load the digit that each image shows.
    sparsehopfield.data.bags.image_bags : Draw bags of these images.

    Examples
    --------
    A file of two black images in place of the real one:

    >>> import pathlib, tempfile
    >>> header = bytes.fromhex("00000803 00000002 0000001c 0000001c")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "train-images-idx3-ubyte").write_bytes(header + bytes(2 * 784))
    ...     mnist = load_mnist(folder)
    >>> mnist.images.shape, mnist.shape
    ((2, 784), (28, 28))
    """
    path, data = _read_idx(root, split, "images", header=16)
    magic, count, height, width = struct.unpack(">4I", data[:16])
    if magic != 0x803:
        raise FileFormatError(f"{path}: not an IDX file of images: it begins with 0x{magic:08x}, not 0x00000803")
    if (height, width) != (28, 28) or count == 0:
        raise FileFormatError(f"{path}: holds {count} images of {height} x {width} pixels, not MNIST's 28 x 28")
    if len(data) != 16 + count * 784:
        raise FileFormatError(
            f"{path}: its header promises {count} images, so {16 + count * 784} bytes, "
            f"but there are {len(data)}; download it again"
        )
    images = np.frombuffer(data, np.uint8, offset=16).reshape(count, 784)
    description = f"MNIST handwritten digits ({split} set), 28 x 28 grey"
    return ImageSet(name="mnist", images=images, shape=(28, 28), description=description)


def load_labels(name: str, root: str | os.PathLike[str] | None = None, split: str = "train") -> NDArray[np.uint8]:
    """Load the labels of `load_digits` or `load_mnist`: the digit that each image shows.

    Parameters
    ----------
    name : {"digits", "mnist"}
        The data set.
    root : path, optional
        For MNIST, which needs it: the folder with ``train-labels-idx1-ubyte`` or ``t10k-labels-idx1-ubyte``, looked for
        as in `load_mnist`.
    split : {"train", "test"}
        MNIST's 60,000 training or 10,000 test images.

    Returns
    -------
    ndarray of uint8, shape (N,)
        0 to 9, one for each image, in the order of the images.

    Raises
    ------
    ValueError
        For an unknown `name` or `split`, or MNIST without a folder.
    FileNotFoundError, FileFormatError
        As `load_mnist` does.
    ImportError
        If the digits are asked for, and scikit-learn is not installed.

    See Also
    --------
    load : Load the images.
    sparsehopfield.data.bags.image_bags : Draw bags of images by their labels.

    Examples
    --------
    >>> import numpy as np
    >>> np.bincount(load_labels("digits")).tolist()
    [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    """
    if not isinstance(name, str) or name not in ("digits", "mnist"):
        raise ValueError(f"name: must be one with labels, 'digits' or 'mnist', got {name!r:.200}")
    if name == "digits":
        digits = require("sklearn.datasets", purpose="the digits data set", extra="sklearn").load_digits()
        return np.asarray(digits.target, np.uint8)
    if root is None:
        raise ValueError(no_folder_message(name))
    path, data = _read_idx(root, split, "labels", header=8)
    magic, count = struct.unpack(">2I", data[:8])
    labels = np.frombuffer(data, np.uint8, offset=8)
    if magic != 0x801:
        raise FileFormatError(f"{path}: not an IDX file of labels: it begins with 0x{magic:08x}, not 0x00000801")
    if count == 0 or len(labels) != count or labels.max() > 9:
        raise FileFormatError(
            f"{path}: its header promises {count} labels from 0 to 9, but there are {len(labels)} up to "
            f"{labels.max(initial=0)}; download it again"
        )
    return labels


def load_cifar10(root: str | os.PathLike[str]) -> ImageSet:
    """Load CIFAR-10's photographs, 32 x 32 colour, from the "binary version".

    Parameters
    ----------
    root : path
        Folder with any of ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``; also looked
        for in its sub-folder ``cifar-10-batches-bin``. All that are there are read, in that order.

    Returns
    -------
    ImageSet
        uint8 images, channel by channel: all red values of an image, then the green and the blue ones.

    Raises
    ------
    FileNotFoundError
        When none of the files is there; the message says where to get them.
    FileFormatError
        A ValueError, for a file that is damaged or of another layout.

    See Also
    --------
    load_imagenet64 : Load larger photographs.

    Examples
    --------
    A file of two black images in place of the real one:

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "test_batch.bin").write_bytes(bytes(2 * 3073))
    ...     cifar = load_cifar10(folder)
    >>> cifar.images.shape, cifar.shape
    ((2, 3072), (3, 32, 32))
    """
    names = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
    paths = find(
        root,
        ("cifar-10-batches-bin",),
        names,
        what="CIFAR-10's binary version",
        source="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    )
    batches = []
    for path in paths:
        records = np.frombuffer(unpacked_content(path), np.uint8)
        if len(records) == 0 or len(records) % 3073:
            raise FileFormatError(
                f"{path}: {len(records)} bytes are not a whole number of records of 3073 bytes "
                f"(1 label, 3072 pixels); download it again"
            )
        records = records.reshape(-1, 3073)
        if records[:, 0].max() > 9:
            raise FileFormatError(
                f"{path}: has the label {records[:, 0].max()}, but CIFAR-10's go from 0 to 9; "
                f"the file is damaged or of another data set"
            )
        batches.append(records[:, 1:])
    images, description = np.concatenate(batches), "CIFAR-10 photographs, 32 x 32 colour"
    return ImageSet(name="cifar10", images=images, shape=(3, 32, 32), description=description)


def load_imagenet64(root: str | os.PathLike[str]) -> ImageSet:
    """Load downsampled ImageNet, 64 x 64 colour, from its npz files.

    Parameters
    ----------
    root : path
        Folder with ``val_data.npz`` or ``train_data_batch_1.npz`` to ``train_data_batch_10.npz``; also
        looked for in its sub-folder ``imagenet64``. The first of them that is there is read (a training
        batch alone holds 1.6 GB of pixels).

    Returns
    -------
    ImageSet
        uint8 images, channel by channel: all red values of an image, then the green and the blue ones.

    Raises
    ------
    FileNotFoundError
        When none of the files is there; the message says where to get them.
    FileFormatError
        A ValueError, for a file that is damaged or of another layout.

    See Also
    --------
    load_cifar10 : Load smaller photographs.

    Examples
    --------
    A file of two black images in place of the real one:

    >>> import numpy as np
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(pathlib.Path(folder, "val_data.npz"), data=np.zeros((2, 12288), np.uint8))
    ...     photographs = load_imagenet64(folder)
    >>> photographs.images.shape, photographs.shape
    ((2, 12288), (3, 64, 64))
    """
    names = ("val_data.npz", *(f"train_data_batch_{i}.npz" for i in range(1, 11)))
    path = find(
        root,
        ("imagenet64",),
        names,
        what="Downsampled ImageNet 64 x 64",
        source="https://image-net.org/download-images (Downsampled ImageNet, 64x64, npz format; needs an account)",
    )[0]
    with open_unpacked(path) as file, reading(path, "npz file"), zipfile.ZipFile(file) as archive:
        images = _read_npz_pixels(path, archive)
    description = "ImageNet photographs, 64 x 64 colour"
    return ImageSet(name="imagenet64", images=images, shape=(3, 64, 64), description=description)


#: The loaders by the names that the command line knows; all take a folder.
DATASETS: dict[str, Callable[..., ImageSet]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "cifar10": load_cifar10,
    "imagenet64": load_imagenet64,
}


def load(name: str, root: str | os.PathLike[str] | None = None) -> ImageSet:
    """Load a data set by name.

    Parameters
    ----------
    name : {"digits", "mnist", "cifar10", "imagenet64"}
        The data set. Of MNIST the training images are loaded.
    root : path, optional
        Folder that holds the files; all but the digits need one.

    Returns
    -------
    ImageSet
        The images, as `load_digits`, `load_mnist`, `load_cifar10` or `load_imagenet64` returns them.

    Raises
    ------
    ValueError
        For an unknown name, or a data set that needs a folder without one.
    FileNotFoundError, FileFormatError, ImportError
        As the loader of this data set does.

    See Also
    --------
    load_labels : Load the digit that each image shows.
    load_mnist : Load MNIST's training or test images.

    Examples
    --------
    >>> digits = load("digits")
    >>> digits.description, digits.images.shape
    ("scikit-learn's handwritten digits, 8 x 8 grey", (1797, 64))
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(f"name: unknown name {short(name)}; valid: {', '.join(DATASETS)}")
    if root is None and name != "digits":
        raise ValueError(no_folder_message(name))
    return DATASETS[name](root)


def _read_idx(root: str | os.PathLike[str], split: str, kind: str, header: int) -> tuple[Path, bytes]:
    """Read MNIST's file of "images" or "labels", unpacked; raise unless it has the `header` bytes of its header."""
    stems = {"train": "train", "test": "t10k"}
    if not isinstance(split, str) or split not in stems:
        raise ValueError(f"split: must be 'train' or 'test', got {short(split)}")
    name = f"{stems[split]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    path = find(
        root,
        ("mnist", "MNIST/raw"),
        (name + ".gz", name),
        what=f"MNIST ({kind})",
        source="https://ossci-datasets.s3.amazonaws.com/mnist/ (the original files of "
        "http://yann.lecun.com/exdb/mnist/)",
    )[0]
    data = unpacked_content(path)
    if len(data) < header:
        raise FileFormatError(f"{path}: {len(data)} bytes are too few for the {header} bytes of an IDX header")
    return path, data


def _read_npz_pixels(path: Path, archive: zipfile.ZipFile) -> NDArray[np.uint8]:
    """Read the array `data` of an npz file; its header is checked against its size before anything is allocated."""
    if "data.npy" not in archive.namelist():
        raise FileFormatError(f"{path}: has no array called 'data'")
    entry = archive.getinfo("data.npy")
    if entry.compress_type != zipfile.ZIP_STORED and entry.file_size > _content.MAX_UNPACKED:
        raise FileFormatError(
            f"{path}: 'data' unpacks to more than {_content.MAX_UNPACKED} bytes; store it without compression"
        )
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of npy")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns_first, dtype = header(member)
        if dtype != np.uint8 or len(shape) != 2 or shape[1] != 12288 or shape[0] == 0:
            raise FileFormatError(f"{path}: 'data' must be uint8 of shape (N, 12288), but is {dtype} of shape {shape}")
        if member.tell() + shape[0] * shape[1] != entry.file_size:
            raise ValueError(f"its {entry.file_size} bytes are not those of shape {shape}")
        images = np.empty(shape, np.uint8, order="F" if columns_first else "C")
        unread = images.reshape(-1, order="A").data
        while unread:
            if not (count := member.readinto(unread[: 2**24])):  # type: ignore[attr-defined]
                raise EOFError("it is cut")
            unread = unread[count:]
        member.read()  # compares the checksum
    return images


def no_folder_message(name: str) -> str:
    """Return the message for a data set that is named without the folder that holds it."""
    return (
        f"root: the data set {name!r} is read from files; say which folder holds them "
        f"(on the command line: --data FOLDER, or the variable SPARSEHOPFIELD_DATA)"
    )


def find(
    root: str | os.PathLike[str], subfolders: Iterable[str], names: Iterable[str], *, what: str, source: str
) -> list[Path]:
    """Find the files of `names` in the first folder that holds any: `root`, or a sub-folder of it."""
    root = as_path("root", root)
    folders = [root, *(root / sub for sub in subfolders)]
    for folder in folders:
        found = [folder / name for name in names if (folder / name).is_file()]
        if found:
            return found
    raise FileNotFoundError(
        f"{what} was not found: looked for {', '.join(names)} in {', '.join(map(str, folders))}. "
        f"Get it from {source}, or name the folder that holds it."
    )
