"""The confusion matrix as a picture and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minifcn.study.style import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_csv(counts: np.ndarray, classes: Sequence[str]) -> str:
    """`counts` int64 (truth, prediction) as CSV: a row for each true class, in pixels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth \\ prediction", *classes])
    for name, row in zip(classes, counts, strict=True):
        writer.writerow([name, *(int(value) for value in row)])
    return text.getvalue()


def draw_confusion(counts: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """Each row is a true class and says what its pixels were taken for, in per cent.

    `counts` int64 (truth, prediction). A class without a true pixel has an empty row.
    """
    from matplotlib.figure import Figure

    size = len(classes)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.full(counts.shape, np.nan)
    np.divide(counts, totals, out=share, where=totals > 0)
    side = min(max(3.0, 1.2 + 0.62 * size), 14.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(
        range(size),
        classes,
        rotation=45 if size > 3 else 0,
        ha="right" if size > 3 else "center",
        rotation_mode="anchor" if size > 3 else "default",
    )
    axes.set_yticks(range(size), classes)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.set_xlabel("prediction", color=INK)
    axes.set_ylabel("truth", color=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    if size <= 32:  # beyond that the numbers would not be legible
        for t, p in np.ndindex(share.shape):
            if not np.isnan(share[t, p]):
                axes.text(p, t, _per_cent(float(share[t, p])), ha="center", va="center", fontsize=8,
                          color="white" if share[t, p] > 0.55 else INK)  # fmt: skip
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("% of the true class's pixels", color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
    if title:
        axes.set_title(title, color=INK, fontsize=10)
    return figure


def _per_cent(share: float) -> str:
    value = 100 * share
    if 0 < value < 0.1:
        return "<0.1"
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
