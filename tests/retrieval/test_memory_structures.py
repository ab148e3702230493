"""Structures in words and in memories: a memory answers as the functions do, whatever was added, removed and saved."""

import copy
import json
import pickle
import threading

import numpy as np
import pytest
from helpers import ALL_MAPS, CUTOFF_MAPS, SIMILARITIES, name_of, quiet, same_bits, sized_pairs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scipy import sparse

import sparsehopfield as sh
from sparsehopfield import reference
from sparsehopfield._engine import files
from sparsehopfield._engine.structure import described, restored
from sparsehopfield.structures import (
    BlockSparse,
    Full,
    LinearFeatures,
    RandomFeatures,
    RandomMask,
    TopK,
    Window,
    _features,
)

# --- in words ---------------------------------------------------------------------------------------------------------

ALL = [
    TopK(3),
    Window(2),
    Window(2, causal=np.True_, dilation=2, global_positions=[3, 1, 3], positions=[[1], [4]]),
    RandomMask(3, 2**64 - 1, block=2),
    BlockSparse(np.array([[True, False], [True, True]]), (2, 3)),
    BlockSparse(sparse.bsr_array(np.eye(6), blocksize=(2, 2))),
    BlockSparse(np.zeros((2, 3), bool), 1),
    LinearFeatures("relu", causal=np.True_),
    RandomFeatures(np.int64(4), 3, orthogonal=np.False_),
    *sized_pairs(2, 6, 5).values(),
]


@pytest.mark.parametrize("structure", ALL, ids=name_of)
def test_there_and_back(structure):
    again = restored(json.loads(json.dumps(described(structure), allow_nan=False)))
    for same in (again, copy.copy(structure), copy.deepcopy(structure), pickle.loads(pickle.dumps(structure))):
        assert type(same) is type(structure)
        assert same == structure
        assert hash(same) == hash(structure)
        assert repr(same) == repr(structure)
        if isinstance(structure, (Window, BlockSparse)):
            n, m = (2, 6) if isinstance(structure, Window) else (same.given.shape * np.array(same.block))
            n = n if getattr(structure, "positions", 0) is not None else m
            np.testing.assert_array_equal(same.mask(n, m), structure.mask(n, m))
    assert [structure == other for other in ALL].count(True) == 1
    assert described(Full()) is described(None) is restored(None) is None


def test_copies_of_positions_are_read_only_too():
    for same in (copy.deepcopy(ALL[2]), pickle.loads(pickle.dumps(ALL[2])), restored(described(ALL[2]))):
        with pytest.raises(ValueError, match="read-only"):
            same.positions[0] = 1


def _window(**fields):
    return {"Window": {"w": 1, "causal": False, "dilation": 1, "global_positions": [], "positions": None} | fields}


def _blocks(**fields):
    return {"BlockSparse": {"shape": [2, 3], "block": [1, 2], "start": [0, 1, 3], "columns": [2, 0, 1]} | fields}


DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]

HOSTILE = {
    "a list": ([], "one name"),
    "a text": ("TopK", "one name"),
    "nothing": ({}, "one name"),
    "two": ({"TopK": {"k": 1}, "Window": {}}, "one name"),
    "unknown": ({"Pairs": {}}, "unknown name 'Pairs'"),
    "a base": ({"Structure": {}}, "unknown name"),
    "all pairs": ({"Full": {}}, "unknown name"),
    "a module": ({"np": {}}, "unknown name"),
    "no text": ({1: {}}, "unknown name"),
    "no fields": ({"TopK": {}}, "described by k"),
    "fields that are none": ({"TopK": [3]}, "described by k"),
    "a field too many": ({"TopK": {"k": 1, "seed": 2}}, "described by k"),
    "k of 0": ({"TopK": {"k": 0}}, "TopK: k: must be at least 1"),
    "k too large": ({"TopK": {"k": 10**4000}}, "k: must be"),
    "k of a bool": ({"TopK": {"k": True}}, "k: must be a whole"),
    "k NaN": ({"TopK": {"k": float("nan")}}, "k: must be a whole"),
    "k deep": ({"TopK": {"k": DEEP}}, "TopK"),
    "w": (_window(w=-1), "w: must be at least 0"),
    "causal": (_window(causal=1), "causal: must be True or False"),
    "positions of no array": (_window(positions=[[1], [2, 3]]), "Window: "),
    "positions too large": (_window(positions=[2**70]), "positions: "),
    "positions nested": (_window(positions=[[1, 2]]), "no Window"),
    "positions by name": (_window(positions={"1": 2}), "positions: "),
    "global positions twice": (_window(global_positions=[1, 1]), "no Window"),
    "global positions, a number": (_window(global_positions=3), "Window: "),
    "blocks of other shape": (_blocks(shape=[3, 3]), "start: must rise"),
    "endless blocks": (_blocks(shape=[2**62, 3]), "start: must rise"),
    "blocks of no shape": (_blocks(shape=6), "shape: must be two"),
    "no start": (_blocks(start=[]), "start: must rise"),
    "a start that falls": (_blocks(start=[0, 4, 3]), "start: must rise"),
    "a start beyond": (_blocks(start=[0, 1, 4]), "start: must rise"),
    "columns beyond": (_blocks(columns=[3, 0, 1]), "columns: must be below"),
    "columns below": (_blocks(columns=[-1, 0, 1]), "columns: must be at least 0"),
    "columns out of order": (_blocks(columns=[2, 1, 0]), "columns: must ascend"),
    "columns twice": (_blocks(columns=[2, 1, 1]), "columns: must ascend"),
    "one side": (_blocks(block=2), "no BlockSparse"),
    "block of 0": (_blocks(block=[0, 1]), "block: must be at least 1"),
    "seed": ({"RandomMask": {"k": 1, "seed": -1, "block": 1}}, "seed: must be"),
    "kind": ({"LinearFeatures": {"kind": "gelu", "causal": False}}, "kind: unknown"),
    "kind of a list": ({"LinearFeatures": {"kind": [], "causal": False}}, "kind: must be"),
    "orthogonal": ({"RandomFeatures": {"n_features": 1, "seed": 0, "orthogonal": 1, "causal": False}}, "orthogonal: "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_description(name):
    description, match = HOSTILE[name]
    with pytest.raises(ValueError, match=match) as caught:
        restored(description)
    assert str(caught.value).startswith("structure: ")
    assert len(str(caught.value)) < 500


def test_only_known_structures_are_described():
    class Own(TopK):
        pass

    with pytest.raises(ValueError, match="only those of"):
        described(Own(3))
    with pytest.raises(TypeError, match="did you mean"):
        described(TopK)


# --- in a memory ------------------------------------------------------------------------------------------------------

rng = np.random.default_rng(3)
M, N, D = 24, 5, 6
PATTERNS, QUERIES, VALUES = (rng.normal(size=shape) for shape in ((M, D), (N, D), (M, 3)))
PAIRS = [
    TopK(1),
    TopK(4),
    TopK(M),
    Window(2, positions=[0, 7, 8, 23, 7]),
    Window(1, causal=True, dilation=3, global_positions=[2], positions=[1, 9, 12, 20, 23]),
    RandomMask(7, 5, block=2),
    BlockSparse(np.random.default_rng(1).random((5, 6)) < 0.5, (1, 4)),
    *(s for s in sized_pairs(N, M, 9).values() if not isinstance(s, TopK)),
]
SQUARE = [Window(2), Window(3, causal=True), BlockSparse(np.tri(3, dtype=bool), 8)]  # as many queries as patterns
FEATURES = [LinearFeatures(), LinearFeatures("relu"), RandomFeatures(16), RandomFeatures(8, 2, orthogonal=False)]
CAUSAL = [LinearFeatures(causal=True), RandomFeatures(8, causal=True)]
BY_PLACE = [s for s in [*PAIRS, *SQUARE, *CAUSAL] if s.by_place]


def queries_for(structure):
    """As many as the structure needs."""
    return np.random.default_rng(4).normal(size=(M, D)) if structure in SQUARE + CAUSAL else QUERIES


def answered(call, *arguments, **options):
    """What a call gives, or its error."""
    try:
        with quiet():
            return call(*arguments, **options)
    except (ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def same(a, b):
    """The same bits, or the same error."""
    if isinstance(a, tuple):
        return all(map(same, a, b))
    if isinstance(a, sh.RetrievalInfo):
        return same((a.states, a.steps, a.converged, a.support_size), (b.states, b.steps, b.converged, b.support_size))
    return a == b if isinstance(a, str) or isinstance(b, str) else same_bits(a, b)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("structure", PAIRS + SQUARE + FEATURES + CAUSAL, ids=name_of)
def test_all_operations_as_the_functions(structure, similarity):
    x, answers = queries_for(structure), 0
    for i, separation in enumerate(ALL_MAPS):
        dtype = (np.float32, np.float64)[i % 2]
        patterns, values, queries = PATTERNS.astype(dtype), VALUES.astype(dtype) if i % 3 else None, x.astype(dtype)
        options = {"similarity": similarity, "separation": separation, "structure": structure}
        memory = sh.HopfieldMemory(patterns, 0.9, values=values, **options)
        assert memory.structure is structure
        steps, top = {"max_steps": 5, "return_info": True}, {"top": None if separation in CUTOFF_MAPS else 2}
        for call, own in (("update", {}), ("retrieve", steps), ("associate", top), ("energy", {}), ("candidates", {})):
            mixed = {"values": values} if call in ("update", "retrieve", "candidates") else {}
            want = answered(getattr(sh, call), queries, patterns, 0.9, **own, **mixed, **options)
            assert same(answered(getattr(memory, call), queries, **own), want)
            assert same(answered(getattr(memory, call), queries, **own), want)  # and from the sums that were kept
            answers += not isinstance(want, str)
    linear = similarity == "euclidean" and isinstance(structure, LinearFeatures)  # which has no place for its bias
    features = isinstance(structure, _features.Features)
    assert answers == (0 if linear else 2 if features else 4 * len(ALL_MAPS) - 2)


@pytest.mark.parametrize("structure", [PAIRS[1], *PAIRS[3:], *SQUARE], ids=name_of)
def test_against_masks(structure):
    x = queries_for(structure)
    for similarity in SIMILARITIES:
        for separation in ("sparsemax", "softmax"):
            options = {"similarity": similarity, "separation": separation, "structure": structure}
            memory = sh.HopfieldMemory(PATTERNS, 1.3, values=VALUES, **options)
            want = reference.update(x, PATTERNS, 1.3, values=VALUES, **options)
            np.testing.assert_allclose(memory.update(x), want, rtol=0, atol=1e-12)
            scores = reference.canonical_scores(x, PATTERNS, similarity)
            if not isinstance(structure, TopK):  # and with nothing of the package but the mask
                z = np.where(structure.mask(*scores.shape), 1.3 * scores, -np.inf)
                p = reference.sparsemax(z) if separation == "sparsemax" else reference.softmax(z)
                np.testing.assert_allclose(memory.update(x), p @ VALUES, rtol=0, atol=1e-12)


def test_the_choice_may_change():
    memory = sh.HopfieldMemory(PATTERNS.astype(np.float32), 2.0)
    memory.build_index()
    size, plain = memory.index_nbytes, repr(memory)
    assert "structure" not in plain
    memory.structure = TopK(3)
    assert memory.index_nbytes == size > 0
    assert repr(memory) == plain[:-1] + ", structure=TopK(k=3))"
    assert same_bits(memory.update(QUERIES), sh.update(QUERIES, memory.patterns, 2.0, structure=TopK(3)))
    memory.structure = Full()
    assert memory.structure is None
    assert repr(memory) == plain
    for wrong in (TopK, "topk", 3):
        with pytest.raises(TypeError, match=r"^structure:"):
            memory.structure = wrong
        with pytest.raises(TypeError, match=r"^structure:"):
            sh.HopfieldMemory(PATTERNS, structure=wrong)
    assert memory.structure is None
    assert not sh.HopfieldMemory(PATTERNS, structure=Full()).structure


def test_what_a_structure_lacks():
    memory = sh.HopfieldMemory(PATTERNS, structure=Window(2))
    with pytest.raises(ValueError, match=r"^positions: .* 5 queries and 24 patterns"):
        memory.update(QUERIES)
    memory.structure = TopK(M)
    memory.remove(0)
    with pytest.raises(ValueError, match=r"^k: must be at most the 23 patterns, got 24"):
        memory.retrieve(QUERIES)
    with pytest.raises(ValueError, match=r"^k: must be at most the 23 patterns"):
        memory.critical_beta()
    memory.separation, memory.structure = "softmax", CAUSAL[0]
    with pytest.raises(ValueError, match=r"^queries: causal"):
        memory.update(QUERIES)
    for structure, match in ((TopK(2), "structure: parts"), (FEATURES[0], "structure: LinearFeatures has no cand")):
        memory.structure = structure
        with pytest.raises(ValueError, match=match):
            memory.candidates(QUERIES)
    memory.structure = FEATURES[2]
    with pytest.raises(ValueError, match=r"^structure: RandomFeatures has no list"):
        memory.explain(QUERIES[0])
    memory.beta = [1.0] * N
    with pytest.raises(ValueError, match=r"^beta: features"):
        memory.update(QUERIES)


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", BY_PLACE, ids=name_of)
def test_places_that_moved(structure, tmp_path):
    separation = "softmax" if structure in CAUSAL else "sparsemax"
    more = np.random.default_rng(9).normal(size=(4, D))

    def asks(memory):
        x = queries_for(structure)
        return [
            lambda: memory.update(x),
            lambda: memory.retrieve(x),
            lambda: memory.associate(x),
            lambda: memory.energy(x),
            lambda: memory.candidates(x),
            lambda: memory.explain(x[0]),
            memory.is_fixed_point,
            memory.critical_beta,
            memory.report,
            lambda: memory.save(tmp_path / "memory"),
            lambda: pickle.dumps(memory),
            lambda: copy.copy(memory),
        ]

    memory = sh.HopfieldMemory(PATTERNS, 2.0, separation=separation, structure=structure)
    want = memory.update(queries_for(structure))
    memory.add(more)
    memory.remove(slice(M, None))  # the last ones: all others are where they were
    memory.remove([])
    assert same_bits(memory.update(queries_for(structure)), want)
    memory.add(more)
    memory.remove([2, 3, 7, 11])
    for ask in asks(memory):
        with pytest.raises(ValueError, match=r"^structure: .* places .* set memory\.structure again"):
            ask()
    assert not (tmp_path / "memory").exists()
    assert np.isfinite(memory.margin()).all()  # patterns alone
    assert len(memory.duplicates().pairs) == 0
    memory.add(more)
    memory.remove(slice(M, None))
    with pytest.raises(ValueError, match=r"^structure:"):
        memory.update(queries_for(structure))
    memory.structure = memory.structure  # the new order is meant
    options = {"separation": separation, "structure": structure}
    want = sh.update(queries_for(structure), memory.patterns, 2.0, **options)
    assert same_bits(memory.update(queries_for(structure)), want)
    assert same_bits(pickle.loads(pickle.dumps(memory)).update(queries_for(structure)), want)
    memory.remove(0)
    memory.structure = None
    assert np.isfinite(memory.update(QUERIES)).all()


@pytest.mark.parametrize("structure", [TopK(4), PAIRS[5], FEATURES[2]], ids=name_of)
def test_structures_without_places_do_not_mind(structure):
    memory = sh.HopfieldMemory(PATTERNS, 2.0, separation="softmax", structure=structure)
    memory.update(QUERIES)
    memory.remove([0, 5])
    want = sh.update(QUERIES, np.delete(PATTERNS, [0, 5], axis=0), 2.0, separation="softmax", structure=structure)
    assert same_bits(memory.update(QUERIES), want)


# --- features are summed once -----------------------------------------------------------------------------------------


@pytest.fixture
def rows_summed(monkeypatch):
    """Patterns whose features were computed, call by call."""
    counted = []
    take = _features.FeatureState._take

    def counting(self, patterns, *arguments):
        counted.append(len(patterns))
        take(self, patterns, *arguments)

    monkeypatch.setattr(_features.FeatureState, "_take", counting)

    def since():
        rows = sum(counted)
        counted.clear()
        return rows

    return since


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("structure", FEATURES, ids=name_of)
@pytest.mark.parametrize("own_values", [False, True])
def test_features_see_each_pattern_once(rows_summed, structure, similarity, own_values):
    if similarity == "euclidean" and isinstance(structure, LinearFeatures):
        pytest.skip("has no place for its bias")
    values = VALUES if own_values else None
    options = {"similarity": similarity, "separation": "softmax", "structure": structure}
    memory = sh.HopfieldMemory(PATTERNS, 0.4, values=values, **options)
    assert rows_summed() == 0
    first = memory.update(QUERIES)
    assert rows_summed() == M
    assert same_bits(memory.update(QUERIES), first)
    assert rows_summed() == 0
    with quiet():
        memory.retrieve(QUERIES, max_steps=20, tol=1e-9)
        assert rows_summed() == (M if own_values else 0)  # the patterns' own sums
        memory.retrieve(QUERIES, max_steps=20, tol=1e-9)
    assert rows_summed() == 0
    before = memory._snapshot.pattern_set
    held = [(k, s, s._total.copy(), s._sum.copy()) for k, s in before.feature_states.items()]
    patterns, all_values = PATTERNS, values
    for n in (1, 3):
        more = rng.normal(size=(n, D)) * 10**n  # so that the largest exponent rises
        more_values = rng.normal(size=(n, 3)) if own_values else None
        memory.add(more, more_values)
        patterns = np.r_[patterns, more]
        all_values = np.r_[all_values, more_values] if own_values else None
        assert rows_summed() == 0
        got = memory.update(QUERIES)
        assert rows_summed() == n
        asked = QUERIES, patterns, 0.4
        np.testing.assert_allclose(got, sh.update(*asked, values=all_values, **options), rtol=0, atol=1e-9 * 10**n)
        rows_summed()
        with quiet():
            got, info = memory.retrieve(QUERIES, max_steps=3, return_info=True)
            assert rows_summed() == (n if own_values else 0)
            want, other = sh.retrieve(*asked, values=all_values, max_steps=3, return_info=True, **options)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-8 * 10**n)
        assert (info.support_size == other.support_size).all()
        rows_summed()
    # what others may still ask is as it was
    for key, state, total, sums in held:
        assert before.feature_states[key] is state
        assert state.n_patterns == M
        assert same_bits(state._total, total)
        assert same_bits(state._sum, sums)
    memory.update(QUERIES.astype(np.float32))
    assert rows_summed() == 0  # of a float64 memory it is float64 all the same
    memory.beta = 0.5
    memory.update(QUERIES)
    assert rows_summed() == M + 4
    assert len(memory._snapshot.pattern_set.feature_states) == 1  # of one model
    memory.remove(0)
    assert rows_summed() == 0
    want = sh.update(QUERIES, patterns[1:], 0.5, values=None if all_values is None else all_values[1:], **options)
    rows_summed()
    assert same_bits(memory.update(QUERIES), want)
    assert rows_summed() == M + 3
    memory.structure = RandomFeatures(3)
    memory.update(QUERIES)
    assert rows_summed() == M + 3


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_rest_is_judged_by_the_longest_pattern(similarity):
    options = {"similarity": similarity, "separation": "softmax", "structure": LinearFeatures()}
    memory = sh.HopfieldMemory(3 * PATTERNS, 0.01, **options)
    memory.retrieve(QUERIES, tol=0.1)
    more = 0.01 * PATTERNS[:2]
    memory.add(more)
    _, info = memory.retrieve(QUERIES, tol=0.1, return_info=True)
    _, want = sh.retrieve(QUERIES, np.r_[3 * PATTERNS, more], 0.01, tol=0.1, return_info=True, **options)
    _, closer = memory.retrieve(QUERIES, tol=1e-6, return_info=True)
    assert (info.steps == want.steps).all()
    assert (info.steps < closer.steps).all()


def test_each_pattern_is_measured_once(monkeypatch):
    """How long the longest is, which tells a retrieval when it rests."""
    begun, measure = [], _features.FeatureExecutor._longest_from
    monkeypatch.setattr(
        _features.FeatureExecutor,
        "_longest_from",
        lambda self, begin, most: begun.append(begin) or measure(self, begin, most),
    )
    memory = sh.HopfieldMemory(PATTERNS, 0.4, separation="softmax", structure=LinearFeatures())
    with quiet():
        for _ in range(2):
            memory.retrieve(QUERIES, max_steps=2)
        assert begun == [0]
        memory.add(9 * PATTERNS[:2])
        for _ in range(2):
            memory.retrieve(QUERIES, max_steps=2)
    assert begun == [0, M]
    (state,) = memory._snapshot.pattern_set.feature_states.values()
    assert state.measured == (M + 2, pytest.approx(np.linalg.norm(np.r_[PATTERNS, 9 * PATTERNS[:2]], axis=1).max()))


def test_two_types_of_queries_have_two_sums(rows_summed):
    memory = sh.HopfieldMemory(PATTERNS.astype(np.float32), 0.4, separation="softmax", structure=FEATURES[2])
    for dtype in (np.float32, np.float64, np.float32, np.float64):
        x = QUERIES.astype(dtype)
        got = memory.update(x)
        assert got.dtype == dtype
        options = {"separation": "softmax", "structure": FEATURES[2]}
        assert same_bits(got, sh.update(x, memory.patterns, 0.4, **options))
    assert rows_summed() == (2 + 4) * M  # four times by the function


def test_what_was_added_and_cannot_be_summed(rows_summed):
    """Is said when it is asked for, and costs the memory nothing."""
    patterns, values, x = (a.astype(np.float32) for a in (PATTERNS, VALUES, QUERIES))
    memory = sh.HopfieldMemory(patterns, values=values, separation="softmax", structure=LinearFeatures())
    want = memory.update(x)
    memory.add(np.full((1, D), 1e12), np.full((1, 3), 1e30))
    rows_summed()
    for _ in range(2):
        with pytest.raises(OverflowError, match=r"^patterns: their sums"):
            memory.update(x)
        assert rows_summed() == 1
    memory.remove(-1)
    assert same_bits(memory.update(x), want)


def test_states_add_all_or_nothing_still():
    state = RandomFeatures(8).state(PATTERNS)
    before = state._total.copy()
    with pytest.raises(ValueError, match="patterns: row 1 contains NaN"):
        state.add(np.where(np.arange(2 * D).reshape(2, D) == D, np.nan, 1.0))
    assert state.n_patterns == M
    assert same_bits(state._total, before)


# --- any sequence -----------------------------------------------------------------------------------------------------


class Changes(RuleBasedStateMachine):
    """A memory whose patterns and model change, beside arrays that the functions are asked with."""

    @initialize(similarity=st.sampled_from(SIMILARITIES), of_values=st.booleans(), seed=st.integers(0, 2**32 - 1))
    def begin(self, similarity, of_values, seed):
        self.rng = np.random.default_rng(seed)
        self.patterns = self.rng.normal(size=(6, D))
        self.values = self.rng.normal(size=(6, 2)) if of_values else None
        self.moved, self.similarity = False, similarity
        self.memory = sh.HopfieldMemory(self.patterns.copy(), 0.5, values=self.values, similarity=similarity)

    @rule(
        structure=st.sampled_from(
            [None, TopK(2), RandomMask(2, 7), Window(1), Window(0, positions=[0, 1, 2]), RandomFeatures(5), *CAUSAL]
        ),
        separation=st.sampled_from(["sparsemax", "softmax"]),
    )
    def change_structure(self, structure, separation):
        self.memory.structure, self.moved = structure, False
        self.memory.separation = separation if not isinstance(structure, _features.Features) else "softmax"

    @rule(beta=st.sampled_from([0.1, 2.0]))
    def change_beta(self, beta):
        self.memory.beta = beta

    @rule(n=st.integers(1, 3))
    def add(self, n):
        more = self.rng.normal(size=(n, D)), None if self.values is None else self.rng.normal(size=(n, 2))
        self.memory.add(*more)
        self.patterns = np.r_[self.patterns, more[0]]
        if self.values is not None:
            self.values = np.r_[self.values, more[1]]

    @rule(share=st.floats(0, 1), last=st.booleans())
    def remove(self, share, last):
        m = len(self.patterns)
        gone = np.arange(m) >= m - 1 if last else self.rng.random(m) < share
        if (~gone).sum() < 3:
            return
        self.memory.remove(gone)
        kept = np.flatnonzero(~gone)
        self.moved |= bool((kept != np.arange(len(kept))).any())
        self.patterns = self.patterns[kept]
        if self.values is not None:
            self.values = self.values[kept]

    @rule(how=st.sampled_from([copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))]))
    def take_a_copy(self, how):
        if not (self.moved and self.memory.structure and self.memory.structure.by_place):
            self.memory, self.moved = how(self.memory), False

    @invariant()
    def answers_as_the_functions(self):
        structure, m = self.memory.structure, len(self.patterns)
        x = self.rng.normal(size=(m if structure in (Window(1), *CAUSAL) else 3, D))
        options = {"similarity": self.similarity, "separation": self.memory.separation, "structure": structure}
        got = answered(self.memory.update, x)
        if structure is not None and structure.by_place and self.moved:
            assert "set memory.structure again" in got
            return
        want = answered(sh.update, x, self.patterns, self.memory.beta, values=self.values, **options)
        if isinstance(want, str) or not isinstance(structure, _features.Features):
            assert same(got, want)
        else:
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)


