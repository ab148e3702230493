"""The study of citations: its numbers against NumPy, its table, resumed and not, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sparsehopfield import HopfieldMemory, reference
from sparsehopfield.__main__ import main
from sparsehopfield.studies import citations
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies._core.sources import digest
from sparsehopfield.studies.citations import protocol
from sparsehopfield.studies.citations.report import percent
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


@pytest.fixture
def without_figures(monkeypatch):
    """Draw none, which takes longer than all else."""
    monkeypatch.setattr(citations.plotting, "save", lambda figure, path: [])


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
    betas = 2.0 ** np.arange(-2, 11)
    far = {b: ((reference.sparsemax(b * scores) - target) ** 2).sum() for b in betas}
    assert protocol.beta_of(source, "sparsemax", kinds, 5) == min(far, key=far.get)
    assert not set(at.tolist()) & set(task.ask("without 0.3", 500, 5, part=1)[1].tolist())


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(("common", "end"), [(3.0, False), (20.0, True)])
def test_beta_is_searched_beyond_the_first_ones_and_an_end_is_named(tmp_path, common, end):
    rng = np.random.default_rng(0)
    near = np.eye(12) + 1e-4 * rng.standard_normal((12, 12)) + common  # cosines of 1 - 1/115, or 1 - 1/4,841
    np.save(tmp_path / "passages.npy", near)
    options = {"embeddings": tmp_path / "passages.npy", "without": 0, "betas": 4, "maps": "sparsemax"}
    outcome = citations.run(tmp_path / "out", progress=False, questions=10, **options)
    beta = values_of(outcome)["noise 0", "-", "sparsemax", "chosen", "beta used"]
    assert (beta in protocol.LIMITS["sparsemax"]) == end
    assert ("is at an end of those that were tried" in outcome.report) == end
    assert end or beta > max(protocol.BETAS["sparsemax"])


def test_no_passage_is_tested_with_that_beta_was_chosen_by(data, file):
    for source in (
        Source(str(data), (), "lines", None, None, 20, None),
        Source(None, (str(file),), "lines", None, None, 20, None),
    ):
        task = source.load()
        asked = [
            {at for kind in task.kinds((0.3, 0.6)) for at in task.ask(kind, 1000, seed, part=part)[1].tolist()}
            for part, seed in ((0, 1), (1, 2))
        ]
        assert all(asked)
        assert not asked[0] & asked[1]
        assert not asked[0] & set(task.vague((3, 1), 1000, 5)[1].tolist())


@pytest.mark.usefixtures("without_figures")
def test_a_share_has_the_error_of_as_many_as_it_is_of(tmp_path, file):
    outcome = run(tmp_path / "out", file=file)
    values = values_of(outcome)
    assert values["without 0.3", "-", "sparsemax", "chosen", "asked"] == 30
    assert "30 questions without 0.3 of their words" in outcome.report
    assert percent(0.5, 100) == "50.0 ± 5.0 %"
    assert percent(1.0, 3) == "100.0 ± 12.5 %"
    assert percent(float("nan"), 0) == ""
    many = run(tmp_path / "many", file=file, questions=500, maps="sparsemax")
    assert values_of(many)["without 0.3", "-", "sparsemax", "chosen", "asked"] == 113  # three quarters of 150
    assert "113 questions without 0.3" in many.report


@pytest.mark.usefixtures("without_figures")
def test_a_table_is_continued_with_the_same_questions_only(tmp_path, data, file):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, 4))
    for name in ("passages", "queries"):
        np.save(tmp_path / f"{name}.npy", vectors)
    given = {"embeddings": tmp_path / "passages.npy", "queries": tmp_path / "queries.npy"}
    run(tmp_path / "given", **given)
    np.save(tmp_path / "queries.npy", vectors + 0.1)  # as long as before
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path / "given", **given)
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path / "given", embeddings=given["embeddings"])
    folder = tmp_path / "pairs"
    shutil.copytree(data, folder)
    run(tmp_path / "pairs-out", data=folder, without=0.3, words=0)
    changed = folder / "test_2016_flickr.lc.norm.tok.de"
    changed.write_text(changed.read_text().replace("v7", "v8"))
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path / "pairs-out", data=folder, without=0.3, words=0)


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "made.txt"
    path.write_text("\n".join(made_passages(60)))
    source = Source(None, (str(path),), "lines", None, None, 8, None)
    assert task_of(source) is task_of(Source(None, (str(path),), "lines", None, None, 8, None))
    path.write_text("\n".join(made_passages(61, 1)))
    again = Source(None, (str(path),), "lines", None, None, 8, None)
    assert len(task_of(again).texts) == 61
    assert len(protocol.memory_of(again, "sparsemax", 4.0)) == 61


@pytest.mark.parametrize("threads", [1, 2])
def test_vectors_do_not_depend_on_the_threads_of_linear_algebra(threads):
    threadpoolctl, inside = pytest.importorskip("threadpoolctl"), []
    decomposition = pytest.importorskip("sklearn.decomposition")
    fit = decomposition.TruncatedSVD.fit

    def listening(self, weighted):
        pools = threadpoolctl.ThreadpoolController().select(user_api="blas").info()
        inside.extend(pool["num_threads"] for pool in pools)
        return fit(self, weighted)

    with pytest.MonkeyPatch.context() as patch, threadpoolctl.threadpool_limits(threads, "blas"):
        patch.setattr(decomposition.TruncatedSVD, "fit", listening)
        Space(made_passages(30), 5)
    assert set(inside) == {1}


@pytest.fixture
def here(tmp_path, monkeypatch, without_figures):
    """A folder with the files that examples of the help name."""
    (tmp_path / "notes").mkdir()
    for i, part in enumerate(("a.txt", "b.md")):
        (tmp_path / "notes" / part).write_text("\n\n".join(made_passages(60, i)))
    vectors = np.random.default_rng(0).standard_normal((40, 8))
    np.save(tmp_path / "passages.npy", vectors)
    np.save(tmp_path / "questions.npy", vectors[:20] + 0.1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("example", "folder"),
    [(example, "citations-notes") for example in citations.EXAMPLES.splitlines() if "--file" in example]
    + [(example, "citations") for example in citations.EXAMPLES.splitlines() if "--embeddings" in example]
    + [("python -m sparsehopfield citations --file notes/a.txt notes/b.md --dims 8", "citations-a-and-1-more")],
)
def test_examples_of_the_help_run(here, example, folder):
    assert main([*example.split()[3:], "--quiet"]) == 0
    assert (here / "results" / folder / "table.csv").exists()


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


@pytest.mark.usefixtures("without_figures")
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
        ({"words": 13}, "words: fewer than 2 of the passages to test with have 13 words"),
        ({"queries": "q.npy"}, "queries: are rows for"),
        ({"file": 5}, "file: must be a path or a sequence of paths, got int"),
        ({"file": [5]}, "file: must be a string or a path, got int"),
        ({"data": 5}, "data: must be a string or a path, got int"),
        ({"embeddings": 5}, "embeddings: must be a string or a path, got int"),
    ],
)
def test_bad_options_are_named(tmp_path, file, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(tmp_path, **{"file": str(file)} | options)


def test_one_path_or_several_are_the_same_files(file):
    one = citations.Options(file=Path(file))
    assert one == citations.Options(file=str(file)) == citations.Options(file=[file, str(file)])
    assert one.file == (str(file),)


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


def test_a_digest_is_of_every_text_in_its_part():
    kept = {
        digest(["ab", "c"]),
        digest(["a", "bc"]),
        digest(["ab"], ["c"]),
        digest(["c", "ab"]),
        digest(np.arange(4)),
        digest(np.arange(4).reshape(2, 2)),
        digest(np.arange(4.0)),
        digest(np.arange(2), np.arange(2, 4)),
    }
    assert len(kept) == 8
    assert digest(["ab", "c"]) == digest(("ab", "c"))
    assert digest(np.arange(8)[::2]) == digest(np.array([0, 2, 4, 6]))
