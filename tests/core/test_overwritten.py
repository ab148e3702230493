"""Arrays that hold NaN or infinity although they were checked: their owner has written into them since.

Patterns and values that are not copied, mapped files, and the arrays of parts stay writable by others. Whatever then
scores NaN must end in an error that names what holds it: no crash, no endless loop, no zeros that look like an answer.
"""

import numpy as np
import pytest
from helpers import TABLE_MAPS, path, run_python

import sparsehopfield as sh
from sparsehopfield import Entmax, HopfieldMemory, Polynomial, layers, structures
from sparsehopfield._engine.association import Projection, associate_forward

MAPS = ["sparsemax", "softmax", "entmax15", Entmax(1.01), Entmax(30), Polynomial(3), *TABLE_MAPS]
WINDOWED = ["sparsemax", "entmax15", Entmax(1.01), Entmax(30)]
SIMILARITIES = ["dot", "euclidean", "cosine"]
BAD = [np.nan, np.inf, -np.inf]
N, D = 6, 12
STRUCTURES = {
    "all": None,
    "window": structures.Window(3, positions=np.arange(N)),
    "dilated": structures.Window(5, dilation=2, positions=np.arange(N)),
    "random": structures.RandomMask(60, seed=0),
    "top": structures.TopK(4),
    "blocks": structures.BlockSparse(np.eye(1, 16, dtype=bool), (N, 5)),
}
CALLS = {
    "update": lambda m, q: m.update(q),
    "retrieve": lambda m, q: m.retrieve(q),
    "energy": lambda m, q: m.energy(q),
    "associate": lambda m, q: m.associate(q, top=3),
    "explain": lambda m, q: m.explain(q[0]),
}
CERTIFICATES = {
    "margin": lambda m, q: m.margin(),
    "exact_radius": lambda m, q: m.exact_radius(),
    "certify": lambda m, q: m.certify(q),
    "capacity": lambda m, q: m.capacity(),
    "duplicates": lambda m, q: m.duplicates(0.1),
    "report": lambda m, q: m.report(),
    "is_fixed_point": lambda m, q: m.is_fixed_point(),
}


def borrowed(m=80, seed=0, **options):
    """A memory that looks at an array of ours, the array, and queries."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, D)).astype(np.float32)
    q = x[:N] + np.float32(0.1)
    memory = HopfieldMemory(x, options.pop("beta", 2.0), copy=False, **options)
    return memory, x, q


@pytest.mark.covering(2)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("separation", MAPS, ids=str)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_patterns(separation, similarity, structure):
    options = {"separation": separation, "similarity": similarity, "structure": STRUCTURES[structure]}
    for bad in BAD:
        for row in (slice(None), slice(2, 3)):
            for name, call in CALLS.items():
                if isinstance(separation, Polynomial) and name == "energy":
                    continue
                if name == "explain" and (row != slice(None) or structure in ("window", "dilated", "blocks")):
                    continue  # of one query, which need not look at the row, and has no place of its own
                memory, x, q = borrowed(**options)
                x[row] = bad
                with pytest.raises(ValueError, match=r"patterns: row [02] contains NaN or infinity"):
                    call(memory, q)


@pytest.mark.parametrize("call", CERTIFICATES)
@pytest.mark.parametrize("separation", WINDOWED, ids=str)
def test_certificates(call, separation):
    for bad in BAD:
        for row in (slice(None), slice(2, 3)):
            memory, x, q = borrowed(separation=separation)
            x[row] = bad
            with pytest.raises(ValueError, match=r"patterns: (row [02] contains|contain) NaN or infinity"):
                CERTIFICATES[call](memory, q)


@pytest.mark.parametrize("call", ["duplicates", "report", "is_fixed_point"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_patterns_that_ask_for_themselves(similarity, call):
    """Margins are kept from before; nobody brought queries that the error could name."""
    for bad in BAD:
        for row in (slice(None), slice(2, 3)):
            memory, x, q = borrowed(similarity=similarity)
            x[2] = x[3]
            memory = HopfieldMemory(x, 2.0, copy=False, similarity=similarity)
            memory.margin()
            x[row] = bad
            with pytest.raises(ValueError, match=r"patterns: (row [02] contains|contain) NaN or infinity"):
                CERTIFICATES[call](memory, q)


@pytest.mark.parametrize("separation", MAPS, ids=str)
def test_values_that_nobody_checks(separation):
    """With check_finite=False they may hold NaN from the start, also after other rows or another index came in."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((20, 4)) + 1e4).astype(np.float32)
    values = x.copy()
    values[3] = np.nan
    options = {"check_finite": False, "separation": separation, "similarity": "euclidean"}
    new = values[:1]
    for more in (x[:1], np.zeros((1, 4), np.float32)):  # the second lies so far off that the norms are taken anew
        memory = HopfieldMemory(x, 1.0, values=values, **options)
        memory.add(more, values=new)
        assert np.isnan(memory.update(x[:5])).any()
        with pytest.raises(ValueError, match="values: row 0 contains NaN or infinity"):
            memory.add(more, values=values[3:4])
    memory = HopfieldMemory(x, 1.0, values=values, **options)
    memory.index = False
    assert np.isnan(memory.update(x[:5])).any()


