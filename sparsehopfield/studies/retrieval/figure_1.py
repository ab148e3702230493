"""Figure 1 of the paper, all six panels by three protocols: its text, its released code, and a fair comparison.

Runs the studies capacity (top row of the paper's figure) and robustness (bottom row) on every data set by every
protocol, with dot similarity, and puts the protocols side by side. Each retrieval is judged twice: by the threshold of
its protocol, and by the paper's. A small table of means is kept, from which --redraw draws the figure in a second. The
second figure shows what the models answer: by the released code the sparse answer is near the mean of all images.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield._engine.text import aligned, short
from sparsehopfield.data import datasets
from sparsehopfield.data._content import first_line
from sparsehopfield.errors import FileFormatError
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_option
from sparsehopfield.studies._core.means import Means
from sparsehopfield.studies._core.options import Outcome, StudyOptions, at_least, check_names
from sparsehopfield.studies._core.sources import load_dataset
from sparsehopfield.studies._core.words import bullets, join_numbers, wrap
from sparsehopfield.studies.retrieval import capacity, robustness, study
from sparsehopfield.studies.retrieval.protocol import PROTOCOLS, THRESHOLDS, Study, attempt, draw, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "figure-1"
EXAMPLES = """\
examples:
  python -m sparsehopfield figure-1
  python -m sparsehopfield figure-1 --datasets digits --output results/figure-1-digits
  python -m sparsehopfield figure-1 --redraw --output notebooks/results/figure-1
