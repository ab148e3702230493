"""Nothing comes in: an empty result, and gradients of zero; or a message that says what is needed."""

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers, optim
from sparsehopfield._engine.association import associate_backward, associate_forward, association_weights
from sparsehopfield.estimators import HopfieldMILClassifier
from sparsehopfield.inspect import plotting
from sparsehopfield.structures import LinearFeatures, RandomFeatures, RandomMask, TopK, Window

E = 3
z = np.zeros
STATIC = {f"{role}_as_static": True for role in ("stored_pattern", "state_pattern", "pattern_projection")}
LAYERS = {
    "hopfield": lambda: layers.Hopfield(E),
    "sparse": lambda: layers.SparseHopfield(E, num_heads=3, update_steps_max=2),
    "appended": lambda: layers.Hopfield(E, concat_bias_pattern=True, add_zero_association=True),
    "static": lambda: layers.Hopfield(E, **STATIC, disable_out_projection=True),
    "normal in space": lambda: layers.Hopfield(E, normalize_hopfield_space=True, normalize_hopfield_space_affine=True),
    "to rest": lambda: layers.SparseHopfield(E, update_steps_max=None),
    "implicit": lambda: layers.Hopfield(E, update_steps_max=None, gradient="implicit"),
    "activated": lambda: layers.Hopfield(E, association_activation="tanh"),
    "second axis": lambda: layers.Hopfield(E, batch_first=False),
    "learned beta": lambda: layers.Hopfield(E, learnable_scaling=True),
    "top": lambda: layers.Hopfield(E, structure=TopK(2)),
    "window": lambda: layers.Hopfield(E, structure=Window(1)),
    "random mask": lambda: layers.Hopfield(E, structure=RandomMask(2)),
    "linear features": lambda: layers.Hopfield(E, structure=LinearFeatures("relu")),
    "random features": lambda: layers.Hopfield(E, structure=RandomFeatures(8), update_steps_max=1),
    "causal": lambda: layers.Hopfield(E, structure=LinearFeatures("relu", causal=True)),
    "lookup": lambda: layers.HopfieldLayer(E, quantity=2),
    "sparse lookup": lambda: layers.SparseHopfieldLayer(E, quantity=2, lookup_weights_as_separated=True),
    "lookup of features": lambda: layers.HopfieldLayer(E, quantity=2, structure=LinearFeatures("relu")),
    "linear": lambda: layers.Linear(E, E),
    "norm": lambda: layers.LayerNorm(E),
    "relu": layers.ReLU,
    "gelu": layers.GELU,
    "dropout": lambda: layers.Dropout(0.5),
    "flatten": lambda: layers.Flatten(2),
    "model": lambda: layers.Sequential(layers.Linear(E, 2), layers.GELU(), layers.Hopfield(2, output_size=E)),
}


def zero_gradients(layer):
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters().values())


@pytest.mark.covering(2)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(2, 0, E), (0, 4, E), (0, 0, E)])
@pytest.mark.parametrize("train", [False, True])
def test_layers(name, shape, train):
    layer = LAYERS[name]()
    out = layer.forward(z(shape), train=train)
    assert out.shape == shape
    assert layer.backward(np.ones(shape)).shape == shape
    zero_gradients(layer)
    if layer.parameters():
        optim.AdamW(layer).step()


@pytest.mark.parametrize("make", [layers.HopfieldPooling, layers.SparseHopfieldPooling])
@pytest.mark.parametrize("options", [{}, {"structure": LinearFeatures("relu"), "separation": "softmax"}], ids=str)
@pytest.mark.parametrize("shape", [(2, 0, E), (0, 4, E), (0, 0, E)])
def test_pooling(make, options, shape):
    layer = make(E, quantity=2, **options)
    out = layer.forward(z(shape))
    assert out.shape == (shape[0], 2 * E)
    assert layer.backward(np.ones_like(out)).shape == shape
    assert np.isfinite(out).all()
    if out.size == 0:
        zero_gradients(layer)


RAGGED = [n for n in LAYERS if n not in ("second axis",) and isinstance(LAYERS[n](), layers.Hopfield)]


