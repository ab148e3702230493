"""The playground: what is damaged, retrieved and drawn; and that sliders do nothing but choose."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import structures
from sparsehopfield.data.datasets import ImageSet
from sparsehopfield.playground import Playground, Settings, playground

pytest.importorskip("matplotlib")


@pytest.fixture
def images():
    return np.random.default_rng(0).random((60, 6, 5))


@pytest.fixture
def rows(images):
    return images.reshape(60, 30)


# --- what is damaged and retrieved --------------------------------------------------------------------


@pytest.mark.parametrize("separation", ["sparsemax", "softmax", "entmax15", sh.Normmax(2.0)])
@pytest.mark.parametrize("similarity", ["euclidean", "dot", "cosine"])
def test_a_trial_is_a_retrieval(separation, similarity, images, rows):
    settings = Settings(4, 0.2, 0.1, separation, similarity, 8.0, max_steps=5, seed=3)
    trial = playground(images).trial(settings)
    np.testing.assert_array_equal(trial.image, rows[4])
    memory = sh.HopfieldMemory(rows, 8.0, separation=separation, similarity=similarity)
    state = trial.query
    for k in range(1, len(trial.path.states)):
        before, state = state, memory.update(state)
        np.testing.assert_array_equal(trial.path.states[k, 0], state)
        assert trial.path.support_sizes[k - 1, 0] == memory.explain(before).support_size
        assert trial.path.energies[k, 0] == pytest.approx(memory.energy(state))
    why = memory.explain(before, top=7)
    np.testing.assert_array_equal(trial.positions, why.positions)
    np.testing.assert_array_equal(trial.weights, why.weights)
    np.testing.assert_array_equal(trial.patterns, rows[why.positions])


def test_damage(images, rows):
    ground = playground(images)
    whole = ground.trial(Settings(hidden=0, noise=0))
    np.testing.assert_array_equal(whole.query, rows[0])
    half = ground.trial(Settings(2, hidden=0.5, noise=0.0)).query
    np.testing.assert_array_equal(half[:15], rows[2, :15])
    np.testing.assert_array_equal(half[15:], images.min())
    noisy = ground.trial(Settings(hidden=0, noise=0.1, seed=1)).query
    wanted = rows[0] + 0.1 * np.ptp(images) * np.random.default_rng(1).standard_normal(30)
    np.testing.assert_allclose(noisy, np.clip(wanted, images.min(), images.max()))
    colour = np.random.default_rng(0).random((5, 3, 4, 4))
    for stored in (colour, np.moveaxis(colour, 1, -1)):
        lower = playground(stored).trial(Settings(hidden=0.5, noise=0.0)).query.reshape(stored.shape[1:])
        first = lower if stored is colour else np.moveaxis(lower, -1, 0)
        np.testing.assert_array_equal(first[:, :2], colour[0, :, :2])
        np.testing.assert_array_equal(first[:, 2:], colour.min())


def test_outcomes(rows):
    twice = np.concatenate([rows, rows[:1]])
    ground = playground(twice, (6, 5))

    def outcome(**options):
        return ground.trial(Settings(**({"hidden": 0.0, "noise": 0.0} | options))).outcome

    assert outcome(image=3, beta=100.0) == "at rest after 1 step: the stored image"
    assert outcome(image=3, beta=100.0, hidden=1.0).startswith("at rest after 2 steps: another image, ")
    assert outcome(image=0, beta=100.0) == "at rest after 1 step: a mixture of 2 images"
    assert outcome(image=3, separation="softmax", max_steps=1) == "still moving after 1 step: a mixture of 61 images"
    copied = np.array([[0.0, 1.0], [2.0, 0.0], [2.0, 0.0]])
    memory = sh.HopfieldMemory(copied, 1.0, separation=sh.Entmax(2.0))
    assert playground(memory).trial(Settings(1, 0.0, 0.0)).outcome == "at rest after 1 step: a mixture of 2 images"


# --- what is drawn ------------------------------------------------------------------------------------


def test_the_picture_holds_the_trial(images):
    ground = playground(images)
    settings = Settings(4, 0.3, 0.1, beta=8.0)
    trial, figure = ground.trial(settings), ground.draw(settings)
    steps = int(trial.path.steps[0])
    assert 1 <= steps <= 5
    pictures = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in pictures]
    weights = [f"image {i}\n{w:.2g}" for i, w in zip(trial.positions, trial.weights, strict=True)]
    assert titles == ["image 4", "query", *(f"step {k}" for k in range(1, steps + 1)), *weights]
    shown = [trial.image, trial.query, *trial.path.states[1:, 0], *trial.patterns]
    for axes, row in zip(pictures, shown, strict=True):
        wanted = (row.reshape(6, 5) - images.min()) / np.ptp(images)
        np.testing.assert_allclose(axes.images[0].get_array(), np.clip(wanted, 0, 1))
    energy, support = (axes for axes in figure.axes if not axes.images)
    np.testing.assert_array_equal(energy.lines[0].get_xdata(), np.arange(steps + 1))
    np.testing.assert_array_equal(energy.lines[0].get_ydata(), trial.path.energies[:, 0])
    np.testing.assert_array_equal(support.lines[0].get_xdata(), np.arange(1, steps + 1))
    np.testing.assert_array_equal(support.lines[0].get_ydata(), trial.path.support_sizes[:, 0])
    assert trial.outcome in [text.get_text() for text in figure.texts]


def test_states_of_length_one_are_drawn_at_the_length_of_the_image(images):
    ground = playground(images)
    settings = Settings(4, 0.2, 0.0, similarity="cosine", beta=200.0)
    trial = ground.trial(settings)
    assert trial.outcome.endswith(": the stored image")
    assert np.linalg.norm(trial.path.states[-1]) == pytest.approx(1)
    pictures = [axes.images[0].get_array() for axes in ground.draw(settings).axes if axes.images]
    np.testing.assert_allclose(pictures[1 + int(trial.path.steps[0])], pictures[0], atol=1e-12)


def test_what_does_not_fit_is_left_out(images):
    figure = playground(images).draw(Settings(separation="softmax", beta=2.0, max_steps=30))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles[:6] == ["image 0", "query", "step 1", "step 2", "step 3", "step 4"]
    assert int(titles[6].removeprefix("step ")) > 5
    assert len(titles) == 14


def test_drawing_depends_on_the_settings_alone(images):
    ground, settings = playground(images), Settings(3, beta=5.0)
    first = png_of(ground, settings)
    ground.draw(Settings(9, separation="softmax", similarity="cosine", beta=0.1))
    assert png_of(ground, settings) == first == png_of(playground(images), settings)
    assert ground.settings == playground(images).settings  # drawing chooses nothing


def png_of(ground, settings):
    return Playground(ground._patterns, ground._shape, settings)._repr_png_()


def test_maps_without_energy_and_rows_that_are_no_images(rows):
    memory = sh.HopfieldMemory(rows[:, :7], 2.0, separation=sh.Polynomial(3))
    ground = playground(memory)
    assert (ground.settings.separation, ground.settings.similarity, ground.settings.beta) == (
        sh.Polynomial(3),
        "dot",
        2.0,
    )
    figure = ground.draw()
    assert figure.axes[0].images[0].get_array().shape == (1, 7)
    assert "this map has no energy" in [text.get_text() for axes in figure.axes for text in axes.texts]


# --- what is stored -----------------------------------------------------------------------------------


def test_kinds_of_images(images, rows):
    settings = Settings(3, beta=5.0)
    wanted = playground(images).trial(settings).path.states
    for given, shape in (
        (rows, (6, 5)),
        (rows.tolist(), [6, 5]),
        (ImageSet("any", rows, (6, 5), ""), None),
        (sh.HopfieldMemory(rows, values=np.ones((60, 2))), (6, 5)),
        (sh.HopfieldMemory(images, pattern_shape=(6, 5)), None),
    ):
        np.testing.assert_array_equal(playground(given, shape).trial(settings).path.states, wanted)
    shaped = sh.HopfieldMemory(rows.reshape(60, 2, 3, 5), pattern_shape=(2, 3, 5))  # which is no image's
    assert playground(shaped).draw().axes[0].images[0].get_array().shape == (1, 30)
    whole = np.arange(4 * 16, dtype=np.uint8).reshape(4, 16)
    scaled = playground(sh.HopfieldMemory(whole, scale=0.5))
    np.testing.assert_array_equal(scaled.trial(Settings(1, 0.0, 0.0)).image, whole[1] * 0.5)
    assert scaled.draw(Settings(1)).axes[0].images[0].get_array().shape == (4, 4)  # guessed


def test_images_are_not_those_of_the_caller_any_more(rows):
    ground = playground(rows)
    before = ground.trial(Settings()).path.states
    rows[:] = 0
    np.testing.assert_array_equal(ground.trial(Settings()).path.states, before)


def test_digits_are_the_default():
    pytest.importorskip("sklearn")
    ground = playground(hidden=0.4, noise=0.3, image=9)
    assert ground.trial(ground.settings).outcome == "at rest after 3 steps: the stored image"
    assert repr(ground).startswith("Playground(1797 patterns of 64 features, Settings(image=9, hidden=0.4, noise=0.3")


def test_the_usual_beta(rows):
    assert playground(rows).settings.beta == float(f"{10 / rows.var(axis=0).sum():.2g}")
    assert playground(np.ones((3, 4))).settings.beta == 1.0
    assert playground(rows, beta=7).settings.beta == 7.0


def test_refuses(images, rows):
    memory = sh.HopfieldMemory(rows, structure=structures.TopK(2))
    for error, name, arguments, options in (
        (ValueError, "memory_or_images", (memory,), {}),
        (TypeError, "memory_or_images", ("digits",), {}),
        (ValueError, "memory_or_images", (rows[0],), {}),
        (ValueError, "memory_or_images", (rows[:0],), {}),
        (ValueError, "memory_or_images", (np.nan * rows,), {}),
        (ValueError, "shape", (rows, (5, 5)), {}),
        (ValueError, "shape", (np.ones((2, 4, 4, 2)),), {}),
        (TypeError, "beta", (sh.HopfieldMemory(rows, np.ones(2)),), {}),
        (TypeError, "settings", (rows,), {"betas": 1}),
        (ValueError, "image", (rows,), {"image": 60}),
        (ValueError, "image", (rows,), {"image": -1}),
        (TypeError, "image", (rows,), {"image": 0.5}),
        (ValueError, "hidden", (rows,), {"hidden": 1.1}),
        (ValueError, "noise", (rows,), {"noise": -0.1}),
        (ValueError, "separation", (rows,), {"separation": "hardmax"}),
        (ValueError, "similarity", (rows,), {"similarity": "cosinus"}),
        (ValueError, "beta", (rows,), {"beta": 0}),
        (ValueError, "max_steps", (rows,), {"max_steps": 0}),
        (ValueError, "seed", (rows,), {"seed": -1}),
    ):
        with pytest.raises(error, match=f"^{name}: "):
            playground(*arguments, **options)
    with pytest.raises(TypeError, match=r"^settings: "):
        playground(images).draw({"image": 3})


# --- notebooks ----------------------------------------------------------------------------------------


def test_sliders_choose_and_the_picture_follows(images):
    widgets = pytest.importorskip("ipywidgets", reason="sliders need ipywidgets, the extra notebook")
    ground = playground(images, separation=sh.Entmax(1.3), noise=0.0, beta=3.0)
    box = ground.sliders()
    assert box is ground.sliders()
    assert set(ground.controls) == {field.name for field in dataclasses.fields(Settings)}
    picture = box.children[-1]
    assert isinstance(picture, widgets.Image)
    assert picture.value == png_of(ground, ground.settings)
    for name, value in (
        ("image", 7),
        ("hidden", 0.25),
        ("noise", 0.5),
        ("separation", "softmax"),
        ("similarity", "dot"),
        ("beta", 10.0),
        ("max_steps", 3),
        ("seed", 5),
    ):
        before, shown = ground.settings, picture.value
        ground.controls[name].value = value
        assert ground.settings == dataclasses.replace(before, **{name: value})
        assert picture.value == png_of(ground, ground.settings)
        assert picture.value != shown or name in ("max_steps", "seed")
    ground.controls["separation"].value = sh.Entmax(1.3)
    assert ground.settings.separation == sh.Entmax(1.3)


def test_sliders_reach_what_is_chosen_at_first(images):
    pytest.importorskip("ipywidgets", reason="sliders need ipywidgets, the extra notebook")
    ground = playground(images, beta=3e-7, noise=2.5, max_steps=99, seed=1000)
    ground.sliders()
    for name, control in ground.controls.items():
        assert control.value == getattr(ground.settings, name)


def test_sliders_without_ipywidgets(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    ground = playground(images)
    with pytest.raises(ImportError, match=r"ipywidgets.*sparsehopfield\[notebook\]"):
        ground.sliders()
    assert ground._repr_png_().startswith(b"\x89PNG")  # the same as a picture
    assert ground._repr_mimebundle_() == {}


def test_drawing_without_matplotlib(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"matplotlib.*sparsehopfield\[notebook\]"):
        playground(images).draw()


def test_a_notebook_shows_sliders(images, monkeypatch):
    pytest.importorskip("ipywidgets", reason="sliders need ipywidgets, the extra notebook")
    ground = playground(images)
    assert ground._repr_mimebundle_() == {}  # this is no notebook
    monkeypatch.setattr("sparsehopfield.playground.in_notebook", lambda: True)
    shown = ground._repr_mimebundle_()
    data = shown[0] if isinstance(shown, tuple) else shown
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == ground.sliders().model_id


def test_importing_needs_nothing_else():
    code = (
        "import sys, json, sparsehopfield.playground\n"
        "print(json.dumps(sorted({'matplotlib', 'ipywidgets', 'IPython', 'sklearn'} & {*sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == []
