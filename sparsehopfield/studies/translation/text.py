"""Text as numbers: the vocabulary of word pieces, and sentences with words dropped, swapped or unknown."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from sparsehopfield._engine.atomic_files import atomic_write
from sparsehopfield._engine.optional import require
from sparsehopfield.data._content import first_line, reading
from sparsehopfield.data.sentences import SOURCE, Corpus, Pairs, load
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies._core.sources import digest, given_folder

#: The numbers of the pieces that have no text: padding, an unknown word, beginning and end.
PAD, UNKNOWN, BEGIN, END = range(4)
#: The damage that is done to sentences before they are translated, each with the share of words that it hits. The piece
#: that stands for an unknown word never occurs in training. A word that is hit by a swap changes places with the next.
CONDITIONS = {
    "clean": ("nothing", 0.0),
    "dropped 10": ("dropped", 0.1),
    "dropped 20": ("dropped", 0.2),
    "swapped 20": ("swapped", 0.2),
    "unknown 20": ("unknown", 0.2),
}

Words = list[str | None]  # of a sentence; None for a word that is not in the vocabulary


class Vocabulary:
    """Word pieces of both languages, by SentencePiece's byte-pair encoding.

    Parameters
    ----------
    model : bytes
        What SentencePiece made.
    """

    def __init__(self, model: bytes) -> None:
        pieces = require("sentencepiece", purpose="the study of translation", extra="translation")
        self.model = model
        self._processor = pieces.SentencePieceProcessor(model_proto=model)
        self._pieces_of = lru_cache(maxsize=None)(self._encode)

    @classmethod
    def learned(cls, sentences: Iterable[str], size: int) -> Vocabulary:
        """Learn a vocabulary from sentences.

        Raises
        ------
        ValueError
            Naming `vocabulary`, if there are too few sentences for so many pieces.
        """
        pieces = require("sentencepiece", purpose="the study of translation", extra="translation")
        made = io.BytesIO()
        try:
            pieces.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=made,
                vocab_size=size,
                model_type="bpe",
                character_coverage=1.0,
                normalization_rule_name="identity",
                pad_id=PAD,
                unk_id=UNKNOWN,
                bos_id=BEGIN,
                eos_id=END,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"vocabulary: {size} pieces cannot be learned from these pairs: {first_line(error)}"
            ) from None
        return cls(made.getvalue())

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read the file of a vocabulary."""
        with reading(path, "SentencePiece model"):
            return cls(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write it to a file."""
        with atomic_write(path) as file:
            file.write(self.model)

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    @property
    def digest(self) -> str:
        """Return what tells it from others, 16 hexadecimal digits."""
        return sha256(self.model).hexdigest()[:16]

    def _encode(self, word: str) -> tuple[int, ...]:
        """Return the pieces of one word."""
        return tuple(self._processor.encode(word))

    def encode(self, words: Iterable[str | None]) -> list[int]:
        """Return the numbers of the pieces of words; None is one unknown piece."""
        return [piece for word in words for piece in ((UNKNOWN,) if word is None else self._pieces_of(word))]

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of pieces."""
        return str(self._processor.decode(list(numbers)))

    def piece(self, number: int) -> str:
        """Return the text of one piece; one that begins a word has a bar before it."""
        return str(self._processor.id_to_piece(int(number)))


def _dropped(words: Words, rng: np.random.Generator, share: float) -> Words:
    """Leave words out, but never all."""
    stay = rng.random(len(words)) >= share
    if not stay.any():
        stay[rng.integers(len(words))] = True
    return [word for word, is_there in zip(words, stay, strict=True) if is_there]


def _swapped(words: Words, rng: np.random.Generator, share: float) -> Words:
    """Swap words with their right neighbours; a word takes part in one swap at most."""
    words, hit, at = list(words), rng.random(len(words)) < share, 0
    while at < len(words) - 1:
        if hit[at]:
            words[at], words[at + 1] = words[at + 1], words[at]
            at += 1
        at += 1
    return words


def _unknown(words: Words, rng: np.random.Generator, share: float) -> Words:
    """Replace words by one that is not in the vocabulary."""
    return [None if is_hit else word for word, is_hit in zip(words, rng.random(len(words)) < share, strict=True)]


DAMAGE: dict[str, Callable[[Words, np.random.Generator, float], Words]] = {
    "nothing": lambda words, rng, share: words,
    "dropped": _dropped,
    "swapped": _swapped,
    "unknown": _unknown,
}


def damaged(sentences: Sequence[str], condition: str, seed: int) -> list[Words]:
    """Return the words of sentences after damage, which is the same for every model.

    Parameters
    ----------
    sentences : sequence of str
    condition : str
        One of `CONDITIONS`.
    seed : int
        Of the study.

    Returns
    -------
    list of list of str or None

    Examples
    --------
    >>> damaged(["two dogs run in the snow"], "unknown 20", seed=0)
    [['two', 'dogs', 'run', None, 'the', 'snow']]
    """
    kind, share = CONDITIONS[condition]
    rng = np.random.default_rng(derive_seed(seed, list(CONDITIONS).index(condition)))
    return [DAMAGE[kind](list(sentence.split()), rng, share) for sentence in sentences]


@dataclass(frozen=True)
class Source:
    """The origin of a task, by which processes can load it by themselves.

    Attributes
    ----------
    data : str or None
        The folder of the data.
    pairs, sentences : int or None
        Use only so many pairs to train with, and so many to validate and test with.
    vocabulary : str
        The file of the vocabulary.
    """

    data: str | None
    pairs: int | None
    sentences: int | None
    vocabulary: str

    def corpus(self) -> Corpus:
        """Load the pairs."""
        whole = load(given_folder(self.data, "Multi30k", SOURCE))
        train, validation, test = (
            part.head(n)
            for part, n in (
                (whole.train, self.pairs),
                (whole.validation, self.sentences),
                (whole.test, self.sentences),
            )
        )
        return Corpus(whole.name, whole.languages, train, validation, test)


@dataclass(frozen=True, eq=False)
class Task:
    """A corpus and its vocabulary, and the pairs to train and validate with as numbers."""

    corpus: Corpus
    vocabulary: Vocabulary

    def digest(self, *names: str) -> str:
        """Return what tells the pairs of these parts from others, 16 hexadecimal digits."""
        parts: list[Pairs] = [getattr(self.corpus, name) for name in names]
        return digest(*(side for part in parts for side in (part.sources, part.targets)))[:16]

    def numbers(self, part: str) -> list[tuple[list[int], list[int]]]:
        """Return the pieces of the pairs of a part, with the end marked."""
        pairs: Pairs = getattr(self.corpus, part)
        return [
            tuple([*self.vocabulary.encode(side.split()), END] for side in pair)  # type: ignore[misc]
            for pair in zip(pairs.sources, pairs.targets, strict=True)
        ]


def learn_vocabulary(source: Source, size: int) -> Vocabulary:
    """Return the vocabulary of a task: read where its file is there, else learned from the pairs to train with.

    Raises
    ------
    ValueError
        Naming `vocabulary`, if the file holds another one than is asked for.
    """
    path, corpus = Path(source.vocabulary), source.corpus()
    wanted = Vocabulary.learned((*corpus.train.sources, *corpus.train.targets), size)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted.write(path)
    elif (found := Vocabulary.read(path)).digest != wanted.digest:
        raise ValueError(
            f"vocabulary: {path} holds another one, {found.digest} of {len(found)} pieces, than these pairs give, "
            f"{wanted.digest} of {len(wanted)}; choose another folder of --checkpoints, or remove it"
        )
    return wanted


@lru_cache(maxsize=1)
def task_of(source: Source) -> Task:
    """Return a task, loaded once in each process."""
    return Task(source.corpus(), Vocabulary.read(Path(source.vocabulary)))
