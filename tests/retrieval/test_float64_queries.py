"""Queries in float64, or of wide integers, of a float32 memory: as of a float64 memory, and without a copy of it."""

import tempfile

import numpy as np
import pytest
from helpers import CUTOFF_MAPS, SIMILARITIES, name_of, quiet, run_python, same_bits

import sparsehopfield as sh
from sparsehopfield import structures
from sparsehopfield._engine.call import Call
from sparsehopfield._engine.separations import separation_code

FULL_MAPS = ["softmax", sh.Polynomial(3)]


def draw(m=700, d=70, n=9, width=3, shift=0.0):
    """Give float32 patterns, values and float64 queries near some patterns."""
    rng = np.random.default_rng(m + d)
    patterns = (rng.normal(size=(m, d)) + shift).astype(np.float32)
    queries = patterns[:: m // n][:n] + 0.7 * rng.normal(size=(n, d))
    return patterns, rng.normal(size=(m, width)).astype(np.float32), queries


def pair(patterns, values, **options):
    """Give a float32 memory, and a float64 memory of the same numbers."""
    doubles = None if values is None else values.astype(np.float64)
    return sh.HopfieldMemory(patterns, values=values, **options), sh.HopfieldMemory(
        patterns.astype(np.float64), values=doubles, **options
    )


@pytest.mark.covering(2)
@pytest.mark.parametrize("shift", [0.0, 50.0])
@pytest.mark.parametrize("beta", [0.02, 2.0])
@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize("separation", CUTOFF_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_all_that_is_asked_in_float64(similarity, separation, with_values, beta, shift):
    patterns, values, queries = draw(shift=shift)
    narrow, wide = pair(
        patterns, values if with_values else None, beta=beta, similarity=similarity, separation=separation
    )
    for structure in (None, structures.TopK(5), structures.Window(9, positions=np.arange(9))):
        narrow.structure = wide.structure = structure
        assert same_bits(narrow.update(queries), wide.update(queries))
        assert same_bits(narrow.energy(queries), wide.energy(queries))
        assert same_bits(narrow.associate(queries), wide.associate(queries))
    narrow.structure = wide.structure = None
    with quiet():
        assert same_bits(narrow.retrieve(queries, max_steps=4), wide.retrieve(queries, max_steps=4))
    parts = narrow.candidates(queries), wide.candidates(queries)
    assert same_bits(parts[0].states(narrow.values), parts[1].states(wide.values))


@pytest.mark.parametrize("separation", FULL_MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("beta", [0.02, 20.0])
def test_maps_with_full_support(similarity, separation, beta):
    """Scores come from the products of a BLAS, which may sum otherwise where it is asked for a part."""
    patterns, values, queries = draw(m=1500, d=140)
    for mixed in (None, values):
        narrow, wide = pair(patterns, mixed, beta=beta, similarity=similarity, separation=separation)
        for structure in (None, structures.RandomMask(20), structures.Window(30, dilation=3, positions=np.arange(9))):
            narrow.structure = wide.structure = structure
            got, want = narrow.update(queries), wide.update(queries)
            assert got.dtype == np.float64
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize("structure", [structures.LinearFeatures(), structures.RandomFeatures(16, seed=0)], ids=name_of)
def test_features(structure):
    patterns, values, queries = draw()
    narrow, wide = pair(patterns, values, separation="softmax", beta=0.02, structure=structure)
    assert same_bits(narrow.update(queries), wide.update(queries))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_every_path_and_shared_indexes(similarity):
    patterns, _, queries = draw(m=1500, d=130, n=40)
    narrow, wide = pair(patterns, None, beta=3.0, similarity=similarity, index=False)
    want, bits = wide.update(queries), separation_code("sparsemax")
    stored = sh.HopfieldMemory(patterns, 3.0, similarity=similarity)
    stored.update(queries)  # its float64 side is there before any index
    stored.build_index()
    assert stored.index_nbytes > 0
    core = Call.prepare(stored._snapshot.pattern_set, queries, 3.0, bits).executor.core
    assert sh._core.index_nbytes(core) == stored.index_nbytes
    bounds = sh._core._bounds(core, queries, np.ones(1), *bits)
    own = Call.prepare(wide._snapshot.pattern_set, queries, 3.0, bits).executor.core
    assert same_bits(bounds, sh._core._bounds(own, queries, np.ones(1), *bits))
    for memory in (narrow, stored):
        assert same_bits(memory.update(queries), want)
    assert same_bits(stored.update(np.repeat(queries, 8, axis=0)), np.repeat(want, 8, axis=0))


def test_growing_and_removing():
    patterns, values, queries = draw()
    narrow, wide = pair(patterns[:400], values[:400], beta=0.5, similarity="euclidean")
    for memory in (narrow, wide):
        memory.update(queries)
        memory.add(patterns[400:], values[400:])
    assert same_bits(narrow.update(queries), wide.update(queries))
    for memory in (narrow, wide):
        memory.remove([3, 500])
    assert same_bits(narrow.update(queries), wide.update(queries))
    assert narrow.patterns.dtype == narrow.values.dtype == np.float32


def test_integers_of_more_than_16_bits():
    patterns = np.random.default_rng(0).integers(-1000, 1000, size=(300, 20)).astype(np.float32)
    narrow, wide = pair(patterns, None, beta=1e-5)
    queries = patterns[:5].astype(np.int64) * 100_000 + 1
    got = narrow.update(queries)
    assert got.dtype == np.float64
    assert same_bits(got, wide.update(queries))


def test_certificates():
    patterns, _, queries = draw(m=200, d=20)
    narrow, wide = pair(patterns, None, beta=2.0, similarity="euclidean")
    close = np.concatenate([patterns[:9] + 1e-3 * (queries - patterns[:9]), queries])
    got, want = narrow.certify(close), wide.certify(close)
    assert same_bits(got.nearest, want.nearest)
    assert (want.index[:9] == np.arange(9)).all()
    assert same_bits(got.index, want.index)
    np.testing.assert_allclose(got.gap, want.gap, rtol=1e-5, atol=1e-5)  # less what rounding may do in each dtype


def test_no_copy_is_made():
    """In a process of its own, whose peak is told in KiB: of a mapped file with values, and of patterns in memory."""
    code = """
import json, resource
import numpy as np
import sparsehopfield as sh
m, d = 20_000, 256
patterns = np.random.default_rng(0).random((m, d), dtype=np.float32)
sh.HopfieldMemory(patterns, 5.0, index=False, values=patterns).save(FILE)
stored = sh.HopfieldMemory.load(FILE, mmap=True)
answers = [stored.update(patterns[:3])]  # the file's pages are there, and the core's threads
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for memory in (stored, sh.HopfieldMemory(patterns, 5.0, index=False)):
    answers.append(memory.update(patterns[:3].astype(np.float64)))
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, answers[1].dtype.name]))
"""
    with tempfile.TemporaryDirectory() as folder:
        more, dtype = run_python(code.replace("FILE", repr(f"{folder}/memory.safetensors")))
    assert dtype == "float64"
    assert more * 1024 < 20_000 * 256 * 8  # one copy in float64; the patterns' and the values' would be three
