"""The network of the study of translation: an encoder and a decoder whose attention is Hopfield associations.

Letters: B sentences; N pieces of a target, M of a source; H heads of d features; e features of a piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsehopfield._engine.separations import Normmax
from sparsehopfield._engine.structure import Structure
from sparsehopfield.structures import RandomFeatures, TopK, Window
from sparsehopfield.studies.translation.parts import HEADS, LAYERS, PLACES
from sparsehopfield.studies.translation.text import PAD
from sparsehopfield.torch import associate

#: The separation maps by the names of the command line, as associations take them.
MAPS: dict[str, Any] = {
    "softmax": "softmax",
    "sparsemax": "sparsemax",
    "entmax15": "entmax15",
    "normmax": Normmax(2.0),
}
CAUSAL = Window(2**40, causal=True)  # wider than any sentence
#: Of structures: the pieces of a window on either side, how many best ones, and the random features.
NEAR, BEST, FEATURES = 2, 4, 64


@dataclass(frozen=True)
class Shape:
    """The sizes of a network: features of a piece and of the feed-forward part, heads, layers of each half, dropout."""

    width: int = 128
    forward: int = 256
    heads: int = HEADS
    layers: int = LAYERS
    dropout: float = 0.1


def structure_of(name: str, n: int, m: int, causal: bool) -> Structure | None:
    """Return which of m keys n queries see; None for all.

    Parameters
    ----------
    name : str
        One of `STRUCTURES`.
    n, m : int
    causal : bool
        Whether the queries are the last of the keys, and see none behind themselves. They are all keys or the very last
        one, behind which there is none. `TopK` has no such order: it needs a mask.

    Examples
    --------
    >>> structure_of("window", 1, 6, causal=True).mask(1, 6).astype(int)
    array([[0, 0, 0, 1, 1, 1]])
    """
    if name == "window":
        return Window(NEAR, causal=causal, positions=None if n == m else range(m - n, m))
    if name == "topk":
        return TopK(BEST)
    has_later = causal and n > 1
    if name == "features":
        return RandomFeatures(FEATURES, causal=has_later)
    return CAUSAL if has_later else None


class Association(nn.Module):
    """Associations of all heads with one map and one beta, which may be learned for each head.

    Parameters
    ----------
    separation : str
        One of `MAPS`.
    beta : float
        In units of 1 / sqrt(d).
    is_learned : bool
        Whether beta is where each head begins.
    heads, size : int
        Heads and features of each.
    structure : str
        One of `STRUCTURES`.
    """

    def __init__(
        self, separation: str, beta: float, is_learned: bool, heads: int, size: int, structure: str = "all"
    ) -> None:
        super().__init__()
        self.separation, self.structure = MAPS[separation], structure
        self.scale = beta / math.sqrt(size)
        self.log_beta = nn.Parameter(torch.full((heads,), math.log(self.scale))) if is_learned else None

    def beta(self) -> float | Tensor:
        """Return beta, a number, or one for each head."""
        return self.scale if self.log_beta is None else self.log_beta.double().exp()

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Return mixtures of values (B, N, H * d) of queries (B, N, H, d), keys and values (B, M, H, d).

        padding: bool (B, M), True where there is no key. causal: the queries are the last of the keys, all or one, and
        see none behind themselves.
        """
        return self._mixed(queries, keys, values, padding, causal).flatten(2)

    def weights(self, queries: Tensor, keys: Tensor, padding: Tensor | None = None, causal: bool = False) -> Tensor:
        """Return the weights (B, H, N, M) with which `forward` mixes; hidden keys have exactly 0."""
        m = keys.shape[1]
        units = torch.eye(m).expand(len(keys), m, m)[:, :, None]  # what is mixed of these are the weights themselves
        return self._mixed(queries, keys, units, padding, causal).transpose(1, 2)

    def _mixed(self, queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor | None, causal: bool) -> Tensor:
        """Return mixtures (B, N, H, v) of values (B, M, H or 1, v)."""
        n, m = queries.shape[1], keys.shape[1]
        by_mask = causal and n > 1 and self.structure == "topk"
        return associate(
            queries,
            keys,
            values,
            self.beta(),
            separation=self.separation,
            padding_mask=padding,
            mask=torch.ones(n, m, dtype=torch.bool).triu(1) if by_mask else None,
            structure=structure_of(self.structure, n, m, causal),
        )


