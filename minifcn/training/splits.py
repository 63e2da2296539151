"""The three parts of the data that a run uses, and a description of them to hold on to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minifcn.data import camvid, cityscapes, nuclei, plain, sbd, voc
from minifcn.data.folder import PairedFiles
from minifcn.data.sample import Sample
from minifcn.data.transforms import Resize
from minifcn.errors import InputError
from minifcn.training.settings import Settings

LAYOUTS = ("nuclei", "voc", "sbd", "camvid", "cityscapes", "folder")


class Resized:
    """A dataset whose every sample is brought to `size`, (height, width)."""

    def __init__(self, dataset: PairedFiles, size: tuple[int, int]):
        self.dataset = dataset
        self.classes, self.palette, self.void = dataset.classes, dataset.palette, dataset.void
        self._resize = Resize(width=size[1], height=size[0])

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        """Sample number `index` at the common size."""
        return self._resize(self.dataset[index])

    def label(self, index: int) -> NDArray[np.uint8]:
        """The label of sample number `index` alone."""
        return self._resize.label(self.dataset.label(index))


def resized(dataset: PairedFiles, size: tuple[int, int] | None) -> PairedFiles | Resized:
    """The dataset at one size, or as it is for None."""
    return dataset if size is None else Resized(dataset, size)


@dataclass(frozen=True)
class Splits:
    """Training, validation and test pictures, at their own sizes.

    `test_is_val`: the folder has no test split, so its validation pictures serve for both.
    """

    train: PairedFiles
    val: PairedFiles
    test: PairedFiles
    test_is_val: bool = False

    def describe(self) -> dict[str, Any]:
        """How many pictures each split has, and a digest of their names."""
        return {
            name: {
                "pictures": len(split),
                "digest": hashlib.sha256("\n".join(split.names).encode()).hexdigest()[:16],
            }
            for name, split in (("train", self.train), ("val", self.val), ("test", self.test))
        }


def open_split(
    split: str,
    layout: str,
    folder: str | None,
    classes: tuple[str, ...] | None = None,
    test_every: int | None = None,
) -> PairedFiles:
    """One split of a folder, or of the nuclei that come with the package for folder None.

    Raises InputError for a layout that is not known, and all that the layouts raise.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout is {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if classes is not None and layout not in ("voc", "folder"):
        raise InputError(f"the layout {layout} has its own classes; leave out --classes")
    if test_every is not None and layout not in ("nuclei", "folder"):
        raise InputError(
            f"the layout {layout} says itself what is for test; leave out --test-every"
        )
    if layout == "nuclei":
        return nuclei.load(split, folder, test_every=test_every)
    if folder is None:
        raise InputError(f"the layout {layout} needs a folder; give one with --data FOLDER")
    if layout == "voc":
        return voc.load(folder, split, classes)
    if layout == "sbd":
        return sbd.load(folder, split)
    if layout == "camvid":
        return camvid.load(folder, split)
    if layout == "cityscapes":
        return cityscapes.load(folder, split)
    return plain.load(folder, split, classes, test_every)


def open_splits(settings: Settings) -> Splits:
    """The data of a run. A folder without a test split is scored on its val split in the end."""
    layout, folder, classes = settings.layout, settings.folder, settings.classes
    if layout == "folder" and folder is not None and classes is None:
        classes = plain.class_names(Path(folder))  # once, and the same for all splits
    source = (layout, folder, classes, settings.test_every)
    train, val = open_split("train", *source), open_split("val", *source)
    if final_split(layout, folder) == "val":
        return Splits(train, val, val, test_is_val=True)
    return Splits(train, val, open_split("test", *source))


def final_split(layout: str, folder: str | None) -> str:
    """What a trained model is scored on: "test", or "val" where the folder has no test split."""
    return "test" if folder is None or _has_test(layout, folder) else "val"


def _has_test(layout: str, folder: str) -> bool:
    if layout == "voc":
        return "test" in voc.splits(folder)
    if layout == "sbd":
        return "test" in sbd.splits(folder)
    if layout == "camvid":
        return "test" in camvid.splits(folder)
    if layout == "cityscapes":
        return "test" in cityscapes.splits(folder)
    return layout == "nuclei" or "test" in plain.splits(folder)
