"""One training step on a bag of many sequences: sparse rows of k-mers, an embedding, and pooling by one learned query.

python benchmarks/repertoire.py --sequences 10000 100000 --output repertoire.json

Ours are the network of `HopfieldMILClassifier` and the module `sparsehopfield.torch.HopfieldPooling`; the peer is plain
torch: the same embedding of k-mers (`nn.EmbeddingBag`), and attention pooling as it is usually written, softmax of the
scores times the values. All see the same k-mers, with as many features; a step is the passes forward and backward and
AdamW, in float32, with fresh weights. Behind each row are the processor time, which others on the machine change
little, and the peak of memory above that before the step.
"""

import statistics

import harness
import numpy as np

FEATURES, WIDTH, HIDDEN = 256, 32, 16
BETA = 0.1
MAPS = ("softmax", "sparsemax", "entmax15")
PLAIN = "plain torch, softmax"


def options(parser):
    """Add the option for sizes."""
    parser.add_argument("--sequences", type=int, nargs="+", help="sequences of the bag (default: 10000 100000)")


def bag_of(n):
    """Return the k-mers of a simulated repertoire that differ most between two, as sparse rows."""
    from sparsehopfield.data.repertoires import kmers, simulate

    made = simulate(2, n, 0.001, seed=0)
    counts = kmers(made.sequences, 3)
    means = np.stack([np.asarray(counts[part].mean(axis=0)).ravel() for part in (slice(0, n), slice(n, None))])
    shares = np.sqrt(means)
    return kmers(made.sequences[n:], 3, columns=np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[:FEATURES])


def ours(separation, rows):
    """Return a training step of the estimator's network."""
    from sparsehopfield.estimators._bags import Bags
    from sparsehopfield.estimators._network import Network
    from sparsehopfield.optim import AdamW

    network = Network(
        FEATURES,
        layer="pooling",
        separation=separation,
        structure=None,
        embedding=(WIDTH,),
        hidden_size=HIDDEN,
        num_heads=1,
        output_size=None,
        quantity=1,
        beta=BETA,
        update_steps_max=0,
        normalize=False,
        dropout=0.0,
        head_dropout=0.0,
        activation=None,
        initial_std=0.3,
        dtype="float32",
        random=np.random.default_rng(0),
    )
    optimizer = AdamW(network, 1e-9)
    bags = Bags(rows, np.array([0, rows.shape[0]]))

    def step():
        logit = network.forward(bags, train=True)
        network.backward(1 / (1 + np.exp(-logit)) - 1)
        optimizer.step()
        optimizer.zero_grad()

    return step


def in_torch(separation, rows):
    """Return a training step of a torch network; without a separation map the pooling is plain torch, too."""
    import torch
    from torch import nn

    from sparsehopfield.torch import HopfieldPooling

    torch.manual_seed(0)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Parameter(0.3 * torch.randn(HIDDEN))
            self.key, self.value = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
            self.out = nn.Linear(HIDDEN, WIDTH)

        def forward(self, x):
            weights = torch.softmax(BETA * (self.key(x) @ self.query), dim=-1)
            return self.out((weights[:, None, :] @ self.value(x))[:, 0])

    if separation is None:
        pool = Plain()
    else:
        norms = {
            f"normalize_{role}{affine}": False
            for role in ("stored_pattern", "state_pattern", "pattern_projection")
            for affine in ("", "_affine")
        }
        pool = HopfieldPooling(WIDTH, hidden_size=HIDDEN, num_heads=1, scaling=BETA, separation=separation, **norms)
    embedding, head = nn.EmbeddingBag(FEATURES, WIDTH, mode="sum"), nn.Linear(WIDTH, 1)
    bias = nn.Parameter(torch.zeros(WIDTH))
    parameters = [*embedding.parameters(), *pool.parameters(), *head.parameters(), bias]
    optimizer = torch.optim.AdamW(parameters, lr=1e-9, fused=True)
    indices, offsets = (
        torch.from_numpy(rows.indices.astype(np.int64)),
        torch.from_numpy(rows.indptr[:-1].astype(np.int64)),
    )

    def step():
        optimizer.zero_grad()
        x = torch.relu(embedding(indices, offsets) + bias)
        logit = head(pool(x[None]).reshape(1, WIDTH))
        nn.functional.softplus(-logit).sum().backward()
        optimizer.step()

    return step


def contenders(torch):
    """Return a function for each contender that makes its step from the rows."""
    found = {f"estimator, {name}": (lambda rows, name=name: ours(name, rows)) for name in MAPS}
    if torch:
        found |= {f"torch twin, {name}": (lambda rows, name=name: in_torch(name, rows)) for name in MAPS}
        found[PLAIN] = lambda rows: in_torch(None, rows)
    return found


def main():
    """Measure and print."""
    from sparsehopfield._engine import resources

    arguments = harness.start(__doc__, options)
    table = harness.Table(harness.set_up(arguments))
    made = contenders(harness.peer("torch"))
    for n in arguments.sequences or ([1000] if arguments.quick else [10_000, 100_000]):
        rows = bag_of(n)
        steps = {name: harness.Contender(make(rows)) for name, make in made.items()}
        times = harness.interleaved(steps, arguments.rounds)
        for name, contender in steps.items():
            memory = resources.peak(contender.run) / 2**20
            note = f"processor {statistics.median(contender.processor[1:]):.4g} s, {memory:.0f} MiB"
            peer = PLAIN if name != PLAIN and PLAIN in times else ""
            table.add(f"{n:,} sequences: {name}", times[name], peer, times[peer] if peer else None, note=note)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
