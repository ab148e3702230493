"""Data sets: images, bags of instances, immune repertoires, time series, pairs of sentences, and passages of text."""

import typing as _typing

from sparsehopfield._engine.lazy import lazy_attributes as _lazy_attributes

_LAZY = {name: name for name in ("bags", "datasets", "passages", "repertoires", "sentences", "series")}

if _typing.TYPE_CHECKING:  # for type checkers and editors
    from sparsehopfield.data import bags as bags
    from sparsehopfield.data import datasets as datasets
    from sparsehopfield.data import passages as passages
    from sparsehopfield.data import repertoires as repertoires
    from sparsehopfield.data import sentences as sentences
    from sparsehopfield.data import series as series
else:  # unseen by type checkers, which would take any name for an attribute
    __getattr__, __dir__ = _lazy_attributes(__name__, _LAZY)
