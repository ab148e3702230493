"""The command line on terminals whose encodings lack symbols of the reports."""

import io
import os
import subprocess
import sys

import helpers
import pytest

from sparsehopfield.__main__ import PLAIN, main
from sparsehopfield.studies import STUDIES

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

pytestmark = pytest.mark.usefixtures("undrawn")  # what is tested is what is printed

ENVIRONMENTS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, strict": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "cp437": {"PYTHONIOENCODING": "cp437"},
    "koi8-r": {"PYTHONIOENCODING": "koi8-r"},
    "utf-16": {"PYTHONIOENCODING": "utf-16"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}

#: Studies with the symbols in their reports, as small as they come.
COMMANDS = {
    "bits": "--sizes 4 --part size --models sparse dense --runs 2 --epochs 1 --recipe paper --layer pooling".split(),
    "capacity": "--sizes 5 --runs 2".split(),
}


def command(*arguments, **environment):
    """Run the command line in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    return subprocess.run(
        [sys.executable, "-m", "sparsehopfield", *map(os.fspath, arguments)],
        env={**kept, "MPLBACKEND": "Agg", **environment},
        capture_output=True,
        timeout=300,
    )


def on_streams_of(environment, *arguments):
    """Run the command line on streams as they are in an environment; in that of a locale in a process of its own."""
    if "LC_ALL" in environment:
        return command(*arguments, **environment)
    encoding, _, errors = environment["PYTHONIOENCODING"].partition(":")
    return helpers.command(*arguments, encoding=encoding, errors=errors or "strict")


def encoding_of(environment):
    return environment.get("PYTHONIOENCODING", "ascii").partition(":")[0]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Folders with the tables, which later runs only report about, and what is reported in UTF-8."""
    folders = {name: tmp_path_factory.mktemp(name) for name in COMMANDS}
    reports = {}
    for name, options in COMMANDS.items():
        ran = helpers.command(name, *options, "--output", folders[name])
        assert ran.returncode == 0, ran.stderr
        reports[name] = ran.stdout.decode("utf-8")
        assert "±" in reports[name]
    return folders, reports


@pytest.mark.covering(1)
@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_reports(measured, name, environment):
    folders, reports = measured
    ran = on_streams_of(environment, name, *COMMANDS[name], "--output", folders[name])
    assert ran.returncode == 0, ran.stderr
    encoding, expected = encoding_of(environment), reports[name]
    for symbol, plain in PLAIN.items():
        if symbol.encode(encoding, "ignore") == b"":
            expected = expected.replace(symbol, plain)
    assert ran.stdout.decode(encoding).replace("\r\n", "\n") == expected


def test_an_ascii_terminal_from_the_beginning(tmp_path):
    folder = tmp_path / "résultats ±"
    ran = command("bits", *COMMANDS["bits"], "--output", folder, PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert ran.returncode == 0, ran.stderr
    assert b"50.00 +- " in ran.stdout or b" +- " in ran.stdout
    assert rb"r\xe9sultats +-" in ran.stdout
    for file in folder.iterdir():
        if file.suffix != ".png":
            file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "environment",
    # of a locale test_reports has a process of its own
    [pytest.param(e, id=name, marks=pytest.mark.depth if "LC_ALL" in e else ()) for name, e in ENVIRONMENTS.items()],
)
def test_errors(tmp_path, environment):
    if encoding_of(environment) == "utf-16":
        pytest.skip("what argparse and the interpreter say together would have two byte order marks")
    folder = tmp_path / "né±\u2603"
    ran = on_streams_of(environment, "mil", "--data", folder)
    assert ran.returncode == 1
    assert b"error: Tiger of the MIL benchmark was not found" in ran.stderr
    ran = on_streams_of(environment, "capacity", "--sizes", "±\u2603")
    assert ran.returncode == 2
    assert b"argument --sizes: invalid int value" in ran.stderr
    assert b"Traceback" not in ran.stderr


class Narrow(io.TextIOWrapper):
    """A stream as PYTHONIOENCODING=ascii makes it."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="ascii", errors="strict")

    @property
    def text(self):
        self.flush()
        return self.buffer.getvalue().decode("ascii")


@pytest.mark.parametrize("name", [*STUDIES, "info", None])
def test_help(monkeypatch, name):
    monkeypatch.setattr(sys, "stdout", stream := Narrow())
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"] if name else ["--help"])
    assert caught.value.code == 0
    assert "usage: python -m sparsehopfield" in stream.text
    assert stream.errors == "strict"  # as it was before


def test_info(monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream := Narrow())
    assert main(["info"]) == 0
    assert "BLAS" in stream.text


def test_streams_of_other_kinds(monkeypatch):
    for stream in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["info"]) == 0


def test_symbols(monkeypatch):
    text = "".join(PLAIN) + "é☃\U0001f600\udcff"
    for encoding, expected in (
        ("ascii", "".join(PLAIN.values()) + r"\xe9\u2603\U0001f600\udcff"),
        ("latin-1", "±µ-²é" + r"\u2603\U0001f600\udcff"),
        ("utf-8", text[:-1] + r"\udcff"),
    ):
        assert text.encode(encoding, "sparsehopfield.plain").decode(encoding) == expected
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "sparsehopfield.plain")
