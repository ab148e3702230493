"""The layers' association: forward and backward against the reference, and the reference against differences."""

import itertools

import numpy as np
import pytest
from helpers import TABLE_MAPS, fails_without_memory, run_python
from hypothesis import given
from hypothesis import strategies as st

from sparsehopfield import Entmax, Polynomial, RetrievalWarning, reference, set_num_threads, show_config
from sparsehopfield._engine.association import Projection, associate_backward, associate_forward, association_weights

MAPS = ["sparsemax", "softmax", "entmax15", Entmax(1.2), Entmax(3.0), Polynomial(4), *TABLE_MAPS]
NAMES = ["queries", "stored", "values", "beta", "key_weight", "key_bias", "value_weight", "value_bias"]


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def problem(
    rng,
    *,
    samples=2,
    queries=3,
    rows=7,
    heads=2,
    d=3,
    v=4,
    e=None,
    shared=False,
    shared_queries=False,
    shared_heads=False,
    ragged=False,
    padded=False,
    mask=None,
    dtype=np.float64,
    **options,
):
    """Arguments of `associate_forward`, by their names."""

    def normal(*shape, scale=1.0):
        return (rng.standard_normal(shape) * scale).astype(dtype)

    q = normal(*(() if shared_queries else (samples,)), queries, heads, d)
    h = 1 if e or shared_heads else heads
    leading = (rows * samples,) if ragged else (rows,) if shared else (samples, rows)
    a = {"queries": q, "stored": normal(*leading, h, e or d), "values": normal(*leading, h, e or v)}
    a["beta"] = np.exp(normal(heads, scale=0.3).astype(np.float64))
    if e:
        a["key_projection"] = Projection(normal(heads, d, e, scale=e**-0.5), normal(heads, d))
        a["value_projection"] = Projection(normal(heads, v, e), normal(heads, v))
    if ragged:
        cuts = np.sort(rng.integers(0, rows * samples + 1, samples - 1))
        a["offsets"] = np.array([0, *cuts, rows * samples])
    if padded:
        a["padding_mask"] = rng.random((samples, rows)) < 0.3
    if mask is not None:
        shape = {2: (queries, rows), 3: (samples, queries, rows), 4: (samples, heads, queries, rows)}[mask[1]]
        hidden = rng.random(shape) < 0.3
        a["mask"] = hidden if mask[0] == "bool" else np.where(hidden, -np.inf, normal(*shape)).astype(dtype)
    return a | options


def run(a, g=None, need_rows=True):
    """What the core gives: output, gradients by name."""
    out, saved = associate_forward(**a)
    g = np.ones_like(out) if g is None else g(out.shape)
    dq, dk, dv, db, *more = associate_backward(saved, g, need_rows=need_rows)
    return out, dict(zip(NAMES, [dq, dk, dv, db, *[x for p in more if p for x in p]], strict=False)), saved


def expected(a, g):
    """What the reference gives."""
    out, saved = reference.associate_forward(**a)
    dq, dk, dv, db, *more = reference.associate_backward(saved, g(out.shape))
    if np.ndim(a["queries"]) == 3:
        dq = dq.sum(axis=0)
    return out, dict(zip(NAMES, [dq, dk, dv, db, *[x for p in more if p for x in p]], strict=False))


def agree(rng, a, tol):
    """The core and the reference, output and every gradient relative to its largest entry."""
    weights = {}

    def g(shape):
        return weights.setdefault(shape, rng.standard_normal(shape)).astype(np.asarray(a["queries"]).dtype)

    out, gradients, _ = run(a, g)
    out_ref, gradients_ref = expected(a, g)
    assert out.dtype == np.asarray(a["queries"]).dtype
    np.testing.assert_allclose(out, out_ref, rtol=0, atol=tol * (1 + np.abs(out_ref).max(initial=0)))
    for name, value in gradients_ref.items():
        scale = 1 + np.abs(value).max(initial=0)
        np.testing.assert_allclose(gradients[name], value, rtol=0, atol=tol * scale, err_msg=name)


def test_odd_powers(rng):
    """In float64 only: sums of powers of both signs cancel."""
    agree(rng, problem(rng, separation=Polynomial(3), update_steps_max=2), 1e-8)


