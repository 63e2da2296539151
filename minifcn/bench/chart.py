"""The picture of a benchmark: a bar for each case, the limit that it should keep, PyTorch at 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minifcn.bench.row import RATIO, Row
from minifcn.study.style import BLUE, GREEN, INK, MAGENTA, ORANGE, SKY, plain_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"layers": BLUE, "step": GREEN, "full": SKY, "predict": MAGENTA, "memory": ORANGE}
TITLES = {
    "layers": "time of a layer, forward and backward",
    "step": "time of a training step",
    "full": "time of a full-size training step",
    "predict": "time of a prediction",
    "memory": "peak memory of the process",
}
WIDEST = 2.0
"""Longer bars are cut here; the number beside them is whole."""


def draw(rows: Sequence[Row], about: str = "") -> Figure:
    """Ratios, smaller is better; what has no ratio (start-up, threads) is left to the table."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.kind == RATIO and row.value is not None]
    figure = Figure(figsize=(9, 1.6 + 0.27 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots()
    plain_axes(axes)
    axes.grid(visible=False, axis="y")
    end = min(WIDEST, 1.1 * max([1.0, *(row.value or 0 for row in shown)]))
    places, gaps = [], 0.0
    for number, row in enumerate(shown):
        if number and row.suite != shown[number - 1].suite:
            gaps += 0.7
        place = number + gaps
        places.append(place)
        assert row.value is not None
        axes.barh(place, min(row.value, end), 0.72, color=COLOURS[row.suite])
        axes.text(1.02 * end, place, f"{row.value:.2f}", va="center", fontsize=8, color=INK)
        if row.bar is not None:
            axes.plot([row.bar] * 2, [place - 0.46, place + 0.46], color=INK, linewidth=2)
    axes.axvline(1, color=INK, linewidth=1, linestyle="--")
    for suite in dict.fromkeys(row.suite for row in shown):
        axes.barh(0, 0, color=COLOURS[suite], label=TITLES[suite])
    axes.plot([], [], color=INK, linewidth=2, label="bar to stay below")
    axes.set_yticks(places, [row.name for row in shown])
    axes.set_ylim(max([0.0, *places]) + 0.6, -0.6)
    axes.set_xlim(0, end)
    rival = "PyTorch at its best" if any(row.best_torch for row in shown) else "im2col and BLAS"
    axes.set_xlabel(f"minifcn ÷ {rival}: shorter is better", color=INK)
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3)
    if about:
        figure.suptitle(about, fontsize=8, color=INK)
    return figure
