"""PyTorch's threads, on which the core works, too, where they are those of OpenMP.

They spin for some milliseconds after each of PyTorch's operations, in the hope of another one, and take the processors
that the core's own threads would need.
"""

import ctypes
import os
import sys
from pathlib import Path

import torch

from sparsehopfield import _core

__all__ = ["share_threads"]

NAMES = ("GOMP_parallel", "omp_get_max_threads", "omp_in_parallel")
FORKED_WITHOUT_EXEC = 0x40  # of the kernel's flags of a process


def _address(library: ctypes.CDLL, name: str) -> int:
    """Return where a function of a library is; 0 where it has none of that name."""
    function = getattr(library, name, None)
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0


def _is_forked() -> bool:
    """Tell whether this process runs on in the program of its parent, which may have had threads that are not here.

    Where the kernel does not tell, since no /proc is mounted, it may.
    """
    try:
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return True
    return bool(int(fields[6]) & FORKED_WITHOUT_EXEC)


def share_threads() -> None:
    """Have the core work on PyTorch's threads where a call of this thread finds them awake, and on no more than it has.

    The OpenMP library is the one that PyTorch's calls go to: the first that all of the process sees, else the one that
    PyTorch is linked with. Nothing is loaded. A process that was forked keeps to the core's own threads, but to no more
    than PyTorch has. So does, without that limit, one without OpenMP, or on another system than Linux.
    """
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        return
    torch.get_num_threads()  # has PyTorch tell OpenMP how many threads there are to be
    for library in (ctypes.CDLL(None), ctypes.CDLL(torch._C.__file__, os.RTLD_NOLOAD | os.RTLD_LAZY)):
        addresses = [_address(library, name) for name in NAMES]
        if all(addresses):
            _core.share_openmp(0 if _is_forked() else addresses[0], *addresses[1:])
            return
