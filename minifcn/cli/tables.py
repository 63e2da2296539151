"""Scores and counts as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from minifcn.data.counts import PixelCounts
from minifcn.metrics import ConfusionMatrix
from minifcn.study.pictures import has_background


def per_class(matrix: ConfusionMatrix, classes: Sequence[str], title: str) -> Table:
    """A row for each class, and the means below."""
    table = Table(title=title, title_justify="left")
    for name in ("class", "IoU", "accuracy", "% of pixels"):
        table.add_column(name, justify="left" if name == "class" else "right")
    pixels = matrix.counts.sum(axis=1)
    share = 100 * pixels / max(int(pixels.sum()), 1)
    for k, name in enumerate(classes):
        table.add_row(
            Text(name), _number(matrix.iou()[k]), _number(matrix.accuracy()[k]), f"{share[k]:.1f}"
        )
    table.add_section()
    table.add_row("mean", _number(matrix.mean_iou), _number(matrix.mean_accuracy), "")
    table.add_row("frequency-weighted", _number(matrix.frequency_weighted_iou), "", "")
    table.add_row("all pixels", "", _number(matrix.pixel_accuracy), "")
    return table


def side_by_side(
    matrices: Mapping[str, ConfusionMatrix], classes: Sequence[str], title: str
) -> Table:
    """The IoU of each class, a row, by each model, a column; the best in bold, the means below."""
    table = Table(title=f"{title}: IoU", title_justify="left")
    table.add_column("class")
    for name in matrices:
        table.add_column(Text(name), justify="right")
    rows = [(name, [m.iou()[k] for m in matrices.values()]) for k, name in enumerate(classes)]
    for name, values in rows:
        table.add_row(Text(name), *_best_bold(values))
    table.add_section()
    table.add_row("mean", *_best_bold([m.mean_iou for m in matrices.values()]))
    weighted = [m.frequency_weighted_iou for m in matrices.values()]
    table.add_row("frequency-weighted", *_best_bold(weighted))
    table.add_row("pixel accuracy", *_best_bold([m.pixel_accuracy for m in matrices.values()]))
    return table


def compared(
    matrices: Mapping[str, ConfusionMatrix],
    classes: Sequence[str],
    title: str,
    last_is_ours: bool = True,
) -> Table:
    """A row for each method, the last one in bold if it is our own; few classes get columns."""
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    named = [k for k, name in enumerate(classes) if name != "background"]
    named = named if len(named) <= 2 else []
    for name in ("pixel accuracy", "mean IoU", *(f"IoU of {classes[k]}" for k in named)):
        table.add_column(name, justify="right")
    for number, (method, matrix) in enumerate(matrices.items(), 1):
        table.add_row(
            Text(method),
            _number(matrix.pixel_accuracy),
            _number(matrix.mean_iou),
            *(_number(matrix.iou()[k]) for k in named),
            style="bold" if last_is_ours and number == len(matrices) else "",
        )
    return table


def classes(
    train: PixelCounts,
    others: Mapping[str, PixelCounts],
    names: Sequence[str],
    palette: np.ndarray,
    weights: np.ndarray | None = None,
    colours: bool = True,
) -> Table:
    """A row for each class: colour, pixels and pictures to train on, shares, weight if any.

    Narrow enough for 80 columns. ``colours``: whether they can be seen; else they are written.
    """
    table = Table(
        title="the classes in the training labels",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("class", overflow="fold")
    table.add_column("colour", no_wrap=True)
    for name in ("pixels", "%", "pictures", *(f"{split} %" for split in others)):
        table.add_column(name, justify="right", no_wrap=True)
    if weights is not None:
        table.add_column("weight", justify="right", no_wrap=True)
    for k, name in enumerate(names):
        colour = "#{:02x}{:02x}{:02x}".format(*(int(v) for v in palette[k]))
        table.add_row(
            str(k),
            Text(name),
            Text("████", colour) if colours else colour,
            f"{train.pixels[k]:,}",
            percent(train.pixels[k], train.pixels.sum()),
            str(train.pictures[k]),
            *(percent(other.pixels[k], other.pixels.sum()) for other in others.values()),
            *(() if weights is None else (f"{weights[k]:.3g}",)),
        )
    table.add_section()
    table.add_row(  # of all pixels, where the classes' shares are of those that have one
        "",
        "void",
        "",
        f"{train.void:,}",
        percent(train.void, train.void + train.pixels.sum()),
        str((train.void_in > 0).sum()),
        *(percent(other.void, other.void + other.pixels.sum()) for other in others.values()),
    )
    return table


def percent(part: int, whole: int) -> str:
    """A share in percent; what is there never reads as 0."""
    share = 100 * part / max(int(whole), 1)
    return "0" if part == 0 else "<0.01" if share < 0.01 else f"{share:.2f}"


def ceilings(
    matrices: Mapping[int, ConfusionMatrix],
    classes: Sequence[str],
    title: str,
    chosen: int | None = None,
) -> Table:
    """What each head could reach at best, and which one is taken."""
    table = Table(title=title, title_justify="left")
    table.add_column("head")
    table.add_column("stride", justify="right")
    table.add_column("mean IoU at best", justify="right")
    things = has_background(classes)
    if things:
        table.add_column("without background", justify="right")
    if chosen is not None:
        table.add_column("")
    for stride, matrix in sorted(matrices.items(), reverse=True):
        cells = [f"fcn{stride}s", str(stride), _number(matrix.mean_iou)]
        cells += [_number(known_mean(matrix.iou()[1:]))] if things else []
        cells += ["taken"] if stride == chosen else []
        table.add_row(*cells, style="bold" if stride == chosen else "")
    return table


def known_mean(values: np.ndarray) -> float:
    """The mean of those that are not NaN, 0 where all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0


def _best_bold(values: Sequence[float]) -> list[Text]:
    shown = [_number(value) for value in values]
    best = max((text for text in shown if text != "–"), default="")
    return [Text(text, style="bold" if text == best else "") for text in shown]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
