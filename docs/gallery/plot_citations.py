"""
What an answer rests on
=======================

A memory of passages cites as many of them as a question leaves open. Here the passages are the descriptions of data
sets that come with scikit-learn, and a question loses its words one by one.
"""

import re

import matplotlib.pyplot as plt
import numpy as np
from sklearn import datasets
from sklearn.feature_extraction.text import TfidfVectorizer

import sparsehopfield as sh

# %%
# Paragraphs of at least 20 words, as unit vectors of their words: scores are cosines.
loaders = (datasets.load_breast_cancer, datasets.load_diabetes, datasets.load_digits, datasets.load_iris)
texts = [load().DESCR for load in (*loaders, datasets.load_linnerud, datasets.load_wine)]
passages = [p for text in texts for p in re.split(r"\n\s*\n", text) if len(re.findall(r"\w+", p)) >= 20]
counts = TfidfVectorizer(sublinear_tf=True)
memory = sh.HopfieldMemory(counts.fit_transform(passages).toarray(), beta=5.0)
print(len(passages), "passages")

# %%
# The question is the beginning of one passage. With all its words the passage has all the weight, and the answer is
# certified; with fewer, others get some.
source = next(i for i, passage in enumerate(passages) if "handwritten digits" in passage)
words = re.findall(r"\w+", passages[source])[:24]
asked = counts.transform([" ".join(words[: n + 1]) for n in range(len(words))]).toarray()
weights = memory.associate(asked).toarray()
cited = np.flatnonzero(weights.max(axis=0) > 0.05)
print("certified from", np.argmax(memory.certify(asked).index == source) + 1, "words on")

# %%
# Each colour is one passage that is cited.
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
colours = ["#0072B2" if i == source else plt.cm.Greys(0.25 + 0.5 * n / len(cited)) for n, i in enumerate(cited)]
left = np.arange(1, len(words) + 1)
ax.stackplot(left, weights[:, cited].T, colors=colours, edgecolor="white", linewidth=0.4)
ax.set(xlabel="words of the question", ylabel="weight", xlim=(1, len(words)), ylim=(0, 1))
ax.set_title("blue: the passage that the question is from", fontsize=10)
plt.show()
