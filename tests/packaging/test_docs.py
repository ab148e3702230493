"""Pages in Markdown: programs run and print what stands below them; links, paths and commands exist."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

from sparsehopfield.studies import STUDIES

PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "csrc/README.md", "tests/fuzz/README.md")
] + sorted(ROOT.glob("docs/**/*.md"))
pytestmark = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="README and docs are not beside the tests: they run on an installed wheel"
)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def programs(page):
    """Return a page's programs, each with the text block right below it, or None."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"(?ms)^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text)


def reads_data(program):
    """Tell whether a program needs data sets that do not come with the package."""
    return "SPARSEHOPFIELD_DATA" in program


def is_for_pytorch(program):
    """Tell whether a program needs PyTorch, which is an extra."""
    return re.search(r"\btorch\b", program) is not None


def is_for_workers(program):
    """Tell whether a program starts processes of other packages: Dask, which is an extra, or joblib."""
    return re.search(r"(?m)^(import|from) (distributed|joblib)\b", program) is not None


def prose(page):
    """Return a page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))


def anchors(page):
    """Return the anchors that the headings of a page have on GitHub."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


TUTORIALS = sorted(ROOT.glob("docs/tutorials/*.md"))
PROGRAMS = [(page, *program) for page in PAGES if page.exists() and page not in TUTORIALS for program in programs(page)]


def run(page, program, printed, capsys, tmp_path, names=None):
    """Run a program, as a file where it starts itself again, and compare what it prints with the block below it."""
    if "__main__" in program:
        (tmp_path / "program.py").write_text(program)
        done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        print(done.stdout, end="")
    else:
        exec(compile(program, str(page), "exec"), {} if names is None else names)
    if printed:
        assert capsys.readouterr().out == printed


def each_of(chosen):
    """Parametrise a test by some of the programs."""
    return pytest.mark.parametrize(
        ("page", "program", "printed"),
        chosen,
        ids=lambda value: str(value.relative_to(ROOT)) if hasattr(value, "relative_to") else "",
    )


@each_of([case for case in PROGRAMS if not any(f(case[1]) for f in (reads_data, is_for_pytorch, is_for_workers))])
def test_programs_print_what_stands_below_them(page, program, printed, capsys, tmp_path):
    run(page, program, printed, capsys, tmp_path)


@each_of([case for case in PROGRAMS if is_for_pytorch(case[1])])
def test_programs_for_pytorch(page, program, printed, capsys, tmp_path):
    for module in ("torch", "entmax", "sklearn"):
        if re.search(rf"(?m)^(import|from) {module}\b", program):
            pytest.importorskip(module, reason=f"the page is for those who have {module}")
    run(page, program, printed, capsys, tmp_path)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.name)
def test_programs_of_tutorials_go_on_from_one_another(page, capsys, tmp_path):
    for module in ("torch", "sklearn"):
        if re.search(rf"(?m)^(import|from) {module}\b", page.read_text(encoding="utf-8")):
            pytest.importorskip(module, reason=f"the tutorial is for those who have {module}")
    names = {}
    assert len(programs(page)) >= 3
    for program, printed in programs(page):
        run(page, program, printed, capsys, tmp_path, names)


@pytest.mark.slow
@pytest.mark.parametrize("shortened", [True, pytest.param(False, marks=pytest.mark.depth)])
@each_of([case for case in PROGRAMS if is_for_workers(case[1])])
def test_programs_for_workers(page, program, printed, shortened, capsys, tmp_path):
    for module in ("distributed", "joblib"):
        if re.search(rf"(?m)^(import|from) {module}\b", program):
            pytest.importorskip(module, reason=f"the page is for those who have {module}")
    if shortened:
        program, printed = program.replace("10_000_000", "100_000"), printed.replace("10000000", "100000")
    run(page, program, printed, capsys, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("shortened", [True, pytest.param(False, marks=pytest.mark.depth)])
def test_programs_on_data(data_folder, monkeypatch, shortened):
    monkeypatch.setenv("SPARSEHOPFIELD_DATA", str(data_folder))
    cases = [case for case in PROGRAMS if reads_data(case[1])]
    assert cases
    for page, program, _ in cases:
        for old, new in (("StratifiedKFold(10", "StratifiedKFold(2"), ("epochs=40", "epochs=2"))[: 1 + shortened]:
            assert old in program
            program = program.replace(old, new)
        exec(compile(program, str(page), "exec"), {})


@pages
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):  # the web's
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pages
def test_named_files_exist(page):
    """Paths in backticks from the project's folder on, so that lists of files follow the files."""
    named = re.findall(r"`((?:benchmarks|csrc|docs|notebooks|sparsehopfield|tests)/[\w./-]+)`", prose(page))
    assert [path for path in named if not path.startswith("csrc/build") and not (ROOT / path).exists()] == []


@pages
def test_named_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    commands = set(re.findall(r"python -m sparsehopfield ([a-z][\w-]*)", text))
    assert commands <= {*STUDIES, "info"}
    scripts = re.findall(r"python ((?:benchmarks|tests)/\w+\.py)", text)
    assert [script for script in scripts if not (ROOT / script).exists()] == []


def test_nothing_is_left_to_fill_in():
    """No page or notebook has a mark like `@@RESULTS@@`, which stands for figures that are to come."""
    texts = {page: page.read_text(encoding="utf-8") for page in [*PAGES, *ROOT.glob("notebooks/*.ipynb")]}
    assert [page.name for page, text in texts.items() if "@@" in text] == []


def test_every_page_is_listed():
    listed = re.findall(r"\]\(([^)\s#]+\.md)\)", prose(ROOT / "docs" / "index.md"))
    missing = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {
        (ROOT / "docs" / path).resolve() for path in listed
    }
    assert missing == {ROOT / "docs" / "index.md"}


def test_every_study_has_its_lines():
    text = (ROOT / "docs" / "guides" / "studies.md").read_text(encoding="utf-8")
    assert [name for name in STUDIES if f"`python -m sparsehopfield {name}`" not in text] == []


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 8192