TOL = {np.float64: 1e-10, np.float32: 3e-4}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("separation", MAPS, ids=str)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_maps_and_updates(rng, dtype, separation, steps):
    agree(rng, problem(rng, dtype=dtype, separation=separation, update_steps_max=steps), TOL[dtype])


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
@pytest.mark.parametrize(
    "layout",
    [
        {"shared": True},
        {"shared_queries": True, "queries": 1},
        {"shared_heads": True},
        {"shared": True, "shared_heads": True, "padded": False},
        {"ragged": True, "samples": 4},
        {"ragged": True, "samples": 3, "shared_heads": True},
        {"padded": True, "samples": 3},
        {"shared": True, "padded": True, "samples": 3},
        {"shared": True, "padded": True, "samples": 3, "mask": ("bool", 3)},
        {"shared": True, "padded": True, "mask": ("add", 4)},
        {"mask": ("bool", 2)},
        {"mask": ("bool", 4), "padded": True},
        {"mask": ("add", 3), "shared": True},
        {"mask": ("add", 4), "shared_heads": True},
    ],
    ids=str,
)
def test_layouts(rng, dtype, separation, layout):
    a = problem(rng, dtype=dtype, separation=separation, update_steps_max=2, **layout)
    agree(rng, a, TOL[dtype])


@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
@pytest.mark.parametrize("d", [4, 8, 16])  # rows close by: unrolled for these sizes
def test_few_features(rng, separation, d):
    agree(rng, problem(rng, rows=37, queries=20, d=d, v=d, separation=separation, update_steps_max=1), 1e-10)
    a = problem(rng, rows=37, queries=20, d=d, v=d, separation=separation, dtype=np.float32, update_steps_max=1)
    agree(rng, a, 3e-4)


@pytest.mark.parametrize("layout", [{}, {"ragged": True}, {"padded": True}, {"shared": True}, {"samples": 1}], ids=str)
def test_gradients_beside_one_another(rng, layout):
    """Into parts of one wider array; and only those that are asked for."""
    a = problem(rng, d=3, v=3, update_steps_max=1, **layout)
    out, gradients, saved = run(a)
    places, apart = [], []
    for name in ("queries", "stored", "values"):
        shape = gradients[name].shape
        wide = np.full((*shape[:-2], 3 * 2 * 3), np.nan)
        apart.append(wide)
        places.append(wide[..., 6:12].reshape(shape))
    dq, dk, dv, db = associate_backward(saved, np.ones_like(out), need_beta=False, out=tuple(places))
    assert db is None
    for name, gradient, place, wide in zip(gradients, (dq, dk, dv), places, apart, strict=False):
        assert gradient is place
        assert np.array_equal(place, gradients[name])
        assert np.isnan(wide[..., :6]).all()
        assert np.isnan(wide[..., 12:]).all()
    only = associate_backward(saved, np.ones_like(out), need_rows=False, out=(places[0], None, None))
    assert only[1] is None
    assert only[0] is places[0]


def test_places_of_gradients_that_do_not_fit(rng):
    a = problem(rng, d=3, v=3)
    out, gradients, saved = run(a)
    dq = gradients["queries"]
    frozen = np.empty_like(dq)
    frozen.flags.writeable = False
    for wrong in (dq.astype(np.float32), dq[:, :-1], np.empty((2, 3, 2, 6))[..., ::2], dq.swapaxes(0, 1), "dq"):
        with pytest.raises(ValueError, match="out: must be writeable"):
            associate_backward(saved, out, out=(wrong, None, None))
    with pytest.raises(ValueError, match="out: is read-only"):
        associate_backward(saved, out, out=(frozen, None, None))
    with pytest.raises(ValueError, match="out: must be writeable"):  # rows not equally far apart
        associate_backward(saved, out, out=(np.empty((2, 5, 2, 3))[:, :3], None, None))
    out, saved = associate_forward(**problem(rng, shared_queries=True))
    with pytest.raises(ValueError, match="out: the gradient of queries, which are shared"):
        associate_backward(saved, out, out=(np.empty((2, 3, 2, 3)), None, None))


