"""Predictions that look at no pixel: what a score is worth beside them.

score(test, lambda sample: otsu.segment(sample.image)).mean_iou
score(test, LocationPrior(train)).mean_iou
score(test, Majority(train)).mean_iou
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from minifcn.data.sample import Dataset, Sample
from minifcn.metrics import ConfusionMatrix


class Majority:
    """Predicts the class that most pixels of a dataset have, everywhere.

    Attributes:
        label: that class.
    """

    def __init__(self, dataset: Dataset) -> None:
        n = len(dataset.classes)
        counts = np.zeros(256, np.int64)
        for i in range(len(dataset)):
            counts += np.bincount(dataset[i].label.ravel(), minlength=256)
        self.label = int(counts[:n].argmax())

    def __call__(self, sample: Sample) -> NDArray[np.uint8]:
        """Labels uint8 (H, W) of one class."""
        return np.full(sample.label.shape, self.label, np.uint8)


class LocationPrior:
    """Predicts for each place the class that is most frequent there in a dataset.

    Pictures of other sizes than the first are laid over it corner to corner.

    Attributes:
        labels: uint8 (H, W), of the first picture's size.
    """

    def __init__(self, dataset: Dataset) -> None:
        n = len(dataset.classes)
        counts: NDArray[np.int32] | None = None
        for i in range(len(dataset)):
            label = dataset[i].label
            if counts is None:
                counts = np.zeros((n, *label.shape), np.int32)
            label = _fit(label, counts.shape[1], counts.shape[2])
            for k in range(n):
                counts[k] += label == k
        self.labels = np.zeros((1, 1), np.uint8) if counts is None else _most(counts)

    def __call__(self, sample: Sample) -> NDArray[np.uint8]:
        """Labels uint8 (H, W) of the sample's size."""
        return _fit(self.labels, *sample.label.shape)


def score(dataset: Dataset, predict: Callable[[Sample], NDArray[np.integer]]) -> ConfusionMatrix:
    """The confusion matrix of `predict(sample) -> (H, W) classes` over a whole dataset."""
    matrix = ConfusionMatrix(len(dataset.classes))
    for i in range(len(dataset)):
        sample = dataset[i]
        matrix.update(sample.label, predict(sample), dataset.void)
    return matrix


def _most(counts: NDArray[np.int32]) -> NDArray[np.uint8]:
    # A place that is void in every picture gets the class that is most frequent overall.
    best = counts.argmax(0).astype(np.uint8)
    best[counts.sum(0) == 0] = counts.sum((1, 2)).argmax()
    return best


def _fit(label: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The label at another size, by the nearest pixel."""
    h, w = label.shape
    rows = (2 * np.arange(height) + 1) * h // (2 * height)
    columns = (2 * np.arange(width) + 1) * w // (2 * width)
    return label[rows[:, None], columns]
