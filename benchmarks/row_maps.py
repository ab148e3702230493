"""Row maps against entmax and torch, and what one small call costs.

python benchmarks/row_maps.py --output row_maps.json
"""

import statistics
import timeit

import harness
import numpy as np


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0])
    import sparsehopfield as sh

    table = harness.Table(harness.set_up(arguments))
    torch, entmax = harness.peer("torch"), harness.peer("entmax")
    shape = (256, 1024) if arguments.quick else (4096, 1024)
    name = f"{shape[0]} x {shape[1]} float32"
    z = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    out = np.empty_like(z)
    t = torch.from_numpy(z) if torch else None

    # The fast ones against each other in many rounds; the slow peers in rounds of their own, beside ours.
    times = harness.interleaved(
        {
            "ours": lambda: sh.sparsemax(z, out=out),
            "torch": (lambda: torch.softmax(t, -1)) if torch else None,
        },
        arguments.rounds * 10,
    )
    table.add(f"sparsemax, {name}", times["ours"], "torch softmax", times.get("torch"), at_most=1.0)
    for work, call, other, target in (
        ("sparsemax", lambda: sh.sparsemax(z, out=out), "sparsemax", 60),
        ("entmax(alpha=1.5)", lambda: sh.entmax(z, 1.5, out=out), "entmax15", 40),
    ):
        theirs = getattr(entmax, other) if entmax and torch else None
        contenders = {"ours": call, "entmax": (lambda f=theirs: f(t, dim=-1)) if theirs else None}
        times = harness.interleaved(contenders, arguments.rounds)
        if theirs:
            call()
            assert np.abs(out - theirs(t, dim=-1).numpy()).max() < 1e-5, "the two do not compute the same"
        table.add(f"{work}, {name}", times["ours"], f"entmax.{other}", times.get("entmax"), faster=target)

    few = z[0, :8].copy()
    number = 2_000 if arguments.quick else 200_000
    each = [
        t / number * 1e6 for t in timeit.repeat(lambda: sh.sparsemax(few), number=number, repeat=2 * arguments.rounds)
    ]
    empty = [t / number * 1e6 for t in timeit.repeat(lambda: few, number=number, repeat=2 * arguments.rounds)]
    overhead = statistics.median(each) - statistics.median(empty)
    table.put(
        "call overhead, sparsemax of 8 numbers",
        f"{overhead:.3g} µs",
        "",
        "",
        None,
        "at most 1.5 µs",
        overhead <= 1.5,
        measured={"ours": each},
    )
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
