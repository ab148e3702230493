"""Memories in files: safetensors with a header that is checked before anything is believed.

A file holds the tensors `patterns`, and `values`, `ids` and `index_codes` where there are any, and in `__metadata__`
the strings

| field | meaning |
|---|---|
| format, version | "sparsehopfield.memory", "1"; "2" with `index_codes`, "3" with `pattern_shape`: for readers that |
| | know neither |
| similarity | its name |
| separation | its name, and its parameter where it has one: "entmax", "normmax" and alpha, "polynomial" and order |
| structure | where it is not all pairs: what `structure.described` says of it, in JSON |
| index | where it is not "auto": "true" or "false" |
| pattern_shape | in version 3: the sides of a pattern, a list in JSON |
| beta, scale | numbers in hexadecimal, so that every bit is kept |
| data | SHA-256 of all bytes behind the header |
| header | SHA-256 of the fields above and of the tensors' names, dtypes and shapes in their order |

Sizes are the tensors' shapes. Tensors lie by the size of their numbers, from a multiple of 64 bytes on, so that all
are aligned in a map; the index, whose length is a multiple of 64, lies before them. It has a version and a checksum of
its own, which the core looks at (csrc/retrieval/index/file.c): a wrong one makes no file damaged, unless verified.

Files are read with the safetensors package, which does not trust them: it finds a header that is no JSON, tensors that
overlap, leave holes, or do not end where the file does. They are written here, because that package needs rows without
gaps, cannot be interrupted, and orders the metadata by chance; the tests read them with it.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield import _core
from sparsehopfield._engine.atomic_files import as_path, atomic_write, open_regular
from sparsehopfield._engine.checks import Array, as_pattern_shape
from sparsehopfield._engine.pattern_set import IndexUse
from sparsehopfield._engine.separations import FAMILIES, SEPARATIONS, SeparationMap
from sparsehopfield._engine.structure import Structure, described, parsed, restored
from sparsehopfield._engine.text import short
from sparsehopfield.errors import FileFormatError

__all__ = [
    "INDEX",
    "Model",
    "check_header",
    "read",
    "read_header",
    "read_model",
    "read_tensors",
    "write",
    "write_tensors",
]

Meaning = TypeVar("Meaning")
Number = TypeVar("Number", int, float)

VERSION, WITH_INDEX, WITH_SHAPE = VERSIONS = "1", "2", "3"
INDEX = "index_codes"  # the tensor that is an index
FIELDS = {"format", "version", "similarity", "separation", "beta", "scale", "data", "header"}
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "U8": "u1"}  # of patterns and values, as safetensors names them
DTYPE_NAMES = {np.dtype(d): name for name, d in DTYPES.items()} | {np.dtype("<i8"): "I64"}
OPTIONAL = {"structure", "index", "pattern_shape"}
HEADER_LIMIT = 1024 * 1024  # ours have about 1,000 bytes, and the lists of a structure
SLICE = 16 * 1024 * 1024  # bytes read or written at a time
SYNCED = 8 * SLICE  # bytes written before the disk must have them
ALIGNMENT = 64


@dataclass(frozen=True)
class Model:
    """What a file holds beside its tensors."""

    similarity: str
    separation: str | SeparationMap
    beta: ArrayLike
    scale: float
    structure: Structure | None = None
    index: IndexUse = "auto"
    pattern_shape: tuple[int, ...] | None = None


# --- the header -----------------------------------------------------------------------------------------

Tensors = list[tuple[str, str, tuple[int, ...]]]  # name, dtype, shape; in the order of the file


def _header_checksum(fields: dict[str, str], tensors: Tensors) -> str:
    """Return the SHA-256 of the other fields and of the tensors' names, dtypes and shapes."""
    hashed = {name: text for name, text in fields.items() if name != "header"}
    return hashlib.sha256(json.dumps([hashed, tensors], sort_keys=True).encode()).hexdigest()


def _header(fields: dict[str, str], arrays: dict[str, Array]) -> bytes:
    """Return the header of a file, with its length before it."""
    tensors = [(name, DTYPE_NAMES[a.dtype], a.shape) for name, a in arrays.items()]
    header: dict[str, Any] = {"__metadata__": {**fields, "header": _header_checksum(fields, tensors)}}
    start = 0
    for name, dtype, shape in tensors:
        end = start + arrays[name].nbytes
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > HEADER_LIMIT:  # only a structure's lists can make it so long
        raise ValueError(
            f"structure: its lists make a header of {len(text)} bytes, and a file's has room for {HEADER_LIMIT}; save "
            "without it, and set it again after loading"
        )
    return len(text).to_bytes(8, "little") + text


