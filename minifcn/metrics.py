"""One confusion matrix over a whole set of pictures, and the four scores read from it.

The scores are those of Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation" (CVPR 2015), section 5. With n_ij the pixels of class i predicted as class j and
t_i = sum_j n_ij the pixels of class i:

    pixel accuracy            sum_i n_ii / sum_i t_i
    mean accuracy             mean_i n_ii / t_i
    mean IoU                  mean_i n_ii / (t_i + sum_j n_ji - n_ii)
    frequency-weighted IoU    sum_i t_i IoU_i / sum_i t_i

A mean of per-picture or per-batch scores is a different, usually higher number: it is not here.
"""

import numpy as np
from numpy.typing import NDArray

from minifcn.errors import InputError, ShapeError

VOID = 255


class ConfusionMatrix:
    """Counts of (true class, predicted class), summed over every pixel that is not void.

    Args:
        num_classes: how many classes there are; labels run from 0 to num_classes - 1.

    Attributes:
        counts: int64 (num_classes, num_classes), row = truth, column = prediction.
    """

    counts: NDArray[np.int64]

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise InputError(
                f"num_classes is {num_classes} where at least 1 is wanted; count the background too"
            )
        self.num_classes = num_classes
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(
        self, truth: NDArray[np.integer], prediction: NDArray[np.integer], void: int = VOID
    ) -> None:
        """Add the pixels of one picture or batch.

        Args:
            truth: integer classes of any shape, for instance (N, H, W); `void` marks pixels that
                count nowhere, whatever is predicted there.
            prediction: integer classes of the same shape.
            void: the label of pixels to leave out.

        Raises:
            ShapeError: the shapes differ, or an array does not hold integers.
            InputError: a label that is not void, or the prediction beside it, is not a class.
                Nothing is counted then.
        """
        truth, prediction = np.asarray(truth), np.asarray(prediction)
        if truth.shape != prediction.shape:
            raise ShapeError(
                f"ConfusionMatrix.update: prediction has shape {prediction.shape} where the "
                f"truth's shape {truth.shape} is wanted; enlarge the scores before the argmax"
            )
        for name, array in (("truth", truth), ("prediction", prediction)):
            if array.dtype.kind not in "iu":
                raise ShapeError(
                    f"ConfusionMatrix.update: {name} has dtype {array.dtype} where integer "
                    "classes are wanted; take the argmax over the classes first"
                )
        valid = truth != void
        t, p = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
        for name, seen, where in (("truth", t, truth), ("prediction", p, prediction)):
            if seen.size and not (0 <= seen.min() and seen.max() < self.num_classes):
                bad = int(seen[(seen < 0) | (seen >= self.num_classes)][0])
                first = tuple(int(i[0]) for i in np.nonzero(valid & (where == bad)))
                raise InputError(
                    f"the {name} holds class {bad} at index {first} where 0 to "
                    f"{self.num_classes - 1} or void {void} is wanted; give num_classes={bad + 1} "
                    "or more, or correct the labels"
                    if bad >= 0
                    else f"the {name} holds class {bad} at index {first} where 0 to "
                    f"{self.num_classes - 1} or void {void} is wanted; give void={bad} if such "
                    "pixels are to be left out"
                )
        pairs = np.bincount(t * self.num_classes + p, minlength=self.num_classes**2)
        self.counts += pairs.reshape(self.counts.shape)

    def reset(self) -> None:
        """Forget every pixel."""
        self.counts[...] = 0

    def accuracy(self) -> NDArray[np.float64]:
        """Per class, the share of its pixels that are predicted as it: n_ii / t_i (num_classes,).

        NaN for a class that has no pixel in the truth.
        """
        return _ratio(np.diag(self.counts), self.counts.sum(1))

    def iou(self) -> NDArray[np.float64]:
        """Per class, intersection over union: n_ii / (t_i + predicted_i - n_ii) (num_classes,).

        NaN for a class that is neither in the truth nor in the prediction; 0 for one that is only
        predicted.
        """
        hit = np.diag(self.counts)
        return _ratio(hit, self.counts.sum(1) + self.counts.sum(0) - hit)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels that are right; NaN before the first valid pixel."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))

    @property
    def mean_accuracy(self) -> float:
        """Mean of `accuracy()` over the classes that occur in the truth."""
        return _mean(self.accuracy())

    @property
    def mean_iou(self) -> float:
        """Mean of `iou()` over the classes that occur in the truth or in the prediction."""
        return _mean(self.iou())

    @property
    def frequency_weighted_iou(self) -> float:
        """`iou()` weighted by each class's share of the true pixels."""
        pixels = self.counts.sum(1)
        return float(_ratio(np.nansum(pixels * self.iou()), pixels.sum()))


def _ratio(part: NDArray | np.number, whole: NDArray | np.number) -> NDArray[np.float64]:
    """Part / whole in float64, NaN (and no warning) where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN when none is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
