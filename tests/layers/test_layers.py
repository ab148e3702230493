"""The layers: against their formulas written down plainly, gradients against finite differences, states, bad input."""

import copy
import itertools
import pickle
from functools import partial
from math import erf

import numpy as np
import pytest
from helpers import TABLE_MAPS, run_python
from hypothesis import assume, given
from hypothesis import strategies as st

import sparsehopfield as sh
from sparsehopfield import layers, reference
from sparsehopfield.layers import _roles

B, N, M, E, H = 3, 4, 5, 6, 2
MAPS = ["softmax", "sparsemax", "entmax15", sh.Entmax(1.25), sh.Polynomial(2), *TABLE_MAPS]


def rng_of(seed=0):
    return np.random.default_rng(seed)


def scrambled(layer, seed=1, scale=0.6):
    """The layer with random parameters, so that none is at a value that hides a mistake."""
    rng = rng_of(seed)
    for p in layer.parameters().values():
        p.value[...] = scale * rng.standard_normal(p.value.shape)
    return layer


# --- hflayers' forward pass, written down plainly -------------------------------------------------------


def plain_norm(x, eps, weight=None, bias=None):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return y if weight is None else y * weight + bias


def plain_hopfield(layer, stored, state, projection, padding=None, mask=None):
    """(output, associations, unprojected associations' values) of a layer from its state and its arguments alone."""
    s, o = layer.state_dict(), layer._config
    core = {k.removeprefix("association_core."): v for k, v in s.items()}
    heads, d, p = o["num_heads"], layer.hidden_size, layer.pattern_size
    inputs = {}
    for name, x in (("state_pattern", state), ("stored_pattern", stored), ("pattern_projection", projection)):
        if o[f"normalize_{name}"]:
            x = plain_norm(x, o[f"normalize_{name}_eps"], s.get(f"norm_{name}.weight"), s.get(f"norm_{name}.bias"))
        inputs[name[:5]] = x
    static = {
        "state": o["state_pattern_as_static"],
        "store": o["stored_pattern_as_static"],
        "patte": o["pattern_projection_as_static"],
    }
    widths = {"state": d, "store": d, "patte": p}
    weights, biases, at = {}, {}, 0
    for name, letter in (("state", "q"), ("store", "k"), ("patte", "v")):
        if static[name]:
            continue
        rows = slice(at, at + heads * widths[name])
        at += heads * widths[name]
        whole = core.get("in_proj_weight")
        weights[name] = core[f"{letter}_proj_weight"] if whole is None else whole[rows]
        biases[name] = core["in_proj_bias"][rows] if "in_proj_bias" in core else 0

    def project(name, x):
        return x @ weights[name].T + biases[name]

    in_space = {}
    for name, x in inputs.items():
        if name == "patte" and o["pattern_projection_as_connected"] and not static["store"]:
            x = project("store", x)
            x = x if static[name] else project(name, x)
            in_space[name] = x.reshape(*x.shape[:-1], heads, -1)
        elif static[name]:
            in_space[name] = np.repeat(x[..., None, :], heads, axis=-2)
        else:
            in_space[name] = project(name, x).reshape(*x.shape[:-1], heads, -1)
    q, k, v = (np.moveaxis(in_space[name], -2, -3) for name in ("state", "store", "patte"))  # (B, H, rows, features)
    if o["normalize_hopfield_space"]:
        affine = core.get("p_norm_weight"), core.get("p_norm_bias")
        q, k = (plain_norm(x, o["normalize_hopfield_space_eps"], *affine) for x in (q, k))
    more = 0
    if "bias_k" in core:
        row = np.broadcast_to(core["bias_k"].reshape(heads, 1, -1), (len(k), heads, 1, d))
        k = np.concatenate([k, row], axis=2)
        row = np.broadcast_to(core["bias_v"].reshape(heads, 1, -1), (len(v), heads, 1, p))
        v = np.concatenate([v, row], axis=2)
        more += 1
    if o["add_zero_association"]:
        k, v = (np.concatenate([x, np.zeros_like(x[:, :, :1])], axis=2) for x in (k, v))
        more += 1
    bias = np.zeros((len(k), heads, q.shape[2], k.shape[2]))
    if mask is not None:
        mask = np.where(mask, -np.inf, 0.0) if mask.dtype == bool else mask
        mask = (
            mask
            if mask.ndim != 3
            else mask[:, None]
            if len(mask) == len(k)
            else mask.reshape(-1, heads, *mask.shape[1:])
        )
        bias[..., : bias.shape[-1] - more] += mask
    if padding is not None:
        bias[..., : bias.shape[-1] - more] += np.where(padding, -np.inf, 0.0)[:, None, None]
    row_map = reference._functions_of_map(layer.separation)[0]
    beta = np.broadcast_to(layer.scaling, (heads,))[:, None, None]
    weights_now = row_map(beta * q @ k.swapaxes(-1, -2) + bias)
    for _ in range(layer.update_steps_max):
        weights_now = row_map(beta * (weights_now @ k) @ k.swapaxes(-1, -2) + bias)
    out = np.moveaxis(weights_now @ v, 1, 2)
    out = out.reshape(*out.shape[:2], -1)
    if "out_proj.weight" in core:
        out = out @ core["out_proj.weight"].T + core.get("out_proj.bias", 0)
    activation = {None: lambda x: x, "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}
    activation["sigmoid"] = lambda x: 1 / (1 + np.exp(-x))
    return activation[o["association_activation"]](out), weights_now


NOT_NORMAL = {
    f"normalize_{name}{suffix}": False
    for name in ("stored_pattern", "state_pattern", "pattern_projection")
    for suffix in ("", "_affine")
}
STATIC = {"stored_pattern_as_static": True, "state_pattern_as_static": True, "pattern_projection_as_static": True}

# name -> options; sizes of the three inputs follow from them
OPTIONS = {
    "defaults": {},
    "sizes": {"hidden_size": 4, "output_size": 5},
    "pattern size": {"hidden_size": 4, "pattern_size": 3},
    "other sizes in": {"stored_pattern_size": 7, "pattern_projection_size": 3},
    "steps": {"update_steps_max": 3, "scaling": 1.5},
    "beta per head": {"scaling": np.array([0.5, 2.0]), "update_steps_max": 1},
    "learned beta": {"scaling": 0.7, "learnable_scaling": True, "update_steps_max": 1},
    "not normalised": NOT_NORMAL,
    "not affine": {k: v for k, v in NOT_NORMAL.items() if k.endswith("affine")},
    "one not normalised": {"normalize_state_pattern": False, "normalize_state_pattern_affine": False},
    "no affine part of one": {"normalize_stored_pattern_affine": False},
    "eps": {"normalize_stored_pattern_eps": 0.1, "normalize_state_pattern_eps": 0.2},
    "hopfield space": {"normalize_hopfield_space": True, "normalize_hopfield_space_eps": 0.1},
    "hopfield space affine": {"normalize_hopfield_space": True, "normalize_hopfield_space_affine": True,
                              "update_steps_max": 1},
    "static in hopfield space": {**NOT_NORMAL, **STATIC, "normalize_hopfield_space": True, "hidden_size": 6,
                                 "normalize_hopfield_space_affine": True},
    "no bias": {"input_bias": False},
    "no output projection": {"disable_out_projection": True},
    "connected": {"pattern_projection_as_connected": True},
    "connected, no bias": {"pattern_projection_as_connected": True, "input_bias": False},
    "connected and static": {"pattern_projection_as_connected": True, "pattern_projection_as_static": True},
    "connected to static": {"pattern_projection_as_connected": True, "stored_pattern_as_static": True,
                            "hidden_size": 6},
    "static state": {"state_pattern_as_static": True, "hidden_size": 6},
    "static stored": {"stored_pattern_as_static": True, "hidden_size": 6, "update_steps_max": 1},
    "static projection": {"pattern_projection_as_static": True, "hidden_size": 6},
    "static, not normalised": {**NOT_NORMAL, "state_pattern_as_static": True, "stored_pattern_as_static": True,
                               "hidden_size": 4},
    "all static": {**NOT_NORMAL, **STATIC, "disable_out_projection": True, "update_steps_max": 2},
    "all static but normalised": {**STATIC, "disable_out_projection": True},
    "bias pattern": {"concat_bias_pattern": True, "update_steps_max": 1},
    "zero pattern": {"add_zero_association": True},
    "both patterns": {"add_zero_association": True, "concat_bias_pattern": True, "pattern_size": 2},
    "zero pattern, static": {"add_zero_association": True, "stored_pattern_as_static": True, "hidden_size": 6},
    "relu": {"association_activation": "relu"},
    "tanh": {"association_activation": "tanh"},
    "sigmoid": {"association_activation": "sigmoid"},
}  # fmt: skip


def made(name, separation="softmax", **more):
    """A scrambled layer in float64, and its three inputs."""
    options = {"num_heads": H, "separation": separation, "update_steps_eps": 1e-300, **OPTIONS[name], **more}
    layer = scrambled(layers.Hopfield(E, **options, dtype="float64", random_state=0))
    rng = rng_of(7)
    e_q, e_k, e_v = (role.size or E for role in (layer._spec.query, layer._spec.key, layer._spec.value))
    return layer, (rng.normal(size=(B, M, e_k)), rng.normal(size=(B, N, e_q)), rng.normal(size=(B, M, e_v)))


def masks_of(kind):
    rng = rng_of(11)
    if kind is None:
        return {}
    if kind == "padding":
        mask = rng.random((B, M)) < 0.4
        mask[1] = True  # nothing to look at
        return {"stored_pattern_padding_mask": mask}
    shape = {"(N, M)": (N, M), "(B, N, M)": (B, N, M), "(B, H, N, M)": (B, H, N, M), "(BH, N, M)": (B * H, N, M)}
    form, _, dtype = kind.partition(" of ")
    mask = rng.random(shape[form]) < 0.4 if dtype == "bool" else rng.normal(size=shape[form])
    if dtype == "float":
        mask[..., 0, 1] = -np.inf
    return {"association_mask": mask}


MASKS = ["padding", *(f"{form} of {dtype}" for form in ("(N, M)", "(B, N, M)", "(B, H, N, M)", "(BH, N, M)")
                      for dtype in ("bool", "float"))]  # fmt: skip


def close(a, b, tolerance=1e-11):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def plain_masks(masks):
    return {"padding": masks.get("stored_pattern_padding_mask"), "mask": masks.get("association_mask")}


@pytest.mark.parametrize("name", OPTIONS)
def test_forward_is_the_formulas(name):
    for separation in ("softmax", "sparsemax"):
        layer, inputs = made(name, separation)
        expected, weights = plain_hopfield(layer, *inputs)
        close(layer.forward(inputs), expected)
        got = layer.associations(inputs)
        close(got if separation == "softmax" else got.toarray().reshape(weights.shape), weights)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", ["defaults", "both patterns"])
def test_masked_forward_is_the_formulas(name, kind):
    for separation in ("softmax", "sparsemax"):
        layer, inputs = made(name, separation)
        masks = masks_of(kind)
        with np.errstate(invalid="ignore"):
            expected, _ = plain_hopfield(layer, *inputs, **plain_masks(masks))
        close(layer.forward(inputs, **masks), expected)


@pytest.mark.parametrize("name", ["defaults", "steps", "one not normalised", "connected", "no bias", "all static"])
def test_one_array_in_all_roles(name):
    layer, inputs = made(name)
    x = inputs[0]
    expected, _ = plain_hopfield(layer, x, x, x)
    close(layer.forward(x), expected)
    close(layer.forward((x, x, x)), expected)
    close(layer.forward((x, x.copy(), x.copy())), expected)


# --- gradients ------------------------------------------------------------------------------------------


def directional(layer, arrays, run, grads, step=1e-6, tolerance=2e-6, seed=3):
    """Compare <gradient, direction> of every parameter and input with a central difference of sum(g * output)."""
    rng = rng_of(seed)
    g = rng.standard_normal(run().shape)
    layer.zero_grad()
    run()
    wanted = grads(layer, g)
    found = {name: (p.value, p.grad) for name, p in layer.parameters().items() if p.grad is not None}
    assert found.keys() == {name for name, p in layer.parameters().items() if p.trainable}
    found |= {f"input {i}": (a, d) for i, (a, d) in enumerate(zip(arrays, wanted, strict=True)) if d is not None}
    for name, (value, grad) in found.items():
        assert grad.shape == value.shape, name
        assert grad.dtype == value.dtype, name
        direction = rng.standard_normal(value.shape)
        before, sides = value.copy(), []
        for sign in (1, -1):
            value[...] = before + sign * step * direction
            sides.append(np.vdot(g, run()))
        value[...] = before
        numeric = (sides[0] - sides[1]) / (2 * step)
        assert abs(np.vdot(grad, direction) - numeric) <= tolerance * (1 + abs(numeric)), (name, numeric)
    return found


def backward_of(layer, g):
    result = layer.backward(g)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients(name):
    for separation in ("softmax", "sparsemax"):
        layer, inputs = made(name, separation)
        directional(layer, inputs, partial(layer.forward, inputs), backward_of)


@pytest.mark.parametrize("separation", MAPS, ids=str)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_gradients_of_maps_and_steps(separation, steps):
    layer, inputs = made("defaults", separation, update_steps_max=steps, scaling=0.8)
    directional(layer, inputs, lambda: layer.forward(inputs), backward_of)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", ["defaults", "both patterns"])
def test_gradients_with_masks(name, kind):
    layer, inputs = made(name, "sparsemax", update_steps_max=1)
    masks = masks_of(kind)
    directional(layer, inputs, lambda: layer.forward(inputs, **masks), backward_of)


@pytest.mark.parametrize("name", ["defaults", "one not normalised", "connected", "not normalised", "static stored"])
def test_gradients_of_one_array_in_all_roles(name):
    layer, inputs = made(name)
    x = inputs[0]
    directional(layer, (x,), lambda: layer.forward(x), backward_of)
    directional(layer, (x, x, x), lambda: layer.forward((x, x, x)), backward_of)


@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
def test_implicit_gradient_is_the_unrolled_one_at_rest(separation, monkeypatch):
    monkeypatch.setattr(
        _roles, "is_cheaper_unprojected", lambda *workloads: True
    )  # stored patterns are projected anyway
    for name in ("defaults", "connected"):
        results = []
        for gradient, steps in (("unrolled", 200), ("implicit", None)):
            layer, inputs = made(name, separation, scaling=0.5, gradient=gradient, update_steps_max=steps)
            layer.update_steps_eps = 1e-13
            out = layer.forward(inputs)
            dx = layer.backward(np.cos(out))
            results.append([out, *dx, *(p.grad for p in layer.parameters().values())])
        for a, b in zip(*results, strict=True):
            close(a, b, 1e-7)


def test_dropout_has_the_gradient_of_its_draw():
    layer, inputs = made("defaults", dropout=0.5)

    def run():
        layer._random = rng_of(5)
        return layer.forward(inputs, train=True)

    directional(layer, inputs, run, backward_of)
    assert not np.array_equal(run(), layer.forward(inputs))
    assert np.array_equal(layer.forward(inputs), layer.forward(inputs))
    assert not np.array_equal(layer.forward(inputs, train=True), layer.forward(inputs, train=True))


def test_gradients_add_up_until_zero_grad():
    layer, inputs = made("defaults")
    g = rng_of(2).standard_normal(layer.forward(inputs).shape)
    layer.backward(g)
    once = {name: p.grad.copy() for name, p in layer.parameters().items()}
    layer.forward(inputs)
    layer.backward(g)
    for name, p in layer.parameters().items():
        close(p.grad, 2 * once[name])
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters().values())


