"""Lets threadpoolctl see and limit the core's thread pool, where threadpoolctl is installed."""

import os
from typing import Any

from sparsehopfield import _core

try:
    import threadpoolctl
except ImportError:
    pass
else:

    class _Controller(threadpoolctl.LibController):
        user_api = internal_api = "sparsehopfield"
        filename_prefixes = ("_core",)
        check_symbols = ("set_num_threads",)

        def set_additional_attributes(self) -> None:
            # The core exports no functions of C: it is asked as the module that it is. A library of another package may
            # have a name that begins like ours; it is left alone for want of the symbol.
            self.dynlib = _core if self.filepath == os.path.realpath(_core.__file__) else None

        def get_num_threads(self) -> Any:
            return _core.get_num_threads()

        def set_num_threads(self, num_threads: int) -> Any:
            return _core.set_num_threads(min(max(num_threads, 1), 64))  # whatever suits the other libraries

        def get_version(self) -> None:
            return None

    threadpoolctl.register(_Controller)
