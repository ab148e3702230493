"""Memories with a pattern_shape: images go in and come out as images, and all else is as without."""

import copy
import json
import pickle

import numpy as np
import pytest
from test_files import header_of, put, sealed

import sparsehopfield as sh
from sparsehopfield import structures

FLAT = np.random.default_rng(0).random((40, 24)).astype(np.float32)
SHAPES = [(4, 6), (2, 3, 4), (24,), (1, 24), (24, 1), (2, 2, 3, 2)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def both(shape, flat=FLAT, **options):
    """Return a memory of images, and one of the same rows without a shape."""
    options = {"beta": 3.0, "similarity": "euclidean"} | options
    return sh.HopfieldMemory(flat.reshape(-1, *shape), pattern_shape=shape, **options), sh.HopfieldMemory(
        flat, **options
    )


def same(a, b):
    np.testing.assert_array_equal(a, b, strict=True)


@shapes
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,), (0, 2)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operations(shape, leading, dtype):
    images, rows = both(shape)
    queries = np.random.default_rng(1).random((*leading, 24)).astype(dtype)
    pictures = queries.reshape(*leading, *shape)
    same(images.update(pictures), rows.update(queries).reshape(pictures.shape))
    states, info = images.retrieve(pictures, return_info=["weights", "energy"])
    expected, plain = rows.retrieve(queries, return_info=["weights", "energy"])
    same(states, expected.reshape(pictures.shape))
    same(info.states, states)
    for name in ("steps", "converged", "support_size", "energy"):
        same(getattr(info, name), getattr(plain, name))
    same(info.weights.toarray(), plain.weights.toarray())
    same(images.energy(pictures), rows.energy(queries))
    same(images.associate(pictures).toarray(), rows.associate(queries).toarray())
    same(images.candidates(pictures).position, rows.candidates(queries).position)
    certified, flat_certified = images.certify(pictures), rows.certify(queries)
    same(certified.index, flat_certified.index)
    same(certified.gap, flat_certified.gap)


@shapes
def test_flat_queries_give_images(shape):
    images, rows = both(shape)
    queries = FLAT[:6] + 0.1
    same(images.retrieve(queries), rows.retrieve(queries).reshape(6, *shape))
    same(images.update(queries.reshape(2, 3, 24)), rows.update(queries).reshape(2, 3, *shape))
    same(images.update(queries[0]), rows.update(queries[0]).reshape(shape))


def test_arrays_that_end_in_the_shape_are_images():
    """(n, 1, 24) might be n images or n lists of one row; the first is meant."""
    images, rows = both((1, 24))
    queries = FLAT[:5] + 0.1
    same(images.update(queries[:, None]), rows.update(queries)[:, None])
    assert images.update(queries[:, None]).shape == (5, 1, 24)
    assert images.update(queries[:, None, None]).shape == (5, 1, 1, 24)
    assert images.update(queries).shape == (5, 1, 24)


@shapes
def test_with_values_the_values_come_out(shape):
    images, rows = both(shape, values=np.arange(80.0).reshape(40, 2))
    queries = FLAT[:6].reshape(2, 3, *shape) + 0.1
    same(images.update(queries), rows.update(queries.reshape(2, 3, 24)))
    mixed, info = images.retrieve(queries, return_info=True)
    expected, plain = rows.retrieve(queries.reshape(2, 3, 24), return_info=True)
    same(mixed, expected)
    same(info.states, plain.states.reshape(queries.shape))
    same(images.values, rows.values)
    assert images.patterns.shape == (40, *shape)


@pytest.mark.parametrize("structure", [structures.TopK(3), structures.RandomFeatures(64)], ids=repr)
def test_structures(structure):
    images, rows = both((4, 6), structure=structure, similarity="dot", separation="softmax")
    queries = FLAT[:6].reshape(6, 4, 6)
    same(images.retrieve(queries), rows.retrieve(FLAT[:6]).reshape(6, 4, 6))


def outputs(shape):
    """Yield arrays that a result may be written to, as they may lie in memory."""
    yield np.full(shape, np.nan, np.float32)
    yield np.full(shape[::-1], np.nan, np.float32).T
    yield np.full((*shape[:-1], 2 * shape[-1]), np.nan, np.float32)[..., ::2]
    yield np.full(shape, np.nan, np.float32)[::-1, :, ::-1]


