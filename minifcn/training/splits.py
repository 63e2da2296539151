"""The three parts of the data that a run uses, and a description of them to hold on to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minifcn.data import nuclei, voc
from minifcn.data.folder import PairedFiles
from minifcn.data.sample import Dataset, Sample
from minifcn.data.transforms import Resize
from minifcn.errors import InputError
from minifcn.training.settings import Settings

LAYOUTS = ("nuclei", "voc")


class Resized:
    """A dataset whose every sample is brought to `size`, (height, width)."""

    def __init__(self, dataset: Dataset, size: tuple[int, int]):
        self.dataset = dataset
        self.classes, self.palette, self.void = dataset.classes, dataset.palette, dataset.void
        self._resize = Resize(width=size[1], height=size[0])

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        """Sample number `index` at the common size."""
        return self._resize(self.dataset[index])


def resized(dataset: Dataset, size: tuple[int, int] | None) -> Dataset:
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
    if layout == "nuclei":
        if classes is not None:
            raise InputError(
                "the layout nuclei has its own classes, background and nucleus; leave out --classes"
            )
        return nuclei.load(split, folder, test_every=test_every)
    if layout == "voc":
        if test_every is not None:
            raise InputError("the layout voc lists its splits in files; leave out --test-every")
        if folder is None:
            raise InputError("the layout voc needs a folder; give one with --data FOLDER")
        return voc.load(folder, split, classes)
    raise InputError(f"layout is {layout!r}; choose one of {', '.join(LAYOUTS)}")


def open_splits(settings: Settings) -> Splits:
    """The data of a run. A folder without a test split is scored on its val split in the end."""
    source = (settings.layout, settings.folder, settings.classes, settings.test_every)
    train, val = open_split("train", *source), open_split("val", *source)
    if settings.layout == "voc" and settings.folder is not None:
        lists = voc.find_root(Path(settings.folder)) / "ImageSets" / "Segmentation"
        if not (lists / "test.txt").exists():
            return Splits(train, val, val, test_is_val=True)
    return Splits(train, val, open_split("test", *source))
