"""
A memory as a regression
========================

Soft-margin regression from queries to memories has the update of a memory as its solution, as long as errors cost
little. Where they cost more, it goes on to correct the memory.
"""

import matplotlib.pyplot as plt
import numpy as np

from sparsehopfield.theory.nonparametric import NonparametricHopfield

# %%
# Four memories on a line, each the query that is to retrieve it.
X = np.array([[-2.0], [-0.6], [0.7], [2.2]])
line = np.linspace(-3.2, 3.2, 201)[:, None]

# %%
# The regression at three costs of errors, C. By default C is so small that every multiplier is at its bound: this is
# the memory's own update. At a large C all four memories are answered within the margin.
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", sharey=True)
for ax, C in zip(axes, (None, 3.0, 1000.0), strict=True):
    model = NonparametricHopfield(similarity="euclidean", C=C, epsilon=0.1).fit(X)
    ax.plot(line, model.closed_form(line), "--", label="memory")
    ax.plot(line, model.update(line), label="regression")
    ax.plot(X, X, "ko", label="pairs")
    ax.set(title="closed form" if C is None else f"C = {C:g}", xlabel="query")
axes[0].legend(frameon=False)
