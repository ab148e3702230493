"""The study of repertoires: its table, resumed and not, its numbers, files, and what it refuses."""

import csv
import itertools
import shutil

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from sparsehopfield.data.repertoires import AMINO_ACIDS, simulate
from sparsehopfield.errors import FileFormatError
from sparsehopfield.studies import repertoire
from sparsehopfield.studies.repertoire import protocol

SMALL = {
    "k": 2,
    "sizes": 150,
    "rates": 0.1,
    "bags": 20,
    "tested": 10,
    "epochs": 3,
    "features": 24,
    "gap": 0,
    "deletion": 0,
}


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
        name: getattr(repertoire.Options(**SMALL), name)
        for name in protocol.Source.__dataclass_fields__
        if name != "digest"
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


def test_models_without_a_network_are_reported(tmp_path):
    found = run(tmp_path / "motif", models="motif", gap=0.5)
    assert {row["metric"] for row in found.rows} == {"auc", "accuracy"}
    assert "largest area under the curve: motif" in found.report
    assert "only whole motifs are counted" in " ".join(found.report.split())
    for word in ("support", "precision", "k-mers"):
        assert word not in found.report
    found = run(tmp_path / "counts", models=("counts", "motif"))
    assert "largest area under the curve: counts" in found.report


def test_the_threshold_of_a_count_is_that_of_most_right_labels():
    labels = np.array([0, 0, 0, 1, 1, 1])
    for scores, threshold in (
        ([3, 4, 2, 6, 9, 8], 5.0),  # as where a motif is in every repertoire by chance
        ([0, 0, 0, 0, 2, 2], 1.0),
        ([1, 1, 1, 1, 1, 1], 0.0),
        ([2, 2, 2, 1, 1, 1], 0.0),
    ):
        assert protocol.best_threshold(labels, np.array(scores, float)) == threshold
    made = simulate(2, 4, 0.5, motifs="WHMK", gap=0, deletion=0, seed=0)
    words = np.array([b"CAWHMKF", b"CASWHMK", b"CAWHGMK", b"CASSF"] * 2, "S7")
    one = protocol.replace(made, sequences=words)
    assert protocol.motif_counts(protocol.Part([one], 3, False)).tolist() == [2, 2]


def test_models_of_one_draw_are_measured_by_one_process(tmp_path, monkeypatch):
    groups = []

    def measured(output, study, chosen, settings, *arguments, together, **options):
        groups.extend(list(some) for _, some in itertools.groupby(settings, together))
        raise KeyboardInterrupt

    monkeypatch.setattr(repertoire, "measure_table", measured)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, runs=2, rates=(0.1, 0.2))
    assert [len(group) for group in groups] == [len(protocol.MODELS)] * 4
    assert all(len({setting["seed"] for setting in group}) == 1 for group in groups)


def write_cohort(folder, numbers=range(18), seed=0):
    folder.mkdir()
    made = simulate(18, 60, 0.4, motifs="WHMK", seed=seed)
    lines = ["repertoire_id\tstatus"]
    for index, name in enumerate(made.names):
        if index not in numbers:
            continue
        one = made.part(index, index + 1)
        rows = [f"{word.decode()}\t{count}" for word, count in zip(one.sequences, one.counts, strict=True)]
        (folder / f"{name}.tsv").write_text("\n".join(["junction_aa\tduplicate_count", *rows]) + "\n")
        lines.append(f"{name}\t{'+-'[1 - one.labels[0]]}")
    (folder / "labels.tsv").write_text("\n".join(lines) + "\n")
    return folder / "labels.tsv"


@pytest.fixture
def cohort(tmp_path):
    return write_cohort(tmp_path / "cohort")


def test_a_table_belongs_to_what_its_file_holds(tmp_path, cohort):
    options = {"label": "status", "models": "counts"}
    first = run(tmp_path / "out", file=cohort, **options)
    (tmp_path / "moved").mkdir()
    moved = shutil.copytree(cohort.parent, tmp_path / "moved" / "here") / "cohort.tsv"
    cohort.with_name("labels.tsv").replace(moved)
    before = first.table.read_bytes()
    assert run(tmp_path / "out", file=str(moved), **options).rows == first.rows
    assert first.table.read_bytes() == before
    source = protocol.Source(str(moved), "status", None, 0, 0, 1, 0, 0, 3, 24, False).pinned(["counts"])
    source.repertoires("-", "-", 0)
    changed = write_cohort(tmp_path / "changed", seed=1)
    for file in changed.parent.glob("0*.tsv"):
        file.replace(moved.parent / file.name)  # the same paths, in the same process
    with pytest.raises(ValueError, match="repertoires"):
        run(tmp_path / "out", file=moved, **options)
    protocol._FILES.clear()  # as in another process
    with pytest.raises(FileFormatError, match="changed while its repertoires"):
        source.repertoires("-", "-", 0)


@pytest.mark.parametrize(
    ("numbers", "models", "message"),
    [
        (
            (0, 1, 2, 3),
            "counts",
            r"needs at least 3 .* and 4 to .* has 2 positive and 2 negative, and 2 of",
        ),
        (
            range(6),
            "softmax",
            "file: needs at least 3 .* and 6 to .* has 3 positive and 3 negative, and 4 of",
        ),
        ((0, 1, *range(2, 18, 2)), "softmax", "has 1 positive and 9 negative"),
    ],
)
def test_too_few_repertoires_are_named_before_any_work(tmp_path, numbers, models, message):
    cohort = write_cohort(tmp_path / "cohort", numbers)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", file=cohort, label="status", models=models)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("numbers", "models"), [(range(6), "counts"), (range(8), "softmax")])
def test_the_fewest_repertoires_suffice(tmp_path, numbers, models):
    cohort = write_cohort(tmp_path / "cohort", numbers)
    run(tmp_path / "out", file=cohort, label="status", models=models, epochs=1)


def test_repertoires_that_nothing_distinguishes_are_refused(tmp_path, cohort):
    for file in cohort.parent.glob("0*.tsv"):
        file.write_text("junction_aa\nCASSLGF\n")
    for models in ("counts", "softmax"):
        with pytest.raises(ValueError, match="file: the repertoires to train with have each k-mer equally often"):
            run(tmp_path / models, file=cohort, label="status", models=models)
    (cohort.parent / "00001.tsv").write_text("junction_aa\nCASSIGF\n")  # in some folds all are the same then
    source = protocol.Source(str(cohort), "status", None, 0, 0, 1, 0, 0, 3, 24, False)
    seed = next(
        seed for seed in range(9) if any(one.names == ("00001",) for one in source.repertoires("-", "-", seed)[0])
    )
    with pytest.raises(ValueError, match="models: counts cannot be fitted"):
        protocol.by_counts(protocol.task_of(source, "-", "-", seed), 0)


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
