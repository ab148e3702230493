"""Plots: what their lines, bands, bars and images hold, not their pixels."""

import sys
import warnings

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import layers
from sparsehopfield.inspect import plots

pytest.importorskip("matplotlib")
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((200, 16))


@pytest.fixture
def queries(X):
    return X[:6] + 0.4 * np.random.default_rng(1).standard_normal((6, 16))


def drawn_on(ax):
    """Return whether nothing of pyplot was needed."""
    return type(ax.figure) is Figure and ("matplotlib.pyplot" not in sys.modules or not _pyplot_figures())


def _pyplot_figures():
    return sys.modules["matplotlib.pyplot"].get_fignums()


# --- energy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15", sh.Normmax(2.0)])
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
def test_energy_path_has_the_energies_of_the_updates(separation, similarity, X, queries):
    memory = sh.HopfieldMemory(X, 0.6, separation=separation, similarity=similarity)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ax = plots.energy_path(memory, queries, max_steps=7)
    assert not told  # of queries that still move after one step
    assert drawn_on(ax)
    assert len(ax.lines) == len(queries)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sh.RetrievalWarning)  # of softmax after 7 steps
        steps = memory.retrieve(queries, max_steps=7, return_info=True)[1].steps
    for line, state, count in zip(ax.lines, queries, steps, strict=True):
        x, y = line.get_data()
        np.testing.assert_array_equal(x, np.arange(count + 1))
        for energy in y:
            assert energy == pytest.approx(memory.energy(state), rel=1e-12)
            state = memory.update(state)
        assert (np.diff(y) <= 1e-12 * np.abs(y).max()).all()
        assert y[-1] < y[0]
    assert ax.get_legend() is None


def test_energy_path_of_one_vector_and_with_values(X, queries):
    plain = sh.HopfieldMemory(X, 0.6)
    with_values = sh.HopfieldMemory(X, 0.6, values=np.ones((200, 2)))
    (one,) = plots.energy_path(plain, queries[2]).lines
    images = sh.HopfieldMemory(X.reshape(200, 4, 4), 0.6, pattern_shape=(4, 4))
    for given in (queries[2], queries[2].reshape(4, 4)):
        (line,) = plots.energy_path(images, given).lines
        np.testing.assert_array_equal(line.get_ydata(), one.get_ydata())
        sizes, wanted = (
            plots.support_by_beta(memory, query, [0.1, 1.0]).lines[0].get_ydata()
            for memory, query in ((images, given), (plain, queries[2]))
        )
        np.testing.assert_array_equal(sizes, wanted)
    every = plots.energy_path(with_values, queries.reshape(2, 3, 16), labels="abcdef", color="red")
    np.testing.assert_array_equal(every.lines[2].get_ydata(), one.get_ydata())
    assert [line.get_label() for line in every.lines] == list("abcdef")
    assert [text.get_text() for text in every.get_legend().get_texts()] == list("abcdef")
    assert every.lines[0].get_color() == "red"


def test_energy_path_of_a_sharded_memory(X, queries):
    from sparsehopfield.distributed import Coordinator, Serial, Shard

    shards = Serial([Shard(X[:64]), Shard(X[64:], first=64)])
    for whole, parts in zip(
        plots.energy_path(sh.HopfieldMemory(X, 0.6), queries).lines,
        plots.energy_path(Coordinator(shards, 0.6), queries).lines,
        strict=True,
    ):
        np.testing.assert_allclose(whole.get_ydata(), parts.get_ydata())


def test_energy_path_refuses(X, queries):
    memory = sh.HopfieldMemory(X)
    for error, name, arguments, options in (
        (TypeError, "memory", (X, queries), {}),
        (TypeError, "memory", (sh.HopfieldMemory, queries), {}),
        (ValueError, "queries", (memory, queries[:, :3]), {}),
        (ValueError, "queries", (memory, queries[:0]), {}),
        (ValueError, "queries", (memory, np.nan * queries), {}),
        (ValueError, "max_steps", (memory, queries), {"max_steps": 0}),
        (TypeError, "max_steps", (memory, queries), {"max_steps": 1.5}),
        (ValueError, "tol", (memory, queries), {"tol": -1.0}),
        (ValueError, "labels", (memory, queries), {"labels": ["a"]}),
        (TypeError, "labels", (memory, queries), {"labels": 3}),
        (TypeError, "ax", (memory, queries), {"ax": Figure()}),
        (ValueError, "memory", (sh.HopfieldMemory(X, separation=sh.Polynomial(3)), queries), {}),
    ):
        with pytest.raises(error, match=f"^{name}: "):
            plots.energy_path(*arguments, **options)


