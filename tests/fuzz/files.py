"""Damaged files: every one is read, or refused by the error that is meant for it.

A case takes a file of the corpus, damages it some times over and reads it: memories, layers, bags, images, tables of
studies. Whatever is in a file, reading it may end in two ways only: in an object that works, or in an error of the
designed type that names the file, in a message of bounded length; within bounded memory and time (`engine`).
"""

import gzip
import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from sparsehopfield import FileFormatError, HopfieldMemory, layers
from sparsehopfield._engine import files
from sparsehopfield.data import bags, datasets
from sparsehopfield.studies._core.tables import run_table, times

from .corpus import ROOM
from .engine import Flaw, told

LONGEST = 1000  # characters of a message beyond the file's name

# --- what is put in ---------------------------------------------------------------------------------------

WHOLE = [0, 1, 2, 3, 7, 127, 128, 255, 256, 900, 32767, 65535, 65536, 2**24, 2 * 10**8, 2**31 - 1, 2**31, 2**32 - 1]
WHOLE += [2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]
REAL = [0.0, -0.0, 0.5, 1e-3, 1e-45, 1e-310, 5e-324, 1e38, 3.5e38, 1e308, float("nan"), float("inf"), -float("inf")]
TEXTS = [
    "",
    " ",
    "x",
    "\0",
    "\ud800",
    "é",
    "nan",
    "inf",
    "1e999",
    "0x1p-3",
    "0x1p2000",
    "__metadata__",
    "../x",
    "n" * 9999,
]
TEXTS += ["None", "true", "[" * 900, "1" * 5000, "sparsehopfield.memory", "softmax", "entmax 0x1.8p+0", "polynomial 2"]


def _number(random: Random) -> Any:
    kind = random.random()
    if kind < 0.4:
        return random.choice(WHOLE) * random.choice((1, 1, -1))
    if kind < 0.7:
        return random.choice(REAL)
    return random.choice((random.randrange(-9, 99), random.uniform(-9, 9)))


def _json(random: Random) -> Any:
    """A value that JSON has."""
    kind = random.randrange(8)
    if kind < 3:
        return _number(random)
    if kind == 3:
        return random.choice(TEXTS)
    if kind == 4:
        return random.choice((None, True, False, [], {}, [[]], {"": 0}))
    if kind == 5:
        return [_number(random) for _ in range(random.choice((1, 2, 3, 300)))]
    if kind == 6:
        name = random.choice(("TopK", "Window", "BlockSparse", "Linear", "Sequential", "Entmax", "Hopfield", "x"))
        return {name: random.choice((3, {}, {"k": 1}, {"layers": []}, None))}
    deep: Any = _number(random)
    for _ in range(random.choice((3, 60, 900))):
        deep = [deep] if random.random() < 0.7 else {"a": deep}
    return deep


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in pairs:
            found.append((node, key))
            waiting.append(value)
    return found


def _damaged_tree(random: Random, tree: Any) -> Any:
    """The tree with one place changed, taken out, doubled or renamed; texts that are JSON are gone into."""
    places = _places(tree)
    if not places:
        return _json(random)
    node, key = random.choice(places)
    value = node[key]
    if isinstance(value, str) and value[:1] in "{[" and random.random() < 0.8:
        inner = _damaged_tree(random, json.loads(value)) if _is_json(value) else _json(random)
        node[key] = json.dumps(inner)
        return tree
    kind = random.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[random.choice((*TEXTS, str(random.choice(places)[1])))] = value
    elif kind == 1:
        node.insert(key, value)
    elif kind == 2:
        other, its = random.choice(places)
        node[key] = json.loads(json.dumps(other[its]))
    elif kind == 3 and isinstance(value, (int, float)):
        node[key] = type(value)(value) + random.choice((-1, 1, 64))
    else:
        node[key] = _json(random)
    return tree


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


# --- damage to bytes --------------------------------------------------------------------------------------


def _flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _set(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 4))):
        changed[random.randrange(len(changed))] = random.choice((0, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(changed)


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data))]


def _take_out(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + data[at + random.choice((1, 2, 8, 64, 700)) :]


def _double(random: Random, data: bytes) -> bytes:
    at, size = random.randrange(len(data)), random.choice((1, 8, 64, 700))
    return data[:at] + data[at : at + size] * random.choice((2, 3)) + data[at + size :]


def _insert(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice((random.randbytes(random.randrange(1, 20)), b"\0" * 64, b"\n" * 3)) + data[at:]


def _integer(random: Random, data: bytes) -> bytes:
    """A number of 2, 4 or 8 bytes, of either order."""
    size = random.choice((2, 4, 8))
    if len(data) < size:
        return data
    at = random.randrange(len(data) - size + 1)
    at -= at % random.choice((1, size))
    number = random.choice(WHOLE) % 2 ** (8 * size)
    return data[:at] + number.to_bytes(size, random.choice(("little", "big"))) + data[at + size :]


def _splice(random: Random, data: bytes) -> bytes:
    """The beginning of this file, the end of another."""
    other = random.choice(sorted(path for path in ROOM.rglob("*") if path.is_file())).read_bytes()
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _text_number(random: Random, data: bytes) -> bytes:
    """A number that is written out."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?([eE][+-]?\d+)?", data))
    if not found:
        return data
    one = random.choice(found)
    new = random.choice((str(_number(random)), repr(_number(random)), random.choice(TEXTS)))
    return data[: one.start()] + new.encode("utf-8", "surrogatepass") + data[one.end() :]


def _swap_lines(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    random.shuffle(lines)
    return b"\n".join(lines)


BYTES = (_flip, _flip, _set, _cut, _take_out, _double, _insert, _integer, _splice, _text_number)


def _damaged(random: Random, data: bytes) -> bytes:
    return random.choice(BYTES)(random, data) if data else random.randbytes(5)


def _empty_or(random: Random, data: bytes) -> bytes:
    return random.choice((b"", b"\0", data * 2, random.randbytes(200)))


# --- damage that knows the format -------------------------------------------------------------------------


def _safetensors(random: Random, data: bytes) -> bytes:
    """Another header or other numbers, with the checksums of what they are, so that they are looked into."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
    except ValueError:  # it is damaged already
        return _damaged(random, data)
    tensors, content = header, data[8 + length :]
    if random.random() < 0.35 and content:
        content = _numbers(random, content)
    else:
        tensors = _damaged_tree(random, header)
    if not isinstance(tensors, dict):
        return _damaged(random, data)
    fields = tensors.get("__metadata__")
    if isinstance(fields, dict) and random.random() < 0.9:
        _sign(fields, tensors, content)
    text = json.dumps(tensors).encode("utf-8", "surrogatepass")
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text + content


def _sign(fields: dict[str, Any], header: dict[str, Any], content: bytes) -> None:
    """Make the checksums right, if there is anything to be right about."""
    if "data" in fields:
        fields["data"] = hashlib.sha256(content).hexdigest()
    try:
        tensors = sorted((t["data_offsets"], name, t) for name, t in header.items() if name != "__metadata__")
        listed = [(name, t["dtype"], tuple(t["shape"])) for _, name, t in tensors]
        fields["header"] = files._header_checksum(fields, listed)
    except (KeyError, TypeError, ValueError, UnicodeEncodeError, RecursionError):
        pass


def _numbers(random: Random, content: bytes) -> bytes:
    """Some of the stored numbers replaced by extreme ones."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 3))):
        code, size = random.choice((("<f", 4), ("<d", 8), ("<e", 2), ("<q", 8)))
        if len(changed) < size:
            continue
        at = random.randrange(0, len(changed) - size + 1, size)
        value = random.choice(WHOLE) % 2**63 if code == "<q" else random.choice(REAL)
        try:
            struct.pack_into(code, changed, at, value)
        except OverflowError:
            struct.pack_into(code, changed, at, float("inf"))
    return bytes(changed)


def _gzipped(inner: Callable[[Random, bytes], bytes]) -> Callable[[Random, bytes], bytes]:
    """Damage inside of what is packed."""

    def damage(random: Random, data: bytes) -> bytes:
        try:
            return gzip.compress(inner(random, gzip.decompress(data)), mtime=0)
        except (OSError, EOFError, zlib.error):
            return _damaged(random, data)

    return damage


def _npz(random: Random, data: bytes) -> bytes:
    """Another array in the archive: a damaged header, another dtype, a pickle, other names."""
    array, name = io.BytesIO(), random.choice(("data.npy", "data.npy", "data.npy", "data", "x.npy", "../data.npy"))
    kind = random.randrange(5)
    if kind == 0:
        np.save(array, np.zeros(random.choice(((0, 12288), (3, 12288), (12288,), (), (2, 5))), random.choice("BbHfd?")))
    elif kind == 1:
        np.save(array, np.array([[None, {}]], object), allow_pickle=True)
    else:
        np.save(array, np.zeros((1, 12288), np.uint8))
    content = array.getvalue()
    if kind >= 2:
        head = content[:128]
        head = random.choice((_flip, _set, _text_number, _take_out, _insert, _integer, _header_text))(random, head)
        content = head + content[128:]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    return packed.getvalue()


def _header_text(random: Random, head: bytes) -> bytes:
    """A header of an npy file that is another Python expression."""
    text = random.choice(
        (
            f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({random.choice(WHOLE)}, 12288), }}",
            "{'descr': '|u1', 'fortran_order': 0, 'shape': (-1, 12288)}",
            "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (1, 12288)}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1, 12288)}",
            "(" * 100 + ")" * 100,
            f"{{'descr': '|V{random.choice(WHOLE)}', 'fortran_order': False, 'shape': (1,)}}",
            "1 +",
            "{",
            "\0",
            "'''",
            "__import__('os')",
        )
    ).encode()
    return head[:8] + len(text).to_bytes(2, "little") + text


# --- what reads -------------------------------------------------------------------------------------------


def _memory(path: Path, random: Random) -> Callable[[], None]:
    mmap, verify = random.random() < 0.3, random.random() < 0.5
    memory = HopfieldMemory.load(path, mmap=mmap, verify=verify)

    def use() -> None:
        repr(memory)
        copy = path.with_name("again")
        memory.save(copy)
        again = HopfieldMemory.load(copy, mmap=mmap, verify=True)
        if again.patterns.tobytes() != memory.patterns.tobytes() or again.beta != memory.beta:
            raise Flaw("memory: does not come back from the file that it was saved to")
        queries = np.ones((2, memory.shape[1]), memory.dtype)
        answers = []
        for one in (memory, again):
            try:
                answers.append(one.update(queries).tobytes())
            except (ValueError, OverflowError) as error:  # a structure that does not fit, scores beyond the type
                _sound(error, None)
                answers.append(str(error).encode())
        if answers[0] != answers[1]:
            raise Flaw("memory: answers otherwise than its copy")

    return use


def _layer(path: Path, random: Random) -> Callable[[], None]:
    layer = layers.load(path)

    def use() -> None:
        copy = path.with_name("again")
        layer.save(copy)
        again = layers.load(copy)
        first, second = layer.state_dict(), again.state_dict()
        if first.keys() != second.keys() or any(first[n].tobytes() != second[n].tobytes() for n in first):
            raise Flaw("layer: does not come back from the file that it was saved to")
        size = min(getattr(layer, "input_size", None) or 4, 1000)
        try:
            layer.forward(np.ones((2, 3, size), np.float32))
        except (ValueError, TypeError, OverflowError) as error:
            _sound(error, None)

    return use


def _sound_bags(found: bags.Bags) -> None:
    sizes = np.diff(found.offsets)
    whole = found.offsets[0] == 0 and found.offsets[-1] == len(found.instances) and (sizes > 0).all()
    if not (whole and np.isfinite(found.instances).all() and np.isin(found.labels, (0, 1)).all()):
        raise Flaw("bags: the rows, the labels or the bags are not sound")


def _bags(path: Path, random: Random) -> Callable[[], None]:
    found = bags.load_bags(path)
    return lambda: _sound_bags(found)


def _matlab(path: Path, random: Random) -> Callable[[], None]:
    path = path.rename(path.with_name(bags.MIL_SETS["tiger"][0]))
    found, kept = bags.load_mil("tiger", path.parent), bags.load_bags(path, keep_sparse=True).instances

    def use() -> None:
        _sound_bags(found)
        if not np.array_equal(found.instances, kept if isinstance(kept, np.ndarray) else kept.toarray()):
            raise Flaw("bags: sparse instances are not the dense ones")

    return use


def _mnist(path: Path, random: Random) -> Callable[[], None]:
    what, packed = "images" if "images" in path.name else "labels", path.suffix
    if random.random() < 0.05:
        packed = ".gz" if not packed else ""  # the wrong name
    path.rename(path.with_name(f"train-{what}-idx{3 if what == 'images' else 1}-ubyte{packed}"))
    if what == "images":
        images = datasets.load_mnist(path.parent).images
        return lambda: _shaped(images, 784)
    found = datasets.load_labels("mnist", path.parent)
    return lambda: _shaped(found[:, None], 1)


def _cifar(path: Path, random: Random) -> Callable[[], None]:
    path.rename(path.with_name("data_batch_1.bin"))
    images = datasets.load_cifar10(path.parent).images
    return lambda: _shaped(images, 3072)


def _imagenet(path: Path, random: Random) -> Callable[[], None]:
    path.rename(path.with_name("val_data.npz"))
    images = datasets.load_imagenet64(path.parent).images
    return lambda: _shaped(images, 12288)


def _shaped(images: Any, width: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != width or not len(images):
        raise Flaw(f"images: {images.dtype} of shape {images.shape}")


def _study(path: Path, random: Random) -> Callable[[], None]:
    for other in (ROOM / "study").iterdir():
        if other.name != path.name:
            (path.parent / other.name).write_bytes(other.read_bytes())
    settings = [{"size": size, "run": run} for size in (2, 3) for run in (0, 1)]
    measured = {"error": 0.5, "steps": 3.0}
    options = {"seed": 1, "sizes": [2, 3]}
    rows = run_table(path.parent, "tiny", options, settings, list(measured), lambda _: measured, progress=False)
    times(path.parent, settings)

    def use() -> None:
        if len(rows) != 8:
            raise Flaw(f"study: a table of {len(rows)} rows instead of 8")

    return use


def _plain(random: Random, data: bytes) -> bytes:
    return random.choice((_text_number, _text_number, _swap_lines, _damaged))(random, data)


# folder of the corpus -> what reads it, the designed error, damage that knows the format
Reader = Callable[[Path, Random], Callable[[], None]]
TARGETS: dict[str, tuple[Reader, type[Exception], Callable[[Random, bytes], bytes]]] = {
    "memory": (_memory, FileFormatError, _safetensors),
    "layer": (_layer, FileFormatError, _safetensors),
    "bags": (_bags, ValueError, _plain),
    "matlab": (_matlab, ValueError, _integer),
    "mnist": (_mnist, ValueError, _integer),
    "cifar": (_cifar, ValueError, _set),
    "imagenet": (_imagenet, ValueError, _npz),
    "study": (_study, ValueError, _plain),
}


def _sound(error: Exception, folder: Path | None) -> None:
    """Raise unless the message of a designed error is of bounded length and names the file."""
    text = str(error)
    if len(text) > LONGEST + (0 if folder is None else 2 * len(str(folder))):
        raise Flaw(f"{type(error).__name__}: its message has {len(text)} characters: {text[:150]}")
    if folder is not None and str(folder) not in text:
        raise Flaw(f"{type(error).__name__}: its message does not name the file: {text[:300]}")


def case(random: Random, folder: Path) -> str:
    """One damaged file."""
    kind = random.choice((*TARGETS, "memory", "layer", "layer"))
    reader, designed, informed = TARGETS[kind]
    source = random.choice(sorted((ROOM / kind).iterdir()))
    data = source.read_bytes()
    if source.suffix == ".gz" and random.random() < 0.5:
        informed = _gzipped(informed)
    sound = random.random() < 0.03  # these are read, or whatever is refused tells nothing
    for _ in range(0 if sound else random.choice((1, 1, 1, 2, 3))):
        try:
            data = (informed if random.random() < 0.6 else _damaged)(random, data)
        except RecursionError:  # deeper than JSON can be written
            break
    if random.random() < 0.02 and not sound:
        data = _empty_or(random, data)
    folder = folder.resolve()
    path = folder / source.name
    path.write_bytes(data)
    try:
        use = reader(path, random)
    except designed as error:
        if sound:
            raise Flaw(f"{kind}: refuses a sound file: {error}") from None
        try:
            _sound(error, folder)
        except Flaw as flaw:
            raise Flaw(f"{kind}: {flaw}") from None
        return f"{kind}: refused"
    except FileNotFoundError as error:
        raise Flaw(f"{kind}: {error!r:.500}") from None
    except BaseException as error:
        raise Flaw(f"{kind}: {told(error)}") from None
    try:
        use()
    except Flaw:
        raise
    except BaseException as error:
        raise Flaw(f"{kind}: read, and then {told(error)}") from None
    return f"{kind}: read"