def test_out():
    images, rows = both((4, 6))
    queries = FLAT[:5].reshape(5, 4, 6) + 0.1
    expected = rows.update(FLAT[:5] + 0.1).reshape(5, 4, 6)
    for out in outputs((5, 4, 6)):
        assert images.update(queries, out=out) is out
        same(out, expected)
        out[...] = 0
        assert images.retrieve(queries, out=out, max_steps=1, tol=10.0) is out
        same(out, expected)
    for shape in ((5, 24), (5, 6, 4), (4, 6)):
        with pytest.raises(ValueError, match=r"^out: must have shape \(5, 4, 6\)"):
            images.update(queries, out=np.empty(shape, np.float32))
    with pytest.raises(ValueError, match=r"^out: overlaps an input"):
        images.update(queries, out=queries)
    stored = FLAT.reshape(40, 4, 6).copy()
    memory = sh.HopfieldMemory(stored, pattern_shape=(4, 6))
    with pytest.raises(ValueError, match=r"^out: overlaps an input"):
        memory.update(queries[0], out=stored[7])


def test_excluded_patterns():
    for values in (None, np.arange(80.0).reshape(40, 2)):
        images, rows = both((4, 6), values=values)
        queries = FLAT[:5] + 0.01
        shape = (-1, 4, 6) if values is None else (-1, 2)
        expected = rows.update(queries, exclude=np.arange(5)).reshape(shape)
        same(images.update(queries.reshape(5, 4, 6), exclude=np.arange(5)), expected)
        same(images.leave_one_out(), rows.leave_one_out().reshape(shape))
        same(images.leave_one_out([3, 7]), rows.leave_one_out([3, 7]).reshape(shape))


# What is stored


@shapes
def test_images_and_rows_make_the_same_memory(shape):
    images, rows = both(shape)
    of_rows = sh.HopfieldMemory(FLAT, 3.0, similarity="euclidean", pattern_shape=shape)
    assert images.pattern_shape == of_rows.pattern_shape == shape
    assert rows.pattern_shape is None
    assert images.shape == rows.shape == (40, 24)
    for memory in (images, of_rows):
        same(memory.patterns, FLAT.reshape(40, *shape))
        same(memory.values, memory.patterns)
        assert not memory.patterns.flags.writeable
        assert np.shares_memory(memory.patterns, FLAT)


def test_add_and_remove():
    images, rows = both((4, 6))
    more = FLAT[:6] + 1
    same(images.add(more[:3].reshape(3, 4, 6)), rows.add(more[:3]))
    same(images.add(more[3:]), rows.add(more[3:]))
    for memory in (images, rows):
        memory.remove([0, 7, 41])
    same(images.patterns, rows.patterns.reshape(43, 4, 6))
    for memory in (images, rows):
        memory.remove(slice(0, 30))  # the others are copied together
    same(images.patterns, rows.patterns.reshape(13, 4, 6))
    same(images.retrieve(more.reshape(6, 4, 6)), rows.retrieve(more).reshape(6, 4, 6))


def test_borrowed_images():
    pictures = FLAT.reshape(40, 4, 6).copy()
    memory = sh.HopfieldMemory(pictures, pattern_shape=(4, 6), copy=False)
    assert np.shares_memory(memory.patterns, pictures)
    memory.verify()
    pictures[3, 2, 1] += 1
    with pytest.raises(ValueError, match=r"^patterns: the array was changed"):
        memory.verify()
    every_second = np.repeat(FLAT, 2, axis=0).reshape(80, 4, 6)[::2]  # rows apart, each in one piece
    assert np.shares_memory(sh.HopfieldMemory(every_second, pattern_shape=(4, 6), copy=False).patterns, every_second)
    copied = sh.HopfieldMemory(FLAT.reshape(40, 4, 6), pattern_shape=(4, 6), copy=True)
    assert not np.shares_memory(copied.patterns, FLAT)