TestChanges = Changes.TestCase
TestChanges.settings = settings(stateful_step_count=12)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", PAIRS + SQUARE + FEATURES + CAUSAL, ids=name_of)
def test_saved_and_loaded(structure, tmp_path):
    path, x = tmp_path / "memory", queries_for(structure)
    separation = "softmax" if isinstance(structure, _features.Features) else sh.Entmax(1.3)
    memory = sh.HopfieldMemory(PATTERNS, 0.7, values=VALUES, separation=separation, structure=structure)
    memory.save(path)
    others = [sh.HopfieldMemory.load(path, mmap=mmap, verify=True) for mmap in (False, True)]
    others += [pickle.loads(pickle.dumps(memory)), copy.copy(memory), copy.deepcopy(memory)]
    for other in others:
        assert other.structure == structure
        assert repr(other) == repr(memory)
        assert same_bits(other.update(x), memory.update(x))
    others[1].add(PATTERNS[:1], VALUES[:1])
    others[1].save(path)
    assert sh.HopfieldMemory.load(path).structure == structure


def test_files_without_a_structure_are_what_they_were(tmp_path):
    path = tmp_path / "memory"
    sh.HopfieldMemory(PATTERNS, structure=Full()).save(path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"].keys() == files.FIELDS
    assert sh.HopfieldMemory.load(path).structure is None


def test_structures_that_no_file_holds(tmp_path):
    path = tmp_path / "memory"
    memory = sh.HopfieldMemory(PATTERNS, structure=Window(1, positions=np.zeros(files.HEADER_LIMIT // 3, int)))
    with pytest.raises(ValueError, match=r"^structure: its lists make a header of"):
        memory.save(path)

    class Own(TopK):
        pass

    memory.structure = Own(2)
    with pytest.raises(ValueError, match=r"^structure: only those of"):
        memory.save(path)
    assert list(tmp_path.iterdir()) == []
    assert same_bits(memory.update(QUERIES), sh.update(QUERIES, PATTERNS, structure=TopK(2)))


TEXTS = {
    "no JSON": "TopK(3)",
    "empty": "",
    "unfinished": '{"TopK": {',
    "endless": "[" * 100_000,
    "deep": '{"TopK": {"k": ' + "[" * 900 + "]" * 900 + "}}",
    "deeper": '{"TopK": {"k": ' + "[" * 20_000 + "]" * 20_000 + "}}",
    "digits": '{"TopK": {"k": ' + "9" * 10_000 + "}}",
    "NaN": '{"TopK": {"k": NaN}}',
    "a number": "3",
    "code": "__import__('os')",
}
TEXTS |= {name: json.dumps(wrong) for name, (wrong, _) in HOSTILE.items() if name not in ("k deep", "no text")}


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_files(name, tmp_path):
    """With the right checksums, so that what is said of the structure has to be looked at."""
    path = tmp_path / "memory"
    fields = files._fields_of(files.Model("dot", "softmax", 1.0, 1.0)) | {"structure": TEXTS[name]}
    files.write_tensors(path, fields, {"patterns": PATTERNS})
    for mmap in (False, True):
        with pytest.raises(sh.FileFormatError, match="structure: ") as caught:
            sh.HopfieldMemory.load(path, mmap=mmap)
        assert str(caught.value).startswith(f"{path}: structure: ")


def test_a_damaged_structure(tmp_path):
    path = tmp_path / "memory"
    sh.HopfieldMemory(PATTERNS, structure=TopK(3)).save(path)
    data = path.read_bytes()
    at = data.index(b"TopK")
    for i in range(at - 20, at + 20):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(sh.FileFormatError):
            sh.HopfieldMemory.load(path)


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("separation", CUTOFF_MAPS, ids=name_of)
def test_certificates_hold_for_the_k_best(separation, similarity):
    draws = np.random.default_rng(6)
    patterns = draws.normal(size=(40, 7))
    values = draws.normal(size=(40, 2))
    full = sh.HopfieldMemory(patterns, values=values, similarity=similarity, separation=separation)
    beta = float(np.quantile(full.critical_beta()[np.isfinite(full.critical_beta())], 0.6))
    x = patterns + 0.2 * draws.normal(size=patterns.shape)
    full.beta = beta
    for k in (1, 2, 40):
        memory = sh.HopfieldMemory(
            patterns, beta, values=values, similarity=similarity, separation=separation, structure=TopK(k)
        )
        for call in ("critical_beta", "is_certified", "stored_fraction", "exact_radius", "margin"):
            assert same_bits(getattr(memory, call)(), getattr(full, call)())
        assert memory.suggest_beta(0.3) == full.suggest_beta(0.3)
        assert memory.capacity() == full.capacity()
        assert f"structure=TopK(k={k})" in str(memory.report())
        certain, radius = memory.is_certified(), memory.exact_radius()
        assert 0.2 < certain.mean() < 1
        assert same_bits(memory.update(patterns)[certain], values[certain])
        assert memory.is_fixed_point()[certain].all()
        # queries that are certified, and those within the radius
        index = memory.certify(x).index
        assert (index >= 0).sum() > 5
        assert same_bits(memory.update(x)[index >= 0], values[index[index >= 0]])
        away = draws.normal(size=patterns.shape)
        rows = patterns / np.linalg.norm(patterns, axis=1, keepdims=True) if similarity == "cosine" else patterns
        near = rows + away / np.linalg.norm(away, axis=1, keepdims=True) * 0.999 * np.clip(radius, 0, None)[:, None]
        assert same_bits(memory.update(near)[radius >= 0], values[radius >= 0])
    one = sh.HopfieldMemory(patterns, beta, similarity=similarity, separation=separation, structure=TopK(1))
    assert one.is_fixed_point().sum() > certain.sum()  # the best pattern gets all weight at any beta


@pytest.mark.parametrize("structure", [*PAIRS[3:], *SQUARE, *FEATURES, *CAUSAL], ids=name_of)
def test_certificates_are_refused_under_others(structure):
    memory = sh.HopfieldMemory(PATTERNS, 5.0, structure=structure)
    for call in (
        memory.critical_beta,
        memory.is_certified,
        memory.stored_fraction,
        memory.suggest_beta,
        memory.exact_radius,
        memory.capacity,
        memory.report,
        lambda: memory.certify(QUERIES),
    ):
        with pytest.raises(ValueError, match=r"^structure: .*certif"):
            call()
    plain = sh.HopfieldMemory(PATTERNS, 5.0)
    assert same_bits(memory.margin(), plain.margin())
    assert same_bits(memory.duplicates(3.0).pairs, plain.duplicates(3.0).pairs)


@pytest.mark.parametrize("structure", [TopK(1), TopK(3), PAIRS[5], *SQUARE], ids=name_of)
def test_fixed_points_follow_the_structure(structure):
    found = []
    for beta in (0.2, 2.0, 50.0):
        memory = sh.HopfieldMemory(PATTERNS, beta, structure=structure)
        moved = np.linalg.norm(memory.update(PATTERNS) - PATTERNS, axis=1)
        fixed = memory.is_fixed_point()
        found.append(fixed.sum())
        np.testing.assert_array_equal(fixed, moved <= 4 * np.finfo(float).eps * np.linalg.norm(PATTERNS, axis=1).max())
    assert found[-1] > 0
    if structure == PAIRS[5]:
        assert found[-1] <= structure.mask(M, M).diagonal().sum()  # a pattern that is not looked at is none


def test_where_there_are_no_fixed_points():
    memory = sh.HopfieldMemory(PATTERNS, structure=FEATURES[0])
    with pytest.raises(ValueError, match=r"^structure: LinearFeatures has no window"):
        memory.is_fixed_point()
    memory.structure = PAIRS[3]
    with pytest.raises(ValueError, match=r"^positions: must be one for each of the 24 queries"):
        memory.is_fixed_point()
    memory.structure, memory.separation = TopK(2), "softmax"
    for call in (memory.is_fixed_point, memory.critical_beta):
        with pytest.raises(ValueError, match=r"^separation:"):
            call()


# --- explanations -----------------------------------------------------------------------------------------------------

ALONE = [
    TopK(3),
    TopK(M),
    RandomMask(6, 2),
    Window(3, positions=[9]),
    Window(M, causal=True, positions=[9]),
    BlockSparse(np.array([[True, False, True]]), (1, 8)),
]


@pytest.mark.parametrize("separation", ALL_MAPS, ids=name_of)
@pytest.mark.parametrize("structure", ALONE, ids=name_of)
def test_explanations(structure, separation):
    memory = sh.HopfieldMemory(PATTERNS, 0.6, separation=separation, structure=structure, ids=np.arange(M) + 100)
    query = QUERIES[1]
    why = memory.explain(query, top=M)
    z = reference.canonical_scores(query[None], PATTERNS, "dot")[0]
    seen = np.argsort(-z, kind="stable")[: structure.k] if isinstance(structure, TopK) else None
    if seen is None:
        seen = np.flatnonzero(structure.mask(1, M)[0])
    p = np.zeros(M)
    p[seen] = reference.update(query, PATTERNS[seen], 0.6, values=np.eye(len(seen)), separation=separation)
    got = np.zeros(M)
    got[why.positions] = why.weights
    np.testing.assert_allclose(got, p, rtol=0, atol=1e-12)
    assert why.support_size == np.count_nonzero(p)
    assert set(why.positions) <= set(seen)
    assert why.stages["looked at"] == len(seen)
    assert why.stages["stored"] == M
    assert why.structure == structure
    np.testing.assert_allclose(why.scores, z[why.positions], atol=1e-12)
    np.testing.assert_allclose(why.gaps, z[seen].max() - z[why.positions] if separation in CUTOFF_MAPS else why.gaps)
    assert (why.ids == why.positions + 100).all()
    assert same_bits(why.state, memory.update(query))
    assert repr(structure) in str(why)
    if separation in CUTOFF_MAPS:
        without = [i for i in seen if p[i] == 0]
        assert (why.miss is None) == (not without)
        if without:
            assert why.miss.position == max(without, key=lambda i: z[i])
            assert why.miss.margin >= 0
    if why.energy is not None:
        assert why.energy == memory.energy(query)


def test_nothing_to_explain():
    memory = sh.HopfieldMemory(PATTERNS, structure=BlockSparse(np.array([[False, False]]), (1, 12)))
    with pytest.raises(ValueError, match=r"^structure: shows the query no pattern"):
        memory.explain(QUERIES[0])
    memory.structure = Window(2)
    with pytest.raises(ValueError, match=r"^positions: .* 1 queries and 24 patterns"):
        memory.explain(QUERIES[0])


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", [TopK(3), RandomMask(4), Window(2, positions=np.arange(N)), RandomFeatures(12)])
def test_threads_see_the_patterns_before_or_after(structure):
    """Others add and ask meanwhile: each answer is that of some number of whole additions."""
    parts = np.random.default_rng(8).normal(size=(12, 3, D))
    options = {"separation": "softmax", "structure": structure}
    memory = sh.HopfieldMemory(PATTERNS, 0.5, **options)
    lengths = [PATTERNS, *np.split(parts.reshape(-1, D), 12)]
    wanted = [sh.update(QUERIES, np.concatenate(lengths[: n + 1]), 0.5, **options) for n in range(13)]
    answers, failures, done = [], [], threading.Event()

    def ask():
        try:
            while not done.is_set():
                answers.append(memory.update(QUERIES))
            answers.append(memory.update(QUERIES))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=ask) for _ in range(3)]
    for worker in workers:
        worker.start()
    for part in parts:
        memory.add(part)
    done.set()
    for worker in workers:
        worker.join()
    assert not failures
    exact = not isinstance(structure, RandomFeatures)
    for answer in answers:
        near = [np.abs(answer - want).max() for want in wanted]
        assert min(near) <= (0 if exact else 1e-12)
    assert np.abs(memory.update(QUERIES) - wanted[-1]).max() <= (0 if exact else 1e-12)
