"""What hflayers computes in random configurations, as numbers few enough to be kept beside the tests.

    git clone https://github.com/ml-jku/hopfield-layers
    PYTHONPATH=hopfield-layers python tests/pytorch/make_golden.py

writes `golden_hflayers.npz`, by which `test_hflayers.py` judges `sparsehopfield.torch` where hflayers, which is not on
PyPI, cannot be imported. A configuration follows from its number: NumPy draws its options, weights and inputs.
Everything is float64. Of each array (output, matrices, gradients, weights after some steps of AdamW) the file has its
product with a random vector of its own, the same each time.

Left out is what hflayers does differently on purpose or by mistake (docs/guides/from-hflayers.md): a `scaling` whose
heads differ, static patterns of several samples for several heads, appended bias patterns (of which the state alone is
compared), queries that stop for all others, and queries without a stored pattern.
"""

import json
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("golden_hflayers.npz")
MODULES = 600  # configurations of the three modules
CONFIGURATIONS = MODULES + 20  # the last of encoder and decoder layers
OPTIMISED = 20  # of every so many configurations also the weights after some steps of an optimiser
STEPS = 3
#: AdamW's: this eps keeps gradients that are nothing but rounding small, where dividing by their size would not.
ADAMW = {"lr": 0.01, "eps": 1e-2}
ROLES = ("stored_pattern", "state_pattern", "pattern_projection")


class Configuration(NamedTuple):
    """A module of hflayers and what is passed to it."""

    number: int
    kind: str  # the class
    options: dict[str, Any]
    shapes: list[tuple[int, ...]]  # of the input, or of each of a tuple, in the order that `batch_first` says
    masks: dict[str, tuple[str, tuple[int, ...]]]  # name -> what it is made of, shape
    training: bool
    forward: bool  # whether more than the state is compared


