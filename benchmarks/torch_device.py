"""Plain torch on a device: the same results as the core on the CPU, and times beside torch's own operations.

python benchmarks/torch_device.py --output torch_device.json

It takes a GPU where there is one, else the CPU; `--device cpu` by force. First every map, structure, mask and option of
the association, the row maps, the losses and the layers are computed on the device and by the core, in float64 and
float32, with their gradients; a difference beyond rounding is printed, and the script ends with 1. Then come times, in
float32: a few minutes in all. The results of `torch.compile` are among both, but with --quick.
"""

import sys

import harness
import numpy as np

TOLERANCES = {"float64": 1e-9, "float32": 2e-4}  # of the largest number, or of 1; updates until rest have 1e-6 at best


def options(parser):
    """Add the device."""
    parser.add_argument("--device", help="of torch: cuda, mps, cpu, ...; by default the first that there is")


def device_of(arguments):
    """Return the device to measure, and its name."""
    import torch

    name = arguments.device or next((d for d in ("cuda", "xpu", "mps") if getattr(torch, d).is_available()), "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        return device, torch.cuda.get_device_name(device)
    return device, harness.processor() if device.type == "cpu" else name


def waiting(device, call):
    """Return a call that ends when the device has done its work."""
    import torch

    if device.type == "cpu":
        return call
    module = getattr(torch, device.type)

    def run():
        call()
        module.synchronize()

    return run


# --- the same results -------------------------------------------------------------------------------------------------


class Comparison:
    """Functions of tensors on the device and by the core, and where they differ."""

    def __init__(self, device, dtype, rng):
        self.device, self.dtype, self.rng, self.different, self.count = device, dtype, rng, [], 0

    def normal(self, *shape):
        """Return normal numbers of the dtype."""
        import torch

        return torch.from_numpy(self.rng.standard_normal(shape)).to(self.dtype)

    def compare(self, name, function, tensors, others=(), modules=(None, None), tolerance=1.0):
        """Compute `function(backend, module, *tensors, *others)` both ways, and its gradients by the tensors."""
        import torch

        found = []
        for device, backend, module in (
            (torch.device("cpu"), None, modules[0]),
            (self.device, "torch", modules[1]),
        ):
            given = [t.to(device).requires_grad_() for t in (t.detach().clone() for t in tensors)]
            out = function(backend, module, *given, *(None if t is None else t.to(device) for t in others))
            weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape).to(device)
            graded = given + ([] if module is None else [*module.parameters()])
            gradients = torch.autograd.grad((out * weight).sum(), graded, allow_unused=True)
            found.append(
                [out, *(torch.zeros_like(t) if d is None else d for t, d in zip(graded, gradients, strict=True))]
            )
        worst = 0.0
        for core, plain in zip(*found, strict=True):
            core, plain = (t.detach().cpu().double() for t in (core, plain))
            if core.numel():
                worst = max(worst, float((plain - core).abs().max() / core.abs().max().clamp_min(1)))
        self.count += 1
        if not worst <= tolerance * TOLERANCES[str(self.dtype).removeprefix("torch.")]:
            self.different.append(f"{name}, {self.dtype}: {worst:.2g}")


def compare_row_maps(comparison):
    """Compare the row maps and the losses."""
    import torch

    import sparsehopfield.torch as sht

    scores = comparison.normal(16, 33) * comparison.normal(16, 1).abs() * 3
    masked = torch.zeros(16, 33, dtype=torch.bool)
    masked[3], masked[4, 5:] = True, True
    target = torch.arange(16) % 33
    alpha = torch.linspace(1.1, 3, 16, dtype=comparison.dtype)[:, None]
    calls = {"softmax": sht.softmax, "sparsemax": sht.sparsemax}
    for a in (1.1, 1.5, 1.9, 2.5):
        calls[f"entmax {a}"] = lambda z, a=a, **k: sht.entmax(z, a, **k)
    for a in (1.5, 2.0, 3.0):
        calls[f"normmax {a}"] = lambda z, a=a, **k: sht.normmax(z, a, **k)
    for name, call in calls.items():
        comparison.compare(
            name, lambda b, _, z, m, call=call: call(z.masked_fill(m, -torch.inf), backend=b), [scores], [masked]
        )
    for call in (sht.entmax, sht.normmax):
        comparison.compare(
            f"{call.__name__}, learned", lambda b, _, z, a, call=call: call(z, a, backend=b), [scores, alpha]
        )
    for call in (sht.softmax_loss, sht.sparsemax_loss, sht.entmax_loss):
        comparison.compare(call.__name__, lambda b, _, z, y, call=call: call(z, y, backend=b), [scores], [target])


