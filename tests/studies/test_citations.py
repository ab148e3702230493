"""The study of citations: its numbers against NumPy, its table, resumed and not, and what it refuses."""

import numpy as np
import pytest

from sparsehopfield import HopfieldMemory, reference
from sparsehopfield.studies import citations
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies.citations import protocol
from sparsehopfield.studies.citations.task import Source, Space, task_of, translated, unit_rows

for module in ("sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(module, reason=f'the studies need {module}: pip install "sparsehopfield[studies]"')


def made_passages(n, seed=0):
    """Sentences of 12 of 80 words."""
    rng = np.random.default_rng(seed)
    return tuple(" ".join(f"w{i}" for i in rng.integers(80, size=12)) for _ in range(n))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("citations") / "made.txt"
    path.write_text("\n".join(made_passages(150)))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder as Multi30k's: the translation of w7 is v7."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed, (part, n) in enumerate((("train", 200), ("val", 40), ("test_2016_flickr", 40))):
        lines = "\n".join(made_passages(n, seed)) + "\n"
        (folder / f"{part}.lc.norm.tok.en").write_text(lines)
        (folder / f"{part}.lc.norm.tok.de").write_text(lines.replace("w", "v"))
    return folder


def run(folder, **options):
    small = {"dims": 20, "without": (0.3, 0.6), "words": 3, "betas": (4, 16), "questions": 30, "progress": False}
    return citations.run(folder, **small | options)


def values_of(outcome):
    return {
        (row["questions"], row["left"], row["map"], row["beta"], row["metric"]): row["value"] for row in outcome.rows
    }


def test_an_interrupted_table_is_continued_to_the_same(tmp_path, data, monkeypatch):
    whole = run(tmp_path / "whole", data=data)
    evaluated = []

    def stopped(*arguments):
        if len(evaluated) == 7:
            raise KeyboardInterrupt
        evaluated.append(arguments)
        return protocol.evaluate(*arguments)

    monkeypatch.setattr(citations, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", data=data)
    monkeypatch.undo()
    for cached in (task_of, protocol._memory, protocol.beta_of):
        cached.cache_clear()
    parts = run(tmp_path / "parts", data=data)
    assert parts.table.read_bytes() == whole.table.read_bytes()
    assert len(whole.figures) == 4
    values = values_of(whole)
    assert values["translated", "-", "sparsemax", "chosen", "recall@1"] > 0.9
    assert values["without 0.3", "-", "sparsemax", "chosen", "recall@1"] > 0.5
    for kind in ("without 0.3", "without 0.6", "translated"):
        best = [values[kind, "-", "sparsemax", "chosen", f"recall@{k}"] for k in (1, 5, 10)]
        assert best == sorted(best)
        assert values[kind, "-", "sparsemax", 4.0, "certified"] <= values[kind, "-", "sparsemax", 16.0, "certified"]
    assert "Questions translated: sparsemax cites" in whole.report
    assert "From 3 words to 1, the support of sparsemax" in whole.report


@pytest.mark.parametrize("separation", ["softmax", "sparsemax", "entmax15"])
def test_measures_are_those_of_numpy(separation):
    rng = np.random.default_rng(0)
    vectors, at = unit_rows(rng.standard_normal((60, 8))), rng.choice(60, 25, replace=False)
    queries = unit_rows(vectors[at] + 0.4 * rng.standard_normal((25, 8)))
    queries[3] = 0  # no known word
    known = np.arange(25) != 3
    beta = {"entmax15": 16.0}.get(separation, 6.0)  # some questions are certified
    memory = HopfieldMemory(vectors, beta, separation=separation)
    found = protocol.measured(memory, queries, at)
    scores = queries[known].astype(float) @ vectors.T.astype(float)
    by_map = {"softmax": reference.softmax, "sparsemax": reference.sparsemax}
    weights = by_map.get(separation, lambda z: reference.entmax(z, 1.5))(beta * scores)
    of_source = weights[np.arange(24), at[known]]
    rank = (scores > scores[np.arange(24), at[known]][:, None]).sum(axis=1)
    for k in (1, 5, 10):
        assert found[f"recall@{k}"] == np.sum(rank < k) / 25
    assert found["unknown"] == pytest.approx(1 / 25)
    assert found["weight"] == pytest.approx(of_source.sum() / 25, abs=1e-5)
    assert found["support"] == pytest.approx(np.count_nonzero(weights, axis=1).mean())
    top = np.sort(scores, axis=1)
    assert found["gap"] == pytest.approx((top[:, -1] - top[:, -2]).mean(), abs=1e-6)
    if separation == "softmax":
        assert np.isnan(found["cited"])
        assert np.isnan(found["certified"])
        return
    assert found["cited"] == np.count_nonzero(of_source) / 25
    alone = np.count_nonzero(weights, axis=1) == 1
    assert found["certified"] == alone.sum() / 25
    assert found["right"] == pytest.approx((rank[alone] == 0).mean())
    assert found["others right"] == pytest.approx((rank[~alone] == 0).mean())
    nothing = protocol.measured(memory, np.zeros((2, 8), np.float32), at[:2])
    assert nothing["unknown"] == 1
    assert nothing["recall@10"] == nothing["cited"] == nothing["weight"] == 0
    assert np.isnan(nothing["support"])


def test_beta_is_that_of_the_least_squared_distance(file):
    source = Source(None, (str(file),), "lines", None, None, 20, None)
    task, kinds = task_of(source), ("without 0.3", "without 0.6")
    asked = [task.ask(kind, protocol.VALIDATED, derive_seed(5, 1, i), part=0) for i, kind in enumerate(kinds)]
    queries, at = (np.concatenate(part) for part in zip(*asked, strict=True))
    target = np.eye(len(task.vectors))[at]
    scores = queries.astype(float) @ task.vectors.T.astype(float)
    far = {b: ((reference.sparsemax(b * scores) - target) ** 2).sum() for b in protocol.BETAS["sparsemax"]}
    assert protocol.beta_of(source, "sparsemax", kinds, 5) == min(far, key=far.get)


def test_vague_questions_lose_word_by_word(file):
    task = task_of(Source(None, (str(file),), "lines", None, None, 20, None))
    said = []
    task.space = type("Listening", (), {"vectors": lambda self, texts: said.append(texts)})()
    try:
        _, at = task.vague((12, 5, 1), 20, 3)
    finally:
        task_of.cache_clear()
    assert len(at) == 20
    for full, some, one, i in zip(*said, at.tolist(), strict=True):
        assert full == task.words(i)
        assert len(one) == 1
        assert len(some) == 5
        rest = iter(full)
        assert all(word in rest for word in some)  # in their order
        assert one[0] in some


def test_a_space_has_no_vector_for_what_it_does_not_know():
    space = Space(made_passages(30), 5, [text.replace("w", "v") for text in made_passages(30)])
    vectors = space.vectors([["unheard", "of"], ["w1", "w2"], translated("v1 v2"), []])
    assert not vectors[[0, 3]].any()
    assert np.linalg.norm(vectors[1:3], axis=1) == pytest.approx(1)
    with pytest.raises(ValueError, match="dims: must be at most 29 for 30 passages"):
        Space(made_passages(30), 30)


def test_embeddings_from_elsewhere(tmp_path, file):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((150, 16))
    np.save(tmp_path / "passages.npy", vectors)
    np.save(tmp_path / "queries.npy", vectors[:40] + 0.3 * rng.standard_normal((40, 16)))
    given = {"embeddings": tmp_path / "passages.npy", "queries": tmp_path / "queries.npy"}
    values = values_of(run(tmp_path / "out", file=str(file), **given))
    assert values["given", "-", "sparsemax", "chosen", "recall@1"] > 0.9
    assert values["noise 0.3", "-", "entmax15", "chosen", "recall@1"] > 0.9
    assert not any(key[0] == "vague" for key in values)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("embeddings", np.ones((149, 4)), "embeddings: must have one row for each of the 150 passages, got 149"),
        ("embeddings", np.ones(150), "embeddings: must be numbers, at least 10 rows"),
        ("embeddings", np.where(np.arange(150)[:, None] == 7, 0.0, np.ones((150, 4))), "embeddings: row 7 is zero"),
        ("embeddings", np.where(np.arange(150)[:, None] == 9, np.nan, np.ones((150, 4))), "embeddings: row 9 is zero"),
        ("queries", np.ones((20, 5)), "queries: must have the 4 columns"),
        ("queries", np.ones((151, 4)), "queries: must have the 4 columns .* at most their 150 rows"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(tmp_path, file, name, array, message):
    np.save(tmp_path / "embeddings.npy", np.ones((150, 4)))
    np.save(tmp_path / f"{name}.npy", array)
    given = {name: tmp_path / f"{name}.npy" for name in {name, "embeddings"}}
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", file=str(file), **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"without": 1}, "without: "),
        ({"maps": "hard"}, "maps: unknown"),
        ({"dims": 0}, "dims: "),
        ({"dims": 500}, "dims: must be at most"),
        ({"passages": 3}, "passages: "),
        ({"split": "pages"}, "split: unknown"),
        ({"betas": -1}, "betas: "),
        ({"words": 13}, "words: fewer than 2 passages have 13 words"),
        ({"queries": "q.npy"}, "queries: are rows for"),
    ],
)
def test_bad_options_are_named(tmp_path, file, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, file=str(file), **options)


def test_missing_files_say_where_to_get_them(tmp_path, file):
    with pytest.raises(ValueError, match="multi30k"):
        run(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="multi30k"):
        run(tmp_path / "out", data=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        run(tmp_path / "out", file=str(tmp_path / "gone.txt"))
    with pytest.raises(FileNotFoundError, match=r"embeddings must name a \.npy file"):
        run(tmp_path / "out", embeddings=tmp_path / "gone.npy")
    (tmp_path / "no.npy").write_text("none")
    with pytest.raises(ValueError, match=r"no\.npy: damaged or unreadable \.npy file"):
        run(tmp_path / "out", embeddings=tmp_path / "no.npy")
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    with pytest.raises(ValueError, match="file: must have at least 10 passages, got 2"):
        run(tmp_path / "out", file=str(few))
