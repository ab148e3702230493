"""The study of the family: what is measured of each member, what its bound is held against, and what is said of it."""

import csv

import numpy as np
import pytest
from scipy.special import softmax

from sparsehopfield import reference
from sparsehopfield._engine.structure import KINDS
from sparsehopfield.data import datasets
from sparsehopfield.studies import family as study
from sparsehopfield.studies.family import bags as family_bags
from sparsehopfield.studies.family import protocol
from sparsehopfield.studies.family import report as family_report
from sparsehopfield.theory import structures as theory_structures

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')

pytestmark = pytest.mark.usefixtures("undrawn")  # `found` has its figures

SMALL = {
    "sizes": (16, 64),
    "pairs": (4, 32),
    "windows": 2,
    "blocks": 4,
    "features": 32,
    "betas": (3.0, 30.0),
    "queries": 12,
    "runs": 1,
    "bag_sizes": 6,
    "bag_members": "softmax",
    "progress": False,
}
BUDGET = {"topk": 4, "random": 24, "window": 3, "blocks": 4, "features": 64}
BUDGET |= dict.fromkeys(protocol.OTHERS, 6)
WHO = [
    (member, BUDGET.get(member, 0), place)
    for member in protocol.MEMBERS
    for place in (protocol.PLACES if member in protocol.PLACED else ("-",))
]


def make_task(damage="mask", size=48, queries=12, seed=3, betas=(3.0, 30.0), threshold=0.1):
    options = {"side": "lower", "noise": 0.3, "betas": betas, "threshold": threshold, "seed": seed}
    return protocol.make_task(datasets.load("digits"), size, queries, damage, **options)


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return study.run(tmp_path_factory.mktemp("family"), **SMALL)


# One member


@pytest.mark.parametrize("damage", protocol.DAMAGES)
def test_task(damage):
    task = make_task(damage)
    for rows in (task.patterns, task.choosing.queries, task.reported.queries):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert len(task.choosing.targets) == len(task.reported.targets) == 12
    assert not set(task.choosing.targets) & set(task.reported.targets)
    hidden = task.reported.queries.reshape(-1, 8, 8)[:, 4:]
    assert hidden.any() == (damage == "noise")
    assert len(make_task(size=9).reported.targets) == 4  # at most half of the patterns


def expected(task, member, budget, place, beta, asked):
    """The update and the patterns looked at, by NumPy in float64."""
    x, X, mu = asked.queries.astype(float), task.patterns.astype(float), asked.targets
    scores, every = x @ X.T, np.ones((len(x), len(X)), bool)
    centres = mu if place == "oracle" else np.random.default_rng(task.seed).integers(len(X), size=len(x))
    columns = np.arange(len(X))
    mask = every
    if member == "topk":
        mask = scores >= np.sort(scores, axis=1)[:, -budget, None]
    elif member == "window":
        mask = abs(columns - centres[:, None]) <= budget
    elif member == "blocks":
        mask = columns // (len(X) // budget) == centres[:, None] // (len(X) // budget)
    elif member == "random":
        mask = protocol.RandomMask(budget, task.seed).mask(len(x), len(X))
    elif member in protocol.OTHERS:
        mask = KINDS[member].sized(budget, len(X), centres).mask(len(x), len(X))
    if member in ("sparsemax", "entmax15"):
        weights = reference.entmax(beta * scores, alpha=2.0 if member == "sparsemax" else 1.5)
    elif member in ("elu+1", "relu", "features"):
        if member == "features":
            W = np.random.default_rng(task.seed).standard_normal((budget, X.shape[1]))

        def phi(rows):
            if member == "relu":
                return np.maximum(rows, 0)
            if member == "elu+1":
                return np.where(rows > 0, 1 + rows * beta**0.5, np.exp(np.minimum(rows, 0) * beta**0.5))
            return np.exp(beta**0.5 * rows @ W.T - beta * (rows**2).sum(axis=1, keepdims=True) / 2)

        kernel = phi(x) @ phi(X).T
        weights = kernel / kernel.sum(axis=1, keepdims=True)
    else:
        weights = softmax(np.where(mask, beta * scores, -np.inf), axis=1)
    return weights @ X, mask


