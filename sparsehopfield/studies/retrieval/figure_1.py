"""Figure 1 of the paper, all six panels by three protocols: its text, its released code, and a fair comparison.

Runs the studies capacity (top row of the paper's figure) and robustness (bottom row) on every data set by every
protocol, with dot similarity, and puts the protocols side by side. Each panel is judged twice: by the threshold of its
protocol, and by the paper's. A small table of means is kept, from which --redraw draws the figure again in a second.
The second figure shows what the models answer: by the released code the sparse answer is near the mean of all images.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.retrieval import capacity, robustness, study
from sparsehopfield.studies.retrieval.protocol import PROTOCOLS, THRESHOLDS, attempt, draw, judge

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
#: The columns of the table and their types: the settings, then the results, means over the runs.
COLUMNS: Mapping[str, Callable[[str], Any]] = {
    "study": str,
    "dataset": str,
    "protocol": str,
    "threshold": float,
    "x": float,
    "model": str,
    "runs": int,
    "retrieved": float,
    "std": float,
    "cosine": float,
}
#: Shares that differ by no more than this are called equal in the words of the report.
LEVEL = 0.005

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
        How many queries to ask at most.
    runs : int, optional
        How many draws for each setting; by default the protocol's.
    redraw : bool
        Read the table that is there, and draw it.
    """

    datasets: Sequence[str] = ("mnist", "cifar10", "imagenet64")
    data: str | os.PathLike[str] | None = None
    protocol: Sequence[str] = tuple(PROTOCOLS)
    sizes: Sequence[int] = (5, 10, 20, 50, 100, 200, 500)
    patterns: int = 100
    noise: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5)
    queries: int = 100
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
        continues, are in its sub-folder `parts`.
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
        for name in chosen.datasets:
            images = datasets.load(name, chosen.data)
            rows += _measure(folder / "parts", chosen, images)
            pictures += plotting.save(answers(images, chosen.patterns), folder / f"{NAME}-answers-{name}")
        tables.write_rows(folder / tables.TABLE, rows)
        tables.write_settings(folder, {"study": NAME, **chosen.as_settings()})
    return Outcome(
        rows, folder / tables.TABLE, plotting.save(figure(rows), folder / NAME) + pictures, report_text(rows)
    )


def _measure(folder: Path, chosen: Options, images: datasets.ImageSet) -> list[Row]:
    """Return the means of both studies on one data set, by the protocols' thresholds and by the paper's."""
    name, rows = images.name, []
    judged = {"own": chosen.of(name)}
    others = [key for key in chosen.protocol if PROTOCOLS[key].thresholds[name] != THRESHOLDS[name]]
    if others:
        judged["paper"] = chosen.of(name, protocol=others, threshold=THRESHOLDS[name])
    for whose, options in judged.items():
        for kind, sizes, levels in (
            (capacity.STUDY, chosen.sizes, ["lower"]),
            (robustness.STUDY, (chosen.patterns,), chosen.noise),
        ):
            part = folder / f"{kind.name}-{name}-{whose}-threshold"
            measured = study.measure_all(kind, part, options, images, sizes=sizes, levels=levels)
            means = Means(measured, ("protocol", "threshold", kind.axis, "model"))
            for key in means.keys:
                results = means.mean(key, "retrieved"), means.std(key, "retrieved"), means.mean(key, "cosine")
                protocol, threshold, x, model = key
                setting = kind.name, name, protocol, threshold, x, model, len(means.values(key, "retrieved"))
                rows.append(dict(zip(COLUMNS, (*setting, *(round(value, 4) for value in results)), strict=True)))
    return rows


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
        for kind in (capacity.STUDY, robustness.STUDY):
            for papers in (False, True):
                found = panels.get((kind.name, dataset, protocol, _threshold(dataset, protocol, papers)), {})
                if {*found} != {*MODELS} or len({tuple(row["x"] for row in line) for line in found.values()}) != 1:
                    raise ValueError(f"rows of {kind.name}, {dataset}, {protocol} are missing")


# What is said of it


