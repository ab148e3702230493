"""Bad input: each an exception whose message begins with the argument at fault; outputs stay untouched."""

import numpy as np
import pytest
from helpers import name_of, quiet

import sparsehopfield as sh

M, D, N = 12, 4, 3
rng = np.random.default_rng(0)
PATTERNS = rng.normal(size=(M, D)).astype(np.float32)
QUERIES = rng.normal(size=(N, D)).astype(np.float32)
VALUES = rng.normal(size=(M, 2)).astype(np.float32)

CALLS = {
    "energy": sh.energy,
    "update": sh.update,
    "associate": sh.associate,
    "retrieve": sh.retrieve,
    "candidates": sh.candidates,
    "memory": lambda queries, patterns, *beta, **k: sh.HopfieldMemory(patterns, *beta, **k).update(queries),
}
WITH_VALUES = ["update", "retrieve", "candidates", "memory"]
WITH_OUT = {"update": sh.update, "retrieve": sh.retrieve}


def call(name, queries=QUERIES, patterns=PATTERNS, *beta, **options):
    return CALLS[name](queries, patterns, *beta, **options)


def spoiled(array, value, row, column):
    array = np.array(array)
    array[row, column] = value
    return array


# --- arrays -----------------------------------------------------------------------------------------

WRONG_KINDS = {
    "complex": lambda a: a.astype(complex),
    "object": lambda a: a.astype(object),
    "str": lambda a: a.astype(str),
    "bytes": lambda a: a.astype("S8"),
    "datetime": lambda a: np.zeros(a.shape, "M8[s]"),
    "structured": lambda a: np.zeros(a.shape, [("x", "f4")]),
    "words": lambda a: "patterns",
    "None": lambda a: None,
}


@pytest.mark.covering(2)
@pytest.mark.parametrize("kind", WRONG_KINDS)
@pytest.mark.parametrize("argument", ["queries", "patterns"])
@pytest.mark.parametrize("name", CALLS)
def test_wrong_kinds(name, argument, kind):
    arrays = {"queries": QUERIES, "patterns": PATTERNS}
    arrays[argument] = WRONG_KINDS[kind](arrays[argument])
    with pytest.raises(TypeError, match=rf"^{argument}:"):
        call(name, **arrays)


@pytest.mark.parametrize("name", WITH_VALUES)
def test_wrong_values(name):
    for kind, error in (("complex", TypeError), ("object", TypeError), ("str", TypeError)):
        with pytest.raises(error, match=r"^values:"):
            call(name, values=WRONG_KINDS[kind](VALUES))
    for wrong in (VALUES[:-1], VALUES[0], VALUES[None], np.empty((M, 0), np.float32)):
        with pytest.raises(ValueError, match=r"^values:"):
            call(name, values=wrong)
    for count in (len(VALUES) - 1, len(VALUES) + 1):
        with pytest.raises(ValueError, match=rf"^values: needs one row per pattern .*got {count}$"):
            call(name, values=np.resize(VALUES, (count, VALUES.shape[1])))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"^values:.*\b7\b"):
            call(name, values=spoiled(VALUES, bad, 7, 1))


@pytest.mark.parametrize("name", CALLS)
def test_wrong_shapes(name):
    for wrong in (
        QUERIES[:, :-1],
        np.float32(1.0),
        np.zeros((2, 3, D + 1), np.float32),
        np.zeros(D + 1, np.float32),
        np.zeros((N, 0), np.float32),
        np.zeros(0, np.float32),
    ):
        with pytest.raises(ValueError, match=r"^queries:"):
            call(name, queries=wrong)
    for wrong in (PATTERNS[0], PATTERNS[None], np.float32(1.0), PATTERNS[:0], np.empty((M, 0), np.float32)):
        with pytest.raises(ValueError, match=r"^patterns:"):
            call(name, patterns=wrong)


@pytest.mark.covering(2)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", CALLS)
def test_not_finite(name, dtype, bad):
    """The argument and the first bad row are named."""
    for column in range(D):
        with pytest.raises(ValueError, match=r"^queries:.*\b1\b"):
            call(name, queries=spoiled(spoiled(QUERIES.astype(dtype), bad, 1, column), np.nan, 2, 0))
        with pytest.raises(ValueError, match=r"^patterns:.*\b5\b"):
            call(name, patterns=spoiled(spoiled(PATTERNS.astype(dtype), bad, 5, column), np.nan, 9, 0))


