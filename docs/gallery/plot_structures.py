"""
Which pairs are computed
========================

A structure says which patterns a query sees. Pairs outside of it cost nothing. Each picture has one row a query and
one column a pattern; dark pairs are computed.
"""

import matplotlib.pyplot as plt
import numpy as np

from sparsehopfield.structures import BlockSparse, DilatedBlocks, RandomMask, TopK, Window

# %%
# Sixty-four queries that are the patterns themselves, as in a layer that attends to its own sequence.
n, d = 64, 16
lower = np.tril(np.ones((8, 8), dtype=bool))
structures = {
    "Window(6)": Window(6),
    "Window(6, causal=True)": Window(6, causal=True),
    "Window(6, dilation=4)": Window(6, dilation=4),
    "Window(4, global_positions=(0, 32))": Window(4, global_positions=(0, 32)),
    "BlockSparse(lower, 8)": BlockSparse(lower, 8),
    "DilatedBlocks(32, 4)": DilatedBlocks(32, 4),
    "RandomMask(8)": RandomMask(8),
    "TopK(8)": TopK(8),
}

# %%
# The mask of most structures depends on places alone; that of ``TopK`` depends on the scores.
x = np.random.default_rng(0).standard_normal((n, d))
scores = x @ x.T
figure, axes = plt.subplots(2, 4, figsize=(10, 5.4), layout="constrained")
for ax, (name, structure) in zip(axes.flat, structures.items(), strict=True):
    if isinstance(structure, TopK):
        mask = scores >= np.sort(scores, axis=1)[:, [-8]]
    else:
        mask = structure.mask(n, n)
    ax.imshow(mask, cmap="Blues", vmin=0, vmax=1.2)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{name}\n{mask.mean():.0%} of the pairs", fontsize=9)
plt.show()