def _fields_of(model: Model) -> dict[str, str]:
    """Return the fields of a header that hold a model."""
    if np.ndim(model.beta) != 0:
        raise ValueError("beta: a file holds one number, not one per query; set `beta` to a number before saving")
    separation = model.separation
    if isinstance(separation, SeparationMap):
        value = separation.value
        separation = f"{separation.row.name} {value.hex() if isinstance(value, float) else value}"
    structure = described(model.structure)
    return {
        "format": "sparsehopfield.memory",
        "version": VERSION if model.pattern_shape is None else WITH_SHAPE,
        "similarity": model.similarity,
        "separation": separation,
        "beta": float(np.asarray(model.beta)).hex(),
        "scale": model.scale.hex(),
        **({} if structure is None else {"structure": json.dumps(structure)}),
        **({} if model.index == "auto" else {"index": json.dumps(model.index)}),
        **({} if model.pattern_shape is None else {"pattern_shape": json.dumps(model.pattern_shape)}),
    }


def _parse_number(name: str, text: str, read: Callable[[str], Number]) -> Number:
    """Return the number in the text of a field, by `read`; errors begin with the field's name."""
    try:
        return read(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: no number that can be read: {short(text)}") from None


def _model_of(fields: dict[str, str]) -> Model:
    """Return the model that the fields of a header hold."""
    name, _, parameter = fields["separation"].partition(" ")
    separation: str | SeparationMap = fields["separation"]
    if (family := FAMILIES.get(name)) and (range_ := family.row.parameter):
        separation = family(_parse_number("separation", parameter, int if range_.whole else float.fromhex))
    elif name not in SEPARATIONS or parameter:
        raise ValueError(f"separation: unknown {fields['separation']!r}")
    try:
        structure = restored(parsed(fields.get("structure", "null")))
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith("structure: ") else f"structure: no description: {text}") from None
    beta, scale = (_parse_number(name, fields[name], float.fromhex) for name in ("beta", "scale"))
    uses: dict[str, bool | str] = {"auto": "auto", "true": True, "false": False}
    if (use := fields.get("index", "auto")) not in uses:
        raise ValueError(f"index: unknown {use!r}")
    try:
        sides = parsed(fields.get("pattern_shape", "null"))
        pattern_shape = as_pattern_shape(sides)
        if pattern_shape is None and "pattern_shape" in fields:
            raise ValueError("is missing")
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"pattern_shape: {str(error).removeprefix('pattern_shape: ')}") from None
    return Model(fields["similarity"], separation, beta, scale, structure, uses[use], pattern_shape)


# --- writing --------------------------------------------------------------------------------------------


