"""Sharded memories: the bits of one memory, whatever the shards and the order and grouping of merges."""

import pickle
import warnings
from unittest import mock

import numpy as np
import pytest
from helpers import quiet
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield.distributed import Coordinator, Request, Serial, Shard, _shards, gather, merge, partial, scout
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
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def data(kind, rng, m, d):
    """Return patterns of one of some kinds."""
    x = rng.standard_normal((m, d))
    if kind == "clusters":  # sorted, so that shards differ, and one is far from most queries
        return (5 * rng.standard_normal((4, d)))[np.arange(m) * 4 // m] + 0.1 * x
    if kind == "copies":  # on both sides of every border
        return x[rng.integers(0, max(1, m // 3), m)]
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
    x = data(draw(st.sampled_from(["gaussian", "clusters", "copies", "whole"])), rng, m, d)
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
@settings(max_examples=120)
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
@settings(max_examples=80)
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
