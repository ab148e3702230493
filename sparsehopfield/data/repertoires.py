"""Immune repertoires: the receptor sequences of people, simulated, or read from AIRR tsv files.

A repertoire is a bag of amino-acid sequences with one label; a few of its sequences, which nobody has marked, may be
what the label is due to. As elsewhere in `sparsehopfield.data` nothing is downloaded: `simulate` makes repertoires from
a seed, and `load_airr` reads files; what is wrong with these raises a FileFormatError, which is a ValueError, that
names the file and the line.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import (
    as_array,
    as_exact,
    as_float_dtype,
    as_generator,
    as_integers,
    as_list,
    as_number,
    as_numbers,
    as_whole,
    axes_of,
    check_parameter,
)
from sparsehopfield._engine.text import short
from sparsehopfield.data._content import as_path, open_unpacked, reading
from sparsehopfield.errors import FileFormatError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["AMINO_ACIDS", "Repertoires", "kmers", "load_airr", "simulate"]

#: The letters of the 20 amino acids, in the order of their numbers.
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"

_LETTERS = frozenset(AMINO_ACIDS)

#: The columns that files have sequences in, the first that is there is read; and those of how often each was seen.
SEQUENCES = ("junction_aa", "cdr3_aa", "sequence_aa", "amino_acid")
COUNTS = ("duplicate_count", "templates")
#: The columns of the labels' file that name a repertoire, and that name its file.
NAMES, FILES = ("repertoire_id", "ID", "filename"), ("filename", "file")
#: Labels that mean a negative repertoire and a positive one, where each of two is among one of these.
NEGATIVE, POSITIVE = ("0", "-", "false", "no", "negative"), ("1", "+", "true", "yes", "positive")

#: How CDR3 sequences of the human T-cell receptor beta begin, and roughly how often.
STARTS = {"CASS": 0.82, "CASR": 0.04, "CAST": 0.04, "CSAR": 0.05, "CAWS": 0.05}
#: How they end: the thirteen J genes from where their part of the CDR3 begins, and roughly how often they are used.
ENDS = {
    "NTEAFF": 0.15,
    "NYGYTF": 0.08,
    "SGNTIYF": 0.03,
    "TNEKLFF": 0.05,
    "SNQPQHF": 0.07,
    "SYNSPLHF": 0.03,
    "SYNEQFF": 0.17,
    "NTGELFF": 0.06,
    "STDTQYF": 0.11,
    "AKNIQYF": 0.02,
    "QETQYF": 0.09,
    "SGANVLTF": 0.02,
    "SYEQYF": 0.12,
}
#: Roughly how often amino acids are between the two, in the order of `AMINO_ACIDS`: much glycine, hardly any cysteine.
MIDDLE = (8.0, 0.1, 6.0, 4.0, 2.5, 20.0, 1.5, 2.0, 1.5, 7.5, 1.0, 4.0, 6.5, 5.0, 9.0, 9.5, 6.5, 3.5, 2.0, 2.0)
#: Lengths: normal, rounded and cut off.
LENGTH, SPREAD, SHORTEST, LONGEST = 14.5, 1.8, 11, 20
#: Letters of a motif; letters at either end of a sequence that none is implanted in; spread of its place.
MOTIF, BORDER, PLACE = 4, 3, 1.5


@dataclass(frozen=True, eq=False)
class Repertoires:
    """Labelled repertoires, their sequences one below the other.

    Attributes
    ----------
    sequences : ndarray of bytes, shape (R,)
        The amino-acid sequences of all repertoires, repertoire after repertoire, as ASCII capitals.
    offsets : ndarray of int, shape (B + 1,)
        Repertoire `i` has the sequences `offsets[i]` to `offsets[i + 1]`; each has at least one.
    labels : ndarray of int, shape (B,)
        1 for a positive repertoire, 0 for a negative one.
    counts : ndarray of int, shape (R,)
        How often each sequence was seen, at least 1.
    names : tuple of str
        The names of the B repertoires: those in the file of labels, or the numbers of simulated ones.
    implanted : ndarray of bool, shape (R,), optional
        Which sequences the label is due to, where that is known.
    motifs : tuple of str
        What was implanted; empty for repertoires that were read.

    See Also
    --------
    simulate : Make repertoires from a seed.
    load_airr : Read repertoires from files.
    kmers : Count the k-mers of sequences, as a classifier takes them.

    Examples
    --------
    >>> made = simulate(4, 100, 0.05, seed=0)
    >>> len(made), made.sizes.tolist(), made.labels.tolist()
    (4, [100, 100, 100, 100], [0, 1, 0, 1])
    >>> made.letters.shape[0] == len(made.sequences)
    True
    """

    sequences: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    counts: NDArray[np.int64]
    names: tuple[str, ...]
    implanted: NDArray[np.bool_] | None = None
    motifs: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Return the number of sequences of each repertoire."""
        return np.diff(self.offsets)

    @property
    def letters(self) -> NDArray[np.uint8]:
        """Return the letters of the sequences as numbers of ASCII, (R, longest), 0 behind the end."""
        return np.ascontiguousarray(self.sequences).view(np.uint8).reshape(len(self.sequences), self.sequences.itemsize)

    @property
    def owner(self) -> NDArray[np.int64]:
        """Return the number of the repertoire that each sequence is of, (R,)."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def part(self, first: int, end: int) -> Repertoires:
        """Return the repertoires `first` to `end - 1`, without copying sequences.

        Parameters
        ----------
        first, end : int
            Numbers of the first repertoire, and of the one behind the last; from 0 to `len(self)`.

        Returns
        -------
        Repertoires
            Views of the sequences and counts of these, with the motifs of all.

        Raises
        ------
        ValueError, TypeError
            Naming `first` or `end`, if it is no whole number or out of range; `end` must not be below `first`.

        See Also
        --------
        simulate : Make repertoires from a seed.

        Examples
        --------
        >>> import numpy as np
        >>> made = simulate(4, 100, 0.05, seed=0)
        >>> test = made.part(2, 4)
        >>> test.names, test.offsets.tolist(), np.shares_memory(test.sequences, made.sequences)
        (('00002', '00003'), [0, 100, 200], True)
        """
        first = as_whole("first", first, 0, len(self))
        end = as_whole("end", end, first, len(self))
        rows = slice(self.offsets[first], self.offsets[end])
        return Repertoires(
            self.sequences[rows],
            self.offsets[first : end + 1] - self.offsets[first],
            self.labels[first:end],
            self.counts[rows],
            self.names[first:end],
            None if self.implanted is None else self.implanted[rows],
            self.motifs,
        )


def simulate(
    repertoires: int,
    size: int,
    rate: float,
    *,
    motifs: int | Sequence[str] = 1,
    gap: float = 0.1,
    deletion: float = 0.1,
    seed: Any = 0,
) -> Repertoires:
    """Simulate repertoires of CDR3 sequences, and implant motifs in some sequences of every other repertoire.

    Parameters
    ----------
    repertoires : int, at least 2
        How many; the first is negative, the second positive, and so on.
    size : int, at least 1
        Sequences of a repertoire.
    rate : float above 0, at most 1
        The witness rate: the share of a positive repertoire's sequences in which a motif is implanted. Their number is
        binomial, and at least 1.
    motifs : int or sequence of str
        How many motifs to draw, each of four different letters, cysteine never among them; or the motifs themselves, of
        four letters each. Each implanted sequence has one of them.
    gap : float from 0 to 1
        Probability that one letter of the sequence stays between the second and the third of the motif.
    deletion : float from 0 to 1
        Probability that the second or the third letter of the motif is left out.
    seed : None, int or numpy.random.Generator
        Seed of the motifs and the sequences; None draws others each time.

    Returns
    -------
    Repertoires
        With `implanted` and `motifs`. The counts are of a heavy tail, and have nothing to do with the labels.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    load_airr : Read repertoires of people.
    kmers : Count the k-mers of sequences, as a classifier takes them.
    sparsehopfield.estimators.HopfieldMILClassifier : Learn the labels of repertoires.

    Notes
    -----
    The recipe follows the simulations by which DeepRC was judged: hundreds of thousands of sequences a repertoire, of
    which 1 to 0.01 % have a short motif at varying places, some with a gap or a deletion. Here a sequence is the first
    letters of a CDR3 of the human T-cell receptor beta, the last letters of a J gene less up to two, and between them
    independent letters; its length is normal, 14.5 ± 1.8, from 11 to 20. The shares of beginnings, J genes and letters
    are round numbers near those of blood, fitted to no data. The motif overwrites letters, so that no length changes,
    and never the three at either end. A negative repertoire may have it by chance, as those of people have.

    References
    ----------
    Widrich et al. 2020, "Modern Hopfield networks and attention for immune repertoire classification".

    Examples
    --------
    >>> import numpy as np
    >>> made = simulate(2, 1000, 0.01, motifs=["WPDK"], gap=0.0, deletion=0.0, seed=0)
    >>> found = np.char.find(made.sequences, b"WPDK") >= 0
    >>> bool((found == made.implanted).all()), int(made.implanted.sum())
    (True, 7)
    """
    random = as_generator("seed", seed)
    B, n = as_whole("repertoires", repertoires, 2), as_whole("size", size, 1)
    for name, share in (("rate", rate), ("gap", gap), ("deletion", deletion)):
        if as_number(name, share, least=0.0) > 1 or (name == "rate" and share == 0):
            raise ValueError(f"{name}: must be a share of at most 1{', above 0' * (name == 'rate')}, got {share}")
    check_parameter("sequences", (B, n, LONGEST), {"repertoires": B, "size": n})
    chosen = _as_motifs(motifs, random)
    letters, length = _background(B * n, random)
    labels = np.arange(B, dtype=np.int64) % 2
    witnesses = np.maximum(random.binomial(n, rate, B), 1) * labels
    implanted = np.zeros(B * n, bool)
    for bag in range(B):
        implanted[bag * n + random.choice(n, witnesses[bag], replace=False)] = True
    _implant(letters, length, np.flatnonzero(implanted), chosen, (gap, deletion), random)
    return Repertoires(
        letters.view(f"S{letters.shape[1]}")[:, 0],
        np.arange(B + 1, dtype=np.int64) * n,
        labels,
        np.ceil(random.pareto(1.0, B * n)).clip(1, 10**4).astype(np.int64),
        tuple(f"{i:05}" for i in range(B)),
        implanted,
        chosen,
    )


def _as_motifs(motifs: int | Sequence[str], random: np.random.Generator) -> tuple[str, ...]:
    """Return the motifs; draw as many as asked for, if it is a number."""
    if axes_of(motifs) == 0 and not isinstance(motifs, str):
        count, drawn = as_whole("motifs", motifs, 1, 1000), dict[str, None]()
        letters = list(AMINO_ACIDS.replace("C", ""))
        while len(drawn) < count:
            drawn["".join(random.choice(letters, MOTIF, replace=False))] = None
        return tuple(drawn)
    given = [motifs] if isinstance(motifs, str) else as_list("motifs", motifs, "a number, or the motifs themselves")
    for motif in given:
        if not isinstance(motif, str) or len(motif) != MOTIF or set(motif) - _LETTERS:
            raise ValueError(f"motifs: must have {MOTIF} letters of {AMINO_ACIDS} each, got {short(motif)}")
    if not given:
        raise ValueError("motifs: at least one is needed, got none")
    return tuple(given)


def _as_letters(words: Sequence[str], width: int) -> NDArray[np.uint8]:
    """Return words as numbers of ASCII, (n, width), 0 behind the end."""
    return np.array(words, f"S{width}").view(np.uint8).reshape(len(words), width)


def _drawn(shares: dict[str, float], rows: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw places of words by their shares."""
    return random.choice(len(shares), rows, p=np.array([*shares.values()]) / sum(shares.values()))