def _slices(a: Array) -> Iterator[memoryview]:
    """Yield the bytes of an array, some rows at a time, so that no second copy of it is made."""
    step = max(1, SLICE // (a.nbytes // len(a)))
    for i in range(0, len(a), step):
        part = np.ascontiguousarray(a[i : i + step], dtype=a.dtype.newbyteorder("<"))
        yield part.reshape(-1).view(np.uint8).data


def write(path: str | os.PathLike[str], model: Model, arrays: dict[str, Array]) -> None:
    """Write a file as a whole or not at all; arrays: "patterns", and "values", "ids", `INDEX` where there are any."""
    fields = _fields_of(model)
    if INDEX in arrays and fields["version"] == VERSION:
        fields["version"] = WITH_INDEX
    write_tensors(path, fields, arrays)


def write_tensors(path: str | os.PathLike[str], fields: dict[str, str], arrays: dict[str, Array]) -> None:
    """Write fields, and arrays of at least one axis and one element, as a whole or not at all."""
    arrays = dict(sorted(arrays.items(), key=lambda item: (item[0] != INDEX, -item[1].itemsize)))
    data = hashlib.sha256()
    with atomic_write(path) as file:
        file.write(_header(fields | {"data": data.hexdigest()}, arrays))  # as long as it will be
        unsynced = 0
        for a in arrays.values():
            for part in _slices(a):
                data.update(part)
                file.write(part)
                unsynced += len(part)
                if unsynced >= SYNCED:  # so that the disk is never behind by so much that Ctrl-C waits for it
                    os.fsync(file.fileno())
                    unsynced = 0
        file.seek(0)
        file.write(_header(fields | {"data": data.hexdigest()}, arrays))


# --- reading --------------------------------------------------------------------------------------------


def read_header(path: str, file: BinaryIO) -> tuple[int, dict[str, str], Tensors]:
    """Return the offset of the data, the fields and the tensors, as the safetensors package reads them."""
    from safetensors import SafetensorError, safe_open  # only for files

    start, size = file.read(8), os.fstat(file.fileno()).st_size
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise FileFormatError(f"{path}: is cut, or no safetensors file: {size} bytes cannot hold its header")
    if length > HEADER_LIMIT:
        raise FileFormatError(f"{path}: holds no memory: its header has {length} bytes, more than {HEADER_LIMIT}")
    try:
        with safe_open(path, framework="np") as tensors_file:
            fields = dict(tensors_file.metadata() or {})
            slices = [(name, tensors_file.get_slice(name)) for name in tensors_file.offset_keys()]
            tensors = [(name, str(s.get_dtype()), tuple(s.get_shape())) for name, s in slices]
    except SafetensorError as error:
        raise FileFormatError(f"{path}: is cut, damaged, or no safetensors file: {error}") from None
    return 8 + length, fields, tensors


def check_header(
    path: str,
    fields: dict[str, str],
    tensors: Tensors,
    *,
    kind: str,
    versions: Collection[str],
    names: set[str],
    optional: Collection[str] = (),
) -> None:
    """Raise FileFormatError unless the header is whole, and that of a file of this kind with these fields."""
    if fields.get("format") != f"sparsehopfield.{kind}":
        raise FileFormatError(
            f"{path}: holds no {kind}: its format is {fields.get('format')!r}, not 'sparsehopfield.{kind}'"
        )
    if fields.get("version") not in versions:
        known = " and ".join(repr(version) for version in versions)
        raise FileFormatError(
            f"{path}: has version {fields.get('version')!r} of the format; this package reads {known}"
        )
    if set(fields).difference(optional) != names or fields["header"] != _header_checksum(fields, tensors):
        raise FileFormatError(f"{path}: is damaged: the header does not have its checksum")


def _checked_model(path: str, fields: dict[str, str], tensors: Tensors) -> Model:
    """Return the model of a memory's file; raise FileFormatError unless its header is whole and that of a memory."""

    def format_error(what: str) -> FileFormatError:
        return FileFormatError(f"{path}: {what}")

    check_header(path, fields, tensors, kind="memory", versions=VERSIONS, names=FIELDS, optional=OPTIONAL)
    if ("pattern_shape" in fields) != (fields["version"] == WITH_SHAPE):
        raise format_error(f"pattern_shape: belongs to version {WITH_SHAPE!r}, and to no other")
    shapes = {name: shape for name, _, shape in tensors}
    needed = {"patterns"} | ({INDEX} if fields["version"] == WITH_INDEX else set())
    others = {"values", "ids"} | ({INDEX} if fields["version"] == WITH_SHAPE else set())
    if not needed <= shapes.keys() <= needed | others:
        raise format_error(
            f"must hold {' and '.join(sorted(needed))}, and may hold values and ids; has {sorted(shapes)}"
        )
    for name, dtype, shape in tensors:
        if name == INDEX:
            if dtype != "U8" or len(shape) != 1 or shape[0] < 1:
                raise format_error(f"{name}: cannot be {dtype} of shape {shape}")
            continue
        if (dtype != "I64") if name == "ids" else (dtype not in DTYPES):
            raise format_error(f"{name}: cannot be {dtype}")
        if len(shape) != (1 if name == "ids" else 2) or min(shape) < 1 or shape[:1] != shapes["patterns"][:1]:
            raise format_error(f"{name}: cannot have shape {shape} for {shapes['patterns'][:1]} patterns")
    try:
        model = _model_of(fields)
    except (ValueError, OverflowError) as error:
        raise format_error(str(error)) from None
    if model.pattern_shape is not None and math.prod(model.pattern_shape) != shapes["patterns"][1]:
        raise format_error(f"pattern_shape: {model.pattern_shape} is not that of {shapes['patterns'][1]} features")
    return model


def read_model(path: str | os.PathLike[str]) -> Model:
    """Return the model of a memory's file, of which no more than the header is read."""
    path = as_path(path)
    with open_regular(path) as file:
        _, fields, tensors = read_header(path, file)
    return _checked_model(path, fields, tensors)


def _read_into(path: str, file: BinaryIO, offset: int, data: memoryview) -> None:
    """Fill `data` with the bytes of a file from an offset on."""
    file.seek(offset)
    for i in range(0, len(data), SLICE):
        if file.readinto(data[i : i + SLICE]) != len(data[i : i + SLICE]):  # type: ignore[attr-defined]
            raise FileFormatError(f"{path}: was cut while it was read")


def _data_checksum(path: str, file: BinaryIO, start: int, end: int) -> str:
    """Return the SHA-256 of the bytes from start to end."""
    data, buffer = hashlib.sha256(), memoryview(bytearray(min(SLICE, end - start)))
    for i in range(start, end, SLICE):
        part = buffer[: end - i]
        _read_into(path, file, i, part)
        data.update(part)
    return data.hexdigest()


def read(
    path: str | os.PathLike[str], *, mmap: bool, verify: bool, index: IndexUse | None = None
) -> tuple[Model, dict[str, Array]]:
    """Read a memory's file, its model and its arrays: "patterns", and "values", "ids" and `INDEX` where there are any.

    mmap: all but ids are mapped, not read. verify: the data are compared with their checksum. index: another use of it
    than the file's; one that is not wanted, or too large to be built by itself, is not read. Nothing is allocated or
    mapped before all of the header is checked.
    """

    def wanted(model: Model, name: str, nbytes: int) -> bool:
        use = model.index if index is None else index
        return name != INDEX or use is True or (use == "auto" and (mmap or _core.index_fits(nbytes)))

    return read_tensors(path, _checked_model, mmap=mmap, verify=verify, wanted=wanted)


def _aligned(nbytes: int) -> Array:
    """Return an array of bytes, (nbytes,), that begins as `INDEX` must: at a multiple of `ALIGNMENT`."""
    whole = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + nbytes]


