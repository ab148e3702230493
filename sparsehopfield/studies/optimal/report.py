"""The report of the study of optimal solutions: tables, sentences and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Means
from sparsehopfield.studies._core.words import bullets, join_numbers, wrap
from sparsehopfield.studies.optimal.protocol import DTYPES, MAPS, QUANTITIES, STEPS, TIMED_STEPS, Options, make_set

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Summary(Means):
    """The results by set, model, quantity and type, and times."""

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], chosen: Options, timed: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        super().__init__(rows, ("set", "model", "quantity", "dtype", "share", "position"))
        self.chosen, self.timed = chosen, timed

    def where(self, **fixed: Any) -> list[tuple[Any, ...]]:
        """Return the settings whose columns have these values."""
        return [key for key in self.keys if self._fits(key, fixed)]

    def largest(self, keys: Sequence[tuple[Any, ...]]) -> float:
        """Return the largest difference, in units of the type's eps."""
        return max(self.mean(key, "difference") / float(np.finfo(key[3]).eps) for key in keys)

    def beyond(self, keys: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return the settings whose difference is more than rounding explains."""
        return [key for key in keys if not self.mean(key, "difference") <= self.mean(key, "allowed")]


def figure(summary: Summary, quantity: str) -> Figure:
    """Draw a quantity at the pattern over beta: the closed form as a line, what was computed in float64 as markers.

    Parameters
    ----------
    summary : Summary
        The results.
    quantity : {"weight", "energy"}
        What is drawn: the weight of the pattern, or the energy at it.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a set.
    """
    chosen = summary.chosen
    a = max(chosen.positions)
    grid = np.geomspace(min(chosen.shares) / 1.3, max(chosen.shares) * 1.3, 200)
    panels = []
    for name in chosen.sets:
        known, lines = make_set(chosen, name), []
        for model in MAPS:
            style = plotting.STYLES[model]
            closed = [
                float(known.weights(model, s * known.critical, a)[known.at])
                if quantity == "weight"
                else known.energy(model, s * known.critical, a)
                for s in grid
            ]
            keys = summary.where(set=name, model=model, quantity=quantity, dtype="float64", position=a)
            lines.append(plotting.Line(f"{model}, closed form", list(grid), closed, style=style | {"marker": ""}))
            lines.append(
                plotting.Line(
                    f"{model}, computed",
                    [key[4] for key in keys],
                    [summary.mean(key, "computed") for key in keys],
                    style=style | {"linestyle": "none", "markersize": 5},
                )
            )
        panels.append(plotting.Panel(f"{name} (critical beta {known.critical:.4g})", lines, quantity))
    width = 3 if len(panels) % 3 == 0 else 2 if len(panels) % 2 == 0 else 1
    rows = [panels[k : k + width] for k in range(0, len(panels), width)]
    what = "weight of the nearest pattern" if quantity == "weight" else "energy"
    title = f"{what}, query at position {a:g}"
    return plotting.curves(rows, xlabel="beta / critical beta", title=title, log=True)


def report_text(summary: Summary) -> str:
    """Write the differences from the closed forms, in tables and in words."""
    chosen = summary.chosen
    introduction = wrap(
        f"Sets with known solutions (n = {chosen.size}, {chosen.copies} copies, {chosen.angle:g} degrees); queries at "
        f"positions {join_numbers(chosen.positions)} between mean and pattern; beta from {min(chosen.shares):g} to "
        f"{max(chosen.shares):g} times the critical one. Largest difference from the closed form, in units of eps "
        f"(2.2e-16 and 1.2e-07) and, in brackets, as a share of what rounding can explain. 'steps': the state after "
        f"{STEPS}; 'limit': from the pattern."
    )
    quantities = [q for q in QUANTITIES if q != "support"]
    lines: list[Sequence[str]] = [["set", "model", "type", *quantities]]
    for name in chosen.sets:
        for model in MAPS:
            for dtype in DTYPES:
                cells = []
                for quantity in quantities:
                    keys = summary.where(set=name, model=model, quantity=quantity, dtype=dtype)
                    cells.append(_difference(summary, keys) if keys else "-")
                lines.append([name, model, dtype, *cells])
    critical_betas = [["set", "closed form", *DTYPES]]
    for name in chosen.sets:
        found = summary.where(set=name, quantity="critical beta")
        if found:
            values = [summary.mean(key, "computed") for key in found]
            critical_betas.append([name, *(f"{v:.15g}" for v in (summary.mean(found[0], "closed"), *values))])
    parts = ["Optimal solutions", introduction, "Differences", aligned(lines)]
    if len(critical_betas) > 1:
        parts += ["From which beta on the pattern is an exact fixed point", aligned(critical_betas)]
    if summary.timed:
        parts += [_times(summary)]
    return "\n\n".join([*parts, bullets("What came out", _findings(summary))])


def _times(summary: Summary) -> str:
    """Return the table of times."""
    lines = [["set", "beta", "support", *(f"{what} {model}" for what in ("ms", "steps", "rest ms") for model in MAPS)]]
    lines[0] += ["dense/sparse: update", "rest"]
    by_place: dict[tuple[str, float], dict[str, Mapping[str, Any]]] = {}
    for row in summary.timed:
        by_place.setdefault((row["set"], row["share"]), {})[row["model"]] = row
    for (name, share), found in by_place.items():
        line = [name, f"{share:g}", f"{found['sparse']['support']}"]
        line += [f"{1000 * found[model]['update']:.1f}" for model in MAPS]
        line += [f"{found[model]['steps']:.1f}" for model in MAPS]
        line += [f"{1000 * found[model]['rest']:.1f}" for model in MAPS]
        lines.append([*line, *(f"{found['dense'][what] / found['sparse'][what]:.2f}" for what in ("update", "rest"))])
    words = (
        f"Processor time of queries halfway from the mean to a pattern, {summary.chosen.timed} patterns: one update, "
        f"and retrieval until rest ({TIMED_STEPS} at most); beta in units of the critical one, support by closed form"
    )
    return f"{wrap(words)}\n{aligned(lines, {0})}"


def _difference(summary: Summary, keys: Sequence[tuple[Any, ...]]) -> str:
    shares = []
    for key in keys:
        difference, allowed = summary.mean(key, "difference"), summary.mean(key, "allowed")
        shares.append(0.0 if difference == 0 else difference / allowed if allowed else math.inf)
    return f"{summary.largest(keys):.3g} ({max(shares):.2f})"


def _findings(summary: Summary) -> list[str]:
    """Write sentences from the rows alone."""
    sentences = []
    numbers = [key for key in summary.keys if key[2] != "support"]
    for dtype in DTYPES:
        keys = [key for key in numbers if key[3] == dtype]
        worst = max(keys, key=lambda key: summary.mean(key, "difference"))
        exact = sum(summary.mean(key, "difference") == 0 for key in keys)
        sentences.append(
            f"{dtype}: {exact} of {len(keys)} numbers equal the closed form (in float64) to the bit; the largest "
            f"difference is {summary.largest([worst]):.3g} eps, of {_place(worst)}."
        )
    beyond = summary.beyond(numbers)
    places = "".join(f"; {_place(key)}, {key[3]}" for key in beyond[:5])
    sentences.append(f"More than rounding explains: {len(beyond)} of {len(numbers)} numbers{places}.")
    supports = [key for key in summary.keys if key[2] == "support"]
    for words, decided in (("where rounding cannot decide it", True), ("where rounding decides it", False)):
        keys = [key for key in supports if (summary.mean(key, "allowed") == 0) == decided]
        if keys:
            agreed = sum(summary.mean(key, "difference") == 0 for key in keys)
            sentences.append(f"The size of the support, {words}: {agreed} of {len(keys)} agree.")
    arrived = [key for key in summary.where(model="sparse", quantity="limit") if summary.mean(key, "closed") == 1]
    if arrived:
        late = [key for key in arrived if summary.mean(key, "difference") > float(np.finfo(key[3]).eps)]
        places = "".join(f"; not {_place(key)}, {key[3]}" for key in late[:5])
        sentences.append(
            f"Sparse limits that are to be the pattern are within one eps of it in {len(arrived) - len(late)} of "
            f"{len(arrived)}{places}."
        )
    still = [key for key in summary.where(model="sparse", quantity="state", share=1.0) if key[0] in _LINEAR]
    if still:
        moved = max(abs(summary.mean(key, "computed") - key[5]) / float(np.finfo(key[3]).eps) for key in still)
        names = list(dict.fromkeys(key[0] for key in still))
        sentences.append(
            f"At the critical beta one sparse step moves no position of {', '.join(names)} by more than {moved:.3g} "
            "eps, where none is to move."
        )
    return sentences


#: Without copies and interior patterns every position is a fixed point at the critical beta.
_LINEAR = ("pair", "angle", "orthonormal", "simplex")


def _place(key: tuple[Any, ...]) -> str:
    name, model, quantity, _, share, position = key
    return f"{name}, {model}, {quantity}, beta {share:g} times critical, position {position:g}"
