"""The association of the layers with features: against the kernel of all pairs in plain NumPy, and its gradients."""

import itertools
import tracemalloc

import numpy as np
import pytest
from helpers import fails_without_memory, name_of, run_python, same_bits, threads

import sparsehopfield as sh
from sparsehopfield.structures import LinearFeatures, RandomFeatures
from sparsehopfield.structures import _feature_association as features
from sparsehopfield.structures._feature_association import backward, forward

STRUCTURES = [
    LinearFeatures(),
    LinearFeatures("relu"),
    RandomFeatures(7),
    LinearFeatures(causal=True),
    LinearFeatures("relu", causal=True),
    RandomFeatures(7, causal=True),
]
B, H, N, M, D, V = 3, 2, 4, 6, 3, 2


@pytest.fixture
def rng():
    return np.random.default_rng(77)


def weights(structure, x, k, beta, there):
    """Weights of one head's queries over its rows, from logarithms of the features of all pairs."""
    with np.errstate(divide="ignore"):
        if isinstance(structure, RandomFeatures):
            w = beta**0.5 * structure.projection(x.shape[1])
            a, b = x @ w.T, k @ w.T - beta / 2 * (k**2).sum(axis=1, keepdims=True)
        elif structure.kind == "relu":
            a, b = (np.log(np.maximum(rows, 0)) for rows in (x, k))
        else:
            a, b = (np.minimum(u, 0) + np.log1p(np.maximum(u, 0)) for u in (beta**0.5 * x, beta**0.5 * k))
    logs = a[:, None] + b[None]
    if structure.causal:
        there = there & (np.arange(len(k)) <= np.arange(len(x))[:, None])
    logs = np.where(np.broadcast_to(there, logs.shape[:2])[..., None], logs, -np.inf)
    most = logs.max(axis=(1, 2), keepdims=True, initial=-np.inf)
    p = np.exp(logs - np.where(most > -np.inf, most, 0)).sum(axis=2)
    total = p.sum(axis=1, keepdims=True)
    return p / np.where(total > 0, total, 1)


def dense(structure, q, k, v, beta, steps=0, padding=None, offsets=None):
    """The output, sample by sample and head by head."""
    heads = q.shape[-2]
    if offsets is not None:
        bags = [slice(*pair) for pair in itertools.pairwise(offsets)]
        parts = []
        for b, bag in enumerate(bags):
            own = q[bag] if structure.causal else q if q.ndim == 3 else q[b]
            parts.append(dense(structure, own, k[bag], v[bag], beta, steps)[0])
        return np.concatenate(parts) if structure.causal else np.stack(parts)
    samples = max(len(a) if a.ndim == 4 else 1 for a in (q, k))
    q, k, v = (np.broadcast_to(a, (samples, *a.shape[-3:])) for a in (q, k, v))
    k, v = (np.broadcast_to(a, (*a.shape[:2], heads, a.shape[-1])) for a in (k, v))
    out = np.empty((*q.shape[:3], v.shape[-1]))
    for b in range(samples):
        there = np.ones(k.shape[1], bool) if padding is None else ~padding[b]
        for h in range(heads):
            x = q[b, :, h]
            for _ in range(steps):
                x = weights(structure, x, k[b, :, h], beta[h], there) @ k[b, :, h]
            out[b, :, h] = weights(structure, x, k[b, :, h], beta[h], there) @ v[b, :, h]
    return out


