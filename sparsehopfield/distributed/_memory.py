"""ShardedMemory: a memory whose patterns are held by the workers of a Dask cluster, with the answers of one memory."""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import ceil, prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield._engine.atomic_files import as_path
from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import (
    Array,
    as_array,
    as_flag,
    as_ids,
    as_more_rows,
    as_positions,
    as_scale,
    as_whole,
)
from sparsehopfield._engine.concurrency import ChangeLock
from sparsehopfield._engine.files import Model
from sparsehopfield._engine.pattern_set import IndexUse, as_index
from sparsehopfield._engine.separations import similarity_code
from sparsehopfield._engine.structure import Structure
from sparsehopfield.distributed import _held
from sparsehopfield.distributed._coordinator import Coordinator, State
from sparsehopfield.distributed._dask import (
    DaskEngine,
    as_client,
    cancelling,
    check_workers,
    raising_clearly,
    results_of,
    submitted,
)
from sparsehopfield.distributed._files import Manifest, discard, name_of, read_manifest, read_model, write_manifest
from sparsehopfield.distributed._held import Facts, Piece
from sparsehopfield.distributed._shards import BLOCK, Whole
from sparsehopfield.distributed._sources import Source, added_source, as_source, boundaries, is_source, read_rows
from sparsehopfield.errors import FileFormatError

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["ShardedMemory"]

SHARD_BYTES = 128 * 2**20  # of a shard, at most, where their number is not given: so that tasks stay short


class _State(State):
    """The state of a memory at one moment; a change makes another."""

    def __init__(
        self,
        client: "Client",
        shards: Sequence["Future[Any]"],
        facts: Sequence[Facts],
        *,
        has_ids: bool,
        paths: frozenset[str],
    ) -> None:
        """Take shards that are made, and their facts; raise unless they fit together."""
        self.dask = DaskEngine(client, shards, [f.fingerprint for f in facts])
        super().__init__(self.dask, reduce(Whole.merged, (f.whole for f in facts)))
        self.facts = tuple(facts)  # of each shard
        self.has_ids = has_ids or self.whole.rows != self.whole.count  # other ids than the positions
        self.paths = paths  # files that shards may have to be read from again

    @property
    def largest_id(self) -> int:
        """Return the largest id of a pattern."""
        return max(f.largest_id for f in self.facts)


