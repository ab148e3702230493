"""What every study has: options that they share, what it returns, words, and how a command line becomes a run."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sparsehopfield._engine.text import short
from sparsehopfield.config import set_num_threads
from sparsehopfield.data import datasets
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.families import FAMILIES

SIMILARITIES = ("dot", "euclidean", "cosine")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every study can be asked for; one with more options, or other defaults, inherits from this.

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

    #: Options that may be given as one value or as several, and what their values are; a study adds its own.
    _several: ClassVar[Mapping[str, type]] = {}
    #: Options that no result depends on.
    _aside: ClassVar[Sequence[str]] = ("data", "jobs", "restart", "progress")

    def __post_init__(self) -> None:
        """One value stands for a sequence of it; the same values give the same table, whatever their type."""
        for name, kind in self._several.items():
            values = several(getattr(self, name), kind)
            if not values:
                raise ValueError(f"{name}: at least one is needed")
            object.__setattr__(self, name, values)
        at_least("seed", self.seed, 0)

    def described(self) -> dict[str, Any]:
        """What the results depend on: all but where files are, how it is run and what is shown."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in self._aside}


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """What the studies that store images can be asked for.

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

    _several: ClassVar[Mapping[str, type]] = {"similarity": str, "beta": float}

    def __post_init__(self) -> None:
        super().__post_init__()
        among("similarity", self.similarity, SIMILARITIES)
        at_least("steps", self.steps, 0)
        at_least("queries", self.queries, 1)
        for beta in self.beta:
            if not 0 < beta < np.inf:
                raise ValueError(f"beta: must be positive and finite, got {beta}")


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
        What came out, in tables and in words.
    """

    rows: list[dict[str, Any]]
    table: Path
    figures: list[Path]
    report: str


def measured(
    output: str | os.PathLike[str],
    study: str,
    chosen: Options,
    settings: Sequence[tables.Setting],
    metrics: Sequence[str] | Callable[[tables.Setting], Sequence[str]],
    measure: Callable[[tables.Setting], Mapping[str, float]],
    also: Mapping[str, Any] | None = None,
) -> list[tables.Row]:
    """Measure as the options say; see `tables.run_table`.

    Parameters
    ----------
    output, study, settings, metrics, measure
        As there.
    chosen : Options
        What was asked for; `jobs` at a time, where the study has them.
    also : mapping, optional
        What the results depend on besides.

    Returns
    -------
    list of dict
        The table.
    """
    return tables.run_table(
        output,
        study,
        {**chosen.described(), **(also or {})},
        settings,
        metrics,
        measure,
        jobs=getattr(chosen, "jobs", 1),
        restart=chosen.restart,
        progress=chosen.progress,
    )


# Options from Python


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


def among(name: str, values: Iterable[str], valid: Iterable[str]) -> None:
    """Raise a ValueError for the first of the values of option `name` that is not valid."""
    valid = tuple(valid)
    for value in values:
        if value not in valid:
            raise ValueError(f"{name}: unknown name {short(value)}; valid: {', '.join(valid)}")


def at_least(name: str, value: float, least: int) -> None:
    """Raise a ValueError if option `name` is below the least that it may be."""
    if value < least:
        raise ValueError(f"{name}: must be at least {least}, got {value}")


def sizes_within(sizes: int | Sequence[int], images: datasets.ImageSet) -> tuple[int, ...]:
    """The numbers of patterns to store as a tuple, of which none may be more than the images."""
    sizes = several(sizes, int)
    at_least("sizes", min(sizes, default=0), 1)
    if max(sizes) > len(images):
        raise ValueError(f"sizes: {max(sizes)} patterns are more than the {len(images)} images of {images.name}")
    return sizes


def spawned(seed: int, *key: int) -> int:
    """The seed of one draw: it depends on nothing else, so neither order nor resumption changes a draw.

    Parameters
    ----------
    seed : int
        Seed of the study.
    *key : int
        What the draw is for: the number of the run, and whatever else draws should differ by.

    Returns
    -------
    int
        The draw's own seed.
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


# Words for reports


def wrapped(text: str, indent: str = "") -> str:
    """Lines of at most 100 characters, all but the first indented."""
    return textwrap.fill(text, 100, subsequent_indent=indent)


def bullets(title: str, sentences: Iterable[str]) -> str:
    """A title, and each sentence as an item below it."""
    return "\n".join([title, *(wrapped(f"- {sentence}", "  ") for sentence in sentences)])


def listed(values: Iterable[float]) -> str:
    """Numbers with commas between them."""
    return ", ".join(f"{value:g}" for value in values)


def steps_in_words(steps: int) -> str:
    """How many updates `Options.steps` means."""
    return {0: "to the fixed point", 1: "one step"}.get(steps, f"{steps} steps")


# Options from the command line


def add_options(parser: argparse.ArgumentParser, folder: str, default: Options) -> None:
    """Add the options that every study has.

    Parameters
    ----------
    parser : ArgumentParser
        The sub-command's parser.
    folder : str
        Where its results go, unless said otherwise.
    default : Options
        Its defaults.
    """
    add = parser.add_argument
    add("--seed", type=int, default=default.seed, metavar="N", help="seed of all draws (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="how many threads to use (default: all cores)")
    add(
        "--output",
        metavar="FOLDER",
        help=f"folder for the table, its settings and the figure (default: {folder})",
    )
    add("--restart", action="store_true", help="throw away what is in --output instead of continuing it")
    add("--quiet", action="store_true", help="no progress bar and no report, only the files")


def add_own(
    parser: argparse.ArgumentParser,
    default: Options,
    name: str,
    text: str,
    *,
    metavar: str = "NAME",
    choices: Iterable[str] | None = None,
    shown: str | None = None,
) -> None:
    """Add an option of one study: what its field in `Options` says, one value or several of the default's kind.

    Parameters
    ----------
    parser : ArgumentParser
        The sub-command's parser.
    default : Options
        The study's defaults.
    name, text : str
        The field, and what it is; choices and the default are added to this.
    metavar : str
        What stands for a value in the help.
    choices : iterable of str, optional
        The values that it may have.
    shown : str, optional
        The default in words, where its values would be long.
    """
    value, kind = getattr(default, name), default._several.get(name)
    valid = None if choices is None else tuple(choices)
    if shown is None:
        shown = "%(default)s" if kind is None else "all" if value == valid else listed(value)
    many: dict[str, Any] = {} if kind is None else {"nargs": "+"}
    parser.add_argument(
        f"--{name.replace('_', '-')}",
        type=kind or type(value),
        choices=valid,
        metavar=metavar,
        default=value,
        help=f"{text}{', of ' + ', '.join(valid) if valid else ''} (default: {shown})",
        **many,
    )


def add_jobs_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of the studies that can measure several settings at the same time."""
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="measure so many settings at the same time, each in a process of its own with one thread; the table is "
        "the same for any number (default: %(default)s)",
    )


