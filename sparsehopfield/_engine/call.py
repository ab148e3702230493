"""One call: queries and a model, checked once and made ready, and the operations on them."""

import re
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine import html
from sparsehopfield._engine.checks import (
    FLOAT32,
    FLOAT64,
    FLOATS,
    Array,
    as_beta,
    as_exclude,
    as_list,
    as_number,
    as_out,
    as_queries,
    as_whole,
    compute_dtype,
    contiguous,
)
from sparsehopfield._engine.chunked import chunks
from sparsehopfield._engine.executor import MOST_NEAREST, CoreExecutor, Executor
from sparsehopfield._engine.partial import Candidates, sparse_rows
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.separations import SeparationMap, has_cutoff, row_of
from sparsehopfield._engine.structure import Structure, can_exclude, check_can_leave_out
from sparsehopfield._engine.text import QUANTILES, as_shown, count, quantiles, short
from sparsehopfield.errors import RetrievalWarning

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Separation = str | SeparationMap
LARGEST = {dtype: float(np.finfo(dtype).max) for dtype in FLOATS}
BETWEEN = {"sparsehopfield", "torch", "numpy", "contextlib"}  # packages that lie between a caller and a warning
TOLERANCE = {dtype: 4 * float(np.finfo(dtype).eps) for dtype in FLOATS}  # the default of `tol`


@dataclass
class RetrievalInfo:
    """How a retrieval went, query by query; every field has the queries' leading shape.

    Attributes
    ----------
    steps : ndarray of int64, shape (...)
        Updates made.
    converged : ndarray of bool, shape (...)
        Whether the last update moved the state by at most `tol * max |xi|`.
    support_size : ndarray of int64, shape (...)
        How many patterns have weight in the last association.
    states : ndarray, shape (..., d)
        The states reached, in pattern space; the result itself unless `values` were given.
    weights : scipy.sparse.csr_array, shape (N, M), or None
        The last association, one row a query, if `return_info` names it.
    energy : ndarray, shape (...), or None
        Energy of the states, if `return_info` names it.

    See Also
    --------
    sparsehopfield.retrieve : Retrieve; with `return_info` it returns this.
    sparsehopfield.inspect.paths.retrieval_path : Record the states of every step.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import retrieve
    >>> states, info = retrieve([[0.5, 0.4], [0.0, 1.0]], np.eye(2), beta=4.0, return_info={"energy"})
    >>> info
    RetrievalInfo(2 queries, 2 converged, steps 1 to 3, support size 1)
    >>> info.steps, info.energy
    (array([3, 1]), array([-0.5, -0.5]))
    """

    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]
    support_size: NDArray[np.int64]
    states: Array
    weights: "csr_array | None" = None
    energy: Array | None = None

    def __repr__(self) -> str:
        steps, support, converged = map(as_shown, (self.steps, self.support_size, self.converged))
        said = [f"{count(converged.size, 'query')}, {np.count_nonzero(converged):,} converged"]
        for name, numbers in (("steps", steps), ("support size", support)):
            if numbers.size:
                least, most = int(numbers.min()), int(numbers.max())
                said.append(f"{name} {least}" if least == most else f"{name} {least} to {most}")
        return f"RetrievalInfo({', '.join(said)})"

    def _repr_html_(self) -> str:
        converged = as_shown(self.converged)
        share = f" ({np.count_nonzero(converged) / converged.size:.1%})" if converged.size else ""
        known = {
            "queries": f"{converged.size:,}" + (f", of shape {converged.shape}" if converged.ndim > 1 else ""),
            "converged": f"{np.count_nonzero(converged):,}{share}",
            "states": f"{' x '.join(map(str, self.states.shape))}, {self.states.dtype}",
        }
        if self.weights is not None:
            known["weights"] = f"{' x '.join(map(str, self.weights.shape))}, sparse"
        lines = [["of the queries", *QUANTILES]]
        for name in ("steps", "support_size", "energy"):
            if (given := getattr(self, name)) is not None and (numbers := as_shown(given)).size:
                lines.append([name.replace("_", " "), *quantiles(numbers)])
        return html.facts(known, "Retrieval") + (f"\n{html.table(lines)}" if len(lines) > 1 else "")


