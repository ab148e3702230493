"""Queries that exclude one pattern each: results of memories made without it, bit for bit where bits are promised."""

import numpy as np
import pytest
from helpers import (
    ALL_MAPS,
    CUTOFF_MAPS,
    FLOATS,
    SIMILARITIES,
    digest,
    fails_without_memory,
    name_of,
    path,
    quiet,
    same_bits,
    threads,
)
from hypothesis import given
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield import _core, reference
from sparsehopfield._engine import chunked
from sparsehopfield._engine.executor import MOST_NEAREST
from sparsehopfield.structures import (
    BlockSparse,
    DilatedBlocks,
    LinearFeatures,
    RandomFeatures,
    RandomMask,
    TopK,
    Window,
)

WAYS = ["scan", "lines", "columns", "auto"]
M, D = 1100, 24
SCALES = {np.uint8: 0.037, np.float16: 0.5}


def clustered(rng, n=M, d=D, dtype=np.float32):
    """Rows in clusters, of which an index excludes many."""
    rows = rng.integers(-3, 4, size=(n, d)) + 0.3 * rng.normal(size=(n, d))
    if dtype == np.uint8:
        return np.clip(30 * rows + 128, 1, 255).astype(dtype)
    return rows.astype(dtype)


def asked(rng, patterns, n):
    """Draw n queries and what each excludes: itself, its nearest pattern, any pattern, none."""
    rows = patterns.astype(np.float64)
    exclude = rng.integers(len(rows), size=n)
    queries = rows[exclude]
    kind = np.arange(n) % 4
    queries[kind > 0] += 0.1 * rows.std() * rng.normal(size=queries[kind > 0].shape)
    exclude[kind == 2] = rng.integers(len(rows), size=(kind == 2).sum())
    exclude[kind == 3] = -1
    return queries.astype(np.float64 if patterns.dtype == np.float64 else np.float32), exclude


def answers(memory, queries, exclude=None):
    """What a memory answers, as lists of results by query; weights of the patterns that it does not exclude."""
    option = {} if exclude is None else {"exclude": exclude}
    with quiet():
        _, info = memory.retrieve(queries, max_steps=6, return_info=["energy"], **option)
    found = [memory.update(queries, **option), memory.energy(queries, **option), info.states, info.energy]
    found += [info.steps, info.converged, info.support_size]
    weights = memory.associate(queries, top=40, **option).toarray()
    if exclude is None:
        return [[*parts, w] for *parts, w in zip(*found, weights, strict=True)]
    assert all(e < 0 or w[e] == 0 for e, w in zip(exclude, weights, strict=True))
    return [[*parts, np.delete(w, e) if e >= 0 else w] for *parts, w, e in zip(*found, weights, exclude, strict=True)]


def check_bits(queries, exclude, patterns, beta, values=None, fewer=None, memory=None, **options):
    """Check that queries that exclude patterns are answered as memories without them; fewer: options of these."""
    if memory is None:
        memory = sh.HopfieldMemory(patterns, beta, values=values, **options)
    found = answers(memory, queries, exclude)
    for x, e, parts in zip(queries, exclude, found, strict=True):
        left = np.ones(len(patterns), bool)
        left[e : e + 1 if e >= 0 else e] = False
        one = sh.HopfieldMemory(
            patterns[left], beta, values=None if values is None else values[left], **options | (fewer or {})
        )
        for a, b in zip(parts, answers(one, x[None])[0], strict=True):
            assert same_bits(np.asarray(a), np.asarray(b)), e


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("separation", [*CUTOFF_MAPS, "softmax"], ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [*FLOATS, np.uint8, np.float16])
def test_bits_of_a_memory_without_the_pattern(dtype, similarity, separation, way):
    rng = np.random.default_rng(3)
    patterns = clustered(rng, dtype=dtype)
    values = rng.normal(size=(M, 3)).astype(np.float32)
    options = {"similarity": similarity, "separation": separation}
    scale = SCALES.get(dtype)
    queries, exclude = asked(rng, patterns, 8)
    if scale is not None:
        options["scale"] = scale
        queries *= np.float32(scale)
    # of softmax few patterns must be within reach
    beta = (30.0 if separation == "softmax" else 2.0) * (10.0 if similarity == "cosine" or dtype == np.uint8 else 1.0)
    with path(way):
        check_bits(queries, exclude, patterns, beta, values=values, **options)