def test_images_that_must_be_laid_out_anew():
    turned = FLAT.reshape(40, 6, 4).swapaxes(1, 2)
    memory = sh.HopfieldMemory(turned, pattern_shape=(4, 6))
    same(memory.patterns, turned)
    assert not np.shares_memory(memory.patterns, turned)
    assert memory._snapshot.fingerprint is None  # nobody else can change the copy
    with pytest.raises(ValueError, match=r"^copy: cannot be avoided"):
        sh.HopfieldMemory(turned, pattern_shape=(4, 6), copy=False)
    same(memory.update(turned[:3]), sh.HopfieldMemory(turned.copy(), pattern_shape=(4, 6)).update(turned[:3].copy()))


def test_images_of_zarr():
    zarr = pytest.importorskip("zarr", reason='zarr arrays need zarr: pip install "sparsehopfield[zarr]"')
    stored = zarr.array(FLAT.reshape(40, 4, 6), chunks=(7, 4, 6))
    memory = sh.HopfieldMemory(stored, pattern_shape=(4, 6))
    same(memory.patterns, FLAT.reshape(40, 4, 6))
    assert memory._snapshot.fingerprint is None  # nobody else has the copy
    with pytest.raises(ValueError, match=r"^copy: cannot be avoided"):
        sh.HopfieldMemory(stored, pattern_shape=(4, 6), copy=False)


def test_bytes_of_colour():
    pictures = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3), np.uint8)
    memory = sh.HopfieldMemory(pictures, pattern_shape=(5, 4, 3), scale=1 / 255, similarity="euclidean", beta=20.0)
    assert memory.patterns.dtype == np.uint8
    assert np.shares_memory(memory.patterns, pictures)
    found = memory.retrieve(pictures[:4] / 255 + 0.01)
    assert found.shape == (4, 5, 4, 3)
    np.testing.assert_allclose(found, pictures[:4] / 255, rtol=1e-6)
    memory.add(pictures[:2])
    assert len(memory) == 32


@shapes
def test_copies_and_pickles(shape):
    images, _ = both(shape, ids=np.arange(40) + 5)
    for again in (copy.copy(images), copy.deepcopy(images), pickle.loads(pickle.dumps(images))):
        assert again.pattern_shape == shape
        assert repr(again) == repr(images)
        same(again.retrieve(images.patterns[:3]), images.retrieve(images.patterns[:3]))


def test_it_is_shown():
    images, rows = both((4, 6))
    assert repr(images) == repr(rows)[:-1] + ", pattern_shape=(4, 6))"
    assert "4 x 6" in images._repr_html_()
    assert "pattern shape" not in rows._repr_html_()
    with pytest.raises(AttributeError):
        images.pattern_shape = (6, 4)


# Bad input


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((), ValueError, "must list at least one side"),
        (24, ValueError, "must list at least one side"),
        ([[4, 6]], ValueError, "must list at least one side"),
        ((4, 0), ValueError, "must list at least one side, all of at least 1"),
        ((-4, -6), ValueError, "all of at least 1"),
        ((4.0, 6.0), TypeError, "must be whole numbers"),
        ("4 x 6", TypeError, "must be whole numbers"),
        ((True, True), TypeError, "must be whole numbers"),
        ((2**64, 1), OverflowError, "at most|must be whole numbers"),
    ],
    ids=str,
)
def test_shapes_that_are_none(shape, error, message):
    with pytest.raises((error, TypeError), match=rf"^pattern_shape: .*({message})"):
        sh.HopfieldMemory(FLAT, pattern_shape=shape)


@pytest.mark.parametrize(
    "patterns", [FLAT, FLAT.reshape(40, 6, 4), FLAT.reshape(40, 2, 12), FLAT[0], 3.0], ids=np.shape
)
def test_patterns_of_another_shape(patterns):
    with pytest.raises(
        ValueError, match=r"^patterns: the last axes must be those of a pattern, \(5, 5\), or the last "
    ):
        sh.HopfieldMemory(patterns, pattern_shape=(5, 5))


def test_images_without_a_shape():
    with pytest.raises(ValueError, match=r"by reshape\(40, -1\), or give a HopfieldMemory pattern_shape=\(4, 6\)$"):
        sh.HopfieldMemory(FLAT[:40].reshape(40, 4, 6))


