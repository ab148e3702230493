"""The study of efficiency: what is promised, what is counted, what is measured, and what is said of it."""

import math
import time

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield._engine import resources
from sparsehopfield.structures import BlockSparse, LinearFeatures, RandomFeatures, RandomMask, TopK, Window
from sparsehopfield.studies import efficiency as study
from sparsehopfield.studies.efficiency import protocol

pytestmark = pytest.mark.usefixtures("undrawn")  # `found` has its figures

SMALL = {"first": 6, "last": 8, "fit_from": 6, "repeats": 1, "d": 16, "window": 8, "block": 16, "k": 4, "features": 32}
SMALL |= {"progress": False}
SMOOTH = ("softmax", "window", "random-mask", "blocks", "linear-features", "random-features")
OURS = [member for member in protocol.MEMBERS if not protocol.is_torch(member)]
SIZES = study.Options(**SMALL).sizes


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("efficiency"), **SMALL, members=OURS)


def values(outcome, metric, **fixed):
    """The values of a metric by member, direction and length."""
    return {
        (row["member"], row["direction"], row["length"]): row["value"]
        for row in outcome.rows
        if row["metric"] == metric and all(row[name] == value for name, value in fixed.items())
    }


def test_promised_and_counted(found):
    promised, counted = values(found, "multiplications"), values(found, "counted")
    band = np.eye(16, dtype=bool)
    band |= np.eye(16, k=1, dtype=bool) | np.eye(16, k=-1, dtype=bool)
    own = {
        "top-k": TopK(4),
        "window": Window(8),
        "random-mask": RandomMask(4),
        "blocks": BlockSparse(band, 16),
        "linear-features": LinearFeatures(),
        "random-features": RandomFeatures(32),
    }
    for member, structure in own.items():
        cost = structure.cost(256, 256, 16)
        assert promised[member, "forward", 256] == cost.multiplications
        assert values(found, "bytes")[member, "forward", 256] == cost.bytes
    assert promised["softmax", "forward", 128] == 2 * 128**2 * 16
    away = abs(np.arange(64) - np.arange(64)[:, None])
    assert counted["window", "forward", 64] == 2 * 16 * (away <= 8).sum()
    assert counted["random-features", "forward", 64] == 2 * (64 + 64) * 32 * 16
    assert {key[0] for key in counted} == {member for member in OURS if protocol.MEMBERS[member] == 1}
    assert counted == {key: promised[key] for key in counted}
    assert f"In {len(counted)} of {len(counted)} settings the multiplications promised" in found.report


def test_times_and_memory(found):
    times = values(found, "time")
    assert {(member, "forward", n) for member in OURS for n in (64, 128, 256)} <= times.keys()
    assert {(member, "backward", n) for member in OURS for n in (64, 128, 256)} <= times.keys()
    assert all(0 < value < 60 for value in times.values())
    memory = values(found, "memory")
    assert memory.keys() == (times.keys() if resources.can_measure_peak() else set())
    assert all(value >= 0 for value in memory.values())


@pytest.mark.resources
def test_peak_is_that_of_the_call():
    if not resources.can_measure_peak():
        pytest.skip("this system does not tell the peak of memory")
    size = 64 * 2**20  # other threads of a test process, and what it has freed, come and go by a MiB or two
    assert abs(resources.peak(lambda: np.ones(size, np.uint8)) - size) < size / 16
    assert resources.peak(lambda: None) < size / 16  # what came before is forgotten


def test_seconds():
    waits = iter([0.2, *[0.001] * 1000])
    median, spread = resources.seconds(lambda: time.sleep(next(waits)), 4)
    assert 0.001 <= median < 0.1
    assert spread > 10  # the upper quartile has a part of the longest


def test_exponent():
    assert resources.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert resources.exponent([1, 2, 4], [0, 5, 10]) == pytest.approx(1)  # zeros are left out
    assert math.isnan(resources.exponent([1, 2], [0, 5]))


def test_nothing_is_measured_twice(found, monkeypatch):
    before = found.table.read_bytes()
    monkeypatch.setattr(protocol, "measure", None)  # calling it would fail
    again = study.run(found.table.parent, **SMALL, members=OURS)
    assert again.rows == found.rows
    assert again.report == found.report
    assert found.table.read_bytes() == before


def test_an_interrupted_table_is_continued(tmp_path):
    """What was measured is kept; what is measured anew is the same, but for times and memory."""
    options = SMALL | {"last": 7, "members": "window"}
    before = study.run(tmp_path, **options)
    lines = before.table.read_bytes().splitlines(keepends=True)
    before.table.write_bytes(b"".join(lines[:-1]))  # of the second setting a row is missing
    after = study.run(tmp_path, **options)
    kept = (len(lines) + 1) // 2
    assert after.table.read_bytes().splitlines(keepends=True)[:kept] == lines[:kept]
    assert len(after.rows) == len(before.rows)
    for metric in ("multiplications", "bytes", "counted"):
        assert values(after, metric) == values(before, metric)


def test_lengths_beyond_the_budget_are_left_out_and_named(tmp_path):
    most = 2 * 128**2 * 16  # of full pairs up to 128
    outcome = study.run(tmp_path, **SMALL, members=["softmax", "window"], most_multiplications=most)
    assert values(outcome, "time", direction="forward").keys() == {
        *(("softmax", "forward", n) for n in (64, 128)),
        *(("window", "forward", n) for n in (64, 128, 256)),
    }
    text = " ".join(outcome.report.split())
    assert "Length 256 of softmax: an update takes more than 524288 multiplications" in text


