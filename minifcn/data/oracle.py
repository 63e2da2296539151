"""The ceiling of a stride: how well labels survive being reduced and enlarged again.

A network that scores on a grid s times coarser than the picture and enlarges those scores
bilinearly can hardly beat the labels themselves sent down the same road. So the ceiling tells
before any training which head is worth it. Long, Shelhamer and Darrell 2015, appendix A, give mean
IoU 86.1, 92.8 and 96.4 for factors 32, 16 and 8 on PASCAL VOC, whose objects are large. Nuclei are
small: on the 30 test pictures theirs is 0.99, 0.95, 0.83, 0.61, 0.33 for 2, 4, 8, 16, 32.

The road: the one-hot labels are averaged over cells of s×s pixels (void pixels have no vote), the
shares are enlarged s times bilinearly with corners not aligned, and each pixel takes the class with
the largest share. Cells that stick out at the right and bottom average what lies inside.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from minifcn.data.sample import VOID, Dataset
from minifcn.metrics import ConfusionMatrix


def ceilings(
    dataset: Dataset, factors: Sequence[int] = (2, 4, 8, 16, 32)
) -> dict[int, ConfusionMatrix]:
    """For each factor, the confusion matrix of the labels with themselves reduced and enlarged."""
    labels = (dataset[i].label for i in range(len(dataset)))
    return ceilings_of(labels, len(dataset.classes), dataset.void, factors)


def ceilings_of(
    labels: Iterable[NDArray[np.uint8]],
    num_classes: int,
    void: int = VOID,
    factors: Sequence[int] = (2, 4, 8, 16, 32),
) -> dict[int, ConfusionMatrix]:
    """The same for labels (H, W), one after the other."""
    matrices = {factor: ConfusionMatrix(num_classes) for factor in factors}
    for label in labels:
        for factor, matrix in matrices.items():
            matrix.update(label, there_and_back(label, factor, num_classes, void), void)
    return matrices


def there_and_back(
    label: NDArray[np.uint8], factor: int, num_classes: int, void: int = VOID
) -> NDArray[np.uint8]:
    """Labels (H, W) reduced by `factor` and enlarged to (H, W) again, without void."""
    h, w = label.shape
    down_h, down_w = _sums(h, factor), _sums(w, factor)
    up_h, up_w = _bilinear(h, factor), _bilinear(w, factor)
    votes = down_h @ (label != void).astype(np.float32) @ down_w.T
    share_of_vote = np.divide(1, votes, out=np.zeros_like(votes), where=votes > 0)
    result = np.zeros((h, w), np.uint8)
    best: NDArray[np.float32] | None = None
    # A class that is nowhere has share 0, and its exact zeros lose to any class that is somewhere.
    for k in np.flatnonzero(np.bincount(label.ravel(), minlength=256)[:num_classes]):
        cells = down_h @ (label == k).astype(np.float32) @ down_w.T * share_of_vote
        share = up_h @ cells @ up_w.T
        if best is None:
            result[...], best = k, share
        else:
            result[share > best] = k
            np.maximum(share, best, out=best)
    return result


def _sums(size: int, factor: int) -> NDArray[np.float32]:
    """(ceil(size / factor), size): adds up the pixels of each cell."""
    cell = np.arange(size) // factor
    return (cell == np.arange(-(-size // factor))[:, None]).astype(np.float32)


def _bilinear(size: int, factor: int) -> NDArray[np.float32]:
    """(size, ceil(size / factor)): enlarges bilinearly, corners not aligned, edges repeated."""
    cells = -(-size // factor)
    at = np.clip((np.arange(size) + 0.5) / factor - 0.5, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))).astype(np.float32)