def test_one_image_is_no_list_of_them():
    with pytest.raises(ValueError, match=r"^patterns: must be two-dimensional, one row a pattern"):
        sh.HopfieldMemory(FLAT[0].reshape(4, 6), pattern_shape=(4, 6))
    images, _ = both((4, 6))
    with pytest.raises(ValueError, match=r"^patterns: must be two-dimensional, one row a pattern"):
        images.add(FLAT[0].reshape(4, 6))
    with pytest.raises(ValueError, match=r"^patterns: the last axes must be"):
        images.add(FLAT[:4].reshape(4, 6, 4))
    assert len(images) == 40


def test_queries_of_another_shape():
    images, _ = both((4, 6))
    for call in (images.update, images.retrieve, images.energy, images.associate, images.certify, images.candidates):
        with pytest.raises(ValueError, match=r"^queries: the last axes must be those of a pattern, \(4, 6\), or the "):
            call(np.ones((6, 4)))
    with pytest.raises(ValueError, match=r"^query: the last axes must be"):
        images.explain(np.ones((6, 4)))
    with pytest.raises(ValueError, match=r"^query: must be a single vector"):
        images.explain(np.ones((2, 4, 6)))


# Explanations and reports


def test_explanations():
    images, rows = both((4, 6), beta=0.5)
    why, plain = images.explain(FLAT[3].reshape(4, 6)), rows.explain(FLAT[3])
    assert str(why) == str(plain) == str(images.explain(FLAT[3]))
    same(why.state, plain.state.reshape(4, 6)) if why.state.ndim == 2 else same(why.state, plain.state)
    assert (why.pattern_shape, plain.pattern_shape) == ((4, 6), None)


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [
        ((4, 6), (4, 6)),
        ((4, 6, 1), (4, 6)),
        ((1, 6, 4), (6, 4)),
        ((3, 4, 2), (4, 2, 3)),
        ((4, 2, 3), (4, 2, 3)),
        ((24,), None),
        ((2, 3, 4), None),
        ((2, 2, 3, 2), None),
    ],
    ids=str,
)
def test_figures_draw_images_of_the_shape(shape, drawn):
    pytest.importorskip("matplotlib", reason='figures need Matplotlib: pip install "sparsehopfield[studies]"')
    images, rows = both(shape)
    why = images.explain(images.patterns[3])
    axes = why.plot().axes
    if drawn is None:
        assert not any(axis.images for axis in axes)  # bars
    else:
        picture = axes[0].images[0].get_array()
        assert picture.shape == drawn
        expected = FLAT[3].reshape(shape)
        expected = expected.reshape(drawn) if len(drawn) == 2 or shape[-1] == 3 else np.moveaxis(expected, 0, -1)
        np.testing.assert_allclose(picture, (expected - FLAT[3].min()) / np.ptp(FLAT[3]), rtol=1e-6)
    assert not any(axis.images for axis in why.plot(()).axes)
    shown = [axis.images[0].get_array().shape for axis in images.report().figure().axes if axis.images]
    assert {*shown} == ({drawn} if drawn else set())
    assert not any(axis.images for axis in images.report().figure(()).axes)
    assert not any(axis.images for axis in rows.report().figure().axes)
    assert any(axis.images for axis in rows.report().figure((6, 4)).axes)


# Files


@shapes
@pytest.mark.parametrize("mmap", [False, True])
def test_files(shape, mmap, tmp_path):
    images, _ = both(shape)
    images.save(tmp_path / "memory")
    again = sh.HopfieldMemory.load(tmp_path / "memory", mmap=mmap, verify=True)
    assert again.pattern_shape == shape
    assert repr(again) == repr(images)
    same(again.patterns, images.patterns)
    same(again.retrieve(images.patterns[:3] + 0.1), images.retrieve(images.patterns[:3] + 0.1))
    fields = header_of((tmp_path / "memory").read_bytes())[0]["__metadata__"]
    assert (fields["version"], json.loads(fields["pattern_shape"])) == ("3", list(shape))


def test_files_without_a_shape_are_as_before(tmp_path):
    _, rows = both((4, 6))
    rows.save(tmp_path / "memory")
    fields = header_of((tmp_path / "memory").read_bytes())[0]["__metadata__"]
    assert fields["version"] == "1"
    assert "pattern_shape" not in fields
    assert sh.HopfieldMemory.load(tmp_path / "memory").pattern_shape is None


