"""Releases: workflows and the list of wheels name what is there, and ask for no more than they may."""

import re
import tomllib

import pytest
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="workflows are not beside the tests: they run on a wheel")
workflows = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def read(path):
    """Return what a file in YAML holds."""
    yaml = pytest.importorskip("yaml", reason='workflows are in YAML: pip install "sparsehopfield[test]"')
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def named(text):
    """Return the scripts and lists of .ci that a text names."""
    return set(re.findall(r"(?<!\w)\.ci/[\w-]+(?:\.\w+)?", text))


@workflows
def test_what_a_workflow_names_is_there(path):
    text = path.read_text(encoding="utf-8")
    assert named(text), "it calls no script of the project"
    assert [name for name in named(text) if not (ROOT / name).exists()] == []
    for job in read(path)["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            script = step.get("run", "").split()
            if script and script[0].startswith(".ci/"):
                assert (ROOT / script[0]).stat().st_mode & 0o100, "it is no program"


@workflows
def test_a_workflow_has_no_more_rights_than_it_needs(path):
    made = read(path)
    assert made["permissions"] == {"contents": "read"}
    for job in made["jobs"].values():
        assert {*job.get("permissions", {})} <= {"id-token", "pages"}
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"]), "not pinned by a commit"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            # What others may choose, as the name of a branch, reaches a shell by the environment alone.
            assert "${{" not in step.get("run", "")


def test_only_a_tag_is_published():
    made = read(ROOT / ".github" / "workflows" / "release.yml")
    assert made[True]["push"] == {"tags": ["v*"]}  # YAML takes the word "on" for true
    writers = {name for name, job in made["jobs"].items() if job.get("permissions")}
    assert writers == {"publish"}
    assert made["jobs"]["publish"]["if"] == "github.event_name == 'push'"
    assert made["jobs"]["publish"]["needs"] == "check"
    assert {*made["jobs"]["check"]["needs"]} == {*made["jobs"]} - {"check", "publish"}


def test_pythons_and_machines_that_are_tested_are_those_of_the_package():
    package = project()["project"]
    rows = read(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["tests"]["strategy"]["matrix"]["include"]
    least = package["requires-python"].removeprefix(">=")
    assert {row["python"] for row in rows if row["release"] == "oldest"} == {least}
    assert {(row["os"].partition("-")[0], row["cc"]) for row in rows} >= {
        ("ubuntu", "gcc"),
        ("ubuntu", "clang"),
        ("macos", "clang"),
    }
    wheels = project()["tool"]["cibuildwheel"]
    assert named(wheels["test-command"]) == {".ci/wheel"}
    assert {wheels[f"manylinux-{machine}-image"] for machine in ("x86_64", "aarch64")} == {"manylinux_2_28"}


def test_changelog_and_citation_are_of_the_version():
    version, cited = project()["project"]["version"], read(ROOT / "CITATION.cff")
    entry = re.search(r"(?m)^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert entry.groups() == (cited["version"], str(cited["date-released"]))
    assert cited["version"] == version


def test_the_conda_recipe_agrees_with_the_package():
    package, recipe = project()["project"], read(ROOT / "conda" / "recipe.yaml")
    assert recipe["context"]["version"] == package["version"]
    run = {name.replace(" ", "") for name in recipe["requirements"]["run"]}
    assert run == {*package["dependencies"], f"python{package['requires-python']}"}
    assert recipe["build"]["script"]["env"] == {"SPARSEHOPFIELD_BLAS": "system"}


def test_what_builds_a_release_is_pinned_with_hashes():
    pinned = set()
    for name in ("build", "release", "zig"):
        text = (ROOT / ".ci" / f"{name}-requirements.txt").read_text(encoding="utf-8")
        entries = re.split(r"(?m)^(?=[\w-]+==)", text)[1:]
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
        pinned |= {entry.partition("==")[0] for entry in entries}
    assert {"abi3audit", "auditwheel", "build", "cibuildwheel", "scipy-openblas32", "setuptools", "twine"} <= pinned
