"""A sheet of pictures, each beside itself under its labels: is this what the labels should say?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minifcn.data.sample import Sample
from minifcn.study.pictures import VOID, VOID_COLOUR, blend, visible
from minifcn.study.style import INK, legend_below, picture_axes, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS = 2
"""Pictures in a row, each with its labels beside it."""


def draw_labelled(
    samples: Sequence[Sample], palette: np.ndarray, classes: Sequence[str], title: str = ""
) -> Figure:
    """The samples in rows of two, plain and tinted; below them the colours of all classes.

    `palette` uint8 (number of classes, 3). A picture too dark for the eye is brightened, and its
    name says so.
    """
    aspect = float(np.median([s.label.shape[0] / s.label.shape[1] for s in samples]))
    entries = [(palette[k], name) for k, name in enumerate(classes)]
    if any((sample.label == VOID).any() for sample in samples):
        entries.append((np.array(VOID_COLOUR), "void, not counted"))
    rows = -(-len(samples) // PAIRS)
    figure, cells = sheet(rows, 2 * PAIRS, min(max(aspect, 0.3), 2.5), len(entries))
    grid = cells.ravel()
    for axes in grid[2 * len(samples) :]:
        axes.set_axis_off()
    for number, sample in enumerate(samples):
        image, brightened = visible(sample.image)
        name = sample.name if len(sample.name) <= 30 else sample.name[:29] + "…"
        plain, tinted = grid[2 * number : 2 * number + 2]
        plain.imshow(image, interpolation="nearest")
        tinted.imshow(blend(image, sample.label, palette, classes), interpolation="nearest")
        picture_axes(plain, f"{name}{', brightened' if brightened else ''}")
        picture_axes(tinted, "labels")
    legend_below(figure, entries)
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure
