"""The site in a browser: scripts run, pictures and formulas show, search finds, and pages fit a telephone."""

import re

import pytest
from served import Tab, chromium, find_site, serve

#: A page of each kind.
PAGES = [
    "docs/site/index.html",
    "README.html",
    "docs/guides/memories.html",
    "docs/guides/studies.html",
    "docs/tutorials/first-memory.html",
    "docs/explanation/sparse-hopfield.html",
    "docs/benchmarks.html",
    "docs/reference/glossary.html",
    "docs/site/api/sparsehopfield.html",
    "docs/site/api/names/sparsehopfield.HopfieldMemory.html",
    "docs/site/command-line.html",
    "docs/site/c.html",
    "docs/site/gallery/index.html",
    "docs/site/gallery/plot_radius.html",
    "notebooks/theory.html",
    "CHANGELOG.html",
]
CONTRAST = """() => {
    const luminance = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => {
            v /= 255;
            return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const text = luminance(getComputedStyle(document.querySelector("article")).color);
    const behind = luminance(getComputedStyle(document.body).backgroundColor);
    return [behind, (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05)];
}"""


@pytest.fixture(scope="module")
def site():
    return find_site()


@pytest.fixture(scope="module")
def opened(site):
    """Return a function that opens a tab by width and colour scheme."""
    with serve(site) as address, chromium() as browser:
        yield lambda **options: Tab(browser, address, **options)


@pytest.fixture
def tab(opened):
    """Open tabs; at the end nothing must have gone wrong in any."""
    tabs = []

    def open_one(**options):
        tabs.append(opened(**options))
        return tabs[-1]

    yield open_one
    for one in tabs:
        one.page.close()
    assert [line for one in tabs for line in one.wrong] == []


def test_pages_show_their_pictures_without_an_error(tab, site):
    """Every page but those of single names, of which every twentieth is opened, too."""
    wide = tab()
    paths = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    names = [path for path in paths if "/api/names/" in path]
    paths = [path for path in paths if not re.search(r"/api/names/|^(_|index|genindex|search|py-modindex)", path)]
    assert len(paths) > 80
    for path in paths + names[::20]:
        wide.open(path)
        broken = "Array.from(document.images).filter((i) => i.complete && !i.naturalWidth).map((i) => i.src)"
        assert wide.value(broken) == [], path


def test_the_first_page_leads_to_the_site(tab):
    page = tab().open("index.html")
    page.wait_for_url("**/docs/site/index.html")
    assert page.locator("h1").first.inner_text().startswith("sparsehopfield")


def test_search_finds_a_name(tab):
    page = tab().open("search.html?q=sparsemax")
    found = page.locator("#search-results a", has_text="sparsemax")
    found.first.wait_for()
    targets = found.evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    assert any("sparsehopfield.sparsemax.html" in target for target in targets)
    found.first.click()
    page.wait_for_load_state()
    assert "sparsemax" in page.locator("article").inner_text()


@pytest.mark.parametrize("path", ["notebooks/theory.html", "notebooks/nonparametric.html"])
def test_formulas_are_rendered(tab, path):
    page = tab().open(path)
    page.locator("mjx-container").first.wait_for()
    page.evaluate("MathJax.startup.promise")
    assert page.locator("mjx-container").count() == page.locator(".math").count() > 10
    assert page.locator("mjx-merror").count() == 0


def test_pages_fit_a_telephone(tab):
    narrow = tab(width=380)
    for path in PAGES:
        narrow.open(path)
        assert narrow.value("document.documentElement.scrollWidth") <= 380, path
        size = "parseFloat(getComputedStyle(document.querySelector('article')).fontSize)"
        assert narrow.value(size) >= 14, path


def test_pages_are_dark_or_light_as_asked(tab):
    behind = {}
    for scheme in ("light", "dark"):
        shown = tab(scheme=scheme)
        for path in PAGES[:4]:
            shown.open(path)
            behind[scheme], contrast = shown.value(CONTRAST)
            assert contrast >= 7, (path, scheme)  # WCAG's AAA
    assert behind["light"] > 0.8
    assert behind["dark"] < 0.1


def test_a_reader_may_choose_the_colours(tab):
    shown = tab()
    page = shown.open(PAGES[0])
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert shown.value(CONTRAST)[0] < 0.1


def test_programs_have_a_button_that_copies(tab):
    page = tab().open("docs/guides/memories.html")
    assert page.locator("button.copybtn").count() >= 3
