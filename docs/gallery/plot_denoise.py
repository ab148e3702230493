"""
Digits without their noise
==========================

A memory of digits gets them back from noisy copies. With sparsemax what comes back is a stored digit itself; with
softmax it is a mixture, which a larger beta makes sharper.
"""

import matplotlib.pyplot as plt
import numpy as np

import sparsehopfield as sh
from sparsehopfield.data import datasets

# %%
# The 1,797 digits that come with scikit-learn, with pixels from 0 to 1, and eight of them with noise.
digits = datasets.load_digits().pixels()
chosen = np.arange(0, 1797, 225)
noise = np.random.default_rng(0).standard_normal((len(chosen), 64), dtype=np.float32)
noisy = digits[chosen] + 0.3 * noise

# %%
# Both memories hold the same patterns. How many answers are the stored digit to the last bit?
answers = {}
for separation, beta in (("softmax", 1.0), ("softmax", 4.0), ("sparsemax", 4.0)):
    memory = sh.HopfieldMemory(digits, beta, similarity="euclidean", separation=separation)
    states = memory.retrieve(noisy)
    equal = (states == digits[chosen]).all(axis=1).sum()
    answers[f"{separation}\nbeta {beta:g}"] = states
    print(f"{separation} at beta {beta:g}: {equal} of {len(chosen)} equal")

# %%
# One column a digit: as it is stored, with noise, and what the memories make of it.
rows = {"stored": digits[chosen], "noisy": noisy} | answers
figure, axes = plt.subplots(len(rows), len(chosen), figsize=(8, 5.2), layout="constrained")
for line, (name, images) in zip(axes, rows.items(), strict=True):
    for ax, image in zip(line, images, strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()
