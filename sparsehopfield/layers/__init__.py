"""Layers that train without a deep-learning framework: Hopfield layers as hflayers' users know them, dense and sparse.

A layer is an object with `forward(x, train=False)`, which remembers what `backward(grad)` needs; gradients add up in
`parameters()` until `zero_grad()`, and `sparsehopfield.optim` moves the parameters. `state_dict` has hflayers' names
and shapes, so that its checkpoints load.

>>> import numpy as np
>>> from sparsehopfield import layers, optim
>>> bags = np.random.default_rng(0).standard_normal((6, 10, 4))  # 6 bags of 10 instances of 4 features
>>> model = layers.Sequential(
...     layers.SparseHopfieldPooling(4, hidden_size=8, num_heads=2, random_state=0), layers.Linear(4, 1, random_state=1)
... )
>>> optimizer = optim.AdamW(model)
>>> logits = model.forward(bags, train=True)
>>> loss, grad = layers.binary_cross_entropy_with_logits(logits, np.ones((6, 1)))
>>> model.backward(grad, need_input_grad=False)
>>> optimizer.step()
"""

from sparsehopfield.layers._basic import (
    GELU,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    ReLU,
    Sequential,
    binary_cross_entropy_with_logits,
    mean_squared_error,
)
from sparsehopfield.layers._health import GradientHealth, gradient_health
from sparsehopfield.layers._hopfield import Hopfield, SparseHopfield
from sparsehopfield.layers._learned import HopfieldLayer, HopfieldPooling, SparseHopfieldLayer, SparseHopfieldPooling
from sparsehopfield.layers._module import Module, Parameter, load

__all__ = [
    "GELU",
    "Dropout",
    "Flatten",
    "GradientHealth",
    "Hopfield",
    "HopfieldLayer",
    "HopfieldPooling",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "SparseHopfield",
    "SparseHopfieldLayer",
    "SparseHopfieldPooling",
    "binary_cross_entropy_with_logits",
    "gradient_health",
    "load",
    "mean_squared_error",
]
