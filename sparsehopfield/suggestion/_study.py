"""How the settings of some data are found: what is looked at, measured and chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine.call import Separation, still_moving
from sparsehopfield._engine.checks import (
    Array,
    as_generator,
    as_patterns,
    as_queries,
    as_whole,
    compute_dtype,
    ignoring_float_errors,
)
from sparsehopfield._engine.separations import cutoff_of, row_of, separation_code, similarity_code, valid_separations
from sparsehopfield._engine.structure import Structure
from sparsehopfield._engine.text import in_bytes, short
from sparsehopfield.inspect.certificates import Certified, row_lengths
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.structures import TopK
from sparsehopfield.suggestion import _betas
from sparsehopfield.suggestion._betas import (
    OCTAVES,
    Floats,
    Positions,
    Search,
    deciding_beta,
    drawn,
    most_left_out,
    part_of,
)
from sparsehopfield.suggestion._table import Suggestion, SuggestionRow, as_targets, naming_rows

__all__ = ["suggest"]


SETTINGS = ("similarity", "beta", "separation", "structure", "index")
LOOKED_AT = 2**34  # most multiplications of the scores of the rows that are looked at
EQUAL_LENGTHS = 1e-3  # the spread of lengths, over their mean, up to which they count as equal
ANOTHER_SCALE = 0.2  # how far the usual query's length may be from that of the row it is like, as a share
QUERIES = 256  # that are retrieved, at most
STEPS = 100  # of their retrieval, at most
SHARE = 0.99  # of the rows that are to be stored, and of the queries that go to a row, relative to what is possible
WEIGHED = 64  # rows whose weights under maps with full support are looked at


class _Study:
    """The rows, what is asked of them, and the lines of the table as they are found."""

    def __init__(self, X: Array, values: Array | None, sample: Positions, queries: Array) -> None:
        self.X, self.values, self.sample, self.queries = X, values, sample, queries
        self.lines: list[SuggestionRow] = []
        self._memories: dict[str, HopfieldMemory] = {}
        self._found: dict[str, Certified] = {}

    def memory(
        self, similarity: str, beta: float = 1.0, separation: Separation = "sparsemax", k: int | None = None
    ) -> HopfieldMemory:
        """Return a memory of the rows, under TopK(k) if that is given; of one similarity all share their index."""
        if similarity not in self._memories:
            with naming_rows():
                self._memories[similarity] = HopfieldMemory(self.X, values=self.values, similarity=similarity)
        memory = self._memories[similarity]._at(beta)
        memory.separation = separation
        memory.structure = None if k is None else TopK(k)
        return memory

    def add(self, setting: str, value: Any, reason: str, evidence: Any, call: str) -> None:
        """Add a line."""
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        self.lines.append(SuggestionRow(setting, text, reason, float(evidence), call))

    def name_value(self, setting: str, value: str, *, given: bool) -> None:
        """Fill in what a setting's lines suggest, now that it is decided."""
        text = f"{value} (given)" if given else value
        self.lines = [replace(row, value=text) if row.setting == setting else row for row in self.lines]

    @property
    def rows(self) -> Array:
        """Return the rows that are looked at."""
        return self.X[self.sample]

    def states(self, similarity: str) -> tuple[Array, str]:
        """Return the rows that are looked at as the memory stores them, and the expression that gives them."""
        return (_unit_rows(self.rows), UNIT_ROWS) if similarity == "cosine" else (self.rows, ROWS)

    def typical(self, similarity: str) -> tuple[Array, str]:
        """Return the queries that are looked at, or these rows where there are none; and their expression."""
        return (self.queries, ASKED) if len(self.queries) else self.states(similarity)

    def found(self, similarity: str) -> Certified:
        """Return which rows these rows go to."""
        if similarity not in self._found:
            self._found[similarity] = self.memory(similarity).certify(self.states(similarity)[0])
        return self._found[similarity]

    def gaps(self, similarity: str) -> Floats:
        """Compute by how much each of these rows, at its own place, scores above all others; 0 where it does not."""
        found = self.found(similarity)
        return np.where(found.nearest == self.sample, np.maximum(found.gap, 0.0), 0.0)

    def can_be_cosine(self) -> bool:
        """Return whether no row has length 0."""
        try:
            self.memory("cosine")
        except (ValueError, OverflowError):
            return False
        return True