def compare_associations(comparison):
    """Compare the association with every map and option."""
    import torch

    import sparsehopfield.torch as sht
    from sparsehopfield import Entmax, Normmax, Polynomial, structures

    B, N, M, H, d = 2, 7, 9, 3, 5
    positions = [0, 3, 8, 2, 5, 7, 1]
    hidden = torch.from_numpy(comparison.rng.random((N, M)) < 0.3)
    padding = torch.from_numpy(comparison.rng.random((B, M)) < 0.3)
    forms = {
        "all": {},
        "bool mask": {"mask": hidden},
        "padding": {"padding_mask": padding},
        "dropout": {"dropout": 0.3, "seed": 2**40 + 1},
        "ragged": {"offsets": torch.tensor([0, 4, 4, 2 * M])},
        "one update": {"update_steps_max": 1},
        "three updates": {"update_steps_max": 3, "update_steps_eps": 0.0},
        "TopK": {"structure": structures.TopK(4)},
        "Window": {"structure": structures.Window(2, positions=positions)},
        "RandomMask": {"structure": structures.RandomMask(4, seed=1)},
        "BlockSparse": {"structure": structures.BlockSparse(np.tri(7, 3, dtype=bool), (1, 3))},
        "DilatedBlocks": {"structure": structures.DilatedBlocks(4, 2, positions=positions)},
        "appended": {"structure": structures.Window(1, positions=[0, 1, 2, 3, 4, 5, 6]), "appended": 2},
        "LinearFeatures": {"structure": structures.LinearFeatures()},
        "RandomFeatures": {"structure": structures.RandomFeatures(16)},
    }
    beta = torch.tensor([0.5, 1.0, 1.5], dtype=comparison.dtype)
    maps = ["softmax", "sparsemax", "entmax15", Entmax(1.3), Entmax(2.5), Normmax(2.0), Polynomial(2)]
    for name, given in forms.items():
        samples = 3 if name == "ragged" else B
        lead = (2 * M,) if name == "ragged" else (B, M)
        tensors = [
            comparison.normal(samples, N, H, d),
            comparison.normal(*lead, H, d),
            comparison.normal(*lead, 1, 4),
            beta,
        ]
        masks = [given.get(key) for key in ("mask", "padding_mask", "offsets")]
        rest = {k: v for k, v in given.items() if k not in ("mask", "padding_mask", "offsets")}
        for separation in maps[:1] if name.endswith("Features") else maps:

            def call(backend, _, q, k, v, b, mask, padding, offsets, separation=separation, rest=rest):
                masks = {"mask": mask, "padding_mask": padding, "offsets": offsets}
                return sht.associate(q, k, v, b, separation=separation, backend=backend, **masks, **rest)

            steep = separation in (Entmax(2.5), Polynomial(2)) and comparison.dtype == torch.float32
            comparison.compare(f"{name}, {separation}", call, tensors, masks, tolerance=50.0 if steep else 1.0)
    if comparison.dtype == torch.float64:  # where updates end is only as sure as the tolerance that ends them
        for gradient in ("unrolled", "implicit"):
            comparison.compare(
                f"until rest, {gradient}",
                lambda backend, _, q, k, v, gradient=gradient: sht.associate(
                    q,
                    k,
                    v,
                    0.3,
                    separation="softmax",
                    update_steps_max=None,
                    update_steps_eps=1e-11,
                    gradient=gradient,
                    backend=backend,
                ),
                [comparison.normal(B, N, H, d), comparison.normal(B, M, H, d), comparison.normal(B, M, 1, 4)],
                tolerance=1e3,
            )


def compare_layers(comparison):
    """Compare the layers."""
    import copy

    import torch

    import sparsehopfield.torch as sht

    makers = {
        "Hopfield": lambda **k: sht.Hopfield(input_size=6, num_heads=2, **k),
        "HopfieldPooling": lambda **k: sht.HopfieldPooling(input_size=6, num_heads=2, quantity=2, **k),
        "HopfieldLayer": lambda **k: sht.HopfieldLayer(input_size=6, num_heads=2, quantity=5, **k),
    }
    for name, make in makers.items():
        for separation in ("softmax", "sparsemax"):
            for steps in (0, 2):
                torch.manual_seed(0)
                own = make(separation=separation, update_steps_max=steps, update_steps_eps=1e-30).to(comparison.dtype)
                other = copy.deepcopy(own).to(comparison.device)
                if comparison.device.type == "cpu":
                    other = make(
                        separation=separation, update_steps_max=steps, update_steps_eps=1e-30, backend="torch"
                    ).to(comparison.dtype)
                    other.load_state_dict(own.state_dict())
                comparison.compare(
                    f"{name}, {separation}, {steps} updates",
                    lambda _, module, x: module(x),
                    [comparison.normal(3, 8, 6)],
                    modules=(own, other),
                )


def compare_all(device):
    """Compare everything; return how much was, and what differs."""
    import torch

    count, different = 0, []
    for dtype in (torch.float64, torch.float32):
        if dtype == torch.float64 and device.type == "mps":  # which has none
            continue
        comparison = Comparison(device, dtype, np.random.default_rng(0))
        for compare in (compare_row_maps, compare_associations, compare_layers):
            compare(comparison)
        count += comparison.count
        different += comparison.different
    return count, different


# --- times ------------------------------------------------------------------------------------------------------------


