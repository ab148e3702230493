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
from sparsehopfield._engine import threadpools as threadpools
from sparsehopfield.config import get_num_threads, set_num_threads, show_config
from sparsehopfield.errors import FileFormatError, RetrievalWarning
from sparsehopfield.functional import (
    Candidates,
    Entmax,
    Polynomial,
    RetrievalInfo,
    associate,
    candidates,
    energy,
    entmax,
    entmax_conjugate,
    entmax_threshold,
    entmax_vjp,
    entmax_vjp_alpha,
    merge,
    polynomial,
    polynomial_vjp,
    retrieve,
    softmax,
    softmax_conjugate,
    softmax_vjp,
    sparsemax,
    sparsemax_conjugate,
    sparsemax_threshold,
    sparsemax_vjp,
    topk_softmax,
    topk_sparsemax,
    update,
)
from sparsehopfield.memory import HopfieldMemory

__all__ = [
    "Candidates",
    "Entmax",
    "FileFormatError",
    "HopfieldMemory",
    "Polynomial",
    "RetrievalInfo",
    "RetrievalWarning",
    "associate",
    "candidates",
    "energy",
    "entmax",
    "entmax_conjugate",
    "entmax_threshold",
    "entmax_vjp",
    "entmax_vjp_alpha",
    "get_num_threads",
    "merge",
    "polynomial",
    "polynomial_vjp",
    "retrieve",
    "set_num_threads",
    "show_config",
    "softmax",
    "softmax_conjugate",
    "softmax_vjp",
    "sparsemax",
    "sparsemax_conjugate",
    "sparsemax_threshold",
    "sparsemax_vjp",
    "topk_softmax",
    "topk_sparsemax",
    "update",
]
