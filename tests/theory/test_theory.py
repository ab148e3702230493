"""The theory: its golden values, the counterexamples to what is claimed, and what is proved in place of it."""

import json
import math
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import ENERGY_MAPS, SIMILARITIES, families, name_of, patterns_for, quiet
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

import sparsehopfield as sh
from sparsehopfield import reference, theory
from sparsehopfield.theory import _patterns

GOLDEN = json.loads((Path(__file__).parents[1] / "golden.json").read_text())
PRINTED = {"rel": 1e-11, "abs": 1e-11}  # golden values are printed with 12 digits
SEEDS = st.integers(0, 2**32 - 1)


def numbers(texts):
    """Floats of a list (of lists) of fractions written as text."""
    return np.array([numbers(t) if isinstance(t, list) else float(Fraction(t)) for t in texts])


X, QUERY = numbers(GOLDEN["patterns"]), numbers(GOLDEN["query"])


@pytest.fixture
def rng():
    return np.random.default_rng(2023)


def draw(seed, equal=False):
    """Patterns, one query beside each of some of them, these patterns' index, and a beta, of all sizes."""
    rng = np.random.default_rng(seed)
    m, d = int(rng.integers(2, 12)), int(rng.integers(1, 8))
    patterns = rng.normal(size=(m, d)) + rng.choice([0.0, 2.0])
    if equal:
        patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    index = rng.integers(m, size=20)
    queries = patterns[index] + rng.choice([0.0, 0.1, 0.5, 2.0]) * rng.normal(size=(20, d))
    return patterns, queries, index, float(10 ** rng.uniform(-2, 3))


def on_sphere(rng, m, d):
    """Uniform points of the unit sphere."""
    points = rng.normal(size=(m, d))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


# --- known values ---------------------------------------------------------------------------------


def test_golden_margins():
    np.testing.assert_allclose(theory.margin(X), numbers(GOLDEN["Delta"]), rtol=1e-14)
    np.testing.assert_allclose(theory.margin_at(X, X, range(4)), theory.margin(X), rtol=1e-14)
    np.testing.assert_allclose(theory.critical_beta(X), 1 / numbers(GOLDEN["Delta"]), rtol=1e-14)
    assert theory.min_half_distance(X) == pytest.approx(float(GOLDEN["R"][0]), **PRINTED)
    np.testing.assert_allclose(theory.exact_radius(X, 8), numbers(GOLDEN["exact_radius_beta8"]), rtol=1e-11)
    # Equal lengths: r = D/2 - 1/(beta D)
    distance = 2 * theory.min_half_distance(X)
    assert theory.exact_radius(X, 8)[0] == pytest.approx(distance / 2 - 1 / (8 * distance))


@pytest.mark.parametrize("case", GOLDEN["steps"], ids=lambda c: c["beta"])
def test_golden_energies(case):
    beta = float(Fraction(case["beta"]))
    state = sh.update(QUERY, X, beta)
    np.testing.assert_allclose(state, numbers(case["T"]), rtol=0, atol=1e-14)
    assert sh.energy(QUERY, X, beta) == pytest.approx(float(case["H"]), **PRINTED)
    assert sh.energy(state, X, beta) == pytest.approx(float(case["H_next"]), **PRINTED)
    assert theory.energy_as_printed(QUERY, X, beta) == pytest.approx(float(case["H_printed"]), **PRINTED)
    assert theory.energy_as_printed(state, X, beta) == pytest.approx(float(case["Hp_next"]), **PRINTED)
    dense = np.linalg.norm(numbers(case["T_dense"]) - X[0])
    assert theory.retrieval_error(QUERY, X, 0, beta, separation="softmax") == pytest.approx(dense, **PRINTED)
    assert theory.retrieval_error(QUERY, X, 0, beta) == pytest.approx(np.linalg.norm(numbers(case["T"]) - X[0]))
    # At an exact fixed point E = -|xi|^2 / 2.
    assert theory.is_certified(X, beta)[0] == (beta >= 2.5)
    if beta >= 2.5:
        assert sh.energy(X[0], X, beta) == pytest.approx(-1 / 2)


@pytest.mark.parametrize("case", GOLDEN["lambert"], ids=lambda c: f"{c['d']},{c['beta']},{c['delta']}")
def test_golden_lambert(case):
    arguments = [case[name] for name in ("d", "m", "beta", "p", "R", "delta")]
    bound = theory.capacity_bound(*arguments, strict=case["exact_2betamR"])
    for ours, theirs in zip(("a", "b", "C", "M", "log_M"), ("a", "b", "C", "M", "lnM"), strict=True):
        assert getattr(bound, ours) == pytest.approx(float(case[theirs]), **PRINTED), ours
    assert bound.is_empty == (bound.M < 2)
    # C solves the condition that it is to solve: m^2 / (5 C) = 2 m R + ln(2 M m / (R + delta)) / beta
    m, beta, r = case["m"], case["beta"], case["R"]
    need = 2 * m * r if case["exact_2betamR"] else 1 / beta
    assert m**2 / (5 * bound.C) == pytest.approx(need + math.log(2 * bound.M * m / (r + case["delta"])) / beta)


@pytest.mark.parametrize("case", GOLDEN["exact_cap"], ids=lambda c: f"{c['d']},{c['beta']}")
def test_golden_exact_capacity(case):
    capacity = theory.exact_capacity(*[case[name] for name in ("d", "m", "beta", "p", "r")])
    for ours, theirs in zip(("D", "F", "M", "weak_M"), ("D", "F", "M_real", "simple"), strict=True):
        assert getattr(capacity, ours) == pytest.approx(float(case[theirs]), rel=1e-11), ours
    assert 2 * math.asin(capacity.D / (2 * case["m"])) == pytest.approx(float(case["angle"]), **PRINTED)
    for name in ("F", "M", "weak_M"):
        assert getattr(capacity, f"log_{name}") == pytest.approx(math.log(getattr(capacity, name)), **PRINTED)
    # It solves the union bound, and D the quadratic.
    assert capacity.M * (capacity.M - 1) / 2 * capacity.F == pytest.approx(case["p"])
    assert capacity.D / 2 - 1 / (case["beta"] * capacity.D) == pytest.approx(case["r"], abs=1e-15)


def test_golden_dense_capacity():
    # (beta, K, d, p) of the literature, where m = K sqrt(d - 1)
    for beta, k, d, p, c in ((1, 3, 20, 0.001, 3.1546107698), (1, 1, 75, 0.001, 1.3718777692)):
        bound = theory.dense_capacity_bound(d, k * math.sqrt(d - 1), beta, p)
        assert bound.C == pytest.approx(c, rel=1e-10)
        # M >= 2 is the source's C >= (2 / sqrt p)^(4 / (d - 1))
        assert bound.is_empty == (bound.C < (2 / math.sqrt(p)) ** (4 / (d - 1)))


@pytest.mark.parametrize(
    ("d", "beta", "lambert", "dense", "exact", "weak"),
    [
        (8, 100, 1.741, 1.780, 979.5, 59.81),
        (20, 100, 11.32, 7.395, 1.276e8, 4.785e5),
        (20, 1000, 2.127e4, 5338, 8.86e12, 2.691e10),
        (64, 100, 343.6, 56.94, 4.078e26, 9.8e19),
    ],
)
def test_capacities_beside_one_another(d, beta, lambert, dense, exact, weak):
    r = 1 / (2 * beta)
    close = {"rel": 6e-4}  # four digits are given
    assert theory.capacity_bound(d, 1, beta, 0.1, r).M == pytest.approx(lambert, **close)
    assert theory.dense_capacity_bound(d, 1, beta, 0.1).M == pytest.approx(dense, **close)
    assert theory.exact_capacity(d, 1, beta, 0.1, r).M == pytest.approx(exact, **close)
    assert theory.exact_capacity(d, 1, beta, 0.1).weak_M == pytest.approx(weak, **close)


def test_wright_omega():
    assert special.wrightomega(800.0) == pytest.approx(793.323768578, rel=1e-12)


# --- energy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "x", "before", "after"), [(2.0, 2.0, -2.0, -1.5), (0.5, 0.5, -0.125, 0.0)])
def test_printed_energy_rises(beta, x, before, after):
    state = sh.update([x], [[1.0]], beta)
    assert theory.energy_as_printed([x], [[1.0]], beta) == before
    assert theory.energy_as_printed(state, [[1.0]], beta) == after > before
    assert sh.energy(state, [[1.0]], beta) < sh.energy([x], [[1.0]], beta)


def test_stationary_is_no_optimum():
    patterns = [[1.0], [-1.0]]
    assert sh.update([0.0], patterns, 1.0) == 0
    assert sh.energy([0.0], patterns, 1.0) == -0.25
    assert sh.energy([0.1], patterns, 1.0) == pytest.approx(-0.255)
    assert sh.energy([-0.1], patterns, 1.0) == pytest.approx(-0.255)  # a local maximum


@pytest.mark.parametrize("separation", ENERGY_MAPS, ids=name_of)
def test_printed_energy_is_what_is_printed(separation, rng):
    patterns, queries, beta = rng.normal(size=(9, 4)), rng.normal(size=(2, 3, 4)), np.array([[0.3], [2.5]])
    _, _, conjugate = reference._functions_of_map(separation)
    printed = -conjugate(beta[..., None] * (queries @ patterns.T)) + (queries**2).sum(axis=-1) / 2
    given = theory.energy_as_printed(queries, patterns, beta, separation=separation)
    np.testing.assert_allclose(given, printed, rtol=0, atol=1e-13)
    # It is the energy of the memory beta Xi at beta = 1, and so lacks the 1 / beta.
    scaled = sh.energy(queries[1], 2.5 * patterns, 1.0, separation=separation)
    np.testing.assert_allclose(given[1], scaled, rtol=0, atol=1e-13)


def test_gradients_of_both_energies(rng):
    patterns, beta, h = rng.normal(size=(7, 3)), 3.0, 1e-6
    x, step = rng.normal(size=3), h * np.eye(3)
    state = sh.update(x, patterns, beta)
    slope = (sh.energy(x + step, patterns, beta) - sh.energy(x - step, patterns, beta)) / (2 * h)
    np.testing.assert_allclose(slope, x - state, rtol=0, atol=1e-8)
    printed = theory.energy_as_printed(x + step, patterns, beta) - theory.energy_as_printed(x - step, patterns, beta)
    np.testing.assert_allclose(printed / (2 * h), x - beta * state, rtol=0, atol=1e-7)


@given(SEEDS, st.sampled_from(SIMILARITIES), st.sampled_from(ENERGY_MAPS))
def test_energy_falls_by_half_the_squared_step_and_has_its_floor(seed, similarity, separation):
    patterns, queries, _, beta = draw(seed)
    model = {"similarity": similarity, "separation": separation}
    states = sh.update(queries, patterns, beta, **model)
    before, after = sh.energy(queries, patterns, beta, **model), sh.energy(states, patterns, beta, **model)
    assert (before - after >= ((queries - states) ** 2).sum(axis=1) / 2 - 1e-11 * (1 + np.abs(before))).all()
    offset = theory.energy_offset(patterns, beta, **model)
    assert (before + offset >= -1e-11 * (1 + np.abs(before))).all()
    if similarity == "dot":  # T(x) is in the hull, where E <= -|x|^2 / 2
        assert (after <= -(states**2).sum(axis=1) / 2 + 1e-11 * (1 + np.abs(after))).all()


def test_offset():
    assert theory.energy_offset(X, 2.0) == pytest.approx(1 / 2 + 3 / (2 * 4 * 2))  # m^2 / 2 + (M - 1) / (2 M beta)
    assert theory.energy_offset(X, 2.0, separation="softmax") == pytest.approx(1 / 2 + math.log(4) / 2)
    # It is attained: one pattern at itself, and equal scores in the middle of equal patterns.
    assert theory.energy_offset([[3.0, 4.0]], 1.0) == -sh.energy([3.0, 4.0], [[3.0, 4.0]], 1.0)
    for separation in ENERGY_MAPS:
        bottom = sh.energy([0.0], [[0.0], [0.0], [0.0]], 2.0, separation=separation)
        assert theory.energy_offset(np.zeros((3, 1)), 2.0, separation=separation) == pytest.approx(-bottom)


def test_contraction():
    # 1 and -1: T(x) = 2 beta x inside; at beta = 1/2 everything between is fixed, at 1/4 x_t = 2^-t
    patterns = [[1.0], [-1.0]]
    assert theory.contraction(patterns, 0.5) == 1
    between = [[0.25], [-0.75], [1.0]]
    np.testing.assert_array_equal(sh.update(between, patterns, 0.5), between)
    assert theory.contraction(patterns, 0.25) == 0.5
    with quiet():
        assert sh.retrieve([1.0], patterns, 0.25, max_steps=7) == 2.0**-7
    assert theory.contraction([[5.0, 5.0]], 100.0) == 0
    wide, tall = np.random.default_rng(0).normal(size=(2, 30, 30))
    wide, tall = wide[:5], tall[:, :5]
    for a in (wide, tall):
        assert theory.contraction(a, 2.0) == pytest.approx(2 * np.linalg.norm(a - a.mean(axis=0), 2) ** 2)


@given(
    SEEDS,
    st.sampled_from(SIMILARITIES),
    st.sampled_from(["sparsemax", "softmax", "entmax15", sh.Entmax(1.1), sh.Entmax(1.9)]),
)
def test_contraction_bounds_how_t_stretches(seed, similarity, separation):
    patterns, queries, _, beta = draw(seed)
    bound = theory.contraction(patterns, beta, similarity=similarity, separation=separation)
    assert bound == theory.contraction(patterns, beta, similarity=similarity) * (0.5 if separation == "softmax" else 1)
    states = sh.update(queries, patterns, beta, similarity=similarity, separation=separation)
    moved, apart = (np.linalg.norm(a[1:] - a[:-1], axis=1) for a in (states, queries))
    assert (moved <= bound * apart + 1e-11 * (1 + np.abs(patterns).max())).all()


# --- margins, fixed points, radii -----------------------------------------------------------------


def plain_lead(queries, patterns, index, similarity):
    """By how much mu leads every pattern at x, in plain NumPy."""
    x, rows, bias, _, _ = reference._prepare(queries, patterns, np.ones(len(queries)), similarity)
    scores = x @ rows.T + bias
    return np.take_along_axis(scores, index[:, None], axis=1) - scores