class ShardedMemory(Coordinator):
    """A memory whose patterns are held by the workers of a Dask cluster, with the answers of one `HopfieldMemory`.

    Parameters
    ----------
    source : dask array, zarr array, path, or list of paths
        The patterns, (M, d). Files are .npy or safetensors files, those of `HopfieldMemory.save` and others that hold a
        tensor "patterns", and "values" and "ids" if they like; the rows of several lie behind one another. Paths must
        mean the same files here and on the workers. NumPy arrays are refused: `HopfieldMemory` is for them.
    beta : float, positive
        Inverse temperature. May be changed later.
    values : dask array, zarr array, path, or list of paths, optional
        What a retrieval returns a mixture of, (M, v), where the files of `source` do not hold it.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is, as of `HopfieldMemory`.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights. May be changed later.
    structure : TopK, optional
        Which patterns count; all by default. May be changed later.
    ids : array_like of int, shape (M,), optional
        Names of the patterns, distinct; 0 to M - 1 by default.
    scale : float, optional
        What uint8 and float16 patterns are multiplied with; by default what the files say.
    index : {"auto", True, False}
        Whether searches in a shard use an index, as of `HopfieldMemory`.
    shards : int, optional
        Into how many parts the patterns are cut, at multiples of 4,096 rows; at most one for each 4,096 rows. By
        default as many as workers have threads, or more, so that none has more than 128 MiB, nor more than a quarter
        of a thread's share of its worker's memory limit.
    client : distributed.Client, optional
        Whose workers hold the shards; by default the one that was made last.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault: for what a row is wrong with, also the shard, the row in the whole, and the file.
    FileFormatError, OSError
        If a file cannot be read.
    RuntimeError
        If a worker has another version of the package, or workers are lost one after another.

    See Also
    --------
    Coordinator : Answer queries by any other engine.
    sparsehopfield.HopfieldMemory : Give the same answers from patterns in one place.

    Notes
    -----
    1. Results are those of one `HopfieldMemory` of all patterns, to the bit wherever `docs/reference/promises.md`
       promises bits, for any number of shards, workers and merges. Where all patterns have weight (softmax with many
       within reach, the polynomial), sums are made by blocks of 4,096 rows and joined in a fixed order, in float64:
       they do not depend on the shards, either, and are those of one memory up to rounding.
    2. Shards are futures that are made of the source, so that those of a worker that is lost are made again elsewhere;
       one that has other numbers then is refused. What a call computes is cancelled if it is interrupted (Ctrl-C): no
       task takes longer than a batch of queries over a shard. Closing the client frees everything.
    3. Files are mapped where a shard lies in one of them, and copied where it takes rows of several: shards end where
       files do, if these end at a multiple of 4,096 rows. Of what is mapped a worker gives pages back when it is near
       its memory limit, so that it may hold more than that. Rows of dask and zarr arrays are in the workers' memory,
       of which they should take no more than half: beyond that Dask writes shards to disk, and reads them for each
       call.
    4. Dask's dashboard and `distributed.progress` show the steps as "sparsehopfield-load", "sparsehopfield-scout" and
       so on.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from distributed import Client
    >>> from sparsehopfield.distributed import ShardedMemory
    >>> client = Client(processes=False, dashboard_address=None)
    >>> folder = tempfile.TemporaryDirectory()
    >>> X = np.random.default_rng(0).standard_normal((10_000, 16), dtype=np.float32)
    >>> np.save(folder.name + "/x.npy", X)
    >>> memory = ShardedMemory(folder.name + "/x.npy", beta=4.0, shards=2)
    >>> memory
    ShardedMemory(10000 patterns of 16 features in 2 shards, float32, beta=4.0, similarity='dot',
    separation='sparsemax')
    >>> memory.associate(X[9_000], top=1).indices
    array([9000])
    >>> client.close()
    """

    def __init__(
        self,
        source: Any,
        beta: ArrayLike = 1.0,
        *,
        values: Any = None,
        similarity: str = "dot",
        separation: Separation = "sparsemax",
        structure: Structure | None = None,
        ids: ArrayLike | None = None,
        scale: float | None = None,
        index: IndexUse = "auto",
        shards: int | None = None,
        client: "Client | None" = None,
    ) -> None:
        similarity_code(similarity)
        rows = as_source(source, values, ids)
        if scale is not None:
            as_scale(scale, np.empty(0, rows.patterns.dtype))
        options = _Options(similarity, rows.scale if scale is None else scale, as_index(index))
        self._begin(rows, options, beta, separation, structure, shards, client)

    def _begin(
        self,
        rows: Source,
        options: "_Options",
        beta: ArrayLike,
        separation: Separation,
        structure: Structure | None,
        shards: int | None,
        client: "Client | None",
    ) -> None:
        """Set all attributes of a new memory, and have its shards made."""
        self.beta, self.separation, self.structure = beta, separation, structure  # checked before rows are read
        self._client, self._options = as_client(client), options
        n = None if shards is None else as_whole("shards", shards, 1)
        check_workers(self._client)
        made = _loaded(self._client, _pieces(rows, _starts(self._client, rows, n), options))
        state = _State(self._client, *made, has_ids=rows.ids is not None, paths=rows.paths)
        if rows.ids is not None:
            _check_distinct(state)
        super().__init__(state.dask, beta, separation=separation, structure=structure, whole=state.whole)
        self._state: _State = state
        self._lock = ChangeLock()  # held while the next state is made

    # --- what is stored ---------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        raise TypeError("ShardedMemory cannot be pickled, as its patterns are in the workers; use save and load")

    @property
    def shards(self) -> int:
        """Return how many shards there are."""
        return len(self._state.facts)

    @property
    def scale(self) -> float:
        """Return what uint8 and float16 patterns are multiplied with; 1 for others."""
        return self._state.whole.scale

    @property
    def index(self) -> IndexUse:
        """Return whether calls build an index of each shard: "auto", True or False."""
        return self._options.index

    # --- adding, removing, files ------------------------------------------------------------------------------------

    def add(self, patterns: Any, values: Any = None, ids: ArrayLike | None = None) -> Array:
        """Store more patterns, behind those that are there, in shards of their own.

        Parameters
        ----------
        patterns : array_like, shape (n, d), or a source
            Rows as `HopfieldMemory.add` takes them, which travel to the workers by the scheduler, and stay there for
            the case that a worker is lost; or, for many, what the class takes as `source`, of the dtype that is stored.
        values : array_like, shape (n, v), or a source, optional
            If the memory has values, and only then; of the kind of `patterns`.
        ids : array_like of int, shape (n,), optional
            Distinct from all others; by default those that follow the largest.

        Returns
        -------
        ndarray of int64, shape (n,)
            The ids.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault. Nothing has changed then.
        RuntimeError
            If workers are lost one after another, or this thread is changing the memory already.

        See Also
        --------
        remove : Remove patterns.
        sparsehopfield.HopfieldMemory.add : Do the same in one place.

        Notes
        -----
        Each call makes at least one shard, so few calls of many rows are better than many of few.

        Examples
        --------
        >>> import dask.array, numpy as np
        >>> from distributed import Client
        >>> from sparsehopfield.distributed import ShardedMemory
        >>> client = Client(processes=False, dashboard_address=None)
        >>> memory = ShardedMemory(dask.array.eye(3, chunks=3)[:2], beta=4.0)
        >>> memory.add(np.eye(3)[2:])
        array([2])
        >>> memory.retrieve([0.1, 0.2, 0.9])
        array([0., 0., 1.])
        >>> client.close()
        """
        whole = self._state.whole  # any one: their widths and dtypes are the same
        if (values is None) != (not whole.has_values):
            has = "mixes values: give one row of them per pattern" if values is None else "has no values"
            raise ValueError(f"values: this memory {has}")
        if is_source(patterns):
            rows = as_source(patterns, values, ids, name="patterns")
            _check_types(rows, whole)
        else:
            rows = _checked_rows(patterns, values, ids, whole)
        return self._lock.run(self._add, rows)

    def _add(self, rows: Source) -> Array:
        """Replace the state by one with more patterns, and return their ids."""
        old, n = self._state, len(rows)
        new_ids = self._new_ids(rows)
        spans = [f.whole.spans[0] for f in old.facts]
        last = spans[-1]
        first_row = -(-last.end_row // BLOCK) * BLOCK  # shards begin where a block of rows does
        changes: dict[int, tuple[Any, ...]] = {}
        if first_row > last.end_row:
            changes[len(spans) - 1] = None, last.first, last.first_row, first_row
        pieces = _pieces(
            rows,
            boundaries(n, _default_shards(self._client, rows, 1), rows.patterns.boundaries, BLOCK),
            self._options,
            first=old.whole.count,
            first_row=first_row,
            first_id=None if rows.ids is not None else int(new_ids[0]),
            number=len(spans),
            argument="patterns",
        )
        shards, facts = _loaded(self._client, pieces)
        kept = self._replaced(changes)
        self._state = _State(
            self._client,
            [*kept[0], *shards],
            [*kept[1], *facts],
            has_ids=old.has_ids or rows.ids is not None or int(new_ids[0]) != old.whole.count,
            paths=old.paths | rows.paths,
        )
        return new_ids

    def _new_ids(self, rows: Source) -> NDArray[np.int64]:
        """Return the ids of added patterns, (n,): those given, if no pattern has one of them, or new ones."""
        old, n = self._state, len(rows)
        if rows.ids is None:
            if old.largest_id > np.iinfo(np.int64).max - n:
                raise OverflowError(f"ids: none are left after {old.largest_id}; give them")
            return np.arange(old.largest_id + 1, old.largest_id + 1 + n)
        ids = as_ids(read_rows(rows.ids.cut(0, n)), n)
        if ids.min() <= old.largest_id:
            asked = [(ids,) if f.least_id <= ids.max() and ids.min() <= f.largest_id else None for f in old.facts]
            for used in old.dask.each("used-ids", _held.used_ids, asked):
                if len(used):
                    raise ValueError(f"ids: {used[0]} is the id of another pattern")
        return ids

    def remove(self, positions: Any) -> None:
        """Remove patterns; those behind them move up, and all keep their ids.

        Parameters
        ----------
        positions : int, slice, array_like of int, or mask of shape (M,)
            Of the patterns in the whole, as in `numpy.delete`; not all.

        Raises
        ------
        IndexError
            If a position is out of range.
        ValueError, TypeError
            Naming the argument at fault, as for removing all patterns: a memory has at least one.
        RuntimeError
            If workers are lost one after another, or this thread is changing the memory already.

        See Also
        --------
        add : Store more patterns.
        sparsehopfield.HopfieldMemory.remove : Do the same in one place.

        Notes
        -----
        Nothing is copied or read again, as in `HopfieldMemory.remove`. A shard that is made again later reads its rows,
        and leaves out those that were removed.

        Examples
        --------
        >>> import dask.array
        >>> from distributed import Client
        >>> from sparsehopfield.distributed import ShardedMemory
        >>> client = Client(processes=False, dashboard_address=None)
        >>> memory = ShardedMemory(dask.array.eye(4, chunks=4))
        >>> memory.remove([0, 2])
        >>> memory.ids
        array([1, 3])
        >>> client.close()
        """
        self._lock.run(self._remove, positions if isinstance(positions, slice) else as_array("positions", positions))

    def _remove(self, positions: slice | Array) -> None:
        """Replace the state by one without some patterns."""
        old = self._state
        m = old.whole.count
        removed = as_positions(positions, m)
        if len(removed) == 0:
            return
        if len(removed) == m:
            raise ValueError("positions: would remove all patterns; a memory has at least one")
        spans = [f.whole.spans[0] for f in old.facts]
        ends = np.searchsorted(removed, [0] + [span.first + span.count for span in spans])
        gone = [removed[a:b] - span.first for span, a, b in zip(spans, ends[:-1], ends[1:], strict=True)]
        kept = [i for i, span in enumerate(spans) if len(gone[i]) < span.count]
        # Rows of a shard that is left out count as removed ones of the shard before it, or of the first one.
        begins = [0, *(spans[i].first_row for i in kept[1:]), spans[kept[-1]].end_row]
        first, changes = 0, {}
        for j, i in enumerate(kept):
            change = first, begins[j], begins[j + 1]
            if len(gone[i]) or change != (spans[i].first, spans[i].first_row, spans[i].end_row):
                changes[i] = (gone[i] if len(gone[i]) else None, *change)
            first += spans[i].count - len(gone[i])
        shards, facts = self._replaced(changes)
        self._state = _State(
            self._client,
            [shards[i] for i in kept],
            [facts[i] for i in kept],
            has_ids=old.has_ids or int(removed[0]) != m - len(removed),
            paths=old.paths,
        )

    def _replaced(self, changes: dict[int, tuple[Any, ...]]) -> tuple[list["Future[Any]"], list[Facts]]:
        """Return the shards and their facts, those at some places replaced by others made of them.

        changes: by a shard's place the arguments of `_held.replaced`.
        """
        engine = self._state.dask
        shards, facts = list(engine.shards), list(self._state.facts)
        if changes:
            new = engine.changed("change", _held.replaced, changes)
            for (i, shard), found in zip(new.items(), _facts(self._client, list(new.values())), strict=True):
                shards[i], facts[i] = shard, found
        return shards, facts

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save to a folder: a file for each shard, which its worker writes, and a manifest.

        Parameters
        ----------
        folder : str or path-like
            Made if it is not there; the workers must see the same one.

        Raises
        ------
        ValueError
            If `beta` is an array, or the folder is not the one that workers write to.
        OSError
            If it cannot be written. The memory that the folder held is as it was.
        RuntimeError
            If workers are lost one after another.

        See Also
        --------
        load : Load what this has written.

        Notes
        -----
        1. Files of new names are written as a whole, then the manifest takes the place of the old one, and files that
           it does not name are removed: whenever the program or a machine stops, the folder holds the old memory or
           the new one. Save to one folder at a time; other memories that were loaded from it cannot make lost shards
           again once this one is saved there.
        2. Each file is one that `HopfieldMemory.load` reads; indexes are not saved.

        Examples
        --------
        >>> import dask.array, tempfile
        >>> from distributed import Client
        >>> from sparsehopfield.distributed import ShardedMemory
        >>> client = Client(processes=False, dashboard_address=None)
        >>> folder = tempfile.TemporaryDirectory()
        >>> ShardedMemory(dask.array.eye(3, chunks=3), beta=4.0).save(folder.name + "/memory")
        >>> ShardedMemory.load(folder.name + "/memory").retrieve([0.1, 0.2, 0.9])
        array([0., 0., 1.])
        >>> client.close()
        """
        path = as_path(folder, "folder")
        if np.ndim(self.beta) != 0:
            raise ValueError("beta: a file holds one number, not one per query; set `beta` to a number before saving")
        os.makedirs(path, exist_ok=True)
        state = self._state
        whole, options = state.whole, self._options
        model = Model(options.similarity, self.separation, self.beta, whole.scale, self.structure, options.index)
        save = secrets.token_hex(8)
        with_ids = state.has_ids
        asked = [(path, name_of(i, save), model, with_ids) for i in range(len(state.facts))]
        written = state.dask.each("save", _held.write, asked)
        write_manifest(path, Manifest(whole.count, whole.d, tuple(written)))
        here = os.path.realpath(path)
        used = {os.path.basename(file) for file in state.paths if os.path.dirname(file) == here}
        discard(path, used | {file.name for file in written})

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        verify: bool = False,
        *,
        index: IndexUse | None = None,
        shards: int | None = None,
        client: "Client | None" = None,
    ) -> Self:
        """Load what `save` has written.

        Parameters
        ----------
        folder : str or path-like
            What `save` was given; the workers must see the same one.
        verify : bool
            Have the workers compare all data with their checksums. Those of the headers are always compared.
        index : {"auto", True, False}, optional
            Whether searches in a shard use an index; as it was saved by default.
        shards : int, optional
            Into how many parts the patterns are cut, as of the class; it need not be the number that was saved.
        client : distributed.Client, optional
            Whose workers hold the shards; by default the one that was made last.

        Returns
        -------
        ShardedMemory
            With the model that was saved.

        Raises
        ------
        FileFormatError
            If the manifest or a file is cut, damaged, from elsewhere, or of a later version.
        OSError
            If it cannot be read.
        ValueError, TypeError, RuntimeError
            As the class.

        See Also
        --------
        save : Write a memory to a folder.

        Notes
        -----
        Files are mapped, as the class says.

        Examples
        --------
        >>> import dask.array, tempfile
        >>> from distributed import Client
        >>> from sparsehopfield.distributed import ShardedMemory
        >>> client = Client(processes=False, dashboard_address=None)
        >>> folder = tempfile.TemporaryDirectory()
        >>> ShardedMemory(dask.array.eye(3, chunks=3), beta=4.0).save(folder.name + "/memory")
        >>> ShardedMemory.load(folder.name + "/memory", verify=True).beta
        4.0
        >>> client.close()
        """
        from sparsehopfield import structures as structures  # their descriptions may be in the files

        path, manifest = read_manifest(folder)
        model = read_model(path, manifest)
        rows = as_source([os.path.join(path, file.name) for file in manifest.files], name="folder")
        if rows.patterns.shape != (manifest.patterns, manifest.columns):
            raise FileFormatError(
                f"{path}: its files hold patterns of shape {rows.patterns.shape}, and its manifest says "
                f"{(manifest.patterns, manifest.columns)}"
            )
        use = model.index if index is None else as_index(index)
        if as_flag("verify", verify):
            _compute(as_client(client), "verify", _held.verify, [(file,) for file in sorted(rows.paths)])
        memory = cls.__new__(cls)
        options = _Options(model.similarity, rows.scale, use)
        memory._begin(rows, options, model.beta, model.separation, model.structure, shards, client)
        return memory


# --- making shards ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    """How patterns are stored and read."""

    similarity: str
    scale: float | None
    index: IndexUse


def _default_shards(client: "Client", rows: Source, least: int) -> int:
    """Return how many shards rows are cut into where nobody says: so many that none is large, and at least `least`."""
    workers = client.scheduler_info()["workers"].values()
    shares = [w["memory_limit"] / max(1, w["nthreads"]) for w in workers if w.get("memory_limit")]
    most = min([SHARD_BYTES, *(share / 4 for share in shares)])
    arrays = [a for a in (rows.patterns, rows.values) if a is not None]
    nbytes = sum(prod(a.shape) * a.dtype.itemsize for a in arrays)
    return max(least, ceil(nbytes / most))


def _starts(client: "Client", rows: Source, shards: int | None) -> list[int]:
    """Return where shards begin and end."""
    if shards is None:
        threads = sum(w["nthreads"] for w in client.scheduler_info()["workers"].values())
        shards = _default_shards(client, rows, max(1, threads))
        if threads:
            shards = -(-shards // threads) * threads
    return boundaries(len(rows), shards, rows.patterns.boundaries, BLOCK)


def _pieces(
    rows: Source,
    starts: Sequence[int],
    options: _Options,
    *,
    first: int = 0,
    first_row: int = 0,
    first_id: int | None = None,
    number: int = 0,
    argument: str = "source",
) -> list[tuple[Any, ...]]:
    """Return the arguments of `_held.load` of some shards: what they are, and their patterns, values and ids."""
    return [
        (
            Piece(
                number + i,
                first + start,
                first_row + start,
                options.similarity,
                options.scale,
                options.index,
                None if first_id is None else first_id + start,
                argument,
            ),
            *rows.cut(start, stop),
        )
        for i, (start, stop) in enumerate(pairwise(starts))
    ]


def _loaded(client: "Client", pieces: Sequence[tuple[Any, ...]]) -> tuple[list["Future[Any]"], list[Facts]]:
    """Return the shards that are made of some pieces, and their facts; raise what is wrong with one of them."""
    shards: list[Future[Any]] = []
    with raising_clearly(), cancelling(client, shards):
        shards += submitted(client, "load", _held.load, pieces)
        return shards, _facts(client, shards)


def _facts(client: "Client", shards: Sequence["Future[Any]"]) -> list[Facts]:
    """Return the facts of some shards, once they are made."""
    return _compute(client, "facts", _held.facts, [(shard,) for shard in shards])


def _compute(
    client: "Client", name: str, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
) -> list[Any]:
    """Return the results of a function of some arguments, computed by the workers."""
    tasks: list[Future[Any]] = []
    with raising_clearly(), cancelling(client, tasks):
        tasks += submitted(client, name, function, arguments)
        return results_of(client, tasks)


def _check_distinct(state: _State) -> None:
    """Raise unless ids of different shards are distinct: fetched, if those of two lie between each other."""
    ranges = sorted((f.least_id, f.largest_id) for f in state.facts)
    if all(before[1] < after[0] for before, after in pairwise(ranges)):
        return
    order = np.sort(np.concatenate(state.dask.each("ids", _held.ids_of, [()] * len(state.facts))))
    if (same := order[1:] == order[:-1]).any():
        raise ValueError(f"ids: must be distinct, got {order[1:][same][0]} twice")


def _check_types(rows: Source, whole: Whole) -> None:
    """Raise unless rows that are added from a source fit to those that are stored, by their columns and dtypes."""
    for name, a, columns, dtype in zip(
        ("patterns", "values"), (rows.patterns, rows.values), (whole.d, whole.width), whole.types, strict=False
    ):
        assert a is not None
        if a.shape[1] != columns:
            raise ValueError(f"{name}: must have the {columns} columns of what is stored, got shape {a.shape}")
        if a.dtype != dtype:
            raise TypeError(f"{name}: must be {dtype}, as what is stored, got {a.dtype}")
    if rows.scale is not None and rows.scale != whole.scale:
        raise ValueError(f"patterns: their files say scale {rows.scale}, and what is stored has {whole.scale}")


def _checked_rows(patterns: Any, values: Any, ids: ArrayLike | None, whole: Whole) -> Source:
    """Return rows in memory that are added to others, checked as `HopfieldMemory.add` does."""
    rows = as_more_rows("patterns", patterns, np.empty((0, whole.d), whole.types[0]))
    mixed = None
    if values is not None:
        mixed = as_more_rows("values", values, np.empty((0, whole.width), whole.types[1]))
        if len(mixed) != len(rows):
            raise ValueError(f"values: needs one row per pattern ({len(rows)}), got {len(mixed)}")
    return added_source(rows, mixed, None if ids is None else as_ids(ids, len(rows)))
