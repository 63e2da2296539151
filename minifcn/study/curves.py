"""The curves of a run: loss, scores and learning rate over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from minifcn.study.style import BLUE, GREEN, INK, ORANGE, plain_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curves(log: Mapping[str, Sequence[float]], title: str = "") -> Figure:
    """Two charts side by side from the columns of a training log.

    `log`: "step", "loss", "lr", "pixel_accuracy", "mean_iou" (running, on training batches) and
    "val_pixel_accuracy", "val_mean_iou" (NaN where nothing was measured), all of one length.
    """
    from matplotlib.figure import Figure

    columns = {name: np.asarray(values, float) for name, values in log.items()}
    step, loss = columns["step"], columns["loss"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)

    left.plot(step, loss, color=BLUE, alpha=0.25, linewidth=0.8)
    left.plot(step, smooth(loss), color=BLUE, linewidth=2, label="loss, smoothed")
    left.set_ylabel("cross-entropy per pixel", color=INK)
    # a few outliers may leave the picture of a long run; a short one is shown whole
    highest = np.nanmax(loss) if len(loss) < 200 else np.nanquantile(loss, 0.99)
    left.set_ylim(0, 1.05 * float(highest))
    rate = left.twinx()
    rate.plot(step, columns["lr"], color=ORANGE, linewidth=1.2, linestyle="--")
    left.plot([], [], color=ORANGE, linewidth=1.2, linestyle="--", label="learning rate (right)")
    rate.set_ylim(bottom=0)
    rate.set_ylabel("learning rate", color=INK)
    rate.tick_params(colors=INK, labelsize=9)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    for side in ("top", "left"):
        rate.spines[side].set_visible(False)

    for name, text, shade in (
        ("pixel_accuracy", "pixel accuracy", GREEN),
        ("mean_iou", "mean IoU", BLUE),
    ):
        right.plot(
            step, columns[name], color=shade, alpha=0.4, linewidth=1.2, label=f"{text}, training"
        )
        measured = ~np.isnan(columns["val_" + name])
        right.plot(
            step[measured],
            columns["val_" + name][measured],
            color=shade,
            linewidth=2,
            marker="o",
            markersize=4,
            clip_on=False,  # the last one lies on the edge
            label=f"{text}, validation",
        )
    right.set_ylim(0, 1.02)

    for axes, corner in ((left, "upper right"), (right, "lower right")):
        plain_axes(axes)
        axes.set_xlabel("step", color=INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(0, max(float(step[-1]), 1.0))
        axes.legend(frameon=False, fontsize=9, loc=corner)
    if title:
        figure.suptitle(title, color=INK, fontsize=11)
    return figure


def smooth(values: np.ndarray, window: int | None = None) -> np.ndarray:
    """A centred moving mean, over the part of the window that lies inside at the ends.

    The window is by default a twenty-fifth of the length, and at least five values.
    """
    reach = (window or max(len(values) // 25, 5)) // 2
    total = np.concatenate(([0.0], np.cumsum(values)))
    place = np.arange(len(values))
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    return (total[high] - total[low]) / (high - low)
