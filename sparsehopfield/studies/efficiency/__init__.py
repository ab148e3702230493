"""Efficiency: time, memory and multiplications of every member of the family as the sequence grows, beside PyTorch.

N queries look at N patterns of 64 features, forward and backward: at all of them with softmax and sparsemax, at the k
best, a window, a random mask or a band of blocks, or through linear or random features. PyTorch's fused attention and a
sliding window made with PyTorch stand beside them where PyTorch is installed. Exponents in the length are fitted.
Every number is measured in a new process; times differ from run to run, so a table is not the same twice.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sparsehopfield._engine import resources
from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.config import get_num_threads
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_option
from sparsehopfield.studies._core.options import Outcome, derive_seed
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.efficiency import protocol
from sparsehopfield.studies.efficiency.options import Options
from sparsehopfield.studies.efficiency.report import Summary, figure, report_text

NAME = "efficiency"
EXAMPLES = """\
examples:
  python -m sparsehopfield efficiency
  python -m sparsehopfield efficiency --last 17 --output results/longer
  python -m sparsehopfield efficiency --last 17 --most-multiplications 3e12 --output results/all
  python -m sparsehopfield efficiency --members window blocks --window 256 --block 256
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of efficiency.

    A script that calls this needs `if __name__ == "__main__":`, as with everything that starts processes.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
    **options
        Those of `Options`: `members`, `first`, `last`, `fit_from`, `d`, `k`, `window`, `block`, `features`, `repeats`,
        `most_multiplications`, `seed`, `restart`, `progress`.
    """
    chosen, threads, torch = Options(**options), get_num_threads(), protocol.torch_version()
    here = [member for member in chosen.members if torch or not protocol.is_torch(member)]
    settings = [
        {"member": member, "direction": direction, "length": length, "seed": derive_seed(chosen.seed, length)}
        for length in chosen.lengths
        for member in here
        for direction in protocol.DIRECTIONS
        if chosen.affords(member, length)
    ]
    if not settings:
        raise ValueError("members: PyTorch is not installed, or most_multiplications is too small: nothing to measure")
    known = ["memory"] if resources.can_measure_peak() else []

    def metrics(setting: Mapping[str, Any]) -> list[str]:
        promised = ["multiplications", "bytes"] if setting["direction"] == "forward" else []
        counted = ["counted"] if promised and protocol.counts(setting["member"], setting["length"]) else []
        return ["time", "spread", *known, *promised, *counted]

    also = {"threads": threads, "torch": torch, "memory": bool(known)}
    with protocol.fresh_processes(any(map(protocol.is_torch, here))) as measure:

        def one(setting: Mapping[str, Any]) -> dict[str, float]:
            member, direction, length, seed = setting.values()
            alike = {"seed": seed, "threads": threads, "repeats": chosen.repeats}
            return measure(member, direction, length, chosen.sizes, **alike)

        rows = measure_table(output, NAME, chosen, settings, metrics, one, also)
    summary = Summary(rows, chosen, threads, torch)
    files = plotting.save(figure(summary), Path(output, NAME))
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("members", "members of the family", choices=protocol.MEMBERS)
    add("first", "the shortest length is 2^POWER", metavar="POWER")
    add("last", "the longest is 2^POWER", metavar="POWER")
    add("fit_from", "exponents are fitted from 2^POWER on", metavar="POWER")
    add("d", "features", metavar="D")
    add("k", "patterns of each query, of top-k and random masks", metavar="K")
    add("window", "patterns on each side of a window", metavar="W")
    add("block", "rows and columns of a block, a power of two", metavar="B")
    add("features", "random-features", metavar="D")
    add("repeats", "calls, at least, of which the median time is taken", metavar="N")
    add("most_multiplications", "leave out lengths at which an update takes more", metavar="N")
    add_common_options(parser, f"results/{NAME}", default)