@pytest.mark.covering(2)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15", sh.Polynomial(2)], ids=name_of)
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("place", [0, 5, 1023, 1024, 2047, 2999])
def test_not_finite_anywhere_among_many_patterns(place, similarity, separation):
    """A NaN must not vanish in a maximum, wherever in a tile it lies."""
    patterns = rng.normal(size=(3000, 20)).astype(np.float32)
    x = rng.normal(size=20).astype(np.float32)
    for column in (0, 7, 19):
        with pytest.raises(ValueError, match=rf"^patterns:.*\b{place}\b"):
            sh.update(x, spoiled(patterns, np.nan, place, column), similarity=similarity, separation=separation)


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15", sh.Polynomial(2)], ids=name_of)
def test_without_the_check_a_nan_still_shows(separation):
    """check_finite=False is a promise of the caller; breaking it must not end in a good-looking state."""
    for arrays in (
        {"queries": spoiled(QUERIES, np.nan, 1, 2)},
        {"patterns": spoiled(PATTERNS, np.nan, 5, 0)},
        {"queries": spoiled(QUERIES, np.inf, 1, 2)},
        {"patterns": spoiled(PATTERNS, -np.inf, 5, 0)},
    ):
        for name in ("update", "energy", "associate", "retrieve", "candidates", "memory"):
            if name == "energy" and hasattr(separation, "order"):
                continue
            options = {"top": 3} if name == "associate" else {}
            try:
                result = call(name, check_finite=False, separation=separation, **arrays, **options)
            except (ValueError, OverflowError):
                continue  # found all the same
            if name == "associate":
                result = result.data
            elif name == "candidates":
                result = result.states()
            assert not np.isfinite(result).all()


def test_first_row_of_many_threads():
    """The first bad row is named, not the one that some thread found first."""
    queries = rng.normal(size=(5000, D)).astype(np.float32)
    queries[[1234, 1235, 3000, 4999]] = np.nan
    for _ in range(20):
        with pytest.raises(ValueError, match=r"^queries:.*\b1234\b"):
            sh.update(queries, PATTERNS)
        with pytest.raises(ValueError, match=r"^patterns:.*\b1234\b"):
            sh.update(QUERIES, queries)


@pytest.mark.parametrize("name", CALLS)
def test_a_zero_row_has_no_cosine(name):
    with pytest.raises(ValueError, match=r"^patterns:.*\b8\b"):
        call(name, patterns=spoiled(PATTERNS, 0, 8, slice(None)), similarity="cosine")
    # a zero query has the same score with every pattern
    assert sh.associate(np.zeros((1, D), np.float32), PATTERNS, similarity="cosine").nnz == M


@pytest.mark.parametrize("name", CALLS)
def test_scores_beyond_float32(name):
    big = np.full((2, D), 1e20, np.float32)
    with pytest.raises(OverflowError, match=r"^(queries|patterns):"):
        call(name, queries=big, patterns=np.tile(big, (6, 1)))
    with pytest.raises(OverflowError, match=r"^patterns:"):
        call(name, patterns=np.tile(big, (6, 1)), similarity="euclidean")
    huge = np.full((2, D), 1e200)
    with pytest.raises(OverflowError, match=r"^(queries|patterns):"):
        call(name, queries=huge, patterns=np.tile(huge, (6, 1)))
    # numbers that fit float64 but not float32 are float64's business
    assert np.isfinite(sh.update(huge / 1e100, np.tile(huge / 1e100, (6, 1)))).all()


@pytest.mark.parametrize("name", CALLS)
def test_sizes_beyond_int(name):
    wide = 2**31 + 8  # no memory: every element is the same byte
    row = np.broadcast_to(np.uint8(1), (1, wide))
    with pytest.raises((OverflowError, ValueError), match=r"^(queries|patterns):"):
        call(name, queries=row, patterns=row)


