"""
Which instance of a bag mattered
================================

``HopfieldMILClassifier`` learns from labels of whole bags. Its attention tells which instances the answer rests on;
with a sparse map the others have a weight of exactly 0.
"""

import matplotlib.pyplot as plt
import numpy as np

from sparsehopfield.estimators import HopfieldMILClassifier
from sparsehopfield.inspect import plots

# %%
# Bags of 4 to 12 points. In a positive bag one of them, at a random place, comes from elsewhere.
rng = np.random.default_rng(0)
y = np.arange(120) % 2
bags = [rng.standard_normal((rng.integers(4, 13), 5)) for _ in y]
key = [int(rng.integers(len(bag))) for bag in bags]
for bag, place, label in zip(bags, key, y, strict=True):
    bag[place] += 3.0 * label

# %%
# Only the labels of the bags are learned from, never the places.
model = HopfieldMILClassifier(epochs=20, learning_rate=0.01, num_heads=4, beta=3.0, normalize=False, random_state=0)
model.fit(bags[:80], y[:80])
print(f"accuracy on other bags {model.score(bags[80:], y[80:]):.2f}")

# %%
# One row a bag, one column an instance. Crosses mark the instance that makes a bag positive; grey is a weight of
# exactly 0, and where a bag ends its row is white.
shown = np.arange(80, 104)
names = ["positive" if y[i] else "negative" for i in shown]
figure, ax = plt.subplots(figsize=(6, 6), layout="constrained")
plots.bag_map(model.bag_weights([bags[i] for i in shown]), bags=names, ax=ax)
rows = np.flatnonzero(y[shown])
ax.plot([key[shown[row]] for row in rows], rows, "x", color="red")
plt.show()