class FeedForward(nn.Sequential):
    """The part of a layer that sees each piece by itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(
            nn.LayerNorm(shape.width),
            nn.Linear(shape.width, shape.forward),
            nn.ReLU(),
            nn.Linear(shape.forward, shape.width),
        )


class SelfPart(nn.Module):
    """The part of a layer in which pieces of one sentence are associated; one product makes all projections."""

    def __init__(self, association: Association, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm = nn.LayerNorm(shape.width)
        self.project = nn.Linear(shape.width, 3 * shape.width)
        self.association = association
        self.out = nn.Linear(shape.width, shape.width)

    def projected(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values (B, N, H, d)."""
        return self.project(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)

    def forward(self, x: Tensor, padding: Tensor | None, causal: bool) -> Tensor:
        """Return what is added to x."""
        made: Tensor = self.out(self.association(*self.projected(x), padding, causal))
        return made


class CrossPart(nn.Module):
    """The part of a decoder's layer in which pieces of the target are associated with those of the source."""

    def __init__(self, association: Association, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm = nn.LayerNorm(shape.width)
        self.project = nn.Linear(shape.width, shape.width)
        self.association = association
        self.out = nn.Linear(shape.width, shape.width)

    def projected(self, x: Tensor) -> Tensor:
        """Return queries (B, N, H, d)."""
        return self.project(self.norm(x)).unflatten(-1, (self.heads, -1))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, padding: Tensor | None) -> Tensor:
        """Return what is added to x."""
        made: Tensor = self.out(self.association(self.projected(x), keys, values, padding))
        return made


class Memory(NamedTuple):
    """Source sentences as the decoder sees them."""

    keys: tuple[Tensor, ...]  # of each layer, (B, M, H, d)
    values: tuple[Tensor, ...]
    padding: Tensor | None  # bool (B, M), True where there is no piece

    def rows(self, chosen: Tensor) -> Memory:
        """Return the sentences at these positions."""
        padding = None if self.padding is None else self.padding[chosen]
        return Memory(tuple(k[chosen] for k in self.keys), tuple(v[chosen] for v in self.values), padding)