# --- beta -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_beta(name):
    for wrong in (0, -1.0, np.nan, np.inf, -np.inf, np.array([1.0, 0.0, 1.0]), np.array([1.0, 2.0, np.nan])):
        if name == "memory" and np.ndim(wrong):
            continue
        with pytest.raises(ValueError, match=r"^beta:"):
            call(name, QUERIES, PATTERNS, wrong)
    for wrong in ("1", 1j, object(), None, [1, 2, "x"]):
        with pytest.raises(TypeError, match=r"^beta:"):
            call(name, QUERIES, PATTERNS, wrong)
    for wrong in (np.ones(N + 1), np.ones((N, 1, 2)), np.ones(0)):
        with pytest.raises(ValueError, match=r"^beta:"):
            call(name, QUERIES, PATTERNS, wrong)


# --- names and options ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r"^separation:.*'sparsmax'.*did you mean 'sparsemax'.*'softmax'"):
        call(name, separation="sparsmax")
    with pytest.raises(ValueError, match=r"^similarity:.*'euclid'.*did you mean 'euclidean'.*'cosine'"):
        call(name, similarity="euclid")
    with pytest.raises(ValueError, match=r"^separation:.*Valid: "):
        call(name, separation="qqqqqqqqqqqqq")
    for wrong in (None, 3, 1.5, b"sparsemax", sh.Entmax, ["sparsemax"]):
        with pytest.raises(TypeError, match=r"^separation:"):
            call(name, separation=wrong)
        with pytest.raises(TypeError, match=r"^similarity:"):
            call(name, similarity=wrong)


@pytest.mark.parametrize("name", CALLS)
def test_structures_are_objects(name):
    for wrong in ("topk", 3):
        with pytest.raises(TypeError, match=r"^structure:"):
            call(name, structure=wrong)


@pytest.mark.parametrize("name", CALLS)
def test_options_come_by_name(name):
    with pytest.raises(TypeError):
        call(name, QUERIES, PATTERNS, 1.0, None, "dot")
    with pytest.raises(TypeError):
        call(name, temperature=2.0)


def test_parameters_of_maps():
    for wrong in (0.999, 0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^alpha:"):
            sh.Entmax(wrong)
    for wrong in (0, -3):
        with pytest.raises(ValueError, match=r"^order:"):
            sh.Polynomial(wrong)
    for wrong in ("x", None, 1j):
        with pytest.raises(TypeError, match=r"^alpha:"):
            sh.Entmax(wrong)
        with pytest.raises(TypeError, match=r"^order:"):
            sh.Polynomial(wrong)
    with pytest.raises(TypeError, match=r"^order:"):
        sh.Polynomial(2.5)


def test_energy_of_a_polynomial_says_why():
    with pytest.raises(ValueError, match=r"(?i)^separation:.*energy"):
        sh.energy(QUERIES, PATTERNS, separation=sh.Polynomial(3))


def test_associate_options():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=r"^top:"):
            sh.associate(QUERIES, PATTERNS, top=wrong)
    for wrong in (1.5, "3"):
        with pytest.raises(TypeError, match=r"^top:"):
            sh.associate(QUERIES, PATTERNS, top=wrong)
    for wrong in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^min_weight:"):
            sh.associate(QUERIES, PATTERNS, min_weight=wrong)
    with pytest.raises(TypeError, match=r"^min_weight:"):
        sh.associate(QUERIES, PATTERNS, min_weight="0.1")
    with pytest.raises(ValueError, match=r"top.*min_weight|min_weight.*top"):
        sh.associate(QUERIES, PATTERNS, separation="softmax")


def test_retrieve_options():
    with pytest.raises(ValueError, match=r"^max_steps:"):
        sh.retrieve(QUERIES, PATTERNS, max_steps=-1)
    for wrong in (1.5, "3", None):
        with pytest.raises(TypeError, match=r"^max_steps:"):
            sh.retrieve(QUERIES, PATTERNS, max_steps=wrong)
    for wrong in (-1e-9, np.nan):
        with pytest.raises(ValueError, match=r"^tol:"):
            sh.retrieve(QUERIES, PATTERNS, tol=wrong)
    with pytest.raises(TypeError, match=r"^tol:"):
        sh.retrieve(QUERIES, PATTERNS, tol="1e-3")
    for wrong in ("weigths", ("energy", "nothing")):
        with pytest.raises(ValueError, match=r"^return_info:"):
            sh.retrieve(QUERIES, PATTERNS, return_info=wrong)


