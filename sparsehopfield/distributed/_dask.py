"""The engine on Dask: shards are futures of a client, and their parts are merged on the workers, in a tree.

A shard's future stands for a task that reads the shard from its source, so the scheduler has it made again elsewhere
where its worker is lost; nothing is scattered, and there are no actors, both of which die with their worker. A call is
a task for each shard and a tree of merges; its request travels once, unless it is small, in a task of its own, from
which workers fetch it from each other. All tasks of a call are cancelled where it does not return.

Threads: a worker runs as many tasks at a time as it has threads, and each task calls the core. Dask starts worker
processes with OMP_NUM_THREADS=1 (`distributed.nanny.pre-spawn-environ`), which the core takes for its own number of
threads, too: so a worker of t threads keeps t processors busy, by t tasks. Nothing is set here, as the number is one of
the whole process: where workers are threads of the caller's process, it is the caller's. There tasks that run at the
same time share the core's pool, which one of them uses while the others compute in their own threads. For workers of
one thread and several processors set SPARSEHOPFIELD_NUM_THREADS where they are started.
"""

import contextlib
import copy
import dataclasses
import functools
import pickle
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

import numpy as np
from dask.base import is_dask_collection
from dask.delayed import delayed
from distributed import Client, Future, KilledWorker, wait
from distributed import TimeoutError as WaitedTooLong

from sparsehopfield import _core
from sparsehopfield.distributed._held import release_pages

__all__ = ["DaskEngine", "as_client", "cancelling", "check_workers", "raising_clearly", "release_pages", "results_of"]

Request = TypeVar("Request")
Part = TypeVar("Part")

FAN_IN = 8  # parts that one task merges
SMALL = 10**6  # bytes that requests of all shards together may have for each shard to get its own
MESSAGE = 8 * 10**6  # bytes of a request that are sent at a time: of more Dask warns
PATIENCE = 60.0  # seconds without any worker after which a call gives up
LOOK = 5.0  # seconds after which a call that waits looks whether there are workers


def as_client(client: Any) -> Client:
    """Return the client, by default the one that the program has started last; raise if there is none."""
    if client is None:
        try:
            client = Client.current()
        except ValueError:
            raise ValueError(
                "client: there is none; start workers on this machine with `client = distributed.Client()`, or connect "
                "to a scheduler with `client = distributed.Client('tcp://address:8786')`"
            ) from None
    if not isinstance(client, Client):
        raise TypeError(f"client: must be a distributed.Client, got {type(client).__name__}")
    if client.asynchronous:
        raise ValueError("client: is asynchronous; a memory needs one that waits, as Client() gives by default")
    if client.status != "running":
        raise ValueError(f"client: is {client.status}; make one that is connected to a scheduler")
    return client


def worker_version() -> str:
    """Return the version of the package, in a worker."""
    return _core.__version__


def check_workers(client: Client) -> None:
    """Raise unless all workers have this version of the package."""
    for address, version in client.run(worker_version, on_error="return").items():
        if isinstance(version, ImportError):
            raise RuntimeError(f"client: worker {address} cannot import sparsehopfield: {version}") from version
        if isinstance(version, OSError):  # it is being lost; requests have their version with them, too
            continue
        if isinstance(version, Exception):
            raise RuntimeError(f"client: worker {address} does not say its version: {version!r}") from version
        if version != _core.__version__:
            raise RuntimeError(
                f"client: worker {address} has sparsehopfield {version}, and this process {_core.__version__}; "
                "results are the same bits only of the same version"
            )


@contextlib.contextmanager
def raising_clearly() -> Iterator[None]:
    """Raise in plain words what Dask says of lost workers and shards."""
    try:
        yield
    except KilledWorker as error:
        raise RuntimeError(
            f"client: {error.allowed_failures + 1} workers were lost one after another while they computed "
            f"{error.task!r}, so that Dask gave up; the usual cause is a memory limit that the worker's shards exceed: "
            "see the workers' logs, and use more shards or larger limits"
        ) from error
    except CancelledError as error:
        raise RuntimeError(
            "client: the shards are gone, as the client was closed or the scheduler started anew; make the memory again"
        ) from error


def _identity(data: bytes) -> bytes:
    """Return some bytes: the task that workers fetch them from."""
    return data


def _unpickled(pieces: Sequence[bytes]) -> Any:
    """Return what was pickled into some pieces."""
    return pickle.loads(b"".join(pieces))


def _on_shard(function: Callable[..., Part], held: Any, fingerprint: int, *arguments: Any) -> Part:
    """Return `function(held, *arguments)`, in a worker that holds the shard; raise if its rows have changed."""
    held.check(fingerprint)
    try:
        return function(held, *arguments)
    finally:
        release_pages(held.maps)


