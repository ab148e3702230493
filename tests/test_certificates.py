"""Certificates: whatever is certified happens, to the bit, in float32 and float64; little is missed."""

import numpy as np
import pytest
from helpers import FLOATS, SIMILARITIES, WINDOW_MAPS, alpha_of, families, name_of, same_bits

import sparsehopfield as sh
from sparsehopfield import datasets, theory
from sparsehopfield.certificates import Certificates


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def stored_rows(memory):
    """The patterns as a step returns them: the unit rows for cosine."""
    return Certificates(memory._state.stored).rows(slice(0, len(memory)))


def usable(patterns, similarity):
    """Leave out the rows that have no cosine."""
    lengths = np.linalg.norm(patterns.astype(float), axis=1)
    if similarity == "cosine" and (lengths < 1e-35).all():
        pytest.skip("cosine: 1 / |xi| overflows")
    return patterns[lengths > 0] if similarity == "cosine" else patterns


def results(memory, queries):
    """What a step makes of queries in their own dtype and, where that is wider, in float64; as stored dtypes."""
    asked = {queries.dtype, np.dtype(np.float64)}
    return [memory.update(queries.astype(dtype)).astype(memory.dtype) for dtype in asked]


# --- patterns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("family", families())
def test_certified_patterns_stay(family, dtype, similarity):
    memory = sh.HopfieldMemory(usable(families(dtype)[family][1], similarity), similarity=similarity)
    rows = stored_rows(memory)
    for separation in ("sparsemax", "entmax15", sh.Entmax(1.25), sh.Entmax(3.0)):
        memory.separation = separation
        critical = memory.critical_beta()
        some = np.unique(critical[(critical > 0) & (critical < np.inf)])
        for beta in [1e-3, 1.0, 1e3, *some[:3], *some[-3:]]:
            memory.beta = beta
            certified = memory.is_certified()
            np.testing.assert_array_equal(certified, critical <= beta)
            assert memory.is_fixed_point()[certified].all()
            for states in results(memory, rows):
                assert same_bits(states[certified], rows[certified])


@pytest.mark.parametrize("separation", WINDOW_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_critical_beta_is_that_of_the_theory(similarity, separation, rng):
    patterns = rng.standard_normal((300, 20))
    memory = sh.HopfieldMemory(patterns, similarity=similarity, separation=separation)
    want = theory.critical_beta(patterns, similarity=similarity) / (alpha_of(separation) - 1)
    got = memory.critical_beta()
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    np.testing.assert_allclose(got, want, rtol=1e-11)
    assert (got >= want).all()
    some = np.isfinite(want)
    beta = float(np.median(want[some]))
    sure = some & (np.abs(want / beta - 1) > 1e-9)
    np.testing.assert_array_equal(memory.is_certified(beta)[sure], (want <= beta)[sure])
    below = memory.is_fixed_point(beta * (1 - 1e-6))  # patterns of a Gaussian are extreme points: no others are fixed
    np.testing.assert_array_equal(below[sure], (want < beta)[sure])


def test_patterns_that_stay_without_a_certificate():
    interior = sh.HopfieldMemory(np.array([[-1.0], [0.0], [1.0]]), beta=0.5)
    np.testing.assert_array_equal(interior.is_fixed_point(), [False, True, False])
    np.testing.assert_array_equal(interior.critical_beta() < np.inf, [True, False, True])
    copies = sh.HopfieldMemory(np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]]))
    np.testing.assert_array_equal(copies.is_fixed_point(1.26), [True, True, False])
    np.testing.assert_array_equal(copies.is_fixed_point(1.24), [False, False, False])
    np.testing.assert_array_equal(copies.is_certified(1.26), [False, False, False])
    np.testing.assert_array_equal(copies.is_certified(1e9), [False, False, True])


def test_unequal_lengths():
    patterns = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]])
    dot, nearest = (sh.HopfieldMemory(patterns, similarity=s) for s in ("dot", "euclidean"))
    np.testing.assert_array_equal(dot.is_certified(1e300), [True, False, True])
    np.testing.assert_array_equal(nearest.is_certified(1.0 + 1e-9), [True, True, True])
    assert dot.suggest_beta(0.5) == pytest.approx(1.0, rel=1e-12)
    with pytest.raises(ValueError, match=r"^stored: .* the most is 0\.666667, from beta = 1 on.*euclidean"):
        dot.suggest_beta()
    assert nearest.suggest_beta() == pytest.approx(1.0, rel=1e-12)


def test_one_pattern_is_always_stored():
    memory = sh.HopfieldMemory(np.array([[1.0, 2.0]], np.float32))
    np.testing.assert_array_equal(memory.critical_beta(), [0])
    for beta in (5e-324, 1.0, 1e308):
        assert memory.is_certified(beta).all()
        assert memory.is_fixed_point(beta).all()
    assert memory.suggest_beta() == np.finfo(float).tiny
    assert memory.stored_fraction(1e-300) == 1


