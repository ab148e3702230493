"""
Attention over a sequence
=========================

A Hopfield layer is an attention over a sequence: each position asks, and is answered by a mixture of positions. The
map shows which ones, one row a question.
"""

import matplotlib.pyplot as plt
import numpy as np

from sparsehopfield import layers
from sparsehopfield.inspect import plots

# %%
# A sentence as a sequence of vectors: a vector for each word, and waves of four lengths that say where it stands.
words = "the cat that the dog saw saw the bird that the cat heard".split()
rng = np.random.default_rng(0)
vector_of = {word: rng.standard_normal(16) for word in sorted(set(words))}
phase = np.arange(len(words))[:, None] / 2.0 ** np.arange(1, 5)
sequence = np.stack([vector_of[word] for word in words])
sequence = np.hstack([sequence, np.sin(phase), np.cos(phase)])[None]

# %%
# Two layers without projections, so that words are compared as they are, and no training is needed: every word looks
# at itself and, the less the farther away, at the same word elsewhere.
options = {
    "state_pattern_as_static": True,
    "stored_pattern_as_static": True,
    "scaling": 0.25,
    "random_state": 0,
}
figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
for ax, kind in zip(axes, (layers.Hopfield, layers.SparseHopfield), strict=True):
    weights = kind(24, **options).get_association_matrix(sequence)[0, 0]
    plots.attention_map(weights, queries=words, keys=words, ax=ax)
    ax.set_title(f"{kind.__name__}: {np.mean(weights == 0):.0%} of the weights are 0")

# %%
# Softmax lets every word see every other a little; sparsemax gives most of them a weight of exactly 0, drawn grey.
# Several heads make a row of maps, on one scale of colours. These have projections, which no training has shaped yet.
layer = layers.SparseHopfield(24, num_heads=3, scaling=0.5, initial_std=0.3, random_state=0)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained", sharey=True)
for ax in plots.attention_map(layer.get_association_matrix(sequence)[0], ax=axes):
    ax.label_outer()
plt.show()