def _part(held: Any, function: Callable[[Any, Any], Part], request: Any) -> Part:
    """Return the part of one shard, in a worker."""
    return function(held.shard, pickle.loads(request) if isinstance(request, bytes) else aligned(request))


def _merge(merge: Callable[[Part, Part], Part], parts: Sequence[Part]) -> Part:
    """Return several parts merged."""
    return functools.reduce(merge, map(aligned, parts))


def aligned(part: Any) -> Any:
    """Return what a task was sent, with its arrays aligned in memory: as they come in a message they need not be."""
    if isinstance(part, np.ndarray):
        return part if part.flags.aligned else part.copy()
    if type(part) in (list, tuple):
        return type(part)(map(aligned, part))
    if type(part) is dict:
        return {name: aligned(value) for name, value in part.items()}
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        other = copy.copy(part)
        for name in (field.name for field in dataclasses.fields(part)):
            object.__setattr__(other, name, aligned(getattr(part, name)))  # of frozen ones, too
        return other
    return part


def _name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, for the keys of its tasks; of `functools.partial` that of what it calls."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", "step").strip("_").replace("_", "-")


class DaskEngine:
    """Shards that are futures of a Dask client, and how a function is carried out on all of them.

    Attributes
    ----------
    client : distributed.Client
    shards : tuple of Future
        Each of what `_memory.load` returns.
    fingerprints : tuple of int
        Of the rows that each shard was made of first; one that is made again must have the same.
    """

    def __init__(self, client: Client, shards: Sequence[Future[Any]], fingerprints: Sequence[int]) -> None:
        self.client, self.shards, self.fingerprints = client, tuple(shards), tuple(fingerprints)

    def reduce(
        self, function: Callable[[Any, Request], Part], request: Request, merge: Callable[[Part, Part], Part]
    ) -> Part:
        """Return `function(shard, request)` of all shards, merged two by two on the workers in a tree."""
        name = _name_of(function)

        def submit(tasks: list[Future[Any]]) -> list[Future[Any]]:
            n, client = len(self.shards), self.client
            sent = _sent(client, request, n, tasks)
            level = list(self._on_shards(name, _part, dict.fromkeys(range(n), (function, sent))).values())
            tasks += level
            while len(level) > 1:
                groups = [(merge, level[i : i + FAN_IN]) for i in range(0, len(level), FAN_IN)]
                level = submitted(client, f"merge-{name}", _merge, groups)
                tasks += level
            return level

        return aligned(self._results(submit)[0])

    def each(self, name: str, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """Return `function(held, *arguments)` of each shard, in order; without those that have None as arguments."""

        def submit(tasks: list[Future[Any]]) -> list[Future[Any]]:
            asked = {i: given for i, given in enumerate(arguments) if given is not None}
            tasks += self._on_shards(name, function, asked).values()
            return tasks

        return self._results(submit)

    def changed(
        self, name: str, function: Callable[..., Any], changes: dict[int, tuple[Any, ...]]
    ) -> dict[int, Future[Any]]:
        """Return futures of `function(held, *arguments)` of some shards, by their places: shards made anew."""
        return self._on_shards(name, function, changes)

    def _on_shards(
        self, name: str, function: Callable[..., Any], arguments: dict[int, tuple[Any, ...]]
    ) -> dict[int, Future[Any]]:
        """Return futures of `function(held, *arguments)` of the shards at some places, by these."""
        asked = [(function, self.shards[i], self.fingerprints[i], *given) for i, given in arguments.items()]
        return dict(zip(arguments, submitted(self.client, name, _on_shard, asked), strict=True))

    def _results(self, submit: Callable[[list[Future[Any]]], list[Future[Any]]]) -> list[Any]:
        """Return the results of the futures that `submit` returns, which adds all of its futures to a list.

        All of them are cancelled where this does not return: nothing is left to run for a call that was interrupted.
        Shards that have failed are made again first, as are those that fail now and were begun before this call: what
        they have met, as a file that was not there, may be mended since.
        """
        begun = [shard for shard in self.shards if shard.status in ("pending", "lost")]
        failed = [shard for shard in self.shards if shard.status == "error"]
        while True:
            if failed:
                retry(self.client, failed)
            try:
                return self._tried(submit)
            except Exception:
                failed = [shard for shard in begun if shard.status == "error"]
                if not failed:
                    raise
                begun = [shard for shard in begun if shard not in failed]

    def _tried(self, submit: Callable[[list[Future[Any]]], list[Future[Any]]]) -> list[Any]:
        """Return the results of one attempt, or cancel all of its futures.

        It has a frame of its own, as the traceback of an error keeps frames until garbage is collected: that of an
        attempt before would keep the futures of this one, too, and workers the results.
        """
        tasks: list[Future[Any]] = []
        with raising_clearly(), cancelling(self.client, tasks):
            check_connection(self.client)
            return results_of(self.client, submit(tasks))


def retry(client: Client, failed: Sequence[Future[Any]]) -> None:
    """Have futures computed again that have failed, and everything of which they are made and that has failed, too.

    Dask's own retry can leave out one of several tasks, as of the blocks of a dask array, that have failed: then what
    waits for it would wait forever.
    """
    with contextlib.suppress(KeyError):  # of what futures are made of, which are no futures themselves
        client.retry(failed)
    with contextlib.suppress(ValueError):  # of schedulers that take no functions
        client.run_on_scheduler(_retry_rest, [future.key for future in failed])


def _retry_rest(keys: Sequence[Any], dask_scheduler: Any) -> None:
    """Have the scheduler compute again what has failed among some tasks and all that they are made of."""
    known = dask_scheduler.tasks
    seen = {key for key in keys if key in known}
    stack = list(seen)
    while stack:
        made_of = {task.key for task in known[stack.pop()].dependencies} - seen
        seen |= made_of
        stack += made_of
    if left := [key for key in seen if known[key].state == "erred"]:
        dask_scheduler.stimulus_retry(left)


def submitted(
    client: Client, name: str, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
) -> list[Future[Any]]:
    """Return futures of `function` of each of some tuples of arguments; their keys begin with "sparsehopfield-name".

    Arguments may be futures, lists of futures, and dask collections.
    """
    if not arguments:
        return []
    call = f"sparsehopfield-{name}-{uuid.uuid4().hex}"
    keys = [f"{call}-{i}" for i in range(len(arguments))]
    if any(is_dask_collection(a) for given in arguments for a in given if not isinstance(a, Future)):
        calls = [
            delayed(function, pure=False)(*given, dask_key_name=key) for key, given in zip(keys, arguments, strict=True)
        ]
        return list(client.compute(calls))
    return list(client.map(function, *zip(*arguments, strict=True), key=keys))


def _sent(client: Client, request: Any, n: int, tasks: list[Future[Any]]) -> Future[Any] | bytes:
    """Return a future of a request, whose futures are added to `tasks`; large ones are sent in pieces.

    A small one is sent with each of n tasks, which need not wait for another then: its bytes are returned.
    """
    data = pickle.dumps(request, protocol=5)
    if n * len(data) <= SMALL:
        return data
    pieces: list[Any] = [data[i : i + MESSAGE] for i in range(0, len(data), MESSAGE)]
    if len(pieces) > 1:
        pieces = [future for piece in pieces for future in submitted(client, "request", _identity, [(piece,)])]
        tasks += pieces
    sent = submitted(client, "request", _unpickled, [(pieces,)])
    tasks += sent
    return sent[0]


@contextlib.contextmanager
def cancelling(client: Client, tasks: list[Future[Any]]) -> Iterator[None]:
    """Cancel some futures, those in the list at the end, if the block raises."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # the error of the block tells more
            client.cancel(tasks)
        raise


def check_connection(client: Client) -> None:
    """Raise CancelledError if a client is closed; one that has lost its scheduler looks for it for a while."""
    if client.status not in ("running", "connecting"):
        raise CancelledError(f"the client is {client.status}")


def results_of(client: Client, futures: Sequence[Future[Any]]) -> list[Any]:
    """Return the results of some futures; raise the first error, or if no worker computes anything for a minute."""
    pending, idle = list(futures), 0.0
    while pending:
        try:
            done, waiting = wait(pending, timeout=LOOK, return_when="FIRST_COMPLETED")
        except WaitedTooLong:
            check_connection(client)
            workers = client.processing()  # and what each of them computes
            idle = 0.0 if any(workers.values()) else idle + LOOK
            if idle >= PATIENCE:
                raise RuntimeError(
                    f"client: there was no worker for {PATIENCE:g} seconds; start some"
                    if not workers
                    else f"client: its {len(workers)} workers computed nothing for {PATIENCE:g} seconds, as those do "
                    "that are paused near their memory limit; see their logs, and use more shards or larger limits"
                ) from None
            continue
        for future in done:
            if future.status == "error":
                future.result()  # raises
        pending = list(waiting)
    return list(client.gather(list(futures)))
