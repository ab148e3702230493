"""The report of the study of generalisation: tables, paired differences, sentences and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, join_numbers, wrap
from sparsehopfield.studies.generalisation.protocol import (
    LARGER,
    MORE,
    NOISIER,
    OPTIMAL,
    REGULARISERS,
    SMALLER,
    Floats,
    Options,
    conditions,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The map that the others are compared with.
REFERENCE = "softmax"
#: A difference is told where its corrected p is below this.
TOLD = 0.05
#: Differences that differ by less are the same, but for rounding.
SAME = 1e-9
#: Computed of what is measured: AUC on training bags less that on test bags, and the mean AUC of the shifted sets.
GAP, SHIFTED = "gap", "shifted"
ACCURACY = " accuracy"
AVERAGED, OWN = "averaged over the regularisations", "each with the regularisation of its own choice"
#: What is told of the maps, and with which suffix of the sets' names.
SHOWN = ((AVERAGED, ""), (OWN, ""), (AVERAGED, ACCURACY))


class Summary(Means):
    """The results by map, density and regularisation; `gap` and `shifted` are metrics, too."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options) -> None:
        super().__init__(rows, ("map", "density", *REGULARISERS))
        self.chosen = chosen

    def shifts(self, density: float) -> list[str]:
        """Return the names of the shifted sets."""
        return list(conditions(self.chosen, density))[2:]

    def values(self, key: Key, metric: str) -> Floats:
        """Return the values of all runs, in their order."""
        if metric == GAP:
            return super().values(key, "train") - super().values(key, "test")
        if metric == SHIFTED:
            return np.mean([self.values(key, name) for name in self.shifts(key[1])], axis=0)
        return super().values(key, metric)

    def by_run(self, name: str, metric: str, how: str = AVERAGED, **fixed: Any) -> Floats:
        """Return one value for each run of a map.

        Parameters
        ----------
        name : str
            The map.
        metric : str
            What was measured, or `gap` or `shifted`.
        how : str
            `AVERAGED`: the mean over all regularisations; `OWN`: of the one whose AUC on the bags to choose by is best
            in this run, the first of equals.
        **fixed
            The values of other columns.
        """
        keys = [key for key in self.keys if key[0] == name and self._fits(key, fixed)]
        values = np.array([self.values(key, metric) for key in keys])
        if how == AVERAGED or name == OPTIMAL:
            return values.mean(axis=0)
        merit = np.array([self.values(key, "choosing") for key in keys])
        return np.take_along_axis(values, merit.argmax(axis=0)[None], axis=0)[0]

    @property
    def rivals(self) -> list[str]:
        """Return the maps that are compared with softmax; none where it was not measured."""
        maps = self.chosen.maps
        return [name for name in maps if name != REFERENCE] if REFERENCE in maps else []

    def lead_by_run(self, name: str, metric: str, how: str = AVERAGED, **fixed: Any) -> Floats:
        """Return what a map has more than softmax in each run."""
        return self.by_run(name, metric, how, **fixed) - self.by_run(REFERENCE, metric, how, **fixed)

    def varied(self, *more: str) -> dict[str, tuple[Any, Any]]:
        """Return the first and the last level of every regularisation, and of other columns, with more than one."""
        levels = {column: sorted(self.levels(column, map=self.chosen.maps[0])) for column in (*more, *REGULARISERS)}
        return {column: (values[0], values[-1]) for column, values in levels.items() if len(values) > 1}


