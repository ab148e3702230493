"""Docstrings: those of functions begin with a verb in the imperative, as PEP 257 says."""

import ast
import pathlib

import helpers
import pytest

import sparsehopfield

PACKAGE = pathlib.Path(sparsehopfield.__file__).parent
CHECKED = sorted(path for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py")))
CHECKED += [pathlib.Path(helpers.__file__)]
#: First words that are no verb.
OTHERS = """A All An And Any Area At Attention Bag Both By Column Derivative Each Error Every Exact Few First For
From Gradient Half How If In Inverse It Key Layer Length Like Many Mean Median Member More No None Not Number
Of On One Only Or Other Pair Part Pattern Position Probability Query Room Root Row Same Score See Sentence
Share Slope So Softmax Some Sparsemax Spectral Standard Such Text That The Their These They Those Threshold
Through To True Two Uniform Value Vector Weight What When Where Whether Which Who Whole Whose Why With Without
Word""".split()


def first_word(docstring):
    return docstring.split()[0].rstrip(".,:;")


def is_verb(word):
    """Judge a word by its form and the list; words of a third person, and participles, do not pass."""
    plain = word.replace("-", "")
    ends = (word.endswith("s") and not word.endswith("ss")) or word.endswith(("ing", "ed"))
    return plain.isalpha() and word[0].isupper() and not ends and word not in OTHERS


@pytest.mark.parametrize("word", ["Return", "Compute", "Pass", "Cross-validate", "Scale", "Divide"])
def test_verbs_pass(word):
    assert is_verb(word)


@pytest.mark.parametrize("word", ["The", "What", "Returns", "Stored", "beta", "(M,)", "`forward`", "x", "|x|^2/2"])
def test_other_words_do_not_pass(word):
    assert not is_verb(word)


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.name)
def test_docstrings_of_functions_begin_with_a_verb(path):
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert files
    wrong = [
        f"{file}, line {node.lineno}, {node.name}: {docstring.splitlines()[0]}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if (docstring := ast.get_docstring(node)) and not is_verb(first_word(docstring))
    ]
    assert not wrong, "\n".join(wrong)
