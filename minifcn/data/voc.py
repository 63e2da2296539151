"""Folders laid out as PASCAL VOC's segmentation set.

    JPEGImages/NAME.jpg                          the images (.png does too)
    SegmentationClass/NAME.png                   the labels: palette indices, 255 = void
    ImageSets/Segmentation/{train,val,test}.txt  the splits: one NAME a line
    classes.txt                                  the classes, one a line, from index 0

PASCAL's own folders, VOC2007 to VOC2012, come without classes.txt: their names are known by the
folder's. A folder of others' must have it, for 21 names would be put to whatever numbers it holds.

Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010. CamVid in this layout is
read the same way.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minifcn.data.folder import SPLITS, PairedFiles, check_listed, find_image, read_list
from minifcn.data.pictures import read_names, read_palette
from minifcn.errors import InputError

PASCAL_CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor".split()
)
"""The 21 classes of VOC 2007 to 2012: `load(folder, "train", classes=PASCAL_CLASSES)`."""

PASCAL_FOLDERS = tuple(f"VOC{year}" for year in range(2007, 2013))

_LISTS = Path("ImageSets") / "Segmentation"


def colour_map(n: int) -> NDArray[np.uint8]:
    """VOC's colours for the indices 0 to n - 1, uint8 (n, 3).

    The bits of the index are dealt in turn to red, green and blue, and each colour is filled from
    its highest bit down: index bit 0 → red bit 7, 1 → green 7, 2 → blue 7, 3 → red 6, ...
    """
    index = np.arange(n)
    colours = np.zeros((n, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return colours


def load(folder: Path | str, split: str, classes: tuple[str, ...] | None = None) -> PairedFiles:
    """The pictures of one split of a VOC-style folder.

    Args:
        folder: holds `ImageSets`, or `VOCdevkit/NAME/ImageSets`, or `NAME/ImageSets`.
        split: the name of a list in `ImageSets/Segmentation`, for instance "train".
        classes: the classes' names; None reads `classes.txt`, which lies beside `ImageSets`, or
            takes PASCAL_CLASSES for a folder of theirs.

    Raises:
        InputError: the folder is not laid out so, the list is missing or empty, a listed picture
            lacks its image or its label, or no class names can be found.
    """
    root = find_root(Path(folder))
    names = read_list(root / _LISTS, split)
    if classes is None:
        classes = class_names(root)
    images = tuple(find_image(root / "JPEGImages", name) for name in names)
    labels = tuple(root / "SegmentationClass" / f"{name}.png" for name in names)
    check_listed(names, labels, split)
    return PairedFiles(names, images, labels, classes, palette_of(labels[0], len(classes)))


def class_names(root: Path) -> tuple[str, ...]:
    """The names in `classes.txt`; without it PASCAL's 21 for a folder called VOC2007 to VOC2012.

    Raises:
        InputError: there is no such file in a folder of another name, or it cannot be read.
    """
    path = root / "classes.txt"
    if not path.is_file() and root.resolve().name in PASCAL_FOLDERS:
        return PASCAL_CLASSES
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, and without it the classes have no names; write it, one name "
            "a line from index 0, or give such a file by --classes"
        )
    return read_names(path)


def find_root(folder: Path) -> Path:
    """The folder that holds `ImageSets/Segmentation`: FOLDER, FOLDER/VOCdevkit/NAME, FOLDER/NAME.

    Raises:
        InputError: there is no such folder, or several.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; give one that holds ImageSets, JPEGImages and "
            "SegmentationClass"
        )
    found = _roots(folder)
    if len(found) > 1:
        raise InputError(
            f"{found[0].parent} holds {len(found)} sets ({', '.join(f.name for f in found)}) where "
            f"one is wanted; give {found[0]} or another of them"
        )
    if found:
        return found[0]
    state = "holds no ImageSets/Segmentation" if any(folder.iterdir()) else "is empty"
    raise InputError(
        f"{folder} {state} where a VOC-style set is wanted; give the folder that holds ImageSets, "
        "JPEGImages and SegmentationClass"
    )


def fits(folder: Path) -> bool:
    """Whether a folder is laid out so, be it with one set or several."""
    return bool(_roots(folder))


def splits(folder: Path | str) -> tuple[str, ...]:
    """The splits of train, val and test that have a list."""
    lists = find_root(Path(folder)) / _LISTS
    return tuple(split for split in SPLITS if (lists / f"{split}.txt").exists())


def _roots(folder: Path) -> list[Path]:
    """The folders that hold `ImageSets/Segmentation`, at the first of the places that has any."""
    for above in (folder, folder / "VOCdevkit"):
        if (above / _LISTS).is_dir():
            return [above]
        found = sorted(f for f in above.glob("*") if (f / _LISTS).is_dir())
        if found:
            return found
    return []


def palette_of(label: Path, n: int) -> NDArray[np.uint8]:
    """The label file's own n colours; VOC's where it has too few, or two that are the same."""
    own = read_palette(label)
    if own is None or len(own) < n or len({tuple(colour) for colour in own[:n].tolist()}) < n:
        return colour_map(n)
    return own[:n]
