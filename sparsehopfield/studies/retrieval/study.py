"""A whole retrieval study: its options, the settings of its grid, its table, figure and report."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.data import datasets
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_image_options, add_option
from sparsehopfield.studies._core.options import ImageOptions, Outcome, at_least, check_names, check_sizes, derive_seed
from sparsehopfield.studies._core.sources import load_dataset
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.retrieval.protocol import (
    MODELS,
    PROTOCOLS,
    THRESHOLDS,
    Floats,
    Study,
    attempt,
    compare,
    draw,
    shares,
)
from sparsehopfield.studies.retrieval.report import Summary, figure, report_text

METRICS = ("retrieved", "cosine", "exact", "support", "updates", "settled")


@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions):
    """Options of both studies, beside those of all studies.

    Attributes
    ----------
    protocol : str or sequence of str
        Of "printed", the paper's text; "released", its released code; "fair", the latter with the same factor for all
        models. The last two have scores of their own: dot similarity without beta, and one step.
    models : str or sequence of str
        Of "sparse", "dense", "polynomial", "entmax15", and "mean", which answers every query with the mean
        of the stored images: what a success is worth. The polynomial model is left out of euclidean
        similarity, where scores are negative and an even power lets the worst pattern win.
    threshold : float, optional
        A pattern is retrieved when its cosine error is below this; by default the protocol's, in the printed one by
        the data set.
    runs : int, optional
        How many draws for each setting; by default 10 in the printed protocol, 1 in the others.
    """

    protocol: Sequence[str] = ("printed",)
    models: Sequence[str] = ("sparse", "dense", "polynomial", "mean")
    similarity: Sequence[str] = ("dot", "euclidean")
    threshold: float | None = None
    runs: int | None = None

    _sequences: ClassVar[Mapping[str, type]] = {**ImageOptions._sequences, "protocol": str, "models": str}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("models", self.models, MODELS)
        if self.runs is not None:
            at_least("runs", self.runs, 1)
        check_names("protocol", self.protocol, PROTOCOLS)
        for name in self.protocol:
            self._check_protocol(name)
        if self.threshold is not None and not 0 < self.threshold <= 2:
            raise ValueError(f"threshold: bounds 1 - cosine, so it must be above 0 and at most 2, got {self.threshold}")

    def _check_protocol(self, name: str) -> None:
        """Raise a ValueError if the protocol leaves an option no choice, and it has another value."""
        factors = PROTOCOLS[name].factors
        if factors is None:
            return
        if self.beta != (1.0,):
            raise ValueError(f"beta: must be 1, as scores that are divided by their sum have none ({name} protocol)")
        if self.steps != 1:
            raise ValueError(f"steps: must be 1 in the {name} protocol, got {self.steps}")
        if "dot" not in self.similarity:
            raise ValueError(f"similarity: the {name} protocol has dot products only")
        for model in self.models:
            if model not in factors:
                raise ValueError(f"models: the {name} protocol has no {model!r}; valid: {', '.join(factors)}")

    def runs_of(self, protocol: str) -> int:
        """Return how many draws a protocol makes for each setting."""
        return PROTOCOLS[protocol].runs if self.runs is None else self.runs

    def threshold_of(self, protocol: str) -> float:
        """Return the cosine error below which a pattern counts as retrieved in a protocol."""
        return PROTOCOLS[protocol].thresholds[self.dataset] if self.threshold is None else self.threshold


@ignoring_float_errors()
def run(
    study: Study, output: str | os.PathLike[str], options: Options, *, sizes: int | Sequence[int], levels: Sequence[Any]
) -> Outcome:
    """Run a study.

    Parameters
    ----------
    study : Study
        The name.
    output : path
        Folder for the table, its settings and the figure. A table that is there is continued when it has
        the same settings, and is an error otherwise.
    options : Options
        Options of both studies.
    sizes : int or sequence of int
        Numbers of stored patterns.
    levels : sequence
        How queries are damaged: sides of the mask, or standard deviations of the noise.

    Returns
    -------
    Outcome
        The rows, the files and the report.
    """
    images = load_dataset(options.dataset, options.data)
    rows = measure_all(study, output, options, images, sizes=sizes, levels=levels)
    summary = Summary(study, rows)
    return Outcome(
        rows,
        Path(output, tables.TABLE),
        plotting.save(figure(summary), Path(output, study.name)),
        report_text(summary, images, options.queries),
    )


def measure_all(
    study: Study,
    output: str | os.PathLike[str],
    options: Options,
    images: datasets.ImageSet,
    *,
    sizes: int | Sequence[int],
    levels: Sequence[Any],
    thresholds: Mapping[str, Sequence[float]] | None = None,
    beside: str | None = None,
) -> list[dict[str, Any]]:
    """Measure a study's table, or continue it.

    Parameters
    ----------
    study, output, options, sizes, levels
        As in `run`.
    images : ImageSet
        The images of the data set.
    thresholds : mapping of str to sequence of float, optional
        The thresholds to judge each retrieval by, for each protocol; by default the one of the options.
    beside : str, optional
        One of the models. Adds two metrics: `beside_only`, the share of queries that this model retrieves and the
        setting's does not, and `beside_not`, the reverse.

    Returns
    -------
    list of dict
        The table.
    """
    if thresholds is None:
        thresholds = {name: (options.threshold_of(name),) for name in options.protocol}
    sizes = check_sizes(sizes, images)
    for name in options.protocol:
        needed = max(sizes) * options.runs_of(name)
        if PROTOCOLS[name].in_order and needed > len(images):
            raise ValueError(
                f"runs: {options.runs_of(name)} runs of {max(sizes)} images in order are more than the {len(images)} "
                f"of {images.name} ({name} protocol)"
            )
    settings = _settings(study, options, sizes, levels, thresholds)

    @lru_cache(maxsize=1)  # models and similarities of one draw follow each other
    def prepare(protocol: str, size: int, run: int, seed: int, level: Any) -> tuple[Floats, NDArray[np.intp], Floats]:
        patterns, queried, rng = draw(images, size, options.queries, seed, protocol=protocol, run=run)
        return patterns, queried, study.damage(patterns[queried], images.shape, level, rng)

    @lru_cache(maxsize=2)  # thresholds of one retrieval follow each other; the other place is for the model beside
    def answer(draw: tuple[Any, ...], model: str, similarity: str, beta: float, steps: int) -> Any:
        patterns, queried, queries = prepare(*draw)
        states, info = attempt(
            queries, patterns, model=model, similarity=similarity, beta=beta, steps=steps, protocol=draw[0]
        )
        targets = patterns[queried]
        if similarity == "cosine":  # such a memory holds the rows scaled to length 1
            targets = targets / np.linalg.norm(targets, axis=1, keepdims=True)
        return *compare(states, targets), info

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        drawn = tuple(setting[name] for name in ("protocol", "size", "run", "seed", study.level))
        how = tuple(setting[name] for name in ("similarity", "beta", "steps"))
        cosines, exact, info = answer(drawn, setting["model"], *how)
        values = {
            **shares(cosines, exact, setting["threshold"]),
            "support": float(np.mean(info.support_size)),
            "updates": float(np.mean(info.steps)),
            "settled": float(np.mean(info.converged)),
        }
        if beside is not None:
            here, there = (1 - found < setting["threshold"] for found in (cosines, answer(drawn, beside, *how)[0]))
            values |= {"beside_only": float(np.mean(there & ~here)), "beside_not": float(np.mean(here & ~there))}
        return values

    also = {
        "images": len(images),
        "sizes": list(sizes),
        study.level: list(levels),
        "threshold": [threshold for name in options.protocol for threshold in thresholds[name]],
        "runs": [options.runs_of(name) for name in options.protocol],
    }
    metrics = METRICS if beside is None else (*METRICS, "beside_only", "beside_not")
    return measure_table(output, study.name, options, settings, metrics, measure, also)


def _settings(
    study: Study,
    options: Options,
    sizes: Sequence[int],
    levels: Sequence[Any],
    thresholds: Mapping[str, Sequence[float]],
) -> list[dict[str, Any]]:
    """List the settings of a study's grid, those of one draw side by side, and of these those of one retrieval."""
    settings = [
        {
            "protocol": protocol,
            "threshold": threshold,
            "dataset": options.dataset,
            study.level: level,
            "size": size,
            "beta": beta,
            "similarity": similarity,
            "model": model,
            "steps": options.steps,
            "run": run,
            "seed": derive_seed(options.seed, size, run),
        }
        for protocol in options.protocol
        for size in sizes
        for run in range(options.runs_of(protocol))
        for level in levels
        for beta in options.beta
        for similarity in (options.similarity if PROTOCOLS[protocol].factors is None else ("dot",))
        for model in options.models
        if not (model == "polynomial" and similarity == "euclidean")  # see Options
        for threshold in thresholds[protocol]
    ]
    if not settings:
        raise ValueError(
            "models: the polynomial model needs scores that are not negative, so it does not "
            "run with euclidean similarity; choose another model or similarity"
        )
    return settings


