"""The study of the next word: n-grams and memories against plain code, the table, and what is refused."""

from collections import Counter

import numpy as np
import pytest

from sparsehopfield import HopfieldMemory
from sparsehopfield.studies import next_word
from sparsehopfield.studies.next_word import protocol
from sparsehopfield.studies.next_word.protocol import Model
from sparsehopfield.studies.next_word.task import CONTEXT, START, UNKNOWN, KneserNey, Source, Text, text_of

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')


def made_sentences(n, seed=0):
    """Sentences of a made language in which a word depends on the two before it, and on their kind."""
    rng, lines = np.random.default_rng(seed), []
    for _ in range(n):
        words = [int(rng.integers(20))]
        while len(words) < 10 and rng.random() < 0.9:
            words.append((3 * words[-1] + int(rng.integers(4)) * (words[-1] % 2 + 1)) % 20)
        lines.append(" ".join(f"w{word}" for word in words))
    return lines


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "made.txt"
    path.write_text("\n".join(made_sentences(300)))
    return path


def run(folder, file, **options):
    small = {"sentences": (60, 240), "words": 150, "order": (2, 3), "dims": 8, "nearest": 40, "progress": False}
    return next_word.run(folder, file=str(file), **small | options)


def test_an_interrupted_table_is_continued_to_the_same(tmp_path, file, monkeypatch):
    whole = run(tmp_path / "whole", file)
    evaluated = []

    def stopped(*arguments):
        if len(evaluated) == 6:
            raise KeyboardInterrupt
        evaluated.append(arguments)
        return protocol.evaluate(*arguments)

    monkeypatch.setattr(next_word, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", file)
    monkeypatch.undo()
    for cached in (text_of, protocol.nearest_of, protocol.n_grams, protocol.validated, protocol.chosen):
        cached.cache_clear()
    parts = run(tmp_path / "parts", file)
    assert parts.table.read_bytes() == whole.table.read_bytes()
    assert len(whole.figures) == 2
    values = {(row["sentences"], row["order"], row["map"], row["metric"]): row["value"] for row in whole.rows}
    for order in (2, 3):
        assert values[240, order, "-", "perplexity"] < values[60, order, "-", "perplexity"] < 22
        for separation in ("softmax", "sparsemax", "entmax15"):
            key = (240, order, separation)
            change = values[*key, "perplexity"] / values[240, order, "-", "perplexity"] - 1
            assert values[*key, "least"] <= change <= values[*key, "most"]
            assert 0 < values[*key, "seen"] <= 1
            assert values[*key, "support"] <= 40
    assert "the best n-grams alone are those of" in whole.report
    assert "240 sentences, 2-grams: sparsemax against softmax" in whole.report or "3-grams: sparsemax" in whole.report


def test_text_is_numbered_with_its_contexts():
    text = Text.of([["a b", "b a c"], ["a x"], ["b"]])
    assert text.vocabulary == ("<s>", "</s>", "<unknown>", "a", "b")
    assert text.train.following.tolist() == [3, 4, 1, 4, 3, UNKNOWN, 1]
    assert text.train.contexts[1].tolist() == [START] * (CONTEXT - 1) + [3]
    assert text.train.sentence.tolist() == [0] * 3 + [1] * 4
    assert text.validation.following.tolist() == [3, UNKNOWN, 1]
    assert Text.of([["a b", "b a c"], ["a x"], ["b"]], 1).vocabulary == text.vocabulary


def by_the_formula(words, order, vocabulary):
    """Kneser and Ney's smoothing of one word behind a context, as Chen and Goodman write it."""
    grams = [(*c[CONTEXT - order + 1 :], w) for c, w in zip(words.contexts.tolist(), words.following, strict=True)]
    levels = [Counter(grams)]
    for _ in range(order - 1):
        levels.append(Counter(gram[1:] for gram in levels[-1]))

    def probability(context, word):
        if len(context) == order:
            context = context[1:]
        counts = levels[order - 1 - len(context)]
        kinds = Counter(counts.values())
        discount = kinds[1] / (kinds[1] + 2 * kinds[2]) if kinds[1] else 0.5
        behind = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == tuple(context)}
        lower = probability(context[1:], word) if context else 1 / (vocabulary - 1)
        if not behind:
            return lower
        total = sum(behind.values())
        return max(behind.get(word, 0) - discount, 0) / total + discount * len(behind) / total * lower

    return lambda context, word: probability(list(context)[CONTEXT - order + 1 :], word)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_n_grams_are_those_of_the_formula_and_sum_to_one(order):
    text = Text.of([made_sentences(40), made_sentences(5, 1), ["unheard of"]])
    size = len(text.vocabulary)
    model, plain = KneserNey(text.train, order, size), by_the_formula(text.train, order, size)
    for part in (text.validation, text.test):
        for context in part.contexts[:6]:
            p = model.probability(np.tile(context, (size, 1)), np.arange(size))
            assert p[1:].sum() == pytest.approx(1, abs=1e-12)
            assert p == pytest.approx([plain(context.tolist(), word) for word in range(size)], abs=1e-14)


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", "softmax"])
def test_the_memory_weighs_words_as_its_associations_do(file, separation):
    source = Source(None, (str(file),), "en", 60)
    text = text_of(source, 240)
    model = Model(8, 5000)  # all contexts
    _, found = protocol.nearest_of(source, 240, model)
    near, support = protocol.by_memory(found, separation, 4.0)
    stored, vectors = protocol.memory_of(text, 8)
    memory = HopfieldMemory(stored.patterns, 4.0, similarity="euclidean", separation=separation)
    weights = memory.associate(
        vectors.vectors(text.test.contexts), top=None if separation != "softmax" else len(memory)
    )
    followed = np.eye(len(text.vocabulary))[text.train.following]
    assert near == pytest.approx((weights @ followed)[np.arange(len(near)), text.test.following], abs=1e-5)
    if separation != "softmax":
        assert np.array_equal(support, np.diff(weights.indptr))


