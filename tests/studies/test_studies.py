"""The studies: the protocol, the table that resumes, the report, the figures, the command line."""

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import helpers
import numpy as np
import pytest

from sparsehopfield import FileFormatError, reference
from sparsehopfield.data import datasets
from sparsehopfield.inspect import plotting
from sparsehopfield.studies import STUDIES, capacity, figure_1, metastable, robustness
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies.metastable import protocol as metastable_protocol
from sparsehopfield.studies.retrieval import study as retrieval_study
from sparsehopfield.studies.retrieval.protocol import MASKS, MODELS, attempt, compare, draw, half_masked, judge, noisy
from sparsehopfield.studies.retrieval.report import Summary, report_text

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

SMALL = {"sizes": [5, 12], "runs": 2, "progress": False}
SMALL_ARGUMENTS = ["--sizes", "5", "12", "--runs", "2"]


@pytest.fixture(autouse=True)
def save(monkeypatch):
    """Figures take longer than tables, so they are only drawn where they are what is tested."""
    original = plotting.save
    monkeypatch.setattr(plotting, "save", lambda figure, path: [])
    return original


@pytest.fixture
def drawn(monkeypatch, save):
    """Here they are drawn."""
    monkeypatch.setattr(plotting, "save", save)


# The protocol


@pytest.mark.parametrize("shape", [(4, 6), (5, 3), (3, 4, 6)])
@pytest.mark.parametrize("side", MASKS)
def test_half_masked(shape, side):
    images = np.ones((2, int(np.prod(shape))), np.float32)
    masked = half_masked(images, shape, side).reshape(2, *shape)
    axis = -2 if side in ("upper", "lower") else -1
    half = shape[axis] // 2
    lines = np.moveaxis(masked, axis, 0).reshape(shape[axis], -1)
    gone = slice(0, half) if side in ("upper", "left") else slice(shape[axis] - half, None)
    assert not lines[gone].any()
    assert lines.sum() == lines.size - half * lines.shape[1]
    assert images.all()


def test_noise_is_as_in_the_paper():
    images = np.random.default_rng(1).random((3, 20), np.float32)
    noise = np.random.default_rng(2).standard_normal((3, 20), np.float32)
    for sigma in (0.0, 0.3, 2.0):
        expected = np.clip(np.abs(images + np.float32(sigma) * noise), 0, 1)
        np.testing.assert_array_equal(noisy(images, (4, 5), sigma, np.random.default_rng(2)), expected)
    np.testing.assert_array_equal(noisy(images, (4, 5), 0.0, np.random.default_rng(2)), images)


def test_draw():
    images = datasets.ImageSet("rows", np.arange(30, dtype=np.float32)[:, None] / 30, (1, 1), "")
    patterns, asked, _ = draw(images, 30, 7, seed=3)
    np.testing.assert_array_equal(np.sort(patterns.ravel()), images.images.ravel())  # without replacement
    assert len(set(asked)) == 7
    again, asked_again, _ = draw(images, 30, 12, seed=3)
    np.testing.assert_array_equal(again, patterns)
    np.testing.assert_array_equal(asked_again[:7], asked)


def test_judge():
    targets = np.array([[1, 0], [1, 0], [1, 0], [0, 0.5]], np.float32)
    states = np.array([[1, 0], [1, 1], [0, 0], [0, 0.5 + 1e-4]], np.float32)
    verdict = judge(states, targets, threshold=0.1)
    assert verdict["retrieved"] == 0.5
    assert verdict["exact"] == 0.25
    assert verdict["cosine"] == pytest.approx((1 + 0.5**0.5 + 0 + 1) / 4)


@pytest.mark.parametrize("model", MODELS)
def test_attempt(model):
    patterns = np.eye(4, dtype=np.float32)
    states, info = attempt(patterns[:3] * 20, patterns, model=model)
    if model == "mean":
        np.testing.assert_array_equal(states, np.full((3, 4), 0.25))
    else:
        np.testing.assert_allclose(states, patterns[:3], atol=1e-6)
    assert info.support_size.shape == info.steps.shape == (3,)
    settled, info = attempt(patterns * 20, patterns, model=model, steps=0)
    assert info.converged.all()
    assert settled.shape == (4, 4)


def closed_forms(queries, patterns):
    """Compute what the released code does, as it reads but in float64, and the same with its factor in all models."""
    scores = queries @ patterns.T
    scores = scores / scores.sum(axis=1, keepdims=True)
    scores = scores / scores.sum(axis=1, keepdims=True)

    def sparsemax(z):
        ordered = -np.sort(-z, axis=1)
        sums, k = np.cumsum(ordered, axis=1), np.arange(1, z.shape[1] + 1)
        kept = np.sum(ordered - (sums - 1) / k > 0, axis=1, keepdims=True)
        return np.maximum(z - (np.take_along_axis(sums, kept - 1, axis=1) - 1) / kept, 0)

    exponentials, powers = np.exp(1000 * (scores - scores.max(axis=1, keepdims=True))), scores**10
    dense, polynomial = (weights / weights.sum(axis=1, keepdims=True) for weights in (exponentials, powers))
    released = {"sparse": sparsemax(scores), "dense": dense, "polynomial": polynomial}
    both = {"released": released, "fair": {**released, "sparse": sparsemax(1000 * scores)}}
    return scores, {key: {model: p @ patterns for model, p in weights.items()} for key, weights in both.items()}


def test_protocols_compute_what_their_formulas_say():
    digits = datasets.load_digits()
    patterns, asked, rng = draw(digits, 60, 25, 0, protocol="released", run=2)
    np.testing.assert_array_equal(patterns, digits.pixels(slice(120, 180)))
    np.testing.assert_array_equal(asked, np.arange(25))
    queries = noisy(patterns[asked], digits.shape, 0.4, rng)
    scores, expected = closed_forms(queries.astype(float), patterns.astype(float))
    for protocol, models in expected.items():
        for model, states in models.items():
            found, info = attempt(queries, patterns, model=model, protocol=protocol)
            assert np.abs(found - states).max() < 1e-13, (protocol, model)
            if model == "sparse":
                assert (info.support_size.mean() == 60) == (protocol == "released")
    found, _ = attempt(queries, patterns, model="sparse", protocol="released")
    assert np.abs(found - scores @ patterns).max() < 1e-15  # no sparse answer, but the mean weighted by the scores
    for model, separation in (("sparse", "sparsemax"), ("dense", "softmax")):
        found, _ = attempt(queries, patterns, model=model, protocol="printed", beta=0.5)
        np.testing.assert_allclose(found, reference.update(queries, patterns, 0.5, separation=separation), atol=1e-5)