def by_hand(task, member, budget, place, beta, asked):
    states, mask = expected(task, member, budget, place, beta, asked)
    targets = task.patterns[asked.targets].astype(float)
    cosines = (states * targets).sum(axis=1) / np.linalg.norm(states, axis=1) / np.linalg.norm(targets, axis=1)
    right, seen = 1 - cosines < task.threshold, mask[np.arange(len(mask)), asked.targets]
    return {
        "retrieved": right.mean(),
        "cosine": cosines.mean(),
        "error": np.linalg.norm(states - targets, axis=1).mean(),
        "seen": seen.mean(),
        "found": (right & seen).mean(),
    }


@pytest.mark.parametrize(("member", "budget", "place"), WHO, ids=str)
def test_measured_as_by_hand(task, member, budget, place):
    values = protocol.measure(task, member, budget, place)
    assert [*values] == list(dict.fromkeys([*values]))
    assert {*protocol.metrics_of(member), "seconds"} <= {*values}
    assert values["seconds"] > 0
    # beta is the best on the queries to choose by, and what is reported is of others
    merits = {
        beta: tuple(by_hand(task, member, budget, place, beta, task.choosing)[m] for m in ("retrieved", "cosine"))
        for beta in task.betas
    }
    assert values["beta"] == max(merits, key=lambda beta: merits[beta])
    for metric, value in by_hand(task, member, budget, place, values["beta"], task.reported).items():
        assert values[metric] == pytest.approx(value, abs=1e-4), metric
    if place == "oracle":
        assert values["seen"] == 1
    for which in ("upper", "lower"):
        if f"{which} checked" in values:
            assert values[f"{which} broken"] == 0 or member == "features"


def test_multiplications(task):
    m, d, n = 48, 64, 12
    values = {who: protocol.measure(task, *who)["multiplications"] for who in WHO if who[2] != "blind"}
    assert values["softmax", 0, "-"] == 2 * m * d
    assert values["topk", 4, "-"] == m * d + 4 * d
    assert values["random", 24, "-"] == 2 * 24 * d
    assert values["blocks", 4, "oracle"] == 2 * 12 * d
    assert values["elu+1", 0, "-"] == d * d
    assert values["features", 64, "-"] == 2 * 64 * d  # its projection, and the mixture of its sums
    pairs = expected(task, "window", 3, "oracle", 1.0, task.reported)[1].sum()
    assert values["window", 3, "oracle"] == 2 * pairs * d / n


def test_bounds_are_those_of_the_theory(task):
    x, X, mu = task.reported.queries.astype(float), task.patterns.astype(float), task.reported.targets
    values = protocol.measure(task, "random", 24, "-")
    states, mask = expected(task, "random", 24, "-", values["beta"], task.reported)
    seen, errors = mask[np.arange(12), mu], np.linalg.norm(states - X[mu], axis=1)
    assert 0 < seen.sum() < 12
    bound = np.minimum(theory_structures.masked_bound(x, X, mu, mask, values["beta"]), 2)
    assert values["upper checked"] == seen.sum()
    assert values["upper bound"] == pytest.approx(bound[seen].mean())
    assert values["upper measured"] == pytest.approx(errors[seen].mean(), abs=1e-4)
    unseen = np.flatnonzero(~seen)[: protocol.HULLS]
    hull = [theory_structures.hull_distance(X[mu[i]], X[mask[i]]) for i in unseen]
    assert values["lower bound"] == pytest.approx(np.mean(hull))
    assert values["lower measured"] == pytest.approx(errors[unseen].mean(), abs=1e-4)


