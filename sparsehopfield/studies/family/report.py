"""The report of the family study: tables, sentences and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core.means import Key, Means
from sparsehopfield.studies._core.words import bullets, join_numbers, wrap
from sparsehopfield.studies.family import protocol
from sparsehopfield.studies.family.options import Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: A member with this share of softmax's success, or more, is as good.
AS_GOOD = 0.95
COLUMNS = ("part", "damage", "size", "member", "budget", "place")


class Summary(Means):
    """The table by part, damage, size, member, budget and place; all runs together.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    times : sequence of float
        Seconds of each setting, in the table's order; nan where unknown.
    chosen : Options
        The options of the run.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], times: Sequence[float], chosen: Options) -> None:
        super().__init__(rows, COLUMNS)
        self.chosen = chosen
        settings = dict.fromkeys((*(row[name] for name in COLUMNS), row["run"]) for row in rows)
        self._times: dict[Key, list[float]] = {}
        for key, seconds in zip(settings, times, strict=True):
            self._times.setdefault(key[:-1], []).append(seconds)
        self.sizes = [
            size for size in chosen.sizes if any(key[0] == "retrieval" and key[2] == size for key in self.keys)
        ]
        #: Member, budget and place of all that retrieve among the most patterns.
        self.members: list[Key] = list(
            dict.fromkeys(key[3:] for key in self.keys if key[0] == "retrieval" and key[2] == max(self.sizes))
        )

    def seconds(self, key: Key) -> float:
        """Return the median over the runs: of one query's update, or of training on one bag once."""
        return float(np.median(self._times[key]))

    def at(self, damage: str, size: int, who: Key) -> Key:
        """Return the key of a member."""
        return ("retrieval", damage, size, *who)

    def whole(self, who: Key, metric: str, size: int | None = None) -> float:
        """Return the mean over all damages, at the most patterns unless another size is given."""
        size = max(self.sizes) if size is None else size
        return float(np.mean([self.mean(self.at(damage, size, who), metric) for damage in self.chosen.damages]))

    def total(self, member: str, metric: str) -> float:
        """Return the sum over all settings of a member."""
        keys = [key for key in self.keys if key[0] == "retrieval" and key[3] == member]
        return float(sum(self.values(key, metric).sum() for key in keys))


def name_of(who: Key) -> str:
    """Format member, budget and place."""
    member, budget, place = who
    shown = f"{member} {budget}" if budget or member in protocol.BUDGETS else member
    return shown if place == "-" else f"{shown}, {place}"


def trade_off(summary: Summary) -> Figure:
    """Draw success over the time of a query, at the most patterns."""
    panels = {}
    for damage in summary.chosen.damages:
        series: dict[str, list[tuple[float, float]]] = {}
        for who in summary.members:
            key = summary.at(damage, max(summary.sizes), who)
            label = who[0] if who[2] == "-" else f"{who[0]}, {who[2]}"
            series.setdefault(label, []).append((1e6 * summary.seconds(key), summary.mean(key, "retrieved")))
        panels[_title(summary, damage)] = series
    return plotting.trade_offs(
        panels,
        xlabel="time of a query, µs",
        ylabel="share retrieved",
        title=f"M = {max(summary.sizes)} {summary.chosen.dataset}; larger points: larger budgets",
    )


def success(summary: Summary) -> Figure:
    """Draw success over the number of patterns, for the largest budget that each member has at all of them."""
    largest: dict[tuple[str, str], Key] = {}
    for who in summary.members:
        if all(summary.has(summary.at(damage, m, who)) for damage in summary.chosen.damages for m in summary.sizes):
            largest[who[0], who[2]] = who
    panels = []
    for damage in summary.chosen.damages:
        lines = []
        for (member, place), who in largest.items():
            keys = [summary.at(damage, size, who) for size in summary.sizes]
            lines.append(
                plotting.Line(
                    name_of(who),
                    summary.sizes,
                    [summary.mean(key, "retrieved") for key in keys],
                    [summary.std(key, "retrieved") for key in keys],
                    plotting.member_style(member, blind=place == "blind"),
                )
            )
        panels.append(plotting.Panel(_title(summary, damage), lines, "share retrieved", (-0.03, 1.03)))
    return plotting.curves([panels], xlabel="stored patterns M", title=summary.chosen.dataset, log=True)


def _title(summary: Summary, damage: str) -> str:
    return f"{summary.chosen.mask} half masked" if damage == "mask" else f"noise {summary.chosen.noise:g}"


