"""The ledger of the papers' claims in tables and words: as text, as Markdown and as one HTML page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsehopfield._engine import html
from sparsehopfield._engine.text import aligned
from sparsehopfield.inspect import plotting
from sparsehopfield.studies._core import families, tables
from sparsehopfield.studies._core.words import bullets, join_numbers, wrap
from sparsehopfield.studies.theory_ledger.checks import RISK
from sparsehopfield.studies.theory_ledger.claims import CLAIMS
from sparsehopfield.studies.theory_ledger.trials import (
    FAILS,
    HOLDS,
    INFEASIBLE,
    METRICS,
    SLACK,
    UNDEFINED,
    VACUOUS,
    Claim,
    Evidence,
    Example,
    verdict,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What the papers claim, evaluated"
#: Okabe and Ito's colours; the verdict is written out, too.
COLOURS = {HOLDS: "#0072B2", FAILS: "#D55E00", VACUOUS: "#7A5C00", INFEASIBLE: "#A0527F", UNDEFINED: "#333333"}
MEANINGS = {
    HOLDS: "on all trials where its condition is met. Trials are no proof; the proofs are in sparsehopfield.theory",
    FAILS: "at least one trial, or a counterexample, violates it beyond rounding",
    VACUOUS: "a bound that no trial violates and that on no trial says more than what holds in any case",
    INFEASIBLE: "no trial meets its condition",
    UNDEFINED: "it evaluates to no number",
}


class Summary:
    """The table's numbers of every claim, with its examples, which are evaluated here.

    Parameters
    ----------
    rows : sequence of dict
        The study's table.
    chosen : mapping
        The options of the run.
    claims : sequence of Claim, optional
        The ledger.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], claims: Sequence[Claim] = CLAIMS
    ) -> None:
        self.chosen, self.claims = chosen, claims
        self.families: list[str] = list(chosen["families"])
        self.betas: list[float] = list(chosen["betas"])
        self._values = {(row["claim"], row["family"], row["beta_hat"], row["metric"]): row["value"] for row in rows}
        self.examples: dict[str, list[tuple[Example, Evidence]]] = {
            claim.name: [(example, claim.check(example.trials())) for example in claim.examples] for claim in claims
        }

    def value(self, claim: Claim, family: str, beta: float, metric: str) -> float:
        """Return one number of the table."""
        return self._values.get((claim.name, family, beta, metric), 0.0)

    def total(self, claim: Claim, *, examples: bool = True) -> dict[str, float]:
        """Return the numbers of all trials together, by default those of the examples among them."""
        found = [
            {metric: self.value(claim, family, beta, metric) for metric in METRICS}
            for family in self.families
            for beta in self.betas
        ]
        if examples:
            found += [evidence.summarise(claim.slack) for _, evidence in self.examples[claim.name]]
        return {
            metric: max(n[metric] for n in found) if metric == "worst" else sum(n[metric] for n in found)
            for metric in METRICS
        }

    def verdict(self, claim: Claim) -> str:
        """Return the verdict on a claim."""
        return verdict(self.total(claim), bound=claim.bound)

    def rate(self, claim: Claim, family: str) -> float:
        """Return the share of violations where the condition is met, at the worst beta; nan if it never is."""
        shares = [math.nan]
        for beta in self.betas:
            met = self.value(claim, family, beta, "met") - self.value(claim, family, beta, "undefined")
            if met:
                shares.append(self.value(claim, family, beta, "violations") / met)
        return max(shares[1:], default=math.nan)

    def worst(self, claim: Claim) -> tuple[float, str, float]:
        """Return the largest excess, and the family and beta of it."""
        found = [
            (self.value(claim, family, beta, "worst"), family, beta) for family in self.families for beta in self.betas
        ]
        return max(found, key=lambda entry: entry[0])

    def named(self, name: str) -> Claim:
        """Return a claim by its name."""
        return next(claim for claim in self.claims if claim.name == name)

    def surprises(self) -> list[str]:
        """Describe the claims whose verdict is not the expected one."""
        return [
            f"{claim.name}: {self.verdict(claim)}, where {claim.expected} is expected"
            for claim in self.claims
            if self.verdict(claim) != claim.expected
        ]


