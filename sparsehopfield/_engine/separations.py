"""The two arguments that choose a model: `separation`, how scores become weights, and `similarity`, what a score is.

Both come in by name or, where they have a parameter, as an object; `separation_code` and `similarity_code` turn them
into what the C core takes. A new separation map is a C file, a row in csrc/separation/table.c, and an entry here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from sparsehopfield._engine.text import short

__all__ = ["Entmax", "Polynomial"]

# the numbers of sh_separation and sh_similarity in csrc/include/sparsehopfield.h
_SPARSEMAX, _SOFTMAX, _ENTMAX, POLYNOMIAL = range(4)
SIMILARITIES = {"dot": 0, "euclidean": 1, "cosine": 2}


@dataclass(frozen=True)
class Entmax:
    """The alpha-entmax map: p = [(alpha - 1) z - tau]_+^(1 / (alpha - 1)).

    Parameters
    ----------
    alpha : float, at least 1
        1 is softmax, 1.5 the usual compromise, 2 sparsemax; beyond 2 supports are still smaller.

    Raises
    ------
    ValueError
        If `alpha` is below 1 or not finite.

    References
    ----------
    Peters, Niculae & Martins 2019, "Sparse sequence-to-sequence models".

    Examples
    --------
    >>> Entmax()
    Entmax(alpha=1.5)
    """

    alpha: float = 1.5

    def __post_init__(self) -> None:
        try:
            alpha = float(self.alpha)
        except (TypeError, ValueError):
            raise TypeError(f"alpha: must be a number of at least 1, got {short(self.alpha)}") from None
        except OverflowError:  # a whole number beyond float64
            alpha = float("inf")
        if not 1 <= alpha < float("inf"):
            raise ValueError(f"alpha: must be a finite number of at least 1, got {short(alpha)}")
        object.__setattr__(self, "alpha", alpha)


@dataclass(frozen=True)
class Polynomial:
    """The polynomial map of the studies: p = s^order / sum s^order. It has no window, no energy, and beta cancels.

    Parameters
    ----------
    order : int, at least 1

    Raises
    ------
    ValueError
        If `order` is below 1 or beyond 2**31.
    TypeError
        If it is no whole number.

    References
    ----------
    Krotov & Hopfield 2016, "Dense associative memory for pattern recognition".

    Examples
    --------
    >>> Polynomial(order=10)
    Polynomial(order=10)
    """

    order: int = 10

    def __post_init__(self) -> None:
        try:
            order = index(self.order)
        except TypeError:
            raise TypeError(f"order: must be a whole number of at least 1, got {short(self.order)}") from None
        if not 1 <= order <= 2**31:
            raise ValueError(f"order: must be from 1 to 2**31, got {order}")
        object.__setattr__(self, "order", order)


SEPARATIONS = {"sparsemax": (_SPARSEMAX, 2.0), "softmax": (_SOFTMAX, 1.0), "entmax15": (_ENTMAX, 1.5)}


def unknown_name(argument: str, name: str, valid: Sequence[str]) -> ValueError:
    """The error for a name that is not among the valid ones."""
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
    """(number, parameter) of a separation map."""
    if isinstance(separation, str):
        return SEPARATIONS[as_choice("separation", separation, SEPARATIONS)]
    if isinstance(separation, Entmax):
        return _ENTMAX, separation.alpha
    if isinstance(separation, Polynomial):
        return POLYNOMIAL, float(separation.order)
    raise TypeError(
        f"separation: must be one of {', '.join(map(repr, SEPARATIONS))}, Entmax(alpha) or Polynomial(order), "
        f"got {short(separation)}"
    )


def has_window(code: tuple[int, float]) -> bool:
    """Whether only scores near the best can carry weight, so that supports are lists."""
    number, parameter = code
    return number == _SPARSEMAX or (number == _ENTMAX and parameter > 1)


def similarity_code(similarity: Any) -> int:
    """The number of a similarity."""
    return SIMILARITIES[as_choice("similarity", similarity, SIMILARITIES)]