def test_candidates_and_merge():
    with pytest.raises(ValueError, match=r"^offset:"):
        sh.candidates(QUERIES, PATTERNS, offset=-1)
    with pytest.raises(TypeError, match=r"^offset:"):
        sh.candidates(QUERIES, PATTERNS, offset=1.5)
    part = sh.candidates(QUERIES, PATTERNS)
    with pytest.raises(ValueError, match=r"^parts:"):
        sh.merge([])
    for wrong in ([part, 3], [QUERIES], 5):
        with pytest.raises(TypeError, match=r"^parts:"):
            sh.merge(wrong)
    for other in (
        sh.candidates(QUERIES[:2], PATTERNS, offset=M),
        sh.candidates(QUERIES, PATTERNS, 2.0, offset=M),
        sh.candidates(QUERIES, PATTERNS, separation="entmax15", offset=M),
        sh.candidates(QUERIES, PATTERNS, separation="softmax", offset=M),
        sh.candidates(QUERIES.astype(float), PATTERNS, offset=M),
    ):
        with pytest.raises((ValueError, TypeError), match=r"^parts:"):
            sh.merge([part, other])
    with pytest.raises(ValueError, match=r"^parts:"):  # the same patterns twice
        sh.merge([part, part])
    with pytest.raises(ValueError, match=r"^values:"):
        part.states(VALUES[:5])


def test_memory_options():
    with pytest.raises(ValueError, match=r"^ids:"):
        sh.HopfieldMemory(PATTERNS, ids=np.arange(M - 1))
    memory = sh.HopfieldMemory(PATTERNS)
    with pytest.raises(ValueError, match=r"^queries:"):
        memory.update(QUERIES[:, 1:])
    with pytest.raises(ValueError, match=r"^queries:"):
        memory.retrieve(spoiled(QUERIES, np.nan, 0, 0))
    with pytest.raises(TypeError, match=r"^queries:"):
        memory.associate(QUERIES.astype(complex))


def test_threads():
    before = sh.get_num_threads()
    for wrong in (0, -1, 65, 2**40):
        with pytest.raises(ValueError, match=r"^n:"):
            sh.set_num_threads(wrong)
    for wrong in (1.5, "2", None):
        with pytest.raises(TypeError, match=r"^n:"):
            sh.set_num_threads(wrong)
    assert sh.get_num_threads() == before
    with pytest.raises(ValueError, match=r"^mode:"):
        sh.show_config(mode="json")