def gradients(structure, x, k, v, beta, g):
    """Of one association of one head, (rows, numbers), from the weights of all pairs and features."""
    with np.errstate(divide="ignore"):
        if isinstance(structure, RandomFeatures):
            w = beta**0.5 * structure.projection(x.shape[1])
            a, b = x @ w.T, k @ w.T - beta / 2 * (k**2).sum(axis=1, keepdims=True)
        elif structure.kind == "relu":
            a, b = (np.log(np.maximum(rows, 0)) for rows in (x, k))
        else:
            a, b = (np.minimum(u, 0) + np.log1p(np.maximum(u, 0)) for u in (beta**0.5 * x, beta**0.5 * k))
    logs = a[:, None] + b[None]
    if structure.causal:
        logs[np.arange(len(k)) > np.arange(len(x))[:, None]] = -np.inf
    most = logs.max(axis=(1, 2), keepdims=True)
    p = np.exp(logs - np.where(most > -np.inf, most, 0))
    total = p.sum(axis=(1, 2), keepdims=True)
    p /= np.where(total > 0, total, 1)
    pairs = p.sum(axis=2)
    slope = p * ((g @ v.T) - (g * (pairs @ v)).sum(axis=1, keepdims=True))[..., None]
    da, db = slope.sum(axis=1), slope.sum(axis=0)
    if isinstance(structure, RandomFeatures):
        return da @ w, db @ w - beta * k * db.sum(axis=1, keepdims=True), pairs.T @ g
    chained = []
    for rows, d in ((x, da), (k, db)):
        if structure.kind == "relu":
            chained.append(np.divide(d, rows, out=np.zeros_like(d), where=rows > 0))
        else:
            chained.append(d * beta**0.5 / (1 + np.maximum(beta**0.5 * rows, 0)))
    return *chained, pairs.T @ g


def case(rng, structure, kind):
    """q, k, v and options of a kind of call."""
    n = M if structure.causal else N
    q, k, v = (rng.normal(size=(B, r, H, c)) for r, c in ((n, D), (M, D), (M, V)))
    options = {}
    if structure == LinearFeatures("relu") or structure == LinearFeatures("relu", causal=True):
        q, k = np.abs(q), k + 0.5  # most queries share a feature with a row, and some rows have none
    if kind == "shared":
        q, k, v = q[0], k[0], v[0]
    elif kind == "queries":
        q = q[0]
    elif kind == "one head":
        k = k[:, :, :1]
    elif kind == "rows":
        k, v = k[0], v[0]
    elif kind == "rows padded":
        k, v, options["padding"] = k[0], v[0], rng.random((B, M)) < 0.4
        options["padding"][0], options["padding"][:, 1] = True, True
    elif kind == "padding":
        options["padding"] = rng.random((B, M)) < 0.4
        options["padding"][0], options["padding"][1, 0] = True, True
    elif kind == "ragged":
        options["offsets"] = np.array([0, 4, 4, 9, 9 + M])
        k, v = (rng.normal(size=(9 + M, h, c)) + 0.5 for h, c in ((H, D), (1, V)))
        q = np.abs(rng.normal(size=(len(k), H, D) if structure.causal else (4, N, H, D)))
    return q, k, v, options


KINDS = ["plain", "shared", "queries", "one head", "rows", "rows padded", "padding", "ragged"]


@pytest.fixture(params=[True, False], ids=["pairs", "sums"])
def pairs(request, monkeypatch):
    """Whether few queries and rows go by their pairs; causal ones do not."""
    if not request.param:
        monkeypatch.setattr(features, "BLOCK", 0)


@pytest.mark.covering(1)
@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_forward_and_gradients(rng, structure, kind, steps):
    q, k, v, options = case(rng, structure, kind)
    beta = np.array([0.6, 1.4])
    out, tape, unsettled = forward(structure, q, k, v, beta, steps=steps, eps=0.0, **options)
    np.testing.assert_allclose(out, dense(structure, q, k, v, beta, steps, **options), rtol=0, atol=1e-12)
    assert unsettled == 0
    grad = rng.normal(size=out.shape)
    got = backward(tape, grad)
    h = 1e-6
    for a, da in zip((q, k, v, beta), got, strict=True):
        assert da.shape == a.shape
        assert da.dtype == np.float64
        for at in rng.choice(a.size, min(a.size, 5), replace=False):
            moved = []
            for sign in (1, -1):
                other = a.copy()
                other.flat[at] += sign * h
                args = [other if b is a else b for b in (q, k, v, beta)]
                moved.append((dense(structure, *args, steps, **options) * grad).sum())
            np.testing.assert_allclose(da.flat[at], (moved[0] - moved[1]) / (2 * h), rtol=1e-5, atol=1e-7)
    if "padding" in options:
        none = options["padding"] if k.ndim == 4 else options["padding"].all(axis=0)
        assert not got[1][none].any()
        assert not got[2][none].any()
        assert not got[0][0].any()
    if isinstance(structure, LinearFeatures) and structure.kind == "relu":
        assert not got[3].any()
    rest = backward(tape, grad, need_rows=False, need_beta=False)
    np.testing.assert_array_equal(rest[0], got[0])
    assert rest[1:] == (None, None, None)


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_until_at_rest(rng, structure):
    q, k, v, _ = case(rng, structure, "plain")
    q, k = np.abs(q), np.abs(k)
    beta = np.full(H, 0.3)
    out, tape, unsettled = forward(structure, q, k, v, beta, steps=None, eps=1e-9)
    assert unsettled == 0
    np.testing.assert_allclose(out, dense(structure, q, k, v, beta, 200), rtol=0, atol=1e-6)
    assert len(tape.states) < 200
    assert np.isfinite(backward(tape, np.ones_like(out))[0]).all()


