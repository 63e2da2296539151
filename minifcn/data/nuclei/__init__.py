"""Cell nuclei in microscope pictures: the set that ships with minifcn.

110 pictures of 256×256 pixels from the Kaggle Data Science Bowl 2018, CC0 (see LICENSE.md beside
this file): 68 to train, 12 to validate, 30 to test, of four kinds (`kinds()`). The label files hold
0 background, 1 nucleus and 2 border between two nuclei that touch. The border was drawn within the
nuclei, so the two-class task counts it as nucleus unless told otherwise.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from minifcn.data.folder import SPLITS, PairedFiles, find_image, split_of
from minifcn.data.pictures import read_label
from minifcn.data.sample import VOID
from minifcn.errors import InputError

Border = Literal["nucleus", "background", "void", "class"]

CLASSES = ("background", "nucleus", "border")
PALETTE = np.array([(22, 26, 42), (72, 202, 176), (255, 190, 66)], np.uint8)

_HOME = Path(__file__).parent
_BORDERS = {"nucleus": 1, "background": 0, "void": VOID, "class": 2}


def load(
    split: str,
    folder: Path | str | None = None,
    *,
    border: Border = "nucleus",
    test_every: int | None = None,
) -> PairedFiles:
    """One split of the nuclei pictures, in the order of their names.

    Args:
        split: "train", "val" or "test".
        folder: None for the pictures that ship with minifcn; else a folder with `images/NAME.png`
            and `masks/NAME.png` in the same three labels. There a shipped picture keeps its split,
            and any other gets one from a hash of its name alone, so that adding pictures moves
            none: 30 in 110 test, 12 in 110 val.
        border: what the border between touching nuclei is: "nucleus" (default), "background",
            "void" (left out of loss and score), or "class" for a third class of its own.
        test_every: split by place instead: in the order of the names every n-th picture from the
            first on is for test, every n-th from the middle between two of those for val.

    Returns:
        A dataset with the classes background and nucleus, and border when it is a class.

    Raises:
        InputError: no such split or border, test_every below 3, an empty folder, or an image
            without its mask.
    """
    if split not in SPLITS:
        raise InputError(
            f"split is {split!r} where one of {', '.join(SPLITS)} is wanted; give one of them"
        )
    if border not in _BORDERS:
        raise InputError(
            f"border is {border!r} where one of {', '.join(_BORDERS)} is wanted; give one of them"
        )
    if test_every is not None and test_every < 3:
        raise InputError(
            f"test_every is {test_every} where at least 3 is wanted; give for instance 8"
        )
    root = _HOME if folder is None else Path(folder)
    names = tuple(n for n, where in _splits(_names(root), test_every) if where == split)
    if not names:
        raise InputError(
            f"{root / 'images'} has no picture in the {split} split; add pictures or give another "
            "split"
        )
    images = tuple(find_image(root / "images", name, (".png",)) for name in names)
    masks = tuple(root / "masks" / f"{name}.png" for name in names)
    for mask, image in zip(masks, images, strict=True):
        if not mask.is_file():
            raise InputError(
                f"{mask} does not exist, though its image {image} does; add the mask or remove "
                "the image"
            )
    n = 3 if border == "class" else 2
    read: Callable[[Path], NDArray[np.uint8]] = partial(_read_mask, border=border)
    return PairedFiles(names, images, masks, CLASSES[:n], PALETTE[:n].copy(), read)


def kinds() -> dict[str, str]:
    """The kind of each shipped picture: fluorescence, stain-on-white, stain-on-purple or smear."""
    return {name: kind for name, (kind, _) in _index().items()}


def fits(folder: Path) -> bool:
    """Whether a folder holds `images/` and `masks/`, and a shipped picture by its name."""
    if not all((folder / part).is_dir() for part in ("images", "masks")):
        return False
    return any((folder / "images" / f"{name}.png").is_file() for name in _index())


def _index() -> dict[str, tuple[str, str]]:
    with open(_HOME / "split.csv", newline="", encoding="utf-8") as file:
        return {row["id"]: (row["type"], row["split"]) for row in csv.DictReader(file)}


def _names(root: Path) -> list[str]:
    names = sorted(path.stem for path in (root / "images").glob("*.png"))
    if not names:
        raise InputError(
            f"{root / 'images'} holds no .png picture; give a folder with images/NAME.png and "
            "masks/NAME.png"
        )
    return names


def _splits(names: list[str], test_every: int | None) -> Iterator[tuple[str, str]]:
    """Each name with its split."""
    if test_every is None:
        shipped = {name: where for name, (_, where) in _index().items()}
        yield from ((name, shipped.get(name) or _hashed_split(name)) for name in names)
        return
    yield from ((name, split_of(i, test_every)) for i, name in enumerate(names))


def _hashed_split(name: str) -> str:
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "test" if share < 30 / 110 else "val" if share < 42 / 110 else "train"


def _read_mask(path: Path, border: Border) -> NDArray[np.uint8]:
    label = read_label(path, CLASSES, void=None)
    label[label == 2] = _BORDERS[border]
    return label
