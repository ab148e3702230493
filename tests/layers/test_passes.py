"""The spec of a Hopfield layer, and its two passes: they change nothing, and a tape serves as often as it is asked."""

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import digest
from test_layers import OPTIONS, B, E, H, M, N, close, made, masks_of, rng_of

from sparsehopfield import layers
from sparsehopfield._engine.association import association_weights
from sparsehopfield.layers import _passes
from sparsehopfield.layers._inputs import INPUTS
from sparsehopfield.layers._spec import ORDER, HopfieldSpec
from sparsehopfield.structures import LinearFeatures, TopK

INNER = ("queries", "association")
#: name -> options, what the inputs are, and further arguments of `forward`
CALLS = {
    **{name: (name, "three", {}) for name in OPTIONS},
    "all roles": ("defaults", "one", {}),
    "shared state": ("defaults", "shared state", {}),
    "shared rows": ("both patterns", "shared rows", {}),
    "ragged": ("both patterns", "ragged", {"offsets": [0, 2, 2, M]}),
    "ragged state": ("hopfield space", "ragged state", {"offsets": [0, 2, 2, M]}),
    "padding": ("steps", "three", {"padding": masks_of("padding")["stored_pattern_padding_mask"]}),
    "mask": ("both patterns", "three", {"mask": masks_of("(BH, N, M) of float")["association_mask"]}),
    "dropout": ("steps", "three", {"dropout": 0.5, "seed": 3}),
    "top k": ("steps", "three", {"structure": TopK(2)}),
    "features": ("steps", "three", {"structure": LinearFeatures(), "separation": "softmax"}),
    "batch second": ("both patterns", "second", {}),
    "implicit": ("steps", "three", {}),
}
IMPLICIT = {"gradient": "implicit", "update_steps_max": None, "scaling": 0.3, "update_steps_eps": 1e-12}
MADE = {"batch second": {"batch_first": False}, "implicit": IMPLICIT}


def call(name, separation="sparsemax"):
    """Spec, parameters, inputs and options of a call; all arrays are read-only."""
    option, kind, more = CALLS[name]
    layer, (stored, state, projection) = made(option, separation, **MADE.get(name, {}))
    inputs = {
        "three": (stored, state, projection),
        "one": (stored, stored, stored),
        "shared state": (stored, state[0], stored),
        "shared rows": (stored[0], state, stored[0]),
        "ragged": (stored[0], state, projection[0]),
        "ragged state": (stored[0], stored[0], projection[0]),
        "second": tuple(x.swapaxes(0, 1).copy() for x in (stored, state, projection)),
    }[kind]
    parameters = {name: p.value for name, p in layer.parameters().items()}
    for a in (*parameters.values(), *inputs):
        a.flags.writeable = False
    return layer, layer._spec, parameters, inputs, {"separation": separation, "scaling": layer._scaling, **more}


def numbers(found):
    """Give all arrays in a tape or another result, by where they are."""
    if isinstance(found, np.ndarray):
        yield found
    elif isinstance(found, dict):
        for key in sorted(found):
            yield from numbers(found[key])
    elif isinstance(found, (list, tuple)):
        for part in found:
            yield from numbers(part)
    elif isinstance(found, _passes.Tape):
        yield from numbers(vars(found))
        if found.saved._executor is not None:
            return
        weights = association_weights(found.saved)
        yield from [weights] if isinstance(weights, np.ndarray) else [weights.data, weights.indices, weights.indptr]


def digest_of(found):
    return digest(*numbers(found))


def grad_for(tape, seed=2):
    return rng_of(seed).standard_normal(tape.result.shape)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, a in found.items():
        np.testing.assert_array_equal(a, expected[name], err_msg=name)


