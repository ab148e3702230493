"""The layers against the same layers in PyTorch: forward, backward and optimiser step.

python benchmarks/layers.py --output layers.json

The peer is the layer as hflayers computes it, eager: normalise, project, associate again and again, for which it
selects the heads that still move (their weights by more than 1e-4) and scatters what comes out, dropout, project; with
softmax, and with `entmax.sparsemax` in its place. Beside it stands a lean one, "torch lean", that neither selects nor
scatters: all heads go on until none moves. Both sides hold the same weights and see the same input.
"""

import math
import subprocess
import sys
import tempfile
import time

import harness
import numpy as np


def options(parser):
    """Add the option for single rows."""
    parser.add_argument("--only", nargs="+", choices=[*ROWS], default=[*ROWS], help="rows to measure (default: all)")


def hflayers_weights(torch, q, k, scale, separation, steps):
    """The last association (B, H, N, M) of hflayers: heads that still move are selected, then scattered."""
    batch, heads, n, width = q.shape
    m = k.shape[2]
    q, k = q.reshape(batch * heads, n, width), k.reshape(batch * heads, m, width)
    active = torch.ones(batch * heads, 1, 1, dtype=torch.bool)
    p = old = None
    step = 0
    while active.any():
        if p is not None:
            mixed = p.masked_select(active).view(-1, n, m) @ k.masked_select(active).view(-1, m, width)
            q = q.masked_scatter(active, mixed)
        q = q * scale
        s = q @ k.transpose(1, 2)
        if p is None:
            p = separation(s, dim=-1)
        else:
            p = p.masked_scatter(active, separation(s.masked_select(active).view(-1, n, m), dim=-1))
        with torch.no_grad():
            now = p.view(batch, heads, n, m)
            going = torch.full((heads,), step < steps)
            if old is not None:
                going &= (old - now).norm(dim=(2, 3)).max(dim=0)[0] > 1e-4
            active, old = going[:, None, None].repeat(batch, 1, 1), now
        step += 1
    return p.view(batch, heads, n, m)


def lean_weights(torch, q, k, scale, separation, steps):
    """The same, all heads together until none moves."""
    old = None
    for step in range(steps + 1):
        p = separation(q * scale @ k.transpose(-1, -2), dim=-1)
        with torch.no_grad():
            still = step < steps and (old is None or bool(((p - old).norm(dim=(2, 3)).max(dim=0)[0] > 1e-4).any()))
        if not still:
            return p
        old, q = p, p @ k
    raise AssertionError


def torch_layer(
    torch,
    size,
    hidden,
    heads,
    *,
    output=None,
    steps=0,
    dropout=0.0,
    pooled=False,
    separation=None,
    weights=hflayers_weights,
    fused=False,
):
    """hflayers' `Hopfield` (or, `pooled`, `HopfieldPooling`) with the state of ours, restated in torch."""
    nn, functional = torch.nn, torch.nn.functional

    class Peer(nn.Module):
        def __init__(self):
            super().__init__()
            width = heads * hidden
            self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))  # stored, state, projection
            self.project = nn.Linear(size, 3 * width)  # query, key, value
            self.out = nn.Linear(width, output or size)
            if pooled:
                self.pooling_weights = nn.Parameter(torch.empty(1, 1, size))

        def forward(self, x):
            batch = len(x)
            width = heads * hidden
            state = self.pooling_weights.expand(batch, 1, size) if pooled else x
            weight, bias = self.project.weight, self.project.bias
            split = [slice(i * width, (i + 1) * width) for i in range(3)]
            q = functional.linear(self.norms[1](state), weight[split[0]], bias[split[0]])
            k = functional.linear(self.norms[0](x), weight[split[1]], bias[split[1]])
            v = functional.linear(self.norms[2](x), weight[split[2]], bias[split[2]])
            q, k, v = (t.view(batch, -1, heads, hidden).transpose(1, 2) for t in (q, k, v))
            scale = 1 / math.sqrt(hidden)
            if fused:
                z = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout if self.training else 0.0)
            else:
                z = functional.dropout(weights(torch, q, k, scale, separation, steps), dropout, self.training) @ v
            z = self.out(z.transpose(1, 2).reshape(batch, -1, width))
            return z.flatten(1) if pooled else z

    return Peer()


def copy_state(torch, peer, layer):
    """Give the peer our weights."""
    state = {name.removeprefix("hopfield."): torch.from_numpy(a) for name, a in layer.state_dict().items()}
    with torch.no_grad():
        for norm, name in zip(
            peer.norms, ("norm_stored_pattern", "norm_state_pattern", "norm_pattern_projection"), strict=True
        ):
            norm.weight.copy_(state[f"{name}.weight"])
            norm.bias.copy_(state[f"{name}.bias"])
        peer.project.weight.copy_(state["association_core.in_proj_weight"])
        peer.project.bias.copy_(state["association_core.in_proj_bias"])
        peer.out.weight.copy_(state["association_core.out_proj.weight"])
        peer.out.bias.copy_(state["association_core.out_proj.bias"])
        if hasattr(peer, "pooling_weights"):
            peer.pooling_weights.copy_(state["pooling_weights"])