def _by_panel(rows: Sequence[Row]) -> dict[tuple[str, str, str, float], dict[str, list[Row]]]:
    """Return the rows of each (study, data set, protocol, threshold), by model."""
    panels: dict[tuple[str, str, str, float], dict[str, list[Row]]] = {}
    for row in rows:
        panel = panels.setdefault((row["study"], row["dataset"], row["protocol"], row["threshold"]), {})
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
    protocols, titles = list(dict.fromkeys(row["protocol"] for row in rows)), {"capacity": "half masked"}
    grid, labels, logs = [], [], []
    for kind in (capacity.STUDY, robustness.STUDY):
        for dataset in dict.fromkeys(row["dataset"] for row in rows):
            line = []
            for protocol in protocols:
                threshold = _threshold(dataset, protocol, papers_thresholds)
                lines = []
                for model, found in panels[kind.name, dataset, protocol, threshold].items():
                    x, mean, std = ([row[name] for row in found] for name in ("x", "retrieved", "std"))
                    lines.append(plotting.Line(model, x, mean, std))
                label = f"{dataset}, {titles.get(kind.name, 'noise')}\nshare retrieved"
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
    for kind in (capacity.STUDY, robustness.STUDY):
        for dataset in dict.fromkeys(row["dataset"] for row in rows):
            chosen = {key: found for key, found in panels.items() if key[:2] == (kind.name, dataset)}
            xs = [f"{row['x']:g}" for row in next(iter(chosen.values()))["sparse"]]
            lines = [["protocol", "threshold", "runs", "M" if kind.axis == "size" else "sigma:", *xs]]
            for (*_, protocol, threshold), models in chosen.items():
                for model, found in models.items():
                    first = [protocol, f"{threshold:g}", str(found[0]["runs"])] if model == MODELS[0] else [""] * 3
                    lines.append([*first, model, *(f"{100 * row['retrieved']:.0f}" for row in found)])
            what = "half masked" if kind.axis == "size" else "noise"
            parts.append(f"Per cent retrieved, {dataset}, {what}\n{aligned(lines, left=(0, 3))}")
    heading = wrap(
        "Figure 1 by its protocols, one step, dot similarity. 'mean' answers every query with the mean of the stored "
        "images. Each protocol is judged by its own threshold of the cosine error, and by the paper's."
    )
    words = [f"{name}: {PROTOCOLS[name].summary}." for name in dict.fromkeys(row["protocol"] for row in rows)]
    return "\n\n".join([heading, bullets("Protocols", words), *parts, bullets("What came out", _findings(panels))])


def _findings(panels: Mapping[tuple[str, str, str, float], Mapping[str, Sequence[Row]]]) -> Iterator[str]:
    """Write sentences from the rows alone."""
    datasets_shown = dict.fromkeys(dataset for _, dataset, *_ in panels)
    for protocol in dict.fromkeys(key[2] for key in panels):
        own, papers = ({name: _threshold(name, protocol, which) for name in datasets_shown} for which in (False, True))
        for whose, thresholds in (("its", own), ("the paper's", papers)) if own != papers else (("the paper's", own),):
            chosen = [
                models
                for (_, dataset, name, threshold), models in panels.items()
                if (name, threshold) == (protocol, thresholds[dataset])
            ]
            leads = _differences(chosen, "dense", "retrieved")
            worth = _differences(chosen, "mean", "retrieved")
            yield (
                f"{protocol}, {whose} thresholds: of {leads.size} settings sparse is ahead of dense by more than "
                f"{LEVEL:.1%} in {np.sum(leads > LEVEL)} (by {leads.max(initial=0):.1%} at most), behind in "
                f"{np.sum(leads < -LEVEL)} (by {-leads.min(initial=0):.1%} at most); it retrieves less than the mean "
                f"image in {np.sum(worth < 0)}."
            )
        gaps = _differences([models for key, models in panels.items() if key[2] == protocol], "mean", "cosine")
        most = abs(gaps).max(initial=0)
        yield f"{protocol}: the mean cosines of sparse and of the mean image differ by {most:.3f} at most."


def _differences(panels: Sequence[Mapping[str, Sequence[Row]]], other: str, result: str) -> NDArray[np.float64]:
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