def plain_gap(queries, patterns, index, similarity):
    lead = plain_lead(queries, patterns, index, similarity)
    np.put_along_axis(lead, index[:, None], np.inf, axis=1)
    return lead.min(axis=1)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_blocks_are_plain_numpy(similarity, rng, monkeypatch):
    monkeypatch.setattr(_patterns, "BLOCK_ROWS", 7)
    patterns, index = rng.normal(size=(50, 6)), rng.integers(50, size=33)
    queries = patterns[index] + 0.3 * rng.normal(size=(33, 6))
    close = {"rtol": 0, "atol": 1e-13}
    everyone = np.arange(50)
    rows = patterns / np.linalg.norm(patterns, axis=1, keepdims=True) if similarity == "cosine" else patterns
    margin = plain_gap(rows, patterns, everyone, similarity)
    np.testing.assert_allclose(theory.margin(patterns, similarity=similarity), margin, **close)
    gap = theory.margin_at(queries, patterns, index, similarity=similarity)
    np.testing.assert_allclose(gap, plain_gap(queries, patterns, index, similarity), **close)
    distance = np.linalg.norm(rows[:, None] - rows, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (plain_lead(rows, patterns, everyone, similarity) - 1 / 30) / distance
    np.fill_diagonal(ratio, np.inf)
    radius = theory.exact_radius(patterns, 30.0, similarity=similarity)
    np.testing.assert_allclose(radius, ratio.min(axis=1), rtol=0, atol=1e-12)
    if similarity != "dot":  # then it is that of the nearest pattern
        np.fill_diagonal(distance, np.inf)
        nearest = distance.min(axis=1)
        np.testing.assert_allclose(radius, nearest / 2 - 1 / (30 * nearest), rtol=0, atol=1e-12)
    if similarity == "dot":
        assert theory.min_half_distance(patterns) == pytest.approx(distance[distance > 0].min() / 2, rel=1e-14)
        farthest = distance.max(axis=1)[index]
        p = sh.associate(queries, patterns, 0.7).toarray()
        kappa = np.count_nonzero(p, axis=1)
        bound = farthest * np.where(gap < 0, 1, (1 - 1 / kappa) * np.maximum(0, 1 - 0.7 * gap))
        np.testing.assert_allclose(theory.retrieval_bound(queries, patterns, index, 0.7), bound, **close)
        scores = np.sort(queries @ patterns.T, axis=1)[:, ::-1]
        m, last = np.linalg.norm(patterns, axis=1).max(), np.take_along_axis(scores, kappa[:, None] - 1, axis=1)[:, 0]
        bound = m + math.sqrt(6) * m * (0.7 * kappa * (scores[:, 0] - last) + 1)
        np.testing.assert_allclose(theory.retrieval_bound(queries, patterns, index, 0.7, rule="printed"), bound)


def test_blocks_bound_the_memory(rng, monkeypatch):
    monkeypatch.setattr(_patterns, "BLOCK_ENTRIES", 2**15)
    patterns = rng.normal(size=(2000, 3))
    for function in (theory.margin, theory.critical_beta, theory.exact_radius, theory.min_half_distance):
        tracemalloc.start()
        function(patterns)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6  # all scores would take 32 MB


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("family", families())
def test_margin_is_that_of_a_memory(family, similarity):
    patterns = patterns_for(similarity, families(np.float64)[family][1])
    own = theory.margin(patterns, similarity=similarity)
    core = sh.HopfieldMemory(patterns, similarity=similarity).margin()
    largest = 1.0 if similarity == "cosine" else (patterns**2).sum(axis=1).max()
    np.testing.assert_allclose(own, core, rtol=0, atol=64 * np.finfo(float).eps * largest)


def test_close_patterns_lose_no_digits():
    # The matrix product of these is good to 1e-9; what is reported comes from their difference.
    step = 2.0**-20
    patterns = np.array([[1000.0, 0.0], [1000.0, step], [-1000.0, 1.0]])
    assert theory.margin(patterns)[1] == step**2
    assert theory.margin(patterns, similarity="euclidean")[0] == step**2 / 2
    assert theory.min_half_distance(patterns) == step / 2
    beta = 4 / step**2
    assert theory.exact_radius(patterns, beta)[1] == step - 1 / (beta * step)
    patterns = np.array([[1000.1, 0.3], [1000.1, 0.3 + 1e-6], [999.9, 0.0]])
    one, other = ([Fraction(v) for v in row] for row in patterns[:2])
    exact = sum(b * (b - a) for a, b in zip(one, other, strict=True))
    assert theory.margin(patterns)[1] == pytest.approx(float(exact), rel=1e-14)


def test_equality_counts():
    patterns = [[1.0, 0.0], [0.6, 0.8]]
    assert theory.is_certified(patterns, 2.5).all()
    assert theory.is_fixed_point(patterns, 2.5).all()
    below = 2.5 * (1 - 1e-9)
    assert not theory.is_certified(patterns, below).any()
    assert not theory.is_fixed_point(patterns, below).any()
    np.testing.assert_allclose(theory.retrieval_error(patterns, patterns, [0, 1], below), 4.47e-10, rtol=1e-2)
    np.testing.assert_allclose(theory.exact_radius(patterns, 2.5), 0, atol=1e-15)


def test_equality_counts_in_spite_of_rounding(rng):
    for _ in range(200):
        patterns = on_sphere(rng, 5, 3) * 10 ** rng.uniform(-3, 3)
        for mu, beta in enumerate(theory.critical_beta(patterns)):
            assert theory.is_certified(patterns, beta)[mu]
            assert theory.is_fixed_point(patterns, beta)[mu]
            assert theory.well_separated(patterns[mu], patterns, mu, beta)


def test_interior_pattern_is_fixed_without_a_margin():
    patterns = [[-1.0], [0.0], [1.0]]
    np.testing.assert_array_equal(theory.margin(patterns), [1, 0, 1])
    np.testing.assert_array_equal(theory.critical_beta(patterns), [1, np.inf, 1])
    for beta in (0.01, 0.5, 1.0, 100.0):
        assert not theory.is_certified(patterns, beta)[1]
        assert theory.is_fixed_point(patterns, beta)[1]
        assert theory.exact_radius(patterns, beta)[1] < 0  # no ball around it goes to it


def test_copies_need_only_their_share_of_the_gap():
    patterns = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    np.testing.assert_allclose(theory.margin(patterns), [0, 0, 0.4], atol=1e-16)
    assert theory.min_half_distance(patterns) == 0
    np.testing.assert_array_equal(theory.is_fixed_point(patterns, 1.25), [True, True, False])
    assert not theory.is_fixed_point(patterns, 1.25 * (1 - 1e-9)).any()
    assert theory.is_certified(patterns, 2.5).tolist() == [False, False, True]
    # r = (Delta - 1 / (k beta)) / D with k copies: 0 at 1.25 = 1 / (2 Delta)
    np.testing.assert_allclose(theory.exact_radius(patterns, 1.25)[:2], 0, atol=1e-15)
    np.testing.assert_allclose(
        theory.exact_radius(patterns, 5.0), np.array([0.3, 0.3, 0.2]) / math.sqrt(0.8), rtol=1e-14
    )
    # -0.0 and 0.0 are the same number
    assert theory.exact_radius([[1.0, 0.0], [1.0, -0.0]], 1.0).tolist() == [np.inf, np.inf]


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_one_pattern(similarity):
    one, options = [[3.0, 4.0]], {"similarity": similarity}
    assert theory.margin(one, **options) == np.inf
    assert theory.margin_at([1.0, 0.0], one, 0, **options) == np.inf
    assert theory.critical_beta(one, **options) == 0
    assert theory.exact_radius(one, 0.1, **options) == np.inf
    assert theory.is_certified(one, 1e-300, **options)
    assert theory.is_fixed_point(one, 1e-300, **options)
    assert theory.min_half_distance(one) == np.inf
    assert theory.contraction(one, **options) == 0
    for rule in theory.BOUNDS:
        bound = theory.retrieval_bound([9.0, 9.0], one, 0, rule=rule)
        assert bound == (5 * (1 + math.sqrt(2)) if rule == "printed" else 0)
    for rule in theory.CONDITIONS:
        assert theory.well_separated([9.0, 9.0], one, 0, rule=rule)


def test_all_zero_patterns():
    zeros = np.zeros((3, 2))
    np.testing.assert_array_equal(theory.margin(zeros), 0)
    np.testing.assert_array_equal(theory.exact_radius(zeros), np.inf)
    assert theory.is_fixed_point(zeros).all()
    for rule in theory.CONDITIONS:
        assert theory.well_separated([1.0, 2.0], zeros, 1, rule=rule)
    for rule in theory.BOUNDS:
        assert theory.retrieval_bound([1.0, 2.0], zeros, 1, rule=rule) == 0


def test_orthonormal_patterns_at_any_size():
    # Sparse exact from beta = 1 for any M; dense with 1 - p = 1e-3 needs more and more.
    for m, beta in ((10, 9.1), (100, 11.5), (1000, 13.8)):
        patterns = np.eye(m)
        assert theory.is_certified(patterns, 1.0).all()
        p = sh.associate(patterns[0], patterns, math.log(999 * (m - 1)), separation="softmax", top=1).data
        assert 1 - p == pytest.approx(1e-3)
        assert math.log(999 * (m - 1)) == pytest.approx(beta, abs=0.05)


def test_cosine_is_of_the_unit_rows():
    patterns = np.array([[3e-200, 4e-200], [0.0, 1e100], [6.0, 8.0]])
    unit = [[0.6, 0.8], [0.0, 1.0], [0.6, 0.8]]
    np.testing.assert_allclose(theory.margin(patterns, similarity="cosine"), [0, 0.2, 0], atol=1e-15)
    np.testing.assert_allclose(theory.margin(patterns[1:], similarity="cosine"), theory.margin(unit[1:]), rtol=1e-14)
    assert theory.is_fixed_point(patterns[1:], 6.0, similarity="cosine").all()
    assert not theory.is_fixed_point(patterns[1:], 4.0, similarity="cosine").any()


def test_euclidean_ball_of_an_interior_pattern_is_exact():
    patterns, options = [[-1.0], [0.0], [1.0]], {"similarity": "euclidean"}
    assert theory.exact_radius(patterns, 4.0, **options)[1] == 0.25  # D / 2 - 1 / (beta D)
    assert (sh.update([[0.25], [-0.25]], patterns, 4.0, **options) == 0).all()
    assert (sh.update([[0.2501], [-0.2501]], patterns, 4.0, **options) != 0).all()


@given(SEEDS)
def test_certified_iff_fixed_on_a_sphere(seed):
    patterns, _, _, beta = draw(seed, equal=True)
    if patterns.shape[1] == 1:  # many copies of two points
        return
    sure = np.abs(beta * theory.margin(patterns) - 1) > 1e-9
    np.testing.assert_array_equal(
        theory.is_certified(patterns, beta)[sure], theory.is_fixed_point(patterns, beta)[sure]
    )


@given(SEEDS, st.sampled_from(SIMILARITIES))
def test_exact_radius_is_exact(seed, similarity):
    patterns, _, _, beta = draw(seed)
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        patterns = np.concatenate([patterns, patterns[:2]])
    radius = theory.exact_radius(patterns, beta, similarity=similarity)
    rows = patterns / np.linalg.norm(patterns, axis=1, keepdims=True) if similarity == "cosine" else patterns
    scale = np.abs(rows).max()
    for mu in np.flatnonzero((radius > 1e-6) & (radius < np.inf)):
        directions = on_sphere(rng, 50, patterns.shape[1])
        others = np.flatnonzero((rows != rows[mu]).any(axis=1))
        towards = rows[others] - rows[mu]
        directions[: len(others)] = towards / np.linalg.norm(towards, axis=1, keepdims=True)
        inside = rows[mu] + (1 - 1e-7) * radius[mu] * directions
        states = sh.update(inside, patterns, beta, similarity=similarity)
        np.testing.assert_allclose(states, np.broadcast_to(rows[mu], states.shape), rtol=0, atol=1e-14 * scale)
        outside = rows[mu] + (1 + 1e-7) * radius[mu] * directions[: len(others)]
        moved = np.linalg.norm(sh.update(outside, patterns, beta, similarity=similarity) - rows[mu], axis=1)
        assert moved.max() > 1e-12 * scale  # in the worst direction, which is that of a pattern
    # Where it is negative and nothing is certified, the pattern is not sent to itself by its own weight.
    weights = sh.associate(rows, patterns, beta, similarity=similarity).toarray()
    own = np.array([w[(rows == row).all(axis=1)].sum() for w, row in zip(weights, rows, strict=True)])
    assert (own[radius < -1e-9] < 1).all()


# --- retrieval ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "x", "beta", "sparse", "dense"),
    [
        ([[1.0], [3.0]], [1.0], 1.0, 2.0, 1.761594),
        ([[0.0, 1.0], [0.6, 0.8], [-0.8, 0.6]], [0.0, 1.0], 2.0, 0.189737, 0.149407),
        ([[0.0, 1.0], [0.6, 0.8], [-0.6, 0.8]], [0.27, 0.87], 1.0, 0.223429, 0.139861),
    ],
)
def test_sparse_error_exceeds_dense_error(patterns, x, beta, sparse, dense):
    assert np.linalg.norm(np.subtract(x, patterns[0])) < theory.min_half_distance(patterns)
    assert theory.retrieval_error(x, patterns, 0, beta) == pytest.approx(sparse, abs=6e-7)
    assert theory.retrieval_error(x, patterns, 0, beta, separation="softmax") == pytest.approx(dense, abs=6e-7)