def sharpen(layer, std, seed=1):
    """Wider projections, as training makes them: every update is made, supports are small."""
    rng = np.random.default_rng(seed)
    for name, p in layer.parameters().items():
        if name.endswith("in_proj_weight"):
            p.value[...] = rng.normal(0, std, p.value.shape)
        elif name.endswith("pooling_weights"):
            p.value[...] = rng.normal(0, 1, p.value.shape)


#: A measurement is of so many steps, and so many seconds, at least: training makes one step after the other.
STEPS, SECONDS = 10, 0.25


class Training:
    """Training steps as one contender: the mean time of a step."""

    def __init__(self, step, steps=STEPS, seconds=SECONDS):
        self.step, self.least, self.while_within = step, steps, seconds

    def seconds(self):
        """Time the steps."""
        steps = 0

        def several():
            nonlocal steps
            until = time.perf_counter() + self.while_within
            while steps < self.least or time.perf_counter() < until:
                self.step()
                steps += 1

        return harness.seconds(several) / steps


def steps_of(layer, x):
    """Training steps of ours, as one contender."""
    from sparsehopfield import optim

    optimizer = optim.AdamW(layer, learning_rate=1e-9)
    ones = np.ones_like(layer.forward(x))

    def step():
        optimizer.zero_grad()
        layer.forward(x, train=True)
        layer.backward(ones, need_input_grad=False)
        optimizer.step()

    return Training(step)


def steps_of_peer(torch, peer, x):
    """The same of the peer."""
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-9)
    t = torch.from_numpy(x)

    def step():
        optimizer.zero_grad()
        peer(t).sum().backward()
        optimizer.step()

    return Training(step)


def compare(table, arguments, work, make, peer_options, x, std, *, faster, aim=None, sparse_faster=None, fused=None):
    """One row of the table: softmax and sparsemax of ours beside the peers."""
    torch, entmax = harness.peer("torch"), harness.peer("entmax")
    contenders, ours = {}, {}
    for separation in ("softmax", "sparsemax"):
        ours[separation] = make(separation)
        if std:
            sharpen(ours[separation], std)
        contenders[f"ours, {separation}"] = steps_of(ours[separation], x)

    def add(name, mine, **options):
        peer = torch_layer(torch, **options, **peer_options)
        copy_state(torch, peer, mine)
        peer.eval()
        theirs, mine = peer(torch.from_numpy(x)).detach().numpy(), mine.forward(x)
        assert np.abs(theirs - mine).max() < 1e-3 * (1 + np.abs(mine).max()), "the two do not compute the same"
        contenders[name] = steps_of_peer(torch, peer.train(), x)

    if torch:
        add("torch softmax", ours["softmax"], separation=torch.softmax)
        add("torch lean softmax", ours["softmax"], separation=torch.softmax, weights=lean_weights)
        if entmax:
            add("torch entmax", ours["sparsemax"], separation=entmax.sparsemax)
        if fused:
            add("torch fused", ours["softmax"], fused=True)
    times = harness.interleaved(contenders, arguments.rounds)
    peers = {
        "torch softmax": {"softmax": (faster, aim), "sparsemax": (sparse_faster or faster, aim)},
        "torch lean softmax": {"softmax": (1, None), "sparsemax": (1, None)},
        "torch entmax": {"softmax": (1, None), "sparsemax": (1, None)},
        "torch fused": {"softmax": (fused, None)} if fused else {},
    }
    for peer, targets in peers.items():
        for separation, (must, hope) in targets.items():
            mine = times[f"ours, {separation}"]
            table.add(f"{work}, {separation}", mine, peer, times.get(peer), faster=must, aim=hope)


def bits(table, arguments):
    """Pooling of many small bags, weak scores and sharp ones."""
    from sparsehopfield import layers

    x = np.random.default_rng(0).integers(0, 2, (128, 300, 4)).astype(np.float32)
    shape = {"output": 4, "steps": 3, "dropout": 0.1, "pooled": True}

    def make(separation):
        return layers.HopfieldPooling(
            4, hidden_size=8, num_heads=8, update_steps_max=3, dropout=0.1, separation=separation, random_state=0
        )

    for std, word in ((None, "weak scores"), (0.7, "sharp scores")):
        compare(
            table,
            arguments,
            f"pooling 128 x 300 x 4, 8 heads of 8, 3 steps, dropout, {word}",
            make,
            {"size": 4, "hidden": 8, "heads": 8} | shape,
            x,
            std,
            faster=40,
            aim=100,
        )


