"""Folders laid out as PASCAL VOC's segmentation set.

    JPEGImages/NAME.jpg                          the images (.png does too)
    SegmentationClass/NAME.png                   the labels: palette indices, 255 = void
    ImageSets/Segmentation/{train,val,test}.txt  the splits: one NAME a line
    classes.txt                                  the classes, one a line, from index 0

Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010. CamVid in this layout is
read the same way.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minifcn.data.folder import PairedFiles, find_image
from minifcn.data.pictures import read_names, read_palette, read_text
from minifcn.errors import InputError

PASCAL_CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor".split()
)
"""The 21 classes of VOC 2007 to 2012: `load(folder, "train", classes=PASCAL_CLASSES)`."""

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
        classes: the classes' names; None reads `classes.txt`, which lies beside `ImageSets`.

    Raises:
        InputError: the folder is not laid out so, the list is missing or empty, a listed picture
            lacks its image or its label, or no class names can be found.
    """
    root = find_root(Path(folder))
    names = _read_list(root, split)
    if classes is None:
        path = root / "classes.txt"
        if not path.is_file():
            raise InputError(
                f"{path} does not exist, and without it the classes have no names; write it, one "
                "name a line from index 0, or give the classes"
            )
        classes = read_names(path)
    images = tuple(find_image(root / "JPEGImages", name) for name in names)
    labels = tuple(root / "SegmentationClass" / f"{name}.png" for name in names)
    for name, path in zip(names, labels, strict=True):
        if not path.is_file():
            raise InputError(
                f"{path} does not exist, though {split}.txt lists {name!r}; add the label or take "
                "the name out of the list"
            )
    return PairedFiles(names, images, labels, classes, _palette(labels[0], len(classes)))


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
    for above in (folder, folder / "VOCdevkit"):
        if (above / _LISTS).is_dir():
            return above
        found = sorted(f for f in above.glob("*") if (f / _LISTS).is_dir())
        if len(found) > 1:
            raise InputError(
                f"{above} holds {len(found)} sets ({', '.join(f.name for f in found)}) where one "
                f"is wanted; give {found[0]} or another of them"
            )
        if found:
            return found[0]
    state = "holds no ImageSets/Segmentation" if any(folder.iterdir()) else "is empty"
    raise InputError(
        f"{folder} {state} where a VOC-style set is wanted; give the folder that holds ImageSets, "
        "JPEGImages and SegmentationClass"
    )


def _read_list(root: Path, split: str) -> tuple[str, ...]:
    path = root / _LISTS / f"{split}.txt"
    if not path.is_file():
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
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


def _palette(label: Path, n: int) -> NDArray[np.uint8]:
    """The label file's own colours; VOC's where it has none, or fewer than there are classes."""
    own = read_palette(label)
    return colour_map(n) if own is None or len(own) < n else own[:n]