class Difference(NamedTuple):
    """A mean over runs, its 95 % interval, and its p, corrected for the number of differences beside it."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def told(self) -> bool:
        """Return whether it is told from 0."""
        return self.p < TOLD

    def text(self, scale: float = 100) -> str:
        """Format it in points, with a star where it is told from 0."""
        mean, low, high = (scale * value for value in self[:3])
        if np.isnan(low):
            return f"{mean:+.1f}"
        return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]{'*' if self.told else ''}"


def differences(by_run: Mapping[Any, Floats]) -> dict[Any, Difference]:
    """Estimate means over runs with Student's t, and correct their p values together.

    Parameters
    ----------
    by_run : mapping of ndarray of shape (runs,)
        The difference in each run, by whatever it is of.

    Returns
    -------
    dict of Difference
        By the same; p by Benjamini and Hochberg's procedure over all of them: of those below `TOLD`, that share is
        expected to be none. Of a single run intervals and p are nan.

    Examples
    --------
    >>> found = differences({"one": np.array([0.1, 0.2, 0.3]), "other": np.array([0.1, -0.1, 0.0])})
    >>> [(name, round(some.low, 2), round(some.high, 2), round(some.p, 2)) for name, some in found.items()]
    [('one', -0.05, 0.45, 0.15), ('other', -0.25, 0.25, 1.0)]
    """
    found = {}
    for name, values in by_run.items():
        mean = float(np.mean(values))
        if len(values) < 2:
            found[name] = Difference(mean, np.nan, np.nan, np.nan)
        elif np.ptp(values) < SAME:  # t is not defined: the test of signs
            found[name] = Difference(mean, mean, mean, 1.0 if abs(mean) < SAME else 2.0 ** (1 - len(values)))
        else:
            test = stats.ttest_1samp(values, 0)
            interval = test.confidence_interval()
            found[name] = Difference(mean, float(interval.low), float(interval.high), float(test.pvalue))
    known = [name for name, some in found.items() if not np.isnan(some.p)]
    corrected = stats.false_discovery_control([found[name].p for name in known]) if known else []
    return found | {name: found[name]._replace(p=float(p)) for name, p in zip(known, corrected, strict=True)}


def compared(summary: Summary, how: str, suffix: str = "") -> dict[tuple[str, float, str], Difference]:
    """Compare the maps with softmax, by map, density and set; AUC and its gap, or with a suffix accuracy."""
    sets = {density: list(conditions(summary.chosen, density))[1:] for density in summary.chosen.densities}
    return differences(
        {
            (name, density, metric): summary.lead_by_run(name, metric + suffix, how, density=density)
            for name in summary.rivals
            for density in summary.chosen.densities
            for metric in [*sets[density], *([] if suffix else [GAP])]
        }
    )


def changes(summary: Summary) -> dict[tuple[str, str, str], Difference]:
    """Compare the leads over softmax at the last level of each factor with those at the first, by map and metric."""
    return differences(
        {
            (name, factor, metric): summary.lead_by_run(name, metric, **{factor: last})
            - summary.lead_by_run(name, metric, **{factor: first})
            for name in summary.rivals
            for factor, (first, last) in summary.varied("density").items()
            for metric in ("test", SHIFTED, GAP)
        }
    )


def effects(summary: Summary) -> dict[tuple[str, str, str], Difference]:
    """Compare the last level of each regularisation with the first, by map and metric."""
    return differences(
        {
            (name, factor, metric): summary.by_run(name, metric, **{factor: last})
            - summary.by_run(name, metric, **{factor: first})
            for name in summary.chosen.maps
            for factor, (first, last) in summary.varied().items()
            for metric in ("test", SHIFTED, GAP)
        }
    )


def report_text(summary: Summary) -> str:
    """Write the results, in tables and in words."""
    chosen = summary.chosen
    introduction = (
        f"Bags of {chosen.size} strings of {chosen.bits} bits; a positive one holds one of {chosen.signals} signals, "
        f"with {chosen.flips:.0%} of its bits flipped. Networks with {chosen.heads} heads are trained on {chosen.bags} "
        f"bags for {chosen.epochs} epochs, {chosen.runs} run(s), with weight decay {join_numbers(chosen.decays)}, "
        f"dropout {join_numbers(chosen.dropouts)} and heads of {join_numbers(chosen.hidden)} dimensions, and tested "
        f"with {chosen.tested} bags of each set: 'test' drawn alike; 'smaller' with {SMALLER:g} and 'larger' with "
        f"{LARGER:g} times as many strings; 'more' with {MORE} signals; 'noisier' with {NOISIER:g} times the flips; "
        "'density' with another share of ones in all strings but the signals. 'gap' is AUC on the bags trained on less "
        "that of 'test', 'weight' that of the signal. 'optimal' is the likelihood ratio of who knows how each set is "
        "drawn."
    )
    parts = ["Generalisation", wrap(introduction)]
    parts += [_levels(summary, how, suffix) for how, suffix in SHOWN]
    if summary.rivals:
        statistics = (
            "Differences are taken run by run, in points, with 95 % intervals of t; a star where p is below "
            f"{TOLD:g}, corrected for all differences of the table (Benjamini and Hochberg)."
        )
        parts += [wrap(statistics)]
        parts += [_compared(summary, how, suffix) for how, suffix in SHOWN]
        parts += _changed("Lead over softmax: how it changes", summary, changes(summary), summary.varied("density"))
    parts += _changed("What a regularisation changes", summary, effects(summary), summary.varied())
    return "\n\n".join([*parts, bullets("What came out", _findings(summary))])


def _levels(summary: Summary, how: str, suffix: str) -> str:
    """Make a table of AUC or accuracy on each set, mean and standard deviation over runs."""
    parts = []
    for density in summary.chosen.densities:
        sets = [f"{name}{suffix}" for name in conditions(summary.chosen, density)]
        shown = sets if suffix else [*sets, GAP]
        lines = [["map", *(name.removesuffix(suffix) for name in shown), *([] if suffix else ["weight"])]]
        for name in (OPTIMAL, *summary.chosen.maps):
            line = [name]
            for metric in shown:
                values = 100 * summary.by_run(name, metric, how, density=density)
                spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
                line.append("" if name == OPTIMAL and metric == GAP else f"{values.mean():.1f}{spread}")
            if not suffix:
                line.append(
                    "" if name == OPTIMAL else f"{summary.by_run(name, 'weight', how, density=density).mean():.2f}"
                )
            lines.append(line)
        what = "Accuracy" if suffix else "AUC"
        parts.append(f"{what} in per cent, density {density:g}, {how}\n{aligned(lines)}")
    return "\n\n".join(parts)


def _compared(summary: Summary, how: str, suffix: str) -> str:
    """Make a table of the differences from softmax."""
    found = compared(summary, how, suffix)
    columns = [(name, density) for density in summary.chosen.densities for name in summary.rivals]
    lines = [["less softmax", *(f"{name}, density {density:g}" for name, density in columns)]]
    for metric in _metrics(found):
        texts = [found[*column, metric].text() if (*column, metric) in found else "" for column in columns]
        lines.append([metric, *texts])
    return f"{'Accuracy' if suffix else 'AUC'} less that of softmax, {how}\n{aligned(lines)}"


def _metrics(found: Mapping[tuple[str, float, str], Difference]) -> list[str]:
    """Return the sets that maps are compared on, and behind them the gap."""
    return sorted(dict.fromkeys(metric for *_, metric in found), key=lambda metric: metric == GAP)


def _changed(
    title: str,
    summary: Summary,
    found: Mapping[tuple[str, str, str], Difference],
    varied: Mapping[str, tuple[Any, Any]],
) -> list[str]:
    """Make a table of changes from the first to the last level of each factor; none where nothing was varied."""
    if not found:
        return []
    names = list(dict.fromkeys(name for name, *_ in found))
    lines = [["factor", "from", "to", "AUC", *names]]
    for factor, (first, last) in varied.items():
        for metric in ("test", SHIFTED, GAP):
            lines.append(
                [factor, f"{first:g}", f"{last:g}", metric, *(found[name, factor, metric].text() for name in names)]
            )
    return [f"{title}, mean over all other factors\n{aligned(lines, {0, 3})}"]


def _findings(summary: Summary) -> Iterator[str]:
    """Write sentences from the rows alone."""
    chosen = summary.chosen
    for density in chosen.densities:
        best = 100 * summary.by_run(OPTIMAL, "test", density=density).mean()
        texts = [
            f"{name} {100 * summary.by_run(name, 'test', OWN, density=density).mean():.1f}" for name in chosen.maps
        ]
        yield (
            f"Density {density:g}: AUC on bags drawn as those trained on is {best:.1f} for who knows how they are "
            f"drawn, and with the regularisation of each map's choice: {', '.join(texts)}."
        )
    if not summary.rivals:
        return
    if chosen.runs < 2:
        yield "A single run tells no difference between maps: --runs 2 or more are needed."
        return
    for how, suffix in SHOWN:
        yield f"{'Accuracy' if suffix else 'AUC and gap'}, {how}: {_told(compared(summary, how, suffix))}"
    found = changes(summary)
    if found:
        told = [
            f"{name}, {metric}: {factor} {some.text()}" for (name, factor, metric), some in found.items() if some.told
        ]
        yield f"The lead over softmax changes with a factor in {len(told)} of {len(found)} cases" + _listed(told)
    found = effects(summary)
    if found:
        told = [
            f"{name}, {factor}: {some.text()}"
            for (name, factor, metric), some in found.items()
            if metric == "test" and some.told
        ]
        count = sum(metric == "test" for *_, metric in found)
        yield f"A regularisation changes AUC on the test bags in {len(told)} of {count} cases" + _listed(told)


def _told(found: Mapping[tuple[str, float, str], Difference]) -> str:
    """Write which differences from softmax are told, and the largest of those that are not."""
    told = [
        f"{name} {metric} at density {density:g} {some.text()}"
        for (name, density, metric), some in found.items()
        if some.told
    ]
    rest = [abs(some.mean) for some in found.values() if not some.told]
    largest = f" The others are at most {100 * max(rest):.1f} points." if rest else ""
    return f"{len(told)} of {len(found)} differences from softmax are told from 0" + _listed(told) + largest


def _listed(texts: Sequence[str]) -> str:
    """Continue a sentence with a list, and end it."""
    return f": {'; '.join(texts)}." if texts else "."


# Figures


def figure(summary: Summary) -> Figure | None:
    """Draw the differences from softmax with their intervals; None where nothing is compared."""
    if not summary.rivals:
        return None
    found = compared(summary, AVERAGED)
    none = Difference(np.nan, np.nan, np.nan, np.nan)
    panels = {
        f"{name}, density {density:g}": {
            metric: (100 * some.mean, 100 * (some.high - some.mean))
            for metric in _metrics(found)
            for some in [found.get((name, density, metric), none)]
        }
        for density in summary.chosen.densities
        for name in summary.rivals
    }
    title = "AUC less that of softmax in the same run: mean and 95 % interval"
    drawn = plotting.intervals(panels, styles={}, xlabel="points", title=title)
    for axis in drawn.axes:
        axis.axvline(0, color="black", linewidth=0.8)
    return drawn


def levels_figure(summary: Summary) -> Figure | None:
    """Draw AUC on test bags, and on shifted ones, over the levels of each regularisation.

    Returns
    -------
    matplotlib.figure.Figure or None
        One row for each regularisation with several levels, a column for each density and kind of bags; None where
        there is no row.
    """
    columns = [(metric, density) for density in summary.chosen.densities for metric in ("test", SHIFTED)]
    factors = list(summary.varied())
    if not factors:
        return None
    grid = [
        [
            plotting.Panel(
                f"{metric}, density {density:g}" if factor == factors[0] else "",
                [_line(summary, name, metric, density, factor) for name in summary.chosen.maps],
                "AUC",
            )
            for metric, density in columns
        ]
        for factor in factors
    ]
    return plotting.curves(grid, xlabel=factors, title=f"AUC: mean and deviation of {summary.chosen.runs} run(s)")


def _line(summary: Summary, name: str, metric: str, density: float, factor: str) -> plotting.Line:
    """Return the mean and the deviation over runs of a map at each level of a factor."""
    levels = sorted(summary.levels(factor, map=name))
    values = [summary.by_run(name, metric, density=density, **{factor: level}) for level in levels]
    spread = np.std(values, axis=1, ddof=1) if summary.chosen.runs > 1 else 0.0
    return plotting.Line(name, levels, np.mean(values, axis=1), spread, plotting.member_style(name))
