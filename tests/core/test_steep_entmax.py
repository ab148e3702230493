"""Entmax for any alpha: beyond 2 the root is steep, and thresholds lie as low as k^(1 - alpha) under the best score.

Whatever gives weights must give weights that sum to 1, for ties, near ties, and scores of any size; and what follows
from them (thresholds, conjugates, gradients, states) must be right where it can be represented.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from helpers import path, run_python

import sparsehopfield as sh
from sparsehopfield import Entmax, HopfieldMemory, reference, structures
from sparsehopfield._engine.association import associate_backward, associate_forward

ALPHAS = [1 + 2**-52, 1 + 1e-9, 1.3, 1.5, 1.9, 2 - 2**-52, 2 + 2**-51, 2.0001, 2.5, 3, 10, 30, 50, 108.5, 300, 1e3, 1e6]
ALPHAS += [1e100, 1.7e308]
LARGE = [alpha for alpha in ALPHAS if alpha > 2]
DTYPES = ["float32", "float64"]


def rows(dtype):
    """Rows of scores by name: what steep roots find hard."""
    rng = np.random.default_rng(3)
    normal = rng.standard_normal(90)
    tiny = np.finfo(dtype).tiny
    found = {
        "zeros": np.zeros(1000),
        "ties": np.r_[np.ones(50), np.zeros(3)],
        "near ties": np.r_[np.ones(50), np.full(30, 1 - 1e-16), np.full(30, 1 - 1e-12), np.full(30, 1 - 1e-7)],
        "normal": normal,
        "close": normal * 1e-3,
        "small": normal * (tiny * 1e3),
        "subnormal": normal * (tiny / 64),
        "huge": normal * np.sqrt(np.finfo(dtype).max),
        "masks": np.r_[np.full(5, -np.inf), np.zeros(7), -1e-9],
        "one": np.ones(1),
        "to the best": -np.exp(-np.arange(60.0)),
    }
    return {name: z.astype(dtype) for name, z in found.items()}


def gain(k, alpha):
    """The conjugate of k ties at 0: (1 - k^(1 - alpha)) / (alpha (alpha - 1))."""
    return -np.expm1(max((1 - alpha) * math.log(k), -1e300)) / alpha / (alpha - 1)


def sums_to_one(p, dtype):
    """Whether weights do, within the rounding of their sum."""
    n = max(p.size, 16)
    return bool((p >= 0).all()) and abs(math.fsum(p.ravel().tolist()) - 1) <= n * np.finfo(dtype).eps


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_sum_to_1_and_are_the_references(alpha, dtype):
    for name, z in rows(dtype).items():
        p = sh.entmax(z, alpha)
        expected = reference.entmax(z, alpha)
        assert sums_to_one(p, dtype), name
        assert sums_to_one(expected, dtype), name
        np.testing.assert_allclose(p, expected, atol=4 * np.finfo(dtype).eps, err_msg=name)
        order = np.argsort(-z, kind="stable")
        assert (np.diff(p[order]) <= 0).all(), name  # a better score has no less weight


def test_1000_ties():
    assert sh.entmax(np.zeros(1000), 30).sum() == pytest.approx(1, abs=1e-13)
    np.testing.assert_allclose(sh.entmax(np.full(7, 3.5), 200), 1 / 7, rtol=1e-15)
    tau, size = sh.entmax_threshold(np.zeros(1000), 30)
    assert tau == pytest.approx(-(1000.0**-29), rel=1e-12)
    assert size == 1000


@pytest.mark.parametrize("alpha", LARGE)
def test_thresholds_count_what_has_weight(alpha):
    for name, z in rows("float64").items():
        tau, size = sh.entmax_threshold(z, alpha)
        p = sh.entmax(z, alpha)
        assert size == np.count_nonzero(p), name
        expected, count = reference.entmax_threshold(z, alpha)
        assert size == count, name
        if abs(expected) < np.inf:
            assert tau == pytest.approx(expected, rel=1e-9, abs=1e-300), name


@pytest.mark.parametrize("alpha", LARGE)
def test_conjugates(alpha):
    """Of ties their gain above their score; of a lead beyond the window, its score."""
    for k in (1, 2, 50, 1000):
        assert sh.entmax_conjugate(np.full(k, 2.0), alpha) == pytest.approx(2 + gain(k, alpha), rel=1e-13)
    assert sh.entmax_conjugate(np.array([3.0, 3 - 1.1 / (alpha - 1) - 1e-15]), alpha) == 3
    for name, z in rows("float64").items():
        assert sh.entmax_conjugate(z, alpha) == pytest.approx(reference.entmax_conjugate(z, alpha), rel=1e-12), name


@pytest.mark.parametrize("alpha", [2.5, 3, 10, 30, 60])
def test_gradients_of_ties(alpha):
    """Of k ties s = k^(alpha - 2) each, so that the gradient is s (g - mean g)."""
    rng = np.random.default_rng(5)
    for k in (2, 7, 50):
        g = rng.standard_normal(k)
        p = sh.entmax(np.zeros(k), alpha)
        exact = float(k) ** (alpha - 2) * (g - g.mean())
        np.testing.assert_allclose(sh.entmax_vjp(p, g, alpha), exact, rtol=1e-9)
        np.testing.assert_allclose(reference.entmax_vjp(p, g, alpha), exact, rtol=1e-9)
        z = np.r_[np.zeros(k), -10.0]
        step = 1e-3 * float(k) ** (1 - alpha) / (alpha - 1)  # of the scores that keeps all k in the support
        moved = [sh.entmax(z + np.r_[sign * step, np.zeros(k)], alpha) @ np.r_[g, 0] for sign in (1, -1)]
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(exact[0], rel=1e-4, abs=1e-6 * abs(exact).max())


@pytest.mark.parametrize("alpha", [30, 300, 1e6, 1.7e308])
def test_gradients_that_leave_the_range(alpha):
    p = sh.entmax(np.zeros(1000), alpha)
    for g in (np.ones(1000), np.full(1000, 0.1)):
        assert not sh.entmax_vjp(p, g, alpha).any()  # equal gradients move nothing
    with np.errstate(all="raise"):
        moved = sh.entmax_vjp(p, np.arange(1000.0), alpha)
        derivative = sh.entmax_vjp_alpha(p, np.arange(1000.0), alpha)
    assert not np.isnan(moved).any()
    assert (np.sign(moved) == np.sign(np.arange(1000) - 499.5)).all()
    assert abs(derivative) < 1e-6  # of ties 0
    assert sh.entmax_vjp(np.ones(1), np.full(1, 3.0), alpha) == 0


@pytest.mark.parametrize("alpha", [2.5, 10, 30, 100, 300])
def test_derivatives_in_alpha(alpha):
    rng = np.random.default_rng(6)
    z, g = rng.standard_normal(6) * 0.2 / alpha, rng.standard_normal(6)
    p = sh.entmax(z, alpha)
    h = 1e-5 * alpha
    difference = (sh.entmax(z, alpha + h) - sh.entmax(z, alpha - h)) @ g / (2 * h)
    assert sh.entmax_vjp_alpha(p, g, alpha) == pytest.approx(difference, rel=1e-4, abs=1e-12)
    assert reference.entmax_vjp_alpha(p, g, alpha) == pytest.approx(difference, rel=1e-4, abs=1e-12)
    wide = np.array([1 - 1e-200, 1e-200])  # p^(1 - alpha) leaves the range
    assert np.isfinite(sh.entmax_vjp_alpha(wide, np.array([1.0, 0.0]), alpha))


@pytest.mark.parametrize("alpha", [np.inf, np.nan, 0.99, -np.inf])
def test_alphas_that_are_none(alpha):
    for function in (sh.entmax, sh.entmax_threshold, sh.entmax_conjugate):
        with pytest.raises(ValueError, match="alpha"):
            function(np.zeros(3), alpha)
    with pytest.raises(ValueError, match="alpha"):
        sh.entmax_vjp(np.ones(1), np.ones(1), alpha)
    with pytest.raises(ValueError, match="alpha"):
        Entmax(alpha)


# --- retrieval ------------------------------------------------------------------------------------


def copies(dtype="float32", count=50):
    """Patterns: copies of one row, near copies, and others."""
    rng = np.random.default_rng(7)
    x = np.tile([1.0, 0.0, 0.25], (count, 1))
    near = x[:10] * (1 - 1e-6 * rng.random((10, 1)))
    return np.r_[x, near, rng.standard_normal((40, 3)) / 3].astype(dtype)


@pytest.mark.parametrize("alpha", LARGE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_are_retrieved(alpha, dtype):
    q = np.array([1, 0], dtype)
    x = np.tile(q, (50, 1))
    np.testing.assert_allclose(sh.update(q, x, 1, separation=Entmax(alpha)), q, atol=1e-6)
    memory = HopfieldMemory(x, 1.0, separation=Entmax(alpha))
    np.testing.assert_allclose(memory.retrieve(q), q, atol=1e-6)
    assert memory.energy(q) == pytest.approx(0.5 - (1 + gain(50, alpha)), rel=1e-6)
    assert memory.explain(q, top=50).mass == pytest.approx(1, abs=1e-5)


WAYS = {
    "window": lambda n: structures.Window(n, positions=np.zeros(2, np.int64)),
    "random": lambda n: structures.RandomMask(n // 2, seed=1),
    "top": lambda n: structures.TopK(n // 2),
    "blocks": lambda n: structures.BlockSparse(np.ones((1, n), bool), (2, 1)),
    "all": lambda n: None,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("alpha", [2.5, 50, 1e3, 1e100])
def test_structures(way, alpha):
    x = copies()
    q = np.array([[1, 0, 0.25], [0.3, -0.2, 0.1]], np.float32)
    memory = HopfieldMemory(x, 2.0, separation=Entmax(alpha), structure=WAYS[way](len(x)))
    weights = memory.associate(q).toarray()
    np.testing.assert_allclose(weights.sum(axis=1, dtype=np.float64), 1, atol=1e-5)
    np.testing.assert_allclose(memory.update(q), weights @ x, atol=1e-5)


@pytest.mark.parametrize("alpha", [2.5, 30, 300, 1e6])
@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e3])
def test_every_way_gives_the_same_bits(alpha, beta):
    rng = np.random.default_rng(8)
    base = rng.standard_normal((60, 24))
    x = base[rng.integers(0, 60, 3000)].astype(np.float32)  # 50 copies or so of each
    q = (x[::500] + 0.1 * rng.standard_normal((6, 24))).astype(np.float32)
    memory = HopfieldMemory(x, beta, separation=Entmax(alpha))
    found = []
    for name in ("scan", "lines", "columns"):
        with path(name):
            found.append(memory.update(q))
    cuts = pairwise((0, 700, 2900, 3000))
    whole = sh.merge(sh.candidates(q, x[a:b], beta, separation=Entmax(alpha), offset=a) for a, b in cuts)
    found.append(whole.states(x))
    np.testing.assert_allclose(whole.weights().sum(axis=1), 1, atol=1e-4)
    for states in found[1:]:
        np.testing.assert_array_equal(states, found[0])
    assert np.isfinite(whole.bound).all()


BITS = """
import hashlib, json
import numpy as np
import sparsehopfield as sh
rng = np.random.default_rng(9)
sums = []
for dtype in ("float32", "float64"):
    for alpha in (1.3, 1.5, 1.9, 2.5, 30, 1000, 1e100):
        z = np.round(rng.standard_normal((20, 200)) * 4).astype(dtype) / 4
        sums.append(sh.entmax(z, alpha).tobytes())
        sums.append(sh.entmax_threshold(z, alpha)[0].tobytes())
        x = z[:, :40]
        sums.append(sh.update(x[:5], x, 0.5, separation=sh.Entmax(alpha)).tobytes())
