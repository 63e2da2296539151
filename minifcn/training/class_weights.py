"""Weights that make rare classes count as much as frequent ones."""

from __future__ import annotations

import numpy as np

from minifcn.data.counts import PixelCounts


def median_frequency_weights(counts: PixelCounts) -> np.ndarray:
    """Median-frequency balancing (Eigen and Fergus 2015, section 6.3.2): float32 (classes,).

    A class's frequency is its pixels divided by all labelled pixels of the pictures in which it
    occurs; its weight is the median frequency divided by its own. A class that never occurs
    weighs 1, which nothing multiplies.
    """
    pixels = counts.pixels
    weights = np.ones(len(pixels))
    seen = pixels > 0
    if seen.any():
        frequency = pixels[seen] / counts.around[seen]
        weights[seen] = np.median(frequency) / frequency
    return weights.astype(np.float32)