def test_files_with_an_index(tmp_path):
    flat = np.random.default_rng(0).random((3000, 64), dtype=np.float32)
    images, rows = both((8, 8), flat)
    images.save(tmp_path / "with", index=True)
    header = header_of((tmp_path / "with").read_bytes())[0]
    assert header["__metadata__"]["version"] == "3"
    assert "index_codes" in header
    again = sh.HopfieldMemory.load(tmp_path / "with", mmap=True, verify=True)
    assert again.index_nbytes == images.index_nbytes > 0
    same(again.retrieve(again.patterns[:9]), rows.retrieve(flat[:9]).reshape(9, 8, 8))
    images.save(tmp_path / "without", index=False)
    assert "index_codes" not in header_of((tmp_path / "without").read_bytes())[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pattern_shape": "[5, 5]"}, r"pattern_shape: \(5, 5\) is not that of 24 features"),
        ({"pattern_shape": "[]"}, "pattern_shape: must list at least one side"),
        ({"pattern_shape": "[-4, -6]"}, "pattern_shape: must list at least one side"),
        ({"pattern_shape": "[4.0, 6.0]"}, "pattern_shape: must be whole numbers"),
        ({"pattern_shape": '["4", "6"]'}, "pattern_shape: must be whole numbers"),
        ({"pattern_shape": '{"4": 6}'}, "pattern_shape: "),
        ({"pattern_shape": "[[4], [6, 1]]"}, "pattern_shape: "),
        ({"pattern_shape": f"[{10**30}, 1]"}, "pattern_shape: "),
        ({"pattern_shape": "[" * 200 + "]" * 200}, "pattern_shape: "),
        ({"pattern_shape": "null"}, "pattern_shape: is missing"),
        ({"pattern_shape": "no json"}, "pattern_shape: "),
        ({"version": "1"}, "pattern_shape: belongs to version '3'"),
        ({"version": "2"}, "pattern_shape: belongs to version '3'"),
        ({"pattern_shape": None}, "pattern_shape: belongs to version '3'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_damaged_files(fields, message, tmp_path):
    both((4, 6))[0].save(tmp_path / "memory")
    header, data = header_of((tmp_path / "memory").read_bytes())
    header["__metadata__"] |= fields
    header["__metadata__"] = {name: text for name, text in header["__metadata__"].items() if text is not None}
    put(tmp_path / "memory", sealed(header), data)
    with pytest.raises(sh.FileFormatError, match=rf"memory: {message}"):
        sh.HopfieldMemory.load(tmp_path / "memory")


# Other memories


def test_tensors():
    torch = pytest.importorskip("torch", reason="memories of tensors are for those who have PyTorch")
    images, rows = both((4, 6))
    pictures = torch.from_numpy(FLAT.reshape(40, 4, 6).copy())
    memory = sh.torch.HopfieldMemory(pictures, 3.0, similarity="euclidean", pattern_shape=(4, 6), copy=False)
    assert memory.pattern_shape == (4, 6)
    queries = pictures[:5] + 0.1
    states, info = memory.retrieve(queries, return_info=True)
    same(states.numpy(), images.retrieve(queries.numpy()))
    same(info.states.numpy(), states.numpy())
    same(memory.update(queries.double()).numpy(), images.update(queries.double().numpy()))
    assert memory.patterns.shape == (40, 4, 6)
    memory.add(queries)
    assert len(memory) == 45
    assert memory._lent == ()  # they have been copied
    with pytest.raises(ValueError, match=r"^queries: the last axes must be"):
        memory.retrieve(torch.ones(6, 4))
    assert rows.pattern_shape is None


def test_a_sharded_memory_has_rows(tmp_path):
    distributed = pytest.importorskip("distributed", reason="sharded memories are for those who have Dask")
    images, rows = both((4, 6))
    images.save(tmp_path / "memory")
    client = distributed.Client(processes=False, dashboard_address=None)
    try:
        sharded = sh.distributed.ShardedMemory(str(tmp_path / "memory"), 3.0, similarity="euclidean", client=client)
        same(sharded.retrieve(FLAT[:5]), rows.retrieve(FLAT[:5]))
        with pytest.raises(ValueError, match=r"^queries: the last axis must have the patterns' 24 features"):
            sharded.retrieve(FLAT[:5].reshape(5, 4, 6))
    finally:
        client.close()
