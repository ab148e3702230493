"""Draw how a search by an index passes over most patterns: docs/figures/index.svg.

    python benchmarks/index_picture.py

The rule of csrc/retrieval/index/order.c divides 1,024 patterns of the plane into 16 panels of 64, each with its box.
Patterns outside of the circle around the query cannot have weight, and panels whose boxes it does not reach are passed
over. Needs NumPy alone, and gives the same bytes each time.
"""

from pathlib import Path

import numpy as np

PANEL, SIDE, MARGIN = 64, 340, 12
BLUE, ORANGE, GREY, DARK = "#0072B2", "#D55E00", "#b8b8b8", "#333333"
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "index.svg"


def panels(points):
    """Return the patterns of each panel: halves at the median of the column that varies most."""
    if len(points) <= PANEL:
        return [points]
    half = max(len(points) // (2 * PANEL), 1) * PANEL
    ordered = points[np.argsort(points[:, np.argmax(points.var(axis=0))], kind="stable")]
    return panels(ordered[:half]) + panels(ordered[half:])


def plane(rng):
    """Return patterns in a few crowds, as pixels of the picture."""
    centres = np.array([[0.25, 0.3], [0.7, 0.25], [0.5, 0.7], [0.85, 0.8]])
    spread = np.array([0.07, 0.12, 0.15, 0.05])
    crowd = rng.choice(4, size=16 * PANEL, p=[0.3, 0.25, 0.3, 0.15])
    points = centres[crowd] + spread[crowd][:, None] * rng.standard_normal((len(crowd), 2))
    return MARGIN + SIDE * np.clip(points, 0.01, 0.99)


def element(name, text="", **attributes):
    """Return an element of the picture; underscores stand for hyphens."""
    written = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f"<{name}{written}>{text}</{name}>" if text else f"<{name}{written}/>"


def draw():
    """Return the picture as text."""
    rng = np.random.default_rng(2)
    query, radius = MARGIN + SIDE * np.array([0.41, 0.55]), 0.1 * SIDE
    drawn, reached, within = [], 0, 0
    groups = panels(plane(rng))
    for points in groups:
        least, most = points.min(axis=0), points.max(axis=0)
        apart = np.maximum(np.maximum(least - query, query - most), 0)
        is_open = np.hypot(*apart) <= radius
        reached += is_open
        size = most - least
        drawn.append(
            element(
                "rect",
                x=f"{least[0]:.1f}",
                y=f"{least[1]:.1f}",
                width=f"{size[0]:.1f}",
                height=f"{size[1]:.1f}",
                fill=BLUE if is_open else "none",
                fill_opacity=0.12,
                stroke=BLUE if is_open else GREY,
            )
        )
        for point in points:
            inside = np.hypot(*(point - query)) <= radius
            within += inside
            colour = ORANGE if inside else BLUE if is_open else GREY
            drawn.append(element("circle", cx=f"{point[0]:.1f}", cy=f"{point[1]:.1f}", r=1.6, fill=colour))
    x, y = (f"{v:.1f}" for v in query)
    drawn.append(element("circle", cx=x, cy=y, r=f"{radius:.1f}", fill="none", stroke=DARK, stroke_width=1.5))
    drawn.append(element("path", d=f"M{x} {y}m-5 0h10m-5 -5v10", stroke=DARK, stroke_width=2.5))
    steps = [
        ("Boxes", f"The circle reaches those of {reached} of {len(groups)} panels.", GREY),
        ("Filter codes", f"Bounds of {reached * PANEL} patterns, a panel at a time.", BLUE),
        ("Refinement codes", "Closer bounds of those that are left.", ORANGE),
        ("Scores", f"Of about {within} patterns, the best bounds first.", ORANGE),
    ]
    left = SIDE + 4 * MARGIN
    for i, (title, text, colour) in enumerate(steps):
        top = 60 + 78 * i
        drawn.append(element("circle", cx=left + 6, cy=top - 5, r=6, fill=colour))
        drawn.append(element("text", title, x=left + 22, y=top, font_weight="bold", fill=DARK))
        drawn.append(element("text", text, x=left + 22, y=top + 20, fill=DARK))
    width, height = left + 300 + MARGIN, SIDE + 2 * MARGIN
    picture = element(
        "svg",
        "\n" + "\n".join([element("rect", width=width, height=height, fill="white"), *drawn]) + "\n",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        font_family="sans-serif",
        font_size=14,
    )
    return picture + "\n"


if __name__ == "__main__":
    FIGURE.write_text(draw(), encoding="utf-8")
