"""Memories whose patterns lie in many processes or on many machines, with the answers of one memory.

A worker holds a `Shard`. Everything else is independent of what runs the workers: an engine (`Engine`) is an object
with one method, which brings a request to every shard and merges what comes back; `Serial`, a list of shards, is the
simplest. A `Coordinator` answers queries by an engine: with the bits of one `HopfieldMemory` of all patterns, wherever
`docs/reference/promises.md` promises these, whatever the number of shards and the order and grouping of merges.

`ShardedMemory` is all this on Dask: patterns of dask and zarr arrays and of files, held by the workers of a cluster. It
needs the extra "dask", and is imported when it is asked for.

>>> import numpy as np
>>> import sparsehopfield as sh
>>> from sparsehopfield.distributed import Coordinator, Serial, Shard
>>> X = np.random.default_rng(0).standard_normal((1000, 16), dtype=np.float32)
>>> engine = Serial([Shard(X[i : i + 300], first=i) for i in range(0, 1000, 300)])
>>> queries = X[::100] + np.float32(0.3)
>>> np.array_equal(Coordinator(engine).update(queries), sh.update(queries, X))
True
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sparsehopfield._engine.optional import require
from sparsehopfield.distributed._coordinator import Coordinator
from sparsehopfield.distributed._shards import Engine, Request, Serial, Shard, Whole
from sparsehopfield.distributed._steps import finish, gather, merge, partial, scout, sums

if TYPE_CHECKING:
    from sparsehopfield.distributed._memory import ShardedMemory as ShardedMemory

__all__ = [
    "Coordinator",
    "Engine",
    "Request",
    "Serial",
    "Shard",
    "Whole",
    "finish",
    "gather",
    "merge",
    "partial",
    "scout",
    "sums",
]
if find_spec("distributed"):
    __all__ += ["ShardedMemory"]


def __getattr__(name: str) -> Any:
    """Import what needs dask, when it is asked for."""
    if name != "ShardedMemory":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("distributed", purpose="ShardedMemory", extra="dask")
    from sparsehopfield.distributed._memory import ShardedMemory

    return ShardedMemory
