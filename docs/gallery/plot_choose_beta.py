"""
Which beta to take
==================

A small beta mixes patterns, so few are stored. A large one stores nearly all. What is stored is one question; what
comes back from damaged queries is another.
"""

import matplotlib.pyplot as plt
import numpy as np

import sparsehopfield as sh
from sparsehopfield.data import datasets

# %%
# All digits of scikit-learn are stored, and each is a query, too, with noise of two sizes.
digits = datasets.load_digits().pixels()
memory = sh.HopfieldMemory(digits, similarity="euclidean")
rng = np.random.default_rng(0)
noisy = {size: digits + size * rng.standard_normal(digits.shape, dtype=np.float32) for size in (0.1, 0.3)}

# %%
# ``stored_fraction`` says which share is certified at each beta, without a retrieval. ``suggest_beta`` gives the
# smallest beta for a share of your choice.
betas = np.geomspace(0.3, 30, 15)
stored = memory.stored_fraction(betas)
suggested = memory.suggest_beta(stored=0.95)
print(f"95 % are stored from beta {suggested:.2f} on")

# %%
# One step of the memory for all queries: is the result the digit that the query was made from?
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(betas, stored, color="black", label="certified to be stored")
for (size, queries), colour in zip(noisy.items(), ("#0072B2", "#D55E00"), strict=True):
    found = []
    for beta in betas:
        memory.beta = beta
        found.append((memory.update(queries) == digits).all(axis=1).mean())
    ax.plot(betas, found, "o-", color=colour, markersize=3, label=f"found in one step, noise {size}")
ax.axvline(suggested, color="gray", linestyle=":")
ax.annotate("suggest_beta(0.95)", (suggested, 0.02), xytext=(4, 0), textcoords="offset points", color="gray")
ax.set(xscale="log", xlabel="beta", ylabel="share of the digits")
ax.legend(frameon=False)
plt.show()
