"""Data of many kinds, most of them far from evenly spread: what an index must not stumble over.

Each function returns patterns of shape (m, d) and queries of shape (n, d), float32, the same ones in every run.
"""

import gzip
from pathlib import Path

import numpy as np

from sparsehopfield.data import datasets


def patches(folder, m, n, side=8, stride=2):
    """Cut patches out of the ImageNet64 images, each less its mean, in a random order: 192 features.

    There are 841,000 of them. Flat ones (sky, walls) crowd near the origin, some of them equal, so that supports at
    beta 1 (euclidean similarity) run from 1 to more than 5,000.
    """
    images = datasets.load_imagenet64(folder).images.reshape(-1, 3, 64, 64)
    windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(2, 3))[:, :, ::stride, ::stride]
    count, _, height, width = windows.shape[:4]
    if m + n > count * height * width:
        raise ValueError(f"{count} images have {count * height * width} patches, fewer than {m} + {n}")
    order = np.random.default_rng(0).permutation(count * height * width)[: m + n]
    image, y, x = np.unravel_index(order, (count, height, width))
    rows = windows[image, :, y, x].reshape(m + n, -1).astype(np.float32)
    rows /= 255
    rows -= rows.mean(axis=1, keepdims=True)
    return rows[:m], rows[m:]


def descriptors(folder, m, n):
    """Describe windows of 16 x 16 pixels of the ImageNet64 images as SIFT does (Lowe 2004, section 6).

    The 128 features are whole numbers from 0 to 255: 8 directions of the gradient in 4 x 4 cells, weighted by a
    Gaussian, cut at 0.2 of the length. Windows have no rotation and overlap; flat ones are 0.
    """
    grey = datasets.load_imagenet64(folder).images.reshape(-1, 3, 64, 64).mean(axis=1, dtype=np.float32)
    dy, dx = np.gradient(grey, axis=(1, 2))
    direction = np.arctan2(dy, dx) * np.float32(4 / np.pi) % 8
    length = np.hypot(dx, dy)
    # A gradient belongs to the two directions next to its own.
    shares = [np.maximum(0, 1 - np.abs((direction - k + 4) % 8 - 4)) * length for k in range(8)]
    cells = np.stack([s.reshape(-1, 16, 4, 16, 4).sum(axis=(2, 4)) for s in shares], axis=-1)
    windows = np.lib.stride_tricks.sliding_window_view(cells, (4, 4), axis=(1, 2))  # (images, 13, 13, 8, 4, 4)
    order = np.random.default_rng(0).permutation(np.prod(windows.shape[:3]))[: m + n]
    rows = windows[np.unravel_index(order, windows.shape[:3])]
    weights = np.exp(-((np.arange(4) - 1.5) ** 2) / 8).astype(np.float32)
    rows = (rows * np.outer(weights, weights)).reshape(len(rows), -1)
    for largest in (0.2, 1):
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
        rows = np.minimum(rows, np.float32(largest))
    rows = np.minimum(np.rint(rows * 512), np.float32(255))
    return rows[:m], rows[m:]


def sentences(folder, m, n, features=128):
    """Embed Multi30k's English sentences: TF-IDF and its leading singular vectors (latent semantic analysis)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    def lines(name):
        path = Path(folder, "multi30k", f"{name}.lc.norm.tok.en.gz")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return file.read().splitlines()

    stored, asked = lines("train")[:m], (lines("val") + lines("test_2016_flickr"))[:n]
    words = TfidfVectorizer(dtype=np.float32)
    matrix = words.fit_transform(stored)
    vectors = TruncatedSVD(features, random_state=0).fit(matrix)
    return tuple(np.ascontiguousarray(vectors.transform(a), np.float32) for a in (matrix, words.transform(asked)))


def photographs(images, m, n):
    """Take images as patterns, and copies of some with noise of 0.2 as queries."""
    patterns = images.pixels(slice(m))
    rng = np.random.default_rng(0)
    queries = patterns[rng.integers(len(patterns), size=n)]
    return patterns, queries + np.float32(0.2) * rng.standard_normal(queries.shape, dtype=np.float32)


def duplicates(patterns, queries, copies):
    """Store each of the first patterns `copies` times, in a random order; ask for copies with noise, and the queries.

    There are about as many patterns as before.
    """
    rng = np.random.default_rng(0)
    few = patterns[: max(1, len(patterns) // copies)]
    stored = few[rng.permutation(np.repeat(np.arange(len(few)), copies))]
    noise = np.float32(0.05) * rng.standard_normal(queries.shape, dtype=np.float32)
    near = few[rng.integers(len(few), size=len(queries))] + noise
    return stored, np.where(np.arange(len(queries))[:, None] % 2, near, queries)


def outliers(m, n, d=128):
    """Draw one narrow cluster, and one pattern in a hundred a thousand times as far out; queries are from both."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((m + n, d), dtype=np.float32) * np.float32(0.1)
    far = rng.random(m + n) < 0.01
    rows[far] *= 1000
    return rows[:m], rows[m:]
