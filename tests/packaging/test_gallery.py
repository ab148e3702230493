"""The gallery: every program runs on what ships, draws by pyplot what sphinx-gallery would show, and is short."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAMS = sorted((ROOT / "docs" / "gallery").glob("*.py"))
pytestmark = pytest.mark.skipif(not PROGRAMS, reason="the gallery is not beside the tests: they run on a wheel")

#: Runs programs as sphinx-gallery does, one after the other, and says what each figure that pyplot has then is made of.
RUN = """
import runpy, sys, traceback
import matplotlib.pyplot as plt
for program in sys.argv[1:]:
    try:
        runpy.run_path(program, run_name="__main__")
        figures = [plt.figure(number) for number in plt.get_fignums()]
        for figure in figures:
            figure.canvas.draw()
        drawn = [axes.has_data() for figure in figures for axes in figure.axes]
        wrong = "" if drawn and all(drawn) else f"axes with data: {drawn}"
    except Exception:
        wrong = traceback.format_exc()
    if wrong:
        print(program, wrong, file=sys.stderr)
    plt.close("all")
print("ran", len(sys.argv) - 1)
"""


def needs_torch(program):
    return re.search(r"(?m)^(import|from) torch\b", program.read_text(encoding="utf-8")) is not None


def run_programs(programs, folder):
    """Run programs in one process, whose imports would take longer than most of them, without data that do not ship."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "SPARSEHOPFIELD_DATA")}
    environment |= {"MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", RUN, *map(str, programs)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"ran {len(programs)}"


def test_programs_run(tmp_path):
    for module in ("sklearn", "matplotlib"):
        pytest.importorskip(module, reason=f"the programs need {module}")
    chosen = [program for program in PROGRAMS if not needs_torch(program)]
    assert len(chosen) >= 15
    run_programs(chosen, tmp_path)


@pytest.mark.slow
def test_programs_for_pytorch_run(tmp_path):
    for module in ("sklearn", "matplotlib", "torch"):
        pytest.importorskip(module, reason=f"the programs need {module}")
    run_programs([program for program in PROGRAMS if needs_torch(program)], tmp_path)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_program_is_in_the_form_of_sphinx_gallery(program):
    text = program.read_text(encoding="utf-8")
    title, line = ast.get_docstring(ast.parse(text)).splitlines()[:2]
    assert line == "=" * len(title)
    assert text.count("\n# %%\n") >= 2
    assert program.name.startswith("plot_")  # which are those that are run
    assert 20 <= len(text.splitlines()) <= 60


def test_the_gallery_has_a_title():
    assert (ROOT / "docs" / "gallery" / "README.txt").read_text(encoding="utf-8").startswith("Gallery\n=======\n")


def test_the_animation_is_small_and_moves():
    image = pytest.importorskip("PIL.Image", reason="Pillow comes with Matplotlib")
    path = ROOT / "docs" / "figures" / "playground.gif"
    assert path.stat().st_size < 400_000
    with image.open(path) as animation:
        assert animation.n_frames >= 10