def test_error_exceeds_the_footnotes_bound():
    patterns, x = np.array([[-0.8, -0.2], [1.6, 0.2], [-0.8, 1.0]]), np.array([-0.3, 0.1])
    assert theory.min_half_distance(patterns) == pytest.approx(0.6)
    away = np.linalg.norm(x - patterns[0])
    assert away < 0.6
    limit = sh.retrieve(x, patterns, 0.25)
    footnote = max(away, np.linalg.norm(patterns[0] - limit))
    assert footnote == pytest.approx(0.687805, abs=6e-7)
    assert theory.retrieval_error(x, patterns, 0, 0.25) == pytest.approx(0.765370, abs=6e-7)


def test_printed_exponential_bound_fails():
    patterns, x, beta = np.array([[1.0, 0.0], [0.96, 0.28]]), [1.1, 0.0], 100.0
    assert np.linalg.norm(x - patterns[0]) < theory.min_half_distance(patterns)
    bound = theory.retrieval_bound(x, patterns, 0, beta, rule="printed exponential")
    dense = theory.retrieval_error(x, patterns, 0, beta, separation="softmax")
    assert bound == pytest.approx(9.08e-5, rel=1e-3)
    assert dense == pytest.approx(3.43e-3, rel=2e-3)
    assert dense <= theory.retrieval_bound(x, patterns, 0, beta, rule="exponential")
    # Read with nu != mu: exp(-beta (<xi_mu, x> - max <xi_mu, xi_nu>)) = exp(-beta (<xi_mu, x - xi_mu> + Delta_mu))
    patterns, x, beta = np.eye(2), np.array([0.5, 0.5]), 10.0
    read = 2 * math.exp(-beta * (patterns[0] @ (x - patterns[0]) + theory.margin(patterns)[0]))
    assert read == pytest.approx(0.01348, abs=1e-5)
    for separation in ("sparsemax", "softmax"):
        assert theory.retrieval_error(x, patterns, 0, beta, separation=separation) == pytest.approx(0.7071, abs=1e-4)


@given(SEEDS)
def test_bounds_hold(seed):
    patterns, queries, index, beta = draw(seed)
    m = np.linalg.norm(patterns, axis=1).max()
    sparse, dense = (
        theory.retrieval_error(queries, patterns, index, beta, separation=s) for s in ("sparsemax", "softmax")
    )
    bounds = {rule: theory.retrieval_bound(queries, patterns, index, beta, rule=rule) for rule in theory.BOUNDS}
    slack = 1e-11 * m * (1 + beta)  # scores are rounded, and beta magnifies that
    for rule in ("sharp", "exponential", "separation"):
        assert (sparse <= bounds[rule] + slack).all(), rule
        assert (bounds[rule] <= 2 * m * (1 + 1e-12)).all(), rule
    for rule in ("exponential", "separation"):
        assert (dense <= bounds[rule] + slack).all(), rule
    assert (bounds["exponential"] <= bounds["separation"] + slack).all()
    assert (bounds["printed"] >= 2 * m * (1 - 1e-12)).all()  # vacuous: T(x) is in the hull
    # With the distance to the limit, as corollary 3.1.2 has it, the bound can only grow.
    with quiet():
        limits = sh.retrieve(queries, patterns, beta, max_steps=100)
    away = np.maximum(*(np.linalg.norm(queries - a, axis=1) for a in (patterns[index], limits)))
    exponent = math.log(len(patterns) - 1) - beta * (theory.margin(patterns)[index] - 2 * m * away)
    assert (sparse <= 2 * m * np.exp(np.minimum(exponent, 0)) + slack).all()


@given(SEEDS)
def test_dense_floor_holds(seed):
    patterns, queries, index, beta = draw(seed)
    floor = theory.dense_error_floor(queries, patterns, index, beta)
    dense = theory.retrieval_error(queries, patterns, index, beta, separation="softmax")
    slack = 1e-11 * np.linalg.norm(patterns, axis=1).max() * (1 + beta)
    assert (floor <= dense + slack).all()
    scores = queries @ patterns.T
    own = scores[np.arange(20), index]
    others = np.where(np.arange(len(patterns)) == index[:, None], -np.inf, scores).max(axis=1)
    assert ((floor > 0) <= (own > others - slack)).all()


