"""Weights that make rare classes count as much as frequent ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def median_frequency_weights(labels: Iterable[np.ndarray], num_classes: int) -> np.ndarray:
    """Median-frequency balancing (Eigen and Fergus 2015, section 6.3.2): float32 (num_classes,).

    A class's frequency is its pixels divided by all labelled pixels of the pictures in which it
    occurs; its weight is the median frequency divided by its own. A class that never occurs
    weighs 1, which nothing multiplies.
    """
    pixels = np.zeros(num_classes)
    around = np.zeros(num_classes)
    for label in labels:
        counts = np.bincount(label.ravel(), minlength=256)[:num_classes]
        pixels += counts
        around[counts > 0] += counts.sum()
    weights = np.ones(num_classes)
    seen = pixels > 0
    if seen.any():
        frequency = pixels[seen] / around[seen]
        weights[seen] = np.median(frequency) / frequency
    return weights.astype(np.float32)
