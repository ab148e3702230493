"""Sharded memories: the bits of one memory, whatever the shards and the order and grouping of merges."""

import pickle
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from helpers import quiet
from hypothesis import given
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield.distributed import Coordinator, Request, Serial, Shard, gather, partial, scout, sums
from sparsehopfield.distributed import merge as merge_parts
from sparsehopfield.distributed._steps import describe
from sparsehopfield.structures import TopK, Window

CUTOFF_MAPS = ["sparsemax", "entmax15", sh.Entmax(1.2), sh.Entmax(3.0), sh.Normmax(2.0)]
SIMILARITIES = ["dot", "euclidean", "cosine"]


class AnyOrder(Serial):
    """An engine whose requests and results travel pickled, and are merged in an order and grouping of their own."""

    def __init__(self, shards, seed=0):
        super().__init__(shards)
        self.rng = np.random.default_rng(seed)
        self.largest, self.functions, self.sent = 0, [], []

    def reduce(self, function, request, merge):
        self.functions.append(function.__name__)
        self.sent.append(request)
        sent = pickle.dumps((function, request, merge))
        self.largest = max(self.largest, len(sent))
        function, request, merge = pickle.loads(sent)
        parts = [pickle.loads(pickle.dumps(function(shard, request))) for shard in self.shards]
        while len(parts) > 1:
            i, j = self.rng.choice(len(parts), 2, replace=False)
            joined = merge(parts[i], parts[j])
            parts = [part for at, part in enumerate(parts) if at not in (i, j)] + [joined]
        return parts[0]


def shards_of(X, cuts, values=None, ids=None, **options):
    """Return shards of the rows between some cuts."""
    bounds = sorted({0, *cuts, len(X)})
    return [
        Shard(
            X[a:b],
            None if values is None else values[a:b],
            first=a,
            ids=None if ids is None else ids[a:b],
            **options,
        )
        for a, b in pairwise(bounds)
    ]


