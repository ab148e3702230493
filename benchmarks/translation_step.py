"""One training step of the study of translation: our associations, torch's fused attention, the entmax package.

python benchmarks/translation_step.py --threads 1 --output translation_step.json

The same network (encoder and decoder of two layers, 1.2 million weights, a vocabulary of 4,000 pieces), the same
weights and the same batches of some 1,024 pieces a side, lengths as those of Multi30k; only what computes the
associations differs. For softmax the peer is `scaled_dot_product_attention`, for sparse maps scores by a product, a
mask, `entmax.sparsemax` or `entmax.entmax15`, and a product. A step is the forward and backward pass with the loss, the
norm of the gradient, and fused Adam. "Associations" are the six of a step alone, forward and backward, on queries, keys
and values of the same shapes and masks. Random pieces stand for sentences: times do not depend on them.
"""

import copy
import statistics
import types

import harness
import numpy as np

BATCHES = 6  # of different lengths, which a round takes one after the other
MAPS = {"softmax": 1.0, "sparsemax": 0.25, "entmax15": 0.5}


def options(parser):
    """Add the option for single maps."""
    parser.add_argument("--only", nargs="+", choices=[*MAPS], default=[*MAPS], help="maps to measure (default: all)")


def batches(tokens, pieces):
    """Return batches of random sentences as training makes them, spread over all lengths."""
    from sparsehopfield.studies.translation.text import END
    from sparsehopfield.studies.translation.training import batches_of, lengths_of

    rng = np.random.default_rng(0)
    source = np.clip(rng.normal(15.2, 5, 3000), 4, 40).astype(int)
    target = np.clip(source * rng.normal(1.05, 0.15, 3000), 4, 45).astype(int)
    pairs = [
        tuple([*rng.integers(4, pieces, n).tolist(), END] for n in lengths)
        for lengths in zip(source, target, strict=True)
    ]
    whole = [batch for batch in batches_of(lengths_of(pairs), tokens, None) if len(batch) > 4]
    return [[pairs[i] for i in whole[k]] for k in np.linspace(1, len(whole) - 2, BATCHES).astype(int)]


def by_torch(self, queries, keys, values, padding=None, causal=False):
    """Associate as `Association.forward` does, with softmax, by torch's fused attention."""
    from torch.nn.functional import scaled_dot_product_attention

    q, k, v = (x.transpose(1, 2) for x in (queries, keys, values))
    mask = None if padding is None else ~padding[:, None, None]
    out = scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=self.scale)
    return out.transpose(1, 2).flatten(2)


def by_entmax(function):
    """Return what associates as `Association.forward` does, with a map of the package entmax."""
    import torch

    def associate(self, queries, keys, values, padding=None, causal=False):
        q, k, v = (x.transpose(1, 2) for x in (queries, keys, values))
        scores = (self.scale * q) @ k.transpose(-1, -2)
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None], -torch.inf)
        if causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, -torch.inf)
        return (function(scores, dim=-1) @ v).transpose(1, 2).flatten(2)

    return associate


def with_peer(network, associate):
    """Return a copy of a network whose associations are computed by a peer."""
    other = copy.deepcopy(network)
    for part in (*other.encoder, *other.decoder, *other.cross):
        part.association.forward = types.MethodType(associate, part.association)
    return other


def step_of(network, given):
    """Return a function that trains with each batch once."""
    import torch

    from sparsehopfield.studies.translation.training import NORM, SMOOTHING, loss_of

    optimizer = torch.optim.Adam(network.parameters(), 1e-9, betas=(0.9, 0.98), eps=1e-9, fused=True)

    def step():
        for pairs in given:
            optimizer.zero_grad(set_to_none=True)
            loss_of(network, pairs, SMOOTHING).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), NORM)
            optimizer.step()

    return step


def associations_of(network, given):
    """Return a function that computes the associations of those steps alone, with their gradients."""
    import torch

    from sparsehopfield.studies.translation.text import BEGIN, PAD
    from sparsehopfield.studies.translation.training import padded

    calls = []
    for pairs in given:
        sources = padded([source for source, _ in pairs])
        targets = padded([target[:-1] for _, target in pairs], BEGIN)
        padding = sources == PAD
        for parts, queries, keys, hidden, causal in (
            (network.encoder, sources, sources, padding, False),
            (network.decoder, targets, targets, None, True),
            (network.cross, targets, sources, padding, False),
        ):
            size = network.shape.width // network.heads
            shapes = [(*rows.shape, network.heads, size) for rows in (queries, keys, keys)]
            rows = [torch.randn(shape, requires_grad=True) for shape in shapes]
            calls += [(part.association, rows, hidden, causal, torch.randn(*shapes[0][:2], 128)) for part in parts]

    def all_of_them():
        for association, rows, hidden, causal, grad in calls:
            torch.autograd.grad(association(*rows, hidden, causal), rows, grad)

    return all_of_them


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0], options)
    table = harness.Table(harness.set_up(arguments))
    import os

    import torch

    from sparsehopfield.studies.translation.networks import Translator

    print(f"load of the machine {', '.join(f'{load:.2f}' for load in os.getloadavg())}\n")
    entmax = harness.peer("entmax")
    pieces, tokens = (500, 256) if arguments.quick else (4000, 1024)
    given = batches(tokens, pieces)
    for name in arguments.only:
        if name != "softmax" and entmax is None:
            continue
        torch.manual_seed(0)
        network = Translator(pieces, (name,) * 3, (MAPS[name],) * 3)
        peer_name = "fused attention" if name == "softmax" else "entmax"
        associate = by_torch if name == "softmax" else by_entmax(getattr(entmax, name))
        peer = with_peer(network, associate)
        agree(network, peer, given[0])
        times = {}
        for what, make in (("step", step_of), ("associations", associations_of)):
            both = {who: harness.Contender(make(one, given)) for who, one in (("ours", network), ("theirs", peer))}
            wall = harness.interleaved(both, arguments.rounds)
            cpu = times[what] = {who: statistics.median(one.processor[1:]) / BATCHES for who, one in both.items()}
            ours, theirs = ([t / BATCHES for t in wall[who]] for who in both)
            note = f"processor {cpu['ours'] * 1e3:.3g} and {cpu['theirs'] * 1e3:.3g} ms"
            note += f", {cpu['theirs'] / cpu['ours']:.3g} times as fast"
            # equal work within what a clock can tell apart
            target = {"at_most": 1.0} if what == "step" else {"faster": 3.0} if name != "softmax" else {}
            table.add(f"{name}, {what}", ours, peer_name, theirs, note=note, **target)
        share, other = (times["associations"][who] / times["step"][who] for who in ("ours", "theirs"))
        print(
            f"{name}: associations are {100 * share:.0f} % of our step, {100 * other:.0f} % of the peer's", flush=True
        )
    table.finish(arguments.output)


def agree(network, peer, pairs):
    """Raise unless both networks have the same loss."""
    import torch

    from sparsehopfield.studies.translation.training import loss_of

    with torch.no_grad():
        losses = [loss_of(one.eval(), pairs, 0.1) for one in (network, peer)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    network.train()
    peer.train()


if __name__ == "__main__":
    main()
