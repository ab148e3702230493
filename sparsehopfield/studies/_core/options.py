"""Options that studies share, the checks of their values, and the outcome of a study."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sparsehopfield._engine.text import short
from sparsehopfield.data import datasets

SIMILARITIES = ("dot", "euclidean", "cosine")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of every study; a study with more options, or other defaults, inherits from this.

    Attributes
    ----------
    seed : int
        Seed of all draws.
    restart : bool
        Throw away what is in the output folder instead of continuing it.
    progress : bool
        Show a progress bar on terminals.
    """

    seed: int = 0
    restart: bool = False
    progress: bool = True

    #: Options that may be one value or several, and the type of these; a study adds to them.
    _sequences: ClassVar[Mapping[str, type]] = {}
    #: StudyOptions that no result depends on.
    _without_effect: ClassVar[Sequence[str]] = ("data", "jobs", "restart", "progress")

    def __post_init__(self) -> None:
        """Turn single values into sequences, so that the same values give the same table, whatever their type."""
        for name, kind in self._sequences.items():
            values = as_tuple(getattr(self, name), kind)
            if not values:
                raise ValueError(f"{name}: at least one is needed")
            object.__setattr__(self, name, values)
        at_least("seed", self.seed, 0)

    def as_settings(self) -> dict[str, Any]:
        """Return the options that results depend on: all but the place of files, jobs, and progress."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in self._without_effect
        }


@dataclass(frozen=True, kw_only=True)
class ImageOptions(StudyOptions):
    """Options of the studies that store images.

    Attributes
    ----------
    dataset : {"digits", "mnist", "cifar10", "imagenet64"}
        The images to store.
    data : path, optional
        The folder that holds them; the digits need none.
    similarity : str or sequence of str
        Of "dot" (the papers'), "euclidean", "cosine".
    beta : float or sequence of float
        The inverse temperatures.
    steps : int
        Updates for each query; 0 means to the fixed point (1,000 at most).
    queries : int
        How many queries to ask at most.
    """

    dataset: str = "digits"
    data: str | os.PathLike[str] | None = None
    similarity: Sequence[str] = ("dot",)
    beta: Sequence[float] = (1.0,)
    steps: int = 1
    queries: int = 1000

    _sequences: ClassVar[Mapping[str, type]] = {"similarity": str, "beta": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("similarity", self.similarity, SIMILARITIES)
        at_least("steps", self.steps, 0)
        at_least("queries", self.queries, 1)
        for beta in self.beta:
            if not 0 < beta < np.inf:
                raise ValueError(f"beta: must be positive and finite, got {beta}")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a study.

    Attributes
    ----------
    rows : list of dict
        The table: setting, metric and value of each measurement.
    table : Path
        The CSV file that holds it.
    figures : list of Path
        The PNG and the SVG file.
    report : str
        What came out, in tables and in words.
    """

    rows: list[dict[str, Any]]
    table: Path
    figures: list[Path]
    report: str


def as_tuple(values: Any, kind: type) -> tuple[Any, ...]:
    """Return one value or several as a tuple of one kind (str, int or float), each once."""
    if isinstance(values, str) or np.isscalar(values):
        values = (values,)
    return tuple(dict.fromkeys(kind(value) for value in values))


def check_names(name: str, values: Iterable[str], valid: Iterable[str]) -> None:
    """Raise a ValueError for the first of the values of option `name` that is not valid."""
    valid = tuple(valid)
    for value in values:
        if value not in valid:
            raise ValueError(f"{name}: unknown name {short(value)}; valid: {', '.join(valid)}")


def at_least(name: str, value: float, least: int) -> None:
    """Raise a ValueError if option `name` is below the least that it may be."""
    if value < least:
        raise ValueError(f"{name}: must be at least {least}, got {value}")


def check_sizes(sizes: int | Sequence[int], images: datasets.ImageSet) -> tuple[int, ...]:
    """Check and return the numbers of patterns to store; none may exceed the number of images."""
    sizes = as_tuple(sizes, int)
    at_least("sizes", min(sizes, default=0), 1)
    if max(sizes) > len(images):
        raise ValueError(f"sizes: {max(sizes)} patterns are more than the {len(images)} images of {images.name}")
    return sizes


def derive_seed(seed: int, *key: int) -> int:
    """Derive the seed of one draw. It depends on nothing else, so neither order nor resumption changes a draw.

    Parameters
    ----------
    seed : int
        Seed of the study.
    *key : int
        The number of the run, and all other numbers that distinguish draws.

    Returns
    -------
    int
        The draw's own seed.
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])
