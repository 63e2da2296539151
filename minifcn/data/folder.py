"""A dataset of picture files: each image beside its label file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minifcn.data.pictures import read_image, read_label
from minifcn.data.sample import VOID, Sample
from minifcn.errors import InputError

IMAGE_ENDINGS = (".jpg", ".png", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class PairedFiles:
    """Images and labels that lie in files of the same name; read afresh at each access.

    Attributes:
        names: what each sample is called.
        images: the image files, in the order of `names`.
        labels: the label files, in the same order.
        classes: the classes' names.
        palette: uint8 (number of classes, 3).
        read: (label file) -> uint8 (H, W) class indices below the number of classes, or void.
        void: the label of pixels without a class.
    """

    names: tuple[str, ...]
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    classes: tuple[str, ...]
    palette: NDArray[np.uint8]
    read: Callable[[Path], NDArray[np.uint8]] | None = None
    void: int = VOID

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.names)

    def __getitem__(self, index: int, /) -> Sample:
        """Read sample number `index`.

        Raises:
            InputError: a file cannot be read, or the label has another size than the image.
            IndexError: there is no such sample.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        image = read_image(self.images[index])
        path = self.labels[index]
        label = self.read(path) if self.read else read_label(path, self.classes, self.void)
        if label.shape != image.shape[:2]:
            (h, w), (p, q) = image.shape[:2], label.shape
            raise InputError(
                f"{path} is {q}×{p} pixels where its image {self.images[index]} is {w}×{h}; make "
                "the label anew from that image"
            )
        return Sample(self.names[index], image, label)


def find_image(folder: Path, name: str, endings: Sequence[str] = IMAGE_ENDINGS) -> Path:
    """The file FOLDER/NAME with the first of `endings` that exists.

    Raises:
        InputError: there is none.
    """
    for ending in endings:
        path = folder / f"{name}{ending}"
        if path.is_file():
            return path
    raise InputError(
        f"{folder / name}{endings[0]} does not exist (nor with another ending of "
        f"{', '.join(endings)}); add the picture or take {name!r} out of the list"
    )