@pytest.mark.covering(1)
@pytest.mark.parametrize("way", ["scan", "lines", "columns"])
@pytest.mark.parametrize("separation", WINDOWED, ids=str)
def test_after_and_before_an_index(separation, way):
    for beta in (2.0, 1e-4):  # at 1e-4 lists overflow
        for bad in BAD:
            for ready in (True, False):
                for row in (slice(None), slice(3, 4)):
                    memory, x, q = borrowed(3000, separation=separation, beta=beta)
                    with path(way):
                        if ready:
                            memory.update(q)
                        x[row] = bad
                        with pytest.raises(ValueError, match=r"patterns: row [03] contains NaN or infinity"):
                            memory.update(q)


@pytest.mark.parametrize("separation", MAPS, ids=str)
@pytest.mark.parametrize("structure", ["all", "window", "blocks", "top"])
def test_values(separation, structure):
    for bad in BAD:
        values = np.random.default_rng(1).standard_normal((80, 3)).astype(np.float32)
        memory, _, q = borrowed(separation=separation, structure=STRUCTURES[structure], values=values)
        before = memory.update(q)
        values[:] = bad
        with pytest.raises(ValueError, match="values: row 0 contains NaN or infinity"):
            memory.update(q)
        values[:] = 1
        assert np.isfinite(memory.update(q)).all()
        assert np.isfinite(before).all()
    unchecked = np.full((80, 3), np.nan, np.float32)
    assert np.isnan(sh.update(q, memory.patterns, 1.0, values=unchecked, check_finite=False)).all()


def test_many_patterns_of_full_support_and_wide_rows():
    for separation in ("softmax", Polynomial(2), "sparsemax"):
        for bad in BAD:
            memory, x, q = borrowed(3000, separation=separation, beta=1e-5)
            x[2999] = bad
            with pytest.raises(ValueError, match="patterns: row 2999 contains NaN or infinity"):
                memory.update(q)


def test_a_mapped_file(tmp_path):
    rng = np.random.default_rng(2)
    rows = np.memmap(tmp_path / "rows.f4", np.float32, "w+", shape=(500, D))
    rows[:] = rng.standard_normal(rows.shape)
    for separation in MAPS:
        memory = HopfieldMemory(
            np.memmap(tmp_path / "rows.f4", np.float32, "r", shape=rows.shape), separation=separation
        )
        memory.update(memory.patterns[:3])
        keep = rows[7].copy()
        rows[7] = np.nan
        with pytest.raises(ValueError, match="patterns: row 7 contains NaN or infinity"):
            memory.update(keep[None])
        rows[7] = keep


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types(dtype):
    x = np.random.default_rng(3).standard_normal((70, D)).astype(dtype)
    for separation in MAPS:
        y = x.copy()
        memory = HopfieldMemory(y, separation=separation, copy=False)
        y[69] = np.nan
        with pytest.raises(ValueError, match="patterns: row 69 contains NaN or infinity"):
            memory.update(x[:4].astype(memory.dtype))


