"""Structures that look at some of the pairs, against the masked reference, pair counts, and each other."""

import dataclasses

import numpy as np
import pytest
from helpers import (
    ALL_MAPS,
    ENERGY_MAPS,
    FLOATS,
    SIMILARITIES,
    fails_without_memory,
    name_of,
    path,
    quiet,
    run_python,
    same_bits,
    sized_pairs,
    state_bounds,
    threads,
    weight_bounds,
)
from scipy import sparse

import sparsehopfield as sh
from sparsehopfield import reference
from sparsehopfield._engine.call import Call
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.separations import separation_code
from sparsehopfield.structures import BlockSparse, RandomMask, TopK, Window

WIDE_POSITIONS = np.array([70, 3, 3, 89, 0, 41])


def _blocks(rows, columns, seed=0):
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.4
    mask[0], mask[-1, -1] = False, True
    return mask


# name -> (N, M, structure); 64 queries go together, blocks of 4 rows and more are multiplied as blocks
STRUCTURES = {
    "top 1": (5, 20, TopK(1)),
    "top 7": (20, 90, TopK(7)),
    "top 40": (5, 90, TopK(40)),
    "top all": (5, 20, TopK(20)),
    "window 0": (9, 9, Window(0)),
    "window 3": (70, 70, Window(3)),
    "window 70": (75, 75, Window(70)),
    "window beyond all": (20, 20, Window(500)),
    "window beyond all, causal": (40, 40, Window(500, causal=True)),
    "window of one pattern": (1, 1, Window(1)),
    "window of a tile": (3, 1500, Window(600, positions=[0, 700, 1499])),
    "window, causal": (65, 65, Window(5, causal=True)),
    "window, dilated": (30, 30, Window(4, dilation=3)),
    "window, dilated, several groups a lane": (60, 60, Window(9, causal=True, dilation=2, global_positions=[5, 6])),
    "window, dilated, of a tile": (3, 2600, Window(600, dilation=2, positions=[0, 1301, 2599])),
    "window, dilated beyond all": (10, 10, Window(4, dilation=300)),
    "window, placed": (6, 90, Window(2, positions=WIDE_POSITIONS)),
    "window, global": (6, 90, Window(2, global_positions=[89, 0, 40], positions=WIDE_POSITIONS)),
    "window, all options": (
        6,
        90,
        Window(2, causal=True, dilation=2, global_positions=(0, 41, 66, 88), positions=WIDE_POSITIONS),
    ),
    "random": (30, 33, RandomMask(6, 3)),
    "random, all": (5, 33, RandomMask(33)),
    "random, blocks of queries": (20, 100, RandomMask(70, 2**64 - 1, block=7)),
    "blocks": (70, 60, BlockSparse(_blocks(7, 12), (10, 5))),
    "blocks of many rows": (140, 4, BlockSparse(_blocks(2, 4), (70, 1))),
    "blocks of many columns": (8, 2400, BlockSparse([[1, 1, 0], [0, 1, 1]] == np.ones(1), (4, 800))),
    "thin blocks": (7, 36, BlockSparse(_blocks(7, 12), (1, 3))),
    "no blocks": (8, 8, BlockSparse(np.zeros((2, 2), bool), 4)),
    **{f"{name}, sized": (30, 40, structure) for name, structure in sized_pairs(30, 40).items()},
    **{f"{name}, sized, square": (90, 90, structure) for name, structure in sized_pairs(90, 90, 20).items()},
}


def _data(name, dtype, d=9, seed=0):
    n, m, structure = STRUCTURES[name]
    rng = np.random.default_rng(seed)
    return *(rng.normal(size=(k, d)).astype(dtype) for k in (n, m)), rng.normal(size=(m, 3)).astype(dtype), structure


def _bounds(weights, queries, patterns, beta, similarity, separation, structure, dtype):
    """Bounds on the error of these weights, each query among the patterns that it looks at."""
    mask = weights != 0 if isinstance(structure, TopK) else structure.mask(*weights.shape)
    return np.array(
        [
            weight_bounds(x[None], patterns[row], beta, similarity, separation, dtype)[0] if row.any() else 0.0
            for x, row in zip(queries, mask, strict=True)
        ]
    )


@pytest.mark.covering(1)
@pytest.mark.parametrize("separation", ALL_MAPS, ids=name_of)
@pytest.mark.parametrize("name", STRUCTURES)
def test_update_and_energy_against_the_reference(name, separation):
    for i, dtype in enumerate(FLOATS):
        queries, patterns, values, structure = _data(name, dtype)
        for j, beta in enumerate((0.02, 30.0) if dtype == np.float32 else (1.0,)):
            similarity = SIMILARITIES[(i + j) % 3]
            options = {"similarity": similarity, "separation": separation, "structure": structure}
            weights = reference.associate(queries, patterns, beta, **options)
            bound = _bounds(weights, queries, patterns, beta, similarity, separation, structure, dtype)
            rows = reference._prepare(queries, patterns, beta, similarity)[1]
            for mixed in (None, values):
                got = sh.update(queries, patterns, beta, values=mixed, **options)
                want = weights @ (rows if mixed is None else mixed.astype(float))  # as reference.update does
                worst = state_bounds(bound, queries, patterns if mixed is None else values, dtype)
                assert got.dtype == dtype
                assert (np.abs(got - want).max(axis=1) <= worst + 1e-300).all()
            if not isinstance(separation, sh.Polynomial):
                want = reference.energy(queries, patterns, beta, **options)
                unit = np.finfo(dtype).eps
                scale = (queries.astype(float) ** 2).sum(axis=1) + 30 / beta + 30
                assert (np.abs(sh.energy(queries, patterns, beta, **options) - want) <= 4 * unit * scale).all()


@pytest.mark.covering(1)
@pytest.mark.parametrize("separation", ENERGY_MAPS, ids=name_of)
@pytest.mark.parametrize("name", STRUCTURES)
def test_weights_against_the_reference(name, separation):
    queries, patterns, _, structure = _data(name, np.float64)
    if separation == "softmax" and structure.descriptor(len(queries), len(patterns)) is None:
        with pytest.raises(ValueError, match=r"^top:"):
            sh.associate(queries, patterns, separation=separation, structure=structure)
        return
    for beta in (0.02, 2.0):
        got = sh.associate(queries, patterns, beta, separation=separation, structure=structure)
        want = reference.associate(queries, patterns, beta, separation=separation, structure=structure)
        assert got.has_sorted_indices
        assert np.abs(got.toarray() - want).max() < 1e-7
        best = sh.associate(queries, patterns, beta, separation=separation, structure=structure, top=2).toarray()
        kept = reference.topk_softmax(np.where(want > 0, want, -np.inf), 2) > 0
        assert np.abs(best - np.where(kept, want, 0)).max() < 1e-7


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_ties_go_to_the_lowest_position(similarity):
    rng = np.random.default_rng(1)
    patterns = rng.integers(-1, 2, (300, 6)).astype(np.float32)
    patterns[(patterns == 0).all(axis=1)] = 1
    queries = rng.integers(-2, 3, (9, 6)).astype(np.float32)
    scores = reference.canonical_scores(queries, patterns, similarity)
    for k in (1, 5, 32, 33, 150, 299):
        got = sh.associate(queries, patterns, 0.1, similarity=similarity, separation="softmax", structure=TopK(k))
        for i, row in enumerate(scores):
            assert sorted(np.argsort(-row, kind="stable")[:k]) == got[[i]].indices.tolist()


@pytest.mark.parametrize("way", ["scan", "lines", "columns"])
def test_top_k_by_every_way(way):
    rng = np.random.default_rng(2)
    patterns, queries = rng.normal(size=(3000, 24)).astype(np.float32), rng.normal(size=(40, 24)).astype(np.float32)
    memory = PatternSet(patterns, None, "dot", copy=None, check_finite=True)
    for separation in ("softmax", "sparsemax", sh.Polynomial(3)):
        for k in (1, 8, 32, 100):
            with path(way):
                got = Call.prepare(memory, queries, 0.5, separation_code(separation), TopK(k)).update()
            with path("scan"):
                assert same_bits(got, sh.update(queries, patterns, 0.5, separation=separation, structure=TopK(k)))
    assert (sh._core.index_nbytes(memory.core(np.dtype(np.float32))) > 0) == (way != "scan")


