"""The report of the study of landscapes: tables, sentences and figures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sparsehopfield import theory
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, join_numbers, wrap
from sparsehopfield.studies.landscape.protocol import (
    BASINS,
    MAX_STEPS,
    PLANE,
    Floats,
    Options,
    Retrieval,
    has_energy,
    landscape,
    memory_of,
    path,
    plane_patterns,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Where trajectories start, in both coordinates, as shares of the way across.
STARTS = (0.1, 0.375, 0.65, 0.925)
#: Updates that are drawn of a map without an energy, which may go on for ever.
SHOWN = 60


class Plane(Means):
    """The results in the plane, by map and beta."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__([row for row in rows if row["family"] == PLANE], ("map", "beta"))
        self.chosen = chosen

    def descends(self) -> list[Key]:
        """Return the settings that have an energy."""
        return [key for key in self.keys if key[0] != "polynomial"]


class Rates(Means):
    """The results of the families' queries, by family and beta."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__([row for row in rows if row["family"] != PLANE], ("family", "beta"))
        self.chosen = chosen

    def all(self, metric: str) -> Floats:
        """Return the values of all queries; "separation" is beta times the margin."""
        if metric == "separation":
            return np.concatenate([key[1] * self.values(key, "margin") for key in self.keys])
        return np.concatenate([self.values(key, metric) for key in self.keys])


def plane_figure(chosen: Options) -> Figure:
    """Draw the landscapes of the maps side by side, a row for each beta; surfaces are not in the table, but made anew.

    Returns
    -------
    matplotlib.figure.Figure
        Pale colours are basins of limits within the papers' sphere of a pattern, greys those of mixtures, white is
        what does not settle; dashed are the balls that one sparse update sends to exactly their pattern.
    """
    patterns = plane_patterns(chosen.plane, chosen.seed)
    drawn = chosen.surfaces
    names = dict.fromkeys(name for name, _ in drawn)
    panels = [
        [
            plane_panel(patterns, beta, name, chosen.similarity, chosen.grid) if (name, beta) in drawn else None
            for name in names
        ]
        for beta in chosen.betas
    ]
    return plotting.landscapes(panels)


def plane_panel(
    patterns: Floats, beta: float, name: str = "sparse", similarity: str = "dot", size: int = 64
) -> plotting.Plane:
    """Prepare one landscape of patterns (M, 2) for drawing, with `size` points along each axis."""
    memory = memory_of(patterns, beta, name, similarity)
    found = landscape(memory, size)
    corner, opposite = np.array([found.x[0], found.y[0]]), np.array([found.x[-1], found.y[-1]])
    starts = [corner + (opposite - corner) * share for share in itertools.product(STARTS, STARTS)]
    most = MAX_STEPS if has_energy(memory) else SHOWN
    return plotting.Plane(
        f"{name}, no energy" if name == "polynomial" else f"{name}, beta {beta:g}",
        found.x,
        found.y,
        found.basins,
        patterns,
        found.limits,
        found.energy,
        [_thinned(path(memory, start, most), (found.x[-1] - found.x[0]) / 200) for start in starts],
        theory.exact_radius(patterns, beta, similarity=similarity) if name == "sparse" else None,
    )


def _thinned(states: Floats, least: float) -> Floats:
    """Thin a path: leave out states that are nearer than `least` to the last one left in; both ends stay."""
    chosen = [0]
    for t in range(1, len(states) - 1):
        if np.linalg.norm(states[t] - states[chosen[-1]]) >= least:
            chosen.append(t)
    return states[[*chosen, len(states) - 1]]


def rates_figure(rates: Rates) -> Figure:
    """Draw the updates of all queries that came to rest, and observed against predicted rates.

    Returns
    -------
    matplotlib.figure.Figure
        Lines: the margin that certifies a pattern; the updates in which steps that shrink by the predicted rate each
        time fall to 4 eps, where retrieval stops; and equality.
    """
    names = ("settled", "steps", "separation", "exact", "predicted", "observed")
    settled, steps, separation, exact, predicted, observed = (rates.all(name) for name in names)
    rest = settled > 0
    kinds = {"ends on a pattern": rest & (exact > 0), "ends in a mixture": rest & (exact == 0)}
    mixed, ahead = kinds["ends in a mixture"], separation > 0
    (mixture,) = list(kinds)[1:]
    most = max(float(steps.max()), 2.0)
    slack = np.geomspace(min(1 - predicted[mixed].max(initial=0.9), 0.1), 0.999, 200)
    updates = np.log(4 * np.finfo(np.float64).eps) / np.log1p(-slack)
    panels = [
        plotting.Points(
            "updates and separation",
            {name: (separation[kind & ahead], steps[kind & ahead]) for name, kind in kinds.items()},
            "beta x margin of the pattern asked for",
            "updates until at rest",
            "xy",
            ([1.0, 1.0], [1.0, most]),
        ),
        plotting.Points(
            "updates and predicted rate",
            {mixture: (1 - predicted[mixed], steps[mixed])},
            "1 - spectral norm at the limit",
            "updates until at rest",
            "xy",
            (slack, updates),
        ),
        plotting.Points(
            "observed and predicted rate",
            {mixture: (predicted[mixed], observed[mixed])},
            "spectral norm at the limit",
            "ratio of the last two steps",
            guide=([0, 1], [0, 1]),
        ),
    ]
    return plotting.scatter(panels)


def report_text(plane: Plane, rates: Rates) -> str:
    """Write the results, in tables and in words."""
    chosen = plane.chosen
    count = len(plane_patterns(chosen.plane, chosen.seed))
    introduction = wrap(
        f"{count} patterns in the plane, {chosen.similarity} similarity; retrieval from {chosen.grid} x {chosen.grid} "
        "points. 'exact': limits that are a stored pattern to the last bit, and the share of the grid that goes there. "
        "'near': limits within the papers' sphere of a pattern, half as far from it as the two closest patterns are "
        "from each other. 'fall': the least fall of energy in an update, over half its squared length; at least 1 by "
        "theory."
    )
    lines = [["map", "beta", "limits", "exact", "near", "to exact", "to near", "steps", "most", "rises", "fall"]]
    for key in plane.keys:
        of = {metric: plane.mean(key, metric) for metric in BASINS}
        fell = ["-", "-"]
        if key in plane.descends():
            fell = [f"{plane.mean(key, 'rises'):.0f}", f"{plane.mean(key, 'least fall'):.6f}"]
        lines.append(
            [
                key[0],
                "any" if key[0] == "polynomial" else f"{key[1]:g}",
                *(f"{of[metric]:.0f}" for metric in BASINS[:3]),
                *(f"{of[metric]:.3f}" for metric in BASINS[3:5]),
                f"{of['mean steps']:.1f}",
                f"{of['most steps']:.0f}",
                *fell,
            ]
        )
    return "\n\n".join(
        [
            "Landscapes",
            introduction,
            aligned(lines),
            bullets("What came out in the plane", _of_the_plane(plane, count)),
            wrap(
                f"Sparse retrieval of single queries: {chosen.patterns} patterns of {chosen.d} features (images have "
                f"their own), the longest of length 1; {chosen.draws} draws of each setting, each with one query at "
                f"{chosen.noise:g} times its pattern's length from it. Shares: 'certified' have a margin above 1/beta, "
                "'exact' end on a stored pattern, 'found' on the one asked for. Medians: 'margin', beta times it; the "
                "updates of those that end on a pattern; of the other limits how many patterns they mix, the updates, "
                "and the predicted rate. 'apart': the largest distance of observed and predicted rate."
            ),
            aligned(_rates_table(rates)),
            bullets("What came out of the rates", _of_the_rates(rates)),
        ]
    )


def _of_the_plane(plane: Plane, count: int) -> list[str]:
    """Write sentences about the plane."""
    descends, chosen = plane.descends(), plane.chosen
    rises, updates = (sum(plane.mean(key, metric) for key in descends) for metric in ("rises", "updates"))
    least = min(plane.mean(key, "least fall") for key in descends)
    sentences = [
        f"The energy rose in {rises:.0f} of {updates:,.0f} updates; the least fall was {least:.6f} of half the squared "
        f"step{', as theory has it' if rises == 0 and least >= 1 - 1e-5 else ': theory is contradicted'}."
    ]
    for name in dict.fromkeys(name for name, _ in descends):
        keys = [key for key in descends if key[0] == name]
        limits, exact, near = ([plane.mean(key, metric) for key in keys] for metric in BASINS[:3])
        betas = [key[1] for key in keys]
        sentences.append(
            f"{name}: {join_numbers(limits)} limits at beta {join_numbers(betas)}, of which {join_numbers(near)} in "
            f"the sphere of a pattern and {join_numbers(exact)} patterns to the last bit."
        )
    patterns = plane_patterns(chosen.plane, chosen.seed)
    for key in descends:
        if key[0] == "sparse":
            certified = int((theory.margin(patterns, similarity=chosen.similarity) * key[1] > 1).sum())
            found = plane.mean(key, "exact limits")
            sentences.append(
                f"sparse, beta {key[1]:g}: {certified} of {count} patterns have a margin above 1/beta, and "
                f"{found:.0f} are limits exactly{'' if found >= certified else ': fewer, so the grid missed some'}."
            )
    unique = [b for b in chosen.betas if theory.contraction(patterns, b, similarity=chosen.similarity) < 1]
    if unique:
        one = all(plane.mean((name, b), "limits") == 1 for name, _ in descends if name != "entmax15" for b in unique)
        sentences.append(
            f"At beta {join_numbers(unique)} sparse and dense updates are contractions (theory.contraction), and "
            f"{'there is one limit' if one else 'yet there is more than one limit'}."
        )
    if len(descends) < len(plane.keys):
        sentences.append("The polynomial map has no energy that its updates lower, so nothing falls there.")
    moving = [key for key in plane.keys if plane.mean(key, "settled") < 1]
    if moving:
        shares = (
            f"{1 - plane.mean(key, 'settled'):.1%} with {key[0]}{f' at beta {key[1]:g}' * (key in descends)}"
            for key in moving
        )
        sentences.append(f"Of the grid still moved after {MAX_STEPS:,} updates: {', '.join(shares)}.")
    return sentences


def _rates_table(rates: Rates) -> list[Sequence[str]]:
    """Make the table of rates."""
    names = "family|beta|margin|certified|exact|found|updates|mixed|updates|rate|apart"
    lines: list[Sequence[str]] = [names.split("|")]
    for key in rates.keys:
        of = {metric: rates.values(key, metric) for metric in Retrieval._fields}
        exact, separation = of["exact"] > 0, key[1] * of["margin"]
        mixed = ~exact & (of["settled"] > 0)
        apart = np.abs(of["predicted"] - of["observed"])[mixed]
        lines.append(
            [
                key[0],
                f"{key[1]:g}",
                f"{np.median(separation):.2f}",
                f"{np.mean(separation > 1):.2f}",
                f"{exact.mean():.2f}",
                f"{of['found'].mean():.2f}",
                _median(of["steps"][exact], "g"),
                _median(of["support"][mixed], "g"),
                _median(of["steps"][mixed], "g"),
                _median(of["predicted"][mixed], ".4f"),
                f"{apart.max():.1e}" if len(apart) else "-",
            ]
        )
    return lines


def _median(values: Floats, form: str) -> str:
    """Format a median; "-" where there are no values."""
    return format(float(np.median(values)), form) if len(values) else "-"


def _of_the_rates(rates: Rates) -> list[str]:
    """Write sentences about the rates."""
    of = {metric: rates.all(metric) for metric in (*Retrieval._fields, "separation")}
    total, settled, exact = len(of["steps"]), of["settled"] > 0, of["exact"] > 0
    sentences = []
    for words, chosen in (("above", of["separation"] > 1), ("of at most", of["separation"] <= 1)):
        found = chosen & (of["found"] > 0)
        if chosen.any():
            sentences.append(
                f"Of {chosen.sum()} queries whose pattern has a margin {words} 1/beta, {found.sum()} ended on that "
                f"pattern, equal to the last bit{_at_most(of['steps'][found])}."
            )
    behind = of["margin"] <= 0
    if behind.any():
        sentences.append(
            f"{behind.sum()} queries ask for a pattern with a margin of at most 0: another one outranks it, so that no "
            "beta certifies it. The figure's first panel leaves them out."
        )
    alone = of["support"] == 1
    sentences.append(
        f"{(alone & exact & settled).sum()} of {alone.sum()} limits with a support of one pattern are that pattern to "
        f"the last bit, reached after finitely many updates{_at_most(of['steps'][alone & exact])}."
    )
    mixed = settled & ~exact
    if mixed.any():
        sentences += _of_the_mixtures(of, mixed)
    if not settled.all():
        sentences.append(
            f"{total - settled.sum()} of {total} queries still moved after {MAX_STEPS:,} updates and are left out; the "
            f"smallest spectral norm where they were is {of['predicted'][~settled].min():.6f}."
        )
    ranked = [
        f"{_rank(of[metric][kind], of['steps'][kind])} with {words} for {who}"
        for who, kind in (("those that end on a pattern", exact), ("mixtures", mixed))
        for metric, words in (("separation", "beta times the margin"), ("barrier", "the barrier's bound"))
        if kind.sum() > 2 and np.ptp(of[metric][kind]) > 0 and np.ptp(of["steps"][kind]) > 0
    ]
    if ranked:
        sentences.append(f"Rank correlation of the updates needed: {', '.join(ranked)}.")
    return sentences


def _of_the_mixtures(of: Mapping[str, Floats], mixed: NDArray[np.bool_]) -> list[str]:
    """Write sentences about the limits that mix patterns: observed and predicted rates."""
    sentences = []
    predicted, observed = of["predicted"][mixed], of["observed"][mixed]
    apart = np.abs(predicted - observed)
    worst = apart.argmax()
    sentences.append(
        f"{mixed.sum()} limits are mixtures: the observed rate is within {np.median(apart):.1e} of the spectral "
        f"norm in the median, {apart[worst]:.1e} at most (observed {observed[worst]:.4f}, predicted "
        f"{predicted[worst]:.4f}){_correlation(predicted, observed)}. It exceeds it by at most "
        f"{max(float((observed - predicted).max()), 0):.1e}; by theory only rounding may."
    )
    error = float(np.abs(of["explained"][mixed] - observed).max())
    sentences.append(
        "The linear part, applied to the last step but one, gives the length of the last to within "
        f"{error:.1e} of that step's"
        + (
            ": rates below the norm are of steps with little part in its leading eigenvector."
            if error < apart[worst]
            else ", no nearer than the norm does."
        )
    )
    slowest = predicted.argmax()
    sentences.append(
        f"The slowest of these took {of['steps'][mixed][slowest]:.0f} updates, at a spectral norm of "
        f"{predicted[slowest]:.6f}; the median is {np.median(of['steps'][mixed]):g}."
    )
    return sentences


def _at_most(steps: Floats) -> str:
    return f" (median {np.median(steps):g} updates, {steps.max():.0f} at most)" if len(steps) else ""


def _correlation(x: Floats, y: Floats) -> str:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return ""
    return f", correlation {np.corrcoef(x, y)[0, 1]:.6f}"


def _rank(x: Floats, y: Floats) -> str:
    return f"{stats.spearmanr(x, y).statistic:.2f}"
