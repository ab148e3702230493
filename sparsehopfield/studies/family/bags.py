"""The part of the family study that trains: is a signal in the bag? One Hopfield layer, one linear layer.

Bags of bit strings, half of them with a signal of four bits (`bit_patterns`). A learned query attends to the
instances of a bag by the member's structure. In windows and blocks every instance attends to its neighbours instead,
and the answers are averaged. Beta and the epoch are chosen on other bags than those of the report.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsehopfield._engine.structure import Structure
from sparsehopfield.data.bags import Bags, bit_patterns, bit_signals
from sparsehopfield.structures import BlockSparse, LinearFeatures, RandomFeatures, RandomMask, TopK, Window
from sparsehopfield.studies._core.options import derive_seed

#: The members that bags are classified with.
MEMBERS = ("sparsemax", "softmax", "topk", "random", "window", "blocks", "elu+1", "features")
AVERAGED = ("window", "blocks")  # every instance asks
METRICS = ("beta", "accuracy", "loss", "chosen")
TRAIN, CHOOSING, REPORTED = 400, 200, 1000
EPOCHS, BATCH, RATE = 20, 20, 0.01
HEADS, HIDDEN = 8, 8
BETAS = (0.25, 1.0)


def structure_of(member: str, budget: int, size: int, seed: int) -> Structure | None:
    """Return the structure of a member for bags of `size` instances."""
    if member == "topk":
        return TopK(budget)
    if member == "random":
        return RandomMask(budget, seed)
    if member == "window":
        return Window(budget)
    if member == "blocks":
        block = np.arange(size) * budget // size
        return BlockSparse(block[:, None] == block, block=1)
    if member == "features":
        return RandomFeatures(budget, seed)
    return LinearFeatures("elu+1") if member == "elu+1" else None


class Classifier:
    """Bags to logits: `HopfieldPooling`, or where all ask `Hopfield` and a mean over instances; then one linear layer.

    Parameters
    ----------
    member : str
        One of `MEMBERS`.
    structure : Structure or None
        Its structure.
    beta : float
    width : int
        Features of an instance.
    seed : int
        Of initial weights.
    """

    def __init__(self, member: str, structure: Structure | None, beta: float, width: int, seed: int) -> None:
        from sparsehopfield import layers, optim  # here: only what trains loads them

        options: dict[str, Any] = {
            "hidden_size": HIDDEN,
            "num_heads": HEADS,
            "scaling": beta,
            "separation": "sparsemax" if member == "sparsemax" else "softmax",
            "initial_std": 0.2,
            "random_state": np.random.default_rng(seed),
            **{f"normalize_{role}": False for role in ("stored_pattern", "state_pattern", "pattern_projection")},
            **{f"normalize_{role}_affine": False for role in ("stored_pattern", "state_pattern", "pattern_projection")},
        }
        if structure is not None:
            options["structure"] = structure
        self.averages = member in AVERAGED
        layer: Any = layers.Hopfield if self.averages else layers.HopfieldPooling
        self.body = layers.Sequential(layer(width, **options), layers.GELU())
        self.head = layers.Linear(width, 1, random_state=np.random.default_rng(seed + 1))
        self.moved = [
            optim.AdamW(part, learning_rate=RATE, weight_decay=1e-4) for part in (self.body, self.head)
        ]  # one each: the two are no Sequential, as a mean may lie between
        self.loss_of = layers.binary_cross_entropy_with_logits

    def logits(self, bags: Any, *, train: bool = False) -> Any:
        """Compute one logit for each bag of (B, M, width)."""
        out = self.body.forward(bags, train=train)
        self.shape = out.shape
        return self.head.forward(out.mean(axis=1) if self.averages else out.reshape(len(bags), -1), train=train)[:, 0]

    def step(self, bags: Any, labels: Any) -> None:
        """Take one step of AdamW."""
        for optimizer in self.moved:
            optimizer.zero_grad()
        _, slope = self.loss_of(self.logits(bags, train=True), labels)
        grad: Any = self.head.backward(slope[:, None])
        if self.averages:
            grad = np.repeat(grad[:, None] / self.shape[1], self.shape[1], axis=1)
        self.body.backward(np.ascontiguousarray(grad.reshape(self.shape), np.float32), need_input_grad=False)
        for optimizer in self.moved:
            optimizer.step()

    def judge(self, bags: Any, labels: Any) -> tuple[float, float]:
        """Compute accuracy and loss."""
        logits = self.logits(bags)
        return float(np.mean((logits > 0) == labels)), float(self.loss_of(logits, labels)[0])


def measure(member: str, budget: int, size: int, seed: int, betas: Sequence[float] = BETAS) -> dict[str, float]:
    """Train with each beta, and report of the one, and the epoch, that was best on the bags to choose by.

    Parameters
    ----------
    member : str
        One of `MEMBERS`.
    budget : int
        As in the table.
    size : int
        Instances of a bag.
    seed : int
        Of bags, signals and initial weights.
    betas : sequence of float

    Returns
    -------
    dict
        `METRICS`: beta, accuracy and loss on the bags to report on, accuracy on those to choose by; and `seconds`, the
        mean time of a training step and bag.
    """
    signals = bit_signals(seed=derive_seed(seed, 0))
    bags = bit_patterns(TRAIN + CHOOSING + REPORTED, size, signals, seed=derive_seed(seed, 1), signed=True)
    train, choosing, reported = (
        bags.take(range(first, first + count))
        for first, count in ((0, TRAIN), (TRAIN, CHOOSING), (TRAIN + CHOOSING, REPORTED))
    )
    rng, best, seconds = np.random.default_rng(derive_seed(seed, 2)), None, 0.0
    for beta in betas:
        machine = Classifier(member, structure_of(member, budget, size, seed), beta, 4, derive_seed(seed, 3))
        for _ in range(EPOCHS):
            order = rng.permutation(TRAIN)
            began = time.perf_counter()
            for first in range(0, TRAIN, BATCH):
                rows = order[first : first + BATCH]
                machine.step(_stacked(train)[rows], train.labels[rows].astype(np.float32))
            seconds += time.perf_counter() - began
            accuracy, loss = machine.judge(_stacked(choosing), choosing.labels.astype(np.float32))
            if best is None or (accuracy, -loss) > best[:2]:
                best = accuracy, -loss, beta, machine.judge(_stacked(reported), reported.labels.astype(np.float32))
    assert best is not None
    return {
        "beta": best[2],
        "accuracy": best[3][0],
        "loss": best[3][1],
        "chosen": best[0],
        "seconds": seconds / (len(betas) * EPOCHS * TRAIN),
    }


def _stacked(bags: Bags) -> Any:
    return bags.instances.reshape(len(bags), -1, bags.instances.shape[1])