def test_patterns_all_the_same_store_none():
    memory = sh.HopfieldMemory(np.ones((4, 3), np.float32))
    assert not memory.is_certified(1e300).any()
    assert memory.is_fixed_point().all()
    with pytest.raises(ValueError, match=r"^stored: no beta certifies 0\.5 .* none can be"):
        memory.suggest_beta(0.5)


def test_fractions_and_the_beta_for_them(rng):
    memory = sh.HopfieldMemory(rng.standard_normal((200, 16)), similarity="euclidean")
    critical = np.sort(memory.critical_beta())
    betas = np.array([[critical[0], critical[49]], [np.nextafter(critical[49], 0), critical[-1]]])
    np.testing.assert_array_equal(memory.stored_fraction(betas), [[1 / 200, 50 / 200], [49 / 200, 1]])
    for share in (1e-9, 0.005, 0.29, 0.3, 0.995, 1.0):  # also such as 0.29 * 200, which rounds to above 58
        beta = memory.suggest_beta(share)
        assert memory.stored_fraction(beta) >= share > memory.stored_fraction(np.nextafter(beta, 0)) - 1e-9
        assert np.count_nonzero(memory.is_certified(beta)) == max(1, round(share * 200))
    assert memory.stored_fraction().shape == (9,)
    assert (np.diff(memory.stored_fraction()) >= 0).all()


def test_kept_until_patterns_change(rng):
    patterns = rng.standard_normal((40, 8)).astype(np.float32)
    memory = sh.HopfieldMemory(patterns)
    first = memory.margin()
    state = memory._state.certificates
    memory.critical_beta()
    memory.beta, memory.separation = 3.0, "entmax15"
    assert memory._state.certificates is state
    first[:] = 0  # the caller's own
    assert same_bits(memory.margin(), sh.HopfieldMemory(patterns).margin())
    memory.add(patterns[:5])
    fresh = sh.HopfieldMemory(np.concatenate([patterns, patterns[:5]]), separation="entmax15")
    assert same_bits(memory.critical_beta(), fresh.critical_beta())
    assert not memory.is_certified(1e9)[:5].any()
    memory.remove(slice(40, None))
    fresh = sh.HopfieldMemory(patterns, separation="entmax15")
    assert same_bits(memory.critical_beta(), fresh.critical_beta())


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kind", ["uint8", "float16", "values"])
def test_narrow_patterns_and_values(kind, similarity, rng):
    numbers = rng.integers(1, 256, size=(60, 30))
    if kind == "values":
        memory = sh.HopfieldMemory(numbers / 7, values=rng.standard_normal((60, 2)), similarity=similarity)
        wide = sh.HopfieldMemory(numbers / 7, similarity=similarity)
    else:
        narrow = numbers.astype(kind)
        memory = sh.HopfieldMemory(narrow, scale=0.1, similarity=similarity)
        wide = sh.HopfieldMemory(narrow.astype(np.float32) * np.float32(0.1), similarity=similarity)
    np.testing.assert_allclose(memory.critical_beta(), wide.critical_beta(), rtol=1e-9)
    beta = float(np.median(wide.critical_beta()))
    if np.isfinite(beta):
        np.testing.assert_array_equal(memory.is_fixed_point(beta), wide.is_fixed_point(beta))
    assert same_bits(stored_rows(memory), stored_rows(wide))


# --- what cannot be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["softmax", sh.Entmax(1.0), sh.Polynomial(3)], ids=name_of)
@pytest.mark.parametrize("name", ["critical_beta", "is_certified", "is_fixed_point", "stored_fraction", "suggest_beta"])
def test_maps_of_full_support_store_nothing(name, separation):
    memory = sh.HopfieldMemory(np.eye(3), separation=separation)
    with pytest.raises(ValueError, match=r"^separation: .* store none exactly"):
        getattr(memory, name)()


def test_wrong_arguments(rng):
    memory = sh.HopfieldMemory(np.eye(3))
    for beta in (0, -1.0, np.nan, np.inf):
        for name in ("is_certified", "is_fixed_point"):
            with pytest.raises(ValueError, match=r"^beta: must be"):
                getattr(memory, name)(beta)
        with pytest.raises(ValueError, match=r"^betas: must be"):
            memory.stored_fraction([1.0, beta])
    with pytest.raises(TypeError, match=r"^beta: must be a number"):
        memory.is_certified([1.0, 2.0])
    for share in (0, 1.1, -0.5, np.nan):
        with pytest.raises(ValueError, match=r"^stored: must be"):
            memory.suggest_beta(share)
    memory.beta = np.ones(5)
    with pytest.raises(TypeError, match=r"^beta: must be a number"):
        memory.is_certified()


# --- real images ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(data_folder):
    try:
        return datasets.load("mnist", data_folder).pixels(slice(8000))
    except FileNotFoundError as absent:
        pytest.skip(f"real data: {absent}")


def test_how_many_raw_digits_are_stored(images):
    memory = sh.HopfieldMemory(images)
    assert memory.stored_fraction(1.0) == pytest.approx(0.16, abs=0.01)
    memory = sh.HopfieldMemory(images, similarity="euclidean")
    assert memory.stored_fraction(1.0) == pytest.approx(0.995, abs=0.002)