def test_share_and_beta_are_those_of_least_perplexity(file):
    source, model = Source(None, (str(file),), "en", 60), Model(8, 40)
    plain, found = protocol.n_grams(source, 240, 2)[0], protocol.nearest_of(source, 240, model)[0]
    best = min(
        (-np.log((1 - share) * plain + share * protocol.by_memory(found, "sparsemax", beta)[0]).sum(), share, beta)
        for beta in protocol.BETAS["sparsemax"]
        for share in protocol.SHARES
    )
    assert protocol.chosen(source, 240, 2, "sparsemax", model) == best[1:]


def test_the_interval_covers_a_known_change():
    rng, inside = np.random.default_rng(0), 0
    sentence = np.repeat(np.arange(50), 8)
    for _ in range(60):
        least, most = protocol.interval(np.repeat(rng.normal(-0.1, 0.2, 50), 8), sentence)
        inside += least <= np.exp(-0.1) - 1 <= most
    assert 50 <= inside <= 60
    assert protocol.interval(np.full(400, np.log(0.5)), sentence) == pytest.approx((-0.5, -0.5))
    assert protocol.perplexity(np.full(7, 1 / 30)) == pytest.approx(30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 7}, "order: must be from 1 to 6"),
        ({"sentences": 5}, "sentences: "),
        ({"sentences": 500}, "sentences: must be at most the 240"),
        ({"maps": "hard"}, "maps: unknown"),
        ({"dims": 40}, "dims: must be below"),
        ({"nearest": 0}, "nearest: "),
        ({"words": 0}, "words: "),
        ({"language": "fr"}, "language: unknown"),
    ],
)
def test_bad_options_are_named(tmp_path, file, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, file, **options)


def test_missing_files_say_where_to_get_them(tmp_path):
    with pytest.raises(ValueError, match="multi30k"):
        next_word.run(tmp_path / "out", progress=False)
    with pytest.raises(FileNotFoundError, match="multi30k"):
        next_word.run(tmp_path / "out", data=tmp_path, progress=False)
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    with pytest.raises(ValueError, match="file: must have at least 13 lines"):
        next_word.run(tmp_path / "out", file=str(few), progress=False)