class Past(NamedTuple):
    """Target sentences as far as they are decoded: keys and values of each layer, (B, N, H, d)."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def rows(self, chosen: Tensor) -> Past:
        """Return the sentences at these positions."""
        return Past(tuple(k[chosen] for k in self.keys), tuple(v[chosen] for v in self.values))


def _modules(modules: Iterable[nn.Module]) -> Any:
    """Return modules as a list of which torch knows the parameters, and type checkers what it is of."""
    return nn.ModuleList(modules)


class Translator(nn.Module):
    """An encoder and a decoder with Hopfield associations, normalised before each part; one embedding for both
    languages, and for the scores of the next piece.

    Parameters
    ----------
    pieces : int
        Size of the vocabulary.
    maps : sequence of 3 str
        The separation maps of encoder, decoder and cross-association, of `MAPS`.
    betas : sequence of 3 float
        Their betas, in units of 1 / sqrt(d).
    is_learned : bool
        Whether each head learns its beta, from these on.
    structure : str
        Which pieces associations see, of `STRUCTURES`. A piece of the target has no place in the source, so that a
        window is of encoder and decoder alone, and the cross-association sees all.
    shape : Shape
    longest : int
        Pieces of the longest sentence.
    """

    places: Tensor
    encoder: Sequence[SelfPart]
    encoder_forward: Sequence[FeedForward]
    decoder: Sequence[SelfPart]
    cross: Sequence[CrossPart]
    decoder_forward: Sequence[FeedForward]

    def __init__(
        self,
        pieces: int,
        maps: Sequence[str],
        betas: Sequence[float],
        *,
        is_learned: bool = False,
        structure: str = "all",
        shape: Shape | None = None,
        longest: int = 512,
    ) -> None:
        super().__init__()
        shape = shape or Shape()
        self.shape, self.heads = shape, shape.heads
        size = shape.width // shape.heads

        def association(place: int) -> Association:
            seen = "all" if structure == "window" and PLACES[place] == "cross" else structure
            return Association(maps[place], betas[place], is_learned, shape.heads, size, seen)

        self.embedding = nn.Embedding(pieces, shape.width, padding_idx=PAD)
        self.encoder = _modules(SelfPart(association(0), shape) for _ in range(shape.layers))
        self.encoder_forward = _modules(FeedForward(shape) for _ in range(shape.layers))
        self.encoder_norm = nn.LayerNorm(shape.width)
        self.to_memory = nn.Linear(shape.width, shape.layers * 2 * shape.width)  # keys and values of all layers
        self.decoder = _modules(SelfPart(association(1), shape) for _ in range(shape.layers))
        self.cross = _modules(CrossPart(association(2), shape) for _ in range(shape.layers))
        self.decoder_forward = _modules(FeedForward(shape) for _ in range(shape.layers))
        self.decoder_norm = nn.LayerNorm(shape.width)
        self.dropout = nn.Dropout(shape.dropout)
        self.register_buffer("places", sinusoids(longest, shape.width), persistent=False)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw the weights, matrices with more rows than features in square parts: each is drawn by its own size."""
        width = self.shape.width
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        with torch.no_grad():
            self.embedding.weight[PAD] = 0
        for module in self.modules():
            if isinstance(module, nn.Linear):
                for part in torch.split(
                    module.weight, width if len(module.weight) % width == 0 else len(module.weight)
                ):
                    nn.init.xavier_uniform_(part)
                nn.init.zeros_(module.bias)

    def _embedded(self, pieces: Tensor, first: int = 0) -> Tensor:
        """Return features (B, N, e) of pieces (B, N), whose first one is at this position."""
        places = self.places[first : first + pieces.shape[1]]
        return self.dropout(self.embedding(pieces) * math.sqrt(self.shape.width) + places)

    def encode(self, sources: Tensor) -> Memory:
        """Return what the decoder sees of source sentences (B, M), padded with PAD."""
        padding = sources == PAD
        return self.memory(self.encoded(sources, padding), padding)

    def encoded(self, sources: Tensor, padding: Tensor) -> Tensor:
        """Return the encoder's features (B, M, e)."""
        x = self._embedded(sources)
        for part, forward in zip(self.encoder, self.encoder_forward, strict=True):
            x = x + self.dropout(part(x, padding, False))
            x = x + self.dropout(forward(x))
        return self.encoder_norm(x)

    def memory(self, encoded: Tensor, padding: Tensor) -> Memory:
        """Return the decoder's keys and values of all layers."""
        rows = self.to_memory(encoded).unflatten(-1, (self.shape.layers, 2, self.heads, -1))
        keys, values = rows.unbind(3)
        return Memory(keys.unbind(2), values.unbind(2), padding)

    def decode(self, memory: Memory, targets: Tensor) -> Tensor:
        """Return features (B, N, e), from which the piece behind each of the target's first ones is told.

        No position sees what is behind it, so that padding at the end needs no mask.
        """
        x = self._embedded(targets)
        layers = zip(self.decoder, self.cross, self.decoder_forward, memory.keys, memory.values, strict=True)
        for part, cross, forward, keys, values in layers:
            x = x + self.dropout(part(x, None, True))
            x = x + self.dropout(cross(x, keys, values, memory.padding))
            x = x + self.dropout(forward(x))
        return self.decoder_norm(x)

    def begin(self) -> Past:
        """Return an empty past."""
        return Past((), ())

    def step(self, memory: Memory, past: Past, pieces: Tensor) -> tuple[Tensor, Past]:
        """Return log-probabilities (B, V) of the piece behind the last one, (B,), and the new past."""
        at = past.keys[0].shape[1] if past.keys else 0
        x = self._embedded(pieces[:, None], at)
        all_keys, all_values = [], []
        for layer, (part, cross, forward) in enumerate(
            zip(self.decoder, self.cross, self.decoder_forward, strict=True)
        ):
            queries, keys, values = part.projected(x)
            if past.keys:
                keys = torch.cat([past.keys[layer], keys], 1)
                values = torch.cat([past.values[layer], values], 1)
            all_keys.append(keys)
            all_values.append(values)
            x = x + part.out(part.association(queries, keys, values, None, True))
            x = x + cross(x, memory.keys[layer], memory.values[layer], memory.padding)
            x = x + forward(x)
        scores = F.linear(self.decoder_norm(x)[:, 0], self.embedding.weight)
        return scores.log_softmax(-1), Past(tuple(all_keys), tuple(all_values))

    def forward(self, sources: Tensor, targets: Tensor) -> Tensor:
        """Return features (B, N, e) behind each of the target's first pieces."""
        return self.decode(self.encode(sources), targets)

    @torch.no_grad()
    def weights(self, sources: Tensor, targets: Tensor) -> dict[str, list[Tensor]]:
        """Return the weights of all associations, by place and layer, (B, H, N, M); hidden keys have exactly 0."""
        padding = sources == PAD
        found: dict[str, list[Tensor]] = {place: [] for place in PLACES}
        x = self._embedded(sources)
        for part, forward in zip(self.encoder, self.encoder_forward, strict=True):
            queries, keys, _ = part.projected(x)
            found["encoder"].append(part.association.weights(queries, keys, padding))
            x = x + part(x, padding, False)
            x = x + forward(x)
        memory = self.memory(self.encoder_norm(x), padding)
        x = self._embedded(targets)
        layers = zip(self.decoder, self.cross, self.decoder_forward, memory.keys, memory.values, strict=True)
        for part, cross, forward, source_keys, source_values in layers:
            queries, keys, _ = part.projected(x)
            found["decoder"].append(part.association.weights(queries, keys, None, True))
            x = x + part(x, None, True)
            found["cross"].append(cross.association.weights(cross.projected(x), source_keys, padding))
            x = x + cross(x, source_keys, source_values, padding)
            x = x + forward(x)
        return found


