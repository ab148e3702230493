"""
A chain of associations
=======================

A memory mixes its values, which need not be its patterns. Where the value of each pattern is the next one of a
sequence, every update moves on by one.
"""

import matplotlib.pyplot as plt
import numpy as np

import sparsehopfield as sh
from sparsehopfield.data import datasets

# %%
# For each of the digits 0 to 9 one image is the key; its value is the image of the digit that follows, and 9 is
# followed by 0.
data = datasets.load_digits()
images = data.pixels()[:10]  # scikit-learn's first ten are the digits 0 to 9
memory = sh.HopfieldMemory(images, beta=2.0, values=np.roll(images, -1, axis=0), similarity="euclidean")

# %%
# The first query is a noisy 3. One update recalls the 4 that follows it, without the noise, and so on.
state = images[3] + 0.3 * np.random.default_rng(1).standard_normal(64, dtype=np.float32)
path = [state]
for _ in range(8):
    path.append(memory.update(path[-1]))
place = [int(np.flatnonzero((images == state).all(axis=1))[0]) for state in path[1:]]
print("recalled:", place)

# %%
# From the left: the query, and what each update makes of the state before.
figure, axes = plt.subplots(1, len(path), figsize=(10, 1.6), layout="constrained")
for step, (ax, state) in enumerate(zip(axes, path, strict=True)):
    ax.imshow(state.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"step {step}" if step else "query", fontsize=9)
plt.show()