# --- support ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["sparsemax", "entmax15"])
def test_support_by_beta_counts_the_weights_of_exact_associations(separation, X, queries):
    memory = sh.HopfieldMemory(X, 0.5, separation=separation, values=np.ones((200, 1)))
    betas = [2.0, 0.01, 0.1, 40.0]
    ax = plots.support_by_beta(memory, queries, betas, quantiles=(0.25, 0.75))
    assert drawn_on(ax)
    wanted = np.stack([np.diff(sh.associate(queries, X, beta, separation=separation).indptr) for beta in sorted(betas)])
    assert wanted.max() > 50
    assert wanted.min() == 1
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), sorted(betas))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), np.median(wanted, axis=1))
    corners = {*map(tuple, ax.collections[0].get_paths()[0].vertices.tolist())}
    for q in (0.25, 0.75):
        assert {*zip(sorted(betas), np.quantile(wanted, q, axis=1).tolist(), strict=True)} <= corners
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.lines[1].get_xdata() == [0.5, 0.5]
    assert memory.beta == 0.5  # not changed


def test_support_by_beta_by_default(X, queries):
    memory = sh.HopfieldMemory(X, 0.3)
    ax = plots.support_by_beta(memory, queries[0])
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(x, 0.3 * np.geomspace(0.01, 100, 33))
    assert (np.diff(y) <= 0).all()
    memory.beta = np.ones(6)
    assert len(plots.support_by_beta(memory, queries, [1.0]).lines) == 1  # and none at the memory's beta
    with pytest.raises(ValueError, match=r"^betas: must be given"):
        plots.support_by_beta(memory, queries)


def test_support_by_beta_refuses(X, queries):
    memory = sh.HopfieldMemory(X)
    for error, name, arguments, options in (
        (TypeError, "memory", (X, queries), {}),
        (ValueError, "memory", (sh.HopfieldMemory(X, separation="softmax"), queries), {}),
        (ValueError, "memory", (sh.HopfieldMemory(X, separation=sh.Polynomial(3)), queries), {}),
        (ValueError, "queries", (memory, queries[:0]), {}),
        (ValueError, "queries", (memory, queries[:, :5]), {}),
        (ValueError, "betas", (memory, queries, [0.0]), {}),
        (ValueError, "betas", (memory, queries, []), {}),
        (ValueError, "betas", (memory, queries, 3.0), {}),
        (ValueError, "quantiles", (memory, queries), {"quantiles": (0.9, 0.1)}),
        (ValueError, "quantiles", (memory, queries), {"quantiles": 0.5}),
        (TypeError, "ax", (memory, queries), {"ax": "axes"}),
    ):
        with pytest.raises(error, match=f"^{name}: "):
            plots.support_by_beta(*arguments, **options)


# --- attention ----------------------------------------------------------------------------------------


def held(ax):
    """Return the array of an axes' first image, 0 where it is masked."""
    return ax.images[0].get_array().filled(0.0)


def test_attention_map_of_a_layer():
    x = np.random.default_rng(0).standard_normal((2, 5, 8))
    layer = layers.SparseHopfield(8, num_heads=4, scaling=300.0, random_state=0)
    weights = layer.get_association_matrix(x)
    assert (weights == 0).any()
    grid = plots.attention_map(weights)
    assert grid.shape == (2, 4)
    for b, h in np.ndindex(2, 4):
        np.testing.assert_array_equal(held(grid[b, h]), weights[b, h])
        np.testing.assert_array_equal(grid[b, h].images[0].get_array().mask, weights[b, h] == 0)
        assert grid[b, h].get_title() == f"sample {b}, head {h}"
        assert grid[b, h].images[0].norm.vmax == weights.max()  # one scale of colours
        assert grid[b, h].get_facecolor() == to_rgba(plots.ZERO)  # which masked weights leave to be seen
    row = plots.attention_map(weights[1], queries="abcde", keys=[1, 2, 3, 4, 5], cmap="Blues")
    assert row.shape == (4,)
    assert [ax.get_title() for ax in row] == [f"head {h}" for h in range(4)]
    assert [text.get_text() for text in row[0].get_yticklabels()] == list("abcde")
    assert [text.get_text() for text in row[3].get_xticklabels()] == list("12345")
    assert row[0].images[0].get_cmap().name == "Blues"
    assert len(row[0].figure.axes) == 5  # the colour bar
    assert len(plots.attention_map(weights[1], colorbar=False)[0].figure.axes) == 4


