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
    down_h, down_w = -(-h // factor), -(-w // factor)
    cell = (np.arange(h) // factor * down_w)[:, None] + np.arange(w) // factor
    known = (label != void) & (label < num_classes)
    votes = np.bincount(
        cell[known] * num_classes + label[known], minlength=down_h * down_w * num_classes
    ).reshape(down_h, down_w, num_classes)
    shares = (votes / np.maximum(votes.sum(2, keepdims=True), 1)).astype(np.float32)
    rows, columns = _bilinear(h, factor), _bilinear(w, factor)
    result = np.zeros((h, w), np.uint8)
    best: NDArray[np.float32] | None = None
    # A class that is nowhere has share 0, and its exact zeros lose to any class that is somewhere.
    for k in np.flatnonzero(votes.sum((0, 1))):
        share = _along_rows(_along_rows(shares[..., k], rows).T, columns).T
        if best is None:
            result[...], best = k, share
        else:
            result[share > best] = k
            np.maximum(share, best, out=best)
    return result


_Taps = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]


def _bilinear(size: int, factor: int) -> _Taps:
    """For each of `size` pixels the cells before and after it, and the share of the latter.

    Corners are not aligned; beyond the outermost centres the edge is repeated.
    """
    last = -(-size // factor) - 1
    at = np.clip((np.arange(size) + 0.5) / factor - 0.5, 0, last)
    before = np.floor(at).astype(np.intp)
    return before, np.minimum(before + 1, last), (at - before).astype(np.float32)


def _along_rows(cells: NDArray[np.float32], taps: _Taps) -> NDArray[np.float32]:
    """(cells, any) → (size, any), enlarged along the first axis."""
    before, after, share = taps
    return cells[before] * (1 - share)[:, None] + cells[after] * share[:, None]
