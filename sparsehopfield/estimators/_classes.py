"""Labels of rows or bags that are classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.labels import as_labels
from sparsehopfield._engine.text import short


def checked_classes(name: str, labels: Any) -> Array:
    """Return one label for each row or bag, of any type, checked; errors begin with the name."""
    labels = as_labels(name, labels)
    try:
        labels = column_or_1d(labels, warn=True)
        check_classification_targets(labels)
    except (TypeError, ValueError) as error:  # scikit-learn's, which name nothing
        raise ValueError(f"{name}: {short(error, quote=False)}") from None
    return np.asarray(labels)


def classes_of_all_parts(classes: Any, known: Array | None) -> Array:
    """Return the classes of `partial_fit`: those known from the first call, or as it gives them; None: as known."""
    given = None if classes is None else np.unique(checked_classes("classes", classes))
    if known is None:
        if given is None:
            raise ValueError("classes: the first call of partial_fit needs all classes that will ever come")
        return given
    if given is not None and not np.array_equal(given, known):
        raise ValueError(f"classes: must be those of the first call, {short(known.tolist())}, got {short(classes)}")
    return known


def class_positions(name: str, y: Array, classes: Array) -> NDArray[np.int64]:
    """Return for each label its position among the classes; raise ValueError for one that is not among them."""
    known = classes.tolist()
    at = {label: i for i, label in enumerate(known)}  # Python compares numbers of any type exactly
    try:
        return np.array([at[label] for label in y.tolist()], np.int64)
    except KeyError as error:
        raise ValueError(f"{name}: label {short(error.args[0])} is not among the classes {short(known)}") from None