def sinusoids(longest: int, width: int) -> Tensor:
    """Return the features of positions, (longest, width): sines and cosines (Vaswani et al. 2017, section 3.5)."""
    angles = torch.arange(longest)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class _Loss(torch.autograd.Function):
    """The cross-entropy of `smoothed_loss`, whose gradient is made in the forward pass, in the memory of the scores."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        n, v = len(features), len(weight)
        scores = features @ weight.T
        rows = torch.arange(n)
        mean = features @ weight.mean(0)
        wanted = scores[rows, targets]
        largest, at = scores.max(-1)
        torch.softmax(scores, -1, out=scores)
        normaliser = largest - scores[rows, at].log()  # log sum exp, by a probability that is at least 1 / V
        loss = (normaliser - (1 - smoothing) * wanted - smoothing * mean).mean()
        scores[rows, targets] -= 1 - smoothing
        dfeatures = scores @ weight - (smoothing / v) * weight.sum(0)
        dweight = scores.T @ features - (smoothing / v) * features.sum(0)
        ctx.save_for_backward(dfeatures.div_(n), dweight.div_(n))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        dfeatures, dweight = ctx.saved_tensors
        return grad * dfeatures, grad * dweight, None, None


def smoothed_loss(features: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy of scores `features @ weight.T` with smoothed labels.

    As `torch.nn.functional.cross_entropy` with `label_smoothing` gives it, but with a single array of all scores.

    Parameters
    ----------
    features : Tensor of shape (n, e)
    weight : Tensor of shape (V, e)
    targets : Tensor of int64, shape (n,)
    smoothing : float
        The share of a label that is spread over all V.
    """
    loss: Tensor = _Loss.apply(features, weight, targets, smoothing)  # type: ignore[no-untyped-call]
    return loss
