"""The layers' associations, and their linear maps, beside what this machine's products and memory allow.

python benchmarks/roofline.py --output roofline.json

The bound of a row is its floating-point operations at the rate of a large sgemm, plus the bytes of its arrays, each
moved once, at the rate of a copy. Softmax needs all weights: two products forward, scores and mixtures, and five
backward, scores again and the gradients of weights, queries, keys and values. A map with few weights needs only the
scores of all pairs, once; what is left has weight. Linear maps of 8 heads of 32 are those of pooling over bags.
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


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0])
    from sparsehopfield._engine.association import associate_backward, associate_forward

    table = harness.Table(harness.set_up(arguments))
    work, operations, moved = machine(arguments.quick)

    def compare(name, call, flops, size):
        """Time a call beside the machine's rates of the same round."""
        times = harness.interleaved({"ours": call, **work}, arguments.rounds)
        rates = zip(times["sgemm"], times["copy"], strict=True)
        bound = [flops / operations * sgemm + size / moved * copy for sgemm, copy in rates]
        table.add(name, times["ours"], "its bound", bound)

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
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