def configuration(number):
    """Draw the configuration of a number."""
    if number >= MODULES:
        return transformer_configuration(number)
    rng = np.random.default_rng(number)

    def chance(share):
        return bool(rng.random() < share)

    def one_of(*values):
        return values[rng.integers(len(values))]

    kind = one_of("Hopfield", "Hopfield", "HopfieldPooling", "HopfieldLayer")
    heads, e = one_of(1, 2, 3), one_of(4, 6, 12)
    hidden = one_of(2, 3, 5, e) if e % heads or chance(0.6) else None
    batch, n, m = one_of(1, 2, 3), one_of(1, 2, 4), one_of(1, 3, 6)
    o: dict[str, Any] = {"input_size": e, "num_heads": heads, "hidden_size": hidden}
    width = hidden or e // heads

    # sizes: which inputs are one and the same says which may differ
    learned = {"Hopfield": (), "HopfieldPooling": ("state_pattern",), "HopfieldLayer": ("stored_pattern",)}[kind]
    separated = kind == "HopfieldLayer" and chance(0.5)
    one_input = kind == "HopfieldLayer" or chance(0.4)
    as_one = {  # the roles that are one tensor
        "Hopfield": ROLES if one_input else (),
        "HopfieldPooling": ("stored_pattern", "pattern_projection") if one_input else (),
        "HopfieldLayer": () if separated else ("stored_pattern", "pattern_projection"),
    }[kind]
    connected = chance(0.15)
    sizes = {"state_pattern": e, "stored_pattern": e, "pattern_projection": e}
    if "state_pattern" not in as_one and chance(0.3):
        o["stored_pattern_size"] = sizes["stored_pattern"] = one_of(3, 5, e)
        if as_one or connected:
            o["pattern_projection_size"] = sizes["pattern_projection"] = sizes["stored_pattern"]
    if not as_one and not connected and chance(0.3):
        o["pattern_projection_size"] = sizes["pattern_projection"] = one_of(3, 7)
    if connected:
        o["pattern_projection_as_connected"] = True
    elif chance(0.3):
        o["pattern_size"] = one_of(2, 4)

    # static inputs are in the association space already
    static = {role for role in ROLES if chance(0.12)}
    if chance(0.05):
        static = {*ROLES}
    if as_one and static & {*as_one} and not (hidden == e and not o.keys() & {"pattern_size", "stored_pattern_size"}):
        static -= {*as_one}
    if static and heads > 1:
        if connected or "stored_pattern" in static:
            static.discard("pattern_projection")
        if static - {*learned}:
            batch = 1
    if connected and sizes["stored_pattern"] != width:
        static.discard("pattern_projection")
    for role in static:
        o[f"{role}_as_static"] = True
        sizes[role] = width if role != "pattern_projection" else o.get("pattern_size") or width
    if separated and not connected:
        o["pattern_projection_size"] = sizes["pattern_projection"]
    elif separated and sizes["stored_pattern"] != e:
        o["pattern_projection_size"] = o["stored_pattern_size"] = e
        sizes["pattern_projection"] = e

    # normalisation
    before = {
        "state_pattern": e,
        "stored_pattern": o.get("stored_pattern_size", e),
        "pattern_projection": o.get("pattern_projection_size", e),
    }
    for role in ROLES:
        normal = chance(0.75) and before[role] == sizes[role]
        o[f"normalize_{role}"] = normal
        o[f"normalize_{role}_affine"] = normal and chance(0.7)
        if normal and kind == "Hopfield" and chance(0.3):
            o[f"normalize_{role}_eps"] = 1e-2
    if chance(0.25):
        o["normalize_hopfield_space"] = True
        o["normalize_hopfield_space_affine"] = hidden is not None and chance(0.5)
        if kind == "Hopfield" and chance(0.3):
            o["normalize_hopfield_space_eps"] = 1e-2

    # the association
    o["scaling"] = one_of(None, None, 0.3, 1.0, "tensor")
    o["update_steps_max"] = one_of(0, 0, 0, 1, 2, 3, -1, None)
    endless = o["update_steps_max"] in (-1, None)
    o["update_steps_eps"] = 1e-13 if endless else 1e-300
    if endless:
        o["scaling"] = 0.2
    elif o["scaling"] == "tensor" and heads > 1 and (o["update_steps_max"] or "state_pattern" in static):
        o["scaling"] = 0.7  # hflayers repeats a tensor by the wrong number there
    o["batch_first"] = chance(0.7)
    o["association_activation"] = one_of(None, None, None, "relu", "tanh", "sigmoid")
    o["dropout"] = one_of(0.0, 0.0, 0.3)
    o["input_bias"] = chance(0.8)
    o["add_zero_association"] = chance(0.15)
    o["disable_out_projection"] = chance(0.2)
    if not o["disable_out_projection"] and chance(0.4):
        o["output_size"] = one_of(1, 3, 8)
    biased = not static and "pattern_size" not in o and chance(0.05)
    if biased:
        o["concat_bias_pattern"] = True
    bare = {*static} == {*ROLES} and kind == "Hopfield" and chance(0.5)
    if bare and not connected and not o.get("normalize_hopfield_space"):
        normal = {name for name in o if name.startswith("normalize") and o[name]}
        o = {k: v for k, v in o.items() if k not in {"input_size", "hidden_size", "output_size", *normal}}
        o |= {f"normalize_{role}{part}": False for role in ROLES for part in ("", "_affine")}
        o["disable_out_projection"] = True

    # what is learned
    if kind == "HopfieldPooling":
        o["quantity"] = n
        o["trainable"] = chance(0.8)
    if kind == "HopfieldLayer":
        o["quantity"] = m
        o["trainable"] = chance(0.8)
        o["lookup_weights_as_separated"] = separated
        o["lookup_targets_as_trainable"] = chance(0.8)

    # what is passed
    rows = {"state_pattern": n, "stored_pattern": m, "pattern_projection": m}
    if kind == "Hopfield" and one_input:
        rows = dict.fromkeys(ROLES, m)
    passed = {"Hopfield": ROLES, "HopfieldPooling": ROLES[::2], "HopfieldLayer": ROLES[1:2]}[kind]
    passed = passed[:1] if one_input else passed
    shapes = [(batch, rows[role], sizes[role]) for role in passed]
    if not o["batch_first"]:
        shapes = [(s[1], s[0], s[2]) for s in shapes]
    masks: dict[str, tuple[str, tuple[int, ...]]] = {}
    if chance(0.35):
        masks["stored_pattern_padding_mask"] = "bool", (batch, m)
    if chance(0.35):
        shape = (rows["state_pattern"], m)
        masks["association_mask"] = one_of("bool", "float"), one_of(shape, (batch * heads, *shape))
    return Configuration(number, kind, o, shapes, masks, o["dropout"] == 0, not biased)


