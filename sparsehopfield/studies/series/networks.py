"""Networks of the study of time series, in PyTorch: linear ones, and a transformer of patches with Hopfield layers.

All columns share one network, which sees a window of a single one and forecasts what follows it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsehopfield._engine.structure import Structure
from sparsehopfield.structures import RandomFeatures, Window
from sparsehopfield.studies.series.task import Task
from sparsehopfield.torch import Hopfield

#: Width of the transformer, heads, features of the feed-forward part, layers, dropout.
WIDTH, HEADS, FORWARD, LAYERS, DROPOUT = 32, 4, 64, 2, 0.2
#: The structures of the transformer's associations, by the names of the command line.
STRUCTURES: dict[str, Callable[[], Structure | None]] = {
    "all": lambda: None,
    "window": lambda: Window(2),
    "features": lambda: RandomFeatures(16, seed=0),
}


class Dropout(nn.Module):
    """Dropout by one random byte a number, in a quarter of the time that torch's takes on a CPU.

    Parameters
    ----------
    p : float
        The share of numbers that become 0, to the next of 1/256.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.least = round(256 * p)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape; the same one where the network does not train."""
        if not self.training:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.least
        return x * kept.to(x.dtype).mul_(256 / (256 - self.least))


class NLinear(nn.Module):
    """One linear map of the window less its last row (Zeng et al. 2023)."""

    def __init__(self, seen: int, horizon: int) -> None:
        super().__init__()
        self.linear = nn.Linear(seen, horizon)

    def forward(self, windows: Tensor) -> Tensor:
        """Forecast from windows (n, seen), (n, horizon)."""
        last = windows[:, -1:]
        forecast: Tensor = self.linear(windows - last) + last
        return forecast


class DLinear(nn.Module):
    """Two linear maps: of a moving average over 25 rows, and of the rest (Zeng et al. 2023)."""

    def __init__(self, seen: int, horizon: int) -> None:
        super().__init__()
        self.trend, self.rest = nn.Linear(seen, horizon), nn.Linear(seen, horizon)
        self.average = nn.AvgPool1d(25, stride=1)

    def forward(self, windows: Tensor) -> Tensor:
        """Forecast from windows (n, seen), (n, horizon)."""
        padded = nn.functional.pad(windows[:, None], (12, 12), mode="replicate")
        trend = self.average(padded)[:, 0]
        forecast: Tensor = self.trend(trend) + self.rest(windows - trend)
        return forecast


class Block(nn.Module):
    """A layer of the transformer: an association and a feed-forward part, each normalised before and added.

    beta is learned, one a head, and begins at 1 / sqrt(features of a head) for all maps.
    """

    def __init__(self, separation: str, structure: Structure | None) -> None:
        super().__init__()
        self.association = Hopfield(
            WIDTH,
            num_heads=HEADS,
            separation=separation,
            structure=structure,
            learnable_scaling=True,
        )
        self.forward_part = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, FORWARD), nn.GELU(), Dropout(DROPOUT), nn.Linear(FORWARD, WIDTH)
        )
        self.dropout = Dropout(DROPOUT)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (n, patches, WIDTH)."""
        tokens = tokens + self.dropout(self.association(tokens))
        tokens = tokens + self.dropout(self.forward_part(tokens))
        return tokens


class PatchNetwork(nn.Module):
    """A transformer of the patches of a normalised window (after Nie et al. 2023), with Hopfield associations."""

    def __init__(self, seen: int, patch: int, horizon: int, separation: str, structure: Structure | None) -> None:
        super().__init__()
        patches, self.patch = seen // patch, patch
        self.embedding = nn.Linear(patch, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(patches, WIDTH))
        self.blocks = nn.Sequential(*(Block(separation, structure) for _ in range(LAYERS)))
        self.head = nn.Sequential(nn.Flatten(1), Dropout(DROPOUT), nn.Linear(patches * WIDTH, horizon))

    def forward(self, windows: Tensor) -> Tensor:
        """Forecast from windows (n, seen), (n, horizon)."""
        mean, unit = _units(windows)
        forecast: Tensor = self.head(self.blocks(self.tokens((windows - mean) / unit))) * unit + mean
        return forecast

    @property
    def layers(self) -> list[Block]:
        """Return the layers of the transformer."""
        return cast("list[Block]", list(self.blocks))

    def tokens(self, windows: Tensor) -> Tensor:
        """Return the tokens (n, patches, WIDTH) of normalised windows."""
        tokens: Tensor = self.embedding(windows.reshape(len(windows), -1, self.patch)) + self.places
        return tokens

    @torch.no_grad()
    def maps(self, windows: Tensor) -> list[Tensor]:
        """Return the weights (n, HEADS, patches, patches) of each layer's association."""
        mean, unit = _units(windows)
        tokens, found = self.tokens((windows - mean) / unit), []
        for block in self.layers:
            found.append(block.association.get_association_matrix(tokens))
            tokens = block(tokens)
        return found


