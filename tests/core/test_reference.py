"""The reference itself: known values, identities, and gradients against differences."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import exact_entmax, exact_sparsemax

from sparsehopfield import reference

GOLDEN = json.loads((Path(__file__).parents[1] / "golden.json").read_text())
ALPHAS = [1.0, 1.0 + 1e-12, 1.0 + 1e-6, 1.01, 1.25, 1.5, 1.75, 2.0, 2.5, 4.0]


def numbers(texts):
    """Floats of a list (of lists) of fractions written as text."""
    return np.array([numbers(t) if isinstance(t, list) else float(Fraction(t)) for t in texts])


@pytest.fixture
def rng():
    return np.random.default_rng(2023)


# --- known values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["sparsemax"], ids=lambda c: ",".join(c["z"]))
def test_golden_sparsemax(case):
    z = numbers(case["z"])
    # The scores are rounded to double, so what follows from them may be off by that much.
    atol = 8 * np.spacing(np.abs(z).max())
    np.testing.assert_allclose(reference.sparsemax(z), numbers(case["p"]), rtol=0, atol=atol)
    tau, kappa = reference.sparsemax_threshold(z)
    assert kappa == case["kappa"]
    np.testing.assert_allclose(tau, float(Fraction(case["tau"])), rtol=0, atol=atol)
    np.testing.assert_allclose(reference.sparsemax_conjugate(z), float(Fraction(case["conj"])), rtol=0, atol=atol)


@pytest.mark.parametrize("case", GOLDEN["steps"], ids=lambda c: c["beta"])
def test_golden_steps(case):
    patterns, x, beta = numbers(GOLDEN["patterns"]), numbers(GOLDEN["query"]), float(Fraction(case["beta"]))
    close = {"rtol": 0, "atol": 1e-14}
    np.testing.assert_allclose(reference.associate(x, patterns, beta)[0], numbers(case["p"]), **close)
    state = reference.update(x, patterns, beta)
    np.testing.assert_allclose(state, numbers(case["T"]), **close)
    # These are printed with 12 digits.
    assert reference.energy(x, patterns, beta) == pytest.approx(float(case["H"]), abs=1e-11)
    assert reference.energy(state, patterns, beta) == pytest.approx(float(case["H_next"]), abs=1e-11)
    dense = reference.update(x, patterns, beta, separation="softmax")
    np.testing.assert_allclose(dense, numbers(case["T_dense"]), rtol=0, atol=1e-11)
    scores = beta * (patterns @ x)
    assert reference.sparsemax_conjugate(scores) == pytest.approx(float(case["conj"]), abs=1e-11)


def test_golden_fixed_points():
    # Delta_mu >= 1 / beta makes xi_mu an exact fixed point: Delta = (.4, .4, .52, 1.48), so beta >= 2.5.
    patterns = numbers(GOLDEN["patterns"])
    for beta in (2.5 * (1 + 1e-9), 5.0, 100.0):
        np.testing.assert_array_equal(reference.update(patterns, patterns, beta), patterns)
    assert np.any(reference.update(patterns, patterns, 2.0) != patterns)


# --- the rules ------------------------------------------------------------------------------------

MAPS = {
    "softmax": reference.softmax,
    "sparsemax": reference.sparsemax,
    "entmax": reference.entmax,
    "entmax(1)": lambda z: reference.entmax(z, 1.0),
    "entmax(1.2)": lambda z: reference.entmax(z, 1.2),
    "topk_softmax": lambda z: reference.topk_softmax(z, 3),
    "topk_sparsemax": lambda z: reference.topk_sparsemax(z, 3),
    "polynomial": reference.polynomial,
}


@pytest.mark.parametrize("name", MAPS)
def test_rules(name):
    row_map = MAPS[name]
    assert np.isnan(row_map([1.0, np.nan, -np.inf])).all()
    np.testing.assert_array_equal(row_map([-np.inf, -np.inf]), [0, 0])
    np.testing.assert_array_equal(row_map([np.inf, 1.0, np.inf, -np.inf]), [0.5, 0, 0.5, 0])
    assert row_map([]).shape == (0,)
    assert row_map(np.empty((0, 4))).shape == (0, 4)
    assert row_map(np.empty((4, 0))).shape == (4, 0)
    np.testing.assert_array_equal(row_map([2.0, -np.inf]), [1, 0])
    np.testing.assert_allclose(row_map([3.0, 3.0]), [0.5, 0.5], rtol=4e-16)
    masked = row_map([0.3, -np.inf, 0.2])
    np.testing.assert_array_equal(masked[[0, 2]], row_map([0.3, 0.2]))
    assert masked[1] == 0


def test_rules_of_thresholds_and_conjugates():
    for threshold in (reference.sparsemax_threshold, reference.entmax_threshold):
        assert threshold([-np.inf, -np.inf]) == (np.inf, 0)
        assert threshold([]) == (np.inf, 0)
        assert threshold([np.inf, 1.0, np.inf]) == (np.inf, 2)
        tau, kappa = threshold([np.nan, 1.0])
        assert np.isnan(tau)
        assert kappa == 0
    assert reference.entmax_threshold([1.0, 2.0, -np.inf], 1.0) == (-np.inf, 2)
    for conjugate in (reference.softmax_conjugate, reference.sparsemax_conjugate, reference.entmax_conjugate):
        assert conjugate([-np.inf, -np.inf]) == -np.inf
        assert conjugate([]) == -np.inf
        assert conjugate([np.inf, 1.0]) == np.inf
        assert np.isnan(conjugate([np.nan, 1.0]))
        assert conjugate([2.0, -np.inf]) == 2.0


def test_polynomial_rules():
    np.testing.assert_array_equal(reference.polynomial([0.0, 0.0]), [0, 0])
    np.testing.assert_array_equal(reference.polynomial([1.0, -1.0], 3), [0, 0])  # a sum of exactly 0
    np.testing.assert_allclose(reference.polynomial([3.0, 1.0], 2), [0.9, 0.1], rtol=1e-15)
    np.testing.assert_allclose(reference.polynomial([3e200, 1e200], 2), [0.9, 0.1], rtol=1e-15)


def test_topk_takes_the_lowest_index_of_ties():
    z = [1.0, 2.0, 2.0, 2.0]
    np.testing.assert_array_equal(reference.topk_softmax(z, 2), [0, 0.5, 0.5, 0])
    np.testing.assert_array_equal(reference.topk_sparsemax(z, 1), [0, 1, 0, 0])
    np.testing.assert_array_equal(reference.topk_softmax(z, 9), reference.softmax(z))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: reference.entmax([1.0], 0.99), "alpha"),
        (lambda: reference.entmax([1.0], np.nan), "alpha"),
        (lambda: reference.polynomial([1.0], 0), "order"),
        (lambda: reference.topk_softmax([1.0], 0), "k"),
    ],
)
def test_options_out_of_range(call, name):
    with pytest.raises(ValueError, match=rf"^{name}:"):
        call()


# --- identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3])
def test_sparsemax_is_exact(rng, scale):
    for n in (1, 2, 3, 10, 60):
        z = rng.normal(size=n) * scale
        p, tau, kappa = exact_sparsemax([Fraction(v) for v in z])
        # u = z - max z is off by half an ulp of u <= 1, and tau and p by as much each.
        np.testing.assert_allclose(reference.sparsemax(z), np.array(p, dtype=float), rtol=0, atol=4e-16)
        assert reference.sparsemax_threshold(z)[1] == kappa
        np.testing.assert_allclose(reference.sparsemax_threshold(z)[0], float(tau), rtol=4e-16, atol=4e-16)


@pytest.mark.parametrize("alpha", [1.05, 1.25, 1.5, 1.75, 2.0])
def test_entmax_against_60_digits(rng, alpha):
    for n in (1, 2, 7, 25):
        z = rng.normal(size=n) * 2
        p, tau, kappa = exact_entmax([Fraction(v) for v in z], alpha)
        np.testing.assert_allclose(reference.entmax(z, alpha), np.array(p, dtype=float), rtol=0, atol=5e-15)
        own_tau, own_kappa = reference.entmax_threshold(z, alpha)
        np.testing.assert_allclose(own_tau, (alpha - 1) * float(tau), rtol=0, atol=1e-14)
        assert own_kappa == kappa


@pytest.mark.parametrize("scale", [1e-2, 1.0, 10.0])
def test_closed_forms_against_bisection(rng, scale):
    for n in (1, 2, 5, 100, 1000):
        z = rng.normal(size=n) * scale
        for a, theta in (
            (0.5, reference._entmax15_theta(z)),
            (1.0, 1 + reference._sparsemax_theta_kappa(z)[0]),
        ):
            bisected = reference._entmax_theta_bisected(z, a)
            # Both work at a scale of 1 with sums of n terms.
            assert theta == pytest.approx(bisected, abs=(n + 16) * 2.0**-52)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_entmax_solves_its_equation(rng, alpha):
    z = rng.normal(size=(20, 50)) * 3
    p = reference.entmax(z, alpha)
    # The threshold is good to 1e-15; for alpha > 2 a weight at the threshold moves by a root of that.
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=0, atol=1e-14 if alpha <= 2 else 50 * 1e-15 ** (1 / (alpha - 1)))
    if alpha > 1.01:
        # [(alpha - 1) z - tau]_+ = p^(alpha - 1), in the scale where it is well conditioned for every alpha
        tau, kappa = reference.entmax_threshold(z, alpha)
        base = np.maximum((alpha - 1) * z - tau[:, None], 0)
        np.testing.assert_allclose(base, p ** (alpha - 1), rtol=0, atol=1e-13)
        np.testing.assert_array_equal(kappa, (base > 0).sum(axis=-1))


def test_entmax_is_continuous_at_softmax(rng):
    z = rng.normal(size=(10, 30)) * 5
    soft = reference.softmax(z)
    np.testing.assert_array_equal(reference.entmax(z, 1.0), soft)
    for gap in (1e-15, 1e-12, 1e-9, 1e-6):
        # |dp/d alpha| <= p (Q + q) with q = u^2 / 2: at most 1e3 here, as u < 40
        a = (1.0 + gap) - 1.0
        np.testing.assert_allclose(reference.entmax(z, 1.0 + gap), soft, rtol=0, atol=1e3 * a + 1e-14)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_conjugate_is_the_maximum(rng, alpha):
    z = rng.normal(size=(5, 12))
    p = reference.entmax(z, alpha)

    def objective(p):
        a = alpha - 1
        if alpha == 1:
            omega = np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)
        else:
            log = np.log(np.where(p > 0, p, 1))
            omega = np.where(p > 0, p * np.expm1(a * log), 0).sum(axis=-1) / (alpha * a)
        return (p * z).sum(axis=-1) - omega

    conjugate = reference.entmax_conjugate(z, alpha)
    np.testing.assert_allclose(conjugate, objective(p), rtol=0, atol=1e-13)
    for _ in range(20):  # no other point of the simplex has more
        other = rng.dirichlet(np.ones(12), size=5)
        mixed = 0.9 * p + 0.1 * other
        assert (objective(mixed) <= conjugate + 1e-14).all()


def test_conjugates_of_the_named_maps(rng):
    z = rng.normal(size=(10, 20)) * 3
    np.testing.assert_array_equal(reference.entmax_conjugate(z, 1.0), reference.softmax_conjugate(z))
    np.testing.assert_array_equal(reference.entmax_conjugate(z, 2.0), reference.sparsemax_conjugate(z))
    # (2.4) as printed, which is good enough at this scale
    p = reference.sparsemax(z)
    printed = (z**2).sum(axis=-1) / 2 - ((p - z) ** 2).sum(axis=-1) / 2 + 0.5
    np.testing.assert_allclose(reference.sparsemax_conjugate(z), printed, rtol=1e-13)
    np.testing.assert_allclose(reference.softmax_conjugate(z), np.log(np.exp(z).sum(axis=-1)), rtol=1e-14)
    # A shift by 1e8 ruins the printed form (it is off by 7.6 there), not this one.
    shifted = reference.sparsemax_conjugate(z + 1e8) - 1e8
    np.testing.assert_allclose(shifted, reference.sparsemax_conjugate(z), rtol=0, atol=2e-7)


# --- gradients ------------------------------------------------------------------------------------


def _differences(function, z, h):
    """Central differences of a number for each entry of z."""
    steps = np.eye(z.size) * h
    return np.array([(function(z + s) - function(z - s)) / (2 * h) for s in steps])


def _away_from_kinks(z, alpha, margin=1e-3):
    """No score close to the threshold, where the map has a kink."""
    if alpha == 1:
        return True
    tau, _ = reference.entmax_threshold(z, alpha)
    return np.abs((alpha - 1) * z - tau).min() > margin


@pytest.mark.parametrize("alpha", [1.0, 1.01, 1.25, 1.5, 1.75, 2.0, 2.5])
def test_vjp_and_conjugate_gradient(rng, alpha):
    done = 0
    while done < 5:
        z, g = rng.normal(size=8), rng.normal(size=8)
        if not _away_from_kinks(z, alpha):
            continue
        done += 1
        p = reference.entmax(z, alpha)
        # Differences with h = 1e-5: truncation h^2 times a third derivative, and rounding 1e-15 / h.
        numeric = _differences(lambda y, g=g: reference.entmax(y, alpha) @ g, z, 1e-5)
        np.testing.assert_allclose(reference.entmax_vjp(p, g, alpha), numeric, rtol=0, atol=2e-6)
        numeric = _differences(lambda y: reference.entmax_conjugate(y, alpha), z, 1e-5)
        np.testing.assert_allclose(p, numeric, rtol=0, atol=1e-8)


def test_named_vjps(rng):
    z, g = rng.normal(size=(4, 9)), rng.normal(size=(4, 9))
    np.testing.assert_allclose(
        reference.softmax_vjp(reference.softmax(z), g),
        reference.entmax_vjp(reference.softmax(z), g, 1.0),
        rtol=0,
        atol=1e-15,
    )
    p = reference.sparsemax(z)
    centred = np.where(p > 0, g - (g * (p > 0)).sum(axis=-1, keepdims=True) / (p > 0).sum(axis=-1, keepdims=True), 0)
    np.testing.assert_allclose(reference.sparsemax_vjp(p, g), centred, rtol=0, atol=1e-15)
    for vjp in (reference.softmax_vjp, reference.sparsemax_vjp, reference.entmax_vjp):
        np.testing.assert_array_equal(vjp(np.zeros(3), [1.0, 2.0, 3.0]), np.zeros(3))  # a row of masks
        assert np.isnan(vjp([0.5, 0.5], [np.nan, 1.0])).all()


@pytest.mark.parametrize("order", [1, 2, 3, 10])
def test_polynomial_vjp(rng, order):
    for _ in range(5):
        z, g = rng.uniform(0.3, 2.0, size=6), rng.normal(size=6)
        z[2] *= 0 if order == 1 else -1 if order % 2 == 0 else 1
        p = reference.polynomial(z, order)
        numeric = _differences(lambda y, g=g: reference.polynomial(y, order) @ g, z, 1e-6)
        np.testing.assert_allclose(reference.polynomial_vjp(z, p, g, order), numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("alpha", [1.0, 1.0 + 1e-9, 1.001, 1.25, 1.5, 1.75, 2.0, 2.5])
def test_gradient_in_alpha(rng, alpha):
    done = 0
    while done < 8:
        z, g = rng.normal(size=10) * 2, rng.normal(size=10)
        if not _away_from_kinks(z, max(alpha, 1.001), 0.01):
            continue
        done += 1
        h = 1e-4
        if alpha - h < 1:  # one-sided, of second order
            at = [reference.entmax(z, alpha + k * h) @ g for k in range(3)]
            numeric = (-3 * at[0] + 4 * at[1] - at[2]) / (2 * h)
        else:
            numeric = (reference.entmax(z, alpha + h) - reference.entmax(z, alpha - h)) @ g / (2 * h)
        # h^2 times a third derivative of at most some 100 at these scores
        exact = reference.entmax_vjp_alpha(reference.entmax(z, alpha), g, alpha)
        assert exact == pytest.approx(numeric, rel=1e-4, abs=5e-6)


# --- operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15"])
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_update_is_a_gradient_step_of_the_energy(rng, separation, similarity):
    patterns, x = rng.normal(size=(12, 5)), rng.normal(size=5)
    options = {"similarity": similarity, "separation": separation}
    numeric = _differences(lambda y: reference.energy(y, patterns, 0.7, **options), x, 1e-5)
    np.testing.assert_allclose(x - reference.update(x, patterns, 0.7, **options), numeric, rtol=0, atol=1e-8)


def test_cosine_is_dot_on_unit_rows(rng):
    patterns, x = rng.normal(size=(9, 4)), rng.normal(size=(3, 4))
    unit = patterns / np.linalg.norm(patterns, axis=1, keepdims=True)
    np.testing.assert_array_equal(
        reference.update(x, patterns, 3.0, similarity="cosine"), reference.update(x, unit, 3.0)
    )


def test_retrieve_settles(rng):
    patterns = rng.normal(size=(20, 6))
    x = patterns[:4] + 0.1 * rng.normal(size=(4, 6))
    states, info = reference.retrieve(x, patterns, 20.0, similarity="euclidean", return_info=True)
    assert info.converged.all()
    np.testing.assert_array_equal(states, patterns[:4])
    np.testing.assert_array_equal(info.support_size, 1)
    np.testing.assert_array_equal(reference.retrieve(x, patterns, max_steps=0), x)
    one = reference.retrieve(x, patterns, 0.5, max_steps=1)
    np.testing.assert_array_equal(one, reference.update(x, patterns, 0.5))
    # xi = +-1, beta = 1/4: T(x) = x / 2, so x_t = 2^-t (theory, section 2)
    half, info = reference.retrieve([1.0], [[1.0], [-1.0]], 0.25, max_steps=7, return_info=True)
    assert half[0] == 2.0**-7
    assert not info.converged


def test_canonical_scores(rng):
    x = rng.normal(size=(3, 77)).astype(np.float32)
    patterns = rng.normal(size=(5, 77)).astype(np.float32)
    exact = x.astype(float) @ patterns.T.astype(float)
    np.testing.assert_allclose(reference.canonical_scores(x, patterns), exact, rtol=0, atol=1e-13)
    # The order is what is canonical: 1e16 and -1e16 meet in the same lane, or only in the tree.
    big, zeros = 2.0**60, np.zeros(96)
    a = zeros.copy()
    a[[0, 1, 32]] = big, 1.0, -big  # lane 0 cancels before lane 1 joins
    assert reference.canonical_scores([a], [np.ones(96)])[0, 0] == 1.0
    a = zeros.copy()
    a[[0, 16, 1]] = big, 1.0, -big  # lanes 0 and 16 join first, and the 1 is lost
    assert reference.canonical_scores([a], [np.ones(96)])[0, 0] == 0.0
