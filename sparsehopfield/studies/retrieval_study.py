"""A whole retrieval study: the settings of its grid, its table, figure, report and command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import datasets, plotting
from sparsehopfield.config import set_num_threads
from sparsehopfield.studies import _run
from sparsehopfield.studies.retrieval_protocol import (
    MODELS,
    SIMILARITIES,
    THRESHOLDS,
    Floats,
    Study,
    attempt,
    draw,
    judge,
)
from sparsehopfield.studies.retrieval_report import figure, report

METRICS = ("retrieved", "cosine", "exact", "support", "updates", "settled")


@dataclass(frozen=True)
class Options:
    """What both studies can be asked for.

    Attributes
    ----------
    dataset : {"digits", "mnist", "cifar10", "imagenet64"}
        The images to store.
    data : path, optional
        The folder that holds them; the digits need none.
    models : str or sequence of str
        Of "sparse", "dense", "polynomial", "entmax15", and "mean", which answers every query with the mean
        of the stored images: what a success is worth. The polynomial model is left out of euclidean
        similarity, where scores are negative and an even power lets the worst pattern win.
    similarity : str or sequence of str
        Of "dot" (the paper's), "euclidean", "cosine".
    beta : float or sequence of float
        The inverse temperatures.
    steps : int
        Updates for each query; 0 means to the fixed point (1,000 at most).
    threshold : float, optional
        A pattern is retrieved when its cosine error is below this; the paper's for the data set by default.
    queries : int
        How many of the stored patterns to query at most.
    runs : int
        How many draws for each setting.
    seed : int
        Seed of all draws.
    restart : bool
        Throw away what is in the output folder instead of continuing it.
    progress : bool
        Show a progress bar on terminals.
    """

    dataset: str = "digits"
    data: str | os.PathLike[str] | None = None
    models: Sequence[str] = ("sparse", "dense", "polynomial", "mean")
    similarity: Sequence[str] = ("dot", "euclidean")
    beta: Sequence[float] = (1.0,)
    steps: int = 1
    threshold: float | None = None
    queries: int = 1000
    runs: int = 10
    seed: int = 0
    restart: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        """One value stands for a sequence of it; the same values give the same table, whatever their type."""
        for name, kind in (("models", str), ("similarity", str), ("beta", float)):
            object.__setattr__(self, name, several(getattr(self, name), kind))


@dataclass(frozen=True)
class Outcome:
    """What a study returns.

    Attributes
    ----------
    rows : list of dict
        The table: setting, metric and value of each measurement.
    table : Path
        The CSV file that holds it.
    figures : list of Path
        The PNG and the SVG file.
    report : str
        The means beside what the paper says, and what came out, in words.
    """

    rows: list[dict[str, Any]]
    table: Path
    figures: list[Path]
    report: str


def run(
    study: Study, output: str | os.PathLike[str], options: Options, *, sizes: int | Sequence[int], levels: Sequence[Any]
) -> Outcome:
    """Run a study.

    Parameters
    ----------
    study : Study
        Which one.
    output : path
        Folder for the table, its settings and the figure. A table that is there is continued when it has
        the same settings, and is an error otherwise.
    options : Options
        What both studies can be asked for.
    sizes : int or sequence of int
        Numbers of stored patterns.
    levels : sequence
        How queries are damaged: sides of the mask, or standard deviations of the noise.

    Returns
    -------
    Outcome
        The rows, the files and the report.
    """
    images = datasets.load(options.dataset, options.data)
    sizes = several(sizes, int)
    _check(options, sizes, len(images))
    threshold = THRESHOLDS[options.dataset] if options.threshold is None else options.threshold
    steps = options.steps
    settings = [
        {
            "dataset": options.dataset,
            study.level: level,
            "size": size,
            "beta": beta,
            "similarity": similarity,
            "model": model,
            "steps": steps,
            "run": run,
            "seed": _seed(options.seed, size, run),
        }
        for size in sizes
        for run in range(options.runs)
        for level in levels
        for beta in options.beta
        for similarity in options.similarity
        for model in options.models
        if not (model == "polynomial" and similarity == "euclidean")  # see Options
    ]
    if not settings:
        raise ValueError(
            "models: the polynomial model needs scores that are not negative, so it does not "
            "run with euclidean similarity; choose another model or similarity"
        )

    @lru_cache(maxsize=1)  # models and similarities of one draw follow each other
    def prepare(size: int, seed: int, level: Any) -> tuple[Floats, NDArray[np.intp], Floats]:
        patterns, asked, rng = draw(images, size, options.queries, seed)
        return patterns, asked, study.damage(patterns[asked], images.shape, level, rng)

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        patterns, asked, queries = prepare(setting["size"], setting["seed"], setting[study.level])
        states, info = attempt(
            queries,
            patterns,
            model=setting["model"],
            similarity=setting["similarity"],
            beta=setting["beta"],
            steps=steps,
        )
        targets = patterns[asked]
        if setting["similarity"] == "cosine":  # such a memory holds the rows scaled to length 1
            targets = targets / np.linalg.norm(targets, axis=1, keepdims=True)
        return {
            **judge(states, targets, threshold),
            "support": float(np.mean(info.support_size)),
            "updates": float(np.mean(info.steps)),
            "settled": float(np.mean(info.converged)),
        }

    described = {
        "images": len(images),
        "sizes": list(sizes),
        study.level: list(levels),
        "threshold": threshold,
        **{
            name: getattr(options, name)
            for name in ("dataset", "models", "similarity", "beta", "steps", "queries", "runs", "seed")
        },
    }
    rows = _run.run_table(
        output, study.name, described, settings, METRICS, measure, restart=options.restart, progress=options.progress
    )
    return Outcome(
        rows,
        Path(output, _run.TABLE),
        plotting.save(figure(study, rows, threshold), Path(output, study.name)),
        report(study, rows, images, threshold, options.queries),
    )


def several(values: Any, kind: type) -> tuple[Any, ...]:
    """One value or several as a tuple of one kind, each once.

    Parameters
    ----------
    values : scalar or sequence
        What was given.
    kind : type
        str, int or float.

    Returns
    -------
    tuple
        The values in their order.
    """
    if isinstance(values, str) or np.isscalar(values):
        values = (values,)
    return tuple(dict.fromkeys(kind(value) for value in values))


def _seed(seed: int, size: int, run: int) -> int:
    """The seed of one draw: it depends on nothing else, so neither order nor resumption changes a draw."""
    return int(np.random.SeedSequence(seed, spawn_key=(size, run)).generate_state(1)[0])


def _check(options: Options, sizes: Sequence[int], available: int) -> None:
    for name, valid in (("similarity", SIMILARITIES), ("models", tuple(MODELS))):
        for value in getattr(options, name):
            if value not in valid:
                raise ValueError(f"{name}: unknown name {value!r}; valid: {', '.join(valid)}")
    for name, value, least in (
        ("runs", options.runs, 1),
        ("seed", options.seed, 0),
        ("steps", options.steps, 0),
        ("queries", options.queries, 1),
        ("sizes", min(sizes, default=0), 1),
    ):
        if value < least:
            raise ValueError(f"{name}: must be at least {least}, got {value}")
    if max(sizes) > available:
        raise ValueError(f"sizes: {max(sizes)} patterns are more than the {available} images of {options.dataset}")
    for beta in options.beta:
        if not 0 < beta < np.inf:
            raise ValueError(f"beta: must be positive and finite, got {beta}")
    if options.threshold is not None and not 0 < options.threshold <= 2:
        raise ValueError(f"threshold: bounds 1 - cosine, so it must be above 0 and at most 2, got {options.threshold}")


# The command line


def add_options(parser: argparse.ArgumentParser, study: str) -> None:
    """Add the options that both studies have.

    Parameters
    ----------
    parser : ArgumentParser
        The sub-command's parser.
    study : str
        Its name.
    """
    add, default = parser.add_argument, Options()
    add(
        "--dataset",
        choices=tuple(datasets.DATASETS),
        default=default.dataset,
        help="images to store; the digits come with scikit-learn, the others are read from --data "
        "(default: %(default)s)",
    )
    add(
        "--data",
        metavar="FOLDER",
        default=os.environ.get("SPARSEHOPFIELD_DATA") or None,
        help="folder of the image files, in their authors' formats; when they are not there, the message "
        "says where to get them (default: the environment variable SPARSEHOPFIELD_DATA)",
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
        "--similarity",
        nargs="+",
        choices=SIMILARITIES,
        default=default.similarity,
        metavar="NAME",
        help=f"of {', '.join(SIMILARITIES)} (default: {' '.join(default.similarity)}); dot is the paper's",
    )
    add(
        "--beta",
        nargs="+",
        type=float,
        default=default.beta,
        metavar="BETA",
        help="inverse temperatures (default: 1, the paper's)",
    )
    add(
        "--steps",
        type=_steps,
        default=default.steps,
        metavar="N",
        help="updates for each query; 'fixed-point' or 0 updates it until it no longer moves "
        "(default: %(default)s, the paper's)",
    )
    add(
        "--threshold",
        type=float,
        metavar="ERROR",
        help="a pattern is retrieved when 1 - cosine is below this (default: "
        + ", ".join(f"{value:g} for {name}" for name, value in THRESHOLDS.items())
        + ")",
    )
    add(
        "--queries",
        type=int,
        default=default.queries,
        metavar="N",
        help="query at most so many of the stored patterns (default: %(default)s)",
    )
    add("--runs", type=int, default=default.runs, metavar="N", help="draws for each setting (default: %(default)s)")
    add("--seed", type=int, default=default.seed, metavar="N", help="seed of all draws (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="how many threads to use (default: all cores)")
    add(
        "--output",
        metavar="FOLDER",
        help=f"folder for the table, its settings and the figure (default: results/{study}-DATASET)",
    )
    add("--restart", action="store_true", help="throw away what is in --output instead of continuing it")
    add("--quiet", action="store_true", help="no progress bar and no report, only the files")


def command(arguments: argparse.Namespace, study: str, run: Callable[..., Outcome], **own: Any) -> int:
    """Run a study as its command line says, and print its report.

    Parameters
    ----------
    arguments : Namespace
        What `add_options` parsed.
    study : str
        The study's name.
    run : callable
        The study's function.
    **own
        The arguments that only this study has.

    Returns
    -------
    int
        Exit status.
    """
    if arguments.threads is not None:
        set_num_threads(arguments.threads)
    output = Path(arguments.output or f"results/{study}-{arguments.dataset}")
    shared = {
        name: getattr(arguments, name)
        for name in (
            "dataset",
            "data",
            "models",
            "similarity",
            "beta",
            "steps",
            "threshold",
            "queries",
            "runs",
            "seed",
            "restart",
        )
    }
    try:
        outcome = run(output, progress=not arguments.quiet, **shared, **own)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"what was measured is in {output / _run.TABLE}; the same command continues from there"
        ) from interrupt
    if not arguments.quiet:
        print(outcome.report)
        print("\nWritten: " + ", ".join(str(path) for path in (outcome.table, *outcome.figures)))
    return 0


def _steps(text: str) -> int:
    return 0 if text == "fixed-point" else int(text)
