"""
A motif in an immune repertoire
===============================

A repertoire has thousands of sequences; a label says of the whole whether its owner met a disease. Trained on labels
alone, the attention of a bag classifier leads to the sequences that carry the motif.
"""

import matplotlib.pyplot as plt
import numpy as np

from sparsehopfield.data import repertoires
from sparsehopfield.estimators import HopfieldMILClassifier

# %%
# Simulated repertoires of 40 sequences. In positive ones every tenth sequence or so carries a motif of amino acids. A
# sequence becomes the counts of its pairs of neighbouring letters.
data = repertoires.simulate(300, 40, 0.1, gap=0.0, deletion=0.0, seed=0)
counts = repertoires.kmers(data.sequences, 2).toarray()
bags = np.split(counts, data.offsets[1:-1])
carries = np.split(data.implanted, data.offsets[1:-1])
print("the motif:", data.motifs[0], "and sequences such as", data.sequences[0].decode())

# %%
# The labels of 200 repertoires are learned from; which sequences carry the motif is not.
model = HopfieldMILClassifier(embedding=(16,), hidden_size=16, epochs=15, learning_rate=0.01, random_state=0)
model.fit(bags[:200], data.labels[:200])
print(f"accuracy on other repertoires {model.score(bags[200:], data.labels[200:]):.2f}")

# %%
# The weights of the sequences of positive repertoires, from the largest down; those with the motif are blue.
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained", sharey=True)
for ax, i in zip(axes, np.flatnonzero(data.labels[200:])[:4] + 200, strict=True):
    weights = model.bag_weights([bags[i]])[0]
    order = np.argsort(-weights, kind="stable")[:12]
    ax.bar(np.arange(len(order)), weights[order], color=np.where(carries[i][order], "#0072B2", "#BBBBBB"))
    ax.set(xticks=[], xlabel=f"repertoire {i}")
axes[0].set_ylabel("weight")
plt.show()