def add_options(parser: argparse.ArgumentParser, study: str) -> None:
    """Add the options that both studies have to the parser of the one with this name."""
    add, default = parser.add_argument, Options()
    add_option(
        parser,
        default,
        "protocol",
        f"protocols ({'; '.join(f'{name}: {protocol.summary}' for name, protocol in PROTOCOLS.items())})",
        choices=PROTOCOLS,
        shown=" ".join(default.protocol),
    )
    add(
        "--models",
        nargs="+",
        choices=tuple(MODELS),
        default=default.models,
        metavar="MODEL",
        help=f"of {', '.join(MODELS)} (default: {' '.join(default.models)}); sparse is sparsemax, dense is "
        f"softmax, polynomial is of order 10, mean answers all with the mean of the stored images",
    )
    add(
        "--threshold",
        type=float,
        metavar="ERROR",
        help="a pattern is retrieved when 1 - cosine is below this (default: "
        + ", ".join(f"{value:g} for {name}" for name, value in THRESHOLDS.items())
        + "; 0.2 in the protocols released and fair)",
    )
    runs = "; ".join(f"{name}: {protocol.runs}" for name, protocol in PROTOCOLS.items())
    add("--runs", type=int, metavar="N", help=f"draws for each setting (default: {runs})")
    papers = {"similarity": "dot is the paper's", "beta": "the paper's", "steps": "the paper's"}
    add_image_options(parser, study, default, queries="the stored patterns", papers=papers)
