"""What a picture with its labels is, and what a dataset is."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

VOID = 255
"""The label of pixels that belong to no class: left out of the loss and of every score."""


@dataclass(frozen=True)
class Sample:
    """One picture and the class of each of its pixels.

    Attributes:
        name: what the picture is called, usually its file name without the ending.
        image: uint8 (H, W, 3), red, green, blue.
        label: uint8 (H, W), class indices, or 255 for void.
    """

    name: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]


class Dataset(Protocol):
    """A row of samples that share their classes. Anything with these members will do."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names; the position is the index in the labels."""

    @property
    def palette(self) -> NDArray[np.uint8]:
        """uint8 (number of classes, 3): the colour in which each class is drawn."""

    @property
    def void(self) -> int:
        """The label of pixels without a class."""

    def __len__(self) -> int:
        """How many samples there are."""

    def __getitem__(self, index: int, /) -> Sample:
        """Sample number `index`, 0 to len - 1."""
