"""Arguments of the association on tensors: every map, every form of its tensors and options."""

import pytest
import torch

from sparsehopfield import Entmax, Normmax, Polynomial
from sparsehopfield._engine.separations import row_of, separation_code
from sparsehopfield.structures import (
    BlockSparse,
    DilatedBlocks,
    LinearFeatures,
    RandomFeatures,
    RandomMask,
    TopK,
    Window,
)
from sparsehopfield.torch import _native, _operators, _tape
from sparsehopfield.torch._arguments import Options, Tensors, structure_text

MAPS = [
    "sparsemax",
    "softmax",
    "entmax15",
    Entmax(1.2),
    Entmax(3.0),
    Normmax(1.5),
    Normmax(2.0),
    Polynomial(2),
    Polynomial(3),
]
B, N, M, H, D, V, E = 2, 5, 6, 2, 3, 4, 5

STRUCTURES = {
    "window": Window(1, positions=[0, 2, 3, 5, 1]),
    "causal window": Window(3, causal=True, positions=[0, 2, 3, 5, 1]),
    "top k": TopK(3),
    "random": RandomMask(3, seed=5),
    "blocks": BlockSparse([[True, False], [True, True], [False, True], [True, False], [False, False]], (1, 3)),
    "dilated": DilatedBlocks(4, 2, positions=[0, 2, 3, 5, 1]),
}
FEATURES = {
    "linear features": LinearFeatures("elu+1"),
    "random features": RandomFeatures(8, seed=3),
}
FORMS = [
    "all",
    "shared rows",
    "shared queries",
    "one head of stored",
    "one head of values",
    "ragged",
    "padding",
    "padding of shared rows",
    "bool (N, M)",
    "bool (B, N, M)",
    "bool (B, H, N, M)",
    "numbers (N, M)",
    "numbers (B, H, N, M)",
    "mask and padding",
    "no row",
    "dropout",
    "dropout of ragged bags",
    "projected keys",
    "projected values",
    "projected",
    "appended",
    *STRUCTURES,
    *FEATURES,
]


def is_valid(separation, form, steps):
    """Whether there is such an association."""
    code = separation_code(separation)
    if form in FEATURES:
        return separation == "softmax"
    if form in ("projected keys", "projected"):
        return row_of(code).shift_invariant and steps >= 0
    return True


def association(separation, form, steps=0, *, implicit=False, dtype=torch.float64, seed=0, eps=1e-4):
    """The tensors and options of an association."""
    rng = torch.Generator().manual_seed(1000 * seed + FORMS.index(form))

    def normal(*shape, scale=1.0):
        return (torch.randn(shape, generator=rng, dtype=torch.float64) * scale).to(dtype)

    def hidden(*shape):
        mask = torch.rand(shape, generator=rng) < 0.3
        mask[..., 0] = False
        return mask

    projects_keys, projects_values = form in ("projected keys", "projected"), form in ("projected values", "projected")
    heads_of_stored = 1 if form == "one head of stored" or form.startswith("projected") else H
    heads_of_values = 1 if form == "one head of values" or form.startswith("projected") else H
    lead = (M,) if "shared rows" in form else (B * M,) if "ragged" in form else (B, M)
    key_width, value_width = E if projects_keys else D, E if projects_values else V
    queries = normal(*(() if form == "shared queries" else (B,)), N, H, D)
    stored = normal(*lead, heads_of_stored, key_width)
    values = normal(*lead, heads_of_values, value_width)
    beta = torch.tensor([0.8, 1.7], dtype=torch.float64)
    tensors = dict(zip(Tensors._fields, [queries, stored, values, beta, *[None] * 8], strict=True))
    if projects_keys:
        tensors |= {"key_weight": normal(H, D, E, scale=E**-0.5), "key_bias": normal(H, D)}
    if projects_values:
        tensors |= {"value_weight": normal(H, V, E, scale=E**-0.5), "value_bias": normal(H, V)}
    if "ragged" in form:
        tensors["offsets"] = torch.tensor([0, 4, B * M])
    if "padding" in form:
        tensors["padding_mask"] = hidden(B, M)
    if form in ("bool (N, M)", "mask and padding"):
        tensors["mask"] = hidden(N, M)
    elif form == "bool (B, N, M)":
        tensors["mask"] = hidden(B, N, M)
    elif form == "bool (B, H, N, M)":
        tensors["mask"] = hidden(B, H, N, M)
    elif form == "numbers (N, M)":
        tensors["mask"] = normal(N, M).masked_fill(hidden(N, M), -torch.inf)
    elif form == "numbers (B, H, N, M)":
        tensors["mask"] = normal(B, H, N, M)
    elif form == "no row":  # which the first query sees
        tensors["mask"] = torch.arange(N)[:, None].expand(N, M) == 0
    dropout = 0.4 if "dropout" in form else 0.0
    if dropout:
        tensors["seed"] = torch.tensor([2**40 + 17 + seed])
    structure = {**STRUCTURES, **FEATURES}.get(form)
    if form == "appended":
        structure = Window(1, positions=[0, 2, 3, 3, 1])
    appended = 2 if form == "appended" else 0
    options = Options(*separation_code(separation), steps, eps, dropout, implicit, structure_text(structure), appended)
    return Tensors(**tensors), options


def with_gradients(tensors):
    """The same tensors, those that may have gradients as leaves that want them."""
    return Tensors(
        *(
            t if t is None or not t.is_floating_point() or i > 7 else t.clone().requires_grad_()
            for i, t in enumerate(tensors)
        )
    )


def leaves(tensors):
    """The tensors that may have gradients."""
    return [t for t in tensors[:8] if t is not None]


def outcome(tensors, options, backend=None, weight=None):
    """The output, and the gradients of sum(weight * output)."""
    tensors = with_gradients(tensors)
    out = _operators.associate(tensors, options, backend)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape) if weight is None else weight
    return out.detach(), torch.autograd.grad(out, leaves(tensors), weight, materialize_grads=True)


@pytest.fixture(autouse=True)
def no_living_tape():
    """No test leaves a tape."""
    yield
    assert _tape.alive() == 0


@pytest.fixture
def passes():
    """How many passes the core has made since, by their names."""
    before = dict(_native.counts)

    class Passes:
        def __getitem__(self, name):
            return _native.counts[name] - before[name]

    return Passes()
