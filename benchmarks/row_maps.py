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

    # Forward and backward, from weak scores, whose supports are wide, to sharp ones.
    g = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    dz = np.empty_like(z)
    for scores, scale in (("weak", 0.05), ("normal", 1), ("sharp", 5)):
        scaled = z * np.float32(scale)
        leaf = torch.from_numpy(scaled).requires_grad_() if torch else None
        for alpha, other in ((2.0, "sparsemax"), (1.5, "entmax15")):
            theirs = getattr(entmax, other) if entmax and torch else None

            def ours(scaled=scaled, alpha=alpha):
                sh.entmax_vjp(sh.entmax(scaled, alpha, out=out), g, alpha, out=dz)

            def peer(leaf=leaf, theirs=theirs):
                leaf.grad = None
                theirs(leaf, dim=-1).backward(torch.from_numpy(g))

            times = harness.interleaved({"ours": ours, "entmax": peer if theirs else None}, arguments.rounds)
            if theirs:
                ours()
                assert np.abs(dz - leaf.grad.numpy()).max() < 1e-4, "the two do not compute the same"
            work = f"{other} forward and backward, {scores} scores, {name}"
            table.add(work, times["ours"], f"entmax.{other}", times.get("entmax"), faster=15)

    # Losses with their gradient, from scores whose supports are wide, as before training, to sharp ones.
    classes = np.random.default_rng(2).integers(0, shape[1], shape[0])
    for scores, scale in (("weak", 0.05), ("normal", 1), ("sharp", 5)):
        scaled = z * np.float32(scale)
        leaf = torch.from_numpy(scaled).requires_grad_() if torch else None
        for alpha, other in ((2.0, "sparsemax_loss"), (1.5, "entmax15_loss"), (1.0, "cross_entropy")):
            where = entmax if alpha > 1 else torch and torch.nn.functional
            theirs = getattr(where, other) if where and torch else None

            def ours(scaled=scaled, alpha=alpha):
                return sh.entmax_loss(scaled, classes, alpha, reduction="mean", return_gradient=True)

            def peer(leaf=leaf, theirs=theirs):
                leaf.grad = None
                loss = theirs(leaf, torch.from_numpy(classes)).mean()
                loss.backward()
                return loss.item()

            times = harness.interleaved({"ours": ours, "theirs": peer if theirs else None}, arguments.rounds)
            if theirs:
                (loss, gradient), other_loss = ours(), peer()
                assert abs(loss - other_loss) < 1e-5 * max(1, loss), "the two do not compute the same"
                assert np.abs(gradient - leaf.grad.numpy()).max() < 1e-6, "the two do not compute the same"
            work = f"{'softmax_loss' if alpha == 1 else other} with its gradient, {scores} scores, {name}"
            package = "torch" if alpha == 1 else "entmax"
            table.add(work, times["ours"], f"{package}.{other}", times.get("theirs"))

    # Wide supports beside the same map's sparse ones: where powers are taken of every score, they are what is left.
    for dtype in (np.float32, np.float64):
        for row_map, alphas in ((sh.entmax, (1.1, 1.25, 1.5, 1.75, 1.9, 2.0, 3.0)), (sh.normmax, (1.5, 2.0, 3.0))):
            back = getattr(sh, f"{row_map.__name__}_vjp")
            for alpha in alphas:
                rows = len(z) // 16
                sparse, wide = (z[:rows].astype(dtype) * scale for scale in (16 if alpha < 1.5 else 4, 1e-3))
                gradient = g[:rows].astype(dtype)

                def both(scores, row_map=row_map, back=back, gradient=gradient, alpha=alpha):
                    return back(row_map(scores, alpha), gradient, alpha)

                calls = {"wide": lambda wide=wide, both=both: both(wide), "sparse": lambda z=sparse, f=both: f(z)}
                times = harness.interleaved(calls, arguments.rounds)
                work = f"{row_map.__name__}({alpha}) forward and backward of wide supports, {dtype.__name__}"
                table.add(work, times["wide"], "its own sparse ones", times["sparse"])

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
