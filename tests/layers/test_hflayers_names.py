"""The properties and methods that hflayers' users know, on all Hopfield layers."""

import numpy as np
import pytest

from sparsehopfield import layers

# of hflayers' Hopfield; HopfieldPooling and HopfieldLayer have them, too, and quantity
PROPERTIES = [
    "batch_first", "scaling", "stored_pattern_dim", "state_pattern_dim", "pattern_projection_dim", "input_size",
    "hidden_size", "output_size", "pattern_size", "update_steps_max", "update_steps_eps", "stored_pattern_as_static",
    "state_pattern_as_static", "pattern_projection_as_static", "normalize_stored_pattern",
    "normalize_stored_pattern_affine", "normalize_state_pattern", "normalize_state_pattern_affine",
    "normalize_pattern_projection", "normalize_pattern_projection_affine", "normalize_hopfield_space",
    "normalize_hopfield_space_affine",
]  # fmt: skip
METHODS = ["reset_parameters", "get_association_matrix", "get_projected_pattern_matrix", "forward"]
KINDS = [
    layers.Hopfield, layers.SparseHopfield, layers.HopfieldPooling, layers.SparseHopfieldPooling,
    layers.HopfieldLayer, layers.SparseHopfieldLayer,
]  # fmt: skip
CHOSEN = dict(
    input_size=6, hidden_size=3, output_size=5, pattern_size=4, num_heads=2, scaling=0.3, update_steps_max=2,
    update_steps_eps=1e-3, normalize_state_pattern_affine=False, normalize_pattern_projection=False,
    normalize_pattern_projection_affine=False, normalize_hopfield_space=True, stored_pattern_size=7,
    pattern_projection_size=8, batch_first=False, dropout=0.25, association_activation="tanh",
    add_zero_association=True,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_all_names(kind):
    for options in (dict(input_size=4), CHOSEN):
        layer = kind(**options)
        for name in PROPERTIES:
            getattr(layer, name)
        assert all(callable(getattr(layer, name)) for name in METHODS)
        assert isinstance(layer, (layers.Hopfield, layers.SparseHopfield)) or layer.quantity == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_chosen(kind):
    layer = kind(**CHOSEN)
    for name, value in CHOSEN.items():
        name = {"stored_pattern_size": "stored_pattern_dim", "pattern_projection_size": "pattern_projection_dim"}.get(
            name, name
        )
        assert getattr(layer, name) == value
    assert layer.state_pattern_dim == 6
    assert not layer.normalize_hopfield_space_affine
    assert layer.normalize_stored_pattern


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_from_the_defaults(kind):
    layer = kind(6, num_heads=2)
    assert (layer.input_size, layer.hidden_size, layer.pattern_size, layer.output_size) == (6, 3, 3, 6)
    assert layer.stored_pattern_dim == layer.state_pattern_dim == layer.pattern_projection_dim == 6
    assert layer.scaling == pytest.approx(3**-0.5)
    assert (layer.batch_first, layer.update_steps_max, layer.update_steps_eps) == (True, 0, 1e-4)
    assert not (layer.stored_pattern_as_static)
    assert not (layer.state_pattern_as_static)
    assert not (layer.pattern_projection_as_static)
    assert kind(6, output_size=2).output_size == 2
    assert kind(6, disable_out_projection=True, hidden_size=2).output_size == 6  # as hflayers says


@pytest.mark.parametrize("kind", KINDS[2:])
def test_what_may_be_changed(kind):
    layer = kind(4)
    layer.scaling, layer.separation = 2.0, "entmax15"
    assert (layer.hopfield.scaling, layer.hopfield.separation) == (2.0, "entmax15")
    layer.update_steps_max, layer.dropout = 2, 0.25
    assert (layer.hopfield.update_steps_max, layer._arguments()["dropout"]) == (2, 0.25)
    for name in ("input_size", "batch_first", "normalize_stored_pattern"):
        with pytest.raises(AttributeError, match=f"{name}: is fixed"):
            setattr(layer, name, 3)
    with pytest.raises(AttributeError, match="normalize_stored_pattern: is fixed"):
        layer.hopfield.normalize_stored_pattern = False


def attended(layer, x):
    """(stored, state, projection) of what comes in."""
    if isinstance(layer, layers.HopfieldPooling):
        return x, np.broadcast_to(layer.pooling_weights.value, (len(x), layer.quantity, x.shape[-1])), x
    if isinstance(layer, layers.HopfieldLayer):
        stored = np.broadcast_to(layer.lookup_weights.value, (len(x), layer.quantity, x.shape[-1]))
        return stored, x, stored
    return x, x, x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"concat_bias_pattern": True, "add_zero_association": True}, {"normalize_hopfield_space": True}]
)
def test_matrices(kind, options):
    """The output is the output projection of the association matrix times the projected patterns."""
    size = {} if kind in KINDS[:2] else {"quantity": 3}
    layer = kind(4, num_heads=2, output_size=5, dtype="float64", random_state=0, initial_std=0.5, **size, **options)
    x = np.random.default_rng(0).standard_normal((3, 7, 4))
    weights, patterns = layer.get_association_matrix(x), layer.get_projected_pattern_matrix(x)
    stored, state, _ = attended(layer, x)
    appended = 2 if "concat_bias_pattern" in options else 0
    assert weights.shape == (3, 2, state.shape[1], stored.shape[1] + appended)
    assert patterns.shape == (3, 2, stored.shape[1] + appended, 2)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    mixed = np.einsum("bhnm,bhmp->bnhp", weights, patterns).reshape(3, state.shape[1], 4)
    state_of = layer.state_dict()
    prefix = "" if kind in KINDS[:2] else "hopfield."
    out = mixed @ state_of[f"{prefix}association_core.out_proj.weight"].T
    out += state_of[f"{prefix}association_core.out_proj.bias"]
    np.testing.assert_allclose(layer.forward(x).reshape(out.shape), out, atol=1e-12)
    found = layer.associations(x)
    dense = found if isinstance(found, np.ndarray) else found.toarray().reshape(weights.shape)
    np.testing.assert_array_equal(dense, weights)


