"""The study of the next word: n-grams and memories against plain code, the table, and what is refused."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sparsehopfield import HopfieldMemory
from sparsehopfield.__main__ import main
from sparsehopfield.studies import next_word
from sparsehopfield.studies.next_word import protocol
from sparsehopfield.studies.next_word.protocol import Model, Plan
from sparsehopfield.studies.next_word.report import Summary, report_text
from sparsehopfield.studies.next_word.task import CONTEXT, START, UNKNOWN, KneserNey, Source, Text, text_of

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')


KEPT = ("nearest_of", "n_grams", "validated", "chosen", "mixture_of")


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
    for cached in (text_of, *(getattr(protocol, name) for name in KEPT)):
        cached.cache_clear()
    parts = run(tmp_path / "parts", file)
    assert parts.table.read_bytes() == whole.table.read_bytes()
    assert len(whole.figures) == 2
    values = {(row["sentences"], row["order"], row["map"], row["metric"]): row["value"] for row in whole.rows}
    best = min((2, 3), key=lambda order: values[240, order, "-", "validation"])
    for order in (2, 3):
        assert values[240, order, "-", "perplexity"] < values[60, order, "-", "perplexity"] < 22
        for separation in ("softmax", "sparsemax", "entmax15"):
            key = (240, order, separation)
            change = values[*key, "perplexity"] / values[240, order, "-", "perplexity"] - 1
            assert values[*key, "least"] <= change <= values[*key, "most"]
            assert 0 < values[*key, "seen"] <= 1
            assert values[*key, "support"] <= 40
            by_best = values[*key, "perplexity"] / values[240, best, "-", "perplexity"] - 1
            assert values[*key, "best least"] <= by_best <= values[*key, "best most"]
            assert values[*key, "searched"] == 40
            if separation != "softmax":
                by_softmax = values[*key, "perplexity"] / values[240, order, "softmax", "perplexity"] - 1
                assert values[*key, "softmax least"] <= by_softmax <= values[*key, "softmax most"]
    assert f"240 sentences: by validation the best n-grams alone are those of {best} words" in whole.report
    chosen = min((key for key in values if key[0] == 240 and key[3] == "validation" and key[2] != "-"), key=values.get)
    assert f"240 sentences, {chosen[1]}-grams: sparsemax against softmax of 40" in whole.report
    named = "softmax of 40" if chosen[2] == "softmax" else chosen[2]
    assert f"is of {chosen[1]}-grams and {named}," in " ".join(whole.report.split())
    words, unknown = values[60, 2, "-", "words"], values[60, 2, "-", "unknown"]
    assert 150 <= words < 165
    assert 0 <= unknown < 0.05
    assert f"The vocabulary has {values[60, 2, '-', 'vocabulary']:.0f} words" in whole.report


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
    betas = 2.0 ** np.arange(-12, 9)
    best = min(
        (-np.log((1 - share) * plain + share * protocol.by_memory(found, "sparsemax", beta)[0]).sum(), share, beta)
        for beta in betas
        for share in protocol.SHARES
    )
    assert protocol.chosen(source, 240, 2, "sparsemax", model) == best[1:]


def test_perplexity_without_unknown_words_and_the_models_that_it_is_held_against(tmp_path):
    path = tmp_path / "made.txt"
    lines = made_sentences(300)
    path.write_text("\n".join([*lines[:270], *(f"{line} unheard" for line in lines[270:])]))
    source, model = Source(None, (str(path),), "en", None), Model(8, 40)
    setting = {"sentences": 100, "order": 2, "map": "-"}
    found = protocol.evaluate(source, setting, model, Plan((2,), ()))
    test = text_of(source, 100).test
    p = protocol.n_grams(source, 100, 2)[1]
    assert found["unknown"] == pytest.approx(30 / len(p))
    assert found["known"] == pytest.approx(protocol.perplexity(p[test.following != UNKNOWN]))
    assert found["known"] < found["perplexity"]
    mixed = protocol.evaluate(source, {**setting, "map": "sparsemax"}, model, Plan((1, 2), ("sparsemax",)))
    best = min((1, 2), key=lambda order: protocol.perplexity(protocol.n_grams(source, 100, order)[0]))
    gain = np.log(protocol.n_grams(source, 100, best)[1])
    gain -= np.log(protocol.mixture_of(source, 100, 2, "sparsemax", model).test)
    assert (mixed["best least"], mixed["best most"]) == protocol.interval(gain, test.sentence)
    assert np.isnan(mixed["softmax least"])


def test_a_memory_helps_only_if_it_does_against_the_best_n_grams():
    rows = []
    for order, separation, perplexity, validation, most, best_most in (
        (1, "-", 40.0, 41.0, np.nan, np.nan),
        (2, "-", 30.0, 31.0, np.nan, np.nan),
        (1, "softmax", 29.0, 33.0, -0.2, 0.01),  # best of the words to test with, and not by validation
        (2, "softmax", 29.5, 30.5, -0.01, 0.02),
    ):
        value = dict.fromkeys(protocol.METRICS, 0.5) | {"perplexity": perplexity, "validation": validation}
        value |= {"most": most, "least": -0.3, "best least": -0.1, "best most": best_most, "searched": 9, "share": 0.99}
        value |= {"beta used": protocol.LIMITS["softmax"][1]}
        setting = {"sentences": 50, "order": order, "map": separation}
        rows += [{**setting, "metric": name, "value": number} for name, number in value.items()]
    said = " ".join(report_text(Summary(rows)).split())
    assert "the best n-grams alone are those of 2 words, with a perplexity of 30.00" in said
    assert "a memory has no effect that these words can show: by validation the best mixture is of 2-grams" in said
    assert "-1.7 % [-10.0, +2.0] against the best n-grams" in said
    assert "2-grams and softmax of 9: beta 4.1e+03 is at an end of those that were tried" in said
    assert "the share 0.99 is the largest that was tried" in said


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "made.txt"
    path.write_text("\n".join(made_sentences(50)))
    first = text_of(Source(None, (str(path),), "en", None), 30)
    assert text_of(Source(None, (str(path),), "en", None), 30) is first
    path.write_text("\n".join(made_sentences(50, 1)))
    assert text_of(Source(None, (str(path),), "en", None), 30).digest != first.digest
    run(tmp_path / "out", path, sentences=30, order=2, maps="sparsemax")
    path.write_text("\n".join(reversed(made_sentences(50, 1))))
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path / "out", path, sentences=30, order=2, maps="sparsemax")


@pytest.mark.parametrize("example", [line for line in next_word.EXAMPLES.splitlines() if "--file" in line])
def test_examples_of_the_help_run(tmp_path, monkeypatch, example):
    words = np.random.default_rng(0).integers(60, size=2600)
    (tmp_path / "book.txt").write_text("\n".join(f"w{a}" for a in words))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(next_word.plotting, "save", lambda figure, path: [])  # which takes longer than all else
    assert main([*example.split()[3:], "--quiet"]) == 0
    assert (tmp_path / "results" / "next-word-book" / "table.csv").exists()


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
        ({"data": 5}, "data: must be a string or a path, got int"),
    ],
)
def test_bad_options_are_named(tmp_path, file, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(tmp_path, file, **options)


def test_one_path_or_several_are_the_same_files(file):
    assert next_word.Options(file=Path(file)) == next_word.Options(file=[str(file)])
    with pytest.raises(TypeError, match="file: must be a path or a sequence of paths"):
        next_word.Options(file=5)


def test_missing_files_say_where_to_get_them(tmp_path):
    with pytest.raises(ValueError, match="multi30k"):
        next_word.run(tmp_path / "out", progress=False)
    with pytest.raises(FileNotFoundError, match="multi30k"):
        next_word.run(tmp_path / "out", data=tmp_path, progress=False)
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    with pytest.raises(ValueError, match="file: must have at least 13 lines"):
        next_word.run(tmp_path / "out", file=str(few), progress=False)