# Expressions: of the rows that are looked at, of their directions, and of the queries that are.
ROWS = "X[s.sample]"
UNIT_ROWS = "X[s.sample] / np.linalg.norm(X[s.sample], axis=1, keepdims=True)"
ASKED = "queries.reshape(-1, X.shape[1])[s.queried]"


@ignoring_float_errors()
def _unit_rows(rows: Array) -> Array:
    """Return rows scaled to length 1."""
    return (rows / row_lengths(rows)[:, None]).astype(compute_dtype(rows))


def _percent(share: Any) -> str:
    """Return a share in percent."""
    return f"{100 * share:.3g} %"


def _as_expression(separation: Separation) -> str:
    """Return the expression that gives a separation map."""
    return repr(separation) if isinstance(separation, str) else f"sh.{separation!r}"


def _has_full_support(separation: Separation) -> bool:
    """Return whether a map gives weight to all rows."""
    return cutoff_of(separation_code(separation)) is None


# --- similarity -------------------------------------------------------------------------------------------------------


def _choose_similarity(study: _Study, predictions: _Predictions | None, given: str | None, tried: Separation) -> str:
    """Decide the similarity; add its lines."""
    equal = _has_equal_lengths(study)
    similarity = ("dot" if equal else "euclidean") if given is None else given
    if given is None and not equal:
        if len(study.queries):
            is_cosine = study.can_be_cosine()
            off = _scale_of_queries(study, is_cosine)
            if off > ANOTHER_SCALE and (is_cosine or (study.gaps("dot") > 0).mean() >= SHARE):
                similarity = "cosine" if is_cosine else "dot"
        elif predictions is not None:
            names = ("euclidean", "cosine", "dot") if study.can_be_cosine() else ("euclidean", "dot")
            similarity = predictions.choose("similarity", [(name, tried) for name in names])[0]
    if predictions is None:
        _add_stored_shares(study, similarity)
    study.name_value("similarity", similarity, given=given is not None)
    return similarity


@ignoring_float_errors()
def _has_equal_lengths(study: _Study) -> bool:
    """Return whether all rows are equally long, or nearly; add lines about lengths and about the mean."""
    rows = study.rows.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    if not lengths.any():
        return True
    spread = lengths.std() / lengths.mean()
    equal = bool(spread <= EQUAL_LENGTHS)
    reason = "All rows that were looked at are equally long: all similarities rank them alike, 'dot' is the plainest."
    if not equal:
        reason = f"Lengths vary by {_percent(spread)} of their mean, and longer rows have larger dot products."
    call = "(lambda r: r.std() / r.mean())(np.linalg.norm(X[s.sample].astype(float), axis=1))"
    study.add("similarity", "", reason, spread, call)
    common = (rows.mean(axis=0) ** 2).sum() / (lengths**2).mean()
    reason = f"The mean of all rows has {_percent(common)} of their squared length"
    reason += ": cosines are much alike." if common > 0.25 else ", too little to make cosines alike."
    call = "(lambda x: (x.mean(axis=0) ** 2).sum() / (x**2).sum(axis=1).mean())(X[s.sample].astype(float))"
    study.add("similarity", "", reason, common, call)
    return equal


def _add_stored_shares(study: _Study, chosen: str) -> None:
    """Add lines about which share of the rows some beta stores, under dot similarity and under the chosen one."""
    for similarity in dict.fromkeys(("dot", chosen)):
        share = (study.gaps(similarity) > 0).mean()
        states = study.states(similarity)[1]
        call = (
            f"(sh.HopfieldMemory(X, similarity={similarity!r}).certify({states}, beta=1e300).index == s.sample).mean()"
        )
        reason = f"Under {similarity!r} {_percent(share)} of the rows score best at their place: a beta stores them."
        study.add("similarity", "", reason, share, call)


