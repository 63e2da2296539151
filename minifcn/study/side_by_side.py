"""Several models on the same pictures: image, each one's labels, and the truth in the last column.

After figure 4 of Long, Shelhamer and Darrell (2015), where FCN-32s, 16s and 8s stand so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from minifcn.data.sample import Sample
from minifcn.study.pictures import VOID, VOID_COLOUR, colour, visible
from minifcn.study.style import INK

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
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    aspect = float(np.median([s.label.shape[0] / s.label.shape[1] for s in samples]))
    columns, cell = len(labels) + 2, 2.3
    maps = [s.label for s in samples] + [m for answers in labels.values() for m in answers]
    seen = np.unique(np.concatenate([np.unique(m) for m in maps]))
    handles = [_patch(Patch, palette[k], name) for k, name in enumerate(classes) if k in seen]
    if VOID in seen:
        handles.append(_patch(Patch, np.array(VOID_COLOUR), "void, not counted"))
    height = len(samples) * (cell * aspect + 0.3) + 0.6 + 0.28 * -(-len(handles) // 7)
    figure = Figure(figsize=(columns * cell + 0.2, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.02)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(len(samples), columns, squeeze=False)
    for i, (row, sample) in enumerate(zip(grid, samples, strict=True)):
        pictures = [visible(sample.image)[0]]
        pictures += [colour(answers[i], palette) for answers in labels.values()]
        pictures.append(colour(sample.label, palette))
        above = [sample.name, *(f"{model}{notes[model][i]}" for model in labels), "truth"]
        for axes, picture, text in zip(row, pictures, above, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(text, fontsize=8.5, color=INK, loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color("#999999")
                spine.set_linewidth(0.6)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 7),
        frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _patch(patch: type, rgb: np.ndarray, name: str) -> object:
    return patch(facecolor=tuple(rgb / 255), edgecolor="#828282", linewidth=0.6, label=name)
