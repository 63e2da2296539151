"""The look that all charts share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
FAINT = "#dddddd"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
SKY = "#56b4e9"
MAGENTA = "#cc3391"
LEGEND_COLUMNS = 7


def plain_axes(axes: Axes) -> None:
    """Thin left and bottom lines, a faint grid behind the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)


def picture_axes(axes: Axes, note: str) -> None:
    """A picture's: no ticks, a thin frame, the note above its left corner."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(note, fontsize=8.5, color=INK, loc="left")
    for spine in axes.spines.values():
        spine.set_color("#999999")
        spine.set_linewidth(0.6)


def sheet(rows: int, columns: int, aspect: float, named: int) -> tuple[Figure, np.ndarray]:
    """A figure of close cells of one shape, and room below for a legend of so many names.

    ``aspect`` is height over width: that of the pictures leaves no holes between them.
    """
    from matplotlib.figure import Figure

    cell = 2.3
    legend_rows = -(-named // LEGEND_COLUMNS)
    height = rows * (cell * aspect + 0.42) + 0.5 + 0.28 * legend_rows
    figure = Figure(figsize=(columns * cell + 1.0, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.02)  # type: ignore[union-attr, call-arg]
    return figure, figure.subplots(rows, columns, squeeze=False)


def legend_below(figure: Figure, entries: Sequence[tuple[np.ndarray, str]]) -> None:
    """The colours, uint8 (3,), and what they mean, under all cells."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=tuple(rgb / 255), edgecolor="#828282", linewidth=0.6, label=name)
        for rgb, name in entries
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), LEGEND_COLUMNS),
        frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
