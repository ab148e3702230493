"""The two arguments that choose a model: `separation`, how scores become weights, and `similarity`, what a score is.

Both come in by name or, where they have a parameter, as an object; `separation_code` and `similarity_code` turn them
into what the C core takes. What there is to know of a separation map is in the core's table (csrc/separation/table.c),
which is read here. A map with a parameter has a class besides.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, ClassVar

import numpy as np

from sparsehopfield import _core
from sparsehopfield._engine.checks import refuse_gradient
from sparsehopfield._engine.text import short

__all__ = ["Entmax", "Normmax", "Polynomial"]

# the numbers of sh_similarity in csrc/include/sparsehopfield.h
SIMILARITIES = {"dot": 0, "euclidean": 1, "cosine": 2}


@dataclass(frozen=True)
class Parameter:
    """The number that chooses one map of a family, and its range."""

    name: str
    least: float
    most: float
    above: bool  # it must exceed `least`
    whole: bool

    @property
    def bound(self) -> str:
        """Return how small it may be, in words."""
        return f"{'above' if self.above else 'at least'} {self.least:g}"

    def described(self, kind: str) -> str:
        """Return the range in words."""
        return f"a {'whole' if self.whole else kind} number {'' if self.above else 'of '}{self.bound}"

    def fits(self, value: Any) -> Any:
        """Return whether a number, or each of an array, is in the range."""
        return ((value > self.least) if self.above else (value >= self.least)) & (value <= self.most)

    def checked(self, value: Any) -> float | int:
        """Return the number that an argument is, if it is in the range."""
        refuse_gradient(self.name, value)
        try:
            number = index(value) if self.whole else float(value)
        except (TypeError, ValueError, RuntimeError):
            words = self.described("").replace("  ", " ")
            raise TypeError(f"{self.name}: must be {words}, got {short(value)}") from None
        except OverflowError:  # a whole number beyond float64
            number = math.inf
        if not self.fits(number):
            words = self.described("finite")
            if self.whole:
                words = f"from {self.least:g} to 2**{math.frexp(self.most)[1] - 1}"
            raise ValueError(f"{self.name}: must be {words}, got {short(number)}")
        return number


class MapRow:
    """A row of the core's table of separation maps."""

    number: int
    name: str  # "entmax": of functions, in files, on command lines
    alias: str | None  # the name of the map with its standard parameter: "entmax15"
    formula: str
    regulariser: str | None
    source: str
    standard: Any  # the parameter by default, int or float; of maps without one what stands for it
    parameter: Parameter | None
    has_energy: bool  # retrieval lowers an energy, and the Jacobian is symmetric
    shift_invariant: bool  # a number added to all scores changes no weight
    signed_weights: bool  # weights may be negative, or all 0
    vjp_takes_scores: bool

    def __init__(self, row: dict[str, Any]) -> None:
        self.__dict__.update(row, parameter=row["parameter"] and Parameter(*row["parameter"]))
        if self.parameter and self.parameter.whole:
            self.standard = int(self.standard)

    @property
    def code(self) -> tuple[int, float]:
        """Return (number, parameter) of the map with its standard parameter."""
        return self.number, float(self.standard)

    @property
    def has_cutoff(self) -> bool:
        """Return whether the map with its standard parameter has a cutoff."""
        return has_cutoff(self.code)

    @property
    def class_name(self) -> str:
        """Return the name of the class of a map with a parameter."""
        return self.name.capitalize()

    @property
    def title(self) -> str:
        """Return how a separation argument names the map: a name in quotes, or "Entmax(alpha)"."""
        return f"{self.class_name}({self.parameter.name})" if self.parameter else repr(self.name)


#: The core's table, by number, and by name.
ROWS = tuple(map(MapRow, _core.maps))
MAPS = {row.name: row for row in ROWS}
#: The maps that have a name of their own, with their codes.
SEPARATIONS = {row.alias: row.code for row in ROWS if row.alias}
#: The classes of maps with a parameter, by the names of the maps.
FAMILIES: dict[str, type["SeparationMap"]] = {}


class SeparationMap:
    """A separation map with a parameter; the class of each is named as its row of the table."""

    row: ClassVar[MapRow]

    def __init__(self, value: Any) -> None:
        raise NotImplementedError  # each class has its own, which dataclass makes

    def __init_subclass__(cls) -> None:
        cls.row = MAPS[cls.__name__.lower()]
        FAMILIES[cls.row.name] = cls

    def __post_init__(self) -> None:
        parameter = self.row.parameter
        assert parameter is not None
        object.__setattr__(self, parameter.name, parameter.checked(self.value))

    @property
    def value(self) -> Any:
        """Return the parameter."""
        assert self.row.parameter is not None
        return getattr(self, self.row.parameter.name)