@pytest.mark.parametrize("name", CALLS)
def test_passes_change_nothing_and_repeat(name):
    _, spec, parameters, inputs, options = call(name)
    options = copy.deepcopy(options)
    given = digest_of([parameters, inputs, options]), pickle.dumps(spec)
    tape = _passes.forward(spec, parameters, inputs, **options)
    g = grad_for(tape)
    g.flags.writeable = False
    before = digest_of(tape)
    found = _passes.backward(tape, g, (*INPUTS, *INNER))
    kept = copy.deepcopy(found)
    assert digest_of(tape) == before
    again = _passes.backward(tape, g, (*INPUTS, *INNER))
    for key, a in again.items():
        if key != "association":  # which may be the gradient that came in
            a[...] = np.nan
    same(found, kept)
    same(_passes.backward(tape, g, (*INPUTS, *INNER)), kept)
    assert digest_of(tape) == before
    assert (digest_of([parameters, inputs, options]), pickle.dumps(spec)) == given
    distinct = {id(x): role for role, x in reversed(list(zip(INPUTS, inputs, strict=True)))}
    assert found.keys() == {*spec.shapes, *distinct.values(), *INNER}
    for key, a in zip(INPUTS, inputs, strict=True):
        assert key not in found or found[key].shape == a.shape
    for key, shape in spec.shapes.items():
        assert found[key].shape == shape
        assert found[key].dtype == np.float64
    own = [a for key, a in found.items() if key not in INNER]
    assert all(a.flags.writeable for a in own)
    given_arrays = [*inputs, *parameters.values(), g]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(own) for b in (*own[:i], *given_arrays))
    alone = _passes.backward(tape, g)
    assert alone.keys() == spec.shapes.keys()
    for key, a in alone.items():
        close(a, found[key])


@pytest.mark.parametrize(
    "name", ["defaults", "both patterns", "all roles", "ragged state", "dropout", "features", "batch second"]
)
def test_tapes_wait_for_one_another(name):
    _, spec, parameters, inputs, options = call(name)
    copies = {id(x): x[::-1].copy() if name != "ragged state" else x + 1 for x in inputs}
    others = tuple(copies[id(x)] for x in inputs)
    alone = []
    for given in (inputs, others):
        tape = _passes.forward(spec, parameters, given, **options)
        alone.append(_passes.backward(tape, grad_for(tape), INPUTS))
    first = _passes.forward(spec, parameters, inputs, **options)
    second = _passes.forward(spec, parameters, others, **options)
    same(_passes.backward(first, grad_for(first), INPUTS), alone[0])
    same(_passes.backward(second, grad_for(second), INPUTS), alone[1])
    same(_passes.backward(first, grad_for(first), INPUTS), alone[0])


@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
@pytest.mark.parametrize("name", ["defaults", "all roles", "ragged", "features", "hopfield space affine"])
def test_threads_share_a_spec_and_a_tape(name, separation):
    _, spec, parameters, inputs, options = call(name, separation)
    common = _passes.forward(spec, parameters, inputs, **options)
    expected = _passes.backward(common, grad_for(common), INPUTS)

    def work(seed):
        for _ in range(20):
            tape = _passes.forward(spec, parameters, inputs, **options)
            same(_passes.backward(common, grad_for(common), INPUTS), expected)
            same(_passes.backward(tape, grad_for(tape), INPUTS), expected)
        return seed

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [*range(4)]


@pytest.mark.parametrize("name", ["defaults", "other sizes in", "learned beta", "connected", "hopfield space affine",
                                  "static state", "both patterns", "tanh", "all roles", "shared rows", "ragged",
                                  "ragged state", "mask", "dropout", "top k", "features", "batch second",
                                  "implicit"])  # fmt: skip
def test_gradients_against_finite_differences(name):
    _, spec, parameters, inputs, options = call(name)
    tape = _passes.forward(spec, parameters, inputs, **options)
    g, rng, step = grad_for(tape), rng_of(5), 1e-6
    found = _passes.backward(tape, g, INPUTS)
    for key in found:
        old = parameters[key] if key in parameters else inputs[INPUTS.index(key)]
        direction = rng.standard_normal(old.shape)
        sides = []
        for sign in (1, -1):
            moved = old + sign * step * direction
            now = tuple(moved if x is old else x for x in inputs)
            tape = _passes.forward(spec, parameters | ({key: moved} if key in parameters else {}), now, **options)
            sides.append(np.vdot(g, tape.result))
        numeric = (sides[0] - sides[1]) / (2 * step)
        assert np.vdot(found[key], direction) == pytest.approx(numeric, rel=1e-5, abs=1e-5), key


