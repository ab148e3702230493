"""Optimisers: that they move as they say, remember across a restart, and that models learn with them."""

import warnings

import numpy as np
import pytest
from helpers import threads

import sparsehopfield as sh
from sparsehopfield import _core, layers, optim


def bags(n=200, rows=8, features=5, seed=0):
    """Bags, half of which hold an instance near a fixed point."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, rows, features)).astype(np.float32), np.arange(n) % 2
    x[y == 1, 0] = 2 * np.array([1, -1, 1, -1, 1]) + 0.1 * rng.standard_normal((n // 2, features))
    return x, y[:, None].astype(np.float32)


def model_of(seed=0, **options):
    return layers.Sequential(
        layers.SparseHopfieldPooling(
            5, 8, num_heads=2, scaling=0.05, initial_std=0.1, dropout=0.1, random_state=seed, **options
        ),
        layers.Linear(5, 1, random_state=seed),
    )


def train(model, optimizer, x, y, steps):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, grad = layers.binary_cross_entropy_with_logits(model.forward(x, train=True), y)
        model.backward(grad, need_input_grad=False)
        optim.clip_gradients(model, 1.0)
        optimizer.step()
        losses.append(loss)
    return losses


def test_a_model_learns_and_a_seed_fixes_how():
    x, y = bags()
    runs = []
    for _ in range(2):
        model = model_of()
        runs.append(train(model, optim.AdamW(model, learning_rate=0.02), x, y, 100))
    assert runs[0] == runs[1]
    assert runs[0][-1] < 0.3 * runs[0][0]
    fresh, labels = bags(seed=1)
    assert ((model.forward(fresh) > 0) == labels).mean() > 0.9


def test_training_is_the_same_for_any_number_of_threads():
    x, y = bags()
    found = []
    for n in (1, 2, 5):
        with threads(n):
            pooling = layers.SparseHopfieldPooling(8, 16, num_heads=4, update_steps_max=2, dropout=0.1, random_state=1)
            embedding = layers.Linear(5, 8, random_state=0)
            model = layers.Sequential(embedding, layers.GELU(), pooling, layers.Linear(8, 1, random_state=2))
            losses = train(model, optim.AdamW(model, learning_rate=0.01), x, y, 10)
            whole = layers.Hopfield(8, num_heads=2, update_steps_max=1, random_state=0)
            out = whole.forward(embedding.forward(x))
            found.append([losses, *model.state_dict().values(), out, whole.backward(np.sin(out))])
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_adamw_moves_what_is_trainable_and_has_a_gradient():
    a, b, c = (layers.Parameter(np.ones(2)) for _ in range(3))
    b.trainable = False
    a.grad, b.grad = np.array([3.0, -0.5]), np.array([1.0, 1.0])
    optimizer = optim.AdamW([a, b, c], learning_rate=0.1, weight_decay=0.5)
    optimizer.step()
    np.testing.assert_allclose(a.value, 1 - 0.1 * 0.5 + np.array([-0.1, 0.1]), rtol=1e-7)
    assert (b.value == 1).all()
    assert (c.value == 1).all()
    optimizer.zero_grad()
    assert a.grad is None


def test_adamw_goes_on_where_it_was():
    x, y = bags(n=10)
    (first, optimizer), (second, other) = ((m, optim.AdamW(m, learning_rate=0.02)) for m in (model_of(), model_of(1)))
    train(first, optimizer, x, y, 3)
    train(second, other, x, y, 1)
    second.load_state_dict(first.state_dict())
    memory = optimizer.state_dict()
    other.load_state_dict(memory)
    for model in (first, second):
        model.layers[0].hopfield._random = np.random.default_rng(0)
    assert train(first, optimizer, x, y, 3) == train(second, other, x, y, 3)
    memory["first.1.bias"][...] = 7
    assert not (other.state_dict()["first.1.bias"] == 7).any()


def test_optimizer_states_that_do_not_fit_change_nothing():
    layer = layers.Linear(2, 1, random_state=0)
    optimizer = optim.AdamW(layer)
    layer.forward([[1.0, 2.0]])
    layer.backward([[1.0]])
    optimizer.step()
    state = optimizer.state_dict()
    cases = [
        ({k: v for k, v in state.items() if k != "steps"}, "missing or unknown"),
        ({**state, "more": 1}, "missing or unknown"),
        ({**state, "first.weight": np.ones(3)}, r"state\['first.weight'\]: must be finite and of shape \(1, 2\)"),
        ({**state, "second.bias": [np.nan]}, r"state\['second.bias'\]: must be finite"),
        ({**state, "second.bias": [-1.0]}, r"state\['second.bias'\]: must not be negative"),
        ({**state, "learning_rate": -1.0}, r"state\['learning_rate'\]"),
        ({**state, "steps": -1}, r"state\['steps'\]"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(wrong)
        for name, a in optimizer.state_dict().items():
            assert np.array_equal(a, state[name])


def test_clip_gradients():
    p, q, none = (layers.Parameter(np.zeros(2)) for _ in range(3))
    p.grad, q.grad = np.array([3.0, 0.0]), np.array([0.0, 4.0])
    parameters = {"p": p, "q": q, "none": none}
    assert optim.clip_gradients(parameters, 10.0) == 5
    assert p.grad.tolist() == [3, 0]
    assert optim.clip_gradients(parameters, 1.0) == 5
    np.testing.assert_allclose([*p.grad, *q.grad], [0.6, 0, 0, 0.8])
    p.grad[0] = np.nan
    with pytest.raises(ValueError, match="parameters: have gradients that are not finite"):
        optim.clip_gradients(parameters, 1.0)
    big = layers.Parameter(np.zeros(2, np.float32))
    big.grad = np.array([1e30, 0], np.float32)
    assert optim.clip_gradients([big], 1.0) == pytest.approx(1e30)
    np.testing.assert_allclose(big.grad, [1, 0], rtol=1e-6)


def test_exponential_decay():
    optimizer = optim.AdamW([layers.Parameter(np.zeros(1))], learning_rate=0.1)
    decay = optim.ExponentialDecay(optimizer, 0.9)
    for _ in range(3):
        decay.step()
    assert optimizer.learning_rate == pytest.approx(0.1 * 0.9**3)


def test_cosine_decay():
    optimizer = optim.AdamW([layers.Parameter(np.zeros(1))], learning_rate=0.1)
    schedule, seen = optim.CosineDecay(optimizer, epochs=6, stop=0.02), []
    for _ in range(8):
        schedule.step()
        seen.append(optimizer.learning_rate)
    wanted = 0.02 + 0.08 * (1 + np.cos(np.pi * np.arange(1, 7) / 6)) / 2
    np.testing.assert_allclose(seen, [*wanted, 0.02, 0.02], rtol=1e-14)
    assert seen[5:] == [0.02] * 3  # exactly, and it stays


def test_annealing_beta():
    layer = layers.HopfieldLayer(4, num_heads=2)
    annealing = optim.Annealing(layer, "beta", 0.01, 1.0, epochs=4)
    seen = []
    for _ in range(6):
        seen.append(layer.scaling)
        assert layer.hopfield.scaling == layer.scaling
        annealing.step()
    np.testing.assert_allclose(seen, [0.01, 10**-1.5, 0.1, 10**-0.5, 1, 1])
    assert seen[-1] == 1.0


def test_annealing_alpha():
    layer = layers.Hopfield(4, random_state=0)
    annealing, x, seen = optim.Annealing(layer, "alpha", 1.0, 2.0, epochs=4), np.ones((1, 2, 4)), []
    for _ in range(6):
        seen.append(layer.separation)
        layer.forward(x)
        annealing.step()
    assert seen == ["softmax", sh.Entmax(1.25), sh.Entmax(1.5), sh.Entmax(1.75), "sparsemax", "sparsemax"]
    down = optim.Annealing(layer, "alpha", 2.5, 1.5, epochs=1)
    assert layer.separation == sh.Entmax(2.5)
    down.step()
    assert layer.separation == sh.Entmax(1.5)


def test_dead_gradients_are_told():
    x = np.random.default_rng(0).standard_normal((6, 10, 5))
    sharp = layers.SparseHopfieldPooling(5, initial_std=1.0, scaling=1e5, random_state=0)
    flat = layers.SparseHopfieldPooling(5, initial_std=0.1, random_state=0)
    with pytest.raises(RuntimeError, match="needs a forward pass"):
        layers.gradient_health(flat)
    for layer, dead in ((sharp, True), (flat, False)):
        out = layer.forward(x)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            health = layers.gradient_health(layer)
        assert health == (float(dead), None)
        assert len(caught) == dead
        layer.backward(np.ones(out.shape))
        health = layers.gradient_health(layer, warn=False)
        assert (health.query_gradient == 0) == dead
    # copies of one pattern are one pattern
    copies = np.repeat(x[:, :1], 10, axis=1)
    flat.forward(copies)
    with pytest.warns(RuntimeWarning, match="100% of the associations hold one distinct stored pattern"):
        assert layers.gradient_health(flat).collapsed == 1
    for separation in ("softmax", "entmax15"):
        dense = layers.HopfieldPooling(5, separation=separation, random_state=0)
        dense.forward(copies)
        assert layers.gradient_health(dense, warn=False).collapsed == 1
        dense.forward(x)
        assert layers.gradient_health(dense).collapsed == 0


def test_health_counts_bags_and_appended_patterns():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.standard_normal((1, 5)), 3, axis=0)
    mixed = [rng.standard_normal((4, 5)), same, np.zeros((0, 5)), rng.standard_normal((1, 5))]
    pooling = layers.HopfieldPooling(5, random_state=0)
    pooling.forward(mixed)
    assert layers.gradient_health(pooling).collapsed == pytest.approx(2 / 3)
    pooling.forward([np.zeros((0, 5))])
    assert layers.gradient_health(pooling).collapsed == 0
    appended = layers.HopfieldPooling(5, add_zero_association=True, random_state=0)
    appended.forward(mixed)  # only the empty bag has one pattern, the zero
    assert layers.gradient_health(appended).collapsed == pytest.approx(1 / 4)
    whole = layers.Hopfield(5, random_state=0)
    whole.forward(mixed)  # 4 + 3 + 1 state patterns, of which 3 + 1 look at one distinct pattern
    assert layers.gradient_health(whole).collapsed == pytest.approx(4 / 8)
    lookup = layers.HopfieldLayer(5, quantity=3, random_state=0)
    lookup.forward(rng.standard_normal((2, 4, 5)))
    assert layers.gradient_health(lookup).collapsed == 0


def test_a_vanished_query_gradient_is_told():
    layer = layers.HopfieldPooling(5, scaling=1e-12, random_state=0)
    out = layer.forward(np.random.default_rng(0).standard_normal((2, 6, 5)))
    layer.backward(np.ones(out.shape))
    with pytest.warns(RuntimeWarning, match="the gradient in the state patterns has vanished"):
        layers.gradient_health(layer)


def test_bad_arguments():
    p, layer = layers.Parameter(np.zeros(1)), layers.Hopfield(4)
    learned = layers.Hopfield(4, learnable_scaling=True)
    cases = [
        (lambda: optim.AdamW([]), "parameters: must be a layer or its parameters"),
        (lambda: optim.AdamW([np.zeros(1)]), "parameters: must be a layer or its parameters"),
        (lambda: optim.AdamW(layers.ReLU()), "parameters: must be a layer or its parameters"),
        (lambda: optim.AdamW([p], learning_rate=-1), "learning_rate: must be a finite number of at least 0"),
        (lambda: optim.AdamW([p], betas=(0.9, 1.0)), "betas: must be two numbers"),
        (lambda: optim.AdamW([p], eps=0.0), "eps: must be a finite number"),
        (lambda: optim.AdamW([p], weight_decay=np.nan), "weight_decay: must be"),
        (lambda: optim.clip_gradients([p], -1.0), "max_norm: must be"),
        (lambda: optim.ExponentialDecay(optim.AdamW([p]), 0.0), "rate: must be"),
        (lambda: optim.CosineDecay(p, 3), "optimizer: must be an AdamW, got Parameter"),
        (lambda: optim.CosineDecay(optim.AdamW([p]), 0), "epochs: must be at least 1"),
        (lambda: optim.CosineDecay(optim.AdamW([p]), 3, -1.0), "stop: must be"),
        (lambda: optim.Annealing(p, "beta", 1, 2, 3), "layer: must be a Hopfield layer"),
        (lambda: optim.Annealing(layer, "bet", 1, 2, 3), "what: unknown name 'bet'; did you mean 'beta'"),
        (lambda: optim.Annealing(layer, "beta", 0.0, 1.0, 3), "start: must be"),
        (lambda: optim.Annealing(layer, "alpha", 1.0, 0.5, 3), "stop: must be"),
        (lambda: optim.Annealing(layer, "beta", 1.0, 2.0, 0), "epochs: must be at least 1"),
        (lambda: optim.Annealing(learned, "beta", 1, 2, 3), "what: this layer learns its beta"),
        (lambda: layers.gradient_health(layers.ReLU()), "layer: must be a Hopfield layer"),
    ]
    for call, message in cases:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            call()


@pytest.mark.parametrize(("start", "stop", "named"), [(0.5, 1e308, "stop"), (1e39, 1.0, "start")])
def test_annealing_stays_within_the_layers_dtype(start, stop, named):
    """A beta beyond float32 would make its queries infinite."""
    with pytest.raises(ValueError, match=f"^{named}: must be at most 3.40282e"):
        optim.Annealing(layers.Hopfield(3), "beta", start, stop, 3)
    optim.Annealing(layers.Hopfield(3, dtype="float64"), "beta", start, stop, 3)
    with pytest.raises(ValueError, match=r"^scaling: must be positive and finite in float32"):
        layers.Hopfield(3, scaling=1e39)


def test_gradients_that_do_not_lie_as_their_parameters_do_move_them_alike():
    start, grad = np.arange(6.0).reshape(2, 3), np.linspace(-1, 1, 6).reshape(2, 3)

    def moved(change):
        p = layers.Parameter(start.copy())
        p.grad = change(p)
        optim.AdamW([p], learning_rate=0.1).step()
        return p.value

    def shared(p):
        p.value[...] = grad
        return p.value

    expected = moved(lambda p: grad.copy())
    for change in (
        lambda p: np.asfortranarray(grad),
        lambda p: grad.astype(">f8"),
        lambda p: np.repeat(grad, 2, axis=1)[:, ::2],
        lambda p: grad.tolist(),
        lambda p: np.frombuffer(grad.tobytes()).reshape(2, 3),  # read-only
    ):
        np.testing.assert_array_equal(moved(change), expected)
    p = layers.Parameter(grad.copy())
    p.grad = grad.copy()
    optim.AdamW([p], learning_rate=0.1).step()
    np.testing.assert_array_equal(moved(shared), p.value)


@pytest.mark.parametrize(
    "other",
    [
        lambda p: p,
        lambda p: p.reshape(-1),
        lambda p: p.astype(np.float32),
        lambda p: p.astype(">f8"),
        lambda p: np.asfortranarray(p),
        lambda p: p.tolist(),
        lambda p: np.ma.array(p.copy()),
    ],
)
def test_what_is_no_pair_is_told(other):
    p = np.arange(6.0).reshape(2, 3)
    assert _core.are_pairs([p], [p.copy()])
    assert _core.are_pairs([], [])
    assert not _core.are_pairs([p, p], [p.copy(), other(p)])
    assert not _core.are_pairs([p], [])
    fixed = p.copy()
    fixed.flags.writeable = False
    assert not _core.are_pairs([fixed], [p])
    assert _core.are_pairs([p], [fixed])
    beside = np.zeros((4, 3))
    assert _core.are_pairs([beside[:2]], [beside[2:]])
    assert not _core.are_pairs([beside[:2]], [beside[1:3]])