@dataclass(frozen=True)
class Entmax(SeparationMap):
    """The alpha-entmax map: p = [(alpha - 1) z - tau]_+^(1 / (alpha - 1)).

    Parameters
    ----------
    alpha : float, at least 1
        1 is softmax, 1.5 the usual compromise, 2 sparsemax; beyond 2 supports are still smaller.

    Raises
    ------
    ValueError
        If `alpha` is below 1 or not finite.

    See Also
    --------
    sparsehopfield.entmax : Apply the map to scores.
    Normmax : Spread the weight more evenly over the support.
    sparsehopfield.HopfieldMemory : Take it as `separation`.

    References
    ----------
    Peters, Niculae & Martins 2019, "Sparse sequence-to-sequence models".

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import associate
    >>> for alpha in (1.5, 2.0):
    ...     print(associate([1.0, 0.5, 0.0], np.eye(3), separation=Entmax(alpha)).toarray().round(2))
    [[0.62 0.29 0.08]]
    [[0.75 0.25 0.  ]]
    """

    alpha: float = MAPS["entmax"].standard


@dataclass(frozen=True)
class Normmax(SeparationMap):
    """The alpha-normmax map: p = u / sum u with u = [z - tau]_+^(1 / (alpha - 1)) and |u|_alpha = 1.

    Parameters
    ----------
    alpha : float, above 1
        Near 1 nearly all weight goes to the best score; the larger alpha, the flatter the weights of the support. Only
        scores within 1 of the best have weight, whatever alpha.

    Raises
    ------
    ValueError
        If `alpha` is not above 1 or not finite.

    See Also
    --------
    sparsehopfield.normmax : Apply the map to scores.
    Entmax : The family of softmax and sparsemax.
    sparsehopfield.HopfieldMemory : Take it as `separation`.

    References
    ----------
    Santos, Niculae, McNamee & Martins 2024, "Sparse and structured Hopfield networks".

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import associate
    >>> for alpha in (2.0, 5.0):
    ...     print(associate([1.0, 0.5, 0.0], np.eye(3), separation=Normmax(alpha)).toarray().round(2))
    [[0.69 0.31 0.  ]]
    [[0.56 0.44 0.  ]]
    """

    alpha: float = MAPS["normmax"].standard


@dataclass(frozen=True)
class Polynomial(SeparationMap):
    """The polynomial map of the studies: p = s^order / sum s^order. It has no cutoff, no energy, and beta cancels.

    Parameters
    ----------
    order : int, at least 1
        The power that scores are raised to.

    Raises
    ------
    ValueError
        If `order` is below 1 or beyond 2**31.
    TypeError
        If it is no whole number.

    See Also
    --------
    sparsehopfield.polynomial : Apply the map to scores.
    Entmax : A family with an energy.
    sparsehopfield.HopfieldMemory : Take it as `separation`.

    References
    ----------
    Krotov & Hopfield 2016, "Dense associative memory for pattern recognition".

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehopfield import associate
    >>> associate([1.0, 0.5, 0.0], np.eye(3), separation=Polynomial(order=2), top=2).toarray()
    array([[0.8, 0.2, 0. ]])
    """

    order: int = MAPS["polynomial"].standard


def unknown_name(argument: str, name: str, valid: Sequence[str]) -> ValueError:
    """Return the error for a name that is not among the valid ones."""
    from difflib import get_close_matches  # only for errors

    near = get_close_matches(name[:100].lower(), valid, n=1, cutoff=0.4)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{argument}: unknown name {short(name)};{hint} Valid: {', '.join(map(repr, valid))}")


def as_choice(argument: str, name: Any, valid: Collection[str]) -> str:
    """Return a name that is among the valid ones."""
    if not isinstance(name, str):
        raise TypeError(f"{argument}: must be one of {', '.join(map(repr, valid))}, got {short(name)}")
    if name not in valid:
        raise unknown_name(argument, name, [*valid])
    return name


def separation_code(separation: Any) -> tuple[int, float]:
    """Return (number, parameter) of a separation map."""
    if isinstance(separation, str):
        return SEPARATIONS[as_choice("separation", separation, SEPARATIONS)]
    if isinstance(separation, SeparationMap):
        return separation.row.number, float(separation.value)
    raise TypeError(f"separation: must be {valid_separations()}, got {short(separation)}")


def row_of(code: tuple[int, float]) -> MapRow:
    """Return the row of the table that a code belongs to."""
    return ROWS[code[0]]


def valid_separations(**flags: bool) -> str:
    """Return how separations may be given, those whose rows have these flags, as words of a message."""
    rows = [row for row in ROWS if all(getattr(row, flag) == value for flag, value in flags.items())]
    families = [row.title for row in rows if row.parameter]
    words = [f"one of {', '.join(repr(row.alias) for row in rows if row.alias)}", *families]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if families else words[0]


def cutoff_of(code: tuple[int, float]) -> float | None:
    """Return how far below the best a score must be to have no weight, in units of 1/beta; None: all have weight."""
    return _core.cutoff(*code)


def has_cutoff(code: tuple[int, float]) -> bool:
    """Return whether only scores near the best can carry weight, so that supports are lists."""
    return _core.cutoff(*code) is not None


def equal_scores_conjugate(code: tuple[int, float], n: int) -> float:
    """Return Psi*(0) of n scores of 0: minus the regulariser of equal weights, which is the least that it can be."""
    row, zeros = row_of(code), np.zeros(n)
    conjugate = _core.row_maps[f"{row.name}_conjugate"]
    return float(conjugate(zeros, np.float64(code[1])) if row.parameter else conjugate(zeros))


def similarity_code(similarity: Any) -> int:
    """Return the number of a similarity."""
    return SIMILARITIES[as_choice("similarity", similarity, SIMILARITIES)]
