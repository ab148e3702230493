"""ShardedMemory on a real cluster of worker processes, compared with HopfieldMemory bit for bit."""

import gc
import operator
import os
import pickle
import signal
import sys
import time
import types
import warnings

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import structures

distributed = pytest.importorskip("distributed")
import dask.array as da  # noqa: E402

from sparsehopfield.distributed import ShardedMemory, _held  # noqa: E402
from sparsehopfield.distributed import _dask as engine_module  # noqa: E402
from sparsehopfield.distributed._held import Piece  # noqa: E402
from sparsehopfield.distributed._shards import Request  # noqa: E402
from sparsehopfield.distributed._sources import as_source  # noqa: E402
from sparsehopfield.distributed._steps import describe, merge  # noqa: E402

RNG = np.random.default_rng(0)
M, D = 30_000, 12  # eight blocks of 4,096 rows, so that there can be seven shards
X = RNG.standard_normal((M, D), dtype=np.float32)
V = RNG.standard_normal((M, 3), dtype=np.float32)
QUERIES = X[:: M // 40] + 0.4 * RNG.standard_normal((len(X[:: M // 40]), D), dtype=np.float32)
SHARDS = [1, 2, 7]
CUTOFF = ["sparsemax", "entmax15", sh.Normmax(2.0), sh.Entmax(1.3)]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Return paths of the patterns in one file, in three, and of the values."""
    folder = tmp_path_factory.mktemp("sources")
    np.save(folder / "x.npy", X)
    np.save(folder / "v.npy", V)
    parts = []
    for i, (start, stop) in enumerate([(0, 8192), (8192, 20_000), (20_000, M)]):
        parts.append(folder / f"part{i}.npy")
        np.save(parts[-1], X[start:stop])
    return types.SimpleNamespace(x=folder / "x.npy", v=folder / "v.npy", parts=parts)


def same(a, b):
    """Return whether two results have the same bits: arrays, sparse arrays, and dataclasses of them."""
    if hasattr(a, "indptr"):
        return a.shape == b.shape and all(same(getattr(a, n), getattr(b, n)) for n in ("indptr", "indices", "data"))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__)
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


def sum_of_queries(shard, request):
    return float(request.queries.sum())


def assert_same_answers(sharded, one, queries=QUERIES):
    assert same(sharded.update(queries), one.update(queries))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sh.RetrievalWarning)
        results = [memory.retrieve(queries, max_steps=4, return_info=True) for memory in (sharded, one)]
    assert same(*results)
    assert same(sharded.associate(queries), one.associate(queries))
    assert same(sharded.energy(queries), one.energy(queries))


# --- the same answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
def test_answers_of_one_memory(client, files, shards, similarity):
    beta = {"dot": 1.0, "euclidean": 2.0, "cosine": 20.0}[similarity]
    sharded = ShardedMemory(files.x, beta, similarity=similarity, shards=shards, client=client)
    one = sh.HopfieldMemory(X, beta, similarity=similarity)
    assert sharded.shards == shards
    assert sharded.shape == (M, D)
    assert len(sharded) == M
    assert sharded.dtype == np.float32
    for separation in CUTOFF if similarity == "euclidean" else CUTOFF[:1]:
        sharded.separation = one.separation = separation
        assert_same_answers(sharded, one)


@pytest.mark.parametrize("shards", SHARDS)
def test_values_and_float64_queries(client, files, shards):
    sharded = ShardedMemory(files.parts, 2.0, values=files.v, similarity="euclidean", shards=shards, client=client)
    one = sh.HopfieldMemory(X, 2.0, values=V, similarity="euclidean")
    assert_same_answers(sharded, one, QUERIES.astype(np.float64))
    assert same(sharded.update(QUERIES[0]), one.update(QUERIES[0]))
    assert same(sharded.update(QUERIES[:0]), one.update(QUERIES[:0]))


@pytest.mark.parametrize("k", [1, 40])
def test_the_k_best(client, files, k):
    top = structures.TopK(k)
    for separation in ("softmax", "sparsemax"):
        model = {"separation": separation, "structure": top}
        sharded = ShardedMemory(files.x, 2.0, **model, shards=3, client=client)
        assert_same_answers(sharded, sh.HopfieldMemory(X, 2.0, **model))


def test_softmax_does_not_depend_on_shards(client, files):
    for beta in (0.1, 40.0):  # many within reach; few, where it has the bits of one memory
        one = sh.HopfieldMemory(X, beta, similarity="euclidean", separation="softmax")
        model = {"similarity": "euclidean", "separation": "softmax", "client": client}
        memories = [ShardedMemory(files.x, beta, shards=n, **model) for n in SHARDS]
        updates = [memory.update(QUERIES) for memory in memories]
        assert same(updates[0], updates[1])
        assert same(updates[0], updates[2])
        assert np.allclose(updates[0], one.update(QUERIES), atol=1e-5)
        if beta > 1:
            assert same(updates[0], one.update(QUERIES))


def test_certificates_and_explanations(client):
    model = {"similarity": "euclidean", "separation": "entmax15"}
    sharded = ShardedMemory(da.from_array(X[:9000], chunks=(5000, -1)), 8.0, **model, shards=3, client=client)
    one = sh.HopfieldMemory(X[:9000], 8.0, **model)
    copies = X[[5, 8900, 17]]
    for memory in (sharded, one):
        memory.add(copies)
    assert same(sharded.margin(), one.margin())
    assert same(sharded.is_certified(), one.is_certified())
    assert same(sharded.certify(QUERIES), one.certify(QUERIES))
    assert same(sharded.duplicates().pairs, one.duplicates().pairs)
    assert same(sharded.duplicates(0.3).pairs, one.duplicates(0.3).pairs)
    texts = [str(memory.explain(QUERIES[3])) for memory in (sharded, one)]
    end = texts[1].index("energy")  # what follows it says how patterns were found
    assert texts[0][: end + 12] == texts[1][: end + 12]


@pytest.mark.parametrize("kind", ["dask", "dask of small chunks", "zarr", "saved memories"])
def test_sources(client, tmp_path, kind):
    values = None
    if kind.startswith("dask"):
        source = da.from_array(X, chunks=(4096, -1) if kind == "dask" else (1700, 5))
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr")
        source = zarr.create_array(str(tmp_path / "x.zarr"), shape=X.shape, chunks=(1000, D), dtype=X.dtype)
        source[:] = X
    else:
        source, values = [tmp_path / "a", tmp_path / "b"], V
        for path, part in zip(source, (slice(0, 10_000), slice(10_000, M)), strict=True):
            sh.HopfieldMemory(X[part], values=V[part], ids=np.arange(M)[part] * 2 + 1).save(path)
    sharded = ShardedMemory(source, 2.0, similarity="euclidean", shards=3, client=client)
    one = sh.HopfieldMemory(X, 2.0, values=values, similarity="euclidean")
    assert same(sharded.update(QUERIES), one.update(QUERIES))
    assert np.array_equal(sharded.ids, np.arange(M) * (2 if values is not None else 1) + (values is not None))


def test_narrow_types(client, tmp_path):
    B = RNG.integers(0, 255, (9000, 6)).astype(np.uint8)
    np.save(tmp_path / "b.npy", B)
    sharded = ShardedMemory(tmp_path / "b.npy", 2.0, scale=1 / 255, similarity="euclidean", client=client)
    one = sh.HopfieldMemory(B, 2.0, scale=1 / 255, similarity="euclidean")
    assert sharded.scale == one.scale
    assert_same_answers(sharded, one, B[::500] / np.float32(255))


# --- changes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 4])
def test_add_and_remove(client, files, shards):
    model = {"similarity": "euclidean"}
    sharded = ShardedMemory(files.x, 2.0, **model, shards=shards, client=client)
    one = sh.HopfieldMemory(X, 2.0, **model)
    more = RNG.standard_normal((5000, D))

    def both(change):
        results = [change(memory) for memory in (sharded, one)]
        assert same(*results)
        assert np.array_equal(sharded.ids, one.ids)
        assert same(sharded.update(QUERIES), one.update(QUERIES))
        assert same(sharded.associate(more[:20]), one.associate(more[:20]))

    both(lambda memory: memory.add(more))
    both(lambda memory: memory.remove(np.arange(0, 35_000, 3)))
    both(lambda memory: memory.remove(slice(2000, 15_000)))  # with whole shards
    both(lambda memory: memory.add(more[:10], ids=np.arange(10) + 10**6))
    both(lambda memory: memory.remove([-1, 0, 17]))
    both(lambda memory: memory.add(more[:1]))
    both(lambda memory: memory.remove(slice(-3000, None)))
    both(lambda memory: memory.remove(np.isin(memory.ids, np.arange(100))))
    # and what gives weight to all patterns does not depend on shards, but on rows
    sharded.separation = one.separation = "softmax"
    sharded.beta = one.beta = 0.1
    assert np.allclose(sharded.update(QUERIES), one.update(QUERIES), atol=1e-5)


def test_add_a_source(client, files, tmp_path):
    sharded = ShardedMemory(files.x, 2.0, values=files.v, shards=2, client=client)
    one = sh.HopfieldMemory(X, 2.0, values=V)
    assert np.array_equal(sharded.add(files.parts, files.v), one.add(X, V))
    assert same(sharded.update(QUERIES), one.update(QUERIES))
    np.save(tmp_path / "v3.npy", V[:3])
    np.save(tmp_path / "wide.npy", np.ones((3, D + 1), np.float32))
    with pytest.raises(ValueError, match=r"patterns: must have the 12 columns of what is stored, got shape \(3, 13\)"):
        sharded.add(tmp_path / "wide.npy", tmp_path / "v3.npy")
    np.save(tmp_path / "double.npy", np.ones((3, D)))
    with pytest.raises(TypeError, match="patterns: must be float32, as what is stored, got float64"):
        sharded.add(tmp_path / "double.npy", tmp_path / "v3.npy")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda m: m.remove(slice(None)), ValueError, "positions: would remove all patterns"),
        (lambda m: m.remove([30_000]), IndexError, "positions: 30000 is out of range for 30000 patterns"),
        (lambda m: m.remove(1.5), TypeError, "positions: must be whole numbers"),
        (lambda m: m.add(np.ones((2, 3))), ValueError, "patterns: must have the 12 columns of what is stored"),
        (lambda m: m.add(X[:2], V[:2]), ValueError, "values: this memory has no values"),
        (lambda m: m.add(X[:2], ids=[3, 10**6]), ValueError, "ids: 3 is the id of another pattern"),
        (lambda m: m.add(X[:2], ids=[10**6, 10**6]), ValueError, "ids: must be distinct"),
        (lambda m: m.add(X[:2] * np.nan), ValueError, "patterns: row 32768 contains NaN or infinity"),
    ],
)
def test_changes_that_are_refused_change_nothing(client, files, change, error, words):
    sharded = ShardedMemory(files.x, 2.0, shards=2, client=client)
    before = sharded.update(QUERIES)
    with pytest.raises(error, match=words):
        change(sharded)
    assert len(sharded) == M
    assert same(sharded.update(QUERIES), before)


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shards", "changed"), [(1, False), (5, True)])
def test_save_and_load(client, files, tmp_path, shards, changed):
    model = {"similarity": "euclidean", "separation": sh.Entmax(1.3)}
    first = ShardedMemory(files.x, 2.0, values=files.v, **model, shards=shards, client=client)
    one = sh.HopfieldMemory(X, 2.0, values=V, **model)
    if changed:
        for memory in (first, one):
            memory.remove(np.arange(0, 9000, 2))
            memory.add(X[:100] + 1, V[:100], ids=np.arange(100) + 10**6)
    folder = tmp_path / "memory"
    first.save(folder)
    loaded = ShardedMemory.load(folder, client=client)
    assert repr(loaded).split("shards")[1] == repr(first).split("shards")[1]
    assert_same_answers(loaded, one)
    assert np.array_equal(loaded.ids, one.ids)
    # saved again where it is mapped from: these files must stay while it may have to read them again
    loaded.remove(0)
    loaded.save(folder)
    again = ShardedMemory.load(folder, shards=2, client=client)
    one.remove(0)
    assert_same_answers(again, one)
    again.save(folder)
    last = ShardedMemory.load(folder, client=client)
    last.save(folder)
    named = {*os.listdir(folder)}
    assert "manifest.json" in named
    assert len(named) <= 1 + again.shards + 2 * last.shards
    # each file is one that HopfieldMemory reads
    part = sh.HopfieldMemory.load(sorted(folder.glob("*.safetensors"))[0])
    assert part.separation == one.separation


def test_a_save_that_fails_leaves_what_was_saved(client, files, tmp_path, monkeypatch):
    folder = tmp_path / "memory"
    first = ShardedMemory(files.x, 2.0, shards=2, client=client)
    first.save(folder)
    second = ShardedMemory(files.x, 5.0, shards=2, client=client)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsehopfield.distributed._memory.write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        second.save(folder)
    assert len(os.listdir(folder)) == 5  # the manifest, and the files of both
    loaded = ShardedMemory.load(folder, client=client)
    assert loaded.beta == 2.0
    monkeypatch.undo()
    first.save(folder)
    assert len(os.listdir(folder)) == 3


def test_damaged_folders(client, files, tmp_path):
    folder = tmp_path / "memory"
    ShardedMemory(files.x, 2.0, shards=2, client=client).save(folder)
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    for damaged, words in [
        (text[:-20], "is cut or damaged"),
        (text.replace("30000", "30001"), "does not have its checksum"),
        (text.replace("sparsehopfield.sharded", "else"), "holds no sharded memory"),
        (text.replace('"version": "1"', '"version": "2"'), "has version '2' of the format"),
        ("[]", "holds no sharded memory"),
    ]:
        manifest.write_text(damaged)
        with pytest.raises(sh.FileFormatError, match=words):
            ShardedMemory.load(folder, client=client)
    manifest.write_text(text)
    one, two = sorted(folder.glob("*.safetensors"))
    data = one.read_bytes()
    one.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # what only the checksum of all data finds
    assert len(ShardedMemory.load(folder, client=client)) == M
    with pytest.raises(sh.FileFormatError, match="is damaged: the data does not have its checksum"):
        ShardedMemory.load(folder, verify=True, client=client)
    one.write_bytes(two.read_bytes())
    with pytest.raises(sh.FileFormatError, match=r"is not the file that manifest.json means"):
        ShardedMemory.load(folder, client=client)
    one.write_bytes(data)
    two.unlink()
    with pytest.raises(FileNotFoundError, match="safetensors"):
        ShardedMemory.load(folder, client=client)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_row_that_is_no_number_is_named(client, tmp_path):
    bad = X.copy()
    bad[20_123, 3] = np.nan
    paths = [tmp_path / "good.npy", tmp_path / "bad.npy"]
    np.save(paths[0], bad[:10_000])
    np.save(paths[1], bad[10_000:])
    words = (
        r"source: row 20123 \(row 10123 of .*bad.npy\) contains NaN or infinity; every entry must be finite; in shard 4"
    )
    with pytest.raises(ValueError, match=words):
        ShardedMemory(paths, shards=7, client=client)
    with pytest.raises(ValueError, match=r"source: row 20123 contains NaN .* in shard 1, rows 16384 to 29999"):
        ShardedMemory(da.from_array(bad, chunks=(5000, -1)), shards=2, client=client)
    np.save(tmp_path / "v.npy", np.where(np.arange(10_000)[:, None] == 5000, np.inf, V[:10_000]))
    with pytest.raises(ValueError, match=r"values: row 5000 \(row 5000 of .*v.npy\) contains NaN or infinity"):
        ShardedMemory(paths[0], values=tmp_path / "v.npy", shards=2, client=client)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"beta": -1}, ValueError, "beta: must be positive"),
        ({"separation": "sparsmax"}, ValueError, "separation: unknown name"),
        ({"similarity": "l1"}, ValueError, "similarity: unknown name"),
        ({"structure": structures.Window(3)}, ValueError, "structure: "),
        ({"shards": 0}, ValueError, "shards: must be at least 1"),
        ({"shards": 1.5}, TypeError, "shards: must be a whole number"),
        ({"scale": 2.0}, ValueError, "scale: only uint8 and float16 patterns have one"),
        ({"index": "yes"}, ValueError, "index: must be"),
        ({"client": "tcp://localhost:8786"}, TypeError, "client: must be a distributed.Client, got str"),
        ({"ids": [1, 2]}, ValueError, "ids: needs one per pattern"),
    ],
)
def test_arguments(client, files, arguments, error, words):
    with pytest.raises(error, match=words):
        ShardedMemory(files.x, **({"client": client} | arguments))


def test_queries_are_checked(client, files):
    sharded = ShardedMemory(files.x, shards=2, client=client)
    with pytest.raises(
        ValueError, match=r"queries: the last axis must have the patterns' 12 features, got shape \(3,\)"
    ):
        sharded.update(np.ones(3))
    with pytest.raises(ValueError, match="queries: row 1 contains NaN"):
        sharded.update([np.ones(D), np.full(D, np.nan)])
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(sharded)


def test_ids_of_two_files_must_differ(client, tmp_path):
    for name, ids in (("a", np.arange(5000)), ("b", np.arange(5000) + 4999)):
        sh.HopfieldMemory(X[:5000], ids=ids).save(tmp_path / name)
    with pytest.raises(ValueError, match="ids: must be distinct, got 4999 twice"):
        ShardedMemory([tmp_path / "a", tmp_path / "b"], shards=2, client=client)


def test_a_client_is_needed(monkeypatch, files):
    def none():
        raise ValueError("No clients found")

    monkeypatch.setattr(distributed.Client, "current", none)
    with pytest.raises(
        ValueError, match=r"client: there is none; start workers on this machine with .*distributed.Client"
    ):
        ShardedMemory(files.x)


def test_versions(client, files, monkeypatch):
    sharded = ShardedMemory(files.x, shards=2, client=client)
    with pytest.raises(RuntimeError, match=r"version: this worker has sparsehopfield .*, and the request is of 0\.0"):
        sharded.engine.reduce(describe, Request(version="0.0"), merge)
    monkeypatch.setattr(engine_module, "_core", types.SimpleNamespace(__version__="0.0"))
    with pytest.raises(RuntimeError, match=r"client: worker tcp.* has sparsehopfield .*, and this process 0\.0"):
        ShardedMemory(files.x, client=client)


# --- workers that are lost, and calls that are not finished -----------------------------------------------------


def tasks_of(client):
    """Return the keys of tasks that the scheduler knows."""
    return client.run_on_scheduler(lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks])


def soon(condition, seconds=10):
    """Return whether a condition comes true: messages to the scheduler take a moment."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def kill(client, workers):
    """Kill so many worker processes."""
    client.wait_for_workers(2, timeout=30)
    pids = client.run(os.getpid)
    for pid in list(pids.values())[:workers]:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["files", "dask", "changed"])
def test_shards_of_a_lost_worker_are_made_again(client, files, kind):
    source = da.from_array(X, chunks=(5000, -1)) if kind == "dask" else files.x
    sharded = ShardedMemory(source, 2.0, similarity="euclidean", shards=7, client=client)
    one = sh.HopfieldMemory(X, 2.0, similarity="euclidean")
    if kind == "changed":
        for memory in (sharded, one):
            memory.remove(np.arange(0, 20_000, 7))
            memory.add(X[:50] + 1)
    kill(client, 1)
    assert same(sharded.update(QUERIES), one.update(QUERIES))
    assert np.array_equal(sharded.ids, one.ids)


def test_a_source_that_has_changed_is_noticed(client, tmp_path):
    np.save(tmp_path / "x.npy", X[:9000])
    sharded = ShardedMemory(tmp_path / "x.npy", shards=2, client=client)
    with open(tmp_path / "x.npy", "r+b") as file:
        file.seek(5000)
        file.write(np.float32(1.5).tobytes())
    kill(client, 2)
    with pytest.raises(RuntimeError, match=r"source: shard 0, rows 0 to .* has changed since the memory was made"):
        sharded.update(QUERIES)


def test_a_file_that_comes_back(client, tmp_path):
    np.save(tmp_path / "x.npy", X[:9000])
    sharded = ShardedMemory(tmp_path / "x.npy", shards=2, client=client)
    sharded.remove(0)  # so that shards are made of others
    expected = sharded.update(QUERIES)
    os.rename(tmp_path / "x.npy", tmp_path / "away.npy")
    kill(client, 2)
    with pytest.raises(FileNotFoundError, match=r"x\.npy"):
        sharded.update(QUERIES)
    assert soon(lambda: all(shard.status == "error" for shard in sharded.engine.shards))
    os.rename(tmp_path / "away.npy", tmp_path / "x.npy")
    assert same(sharded.update(QUERIES), expected)


@pytest.mark.parametrize("kind", ["file", "files", "array"])
def test_shards_that_move_between_workers(files, kind):
    source = as_source(files.parts if kind == "files" else files.x)
    given = [X[8000:20_000], None, None] if kind == "array" else source.cut(8000, 20_000)
    held = _held.load(Piece(1, 8000, 8192, "dot", None, "auto"), *given)
    assert bool(held.maps) == (kind == "file")
    changed = _held.replaced(held, np.arange(5, 9000), 7000, 4096, 24_576)
    for one in (held, changed):
        data = pickle.dumps(one)
        other = pickle.loads(data)
        assert (len(data) < 100_000) == (kind != "array")
        assert other.fingerprint == one.fingerprint
        assert same(other.shard.whole, one.shard.whole)
        assert np.array_equal(other.shard.ids, one.shard.ids)
        assert same(other.shard.stored.patterns, one.shard.stored.patterns)
        # what Dask believes of its size: mapped rows need not stay in memory
        assert sys.getsizeof(one) > X[8000:20_000].nbytes / (6 if kind == "file" else 1)
    wrong = held.fingerprint ^ 1
    with pytest.raises(
        RuntimeError, match="source: shard 1, rows 8192 to 20191, was read again as its worker was lost"
    ):
        held.check(wrong)


def test_shards_outlive_workers_that_retire(client, cluster):
    client.wait_for_workers(2, timeout=30)
    cluster.scale(3)
    client.wait_for_workers(3, timeout=30)
    sharded = ShardedMemory(da.from_array(X, chunks=(5000, -1)), shards=7, client=client)
    expected = sharded.update(QUERIES)
    cluster.scale(2)
    assert soon(lambda: len(client.scheduler_info()["workers"]) == 2, 30)
    assert same(sharded.update(QUERIES), expected)


def test_an_interrupted_call_leaves_no_task(client, files, monkeypatch):
    sharded = ShardedMemory(files.x, 2.0, shards=4, client=client)
    expected = sharded.update(QUERIES)

    def interrupted(client, futures):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "results_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sharded.update(QUERIES)
    assert soon(lambda: not [key for key in tasks_of(client) if "scout" in key or "request" in key])
    assert same(sharded.update(QUERIES), expected)


def test_large_requests_are_sent_in_pieces(client, files):
    sharded = ShardedMemory(files.x, shards=7, client=client)
    queries = RNG.standard_normal((1, 3_000_000), dtype=np.float32)  # more than Dask sends without a warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for request in (Request(), Request(queries=queries[:, :200_000]), Request(queries=queries)):
            sums = sharded.engine.reduce(sum_of_queries, request, operator.add)
            assert sums == 7 * float(request.queries.sum())


def test_nothing_is_left_of_a_memory(client, files):
    sharded = ShardedMemory(files.x, 2.0, shards=4, client=client)
    sharded.update(QUERIES)
    assert any("sparsehopfield-load" in key for key in tasks_of(client))
    del sharded
    gc.collect()
    assert soon(lambda: not [key for key in tasks_of(client) if key.startswith("sparsehopfield")])


def test_what_is_sent_is_aligned():
    request = Request(queries=np.ones((2, 3), np.float32), options={"a": [np.arange(3.0)]})
    raw = np.zeros(17 + 24, np.uint8)[1:25].view(np.float32).reshape(2, 3)
    other = engine_module.aligned(Request(queries=raw, options={"a": [raw]}))
    assert not raw.flags.aligned
    assert other.queries.flags.aligned
    assert other.options["a"][0].flags.aligned
    assert engine_module.aligned(request).queries is request.queries
