"""The base of all structures. The structures themselves are in `structures`, which is only loaded when used."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.executor import CoreExecutor, Executor
from sparsehopfield._engine.pattern_set import PatternSet
from sparsehopfield._engine.text import short

__all__ = ["KINDS", "Cost", "Full", "Structure", "as_structure", "described", "parsed", "restored"]

MAX_DEPTH = 100  # of lists and objects of JSON within one another


@dataclass(frozen=True)
class Cost:
    """The cost of one update.

    Attributes
    ----------
    multiplications : int
        Of the matrix products: of scores or features, and of mixing.
    bytes : int
        Memory at a time beside the arrays that come in and go out, for float32.
    """

    multiplications: int
    bytes: int


class Structure:
    """The base of all structures: which patterns each query sees."""

    @property
    def by_place(self) -> bool:
        """Tell whether the order of the patterns counts."""
        return False

    @property
    def by_scores(self) -> bool:
        """Tell whether scores alone decide which patterns a query sees, so that it may exclude one."""
        return False

    @classmethod
    def sized(cls, pairs: int, m: int, places: NDArray[np.int64] | None = None, seed: int = 0) -> Structure:
        """Return one under which a query sees about `pairs` of m patterns, or that has so many features.

        places: of the queries among the patterns, where the order of these counts; None: query i lies at i.
        """
        return cls()

    def descriptor(self, n: int, m: int, ragged: bool = False) -> Any:
        """Return the structure as the core reads it, for n queries and m patterns; None for all pairs.

        ragged: whether some samples have fewer patterns than m, so that queries may lie at places that these lack.
        """
        raise NotImplementedError(f"structure: not here, got {short(self)}")  # never all pairs instead

    def count(self, n: int, m: int) -> int:
        """Return how many of the pairs of n queries and m patterns there are."""
        return n * m

    def within(self, m: int) -> Structure:
        """Return the structure for a sample of m patterns: where a query is to see more of them, it sees all."""
        return self

    def rows_to_choose_from(self, rows: int, appended: int) -> int:
        """Return how many rows of a sample the structure chooses from: those that are not appended, which all see."""
        return rows - appended

    def executor(
        self, pattern_set: PatternSet, rows: Array, beta: NDArray[np.float64], code: tuple[int, float]
    ) -> Executor:
        """Return what carries out a call of rows (N, d) under this structure."""
        core = pattern_set.core(rows.dtype)
        return CoreExecutor(core, beta, code, self.descriptor(len(rows), pattern_set.whole_count))

    def association(self) -> Any:
        """Return the module that computes the association of layers; None: the core does."""
        return None

    def refuse(self, operation: str) -> None:
        """Raise if it lacks an operation: "energy", "associate", "candidates", "certificates" or "fixed points"."""

    def to_fields(self) -> dict[str, Any]:
        """Return the fields that make the structure, as numbers, texts and lists."""
        return {f.name: _as_json_value(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_fields(cls, given: dict[str, Any]) -> Self:
        """Return the structure of the fields that `to_fields` gives; their names are right."""
        return cls(**given)

    @classmethod
    def field_names(cls) -> set[str]:
        """Return the names of the fields that `to_fields` gives."""
        return {f.name for f in fields(cls)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Full(Structure):
    """All pairs; the same as None.

    Examples
    --------
    >>> import sparsehopfield as sh
    >>> from sparsehopfield.structures import Full
    >>> sh.update([1.0, 0.2], [[1.0, 0.0], [0.0, 1.0]], 10.0, structure=Full())
    array([1., 0.])
    """


#: The structures that have a description, by name; `structures` adds its own.
KINDS: dict[str, type[Structure]] = {}


def can_exclude(structure: Structure | None) -> bool:
    """Tell whether queries may exclude a pattern under a structure; None: all pairs."""
    return structure is None or structure.by_scores


def check_can_leave_out(structure: Structure | None, hint: str = "") -> None:
    """Raise ValueError unless rows can be left out under a structure; a hint ends the message."""
    if not can_exclude(structure):
        raise ValueError(f"structure: rows can be left out of all pairs and of TopK, got {short(structure)}{hint}")


def as_structure(structure: Any) -> Structure | None:
    """Return a structure, or None for all pairs; raise TypeError for anything else."""
    if structure is None or isinstance(structure, Full):
        return None
    if isinstance(structure, Structure):
        return structure
    raise TypeError(
        f"structure: must be None (all pairs) or one of sparsehopfield.structures, got {short(structure)}"
        + (f"; did you mean {structure.__name__}()?" if isinstance(structure, type) else "")
    )


def described(structure: Structure | None) -> dict[str, dict[str, Any]] | None:
    """Return a structure as JSON has it: its name, and its fields by their names; None for all pairs.

    >>> from sparsehopfield.structures import TopK
    >>> described(TopK(3))
    {'TopK': {'k': 3}}
    """
    given = as_structure(structure)
    if given is None:
        return None
    kind = type(given)
    if KINDS.get(kind.__name__) is not kind:
        raise ValueError(f"structure: only those of sparsehopfield.structures can be described, got {short(given)}")
    return {kind.__name__: given.to_fields()}


def restored(description: Any) -> Structure | None:
    """Return the structure of a description by `described`; raise ValueError for anything else.

    >>> from sparsehopfield import structures  # which adds its kinds
    >>> restored({"TopK": {"k": 3}})
    TopK(k=3)
    """
    if description is None:
        return None
    if not isinstance(description, dict) or len(description) != 1:
        raise ValueError(f"structure: a description has one name, and by it what makes it, got {short(description)}")
    ((name, given),) = description.items()
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"structure: unknown name {short(name)}; known are {', '.join(KINDS)}")
    names = kind.field_names()
    if not isinstance(given, dict) or set(given) != names:
        raise ValueError(f"structure: a {name} is described by {', '.join(sorted(names))}, got {short(given)}")
    try:
        structure = kind.from_fields(given)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"structure: {name}: {short(str(error), quote=False)}") from None
    if structure.to_fields() != given:  # positions out of order, or nested
        raise ValueError(f"structure: no {name} is described by {short(given)}")
    return structure


def _as_json_value(value: Any) -> Any:
    """Return the value of a field as JSON has it: a list for an array or a tuple, Python's numbers for NumPy's."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def parsed(text: str) -> Any:
    """Return what a text means in JSON; raise ValueError for no JSON, and where lists are nested more than 100 deep.

    The functions that read it afterwards are recursive.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    values = [value]
    for _ in range(MAX_DEPTH):
        lists = (x.values() if isinstance(x, dict) else x for x in values if isinstance(x, (dict, list)))
        values = [inner for outer in lists for inner in outer]
        if not values:
            return value
    raise ValueError(f"is nested more than {MAX_DEPTH} deep")