def transformer_configuration(number):
    """Draw the configuration of an encoder or a decoder layer, whose options are those of its associations."""
    rng = np.random.default_rng(number)
    batch, n, m, e, heads = 1 + number % 3, 4, 5, 6, 1 + number % 2
    options = {
        "input_size": e,
        "num_heads": heads,
        "hidden_size": (3, 4)[rng.integers(2)],
        "update_steps_max": int(rng.integers(3)),
        "update_steps_eps": 1e-300,
        "batch_first": bool(rng.random() < 0.7),
    }
    decoder = number % 2 == 1
    shapes = [(batch, n, e), (batch, m, e)][: 1 + decoder]
    if not options["batch_first"]:
        shapes = [(s[1], s[0], s[2]) for s in shapes]
    first = "tgt" if decoder else "src"
    masks = {f"{first}_mask": ("bool", (n, n)), f"{first}_key_padding_mask": ("bool", (batch, n))}
    if decoder:
        masks |= {"memory_mask": ("float", (n, m)), "memory_key_padding_mask": ("bool", (batch, m))}
    masks = {name: mask for name, mask in masks.items() if rng.random() < 0.5}
    kind = "HopfieldDecoderLayer" if decoder else "HopfieldEncoderLayer"
    return Configuration(number, kind, options, shapes, masks, bool(rng.random() < 0.5), True)


def make(classes, c, **more):
    """Build the module of a configuration, with the weights that its number is a seed of, and more options."""
    options = c.options | more
    if isinstance(options.get("scaling"), str):
        options["scaling"] = torch.full((options["num_heads"],), 0.7, dtype=torch.float64)
    torch.manual_seed(c.number)
    if c.number >= MODULES:
        associations = [classes.Hopfield(**options) for _ in c.shapes]
        layer = getattr(classes, c.kind)(*associations, dim_feedforward=8, dropout=0.0, activation="tanh")
    else:
        layer = getattr(classes, c.kind)(**options)
    return layer.train(c.training)


def fill(layer, c):
    """Make a module float64, with weights that give scores of all sizes."""
    layer.double()
    named = sorted(layer.named_parameters())
    rng = np.random.default_rng([c.number, 1])
    with torch.no_grad():
        for name, p in named:
            a = rng.standard_normal(tuple(p.shape))
            if "norm" in name:
                a = 0.3 * a + name.endswith("weight")
            elif "bias" in name:
                a *= 0.3
            elif "pooling" not in name and "lookup" not in name and "target" not in name:
                a *= 1.5 / p.shape[-1] ** 0.5
            p.copy_(torch.from_numpy(a))
    return layer


def inputs(c):
    """Draw the arguments of a configuration's module: tensors with gradients in a list, and masks by name."""
    rng = np.random.default_rng([c.number, 2])
    xs = [torch.from_numpy(rng.standard_normal(shape)).requires_grad_() for shape in c.shapes]
    masks = {}
    for name, (kind, shape) in c.masks.items():
        a = rng.random(shape)
        a = a < 0.4 if kind == "bool" else np.where(a < 0.3, -np.inf, 2 * a)
        a[..., 0] = 0  # nobody is left without a stored pattern
        masks[name] = torch.from_numpy(a)
    return xs, masks


def arguments(c, xs):
    """Return tensors as the positional arguments of a module."""
    return tuple(xs) if len(xs) == 1 or c.number >= MODULES else (tuple(xs),)


