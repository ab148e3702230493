"""Explanations: what they say is so by definition, and how they print and look."""

import sys

import numpy as np
import pytest

from sparsehopfield import Entmax, HopfieldMemory, Polynomial, reference, update
from sparsehopfield.inspect import explain as module

WINDOWED = ["sparsemax", "entmax15", Entmax(1.25), Entmax(3)]


def patterns(m=200, d=16, seed=0):
    return np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("separation", WINDOWED, ids=str)
@pytest.mark.parametrize("beta", [0.05, 0.5, 5.0])
def test_is_what_the_reference_says(similarity, separation, beta):
    X = patterns()
    x = X[7] + 0.5 * X[8]
    names = np.arange(200)[::-1] * 3
    memory = HopfieldMemory(X, beta, similarity=similarity, separation=separation, ids=names)
    why = memory.explain(x, top=200)
    weights = reference.associate(x, X, beta, similarity=similarity, separation=separation)[0]
    scores = reference.canonical_scores(x, X, similarity)[0]
    order = np.argsort(-scores)
    size = np.count_nonzero(weights)
    assert isinstance(why, module.Explanation)
    assert why.support_size == size == len(why.positions)
    np.testing.assert_array_equal(why.positions, order[:size])
    np.testing.assert_array_equal(why.ids, names[order[:size]])
    np.testing.assert_array_equal(why.scores, scores[order[:size]])  # the same bits
    np.testing.assert_array_equal(why.gaps, scores.max() - why.scores)
    np.testing.assert_allclose(why.weights, weights[order[:size]], atol=1e-6)
    assert why.mass == pytest.approx(1)
    assert why.beta == beta
    assert why.separation == separation
    assert why.energy == pytest.approx(memory.energy(x))
    np.testing.assert_array_equal(why.state, memory.update(x))
    np.testing.assert_array_equal(why.query, x)
    np.testing.assert_array_equal(why.patterns, X[order[:size]])
    assert why.stages["stored"] == 200
    assert why.stages["support"] == size
    assert sum(why.excluded.values()) == 200 - size
    assert (why.scores > why.threshold).all()
    if size == 200:
        assert why.miss is None
        return
    best = order[size]
    assert (why.miss.position, why.miss.id) == (best, names[best])
    assert why.miss.score == scores[best] <= why.threshold
    assert why.miss.gap == scores.max() - scores[best]
    assert why.miss.margin == why.threshold - scores[best]


@pytest.mark.parametrize("separation", ["softmax", Entmax(1), Polynomial(3)], ids=str)
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_maps_that_give_weight_to_all(separation, similarity):
    X = np.abs(patterns())
    memory = HopfieldMemory(X, 0.7, separation=separation, similarity=similarity)
    why = memory.explain(X[3], top=6)
    separation = "softmax" if separation == Entmax(1) else separation
    weights = reference.associate(X[3], X, 0.7, separation=separation, similarity=similarity)[0]
    order = np.argsort(-weights)[:6]
    np.testing.assert_array_equal(why.positions, order)
    np.testing.assert_allclose(why.weights, weights[order], rtol=1e-4)
    assert why.mass == pytest.approx(weights[order].sum(), rel=1e-4)
    assert why.mass < 1
    np.testing.assert_array_equal(why.scores, reference.canonical_scores(X[3], X, similarity)[0][order])
    assert (why.threshold, why.miss) == (None, None)
    assert why.support_size == 200
    assert why.stages == {"stored": 200, "support": 200}
    assert (why.energy is None) == isinstance(separation, Polynomial)
    assert "listed: 6 patterns with" in str(why)


def test_top_lists_the_heaviest():
    X = patterns()
    memory = HopfieldMemory(X, 0.005)
    every, few = memory.explain(X[3], top=200), memory.explain(X[3], top=4)
    assert every.support_size == few.support_size > 4
    np.testing.assert_array_equal(few.positions, every.positions[:4])
    np.testing.assert_array_equal(few.weights, np.sort(every.weights)[::-1][:4])
    assert few.mass == pytest.approx(np.sort(every.weights)[::-1][:4].sum())
    assert few.miss == every.miss
    assert len(memory.explain(X[3]).positions) == 10


def test_with_values():
    X, V = patterns(), np.random.default_rng(1).random((200, 3))
    why = HopfieldMemory(X, 0.5, values=V).explain(X[3])
    np.testing.assert_array_equal(why.state, update(X[3], X, 0.5, values=V))
    assert why.patterns.shape == (len(why.positions), 16)
    pytest.importorskip("matplotlib")
    assert len(why.plot().axes) == 1 + len(why.positions)  # the state is no image


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.float16])
def test_other_types(dtype):
    X = (np.random.default_rng(0).random((50, 9)) * 200).astype(dtype)
    why = HopfieldMemory(X, 1e-3, similarity="euclidean").explain(X[4].astype(float))
    assert why.positions[0] == 4
    np.testing.assert_array_equal(why.patterns, X[why.positions])
    assert why.patterns.dtype.kind == "f"