@pytest.mark.parametrize("layout", [{}, {"ragged": True}, {"shared": True}], ids=str)
@pytest.mark.parametrize("one", ["stored", "values"])
def test_one_head_beside_many(rng, layout, one):
    a = problem(rng, samples=3, update_steps_max=2, dropout=0.2, seed=1, **layout)
    agree(rng, a | {one: np.ascontiguousarray(a[one][..., :1, :])}, 1e-10)


def test_masks_of_ragged_bags(rng):
    a = problem(rng, samples=3, ragged=True, update_steps_max=1)
    a["mask"] = rng.random((3, 3, np.diff(a["offsets"]).max())) < 0.3
    agree(rng, a, 1e-10)


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", Entmax(1.3)], ids=str)
@pytest.mark.parametrize("e", [4, 11])  # up to twice the head's features by a matrix, beyond by two
@pytest.mark.parametrize(
    "layout", [{}, {"ragged": True}, {"padded": True}, {"shared_queries": True, "heads": 11}], ids=str
)
def test_projections(rng, dtype, separation, e, layout):
    a = problem(rng, e=e, dtype=dtype, separation=separation, update_steps_max=2, dropout=0.3, seed=5, **layout)
    agree(rng, a, TOL[dtype])
    without = {k: v for k, v in a.items() if k != "key_projection"}
    weight, bias = a["key_projection"]
    without["stored"] = np.einsum("...oe,hde->...hd", a["stored"], weight) + bias
    without["values"] = np.repeat(a["values"], a["queries"].shape[-2], axis=-2)
    without.pop("value_projection")
    plain, _ = associate_forward(**without)
    weight, bias = a["value_projection"]
    factors = np.abs(associate_forward(**without | {"values": np.ones_like(without["values"])})[0][..., :1])
    projected = np.einsum("bnhe,hve->bnhv", plain, weight) + factors * bias
    np.testing.assert_allclose(associate_forward(**a)[0], projected, atol=TOL[dtype] * 10)


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 17, 33), (2, 16, 8), (1, 31, 257), (3, 130, 65)], ids=str)
def test_sizes_around_the_edges_of_tiles(rng, dtype, separation, size):
    samples, queries, rows = size
    a = problem(rng, samples=samples, queries=queries, rows=rows, heads=1, d=5, v=3, dtype=dtype)
    agree(rng, a | {"separation": separation, "update_steps_max": 1, "dropout": 0.2, "seed": 2**40 + 3}, TOL[dtype])


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", Entmax(1.5)], ids=str)
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"shared": True, "samples": 3},
        {"mask": ("bool", 2)},
        {"padded": True},
        {"d": 128, "v": 144},  # whole vectors: gradients grow where they belong
        {"d": 128, "v": 128, "shared": True, "samples": 3, "heads": 2},
        {"d": 128, "v": 128, "samples": 2, "queries": 70},
    ],
    ids=str,
)
def test_rows_that_no_cache_holds(rng, dtype, separation, layout):
    """Many features and rows: products by the BLAS, many queries at once."""
    shape = {"samples": 1, "queries": 140, "rows": 700, "heads": 1, "d": 130, "v": 140} | layout
    a = problem(rng, dtype=dtype, separation=separation, update_steps_max=1, dropout=0.1, seed=1, **shape)
    a["beta"] = a["beta"] * 0.1
    agree(rng, a, TOL[dtype])


@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_very_many_queries_of_such_rows(rng, separation):
    """They are taken 256 at a time, every one as it would be taken alone."""
    a = problem(rng, samples=1, queries=1100, rows=300, heads=1, d=256, v=256, dtype=np.float32, separation=separation)
    a["beta"], a["update_steps_max"] = a["beta"] * 0.1, 2
    out, gradients, _ = run(a)
    some = slice(500, 530)
    few = a | {"queries": a["queries"][:, some]}
    out_few, few_gradients = expected(few, np.ones)
    np.testing.assert_allclose(out[:, some], out_few, atol=3e-4)
    np.testing.assert_allclose(gradients["queries"][:, some], few_gradients["queries"], atol=3e-4)
    halves = [run(a | {"queries": a["queries"][:, i]})[1] for i in (slice(0, 600), slice(600, None))]
    for name in ("stored", "values"):
        total = halves[0][name] + halves[1][name]
        np.testing.assert_allclose(gradients[name], total, atol=1e-4 * np.abs(total).max())


