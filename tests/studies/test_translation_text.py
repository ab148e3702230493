"""The study of translation without its networks: damage, BLEU, bootstraps, and options that are refused."""

import numpy as np
import pytest

from sparsehopfield.studies import translation
from sparsehopfield.studies.translation.bleu import bleu_of, bootstrap, corpus_bleu, counts_of
from sparsehopfield.studies.translation.protocol import betas_of, default_beta, maps_of
from sparsehopfield.studies.translation.text import CONDITIONS, UNKNOWN, Source, Vocabulary, damaged, learn_vocabulary

LINES = [f"word{i} " * (3 + i % 5) + "and the end ." for i in range(400)]


def test_damage_hits_as_many_words_as_it_says():
    whole = damaged(LINES, "clean", 0)
    assert whole == [line.split() for line in LINES]
    words = sum(map(len, whole))
    for condition in CONDITIONS:
        found = damaged(LINES, condition, 0)
        assert found == damaged(LINES, condition, 0) != damaged(LINES, condition, 1) or condition == "clean"
        kind, share = condition.partition(" ")[0], CONDITIONS[condition][1]
        if kind == "dropped":
            assert 1 - sum(map(len, found)) / words == pytest.approx(share, abs=0.03)
            assert all(found)
        if kind == "unknown":
            assert sum(word is None for line in found for word in line) / words == pytest.approx(share, abs=0.03)
        if kind == "swapped":
            assert [sorted(line) for line in found] == [sorted(line) for line in whole]
            assert found != whole


def test_one_word_is_never_dropped():
    assert damaged(["word"] * 100, "dropped 20", 0) == [["word"]] * 100


def test_bleu_of_a_known_case():
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, none of 3 quadruples, which counts as half a match
    sums = [5, 3, 1, 0, 6, 5, 4, 3, 6, 6]
    assert bleu_of(sums) == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * (1 / 2) / 3) ** 0.25)
    # a hypothesis that is too short: all of it is right
    assert bleu_of([5, 4, 3, 2, 5, 4, 3, 2, 5, 7]) == pytest.approx(100 * np.exp(1 - 7 / 5))
    assert bleu_of([0, 0, 0, 0, 6, 5, 4, 3, 6, 6]) == 0
    assert bleu_of([1, 0, 0, 0, 1, 0, 0, 0, 1, 1]) == 0


def test_counts_are_those_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu", reason="needs the extra translation")
    counts = counts_of(["the cat sat on the mat"], ["the cat is on the mat"])
    assert counts.tolist() == [[5, 3, 1, 0, 6, 5, 4, 3, 6, 6]]
    rng = np.random.default_rng(0)
    words = np.array([*"abcdefg"])
    made, wanted = ([" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(50)] for _ in range(2))
    made[:20] = [f"{line} a b c d e" for line in wanted[:20]]
    for n in (1, 5, 50):
        score = sacrebleu.corpus_bleu(made[:n], [wanted[:n]], tokenize="none", force=True).score
        assert corpus_bleu(counts_of(made[:n], wanted[:n])) == pytest.approx(score, rel=1e-12)


def test_the_bootstrap_is_paired():
    rng = np.random.default_rng(0)
    total = np.tile([12, 11, 10, 9], (300, 1))
    right = np.sort(rng.integers(0, 10, (300, 4)))[:, ::-1]
    some = np.concatenate([right, total, np.full((300, 2), 12)], axis=1)
    better = some.copy()
    better[:, :4] += 1  # in every sentence: no draw can hide it
    least, most = bootstrap([better], [some])
    assert 0 < least < corpus_bleu(better) - corpus_bleu(some) < most
    assert bootstrap([some], [better]) == (-most, -least)
    assert bootstrap([some, better], [better, some]) == (0, 0)
    least, most = bootstrap([some[:150]], [some[150:]])
    assert least < 0 < most


def test_models_by_their_names():
    assert maps_of("softmax/softmax/entmax15") == ("softmax", "softmax", "entmax15")
    assert betas_of("softmax/softmax/entmax15", "0.25") == (1, 1, 0.25)
    assert betas_of("softmax", "0.25") == (0.25, 0.25, 0.25)
    assert betas_of("softmax/sparsemax/entmax15", "learned") == (1, 0.25, 0.5)
    assert default_beta("softmax/softmax/entmax15") == "0.5"
    assert default_beta("softmax") == "1"
    assert betas_of("sparsemax/entmax15/softmax", default_beta("sparsemax/entmax15/softmax")) == (0.25, 0.5, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": "sparse"}, "maps: 'sparse' must be one of softmax"),
        ({"maps": "softmax/softmax"}, "maps: 'softmax/softmax' must be"),
        ({"betas": 0.0}, "betas: must be positive and finite"),
        ({"betas": "often"}, "betas: must be positive and finite, or 'learned', got often"),
        ({"learning_rates": (0.1, float("nan"))}, "learning_rates: must be positive"),
        ({"tokens": 1}, "tokens: must be at least 64"),
        ({"epochs": 0}, "epochs: must be at least 1"),
    ],
)
def test_options_are_refused_by_name(tmp_path, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        translation.run(tmp_path / "made", progress=False, **options)
    assert not (tmp_path / "made").exists()


def test_numbers_and_names_are_the_same_options():
    assert translation.Options(maps=("softmax", "softmax/softmax/softmax")) == translation.Options(maps="softmax")
    assert translation.Options(betas=(0.5, 1, "learned")) == translation.Options(betas=("0.50", "1.0", "learned"))


def test_without_an_extra_one_sentence_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=r"study of translation needs .*sparsehopfield\[translation\]"):
        translation.run(tmp_path, progress=False)


def test_a_vocabulary_gives_the_text_back(tmp_path):
    pytest.importorskip("sentencepiece", reason="needs the extra translation")
    vocabulary = Vocabulary.learned(LINES, 60)
    assert len(vocabulary) == 60
    assert vocabulary.decode(vocabulary.encode(LINES[3].split())) == LINES[3].strip()
    assert vocabulary.encode(["word1", None])[-1] == UNKNOWN
    assert Vocabulary.learned(LINES, 60).digest == vocabulary.digest != Vocabulary.learned(LINES, 50).digest
    with pytest.raises(ValueError, match=r"^vocabulary: 500 pieces cannot be learned"):
        Vocabulary.learned(["a b c"], 500)


def corpus_in(folder, lines=LINES):
    for part in ("train", "val", "test_2016_flickr"):
        for language in ("en", "de"):
            (folder / f"{part}.lc.norm.tok.{language}").write_text("\n".join(lines) + "\n")
    return folder


def test_another_vocabulary_is_refused(tmp_path):
    pytest.importorskip("sentencepiece", reason="needs the extra translation")
    source = Source(str(corpus_in(tmp_path)), None, None, str(tmp_path / "made" / "vocabulary.model"))
    first = learn_vocabulary(source, 60)
    assert learn_vocabulary(source, 60).digest == first.digest
    with pytest.raises(ValueError, match=r"^vocabulary: .* holds another one"):
        learn_vocabulary(source, 50)
    with pytest.raises(ValueError, match=r"^vocabulary: .* holds another one"):
        learn_vocabulary(Source(source.data, 300, None, source.vocabulary), 60)
    (tmp_path / "made" / "vocabulary.model").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"vocabulary.model: damaged or unreadable SentencePiece model"):
        learn_vocabulary(source, 60)
    with pytest.raises(ValueError, match=r"^data: Multi30k is read from a folder"):
        Source(None, None, None, "").corpus()
