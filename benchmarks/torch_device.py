"""Plain torch on a device: whether it computes what the core does, whether it waits for the device, and how fast it is.

python benchmarks/torch_device.py --hflayers path/of/hopfield-layers --output torch_device.json

It takes the cases of tests/pytorch: associations of every map and form, and hflayers' random configurations, forward
and backward in float64 beside the core on the CPU; row maps and losses. Then, on CUDA, passes in which nothing may wait
for the device. Then training steps in float32 beside hflayers, attention beside torch's fused one, eager and compiled,
and row maps beside entmax, with the memory of the device at its peak. At most ten minutes. It takes a GPU where there
is one, else plain torch on the CPU, and ends with 1 where results differ or a pass waits.
"""

import contextlib
import functools
import statistics
import sys
import time
from pathlib import Path

import harness
from torch_layers import SELF, Peers, sharpen

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "pytorch"))


def options(parser):
    """Add the options for the device, the peer and single parts."""
    parser.add_argument("--device", help="torch's name of it: cuda, mps, cpu (default: the first that there is)")
    parser.add_argument("--hflayers", help="folder of its repository, which is not on PyPI")
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS], help="parts to run (default: all)")


def device_there():
    """Return the name of the first device that there is."""
    import torch

    return next((name for name in ("cuda", "xpu", "mps") if getattr(torch, name).is_available()), "cpu")


def moved(tensors, device):
    """Return tensors on a device, as leaves with gradients where they are of floating numbers."""
    return [
        t if t is None else t.detach().to(device).requires_grad_(t.is_floating_point() and t.requires_grad)
        for t in tensors
    ]


def difference(found, want):
    """Return the largest difference, relative to 1 and the numbers wanted."""
    return max(
        (float(((a.cpu() - b).abs() / (1 + b.abs())).max()) for a, b in zip(found, want, strict=True) if b.numel()),
        default=0.0,
    )


def passes(call, tensors, seed=0):
    """Return the output of a call and the gradients of the tensors that ask for one."""
    import torch

    out = call()
    asked = [t for t in tensors if t is not None and t.requires_grad]
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=out.dtype).to(out.device)
    grads = torch.autograd.grad(out, asked, grad, allow_unused=True)
    return [out.detach(), *(torch.zeros_like(t) if g is None else g for t, g in zip(asked, grads, strict=True))]


def report(table, work, errors, limit):
    """Add a row: the worst of some differences, and of how many."""
    worst = max(errors.values())
    table.failed |= not worst <= limit
    note = "" if worst <= limit else f"worst: {max(errors, key=errors.get)}"
    table.put(
        f"{work}, {len(errors)} cases", f"{worst:.1e}", "the core", "", None, f"at most {limit:g}", worst <= limit, note
    )


def associations(table, arguments, peers):
    """Compare associations of every map and form, with and without updates."""
    import association_cases as cases

    from sparsehopfield.torch import _operators, _plain

    errors = {}
    for separation in cases.MAPS:
        for form in cases.FORMS:
            for steps in (0, 2):
                if not cases.is_valid(separation, form, steps):
                    continue
                given, chosen = cases.association(separation, form, steps, eps=1e-300)
                given = cases.with_gradients(given)
                there = type(given)(*moved(given, arguments.device))
                try:
                    found = passes(lambda t=there, o=chosen: _plain.associate(t, o), there)
                except (ValueError, NotImplementedError) as error:
                    print(f"left out: {separation}, {form}: {error}")
                    continue
                want = passes(lambda t=given, o=chosen: _operators.associate(t, o, "core"), given)
                errors[f"{separation}, {form}, {steps} more"] = difference(found, want)
    report(table, "associations and gradients", errors, 1e-9)


def modules(table, arguments, peers):
    """Compare modules in the random configurations of hflayers, whose numbers the tests keep."""
    import make_golden as golden

    import sparsehopfield.torch as sht

    errors = {}
    for number in range(0, golden.CONFIGURATIONS, 12 if arguments.quick else 1):
        c = golden.configuration(number)
        if not c.forward:
            continue
        results = []
        for device, backend in (("cpu", "core"), (arguments.device, "torch")):
            layer = golden.fill(golden.make(sht, c, backend=backend), c).to(device)
            xs, masks = golden.inputs(c)
            xs, masks = moved(xs, device), {name: m.to(device) for name, m in masks.items()}
            call = functools.partial(layer, *golden.arguments(c, xs), **masks)
            results.append(passes(call, [*xs, *layer.parameters()]))
        errors[f"number {number}"] = difference(results[1], results[0])
    report(table, "modules and gradients", errors, 1e-8)


