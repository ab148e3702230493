"""Networks of the study of time series, in PyTorch: linear ones, and a transformer of patches with Hopfield layers.

All columns share one network, which sees a window of a single one and forecasts what follows it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsehopfield._engine.structure import Structure
from sparsehopfield.structures import RandomFeatures, Window
from sparsehopfield.studies.series.task import Task
from sparsehopfield.torch import Hopfield

#: Rows of a window, and of a patch of it.
LOOK_BACK, PATCH = 336, 24
#: Width of the transformer, heads, features of the feed-forward part, layers, dropout.
WIDTH, HEADS, FORWARD, LAYERS, DROPOUT = 32, 4, 64, 2, 0.2
#: beta at the beginning, times the square root of a head's width: sparse maps with 1 begin with supports of two tokens.
SCALING = {"softmax": 1.0, "sparsemax": 0.25, "entmax15": 0.5}
#: The structures of the transformer's associations, by the names of the command line.
STRUCTURES: dict[str, Callable[[], Structure | None]] = {
    "all": lambda: None,
    "window": lambda: Window(2),
    "features": lambda: RandomFeatures(16, seed=0),
}


class NLinear(nn.Module):
    """One linear map of the window less its last row (Zeng et al. 2023)."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.linear = nn.Linear(LOOK_BACK, horizon)

    def forward(self, windows: Tensor) -> Tensor:
        """Forecast from windows (n, LOOK_BACK), (n, horizon)."""
        last = windows[:, -1:]
        forecast: Tensor = self.linear(windows - last) + last
        return forecast


class DLinear(nn.Module):
    """Two linear maps: of a moving average over 25 rows, and of the rest (Zeng et al. 2023)."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.trend, self.rest = nn.Linear(LOOK_BACK, horizon), nn.Linear(LOOK_BACK, horizon)
        self.average = nn.AvgPool1d(25, stride=1)

    def forward(self, windows: Tensor) -> Tensor:
        """Forecast from windows (n, LOOK_BACK), (n, horizon)."""
        padded = nn.functional.pad(windows[:, None], (12, 12), mode="replicate")
        trend = self.average(padded)[:, 0]
        forecast: Tensor = self.trend(trend) + self.rest(windows - trend)
        return forecast


class Block(nn.Module):
    """A layer of the transformer: an association and a feed-forward part, each normalised before and added."""

    def __init__(self, separation: str, structure: Structure | None) -> None:
        super().__init__()
        self.association = Hopfield(
            WIDTH,
            num_heads=HEADS,
            scaling=SCALING[separation] / (WIDTH // HEADS) ** 0.5,
            separation=separation,
            structure=structure,
            learnable_scaling=True,
        )
        self.forward_part = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, FORWARD), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(FORWARD, WIDTH)
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (n, patches, WIDTH)."""
        tokens = tokens + self.dropout(self.association(tokens))
        tokens = tokens + self.dropout(self.forward_part(tokens))
        return tokens


class PatchNetwork(nn.Module):
    """A transformer of the patches of a normalised window (after Nie et al. 2023), with Hopfield associations."""

    def __init__(self, horizon: int, separation: str, structure: Structure | None) -> None:
        super().__init__()
        patches = LOOK_BACK // PATCH
        self.embedding = nn.Linear(PATCH, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(patches, WIDTH))
        self.blocks = nn.Sequential(*(Block(separation, structure) for _ in range(LAYERS)))
        self.head = nn.Sequential(nn.Flatten(1), nn.Dropout(DROPOUT), nn.Linear(patches * WIDTH, horizon))

    def forward(self, windows: Tensor) -> Tensor:
        """Forecast from windows (n, LOOK_BACK), (n, horizon)."""
        mean, unit = windows.mean(1, keepdim=True), (windows.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        tokens = self.embedding(((windows - mean) / unit).reshape(len(windows), -1, PATCH)) + self.places
        forecast: Tensor = self.head(self.blocks(tokens)) * unit + mean
        return forecast


@dataclass(frozen=True)
class Training:
    """The settings of a training by AdamW with one cycle of the learning rate. The best epoch by validation is kept."""

    epochs: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    batch: int = 64


def make(model: str, separation: str, structure: str, horizon: int) -> nn.Module:
    """Make a network by the names of the command line."""
    if model == "dlinear":
        return DLinear(horizon)
    if model == "nlinear":
        return NLinear(horizon)
    return PatchNetwork(horizon, separation, STRUCTURES[structure]())


def trained(task: Task, model: str, separation: str, structure: str, seed: int, epochs: int) -> nn.Module:
    """Train a network, from a seed of its own; torch's generator is as before afterwards.

    Parameters
    ----------
    task : Task
        The series and the horizon.
    model : {"dlinear", "nlinear", "network"}
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
        network = make(model, separation, structure, task.horizon)
        _train(network, task, Training(epochs))
    return network.eval()


def _train(network: nn.Module, task: Task, training: Training) -> None:
    """Train a network on all windows of the part to train with."""
    windows, targets = _pairs(task, task.origins("train"))
    steps = -(-len(windows) // training.batch)
    optimizer = torch.optim.AdamW(network.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.epochs * steps
    )
    validation = task.origins("validation")[::4]
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


def _pairs(task: Task, origins: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return windows (n, c, LOOK_BACK) that end before these rows, and what follows them, (n, c, horizon)."""
    rows = task.values.astype(np.float32)
    windows = sliding_window_view(rows, LOOK_BACK, axis=0)[origins - LOOK_BACK]
    followed = sliding_window_view(rows, task.horizon, axis=0)[origins]
    return torch.from_numpy(windows.copy()), torch.from_numpy(followed.copy())


@torch.no_grad()
def forecast(network: nn.Module, task: Task, origins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Forecast from these rows on, (n, horizon, c)."""
    rows = task.values.astype(np.float32)
    windows = sliding_window_view(rows, LOOK_BACK, axis=0)
    parts: list[Any] = []
    for chosen in np.array_split(origins, max(1, len(origins) // 256)):
        tokens = torch.from_numpy(windows[chosen - LOOK_BACK].copy())
        made: Tensor = network(tokens.flatten(0, 1))
        parts.append(made.reshape(*tokens.shape[:2], -1).transpose(1, 2).double().numpy())
    return np.concatenate(parts)