def report_text(summary: Summary) -> str:
    """Write every member beside its bound, in one table, and recommendations in words."""
    chosen, parts = summary.chosen, ["The family of memories"]
    if summary.sizes:
        parts += [
            wrap(
                f"M = {join_numbers(summary.sizes)} images ({chosen.dataset}), centred, of length 1; "
                f"{' and '.join(_title(summary, damage) for damage in chosen.damages)}; one update, {chosen.runs} runs "
                f"of at most {chosen.queries} queries. Retrieved: 1 - cosine below {chosen.threshold:g}. Each member "
                f"has the beta of {join_numbers(chosen.betas)} that retrieves most of as many other queries. 'oracle' "
                "places a query at its target, 'blind' anywhere."
            ),
            wrap(
                f"At M = {max(summary.sizes)}: share retrieved by damage; 'seen', whose target is among the patterns "
                "looked at, and the share retrieved of these; mean distance to the target; time and multiplications of "
                "a query, patterns stored and sums made. Then, of all M, what is proved of a member: the means of its "
                "left and right sides, the share of checks where it says more than is trivial, and how often it is "
                "broken."
            ),
            aligned(_table(summary)),
            bullets("What came out", _findings(summary)),
        ]
    if any(key[0] == "bags" for key in summary.keys):
        parts += [
            "Bags of bit strings: accuracy on bags not trained on, per cent; time of a training step, µs a bag",
            aligned(_bags(summary)),
            bullets("Of bags", _bag_findings(summary)),
        ]
    return "\n\n".join(parts)


def _table(summary: Summary) -> list[list[str]]:
    chosen = summary.chosen
    head = ["member", *chosen.damages, "seen", "of these", "error", "beta", "µs", "multipl."]
    lines = [[*head, "what the theory says", "left", "right", "says", "broken"]]
    for who in summary.members:
        keys = [summary.at(damage, max(summary.sizes), who) for damage in chosen.damages]
        seen, found = (summary.whole(who, metric) for metric in ("seen", "found"))
        betas = sorted({float(beta) for key in keys for beta in summary.values(key, "beta")})
        line = [
            name_of(who),
            *(f"{summary.mean(key, 'retrieved'):.2f}" for key in keys),
            f"{seen:.2f}",
            f"{found / seen:.2f}" if seen else "-",
            f"{summary.whole(who, 'error'):.3f}",
            f"{betas[0]:g}" if len(betas) == 1 else f"{betas[0]:g}-{betas[-1]:g}",
            f"{1e6 * np.median([summary.seconds(key) for key in keys]):.3g}",
            f"{summary.whole(who, 'multiplications'):.3g}",
        ]
        checks = _checks(summary, who)
        lines.append(line + (checks[0] if checks else ["-", "", "", "", ""]))
        lines += [[""] * len(line) + more for more in checks[1:]]
    return lines


def _checks(summary: Summary, who: Key) -> list[list[str]]:
    """Make the lines about the bounds of one member with one budget, at all numbers of patterns."""
    found = []
    keys = [key for key in summary.keys if key[0] == "retrieval" and key[3:] == who]
    for which, names in (("upper", protocol.UPPER), ("lower", protocol.LOWER)):
        if who[0] not in names:
            continue
        values = {
            metric: np.concatenate([summary.values(key, f"{which} {metric}") for key in keys])
            for metric in protocol.CHECKS
        }
        count = values["checked"].sum()
        if not count:  # no query of the kind that the bound is of
            continue
        mean, bound = (float(values[m] @ values["checked"] / count) for m in ("measured", "bound"))
        found.append(
            [
                names[who[0]],
                f"{mean:.3g}",
                f"{bound:.3g}",
                f"{values['informative'].sum() / count:.2f}",
                f"{values['broken'].sum():.0f} of {count:.0f}",
            ]
        )
    return found


def _findings(summary: Summary) -> list[str]:
    sentences, largest = [], max(summary.sizes)
    at = f"at M = {largest}"
    reached = {who: summary.whole(who, "retrieved") for who in summary.members}
    times = {
        who: float(np.median([summary.seconds(summary.at(damage, largest, who)) for damage in summary.chosen.damages]))
        for who in summary.members
    }
    full = [who for who in summary.members if who[0] in protocol.FULL]
    best = max(full, key=lambda who: reached[who]) if full else None
    if best is not None:
        others = [who for who in summary.members if who[0] not in protocol.FULL and who[2] != "oracle"]
        good = [who for who in others if reached[who] >= AS_GOOD * reached[best]]
        words = f"Of all pairs {name_of(best)} retrieves most {at}, {reached[best]:.2f}. "
        if good:
            quickest = min(good, key=lambda who: times[who])
            words += (
                f"Without an oracle, {_and([name_of(who) for who in good])} "
                f"{'reaches' if len(good) == 1 else 'reach'} {AS_GOOD:.0%} of that or more; the quickest takes "
                f"{times[quickest] / times[best]:.1f} times as long as all pairs."
            )
        else:
            words += f"Without an oracle nothing else reaches {AS_GOOD:.0%} of that."
        sentences.append(words)
    sentences += _of_subsets(summary, reached)
    sentences += _of_features(summary, reached, best)
    sentences += _of_bounds(summary)
    return sentences


