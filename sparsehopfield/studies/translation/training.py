"""Training of the networks of translation: one file with all that goes on from an epoch, so that it can be interrupted.

Every epoch draws its order and its dropout from a seed of its own, and PyTorch has one thread. So training that was
stopped goes on from the last whole epoch to the same bits.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sparsehopfield._engine.atomic_files import atomic_write
from sparsehopfield.data._content import first_line, reading
from sparsehopfield.studies._core.options import derive_seed
from sparsehopfield.studies.translation.networks import Translator, smoothed_loss
from sparsehopfield.studies.translation.text import BEGIN, PAD, Task

#: The file from which training goes on, the network of the best epoch, and the losses of the epochs.
CHECKPOINT, NETWORK, LOSSES = "checkpoint.safetensors", "network.safetensors", "losses.csv"
#: Updates until the learning rate is at its height, its share at the end, the norm that gradients are cut to.
WARM_UP, LAST, NORM = 300, 0.02, 1.0
SMOOTHING = 0.1  # of labels

Pair = tuple[Sequence[int], Sequence[int]]  # of pieces of a source and its target, each with its end


@dataclass(frozen=True)
class Recipe:
    """All that a trained network depends on, beside the pairs and the vocabulary.

    Attributes
    ----------
    maps : tuple of 3 str
        Of encoder, decoder and cross-association.
    betas : tuple of 3 float
        In units of 1 / sqrt(d), d the features of a head.
    is_learned : bool
        Whether each head learns its beta, from these on.
    learning_rate : float
        At its height.
    epochs : int
    tokens : int
        Pieces of a batch, padding included, on the side where there are more.
    seed : int
        Of the weights at the beginning, the order of the batches, and dropout.
    structure : str
        Which pieces associations see, of `STRUCTURES`.
    """

    maps: tuple[str, str, str]
    betas: tuple[float, float, float]
    is_learned: bool
    learning_rate: float
    epochs: int
    tokens: int
    seed: int
    structure: str = "all"

    @property
    def name(self) -> str:
        """Return a name for files, different for each recipe."""
        same = len(set(self.maps)) == 1 and len(set(self.betas)) == 1
        maps = self.maps[:1] if same else self.maps
        betas = "-".join(f"{beta:g}" for beta in (self.betas[:1] if same else self.betas))
        learned = "-learned" * self.is_learned
        structure = "" if self.structure == "all" else f"_{self.structure}"
        return (
            f"{'-'.join(maps)}{structure}_beta-{betas}{learned}_rate-{self.learning_rate:g}_epochs-{self.epochs}_"
            f"tokens-{self.tokens}_seed-{self.seed}"
        )

    def network(self, pieces: int) -> Translator:
        """Make the network as training begins with it; torch's generator is as before afterwards."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Translator(pieces, self.maps, self.betas, is_learned=self.is_learned, structure=self.structure)


def padded(sentences: Sequence[Sequence[int]], first: int | None = None) -> Tensor:
    """Return sentences as rows of one array, padded at the end; `first`: a piece before all."""
    lead = [] if first is None else [first]
    longest = max(map(len, sentences)) + len(lead)
    rows = np.full((len(sentences), longest), PAD, np.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence) + len(lead)] = [*lead, *sentence]
    return torch.from_numpy(rows)


def batches_of(lengths: Sequence[tuple[int, int]], tokens: int, seed: int | None) -> list[list[int]]:
    """Return the positions of pairs of similar lengths, batch by batch.

    Parameters
    ----------
    lengths : sequence of (int, int)
        Pieces of source and target of each pair.
    tokens : int
        A batch has at most so many pieces on either side, padding included (or one pair, if it is longer).
    seed : int or None
        Of the order of pairs of equal lengths, and that of the batches; None: in order of lengths.

    Returns
    -------
    list of list of int

    Examples
    --------
    >>> batches_of([(2, 2), (9, 9), (3, 2), (8, 9)], 18, None)
    [[0, 2], [3, 1]]
    """
    sizes = np.asarray(lengths).reshape(-1, 2)
    rng = None if seed is None else np.random.default_rng(seed)
    ties = np.arange(len(sizes)) if rng is None else rng.permutation(len(sizes))
    order = np.lexsort((ties, sizes[:, 0], sizes[:, 1])).tolist()
    found: list[list[int]] = []
    batch: list[int] = []
    longest = 0
    for position in order:
        reach = max(longest, *lengths[position])
        if batch and reach * (len(batch) + 1) > tokens:
            found.append(batch)
            batch, reach = [], max(lengths[position])
        batch.append(position)
        longest = reach
    if batch:
        found.append(batch)
    return found if rng is None else [found[i] for i in rng.permutation(len(found))]


