"""Data sets: images, bags of instances, time series, and pairs of sentences."""

import typing as _typing

from sparsehopfield._engine.lazy import lazy_attributes as _lazy_attributes

_LAZY = {name: name for name in ("bags", "datasets", "sentences", "series")}

if _typing.TYPE_CHECKING:  # for type checkers and editors
    from sparsehopfield.data import bags as bags
    from sparsehopfield.data import datasets as datasets
    from sparsehopfield.data import sentences as sentences
    from sparsehopfield.data import series as series
else:  # unseen by type checkers, which would take any name for an attribute
    __getattr__, __dir__ = _lazy_attributes(__name__, _LAZY)
