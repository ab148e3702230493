"""
How many patterns have weight
=============================

Softmax gives weight to every stored pattern. Sparsemax and entmax do so only to those whose scores are near the best;
how near is a matter of beta.
"""

import matplotlib.pyplot as plt
import numpy as np

import sparsehopfield as sh
from sparsehopfield.data import datasets
from sparsehopfield.inspect import plots

# %%
# Half of scikit-learn's digits are stored, and a quarter of the others are the queries.
digits = datasets.load_digits().pixels()
stored, queries = digits[::2], digits[1::8]
betas = np.geomspace(0.003, 300, 31)

# %%
# Both maps start with all patterns and end with one, the nearest. Entmax with alpha 1.5 lies between sparsemax and
# softmax: at the same beta more patterns have weight. The band holds 80 % of the queries.
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for separation, colour in (("sparsemax", "#0072B2"), ("entmax15", "#CC79A7")):
    memory = sh.HopfieldMemory(stored, similarity="euclidean", separation=separation)
    plots.support_by_beta(memory, queries, betas, color=colour, label=separation, ax=ax)

# %%
# At one half of the queries sparsemax gives all weight to a single pattern from here on.
medians = ax.lines[0].get_ydata()
print(f"median support 1 from beta {betas[np.argmax(medians == 1)]:.2g} on")
plt.show()