def test_dense_floor_of_orthonormal_patterns():
    for m in (2, 10, 1000):
        patterns = np.eye(m)[:2] if m == 1000 else np.eye(m)
        found = theory.dense_error_floor(patterns[0], patterns, 0, 3.0)
        error = theory.retrieval_error(patterns[0], patterns, 0, 3.0, separation="softmax")
        others = len(patterns) - 1
        assert found == pytest.approx(others / (others + math.exp(3)))
        assert error / found == pytest.approx(math.sqrt(1 + 1 / others))
    assert theory.dense_error_floor(np.eye(3)[0], np.eye(3), 0, 1e4) == 0  # underflows
    assert theory.dense_error_floor(np.eye(3)[1], np.eye(3), 0, 1.0) == 0
    assert theory.dense_error_floor([0.0, 0.0], [[1.0, 0.0], [0.0, 0.0]], 0) == 0
    assert theory.dense_error_floor([5.0], [[1.0]], 0) == 0


def test_printed_bound_is_2m_at_best():
    assert theory.retrieval_bound([1.0], [[1.0], [-1.0]], 0, 4.0, rule="printed") == 2  # d = 1 and kappa = 1


def test_sharp_bound_is_attained():
    # Two patterns, and the others of a support at one score and one place
    x, patterns = [0.3, 0.1], [[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]
    error = theory.retrieval_error(x, patterns, 0, 0.5)
    assert theory.retrieval_bound(x, patterns, 0, 0.5) == pytest.approx(error, rel=1e-14)


@given(SEEDS, st.integers(1, 40))
def test_sparsemax_majorises_softmax(seed, n):
    rng = np.random.default_rng(seed)
    z = 10 ** rng.uniform(-3, 3) * rng.normal(size=(10, n))
    sparse, dense = sh.sparsemax(z), sh.softmax(z)
    assert theory.majorises(sparse, dense).all()
    assert (sparse.max(axis=1) >= dense.max(axis=1) - 1e-15).all()
    assert ((sparse - dense) * z).sum(axis=1).min() >= -1e-12 * np.abs(z).max()


def test_majorises():
    assert theory.majorises([1.0, 0.0], [0.5, 0.5])
    assert not theory.majorises([0.5, 0.5], [1.0, 0.0])
    assert theory.majorises([0.2, 0.8], [0.8, 0.2])
    assert not theory.majorises([1.0, 1.0], [1.0, 0.0])  # sums differ
    assert not theory.majorises([0.6, 0.2, 0.2], [0.5, 0.45, 0.05])  # neither does
    assert not theory.majorises([0.5, 0.45, 0.05], [0.6, 0.2, 0.2])
    assert theory.majorises(np.eye(3), np.full((2, 1, 3), 1 / 3)).shape == (2, 3)


@given(SEEDS)
def test_what_is_true_of_sparse_beside_dense(seed):
    patterns, queries, index, beta = draw(seed, equal=True)
    sparse, dense = (sh.update(queries, patterns, beta, separation=s) for s in ("sparsemax", "softmax"))
    assert ((queries * (sparse - dense)).sum(axis=1) >= -1e-11).all()
    # At x = xi_mu and equal lengths the mean q-th power of the distance is the smaller one, for every q > 0.
    distance = np.linalg.norm(patterns[:, None] - patterns, axis=2)
    p = sh.associate(patterns, patterns, beta).toarray()
    p_dense = sh.associate(patterns, patterns, beta, separation="softmax", min_weight=5e-324).toarray()
    for q in (0.5, 1, 2, 5):
        assert ((p * distance**q).sum(axis=1) <= (p_dense * distance**q).sum(axis=1) + 1e-11).all()
    # The claim itself: where the gap is 1 / beta, and for two patterns.
    gap = theory.margin_at(queries, patterns, index)
    error = theory.retrieval_error(queries, patterns, index, beta)
    assert (error[beta * gap >= 1] <= 1e-15).all()
    pair = patterns[:2]
    top = theory.margin_at(queries, pair, 0) >= 0
    ours, theirs = (theory.retrieval_error(queries, pair, 0, beta, separation=s) for s in ("sparsemax", "softmax"))
    assert (ours[top] <= theirs[top] + 1e-12).all()


# --- separation conditions ------------------------------------------------------------------------


def test_theorem_31_where_it_can_be_met():
    patterns = [[1.0, 0.0], [-1.0, 0.0], [-math.cos(0.1), math.sin(0.1)]]
    assert theory.well_separated(patterns[0], patterns, 0, 0.9, rule="theorem 3.1")
    assert not theory.well_separated(patterns[0], patterns, 0, 0.5, rule="theorem 3.1")
    # Not necessary: the exact condition holds from beta = 1 / Delta on.
    assert theory.well_separated(patterns[0], patterns, 0, 0.51, rule="exact")


def test_conditions_imply_what_they_claim(rng):
    met = dict.fromkeys(theory.CONDITIONS, 0)
    for _ in range(60):
        d = int(rng.integers(2, 6))
        patterns = rng.normal(size=(6, d)) * 10 ** rng.uniform(-1, 1)
        patterns = np.concatenate([patterns, patterns[:1] * (1 + 10 ** rng.uniform(-4, -1))])  # so that R is small
        index = rng.integers(1, 6, size=30)
        r = theory.min_half_distance(patterns)
        queries = patterns[index] + r * rng.uniform(0, 1.2, size=(30, 1)) * on_sphere(rng, 30, d)
        beta = 10 ** rng.uniform(-1, 2, size=30)
        error = theory.retrieval_error(queries, patterns, index, beta)
        radius = None if rng.random() < 0.5 else float(r * rng.uniform(0.5, 1))
        m = np.linalg.norm(patterns, axis=1).max()
        holds = {rule: theory.well_separated(queries, patterns, index, beta, rule=rule, radius=radius) for rule in met}
        for rule in ("exact", "ball", "theorem 3.1"):
            assert (error[holds[rule]] <= 1e-14 * m).all(), rule
        reach = r if radius is None else radius
        assert (error[holds["corollary 3.1.1"]] <= reach * (1 + 1e-9)).all()
        # Theorem 3.1 is the strongest: it implies Delta >= 1 / beta + 2mR, the whole ball and the query itself.
        strong = holds["theorem 3.1"]
        assert (theory.margin(patterns)[index] >= 1 / beta + 2 * m * reach)[strong].all()
        assert holds["ball"][strong].all()
        assert holds["exact"][holds["ball"]].all()
        met = {rule: met[rule] + int(holds[rule].sum()) for rule in met}
    assert met["equation 3.3"] == 0
    assert min(met[rule] for rule in ("exact", "ball", "theorem 3.1", "corollary 3.1.1")) > 20, met


@given(SEEDS)
def test_conditions_are_that_the_margin_is_what_they_ask_for(seed):
    patterns, queries, index, beta = draw(seed)
    margin, radius = theory.margin(patterns)[index], theory.min_half_distance(patterns)
    m, n = np.linalg.norm(patterns, axis=1).max(), np.linalg.norm(queries, axis=1)
    near = np.linalg.norm(queries - patterns[index], axis=1) <= radius
    asked = {rule: theory.required_margin(queries, patterns, index, beta, rule=rule) for rule in theory.REQUIREMENTS}
    for rule in ("theorem 3.1", "corollary 3.1.1"):
        met = theory.well_separated(queries, patterns, index, beta, rule=rule)
        np.testing.assert_array_equal(met, near & (margin >= asked[rule]))
    exact = near & (margin >= asked["exact"] * (1 + 1e-9))
    assert (theory.retrieval_error(queries, patterns, index, beta)[exact] == 0).all()
    # observation 2: what theorem 3.1 asks for has a bound without M, corollary 3.1.1 has one with it
    slack = 1e-9 * (m * m + 1 / beta)
    most = 2 * m * (n + radius) + (1 + patterns.shape[1] ** -0.5) / beta
    assert (asked["theorem 3.1"] <= most + slack).all()
    least = math.log(2 * (len(patterns) - 1) / 3) / beta + 2 * m * radius
    assert (asked["corollary 3.1.1"] >= least - slack).all()
    met = near & (margin >= asked["theorem 3.1"])
    assert (asked["theorem 3.1"] >= asked["exact"] - slack)[met].all()


def test_required_margin_where_nothing_is_asked():
    for rule in theory.REQUIREMENTS:
        assert theory.required_margin([1.0], [[2.0]], 0, rule=rule) == -np.inf
        assert theory.required_margin([[1.0]], [[0.0], [0.0]], 0, rule=rule).tolist() == [-np.inf]
    assert theory.required_margin([0.5, 0.5], np.eye(2), 0, 4.0, radius=0.0) == 0.25


@given(SEEDS)
def test_closest_pair_is_never_well_separated(seed):
    patterns, _, _, beta = draw(seed)
    rng = np.random.default_rng(seed)
    distance = np.linalg.norm(patterns[:, None] - patterns, axis=2)
    np.fill_diagonal(distance, np.inf)
    pair = np.array(np.unravel_index(distance.argmin(), distance.shape))
    r, (count, d), m = theory.min_half_distance(patterns), patterns.shape, np.linalg.norm(patterns, axis=1).max()
    assert r <= m
    queries = patterns[pair, None] + r * rng.uniform(0, 1, size=(2, 20, 1)) * on_sphere(rng, 40, d).reshape(2, 20, d)
    ask = (queries, patterns, pair[:, None], beta)
    assert not theory.well_separated(*ask, rule="theorem 3.1").any()
    dense, sparse = (theory.retrieval_error(*ask, separation=s) for s in ("softmax", "sparsemax"))
    met = theory.well_separated(*ask, rule="corollary 3.1.1")
    assert (r + (dense - sparse)[met] >= 2 * (count - 1) * m * (1 - 1e-9)).all()
    assert not theory.well_separated(*ask, rule="equation 3.3").any()


def test_delta_may_be_negative():
    patterns = [[0.0, 1.0], [0.6, 0.8], [-0.8, 0.6]]
    dense, sparse = (
        theory.retrieval_error(patterns[0], patterns, 0, 2.0, separation=s) for s in ("softmax", "sparsemax")
    )
    assert dense - sparse == pytest.approx(0.149407 - 0.189737, abs=2e-6)
    # R + delta < 0: the corollary's logarithm does not exist, and its condition is not met.
    assert not theory.well_separated(patterns[0], patterns, 0, 2.0, rule="corollary 3.1.1", radius=0.01)


# --- capacity -------------------------------------------------------------------------------------


def test_printed_capacity_does_not_exist():
    with pytest.raises(ValueError, match=r"as_printed: .*sqrt\(p\) - 1"):
        theory.capacity_bound(20, 1, 100, 0.1, 0.005, as_printed=True)


def test_capacity_saturates():
    values = [theory.capacity_bound(20, 1, beta, 0.1, 0.02).C for beta in (1e2, 1e3, 1e4, 1e6)]
    assert values == pytest.approx([1.90, 4.00, 4.87, 4.9986], rel=2e-3)
    for beta in (1e10, 1e100, 1e300):
        assert theory.capacity_bound(20, 1, beta, 0.1, 0.02).C == pytest.approx(5)  # m / (10 R)


@given(SEEDS)
def test_gain_over_dense(seed):
    rng = np.random.default_rng(seed)
    d, m, beta, p = int(rng.integers(2, 100)), 10 ** rng.uniform(-1, 1), 10 ** rng.uniform(-2, 4), rng.uniform(0.001, 1)
    r = m * 10 ** rng.uniform(-5, -0.1)
    delta = r * rng.uniform(-0.9, 3)
    dense, sparse = (theory.capacity_bound(d, m, beta, p, r, e) for e in (0.0, delta))
    gain = sparse.log_M - dense.log_M
    slack = 1e-9 * (1 + abs(dense.log_M))
    assert (gain >= -slack) == (delta >= 0) or abs(gain) <= slack
    # a power between 1 / (1 + w) at one delta and at the other, w = b / C, so at most 1 + delta / R
    low, high = sorted(1 / (1 + bound.b / bound.C) for bound in (dense, sparse))
    power = gain / math.log1p(delta / r)
    assert low - 1e-6 <= power <= high + 1e-6 <= 1 + 1e-5


def test_dense_bound_overtakes_for_large_beta():
    """Lemma 3.1 saturates at a fixed radius, the literature's dense bound grows: M >= M_dense fails."""
    for beta in (1e4, 1e8, 1e12):
        sparse, dense = theory.capacity_bound(20, 1, beta, 0.1, 0.02), theory.dense_capacity_bound(20, 1, beta, 0.1)
        assert dense.log_M > sparse.log_M
    assert theory.dense_capacity_bound(20, 1, 1e2, 0.1).log_M > theory.capacity_bound(20, 1, 1e2, 0.1, 0.02).log_M


def test_capacity_at_small_beta():
    for beta in (1e-12, 1e-200, 5e-324):
        tends = (0.3 + 0.1) / (2 * math.e * 2.0)  # (R + delta) / (2 e m)
        assert theory.capacity_bound(9, 2.0, beta, 0.1, 0.3, 0.1, strict=False).M == pytest.approx(tends)
        assert theory.capacity_bound(9, 2.0, beta, 0.1, 0.3, 0.1).M == pytest.approx(tends * math.e)


def test_capacity_in_many_dimensions():
    bound = theory.capacity_bound(9000, 1.0, 1e6, 0.1, 1e-7)
    assert bound.M == math.inf
    assert 709 < bound.log_M < math.inf
    exact = theory.exact_capacity(900, 1.0, 1e4, 0.1)
    assert exact.M == exact.weak_M == math.inf
    assert exact.F == 0
    assert exact.log_M == pytest.approx((math.log(0.2) - exact.log_F) / 2)  # M^2 F / 2 = p
    assert theory.capacity_bound(2, 1.0, 1.0, 0.1, 0.0, 1e-300).log_M > -800  # a + ln b is in the thousands


@pytest.mark.parametrize(
    ("d", "beta", "log_f", "log_m"),
    [  # in 40 digits, by the hypergeometric series
        (2000, 100.0, -3919.7862540518867, 1959.0884080697263),
        (200000, 5.0, -102171.41276044149, 51084.901661264529),
        (3000, 2.2, -533.84905242965031, 266.1198072586081),
    ],
)
def test_underflowing_probability(d, beta, log_f, log_m):
    capacity = theory.exact_capacity(d, 1.0, beta, 0.1)
    assert capacity.log_F == pytest.approx(log_f, rel=1e-14)
    assert capacity.log_M == pytest.approx(log_m, rel=1e-14)


def test_both_ways_to_the_cap_meet():
    # ln F is smooth in d, across where the series takes over
    log_f = np.array([theory.exact_capacity(d, 1.0, 100.0, 0.1).log_F for d in range(320, 400)])
    assert log_f[0] > math.log(1e-290) > log_f[-1]
    assert np.abs(np.diff(log_f, 3)).max() < 1e-7


def test_probability_of_a_cap():
    # The circle: alpha / pi, on either side of a right angle; the sphere: (1 - cos alpha) / 2
    for beta in (1e6, 10.0, 0.6, 0.51):
        alpha = 2 * math.asin(math.sqrt(2 / beta) / 2)
        assert theory.exact_capacity(2, 1.0, beta, 0.1).F == pytest.approx(alpha / math.pi)
        assert theory.exact_capacity(3, 1.0, beta, 0.1).F == pytest.approx((1 - math.cos(alpha)) / 2)


def test_too_far_apart_for_the_sphere():
    for arguments in ((8, 1.0, 0.4, 0.1), (8, 1.0, 100.0, 0.1, 1.5)):
        capacity = theory.exact_capacity(*arguments)
        assert capacity.D > 2
        assert (capacity.M, capacity.log_M, capacity.F) == (1, 0, 1)
    assert theory.exact_capacity(8, 1.0, 0.5000001, 0.1).M == pytest.approx(1.1, abs=0.1)
    with pytest.warns(UserWarning, match=r"^radius: 1.5 exceeds the sphere's 1"):
        assert theory.capacity_bound(8, 1.0, 100.0, 0.1, 1.5).is_empty


@given(SEEDS)
def test_capacities_keep_their_order(seed):
    rng = np.random.default_rng(seed)
    d, beta, p = int(rng.integers(2, 80)), 10 ** rng.uniform(-1, 5), rng.uniform(1e-4, 1)
    exact = theory.exact_capacity(d, 1.0, beta, p)
    assert exact.log_M >= 0
    assert exact.log_weak_M <= exact.log_M + 1e-9
    better = math.log(2 * math.sqrt(p)) + (d - 1) / 4 * math.log(beta / 2)  # F <= (D / m)^(d - 1) / 2
    assert better <= max(exact.log_M, math.log(2)) + 1e-9  # below 2 it says nothing
    assert exact.log_F <= (d - 1) * math.log(exact.D) - math.log(2) + 1e-9 or exact.D > 2
    # The Lambert bound counts less, as ln(2 M m / (R + delta)) > 1 asks for a margin of more than 1 / beta.
    bound = theory.capacity_bound(d, 1.0, beta, p, 10 ** rng.uniform(-6, -1))
    assert bound.is_empty or bound.log_M <= exact.log_M + 1e-9


@pytest.mark.parametrize(("d", "beta", "p", "radius"), [(8, 20.0, 0.1, 0.0), (6, 60.0, 0.5, 0.02)])
def test_capacity_in_simulation(d, beta, p, radius, rng):
    m, draws = math.floor(theory.exact_capacity(d, 1.0, beta, p, radius).M), 300
    assert m > 20
    stored = sum(theory.exact_radius(on_sphere(rng, m, d), beta).min() >= radius for _ in range(draws)) / draws
    error = math.sqrt(p * (1 - p) / draws)
    assert 1 - p - 3 * error <= stored <= 1 - 0.6 * p + 3 * error  # valid, and nearly tight


# --- arguments ------------------------------------------------------------------------------------


def test_leading_axes(rng):
    patterns, queries = rng.normal(size=(6, 3)), rng.normal(size=(2, 4, 3))
    index, beta = np.array([0, 5, -1, 2]), np.array([[0.5], [3.0]])
    calls = [lambda q, i, b: theory.margin_at(q, patterns, i), lambda q, i, b: theory.energy_as_printed(q, patterns, b)]
    calls += [lambda q, i, b, rule=rule: theory.retrieval_bound(q, patterns, i, b, rule=rule) for rule in theory.BOUNDS]
    calls += [
        lambda q, i, b, rule=rule: theory.well_separated(q, patterns, i, b, rule=rule) for rule in theory.CONDITIONS
    ]
    calls += [lambda q, i, b: theory.retrieval_error(q, patterns, i, b)]
    for call in calls:
        together = call(queries, index, beta)
        assert together.shape == (2, 4)
        for i, j in np.ndindex(2, 4):
            alone = call(queries[i, j], index[j], beta[i, 0])
            assert alone.shape == ()
            assert alone == pytest.approx(together[i, j], rel=1e-13)
        assert call(queries[:0], index, 1.0).shape == (0, 4)


def test_every_kind_of_number(rng):
    patterns = rng.integers(-3, 4, size=(5, 3))
    for dtype in (np.int8, np.float16, np.float32):
        np.testing.assert_array_equal(theory.margin(patterns.astype(dtype)), theory.margin(patterns.astype(float)))
        assert theory.exact_radius(patterns.astype(dtype)).dtype == np.float64
    # float32 is widened before it is computed with
    narrow = rng.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(theory.margin(narrow), theory.margin(narrow.astype(np.float64)))
    error = theory.retrieval_error(narrow, narrow, range(5), 2.0)
    np.testing.assert_array_equal(error, theory.retrieval_error(narrow.astype(np.float64), narrow, range(5), 2.0))


def test_overflow_is_no_nan():
    with np.errstate(all="raise", under="ignore"):
        assert theory.retrieval_bound([-1e150], [[1e150], [-1e150]], 0, 1e300, rule="exponential") == 2e150
        assert theory.retrieval_bound([1e150], [[1e150], [-1e150]], 0, 1e300, rule="sharp") == 0
        assert theory.critical_beta([[5e-324], [-1.0]])[0] == np.inf
        assert theory.exact_radius([[1.0], [-1.0]], 5e-324).tolist() == [-np.inf, -np.inf]
    assert theory.contraction([[1.0], [2.0]], 1e300) == pytest.approx(5e299)


GOOD = ([[0.5, 0.5]], np.eye(2), 0, 1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: theory.margin([1.0, 2.0]), ValueError, "patterns: must be two-dimensional"),
        (lambda: theory.margin(np.empty((0, 2))), ValueError, "patterns: needs at least one row"),
        (lambda: theory.margin([["a"]]), TypeError, "patterns: must be real numbers"),
        (lambda: theory.margin([[1.0], [np.nan]]), ValueError, "patterns: row 1 contains NaN"),
        (lambda: theory.margin([[1e160]]), OverflowError, "patterns: the squared length of row 0"),
        (lambda: theory.margin([[1.0], [-1.3e154]]), OverflowError, "patterns: the squared length of row 1"),
        (lambda: theory.margin([[1.0], [0.0]], similarity="cosine"), ValueError, "patterns: row 1 has length 0"),
        (lambda: theory.margin([[1.0]], similarity="euclidian"), ValueError, "similarity: .*'euclidean'"),
        (lambda: theory.margin_at([1.0, np.inf], np.eye(2), 0), ValueError, "queries: row 0 contains"),
        (lambda: theory.margin_at([1.0], np.eye(2), 0), ValueError, "queries: the last axis"),
        (lambda: theory.margin_at(np.eye(2), np.eye(2), 2), IndexError, "index: 2 is out of range for 2"),
        (lambda: theory.margin_at(np.eye(2), np.eye(2), -3), IndexError, "index: -3 is out of range"),
        (lambda: theory.margin_at(np.eye(2), np.eye(2), 0.0), TypeError, "index: must be whole numbers"),
        (lambda: theory.margin_at(np.eye(2), np.eye(2), [0, 1, 0]), ValueError, "index: shape"),
        (lambda: theory.is_certified(np.eye(2), 0.0), ValueError, "beta: must be positive"),
        (lambda: theory.exact_radius(np.eye(2), np.inf), ValueError, "beta: must be positive"),
        (lambda: theory.is_fixed_point(np.eye(2), [1.0, 2.0]), ValueError, "beta: shape"),
        (lambda: theory.contraction([[1e153]] * 999 + [[-1e153]] * 999), OverflowError, "patterns: their scatter"),
        (lambda: theory.energy_offset(np.eye(2), 5e-324), OverflowError, "beta:"),
        (lambda: theory.energy_offset(np.eye(2), separation=sh.Polynomial()), ValueError, "separation: Polynomial"),
        (lambda: theory.energy_as_printed([1.0], [[1.0]], separation=sh.Polynomial()), ValueError, "separation:"),
        (lambda: theory.energy_as_printed([1e150], [[1e150]], 1e300), OverflowError, "beta: the"),
        (lambda: theory.retrieval_error([1.0], [[1.0]], 0, separation="hard"), ValueError, "separation: unknown"),
        (lambda: theory.retrieval_bound(*GOOD, rule="exp"), ValueError, "rule: .*'exponential'"),
        (lambda: theory.well_separated(*GOOD, rule="theorem 3.2"), ValueError, "rule: .*'theorem 3.1'"),
        (lambda: theory.well_separated(*GOOD, rule="ball", radius=-1), ValueError, "radius: "),
        (lambda: theory.required_margin(*GOOD, rule="equation 3.3"), ValueError, "rule: .*'theorem 3.1'"),
        (lambda: theory.required_margin(*GOOD, radius=np.nan), ValueError, "radius: "),
        (lambda: theory.dense_error_floor([1.0], np.eye(2), 0), ValueError, "queries: the last axis"),
        (lambda: theory.contraction(np.eye(2), separation=sh.Normmax()), ValueError, "separation: .*'softmax'"),
        (lambda: theory.contraction(np.eye(2), separation=sh.Entmax(2.5)), ValueError, "separation: .*at most 2"),
        (lambda: theory.majorises([1.0], [0.5, 0.5]), ValueError, "q: must have as many"),
        (lambda: theory.majorises(1.0, [1.0]), ValueError, "p: must have at least one"),
        (lambda: theory.majorises([np.nan], [1.0]), ValueError, "p: contains NaN"),
        (lambda: theory.majorises(np.eye(2), np.ones((3, 2))), ValueError, "q: shape"),
        (lambda: theory.capacity_bound(1, 1, 1, 0.1, 0.1), ValueError, "d: must be at least 2"),
        (lambda: theory.capacity_bound(2.5, 1, 1, 0.1, 0.1), TypeError, "d: must be a whole number"),
        (lambda: theory.capacity_bound(8, 0, 1, 0.1, 0.1), ValueError, "m: must be positive"),
        (lambda: theory.capacity_bound(8, 1, 0, 0.1, 0.1), ValueError, "beta: must be positive"),
        (lambda: theory.capacity_bound(8, 1, 1, 0.1, -0.1), ValueError, "radius: "),
        (lambda: theory.capacity_bound(8, 1, 1, 0.1, 0.1, -0.1), ValueError, r"delta: radius \+ delta must be"),
        (lambda: theory.capacity_bound(8, 1, 1, 0.1, 0.0), ValueError, r"delta: radius \+ delta must be"),
        (lambda: theory.capacity_bound(8, 1, 1, 0.1, 0.1, np.nan), ValueError, "delta: "),
        (lambda: theory.capacity_bound(8, 1, 10, 0.1, 0.1, strict=False), ValueError, "strict: .*2 beta m radius"),
        (lambda: theory.exact_capacity(1, 1, 1, 0.1), ValueError, "d: must be at least 2"),
        (lambda: theory.exact_capacity(8, 1, 1, 0.1, np.inf), ValueError, "radius: "),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 1.5, np.nan, [0.1]])