def test_a_bound_that_does_not_hold_is_counted(task, monkeypatch):
    monkeypatch.setattr(theory_structures, "masked_bound", lambda *a: np.full(12, 1e-9))
    monkeypatch.setattr(theory_structures, "hull_distance", lambda *a: 5.0)
    values = protocol.measure(task, "random", 24, "-")
    assert values["upper broken"] > 0
    assert values["lower broken"] == values["lower checked"] > 0


def test_kernel_errors():
    rng = np.random.default_rng(0)
    x, y, structure = 0.3 * rng.standard_normal((3, 5)), rng.standard_normal((3, 5)), protocol.RandomFeatures(16, 1)
    W = structure.projection(5)
    phi = [np.exp(2**0.5 * a @ W.T - (a**2).sum(axis=1, keepdims=True)) / 4 for a in (x, y)]
    kernel = np.exp(2.0 * (x * y).sum(axis=1))
    wanted = abs((phi[0] * phi[1]).sum(axis=1) / kernel - 1)
    np.testing.assert_allclose(protocol.kernel_errors(structure, x, y, 2.0), wanted, rtol=1e-9)


def test_linear_weight_bound_of_some():
    X = np.random.default_rng(1).standard_normal((9, 4))
    every = theory_structures.linear_weight_bound(X, 2.0)
    np.testing.assert_array_equal(theory_structures.linear_weight_bound(X, 2.0, [7, -9]), every[[7, 0]])
    with pytest.raises(IndexError):
        theory_structures.linear_weight_bound(X, 2.0, 9)


# Bags


def test_bags():
    values = family_bags.measure("softmax", 0, 6, seed=2)
    again = family_bags.measure("softmax", 0, 6, seed=2)
    assert {**values, "seconds": 0} == {**again, "seconds": 0}
    assert values["accuracy"] > 0.9
    assert values["beta"] in family_bags.BETAS
    every = family_bags.measure("topk", 6, 6, seed=2)  # all of the bag
    assert [every[m] for m in ("beta", "accuracy")] == [values[m] for m in ("beta", "accuracy")]
    assert family_bags.measure("random", 1, 6, seed=2)["accuracy"] < values["accuracy"] - 0.2


def test_blocks_of_a_bag():
    blocks = family_bags.structure_of("blocks", 3, 10, 0)
    assert blocks.mask(10, 10).sum(axis=1).tolist() == [4] * 4 + [3] * 6
    assert family_bags.measure("blocks", 2, 6, seed=2)["accuracy"] > 0.5


def test_a_window_of_a_bag_is_averaged():
    mean = family_bags.Classifier("window", family_bags.structure_of("window", 1, 6, 0), 1.0, 4, 0)
    rng = np.random.default_rng(0)
    rows, labels = rng.choice([-1.0, 1.0], (64, 5, 4)).astype(np.float32), np.arange(64) % 2
    rows[labels == 1, 0], rows[labels == 0, :, 0] = 1, -1
    before = mean.judge(rows, labels)
    for _ in range(30):
        mean.step(rows, labels.astype(np.float32))
    assert mean.judge(rows, labels)[0] == 1 > before[0]


# The table


def test_table(found):
    with open(found.table, encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{name: str(v) for name, v in row.items()} for row in found.rows]
    whos = {(r["size"], r["member"], r["budget"], r["place"]) for r in found.rows if r["part"] == "retrieval"}
    assert {who[2] for who in whos if who[:2] == (16, "topk")} == {4}  # 32 would be all pairs
    assert {who[2] for who in whos if who[:2] == (64, "random")} == {4, 32}
    assert {who[3] for who in whos if who[1] == "window"} == {*protocol.PLACES}
    for size, damage in ((16, "mask"), (64, "noise")):
        row = next(r for r in found.rows if r["size"] == size and r["damage"] == damage)
        task = make_task(damage, size, seed=row["seed"])
        member = protocol.measure(task, "topk", 4, "-")
        key = {"part": "retrieval", "damage": damage, "size": size, "member": "topk", "budget": 4}
        rows = {r["metric"]: r["value"] for r in found.rows if key.items() <= r.items()}
        assert rows == {name: member[name] for name in protocol.metrics_of("topk")}