def test_report_and_figures(found):
    assert all(path.exists() for path in found.figures)
    text = " ".join(found.report.split())
    for words in ("Milliseconds, forward", "Exponents in the length, fitted from 64 on, of up to 3 lengths", "float32"):
        assert words in text
    for member in OURS:
        assert (member, "backward", 64) in values(found, "time")


def summary(times, torch="2", memory=None, spread=1.0):
    """What would come out of these times of forward passes: member -> time by length."""
    rows = [
        {"member": member, "direction": "forward", "length": n, "seed": 0, "metric": metric, "value": value(n)}
        for member, time in times.items()
        for n in (64, 128, 256)
        for metric, value in (
            ("time", time),
            ("spread", lambda n: spread if n == 64 else 1.0),
            ("multiplications", lambda n: 2 * n),
            ("bytes", lambda n: 100 * n),
            ("counted", lambda n: n),
            *([("memory", memory)] if memory else ()),
        )
    ]
    return study.Summary(rows, study.Options(**SMALL, members=list(times)), 2, torch)


def test_report_is_honest():
    """Of numbers that are not what theory says it says so."""
    good = study.report_text(
        summary({"torch": lambda n: 1e-6 * n**2, "window": lambda n: 1e-4 * n}, memory=lambda n: 99 * n)
    )
    bad = study.report_text(
        summary({"torch": lambda n: 1e-6 * n**2, "window": lambda n: n**2.0}, memory=lambda n: n**3.0)
    )
    good, bad = (" ".join(text.split()) for text in (good, bad))
    assert "Time, forward: 2 of 2 exponents are at most 0.15 above" in good
    assert "Time, forward: 1 of 2 exponents are at most 0.15 above what theory says; not those of window (2.00)" in bad
    assert "Memory, forward: 0 of 2" in bad
    assert "Faster than PyTorch's fused attention, forward: window from 128 on (2.56 times as fast at 256)" in good
    assert "Faster" not in bad
    assert "Slower at the longest length that both have, forward: window (1e+06 times its time at 256)" in bad
    assert "stays within the bytes promised (those of pairs are for one thread) at every length for 2 of 2" in good
    assert "not for torch (6.6e+02 times at 256)" in bad
    assert "In 0 of 6 settings the multiplications promised are those counted" in good
    assert "Nothing was left out." in good
    assert "PyTorch is not installed" not in good
    assert "by more than 1.5 in 0 of 6 settings." in good


def test_a_busy_machine_is_named():
    text = " ".join(study.report_text(summary({"torch": lambda n: n, "window": lambda n: n}, spread=7.0)).split())
    assert "a median of 1.00, and by more than 1.5 in 2 of 6 settings (most, 7, for torch, forward, at 64)" in text


def test_report_says_what_is_missing():
    text = study.report_text(summary({"window": lambda n: n}, torch=None))
    text = " ".join(text.split())
    for words in (
        "PyTorch is not installed: its rows",
        "Memory: this system does not",
    ):
        assert words in text
    assert "shares of torch's" not in text
    assert "Memory in MiB" not in text


def test_without_pytorch_its_rows_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "torch_version", lambda: None)
    outcome = study.run(tmp_path, **SMALL | {"last": 6}, members=["window", "torch", "torch-window"])
    assert {row["member"] for row in outcome.rows} == {"window"}
    assert "PyTorch is not installed" in outcome.report
    with pytest.raises(ValueError, match="members: PyTorch is not installed"):
        study.run(tmp_path / "none", **SMALL, members="torch")


@pytest.mark.parametrize(("n", "w"), [(100, 7), (64, 64), (50, 64), (65, 1)])
def test_window_of_pytorch_is_the_window(n, w):
    torch = pytest.importorskip("torch", reason="compared with PyTorch where it is installed")
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((n, 8), dtype=np.float32) for _ in range(2))
    found = protocol.torch_window(*(torch.from_numpy(x) for x in (q, k, k)), 0.3, w).numpy()
    want = sh.update(q, k, 0.3, separation="softmax", structure=Window(w))
    np.testing.assert_allclose(found, want, atol=2e-6)


@pytest.mark.parametrize("member", [*SMOOTH, "torch-window"])
def test_backward_gives_gradients(member):
    """Of each input, along a direction: the difference quotient of what the forward pass gives."""
    if protocol.is_torch(member):
        pytest.importorskip("torch", reason="compared with PyTorch where it is installed")
    a = protocol.Arrays(64, SIZES, 0)
    _, gradients = protocol.make_passes(member, a, SIZES)()()
    for name, gradient in zip("qkv", gradients, strict=False):
        x = getattr(a, name)
        way = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
        outs = []
        for step in (1e-2, -1e-2):
            moved = protocol.Arrays(64, SIZES, 0)
            setattr(moved, name, x + np.float32(step) * way)
            out, _ = protocol.make_passes(member, moved, SIZES)()()
            outs.append(float((np.ravel(out.detach() if protocol.is_torch(member) else out) * a.g.ravel()).sum()))
        slope = (outs[0] - outs[1]) / 2e-2
        assert float((np.ravel(gradient) * way.ravel()).sum()) == pytest.approx(slope, rel=2e-2, abs=2e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": "windows"}, "members: unknown name 'windows'"),
        ({"first": 5}, "first: must be at least 6"),
        ({"last": 5}, "last: must be at least 6"),
        ({"fit_from": 5}, "fit_from: must be at least 6"),
        ({"window": 0}, "window: must be at least 1"),
        ({"block": 24}, "block: must be a power of two"),
        ({"repeats": 0}, "repeats: must be at least 1"),
        ({"most_multiplications": 0}, "most_multiplications: must be above 0"),
        ({"most_multiplications": 1}, "most_multiplications is too small"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
