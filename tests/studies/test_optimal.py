"""The study of optimal solutions: its closed forms against the reference, and what is said of differences."""

import math

import numpy as np
import pytest

from sparsehopfield import reference, theory
from sparsehopfield.studies import optimal as study
from sparsehopfield.studies.optimal import protocol

for module in ("matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

pytestmark = pytest.mark.usefixtures("undrawn")  # `found` has its figures

SMALL = {"size": 4, "shares": (0.5, 1.0, 2.5), "progress": False}
CHOSEN = study.Options(size=5, copies=3, angle=50.0)
SHARES = (0.2, 0.5, 0.8, 1.3, 3.0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("optimal"), **SMALL)


@pytest.mark.parametrize("name", study.SETS)
def test_sets(name):
    of = protocol.make_set(CHOSEN, name)
    own = of.coordinates == 1
    assert own[of.at]
    lengths = np.linalg.norm(of.patterns, axis=1)
    np.testing.assert_allclose(lengths, 1 if name != "interior" else [1, 0, 1])
    others = np.delete(of.patterns, np.flatnonzero(own)[1:], axis=0)
    assert of.critical == pytest.approx(theory.critical_beta(others)[0 if name != "interior" else 2] / own.sum())
    for a in (0.0, 0.3, 1.0):
        x = of.query(a)
        np.testing.assert_allclose(of.scores(a), of.patterns @ x, atol=1e-14)
        assert of.square(a) == pytest.approx(x @ x)


@pytest.mark.parametrize("model", study.MAPS)
@pytest.mark.parametrize("name", study.SETS)
def test_closed_forms_against_the_reference(name, model):
    of, separation = protocol.make_set(CHOSEN, name), study.MAPS[model]
    row_map = reference.sparsemax if model == "sparse" else reference.softmax
    for share in SHARES:
        beta = share * of.critical
        for a in (0.0, 0.2, 0.5, 0.77, 1.0):
            x, scores = of.query(a), beta * (of.patterns @ of.query(a))
            np.testing.assert_allclose(of.weights(model, beta, a), row_map(scores), atol=1e-13)
            state = reference.update(x, of.patterns, beta, separation=separation)
            np.testing.assert_allclose(of.query(of.step(model, beta, a)), state, atol=1e-13)
            expected = reference.energy(x, of.patterns, beta, separation=separation)
            assert of.energy(model, beta, a) == pytest.approx(float(expected))
            if model == "sparse":
                assert of.threshold(beta, a) == pytest.approx(float(reference.sparsemax_threshold(scores)[0]))
            if model == "dense" or of.slack(beta, a) > 1e-3:
                rise = (of.step(model, beta, a + 1e-6) - of.step(model, beta, a - 1e-6)) / 2e-6
                # below the mean others have the top score, and what is known is of the segment alone
                assert a == 0 or of.slope(model, beta, a) == pytest.approx(rise, abs=1e-5)


@pytest.mark.parametrize("model", study.MAPS)
@pytest.mark.parametrize("name", study.SETS)
def test_limits(name, model):
    of = protocol.make_set(CHOSEN, name)
    for share in SHARES:
        beta, x = share * of.critical, of.nearest
        moved = 1.0
        while moved > 1e-9:
            before, x = x, reference.update(x, of.patterns, beta, separation=study.MAPS[model])
            moved = np.linalg.norm(x - before)
        np.testing.assert_allclose(of.query(of.limit(model, beta)), x, atol=1e-6)


def test_known_numbers():
    pair, turned = protocol.make_set(CHOSEN, "pair"), protocol.make_set(CHOSEN, "orthonormal")
    a = 1.0
    for t in range(1, 6):
        a = pair.step("sparse", 0.25, a)
        assert a == 2.0**-t
    assert [pair.step("sparse", 0.5, a) for a in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]  # the identity
    assert [pair.step("sparse", 1.0, a) for a in (0.25, 0.5, 0.7)] == [0.5, 1.0, 1.0]
    assert pair.step("dense", 0.7, 0.4) == pytest.approx(math.tanh(0.7 * 2 * 0.4 / 2))
    np.testing.assert_allclose(turned.weights("sparse", 0.6, 1.0), [0.6 + 0.4 / 5, *[0.4 / 5] * 4])
    assert protocol.make_set(CHOSEN, "simplex").critical == pytest.approx(4 / 5)
    assert protocol.make_set(CHOSEN, "angle").critical == pytest.approx(1 / (1 - math.cos(math.radians(50))))
    assert protocol.make_set(CHOSEN, "copies").critical == pytest.approx(1 / 3)
    assert protocol.make_set(CHOSEN, "interior").limit("sparse", 0.8) == 1 / 1.2


@pytest.mark.parametrize("dtype", study.DTYPES)
@pytest.mark.parametrize("name", study.SETS)
def test_nothing_is_beyond_rounding(name, dtype):
    of = protocol.make_set(CHOSEN, name)
    for model in study.MAPS:
        for share in (*SHARES, 1.0):
            for a in (0.0, 0.4, 1.0):
                for quantity in study.QUANTITIES:
                    if protocol.is_compared(of, quantity, model, share, a):
                        values = protocol.compare(of, quantity, model, share, a, np.dtype(dtype))
                        assert values["difference"] <= values["allowed"], (quantity, model, share, a, values)
                        if quantity not in ("support", "critical beta"):
                            # and what is allowed is small: rounding, times what 8 steps or a slow approach make of it
                            worst = {"steps": 10**5, "limit": 10**5}.get(quantity, 500)
                            assert values["allowed"] <= worst * np.finfo(dtype).eps * max(1, share * of.critical)


def test_what_is_wrong_is_flagged(tmp_path, monkeypatch):
    update = protocol.update
    monkeypatch.setattr(protocol, "update", lambda *given, **how: update(*given, **how) * (1 + 2e-3))
    report = " ".join(study.run(tmp_path, **SMALL, sets="simplex").report.split())
    assert "More than rounding explains: 0 of" not in report
    assert "simplex, sparse, state, beta 0.5 times critical, position 0.5, float64" in report


def test_table(found):
    values = {}
    for row in found.rows:
        key = tuple(row[name] for name in ("set", "model", "share", "position", "quantity", "dtype"))
        values[(*key, row["metric"])] = row["value"]
    assert values["pair", "sparse", 0.5, 1.0, "steps", "float32", "computed"] == 2.0**-8
    assert values["orthonormal", "sparse", 0.5, 1.0, "support", "float64", "computed"] == 4
    assert values["orthonormal", "sparse", 2.5, 1.0, "support", "float64", "computed"] == 1
    assert values["copies", "sparse", 2.5, 1.0, "weight", "float64", "computed"] == pytest.approx(1 / 3)
    assert values["interior", "sparse", 1.0, 1.0, "critical beta", "float32", "computed"] == pytest.approx(1)
    assert not any(key[4] == "threshold" and key[1] == "dense" for key in values)


@pytest.mark.depth
@pytest.mark.usefixtures("undrawn")
def test_the_same_table_again_and_for_any_number_of_jobs(found, tmp_path):
    assert study.run(tmp_path / "two", **SMALL, jobs=2).rows == found.rows
    content = found.table.read_bytes()
    found.table.write_bytes(content[: len(content) // 3])
    assert study.run(found.table.parent, **SMALL).rows == found.rows
    assert found.table.read_bytes() == content


def test_report_and_figures(found):
    assert len(found.figures) == 4
    assert all(path.exists() for path in found.figures)
    text = " ".join(found.report.split())
    assert "More than rounding explains: 0 of" in text
    assert "moves no position of pair, angle, orthonormal, simplex" in text
    decided = [row for row in found.rows if row["quantity"] == "support" and row["metric"] == "allowed"]
    count = sum(row["value"] == 0 for row in decided)
    assert 0 < count < len(decided)
    assert f"where rounding cannot decide it: {count} of {count} agree" in text


def test_report_is_honest(found):
    chosen = study.Options(**SMALL)

    def text(**changes):
        rows = []
        for row in found.rows:
            hit = all(row[name] == value for name, value in changes.items())
            rows.append({**row, "value": 1.0} if hit and row["metric"] == "difference" else row)
        return " ".join(study.report_text(study.Summary(rows, chosen)).split())

    count = sum(row["quantity"] == "support" and row["metric"] == "allowed" and row["value"] == 0 for row in found.rows)
    assert f"cannot decide it: 0 of {count} agree" in text(quantity="support")
    assert "More than rounding explains: 1 of" in text(quantity="critical beta", set="simplex", dtype="float32")
    assert "simplex, sparse, limit, beta 2.5 times critical, position 1" in text(quantity="limit", set="simplex")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sets": "odd"}, "sets: unknown name 'odd'"),
        ({"shares": 0.0}, "shares: must be positive"),
        ({"positions": 1.5}, "positions: must lie between 0 and 1"),
        ({"size": 1}, "size: must be at least 2"),
        ({"angle": 0.0}, "angle: must be above 0"),
        ({"copies": 1}, "copies: must be at least 2"),
        ({"jobs": 0}, "jobs: must be at least 1"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)


def test_times(tmp_path):
    few = {"sets": ("simplex", "pair"), "shares": (0.5, 4.0), "positions": 1.0, "timed": 5, "progress": False}
    outcome = study.run(tmp_path, **few)
    rows = protocol.time_sets(study.Options(**few))  # again: all but the times is the same
    assert [(row["set"], row["share"], row["model"]) for row in rows] == [
        ("simplex", share, model) for share in (0.5, 4.0) for model in ("sparse", "dense")
    ]
    assert [row["support"] for row in rows] == [5, 5, 1, 5]
    assert rows[2]["steps"] == 2  # one update reaches the pattern, the next one finds it at rest
    assert all(row["rest"] >= 0 and row["update"] >= 0 for row in rows)
    assert (tmp_path / "timed.csv").read_text().splitlines()[1].startswith("simplex,5,0.5,sparse,5,")
    with pytest.raises(ValueError, match="timed: only orthonormal and simplex"):
        study.Options(sets="pair", timed=5)
    assert "Processor time of queries halfway from the mean to a pattern, 5 patterns" in " ".join(
        outcome.report.split()
    )