# --- out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_OUT)
def test_out(name):
    function = WITH_OUT[name]
    readonly = np.zeros((N, D), np.float32)
    readonly.flags.writeable = False
    for wrong in (
        readonly,
        np.zeros((N, D + 1), np.float32),
        np.zeros((N + 1, D), np.float32),
        np.zeros((1, N, D), np.float32),
        np.zeros(N * D, np.float32),
        np.broadcast_to(np.float32(0), (N, D)),
        np.lib.stride_tricks.as_strided(np.zeros(N * D, np.float32), (N, D), (4, 4)),
    ):  # rows over each other
        with pytest.raises((ValueError, TypeError), match=r"^out:"):
            function(QUERIES, PATTERNS, out=wrong)
    for wrong in (
        np.zeros((N, D)),
        np.zeros((N, D), np.float16),
        np.zeros((N, D), np.int32),
        np.zeros((N, D), np.float32).tolist(),
        "out",
        np.zeros((N, D), ">f4"),
    ):
        with pytest.raises((ValueError, TypeError), match=r"^out:"):
            function(QUERIES, PATTERNS, out=wrong)
    with pytest.raises(ValueError, match=r"^out:"):
        function(QUERIES, PATTERNS, values=VALUES, out=np.zeros((N, D), np.float32))


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_must_not_overlap_the_inputs(name):
    function = WITH_OUT[name]
    queries, patterns, values = QUERIES.copy(), PATTERNS.copy(), rng.normal(size=(M, D)).astype(np.float32)
    saved = [a.copy() for a in (queries, patterns, values)]
    wide = np.zeros((N, 2 * D), np.float32)
    wide[:, :D] = queries
    for out in (queries, queries[::-1], patterns[:N], patterns[-N:], values[1 : 1 + N]):
        with pytest.raises(ValueError, match=r"^out:"):
            function(queries, patterns, values=values, out=out)
    with pytest.raises(ValueError, match=r"^out:"):
        function(wide[:, :D], patterns, out=wide[:, 2 : 2 + D])
    with pytest.raises(ValueError, match=r"^out:"):
        getattr(sh.HopfieldMemory(patterns), name)(queries, out=patterns[:N])
    for a, b in zip((queries, patterns, values), saved, strict=True):
        np.testing.assert_array_equal(a, b)
    # interleaved, but not one element in common
    function(wide[:, :D], patterns, out=wide[:, D:])
    np.testing.assert_array_equal(wide[:, D:], function(QUERIES, PATTERNS))


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_stays_untouched(name):
    function = WITH_OUT[name]
    out = np.full((N, D), 7, np.float32)
    for arguments, options in (
        ((spoiled(QUERIES, np.nan, 2, 3), PATTERNS), {}),
        ((QUERIES, spoiled(PATTERNS, np.inf, 11, 3)), {}),
        ((QUERIES, PATTERNS, -1.0), {}),
        ((QUERIES, PATTERNS, np.array([1.0, 1.0, np.nan])), {}),
        ((QUERIES, PATTERNS), {"separation": "none such"}),
        ((QUERIES, PATTERNS), {"similarity": "none such"}),
        ((QUERIES, PATTERNS), {"values": spoiled(PATTERNS, np.nan, 1, 1)}),
        ((QUERIES, spoiled(PATTERNS, 0, 3, slice(None))), {"similarity": "cosine"}),
        ((spoiled(QUERIES, 1e38, 2, 0) * np.float32(3), PATTERNS * np.float32(1e3)), {}),
    ):
        for separation in ("sparsemax", "softmax"):
            with pytest.raises((ValueError, OverflowError)):
                function(*arguments, out=out, **{"separation": separation, **options})
            np.testing.assert_array_equal(out, 7)


# --- whatever comes ---------------------------------------------------------------------------------


def test_anything_else_is_an_exception():
    """Arguments of every kind in every place: an exception or a result, never a crash."""
    junk = [
        None,
        0,
        -1,
        1.5,
        "x",
        b"x",
        [],
        {},
        (),
        object(),
        np.zeros(0),
        np.zeros((0, 0)),
        np.zeros((2, 2, 2)),
        np.ma.masked_array(PATTERNS),
        [[1, 2], [3]],
        float("nan"),
        2**70,
        True,
        range(3),
        slice(1),
        np.float32,
    ]
    for function in (sh.update, sh.energy, sh.associate, sh.retrieve, sh.candidates):
        for bad in junk:
            for place in range(3):
                arguments = [QUERIES, PATTERNS, 1.0]
                arguments[place] = bad
                _try(function, *arguments)
            for option in (
                "values",
                "similarity",
                "separation",
                "structure",
                "out",
                "check_finite",
                "max_steps",
                "tol",
                "return_info",
                "top",
                "min_weight",
                "offset",
            ):
                _try(function, QUERIES, PATTERNS, **{option: bad})
    for bad in junk:
        _try(sh.merge, bad)
        _try(sh.merge, [bad])
        _try(sh.HopfieldMemory, bad)
        for row_map in (sh.softmax, sh.sparsemax, sh.entmax, sh.polynomial, sh.sparsemax_threshold):
            _try(row_map, bad)
            _try(row_map, QUERIES, axis=bad)
            _try(row_map, QUERIES, out=bad)


def _try(function, *arguments, **options):
    with quiet():
        try:
            function(*arguments, **options)
        except (ValueError, TypeError, OverflowError, NotImplementedError):
            pass


