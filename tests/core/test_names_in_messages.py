"""Every argument of every public function, given hostile values: it works, or the message names what is at fault."""

import functools
import itertools
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public_calls import calls

import sparsehopfield as sh
from sparsehopfield import layers, structures, theory
from sparsehopfield.data import bags
from sparsehopfield.estimators import HopfieldMILClassifier, HopfieldRetriever
from sparsehopfield.layers import Hopfield, Linear
from sparsehopfield.theory import structures as theory_structures

NAMED = (TypeError, ValueError, OverflowError, IndexError)  # each with the argument's name
HOSTILE = {
    "zero": 0,
    "minus one": -1,
    "minus half": -0.5,
    "huge": 1e300,
    "2^62": 2**62,
    "2^63 - 1": 2**63 - 1,
    "2^64": 2**64,
    "10^400": 10**400,
    "subnormal": 1e-320,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "text": "abc",
    "no text": "",
    "None": None,
    "object": object(),
    "empty list": [],
    "ragged": [[1, 2], [3]],
    "complex": 1j,
    "bool": True,
    "bytes": b"x",
    "empty array": np.zeros((0,)),
    "three axes": np.zeros((2, 2, 2)),
    "all nan": np.full((7, 3), np.nan),
    "texts": np.array(["a"]),
    "dict": {},
    "set": {1},
    "a type": int,
    "objects": np.array([None, 1]),
    "nested": [[["a"]]],
    "tuple": (1, 2, 3),
    "pair": ("abc", 1.0, 2.0, 0.5),
    "date": np.datetime64("2020"),
    "halves": [0.5, 1.5],
    "negative": np.array([-1, -2]),
    "slice": slice(0, 2),
    "longdouble": np.longdouble(1),
    "no axis": np.array(3.0),
    "minus zero": -0.0,
    "timedelta": np.timedelta64(3, "s"),
    "matrix": np.matrix([[1.0, 2.0, 3.0]]),
    "fields": np.ma.array([(1.0, 2.0)], dtype=[("a", "f8"), ("b", "f8")]),
    "no rows": np.zeros((0, 3)),
    "long list": [0.5] * 20000,
    "long text": "x" * 20000,
    "long bytes": b"x" * 20000,
    "lists in lists": functools.reduce(lambda inner, _: [inner], range(500), []),
}
LONGEST = 2000  # characters of a message, however long what is quoted
# What takes memory or time by its number is not asked for more than there is: those are right calls.
TAKES_MUCH = re.compile(r"size|num_|n_features|_steps|max_steps|quantity|epochs|restarts|block|^[nmdv]$")
MUCH = {"huge", "2^62", "2^63 - 1"}
# Arguments whose messages have other names: what arrays come from, and what is made of them.
ALIASES = {
    "input": {"stored pattern", "state pattern", "pattern projection", "grad"},
    "more": {"patterns"},
    "more_values": {"values"},
    "more_ids": {"ids"},
    "learning_rate": {"parameters"},
    "weight_decay": {"parameters", "learning_rate"},
    "layers_": {"layers"},
    "validation": {"bags"},
    "n": {"positions"},
    "m": {"positions"},
    "initial_std": {"learning_rate", "queries", "stored"},
    "X": {"k"},
}


def names_of(argument, arguments):
    """Give what a message may name: the argument, or another one that it does not fit."""
    names = set(arguments) | ALIASES.get(argument, set())
    return names.union(*(ALIASES.get(name, set()) for name in arguments))