def test_no_input_gradient_where_none_is_wanted():
    for name in ("defaults", "static stored", "both patterns", "hopfield space affine", "static in hopfield space"):
        layer, inputs = made(name)
        layer.forward(inputs)
        g = np.ones(layer.forward(inputs).shape)
        layer.backward(g)
        full = {name: p.grad.copy() for name, p in layer.parameters().items()}
        layer.zero_grad()
        layer.forward(inputs)
        assert layer.backward(g, need_input_grad=False) is None
        for key, p in layer.parameters().items():
            close(p.grad, full[key])


# --- the input space ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["defaults", "steps", "no bias", "not normalised", "connected", "connected and static",
                                  "other sizes in", "beta per head", "pattern size", "static state"])  # fmt: skip
@pytest.mark.parametrize("masked", [False, True])
def test_both_spaces_agree(name, masked, monkeypatch):
    masks = masks_of("padding") if masked else {}
    results = []
    for inside in ("both", "values", "none"):

        def pays(*looks, inside=inside):
            return inside == "both" or (inside == "values" and looks[0].passes == 1)

        monkeypatch.setattr(_roles, "is_cheaper_unprojected", pays)
        layer, inputs = made(name, "sparsemax")
        out = layer.forward(inputs, **masks)
        assert len(layer._last_tape.unprojected) == {"both": 2, "values": 1, "none": 0}[inside]
        dx = layer.backward(np.sin(1 + np.arange(out.size)).reshape(out.shape))
        results.append([out, *dx, *(p.grad for p in layer.parameters().values())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            close(a, b, 1e-10)


def test_where_the_input_space_pays():
    def pays(*looks):
        return _roles.is_cheaper_unprojected(*(_roles.Workload(*look) for look in looks))

    # association.md: 1840 against 7616 for 4 bags of 30 x 230, 8 heads of 32, 3 steps; 32 against 96 for bit patterns
    assert pays((4 * 30, 4, 30, 230, 32, 8), (4 * 30, 4, 30, 230, 32, 1))
    assert pays((128 * 300, 128, 300, 4, 8, 8))
    # self-association of 256 rows of 64 features in 16 dimensions
    assert not pays((16 * 256, 16 * 256, 256, 64, 16, 8), (16 * 256, 16 * 256, 256, 64, 16, 1))


def test_pooling_of_many_rows_projects_none():
    layer = layers.HopfieldPooling(4, hidden_size=8, num_heads=2, update_steps_max=3, random_state=0)
    layer.forward(np.ones((2, 30, 4)))
    assert layer.hopfield._last_tape.unprojected == {"stored_pattern", "pattern_projection"}


def test_one_product_for_one_array():
    layer, inputs = made("defaults")
    layer.forward((inputs[0], inputs[0], inputs[0]))
    (group,) = layer._last_tape.grouped
    assert [role.name for role in group[1]] == ["state_pattern", "stored_pattern", "pattern_projection"]
    assert len(layer._last_tape.sources) == 1


# --- pooling and lookup ---------------------------------------------------------------------------------


POOLINGS = {
    "defaults": {},
    "three states": {"quantity": 3, "update_steps_max": 2},
    "frozen": {"trainable": False},
    "static state": {"state_pattern_as_static": True, "hidden_size": 6},
    "other sizes in": {"stored_pattern_size": 7, "pattern_projection_size": 3, "quantity": 2},
    "all static": {**NOT_NORMAL, **STATIC, "disable_out_projection": True},
    "both patterns": {"add_zero_association": True, "concat_bias_pattern": True, "quantity": 2},
    "hopfield space": {"normalize_hopfield_space": True, "quantity": 2},
    "learned beta": {"learnable_scaling": True, "quantity": 2},
}


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
def test_pooling(name, separation):
    options = {"num_heads": H, "update_steps_eps": 1e-300, "separation": separation, **POOLINGS[name]}
    pooling = scrambled(layers.HopfieldPooling(E, **options, dtype="float64"))
    core, rng = pooling.hopfield, rng_of(4)
    stored = rng.normal(size=(B, M, core._spec.key.size or E))
    same = core._spec.key.size == core._spec.value.size
    projection = stored if same else rng.normal(size=(B, M, core._spec.value.size or E))
    x = stored if same else (stored, projection)
    state = np.broadcast_to(pooling.pooling_weights.value, (B, *pooling.pooling_weights.value.shape[1:]))
    expected, _ = plain_hopfield(core, stored, state, projection)
    got = pooling.forward(x)
    assert got.shape == (B, pooling.quantity * expected.shape[-1])
    close(got, expected.reshape(B, -1))
    directional(pooling, (stored,) if same else x, lambda: pooling.forward(x), backward_of)
    assert (pooling.pooling_weights.grad is None) == (name == "frozen")


LOOKUPS = {
    "defaults": {},
    "separated": {"lookup_weights_as_separated": True},
    "targets frozen": {"lookup_weights_as_separated": True, "lookup_targets_as_trainable": False},
    "frozen": {"trainable": False},
    "other sizes": {"lookup_weights_as_separated": True, "pattern_projection_size": 3, "stored_pattern_size": 7},
    "static stored": {"stored_pattern_as_static": True, "hidden_size": 6},
    "both patterns": {"add_zero_association": True, "concat_bias_pattern": True},
    "steps": {"update_steps_max": 2},
}


@pytest.mark.parametrize("name", LOOKUPS)
@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
def test_lookup(name, separation):
    options = {"num_heads": H, "update_steps_eps": 1e-300, "separation": separation, "quantity": M, **LOOKUPS[name]}
    lookup = scrambled(layers.HopfieldLayer(E, **options, dtype="float64"))
    x = rng_of(4).normal(size=(B, N, E))
    stored = np.repeat(lookup.lookup_weights.value, B, axis=0)
    targets = stored if lookup.target_weights is None else np.repeat(lookup.target_weights.value, B, axis=0)
    expected, _ = plain_hopfield(lookup.hopfield, stored, x, targets)
    close(lookup.forward(x), expected)
    directional(lookup, (x,), lambda: lookup.forward(x), backward_of)
    assert lookup.backward(np.ones(expected.shape), need_input_grad=False) is None


@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
@pytest.mark.parametrize("kind", MASKS)
def test_lookup_with_masks(kind, separation):
    """Samples share the rows, and each masks others of them."""
    lookup = scrambled(layers.HopfieldLayer(E, num_heads=H, quantity=M, separation=separation, dtype="float64"))
    x, masks = rng_of(4).normal(size=(B, N, E)), masks_of(kind)
    stored = np.repeat(lookup.lookup_weights.value, B, axis=0)
    expected, _ = plain_hopfield(lookup.hopfield, stored, x, stored, **plain_masks(masks))
    close(lookup.forward(x, **masks), expected)
    directional(lookup, (x,), lambda: lookup.forward(x, **masks), backward_of)


def test_lookup_projects_its_rows_once_and_copies_none():
    lookup = layers.HopfieldLayer(E, num_heads=H, quantity=50, random_state=0)
    lookup.forward(np.ones((64, 1, E)))
    tape = lookup.hopfield._last_tape
    assert not tape.unprojected
    assert tape.sources[1].xhat.shape == (50, E)


def test_batch_second():
    for cls in (layers.Hopfield, layers.HopfieldPooling, layers.HopfieldLayer):
        options = {"num_heads": H, "dtype": "float64"} | ({} if cls is layers.Hopfield else {"quantity": 2})
        first, second = (scrambled(cls(E, batch_first=b, **options)) for b in (True, False))
        state = first.state_dict()
        second.load_state_dict({k: v.swapaxes(0, 1) if k in LEARNED else v for k, v in state.items()})
        x = rng_of(4).normal(size=(M, B, E))
        a, b = first.forward(x.swapaxes(0, 1)), second.forward(x)
        if cls is layers.HopfieldPooling:  # hflayers flattens what is behind the first axis
            assert b.shape == (2, B * E)
            b = b.reshape(2, B, E).swapaxes(0, 1).reshape(B, 2 * E)
        else:
            b = b.swapaxes(0, 1)
        close(a, b)
        directional(second, (x,), partial(second.forward, x), backward_of)
        if cls is layers.Hopfield:
            again = second.retrieve(x, update_steps_max=1)
            close(first.retrieve(x.swapaxes(0, 1), update_steps_max=1), again.swapaxes(0, 1))


LEARNED = ("pooling_weights", "lookup_weights", "target_weights")


# --- ragged bags ----------------------------------------------------------------------------------------


SIZES = [3, 0, 5, 1]
OFFSETS = np.cumsum([0, *SIZES])


def ragged(e=E, seed=6):
    x = rng_of(seed).normal(size=(sum(SIZES), e))
    return x, [x[a:b] for a, b in itertools.pairwise(OFFSETS)]


def padded_bags(bags):
    x = np.zeros((len(bags), max(SIZES), bags[0].shape[1]))
    mask = np.ones(x.shape[:2], bool)
    for b, bag in enumerate(bags):
        x[b, : len(bag)], mask[b, : len(bag)] = bag, False
    return x, mask


@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
@pytest.mark.parametrize("name", ["defaults", "both patterns", "static stored", "hopfield space", "steps"])
def test_ragged_bags_are_padded_bags(name, separation):
    options = {"num_heads": H, "update_steps_eps": 1e-300, "quantity": 2, **OPTIONS[name], "separation": separation}
    pooling = scrambled(layers.HopfieldPooling(E, **options, dtype="float64"))
    x, bags = ragged()
    dense, padding = padded_bags(bags)
    expected = pooling.forward(dense, padding)
    g = np.cos(np.arange(expected.size)).reshape(expected.shape)
    d_dense = pooling.backward(g)
    by_padding = {k: p.grad for k, p in pooling.parameters().items()}
    for given_bags, offsets in ((bags, None), (x, OFFSETS), (x, OFFSETS.tolist())):
        close(pooling.forward(given_bags, offsets=offsets), expected)
        pooling.zero_grad()
        close(pooling.backward(g), d_dense[~padding])
        for key, p in pooling.parameters().items():
            close(p.grad, by_padding[key])
    directional(pooling, (x,), lambda: pooling.forward(x, offsets=OFFSETS), backward_of)
    weights = pooling.associations(x, offsets=OFFSETS)
    weights = weights if separation == "softmax" else weights.toarray().reshape(len(SIZES), H, 2, -1)
    whole = pooling.associations(dense, padding)
    whole = whole if separation == "softmax" else whole.toarray().reshape(len(SIZES), H, 2, -1)
    for b, size in enumerate(SIZES):
        close(weights[b, ..., :size], whole[b, ..., :size])
    close(pooling.retrieve(bags, update_steps_max=3), pooling.retrieve(dense, padding, update_steps_max=3))


@pytest.mark.parametrize("name", ["defaults", "both patterns"])
def test_ragged_self_association(name):
    layer, _ = made(name, "sparsemax")
    x, bags = ragged()
    dense, padding = padded_bags(bags)
    close(layer.forward(bags), layer.forward(dense, padding)[~padding])
    directional(layer, (x,), lambda: layer.forward(x, offsets=OFFSETS), backward_of)
    for mask in (rng_of(3).random((4, 5, 5)) < 0.3, rng_of(3).normal(size=(4, 5, 5)), rng_of(3).normal(size=(5, 5))):
        close(layer.forward(x, None, mask, offsets=OFFSETS), layer.forward(dense, padding, mask)[~padding])
    assert layer.retrieve(bags, per_head=True, update_steps_max=0).shape == (len(x), H, E)


@pytest.mark.parametrize("separation", ["softmax", "sparsemax"])
def test_padded_state_patterns_have_no_associations(separation):
    layer, _ = made("defaults", separation)
    _, bags = ragged()
    dense, padding = padded_bags(bags)
    found, whole = layer.associations(bags), layer.associations(dense, padding)
    if separation == "sparsemax":
        assert found.nnz == (found.toarray() > 0).sum()
        found, whole = (w.toarray().reshape(len(SIZES), H, max(SIZES), -1) for w in (found, whole))
    there = np.broadcast_to(~padding[:, None, :, None], whole.shape)
    close(found, np.where(there, whole, 0))


def test_ragged_bags_with_own_states():
    layer, _ = made("defaults")
    x, bags = ragged()
    other, other_bags = ragged(seed=9)
    dense, padding = padded_bags(bags)
    dense_other, _ = padded_bags(other_bags)
    state = rng_of(5).normal(size=(4, N, E))
    expected = layer.forward((dense, state, dense_other), padding)
    close(layer.forward((bags, state, other_bags)), expected)
    close(layer.forward((x, state, other), offsets=OFFSETS), expected)
    shared = np.broadcast_to(state[0], state.shape)
    close(layer.forward((x, state[0], other), offsets=OFFSETS), layer.forward((dense, shared, dense_other), padding))


def test_shared_patterns_are_the_same_for_all():
    layer, (stored, state, projection) = made("defaults", "sparsemax", update_steps_max=1)
    one = (stored[0], state, projection[0])
    close(layer.forward(one), layer.forward((np.repeat(stored[:1], B, 0), state, np.repeat(projection[:1], B, 0))))
    directional(layer, one, lambda: layer.forward(one), backward_of)


# --- nothing to look at ---------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", MAPS[:-1], ids=str)
def test_no_row_to_look_at_gives_the_output_of_zeros(separation):
    for steps in (0, 2):
        layer, inputs = made("defaults", separation, update_steps_max=steps)
        zeros = layer.parameters()["association_core.out_proj.bias"].value
        hidden = np.ones((B, M), bool)
        cases = [
            (inputs, {"stored_pattern_padding_mask": hidden}),
            (inputs, {"association_mask": np.full((N, M), -np.inf)}),
            ((inputs[0][:, :0], inputs[1], inputs[2][:, :0]), {}),
        ]
        for given_inputs, masks in cases:
            layer.zero_grad()
            out = layer.forward(given_inputs, **masks)
            close(out, np.broadcast_to(zeros, out.shape))
            for d in layer.backward(np.ones(out.shape)):
                assert not d.any()
            assert all(np.isfinite(p.grad).all() for p in layer.parameters().values())
            assert not layer.parameters()["association_core.in_proj_weight"].grad.any()


def test_an_empty_bag_among_others_changes_none():
    pooling = scrambled(layers.SparseHopfieldPooling(E, num_heads=H, dtype="float64"))
    bags = ragged()[1]
    out = pooling.forward(bags)
    close(out[[0, 2, 3]], pooling.forward([bags[0], bags[2], bags[3]]))
    close(out[1], pooling.parameters()["hopfield.association_core.out_proj.bias"].value)


# --- associations and retrieval -------------------------------------------------------------------------


def test_retrieve_mixes_the_rows_that_came_in():
    for separation in ("softmax", "sparsemax"):
        layer, inputs = made("defaults", separation, update_steps_max=2)
        _, weights = plain_hopfield(layer, *inputs)
        per_head = np.moveaxis(weights @ inputs[0][:, None], 1, 2)
        close(layer.retrieve(inputs, update_steps_max=2, per_head=True), per_head)
        close(layer.retrieve(inputs, update_steps_max=2), per_head.mean(axis=2))
        layer.update_steps_eps = 1e-12
        at_rest = layer.retrieve(inputs)
        close(layer.retrieve(inputs, update_steps_max=10_000), at_rest, 1e-9)


def test_a_sharp_layer_without_projections_retrieves_what_is_stored():
    layer = layers.SparseHopfield(**NOT_NORMAL, **STATIC, disable_out_projection=True, scaling=50.0, dtype="float64")
    rng = rng_of(0)
    stored = rng.standard_normal((2, 20, 30))
    state = stored[:, 3:7] + 0.1 * rng.standard_normal((2, 4, 30))
    assert np.array_equal(layer.retrieve((stored, state, stored)), stored[:, 3:7])
    assert np.array_equal(layer.forward((stored, state, stored)), stored[:, 3:7])


def test_asking_does_not_disturb_the_backward_pass():
    layer, inputs = made("defaults")
    layer.forward(inputs)
    g = np.ones((B, N, E))
    expected = [d.copy() for d in layer.backward(g)]
    layer.forward(inputs)
    layer.associations((inputs[1],) * 3)
    layer.retrieve((inputs[1],) * 3, update_steps_max=0)
    for a, b in zip(layer.backward(g), expected, strict=True):
        close(a, b)


# --- state ----------------------------------------------------------------------------------------------

CORE = "association_core."
NORMS = {f"norm_{name}.{part}": (6,) for name in ("stored_pattern", "state_pattern", "pattern_projection")
         for part in ("weight", "bias")}  # fmt: skip

# What hflayers' modules of the same arguments call their parameters, and their shapes.
STATES = {
    "defaults": (
        layers.Hopfield(6, num_heads=2),
        {CORE + "in_proj_weight": (18, 6), CORE + "in_proj_bias": (18,), CORE + "out_proj.weight": (6, 6),
         CORE + "out_proj.bias": (6,), **NORMS},
    ),
    "sizes": (
        layers.Hopfield(6, 4, 5, 3, 2, stored_pattern_size=7, pattern_projection_size=8, normalize_state_pattern=False,
                        normalize_state_pattern_affine=False, normalize_stored_pattern_affine=False),
        {CORE + "q_proj_weight": (8, 6), CORE + "k_proj_weight": (8, 7), CORE + "v_proj_weight": (6, 8),
         CORE + "in_proj_bias": (22,), CORE + "out_proj.weight": (5, 6), CORE + "out_proj.bias": (5,),
         "norm_pattern_projection.weight": (8,), "norm_pattern_projection.bias": (8,)},
    ),
    "no bias, connected": (
        layers.Hopfield(6, 4, num_heads=2, input_bias=False, pattern_projection_as_connected=True),
        {CORE + "q_proj_weight": (8, 6), CORE + "k_proj_weight": (8, 6), CORE + "v_proj_weight": (8, 8),
         CORE + "out_proj.weight": (6, 8), **NORMS},
    ),
    "hopfield space, bias patterns": (
        layers.Hopfield(6, 4, num_heads=2, normalize_hopfield_space=True, normalize_hopfield_space_affine=True,
                        concat_bias_pattern=True, disable_out_projection=True),
        {CORE + "p_norm_weight": (4,), CORE + "p_norm_bias": (4,), CORE + "in_proj_weight": (24, 6),
         CORE + "in_proj_bias": (24,), CORE + "bias_k": (1, 1, 8), CORE + "bias_v": (1, 1, 8), **NORMS},
    ),
    "static values": (
        layers.Hopfield(6, 6, num_heads=2, pattern_projection_as_static=True),
        {CORE + "in_proj_weight": (24, 6), CORE + "in_proj_bias": (36,), CORE + "out_proj.weight": (6, 12),
         CORE + "out_proj.bias": (6,), **NORMS},
    ),
    "static stored, connected": (
        layers.Hopfield(6, 6, num_heads=2, stored_pattern_as_static=True, pattern_projection_as_connected=True),
        {CORE + "q_proj_weight": (12, 6), CORE + "v_proj_weight": (12, 6), CORE + "in_proj_bias": (24,),
         CORE + "out_proj.weight": (6, 12), CORE + "out_proj.bias": (6,), **NORMS},
    ),
    "nothing": (layers.Hopfield(**NOT_NORMAL, **STATIC, disable_out_projection=True), {}),
    "pooling": (
        layers.HopfieldPooling(6, 4, num_heads=2, quantity=3, **NOT_NORMAL),
        {"pooling_weights": (1, 3, 6), "hopfield." + CORE + "in_proj_weight": (24, 6),
         "hopfield." + CORE + "in_proj_bias": (24,), "hopfield." + CORE + "out_proj.weight": (6, 8),
         "hopfield." + CORE + "out_proj.bias": (6,)},
    ),
    "pooling, batch second": (
        layers.HopfieldPooling(6, 4, num_heads=2, quantity=3, batch_first=False, state_pattern_as_static=True,
                               disable_out_projection=True, input_bias=False, **NOT_NORMAL),
        {"pooling_weights": (3, 1, 4), "hopfield." + CORE + "in_proj_weight": (16, 6)},
    ),
    "lookup": (
        layers.HopfieldLayer(6, quantity=5, lookup_weights_as_separated=True, pattern_projection_size=3,
                             stored_pattern_size=7, disable_out_projection=True, input_bias=False, **NOT_NORMAL),
        {"lookup_weights": (1, 5, 7), "target_weights": (1, 5, 3), "hopfield." + CORE + "q_proj_weight": (6, 6),
         "hopfield." + CORE + "k_proj_weight": (6, 7), "hopfield." + CORE + "v_proj_weight": (6, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_state_has_the_names_and_shapes_of_hflayers(name):
    layer, table = STATES[name]
    assert {k: v.shape for k, v in layer.state_dict().items()} == table


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert np.array_equal(a[name], b[name]), name


SAVED = {
    "hopfield": lambda: layers.Hopfield(E, num_heads=H, scaling=np.array([0.5, 2]), dtype="float64"),
    "sparse": lambda: layers.SparseHopfield(E, separation=sh.Entmax(1.25), association_activation="tanh"),
    "learned beta": lambda: layers.Hopfield(E, learnable_scaling=True, separation=sh.Polynomial(3)),
    "pooling": lambda: layers.SparseHopfieldPooling(E, quantity=2, trainable=False, dropout=0.1, random_state=3),
    "lookup": lambda: layers.HopfieldLayer(E, quantity=4, lookup_weights_as_separated=True, num_heads=2),
    "model": lambda: layers.Sequential(
        layers.Linear(E, 4), layers.ReLU(), layers.LayerNorm(4), layers.HopfieldPooling(4, num_heads=2),
        layers.Flatten(), layers.Dropout(0.2), layers.GELU(), layers.Sequential(layers.Linear(4, 1, bias=False)),
    ),
    "nothing learned": lambda: layers.Sequential(layers.ReLU()),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_saved_and_loaded(name, tmp_path):
    layer = scrambled(SAVED[name]())
    layer.save(tmp_path / "layer")
    again = layers.load(tmp_path / "layer")
    assert type(again) is type(layer)
    same_state(layer, again)
    x = rng_of(0).normal(size=(2, M, E)).astype(layer.dtype)
    assert np.array_equal(layer.forward(x), again.forward(x))
    assert [p.trainable for p in layer.parameters().values()] == [p.trainable for p in again.parameters().values()]
    same_state(type(layer).load(tmp_path / "layer"), layer)
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "layer").read_bytes()


def test_what_was_changed_is_saved(tmp_path):
    layer = layers.HopfieldPooling(E, num_heads=2, random_state=np.random.default_rng(3))
    layer.scaling, layer.separation = [0.1, 0.3], sh.Entmax(1.75)
    layer.save(tmp_path / "layer")
    again = layers.load(tmp_path / "layer")
    assert again.scaling.tolist() == [0.1, 0.3]
    assert again.separation == sh.Entmax(1.75)


def test_other_programs_read_the_file(tmp_path):
    from safetensors.numpy import load_file

    layer = SAVED["pooling"]()
    layer.save(tmp_path / "layer")
    read = load_file(tmp_path / "layer")
    assert {k: v.tobytes() for k, v in read.items()} == {k: v.tobytes() for k, v in layer.state_dict().items()}


@given(st.data())
def test_damaged_files_raise(tmp_path_factory, data):
    """All but what means nothing: one white space for another between the header's words."""
    path = tmp_path_factory.getbasetemp() / "damaged layer"
    SAVED["pooling"]().save(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        before, content[at] = content[at], content[at] ^ data.draw(st.integers(1, 255))
        whole = 8 + int.from_bytes(content[:8], "little")
        assume(not (at < whole and {before, content[at]} <= set(b" \t\n\r")))
    path.write_bytes(content)
    with pytest.raises(sh.FileFormatError, match="damaged layer"):
        layers.load(path)


def test_files_of_others_raise(tmp_path, monkeypatch):
    path = tmp_path / "file"
    sh.HopfieldMemory(np.eye(3)).save(path)
    with pytest.raises(sh.FileFormatError, match="holds no layer"):
        layers.load(path)
    SAVED["pooling"]().save(path)
    with pytest.raises(sh.FileFormatError, match="holds no memory"):
        sh.HopfieldMemory.load(path)
    with pytest.raises(sh.FileFormatError, match="holds a SparseHopfieldPooling, no Linear"):
        layers.Linear.load(path)
    with pytest.raises(FileNotFoundError):
        layers.load(tmp_path / "none")
    linear = {"input_size": 0, "output_size": 1}
    for described in (
        {"Nothing": {}},
        {"Linear": linear},
        {"Linear": {"no": 1}},
        {"Linear": 3},
        {"Entmax": 2},
        3,
        [],
        {},
    ):
        monkeypatch.setattr("sparsehopfield.layers._module._described", lambda layer, d=described: d)
        layers.Linear(2, 1).save(path)
        with pytest.raises(sh.FileFormatError, match="describes no layer"):
            layers.load(path)
    described = {"Linear": {"input_size": 3, "output_size": 1}}
    monkeypatch.setattr("sparsehopfield.layers._module._described", lambda layer: described)
    layers.Linear(2, 1).save(path)
    with pytest.raises(sh.FileFormatError, match=r"file: state\['weight'\]: must have shape \(1, 3\), got \(1, 2\)"):
        layers.load(path)


def test_layers_from_elsewhere_cannot_be_saved(tmp_path):
    class Own(layers.Linear):
        pass

    with pytest.raises(ValueError, match="Own does not come with this package"):
        layers.Sequential(Own(2, 1)).save(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_states_that_do_not_fit_change_nothing():
    layer = layers.Linear(3, 2, random_state=0)
    before, state = layer.state_dict(), layer.state_dict()
    other = {k: v + 1 for k, v in state.items()}
    cases = [
        ({"weight": other["weight"]}, "missing bias"),
        ({**other, "more": 1}, "unknown more"),
        ({"bias": other["bias"], "more": 1}, "missing weight; unknown more"),
        ({**other, "weight": np.ones((2, 2))}, r"state\['weight'\]: must have shape \(2, 3\), got \(2, 2\)"),
        ({**other, "bias": np.array([1.0, np.nan])}, r"state\['bias'\]: must be finite"),
        ({**other, "bias": np.array([1.0, 1e300])}, r"state\['bias'\]: must be finite in float32"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            layer.load_state_dict(wrong)
        for name, a in before.items():
            assert np.array_equal(layer.state_dict()[name], a)
    layer.load_state_dict({"bias": other["bias"], "more": 1}, strict=False)
    assert np.array_equal(layer.bias.value, other["bias"])
    assert np.array_equal(layer.weight.value, before["weight"])


def test_state_is_a_copy():
    layer = layers.Linear(3, 2)
    layer.state_dict()["weight"][...] = 7
    assert not (layer.weight.value == 7).any()
    state = {k: np.ones_like(v) for k, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    state["weight"][...] = 7
    assert (layer.weight.value == 1).all()


@pytest.mark.parametrize("name", SAVED)
def test_copies_and_pickles(name):
    layer = scrambled(SAVED[name]())
    x = rng_of(0).normal(size=(2, M, E)).astype(layer.dtype)
    out = layer.forward(x)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with pytest.raises(RuntimeError, match="needs a forward pass"):
            again.backward(out)
        assert np.array_equal(again.forward(x), out)
        again.backward(out)
        for p in again.parameters().values():  # what the copy computes with is its own
            p.value += 1
        if layer.parameters():
            assert not np.array_equal(again.forward(x), out)
    assert np.array_equal(layer.forward(x), out)


# --- seeds ----------------------------------------------------------------------------------------------


def test_a_seed_fixes_everything():
    def trained(seed):
        layer = layers.SparseHopfieldPooling(E, num_heads=H, dropout=0.3, random_state=seed)
        x = rng_of(0).normal(size=(B, M, E))
        out = [layer.forward(x, train=True) for _ in range(3)]
        return [*out, *layer.state_dict().values()]

    for a, b in zip(trained(4), trained(4), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(trained(4)[0], trained(5)[0])
    generator = np.random.default_rng(4)
    first, second = (layers.Linear(3, 2, random_state=generator).weight.value for _ in range(2))
    assert not np.array_equal(first, second)


def test_precisions_begin_alike_and_agree():
    single, double = (layers.Hopfield(E, num_heads=H, dtype=d, random_state=0) for d in ("float32", "float64"))
    for a, b in zip(single.state_dict().values(), double.state_dict().values(), strict=True):
        assert a.dtype == np.float32
        assert b.dtype == np.float64
        assert np.array_equal(a, b.astype(np.float32))
    x = rng_of(0).normal(size=(B, M, E))
    a, b = single.forward(x), double.forward(x)
    assert a.dtype == np.float32
    close(a, b, 1e-6)
    da, db = single.backward(np.ones(a.shape)), double.backward(np.ones(b.shape))
    assert da.dtype == np.float32
    close(da, db, 1e-6)
    assert all(p.grad.dtype == np.float32 for p in single.parameters().values())


def test_initial_weights_have_the_asked_deviation():
    for std in (0.02, 0.5):
        layer = layers.HopfieldPooling(64, quantity=64, initial_std=std, random_state=0)
        for name, a in layer.state_dict().items():
            if a.ndim > 1:
                assert abs(a.std() / std - 1) < 0.05, name


# --- the rest of a classifier ---------------------------------------------------------------------------


BASIC = {
    "linear": lambda: layers.Linear(E, 3, dtype="float64"),
    "linear without bias": lambda: layers.Linear(E, 3, bias=False, dtype="float64"),
    "norm": lambda: layers.LayerNorm(E, dtype="float64"),
    "norm, not affine": lambda: layers.LayerNorm(E, affine=False, dtype="float64"),
    "relu": layers.ReLU,
    "gelu": layers.GELU,
    "flatten": layers.Flatten,
    "flatten all": lambda: layers.Flatten(0),
    "dropout": layers.Dropout,
    "several": lambda: layers.Sequential(
        layers.GELU(), layers.Linear(E, 4, dtype="float64"), layers.ReLU(), layers.LayerNorm(4, dtype="float64"),
        layers.HopfieldPooling(4, num_heads=2, dtype="float64"), layers.Linear(4, 2, dtype="float64"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BASIC)
def test_gradients_of_basic_layers(name):
    layer = scrambled(BASIC[name]())
    x = rng_of(0).normal(size=(B, M, E))
    directional(layer, (x,), lambda: layer.forward(x), backward_of)
    if layer.parameters():
        layer.forward(x)
        full = {k: p.grad for k, p in layer.parameters().items()}
        layer.zero_grad()
        assert layer.backward(rng_of(3).standard_normal(layer.forward(x).shape), need_input_grad=False) is None
        for k, p in layer.parameters().items():
            close(p.grad, full[k])


def test_basic_layers_are_their_formulas():
    x = rng_of(0).normal(size=(B, M, E))
    linear = layers.Linear(E, 3, dtype="float64", random_state=0)
    close(linear.forward(x), x @ linear.weight.value.T + linear.bias.value)
    assert np.abs(linear.weight.value).max() <= E**-0.5
    norm = scrambled(layers.LayerNorm(E, eps=0.1, dtype="float64"))
    close(norm.forward(x), plain_norm(x, 0.1, norm.weight.value, norm.bias.value))
    close(layers.LayerNorm(E, affine=False, dtype="float64").forward(x), plain_norm(x, 1e-5))
    close(layers.ReLU().forward(x), np.maximum(x, 0))
    close(layers.GELU().forward(x).ravel(), [v / 2 * (1 + erf(v / 2**0.5)) for v in x.ravel()])
    assert layers.GELU().forward(x.astype(np.float32)).dtype == np.float32
    assert np.array_equal(layers.Flatten().forward(x), x.reshape(B, -1))
    assert np.array_equal(layers.Dropout(0.5).forward(x), x)


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    layer = layers.Dropout(0.25, random_state=0)
    out = layer.forward(np.ones((100, 100), np.float32), train=True)
    assert set(np.unique(out)) == {np.float32(0), np.float32(4 / 3)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    assert np.array_equal(layer.backward(np.ones_like(out)), out)
    again = layers.Dropout(0.25, random_state=0).forward(np.ones((100, 100), np.float32), train=True)
    assert np.array_equal(out, again)


@pytest.mark.parametrize("loss", [layers.binary_cross_entropy_with_logits, layers.mean_squared_error])
def test_losses(loss):
    rng = rng_of(0)
    x, y = rng.normal(size=(4, 3)), rng.random((4, 3))
    value, grad = loss(x, y)
    if loss is layers.mean_squared_error:
        expected = np.mean((x - y) ** 2)
    else:
        p = 1 / (1 + np.exp(-x))
        expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    close(value, expected)
    direction = rng.normal(size=x.shape)
    numeric = (loss(x + 1e-6 * direction, y)[0] - loss(x - 1e-6 * direction, y)[0]) / 2e-6
    close(np.vdot(grad, direction), numeric, 1e-7)
    assert loss(x.astype(np.float32), y)[1].dtype == np.float32
    big = np.array([1e4, -1e4])
    value, grad = loss(big, np.array([0.0, 0.0]))
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    for wrong in (np.ones(3), np.ones((3, 4))):
        with pytest.raises(ValueError, match="targets: must have the shape"):
            loss(x, wrong)
    with pytest.raises(ValueError, match="not be empty"):
        loss([], [])


def test_targets_out_of_range():
    for wrong in (1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match="targets: must be from 0 to 1"):
            layers.binary_cross_entropy_with_logits([0.0], [wrong])


def test_sequential_takes_bags_and_masks():
    def model():
        return layers.Sequential(
            layers.Linear(E, 4, random_state=0), layers.ReLU(), layers.HopfieldPooling(4, random_state=1),
            layers.Linear(4, 1, random_state=2),
        )  # fmt: skip

    x, bags = ragged()
    dense, padding = padded_bags(bags)
    expected = model().forward(dense, stored_pattern_padding_mask=padding)
    close(model().forward(bags), expected, 1e-6)
    close(model().forward(x, offsets=OFFSETS), expected, 1e-6)
    with pytest.raises(TypeError, match="offsets: no layer here takes it"):
        layers.Sequential(layers.ReLU()).forward(x, offsets=OFFSETS)


# --- bad input ------------------------------------------------------------------------------------------

ARGUMENTS = [
    (dict(num_heads=4), "num_heads: must divide input_size 6"),
    (dict(num_heads=0), "num_heads: must be at least 1"),
    (dict(num_heads=1.5), "num_heads: must be a whole number"),
    (dict(hidden_size=0), "hidden_size: must be at least 1"),
    (dict(output_size=-1), "output_size: must be at least 1"),
    (dict(scaling=0.0), "scaling: must be positive and finite"),
    (dict(scaling=[1.0, 2.0]), r"scaling: must be a number or one for each of 1 heads, got shape \(2,\)"),
    (dict(scaling=np.nan), "scaling: must be positive and finite"),
    (dict(scaling="x"), "scaling: must be real numbers"),
    (dict(update_steps_max=1.5), "update_steps_max: must be a whole number"),
    (dict(update_steps_max=[1]), "update_steps_max: one number for all heads"),
    (dict(update_steps_eps=0.0), "update_steps_eps: must be positive"),
    (dict(update_steps_eps=[1e-4]), "update_steps_eps: one number for all heads"),
    (dict(normalize_stored_pattern=False), "normalize_stored_pattern_affine: has no effect without"),
    (dict(normalize_state_pattern=False), "normalize_state_pattern_affine: has no effect without"),
    (dict(normalize_pattern_projection=False), "normalize_pattern_projection_affine: has no effect without"),
    (dict(normalize_hopfield_space_affine=True), "normalize_hopfield_space_affine: has no effect without"),
    (dict(normalize_state_pattern_eps=0), "normalize_state_pattern_eps: must be positive"),
    (dict(association_activation="rellu"), "association_activation: unknown name 'rellu'; did you mean 'relu'"),
    (dict(dropout=1.0), "dropout: must be from 0 to below 1"),
    (dict(dropout=-0.1), "dropout: must be a finite number of at least 0"),
    (
        dict(concat_bias_pattern=True, stored_pattern_as_static=True),
        "concat_bias_pattern: cannot be appended to static",
    ),
    (dict(pattern_projection_as_connected=True, pattern_projection_size=3), "pattern_projection_as_connected: "),
    (dict(pattern_projection_as_connected=True, pattern_size=3), "pattern_size: must be hidden_size 6 where connected"),
    (dict(state_pattern_as_static=True, hidden_size=3), "state_pattern_as_static: normalised patterns of 6 features"),
    (dict(separation="sparse"), "separation: unknown name 'sparse'; did you mean 'sparsemax'"),
    (dict(gradient="implied"), "gradient: unknown name 'implied'"),
    (dict(initial_std=-1), "initial_std: must be a finite number"),
    (dict(dtype="float16"), "dtype: must be float32 or float64"),
    (dict(random_state="x"), "random_state: must be None"),
    (dict(input_size=None), "input_size: is needed"),
    (dict(input_size=None, **STATIC, disable_out_projection=True), "normalize_state_pattern: needs input_size"),
]


@pytest.mark.parametrize(("options", "message"), ARGUMENTS, ids=[m[:40] for _, m in ARGUMENTS])
def test_bad_arguments(options, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        layers.Hopfield(**{"input_size": 6, **options})


def test_bad_arguments_of_the_others():
    with pytest.raises(ValueError, match=r"^quantity: must be at least 1"):
        layers.HopfieldPooling(6, quantity=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'quantitty'"):
        layers.HopfieldLayer(6, quantitty=3)
    with pytest.raises(ValueError, match=r"^input_size: must be at least 1"):
        layers.Linear(0, 1)
    with pytest.raises(ValueError, match=r"^eps: must be positive"):
        layers.LayerNorm(3, eps=0.0)
    with pytest.raises(ValueError, match=r"^rate: must be from 0 to below 1"):
        layers.Dropout(1.0)
    with pytest.raises(ValueError, match=r"^layers: needs at least one"):
        layers.Sequential()
    with pytest.raises(TypeError, match=r"^layers: must be layers"):
        layers.Sequential(3)
    with pytest.raises(TypeError, match=r"^layers: need one dtype"):
        layers.Sequential(layers.Linear(1, 1), layers.Linear(1, 1, dtype="float64"))


X = np.zeros((2, 5, 6), np.float32)
CALLS = [
    (dict(input=np.zeros((2, 5, 4))), r"stored pattern: must have 6 features, got shape \(2, 5, 4\)"),
    (dict(input=np.zeros((5, 6))), r"input: must be \(samples, patterns, features\), got shape \(5, 6\)"),
    (dict(input=np.zeros(6)), r"stored pattern: must be \(samples, patterns, features\)"),
    (dict(input=(X, X)), "input: must be one array or a tuple"),
    (dict(input=(X, X[:1], X)), "state pattern: needs 2 samples"),
    (dict(input=(X, X, X[:1])), "pattern projection: needs one row for each stored pattern"),
    (dict(input=(X, X, X[:, :2])), "pattern projection: needs one row for each stored pattern"),
    (dict(input=np.array(["a"])), "input: must be real numbers"),
    (dict(input=np.full((2, 5, 6), np.nan)), "state pattern: must be finite"),
    (dict(input=np.full((2, 5, 6), 1e300)), "state pattern: must be finite in float32"),
    (
        dict(input=X, stored_pattern_padding_mask=np.zeros((2, 4), bool)),
        "stored_pattern_padding_mask: must be bool",
    ),
    (dict(input=X, stored_pattern_padding_mask=np.zeros((2, 5))), "stored_pattern_padding_mask: must be bool"),
    (dict(input=X, association_mask=np.zeros((5, 4))), "association_mask: must have one of the shapes"),
    (dict(input=X, association_mask=np.zeros((3, 5, 5))), "association_mask: must have one of the shapes"),
    (dict(input=X, association_mask=np.full((5, 5), np.nan)), "association_mask: must be numbers below infinity"),
    (dict(input=X, association_mask=np.full((5, 5), np.inf)), "association_mask: must be numbers below infinity"),
    (dict(input=X[0], offsets=[0, 3]), "offsets: must rise from 0 to the number of rows, 5"),
    (dict(input=X[0], offsets=[0, 4, 3, 5]), "offsets: must rise from 0"),
    (dict(input=X[0], offsets=[1, 5]), "offsets: must rise from 0"),
    (dict(input=X[0], offsets=[0.0, 5.0]), "offsets: must be whole numbers"),
    (dict(input=X, offsets=[0, 2]), r"input: stored patterns and pattern projections of ragged bags must be"),
    (dict(input=[X[0]], offsets=[0, 5]), "offsets: a list of bags has its own"),
    (dict(input=[X[0], X[0, :, :3]]), "input: a list must hold one array"),
    (dict(input=([X[0]], X, [X[0, :3], X[0, :2]])), "pattern projection: bags must have the sizes"),
    (dict(input=([*X], [*X], [*X])), "state pattern: ragged bags of it must be the very list of the stored"),
    (dict(input=(X, [*X], X)), "state pattern: ragged bags of it must be"),
    (
        dict(input=[X[0]], stored_pattern_padding_mask=np.zeros((1, 5), bool)),
        "stored_pattern_padding_mask: ragged",
    ),
]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[m[:40] for _, m in CALLS])
def test_bad_calls(call, message):
    layer = layers.Hopfield(6, num_heads=2, random_state=0)
    for method in (layer.forward, layer.associations, layer.retrieve):
        if "finite" in message and method != layer.forward:
            continue
        with pytest.raises((ValueError, TypeError), match=f"^{message}"), np.errstate(all="ignore"):
            method(**call)


def test_bad_calls_of_the_others():
    with pytest.raises(ValueError, match=r"^input: must be one array or a tuple"):
        layers.HopfieldPooling(6).forward((X, X, X))
    with pytest.raises(TypeError, match=r"^input: must be one array of state patterns"):
        layers.HopfieldLayer(6).forward((X, X))
    with pytest.raises(ValueError, match=r"^offsets: the stored patterns are learned"):
        layers.HopfieldLayer(6).forward(X, offsets=[0, 2])
    with pytest.raises(ValueError, match=r"^offsets: ragged bags need batch_first"):
        layers.HopfieldPooling(6, batch_first=False).forward(X[0], offsets=[0, 5])
    with pytest.raises(ValueError, match=r"^input: must have 6 features"):
        layers.Linear(6, 1).forward(np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"^input: needs more than 1 axes"):
        layers.Flatten().forward(np.ones(3))


@pytest.mark.parametrize("make", [*SAVED.values(), *BASIC.values()])
def test_bad_gradients(make):
    layer = make()
    with pytest.raises(RuntimeError, match="needs a forward pass before it"):
        layer.backward(np.ones((2, 3)))
    out = layer.forward(np.ones((2, M, E)))
    with pytest.raises(ValueError, match=r"^grad: must have the output's shape"):
        layer.backward(np.ones((*out.shape, 2)))


def test_static_patterns_must_fit_one_another():
    layer = layers.Hopfield(**NOT_NORMAL, **STATIC, disable_out_projection=True)
    with pytest.raises(ValueError, match=r"^state pattern: must have the 6 features of the stored patterns"):
        layer.forward((X, X[..., :4], X))


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2),
    st.sampled_from(MAPS), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_shape(samples, queries, rows, heads, width, steps, separation, seed):
    rng = rng_of(seed)
    layer = layers.Hopfield(
        3, width, num_heads=heads, update_steps_max=steps, separation=separation, dtype="float64", random_state=seed,
        update_steps_eps=1e-300, initial_std=1.0,
    )  # fmt: skip
    inputs = (
        rng.normal(size=(samples, rows, 3)),
        rng.normal(size=(samples, queries, 3)),
        rng.normal(size=(samples, rows, 3)),
    )
    padding = rng.random((samples, rows)) < 0.3
    out = layer.forward(inputs, padding)
    assert out.shape == (samples, queries, 3)
    if rows:
        with np.errstate(invalid="ignore"):
            close(out, plain_hopfield(layer, *inputs, padding)[0], 1e-9)
    assert all(np.isfinite(d).all() for d in layer.backward(np.ones(out.shape)))


def test_the_layers_need_no_torch():
    code = "import json, sys; from sparsehopfield import layers, optim; print(json.dumps(sorted(sys.modules)))"
    loaded = run_python(code)
    assert "sparsehopfield.optim" in loaded
    assert "torch" not in loaded