def _background(rows: int, random: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw sequences, letters (rows, LONGEST), and their lengths."""
    length = np.rint(random.normal(LENGTH, SPREAD, rows)).clip(SHORTEST, LONGEST).astype(np.int64)
    alphabet = np.frombuffer(AMINO_ACIDS.encode(), np.uint8)
    steps = np.rint(np.cumsum([0, *MIDDLE]) / sum(MIDDLE) * 4096).astype(np.int64)
    letters = np.repeat(alphabet, np.diff(steps))[random.integers(0, 4096, (rows, LONGEST), dtype=np.uint16)]
    letters[:, :4] = _as_letters([*STARTS], 4)[_drawn(STARTS, rows, random)]
    width = max(map(len, ENDS))
    which = _drawn(ENDS, rows, random)
    # a letter of ENDS is where the reversed word has it, so that all words end at the same place
    backwards = _as_letters([word[::-1] for word in ENDS], width)[which]
    kept = np.array([len(word) for word in ENDS])[which] - random.integers(0, 3, rows)
    place = np.arange(rows)
    for back in range(width):
        has = back < kept
        letters[place[has], length[has] - 1 - back] = backwards[has, back]
    letters[np.arange(LONGEST) >= length[:, None]] = 0
    return letters, length


def _implant(
    letters: NDArray[np.uint8],
    length: NDArray[np.int64],
    rows: NDArray[np.int64],
    motifs: tuple[str, ...],
    rates: tuple[float, float],
    random: np.random.Generator,
) -> None:
    """Overwrite letters of some rows by a motif each; `rates` are those of gaps and deletions."""
    n = len(rows)
    words = _as_letters(motifs, MOTIF)[random.integers(0, len(motifs), n)]
    gaps, deleted = (random.random(n) < rate for rate in rates)
    lost = random.integers(1, MOTIF - 1, n)
    room = length[rows] - 2 * BORDER - (MOTIF + gaps - deleted)
    first = BORDER + np.rint(random.normal(room / 2, PLACE)).clip(0, room).astype(np.int64)
    for i in range(MOTIF):
        kept = ~(deleted & (lost == i))
        shift = i + (gaps if i >= MOTIF // 2 else 0) - (deleted & (i > lost))
        letters[rows[kept], (first + shift)[kept]] = words[kept, i]


def kmers(
    sequences: NDArray[np.bytes_], k: int = 3, *, columns: Any = None, weights: Any = None, dtype: Any = np.float32
) -> csr_array:
    """Count the k-mers of each sequence: all runs of k letters in it.

    Parameters
    ----------
    sequences : ndarray of bytes, shape (R,)
        Sequences in the letters of `AMINO_ACIDS`, as `Repertoires.sequences` holds them.
    k : int from 1 to 5
        Letters of a k-mer.
    columns : array_like of int, shape (c,), optional
        The numbers of the k-mers to count; by default all, in alphabetical order: 0 is "AAA", 20**k - 1 is "YYY".
    weights : array_like of shape (R,), optional
        What each k-mer of a sequence counts, finite in `dtype`; by default 1.
    dtype : {float32, float64}
        The dtype of the counts.

    Returns
    -------
    csr_array of shape (R, 20**k or c)
        A k-mer that comes twice in a sequence has two entries, which count both, as everywhere in SciPy.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault, as of a letter that is no amino acid.

    See Also
    --------
    Repertoires : Hold the sequences of repertoires.
    sparsehopfield.estimators.HopfieldMILClassifier : Learn the labels of repertoires from such counts.

    Examples
    --------
    >>> import numpy as np
    >>> counts = kmers(np.array([b"CASS", b"ASSLA"]), 2)
    >>> counts.shape, counts.sum(axis=1).tolist()
    ((2, 400), [3.0, 4.0])
    >>> names = [a + b for a in AMINO_ACIDS for b in AMINO_ACIDS]
    >>> kmers(np.array([b"CASS", b"ASSLA"]), 2, columns=[names.index("AS"), names.index("LA")]).toarray()
    array([[1., 0.],
           [1., 1.]], dtype=float32)
    """
    from scipy.sparse import csr_array

    k = as_whole("k", k, 1, 5)
    dtype = as_float_dtype(dtype)
    numbers, fits = _kmer_numbers(sequences, k)
    size = 20**k
    if columns is not None:
        chosen = as_integers("columns", columns)
        if chosen.ndim != 1 or len(np.unique(chosen)) != len(chosen) or (chosen.size and not _within(chosen, size)):
            raise ValueError(f"columns: must be different numbers from 0 to {size - 1}, got {short(columns)}")
        place = np.full(size, -1, np.int32)
        place[chosen] = np.arange(len(chosen))
        numbers = place[numbers]
        fits &= numbers >= 0
        size = len(chosen)
    sizes = fits.sum(axis=1)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    if weights is None:
        data = np.ones(ends[-1], dtype)
    else:
        with np.errstate(over="ignore"):  # what is beyond the dtype is infinite, and refused
            given = as_exact("weights", as_numbers("weights", weights), dtype).astype(dtype)
        if given.shape != sizes.shape:
            raise ValueError(f"weights: must have shape {sizes.shape}, one for each sequence, got {given.shape}")
        if not np.isfinite(given).all():
            raise ValueError(f"weights: must be finite, and not beyond {dtype}")
        data = np.repeat(given, sizes)
    index = np.int32 if ends[-1] < 2**31 else np.int64
    return csr_array((data, numbers[fits].astype(index), ends.astype(index)), shape=(len(sizes), size))


def _within(numbers: NDArray[np.int64], size: int) -> bool:
    """Return whether numbers are from 0 to below a size."""
    return bool(numbers.min() >= 0 and numbers.max() < size)


def _kmer_numbers(sequences: Any, k: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return the numbers of the k-mers at each place, (R, places), and where there is one."""
    given = as_array("sequences", sequences)
    if given.ndim != 1 or given.dtype.kind != "S":
        raise TypeError(f"sequences: must be a one-dimensional array of bytes, got {given.ndim} axes of {given.dtype}")
    letters = np.ascontiguousarray(given).view(np.uint8).reshape(len(given), given.dtype.itemsize)
    codes = _CODES[letters]
    codes[:, 1:][(letters[:, 1:] != 0) & (letters[:, :-1] == 0)] = BAD  # behind the end
    if (codes == BAD).any():
        row = int((codes == BAD).any(axis=1).argmax())
        raise ValueError(f"sequences: row {row} is {short(given[row])}, with letters that are no amino acids")
    places = max(letters.shape[1] - k + 1, 0)
    numbers = np.zeros((len(given), places), np.int32)
    for i in range(k):
        numbers *= 20
        numbers += codes[:, i : i + places]
    fits = np.ascontiguousarray(letters[:, k - 1 : k - 1 + places] != 0)
    return numbers, fits


#: The number of a letter of ASCII; 0 too for what is behind the end.
BAD = 255
_CODES = np.full(256, BAD, np.uint8)
_CODES[np.frombuffer(AMINO_ACIDS.encode(), np.uint8)] = np.arange(20)
_CODES[0] = 0


def load_airr(
    path: str | os.PathLike[str], *, label: str = "label", positive: str | None = None, most: int | None = None
) -> Repertoires:
    """Load repertoires and their labels from AIRR tsv files.

    Parameters
    ----------
    path : path
        The file of labels, tsv or csv with a header line, one row a repertoire: its name in a column `repertoire_id`,
        `ID` or `filename`, its label, and where it is there the file's name in a column `filename` or `file`. Without
        that the file is the name itself, or the name with .tsv, .tsv.gz, .csv or .csv.gz behind it. Files are looked
        for in the folder of the file of labels, and in its folder `repertoires`.
    label : str
        The column of the labels, of which there must be two different ones; none may be empty.
    positive : str, optional
        The label of a positive repertoire. It may be left out where one label is among 1, +, true, yes and positive,
        and the other among 0, -, false, no and negative, in capitals or not.
    most : int, optional
        Read at most so many sequences of each repertoire, the first.

    Returns
    -------
    Repertoires
        Their sequences, counts and labels.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    FileFormatError
        Naming the file, and the line or the column, if one cannot be read.

    See Also
    --------
    simulate : Make repertoires from a seed.
    kmers : Count the k-mers of sequences, as a classifier takes them.

    Notes
    -----
    A repertoire's file has the first of the columns `junction_aa`, `cdr3_aa`, `sequence_aa`, `amino_acid`, and may have
    `duplicate_count` or `templates`, counts that are 1 without it. Rows whose sequence is empty, and rows that a
    column `productive` marks as F, are left out, as AIRR files have them of receptors that cannot be. Any file may be
    packed by gzip, bzip2 or xz. A quote in a tsv file is a character like any other, unless two of them are around a
    whole field.

    References
    ----------
    Vander Heiden et al. 2018, "AIRR Community standardized representations for annotated immune repertoires".

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = pathlib.Path(name)
    ...     _ = (folder / "labels.tsv").write_text("repertoire_id\\tlabel\\na\\t1\\nb\\t0\\n")
    ...     _ = (folder / "a.tsv").write_text("junction_aa\\tduplicate_count\\nCASSLGF\\t3\\nCASSF\\t1\\n")
    ...     _ = (folder / "b.tsv").write_text("junction_aa\\tduplicate_count\\nCASSPF\\t2\\n")
    ...     found = load_airr(folder / "labels.tsv")
    >>> found.names, found.labels.tolist(), found.sequences.tolist(), found.counts.tolist()
    (('a', 'b'), [1, 0], [b'CASSLGF', b'CASSF', b'CASSPF'], [3, 1, 2])
    """
    path = as_path("path", path)
    most = None if most is None else as_whole("most", most, 1)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: is not there; it must be a tsv or csv file with the columns repertoire_id and {label}"
        )
    names, files, labels = _read_labels(path, label, positive)
    read = [_read_repertoire(file, most) for file in files]
    return Repertoires(
        np.concatenate([sequences for sequences, _ in read]),
        np.concatenate([[0], np.cumsum([len(sequences) for sequences, _ in read])]).astype(np.int64),
        labels,
        np.concatenate([counts for _, counts in read]),
        names,
    )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a tsv or csv file with their numbers, the header first."""
    with reading(path, "table"), open_unpacked(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        first = text.readline()
        separator = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
        text.seek(0)
        if separator == "\t":  # a quote in a field would swallow all that follows up to the next one
            reader = csv.reader(text, delimiter=separator, quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(text, delimiter=separator, strict=True)
        for line in reader:
            if line:
                fields = [field.strip() for field in line]
                yield reader.line_num, [_unquoted(field) for field in fields] if separator == "\t" else fields


def _unquoted(field: str) -> str:
    """Return a field without the quotes that some programs write around it."""
    return field[1:-1] if len(field) > 1 and field[0] == field[-1] == '"' else field


def _column(path: Path, header: list[str], names: Sequence[str], *, needed: bool = True) -> int | None:
    """Return the place of the first of some columns that a header has."""
    for name in names:
        if name in header:
            return header.index(name)
    if needed:
        raise FileFormatError(f"{path}: its header must name a column {' or '.join(names)}, got {short(header)}")
    return None


def _read_labels(path: Path, label: str, positive: str | None) -> tuple[tuple[str, ...], list[Path], NDArray[np.int64]]:
    """Return names, files and labels of the repertoires."""
    lines = _rows(path)
    _, header = next(lines, (0, []))
    name_at, label_at = _column(path, header, NAMES), _column(path, header, (label,))
    file_at = _column(path, header, FILES, needed=False)
    assert name_at is not None
    assert label_at is not None
    found: dict[str, tuple[str, str]] = {}
    for number, line in lines:
        if len(line) != len(header):
            raise FileFormatError(f"{path}, line {number}: must have {len(header)} fields, got {len(line)}")
        name = line[name_at]
        if not name or name in found:
            raise FileFormatError(f"{path}, line {number}: repertoire {name!r} has no name, or one that was there")
        if not line[label_at]:
            raise FileFormatError(f"{path}, line {number}: repertoire {name!r} has no {label}; leave it out")
        found[name] = line[label_at], name if file_at is None else line[file_at]
    given = sorted({text for text, _ in found.values()})
    if len(given) != 2:
        raise FileFormatError(f"{path}: column {label!r} must have two different labels, got {short(given)}")
    if positive is None:  # guessed only where both labels say what they are
        for one, other in (given, given[::-1]):
            if one.lower() in POSITIVE and other.lower() in NEGATIVE:
                positive = one
    if positive not in given:
        raise FileFormatError(
            f"{path}: column {label!r} has the labels {short(given[0])} and {short(given[1])}; say which is positive"
        )
    labels = np.array([text == positive for text, _ in found.values()], np.int64)
    return tuple(found), [_file_of(path, name) for _, name in found.values()], labels


def _file_of(path: Path, name: str) -> Path:
    """Return the file of a repertoire."""
    for folder in (path.parent, path.parent / "repertoires"):
        for ending in ("", ".tsv", ".tsv.gz", ".csv", ".csv.gz"):
            file = folder / f"{name}{ending}"
            if file.is_file():
                return file
    raise FileNotFoundError(
        f"{path.parent / name}: is not there, nor with .tsv, .tsv.gz, .csv or .csv.gz behind it, nor in the folder "
        f"repertoires; {path.name} names it"
    )


def _read_repertoire(path: Path, most: int | None) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Return the sequences of a file and how often each was seen."""
    lines = _rows(path)
    _, header = next(lines, (0, []))
    at, count_at = _column(path, header, SEQUENCES), _column(path, header, COUNTS, needed=False)
    productive_at = _column(path, header, ("productive",), needed=False)
    assert at is not None
    sequences: list[str] = []
    counts: list[int] = []
    for number, line in lines:
        if len(line) != len(header):
            raise FileFormatError(f"{path}, line {number}: must have {len(header)} fields, got {len(line)}")
        sequence = line[at]
        if not sequence or (productive_at is not None and line[productive_at].upper() in ("F", "FALSE")):
            continue
        if wrong := sorted(set(sequence) - _LETTERS):
            raise FileFormatError(
                f"{path}, line {number}: {short(sequence)} has {''.join(wrong)}, which is no amino acid; leave out "
                "rows that are not productive"
            )
        sequences.append(sequence)
        counts.append(1 if count_at is None else _as_count(path, number, line[count_at]))
        if len(sequences) == most:
            break
    if not sequences:
        raise FileFormatError(f"{path}: has no sequence; leave the repertoire out of the file of labels")
    return np.array(sequences, "S"), np.array(counts, np.int64)


def _as_count(path: Path, number: int, text: str) -> int:
    """Return how often a sequence was seen; 1 where the field is empty."""
    if not text:
        return 1
    try:
        count = float(text)  # some programs write 3.0
    except ValueError:
        count = 0.0
    if not 1 <= count < 2**53 or count != int(count):
        raise FileFormatError(f"{path}, line {number}: the count must be a whole number of at least 1, got {text!r}")
    return int(count)
