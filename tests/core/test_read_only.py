"""Arrays that nothing may be written to: a ValueError before anything is touched."""

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import _core, layers, optim
from sparsehopfield._engine.association import associate_backward, associate_forward
from sparsehopfield.structures import LinearFeatures, TopK


def frozen(a):
    a = np.array(a)
    a.flags.writeable = False
    return a


def mapped(a, path):
    np.save(path, a)
    return np.load(path, mmap_mode="r")


def trained(layer):
    out = layer.forward(np.ones((2, 3, 4)), train=True)
    layer.backward(np.ones_like(out), need_input_grad=False)


MODELS = {
    "linear": lambda: layers.Linear(4, 2, random_state=0),
    "norm": lambda: layers.LayerNorm(4),
    "hopfield": lambda: layers.Hopfield(4, num_heads=2, learnable_scaling=True, random_state=0),
    "pooling": lambda: layers.SparseHopfieldPooling(4, random_state=0),
    "lookup": lambda: layers.HopfieldLayer(4, quantity=3, lookup_weights_as_separated=True, random_state=0),
    "model": lambda: layers.Sequential(layers.Linear(4, 3, random_state=0), layers.GELU(), layers.LayerNorm(3)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("how", ["mapped", "frozen"])
def test_optimisers_leave_all_as_it_was(name, how, tmp_path):
    for last in MODELS[name]().parameters():
        layer = MODELS[name]()
        p = layer.parameters()[last]
        p.value = mapped(p.value, tmp_path / "w.npy") if how == "mapped" else frozen(p.value)
        optimizer = optim.AdamW(layer, learning_rate=0.1)
        trained(layer)
        before, remembered = layer.state_dict(), optimizer.state_dict()
        with pytest.raises(ValueError, match=rf"^{last}: is read-only"):
            optimizer.step()
        for key, a in layer.state_dict().items():
            assert np.array_equal(a, before[key])
        for key, a in optimizer.state_dict().items():
            assert np.array_equal(a, remembered[key])
        with pytest.raises(ValueError, match=rf"^{last}: is read-only"):
            layer.load_state_dict({key: a + 1 for key, a in before.items()})
        for key, a in layer.state_dict().items():
            assert np.array_equal(a, before[key])


def test_a_layer_with_read_only_parameters_computes(tmp_path):
    layer = MODELS["pooling"]()
    x = np.ones((2, 3, 4))
    expected = layer.forward(x)
    grad = layer.backward(np.ones_like(expected))
    for i, p in enumerate(layer.parameters().values()):
        p.value = mapped(p.value, tmp_path / f"{i}.npy")
    assert np.array_equal(layer.forward(x), expected)
    assert np.array_equal(layer.backward(np.ones_like(expected)), grad)
    assert np.array_equal(layer.parameters()["pooling_weights"].grad, layer.pooling_weights.grad)
    for p in layer.parameters().values():
        p.trainable = False
    optim.AdamW(layer).step()  # has nothing to move


def test_scaling_that_is_learned():
    layer = MODELS["hopfield"]()
    p = layer.parameters()["log_scaling"]
    p.value = frozen(p.value)
    before = layer.scaling
    with pytest.raises(ValueError, match=r"^scaling: is read-only"):
        layer.scaling = 7.0
    assert np.array_equal(layer.scaling, before)


@pytest.mark.parametrize(
    "value",
    [np.zeros((4, 2)), np.zeros(8), np.zeros((2, 4, 1)), 0.0, np.zeros((2, 0))],
    ids=lambda a: str(np.shape(a)),
)
def test_values_of_another_shape(value):
    layer = MODELS["linear"]()
    before = layer.weight.value
    with pytest.raises(ValueError, match=r"^value: must have the parameter's shape \(2, 4\)"):
        layer.weight.value = value
    assert layer.weight.value is before


def test_values_of_another_kind():
    layer = MODELS["linear"]()
    for value in (np.ones((2, 4)), np.ones((2, 4), np.int8), np.ones((4, 2), np.float32).T, [[1] * 4] * 2):
        layer.weight.value = value
        assert layer.weight.value.dtype == np.float32
        trained(layer)
        optim.AdamW(layer).step()
    for wrong in ("text", [[1j] * 4] * 2, None):
        with pytest.raises(TypeError, match=r"^value: must be real numbers"):
            layer.weight.value = wrong
    unaligned = np.frombuffer(b"x" + np.ones((2, 4), np.float32).tobytes(), np.float32, offset=1).reshape(2, 4)
    layer.weight.value = unaligned
    trained(layer)
    optim.AdamW(layer).step()


def test_gradients_that_do_not_fit():
    for wrong, error in (
        (np.ones(3), r"grad of weight: must have the parameter's shape"),
        (np.ones((4, 2)), r"grad of weight: must have the parameter's shape"),
        (np.ones((2, 4)) * 1j, r"grad of weight: must be real numbers"),
    ):
        layer = MODELS["linear"]()
        optimizer = optim.AdamW(layer)
        trained(layer)
        before = layer.state_dict()
        layer.weight.grad = wrong
        with pytest.raises((ValueError, TypeError), match=f"^{error}"):
            optimizer.step()
        assert all(np.array_equal(a, before[k]) for k, a in layer.state_dict().items())
        assert optimizer.state_dict()["steps"] == 0


@pytest.mark.parametrize("name", MODELS)
def test_gradients_that_are_read_only_are_added_to_by_replacement(name):
    layer = MODELS[name]()
    trained(layer)
    once = {key: frozen(p.grad) for key, p in layer.parameters().items()}
    for key, p in layer.parameters().items():
        p.grad = once[key]
    trained(layer)
    for key, p in layer.parameters().items():
        np.testing.assert_allclose(p.grad, 2 * once[key], rtol=1e-6)
        assert p.grad is not once[key]


def test_gradients_that_lie_in_their_parameter():
    wide, narrow = (layers.Parameter(np.arange(1.0, 7.0)) for _ in range(2))
    room = np.arange(1.0, 8.0)
    wide.value = room[:6]
    wide.grad, narrow.grad = room[1:], room[1:].copy()
    for p in (wide, narrow):
        optim.AdamW([p], learning_rate=0.5).step()
    assert np.array_equal(wide.value, narrow.value)


def test_clipping_scales_all_or_none():
    a, b = layers.Parameter(np.zeros(2)), layers.Parameter(np.zeros(2))
    a.grad, b.grad = np.array([3.0, 4.0]), frozen([6.0, 8.0])
    with pytest.raises(ValueError, match="grad of 1: is read-only"):
        optim.clip_gradients([a, b], 1.0)
    assert a.grad.tolist() == [3.0, 4.0]
    assert optim.clip_gradients([a, b], 100.0) == pytest.approx(125**0.5)


def test_a_parameter_with_two_names_moves_once():
    p, q = layers.Parameter(np.ones(2)), layers.Parameter(np.ones(2))
    p.grad, q.grad = np.ones(2), np.ones(2)
    assert optim.clip_gradients({"a": p, "b": p}, 1.0) == pytest.approx(2**0.5)
    optim.clip_gradients([q], 1.0)
    optim.AdamW({"a": p, "b": p}).step()
    optim.AdamW([q]).step()
    assert np.array_equal(p.value, q.value)
    assert np.array_equal(p.grad, q.grad)


X = np.eye(3, dtype=np.float32)
IN_PLACE = {
    "update": lambda out: sh.update(X, X, out=out),
    "retrieve": lambda out: sh.retrieve(X, X, out=out),
    "memory": lambda out: sh.HopfieldMemory(X).update(X, out=out),
    "values": lambda out: sh.update(X, X, values=X, out=out),
    "sparsemax": lambda out: sh.sparsemax(X, out=out),
    "entmax": lambda out: sh.entmax(X, 1.5, out=out),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_out_is_read_only(name, tmp_path):
    for out in (frozen(X), mapped(X, tmp_path / "out.npy"), np.broadcast_to(np.float32(0), (3, 3))):
        before = np.array(out)
        with pytest.raises(ValueError, match="read-only"):
            IN_PLACE[name](out)
        assert np.array_equal(out, before)


@pytest.mark.parametrize("name", IN_PLACE)
def test_out_may_be_written_to(name):
    out = np.full((3, 3), 7, np.float32)
    IN_PLACE[name](out)
    assert not (out == 7).any()


def test_places_of_gradients():
    a = [np.random.default_rng(i).standard_normal((2, 3, 1, 4)) for i in range(3)]
    out, saved = associate_forward(*a, 1.0)
    expected = associate_backward(saved, np.cos(out))
    for i in range(3):
        places = [np.full((2, 3, 1, 4), 7.0) for _ in range(3)]
        places[i] = frozen(places[i])
        with pytest.raises(ValueError, match="out: is read-only"):
            associate_backward(saved, np.cos(out), out=tuple(places))
        assert (places[i] == 7).all()
    rows = np.lib.stride_tricks.as_strided(np.zeros(100), (2, 3, 1, 4), (24, 8, 32, 8))  # lie in one another
    with pytest.raises(ValueError, match=r"^out: "):
        associate_backward(saved, np.cos(out), out=(rows, None, None))
    for d, e in zip(associate_backward(saved, np.cos(out)), expected, strict=True):
        assert np.array_equal(d, e)


@pytest.mark.parametrize("structure", [None, LinearFeatures("relu"), TopK(2)], ids=str)
def test_places_of_gradients_that_overlap(structure):
    a = [np.random.default_rng(i).standard_normal((2, 3, 1, 4)) for i in range(3)]
    out, saved = associate_forward(*a, 1.0, separation="softmax", structure=structure)
    g, own = np.cos(out), np.empty((2, 3, 1, 4))
    expected = associate_backward(saved, g)
    wide = np.empty(30)
    for places in (
        (own, own, None),
        (None, own, own),
        (g, None, None),
        (a[0], None, None),
        (None, a[2], None),
        (None, None, a[1]),
        (wide[:24].reshape(own.shape), None, wide[6:].reshape(own.shape)),
    ):
        with pytest.raises(ValueError, match=r"^out: overlaps another array"):
            associate_backward(saved, g, out=places)
    for wrong in (np.empty((2, 3, 1, 3)), np.empty((2, 3, 1, 4), np.float32), np.empty((1, 3, 1, 4))):
        with pytest.raises(ValueError, match=r"^out: must be writeable"):
            associate_backward(saved, g, out=(wrong, None, None))
    beside = np.empty((2, 3, 3, 1, 4))
    found = associate_backward(saved, g, out=tuple(beside[:, :, i] for i in range(3)))
    for d, e in zip(found, expected, strict=True):
        assert np.array_equal(d, e)


def z(*shape):
    return np.zeros(shape)


# name -> arguments, and which of them are written to
BINDING = {
    "linear": ([z(2, 3), z(4, 3), None, z(2, 4)], [3]),
    "linear_backward": ([z(2, 3), z(4, 3), z(2, 4), z(2, 3), z(4, 3), z(4)], [3, 4, 5]),
    "normalize": ([z(2, 3), 1e-5, z(2, 3), z(2)], [2, 3]),
    "normalize_backward": ([z(2, 3), z(2), z(2, 3), z(2, 3)], [3]),
    "fold": ([z(4, 3), None, z(3), z(3), z(4, 3), z(4)], [4, 5]),
    "unfold": ([z(4, 3), z(4), z(4, 3), z(3), z(3), z(4, 3), z(3), z(3)], [5, 6, 7]),
    "adamw": ([z(3), z(3), z(3), z(3), 1, 0.1, 0.9, 0.999, 1e-8, 0.0], [0, 2, 3]),
    "features_add": (
        [0, 3, 1.0, None, 0.0, False, X.astype(float), None, 1.0, True, 1, z(3), z(3), z(3, 3)],
        [11, 12, 13],
    ),
    "features_mix": ([0, 3, 1.0, None, 0.0, z(3), z(3), z(3, 3), X.astype(float), z(3, 3)], [9]),
    "merge": ([1, 2.0, np.ones(1), z(2), np.ones(2), z(2, 3), z(2), np.ones(2), z(2, 3)], [3, 4, 5]),
}


@pytest.mark.parametrize("name", BINDING)
def test_the_binding_asks_before_it_writes(name):
    arguments, written = BINDING[name]
    call = getattr(_core, name)
    call(*arguments)
    for i, a in enumerate(arguments):
        if not isinstance(a, np.ndarray):
            continue
        changed = [*arguments[:i], frozen(a), *arguments[i + 1 :]]
        if i in written:
            with pytest.raises(ValueError, match="is read-only"):
                call(*changed)
        else:
            call(*changed)


@pytest.mark.parametrize("grad", [np.array([3, 4]), [3.0, 4.0], (3.0, 4.0)], ids=repr)
def test_clipping_refuses_what_it_cannot_scale(grad):
    """Whole numbers, lists, and the like: where nothing is to be scaled they will do."""
    p = layers.Parameter(np.zeros(2))
    p.grad = grad
    assert optim.clip_gradients([p], 6.0) == 5.0
    with pytest.raises(TypeError, match=r"^grad of 0: must be"):
        optim.clip_gradients([p], 1.0)
    assert np.array_equal(p.grad, [3, 4])