def test_matrices_of_other_layouts():
    x = np.random.default_rng(0).standard_normal((3, 7, 4))
    first, second = (layers.SparseHopfield(4, random_state=0, batch_first=b) for b in (True, False))
    for name in ("get_association_matrix", "get_projected_pattern_matrix"):
        np.testing.assert_array_equal(getattr(first, name)(x), getattr(second, name)(x.swapaxes(0, 1)))
    bags = [x[0], x[1, :2]]
    assert first.get_projected_pattern_matrix(bags).shape == (1, 9, 4)
    assert first.get_association_matrix(bags).shape == (2, 1, 7, 7)
    padding = np.zeros((3, 7), bool)
    padding[:, 3:] = True
    assert not first.get_association_matrix(x, padding)[..., 3:].any()
    with pytest.raises(ValueError, match="stored_pattern_padding_mask"):
        first.get_projected_pattern_matrix(x, padding[:1])


RESET = {
    "hopfield": lambda: layers.Hopfield(4, learnable_scaling=True, random_state=0),
    "pooling": lambda: layers.SparseHopfieldPooling(4, quantity=2, random_state=0),
    "lookup": lambda: layers.HopfieldLayer(4, lookup_weights_as_separated=True, random_state=0),
    "linear": lambda: layers.Linear(4, 2, random_state=0),
    "norm": lambda: layers.LayerNorm(4),
    "model": lambda: layers.Sequential(layers.Linear(4, 2, random_state=0), layers.ReLU(), layers.LayerNorm(2)),
}


@pytest.mark.parametrize("name", RESET)
def test_reset_parameters(name):
    """New values of the same kind, in the arrays that are there: constants as they began, others drawn anew."""
    layer = RESET[name]()
    begun = layer.state_dict()
    arrays = {key: p.value for key, p in layer.parameters().items()}
    for p in layer.parameters().values():
        p.value[...] = 77
    layer.reset_parameters()
    for key, p in layer.parameters().items():
        assert p.value is arrays[key]
        assert not (p.value == 77).any()
        constant = len(np.unique(begun[key])) == 1
        assert np.array_equal(p.value, begun[key]) == constant
        assert np.abs(p.value).max() <= max(1, 5 * np.abs(begun[key]).max())