def add_families_options(parser: argparse.ArgumentParser, default: Options) -> None:
    """Add the options of the studies that draw from families of patterns, one of them images."""
    add_own(parser, default, "families", "families of patterns", choices=FAMILIES)
    add_own(parser, default, "patterns", "patterns of a family", metavar="M")
    add_own(parser, default, "d", "features of all families but images", metavar="D")
    add_own(parser, default, "dataset", "what the family of images is drawn from", choices=datasets.DATASETS)
    add_data_option(parser, "image")


def add_data_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option that names the folder of the data."""
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        default=os.environ.get("SPARSEHOPFIELD_DATA") or None,
        help=f"folder of the {what} files, in their authors' formats; when they are not there, the message "
        "says where to get them (default: the environment variable SPARSEHOPFIELD_DATA)",
    )


def add_image_options(
    parser: argparse.ArgumentParser, study: str, default: ImageOptions, *, queries: str, papers: Mapping[str, str]
) -> None:
    """Add the options of the studies that store images, and those that every study has.

    Parameters
    ----------
    parser : ArgumentParser
        The sub-command's parser.
    study : str
        The study's name.
    default : ImageOptions
        Its defaults.
    queries : str
        What the queries are.
    papers : mapping of str to str
        For `similarity`, `beta` and `steps`: whose choice the default is.
    """
    add = parser.add_argument
    add(
        "--dataset",
        choices=tuple(datasets.DATASETS),
        default=default.dataset,
        help="images to store; the digits come with scikit-learn, the others are read from --data "
        "(default: %(default)s)",
    )
    add_data_option(parser, "image")
    add(
        "--similarity",
        nargs="+",
        choices=SIMILARITIES,
        default=default.similarity,
        metavar="NAME",
        help=f"of {', '.join(SIMILARITIES)} (default: {' '.join(default.similarity)}); {papers['similarity']}",
    )
    add(
        "--beta",
        nargs="+",
        type=float,
        default=default.beta,
        metavar="BETA",
        help=f"inverse temperatures (default: {listed(default.beta)}, {papers['beta']})",
    )
    add(
        "--steps",
        type=_steps,
        default=default.steps,
        metavar="N",
        help="updates for each query; 'fixed-point' or 0 updates it until it no longer moves "
        f"(default: %(default)s, {papers['steps']})",
    )
    add(
        "--queries",
        type=int,
        default=default.queries,
        metavar="N",
        help=f"query at most so many of {queries} (default: %(default)s)",
    )
    add_options(parser, f"results/{study}-DATASET", default)


def _steps(text: str) -> int:
    return 0 if text == "fixed-point" else int(text)


def command(study: str, run: Callable[..., Outcome], arguments: argparse.Namespace) -> int:
    """Run a study as its command line says, and print its report.

    Parameters
    ----------
    study : str
        The study's name.
    run : callable
        Its function, whose arguments are called as the command line's are.
    arguments : Namespace
        What the study's parser made of the command line.

    Returns
    -------
    int
        Exit status.
    """
    given = dict(vars(arguments))
    threads, folder, quiet, _ = (given.pop(name) for name in ("threads", "output", "quiet", "main"))
    if threads is not None:
        set_num_threads(threads)
    named = given.get("dataset")  # one data set is part of the folder's name; some studies have several, or none
    output = Path(folder or f"results/{study}{f'-{named}' if isinstance(named, str) else ''}")
    try:
        outcome = run(output, progress=not quiet, **given)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"what was measured is in {output / tables.TABLE}; the same command continues from there"
        ) from interrupt
    if not quiet:
        print(outcome.report)
        print("\nWritten: " + ", ".join(str(path) for path in (outcome.table, *outcome.figures)))
    return 0