def check(name, function, arguments, argument):
    """Make a call; if it fails, the message must name an argument."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**arguments)
        except Exception as error:
            found = error
        else:
            return
    names = "|".join(map(re.escape, names_of(argument, arguments)))
    assert type(found) in NAMED, f"{name}({argument}): {found!r}"
    assert re.search(rf"\b(?:{names})\b", str(found)), f"{name}({argument}): {found!r}"
    assert len(str(found)) < LONGEST, f"{name}({argument}): {found!r}"


TABLE = calls()


@pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.depth)])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_values_are_named(kind, share):
    """Every argument of every function, or each with every third kind: they are checked in one place."""
    number = list(HOSTILE).index(kind)
    for name, (function, arguments) in TABLE.items():
        if name.startswith("reference."):  # plain NumPy, whose errors are NumPy's
            continue
        for at, argument in enumerate(arguments):
            if (len(name) + at + number) % share:
                continue
            if (kind, argument) == ("no axis", "layers_"):  # the star before it raises, not the package
                continue
            if kind not in MUCH or not TAKES_MUCH.search(argument):
                check(name, function, arguments | {argument: HOSTILE[kind]}, argument)


NUMBERS = [
    0,
    -1,
    0.5,
    1,
    5e-324,
    1e-300,
    1e-160,
    1e-10,
    1e10,
    1e160,
    1e300,
    1.7e308,
    math.nan,
    math.inf,
    2**62,
    10**400,
]


@pytest.mark.parametrize("name", ["capacity_bound", "dense_capacity_bound", "exact_capacity"])
def test_pairs_of_hostile_numbers(name):
    """Two at a time: quotients and products leave float64 where each number alone would not."""
    function, arguments = TABLE[f"theory.{name}"]
    for first, second in itertools.combinations([a for a in arguments if a != "strict"], 2):
        for one, two in itertools.product(NUMBERS, repeat=2):
            check(name, function, arguments | {first: one, second: two}, first)


positive = st.floats(min_value=5e-324, max_value=1.7e308)


@given(
    d=st.one_of(st.integers(2, 50), st.integers(2, 2**62)),
    m=positive,
    beta=positive,
    p=st.floats(min_value=5e-324, max_value=1, exclude_max=True),
    radius=st.one_of(st.just(0.0), positive),
)
def test_capacities_of_any_numbers(d, m, beta, p, radius):
    """Numbers, or a message that names the argument; probabilities and counts are what they are called."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = theory.exact_capacity(d, m, beta, p, radius)
        assert 0 <= exact.F <= 1
        assert exact.M >= 1
        assert exact.log_M >= 0
        assert not math.isnan(theory.dense_capacity_bound(d, m, beta, p).log_M)
        if radius > 0:
            assert not math.isnan(theory.capacity_bound(d, m, beta, p, radius).log_M)


@given(
    rows=st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2), min_size=1, max_size=4
    ),
    beta=positive,
)
def test_theory_of_any_patterns(rows, beta):
    for name in (
        "contraction",
        "critical_beta",
        "energy_offset",
        "exact_radius",
        "is_certified",
        "is_fixed_point",
        "margin",
    ):
        function = getattr(theory, name)
        options = {"beta": beta} if "beta" in TABLE[f"theory.{name}"][1] else {}
        for similarity in ("dot", "euclidean", "cosine"):
            check(name, function, {"patterns": rows, "similarity": similarity, **options}, "patterns")
    check("is_fixed_point", theory.is_fixed_point, {"patterns": rows, "beta": beta}, "patterns")
    for name in ("diameter", "kernel_displacement", "linear_weight_bound"):
        check(name, getattr(theory_structures, name), {"patterns": rows}, "patterns")


@pytest.mark.parametrize("axis", [1, -2, 5, "x", None, 0.0, np.array([0, 1]), [0], 2**70])
@pytest.mark.parametrize(
    "name", ["softmax", "sparsemax", "entmax", "topk_softmax", "entmax_threshold", "entmax_conjugate"]
)
def test_bad_axis(name, axis):
    arguments = {"k": 1} if name.startswith("topk") else {}
    with pytest.raises((TypeError, ValueError), match=r"^axis: "):
        getattr(sh, name)(np.ones(3), **arguments, axis=axis)