@pytest.mark.covering(1)
@pytest.mark.slow
@pytest.mark.parametrize("separation", MAPS, ids=str)
@pytest.mark.parametrize("options", [{}, {"e": 4}, {"ragged": True, "dropout": 0.4, "seed": 9}], ids=str)
def test_the_reference_against_differences(rng, separation, options):
    if isinstance(separation, Polynomial) and "e" in options:
        options = {}
    a = problem(rng, separation=separation, update_steps_max=2, update_steps_eps=0.0, **options)
    out, saved = reference.associate_forward(**a)
    g = rng.standard_normal(out.shape)
    dq, dk, dv, db, *more = reference.associate_backward(saved, g)
    flat = dict(zip(NAMES, [dq, dk, dv, db, *[x for p in more for x in p]], strict=False))
    for name, gradient in flat.items():
        array = a[name] if name in a else getattr(a[name.rpartition("_")[0] + "_projection"], name.rpartition("_")[2])
        for _ in range(2):
            at = tuple(rng.integers(0, n) for n in array.shape)
            kept, h = array[at], 1e-6
            ends = []
            for moved in (kept + h, kept - h):
                array[at] = moved
                ends.append((reference.associate_forward(**a)[0] * g).sum())
            array[at] = kept
            assert gradient[at] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
def test_every_query_stops_by_itself(rng, dtype, separation):
    a = problem(rng, queries=9, rows=20, dtype=dtype, separation=separation)
    a |= {"update_steps_max": None, "update_steps_eps": 1e-4, "beta": 1.5}
    out, _, saved = run(a)
    steps = saved.steps
    assert steps.max() > steps.min() >= 1
    agree(rng, a, 100 * TOL[dtype])
    for n in range(9):  # companions change nothing
        alone = associate_forward(**a | {"queries": a["queries"][:, n : n + 1]})[0]
        np.testing.assert_allclose(alone, out[:, n : n + 1], rtol=0, atol=TOL[dtype] / 100)


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15", Entmax(1.7)], ids=str)
@pytest.mark.parametrize("shape", [(5, 9), (30, 4)], ids=str)  # solved in the support, in the state
def test_implicit_gradient_equals_the_unrolled_one(rng, separation, shape):
    rows, d = shape
    a = problem(rng, queries=5, rows=rows, d=d, separation=separation, update_steps_max=None, update_steps_eps=1e-13)
    a["beta"] = 0.6 if separation == "softmax" else 1.0
    _, unrolled, long = run(a)
    _, implicit, short = run(a | {"gradient": "implicit"})
    for name in ("stored", "values", "beta"):
        np.testing.assert_allclose(implicit[name], unrolled[name], atol=1e-6 * (1 + np.abs(unrolled[name]).max()))
    assert not implicit["queries"][short.steps.transpose(0, 1, 2) > 0].any()
    assert short.steps.min() < short.steps.max()
    np.testing.assert_array_equal(long.steps, short.steps)
    agree(rng, a | {"gradient": "implicit"}, 1e-8)


def test_implicit_gradient_says_where_there_is_none():
    """Softmax between two patterns +-a: the origin is a fixed point, critical at beta a^2 = 1 and unstable beyond."""
    rows = np.array([1.0, -1.0]).reshape(1, 2, 1, 1)
    for beta in (1.0, 1.5):
        out, saved = associate_forward(
            np.zeros((1, 1, 1, 1)), rows, rows, beta, separation="softmax", update_steps_max=None, gradient="implicit"
        )
        with pytest.raises(ArithmeticError, match="query 0 rests where the implicit gradient does not exist"):
            associate_backward(saved, np.ones_like(out))
    out, saved = associate_forward(
        np.zeros((1, 1, 1, 1)), rows, rows, 0.5, separation="softmax", update_steps_max=None, gradient="implicit"
    )
    assert associate_backward(saved, np.ones_like(out))[2].tolist() == [[[[0.5]], [[0.5]]]]