def test_zeros_are_drawn_in_a_colour_that_no_weight_has():
    weights = np.array([[0.0, 1e-300, 0.5], [1.0, 0.0, 2e-8]])
    ax = plots.attention_map(weights)
    colours = ax.images[0].to_rgba(ax.images[0].get_array())
    assert (colours[weights == 0][:, 3] == 0).all()  # transparent
    seen = colours[weights > 0]
    assert (seen[:, 3] == 1).all()
    assert np.abs(seen - to_rgba(plots.ZERO)).max(axis=1).min() > 0.3


def test_attention_map_of_a_memory_and_of_signed_weights(X, queries):
    memory = sh.HopfieldMemory(X, 0.5)
    ax = plots.attention_map(memory.associate(queries))
    np.testing.assert_array_equal(held(ax), memory.associate(queries).toarray())
    signed = plots.attention_map([[0.5, -0.25], [0.0, 0.1]]).images[0]
    assert (signed.norm.vmin, signed.norm.vmax) == (-0.5, 0.5)
    assert plots.attention_map(np.zeros((2, 2))).images[0].norm.vmax == 1


def test_attention_map_of_a_module():
    torch = pytest.importorskip("torch", reason="modules are of PyTorch")
    from sparsehopfield.torch import SparseHopfield

    torch.manual_seed(0)
    weights = SparseHopfield(4, num_heads=2).get_association_matrix(torch.randn(1, 5, 4))
    axes = plots.attention_map(weights[0])
    np.testing.assert_array_equal(held(axes[1]), weights[0, 1].numpy())


def test_maps_on_given_axes():
    figure = Figure()
    given = figure.subplots(1, 3)
    weights = np.random.default_rng(0).random((2, 3, 4))
    got = plots.attention_map(weights, ax=given[:2], colorbar=False)
    assert [*got] == [*given[:2]]
    assert len(figure.axes) == 3
    assert plots.attention_map(weights[0], ax=given[2]) is given[2]
    assert [len(ax.images) for ax in given] == [1, 1, 1]


def test_bag_map():
    bags = [np.array([0.0, 1.0]), np.array([0.25, 0.0, 0.75]), np.array([1.0])]
    ax = plots.bag_map(bags, bags=["a", "b", "c"])
    wanted = np.array([[0, 1, 0], [0.25, 0, 0.75], [1, 0, 0]])
    np.testing.assert_array_equal(held(ax), wanted)
    absent = ax.images[1].get_array()
    np.testing.assert_array_equal(absent.mask, [[True, True, False], [True] * 3, [True, False, False]])
    np.testing.assert_array_equal(ax.images[1].to_rgba(absent)[~absent.mask], np.ones((3, 4)))  # white
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    heads = [np.stack([w, w[::-1]]) for w in bags]
    pair = plots.bag_map(heads)
    assert pair.shape == (2,)
    np.testing.assert_array_equal(held(pair[0]), wanted)
    np.testing.assert_array_equal(held(pair[1])[1], [0.75, 0, 0.25])
    assert len(plots.bag_map([[1.0, 0.0], [0.5, 0.5]]).images) == 1  # no bag is shorter


def test_bag_map_of_a_classifier():
    pytest.importorskip("sklearn")
    from sparsehopfield.estimators import HopfieldMILClassifier

    rng = np.random.default_rng(0)
    bags = [rng.uniform(-1, 1, (rng.integers(3, 6), 2)) for _ in range(12)]
    model = HopfieldMILClassifier(epochs=1, hidden_size=2, num_heads=2, random_state=0).fit(bags, np.arange(12) % 2)
    averaged, per_head = model.bag_weights(bags), model.bag_weights(bags, per_head=True)
    got, axes = held(plots.bag_map(averaged)), plots.bag_map(per_head)
    for i, bag in enumerate(bags):
        np.testing.assert_array_equal(got[i, : len(bag)], averaged[i])
        np.testing.assert_array_equal(held(axes[1])[i, : len(bag)], per_head[i][1])
        assert not got[i, len(bag) :].any()


