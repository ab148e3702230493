"""
What was never seen
===================

``HopfieldOutlierDetector`` scores a row by the energy of the memory there. Fitted to some digits, it tells whether a
new image is one of their kind.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from sparsehopfield.estimators import HopfieldOutlierDetector

# %%
# The detector sees digits from 0 to 4 only. Half of those are kept apart; the digits from 5 to 9, and images of mere
# noise, are novel.
X, y = load_digits(return_X_y=True)
X /= 16
known = X[y < 5]
fitted, seen_kind = known[::2], known[1::2]
shuffled = np.random.default_rng(0).permuted(seen_kind, axis=1)
groups = {"digits 0 to 4": seen_kind, "digits 5 to 9": X[y >= 5], "pixels shuffled": shuffled}

# %%
# A large score means that a row is like the stored ones.
detector = HopfieldOutlierDetector(beta=4.0, novelty=True).fit(fitted)
scores = {name: detector.score_samples(rows) for name, rows in groups.items()}
for name in ("digits 5 to 9", "pixels shuffled"):
    both = np.concatenate([scores["digits 0 to 4"], scores[name]])
    truth = np.arange(len(both)) < len(seen_kind)
    print(f"{name}: area under the ROC curve {roc_auc_score(truth, both):.3f}")

# %%
# The line is the detector's own threshold: below it a row counts as an outlier.
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
bins = np.linspace(min(s.min() for s in scores.values()), max(s.max() for s in scores.values()), 50)
for (name, found), colour in zip(scores.items(), ("#0072B2", "#D55E00", "#999999"), strict=True):
    ax.hist(found, bins, alpha=0.6, color=colour, label=name, density=True)
ax.axvline(detector.offset_, color="black", linewidth=1)
ax.set(xlabel="score", ylabel="density", yticks=[])
ax.legend(frameon=False)
plt.show()
