"""Passages as unit vectors, and questions whose source among them is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.optional import require
from sparsehopfield.data import passages, sentences
from sparsehopfield.data._content import as_path, reading
from sparsehopfield.studies._core.sources import Stamps, digest, given_folder, one_blas_thread, stamps_of

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

#: Seed of the singular value decomposition.
SEED = 0


def unit_rows(rows: NDArray[Any]) -> Floats:
    """Return rows over their lengths; those of no length, as of texts without a known word, stay zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros(rows.shape), where=length > 1e-9).astype(np.float32)


class Space:
    """Vectors of texts: weighted counts of words (TF-IDF), projected by a singular value decomposition.

    With translations, texts are fitted with theirs as one: words that stand for each other then lie close to each
    other, and a text in either language finds the other (Dumais et al. 1997, "Automatic cross-language retrieval using
    latent semantic indexing").

    Parameters
    ----------
    texts : sequence of str
        To fit to.
    dims : int
        Features of a vector.
    translations : sequence of str, optional
        Of the same texts.
    """

    def __init__(self, texts: Sequence[str], dims: int, translations: Sequence[str] | None = None) -> None:
        text = require("sklearn.feature_extraction.text", purpose="vectors of text", extra="studies")
        decomposition = require("sklearn.decomposition", purpose="vectors of text", extra="studies")
        self._counts = text.TfidfVectorizer(analyzer=list, sublinear_tf=True)  # of lists of words
        fitted = [passages.words(one) for one in texts]
        if translations is not None:
            fitted = [one + translated(other) for one, other in zip(fitted, translations, strict=True)]
        weighted = self._counts.fit_transform(fitted)
        most = min(weighted.shape) - 1
        if dims > most:
            raise ValueError(
                f"dims: must be at most {most} for {weighted.shape[0]} passages of {weighted.shape[1]} words in all, "
                f"got {dims}"
            )
        with one_blas_thread():
            self._projection = decomposition.TruncatedSVD(dims, random_state=SEED).fit(weighted)

    def vectors(self, texts: Sequence[Sequence[str]]) -> Floats:
        """Return unit vectors of texts that are lists of words, (n, dims); zeros where no word is known."""
        return unit_rows(self._projection.transform(self._counts.transform(texts)))


def translated(text: str) -> list[str]:
    """Return the words of a translation, which are distinguished from words of the same letters in the passages."""
    return [f"translation:{word}" for word in passages.words(text)]


@dataclass(frozen=True)
class Source:
    """The origin of passages, by which processes can load them by themselves: files, arrays, or Multi30k's folder."""

    data: str | None
    files: tuple[str, ...]
    split: str
    embeddings: str | None
    queries: str | None
    dims: int
    passages: int | None
    #: Of the files as they are now: what a process keeps of them is of these, and not of those written afterwards.
    stamps: Stamps = field(init=False, repr=False)

    def __post_init__(self) -> None:
        paths = [Path(path) for path in (self.embeddings, self.queries) if path is not None]
        if self.files:
            paths += passages.paths_of(self.files)
        elif self.data is not None and self.embeddings is None:
            paths += sentences.paths_of(self.data)
        object.__setattr__(self, "stamps", stamps_of(paths))

    def load(self) -> Task:
        """Load the passages, and make their vectors."""
        if self.embeddings is not None:
            return self._embedded()
        if self.files:
            texts = passages.load(self.files, split=self.split)[: self.passages]
            if len(texts) < 10:
                raise ValueError(f"file: must have at least 10 passages, got {len(texts)}")
            return Task(Space(texts, self.dims), texts, content=(texts,))
        corpus = sentences.load(given_folder(self.data, "Multi30k", sentences.SOURCE, "text files of your own"))
        fitted = corpus.train.head(self.passages)
        space = Space(fitted.sources, self.dims, fitted.targets)
        held = [corpus.validation.head(self.passages), corpus.test.head(self.passages)]
        texts = fitted.sources + held[0].sources + held[1].sources
        firsts = len(fitted), len(fitted) + len(held[0])
        asked = [
            (space.vectors([translated(one) for one in part.targets]), first + np.arange(len(part)))
            for part, first in zip(held, firsts, strict=True)
        ]
        translations = fitted.targets + held[0].targets + held[1].targets
        return Task(space, texts, asked={"translated": (asked[0], asked[1])}, content=(texts, translations))

    def _embedded(self) -> Task:
        """Return the task of embeddings from elsewhere."""
        vectors = _array("embeddings", self.embeddings)[: self.passages]
        texts = None
        if self.files:
            texts = passages.load(self.files, split=self.split)[: self.passages]
            if len(texts) != len(vectors):
                raise ValueError(
                    f"embeddings: must have one row for each of the {len(texts)} passages, got {len(vectors)} rows"
                )
        asked: dict[str, Any] = {}
        content: list[Sequence[str] | NDArray[Any]] = [vectors, texts or ()]
        if self.queries is not None:
            queries = _array("queries", self.queries)[: self.passages]
            if queries.shape[1] != vectors.shape[1] or len(queries) > len(vectors):
                raise ValueError(
                    f"queries: must have the {vectors.shape[1]} columns of the embeddings and at most their "
                    f"{len(vectors)} rows, of which row i is asked for, got {queries.shape}"
                )
            at, rows = np.arange(len(queries)), unit_rows(queries)
            asked["given"] = ((rows[::2], at[::2]), (rows[1::2], at[1::2]))
            content.append(queries)
        return Task(None, texts, unit_rows(vectors), asked, content)


