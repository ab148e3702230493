"""Labels of rows, such as the bag of an instance or the class of a row: kept exactly as they came, none missing."""

from decimal import Decimal
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from sparsehopfield._engine.checks import Array, as_ndarray, has_masked_entries

__all__ = ["as_labels"]

EXACT = 2**53  # float64 holds all whole numbers below this, and not all from it on


def as_labels(name: str, labels: Any) -> Array:
    """Return labels as an array of the same shape, in which two are equal only where they were given so.

    Labels are whole numbers, other finite numbers, text, bytes, booleans, dates, or other things that can be put in
    order, of one of these kinds. The dtype is object where no other holds them exactly. Raise ValueError if one is
    missing (None, NaN, NaT, NA, masked, empty text), or so large that its dtype cannot tell it from its neighbours;
    TypeError if they are of several kinds, or cannot be put in order. Errors begin with the name.

    >>> as_labels("ids", [2**63, -1]).tolist() == [2**63, -1]
    True
    """
    items = labels.tolist() if type(labels) is np.ndarray and labels.dtype == object and labels.ndim == 1 else labels
    if type(items) is list and (plain := _from_plain_list(items)) is not None:
        return plain
    if isinstance(labels, np.ma.MaskedArray):
        if has_masked_entries(labels):
            raise _missing_error(name, np.ma.getmaskarray(labels))
        labels = labels.data
    # What numpy makes of a list is not exact: [2**63, -1] becomes floating-point, and [1, "1"] text.
    a = as_ndarray(name, labels, None if hasattr(labels, "dtype") else object)
    if a.dtype.kind in "OT":
        return _from_objects(name, a.astype(object))
    if a.dtype.kind in "cV":
        raise TypeError(f"{name}: must be numbers, text or dates, got dtype {a.dtype}")
    if a.dtype.kind in "US" and (missing := np.strings.str_len(np.strings.strip(a)) == 0).any():
        raise _missing_error(name, missing)
    if a.dtype.kind in "mM" and (missing := np.isnat(a)).any():
        raise _missing_error(name, missing)
    if a.dtype.kind == "f":
        if (missing := np.isnan(a)).any():
            raise _missing_error(name, missing)
        most = 2.0 ** (np.finfo(a.dtype).nmant + 1)
        if (beyond := ~(np.abs(a) < most)).any():
            raise _inexact_error(name, a[beyond].flat[0], a.dtype)
    return a


def _from_plain_list(labels: list[Any]) -> Array | None:
    """Return a list of numbers or text of one type as an array that holds it exactly, or None to look more closely."""
    kinds = set(map(type, labels))
    if kinds == {str} and all(map(str.strip, labels)) and "\0" not in "".join(labels):
        return np.asarray(labels)
    if kinds in ({int}, {bool}, {float}):
        a = np.asarray(labels)
        if a.dtype.kind in "biu" or (kinds == {float} and bool((np.abs(a) < EXACT).all())):
            return a
    return None


def _missing_error(name: str, missing: Any) -> ValueError:
    """Return the error that names the first entry that is missing; missing: one bool an entry."""
    return ValueError(f"{name}: must not be missing, but entry {np.argmax(missing)} is (None, NaN, masked or empty)")


def _inexact_error(name: str, label: Any, kind: Any) -> ValueError:
    """Return the error for a label that is infinite, or so large that its type rounds it."""
    if np.isinf(label):
        return ValueError(f"{name}: must be finite, got {label}")
    return ValueError(
        f"{name}: {label} is beyond what {kind} numbers can tell from its neighbours; give whole numbers or text"
    )


def _from_objects(name: str, a: Array) -> Array:
    """Return Python objects in the plain dtype that holds them exactly, if there is one."""
    items: list[Any] = a.ravel().tolist()
    if any(missing := [_is_missing(item) for item in items]):
        raise _missing_error(name, missing)
    kinds = {_kind(type_) for type_ in set(map(type, items))}
    if len(kinds) > 1:
        raise TypeError(f"{name}: must be of one kind, got {' and '.join(sorted(kinds))}")
    kind = kinds.pop() if kinds else "nothing"
    for item in items:
        if isinstance(item, float | np.floating) and not abs(float(item)) < EXACT:
            raise _inexact_error(name, item, type(item).__name__)
    plain, exact = np.array(items) if kind in ("number", "text", "bytes", "boolean") else a, True
    if plain.dtype.kind == "f":
        exact = all(abs(item) < EXACT for item in items)
    elif plain.dtype.kind in "US":
        exact = not any(item.endswith("\0" if kind == "text" else b"\0") for item in items)  # numpy cuts these off
    elif plain.dtype.kind == "O":
        exact = False
        try:
            order = sorted(items)
            # sets are sorted without complaint, and equal ones need not come together
            ordered = all(item < next_item or item == next_item for item, next_item in pairwise(order))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: must be numbers, text or dates: {error}") from None
        if not ordered:
            raise TypeError(f"{name}: must be numbers, text or dates, got {kind}s, which have no order")
    return plain.reshape(a.shape) if exact else a


def _is_missing(item: Any) -> bool:
    """Return whether a label is None, NaN, NaT, NA, masked or empty text."""
    if item is None or item is np.ma.masked:
        return True
    if isinstance(item, str | bytes):
        return not item.strip()
    try:
        return bool(item != item)
    except (TypeError, ArithmeticError):  # pandas.NA and signalling NaN are neither equal to themselves nor not
        return True
    except ValueError:  # an array
        return False


def _kind(type_: type) -> str:
    """Return the kind of label that a type is of: those of one kind can be compared."""
    for kind, types in (
        ("boolean", (bool, np.bool_)),
        ("number", (Real, Decimal)),
        ("text", (str,)),
        ("bytes", (bytes,)),
    ):
        if issubclass(type_, types):
            return kind
    return type_.__name__
