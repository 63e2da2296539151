"""Otsu's threshold: the segmentation to beat before a network earns its keep.

Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Trans. Systems, Man, and
Cybernetics 9(1), 1979.
"""

import numpy as np
from numpy.typing import NDArray


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brightness of an RGB picture (H, W, 3), uint8 (H, W), by the weights of ITU-R BT.601."""
    red, green, blue = (image[..., c].astype(np.uint32) for c in range(3))
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def threshold(values: NDArray[np.uint8]) -> int:
    """The t for which `values <= t` and `values > t` differ most: Otsu's equation (18).

    It maximises the variance between the two sides, w0 w1 (m0 - m1)², where w are their shares of
    the pixels and m their means. The lowest such t; for a picture of one value, that value.
    """
    histogram = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = histogram.cumsum()
    total = (histogram * np.arange(256)).cumsum()
    n, mean = below[-1], total[-1]
    if np.count_nonzero(histogram) < 2:
        return int(values.flat[0]) if values.size else 0
    # n² w0 w1 (m0 - m1)² = (n total0 - below0 total)² / (below0 (n - below0)): one division.
    weight = below * (n - below)
    between = np.zeros(256)
    np.divide((n * total - below * mean) ** 2, weight, out=between, where=weight > 0)
    return int(between.argmax())


def segment(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Split a picture (H, W, 3) in two at Otsu's threshold: uint8 (H, W), 1 = the objects.

    The objects are the side, bright or dark, that holds less of the outermost ring of pixels;
    bright where the ring is shared evenly.
    """
    values = grey(image)
    bright = values > threshold(values)
    ring = np.ones(bright.shape, bool)
    ring[1:-1, 1:-1] = False
    share = bright[ring].mean() if bright.size else 0.0
    return (bright if share <= 0.5 else ~bright).astype(np.uint8)