@pytest.mark.parametrize("name", OPTIONS)
def test_layers_are_their_passes(name):
    layer, spec, parameters, inputs, options = call(name)
    tape = _passes.forward(spec, parameters, inputs, **options)
    g = grad_for(tape)
    found = _passes.backward(tape, g, INPUTS)
    np.testing.assert_array_equal(layer.forward(inputs), tape.result)
    for a, key in zip(layer.backward(g), INPUTS, strict=True):
        np.testing.assert_array_equal(a, found[key])
    same({key: p.grad for key, p in layer.parameters().items()}, {key: found[key] for key in spec.shapes})


def test_two_passes_of_copies_that_share_parameters():
    layer, inputs = made("defaults")
    again = copy.copy(layer)
    others = tuple(x + 1 for x in inputs)
    first, second = layer.forward(inputs), again.forward(others)
    assert (
        again.parameters()["association_core.in_proj_weight"] is layer.parameters()["association_core.in_proj_weight"]
    )
    dsecond, dfirst = again.backward(np.cos(second)), layer.backward(np.cos(first))
    grads = {name: p.grad.copy() for name, p in layer.parameters().items()}
    layer.zero_grad()
    for given, out, expected in ((others, second, dsecond), (inputs, first, dfirst)):
        np.testing.assert_array_equal(layer.forward(given), out)
        for a, b in zip(layer.backward(np.cos(out)), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    for name, p in layer.parameters().items():
        np.testing.assert_array_equal(p.grad, grads[name])


def test_a_tape_goes_with_its_last_name():
    _, spec, parameters, inputs, options = call("both patterns")
    gc.disable()
    try:
        tape = _passes.forward(spec, parameters, inputs, **options)
        _passes.backward(tape, grad_for(tape), INPUTS)
        alive = weakref.ref(tape)
        del tape
        assert alive() is None
    finally:
        gc.enable()


# --- the spec -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_spec_is_what_the_layer_is(name):
    layer, _ = made(name)
    spec = HopfieldSpec(**layer._config)
    assert {key: p.value.shape for key, p in layer.parameters().items()} == spec.shapes
    assert [*layer.parameters()] == [*spec.draws]
    assert [*spec.shapes] == [key for key in ORDER if key in spec.draws]
    assert vars(copy.deepcopy(spec)) == vars(pickle.loads(pickle.dumps(spec))) == vars(spec)


def test_options_that_change_are_checked_and_saved():
    layer, inputs = made("defaults")
    assert layer.update_steps_max == 0
    before = layer._spec
    layer.update_steps_max = 2
    assert (before.update_steps_max, layer._spec.update_steps_max, layer._config["update_steps_max"]) == (0, 2, 2)
    with pytest.raises(ValueError, match="update_steps_eps: must be positive"):
        layer.update_steps_eps = 0
    with pytest.raises(ValueError, match="gradient: unknown name"):
        layer.gradient = "none"
    expected, _ = made("defaults", update_steps_max=2)
    np.testing.assert_array_equal(layer.forward(inputs), expected.forward(inputs))
    for name in ("num_heads", "batch_first", "association_activation", "hidden_size"):
        with pytest.raises(AttributeError, match=f"{name}: is fixed"):
            setattr(layer, name, 1)


def test_learned_patterns_have_the_shapes_of_the_layers():
    for options in ({}, {"batch_first": False, "hidden_size": 3, "stored_pattern_size": 5}):
        spec = HopfieldSpec(**layers.Hopfield(E, num_heads=H, **options)._config)
        pooling = layers.HopfieldPooling(E, num_heads=H, quantity=N, **options)
        lookup = layers.HopfieldLayer(E, num_heads=H, quantity=B, lookup_weights_as_separated=True, **options)
        for layer, shapes in ((pooling, spec.pooling_shapes(N)), (lookup, spec.lookup_shapes(B, True))):
            assert {name: p.value.shape for name, p in layer._own.items()} == shapes
    assert list(spec.lookup_shapes(B, False)) == ["lookup_weights"]
