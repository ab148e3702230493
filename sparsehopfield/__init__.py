"""Sparse modern Hopfield networks: associative memory that is exact, fast, and tells the truth about what it stores.

>>> import numpy as np
>>> import sparsehopfield as sh
>>> X = np.random.default_rng(0).standard_normal((1000, 64))
>>> np.array_equal(sh.retrieve(X[7] + 0.1, X), X[7])
True
"""

from . import _threadpools, config, errors, functional, memory
from ._core import __version__
from .config import *
from .errors import *
from .functional import *
from .memory import *

__all__ = sorted([*config.__all__, *errors.__all__, *functional.__all__, *memory.__all__])
