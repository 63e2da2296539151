"""Plain folders: images beside masks of the same names.

    images/NAME.jpg     (.png, .tif and .bmp do too)
    masks/NAME.png      palette or grey indices, 255 = void (.tif, .bmp and .gif do too)
    classes.txt         the classes, one a line from index 0; without it all masks are looked
                        through, and the classes are called "class 0", "class 1", ...

Which pictures are for what is said by folders or by lists, whichever there are:

    images/train/NAME.jpg, masks/train/NAME.png    and so for val and test
    train.txt, val.txt, test.txt                   one NAME a line, beside images/

Without either it goes by place: in the order of the names every tenth picture from the first on is
for test, every tenth from the sixth on for val, and the others are for train.
"""

from pathlib import Path

from minifcn.data.folder import (
    LABEL_ENDINGS,
    SPLITS,
    PairedFiles,
    find_image,
    find_label,
    images_in,
    read_list,
    split_of,
)
from minifcn.data.pictures import read_label, read_names
from minifcn.data.voc import palette_of
from minifcn.errors import InputError

TEST_EVERY = 10


def load(
    folder: Path | str,
    split: str,
    classes: tuple[str, ...] | None = None,
    test_every: int | None = None,
) -> PairedFiles:
    """The pictures of one split.

    Args:
        folder: holds `images` and `masks`.
        split: "train", "val" or "test".
        classes: the classes' names; None: those of `classes.txt`, or else by number.
        test_every: where the split goes by place, every n-th picture for test (default: 10).

    Raises:
        InputError: the folder is not laid out so, the split has no picture, an image lacks its
            mask, or test_every stands beside folders or lists.
    """
    root = Path(folder)
    if not fits(root):
        raise InputError(
            f"{root} holds no images and masks where both are wanted; give the folder above them"
        )
    if classes is None:
        classes = class_names(root)
    way = how_split(root)
    if test_every is not None and way != "place":
        raise InputError(
            f"{root} says by {way} which pictures are for test; leave out --test-every"
        )
    images, masks = root / "images", root / "masks"
    if way == "lists":
        names = read_list(root, split)
        files = tuple(find_image(images, name) for name in names)
    else:
        if way == "folders":
            images, masks = images / split, masks / split
            files = images_in(images)
        else:
            files = _by_place(images, split, TEST_EVERY if test_every is None else test_every)
        names = tuple(file.stem for file in files)
    labels = tuple(find_label(masks, f, name) for f, name in zip(files, names, strict=True))
    return PairedFiles(names, files, labels, classes, palette_of(labels[0], len(classes)))


def class_names(folder: Path) -> tuple[str, ...]:
    """The names in `classes.txt`; without it "class 0" to the highest index in any mask.

    Raises:
        InputError: there is no mask, one cannot be read, or none holds an index besides 0 and
            void.
    """
    path = folder / "classes.txt"
    if path.is_file():
        return read_names(path)
    below = [folder / "masks" / split for split in SPLITS] if how_split(folder) == "folders" else []
    masks = [p for b in below or [folder / "masks"] if b.is_dir() for p in b.iterdir()]
    masks = sorted(p for p in masks if p.suffix.lower() in LABEL_ENDINGS)
    highest = max((_highest_index(mask) for mask in masks), default=0)
    if highest == 0:
        raise InputError(
            f"{folder / 'masks'} holds no index besides 0 and 255, and 255 is void, which is "
            "learned by nobody; write the classes' numbers 0, 1, … into the masks"
        )
    return tuple(f"class {k}" for k in range(highest + 1))


def how_split(folder: Path) -> str:
    """By "folders", "lists" or "place"; InputError for folders beside lists."""
    folders = any((folder / "images" / split).is_dir() for split in SPLITS)
    lists = any((folder / f"{split}.txt").is_file() for split in SPLITS)
    if folders and lists:
        raise InputError(
            f"{folder} has both lists such as train.txt and folders such as images/train, which "
            "may disagree; remove one of them"
        )
    return "folders" if folders else "lists" if lists else "place"


def fits(folder: Path) -> bool:
    """Whether a folder is laid out so."""
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def splits(folder: Path | str) -> tuple[str, ...]:
    """The splits that the folder has."""
    root = Path(folder)
    way = how_split(root)
    if way == "place":
        return SPLITS
    if way == "folders":
        return tuple(split for split in SPLITS if (root / "images" / split).is_dir())
    return tuple(split for split in SPLITS if (root / f"{split}.txt").is_file())


def _by_place(images: Path, split: str, every: int) -> tuple[Path, ...]:
    if every < 3:
        raise InputError(f"test_every is {every} where at least 3 is wanted; give for instance 8")
    files = images_in(images)
    mine = tuple(file for i, file in enumerate(files) if split_of(i, every) == split)
    if not mine:
        raise InputError(
            f"{images} holds {len(files)} pictures, of which none falls to {split} when every "
            f"{every}th is for test; add pictures, write train.txt and val.txt, or give a smaller "
            "--test-every"
        )
    return mine


def _highest_index(mask: Path) -> int:
    label = read_label(mask, tuple(f"class {k}" for k in range(255)))
    return int(label[label != 255].max(initial=0))
