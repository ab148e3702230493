"""The command line by both of its names, and what shells complete it by."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sparsehopfield as sh
from sparsehopfield.__main__ import MODULE, SCRIPT, SHELLS, main
from sparsehopfield.studies import STUDIES

#: The script lies beside Python where the package, or a tree that says where it is, is installed.
INSTALLED = shutil.which(SCRIPT, path=os.path.dirname(sys.executable))
WAYS = {
    SCRIPT: pytest.param(
        SCRIPT,
        marks=pytest.mark.skipif(
            INSTALLED is None, reason="the package is not installed for this Python, so there is no script"
        ),
    ),
    MODULE: MODULE,
}
ENVIRONMENT = {**os.environ, "COLUMNS": "100"}


def run(way, *arguments):
    """Run the command line in a process of its own."""
    start = [INSTALLED] if way == SCRIPT else [sys.executable, "-m", "sparsehopfield"]
    return subprocess.run([*start, *arguments], capture_output=True, text=True, timeout=120, env=ENVIRONMENT)


def printed(capsys, *arguments):
    """Return what the command line prints in this process."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def completion(capsys):
    """Return the function that prints the completion for a shell."""
    pytest.importorskip("shtab", reason='completion needs shtab: pip install "sparsehopfield[cli]"')
    return lambda shell: printed(capsys, "--print-completion", shell)


@pytest.mark.parametrize("way", WAYS.values())
def test_both_ways_do_the_same_and_name_themselves(way, monkeypatch, capsys):
    done = run(way, "--version")
    assert (done.returncode, done.stdout) == (0, f"sparsehopfield {sh.__version__}\n")
    done = run(way, "nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {way} ")
    # The rest in this process: a start of the command line reads every study.
    monkeypatch.setattr(sys, "argv", [INSTALLED if way == SCRIPT else "__main__.py"])
    assert main(["info"]) == 0
    assert sh.show_config("dict")["platform"] in capsys.readouterr().out
    text = printed(capsys, "--help")
    assert text.startswith(f"usage: {way} [-h]")
    assert f"'{way} COMMAND --help'" in text
    text = printed(capsys, "theory", "--help")
    assert text.startswith(f"usage: {way} theory [-h]")
    assert f"\n  {way} theory --dataset mnist" in text


def test_the_script_is_declared():
    declared = [e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == SCRIPT]
    if not declared and not INSTALLED:
        pytest.skip("the package is not installed for this Python, or was before it had a script")
    assert {e.value for e in declared} == {"sparsehopfield.__main__:main"}


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/usr/bin/sparsehopfield", SCRIPT),
        ("sparsehopfield.exe", SCRIPT),
        ("sparsehopfield-script.py", SCRIPT),
        ("/lib/sparsehopfield/__main__.py", MODULE),
        ("pytest", MODULE),
        ("-c", MODULE),
        ("", MODULE),
    ],
)
def test_the_name_is_that_by_which_it_was_called(called, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [called])
    assert printed(capsys, "--help").startswith(f"usage: {name} [")
    assert f"\n  {name} capacity\n" in printed(capsys, "capacity", "--help")


def test_completion_without_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "error: completion by a shell needs shtab, which is not installed; install it with: "
        'python -m pip install "sparsehopfield[cli]"\n'
    )


@pytest.mark.parametrize("module", ["sklearn", "matplotlib", "tqdm"])
def test_what_a_study_needs_is_asked_for_before_it_begins(module, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["landscape", "--output", str(tmp_path / "new")]) == 1
    assert "sparsehopfield[studies]" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_unknown_shell(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--print-completion", "fish"])
    assert left.value.code == 2
    assert all(shell in capsys.readouterr().err for shell in SHELLS[:1])


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_that_of_the_script(shell, completion):
    text = completion(shell)
    assert "sparsehopfield" in text
    assert "python -m" not in "".join(line for line in text.splitlines() if line.startswith(("complete", "#compdef")))
    for name in (*STUDIES, "info", "families", "restart"):
        assert name in text


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_its_completion(shell, completion, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    script = tmp_path / "completion"
    script.write_text(completion(shell))
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("th", {"theory"}),
        ("info --h", {"--help"}),
        ("--print-completion ", {*SHELLS}),
        ("theory --fam", {"--families"}),
        ("theory --families im", {"images"}),
        ("capacity --dataset cif", {"cifar10"}),
        ("capacity --output fol", {"folder"}),
    ],
)
def test_bash_completes(words, completed, completion, tmp_path):
    if not shutil.which("bash"):
        pytest.skip("there is no bash here")
    (tmp_path / "folder").mkdir()
    (tmp_path / "fol.txt").touch()
    Path(tmp_path, "completion").write_text(completion("bash"))
    said = [SCRIPT, *words.split(" ")]
    code = f"""source ./completion
COMP_WORDS=({" ".join(repr(word) for word in said)}); COMP_CWORD={len(said) - 1}
_shtab_sparsehopfield; printf '%s\\n' "${{COMPREPLY[@]}}\""""
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert {*done.stdout.split()} == completed
