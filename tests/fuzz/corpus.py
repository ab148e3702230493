"""The small sound files that `files` damages. They are committed; `python -m tests.fuzz.corpus` writes them anew.

Each folder holds what one target reads: a file of its name, or a folder of files where it reads a folder.
"""

import csv
import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOM = Path(__file__).with_name("corpus")


def _memories(folder: Path) -> None:
    import sparsehopfield as sh
    from sparsehopfield.structures import BlockSparse, LinearFeatures, RandomFeatures, RandomMask, TopK, Window

    rng = np.random.default_rng(1)
    rows = rng.normal(size=(6, 4))
    small = rng.integers(0, 255, (6, 4)).astype(np.uint8)
    memories = {
        "float32": sh.HopfieldMemory(rows.astype(np.float32), 2.0),
        "float64-ids": sh.HopfieldMemory(
            rows, 1.5, values=rows[:, :2], ids=[9, 4, 7, 1, 3, 2**40], similarity="euclidean"
        ),
        "uint8": sh.HopfieldMemory(small, 0.1, scale=0.25, separation="entmax15", structure=TopK(3)),
        "float16": sh.HopfieldMemory(rows.astype(np.float16), values=small, separation=sh.Entmax(1.25)),
        "cosine": sh.HopfieldMemory(rows, similarity="cosine", separation=sh.Polynomial(3), structure=RandomMask(2, 5)),
        "window": sh.HopfieldMemory(
            rows, separation="softmax", structure=Window(1, causal=True, dilation=2, global_positions=[0])
        ),
        "blocks": sh.HopfieldMemory(rows, structure=BlockSparse([[True, False, True], [False, True, True]], 2)),
        "features": sh.HopfieldMemory(rows, separation="softmax", structure=RandomFeatures(8, seed=1)),
        "linear": sh.HopfieldMemory(rows, separation="softmax", structure=LinearFeatures("relu")),
        "indexed": sh.HopfieldMemory(rows.astype(np.float32), 2.0, similarity="euclidean", index=True),
    }
    for name, memory in memories.items():
        memory.save(folder / f"{name}.safetensors")


def _layers(folder: Path) -> None:
    import sparsehopfield as sh
    from sparsehopfield import layers
    from sparsehopfield.structures import BlockSparse, TopK

    made = {
        "linear": layers.Linear(3, 2, random_state=0),
        "hopfield": layers.Hopfield(
            4, num_heads=2, scaling=[0.5, 1.0], structure=TopK(2), separation=sh.Entmax(1.25), random_state=0
        ),
        "pooling": layers.SparseHopfieldPooling(4, hidden_size=3, num_heads=2, quantity=2, random_state=0),
        "lookup": layers.HopfieldLayer(4, quantity=3, separation=sh.Polynomial(2), update_steps_max=2, random_state=0),
        "sequential": layers.Sequential(
            layers.LayerNorm(4),
            layers.Hopfield(
                4, hidden_size=2, structure=BlockSparse([[True]], 8), learnable_scaling=True, random_state=0
            ),
            layers.GELU(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Linear(8, 1, random_state=0),
        ),
    }
    for name, layer in made.items():
        layer.save(folder / f"{name}.safetensors")


def _bags(folder: Path) -> None:
    rows = ["1,3,0.5,-2e-3,7", "0,3,0.25,4,7", "0,1,1,0,7", "-1,1,.5,1e5,7", "0,1523456789012345678,3,2,7"]
    plain = "\n".join(rows) + "\n"
    (folder / "plain.csv").write_text(plain)
    (folder / "spaced.csv").write_bytes(b"\xef\xbb\xbf" + plain.replace(",", " , ").replace("\n", "\r\n").encode())
    (folder / "packed.csv.gz").write_bytes(gzip.compress(plain.encode(), mtime=0))


def _matlab(folder: Path) -> None:
    from scipy.io import savemat
    from scipy.sparse import csc_array

    features = np.random.default_rng(2).normal(size=(5, 3)).round(2) * np.array([[1], [0], [1], [1], [0]])
    ids, labels = np.array([[2], [2], [1], [1], [7]]), np.array([[1], [-1], [-1], [-1], [1]])
    content: dict[str, Any] = {"features": features, "bag_ids": ids, "labels": labels}
    sparse = content | {"features": csc_array(features), "labels": csc_array(labels)}
    savemat(folder / "tiger_100x100_matlab.mat", content)
    savemat(folder / "fox_100x100_matlab.mat", sparse)
    savemat(folder / "elephant_100x100_matlab.mat", sparse, do_compression=True)
    savemat(folder / "old.mat", content, format="4")


def _mnist(folder: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (2, 784)).astype(np.uint8) & 0xC0
    images = struct.pack(">4I", 0x803, 2, 28, 28) + pixels.tobytes()
    labels = struct.pack(">2I", 0x801, 5) + bytes([3, 1, 4, 1, 9])
    for name, content in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        (folder / name).write_bytes(content)
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))


def _cifar(folder: Path) -> None:
    (folder / "data_batch_1.bin").write_bytes(bytes([7]) + bytes(range(256)) * 12)


def _imagenet(folder: Path) -> None:
    """Written by hand: NumPy puts the date into the archive."""
    array = io.BytesIO()
    np.save(array, np.arange(12288, dtype=np.int64).astype(np.uint8).reshape(1, 12288))
    for name, method in (("val_data", zipfile.ZIP_DEFLATED), ("train_data_batch_1", zipfile.ZIP_STORED)):
        with zipfile.ZipFile(folder / f"{name}.npz", "w", method) as archive:
            archive.writestr(zipfile.ZipInfo("data.npy"), array.getvalue(), compress_type=method)


def _studies(folder: Path) -> None:
    """What `run_table` left in the middle of a study: its settings, its table, its times."""
    (folder / "settings.json").write_text(
        json.dumps({"settings": {"study": "tiny", "seed": 1, "sizes": [2, 3]}}) + "\n"
    )
    for name, rows in (
        ("table.csv", [["size", "run", "metric", "value"], [2, 0, "error", 0.5], [2, 0, "steps", 3.0]]),
        ("times.csv", [["size", "run", "threads", "seconds"], [2, 0, 1, 0.25]]),
    ):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


WRITERS: dict[str, Callable[[Path], None]] = {
    "memory": _memories,
    "layer": _layers,
    "bags": _bags,
    "matlab": _matlab,
    "mnist": _mnist,
    "cifar": _cifar,
    "imagenet": _imagenet,
    "study": _studies,
}

if __name__ == "__main__":
    for name, write in WRITERS.items():
        (ROOM / name).mkdir(parents=True, exist_ok=True)
        write(ROOM / name)