def _of_subsets(summary: Summary, reached: dict[Key, float]) -> list[str]:
    sentences = []
    blind = [who for who in summary.members if who[0] == "random" or who[2] == "blind"]
    if blind:
        shares = [reached[who] for who in blind]
        unseen = [(reached[who] - summary.whole(who, "found")) for who in blind]
        seen = [summary.whole(who, "seen") for who in blind]
        sentences.append(
            f"Blind windows, blocks and random subsets see the target of {min(seen):.2f} to {max(seen):.2f} of the "
            f"queries, and retrieve {min(shares):.2f} to {max(shares):.2f}. At most {max(unseen):.2f} of all "
            "queries are retrieved without their target, by patterns that are like it."
        )
    oracle = [who for who in summary.members if who[2] == "oracle"]
    if oracle:
        worst = min(oracle, key=lambda who: reached[who])
        sentences.append(
            f"With an oracle they retrieve {reached[worst]:.2f} ({name_of(worst)}) to "
            f"{max(reached[who] for who in oracle):.2f}: where an order or a grouping of the patterns says where to "
            "look, they pay; blind, none comes as far."
            if blind and reached[worst] > max(reached[who] for who in blind)
            else f"With an oracle they retrieve {reached[worst]:.2f} ({name_of(worst)}) to "
            f"{max(reached[who] for who in oracle):.2f}, not always more than blind."
        )
    return sentences


def _of_features(summary: Summary, reached: dict[Key, float], best: Key | None) -> list[str]:
    sentences = []
    linear = [who for who in summary.members if who[0] in protocol.LINEAR]
    if linear:
        most = max(reached[who] for who in linear)
        few = best is not None and most < 0.1 * reached[best]
        sentences.append(
            f"Linear features retrieve at most {most:.2f}, at a distance of at least "
            f"{min(summary.whole(who, 'error') for who in linear):.2f} to the target on average: "
            + ("they are no memory." if few else "more than a tenth of what all pairs do.")
        )
    random = [who for who in summary.members if who[0] == "features"]
    if random:
        top = max(random, key=lambda who: reached[who])
        needed = min(summary.whole(who, "needed") for who in random)
        shown = "more than 1e308" if np.isinf(needed) else f"about {needed:.0e}"
        enough = needed <= max(who[1] for who in random)
        sentences.append(
            f"Random features retrieve at most {reached[top]:.2f} ({name_of(top)}). To know the kernel of a query "
            f"and its target to a third at the beta that softmax has, {shown} features would be needed"
            + (", which are there." if enough else ": no number that is worth asking for.")
        )
    return sentences


def _of_bounds(summary: Summary) -> list[str]:
    broken, checked, members = 0.0, 0.0, []
    for which, names in (("upper", protocol.UPPER), ("lower", protocol.LOWER)):
        for member in dict.fromkeys(who[0] for who in summary.members if who[0] in names and who[0] != "features"):
            bad = summary.total(member, f"{which} broken")
            broken, checked = broken + bad, checked + summary.total(member, f"{which} checked")
            members += [f"{member} ({names[member]})"] if bad else []
    sentences = []
    if checked:
        sentences.append(
            f"Bounds that are proved: broken in {broken:.0f} of {checked:.0f} checks"
            + (f", by {_and(members)}." if members else ".")
        )
    if any(who[0] == "features" for who in summary.members):
        count, bad = (summary.total("features", f"upper {metric}") for metric in ("checked", "broken"))
        sentences.append(
            f"The kernel of random features is off by more than three standard deviations in {bad:.0f} of {count:.0f} "
            f"checks, of which Chebyshev's inequality allows one in nine on average: "
            + ("kept." if bad <= count / 9 else "exceeded in these draws.")
        )
    return sentences


def _bags(summary: Summary) -> list[list[str]]:
    sizes = summary.levels("size", part="bags")
    whos = list(dict.fromkeys(key[3:] for key in summary.keys if key[0] == "bags"))
    lines = [["member", *(f"{size} instances" for size in sizes), "beta", "µs a bag"]]
    for who in whos:
        keys = [("bags", "-", size, *who) for size in sizes if summary.has(("bags", "-", size, *who))]
        betas = sorted({float(beta) for key in keys for beta in summary.values(key, "beta")})
        lines.append(
            [
                name_of(who),
                *(
                    summary.text(("bags", "-", size, *who), "accuracy", digits=1)
                    if summary.has(("bags", "-", size, *who))
                    else "-"
                    for size in sizes
                ),
                f"{betas[0]:g}" if len(betas) == 1 else f"{betas[0]:g}-{betas[-1]:g}",
                f"{1e6 * np.median([summary.seconds(key) for key in keys]):.3g}",
            ]
        )
    return lines


def _bag_findings(summary: Summary) -> list[str]:
    size = max(summary.levels("size", part="bags"))
    scores = {key[3:]: summary.mean(key, "accuracy") for key in summary.keys if key[:3] == ("bags", "-", size)}
    ranked = sorted(scores, key=lambda who: -scores[who])
    lead = scores[ranked[0]] - scores[ranked[-1]]
    words = ", ".join(f"{name_of(who)} {100 * scores[who]:.1f}" for who in ranked)
    return [
        f"With {size} instances, from most to least accurate: {words} per cent"
        + (f"; {100 * lead:.1f} points between the first and the last." if len(ranked) > 1 else ".")
    ]


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
