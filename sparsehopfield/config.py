"""Threads, and what was built and chosen."""

import platform
from operator import index
from typing import Any

import numpy as np

from sparsehopfield import _core
from sparsehopfield._engine import html
from sparsehopfield._engine.separations import as_choice
from sparsehopfield._engine.text import short

__all__ = ["get_num_threads", "set_num_threads", "show_config"]


def get_num_threads() -> int:
    """Return the most threads that a call uses.

    The number last set by `set_num_threads`, else SPARSEHOPFIELD_NUM_THREADS, else OMP_NUM_THREADS, else the
    processors this process may run on; at most 64. Results of maps with a cutoff do not depend on it.
    Once `sparsehopfield.torch` is imported, a call uses no more threads than PyTorch does, either.
    The variables are read when the package is imported; a value that cannot be followed is told by a RuntimeWarning.

    Returns
    -------
    int
        At least 1.

    See Also
    --------
    set_num_threads : Set it.
    show_config : Show it with all else that was chosen.

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_num_threads(n: int) -> int:
    """Set how many threads a call may use.

    Parameters
    ----------
    n : int, 1 to 64
        The most threads that a call uses.

    Returns
    -------
    int
        The number before.

    Raises
    ------
    ValueError
        If `n` is out of range.
    TypeError
        If `n` is no whole number.

    See Also
    --------
    get_num_threads : Return what is set.

    Examples
    --------
    >>> before = set_num_threads(1)
    >>> get_num_threads()
    1
    >>> _ = set_num_threads(before)
    """
    try:
        n = index(n)
    except (TypeError, RuntimeError):  # as of tensors without numbers
        raise TypeError(f"n: must be a whole number of threads, got {short(n)}") from None
    if not 1 <= n <= 64:
        raise ValueError(f"n: must be from 1 to 64 threads, got {n}")
    return _core.set_num_threads(n)


class Configuration(dict[str, Any]):
    """The settings of an installation, a dictionary that a notebook shows as a table."""

    def rows(self) -> dict[str, str]:
        """Return the table: names and what they stand for, in words."""
        blas, simd, shared = self["blas"], self["simd"], ", shared with OpenMP" if self["shares_openmp"] else ""
        return {
            "sparsehopfield": self["version"],
            "Python": self["python"],
            "NumPy": self["numpy"],
            "platform": self["platform"],
            "BLAS": blas["library"],
            "BLAS version": blas["version"],
            "BLAS kernels": f"{blas['core']}, {blas['threads']} thread a product",
            "instruction set": f"{simd['chosen']} (this machine has {', '.join(simd['available'])})",
            "threads": f"{self['threads']}{shared}",
        }

    def _repr_html_(self) -> str:
        return html.facts(self.rows())


def show_config(mode: str = "stdout") -> Configuration | None:
    """Show what was built and chosen: versions, BLAS and its kernels, instruction set, threads.

    Parameters
    ----------
    mode : {"stdout", "dict"}
        Print a table, or return a dictionary.

    Returns
    -------
    Configuration or None
        A dict, which a notebook shows as the table.

    Raises
    ------
    ValueError
        If `mode` is none of the two.

    See Also
    --------
    get_num_threads : Return the number of threads alone.

    Examples
    --------
    >>> show_config(mode="dict")["simd"]["chosen"] in ("base", "avx2", "avx512", "vnni", "neon", "dotprod")
    True
    """
    as_choice("mode", mode, ("stdout", "dict"))
    core = _core.config()
    info = Configuration(
        {
            "version": core["version"],
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "blas": {
                "library": core["blas_library"],
                "version": core["blas_version"],
                "core": core["blas_core"],
                "threads": core["blas_threads"],
            },
            "simd": {"chosen": core["simd"], "available": core["simd_available"].split()},
            "threads": get_num_threads(),
            "shares_openmp": core["shares_openmp"],
        }
    )
    if mode == "dict":
        return info
    for name, value in info.rows().items():
        print(f"{name:<16} {value}")
    return None
