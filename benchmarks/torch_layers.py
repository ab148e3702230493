"""The PyTorch layers against hflayers and entmax: forward, backward and optimiser step.

python benchmarks/torch_layers.py --hflayers path/of/hopfield-layers --output torch_layers.json

hflayers is not on PyPI (github.com/ml-jku/hopfield-layers); where it is neither at `--hflayers` nor importable, its
columns are left out. It runs as it is; for sparsemax, `entmax.sparsemax` stands where it calls softmax. Both sides
hold the same weights, see the same input, and are trained by torch's fused AdamW. "Weak": scores of fresh weights;
"sharp": those of weights as training makes them, with small supports. "Plain" is the route that runs on every device
(`backend="torch"`), here on the CPU.
"""

import contextlib
import os
import subprocess
import sys
import types

import harness
import numpy as np
from layers import Training


def options(parser):
    """Add the options for hflayers and for single rows."""
    parser.add_argument("--hflayers", help="folder of its repository, which is not on PyPI")
    parser.add_argument("--only", nargs="+", choices=[*ROWS], default=[*ROWS], help="rows to measure (default: all)")


class Peers:
    """hflayers, and hflayers with entmax's sparsemax for softmax, where they are there."""

    def __init__(self, folder):
        if folder:
            sys.path.insert(0, folder)
        self.hflayers, self.entmax = harness.peer("hflayers"), harness.peer("entmax")

    def classes(self):
        """Return the peers' names, each with what makes hflayers compute that map while it lasts."""
        if self.hflayers is None:
            return {}
        found = {"softmax": ("hflayers", contextlib.nullcontext)}
        if self.entmax is not None:
            found["sparsemax"] = ("hflayers + entmax", self._sparse)
        return found

    @contextlib.contextmanager
    def _sparse(self):
        """Let hflayers call `entmax.sparsemax` where it calls softmax."""
        functional = sys.modules["hflayers.functional"]
        own = functional.nn
        changed = types.SimpleNamespace(**vars(own.functional) | {"softmax": self.entmax.sparsemax})
        functional.nn = types.SimpleNamespace(functional=changed)
        try:
            yield
        finally:
            functional.nn = own


def training(layer, x, around=contextlib.nullcontext):
    """Return training steps of a module as one contender."""
    import torch

    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], lr=1e-9, fused=True)

    def step():
        with around():
            optimizer.zero_grad()
            layer(x).sum().backward()
            optimizer.step()

    return Training(step, 1, 0.1)


