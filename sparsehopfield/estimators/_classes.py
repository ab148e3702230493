"""Labels of rows or bags that are classes."""

from __future__ import annotations

from typing import Any

import numpy as np
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
