"""Base of the estimators around one HopfieldMemory: fitting stores the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import (
    Array,
    as_one_beta,
    as_weights,
    as_whole,
    ignoring_float_errors,
    refusal,
    refuse_masks,
)
from sparsehopfield._engine.growable import GrowableRows
from sparsehopfield._engine.restoring import Method as Method  # estimators import both from here
from sparsehopfield._engine.restoring import restores as restores
from sparsehopfield._engine.separations import row_of, separation_code, valid_separations
from sparsehopfield._engine.structure import Structure, check_can_leave_out
from sparsehopfield._engine.text import short
from sparsehopfield.estimators._sample_weights import LIMITS, WIDER, WeightedMemory
from sparsehopfield.inspect.certificates import required_cutoff
from sparsehopfield.memory import HopfieldMemory
from sparsehopfield.suggestion import best_beta

DTYPES = (np.float64, np.float32, np.float16, np.uint8, np.int64, np.uint64)  # kept; all others become float64


class NotCertifiable(ValueError, AttributeError):
    """Raised by `certified_` where nothing can be certified: for `hasattr` the estimator has no such attribute."""


@ignoring_float_errors()  # scikit-learn sums the numbers that it checks
def validated(estimator: Any, named: dict[str, Any], **options: Any) -> Any:
    """Return arguments, given by name, as scikit-learn's checks return them; put the names into its errors."""
    for name, array in named.items():
        refuse_masks(name, array)
    X, *y = named.values()
    if isinstance(X, np.ndarray) and not X.dtype.isnative:
        X = X.astype(X.dtype.newbyteorder("="))
    try:
        return validate_data(estimator, X, *y, dtype=DTYPES, **options)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        kind = TypeError if isinstance(error, (TypeError, RuntimeError)) else ValueError
        raise kind(f"{', '.join(named)}: {refusal(short(error, quote=False), [X, *y])}") from error


def checked_weights(sample_weight: Any, n: int) -> NDArray[np.float64] | None:
    """Return the sample weights of n rows or bags, or None where all are 1."""
    if sample_weight is None:
        return None
    weight = as_weights(sample_weight)
    if weight.ndim == 0:
        weight = np.full(n, weight)
    if weight.shape != (n,):
        raise ValueError(f"sample_weight: must have shape ({n},), got {weight.shape}")
    with ignoring_float_errors():
        if weight.sum() == np.inf:
            raise ValueError("sample_weight: their sum exceeds the largest float64")
    return None if (weight == 1).all() else weight


def check_some_weight(weight: NDArray[np.float64] | None) -> None:
    """Raise if all weights are 0; None: all are 1."""
    if weight is not None and not weight.any():
        raise ValueError("sample_weight: at least one must be positive; all are zero")


def as_random(random_state: Any) -> np.random.Generator:
    """Return NumPy's generator for what scikit-learn takes as `random_state`."""
    try:
        state = check_random_state(random_state)
    except ValueError as error:
        raise ValueError(f"random_state: {short(error, quote=False)}") from None
    return np.random.default_rng(state.randint(2**31, size=4))


def refuse_signed_weights(separation: Any) -> None:
    """Raise if a map's weights are no probabilities."""
    if row_of(separation_code(separation)).signed_weights:
        raise ValueError(
            f"separation: the weights of {short(separation)} are no probabilities; "
            f"must be {valid_separations(signed_weights=False)}"
        )


