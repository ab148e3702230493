"""Pairs of sentences from text files: what is read, and what is refused with its place."""

import gzip
import os
from pathlib import Path

import pytest

from sparsehopfield.data.sentences import Pairs, load, load_files
from sparsehopfield.errors import FileFormatError

EN, DE = "a dog runs .\ntwo  cats sleep .\n", "ein hund rennt .\nzwei katzen schlafen .\n"


def written(folder, en=EN, de=DE):
    for name, text in (("en", en), ("de", de)):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "en", folder / "de"


def test_lines_are_pairs(tmp_path):
    pairs = load_files(*written(tmp_path))
    assert pairs == Pairs(("a dog runs .", "two cats sleep ."), ("ein hund rennt .", "zwei katzen schlafen ."))
    assert len(pairs) == 2
    assert pairs.head(1) == Pairs(pairs.sources[:1], pairs.targets[:1])
    assert pairs.head(None) == pairs
    packed = written(tmp_path, gzip.compress(EN.encode()), gzip.compress(DE.encode()))
    assert load_files(*packed) == pairs


@pytest.mark.parametrize(
    ("en", "de", "message"),
    [
        (EN + "one more .\n", DE, "3 lines .* 2; each line must have its translation"),
        ("a dog runs .\n \n", DE, "line 2: is empty"),
        ("", DE, "line 1: is empty"),
        (b"a dog \xff\n", "ein hund\n", "text file"),
        (b"\x1f\x8b\x08\x00damaged", DE, "gzip file"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, en, de, message):
    with pytest.raises(FileFormatError, match=message):
        load_files(*written(tmp_path, en, de))


def test_missing_files_say_where_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no train.lc.norm.tok.en .* get it from https://github.com/multi30k"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"^languages: must be two names"):
        load(tmp_path, languages="en")
    with pytest.raises(ValueError, match=r"^languages: must be two names"):
        load(tmp_path, languages=None)


def test_multi30k_as_it_comes():
    root = os.environ.get("SPARSEHOPFIELD_DATA")
    if root is None or not Path(root, "multi30k").exists():
        pytest.skip("needs SPARSEHOPFIELD_DATA, a folder with multi30k")
    corpus = load(root)
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (29000, 1014, 1000)
    assert corpus.test.sources[0] == "a man in an orange hat starring at something ."
    assert corpus.test.targets[0] == "ein mann mit einem orangefarbenen hut , der etwas anstarrt ."
