"""One sheet of pictures: image, truth, prediction, errors and confidence, a row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minifcn.study.pictures import (
    CONFUSED,
    FALSE_ALARM,
    MISSED,
    VOID,
    VOID_COLOUR,
    colour,
    error_map,
    has_background,
    visible,
)
from minifcn.study.style import INK, legend_below, picture_axes, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Example:
    """One picture with its labels: `image` uint8 (H, W, 3), the label maps (H, W).

    `confidence` (H, W) is the probability of the predicted class. `heading` stands above the
    row, for example "best: IoU 0.93".
    """

    name: str
    heading: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray


def draw_panel(
    examples: Sequence[Example], palette: np.ndarray, classes: Sequence[str], title: str = ""
) -> Figure:
    """A row of five pictures for each example, and one legend below them all."""
    aspect = float(np.median([e.truth.shape[0] / e.truth.shape[1] for e in examples]))
    entries = _legend(examples, palette, classes)
    figure, grid = sheet(len(examples), 5, min(max(aspect, 0.3), 2.5), len(entries))
    shown = None
    for row, example in zip(grid, examples, strict=True):
        image, brightened = visible(example.image)
        pictures = (
            image,
            colour(example.truth, palette),
            colour(example.prediction, palette),
            error_map(example.image, example.truth, example.prediction, classes),
        )
        for axes, picture in zip(row, pictures, strict=False):
            axes.imshow(picture, interpolation="nearest")
        shown = row[4].imshow(
            example.confidence, cmap="magma", vmin=1 / len(classes), vmax=1, interpolation="nearest"
        )
        counted = example.truth != VOID
        wrong = (example.truth != example.prediction) & counted
        share = 100 * wrong.sum() / max(counted.sum(), 1)
        name = example.name if len(example.name) <= 24 else example.name[:23] + "…"
        notes = (
            f"{example.heading}\n{name}{', brightened' if brightened else ''}",
            "truth",
            "prediction",
            f"errors: {share:.1f} %",
            f"confidence: {example.confidence.mean():.2f} mean",
        )
        for axes, note in zip(row, notes, strict=True):
            picture_axes(axes, note)
    if shown is not None:
        bar = figure.colorbar(shown, ax=grid[:, 4], fraction=0.05, pad=0.02, aspect=30)
        bar.ax.tick_params(labelsize=8, colors=INK)
        bar.outline.set_visible(False)
    legend_below(figure, entries)
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _legend(
    examples: Sequence[Example], palette: np.ndarray, classes: Sequence[str]
) -> list[tuple[np.ndarray, str]]:
    """The classes that occur, and the error colours that can occur."""
    seen: set[int] = set()
    for example in examples:
        seen |= {int(v) for v in np.unique(example.truth)}
        seen |= {int(v) for v in np.unique(example.prediction)}
    entries = [(palette[k], name) for k, name in enumerate(classes) if k in seen]
    if VOID in seen:
        entries.append((np.array(VOID_COLOUR), "void, not counted"))
    if has_background(classes):
        entries += [(np.array(MISSED), "missed"), (np.array(FALSE_ALARM), "false alarm")]
    if len(classes) > 2 or not has_background(classes):
        entries.append((np.array(CONFUSED), "taken for another class"))
    return entries
