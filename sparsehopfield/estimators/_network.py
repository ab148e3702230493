"""The network of HopfieldMILClassifier: from bags to logits, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.separations import as_choice
from sparsehopfield._engine.structure import Structure
from sparsehopfield.estimators._bags import Bags
from sparsehopfield.layers import GELU, Dropout, Hopfield, HopfieldPooling, Linear, Module, ReLU, Sequential

LAYERS = ("pooling", "hopfield", "attention")
ACTIVATIONS: dict[str, Callable[[], Module]] = {"gelu": GELU, "relu": ReLU}


class _Embedding(Linear):
    """A linear layer that also takes sparse rows, a csr_array, and does no work for rows without a gradient.

    Under a sparse map these are all instances without weight.
    """

    def _forward(self, input: Any, *, train: bool = False) -> tuple[Array, Any]:
        """Map (R, input_size) to (R, output_size); dense rows may have any leading shape."""
        if not sparse.issparse(input):
            return super()._forward(input, train=train)
        out: Array = input @ np.ascontiguousarray(self.weight.value.T)
        return out if self.bias is None else np.add(out, self.bias.value, out=out), input

    def _backward(self, saved: Any, grad: Array, need_input_grad: bool) -> Array | None:
        """Add to the gradients of weight and bias; there is none of sparse rows."""
        if not sparse.issparse(saved):
            return super()._backward(saved, grad, need_input_grad)
        if self.bias is not None:
            self.bias.add(grad.sum(axis=0))
        moved = np.flatnonzero(grad.any(axis=1))
        if len(moved) < len(grad):
            saved, grad = saved[moved], grad[moved]
        self.weight.add(np.ascontiguousarray((saved.T @ grad).T))
        return None


class Network(Module):
    """Instances -> embedding -> layer over bags -> activation; then one vector a bag -> dropout -> linear -> logit.

    The parameters are HopfieldMILClassifier's. `random` is the Generator of initial weights and dropout.
    """

    def __init__(
        self,
        width: int,
        *,
        layer: str,
        separation: Separation,
        structure: Structure | None,
        embedding: Sequence[int],
        hidden_size: int,
        num_heads: int,
        output_size: int | None,
        quantity: int,
        beta: float | None,
        update_steps_max: int | None,
        normalize: bool,
        dropout: float,
        head_dropout: float,
        activation: str | None,
        initial_std: float,
        dtype: str,
        random: np.random.Generator,
    ) -> None:
        super().__init__({}, dtype, random)
        common: dict[str, Any] = {"dtype": dtype, "random_state": random}
        embedded: list[Module] = []
        for size in embedding:
            embedded += [(Linear if embedded else _Embedding)(width, size, **common), ReLU()]
            width = size
        as_choice("layer", layer, LAYERS)
        if activation is not None:
            as_choice("activation", activation, ACTIVATIONS)
        is_attention = layer == "attention"
        norms = {
            f"normalize_{role}{affine}": normalize and not is_attention
            for role in ("stored_pattern", "state_pattern", "pattern_projection")
            for affine in ("", "_affine")
        }
        options = {
            "hidden_size": hidden_size,
            "output_size": output_size,
            "num_heads": num_heads,
            "scaling": beta,
            "update_steps_max": 0 if is_attention else update_steps_max,
            "dropout": dropout,
            "separation": separation,
            "structure": structure,
            "initial_std": initial_std,
            **norms,
            **common,
        }
        self.pools, self.num_heads = layer == "pooling", num_heads
        self.layer: Hopfield | HopfieldPooling
        if self.pools:
            self.layer = HopfieldPooling(width, quantity=quantity, **options)
        else:
            self.layer, quantity = Hopfield(width, **options), 1
        features = quantity * (width if output_size is None else output_size)
        self.body = Sequential(*embedded, self.layer, *([] if activation is None else [ACTIVATIONS[activation]()]))
        self.head = Sequential(Dropout(head_dropout, random_state=random), Linear(features, 1, **common))
        self._inner = {"body": self.body, "head": self.head}

    def pooled(self, bags: Bags, *, train: bool = False) -> Array:
        """Compute one vector for each bag: the results of the learned queries side by side, or the mean of all."""
        options = {} if bags.offsets is None else {"offsets": bags.offsets}
        out = self.body.forward(bags.rows, train=train, **options)
        self._bags, self._shape = bags, out.shape
        if self.pools:
            return out.reshape(len(bags), math.prod(out.shape[1:]))
        if bags.offsets is None:
            return out.mean(axis=1)
        return np.add.reduceat(out, bags.offsets[:-1]) / bags.sizes[:, None].astype(out.dtype)

    def forward(self, input: Bags, *, train: bool = False) -> Array:
        """Compute the logits, (B,)."""
        return self.head.forward(self.pooled(input, train=train), train=train)[:, 0]

    def backward(self, grad: Any, need_input_grad: bool = False) -> None:
        """Add to the parameters' gradients, from that in the logits; instances are data and get none."""
        bags = self._bags
        g = self.head.backward(np.asarray(grad, self.dtype)[:, None])
        if not self.pools:
            g = g / bags.sizes[:, None].astype(g.dtype)
            g = g[:, None] if bags.offsets is None else np.repeat(g, bags.sizes, axis=0)
            g = np.broadcast_to(g, self._shape)
        self.body.backward(g.reshape(self._shape), need_input_grad=False)

    def weights(self, bags: Bags) -> list[Array]:
        """Compute the weight of each instance in the last association, averaged over the queries: (H, M_i) for each
        bag.
        """
        rows, options = bags.rows, {} if bags.offsets is None else {"offsets": bags.offsets}
        for module in self.body.layers[: self.body.layers.index(self.layer)]:
            rows = module.forward(rows)
        weights = self.layer.associations(rows, **options)
        H, M = self.num_heads, int(bags.sizes.max())
        dense = weights if isinstance(weights, np.ndarray) else weights.toarray().reshape(len(bags), H, -1, M)
        return [
            np.ascontiguousarray(w[:, : None if self.pools else size, :size].mean(axis=1))
            for w, size in zip(dense, bags.sizes, strict=True)
        ]