def _units(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means and the deviations of windows (n, seen), (n, 1)."""
    return windows.mean(1, keepdim=True), (windows.var(1, keepdim=True, correction=0) + 1e-5).sqrt()


@dataclass(frozen=True)
class Training:
    """The settings of a training by AdamW with one cycle of the learning rate. The best epoch by validation is kept."""

    epochs: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    batch: int = 64


def make(task: Task, model: str, separation: str, structure: str) -> nn.Module:
    """Make a network by the names of the command line."""
    if model == "dlinear":
        return DLinear(task.seen, task.horizon)
    if model == "nlinear":
        return NLinear(task.seen, task.horizon)
    return PatchNetwork(task.seen, task.patch, task.horizon, separation, STRUCTURES[structure]())


def trained(task: Task, model: str, separation: str, structure: str, seed: int, epochs: int) -> nn.Module:
    """Train a network, from a seed of its own; torch's generator is as before afterwards.

    Parameters
    ----------
    task : Task
        The series and the horizon.
    model : {"dlinear", "nlinear", "network"}
        Which network.
    separation, structure : str
        Of the network's associations.
    seed : int
        Of the weights at the beginning, the order of the windows, and dropout.
    epochs : int

    Returns
    -------
    Module
        With the weights of the epoch of least error on the validation part.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make(task, model, separation, structure)
        _train(network, task, Training(epochs))
    return network.eval()


def _train(network: nn.Module, task: Task, training: Training) -> None:
    """Train a network on all windows of the part to train with."""
    windows, targets = _pairs(task, task.origins("train"))
    steps = -(-len(windows) // training.batch)
    optimizer = torch.optim.AdamW(_groups(network, training.weight_decay), training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.epochs * steps
    )
    validation = task.some("validation")
    truth = task.truth(validation)
    best, weights = np.inf, network.state_dict()
    for _ in range(training.epochs):
        network.train()
        for chosen in torch.split(torch.randperm(len(windows)), training.batch):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(network(windows[chosen].flatten(0, 1)), targets[chosen].flatten(0, 1))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        error = float(np.mean((forecast(network.eval(), task, validation) - truth) ** 2))
        if error < best:
            best, weights = error, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters as AdamW takes them: decay would draw a learned beta to 1, its logarithm to 0."""
    named = list(network.named_parameters())
    betas = [parameter for name, parameter in named if name.endswith("log_scaling")]
    others = [parameter for name, parameter in named if not name.endswith("log_scaling")]
    return [{"params": others, "weight_decay": weight_decay}, {"params": betas, "weight_decay": 0.0}]


def windows_before(task: Task, origins: NDArray[np.int64]) -> Tensor:
    """Return windows (n, c, seen) that end before these rows."""
    rows = sliding_window_view(task.values.astype(np.float32), task.seen, axis=0)
    return torch.from_numpy(rows[origins - task.seen].copy())


def _pairs(task: Task, origins: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return windows (n, c, seen) that end before these rows, and what follows them, (n, c, horizon)."""
    followed = sliding_window_view(task.values.astype(np.float32), task.horizon, axis=0)[origins]
    return windows_before(task, origins), torch.from_numpy(followed.copy())


@torch.no_grad()
def forecast(network: nn.Module, task: Task, origins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Forecast from these rows on, (n, horizon, c)."""
    parts: list[Any] = []
    for chosen in np.array_split(origins, max(1, len(origins) // 256)):
        windows = windows_before(task, chosen)
        made: Tensor = network(windows.flatten(0, 1))
        parts.append(made.reshape(*windows.shape[:2], -1).transpose(1, 2).double().numpy())
    return np.concatenate(parts)


def support(network: nn.Module, task: Task, origins: NDArray[np.int64]) -> float:
    """Return the mean number of patches with weight, over layers, heads and patches; nan without an association."""
    if not isinstance(network, PatchNetwork) or network.layers[0].association.structure is not None:
        return float("nan")
    maps = network.maps(windows_before(task, origins).flatten(0, 1))
    return float(np.mean([torch.count_nonzero(one, -1).double().mean() for one in maps]))
