"""Stored patterns made ready for the core: what functions, memories and certificates share."""

import copy as copying
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield import _core
from sparsehopfield._engine.checks import Array, as_flag, as_patterns, as_rows, as_scale, as_values, compute_dtype
from sparsehopfield._engine.chunked import copy_array
from sparsehopfield._engine.separations import similarity_code
from sparsehopfield._engine.text import short

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


class PatternSet:
    """Patterns (M, d) and values (M, v), checked, and for each compute dtype a capsule of the core with their norms.

    The arrays never change; `sources` are those that the caller gave, which may be the same.
    """

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
        source = as_patterns("patterns", patterns)
        source_values = as_values(values, len(source))
        self.sources = source, source_values
        self.check_finite = as_flag("check_finite", check_finite)
        self.scale = as_scale(scale, source)
        self.dtype = compute_dtype(source, source_values)
        self.patterns = as_rows(source, self.dtype)
        self.values = None if source_values is None else as_rows(source_values, self.dtype)
        if as_flag("copy", copy):
            if self.patterns is source:
                self.patterns = copy_array(source)
            if self.values is not None and self.values is source_values:
                self.values = copy_array(self.values)
        self._cores: dict[np.dtype[Any], Any] = {}
        # sums over the patterns, or over the first of them, that the executors of features share from call to call
        self.feature_states: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.patterns)

    @property
    def mixed(self) -> Array:
        """Return what is mixed: the values, or the patterns where there are none."""
        return self.patterns if self.values is None else self.values

    def core(self, dtype: np.dtype[Any]) -> Any:
        """Return the core's memory in this compute dtype, which holds all stored numbers; with the other's index."""
        if dtype not in self._cores:
            options = (self.similarity_code, TYPE_CODES[dtype], self.scale, self.check_finite)
            core = _core.memory(self.patterns, self.values, *options)
            if self.index != "auto":
                _core.use_index(core, INDEX_USES[self.index])
            if self.index is True:
                _core.build_index(core)
            self._cores[dtype] = core
        core = self._cores[dtype]
        if len(self._cores) > 1:
            for other in list(self._cores.values()):
                _core.share_index(core, other)
        return core

    def with_rows(
        self, patterns: Array, values: Array | None, *, extends: bool, index: IndexUse | None = None
    ) -> "PatternSet":
        """Return a set of other rows under the same model; the rows must lie as the core reads them.

        extends: they begin with the rows of this set, whose norms and index are used again. index: another use of it.
        """
        other = copying.copy(self)
        other.index = self.index if index is None else index
        other.patterns, other.values = other.sources = patterns, values
        other._cores = {}
        other.feature_states = dict(self.feature_states) if extends else {}
        if extends:
            self.core(self.dtype)
            for dtype, core in list(self._cores.items()):
                other._cores[dtype] = _core.extend(core, patterns, values)
                _core.use_index(other._cores[dtype], INDEX_USES[other.index])
        else:
            other.core(self.dtype)  # checks the patterns
        return other