def test_maps_refuse():
    w = np.ones((2, 3))
    pair = Figure().subplots(1, 2)
    for error, name, plot, argument, options in (
        (ValueError, "weights", plots.attention_map, w[0], {}),
        (ValueError, "weights", plots.attention_map, np.ones((1, 1, 1, 1, 1)), {}),
        (ValueError, "weights", plots.attention_map, w[:, :0], {}),
        (ValueError, "weights", plots.attention_map, np.nan * w, {}),
        (TypeError, "weights", plots.attention_map, "weights", {}),
        (ValueError, "queries", plots.attention_map, w, {"queries": "abc"}),
        (ValueError, "keys", plots.attention_map, w, {"keys": "ab"}),
        (TypeError, "colorbar", plots.attention_map, w, {"colorbar": w}),
        (ValueError, "ax", plots.attention_map, w, {"ax": pair}),
        (ValueError, "ax", plots.attention_map, w[None], {"ax": pair}),
        (ValueError, "ax", plots.attention_map, w[None], {"ax": pair[0]}),
        (TypeError, "ax", plots.attention_map, w, {"ax": "axes"}),
        (ValueError, "weights", plots.bag_map, [], {}),
        (TypeError, "weights", plots.bag_map, 3, {}),
        (ValueError, "weights", plots.bag_map, [[1.0], []], {}),
        (ValueError, "weights", plots.bag_map, [[1.0], [[1.0]]], {}),
        (ValueError, "weights", plots.bag_map, [np.ones((1, 1, 1))], {}),
        (ValueError, "bags", plots.bag_map, [[1.0], [1.0]], {"bags": "a"}),
        (ValueError, "ax", plots.bag_map, [[1.0]], {"ax": pair}),
    ):
        with pytest.raises(error, match=f"^{name}: "):
            plot(argument, **options)


# --- calibration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("bins", [1, 4, 10])
def test_calibration_is_that_of_scikit_learn(strategy, bins):
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.beta(0.5, 1, 300), np.linspace(0, 1, 11)])
    y = rng.random(len(p)) < p**2
    ax = plots.calibration(y, p, bins, strategy=strategy, name="model", counts=False)
    assert drawn_on(ax)
    observed, predicted = curve(y, p, n_bins=bins, strategy=strategy)
    np.testing.assert_allclose(ax.lines[1].get_xydata(), np.stack([predicted, observed], axis=1), rtol=1e-12)
    edges = np.linspace(0, 1, bins + 1) if strategy == "uniform" else np.quantile(p, np.linspace(0, 1, bins + 1))
    counts = np.bincount(np.searchsorted(edges[1:-1], p), minlength=bins)
    error = np.sum(counts[counts > 0] / len(p) * np.abs(predicted - observed))
    assert ax.lines[1].get_label() == f"model: expected calibration error {error:.3f}"
    assert not ax.patches


def test_calibration_of_several_classes():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.0, 0.1, 0.9], [0.0, 0.0, 1.0]])
    ax = plots.calibration(["a", "c", "b", "c"], p, bins=5)
    # sure 0.5, 0.8, 0.9, 1.0 and right, right, wrong, right: bins (0.4, 0.6], (0.6, 0.8], (0.8, 1]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[0.5, 1], [0.8, 1], [0.95, 0.5]])
    assert ax.lines[1].get_label() == f"expected calibration error {(0.5 + 0.2 + 2 * 0.45) / 4:.3f}"
    assert [bar.get_height() for bar in ax.patches] == [0, 0, 0.25, 0.25, 0.5]
    assert [text.get_text() for text in ax.texts] == ["1", "1", "2"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 0], [1, 1]])
    fewer = plots.calibration(["c", "c"], p[:2], bins=5, labels=["a", "b", "c"])
    np.testing.assert_allclose(fewer.lines[1].get_xydata(), [[0.5, 0], [0.8, 1]])
    only = plots.calibration([1, 1], [0.25, 0.75], bins=2, labels=[0, 1])
    np.testing.assert_allclose(only.lines[1].get_xydata(), [[0.25, 1], [0.75, 1]])


