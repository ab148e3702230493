"""Draw the playground as an animation: docs/figures/playground.gif.

    python benchmarks/playground_picture.py

One digit is hidden more and more, then noise is added; beta falls until several digits have weight, and at last softmax
takes the place of sparsemax. Needs scikit-learn and Matplotlib (with Pillow, which comes with it), and gives the same
bytes each time with the same releases of these.
"""

import argparse
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sparsehopfield.playground import Settings, playground

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "playground.gif"
START = Settings(image=9, hidden=0.0, noise=0.0, beta=4.0, seed=0)
COLOURS, DPI = 96, 70
SHORT, LONG = 500, 1500  # milliseconds a picture is shown, and the last of each part


def parts():
    """Return the settings of the animation's pictures, part by part."""
    hidden = [replace(START, hidden=share) for share in np.arange(0.0, 0.6, 0.125).tolist()]
    noisy = [replace(hidden[-1], noise=noise) for noise in (0.1, 0.2, 0.3)]
    mixed = [replace(noisy[-1], beta=beta) for beta in (2.0, 1.0, 0.5, 0.25, 0.1)]
    sharp = [replace(noisy[-1], beta=beta, separation="softmax") for beta in (0.1, 1.0, 4.0, 16.0)]
    return [hidden, noisy, mixed, sharp]


def picture(ground, settings):
    """Return one picture of the animation."""
    file = io.BytesIO()
    ground.draw(settings).savefig(file, format="png", dpi=DPI)
    return Image.open(file).convert("RGB")


def main():
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--figure", type=Path, default=FIGURE)
    arguments = parser.parse_args()
    ground = playground()
    shown = [(settings, SHORT if settings is not part[-1] else LONG) for part in parts() for settings in part]
    pictures = [picture(ground, settings) for settings, _ in shown]
    whole = Image.new("RGB", (pictures[0].width, pictures[0].height * len(pictures)))
    for i, one in enumerate(pictures):
        whole.paste(one, (0, i * one.height))
    palette = whole.quantize(COLOURS, method=Image.Quantize.MEDIANCUT)  # one for all, so that no colour flickers
    first, *others = (one.quantize(palette=palette, dither=Image.Dither.NONE) for one in pictures)
    first.save(
        arguments.figure,
        save_all=True,
        append_images=others,
        duration=[milliseconds for _, milliseconds in shown],
        loop=0,
        optimize=True,
        disposal=1,
    )
    for settings, _ in shown:
        print(f"{settings}: {ground.trial(settings).outcome}")


if __name__ == "__main__":
    main()
