"""The study of efficiency: what came out, as tables, words and a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsehopfield._engine import resources
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Means
from sparsehopfield.studies._core.words import bullets, wrap
from sparsehopfield.studies.efficiency import protocol
from sparsehopfield.studies.efficiency.options import Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: How far above theory a fitted exponent may be and still count as it.
TOLERANCE = 0.15
#: Repeats whose upper quartile is so many times the lower one were disturbed.
UNSTEADY = 1.5
MIB = 2**20
#: All pairs solid, some of them dashed, features dotted, PyTorch grey; Okabe and Ito's colours.
STYLES: dict[str, dict[str, Any]] = {
    "softmax": {"color": "#D55E00", "marker": "s", "linestyle": "-"},
    "sparsemax": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "top-k": {"color": "#56B4E9", "marker": "^", "linestyle": "-"},
    "window": {"color": "#009E73", "marker": "D", "linestyle": "--"},
    "random-mask": {"color": "#E69F00", "marker": "v", "linestyle": "--"},
    "blocks": {"color": "#CC79A7", "marker": "P", "linestyle": "--"},
    "linear-features": {"color": "#0072B2", "marker": "x", "linestyle": ":"},
    "random-features": {"color": "#D55E00", "marker": "+", "linestyle": ":"},
    "torch": {"color": "#222222", "marker": "", "linestyle": "-"},
    "torch-window": {"color": "#777777", "marker": "", "linestyle": "--"},
}
STYLES = {member: {"color": "#000000", "marker": "*", "linestyle": "--"} for member in protocol.MEMBERS} | STYLES


class Summary(Means):
    """The measurements by member, direction and length.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    chosen : Options
        The options of the run.
    threads : int
        How many there were.
    torch : str or None
        The version of PyTorch; None where it is not installed.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], chosen: Options, threads: int, torch: str | None) -> None:
        super().__init__(rows, ("member", "direction", "length"))
        self.chosen, self.threads, self.torch = chosen, threads, torch
        self.members: list[str] = self.levels("member")
        self.has_memory = any(row["metric"] == "memory" for row in rows)

    def curve(self, member: str, direction: str, metric: str) -> dict[int, float]:
        """Return the measured values by length."""
        return {
            length: self.mean(key, metric)
            for length in self.chosen.lengths
            if self.has(key := (member, direction, length)) and (key, metric) in self._values
        }

    def exponent(self, member: str, direction: str, metric: str) -> float:
        """Fit the exponent of a metric from `fit_from` on; nan where there are not two lengths."""
        points = [(n, v) for n, v in self.curve(member, direction, metric).items() if n >= 2**self.chosen.fit_from]
        return resources.exponent([n for n, _ in points], [v for _, v in points])

    def ratios(self, member: str, direction: str) -> dict[int, float]:
        """Return times as shares of those of PyTorch's fused attention."""
        theirs = self.curve("torch", direction, "time")
        return {n: t / theirs[n] for n, t in self.curve(member, direction, "time").items() if n in theirs}


def figure(summary: Summary) -> Figure:
    """Draw time and memory over the length, forward and backward."""
    shown = [("time", "seconds", 1.0)] + [("memory", "MiB", MIB)] * summary.has_memory
    panels = [
        [
            plotting.Panel(
                f"{metric}, {direction}",
                [
                    plotting.Line(
                        member, list(curve), [v / unit if v else math.nan for v in curve.values()], style=STYLES[member]
                    )
                    for member in summary.members
                    if (curve := summary.curve(member, direction, metric))
                ],
                unit_name,
            )
            for direction in protocol.DIRECTIONS
        ]
        for metric, unit_name, unit in shown
    ]
    title = f"{summary.chosen.d} features, {_threads(summary)}"
    return plotting.curves(panels, xlabel="length N = M", title=title, log=True, logy=True)


