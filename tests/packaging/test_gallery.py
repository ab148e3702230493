"""The gallery: every program runs on what ships, draws by pyplot what sphinx-gallery would show, and is short."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAMS = sorted((ROOT / "docs" / "gallery").glob("*.py"))
pytestmark = pytest.mark.skipif(not PROGRAMS, reason="the gallery is not beside the tests: they run on a wheel")

#: Runs a program as sphinx-gallery does, and says what each figure that pyplot has then is made of.
RUN = """
import runpy, sys
import matplotlib.pyplot as plt
runpy.run_path(sys.argv[1], run_name="__main__")
figures = [plt.figure(number) for number in plt.get_fignums()]
for figure in figures:
    figure.canvas.draw()
print([axes.has_data() for figure in figures for axes in figure.axes])
"""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_program_runs(program, tmp_path):
    for module in ("sklearn", "matplotlib"):
        pytest.importorskip(module)
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "SPARSEHOPFIELD_DATA")}
    environment |= {"MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", RUN, str(program)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    drawn = ast.literal_eval(done.stdout.splitlines()[-1])
    assert drawn
    assert all(drawn), "an axes is empty"


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