class MemoryEstimator(BaseEstimator):
    """Base of the estimators that store rows, in `memory_`."""

    memory_: HopfieldMemory
    beta_: float
    beta: float | str
    separation: Separation
    similarity: str
    max_steps: int
    tol: float | None
    structure: Structure | None
    _sample_weight: GrowableRows | None = None  # of the stored rows; None: all are 1, as in pickles from before weights

    # --- what comes in ------------------------------------------------------------------------------

    def _validated(self, X: Any, *y: Any, **options: Any) -> Any:
        """Return X, or X and y, as scikit-learn's checks return them."""
        return validated(self, dict(zip(("X", "y"), (X, *y), strict=False)), **options)

    def _check_weights_fit(self, weight: NDArray[np.float64] | None, structure: Structure | None) -> None:
        """Raise if rows of weight 0 are all there are, or others have weights where not all rows are seen."""
        check_some_weight(weight)
        if weight is None:
            return
        if structure is not None and (weight[weight > 0] != 1).any():
            raise ValueError(
                "sample_weight: under a structure each must be 0 or 1, as rows count as copies only where all are "
                f"seen; got structure={short(structure)}"
            )

    def _has_auto_beta(self) -> bool:
        """Return whether `beta` is "auto"; raise if it is another text."""
        if isinstance(self.beta, str) and self.beta != "auto":
            raise ValueError(f"beta: must be a positive number or 'auto', got {short(self.beta)}")
        return isinstance(self.beta, str)

    def _check_weights_of_map(self) -> None:
        """Raise if the map's weights are no probabilities."""
        refuse_signed_weights(self.separation)

    # --- what is stored -----------------------------------------------------------------------------

    def _store(
        self, rows: Array, values: Array | None, weight: NDArray[np.float64] | None, choose_beta: Callable[..., float]
    ) -> None:
        """Store rows, with values and sample weights, in place of those before; those of weight 0 are left out.

        choose_beta: returns beta where it is "auto", given the memory and the weights.
        """
        self._check_weights_fit(weight, self.structure)
        if weight is not None:
            kept = weight > 0
            rows, values, weight = rows[kept], None if values is None else values[kept], weight[kept]
            weight = None if (weight == 1).all() else weight
        auto = self._has_auto_beta()
        memory = HopfieldMemory(
            rows,
            1.0 if auto else as_one_beta(cast(Any, self.beta)),
            values=values,
            similarity=self.similarity,
            separation=self.separation,
            structure=self.structure,
            copy=True,
        )
        if auto:
            memory.beta = choose_beta(memory, weight)
        self.memory_, self._sample_weight = memory, None if weight is None else GrowableRows(weight)
        self.beta_ = cast(float, memory.beta)

    def _store_more(self, rows: Array, values: Array | None, weight: NDArray[np.float64] | None) -> None:
        """Store rows behind those before."""
        stored = self._sample_weight
        if weight is not None:
            kept = weight > 0
            if not kept.any():
                return
            self._check_weights_fit(weight, self.memory_.structure)
            rows, values, weight = rows[kept], None if values is None else values[kept], weight[kept]
        if weight is not None or stored is not None:
            stored = GrowableRows(np.ones(len(self.memory_))) if stored is None else stored
            stored = stored.extended(np.ones(len(rows)) if weight is None else weight)
        self.memory_.add(rows, values)
        if stored is not None:
            stored.claim_rows()
        self._sample_weight = stored

    def _is_fitted(self) -> bool:
        """Return whether rows are stored, to which `partial_fit` adds."""
        return hasattr(self, "memory_")

    # --- answers ------------------------------------------------------------------------------------

    def _queries(self, X: Any) -> Array:
        """Return queries, checked."""
        check_is_fitted(self)
        return cast(Array, self._validated(X, reset=False))

    def _weighted(self) -> WeightedMemory | None:
        """Return the memory with its sample weights; None if all are 1."""
        return None if self._sample_weight is None else WeightedMemory(self.memory_, self._sample_weight.rows)

    def _retrieve(self, queries: Array, exclude: NDArray[np.int64] | None = None) -> Array:
        """Retrieve from the memory: by one update if `max_steps` is 1, else by updates until queries converge."""
        steps = as_whole("max_steps", self.max_steps, 1)
        weighted = self._weighted()
        if weighted is not None and steps == 1:
            return weighted.update(queries, exclude)
        if weighted is not None:
            return weighted.retrieve(queries, steps, self.tol, exclude)
        if steps == 1:
            return self.memory_.update(queries, exclude=exclude)
        return cast(Array, self.memory_.retrieve(queries, max_steps=steps, tol=self.tol, exclude=exclude))

    def _retrieve_leaving_one_out(self) -> Array:
        """Retrieve from the memory what it makes of its own rows where none sees itself."""
        check_is_fitted(self)
        check_can_leave_out(self.structure)
        m = len(self.memory_)
        if m < 2:
            raise ValueError("X: needs at least two rows to leave one out, but one is stored")
        if self._weighted() is None and as_whole("max_steps", self.max_steps, 1) == 1:
            return self.memory_.leave_one_out()
        return self._retrieve(self.memory_.patterns, np.arange(m))

    # --- certificates -------------------------------------------------------------------------------

    def _certifying_beta(self) -> float:
        """Return the beta at which what is certified without sample weights is so with them.

        Rows that have a share with the weights have one where all have the least (`_sample_weights`).
        """
        weighted = self._weighted()
        if weighted is None:
            return self.beta_
        beta = float(weighted.uniform_beta(weighted.weight.min()))
        return beta if weighted.is_uniform else beta * WIDER  # for what rounding does to powers and roots of weights

    @property
    def certified_(self) -> NDArray[np.bool_]:
        """Return which of the stored rows are certified to be stored exactly, (M,); see `HopfieldMemory.is_certified`.

        Raises
        ------
        ValueError
            If the separation gives weight to every row, or the structure is another than `TopK`.
        """
        check_is_fitted(self)
        try:
            return self.memory_.is_certified(self._certifying_beta())
        except ValueError as error:
            raise NotCertifiable(str(error)) from None

    def _certified_rows(self, queries: Array) -> NDArray[np.bool_]:
        """Return which queries, (N,), one update provably takes to one stored row exactly, where they then stay."""
        beta, memory = self._certifying_beta(), self.memory_
        index = memory.certify(queries, beta).index
        certain = index >= 0
        if as_whole("max_steps", self.max_steps, 1) > 1 and certain.any():
            first, at = np.unique(index[certain], return_inverse=True)
            reached = memory._certifiable_snapshot().certificates.rows(first)
            certain[certain] = (memory.certify(reached, beta).index == first)[at]
        return certain

    def _check_certifiable(self) -> None:
        """Raise if the memory has no certificates."""
        required_cutoff(self.memory_._separation[1])
        self.memory_._certifiable_snapshot()


class SupervisedEstimator(MemoryEstimator):
    """Base of the estimators whose values are what a row stands for."""

    def __init__(
        self,
        beta: float | str = 1.0,
        separation: Separation = "sparsemax",
        similarity: str = "euclidean",
        max_steps: int = 1,
        tol: float | None = None,
        structure: Structure | None = None,
    ) -> None:
        self.beta = beta
        self.separation = separation
        self.similarity = similarity
        self.max_steps = max_steps
        self.tol = tol
        self.structure = structure

    @staticmethod
    def _best_beta(memory: HopfieldMemory, y: Array, task: str, weight: NDArray[np.float64] | None) -> float:
        """Return the beta at which the stored rows predict one another best."""
        beta = float(best_beta(memory, y, task=task, sample_weight=weight))
        if weight is None:
            return beta
        # The search weighs all rows alike, and rows of one weight are so at another beta: exact where all are equal.
        there = weight[weight > 0]
        usual = float(np.exp(np.average(np.log(there), weights=there)))
        alike = float(WeightedMemory(memory, weight).uniform_beta(usual)) / float(memory.beta)  # type: ignore[arg-type]
        return float(np.clip(beta / alike, LIMITS.tiny, LIMITS.max))
