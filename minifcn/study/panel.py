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
from minifcn.study.style import INK

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
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    # A common shape of the cells, from the pictures themselves, leaves no holes between them.
    aspect = float(np.median([e.truth.shape[0] / e.truth.shape[1] for e in examples]))
    aspect = min(max(aspect, 0.3), 2.5)
    cell = 2.3
    handles = _legend(examples, palette, classes, Patch)
    legend_rows = -(-len(handles) // 7)
    height = len(examples) * (cell * aspect + 0.42) + 0.5 + 0.28 * legend_rows
    figure = Figure(figsize=(5 * cell + 1.0, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.02)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(len(examples), 5, squeeze=False)
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
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(note, fontsize=8.5, color=INK, loc="left")
            for spine in axes.spines.values():
                spine.set_color("#999999")
                spine.set_linewidth(0.6)
    if shown is not None:
        bar = figure.colorbar(shown, ax=grid[:, 4], fraction=0.05, pad=0.02, aspect=30)
        bar.ax.tick_params(labelsize=8, colors=INK)
        bar.outline.set_visible(False)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 7),
        frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _legend(
    examples: Sequence[Example], palette: np.ndarray, classes: Sequence[str], patch: type
) -> list:
    """Patches for the classes that occur, and for the error colours that can occur."""
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
    return [
        patch(facecolor=tuple(np.asarray(rgb) / 255), edgecolor="#828282", linewidth=0.6, label=n)
        for rgb, n in entries
    ]