def test_p_is_a_probability_of_failure(p):
    for call in (
        lambda: theory.capacity_bound(8, 1, 1, p, 0.1),
        lambda: theory.dense_capacity_bound(8, 1, 1, p),
        lambda: theory.exact_capacity(8, 1, 1, p),
    ):
        with pytest.raises((ValueError, TypeError), match=r"^p: must"):
            call()


# --- binary patterns --------------------------------------------------------------------------------

FLIPPED = {"sparsemax": 1.0, "entmax15": 2.0}


@given(SEEDS, st.sampled_from([*FLIPPED]))
def test_exact_flips_are_exact(seed, separation):
    rng = np.random.default_rng(seed)
    m, d, size = int(rng.integers(2, 7)), int(rng.integers(2, 9)), float(rng.choice([1.0, 0.25, 3.0]))
    patterns = size * rng.choice([-1.0, 1.0], (m, d))
    beta = float(10 ** rng.uniform(-1, 2)) / size**2
    masks = 1 - 2 * ((np.arange(2**d)[:, None] >> np.arange(d)) & 1)
    counts = (masks < 0).sum(axis=1)
    for mu, flips in enumerate(theory.exact_flips(patterns, beta, separation=separation)):
        if ((patterns == patterns[mu]).all(axis=1)).sum() > 1:
            assert flips == -1
            continue
        states = reference.update(masks * patterns[mu], patterns, beta, separation=separation)
        exact = np.abs(states - patterns[mu]).max(axis=1) <= 1e-9 * size
        assert exact[counts <= flips].all()
        assert not exact[counts == flips + 1].all()
        # twice the flips of the ball, but for rounding down
        radius = theory.exact_radius(patterns, beta / FLIPPED[separation])[mu]
        assert radius < 0 or np.floor((radius / size) ** 2 / 4 + 1e-9) <= flips


