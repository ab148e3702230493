"""The command line of the studies: options that they share, and the run of a study."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsehopfield._engine.optional import is_installed, require
from sparsehopfield.config import set_num_threads
from sparsehopfield.data import datasets
from sparsehopfield.studies._core.families import FAMILIES
from sparsehopfield.studies._core.options import SIMILARITIES, ImageOptions, Outcome, StudyOptions
from sparsehopfield.studies._core.tables import TABLE
from sparsehopfield.studies._core.words import join_numbers


def add_common_options(parser: argparse.ArgumentParser, folder: str, default: StudyOptions) -> None:
    """Add the options that every study has; `folder` is the default folder of its results."""
    add = parser.add_argument
    add("--seed", type=int, default=default.seed, metavar="N", help="seed of all draws (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="how many threads to use (default: all cores)")
    add("--output", metavar="FOLDER", help=f"folder for the table, its settings and the figure (default: {folder})")
    add("--restart", action="store_true", help="throw away what is in --output instead of continuing it")
    add("--quiet", action="store_true", help="no progress bar and no report, only the files")


def add_option(
    parser: argparse.ArgumentParser,
    default: StudyOptions,
    name: str,
    text: str,
    *,
    metavar: str = "NAME",
    choices: Iterable[str] | None = None,
    shown: str | None = None,
) -> None:
    """Add an option of one study: what its field in `StudyOptions` says, one value or several of the default's kind.

    Parameters
    ----------
    parser : ArgumentParser
        The sub-command's parser.
    default : StudyOptions
        The study's defaults.
    name, text : str
        The field, and what it is; choices and the default are added to this.
    metavar : str
        The placeholder of a value in the help.
    choices : iterable of str, optional
        The values that it may have.
    shown : str, optional
        The default in words, where its values would be long.
    """
    value, kind = getattr(default, name), default._sequences.get(name)
    valid = None if choices is None else tuple(choices)
    if shown is None:
        shown = "%(default)s" if kind is None else "all" if value == valid else join_numbers(value)
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


def add_families_options(parser: argparse.ArgumentParser, default: StudyOptions) -> None:
    """Add the options of the studies that draw from families of patterns, one of them images."""
    add_option(parser, default, "families", "families of patterns", choices=FAMILIES)
    add_option(parser, default, "patterns", "patterns of a family", metavar="M")
    add_option(parser, default, "d", "features of all families but images", metavar="D")
    add_option(parser, default, "dataset", "what the family of images is drawn from", choices=datasets.DATASETS)
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
        help=f"inverse temperatures (default: {join_numbers(default.beta)}, {papers['beta']})",
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
    add_common_options(parser, f"results/{study}-DATASET", default)


def _steps(text: str) -> int:
    """Parse the option --steps."""
    return 0 if text == "fixed-point" else int(text)


def _name_of(files: str | Sequence[str]) -> str:
    """Return the name of the folder for results of these files: that of the first without its ending, and how many."""
    first, more = (files, 0) if isinstance(files, str) else (files[0], len(files) - 1)
    name = Path(first).expanduser().resolve().name.partition(".")[0]
    return name if not more else f"{name}-and-{more}-more"


def command(study: str, run: Callable[..., Outcome], arguments: argparse.Namespace) -> int:
    """Run a study as its command line says, and print its report.

    Parameters
    ----------
    study : str
        The study's name.
    run : callable
        Its function, whose arguments are called as the command line's are.
    arguments : Namespace
        The parsed command line.

    Returns
    -------
    int
        Exit status.
    """
    for module in ("sklearn", "matplotlib", "tqdm"):  # said before anything is measured, and of all in one extra
        if not is_installed(module):
            require(module, purpose="this study")
    options = dict(vars(arguments))
    threads, folder, quiet, _ = (options.pop(name) for name in ("threads", "output", "quiet", "main"))
    if threads is not None:
        set_num_threads(threads)
    named = options.get("dataset")  # one data set is part of the folder's name; some studies have several, or none
    if files := options.get("file"):
        named = _name_of(files)
    output = Path(folder or f"results/{study}{f'-{named}' if named and isinstance(named, str) else ''}")
    try:
        outcome = run(output, progress=not quiet, **options)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"what was measured is in {output / TABLE}; the same command continues from there"
        ) from interrupt
    if not quiet:
        print(outcome.report)
        print("\nWritten: " + ", ".join(str(path) for path in (outcome.table, *outcome.figures)))
    return 0
