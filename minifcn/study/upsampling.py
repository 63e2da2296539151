"""How an FCN's scores become fine: those of its deepest layer, after each skip, and at the end.

An FCN-8s has four: "fc7", a cell for every 32 pixels; "pool4", the same enlarged by two with the
scores of pool4 added, a cell for 16; "pool3", for 8; "input_x8", enlarged by eight, for each pixel.

Source: the heat maps and figure 3 of Long, Shelhamer and Darrell, "Fully Convolutional Networks for
Semantic Segmentation" (2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

import numpy as np

from minifcn.geometry import CoordinateMap
from minifcn.models import FCN
from minifcn.recording import no_grad
from minifcn.study.pictures import blend, colour, has_background, visible
from minifcn.study.style import INK, legend_below, picture_axes, sheet
from minifcn.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class UpsamplingStage:
    """The scores of a picture at one step.

    Attributes:
        name: of the step, as in ``FCN.positions``.
        scores: (K, P, Q), a cell for each ``position.scale`` pixels along both axes.
        position: where the cells lie: cell i is centred on pixel scale·i + shift.
    """

    name: str
    scores: np.ndarray
    position: CoordinateMap

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return int(self.position.scale)

    @property
    def first(self) -> int:
        """Pixel at which cell 0 begins; negative where it begins before the picture.

        A cell is as long as the stride, so it begins (stride - 1)/2 before its centre.
        """
        return floor(self.position.shift - (self.position.scale - 1) / 2)

    def enlarged(self, height: int, width: int) -> np.ndarray:
        """(K, height, width): each pixel with the scores of the cell that it belongs to."""
        rows = (np.arange(height) - self.first) // self.stride
        columns = (np.arange(width) - self.first) // self.stride
        return self.scores[:, rows[:, None], columns]


def upsampling_stages(model: FCN, x: Tensor) -> list[UpsamplingStage]:
    """The steps from the coarsest scores to the picture's, in evaluation mode.

    ``x``: one picture (1, C, H, W), prepared as the model wants it. The last stage's scores are
    the model's answer (K, H, W).
    """
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            steps = model.decoding(model.features(x), *x.shape[2:])
    finally:
        model.train(was_training)
    return [UpsamplingStage(n, s.numpy()[0], model.positions[n]) for n, s in steps.items()]


def draw_upsampling(
    image: np.ndarray,
    stages: Sequence[UpsamplingStage],
    palette: np.ndarray,
    classes: Sequence[str],
    title: str = "",
) -> Figure:
    """The picture, and each stage beside it: above its classes, below the heat map of one class.

    ``image`` uint8 (H, W, 3), of the size that the model saw; ``palette`` uint8 (K, 3). The class
    of the heat map is the one that the last stage finds most of, background aside, or comes nearest
    to finding where it finds none; its probability is drawn on one scale for all stages.
    """
    height, width = image.shape[:2]
    scores = [stage.enlarged(height, width) for stage in stages]
    labels = [s.argmax(axis=0) for s in scores]
    found = np.bincount(labels[-1].ravel(), minlength=len(classes))
    things = range(1 if has_background(classes) else 0, len(classes))
    shown = max(things, key=lambda k: (found[k], scores[-1][k].mean()))
    seen = np.unique(np.concatenate([np.unique(label) for label in labels]))

    aspect = min(max(height / width, 0.3), 2.5)
    figure, grid = sheet(2, len(stages) + 1, aspect, len(seen))
    bright, _ = visible(image)
    _draw(grid[0, 0], bright, "picture")
    _draw(grid[1, 0], blend(bright, labels[-1], palette, classes), "its classes over it")
    for (above, below), stage, label, score in zip(grid.T[1:], stages, labels, scores, strict=True):
        _draw(above, colour(label, palette), _heading(stage))
        heat = below.imshow(
            _probability(score, shown), cmap="magma", vmin=0, vmax=1, interpolation="nearest"
        )
        picture_axes(below, f"probability of {classes[shown]}")
    bar = figure.colorbar(heat, ax=grid[1, -1], fraction=0.05, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
    legend_below(figure, [(palette[k], classes[k]) for k in seen])
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _draw(axes: Axes, picture: np.ndarray, note: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    picture_axes(axes, note)


def _heading(stage: UpsamplingStage) -> str:
    _, rows, columns = stage.scores.shape
    if stage.stride == 1:
        return f"enlarged by {stage.name.removeprefix('input_x')}: every pixel"
    return f"{stage.name}: {columns}×{rows} cells of {stage.stride}×{stage.stride}"


def _probability(scores: np.ndarray, k: int) -> np.ndarray:
    """Softmax over the classes (K, H, W), of class k."""
    exponentials = np.exp(scores - scores.max(axis=0))
    return exponentials[k] / exponentials.sum(axis=0)