@dataclass(slots=True)
class Call:
    """Queries and the executor of the operations on them; `prepare` has checked all but the operations' arguments."""

    pattern_set: PatternSet
    queries: Array  # (..., d), as they came in
    leading: tuple[int, ...]  # the queries' leading shape, of N elements
    rows: Array  # (N, d), contiguous, of the call's dtype
    beta: NDArray[np.float64]  # (1,) or (N,)
    code: tuple[int, float]  # of the separation map: its number in the core's table, and its parameter
    structure: Structure | None  # None: all pairs
    executor: Executor
    pattern_shape: tuple[int, ...] | None = None  # in which queries may come and patterns are returned; None: (d,)

    @classmethod
    def prepare(
        cls,
        pattern_set: PatternSet,
        queries: ArrayLike,
        beta: ArrayLike,
        code: tuple[int, float],
        structure: Structure | None = None,
        exclude: ArrayLike | None = None,
        pattern_shape: tuple[int, ...] | None = None,
    ) -> Self:
        """Check queries (..., d), beta and exclude, and choose the executor; code and structure have been checked."""
        given = as_queries(queries, pattern_set.shape[1], pattern_shape)
        dtype = FLOAT64 if FLOAT64 in (pattern_set.dtype, compute_dtype(given)) else FLOAT32
        rows = contiguous(given, dtype).reshape(-1, given.shape[-1])
        leading = given.shape[:-1]
        betas = as_beta(beta, leading)
        if structure is None:
            executor: Executor = CoreExecutor(pattern_set.core(dtype), betas, code)
        else:
            executor = structure._executor(pattern_set, rows, betas, code)
        if exclude is not None:
            if not isinstance(executor, CoreExecutor) or not can_exclude(structure):
                raise ValueError(f"exclude: not under {type(structure).__name__}, but under none and TopK")
            executor.exclude = as_exclude(exclude, leading, len(pattern_set))
        return cls(pattern_set, given, leading, rows, betas, code, structure, executor, pattern_shape)

    def core_executor(self, operation: str) -> CoreExecutor:
        """Return the executor, if it is the core's; else raise that the structure has no such operation."""
        if not isinstance(self.executor, CoreExecutor):
            self.executor.refuse(operation)
            raise NotImplementedError(f"structure: has no {operation}, got {short(self.structure)}")
        return self.executor

    def _outputs(self, out: Any) -> tuple[Array, Array]:
        """Return the array (N, v) that the executor writes, and the caller's (..., v), which may be the same memory."""
        stored, dtype = self.pattern_set, self.rows.dtype
        width = stored.width
        mixes_patterns = stored.value_storage is None
        shape = *self.leading, *((mixes_patterns and self.pattern_shape) or (width,))
        if out is None:
            out = np.empty(shape, dtype)
        else:
            inputs = self.queries, self.rows, *stored.sources, stored.storage, stored.value_storage
            out = as_out(out, shape, dtype, inputs)
        return out.reshape(-1, width) if out.flags.carray else np.empty((len(self.rows), width), dtype), out

    @staticmethod
    def _copied_out(rows: Array, out: Array) -> Array:
        """Return the caller's array `out`, with the executor's rows copied to it where they lie elsewhere."""
        if not out.flags.carray:  # rows apart, or not aligned
            out[...] = rows.reshape(out.shape)
        return out

    def update(self, out: Any = None) -> Array:
        """Return one update of the queries, (..., v)."""
        rows, out = self._outputs(out)
        self.executor.update(self.rows, rows)
        return self._copied_out(rows, out)

    def energy(self, states: Array | None = None) -> Any:
        """Return E_beta of the queries, or of states (N, d) in their place, with their leading shape."""
        executor, dtype = self.core_executor("energy"), self.rows.dtype
        if not row_of(self.code).has_energy:
            raise ValueError(
                f"separation: {row_of(self.code).class_name} has no energy: the Jacobian of its update is not "
                "symmetric, so the update is no gradient step of anything"
            )
        e = executor.energy(self.rows if states is None else states)
        if len(e) and np.abs(e).max() > LARGEST[dtype]:
            raise OverflowError(f"beta: the energy, in units of 1/beta, exceeds the largest {dtype}")
        return contiguous(e, dtype).reshape(self.leading)[()]

    def associate(self, top: Any = None, min_weight: Any = None) -> "csr_array":
        """Return the weights as a sparse array (N, M)."""
        executor = self.core_executor("associate")
        limit = 0 if top is None else as_whole("top", top, 1)
        least = 0.0 if min_weight is None else as_number("min_weight", min_weight, least=0.0)
        if self._has_full_support(executor) and limit == 0 and least == 0:
            n, m = len(self.rows), len(self.pattern_set)
            gigabytes = n * m * (self.rows.itemsize + 8) / 2**30
            raise ValueError(
                f"top: this separation gives weight to all patterns, {n} x {m} weights ({gigabytes:.3g} GiB); "
                "pass top= (how many of a query) or min_weight= (the least)"
            )
        return self._sparse_weights(executor, self.rows, limit, least)

    def _has_full_support(self, executor: CoreExecutor) -> bool:
        """Return whether every pattern may have weight: neither the map nor a structure excludes any."""
        return executor.pairs is None and not has_cutoff(self.code)

    def _sparse_weights(self, executor: CoreExecutor, rows: Array, top: int = 0, least: float = 0.0) -> "csr_array":
        """Return the weights of rows (N, d), a sparse array (N, M); `top` and `least` limit them as in `associate`."""
        start, position, _, weight = executor.associate(rows, top, least)
        return sparse_rows(start, position, contiguous(weight, self.rows.dtype), len(self.pattern_set))

    def nearest(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return positions and canonical scores, (..., k), of the patterns with the best scores of each query.

        The core finds `MOST_NEAREST`. More are the k best of a call of softmax under that structure, with a beta so
        small that all of them have weight; these come by position.
        """
        executor, shape = self.core_executor("nearest"), (*self.leading, k)
        if k <= MOST_NEAREST:
            position, score = executor.nearest(self.rows, k)
            return position.reshape(shape), score.reshape(shape)
        try:
            positions = np.full((len(self.rows), k), -1, np.int64)
            scores = np.full((len(self.rows), k), -np.inf)
        except (MemoryError, ValueError):  # the latter where memory has no addresses for so many
            numbers = f"{k} positions and scores of each of {len(self.rows)} queries"
            raise MemoryError(f"k: there is no memory for {numbers}; ask for fewer") from None
        most = min(k, len(self.pattern_set))
        for chunk in chunks(len(self.rows), most * 32):  # bytes of an entry of the lists and of their order
            part = replace(executor, exclude=None if executor.exclude is None else executor.exclude[chunk])
            with rows_counted_from(chunk.start):
                start, position, score, _ = part.associate(self.rows[chunk], most)
            row = np.repeat(np.arange(chunk.start, chunk.stop), np.diff(start))
            best_first = np.lexsort((position, -score, row))
            place = np.arange(len(row)) - start[row - chunk.start]
            positions[row, place], scores[row, place] = position[best_first], score[best_first]
        return positions.reshape(shape), scores.reshape(shape)

    def candidates(self, offset: Any = 0) -> Candidates:
        """Return the partial result of these patterns, the first of which has position `offset` in the whole."""
        executor, patterns = self.core_executor("candidates"), self.pattern_set
        offset = as_whole("offset", offset, 0)
        if self.structure is not None:
            raise ValueError(
                "structure: parts of the patterns are merged as parts of all pairs; there are none of others"
            )
        part = Candidates(
            leading=self.leading,
            beta=self.beta,
            code=self.code,
            dtype=self.rows.dtype,
            n_patterns=offset + len(patterns),
            similarity=patterns.similarity,
            has_values=patterns.value_storage is not None,
            scale_of_patterns=patterns.scale,
        )
        if has_cutoff(self.code):
            start, position, score, _ = executor.candidates(self.rows)
            return replace(part, start=start, position=position + offset, score=score)
        mixture = np.empty((len(self.rows), patterns.width), self.rows.dtype)
        scale, total = executor.accumulate(self.rows, mixture)
        return replace(part, scale=scale, sum=total, mixture=mixture)

    def retrieve(
        self, max_steps: Any, tol: Any, return_info: bool | Collection[str], out: Any
    ) -> Array | tuple[Array, RetrievalInfo]:
        """Update the queries until none moves; return the states (..., v), and a RetrievalInfo unless that is False."""
        max_steps = as_whole("max_steps", max_steps, 0)
        dtype, executor, has_values = self.rows.dtype, self.executor, self.pattern_set.value_storage is not None
        tol = TOLERANCE[dtype] if tol is None else as_number("tol", tol, least=0.0)
        extras = _extras(return_info)
        if extras:
            if not isinstance(executor, CoreExecutor):
                raise ValueError(f"return_info: this structure has no {min(extras)}; of features ask True or False")
            if "energy" in extras and not row_of(self.code).has_energy:
                raise ValueError(f"return_info: {row_of(self.code).class_name} has no energy")
            if "weights" in extras and self._has_full_support(executor):
                raise ValueError(
                    "return_info: weights of a map with full support would be N x M; use associate(top=...)"
                )
        needs_before = has_values or "weights" in extras
        if max_steps == 0 and needs_before:
            raise ValueError("max_steps: must be at least 1 where values or weights are wanted")
        rows, out = self._outputs(out)
        states = np.empty(self.rows.shape, dtype) if has_values else rows
        before = np.empty(self.rows.shape, dtype) if needs_before else None
        steps, converged, support = executor.retrieve(self.rows, max_steps, tol, states, before)
        if before is not None and has_values:
            executor.update(before, rows)
        out = self._copied_out(rows, out)
        moving = int(np.count_nonzero(~converged))
        if moving and max_steps > 0:
            warnings.warn(
                f"{moving} of {len(steps)} queries still moved by more than tol * max|xi| = {tol:.3g} * max|xi| after "
                f"{max_steps} steps; raise max_steps or tol",
                RetrievalWarning,
                stacklevel=level_of_caller(),
            )
        if return_info is False:
            return out
        shape = self.leading
        counts = steps.reshape(shape), converged.reshape(shape), support.reshape(shape)
        info = RetrievalInfo(*counts, states.reshape(*shape, *(self.pattern_shape or states.shape[1:])))
        if "weights" in extras and isinstance(executor, CoreExecutor) and before is not None:
            info.weights = self._sparse_weights(executor, before)
        if "energy" in extras:
            info.energy = self.energy(states)
        return out, info


@contextmanager
def still_moving() -> Iterator[None]:
    """Suppress warnings about queries that still move after the last update, where the caller looks at them itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RetrievalWarning)
        yield