"""
#: The models of the figure, and the mean image: what a success is worth.
MODELS = ("sparse", "dense", "polynomial", "mean")
#: The columns of the table and their types: the settings (no noise: half masked), then the results, means over the
#: runs; `error` is the standard error of how far sparse is ahead of this row's model, see `_error`.
COLUMNS: Mapping[str, Callable[[str], Any]] = {
    "dataset": str,
    "protocol": str,
    "threshold": float,
    "size": int,
    "noise": lambda text: float(text) if text else None,
    "model": str,
    "runs": int,
    "retrieved": float,
    "std": float,
    "cosine": float,
    "error": float,
}
#: A model is called ahead of another when its share is larger by more than so many standard errors of the difference.
ERRORS = 2
KINDS = (capacity.STUDY, robustness.STUDY)

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Options of figure 1, beside those of all studies.

    Attributes
    ----------
    datasets : str or sequence of str
        The data sets, a column of the paper's figure each.
    data : path, optional
        The folder that holds them.
    protocol : str or sequence of str
        Of the protocols of `sparsehopfield.studies.retrieval.Options`.
    sizes : int or sequence of int
        Numbers of stored patterns in the top row.
    patterns : int
        The number of stored patterns in the bottom row.
    noise : float or sequence of float
        Standard deviations of the noise there.
    queries : int
        How many queries to ask at most; of fewer stored patterns, each.
    runs : int, optional
        How many draws for each setting; by default the protocol's.
    redraw : bool
        Read the table that is there, and draw it. All other options but `data` and `progress` are then errors.
    """

    datasets: Sequence[str] = ("mnist", "cifar10", "imagenet64")
    data: str | os.PathLike[str] | None = None
    protocol: Sequence[str] = tuple(PROTOCOLS)
    sizes: Sequence[int] = (10, 20, 50, 100, 200, 500, 1000)
    patterns: int = 1000
    noise: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5)
    queries: int = 200
    runs: int | None = None
    redraw: bool = False

    _sequences: ClassVar[Mapping[str, type]] = {"datasets": str, "protocol": str, "sizes": int, "noise": float}
    _without_effect: ClassVar[Sequence[str]] = (*StudyOptions._without_effect, "redraw")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("datasets", self.datasets, datasets.DATASETS)
        at_least("patterns", self.patterns, 1)
        robustness.check_noise(self.noise)
        self.of("digits")  # checks what the two studies share
        given = [
            field.name
            for field in fields(self)
            if field.name not in ("data", "progress", "redraw") and getattr(self, field.name) != field.default
        ]
        if self.redraw and given:
            raise ValueError(
                f"redraw: the table is drawn as it is, without effect of {', '.join(given)}: leave them out"
            )

    def of(self, dataset: str, **changes: Any) -> study.Options:
        """Return the options of the studies for a data set."""
        shared = {name: getattr(self, name) for name in ("protocol", "queries", "runs", "seed", "restart", "progress")}
        return study.Options(dataset=dataset, data=self.data, models=MODELS, similarity="dot", **(shared | changes))


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the studies of figure 1, or draw it again.

    Parameters
    ----------
    output : path
        Folder for the table of means, its settings and the figures; the studies' own tables, which an interrupted run
        continues, are in its sub-folder `parts`. A table of other settings that is there is an error.
    **options
        Those of `Options`: `datasets`, `data`, `protocol`, `sizes`, `patterns`, `noise`, `queries`, `runs`, `redraw`,
        `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    folder = Path(output)
    pictures: list[Path] = []
    if chosen.redraw:
        rows = read(folder)
    else:
        rows = []
        tables.claim(folder, NAME, chosen.as_settings(), chosen.restart)
        for name in chosen.datasets:
            images = load_dataset(name, chosen.data)
            rows += _measure(folder / "parts", chosen, images)
            pictures += plotting.save(answers(images, chosen.patterns), folder / f"{NAME}-answers-{name}")
        tables.write_rows(folder / tables.TABLE, rows)
    return Outcome(
        rows, folder / tables.TABLE, plotting.save(figure(rows), folder / NAME) + pictures, report_text(rows)
    )


def _measure(folder: Path, chosen: Options, images: datasets.ImageSet) -> list[Row]:
    """Return the means of both studies on one data set, by the protocols' thresholds and by the paper's."""
    name, rows = images.name, []
    thresholds = {
        protocol: tuple(dict.fromkeys(_threshold(name, protocol, papers) for papers in (False, True)))
        for protocol in chosen.protocol
    }
    for kind, sizes, levels in zip(KINDS, (chosen.sizes, (chosen.patterns,)), (["lower"], chosen.noise), strict=True):
        measured = study.measure_all(
            kind,
            folder / f"{kind.name}-{name}",
            chosen.of(name),
            images,
            sizes=sizes,
            levels=levels,
            thresholds=thresholds,
            beside="sparse",
        )
        means = Means(measured, ("protocol", "threshold", "size", kind.level, "model"))
        for key in means.keys:
            protocol, threshold, size, level, model = key
            noise = level if kind is robustness.STUDY else None
            setting = name, protocol, threshold, size, noise, model, len(means.values(key, "retrieved"))
            results = means.mean(key, "retrieved"), means.std(key, "retrieved"), means.mean(key, "cosine")
            alone = means.values(key, "beside_only"), means.values(key, "beside_not")
            error = _error(*alone, min(size, chosen.queries))
            rows.append(dict(zip(COLUMNS, (*setting, *(round(value, 4) for value in (*results, error))), strict=True)))
    return rows


def _error(first: NDArray[np.float64], second: NDArray[np.float64], queries: int) -> float:
    """Return the standard error of a difference of two shares of the same queries.

    Parameters
    ----------
    first, second : ndarray of shape (runs,)
        The shares of the queries that only one of the two models retrieves.
    queries : int
        How many queries there are in a run.

    Returns
    -------
    float
        The larger one of two: over all queries, as if they were independent, and over the runs where there are
        several, as queries of one run share what is stored.
    """
    leads, runs = first - second, len(first)
    variance = max(0.0, float(np.mean(first + second) - np.mean(leads) ** 2))
    over_runs = float(np.std(leads, ddof=1)) / runs**0.5 if runs > 1 else 0.0
    return max((variance / (runs * queries)) ** 0.5, over_runs)


def read(folder: str | os.PathLike[str]) -> list[Row]:
    """Read the table of means of a folder.

    Parameters
    ----------
    folder : path
        The folder that `run` wrote.

    Returns
    -------
    list of dict
        Its rows.

    Raises
    ------
    FileNotFoundError
        If there is no table.
    FileFormatError
        If it is damaged, or another study's.
    """
    path = Path(folder, tables.TABLE)
    with open(path, encoding="utf-8", newline="") as file:
        try:
            lines = list(csv.DictReader(file, strict=True))
            if not lines or list(lines[0]) != list(COLUMNS):
                raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
            rows = [{name: kind(line[name]) for name, kind in COLUMNS.items()} for line in lines]
            _check_whole(rows)
            return rows
        except (ValueError, TypeError, csv.Error) as error:
            raise FileFormatError(f"{path}: damaged, or of another study ({first_line(error)})") from error


def _check_whole(rows: Sequence[Row]) -> None:
    """Raise a ValueError unless the rows are all that a figure needs."""
    panels = _by_panel(rows)
    for dataset, protocol in {(row["dataset"], row["protocol"]) for row in rows}:
        if dataset not in THRESHOLDS or protocol not in PROTOCOLS:
            raise ValueError(f"unknown data set {short(dataset)} or protocol {short(protocol)}")
        for kind in KINDS:
            for papers in (False, True):
                found = panels.get((kind.name, dataset, protocol, _threshold(dataset, protocol, papers)), {})
                lines = [tuple((row["size"], row["noise"]) for row in line) for line in found.values()]
                if {*found} != {*MODELS} or len({*lines}) != 1:
                    raise ValueError(f"rows of {kind.name}, {dataset}, {protocol} are missing")


# What is said of it


def _by_panel(rows: Sequence[Row]) -> dict[tuple[str, str, str, float], dict[str, list[Row]]]:
    """Return the rows of each (study, data set, protocol, threshold), by model."""
    panels: dict[tuple[str, str, str, float], dict[str, list[Row]]] = {}
    for row in rows:
        kind = capacity.STUDY if row["noise"] is None else robustness.STUDY
        panel = panels.setdefault((kind.name, row["dataset"], row["protocol"], row["threshold"]), {})
        panel.setdefault(row["model"], []).append(row)
    return panels


def _threshold(dataset: str, protocol: str, papers: bool) -> float:
    """Return the threshold of a protocol, or the paper's."""
    return THRESHOLDS[dataset] if papers else PROTOCOLS[protocol].thresholds[dataset]


def figure(rows: Sequence[Row], *, papers_thresholds: bool = False) -> Figure:
    """Draw the shares retrieved: a row for each of the paper's panels, a column for each protocol.

    Parameters
    ----------
    rows : sequence of dict
        The table of means.
    papers_thresholds : bool
        Judge all protocols by the paper's thresholds instead of their own.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; bands are one standard deviation over the runs.
    """
    panels = _by_panel(rows)
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    grid, labels, logs = [], [], []
    for kind in KINDS:
        for dataset in dict.fromkeys(row["dataset"] for row in rows):
            line = []
            for protocol in protocols:
                threshold = _threshold(dataset, protocol, papers_thresholds)
                lines = []
                for model, found in panels[kind.name, dataset, protocol, threshold].items():
                    x, mean, std = ([row[name] for row in found] for name in (kind.axis, "retrieved", "std"))
                    lines.append(plotting.Line(model, x, mean, std))
                label = f"{dataset}, {_damage(rows, kind)}\nshare retrieved"
                line.append(plotting.Panel(f"{protocol}, cosine error < {threshold:g}", lines, label, (-0.04, 1.04)))
            grid.append(line)
            labels.append(kind.xlabel)
            logs.append(kind.axis == "size")
    return plotting.curves(grid, xlabel=labels, log=logs, title="Figure 1 of the paper, by protocol")


def answers(images: datasets.ImageSet, size: int = 100, shown: int = 8, *, noise: float = 0.5) -> Figure:
    """Draw what each protocol answers to noisy queries, and what the mean of all stored images looks like.

    Parameters
    ----------
    images : ImageSet
        The images; the first ones are stored.
    size, shown : int
        How many are stored, and how many of them are queried.
    noise : float
        Standard deviation of the noise.

    Returns
    -------
    matplotlib.figure.Figure
        Rows of images; below each answer stands its cosine error.
    """
    patterns, queried, rng = draw(images, size, shown, 0, protocol="released")
    stored = patterns[queried]
    queries = robustness.STUDY.damage(stored, images.shape, noise, rng)
    pictures = {"stored": stored, f"query, sigma {noise:g}": queries}
    captions = {}
    asked = [("sparse", name) for name in PROTOCOLS] + [("dense", name) for name in PROTOCOLS if name != "fair"]
    for model, protocol in [*asked, ("mean", "released")]:
        states, _ = attempt(queries, patterns, model=model, protocol=protocol)
        name = "mean of the stored" if model == "mean" else f"{model}, {protocol}"
        pictures[name] = states
        captions[name] = [
            f"{1 - judge(s[None], t[None], 0)['cosine']:.2f}" for s, t in zip(states, stored, strict=True)
        ]
    title = f"{images.name}: answers to noisy queries, M = {size}, and their cosine errors"
    return plotting.image_grid(pictures, images.shape, captions=captions, title=title)


def report_text(rows: Sequence[Row]) -> str:
    """Write the shares retrieved in per cent, and what they say."""
    panels, parts = _by_panel(rows), []
    for kind in KINDS:
        for dataset in dict.fromkeys(row["dataset"] for row in rows):
            chosen = {key: found for key, found in panels.items() if key[:2] == (kind.name, dataset)}
            xs = [f"{row[kind.axis]:g}" for row in next(iter(chosen.values()))["sparse"]]
            lines = [["protocol", "threshold", "runs", "M" if kind.axis == "size" else "sigma:", *xs]]
            for (*_, protocol, threshold), models in chosen.items():
                for model, found in models.items():
                    first = [protocol, f"{threshold:g}", str(found[0]["runs"])] if model == MODELS[0] else [""] * 3
                    lines.append([*first, model, *(f"{100 * row['retrieved']:.0f}" for row in found)])
            parts.append(f"Per cent retrieved, {dataset}, {_damage(rows, kind)}\n{aligned(lines, left=(0, 3))}")
    heading = wrap(
        "Figure 1 by its protocols, one step, dot similarity. 'mean' answers every query with the mean of the stored "
        "images. Each protocol is judged by its own threshold of the cosine error, and by the paper's. A model is "
        f"called ahead of another by more than {ERRORS} standard errors of the difference, paired by queries, and by "
        "runs where there are several; one run says nothing of other stored images."
    )
    words = [f"{name}: {PROTOCOLS[name].summary}." for name in dict.fromkeys(row["protocol"] for row in rows)]
    parts += [_counted(rows, other) for other in ("dense", "mean")]
    return "\n\n".join([heading, bullets("Protocols", words), *parts, bullets("What came out", _findings(rows))])


def _damage(rows: Sequence[Row], kind: Study) -> str:
    """Return what is done to the queries, and in the bottom row of how many stored patterns."""
    if kind is capacity.STUDY:
        return "half masked"
    return f"noise, M = {join_numbers(dict.fromkeys(row['size'] for row in rows if row['noise'] is not None))}"


def counts(rows: Sequence[Row], other: str = "dense") -> list[tuple[str, str, dict[str, tuple[int, int, int]]]]:
    """Count where sparse or another model is ahead, by more than `ERRORS` standard errors of the difference.

    Parameters
    ----------
    rows : sequence of dict
        The table of means.
    other : str
        The model beside the sparse one.

    Returns
    -------
    list of tuple
        For each protocol and its own or the paper's thresholds: the protocol, the thresholds in words, and for each
        study by name the numbers of settings where sparse is ahead, where they are level, and where the other is.
    """
    panels, found = _by_panel(rows), []
    shown = dict.fromkeys(row["dataset"] for row in rows)
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        for papers in (False, True):
            thresholds = {name: _threshold(name, protocol, papers) for name in shown}
            if not papers and thresholds == {name: THRESHOLDS[name] for name in shown}:
                continue
            numbers = {}
            for kind in KINDS:
                models = [panels[kind.name, name, protocol, threshold] for name, threshold in thresholds.items()]
                leads, errors = (
                    _leads(models, other, "retrieved"),
                    np.array([r["error"] for m in models for r in m[other]]),
                )
                ahead, behind = (int(np.sum(sign * leads > ERRORS * errors)) for sign in (1, -1))
                numbers[kind.name] = ahead, leads.size - ahead - behind, behind
            found.append((protocol, "the paper's" if papers else "its own", numbers))
    return found


def _counted(rows: Sequence[Row], other: str) -> str:
    """Write the table of `counts`."""
    lines = [["", "", "half masked:", "", "", "noise:", "", ""]]
    lines.append(["protocol", "thresholds", *("sparse ahead", "level", f"{other} ahead") * 2])
    for protocol, thresholds, numbers in counts(rows, other):
        lines.append([protocol, thresholds, *(str(number) for kind in KINDS for number in numbers[kind.name])])
    return f"Settings where sparse or {other} is ahead\n{aligned(lines, left=(0, 1))}"


def _findings(rows: Sequence[Row]) -> Iterator[str]:
    """Write how near the sparse answers are to the mean image, from the rows alone."""
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        panels = _by_panel([row for row in rows if row["protocol"] == protocol])
        most = abs(_leads(list(panels.values()), "mean", "cosine")).max(initial=0)
        yield f"{protocol}: the mean cosines of sparse and of the mean image differ by {most:.3f} at most."


def _leads(panels: Sequence[Mapping[str, Sequence[Row]]], other: str, result: str) -> NDArray[np.float64]:
    """Return how far a result of sparse is above that of another model, at each setting of some panels."""
    return np.array(
        [a[result] - b[result] for models in panels for a, b in zip(models["sparse"], models[other], strict=True)]
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add_option(parser, default, "datasets", "data sets", choices=datasets.DATASETS, shown=" ".join(default.datasets))
    add_data_option(parser, "image")
    add_option(parser, default, "protocol", "protocols", choices=PROTOCOLS)
    add_option(parser, default, "sizes", "numbers of stored patterns, top row", metavar="M")
    add_option(parser, default, "patterns", "number of stored patterns, bottom row", metavar="M")
    add_option(parser, default, "noise", "standard deviations of the noise, bottom row", metavar="SIGMA")
    add_option(parser, default, "queries", "query at most so many of the stored patterns", metavar="N")
    runs = "; ".join(f"{name}: {protocol.runs}" for name, protocol in PROTOCOLS.items())
    parser.add_argument("--runs", type=int, metavar="N", help=f"draws for each setting (default: {runs})")
    parser.add_argument("--redraw", action="store_true", help="draw the table that is in --output, and compute nothing")
    add_common_options(parser, f"results/{NAME}", default)
