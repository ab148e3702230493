"""The layers' associations, and their linear maps, beside what this machine's products and memory allow.

python benchmarks/roofline.py --output roofline.json

The bound of a row is its floating-point operations at the rate of a large sgemm, plus the bytes of its arrays, each
moved once, at the rate of a copy. Softmax needs all weights: two products forward, scores and mixtures, and five
backward, scores again and the gradients of weights, queries, keys and values. A map with few weights needs only the
scores of all pairs, once; what is left has weight. Linear maps of 8 heads of 32 are those of pooling over bags.

The bound of a training step of a layer of `sparsehopfield.torch` is, beside its products, what torch's own calls take:
a step of a module with the same parameters, input and output, which computes nothing (one autograd function that
returns zeros, the sum of the output, gradients of zeros, torch's fused AdamW). The layer's own arrays count once: the
weights read in both passes, gradients written, and of the rows inputs, projections and gradients of these.
"""

import harness
import numpy as np

# name: samples, heads, queries, rows, features
SHAPES = {
    "attention 4 x 8 x 1024 x 64": (4, 8, 1024, 1024, 64),
    "self 16 x 256 x 64, 4 heads of 16": (16, 4, 256, 256, 16),
    "pooling 4 x 30 x 230, 8 heads of 32": (4, 8, 1, 30, 32),
}


def machine(quick):
    """Return a large sgemm and a large copy as callables, and how many operations and bytes they are."""
    n = 256 if quick else 1536
    a, b, c = (np.ones((n, n), np.float32) for _ in range(3))
    source = np.ones((1 if quick else 64) << 18, np.float32)
    target = np.empty_like(source)
    work = {"sgemm": lambda: np.matmul(a, b, out=c), "copy": lambda: np.copyto(target, source)}
    return work, 2 * n**3, 2 * source.nbytes


def pairs(samples, heads, queries, rows, width, products):
    """Return the operations of some products of queries with rows."""
    return 2 * products * samples * heads * queries * rows * width


def maps(rows, inputs, outputs, products):
    """Return the operations of a linear map of rows: forward, and of gradients in weights and in rows, if wanted."""
    return 2 * products * rows * inputs * outputs


def pooling_step(bags, rows, features, heads, width, updates):
    """Return the operations and numbers of a step of pooling that attends to unprojected rows, with few queries.

    Their gradients are not wanted: each of the `updates`, and the last mixture, makes two products forward and three
    backward. A projection of a query, there and back, is made once forward, and backward for it and for the weights.
    """
    projected = heads * width
    moved = 1 + 2 * (updates - 1)  # the first state; W z and W^T W z of each update
    flops = pairs(bags, heads, 1, rows, features, 5 * updates)
    flops += bags * maps(1, features, projected, 3 * moved) + maps(1, features, projected, 3)  # keys; queries
    flops += maps(bags, features, projected, 6)  # values and output
    return flops, 2 * bags * rows * features + 3 * 4 * features * projected


def self_step(samples, rows, features, heads, width):
    """Return the same of a step of self-association, whose input needs no gradient."""
    n, projected = samples * rows, heads * width
    flops = pairs(samples, heads, rows, rows, width, 7)
    flops += maps(n, features, 3 * projected, 2) + maps(n, projected, features, 3)
    return flops, 2 * n * (2 * features + 4 * projected + features) + 3 * 4 * features * projected


def lookup_step(queries, rows, features):
    """Return the same of a step of a lookup, whose stored rows are weights."""
    flops = pairs(1, 1, queries, rows, features, 7)
    flops += maps(rows, features, 2 * features, 3) + maps(queries, features, features, 2 + 3)
    return flops, 2 * rows * 4 * features + 3 * 4 * features**2


