"""The look that all charts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#333333"
FAINT = "#dddddd"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
MAGENTA = "#cc3391"


def plain_axes(axes: Axes) -> None:
    """Thin left and bottom lines, a faint grid behind the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
