"""A dataset of picture files: each image beside its label file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minifcn.data.pictures import read_image, read_label, read_text
from minifcn.data.sample import VOID, Sample
from minifcn.errors import InputError

IMAGE_ENDINGS = (".jpg", ".png", ".jpeg", ".tif", ".tiff", ".bmp")
LABEL_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")
"""A JPEG is found, and refused when it is read."""
SPLITS = ("train", "val", "test")


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
        path, label = self.labels[index], self.label(index)
        if label.shape != image.shape[:2]:
            (h, w), (p, q) = image.shape[:2], label.shape
            raise InputError(
                f"{path} is {q}×{p} pixels where its image {self.images[index]} is {w}×{h}; make "
                "the label anew from that image"
            )
        return Sample(self.names[index], image, label)

    def label(self, index: int) -> NDArray[np.uint8]:
        """The label of sample number `index` alone, uint8 (H, W); its image is not read."""
        path = self.labels[index]
        return self.read(path) if self.read else read_label(path, self.classes, self.void)

    def pick(self, indices: Sequence[int]) -> "PairedFiles":
        """Some of the samples, in the order of `indices`."""
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            images=tuple(self.images[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
        )


def find_image(folder: Path, name: str, endings: Sequence[str] = IMAGE_ENDINGS) -> Path:
    """The file FOLDER/NAME with the first of `endings` that exists.

    Raises:
        InputError: there is none.
    """
    path = _existing(folder, name, endings)
    if path is not None:
        return path
    raise InputError(
        f"{folder / name}{endings[0]} does not exist (nor with another ending of "
        f"{', '.join(endings)}); add the picture or take {name!r} out of the list"
    )


def find_label(folder: Path, image: Path, name: str) -> Path:
    """The label file FOLDER/NAME of an image, with any of LABEL_ENDINGS.

    Raises:
        InputError: there is none.
    """
    path = _existing(folder, name, LABEL_ENDINGS)
    if path is not None:
        return path
    raise InputError(
        f"{folder / name}.png does not exist, though its image {image} does; add the label or "
        "remove the image"
    )


def check_listed(names: Sequence[str], labels: Sequence[Path], split: str) -> None:
    """See that every listed picture has its label file.

    Raises:
        InputError: one has not.
    """
    for name, label in zip(names, labels, strict=True):
        if not label.is_file():
            raise InputError(
                f"{label} does not exist, though {split}.txt lists {name!r}; add the label or take "
                "the name out of the list"
            )


def images_in(folder: Path) -> tuple[Path, ...]:
    """The image files in a folder, in the order of their names.

    Raises:
        InputError: there is none, or two that differ in their endings alone.
    """
    inside = folder.iterdir() if folder.is_dir() else ()
    files = sorted(
        (p for p in inside if p.suffix.lower() in IMAGE_ENDINGS and p.is_file()),
        key=lambda p: (p.stem, p.suffix),
    )
    if not files:
        raise InputError(
            f"{folder} holds no picture ({', '.join(IMAGE_ENDINGS)}); give a folder that does"
        )
    for one, other in zip(files, files[1:], strict=False):
        if one.stem == other.stem:
            raise InputError(
                f"{one} and {other} differ in their endings alone, so that no label belongs to one "
                "of them; rename or remove one"
            )
    return tuple(files)


def read_list(folder: Path, split: str) -> tuple[str, ...]:
    """The names in FOLDER/SPLIT.txt, one a line.

    Raises:
        InputError: there is no such list, it is empty, or has a name twice.
    """
    path = folder / f"{split}.txt"
    if not path.is_file():
        lists = (p.stem for p in folder.glob("*.txt") if p.stem != "classes")
        have = ", ".join(sorted(lists)) or "none"
        raise InputError(
            f"{path} does not exist; give a split that has a list (here: {have}) or write one, a "
            "picture's name a line"
        )
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names:
        raise InputError(f"{path} lists no picture; write one picture's name a line")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} lists {twice!r} more than once; remove the repetition")
    return names


def split_of(place: int, every: int) -> str:
    """The split of the picture at a place in the order of the names, counted from 0.

    Every n-th picture from the first on is for test, every n-th from the middle between two of
    those for val, and the others are for train.
    """
    return {0: "test", every // 2: "val"}.get(place % every, "train")


def _existing(folder: Path, name: str, endings: Sequence[str]) -> Path | None:
    """The file FOLDER/NAME with the first of the endings, in small or in capital letters."""
    paths = (folder / f"{name}{spelt}" for e in endings for spelt in (e, e.upper()))
    return next((path for path in paths if path.is_file()), None)
