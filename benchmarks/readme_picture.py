"""Draw the README's picture: damaged images, what softmax and sparsemax make of them, and at what cost.

    SPARSEHOPFIELD_DATA=folder python benchmarks/readme_picture.py

All 60,000 training images of MNIST are stored (pixels from 0 to 1, euclidean similarity, one beta for both models).
200 of them, drawn at random, are damaged in each of three ways, and both models repeat their update until it rests,
100 times at most. The picture shows the first two of each way, without choosing; "nearly" is within a tenth of the
stored image's length. Times are those of the processor, for all queries in one call on one thread; the index of the
sparse memory is built before. Needs Matplotlib; takes some minutes, nearly all of them softmax's.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

import sparsehopfield as sh
from sparsehopfield.data import datasets

WAYS = ("noise, 0.6", "a square lost", "lower part lost")
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "retrieval.png"


def damage(way, images, mean, rng):
    """Return the images, damaged in one of the three ways."""
    if way == "noise, 0.6":  # its standard deviation
        return np.clip(images + 0.6 * rng.standard_normal(images.shape, dtype=np.float32), 0, 1)
    pixels = images.reshape(-1, 28, 28).copy()
    if way == "a square lost":  # the mean image's stands in its place
        pixels[:, 6:16, 9:19] = mean.reshape(28, 28)[6:16, 9:19]
    else:
        pixels[:, 20:] = 0
    return pixels.reshape(images.shape)


def answers(patterns, queries, targets, separation, beta):
    """Return the states that a model's queries come to rest at, and what the picture says of them.

    These are the share of states equal to their targets, the share within a tenth of the target's length, the median
    support, and the milliseconds a query takes.
    """
    memory = sh.HopfieldMemory(patterns, beta=beta, separation=separation, similarity="euclidean")
    if separation == "sparsemax":
        memory.build_index()
    began = time.process_time()
    states, info = memory.retrieve(queries, return_info=True, max_steps=100)
    seconds = time.process_time() - began
    exact = (states == targets).all(axis=1).mean()
    close = (np.linalg.norm(states - targets, axis=1) < 0.1 * np.linalg.norm(targets, axis=1)).mean()
    print(
        f"{separation}: {exact:.1%} equal to the stored image, {close:.1%} within a tenth of its length; "
        f"support {np.median(info.support_size):.0f}, steps {info.steps.mean():.1f}, "
        f"{1000 * seconds / len(queries):.2f} ms a query",
        flush=True,
    )
    return states, exact, close, np.median(info.support_size), 1000 * seconds / len(queries)


def draw(rows, title, headings, facts):
    """Draw rows of images with a name before each, and what was measured behind it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=100, facecolor="white")
    names = [("stored", "black"), ("damaged", "black"), ("softmax", ORANGE), ("sparsemax", BLUE)]
    left, width, height, gap, column = 0.132, 0.073, 0.185, 0.012, 0.12
    first = left + 6 * width + 2 * gap + 0.075  # the middle of the first column of facts
    figure.text(0.5, 0.94, title, ha="center", fontsize=12)
    for r, (name, colour) in enumerate(names):
        bottom = 0.62 - r * 0.198 - 0.02 * (r > 1)
        middle = bottom + height / 2
        figure.text(left - 0.012, middle, name, color=colour, ha="right", va="center", fontsize=13, weight="bold")
        for c, image in enumerate(rows[r]):
            axes = figure.add_axes((left + c * width + gap * (c // 2), bottom, width * 0.95, height))
            axes.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            for side in axes.spines.values():
                side.set(color=colour if r > 1 else GREY, linewidth=1.6 if r > 1 else 0.8)
        if r > 1:
            exact, close, support, milliseconds = facts[r - 2]
            lines = (f"{exact:.0%}", f"{support:,.0f}", f"{milliseconds:,.{milliseconds < 10:d}f} ms")
            for c, text in enumerate(lines):
                figure.text(first + column * c, middle, text, color=colour, va="center", ha="center", fontsize=17)
            near = f"nearly: {close:.0%}"
            figure.text(first, middle - 0.07, near, color=GREY, va="center", ha="center", fontsize=10)
    for c, heading in enumerate(headings):
        figure.text(left + width * (2 * c + 0.975) + gap * c, 0.83, heading, ha="center", fontsize=11, color=GREY)
    for c, heading in enumerate(("equal to the\nstored image", "patterns\nwith weight", "time a query,\none core")):
        figure.text(first + column * c, 0.5, heading, ha="center", va="center", fontsize=11, color=GREY)
    return figure


def main():
    """Measure, draw and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--patterns", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=200, help="of each way")
    parser.add_argument("--beta", type=float, default=0.5)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    arguments = parser.parse_args()
    sh.set_num_threads(1)
    patterns = datasets.load_mnist(os.environ["SPARSEHOPFIELD_DATA"]).pixels(slice(arguments.patterns))
    rng = np.random.default_rng(0)
    drawn = [patterns[rng.choice(len(patterns), arguments.queries, replace=False)] for _ in WAYS]
    queries = [damage(way, images, patterns.mean(axis=0), rng) for way, images in zip(WAYS, drawn, strict=True)]
    shown = [arguments.queries * way + i for way in range(len(WAYS)) for i in (0, 1)]
    targets, queries = np.concatenate(drawn), np.concatenate(queries)
    rows, facts = [targets[shown], queries[shown]], []
    for separation in ("softmax", "sparsemax"):
        states, *fact = answers(patterns, queries, targets, separation, arguments.beta)
        rows.append(states[shown])
        facts.append(fact)
    counts = f"{len(patterns):,} images stored, {len(queries):,} queries, beta {arguments.beta:g}"
    title = f"{counts}: where each model comes to rest, and what it takes"
    figure = draw(rows, title, WAYS, facts)
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.figure, metadata={"Software": None})


if __name__ == "__main__":
    main()
