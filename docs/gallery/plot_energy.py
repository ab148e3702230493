"""
Energy along a retrieval
========================

Every step of a retrieval lowers the energy of the state, until nothing moves. With the sparsemax map it may come to
rest exactly on a stored pattern, or on a mixture of a few.
"""

import matplotlib.pyplot as plt
import numpy as np

import sparsehopfield as sh
from sparsehopfield.data import datasets
from sparsehopfield.inspect import plots

# %%
# The 1,797 digits that come with scikit-learn are stored. Six of them, with noise on every pixel, are the queries.
digits = datasets.load_digits().pixels().astype(np.float64)
chosen = [3, 300, 600, 900, 1200, 1500]
queries = digits[chosen] + 0.3 * np.random.default_rng(0).standard_normal((6, 64))

# %%
# A small beta averages many digits. At a large one the nearest digit soon has all the weight: the lines end at the
# step after which nothing moves. The energy is lowest at the stored patterns themselves, where it is 0 with euclidean
# similarity.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for ax, beta in zip(axes, (0.3, 3.0), strict=True):
    memory = sh.HopfieldMemory(digits, beta, similarity="euclidean")
    plots.energy_path(memory, queries, max_steps=8, labels=[f"digit {i}" for i in chosen], ax=ax)
    ax.set_title(f"beta {beta:g}")

# %%
# No step raises the energy.
for ax in axes:
    assert all((np.diff(line.get_ydata()) <= 1e-12).all() for line in ax.lines)
plt.show()
