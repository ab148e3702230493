"""The family of memories: which pairs to look at, or which features to sum, for how much accuracy in how much time.

Stores M images, damages some, and retrieves them in one update with every member: all pairs (sparsemax, softmax,
entmax15), the k best (topk), a window, one of several blocks, k at random, linear features (elu+1, relu) and D random
features, each with a few budgets. Each has the inverse temperature that does best on other queries. Windows and blocks
are asked twice: "oracle" puts a query at its target, which only who knows the answer can do, "blind" anywhere. A random
subset is always blind. Beside success stand time (by one thread), multiplications, and the member's bound, and whether
it is kept.

Images are centred and scaled to length 1; one is retrieved when 1 - cosine is below the threshold. A second part, bags,
trains a small Hopfield layer with each member to tell bags of bit strings with a signal from those without.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield._engine.optional import require
from sparsehopfield.data import datasets
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_data_option, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome, check_sizes, derive_seed
from sparsehopfield.studies._core.sources import load_dataset
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.family import bags as family_bags
from sparsehopfield.studies.family import protocol
from sparsehopfield.studies.family.options import PARTS, Options
from sparsehopfield.studies.family.report import Summary, report_text, success, trade_off
from sparsehopfield.studies.retrieval.protocol import MASKS

NAME = "family"
EXAMPLES = """\
examples:
  python -m sparsehopfield family
  python -m sparsehopfield family --dataset mnist --data ~/data --sizes 256 1024 4096
  python -m sparsehopfield family --members softmax features --features 4096 --output results/few
  python -m sparsehopfield family --parts bags --bag-sizes 20 100 --output results/bags
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of the family.

    Parameters
    ----------
    output : path
        Folder for the table, its settings, its times and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`.
    """
    chosen = Options(**options)
    if "retrieval" in chosen.parts:
        check_sizes(chosen.sizes, images_of(chosen))
    settings = [
        *(retrieval_settings(chosen) if "retrieval" in chosen.parts else ()),
        *(bag_settings(chosen) if "bags" in chosen.parts else ()),
    ]
    if not settings:
        raise ValueError("sizes: no budget leaves a pattern out; raise sizes, or lower pairs, windows")

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        _, damage, size, _, member, budget, place, seed = setting.values()
        if setting["part"] == "bags":
            return family_bags.measure(member, budget, size, seed)
        return protocol.measure(task(chosen, size, damage, seed), member, budget, place)

    def metrics(setting: Mapping[str, Any]) -> Sequence[str]:
        return family_bags.METRICS if setting["part"] == "bags" else protocol.metrics_of(setting["member"])

    limits = require("threadpoolctl", purpose="timing with one thread").threadpool_limits
    with limits(1):  # threads of two libraries that wait for one another would be what is timed
        rows = measure_table(output, NAME, chosen, settings, metrics, measure)
    summary = Summary(rows, tables.times(output, settings), chosen)
    files = []
    if "retrieval" in chosen.parts:
        files = plotting.save(trade_off(summary), Path(output, NAME))
        files += plotting.save(success(summary), Path(output, f"{NAME}-sizes"))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


@lru_cache(maxsize=1)
def images_of(chosen: Options) -> datasets.ImageSet:
    """Load the images, once in each process."""
    return load_dataset(chosen.dataset, chosen.data)


@lru_cache(maxsize=1)  # the members of one draw follow each other
def task(chosen: Options, size: int, damage: str, seed: int) -> protocol.Task:
    """Draw patterns and queries of one setting."""
    return protocol.make_task(
        images_of(chosen),
        size,
        chosen.queries,
        damage,
        side=chosen.mask,
        noise=chosen.noise,
        betas=tuple(chosen.betas),
        threshold=chosen.threshold,
        seed=seed,
    )


def retrieval_settings(chosen: Options) -> list[dict[str, Any]]:
    """List every member with every budget that leaves a pattern out, for every draw."""
    return [
        {
            "part": "retrieval",
            "damage": damage,
            "size": size,
            "run": run,
            "member": member,
            "budget": budget,
            "place": place,
            "seed": derive_seed(chosen.seed, size, run),
        }
        for size in chosen.sizes
        for damage in chosen.damages
        for run in range(chosen.runs)
        for member in chosen.members
        for budget in budgets(chosen, member, size)
        for place in (protocol.PLACES if member in protocol.PLACED else ("-",))
    ]


def budgets(chosen: Options, member: str, size: int) -> list[int]:
    """Return the budgets of a member, from little to much; 0 for those that have none."""
    if member not in protocol.BUDGETS:
        return [0]
    values: Sequence[int] = sorted(getattr(chosen, protocol.BUDGETS[member]))
    if member == "window":
        return [w for w in values if 2 * w + 1 < size]
    if member == "blocks":
        return list(reversed(values))  # more blocks are smaller
    return [k for k in values if k < size] if member in ("topk", "random") else list(values)


def bag_settings(chosen: Options) -> list[dict[str, Any]]:
    """List every member with its least budget, for every draw of bags."""
    return [
        {
            "part": "bags",
            "damage": "-",
            "size": size,
            "run": run,
            "member": member,
            "budget": budget,
            "place": "-",
            "seed": derive_seed(chosen.seed, size, run, 1),
        }
        for size in chosen.bag_sizes
        for run in range(chosen.runs)
        for member in chosen.bag_members
        for budget in [b for b in budgets(chosen, member, size) if member != "blocks" or 2 * b <= size][:1]
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("dataset", "images to store", choices=datasets.DATASETS)
    add_data_option(parser, "image")
    add("parts", "what to do", choices=PARTS)
    add("members", "members to retrieve with", choices=protocol.MEMBERS)
    add("sizes", "numbers of stored patterns", metavar="M")
    add("pairs", "k of topk and random", metavar="K")
    add("windows", "w of window: neighbours on each side", metavar="W")
    add("blocks", "numbers of blocks, of which one is looked at", metavar="N")
    add("features", "D of features", metavar="D")
    add("damages", "how queries are damaged", choices=protocol.DAMAGES)
    add("mask", "the half that is masked", choices=MASKS)
    add("noise", "standard deviation of the noise", metavar="SIGMA")
    add("betas", "inverse temperatures to choose from", metavar="BETA")
    add("threshold", "a pattern is retrieved when 1 - cosine is below this", metavar="ERROR")
    add("queries", "queries to report on, and as many to choose by", metavar="N")
    add(
        "bag_members", "members to classify bags with", choices=family_bags.MEMBERS, shown=" ".join(default.bag_members)
    )
    add("bag_sizes", "instances of a bag", metavar="N")
    add("runs", "draws of each setting", metavar="N")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}-DATASET", default)
