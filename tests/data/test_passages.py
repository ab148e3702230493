"""Passages of text files: what is read, and what is refused with its file."""

import gzip

import pytest

from sparsehopfield import FileFormatError
from sparsehopfield.data.passages import load, words


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
    with pytest.raises(FileFormatError, match=r"empty\.txt: has no word"):
        load(tmp_path)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(FileFormatError, match=r"latin\.txt: damaged or unreadable text file"):
        load(tmp_path / "latin.txt")
    with pytest.raises(ValueError, match="split: must be one of lines, paragraphs, got 'pages'"):
        load(tmp_path, split="pages")
    with pytest.raises(ValueError, match="paths: "):
        load([])
