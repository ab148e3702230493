"""Lets threadpoolctl see and limit the core's thread pool, where threadpoolctl is installed."""

from typing import Any

try:
    import threadpoolctl
except ImportError:
    pass
else:

    class _Controller(threadpoolctl.LibController):
        user_api = internal_api = "sparsehopfield"
        filename_prefixes = ("_core",)
        check_symbols = ("sh_get_num_threads", "sh_set_num_threads")

        def get_num_threads(self) -> Any:
            return self.dynlib.sh_get_num_threads()

        def set_num_threads(self, num_threads: int) -> Any:
            return self.dynlib.sh_set_num_threads(num_threads)

        def get_version(self) -> None:
            return None

    threadpoolctl.register(_Controller)