def training(device, function, tensors):
    """Return forward and backward passes of a function as one call."""
    import torch

    given = [t.to(device).requires_grad_() for t in tensors]
    with torch.no_grad():
        weight = torch.ones_like(function(*given))

    def run():
        torch.autograd.grad(function(*given), given, weight)

    return waiting(device, run)


def measure_row_maps(table, arguments, device):
    """Time the row maps against entmax."""
    import torch

    import sparsehopfield.torch as sht

    entmax = harness.peer("entmax")
    backend = "torch" if device.type == "cpu" else None
    shape = (256, 512) if arguments.quick else (4096, 1024)
    for scale, word in ((0.1, "weak"), (5.0, "sharp")):
        z = [torch.randn(shape) * scale]
        for name, ours, theirs in (
            ("sparsemax", lambda z: sht.sparsemax(z, backend=backend), "sparsemax"),
            ("entmax15", lambda z: sht.entmax(z, backend=backend), "entmax15"),
            ("entmax 1.3", lambda z: sht.entmax(z, 1.3, backend=backend), "entmax_bisect"),
        ):
            peer = getattr(entmax, theirs) if entmax else None
            if peer and theirs == "entmax_bisect":
                peer = lambda z, peer=peer: peer(z, 1.3)  # noqa: E731
            contenders = {
                "ours": training(device, ours, z),
                "entmax": training(device, peer, z) if peer else None,
                "softmax": training(device, lambda z: torch.softmax(z, -1), z),
            }
            times = harness.interleaved(contenders, arguments.rounds)
            work = f"{name}, {shape[0]} x {shape[1]}, {word}"
            table.add(work, times["ours"], f"entmax.{theirs}", times.get("entmax"), faster=0.7, aim=1)
            table.add(work, times["ours"], "torch.softmax", times["softmax"])


def measure_attention(table, arguments, device):
    """Time attention against torch's own, and an entmax chain."""
    import torch

    import sparsehopfield.torch as sht

    entmax = harness.peer("entmax")
    backend = "torch" if device.type == "cpu" else None
    shape = (1, 2, 128, 64) if arguments.quick else (4, 8, 1024, 64)
    qkv = [torch.randn(shape) for _ in range(3)]
    fused = training(device, torch.nn.functional.scaled_dot_product_attention, qkv)

    def chain(q, k, v):
        return entmax.sparsemax(q @ k.mT / 8, dim=-1) @ v

    for separation in ("softmax", "sparsemax", "entmax15"):
        for steps in (0, 3):

            def ours(q, k, v, separation=separation, steps=steps):
                return sht.hopfield_attention(q, k, v, separation=separation, update_steps_max=steps, backend=backend)

            contenders = {"ours": training(device, ours, qkv), "fused": fused}
            if entmax and separation == "sparsemax" and not steps:
                contenders["chain"] = training(device, chain, qkv)
            if not arguments.quick and not steps:
                contenders["compiled"] = training(device, torch.compile(ours), qkv)
            times = harness.interleaved(contenders, arguments.rounds)
            work = f"attention {' x '.join(map(str, shape))}, {separation}, {steps} updates"
            table.add(work, times["ours"], "fused attention, softmax", times["fused"])
            if "chain" in times:
                table.add(work, times["ours"], "a chain with entmax", times["chain"], faster=0.7, aim=1)
            if "compiled" in times:
                table.add(f"{work}, compiled", times["compiled"], "fused attention, softmax", times["fused"])


def measure_layers(table, arguments, device):
    """Time the layers on the device and, where that is another, by the core on the CPU."""
    import copy

    import torch

    import sparsehopfield.torch as sht

    shape = (8, 50, 4) if arguments.quick else (128, 300, 4)
    layer = sht.HopfieldPooling(input_size=4, hidden_size=8, num_heads=8, update_steps_max=3, separation="sparsemax")
    there = sht.HopfieldPooling(
        input_size=4, hidden_size=8, num_heads=8, update_steps_max=3, separation="sparsemax", backend="torch"
    )
    there.load_state_dict(layer.state_dict())
    there = there.to(device)
    here = copy.deepcopy(layer)
    x = [torch.randn(shape)]
    contenders = {
        "there": training(device, there, x),
        "here": training(torch.device("cpu"), here, x),
    }
    times = harness.interleaved(contenders, arguments.rounds)
    table.add(f"pooling {' x '.join(map(str, shape))}, sparsemax", times["there"], "the core on the CPU", times["here"])


def main():
    """Compare, measure and print."""
    arguments = harness.start(__doc__.splitlines()[0], options)
    config = harness.set_up(arguments)
    device, name = device_of(arguments)
    config["device"] = name
    print(f"device           {device}: {name}\n")
    count, different = compare_all(device)
    print(f"{count} comparisons with the core, {len(different)} different")
    for line in different:
        print(f"DIFFERENT: {line}")
    print(flush=True)
    table = harness.Table(config)
    for measure in (measure_row_maps, measure_attention, measure_layers):
        measure(table, arguments, device)
    table.finish(arguments.output)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