def test_calibration_by_beta():
    datasets = pytest.importorskip("sklearn.datasets")
    from sparsehopfield.estimators import HopfieldClassifier

    X, y = datasets.load_iris(return_X_y=True)
    classifier = HopfieldClassifier(beta=2.0).fit(X[::2], y[::2])
    before = classifier.predict_proba(X)
    ax = plots.calibration_by_beta(classifier, X[1::2], y[1::2], [4.0, 0.2], bins=7)
    for beta, line in zip((0.2, 4.0), ax.lines[1:], strict=True):
        p = HopfieldClassifier(beta=beta).fit(X[::2], y[::2]).predict_proba(X[1::2])
        same = plots.calibration(y[1::2], p, bins=7).lines[1]
        np.testing.assert_array_equal(line.get_xydata(), same.get_xydata())
        assert line.get_label() == f"beta {beta:g}: {same.get_label().split()[-1]}"
    assert len(plots.calibration_by_beta(classifier, X[1::2], y[1::2]).lines) == 6
    np.testing.assert_array_equal(classifier.predict_proba(X), before)
    assert classifier.memory_.beta == 2.0


def test_calibration_refuses():
    y, p = [0, 1, 1], [0.1, 0.5, 0.9]
    for error, name, arguments, options in (
        (ValueError, "y_true", ([], []), {}),
        (ValueError, "y_true", ([[0, 1]], p), {}),
        (ValueError, "y_true", ([0, 1, None], p), {}),
        (ValueError, "y_true", ([0, 1, 2], p), {}),
        (ValueError, "y_true", ([1, 1, 1], p), {}),
        (ValueError, "y_true", (y, p), {"labels": [0, 2]}),
        (ValueError, "labels", (y, p), {"labels": [0, 1, 2]}),
        (ValueError, "y_true", (y, p[:2]), {}),
        (ValueError, "probabilities", (y, np.ones((3, 1, 2))), {}),
        (ValueError, "probabilities", (y, [0.1, 0.2, 1.1]), {}),
        (ValueError, "probabilities", (y, [0.1, 0.2, np.nan]), {}),
        (TypeError, "probabilities", (y, ["a", "b", "c"]), {}),
        (ValueError, "bins", (y, p, 0), {}),
        (ValueError, "bins", (y, p, 1001), {}),
        (TypeError, "bins", (y, p, 2.0), {}),
        (ValueError, "strategy", (y, p), {"strategy": "width"}),
        (TypeError, "counts", (y, p), {"counts": np.ones(2)}),
        (TypeError, "name", (y, p), {"name": 3}),
        (TypeError, "y_true", (y, p), {"labels": [[0], [1, 2]]}),
        (TypeError, "ax", (y, p), {"ax": 3}),
    ):
        with pytest.raises(error, match=f"^{name}: "):
            plots.calibration(*arguments, **options)


def test_calibration_by_beta_refuses():
    pytest.importorskip("sklearn")
    from sparsehopfield.estimators import HopfieldClassifier

    X, y = np.eye(4), [0, 1, 0, 1]
    fitted = HopfieldClassifier().fit(X, y)
    for error, name, arguments in (
        (TypeError, "classifier", (3, X, y)),
        (ValueError, "classifier", (HopfieldClassifier(), X, y)),
        (ValueError, "X", (fitted, X[:, :2], y)),
        (ValueError, "y", (fitted, X, [0, 1, 2, 1])),
        (ValueError, "y", (fitted, X, y[:2])),
        (ValueError, "betas", (fitted, X, y, [-1.0])),
    ):
        with pytest.raises(error, match=f"^{name}: "):
            plots.calibration_by_beta(*arguments)


# --- all ----------------------------------------------------------------------------------------------


def test_plots_draw_on_the_axes_that_are_given(X, queries):
    figure = Figure()
    axes = figure.subplots(1, 3)
    memory = sh.HopfieldMemory(X, 0.5)
    assert plots.energy_path(memory, queries, ax=axes[0]) is axes[0]
    assert plots.support_by_beta(memory, queries, [0.1, 1.0], ax=axes[1]) is axes[1]
    assert plots.calibration([0, 1], [0.2, 0.6], ax=axes[2]) is axes[2]
    assert figure.axes == [*axes]
    figure.canvas.draw()


def test_every_plot_without_matplotlib(monkeypatch, X, queries):
    memory = sh.HopfieldMemory(X)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for plot in (
        lambda: plots.energy_path(memory, queries),
        lambda: plots.support_by_beta(memory, queries, [1.0]),
        lambda: plots.attention_map(np.eye(2)),
        lambda: plots.bag_map([[1.0]]),
        lambda: plots.calibration([0, 1], [0.2, 0.6]),
    ):
        with pytest.raises(ImportError, match=r"matplotlib.*sparsehopfield\[notebook\]"):
            plot()