@pytest.mark.parametrize("separation", MAPS, ids=str)
def test_queries_without_rows_get_zeros(rng, separation):
    a = problem(rng, separation=separation, update_steps_max=1, rows=4)
    a["padding_mask"] = np.array([[True] * 4, [False] * 4])
    out, gradients, _ = run(a)
    assert not out[0].any()
    assert out[1].any()
    assert not any(gradients[name][0].any() for name in ("queries", "stored", "values"))
    hidden = np.zeros((3, 4), bool)
    hidden[1] = True
    out, gradients, _ = run({k: v for k, v in a.items() if k != "padding_mask"} | {"mask": hidden})
    assert not out[:, 1].any()
    assert not gradients["queries"][:, 1].any()
    assert all(np.isfinite(g).all() for g in gradients.values())
    empty = associate_forward(a["queries"], np.zeros((0, 2, 3)), np.zeros((0, 2, 3)), 1.0, offsets=[0, 0, 0])[0]
    assert not empty.any()
    none = {"stored": np.zeros((2, 0, 2, 3)), "values": np.zeros((2, 0, 2, 4)), "padding_mask": np.zeros((2, 0), bool)}
    out, gradients, _ = run(a | none)
    assert not out.any()
    assert not gradients["queries"].any()
    assert gradients["stored"].shape == (2, 0, 2, 3)


def test_padded_samples_may_repeat_rows(rng):
    """Whether a backward pass follows or not."""
    a = problem(rng, padded=True)
    a |= {name: np.broadcast_to(a[name][0], a[name].shape) for name in ("stored", "values")}
    agree(rng, a, TOL[np.float64])
    np.testing.assert_array_equal(associate_forward(**a, keep=False)[0], run(a)[0])


@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_weights_of_the_last_association(rng, separation):
    a = problem(rng, separation=separation, update_steps_max=2, padded=True)
    _, saved = associate_forward(**a)
    weights = association_weights(saved)
    _, tapes = reference.associate_forward(**a)
    samples, queries, heads, _ = a["queries"].shape
    dense = weights if separation == "softmax" else weights.toarray().reshape(samples, heads, queries, -1)
    for (b, n, h), (trail, _) in tapes.tapes.items():
        np.testing.assert_allclose(dense[b, h, n], trail[-1][2], atol=1e-12)


def test_the_same_bits_for_any_number_of_threads(rng):
    layouts = [
        problem(rng, samples=5, queries=40, rows=50, dtype=np.float32, update_steps_max=3, dropout=0.3, seed=4),
        problem(rng, samples=9, e=4, queries=1, heads=8, rows=60, dtype=np.float32, update_steps_max=3),
        problem(rng, samples=300, queries=1, shared=True, rows=40, heads=1, dtype=np.float32),
        problem(rng, samples=1, queries=300, rows=700, heads=1, d=130, v=130, dtype=np.float32),
    ]
    before = set_num_threads(1)
    try:
        for a in layouts:
            results = []
            for threads in (1, 2, 3):
                set_num_threads(threads)
                out, gradients, _ = run(a)
                results.append([out, *gradients.values()])
            for one, other in itertools.product(results[:1], results[1:]):
                for x, y in zip(one, other, strict=True):
                    np.testing.assert_array_equal(x, y)
    finally:
        set_num_threads(before)


CHILD = """
import json, sparsehopfield as sh, test_association as t
wide = {"queries": 70, "heads": 1, "d": 17, "beta": 0.3}
layouts = [{}, {"e": 4}, {"ragged": True, "dropout": 0.4, "seed": 9}, wide]
for i, separation in enumerate(t.MAPS):
    for j, options in enumerate(layouts):
        if isinstance(separation, t.Polynomial) and "e" in options:
            continue
        dtype = (t.np.float64, t.np.float32)[(i + j) % 2]
        rng = t.np.random.default_rng(3)
        a = t.problem(rng, dtype=dtype, separation=separation, update_steps_max=1, **options)
        t.agree(rng, a, t.TOL[dtype])
print(json.dumps(sh.show_config(mode="dict")["simd"]["chosen"]))
"""


