"""Passages of text files: what is read, and what is refused with its file."""

import gzip

import pytest

from sparsehopfield import FileFormatError
from sparsehopfield.data.passages import load, words
from sparsehopfield.data.sentences import load_files


def test_words_are_runs_of_letters_in_lower_case():
    assert words("Zwei Hunde, 3 cafés: l'été!") == ["zwei", "hunde", "3", "cafés", "l", "été"]
    assert words("-- ?!") == []


def test_lines_and_paragraphs_of_files_and_folders(tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "b.txt").write_text("one  line\r\n---\n\nanother\n", encoding="utf-8-sig")
    (tmp_path / "deeper" / "a.md").write_text("# Title\n\nfirst\nsecond")
    (tmp_path / "deeper" / "c.txt.gz").write_bytes(gzip.compress("packed é".encode()))
    (tmp_path / "left.py").write_text("no text")
    lines = ("one line", "another", "# Title", "first", "second", "packed é")
    assert load(tmp_path) == lines
    assert load([tmp_path / "b.txt", str(tmp_path / "deeper")]) == lines
    assert load(tmp_path, split="paragraphs") == ("one line", "another", "# Title", "first second", "packed é")


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.txt: is not there"):
        load(tmp_path / "gone.txt")
    with pytest.raises(FileNotFoundError, match=r"has no files that end in \.txt"):
        load(tmp_path)
    (tmp_path / "empty.txt").write_text("\n---\n")
    for path in (tmp_path / "empty.txt", tmp_path):
        with pytest.raises(FileFormatError, match=f"{path.name}: has no word"):
            load(path)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(FileFormatError, match=r"latin\.txt: damaged or unreadable text file"):
        load(tmp_path / "latin.txt")
    with pytest.raises(ValueError, match="split: must be one of lines, paragraphs, got 'pages'"):
        load(tmp_path, split="pages")
    with pytest.raises(ValueError, match="paths: "):
        load([])
    for wrong in (5, None, [5]):
        with pytest.raises(TypeError, match="paths: must be"):
            load(wrong)
    with pytest.raises(TypeError, match="text: must be a str, got NoneType"):
        words(None)


def test_a_file_without_a_word_is_skipped_in_a_folder(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("two words")
    assert load(tmp_path) == ("two words",)


def test_lines_end_where_those_of_sentences_do(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\ftwo\r\nthree\rfour\x85five\n".encode())
    assert load(tmp_path / "a.txt") == ("one two", "three", "four five")
    assert load_files(tmp_path / "a.txt", tmp_path / "a.txt").sources == load(tmp_path / "a.txt")