def sharpen(layer, std):
    """Widen projections, as training does: every update is made, supports are small."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for name, p in layer.named_parameters():
        if name.endswith("in_proj_weight"):
            torch.nn.init.normal_(p, 0, std, generator=generator)
        elif name.endswith(("pooling_weights", "lookup_weights")):
            torch.nn.init.normal_(p, generator=generator)


def layer_rows(table, arguments, peers, work, kind, sizes, shape, std, must, aim):
    """Add the rows of one layer, with weak and sharp scores: both maps, the core and the plain route."""
    import torch

    import sparsehopfield.torch as sht

    torch.manual_seed(0)
    x = torch.randint(0, 2, shape).float() if shape[-1] == 4 else torch.randn(shape)
    for word, wide in (("weak", None), ("sharp", std)):
        contenders, names = {}, {}
        for separation in ("softmax", "sparsemax"):
            made = {}
            for name, backend in (("ours", None), ("plain", "torch")):
                made[name] = getattr(sht, kind)(**sizes, separation=separation, backend=backend)
                if wide:
                    sharpen(made[name], wide)
                made[name].load_state_dict(made["ours"].state_dict())
                contenders[name, separation] = training(made[name], x)
            if separation not in peers.classes():
                continue
            names[separation], around = peers.classes()[separation]
            theirs = getattr(peers.hflayers, kind)(**sizes)
            theirs.load_state_dict(made["ours"].state_dict())
            with around(), torch.no_grad():
                want = theirs.eval()(x)
            for layer in made.values():
                found = layer.eval()(x).detach()
                assert (found - want).abs().max() < 1e-3 * (1 + want.abs().max()), "the two do not compute the same"
                layer.train()
            contenders["peer", separation] = training(theirs.train(), x, around)
        times = harness.interleaved(contenders, arguments.rounds)
        for i, separation in enumerate(("softmax", "sparsemax")):
            name, theirs = names.get(separation, "hflayers"), times.get(("peer", separation))
            row = f"{work}, {word}, {separation}"
            table.add(row, times["ours", separation], name, theirs, faster=must[i], aim=aim[i])
            table.add(f"{row}, plain", times["plain", separation], name, theirs, faster=0.7, aim=1)


def pooling(table, arguments, peers):
    """Pooling of many small bags, and of few bags of many features."""
    sizes = {"input_size": 4, "hidden_size": 8, "num_heads": 8, "update_steps_max": 3, "dropout": 0.1}
    shape = (16, 100, 4) if arguments.quick else (128, 300, 4)
    layer_rows(
        table, arguments, peers, "pooling 128 x 300 x 4", "HopfieldPooling", sizes, shape, 0.7, (35, 70), (60, 120)
    )
    sizes = {"input_size": 230, "hidden_size": 32, "num_heads": 8, "update_steps_max": 3}
    shape = (4, 30, 230)
    layer_rows(table, arguments, peers, "pooling 4 x 30 x 230", "HopfieldPooling", sizes, shape, 0.3, (3, 3), (5, 5))


SELF = {"input_size": 64, "hidden_size": 16, "num_heads": 4}


def self_association(table, arguments, peers):
    """Self-association, one step and three more."""
    shape = (2, 64, 64) if arguments.quick else (16, 256, 64)
    for steps, word, must, aim in ((0, "one step", (2.3, 18), (3.3, 35)), (3, "3 more", (8, 25), (12, 60))):
        sizes = {**SELF, "update_steps_max": steps}
        layer_rows(table, arguments, peers, f"self 16 x 256 x 64, {word}", "Hopfield", sizes, shape, 0.25, must, aim)


def lookup(table, arguments, peers):
    """A lookup among stored patterns, which hflayers copies for every sample."""
    stored, batch = (100, 16) if arguments.quick else (1000, 128)
    sizes, shape = {"input_size": 64, "quantity": stored}, (batch, 1, 64)
    layer_rows(
        table, arguments, peers, "lookup 1,000 x 64, 128 queries", "HopfieldLayer", sizes, shape, 0.25, (70,) * 2,
        (150,) * 2,
    )  # fmt: skip


def both_passes(call, grad, *tensors, **options):
    """Return forward and backward passes of a function as one contender."""
    import torch

    tensors = [t.clone().requires_grad_() for t in tensors]

    def step():
        torch.autograd.grad(call(*tensors, **options), tensors, grad)

    return Training(step, 1, 0.1)


def attention(table, arguments, peers):
    """Attention beside torch's fused one."""
    import torch

    import sparsehopfield.torch as sht

    shape = (2, 2, 128, 64) if arguments.quick else (4, 8, 1024, 64)
    torch.manual_seed(0)
    tensors = [torch.randn(shape) for _ in range(4)]
    contenders = {"fused": both_passes(torch.nn.functional.scaled_dot_product_attention, *tensors)}
    for separation in ("softmax", "sparsemax"):
        contenders[separation] = both_passes(sht.hopfield_attention, *tensors, separation=separation)
    times = harness.interleaved(contenders, arguments.rounds)
    for separation, must, aim in (("softmax", 1.6, 2), ("sparsemax", 5, 8)):
        work = f"attention 4 x 8 x 1024 x 64, {separation}"
        table.add(work, times[separation], "fused attention (softmax)", times["fused"], faster=must, aim=aim)


def row_maps(table, arguments, peers):
    """Row maps, forward and backward."""
    import torch

    import sparsehopfield.torch as sht

    shape = (256, 1024) if arguments.quick else (4096, 1024)
    torch.manual_seed(0)
    grad, z = torch.randn(shape), torch.randn(shape)
    for work, ours, theirs, alpha in (
        ("sparsemax", sht.sparsemax, "sparsemax", {}),
        ("entmax, alpha 1.5", sht.entmax, "entmax15", {"alpha": 1.5}),
    ):
        contenders = {"ours": both_passes(ours, grad, z, **alpha, dim=-1)}
        if peers.entmax:
            contenders["entmax"] = both_passes(getattr(peers.entmax, theirs), grad, z, dim=-1)
        times = harness.interleaved(contenders, arguments.rounds)
        table.add(f"{work} of 4096 x 1024", times["ours"], f"entmax.{theirs}", times.get("entmax"), faster=15, aim=25)


def passes_of_numpy(layer, x):
    """Return forward and backward passes of a NumPy layer as one contender."""
    ones = np.ones_like(layer.forward(x))

    def step():
        layer.zero_grad()
        layer.forward(x, train=True)
        layer.backward(ones, need_input_grad=False)

    return Training(step, 1, 0.1)


