"""Memory robustness: retrieve images from ever noisier queries (figure 1, bottom).

Stores M images as patterns, adds Gaussian noise g to each, `clip(|x + sigma g|, 0, 1)`, and counts how many
of them the sparse, the dense and the 10th-order polynomial model retrieve, as sigma grows. The defaults are
the paper's where it names them: beta 1, one update, 10 runs. It does not say how many patterns were stored.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from sparsehopfield.studies._core.options import Outcome, as_tuple
from sparsehopfield.studies.retrieval import study
from sparsehopfield.studies.retrieval.protocol import Study, noisy

STUDY = Study("robustness", level="noise", damage=noisy, axis="noise", xlabel="noise sigma")
NOISE = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
EXAMPLES = """\
examples:
  python -m sparsehopfield robustness
  python -m sparsehopfield robustness --dataset cifar10 --data ~/data
  python -m sparsehopfield robustness --sizes 20 1000 --noise 0 0.5 1 2 --output results/two-sizes
  python -m sparsehopfield robustness --similarity euclidean cosine --output results/similarities
"""


def run(
    output: str | os.PathLike[str],
    *,
    sizes: int | Sequence[int] = (100,),
    noise: float | Sequence[float] = NOISE,
    **options: Any,
) -> Outcome:
    """Run the robustness study.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figure; an interrupted table that is there is continued.
    sizes : int or sequence of int
        Numbers of stored patterns.
    noise : float or sequence of float
        Standard deviations of the noise; each run takes the same g at all of them.
    **options
        As in `sparsehopfield.studies.capacity.run`.
    """
    noise = as_tuple(noise, float)
    check_noise(noise)
    return study.run(STUDY, output, study.Options(**options), sizes=sizes, levels=noise)


def check_noise(noise: Sequence[float]) -> None:
    """Raise a ValueError unless there are standard deviations, finite and at least 0."""
    for sigma in noise:
        if not 0 <= sigma < float("inf"):
            raise ValueError(f"noise: must be finite and at least 0, got {sigma}")
    if not noise:
        raise ValueError("noise: at least one standard deviation is needed")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    parser.add_argument(
        "--sizes", nargs="+", type=int, metavar="M", default=(100,), help="numbers of stored patterns (default: 100)"
    )
    noise = " ".join(f"{sigma:g}" for sigma in NOISE)
    parser.add_argument(
        "--noise",
        nargs="+",
        type=float,
        metavar="SIGMA",
        default=NOISE,
        help=f"standard deviations of the noise (default: {noise})",
    )
    study.add_options(parser, STUDY.name)