def maps(table, arguments, peers):
    """Compare row maps and losses."""
    import torch

    import sparsehopfield.torch as sht

    torch.manual_seed(0)
    z, classes = torch.randn(200, 300, dtype=torch.float64, requires_grad=True), torch.randint(300, (200,))
    calls = {
        "softmax": sht.softmax,
        "sparsemax": sht.sparsemax,
        **{f"entmax {a}": functools.partial(sht.entmax, alpha=a) for a in (1.2, 1.5, 3.0)},
        **{f"normmax {a}": functools.partial(sht.normmax, alpha=a) for a in (1.5, 2.0)},
    }
    losses = {"softmax_loss": sht.softmax_loss, "sparsemax_loss": sht.sparsemax_loss}
    losses["entmax_loss"] = functools.partial(sht.entmax_loss, alpha=1.5)
    errors = {}
    for name, call in {**calls, **losses}.items():
        rest = (classes,) if name in losses else ()
        want = passes(lambda f=call, r=rest: f(z, *r), [z])
        (there,) = moved([z], arguments.device)
        given = [t.to(arguments.device) for t in rest]
        found = passes(lambda f=call, t=there, r=given: f(t, *r, backend="torch"), [there])
        errors[name] = difference(found, want)
    report(table, "row maps, losses and gradients", errors, 1e-9)


def waits(table, arguments, peers):
    """Have every wait for the device raise, while layers compute forward and backward."""
    import torch

    import sparsehopfield.torch as sht

    if not arguments.device.startswith("cuda"):
        print("waits: torch tells of them on CUDA alone")
        return
    x = torch.randn(4, 64, 64, device=arguments.device)
    grad, failed = torch.randn_like(x), []
    for separation in ("softmax", "sparsemax", "entmax15"):
        for steps in (0, 3):
            layer = sht.Hopfield(**SELF, separation=separation, update_steps_max=steps).to(arguments.device)
            layer(x).backward(grad)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                layer(x).backward(grad)
            except RuntimeError as error:
                failed.append(f"{separation}, {steps} more: {str(error).splitlines()[0]}")
            finally:
                torch.cuda.set_sync_debug_mode("default")
    words = "; ".join(failed)
    table.failed |= bool(failed)
    table.put("passes that wait for the device", str(len(failed)), "", "", None, "none", not failed, words)


def timer(device):
    """Return what waits until a device has done all that it was given."""
    import torch

    kind = torch.device(device).type
    return getattr(torch, kind).synchronize if kind in ("cuda", "mps", "xpu") else lambda: None


class Passes:
    """Calls on a device as one contender: the mean time of one, the device idle before and after."""

    def __init__(self, call, device, seconds=0.2):
        self.call, self.wait, self.least = call, timer(device), seconds

    def seconds(self):
        """Time calls."""
        self.wait()
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < self.least or not count:
            self.call()
            count += 1
            if count % 8 == 0:
                self.wait()
        self.wait()
        return (time.perf_counter() - began) / count


def training(layer, x, around=contextlib.nullcontext):
    """Return a training step."""
    import torch

    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], lr=1e-9)

    def step():
        with around():
            optimizer.zero_grad()
            layer(x).sum().backward()
            optimizer.step()

    return step


def peak(call, device):
    """Return how many MiB the device takes at most beyond what it has, where torch tells."""
    import torch

    if not device.startswith("cuda"):
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def beside(table, arguments, work, calls, peer_name):
    """Add a row: ours beside the peer, in time, and in memory as a note."""
    contenders = {name: Passes(call, arguments.device) for name, call in calls.items() if call}
    times = harness.interleaved(contenders, arguments.rounds)
    taken = {name: peak(calls[name], arguments.device) for name in times}
    note = "" if None in taken.values() else "peak " + ", ".join(f"{name} {m:.0f} MiB" for name, m in taken.items())
    table.add(work, times["ours"], peer_name, times.get("peer"), faster=0.7, aim=1, note=note)
    return statistics.median(times["ours"])


