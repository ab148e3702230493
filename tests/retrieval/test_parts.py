"""Patterns that are part of a whole: lists above a floor, and limits that go by the whole.

A list holds the patterns of the part's own support (of softmax those within reach) whose canonical scores are not below
a floor. The lists of all parts, joined and solved with the patterns that they name, give the bits of one memory.
"""

import itertools

import numpy as np
import pytest
from helpers import ROUNDOFF, SIMILARITIES, hook, name_of, path, quiet, same_bits, threads

import sparsehopfield as sh
from sparsehopfield import _core, reference
from sparsehopfield._engine.call import Call
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.separations import has_cutoff, row_of, separation_code
from sparsehopfield.structures import LinearFeatures, TopK, Window

PATHS = ["scan", "lines", "columns", "auto"]
MAPS = ["sparsemax", "entmax15", sh.Entmax(1.25), sh.Entmax(3.0), sh.Normmax(2.0), sh.Normmax(5.0)]
#: Stored types, with the dtype of the queries and the scale of the patterns.
TYPES = {
    "float32": (np.float32, np.float32, None),
    "float64": (np.float64, np.float64, None),
    "float32, float64 queries": (np.float32, np.float64, None),
    "uint8": (np.uint8, np.float32, 1 / 64),
    "float16": (np.float16, np.float32, 0.75),
}


def stored(patterns, similarity="dot", **options):
    """Return a pattern set."""
    return PatternSet(patterns, options.pop("values", None), similarity, copy=None, check_finite=True, **options)


def listed(patterns, queries, beta, separation, *, floor=None, most=0, structure=None):
    """Return the lists of one call, as a list of (position, score) for each query, and where there are too many."""
    call = Call.prepare(patterns, queries, beta, separation_code(separation), structure)
    start, position, score, too_many = call.core_executor("candidates").candidates(call.rows, floor, most)
    cuts = start[1:-1]
    return list(zip(np.split(position, cuts), np.split(score, cuts), strict=True)), too_many