@pytest.mark.depth
@pytest.mark.usefixtures("undrawn")
def test_the_same_table_again_and_for_any_number_of_jobs(found, tmp_path):
    assert study.run(tmp_path / "two", **SMALL, jobs=2).rows == found.rows
    whole = found.table.read_bytes()
    lines = whole.splitlines(keepends=True)
    found.table.write_bytes(b"".join(lines[: len(lines) // 2]))
    assert study.run(found.table.parent, **SMALL).rows == found.rows
    assert found.table.read_bytes() == whole


def test_report_and_figures(found):
    assert [path.name for path in found.figures] == [
        f"family{part}.{ending}" for part in ("", "-sizes") for ending in ("png", "svg")
    ]
    assert all(path.stat().st_size for path in found.figures)
    for words in ("The family of memories", "window 2, oracle", "blocks 4, blind", "Bags of bit strings"):
        assert words in found.report
    checked = sum(r["value"] for r in found.rows if r["metric"][6:] == "checked" and r["member"] != "features")
    assert f"broken in 0 of {checked:.0f} checks" in plain(found.report)


def plain(text):
    """On one line."""
    return " ".join(text.split())


def changed(found, change):
    """The report of rows whose values were changed."""
    rows = [{**row, "value": change(row)} for row in found.rows]
    settings = dict.fromkeys(tuple(row[c] for c in family_report.COLUMNS) for row in rows)
    return plain(family_report.report_text(family_report.Summary(rows, [1e-6] * len(settings), study.Options(**SMALL))))


def test_report_is_honest(found):
    """Of other numbers it says something else."""
    assert "they are no memory" in plain(found.report)

    def linear(row):
        return 1.0 if row["metric"] == "retrieved" and row["member"] == "relu" else row["value"]

    assert "more than a tenth of what all pairs do" in changed(found, linear)
    assert "no number that is worth asking for" in plain(found.report)
    text = changed(found, lambda row: 30.0 if row["metric"] == "needed" else row["value"])
    assert "about 3e+01 features would be needed, which are there" in text

    def broken(row):
        return 3.0 if (row["metric"], row["member"]) == ("upper broken", "blocks") else row["value"]

    assert "by blocks (error <= 2m (k - 1) exp(-beta gap))." in changed(found, broken)

    def kernel(row):
        return 9.0 if (row["metric"], row["member"]) == ("upper broken", "features") else row["value"]

    assert "exceeded in these draws" in changed(found, kernel)

    def blind(row):
        return float(row["place"] != "oracle") if row["metric"] == "retrieved" else row["value"]

    assert "not always more than blind" in changed(found, blind)

    def lost(row):
        return float(row["member"] in protocol.FULL) if row["metric"] == "retrieved" else row["value"]

    assert "Without an oracle nothing else reaches 95%" in changed(found, lost)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": "topK"}, "members: unknown name 'topK'"),
        ({"bag_members": "block"}, "bag_members: unknown name 'block'"),
        ({"parts": "bag"}, "parts: unknown name"),
        ({"dataset": "letters"}, "dataset: unknown name"),
        ({"mask": "middle"}, "mask: unknown name"),
        ({"sizes": 18}, "sizes: must be multiples of the number of blocks, got 18 and 4"),
        ({"sizes": 2000}, "sizes: 2000 patterns are more than the 1797"),
        ({"sizes": 1, "members": "topk"}, "sizes: must be at least 2"),
        ({"pairs": 0}, "pairs: must be at least 1"),
        ({"blocks": 1}, "blocks: must be at least 2"),
        ({"betas": 0.0}, "betas: must be positive"),
        ({"noise": -1.0}, "noise: must be finite"),
        ({"threshold": 0.0}, "threshold: bounds 1 - cosine"),
        ({"sizes": 4, "members": "topk", "parts": "retrieval"}, "sizes: no budget leaves a pattern out"),
    ],
    ids=str,
)
def test_bad_options(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path, **SMALL | change)
