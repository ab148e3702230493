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
        Of all matrix products of the update: those that give scores or features, and those that mix.
    bytes : int
        The most memory at a time, for float32 and beside the arrays that come in and go out.

    See Also
    --------
    sparsehopfield.structures.Pairs.cost : Returns it, for a structure and sizes.

    Examples
    --------
    >>> from sparsehopfield.structures import RandomMask
    >>> cost = RandomMask(10).cost(n=100, m=1000, d=64)  # 100 queries with 10 patterns each
    >>> cost.multiplications == 2 * 100 * 10 * 64, cost.bytes < 2**22  # no more than 4 MB
    (True, True)
    """

    multiplications: int
    bytes: int


class Structure:
    """The base of all structures: which patterns each query sees.

    Operations ask a structure for the pairs of queries and patterns (`descriptor`), their number (`count`) and what it
    cannot do (`refuse`), and files for its fields (`to_fields`).

    See Also
    --------
    sparsehopfield.structures.Pairs : The base of those that leave pairs out.
    sparsehopfield.update : Make one retrieval step, under a structure.

    Examples
    --------
    >>> from sparsehopfield.structures import RandomMask, TopK, Window
    >>> [structure.by_place for structure in (RandomMask(2), TopK(2), Window(2))]  # does the patterns' order count?
    [False, False, True]
    >>> [structure.by_scores for structure in (RandomMask(2), TopK(2), Window(2))]  # do scores decide?
    [False, True, False]
    """

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

        Parameters
        ----------
        pairs : int, at least 1
            Patterns that a query is to see, or features.
        m : int, at least 1
            How many patterns there are.
        places : ndarray of int64, shape (N,), optional
            Places of the queries among the patterns, where the order of these counts; query i is at i by default.
        seed : int, at least 0
            Seed of structures that are drawn at random.

        Returns
        -------
        Structure
            Of this class, with its other options as by default.

        See Also
        --------
        sparsehopfield.structures.Structure.count : Return how many pairs a structure has.

        Examples
        --------
        >>> from sparsehopfield.structures import TopK, Window
        >>> TopK.sized(5, m=100), Window.sized(5, m=100).w  # two on each side, and the query's own place
        (TopK(k=5), 2)
        """
        return cls()

    def descriptor(self, n: int, m: int, ragged: bool = False) -> Any:
        """Return the structure as the core reads it, for n queries and m patterns; None for all pairs.

        Parameters
        ----------
        n, m : int
            How many queries and patterns there are.
        ragged : bool
            Whether some samples have fewer patterns than m, so that queries may lie at places that these lack.

        Returns
        -------
        tuple or None
            Its number and what else the core needs to list the pairs.

        Raises
        ------
        ValueError
            If the structure does not fit so many queries and patterns.
        NotImplementedError
            If the structure has no pairs, as those of features.

        See Also
        --------
        sparsehopfield.structures.Pairs.mask : Return which pairs these are.

        Examples
        --------
        >>> from sparsehopfield.structures import TopK
        >>> TopK(3).descriptor(2, 3) is None  # of three patterns the three best are all
        True
        >>> TopK(3).descriptor(2, 4) is None
        False
        """
        raise NotImplementedError(f"structure: not here, got {short(self)}")  # never all pairs instead

    def count(self, n: int, m: int) -> int:
        """Return how many pairs of n queries and m patterns the structure has.

        Parameters
        ----------
        n, m : int
            How many queries and patterns there are.

        Returns
        -------
        int
            At most n m, which it is for all pairs and for features.

        Raises
        ------
        ValueError
            If the structure does not fit so many queries and patterns.

        See Also
        --------
        sparsehopfield.structures.Pairs.cost : Return what an update over the pairs takes.
        sparsehopfield.structures.Pairs.mask : Return which pairs these are.

        Examples
        --------
        >>> from sparsehopfield.structures import Full, Window
        >>> Full().count(4, 4), Window(1).count(4, 4)  # the first and the last query see two
        (16, 10)
        """
        return n * m

    def within(self, m: int) -> Structure:
        """Return the structure for a sample of m patterns: where a query is to see more of them, it sees all.

        Parameters
        ----------
        m : int, at least 1
            How many patterns the sample has.

        Returns
        -------
        Structure
            The structure itself where it fits.

        See Also
        --------
        sparsehopfield.layers.Hopfield : A layer whose samples may have fewer patterns than a structure asks for.

        Examples
        --------
        >>> from sparsehopfield.structures import TopK
        >>> TopK(9).within(4), TopK(3).within(4)
        (TopK(k=4), TopK(k=3))
        """
        return self

    def rows_to_choose_from(self, rows: int, appended: int) -> int:
        """Return how many rows of a sample the structure chooses from.

        All queries see the rows that a layer appends, so that these are not chosen; but `TopK` chooses from all rows,
        and counts appended ones among the k best where they are.

        Parameters
        ----------
        rows, appended : int
            How many rows a sample has, and how many of them were appended at its end.

        Returns
        -------
        int
            From 0 to `rows`.

        See Also
        --------
        sparsehopfield.torch.associate : Associate queries with stored rows, of which some may be appended.

        Examples
        --------
        >>> from sparsehopfield.structures import RandomMask, TopK
        >>> RandomMask(2).rows_to_choose_from(10, appended=1), TopK(2).rows_to_choose_from(10, appended=1)
        (9, 10)
        """
        return rows - appended

    def _executor(
        self, pattern_set: PatternSet, rows: Array, beta: NDArray[np.float64], code: tuple[int, float]
    ) -> Executor:
        """Return what carries out a call of rows (N, d) under this structure."""
        core = pattern_set.core(rows.dtype)
        return CoreExecutor(core, beta, code, self.descriptor(len(rows), pattern_set.whole_count))

    def association(self) -> Any:
        """Return the module that computes the association of layers; None: the core does.

        Returns
        -------
        module or None
            Of those of features, which have no pairs.

        See Also
        --------
        sparsehopfield.structures.LinearFeatures : A structure that layers do not compute by pairs.

        Examples
        --------
        >>> from sparsehopfield.structures import LinearFeatures, TopK
        >>> TopK(2).association() is None, LinearFeatures().association() is None
        (True, False)
        """
        return None

    def refuse(self, operation: str) -> None:
        """Raise ValueError for an operation that the structure lacks.

        Parameters
        ----------
        operation : {"energy", "associate", "candidates", "certificates", "fixed points"}
            What is to be done under it.

        Raises
        ------
        ValueError
            Saying why there is no such thing, and what there is instead.

        See Also
        --------
        sparsehopfield.HopfieldMemory.candidates : A method that not all structures have.

        Examples
        --------
        >>> from sparsehopfield.structures import LinearFeatures, TopK
        >>> TopK(2).refuse("candidates")  # it has them
        >>> LinearFeatures().refuse("candidates")
        Traceback (most recent call last):
        ValueError: structure: LinearFeatures has no candidates, as no pattern is kept; its state() has add and merge
        """

    def to_fields(self) -> dict[str, Any]:
        """Return the fields that make the structure, as files keep them: numbers, texts and lists.

        Returns
        -------
        dict of str to number, str, list or None
            The class's arguments by name.

        See Also
        --------
        sparsehopfield.structures.Structure.from_fields : Make the structure again.
        sparsehopfield.HopfieldMemory.save : Write a memory with its structure.

        Examples
        --------
        >>> from sparsehopfield.structures import DilatedBlocks
        >>> DilatedBlocks(8, 2).to_fields()
        {'block': 8, 'dilation': 2, 'causal': False, 'positions': None}
        """
        return {f.name: _as_json_value(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_fields(cls, given: dict[str, Any]) -> Self:
        """Return the structure of the fields that `to_fields` gives.

        Parameters
        ----------
        given : dict of str to number, str, list or None
            The fields of `field_names`, none more and none less.

        Returns
        -------
        Structure
            Of this class.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.structures.Structure.to_fields : Return the fields of a structure.

        Examples
        --------
        >>> from sparsehopfield.structures import RandomMask
        >>> RandomMask.from_fields({"k": 3, "seed": 7, "block": 1})
        RandomMask(k=3, seed=7, block=1)
        """
        return cls(**given)

    @classmethod
    def field_names(cls) -> set[str]:
        """Return the names of the fields that `to_fields` gives.

        Returns
        -------
        set of str
            The names of the class's arguments, in most classes.

        See Also
        --------
        sparsehopfield.structures.Structure.to_fields : Return the fields with their values.

        Examples
        --------
        >>> from sparsehopfield.structures import BlockSparse, TopK
        >>> TopK.field_names(), sorted(BlockSparse.field_names())
        ({'k'}, ['block', 'columns', 'shape', 'start'])
        """
        return {f.name for f in fields(cls)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Full(Structure):
    """All pairs; the same as None.

    See Also
    --------
    sparsehopfield.structures.TopK : The k best patterns of each query.

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