def read_tensors(
    path: str | os.PathLike[str],
    interpret: Callable[[str, dict[str, str], Tensors], Meaning],
    *,
    mmap: bool,
    verify: bool,
    wanted: Callable[[Meaning, str, int], bool] = lambda meaning, name, nbytes: True,
) -> tuple[Meaning, dict[str, Array]]:
    """Return what `interpret` makes of path, fields and tensors, and the arrays that are wanted, by name and bytes.

    `ids` are never mapped.
    """
    path = as_path(path)
    while True:
        with open_regular(path) as file:
            data_start, fields, tensors = read_header(path, file)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                continue  # replaced after we opened it, before the package did: read the new one
            meaning = interpret(path, fields, tensors)
            layout, end = [], data_start
            for name, dtype, shape in tensors:
                dtype_in_file = np.dtype("<i8" if name == "ids" else DTYPES[dtype])
                if end % dtype_in_file.itemsize:
                    raise FileFormatError(f"{path}: {name}: {dtype} numbers must be aligned in the file")
                layout.append((name, dtype_in_file, shape, end))
                end += math.prod(shape) * dtype_in_file.itemsize
            if end != os.fstat(file.fileno()).st_size:
                raise FileFormatError(f"{path}: is cut: has {os.fstat(file.fileno()).st_size} bytes, needs {end}")
            if verify and _data_checksum(path, file, data_start, end) != fields["data"]:
                raise FileFormatError(f"{path}: is damaged: the data does not have its checksum")
            arrays: dict[str, Array] = {}
            for name, dtype_in_file, shape, start in layout:
                if not wanted(meaning, name, math.prod(shape) * dtype_in_file.itemsize):
                    continue
                if mmap and name != "ids" and (name != INDEX or start % ALIGNMENT == 0):
                    mapped = np.memmap(file, dtype_in_file, "r", start, shape)
                    arrays[name] = mapped.view(np.ndarray)
                    continue
                arrays[name] = _aligned(shape[0]) if name == INDEX else np.empty(shape, dtype_in_file)
                _read_into(path, file, start, arrays[name].reshape(-1).view(np.uint8).data)
            return meaning, arrays