def draw(kind, m=3000, d=24, n=7, seed=0):
    """Draw patterns with close relatives, queries near some of them and far from all, of a type of TYPES."""
    dtype, query_dtype, scale = TYPES[kind]
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((m, 5)) @ rng.standard_normal((5, d)) + 0.5 * rng.standard_normal((m, d))
    common[m // 2 : m // 2 + 3] = common[1]
    patterns = common.astype(dtype)
    if dtype == np.uint8:
        patterns = np.clip(40 * common + 128, 1, 255).astype(dtype)
    widened = patterns.astype(np.float32) * np.float32(scale) if scale else patterns
    queries = widened[rng.integers(m, size=n)] + 0.2 * rng.standard_normal((n, d))
    queries[-1] = 5 * rng.standard_normal(d)
    return queries.astype(query_dtype), patterns, widened.astype(np.float64), scale


def same_lists(got, want):
    return all(same_bits(g, w) for pair in zip(got, want, strict=True) for g, w in zip(*pair, strict=True))


def floors_of(scores, weights):
    """Give floors for each query: none, exact ties with scores of the support, just above one, and above all scores."""
    support = [np.sort(s[w > 0])[::-1] for s, w in zip(scores, weights, strict=True)]
    middle = np.array([s[len(s) // 2] for s in support])
    return {
        "none": None,
        "-inf": np.full(len(scores), -np.inf),
        "least": np.array([s[-1] for s in support]),
        "middle": middle,
        "above the middle": np.nextafter(middle, np.inf),
        "best": np.array([s[0] for s in support]),
        "above all": np.array([np.nextafter(s[0], np.inf) for s in support]),
        "far above": np.full(len(scores), 1e300),
        "far below": np.full(len(scores), -1e300),
    }


def check_by_reference(lists, scores, weights, floor):
    """Check lists by scores and weights (N, M) of plain NumPy: who has weight for certain, and who has none."""
    for i, (position, score) in enumerate(lists):
        allowed = scores[i] >= (-np.inf if floor is None else floor[i])
        certain = np.flatnonzero((weights[i] > 1e-7) & allowed)
        assert np.isin(certain, position).all()
        assert allowed[position].all()
        assert (weights[i][position] > 0).sum() >= len(position) - 1  # one may be as good as at the threshold
        assert (np.diff(position) > 0).all()
        np.testing.assert_array_equal(score, scores[i][position])


@pytest.mark.parametrize("separation", MAPS, ids=name_of)
@pytest.mark.parametrize("structure", [None, TopK(9), TopK(100)], ids=name_of)
def test_the_support_above_a_floor(separation, structure):
    queries, patterns, widened, _ = draw("float32")
    beta = np.linspace(0.2, 1.5, len(queries))
    scores = reference.canonical_scores(queries, patterns)
    weights = reference.associate(queries, widened, beta, separation=separation, structure=structure)
    memory = stored(patterns)
    all_of_them, _ = listed(memory, queries, beta, separation, structure=structure)
    weighed = sh.associate(queries, patterns, beta, separation=separation, structure=structure)
    assert same_bits(np.concatenate([p for p, _ in all_of_them]), weighed.indices.astype(np.int64))
    for (name, floor), where in zip(floors_of(scores, weights).items(), itertools.cycle(PATHS), strict=False):
        with path(where), threads(1 + len(name) % 3):
            lists, too_many = listed(memory, queries, beta, separation, floor=floor, structure=structure)
        assert not too_many.any()
        check_by_reference(lists, scores, weights, floor)
        if floor is not None:
            kept = [(p[s >= f], s[s >= f]) for (p, s), f in zip(all_of_them, floor, strict=True)]
            assert same_lists(lists, kept), name


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_every_type_and_similarity(kind, similarity, separation):
    queries, patterns, widened, scale = draw(kind)
    memory = stored(patterns, similarity, scale=scale)
    scores = reference.canonical_scores(queries, widened, similarity)
    beta = {"dot": 0.5, "euclidean": 0.3, "cosine": 2.0}[similarity] * np.linspace(1, 2, len(queries))
    dtype = np.dtype(np.float64 if np.float64 in (queries.dtype, patterns.dtype) else np.float32)
    if separation == "softmax":
        weights = within_reach(scores, beta, dtype, len(patterns))
    else:
        weights = reference.associate(queries, widened, beta, similarity=similarity)
    exact = kind != "float64"  # where products of features are exact in double
    with path("scan"):
        first = {}
        for name, floor in floors_of(scores, weights).items():
            first[name], too_many = listed(memory, queries, beta, separation, floor=floor, most=len(patterns))
            assert not too_many.any()
            if exact or name in ("none", "-inf", "far below", "far above"):
                check_by_reference(first[name], scores if exact else rounded(scores, first[name]), weights, floor)
    for where in PATHS:
        with path(where), threads(2):
            for name, floor in floors_of(scores, weights).items():
                got, _ = listed(memory, queries, beta, separation, floor=floor, most=len(patterns))
                assert same_lists(got, first[name]), (where, name)


def rounded(scores, lists):
    """Return scores with those of lists in their places, which are within the last bits of them."""
    scores = scores.copy()
    for row, (position, score) in zip(scores, lists, strict=True):
        np.testing.assert_allclose(score, row[position], rtol=1e-14, atol=1e-13)
        row[position] = score
    return scores


def within_reach(scores, beta, dtype, count):
    """Return 1 for the patterns within reach of softmax, and 0 for the others, (N, M)."""
    z = beta[:, None] * (scores - scores.max(axis=1, keepdims=True))
    reach = np.log(count / ROUNDOFF[dtype])
    assert (np.abs(z + reach) > 1e-9).all()  # none so near that roundings decide
    return (z >= -reach).astype(float)


@pytest.mark.parametrize("count", [3000, 10**7])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_softmax_within_reach(count, similarity):
    """By the whole's number of patterns; with too many, there is no list."""
    queries, patterns, _, _ = draw("float32")
    memory = stored(patterns, similarity)
    if count > len(patterns):
        memory = memory.as_part_of(count, 2 * memory.max_norm)
    scores = reference.canonical_scores(queries, patterns, similarity)
    beta = {"dot": 2.0, "euclidean": 1.0, "cosine": 16.0}[similarity] * np.linspace(0.3, 3, len(queries))
    reached = within_reach(scores, beta, patterns.dtype, count)
    numbers = np.sort(reached.sum(axis=1).astype(int))
    assert numbers[0] < 40 < numbers[-1]
    for name, floor in floors_of(scores, reached).items():
        above = np.ones_like(reached, bool) if floor is None else scores >= floor[:, None]
        kept = (reached > 0) & above
        sizes = kept.sum(axis=1)
        for most in {0, 1, int(np.median(sizes)), int(sizes.max()), 2**62}:
            for where in PATHS:
                with path(where), threads(1 + most % 3):
                    lists, too_many = listed(memory, queries, beta, "softmax", floor=floor, most=most)
                np.testing.assert_array_equal(too_many, sizes > most, err_msg=f"{name} {most} {where}")
                want = [np.flatnonzero(row & (sizes[i] <= most)) for i, row in enumerate(kept)]
                assert same_lists(lists, [(p, scores[i][p]) for i, p in enumerate(want)]), (name, most, where)


@pytest.mark.parametrize("separation", ["softmax", sh.Polynomial(4)], ids=name_of)
@pytest.mark.parametrize("k", [5, 90, 1500])
def test_the_k_best_above_a_floor(separation, k):
    """Of maps with full support, whatever their weights; ties by position."""
    rng = np.random.default_rng(2)
    patterns, queries = (rng.integers(-3, 4, (m, 4)).astype(np.float32) for m in (3000, 5))
    scores = (queries @ patterns.T).astype(np.float64)
    best = np.sort(np.argsort(-scores, axis=1, kind="stable")[:, :k], axis=1)
    memory = stored(patterns)
    for floor in (None, np.full(5, 3.0), scores.max(axis=1), scores.max(axis=1) + 1):
        for where in PATHS:
            with path(where), threads(2):
                lists, too_many = listed(memory, queries, 1.0, separation, floor=floor, structure=TopK(k))
            assert not too_many.any()
            for i, (position, score) in enumerate(lists):
                want = best[i] if floor is None else best[i][scores[i][best[i]] >= floor[i]]
                assert same_bits(position, want)
                np.testing.assert_array_equal(score, scores[i][want])


def test_supports_of_thousands_above_a_floor():
    """They outgrow every list of the scan, and are canonical nevertheless; so are those without removed rows."""
    m, rng = 20_000, np.random.default_rng(3)
    patterns = (rng.normal(size=(m, 6)) * rng.lognormal(-2, 1.5, size=(m, 1))).astype(np.float32)
    queries = rng.normal(size=(6, 6)).astype(np.float32)
    gone = np.sort(rng.choice(m, 500, replace=False))
    memory = stored(patterns)
    for removed in (False, True):
        if removed:
            memory, patterns = memory.without(gone), np.delete(patterns, gone, axis=0)
        scores = reference.canonical_scores(queries, patterns)
        for separation, beta in (("sparsemax", 2e-4), ("entmax15", 0.005), ("softmax", 0.1)):
            if separation == "softmax":
                weights = within_reach(scores, np.full(6, beta), patterns.dtype, len(patterns))
            else:
                weights = reference.associate(queries, patterns, beta, separation=separation)
            assert (weights > 0).sum(axis=1).max() > 2500
            floors = floors_of(scores, weights)
            for where, name in (("scan", "none"), ("lines", "least"), ("scan", "middle"), ("columns", "above all")):
                with path(where), threads(2):
                    lists, too_many = listed(memory, queries, beta, separation, floor=floors[name], most=m)
                    assert not too_many.any()
                    check_by_reference(lists, scores, weights, floors[name])
                    if separation == "softmax":
                        lists, too_many = listed(memory, queries, beta, separation, floor=floors[name], most=2499)
                        above = (weights > 0) & (
                            scores >= (floors[name][:, None] if floors[name] is not None else -9e9)
                        )
                        np.testing.assert_array_equal(too_many, above.sum(axis=1) > 2499)


def joined(parts, firsts):
    """Join the lists of parts: the positions in the whole of all patterns that a part lists, ascending."""
    return np.unique(np.concatenate([p + first for lists, first in zip(parts, firsts, strict=True) for p, _ in lists]))


def answers(call):
    """Give all that a call finds: states, energy, lists of weights, a retrieval and what is told of it."""
    found = [call.update()]
    if row_of(call.code).has_energy:
        found.append(np.asarray(call.energy()))
    weights = call.associate(min_weight=1e-30)
    with quiet():
        states, info = call.retrieve(1, 1e-3, True, None)
    return [*found, states, info.converged, info.support_size], weights


WHOLES = {
    "sparsemax": ("dot", "sparsemax", 0.5, None, 5_000),
    "entmax15": ("euclidean", "entmax15", 1.0, None, 5_000),
    "normmax": ("cosine", sh.Normmax(2.0), 30.0, None, 5_000),
    "softmax": ("dot", "softmax", 12.0, None, 5_000),
    "softmax, euclidean": ("euclidean", "softmax", 12.0, None, 5_000),
    "the k best": ("dot", "softmax", 0.1, TopK(40), 5_000),
    "the k best, sparsemax": ("euclidean", "sparsemax", 0.1, TopK(200), 5_000),
    "support of thousands": ("dot", "sparsemax", 1e-4, None, 40_000),
    "support of thousands, entmax15": ("dot", "entmax15", 0.005, None, 40_000),
    "softmax, hundreds": ("dot", "softmax", 1.0, None, 40_000),
}


@pytest.mark.parametrize("name", WHOLES)
@pytest.mark.parametrize("with_values", [False, True])
def test_seven_parts_have_the_bits_of_one_memory(name, with_values):
    similarity, separation, beta, structure, m = WHOLES[name]
    queries, patterns, _, _ = draw("float32", m=m, d=12, n=5, seed=4)
    queries = queries[:4]
    values = np.random.default_rng(1).standard_normal((m, 3)).astype(np.float32) if with_values else None
    code = separation_code(separation)
    whole = stored(patterns, similarity, values=values)
    want, want_weights = answers(Call.prepare(whole, queries, beta, code, structure))
    firsts = np.linspace(0, m, 8).astype(int)
    parts = [stored(patterns[a:b], similarity).as_part_of(m, whole.max_norm) for a, b in itertools.pairwise(firsts)]
    best = np.stack([_core.nearest(p.core(p.dtype), queries, np.ones(1), *code, 20)[1] for p in parts])
    best = -np.sort(-best.transpose(1, 0, 2).reshape(len(queries), -1), axis=1)
    if has_cutoff(code):
        floor = np.array([best_threshold(row, beta, code) for row in best])
    else:
        floor = (
            best[:, 0] - np.log(m / ROUNDOFF[patterns.dtype]) / beta if structure is None else best[:, structure.k - 1]
        )
    lists = []
    for i, part in enumerate(parts):
        with path(PATHS[i % 4]), threads(1 + i % 2):
            one, too_many = listed(
                part, queries, beta, separation, floor=floor - 1e-9, most=max(16, m // 128), structure=structure
            )
        assert not too_many.any()
        lists.append(one)
    rows = joined(lists, firsts[:-1])
    assert len(rows) < m // 2 + 100
    gathered = stored(patterns[rows], similarity, values=None if values is None else values[rows])
    got, weights = answers(Call.prepare(gathered.as_part_of(m, whole.max_norm), queries, beta, code, structure))
    for g, w in zip(got, want, strict=True):
        assert same_bits(g, w)
    assert same_bits(weights.data, want_weights.data)
    assert same_bits(weights.indptr, want_weights.indptr)
    np.testing.assert_array_equal(rows[weights.indices], want_weights.indices)
    sizes = np.diff(want_weights.indptr)
    if m > 5_000:
        assert sizes.max() > (1024 if has_cutoff(code) else 100), sizes


def best_threshold(scores, beta, code):
    """Return the score below which no pattern can have weight, from some scores of the whole."""
    return scores[0] + _core.cut(*code, beta * (scores - scores[0])) / beta


def test_limits_go_by_the_whole():
    rng = np.random.default_rng(0)
    patterns, queries = rng.standard_normal((60, 5)).astype(np.float32), rng.standard_normal((4, 5)).astype(np.float32)
    own = stored(patterns, values=patterns[:, :2])
    part = own.as_part_of(10**6, 1e6)
    assert (len(part), part.whole_count, part.max_norm) == (60, 10**6, own.max_norm)
    assert part.storage is own.storage
    assert part.sources is own.sources
    for some, count in ((own, 60), (part, 10**6), (part.as_part_of(99, 1e6), 99), (part.copied(), 60)):
        for x in (queries, queries.astype(np.float64)):  # by cores of both types
            call = Call.prepare(some, x, 2.0, separation_code("softmax"))
            with quiet():
                np.testing.assert_array_equal(call.retrieve(1, 0.0, True, None)[1].support_size, count)
                info = Call.prepare(some, x, 0.1, separation_code("sparsemax")).retrieve(9, 1e-3, True, None)[1]
            assert (info.steps == 1).all() == (some is part or count == 99)  # within the tolerance, which is 1,000
    position, _ = listed(part, queries, 1.0, "softmax", structure=TopK(61))[0][0]
    assert same_bits(position, np.arange(60))
    for k in (61, 10**6):
        assert Call.prepare(part, queries, 1.0, separation_code("softmax"), TopK(k)).update().shape == (4, 2)
    with pytest.raises(ValueError, match=r"^k: must be at most the 1000000 patterns"):
        Call.prepare(part, queries, 1.0, separation_code("softmax"), TopK(10**6 + 1))
    with pytest.raises(ValueError, match=r"^structure: "):
        Call.prepare(part, queries, 1.0, separation_code("softmax"), Window(3, positions=range(4))).update()
    by_features = [Call.prepare(s, queries, 1.0, separation_code("softmax"), LinearFeatures()) for s in (own, part)]
    assert same_bits(*(call.update() for call in by_features))
    longer = part.with_rows(np.concatenate([patterns, patterns]), np.ones((120, 2), np.float32), extends=True)
    fewer = part.without(np.array([3]))
    assert (longer.whole_count, fewer.whole_count) == (120, 59)
    for some in (longer, fewer):
        call = Call.prepare(some, queries, 2.0, separation_code("softmax"))
        with quiet():
            assert (call.retrieve(1, 0.0, True, None)[1].support_size == len(some)).all()


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_largest_norm(similarity):
    """Of the patterns that are left, whatever the type of the queries."""
    patterns = np.float32([[3, 4], [0, 1], [1, 0]])
    whole = stored(patterns, similarity)
    left = whole.without(np.array([0]))
    for some, norm in ((whole, 5.0), (left, 1.0)):
        norm = 1.0 if similarity == "cosine" else norm
        assert some.max_norm == norm
        assert _core.max_norm(some.core(np.dtype(np.float64))) == norm
        part = some.as_part_of(len(some), norm)
        assert part.whole == (len(some), norm)
        for wrong in (np.nextafter(norm, 0), np.inf, np.nan):
            with pytest.raises(ValueError, match=r"^max_norm: "):
                some.as_part_of(9, wrong)
            with pytest.raises(ValueError, match=r"^max_norm: "):
                _core.set_whole(part.core(np.dtype(np.float32)), 9, wrong)
        with pytest.raises(ValueError, match=r"^count: "):
            some.as_part_of(len(some) - 1, norm)
        with pytest.raises(ValueError, match=r"^count: "):
            _core.set_whole(part.core(np.dtype(np.float32)), len(some) - 1, norm)
    without_index = whole.with_rows(patterns, None, extends=True, index=False).as_part_of(7, 9.0)
    assert (without_index.index, without_index.whole_count) == (False, 7)


def test_what_lists_refuse():
    queries, patterns, _, _ = draw("float32", m=50, n=3)
    memory = stored(patterns)
    asked = memory.core(memory.dtype), queries, np.ones(1), *separation_code("sparsemax"), None
    for floor in (np.array([0, np.nan, 0]), np.array([0, np.inf, 0]), np.zeros(2)):
        with pytest.raises(ValueError, match=r"^floor: "):
            _core.candidates(*asked, floor, 0)
    with pytest.raises(ValueError, match=r"^floor: contains NaN"):
        listed(memory, queries, 1.0, "sparsemax", floor=np.full(3, np.nan))
    for floor in (np.zeros(3, np.float32), np.zeros((3, 1)), [0, 0, 0]):
        with pytest.raises(TypeError, match=r"^floor: "):
            _core.candidates(*asked, floor, 0)
    with pytest.raises(ValueError, match=r"^most: "):
        _core.candidates(*asked, None, -1)
    for structure in (None, TopK(50)):
        with pytest.raises(ValueError, match=r"^separation: "):
            listed(memory, queries, 1.0, sh.Polynomial(3), structure=structure)
    with pytest.raises(ValueError, match=r"^structure: "):
        listed(memory, queries, 1.0, "softmax", structure=Window(1, positions=range(3)))
    wrong = queries.copy()
    wrong[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"^queries: row 1 "):
        listed(memory, wrong, 1.0, "softmax", most=9)
    lists, too_many = listed(memory, queries[:0], 1.0, "softmax", floor=np.zeros(0))
    assert too_many.shape == (0,)
    assert sum(len(p) for p, _ in lists) == 0


@pytest.mark.parametrize(("separation", "beta"), [("sparsemax", 2.0), ("sparsemax", 1e-4), ("softmax", 2.0)])
def test_without_memory(separation, beta):
    queries, patterns, _, _ = draw("float32", m=2000, n=4)
    memory = stored(patterns).without(np.array([5, 7]))
    floor, fail = np.full(4, 1.0), hook("_fail_allocation")
    listed(memory, queries, beta, separation, floor=floor, most=100)  # copies patterns where it must
    fail(-1)
    want, too_many = listed(memory, queries, beta, separation, floor=floor, most=100)
    made, failed = fail(-1), 0
    for n in range(made):
        fail(n)
        try:
            got, wrong = listed(memory, queries, beta, separation, floor=floor, most=100)
        except MemoryError:
            failed += 1
        else:  # by a way that needs less
            assert same_lists(got, want)
            assert same_bits(wrong, too_many)
        finally:
            fail(-1)
    assert 0 < failed <= made


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kind", TYPES)
def test_the_best_of_fewer_patterns(similarity, kind):
    """What a part that has fewer patterns than are asked for gives as its best."""
    queries, patterns, widened, scale = draw(kind, m=5, n=3)
    memory = stored(patterns, similarity, scale=scale).as_part_of(100, 1e9)
    scores = reference.canonical_scores(queries, widened, similarity)
    order = np.argsort(-scores, axis=1, kind="stable")
    call = Call.prepare(memory, queries, 1.0, separation_code("sparsemax"))
    for where in PATHS:
        with path(where):
            position, score = _core.nearest(call.core_executor("nearest").core, call.rows, call.beta, *call.code, 9)
        assert same_bits(position, np.pad(order, ((0, 0), (0, 4)), constant_values=-1))
        assert (score[:, 5:] == -np.inf).all()
        np.testing.assert_allclose(score[:, :5], np.take_along_axis(scores, order, axis=1), rtol=1e-14)