def test_one_pattern_and_equal_patterns():
    why = HopfieldMemory(np.ones((1, 3))).explain(np.ones(3))
    assert (why.support_size, why.miss) == (1, None)
    same = HopfieldMemory(np.ones((5, 3))).explain(np.ones(3), top=2)
    np.testing.assert_array_equal(same.positions, [0, 1])
    np.testing.assert_array_equal(same.gaps, 0)
    assert (same.support_size, same.miss) == (5, None)


def test_a_far_miss_at_a_large_beta():
    why = HopfieldMemory(np.diag([1e3, 1.0, 2.0]), 1e6).explain(np.ones(3))
    assert why.support_size == 1
    assert (why.miss.position, why.miss.gap) == (2, 998)
    assert why.miss.margin == pytest.approx(998, abs=1e-5)


def test_bad_arguments():
    memory = HopfieldMemory(patterns())
    for query in (np.ones((2, 16)), np.ones((1, 16)), 3.0):
        with pytest.raises(ValueError, match="query: must be a single vector of 16 features"):
            memory.explain(query)
    with pytest.raises(ValueError, match="16 features"):
        memory.explain(np.ones(15))
    with pytest.raises(ValueError, match="top"):
        memory.explain(np.ones(16), top=0)
    with pytest.raises(TypeError, match="top"):
        memory.explain(np.ones(16), top=2.5)
    memory.beta = np.ones(2)
    with pytest.raises(ValueError, match="beta"):
        memory.explain(np.ones(16))


def test_stages_as_the_core_tells_them():
    """With an index: bounds exclude, closer bounds exclude more, and what is left is scored."""
    rng = np.random.default_rng(3)
    X = (rng.normal(size=(4000, 6)) @ rng.normal(size=(6, 160)) + 0.1 * rng.normal(size=(4000, 160))).astype(np.float32)
    memory = HopfieldMemory(X, 0.05)
    assert list(memory.explain(X[3]).stages) == ["stored", "support"]  # the scan has no stages
    memory.build_index()
    why = memory.explain(X[3])
    assert list(why.stages) == ["stored", "bounded", "bounded closer", "support"]
    stages = list(why.stages.values())
    assert stages[0] == 4000 > stages[1] >= stages[2] >= stages[3] >= 1
    assert all(n >= 0 for n in why.excluded.values())
    assert stages[3] <= why.scored < 4000
    assert f"scored: {why.scored} patterns" in str(why)


def test_text():
    why = HopfieldMemory(patterns(), 0.05, ids=np.arange(200) + 10_000).explain(patterns()[3], top=3)
    lines = str(why).splitlines()
    assert lines[0] == f"sparsemax, beta 0.05: {why.support_size} of 200 patterns have weight"
    assert lines[2].split() == ["position", "id", "score", "gap", "weight"]
    assert len({len(line) for line in lines[2:6]}) == 1
    assert lines[3].split()[:2] == [str(why.positions[0]), str(why.ids[0])]
    page = why._repr_html_()
    assert page.count("<table ") == page.count("</table>") == 2
    assert page.count("<tr>") == 1 + 3 + 1 + len(why.stages)
    assert "<script" not in page
    assert f"position {why.miss.position}, id {why.miss.id}" in page
    assert "query" not in repr(why)


@pytest.mark.parametrize(
    ("d", "shape"),
    [
        (784, (28, 28)),
        (3072, (3, 32, 32)),
        (16, (4, 4)),
        (48, (3, 4, 4)),
        (9, ()),
        (27, ()),
        (15, ()),
        (2, ()),
        (1, ()),
    ],
)
def test_guessed_shape(d, shape):
    assert module.guess_image_shape(d) == shape


def test_pictures():
    pytest.importorskip("matplotlib")
    X = patterns()
    why = HopfieldMemory(X, 0.5).explain(X[3])
    figure = why.plot()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["query", "state"]
    assert titles[2] == f"{why.ids[0]}: {why.weights[0]:.2g}"
    assert len(titles) == 2 + len(why.positions)
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (4, 4)
    np.testing.assert_allclose(drawn, ((X[3] - X[3].min()) / (X[3].max() - X[3].min())).reshape(4, 4))
    assert why.plot((2, 8)).axes[0].images[0].get_array().shape == (2, 8)
    for shape in [(4, 5), (16,), (2, 2, 4), (1, 4, 2, 2)]:
        with pytest.raises(ValueError, match=r"shape: must be .* of 16 features"):
            why.plot(shape)


@pytest.mark.parametrize("separation", ["sparsemax", "softmax"])
def test_bars(separation):
    pytest.importorskip("matplotlib")
    X = patterns(d=7)
    why = HopfieldMemory(X, 0.5, separation=separation).explain(X[3])
    (axis,) = why.plot().axes
    assert axis.get_xlabel() == "score"
    assert not axis.images
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), why.scores)
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), why.weights)
    assert len(axis.lines) == (3 if separation == "sparsemax" else 1)
    assert len(HopfieldMemory(patterns()).explain(patterns()[3]).plot(()).axes) == 1


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="sparsehopfield"):
        HopfieldMemory(patterns()).explain(patterns()[3]).plot()
