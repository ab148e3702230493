"""Normmax: what the tests of the table of maps do not see; exact rationals at alpha = 2, and the ends of its range."""

import math
from fractions import Fraction

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers, reference
from sparsehopfield.optim import Annealing
from sparsehopfield.studies.metastable.protocol import separation_named
from sparsehopfield.studies.retrieval.protocol import MODELS


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def root(square):
    """Return the square root of a fraction, to 100 decimal places."""
    return Fraction(math.isqrt(square.numerator * 10**200 // square.denominator), 10**100)


def exact(z):
    """Return weights and support at alpha = 2: z_k is in it if those above have sum (z_j - z_k)^2 < 1, exactly."""
    z = [Fraction(float(v)) for v in z]
    ordered = sorted(z, reverse=True)
    kappa = sum(sum((w - v) ** 2 for w in ordered if w > v) < 1 for v in ordered)
    inside = ordered[:kappa]
    mean = sum(inside) / kappa
    tau = mean - root((1 - sum((v - mean) ** 2 for v in inside)) / kappa)
    u = [max(v - tau, Fraction(0)) for v in z]
    return [v / sum(u) for v in u], kappa


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_rationals(dtype, rng):
    unit = float(np.finfo(dtype).eps)
    for n in (1, 2, 3, 7, 20, 60):
        for scale in (1e-3, 0.1, 1.0, 5.0):
            z = (rng.normal(size=n) * scale + 3).astype(dtype)
            weights, kappa = exact(z)
            p = sh.normmax(z)
            assert np.count_nonzero(p) == sh.normmax_threshold(z)[1] == kappa
            assert sum(abs(Fraction(float(a)) - b) for a, b in zip(p, weights, strict=True)) < unit + n * 1e-15
    # ties at the edge of the support: three squares of 1/3 below the best make a mass of 1
    z = np.array([1.0, 1.0, 1.0, 1.0, 0.5, 0.5], dtype)
    assert [v > 0 for v in sh.normmax(z)] == [v > 0 for v in exact(z)[0]] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("alpha", [1.0000001, 1.3, 2.0, 4.0, 1e9])
def test_the_ends_of_alpha(alpha, rng):
    z = rng.normal(size=50)
    p = sh.normmax(z, alpha)
    assert p.sum() == pytest.approx(1, abs=1e-14)
    assert not p[z <= z.max() - 1].any()
    tau, size = sh.normmax_threshold(z, alpha)
    assert size == (z > tau).sum() or alpha < 1.1  # where most weights are below the least number
    if alpha < 1.1:  # nearly the best score alone
        assert p.max() == pytest.approx(1, abs=1e-5)
    if alpha > 1e6:  # nearly equal weights
        np.testing.assert_allclose(p[p > 0], 1 / size, rtol=1e-6)
    np.testing.assert_allclose(sh.normmax(np.zeros(5), alpha), np.full(5, 0.2), rtol=1e-15)
    assert sh.normmax_conjugate(z, alpha) == pytest.approx(tau + 1, abs=1e-12)


def test_alpha_is_above_1():
    for wrong in (1.0, 0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="alpha: must be a finite number above 1"):
            sh.Normmax(wrong)
        with pytest.raises(ValueError, match="alpha: must be a finite number above 1"):
            sh.normmax([1.0, 0.0], wrong)
    assert sh.Normmax() == sh.Normmax(2.0)


def test_its_names(rng, tmp_path):
    x = rng.normal(size=(20, 6))
    memory = sh.HopfieldMemory(x, 4.0, separation="normmax2")
    same = sh.retrieve(x[:3] + 0.01, x, 4.0, separation=sh.Normmax())
    np.testing.assert_array_equal(memory.retrieve(x[:3] + 0.01), same)
    assert MODELS["normmax2"] == "normmax2"
    assert separation_named("normmax:3") == sh.Normmax(3)
    want = reference.update(x[:3] + 0.1, x, 2.0, separation=sh.Normmax(1.5))
    np.testing.assert_allclose(sh.update(x[:3] + 0.1, x, 2.0, separation=sh.Normmax(1.5)), want, atol=1e-13)
    layer = layers.Hopfield(6, separation=sh.Normmax(3.0), random_state=0)
    layer.save(tmp_path / "layer.safetensors")
    assert layers.load(tmp_path / "layer.safetensors").separation == sh.Normmax(3.0)
    annealing = Annealing(layer, "alpha", 1.5, 3.0, epochs=2)
    assert isinstance(layer.separation, sh.Normmax), annealing


@pytest.mark.parametrize("alpha", [300.0, 1e3, 1e6])
def test_the_reference_at_large_alpha(alpha):
    """Compare where powers of weights would underflow: n equal weights have the norm n^(1/alpha - 1)."""
    n = 8
    assert reference.normmax_conjugate(np.zeros(n), alpha) == pytest.approx(1 - n ** (1 / alpha - 1), rel=1e-12)
    assert sh.normmax_conjugate(np.zeros(n), alpha) == pytest.approx(1 - n ** (1 / alpha - 1), rel=1e-12)
    z, g = np.linspace(-0.3, 0.2, n), np.linspace(1, -2, n) ** 3
    p = sh.normmax(z, alpha)
    np.testing.assert_allclose(sh.normmax_vjp(p, g, alpha), reference.normmax_vjp(p, g, alpha), rtol=1e-7, atol=1e-12)
