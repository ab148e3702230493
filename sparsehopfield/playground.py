"""A playground: damage an image, and see what a memory makes of it.

In a notebook `playground()` shows sliders: which image, how much of it is hidden, how much noise; the separation map,
beta, the similarity. Below them stand the path of states, the patterns with weight, the energy and the size of the
support at each step. Without ipywidgets, or outside of a notebook, it is the same as one picture.

It needs Matplotlib and, for the sliders, ipywidgets: the extra "sparsehopfield[notebook]". The images by default are
the digits of scikit-learn, the extra "sparsehopfield[sklearn]".
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from math import ceil, floor, log10, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import (
    Array,
    as_image_shape,
    as_number,
    as_numbers,
    as_one_beta,
    as_patterns,
    as_whole,
    ignoring_float_errors,
    image_shape_of,
)
from sparsehopfield._engine.optional import is_installed, require
from sparsehopfield._engine.separations import SIMILARITIES, as_choice, separation_code
from sparsehopfield._engine.text import short
from sparsehopfield.data.datasets import ImageSet, load_digits
from sparsehopfield.inspect.explain import guess_image_shape
from sparsehopfield.inspect.paths import RetrievalPath, retrieval_path
from sparsehopfield.inspect.plotting import STYLES, empty_figure, image_of_row, pixels_of_row
from sparsehopfield.memory import HopfieldMemory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Playground", "Settings", "Trial", "playground"]

EXTRA = "notebook"
SEPARATIONS = ("sparsemax", "entmax15", "softmax")  # that can be chosen, besides a memory's own
SHOWN = 7  # images in a row of the picture
SIZE = (9.2, 5.6)  # inches
BLUE, ORANGE, GREY = STYLES["sparse"]["color"], STYLES["dense"]["color"], "#555555"


@dataclass(frozen=True)
class Settings:
    """The choices of a playground.

    Attributes
    ----------
    image : int
        Number of the stored image that is damaged, from 0.
    hidden : float from 0 to 1
        The share of its pixels that is hidden: the last ones, so the lower part.
    noise : float, at least 0
        Standard deviation of the noise on every pixel, in units of the range of the stored numbers.
    separation : str, Entmax, Normmax or Polynomial
        How scores become weights.
    similarity : {"euclidean", "dot", "cosine"}
        What a score is: -|x - xi|^2/2; <x, xi>; <x, xi/|xi|>.
    beta : float, positive
        The inverse temperature.
    max_steps : int, at least 1
        Steps of the retrieval at most.
    seed : int, at least 0
        What the noise is drawn from: the same number draws the same noise.

    See Also
    --------
    Playground.trial : Damage and retrieve by them.
    playground : Make a playground, which takes them by their names.

    Examples
    --------
    >>> Settings(image=3, hidden=0.4).noise  # what is not said
    0.2
    """

    image: int = 0
    hidden: float = 0.5
    noise: float = 0.2
    separation: Separation = "sparsemax"
    similarity: str = "euclidean"
    beta: float = 1.0
    max_steps: int = 10
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Trial:
    """The retrieval of one damaged image.

    Attributes
    ----------
    image : ndarray, shape (d,)
        The stored image.
    query : ndarray, shape (d,)
        What is left of it: what is retrieved from.
    path : RetrievalPath
        The states of the one query, with energies and supports.
    positions : ndarray of int, shape (k,)
        The heaviest patterns in the association of the last state but one, whose mixture is the last.
    weights : ndarray, shape (k,)
        Their weights, the largest first.
    patterns : ndarray, shape (k, d)
        These patterns.
    outcome : str
        Where the retrieval ended, in words.

    See Also
    --------
    Playground.trial : Make one.
    sparsehopfield.inspect.paths.RetrievalPath : What `path` holds.

    Examples
    --------
    >>> images = np.random.default_rng(0).random((50, 8, 8))
    >>> trial = playground(images).trial(Settings(image=7, hidden=0.25, beta=20.0))
    >>> trial.positions, trial.weights, trial.outcome
    (array([7]), array([1.]), 'at rest after 2 steps: the stored image')
    """

    image: Array
    query: Array
    path: RetrievalPath
    positions: NDArray[np.int64]
    weights: Array
    patterns: Array
    outcome: str


class Playground:
    """Stored images, and a picture of what a memory makes of one of them that is damaged.

    A notebook shows it with its sliders if ipywidgets is there, else as a picture. Made by `playground`.

    Parameters
    ----------
    patterns : ndarray, shape (M, d)
        The stored images, one row each.
    shape : tuple of int
        Shape of one image: (height, width), or with 3 colours first or last.
    settings : Settings
        What is chosen at first.

    Attributes
    ----------
    settings : Settings
        What is chosen now, by the sliders if there are any.
    controls : dict of str to ipywidgets.Widget
        The sliders by the names of `Settings`; empty before `sliders`.

    See Also
    --------
    playground : Make one from images or a memory.
    Settings : What can be chosen.

    Examples
    --------
    >>> images = np.random.default_rng(0).random((50, 64))
    >>> shown = Playground(images, (8, 8), Settings(image=7, beta=20.0))
    >>> shown.trial(shown.settings).outcome
    'at rest after 2 steps: the stored image'
    """

    def __init__(self, patterns: Array, shape: tuple[int, ...], settings: Settings) -> None:
        self._patterns, self._shape = patterns, shape
        low, high = float(patterns.min()), float(patterns.max())
        self._low, self._range = low, (high - low) or 1.0
        self._own_separation = settings.separation
        self._own_beta = settings.beta
        self._memories: dict[str, HopfieldMemory] = {}
        self._box: Any = None  # the widget with all others in it
        self._picture: Any = None  # the widget of the picture
        self.controls: dict[str, Any] = {}
        self._settings = self._checked(settings)

    def __repr__(self) -> str:
        m, d = self._patterns.shape
        return f"Playground({m} patterns of {d} features, {self._settings})"

    # --- what it shows ---------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """Return what is chosen now."""
        return self._settings

    def _checked(self, settings: Any) -> Settings:
        """Return settings in which every value fits these images."""
        if not isinstance(settings, Settings):
            raise TypeError(f"settings: must be Settings, got {short(settings)}")
        hidden = as_number("hidden", settings.hidden, least=0.0)
        if hidden > 1:
            raise ValueError(f"hidden: must be from 0 to 1, got {hidden:g}")
        separation_code(settings.separation)
        return Settings(
            as_whole("image", settings.image, 0, len(self._patterns) - 1),
            hidden,
            as_number("noise", settings.noise, least=0.0),
            settings.separation,
            as_choice("similarity", settings.similarity, SIMILARITIES),
            as_one_beta(settings.beta),
            as_whole("max_steps", settings.max_steps, 1),
            as_whole("seed", settings.seed, 0),
        )

    @ignoring_float_errors()
    def trial(self, settings: Settings) -> Trial:
        """Damage an image and retrieve.

        Parameters
        ----------
        settings : Settings
            What is damaged, how, and what retrieves.

        Returns
        -------
        Trial
            The damaged image, and what the memory made of it.

        Raises
        ------
        ValueError, TypeError
            Naming the setting at fault.

        See Also
        --------
        draw : Draw it.
        Trial : What is returned.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.playground import Settings, playground
        >>> images = np.random.default_rng(0).random((50, 8, 8))
        >>> playground(images).trial(Settings(image=7, hidden=0.25, beta=20.0)).outcome
        'at rest after 2 steps: the stored image'
        """
        chosen = self._checked(settings)
        image = self._patterns[chosen.image].astype(np.float64)
        query = self._damaged(image, chosen)
        memory = self._memory(chosen)
        path = retrieval_path(memory, query, max_steps=chosen.max_steps)
        before = path.states[-2, 0]
        why = memory.explain(before, top=SHOWN)
        return Trial(
            image, query, path, why.positions, why.weights, why.patterns, self._outcome(chosen, path, why.positions)
        )

    def _damaged(self, image: Array, chosen: Settings) -> Array:
        """Return an image with noise on every pixel and the last ones hidden: they are as the lowest number stored."""
        noise = np.random.default_rng(chosen.seed).standard_normal(len(image))
        query = np.clip(image + chosen.noise * self._range * noise, self._low, self._low + self._range)
        seen = pixels_of_row(np.arange(len(image)), self._shape)
        pixels = seen.reshape(seen.shape[0] * seen.shape[1], -1)  # where the colours of each are
        query[pixels[len(pixels) - round(chosen.hidden * len(pixels)) :]] = self._low
        return query

    def _memory(self, chosen: Settings) -> HopfieldMemory:
        """Return the memory of the images with the chosen model."""
        made = self._memories.get(chosen.similarity)
        if made is None:
            made = HopfieldMemory(self._patterns, similarity=chosen.similarity)
            self._memories[chosen.similarity] = made
        memory = made._at(chosen.beta)
        memory.separation = chosen.separation
        return memory

    def _outcome(self, chosen: Settings, path: RetrievalPath, positions: NDArray[np.int64]) -> str:
        """Say where a retrieval ended."""
        steps = int(path.steps[0])
        after = f"{steps} step{'s' * (steps > 1)}"
        where = f"at rest after {after}" if path.converged[0] else f"still moving after {after}"
        size = int(path.support_sizes[-1, 0])
        if size > 1:
            return f"{where}: a mixture of {size} images"
        if positions[0] == chosen.image:
            return f"{where}: the stored image"
        same = np.array_equal(self._patterns[positions[0]], self._patterns[chosen.image])
        return f"{where}: {'a copy of the stored image' if same else f'another image, {positions[0]}'}"

    def draw(self, settings: Settings | None = None) -> Figure:
        """Draw what a memory makes of a damaged image.

        Parameters
        ----------
        settings : Settings, optional
            What is chosen now by default. Nothing else decides what is drawn.

        Returns
        -------
        matplotlib.figure.Figure
            In the first row the image, the query and the states of the path; in the second the patterns with weight,
            the heaviest first; below, the energy and the size of the support at each step.

        Raises
        ------
        ValueError, TypeError
            Naming the setting at fault.
        ImportError
            If Matplotlib is not installed.

        See Also
        --------
        trial : Return the numbers behind the picture.
        sliders : Choose by sliders.

        Examples
        --------
        >>> import numpy as np
        >>> from sparsehopfield.playground import playground
        >>> figure = playground(np.random.default_rng(0).random((50, 8, 8)), image=3, beta=20.0).draw()
        >>> [axes.get_title() for axes in figure.axes[:3]]
        ['image 3', 'query', 'step 1']
        """
        chosen = self._settings if settings is None else self._checked(settings)
        return _draw(self.trial(chosen), chosen, self._shape, self._low, self._range)

    # --- in notebooks --------------------------------------------------------------------------------------

    def sliders(self) -> Any:
        """Return the sliders with the picture below them, for a notebook.

        Returns
        -------
        ipywidgets.VBox
            The same one whenever it is asked for.

        Raises
        ------
        ImportError
            If ipywidgets is not installed.

        See Also
        --------
        draw : Draw the picture alone.

        Examples
        --------
        As the last line of a notebook's cell, which shows what it returns::

            playground(image=9, hidden=0.4).sliders()
        """
        if self._box is None:
            self._make_widgets(require("ipywidgets", purpose="sliders in a notebook", extra=EXTRA))
        return self._box

    def _make_widgets(self, widgets: Any) -> None:
        """Make the controls, the widget of the picture, and the box of both."""
        chosen = self._settings
        names = [*SEPARATIONS] if self._own_separation in SEPARATIONS else [self._own_separation, *SEPARATIONS]
        low, high = floor(log10(self._own_beta)) - 1, ceil(log10(self._own_beta)) + 1
        slider = partial(widgets.FloatSlider, min=0.0, max=1.0, step=0.05, continuous_update=False)
        made = {
            "image": widgets.IntSlider(chosen.image, 0, len(self._patterns) - 1, continuous_update=False),
            "hidden": slider(chosen.hidden),
            "noise": slider(chosen.noise, max=max(1.0, chosen.noise)),
            "separation": widgets.Dropdown(options=[(str(name), name) for name in names], value=chosen.separation),
            "similarity": widgets.Dropdown(options=[*SIMILARITIES], value=chosen.similarity),
            "beta": widgets.FloatLogSlider(chosen.beta, min=low, max=high, step=0.05, continuous_update=False),
            "max_steps": widgets.IntSlider(chosen.max_steps, 1, max(30, chosen.max_steps), continuous_update=False),
            "seed": widgets.IntSlider(chosen.seed, 0, max(30, chosen.seed), continuous_update=False),
        }
        picture = widgets.Image(value=self._repr_png_(), format="png")  # before anything is kept: it may be refused
        controls = [*made.values()]
        columns = widgets.HBox([widgets.VBox(controls[:4]), widgets.VBox(controls[4:])])
        self.controls, self._picture, self._box = made, picture, widgets.VBox([columns, picture])
        for name, control in made.items():
            control.description = name
            control.observe(self._on_change, names="value")

    def _on_change(self, change: Any) -> None:
        """Draw anew after a slider was moved."""
        self._settings = self._checked(Settings(**{name: c.value for name, c in self.controls.items()}))
        self._picture.value = self._repr_png_()

    def _repr_png_(self) -> bytes:
        """Return the picture of what is chosen now as a PNG file."""
        file = io.BytesIO()
        backend = require("matplotlib.backends.backend_agg", purpose="the picture of a playground", extra="notebook")
        backend.FigureCanvasAgg(self.draw()).print_png(file, metadata={"Software": None})
        return file.getvalue()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """Return the sliders for a notebook that can show them; the picture is shown where they cannot be."""
        if not is_installed("ipywidgets") or not in_notebook():
            return {}
        shown: dict[str, Any] = self.sliders()._repr_mimebundle_(**options)
        return shown


def in_notebook() -> bool:
    """Return whether this is a notebook's kernel, which can show sliders.

    Examples
    --------
    >>> in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def playground(
    memory_or_images: Any = None,
    shape: Sequence[int] | None = None,
    **settings: Any,
) -> Playground:
    """Make a playground: damage an image, and see what a memory makes of it.

    Parameters
    ----------
    memory_or_images : HopfieldMemory, ImageSet or array_like, optional
        What is stored: the patterns of a memory, whose map, beta and similarity are chosen at first; or images, shape
        (M, d), or (M, *shape). By default scikit-learn's digits.
    shape : sequence of int, optional
        Shape of one image, (height, width), (3, height, width) or (height, width, 3), where the argument before does
        not say it; by default square ones, grey or of three colours, or else one row of pixels.
    **settings
        What is chosen at first, by the names of `Settings`. Unless a memory says it, beta is 10 over the variance of
        the images, summed over the pixels.

    Returns
    -------
    Playground
        At the end of a notebook's cell it shows sliders and a picture, without ipywidgets the picture alone; elsewhere
        `draw()` returns the picture as a figure of Matplotlib.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.
    ImportError
        If scikit-learn is not installed and no images are given.

    See Also
    --------
    Playground : What is returned.
    sparsehopfield.inspect.paths.retrieval_path : Record the path of many queries.

    Examples
    --------
    >>> from sparsehopfield.playground import playground
    >>> digits = playground(image=9, hidden=0.4, noise=0.3)
    >>> digits.settings.beta
    2.1
    >>> digits.trial(digits.settings).outcome
    'at rest after 3 steps: the stored image'
    """
    chosen = load_digits() if memory_or_images is None else memory_or_images
    if isinstance(chosen, HopfieldMemory):
        if chosen.structure is not None:
            raise ValueError(f"memory_or_images: a memory must see all patterns, got {short(chosen.structure)}")
        own = {"separation": chosen.separation, "similarity": chosen.similarity, "beta": as_one_beta(chosen.beta)}
        settings, patterns = own | settings, chosen.patterns
        if chosen.pattern_shape is not None:
            shape = image_shape_of(chosen.pattern_shape) if shape is None else shape
            patterns = patterns.reshape(len(patterns), -1)
        if chosen.scale != 1:
            patterns = patterns.astype(np.float32) * np.float32(chosen.scale)
    elif isinstance(chosen, ImageSet):
        patterns, shape = chosen.images, chosen.shape if shape is None else shape
    else:
        patterns = as_numbers("memory_or_images", chosen)
    if patterns.ndim in (3, 4):
        shape = patterns.shape[1:] if shape is None else shape
        patterns = patterns.reshape(len(patterns), prod(patterns.shape[1:]))
    patterns = as_patterns("memory_or_images", patterns)
    if not np.isfinite(patterns).all():
        raise ValueError("memory_or_images: contains NaN or infinity; every entry must be finite")
    if patterns.flags.writeable:  # the caller's, who may change them
        patterns = patterns.copy()
    d = patterns.shape[1]
    shape = guess_image_shape(d) or (1, d) if shape is None else as_image_shape(shape, d)
    settings = {"beta": _usual_beta(patterns)} | settings
    if unknown := settings.keys() - {f.name for f in fields(Settings)}:
        raise TypeError(f"settings: there is no {short(min(unknown))}; there are {[f.name for f in fields(Settings)]}")
    return Playground(patterns, tuple(shape), Settings(**settings))