@ignoring_float_errors()
def _scale_of_queries(study: _Study, is_cosine: bool) -> float:
    """Compute by which share the usual query is longer or shorter than the row that it is like; add lines.

    is_cosine: all rows have a direction; else those count that have. 0 where none has.
    """
    X, of_directed = "X", study
    if not is_cosine:
        has_direction = np.any(study.X, axis=1)
        empty = 1 - has_direction.mean()
        reason = f"{_percent(empty)} of the rows are zeros, which have no cosine; without them it may be better."
        study.add("similarity", "", reason, empty, "1 - np.any(X, axis=1).mean()")
        X, of_directed = "X[np.any(X, axis=1)]", _Study(study.X[has_direction], None, study.sample, study.queries)
        if not has_direction.any() or not of_directed.can_be_cosine():
            return 0.0
    nearest = of_directed.memory("cosine").certify(study.queries).nearest
    q, x = study.queries.astype(np.float64), of_directed.X[nearest].astype(np.float64)
    off = float(np.median(np.abs((q * x).sum(axis=1) / (x * x).sum(axis=1) - 1)))
    reason = f"The usual query is off the scale of the row it is like by {_percent(off)}: "
    reason += "distances mislead, directions do not." if off > ANOTHER_SCALE else "distances compare them."
    found = f"sh.HopfieldMemory({X}, similarity='cosine').certify({ASKED}).nearest"
    call = (
        "(lambda q, x: np.median(np.abs((q * x).sum(axis=1) / (x * x).sum(axis=1) - 1)))"
        f"({ASKED}.astype(float), {X}[{found}].astype(float))"
    )
    study.add("similarity", "", reason, off, call)
    return off


# --- beta -------------------------------------------------------------------------------------------------------------


def _rounded_up(beta: float) -> float:
    """Return a beta of four digits that is no smaller, where there is one."""
    with ignoring_float_errors():
        unit = 10.0 ** (np.floor(np.log10(beta)) - 3)
        rounded = float(f"{np.ceil(beta / unit) * unit:.3e}") if unit > 0 else beta
    return rounded if beta <= rounded < np.inf else beta


def _required_gap(separation: Separation, m: int) -> float:
    """Return by how much a row must lead to get all the weight, in units of 1/beta; or 99 % of it, of m rows."""
    cutoff = cutoff_of(separation_code(separation))
    return float(np.log(99.0 * max(1, m - 1))) if cutoff is None else cutoff


def _add_spacing(study: _Study, beta: float) -> None:
    """Add lines about copies and about rows that are much closer than others."""
    gaps = study.found("euclidean").gap
    copies = (gaps <= 0).mean()
    call = "sh.HopfieldMemory(X, similarity='euclidean').certify(X[s.sample]).gap"
    reason = f"{_percent(copies)} of the rows are copies of others, which no beta stores: see memory.duplicates()."
    study.add("beta", beta, reason if copies else "No row is a copy of another.", copies, f"({call} <= 0).mean()")
    apart = np.sqrt(gaps[(gaps > 0) & np.isfinite(gaps)])
    if len(apart):
        skew = np.median(apart) / np.quantile(apart, 0.01)
        reason = f"The closest neighbours are {skew:.3g} times nearer than the usual ones"
        reason += ": one beta suits all." if skew < 3 else ", and decide beta; take less to average such rows."
        call = f"(lambda r: np.median(r) / np.quantile(r, 0.01))(np.sqrt((g := {call})[(g > 0) & np.isfinite(g)]))"
        study.add("beta", beta, reason, skew, call)


def _storing(study: _Study, similarity: str, separation: Separation) -> float:
    """Find the beta that stores the rows; add the lines about it."""
    states, call = study.states(similarity)
    gaps = study.gaps(similarity)
    beta = _rounded_up(deciding_beta(gaps, _required_gap(separation, len(study.X)), SHARE))
    if _has_full_support(separation):
        weights = study.memory(similarity, beta, separation).associate(states[:WEIGHED], top=1)
        share = (weights.max(axis=1).toarray() >= SHARE).mean()
        reason = f"{_percent(share)} of the rows have 99 % of the weight at their own place."
        found = f"s.memory(X, structure=None).associate(({call})[:{WEIGHED}], top=1)"
        call = f"({found}.max(axis=1).toarray() >= {SHARE}).mean()"
    else:
        share = (study.memory(similarity, beta, separation).certify(states).index == study.sample).mean()
        reason = f"{_percent(share)} of the rows have all the weight at their own place; a beta can store "
        reason += f"{_percent((gaps > 0).mean())}."
        call = f"(s.memory(X).certify({call}).index == s.sample).mean()"
    study.add("beta", beta, reason, share, call)
    _add_spacing(study, beta)
    return beta


def _retrieving(study: _Study, similarity: str, separation: Separation) -> float:
    """Find the beta at which queries go to stored rows; add the lines about it."""
    X, of_distinct = "X", study
    if (
        study.found("euclidean").gap <= 0
    ).mean() > 1 - SHARE:  # no beta tells copies apart: queries go to what is there
        X, of_distinct = "np.unique(X, axis=0)", _Study(np.unique(study.X, axis=0), None, study.sample, study.queries)
    m = len(of_distinct.X)
    memory, required = of_distinct.memory(similarity), _required_gap(separation, m)
    found = memory.certify(study.queries)
    beta = deciding_beta(found.gap, required, SHARE)
    if _has_full_support(separation):
        beta = _rounded_up(beta)
        share = (np.maximum(found.gap, 0) * beta >= required).mean()
        reason = f"{_percent(share)} of the queries give 99 % of the weight to one row at once."
        gap = f"sh.HopfieldMemory({X}, similarity={similarity!r}).certify({ASKED}).gap"
        study.add("beta", beta, reason, share, f"(np.maximum({gap}, 0) * s.beta >= {required!r}).mean()")
        _add_spacing(study, beta)
        return beta
    rows = of_distinct.X[found.nearest]
    at_rows = memory.certify(_unit_rows(rows) if similarity == "cosine" else rows)  # where queries are to stay
    beta = max(beta, deciding_beta(np.where(at_rows.nearest == found.nearest, at_rows.gap, 0), required, SHARE))

    def arrived(beta: float) -> float:
        with still_moving():
            retrieve = of_distinct.memory(similarity, beta, separation).retrieve
            info = retrieve(study.queries, max_steps=STEPS, return_info=True)[1]
        return float((info.support_size == 1).mean())

    k = int(np.clip(np.ceil(np.log2(beta)), -1000, 1000))
    most = share = arrived(2.0**k)
    end = k if m == 1 else max(k - OCTAVES, -1000)  # one row is returned at any beta
    while k > end and most > 0 and (less := arrived(2.0 ** (k - 1))) >= SHARE * most:
        k, share = k - 1, less
    beta = 2.0**k
    reason = (
        f"{_percent(share)} of the queries go to one row; at larger beta up to {_percent(most)}, at half of it fewer."
    )
    call = f"(s.memory({X}).retrieve({ASKED}, max_steps={STEPS}, return_info=True)[1].support_size == 1).mean()"
    study.add("beta", beta, reason, share, call)
    lead = 0.0 if m == 1 else float(np.median(found.gap))
    reason = (
        f"The usual query's best row leads by {lead:.3g}; with {required / beta:.3g} it has all the weight at once."
    )
    if m > 1:
        study.add("beta", beta, reason, lead, f"np.median(s.memory({X}).certify({ASKED}).gap)")
    _add_spacing(study, beta)
    return beta


# --- what predicts rows -----------------------------------------------------------------------------------------------


class _Predictions:
    """What rows predict of each other under models, each at its best beta, of all rows or of PART of them."""

    def __init__(self, study: _Study, truth: Array, task: str, part: Positions) -> None:
        self.study, self.truth, self.task = study, truth, task
        self.is_part = len(part) < len(study.X)
        self.compared, self.truth_compared = study, truth
        if self.is_part:
            assert study.values is not None
            at = np.searchsorted(part, study.sample)
            self.compared = _Study(study.X[part], study.values[part], at, study.queries)
            self.truth_compared = truth[part]
        self._found: dict[tuple[str, Separation], tuple[float, Floats]] = {}

    def search(self, memory: HopfieldMemory) -> Search:
        """Return the search of a memory of all rows."""
        return Search.begin(memory, self.truth, self.task, np.ones(len(self.truth)), self.study.sample)

    def best(self, similarity: str, separation: Separation) -> tuple[float, Floats]:
        """Return the best beta where models are compared, and the rows' losses there."""
        key = similarity, separation
        if key not in self._found:
            memory = self.compared.memory(similarity, 1.0, separation)
            weight = np.ones(len(self.truth_compared))
            search = Search.begin(memory, self.truth_compared, self.task, weight, self.compared.sample)
            beta = search.best()[0]
            self._found[key] = beta, search.losses(beta)[0]
        return self._found[key]

    @property
    def score_name(self) -> str:
        """Return what the score is, in words."""
        return "leave-one-out accuracy" if self.task == "classification" else "leave-one-out R^2"

    def score_call(self, options: str = "", *, is_part: bool = False) -> str:
        """Return the expression of the score."""
        X, y, at = (
            ("X[s.part]", "y[s.part]", "np.searchsorted(s.part, s.sample)") if is_part else ("X", "y", "s.sample")
        )
        found = f"s.memory({X}, {y}{options}).leave_one_out({at})"
        if self.task == "classification":
            return f"({found}.argmax(axis=1) == np.unique({y}, return_inverse=True)[1][{at}]).mean()"
        return f"1 - np.mean(np.mean(({found} - {y}.reshape(len({y}), -1)[{at}]) ** 2, axis=0) / np.var({y}, axis=0))"

    def choose(self, setting: str, models: list[tuple[str, Separation]]) -> tuple[str, Separation]:
        """Return the first model, or the best of those whose losses are less by two standard errors; add lines."""
        first = self.best(*models[0])[1]
        better = []
        for similarity, separation in models:
            beta, losses = self.best(similarity, separation)
            gain = first - losses
            if gain.mean() > 2 * gain.std() / len(gain) ** 0.5:
                better.append((similarity, separation))
            named = repr(similarity) if setting == "similarity" else short(separation)
            score = 1 - losses.mean()
            among = f" of {len(self.compared.X)} rows" if self.is_part else ""
            reason = f"With {named} the {self.score_name}{among} is {score:.4g}, at its best beta, {beta:.4g}."
            options = (
                f", similarity={similarity!r}, separation={_as_expression(separation)}, beta={beta!r}, structure=None"
            )
            self.study.add(setting, "", reason, score, self.score_call(options, is_part=self.is_part))
        return min(better, key=lambda model: float(self.best(*model)[1].mean()), default=models[0])

    def beta(self, similarity: str, separation: Separation) -> float:
        """Find the best beta of a model of all rows; add the lines about it."""
        search = self.search(self.study.memory(similarity, 1.0, separation))
        beta = search.best(self.best(similarity, separation)[0])[0]
        score = 1 - search.losses(beta)[0].mean()
        reason = f"Its {self.score_name}, {score:.4g}, is the best of a logarithmic grid."
        self.study.add("beta", beta, reason, score, self.score_call(", structure=None"))
        sharp = 1 - search.losses(16 * beta)[0].mean()
        reason = f"At 16 times this beta, where fewer rows count, it is {sharp:.4g}."
        self.study.add("beta", beta, reason, sharp, self.score_call(", beta=16 * s.beta, structure=None"))
        return beta

    def neighbours(self, similarity: str, beta: float, separation: Separation) -> tuple[int | None, float]:
        """Return how many of the best rows predict no worse than all, None if not at most half; and their score."""
        loss = self.search(self.study.memory(similarity, 1.0, separation)).losses(beta)[0].mean()
        k = 1
        while k <= min(len(self.study.X) // 2, _betas.COMPARED):
            memory = self.study.memory(similarity, 1.0, separation, k)
            if (found := self.search(memory).losses(beta)[0].mean()) <= loss:
                return k, 1 - float(found)
            k *= 2
        return None, 1 - float(loss)


# --- separation map and structure -------------------------------------------------------------------------------------


def _add_softmax(study: _Study, similarity: str, beta: float, separation: Separation) -> None:
    """Add the line about the weight that softmax would give."""
    states, call = study.typical(similarity)
    memory = study.memory(similarity, beta, "softmax")
    weight = np.median(memory.associate(states[:WEIGHED], top=1).max(axis=1).toarray())
    reason = f"It can give one row all the weight; softmax at this beta gives the best {_percent(weight)}."
    if _has_full_support(separation):
        reason = f"It returns no row exactly; softmax at this beta gives the best {_percent(weight)} of the weight."
    call = f"s.memory(X, separation='softmax', structure=None).associate(({call})[:{WEIGHED}], top=1)"
    study.add("separation", "", reason, weight, f"np.median({call}.max(axis=1).toarray())")


def _choose_structure(
    study: _Study, predictions: _Predictions | None, similarity: str, beta: float, separation: Separation
) -> Structure | None:
    """Decide the structure; add its line, and the one about an index."""
    m, memory = len(study.X), study.memory(similarity, beta, separation)
    states, call = study.typical(similarity)
    k, support = None, float(m)
    if not _has_full_support(separation):
        found, call = memory.associate(states), f"s.memory(X).associate({call}).nnz / {len(states)}"
        if predictions is not None and len(study.queries) == 0:
            found = memory.associate(study.rows, exclude=study.sample)
            call = f"s.memory(X).associate(X[s.sample], exclude=s.sample).nnz / {len(states)}"
        evidence = support = found.nnz / len(states)
        reason = f"A query gives weight to {support:.3g} of {m} rows as it is: there is nothing to leave out."
    elif predictions is not None:
        k, evidence = predictions.neighbours(similarity, beta, separation)
        call = predictions.score_call()
        reason = f"The {k} best of {m} rows predict no worse than all, and the others need not be weighed."
        if k is None:
            reason = f"Fewer rows predict worse, of those up to {_betas.COMPARED} and up to half of the {m}."
    else:
        k, evidence = _heaviest(memory, states)
        call = f"s.memory(X, structure=None).associate(({call})[:{WEIGHED}], top={k}).sum(axis=1).min()"
        reason = f"The {k} best of {m} rows have {_percent(evidence)} of the weight; the others need not be weighed."
        if k is None:
            reason = f"The weight is spread over more than {_betas.COMPARED} rows or half of all."
            evidence, call = float(m), "len(X)"
    structure = None if k is None else TopK(k)
    study.add("structure", structure, reason, evidence, call)
    reason = f"The rows take {in_bytes(memory.nbytes)}; calls build an index of 8-bit codes beside them where it pays."
    if (support if k is None else k) > max(1024, m / 16):
        reason = f"The rows take {in_bytes(memory.nbytes)}; no index pays, as too many of them have weight."
    call = "s.memory(X).nbytes" if study.values is None else "s.memory(X, y).nbytes"
    study.add("index", "auto", reason, memory.nbytes, call)
    return structure


def _heaviest(memory: HopfieldMemory, queries: Array) -> tuple[int | None, float]:
    """Return how many rows, a power of 2, have 99.9 % of the weight of all queries, and what they have.

    None if that is more than half of all.
    """
    most = min(len(memory) // 2, _betas.COMPARED)
    if most > 0:
        weights = memory.associate(queries[:WEIGHED], top=most).toarray()
        heaviest = -np.sort(-weights, axis=1)[:, :most].cumsum(axis=1).min(axis=0)
        enough = np.flatnonzero(heaviest >= 0.999)
        if len(enough):
            k = min(most, 2 ** int(np.ceil(np.log2(enough[0] + 1))))
            return k, float(memory.associate(queries[:WEIGHED], top=k).sum(axis=1).min())
    return None, 0.0


def suggest(
    X: ArrayLike,
    y: Any = None,
    queries: ArrayLike | None = None,
    *,
    task: str | None = None,
    similarity: str | None = None,
    separation: Separation | None = None,
    subsample: int = 1024,
    random_state: Any = 0,
) -> Suggestion:
    """Suggest similarity, beta, separation map and structure for some data, with reasons.

    Parameters
    ----------
    X : array_like, shape (M, d)
        The rows to be stored.
    y : array_like, shape (M,) or (M, t), optional
        Their classes or targets: then the settings are those by which rows are best predicted that the memory does not
        see.
    queries : array_like, shape (..., d), optional
        Typical queries, damaged as they will be: then the similarity and, without `y`, beta are those by which such
        queries go to a stored row. Without `queries` and `y` beta stores the rows themselves.
    task : {"classification", "regression"}, optional
        What `y` is. By default floating-point numbers and rows of numbers are targets, and all else classes.
    similarity : {"dot", "euclidean", "cosine"}, optional
        The similarity, if it is decided: the other settings are then found for it.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax, optional
        The map, if it is decided. By default sparsemax, but with `y` entmax15 or softmax if they predict better.
    subsample : int, at least 1
        How many rows to look at, at most; each is compared with all. Never more than 1024, and fewer, but at least 256,
        where M d is large. Of the queries 256 are looked at, at most.
    random_state : int, Generator or None
        Draws these. The result is the same for the same number.

    Returns
    -------
    Suggestion
        Prints as a table, each line with what was measured and the expression that measures it. `memory(X)` builds the
        memory, `settings()` are the arguments of it and of the estimators.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.Suggestion : What is returned.
    sparsehopfield.suggestion.best_beta : Choose beta alone, by predictions.
    sparsehopfield.HopfieldMemory.suggest_beta : Choose beta alone, for what is stored.

    Notes
    -----
    1. Similarity. Rows of one length are ranked alike by all three, and "dot" is the plainest. Of others "euclidean"
       stores every distinct row, while under "dot" longer rows outrank shorter ones. With queries that are longer or
       shorter than the rows they are like, as where a part of them is lost, distances mislead: then it is "cosine", or
       "dot" if rows of zeros have no cosine and "dot" stores 99 % of the rows.
       Stored rows are then unit rows; `memory(X, values=X)` returns the rows themselves. With `y` and no queries
       another similarity takes the place of "euclidean" if its predictions are better by more than two standard errors.
    2. Beta. Without `y` and queries the least beta at which 99 % of the rows that any beta stores are certified:
       `memory.certify` of the rows, so each has all the weight from its own query on. A map that gives weight to all
       rows gives 99 % of it to the row itself. With queries, the least power of 2 at which 99 % of those go to a stored
       row that do at the largest beta; with `y` what `best_beta` finds.
    3. Structure. None, but `TopK(k)` for maps with full support, softmax, where k rows, at most half of all, predict no
       worse than all, or have 99.9 % of the weight. Structures that go by places are never suggested: rows do not tell
       whether their order means something.
    4. Time: 60,000 x 784 float32 rows take 2.5 s of a processor, 4.3 s with queries and 9.3 s with classes, half of
       that on two cores.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import suggest
    >>> X = np.random.default_rng(0).standard_normal((500, 32))
    >>> found = suggest(X, queries=X[:50] + 0.3)
    >>> found.similarity, found.beta, found.separation, found.structure
    ('euclidean', 0.125, 'sparsemax', None)
    >>> found.rows[0].setting, found.rows[0].reason
    ('similarity', 'Lengths vary by 11.7 % of their mean, and longer rows have larger dot products.')
    """
    most = as_whole("subsample", subsample, 1)
    rng = as_generator("random_state", random_state)
    if similarity is not None:
        similarity_code(similarity)
    if separation is not None and not row_of(separation_code(separation)).shift_invariant:
        valid = valid_separations(shift_invariant=True)
        raise ValueError(f"separation: beta cancels in the weights of {short(separation)}; must be {valid}")
    rows = as_patterns("X", X)
    m, d = rows.shape
    asked = np.empty((0, d)) if queries is None else as_queries(queries, d).reshape(-1, d)
    if queries is not None and len(asked) == 0:
        raise ValueError("queries: needs at least one")
    truth = values = None
    most = min(most, int(np.clip(LOOKED_AT / (m * d), 256, _betas.COMPARED)))
    if y is not None:
        truth, values, task = as_targets(y, rows, task)
        most = min(most, most_left_out(m, d))
        if m == 1:
            raise ValueError("y: a row is predicted by others, and X has one row")
        if task == "regression" and (constant := (values == values[0]).all(axis=0)).any():
            raise ValueError(f"y: target {np.argmax(constant)} is the same for all rows: there is nothing to predict")
    elif task is not None:
        raise ValueError("task: says what y is, and there is no y")
    sample, queried = drawn(rng, np.arange(m), most), drawn(rng, np.arange(len(asked)), QUERIES)
    part = part_of(m, sample)
    study = _Study(rows, values, sample, asked[queried])
    study.memory("euclidean" if similarity is None else similarity)  # raises where rows cannot be stored
    tried: Separation = "sparsemax" if separation is None else separation
    predictions = None if truth is None or task is None else _Predictions(study, truth, task, part)
    chosen = _choose_similarity(study, predictions, similarity, tried)
    if predictions is not None:
        others: list[Separation] = ["entmax15", "softmax"] if separation is None else []
        tried = predictions.choose("separation", [(chosen, name) for name in (tried, *others)])[1]
        beta = predictions.beta(chosen, tried)
    else:
        beta = (_retrieving if len(asked) else _storing)(study, chosen, tried)
        _add_softmax(study, chosen, beta, tried)
    name = tried if isinstance(tried, str) else repr(tried)
    study.name_value("separation", name, given=separation is not None)
    structure = _choose_structure(study, predictions, chosen, beta, tried)
    lines = tuple(sorted(study.lines, key=lambda row: SETTINGS.index(row.setting)))
    return Suggestion(chosen, beta, tried, structure, lines, sample, queried, part, (m, d), task)
