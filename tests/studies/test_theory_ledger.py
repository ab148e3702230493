"""The ledger of claims: how each is evaluated, its verdict, the counterexamples, and what the reports say."""

import math
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest

from sparsehopfield import reference, theory
from sparsehopfield.studies import theory_ledger as study
from sparsehopfield.studies.theory_ledger import checks
from sparsehopfield.studies.theory_ledger import report as reports
from sparsehopfield.studies.theory_ledger.claims import CLAIMS
from sparsehopfield.studies.theory_ledger.trials import METRICS, Claim, Evidence, Trials, verdict

for module in ("sklearn", "matplotlib", "tqdm", "jinja2"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

SMALL = {
    "families": ("sphere", "images", "correlated"),
    "betas": (1.0, 200.0),
    "patterns": 12,
    "d": 5,
    "trials": 20,
    "progress": False,
}
NAMED = {claim.name: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("theory"), **SMALL)


def summary_of(rows, **changes):
    return reports.Summary(rows, study.Options(**SMALL | changes).as_settings())


def numbers(rows, claim, family, beta):
    return {
        row["metric"]: row["value"]
        for row in rows
        if (row["claim"], row["family"], row["beta_hat"]) == (claim, family, beta)
    }


class Promised(NamedTuple):
    log_M: float


# Evidence and verdicts


def test_evidence_is_counted():
    evidence = Evidence(
        left=np.array([1.0, 3.0, math.nan, 5.0, 2.0 + 1e-12]),
        right=np.array([2.0, 2.0, 0.0, 0.0, 2.0]),
        applies=np.array([True, True, True, False, True]),
        scale=2.0,
        trivial=np.array([2.5, 2.0, 0.0, 9.0, 2.5]),
    )
    assert evidence.summarise(1e-9) == {
        "trials": 5,
        "met": 4,
        "undefined": 1,
        "violations": 1,
        "worst": 0.5,
        "informative": 2,
    }
    assert evidence.summarise(1.0)["violations"] == 0
    assert evidence.summarise(1e-14)["violations"] == 2
    never = replace(evidence, applies=np.zeros(5, bool)).summarise(1e-9)
    assert (never["met"], never["violations"], never["worst"], never["informative"]) == (0, 0, -math.inf, 0)


@pytest.mark.parametrize(
    ("change", "bound", "expected"),
    [
        ({}, False, "HOLDS"),
        ({}, True, "VACUOUS"),
        ({"informative": 1}, True, "HOLDS"),
        ({"violations": 1}, False, "FAILS"),
        ({"violations": 1}, True, "FAILS"),
        ({"met": 0}, False, "INFEASIBLE"),
        ({"met": 0}, True, "INFEASIBLE"),
        ({"undefined": 3}, False, "UNDEFINED"),
        ({"undefined": 3, "violations": 1}, False, "FAILS"),
    ],
    ids=str,
)
def test_verdict(change, bound, expected):
    given = {"trials": 9, "met": 5, "undefined": 0, "violations": 0, "informative": 0, "worst": -1.0}
    assert verdict(given | change, bound=bound) == expected


@pytest.mark.parametrize(
    ("name", "number", "left", "right", "violated"),
    [
        ("theorem 2.2", 0, 0.189737, 0.149407, True),
        ("theorem 2.2", 1, 2.0, 1.761594, True),
        ("theorem 2.2", 2, 0.223429, 0.139861, True),
        ("lemma 2.1", 0, -1.5, -2.0, True),
        ("lemma 2.1", 1, 0.0, -0.125, True),
        ("lemma 2.2", 0, 1.0, 0.0, True),
        ("section 2.2", 0, 1.0, 0.0, True),
        ("definition 2.2", 0, 0.765370, 0.687805, True),
        ("(2.7), right", 0, 3.43044e-3, 9.08e-5, True),
        ("(2.7), nu != mu", 0, 0.707107, 0.0134759, True),
        ("theorem 3.1", 0, 0.0, 0.0499792, False),
        ("observation 3", 0, 2.0, 0.0, True),
        ("section 2.2, noise", 0, 0.02, 0.00937687, True),
        ("section 2.2, linear", 0, 1.99, 0.02, True),
        ("observation 2, last term", 0, 1.857518, 1 / 0.9, True),
        ("observation 2, many patterns", 0, 1.469821, 1.429069, True),
        ("lemma 3.1, M_dense", 0, -1.499414, -1.517192, True),
        ("lemma 3.1, large beta", 0, 4.443324, -1.439116, True),
    ],
)
def test_golden_examples(name, number, left, right, violated):
    claim = NAMED[name]
    evidence = claim.check(claim.examples[number].trials())
    np.testing.assert_allclose([evidence.left[0], evidence.right[0]], [left, right], rtol=1e-5, atol=1e-9)
    assert evidence.applies.all()
    assert claim.summarise(claim.examples[number].trials())["violations"] == violated


def test_examples_alone_refute():
    """Where a claim fails, it does so by its counterexamples, whatever the families show."""
    summary = summary_of([])
    for claim in CLAIMS:
        if claim.expected == "FAILS":
            assert summary.verdict(claim) == "FAILS", claim.name
            assert all(evidence.summarise(claim.slack)["violations"] for _, evidence in summary.examples[claim.name])
        assert {*claim.instead} <= {*NAMED, "exact capacity"}
    assert len(NAMED) == len(CLAIMS)
    assert str(NAMED["theorem 2.2"].examples[1]) == "patterns 1, 3; x = 1, beta = 1"


@pytest.mark.parametrize(
    "name",
    [
        "lemma 2.1",
        "lemma 2.2",
        "definition 2.2",
        "theorem 2.2",
        "(2.6)",
        "(2.7), right",
        "theorem 3.1",
        "corollary 3.1.1",
        "(3.3)",
        "lemma 3.1",
        "lemma 3.1, M_dense",
        "section 2.2, noise",
        "observation 2",
        "corollary 3.1.2",
    ],
)
def test_what_is_expected_is_what_the_theory_says(name):
    named = name.replace("M_dense", "M >= M_dense") if "M_dense" in name else name.split(",")[0]
    row = next(line for line in theory.__doc__.splitlines() if line.startswith("| ") and named in line)
    _, _, said, *_ = row.split("|")
    assert NAMED[name].expected.lower().rstrip("s") in said


def test_condition_that_is_met_and_one_that_is_not():
    corollary = NAMED["corollary 3.1.1"].summarise(NAMED["corollary 3.1.1"].examples[0].trials())
    assert (corollary["met"], corollary["violations"]) == (1, 0)
    first, second = (NAMED["theorem 3.1"].summarise(example.trials()) for example in NAMED["theorem 3.1"].examples)
    assert (first["met"], first["violations"], second["met"]) == (1, 0, 0)


# Trials


def test_queries():
    rng = np.random.default_rng(3)
    patterns = rng.standard_normal((9, 3))
    queries, index = study.draw_queries(rng, patterns, 400)
    radius = min(np.linalg.norm(a - b) for i, a in enumerate(patterns) for b in patterns[:i]) / 2
    distance = np.linalg.norm(queries - patterns[index], axis=1)
    inside, edge, same, anywhere = np.split(np.arange(len(queries)), [400, 800, 809])
    assert (distance[inside] < radius).all()
    assert np.mean(distance[inside] / radius) == pytest.approx(3 / 4, abs=0.04)  # of uniform points in 3 dimensions
    np.testing.assert_allclose(distance[edge], 0.95 * radius)
    others = np.linalg.norm(queries[edge][:, None] - patterns, axis=2)
    apart = np.linalg.norm(patterns[index[edge]][:, None] - patterns, axis=2)
    apart[apart == 0] = np.inf
    rows = np.arange(400)
    np.testing.assert_allclose(others[rows, apart.argmin(axis=1)], apart.min(axis=1) - 0.95 * radius)
    np.testing.assert_array_equal(queries[same], patterns)
    assert (np.linalg.norm(queries[anywhere], axis=1) <= np.linalg.norm(patterns, axis=1).max()).all()
    np.testing.assert_array_equal(index[anywhere], (queries[anywhere] @ patterns.T).argmax(axis=1))


@pytest.mark.parametrize("family", SMALL["families"])
@pytest.mark.parametrize("beta", SMALL["betas"])
def test_table_against_the_reference(found, family, beta):
    """The table's counts, from the formulas as the reference writes them."""
    seed = next(r["seed"] for r in found.rows if r["family"] == family and r["beta_hat"] == beta)
    chosen = study.Options(**SMALL)
    trials = study.Measurement(chosen, study.datasets.load_digits()).trials(family, beta, seed)
    x, patterns, own = trials.queries, trials.patterns, trials.patterns[trials.index]
    m = np.sqrt((patterns**2).sum(axis=1).max())
    assert trials.beta * m**2 == pytest.approx(beta)
    sparse, dense = (
        np.linalg.norm(reference.update(x, patterns, trials.beta, separation=name) - own, axis=1)
        for name in ("sparsemax", "softmax")
    )
    near = np.linalg.norm(x - own, axis=1) <= theory.min_half_distance(patterns)
    expected = numbers(found.rows, "theorem 2.2", family, beta)
    assert expected["trials"] == len(x) == 3 * 20 + 12
    assert expected["met"] == near.sum() >= 52
    assert expected["violations"] == np.sum((sparse - dense)[near] > 1e-9 * m)
    assert expected["worst"] == pytest.approx((sparse - dense)[near].max() / m, abs=1e-12)
    assert numbers(found.rows, "(2.7), left", family, beta) == expected

    moved = reference.update(x, patterns, trials.beta)
    before, after = (
        (y**2).sum(axis=1) / 2 - reference.sparsemax_conjugate(trials.beta * y @ patterns.T) for y in (x, moved)
    )
    risen = numbers(found.rows, "lemma 2.1", family, beta)
    assert risen["violations"] == np.sum(after - before > 1e-9 * (beta + 1))
    assert (risen["violations"] > 0) == (family != "sphere" or beta != 1)  # on the unit sphere, beta is 1

    scores = x @ patterns.T
    others = np.where(np.arange(12) == trials.index[:, None], -np.inf, scores).max(axis=1)
    gap = (x * own).sum(axis=1) - others
    assert numbers(found.rows, "gap of 1/beta", family, beta)["met"] == np.sum(trials.beta * gap >= 1)
    bound = np.minimum(1, 11 * np.exp(-trials.beta * gap)) * 2 * m
    farthest = np.linalg.norm(patterns[:, None] - patterns, axis=2).max(axis=1)[trials.index]
    assert numbers(found.rows, "exponential bound", family, beta)["informative"] == np.sum(bound < farthest)


def test_as_printed_is_sparsemax():
    z = np.random.default_rng(0).standard_normal((50, 7)) * np.geomspace(0.1, 30, 50)[:, None]
    np.testing.assert_allclose(checks._printed_sparsemax(z), reference.sparsemax(z), atol=1e-13)


def test_verdicts_of_a_small_run(found):
    summary = summary_of(found.rows)
    verdicts = {claim.name: summary.verdict(claim) for claim in CLAIMS}
    assert verdicts["(2.6)"] == "VACUOUS"
    assert verdicts["(3.3)"] == "INFEASIBLE"
    assert verdicts["lemma 3.1"] == "UNDEFINED"
    assert summary.surprises() == []
    assert [row["metric"] for row in found.rows if row["claim"] == "theorem 2.2"][:5] == list(METRICS[:-1])


@pytest.mark.parametrize(
    ("name", "what", "broken"),
    [
        ("definition 2.1", "_printed_sparsemax", lambda z: checks.softmax(z)),
        ("theorem 2.1", "sparsemax", lambda z: checks.softmax(z)),
        ("corollary 2.1.1", "sparsemax", lambda z: checks.softmax(z)),
        ("remark 2.1", "sparsemax", lambda z: checks.softmax(z)),
        ("energy falls", "update", lambda x, patterns, beta: 1.1 * x),
        ("limits are stationary", "update", lambda x, patterns, beta: 1.1 * x),
        ("contraction", "theory.contraction", lambda patterns, beta: 0.0),
        ("energy is bounded", "theory.energy_offset", lambda patterns, beta: 0.0),
        ("majorisation", "sparsemax", lambda z: np.full(z.shape, 1 / z.shape[1])),
        ("mean distance", "sparsemax", lambda z: np.full(z.shape, 1 / z.shape[1])),
        (
            "alignment",
            "update",
            lambda x, patterns, beta, separation: patterns.mean(axis=0) * (separation == "softmax"),
        ),
        ("sharp bound", "theory.retrieval_bound", lambda x, *_, rule: np.zeros(len(x))),
        ("exponential bound", "theory.retrieval_bound", lambda x, *_, rule: np.zeros(len(x))),
        ("separation bound", "theory.retrieval_bound", lambda x, *_, rule: np.zeros(len(x))),
        ("corollary 3.1.2", "theory.margin", lambda patterns: np.full(len(patterns), 9.0)),
        ("gap of 1/beta", "theory.well_separated", lambda x, *_, rule: np.ones(len(x), bool)),
        ("ball of radius R", "theory.well_separated", lambda x, *_, rule: np.ones(len(x), bool)),
        ("theorem 3.1", "theory.well_separated", lambda x, *_, rule: np.ones(len(x), bool)),
        ("exact radius", "theory.exact_radius", lambda patterns, beta: np.ones(len(patterns))),
        ("exact radius is tight", "theory.exact_radius", lambda patterns, beta: np.full(len(patterns), 1e-3)),
        ("noise in the query", "theory.contraction", lambda patterns, beta, separation: 0.0),
        ("noise in the pattern", "theory.contraction", lambda patterns, beta=1.0, separation="sparsemax": 0.0),
        ("dense floor", "theory.dense_error_floor", lambda x, *_: np.ones(len(x))),
        ("observation 2", "Trials.asked", lambda self, rule: np.zeros(len(self))),
        ("observation 2", "Trials.asked", lambda self, rule: np.full(len(self), 9.0)),
        ("gain over dense", "theory.capacity_bound", lambda *sphere: Promised(1e3 * sphere[-1])),
        ("margin of 1/beta", "theory.is_certified", lambda patterns, beta: np.ones(len(patterns), bool)),
        ("margin of 1/beta", "theory.is_certified", lambda patterns, beta: np.zeros(len(patterns), bool)),
    ],
)
def test_every_check_can_fail(monkeypatch, name, what, broken):
    """Where the theory were wrong, the ledger would say so."""
    rng = np.random.default_rng(5)
    patterns = rng.standard_normal((8, 4))
    patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    patterns[7] = 0.95 * patterns[6] + 0.1 * patterns[5]
    patterns[7] /= np.linalg.norm(patterns[7])
    queries, index = study.draw_queries(rng, patterns, 20)
    trials = Trials(patterns, queries, index, 8.0)
    claim = NAMED[name]
    assert not claim.summarise(replace(trials))["violations"]
    monkeypatch.setattr(f"{checks.__name__}.{what}", broken)
    assert claim.summarise(replace(trials))["violations"] > 0


# The run


def test_interrupted_and_continued_with_more_jobs(found, tmp_path):
    files = {path.name: path.read_bytes() for path in found.table.parent.iterdir()}
    (tmp_path / "settings.json").write_bytes(files["settings.json"])
    (tmp_path / "table.csv").write_bytes(files["table.csv"][: len(files["table.csv"]) // 3])
    continued = study.run(tmp_path, **SMALL, jobs=2)
    assert continued.rows == found.rows
    assert continued.report == found.report
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_draws_depend_on_the_seed(found):
    bench = study.Measurement(study.Options(**SMALL), None)
    setting = {name: found.rows[0][name] for name in ("claim", "family", "beta_hat", "seed")}
    setting["claim"] = "energy falls"
    again = bench(setting)
    assert again == numbers(found.rows, "energy falls", setting["family"], setting["beta_hat"]) | {
        "informative": again["informative"]
    }
    assert bench(setting | {"seed": 1})["worst"] != again["worst"]
    seeds = {(row["family"], row["beta_hat"]): row["seed"] for row in found.rows}
    assert len({*seeds.values()}) == 6


# The reports


class Page(HTMLParser):
    """Checks that what is opened is closed, in order."""

    EMPTY = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.rows, self.pictures = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1].append(data)


def test_pages(found):
    assert [path.name for path in found.figures] == ["theory.png", "theory.svg", "report.md", "report.html"]
    page = Page()
    text = found.figures[3].read_text(encoding="utf-8")
    page.feed(text)
    page.close()
    assert page.open == []
    assert [source[:22] for source in page.pictures] == ["data:image/png;base64,"]
    assert "http" not in text  # nothing is fetched
    lines = found.figures[2].read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("|")]
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("| ---"):
            bars = [row.replace("\\|", "").count("|") for row in (before, line, after)]
            assert len(set(bars)) == 1
    for claim in CLAIMS:
        mine = [row for row in tables if row.startswith(f"| {claim.name.replace('_', chr(92) + '_')} |")]
        assert len(mine) >= 2  # what it says, and what came out
        assert next(row[1] for row in page.rows if row[0] == claim.name) == claim.expected
    assert "theorem 2.2 and (2.7), left" in text
    assert "0.189737 &gt; 0.149407" in text


def test_report(found):
    assert max(map(len, found.report.splitlines())) <= 100
    for words in (
        "49 statements on 432 trials",
        "All 49 verdicts are as expected.",
        "(2.6) 0.0",
        "(3.3) 0",
        "capacity-bound",
        "Trials are no proof",
    ):
        assert words in " ".join(found.report.split())
    summary, claim = summary_of(found.rows), NAMED["theorem 2.2"]
    shares = [
        n["violations"] / n["met"] for n in (numbers(found.rows, claim.name, "correlated", b) for b in SMALL["betas"])
    ]
    assert summary.rate(claim, "correlated") == max(shares) > 0
    count = sum(r["value"] for r in found.rows if r["claim"] == claim.name and r["metric"] == "violations")
    assert f"theorem 2.2 fails on {count:.0f} of " in found.report


def test_report_is_honest(found):
    """Of numbers that come out otherwise, it says otherwise."""
    rows = [dict(row) for row in found.rows]
    for row in rows:
        if row["claim"] == "sharp bound" and row["metric"] == "violations" and row["family"] == "images":
            row["value"] = 36.0
        if (row["claim"], row["metric"]) == ("theorem 2.2", "violations"):
            row["value"] = 0.0
        if (row["claim"], row["metric"]) == ("(2.6)", "informative"):
            row["value"] = 4.0
    summary = summary_of(rows)
    text = " ".join(reports.report_text(summary).split())
    assert (
        "2 of 49 verdicts are NOT as expected: (2.6): HOLDS, where VACUOUS is expected; "
        "sharp bound: FAILS, where HOLDS is expected." in text
    )
    assert "violated: sharp bound." in text
    assert "theorem 2.2 fails by its counterexample only" in text
    assert "NOT as expected (HOLDS)" in reports.markdown(summary, "theory.png")
    assert summary.rate(NAMED["sharp bound"], "images") == 0.5
    assert math.isnan(summary.rate(NAMED["(3.3)"], "images"))


def test_text_is_no_markup():
    claim = Claim("<b>|*x*", "a < b & c | d", NAMED["energy falls"].check, "HOLDS")
    summary = reports.Summary([], study.Options(**SMALL).as_settings(), [claim])
    assert "&lt;b&gt;|*x*" in reports.page(summary, b"")
    assert "a &lt; b &amp; c | d" in reports.page(summary, b"")
    assert "\\<b\\>\\|\\*x\\*" in reports.markdown(summary, "x.png")


def test_the_page_has_all_that_the_report_says(found):
    """Text, tables and lists of the report, in their order, and the verdicts in their colours."""
    summary = summary_of(found.rows)
    text = reports.page(summary, b"\x89PNG")
    assert 'src="data:image/png;base64,iVBORw=="' in text
    page = Page()
    page.feed(text)
    expected = [line for part in reports.parts(summary) if isinstance(part, reports.Table) for line in part.lines]
    assert [len(row) for row in page.rows] == [sum(map(bool, line)) for line in expected]  # no data for empty cells
    assert next(row for row in page.rows if row[0] == CLAIMS[0].name)[1] == summary.verdict(CLAIMS[0])
    places = [text.index(f"<h2>{part.title}</h2>") for part in reports.parts(summary) if not isinstance(part, str)]
    assert places == sorted(places)
    for word, colour in reports.COLOURS.items():
        assert (f'<td style="color: {colour}; font-weight: bold">{word}</td>' in text) == (word in found.report)
    assert "<script" not in text


def test_a_page_without_jinja2(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    summary = reports.Summary([], study.Options(**SMALL).as_settings(), [])
    with pytest.raises(ImportError, match=r'a report as a page needs jinja2.*"sparsehopfield\[studies\]"'):
        reports.page(summary, b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"families": "spheres"}, "families: unknown name 'spheres'; valid: sphere"),
        ({"families": ()}, "families: at least one"),
        ({"betas": 0.0}, "betas: must be positive"),
        ({"betas": math.inf}, "betas: must be positive"),
        ({"patterns": 1}, "patterns: must be at least 2"),
        ({"patterns": 1798}, "patterns: 1798 are more than the 1797 images"),
        ({"d": 1}, "d: must be at least 2"),
        ({"trials": 0}, "trials: must be at least 1"),
        ({"jobs": 0}, "jobs: must be at least 1"),
        ({"dataset": "mnits"}, "^dataset: unknown name 'mnits'"),
        ({"dataset": "mnist"}, "^data: the data set 'mnist' is read from files"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
    assert not any(tmp_path.iterdir())