@pytest.mark.slow
# The least level; all other tests have the best.
@pytest.mark.parametrize("level", ["base", *(pytest.param(x, marks=pytest.mark.depth) for x in ("avx2", "avx512"))])
def test_every_instruction_set_agrees_with_the_reference(level):
    if level not in show_config(mode="dict")["simd"]["available"]:
        pytest.skip(f"this machine has no {level}")
    assert run_python(CHILD, SPARSEHOPFIELD_SIMD=level) == level


def test_dropout_is_the_reference_s_and_has_its_rate(rng):
    factors = reference.dropout_factors(0.3, 7, 5, 100_000)
    assert (factors == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert set(np.round(factors, 6)) == {0.0, round(1 / 0.7, 6)}
    a = problem(rng, dropout=0.5, seed=3)
    assert not np.array_equal(associate_forward(**a)[0], associate_forward(**a | {"seed": 4})[0])


def test_strided_input_is_taken_in_place_or_copied(rng):
    a = problem(rng, queries=6, rows=6, update_steps_max=1)
    qkv = np.concatenate([a["queries"], a["stored"], a["values"][..., :3]], axis=-1)
    views = [qkv[..., :3], qkv[..., 3:6], qkv[..., 6:]]
    for arrays in (views, [v[::-1][::-1] for v in views], [np.asfortranarray(v) for v in views]):
        out = associate_forward(*arrays, a["beta"], update_steps_max=1)[0]
        ref = associate_forward(*[np.ascontiguousarray(v) for v in views], a["beta"], update_steps_max=1)[0]
        np.testing.assert_array_equal(out, ref)


@given(st.data())
def test_any_shape(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    whole = st.integers(1, 20)
    a = problem(
        rng,
        samples=data.draw(st.integers(1, 4)),
        queries=data.draw(whole),
        rows=data.draw(whole),
        heads=data.draw(st.integers(1, 5)),
        d=data.draw(whole),
        v=data.draw(whole),
        e=data.draw(st.none() | st.integers(1, 9)),
        separation=data.draw(st.sampled_from(MAPS[:5])),
        update_steps_max=data.draw(st.integers(0, 2)),
        **data.draw(st.sampled_from([{}, {"shared": True}, {"ragged": True}, {"padded": True}, {"mask": ("add", 2)}])),
    )
    agree(rng, a, 1e-8)


@pytest.mark.parametrize("scale", [1e-30, 1e6, 1e18])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
def test_extreme_scores(rng, separation, scale):
    a = problem(rng, dtype=np.float32, separation=separation)
    a["queries"] = (a["queries"] * np.float32(scale)).astype(np.float32)
    _, saved = associate_forward(**a)
    weights = association_weights(saved)
    sums = weights.sum(axis=-1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_ties_share_equally():
    rows = np.ones((1, 6, 1, 2), np.float32)
    query = np.array([1e5, 3e5], np.float32).reshape(1, 1, 1, 2)
    for separation in ("sparsemax", "softmax", "entmax15"):
        weights = association_weights(associate_forward(query, rows, rows, 1.0, separation=separation)[1])
        np.testing.assert_allclose(
            weights.toarray().ravel() if separation != "softmax" else weights.ravel(), 1 / 6, rtol=1e-6
        )


def test_bad_input(rng):
    a = problem(rng)
    wrong = [
        ({"queries": a["queries"][0, 0]}, ValueError, "queries: must be of shape"),
        ({"queries": a["queries"][..., :2]}, ValueError, "queries: must have the features"),
        ({"queries": a["queries"][:1]}, ValueError, "queries: 1 samples"),
        ({"stored": a["stored"][:, :, [0, 1, 0]]}, ValueError, "stored: must have the queries' 2 heads or one"),
        ({"values": a["values"][:, 1:]}, ValueError, "values: must have the rows of stored"),
        ({"beta": 0.0}, ValueError, "beta: must be positive"),
        ({"beta": [1.0, 2.0, 3.0]}, ValueError, "beta: must be one number"),
        ({"beta": np.nan}, ValueError, "beta: must be positive"),
        ({"separation": "sparsmax"}, ValueError, "separation: unknown name 'sparsmax'; did you mean 'sparsemax'"),
        ({"gradient": "none"}, ValueError, "gradient: unknown name"),
        ({"gradient": "implicit", "separation": Polynomial(4)}, ValueError, "gradient: a polynomial"),
        ({"dropout": 1.0}, ValueError, "dropout: must be below 1"),
        ({"dropout": -0.1}, ValueError, "dropout: must be a finite number"),
        ({"update_steps_eps": -1.0}, ValueError, "update_steps_eps"),
        ({"update_steps_max": 1.5}, TypeError, "update_steps_max"),
        ({"padding_mask": np.zeros((2, 6), bool)}, ValueError, "padding_mask: must be of shape"),
        ({"mask": np.zeros((3, 6), bool)}, ValueError, "mask: must be of shape"),
        ({"mask": np.full((3, 7), np.nan)}, ValueError, "mask: must be finite"),
        ({"mask": np.zeros((3, 7), np.int64)}, TypeError, "mask: must be of bool"),
        ({"offsets": [0, 7, 14]}, ValueError, "offsets: need stored rows"),
        ({"key_projection": (np.ones((2, 3, 3)), np.ones((2, 3)))}, ValueError, "key_projection: the rows"),
    ]
    for change, error, message in wrong:
        with pytest.raises(error, match=message):
            associate_forward(**a | change)
    for name in ("queries", "stored", "values"):
        damaged = a[name].copy()
        damaged[1, 2, 0, 1] = np.nan
        with pytest.raises(ValueError, match=f"{name}: row .* contains NaN"):
            associate_forward(**a | {name: damaged})
        damaged[1, 2, 0, 1] = np.inf
        with pytest.raises(ValueError, match=f"{name}: row"):
            associate_forward(**a | {name: damaged})
    huge = {name: a[name].astype(np.float32) * np.float32(1e30) for name in ("queries", "stored", "values")}
    with pytest.raises(OverflowError, match="queries"):
        associate_forward(**a | huge)
    out, saved = associate_forward(**a)
    with pytest.raises(ValueError, match="grad: must have the shape"):
        associate_backward(saved, out[0])


def test_unsettled_queries_warn():
    """Softmax between two patterns +-1 at the critical beta 1: x <- tanh x creeps to 0, by x^3 / 3 an update."""
    rows = np.array([1.0, -1.0]).reshape(1, 2, 1, 1)
    slow = {"separation": "softmax", "update_steps_max": None, "update_steps_eps": 1e-9}
    with pytest.warns(RetrievalWarning, match="1 queries were still moving") as warned:
        associate_forward(np.full((1, 1, 1, 1), 0.5), rows, rows, 1.0, **slow, keep=False)
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    "layout",
    [
        {"padded": True},
        {"e": 4},
        {"shared": True, "samples": 40, "mask": ("bool", 2)},
        {"shared": True, "queries": 140, "rows": 300, "heads": 1, "d": 128, "v": 128},
    ],
    ids=str,
)
def test_no_memory_is_an_error_and_nothing_else(rng, layout):
    """Every allocation of both passes fails once."""
    a = problem(rng, update_steps_max=1, dropout=0.1, seed=1, **layout)
    out, saved = associate_forward(**a)
    for call in (
        lambda: associate_forward(**a),
        lambda: associate_backward(saved, out),
        lambda: association_weights(saved),
    ):
        assert fails_without_memory(call)
    np.testing.assert_array_equal(associate_forward(**a)[0], out)


def test_gradients_of_repeated_views_are_of_each_place(rng):
    """Where samples or heads of an array lie at one place, each has its own gradient all the same."""
    g = rng.standard_normal((2, 4, 3, 7))
    q = rng.standard_normal((2, 4, 3, 6))
    for lead in ((1, 5, 3), (2, 5, 1), (1, 5, 1)):
        given = [rng.standard_normal((*lead, d)) for d in (6, 7)]
        views = [np.broadcast_to(a, (2, 5, 3, a.shape[-1])) for a in given]
        for rows in (views, [views[0], views[1].copy()], [views[0].copy(), views[1]]):
            expected = associate_backward(associate_forward(q, *(a.copy() for a in rows), 0.5)[1], g)
            for a, b in zip(associate_backward(associate_forward(q, *rows, 0.5)[1], g), expected, strict=True):
                np.testing.assert_array_equal(a, b)
