"""Families of patterns on which the studies test the claims of theory: from evenly spread to crowded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparsehopfield.data import datasets

__all__ = ["FAMILIES", "IMAGES", "draw", "sphere"]

Floats = NDArray[np.float64]

#: How far the correlated families lie from their common direction.
APART = 0.3


def _unit(rows: Floats) -> Floats:
    """Scale rows to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _gaussian(rng: np.random.Generator, count: int, d: int) -> Floats:
    """Draw independent features of variance 1/d, (count, d)."""
    return rng.standard_normal((count, d)) / d**0.5


def sphere(rng: np.random.Generator, count: int, d: int) -> Floats:
    """Draw uniform points on the unit sphere, (count, d)."""
    return _unit(rng.standard_normal((count, d)))


def _correlated(rng: np.random.Generator, count: int, d: int) -> Floats:
    """Draw points around one random unit vector, (count, d)."""
    return sphere(rng, 1, d) + APART * _gaussian(rng, count, d)


def _correlated_sphere(rng: np.random.Generator, count: int, d: int) -> Floats:
    """Draw the same, scaled to length 1."""
    return _unit(_correlated(rng, count, d))


IMAGES = "images"
_DRAWN: dict[str, Callable[[np.random.Generator, int, int], Floats]] = {
    "sphere": sphere,
    "gaussian": _gaussian,
    "correlated": _correlated,
    "correlated-sphere": _correlated_sphere,
}
#: The families by name, and what they are.
FAMILIES = {
    "sphere": "uniform on the unit sphere",
    "gaussian": "independent features of variance 1/d",
    IMAGES: "rows of pixels between 0 and 1, of unequal lengths",
    "correlated": f"a common unit vector, and {APART} times independent features",
    "correlated-sphere": "the same, of length 1",
}


def draw(family: str, rng: np.random.Generator, count: int, d: int, images: datasets.ImageSet | None = None) -> Floats:
    """Draw patterns of a family.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    rng : numpy.random.Generator
        The generator.
    count, d : int
        Patterns and features; images have features of their own.
    images : ImageSet, optional
        The images of the family "images", drawn without repetition.

    Returns
    -------
    ndarray of float64, shape (count, d)

    Raises
    ------
    ValueError
        For more patterns than there are images.
    """
    if family != IMAGES:
        return _DRAWN[family](rng, count, d)
    if images is None:
        raise ValueError("images: the family of images needs a set to draw from")
    if count > len(images):
        raise ValueError(f"patterns: {count} are more than the {len(images)} images of {images.name}")
    return images.pixels(np.sort(rng.choice(len(images), count, replace=False))).astype(np.float64)