def measure(layer, c):
    """Compute output and gradients, as arrays by name."""
    xs, masks = inputs(c)
    out = layer(*arguments(c, xs), **masks)
    rng = np.random.default_rng([c.number, 3])
    grad = torch.from_numpy(rng.standard_normal(tuple(out.shape)))
    learned = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    asked = {f"input {i}": t for i, t in enumerate(xs)} | learned
    grads = torch.autograd.grad((out * grad).sum(), list(asked.values()), allow_unused=True)
    found = {"output": out}
    found |= {
        f"gradient of {k}": torch.zeros_like(t) if g is None else g
        for (k, t), g in zip(asked.items(), grads, strict=True)
    }
    return {name: t.detach().numpy() for name, t in found.items()}


def matrices(layer, c):
    """Compute the association matrix and the projected patterns, which encoder and decoder layers do not have."""
    xs, masks = inputs(c)
    names = ("association", "projected_pattern") if c.number < MODULES else ()
    return {name: getattr(layer, f"get_{name}_matrix")(*arguments(c, xs), **masks).detach().numpy() for name in names}


def optimised(layer, c, optimiser=None):
    """Take steps of AdamW; return the weights."""
    optimiser = optimiser or torch.optim.AdamW(layer.parameters(), **ADAMW)
    xs, masks = inputs(c)
    for _ in range(STEPS):
        optimiser.zero_grad()
        out = layer(*arguments(c, xs), **masks)
        (out * out).sum().backward()
        optimiser.step()
    return {name: p.detach().numpy().copy() for name, p in layer.named_parameters()}


def projected(arrays, c):
    """Return the product of each array with a random vector of its own, of length about 1."""

    def vector(name, size):
        return np.random.default_rng([c.number, zlib.crc32(name.encode())]).standard_normal(size) / max(1, size) ** 0.5

    return {name: float(a.ravel() @ vector(name, a.size)) for name, a in arrays.items()}


def drawn(c):
    """Return one number that tells whether NumPy still draws the same inputs."""
    return sum(projected({str(i): x.detach().numpy() for i, x in enumerate(inputs(c)[0])}, c).values())


def learns(layer, c):
    """Tell whether a configuration is one of those whose weights an optimiser moves."""
    return c.forward and c.number % OPTIMISED == 0 and any(p.requires_grad for p in layer.parameters())


def state(layer):
    """Return (name, shape, whether it is learned) of each parameter, in their order."""
    return [[name, list(p.shape), p.requires_grad] for name, p in layer.named_parameters()]


def weights(layer):
    """Return the weights as they are, as arrays by name."""
    return {f"weight {name}": p.detach().double().numpy() for name, p in layer.named_parameters()}


def everything(classes, c):
    """Return the state of a configuration, and all that is kept, by name."""
    layer = make(classes, c)
    found, numbers = state(layer), projected(weights(layer), c) | {"drawn": drawn(c)}
    if c.forward:
        numbers |= projected(measure(fill(layer, c), c) | matrices(layer, c), c)
        if learns(layer, c):
            after = optimised(layer, c)
            numbers |= projected({f"optimised {name}": a for name, a in after.items()}, c)
    return found, numbers


def peer():
    """Return hflayers' classes."""
    from hflayers import transformer

    return SimpleNamespace(**vars(sys.modules["hflayers"]) | vars(transformer))


def load():
    """Read the file: (state, numbers by name) of each configuration."""
    with np.load(GOLDEN) as file:
        states, numbers = json.loads(file["text"].tobytes()), iter(file["numbers"].tolist())
    return [(named, {name: next(numbers) for name in names}) for named, names in states]


def main():
    """Write the file."""
    classes, states, numbers = peer(), [], []
    for number in range(CONFIGURATIONS):
        named, found = everything(classes, configuration(number))
        assert np.isfinite([*found.values()]).all(), number
        states.append([named, [*found]])
        numbers += found.values()
    text = np.frombuffer(json.dumps(states).encode(), np.uint8)
    np.savez_compressed(GOLDEN, text=text, numbers=np.array(numbers))
    print(f"{CONFIGURATIONS} configurations, {len(numbers)} numbers, {GOLDEN.stat().st_size} bytes: {GOLDEN.name}")


if __name__ == "__main__":
    main()
