"""
How far a query may be
======================

Around each certified pattern there is a ball of queries that go to it in one step. The ball is the largest one: it
touches queries that do not.
"""

import matplotlib.pyplot as plt
import numpy as np

import sparsehopfield as sh

# %%
# Twelve patterns in the plane, so that everything can be drawn.
patterns = np.random.default_rng(3).uniform(-1, 1, (12, 2))
memory = sh.HopfieldMemory(patterns, beta=40.0, similarity="euclidean")
radius = memory.exact_radius()
print(f"{memory.is_certified().sum()} of {len(patterns)} patterns are certified")

# %%
# One step from every point of a grid: which pattern is it, if it is one to the last bit?
side = np.linspace(-1.2, 1.2, 400)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
states = memory.update(grid)
goes_to = np.full(len(grid), -1)
for i, pattern in enumerate(patterns):
    goes_to[(states == pattern).all(axis=1)] = i

# %%
# White points go to a mixture of patterns. The circles have the radii.
shown = np.ma.masked_less(goes_to, 0).reshape(400, 400)
figure, ax = plt.subplots(figsize=(6, 6), layout="constrained")
ax.imshow(shown, extent=(-1.2, 1.2, -1.2, 1.2), origin="lower", cmap="tab20", alpha=0.5, interpolation="none")
ax.plot(*patterns.T, "k.")
for pattern, r in zip(patterns, radius, strict=True):
    if r > 0:
        ax.add_patch(plt.Circle(pattern, r, fill=False))
ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
plt.show()

# %%
# No point within a circle goes elsewhere.
distance = np.linalg.norm(grid[:, None] - patterns, axis=2)
inside = distance < np.nan_to_num(radius)
assert (goes_to[inside.any(axis=1)] == inside.argmax(axis=1)[inside.any(axis=1)]).all()
