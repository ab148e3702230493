"""The layers' association under structures: against the reference, forward and backward, and in the layers."""

import dataclasses

import numpy as np
import pytest
from helpers import fails_without_memory, run_python, sized_pairs
from hypothesis import given
from hypothesis import strategies as st
from test_association import TOL, agree, problem, run

from sparsehopfield import Polynomial, layers, set_num_threads, show_config
from sparsehopfield._engine.association import associate_backward, associate_forward, association_weights
from sparsehopfield.structures import (
    BlockSparse,
    DilatedBlocks,
    Full,
    LinearFeatures,
    RandomFeatures,
    RandomMask,
    TopK,
    Window,
)


@pytest.fixture
def rng():
    return np.random.default_rng(22)


def structure_of(name, n, m, rng):
    """One of each kind for n queries and m rows."""
    places = rng.integers(0, m, n)
    if name == "blocks":
        high, broad = 4 if n % 4 == 0 else 1, 2 if m % 2 == 0 else 1
        return BlockSparse(rng.random((n // high, m // broad)) < 0.4, block=(high, broad))
    return {
        "best": TopK(3),
        "window": Window(2, positions=None if n == m else np.sort(places)),
        "causal": Window(3, positions=places, causal=True),
        "dilated": Window(2, positions=places, dilation=2, global_positions=[0, m - 1]),
        "random": RandomMask(4, 7),
        "shared": RandomMask(4, 7, block=3),
        **sized_pairs(n, m),
    }[name]


NAMES = ["best", "window", "causal", "dilated", "random", "shared", "blocks", *sized_pairs(9, 9)]
LAYOUTS = [
    {},
    {"padded": True},
    {"mask": ("float", 4)},
    {"mask": ("bool", 2), "shared": True},
    {"shared_heads": True, "shared_queries": True},
    {"shared": True, "shared_heads": True, "padded": True},
    {"e": 5},
    {"ragged": True},
]


@pytest.mark.covering(1)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: "-".join(map(str, x)) or "plain")
@pytest.mark.parametrize("name", NAMES)
def test_against_the_reference(rng, name, layout):
    """Single rows, tiles cut short, several parts of a set; every map; updates; both dtypes."""
    cases = [
        ((3, 8), "sparsemax", 2, np.float64),
        ((40, 40), "softmax", 0, np.float32),
        ((36, 90), "entmax15", 1, np.float64),
    ]
    if "e" not in layout:
        cases.append(((17, 17), Polynomial(2), 1, np.float64))
    for (n, m), separation, steps, dtype in cases:
        options = {"separation": separation, "update_steps_max": steps, "dtype": dtype}
        a = problem(rng, queries=n, rows=m, **options, **layout)
        if "offsets" in a and name in ("blocks", "BlockSparse"):
            continue  # a mask has one number of columns
        rows = np.diff(a["offsets"]).max() if "offsets" in a else m
        agree(rng, a | {"structure": structure_of(name, n, rows, rng)}, TOL[dtype])


@pytest.mark.parametrize("name", NAMES)
def test_appended_rows(rng, name):
    """The last rows are looked at by all; the best are chosen among them, too."""
    for ragged, padded in ((False, False), (True, False), (False, True)):  # padded: appended rows among others
        a = problem(rng, queries=20, rows=22, ragged=ragged, padded=padded, update_steps_max=1, separation="softmax")
        if ragged:
            a["offsets"] = np.array([0, 22, 44])
        a |= {"appended": 2, "structure": structure_of(name, 20, 20, rng)}
        agree(rng, a, TOL[np.float64])
        weights = association_weights(run(a)[2]).toarray().reshape(2, 2, 20, 22)
        assert padded or name in ("best", "TopK") or (weights[..., 20:] > 0).all()


@pytest.mark.parametrize("appended", [0, 1, 3, 6])
def test_the_best_are_chosen_among_appended_rows_too(rng, appended):
    """For every k, and in a small bag beside a large one as alone: the k best scores have the weights."""
    q, x = rng.standard_normal((2, 5, 1, 3)), rng.standard_normal((2, 9, 1, 3))
    bags, offsets = np.concatenate([x[0], x[1, :6]]), [0, 9, 15]
    for k in range(1, 11):
        options = {"separation": "softmax", "structure": TopK(k), "appended": appended}
        whole = associate_forward(q, x, x, 1.0, **options)[0]
        ragged = associate_forward(q, bags, bags, 1.0, offsets=offsets, **options)[0]
        for out, sizes in ((whole, (9, 9)), (ragged, (9, 6))):
            for b, size in enumerate(sizes):
                rows = x[b, :size, 0]
                z = q[b, :, 0] @ rows.T
                p = np.where(z >= np.sort(z, axis=1)[:, -min(k, size), None], np.exp(z), 0)
                np.testing.assert_allclose(out[b, :, 0], p / p.sum(axis=1, keepdims=True) @ rows, atol=1e-12)


@given(st.data())
def test_any_window(data):
    """Places anywhere, windows of any width, tiles whose windows lie far apart."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    m, n = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 40))
    window = Window(
        data.draw(st.integers(0, m)),
        positions=rng.integers(0, m, n),
        causal=data.draw(st.booleans()),
        dilation=data.draw(st.integers(1, 4)),
        global_positions=rng.integers(0, m, data.draw(st.integers(0, 2))),
    )
    options = {"queries": n, "rows": m, "heads": data.draw(st.integers(1, 3)), "padded": data.draw(st.booleans())}
    separation = data.draw(st.sampled_from(["softmax", "sparsemax"]))
    agree(rng, problem(rng, **options, separation=separation) | {"structure": window}, TOL[np.float64])


@pytest.mark.covering(1)
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(
    "structure",
    [
        Window(7),
        Window(5, causal=True),
        Window(5, positions=np.random.default_rng(1).permutation(500)),
        BlockSparse(np.eye(5, dtype=bool), block=100),
        BlockSparse(np.kron(np.eye(5, dtype=bool), np.ones((100, 100), bool)), block=1),
        BlockSparse(np.random.default_rng(2).random((125, 125)) < 0.1, block=4),
        RandomMask(3, block=20),
    ],
    ids=lambda s: type(s).__name__,
)
def test_parts_of_a_set(rng, structure, heads):
    """Many tiles, whose gradients of rows are summed in stretches that overlap, touch, or are everything."""
    a = problem(rng, samples=1, queries=500, rows=500, heads=heads, separation="softmax")
    agree(rng, a | {"structure": structure}, TOL[np.float64])


def test_best_of_many_rows_by_products(rng):
    """Rows that no cache holds: tiles of many vectors. Against a mask of what is below the k-th score."""
    k, n, m, d = 40, 300, 3000, 32
    a = [rng.standard_normal((1, rows, 2, width)) for rows, width in ((n, d), (m, d), (m, 5))]
    g = rng.standard_normal((1, n, 2, 5))
    scores = np.einsum("bnhd,bmhd->bhnm", a[0], a[1])
    below = scores < np.partition(scores, -k, axis=-1)[..., -k, None]
    for separation in ("softmax", "sparsemax"):
        out, saved = associate_forward(*a, 0.7, structure=TopK(k), separation=separation)
        expected, other = associate_forward(*a, 0.7, mask=below, separation=separation)
        np.testing.assert_allclose(out, expected, atol=1e-12)
        for mine, its in zip(associate_backward(saved, g), associate_backward(other, g), strict=True):
            np.testing.assert_allclose(mine, its, atol=1e-10)
        most = np.diff(association_weights(saved).indptr).max()
        assert most == k if separation == "softmax" else most < k


@pytest.mark.parametrize("separation", ["softmax", "sparsemax", "entmax15"])
def test_updates_with_the_best_rows_stop_where_the_reference_does(rng, separation):
    """Which rows are the best changes from one update to the next, and weights are compared across both choices."""
    a = problem(rng, queries=20, rows=12, separation=separation, update_steps_max=None, update_steps_eps=0.02)
    a["structure"] = TopK(3)
    steps = run(a)[2].steps
    assert steps.max() > steps.min()
    agree(rng, a, TOL[np.float64])


@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
def test_ties_go_to_the_lowest_row(separation):
    rows = np.ones((1, 50, 1, 2))
    weights = association_weights(associate_forward(rows, rows, rows, 1.0, structure=TopK(3), separation=separation)[1])
    np.testing.assert_allclose(weights.toarray()[:, :3], 1 / 3, rtol=1e-6)
    assert weights.nnz == 150


def test_the_same_bits_for_any_number_of_threads(rng):
    x = rng.standard_normal((1, 700, 2, 8)).astype(np.float32)
    for structure in (TopK(9), Window(5), RandomMask(6), Window(3, positions=rng.permutation(700), dilation=5)):
        found = []
        for threads in (1, 2, 5):
            before = set_num_threads(threads)
            out, saved = associate_forward(x, x, x, 0.5, structure=structure, update_steps_max=1)
            found.append([out, *associate_backward(saved, out)])
            set_num_threads(before)
        for other in found[1:]:
            assert all((a == b).all() for a, b in zip(found[0], other, strict=True)), structure


CHILD = """
import json, sparsehopfield as sh, test_association_structures as t
for i, name in enumerate(t.NAMES):
    sparse = {"padded": True, "dropout": 0.4}
    for j, (separation, options) in enumerate((("softmax", {"update_steps_max": 1}), ("sparsemax", sparse))):
        for dtype in (t.np.float64, t.np.float32)[(i + j) % 2 :: 2]:
            rng = t.np.random.default_rng(3)
            a = t.problem(rng, dtype=dtype, queries=36, rows=70, d=19, v=3, separation=separation, **options)
            t.agree(rng, a | {"structure": t.structure_of(name, 36, 70, rng)}, t.TOL[dtype])
print(json.dumps(sh.show_config(mode="dict")["simd"]["chosen"]))
"""


# The least level; all other tests have the best.
@pytest.mark.parametrize("level", ["base", *(pytest.param(x, marks=pytest.mark.depth) for x in ("avx2", "avx512"))])
def test_every_instruction_set_agrees_with_the_reference(level):
    if level not in show_config(mode="dict")["simd"]["available"]:
        pytest.skip(f"this machine has no {level}")
    assert run_python(CHILD, SPARSEHOPFIELD_SIMD=level) == level


def test_the_best_of_any_scores(rng):
    """Zeros of both signs, equal scores, tiny and huge ones, masked ones: k stay, or all that are there."""
    for dtype in (np.float32, np.float64):
        tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
        scores = np.array([0.0, -0.0, tiny, -tiny, huge, -huge, 1, 1, 1, -1, -1, 0.5], dtype)
        rows = rng.permutation(scores)
        masked = rng.random(len(rows)) < 0.3
        key, query = rows.reshape(1, -1, 1, 1), np.ones((1, 1, 1, 1), dtype)
        for mask in (None, masked[None]):
            there = rows if mask is None else np.where(masked, -np.inf, rows)
            for k in range(1, len(rows)):
                saved = associate_forward(query, key, key, 1e-3, structure=TopK(k), separation="softmax", mask=mask)[1]
                best = np.argsort(-(there * dtype(1e-3)), kind="stable")[:k]
                expected = np.zeros(len(rows))
                expected[best] = np.exp(there[best] * 1e-3 - there.max() * 1e-3)
                weights = association_weights(saved).toarray()[0]
                np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("positions", [None, [4, 0, 1, 2, 1]], ids=["in order", "placed"])
@pytest.mark.parametrize("kind", [Window, DilatedBlocks])
def test_places_beyond_a_small_bag_see_nothing(rng, kind, positions):
    """Also where each query sees all rows of the largest bag."""
    a = problem(rng, queries=5, e=4, ragged=True, mask=("float", 2), rows=5, dropout=0.3, seed=1)
    a |= {"offsets": np.array([0, 1, 6]), "structure": kind(5, positions=positions)}
    a["stored"], a["values"] = a["stored"][:6], a["values"][:6]
    a["mask"] = rng.standard_normal((5, 5))
    out = run(a)[0]
    places = np.arange(5) if positions is None else np.array(positions)
    assert not out[0, places > 0].any()
    assert out[1].any()
    agree(rng, a, TOL[np.float64])


def test_nothing_to_look_at(rng):
    """Padded windows, empty rows of blocks, empty bags: zeros and no gradient, never NaN; padding may be anything."""
    x = rng.standard_normal((1, 6, 1, 3))
    x[0, 4:] = np.nan
    padded = np.array([[False] * 4 + [True] * 2])
    q = rng.standard_normal((1, 6, 1, 3))
    for structure in (Window(0), BlockSparse(np.eye(6, dtype=bool), block=1)):
        out, saved = associate_forward(q, x, x, 1.0, structure=structure, padding_mask=padded)
        assert (out[0, 4:] == 0).all()
        dq, dk, dv, dbeta = associate_backward(saved, np.ones_like(out))
        assert all(np.isfinite(a).all() for a in (dq, dk, dv, dbeta))
        assert (dk[0, 4:] == 0).all()
        assert (dv[0, :4] == 1).all()
    bags = np.zeros((2, 1, 3))
    for structure in (TopK(5), RandomMask(5), Window(1)):
        out, saved = associate_forward(
            rng.standard_normal((2, 2, 1, 3)), bags, bags, 1.0, offsets=[0, 0, 2], structure=structure
        )
        assert (out == 0).all()
        assert np.isfinite(associate_backward(saved, np.ones_like(out))[0]).all()


def test_bad_input(rng):
    x = rng.standard_normal((1, 6, 1, 3))
    for options, error, message in (
        ({"structure": Window}, TypeError, "structure"),
        ({"structure": 3}, TypeError, "structure"),
        ({"structure": Window(1, positions=[0])}, ValueError, "positions"),
        ({"structure": Window(1, positions=[9] * 6)}, ValueError, "positions"),
        ({"structure": Window(1, global_positions=[6])}, ValueError, "global_positions"),
        ({"structure": BlockSparse(np.ones((2, 2), bool), block=2)}, ValueError, "mask"),
        ({"appended": 7}, ValueError, "appended"),
        ({"appended": -1}, ValueError, "appended"),
    ):
        with pytest.raises(error, match=message):
            associate_forward(x, x, x, 1.0, **options)
    with pytest.raises(ValueError, match="positions"):
        associate_forward(x[:, :4], x, x, 1.0, structure=Window(1))
    big = x.astype(np.float32) * np.float32(1e30)
    with pytest.raises(OverflowError):
        associate_forward(big, big, big, 1.0, structure=TopK(2))


def test_without_memory(rng):
    x = rng.standard_normal((1, 40, 1, 3))
    for structure in (TopK(3), Window(2, positions=rng.permutation(40))):

        def call(structure=structure):
            out, saved = associate_forward(x, x, x, 1.0, structure=structure)
            return out, *associate_backward(saved, out)

        fails_without_memory(call)


# --- layers -----------------------------------------------------------------------------------------

STRUCTURES = [Window(1, causal=True), BlockSparse(np.eye(3, dtype=bool), block=4), *sized_pairs(12, 12, 4).values()]
FEATURES = [
    LinearFeatures(),
    LinearFeatures("relu"),
    LinearFeatures(causal=True),
    RandomFeatures(16),
    RandomFeatures(16, causal=True),
]


@pytest.mark.parametrize("structure", FEATURES, ids=str)
@pytest.mark.parametrize("options", [{}, {"add_zero_association": True}, {"update_steps_max": 2}])
def test_layers_train_through_features(rng, structure, options, tmp_path):
    """As below, for whole samples and ragged bags."""
    x = rng.standard_normal((4, 12, 6))
    layer = layers.Hopfield(
        6,
        4,
        num_heads=2,
        random_state=0,
        structure=structure,
        dtype="float64",
        initial_std=0.5,
        learnable_scaling=True,
        update_steps_eps=1e-12,
        **options,
    )
    if structure.causal and options.get("add_zero_association"):
        with pytest.raises(ValueError, match="appended"):
            layer.forward(x)
        return
    ends = [12, 17, 18]
    for patterns, ragged in ((x, False), (x.reshape(-1, 6)[:18], True)):

        def run(rows, ragged=ragged):
            return layer.forward(np.split(rows, ends[:-1]) if ragged else rows, train=True)

        y = run(patterns)
        g, e = rng.standard_normal(y.shape), 1e-6 * rng.standard_normal(patterns.shape)
        layer.zero_grad()
        along = (layer.backward(g) * e).sum()
        assert (layer._last_tape.saved.steps == options.get("update_steps_max", 0)).any()
        scale = layer.parameters()["log_scaling"]
        along_scale = 1e-6 * scale.grad.sum()
        difference = ((run(patterns + e) - run(patterns - e)) * g).sum() / 2
        assert along == pytest.approx(difference, rel=1e-6, abs=1e-12)
        scale.value += 1e-6
        above = run(patterns)
        scale.value -= 2e-6
        below = run(patterns)
        scale.value += 1e-6
        assert along_scale == pytest.approx(((above - below) * g).sum() / 2, rel=1e-5, abs=1e-11)
    layer.save(tmp_path / "layer")
    again = layers.load(tmp_path / "layer")
    assert again.structure == structure
    assert (again.forward(x) == layer.forward(x)).all()


def test_pooling_by_features(rng):
    """Rows are projected, however few the queries; padding may be anything; there are no weights to look at."""
    x = rng.standard_normal((3, 40, 4))
    pooling = layers.HopfieldPooling(4, 8, num_heads=2, structure=RandomFeatures(512), random_state=0, initial_std=0.3)
    exact = layers.HopfieldPooling(4, 8, num_heads=2, random_state=0, initial_std=0.3)
    near, want = pooling.forward(x), exact.forward(x)
    assert np.abs(near - want).max() < 0.2 * np.abs(want).max()
    padded = x.copy()
    padded[:, 30:] = 7
    mask = np.tile(np.arange(40) >= 30, (3, 1))
    np.testing.assert_allclose(pooling.forward(padded, mask), pooling.forward(x[:, :30]), atol=1e-6)
    with pytest.raises(ValueError, match="weights"):
        pooling.associations(x)
    with pytest.raises(ValueError, match="mask"):
        pooling.forward(x, association_mask=np.zeros((1, 40), bool))
    for options in ({"separation": "sparsemax"}, {"gradient": "implicit"}, {"dropout": 0.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            layers.HopfieldPooling(4, structure=LinearFeatures(), **options).forward(x, train=True)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    "options", [{}, {"concat_bias_pattern": True, "add_zero_association": True}, {"update_steps_max": 3}]
)
def test_layers_train_through_structures(rng, structure, options, tmp_path):
    """The gradient along a random direction, by differences; saved and loaded, the layer is the same."""
    x = rng.standard_normal((4, 12, 6))
    layer = layers.SparseHopfield(
        6, 4, num_heads=2, random_state=0, structure=structure, dtype="float64", initial_std=0.5, **options
    )
    y = layer.forward(x, train=True)
    g, e = rng.standard_normal(y.shape), 1e-6 * rng.standard_normal(x.shape)
    along = (layer.backward(g) * e).sum()
    weight = layer.parameters()["association_core.in_proj_weight"]
    direction = 1e-6 * rng.standard_normal(weight.value.shape)
    along_weight = (weight.grad * direction).sum()
    difference = ((layer.forward(x + e) - layer.forward(x - e)) * g).sum() / 2
    assert along == pytest.approx(difference, rel=1e-6, abs=1e-12)
    weight.value += direction
    above = layer.forward(x)
    weight.value -= 2 * direction
    below = layer.forward(x)
    assert along_weight == pytest.approx(((above - below) * g).sum() / 2, rel=1e-6, abs=1e-12)
    layer.save(tmp_path / "layer")
    again = layers.load(tmp_path / "layer")
    assert type(again.structure) is type(structure)
    assert (again.forward(x) == layer.forward(x)).all()


def test_structures_of_layers_may_change(rng):
    x = rng.standard_normal((2, 9, 4)).astype(np.float32)
    layer = layers.Hopfield(4, random_state=0)
    everything = layer.forward(x)
    layer.structure = Window(1)
    near = layer.forward(x)
    assert not np.allclose(near, everything)
    mask = ~Window(1).mask(9, 9)
    layer.structure = Full()
    assert layer.structure is None
    assert (layer.forward(x) == everything).all()
    np.testing.assert_allclose(near, layer.forward(x, association_mask=mask), atol=1e-6)
    pooling = layers.SparseHopfieldPooling(4, quantity=2, structure=TopK(1), random_state=0)
    assert pooling.structure == TopK(1)
    assert np.diff(pooling.associations([x[0], x[1, :3]]).indptr).max() == 1
    lookup = layers.HopfieldLayer(4, quantity=30, structure=RandomMask(4), random_state=0)
    assert (np.diff(lookup.associations(x).indptr) == 4).all()
    with pytest.raises(TypeError, match="structure"):
        layer.structure = "window"
    with pytest.raises(ValueError, match="positions"):
        layers.HopfieldPooling(4, structure=Window(1)).forward(x)


def test_pooling_a_placed_query(rng):
    """A window around a place of every bag; of a bag that does not have the place, nothing."""
    bags = [rng.standard_normal((9, 4)), rng.standard_normal((2, 4))]
    pooling = layers.HopfieldPooling(4, structure=Window(1, positions=[4]), random_state=0)
    weights = pooling.associations(bags).toarray()
    assert (weights[0] > 0).nonzero()[0].tolist() == [3, 4, 5]
    assert not weights[1].any()


def test_structures_describe_themselves_within_a_sample():
    assert TopK(9).within(4) == TopK(4)
    assert TopK(3).within(4) == TopK(3)
    assert RandomMask(9, 2).within(4) == dataclasses.replace(RandomMask(9, 2), k=4)
    window = Window(9)
    assert window.within(4) is window
