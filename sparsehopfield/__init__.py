"""Sparse modern Hopfield networks: associative memory that is exact, fast, and tells the truth about what it stores.

>>> import numpy as np
>>> import sparsehopfield as sh
>>> X = np.random.default_rng(0).standard_normal((1000, 64))
>>> np.array_equal(sh.retrieve(X[7] + 0.1, X), X[7])
True
"""

import typing as _typing

try:
    from sparsehopfield._core import __version__ as __version__
except ModuleNotFoundError as error:
    raise ImportError(
        "sparsehopfield: the C core is not here. In a clone run `pip install -e .`; with an installed package start "
        "Python in another folder, as the clone's uncompiled files come first"
    ) from error

from sparsehopfield import _moved as _moved
from sparsehopfield import functional as functional
from sparsehopfield import losses as losses
from sparsehopfield._engine import threadpools as threadpools
from sparsehopfield._engine.lazy import lazy_attributes as _lazy_attributes
from sparsehopfield.config import get_num_threads, set_num_threads, show_config
from sparsehopfield.errors import FileFormatError, FileFormatWarning, RetrievalWarning
from sparsehopfield.functional import *  # noqa: F403
from sparsehopfield.losses import *  # noqa: F403
from sparsehopfield.memory import HopfieldMemory

__all__ = [
    "FileFormatError",
    "FileFormatWarning",
    "HopfieldMemory",
    "RetrievalWarning",
    "get_num_threads",
    "set_num_threads",
    "show_config",
]
__all__ += functional.__all__ + losses.__all__

#: What is imported when it is first asked for: of each name the module that has it, itself for a module.
_LAZY = {
    name: name
    for name in (
        "data",
        "distributed",
        "estimators",
        "inspect",
        "layers",
        "optim",
        "playground",
        "reference",
        "structures",
        "studies",
        "suggestion",
        "theory",
        "torch",
    )
}
_LAZY |= dict.fromkeys(("Suggestion", "SuggestionRow", "suggest"), "suggestion")
__all__ += [name for name, module in _LAZY.items() if name != module]

if _typing.TYPE_CHECKING:  # for type checkers and editors
    from sparsehopfield import data as data
    from sparsehopfield import distributed as distributed
    from sparsehopfield import estimators as estimators
    from sparsehopfield import inspect as inspect
    from sparsehopfield import layers as layers
    from sparsehopfield import optim as optim
    from sparsehopfield import playground as playground
    from sparsehopfield import reference as reference
    from sparsehopfield import structures as structures
    from sparsehopfield import studies as studies
    from sparsehopfield import suggestion as suggestion
    from sparsehopfield import theory as theory
    from sparsehopfield import torch as torch
    from sparsehopfield.suggestion import Suggestion as Suggestion
    from sparsehopfield.suggestion import SuggestionRow as SuggestionRow
    from sparsehopfield.suggestion import suggest as suggest
else:  # unseen by type checkers, which would take any name for an attribute
    __getattr__, __dir__ = _lazy_attributes(__name__, _LAZY, {"estimators": "sklearn", "torch": "torch"})
