"""Hopfield modules in every form of their options, with inputs, and the NumPy layers beside them."""

import numpy as np
import torch

import sparsehopfield.torch as sht
from sparsehopfield import Entmax, Normmax, Polynomial, layers
from sparsehopfield.layers._inputs import INPUTS
from sparsehopfield.structures import LinearFeatures, TopK, Window
from sparsehopfield.torch import _layer, _tape

B, N, M, E = 3, 4, 5, 6
NO_AFFINE = {f"normalize_{name}_affine": False for name in INPUTS}
NO_NORMS = NO_AFFINE | {f"normalize_{name}": False for name in INPUTS}
STATIC = {f"{name}_as_static": True for name in INPUTS}

# name -> module, its options, shapes of its inputs (one number of rows: an input of all roles)
LAYERS = {
    "self": ("SparseHopfield", {"num_heads": 2}, M),
    "self, softmax, 2 more steps": ("Hopfield", {"num_heads": 2, "update_steps_max": 2, "update_steps_eps": 1e-3}, M),
    "self, entmax15, no biases": ("Hopfield", {"separation": "entmax15", "input_bias": False, "num_heads": 3}, M),
    "three inputs": (
        "SparseHopfield",
        {"hidden_size": 4, "pattern_size": 3, "output_size": 2, "stored_pattern_size": 5, "pattern_projection_size": 7},
        ((M, 5), (N, E), (M, 7)),
    ),
    "samples second": (
        "SparseHopfield",
        {"num_heads": 2, "batch_first": False, "association_activation": "tanh"},
        ((M, E), (N, E), (M, E)),
    ),
    "connected": (
        "Hopfield",
        {"num_heads": 2, "pattern_projection_as_connected": True, "separation": Normmax(2.0)},
        ((M, E), (N, E), (M, E)),
    ),
    "connected, static projection": (
        "SparseHopfield",
        {"num_heads": 2, "pattern_projection_as_connected": True, "pattern_projection_as_static": True},
        M,
    ),
    "appended": (
        "SparseHopfield",
        {"num_heads": 2, "pattern_size": 2, "concat_bias_pattern": True, "add_zero_association": True},
        M,
    ),
    "normalised in association space": (
        "SparseHopfield",
        {
            "hidden_size": 4,
            "normalize_hopfield_space": True,
            "normalize_hopfield_space_affine": True,
            "add_zero_association": True,
            "association_activation": "sigmoid",
        },
        M,
    ),
    "no norms": ("SparseHopfield", {"separation": Entmax(1.25), "update_steps_max": 1} | NO_NORMS, M),
    "norms without gains, other eps": ("SparseHopfield", {"normalize_state_pattern_eps": 1e-2} | NO_AFFINE, M),
    "static patterns": (
        "SparseHopfield",
        {"hidden_size": E, "stored_pattern_as_static": True, "state_pattern_as_static": True, "num_heads": 2},
        M,
    ),
    "nothing learned": ("Hopfield", {"input_size": None, "disable_out_projection": True} | NO_NORMS | STATIC, M),
    "no output projection, polynomial": (
        "Hopfield",
        {"disable_out_projection": True, "separation": Polynomial(2), "num_heads": 2, "association_activation": "relu"},
        M,
    ),
    "learned scaling": ("SparseHopfield", {"num_heads": 2, "learnable_scaling": True, "scaling": [0.5, 2.0]}, M),
    "a scaling a head": ("SparseHopfield", {"num_heads": 2, "scaling": [0.5, 2.0]}, M),
    "implicit gradient": (
        "Hopfield",
        {"num_heads": 2, "update_steps_max": None, "update_steps_eps": 1e-13, "gradient": "implicit", "scaling": 0.2},
        M,
    ),
    "window": ("SparseHopfield", {"num_heads": 2, "structure": Window(1), "add_zero_association": True}, M),
    "top k": ("Hopfield", {"num_heads": 2, "structure": TopK(2)}, M),
    "features": ("Hopfield", {"num_heads": 2, "structure": LinearFeatures()}, M),
    "pooling": ("SparseHopfieldPooling", {"hidden_size": 3, "num_heads": 2, "quantity": 2}, M),
    "pooling of many": ("SparseHopfieldPooling", {"hidden_size": 8, "num_heads": 2}, 40),
    "pooling of two": ("HopfieldPooling", {"pattern_projection_size": 7}, ((M, E), (M, 7))),
    "static pooling, samples second": (
        "HopfieldPooling",
        {"hidden_size": 4, "num_heads": 2, "state_pattern_as_static": True, "batch_first": False}
        | {f"normalize_state_pattern{part}": False for part in ("", "_affine")},
        M,
    ),
    "lookup": ("SparseHopfieldLayer", {"quantity": 9, "num_heads": 2}, N),
    "lookup, separated": (
        "HopfieldLayer",
        {
            "quantity": 9,
            "stored_pattern_size": 5,
            "pattern_projection_size": 7,
            "lookup_weights_as_separated": True,
            "lookup_targets_as_trainable": False,
            "update_steps_max": 1,
        },
        N,
    ),
}


def made(name, *, dtype=torch.float64, **more):
    """Return a module and its NumPy layer, with the same random numbers in their parameters."""
    kind, options, _ = LAYERS[name]
    options = {"input_size": E} | options | more
    torch.manual_seed(0)
    module = getattr(sht, kind)(**options, dtype=dtype)
    with torch.no_grad():
        for key, p in module.named_parameters():
            p.copy_(torch.randn_like(p) * (0.2 if key.endswith("log_scaling") else 0.6))
    if "backend" in options:
        options = {key: value for key, value in options.items() if key != "backend"}
    layer = getattr(layers, kind)(**options, dtype="float64" if dtype == torch.float64 else "float32")
    layer.load_state_dict({key: value.numpy() for key, value in module.state_dict().items()})
    return module, layer


def input_of(name, samples=B, dtype=torch.float64, seed=1):
    """Return an input of the module: a tensor, or a tuple of tensors, that require grad."""
    _, options, shapes = LAYERS[name]
    generator = torch.Generator().manual_seed(seed)
    first = options.get("batch_first", True)

    def drawn(rows, features):
        shape = (samples, rows, features) if first else (rows, samples, features)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return drawn(shapes, E) if isinstance(shapes, int) else tuple(drawn(*shape) for shape in shapes)


def leaves_of(module, input):
    """Return the tensors with gradients: inputs and parameters."""
    inputs = input if isinstance(input, tuple) else (input,)
    return [x for x in (*inputs, *module.parameters()) if x.requires_grad]


def by_parts(monkeypatch):
    """Have every call take the layer by its parts."""
    monkeypatch.setattr(_layer, "_is_eager", lambda *_: False)


def assert_no_tapes():
    """Check that no tape lives; one that is left to the garbage collector does."""
    assert _tape.alive() == 0


def array(x):
    """Return tensors as arrays, whatever holds them; a tensor in several places stays one array."""
    if isinstance(x, tuple):
        found = {id(part): array(part) for part in x}
        return tuple(found[id(part)] for part in x)
    if isinstance(x, list):
        return [array(bag) for bag in x]
    return x.detach().numpy() if isinstance(x, torch.Tensor) else x


def assert_close(found, expected, tol=1e-9):
    """Check a tensor against another, or an array; None counts as zeros."""
    found, expected = (np.zeros(()) if x is None else np.asarray(array(x)) for x in (found, expected))
    assert np.abs(found - expected).max(initial=0) <= tol * (1 + np.abs(expected).max(initial=0))