def test_unsettled_queries_are_counted(rng, monkeypatch):
    monkeypatch.setattr(features, "MOST_UPDATES", 2)
    q, k, v, _ = case(rng, LinearFeatures(), "plain")
    assert forward(LinearFeatures(), q, k, v, np.ones(H), steps=None, eps=0.0)[2] == B * N * H


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_float32_is_accurate(rng, structure):
    q, k, v = (np.abs(rng.normal(size=(2, 200, H, c))) for c in (8, 8, 4))
    beta = np.array([0.2, 0.4])
    wide, tape, _ = forward(structure, q, k, v, beta, steps=1)
    grad = rng.normal(size=wide.shape)
    want = backward(tape, grad)
    narrow, tape, _ = forward(structure, *(a.astype(np.float32) for a in (q, k, v)), beta, steps=1)
    got = backward(tape, grad.astype(np.float32))
    assert narrow.dtype == got[0].dtype == got[1].dtype == got[2].dtype == np.float32
    assert got[3].dtype == np.float64
    np.testing.assert_allclose(narrow, wide, rtol=0, atol=1e-5)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(np.abs(b).max(), 1))


@pytest.mark.covering(2)
@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-8, 40.0, 1e3])
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_norms_of_all_sizes(rng, structure, size, dtype):
    n = 40
    q, k, v = (rng.normal(size=(1, n, 1, c)) for c in (4, 4, 2))
    scales = np.linspace(1, 0, n)[:, None, None]  # the longest first: later rows drown nothing, and the other way round
    for order in (scales, scales[::-1]):
        args = [(size * q).astype(dtype), (size * order * k).astype(dtype), v.astype(dtype)]
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            out, tape, _ = forward(structure, *args, np.ones(1), steps=0)
        want = dense(structure, *(a.astype(np.float64) for a in args), np.ones(1))
        np.testing.assert_allclose(out, want, rtol=0, atol=2e-4 if dtype == np.float32 else 1e-9)
        g = rng.normal(size=out.shape).astype(dtype)
        got = backward(tape, g)
        assert np.isfinite(got[3]).all()
        rows = [a[0, :, 0].astype(np.float64) for a in (*args, g)]
        for a, b in zip(got, gradients(structure, *rows[:3], 1.0, rows[3]), strict=False):
            assert np.isfinite(a).all()
            tol = (5e-6 if dtype == np.float32 else 1e-12) * max(np.abs(b).max(), size, 1)  # sums of rows so long
            np.testing.assert_allclose(a[0, :, 0], b, rtol=0, atol=tol)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["linear", "random"])
def test_rows_of_several_parts(rng, name, causal):
    """Sums of parts, before and after; rows whose features drown those before them, far apart, and one in a block."""
    structure = LinearFeatures(causal=causal) if name == "linear" else RandomFeatures(5, causal=causal)
    m = 600
    for n, lengths in ((m, np.ones(m)), (m, np.linspace(0.1, 40, m)), (m if causal else 3, np.linspace(40, 0.1, m))):
        q, k, v = (rng.normal(size=(1, r, 1, c)) for r, c in ((n, 4), (m, 4), (m, 3)))
        k *= lengths[:, None, None]
        k[0, 333] *= 3
        out, tape, _ = forward(structure, q, k, v, np.ones(1))
        g = rng.normal(size=out.shape)
        got = backward(tape, g)
        want = gradients(structure, q[0, :, 0], k[0, :, 0], v[0, :, 0], 1.0, g[0, :, 0])
        for a, b in zip(got, want, strict=False):
            np.testing.assert_allclose(a[0, :, 0], b, rtol=0, atol=1e-10 * max(np.abs(b).max(), 1))
        along = sum((a * b).sum() for a, b in zip((q, k), got, strict=False)) / 2
        np.testing.assert_allclose(got[3], along, rtol=1e-9, atol=1e-9)


