"""How often each class occurs in labels: looked at before training, and balanced by.

pixels_k     pixels of class k
pictures_k   labels with at least one of them
around_k     all pixels with a class in those labels
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minifcn.data.sample import VOID


@dataclass(frozen=True)
class PixelCounts:
    """What was counted, label by label.

    Attributes:
        each: int64 (labels, classes), the pixels of each class in each label.
        void_in: int64 (labels,), the pixels without a class.
    """

    each: NDArray[np.int64]
    void_in: NDArray[np.int64]

    @property
    def pixels(self) -> NDArray[np.int64]:
        """(classes,): pixels of each class in all labels."""
        return self.each.sum(0)

    @property
    def pictures(self) -> NDArray[np.int64]:
        """(classes,): in how many labels each class occurs."""
        return (self.each > 0).sum(0)

    @property
    def around(self) -> NDArray[np.int64]:
        """(classes,): pixels of any class in the labels where the class occurs."""
        return self.each.sum(1) @ (self.each > 0)

    @property
    def void(self) -> int:
        """Pixels without a class in all labels."""
        return int(self.void_in.sum())


def count(labels: Iterable[NDArray[np.uint8]], num_classes: int, void: int = VOID) -> PixelCounts:
    """Count every pixel of labels (H, W), whose values are below `num_classes` or `void`."""
    rows = [np.bincount(label.ravel(), minlength=256) for label in labels]
    all_values = np.array(rows, np.int64).reshape(-1, 256)
    return PixelCounts(all_values[:, :num_classes], all_values[:, void])


def showing_all(counts: PixelCounts, most: int) -> Sequence[int]:
    """At most `most` labels' numbers, in order, which together show as many classes as they can.

    Greedy: next is always the label with the most classes not yet shown; when all are, or nothing
    adds any, those that lie farthest from the chosen ones, so that they are spread.
    """
    present = counts.each > 0
    chosen: list[int] = []
    shown = np.zeros(present.shape[1], bool)
    while len(chosen) < min(most, len(present)):
        new = (present & ~shown).sum(1)
        places = np.arange(len(present))
        apart = np.abs(places[:, None] - np.array(chosen or [-1])).min(1)
        new[chosen] = -1
        best = max(range(len(present)), key=lambda i: (new[i], apart[i], -i))
        chosen.append(best)
        shown |= present[best]
    return sorted(chosen)


class Labelled(Protocol):
    """A dataset whose labels can be had without their images."""

    def __len__(self) -> int:
        """How many samples there are."""

    def label(self, index: int) -> NDArray[np.uint8]:
        """The label of sample number `index`."""


def labels(dataset: Labelled) -> Iterator[NDArray[np.uint8]]:
    """The labels of a dataset in order, each read when it is asked for."""
    return (dataset.label(i) for i in range(len(dataset)))
