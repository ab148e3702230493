"""One backward pass for each forward pass: a gradient is that of what came in, or there is an error."""

import gc
import tracemalloc

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers, optim

E = 4
D = {"dtype": "float64"}
MAKERS = {
    "linear": lambda: layers.Linear(E, E, random_state=0, **D),
    "norm": lambda: layers.LayerNorm(E, **D),
    "relu": layers.ReLU,
    "gelu": layers.GELU,
    "dropout": lambda: layers.Dropout(0.5, random_state=0),
    "flatten": lambda: layers.Flatten(2),
    "sequential": lambda: layers.Sequential(
        layers.Linear(E, 5, random_state=0, **D), layers.GELU(), layers.LayerNorm(5, **D),
        layers.SparseHopfield(5, random_state=1, **D),
    ),
    "nested": lambda: layers.Sequential(layers.Sequential(layers.Linear(E, 3, random_state=0, **D), layers.ReLU())),
    "hopfield": lambda: layers.Hopfield(E, num_heads=2, random_state=0, **D),
    "activated": lambda: layers.SparseHopfield(E, association_activation="sigmoid", random_state=0, **D),
    "second axis": lambda: layers.Hopfield(E, batch_first=False, random_state=0, **D),
    "pooling": lambda: layers.HopfieldPooling(E, quantity=2, random_state=0, **D),
    "lookup": lambda: layers.SparseHopfieldLayer(E, quantity=3, random_state=0, **D),
    "learned beta": lambda: layers.Hopfield(E, learnable_scaling=True, random_state=0, **D),
}  # fmt: skip


def inputs(n=4):
    return [np.random.default_rng(i).standard_normal((2, 3, E)) for i in range(n)]


def backward(layer, g):
    layer.zero_grad()
    return [layer.backward(g), *(p.grad for p in layer.parameters().values())]


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("train", [False, True])
def test_two_forward_passes_before_two_backward_passes(name, train):
    a, b, *_ = inputs()
    layer = MAKERS[name]()
    out = layer.forward(a, train=train)
    last = layer.forward(b, train=train)
    g = np.cos(last)
    found = backward(layer, g)
    if not (name == "dropout" and train):
        alone = MAKERS[name]()
        alone.forward(b, train=train)
        same(found, backward(alone, g))
    with pytest.raises(RuntimeError, match="backward: needs a forward pass before it; each forward pass serves one"):
        layer.backward(g)
    layer.forward(a, train=train)
    layer.backward(np.cos(out))
    for _ in range(3):
        with pytest.raises(RuntimeError, match="needs a forward pass"):
            layer.backward(np.cos(out))


@pytest.mark.parametrize("name", MAKERS)
def test_a_refused_gradient_leaves_the_pass(name):
    a, *_ = inputs()
    layer = MAKERS[name]()
    out = layer.forward(a)
    for wrong in (np.ones((*out.shape, 2)), np.ones(()), np.ones((0, *out.shape[1:]))):
        with pytest.raises(ValueError, match="grad: must have the output's shape"):
            layer.backward(wrong)
    with pytest.raises(TypeError, match="grad: must be real numbers"):
        layer.backward("text")
    assert layer.backward(np.ones_like(out)) is not None


@pytest.mark.parametrize("name", MAKERS)
def test_a_forward_pass_that_fails_leaves_none(name):
    a, *_ = inputs()
    layer = MAKERS[name]()
    out = layer.forward(a)
    with pytest.raises((ValueError, TypeError)):
        layer.forward("text")
    with pytest.raises(RuntimeError, match="needs a forward pass"):
        layer.backward(np.ones_like(out))


