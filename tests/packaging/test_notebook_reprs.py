"""What a notebook shows of objects: small tables, sound and harmless HTML, whatever they hold."""

import copy
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers, structures
from sparsehopfield._engine import html

HOSTILE = "<script>alert('x')</script>\"&\ud800\x00"


class Fragment(HTMLParser):
    """Checks that what is opened is closed, in order, and collects tags, cells and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        assert {name for name, _ in attrs} <= {"style", "scope"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data


def shown(thing):
    """Return what a notebook shows of an object, checked."""
    text = thing._repr_html_()
    text.encode("utf-8")
    fragment = Fragment(text)
    assert {*fragment.tags} <= {"table", "caption", "tr", "th", "td", "p", "br"}
    assert not re.search(r"[;\"](color|background)", text)  # the reader's are on the ground that it was made for
    return fragment


def patterns(m=60, d=16):
    return np.random.default_rng(0).random((m, d), dtype=np.float32)


def memory(**options):
    return sh.HopfieldMemory(patterns(), 4.0, **{"similarity": "euclidean"} | options)


class Hostile(structures.TopK):
    def __repr__(self):
        return HOSTILE


def everything():
    """Yield objects by name."""
    stored = memory(values=np.arange(120.0).reshape(60, 2), ids=np.arange(60) + 1000)
    yield "memory", memory()
    yield "memory with all", stored
    yield "memory of bytes", sh.HopfieldMemory((patterns() * 255).astype(np.uint8), scale=1 / 255, index=False)
    yield "memory of many betas", sh.HopfieldMemory(patterns(), np.linspace(1, 2, 500))
    yield "info", stored.retrieve(patterns()[:5], return_info=["weights", "energy"])[1]
    yield "info of one", memory().retrieve(patterns()[0], return_info=True)[1]
    yield "info of none", memory().retrieve(patterns()[:0], return_info=True)[1]
    yield "report", memory().report()
    yield "report of one", sh.HopfieldMemory([[1.0, 2.0]]).report()
    yield "certified", memory().certify(patterns()[:5] + 0.3)
    yield "certified none", memory().certify(patterns()[:0])
    yield "capacity", memory().capacity()
    yield "duplicates", stored.duplicates(2.0)
    yield "no duplicates", memory().duplicates()
    yield "explanation", stored.explain(patterns()[3] + 0.1)
    yield "configuration", sh.show_config("dict")
    yield "layer", layers.Linear(3, 2, random_state=0)
    yield "layer without parameters", layers.ReLU()
    yield "layers", layers.Sequential(layers.HopfieldPooling(3, random_state=0), layers.Linear(3, 1, random_state=0))


THINGS = dict(everything())


@pytest.mark.parametrize("name", THINGS)
def test_what_a_notebook_shows_is_sound(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)  # only whole pages need it
    assert len(shown(THINGS[name]).text) > 10
    assert len(repr(THINGS[name])) < 1000


def test_hostile_text_is_text():
    stored = memory(structure=Hostile(2))
    linear = layers.Linear(3, 2, random_state=0)
    linear._own[HOSTILE] = linear._own.pop("weight")
    of_text = layers.Sequential(linear)
    of_text._config["note"] = HOSTILE
    report = copy.copy(memory().report())
    object.__setattr__(report, "description", HOSTILE)
    for thing in (stored, linear, of_text, report, stored.explain(patterns()[0])):
        assert "alert" in shown(thing).text
    fragment = Fragment(html.table([[HOSTILE, "b"], ["1", HOSTILE]], HOSTILE))
    told = HOSTILE.encode("utf-8", "backslashreplace").decode().replace("\x00", "")
    assert [[cell.replace("\ufffd", "").replace("\x00", "") for cell in row] for row in fragment.rows] == [
        [told, "b"],
        ["1", told],
    ]
    assert Fragment(html.facts({HOSTILE: HOSTILE}, HOSTILE)).tags == ["table", "caption", "tr", "th", "td"]
    assert Fragment(html.paragraphs(f"{HOSTILE}\n{HOSTILE}")).tags == ["p", "br"]


def test_tables():
    text = html.table([["name", "size", "share"], ["a", "1.5", "12%"], ["b", "-2e3", ""]], "Things")
    assert Fragment(text).rows == [["name", "size", "share"], ["a", "1.5", "12%"], ["b", "-2e3", ""]]
    assert re.findall("text-align:(left|right)", text)[1:] == ["left", "right", "right"] * 3  # numbers flush right
    assert Fragment(html.table([["only", "a head"]])).rows == [["only", "a head"]]
    assert Fragment(html.facts({"a": "1", "b": "2"})).rows == [["a", "1"], ["b", "2"]]


def test_memory():
    rows = dict(row for row in shown(THINGS["memory with all"]).rows if len(row) == 2)
    assert rows["patterns"] == "60 of 16 features, float64"  # as the values are
    assert rows["values"] == "2 a pattern, float64"
    assert rows["ids"] == "other than the positions"
    assert (rows["similarity"], rows["separation"], rows["beta"]) == ("euclidean", "sparsemax", "4.0")
    assert (rows["structure"], rows["results"]) == ("all pairs", "float64")
    assert rows["memory"] == "8.44 KiB"
    assert rows["index"] == "not built (built when it pays)"
    large = sh.HopfieldMemory(patterns(2000, 64), index=True)
    assert re.fullmatch(r"[\d.]+ KiB \(always\)", dict(shown(large).rows)["index"])
    rows = dict(shown(THINGS["memory of bytes"]).rows)
    assert rows["patterns"] == "60 of 16 features, uint8, times 0.00392157"
    assert rows["index"] == "not built (none)"


def test_retrieval_info_is_a_summary():
    many = np.repeat(patterns(), 50, axis=0).reshape(100, 30, 16) + 0.2
    info = memory(similarity="dot").retrieve(many, return_info=["energy"])[1]
    fragment = shown(info)
    rows = {row[0]: row[1:] for row in fragment.rows}
    assert rows["queries"] == ["3,000, of shape (100, 30)"]
    assert rows["converged"] == ["3,000 (100.0%)"]
    assert rows["states"] == ["100 x 30 x 16, float32"]
    for name, numbers in (("steps", info.steps), ("support size", info.support_size)):
        quantiles = np.quantile(numbers, [0, 0.1, 0.5, 0.9, 1], method="lower")
        assert [int(cell) for cell in rows[name]] == quantiles.tolist()
    assert float(rows["energy"][0]) == pytest.approx(info.energy.min(), rel=1e-3)
    assert len(info._repr_html_()) < 5000  # whatever the number of queries
    least, most = info.steps.min(), info.steps.max()
    assert repr(info).startswith(
        f"RetrievalInfo(3,000 queries, 3,000 converged, steps {least} to {most}, support size "
    )
    assert repr(THINGS["info of one"]) == "RetrievalInfo(1 query, 1 converged, steps 1, support size 1)"
    assert repr(THINGS["info of none"]) == "RetrievalInfo(0 queries, 0 converged)"


def test_texts_and_tables_say_the_same():
    for name in ("report", "report of one", "duplicates", "no duplicates", "capacity"):
        thing = THINGS[name]
        words = re.sub(r"\W+", " ", str(thing)).split()
        assert sorted(words) == sorted(re.sub(r"\W+", " ", page_text(thing)).split()), name


def page_text(thing):
    """Return the text of what is shown, with a space for every tag."""
    return re.sub("&#x27;|&quot;|&gt;|&lt;|&amp;", " ", re.sub(r"<[^>]+>", " ", thing._repr_html_()))


def test_layers():
    pooling = layers.HopfieldPooling(3, num_heads=1, quantity=2, random_state=0)
    assert repr(layers.Linear(3, 2, bias=False)) == "Linear(input_size=3, output_size=2, bias=False)"
    assert repr(layers.ReLU()) == "ReLU()"
    assert repr(pooling).startswith("HopfieldPooling(input_size=3, ")
    assert "quantity=2" in repr(pooling)
    assert "random_state" not in repr(pooling)
    assert repr(layers.Sequential(layers.Linear(1, 1), layers.ReLU())).startswith("Sequential(Linear(input_size=1")
    parameters = pooling.parameters()
    fragment = shown(pooling)
    listed = {row[0]: row[1:] for row in fragment.rows if len(row) == 5}
    assert listed.keys() == {"parameter", *parameters}
    for name, p in parameters.items():
        shape = " x ".join(map(str, p.value.shape))
        assert listed[name] == [shape, str(p.value.size), "float32", "yes" if p.trainable else "no"]
    total = sum(p.value.size for p in parameters.values())
    assert ["parameters", f"{total:,} numbers"] in fragment.rows


def test_configuration():
    config = sh.show_config("dict")
    assert isinstance(config, dict)
    assert config == copy.deepcopy(config)
    rows = dict(shown(config).rows)
    assert rows["sparsehopfield"] == sh.__version__
    assert config["simd"]["chosen"] in rows["instruction set"]


def test_tensors():
    torch = pytest.importorskip("torch", reason="memories of tensors are for those who have PyTorch")
    stored = sh.torch.HopfieldMemory(torch.from_numpy(patterns()), 4.0)
    assert shown(stored).rows == shown(sh.HopfieldMemory(patterns(), 4.0)).rows
    _, info = stored.retrieve(torch.from_numpy(patterns()), return_info=True)
    assert dict(shown(info).rows[:2])["queries"] == "60"
    shown(stored.certify(torch.from_numpy(patterns())))
    shown(stored.duplicates(2.0))