def _array(name: str, path: Any) -> NDArray[Any]:
    """Return the array of a .npy file: finite rows, none of them zero."""
    file = as_path(name, path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: is not there; {name} must name a .npy file, one row a passage")
    with reading(file, ".npy file"):
        rows = np.load(file, allow_pickle=False)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or len(rows) < 10:
        raise ValueError(f"{name}: must be numbers, at least 10 rows, got an array of {rows.dtype} of {rows.shape}")
    length = np.linalg.norm(rows.astype(np.float64), axis=1)
    if len(wrong := np.flatnonzero(~(np.isfinite(length) & (length > 0)))):
        raise ValueError(f"{name}: row {wrong[0]} is zero or not finite")
    return rows


class Task:
    """Passages as unit vectors, and questions about them.

    Parameters
    ----------
    space : Space or None
        What makes vectors of texts; None where they came from elsewhere.
    texts : tuple of str or None
        The passages.
    vectors : ndarray of float32, shape (M, d), optional
        Theirs; by default those of `space`.
    asked : dict, optional
        Questions of other origin by name: for validation and test, vectors and the positions of their sources.
    content : sequence, optional
        All texts and arrays that passages and questions are made of, for the digest.

    Attributes
    ----------
    positions : tuple of 2 ndarray of int64
        The passages to validate with, a quarter or those of questions of other origin, and those to test with: none is
        in both.
    digest : str
    """

    def __init__(
        self,
        space: Space | None,
        texts: tuple[str, ...] | None,
        vectors: Floats | None = None,
        asked: dict[str, Any] | None = None,
        content: Sequence[Sequence[str] | NDArray[Any]] = (),
    ) -> None:
        self.space, self.texts = space, texts
        if vectors is None:
            assert space is not None
            assert texts is not None
            vectors = space.vectors([passages.words(text) for text in texts])
        self.vectors = vectors
        self.asked = asked or {}
        self.digest = digest(*content)
        validates = np.zeros(len(vectors), bool)
        validates[np.random.default_rng(SEED).permutation(len(vectors))[: max(2, len(vectors) // 4)]] = True
        for (_, first), (_, second) in self.asked.values():
            validates[first], validates[second] = True, False
        self.positions: tuple[Positions, Positions] = np.flatnonzero(validates), np.flatnonzero(~validates)

    def kinds(self, shares: Sequence[float]) -> list[str]:
        """Return the kinds of questions: passages without a share of their words, or with noise, and other origins."""
        return [f"{'noise' if self.space is None else 'without'} {share:g}" for share in shares] + list(self.asked)

    def ask(self, kind: str, count: int, seed: int, *, part: int) -> tuple[Floats, Positions]:
        """Return questions of one kind and the positions of their sources; part: 0 to validate with, 1 to test with."""
        if kind in self.asked:
            vectors, at = self.asked[kind][part]
            return vectors[:count], at[:count]
        rng = np.random.default_rng((seed, part))
        share = float(kind.split()[1])
        at = rng.choice(self.positions[part], size=min(count, len(self.positions[part])), replace=False)
        if self.space is None:
            noise = unit_rows(rng.standard_normal((len(at), self.vectors.shape[1])))
            return unit_rows((1 - share) * self.vectors[at] + share * noise), at
        return self.space.vectors([_without(self.words(i), share, rng) for i in at.tolist()]), at

    def words(self, position: int) -> list[str]:
        """Return the words of a passage."""
        assert self.texts is not None
        return passages.words(self.texts[position])

    def vague(self, left: Sequence[int], count: int, seed: int) -> tuple[dict[int, Floats], Positions]:
        """Return questions with fewer and fewer words of passages to test with, by how many words are left."""
        assert self.space is not None
        rng = np.random.default_rng(seed)
        long = [i for i in rng.permutation(self.positions[1]).tolist() if len(self.words(i)) >= max(left)][:count]
        if len(long) < 2:
            raise ValueError(f"words: fewer than 2 of the passages to test with have {max(left)} words; ask for fewer")
        asked: dict[int, list[list[str]]] = {n: [] for n in left}
        for i in long:
            order, text = rng.permutation(len(self.words(i))), self.words(i)
            for n in left:
                asked[n].append([text[j] for j in sorted(order[:n])])
        return {n: self.space.vectors(texts) for n, texts in asked.items()}, np.array(long)


def _without(text: list[str], share: float, rng: np.random.Generator) -> list[str]:
    """Return the words that are left when each is dropped with a probability; at least one."""
    kept = rng.random(len(text)) >= share
    kept[rng.integers(len(text))] |= not kept.any()
    return [word for word, stays in zip(text, kept, strict=True) if stays]


@lru_cache(maxsize=1)
def task_of(source: Source) -> Task:
    """Return a task, loaded once in each process."""
    return source.load()