def test_without_a_common_pixel_nothing_is_retrieved():
    patterns = np.eye(4, dtype=np.float32)[:3]
    for model in ("sparse", "dense", "polynomial"):
        states, _ = attempt(np.eye(4, dtype=np.float32)[2:], patterns, model=model, protocol="released")
        assert judge(states, patterns[[2, 0]], 0.5)["retrieved"] == 0.5
        assert not states[1].any()


def test_protocols_side_by_side(tmp_path):
    """Neither the printed rows nor their draws depend on what stands beside them."""
    options = {"sizes": 12, "runs": 2, "models": ["sparse", "mean"], "progress": False}
    alone = capacity.run(tmp_path / "alone", **options)
    beside = capacity.run(tmp_path / "beside", protocol=["printed", "released", "fair"], **options)
    assert beside.rows[: len(alone.rows)] == alone.rows
    assert {(row["protocol"], row["threshold"]) for row in beside.rows} == {
        *(("printed", 0.1), ("released", 0.2), ("fair", 0.2))
    }
    for text in ("below 0.1 (printed), 0.2 (released), 0.2 (fair)", "Share retrieved, released protocol\n"):
        assert text in beside.report
    one = capacity.run(tmp_path / "one", protocol="released", **{**options, "runs": None})
    first = [row for row in beside.rows if row["protocol"] == "released" and row["run"] == 0]
    assert one.rows == first


def test_figure_1(tmp_path, monkeypatch):
    options = {"datasets": "digits", "sizes": [5, 9], "patterns": 9, "noise": [0, 0.5], "progress": False}
    asked = []
    monkeypatch.setattr(retrieval_study, "attempt", lambda *a, **k: asked.append(k["model"]) or attempt(*a, **k))
    outcome = figure_1.run(tmp_path, runs=2, **options)
    assert len(asked) == 3 * 2 * 4 * len(figure_1.MODELS)  # protocols, runs, settings: once for both thresholds
    assert outcome.rows == figure_1.read(tmp_path)
    (row,) = (
        row
        for row in outcome.rows
        if (row["protocol"], row["noise"], row["model"], row["threshold"]) == ("fair", 0.5, "sparse", 0.1)
    )
    part = robustness.run(
        tmp_path / "one", sizes=9, noise=0.5, runs=2, protocol="fair", threshold=0.1, models="sparse", progress=False
    )
    for metric in ("retrieved", "cosine"):
        values = [row["value"] for row in part.rows if row["metric"] == metric]
        assert row[metric] == pytest.approx(np.mean(values), abs=1e-4)
    _check_leads(outcome.rows)
    for taken in (figure_1.run, capacity.run):  # another study's folder, or one of other settings
        with pytest.raises(ValueError, match="choose another --output"):
            taken(tmp_path, sizes=5, progress=False)
    assert figure_1.read(tmp_path) == outcome.rows
    monkeypatch.setattr(retrieval_study, "attempt", None)  # from here on nothing is measured
    with pytest.raises(ValueError, match="without effect of datasets, noise:"):
        figure_1.run(tmp_path, redraw=True, datasets="digits", noise=0.5, data=tmp_path, progress=False)
    again = figure_1.run(tmp_path, redraw=True)
    assert (again.rows, again.report) == (outcome.rows, outcome.report)
    drawn = figure_1.figure(again.rows, papers_thresholds=True)
    assert [axis.get_title() for axis in drawn.axes[:3]] == [
        f"{name}, cosine error < 0.1" for name in ("printed", "released", "fair")
    ]
    assert len(drawn.axes) == 6
    assert drawn.axes[3].get_ylabel() == "digits, noise, M = 9\nshare retrieved"
    line = next(line for line in drawn.axes[5].lines if line.get_label() == "sparse")
    assert line.get_ydata()[1] == row["retrieved"]
    table = tmp_path / "table.csv"
    content = table.read_text()
    for change in (("retrieved", "found"), ("released", "other"), (",2,", ",two,"), (content.splitlines()[-1], "")):
        table.write_text(content.replace(*change, 1))
        with pytest.raises(FileFormatError, match="damaged"):
            figure_1.run(tmp_path, redraw=True)
        table.write_text(content)


def _check_leads(rows):
    """Compare the errors and the counts of a table of 9 patterns and 2 runs with what the queries themselves say."""
    images, threshold, lead = datasets.load_digits(), 0.1, []
    row = next(row for row in rows if (row["protocol"], row["noise"], row["model"]) == ("printed", 0.5, "dense"))
    for run in range(2):
        patterns, queried, rng = draw(images, 9, 100, derive_seed(0, 9, run))
        queries = noisy(patterns[queried], images.shape, 0.5, rng)
        found = [
            1 - compare(attempt(queries, patterns, model=model)[0], patterns[queried])[0] < threshold
            for model in ("sparse", "dense")
        ]
        lead.append(found[0].astype(float) - found[1])
    lead = np.array(lead)
    assert lead.any()
    expected = max(lead.std() / 18**0.5, lead.mean(axis=1).std(ddof=1) / 2**0.5)
    assert row["error"] == pytest.approx(expected, abs=1e-4)
    for other in ("dense", "mean"):
        for protocol, whose, numbers in figure_1.counts(rows, other):
            limit = 0.1 if whose == "the paper's" else 0.2
            chosen = [row for row in rows if (row["protocol"], row["threshold"]) == (protocol, limit)]
            sparse, against = ([row for row in chosen if row["model"] == model] for model in ("sparse", other))
            verdicts = {"capacity": [], "robustness": []}
            for first, second in zip(sparse, against, strict=True):
                lead = first["retrieved"] - second["retrieved"]
                verdict = 0 if abs(lead) <= 2 * second["error"] else 1 if lead > 0 else -1
                verdicts["capacity" if first["noise"] is None else "robustness"].append(verdict)
            for study, found in verdicts.items():
                assert numbers[study] == tuple(found.count(verdict) for verdict in (1, 0, -1))


