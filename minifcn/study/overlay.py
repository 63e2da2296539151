"""A picture under its labels, with a legend below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minifcn.study.pictures import blend

INK = (40, 40, 40)
PAPER = (255, 255, 255)
RIM = (130, 130, 130)


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, classes: Sequence[str]
) -> Image.Image:
    """The tinted picture at its own size (H, W), and below it the classes that occur.

    `image` uint8 (H, W, 3), `labels` integer (H, W), `palette` uint8 (n, 3). The legend says
    what share of the pixels each class has. The result is wider than the picture only when the
    picture is too narrow for the legend.
    """
    height, width = labels.shape
    size = int(np.clip(width / 32, 12, 28))  # text that stays legible beside a large picture
    # Typed loosely: without FreeType Pillow gives its bitmap font, which draws alike.
    font = ImageFont.load_default(size)
    share = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
    entries = [
        (tuple(int(v) for v in palette[k]), f"{classes[k]}  {_percent(share[k])}")
        for k in range(len(classes))
        if share[k] > 0
    ]
    gap, box = size // 2, size
    spans = [box + gap + int(np.ceil(font.getlength(text))) for _, text in entries]
    canvas_width = max(width, max(spans) + 2 * gap)
    rows = _flow(spans, canvas_width - 2 * gap, 2 * gap)
    line = size + gap
    canvas = Image.new("RGB", (canvas_width, height + gap + line * len(rows) + gap // 2), PAPER)
    canvas.paste(Image.fromarray(blend(image, labels, palette, classes)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, places in enumerate(rows):
        top = height + gap + row * line
        for index, left in places:
            rgb, text = entries[index]
            left += gap
            draw.rectangle((left, top, left + box - 1, top + box - 1), fill=rgb, outline=RIM)
            draw.text((left + box + gap, top + box / 2), text, fill=INK, font=font, anchor="lm")
    return canvas


def _flow(spans: Sequence[int], width: int, gap: int) -> list[list[tuple[int, int]]]:
    """Break spans into rows as words into lines: for each row its (index, left) pairs."""
    rows: list[list[tuple[int, int]]] = [[]]
    left = 0
    for index, span in enumerate(spans):
        if rows[-1] and left + span > width:
            rows.append([])
            left = 0
        rows[-1].append((index, left))
        left += span + gap
    return rows


def _percent(share: float) -> str:
    """A share for people: a class that occurs never reads as 0 %."""
    return "<0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"
