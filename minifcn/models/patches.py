"""The patch-wise method, which fully convolutional nets replaced: classify a window of each pixel.

The class of pixel (i, j) is what a classifier says of the k×k window about it, cut out as a picture
of its own: H·W small pictures for one. Neighbouring windows share all but a column of their pixels,
and the classifier computes the same products again for each. The same net run fully convolutionally
computes each product once.

At the picture's edge a window needs pixels that do not exist: the picture is mirrored there, before
anything else, in the same way for both methods. The net itself does not pad, so that both give the
same scores.

Source of the method: Cireşan et al., "Deep Neural Networks Segment Neuronal Membranes in Electron
Microscopy Images" (2012).
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minifcn import nn
from minifcn.errors import InputError, ShapeError
from minifcn.functional import interpolate
from minifcn.geometry import coordinate_map
from minifcn.models.classifier import Classifier
from minifcn.recording import no_grad
from minifcn.tensor import Tensor


def mirrored(picture: np.ndarray, window: int) -> np.ndarray:
    """The picture with a border of half a window: (H, W, C) → (H + k - 1, W + k - 1, C).

    Raises InputError if ``window`` is even, as such a window has no middle pixel; ShapeError if
    the picture is not one.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"window is {window}; give an odd number, so that a pixel is its middle")
    if picture.ndim != 3 or 0 in picture.shape:
        raise ShapeError(f"the picture has the shape {picture.shape}; wanted (H, W, C), none zero")
    half = window // 2
    return np.pad(picture, ((half, half), (half, half), (0, 0)), mode="symmetric")


def windows_about(picture: np.ndarray, window: int) -> np.ndarray:
    """The k×k window about each pixel: (H, W, C) → (H, W, k, k, C), a view that takes no memory."""
    border = mirrored(picture, window)
    return sliding_window_view(border, (window, window), (0, 1)).transpose(0, 1, 3, 4, 2)


def classify_patches(
    classifier: Classifier, picture: np.ndarray, batch_size: int = 1024
) -> np.ndarray:
    """Scores of every pixel, each from its own window, ``batch_size`` windows at a time.

    Args:
        classifier: for square windows with an odd side.
        picture: (H, W, C), of the classifier's dtype.
        batch_size: how many windows are cut out, stored and classified at once.

    Returns:
        (classes, H, W).
    """
    windows = windows_about(picture, _side(classifier))
    height, width = windows.shape[:2]
    scores = []
    with no_grad():
        for first in range(0, height * width, batch_size):
            pixels = np.arange(first, min(first + batch_size, height * width))
            batch = windows[pixels // width, pixels % width]  # here the windows are cut out: a copy
            scores.append(classifier(Tensor(batch.transpose(0, 3, 1, 2))).numpy())
    return np.concatenate(scores).T.reshape(-1, height, width)


def classify_densely(net: nn.Module, picture: np.ndarray, window: int) -> np.ndarray:
    """Scores from one run of a fully convolutional net on the mirrored picture.

    Args:
        net: without padding; what a cell sees is ``window`` pixels wide and high.
        picture: (H, W, C), of the net's dtype.
        window: k.

    Returns:
        (classes, H, W) if the net has stride 1 (`to_dense`). With stride s a score for every s-th
        pixel, (classes, ⌈H/s⌉, ⌈W/s⌉): those at [::s, ::s].

    Raises:
        InputError: if a cell does not see ``window`` pixels, or ``window`` is even.
    """
    for axis in (0, 1):
        seen = coordinate_map(nn.windows(net, axis)).receptive_field
        if seen != window:
            raise InputError(
                f"classify_densely: a cell sees {seen} pixels, but window is {window}; give the "
                "first, and a net whose pools leave no row of its window out"
            )
    border = mirrored(picture, window)[None].transpose(0, 3, 1, 2)
    with no_grad():
        return net(Tensor(border)).numpy()[0]


def enlarge(scores: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """Scores of every s-th pixel, as `classify_densely` gives them, become scores of all.

    Cell i lies over pixel s·i, and between cells the scores are bilinear. (`interpolate` to H×W
    would lay it over the middle of the s pixels from s·i on, (s - 1)/2 too far.) Behind the last
    cell its scores go on.

    Args:
        scores: (classes, ⌈H/s⌉, ⌈W/s⌉), those at [::s, ::s].
        stride: s.
        size: H and W.

    Returns:
        (classes, H, W), of the scores' dtype.

    Raises:
        ShapeError: if there are not so many cells.
    """
    cells = tuple(-(-n // stride) for n in size)
    if scores.ndim != 3 or scores.shape[1:] != cells:
        raise ShapeError(
            f"enlarge: the scores have the shape {scores.shape}; wanted (classes, "
            f"{cells[0]}, {cells[1]}), a cell for every {stride} pixels of {size[0]}×{size[1]}"
        )
    reached = tuple((n - 1) * stride + 1 for n in cells)  # from the first cell to the last
    between = interpolate(Tensor(scores[None]), reached, align_corners=True).numpy()[0]
    behind = [(0, n - m) for n, m in zip(size, reached)]
    return np.pad(between, [(0, 0), *behind], mode="edge")


def _side(classifier: Classifier) -> int:
    height, width = classifier.input_size
    if height != width:
        raise InputError(f"the classifier takes pictures of {height}×{width}; give one for squares")
    return height