@pytest.mark.parametrize("similarity", [pytest.param("dot", marks=pytest.mark.depth), "euclidean"])
def test_top_k_by_wide_lines(similarity):
    """Queries whose first codes leave long lists get codes of more columns, and the same bits."""
    rng = np.random.default_rng(5)
    scale = np.exp(-np.arange(260) / 50)
    patterns = (scale * rng.normal(size=(3000, 260))).astype(np.float32)
    queries = (scale * rng.normal(size=(256, 260)) + 0.05 * rng.normal(size=(256, 260))).astype(np.float32)
    memory = PatternSet(patterns, None, similarity, copy=None, check_finite=True)
    with path("lines"):
        Call.prepare(memory, queries[:1], 1.0, separation_code("sparsemax")).update()
    narrow = sh._core.index_nbytes(memory.core(np.dtype(np.float32)))
    best = np.argsort(-reference.canonical_scores(queries, patterns, similarity), kind="stable")[:, :20]
    for separation in ("softmax", "sparsemax"):
        with path("scan"):
            want = Call.prepare(memory, queries, 0.5, separation_code(separation), TopK(20)).associate()
        for count in (1, 2):
            with threads(count):
                got = Call.prepare(memory, queries, 0.5, separation_code(separation), TopK(20)).associate()
            assert same_bits(got, want)
            if separation == "softmax":
                assert (got.indices.reshape(-1, 20) == np.sort(best)).all()
    assert sh._core.index_nbytes(memory.core(np.dtype(np.float32))) - narrow >= 128 * len(patterns)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_top_k_of_lists_that_outgrow_their_room(similarity):
    """Noise that no pattern has makes bounds loose; one query alone shares its patterns out among threads."""
    rng = np.random.default_rng(12)
    patterns = (rng.normal(size=(5000, 12)) @ rng.normal(size=(12, 260))).astype(np.float32)
    queries = (0.05 * patterns[:70] + rng.normal(size=(70, 260))).astype(np.float32)
    memory = PatternSet(patterns, None, similarity, copy=None, check_finite=True)
    full = reference.canonical_scores(queries[:8], patterns, similarity)
    for separation, beta in (("softmax", 0.1), ("sparsemax", 0.1), ("entmax15", 3.0)):
        want = sh.associate(queries, patterns, beta, similarity=similarity, separation=separation, structure=TopK(32))
        for rows, count in ((slice(70), 1), (slice(70), 2), (slice(1), 2)):
            with path("lines"), threads(count):
                got = Call.prepare(memory, queries[rows], beta, separation_code(separation), TopK(32)).associate()
            assert same_bits(got, want[rows])
        for i, row in enumerate(full):
            best = np.argsort(-row, kind="stable")[:32]
            assert set(want[[i]].indices) <= set(best)
            assert separation != "softmax" or set(want[[i]].indices) == set(best)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_dilated_window_is_the_window_of_its_lane(similarity, dtype):
    rng = np.random.default_rng(13)
    patterns, queries = (rng.normal(size=(331, 9)).astype(dtype) for _ in range(2))
    values = rng.normal(size=(331, 4)).astype(dtype)
    for separation in ("sparsemax", "entmax15", "softmax"):
        for dilation, causal in ((2, False), (5, True), (200, False)):
            options = {"similarity": similarity, "separation": separation}
            got = sh.update(
                queries, patterns, 0.5, values=values, structure=Window(7, causal=causal, dilation=dilation), **options
            )
            for lane in range(0, dilation, max(1, dilation // 5)):
                some = slice(lane, None, dilation)
                want = sh.update(
                    queries[some],
                    patterns[some],
                    0.5,
                    values=values[some],
                    structure=Window(7, causal=causal),
                    **options,
                )
                if separation == "softmax":
                    assert np.abs(got[some] - want).max() < 100 * np.finfo(dtype).eps
                else:
                    assert same_bits(got[some], want)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", sh.Entmax(1.25)], ids=name_of)
def test_top_k_beyond_the_support_changes_no_bit(separation, dtype):
    rng = np.random.default_rng(3)
    patterns, queries = rng.normal(size=(500, 12)).astype(dtype), rng.normal(size=(30, 12)).astype(dtype)
    full = sh.associate(queries, patterns, 0.5, separation=separation)
    kappa = int(np.diff(full.indptr).max())
    assert kappa > 2
    for k in (kappa, kappa + 1, 200, 500):
        options = {"separation": separation, "structure": TopK(k)}
        assert same_bits(
            sh.update(queries, patterns, 0.5, **options), sh.update(queries, patterns, 0.5, separation=separation)
        )
        assert same_bits(sh.associate(queries, patterns, 0.5, **options), full)
    fewer = sh.associate(queries, patterns, 0.5, separation=separation, structure=TopK(kappa - 1))
    assert np.diff(fewer.indptr).max() == kappa - 1


@pytest.mark.parametrize("separation", ALL_MAPS, ids=name_of)
def test_all_pairs_are_all_pairs(separation):
    rng = np.random.default_rng(4)
    x, q = rng.normal(size=(150, 7)).astype(np.float32), rng.normal(size=(150, 7)).astype(np.float32)
    want = sh.update(q, x, separation=separation)
    for structure in (TopK(150), RandomMask(150, 9), Window(149), Window(10**9)):
        assert same_bits(sh.update(q, x, separation=separation, structure=structure), want)
    for structure in (BlockSparse([[True]], 150), Window(149, dilation=1, global_positions=[3])):
        got = sh.update(q, x, separation=separation, structure=structure)
        if isinstance(separation, str) and separation in ("sparsemax", "entmax15"):
            assert same_bits(got, want)
        assert np.abs(got - want).max() < 1e-4 * max(1, np.abs(want).max())


@pytest.mark.parametrize("name", STRUCTURES)
def test_pairs_outside_never_matter(name):
    """Patterns that nobody looks at may be anything within range, and change no bit of a map with a cutoff."""
    queries, patterns, _, structure = _data(name, np.float32)
    if isinstance(structure, TopK):
        return
    mask = structure.mask(len(queries), len(patterns))
    for i in range(0, len(queries), 11):
        other = patterns.copy()
        other[~mask[i]] *= np.float32(1e12)
        for separation in ("sparsemax", "softmax"):
            options = {"separation": separation, "structure": structure}
            one, two = (sh.update(queries, x, 3.0, **options)[i] for x in (patterns, other))
            assert same_bits(one, two)


def test_queries_that_look_at_nothing():
    x = np.random.default_rng(5).normal(size=(8, 4))
    structure = BlockSparse([[True, False], [False, False]], 4)
    for separation in ALL_MAPS:
        options = {"separation": separation, "structure": structure}
        states, info = sh.retrieve(x, x, 2.0, return_info=True, max_steps=2000, tol=1e-6, **options)
        assert not states[4:].any()
        assert not np.signbit(states[4:]).any()
        assert (info.support_size[4:] == 0).all()
        assert info.converged[4:].all()
        assert np.isfinite(states).all()
        if not isinstance(separation, sh.Polynomial):
            assert np.allclose(sh.energy(x, x, 2.0, **options)[4:], (x[4:] ** 2).sum(axis=1) / 2)
        assert sh.associate(x, x, 2.0, **options)[4:].nnz == 0


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15", "softmax"], ids=name_of)
@pytest.mark.parametrize(
    "structure",
    [
        Window(2, positions=np.random.default_rng(1).integers(0, 40, 90)),
        Window(3, dilation=2, causal=True, global_positions=[0], positions=np.arange(90) % 40),
        RandomMask(6, 1, block=2),
        BlockSparse(_blocks(18, 8), 5),
        TopK(3),
        TopK(35),
    ],
    ids=lambda s: type(s).__name__,
)
def test_retrieve_takes_places_along(structure, separation):
    rng = np.random.default_rng(6)
    patterns, queries = rng.normal(size=(40, 6)), rng.normal(size=(90, 6))
    options = {"separation": separation, "structure": structure, "max_steps": 30, "tol": 1e-9, "return_info": True}
    values = rng.normal(size=(40, 2))
    with quiet():
        states, info = sh.retrieve(queries, patterns, 1.5, values=values, **options)
    want, other = reference.retrieve(queries, patterns, 1.5, values=values, **options)
    settled = other.converged & info.converged
    assert settled.mean() > 0.5
    assert len(np.unique(info.steps)) > 2  # some leave earlier than others
    assert np.abs(info.states - other.states)[settled].max() < 1e-6
    assert np.abs(states - want)[settled].max() < 1e-6
    assert (info.support_size == other.support_size)[settled].all()


def test_retrieve_weights_and_energy():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(50, 6))
    options = {"separation": "softmax", "structure": Window(3)}
    with quiet():
        states, info = sh.retrieve(x, x, 2.0, return_info=("weights", "energy"), tol=1e-12, **options)
    assert np.allclose(info.energy, reference.energy(states, x, 2.0, **options))
    assert (info.weights.toarray() > 0).sum() == Window(3).mask(50, 50).sum()
    assert np.allclose(info.weights @ x, states)


@pytest.mark.parametrize("name", STRUCTURES)
def test_threads_change_no_bit(name):
    queries, patterns, _, structure = _data(name, np.float32)
    for separation in ("sparsemax", sh.Entmax(1.25), "softmax", sh.Polynomial(3)):
        for beta in (0.01, 5.0):
            results = []
            for n in (1, 2, 5):
                with threads(n):
                    results.append(sh.update(queries, patterns, beta, separation=separation, structure=structure))
            assert same_bits(results[0], results[1])
            assert same_bits(results[0], results[2])


INSTRUCTIONS = """
import json, numpy as np, sparsehopfield as sh
from sparsehopfield.structures import *
from helpers import digest
rng = np.random.default_rng(0)
x, q = rng.normal(size=(2, 300, 20)).astype(np.float32)
made = []
blocks = BlockSparse(np.eye(30, dtype=bool), 10)
for s in (Window(9), Window(9, dilation=2, global_positions=[7]), RandomMask(40), blocks):
    for separation in ("sparsemax", "entmax15"):
        for beta in (1e-3, 1.0):
            made.append(digest(sh.update(q, x, beta, separation=separation, structure=s)))
print(json.dumps(made))
"""


def test_instruction_sets_change_no_bit():
    levels = {"base", sh._core.config()["simd_available"].split()[-1]}
    results = [run_python(INSTRUCTIONS, SPARSEHOPFIELD_SIMD=level) for level in levels]
    assert all(r == results[0] for r in results)
    assert len(set(results[0])) > 4


@pytest.mark.parametrize("beta", [1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("separation", ["sparsemax", "entmax15"])
def test_many_pairs_and_any_temperature(beta, separation):
    """Supports of more than a list holds, and of one pattern."""
    rng = np.random.default_rng(8)
    patterns, queries = rng.normal(size=(4000, 5)).astype(np.float32), rng.normal(size=(6, 5)).astype(np.float32)
    for structure in (Window(1400, positions=[0, 1, 2000, 2001, 3999, 2001]), RandomMask(3000, 1)):
        got = sh.associate(queries, patterns, beta, separation=separation, structure=structure)
        mask = structure.mask(6, 4000)
        for i in range(6):
            at = np.flatnonzero(mask[i])
            alone = sh.associate(queries[i], patterns[at], beta, separation=separation)
            assert same_bits(got[[i]].data, alone.data)
            assert same_bits(got[[i]].indices, at[alone.indices])


@pytest.mark.parametrize("narrow", [np.uint8, np.float16])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_narrow_patterns(narrow, similarity):
    rng = np.random.default_rng(9)
    patterns = rng.integers(1, 9, (80, 7)).astype(narrow)
    wide, queries = patterns.astype(np.float32), rng.normal(size=(80, 7)).astype(np.float32)
    for structure in (Window(5), RandomMask(9), Window(2, dilation=3), TopK(4), BlockSparse(_blocks(8, 8), 10)):
        for separation in ("sparsemax", "softmax"):
            options = {"similarity": similarity, "separation": separation, "structure": structure}
            got, want = (sh.update(queries, x, 0.3, **options) for x in (patterns, wide))
            assert np.abs(got - want).max() < 1e-5 if separation == "softmax" else same_bits(got, want)


# --- which pairs, and what they cost -----------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTURES)
def test_cost_counts_the_pairs(name):
    n, m, structure = STRUCTURES[name]
    cost = structure.cost(n, m, 16)
    if isinstance(structure, TopK):
        assert cost.multiplications == 16 * n * (m + structure.k)
    else:
        assert cost.multiplications == 2 * 16 * structure.mask(n, m).sum()
    assert cost.bytes > 0
    # what the core visits: the weights of softmax, none of which is 0 here
    queries, patterns, _, _ = _data(name, np.float64)
    if structure.descriptor(n, m) is not None and not isinstance(structure, TopK):
        weights = sh.associate(queries, patterns, 1e-3, separation="softmax", structure=structure)
        assert weights.nnz == structure.mask(n, m).sum()
        assert ((weights.toarray() > 0) == structure.mask(n, m)).all()


def test_cost_grows_with_the_length():
    for make in (lambda n: Window(64), lambda n: RandomMask(64), lambda n: BlockSparse(sparse.eye(n // 64) != 0, 64)):
        small, large = (make(n).cost(n, n, 64) for n in (2**14, 2**17))
        assert large.multiplications <= 8.1 * small.multiplications
        assert large.bytes <= 8.1 * small.bytes


def test_window_pairs_by_hand():
    structure = Window(2, causal=True, dilation=2, global_positions=[1, 6], positions=[5, 0])
    assert np.flatnonzero(structure.mask(2, 8)[0]).tolist() == [1, 3, 5]
    assert np.flatnonzero(structure.mask(2, 8)[1]).tolist() == [0]
    both = Window(1, dilation=3, positions=[4])
    assert np.flatnonzero(both.mask(1, 8)[0]).tolist() == [1, 4, 7]


def test_random_subsets():
    mask = RandomMask(30, 5).mask(4000, 100)
    assert (mask.sum(axis=1) == 30).all()
    expected = 4000 * 0.3
    assert (abs(mask.sum(axis=0) - expected) < 6 * np.sqrt(expected * 0.7)).all()
    pairs = mask.T.astype(float) @ mask  # any two patterns together: hypergeometric
    together = 4000 * 30 * 29 / (100 * 99)
    off = pairs[~np.eye(100, dtype=bool)]
    assert abs(off - together).max() < 7 * np.sqrt(together)
    assert (RandomMask(30, 5).mask(10, 100) == mask[:10]).all()
    assert (RandomMask(30, 6).mask(4000, 100) != mask).any()
    shared = RandomMask(30, 5, block=8).mask(20, 100)
    assert (shared[:8] == shared[0]).all()
    assert (shared[8:16] == shared[8]).all()
    assert (shared[0] != shared[8]).any()


def test_block_masks_from_every_form():
    blocks = _blocks(3, 4)
    want = BlockSparse(blocks, (2, 5)).mask(6, 20)
    bsr = sparse.bsr_array(np.kron(blocks, np.ones((2, 5))), blocksize=(2, 5))
    assert (BlockSparse(bsr).mask(6, 20) == want).all()
    assert (BlockSparse(sparse.coo_array(blocks), (2, 5)).mask(6, 20) == want).all()
    explicit = sparse.csr_array(blocks.astype(np.int8))
    explicit.data[0] = 0
    assert BlockSparse(explicit, (2, 5)).mask(6, 20).sum() == want.sum() - 10
    before = bsr.indices.copy()
    bsr.indices[:] = 0  # the structure keeps its own
    bsr.indices[:] = before
    assert repr(BlockSparse(blocks, 2)) == f"BlockSparse({blocks.sum()} of (3, 4) blocks, block=(2, 2))"


# --- bad input ----------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(12, 4))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: TopK(0), ValueError, r"^k: must be at least 1, got 0"),
        (lambda: TopK(2.5), TypeError, r"^k:"),
        (lambda: TopK(13), ValueError, r"^k: must be at most the 12 patterns, got 13"),
        (lambda: RandomMask(0), ValueError, r"^k:"),
        (lambda: RandomMask(13), ValueError, r"^k: must be at most the 12 patterns"),
        (lambda: RandomMask(3, -1), ValueError, r"^seed:"),
        (lambda: RandomMask(3, 0.5), TypeError, r"^seed:"),
        (lambda: RandomMask(3, block=0), ValueError, r"^block:"),
        (lambda: Window(-1), ValueError, r"^w: must be at least 0"),
        (lambda: Window(1, dilation=0), ValueError, r"^dilation:"),
        (lambda: Window(1, causal=1), TypeError, r"^causal:"),
        (lambda: Window(1, global_positions=[-1]), ValueError, r"^global_positions:"),
        (lambda: Window(1, global_positions=[12]), ValueError, r"^global_positions: must be below .* 12, got 12"),
        (lambda: Window(1, positions=[0.5]), TypeError, r"^positions:"),
        (lambda: Window(1, positions=np.arange(12) - 1), ValueError, r"^positions: must be at least 0, got -1"),
        (lambda: Window(1, positions=np.arange(12) + 1), ValueError, r"^positions: must be below .* 12, got 12"),
        (lambda: Window(1, positions=np.arange(11)), ValueError, r"^positions: must be one for each of the 12 queries"),
        (lambda: BlockSparse(np.ones((3, 3), bool)), TypeError, r"^block:"),
        (lambda: BlockSparse(np.ones((3, 3)), 4), ValueError, r"^mask: must be bool"),
        (lambda: BlockSparse(np.ones(3, bool), 4), ValueError, r"^mask: must be bool"),
        (lambda: BlockSparse(np.ones((3, 3), bool), 0), ValueError, r"^block:"),
        (lambda: BlockSparse(np.ones((3, 3), bool), (4, 3)), ValueError, r"^mask: is for 12 queries and 9 patterns"),
        (lambda: BlockSparse(sparse.bsr_array(np.ones((4, 4)), blocksize=(2, 2)), 4), ValueError, r"^block:"),
    ],
)
def test_bad_input(make, error, match):
    for call in (sh.update, sh.energy, sh.associate, sh.retrieve):
        with pytest.raises(error, match=match):
            call(X, X, structure=make())


def test_windows_need_places():
    with pytest.raises(ValueError, match=r"^positions: .* 3 queries and 12 patterns"):
        sh.update(X[:3], X, structure=Window(2))
    with pytest.raises(ValueError, match=r"^positions:"):
        Window(2).cost(3, 12, 4)
    assert sh.update(X[:3].reshape(3, 1, 4), X, structure=Window(1, positions=[[1], [2], [3]])).shape == (3, 1, 4)
    assert sh.update(X[:0], X, structure=Window(1, positions=[])).shape == (0, 4)


def test_no_candidates_of_structures():
    with pytest.raises(ValueError, match=r"^structure: parts"):
        sh.candidates(X, X, structure=TopK(3))


def test_bad_numbers_are_named_before_anything_is_written():
    queries = X.copy()
    queries[7, 1] = np.nan
    for structure in (TopK(2), Window(2), RandomMask(2), BlockSparse(np.eye(3, dtype=bool), 4)):
        out = np.full((12, 4), 7.0)
        with pytest.raises(ValueError, match=r"^queries: row 7"):
            sh.update(queries, X, structure=structure, out=out)
        assert (out == 7).all()


def test_structures_do_not_change():
    for structure in (TopK(2), Window(2), RandomMask(2), BlockSparse(np.eye(3, dtype=bool), 4)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            structure.block = 3
    assert RandomMask(3, 1) == RandomMask(3, 1)
    with pytest.raises(TypeError, match="depends on the scores"):
        TopK(2).mask(3, 3)


def test_no_memory():
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=(300, 4)).astype(np.float32), rng.normal(size=(12, 4)).astype(np.float32)
    placed = Window(70, positions=np.arange(12) * 25)
    for structure in (TopK(3), TopK(40), placed, RandomMask(200), BlockSparse(_blocks(3, 3), (4, 100))):
        for separation, beta in (("sparsemax", 1e-4), ("softmax", 1.0)):
            options = {"separation": separation, "structure": structure}
            with threads(1):
                for call in (sh.update, sh.associate):
                    assert fails_without_memory(lambda c=call, s=options, b=beta: c(q, x, b, **s))
