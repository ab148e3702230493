"""The pages: every public name, command and C function, and no link that leads nowhere."""

import html.parser
import importlib
import re
import urllib.parse
from pathlib import Path

import pytest
from fuzz import calls
from served import find_site

from sparsehopfield.studies import STUDIES

ROOT = Path(__file__).parents[2]


class Page(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links += [given[name] for name in ("href", "src") if given.get(name)]


@pytest.fixture(scope="module")
def site():
    return find_site()


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}


def test_no_link_leads_nowhere(pages, site):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            target, _, anchor = link.partition("#")
            target = urllib.parse.unquote(target.partition("?")[0])
            file = (path.parent / target).resolve() if target else path
            known = pages.get(file)
            if not file.exists() or (anchor and known and urllib.parse.unquote(anchor) not in known.anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_every_public_name_is_on_a_page(pages, monkeypatch):
    anchors = set().union(*(page.anchors for page in pages.values()))
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    places = importlib.import_module("api_pages").places()
    modules = {"sparsehopfield" if m == "sparsehopfield" else f"sparsehopfield.{m}" for m in calls.MODULES}
    assert modules <= places.keys()
    missing = {path for where in places.values() for path in where.values()} - anchors
    assert missing == set()
    assert sum(map(len, places.values())) > 300


def test_every_c_function_and_constant_is_on_a_page(pages, site):
    # a constant's anchor has that of its enumeration before it: c.sh_status.SH_OK
    found = pages[site / "docs" / "site" / "c.html"].anchors
    anchors = {anchor.split(".")[-1] for anchor in found if anchor.startswith("c.")}
    for name in ("sparsehopfield.h", "sparsehopfield_layers.h"):
        header = re.sub(r"/\*.*?\*/", "", (ROOT / "csrc" / "include" / name).read_text(encoding="utf-8"), flags=re.S)
        functions = re.findall(r"^SH_API [^;(]*?(\w+)\(", header, re.M)
        types = re.findall(r"^(?:typedef [^;{]*?|\} ?)(\w+);", header, re.M)
        constants = [n for body in re.findall(r"enum \{(.*?)\}", header, re.S) for n in re.findall(r"SH_\w+", body)]
        assert len(functions) > 5
        assert set(functions + types + constants) - anchors == set()


def test_every_command_is_on_a_page(pages, site):
    anchors = pages[site / "docs" / "site" / "command-line.html"].anchors
    assert [name for name in [*STUDIES, "info"] if f"command-{name}" not in anchors] == []
