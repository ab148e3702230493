"""Correlated patterns: from which beta on patterns with a common direction come apart, beside what theory predicts.

Patterns are w c + sqrt(1 - w^2) n: a common unit vector c, and noise n of each pattern's own. Case "equal": n uniform
on the unit sphere orthogonal to c, so that all have length 1. "free" and "free-euclidean": n of independent features of
variance 1/d, so that lengths differ, and with them what dot and euclidean similarity find. "sparse" and "positive": as
"equal", but most features of n are 0, the others normal, or uniform from 0 to 1. Each pattern, and a query
near it, is retrieved to its fixed point, over w and beta.

Predictions, with D the distance of a pattern to the nearest other one and eps = TOLERANCE * D. Sparse maps
(alpha-entmax, alpha = 2 for sparsemax): stored exactly from beta = 1/((alpha - 1) margin) on, and for patterns of equal
length only then; there margin = D^2/2 = (1 - w^2)(1 - C), C the largest cosine of two noises. Dense: the limit is
within eps from the beta on at which sum over nu of D_nu exp(-beta (lead_nu - eps D_nu)) = eps; one step is from beta =
ln(2m(M-1)/eps)/margin on. Below beta = 1/s (dense 2/s), s the largest eigenvalue of the patterns' scatter matrix, all
memories are one.

In "equal" and "free-euclidean" scores at w and beta differ from those of the noise alone at beta (1 - w^2) only by
what all patterns share, which no map sees: all of these betas grow as 1/(1 - w^2). Under dot similarity lengths are in
the way: <c, n> differs between patterns, so that from some w on those that lie further along c outrank the others.

When does sparsity pay? From queries with more noise one step is compared with that of softmax: its error, and the size
of the support, beside its expectation in closed form (`theory.expected_support` of normal scores), from the family of
the patterns alone. Where the support is small, products with values are saved. The beta at which both are equally
accurate is predicted from the same scores, too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sparsehopfield._engine.checks import ignoring_float_errors
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import tables
from sparsehopfield.studies._core.cli import add_common_options, add_jobs_option, add_option
from sparsehopfield.studies._core.options import Outcome
from sparsehopfield.studies._core.tables import measure_table
from sparsehopfield.studies.correlated.protocol import (
    ALPHAS,
    CASES,
    MAPS,
    METRICS,
    Options,
    compare,
    draw_memories,
    expected_scores,
    measure_noisy,
    predict,
    predict_support,
    time_step,
)
from sparsehopfield.studies.correlated.report import (
    Summary,
    figure,
    leads_figure,
    report_text,
    shares_figure,
    supports_figure,
    times_figure,
)

__all__ = [
    "ALPHAS",
    "CASES",
    "EXAMPLES",
    "MAPS",
    "METRICS",
    "NAME",
    "Options",
    "Summary",
    "add_options",
    "figure",
    "leads_figure",
    "report_text",
    "run",
    "stored",
    "supports_figure",
    "times_figure",
]

NAME = "correlated"
EXAMPLES = """\
examples:
  python -m sparsehopfield correlated
  python -m sparsehopfield correlated --models sparse --weights 0 0.9 --runs 5 --output results/runs
  python -m sparsehopfield correlated --cases equal --weights 0 --d 64 --timed 4096 --threads 1
  python -m sparsehopfield correlated --cases equal --patterns 256 --d 128 --output results/larger
"""


@ignoring_float_errors()
def run(output: str | os.PathLike[str], **options: Any) -> Outcome:
    """Run the study of correlated patterns.

    Parameters
    ----------
    output : path
        Folder for the table, its settings and the figures; an interrupted table that is there is continued.
    **options
        Those of `Options`: `cases`, `models`, `weights`, `betas`, `patterns`, `d`, `tolerance`, `perturbation`,
        `density`, `noise`, `timed`, `runs`, `jobs`, `seed`, `restart`, `progress`.
    """
    chosen = Options(**options)
    settings = chosen.settings()

    def is_timed(setting: Mapping[str, Any]) -> bool:
        first = chosen.cases[0], chosen.weights[0], 0
        return chosen.timed > 0 and (setting["case"], setting["w"], setting["run"]) == first

    def measure(setting: Mapping[str, Any]) -> dict[str, float]:
        case, model, w, beta, _, seed = setting.values()
        sparsity = chosen.density, chosen.noise
        drawn = draw_memories(case, w, chosen.patterns, chosen.d, chosen.perturbation, seed, *sparsity)
        scores = expected_scores(case, w, chosen.d, *sparsity)
        timed = {"seconds": time_step(chosen, model, beta, seed)} if is_timed(setting) else {}
        return {
            **timed,
            **compare(drawn, predict(drawn, model, chosen.tolerance), model, beta, chosen.tolerance),
            **measure_noisy(drawn, model, w, beta),
            "expected_support": predict_support(model, chosen.patterns, scores, beta * (1 - w * w)),
        }

    rows = measure_table(output, NAME, chosen, settings, METRICS, measure)
    timed = [setting for setting in settings if is_timed(setting)]
    asked = [(str(setting["model"]), float(str(setting["beta"]))) for setting in timed]
    summary = Summary(rows, chosen, dict(zip(asked, tables.times(output, timed), strict=True)))
    drawn = {NAME: figure(summary), f"{NAME}-shares": shares_figure(summary)}
    if {"sparse", "dense"} <= {*chosen.models}:
        drawn[f"{NAME}-leads"] = leads_figure(summary)
    if {*chosen.models} != {"dense"}:
        drawn[f"{NAME}-supports"] = supports_figure(summary)
    if summary.compares_times:
        drawn[f"{NAME}-times"] = times_figure(summary)
    files = [file for name, one in drawn.items() for file in plotting.save(one, Path(output, name))]
    return Outcome(rows, Path(output, tables.TABLE), files, report_text(summary))


def stored(folder: str | os.PathLike[str]) -> Summary:
    """Read a finished table of the study.

    Parameters
    ----------
    folder : path
        Of the table and its settings.

    Returns
    -------
    Summary
        Of which tables and figures are made.

    Raises
    ------
    FileNotFoundError
        If there is no table.
    FileFormatError
        If it is damaged, not finished, or of another study.
    """
    chosen = tables.stored_options(folder, NAME, Options)
    return Summary(tables.stored_rows(folder, chosen.settings(), METRICS), chosen)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the study's options to its parser."""
    default = Options()
    add = partial(add_option, parser, default)
    add("cases", "kinds of noise", choices=CASES)
    add("models", "models", choices=ALPHAS)
    add("weights", "weights of the common direction", metavar="W")
    add("betas", "inverse temperatures in units of 1/(1 - w^2)", metavar="BETA", shown="0.1 to 100, 6 a decade")
    add("patterns", "patterns", metavar="M")
    add("d", "features", metavar="D")
    add("runs", "draws", metavar="N")
    apart = "as a share of the distance to the nearest other pattern"
    add("tolerance", f"how far from a pattern a limit may be to count as it, {apart}", metavar="SHARE")
    add("perturbation", f"how far from the pattern queries begin, {apart}", metavar="SHARE")
    add("density", "share of features that are not 0, of sparse and positive noise", metavar="SHARE")
    add("noise", "noise of noisy queries, in units of the length of the patterns' own part", metavar="LENGTH")
    add("timed", "patterns on which one step is timed, by processor time; 0 for none", metavar="M")
    add_jobs_option(parser)
    add_common_options(parser, f"results/{NAME}", default)