# --- what is said, in parts -------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes
    ----------
    title : str
    lines : list of list of str
        The first of them the header.
    wide : bool
        Whether it is too wide for the text on a terminal.
    """

    title: str
    lines: list[list[str]]
    wide: bool = False


@dataclass(frozen=True)
class Items:
    """A list of the report."""

    title: str
    items: list[str]


Part = str | Table | Items


def parts(summary: Summary) -> list[Part]:
    """Put the parts of the report together, before they are laid out."""
    chosen = summary.chosen
    trials = max((int(summary.total(claim, examples=False)["trials"]) for claim in summary.claims), default=0)
    introduction = (
        f"{len(summary.claims)} statements on {trials} trials: {chosen['patterns']} patterns of each family, in "
        f"{chosen['d']} dimensions (images: their own, {chosen['dataset']}), at beta m^2 = "
        f"{join_numbers(summary.betas)}, m the length of the longest pattern; {chosen['trials']} queries uniform "
        "in the spheres of radius R around patterns, as many at 0.95 R towards the nearest neighbour and as many "
        "anywhere in the ball of radius m, and the patterns themselves. An excess of more than "
        f"{SLACK:g}, relative to m for errors and slopes, to m^2 + 1/beta for energies and to the largest score for "
        "row maps, is a violation; a yes that should be a no has excess 1."
    )
    printed = [claim for claim in summary.claims if claim.printed]
    instead = [claim for claim in summary.claims if not claim.printed]
    return [
        introduction,
        Items("Families", [f"{name}: {families.FAMILIES[name]}" for name in summary.families]),
        Items("Verdicts", [f"{word}: {meaning}" for word, meaning in MEANINGS.items()]),
        Table("The claims of the paper", _ledger(summary, printed)),
        Table("What is true instead", _ledger(summary, instead)),
        Table("Violations, in % of the queries that meet the condition, at the worst beta (if any)", _rates(summary)),
        Table("What each statement says, and what is true instead", _statements(summary), wide=True),
        Items("Counterexamples, and examples that meet a condition, evaluated", _examples(summary)),
        Items("What came out", findings(summary)),
    ]


def _count(number: float) -> str:
    return f"{int(number)}"


def _share(claim: Claim, numbers: Mapping[str, float]) -> str:
    if not claim.bound or not numbers["met"]:
        return "-"
    return f"{100 * numbers['informative'] / numbers['met']:.1f}"


def _number(value: float) -> str:
    return "-" if value == -math.inf else f"{value:.2g}"


def _ledger(summary: Summary, claims: Sequence[Claim]) -> list[list[str]]:
    lines = [["", "verdict", "trials", "met", "undefined", "violated", "informative %", "worst"]]
    for claim in claims:
        n = summary.total(claim, examples=False)
        counts = [_count(n[metric]) for metric in ("trials", "met", "undefined", "violations")]
        lines.append([claim.name, summary.verdict(claim), *counts, _share(claim, n), _number(n["worst"])])
    return lines


def _per_cent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}" if share else "0"


def _rates(summary: Summary) -> list[list[str]]:
    lines = [["", *summary.families]]
    for claim in summary.claims:
        rates = [summary.rate(claim, family) for family in summary.families]
        if any(rate > 0 for rate in rates):
            lines.append([claim.name, *map(_per_cent, rates)])
    return lines


def _statements(summary: Summary) -> list[list[str]]:
    lines = [["", "it says", "verdict", "expected", "worst case", "instead"]]
    for claim in summary.claims:
        found, (excess, family, beta) = summary.verdict(claim), summary.worst(claim)
        where = f"{_number(excess)} ({family}, beta m^2 = {beta:g})" if excess > -math.inf else "-"
        expected = claim.expected if found == claim.expected else f"NOT as expected ({claim.expected})"
        lines.append([claim.name, claim.says, found, expected, where, "; ".join(claim.instead) or "-"])
    return lines


def _examples(summary: Summary) -> list[str]:
    names: dict[tuple[Any, str], list[str]] = {}  # two claims may say the same
    shown: dict[tuple[Any, str], str] = {}
    for claim in summary.claims:
        for example, evidence in summary.examples[claim.name]:
            left, right = evidence.left[0], evidence.right[0]
            numbers = f"{left:.6g} {'>' if evidence.excess[0] > claim.slack else '<='} {right:.6g}"
            key = claim.check, str(example)
            names.setdefault(key, []).append(claim.name)
            shown[key] = f"{example}: {numbers if evidence.applies[0] else 'the condition is not met'}"
    return [f"{' and '.join(names[key])}: {text}" for key, text in shown.items()]


def findings(summary: Summary) -> list[str]:
    """Write sentences from the numbers alone."""
    surprises = summary.surprises()
    printed = [summary.verdict(claim) for claim in summary.claims if claim.printed]
    words = ", ".join(f"{printed.count(word)} {word}" for word in MEANINGS if word in printed)
    sentences = [
        f"All {len(summary.claims)} verdicts are as expected."
        if not surprises
        else f"{len(surprises)} of {len(summary.claims)} verdicts are NOT as expected: {'; '.join(surprises)}.",
        f"Of the {len(printed)} statements of the paper: {words}.",
    ]
    for claim in summary.claims:
        found = summary.total(claim, examples=False)
        if claim.printed and summary.verdict(claim) == FAILS:
            sentences.append(f"{claim.name} fails {_where(summary, claim, found)}.")
    broken = [claim.name for claim in summary.claims if not claim.printed and summary.verdict(claim) == FAILS]
    others = sum(not claim.printed for claim in summary.claims)
    sentences.append(
        f"What stands in their place ({others} statements) is violated on no trial."
        if not broken
        else f"Of what stands in their place, violated: {', '.join(broken)}."
    )
    bounds = [claim for claim in summary.claims if claim.bound]
    shares = [f"{claim.name} {_share(claim, summary.total(claim, examples=False))}" for claim in bounds]
    sentences.append(
        "In so many % of the trials a bound is informative, that is below the distance of the farthest pattern, which "
        f"holds in any case (and is at most 2m): {', '.join(shares)}."
    )
    conditions = ("theorem 3.1", "corollary 3.1.1", "(3.3)", "ball of radius R", "gap of 1/beta")
    met = []
    for claim in (claim for claim in summary.claims if claim.name in conditions):
        found = summary.total(claim, examples=False)
        met.append(f"{claim.name} {_count(found['met'])}")
    if met:
        sentences.append(f"Trials that meet a condition of separation: {', '.join(met)}.")
    sentences.append(
        f"Lemma 3.1 is asked with p = {RISK:g}. The exact capacity, true instead, is held against simulation by "
        "`python -m sparsehopfield capacity-bound`."
    )
    return sentences


def _where(summary: Summary, claim: Claim, found: Mapping[str, float]) -> str:
    if not found["violations"]:
        return "by its counterexample only: no trial of the families violates it"
    rates = {family: summary.rate(claim, family) for family in summary.families}
    family = max(rates, key=lambda name: -1.0 if math.isnan(rates[name]) else rates[name])
    return (
        f"on {_count(found['violations'])} of {_count(found['met'])} trials, most often on {family} "
        f"({_per_cent(rates[family])} % at the worst beta)"
    )


# --- laid out ---------------------------------------------------------------------------------------


def report_text(summary: Summary) -> str:
    """Write the report as text for a terminal."""
    laid = [TITLE]
    for part in parts(summary):
        if isinstance(part, str):
            laid.append(wrap(part))
        elif isinstance(part, Items):
            laid.append(bullets(part.title, part.items))
        elif not part.wide:
            laid.append(f"{part.title}\n{aligned(part.lines)}")
    return "\n\n".join(laid)


def markdown(summary: Summary, picture: str) -> str:
    """Write the report as Markdown, with a figure in the file `picture`."""

    def plain(text: str) -> str:  # nothing of it is markup
        for mark in "\\`*_|<>[]":
            text = text.replace(mark, f"\\{mark}")
        return text

    laid = [f"# {TITLE}"]
    for part in parts(summary):
        if isinstance(part, str):
            laid += [plain(part), f"![Violations of each statement on each family]({picture})"]
        elif isinstance(part, Items):
            laid += [f"## {part.title}", "\n".join(f"- {plain(item)}" for item in part.items)]
        else:
            header, *lines = ([plain(cell) for cell in line] for line in part.lines)
            rule = ["---"] * len(header)
            table = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))
            laid += [f"## {part.title}", table]
    return "\n\n".join(laid) + "\n"


def page(summary: Summary, png: bytes) -> str:
    """Write the report as one HTML page that needs no other file."""
    sections = []
    for part in parts(summary):
        if isinstance(part, str):
            described = "Violations of each statement on each family"
            sections.append(html.Section(paragraphs=[part], picture=png, described=described))
        elif isinstance(part, Items):
            sections.append(html.Section(part.title, items=part.items))
        else:
            sections.append(html.Section(part.title, lines=part.lines, wide=part.wide))
    return html.page(TITLE, sections, colours=COLOURS)


def write(summary: Summary, folder: str | os.PathLike[str], picture: Path) -> list[Path]:
    """Write the report as Markdown and as an HTML page into a folder, which has the figure `picture`; return both
    files.
    """
    files = [Path(folder, "report.md"), Path(folder, "report.html")]
    for path, text in zip(files, (markdown(summary, picture.name), page(summary, picture.read_bytes())), strict=True):
        tables.write(path, text)
    return files


def figure(summary: Summary) -> Figure:
    """Draw how often each statement is violated on each family, with its verdict."""
    blocks: dict[str, dict[str, list[float]]] = {}
    notes = {}
    for claim in summary.claims:
        heading = "The paper's claims" if claim.printed else "What is true instead"
        blocks.setdefault(heading, {})[claim.name] = [summary.rate(claim, family) for family in summary.families]
        found = summary.verdict(claim)
        notes[claim.name] = found, COLOURS[found]
    return plotting.heat_map(
        blocks,
        columns=[family.replace("-", "\n") for family in summary.families],
        notes=notes,
        label="violations, in % of the queries that meet the condition, at the worst beta (–: none does, or undefined)",
        title=TITLE,
    )