@contextmanager
def rows_counted_from(first: int) -> Iterator[None]:
    """Have errors of a batch of queries name the row in the call, `first` of which come before the batch."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        found = re.match(r"(queries|beta): (.*)\brow (\d+)(.*)", str(error), re.DOTALL)
        if first == 0 or not found:
            raise
        name, before, row, after = found.groups()
        raise type(error)(f"{name}: {before}row {int(row) + first}{after}") from None


def leave_one_out(
    pattern_set: PatternSet,
    positions: NDArray[np.int64] | None,
    beta: ArrayLike,
    code: tuple[int, float],
    structure: Structure | None,
) -> Array:
    """Return one update of stored patterns themselves, (n, v), none of which sees itself; None: of all."""
    check_can_leave_out(structure)
    dtype, n = pattern_set.dtype, len(pattern_set) if positions is None else len(positions)
    betas = as_beta(beta, (n,))
    out = np.empty((n, pattern_set.width), dtype)
    for chunk in chunks(n, pattern_set.shape[1] * dtype.itemsize):
        at = np.arange(chunk.start, chunk.stop) if positions is None else positions[chunk]
        queries = pattern_set.numbers(chunk if positions is None else at, dtype)
        beta_of_chunk = betas if len(betas) == 1 else betas[chunk]
        with rows_counted_from(chunk.start):
            Call.prepare(pattern_set, queries, beta_of_chunk, code, structure, at).update(out[chunk])
    return out


def level_of_caller() -> int:
    """Return the level on the stack, as `warnings.warn` counts it, of the first call from outside the package.

    Between them PyTorch may lie, which calls functions of ours, and what decorates these. Python shows a warning once
    for each line so named.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        frame, level = frame.f_back, level + 1
    return level


def _extras(return_info: bool | Collection[str]) -> set[str]:
    """Return which of "weights" and "energy" `return_info` names."""
    if isinstance(return_info, bool):
        return set()
    what = "True, False, or names of 'weights', 'energy'"
    names = [return_info] if isinstance(return_info, str) else as_list("return_info", return_info, what)
    if unknown := [n for n in names if not isinstance(n, str) or n not in ("weights", "energy")]:
        raise ValueError(f"return_info: unknown {short(unknown[0])}; must be {what}")
    return set(names)