def passes(layer, x):
    """Return the same of a module."""
    import torch

    ones = torch.ones_like(layer(x))

    def step():
        layer.zero_grad()
        layer(x).backward(ones)

    return Training(step, 1, 0.1)


def beside_numpy(table, arguments, peers):
    """The bridge: what a step of a tiny layer takes beyond the NumPy layer's; and large layers beside theirs."""
    import torch

    import sparsehopfield.torch as sht
    from sparsehopfield import layers

    def both(kind, sizes, shape, rounds):
        x = torch.randn(shape)
        module = getattr(sht, kind)(**sizes)
        layer = getattr(layers, kind)(**sizes, random_state=0)
        layer.load_state_dict({name: p.detach().numpy() for name, p in module.named_parameters()})
        contenders = {"ours": passes(module, x), "NumPy": passes_of_numpy(layer, x.numpy())}
        return harness.interleaved(contenders, rounds)

    times = both("HopfieldPooling", {"input_size": 4, "num_heads": 2}, (2, 5, 4), arguments.rounds * 2)
    beyond = [1e3 * (a - b) for a, b in zip(times["ours"], times["NumPy"], strict=True)]
    cost = float(np.median(beyond))
    table.put(
        "the bridge: forward and backward of a tiny pooling",
        f"{cost:.3f} ms",
        "beyond the NumPy layer's",
        f"{np.median(times['NumPy']) * 1e3:.3f} ms",
        None,
        "at most 0.3 ms",
        cost <= 0.3,
        measured={"ours": times["ours"], "theirs": times["NumPy"]},
        aim=0.15,
        aim_met=cost <= 0.15,
    )
    shape = (2, 64, 64) if arguments.quick else (16, 256, 64)
    for separation in ("softmax", "sparsemax"):
        for steps in (0, 3):
            sizes = {**SELF, "update_steps_max": steps, "separation": separation}
            times = both("Hopfield", sizes, shape, arguments.rounds)
            work = f"self 16 x 256 x 64, {steps} more, {separation}, both passes"
            table.add(work, times["ours"], "the NumPy layer", times["NumPy"], at_most=1.15, aim=1.05)


HELD = """
import os, sys
import torch
module, arguments, shape, threads = sys.argv[1], eval(sys.argv[2]), eval(sys.argv[3]), int(sys.argv[4])
if module == "hflayers":
    from hflayers import Hopfield
else:
    import sparsehopfield
    from sparsehopfield.torch import Hopfield
    sparsehopfield.set_num_threads(threads)
torch.set_num_threads(threads)
torch.manual_seed(0)
layer, x = Hopfield(**arguments), torch.randn(shape)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

for _ in range(3):  # libraries, threads and their buffers
    layer(x).sum().backward()
held = [layer(x)]
before = resident()
held += [layer(x) for _ in range(4)]
print((resident() - before) / 4)
"""


def memory(table, arguments, peers):
    """Measure what a forward pass holds until its backward pass: how much the process grows with each of several."""
    shape = (2, 64, 64) if arguments.quick else (16, 256, 64)
    # large allocations are mappings of their own then, so that what is free is given back
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": os.pathsep.join(sys.path)}

    def held(module, **more):
        sizes = {**SELF, "update_steps_max": 3, **more}
        command = [sys.executable, "-c", HELD, module, repr(sizes), repr(shape), str(arguments.threads)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return float(done.stdout) / 2**20

    theirs = held("hflayers") if peers.hflayers else None
    for separation in ("softmax", "sparsemax"):
        ours = held("sparsehopfield", separation=separation)
        times = None if theirs is None else theirs / ours
        table.put(
            f"self 16 x 256 x 64, 3 more, {separation}: memory held",
            f"{ours:.1f} MiB",
            "hflayers (softmax)",
            "not there" if theirs is None else f"{theirs:.0f} MiB",
            times,
            "10 x less",
            None if times is None else times >= 10,
            aim=20,
            aim_met=None if times is None else times >= 20,
        )


ROWS = {
    "pooling": pooling,
    "self": self_association,
    "lookup": lookup,
    "attention": attention,
    "maps": row_maps,
    "numpy": beside_numpy,
    "memory": memory,
}


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0], options)
    peers = Peers(arguments.hflayers)
    config = harness.set_up(arguments)
    if config["torch"] is None:
        raise SystemExit("PyTorch is what this measures: pip install sparsehopfield[torch]")
    table = harness.Table(config)
    for name in arguments.only:
        ROWS[name](table, arguments, peers)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
