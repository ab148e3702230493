"""Sharded memories in folders: a file of HopfieldMemory's for each shard, written by its worker, and a manifest.

The manifest, `manifest.json`, names the files in their order. A save writes files of new names first, each as a whole,
then puts the new manifest in the place of the old one in one step, and only then removes files that no manifest names:
whenever it is stopped, the folder holds the old memory or the new one. The manifest has

| field | meaning |
|---|---|
| format, version | "sparsehopfield.sharded", "1" |
| patterns, columns | the shape of the whole, (M, d) |
| files | of each file in order: its name, its patterns, and the checksum of its header, which covers its data's |
| checksum | SHA-256 of the fields above, in JSON with sorted keys and no spaces |

The model (similarity, separation, beta, scale, structure, index) is in every file, and is the same in all.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from sparsehopfield._engine import files
from sparsehopfield._engine.atomic_files import as_path, atomic_write, open_regular
from sparsehopfield._engine.checks import Array
from sparsehopfield._engine.text import short
from sparsehopfield.errors import FileFormatError

__all__ = [
    "MANIFEST",
    "Manifest",
    "ShardFile",
    "discard",
    "read_manifest",
    "read_model",
    "write_manifest",
    "write_shard",
]

MANIFEST = "manifest.json"
FORMAT, VERSION = "sparsehopfield.sharded", "1"
LONGEST = 64 * 1024 * 1024  # bytes of a manifest: of half a million files
#: Names of shards' files: the shard, and the save that wrote it.
NAME = re.compile(r"shard-\d{5,}-[0-9a-f]{16}\.safetensors")


@dataclass(frozen=True)
class ShardFile:
    """A file of a manifest: its name in the folder, its patterns, and the checksum of its header."""

    name: str
    patterns: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """The contents of a folder: the shape of the whole, and its files in order."""

    patterns: int
    columns: int
    files: tuple[ShardFile, ...]


def name_of(shard: int, save: str) -> str:
    """Return the name of a shard's file; `save`: 16 hexadecimal digits, other ones of every save."""
    return f"shard-{shard:05d}-{save}.safetensors"


def write_shard(folder: str, name: str, model: files.Model, arrays: dict[str, Array]) -> ShardFile:
    """Write the file of a shard, in its worker, and return what the manifest says of it."""
    path = os.path.join(folder, name)
    files.write(path, model, arrays)
    return ShardFile(name, len(arrays["patterns"]), _header_checksum(path))


def _header_checksum(path: str) -> str:
    """Return the checksum in the header of a memory's file, which covers that of the data."""
    with open_regular(path) as file:
        _, fields, _ = files.read_header(path, file)
    return fields.get("header", "")


def _checksum(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of the fields of a manifest other than its checksum."""
    covered = {name: value for name, value in fields.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Write the manifest, once all files that it names are there; raise if this process does not see one of them."""
    for file in manifest.files:
        path = os.path.join(folder, file.name)
        if not os.path.isfile(path) or _header_checksum(path) != file.checksum:
            raise ValueError(
                f"folder: {path}, which a worker wrote, is not here; it must be a folder that all workers and this "
                "process share"
            )
    fields = {"format": FORMAT, "version": VERSION, **asdict(manifest)}
    with atomic_write(os.path.join(folder, MANIFEST)) as target:
        target.write(json.dumps(fields | {"checksum": _checksum(fields)}, indent=1).encode())


def read_manifest(folder: Any) -> tuple[str, Manifest]:
    """Return the folder as text, and its manifest, checked.

    Raises
    ------
    FileFormatError
        If it is cut, damaged, from elsewhere, or of a later version.
    OSError
        If it cannot be read.
    """
    folder = as_path(folder, "folder")
    path = os.path.join(folder, MANIFEST)
    with open_regular(path) as file:
        text = file.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise FileFormatError(f"{path}: holds no sharded memory: it has more than {LONGEST} bytes")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: is cut or damaged: {error}") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise FileFormatError(f"{path}: holds no sharded memory: its format is not {FORMAT!r}")
    if fields.get("version") != VERSION:
        raise FileFormatError(
            f"{path}: has version {short(fields.get('version'))} of the format; this package reads {VERSION!r}"
        )
    if fields.get("checksum") != _checksum(fields):
        raise FileFormatError(f"{path}: is damaged: it does not have its checksum")
    try:
        named = tuple(ShardFile(str(f["name"]), int(f["patterns"]), str(f["checksum"])) for f in fields["files"])
        manifest = Manifest(int(fields["patterns"]), int(fields["columns"]), named)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: is damaged: {error!r}") from None
    if not named or sum(file.patterns for file in named) != manifest.patterns:
        raise FileFormatError(f"{path}: is damaged: its files do not add up to {manifest.patterns} patterns")
    for entry in named:
        if not NAME.fullmatch(entry.name):  # a path would lead out of the folder
            raise FileFormatError(f"{path}: names {short(entry.name)}, which is no file of a shard")
        shard = os.path.join(folder, entry.name)
        if _header_checksum(shard) != entry.checksum:
            raise FileFormatError(f"{shard}: is not the file that {MANIFEST} means: its header has another checksum")
    return folder, manifest


def read_model(folder: str, manifest: Manifest) -> files.Model:
    """Return the model of the files, which is the same in all of them; read from the first."""
    return files.read_model(os.path.join(folder, manifest.files[0].name))


def discard(folder: str, kept: Collection[str]) -> None:
    """Remove files of shards that are not among those to be kept, such as those of a save that was stopped."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            if NAME.fullmatch(entry) and entry not in kept:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, entry))
