"""Several models on the same pictures: image, each one's labels, and the truth in the last column.

After figure 4 of Long, Shelhamer and Darrell (2015), where FCN-32s, 16s and 8s stand so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from minifcn.data.sample import Sample
from minifcn.study.pictures import VOID, VOID_COLOUR, colour, visible
from minifcn.study.style import INK, legend_below, picture_axes, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_side_by_side(
    samples: Sequence[Sample],
    labels: Mapping[str, Sequence[np.ndarray]],
    notes: Mapping[str, Sequence[str]],
    palette: np.ndarray,
    classes: Sequence[str],
    title: str = "",
) -> Figure:
    """A row for each sample, a column for each model, and a legend below.

    ``labels[model][i]``: integer (H, W), the model's answer to ``samples[i]``; above it stand its
    name and ``notes[model][i]``. ``palette`` uint8 (K, 3). Void pixels are pale in
    the truth alone: a model has an answer for them too.
    """
    aspect = float(np.median([s.label.shape[0] / s.label.shape[1] for s in samples]))
    maps = [s.label for s in samples] + [m for answers in labels.values() for m in answers]
    seen = np.unique(np.concatenate([np.unique(m) for m in maps]))
    entries = [(palette[k], name) for k, name in enumerate(classes) if k in seen]
    if VOID in seen:
        entries.append((np.array(VOID_COLOUR), "void, not counted"))
    figure, grid = sheet(len(samples), len(labels) + 2, min(max(aspect, 0.3), 2.5), len(entries))
    for i, (row, sample) in enumerate(zip(grid, samples, strict=True)):
        pictures = [visible(sample.image)[0]]
        pictures += [colour(answers[i], palette) for answers in labels.values()]
        pictures.append(colour(sample.label, palette))
        above = [sample.name, *(f"{model}{notes[model][i]}" for model in labels), "truth"]
        for axes, picture, text in zip(row, pictures, above, strict=True):
            axes.imshow(picture, interpolation="nearest")
            picture_axes(axes, text)
    legend_below(figure, entries)
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure
