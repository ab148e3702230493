"""Stored patterns made ready for the core, and the operations on them: what functions and memories share."""

import copy as copying
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine.checks import (
    FLOAT32,
    FLOAT64,
    Array,
    as_beta,
    as_flag,
    as_list,
    as_number,
    as_out,
    as_patterns,
    as_queries,
    as_rows,
    as_scale,
    as_values,
    as_whole,
    compute_dtype,
    in_order,
)
from sparsehopfield._engine.copying import copied
from sparsehopfield._engine.partial import Candidates, sparse_rows
from sparsehopfield._engine.separations import (
    SeparationMap,
    has_cutoff,
    row_of,
    separation_code,
    similarity_code,
)
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield._engine.text import short
from sparsehopfield.errors import RetrievalWarning

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sparsehopfield.structures._features import FeatureState, Steps

Separation = str | SeparationMap
IndexUse = bool | str  # True, False or "auto"
INDEX_USES: dict[IndexUse, int] = {"auto": 0, True: 1, False: 2}  # sh_index_use in csrc/include/sparsehopfield.h
TYPE_CODES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}  # sh_type in csrc/include/sparsehopfield.h


def as_index(index: Any) -> IndexUse:
    """Return whether calls build an index by themselves: "auto", True or False."""
    if type(index) is str and index == "auto":
        return index
    if isinstance(index, (bool, np.bool_)):
        return bool(index)
    error = ValueError if isinstance(index, str) else TypeError
    raise error(f"index: must be 'auto', True or False, got {short(index)}")


@dataclass
class RetrievalInfo:
    """How a retrieval went, query by query; every field has the queries' leading shape.

    Attributes
    ----------
    steps : ndarray of int64
        Updates made.
    converged : ndarray of bool
        Whether the last update moved the state by at most `tol * max |xi|`.
    support_size : ndarray of int64
        Patterns with weight in the last association.
    states : ndarray
        Where the queries came to rest, in pattern space; the result itself unless `values` were given.
    weights : scipy.sparse.csr_array or None
        The last association, one row a query, if asked for.
    energy : ndarray or None
        Energy of the states, if asked for.
    """

    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]
    support_size: NDArray[np.int64]
    states: Array
    weights: "csr_array | None" = None
    energy: Array | None = None


@dataclass
class Asked:
    """A call's queries, flat and contiguous, and the model they are asked under."""

    given: Array  # as they came in
    rows: Array  # (N, d)
    leading: tuple[int, ...]
    beta: NDArray[np.float64]
    code: tuple[int, float]
    structure: Structure | None = None  # None: all pairs

    def pairs(self, n_patterns: int) -> Any:
        """Which pairs the core is to look at; None for all."""
        return None if self.structure is None else self.structure.descriptor(len(self.rows), n_patterns)

    def steps(self, stored: "Stored") -> "CoreSteps | Steps":
        """What takes the steps."""
        own = None if self.structure is None else self.structure.steps(stored, self)
        return CoreSteps(stored, self) if own is None else own

    def refuse(self, what: str) -> None:
        """Raise if the structure has no such thing."""
        if self.structure is not None:
            self.structure.refuse(what)


class CoreSteps:
    """The updates of one call, by the core."""

    def __init__(self, stored: "Stored", asked: Asked) -> None:
        self.core, self.asked = stored.core(asked.rows.dtype), asked
        self.pairs = asked.pairs(len(stored.patterns))

    def into(self, rows: Array, out: Array) -> None:
        """One update of rows: of the values, if there are any."""
        _core.update(self.core, rows, self.asked.beta, *self.asked.code, self.pairs, out)

    def retrieve(
        self, rows: Array, max_steps: int, tol: float, states: Array, before: Array | None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Updates until rest, into states; before: where each query was at its last update."""
        asked = self.asked
        return _core.retrieve(self.core, rows, asked.beta, *asked.code, self.pairs, max_steps, tol, states, before)


class Stored:
    """Patterns and values, checked; per compute dtype a capsule of the core that keeps their norms."""

    def __init__(
        self,
        patterns: ArrayLike,
        values: ArrayLike | None,
        similarity: str,
        *,
        copy: bool | None,
        check_finite: bool,
        scale: float | None = None,
        index: IndexUse = "auto",
    ) -> None:
        self.index = as_index(index)
        self.similarity = similarity
        self.similarity_code = similarity_code(similarity)
        self.given = as_patterns("patterns", patterns)
        self.given_values = as_values(values, len(self.given))
        self.check_finite = as_flag("check_finite", check_finite)
        self.scale = as_scale(scale, self.given)
        self.dtype = compute_dtype(self.given, self.given_values)
        self.patterns = as_rows(self.given, self.dtype)
        self.values = None if self.given_values is None else as_rows(self.given_values, self.dtype)
        own = as_flag("copy", copy)
        if own and self.patterns is self.given:
            self.patterns = copied(self.patterns)
        if own and self.values is not None and self.values is self.given_values:
            self.values = copied(self.values)
        self._cores: dict[np.dtype[Any], Any] = {}
        # sums of features of the patterns, or of the first of them; structures/_features.py fills it
        self.features: dict[tuple[Structure, float, np.dtype[Any], bool], FeatureState] = {}

    @property
    def width(self) -> int:
        """Features of a result."""
        return int((self.patterns if self.values is None else self.values).shape[1])

    def core(self, dtype: np.dtype[Any]) -> Any:
        """The core's memory in this compute dtype."""
        if dtype not in self._cores:
            patterns = as_rows(self.patterns, dtype)
            values = None if self.values is None else as_rows(self.values, dtype)
            options = (self.similarity_code, TYPE_CODES[dtype], self.scale, self.check_finite)
            core = _core.memory(patterns, values, *options)
            if self.index != "auto":
                _core.use_index(core, INDEX_USES[self.index])
            if self.index is True:
                _core.build_index(core)
            self._cores[dtype] = core
        return self._cores[dtype]

    def over(self, patterns: Array, values: Array | None, *, grown: bool, index: "IndexUse | None" = None) -> "Stored":
        """The same model over other rows, which must lie as the core reads them; the patterns are checked now.

        grown: they begin with these rows, whose norms need not be taken again. index: another use of it.
        """
        other = copying.copy(self)
        other.index = self.index if index is None else index
        other.given = other.patterns = patterns
        other.given_values = other.values = values
        other._cores = {}
        other.features = dict(self.features) if grown else {}
        if grown:
            core = other._cores[self.dtype] = _core.extend(self.core(self.dtype), patterns, values)
            _core.use_index(core, INDEX_USES[other.index])
        else:
            other.core(self.dtype)
        return other

    def ask(
        self, queries: ArrayLike, beta: ArrayLike, separation: Separation, structure: Structure | None = None
    ) -> Asked:
        """Check what a call brings."""
        code = separation_code(separation)
        given = as_queries(queries, self.patterns.shape[1])
        leading = given.shape[:-1]
        dtype = FLOAT64 if FLOAT64 in (self.dtype, compute_dtype(given)) else FLOAT32
        rows = in_order(given, dtype).reshape(-1, given.shape[-1])
        return Asked(given, rows, leading, as_beta(beta, leading), code, as_structure(structure))

    def result(self, out: Any, asked: Asked, width: int) -> tuple[Array, Array]:
        """(what the core writes to, what the caller gets)."""
        shape, dtype = (*asked.leading, width), asked.rows.dtype
        inputs = (asked.given, asked.rows, self.given, self.patterns, self.given_values, self.values)
        out = as_out(out, shape, dtype, inputs)
        if out is None:
            out = np.empty(shape, dtype)
        flat = out.reshape(-1, width) if out.flags.carray else np.empty((len(asked.rows), width), dtype)
        return flat, out

    @staticmethod
    def settle(flat: Array, out: Array) -> Array:
        """Bring the core's result to where the caller wants it."""
        if not out.flags.carray:  # rows apart, or not aligned
            out[...] = flat.reshape(out.shape)
        return out

    def update(self, asked: Asked, out: Any) -> Array:
        """One step."""
        flat, out = self.result(out, asked, self.width)
        asked.steps(self).into(asked.rows, flat)
        return self.settle(flat, out)

    def energy(self, asked: Asked) -> Any:
        """E_beta."""
        asked.refuse("energy")
        if not row_of(asked.code).has_energy:
            raise ValueError(
                f"separation: {row_of(asked.code).name.capitalize()} has no energy: the Jacobian of its update is not "
                "symmetric, so the update is no gradient step of anything"
            )
        pairs = asked.pairs(len(self.patterns))
        e = _core.energy(self.core(asked.rows.dtype), asked.rows, asked.beta, *asked.code, pairs)
        if len(e) and np.abs(e).max() > np.finfo(asked.rows.dtype).max:
            raise OverflowError(f"beta: the energy, in units of 1/beta, exceeds the largest {asked.rows.dtype}")
        return in_order(e, asked.rows.dtype).reshape(asked.leading)[()]

    def entries(
        self, asked: Asked, top: Any, min_weight: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Lists of positions, scores and weights."""
        asked.refuse("associate")
        n, m = len(asked.rows), len(self.patterns)
        limit = 0 if top is None else as_whole("top", top, 1)
        least = 0.0 if min_weight is None else as_number("min_weight", min_weight, least=0.0)
        pairs = asked.pairs(m)
        if pairs is None and not has_cutoff(asked.code) and limit == 0 and least == 0:
            gigabytes = n * m * (asked.rows.dtype.itemsize + 8) / 2**30
            raise ValueError(
                f"top: this separation gives weight to all patterns, {n} x {m} weights ({gigabytes:.3g} GiB); "
                "pass top= (how many of a query) or min_weight= (the least)"
            )
        core = self.core(asked.rows.dtype)
        return _core.associate(core, asked.rows, asked.beta, *asked.code, pairs, limit, least)

    def associate(self, asked: Asked, top: Any, min_weight: Any) -> "csr_array":
        """Weights as a sparse array."""
        start, position, _, weight = self.entries(asked, top, min_weight)
        return sparse_rows(start, position, in_order(weight, asked.rows.dtype), len(self.patterns))

    def candidates(self, asked: Asked, offset: Any) -> Candidates:
        """The partial result of these patterns."""
        asked.refuse("candidates")
        offset = as_whole("offset", offset, 0)
        if asked.structure is not None:
            raise ValueError(
                "structure: parts of the patterns are merged as parts of all pairs; there are none of others"
            )
        part = Candidates(
            leading=asked.leading,
            beta=asked.beta,
            code=asked.code,
            dtype=asked.rows.dtype,
            n_patterns=offset + len(self.patterns),
            similarity=self.similarity,
            has_values=self.values is not None,
            scale_of_patterns=self.scale,
        )
        if has_cutoff(asked.code):
            start, position, score, _ = self.entries(asked, None, None)
            return replace(part, start=start, position=position + offset, score=score)
        mixture = np.empty((len(asked.rows), self.width), asked.rows.dtype)
        core = self.core(asked.rows.dtype)
        scale, total = _core.accumulate(core, asked.rows, asked.beta, *asked.code, mixture)
        return replace(part, scale=scale, sum=total, mixture=mixture)

    def retrieve(
        self, asked: Asked, max_steps: Any, tol: Any, return_info: bool | Collection[str], out: Any
    ) -> Array | tuple[Array, RetrievalInfo]:
        """Steps until nothing moves."""
        max_steps = as_whole("max_steps", max_steps, 0)
        dtype, d = asked.rows.dtype, asked.rows.shape[1]
        tol = 4 * float(np.finfo(dtype).eps) if tol is None else as_number("tol", tol, least=0.0)
        wanted = set(_wanted(return_info))
        update = asked.steps(self)
        if wanted:
            if not isinstance(update, CoreSteps):
                raise ValueError(f"return_info: this structure has no {min(wanted)}; of features ask True or False")
            if "energy" in wanted and not row_of(asked.code).has_energy:
                raise ValueError(f"return_info: {row_of(asked.code).name.capitalize()} has no energy")
            if "weights" in wanted and not has_cutoff(asked.code) and update.pairs is None:
                raise ValueError(
                    "return_info: weights of a map with full support would be N x M; use associate(top=...)"
                )
        needs_before = self.values is not None or "weights" in wanted
        if max_steps == 0 and needs_before:
            raise ValueError("max_steps: must be at least 1 where values or weights are wanted")
        flat, out = self.result(out, asked, self.width)
        states = flat if self.values is None else np.empty(asked.rows.shape, dtype)
        before = np.empty(asked.rows.shape, dtype) if needs_before else None
        steps, converged, support = update.retrieve(asked.rows, max_steps, tol, states, before)
        last = None if before is None else replace(asked, given=before, rows=before)
        if last is not None and self.values is not None:
            update.into(last.rows, flat)
        out = self.settle(flat, out)
        moving = int(np.count_nonzero(~converged))
        if moving and max_steps > 0:
            warnings.warn(
                f"{moving} of {len(steps)} queries still moved by more than tol * max|xi| = {tol:.3g} * max|xi| after "
                f"{max_steps} steps; raise max_steps or tol",
                RetrievalWarning,
                stacklevel=3,
            )
        if return_info is False:
            return out
        lead = asked.leading
        info = RetrievalInfo(
            steps.reshape(lead), converged.reshape(lead), support.reshape(lead), states.reshape(*lead, d)
        )
        if last is not None and "weights" in wanted:
            info.weights = self.associate(last, None, None)
        if "energy" in wanted:
            info.energy = self.energy(replace(asked, given=states, rows=states))
        return out, info


def _wanted(return_info: bool | Collection[str]) -> Collection[str]:
    if isinstance(return_info, bool):
        return ()
    what = "True, False, or names of 'weights', 'energy'"
    names = [return_info] if isinstance(return_info, str) else as_list("return_info", return_info, what)
    if unknown := [n for n in names if not isinstance(n, str) or n not in ("weights", "energy")]:
        raise ValueError(f"return_info: unknown {short(unknown[0])}; must be {what}")
    return names