def test_larger_rows_overflow():
    memory, x, q = borrowed(separation="softmax")
    x[:] = 3e38
    with pytest.raises(OverflowError, match="queries: the scores of row"):
        memory.update(q)


# --- parts ----------------------------------------------------------------------------------------

CRASHED = """
import json
import numpy as np
import sparsehopfield as sh
x = np.eye(5)
said = []
for separation in ("sparsemax", "entmax15", sh.Entmax(3.0), sh.Entmax(200.0)):
    for bad in (np.nan, np.inf, -np.inf):
        part = sh.candidates(x[:2], x, 2.0, separation=separation)
        part.score[:] = bad
        for call in (lambda: sh.merge([part]), part.weights, lambda: part.states(x), lambda: part.bound):
            try:
                call()
                said.append("nothing")
            except ValueError as error:
                said.append(str(error))
print(json.dumps(said))
"""


def test_scores_of_a_part():
    said = run_python(CRASHED)
    assert len(said) == 48
    for i, words in enumerate(said):
        assert words.startswith("score: score contains NaN" if i % 4 else "parts[0]: score contains NaN")


@pytest.mark.parametrize("separation", MAPS, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_every_array_of_a_part(separation, bad):
    x = np.random.default_rng(4).standard_normal((30, 4)).astype(np.float32)
    for name in ("beta", "score", "scale", "sum", "mixture"):
        parts = [sh.candidates(x[:3], x[a : a + 15], 1.0, separation=separation, offset=a) for a in (0, 15)]
        whole = sh.merge(parts)
        array = getattr(parts[1], name)
        if array is None:
            continue
        array[..., -1] = bad
        with pytest.raises(ValueError, match=rf"parts\[1\]: {name} contains NaN"):
            sh.merge(parts)
        with pytest.raises(ValueError, match=f"{name} contains NaN"):
            parts[1].states(*([x] if parts[1].score is not None else []))
        assert np.isfinite(whole.states(*([x] if whole.score is not None else []))).all()


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", MAPS, ids=str)
@pytest.mark.parametrize("steps", [0, 2])
def test_projections(separation, steps):
    rng = np.random.default_rng(5)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    for name in ("key_projection", "value_projection"):
        for part in (0, 1):
            for bad in BAD:
                maps = {"key_projection": Projection(normal(2, 4, 6), normal(2, 4))}
                maps["value_projection"] = Projection(normal(2, 5, 6), normal(2, 5))
                maps[name][part][1, 2] = bad
                rows = normal(2, 7, 1, 6)
                kept = {k: v for k, v in maps.items() if k == name or not isinstance(separation, Polynomial)}
                if isinstance(separation, Polynomial) and name == "key_projection":
                    continue  # which it does not take
                queries = normal(2, 3, 2, 4) if "key_projection" in kept else normal(2, 3, 2, 6)
                with pytest.raises(ValueError, match=rf"{name}: row \d+ contains NaN or infinity"):
                    associate_forward(queries, rows, rows, 1.0, separation=separation, update_steps_max=steps, **kept)


@pytest.mark.parametrize(
    "make", [layers.Hopfield, layers.HopfieldPooling, lambda e: layers.HopfieldLayer(e, quantity=5)]
)
def test_parameters_of_layers(make):
    x = np.random.default_rng(6).standard_normal((2, 5, 4)).astype(np.float32)
    for name in make(4).parameters():
        if "out_proj" in name or name in ("pooling_weights", "lookup_weights"):
            continue  # behind the association; and inputs of it, by that name
        for bad in BAD:
            layer = make(4)
            layer.parameters()[name].value.flat[0] = bad
            with pytest.raises(ValueError, match=rf"{name.removeprefix('hopfield.')}: contains NaN or infinity"):
                layer(x)
