"""
Prototypes that are learned
===========================

``HopfieldPrototypeClassifier`` learns a few patterns instead of storing all rows. Each is an image again, and its
labels say what it stands for.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sparsehopfield.estimators import HopfieldPrototypeClassifier

# %%
# Twenty prototypes for some 1,300 digits.
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
model = HopfieldPrototypeClassifier(20, epochs=10, random_state=0).fit(X_train, y_train)
print(f"accuracy {model.score(X_test, y_test):.3f} with {len(model.prototypes_)} prototypes")

# %%
# For each prototype the class that it stands for, and how sure it is of that.
order = np.argsort(model.prototype_classes_, kind="stable")
logits = model.prototype_logits_ - model.prototype_logits_.max(axis=1, keepdims=True)
sure = 1 / np.exp(logits).sum(axis=1)
figure, axes = plt.subplots(2, 10, figsize=(10, 2.6), layout="constrained")
for ax, i in zip(axes.flat, order, strict=True):
    ax.imshow(model.prototypes_[i].reshape(8, 8), cmap="gray_r")
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{model.prototype_classes_[i]}: {sure[i]:.0%}", fontsize=8)
plt.show()