def test_shapes_that_do_not_fit_are_named():
    x = np.ones((2, 3))
    for call, name in (
        (lambda: sh.softmax_vjp(x, x[:, :2]), "g"),
        (lambda: sh.softmax_vjp(x, np.ones((4, 3))), "g"),
        (lambda: sh.softmax_vjp(x, x.T, axis=0), "g"),
        (lambda: sh.polynomial_vjp(x, x, np.ones((2, 4))), "g"),
        (lambda: sh.polynomial_vjp(x, np.ones((5, 3)), x), "p"),
        (lambda: sh.entmax(x, [1.5, 1.5, 2.0]), "alpha"),
        (lambda: sh.topk_softmax(x, [1, 2, 3]), "k"),
        (lambda: sh.softmax(x, out=np.empty((2, 4))), "out"),
        (lambda: sh.sparsemax(x, out=np.empty((3, 2))), "out"),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: "):
            call()


def grown(**options):
    """Train with steps after which no number is finite."""
    HopfieldMILClassifier(epochs=1, batch_size=1, **options).fit(np.eye(4)[:, None], [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: bags.bit_signals("4"), "num_signals"),
        (lambda: bags.bit_signals(4, None), "num_bits"),
        (lambda: bags.bit_signals(4, 4, seed="x"), "seed"),
        (lambda: bags.bit_signals(4, 4, seed=-1), "seed"),
        (lambda: bags.bit_patterns(2.5, 3, [[1]]), "num_bags"),
        (lambda: theory.retrieval_bound([1.0], [[1.0]], 0, rule=["sharp"]), "rule"),
        (lambda: theory.well_separated([1.0], [[1.0]], 0, rule=None), "rule"),
        (lambda: theory_structures.linear_weight_bound(np.eye(3), index=7), "index"),
        (lambda: theory_structures.linear_weight_bound(np.eye(3), index=0.5), "index"),
        (lambda: structures.Window(1, global_positions=3), "global_positions"),
        (lambda: sh.Entmax(10**400), "alpha"),
        (lambda: sh.HopfieldMemory(np.eye(3)).remove(slice("a")), "positions"),
        (lambda: sh.HopfieldMemory(np.eye(3)).remove(slice(None, None, 0)), "positions"),
        (lambda: sh.retrieve([1.0], [[1.0]], return_info=1), "return_info"),
        (lambda: sh.HopfieldMemory([[1.0]], copy=np.zeros(2)), "copy"),
        (lambda: sh.HopfieldMemory(np.eye(2)).explain([np.nan, 1.0]), "query"),
        (lambda: Hopfield(3, dtype="flaot32"), "dtype"),
        (lambda: Linear(3, 2, dtype=int), "dtype"),
        (lambda: HopfieldMILClassifier(random_state="x").fit(np.zeros((2, 1, 1)), [0, 1]), "random_state"),
        (lambda: grown(learning_rate=1e300), "learning_rate"),
        (lambda: grown(weight_decay=1e300), "learning_rate"),
        (lambda: HopfieldRetriever().fit(np.zeros(3)), "X"),
    ],
)
def test_messages_begin_with_the_name(call, name):
    with pytest.raises(NAMED, match=rf"^{name}: "):
        call()


class Refusing:
    """An array of another library that will not come."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("it lies elsewhere")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: sh.HopfieldMemory(np.eye(3)).remove(Refusing()), "positions"),
        (lambda: HopfieldRetriever().fit(Refusing()), "X"),
        (lambda: HopfieldMILClassifier().fit(np.zeros((2, 1, 1)), Refusing()), "y"),
        (lambda: HopfieldMILClassifier().fit(np.zeros((2, 1)), [0, 1], bag_ids=Refusing()), "bag_ids"),
        (lambda: sh.softmax(Refusing()), "z"),
        (lambda: Hopfield(3).forward([[[1.0], [1.0, 2.0]]]), "input"),
        (lambda: Linear(2, 1).load_state_dict({"other": [[1], [1, 2]]}), "state"),
        (lambda: Hopfield(1).forward(np.ones((2000, 1)), offsets=np.arange(2000) // 2), "offsets"),
        (lambda: Hopfield(2).forward([np.ones((1, 1 + i % 2)) for i in range(5000)]), "input"),
    ],
)
def test_other_libraries_refusals_and_ragged_lists(call, name):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}") as raised:
        call()
    assert len(str(raised.value)) < LONGEST


def test_a_number_of_thousands_of_digits_is_not_written_out():
    with pytest.raises(ValueError, match=r"^k: .*bits"):
        structures.TopK(10**5000)
    with pytest.raises(ValueError, match=r"^max_steps: .*bits"):
        sh.retrieve([1.0], [[1.0]], max_steps=-(10**5000))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Linear(2**40, 2**40), "input_size"),
        (lambda: Linear(2**62, 1), "input_size"),
        (lambda: Hopfield(2**50), "input_size"),
        (lambda: Hopfield(4, output_size=2**61), "output_size"),
        (lambda: layers.LayerNorm(2**61), "size"),
        (lambda: layers.HopfieldPooling(4, quantity=2**62), "quantity"),
        (lambda: layers.HopfieldLayer(2**31, quantity=2**31), "input_size"),
        (lambda: HopfieldMILClassifier(num_heads=2**62).fit(np.ones((2, 3, 4)), [0, 1]), "num_heads"),
    ],
)
def test_parameters_that_no_memory_holds(call, argument):
    said = rf"^{argument}: \d+ is too large: [\w.]*weights? would have (\d+|a number of \d+ bits) numbers"
    with pytest.raises(ValueError, match=said):
        call()
