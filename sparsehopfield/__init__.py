"""Sparse modern Hopfield networks: associative memory that is exact, fast, and tells the truth about what it stores.

>>> import numpy as np
>>> import sparsehopfield as sh
>>> X = np.random.default_rng(0).standard_normal((1000, 64))
>>> np.array_equal(sh.retrieve(X[7] + 0.1, X), X[7])
True
"""

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