def times(table, arguments, peers):
    """Time training steps, attention and row maps in float32."""
    import torch

    import sparsehopfield.torch as sht

    device = arguments.device
    shrunk = 8 if arguments.quick else 1
    sizes = {
        "pooling 128 x 300 x 4": (
            "HopfieldPooling",
            {"input_size": 4, "hidden_size": 8, "num_heads": 8, "update_steps_max": 3, "dropout": 0.1},
            (128 // shrunk, 300, 4),
        ),
        "self 16 x 256 x 64, one step": ("Hopfield", SELF, (16 // shrunk, 256, 64)),
        "self 16 x 256 x 64, 3 more": ("Hopfield", {**SELF, "update_steps_max": 3}, (16 // shrunk, 256, 64)),
        "lookup 1,000 x 64, 128 queries": (
            "HopfieldLayer",
            {"input_size": 64, "quantity": 1000},
            (128 // shrunk, 1, 64),
        ),
    }
    for work, (kind, chosen, shape) in sizes.items():
        torch.manual_seed(0)
        x = torch.randn(shape, device=device)
        for separation in ("softmax", "sparsemax"):
            layer = getattr(sht, kind)(**chosen, separation=separation, backend="torch")
            sharpen(layer, 0.25)
            calls, name = {"ours": training(layer.to(device), x), "peer": None}, "hflayers"
            if separation in peers.classes():
                name, around = peers.classes()[separation]
                theirs = getattr(peers.hflayers, kind)(**chosen)
                theirs.load_state_dict(layer.state_dict())
                calls["peer"] = training(theirs.to(device), x, around)
            beside(table, arguments, f"{work}, {separation}", calls, name)

    shape = (4, 8, 1024 // shrunk, 64)
    tensors = [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]
    grad = torch.randn(shape, device=device)

    def both(call, *given, grad=grad):
        return lambda: torch.autograd.grad(call(*given), given, grad)

    fused = both(torch.nn.functional.scaled_dot_product_attention, *tensors)
    for separation in ("softmax", "sparsemax"):
        ours = functools.partial(sht.hopfield_attention, separation=separation, backend="torch")
        calls = {"ours": both(ours, *tensors), "peer": fused}
        work = f"attention 4 x 8 x 1024 x 64, {separation}"
        beside(table, arguments, work, calls, "fused attention (softmax)")
        if not arguments.quick:
            calls["ours"] = both(torch.compile(ours), *tensors)
            beside(table, arguments, f"{work}, compiled", calls, "fused attention (softmax)")

    z, g = (torch.randn(4096 // shrunk, 1024, device=device, requires_grad=r) for r in (True, False))
    for work, ours, name in (
        ("sparsemax", functools.partial(sht.sparsemax, backend="torch"), "sparsemax"),
        ("entmax, alpha 1.5", functools.partial(sht.entmax, alpha=1.5, backend="torch"), "entmax15"),
    ):
        theirs = both(functools.partial(getattr(peers.entmax, name), dim=-1), z, grad=g) if peers.entmax else None
        beside(
            table,
            arguments,
            f"{work} of 4096 x 1024",
            {"ours": both(ours, z, grad=g), "peer": theirs},
            f"entmax.{name}",
        )


PARTS = {"associations": associations, "modules": modules, "maps": maps, "waits": waits, "times": times}


def main():
    """Compare, measure and print."""
    arguments = harness.start(__doc__.splitlines()[0], options)
    peers = Peers(arguments.hflayers)
    config = harness.set_up(arguments)
    if config["torch"] is None:
        raise SystemExit("PyTorch is what this measures: pip install sparsehopfield[torch]")
    import torch

    arguments.device = arguments.device or device_there()
    kind = torch.device(arguments.device).type
    name = torch.cuda.get_device_name(arguments.device) if kind == "cuda" else kind
    print(f"device           {name}\n")
    table = harness.Table(config | {"device": name})
    table.failed = 0
    for part in arguments.only:
        PARTS[part](table, arguments, peers)
    table.finish(arguments.output)
    sys.exit(table.failed)


if __name__ == "__main__":
    main()
