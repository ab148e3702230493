"""The study of repertoires: its table, resumed and not, its numbers, files, and what it refuses."""

import csv
import itertools

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from sparsehopfield.data.repertoires import AMINO_ACIDS, simulate
from sparsehopfield.studies import repertoire
from sparsehopfield.studies.repertoire import protocol

SMALL = {"sizes": 150, "rates": 0.1, "bags": 20, "tested": 10, "epochs": 3, "features": 24, "gap": 0, "deletion": 0}


def run(folder, **options):
    return repertoire.run(folder, progress=False, **{**SMALL, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repertoire")
    return folder, run(folder, runs=2)


def test_an_interrupted_table_is_continued_to_the_same(tmp_path, whole, monkeypatch):
    folder, complete = whole
    measured = []

    def stopped(*arguments):
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(arguments)
        return protocol.evaluate(*arguments)

    monkeypatch.setattr(repertoire, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, runs=2)
    monkeypatch.undo()
    parts = run(tmp_path, runs=2)
    assert parts.table.read_bytes() == complete.table.read_bytes()
    names = {path.name for path in (folder / "sequences").iterdir()}
    assert names == {f"150-0.1-{model}-{number}.csv" for model in protocol.ALPHA for number in range(2)}
    for name in names:
        assert (tmp_path / "sequences" / name).read_bytes() == (folder / "sequences" / name).read_bytes()


def test_the_table_says_what_the_maps_do(whole):
    folder, complete = whole
    values = {(row["model"], row["run"], row["metric"]): row["value"] for row in complete.rows}
    for number in range(2):
        assert values["motif", number, "auc"] == 1.0  # a motif in a tenth of the sequences is never there by chance
        assert values["softmax", number, "support"] == 150
        assert values["softmax", number, "recall"] == 1.0
        assert values["softmax", number, "precision"] == pytest.approx(0.1, abs=0.03)
        assert values["sparsemax", number, "support"] < 150
        assert values["sparsemax", number, "precision"] > values["softmax", number, "precision"]
        assert not {name for model, _, name in values if model == "counts"} - set(protocol.WHOLE)
    for words in ("sparsemax - softmax: area under the curve", "150 sequences, 10 % of them with a motif", "> 1/n"):
        assert words in complete.report
    with (folder / "sequences" / "150-0.1-sparsemax-0.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["repertoire"] for row in rows}) == protocol.KEPT
    assert all(float(row["weight"]) > 0 for row in rows)
    assert len(complete.figures) == 2


def test_repertoires_are_drawn_whatever_the_order():
    options = {
        name: repertoire.Options(**SMALL).__getattribute__(name) for name in protocol.Source.__dataclass_fields__
    }
    source = protocol.Source(**options)
    (train, test), (again, _) = (source.repertoires(150, 0.1, 7) for _ in range(2))
    assert [len(part) for part in (train, test)] == [10, 5]
    assert all(np.array_equal(a.sequences, b.sequences) for a, b in zip(train, again, strict=True))
    assert len({one.motifs for one in (*train, *test)}) == 1
    assert not np.array_equal(train[0].sequences, test[0].sequences)


def test_shares_and_their_choice_are_those_of_plain_loops():
    made = [simulate(2, 40, 0.5, motifs="WHMK", seed=seed) for seed in range(5)]
    part = protocol.Part(made, 2, True)
    bags, labels = [], []
    for one in made:
        for index in range(2):
            bag = np.zeros(400)
            for row in range(index * 40, (index + 1) * 40):
                word = one.sequences[row].decode()
                for first, second in itertools.pairwise(word):
                    number = 20 * AMINO_ACIDS.index(first) + AMINO_ACIDS.index(second)
                    bag[number] += 1 + np.log(one.counts[row])
            bags.append(np.sqrt(bag / 40))
            labels.append(index)
    assert np.allclose(part.shares, bags)
    assert part.labels.tolist() == labels
    chosen = protocol.differing(part.shares, part.labels, 3)
    with np.errstate(all="ignore"):
        varying = np.flatnonzero(np.ptp(part.shares, axis=0))
        values = f_classif(part.shares[:, varying], part.labels)[0]
    assert set(chosen) == set(varying[np.argsort(-values)[:3]])
    sparse = part.bags(chosen)
    assert len(sparse) == 10
    assert sparse[3].shape == (40, 3)
    assert part.single(3).names == ("00001",)
    assert np.allclose(np.sqrt(sparse[3].mean(axis=0)), part.shares[3, chosen])


def test_what_has_weight_is_held_against_what_was_implanted():
    weights, implanted = np.array([0.0, 0.6, 0.3, 0.1, 0.0]), np.array([True, True, False, True, False])
    found = protocol.looks_of(weights, implanted)
    assert found["support"] == 3
    assert found["found"] == 1
    assert found["key weight"] == pytest.approx(0.7)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["precision above 1/n"] == found["recall above 1/n"] * 3 / 2 == pytest.approx(1 / 2)
    assert found["average precision"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


@pytest.fixture
def cohort(tmp_path):
    folder = tmp_path / "cohort"
    folder.mkdir()
    made = simulate(18, 60, 0.4, motifs="WHMK", seed=0)
    lines = ["repertoire_id\tstatus"]
    for index, name in enumerate(made.names):
        one = made.part(index, index + 1)
        rows = [f"{word.decode()}\t{count}" for word, count in zip(one.sequences, one.counts, strict=True)]
        (folder / f"{name}.tsv").write_text("\n".join(["junction_aa\tduplicate_count", *rows]) + "\n")
        lines.append(f"{name}\t{'+-'[1 - one.labels[0]]}")
    (folder / "labels.tsv").write_text("\n".join(lines) + "\n")
    return folder / "labels.tsv"


def test_files_are_split_by_run(tmp_path, cohort):
    models = ("sparsemax", "counts", "motif")
    options = {"file": cohort, "label": "status", "models": models, "counts": True, "runs": 2, "epochs": 2}
    found = run(tmp_path / "out", **options)
    assert {(row["size"], row["rate"], row["model"]) for row in found.rows} == {
        ("-", "-", "sparsemax"),
        ("-", "-", "counts"),
    }
    assert {row["metric"] for row in found.rows} == {"auc", "accuracy", "support"}
    assert "Repertoires of labels.tsv, 2 runs" in found.report
    assert found.figures == []
    source = protocol.Source(str(cohort), "status", None, 0, 0, 1, 0, 0, 3, 24, True)
    splits = [source.repertoires("-", "-", seed) for seed in range(2)]
    for train, test in splits:
        assert [one.labels[0] for one in test].count(1) == [one.labels[0] for one in test].count(0) == 3
        assert len({one.names for one in (*train, *test)}) == 18
    assert {one.names for one in splits[0][1]} != {one.names for one in splits[1][1]}
    with pytest.raises(ValueError, match="column label"):
        run(tmp_path / "other", file=cohort)
    with pytest.raises(FileNotFoundError, match="repertoire_id"):
        run(tmp_path / "third", file=tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": "hardmax"}, "models: unknown"),
        ({"sizes": 0}, "sizes: "),
        ({"rates": 0.0}, "rates: "),
        ({"rates": 1.5}, "rates: "),
        ({"gap": -1.0}, "gap: "),
        ({"anneal": 2.0}, "anneal: "),
        ({"bags": 11}, "bags: must be even"),
        ({"bags": 4}, "bags: "),
        ({"tested": 0}, "tested: "),
        ({"k": 5}, "k: "),
        ({"features": 0}, "features: "),
        ({"file": "x", "models": "motif"}, "models: nobody knows"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
