"""
From scores to weights
======================

The separation map decides how much weight a score gets. Softmax gives some to each; entmax and normmax give none to
scores that fall short of the best by too much.
"""

import matplotlib.pyplot as plt
import numpy as np

import sparsehopfield as sh

# %%
# Two patterns whose scores differ by t: the weight of the first one.
t = np.linspace(-4, 4, 401)
pair = np.stack([t, np.zeros_like(t)], axis=1)
maps = {
    "softmax": sh.softmax,
    "entmax, alpha 1.5": sh.entmax,
    "sparsemax": sh.sparsemax,
    "entmax, alpha 4": lambda z: sh.entmax(z, 4.0),
    "normmax, alpha 2": lambda z: sh.normmax(z, 2.0),
}
figure, (left, *others) = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for name, weights in maps.items():
    left.plot(t, weights(pair)[:, 0], label=name)
left.set(xlabel="score less that of the other", ylabel="weight")
left.legend(frameon=False, fontsize=8)

# %%
# Three patterns: each point of the plane is a triple of scores, and its shade says how many of the three have weight.
# At the corners of a map that is sparse one pattern has it all.
side = np.linspace(-3, 3, 200)
u, v = np.meshgrid(side, side)
scores = np.stack([u, -u / 2 + v * np.sqrt(3) / 2, -u / 2 - v * np.sqrt(3) / 2], axis=-1)
for ax, name in zip(others, ("softmax", "entmax, alpha 1.5", "sparsemax"), strict=True):
    support = (maps[name](scores) > 0).sum(axis=-1)
    ax.imshow(support, extent=(-3, 3, -3, 3), origin="lower", cmap="Blues", vmin=0, vmax=3)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{name}: {', '.join(str(n) for n in np.unique(support))} of 3 have weight", fontsize=9)
plt.show()
