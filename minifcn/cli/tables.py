"""Scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from minifcn.metrics import ConfusionMatrix


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


def compared(matrices: Mapping[str, ConfusionMatrix], classes: Sequence[str], title: str) -> Table:
    """A row for each method, the last one (our own) in bold; few classes get columns."""
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
            style="bold" if number == len(matrices) else "",
        )
    return table


def ceilings(scores: Mapping[int, float], chosen: int) -> Table:
    """What each head could reach at best, and which one is taken."""
    table = Table(title="the ceiling of each head on these labels", title_justify="left")
    table.add_column("head")
    table.add_column("stride", justify="right")
    table.add_column("IoU at best", justify="right")
    table.add_column("")
    for stride, score in sorted(scores.items(), reverse=True):
        table.add_row(
            f"fcn{stride}s",
            str(stride),
            _number(score),
            "taken" if stride == chosen else "",
            style="bold" if stride == chosen else "",
        )
    return table


def _best_bold(values: Sequence[float]) -> list[Text]:
    shown = [_number(value) for value in values]
    best = max((text for text in shown if text != "–"), default="")
    return [Text(text, style="bold" if text == best else "") for text in shown]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