@ignoring_float_errors()
def _usual_beta(patterns: Array) -> float:
    """Return an inverse temperature at which a few patterns have weight: 10 over the summed variance, two digits."""
    variance = float(patterns.var(axis=0, dtype=np.float64).sum())
    return float(f"{10 / variance:.2g}") if variance > 0 and 1e-100 < 10 / variance < 1e100 else 1.0


# --- the picture --------------------------------------------------------------------------------------------------


def _draw(trial: Trial, chosen: Settings, shape: tuple[int, ...], low: float, span: float) -> Figure:
    """Draw a trial; `low` is black, and `low + span` white."""
    figure = empty_figure(SIZE, extra=EXTRA)
    figure.set_layout_engine("none")  # every picture has its parts in the same places
    path, steps = trial.path, int(trial.path.steps[0])
    states = path.states[:, 0]
    if chosen.similarity == "cosine":  # whose states are mixtures of rows of length 1
        states = np.concatenate([states[:1], states[1:] * np.linalg.norm(trial.image)])
    seen = [(f"image {chosen.image}", trial.image), ("query", trial.query)]
    seen += [(f"step {k}", states[k]) for k in _spread(steps, SHOWN - 2)]
    carried = zip(trial.positions, trial.weights, trial.patterns, strict=True)
    weighted = [(f"image {i}\n{weight:.2g}", row) for i, weight, row in carried if weight != 0]
    rows = [("path", 0.71, GREY, seen), ("patterns\nwith weight", 0.43, BLUE, weighted)]
    figure.text(0.5, 0.965, f"{chosen.separation}, beta {chosen.beta:.3g}, {chosen.similarity}", ha="center")
    figure.text(0.5, 0.925, trial.outcome, ha="center", color=BLUE, weight="bold")
    width = 0.88 / SHOWN
    for name, bottom, colour, images in rows:
        figure.text(0.095, bottom + 0.08, name, ha="right", va="center", color=colour, weight="bold", fontsize=9)
        for column, (title, row) in enumerate(images):
            axes = figure.add_axes((0.11 + column * width, bottom, width * 0.93, 0.17))
            aspect: Any = "auto" if shape[-2] == 1 else "equal"
            picture = image_of_row((row - low) / span, shape)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=aspect)
            axes.set_title(title, fontsize=8, color=colour, pad=3)
            axes.set(xticks=[], yticks=[])
    left, right = figure.add_axes((0.11, 0.09, 0.37, 0.24)), figure.add_axes((0.6, 0.09, 0.37, 0.24))
    if path.energies is None:
        left.text(0.5, 0.5, "this map has no energy", ha="center", va="center", transform=left.transAxes)
    else:
        left.plot(np.arange(steps + 1), path.energies[: steps + 1, 0], "o-", color=BLUE, markersize=4)
    right.plot(np.arange(1, steps + 1), path.support_sizes[:steps, 0], "s--", color=ORANGE, markersize=4)
    right.set(yscale="log", ylim=(0.8, max(12.0, 1.5 * path.support_sizes.max())))
    for axes, label in ((left, "energy"), (right, "patterns with weight")):
        axes.set(xlim=(-0.2, max(steps, 4) + 0.2), xlabel="step")
        axes.set_title(label, fontsize=10)
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.25, linewidth=0.6)
    return figure


def _spread(count: int, most: int) -> list[int]:
    """Return the numbers of some steps of 1 to `count`: all, or the first ones and the last."""
    return [*range(1, count + 1)] if count <= most else [*range(1, most), count]