def test_a_backward_pass_that_fails_is_over(monkeypatch):
    a, *_ = inputs()
    layer = MAKERS["hopfield"]()
    out = layer.forward(a)

    def fails(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sparsehopfield.layers._passes.gradients_of", fails)
        with pytest.raises(KeyboardInterrupt):
            layer.backward(np.ones_like(out))
    with pytest.raises(RuntimeError, match="needs a forward pass"):
        layer.backward(np.ones_like(out))


@pytest.mark.parametrize("name", [n for n in MAKERS if MAKERS[n]().parameters()])
def test_parameters_that_change_between(name):
    a, *_ = inputs()
    layer = MAKERS[name]()

    def step():
        for p in layer.parameters().values():
            p.grad = np.ones_like(p.value)
        optim.AdamW(layer).step()

    def replace():
        p = next(iter(layer.parameters().values()))
        p.value = p.value + 1

    for change in (step, replace, lambda: layer.load_state_dict(layer.state_dict()), layer.reset_parameters):
        out = layer.forward(a)
        change()
        with pytest.raises(RuntimeError, match="parameters have changed since the forward pass"):
            layer.backward(np.ones_like(out))
    assert layer.backward(np.ones_like(layer.forward(a))) is not None


SHARED = {
    "linear": lambda: layers.Linear(E, E, random_state=3, **D),
    "hopfield": lambda: layers.Hopfield(E, random_state=3, initial_std=0.5, **D),
    "lookup": lambda: layers.HopfieldLayer(E, quantity=3, random_state=3, initial_std=0.5, **D),
    "norm": lambda: layers.LayerNorm(E, **D),
    "sequential": lambda: layers.Sequential(layers.Linear(E, E, random_state=3, **D), layers.GELU()),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_layer_that_stands_twice(name):
    """Against finite differences, and against two layers with the same numbers, whose gradients add up."""
    x, v, *_ = inputs()
    one = SHARED[name]()
    shared = layers.Sequential(one, layers.GELU(), one)
    apart = layers.Sequential(SHARED[name](), layers.GELU(), SHARED[name]())
    found, expected = (model.backward(np.cos(model.forward(x, train=True))) for model in (shared, apart))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    for key, p in one.parameters().items():
        first, second = (apart.parameters()[f"{i}.{key}"].grad for i in (0, 2))
        np.testing.assert_allclose(p.grad, first + second, rtol=1e-12, atol=1e-14)
    eps = 1e-6
    up, down = (np.sin(shared.forward(x + s * eps * v)).sum() for s in (1, -1))
    assert (found * v).sum() == pytest.approx((up - down) / (2 * eps), rel=1e-6)
    before = {key: p.value.copy() for key, p in one.parameters().items()}
    optim.AdamW(shared, learning_rate=0.1, weight_decay=0.0).step()
    for key, p in one.parameters().items():  # by one step, not two
        assert np.abs(p.value - before[key]).max() <= 0.1 * (1 + 1e-6)
    with pytest.raises(ValueError, match="save: a layer that stands in several places"):
        shared.save("never")


def test_layers_inside_keep_nothing_for_themselves():
    a, *_ = inputs()
    inner = layers.Linear(E, E, random_state=0, **D)
    model = layers.Sequential(inner, layers.ReLU())
    out = model.forward(a)
    with pytest.raises(RuntimeError, match=r"Linear.backward: needs a forward pass"):
        inner.backward(np.ones_like(out))
    model.backward(np.ones_like(out))


class Doubling(layers.Linear):
    """A layer from elsewhere, with passes of its own."""

    def forward(self, input, *, train=False):
        return 2 * super().forward(input, train=train)

    def backward(self, grad, need_input_grad=True):
        return super().backward(2 * np.asarray(grad), need_input_grad)


def test_layers_from_elsewhere_keep_their_own_passes():
    x, *_ = inputs()
    own, plain = Doubling(E, 2, random_state=0, **D), layers.Linear(E, 2, random_state=0, **D)
    model = layers.Sequential(layers.GELU(), own)
    out = model.forward(x)
    dx = model.backward(np.ones_like(out))
    other = layers.Sequential(layers.GELU(), plain)
    np.testing.assert_allclose(out, 2 * other.forward(x))
    np.testing.assert_allclose(dx, other.backward(np.full_like(out, 2)))
    np.testing.assert_allclose(own.weight.grad, plain.weight.grad)


@pytest.mark.covering(1)
@pytest.mark.parametrize("name", ["linear", "sequential", "hopfield", "pooling"])
@pytest.mark.parametrize("train", [False, True])
def test_forward_passes_alone_need_no_more_memory(name, train):
    layer, x = MAKERS[name](), np.random.default_rng(0).standard_normal((16, 64, E))

    def held(times):
        for _ in range(times):
            layer.forward(x, train=train)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        held(3)
        before = held(3)
        assert held(20) - before < x.nbytes
    finally:
        tracemalloc.stop()


def test_health_is_that_of_the_last_pass():
    a, b, *_ = inputs()
    layer = layers.SparseHopfield(E, random_state=0, **D)
    layer.forward(a)
    assert layers.gradient_health(layer, warn=False).query_gradient is None
    layer.backward(np.ones((2, 3, E)))
    assert layers.gradient_health(layer, warn=False).query_gradient is not None
    layer.forward(b)
    assert layers.gradient_health(layer, warn=False).query_gradient is None


def test_losses_and_models_train_as_before():
    """A whole step, with a validation pass between the passes of training."""
    x, v, *_ = inputs()
    model = layers.Sequential(layers.HopfieldPooling(E, random_state=0), layers.Linear(E, 1, random_state=1))
    optimizer = optim.AdamW(model, learning_rate=0.01)
    losses = []
    for _ in range(20):
        model.forward(v)
        optimizer.zero_grad()
        loss, g = layers.mean_squared_error(model.forward(x, train=True), [[1.0], [-1.0]])
        model.backward(g, need_input_grad=False)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < losses[0]
    assert sh.__version__