print(json.dumps([hashlib.sha256(s).hexdigest() for s in sums]))
"""


def test_bits_do_not_depend_on_the_instruction_set():
    simd = ["base", "avx2", "avx512", "vnni"]
    found = [run_python(BITS, SPARSEHOPFIELD_SIMD=name) for name in simd]
    assert all(f == found[0] for f in found)


# --- layers ---------------------------------------------------------------------------------------


def associated(z, alpha, g, **options):
    """Weights over rows that score z, and the gradient in z, by the layers' association."""
    n, dtype = len(z), z.dtype
    stored, values = z.reshape(1, n, 1, 1), np.eye(n, dtype=dtype).reshape(1, n, 1, n)
    out, saved = associate_forward(
        np.ones((1, 1, 1, 1), dtype), stored, values, 1.0, separation=Entmax(alpha), **options
    )
    dz = associate_backward(saved, g.reshape(1, 1, 1, n).astype(dtype))[1]
    return out.ravel(), dz.ravel()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_sum_to_1(alpha, dtype):
    rng = np.random.default_rng(10)
    for name, z in rows(dtype).items():
        if name == "masks" or (name == "huge" and dtype == "float64"):
            continue
        z = z[:200]
        g = rng.standard_normal(len(z))
        p, dz = associated(z, alpha, g)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(p, reference.entmax(z, alpha), atol=40 * eps, err_msg=name)
        assert abs(math.fsum(p.tolist()) - 1) <= 4 * max(len(z), 16) * eps, name
        assert np.isfinite(dz).all(), name
        same, still = associated(z, alpha, np.full(len(z), 0.3))
        np.testing.assert_array_equal(same, p)
        if alpha > 2:
            assert not still.any(), name  # equal gradients move nothing


