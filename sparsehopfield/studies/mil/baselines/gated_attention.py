"""Gated attention: a bag is the weighted mean of its instances, the weights from a small network."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sparsehopfield import layers, optim
from sparsehopfield._engine.checks import Array, as_generator, as_number, as_whole
from sparsehopfield.studies.mil.baselines._base import BagClassifier, Floats, Ints

BATCH = 8


class GatedAttention(BagClassifier):
    """Attention-based pooling with a gate.

    An instance passes a linear layer with a ReLU and is h then; its weight is the softmax, over its bag, of
    w'(tanh(V h) * sigmoid(U h)). The weighted mean of a bag passes a linear layer.

    Parameters
    ----------
    embedding, attention : int, at least 1
        Sizes of h and of V h.
    epochs : int, at least 1
    learning_rate, weight_decay : float of at least 0
        Of AdamW.
    random_state : int

    Notes
    -----
    Simpler than the paper: one linear layer instead of three, batches of 8 bags instead of 1, and dropout of half of
    the pooled vector.

    References
    ----------
    Ilse, Tomczak and Welling 2018, "Attention-based deep multiple instance learning".
    """

    def __init__(
        self,
        embedding: int = 64,
        attention: int = 32,
        epochs: int = 30,
        learning_rate: float = 1e-3,
        weight_decay: float = 5e-3,
        random_state: int = 0,
    ) -> None:
        self.embedding = embedding
        self.attention = attention
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state

    def _check(self) -> None:
        for name in ("embedding", "attention", "epochs"):
            as_whole(name, getattr(self, name), 1)
        for name in ("learning_rate", "weight_decay"):
            as_number(name, getattr(self, name), least=0.0)
        as_generator("random_state", self.random_state)

    def _fit(self, rows: Floats, offsets: Ints, positive: NDArray[np.bool_]) -> None:
        rng = np.random.default_rng(self.random_state)
        self._embed = layers.Sequential(layers.Linear(rows.shape[1], self.embedding, random_state=rng), layers.ReLU())
        self._pool = _GatedPooling(self.embedding, self.attention, rng)
        self._head = layers.Sequential(
            layers.Dropout(0.5, random_state=rng), layers.Linear(self.embedding, 1, random_state=rng)
        )
        layered = (self._embed, self._pool.both, self._pool.score, self._head)
        moved = [parameter for layer in layered for parameter in layer.parameters().values()]
        optimizer = optim.AdamW(moved, learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        bags = [np.asarray(rows[a:b], np.float32) for a, b in pairwise(offsets)]
        for _ in range(self.epochs):
            order = rng.permutation(len(bags))
            for batch in np.split(order, range(BATCH, len(order), BATCH)):
                sizes = [len(bags[i]) for i in batch]
                logits = self._logits(np.concatenate([bags[i] for i in batch]), np.cumsum([0, *sizes]), train=True)
                slope = ((expit(logits) - positive[batch]) / len(batch)).astype(np.float32)
                grad = self._pool.backward(self._head.backward(slope[:, None]))
                self._embed.backward(grad, need_input_grad=False)
                optimizer.step()
                optimizer.zero_grad()

    def _scores(self, rows: Floats, offsets: Ints) -> Floats:
        return self._logits(rows.astype(np.float32), offsets)

    def _logits(self, rows: Array, offsets: Ints, *, train: bool = False) -> Array:
        hidden = self._embed.forward(rows, train=train)
        return self._head.forward(self._pool.forward(hidden, offsets), train=train)[:, 0]

    def bag_weights(self, bags: list[Array]) -> list[Array]:
        """Compute the weight of each instance of each bag.

        Parameters
        ----------
        bags : list of ndarray of shape (M_i, d)

        Returns
        -------
        list of ndarray of shape (M_i,)
            They sum to 1.
        """
        offsets = np.cumsum([0, *map(len, bags)])
        self._logits(np.concatenate(bags).astype(np.float32), offsets)
        return np.split(self._pool.weights, offsets[1:-1])


class _GatedPooling:
    """The weighted mean of each bag, (B, h), and the gradients through it."""

    def __init__(self, width: int, attention: int, rng: np.random.Generator) -> None:
        self.both = layers.Linear(width, 2 * attention, random_state=rng)  # V and U below one another
        self.score = layers.Linear(attention, 1, random_state=rng)

    def forward(self, hidden: Array, offsets: Ints) -> Array:
        first, sizes = offsets[:-1], np.diff(offsets)
        self.hidden, self.first, self.sizes = hidden, first, sizes
        content, gate = np.split(self.both.forward(hidden), 2, axis=1)
        self.content, self.gate = np.tanh(content), expit(gate)
        scores = self.score.forward(self.content * self.gate)[:, 0]
        raised = np.exp(scores - np.repeat(np.maximum.reduceat(scores, first), sizes))
        self.weights = raised / np.repeat(np.add.reduceat(raised, first), sizes)
        return np.add.reduceat(self.weights[:, None] * hidden, first)

    def backward(self, grad: Array) -> Array:
        """Add to the parameters' gradients, from that in the weighted means; return that in the instances."""
        grad = np.repeat(grad, self.sizes, axis=0)
        slopes = (grad * self.hidden).sum(axis=1)  # in the weights
        slopes -= np.repeat(np.add.reduceat(self.weights * slopes, self.first), self.sizes)
        through = self.score.backward((self.weights * slopes)[:, None])
        both = [through * self.gate * (1 - self.content**2), through * self.content * self.gate * (1 - self.gate)]
        return self.weights[:, None] * grad + self.both.backward(np.concatenate(both, axis=1))