@pytest.mark.parametrize(
    "name", ["memory", "extend", "update", "energy", "retrieve", "associate", "solve", "mix", "accumulate", "merge"]
)
def test_the_core_checks_what_would_be_unsafe(name):
    """The private functions refuse what the Python layer never passes on."""
    core, f8 = sh._core, np.zeros
    memory = core.memory(PATTERNS, None, 0, 0, 1.0, True)
    scaled = core.memory(PATTERNS.astype(np.float16), VALUES, 0, 0, 0.5, True)
    good = np.ascontiguousarray(QUERIES)
    one = np.ones(1)
    bad_calls = {
        "memory": [
            (),
            (PATTERNS,),
            (PATTERNS, None, 0, 0),
            (3, None, 0, 0, 1.0, True),
            (PATTERNS.T, None, 0, 0, 1.0, True),
            (PATTERNS, VALUES[:3], 0, 0, 1.0, True),
            (PATTERNS, None, 9, 0, 1.0, True),
            (PATTERNS, None, 0, 0, "x", True),
            (PATTERNS.astype(float), None, 0, 0, 1.0, True),
            (PATTERNS.astype(np.int16), None, 0, 0, 1.0, True),
            *((PATTERNS.astype(np.float16), None, 0, 0, wrong, True) for wrong in (-1.0, np.nan, np.inf)),
        ],
        "extend": [
            (),
            (memory, PATTERNS),
            (3, PATTERNS, None),
            (memory, PATTERNS[:-1], None),
            (memory, PATTERNS[:, :-1].copy(), None),
            (memory, PATTERNS, VALUES),
            (memory, PATTERNS.astype(float), None),
            (memory, PATTERNS.astype(np.float16), None),
            (scaled, PATTERNS.astype(np.float16), None),
            (scaled, PATTERNS.astype(np.float16), VALUES[:, :1].copy()),
            (scaled, np.tile(PATTERNS, (2, 1)).astype(np.float16), VALUES),
        ],
        "update": [
            (3, good, one, 0, 2.0, good.copy()),
            (memory, good[:, :2].copy(), one, 0, 2.0, good.copy()),
            (memory, good, f8(7), 0, 2.0, good.copy()),
            (memory, good, one, 99, 2.0, good.copy()),
            (memory, good, one, 2, 0.5, good.copy()),
            (memory, good, one, 0, 2.0, f8((1, 1))),
            (memory, good, -one, 0, 2.0, good.copy()),
        ],
        "energy": [(memory, good, one, 3, 2.0), (memory, good.T, one, 0, 2.0), (memory, good, 1.0, 0, 2.0)],
        "retrieve": [
            (memory, good, one, 0, 2.0, -1, 0.0, good.copy()),
            (memory, good, one, 0, 2.0, 5, -1.0, good.copy()),
            (memory, good, one, 0, 2.0, "x", 0.0, good.copy()),
        ],
        "associate": [
            (memory, good, one, 1, 1.0, 0, 0.0),
            (memory, good, one, 0, 2.0, -1, 0.0),
            (memory, good, one, 0, 2.0, 0, np.nan),
        ],
        "solve": [
            (0, 2.0, 0, one, np.array([0, 5]), f8(3)),
            (0, 2.0, 0, one, np.array([0, 2, 1]), f8(1)),
            (0, 2.0, 0, one, np.array([1, 3]), f8(3)),
            (1, 2.0, 0, one, np.array([0, 3]), f8(3)),
            (0, 2.0, 0, one, np.array([], np.int64), f8(0)),
        ],
        "mix": [
            (memory, np.array([0, 1]), np.array([99]), f8(1), good[:1].copy()),
            (memory, np.array([0, 1]), np.array([-1]), f8(1), good[:1].copy()),
            (memory, np.array([0, 1]), np.array([0]), f8(2), good[:1].copy()),
            (memory, np.array([0, 1]), np.array([0]), f8(1), good.copy()),
        ],
        "accumulate": [(memory, good, one, 0, 2.0, good.copy()), (memory, good, one, 1, 1.0, f8((N, D)))],
        "merge": [
            (1, 1.0, one, f8(N), f8(N), good.copy(), f8(N), f8(N), good[:1].copy()),
            (1, 1.0, one, f8(1), f8(N), good.copy(), f8(N), f8(N), good.copy()),
            (0, 2.0, one, f8(N), f8(N), good.copy(), f8(N), f8(N), good.copy()),
        ],
    }
    for arguments in bad_calls[name]:
        with pytest.raises((ValueError, TypeError)):
            getattr(core, name)(*arguments)


def test_an_energy_beyond_float32():
    with pytest.raises(OverflowError, match=r"^beta:"):
        sh.energy(QUERIES, PATTERNS, 1e-300)
    assert np.isfinite(sh.energy(QUERIES.astype(float), PATTERNS, 1e-300)).all()
