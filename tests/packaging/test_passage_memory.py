"""The class that docs/guides/text.md gives users to copy: short, exact, and clear about what it cannot answer."""

import re

import numpy as np
import pytest
from conftest import ROOT

PAGE = ROOT / "docs" / "guides" / "text.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs are not beside the tests: they run on a wheel")

TEXTS = ["a brown dog runs", "a black cat sleeps", "two dogs play with a cat", "a man sings", "snow covers a lake"]


@pytest.fixture(scope="module")
def program():
    """The page's first program, up to where the class is used."""
    text = PAGE.read_text(encoding="utf-8")
    return re.search(r"(?ms)^```python\n(.*?)^# what it is used for$", text).group(1)


@pytest.fixture
def made(program):
    pytest.importorskip("sklearn")
    names = {}
    exec(compile(program, str(PAGE), "exec"), names)
    return names["PassageMemory"]


def test_it_is_short(program):
    assert len(program.rstrip().splitlines()) <= 100


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", "softmax"])
def test_weights_sum_to_one_and_passages_come_heaviest_first(made, separation):
    memory = made(beta=3.0, separation=separation)
    memory.add(TEXTS)
    for k in (1, 2, 5, 9):
        answer = memory.ask("a brown cat", k)
        assert 1 <= len(answer.passages) == len(answer.weights) <= k
        assert answer.weights.sum() == pytest.approx(1)
        assert (np.diff(answer.weights) <= 0).all()
    assert memory.ask("man sings").passages[0] == TEXTS[3]


def test_certified_answers_are_one_passage_with_all_weight(made):
    memory = made(beta=2.0)
    memory.add(TEXTS)
    answer = memory.ask("snow covers a lake")
    assert answer.certified
    assert answer.passages == TEXTS[4:]
    assert answer.weights.tolist() == [1.0]
    vague = memory.ask("dog cat")
    assert not vague.certified
    assert len(vague.passages) > 1
    dense = made(beta=2.0, separation="softmax")
    dense.add(TEXTS)
    assert not dense.ask("snow covers a lake").certified


def test_a_question_without_a_known_word_has_no_answer(made):
    memory = made()
    memory.add(TEXTS)
    for question in ("zebra", "", "?!"):
        answer = memory.ask(question)
        assert answer.passages == []
        assert len(answer.weights) == 0
        assert not answer.certified


def test_more_passages_and_files(made, tmp_path):
    memory = made(beta=5.0)
    memory.add(TEXTS[:2])
    assert memory.ask("snow").passages == []
    memory.add(TEXTS[2:])
    memory.add("rain falls")
    assert memory.ask("snow").passages == [TEXTS[4]]
    memory.save(tmp_path / "passages.json")
    again = made.load(tmp_path / "passages.json")
    for question in ("rain", "a cat and a dog", "zebra"):
        one, other = memory.ask(question), again.ask(question)
        assert one.passages == other.passages
        assert np.array_equal(one.weights, other.weights)


def test_vectors_of_ones_own(made):
    asked = []

    def embed(texts):
        asked.append(len(texts))
        return [[text.count(letter) for letter in "abcdefgh"] for text in texts]

    memory = made(beta=20.0, embed=embed)
    memory.add(["aab", "bbc"])
    assert memory.ask("bbc").passages == ["bbc"]
    memory.add(["hhh"])
    assert memory.ask("hh").passages == ["hhh"]
    assert asked == [2, 1, 1, 1]  # passages once, then one question or passage at a time
    assert memory.ask("xyz").passages == []
    wrong = made(embed=lambda texts: np.ones((len(texts) + 1, 3)))
    wrong.add(["one"])
    with pytest.raises(ValueError, match="embed: must return 1 rows"):
        wrong.ask("one")


@pytest.mark.parametrize("passages", [[""], ["a dog", "  "], ["a dog", None], [3]])
def test_empty_passages_are_refused_and_nothing_is_added(made, passages):
    memory = made()
    memory.add(TEXTS)
    with pytest.raises(ValueError, match="passages: number"):
        memory.add(passages)
    assert memory.passages == TEXTS


def test_questions_that_cannot_be_asked(made):
    memory = made()
    with pytest.raises(ValueError, match="question: there are no passages"):
        memory.ask("a dog")
    memory.add(TEXTS)
    with pytest.raises(TypeError, match="question: must be a text"):
        memory.ask(5)
    with pytest.raises(ValueError, match="k: must be at least 1"):
        memory.ask("a dog", k=0)
