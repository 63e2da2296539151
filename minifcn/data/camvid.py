"""CamVid as the tutorial of SegNet ships it: a folder of images beside a folder of labels.

    train/NAME.png       trainannot/NAME.png     367 pictures of 480×360
    val/NAME.png         valannot/NAME.png       101
    test/NAME.png        testannot/NAME.png      233

The labels are grey indices: 0 to 10 the classes, 11 void, which becomes 255 here. Brostow, Fauqueur
and Cipolla, "Semantic object classes in video", PRL 2009; the eleven classes are those of
Badrinarayanan, Kendall and Cipolla, "SegNet", TPAMI 2017.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minifcn.data.folder import SPLITS, PairedFiles, find_label, images_in
from minifcn.data.pictures import read_label
from minifcn.data.sample import VOID
from minifcn.errors import InputError

CLASSES = tuple("sky building pole road pavement tree sign fence car pedestrian bicyclist".split())
PALETTE = np.array(
    [
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ],
    np.uint8,
)  # fmt: skip
"""The tutorial's colours."""
VOID_IN_FILES = 11


def load(folder: Path | str, split: str) -> PairedFiles:
    """The pictures of one split, in the order of their names.

    Raises:
        InputError: a folder is missing or holds no picture, or an image lacks its label.
    """
    images, labels = Path(folder) / split, Path(folder) / f"{split}annot"
    for path in (images, labels):
        if not path.is_dir():
            raise InputError(
                f"{path} is not a folder where CamVid's {split} pictures and labels lie in {split} "
                f"and {split}annot; give the folder that holds both"
            )
    files = images_in(images)
    names = tuple(file.stem for file in files)
    masks = tuple(find_label(labels, file, file.stem) for file in files)
    return PairedFiles(names, files, masks, CLASSES, PALETTE.copy(), read)


def fits(folder: Path) -> bool:
    """Whether a folder is laid out so."""
    return (folder / "train").is_dir() and (folder / "trainannot").is_dir()


def splits(folder: Path | str) -> tuple[str, ...]:
    """The splits that have a folder of labels."""
    return tuple(split for split in SPLITS if (Path(folder) / f"{split}annot").is_dir())


def read(path: Path) -> NDArray[np.uint8]:
    """A label file as uint8 (H, W), void as 255."""
    label = read_label(path, CLASSES, VOID_IN_FILES)
    label[label == VOID_IN_FILES] = VOID
    return label
