"""
Can the probabilities be trusted?
=================================

``HopfieldClassifier`` answers with the weights of the classes among the stored rows. Beta decides how sure it is of
itself: a small one averages many rows and is less sure than it is right, a large one listens to the nearest row alone
and is surer than it is right.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sparsehopfield.estimators import HopfieldClassifier
from sparsehopfield.inspect import plots

# %%
# Digits with so much noise that about one answer in six is wrong.
X, y = load_digits(return_X_y=True)
X = X / 16 + 0.3 * np.random.default_rng(0).standard_normal(X.shape)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0, stratify=y)
classifier = HopfieldClassifier(beta=0.5).fit(X_train, y_train)
print(f"accuracy {classifier.score(X_test, y_test):.3f}")

# %%
# The curve of one classifier. Bars show how many answers were given with which probability.
probabilities = classifier.predict_proba(X_test)
plots.calibration(y_test, probabilities, name="beta 0.5", ax=plt.figure(figsize=(5, 4.5)).subplots())

# %%
# The same at six temperatures. On the diagonal the classifier is right as often as it says; above it is too modest,
# below too sure. The best beta is the one with the smallest error.
ax = plt.figure(figsize=(5, 4.5)).subplots()
plots.calibration_by_beta(classifier, X_test, y_test, [0.05, 0.1, 0.2, 0.4, 0.8, 3.2], ax=ax)
plt.show()
