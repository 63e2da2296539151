"""Colours for label maps: plain, over the picture, and where they are wrong.

Label maps are integer arrays (H, W) of class indices, pictures and results uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

VOID = 255
VOID_COLOUR = (236, 232, 220)

# The error colours of Okabe and Ito's palette, which colour-blind readers can tell apart.
MISSED = (0, 114, 178)
FALSE_ALARM = (230, 97, 0)
CONFUSED = (204, 51, 140)


def has_background(classes: Sequence[str]) -> bool:
    """Whether class 0 is the absence of things rather than a thing."""
    return len(classes) > 0 and classes[0] == "background"


def colour(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Each label's colour from `palette` uint8 (n, 3); void and unknown indices are pale."""
    table = np.empty((256, 3), np.uint8)
    table[:] = VOID_COLOUR
    known = min(len(palette), VOID)
    table[:known] = palette[:known]
    return table[labels]


def edges(labels: np.ndarray) -> np.ndarray:
    """True (H, W) where the pixel to the right or below bears another label."""
    result = np.zeros(labels.shape, bool)
    result[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    result[:-1, :] |= labels[:-1, :] != labels[1:, :]
    return result


def blend(
    image: np.ndarray,
    labels: np.ndarray,
    palette: np.ndarray,
    classes: Sequence[str] = (),
    strength: float = 0.45,
) -> np.ndarray:
    """The picture tinted with the labels' colours, a class that means background left clear.

    The rim of each region has the full colour, so that small regions stay visible.
    """
    tint = colour(labels, palette).astype(np.float32)
    weight = np.full(labels.shape, strength, np.float32)
    if has_background(classes):
        weight[labels == 0] = 0.0
    weight[edges(labels) & (weight > 0)] = 1.0
    weight = weight[..., None]
    return np.rint(image * (1 - weight) + tint * weight).astype(np.uint8)


def visible(image: np.ndarray) -> tuple[np.ndarray, bool]:
    """The picture, and whether it had to be brightened for the eye: microscopes see in the dark.

    A picture whose brightest hundredth begins below a third of white is stretched to white.
    """
    bright = max(float(np.quantile(image.max(axis=2), 0.99)), 1.0)
    if bright >= 85:
        return image, False
    return np.clip(image * (235 / bright), 0, 255).astype(np.uint8), True


def error_map(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, classes: Sequence[str]
) -> np.ndarray:
    """The picture in pale grey; wrong pixels in strong colours, void pixels pale.

    Blue: something was missed (background predicted). Orange: a false alarm (background in
    truth). Magenta: one thing taken for another. Without a background class all is magenta.
    """
    grey = image.mean(axis=2, keepdims=True, dtype=np.float32)
    # Half the contrast, in the upper half of the range, whatever the exposure of the picture.
    span = max(float(grey.max() - grey.min()), 1.0)
    result = np.repeat(150 + 90 * (grey - grey.min()) / span, 3, axis=2).astype(np.uint8)
    wrong = (truth != prediction) & (truth != VOID)
    result[wrong] = CONFUSED
    if has_background(classes):
        result[wrong & (prediction == 0)] = MISSED
        result[wrong & (truth == 0)] = FALSE_ALARM
    result[truth == VOID] = VOID_COLOUR
    return result
