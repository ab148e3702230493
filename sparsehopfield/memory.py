"""HopfieldMemory: patterns stored and made ready once, then retrieved from many times; added to, saved and loaded.

What a memory holds is one Snapshot that never changes. `add` and `remove` make another and replace it with a single
assignment, and every operation reads it once: it sees the old patterns or the new, in whatever thread it runs.
"""

import copy as copying
import os
import sys
import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsehopfield import _core
from sparsehopfield._engine import html
from sparsehopfield._engine.call import Call, Separation, leave_one_out
from sparsehopfield._engine.checks import (
    Array,
    as_array,
    as_chosen,
    as_exclude,
    as_flag,
    as_flat,
    as_ids,
    as_more_rows,
    as_number,
    as_numbers,
    as_one_beta,
    as_pattern_shape,
    as_positive_numbers,
    as_whole,
    ignoring_float_errors,
    is_made_of,
)
from sparsehopfield._engine.concurrency import ChangeLock, cached
from sparsehopfield._engine.executor import MOST_NEAREST
from sparsehopfield._engine.partial import Candidates
from sparsehopfield._engine.pattern_set import IndexUse, PatternSet, as_index
from sparsehopfield._engine.progress import Progress, telling
from sparsehopfield._engine.separations import separation_code
from sparsehopfield._engine.snapshot import Snapshot
from sparsehopfield._engine.structure import Structure, as_structure, can_exclude
from sparsehopfield._engine.text import count, in_bytes, short
from sparsehopfield.errors import FileFormatError, FileFormatWarning
from sparsehopfield.inspect.certificates import (
    DUPLICATE_PASSES,
    Capacity,
    Certificates,
    Certified,
    Duplicates,
    beta_of_share,
    required_cutoff,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sparsehopfield.inspect.explain import Explanation
    from sparsehopfield.inspect.report import Report

__all__ = ["HopfieldMemory"]


# What is wrong with the index of a file, by the word of the core for it.
_WRONG_INDEX = {
    "file": "damaged",
    "version": "of another version of this package, or of a machine of another byte order",
    "patterns": "not that of the file's patterns",
}


class _CertifiableSnapshot(Snapshot):
    """A snapshot, and the certificates of its patterns."""

    @cached
    def certificates(self) -> Certificates:
        """Return the certificates of these patterns."""
        return Certificates(self.pattern_set)


class HopfieldMemory:
    """Stored patterns, and a model that retrieves them.

    Parameters
    ----------
    patterns : array_like, shape (M, d), or (M, *pattern_shape)
        One row a pattern: float32, float64, float16, integers; data frames of numbers, too, where a missing value is
        NaN, rows of Arrow, which are not copied if they lie in one piece, and arrays of zarr, h5py and dask, which are
        read by blocks. uint8 and float16 stay what they are and are widened tile by tile, and so are float32 patterns
        that are queried in float64. NaN, infinity and masked entries (`numpy.ma`) are refused, as in queries and
        values. Integers of more than 16 bits count as float64, here and wherever numbers come in, and those beyond
        2**53 are refused.
    beta : float, positive
        Inverse temperature. May be changed later.
    values : array_like, shape (M, v), optional
        What a retrieval returns a mixture of; the patterns themselves by default.
    similarity : {"dot", "euclidean", "cosine"}
        What a score is: `<x, xi>`; `-|x - xi|^2/2`, the largest for the nearest pattern (for Polynomial, which a shift
        of all scores changes, `<x, xi> - |xi|^2/2`); `<x, xi/|xi|>`, where the unit rows are mixed, too.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax, Normmax or Polynomial
        How scores become weights. May be changed later.
    structure : Structure, optional
        Which patterns each query sees, see `sparsehopfield.structures`; all by default. May be changed later.
    ids : array_like of int, shape (M,), optional
        Names of the patterns for the caller's use; 0 to M - 1 by default. Must be distinct. A pattern keeps its id
        whatever is added and removed.
    copy : bool, optional
        True copies, False refuses to, None copies only what the core cannot read in place. A borrowed array must
        not be changed while the memory lives; `verify` finds out.
    check_finite : bool
        False skips the pass over `values`. Patterns and queries are checked by their norms, which are needed anyway.
    scale : float, optional
        Of uint8 and float16 patterns: a stored number q stands for the float32 number q * scale; 1 by default. The
        memory returns what one of these products would, from a quarter or half of the memory.
    index : {"auto", True, False}
        "auto": the call for which an index pays builds it, if half of the memory that is left to this process holds it:
        of its limits, its control groups (containers) and the machine. True: it is built at once, also where `remove`
        copies what is left, and what `add` brings is coded where that pays, however little is left. False: there is
        none, and calls scan. Results are the same bits. May be changed later; see `build_index` for its size.
    pattern_shape : sequence of int, optional
        Shape of one pattern, as (height, width) of images, of d numbers in all. Wherever patterns or queries come in,
        their last axes may then be these in the place of one axis of d, and patterns come out so, however queries came
        in: `update`, `retrieve` (unless there are values), `RetrievalInfo.states`, `patterns`. Arrays that end in these
        axes are taken so, whatever else they might be. Figures of explanations and reports draw images of this shape.

    Raises
    ------
    ValueError, TypeError, OverflowError, MemoryError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.suggest : Choose similarity, beta, separation and structure for some data.
    sparsehopfield.retrieve : Retrieve once, from patterns that are not kept.
    sparsehopfield.estimators.HopfieldRetriever : The same with scikit-learn's interface.

    Notes
    -----
    1. `LinearFeatures` and `RandomFeatures` keep their sums over the patterns from call to call, for one beta and
       structure at a time; patterns that are added are folded in, after `remove` the sums are made anew.
    2. `RandomMask` draws its subsets from the number of patterns, so others after `add` and `remove`.
    3. `Window`, `DilatedBlocks`, `BlockSparse` and causal features go by the places of the patterns. After `remove` has
       moved places they raise ValueError, until `structure` is set again: then the new order is meant.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1000, 64))
    >>> memory = HopfieldMemory(X, beta=1.0)
    >>> x = X[7] + 0.5 * rng.standard_normal(64)
    >>> np.array_equal(memory.retrieve(x), X[7])
    True

    Images go in, and come out as images:

    >>> images = rng.standard_normal((1000, 8, 8))
    >>> memory = HopfieldMemory(images, pattern_shape=(8, 8))
    >>> np.array_equal(memory.retrieve(images[7] + 0.1), images[7])
    True
    """

    def __init__(
        self,
        patterns: ArrayLike,
        beta: ArrayLike = 1.0,
        *,
        values: ArrayLike | None = None,
        similarity: str = "dot",
        separation: Separation = "sparsemax",
        structure: Structure | None = None,
        ids: ArrayLike | None = None,
        copy: bool | None = None,
        check_finite: bool = True,
        scale: float | None = None,
        index: IndexUse = "auto",
        pattern_shape: Sequence[int] | None = None,
    ) -> None:
        shape, images = as_pattern_shape(pattern_shape), patterns
        if shape is not None:
            given = as_numbers("patterns", images)
            patterns = as_flat("patterns", given, shape)
        s = PatternSet(patterns, values, similarity, copy=copy, check_finite=check_finite, scale=scale, index=index)
        # What was laid out anew, or read from chunks or files, is a copy that nobody else has.
        in_place = shape is None or (np.may_share_memory(patterns, given) and not is_made_of(images, given))
        borrowed = s.storage is s.sources[0] and in_place, s.value_storage is s.sources[1]
        if copy is False and not all(borrowed):
            raise ValueError(
                f"copy: cannot be avoided: {s.dtype}, float16 or uint8 rows, each contiguous in memory, are needed"
            )
        borrows = borrowed[0] or (borrowed[1] and s.value_storage is not None)
        self._begin(s, ids, beta, separation, structure, borrows=borrows, pattern_shape=shape)

    def _begin(
        self,
        stored: PatternSet,
        ids: ArrayLike | None,
        beta: ArrayLike,
        separation: Separation,
        structure: Structure | None,
        *,
        borrows: bool,
        pattern_shape: tuple[int, ...] | None = None,
    ) -> None:
        """Set all attributes of a new memory; borrows: others can change the arrays that are stored."""
        self._pattern_shape = pattern_shape
        self.beta = beta
        self.separation = separation
        self._structure = as_structure(structure), 0
        checked_ids = None if ids is None else as_ids(ids, len(stored))
        self._snapshot = _CertifiableSnapshot.begin(stored, checked_ids, borrows=borrows)
        self._lock = ChangeLock()  # held while the next snapshot is made

    # --- what is stored ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._snapshot.pattern_set)

    def __repr__(self) -> str:
        m, d = self.shape
        structure = "" if self.structure is None else f", structure={self.structure!r}"
        index = "" if self.index == "auto" else f", index={self.index!r}"
        shape = "" if self.pattern_shape is None else f", pattern_shape={self.pattern_shape}"
        return (
            f"HopfieldMemory({m} patterns of {d} features, {self.dtype}, beta={short(self.beta, quote=False)}, "
            f"similarity={self.similarity!r}, separation={self.separation!r}{structure}{index}{shape})"
        )

    def _repr_html_(self) -> str:
        snapshot = self._snapshot
        stored = snapshot.pattern_set
        (m, d), index_bytes = stored.shape, self.index_nbytes
        scale = f", times {stored.scale:g}" if stored.scale != 1 else ""
        known = {"patterns": f"{m:,} of {count(d, 'feature')}, {stored.storage.dtype}{scale}"}
        if self.pattern_shape is not None:
            known["pattern shape"] = " x ".join(map(str, self.pattern_shape))
        if stored.value_storage is not None:
            known["values"] = f"{stored.width:,} a pattern, {stored.value_storage.dtype}"
        if snapshot.given_ids is not None:
            known["ids"] = "other than the positions"
        index = {"auto": "built when it pays", True: "always", False: "none"}[stored.index]
        known |= {
            "similarity": stored.similarity,
            "separation": str(self.separation),
            "beta": short(self.beta, quote=False),
            "structure": "all pairs" if self.structure is None else short(self.structure),
            "results": str(stored.dtype),
            "memory": in_bytes(self.nbytes),
            "index": f"{in_bytes(index_bytes)} ({index})" if index_bytes else f"not built ({index})",
        }
        return html.facts(known, type(self).__name__)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (M, d)."""
        return self._snapshot.pattern_set.shape

    @property
    def pattern_shape(self) -> tuple[int, ...] | None:
        """Return the shape in which patterns come in and out; None: one axis."""
        return self._pattern_shape

    def _shaped(self, rows: Array) -> Array:
        """Return rows (n, d) of patterns in the shape in which they come out, a view."""
        return rows if self._pattern_shape is None else rows.reshape(len(rows), *self._pattern_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of results for queries of the same or a smaller one."""
        return self._snapshot.pattern_set.dtype

    @property
    def nbytes(self) -> int:
        """Return the bytes of patterns and values, without what is removed and the space for more."""
        stored = self._snapshot.pattern_set
        return sum(len(stored) * a[0].nbytes for a in (stored.storage, stored.value_storage) if a is not None)

    @property
    def patterns(self) -> Array:
        """Return the patterns as they are stored, read-only: to be multiplied with `scale`; in `pattern_shape`."""
        return _read_only(self._shaped(self._snapshot.pattern_set.patterns))

    @property
    def values(self) -> Array:
        """Return what is mixed, read-only: the patterns if no values were given."""
        stored = self._snapshot.pattern_set
        return _read_only(self._shaped(stored.patterns) if stored.values is None else stored.values)

    @property
    def ids(self) -> Array:
        """Return the patterns' ids, read-only."""
        return _read_only(self._snapshot.all_ids)

    @property
    def scale(self) -> float:
        """Return what uint8 and float16 patterns are multiplied with; 1 for others."""
        return self._snapshot.pattern_set.scale

    @property
    def beta(self) -> ArrayLike:
        """Return the inverse temperature; it may be set."""
        return self._beta

    @beta.setter
    def beta(self, beta: ArrayLike) -> None:
        b = as_positive_numbers("beta", beta)
        self._beta = float(b) if b.ndim == 0 else beta

    @property
    def separation(self) -> Separation:
        """Return how scores become weights; it may be set."""
        return self._separation[0]

    @separation.setter
    def separation(self, separation: Separation) -> None:
        self._separation = separation, separation_code(separation)  # in one assignment

    @property
    def structure(self) -> Structure | None:
        """Return which patterns each query sees, None for all. Setting it confirms the patterns' order."""
        return self._structure[0]

    @structure.setter
    def structure(self, structure: Structure | None) -> None:
        # In one assignment with the number of renumberings, by which a later one is noticed.
        self._structure = as_structure(structure), self._snapshot.renumberings

    @property
    def index(self) -> IndexUse:
        """Return whether calls build an index: "auto", True or False. Setting True builds it now; False frees it."""
        return self._snapshot.pattern_set.index

    @index.setter
    def index(self, index: IndexUse) -> None:
        self._lock.run(self._use_index, as_index(index))

    def _use_index(self, index: IndexUse) -> None:
        """Replace the snapshot by one with another use of the index."""
        self._snapshot = self._snapshot.with_index(index)

    @property
    def similarity(self) -> str:
        """Return what a score is."""
        return self._snapshot.pattern_set.similarity

    def verify(self) -> None:
        """Raise if a borrowed array was changed since the memory was made.

        Raises
        ------
        ValueError
            If it was: results would mix old norms with new patterns.

        See Also
        --------
        HopfieldMemory : Make a memory with `copy=True`, which nobody else can change.
        load : Compare a file with its checksums, by its own `verify`.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.eye(3)
        >>> memory = HopfieldMemory(X)
        >>> X[0, 0] = 2
        >>> memory.verify()
        Traceback (most recent call last):
            ...
        ValueError: patterns: the array was changed after it was stored; make a new memory, or use copy=True
        """
        if self._snapshot.has_changed():
            raise ValueError("patterns: the array was changed after it was stored; make a new memory, or use copy=True")

    def _current(self) -> tuple[_CertifiableSnapshot, Structure | None]:
        """Return the snapshot and the structure; raise if it goes by places that have changed since it was set."""
        structure, renumberings = self._structure
        snapshot = self._snapshot
        if structure is not None and structure.by_place and snapshot.renumberings != renumberings:
            raise ValueError(
                f"structure: {type(structure).__name__} goes by the places of the patterns, and remove has moved some; "
                "set memory.structure again if the new order is meant"
            )
        return snapshot, structure

    def __reduce__(self) -> tuple[Any, ...]:
        snapshot, structure = self._current()
        stored = snapshot.pattern_set
        patterns, values = stored.arrays()
        options = {
            "values": values,
            "similarity": stored.similarity,
            "separation": self.separation,
            "structure": structure,
            "ids": snapshot.given_ids,
            "check_finite": stored.check_finite,
            "scale": None if stored.scale == 1 else stored.scale,
            "index": stored.index,
        } | ({} if self._pattern_shape is None else {"pattern_shape": self._pattern_shape})
        return _rebuild, (patterns, self.beta, options)

    def _at(self, beta: ArrayLike) -> Self:
        """Return another memory of the same snapshot, index and lock at a beta; its model may be changed by itself."""
        memory = type(self).__new__(type(self))
        vars(memory).update(vars(self))
        memory.beta = beta
        return memory

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        snapshot, structure = self._current()
        memory = type(self).__new__(type(self))
        stored, beta = snapshot.pattern_set.copied(), copying.deepcopy(self.beta, memo)
        memory._begin(
            stored,
            snapshot.given_ids,
            beta,
            self.separation,
            structure,
            borrows=False,
            pattern_shape=self._pattern_shape,
        )
        return memory

    # --- adding, removing, files ------------------------------------------------------------------------------------

    def add(self, patterns: ArrayLike, values: ArrayLike | None = None, ids: ArrayLike | None = None) -> Array:
        """Store more patterns, behind those that are there.

        Parameters
        ----------
        patterns : array_like, shape (n, d), or (n, *pattern_shape)
            They become numbers of the dtype that is stored. Floats are rounded to float32 or float64; what uint8 and
            float16 memories store must be given as such, not yet multiplied with `scale`.
        values : array_like, shape (n, v), optional
            If the memory has values, and only then.
        ids : array_like of int, shape (n,), optional
            Distinct from all others; by default those that follow the largest.

        Returns
        -------
        ndarray of int64, shape (n,)
            The ids.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault, rows counted from the first one added. Nothing has changed then.
        RuntimeError
            If this thread is changing the memory already: a signal handler or a finaliser calls `add`.

        See Also
        --------
        remove : Remove patterns again.
        build_index : Code the new patterns now.

        Notes
        -----
        1. Costs a pass over the new patterns; now and then, as the space for them doubles, a copy of all rows, removed
           ones among them. The first time a borrowed or mapped array is copied.
        2. Other threads may use the memory meanwhile: they see it without all of these patterns or with all. So does
           a child process that is forked meanwhile, and the memory as it was is what an interrupted call leaves.

        Examples
        --------
        >>> import numpy as np
        >>> memory = HopfieldMemory(np.eye(3)[:2], beta=4.0)
        >>> memory.add(np.eye(3)[2:])
        array([2])
        >>> memory.retrieve([0.1, 0.2, 0.9])
        array([0., 0., 1.])
        """
        snapshot = self._snapshot  # any one: their widths and dtypes are the same
        if self._pattern_shape is not None:
            patterns = as_flat("patterns", patterns, self._pattern_shape)
        rows = as_more_rows("patterns", patterns, snapshot.patterns.rows)
        if (values is None) != (snapshot.values is None):
            has = "mixes values: give one row of them per pattern" if values is None else "has no values"
            raise ValueError(f"values: this memory {has}")
        mixed = None
        if values is not None and snapshot.values is not None:
            mixed = as_more_rows("values", values, snapshot.values.rows)
            if len(mixed) != len(rows):
                raise ValueError(f"values: needs one row per pattern ({len(rows)}), got {len(mixed)}")
        return self._lock.run(self._add, rows, mixed, None if ids is None else as_ids(ids, len(rows)))

    def _add(self, rows: Array, mixed: Array | None, ids: NDArray[np.int64] | None) -> Array:
        """Replace the snapshot by one with more patterns, and return their ids."""
        self._snapshot, new_ids = self._snapshot.with_more(rows, mixed, ids)
        return new_ids

    def remove(self, positions: Any) -> None:
        """Remove patterns; those behind them move up, and all keep their ids.

        Parameters
        ----------
        positions : int, slice, array_like of int, or mask of shape (M,)
            As in `numpy.delete`. `numpy.isin(memory.ids, ids)` is the mask of some ids.

        Raises
        ------
        IndexError
            If a position is out of range.
        ValueError, TypeError
            Naming the argument at fault, as for removing all patterns: a memory has at least one.
        RuntimeError
            If this thread is changing the memory already, as for `add`.

        See Also
        --------
        add : Store more patterns.
        duplicates : Find the copies that are not needed.

        Notes
        -----
        1. Copies nothing: rows stay where they are, borrowed and mapped ones too, and are passed over. It takes an
           eighth of a byte for each row that is stored. When more than an eighth of the rows has been removed, the
           others are copied together, into memory even if they were mapped; so M removals copy O(M) rows in all.
        2. Results have the bits of a memory made anew of what is left. The index stays, too; when rows are copied
           together, so is what it has of them, until a third of its room would be empty: then one is built anew.
           The first call after a removal that has no use for an index (maps with full support, supports of more than
           max(1024, M/16), structures that go by places, features) copies what is left, and keeps the copy until the
           next change; so do `patterns`, `values`, files and copies, and certificates that read the rows.
        3. Other threads may use the memory meanwhile: they see it with all of these patterns or without all, and so
           does a forked child.
        4. Unless only the last patterns go, others move to other places. A structure that goes by places (`Window`,
           `BlockSparse`, causal features) is then refused until `structure` is set again.

        Examples
        --------
        >>> import numpy as np
        >>> memory = HopfieldMemory(np.eye(4))
        >>> memory.remove([0, 2])
        >>> memory.ids
        array([1, 3])
        """
        self._lock.run(self._remove, positions if isinstance(positions, slice) else as_array("positions", positions))

    def _remove(self, positions: slice | Array) -> None:
        """Replace the snapshot by one without some patterns."""
        self._snapshot = self._snapshot.without(positions)

    def save(self, path: str | os.PathLike[str], *, index: bool | None = None) -> None:
        """Save to a file, which takes the place of an old one as a whole.

        Parameters
        ----------
        path : str or path-like
            Its ending is yours to choose; what is written is a safetensors file.
        index : bool, optional
            Whether the file holds the index, for `load` to use it in place of building it. By default it does if the
            memory has one now, whether a call or `build_index` has built it; True builds it first. False leaves it out:
            the file is smaller, the same whatever was called before, and read by earlier versions of this package,
            unless it has a `pattern_shape`.

        Raises
        ------
        ValueError
            If `beta` is an array, `path` is there and no regular file, or `structure` goes by places that `remove` has
            moved, is not of `sparsehopfield.structures`, or is larger than a header may be; if `index` is True where
            the memory's is False.
        TypeError
            If `index` is no flag.
        OSError
            If it cannot be written. The old file is as it was.

        See Also
        --------
        load : Read the file again.
        build_index : Build the index that the file may hold.

        Notes
        -----
        1. Written to a temporary file beside it, brought to the disk, then renamed: whenever the program or the machine
           stops, `path` is the old file or the new one. A killed program leaves `.sparsehopfield-*.tmp` behind.
        2. Patterns, values, ids, similarity, separation, structure, beta and scale are kept, each to the bit, with
           checksums; so are `pattern_shape`, and `index` where it is not "auto". To write the index takes as much
           memory as it has.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> HopfieldMemory(np.eye(3), beta=4.0).save(folder.name + "/memory.safetensors")
        >>> HopfieldMemory.load(folder.name + "/memory.safetensors")
        HopfieldMemory(3 patterns of 3 features, float64, beta=4.0, similarity='dot', separation='sparsemax')
        """
        from sparsehopfield._engine import files  # loads hashlib and json: only for files

        if index is not None:
            index = as_flag("index", index)
        snapshot, structure = self._current()
        stored = snapshot.pattern_set
        model = files.Model(
            stored.similarity, self.separation, self.beta, stored.scale, structure, stored.index, self._pattern_shape
        )
        if stored.removed and index is not False and (index or _core.index_nbytes(stored.core(stored.dtype))):
            stored = stored.copied()
        if index:
            self._build_index(stored)
        patterns, values = stored.arrays()
        tensors = {"patterns": patterns, "values": values, "ids": snapshot.given_ids}
        arrays = {name: a for name, a in tensors.items() if a is not None}
        codes = None if index is False else _core.export_index(stored.core(stored.dtype))
        if codes is not None:
            arrays[files.INDEX] = codes
        files.write(path, model, arrays)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        mmap: bool = False,
        verify: bool = False,
        *,
        index: IndexUse | None = None,
    ) -> Self:
        """Load what `save` has written.

        Parameters
        ----------
        path : str or path-like
            The file to read.
        mmap : bool
            Leave patterns, values and the index in the file and map it: they are read where they are needed, so a
            memory may be larger than RAM. Loading still takes one pass over patterns, for the norms, and over the index
            where the file holds one; values are not read.
        verify : bool
            Compare the data with its checksum. Those of the header and of the index are always compared.
        index : {"auto", True, False}, optional
            What the memory's `index` is to be; as it was saved by default. Under True and "auto" an index that the
            file holds is used, under "auto" only if it is mapped, or half of the memory that is left holds it.

        Returns
        -------
        HopfieldMemory
            The memory as it was saved, to the bit.

        Raises
        ------
        FileFormatError
            If the file is cut, damaged, from elsewhere, or of a later version. No more than the file holds is read, and
            nothing in it is executed.
        OSError
            If it cannot be read.
        ValueError, TypeError
            If `path` is no path, or `index` none of the three.

        Warns
        -----
        FileFormatWarning
            If the file's index is damaged, of another version or of other patterns. It is then not used, and an index
            is built, at once or when it pays, as `index` says. With `verify=True` damage to it is damage to the file.

        See Also
        --------
        save : Write such a file.

        Notes
        -----
        1. `save` to a mapped file is safe: the map keeps the old one. A program that cuts or overwrites the file itself
           while it is mapped ends this process (SIGBUS), or changes what is stored.
        2. Beside what is mapped, which the system gives up where memory is short, a call needs some MiB a thread, its
           queries and results, and the index, where there is one that is not mapped: with `index=False` there is none.
        3. Whatever a file holds as its index, nothing outside of the file is read by it. Results do not depend on it,
           as far as its checksum tells: whoever writes an index of his own, with its checksum, can have a memory miss
           patterns. Load files of people you do not trust with `index=False`.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> HopfieldMemory(np.eye(3), beta=4.0).save(folder.name + "/memory.safetensors")
        >>> memory = HopfieldMemory.load(folder.name + "/memory.safetensors", mmap=True, verify=True)
        >>> memory.retrieve([0.1, 0.2, 0.9])
        array([0., 0., 1.])
        """
        from sparsehopfield import structures as structures  # their descriptions may be in the file
        from sparsehopfield._engine import files

        use = None if index is None else as_index(index)
        model, arrays = files.read(path, mmap=mmap, verify=verify, index=use)
        patterns, values, ids = arrays["patterns"], arrays.get("values"), arrays.get("ids")
        scale = None if model.scale == 1 else model.scale
        memory = cls.__new__(cls)
        try:
            stored = PatternSet(
                patterns,
                values,
                model.similarity,
                copy=None,
                check_finite=not mmap,
                scale=scale,
                index=model.index if use is None else use,
            )
            wrong = stored.take_index(arrays[files.INDEX]) if files.INDEX in arrays else None
            parts = stored, ids, model.beta, model.separation, model.structure
            memory._begin(*parts, borrows=False, pattern_shape=model.pattern_shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise FileFormatError(f"{os.fspath(path)}: {error}") from None
        if wrong is not None:
            text = f"{os.fspath(path)}: its index is not used: it is {_WRONG_INDEX[wrong]}"
            warnings.warn(text, FileFormatWarning, stacklevel=2)
        return memory

    # --- operations -------------------------------------------------------------------------------

    def update(self, queries: ArrayLike, *, out: Array | None = None, exclude: ArrayLike | None = None) -> Array:
        """Make one retrieval step; see `sparsehopfield.update`.

        Parameters
        ----------
        queries : array_like, shape (..., d), or (..., *pattern_shape)
            One row a query.
        out : ndarray, of the result's shape, optional
            Where the states are written.
        exclude : array_like of int, shape (...), optional
            Of each query the position of one pattern that it does not see, or -1; it broadcasts to the queries' leading
            axes.

        Returns
        -------
        ndarray, shape (..., v), or (..., *pattern_shape)
            The states after one step.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault: `exclude` if it has another number than -1 and the positions, if it excludes
            the only pattern, or under a structure other than `TopK`.

        See Also
        --------
        retrieve : Make steps until nothing moves.
        leave_one_out : Make the step from the stored patterns, none of which sees itself.
        certify : Prove to which pattern the step goes.

        Notes
        -----
        1. A query that excludes a pattern gets the result of a memory without it: the same bits wherever these are
           promised (docs/reference/promises.md), as limits that go by the number of patterns go by one less. Positions
           are those of all patterns. Many queries, each of which excludes another pattern, cost what queries cost that
           exclude none.
        2. `TopK(k)` takes the k best of the patterns that a query sees, or all of these where k is M.
        3. Whether scores overflow is decided by the lengths of all patterns, excluded ones among them.

        Examples
        --------
        >>> import numpy as np
        >>> memory = HopfieldMemory(np.eye(3), beta=4.0)
        >>> memory.update([0.9, 0.2, 0.0])
        array([1., 0., 0.])
        >>> memory.update([0.9, 0.2, 0.0], exclude=0).round(6)
        array([0. , 0.9, 0.1])
        """
        return self._call(queries, exclude).update(out)

    def leave_one_out(self, positions: Any = None) -> Array:
        """Make one retrieval step from the stored patterns themselves, none of which sees itself.

        Parameters
        ----------
        positions : slice, mask or array_like of int, optional
            The patterns from which a step is made, as NumPy indexes an array; all by default.

        Returns
        -------
        ndarray, shape (n, v), or (n, *pattern_shape)
            Row i is what a memory without that pattern makes of it: with targets as `values`, the prediction for a
            training row by all others.

        Raises
        ------
        IndexError
            If a position is out of range.
        ValueError, TypeError, OverflowError, MemoryError
            Naming what is at fault: `exclude` where there is one pattern, `structure` unless it is `TopK`.

        See Also
        --------
        update : Make the step from other queries, by `exclude` without some pattern each.
        sparsehopfield.suggestion.best_beta : Choose beta by predictions that are made so.

        Notes
        -----
        1. Results have the bits of n memories, each made without one pattern, wherever bits are promised, and cost what
           one `update` of n queries costs (`update` says more of `exclude`). Copies of a pattern stay visible.
        2. The queries are the patterns as the numbers that they stand for: uint8 and float16 times `scale`. They are
           taken some megabytes at a time.
        3. A `beta` of one number for each query has n of them here.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.array([[0.0], [1.0], [2.0], [10.0]])
        >>> memory = HopfieldMemory(X, beta=2.0, values=X[:, :1] ** 2, similarity="euclidean")
        >>> memory.leave_one_out().ravel()
        array([1., 2., 1., 4.])
        """
        snapshot, structure = self._current()
        stored = snapshot.pattern_set
        chosen = None if positions is None else as_chosen(positions, len(stored))
        found = leave_one_out(stored, chosen, self.beta, self._separation[1], structure)
        return self._shaped(found) if stored.value_storage is None else found

    def retrieve(
        self,
        queries: ArrayLike,
        *,
        max_steps: int = 1000,
        tol: float | None = None,
        return_info: bool | Collection[str] = False,
        out: Array | None = None,
        exclude: ArrayLike | None = None,
    ) -> Any:
        """Make steps until nothing moves; see `sparsehopfield.retrieve`.

        Parameters
        ----------
        queries : array_like, shape (..., d), or (..., *pattern_shape)
            One row a query.
        max_steps : int, at least 0
            Updates at most.
        tol : float, at least 0, optional
            A query has converged when a step moves it by at most `tol` times the longest pattern that it sees; by
            default 4 eps of the dtype.
        return_info : bool, or of {"weights", "energy"}
            Also return a RetrievalInfo; names ask for what costs extra.
        out : ndarray, of the result's shape, optional
            Where the states are written.
        exclude : array_like of int, shape (...), optional
            Of each query the position of one pattern that no step sees, or -1, as in `update`.

        Returns
        -------
        ndarray, shape (..., v), or (..., *pattern_shape); or (ndarray, RetrievalInfo)
            The states where retrieval ended; with `return_info` also how it went.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault.

        Warns
        -----
        RetrievalWarning
            If queries are still moving after `max_steps`.

        See Also
        --------
        update : Make one step.
        sparsehopfield.RetrievalInfo : What `return_info` adds.
        certify : Prove to which pattern the first step goes.

        Examples
        --------
        >>> import numpy as np
        >>> states, info = HopfieldMemory(np.eye(3), beta=4.0).retrieve([0.5, 0.4, 0.0], return_info=True)
        >>> states, int(info.steps)
        (array([1., 0., 0.]), 3)
        """
        return self._call(queries, exclude).retrieve(max_steps, tol, return_info, out)

    def associate(
        self,
        queries: ArrayLike,
        *,
        top: int | None = None,
        min_weight: float | None = None,
        exclude: ArrayLike | None = None,
    ) -> "csr_array":
        """Return the weights; see `sparsehopfield.associate`. Columns are positions.

        Parameters
        ----------
        queries : array_like, shape (..., d), or (..., *pattern_shape)
            One row a query; leading axes are flattened to N.
        top : int, at least 1, optional
            Keep the `top` largest weights of each query; ties go to the lowest position.
        min_weight : float, at least 0, optional
            Keep weights of at least this. Maps with full support, as softmax, need one of the two.
        exclude : array_like of int, shape (...), optional
            Of each query the position of one pattern that it does not see, or -1, as in `update`: that column of its
            row is empty.

        Returns
        -------
        scipy.sparse.csr_array, shape (N, M)
            The weights that are not 0: a row for each query, a column for each pattern.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault, as in `sparsehopfield.associate`.

        See Also
        --------
        update : Mix the patterns by these weights.
        explain : Say of one query which patterns carry the weight.

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.eye(3)).associate([0.5, 0.4, 0.0]).toarray().round(3)
        array([[0.533, 0.433, 0.033]])
        """
        return self._call(queries, exclude).associate(top, min_weight)

    def energy(self, queries: ArrayLike, *, exclude: ArrayLike | None = None) -> Any:
        """Return E_beta; see `sparsehopfield.energy`.

        Parameters
        ----------
        queries : array_like, shape (..., d), or (..., *pattern_shape)
            One row a query.
        exclude : array_like of int, shape (...), optional
            Of each query the position of one pattern that it does not see, or -1, as in `update`.

        Returns
        -------
        ndarray, shape (...)
            The energy of each query.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault; `separation` for Polynomial, which has no energy.

        See Also
        --------
        update : Make the step that lowers it.
        sparsehopfield.theory.energy_barriers : Compute how high the ridges between the minima are.

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.eye(3), beta=4.0).energy(np.eye(3))
        array([-0.5, -0.5, -0.5])
        """
        return self._call(queries, exclude).energy()

    def nearest(
        self, queries: ArrayLike, k: int = 1, *, exclude: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the k patterns with the best scores of each query, exactly.

        Parameters
        ----------
        queries : array_like, shape (..., d), or (..., *pattern_shape)
            One row a query.
        k : int, from 1 to 2**31 - 1
            How many patterns to find; it may be more than there are.
        exclude : array_like of int, shape (...), optional
            Of each query the position of one pattern that is not found, or -1, as in `update`; here it may be the only
            pattern.

        Returns
        -------
        positions : ndarray of int64, shape (..., k)
            From the best score down, ties by position; -1 where there are fewer patterns.
        scores : ndarray of float64, shape (..., k)
            As `similarity` says, without beta; -inf there. Under euclidean similarity the distance is
            `sqrt(-2 * scores)`. Under cosine similarity only patterns are scaled to length 1: cosines are scores over
            the queries' lengths.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault; `structure` if there is one other than `TopK`, which leaves the best scores.

        See Also
        --------
        certify : Find the best pattern, and whether a step goes there.
        sparsehopfield.structures.TopK : Mix the k best patterns.
        build_index : Build the index by which they are found.

        Notes
        -----
        Neither beta nor the separation matters, and all patterns are searched, as by a flat index of faiss; with an
        index where that pays, which changes no bit. Scores of float32 patterns are those of sums in float64, so that
        rounding cannot exchange patterns which differ in them.

        Examples
        --------
        >>> import numpy as np
        >>> memory = HopfieldMemory([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], similarity="euclidean")
        >>> positions, scores = memory.nearest([[0.0, 3.0]], 2)
        >>> positions, np.sqrt(-2 * scores)
        (array([[2, 0]]), array([[2., 3.]]))
        >>> memory.nearest(memory.patterns, exclude=[0, 1, 2])[0].ravel()
        array([2, 2, 0])
        """
        snapshot, structure = self._current()
        if not can_exclude(structure):
            raise ValueError(f"structure: nearest is for none and TopK, got {short(structure)}")
        number, best = as_whole("k", k, 1, 2**31 - 1), None
        if MOST_NEAREST < number < len(snapshot.pattern_set):
            from sparsehopfield.structures import TopK  # of few calls, not of every import

            best = TopK(number)
        model = sys.float_info.min, separation_code("softmax"), best
        sees_none = exclude is not None and len(snapshot.pattern_set) == 1  # where it excludes that one
        excluded = None if sees_none else exclude
        call = Call.prepare(snapshot.pattern_set, queries, *model, excluded, self._pattern_shape)
        positions, scores = call.nearest(number)
        if sees_none and exclude is not None:
            without = as_exclude(exclude, call.leading, 1, may_leave_none=True).reshape(call.leading) == 0
            positions[without], scores[without] = -1, -np.inf
        return positions, scores

    def candidates(self, queries: ArrayLike, *, offset: int = 0) -> Candidates:
        """Return the partial result of these patterns, for all pairs only; see `sparsehopfield.candidates`.

        Parameters
        ----------
        queries : array_like, shape (..., d), or (..., *pattern_shape)
            One row a query.
        offset : int, at least 0
            Position of the first of these patterns in the whole.

        Returns
        -------
        Candidates
            What `merge` needs of these patterns.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault; `structure` if there is one.

        See Also
        --------
        sparsehopfield.merge : Join the partial results.
        sparsehopfield.distributed.Coordinator : Do so over many machines.

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.eye(3), beta=4.0).candidates(np.eye(3)).position
        array([0, 1, 2])
        """
        return self._call(queries).candidates(offset)

    # --- the index, and what it makes cheap -----------------------------------------------------------

    def build_index(self, *, progress: Progress = False) -> None:
        """Build the index now; otherwise the call for which it pays does.

        Parameters
        ----------
        progress : bool or callable
            True shows a bar (tqdm); a function is called with how many patterns are done and how many there are.
            What it raises ends the call.

        Raises
        ------
        MemoryError
            If there is no room for it.
        TypeError
            Naming `progress`, if it is no bool and no function.
        ValueError
            If `index` is False.

        See Also
        --------
        save : Keep the index in a file.
        nearest : Find the best patterns, which the index makes cheap.

        Notes
        -----
        1. The index is a code of 8-bit numbers for every pattern: at most 12 % of the bytes of float32 patterns of 512
           features or more; 16 % with wider codes, made when queries are much unlike patterns; with a second index
           for patterns without structure 40 %. By it a retrieval with a map that has a cutoff, or of the k best, scores
           only the patterns that may have weight. Results are the same bits without it.
        2. Patterns that are added are coded when that pays; after `remove` the index stays, and is built anew only
           where rows are copied together. Patterns with extreme norms have none.
        3. Progress counts the patterns that have codes; before the first comes what is found out from a sample and the
           order of the patterns, about a third of the time.

        Examples
        --------
        >>> import numpy as np
        >>> memory = HopfieldMemory(np.random.default_rng(0).random((2000, 64), dtype=np.float32))
        >>> memory.build_index()
        >>> memory.index_nbytes / memory.nbytes < 0.35
        True
        """
        self._build_index(self._snapshot.pattern_set, progress)

    @staticmethod
    def _build_index(stored: PatternSet, progress: Progress = False) -> None:
        """Build the index of a pattern set of this memory in its own dtype."""
        if stored.index is False:
            raise ValueError("index: is False, so that calls scan; set memory.index to True or 'auto' first")
        with telling(progress, "build_index", 1, len(stored)) as passes:
            _core.build_index(stored.core(stored.dtype), passes.begin())

    @property
    def index_nbytes(self) -> int:
        """Return the bytes of the index, also where it is mapped from a file; 0 where there is none yet."""
        stored = self._snapshot.pattern_set
        return _core.index_nbytes(stored.core(stored.dtype))

    def margin(self, *, progress: Progress = False) -> NDArray[np.float64]:
        """Return how far each pattern stands out: its score with itself less the largest with another.

        Parameters
        ----------
        progress : bool or callable
            True shows a bar (tqdm); a function is called with how many patterns are done and how many there are.
            What it raises ends the call.

        Returns
        -------
        ndarray, shape (M,)
            Delta of the papers, in the order of `patterns`: for dot and euclidean similarity of the stored rows, for
            cosine of the unit rows. inf where there is no other pattern. 0 or below: another pattern scores as well,
            and no beta retrieves this one.

        Raises
        ------
        OverflowError
            If scores may exceed the largest float64.
        MemoryError
            If there is no room for the numbers.
        TypeError
            Naming `progress`, if it is no bool and no function.

        See Also
        --------
        critical_beta : Turn it into an inverse temperature, rounding included.
        sparsehopfield.theory.margin : Compute the same in NumPy, and read what the papers say of it.

        Notes
        -----
        Sparsemax stores a pattern exactly if its margin is at least 1/beta (Hu et al. 2023, definition 2.1 and theorem
        2.2; entmax: 1/(beta (alpha - 1))). The margins of M patterns cost what M queries do.

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.array([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]])).margin()
        array([-2., -1.,  3.])
        """
        certificates = self._snapshot.certificates
        with telling(progress, "margin", 1, len(certificates.pattern_set)) as passes:
            certificates.make_margins(passes.begin())
        return certificates.margins.copy()

    def _call(self, queries: ArrayLike, exclude: ArrayLike | None = None) -> Call:
        """Return the call of some queries under the memory's model."""
        snapshot, structure = self._current()
        model = self.beta, self._separation[1], structure
        return Call.prepare(snapshot.pattern_set, queries, *model, exclude, self._pattern_shape)

    # --- certificates ---------------------------------------------------------------------------------

    def _certifiable_snapshot(self) -> _CertifiableSnapshot:
        """Return the snapshot; raise if nothing can be certified under the structure."""
        snapshot, structure = self._current()
        if structure is not None:
            structure.refuse("certificates")
            structure.descriptor(1, len(snapshot.pattern_set))  # one that fits so many patterns
        return snapshot

    def _one_beta(self, beta: ArrayLike | None) -> float:
        """Return beta, by default the memory's, which must be one number."""
        return as_one_beta(self.beta if beta is None else beta)

    def critical_beta(self) -> NDArray[np.float64]:
        """Return the inverse temperature from which on each pattern is certified to be stored exactly.

        Returns
        -------
        ndarray, shape (M,)
            For sparsemax 1/margin, for entmax 1/((alpha - 1) margin), the margin lowered by what rounding may do to it:
            some d 1e-15 max |xi| |xi|, for cosine of float32 patterns 1e-6. inf where that leaves nothing, 0 where
            there is no other pattern.

        Raises
        ------
        ValueError
            If the separation gives weight to all patterns, and so stores none exactly; or if there is a structure
            other than `TopK`, under which the best of all patterns need not be scored.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        suggest_beta : Find the beta that certifies a share of the patterns.
        is_certified : Compare it with a beta.
        margin : Compute what it is made of.

        Notes
        -----
        1. Not in the paper, whose conditions (theorem 3.1) are stronger. From this beta on every other score is so far
           below the pattern's own that it has no weight: T(xi) is exactly xi, in float32 and in float64. For why this
           is not always necessary see `sparsehopfield.theory.is_certified`.
        2. Under `TopK(k)` this holds as it stands, and all other certificates do: what gets all weight is among the k
           best, and the result is the same to the bit. For k = 1, which gives the best pattern all weight at any beta,
           they are sufficient only: `exact_radius` is then no longer the largest.

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]])).critical_beta().round(6)
        array([1.      ,      inf, 0.083333])
        """
        return self._certifiable_snapshot().certificates.critical_betas(required_cutoff(self._separation[1]))

    def is_certified(self, beta: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return whether each pattern is certified to be stored: one step leaves it exactly as it is, to the bit.

        Parameters
        ----------
        beta : float, positive, optional
            The memory's by default.

        Returns
        -------
        ndarray of bool, shape (M,)
            `beta >= critical_beta()`.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault; `separation` and `structure` as in `critical_beta`.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        is_fixed_point : Make the step, which finds copies and interior points besides.
        certify : Certify queries in place of patterns.
        exact_radius : Compute from how far each is retrieved.

        Notes
        -----
        Sufficient: at a margin of 1/beta sparsemax gives all weight to the pattern (Hu et al. 2023, eq. (2.3)). Not
        necessary for copies, interior points and margins within rounding of 1/beta; `is_fixed_point` applies T.
        With cosine similarity it is the unit rows that are stored.

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.array([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]]), beta=1.0).is_certified()
        array([False, False,  True])
        """
        return self._one_beta(beta) >= self.critical_beta()

    def is_fixed_point(self, beta: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return whether a step leaves each pattern where it is, by making the step.

        Parameters
        ----------
        beta : float, positive, optional
            The memory's by default.

        Returns
        -------
        ndarray of bool, shape (M,)
            Moved by at most 4 units of rounding (of `dtype`) of max |xi|, which `retrieve` takes for rest. True
            wherever `is_certified` is, and for some copies and interior points besides.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault; `separation` as in `critical_beta`, `structure` if it is one of features.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        is_certified : Prove it by margins.
        sparsehopfield.theory.stationary_states : Find all fixed points, mixtures of patterns among them.

        Notes
        -----
        1. Costs what M queries do, each time. Of -1, 0, 1 the pattern 0 has margin 0, so no beta certifies it, but the
           others cancel around it.
        2. Under a structure pattern i is query i of M.

        Examples
        --------
        >>> import numpy as np
        >>> memory = HopfieldMemory(np.array([[-1.0], [0.0], [1.0]]), beta=0.5)
        >>> memory.is_fixed_point()
        array([False,  True, False])
        >>> memory.is_certified()
        array([False, False, False])
        """
        snapshot, structure = self._current()
        if structure is not None:
            structure.refuse("fixed points")
        code = self._separation[1]
        required_cutoff(code)  # without one nothing is stored, whatever rounding makes of it
        return snapshot.certificates.are_fixed(code, np.array([self._one_beta(beta)]), structure)

    def stored_fraction(self, betas: ArrayLike | None = None) -> Any:
        """Return which share of the patterns is certified, at each of some inverse temperatures.

        Parameters
        ----------
        betas : array_like, positive, optional
            `beta * numpy.geomspace(0.01, 100, 9)` by default.

        Returns
        -------
        ndarray, shape of betas
            The shares, from 0 to 1.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault; `separation` and `structure` as in `critical_beta`.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        suggest_beta : Find the beta of a share.
        capacity : Compare with how many random patterns would be stored.

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]])).stored_fraction([0.05, 0.5, 5.0]).round(3)
        array([0.   , 0.333, 0.667])
        """
        if betas is None:
            with ignoring_float_errors():
                grid = np.minimum(self._one_beta(None) * np.geomspace(0.01, 100, 9), np.finfo(np.float64).max)
        else:
            grid = as_numbers("betas", betas)
        if not ((grid > 0) & (grid < np.inf)).all():
            raise ValueError(f"betas: must be positive and finite, got {grid[~((grid > 0) & (grid < np.inf))].flat[0]}")
        critical = np.sort(self.critical_beta())
        return np.searchsorted(critical, grid.astype(np.float64), side="right") / len(critical)

    def suggest_beta(self, stored: float = 0.99) -> float:
        """Return the smallest inverse temperature that certifies a share of the patterns.

        Parameters
        ----------
        stored : float, above 0, at most 1
            Which share of the patterns is to be certified.

        Returns
        -------
        float
            `stored_fraction(beta)` is at least `stored` there, and below it at any smaller beta. The smallest normal
            float64 if any beta does, as for one pattern.

        Raises
        ------
        ValueError
            If no beta certifies so many, as the margins of others are not positive: the message says how many can be,
            and at which beta; `separation` and `structure` as in `critical_beta`.
        TypeError
            Naming `stored`, if it is no number.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        stored_fraction : Compute the share at a beta.
        sparsehopfield.suggestion.storing_beta : Leave out the patterns that no beta stores.
        sparsehopfield.suggest : Choose the other settings, too.

        Notes
        -----
        With dot similarity a pattern that a longer one outranks has no positive margin; with euclidean similarity only
        copies have none.

        Examples
        --------
        >>> import numpy as np
        >>> memory = HopfieldMemory(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]]))
        >>> round(memory.suggest_beta(0.6), 6)
        1.0
        >>> memory.suggest_beta(0.9)
        Traceback (most recent call last):
            ...
        ValueError: stored: no beta certifies 0.9 of the patterns; the most is 0.666667, from beta = 1 on, as the
        margins of the others are not positive; similarity 'euclidean' may store them
        """
        share = as_number("stored", stored, least=0.0)
        if not 0 < share <= 1:
            raise ValueError(f"stored: must be above 0 and at most 1, got {stored}")
        critical = np.sort(self.critical_beta())
        beta = beta_of_share(critical, share)
        if beta < np.inf:
            return beta
        finite = critical[critical < np.inf]
        most = "none can be"
        if len(finite):
            most = f"the most is {len(finite) / len(critical):.6g}, from beta = {finite[-1]:.6g} on"
        hint = "; similarity 'euclidean' may store them" if self.similarity == "dot" else ""
        raise ValueError(
            f"stored: no beta certifies {share:g} of the patterns; {most}, as the margins of the others are not "
            f"positive{hint}"
        )

    def certify(self, queries: ArrayLike, beta: ArrayLike | None = None) -> Certified:
        """Return the pattern that each query provably goes to in one step, if there is one.

        Parameters
        ----------
        queries : array_like, shape (..., d), or (..., *pattern_shape)
            One row a query.
        beta : float or array_like, positive, optional
            The memory's by default; an array broadcasts to the queries' leading axes.

        Returns
        -------
        Certified
            `index`, the position of the pattern or -1; and what decides it: `nearest`, `gap` and what it `lacks`.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault; `separation` and `structure` as in `critical_beta`.

        See Also
        --------
        sparsehopfield.inspect.certificates.Certified : What is returned.
        is_certified : Certify the patterns themselves.
        exact_radius : Compute from how far each pattern is certified.

        Notes
        -----
        A query is certified if its best score beats the second by 1/beta (entmax: 1/(beta (alpha - 1))): the condition
        of Hu et al. 2023, eq. (3.2), in the sharp form of `sparsehopfield.theory.well_separated`. `update` then returns
        the pattern (cosine: its unit row), or its values, to the bit. Costs a search for the two best of each query.

        Examples
        --------
        >>> import numpy as np
        >>> found = HopfieldMemory(np.eye(3), beta=2.0).certify([[0.9, 0.2, 0.0], [0.6, 0.4, 0.0]])
        >>> found.index, found.lacks.round(6)
        (array([ 0, -1]), array([0. , 0.3]))
        """
        certificates = self._certifiable_snapshot().certificates
        model = self.beta if beta is None else beta, self._separation[1]
        call = Call.prepare(certificates.pattern_set, queries, *model, pattern_shape=self._pattern_shape)
        return certificates.certify(call, required_cutoff(call.code))

    def exact_radius(self, beta: ArrayLike | None = None, *, progress: Progress = False) -> NDArray[np.float64]:
        """Return how far a query may be from each pattern and still go to exactly this pattern in one step.

        Parameters
        ----------
        beta : float, positive, optional
            The memory's by default.
        progress : bool or callable
            True shows a bar (tqdm); a function is called with how many patterns are done and how many there are in all
            passes over them.
            What it raises ends the call.

        Returns
        -------
        ndarray, shape (M,)
            Of the largest ball (cosine: around the unit row) less what rounding may do. -inf where not even the pattern
            alone is certified; inf where there is no other pattern.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault; `separation` and `structure` as in `critical_beta`.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        certify : Certify queries at hand.
        is_certified : Certify the patterns themselves.
        sparsehopfield.theory.exact_radius : Read why it is exact.

        Notes
        -----
        The least (gap to nu at xi - 1/beta) / |xi - xi_nu| over the other patterns nu (entmax:
        1/(beta (alpha - 1))); for why it is exact see `sparsehopfield.theory.exact_radius`, which counts copies, too:
        here they have no ball, as their weights of 1/k are rounded. Euclidean and cosine: D/2 - 1/(beta D) with D the
        distance to the nearest pattern, which the margins tell. Dot: a search of its own, by an index where that pays;
        at most one matrix product of the certified patterns with all, and a pass over it.

        Examples
        --------
        >>> import numpy as np
        >>> HopfieldMemory(np.array([[2.0, 0.0], [0.0, 2.0]]), beta=4.0).exact_radius().round(6)
        array([1.325825, 1.325825])
        """
        b, cutoff = self._one_beta(beta), required_cutoff(self._separation[1])
        certificates = self._certifiable_snapshot().certificates
        with telling(progress, "exact_radius", 2, len(certificates.pattern_set)) as passes:
            certificates.make_margins(passes.begin())
            return certificates.radii(cutoff, b, passes.begin())

    def capacity(self, p: float = 0.1, beta: ArrayLike | None = None) -> Capacity:
        """Count the patterns that are stored, beside how many random ones with the same spread would be.

        Parameters
        ----------
        p : float, between 0 and 1
            Probability that any of the random patterns is not stored.
        beta : float, positive, optional
            The memory's by default.

        Returns
        -------
        Capacity
            Both numbers, and what they rest on.

        Raises
        ------
        ValueError, TypeError, OverflowError
            Naming the argument at fault; `patterns` if they are all the same; `separation` and `structure` as in
            `critical_beta`.

        See Also
        --------
        stored_fraction : Compute the share that is stored, at many betas.
        sparsehopfield.theory.exact_capacity : Compute the capacity of a dimension and a radius.
        sparsehopfield.inspect.certificates.Capacity : What is returned.

        Notes
        -----
        `sparsehopfield.theory.exact_capacity`, which has the proof, of points drawn uniformly from a sphere: it takes
        the place of lemma 3.1 of Hu et al. 2023. Its radius is the root mean square distance of these patterns from
        their mean, its dimension the participation ratio of their covariance's eigenvalues, rounded and at least 2.
        So it is what patterns without clusters would reach, and no certificate for these; for entmax beta counts
        alpha - 1 times. Costs M d^2.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.random.default_rng(0).standard_normal((200, 32))
        >>> capacity = HopfieldMemory(X, beta=1.0, similarity="euclidean").capacity()
        >>> capacity.certified, capacity.M > 1000
        (200, True)
        """
        b = self._one_beta(beta)
        return self._certifiable_snapshot().certificates.capacity(required_cutoff(self._separation[1]), b, p)

    def duplicates(self, within: float = 0.0, *, most: int = 1_000_000, progress: Progress = False) -> Duplicates:
        """Find the patterns that are copies or near-copies of others.

        Parameters
        ----------
        within : float, at least 0
            How far apart two rows may be, in the units of the patterns; for cosine similarity of the unit rows, at most
            2. 0 finds exact copies.
        most : int, at least 1
            How many pairs to find at most: k copies of one pattern are k (k - 1)/2 pairs.
        progress : bool or callable
            True shows a bar (tqdm); a function is called with how many patterns are done and how many there are in all
            passes over them.
            What it raises ends the call.

        Returns
        -------
        Duplicates
            Pairs, distances, and the groups that they link; prints as a small table.

        Raises
        ------
        ValueError
            If `within` is negative or not finite, `most` below 1, or there are more pairs than that.
        TypeError
            Naming the argument at fault.
        OverflowError, MemoryError
            As `margin`.

        See Also
        --------
        remove : Remove them.
        margin : Compute how far each pattern is from the others.
        sparsehopfield.inspect.certificates.Duplicates : What is returned.

        Notes
        -----
        Exact: every pair found is decided by its distance in float64, from the difference of the rows, and none is
        missed. Exact copies cost one pass. Near ones cost `margin` (euclidean), by which only patterns with a neighbour
        that near are searched for theirs, with the scan of a retrieval: among rows at distance D from a pattern scores
        are D^2/2 below its own. No M x M matrix exists.

        Examples
        --------
        >>> import numpy as np
        >>> memory = HopfieldMemory(np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 0.5]]))
        >>> print(memory.duplicates(0.5))
        3 pairs of patterns within 0.5 of each other: 3 of 4 patterns, in 1 group of at most 3
        <BLANKLINE>
        pattern  and  distance
              0    2         0
              0    3       0.5
              2    3       0.5
        >>> memory.remove(np.concatenate([group[1:] for group in memory.duplicates().groups]))  # all but the first
        >>> len(memory)
        3
        """
        near, limit = as_number("within", within, least=0.0), as_whole("most", most, 1)
        snapshot = self._snapshot
        with telling(progress, "duplicates", DUPLICATE_PASSES if near else 1, len(snapshot.pattern_set)) as passes:
            found = snapshot.certificates.duplicates(near, limit, passes)
        return found if snapshot.given_ids is None else replace(found, ids=snapshot.all_ids[found.pairs])

    # --- for people -------------------------------------------------------------------------------

    def explain(self, query: ArrayLike, *, top: int = 10) -> "Explanation":
        """Explain a query's result: which patterns carry the weight, and what the others lacked.

        Parameters
        ----------
        query : array_like, shape (d,), or pattern_shape
            One query.
        top : int, at least 1
            How many patterns to list, the heaviest first.

        Returns
        -------
        Explanation
            Prints as a small table; `plot()` draws it.

        Raises
        ------
        ValueError
            If there is more than one query, or `top` is below 1; if the structure is one of features, or shows the
            query no pattern.

        See Also
        --------
        sparsehopfield.inspect.explain.Explanation : What is returned.
        associate : Compute the weights of many queries.
        report : Report on the whole memory.

        Notes
        -----
        Under a structure the query is the only one of its call, and all numbers are of the patterns that it sees.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.array([[2.0, 0.0], [1.5, 1.0], [0.0, 1.0]])
        >>> why = HopfieldMemory(X, beta=1.0, ids=[10, 11, 12]).explain([1.0, 0.0])
        >>> print(why)
        sparsemax, beta 1: 2 of 3 patterns have weight
        <BLANKLINE>
        position  id  score  gap  weight
               0  10      2    0    0.75
               1  11    1.5  0.5    0.25
        <BLANKLINE>
        no weight at scores up to 1.25
        best without weight: position 2, id 12, score 0, gap 2; it lacked 1.25
        energy -1.5625
        <BLANKLINE>
          stage  left  excluded
         stored     3...
        support     2...
        >>> why.miss.margin
        1.25
        """
        from sparsehopfield.inspect.explain import explain  # of people's time, not of every import

        snapshot, structure = self._current()
        model = self.beta, self.separation, structure
        return explain(snapshot.pattern_set, snapshot.all_ids, query, *model, top, self._pattern_shape)

    def report(self, beta: ArrayLike | None = None, *, progress: Progress = False) -> "Report":
        """Report on one page what the memory stores, under its own similarity and under dot and euclidean.

        Parameters
        ----------
        beta : float, positive, optional
            The memory's by default.
        progress : bool or callable
            True shows a bar (tqdm); a function is called with how many patterns are done and how many there are in all
            passes over them.
            What it raises ends the call.

        Returns
        -------
        Report
            Prints as text. `figure()` draws it, with `pattern_shape` or `figure(shape)` the hardest pairs as images.
            "Certified" is what
            `is_certified` says: each such pattern is retrieved exactly from itself in one step, and from all queries
            within its `exact_radius`.

        Raises
        ------
        ValueError, TypeError, OverflowError, MemoryError
            Naming the argument at fault; `separation` and `structure` as in `critical_beta`.

        See Also
        --------
        sparsehopfield.inspect.report.Report : What is returned.
        explain : Explain one query's result.
        duplicates : List all near-copies.

        Notes
        -----
        Costs the margins under two or three similarities, `exact_radius` and `capacity`. Of the smallest margins it
        names the patterns and their rivals; `duplicates` lists all pairs of near-copies.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.array([[3.0, 0.0], [0.0, 3.0], [2.0, 0.0], [-2.0, -2.0]])
        >>> print(HopfieldMemory(X, beta=2.5).report())
        HopfieldMemory(4 patterns of 2 features, float64, beta=2.5, similarity='dot', separation='sparsemax')
        <BLANKLINE>
        at beta 2.5
        dot: 3 of 4 patterns (75.0%) are certified to be stored
        euclidean: 4 of 4 patterns (100.0%) are certified to be stored
        ...
        without a margin under dot, so that no beta certifies them: 1
        within rounding of another: 0
        ...
        """
        from sparsehopfield.inspect.report import passes_of, report

        snapshot = self._certifiable_snapshot()
        cutoff = required_cutoff(self._separation[1])
        b = self._one_beta(beta)
        model = repr(self), self.separation, cutoff, b
        count = passes_of(self.similarity)
        with telling(progress, "report", count, len(snapshot.pattern_set)) as passes:
            return report(snapshot.certificates, snapshot.given_ids, *model, self._pattern_shape, passes=passes)


def _read_only(a: Array) -> Array:
    """Return a view of an array that cannot be written to."""
    view = a.view()
    view.flags.writeable = False
    return view


def _rebuild(patterns: Array, beta: ArrayLike, options: dict[str, Any]) -> HopfieldMemory:
    """Make a memory anew where it is unpickled."""
    return HopfieldMemory(patterns, beta, **options)