def bags(table, arguments):
    """Pooling of few bags of many features."""
    from sparsehopfield import layers

    x = np.random.default_rng(0).standard_normal((4, 30, 230)).astype(np.float32)

    def make(separation):
        return layers.HopfieldPooling(
            230, hidden_size=32, num_heads=8, update_steps_max=3, separation=separation, random_state=0
        )

    for std, word in ((None, "weak scores"), (0.3, "sharp scores")):
        compare(
            table,
            arguments,
            f"pooling 4 x 30 x 230, 8 heads of 32, 3 steps, {word}",
            make,
            {"size": 230, "hidden": 32, "heads": 8, "steps": 3, "pooled": True},
            x,
            std,
            faster=8,
            aim=15,
        )


def self_association(table, arguments):
    """Self-association, several updates and one."""
    from sparsehopfield import layers

    x = np.random.default_rng(0).standard_normal((16, 256, 64)).astype(np.float32)
    for steps, std, word, targets in (
        (3, 0.25, "sharp scores", {"faster": 15, "sparse_faster": 30}),
        (3, None, "weak scores", {"faster": 15}),
        (0, 0.25, "sharp scores", {"faster": 3.5, "fused": 1.5}),
        (0, None, "weak scores", {"faster": 3.5, "fused": 1.5}),
    ):

        def make(separation, steps=steps):
            return layers.Hopfield(
                64, hidden_size=16, num_heads=4, update_steps_max=steps, separation=separation, random_state=0
            )

        compare(
            table,
            arguments,
            f"self-association 16 x 256 x 64, 4 heads of 16, {steps + 1} updates, {word}",
            make,
            {"size": 64, "hidden": 16, "heads": 4, "steps": steps},
            x,
            std,
            **targets,
        )


def lookup(table, arguments):
    """A lookup among many stored patterns, which hflayers copies for every sample: time and memory."""
    from sparsehopfield import layers

    batch, stored, size = (128, 1_000, 64) if arguments.quick else (1024, 10_000, 784)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 1, size)).astype(np.float32)

    # what the algebra needs, each as (m, n, k): projections and their two gradients, scores, mixtures and theirs
    project = [(stored, size, size)] * 2 + [(batch, size, size)] * 2
    associate = [(batch, stored, size), (batch, size, stored)]
    products = 3 * project + 3 * associate
    operands = {}
    for m, n, k in products:
        for shape in ((m, k), (k, n), (m, n)):
            if shape not in operands:
                operands[shape] = rng.standard_normal(shape).astype(np.float32)

    def algebra():
        for m, n, k in products:
            np.matmul(operands[m, k], operands[k, n], out=operands[m, n] if (m, n) not in ((m, k), (k, n)) else None)

    contenders = {"algebra": algebra}
    for separation in ("softmax", "sparsemax"):
        layer = layers.HopfieldLayer(size, quantity=stored, separation=separation, random_state=0)
        contenders[separation] = steps_of(layer, x)
    times = harness.interleaved(contenders, arguments.rounds)
    name = f"HopfieldLayer, {stored:,} stored x {size}, batch {batch:,}"
    for separation in ("softmax", "sparsemax"):
        table.add(f"{name}, {separation}", times[separation], "its matrix products", times["algebra"], at_most=1.3)
    setup = f"""
from sparsehopfield import layers, optim
x = np.random.default_rng(0).standard_normal(({batch}, 1, {size})).astype(np.float32)
layer = layers.HopfieldLayer({size}, quantity={stored}, separation="sparsemax", random_state=0)
optimizer = optim.AdamW(layer)
"""
    call = "layer.backward(np.ones_like(layer.forward(x, train=True)), need_input_grad=False); optimizer.step()"
    mib = harness.peak("", arguments.threads, setup, call)
    table.put(f"{name}: memory of a step", f"{mib:.0f} MiB", "", "", None, "at most 1,024 MiB", mib <= 1024)


def table1(table, arguments):
    """Table 1 of the paper for pooling, the study itself: 11 settings x 2 models x 10 runs x 300 epochs."""
    runs = 1 if arguments.quick else 2
    command = [sys.executable, "-m", "sparsehopfield", "bits", "--recipe", "paper", "--runs", str(runs), "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run([*command, "--jobs", str(arguments.threads), "--output", folder], check=True)
        minutes = (time.perf_counter() - began) / 60 * 10 / runs
    name = "table 1 for pooling, 11 settings x 2 models x 10 runs x 300 epochs"
    note = f"{runs} of 10 runs, times {10 // runs}"
    table.put(name, f"{minutes:.1f} min", "", "", None, "at most 15 min", minutes <= 15, note)


ROWS = {"bits": bits, "bags": bags, "self": self_association, "lookup": lookup, "table1": table1}


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0], options)
    table = harness.Table(harness.set_up(arguments))
    for name in arguments.only:
        ROWS[name](table, arguments)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