def lengths_of(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Return the pieces of source and target of each pair, with what stands before the target."""
    return [(len(source), len(target)) for source, target in pairs]


def loss_of(network: Translator, pairs: Sequence[Pair], smoothing: float) -> Tensor:
    """Return the mean loss of the pieces of target sentences; padding has none."""
    targets = padded([target for _, target in pairs])
    given = padded([target[:-1] for _, target in pairs], BEGIN)
    real = targets != PAD
    features = network(padded([source for source, _ in pairs]), given)[real]
    return smoothed_loss(features, network.embedding.weight, targets[real], smoothing)


@torch.no_grad()
def validation_loss(network: Translator, pairs: Sequence[Pair], tokens: int) -> float:
    """Return the mean cross-entropy of a piece, in nats, labels as they are."""
    was_training = network.training
    network.eval()
    total, count = 0.0, 0
    for batch in batches_of(lengths_of(pairs), 4 * tokens, None):
        some = [pairs[i] for i in batch]
        n = sum(len(target) for _, target in some)
        total += n * float(loss_of(network, some, 0.0))
        count += n
    network.train(was_training)
    return total / count


def rate_at(update: int, total: int, height: float) -> float:
    """Return the learning rate: a line up to its height, then half a cosine.

    Examples
    --------
    >>> rate_at(0, 9000, 3.0) == 3.0 / WARM_UP, rate_at(9000, 9000, 3.0) == 3.0 * LAST
    (True, True)
    """
    warm_up = min(WARM_UP, max(1, total // 4))
    if update < warm_up:
        return height * (update + 1) / warm_up
    done = (update - warm_up) / max(1, total - warm_up)
    return height * (LAST + (1 - LAST) * (1 + math.cos(math.pi * done)) / 2)


@dataclass
class State:
    """What training goes on from: the network, Adam's averages, the losses so far, and the best weights."""

    network: Translator
    optimizer: torch.optim.Adam
    losses: list[dict[str, float]]
    best: dict[str, Tensor]

    @classmethod
    def begin(cls, network: Translator, rate: float) -> State:
        """Return the state before the first epoch."""
        optimizer = torch.optim.Adam(network.parameters(), rate, betas=(0.9, 0.98), eps=1e-9, fused=True)
        return cls(network, optimizer, [], {})

    @property
    def is_best(self) -> bool:
        """Return whether no epoch before the last had a lower validation loss."""
        validation = [loss["validation"] for loss in self.losses]
        return not min(validation[:-1], default=math.inf) <= validation[-1]

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        found |= {f"best.{name}": value for name, value in self.best.items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                found[f"adam.{key}.{name}"] = value
        return found

    def restore(self, tensors: Mapping[str, Tensor], losses: list[dict[str, float]]) -> None:
        """Take over tensors and losses."""
        self.network.load_state_dict(_part(tensors, "network."))
        self.best, self.losses = _part(tensors, "best."), losses
        for name, parameter in self.network.named_parameters():
            self.optimizer.state[parameter] = {
                key: tensors[f"adam.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }


def _part(tensors: Mapping[str, Tensor], lead: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin so, without that."""
    return {name.removeprefix(lead): value for name, value in tensors.items() if name.startswith(lead)}


def _identity(recipe: Recipe, task: Task) -> str:
    """Return all that a file must agree with, as text."""
    of_recipe = asdict(recipe)
    if recipe.structure == "all":
        del of_recipe["structure"]  # files that were written before there were others do not have it
    about = {
        "vocabulary": task.vocabulary.digest,
        "pairs": task.digest("train"),
        "validation": task.digest("validation"),
    }
    return json.dumps({**of_recipe, **about})


def _write(path: Path, tensors: Mapping[str, Tensor], identity: str, losses: Sequence[Mapping[str, float]]) -> None:
    """Write tensors, with what they belong to."""
    content = save(
        {name: value.contiguous() for name, value in tensors.items()},
        {"about": json.dumps({"identity": json.loads(identity), "losses": losses})},  # of several, the order varies
    )
    with atomic_write(path) as file:
        file.write(content)


def _read(path: Path, identity: str) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Return what `_write` wrote; ValueError if it belongs to something else."""
    with reading(path, "safetensors file"), safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        found, losses = about["identity"], about["losses"]
    wanted = json.loads(identity)
    differ = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if differ:
        what = "; ".join(f"{name}: there {found.get(name)}, now {wanted.get(name)}" for name in differ)
        raise ValueError(
            f"{differ[0]}: {path} is of another network ({first_line(what)}); choose another folder of --checkpoints, "
            "or remove it"
        )
    return tensors, losses


def trained(
    task: Task, recipe: Recipe, folder: Path, tell: Callable[[int, int], Any] | None = None
) -> tuple[Translator, list[dict[str, float]]]:
    """Train a network, or go on with it, or return it if it is there.

    Parameters
    ----------
    task : Task
    recipe : Recipe
    folder : Path
        Of this network alone. After every epoch all that is needed to go on is written here as one file.
    tell : callable, optional
        Told how many epochs of how many are done.

    Returns
    -------
    network : Translator
        Of the epoch with the least loss on the validation part.
    losses : list of dict
        Of each epoch: `train` (labels smoothed) and `validation`. The folder's `losses.csv` also has the seconds of the
        processor that each took.

    Raises
    ------
    ValueError
        Naming what differs, if a file there is of another recipe or vocabulary.
    FileFormatError
        If it is damaged.
    """
    identity = _identity(recipe, task)
    network = recipe.network(len(task.vocabulary))
    if (folder / NETWORK).exists():
        tensors, losses = _read(folder / NETWORK, identity)
        network.load_state_dict(tensors)
        return network.eval(), losses
    folder.mkdir(parents=True, exist_ok=True)
    state = State.begin(network, recipe.learning_rate)
    if (folder / CHECKPOINT).exists():
        state.restore(*_read(folder / CHECKPOINT, identity))
    pairs, validation = task.numbers("train"), task.numbers("validation")
    with torch.random.fork_rng(devices=[]), _one_thread():
        for epoch in range(len(state.losses), recipe.epochs):
            if tell is not None:
                tell(epoch, recipe.epochs)
            begin = time.process_time()
            train = _epoch(state, pairs, recipe, epoch)
            loss = validation_loss(network, validation, recipe.tokens)
            state.losses.append({"train": train, "validation": loss})
            if state.is_best:
                state.best = {name: value.clone() for name, value in network.state_dict().items()}
            _write(folder / CHECKPOINT, state.tensors(), identity, state.losses)
            _write_losses(folder / LOSSES, state.losses, time.process_time() - begin)
    if tell is not None:
        tell(recipe.epochs, recipe.epochs)
    _write(folder / NETWORK, state.best, identity, state.losses)
    (folder / CHECKPOINT).unlink()
    network.load_state_dict(state.best)
    return network.eval(), state.losses


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch have one thread, on the number of which bits depend."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _epoch(state: State, pairs: Sequence[Pair], recipe: Recipe, epoch: int) -> float:
    """Train with all pairs once; return the mean loss of a piece."""
    seed = derive_seed(recipe.seed, epoch)
    torch.manual_seed(seed)
    state.network.train()
    total, count = 0.0, 0
    for rate, some in _scheduled(pairs, recipe, epoch, seed):
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(state.network, some, SMOOTHING)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), NORM)
        state.optimizer.step()
        n = sum(len(target) for _, target in some)
        total += n * loss.item()
        count += n
    return total / count


def _scheduled(pairs: Sequence[Pair], recipe: Recipe, epoch: int, seed: int) -> Iterator[tuple[float, list[Pair]]]:
    """Yield the learning rate and the pairs of each update of an epoch."""
    lengths = lengths_of(pairs)
    batches = batches_of(lengths, recipe.tokens, seed)
    for number, batch in enumerate(batches, start=epoch * len(batches)):  # every epoch has as many
        yield rate_at(number, recipe.epochs * len(batches), recipe.learning_rate), [pairs[i] for i in batch]


def seconds_of(folder: Path) -> list[float]:
    """Return the seconds of the processor that the epochs of a network took, as far as they are known."""
    try:
        with open(folder / LOSSES, encoding="utf-8", newline="") as file:
            return [float(row["seconds"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError):  # times are no results: they are done without
        return []


def _write_losses(path: Path, losses: Sequence[Mapping[str, float]], seconds: float) -> None:
    """Write the losses of the epochs as a table, to be read while training goes on, with the time of the last one."""
    known = seconds_of(path.parent)[: len(losses) - 1]
    times = [*known, *[math.nan] * (len(losses) - 1 - len(known)), seconds]
    with atomic_write(path) as file:
        lines = ["epoch,train,validation,seconds"]
        for number, (loss, time_of_it) in enumerate(zip(losses, times, strict=True), start=1):
            lines.append(f"{number},{loss['train']!r},{loss['validation']!r},{time_of_it:.3f}")
        file.write("".join(f"{line}\n" for line in lines).encode())