def test_large_bags_hold_no_array_of_all_pairs(rng):
    q, k, v = (rng.normal(size=(1, 4000, 1, 8)).astype(np.float32) for _ in range(3))
    for structure in (RandomFeatures(64), RandomFeatures(64, causal=True)):
        tracemalloc.start()
        try:
            out, tape, _ = forward(structure, q, k, v, np.full(1, 0.1), steps=1)
            backward(tape, out)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4000 * 4000 / 2


@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_threads_change_no_bit(rng, structure):
    for shape in ((2, 1000), (60, 20)):
        q, k, v = (rng.normal(size=(*shape, H, 16)).astype(np.float32) for _ in range(3))
        results = []
        for number in (1, 2, 5):
            with threads(number):
                out, tape, _ = forward(structure, q, k, v, np.full(H, 0.1), steps=1)
                results.append([out, *backward(tape, out)])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert same_bits(a, b)


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
def test_without_memory(rng, structure):
    q, k, v = (rng.normal(size=(1, 300, 1, 3)) for _ in range(3))

    def call():
        out, tape, _ = forward(structure, q, k, v, np.ones(1), steps=1)
        backward(tape, out)

    assert fails_without_memory(call)


GRADIENTS = """
import json
import numpy as np
from sparsehopfield.structures import LinearFeatures, RandomFeatures
from sparsehopfield.structures._feature_association import backward, forward
rng = np.random.default_rng(1)
found = []
for causal in (False, True):
    linear = LinearFeatures(causal=causal), LinearFeatures("relu", causal=causal)
    for structure in (*linear, RandomFeatures(9, causal=causal)):
        for m in (70, 300):
            q, k, v = (np.abs(rng.normal(size=(1, m, 2, c))) for c in (5, 5, 3))
            out, tape, _ = forward(structure, q, k, v, np.array([0.5, 1.0]), steps=1)
            found += [float(a.ravel() @ np.cos(np.arange(a.size))) for a in (out, *backward(tape, out))]
print(json.dumps(found))
"""


def test_instruction_sets_agree():
    levels = {"base", sh._core.config()["simd_available"].split()[-1]}
    results = [run_python(GRADIENTS, SPARSEHOPFIELD_SIMD=level) for level in levels]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-9, atol=1e-9)


def test_causal_needs_as_many_queries_as_rows(rng):
    q, k, v, _ = case(rng, LinearFeatures(), "plain")
    with pytest.raises(ValueError, match=r"^queries: causal"):
        forward(LinearFeatures(causal=True), q, k, v, np.ones(H))
    with pytest.raises(ValueError, match=r"^queries: causal"):
        forward(LinearFeatures(causal=True), q[0], k[0], v[0], np.ones(H), offsets=np.array([0, M]))


def test_bad_numbers(rng):
    q, k, v, _ = case(rng, LinearFeatures(), "plain")
    for name, at in (("queries", 0), ("stored", 1), ("values", 2)):
        arrays = [q, k, v]
        arrays[at] = arrays[at].copy()
        arrays[at][1, 0, 0, 0] = np.nan
        with pytest.raises(ValueError, match=f"^{name}: contains NaN"):
            forward(LinearFeatures(), *arrays, np.ones(H))
    with pytest.raises(OverflowError, match=r"^beta"):
        forward(LinearFeatures(), q, 1e200 * k, v, np.ones(H))
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(OverflowError, match=r"^stored: sums"):
        forward(LinearFeatures(), *((1e30 * np.abs(a)).astype(np.float32) for a in (q, k, v)), np.ones(H))


def test_padded_rows_may_hold_anything(rng):
    q, k, v, options = case(rng, LinearFeatures(), "padding")
    out, tape, _ = forward(LinearFeatures(), q, k, v, np.ones(H), **options)
    none = options["padding"]
    k[none], v[none] = np.nan, np.inf
    again, other, _ = forward(LinearFeatures(), q, k, v, np.ones(H), **options)
    np.testing.assert_array_equal(again, out)
    for a, b in zip(backward(other, out), backward(tape, out), strict=True):
        np.testing.assert_array_equal(a, b)