# name: module, its arguments, shape of its input, operations and numbers of a step
STEPS = {
    "pooling 128 x 300 x 4": (
        "HopfieldPooling",
        {"input_size": 4, "hidden_size": 8, "num_heads": 8, "update_steps_max": 3, "dropout": 0.1},
        (128, 300, 4),
        pooling_step(128, 300, 4, 8, 8, 4),
    ),
    "pooling 4 x 30 x 230": (
        "HopfieldPooling",
        {"input_size": 230, "hidden_size": 32, "num_heads": 8, "update_steps_max": 3},
        (4, 30, 230),
        pooling_step(4, 30, 230, 8, 32, 4),
    ),
    "self 16 x 256 x 64, one step": (
        "Hopfield",
        {"input_size": 64, "hidden_size": 16, "num_heads": 4},
        (16, 256, 64),
        self_step(16, 256, 64, 4, 16),
    ),
    "lookup 1,000 x 64, 128 queries": (
        "HopfieldLayer",
        {"input_size": 64, "quantity": 1000},
        (128, 1, 64),
        lookup_step(128, 1000, 64),
    ),
}


def torch_calls(module, x):
    """Return training steps that compute nothing, with the calls that torch makes around a layer, as one contender."""
    import torch
    from torch_layers import training

    shape = module(x).shape

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, *parameters):
            ctx.save_for_backward(x, *parameters)
            return x.new_zeros(shape)

        @staticmethod
        def backward(ctx, grad):
            return None, *[torch.zeros_like(p) for p in ctx.saved_tensors[1:]]

    class Stub(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterList(p.detach().clone() for p in module.parameters())

        def forward(self, x):
            return Nothing.apply(x, *self.weights)

    return training(Stub(), x)


def steps(compare):
    """Compare training steps of the layers of `sparsehopfield.torch`, and both passes of those of NumPy."""
    import torch
    from torch_layers import passes_of_numpy, training

    import sparsehopfield.torch as sht
    from sparsehopfield import layers

    for name, (kind, sizes, shape, (flops, numbers)) in STEPS.items():
        torch.manual_seed(0)
        x = torch.randint(0, 2, shape).float() if shape[-1] == 4 else torch.randn(shape)
        for separation in ("softmax", "sparsemax"):
            module = getattr(sht, kind)(**sizes, separation=separation)
            calls = torch_calls(module, x)
            compare(f"step: {name}, {separation}", training(module, x), flops, 4 * numbers, calls)
        layer = getattr(layers, kind)(**sizes, random_state=0)
        compare(f"NumPy passes: {name}, softmax", passes_of_numpy(layer, x.numpy()), flops, 4 * numbers)


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0])
    from sparsehopfield._engine.association import associate_backward, associate_forward

    table = harness.Table(harness.set_up(arguments))
    work, operations, moved = machine(arguments.quick)

    def compare(name, call, flops, size, calls=None):
        """Time a call beside the machine's rates of the same round, and beside calls of torch that it cannot avoid."""
        times = harness.interleaved({"ours": call, **work, "calls": calls}, arguments.rounds)
        parts = [
            np.array(times["sgemm"]) * flops / operations,
            np.array(times["copy"]) * size / moved,
            np.array(times.get("calls", 0.0)),
        ]
        words = zip(("products", "traffic", "torch's calls"), parts, strict=True)
        note = ", ".join(f"{word} {np.median(part) * 1e3:.3g} ms" for word, part in words if part.any())
        table.add(name, times["ours"], "its bound", list(sum(parts)), note=note)

    for name, (samples, heads, queries, rows, width) in SHAPES.items():
        rng = np.random.default_rng(0)
        q, g = (rng.normal(size=(samples, queries, heads, width)).astype(np.float32) for _ in range(2))
        k, v = (rng.normal(size=(samples, rows, heads, width)).astype(np.float32) for _ in range(2))
        product = 2 * samples * heads * queries * rows * width
        size = 4 * (q.nbytes + k.nbytes)
        for separation, products in (("softmax", 7), ("sparsemax", 1)):

            def both(q=q, k=k, v=v, g=g, separation=separation):
                _, saved = associate_forward(q, k, v, q.shape[-1] ** -0.5, separation=separation)
                associate_backward(saved, g)

            compare(f"{name}, {separation}", both, products * product, size)
    samples, rows, size, width = 4, 30, 230, 256
    x = np.ones((samples * rows, size), np.float32)
    w = np.ones((size, width), np.float32)
    compare("6 linear maps of 120 x 230 to 256", lambda: [x @ w for _ in range(6)], 12 * len(x) * w.size, 6 * w.nbytes)
    if harness.peer("torch"):
        steps(compare)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
