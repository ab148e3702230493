"""Arrays whose numbers lie unaligned, or are very many: the right results, or a refusal with the reason."""

import numpy as np
import pytest
from helpers import digest

import sparsehopfield as sh
from sparsehopfield import _core

rng = np.random.default_rng(5)


def unaligned(a, shift=1):
    """The same numbers, some bytes past a boundary."""
    raw = np.empty(a.nbytes + 64, np.uint8)
    start = (-raw.ctypes.data) % 32 + shift
    out = raw[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    out[...] = a
    assert not out.flags.aligned
    return out


Z = {dtype: rng.standard_normal((6, 40)).astype(dtype) for dtype in (np.float16, np.float32, np.float64)}
MAPS = {
    "softmax": sh.softmax,
    "sparsemax": sh.sparsemax,
    "entmax": lambda z: sh.entmax(z, 1.3),
    "polynomial": lambda z: sh.polynomial(abs(z), 3),
    "topk_softmax": lambda z: sh.topk_softmax(z, 5),
    "topk_sparsemax": lambda z: sh.topk_sparsemax(z, 5),
    "sparsemax_threshold": lambda z: np.stack(sh.sparsemax_threshold(z)),
    "entmax_threshold": lambda z: np.stack(sh.entmax_threshold(z, 1.3)),
    "softmax_vjp": lambda z: sh.softmax_vjp(z, z),
    "entmax_vjp": lambda z: sh.entmax_vjp(abs(z), z, 1.7),
    "entmax_vjp_alpha": lambda z: sh.entmax_vjp_alpha(abs(z), z, 1.7),
    "softmax_conjugate": sh.softmax_conjugate,
    "entmax_conjugate": lambda z: sh.entmax_conjugate(z, 1.3),
}


@pytest.mark.parametrize("dtype", Z, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", MAPS)
def test_row_maps_of_unaligned_rows(name, dtype):
    given, call = Z[dtype], MAPS[name]
    for shift in range(1, given.itemsize):
        assert digest(call(unaligned(given, shift))) == digest(call(given))
    assert digest(call(np.frombuffer(b"x" + given.tobytes(), dtype, offset=1).reshape(given.shape))) == digest(
        call(given)
    )


def test_row_maps_with_unaligned_parameters_and_outputs():
    z = Z[np.float64]
    alpha = np.linspace(1.1, 3, len(z))
    out = unaligned(np.zeros_like(z))
    assert sh.entmax(z, unaligned(alpha), out=out) is out
    assert digest(out) == digest(sh.entmax(z, alpha))


X, W = rng.random((5, 4)), rng.random((3, 4))
ZERO = np.zeros(5)
CORE = {
    "patterns": lambda odd: _core.memory(odd(X), None, 0, 1, 1.0, True),
    "values": lambda odd: _core.memory(X, odd(X), 0, 1, 1.0, True),
    "queries": lambda odd: _core.energy(_core.memory(X, None, 0, 1, 1.0, True), odd(X), np.ones(1), 0, 2.0, None),
    "beta": lambda odd: _core.energy(_core.memory(X, None, 0, 1, 1.0, True), X, odd(np.ones(1)), 0, 2.0, None),
    "score": lambda odd: _core.solve(0, 2.0, 1, np.ones(1), np.array([0, 4]), odd(np.arange(4.0))),
    "start": lambda odd: _core.solve(0, 2.0, 1, np.ones(1), odd(np.array([0, 4])), np.arange(4.0)),
    "x": lambda odd: _core.linear(odd(X), W, None, np.zeros((5, 3))),
    "weight": lambda odd: _core.linear(X, odd(W), None, np.zeros((5, 3))),
    "y": lambda odd: _core.linear(X, W, None, odd(np.zeros((5, 3)))),
    "grad": lambda odd: _core.adamw(ZERO.copy(), odd(ZERO), ZERO.copy(), ZERO.copy(), 1, 0.1, 0.9, 0.9, 1e-8, 0.0),
    "projection": lambda odd: _core.features_add(
        2,
        7,
        1.0,
        odd(np.ones((7, 4))),
        0.5,
        False,
        X,
        None,
        1.0,
        True,
        1,
        np.zeros(7),
        np.zeros(7),
        np.zeros((7, 4)),
    ),
    "top": lambda odd: _core.features_add(
        0, 4, 1.0, None, 0.5, False, X, None, 1.0, True, 1, odd(np.zeros(4)), np.zeros(4), np.zeros((4, 4))
    ),
}


@pytest.mark.parametrize("name", CORE)
def test_the_core_says_that_an_array_is_not_aligned(name):
    """And touches nothing: what comes to it unaligned is to be copied before."""
    CORE[name](np.array)
    with pytest.raises(ValueError, match=rf"^{name}: is not aligned"):
        CORE[name](unaligned)


@pytest.mark.parametrize("name", CORE)
def test_the_core_says_that_an_array_has_another_byte_order(name):
    with pytest.raises(ValueError, match=rf"^{name}: has another byte order"):
        CORE[name](lambda a: a.astype(a.dtype.newbyteorder()))


@pytest.mark.parametrize("name", ["x", "patterns", "score"])
def test_the_core_says_that_something_is_no_array(name):
    with pytest.raises(TypeError, match=rf"^{name}: must be an array"):
        CORE[name](np.ndarray.tolist)


# --- very many --------------------------------------------------------------------------------------


def layer(queries, stored, samples):
    return _core.associate_forward(
        *(queries, stored, stored, np.ones(1), 0, 2.0, samples, None, None, None, 0, 1e-4, 0.0, 0, False),
        *(None, None, None, None, None, 0, False),
    )


@pytest.mark.parametrize(
    ("queries", "stored", "samples", "what"),
    [
        ((2**31, 1, 1), (3, 1, 1), 1, "queries"),
        ((3, 1, 1), (2**31 + 5, 1, 1), 1, "stored rows"),
        ((2**40, 3, 1, 1), (3, 1, 1), 2**40, "samples"),
    ],
    ids=str,
)
def test_layers_refuse_what_they_cannot_count(queries, stored, samples, what):
    """At once: nothing is allocated."""
    one = np.zeros(1, np.float32)
    with pytest.raises(OverflowError, match=rf"^x: a layer takes at most 1073741823 {what}, got "):
        layer(np.broadcast_to(one, queries), np.broadcast_to(one, stored), samples)


def test_rows_farther_apart_than_an_int_counts(tmp_path):
    """Patterns, values and queries that are columns of a file of which nearly all is a hole."""
    wide = np.memmap(tmp_path / "wide", np.float32, "w+", shape=(3, 2**31 + 9))
    wide[:, 2**31 :][:, :4] = np.eye(3, 4) + 1
    far = wide[:, 2**31 : 2**31 + 4]
    near = np.array(far)
    assert digest(sh.update(far, far, 3.0)) == digest(sh.update(near, near, 3.0))
    assert digest(sh.sparsemax(far)) == digest(sh.sparsemax(near))
    memories = [sh.HopfieldMemory(a, 2.0, values=a, separation="softmax") for a in (far, near)]
    assert digest(memories[0].update(far)) == digest(memories[1].update(near))