@pytest.mark.parametrize("name", RAGGED)
@pytest.mark.parametrize("sizes", [[0, 0], [0, 2], [2, 0, 1], [0]])
def test_ragged_bags(name, sizes):
    if name == "window" and sum(sizes):
        pytest.skip("a window takes bags of one size")
    layer, bags = LAYERS[name](), [np.ones((n, E)) for n in sizes]
    out = layer.forward(bags)
    assert out.shape == (sum(sizes), E)
    assert np.isfinite(out).all()
    assert layer.backward(np.ones_like(out)).shape == out.shape
    alone = [layer.forward(bag[None])[0] for bag in bags]
    np.testing.assert_allclose(out, np.concatenate(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["hopfield", "appended", "static", "top", "linear features"])
def test_no_bags(name):
    layer = LAYERS[name]()
    out = layer.forward(z((0, E)), offsets=[0])
    assert out.shape == (0, E)
    assert layer.backward(out).shape == (0, E)


@pytest.mark.parametrize("name", ["hopfield", "sparse", "appended", "normal in space", "to rest", "top", "activated"])
def test_patterns_or_states_alone(name):
    layer, some, none = LAYERS[name](), np.ones((2, 4, E)), z((2, 0, E))
    out = layer.forward((none, some, none))
    assert out.shape == (2, 4, E)
    assert np.isfinite(out).all()
    assert [d.shape for d in layer.backward(np.ones_like(out)) if d is not None] == [(2, 0, E), (2, 4, E)]
    out = layer.forward((some, none, some))
    assert out.shape == (2, 0, E)
    assert [d.shape for d in layer.backward(out) if d is not None] == [(2, 4, E), (2, 0, E)]
    zero = layer.associations((some, none, some))
    assert zero.shape[-1] == 4 + (2 if name == "appended" else 0)
    assert layer.get_association_matrix(z((0, 4, E))).shape[0] == 0
    assert layer.retrieve((some, none, some)).shape == (2, 0, E)
    assert layer.get_projected_pattern_matrix(none).shape[:2] == (2, layer.num_heads)
    layers.gradient_health(layer, warn=False)


FUNCTIONS = [
    ((2, 0, 1, E), (2, 4, 1, E)),
    ((0, 2, 1, E), (0, 4, 1, E)),
    ((2, 2, 1, E), (2, 0, 1, E)),
    ((2, 1, E), (0, 1, E)),
    ((2, 1, E), (0, 3, 1, E)),
    ((0, 1, E), (2, 3, 1, E)),
    ((0, 1, E), (0, 1, E)),
    ((0, 2, 1, E), (5, 1, E)),
]


@pytest.mark.covering(2)
@pytest.mark.parametrize(("queries", "stored"), FUNCTIONS)
@pytest.mark.parametrize("structure", [None, TopK(1), LinearFeatures("relu"), RandomFeatures(4)], ids=str)
@pytest.mark.parametrize("steps", [0, 2, None])
def test_associations(queries, stored, structure, steps):
    q, k = z(queries), z(stored)
    out, saved = associate_forward(q, k, k, 1.0, separation="softmax", structure=structure, update_steps_max=steps)
    samples = len(k) if k.ndim == 4 else len(q) if q.ndim == 4 else 1
    assert out.shape == (samples, *q.shape[-3:])
    dq, dk, dv, dbeta = associate_backward(saved, np.ones_like(out))
    assert (dq.shape, dk.shape, dv.shape, dbeta.shape) == (q.shape, k.shape, k.shape, (1,))
    if out.size == 0:
        assert not any(d.any() for d in (dq, dk, dv, dbeta))
    assert saved.steps.shape == out.shape[:3]
    if not isinstance(structure, (LinearFeatures, RandomFeatures)):
        assert np.prod(association_weights(saved).shape[:-1]) == np.prod(out.shape[:3])


@pytest.mark.parametrize("queries", [(0, 2, 1, E), (2, 0, 1, E)])
def test_associations_with_padding(queries):
    """What no query looks at has a gradient of zeros, which is not written beyond the rows that are there."""
    q, k = z(queries), z((queries[0], 300, 1, E))
    out, saved = associate_forward(q, k, k, 1.0, padding_mask=z((queries[0], 300), bool))
    for d, a in zip(associate_backward(saved, out), (q, k, k), strict=False):
        assert d.shape == a.shape
        assert not d.any()


X = np.eye(3)
CALLS = {
    "update": lambda q, **o: sh.update(q, X, 2.0, **o),
    "retrieve": lambda q, **o: sh.retrieve(q, X, 2.0, **o),
    "energy": lambda q, **o: sh.energy(q, X, 2.0, **o),
    "associate": lambda q, **o: sh.associate(q, X, 2.0, top=2, **o),
    "memory": lambda q, **o: sh.HopfieldMemory(X, 2.0, **o).update(q),
    "values": lambda q, **o: sh.update(q, X, 2.0, values=X, **o),
}


@pytest.mark.covering(2)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15", sh.Polynomial(2)], ids=str)
@pytest.mark.parametrize("structure", [None, TopK(2), RandomMask(2), Window(1, positions=z(0, int))], ids=str)
def test_no_queries(name, separation, structure):
    if name == "energy" and isinstance(separation, sh.Polynomial):
        pytest.skip("has no energy")
    assert CALLS[name](z((0, 3)), separation=separation, structure=structure).shape[0] == 0


def test_no_queries_of_parts():
    for separation in ("sparsemax", "softmax"):
        part = sh.candidates(z((0, 3)), X, 2.0, separation=separation)
        states = sh.merge([part, part] if separation == "softmax" else [part])
        assert states.states(X if separation == "sparsemax" else None).shape == (0, 3)


def test_what_needs_something_says_so():
    for loss in (layers.binary_cross_entropy_with_logits, layers.mean_squared_error):
        with pytest.raises(ValueError, match="not be empty"):
            loss(z((0, 1)), z((0, 1)))
    for patterns in (z((0, 3)), z((3, 0)), z((0, 0))):
        with pytest.raises(ValueError, match="patterns: needs at least one row and one column"):
            sh.update(X, patterns)
    for parameters in ([], {}, layers.ReLU(), layers.Sequential(layers.GELU())):
        for call in (optim.AdamW, lambda p: optim.clip_gradients(p, 1.0)):
            with pytest.raises(TypeError, match="parameters: must be a layer or its parameters, at least one"):
                call(parameters)
    layer = layers.Linear(2, 1)
    before = layer.state_dict()
    optim.AdamW(layer).step()  # no gradients
    assert optim.clip_gradients(layer, 1.0) == 0
    assert all(np.array_equal(a, before[k]) for k, a in layer.state_dict().items())


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("curves", [], {"xlabel": ""}),
        ("curves", [[]], {"xlabel": ""}),
        ("histograms", [[]], {"xlabel": "", "ticks": ["1"]}),
        ("histograms", [[plotting.Bars("none", {})]], {"xlabel": "", "ticks": ["1"]}),
        ("landscapes", [], {}),
        ("leads", [], {"names": ("sparse", "dense"), "xlabel": "", "ylabel": "", "label": ""}),
        ("landscapes", [[None], [None, None]], {}),
        ("scatter", [], {}),
        ("trade_offs", {}, {"xlabel": "", "ylabel": ""}),
        ("intervals", {"a": {}}, {"xlabel": "", "styles": {}}),
        ("heat_map", {"a": {}}, {"columns": ["1"], "notes": {}, "label": ""}),
        ("heat_map", {"a": {"b": []}}, {"columns": [], "notes": {}, "label": ""}),
        ("matrices", {}, {"across": ["a"], "down": ["b"]}),
        ("matrices", {"a": {"b": z((1, 0))}}, {"across": [], "down": ["c"]}),
        ("matrices", {"a": {"b": z((0, 1))}}, {"across": ["c"], "down": []}),
        ("image_grid", {}, {"shape": (2, 2)}),
        ("image_grid", {"none": z((0, 4))}, {"shape": (2, 2)}),
    ],
)
def test_figures_of_nothing(name, given, options):
    with pytest.raises(
        ValueError, match=r"^(panels|blocks|columns|rows|across|down): (there is nothing|must be rows of one)"
    ):
        getattr(plotting, name)(given, **options)


def test_estimators_say_what_they_need():
    bags = [np.full((2, 3), i % 2, float) for i in range(6)]
    fitted = HopfieldMILClassifier(epochs=1).fit(bags, np.arange(6) % 2)
    for empty in ([], z((0, 2, 3)), [z((0, 3))], z((2, 0, 3))):
        for method in (fitted.predict, fitted.predict_proba, fitted.transform):
            with pytest.raises(ValueError, match=r"^bags"):
                method(empty)