def test_exact_flips_at_the_edge():
    pair = [[1.0] * 8, [1.0] * 4 + [-1.0] * 4]  # margin 8
    assert theory.exact_flips(pair, 1 / 8).tolist() == [0, 0]
    assert theory.exact_flips(pair, 1 / 8 * (1 - 1e-9)).tolist() == [-1, -1]
    assert theory.exact_flips(pair, 1 / 4).tolist() == [1, 1]
    assert theory.exact_flips([[1.0, -1.0, 1.0]], 1e-300).tolist() == [3]
    assert theory.exact_flips([[1, 1], [1, 1]], 1e9).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("flips", "beta", "separation"), [(0, 0.1, "sparsemax"), (3, 0.5, "entmax15"), (5, 9.0, "sparsemax")]
)
def test_exact_recall_in_simulation(flips, beta, separation, rng):
    d, count, draws = 20, 12, 4000
    others = rng.choice([-1.0, 1.0], (draws, count - 1, d))
    own = rng.choice([-1.0, 1.0], (draws, d))
    x = own.copy()
    x[:, :flips] *= -1
    lead = (x * own).sum(axis=1) - np.einsum("nd,nmd->nm", x, others).max(axis=1)
    found = np.mean(lead >= FLIPPED[separation] / beta)
    expected = theory.exact_recall(d, count, flips, beta, separation=separation)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / draws))
    assert 0.02 < expected < 0.98