@pytest.mark.parametrize("alpha", [2.5, 3, 10])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_layers(alpha, dtype):
    rng = np.random.default_rng(11)
    for k in (2, 9, 30):
        g = rng.standard_normal(k).astype(dtype)
        _, dz = associated(np.full(k, 0.5, dtype), alpha, g)
        exact = float(k) ** (alpha - 2) * (g - g.mean(dtype=np.float64))
        np.testing.assert_allclose(dz, exact, rtol=2e-3 if dtype == "float32" else 1e-9, atol=1e-4 * abs(exact).max())


@pytest.mark.parametrize("alpha", [2.5, 50, 300, 1e6])
@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_rest_among_copies(alpha, gradient, dtype):
    """At a fixed point of copies only the values have a gradient: s may be 1e84, the copies do not differ."""
    same = np.tile(np.array([1, 0.1], dtype), (50, 1)).reshape(1, 50, 1, 2)
    q = np.array([1, 0.3], dtype).reshape(1, 1, 1, 2)
    out, saved = associate_forward(
        q, same, same, 1.0, separation=Entmax(alpha), update_steps_max=None, gradient=gradient
    )
    np.testing.assert_allclose(out.ravel(), [1, 0.1], rtol=1e-5)
    dq, dk, dv, dbeta = associate_backward(saved, np.ones_like(out))[:4]
    assert not dq.any()
    assert not dk.any()
    assert not dbeta.any()
    np.testing.assert_allclose(dv, 1 / 50, rtol=1e-5)


@pytest.mark.parametrize("alpha", [30, 1e3])
def test_layers_with_masks_and_top_k(alpha):
    rng = np.random.default_rng(12)
    q, k = (rng.integers(-1, 2, (2, n, 2, 3)).astype(np.float32) for n in (4, 9))
    mask = np.zeros((4, 9), np.float32)
    mask[:, 5:] = -np.inf
    mask[1] = -np.inf  # nothing to look at
    values = np.ones((2, 9, 2, 1), np.float32)
    for structure in (None, structures.TopK(3)):
        out, _ = associate_forward(q, k, values, 1.0, separation=Entmax(alpha), mask=mask, structure=structure)
        np.testing.assert_allclose(out[:, [0, 2, 3]], 1, rtol=1e-6)
        assert not out[:, 1].any()