def test_pages_count_what_the_kept_table_of_figure_1_has():
    root = Path(__file__).resolve().parents[2]
    rows = figure_1.read(root / "notebooks" / "results" / "figure-1")
    for page in ("guides/studies.md", "explanation/papers.md"):
        text = (root / "docs" / page).read_text(encoding="utf-8")
        for protocol, whose, numbers in figure_1.counts(rows):
            cells = map(str, (*numbers["capacity"], *numbers["robustness"]))
            assert f"| {protocol} | {whose} | {' | '.join(cells)} |\n" in text


# The table


def test_rows(tmp_path):
    outcome = capacity.run(tmp_path, **SMALL)
    with open(outcome.table, encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert table == [{name: str(value) for name, value in row.items()} for row in outcome.rows]
    combinations = 2 * 2 * (4 + 3)  # sizes, runs; models by dot and, without the polynomial, by euclidean
    assert len(table) == combinations * len(retrieval_study.METRICS)
    assert {row["metric"] for row in table} == {*retrieval_study.METRICS}
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["settings"]["study"] == "capacity"
    assert "version" in settings["config"]
    assert all(0 <= row["value"] <= 1 for row in outcome.rows if row["metric"] in ("retrieved", "exact"))


def test_a_row_can_be_measured_again_from_its_seed(tmp_path):
    rows = robustness.run(tmp_path, sizes=9, noise=0.4, runs=2, progress=False).rows
    row = next(r for r in rows if r["run"] == 1 and r["model"] == "dense" and r["metric"] == "cosine")
    digits = datasets.load_digits()
    patterns, asked, rng = draw(digits, row["size"], 1000, row["seed"])
    queries = noisy(patterns[asked], digits.shape, row["noise"], rng)
    states, _ = attempt(queries, patterns, model="dense", similarity=row["similarity"], beta=row["beta"])
    assert judge(states, patterns[asked], 0.1)["cosine"] == pytest.approx(row["value"], abs=1e-6)


def test_draws_depend_on_nothing_but_seed_size_and_run(tmp_path):
    def values(name, **changes):
        rows = capacity.run(tmp_path / name, **{**SMALL, **changes}).rows
        return {tuple(v for k, v in row.items() if k != "value"): row["value"] for row in rows}

    base = values("base")
    turned = values("turned", sizes=[12, 5], models=["dense", "sparse"], similarity=["euclidean", "dot"])
    assert turned
    assert all(base[key] == value for key, value in turned.items())
    assert not base.keys() & values("other", seed=1).keys()


def test_one_value_stands_for_a_sequence(tmp_path):
    one = capacity.run(tmp_path / "one", sizes=5, runs=1, beta=1, models="sparse", similarity="dot", progress=False)
    more = capacity.run(
        tmp_path / "more",
        sizes=[np.int64(5), 5],
        runs=1,
        beta=[1.0, 1],
        models=["sparse"],
        similarity=["dot"],
        progress=False,
    )
    assert one.table.read_bytes() == more.table.read_bytes()
    assert (
        capacity.run(
            tmp_path / "one",
            sizes=[5.0],
            runs=1,
            beta=[np.float32(1)],
            models=["sparse"],
            similarity="dot",
            progress=False,
        ).rows
        == more.rows
    )


def once(run, options, folder):
    """Return the outcome of a study, without figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "save", lambda figure, path: [])
        return run(folder, **options)


def copied(outcome, folder):
    """Return an outcome in a folder of its own, where a test may do as it likes."""
    shutil.copytree(outcome.table.parent, folder)
    return dataclasses.replace(outcome, table=folder / outcome.table.name)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return once(capacity.run, SMALL, tmp_path_factory.mktemp("capacity"))


@pytest.fixture
def whole(small, tmp_path):
    return copied(small, tmp_path / "whole")


@pytest.mark.parametrize("count", [0, 1, 13, 27])
def test_interrupted_and_continued(tmp_path, whole, monkeypatch, count):
    measured = []

    def interrupted(*arguments, **options):
        if len(measured) == count:
            raise KeyboardInterrupt
        measured.append(1)
        return attempt(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(retrieval_study, "attempt", interrupted)
        with pytest.raises(KeyboardInterrupt):
            capacity.run(tmp_path / "cut", **SMALL)
    table = tmp_path / "cut" / "table.csv"
    assert len(table.read_text().splitlines()) == 1 + count * len(retrieval_study.METRICS)
    measured.clear()
    count = -1  # from now on every setting is measured, and counted
    with monkeypatch.context() as patch:
        patch.setattr(retrieval_study, "attempt", interrupted)
        continued = capacity.run(tmp_path / "cut", **SMALL)
    assert table.read_bytes() == whole.table.read_bytes()
    assert continued.rows == whole.rows
    assert continued.report == whole.report


def test_nothing_is_measured_twice(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(retrieval_study, "attempt", None)  # calling it would fail
    assert capacity.run(whole.table.parent, **SMALL).rows == whole.rows


@pytest.mark.slow
def test_table_cut_off_anywhere(whole):
    content = whole.table.read_bytes()
    ends = [
        0,
        3,
        content.index(b"\n"),
        content.index(b"\n") + 1,
        len(content) - 1,
        *np.random.default_rng(0).integers(0, len(content), 3),
    ]
    for end in ends:
        whole.table.write_bytes(content[:end])
        assert capacity.run(whole.table.parent, **SMALL).rows == whole.rows
        assert whole.table.read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [lines[0], *lines[2:]], "line 2: damaged"),  # a row is missing
        (lambda lines: [*lines[:9], lines[9].replace(b"exact,", b"exact,x"), *lines[10:]], "line 10: damaged"),
        (lambda lines: [*lines[:4], b"nonsense\n", *lines[5:]], "line 5: damaged"),
        (lambda lines: [*lines[:7], lines[6], *lines[7:]], "line 8: damaged"),  # a row is there twice
        (lambda lines: [b"other,columns\n", *lines[1:]], "columns"),
    ],
)
def test_damaged_table(whole, damage, message):
    lines = whole.table.read_bytes().splitlines(keepends=True)
    whole.table.write_bytes(b"".join(damage(lines)))
    before = whole.table.read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        capacity.run(whole.table.parent, **SMALL)
    assert "--restart" in str(caught.value)
    assert whole.table.read_bytes() == before
    assert capacity.run(whole.table.parent, **SMALL, restart=True).rows == whole.rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: there 0, now 1"),
        ({"beta": [1, 2]}, r"beta: there \[1.0\], now \[1.0, 2.0\]"),
        ({"mask": "upper"}, r"mask: there \['lower'\], now \['upper'\]"),
        ({"threshold": 0.2}, "threshold"),
    ],
)
def test_other_settings_are_not_mixed(whole, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        capacity.run(whole.table.parent, **{**SMALL, **change})
    assert "--output" in str(caught.value)
    assert "--restart" in str(caught.value)
    again = capacity.run(whole.table.parent, **{**SMALL, **change}, restart=True)
    assert again.table.read_bytes() != whole.rows
    assert len(again.table.read_text().splitlines()) == 1 + len(again.rows)


def test_another_study_is_not_mixed(whole):
    with pytest.raises(ValueError, match="study: there capacity, now robustness"):
        robustness.run(whole.table.parent, sizes=5, runs=1, progress=False)


def test_table_without_its_settings(whole):
    (whole.table.parent / "settings.json").unlink()
    with pytest.raises(ValueError, match="without its settings"):
        capacity.run(whole.table.parent, **SMALL)
    (whole.table.parent / "settings.json").write_text("{")
    with pytest.raises(ValueError, match="damaged settings"):
        capacity.run(whole.table.parent, **SMALL)


TWO = [{"x": 1, "name": "é"}, {"x": 2, "name": "b"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.replace("é".encode(), b"\xff"), "line 2: damaged .*utf-8"),
        (lambda content: content.replace(b"2,b", b"2\xc3,b"), "line 3: damaged .*utf-8"),
        (lambda content: content.replace(b"2,b", b"2\0,b"), "line 3: damaged"),
        (lambda content: content.replace(b"x,name", b"x\0,name"), "line 1: damaged .its columns are"),
        (lambda content: content.replace(b"x,name", b"x"), "line 1: damaged .its columns are"),
        (lambda content: content.replace(b"2,b", b"2\r,b"), "line 3: damaged"),
        (lambda content: b"\xef\xbb\xbf" + content, "line 1: damaged .its columns are"),
        (lambda content: b"\n" + content, "line 1: damaged .its columns are"),
        (lambda content: content.replace(b"2,b,m,", b"2,b,m,x"), "line 3: damaged"),
        (lambda content: content.replace(b"2,b,m,", b"2,b,"), "line 3: damaged"),
        (lambda content: content.decode().encode("utf-16"), "line 1: damaged"),
        (lambda content: content.replace(b"2,b", b'2,"' + b"b" * 200000), "line 3: damaged .*field larger than"),
    ],
)
def test_damaged_bytes_of_a_table(tmp_path, change, message):
    def run(measure, **options):
        return tables.run_table(tmp_path, "any", {}, TWO, ["m"], measure, progress=False, **options)

    rows = run(lambda setting: {"m": setting["x"] / 3})
    table = tmp_path / "table.csv"
    table.write_bytes(change(table.read_bytes()))
    before = table.read_bytes()
    with pytest.raises(FileFormatError, match=message) as caught:
        run(None)
    assert str(caught.value).startswith(str(table))
    assert "--restart" in str(caught.value)
    assert len(str(caught.value)) <= 1000
    assert table.read_bytes() == before
    assert run(lambda setting: {"m": setting["x"] / 3}, restart=True) == rows


@pytest.mark.parametrize("end", [0, 1, 5, 20, 22])
def test_tables_that_are_cut(tmp_path, end):
    measure = lambda setting: {"m": setting["x"] / 3, "seconds": 1.0}  # noqa: E731
    rows = tables.run_table(tmp_path, "any", {}, TWO, ["m"], measure, progress=False)
    table = tmp_path / "table.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:end])
    settings = tmp_path / "settings.json"  # another version began it: that is no reason to begin again
    began = json.loads(settings.read_text())
    began["config"]["version"] = "0.1.0"
    settings.write_text(json.dumps(began))
    assert tables.run_table(tmp_path, "any", {}, TWO, ["m"], measure, progress=False) == rows
    assert table.read_bytes() == whole
    assert json.loads(settings.read_text()) == began


@pytest.mark.parametrize(
    "content", [b"\xff,\xfe\n", b"a\0\nx,b,1,\xe9\n", b"x,name,threads,seconds\n1,b\n", b"x\n1,b,1,soon\n"]
)
def test_damaged_times(tmp_path, content):
    (tmp_path / "times.csv").write_bytes(content)
    for call in (
        lambda: tables.run_table(tmp_path, "any", {}, TWO, ["m"], None, progress=False),
        lambda: tables.times(tmp_path, TWO),
    ):
        with pytest.raises(FileFormatError, match=r"times\.csv, line [12]: damaged .*delete it"):
            call()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"\0" * 9, b"[" * 100000),
        *(b'{"settings": []}', b'{"settings": {}}', b'{"settings": "study"}', b'{"settings": {"study": "\xff"}}'),
    ],
)
def test_damaged_settings(tmp_path, content):
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"settings\.json: damaged settings file .*--restart") as caught:
        tables.run_table(tmp_path, "any", {}, TWO, ["m"], None, progress=False)
    assert len(str(caught.value)) <= 1000


def test_run_table_alone(tmp_path):
    settings = [{"x": 1, "name": 'a, "quoted"'}, {"x": 2.5, "name": "b"}]
    rows = tables.run_table(tmp_path, "any", {}, settings, ["m"], lambda s: {"m": s["x"] / 3}, progress=False)
    assert rows == [{**s, "metric": "m", "value": s["x"] / 3} for s in settings]
    assert tables.run_table(tmp_path, "any", {}, settings, ["m"], None, progress=False) == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [1798]}, "1798 patterns are more than the 1797"),
        ({"sizes": [0]}, "sizes"),
        ({"sizes": []}, "sizes"),
        ({"runs": 0}, "runs"),
        ({"queries": 0}, "queries"),
        ({"steps": -1}, "steps"),
        ({"seed": -1}, "seed"),
        ({"beta": [0]}, "beta"),
        ({"beta": [float("nan")]}, "beta"),
        ({"threshold": 0}, "threshold"),
        ({"models": ["spares"]}, "unknown name 'spares'; valid: sparse"),
        ({"similarity": ["l2"]}, "similarity"),
        ({"mask": "top"}, "mask"),
        ({"dataset": "mnits"}, "dataset"),
        ({"models": "polynomial", "similarity": "euclidean"}, "polynomial"),
        ({"protocol": "paper"}, "protocol: unknown name 'paper'; valid: printed, released, fair"),
        ({"protocol": "released", "beta": 2}, "beta: must be 1"),
        ({"protocol": ["printed", "fair"], "steps": 0}, "steps: must be 1 in the fair protocol"),
        ({"protocol": "fair", "similarity": "cosine"}, "similarity: the fair protocol"),
        ({"protocol": "released", "models": ["sparse", "entmax15"]}, "models: the released protocol has no 'entmax15'"),
        ({"protocol": "released", "sizes": 900}, "runs: 2 runs of 900 images in order are more than the 1797"),
    ],
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        capacity.run(tmp_path, **{**SMALL, **change})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("noise", [[], [-0.1], [float("inf")], [float("nan")]])
def test_bad_noise(tmp_path, noise):
    with pytest.raises(ValueError, match="noise"):
        robustness.run(tmp_path, noise=noise)


def test_times_are_kept_beside_the_table(tmp_path):
    settings = [{"x": x} for x in (1, 2)]

    def run(options, measure, **more):
        tables.run_table(tmp_path, "any", options, settings, ["m"], measure, progress=False, **more)
        return tables.times(tmp_path, settings)

    assert run({}, lambda s: {"m": 0, "seconds": s["x"] / 4}) == [0.25, 0.5]
    table, kept = tmp_path / "table.csv", tmp_path / "times.csv"
    assert "seconds" not in table.read_text()
    assert kept.read_text().startswith("x,threads,seconds\n1,")
    table.write_text("\n".join(table.read_text().splitlines()[:2]) + "\n")
    assert run({}, lambda s: {"m": 0, "seconds": 7}) == [0.25, 7]  # measured again, timed again
    kept.unlink()
    assert np.isnan(run({}, None)).all()
    kept.write_text("x,threads,seconds\n1,2,soon\n")
    with pytest.raises(ValueError, match="delete it"):
        run({}, None)
    assert np.isnan(run({"other": 1}, lambda s: {"m": 0}, restart=True)).all()
    assert not kept.exists()


# Metastable states

FEW = {"sizes": [40, 90], "queries": 30, "separation": ["softmax", "entmax:1.25", "sparsemax"], "progress": False}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return once(metastable.run, FEW, tmp_path_factory.mktemp("metastable"))


@pytest.fixture
def mixed(few, tmp_path):
    return copied(few, tmp_path / "mixed")


def without_times(report):
    return report.partition("Time taken")[0]


def by_definition(setting, shape=(8, 8)):
    """The weights of the last association of a setting of the digits, in float64."""
    _, size, pixels, similarity, mask, beta, name, steps, seed = setting
    digits = datasets.load_digits()
    order = np.random.default_rng(seed).permutation(len(digits))
    patterns, states = digits.pixels(np.sort(order[:size])), digits.pixels(order[size : size + 20])
    if pixels == "signed":
        patterns, states = 2 * patterns - 1, 2 * states - 1
    if mask != "none":
        states = half_masked(states, shape, mask)
    model = {"similarity": similarity, "separation": metastable_protocol.separation_named(name)}
    for _ in range(steps - 1):
        states = reference.update(states, patterns, beta, **model)
    return reference.associate(states, patterns, beta, **model)


def grouped(rows):
    """The metrics by setting."""
    values = {}
    for row in rows:
        *setting, metric, value = row.values()
        values.setdefault(tuple(setting), {})[metric] = value
    return values


@pytest.mark.slow
@pytest.mark.covering(1)
@pytest.mark.parametrize("pixels", ["signed", "unit"])
@pytest.mark.parametrize("name", ["softmax", "entmax:1.25", "entmax15", "sparsemax", "entmax:3"])
def test_metastable_against_the_reference(tmp_path, name, pixels):
    outcome = metastable.run(
        tmp_path,
        sizes=60,
        queries=20,
        separation=name,
        similarity=["dot", "euclidean", "cosine"],
        pixels=pixels,
        mask=["none", "left"],
        beta=[0.5, 2],
        steps=1,  # more steps round differently, and may change a count
        seed=3,
        progress=False,
    )
    settings = grouped(outcome.rows)
    assert len(settings) == 3 * 2 * 2
    for setting, values in settings.items():
        assert tuple(values) == metastable_protocol.METRICS
        weights = by_definition(setting)
        for count, sizes in (("support", np.sum(weights > 0, axis=1)), ("heavy", np.sum(weights > 0.01, axis=1))):
            if name == "softmax" and count == "support":
                sizes = np.full(20, 60)  # all in exact terms, also where a weight is below the smallest float
            assert values[f"{count} mean"] == pytest.approx(np.mean(sizes))
            assert values[f"{count} median"] == np.median(sizes)
            assert values[f"{count} max"] == np.max(sizes)
            for size in range(11):
                assert values[f"{count} {size}"] == pytest.approx(np.mean(sizes == size))
            assert values[f"{count} 11-30"] == pytest.approx(np.mean((sizes > 10) & (sizes <= 30)))
            assert values[f"{count} 31-100"] == pytest.approx(np.mean(sizes > 30))
        effective = 1 / np.sum(weights**2, axis=1)
        for statistic, of in (("mean", np.mean), ("median", np.median), ("max", np.max)):
            assert values[f"effective {statistic}"] == pytest.approx(of(effective), rel=1e-3)
        assert values["largest"] == pytest.approx(np.mean(weights.max(axis=1)), rel=1e-5)
        assert values["leaders"] == len(np.unique(weights.argmax(axis=1)))
        assert values["updates"] == 1


def test_metastable_after_steps(tmp_path):
    options = {"sizes": 60, "queries": 20, "beta": 0.5, "separation": ["softmax", "sparsemax"], "progress": False}
    for setting, values in grouped(metastable.run(tmp_path / "five", **options).rows).items():
        weights = by_definition(setting)
        assert values["effective mean"] == pytest.approx(np.mean(1 / np.sum(weights**2, axis=1)), rel=1e-3)
        assert values["updates"] <= 5
    for setting, values in grouped(metastable.run(tmp_path / "rest", **options, steps=0).rows).items():
        assert values["settled"] == 1
        weights = by_definition((*setting[:-2], 300, setting[-1]))
        assert values["effective mean"] == pytest.approx(np.mean(1 / np.sum(weights**2, axis=1)), rel=1e-3)


def test_bins():
    assert metastable_protocol.bin_names((0, 1, 2, 5, 10)) == ("0", "1", "2", "3-5", "6-10", "11 or more")


def test_counted_in_parts():
    support = np.array([3, 5, 2, 9, 1, 1])
    for most in (1, 4, 10, 100):
        parts = list(metastable_protocol._slices(support, most))
        np.testing.assert_array_equal(np.concatenate([support[part] for part in parts]), support)
        assert all(len(support[part]) == 1 or support[part].sum() <= most + 9 for part in parts)
    assert list(metastable_protocol._slices(support, 100)) == [slice(0, 6)]


def test_queries_are_never_stored():
    digits = datasets.load_digits()
    drawn = metastable_protocol.Drawn(digits, None, 1700, 10_000, seed=0)
    assert len(drawn) == 97
    stored, asked = drawn._order[:1700], drawn._query_positions
    assert not np.intersect1d(stored, asked).size
    few = metastable_protocol.Drawn(digits, None, 1700, 5, seed=0)
    np.testing.assert_array_equal(few.queries("unit", "none"), drawn.queries("unit", "none")[:5])
    np.testing.assert_array_equal(drawn.patterns(1700, "signed"), 2 * drawn.patterns(1700, "unit") - 1)
    tests = metastable_protocol.Drawn(digits, digits, 1797, 10_000, seed=0)
    np.testing.assert_array_equal(tests.patterns(1797, "unit"), digits.images)
    assert len(tests) == 1797


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, *(pytest.param(count, marks=pytest.mark.depth) for count in (0, 1))])
def test_metastable_interrupted_and_continued(tmp_path, mixed, monkeypatch, count):
    measured = []

    def interrupted(*arguments):
        if len(measured) == count:
            raise KeyboardInterrupt
        measured.append(1)
        return metastable_protocol.rest(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(metastable, "rest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            metastable.run(tmp_path / "cut", **FEW)
    times = (tmp_path / "cut" / "times.csv").read_text() if count else ""
    continued = metastable.run(tmp_path / "cut", **FEW)
    assert continued.rows == mixed.rows
    assert continued.table.read_bytes() == mixed.table.read_bytes()
    assert without_times(continued.report) == without_times(mixed.report)
    assert (tmp_path / "cut" / "times.csv").read_text().startswith(times)
    assert metastable.run(tmp_path / "cut", **FEW).report == continued.report


@pytest.mark.slow
def test_metastable_report_and_figure(tmp_path, save, monkeypatch):
    monkeypatch.setattr(plotting, "save", save)
    outcome = metastable.run(tmp_path, **FEW)
    for text in ("5 steps", "softmax*", "M = 40, whole queries", "M = 90, lower half masked", "What came out"):
        assert text in outcome.report
    words = " ".join(outcome.report.split())
    assert "softmax: all 40 patterns have weight in every state" in words
    png, svg = outcome.figures
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in svg.read_text()
    (tmp_path / "times.csv").unlink()
    monkeypatch.setattr(plotting, "save", helpers.undrawn)
    assert "not known" in metastable.run(tmp_path, **FEW).report


def test_metastable_report_is_honest():
    def made_up(shares):
        return [
            {
                "dataset": "digits",
                "size": 9,
                "pixels": "signed",
                "similarity": "dot",
                "mask": "none",
                "beta": 1.0,
                "separation": name,
                "steps": 5,
                "seed": 0,
                "metric": metric,
                "value": share if metric in ("support 1", "settled") else 0.0,
            }
            for name, share in shares.items()
            for metric in metastable_protocol.METRICS
        ]

    def words(shares):
        rows = made_up(shares)
        return " ".join(report_text(Summary(rows, [1.0] * len(shares), "nine images", 4)).split())

    from sparsehopfield.studies.metastable.report import Summary, report_text

    grows = words({"sparsemax": 0.75, "entmax15": 0.5})
    assert "75.0% of the queries rest on a single pattern with sparsemax, 50.0% with entmax15" in grows
    assert "as alpha grows, that never falls" in grows
    assert "at most 50.0% of them, with entmax15" in grows
    falls = words({"sparsemax": 0.5, "entmax15": 1.0})
    assert "as alpha grows, that falls from entmax15 to sparsemax" in falls
    assert "All queries have settled" in words({"sparsemax": 1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [1797]}, "leave none of the 1797 images"),
        ({"sizes": [1798]}, "1798 patterns are more than the 1797"),
        ({"separation": "entmax:1"}, "above 1"),
        ({"separation": "entmax:"}, "above 1"),
        ({"separation": "entmax:nan"}, "above 1"),
        ({"separation": "polynomial:10"}, "unknown name 'polynomial:10'; valid: sparsemax"),
        ({"separation": []}, "separation: at least one"),
        ({"beta": []}, "beta: at least one"),
        ({"mask": "top"}, "mask: unknown"),
        ({"pixels": "double"}, "pixels: unknown"),
        ({"steps": -1}, "steps"),
        ({"queries": 0}, "queries"),
    ],
)
def test_bad_metastable_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        metastable.run(tmp_path, **{**FEW, **change})
    assert not any(tmp_path.iterdir())


def test_metastable_mnist_as_in_the_paper(tmp_path, data_folder):
    """Stores few of the training images, but asks the test images."""
    try:
        outcome = metastable.run(
            tmp_path, dataset="mnist", data=data_folder, sizes=300, queries=50, mask="none", progress=False
        )
    except FileNotFoundError as error:
        pytest.skip(f"real data: {error}")
    single = {(row["beta"], row["separation"]): row["value"] for row in outcome.rows if row["metric"] == "support 1"}
    assert single[1.0, "sparsemax"] > 0.9  # the pixels' signs put the scores hundreds apart
    assert single[1.0, "sparsemax"] >= single[0.1, "sparsemax"] >= single[0.1, "entmax15"]


# What comes out


def test_sparse_is_exact_where_the_theory_says_so(tmp_path):
    """Queried with itself, every distinct pattern is retrieved by euclidean scores at a large beta."""
    rows = robustness.run(tmp_path, sizes=40, noise=0, runs=2, beta=100, models="sparse", progress=False).rows
    exact = {(row["similarity"], row["run"]): row["value"] for row in rows if row["metric"] == "exact"}
    assert exact["euclidean", 0] == exact["euclidean", 1] == 1
    assert exact["dot", 0] < 1  # a longer neighbour wins


def made_up(sparse, dense):
    """Rows of a study of one setting with given rates."""
    return [
        {
            "protocol": "printed",
            "threshold": 0.5,
            "dataset": "mnist",
            "mask": "lower",
            "size": 10,
            "beta": 1.0,
            "similarity": "dot",
            "model": model,
            "steps": 1,
            "run": run,
            "seed": run,
            "metric": metric,
            "value": value,
        }
        for model, values in (("sparse", sparse), ("dense", dense))
        for run, value in enumerate(values)
        for metric in retrieval_study.METRICS
    ]


@pytest.mark.parametrize(
    ("sparse", "dense", "verdict"),
    [
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], "sparse ahead"),  # in every run by the same: no error at all
        ([0.4, 0.5, 0.6], [0.5, 0.6, 0.7], "dense ahead"),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "level"),
        ([0.5, 0.9, 0.4], [0.9, 0.4, 0.45], "level"),
        ([1.0, 0.9, 1.0], [1.0, 1.0, 1.0], "level"),  # one run of three differs: lead and error are equal
        ([0.9], [0.1], "one run"),
    ],
)
def test_verdict(sparse, dense, verdict):
    summary = Summary(capacity.STUDY, made_up(sparse, dense))
    (panel,) = summary.panels
    assert summary.verdict(panel, 10, "retrieved") == verdict
    assert summary.mean(panel, 10, "sparse", "retrieved") == pytest.approx(np.mean(sparse))
    lead, error = summary.lead(panel, 10, "retrieved")
    assert lead == pytest.approx(np.mean(sparse) - np.mean(dense))
    if len(sparse) > 1:
        assert error == pytest.approx(np.std(np.subtract(sparse, dense), ddof=1) / len(sparse) ** 0.5)


def test_report_is_honest():

    images = datasets.ImageSet("mnist", np.zeros((1, 4), np.uint8), (2, 2), "four pixels")
    behind = report_text(Summary(capacity.STUDY, made_up([0.4, 0.5], [0.6, 0.7])), images, 10)
    assert "dense ahead  sparse ahead" in behind  # here, beside the paper
    assert "sparse loses to dense by more than one standard error at M = 10 (by 0.2 at most)" in (
        " ".join(behind.split())
    )
    assert "contradicts" in behind
    ahead = report_text(Summary(capacity.STUDY, made_up([0.6, 0.7], [0.4, 0.5])), images, 10)
    assert "agrees with" in ahead
    assert "loses" not in ahead


@pytest.mark.slow
def test_report_and_figures(tmp_path, save, monkeypatch):
    monkeypatch.setattr(plotting, "save", save)
    options = {
        "sizes": [6, 10],
        "noise": [0, 0.5],
        "runs": 2,
        "beta": 10,
        "models": ["sparse", "dense"],
        "similarity": ["dot", "cosine"],
        "steps": 3,
        "progress": False,
    }
    outcome = robustness.run(tmp_path, **options)
    for text in ("figure 1", "3 steps", "M = 6", "sparse - dense", "What came out", "cosine instead of dot"):
        assert text in outcome.report
    png, svg = outcome.figures
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in svg.read_text()
    before = png.read_bytes(), svg.read_bytes()
    robustness.run(tmp_path, **options)
    assert (png.read_bytes(), svg.read_bytes()) == before


def test_image_grid(tmp_path, save):
    colour = np.random.default_rng(0).random((3, 48))
    figure = plotting.image_grid({"stored": colour, "fewer": colour[:2] * 3}, (3, 4, 4), columns="abc", title="any")
    assert len(figure.axes) == 6
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn[1, 2], colour[0].reshape(3, 4, 4)[:, 1, 2])
    assert [file.suffix for file in save(figure, tmp_path / "grid.v1")] == [".png", ".svg"]
    assert (tmp_path / "grid.v1.png").is_file()


def test_matrices_show_exact_zeros_and_fit_their_names():
    weights = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    rows = {name: {"one": weights, "two": weights.tolist()} for name in ("first", "last")}
    figure = plotting.matrices(rows, across="abc", down="de", title="any")
    assert [axis.get_title() for axis in figure.axes] == ["one", "two", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["first", "", "last", ""]
    across, down = (
        [[t.get_text() for t in getattr(axis, f"get_{x}ticklabels")()] for axis in figure.axes] for x in "xy"
    )
    assert [list(filter(None, names)) for names in across] == [[], [], ["a", "b", "c"], ["a", "b", "c"]]
    assert [list(filter(None, names)) for names in down] == [["d", "e"], [], ["d", "e"], []]
    for axis in figure.axes:
        drawn = axis.images[0].get_array()
        assert np.array_equal(drawn.mask, weights == 0)
        assert np.array_equal(drawn.filled(0), weights)
    for bad, message in (
        (weights.T, r"rows: 'map', 'one'.*shape \(2, 3\), got \(3, 2\)"),
        (weights[0], r"rows: 'map', 'one'.*got \(3,\)"),
        (weights * np.nan, "rows: 'map', 'one', must be weights from 0 to 1"),
        (2 * weights, "rows: 'map', 'one', must be weights from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            plotting.matrices({"map": {"one": bad}}, across="abc", down="de")


def test_curves_have_bands_that_fit():
    def drawn(mean, std):
        panel = plotting.Panel("", [plotting.Line("sparse", [1, 2, 3], mean, std)])
        corners = plotting.curves([[panel]], xlabel="").axes[0].collections[0].get_paths()[0].vertices
        return corners[:, 1].min(), corners[:, 1].max()

    assert drawn([1.0, 2.0, 3.0], [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]) == (0.5, 3.25)
    assert drawn([1, 2, 3], 1) == (0, 4)
    assert drawn([1, 2, 3], [1, 0, 2]) == (0, 5)
    for mean, std, message in (
        ([1, 2], 0, r"panels: the mean of 'sparse': must have shape \(3,\), got \(2,\)"),
        ([1, 2, 3], np.zeros((3, 3)), r"panels: the std of 'sparse': must have shape .* or \(2, 3\), got \(3, 3\)"),
        ([1, 2, 3], [1], r"panels: the std of 'sparse'"),
    ):
        with pytest.raises(ValueError, match=message):
            drawn(mean, std)


def test_heat_maps_have_a_share_for_each_column():
    options = {"columns": ["1", "2"], "notes": {"row": ("fine", "#000000")}, "label": "share"}
    assert len(plotting.heat_map({"block": {"row": [0.0, 1.0]}}, **options).axes) == 2
    for rows, message in (({"row": [0.0]}, r"blocks: 'row'.*got \(1,\)"), ({"other": [0.0, 1.0]}, "notes: .*'other'")):
        with pytest.raises(ValueError, match=message):
            plotting.heat_map({"block": rows}, **options)


def test_plotting_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"matplotlib.*sparsehopfield\[studies\]"):
        plotting.curves([[plotting.Panel("", [])]], xlabel="")


# The command line


def command(*arguments, **environment):
    """Run the command line within this process; return what `subprocess.run` would, as text."""
    done = helpers.command(*arguments, **environment)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


@pytest.mark.slow
def test_command_line(tmp_path, whole, drawn):
    done = command("capacity", *SMALL_ARGUMENTS, "--output", str(tmp_path / "out"), "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(whole.report)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"table.csv", "settings.json", "capacity.png", "capacity.svg"}
    assert (tmp_path / "out" / "table.csv").read_bytes() == whole.table.read_bytes()


@pytest.mark.slow
def test_metastable_command_line(tmp_path, mixed, undrawn):
    arguments = ["--sizes", "40", "90", "--queries", "30", "--separation", *FEW["separation"], "--threads", "1"]
    done = command("metastable", *arguments, "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(without_times(mixed.report))
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"table.csv", "times.csv", "settings.json", "metastable.png", "metastable.svg"}
    assert (tmp_path / "out" / "table.csv").read_bytes() == mixed.table.read_bytes()
    done = command("metastable", "--separation", "entmax", "--output", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    valid = ", ".join(metastable_protocol.NAMES)
    assert done.stderr == f"error: separation: unknown name 'entmax'; valid: {valid}\n"


@pytest.mark.slow
def test_quiet(tmp_path, undrawn):
    done = command("robustness", "--sizes", "5", "--runs", "1", "--noise", "0.5", "--quiet", "--output", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "robustness.svg").is_file()


@pytest.mark.slow
def test_problems_are_one_line(tmp_path, whole):
    for arguments, text in (
        (["--output", str(whole.table.parent), *SMALL_ARGUMENTS, "--seed", "5"], "choose another --output"),
        (["--dataset", "mnist", "--data", str(tmp_path)], "https://"),
        (["--dataset", "mnist"], "SPARSEHOPFIELD_DATA"),
        (["--sizes", "99999", "--output", str(tmp_path)], "1797"),
    ):
        done = command("capacity", *arguments, SPARSEHOPFIELD_DATA="")
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_environment_variable_names_the_data(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"")
    done = command("capacity", "--dataset", "mnist", SPARSEHOPFIELD_DATA=str(tmp_path))
    assert str(tmp_path) in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", *STUDIES, "info"])
def test_help(name):
    done = command(*[name] * bool(name), "--help", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    if name in STUDIES:
        of_images = ("(default: digits)", "fixed-point") if name in ("capacity", "robustness", "metastable") else ()
        for text in ("examples:\n  python -m sparsehopfield " + name, "--restart", *of_images):
            assert text.split() <= done.stdout.split() or text in " ".join(done.stdout.split())


def test_info_and_version():
    import sparsehopfield

    assert sparsehopfield.__version__ in command("info").stdout
    assert command("--version").stdout == f"sparsehopfield {sparsehopfield.__version__}\n"


def test_a_process_of_its_own(tmp_path):
    """What the command prints and returns is what its process does."""
    arguments = ["capacity", "--sizes", "99999", "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "sparsehopfield", *arguments], capture_output=True, text=True)
    within = command(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, within.stdout, within.stderr)


SLOWLY = """
import signal, sys, time
from sparsehopfield.__main__ import main
from sparsehopfield.studies import retrieval_study

attempt = retrieval_study.attempt

def slowly(*arguments, **options):
    time.sleep(0.2)
    return attempt(*arguments, **options)

retrieval_study.attempt = slowly
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_leaves_a_table_that_is_continued(tmp_path, whole):
    table = tmp_path / "cut" / "table.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "capacity", *SMALL_ARGUMENTS, "--output", str(table.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not table.exists() or table.read_bytes().count(b"\n") < 8):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == ""
    assert "interrupted: what was measured is in" in errors
    assert "the same command continues" in errors
    assert "Traceback" not in errors
    assert 0 < table.read_bytes().count(b"\n") - 1 < len(whole.rows)
    assert capacity.run(table.parent, **SMALL).rows == whole.rows
    assert table.read_bytes() == whole.table.read_bytes()


# The real images


def run_or_skip(*arguments, **options):
    try:
        return capacity.run(*arguments, **options, progress=False)
    except FileNotFoundError as error:
        pytest.skip(f"real data: {error}")


def test_mnist_as_it_was_measured_before(tmp_path, data_folder):
    """The mean cosines of an independent run: one step, beta 1, raw rows, lower half masked."""
    rows = run_or_skip(
        tmp_path,
        dataset="mnist",
        data=data_folder,
        sizes=[50, 500],
        queries=200,
        models=["sparse", "dense"],
        similarity="dot",
    ).rows
    summary = Summary(capacity.STUDY, rows)
    (panel,) = summary.panels
    for size, model, cosine in (
        (50, "sparse", 0.844),
        (50, "dense", 0.860),
        (500, "sparse", 0.819),
        (500, "dense", 0.836),
    ):
        assert summary.mean(panel, size, model, "cosine") == pytest.approx(cosine, abs=0.08)
    assert summary.verdict(panel, 500, "cosine") == "dense ahead"
    assert summary.verdict(panel, 500, "exact") == "sparse ahead"


@pytest.mark.parametrize("name", ["cifar10", "imagenet64"])
def test_photographs(tmp_path, data_folder, name):
    outcome = run_or_skip(tmp_path, dataset=name, data=data_folder, sizes=[10], runs=2, mask="left")
    assert "left half masked" in outcome.report
    assert all(np.isfinite(row["value"]) for row in outcome.rows)