def test_exact_recall_of_any_kind():
    assert theory.exact_recall(9, 1, [0, 9], 1e-300).tolist() == [1, 1]
    recall = theory.exact_recall(64, 1000, np.arange(65), 1.0)
    assert (np.diff(recall) <= 0).all()
    assert recall[0] > 0.999
    assert recall[-1] == 0
    assert theory.exact_recall(8, 3, 2, 1e-3) == 0  # no lead is that large
    # P(B >= 1)^2 = (3/4)^2 of two bits
    assert theory.exact_recall(2, 3, 0, 1.0) == pytest.approx(9 / 16)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: theory.exact_flips([[1.0, 2.0]]), ValueError, "patterns: all entries must be c or -c"),
        (lambda: theory.exact_flips([[0.0, 0.0]]), ValueError, "patterns: all entries must be c or -c"),
        (lambda: theory.exact_flips([[1.0]], separation="softmax"), ValueError, "separation: must give all weight"),
        (lambda: theory.exact_recall(0, 1, 0), ValueError, "d: must be at least 1"),
        (lambda: theory.exact_recall(4, 0, 0), ValueError, "n_patterns: must be at least 1"),
        (lambda: theory.exact_recall(4, 2, 5), ValueError, "flips: must be from 0 to d = 4"),
        (lambda: theory.exact_recall(4, 2, 1.5), TypeError, "flips: must be whole numbers"),
        (lambda: theory.exact_recall(4, 2, 1, 0.0), ValueError, "beta: must be positive"),
    ],
)
def test_errors_of_binary_patterns_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- supports of random scores ----------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15"])
@pytest.mark.parametrize(
    ("count", "spread", "lead"),
    [(2, 0.5, 0.5), (10, 10.0, None), (100, 1.0, 3.5), (100, 3.0, None), (1000, 0.1, None), (1000, 0.01, 0.5)],
)
def test_expected_support_in_simulation(separation, count, spread, lead, rng):
    draws = max(100, min(3000, 100_000 // count))
    scores = spread * rng.standard_normal((draws, count))
    if lead is not None:
        scores[:, 0] = lead
    weights = sh.sparsemax(scores) if separation == "sparsemax" else sh.entmax(scores, 1.5)
    sizes = np.count_nonzero(weights, axis=1)
    found = theory.expected_support(count, spread, lead, separation=separation)
    assert found == pytest.approx(sizes.mean(), abs=4 * sizes.std() / draws**0.5 + 0.01 * sizes.mean())


def test_expected_support_at_its_ends():
    assert theory.expected_support(1, 2.0) == 1
    assert theory.expected_support(1, 2.0, 5.0) == 1
    assert theory.expected_support(50, 1e-6) == pytest.approx(50, rel=1e-3)
    assert theory.expected_support(50, 1e-6, 3.0) == pytest.approx(1, rel=1e-3)
    assert theory.expected_support(50, 1e4) == pytest.approx(1, rel=1e-2)
    # two scores are both in the support iff they differ by less than 1 (sparsemax) or 2 (1.5-entmax)
    for separation, apart in (("sparsemax", 1), ("entmax15", 2)):
        both = 2 * special.ndtr(apart / (0.7 * math.sqrt(2))) - 1
        assert theory.expected_support(2, 0.7, separation=separation) == pytest.approx(1 + both, rel=1e-3)
    for bad in ({"spread": 0.0}, {"spread": np.inf}, {"separation": "softmax"}, {"separation": sh.Entmax(1.7)}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}: "):
            theory.expected_support(**{"n_patterns": 3, "spread": 1.0} | bad)