@pytest.mark.parametrize("way", WAYS)
def test_many_queries_as_few(way):
    """Many queries take pilots, blocks and ranges; each alone has the same bits, by any number of threads."""
    rng = np.random.default_rng(4)
    patterns = clustered(rng, 3000)
    queries, exclude = asked(rng, patterns, 600)
    memory = sh.HopfieldMemory(patterns, 1.5, similarity="euclidean", index=way != "scan")
    for separation in ("sparsemax", "softmax"):
        memory.separation, memory.beta = separation, 1.5 if separation == "sparsemax" else 30.0
        with path(way):
            found = [memory.update(queries, exclude=exclude), memory.associate(queries, top=30, exclude=exclude).data]
            with threads(1):
                other = [
                    memory.update(queries, exclude=exclude),
                    memory.associate(queries, top=30, exclude=exclude).data,
                ]
            assert digest(*found) == digest(*other)
        for i in (0, 1, 2, 3, 598):
            assert same_bits(found[0][i], memory.update(queries[i], exclude=exclude[i]))
        check_bits(queries[:4], exclude[:4], patterns, memory.beta, similarity="euclidean", separation=separation)


@pytest.mark.parametrize("separation", ALL_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("beta", [1e-4, 0.3, 20.0])
def test_against_the_formulas(beta, similarity, separation):
    """For all maps and supports, to rounding, in all operations."""
    rng = np.random.default_rng(5)
    patterns, values = rng.normal(size=(1300, 12)), rng.normal(size=(1300, 2))
    queries, exclude = asked(rng, patterns, 9)
    options = {"similarity": similarity, "separation": separation}
    memory = sh.HopfieldMemory(patterns, beta, values=values, **options)
    want = reference.update(queries, patterns, beta, values=values, exclude=exclude, **options)
    np.testing.assert_allclose(memory.update(queries, exclude=exclude), want, rtol=1e-7, atol=1e-9)
    weights = reference.associate(queries, patterns, beta, exclude=exclude, **options)
    found = memory.associate(queries, min_weight=1e-300, exclude=exclude).toarray()
    is_listed = found != 0
    np.testing.assert_allclose(found, np.where(is_listed, weights, 0), rtol=1e-6, atol=1e-9)
    assert np.abs(weights[~is_listed]).max() < (1 if isinstance(separation, sh.Polynomial) else 1e-12)  # some are < 0
    top = memory.associate(queries, top=len(patterns), exclude=exclude).toarray()
    np.testing.assert_allclose(top, weights, rtol=1e-6, atol=1e-9)
    if not isinstance(separation, sh.Polynomial):
        want = reference.energy(queries, patterns, beta, exclude=exclude, **options)
        np.testing.assert_allclose(memory.energy(queries, exclude=exclude), want, rtol=1e-9, atol=1e-9 / beta)
        with quiet():
            _, info = memory.retrieve(queries, max_steps=3, return_info=True, exclude=exclude)
        want, known = reference.retrieve(
            queries, patterns, beta, max_steps=3, return_info=True, exclude=exclude, **options
        )
        np.testing.assert_allclose(info.states, want, rtol=1e-6, atol=1e-8)
        assert (info.steps == known.steps).all()
        if separation == "softmax":
            assert (info.support_size == len(patterns) - (exclude >= 0)).all()


def test_the_polynomial_lists_no_excluded_pattern():
    """Its weights may be negative, so that a weight of 0 is among the largest."""
    patterns = -np.abs(np.random.default_rng(0).normal(size=(30, 4)))
    memory = sh.HopfieldMemory(patterns, 1.0, separation=sh.Polynomial(3))
    for top in (1, 29, 30):
        weights = memory.associate(np.ones(4), top=top, exclude=7)
        assert weights.nnz == min(top, 29)
        assert 7 not in weights.indices


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", sh.Polynomial(3)], ids=name_of)
@pytest.mark.parametrize("k", [1, 3, M - 2, M - 1, M])
def test_the_k_best(k, separation, similarity):
    """A query sees the k best of the others; M - 1 of them are all, as in a memory that has no more."""
    rng = np.random.default_rng(6)
    patterns = clustered(rng)
    queries, exclude = asked(rng, patterns, 12)
    memory = sh.HopfieldMemory(patterns, 40.0, similarity=similarity, separation=separation, structure=TopK(k))
    polynomial = isinstance(separation, sh.Polynomial)
    for i, e in enumerate(exclude):
        left = np.arange(M) != e
        one = sh.HopfieldMemory(patterns[left], 40.0, similarity=similarity, separation=separation)
        one.structure = TopK(min(k, left.sum()))
        found = [memory.update(queries, exclude=exclude)[i], memory.update(queries[i], exclude=e)]
        if polynomial and k > 1024:
            for update in found:
                np.testing.assert_allclose(update, one.update(queries[i]), rtol=1e-3, atol=1e-4)
            continue
        assert same_bits(found[1], one.update(queries[i]))
        assert same_bits(found[0], one.update(queries[i]))
        assert same_bits(memory.associate(queries[i], exclude=e, top=20).data, one.associate(queries[i], top=20).data)
        if not polynomial:
            assert same_bits(memory.energy(queries, exclude=exclude)[i], one.energy(queries[i]))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_errors_of_the_k_best_name_the_query(similarity):
    """Where M - 1 best are wanted, queries go together by kinds, and rows are counted over all."""
    memory = sh.HopfieldMemory(np.eye(5), structure=TopK(4), similarity=similarity)
    queries = np.ones((6, 5))
    queries[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"^queries: row 4\b"):
        memory.update(queries, exclude=[0, -1, -1, 2, 1, -1])


def test_copies_of_the_excluded_pattern_stay_visible():
    rng = np.random.default_rng(7)
    patterns = clustered(rng)
    patterns[[5, 700, 1099]] = patterns[3]
    for similarity in SIMILARITIES:
        memory = sh.HopfieldMemory(patterns, 50.0, similarity=similarity)
        for e in (3, 5, 700, 1099):
            others = [i for i in (3, 5, 700, 1099) if i != e]
            assert list(memory.associate(patterns[3], exclude=e, top=3).indices) == others
        queries, exclude = patterns[[3, 5, 700, 3]], np.array([3, 5, 1099, -1])
        check_bits(queries, exclude, patterns, 50.0, similarity=similarity)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_excluded_outliers(similarity, offset, separation, way):
    """Patterns far larger than all others have a slack of their own; and one of them is the longest."""
    rng = np.random.default_rng(8)
    patterns = rng.normal(size=(M, D))
    patterns[[0, 500, 1099]] *= [[1e3], [1e4], [1e2]]
    patterns = (patterns + offset).astype(np.float32)
    exclude = np.array([0, 500, 1099, 7, 500, -1])
    queries = patterns[[0, 500, 1099, 7, 8, 500]] + rng.normal(size=(6, D)).astype(np.float32)
    with path(way):
        check_bits(queries, exclude, patterns, 30.0, similarity=similarity, separation=separation)


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", sh.Polynomial(2)], ids=name_of)
def test_outliers_in_rows_of_weights(separation):
    """Rows of scores that become weights, for softmax and small beta, settle outliers, but not hidden ones."""
    rng = np.random.default_rng(8)
    patterns = rng.normal(size=(2500, D))
    patterns[[0, 1500, 2499]] *= [[1e2], [1e3], [1e2]]
    queries, exclude = rng.normal(size=(4, D)), np.array([0, 1500, 2499, -1])
    for similarity in ("dot", "euclidean"):
        for beta in (1e-6, 1e-3):
            options = {"similarity": similarity, "separation": separation}
            memory = sh.HopfieldMemory(patterns.astype(np.float32), beta, **options)
            found = memory.update(queries.astype(np.float32), exclude=exclude)
            want = reference.update(queries, patterns, beta, exclude=exclude, **options)
            np.testing.assert_allclose(found, want, rtol=2e-3, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_tolerance_without_the_longest_pattern(similarity):
    """`tol` is relative to the longest pattern that a query sees: steps are those of a memory without the others."""
    rng = np.random.default_rng(9)
    patterns = rng.normal(size=(60, 6))
    patterns[11] *= 50
    queries, exclude = rng.normal(size=(30, 6)), rng.integers(-1, 60, size=30)
    exclude[:9] = 11
    memory = sh.HopfieldMemory(patterns, 0.4, similarity=similarity, separation="entmax15")
    for twin in (False, True):  # with another of the same length nothing changes
        if twin:
            memory.add(-patterns[11:12])
            patterns = np.concatenate([patterns, -patterns[11:12]])
        for tol in (1e-1, 1e-2):
            with quiet():
                _, info = memory.retrieve(queries, tol=tol, max_steps=40, return_info=True, exclude=exclude)
            for i, e in enumerate(exclude):
                one = sh.HopfieldMemory(
                    patterns[np.arange(len(patterns)) != e], 0.4, similarity=similarity, separation="entmax15"
                )
                with quiet():
                    state, alone = one.retrieve(queries[i], tol=tol, max_steps=40, return_info=True)
                assert same_bits(info.states[i], state)
                assert (info.steps[i], info.converged[i]) == (alone.steps, alone.converged)


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", "softmax"])
def test_far_clusters(separation):
    """Two clusters far from the origin and from each other: tiles are of differences, or scores are canonical."""
    rng = np.random.default_rng(10)
    patterns = 1e3 + rng.normal(size=(1200, D))
    patterns[600:] += 1e4
    patterns = patterns.astype(np.float32)
    queries = (patterns[::150] + 0.1 * rng.normal(size=(8, D))).astype(np.float32)
    for start in (0, 600):  # of one cluster alone, which is centred, and of both
        rows = patterns[start:] if start else patterns
        exclude = np.array([0, 150, 300, 0, -1, 599, 1, 300])
        check_bits(queries, exclude, rows, 20.0, similarity="euclidean", separation=separation)


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Normmax(2.0)], ids=name_of)
def test_supports_at_the_limit(separation):
    """Up to max(1,024, M/16) patterns weights are canonical; a query that excludes one has the limit of M - 1.

    M/16 is 1,100 and (M - 1)/16 is 1,099. A support of 1,099 has the bits of a memory without the excluded pattern, and
    1,100 take scores of the product, which the survey tells.
    """
    rng = np.random.default_rng(11)
    m = 17600
    patterns = np.zeros((m, 4), np.float32)
    patterns[:, 0] = -50 - rng.random(m)  # far below
    for support, canonical in ((1099, True), (1100, False)):
        some = rng.permutation(m - 1)[:support]
        rows = patterns.copy()
        rows[some, 0] = 1 + 1e-4 * rng.random(support)
        memory = sh.HopfieldMemory(rows, 1.0, separation=separation, index=False)
        x, e = np.array([[1.0, 0, 0, 0]], np.float32), np.array([m - 1])
        assert memory.retrieve(x, max_steps=1, tol=1e9, return_info=True, exclude=e)[1].support_size == support
        call = memory._call(x)
        arguments = call.core_executor("survey").core, call.rows, call.beta, *call.code
        assert (_core.survey(*arguments, e)[0, 2] >= 0) == canonical
        assert _core.survey(*arguments)[0, 2] >= 0  # of all patterns the limit is 1,100
        one = sh.HopfieldMemory(rows[:-1], 1.0, separation=separation, index=False)
        if canonical:
            assert same_bits(memory.update(x, exclude=e), one.update(x))
        else:
            np.testing.assert_allclose(memory.update(x, exclude=e), one.update(x), rtol=1e-5)
        for index in (True, False):
            memory.index = index
            np.testing.assert_allclose(memory.update(x, exclude=e), one.update(x), rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_softmax_at_the_limit(way):
    """At most max(16, M/128) patterns within reach are canonical: 20 of 2,560 patterns, 19 where one is excluded."""
    rng = np.random.default_rng(12)
    m, beta = 2560, 100.0
    for few in (18, 19, 20, 21):
        patterns = np.zeros((m, D), np.float32)
        patterns[:, 0] = -5 - rng.random(m)  # out of reach: ln(M/u) / beta is 0.24
        some = rng.permutation(m)[:few]
        patterns[some, 0] = 1 - 0.01 * rng.random(few)
        memory = sh.HopfieldMemory(patterns, beta, separation="softmax", values=rng.normal(size=(m, 2)).astype("f4"))
        x = np.zeros((2, D), np.float32)
        x[:, 0] = 1
        out, within = np.setdiff1d(np.arange(m), some)[0], some[0]
        with path(way):
            found = memory.update(x, exclude=[out, within])
            listed = memory.associate(x, top=m, exclude=[out, within])
        for i, e in enumerate((out, within)):
            left = np.arange(m) != e
            one = sh.HopfieldMemory(patterns[left], beta, separation="softmax", values=memory.values[left])
            want = one.update(x[i])
            assert listed[[i]].nnz == (few - i if few - i <= 19 else m - 1)
            if few - i <= 19:
                assert same_bits(found[i], want)
            np.testing.assert_allclose(found[i], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("separation", ALL_MAPS, ids=name_of)
@pytest.mark.parametrize("m", [2, 1025, 2049])
def test_a_tile_of_the_excluded_pattern_alone(m, separation):
    """Tiles have 1,024 patterns: the last one, or all of a range, may have none but the excluded one."""
    rng = np.random.default_rng(13)
    patterns, queries = rng.normal(size=(m, 5)), rng.normal(size=(3, 5))
    exclude = np.array([m - 1, -1, 0])
    for similarity in SIMILARITIES:
        for beta in (1e-3, 1.0, 100.0):
            options = {"similarity": similarity, "separation": separation}
            memory = sh.HopfieldMemory(patterns, beta, **options)
            for n in (1, 2):
                with threads(n):
                    found = memory.update(queries, exclude=exclude)
                want = reference.update(queries, patterns, beta, exclude=exclude, **options)
                np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-8)


def test_partial_results():
    """Sums over all patterns but one, of maps with full support, merge as others do."""
    rng = np.random.default_rng(14)
    patterns, queries = rng.normal(size=(1025, 5)), rng.normal(size=(3, 5))
    exclude = np.array([1024, -1, 3])
    for separation in ("softmax", sh.Polynomial(4)):
        memory = sh.HopfieldMemory(patterns, 0.7, separation=separation)
        executor = memory._call(queries, exclude).core_executor("candidates")
        mixture = np.empty((3, 5))
        _, total = executor.accumulate(queries, mixture)
        want = reference.update(queries, patterns, 0.7, separation=separation, exclude=exclude)
        np.testing.assert_allclose(mixture / total[:, None], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_the_nearest_of_others(way):
    rng = np.random.default_rng(15)
    patterns = clustered(rng)
    queries, exclude = asked(rng, patterns, 40)
    for similarity in SIMILARITIES:
        memory = sh.HopfieldMemory(patterns, similarity=similarity)
        core, code = memory._snapshot.pattern_set.core(patterns.dtype), (0, 2.0)
        with path(way):
            position, score = _core.nearest(core, queries, np.ones(1), *code, 3, exclude)
            every, scores = _core.nearest(core, queries, np.ones(1), *code, 4)
        for i, e in enumerate(exclude):
            keep = every[i] != e
            assert list(position[i]) == list(every[i][keep][:3])
            assert same_bits(score[i], scores[i][keep][:3])
    two = sh.HopfieldMemory(np.eye(2))._snapshot.pattern_set.core(np.dtype(float))
    position, score = _core.nearest(two, np.eye(2), np.ones(1), 0, 2.0, 2, np.array([0, 1]))
    assert position.tolist() == [[1, -1], [0, -1]]
    assert (score[:, 1] == -np.inf).all()


def test_the_nearest_where_the_only_pattern_is_excluded():
    memory = sh.HopfieldMemory([[3.0, 4.0]])
    for k in (1, 2, 40):
        positions, scores = memory.nearest([[1.0, 0.0], [0.0, 1.0]], k, exclude=[0, -1])
        assert positions.tolist() == [[-1] * k, [0] + [-1] * (k - 1)]
        assert scores.tolist() == [[-np.inf] * k, [4.0] + [-np.inf] * (k - 1)]
    assert memory.nearest([1.0, 0.0], exclude=0)[0].tolist() == [-1]
    with pytest.raises(ValueError, match="exclude: must be -1 or a position of 1 patterns, got 1"):
        memory.nearest([[1.0, 0.0]], exclude=[1])
    with pytest.raises(ValueError, match="exclude: shape"):
        memory.nearest([[1.0, 0.0]], exclude=[0, 0])


def test_more_neighbours_than_memory_holds_are_named():
    memory, queries = sh.HopfieldMemory(np.eye(3)), np.ones((100_000, 3))
    with pytest.raises(MemoryError, match="k: there is no memory for 2147483647 positions and scores of each of 100"):
        memory.nearest(queries, 2**31 - 1)
    with pytest.raises(ValueError, match="k: must be at most 2147483647"):
        memory.nearest(queries, 2**62)


def test_the_core_finds_as_many_neighbours_as_python_takes_it_to():
    core = sh.HopfieldMemory(np.eye(40))._snapshot.pattern_set.core(np.dtype(float))
    assert _core.nearest(core, np.eye(40), np.ones(1), 0, 2.0, MOST_NEAREST)[0].shape == (40, MOST_NEAREST)
    with pytest.raises(ValueError, match=f"count: must be from 1 to {MOST_NEAREST}, got {MOST_NEAREST + 1}"):
        _core.nearest(core, np.eye(40), np.ones(1), 0, 2.0, MOST_NEAREST + 1)


def test_scores_under_cosine_similarity_are_cosines_times_the_length_of_the_query():
    _, scores = sh.HopfieldMemory([[3.0, 4.0]], similarity="cosine").nearest([[0.0, 5.0]])
    assert scores == pytest.approx(np.array([[4.0]]))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_after_add_and_remove(similarity, tmp_path):
    """Positions count the patterns that are left; an index built before, or mapped from a file, serves them."""
    rng = np.random.default_rng(16)
    patterns = clustered(rng, 2000)
    memory = sh.HopfieldMemory(patterns[:1500], 2.0, similarity=similarity, index=True)
    memory.remove(rng.permutation(1500)[:100])
    memory.add(patterns[1500:])
    memory.remove([3, 0, 1500])
    queries, exclude = asked(rng, memory.patterns, 12)
    for separation, beta in (("sparsemax", 2.0), ("softmax", 50.0)):
        memory.separation, memory.beta = separation, beta
        options = {"similarity": similarity, "separation": separation, "index": False}
        check_bits(queries, exclude, memory.patterns, beta, memory=memory, **options)
    assert memory.nbytes < memory._snapshot.pattern_set.storage.nbytes  # rows that are removed lie there still
    memory.save(tmp_path / "memory")
    mapped = sh.HopfieldMemory.load(tmp_path / "memory", mmap=True)
    options["index"] = "auto"
    check_bits(queries, exclude, np.array(memory.patterns), beta, memory=mapped, **options)
    memory.beta = 1e-4  # all patterns have weight: the copy of those that are left answers
    np.testing.assert_allclose(
        memory.update(queries, exclude=exclude),
        reference.update(queries, memory.patterns, 1e-4, similarity=similarity, separation="softmax", exclude=exclude),
        rtol=1e-4,
        atol=1e-4,
    )


def test_float64_queries_of_float32_patterns():
    rng = np.random.default_rng(17)
    patterns = clustered(rng)
    queries, exclude = asked(rng, patterns, 8)
    queries = queries.astype(np.float64) + 1e-9
    check_bits(queries, exclude, patterns, 2.0, similarity="euclidean")


@given(st.data())
def test_any_patterns(data):
    """Few small whole numbers: ties, copies and zeros in numbers, in any similarity, map and structure."""
    m, d, n = (data.draw(st.integers(*limits), name) for limits, name in (((2, 12), "m"), ((1, 3), "d"), ((1, 5), "n")))
    similarity = data.draw(st.sampled_from(SIMILARITIES), "similarity")
    separation = data.draw(st.sampled_from(CUTOFF_MAPS), "separation")
    number = st.integers(-2, 2)
    rows = data.draw(st.lists(st.lists(number, min_size=d, max_size=d), min_size=m, max_size=m), "patterns")
    patterns = np.array(rows, data.draw(st.sampled_from(FLOATS), "dtype"))
    if similarity == "cosine":
        patterns[(patterns == 0).all(axis=1)] = 1
    queries = np.array(data.draw(st.lists(st.lists(number, min_size=d, max_size=d), min_size=n, max_size=n), "queries"))
    exclude = np.array(data.draw(st.lists(st.integers(-1, m - 1), min_size=n, max_size=n), "exclude"))
    k = data.draw(st.one_of(st.none(), st.integers(1, m)), "k")
    beta = data.draw(st.sampled_from([0.01, 0.5, 1.0, 7.0]), "beta")
    options = {"similarity": similarity, "separation": separation}
    memory = sh.HopfieldMemory(patterns, beta, structure=None if k is None else TopK(k), **options)
    for x, e, parts in zip(queries, exclude, answers(memory, queries.astype(patterns.dtype), exclude), strict=True):
        left = np.arange(m) != e
        structure = None if k is None else TopK(min(k, left.sum()))
        one = sh.HopfieldMemory(patterns[left], beta, structure=structure, **options)
        for a, b in zip(parts, answers(one, x[None].astype(patterns.dtype))[0], strict=True):
            assert same_bits(np.asarray(a), np.asarray(b))


# --- leaving stored patterns out -------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [*FLOATS, np.uint8, np.float16])
def test_leave_one_out(dtype, similarity, index, monkeypatch):
    """Each row is what a memory without that pattern makes of it, however the rows are divided into calls."""
    rng = np.random.default_rng(18)
    patterns = clustered(rng, dtype=dtype)
    values = rng.normal(size=(M, 2)).astype(np.float32)
    scale = SCALES.get(dtype)
    memory = sh.HopfieldMemory(patterns, 9.0, values=values, similarity=similarity, scale=scale, index=index)
    found = memory.leave_one_out()
    assert (found.shape, found.dtype) == ((M, 2), memory.dtype)
    numbers = patterns if scale is None else patterns.astype(np.float32) * np.float32(scale)
    for i in (0, 1, 500, M - 1):
        left = np.arange(M) != i
        one = sh.HopfieldMemory(patterns[left], 9.0, values=values[left], similarity=similarity, scale=scale)
        assert same_bits(found[i], one.update(numbers[i]))
    monkeypatch.setattr(chunked, "CHUNK", 10_000)
    assert same_bits(found, memory.leave_one_out())
    for positions in ([5, 3, 5, -1], slice(700, 3, -70), np.arange(M) % 3 == 0, 4, []):
        assert same_bits(memory.leave_one_out(positions), np.atleast_2d(found[positions]).reshape(-1, 2))


def test_leave_one_out_of_what_is_left():
    """Positions are those of the patterns after `remove`; beta may be one number for each; the k best are of others."""
    rng = np.random.default_rng(19)
    memory = sh.HopfieldMemory(clustered(rng, 400), 3.0, similarity="euclidean", structure=TopK(5))
    memory.remove(np.arange(0, 40, 2))
    rows, beta = memory.patterns, rng.random(380) + 0.5
    memory.beta = beta
    found = memory.leave_one_out()
    assert same_bits(found, memory.update(rows, exclude=np.arange(380)))
    for i in (0, 1, 379):
        one = sh.HopfieldMemory(np.delete(rows, i, 0), beta[i], similarity="euclidean", structure=TopK(5))
        assert same_bits(found[i], one.update(rows[i]))
    with pytest.raises(ValueError, match=r"^beta: shape \(380,\)"):
        memory.leave_one_out([0, 1])


def test_errors_of_leave_one_out_name_the_row(monkeypatch):
    patterns = np.ones((30, 2), np.float32)
    patterns[20] = 2e19
    monkeypatch.setattr(chunked, "CHUNK", 64)
    with pytest.raises(OverflowError, match=r"^queries: the scores of row 20\b"):
        sh.HopfieldMemory(patterns).leave_one_out()


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "exclude", "words"),
    [
        (ValueError, 6, "must be -1 or a position of 6 patterns, got 6"),
        (ValueError, [0, -2], "must be -1 or a position of 6 patterns, got -2"),
        (ValueError, [0, 2**62], "must be -1 or a position"),
        (ValueError, [0, 1, 2], "does not broadcast to the queries' leading axes"),
        (TypeError, [0.0, 1.0], "must be whole numbers"),
        (TypeError, "first", "must be"),
        (TypeError, [True, False], "must be whole numbers"),
        (OverflowError, np.array([2**63, 0], np.uint64), "at most"),
        (ValueError, np.ma.masked_array([0, 1], [False, True]), "masks some of its entries"),
    ],
)
def test_bad_positions(error, exclude, words):
    memory = sh.HopfieldMemory(np.eye(6))
    for call in (memory.update, memory.retrieve, memory.associate, memory.energy):
        with pytest.raises(error, match=f"^exclude: .*{words}"):
            call(np.eye(6)[:2], exclude=exclude)


