"""Text as numbers of words, an n-gram model with Kneser and Ney's smoothing, and vectors of contexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.optional import require
from sparsehopfield.data import passages, sentences
from sparsehopfield.studies._core.sources import Stamps, digest, given_folder, one_blas_thread, stamps_of

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]

#: The first words of the vocabulary: before a sentence, behind it, and what is not known.
START, END, UNKNOWN = range(3)
#: Words in a row that are kept of each context.
CONTEXT = 6
#: Seed of singular value decompositions.
SEED = 0


@dataclass(frozen=True, eq=False)
class Words:
    """The words of some sentences, and what comes before each: a row for every word and every end of a sentence.

    Attributes
    ----------
    contexts : ndarray of int64, shape (n, CONTEXT)
        The words before it in their order, the last one directly before; START before the first.
    following : ndarray of int64, shape (n,)
        The word itself.
    sentence : ndarray of int64, shape (n,)
        Which sentence it is in.
    """

    contexts: Numbers
    following: Numbers
    sentence: Numbers


@dataclass(frozen=True, eq=False)
class Text:
    """Sentences to train, to validate and to test with, over the words that occur at least twice in the first part.

    Where only some sentences of the first part are trained with, its words stay: perplexities are of the same task.

    Attributes
    ----------
    vocabulary : tuple of str
    train, validation, test : Words
    sentences : int
        Of the first part, whose words are the vocabulary.
    """

    vocabulary: tuple[str, ...]
    train: Words
    validation: Words
    test: Words
    sentences: int

    @property
    def digest(self) -> str:
        """Return the digest of all words."""
        parts = (self.train, self.validation, self.test)
        return digest(self.vocabulary, *(numbers for part in parts for numbers in (part.following, part.sentence)))

    @classmethod
    def of(cls, parts: Sequence[Sequence[str]], count: int | None = None) -> Text:
        """Return the text of three parts, of the first part's first `count` sentences."""
        split = [[sentence.split() for sentence in part] for part in parts]
        counts = Counter(word for sentence in split[0] for word in sentence)
        vocabulary = ("<s>", "</s>", "<unknown>", *(word for word, count in counts.items() if count > 1))
        number = {word: i for i, word in enumerate(vocabulary)}
        sentences = len(split[0])
        split[0] = split[0][:count]
        train, validation, test = (_numbered(part, number) for part in split)
        return cls(vocabulary, train, validation, test, sentences)


def _numbered(part: Sequence[Sequence[str]], number: dict[str, int]) -> Words:
    contexts, following, sentence = [], [], []
    for i, words in enumerate(part):
        padded = [START] * CONTEXT + [number.get(word, UNKNOWN) for word in words] + [END]
        for at in range(CONTEXT, len(padded)):
            contexts.append(padded[at - CONTEXT : at])
            following.append(padded[at])
            sentence.append(i)
    return Words(*(np.array(a, np.int64) for a in (contexts, following, sentence)))


class KneserNey:
    """Interpolated n-grams with Kneser and Ney's smoothing.

    Each length has one discount, from the numbers of n-grams that occur once and twice. The longest n-grams are
    counted; of shorter ones it is how many different words come before them.

    Parameters
    ----------
    words : Words
        To count.
    order : int, from 1 to CONTEXT + 1
        The words of the longest n-gram.
    vocabulary : int
        How many words there are; START is never predicted.

    References
    ----------
    Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", eq. (20) to (22).

    Examples
    --------
    >>> text = Text.of([["a b c", "a b d", "a c d"]] * 3)
    >>> model = KneserNey(text.train, 2, len(text.vocabulary))
    >>> everything = model.probability(np.full((7, 6), 3), np.arange(7))[1:]
    >>> float(everything.sum().round(12))
    1.0
    """

    def __init__(self, words: Words, order: int, vocabulary: int) -> None:
        self.order, self.vocabulary = order, vocabulary
        grams = np.concatenate([words.contexts[:, CONTEXT - order + 1 :], words.following[:, None]], axis=1)
        grams, counts = np.unique(grams, axis=0, return_counts=True)
        self._levels = []
        for length in range(order, 0, -1):
            once, twice = (np.count_nonzero(counts == n) for n in (1, 2))
            discount = once / (once + 2 * twice) if once else 0.5
            known = {tuple(gram): int(n) for gram, n in zip(grams.tolist(), counts, strict=True)}
            total: Counter[tuple[int, ...]] = Counter()
            kinds: Counter[tuple[int, ...]] = Counter()
            for gram, n in known.items():
                total[gram[:-1]] += n
                kinds[gram[:-1]] += 1
            self._levels.append((discount, known, total, kinds))
            if length > 1:
                grams, counts = np.unique(grams[:, 1:], axis=0, return_counts=True)

    def probability(self, contexts: Numbers, following: Numbers) -> Floats:
        """Return the probability of each word behind its context, (n,)."""
        p = np.full(len(following), 1 / (self.vocabulary - 1))
        for length, (discount, known, total, kinds) in enumerate(reversed(self._levels), start=1):
            befores = contexts[:, CONTEXT - length + 1 :].tolist()
            for i, (before, word) in enumerate(zip(map(tuple, befores), following.tolist(), strict=True)):
                if n := total.get(before):
                    own = max(known.get((*before, word), 0) - discount, 0) / n
                    p[i] = own + discount * kinds[before] / n * p[i]
        return p