def data(kind, rng, m, d):
    """Return patterns of one of some kinds."""
    x = rng.standard_normal((m, d))
    if kind == "clusters":  # sorted, so that shards differ, and one is far from most queries
        return (5 * rng.standard_normal((4, d)))[np.arange(m) * 4 // m] + 0.1 * x
    if kind == "copies":  # on both sides of every border
        return x[rng.integers(0, max(1, m // 3), m)]
    if kind == "far":  # from the origin, where products cancel
        return 1000 + x
    if kind == "whole":  # ties at every threshold
        return rng.integers(0, 3, (m, d)) + 0.5
    return x


def assert_same(found, wanted):
    """Compare results of any kind bit by bit."""
    if hasattr(wanted, "indptr"):  # sparse
        assert found.shape == wanted.shape
        for name in ("indptr", "indices", "data"):
            assert_same(getattr(found, name), getattr(wanted, name))
        return
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


def assert_info_same(found, wanted):
    for name in ("steps", "converged", "support_size", "states", "weights", "energy"):
        if getattr(wanted, name) is not None:
            assert_same(getattr(found, name), getattr(wanted, name))


@st.composite
def cases(draw, separations):
    """Draw patterns, queries, a model, and how the patterns are cut."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    m, d, n = draw(st.integers(1, 160)), draw(st.integers(1, 12)), draw(st.integers(1, 9))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.float16, np.uint8]))
    x = data(draw(st.sampled_from(["gaussian", "clusters", "copies", "far", "whole"])), rng, m, d)
    queries = x[rng.integers(0, m, n)] + draw(st.sampled_from([0.0, 0.1, 1.0])) * rng.standard_normal((n, d))
    scale = None
    if dtype == np.uint8:
        scale = 0.05
        x, queries = np.clip(x / scale + 128, 1, 255).round(), queries + 128 * scale
    options = {
        "similarity": draw(st.sampled_from(SIMILARITIES)),
        "values": rng.standard_normal((m, 3)).astype(np.float32) if draw(st.booleans()) else None,
        "scale": scale,
    }
    structure = draw(st.sampled_from([None, None, 1, 5, 40, m]))
    beta = draw(st.sampled_from([0.01, 0.5, 4.0, "each"]))
    model = {
        "beta": rng.uniform(0.1, 5, n) if beta == "each" else beta,
        "separation": draw(st.sampled_from(separations)),
        "structure": structure and TopK(min(structure, m)),
    }
    cuts = rng.integers(0, m, draw(st.sampled_from([0, 1, 6])))
    batch = draw(st.sampled_from([256, 2]))
    queries = queries.astype(draw(st.sampled_from([np.float32, np.float64])))
    return x.astype(dtype), queries, options, model, cuts, {"batch": batch, "gather_bytes": 4096}


@given(cases(CUTOFF_MAPS))
def test_maps_with_a_cutoff_have_the_bits_of_one_memory(case):
    X, queries, options, model, cuts, limits = case
    one = sh.HopfieldMemory(X, **options, **model)
    many = Coordinator(AnyOrder(shards_of(X, cuts, **options), len(X)), **model, **limits)
    assert_same(many.update(queries), one.update(queries))
    assert_same(many.energy(queries), one.energy(queries))
    for limits in ({}, {"top": 2}, {"min_weight": 0.1}):
        assert_same(many.associate(queries, **limits), one.associate(queries, **limits))
    with quiet():
        asked = {"max_steps": 30, "return_info": ("weights", "energy")}
        (found, info), (wanted, wanted_info) = (memory.retrieve(queries, **asked) for memory in (many, one))
    assert_same(found, wanted)
    assert_info_same(info, wanted_info)


def in_reach(X, queries, similarity, beta):
    """Tell of which queries few patterns are within reach of softmax, by scores in float64, or hard to say (None)."""
    x, q = X.astype(np.float64), queries.astype(np.float64)
    if similarity == "euclidean":
        s = -((q[:, None] - x) ** 2).sum(axis=2) / 2
    else:
        s = q @ (x / (np.linalg.norm(x, axis=1, keepdims=True) if similarity == "cosine" else 1)).T
    z = np.broadcast_to(beta, len(q))[:, None] * (s - s.max(axis=1, keepdims=True))
    reach = np.log(len(x) * 2.0 ** (24 if queries.dtype == X.dtype == np.float32 else 53))
    most = max(16, len(x) // 128)
    count = [(z >= -reach * (1 - sign * 1e-3)).sum(axis=1) for sign in (1, -1)]
    return (count[1] <= most), (count[0] > most)


@given(cases(["softmax"]), st.sampled_from([1.0, 30.0]))
def test_softmax_has_the_bits_of_one_memory_where_few_are_in_reach(case, factor):
    X, queries, options, model, cuts, limits = case
    model["beta"] = model["beta"] * factor
    one = sh.HopfieldMemory(X, **options, **model)
    shards = [shards_of(X, c, block=4, **options) for c in ([], 4 * (cuts // 4))]
    parts = [Coordinator(AnyOrder(s, len(X)), **model, **limits) for s in shards]
    few = np.ones(len(queries), np.bool_)
    if model["structure"] is None or model["structure"].k == len(X):
        rows = X if options["scale"] is None else X.astype(np.float32) * np.float32(options["scale"])
        few = in_reach(rows, queries, options["similarity"], model["beta"])[0]
    calls = {
        "update": lambda memory: memory.update(queries),
        "energy": lambda memory: memory.energy(queries),
        "one step": lambda memory: memory.retrieve(queries, max_steps=1),
        "support": lambda memory: memory.retrieve(queries, max_steps=1, return_info=True)[1].support_size,
        "top": lambda memory: memory.associate(queries, top=3).toarray(),
        "min_weight": lambda memory: memory.associate(queries, min_weight=0.01).toarray(),
    }
    with quiet():
        for name, call in calls.items():
            wanted, found = call(one), [call(part) for part in parts]
            assert_same(found[0], found[1])
            assert_same(found[0][few], wanted[few])
            if name in ("update", "energy"):
                size = 1 + np.abs(wanted).max()
                error = 1e-4 if wanted.dtype == np.float32 else 1e-11
                assert np.abs(found[0] - wanted).max() <= error * size * (1 + np.max(model["beta"]) * 100)


@pytest.mark.parametrize("separation", ["softmax", sh.Polynomial(3), sh.Polynomial(2)])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_sums_over_all_patterns_are_the_same_bits_for_any_shards(separation, similarity):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((112, 6)).astype(np.float32) + 0.5
    queries, values = X[::16] + 0.1, rng.standard_normal((112, 2))
    options = {"similarity": similarity, "values": values}
    model = {"beta": 0.1, "separation": separation}
    one = sh.HopfieldMemory(X, **options, **model)
    results = []
    for cuts in ([], [64], [16, 32, 48, 64, 80, 96], [48, 96]):
        many = Coordinator(AnyOrder(shards_of(X, cuts, block=16, **options)), **model, batch=3)
        with quiet():
            state, info = many.retrieve(queries, return_info=True, max_steps=4)
        results.append([many.update(queries), state, info.states, info.steps, info.converged, info.support_size])
        results[-1] += [many.associate(queries, top=4).toarray(), many.associate(queries, min_weight=0.01).toarray()]
        if separation == "softmax":
            results[-1].append(many.energy(queries))
    for found in results[1:]:
        for result, first in zip(found, results[0], strict=True):
            assert_same(result, first)
    with quiet():
        state, info = one.retrieve(queries, return_info=True, max_steps=4)
    wanted = [one.update(queries), state, info.states, info.steps, info.converged, info.support_size]
    wanted += [one.associate(queries, top=4).toarray(), one.associate(queries, min_weight=0.01).toarray()]
    if separation == "softmax":
        wanted.append(one.energy(queries))
    for result, other in zip(results[0], wanted, strict=True):
        np.testing.assert_allclose(result, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("separation", ["softmax", sh.Polynomial(2), sh.Polynomial(3)])
def test_weights_over_all_patterns_by_every_way_to_list_them(separation):
    rng = np.random.default_rng(4)
    X, queries = rng.standard_normal((60, 4)), rng.standard_normal((5, 4))
    one = sh.HopfieldMemory(X, 0.05, separation=separation)
    many = Coordinator(Serial(shards_of(X, [16, 32, 48], block=16)), 0.05, separation=separation)
    for limits in ({"top": 1}, {"top": 60}, {"top": 99}, {"min_weight": 1e-9}, {"top": 7, "min_weight": 0.0167}):
        found, wanted = (memory.associate(queries, **limits) for memory in (many, one))
        assert found.nnz == wanted.nnz
        np.testing.assert_allclose(found.toarray(), wanted.toarray(), rtol=1e-12)


def test_a_block_whose_rows_are_all_removed():
    X = np.random.default_rng(5).standard_normal((40, 4))
    shards = shards_of(X, [16, 32], block=8)
    left = np.delete(np.arange(40), [*range(8, 16), 20, *range(32, 39)])
    shards[0] = shards[0].without(slice(8, 16))
    shards[1] = shards[1].without(4).moved(8)
    shards[2] = shards[2].without(range(7)).moved(23)
    assert np.concatenate([shard.row_numbers for shard in shards]).tolist() == left.tolist()
    for separation in ("softmax", "sparsemax", sh.Polynomial(2)):
        model = {"beta": 0.1, "separation": separation}
        one = sh.HopfieldMemory(X[left], **model)
        found = [Coordinator(AnyOrder(s), **model) for s in (shards, pickle.loads(pickle.dumps(shards)))]
        for memory in found:
            np.testing.assert_allclose(memory.update(X[:3]), one.update(X[:3]), rtol=1e-12)
            assert_same(memory.ids, left)
        assert_same(found[0].update(X[:3]), found[1].update(X[:3]))


@pytest.mark.parametrize("separation", ["sparsemax", sh.Entmax(1.3), sh.Normmax(3.0)])
@pytest.mark.parametrize(("beta", "least"), [(1.0, 16), (0.0003, 1024)])
def test_supports_wider_than_what_is_scouted(separation, beta, least):
    rng = np.random.default_rng(least)
    X = np.concatenate([rng.standard_normal((2500, 3)), 500 + rng.standard_normal((500, 3))]).astype(np.float32)
    queries = rng.standard_normal((3, 3)).astype(np.float32)
    model = {"beta": beta, "separation": separation}
    one = sh.HopfieldMemory(X, similarity="euclidean", **model)
    with quiet():
        wanted, info = one.retrieve(queries, max_steps=2, return_info=True)
    assert (info.support_size > least).all()
    first = None
    for cuts in ([], [1, 700, 2500]):
        engine = AnyOrder(shards_of(X, cuts, similarity="euclidean"))
        with quiet():
            found, found_info = Coordinator(engine, **model, gather_bytes=1000).retrieve(
                queries, max_steps=2, return_info=True
            )
        assert engine.functions.count("partial") == 2
        assert_same(found_info.steps, info.steps)
        if least < 1024:
            assert_same(found, wanted)
            assert_info_same(found_info, info)
        first = found if first is None else first
        assert_same(found, first)
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_at_the_limit_of_what_may_be_in_reach(dtype):
    rng = np.random.default_rng(12)
    X, counts = rng.standard_normal((8192, 2)).astype(dtype), np.array([1, 5, 31, 32, 33, 50, 64, 65, 66, 90, 300])
    queries = rng.standard_normal((len(counts), 2)).astype(dtype)
    scores = np.sort(queries.astype(np.float64) @ X.T.astype(np.float64), axis=1)[:, ::-1]
    each = np.arange(len(counts))
    gap = scores[:, 0] - (scores[each, counts - 1] + scores[each, counts]) / 2
    beta = np.log(len(X) * 2.0 ** (24 if dtype == np.float32 else 53)) / gap
    one = sh.HopfieldMemory(X, beta, separation="softmax")
    for cuts in ([], [4096]):
        engine = AnyOrder(shards_of(X, cuts))
        many = Coordinator(engine, beta, separation="softmax")
        found, wanted = many.update(queries), one.update(queries)
        assert [len(r.queries) for r, f in zip(engine.sent, engine.functions, strict=True) if f == "sums"] == [4]
        assert_same(found[counts <= 64], wanted[counts <= 64])
        assert_same(many.energy(queries)[counts <= 64], one.energy(queries)[counts <= 64])
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


def test_only_queries_that_move_are_sent_on():
    X = np.eye(8)
    engine = AnyOrder(shards_of(X, [3]))
    many, one = (make(4.0) for make in (lambda b: Coordinator(engine, b), lambda b: sh.HopfieldMemory(X, b)))
    queries = np.concatenate([X[:5], np.full((1, 8), 0.3) + 0.2 * X[:1]])
    found, info = many.retrieve(queries, return_info=True)
    wanted, wanted_info = one.retrieve(queries, return_info=True)
    assert_same(found, wanted)
    assert_info_same(info, wanted_info)
    assert set(info.steps[:5]) == {1}
    assert info.steps[5] > 1
    scouted = [len(r.queries) for r, name in zip(engine.sent, engine.functions, strict=True) if name == "scout"]
    assert scouted == [6] + [1] * (int(info.steps[5]) - 1)


def test_a_shard_far_from_all_queries_lists_nothing():
    rng = np.random.default_rng(6)
    X = np.concatenate([rng.standard_normal((300, 5)), 100 + 0.01 * rng.standard_normal((300, 5))])
    request_of = []

    class Watching(Serial):
        def reduce(self, function, request, merge):
            if function is partial:
                request_of.extend(len(partial(shard, request).position) for shard in self.shards)
            return super().reduce(function, request, merge)

    model = {"beta": 0.2}
    many = Coordinator(Watching(shards_of(X, [300], similarity="euclidean")), **model)
    one = sh.HopfieldMemory(X, similarity="euclidean", **model)
    assert_same(many.update(X[:9]), one.update(X[:9]))
    assert request_of[0] > 0
    assert request_of[1] == 0


@given(cases(CUTOFF_MAPS))
def test_certificates_are_those_of_one_memory(case):
    X, queries, options, model, cuts, limits = case
    model["beta"] = 0.7
    one = sh.HopfieldMemory(X, **options, **model)
    many = Coordinator(AnyOrder(shards_of(X, cuts, **options), len(X)), **model, **limits)
    assert_same(many.margin(), one.margin())
    assert_same(many.critical_beta(), one.critical_beta())
    assert_same(many.is_certified(3.0), one.is_certified(3.0))
    found, wanted = many.certify(queries), one.certify(queries)
    for name in ("index", "nearest", "gap", "lacks"):
        assert_same(getattr(found, name), getattr(wanted, name))
    for within in (0.0, 0.3):
        found, wanted = many.duplicates(within), one.duplicates(within)
        assert str(found) == str(wanted)
        assert_same(found.pairs, wanted.pairs)
        assert_same(found.distance, wanted.distance)
        assert [group.tolist() for group in found.groups] == [group.tolist() for group in wanted.groups]


@given(cases([*CUTOFF_MAPS, "softmax", sh.Polynomial(2)]), st.integers(1, 12))
def test_explanations_are_those_of_one_memory(case, top):
    X, queries, options, model, cuts, limits = case
    model["beta"] = 2.0
    ids = np.random.default_rng(0).permutation(len(X)) + 100
    one = sh.HopfieldMemory(X, ids=ids, index=False, **options, **model)
    parts = shards_of(X, 4 * (cuts // 4), ids=ids, block=4, **options)
    many = Coordinator(AnyOrder(parts, len(X)), **model, **limits)
    found, wanted = many.explain(queries[0], top=top), one.explain(queries[0], top=top)
    assert found.miss == wanted.miss
    if model["separation"] in CUTOFF_MAPS:
        assert str(found) == str(wanted)
        for name in ("positions", "ids", "scores", "gaps", "weights", "query", "state", "patterns"):
            assert_same(getattr(found, name), getattr(wanted, name))
    else:
        assert found.stages == wanted.stages
        assert found.support_size == wanted.support_size
        names = ("scores", "weights", "state")  # scores of both signs have the same weight of an even order
        for name in names[model["separation"] != "softmax" :]:
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-3, atol=1e-5)


def test_queries_of_any_shape_and_out():
    rng = np.random.default_rng(7)
    X, queries = rng.standard_normal((50, 6)), rng.standard_normal((2, 3, 6))
    beta = np.array([[1.0, 2.0, 3.0], [0.5, 4.0, 9.0]])
    one, many = sh.HopfieldMemory(X, beta), Coordinator(AnyOrder(shards_of(X, [20])), beta)
    out = np.empty((2, 3, 12))[..., ::2]
    assert many.update(queries, out=out) is out
    assert_same(out.copy(), one.update(queries))
    assert_same(many.energy(queries), one.energy(queries))
    position, score = many.nearest(queries, 3)
    assert position.shape == score.shape == (2, 3, 3)
    many.beta = one.beta = 2.0
    for empty in (np.empty((0, 6)), np.empty((2, 0, 6))):
        assert_same(many.update(empty), one.update(empty))
        assert_same(many.energy(empty), one.energy(empty))
        assert_same(many.retrieve(empty), one.retrieve(empty))
        assert many.nearest(empty)[0].shape == (*empty.shape[:-1], 1)
    assert_same(many.retrieve(queries[0, 0], max_steps=0), one.retrieve(queries[0, 0], max_steps=0))


def refusal(call):
    """Return type and words of the error of a call, or None."""
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None


@pytest.mark.parametrize(
    "call",
    [
        lambda m, q: m.update(q[:, :3]),
        lambda m, q: m.update(np.where(np.arange(len(q))[:, None] == 4, np.nan, q)),
        lambda m, q: m.update(np.where(np.arange(len(q))[:, None] == 4, 1.7e308, q)),
        lambda m, q: m.update(q, out=q),
        lambda m, q: m.update("text"),
        lambda m, q: m.retrieve(q, max_steps=-1),
        lambda m, q: m.retrieve(q, tol=-1.0),
        lambda m, q: m.retrieve(q, return_info="nothing"),
        lambda m, q: m.associate(q, top=0),
        lambda m, q: m.associate(q, min_weight=-1),
        lambda m, q: setattr(m, "beta", -1.0),
        lambda m, q: setattr(m, "beta", [1.0, 2.0]) or m.update(q),
        lambda m, q: setattr(m, "separation", "sharpmax"),
        lambda m, q: setattr(m, "separation", "softmax") or m.associate(q),
        lambda m, q: setattr(m, "separation", "softmax") or m.certify(q),
        lambda m, q: setattr(m, "separation", sh.Polynomial(2)) or m.energy(q),
        lambda m, q: setattr(m, "structure", TopK(99)) or m.update(q),
        lambda m, q: m.explain(q),
        lambda m, q: m.explain(q[0], top=0),
        lambda m, q: m.duplicates(-1.0),
        lambda m, q: m.duplicates(9.0, most=2),
    ],
)
def test_arguments_are_refused_as_by_one_memory(call):
    X, queries = np.random.default_rng(8).standard_normal((40, 5)), np.random.default_rng(9).standard_normal((6, 5))
    wanted = refusal(lambda: call(sh.HopfieldMemory(X), queries))
    assert wanted is not None
    assert refusal(lambda: call(Coordinator(AnyOrder(shards_of(X, [7, 8])), batch=1), queries)) == wanted


def test_queries_that_do_not_rest_are_told():
    X = np.random.default_rng(10).standard_normal((30, 4))
    with pytest.warns(sh.RetrievalWarning, match="of 3 queries still moved") as caught:
        Coordinator(Serial(shards_of(X, [9])), 0.3).retrieve(X[:3] + 1, max_steps=1)
    assert caught[0].filename == __file__


def test_shards_that_do_not_belong_together_are_refused():
    X = np.ones((8, 3))
    for other, words in [
        (Shard(np.ones((4, 2)), first=4), "differ in features"),
        (Shard(X[4:].astype(np.float32), first=4), "differ in stored dtypes"),
        (Shard(X[4:], X[4:], first=4), "differ in stored dtypes"),
        (Shard(X[4:], first=4, similarity="euclidean"), "differ in similarity"),
        (Shard(X[4:], first=4, block=2), "differ in block"),
        (Shard(X[4:], first=5), "begins at position 5"),
        (Shard(X[3:], first=3), "begins at position 3"),
        (Shard(X[4:], first=4, first_row=9), "begins at position 4, row 9"),
    ]:
        with pytest.raises(ValueError, match=f"shards: .*{words}"):
            Coordinator(Serial([Shard(X[:4]), other]))
    with pytest.raises(ValueError, match="patterns: row 1 contains NaN"):
        Shard([[1.0], [np.nan]])
    with pytest.raises(ValueError, match="patterns: needs at least one row"):
        Shard(np.empty((0, 3)))
    with pytest.raises(ValueError, match="structure: of a sharded memory must be None"):
        Coordinator(Serial([Shard(X)]), structure=Window(1))
    with pytest.raises(ValueError, match="positions: would remove all patterns of a shard"):
        Shard(X).without(slice(None))
    with pytest.raises(ValueError, match="shards: needs at least one"):
        Serial([])
    with pytest.raises(TypeError, match="shards: must be Shard"):
        Serial([X])
    halves = Coordinator(Serial([Shard(X[:3]), Shard(X[3:], first=3)]), 1e-3, separation=sh.Polynomial(2))
    with pytest.raises(ValueError, match="shards: one begins at row 3, which is no multiple of 4096"):
        halves.update(X[0])
    with pytest.raises(TypeError, match="other: must be the result of the same step"):
        merge_parts(Shard(X).whole, scout(Shard(X), Request(queries=X, count=1)))


@pytest.mark.parametrize("step", [describe, scout, partial, gather, sums])
def test_other_versions_are_refused(step):
    shard = Shard(np.eye(3))
    request = Request(shard.whole, np.eye(3), count=1, positions=np.arange(2), version="0.0.7")
    with pytest.raises(RuntimeError, match=f"has sparsehopfield {sh.__version__}, and the request is of 0.0.7"):
        step(shard, request)


def test_overlapping_shards_are_noticed_in_merging():
    X = np.eye(4)
    one, two = Shard(X[:3]), Shard(X[2:], first=2)
    request = Request(one.whole, X, beta=np.full(1, 0.1), positions=np.arange(4))
    for step in (partial, gather):
        with pytest.raises(ValueError, match="shards: two have patterns of the same position"):
            merge_parts(step(one, request), step(two, request))
    with pytest.raises(ValueError, match="shards: two have rows of the same block"):
        merge_parts(*(sums(Shard(X), Request(one.whole, X, code=(1, 1.0))) for _ in range(2)))


def test_requests_and_results_are_small():
    X = np.random.default_rng(11).standard_normal((3000, 20)).astype(np.float32)
    engine = AnyOrder(shards_of(X, [1000, 2000]))
    Coordinator(engine, 5.0).retrieve(X[:256] + np.float32(0.1))
    assert engine.largest < 1.5 * X[:256].nbytes + 5000


def test_all_searches_of_a_shard_share_one_index():
    rng = np.random.default_rng(13)
    X = rng.standard_normal((20, 32))[rng.integers(0, 20, 3000)] + 0.1 * rng.standard_normal((3000, 32))
    shards = shards_of(X.astype(np.float32), [1500], index=True)
    with mock.patch.object(sh._core, "build_index", side_effect=AssertionError):
        many = Coordinator(Serial(shards), 0.02)
        one = sh.HopfieldMemory(X.astype(np.float32), 0.02, index=False)
        assert_same(many.retrieve(X[:50].astype(np.float32)), one.retrieve(X[:50].astype(np.float32)))
        assert_same(many.margin(), one.margin())
        left = shards[0].without([3, 4])
    assert all(sh._core.index_nbytes(s.part_of(None).core(s.stored.dtype)) > 0 for s in [*shards, left])


@pytest.mark.parametrize("step", [partial, sums])
def test_steps_that_need_the_whole_say_so(step):
    with pytest.raises(ValueError, match="request: needs the facts of the whole"):
        step(Shard(np.eye(3)), Request(queries=np.eye(3)))
    with pytest.raises(ValueError, match="request: needs positions"):
        gather(Shard(np.eye(3)), Request(queries=np.eye(3)))


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", sh.Polynomial(2)])
def test_arithmetic_that_is_trapped_elsewhere(separation):
    X = np.random.default_rng(14).standard_normal((60, 3))
    many = Coordinator(Serial(shards_of(X, [16], block=16)), 5e-324, separation=separation)
    one = sh.HopfieldMemory(X, 5e-324, separation=separation)
    with np.errstate(all="raise"):
        for beta in (5e-324, 1e300):
            many.beta = one.beta = beta
            np.testing.assert_allclose(many.update(X[:3]), one.update(X[:3]), rtol=1e-12, atol=1e-15)
            if separation != sh.Polynomial(2) and beta > 1:  # in units of 1/beta
                np.testing.assert_allclose(many.energy(X[:3]), one.energy(X[:3]), rtol=1e-12)
        many.associate(X[:3], top=2)
        if separation == "sparsemax":
            assert_same(many.certify(X[:3]).lacks, one.certify(X[:3]).lacks)
            assert_same(many.critical_beta(), one.critical_beta())
            many.duplicates(0.1)
