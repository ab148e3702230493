"""Arrays that change after they were checked: the core follows copies, and gradients are those of what came in."""

import threading

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers
from sparsehopfield._engine.association import associate_backward, associate_forward, association_weights
from sparsehopfield.structures import BlockSparse, LinearFeatures, RandomFeatures, RandomMask, TopK, Window

E = 4
OFFSETS = np.array([0, 5, 9, 12])
HUGE = np.array([0, 10**6, 2 * 10**6, 3 * 10**6])
OTHER = [HUGE, np.array([0, 1, 2, 12]), np.array([0, 12, 12, 12]), np.array([-5, 10**12, -1, 3])]
NOT_NORMAL = {
    f"normalize_{role}{affine}": False
    for role in ("stored_pattern", "state_pattern", "pattern_projection")
    for affine in ("", "_affine")
}


def rng_of(seed):
    return np.random.default_rng(seed)


def rows(n=12, seed=0):
    return rng_of(seed).standard_normal((n, E))


LAYERS = {
    "hopfield": lambda: layers.Hopfield(E, num_heads=2, dtype="float64", random_state=0),
    "sparse": lambda: layers.SparseHopfield(E, update_steps_max=2, dtype="float64", random_state=0),
    "appended": lambda: layers.Hopfield(
        E, add_zero_association=True, concat_bias_pattern=True, dtype="float64", random_state=0
    ),
    "pooling": lambda: layers.HopfieldPooling(E, quantity=2, dtype="float64", random_state=0),
    "sparse pooling": lambda: layers.SparseHopfieldPooling(E, dtype="float64", random_state=0),
    "top": lambda: layers.Hopfield(E, structure=TopK(2), dtype="float64", random_state=0),
    "window": lambda: layers.Hopfield(E, structure=Window(1, positions=np.arange(5)), dtype="float64", random_state=0),
    "linear features": lambda: layers.Hopfield(E, structure=LinearFeatures("relu"), dtype="float64", random_state=0),
    "causal features": lambda: layers.Hopfield(
        E, structure=LinearFeatures("relu", causal=True), dtype="float64", random_state=0
    ),
    "random features": lambda: layers.Hopfield(E, structure=RandomFeatures(8), dtype="float64", random_state=0),
    "in a model": lambda: layers.Sequential(
        layers.Linear(E, E, dtype="float64", random_state=0),
        layers.HopfieldPooling(E, dtype="float64", random_state=1),
    ),
}


def gradients(layer, grads):
    return [*grads, *(p.grad for p in layer.parameters().values() if p.grad is not None)]


def backward(layer, out):
    layer.zero_grad()
    found = layer.backward(np.cos(1 + np.arange(out.size)).reshape(out.shape))
    return gradients(layer, [d for d in (found if isinstance(found, tuple) else (found,)) if d is not None])


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("other", range(len(OTHER)))
def test_offsets_that_change_before_the_backward_pass(name, other):
    layer, x = LAYERS[name](), rows()
    expected = backward(layer, layer.forward(x, offsets=OFFSETS.copy()))
    offsets = OFFSETS.copy()
    out = layer.forward(x, offsets=offsets)
    offsets[:] = OTHER[other]
    same(backward(layer, out), expected)


@pytest.mark.parametrize("name", ["hopfield", "sparse", "appended", "pooling", "linear features", "random features"])
def test_padding_that_changes_before_the_backward_pass(name):
    layer, x, padding = LAYERS[name](), rows(24).reshape(2, 12, E), np.zeros((2, 12), bool)
    padding[:, 7:] = True
    expected = backward(layer, layer.forward(x, padding.copy()))
    for change in (np.zeros_like(padding), ~padding, np.ones_like(padding)):
        changing = padding.copy()
        out = layer.forward(x, changing)
        changing[...] = change
        same(backward(layer, out), expected)


