"""Cityscapes: street scenes of 50 cities, 19 classes.

    leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png         2,975 to train, 500 to validate
    gtFine/SPLIT/CITY/NAME_gtFine_labelTrainIds.png     0 to 18 the classes, 255 void

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016. The
download holds `labelIds` alone, with 34 labels; its authors' tool makes the trainIds of them:
`pip install cityscapesscripts`, then `CITYSCAPES_DATASET=FOLDER csCreateTrainIdLabelImgs`. The
labels of the test split are kept by the authors, so the val split serves for both.
"""

from pathlib import Path

import numpy as np

from minifcn.data.folder import PairedFiles
from minifcn.errors import InputError

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
PALETTE = np.array(
    [
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ],
    np.uint8,
)  # fmt: skip
"""The authors' colours."""

_IMAGE, _LABEL, _IDS = "_leftImg8bit.png", "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"


def load(folder: Path | str, split: str) -> PairedFiles:
    """The pictures of one split, "train" or "val", by city and name.

    Raises:
        InputError: the folder holds no such pictures, or an image lacks its label.
    """
    if split == "test":
        raise InputError(
            "Cityscapes keeps the labels of its test split to itself; give the val split"
        )
    root = Path(folder) / "leftImg8bit" / split
    images = tuple(sorted(root.glob(f"*/*{_IMAGE}")))
    if not images:
        raise InputError(f"{root} holds no CITY/NAME{_IMAGE}; give the folder above leftImg8bit")
    names = tuple(image.name.removesuffix(_IMAGE) for image in images)
    truth = Path(folder) / "gtFine" / split
    labels = tuple(
        truth / image.parent.name / f"{name}{_LABEL}"
        for image, name in zip(images, names, strict=True)
    )
    for name, label in zip(names, labels, strict=True):
        if label.is_file():
            continue
        if (label.parent / f"{name}{_IDS}").is_file():
            raise InputError(
                f"{label} does not exist, only the labelIds beside it, which number 34 labels; "
                "make the trainIds with `pip install cityscapesscripts` and "
                f"`CITYSCAPES_DATASET={folder} csCreateTrainIdLabelImgs`"
            )
        raise InputError(
            f"{label} does not exist, though its image {name}{_IMAGE} does; add the label or "
            "remove the image"
        )
    return PairedFiles(names, images, labels, CLASSES, PALETTE.copy())


def fits(folder: Path) -> bool:
    """Whether a folder is laid out so."""
    return (folder / "leftImg8bit").is_dir() and (folder / "gtFine").is_dir()


def splits(folder: Path | str) -> tuple[str, ...]:
    """Never test, whatever lies there: the labels of that split are void throughout."""
    return tuple(s for s in ("train", "val") if (Path(folder) / "leftImg8bit" / s).is_dir())