def report_text(summary: Summary) -> str:
    """Write the measurements, in tables and in words."""
    chosen = summary.chosen
    introduction = wrap(
        f"N queries over as many patterns of {chosen.d} features, independent normal numbers, float32, "
        f"{_threads(summary)}. top-k keeps {chosen.k} patterns and the random mask {chosen.k}, the window has "
        f"{chosen.window} on each side, blocks are of {chosen.block} with both neighbours, random features "
        f"{chosen.features}; all with softmax but sparsemax. Forward is one update; backward the gradients of queries, "
        "patterns and values by the association, whose forward pass is not in the time, but in the memory. Memory is "
        "the peak beyond arrays that come in and go out, each in a new process."
    )
    parts = ["Efficiency", introduction]
    for direction in protocol.DIRECTIONS:
        parts += ["\n".join([f"Milliseconds, {direction}", _table(summary, direction, "time", 1e-3)])]
        ratios = {member: summary.ratios(member, direction) for member in summary.members}
        if any(ratios.values()):
            parts += ["\n".join([f"The same as shares of torch's fused attention, {direction}", _lengths(ratios)])]
    if summary.has_memory:
        for direction in protocol.DIRECTIONS:
            parts += ["\n".join([f"Memory in MiB, {direction}", _table(summary, direction, "memory", MIB)])]
    fitted = sum(n >= 2**chosen.fit_from for n in chosen.lengths)
    parts += [
        wrap(
            f"Exponents in the length, fitted from {2**chosen.fit_from:,} on, of up to {fitted} lengths; of memory "
            "theory is an upper bound"
        ),
        _exponents(summary),
        "Multiplications of an update, promised and counted, at the longest length that was counted",
        _multiplications(summary),
        bullets("What came out", _findings(summary)),
        bullets("What is not here", _missing(summary)),
    ]
    return "\n\n".join(parts)


def _threads(summary: Summary) -> str:
    return f"{summary.threads} thread{'s' * (summary.threads > 1)}"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else "0" if value == 0 else "<.001"


def _lengths(curves: Mapping[str, Mapping[int, float]]) -> str:
    """Make a table of values by length."""
    lengths = sorted({n for curve in curves.values() for n in curve})
    lines = [["", *(f"{n:,}" for n in lengths)]]
    lines += [
        [name, *(_number(curve[n]) if n in curve else "-" for n in lengths)] for name, curve in curves.items() if curve
    ]
    return aligned(lines)


def _table(summary: Summary, direction: str, metric: str, unit: float) -> str:
    curves: dict[str, dict[int, float]] = {}
    for member in summary.members:
        curves[member] = {n: v / unit for n, v in summary.curve(member, direction, metric).items()}
        if metric == "memory" and direction == "forward":
            promised = summary.curve(member, direction, "bytes")
            curves[f"{member}, promised"] = {n: v / unit for n, v in promised.items() if v}
    return _lengths(curves)


def _exponents(summary: Summary) -> str:
    lines = [["", "time: theory", *protocol.DIRECTIONS]]
    if summary.has_memory:
        lines[0] += ["memory: theory", *protocol.DIRECTIONS]
    for member in summary.members:
        line = [member, str(protocol.MEMBERS[member])]
        for metric in ["time", "memory"][: 1 + summary.has_memory]:
            line += ["1"] * (metric == "memory")
            found = [summary.exponent(member, direction, metric) for direction in protocol.DIRECTIONS]
            line += ["-" if math.isnan(value) else f"{value:.2f}" for value in found]
        lines.append(line)
    return aligned(lines)


def _multiplications(summary: Summary) -> str:
    lines = [["", "length", "promised", "counted"]]
    for member in summary.members:
        promised = summary.curve(member, "forward", "multiplications")
        counted = summary.curve(member, "forward", "counted")
        if not promised:
            continue
        n = max(counted or promised)
        lines.append([member, f"{n:,}", f"{promised[n]:.4g}", f"{counted[n]:.4g}" if counted else "-"])
    return aligned(lines)


def _findings(summary: Summary) -> list[str]:
    sentences = _steadiness(summary)
    for metric in ["time", "memory"][: 1 + summary.has_memory]:
        for direction in protocol.DIRECTIONS:
            sentences += _growth(summary, metric, direction)
    for direction in protocol.DIRECTIONS:
        sentences += _against_torch(summary, direction)
    pairs = [
        (promised[n], value)
        for member in summary.members
        if (promised := summary.curve(member, "forward", "multiplications"))
        for n, value in summary.curve(member, "forward", "counted").items()
    ]
    if pairs:
        sentences.append(
            f"In {sum(a == b for a, b in pairs)} of {len(pairs)} settings the multiplications promised are those "
            "counted."
        )
    return sentences + _promised_memory(summary)