@pytest.mark.parametrize("name", ["hopfield", "sparse", "appended", "top"])
@pytest.mark.parametrize("kind", [bool, np.float32, np.float64])
@pytest.mark.parametrize("lead", [(), (2,), (2, 1)])
def test_masks_that_change_before_the_backward_pass(name, kind, lead):
    layer, x = LAYERS[name](), rows(24).reshape(2, 12, E)
    if lead == (2, 1):
        lead = (2, layer.num_heads)
    mask = (rng_of(1).random((*lead, 12, 12)) < 0.3).astype(kind)
    expected = backward(layer, layer.forward(x, association_mask=mask.copy()))
    changing = mask.copy()
    out = layer.forward(x, association_mask=changing)
    changing[...] = 1
    same(backward(layer, out), expected)


BARE = {
    "linear": lambda: layers.Linear(E, 3, dtype="float64", random_state=0),
    "norm": lambda: layers.LayerNorm(E, dtype="float64"),
    "relu": layers.ReLU,
    "gelu": layers.GELU,
    "dropout": lambda: layers.Dropout(0.5, random_state=0),
    "not normal": lambda: layers.Hopfield(E, **NOT_NORMAL, dtype="float64", random_state=0),
    "not normal, pooling": lambda: layers.HopfieldPooling(E, **NOT_NORMAL, dtype="float64", random_state=0),
    "not normal, lookup": lambda: layers.HopfieldLayer(E, **NOT_NORMAL, quantity=3, dtype="float64", random_state=0),
    "static": lambda: layers.Hopfield(
        E, **NOT_NORMAL, stored_pattern_as_static=True, state_pattern_as_static=True,
        pattern_projection_as_static=True, disable_out_projection=True, update_steps_max=1, dtype="float64",
    ),
    "activated": lambda: layers.Hopfield(E, association_activation="tanh", dtype="float64", random_state=0),
    **{name: LAYERS[name] for name in ("hopfield", "sparse", "pooling", "linear features", "in a model")},
}  # fmt: skip


@pytest.mark.parametrize("name", BARE)
def test_inputs_and_outputs_that_change_before_the_backward_pass(name):
    x = rows(24).reshape(2, 12, E)
    layer = BARE[name]()
    expected = backward(layer, layer.forward(x.copy()))
    layer, changing = BARE[name](), x.copy()
    out = layer.forward(changing)
    changing[...] = rows(24, seed=5).reshape(x.shape) * 100
    out[...] = 7
    same(backward(layer, out), expected)


def problem(**options):
    r = rng_of(3)
    q, k, v = r.standard_normal((3, 5, 2, E)), r.standard_normal((12, 2, E)), r.standard_normal((12, 2, 3))
    return dict(queries=q, stored=k, values=v, beta=1.5, offsets=OFFSETS.copy(), **options)


@pytest.mark.parametrize("options", [{}, {"separation": "softmax"}, {"update_steps_max": 3}], ids=str)
@pytest.mark.parametrize("other", OTHER, ids=str)
def test_functions_follow_copies(options, other):
    given = problem(**options)
    out, saved = associate_forward(**given)
    expected = [*associate_backward(saved, np.cos(out)), association_weights(saved).copy()]
    given["offsets"][:] = other
    found = [*associate_backward(saved, np.cos(out)), association_weights(saved)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.toarray() if hasattr(a, "toarray") else a,
                                      b.toarray() if hasattr(b, "toarray") else b)  # fmt: skip


