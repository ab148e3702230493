"""The k nearest patterns: positions and scores as NumPy finds them, ties by position, whatever k, index and batch."""

import numpy as np
import pytest
from helpers import SIMILARITIES, path, threads

import sparsehopfield as sh
from sparsehopfield.distributed import Coordinator, Serial, Shard
from sparsehopfield.structures import LinearFeatures, TopK, Window

M, D = 700, 12


def whole_numbers(rng, n, dtype=np.float32):
    """Rows of small whole numbers: their scores are exact in float64, and many are equal."""
    return rng.integers(-2, 3, size=(n, D)).astype(dtype)


def by_numpy(queries, patterns, similarity, k, exclude=None):
    """Positions and scores of the k best, stable where they are equal."""
    q, x = queries.astype(np.float64), patterns.astype(np.float64)
    scores = q @ x.T if similarity == "dot" else -((q[:, None] - x) ** 2).sum(axis=2) / 2
    if exclude is not None:
        rows = np.flatnonzero(exclude >= 0)
        scores[rows, exclude[rows]] = -np.inf
    scores = np.pad(scores, ((0, 0), (0, max(0, k - scores.shape[1]))), constant_values=-np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    return np.where(best == -np.inf, -1, order), best


@pytest.mark.parametrize("k", [1, 5, 32, 33, 100, M, M + 3])
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_exact_scores_are_numpys_with_ties_by_position(similarity, k, dtype):
    rng = np.random.default_rng(k)
    patterns, queries = whole_numbers(rng, M, dtype), whole_numbers(rng, 20)
    memory = sh.HopfieldMemory(patterns, similarity=similarity)
    exclude = rng.integers(-1, M, size=20)
    for given in (None, exclude):
        positions, scores = memory.nearest(queries, k, exclude=given)
        wanted = by_numpy(queries, patterns, similarity, k, given)
        assert positions.dtype == np.int64
        assert scores.dtype == np.float64
        assert np.array_equal(positions, wanted[0])
        assert np.array_equal(scores, wanted[1])


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_results_do_not_depend_on_the_path_the_batch_or_the_model(similarity):
    rng = np.random.default_rng(1)
    patterns, queries = rng.standard_normal((M, D)), rng.standard_normal((3, 4, D))
    memory = sh.HopfieldMemory(patterns, np.full((3, 4), 2.0), similarity=similarity)
    few, many = memory.nearest(queries, 6), memory.nearest(queries, 50)
    assert few[0].shape == few[1].shape == (3, 4, 6)
    assert np.array_equal(few[0], many[0][..., :6])
    assert np.array_equal(few[1], many[1][..., :6])
    same = [path("scan"), path("columns"), threads(1)]
    for way in same:
        with way:
            assert all(map(np.array_equal, memory.nearest(queries, 50), many))
    memory.separation, memory.beta, memory.structure, memory.index = "softmax", 1e-3, TopK(3), True
    for count, wanted in ((6, few), (50, many)):
        assert all(map(np.array_equal, memory.nearest(queries, count), wanted))
        alone = [memory.nearest(x, count) for x in queries.reshape(-1, D)]
        for part in (0, 1):
            assert np.array_equal(np.stack([one[part] for one in alone]), wanted[part].reshape(12, count))
    shards = Coordinator(Serial([Shard(patterns, similarity=similarity)]))
    assert all(map(np.array_equal, shards.nearest(queries, 6), few))


def test_many_neighbours_of_many_queries_are_found_in_parts(monkeypatch):
    monkeypatch.setattr("sparsehopfield._engine.chunked.CHUNK", 40 * 32 * 3)
    rng = np.random.default_rng(2)
    patterns, exclude = whole_numbers(rng, 60), np.arange(10)
    memory = sh.HopfieldMemory(patterns)
    found = memory.nearest(patterns[:10], 40, exclude=exclude)
    assert all(map(np.array_equal, found, by_numpy(patterns[:10], patterns, "dot", 40, exclude)))
    with pytest.raises(ValueError, match=r"queries: .*row 8"):
        memory.nearest(np.where(np.arange(10)[:, None] == 8, np.nan, patterns[:10]), 40)


def test_shapes_of_patterns_and_no_queries():
    images = np.random.default_rng(3).standard_normal((20, 2, 3))
    memory = sh.HopfieldMemory(images, pattern_shape=(2, 3), similarity="euclidean")
    positions, scores = memory.nearest(images[4])
    assert positions.tolist() == [4]
    assert scores.tolist() == [0.0]
    assert memory.nearest(np.empty((0, 2, 3)), 3)[0].shape == (0, 3)
    assert memory.nearest(np.empty((0, 2, 3)), 50)[1].shape == (0, 50)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k: "),
        ({"k": 1.5}, TypeError, "k: "),
        ({"k": True}, TypeError, "k: "),
        ({"exclude": 7}, ValueError, "exclude: "),
        ({"queries": np.zeros((2, 3))}, ValueError, "queries: "),
        ({"queries": np.full((1, 4), np.nan)}, ValueError, "queries: "),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    memory = sh.HopfieldMemory(np.eye(4))
    with pytest.raises(error, match=message):
        memory.nearest(**{"queries": np.eye(4)} | options)


@pytest.mark.parametrize("structure", [Window(1), LinearFeatures()])
def test_structures_that_hide_patterns_are_refused(structure):
    memory = sh.HopfieldMemory(np.eye(4), separation="softmax", structure=structure)
    with pytest.raises(ValueError, match="structure: nearest is for none and TopK"):
        memory.nearest(np.eye(4))


def test_shards_have_fewer_patterns_than_are_asked_for():
    shards = Coordinator(Serial([Shard(np.eye(4)[:1]), Shard(np.eye(4)[1:3], first=1)]))
    for k in (2, 5):
        assert all(
            map(np.array_equal, shards.nearest(np.eye(4), k), sh.HopfieldMemory(np.eye(4)[:3]).nearest(np.eye(4), k))
        )
    with pytest.raises(ValueError, match="k: must be at most 32"):
        shards.nearest(np.eye(4), 33)