class ContextVectors:
    """Vectors of contexts: for each of the last words one of what follows so many words behind it.

    Of each distance a table counts which words follow which; its positive pointwise mutual information (of the words
    that follow, to the power 0.75) is decomposed by singular values. Vectors are unit rows times a weight that falls
    with the distance, one behind the other.

    Parameters
    ----------
    words : Words
        To count.
    vocabulary : int
    dims : int
        Features for each distance.
    weights : sequence of float
        Of the distances 1, 2 and so on.

    References
    ----------
    Levy and Goldberg 2014, "Neural word embedding as implicit matrix factorization".
    """

    def __init__(self, words: Words, vocabulary: int, dims: int, weights: Sequence[float]) -> None:
        self.tables = [
            weight * _vectors_behind(words, vocabulary, dims, distance)
            for distance, weight in enumerate(weights, start=1)
        ]

    def vectors(self, contexts: Numbers) -> NDArray[np.float32]:
        """Return the vectors of contexts, (n, dims times distances)."""
        parts = [table[contexts[:, -distance]] for distance, table in enumerate(self.tables, start=1)]
        return np.concatenate(parts, axis=1).astype(np.float32)


def _vectors_behind(words: Words, vocabulary: int, dims: int, distance: int) -> Floats:
    """Return unit vectors of words by what follows `distance` behind them, (vocabulary, dims); zeros where none are."""
    sparse = require("scipy.sparse", purpose="vectors of contexts", extra="studies")
    extmath = require("sklearn.utils.extmath", purpose="vectors of contexts", extra="studies")
    before, shape = words.contexts[:, -distance], (vocabulary, vocabulary)
    pairs = sparse.coo_array((np.ones(len(before)), (before, words.following)), shape=shape).tocsr().tocoo()
    rows, columns = (
        np.bincount(before, minlength=vocabulary),
        np.bincount(words.following, minlength=vocabulary) ** 0.75,
    )
    ratio = pairs.data * columns.sum() / (rows[pairs.row] * columns[pairs.col])
    more = ratio > 1
    information = sparse.csr_array((np.log(ratio[more]), (pairs.row[more], pairs.col[more])), shape=shape)
    with one_blas_thread():
        left, singular, _ = extmath.randomized_svd(information, dims, random_state=SEED)
    vectors = left * np.sqrt(singular)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros(vectors.shape), where=length > 0)


@dataclass(frozen=True)
class Source:
    """The origin of a text, by which processes can load it by themselves: files, or Multi30k's folder."""

    data: str | None
    files: tuple[str, ...]
    language: str
    words: int | None
    #: Of the files as they are now: what a process keeps of a text is of these, and not of those written afterwards.
    stamps: Stamps = field(init=False, repr=False)

    def __post_init__(self) -> None:
        paths = passages.paths_of(self.files) if self.files else sentences.paths_of(self.data) if self.data else ()
        object.__setattr__(self, "stamps", stamps_of(paths))

    def load(self, count: int | None) -> Text:
        """Load the text; to train with, the first `count` sentences."""
        if self.files:
            found = passages.load(self.files)
            ends = int(0.8 * len(found)), int(0.9 * len(found))
            if ends[0] < 10 or ends[1] == len(found) or ends[0] == ends[1]:
                raise ValueError(f"file: must have at least 13 lines of text, got {len(found)}")
            parts = [found[: ends[0]], found[ends[0] : ends[1]], found[ends[1] :]]
        else:
            corpus = sentences.load(given_folder(self.data, "Multi30k", sentences.SOURCE, "text files of your own"))
            held = (corpus.train, corpus.validation, corpus.test)
            parts = [part.sources if self.language == "en" else part.targets for part in held]
        if count is not None and count > len(parts[0]):
            raise ValueError(f"sentences: must be at most the {len(parts[0])} to train with, got {count}")
        return Text.of([parts[0], *(_first(part, self.words) for part in parts[1:])], count)


def _first(part: Sequence[str], words: int | None) -> Sequence[str]:
    """Return the first sentences that have at least so many words, ends among them; all for None."""
    if words is None:
        return part
    ends = np.cumsum([len(sentence.split()) + 1 for sentence in part])
    return part[: int(np.searchsorted(ends, words)) + 1]


@lru_cache(maxsize=1)
def text_of(source: Source, count: int | None) -> Text:
    """Return a text, loaded once in each process."""
    return source.load(count)