@pytest.mark.parametrize("change", ["shape", "dtype"])
@pytest.mark.parametrize("structure", [None, TopK(2), LinearFeatures("relu"), RandomFeatures(8)], ids=str)
def test_arrays_that_get_another_shape_in_place(change, structure):
    """The gradients' sizes are those of the forward pass, whatever the arrays look like now."""
    q, k, v = (rng_of(i).standard_normal((2, 6, 2, E)) for i in range(3))
    out, saved = associate_forward(q, k, v, 1.0, separation="softmax", structure=structure)
    expected = associate_backward(saved, np.cos(out))
    for a in (q, k, v):
        if change == "shape":
            a.shape = (2, 1, 2, 6 * E)
        else:
            a.dtype = np.complex128
    for a, b in zip(associate_backward(saved, np.cos(out)), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_numbers_that_change_do_no_harm():
    """Rows are not copied: gradients are then of something else, but nothing is read or written that is not there."""
    for separation in ("softmax", "sparsemax", sh.Entmax(1.5)):
        for structure in (None, TopK(2), Window(1), RandomMask(2), RandomFeatures(4)):
            if isinstance(structure, RandomFeatures) and separation != "softmax":
                continue
            for value in (1e300, np.nan, -np.inf, 0.0):
                arrays = [rng_of(i).standard_normal((2, 40, 2, E)) for i in range(3)]
                out, saved = associate_forward(
                    *arrays, 1.0, separation=separation, structure=structure, update_steps_max=2
                )
                for a in arrays:
                    a[...] = value
                with np.errstate(all="ignore"):
                    associate_backward(saved, np.ones_like(out))


def test_positions_of_a_structure_that_change():
    x = rows(12)
    window = Window(1, positions=np.array([3, 0, 11]))
    expected = sh.update(x[:3], x, structure=window)
    q, k = x[None, :3, None], x[None, :, None]
    out, saved = associate_forward(q, k, k, 1.0, structure=window)
    grads = associate_backward(saved, np.cos(out))
    window.positions.flags.writeable = True  # as a caller may do
    for wrong in ([10**9, 10**9, 10**9], [-1, -(2**40), 5], [12, 0, 0]):
        window.positions[:] = wrong
        for a, b in zip(associate_backward(saved, np.cos(out)), grads, strict=True):
            np.testing.assert_array_equal(a, b)
        with pytest.raises(ValueError, match="positions"):
            sh.update(x[:3], x, structure=window)
    window.positions[:] = [3, 0, 11]
    np.testing.assert_array_equal(sh.update(x[:3], x, structure=window), expected)


def test_blocks_of_a_structure_that_change():
    x = rows(8)
    blocks = BlockSparse(np.eye(2, dtype=bool), (4, 4))
    with pytest.raises(ValueError, match="read-only"):
        blocks.given.indices[:] = 10**9
    with pytest.raises(ValueError, match="read-only"):
        blocks.given.indptr[:] = 10**9
    blocks.given.indices.flags.writeable = True
    blocks.given.indices[:] = 10**9
    with pytest.raises(ValueError, match="mask"):
        sh.update(x, x, structure=blocks)


@pytest.mark.parametrize("wrong", [10**9, -1, -(2**40)])
def test_parts_whose_lists_change(wrong):
    x = rows(12)
    for name, message in (("start", "start"), ("position", "position")):
        for ask in (
            lambda p: sh.merge([p]),
            lambda p: p.weights(),
            lambda p: p.states(x),
            lambda p: p.bound,
        ):
            part = sh.candidates(x, x, 2.0)
            getattr(part, name)[1:] = wrong
            with pytest.raises(ValueError, match=message):
                ask(part)


def test_offsets_that_change_during_a_call():
    """Another thread writes while the core works without the interpreter's lock."""
    x = rng_of(0).standard_normal((3000, 8)).astype(np.float32)
    layer = layers.SparseHopfieldPooling(8, quantity=4, random_state=0)
    layouts = [np.linspace(0, 3000, 31).astype(np.int64), np.array([0] * 30 + [3000]), np.arange(31) * 10**9]
    offsets, stop = layouts[0].copy(), threading.Event()

    def write():
        i = 0
        while not stop.is_set():
            offsets[:] = layouts[i % 3]
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            try:
                out = layer.forward(x, offsets=offsets)
            except ValueError:
                continue
            layer.backward(np.ones_like(out))
    finally:
        stop.set()
        writer.join()


def test_ids_and_places_are_copied():
    ids, x = np.arange(12) + 100, rows(12)
    memory = sh.HopfieldMemory(x, 2.0, ids=ids)
    ids[:] = 0
    assert memory.ids.tolist() == list(range(100, 112))
    gone = np.array([1, 2])
    memory.remove(gone)
    gone[:] = 10**6
    assert len(memory) == 10
