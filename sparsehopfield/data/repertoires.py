"""Immune repertoires: the receptor sequences of people, simulated, or read from AIRR tsv files.

A repertoire is a bag of amino-acid sequences with one label; a few of its sequences, which nobody has marked, may be
what the label is due to. As elsewhere in `sparsehopfield.data` nothing is downloaded: `simulate` makes repertoires from
a seed, and `load_airr` reads files; what is wrong with these raises a FileFormatError, which is a ValueError, that
names the file and the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import as_generator, as_number, as_whole

__all__ = ["AMINO_ACIDS", "Repertoires", "simulate"]

#: The letters of the 20 amino acids, in the order of their numbers.
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"

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
LENGTH, LENGTH_SPREAD, SHORTEST, LONGEST = 14.5, 1.8, 10, 20
MOTIF = 4


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
        1 for a positive one, 0 for a negative one.
    counts : ndarray of int, shape (R,)
        How often each sequence was seen.
    names : tuple of str, B of them
    implanted : ndarray of bool, shape (R,), optional
        Which sequences the label is due to, where that is known.
    motifs : tuple of str
        What was implanted.

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
        return np.ascontiguousarray(self.sequences).view(np.uint8).reshape(len(self.sequences), -1)

    def part(self, first: int, end: int) -> Repertoires:
        """Return the repertoires `first` to `end - 1`, without copying sequences."""
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
    motifs: int = 1,
    gap: float = 0.0,
    deletion: float = 0.0,
    seed: int | np.random.Generator = 0,
    motif_seed: int | None = None,
) -> Repertoires:
    """Simulate repertoires, and implant motifs in those of every other person."""
    random = as_generator("seed", seed)
    B, n = as_whole("repertoires", repertoires, 1), as_whole("size", size, 1)
    as_number("rate", rate, least=0.0)
    chosen = draw_motifs(motifs, motif_seed)
    letters, length = _background(B * n, random)
    labels = np.arange(B, dtype=np.int64) % 2
    count = np.where(labels == 1, np.maximum(random.binomial(n, rate, B), 1), 0)
    implanted = np.zeros(B * n, bool)
    for bag in range(B):
        implanted[bag * n + random.choice(n, count[bag], replace=False)] = True
    _implant(letters, length, np.flatnonzero(implanted), chosen, gap, deletion, random)
    counts = np.ceil(random.pareto(1.0, B * n) + 1e-9).clip(1, 10**4).astype(np.int64)
    return Repertoires(
        letters.view(f"S{letters.shape[1]}")[:, 0],
        np.arange(B + 1, dtype=np.int64) * n,
        labels,
        counts,
        tuple(f"{i:05}" for i in range(B)),
        implanted,
        chosen,
    )


def draw_motifs(motifs: int, seed: int | None) -> tuple[str, ...]:
    """Draw motifs of four letters."""
    random = np.random.default_rng(seed)
    found: list[str] = []
    while len(found) < motifs:
        motif = "".join(random.choice(list(AMINO_ACIDS.replace("C", "")), MOTIF, replace=False))
        if motif not in found:
            found.append(motif)
    return tuple(found)


def _as_letters(words: Sequence[str], width: int) -> NDArray[np.uint8]:
    return np.array(words, f"S{width}").view(np.uint8).reshape(len(words), width)


def _background(rows: int, random: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw sequences, (rows, LONGEST) letters, and their lengths."""
    length = np.rint(random.normal(LENGTH, LENGTH_SPREAD, rows)).clip(SHORTEST, LONGEST).astype(np.int64)
    alphabet = np.frombuffer(AMINO_ACIDS.encode(), np.uint8)
    table = np.repeat(alphabet, np.diff(np.rint(np.cumsum([0, *MIDDLE]) / np.sum(MIDDLE) * 4096).astype(int)))
    letters = table[random.integers(0, 4096, (rows, LONGEST), dtype=np.uint16)]
    starts, ends = list(STARTS), list(ENDS)
    which = random.choice(len(starts), rows, p=np.array(list(STARTS.values())) / sum(STARTS.values()))
    letters[:, :4] = _as_letters(starts, 4)[which]
    which = random.choice(len(ends), rows, p=np.array(list(ENDS.values())) / sum(ENDS.values()))
    trimmed = random.integers(0, 3, rows)
    width = max(map(len, ends))
    tails = _as_letters([word.rjust(width, "\0") for word in ends], width)[which]
    tail_length = np.array([len(word) for word in ends])[which] - trimmed
    place = np.arange(rows)
    for back in range(1, width + 1):  # the letter so far from the end
        has = back <= tail_length
        letters[place[has], length[has] - back] = tails[has, width - back]
    letters[np.arange(LONGEST) >= length[:, None]] = 0
    return letters, length


def _implant(letters, length, rows, motifs, gap, deletion, random) -> None:  # type: ignore[no-untyped-def]
    if not len(rows):
        return
    n = len(rows)
    words = _as_letters(list(motifs), MOTIF)[random.integers(0, len(motifs), n)]
    gaps = random.random(n) < gap
    deleted = random.random(n) < deletion
    lost = random.integers(1, MOTIF - 1, n)
    # room from behind the start to before the last three
    width = MOTIF + gaps - deleted
    room = length[rows] - 3 - 3 - width
    at = 3 + np.rint((room / 2) + random.normal(0, 1.5, n)).clip(0, room).astype(np.int64)
    for i in range(MOTIF):
        keep = ~(deleted & (lost == i))
        shift = np.where(i >= MOTIF // 2, gaps, 0) - np.where(deleted & (i > lost), 1, 0)
        letters[rows[keep], (at + i + shift)[keep]] = words[keep, i]
