"""Certificates: whatever is certified happens, to the bit, in float32 and float64; little is missed."""

import helpers
import numpy as np
import pytest
from helpers import CUTOFF_MAPS, FLOATS, SIMILARITIES, cutoff, families, name_of, same_bits

import sparsehopfield as sh
from sparsehopfield import _core, theory
from sparsehopfield.data import datasets
from sparsehopfield.inspect.certificates import Certificates


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def stored_rows(memory):
    """The patterns as a step returns them: the unit rows for cosine."""
    return Certificates(memory._snapshot.pattern_set).rows()


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


@pytest.mark.covering(1)
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


@pytest.mark.parametrize("separation", CUTOFF_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_critical_beta_is_that_of_the_theory(similarity, separation, rng):
    patterns = rng.standard_normal((300, 20))
    memory = sh.HopfieldMemory(patterns, similarity=similarity, separation=separation)
    want = theory.critical_beta(patterns, similarity=similarity) * cutoff(separation)
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
        last = critical[max(1, round(share * 200)) - 1]  # patterns that are each other's nearest share theirs
        assert np.count_nonzero(memory.is_certified(beta)) == np.count_nonzero(critical <= last)
    assert memory.stored_fraction().shape == (9,)
    assert (np.diff(memory.stored_fraction()) >= 0).all()


def test_kept_until_patterns_change(rng):
    patterns = rng.standard_normal((40, 8)).astype(np.float32)
    memory = sh.HopfieldMemory(patterns)
    first = memory.margin()
    state = memory._snapshot.certificates
    memory.critical_beta()
    memory.beta, memory.separation = 3.0, "entmax15"
    assert memory._snapshot.certificates is state
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
        np.testing.assert_allclose(memory.exact_radius(beta), wide.exact_radius(beta), rtol=1e-12)
        assert (memory.exact_radius(beta * 1.1) >= 0).any()
    assert same_bits(stored_rows(memory), stored_rows(wide))


# --- queries ------------------------------------------------------------------------------------------


def around(memory, queries, n, rng):
    """Queries at all distances: a family's own, patterns with noise, and mixtures of two patterns."""
    rows = stored_rows(memory)
    noise = rng.standard_normal((n, rows.shape[1])) * rng.choice([1e-6, 1e-3, 0.1, 1.0], size=(n, 1))
    near = rows[rng.integers(len(rows), size=n)] * (1 + noise)
    one, two = rows[rng.integers(len(rows), size=(2, n))].astype(float)
    share = rng.random((n, 1))
    with np.errstate(over="ignore"):
        made = [q.astype(memory.dtype) for q in (queries, near, share * one + (1 - share) * two)]
    made = np.concatenate(made)
    return made[np.isfinite(made).all(axis=1)]


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("family", families())
def test_certified_queries_go_there(family, dtype, similarity, rng):
    queries, patterns = families(dtype)[family]
    memory = sh.HopfieldMemory(usable(patterns, similarity), similarity=similarity)
    rows, x = stored_rows(memory), around(memory, queries, 150, rng)
    gaps = memory.certify(x).gap
    for separation in ("sparsemax", "entmax15", sh.Entmax(1.25), sh.Entmax(3.0)):
        memory.separation = separation
        some = gaps[(gaps > 0) & (gaps < np.inf)]
        for need in np.quantile(some, [0.1, 0.5, 0.9]) if len(some) else [1.0]:
            memory.beta = cutoff(separation) / float(np.clip(need, 1e-290, 1e290))
            found = memory.certify(x)
            certified = found.index >= 0
            for states in results(memory, x):
                assert same_bits(states[certified], rows[found.index[certified]])
            assert (found.nearest[certified] == found.index[certified]).all()
            np.testing.assert_array_equal(found.lacks > 0, ~certified)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_few_queries_are_missed(similarity, rng):
    patterns = rng.standard_normal((200, 12))
    memory = sh.HopfieldMemory(patterns, similarity=similarity)
    x = patterns[rng.integers(200, size=3000)] + 0.3 * rng.standard_normal((3000, 12))
    need = float(np.median(memory.certify(x).gap))
    memory.beta = 1 / need
    found = memory.certify(x)
    sizes = np.diff(memory.associate(x).indptr)
    assert 1400 < np.count_nonzero(found.index >= 0) < 1600
    np.testing.assert_array_equal(found.index >= 0, sizes == 1)  # a gap this close to 1/beta would be a rare accident
    np.testing.assert_allclose(found.gap[sizes > 1], need - found.lacks[sizes > 1], atol=1e-14)
    scores = sh.reference.canonical_scores(x, patterns, similarity)
    np.testing.assert_array_equal(found.nearest, scores.argmax(axis=1))
    best = np.sort(scores, axis=1)[:, -2:]
    np.testing.assert_allclose(found.gap, best[:, 1] - best[:, 0], atol=1e-11)


def test_shapes_and_betas_of_queries(rng):
    patterns = rng.standard_normal((30, 6)).astype(np.float32)
    memory = sh.HopfieldMemory(patterns, values=rng.standard_normal((30, 2)).astype(np.float32))
    x = rng.standard_normal((4, 5, 6)).astype(np.float32)
    betas = 10.0 ** rng.integers(-3, 4, size=(4, 5))
    found = memory.certify(x, betas)
    for i, j in np.ndindex(4, 5):
        one = memory.certify(x[i, j], betas[i, j])
        assert one.index == found.index[i, j]
        assert one.index.shape == ()
        if one.index >= 0:
            state = sh.HopfieldMemory(patterns, betas[i, j], values=memory.values).update(x[i, j])
            assert same_bits(state, memory.values[one.index])
    assert (found.index >= 0).any()
    assert memory.certify(x[:0]).index.shape == (0, 5)
    with pytest.raises(ValueError, match=r"^queries: "):
        memory.certify(x[..., :5])
    with pytest.raises(ValueError, match=r"^beta: "):
        memory.certify(x, 0)
    one = sh.HopfieldMemory(patterns[:1], 1e-300).certify(x)
    assert (one.index == 0).all()
    assert (one.gap == np.inf).all()
    assert not one.lacks.any()


def test_ties_are_not_certified():
    memory = sh.HopfieldMemory(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 1e12)
    found = memory.certify([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(found.index, [-1, -1, -1, 2])
    np.testing.assert_array_equal(found.nearest, [0, 0, 0, 2])


@pytest.mark.parametrize("path", ["scan", "lines", "columns"])
@pytest.mark.parametrize("m", [1, 3, 3000])
def test_the_best_scores_by_every_path(path, m, rng):
    patterns = rng.standard_normal((m, 40)).astype(np.float32)
    memory = sh.HopfieldMemory(patterns, similarity="euclidean")
    x = rng.standard_normal((50, 40)).astype(np.float32)
    core = memory._snapshot.pattern_set.core(memory.dtype)
    scores = sh.reference.canonical_scores(x, patterns, "euclidean")
    for count in (1, 2, 7, 32):
        with helpers.path(path):
            position, score = _core.nearest(core, x, np.ones(1), 0, 2.0, count)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        have = order.shape[1]
        np.testing.assert_array_equal(position[:, :have], order)
        np.testing.assert_array_equal(score[:, :have], np.take_along_axis(scores, order, axis=1))
        assert (position[:, have:] == -1).all()
        assert (score[:, have:] == -np.inf).all()
    for count in (0, 33):
        with pytest.raises(ValueError, match=r"^count: must be from 1 to 32"):
            _core.nearest(core, x, np.ones(1), 0, 2.0, count)


def test_without_memory(rng):
    memory = sh.HopfieldMemory(rng.standard_normal((50, 6)))
    x = rng.standard_normal((20, 6))
    memory.certify(x)
    assert helpers.fails_without_memory(lambda: memory.certify(x))


# --- balls --------------------------------------------------------------------------------------------


def on_spheres(rows, index, radius, n, rng):
    """Of each pattern n directions, most of them towards others, at the radius (N,): float64, and of which pattern."""
    mu = np.repeat(index, n)
    nu = rng.integers(len(rows), size=len(mu))
    away = rows[nu].astype(float) - rows[mu]
    away += (rng.random((len(mu), 1)) < 0.3) * rng.standard_normal(away.shape)
    length = np.linalg.norm(away, axis=1, keepdims=True)
    away /= np.where(length > 0, length, 1)
    return rows[mu] + radius[mu, None] * away, mu


@pytest.mark.covering(2)
@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Entmax(3.0)], ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("family", ["gaussian", "duplicates", "ties", "1000 +- 0.01", "rank 2", "bytes", "one feature"])
def test_balls_go_to_their_pattern(family, dtype, similarity, separation, rng):
    memory = sh.HopfieldMemory(
        usable(families(dtype)[family][1], similarity), similarity=similarity, separation=separation
    )
    rows, critical = stored_rows(memory), memory.critical_beta()
    finite = critical[critical < np.inf]
    for beta in (*np.quantile(finite, [0.3, 1.0]) * 1.01, finite.max() * 1000) if len(finite) else [1.0]:
        memory.beta = beta
        radius = memory.exact_radius()
        inside = np.flatnonzero(radius >= 0)
        assert memory.is_certified()[inside].all()
        x, mu = on_spheres(rows, inside, radius * (1 - 1e-9), 60, rng)
        x = x.astype(dtype)  # which may put it outside
        kept = np.linalg.norm(x.astype(float) - rows[mu], axis=1) <= radius[mu] * (1 - 1e-12)
        x, mu = x[kept], mu[kept]
        for states in results(memory, x):
            assert same_bits(states, rows[mu])


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_balls_are_the_largest(similarity, separation, rng):
    patterns = rng.standard_normal((1500, 10))  # more than a block
    memory = sh.HopfieldMemory(patterns, similarity=similarity, separation=separation)
    beta = memory.beta = memory.suggest_beta(0.3)
    rows, radius = stored_rows(memory), memory.exact_radius()
    want = theory.exact_radius(patterns, beta / cutoff(separation), similarity=similarity)
    inside = radius >= 0
    sure = np.abs(want) > 1e-9
    np.testing.assert_array_equal(inside[sure], (want > 0)[sure])
    np.testing.assert_allclose(radius[inside], want[inside], rtol=1e-9, atol=1e-10)
    assert (radius <= want)[inside].all()
    assert 440 < np.count_nonzero(inside) <= 450  # at the critical beta itself the rounding at a ball's edge decides
    some = np.flatnonzero(inside)[:200]
    away = rows[None] - rows[some, None]
    length = np.linalg.norm(away, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = np.take_along_axis(away / length[:, :, None], _worst(memory, rows, some, length)[:, None, None], axis=1)
    outside = rows[some] + 1.0001 * (radius[some, None] + 1e-6) * worst[:, 0]
    moved = memory.update(outside) != rows[some]
    assert moved.any(axis=1).all()


def _worst(memory, rows, some, length):
    bias = 0.0 if memory.similarity == "dot" else (rows**2).sum(axis=1) / 2
    scores = rows[some] @ rows.T - bias
    lead = np.take_along_axis(scores, some[:, None], axis=1) - scores
    need = 1 / memory.beta / (1 if memory.separation == "sparsemax" else 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(length > 0, (lead - need) / length, np.inf).argmin(axis=1)


def test_balls_of_few_patterns():
    one = sh.HopfieldMemory(np.array([[1.0, 2.0]], np.float32))
    for similarity in SIMILARITIES:
        one = sh.HopfieldMemory(np.array([[1.0, 2.0]], np.float32), similarity=similarity)
        np.testing.assert_array_equal(one.exact_radius(), [np.inf])
    two = np.array([[2.0, 0.0], [0.0, 2.0]])
    for similarity, distance in (("dot", 8**0.5), ("euclidean", 8**0.5), ("cosine", 2**0.5)):
        memory = sh.HopfieldMemory(two, 4.0, similarity=similarity)
        np.testing.assert_allclose(memory.exact_radius(), distance / 2 - 1 / (4 * distance), rtol=1e-12)
        np.testing.assert_array_equal(memory.exact_radius(1e-9), [-np.inf, -np.inf])
        np.testing.assert_allclose(memory.exact_radius(1e300), distance / 2, rtol=1e-12)
    copies = sh.HopfieldMemory(np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]]), 100.0)
    np.testing.assert_array_equal(copies.exact_radius() >= 0, [False, False, True])


# --- capacity -----------------------------------------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("m", "d"), [(50, 1500), (1500, 50), (1, 3), (3, 1)])
def test_spread(m, d, similarity, rng):
    patterns = rng.standard_normal((m, d)) * (1 + np.arange(d) % 7) + 3
    memory = sh.HopfieldMemory(patterns, 5.0, similarity=similarity)
    if m == 1 or (similarity == "cosine" and d == 1):
        with pytest.raises(ValueError, match=r"^patterns: are all the same"):
            memory.capacity()
        return
    rows = patterns / np.linalg.norm(patterns, axis=1, keepdims=True) if similarity == "cosine" else patterns
    eigenvalues = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2 / m
    got = memory.capacity(0.2)
    assert got.radius == pytest.approx(eigenvalues.sum() ** 0.5)
    assert got.dimension == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    want = theory.exact_capacity(max(2, round(got.dimension)), got.radius, 5.0, 0.2)
    assert (got.M, got.log_M) == (want.M, want.log_M)
    assert (got.stored, got.certified) == (m, np.count_nonzero(memory.is_certified()))


def test_capacity_of_a_sphere(rng):
    patterns = rng.standard_normal((4000, 6))
    patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    memory = sh.HopfieldMemory(patterns, 200.0)
    got = memory.capacity()
    assert got.dimension == pytest.approx(6, abs=0.02)
    assert got.radius == pytest.approx(1, abs=1e-3)
    half = sh.HopfieldMemory(patterns, 400.0, separation="entmax15").capacity()
    assert half.M == got.M
    assert str(half).startswith(f"{half.certified} of 4000 patterns are certified at beta 400;")
    few = patterns[: int(got.M)]
    draws = [sh.HopfieldMemory(_turned(few, rng), 200.0).is_certified().all() for _ in range(60)]
    assert np.mean(draws) > 0.75  # 0.9 of them, but for chance
    with pytest.raises(ValueError, match=r"^patterns: are all the same"):
        sh.HopfieldMemory(np.full((3, 6), 0.1)).capacity()
    for p in (0, 1, -1):
        with pytest.raises(ValueError, match=r"^p: "):
            memory.capacity(p)


def _turned(like, rng):
    patterns = rng.standard_normal(like.shape)
    return patterns / np.linalg.norm(patterns, axis=1, keepdims=True)


# --- reports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_report_says_what_the_methods_say(similarity, rng):
    patterns = np.concatenate([rng.standard_normal((60, 4)), np.ones((2, 4))]) + 1
    memory = sh.HopfieldMemory(patterns, 2.0, similarity=similarity, separation="entmax15")
    page = memory.report(3.0)
    np.testing.assert_array_equal(page.margins, memory.margin())
    np.testing.assert_array_equal(page.radii, memory.exact_radius(3.0))
    assert page.copies == page.exact_copies == 2
    assert "within rounding of another: 2, of which 2 are exact copies\n" in str(page)
    assert page.capacity == memory.capacity(beta=3.0)
    assert list(page.storage) == [*dict.fromkeys([similarity, "dot", "euclidean"])]
    text = str(page)
    for name, storage in page.storage.items():
        other = sh.HopfieldMemory(patterns, 3.0, similarity=name, separation="entmax15")
        certified = np.count_nonzero(other.is_certified())
        assert storage.certified == certified
        assert storage.possible == np.count_nonzero(other.critical_beta() < np.inf)
        assert storage.beta_for(0.1) == other.suggest_beta(0.1)
        assert f"{name}: {certified} of 62 patterns ({certified / 62:.1%}) are certified" in text
    for share in (0.0, 1.01, np.nan):
        with pytest.raises(ValueError, match="share: must be "):
            page.storage[similarity].beta_for(share)
    assert memory.report().beta == 2.0
    assert "at beta 3\n" in text
    assert max(map(len, text.splitlines())) < 130


@pytest.mark.parametrize("patterns", [np.ones((1, 2)), np.ones((3, 2)), np.eye(2), np.arange(8.0).reshape(2, 4)])
def test_reports_of_few_patterns(patterns):
    pytest.importorskip("matplotlib")
    page = sh.HopfieldMemory(patterns).report()
    assert "at beta 1\n" in str(page)
    assert len(page.figure().axes) == 3


def test_a_report_is_drawn(rng):
    pytest.importorskip("matplotlib")
    page = sh.HopfieldMemory(rng.standard_normal((300, 8)).astype(np.float32)).report()
    margin, radius, share = page.figure().axes
    assert sum(bar.get_height() for bar in margin.patches) == 300
    assert sum(bar.get_height() for bar in radius.patches) == page.storage["dot"].certified
    assert [line.get_label() for line in share.lines] == ["dot", "euclidean", "beta 1"]
    for line, storage in zip(share.lines, page.storage.values(), strict=False):
        assert line.get_ydata()[120] == storage.certified / 300


@pytest.mark.parametrize("ids", [None, np.arange(500, 440, -1)])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_report_names_the_hardest_pairs(similarity, ids, rng):
    patterns = rng.standard_normal((60, 12))
    patterns[[7, 11]] = patterns[30]  # three copies: rivals of one another
    memory = sh.HopfieldMemory(patterns, similarity=similarity, ids=ids)
    hard, margins = memory.report().hardest, memory.margin()
    scores = sh.reference.canonical_scores(stored_rows(memory), patterns, similarity)
    np.fill_diagonal(scores, -np.inf)
    np.testing.assert_array_equal(hard.margins, margins[hard.positions])
    np.testing.assert_allclose(scores[hard.positions, hard.rivals], scores.max(axis=1)[hard.positions], atol=1e-13)
    assert (np.diff(hard.margins) >= 0).all()
    pairs = {tuple(sorted(pair)) for pair in zip(hard.positions.tolist(), hard.rivals.tolist(), strict=True)}
    assert len(pairs) == len(hard.positions) == 8  # none twice
    others = np.setdiff1d(np.arange(60), hard.positions)
    rest = {tuple(sorted((int(i), int(scores[i].argmax())))) for i in others[margins[others] < hard.margins[-1] - 1e-9]}
    assert rest <= pairs  # whoever has a smaller margin is there, or is the rival of one that is
    np.testing.assert_array_equal(hard.patterns, patterns[hard.positions])
    np.testing.assert_array_equal(hard.rival_patterns, patterns[hard.rivals])
    names = [hard.positions, hard.rivals]
    if ids is not None:
        names = [hard.positions, ids[hard.positions], hard.rivals, ids[hard.rivals]]
    table = [line.split() for line in str(memory.report()).splitlines()]
    at = next(k for k, cells in enumerate(table) if cells[:2] == ["smallest", "margins:"])
    want = [[*map(str, who), f"{margin:.4g}"] for *who, margin in zip(*names, hard.margins, strict=True)]
    assert table[at + 1 : at + 5] == [*want[:3], []]


def test_the_hardest_pairs_are_drawn(rng):
    pytest.importorskip("matplotlib")
    patterns = rng.integers(0, 256, size=(40, 24)).astype(np.uint8)
    page = sh.HopfieldMemory(patterns, similarity="euclidean").report()
    figure = page.figure((4, 6))
    pictures = [axis for axis in figure.axes if axis.images]
    assert len(pictures) == 16
    rows = np.concatenate([page.hardest.patterns, page.hardest.rival_patterns])
    positions = np.concatenate([page.hardest.positions, page.hardest.rivals])
    for axis, row, position in zip(pictures, rows, positions, strict=True):
        drawn = np.ravel(axis.images[0].get_array())
        np.testing.assert_allclose(drawn * np.ptp(rows) + rows.min(), row, atol=1e-3)
        assert axis.get_xlabel() == str(position)
    assert len(page.figure().axes) == 3
    colours = sh.HopfieldMemory(patterns[:, :12]).report().figure([3, 2, 2])
    assert next(axis for axis in colours.axes if axis.images).images[0].get_array().shape == (2, 2, 3)
    assert len(sh.HopfieldMemory(patterns[:1]).report().figure((4, 6)).axes) == 3  # no pair
    for shape in ((5, 5), (24,), (2, 3, 4), (-4, -6), 24):
        with pytest.raises(ValueError, match=r"^shape: must be"):
            page.figure(shape)
    with pytest.raises(TypeError, match=r"^shape: must be"):
        page.figure((4.0, 6.0))


# --- what cannot be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["softmax", sh.Entmax(1.0), sh.Polynomial(3)], ids=name_of)
@pytest.mark.parametrize(
    "name", ["critical_beta", "is_certified", "is_fixed_point", "stored_fraction", "suggest_beta", "exact_radius"]
)
def test_maps_of_full_support_store_nothing(name, separation):
    memory = sh.HopfieldMemory(np.eye(3), separation=separation)
    with pytest.raises(ValueError, match=r"^separation: .* store none exactly"):
        getattr(memory, name)()


def test_wrong_arguments(rng):
    memory = sh.HopfieldMemory(np.eye(3))
    for beta in (0, -1.0, np.nan, np.inf):
        for name in ("is_certified", "is_fixed_point", "exact_radius"):
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