def _growth(summary: Summary, metric: str, direction: str) -> list[str]:
    found = {member: summary.exponent(member, direction, metric) for member in summary.members}
    found = {member: value for member, value in found.items() if not math.isnan(value)}
    if not found:
        return []
    above = {
        member: value
        for member, value in found.items()
        if value > (protocol.MEMBERS[member] if metric == "time" else 1) + TOLERANCE
    }
    text = (
        f"{metric.capitalize()}, {direction}: {len(found) - len(above)} of {len(found)} exponents are at most "
        f"{TOLERANCE:g} above what theory says"
    )
    if above:
        text += "; not those of " + ", ".join(f"{member} ({value:.2f})" for member, value in above.items())
    return [text + "."]


def _against_torch(summary: Summary, direction: str) -> list[str]:
    """Write from which length on each is faster than PyTorch's fused attention, and by how much at the longest."""
    words, slower = [], []
    for member in summary.members:
        ratios = summary.ratios(member, direction)
        if member == "torch" or not ratios:
            continue
        longest = max(ratios)
        if ratios[longest] >= 1:
            slower.append(f"{member} ({ratios[longest]:.3g} times its time at {longest:,})")
            continue
        since = min(n for n in ratios if all(ratios[m] < 1 for m in ratios if m >= n))
        words.append(f"{member} from {since:,} on ({1 / ratios[longest]:.3g} times as fast at {longest:,})")
    sentences = []
    if words:
        sentences.append(f"Faster than PyTorch's fused attention, {direction}: {', '.join(words)}.")
    if slower:
        sentences.append(f"Slower at the longest length that both have, {direction}: {', '.join(slower)}.")
    ours, theirs = (summary.curve(member, direction, "time") for member in ("window", "torch-window"))
    both = ours.keys() & theirs.keys()
    if both:
        n = max(both)
        ratio = theirs[n] / ours[n]
        sentences.append(
            f"The window, {direction}, at {n:,} takes {ours[n] * 1e3:.3g} ms, the one made with PyTorch "
            f"{theirs[n] * 1e3:.3g} ms: {max(ratio, 1 / ratio):.3g} times as {'long' if ratio >= 1 else 'fast'}."
        )
    return sentences


def _promised_memory(summary: Summary) -> list[str]:
    most = {}
    for member in summary.members:
        promised, found = (summary.curve(member, "forward", metric) for metric in ("bytes", "memory"))
        shares = {n: found[n] / promised[n] for n in found if promised[n]}
        if shares:
            most[member] = max((share, n) for n, share in shares.items())
    if not most:
        return []
    within = [member for member, (share, _) in most.items() if share <= 1]
    beyond = [f"{member} ({share:.2g} times at {n:,})" for member, (share, n) in most.items() if share > 1]
    text = (
        f"The peak of an update with {_threads(summary)} stays within the bytes promised (those of pairs are for one "
        f"thread) at every length for {len(within)} of {len(most)} members"
    )
    return [text + (f"; not for {', '.join(beyond)}." if beyond else ".")]


def _steadiness(summary: Summary) -> list[str]:
    """Write whether the times can be trusted."""
    spreads = {
        (member, direction, n): value
        for member in summary.members
        for direction in protocol.DIRECTIONS
        for n, value in summary.curve(member, direction, "spread").items()
    }
    if not spreads:
        return []
    worst = max(spreads, key=lambda key: spreads[key])
    unsteady = sum(value > UNSTEADY for value in spreads.values())
    text = (
        f"Between the quartiles of its repeats a time grows by a median of {statistics.median(spreads.values()):.2f}, "
        f"and by more than {UNSTEADY:g} in {unsteady} of {len(spreads)} settings"
    )
    if not unsteady:
        return [text + "."]
    member, direction, n = worst
    return [
        text + f" (most, {spreads[worst]:.3g}, for {member}, {direction}, at {n:,}): "
        "the machine was not quiet, and times and their exponents tell little there."
    ]


def _missing(summary: Summary) -> list[str]:
    chosen, sentences = summary.chosen, []
    if summary.torch is None:
        sentences.append("PyTorch is not installed: its rows, and all that is compared with them, are left out.")
    left: dict[str, list[str]] = {}
    for member in chosen.members:
        out = [f"{n:,}" for n in chosen.lengths if not chosen.affords(member, n)]
        if out and (summary.torch or not protocol.is_torch(member)):
            left.setdefault(", ".join(out), []).append(member)
    sentences += [
        f"Length {out} of {', '.join(members)}: an update takes more than {chosen.most_multiplications:g} "
        "multiplications (--most-multiplications)."
        for out, members in left.items()
    ]
    if not summary.has_memory:
        sentences.append("Memory: this system does not tell its peak (/proc/self/clear_refs is missing).")
    return sentences or ["Nothing was left out."]