def test_shapes():
    memory = sh.HopfieldMemory(np.eye(6), 3.0)
    queries = np.random.default_rng(0).normal(size=(2, 3, 6))
    exclude = np.arange(6).reshape(2, 3)
    found = memory.update(queries, exclude=exclude)
    assert same_bits(found[1, 2], memory.update(queries[1, 2], exclude=5))
    assert same_bits(memory.update(queries, exclude=-1), memory.update(queries))
    assert same_bits(memory.update(queries, exclude=exclude[0])[1], memory.update(queries[1], exclude=exclude[0]))
    assert same_bits(memory.update(queries[0], exclude=exclude[0].astype(np.uint8)), found[0])
    assert memory.update(np.empty((0, 6)), exclude=[]).shape == (0, 6)
    assert memory.energy(queries[0, 0], exclude=3).shape == ()


def test_the_only_pattern_cannot_be_excluded():
    memory = sh.HopfieldMemory([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"^exclude: excludes the only pattern"):
        memory.update([1.0, 0.0], exclude=0)
    with pytest.raises(ValueError, match=r"^exclude: excludes the only pattern"):
        memory.leave_one_out()
    assert same_bits(memory.update([1.0, 0.0], exclude=-1), memory.update([1.0, 0.0]))


@pytest.mark.parametrize(
    "structure",
    [
        Window(1),
        RandomMask(2),
        BlockSparse(np.eye(3, dtype=bool), 2),
        DilatedBlocks(1, 2),
        LinearFeatures(),
        RandomFeatures(8),
    ],
    ids=lambda s: type(s).__name__,
)
def test_structures_by_place_and_features(structure):
    memory = sh.HopfieldMemory(np.eye(6), separation="softmax", structure=structure)
    for call in (memory.update, memory.retrieve):
        with pytest.raises(ValueError, match=f"^exclude: .*{type(structure).__name__}"):
            call(np.eye(6), exclude=np.arange(6))
    with pytest.raises(ValueError, match=f"^structure: .*{type(structure).__name__}"):
        memory.leave_one_out()
    if not isinstance(structure, LinearFeatures | RandomFeatures):  # the core refuses them, too
        call = memory._call(np.eye(6))
        call.executor.exclude = np.arange(6)
        with pytest.raises(ValueError, match=r"^exclude: "):
            call.update()


def test_the_core_checks_positions():
    memory = sh.HopfieldMemory(np.eye(6))
    for exclude in ([0, 6], [-2, 0], [0, 2**40]):
        call = memory._call(np.eye(6)[:2])
        call.executor.exclude = np.array(exclude)
        with pytest.raises(ValueError, match=r"^exclude: .*row [01]"):
            call.update()
    for exclude, error in ((np.zeros(3, np.int64), ValueError), (np.zeros(2, np.int32), TypeError)):
        call = memory._call(np.eye(6)[:2])
        call.executor.exclude = exclude
        for operation in (call.update, call.energy, call.associate, call.candidates):
            with pytest.raises(error, match=r"^exclude: "):
                operation()


@pytest.mark.parametrize("positions", [[6], [-7], 6])
def test_positions_out_of_range(positions):
    with pytest.raises(IndexError, match=r"^positions: .*out of range"):
        sh.HopfieldMemory(np.eye(6)).leave_one_out(positions)


def test_no_memory_left():
    """Any allocation may fail, those for a tolerance without the longest pattern among them."""
    patterns = np.random.default_rng(20).normal(size=(1200, 5))
    patterns[3] *= 100
    memory = sh.HopfieldMemory(patterns, similarity="euclidean")
    fails_without_memory(lambda: memory.update(patterns[:3], exclude=[0, 1, 2]))
    with quiet():
        fails_without_memory(lambda: memory.retrieve(patterns[:3], max_steps=2, exclude=[3, 1, 2]))
    memory.structure = TopK(1199)
    fails_without_memory(lambda: memory.associate(patterns[:3], exclude=[0, -1, 2]))
